//! Why the relay does not start.

/// A failure at start-up; failures of requests are [`belfry_relay_api::Refusal`]s.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot work.
    #[error("media.{key}: {what}")]
    Config {
        /// The key inside the section.
        key: String,
        /// What is wrong and what is allowed.
        what: String,
    },
    /// The bind address is not one of this host's.
    #[error("media ports cannot be bound at the configured address: {0}")]
    Bind(std::io::Error),
    /// The event loop of a worker could not be made.
    #[error("a media worker cannot poll: {0}")]
    Poll(std::io::Error),
    /// A worker thread could not be started.
    #[error("a media worker cannot start: {0}")]
    Thread(std::io::Error),
}

impl Error {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::Bind(_) => "bind",
            Self::Poll(_) => "poll",
            Self::Thread(_) => "thread",
        }
    }
}
