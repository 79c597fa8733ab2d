//! The signalling core's shell: registrar, stateful proxy, call records.
//!
//! Edge and core together are one logical SIP proxy. The edge owns sockets and flows; the core owns transactions,
//! dialogs and calls, and names the edge's flows by their tokens. One task owns all state ([`Core`]); links are
//! read by tasks of their own, and stores and relays are asked without waiting.
//!
//! Not here: the state machines and the wire layer (`sip-proto`), what is kept on disk (`state`), sockets (the
//! edge), sound (the relay).

mod admission;
mod answers;
mod authority;
mod calls;
mod config;
mod core;
mod dead;
mod edges;
mod error;
mod exchange;
pub mod handle;
mod keepalive;
mod location;
mod prepaid;
mod probing;
mod proxy;
mod received;
mod registrar;
mod relays;
mod resolver;
mod routes;
mod signals;

#[cfg(test)]
mod tests;

pub use crate::calls::live::{
    InquiryError, LiveCall, LiveFilter, LivePage, LiveParty, LiveSession, LiveState,
};
pub use crate::core::{Core, CoreHandle, Deps, Faults, Holdings};
pub use admission::KnownFlows;
pub use authority::Ban;
pub use belfry_state::network_of;
pub use config::{
    BannedAnswer, Config, DigestAlgorithm, GuardConfig, Hiding, KeepAliveConfig, MessageConfig, PrepaidConfig,
};
pub use error::Error;
pub use prepaid::{Prepaid, PrepaidError};
pub use probing::GatewayState;
pub use routes::{Routes, RoutesError, compose, rows_of_known};

/// Registers the core's signals without starting it, for the catalogue.
pub fn describe(registry: &belfry_signal::Registry) {
    drop(signals::Signals::register(registry));
}
