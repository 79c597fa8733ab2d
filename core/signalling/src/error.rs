//! What can go wrong when the core starts. What goes wrong with a call is answered in SIP and counted in signals.

/// Why the core could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration does not hold together.
    #[error("{key}: {allowed}")]
    Config {
        /// The key in the `[signalling]` section.
        key: String,
        /// What is wrong and what is allowed.
        allowed: String,
    },
}

impl Error {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
        }
    }
}
