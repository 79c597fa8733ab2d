//! The rules of sound on the wire: RTP and RTCP reading, loss and jitter, mean opinion scores, latching, and an
//! editor for session descriptions.
//!
//! Sans-IO: no sockets, no clock, no randomness, no telemetry. Time comes in as microseconds on the caller's
//! monotonic clock; what happens comes out as return values. The relay is the shell around this.

mod error;
pub mod latch;
pub mod mos;
pub mod packet;
pub mod reception;
pub mod rtcp;
pub mod sdp;
pub mod window;

pub use error::Error;
