//! The core between a scripted edge, a scripted relay and real state: what phones see.

mod calling;
mod chaos;
mod failing;
mod house;
mod registering;
mod restarting;
