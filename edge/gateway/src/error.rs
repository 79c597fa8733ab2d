//! Why the edge does not start, or keeps what it had.

use std::io;
use std::path::PathBuf;

/// Errors of starting and reloading. Nothing that a customer does ends up here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contradicts itself.
    #[error("edge.{key}: {problem}")]
    Config {
        /// The key inside the section.
        key: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// A listener's address is taken or not ours.
    #[error("listener {listener} cannot bind {address}")]
    Bind {
        /// The listener's name.
        listener: String,
        /// Its address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate or key is not what it should be.
    #[error("certificate {}: {problem}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The local CA could not make a certificate.
    #[error("the local certificate authority failed")]
    Authority(#[from] rcgen::Error),
    /// TLS refused the settings.
    #[error("the TLS settings are refused")]
    Tls(#[from] rustls::Error),
    /// The GeoIP file is damaged or of an unknown kind.
    #[error("GeoIP file {}: {problem}", path.display())]
    Geoip {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The thread that owns the connections did not start.
    #[error("the edge's runtime did not start")]
    Runtime(#[source] io::Error),
}

impl Error {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::Bind { .. } => "bind",
            Self::File { .. } => "file",
            Self::Certificate { .. } => "certificate",
            Self::Authority(_) => "authority",
            Self::Tls(_) => "tls",
            Self::Geoip { .. } => "geoip",
            Self::Runtime(_) => "runtime",
        }
    }
}
