//! How notification can fail.

use std::path::PathBuf;

/// Why a notification was not taken, or why notification did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot stand. Ours to mend; no retry.
    #[error("{key}: {message}")]
    Config {
        /// The key inside the section.
        key: String,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// A routing key is missing or malformed. The operator's to mend; no retry.
    #[error("routing key of service {service:?} from {place}: {message}")]
    RoutingKey {
        /// The service.
        service: String,
        /// The file or variable, never its content.
        place: String,
        /// What is wrong.
        message: &'static str,
    },
    /// The outbox cannot be opened. The operator's to mend.
    #[error("open outbox {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the store said.
        source: Box<redb::Error>,
    },
    /// The outbox could not be read or written: nothing was taken, try again.
    #[error("use outbox")]
    Store(#[source] Box<redb::Error>),
    /// An entry in the outbox cannot be read back.
    #[error("read entry of outbox")]
    Entry(#[from] postcard::Error),
    /// TLS cannot be set up: no trusted roots, or no provider.
    #[error("set up TLS: {0}")]
    Tls(String),
    /// The outbox is full for some of the services: for the others the notification was taken. Try again later.
    #[error("outbox is full with {entries} events for one service")]
    Full {
        /// How many wait.
        entries: usize,
    },
    /// Notification is draining or has ended.
    #[error("notification has ended")]
    Closed,
}

impl Error {
    /// The reason, bounded, for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::RoutingKey { .. } => "routing_key",
            Self::Open { .. } => "open",
            Self::Store(_) => "store",
            Self::Entry(_) => "entry",
            Self::Tls(_) => "tls",
            Self::Full { .. } => "full",
            Self::Closed => "closed",
        }
    }
}

impl From<redb::Error> for Error {
    fn from(error: redb::Error) -> Self {
        store(error)
    }
}

/// Any of the store's many errors.
pub(crate) fn store(error: impl Into<redb::Error>) -> Error {
    Error::Store(Box::new(error.into()))
}
