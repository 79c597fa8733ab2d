//! The task that carries records from the spool to the database, in batches, as long as it takes.
//!
//! It reads the log behind the keeper, up to what is on the platter, so that its memory does not grow with the spool.
//! Records that the spool refused come straight to it; until the database has them they are in memory only.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::desk::Door;
use super::entry::Entry;
use super::keeper::{Command, Refused, Waiter, give_up};
use super::log::{Change, Progress};
use super::refused::RefusedFile;
use super::segment::{self, Scanner};
use crate::database::{Verdict, Write};
use crate::error::Error;
use crate::record::{CallRecord, Kept};
use crate::signals::Signals;

/// From one delivery to the next: what ends meanwhile goes in one transaction. The first after a pause does not wait,
/// and readers of the database ask for everything first.
const DELIVERY_INTERVAL: Duration = Duration::from_millis(250);

/// What is asked of the delivery.
#[derive(Debug)]
pub(crate) enum Order {
    /// Try now; answers whether the database has everything.
    Settle(oneshot::Sender<bool>),
    /// Try a last time, and end.
    Finish,
}

/// The task.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) reader: Reader,
    /// To the keeper, which ends when nothing more can come from here.
    pub(crate) books: Door,
    pub(crate) writes: mpsc::Sender<Write>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) refused: mpsc::Receiver<Refused>,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) batch_max: usize,
    pub(crate) in_memory_max: usize,
    pub(crate) retry_interval: Duration,
    pub(crate) signals: Signals,
    /// Records in memory only, oldest first.
    pub(crate) in_memory: VecDeque<Refused>,
    /// When to try again, after an attempt that failed.
    pub(crate) retry_at: Option<Instant>,
    /// Until then, records wait for company.
    pub(crate) resting_until: Option<Instant>,
    /// Whether the last attempt failed.
    pub(crate) is_away: bool,
    /// The keeper came to a sudden end: what comes goes from memory to the database.
    pub(crate) is_spool_gone: bool,
}

/// Reads the log, file by file.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) directory: PathBuf,
    /// The file and the place in it where reading goes on.
    pub(crate) number: u64,
    pub(crate) offset: u64,
    /// Records up to this one are in the database.
    pub(crate) delivered: u64,
}

