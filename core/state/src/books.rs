//! The books of calls: a journal of the open ones and a spool of the records of the closed ones, so that a call has
//! exactly one record, whatever dies when.
//!
//! One log on the disk holds both. A call that opens or is answered is noted in it as the record that it would have
//! if nothing more were heard of it; a call that ends leaves its record, which is on the platter before anybody is
//! told; once a second the time is noted, as long as calls are open. Records go from the log to the database in
//! batches, and stay in the log while that is away. After a crash, what is noted and not closed gets its record from
//! its note, with the time of the last sign of life as its end.
//!
//! [`log`] is what happens to the files, [`keeper`] the thread that owns them and shares an fsync among all who wait,
//! [`desk`] where it is handed what to do, [`delivery`] the task that carries records to the database.
//!
//! Why our own log: records and notes must be in one order, so that a call is never both lost and closed; a batch is
//! acknowledged after its fsync; and a file is removed when the database, not a reader, has all of it. Logs on
//! crates.io (`okaywal`, `commitlog`, `simple_wal`) offer the first two at most, and are hardly maintained. The
//! pipeline's write-ahead log is another room's; its ideas (salted checksums, no file written to after an error) are
//! these.

mod delivery;
mod desk;
mod entry;
mod keeper;
mod log;
mod refused;
mod segment;

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use belfry_signal::now_unix_nanos;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::database::Write;
use crate::error::Error;
use crate::record::{Book, CallRecord, Kept};
use crate::signals::Signals;
use delivery::{Delivery, Order, Reader};
use desk::{Desk, Door};
pub use keeper::Told;
use keeper::{Command, Keeper, Refused, Waiter};
pub use log::Lost;
use log::{Change, Limits, Log};
use refused::RefusedFile;

/// The folder of the log, within that of the state.
const FOLDER: &str = "books";
/// How often the books note that the process lives: what a call whose process dies is billed short of, at most.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// The books of all calls. Cheap to clone; nothing here waits but what says so.
#[derive(Clone, Debug)]
pub struct Books {
    desk: Arc<Desk>,
    refused: mpsc::Sender<Refused>,
    orders: mpsc::Sender<Order>,
    next_book: Arc<AtomicU64>,
    directory: Arc<Path>,
    signals: Signals,
}

/// The tasks behind the books, in the order in which they end.
#[derive(Debug)]
pub(crate) struct Tasks {
    pub(crate) clock: JoinHandle<()>,
    pub(crate) delivery: JoinHandle<()>,
    pub(crate) keeper: JoinHandle<()>,
}

impl Books {
    /// Reads what is there and starts the threads and tasks. Whoever calls has locked the folder by this file. Blocks
    /// on the disk only while it reads.
    pub(crate) async fn open(
        config: &Config,
        folder: Arc<File>,
        writes: mpsc::Sender<Write>,
        signals: Signals,
    ) -> Result<(Self, Tasks), Error> {
        let limits = Limits {
            directory: config.directory.join(FOLDER),
            spool_bytes_max: config.records_spool_bytes_max,
        };
        let opening = tokio::task::spawn_blocking(move || Log::open(limits));
        let (log, found) = opening.await.map_err(|_| Error::Closed)??;
        signals.books_opened(found.undelivered, found.open, found.damaged_bytes);
        let desk = Arc::new(Desk::new(config.writes_queue_max));
        let (refused, refused_receiver) = mpsc::channel(config.records_in_memory_max);
        let (orders, order_receiver) = mpsc::channel(16);
        let (progress, progress_receiver) = watch::channel(log.progress());
        let next_book = Arc::new(AtomicU64::new(log.next_book()));
        let delivery = Delivery {
            reader: Reader {
                directory: log.directory().to_owned(),
                number: 0,
                offset: 0,
                delivered: log.delivered(),
            },
            books: Door(Arc::clone(&desk)),
            writes,
            progress: progress_receiver,
            refused: refused_receiver,
            orders: order_receiver,
            batch_max: config.records_per_batch_max,
            in_memory_max: config.records_in_memory_max,
            retry_interval: config.records_retry_interval,
            signals: signals.clone(),
            in_memory: VecDeque::new(),
            retry_at: None,
            resting_until: None,
            is_away: false,
            is_spool_gone: false,
        };
        let (syncs_to_run, syncs) = std_mpsc::sync_channel(1);
        let directory = log.directory().to_owned();
        let keeper = Keeper {
            log,
            desk: Arc::clone(&desk),
            syncs_to_run,
            progress,
            refused: refused.clone(),
            signals: signals.clone(),
            written: Vec::new(),
            syncs: Vec::new(),
            is_sync_wanted: false,
            sync_at: Instant::now(),
            syncing: None,
            losses: 0,
            hand: keeper::Hand::default(),
            _folder: folder,
        };
        let syncs_desk = Arc::clone(&desk);
        thread("books-sync", &directory, move || keeper::run_syncs(&syncs, &syncs_desk))?;
        let (over, is_over) = oneshot::channel();
        thread("books", &directory, move || {
            keeper.run();
            // Whoever drained may have stopped waiting.
            let _ = over.send(());
        })?;
        let tasks = Tasks {
            clock: tokio::spawn(note_time(Arc::clone(&desk))),
            delivery: tokio::spawn(delivery.run()),
            // Its end, whether it says so or only lets go of the channel.
            keeper: tokio::spawn(async move { drop(is_over.await) }),
        };
        Ok((Self { desk, refused, orders, next_book, directory: directory.into(), signals }, tasks))
    }

