//! What can go wrong when the pipeline starts, and in a store.

use std::path::PathBuf;

/// Why the pipeline could not start. Damage in the log is never a reason: it is counted and told instead.
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
    /// The log's directory cannot be used.
    #[error("cannot use {path}: {source}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process writes to the same log.
    #[error("{path} is in use by another process", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The thread could not be started.
    #[error("cannot start the pipeline's thread: {0}")]
    Thread(std::io::Error),
    /// The exporter could not be made.
    #[error("cannot export to the collector: {0}")]
    Export(String),
}

impl Error {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::Directory { .. } => "directory",
            Self::InUse { .. } => "in_use",
            Self::Thread(_) => "thread",
            Self::Export(_) => "export",
        }
    }
}

/// Why points were not stored. Whoever sent them should send them again, but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The disk refuses; told and counted by the log.
    #[error("the disk refuses writes: nothing was stored, try again later")]
    Disk,
    /// The pipeline has ended.
    #[error("the pipeline has ended")]
    Ended,
    /// One series' labels, or one histogram, are longer than the log's limit on an entry.
    #[error("a series is longer than the log takes: raise record_bytes_max or send less")]
    Oversize,
}

impl WriteError {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Ended => "ended",
            Self::Oversize => "oversize",
        }
    }
}

/// What went wrong when a store was given entries: its own bounded reason, and its own words.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {text}")]
pub struct StoreError {
    /// A bounded name for labels.
    pub reason: &'static str,
    /// What happened, without private values.
    pub text: String,
    /// The entries were taken all the same: they need not be offered again.
    pub is_taken: bool,
    /// The store has no room now: it is given these entries, and what follows them, from the log, a little later.
    pub is_later: bool,
}

impl StoreError {
    /// An error of a store.
    pub fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), is_taken: false, is_later: false }
    }

    /// The same error, of a store that took the entries nevertheless.
    #[must_use]
    pub fn but_taken(self) -> Self {
        Self { is_taken: true, ..self }
    }

    /// A store without room: nothing is wrong, and nothing is lost while the log has it.
    #[must_use]
    pub fn later() -> Self {
        Self { is_later: true, ..Self::new("later", "no room now") }
    }

    /// The bounded name.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}
