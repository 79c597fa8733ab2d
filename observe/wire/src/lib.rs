//! What Prometheus' protocols say on the wire, for the doors that take metrics and for the API that gives them.
//!
//! Not here: what a request means (pipeline), what an answer holds (query), sockets.

pub mod messages;
pub mod native;
