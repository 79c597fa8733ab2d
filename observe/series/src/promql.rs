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
use crate::level::Choice;
use crate::matcher::{MatchOperator, Matcher};
use crate::read::{Asker, SeriesReader};

/// A change of thinned histograms is right enough in windows of so many stretches.
const CHANGE_STRETCHES_MIN: i64 = 4;

/// The store for one query, which ends early when the flag is raised.
#[derive(Debug)]
pub struct PromqlSource<'a> {
    reader: &'a SeriesReader,
    cancel: &'a AtomicBool,
    is_strict: bool,
    problems: Problems,
}

/// What is wrong with an answer.
#[derive(Debug, Default)]
struct Problems {
    /// What could not be read.
    missing: RefCell<BTreeSet<String>>,
    /// What is not exact.
    notes: RefCell<BTreeSet<String>>,
}

impl<'a> PromqlSource<'a> {
    /// The series of this reader until `cancel` is raised. Its calls read the disk. What a bucket does not give is left out
    /// of an answer, with a warning.
    #[must_use]
    pub fn new(reader: &'a SeriesReader, cancel: &'a AtomicBool) -> Self {
        Self { reader, cancel, is_strict: false, problems: Problems::default() }
    }

    /// As [`new`](Self::new), for who must not judge by a part: what a bucket does not give is an error.
    #[must_use]
    pub fn strict(reader: &'a SeriesReader, cancel: &'a AtomicBool) -> Self {
        Self { is_strict: true, ..Self::new(reader, cancel) }
    }

    fn whole<T>(&self, selected: T) -> Result<T, QueryError> {
        match self.problems.missing.borrow().first() {
            Some(problem) if self.is_strict => Err(QueryError::Source(problem.clone())),
            _ => Ok(selected),
        }
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
        let selected = select(self.reader, matchers, (from_ms, to_ms), &is_cancelled, &self.problems)?;
        self.whole(selected)
    }

    fn select_for(
        &self,
        matchers: &[belfry_promql::Matcher],
        from_ms: i64,
        to_ms: i64,
        purpose: &Purpose,
    ) -> Result<Selected, QueryError> {
        let is_cancelled = || self.cancel.load(Ordering::Relaxed);
        let asked = (&is_cancelled as &dyn Fn() -> bool, &self.problems);
        let selected = select_for(self.reader, matchers, (from_ms, to_ms), purpose, asked)?;
        self.whole(selected)
    }

    fn warnings(&self) -> Vec<String> {
        let (missing, notes) = (self.problems.missing.borrow(), self.problems.notes.borrow());
        missing.iter().chain(notes.iter()).cloned().collect()
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
    let selected =
        reader.read(&matchers, range, Asker { is_cancelled, note: &noting(problems) }).map_err(fault)?;
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
        problems.missing.borrow_mut().insert(error.to_string());
    }
}

/// Answers from the level that serves the purpose, or from raw samples, or from both where there are no longer all of these.
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
    let choose = |stretch_max_ms: i64| levels.choose(purpose, (from_ms, to_ms), head_ms, stretch_max_ms);
    let Some(mut choice) = choose(i64::MAX) else { return raw() };
    let compiled: Vec<Matcher> =
        matchers.iter().map(Matcher::try_from).collect::<Result<_, _>>().map_err(fault)?;
    let read = |choice: Choice| {
        let asker = Asker { is_cancelled, note: &noting(problems) };
        reader.read_level(&compiled, choice, (from_ms, to_ms), asker).map_err(fault)
    };
    let mut found = read(choice)?;
    if found.values().any(|gathered| !gathered.histograms.is_empty()) {
        // Histograms are thinned: what needs all of them needs the raw ones.
        let is_change = purpose.of_window == OfWindow::Change;
        let needs_all = !is_change && !matches!(purpose.of_window, OfWindow::Latest | OfWindow::Edge);
        if needs_all && levels.has_raw_from(from_ms) {
            return raw();
        }
        // How far apart they were is not known, so a change is wrong by up to the distance of those that are left.
        let stretch_max_ms = purpose.range_ms / CHANGE_STRETCHES_MIN;
        if is_change && choice.level.millis() > stretch_max_ms {
            match choose(stretch_max_ms) {
                Some(finer) => {
                    choice = finer;
                    found = read(choice)?;
                }
                None if levels.has_raw_from(from_ms) => return raw(),
                None => note_thinned(problems, choice),
            }
        }
    }
    if choice.until_ms.is_some() {
        note_gone(problems, choice);
    }
    let end_ms = choice.until_ms.unwrap_or(i64::MAX);
    let series = found.into_iter().map(|(labels, gathered)| StretchedSeries {
        labels,
        stretches: gathered.stretches,
        samples: gathered.floats,
        histograms: gathered.histograms,
    });
    Ok(Selected::Stretches {
        resolution_ms: choice.level.millis(),
        until_ms: end_ms,
        series: series.collect(),
    })
}

fn note_gone(problems: &Problems, choice: Choice) {
    let (until_ms, seconds) = (choice.until_ms.unwrap_or_default(), choice.level.millis() / 1000);
    let text = format!(
        "samples up to Unix time {} are gone: stretches of {seconds} s answer for them, and windows there begin and end with stretches",
        until_ms.div_euclid(1000)
    );
    problems.notes.borrow_mut().insert(text);
}

fn note_thinned(problems: &Problems, choice: Choice) {
    let seconds = choice.level.millis() / 1000;
    let text = format!(
        "of native histograms the first and the last of each {seconds} s are left: their change over windows shorter than {} s may be far from the true one",
        seconds * CHANGE_STRETCHES_MIN
    );
    problems.notes.borrow_mut().insert(text);
}

fn fault(error: Error) -> QueryError {
    match error {
        Error::TooManyPoints { points_max } => QueryError::TooManySamples { samples_max: points_max },
        Error::Cancelled => QueryError::Cancelled,
        other => QueryError::Source(other.to_string()),
    }
}
