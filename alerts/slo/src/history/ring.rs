//! A ring of equal steps of time.

use super::Counts;

/// One step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell<N> {
    good: N,
    bad: N,
    measured_seconds: N,
}

/// The newest `len` steps; what is older is forgotten. `N` is how a step's counts are held.
#[derive(Clone, Debug)]
pub(super) struct Ring<N> {
    cells: Box<[Cell<N>]>,
    newest: u64,
}

impl<N> Ring<N>
where
    N: Copy + Default + Into<u64> + TryFrom<u64> + Bounded,
{
    pub(super) fn new(len: usize) -> Self {
        Self { cells: vec![Cell::default(); len.max(1)].into_boxed_slice(), newest: 0 }
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// The oldest step that is still held.
    pub(super) fn oldest(&self) -> u64 {
        (self.newest + 1).saturating_sub(self.cells.len() as u64)
    }

    /// Makes `index` the newest step, forgetting what falls out. Going backwards does nothing.
    pub(super) fn advance_to(&mut self, index: u64) {
        if index <= self.newest {
            return;
        }
        let steps = (index - self.newest).min(self.cells.len() as u64);
        for step in 0..steps {
            let slot = self.slot(index - step);
            self.cells[slot] = Cell::default();
        }
        self.newest = index;
    }

    /// Forgets every step after `index`, which becomes the newest.
    pub(super) fn rewind_to(&mut self, index: u64) {
        let oldest = self.oldest();
        for later in (index + 1).max(oldest)..=self.newest {
            let slot = self.slot(later);
            self.cells[slot] = Cell::default();
        }
        self.newest = self.newest.min(index);
    }

    pub(super) fn add(&mut self, index: u64, counts: Counts) {
        let sum = self.at(index) + counts;
        self.set(index, sum);
    }

    /// Writes one step; a step that is no longer or not yet held is left alone.
    pub(super) fn set(&mut self, index: u64, counts: Counts) {
        if index < self.oldest() || index > self.newest {
            return;
        }
        let slot = self.slot(index);
        self.cells[slot] = Cell {
            good: narrow(counts.good),
            bad: narrow(counts.bad),
            measured_seconds: narrow(counts.measured_seconds),
        };
    }

    pub(super) fn at(&self, index: u64) -> Counts {
        if index < self.oldest() || index > self.newest {
            return Counts::default();
        }
        let cell = self.cells[self.slot(index)];
        Counts {
            good: cell.good.into(),
            bad: cell.bad.into(),
            measured_seconds: cell.measured_seconds.into(),
        }
    }

    /// The sum of the steps from `start` up to but not including `end`.
    pub(super) fn sum(&self, start: u64, end: u64) -> Counts {
        let start = start.max(self.oldest());
        let end = end.min(self.newest + 1);
        (start..end).fold(Counts::default(), |sum, index| sum + self.at(index))
    }

    fn slot(&self, index: u64) -> usize {
        usize::try_from(index % self.cells.len() as u64).unwrap_or(0)
    }
}

/// A count that stops at its largest value: four billion events in one second stay four billion.
fn narrow<N: TryFrom<u64> + Bounded>(count: u64) -> N {
    N::try_from(count).unwrap_or(N::MAX)
}

/// An integer with a largest value.
pub(super) trait Bounded {
    const MAX: Self;
}

impl Bounded for u32 {
    const MAX: Self = u32::MAX;
}

impl Bounded for u64 {
    const MAX: Self = u64::MAX;
}
