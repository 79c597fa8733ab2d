//! The front door: wires the rooms of the house together and decides nothing else.

pub mod admin;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod demo;
pub mod drain;
pub mod signals;
