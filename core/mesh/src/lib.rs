//! The hop between rooms: one [`Link`] interface, whether the other room is in this process or on another node.
//!
//! A room that offers a [`Service`] calls [`Mesh::serve`]; a room that needs it calls [`Mesh::dial`]; both get
//! [`Links`], which yield a typed, bounded, two-way [`Link`] each time a peer is reached.
//! In one process a link is a pair of bounded channels, with no serialisation. Between nodes it is a TCP connection
//! with mutual TLS 1.3, where each side proves a SPIFFE identity, carrying length-delimited postcard frames.
//!
//! Not here: what the messages mean (the rooms), which peer gets which call (the room that dials chooses among
//! its links), discovery beyond the configured list of peers.

mod acceptor;
mod config;
mod connection;
mod dialer;
mod error;
mod handle;
mod health;
mod identity;
mod link;
mod local;
mod signals;
mod wire;

pub use config::{Config, IdentityConfig, PeerConfig};
pub use error::{Error, LinkError};
pub use handle::Mesh;
pub use health::PeerHealth;
pub use link::{Link, LinkReceiver, LinkSender, Links};
pub use wire::PROTOCOL;

use serde::{Deserialize, Deserializer};

belfry_signal::label_enum! {
    /// What one room offers to another.
    pub enum Service("service") {
        /// Calls are decided: the core serves it, edges dial it.
        Signalling = "signalling",
        /// Sound is relayed: the relay serves it, cores dial it.
        Media = "media",
    }
}

impl Service {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|service| service.as_str() == text)
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let names = || Self::ALL.iter().map(|service| service.as_str()).collect::<Vec<_>>().join(", ");
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is not a service: use one of {}", names()))
        })
    }
}

/// Registers this room's signals without starting it, for the catalogue.
pub fn describe(registry: &belfry_signal::Registry) {
    drop(signals::Signals::register(registry));
}

#[cfg(test)]
mod tests;
