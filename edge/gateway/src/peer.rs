//! Who is at the other end of a connection, as every part of the edge sees it.

use std::net::SocketAddr;
use std::sync::Arc;

use belfry_signal::Region;
use belfry_steering::{Country, Reason};

use crate::signals::ListenerName;

/// What is known about the customer at the other end, decided once per connection (per packet on UDP).
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Where the customer came in.
    pub(crate) listener: ListenerName,
    /// The customer's address; behind a PROXY protocol header, the one that the header names.
    pub(crate) address: SocketAddr,
    /// Where the customer belongs.
    pub(crate) region: Region,
    /// Which step of steering said so.
    pub(crate) reason: Reason,
    /// The customer's country.
    pub(crate) country: Option<Country>,
    /// The customer's network.
    pub(crate) asn: Option<u32>,
    /// The region's site.
    pub(crate) site: Option<Arc<str>>,
    /// Whether the customer speaks TLS to us.
    pub(crate) is_secure: bool,
    /// The DNS names that its certificate proves, when it has shown one.
    pub(crate) names: Vec<String>,
}
