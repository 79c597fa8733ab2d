//! The index of a block, version 2 (`tsdb/docs/format/index.md`): symbols, series, postings, and where each begins.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use belfry_promql::Labels;

use super::{file_fault, foreign};
use crate::column::{push_varint, take_varint};
use crate::error::Error;

const MAGIC: u32 = 0xBAAA_D700;
const VERSION: u8 = 2;
/// Series begin at multiples of this, and are referred to by them.
const SERIES_ALIGNMENT: u64 = 16;
const CONTENTS_BYTES: usize = 6 * 8 + 4;

/// Where a chunk of a series is, and what time it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkRef {
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    pub(super) reference: u64,
}

/// Writes an index in the order in which it stands in the file.
pub(super) struct IndexWriter {
    path: PathBuf,
    file: BufWriter<File>,
    offset: u64,
    symbols: HashMap<Arc<str>, u64>,
    series_begin: u64,
    postings: Vec<(String, String, u64)>,
    postings_begin: u64,
}

impl IndexWriter {
    /// Begins with all texts, sorted.
    pub(super) fn create(
        block: &Path,
        symbols: &std::collections::BTreeSet<Arc<str>>,
    ) -> Result<Self, Error> {
        let path = block.join("index");
        let file = BufWriter::new(File::create(&path).map_err(file_fault(&path))?);
        let mut writer = Self {
            path,
            file,
            offset: 0,
            symbols: (0..).zip(symbols).map(|(number, text)| (Arc::clone(text), number)).collect(),
            series_begin: 0,
            postings: Vec::new(),
            postings_begin: 0,
        };
        let mut header = MAGIC.to_be_bytes().to_vec();
        header.push(VERSION);
        writer.write(&header)?;
        let mut table = number(symbols.len() as u64).to_vec();
        for text in symbols {
            push_varint(&mut table, text.len() as u64);
            table.extend_from_slice(text.as_bytes());
        }
        writer.framed(&table)?;
        writer.align(SERIES_ALIGNMENT)?;
        writer.series_begin = writer.offset;
        Ok(writer)
    }

    /// Writes a series; returns how postings refer to it.
    pub(super) fn push(&mut self, labels: &Labels, chunks: &[ChunkRef]) -> Result<u32, Error> {
        self.align(SERIES_ALIGNMENT)?;
        let reference = u32::try_from(self.offset / SERIES_ALIGNMENT)
            .map_err(|_| foreign(&self.path, "an index of Prometheus holds no more than 64 GiB of series"))?;
        let mut body = Vec::new();
        push_varint(&mut body, labels.len() as u64);
        for (name, value) in labels.pairs() {
            for text in [name, value] {
                push_varint(&mut body, self.symbols.get(text).copied().unwrap_or_default());
            }
        }
        push_varint(&mut body, chunks.len() as u64);
        let mut before: Option<&ChunkRef> = None;
        for chunk in chunks {
            match before {
                None => {
                    push_signed(&mut body, chunk.min_ms);
                    push_varint(&mut body, chunk.max_ms.abs_diff(chunk.min_ms));
                    push_varint(&mut body, chunk.reference);
                }
                Some(before) => {
                    push_varint(&mut body, chunk.min_ms.abs_diff(before.max_ms));
                    push_varint(&mut body, chunk.max_ms.abs_diff(chunk.min_ms));
                    push_signed(&mut body, chunk.reference.wrapping_sub(before.reference).cast_signed());
                }
            }
            before = Some(chunk);
        }
        let mut frame = Vec::with_capacity(body.len() + 8);
        push_varint(&mut frame, body.len() as u64);
        frame.extend_from_slice(&body);
        frame.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        self.write(&frame)?;
        Ok(reference)
    }

    /// After the series: the series with a value of a label, in order of labels; first of all those with nothing said.
    pub(super) fn postings(&mut self, name: &str, value: &str, series: &[u32]) -> Result<(), Error> {
        self.align(4)?;
        if self.postings.is_empty() {
            self.postings_begin = self.offset;
        }
        self.postings.push((name.to_owned(), value.to_owned(), self.offset));
        let mut table = number(series.len() as u64).to_vec();
        table.extend(series.iter().flat_map(|reference| reference.to_be_bytes()));
        self.framed(&table)
    }

    /// Ends with the tables.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        // Prometheus has not read the indexes of labels since 2.15, but looks where they would be.
        let labels = self.offset;
        self.framed(&number(0))?;
        let table_begin = self.offset;
        let mut table = number(self.postings.len() as u64).to_vec();
        for (name, value, offset) in std::mem::take(&mut self.postings) {
            table.push(2);
            for text in [name, value] {
                push_varint(&mut table, text.len() as u64);
                table.extend_from_slice(text.as_bytes());
            }
            push_varint(&mut table, offset);
        }
        self.framed(&table)?;
        let places = [5, self.series_begin, self.postings_begin, labels, self.postings_begin, table_begin];
        let mut contents: Vec<u8> = places.iter().flat_map(|place| place.to_be_bytes()).collect();
        let crc = crc32c::crc32c(&contents);
        contents.extend_from_slice(&crc.to_be_bytes());
        self.write(&contents)?;
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(file_fault(&self.path))
    }

    fn framed(&mut self, body: &[u8]) -> Result<(), Error> {
        self.write(&number(body.len() as u64))?;
        self.write(body)?;
        self.write(&crc32c::crc32c(body).to_be_bytes())
    }

    fn align(&mut self, to: u64) -> Result<(), Error> {
        let missing = self.offset.next_multiple_of(to) - self.offset;
        self.write(&[0; 16][..usize::try_from(missing).unwrap_or(0)])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes).map_err(file_fault(&self.path))
    }
}

