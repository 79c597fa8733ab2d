//! The seam between the log and whatever keeps its contents.

use belfry_signal::{PackedRecord, Sample, SeriesBatch, Written};

use crate::error::StoreError;

/// What one position of the log holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Something that a component emitted.
    Record(PackedRecord),
    /// All metrics at one moment.
    Samples {
        /// When, in milliseconds since the Unix epoch.
        unix_millis: i64,
        /// Every series' value.
        samples: Vec<Sample>,
    },
    /// Points of series that others measured.
    Series(SeriesBatch),
}

/// A store that takes what the log holds. All calls come from one thread, which may block: no call waits for it.
pub trait Store: Send {
    /// A plain lower-case name, for labels.
    fn name(&self) -> &'static str;

    /// Takes entries, in order, each once. `position` is that of the last of them, and their positions are
    /// consecutive (see [`numbered`]); between two calls there may be gaps.
    ///
    /// # Errors
    /// When they could not be taken, or were and something else failed. Entries that were just emitted are not offered
    /// again before the next start, and then only if [`Store::checkpoint`] does not cover them. Entries from the log
    /// that were not taken are offered again a little later, before any that follow them.
    fn apply(&mut self, position: u64, entries: &[Entry]) -> Result<(), StoreError>;

    /// What became of the points of the last [`Store::apply`], entry by entry, for those who wait for an answer: the
    /// position of each [`Entry::Series`] and its outcome. A store that keeps no points has nothing to say.
    fn take_written(&mut self) -> Vec<(u64, Written)> {
        Vec::new()
    }

    /// Everything up to this position survives a crash in the store's own files; zero when nothing does.
    /// The log keeps what lies beyond it.
    fn checkpoint(&self) -> u64;

    /// Makes everything that was applied survive in the store's own files, as far as possible.
    ///
    /// # Errors
    /// When it could not; the log still has it.
    fn flush(&mut self) -> Result<(), StoreError>;

    /// About once a second: time to close, publish and delete what is due.
    fn tick(&mut self, unix_millis: i64);
}

/// The entries of one [`Store::apply`] with the position of each.
pub fn numbered(position: u64, entries: &[Entry]) -> impl Iterator<Item = (u64, &Entry)> {
    let first = (position + 1).saturating_sub(entries.len() as u64);
    (first..).zip(entries)
}
