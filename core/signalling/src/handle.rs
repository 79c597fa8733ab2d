//! How an edge talks to the signalling core: plain data that crosses one mesh link, in process or between nodes.
//!
//! The edge owns sockets and flows; the core owns transactions and dialogs.
//! Together they are one logical SIP proxy: the core writes the Via and Record-Route of the edge's public
//! address, and names the edge's flow by a [`FlowToken`] that only an edge of the site can make (RFC 5626 section 5).

use std::net::{IpAddr, SocketAddr};

use belfry_signal::{Pii, Region};
use serde::{Deserialize, Serialize};

/// The SIP transport of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// RFC 3261 over UDP.
    Udp,
    /// RFC 3261 over TCP.
    Tcp,
    /// RFC 3261 over TLS.
    Tls,
    /// RFC 7118 over WebSocket without TLS.
    Ws,
    /// RFC 7118 over WebSocket with TLS.
    Wss,
}

impl Transport {
    /// The Via transport token (RFC 3261 section 20.42, RFC 7118 section 5.2).
    #[must_use]
    pub fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// The `transport` URI parameter.
    #[must_use]
    pub fn uri_token(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The transport with this `transport` URI parameter; UDP when it is none that we know (RFC 3261 section 19.1.2).
    #[must_use]
    pub fn from_uri_token(token: &str) -> Self {
        let known = [Self::Tcp, Self::Tls, Self::Ws, Self::Wss];
        known.into_iter().find(|known| known.uri_token().eq_ignore_ascii_case(token)).unwrap_or(Self::Udp)
    }

    /// Whether lower layers deliver in order and without loss, so that nothing is retransmitted here.
    #[must_use]
    pub fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }
}

/// Names one flow of one edge: opaque to the core, signed by the edge, safe as the user part of a SIP URI.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowToken(pub String);

/// A place where an edge listens, as customers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicAddress {
    /// What is spoken there.
    pub transport: Transport,
    /// Host name or address literal for Via and Record-Route.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What an edge tells its core.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FromEdge {
    /// The first message on a link: who the edge is and where it listens.
    Hello {
        /// The edge's node name.
        node: String,
        /// Its public SIP addresses, at most one per transport.
        addresses: Vec<PublicAddress>,
    },
    /// One whole SIP message came in (framed, not yet parsed).
    Message(Inbound),
    /// A connection-oriented flow is gone: its bindings are dead (RFC 5626 section 5.3).
    FlowClosed {
        /// The flow.
        flow: FlowToken,
    },
    /// A message could not be sent.
    SendFailed {
        /// The id given with [`ToEdge::Send`].
        id: u64,
        /// Why.
        failure: SendFailure,
    },
}

/// A SIP message with what the edge knows about its sender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Inbound {
    /// The flow it came on; answers and later requests to this peer go there.
    pub flow: FlowToken,
    /// The flow's transport.
    pub transport: Transport,
    /// The peer's address as seen (for `received` and `rport`, RFC 3581).
    pub source: Pii<SocketAddr>,
    /// The region that GeoIP and overrides give the peer.
    pub region: Region,
    /// ISO 3166-1 alpha-2 country of the peer, when known.
    pub country: Option<String>,
    /// The DNS names that the peer's certificate proves, in lower case.
    pub peer_names: Vec<String>,
    /// Nanoseconds since the Unix epoch when the edge had the whole message.
    pub received_unix_nanos: u64,
    /// The message.
    pub bytes: Vec<u8>,
}

