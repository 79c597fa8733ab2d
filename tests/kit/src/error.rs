//! How a simulated customer can fail.

use std::sync::Arc;

/// Why something did not come about.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A socket could not be made, bound, connected or used.
    #[error("cannot {action}: {source}")]
    Socket {
        /// What was tried, as `connect`.
        action: &'static str,
        /// Why not.
        source: Arc<std::io::Error>,
    },
    /// TLS was refused or is set up wrongly.
    #[error("tls: {0}")]
    Tls(String),
    /// The WebSocket handshake failed.
    #[error("websocket: {0}")]
    WebSocket(String),
    /// The HTTP exchange failed.
    #[error("http: {0}")]
    Http(String),
    /// The connection is gone.
    #[error("the connection is gone")]
    ConnectionLost,
    /// No final response in time.
    #[error("no final response in time")]
    Timeout,
    /// A final response that is not a success.
    #[error("answered {status}")]
    Rejected {
        /// The status code.
        status: u16,
    },
    /// The peer broke the protocol.
    #[error("protocol: {0}")]
    Protocol(&'static str),
}

impl Error {
    /// A bounded name for tables and labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Socket { .. } => "socket",
            Self::Tls(_) => "tls",
            Self::WebSocket(_) => "websocket",
            Self::Http(_) => "http",
            Self::ConnectionLost => "connection_lost",
            Self::Timeout => "timeout",
            Self::Rejected { .. } => "rejected",
            Self::Protocol(_) => "protocol",
        }
    }

    pub(crate) fn socket(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Socket { action, source: Arc::new(source) }
    }
}
