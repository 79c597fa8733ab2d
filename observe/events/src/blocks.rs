//! A block: some hundred records that lie together in a split, packed with zstd.
//!
//! The records of one call, and those of one kind, lie side by side, because messages that repeat each other pack
//! better than mixed ones, and because who looks for one call then unpacks one block.

use std::collections::HashMap;

use belfry_signal::record::Body;
use belfry_signal::{PackedRecord, Record, Severity, call_hash, wire};
use foldhash::quality::RandomState;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

use crate::facts::{RecordKind, Stream, call_id, severity};

/// Records are packed together until they are so many bytes. Bigger blocks pack better, smaller ones make a single hit
/// cheaper.
pub(crate) const BLOCK_BYTES: usize = 128 << 10;
/// Level 1 packs our records to within a fiftieth of what level 3 does.
const ZSTD_LEVEL: i32 = 1;

/// Bytes of a record's number, as postcard writes it.
const SEQUENCE_BYTES_MAX: usize = 10;

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
        let mut bytes = std::mem::take(&mut self.record);
        bytes.clear();
        wire::append(&mut bytes, &(sequence, record))?;
        self.push_packed(&bytes, record.unix_nanos)?;
        self.record = bytes;
        Ok(())
    }

    /// Takes a record as it stands in a live batch.
    pub(crate) fn push_packed(&mut self, bytes: &[u8], unix_nanos: u64) -> Result<(), postcard::Error> {
        wire::append_bytes(&mut self.raw, bytes)?;
        self.records += 1;
        self.from_nanos = self.from_nanos.min(unix_nanos);
        self.to_nanos = self.to_nanos.max(unix_nanos);
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
            let (sequence, record) = unpack_one(bytes)?;
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

/// Things in the order in which they lie in a split: by run, and in that of calls by call. `place` tells the run and a
/// hash of the call.
pub(crate) fn in_order<T>(
    things: impl Iterator<Item = T>,
    place: impl Fn(&T) -> (Run, u64),
) -> impl Iterator<Item = T> {
    let (mut ended, mut bad, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    let mut calls: Vec<Vec<T>> = Vec::new();
    let mut known: HashMap<u64, usize, RandomState> = HashMap::default();
    for thing in things {
        match place(&thing) {
            (Run::Ended, _) => ended.push(thing),
            (Run::Calls, call) => {
                let call = *known.entry(call).or_insert_with(|| {
                    calls.push(Vec::new());
                    calls.len() - 1
                });
                calls[call].push(thing);
            }
            (Run::Bad, _) => bad.push(thing),
            (Run::Rest, _) => rest.push(thing),
        }
    }
    ended.into_iter().chain(calls.into_iter().flatten()).chain(bad).chain(rest)
}

/// Where a record lies in a split, for [`in_order`]. Should two calls have one hash, they lie together.
pub(crate) fn place_of(record: &Record) -> (Run, u64) {
    (Run::of(record), call_id(&record.body).map_or(0, call_hash))
}

/// What the builder wants to know of a packed record. All of a call is known from outside; the rest is rare and is read.
fn sorted(record: &PackedRecord) -> Result<(Stream, (Run, u64)), postcard::Error> {
    match (record.kind(), record.call_hash()) {
        (RecordKind::Call, Some(call)) => Ok((Stream::Calls, (Run::Ended, call))),
        (_, Some(call)) => Ok((Stream::Calls, (Run::Calls, call))),
        (_, None) => {
            let record = record.read()?;
            Ok((Stream::of(&record.body), place_of(&record)))
        }
    }
}

/// Records as they stand in a block before it is packed with zstd, and what the builder wants to know of each before it
/// takes them out.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    raw: Vec<u8>,
    stubs: Vec<Stub>,
}

/// What is known of a record that is packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stub {
    begin: usize,
    end: usize,
    pub(crate) unix_nanos: u64,
    pub(crate) stream: Stream,
    pub(crate) kind: RecordKind,
    pub(crate) place: (Run, u64),
}

impl Packed {
    /// Packs records, of which the first has this number and the others the next.
    pub(crate) fn of(sequence: u64, records: &[&PackedRecord]) -> Result<Self, postcard::Error> {
        // It waits for half a minute: not a byte more than it needs, and no second copy to get there.
        let bytes: usize = records.iter().map(|record| record.bytes().len() + SEQUENCE_BYTES_MAX).sum();
        let mut packed = Self { raw: Vec::with_capacity(bytes), stubs: Vec::with_capacity(records.len()) };
        for (sequence, record) in (sequence..).zip(records) {
            let begin = packed.raw.len();
            wire::append(&mut packed.raw, &sequence)?;
            packed.raw.extend_from_slice(record.bytes());
            let (stream, place) = sorted(record)?;
            packed.stubs.push(Stub {
                begin,
                end: packed.raw.len(),
                unix_nanos: record.unix_nanos(),
                stream,
                kind: record.kind(),
                place,
            });
        }
        Ok(packed)
    }

    pub(crate) fn len(&self) -> usize {
        self.stubs.len()
    }

    /// The memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.raw.capacity() + self.stubs.capacity() * size_of::<Stub>()
    }

    /// The records, still packed.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Stub, &[u8])> {
        let bytes = |stub: &Stub| self.raw.get(stub.begin..stub.end).unwrap_or_default();
        self.stubs.iter().map(move |stub| (stub, bytes(stub)))
    }
}

/// A packed record with its number.
pub(crate) fn unpack_one(bytes: &[u8]) -> Result<(u64, Record), BadBlock> {
    postcard::from_bytes(bytes).map_err(|_| BadBlock::Record)
}
