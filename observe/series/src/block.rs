//! A sealed block: one file with the chunks of a window, their index, and how far it covers the log.
//!
//! ```text
//! magic 8 | chunks ... | index (postcard) | index offset u64 | index length u64 | index crc32c u32 | magic 8
//! ```
//! Little endian. A block is written beside its name, fsynced and renamed, so that a file with the name is whole unless
//! the disk lost something; then the footer, the index or a chunk says so by its checksum.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chunk::{Point, decode};
use crate::error::Error;
use crate::head::Chunks;
use crate::index::{LabelSet, SeriesIndex};
use crate::matcher::Matcher;

const MAGIC: [u8; 8] = *b"BLFBLK01";
const FOOTER_BYTES: usize = 28;
const EXTENSION: &str = "block";

/// What the catalogue knows about a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) id: u64,
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    pub(crate) series: u64,
    pub(crate) samples: u64,
    pub(crate) bytes: u64,
    /// Position of the log up to which this block and those before it hold everything.
    pub(crate) checkpoint: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredIndex {
    meta: Meta,
    symbols: Vec<String>,
    series: Vec<StoredSeries>,
}

#[derive(Serialize, Deserialize)]
struct StoredSeries {
    /// Name and value as numbers of symbols.
    labels: Vec<(u32, u32)>,
    chunks: Vec<ChunkPlace>,
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ChunkPlace {
    offset: u64,
    length: u32,
    crc: u32,
    count: u16,
    min_ms: i64,
    max_ms: i64,
}

/// A block whose index is in memory.
#[derive(Debug)]
pub(crate) struct Block {
    file: File,
    meta: Meta,
    index: SeriesIndex,
    chunks: Vec<Vec<ChunkPlace>>,
}

/// Points of a series in a block, and how many chunks could not be read.
pub(crate) struct Found {
    pub(crate) labels: LabelSet,
    pub(crate) points: Vec<Point>,
}

/// The file of a block.
pub(crate) fn path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("{id:016}.{EXTENSION}"))
}

/// The ids of all files that have a block's name.
pub(crate) fn list(directory: &Path) -> std::io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        let is_block = path.extension().is_some_and(|extension| extension == EXTENSION);
        if let Some(id) = path.file_stem().filter(|_| is_block).and_then(|stem| stem.to_str()?.parse().ok()) {
            ids.push(id);
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Writes a block whole and fsyncs it. `meta.bytes` is filled in.
pub(crate) fn write(directory: &Path, mut meta: Meta, series: &[Chunks]) -> Result<Meta, Error> {
    let path = path(directory, meta.id);
    let new_path = path.with_extension("new");
    let fault = |source| Error::File { path: path.clone(), source };
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&new_path).map_err(fault)?;
    let mut writer = BufWriter::new(file);
    writer.write_all(&MAGIC).map_err(fault)?;
    let mut offset = MAGIC.len() as u64;
    let mut symbols = Symbols::default();
    let mut stored = Vec::with_capacity(series.len());
    for (labels, chunks) in series {
        let mut places = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            writer.write_all(&chunk.bytes).map_err(fault)?;
            places.push(ChunkPlace {
                offset,
                length: u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX),
                crc: crc32c::crc32c(&chunk.bytes),
                count: chunk.count,
                min_ms: chunk.min_ms,
                max_ms: chunk.max_ms,
            });
            offset += chunk.bytes.len() as u64;
        }
        let labels =
            labels.iter().map(|(name, value)| (symbols.number(name), symbols.number(value))).collect();
        stored.push(StoredSeries { labels, chunks: places });
    }
    let index = StoredIndex { meta: meta.clone(), symbols: symbols.texts, series: stored };
    let index = postcard::to_stdvec(&index).map_err(Error::Encode)?;
    writer.write_all(&index).map_err(fault)?;
    writer.write_all(&offset.to_le_bytes()).map_err(fault)?;
    writer.write_all(&(index.len() as u64).to_le_bytes()).map_err(fault)?;
    writer.write_all(&crc32c::crc32c(&index).to_le_bytes()).map_err(fault)?;
    writer.write_all(&MAGIC).map_err(fault)?;
    let file = writer.into_inner().map_err(|error| fault(error.into_error()))?;
    file.sync_all().map_err(fault)?;
    std::fs::rename(&new_path, &path).map_err(fault)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(fault)?;
    meta.bytes = offset + (index.len() + FOOTER_BYTES) as u64;
    Ok(meta)
}

#[derive(Default)]
struct Symbols {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<String>,
}

