//! Selectors and subqueries: reading series, lookback, staleness, windows.

use std::sync::Arc;

use super::column::{Column, Row};
use super::times::milliseconds;
use super::{Evaluator, Grid, levels};
use crate::ast::{Expr, Extension, Node, Selector, Span, Subquery};
use crate::error::Error;
use crate::histogram::{CounterReset, Histogram};
use crate::labels::Labels;
use crate::source::{OfWindow, Purpose, Selected, SeriesData, StretchedSeries, Value, is_stale};

/// What an instant selector takes from a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Its value.
    Values,
    /// Its time, in seconds: what `timestamp()` asks for.
    Times,
}

/// A series with its points, staleness markers taken out.
#[derive(Clone, Debug)]
pub(super) struct RangeRow {
    pub(super) labels: Labels,
    pub(super) drops_name: bool,
    pub(super) floats: Vec<(i64, f64)>,
    pub(super) histograms: Vec<(i64, Arc<Histogram>)>,
    /// Where the floats fall: the place of the point after, and the value before. Only for counters.
    pub(super) resets: Vec<(usize, f64)>,
    /// Of a downsampled series: how many samples the floats up to each stand for. Empty when each is one.
    pub(super) counts: Vec<u64>,
}

impl RangeRow {
    /// How many float samples a window's floats stand for.
    pub(super) fn samples_in(&self, window: &Window<'_>) -> usize {
        let up_to = |end: usize| end.checked_sub(1).and_then(|at| self.counts.get(at)).copied().unwrap_or(0);
        if self.counts.is_empty() {
            return window.floats.len();
        }
        usize::try_from(up_to(window.first + window.floats.len()) - up_to(window.first)).unwrap_or(usize::MAX)
    }

    /// Finds the resets of a counter, once for all windows.
    pub(super) fn find_resets(&mut self) {
        let pairs = self.floats.windows(2).enumerate();
        self.resets =
            pairs.filter(|(_, pair)| pair[1].1 < pair[0].1).map(|(at, pair)| (at + 1, pair[0].1)).collect();
    }

    /// What a counter lost in resets inside a window.
    pub(super) fn lost_in(&self, window: &Window<'_>) -> f64 {
        let begin = self.resets.partition_point(|(at, _)| *at <= window.first);
        let inside =
            self.resets[begin..].iter().take_while(|(at, _)| *at < window.first + window.floats.len());
        inside.fold(0.0, |lost, (_, value)| lost + value)
    }
}

/// A range vector: points, and how a time cuts a window from them.
#[derive(Clone, Debug)]
pub(super) struct RangeInput {
    pub(super) rows: Vec<RangeRow>,
    pub(super) range_ms: i64,
    pub(super) offset_ms: i64,
    pub(super) at: Option<i64>,
    pub(super) extension: Extension,
    pub(super) span: Span,
    /// Of downsampled series; 1 of samples.
    pub(super) resolution_ms: i64,
    /// The end of the last stretch; after it there are samples.
    pub(super) until_ms: i64,
}

impl RangeInput {
    /// The window for a time: after the first, up to and with the second. Borders that lie inside a stretch of
    /// downsampled samples move back to its beginning, and a window that ends there is at least one stretch.
    pub(super) fn window(&self, time: i64) -> (i64, i64) {
        let to = self.at.unwrap_or(time) - self.offset_ms;
        let levels = (self.resolution_ms, self.until_ms);
        let from = border(to - self.range_ms, levels);
        if self.resolution_ms > 1 && to <= self.until_ms {
            let to = border(to, levels);
            (from.min(to - self.resolution_ms), to)
        } else {
            (from, to)
        }
    }
}

/// A time after the last stretch as it is, and one among stretches of this resolution as the end of the one before it.
pub(super) fn border(time: i64, (resolution_ms, until_ms): (i64, i64)) -> i64 {
    if time > until_ms { time } else { time - time.rem_euclid(resolution_ms) }
}

/// The points of one series in one window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    pub(super) floats: &'a [(i64, f64)],
    pub(super) histograms: &'a [(i64, Arc<Histogram>)],
    /// The place of the first float among all of the series.
    pub(super) first: usize,
    /// The window begins after this time.
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
    /// The time of evaluation, which `offset` and `@` do not move.
    pub(super) time_ms: i64,
    /// Its number in the grid.
    pub(super) at: usize,
    /// The number of the series.
    pub(super) row: usize,
}