fn number(value: u64) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes()
}

fn push_signed(out: &mut Vec<u8>, value: i64) {
    push_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn take_signed(bytes: &mut &[u8]) -> Option<i64> {
    let raw = take_varint(bytes)?;
    Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
}

/// A series and its chunks.
pub(super) type Entry = (Labels, Vec<ChunkRef>);

/// An index in memory, for reading its series in order.
pub(super) struct IndexReader {
    bytes: Vec<u8>,
    symbols: Vec<Arc<str>>,
    series: std::ops::Range<usize>,
}

impl IndexReader {
    pub(super) fn open(block: &Path) -> Result<Self, Error> {
        let path = block.join("index");
        let bytes = std::fs::read(&path).map_err(file_fault(&path))?;
        Self::read(bytes).map_err(|text| foreign(&path, text))
    }

    /// An index from its bytes, or what is wrong with them.
    pub(super) fn read(bytes: Vec<u8>) -> Result<Self, &'static str> {
        let damaged = "the index is not whole";
        if bytes.get(..4) != Some(&MAGIC.to_be_bytes()[..]) {
            return Err("the index does not begin as one");
        }
        if bytes.get(4) != Some(&VERSION) {
            return Err("the index is not of version 2: let Prometheus 2.0 or later compact it first");
        }
        let start = bytes.len().checked_sub(CONTENTS_BYTES).ok_or(damaged)?;
        let (places, crc) = bytes[start..].split_at(CONTENTS_BYTES - 4);
        if crc32c::crc32c(places).to_be_bytes() != crc {
            return Err(damaged);
        }
        let place = |at: usize| -> Option<usize> {
            let place = u64::from_be_bytes(places.get(at * 8..at * 8 + 8)?.try_into().ok()?);
            usize::try_from(place).ok().filter(|place| *place <= start)
        };
        let symbols = place(0).and_then(|begin| read_symbols(&bytes, begin)).ok_or(damaged)?;
        let begin = place(1).ok_or(damaged)?;
        let end = place(2).filter(|end| *end >= begin).ok_or(damaged)?;
        Ok(Self { bytes, symbols, series: begin..end })
    }

    /// The series in order.
    pub(super) fn series(&self) -> impl Iterator<Item = Result<Entry, &'static str>> + '_ {
        let mut at = self.series.start;
        std::iter::from_fn(move || {
            at = at.next_multiple_of(16);
            if at >= self.series.end || self.bytes[at..self.series.end].iter().take(16).all(|byte| *byte == 0)
            {
                return None;
            }
            let read = self.read_series(at);
            at = read.as_ref().map_or(self.series.end, |(_, end)| *end);
            Some(read.map(|(series, _)| series).ok_or("a series of the index is not whole"))
        })
    }

    fn read_series(&self, at: usize) -> Option<(Entry, usize)> {
        let mut rest = self.bytes.get(at..)?;
        let length = usize::try_from(take_varint(&mut rest)?).ok()?;
        let (mut body, after) = rest.split_at_checked(length)?;
        let crc = after.get(..4)?;
        if crc32c::crc32c(body).to_be_bytes() != crc {
            return None;
        }
        let end = self.bytes.len() - after.len() + 4;
        let count = take_varint(&mut body)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let mut text = || self.symbols.get(usize::try_from(take_varint(&mut body)?).ok()?).cloned();
            pairs.push((text()?, text()?));
        }
        let mut chunks: Vec<ChunkRef> = Vec::new();
        for _ in 0..take_varint(&mut body)? {
            let chunk = match chunks.last() {
                None => {
                    let min_ms = take_signed(&mut body)?;
                    let max_ms = min_ms.checked_add_unsigned(take_varint(&mut body)?)?;
                    ChunkRef { min_ms, max_ms, reference: take_varint(&mut body)? }
                }
                Some(before) => {
                    let min_ms = before.max_ms.checked_add_unsigned(take_varint(&mut body)?)?;
                    let max_ms = min_ms.checked_add_unsigned(take_varint(&mut body)?)?;
                    let reference = before.reference.wrapping_add_signed(take_signed(&mut body)?);
                    ChunkRef { min_ms, max_ms, reference }
                }
            };
            chunks.push(chunk);
        }
        Some(((Labels::from_pairs(pairs), chunks), end))
    }
}

fn read_symbols(bytes: &[u8], begin: usize) -> Option<Vec<Arc<str>>> {
    let length = usize::try_from(u32::from_be_bytes(bytes.get(begin..begin + 4)?.try_into().ok()?)).ok()?;
    let body = bytes.get(begin + 4..)?.get(..length)?;
    let (count, mut rest) = body.split_first_chunk::<4>()?;
    let mut symbols = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let length = usize::try_from(take_varint(&mut rest)?).ok()?;
        let (text, after) = rest.split_at_checked(length)?;
        symbols.push(Arc::from(std::str::from_utf8(text).ok()?));
        rest = after;
    }
    Some(symbols)
}
