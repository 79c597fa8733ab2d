//! Aggregates over a window that slides forward, at constant cost per point and step.
//!
//! Values enter at the back and leave at the front. The front half holds running totals towards the back half,
//! so a total is one combination of two, and nothing ever has to be subtracted: precision is that of a fresh
//! sum.

use super::select::Window;
use crate::histogram::Kahan;

/// Something that combines with its like.
pub(super) trait Total: Copy {
    /// The total of one value.
    fn of(value: f64) -> Self;
    /// The total of both.
    fn with(self, later: Self) -> Self;
}

impl Total for Kahan {
    fn of(value: f64) -> Kahan {
        [value].into_iter().collect()
    }

    fn with(mut self, later: Kahan) -> Kahan {
        self.merge(later);
        self
    }
}

/// The largest value; NaN only if there is nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Largest(pub(super) f64);

impl Total for Largest {
    fn of(value: f64) -> Largest {
        Largest(value)
    }

    fn with(self, later: Largest) -> Largest {
        if later.0 > self.0 || self.0.is_nan() { later } else { self }
    }
}

/// The total of a sliding window.
#[derive(Debug)]
pub(super) struct Sliding<T> {
    /// Totals from each value of the front half to its end, the oldest last.
    front: Vec<T>,
    back: Vec<T>,
    back_total: Option<T>,
    /// The points that are in, and of which series they are.
    from: usize,
    to: usize,
    row: usize,
}

impl<T: Total> Sliding<T> {
    pub(super) fn new() -> Sliding<T> {
        Sliding { front: Vec::new(), back: Vec::new(), back_total: None, from: 0, to: 0, row: 0 }
    }

    /// Moves to a window of the series `points` and gives its total.
    pub(super) fn total(
        &mut self,
        window: &Window<'_>,
        points: &[(i64, f64)],
        value: impl Fn(f64) -> f64,
    ) -> Option<T> {
        // Another series, a window that does not move on (`@`), or one past everything that is in.
        if window.row != self.row || window.first < self.from || window.first >= self.to {
            *self = Sliding { from: window.first, to: window.first, row: window.row, ..Sliding::new() };
        }
        let end = window.first + window.floats.len();
        while self.to < end {
            let entering = T::of(value(points[self.to].1));
            self.back.push(entering);
            self.back_total = Some(self.back_total.map_or(entering, |total| total.with(entering)));
            self.to += 1;
        }
        while self.from < window.first {
            self.drop_oldest();
            self.from += 1;
        }
        match (self.front.last(), self.back_total) {
            (Some(front), Some(back)) => Some(front.with(back)),
            (front, back) => front.copied().or(back),
        }
    }

    fn drop_oldest(&mut self) {
        if self.front.is_empty() {
            while let Some(value) = self.back.pop() {
                let total = self.front.last().map_or(value, |later| value.with(*later));
                self.front.push(total);
            }
            self.back_total = None;
        }
        self.front.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sliding_total_is_that_of_its_window() {
        let points: Vec<(i64, f64)> = (0..200).map(|at| (at, ((at * 7919) % 101) as f64 - 50.0)).collect();
        let (mut sums, mut largest) = (Sliding::<Kahan>::new(), Sliding::<Largest>::new());
        for at in 0..40_usize {
            let (first, end) = (at * 4, (at * 4 + 1 + at % 9 * 3).max(at * 4 + 25 - at % 5).min(200));
            let floats = &points[first..end];
            let window =
                Window { floats, histograms: &[], first, from_ms: 0, to_ms: 0, time_ms: 0, at, row: 0 };
            if floats.is_empty() || end < sums.to {
                continue;
            }
            let values = || floats.iter().map(|(_, value)| *value);
            let sum = sums.total(&window, &points, |value| value).unwrap();
            assert_eq!(sum.total(), values().sum::<f64>());
            let found = largest.total(&window, &points, |value| value).unwrap();
            assert_eq!(found.0, values().fold(f64::NEG_INFINITY, f64::max));
        }
    }
}
