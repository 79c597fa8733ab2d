//! Downsampled series as rows of points: for each purpose those points of which the usual functions make the right answer.

use super::select::RangeRow;
use crate::source::{OfWindow, SeriesData, Stretch, StretchedSeries, is_stale, stale_marker};

/// The points of a downsampled series that a function of windows works on.
pub(super) fn row_of(series: StretchedSeries, purpose: OfWindow) -> RangeRow {
    let mut row = RangeRow {
        labels: series.labels,
        drops_name: false,
        floats: Vec::with_capacity(series.stretches.len()),
        histograms: series.histograms,
        resets: Vec::new(),
        counts: Vec::with_capacity(series.stretches.len()),
    };
    row.histograms.retain(|(_, histogram)| !is_stale(histogram.sum));
    for stretch in series.stretches.iter().filter(|stretch| stretch.count > 0) {
        let whole = |value: f64| (stretch.end_ms, value);
        match purpose {
            OfWindow::Least => push(&mut row, whole(stretch.min), stretch.count),
            OfWindow::Largest => push(&mut row, whole(stretch.max), stretch.count),
            OfWindow::Sum | OfWindow::Mean | OfWindow::Count => {
                push(&mut row, whole(stretch.sum), stretch.count);
            }
            OfWindow::Change | OfWindow::Edge | OfWindow::Latest | OfWindow::Samples => {
                push_edges(&mut row, stretch);
            }
        }
    }
    for point in series.samples.into_iter().filter(|(_, value)| !is_stale(*value)) {
        push_sample(&mut row, point);
    }
    row
}

/// A sample that stands for itself, with what a counter lost before it.
fn push_sample(row: &mut RangeRow, point: (i64, f64)) {
    if let Some((_, before)) = row.floats.last().filter(|(_, before)| point.1 < *before) {
        row.resets.push((row.floats.len(), *before));
    }
    push(row, point, 1);
}

/// A point and how many samples it stands for.
fn push(row: &mut RangeRow, point: (i64, f64), count: u32) {
    row.floats.push(point);
    row.counts.push(row.counts.last().copied().unwrap_or(0) + u64::from(count));
}

/// First and last sample, with what a counter lost before each.
fn push_edges(row: &mut RangeRow, stretch: &Stretch) {
    push_sample(row, stretch.first);
    if stretch.count > 1 {
        if stretch.lost != 0.0 {
            row.resets.push((row.floats.len(), stretch.lost));
        }
        push(row, stretch.last, stretch.count - 1);
    }
}

/// The latest samples, and where the series ended.
pub(super) fn latest_of(series: StretchedSeries) -> SeriesData {
    let mut floats = Vec::with_capacity(series.stretches.len());
    for stretch in &series.stretches {
        if stretch.count > 0 {
            floats.push(stretch.last);
        }
        if stretch.is_ended && floats.last().is_none_or(|(time, _)| *time < stretch.end_ms) {
            floats.push((stretch.end_ms, stale_marker()));
        }
    }
    floats.extend(series.samples);
    SeriesData { labels: series.labels, floats, histograms: series.histograms }
}
