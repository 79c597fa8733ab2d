//! A block: one file that never changes, with the chunks of a time, an index of its own, and how far it covers the log.
//!
//! ```text
//! magic 8 | chunks ... | pages of labels | pages of series | exemplars | footer | footer length u64 | crc32c u32 | magic 8
//! ```
//! Little endian. Pages and footer are postcard, packed with zstd, each with its checksum. The index is made for reading
//! little of it: the footer says where the page is that can hold a label's value or a series' number, so that a query of
//! one series in a block of a million reads a few pages, and an open block costs the memory of its footer.
//! Postings are roaring bitmaps of series numbers, which count from zero in the order of labels.
//!
//! A block is written beside its name, fsynced and renamed, so that a file with the name is whole unless the disk lost
//! something; then the footer, a page or a chunk says so by its checksum.

mod cache;
mod reader;
mod writer;

use std::path::{Path, PathBuf};

use belfry_signal::Exemplar;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::level::Resolution;
use crate::sealed::Kind;

pub(crate) use self::cache::PageCache;
pub(crate) use self::reader::{Block, BlockSeries};
pub(crate) use self::writer::BlockWriter;

const MAGIC: [u8; 8] = *b"BLFBLK02";
/// Footer length, checksum, magic.
const TAIL_BYTES: usize = 20;
const EXTENSION: &str = "block";
/// Series in one page of the index.
pub(crate) const SERIES_PER_PAGE: u32 = 128;
/// Values in one page of a label, and bytes of their texts and postings, at most.
const VALUES_PER_PAGE: usize = 1024;
const PAGE_BYTES: usize = 64 << 10;
/// A page that says it is longer than this unpacked is damaged.
const PAGE_BYTES_MAX: usize = 256 << 20;
const ZSTD_LEVEL: i32 = 3;

/// What the catalogue knows about a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) id: u64,
    /// The first of the blocks that it was made of, or its own: of two values of one time, that which came first counts.
    pub(crate) first_id: u64,
    /// 0 as the head was sealed; 1 compacted to one window; above, each three times as long. The two high bits say the
    /// resolution.
    pub(crate) level: u8,
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    pub(crate) series: u64,
    pub(crate) samples: u64,
    pub(crate) bytes: u64,
    /// Position of the log up to which this block and those before it hold everything.
    pub(crate) checkpoint: u64,
}

impl Meta {
    /// How finely it keeps samples.
    pub(crate) fn resolution(&self) -> Resolution {
        Resolution::of_bits(self.level)
    }

    /// Whether it may hold something of a time, both ends included.
    pub(crate) fn touches(&self, from_ms: i64, to_ms: i64) -> bool {
        self.max_ms >= from_ms && self.min_ms.saturating_sub(self.resolution().millis()) < to_ms
    }
}

/// Where bytes are in the file, and their checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) crc: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Footer {
    meta: Meta,
    series: Vec<Place>,
    labels: Vec<LabelPages>,
    exemplars: Option<Place>,
}

/// The pages of one label's values, in order.
#[derive(Debug, Serialize, Deserialize)]
struct LabelPages {
    name: String,
    /// First value of each page.
    pages: Vec<(String, Place)>,
}

/// Values of one label and the series that have them.
#[derive(Debug, Default, Serialize, Deserialize)]
struct LabelPage {
    values: Vec<(String, StoredSet)>,
}

#[derive(Debug, Serialize, Deserialize)]
enum StoredSet {
    One(u32),
    Many(Vec<u8>),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct SeriesPage {
    texts: Vec<String>,
    series: Vec<StoredSeries>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredSeries {
    /// Names and values as numbers of texts.
    labels: Vec<(u32, u32)>,
    chunks: Vec<StoredChunk>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredChunk {
    kind: Kind,
    count: u32,
    min_ms: i64,
    span_ms: u64,
    times: Place,
    /// Bytes between the end of the chunk before in the page and this one's values: mostly none.
    gap: i64,
    length: u32,
    crc: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredExemplars {
    series: Vec<(u32, Vec<Exemplar>)>,
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

/// Deletes what a crash left half-written.
pub(crate) fn remove_unfinished(directory: &Path) -> std::io::Result<()> {
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn pack<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    let plain = postcard::to_stdvec(value).map_err(Error::Encode)?;
    let mut packed = Vec::with_capacity(plain.len() / 3 + 16);
    packed.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes());
    let body = zstd::bulk::compress(&plain, ZSTD_LEVEL)
        .map_err(|source| Error::File { path: PathBuf::new(), source })?;
    packed.extend_from_slice(&body);
    Ok(packed)
}

/// Unpacks a page; `None` when it does not hold one.
pub(crate) fn unpack_bytes(packed: &[u8]) -> Option<Vec<u8>> {
    let (length, body) = packed.split_first_chunk::<4>()?;
    let length =
        usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= PAGE_BYTES_MAX)?;
    zstd::bulk::decompress(body, length).ok()
}

fn unpack<T: for<'de> Deserialize<'de>>(packed: &[u8]) -> Option<T> {
    postcard::from_bytes(&unpack_bytes(packed)?).ok()
}

/// Reads bytes as every part of a block, past the checksums: for the fuzzer.
pub(crate) fn read_any(bytes: &[u8]) {
    let _footer = postcard::from_bytes::<Footer>(bytes).ok();
    let _exemplars = postcard::from_bytes::<StoredExemplars>(bytes).ok();
    let _labels = postcard::from_bytes::<LabelPage>(bytes).ok();
    let _set = roaring::RoaringBitmap::deserialize_from(bytes).ok();
    let _series = postcard::from_bytes::<SeriesPage>(bytes).ok().and_then(reader::open_page);
    let _plain = unpack_bytes(bytes.get(..4096.min(bytes.len())).unwrap_or_default());
}
