//! How the engine can fail.

use std::path::PathBuf;

use belfry_slo::RulesError;

/// Why the engine did not start, or what it could not write down.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot stand. The operator's to mend.
    #[error("{key}: {message}")]
    Config {
        /// The key inside the section.
        key: String,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// A rule file cannot be read. The operator's to mend.
    #[error("read rule file {path}: {source}")]
    RulesFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A rule file has mistakes. The operator's to mend.
    #[error("rules {place}: {source}")]
    Rules {
        /// Where the rules came from.
        place: String,
        /// The mistakes with their lines and columns.
        source: RulesError,
    },
    /// A rule names something that does not exist. The operator's to mend.
    #[error("rules {place}: SLO {slo:?} names the {kind} {name:?}, which is not one of {known}")]
    Unknown {
        /// Where the rules came from.
        place: String,
        /// The SLO.
        slo: String,
        /// `journey` or `alert`.
        kind: &'static str,
        /// What it names.
        name: String,
        /// What there is.
        known: String,
    },
    /// A rule file or the routes have mistakes. The operator's to mend.
    #[error("{faults}")]
    File {
        /// The mistakes with files, lines and columns.
        faults: String,
    },
    /// The store cannot be opened. The operator's to mend.
    #[error("open alert store {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the store said.
        source: Box<redb::Error>,
    },
    /// The store could not be read or written; it is tried again.
    #[error("use alert store")]
    Store(#[source] Box<redb::Error>),
    /// A row of the store cannot be read back.
    #[error("read row of alert store")]
    Row(#[from] postcard::Error),
    /// The task that used the store was stopped.
    #[error("alert store was interrupted")]
    Interrupted,
}

impl Error {
    /// The reason, bounded, for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::RulesFile { .. } => "rules_file",
            Self::Rules { .. } => "rules",
            Self::Unknown { .. } => "unknown_name",
            Self::File { .. } => "file",
            Self::Open { .. } => "open",
            Self::Store(_) => "store",
            Self::Row(_) => "row",
            Self::Interrupted => "interrupted",
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