    /// Opens the books of a call, in which nothing stands yet.
    #[must_use]
    pub fn open_call(&self) -> Book {
        Book(self.next_book.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes what record the call is to have, should nothing more be heard of it; the last note counts. Its end is
    /// then when this process was last known to live. It is written with the next [`Books::nudge`] at the latest.
    pub fn note_call(&self, book: Book, record: CallRecord) {
        let change = Change::Open { book, record: Box::new(record) };
        if self.desk.push_quietly(Command::Note(change)).is_err() {
            self.signals.notes_failed(1);
        }
    }

    /// The call goes on as another: it gets no record of its own.
    pub fn forget_call(&self, book: Book) {
        // A note that stays gets a record at the next start, and the call's own record then makes that one of two; the
        // database keeps the first.
        if self.send(Command::Note(Change::Gone { book })).is_err() {
            self.signals.notes_failed(1);
        }
    }

    /// Closes the books of a call with its record. The record is taken at once, whether the answer is waited for or
    /// not; with the answer it is safe, or in memory when neither disk nor database would have it. Writing a call's
    /// record again changes nothing.
    ///
    /// # Errors
    /// [`Error::RecordLost`] when even memory had no room, [`Error::Closed`] when state is closing.
    pub fn close_call(
        &self,
        book: Book,
        record: CallRecord,
    ) -> impl Future<Output = Result<Kept, Error>> + Send + use<> {
        let (waiting, answer) = oneshot::channel();
        self.close(book, record, Waiter::Alone(waiting));
        self.nudge();
        async move { answer.await.map_err(|_| Error::Closed)? }
    }

    /// As [`close_call`](Self::close_call), for whoever closes many: the answer goes to a channel, with the name that the
    /// caller has for the call. None comes when state is closing, or while the channel is full. It is written with the
    /// next [`Books::nudge`] at the latest.
    pub fn close_call_among(&self, book: Book, record: CallRecord, name: u64, told: &mpsc::Sender<Told>) {
        self.close(book, record, Waiter::Among(told.clone(), name));
    }

    fn close(&self, book: Book, record: CallRecord, waiter: Waiter) {
        let command = Command::Close { book, record: Box::new(record), waiting: Some(waiter) };
        if let Err(Command::Close { book, record, waiting }) = self.desk.push_quietly(command) {
            keeper::pass_on(&self.refused, Refused { book, record, waiting }, &self.signals);
        }
    }

    /// Has everything written that was handed in. Who does many things at once calls it after the last of them, because
    /// waking the thread that writes costs more than writing.
    pub fn nudge(&self) {
        self.desk.nudge();
    }

    /// Closes the books of calls whose core is gone; they get their record, which comes back.
    ///
    /// A core asks for the answered ones before it has calls of its own: then all that are open have lost theirs. It
    /// asks for all when callers who heard nothing have given up: one who asks again before goes on with the same call.
    pub fn close_lost_calls(&self, which: Lost) -> impl Future<Output = Vec<CallRecord>> + Send + use<> {
        let (waiting, answer) = oneshot::channel();
        let below = Book(self.next_book.load(Ordering::Relaxed));
        let sent = self.send(Command::CloseLost { which, below, waiting });
        async move {
            drop(sent);
            answer.await.unwrap_or_default()
        }
    }

    /// Whether the disk takes records: false when the thread that writes them came to a sudden end. Records then go to
    /// the database from memory, and open calls are not noted, until the process starts again.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        !self.desk.is_deserted()
    }

    /// Waits until everything that was handed in so far is in the database; false when that refuses.
    pub async fn settle(&self) -> bool {
        let (waiting, answer) = oneshot::channel();
        self.orders.send(Order::Settle(waiting)).await.is_ok() && answer.await.unwrap_or(false)
    }

    /// Records that the database refuses, which are in a file beside it: they count as if it had them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn set_aside(&self) -> Result<Vec<CallRecord>, Error> {
        let file = RefusedFile::new(&self.directory);
        tokio::task::spawn_blocking(move || file.read()).await.map_err(|_| Error::Closed)?
    }

    /// Sets a record aside as if the database had refused it.
    #[doc(hidden)]
    pub fn set_aside_for_test(directory: &Path, record: &CallRecord) -> Result<(), Error> {
        RefusedFile::new(&directory.join(FOLDER)).add(std::slice::from_ref(record))
    }

    /// Takes no more, delivers what the database takes, and lets the tasks end.
    pub(crate) async fn finish(&self) {
        self.desk.close();
        // A delivery that is gone has finished.
        let _ = self.orders.send(Order::Finish).await;
    }

    fn send(&self, command: Command) -> Result<(), Command> {
        self.desk.push(command)
    }
}

fn thread(name: &str, directory: &Path, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(Error::file("start a thread for", directory))
}

/// Notes the time now and then, until the books are closed.
async fn note_time(desk: Arc<Desk>) {
    let mut ticks = tokio::time::interval(ALIVE_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !desk.is_closed() {
        ticks.tick().await;
        // A full desk is a keeper at work, and the next second comes.
        drop(desk.push(Command::Note(Change::Alive { unix_nanos: now_unix_nanos() })));
    }
}

#[cfg(test)]
mod tests;
