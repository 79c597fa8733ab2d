//! How the store of events can fail.

use std::path::PathBuf;

pub use crate::query::BadQuery;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be used.
    #[error("cannot {action} {path}: {source}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The catalogue could not be read or written.
    #[error("catalogue of splits: {0}")]
    Catalogue(#[from] Box<redb::Error>),
    /// The catalogue is of another format.
    #[error("catalogue of splits is not readable: {0}")]
    Format(String),
    /// A row of the catalogue is not what a row is.
    #[error("row {row:016x} of the catalogue of splits cannot be decoded: {source}")]
    Row {
        /// Its number.
        row: u64,
        /// What is wrong with it.
        source: postcard::Error,
    },
    /// The catalogue is open in another process.
    #[error("{path} is open in another process: stop that one, or give this one another directory")]
    InUse {
        /// The catalogue.
        path: PathBuf,
    },
    /// The index library failed.
    #[error("index: {0}")]
    Index(#[from] tantivy::TantivyError),
    /// A split is not what the catalogue says.
    #[error("split {split:016x} is damaged: {what}")]
    Damaged {
        /// Which.
        split: u64,
        /// What was found.
        what: String,
    },
    /// The disk is as full as it may be.
    #[error(
        "{path} has {free_bytes} bytes free and {wanted_bytes} are to stay free: make room, or set when_disk_full = \"drop_oldest\"",
        path = path.display()
    )]
    DiskFull {
        /// The directory of the store.
        path: PathBuf,
        /// What is free.
        free_bytes: u64,
        /// What is to stay free.
        wanted_bytes: u64,
    },
    /// The index builder is behind and the live buffer is full; nothing was taken, the caller may come again.
    #[error("the index builder is behind and the live buffer is full")]
    Busy,
    /// A live buffer could not be made a split; it stays searchable and is tried again.
    #[error("a split could not be built: {0}")]
    Build(String),
    /// The search text cannot be understood.
    #[error("{0}")]
    BadQuery(#[from] BadQuery),
}

impl Error {
    /// The reason, bounded, for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "disk",
            Self::Catalogue(_) => "catalogue",
            Self::Format(_) => "format",
            Self::Row { .. } => "row",
            Self::InUse { .. } => "in_use",
            Self::Index(_) => "index",
            Self::Damaged { .. } => "damaged",
            Self::DiskFull { .. } => "disk_full",
            Self::Busy => "busy",
            Self::Build(_) => "build",
            Self::BadQuery(_) => "bad_query",
        }
    }

    pub(crate) fn disk(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Disk { action, path: path.into(), source }
    }

    pub(crate) fn catalogue(error: impl Into<redb::Error>) -> Self {
        Self::Catalogue(Box::new(error.into()))
    }
}
