//! Where customers come in: TLS by server name, HTTP/1.1, h2, WebSocket, and SIP over UDP, TCP, TLS and WebSocket.
//!
//! The edge admits connections, ends TLS, finds out what is spoken, places the customer in a region, forwards HTTP
//! to backends and SIP to signalling cores over the mesh, and holds the flows to phones (RFC 5626). It keeps no call
//! state. This is the only crate that knows Pingora, which stays fenced behind [`Gateway`].
//!
//! Not here: parsing SIP and deciding calls (the core), deciding regions (steering), media (the relay).

mod admission;
mod bans;
mod certificates;
mod config;
mod core_links;
mod cores;
mod datagrams;
mod edge;
mod error;
mod files;
mod flow_token;
mod flows;
mod framing;
mod geography;
mod handle;
mod http;
mod listener;
mod pace;
mod peer;
mod proxy_header;
mod routes;
mod rush;
mod server;
mod signals;
mod sip_connect;
mod sip_stream;
mod sip_text;
mod sip_udp;
mod sip_websocket;
mod sniff;
mod stream;
mod stun;

pub use config::{
    BackendConfig, CertificateConfig, Config, GeoipConfig, HttpConfig, LimitsConfig, ListenerConfig,
    ListenerKind, RouteConfig, SipConfig, TimeoutsConfig, TlsConfig,
};
pub use error::Error;
pub use handle::{Gateway, GatewayDeps, GatewayHandle};
pub use signals::{ListenerName, ResponseFlag};

use std::net::IpAddr;

use belfry_signal::{Registry, TraceKey};

/// Registers this room's signals without starting it, for the catalogue.
pub fn describe(registry: &Registry) {
    drop(signals::Signals::register(registry, TraceKey::new([0; 32])));
}

/// Where a customer at this address would go, step by step: the GeoIP file first, then the operator's map.
///
/// # Errors
/// When the GeoIP file or the map cannot be used.
pub fn explain(config: &Config, address: IpAddr, registry: &Registry) -> Result<Vec<String>, Error> {
    let signals = signals::Signals::register(registry, TraceKey::new([0; 32]));
    Ok(geography::Geography::load(config, &signals)?.explain(address))
}
