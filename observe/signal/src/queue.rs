//! What was emitted and not yet taken: the bytes of records, one after the other, in memory that is used again and again.
//!
//! Our own queue, because a channel holds values, and handing a record's pieces of memory to another thread costs more
//! than the record. Whoever emits wakes the one who takes only when it says that it sleeps.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::Notify;

use crate::packed::{PackedRecord, Stub};
use crate::record::Record;
use crate::wire;

/// Memory that is kept for the next records; what one storm needed is given back.
const SPARE_BYTES_MAX: usize = 8 << 20;

thread_local! {
    /// A record is encoded here, so that the queue is locked only while its bytes are copied.
    static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    records_max: usize,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    stubs: Vec<Stub>,
    /// Nothing is taken in any more.
    is_closed: bool,
    /// Somebody sleeps until there are so many records.
    awaited: Option<usize>,
}

/// Where the pipeline takes records from. When it is gone, what is emitted is dropped and counted.
#[derive(Debug)]
pub struct RecordReceiver {
    queue: Arc<Queue>,
    /// What was taken last: its memory is used again when all its records are gone.
    lent: Option<Arc<Vec<u8>>>,
    /// Taken, for whoever reads one by one.
    taken: VecDeque<PackedRecord>,
}

/// Nothing waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no record waits")]
pub struct NoRecord;

