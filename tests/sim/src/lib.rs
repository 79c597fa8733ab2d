//! Whole calls of simulated phones against the real signalling core, over a network that is as bad as its seed says.
//!
//! A run is a story of some hundred calls in some virtual minutes: phones that ring, answer, refuse, hang up at once or both
//! at once, cancel while somebody picks up, fork, hold, and are switched off; trunks that fail over; a relay that refuses;
//! datagrams that are lost, doubled, late; registrations that are renewed, taken back and run out; an edge or a relay that is
//! away for a while; a core that is killed and starts again from its disk. The core is the product's, with its state on a disk in memory; only time is ours
//! (tokio's paused clock), so that it passes as quickly as the work is done.
//!
//! What must hold whatever happens is in [`witness`]: every INVITE that reached the core gets one final answer, no branch
//! is left alone, every 2xx that comes too late is hung up on, each call has one record and it is true, the relay's
//! sessions are gone, and so is everything in the core's memory. The same seed tells the same story, which its hash shows.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a simulation ends when something is not as it expects"
)]

mod clock;
mod core_house;
mod dice;
mod message;
mod network;
mod phone;
mod relay;
mod script;
mod witness;
mod world;

pub use world::{Outcome, run};
