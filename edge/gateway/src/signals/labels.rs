//! The labels of the edge: closed lists, and the names of listeners from the configuration.

use belfry_signalling::handle::{SendFailure, Transport};

belfry_signal::label_name! {
    /// A listener's configured name.
    pub struct ListenerName("listener", max = 32)
}

belfry_signal::label_enum! {
    /// What became of an HTTP request: one list for the log, the metric and the span.
    pub enum ResponseFlag("flag") {
        /// A proper answer in time.
        Fine = "fine",
        /// A proper answer, later than `slow_after`.
        Slow = "slow",
        /// The backend itself answered with a server error.
        BackendError = "backend_error",
        /// No server of the backend could be reached.
        BackendUnreachable = "backend_unreachable",
        /// The backend did not answer in time.
        BackendTimeout = "backend_timeout",
        /// The backend broke off, or what it sent is not HTTP.
        BackendBroken = "backend_broken",
        /// No route matches.
        NoRoute = "no_route",
        /// The client left before the answer.
        ClientGone = "client_gone",
        /// The client stopped sending its body or reading its answer.
        ClientStalled = "client_stalled",
        /// What the client sent is not HTTP.
        ClientMalformed = "client_malformed",
        /// The edge itself failed.
        Internal = "internal",
    }
}

belfry_signal::label_enum! {
    /// What became of a datagram for which there was no time.
    pub(crate) enum Shed("outcome") {
        /// It got a 503.
        Answered = "answered",
        /// Nothing was said.
        Dropped = "dropped",
    }
}

belfry_signal::label_enum! {
    /// The class of an HTTP status.
    pub(crate) enum StatusClass("class") {
        Informational = "1xx",
        Success = "2xx",
        Redirect = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
        None = "none",
    }
}

belfry_signal::label_enum! {
    /// How a TLS handshake ended.
    pub(crate) enum Handshake("outcome") {
        Done = "done",
        Resumed = "resumed",
        TimedOut = "timed_out",
        CutShort = "cut_short",
        Malformed = "malformed",
        Incompatible = "incompatible",
        ClientRefused = "client_refused",
        Failed = "failed",
    }
}

belfry_signal::label_enum! {
    /// A limit that a connection or message ran into.
    pub(crate) enum Limit("limit") {
        Connections = "connections",
        ListenerConnections = "listener_connections",
        IpConnections = "ip_connections",
        Handshakes = "handshakes",
        SipFlows = "sip_flows",
        FlowQueue = "flow_queue",
        ProxyHeaderTime = "proxy_header_time",
        HeaderTime = "header_time",
        HeaderBytes = "header_bytes",
        SipIdle = "sip_idle",
        WriteStall = "write_stall",
        FileDescriptors = "file_descriptors",
    }
}

belfry_signal::label_enum! {
    /// What was malformed.
    pub(crate) enum Malformed("reason") {
        ProxyHeader = "proxy_header",
        FirstBytes = "first_bytes",
        HttpRequest = "http_request",
        WebSocket = "websocket",
        SipStartLine = "sip_start_line",
        SipHeaderTooLong = "sip_header_too_long",
        SipContentLength = "sip_content_length",
        SipTooLong = "sip_too_long",
        SipNoCallId = "sip_no_call_id",
        SipNotUtf8 = "sip_not_utf8",
    }
}

belfry_signal::label_enum! {
    /// Which way bytes or messages went, seen from the edge.
    pub(crate) enum Way("direction") { In = "in", Out = "out" }
}

belfry_signal::label_enum! {
    /// The SIP transports.
    pub(crate) enum TransportLabel("transport") {
        Udp = "udp",
        Tcp = "tcp",
        Tls = "tls",
        Ws = "ws",
        Wss = "wss",
    }
}

belfry_signal::label_enum! {
    /// Why no core took a message.
    pub(crate) enum CoreRefusal("reason") { NoneUp = "none_up", QueueFull = "queue_full" }
}

belfry_signal::label_enum! {
    /// Why a message for a customer was not sent.
    pub(crate) enum SendRefusal("reason") {
        FlowGone = "flow_gone",
        BadToken = "bad_token",
        Unreachable = "unreachable",
        QueueFull = "queue_full",
        UnsupportedTransport = "unsupported_transport",
    }
}

belfry_signal::label_enum! {
    /// How a reload ended.
    pub(crate) enum Reload("outcome") { Done = "done", Refused = "refused" }
}

impl From<Transport> for TransportLabel {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp => Self::Tcp,
            Transport::Tls => Self::Tls,
            Transport::Ws => Self::Ws,
            Transport::Wss => Self::Wss,
        }
    }
}

impl From<SendFailure> for SendRefusal {
    fn from(failure: SendFailure) -> Self {
        match failure {
            SendFailure::FlowGone => Self::FlowGone,
            SendFailure::BadToken => Self::BadToken,
            SendFailure::Unreachable => Self::Unreachable,
            SendFailure::QueueFull => Self::QueueFull,
            SendFailure::UnsupportedTransport => Self::UnsupportedTransport,
        }
    }
}

impl StatusClass {
    pub(crate) fn of(status: Option<u16>) -> Self {
        match status.unwrap_or_default() / 100 {
            1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirect,
            4 => Self::ClientError,
            5 => Self::ServerError,
            _ => Self::None,
        }
    }
}

/// The methods that the edge tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Invite,
    Register,
    Ack,
    Other,
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Invite => "INVITE",
            Self::Register => "REGISTER",
            Self::Ack => "ACK",
            Self::Other => "OTHER",
        }
    }
}
