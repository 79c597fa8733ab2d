//! Why a query has no answer: it does not parse, it has no defined result, or it asks for too much.

use crate::ast::Span;

/// A failed query.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The text is not PromQL. `line` and `column` count from 1, `column` in bytes.
    #[error("{line}:{column}: parse error: {message}")]
    Parse {
        /// Line of the fault.
        line: usize,
        /// Column of the fault.
        column: usize,
        /// What was found and what was expected.
        message: String,
    },
    /// The query is well formed, but these data give it no defined result.
    #[error("{0}")]
    Execution(String),
    /// The query would hold more samples than `Options::samples_max` allows.
    #[error("query processing would load too many samples: samples_max is {samples_max}")]
    TooManySamples {
        /// The limit that was reached.
        samples_max: usize,
    },
    /// The caller raised the cancel flag.
    #[error("query was cancelled")]
    Cancelled,
    /// The series source failed.
    #[error("series source: {0}")]
    Source(String),
}

impl Error {
    /// A bounded word for metrics and for the `errorType` of the HTTP API.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Parse { .. } => "bad_data",
            Error::Execution(_) => "execution",
            Error::TooManySamples { .. } => "too_many_samples",
            Error::Cancelled => "canceled",
            Error::Source(_) => "internal",
        }
    }

    pub(crate) fn parse(text: &str, span: Span, message: impl Into<String>) -> Error {
        let (line, column) = line_and_column(text, span.start);
        Error::Parse { line, column, message: message.into() }
    }
}

/// Line and column (from 1, column in bytes) of a byte offset.
pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (line, before.len() - line_start + 1)
}
