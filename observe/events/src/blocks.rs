//! A block: some hundred records that lie together in a split, packed with zstd.
//!
//! The records of one call, and those of one kind, lie side by side, because messages that repeat each other pack
//! better than mixed ones, and because who looks for one call then unpacks one block.

use std::collections::HashMap;
use std::sync::Arc;

use belfry_signal::record::Body;
use belfry_signal::{Record, Severity, wire};
use foldhash::quality::RandomState;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

use crate::facts::{call_id, severity};

/// Records are packed together until they are so many bytes. Bigger blocks pack better, smaller ones make a single hit
/// cheaper.
pub(crate) const BLOCK_BYTES: usize = 128 << 10;
/// Level 1 packs our records to within a fiftieth of what level 3 does.
const ZSTD_LEVEL: i32 = 1;

/// Where a block lies, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockRow {
    /// From the start of the file.
    pub(crate) offset: u64,
    /// Packed.
    pub(crate) bytes: u32,
    /// Unpacked.
    pub(crate) raw_bytes: u32,
    /// Of the packed bytes.
    pub(crate) crc: u32,
    pub(crate) records: u32,
    /// Time of the oldest record.
    pub(crate) from_nanos: u64,
    /// Time of the newest record.
    pub(crate) to_nanos: u64,
}

/// Why a block cannot be read.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum BadBlock {
    #[error("the checksum of a block is wrong")]
    Checksum,
    #[error("a block cannot be unpacked")]
    Packing,
    #[error("a record in a block cannot be read")]
    Record,
}

/// Packs one block after the other.
pub(crate) struct Packer {
    raw: Vec<u8>,
    /// One record, for a moment.
    record: Vec<u8>,
    zstd: zstd::bulk::Compressor<'static>,
    records: u32,
    from_nanos: u64,
    to_nanos: u64,
}

impl Packer {
    pub(crate) fn new() -> std::io::Result<Self> {
        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
        let raw = Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4);
        Ok(Self { raw, record: Vec::new(), zstd, records: 0, from_nanos: u64::MAX, to_nanos: 0 })
    }

    pub(crate) fn is_full(&self) -> bool {
        self.raw.len() >= BLOCK_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(crate) fn push(&mut self, sequence: u64, record: &Record) -> Result<(), postcard::Error> {
        self.record.clear();
        wire::append(&mut self.record, &(sequence, record))?;
        wire::append_bytes(&mut self.raw, &self.record)?;
        self.records += 1;
        self.from_nanos = self.from_nanos.min(record.unix_nanos);
        self.to_nanos = self.to_nanos.max(record.unix_nanos);
        Ok(())
    }

    /// The packed block, which ends here, and its row, for a block that will lie at `offset`.
    pub(crate) fn finish(&mut self, offset: u64) -> std::io::Result<(Vec<u8>, BlockRow)> {
        let packed = self.zstd.compress(&self.raw)?;
        let too_long = |_| std::io::Error::other("a block is longer than 4 GiB");
        let row = BlockRow {
            offset,
            bytes: u32::try_from(packed.len()).map_err(too_long)?,
            raw_bytes: u32::try_from(self.raw.len()).map_err(too_long)?,
            crc: crc32c::crc32c(&packed),
            records: self.records,
            from_nanos: self.from_nanos,
            to_nanos: self.to_nanos,
        };
        self.raw.clear();
        (self.records, self.from_nanos, self.to_nanos) = (0, u64::MAX, 0);
        Ok((packed, row))
    }
}

/// The records of a packed block with their numbers. Given a `needle`, records in whose bytes it does not stand are
/// passed over without a look: a Call-ID or a trace id stands in a record as it is.
pub(crate) fn unpack(
    packed: &[u8],
    row: &BlockRow,
    needle: Option<&Finder<'_>>,
    mut visit: impl FnMut(u64, Record),
) -> Result<(), BadBlock> {
    if crc32c::crc32c(packed) != row.crc {
        return Err(BadBlock::Checksum);
    }
    let raw_bytes = usize::try_from(row.raw_bytes).map_err(|_| BadBlock::Packing)?;
    let raw = zstd::bulk::decompress(packed, raw_bytes).map_err(|_| BadBlock::Packing)?;
    let mut rest = raw.as_slice();
    for _ in 0..row.records {
        let (bytes, after) = postcard::take_from_bytes::<&[u8]>(rest).map_err(|_| BadBlock::Record)?;
        rest = after;
        if needle.is_none_or(|needle| needle.find(bytes).is_some()) {
            let (sequence, record) = postcard::from_bytes(bytes).map_err(|_| BadBlock::Record)?;
            visit(sequence, record);
        }
    }
    Ok(())
}

/// Records that do not share a block with others: the calls that ended, all else of calls, what went wrong outside of
/// calls, and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Ended,
    Calls,
    Bad,
    Rest,
}

impl Run {
    pub(crate) fn of(record: &Record) -> Self {
        match &record.body {
            Body::Call(_) => Self::Ended,
            body if call_id(body).is_some() => Self::Calls,
            body if severity(body) >= Severity::Warn => Self::Bad,
            _ => Self::Rest,
        }
    }
}

/// The records in the order in which they lie in a split: by run, and in that of calls by call.
pub(crate) fn in_order<'a>(
    records: impl Iterator<Item = (u64, &'a Arc<Record>)>,
) -> impl Iterator<Item = (u64, &'a Arc<Record>)> {
    let (mut ended, mut bad, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    let mut calls: Vec<Vec<(u64, &Arc<Record>)>> = Vec::new();
    let mut known: HashMap<&str, usize, RandomState> = HashMap::default();
    for (sequence, record) in records {
        match Run::of(record) {
            Run::Ended => ended.push((sequence, record)),
            Run::Calls => {
                let call_id = call_id(&record.body).unwrap_or_default();
                let call = *known.entry(call_id).or_insert_with(|| {
                    calls.push(Vec::new());
                    calls.len() - 1
                });
                calls[call].push((sequence, record));
            }
            Run::Bad => bad.push((sequence, record)),
            Run::Rest => rest.push((sequence, record)),
        }
    }
    ended.into_iter().chain(calls.into_iter().flatten()).chain(bad).chain(rest)
}
