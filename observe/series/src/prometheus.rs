//! Blocks as Prometheus has them on disk: exported for `promtool` and for whoever moves away, imported from who comes.
//!
//! The formats are those of Prometheus' `tsdb/docs/format`: index version 2, chunks version 1 with floats and native
//! histograms, one directory per block with `meta.json`. Histograms that the house does not take (more than 2000 buckets)
//! are counted and told.
//! Own code because no crate writes these files; the pieces are small, and `promtool` is the judge of them.

mod chunks;
mod export;
mod histogram;
mod import;
mod index;
mod xor;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Float points as an XOR chunk of Prometheus; at most 65535 of them.
#[must_use]
pub fn xor_chunk(points: &[(i64, f64)]) -> Vec<u8> {
    xor::encode(points)
}

/// What was carried over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Blocks carried over in this run.
    pub blocks: u64,
    /// Blocks that an earlier run carried over.
    pub blocks_before: u64,
    /// Series in those blocks.
    pub series: u64,
    /// Samples in those blocks, histograms among them.
    pub samples: u64,
    /// Histogram samples in those blocks.
    pub histograms: u64,
    /// Histogram samples that were left out: there is no room for so many buckets.
    pub histograms_left_out: u64,
}

/// `meta.json` of a block.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetaFile {
    ulid: String,
    min_time: i64,
    /// Exclusive.
    max_time: i64,
    stats: Stats,
    compaction: Compaction,
    version: u8,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    num_samples: u64,
    num_series: u64,
    num_chunks: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Compaction {
    level: u32,
    sources: Vec<String>,
}

fn foreign(path: &Path, text: impl Into<String>) -> Error {
    Error::Foreign { path: path.to_owned(), text: text.into() }
}

fn file_fault(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    |source| Error::File { path: path.to_owned(), source }
}

/// The blocks in a directory of Prometheus, or the directory itself when it is one; sorted.
fn block_directories(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if path.join("meta.json").is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(file_fault(path))? {
        let entry = entry.map_err(file_fault(path))?.path();
        if entry.join("meta.json").is_file() && entry.join("index").is_file() {
            found.push(entry);
        }
    }
    found.sort();
    Ok(found)
}

/// Twenty-six characters that sort by time and are always the same for the same block: a second export finds the first.
fn ulid(unix_millis: i64, id: u64, bytes: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let time = u128::from(unix_millis.max(0).cast_unsigned() & 0xffff_ffff_ffff);
    let value = (time << 80) | (u128::from(id & 0xffff_ffff_ffff) << 32) | u128::from(bytes & 0xffff_ffff);
    (0..26).rev().map(|digit| char::from(DIGITS[(value >> (digit * 5) & 31) as usize])).collect()
}

/// Reads bytes as a chunk and as an index, past the checksums where there are any: for the fuzzer.
pub(crate) fn read_any(bytes: &[u8]) {
    let _points = xor::decode(bytes);
    let _whole = histogram::decode(chunks::HISTOGRAM, bytes);
    let _floats = histogram::decode(chunks::FLOAT_HISTOGRAM, bytes);
    if let Ok(index) = index::IndexReader::read(bytes.to_vec()) {
        for series in index.series() {
            drop(series);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ulid_sorts_by_time_and_is_the_same_again() {
        let (early, late) = (ulid(1_700_000_000_000, 7, 9), ulid(1_700_000_000_001, 3, 9));
        assert_eq!(early.len(), 26);
        assert!(early < late);
        assert_eq!(early, ulid(1_700_000_000_000, 7, 9));
        assert!(early.starts_with("01HF7Y"), "{early}");
    }
}
