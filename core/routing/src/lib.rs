//! Who may call whom, by which way, at what price. No socket, no clock, no store, no telemetry: the call and the time go
//! in, the decision comes out.

pub mod rating;
