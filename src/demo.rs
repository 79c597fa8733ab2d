//! Everything on loopback with simulated customers, so that a newcomer sees it work and break.

pub mod backend;
pub mod plan;
pub mod report;