impl Queue {
    pub(crate) fn new(records_max: usize) -> (Arc<Self>, RecordReceiver) {
        let queue = Arc::new(Self { waiting: Mutex::default(), records_max, arrived: Notify::new() });
        let receiver = RecordReceiver { queue: Arc::clone(&queue), lent: None, taken: VecDeque::new() };
        (queue, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record in; false when there is no room, or nobody who takes any.
    pub(crate) fn push(&self, record: &Record) -> bool {
        self.push_encoded(Stub::of(record, 0, 0), record)
    }

    /// Takes in what is encoded as a [`Record`] is.
    pub(crate) fn push_encoded(&self, stub: Stub, record: &impl Serialize) -> bool {
        let pushed = ENCODED.try_with(|encoded| {
            let mut encoded = encoded.try_borrow_mut().ok()?;
            encoded.clear();
            wire::append(&mut encoded, record).ok()?;
            Some(self.push_bytes(stub, &encoded))
        });
        // A thread at its end has no memory of its own any more.
        pushed.ok().flatten().unwrap_or_else(|| {
            let mut encoded = Vec::new();
            wire::append(&mut encoded, record).is_ok() && self.push_bytes(stub, &encoded)
        })
    }

    fn push_bytes(&self, stub: Stub, encoded: &[u8]) -> bool {
        let mut waiting = self.lock();
        if waiting.is_closed || waiting.stubs.len() >= self.records_max {
            return false;
        }
        let begin = waiting.bytes.len();
        waiting.bytes.extend_from_slice(encoded);
        waiting.stubs.push(stub.at(begin, begin + encoded.len()));
        let count = waiting.stubs.len();
        let is_awaited = waiting.awaited.take_if(|awaited| *awaited <= count).is_some();
        drop(waiting);
        if is_awaited {
            self.arrived.notify_one();
        }
        true
    }
}

impl RecordReceiver {
    /// Waits until so many records wait to be taken. Cancel-safe.
    pub async fn arrived(&self, count: usize) {
        loop {
            {
                let mut waiting = self.queue.lock();
                if waiting.stubs.len() >= count {
                    return;
                }
                waiting.awaited = Some(count);
            }
            self.queue.arrived.notified().await;
        }
    }

    /// Takes everything that waits.
    pub fn take(&mut self, records: &mut Vec<PackedRecord>) {
        let mut waiting = self.queue.lock();
        waiting.awaited = None;
        if waiting.stubs.is_empty() {
            return;
        }
        let spare = self.lent.take().and_then(|lent| Arc::try_unwrap(lent).ok());
        let mut spare = spare.filter(|spare| spare.capacity() <= SPARE_BYTES_MAX).unwrap_or_default();
        spare.clear();
        let chunk = Arc::new(std::mem::replace(&mut waiting.bytes, spare));
        records.extend(waiting.stubs.drain(..).map(|stub| PackedRecord::within(&chunk, stub)));
        drop(waiting);
        self.lent = Some(chunk);
    }

    /// Takes and reads one, for tests.
    ///
    /// # Errors
    /// When none waits.
    pub fn try_recv(&mut self) -> Result<Record, NoRecord> {
        if self.taken.is_empty() {
            let mut taken = Vec::new();
            self.take(&mut taken);
            self.taken.extend(taken);
        }
        self.taken.pop_front().and_then(|packed| packed.read().ok()).ok_or(NoRecord)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.lock().stubs.len() + self.taken.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many may wait.
    #[must_use]
    pub fn max_capacity(&self) -> usize {
        self.queue.records_max
    }

    /// Takes nothing in any more: what is emitted from here on is dropped and counted. What waits may still be taken.
    pub fn close(&mut self) {
        self.queue.lock().is_closed = true;
    }
}

impl Drop for RecordReceiver {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Body, Log, Severity};

    fn record(unix_nanos: u64) -> Record {
        let body = Body::Log(Log {
            severity: Severity::Info,
            message: "said".into(),
            attributes: vec![("number".into(), unix_nanos.into())],
            context: None,
            call_id: Some(crate::Pii::new(format!("call-{unix_nanos}"))),
        });
        Record { unix_nanos, component: "test".into(), body }
    }

    #[test]
    fn records_come_out_as_they_went_in_and_in_order() {
        let (queue, mut receiver) = Queue::new(3);
        let mut taken = Vec::new();
        // More rounds than there are pieces of memory.
        for round in 0..4 {
            let put: Vec<Record> = (0..3).map(|number| record(round * 10 + number)).collect();
            assert!(put.iter().all(|record| queue.push(record)));
            assert!(!queue.push(&record(99)), "a fourth finds no room");
            assert_eq!(receiver.len(), 3);
            taken.clear();
            receiver.take(&mut taken);
            let read: Vec<Record> = taken.iter().map(|packed| packed.read().expect("a record")).collect();
            assert_eq!(read, put);
            let facts: Vec<_> = taken.iter().map(|packed| (packed.unix_nanos(), packed.kind())).collect();
            assert_eq!(facts[2], (round * 10 + 2, crate::RecordKind::Log));
            assert_ne!(taken[0].call_hash(), taken[1].call_hash());
        }
    }

    #[test]
    fn memory_is_used_again_when_nobody_reads_it_any_more() {
        let (queue, mut receiver) = Queue::new(8);
        let mut taken = Vec::new();
        let place = |records: &[PackedRecord]| records[0].bytes().as_ptr() as usize;
        let mut round = |is_kept: bool| {
            assert!(queue.push(&record(1)));
            let mut now = Vec::new();
            receiver.take(&mut now);
            let place = place(&now);
            if is_kept {
                taken.extend(now);
            }
            place
        };
        let (first, _, third) = (round(false), round(false), round(true));
        assert_eq!(first, third, "two pieces take turns");
        let _ = round(false);
        assert_ne!(round(false), third, "one that is read is left alone");
        assert_eq!(taken[0].read().expect("a record"), record(1));
    }

    #[test]
    fn what_is_closed_takes_nothing_and_gives_what_it_has() {
        let (queue, mut receiver) = Queue::new(8);
        assert!(queue.push(&record(1)));
        receiver.close();
        assert!(!queue.push(&record(2)));
        assert_eq!(receiver.try_recv(), Ok(record(1)));
        assert_eq!(receiver.try_recv(), Err(NoRecord));
        drop(receiver);
        assert!(!queue.push(&record(3)));
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_once_there_is_something() {
        let (queue, mut receiver) = Queue::new(8);
        let waiting = async {
            receiver.arrived(2).await;
            [receiver.try_recv(), receiver.try_recv()]
        };
        let emitting = async {
            tokio::task::yield_now().await;
            let is_first_taken = queue.push(&record(7));
            tokio::task::yield_now().await;
            is_first_taken && queue.push(&record(8))
        };
        let (got, are_taken) = tokio::join!(waiting, emitting);
        assert!(are_taken);
        assert_eq!(got, [Ok(record(7)), Ok(record(8))]);
    }
}