/// What the core tells an edge.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToEdge {
    /// Send one SIP message.
    Send {
        /// Comes back in [`FromEdge::SendFailed`].
        id: u64,
        /// Where to.
        target: Target,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A network (an IPv4 address, an IPv6 /64) guessed passwords: what strangers send from there is turned away by the
    /// edge already.
    Ban {
        /// Its first address.
        network: IpAddr,
        /// For so long; 0 lifts the ban.
        seconds: u32,
        /// Whether who is turned away gets a 403, or nothing.
        is_answered: bool,
    },
    /// All the bans of this core, in the place of what it said before.
    Bans {
        /// Whether these are the first of them; what follows belongs to them.
        is_first: bool,
        /// As in [`ToEdge::Ban`]: networks, and for how many seconds.
        bans: Vec<(IpAddr, u32)>,
        /// Whether who is turned away gets a 403, or nothing.
        is_answered: bool,
    },
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Along a flow that a customer opened.
    Flow(FlowToken),
    /// To an address; the edge opens a flow if it has none.
    Address {
        /// How.
        transport: Transport,
        /// Where.
        address: SocketAddr,
        /// Over TLS, the name that the peer's certificate must show: the one that was looked up (RFC 5922 section
        /// 7.1). Without one it must show the address.
        name: Option<String>,
    },
}

/// Why an edge could not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SendFailure {
    /// The token names a flow that is gone: answer 430 (RFC 5626 section 11.6).
    FlowGone,
    /// The token is not one of ours.
    BadToken,
    /// The peer could not be reached.
    Unreachable,
    /// The flow's send queue is full.
    QueueFull,
    /// The edge does not speak this transport outwards.
    UnsupportedTransport,
}

impl SendFailure {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::FlowGone => "flow_gone",
            Self::BadToken => "bad_token",
            Self::Unreachable => "unreachable",
            Self::QueueFull => "queue_full",
            Self::UnsupportedTransport => "unsupported_transport",
        }
    }
}

#[cfg(test)]
mod tests {
    use belfry_mesh::PROTOCOL;

    use super::*;

    fn bytes(message: &impl Serialize) -> String {
        let bytes = postcard::to_stdvec(message).expect("plain data");
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whoever changes what edge and core say to each other raises [`PROTOCOL`], and then the bytes here: a side that
    /// cannot read an order ends the link, and the next, where it should have refused it once.
    #[test]
    fn what_edge_and_core_say_is_that_of_the_protocol() {
        let (network, flow) = (IpAddr::from([192, 0, 2, 1]), FlowToken("f".to_owned()));
        let address = SocketAddr::from((network, 5060));
        let public = PublicAddress { transport: Transport::Wss, host: "h".to_owned(), port: 443 };
        let inbound = Inbound {
            flow: flow.clone(),
            transport: Transport::Tls,
            source: Pii::new(address),
            region: Region::configured("eu").expect("a name"),
            country: Some("GB".to_owned()),
            peer_names: vec!["n".to_owned()],
            received_unix_nanos: 7,
            bytes: vec![9],
        };
        let target = Target::Address { transport: Transport::Ws, address, name: Some("n".to_owned()) };
        let to_core = [
            FromEdge::Hello { node: "e".to_owned(), addresses: vec![public] },
            FromEdge::Message(inbound),
            FromEdge::FlowClosed { flow: flow.clone() },
            FromEdge::SendFailed { id: 7, failure: SendFailure::UnsupportedTransport },
        ];
        let to_edge = [
            ToEdge::Send { id: 7, target: Target::Flow(flow), bytes: vec![9] },
            ToEdge::Send { id: 7, target, bytes: vec![9] },
            ToEdge::Ban { network, seconds: 60, is_answered: true },
            ToEdge::Bans { is_first: true, bans: vec![(network, 60)], is_answered: true },
        ];
        let said: Vec<String> = to_core.iter().map(bytes).chain(to_edge.iter().map(bytes)).collect();
        let known = [
            "00016501040168bb03",
            "0101660200c0000201c4270265750102474201016e070109",
            "020166",
            "030704",
            "00070001660109",
            "0007010300c0000201c42701016e0109",
            "0100c00002013c01",
            "02010100c00002013c01",
        ];
        assert_eq!((PROTOCOL, said.as_slice()), (2, known.map(str::to_owned).as_slice()));
    }
}
