//! Making blocks of the head: quickly, as it packed its chunks, one block for each window of time.

use std::collections::BTreeMap;

use belfry_promql::Labels;
use belfry_signal::Exemplar;

use crate::block::{BlockWriter, Meta};
use crate::catalogue::Change;
use crate::chunk::{Chunk, Points};
use crate::error::Error;
use crate::head::HeadLimits;
use crate::merge::Gathered;
use crate::sealed::Sealed;
use crate::shared::Shared;

/// Windows that one head is cut into at most: when samples of months are brought in at once, windows are longer.
const WINDOWS_MAX: i64 = 64;

/// What was sealed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SealedHead {
    pub(crate) blocks: usize,
    pub(crate) series: usize,
    pub(crate) samples: u64,
    pub(crate) bytes: u64,
}

/// Seals the head into blocks that cover the log up to `covered`, and publishes them. The head keeps its samples when
/// that fails.
pub(crate) fn seal(shared: &Shared, limits: &HeadLimits, covered: u64) -> Result<SealedHead, Error> {
    let (series, range) = {
        let head = shared.head();
        let Some(range) = head.range() else { return advance(shared, covered) };
        let with_exemplars = head.all().into_iter().map(|(number, labels, chunks)| {
            let exemplars: Vec<Exemplar> = head.exemplars().of(number).cloned().collect();
            (labels, chunks, exemplars)
        });
        (with_exemplars.collect::<Vec<_>>(), range)
    };
    let mut window_ms = crate::millis(shared.config.block_duration);
    while range.1.div_euclid(window_ms) - range.0.div_euclid(window_ms) >= WINDOWS_MAX {
        window_ms = window_ms.saturating_mul(3);
    }
    let mut writers = Writers { shared, writers: BTreeMap::new(), window_ms, covered };
    for (labels, chunks, exemplars) in &series {
        writers.push(labels, chunks, exemplars)?;
    }
    let metas = writers.finish()?;
    let sealed = SealedHead {
        blocks: metas.len(),
        series: series.len(),
        samples: metas.iter().map(|meta| meta.samples).sum(),
        bytes: metas.iter().map(|meta| meta.bytes).sum(),
    };
    publish(shared, limits, &metas, covered)?;
    Ok(sealed)
}

/// Nothing to seal: what the log has up to here was refused or is in blocks.
fn advance(shared: &Shared, covered: u64) -> Result<SealedHead, Error> {
    let mut catalogue = shared.catalogue();
    if covered > catalogue.checkpoint() {
        catalogue.change(&Change { checkpoint: Some(covered), ..Change::default() })?;
    }
    Ok(SealedHead::default())
}

fn publish(shared: &Shared, limits: &HeadLimits, metas: &[Meta], covered: u64) -> Result<(), Error> {
    let opened = shared.open_all(metas)?;
    let mut catalogue = shared.catalogue();
    let covered = covered.max(catalogue.checkpoint());
    {
        let metadata = shared.metadata.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !metadata.is_empty() {
            catalogue.put_metadata(metadata.values())?;
        }
    }
    let days = metas.iter().flat_map(|meta| catalogue.levels().outdated(meta.min_ms, meta.max_ms));
    let days = days.collect();
    catalogue.change(&Change { added: metas, checkpoint: Some(covered), days, ..Change::default() })?;
    // From here on the samples are in the blocks; readers see the change whole, because they look at both under the lock.
    let mut head = shared.head_mut();
    shared.swap(&catalogue, opened, &[]);
    head.sealed(limits);
    Ok(())
}

/// One writer for each window.
struct Writers<'a> {
    shared: &'a Shared,
    writers: BTreeMap<i64, BlockWriter>,
    window_ms: i64,
    covered: u64,
}

impl Writers<'_> {
    fn push(
        &mut self,
        labels: &Labels,
        chunks: &[std::sync::Arc<Chunk>],
        exemplars: &[Exemplar],
    ) -> Result<(), Error> {
        let mut pieces: BTreeMap<i64, Vec<Sealed>> = BTreeMap::new();
        for chunk in chunks {
            let (first, last) =
                (chunk.min_ms.div_euclid(self.window_ms), chunk.max_ms.div_euclid(self.window_ms));
            if first == last {
                pieces.entry(first).or_default().extend(Sealed::of_head(chunk));
                continue;
            }
            let Some(points) = chunk.points() else { continue };
            for (window, part) in by_window(points, self.window_ms) {
                let pieces = pieces.entry(window).or_default();
                pieces.extend(Sealed::of_floats(&part.floats));
                pieces.extend(Sealed::of_histograms(&part.histograms));
            }
        }
        // Exemplars go with the newest samples.
        let last = pieces.keys().next_back().copied();
        for (window, pieces) in pieces {
            let exemplars = if Some(window) == last { exemplars.to_vec() } else { Vec::new() };
            self.writer(window)?.push(labels, &pieces, exemplars)?;
        }
        Ok(())
    }

    fn writer(&mut self, window: i64) -> Result<&mut BlockWriter, Error> {
        use std::collections::btree_map::Entry;
        match self.writers.entry(window) {
            Entry::Occupied(writer) => Ok(writer.into_mut()),
            Entry::Vacant(slot) => {
                let (id, before) = {
                    let mut catalogue = self.shared.catalogue();
                    (catalogue.take_id(), catalogue.checkpoint())
                };
                Ok(slot.insert(BlockWriter::create(self.shared.directory(), id, 0, before)?))
            }
        }
    }

    /// Only the last block claims the position: when blocks speak for themselves, all of them must be there for that.
    fn finish(self) -> Result<Vec<Meta>, Error> {
        let mut metas = Vec::with_capacity(self.writers.len());
        let last = self.writers.keys().next_back().copied();
        for (window, mut writer) in self.writers {
            if Some(window) == last {
                writer.cover(self.covered);
            }
            metas.extend(writer.finish()?);
        }
        Ok(metas)
    }
}

fn by_window(points: Points, window_ms: i64) -> BTreeMap<i64, Gathered> {
    let mut parts: BTreeMap<i64, Gathered> = BTreeMap::new();
    match points {
        Points::Floats(points) => {
            for point in points {
                parts.entry(point.0.div_euclid(window_ms)).or_default().floats.push(point);
            }
        }
        Points::Histograms(points) => {
            for point in points {
                parts.entry(point.0.div_euclid(window_ms)).or_default().histograms.push(point);
            }
        }
        // The head has none.
        Points::Stretches(_) => {}
    }
    parts
}
