//! Records as bytes: encoded once, where they are emitted, and copied from there into the log, the buffers of the stores
//! and their blocks.
//!
//! A record is a dozen small pieces of memory. Handed to another thread as such, making and freeing them costs more than
//! everything else that is done with them; as bytes, those of a moment lie in one piece that is used again and again.

use std::sync::{Arc, LazyLock};

use foldhash::quality::RandomState;
use std::hash::BuildHasher;

use crate::record::{Body, Record};
use crate::wire;

crate::label_enum! {
    /// The kinds of record.
    pub enum RecordKind("kind") {
        /// A log line.
        Log = "log",
        /// A finished span.
        Span = "span",
        /// A SIP message.
        Sip = "sip",
        /// A window of media quality.
        Quality = "quality",
        /// A call that ended.
        Call = "call",
    }
}

impl RecordKind {
    /// The kind of a record.
    #[must_use]
    pub fn of(body: &Body) -> Self {
        match body {
            Body::Log(_) => Self::Log,
            Body::Span(_) => Self::Span,
            Body::Sip(_) => Self::Sip,
            Body::Quality(_) => Self::Quality,
            Body::Call(_) => Self::Call,
        }
    }
}

/// What is known of a record without reading its bytes, and where they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stub {
    begin: usize,
    end: usize,
    unix_nanos: u64,
    kind: RecordKind,
    call: Option<u64>,
}

impl Stub {
    /// Of a record whose bytes were put there.
    pub(crate) fn of(record: &Record, begin: usize, end: usize) -> Self {
        let call = record.body.call_id().map(call_hash);
        Self { begin, end, unix_nanos: record.unix_nanos, kind: RecordKind::of(&record.body), call }
    }

    /// Of a record of which only this is known; its place comes later.
    pub(crate) fn about(unix_nanos: u64, kind: RecordKind, call_id: &str) -> Self {
        Self { begin: 0, end: 0, unix_nanos, kind, call: Some(call_hash(call_id)) }
    }

    pub(crate) fn at(self, begin: usize, end: usize) -> Self {
        Self { begin, end, ..self }
    }
}

/// A record as bytes, in postcard. Cheap to clone: those that were emitted together share their memory.
#[derive(Clone, Debug)]
pub struct PackedRecord {
    chunk: Arc<Vec<u8>>,
    stub: Stub,
}

impl PackedRecord {
    /// Encodes a record.
    ///
    /// # Errors
    /// When it cannot be serialised.
    pub fn of(record: &Record) -> postcard::Result<Self> {
        let mut chunk = Vec::with_capacity(512);
        wire::append(&mut chunk, record)?;
        let stub = Stub::of(record, 0, chunk.len());
        Ok(Self { chunk: Arc::new(chunk), stub })
    }

    pub(crate) fn within(chunk: &Arc<Vec<u8>>, stub: Stub) -> Self {
        Self { chunk: Arc::clone(chunk), stub }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.chunk.get(self.stub.begin..self.stub.end).unwrap_or_default()
    }

    /// Reads it.
    ///
    /// # Errors
    /// When its bytes are no record, which those of [`PackedRecord::of`] always are.
    pub fn read(&self) -> postcard::Result<Record> {
        postcard::from_bytes(self.bytes())
    }

    /// When, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn unix_nanos(&self) -> u64 {
        self.stub.unix_nanos
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        self.stub.kind
    }

    /// Tells calls apart, as far as 64 bits do; `None` when it belongs to none. Good within this process only.
    #[must_use]
    pub fn call_hash(&self) -> Option<u64> {
        self.stub.call
    }
}

/// Equal when they are the same record.
impl PartialEq for PackedRecord {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

/// The hash by which records of one call are put together.
#[must_use]
pub fn call_hash(call_id: &str) -> u64 {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    HASHER.hash_one(call_id)
}
