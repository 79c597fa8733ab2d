//! The core between a scripted edge, a scripted relay and real state: what phones see.

mod calling;
mod cancelling;
mod chaos;
mod failing;
mod forking;
mod hiding;
mod hiding_trunks;
mod house;
mod kpis;
mod looping;
mod prepaid;
mod probing;
mod redirecting;
mod registering;
mod resolving;
mod restarting;
mod routing;
mod telling;
mod waiting;
mod watching;
