//! The store as PromQL's engine reads it.
//!
//! Matchers and times go down to the index and to the chunks' ranges, so that an engine pays for what it selects. Floats
//! and native histograms come as they were stored, with the hint that each histogram had when it came.

use std::sync::atomic::{AtomicBool, Ordering};

use belfry_promql::{Error as QueryError, MatchOp, Series, SeriesData};

use crate::error::Error;
use crate::matcher::{MatchOperator, Matcher};
use crate::read::SeriesReader;

/// The store for one query, which ends early when the flag is raised.
#[derive(Clone, Copy, Debug)]
pub struct PromqlSource<'a> {
    reader: &'a SeriesReader,
    cancel: &'a AtomicBool,
}

impl<'a> PromqlSource<'a> {
    /// The series of this reader until `cancel` is raised. Its calls read the disk.
    #[must_use]
    pub fn new(reader: &'a SeriesReader, cancel: &'a AtomicBool) -> Self {
        Self { reader, cancel }
    }
}

impl Series for PromqlSource<'_> {
    fn select(
        &self,
        matchers: &[belfry_promql::Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<SeriesData>, QueryError> {
        select(self.reader, matchers, from_ms, to_ms, &|| self.cancel.load(Ordering::Relaxed))
    }
}

impl Series for SeriesReader {
    fn select(
        &self,
        matchers: &[belfry_promql::Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<SeriesData>, QueryError> {
        select(self, matchers, from_ms, to_ms, &|| false)
    }
}

/// A matcher of PromQL on this store.
impl TryFrom<&belfry_promql::Matcher> for Matcher {
    type Error = Error;

    fn try_from(matcher: &belfry_promql::Matcher) -> Result<Self, Error> {
        let operator = match matcher.op {
            MatchOp::Equal => MatchOperator::Equal,
            MatchOp::NotEqual => MatchOperator::NotEqual,
            MatchOp::Regex => MatchOperator::Regex,
            MatchOp::NotRegex => MatchOperator::NotRegex,
        };
        Self::new(&matcher.name, operator, &matcher.value)
    }
}

fn select(
    reader: &SeriesReader,
    matchers: &[belfry_promql::Matcher],
    from_ms: i64,
    to_ms: i64,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Vec<SeriesData>, QueryError> {
    let matchers: Vec<Matcher> =
        matchers.iter().map(Matcher::try_from).collect::<Result<_, _>>().map_err(fault)?;
    let selected = reader.read(&matchers, from_ms, to_ms, is_cancelled).map_err(fault)?;
    let series = selected.into_iter().map(|(labels, gathered)| SeriesData {
        labels,
        floats: gathered.floats,
        histograms: gathered.histograms,
    });
    Ok(series.collect())
}

fn fault(error: Error) -> QueryError {
    match error {
        Error::TooManyPoints { points_max } => QueryError::TooManySamples { samples_max: points_max },
        Error::Cancelled => QueryError::Cancelled,
        other => QueryError::Source(other.to_string()),
    }
}
