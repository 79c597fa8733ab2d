//! What can go wrong in the series store.

use std::path::PathBuf;

/// Why the store could not do what was asked.
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
    /// A file or directory cannot be used.
    #[error("cannot use {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process uses the directory.
    #[error("{path} is in use by another process", path = path.display())]
    InUse {
        /// The catalogue.
        path: PathBuf,
    },
    /// The catalogue did not take a transaction.
    #[error("cannot use the catalogue: {0}")]
    Catalogue(Box<redb::Error>),
    /// A block cannot be read as one.
    #[error("{path} is not a whole block", path = path.display())]
    Damaged {
        /// The block.
        path: PathBuf,
    },
    /// A block cannot be described.
    #[error("cannot encode the index of a block: {0}")]
    Encode(postcard::Error),
    /// A regular expression does not compile.
    #[error("{pattern:?} is not a regular expression: {text}")]
    Pattern {
        /// The expression.
        pattern: String,
        /// Why.
        text: String,
    },
    /// A query reads more than it may.
    #[error("the query reads more than {points_max} points: narrow its time or its labels")]
    TooManyPoints {
        /// The limit.
        points_max: usize,
    },
    /// The thread that compacts could not be started.
    #[error("cannot start the compaction's thread: {0}")]
    Thread(std::io::Error),
    /// The writer did not seal what is in memory in time.
    #[error("the samples in memory were not sealed in time: the disk is slow or full; try again")]
    Busy,
    /// A directory is no Prometheus block, or holds what cannot be taken over.
    #[error("{path} is not a Prometheus block that can be read: {text}", path = path.display())]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// The bucket did not do what it was asked for.
    #[error("the bucket with older blocks does not answer, and {object} is left out: {text}")]
    Bucket {
        /// What was read, written or deleted.
        object: String,
        /// What went wrong.
        text: String,
    },
    /// The bucket answers, and does not have a block that it should.
    #[error(
        "{object} with older samples is not in the bucket any more, or is shorter than it was, and is left out"
    )]
    Lost {
        /// The block.
        object: String,
    },
    /// Who asked does not want the answer any more.
    #[error("the query was cancelled")]
    Cancelled,
}

impl Error {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::File { .. } => "file",
            Self::InUse { .. } => "in_use",
            Self::Catalogue(_) => "catalogue",
            Self::Damaged { .. } => "damaged",
            Self::Encode(_) => "encode",
            Self::Pattern { .. } => "pattern",
            Self::TooManyPoints { .. } => "too_many_points",
            Self::Thread(_) => "thread",
            Self::Busy => "busy",
            Self::Foreign { .. } => "foreign",
            Self::Bucket { .. } => "bucket",
            Self::Lost { .. } => "lost",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Every error of redb's many kinds is one of the catalogue.
pub(crate) fn catalogue(error: impl Into<redb::Error>) -> Error {
    Error::Catalogue(Box::new(error.into()))
}
