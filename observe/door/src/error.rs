//! How a door can fail to open.

use std::net::SocketAddr;

use crate::tokens::TokenError;

/// Why a door did not open.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address could not be taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The token file cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Error {
    /// The reason, bounded, for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
            Self::Token(_) => "token",
        }
    }
}
