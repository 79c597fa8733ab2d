//! Our blocks as blocks of Prometheus.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::chunks::ChunkFiles;
use super::index::{ChunkRef, IndexWriter};
use super::{Carried, Compaction, MetaFile, Stats, file_fault, foreign, ulid, xor};
use crate::block::Block;
use crate::chunk::Point;
use crate::error::Error;
use crate::level::Resolution;
use crate::maintenance::{Maintenance, Progress};
use crate::merge::Gathered;

/// Samples of one exported chunk, as Prometheus cuts them.
const SAMPLES_PER_CHUNK: usize = 120;

impl Maintenance {
    /// Writes every block as one of Prometheus into a directory, which `promtool tsdb` and Prometheus itself can read.
    /// What is in memory must be sealed first ([`flush`](Self::flush)). Run again, it goes on where it ended: blocks that
    /// are there are left alone. `progress` counts blocks.
    ///
    /// # Errors
    /// When a block cannot be read or written.
    pub fn export_prometheus(&self, target: &Path, progress: Progress<'_>) -> Result<Carried, Error> {
        std::fs::create_dir_all(target).map_err(file_fault(target))?;
        let _alone = self.shared().maintenance();
        let blocks = self.shared().blocks.load_full();
        let is_raw = |block: &&Arc<Block>| block.meta().resolution() == Resolution::Raw;
        let blocks: Vec<Arc<Block>> = blocks.iter().filter(is_raw).cloned().collect();
        let mut carried = Carried::default();
        for (at, block) in (0_u64..).zip(blocks.iter()) {
            progress(at, blocks.len() as u64);
            let name = ulid(block.meta().min_ms, block.meta().id, block.meta().bytes);
            let directory = target.join(&name);
            if directory.join("meta.json").is_file() {
                carried.blocks_before += 1;
                continue;
            }
            let unfinished = target.join(format!("{name}.tmp-for-creation"));
            if unfinished.exists() {
                std::fs::remove_dir_all(&unfinished).map_err(file_fault(&unfinished))?;
            }
            std::fs::create_dir_all(&unfinished).map_err(file_fault(&unfinished))?;
            let stats = self.export_block(block, &name, &unfinished, &mut carried)?;
            if stats.num_series == 0 {
                std::fs::remove_dir_all(&unfinished).map_err(file_fault(&unfinished))?;
                continue;
            }
            std::fs::rename(&unfinished, &directory).map_err(file_fault(&directory))?;
            carried.blocks += 1;
            carried.series += stats.num_series;
            carried.samples += stats.num_samples;
        }
        // promtool looks for a log, and is content with an empty one.
        let log = target.join("wal");
        std::fs::create_dir_all(&log).map_err(file_fault(&log))?;
        progress(blocks.len() as u64, blocks.len() as u64);
        Ok(carried)
    }

    fn export_block(
        &self,
        block: &Block,
        name: &str,
        target: &Path,
        carried: &mut Carried,
    ) -> Result<Stats, Error> {
        let cache = &self.shared().cache;
        let mut symbols: BTreeSet<Arc<str>> = BTreeSet::new();
        for label in block.label_names()? {
            symbols.insert(label.into());
            block.label_values(cache, label, |value| {
                symbols.insert(value.into());
            })?;
        }
        let mut index = IndexWriter::create(target, &symbols)?;
        let mut chunks = ChunkFiles::create(target)?;
        let mut stats = Stats::default();
        // By number of the series; zero where there are no floats.
        let mut references = Vec::new();
        for page in 0..block.pages()? {
            for series in block.page(page)? {
                let mut gathered = Gathered::default();
                for chunk in &series.chunks {
                    gathered.add(block.chunk(chunk)?, i64::MIN, i64::MAX);
                }
                gathered.put_in_order();
                carried.histograms_left_out += gathered.histograms.len() as u64;
                if gathered.floats.is_empty() {
                    references.push(0);
                    continue;
                }
                let written = export_chunks(&gathered.floats, &mut chunks)?;
                references.push(index.push(&series.labels, &written)?);
                stats.num_series += 1;
                stats.num_samples += gathered.floats.len() as u64;
                stats.num_chunks += written.len() as u64;
            }
        }
        chunks.sync()?;
        let all: Vec<u32> = references.iter().copied().filter(|reference| *reference > 0).collect();
        index.postings("", "", &all)?;
        for label in block.label_names()? {
            block.label_sets_of(cache, label, &mut |value, numbers| {
                let held = numbers.iter().filter_map(|number| references.get(number as usize).copied());
                let held: Vec<u32> = held.filter(|reference| *reference > 0).collect();
                if held.is_empty() { Ok(()) } else { index.postings(label, value, &held) }
            })?;
        }
        index.finish()?;
        write_meta(block, name, target, &stats)?;
        Ok(stats)
    }
}

fn export_chunks(points: &[Point], chunks: &mut ChunkFiles) -> Result<Vec<ChunkRef>, Error> {
    let mut written = Vec::new();
    for points in points.chunks(SAMPLES_PER_CHUNK) {
        if let (Some((min_ms, _)), Some((max_ms, _))) = (points.first(), points.last()) {
            let reference = chunks.push(&xor::encode(points))?;
            written.push(ChunkRef { min_ms: *min_ms, max_ms: *max_ms, reference });
        }
    }
    Ok(written)
}

fn write_meta(block: &Block, name: &str, target: &Path, stats: &Stats) -> Result<(), Error> {
    let meta = MetaFile {
        ulid: name.to_owned(),
        min_time: block.meta().min_ms,
        max_time: block.meta().max_ms.saturating_add(1),
        stats: Stats { ..*stats },
        compaction: Compaction {
            level: u32::from(block.meta().level.max(1)),
            sources: vec![name.to_owned()],
        },
        version: 1,
    };
    let path = target.join("meta.json");
    let text = serde_json::to_vec_pretty(&meta).map_err(|error| foreign(&path, error.to_string()))?;
    std::fs::write(&path, text).map_err(file_fault(&path))?;
    std::fs::File::open(&path).and_then(|file| file.sync_all()).map_err(file_fault(&path))
}
