//! Blocks of Prometheus as ours.

use std::path::Path;

use super::chunks::{ChunkReader, XOR};
use super::index::IndexReader;
use super::{Carried, MetaFile, block_directories, file_fault, foreign, xor};
use crate::block::BlockWriter;
use crate::error::Error;
use crate::level::Levels;
use crate::maintenance::{Maintenance, Progress};
use crate::merge::Gathered;
use crate::sealed::Sealed;

impl Maintenance {
    /// Takes over the blocks of a Prometheus' data directory, or one block. Each is published whole when it is read whole;
    /// run again, it goes on where it ended: blocks that were taken over are left alone. `progress` counts blocks.
    ///
    /// # Errors
    /// When a block is not one that can be read, with what is wrong; those before it stay taken over.
    pub fn import_prometheus(&self, source: &Path, progress: Progress<'_>) -> Result<Carried, Error> {
        let directories = block_directories(source)?;
        if directories.is_empty() {
            return Err(foreign(source, "there is no directory with meta.json and index in it"));
        }
        let mut carried = Carried::default();
        for (at, directory) in (0_u64..).zip(&directories) {
            progress(at, directories.len() as u64);
            let path = directory.join("meta.json");
            let text = std::fs::read(&path).map_err(file_fault(&path))?;
            let meta: MetaFile =
                serde_json::from_slice(&text).map_err(|error| foreign(&path, error.to_string()))?;
            if self.shared().catalogue().is_imported(&meta.ulid)? {
                carried.blocks_before += 1;
                continue;
            }
            self.import_block(directory, &meta.ulid, &mut carried)?;
            carried.blocks += 1;
        }
        progress(directories.len() as u64, directories.len() as u64);
        Ok(carried)
    }

    fn import_block(&self, directory: &Path, name: &str, carried: &mut Carried) -> Result<(), Error> {
        let _alone = self.shared().maintenance();
        let index = IndexReader::open(directory)?;
        let chunks = ChunkReader::open(directory)?;
        let id = self.shared().catalogue().take_id();
        let mut writer = BlockWriter::create(self.shared().directory(), id, 0, 0)?;
        for series in index.series() {
            let (labels, places) = series.map_err(|text| foreign(directory, text))?;
            let mut gathered = Gathered::default();
            for place in places {
                let (encoding, bytes) = chunks.read(place.reference)?;
                if encoding == XOR {
                    let points =
                        xor::decode(&bytes).ok_or_else(|| foreign(directory, "a chunk is not whole"))?;
                    gathered.floats.extend(points);
                } else {
                    // Every encoding begins with the number of samples.
                    let count = bytes.first_chunk::<2>().map_or(0, |count| u16::from_be_bytes(*count));
                    carried.histograms_left_out += u64::from(count);
                }
            }
            gathered.put_in_order();
            if !gathered.floats.is_empty() {
                let sealed: Vec<Sealed> = Sealed::of_floats(&gathered.floats).collect();
                writer.push(&labels, &sealed, Vec::new())?;
                carried.series += 1;
                carried.samples += gathered.floats.len() as u64;
            }
        }
        let meta = writer.finish()?;
        let touched = |levels: &Levels| {
            (meta.iter().flat_map(|meta| levels.outdated(meta.min_ms, meta.max_ms)).collect(), None)
        };
        self.shared().replace(meta.as_slice(), &[], touched)?;
        // Noted after it is published: a crash in between has the block taken over twice, which reads as once.
        self.shared().catalogue().put_imported(name)
    }
}