impl Window<'_> {
    pub(super) fn points(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }
}

/// A window over a sorted list that only moves forward.
struct Cursor {
    from: usize,
    to: usize,
}

impl Cursor {
    fn new() -> Cursor {
        Cursor { from: 0, to: 0 }
    }

    fn slide<'a, T>(&mut self, points: &'a [(i64, T)], after: i64, until: i64) -> &'a [(i64, T)] {
        while self.to < points.len() && points[self.to].0 <= until {
            self.to += 1;
        }
        while self.from < self.to && points[self.from].0 <= after {
            self.from += 1;
        }
        &points[self.from..self.to]
    }
}

/// The column of one series under an instant selector.
fn latest(series: &SeriesData, reads: Reads, lookback: i64, times: impl Iterator<Item = i64>) -> Column {
    let (mut floats, mut histograms) = (0, 0);
    times
        .map(|time| {
            while floats < series.floats.len() && series.floats[floats].0 <= time {
                floats += 1;
            }
            while histograms < series.histograms.len() && series.histograms[histograms].0 <= time {
                histograms += 1;
            }
            let float = floats.checked_sub(1).map(|at| series.floats[at]);
            let histogram = histograms.checked_sub(1).map(|at| &series.histograms[at]);
            let (at, value) = match (float, histogram) {
                (Some((at, _)), Some((later, value))) if *later > at => {
                    (*later, Value::Histogram(value.clone()))
                }
                (Some((at, value)), _) => (at, Value::Float(value)),
                (None, Some((at, value))) => (*at, Value::Histogram(value.clone())),
                (None, None) => return None,
            };
            let is_gone = match &value {
                Value::Float(value) => is_stale(*value),
                Value::Histogram(value) => is_stale(value.sum),
            };
            if at <= time - lookback || is_gone {
                return None;
            }
            Some(if reads == Reads::Times { Value::Float(at as f64 / 1000.0) } else { value })
        })
        .collect()
}

/// Finds counter resets from one histogram to the next, where the store did not say.
fn with_resets_found(histograms: &mut [(i64, Arc<Histogram>)]) {
    let mut previous: Option<Arc<Histogram>> = None;
    for (_, histogram) in histograms {
        if histogram.hint == CounterReset::Unknown
            && let Some(previous) = &previous
        {
            let is_reset = histogram.is_reset_after(previous);
            let hint = if is_reset { CounterReset::Reset } else { CounterReset::NotReset };
            *histogram = Arc::new(Histogram { hint, ..(**histogram).clone() });
        }
        previous = Some(histogram.clone());
    }
}

/// The points of a series, without staleness markers.
fn row_of_samples(mut series: SeriesData) -> RangeRow {
    series.floats.retain(|(_, value)| !is_stale(*value));
    series.histograms.retain(|(_, histogram)| !is_stale(histogram.sum));
    let SeriesData { labels, floats, histograms } = series;
    RangeRow { labels, drops_name: false, floats, histograms, resets: Vec::new(), counts: Vec::new() }
}

