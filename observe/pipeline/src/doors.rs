//! Doors for others' telemetry: what others log, trace, measure and capture becomes records and points of ours.
//!
//! Each door is a decoder (bytes in, records or a refusal out) in a thin shell of sockets. What is understood goes to
//! the log and is acknowledged when it is durable; what is refused is counted by door and reason, and a sample of it is
//! kept in the stream `refused`. Every text of a stranger is a private value: none becomes a label of ours, and none
//! leaves the region.
//!
//! Not here: what is done with records (the stores), who may read them (query).

mod config;
mod elastic;
mod flow;
mod hep;
mod http;
mod intake;
mod listen;
mod loki;
mod open;
mod otlp;
mod refusal;
mod senders;
mod shape;
mod signals;
mod syslog;
mod tail;

pub use self::config::{
    DoorsConfig, FileConfig, FileFormat, HepConfig, HttpConfig, OtlpConfig, SenderConfig, SyslogConfig,
    TlsConfig,
};
pub use self::open::{DoorsDeps, DoorsError, OpenDoors};
pub use self::senders::SenderAccount;

/// Registers the signals of the doors, for the catalogue.
pub(crate) fn describe(registry: &belfry_signal::Registry) {
    drop(signals::Signals::register(registry));
}

/// Any bytes at the decoders of the doors, for the fuzzer.
#[doc(hidden)]
pub mod fuzz {
    pub use super::elastic::fuzz::elastic;
    pub use super::hep::fuzz::hep;
    pub use super::loki::fuzz::loki;
    pub use super::otlp::fuzz::otlp;
    pub use super::syslog::fuzz::syslog;
}

#[cfg(test)]
mod tests;
