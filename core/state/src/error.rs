//! How state can fail.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why something could not be read or kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or broke. All writes of a commit share its error.
    #[error("database: {0}")]
    Database(Arc<sqlx::Error>),
    /// The database could not be brought to the present layout.
    #[error("database layout: {0}")]
    Migration(Arc<sqlx::migrate::MigrateError>),
    /// A file or folder could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// Another process holds the bindings in this folder.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// More writes wait than `writes_queue_max`.
    #[error("too many writes wait for the disk")]
    QueueFull,
    /// As many bindings as `bindings_max` are held.
    #[error("too many bindings are held")]
    BindingsFull,
    /// The address of record has `bindings_per_address_max` bindings.
    #[error("too many bindings for one address of record")]
    AddressFull,
    /// The spool of call records has `records_spool_bytes_max`.
    #[error("the spool of call records is full")]
    SpoolFull,
    /// Neither spool nor database took a call record, and `records_in_memory_max` wait already.
    #[error("a call record found no place")]
    RecordLost,
    /// A version of a billing profile is there with another text.
    #[error(
        "version {version} of billing profile {name:?} is there and says something else; give it a new version"
    )]
    ProfileChanged {
        /// The profile.
        name: String,
        /// The version.
        version: u32,
    },
    /// An account cannot be changed so: what is wrong.
    #[error("{0}")]
    BadAccount(String),
    /// State is closing.
    #[error("state is closed")]
    Closed,
}

impl Error {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Database(_) => "database",
            Self::Migration(_) => "migration",
            Self::File { .. } => "file",
            Self::InUse(_) => "in_use",
            Self::QueueFull => "queue_full",
            Self::BindingsFull => "bindings_full",
            Self::AddressFull => "address_full",
            Self::SpoolFull => "spool_full",
            Self::RecordLost => "record_lost",
            Self::ProfileChanged { .. } => "profile_changed",
            Self::BadAccount(_) => "bad_account",
            Self::Closed => "closed",
        }
    }

    /// SQLite's code, when one statement is at fault and not the database: a constraint, a mismatch, too big.
    pub(crate) fn statement_code(&self) -> Option<i64> {
        let Self::Database(error) = self else { return None };
        let code: i64 = error.as_database_error()?.code()?.parse().ok()?;
        // The low byte is the primary code: SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH.
        matches!(code & 0xff, 18..=20).then_some(code)
    }

    pub(crate) fn is_of_statement(&self) -> bool {
        self.statement_code().is_some()
    }

    /// Whether one thing alone is refused, and others are not.
    pub(crate) fn is_of_one(&self) -> bool {
        let is_unreadable =
            |error: &sqlx::Error| matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. });
        match self {
            Self::BadAccount(_) => true,
            Self::Database(error) if is_unreadable(error) => true,
            _ => self.is_of_statement(),
        }
    }

    pub(crate) fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source: Arc::new(source) }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<sqlx::migrate::MigrateError> for Error {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migration(Arc::new(error))
    }
}
