//! What can go wrong with the mesh as a whole, and with one link.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the mesh could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The section does not say what is needed; `Config::check` finds it first.
    #[error("the configuration is wrong: {key}: {fault}")]
    Config {
        /// The key inside the section.
        key: String,
        /// What is wrong and what is allowed.
        fault: String,
    },
    /// The listening address could not be taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the identity could not be read or written.
    #[error("cannot use {path}: {source}", path = path.display())]
    IdentityFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the identity does not hold what it should.
    #[error("{path} does not hold {what}", path = path.display())]
    IdentityContent {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// TLS does not accept the identity.
    #[error("cannot set up mutual TLS: {0}")]
    Tls(String),
}

impl Error {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::Listen { .. } => "listen",
            Self::IdentityFile { .. } => "identity_file",
            Self::IdentityContent { .. } => "identity_content",
            Self::Issue(_) => "issue",
            Self::Tls(_) => "tls",
        }
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LinkError {
    /// The queue is full: the peer does not keep up.
    #[error("the link's queue is full")]
    Full,
    /// The link is gone.
    #[error("the link is down")]
    Down,
}

impl LinkError {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Full => "link_full",
            Self::Down => "link_down",
        }
    }
}