impl Delivery {
    pub(crate) async fn run(mut self) {
        self.try_refused_again().await;
        self.deliver().await;
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Settle(waiting)) => drop(waiting.send(self.settle().await)),
                    Some(Order::Finish) | None => return self.finish().await,
                },
                Some(refused) = self.refused.recv() => self.take(refused),
                changed = self.progress.changed(), if self.follows_progress() => {
                    if changed.is_err() {
                        self.is_spool_gone = self.books.0.is_deserted();
                        if !self.is_spool_gone {
                            return self.finish().await;
                        }
                    }
                }
                () = sleep_until(self.resting_until), if self.retry_at.is_none() => self.resting_until = None,
                () = sleep_until(self.retry_at) => self.retry_at = None,
            }
            self.deliver().await;
        }
    }

    fn follows_progress(&self) -> bool {
        !self.is_spool_gone && self.retry_at.or(self.resting_until).is_none()
    }

    /// Takes a record that is in no file. While the database is away, nobody is kept waiting for it.
    fn take(&mut self, mut refused: Refused) {
        if self.in_memory.len() >= self.in_memory_max {
            return give_up(refused, &self.signals);
        }
        self.signals.record_held_in_memory(&refused.record);
        let waiting = refused.waiting.take_if(|_| self.retry_at.is_some());
        self.in_memory.push_back(refused);
        self.signals.in_memory_changed(self.in_memory.len());
        if let Some(waiting) = waiting {
            waiting.tell(Ok(Kept::InMemory));
        }
    }

    /// Everything that is asked so far, in the database if it takes it.
    async fn settle(&mut self) -> bool {
        let (waiting, synced) = oneshot::channel();
        self.books.0.push_own(Command::Sync { waiting });
        let _ = synced.await;
        while let Ok(refused) = self.refused.try_recv() {
            self.take(refused);
        }
        self.retry_at = None;
        self.deliver().await;
        self.retry_at.is_none()
    }

    async fn finish(mut self) {
        self.settle().await;
        for refused in std::mem::take(&mut self.in_memory) {
            // Its call's note is in the log: the next start writes a record from that.
            give_up(refused, &self.signals);
        }
    }

    /// Delivers until nothing is left or the database refuses; not before the next attempt is due.
    async fn deliver(&mut self) {
        let mut is_more = true;
        while is_more && self.retry_at.is_none() {
            is_more = self.deliver_from_memory().await;
            if !is_more && self.retry_at.is_none() {
                is_more = self.deliver_from_spool().await;
            }
        }
    }

    /// One batch of those that are in memory only; whether there may be more.
    async fn deliver_from_memory(&mut self) -> bool {
        let count = self.in_memory.len().min(self.batch_max);
        if count == 0 {
            return false;
        }
        let records: Vec<CallRecord> =
            self.in_memory.iter().take(count).map(|refused| (*refused.record).clone()).collect();
        let is_stored = self.store(records).await;
        if !is_stored {
            for waiting in self.in_memory.iter_mut().filter_map(|refused| refused.waiting.take()) {
                waiting.tell(Ok(Kept::InMemory));
            }
            self.spool_again().await;
            return false;
        }
        for refused in self.in_memory.drain(..count) {
            if let Some(waiting) = refused.waiting {
                waiting.tell(Ok(Kept::Stored));
            }
            self.books.0.push_own(Command::Note(Change::Gone { book: refused.book }));
        }
        self.signals.in_memory_changed(self.in_memory.len());
        true
    }

    /// The database is away: the spool may have room again.
    async fn spool_again(&mut self) {
        while let Some((book, record)) =
            self.in_memory.front().map(|first| (first.book, first.record.clone()))
        {
            let (waiting, mut kept) = oneshot::channel();
            self.books.0.push_own(Command::Close { book, record, waiting: Some(Waiter::Alone(waiting)) });
            let is_spooled = loop {
                tokio::select! {
                    kept = &mut kept => break matches!(kept, Ok(Ok(Kept::Spooled))),
                    // What the spool refuses comes to us: this one is here already, others are new.
                    Some(refused) = self.refused.recv() => match refused.book == book {
                        true => break false,
                        false => self.take(refused),
                    },
                }
            };
            if !is_spooled {
                break;
            }
            self.in_memory.pop_front();
        }
        self.signals.in_memory_changed(self.in_memory.len());
    }

    /// One batch of the spool; whether there may be more.
    async fn deliver_from_spool(&mut self) -> bool {
        let progress = *self.progress.borrow_and_update();
        let (reader, batch_max) = (self.reader.clone(), self.batch_max);
        let reading = tokio::task::spawn_blocking(move || reader.read(progress, batch_max));
        let (reader, records) = match reading.await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => {
                self.failed(&error);
                return false;
            }
            Err(_) => return false,
        };
        let is_empty = records.is_empty();
        if !is_empty {
            self.resting_until = Some(Instant::now() + DELIVERY_INTERVAL);
            if !self.store(records).await {
                return false;
            }
        }
        let is_ahead = reader.number > self.reader.number || reader.delivered > self.reader.delivered;
        self.reader = reader;
        if is_ahead {
            let change = Change::Delivered { sequence: self.reader.delivered, number: self.reader.number };
            self.books.0.push_own(Command::Note(change));
        }
        !is_empty
    }

    /// Writes a batch to the database; whether all of it has a place now.
    async fn store(&mut self, records: Vec<CallRecord>) -> bool {
        match self.try_store(records).await {
            Ok(stored) => {
                self.signals.records_delivered(stored, std::mem::take(&mut self.is_away));
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    async fn try_store(&mut self, records: Vec<CallRecord>) -> Result<usize, Error> {
        let count = records.len();
        let (waiting, answer) = oneshot::channel();
        let records = std::sync::Arc::new(records);
        let write = Write::Records(std::sync::Arc::clone(&records), waiting);
        self.writes.send(write).await.map_err(|_| Error::Closed)?;
        let verdicts = answer.await.map_err(|_| Error::Closed)??;
        let mut aside = Vec::new();
        for (record, verdict) in records.iter().zip(verdicts) {
            self.signals.call_record_judged(verdict, record);
            if matches!(verdict, Verdict::Refused(_)) {
                aside.push(record.clone());
            }
        }
        if !aside.is_empty() {
            let file = RefusedFile::new(&self.reader.directory);
            let adding = tokio::task::spawn_blocking(move || file.add(&aside));
            adding.await.map_err(|_| Error::Closed)??;
        }
        Ok(count)
    }

    /// What was set aside in former times.
    async fn try_refused_again(&mut self) {
        let file = RefusedFile::new(&self.reader.directory);
        let reading = file.clone();
        let Ok(Ok(records)) = tokio::task::spawn_blocking(move || reading.read()).await else { return };
        if records.is_empty() {
            return;
        }
        let (waiting, answer) = oneshot::channel();
        let records = std::sync::Arc::new(records);
        let write = Write::Records(std::sync::Arc::clone(&records), waiting);
        if self.writes.send(write).await.is_err() {
            return;
        }
        let Ok(Ok(verdicts)) = answer.await else { return };
        let judged = records.iter().zip(&verdicts);
        let left: Vec<CallRecord> = judged
            .filter(|(_, verdict)| matches!(verdict, Verdict::Refused(_)))
            .map(|(record, _)| record.clone())
            .collect();
        self.signals.refused_tried_again(records.len() - left.len(), left.len());
        if left.len() < records.len() {
            // Should it fail, they are tried once more than needed.
            drop(tokio::task::spawn_blocking(move || file.replace(&left)).await);
        }
    }

    fn failed(&mut self, error: &Error) {
        self.signals.delivery_failed(error, std::mem::replace(&mut self.is_away, true));
        self.retry_at = Some(Instant::now() + self.retry_interval);
    }
}

/// Waits until then; for ever, when there is nothing to wait for.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Reader {
    /// Up to so many records that the database does not have, and the reader that goes on after them.
    fn read(mut self, progress: Progress, batch_max: usize) -> Result<(Self, Vec<CallRecord>), Error> {
        let mut records = Vec::new();
        let segments = segment::list(&self.directory).map_err(Error::file("list", &self.directory))?;
        for segment in segments.iter().filter(|segment| segment.number <= progress.number) {
            if segment.number < self.number {
                continue;
            }
            if segment.number > self.number {
                (self.number, self.offset) = (segment.number, 0);
            }
            let end = if segment.number == progress.number { progress.end } else { u64::MAX };
            self.read_file(segment, end, batch_max, &mut records)
                .map_err(Error::file("read", &segment.path))?;
            if records.len() >= batch_max {
                break;
            }
        }
        Ok((self, records))
    }

    fn read_file(
        &mut self,
        segment: &segment::Segment,
        end: u64,
        batch_max: usize,
        records: &mut Vec<CallRecord>,
    ) -> io::Result<()> {
        let mut scanner = Scanner::open(segment, self.offset, end)?;
        while records.len() < batch_max {
            let Some(frame) = scanner.next()? else { break };
            // Two frames of three are notes, and reading them would be for nothing.
            if !Entry::is_note(frame)
                && let Some(Entry::Closed { sequence, record, .. }) = Entry::read(frame)
                && sequence > self.delivered
            {
                records.push(record.into_owned());
                self.delivered = sequence;
            }
            self.offset = scanner.position();
        }
        Ok(())
    }
}
