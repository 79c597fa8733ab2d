//! How the page can fail to start.

/// Why the page did not start or a hash was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address could not be taken.
    #[error(transparent)]
    Listen(#[from] belfry_door::Error),
    /// A setting cannot stand; `belfry check` shows all of them.
    #[error("{key} {message}")]
    Config {
        /// Key inside the section.
        key: String,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// A password could not be hashed.
    #[error("cannot hash the password: {0}")]
    Hash(String),
}

impl Error {
    /// The reason, bounded, for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Listen(_) => "listen",
            Self::Config { .. } => "config",
            Self::Hash(_) => "hash",
        }
    }
}
