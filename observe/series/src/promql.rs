//! The store as PromQL's engine reads it.
//!
//! Matchers and times go down to the index and to the chunks' ranges, so that an engine pays for what it selects. Floats
//! and native histograms come as they were stored, with the hint that each histogram had when it came.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use belfry_promql::{
    Error as QueryError, MatchOp, OfWindow, Purpose, Selected, Series, SeriesData, StretchedSeries,
};

use crate::error::Error;
use crate::matcher::{MatchOperator, Matcher};
use crate::read::SeriesReader;

/// The store for one query, which ends early when the flag is raised.
#[derive(Debug)]
pub struct PromqlSource<'a> {
    reader: &'a SeriesReader,
    cancel: &'a AtomicBool,
    /// What could not be read.
    problems: Problems,
}

type Problems = RefCell<BTreeSet<String>>;

impl<'a> PromqlSource<'a> {
    /// The series of this reader until `cancel` is raised. Its calls read the disk.
    #[must_use]
    pub fn new(reader: &'a SeriesReader, cancel: &'a AtomicBool) -> Self {
        Self { reader, cancel, problems: Problems::default() }
    }
}

impl Series for PromqlSource<'_> {
    fn select(
        &self,
        matchers: &[belfry_promql::Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<SeriesData>, QueryError> {
        let is_cancelled = || self.cancel.load(Ordering::Relaxed);
        select(self.reader, matchers, (from_ms, to_ms), &is_cancelled, &self.problems)
    }

    fn select_for(
        &self,
        matchers: &[belfry_promql::Matcher],
        from_ms: i64,
        to_ms: i64,
        purpose: &Purpose,
    ) -> Result<Selected, QueryError> {
        let is_cancelled = || self.cancel.load(Ordering::Relaxed);
        select_for(self.reader, matchers, (from_ms, to_ms), purpose, (&is_cancelled, &self.problems))
    }

    fn warnings(&self) -> Vec<String> {
        self.problems.borrow().iter().cloned().collect()
    }
}

impl Series for SeriesReader {
    fn select(
        &self,
        matchers: &[belfry_promql::Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<SeriesData>, QueryError> {
        select(self, matchers, (from_ms, to_ms), &|| false, &Problems::default())
    }

    fn select_for(
        &self,
        matchers: &[belfry_promql::Matcher],
        from_ms: i64,
        to_ms: i64,
        purpose: &Purpose,
    ) -> Result<Selected, QueryError> {
        select_for(self, matchers, (from_ms, to_ms), purpose, (&|| false, &Problems::default()))
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
    range: (i64, i64),
    is_cancelled: &dyn Fn() -> bool,
    problems: &Problems,
) -> Result<Vec<SeriesData>, QueryError> {
    let matchers: Vec<Matcher> =
        matchers.iter().map(Matcher::try_from).collect::<Result<_, _>>().map_err(fault)?;
    let selected = reader.read(&matchers, range, is_cancelled, &noting(problems)).map_err(fault)?;
    let series = selected.into_iter().map(|(labels, gathered)| SeriesData {
        labels,
        floats: gathered.floats,
        histograms: gathered.histograms,
    });
    Ok(series.collect())
}

/// Notes each problem once.
fn noting(problems: &Problems) -> impl Fn(&Error) {
    |error| {
        problems.borrow_mut().insert(error.to_string());
    }
}

/// Answers from the level that serves the purpose, or from raw samples.
fn select_for(
    reader: &SeriesReader,
    matchers: &[belfry_promql::Matcher],
    (from_ms, to_ms): (i64, i64),
    purpose: &Purpose,
    (is_cancelled, problems): (&dyn Fn() -> bool, &Problems),
) -> Result<Selected, QueryError> {
    let levels = reader.shared.levels.load_full();
    let head_ms = reader.shared.head().range().map(|range| range.0);
    let raw = || select(reader, matchers, (from_ms, to_ms), is_cancelled, problems).map(Selected::Samples);
    let Some(level) = levels.choose(purpose, (from_ms, to_ms), head_ms) else { return raw() };
    let compiled: Vec<Matcher> =
        matchers.iter().map(Matcher::try_from).collect::<Result<_, _>>().map_err(fault)?;
    let found = reader
        .read_level(&compiled, level, (from_ms, to_ms), (is_cancelled, &noting(problems)))
        .map_err(fault)?;
    // Histograms are thinned: what needs all of them needs the raw ones.
    let needs_all = !matches!(purpose.of_window, OfWindow::Latest | OfWindow::Change | OfWindow::Edge);
    let has_histograms = found.values().any(|gathered| !gathered.histograms.is_empty());
    if needs_all && has_histograms && levels.has_raw_from(from_ms) {
        return raw();
    }
    let series = found.into_iter().map(|(labels, gathered)| StretchedSeries {
        labels,
        stretches: gathered.stretches,
        histograms: gathered.histograms,
    });
    Ok(Selected::Stretches { resolution_ms: level.millis(), series: series.collect() })
}

fn fault(error: Error) -> QueryError {
    match error {
        Error::TooManyPoints { points_max } => QueryError::TooManySamples { samples_max: points_max },
        Error::Cancelled => QueryError::Cancelled,
        other => QueryError::Source(other.to_string()),
    }
}