impl Evaluator<'_> {
    fn check_extension(&self, selector: &Selector) -> Result<(), Error> {
        if selector.extension != Extension::None && !self.options.experimental {
            return Err(Error::Execution(
                "anchored and smoothed are experimental and not enabled".to_owned(),
            ));
        }
        Ok(())
    }

    pub(super) fn read(
        &mut self,
        selector: &Selector,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<SeriesData>, Error> {
        self.check_extension(selector)?;
        let began = self.began();
        let found = self.series.select(&selector.matchers, from_ms, to_ms)?;
        self.note_read(selector, began, found.len(), samples(&found));
        self.samples_read(found)
    }

    /// Reads what the store chooses for a purpose.
    fn read_for(
        &mut self,
        selector: &Selector,
        (from_ms, to_ms): (i64, i64),
        purpose: &Purpose,
    ) -> Result<Selected, Error> {
        self.check_extension(selector)?;
        let began = self.began();
        match self.series.select_for(&selector.matchers, from_ms, to_ms, purpose)? {
            Selected::Samples(found) => {
                self.note_read(selector, began, found.len(), samples(&found));
                self.samples_read(found).map(Selected::Samples)
            }
            Selected::Stretches { resolution_ms, until_ms, mut series } => {
                let read = series.iter().map(StretchedSeries::points).sum();
                self.note_read(selector, began, series.len(), read);
                self.spend(read)?;
                if self.reads_counts_only {
                    series.iter_mut().for_each(|series| with_resets_found(&mut series.histograms));
                }
                Ok(Selected::Stretches { resolution_ms, until_ms, series })
            }
        }
    }

    fn samples_read(&mut self, mut found: Vec<SeriesData>) -> Result<Vec<SeriesData>, Error> {
        self.spend(samples(&found))?;
        if self.reads_counts_only {
            found.iter_mut().for_each(|series| with_resets_found(&mut series.histograms));
        }
        Ok(found)
    }

    /// What a selector is read for.
    fn purpose(
        &self,
        grid: Grid,
        (offset, at): (i64, Option<i64>),
        range_ms: i64,
        of_window: OfWindow,
    ) -> Purpose {
        let (start_ms, step_ms) = at.map_or((grid.start - offset, grid.step), |at| (at - offset, 0));
        let step_ms = if grid.count > 1 { step_ms } else { 0 };
        Purpose { is_range_query: self.query.step > 0, start_ms, step_ms, range_ms, of_window }
    }

    pub(super) fn offset_and_at(&self, selector: &Selector) -> Result<(i64, Option<i64>), Error> {
        let offset = selector.offset.as_ref().map_or(Ok(0), |offset| milliseconds(offset, self.query))?;
        Ok((offset, self.query.fixed(selector.at)))
    }

    /// An instant selector at all times.
    pub(super) fn select_vector(
        &mut self,
        selector: &Selector,
        grid: Grid,
        reads: Reads,
    ) -> Result<Vec<Row>, Error> {
        if selector.extension == Extension::Smoothed {
            return self.select_smoothed(selector, grid);
        }
        if selector.extension == Extension::Anchored {
            return Err(Error::Execution(
                "anchored modifier can only be used with range selectors".to_owned(),
            ));
        }
        let (offset, at) = self.offset_and_at(selector)?;
        let lookback = self.options.lookback_ms;
        let reference = |time: i64| at.unwrap_or(time) - offset;
        let (from, to) = (reference(grid.start) - lookback + 1, reference(grid.end()));
        let purpose = self.purpose(grid, (offset, at), 0, OfWindow::Latest);
        let (found, levels) = match self.read_for(selector, (from, to), &purpose)? {
            Selected::Samples(found) => (found, (1, i64::MIN)),
            Selected::Stretches { resolution_ms, until_ms, series } => {
                (series.into_iter().map(levels::latest_of).collect(), (resolution_ms, until_ms))
            }
        };
        let reference = |time: i64| border(reference(time), levels);
        let mut rows = Vec::with_capacity(found.len());
        for series in found {
            self.spend(grid.count)?;
            let column = latest(&series, reads, lookback, grid.times().map(reference));
            let row = Row { labels: series.labels, drops_name: false, column };
            if row.has_values() {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// A range selector or a subquery for all times.
    pub(super) fn range(
        &mut self,
        expr: &Expr,
        grid: Grid,
        of_window: OfWindow,
    ) -> Result<RangeInput, Error> {
        let began = self.began();
        let input = self.range_input(expr, grid, of_window)?;
        self.note_range(expr, began, input.rows.len());
        Ok(input)
    }

    fn range_input(&mut self, expr: &Expr, grid: Grid, of_window: OfWindow) -> Result<RangeInput, Error> {
        match &expr.node {
            Node::Paren(inner) => self.range(inner, grid, of_window),
            Node::Range(selector, range) => {
                let range_ms = milliseconds(range, self.query)?;
                self.positive(range_ms)?;
                let (offset_ms, at) = self.offset_and_at(selector)?;
                let extension = selector.extension;
                let mut input = RangeInput {
                    rows: Vec::new(),
                    range_ms,
                    offset_ms,
                    at,
                    extension,
                    span: expr.span,
                    resolution_ms: 1,
                    until_ms: i64::MIN,
                };
                let (mut from, mut to) = (input.window(grid.start).0 + 1, input.window(grid.end()).1);
                if extension != Extension::None {
                    from -= self.options.lookback_ms;
                }
                if extension == Extension::Smoothed {
                    to += self.options.lookback_ms;
                }
                let of_window = if extension == Extension::None { of_window } else { OfWindow::Samples };
                let purpose = self.purpose(grid, (offset_ms, at), range_ms, of_window);
                match self.read_for(selector, (from, to), &purpose)? {
                    Selected::Samples(found) => input.rows.extend(found.into_iter().map(row_of_samples)),
                    Selected::Stretches { resolution_ms, until_ms, series } => {
                        (input.resolution_ms, input.until_ms) = (resolution_ms.max(1), until_ms);
                        let rows = series.into_iter().map(|series| levels::row_of(series, of_window));
                        input.rows.extend(rows);
                    }
                }
                Ok(input)
            }
            Node::Subquery(subquery) => self.subquery(subquery, expr.span, grid),
            _ => Err(Error::Execution("a range vector is needed here".to_owned())),
        }
    }

    fn positive(&self, milliseconds: i64) -> Result<(), Error> {
        if milliseconds > 0 {
            Ok(())
        } else {
            Err(Error::Execution("duration must be greater than 0".to_owned()))
        }
    }

    fn subquery(&mut self, subquery: &Subquery, span: Span, grid: Grid) -> Result<RangeInput, Error> {
        let range_ms = milliseconds(&subquery.range, self.query)?;
        self.positive(range_ms)?;
        let offset_ms = subquery.offset.as_ref().map_or(Ok(0), |offset| milliseconds(offset, self.query))?;
        let default_step = self.options.subquery_step_ms;
        let step = subquery.step.as_ref().map_or(Ok(default_step), |step| milliseconds(step, self.query))?;
        self.positive(step)?;
        let at = self.query.fixed(subquery.at);
        let extension = Extension::None;
        let (rows, resolution_ms, until_ms) = (Vec::new(), 1, i64::MIN);
        let mut input =
            RangeInput { rows, range_ms, offset_ms, at, extension, span, resolution_ms, until_ms };
        // Its own times are multiples of its step, whatever the query's times are.
        let (after, until) = (input.window(grid.start).0, input.window(grid.end()).1);
        let start = (after.div_euclid(step) + 1) * step;
        if start > until {
            return Ok(input);
        }
        let inner = Grid { start, step, count: ((until - start) / step) as usize + 1 };
        self.spend(inner.count)?;
        let reads_counts_only = std::mem::replace(&mut self.reads_counts_only, false);
        let rows = self.rows(&subquery.inner, inner);
        self.reads_counts_only = reads_counts_only;
        for row in rows? {
            let drops_name = row.drops_name;
            let SeriesData { labels, floats, mut histograms } = row.into_points(inner);
            for (_, histogram) in &mut histograms {
                // What the store said was about neighbours that are no neighbours here.
                if histogram.hint != CounterReset::Gauge {
                    Arc::make_mut(histogram).hint = CounterReset::Unknown;
                }
            }
            let (resets, counts) = Default::default();
            input.rows.push(RangeRow { labels, drops_name, floats, histograms, resets, counts });
        }
        Ok(input)
    }

    /// Applies a function to every window with points in it.
    pub(super) fn over_windows(
        &mut self,
        input: &RangeInput,
        grid: Grid,
        mut function: impl FnMut(&mut Self, &RangeRow, &Window<'_>) -> Option<Value>,
    ) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::with_capacity(input.rows.len());
        for (number, row) in input.rows.iter().enumerate() {
            self.spend(grid.count)?;
            let (mut floats, mut histograms) = (Cursor::new(), Cursor::new());
            let mut column = Vec::with_capacity(grid.count);
            for (at, time_ms) in grid.times().enumerate() {
                let (from_ms, to_ms) = input.window(time_ms);
                let window = Window {
                    floats: floats.slide(&row.floats, from_ms, to_ms),
                    histograms: histograms.slide(&row.histograms, from_ms, to_ms),
                    first: floats.from,
                    from_ms,
                    to_ms,
                    time_ms,
                    at,
                    row: number,
                };
                column.push(if window.points() == 0 { None } else { function(self, row, &window) });
            }
            let row = Row { labels: row.labels.clone(), drops_name: true, column };
            if row.has_values() {
                rows.push(row);
            }
        }
        Ok(rows)
    }
}

/// How many samples were read.
fn samples(found: &[SeriesData]) -> usize {
    found.iter().map(|series| series.floats.len() + series.histograms.len()).sum()
}
