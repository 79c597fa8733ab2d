//! Making days of levels: raw blocks are read, and a block of stretches is published in one transaction with the note that
//! the day is made.

use std::sync::Arc;
use std::time::Instant;

use crate::block::{Block, Meta};
use crate::error::Error;
use crate::level::{DAY_MS, Day, LEVELS, Levels, Resolution, State, day_of};
use crate::maintenance::Maintenance;
use crate::merge::Gathered;

/// The compaction level of a day that was just made.
const MADE: u8 = 1;

impl Maintenance {
    /// Makes the days of all levels that are due, and again those that changed. Returns how many.
    ///
    /// # Errors
    /// When blocks could not be read or written; raw samples answer meanwhile.
    pub fn downsample(&self) -> Result<usize, Error> {
        let mut made = 0;
        loop {
            let _alone = self.shared().maintenance();
            let Some(newest_ms) = self.shared().newest_ms() else { return Ok(made) };
            let Some(day) = self.due(newest_ms) else { return Ok(made) };
            match self.make(day) {
                Ok(()) => made += 1,
                Err(Error::Cancelled) => return Ok(made),
                Err(error) => {
                    self.shared().signals.downsampling_failed(error.reason());
                    return Err(error);
                }
            }
        }
    }

    /// What to make next: what is out of date, then the oldest day that has raw samples and is over for long enough.
    fn due(&self, newest_ms: i64) -> Option<Day> {
        let levels = self.shared().levels.load();
        let config = &self.shared().config;
        let is_kept = |(level, day): &Day| {
            let kept =
                level.configured(config).map(|(_, retention_ms)| newest_ms.saturating_sub(retention_ms));
            kept.is_some_and(|oldest_ms| day.saturating_add(1).saturating_mul(DAY_MS) > oldest_ms)
        };
        let blocks = self.shared().blocks.load();
        // What cannot be read well now is not made without it.
        let is_readable = |day: i64| {
            let (after_ms, until_ms) = range_of(day);
            let touches = |block: &Arc<Block>| block.meta().touches(after_ms.saturating_add(1), until_ms);
            !blocks.iter().any(|block| block.is_suspect() && touches(block))
        };
        if let Some(day) = levels.to_mend().find(|day| is_kept(day) && is_readable(day.1)) {
            return Some(day);
        }
        LEVELS.into_iter().find_map(|level| {
            let (after_ms, _) = level.configured(config)?;
            let last = newest_ms.saturating_sub(after_ms).div_euclid(DAY_MS) - 1;
            let raw = blocks.iter().map(|block| block.meta()).filter(|meta| is_raw(meta));
            let is_due = |day: &i64| {
                let day = (level, *day);
                levels.state(day).is_none() && levels.has_raw(day.1) && is_kept(&day) && is_readable(day.1)
            };
            raw.filter_map(|meta| (day_of(meta.min_ms)..=day_of(meta.max_ms).min(last)).find(is_due))
                .min()
                .map(|day| (level, day))
        })
    }

    /// Makes a day of a level in the place of what there is of it. The caller holds the maintenance lock.
    fn make(&self, (level, day): Day) -> Result<(), Error> {
        let began = Instant::now();
        let (after_ms, until_ms) = range_of(day);
        let of_day = |block: &&Arc<Block>| block.meta().touches(after_ms.saturating_add(1), until_ms);
        let blocks = self.shared().blocks.load_full();
        let touched: Vec<Arc<Block>> = blocks.iter().filter(of_day).cloned().collect();
        let (raw, others): (Vec<_>, Vec<_>) = touched.into_iter().partition(|block| is_raw(block.meta()));
        let before = others.into_iter().filter(|block| block.meta().resolution() == level);
        let range = (after_ms.saturating_add(1), until_ms);
        let mut added: Vec<Meta> = Vec::new();
        added.extend(self.merged(&raw, range, level.bits() | MADE, &|_, gathered: &mut Gathered| {
            gathered.downsample(level);
        })?);
        let mut removed = Vec::new();
        for block in before {
            let without_day = |_: &_, gathered: &mut Gathered| gathered.without((after_ms, until_ms));
            let whole = (i64::MIN, i64::MAX);
            added.extend(self.merged(
                std::slice::from_ref(&block),
                whole,
                block.meta().level,
                &without_day,
            )?);
            removed.push(block.meta().id);
        }
        let also = |_: &Levels| {
            // The head may have been sealed meanwhile, with samples of this day.
            let blocks = self.shared().blocks.load();
            let is_new = |block: &Arc<Block>| raw.iter().all(|held| held.meta().id != block.meta().id);
            let is_outdated = blocks
                .iter()
                .any(|block| is_raw(block.meta()) && block.meta().touches(range.0, range.1) && is_new(block));
            let state = if is_outdated { State::Outdated } else { State::Made };
            (vec![((level, day), Some(state))], None)
        };
        self.shared().replace(&added, &removed, also)?;
        let samples = added.iter().map(|meta| meta.samples).sum();
        self.shared().signals.downsampled(samples, began.elapsed().as_secs_f64());
        Ok(())
    }
}

/// A day begins after the first time and ends with the second.
fn range_of(day: i64) -> (i64, i64) {
    (day.saturating_mul(DAY_MS), day.saturating_add(1).saturating_mul(DAY_MS))
}

fn is_raw(meta: &Meta) -> bool {
    meta.resolution() == Resolution::Raw
}