impl Symbols {
    fn number(&mut self, text: &Arc<str>) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.numbers.insert(Arc::clone(text), number);
        self.texts.push(text.to_string());
        number
    }
}

/// Where the index is: offset, length, checksum.
struct Footer {
    offset: u64,
    length: u64,
    crc: u32,
}

fn read_footer(file: &File) -> Option<Footer> {
    let bytes = file.metadata().ok()?.len();
    let start = bytes.checked_sub(FOOTER_BYTES as u64)?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact_at(&mut footer, start).ok()?;
    let offset = u64::from_le_bytes(footer[..8].try_into().ok()?);
    let length = u64::from_le_bytes(footer[8..16].try_into().ok()?);
    let crc = u32::from_le_bytes(footer[16..20].try_into().ok()?);
    let is_whole = footer[20..] == MAGIC && offset.checked_add(length) == Some(start);
    is_whole.then_some(Footer { offset, length, crc })
}

/// Whether a block's file is there and ends as a block does: cheap enough to ask of every block at start.
pub(crate) fn is_whole(directory: &Path, id: u64) -> bool {
    File::open(path(directory, id)).is_ok_and(|file| read_footer(&file).is_some())
}

impl Block {
    pub(crate) fn open(directory: &Path, id: u64) -> Result<Self, Error> {
        let path = path(directory, id);
        let file = File::open(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        Self::read(file).ok_or(Error::Damaged { path })
    }

    fn read(file: File) -> Option<Self> {
        let footer = read_footer(&file)?;
        let mut bytes = vec![0; usize::try_from(footer.length).ok()?];
        file.read_exact_at(&mut bytes, footer.offset).ok()?;
        if crc32c::crc32c(&bytes) != footer.crc {
            return None;
        }
        let mut stored: StoredIndex = postcard::from_bytes(&bytes).ok()?;
        stored.meta.bytes = footer.offset + footer.length + FOOTER_BYTES as u64;
        let mut index = SeriesIndex::default();
        let mut chunks = Vec::with_capacity(stored.series.len());
        for series in stored.series {
            let text = |number: u32| stored.symbols.get(number as usize).map(String::as_str);
            let mut labels = Vec::with_capacity(series.labels.len());
            for (name, value) in series.labels {
                labels.push((text(name)?, text(value)?));
            }
            index.push(labels.into_iter());
            chunks.push(series.chunks);
        }
        Some(Self { file, meta: stored.meta, index, chunks })
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(crate) fn index(&self) -> &SeriesIndex {
        &self.index
    }

    /// The points of the series that satisfy every matcher, at most `points_max` of them (else `None`), and the
    /// number of chunks that could not be read.
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
        points_max: usize,
    ) -> Option<(Vec<Found>, u64)> {
        let (mut selected, mut damaged, mut points_total) = (Vec::new(), 0, 0);
        for number in self.index.select(matchers) {
            let (Some(labels), Some(places)) = (self.index.labels(number), self.chunks.get(number as usize))
            else {
                continue;
            };
            let mut points = Vec::new();
            for place in places.iter().filter(|place| place.max_ms >= from_ms && place.min_ms <= to_ms) {
                points_total += usize::from(place.count);
                if points_total > points_max {
                    return None;
                }
                match self.chunk(place) {
                    Some(unpacked) => points.extend(unpacked),
                    None => damaged += 1,
                }
            }
            points.retain(|(time, _)| (from_ms..=to_ms).contains(time));
            if !points.is_empty() {
                selected.push(Found { labels: Arc::clone(labels), points });
            }
        }
        Some((selected, damaged))
    }

    /// The labels of the series that satisfy every matcher and have a chunk that touches the time.
    pub(crate) fn label_sets<'a>(
        &'a self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> impl Iterator<Item = LabelSet> + 'a {
        let touches = move |place: &ChunkPlace| place.max_ms >= from_ms && place.min_ms <= to_ms;
        self.index.select(matchers).into_iter().filter_map(move |number| {
            let places = self.chunks.get(number as usize)?;
            places.iter().any(touches).then(|| self.index.labels(number).map(Arc::clone))?
        })
    }

    fn chunk(&self, place: &ChunkPlace) -> Option<Vec<Point>> {
        // A damaged place could ask for any length: no chunk is longer than its samples can be.
        if place.length > u32::from(place.count) * 20 + 16 {
            return None;
        }
        let mut bytes = vec![0; place.length as usize];
        self.file.read_exact_at(&mut bytes, place.offset).ok()?;
        (crc32c::crc32c(&bytes) == place.crc).then(|| decode(&bytes, place.count)).flatten()
    }
}
