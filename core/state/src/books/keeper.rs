//! The thread that owns the log: whoever waits for the disk shares one fsync with all others who do. While one is under
//! way, more is written, so that a note reaches the kernel before the message that it is about reaches the network.
//!
//! A thread of its own and a second one for syncs: a call hands in three things, and each as a job of the runtime's
//! pool would cost two wakings more.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::desk::{Desk, Found, Wanted};
use super::log::{Change, Log, Lost, Progress, Sync};
use crate::error::Error;
use crate::record::{Book, CallRecord, Kept};
use crate::signals::Signals;

/// Commands that share one write.
const COMMANDS_PER_WRITE_MAX: usize = 1024;
/// Records that may wait for one sync; more wait in the queue.
const WRITTEN_MAX: usize = 16_384;

/// From the beginning of one sync to that of the next, when records are waited for: those that end meanwhile share it.
/// The first after a pause does not wait.
const SYNC_INTERVAL: Duration = Duration::from_millis(10);

/// Who waits until a record is safe.
pub(crate) type Waiting = Option<Waiter>;

/// What became of a record whose call has this name to whoever closed its books.
pub type Told = (u64, Result<Kept, Error>);

/// How somebody waits.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// For this record alone.
    Alone(oneshot::Sender<Result<Kept, Error>>),
    /// For many, of which this one has a name.
    Among(mpsc::Sender<Told>, u64),
}

impl Waiter {
    /// Tells what became of the record; whoever stopped waiting, or has no room to hear it, does not want to know.
    pub(crate) fn tell(self, outcome: Result<Kept, Error>) {
        match self {
            Self::Alone(waiting) => drop(waiting.send(outcome)),
            Self::Among(waiting, name) => drop(waiting.try_send((name, outcome))),
        }
    }
}

/// What is asked of the books.
#[derive(Debug)]
pub(crate) enum Command {
    /// Note something.
    Note(Change),
    /// Write a call's record.
    Close { book: Book, record: Box<CallRecord>, waiting: Waiting },
    /// Close what nobody else will, of the books below this one: those of whoever asks are not meant.
    CloseLost { which: Lost, below: Book, waiting: oneshot::Sender<Vec<CallRecord>> },
    /// Bring everything so far to the platter.
    Sync { waiting: oneshot::Sender<()> },
}

/// A record that the spool would not take.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) book: Book,
    pub(crate) record: Box<CallRecord>,
    pub(crate) waiting: Waiting,
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) log: Log,
    pub(crate) desk: Arc<Desk>,
    /// To the thread that syncs.
    pub(crate) syncs_to_run: std_mpsc::SyncSender<Sync>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) refused: mpsc::Sender<Refused>,
    pub(crate) signals: Signals,
    /// Records that are written and not yet on the platter, oldest first.
    pub(crate) written: Vec<Written>,
    /// Who waits for the platter, with how many records were written before.
    pub(crate) syncs: Vec<oneshot::Sender<()>>,
    pub(crate) is_sync_wanted: bool,
    /// Before that, a sync waits for company.
    pub(crate) sync_at: Instant,
    pub(crate) syncing: Option<Syncing>,
    /// The log's losses that were made good.
    pub(crate) losses: u64,
    /// What is in hand: should it not be done to the end, its records go another way.
    pub(crate) hand: Hand,
    /// Locked as long as anybody writes in the folder.
    pub(crate) _folder: Arc<File>,
}

/// What the keeper has taken from its desk and not put down yet.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    batch: Vec<Command>,
    work: Work,
    outcome: Outcome,
}

/// A record on its way to the platter.
#[derive(Debug)]
pub(crate) struct Written {
    one: Refused,
    /// Whether the disk has lost it before.
    is_second_try: bool,
}

/// A sync under way.
#[derive(Debug)]
pub(crate) struct Syncing {
    began: Instant,
    /// How many records, and who waits, it is for.
    written: usize,
    syncs: Vec<oneshot::Sender<()>>,
}

/// One write, sorted by what is asked.
#[derive(Debug, Default)]
struct Work {
    changes: Vec<Change>,
    closing: VecDeque<Written>,
    losing: Vec<Losing>,
}

/// Calls without a core are to be closed.
#[derive(Debug)]
struct Losing {
    which: Lost,
    below: Book,
    /// How many of the work's changes were handed in before.
    changes_before: usize,
    waiting: oneshot::Sender<Vec<CallRecord>>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    written: Vec<Written>,
    refused: Vec<Refused>,
    notes_failed: u64,
    lost: Vec<(oneshot::Sender<Vec<CallRecord>>, Vec<CallRecord>)>,
    error: Option<Error>,
}

impl Keeper {
    /// Works until nothing more can come. A fault of ours in here must not take records with it: they go on by the way of
    /// those that the disk refuses, and whoever waits gets its answer there.
    pub(crate) fn run(mut self) {
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            self.signals.books_deserted();
            self.give_way();
        }
    }

    fn work(&mut self) {
        loop {
            let found = self.wait();
            if let Some((sync, result)) = found.synced {
                self.on_synced(&sync, result);
            }
            if !self.hand.batch.is_empty() {
                self.sort();
                self.write();
            }
            // Nobody will ask for more: what is written is brought to the platter.
            self.is_sync_wanted |= found.is_over;
            self.begin_sync(found.is_over);
            if found.is_over && self.syncing.is_none() {
                return;
            }
        }
    }

    /// Hands all records on that are not known to be on the platter. The database takes one that was written after all
    /// for the same.
    fn give_way(&mut self) {
        let Hand { batch, work, outcome } = std::mem::take(&mut self.hand);
        let waiting = self.desk.desert();
        let written = std::mem::take(&mut self.written).into_iter().chain(outcome.written);
        let held = written.chain(work.closing).map(|written| written.one).chain(outcome.refused);
        let asked = batch.into_iter().chain(waiting).filter_map(|command| match command {
            Command::Close { book, record, waiting } => Some(Refused { book, record, waiting }),
            // Whoever waits learns it by the end of its channel.
            Command::Note(_) | Command::CloseLost { .. } | Command::Sync { .. } => None,
        });
        for one in held.chain(asked) {
            pass_on(&self.refused, one, &self.signals);
        }
    }

    fn wait(&mut self) -> Found {
        let has_room = self.written.len() < WRITTEN_MAX;
        let is_syncing = self.syncing.is_some();
        self.desk.take(
            Wanted {
                commands_max: if has_room { COMMANDS_PER_WRITE_MAX } else { 0 },
                is_syncing,
                until: (self.is_sync_wanted && !is_syncing).then_some(self.sync_at),
            },
            &mut self.hand.batch,
        )
    }

    fn sort(&mut self) {
        let Hand { batch, work, .. } = &mut self.hand;
        for command in batch.drain(..) {
            match command {
                Command::Note(change) => {
                    // Once a second, what was noted is brought to the platter too.
                    self.is_sync_wanted |= matches!(change, Change::Alive { .. });
                    work.changes.push(change);
                }
                Command::Close { book, record, waiting } => {
                    let one = Refused { book, record, waiting };
                    work.closing.push_back(Written { one, is_second_try: false });
                }
                Command::CloseLost { which, below, waiting } => {
                    let changes_before = work.changes.len();
                    work.losing.push(Losing { which, below, changes_before, waiting });
                }
                Command::Sync { waiting } => {
                    self.is_sync_wanted = true;
                    self.syncs.push(waiting);
                }
            }
        }
    }

    /// Hands everything to the kernel, beside a sync that may be under way: what is noted survives the process at
    /// once, however long the platter takes. What the disk lost is written again, once.
    fn write(&mut self) {
        loop {
            write(&mut self.log, &mut self.hand.work, &mut self.hand.outcome);
            let outcome = std::mem::take(&mut self.hand.outcome);
            self.take(outcome);
            match self.left_to_write() {
                Some(again) => self.hand.work = again,
                None => return self.publish(),
            }
        }
    }

    fn take(&mut self, outcome: Outcome) {
        self.is_sync_wanted |= !outcome.written.is_empty();
        self.written.extend(outcome.written);
        self.signals.books_written(outcome.error.as_ref());
        self.signals.notes_failed(outcome.notes_failed);
        for refused in outcome.refused {
            pass_on(&self.refused, refused, &self.signals);
        }
        for (waiting, records) in outcome.lost {
            self.signals.calls_lost(records.len());
            drop(waiting.send(records));
        }
    }

    /// What was written and lost on its way to the platter. What was lost twice goes another way.
    fn left_to_write(&mut self) -> Option<Work> {
        if std::mem::replace(&mut self.losses, self.log.losses()) == self.log.losses() {
            return None;
        }
        if let Some(syncing) = &mut self.syncing {
            // It is for a file that is given up.
            syncing.written = 0;
        }
        let lost = std::mem::take(&mut self.written);
        let (refused, closing): (Vec<_>, Vec<_>) = lost.into_iter().partition(|one| one.is_second_try);
        for written in refused {
            pass_on(&self.refused, written.one, &self.signals);
        }
        let again = |written: Written| Written { is_second_try: true, ..written };
        let closing: VecDeque<_> = closing.into_iter().map(again).collect();
        (!closing.is_empty()).then(|| Work { closing, ..Work::default() })
    }

    /// Begins a sync when one is wanted and due.
    fn begin_sync(&mut self, is_over: bool) {
        let now = Instant::now();
        // Whoever waits for everything so far is a reader or the end, and not one of many.
        let is_due = is_over || !self.syncs.is_empty() || self.sync_at <= now;
        if self.syncing.is_some() || !self.is_sync_wanted || !is_due {
            return;
        }
        self.is_sync_wanted = false;
        self.sync_at = now + SYNC_INTERVAL;
        let sync = match self.log.begin_sync() {
            Some(sync) => sync,
            // Nothing to wait for, or a file that is given up: what was in it is written again.
            None => return self.confirm(self.written.len(), now),
        };
        self.syncing =
            Some(Syncing { began: now, written: self.written.len(), syncs: std::mem::take(&mut self.syncs) });
        // There is one at a time, and its thread lives as long as this one.
        if let Err(std_mpsc::SendError(sync)) = self.syncs_to_run.send(sync) {
            let result = sync.run();
            self.on_synced(&sync, result);
        }
    }

    /// These records are safe.
    fn confirm(&mut self, count: usize, began: Instant) {
        self.signals.books_synced(began.elapsed(), count);
        for written in self.written.drain(..count) {
            if let Some(waiting) = written.one.waiting {
                waiting.tell(Ok(Kept::Spooled));
            }
        }
        for waiting in self.syncs.drain(..) {
            let _ = waiting.send(());
        }
        self.publish();
    }

    fn on_synced(&mut self, sync: &Sync, result: io::Result<()>) {
        let Some(syncing) = self.syncing.take() else { return };
        if let Err(error) = self.log.end_sync(sync, result) {
            self.signals.books_written(Some(&error));
            self.syncs.extend(syncing.syncs);
            self.is_sync_wanted |= !self.syncs.is_empty();
            // Nothing since the last sync is sure: once more, in a new file.
            if let Some(again) = self.left_to_write() {
                self.hand.work = again;
                self.write();
            }
            return;
        }
        let later = std::mem::replace(&mut self.syncs, syncing.syncs);
        self.confirm(syncing.written, syncing.began);
        self.syncs = later;
    }

    fn publish(&self) {
        let progress = self.log.progress();
        self.signals.spool_changed(progress.bytes, progress.last_sequence - self.log.delivered());
        self.progress.send_replace(progress);
    }
}

/// Runs one sync after the other, until the keeper is gone.
pub(crate) fn run_syncs(syncs: &std_mpsc::Receiver<Sync>, desk: &Desk) {
    for sync in syncs {
        // Whatever goes wrong, the keeper hears of it: it waits.
        let ran = catch_unwind(AssertUnwindSafe(|| sync.run()));
        let result = ran.unwrap_or_else(|_| Err(io::Error::other("the sync panicked")));
        desk.synced(sync, result);
    }
}

/// Hands a record on that the spool would not take; one that nobody can take is lost.
pub(super) fn pass_on(to: &mpsc::Sender<Refused>, refused: Refused, signals: &Signals) {
    if let Err(error) = to.try_send(refused) {
        give_up(error.into_inner(), signals);
    }
}

/// The end of a record that found no place anywhere.
pub(super) fn give_up(refused: Refused, signals: &Signals) {
    signals.call_record_lost(&refused.record);
    if let Some(waiting) = refused.waiting {
        waiting.tell(Err(Error::RecordLost));
    }
}

/// Does one write. Within it notes come first: a call that opens and closes in one write has nothing to note.
/// What is done goes from the work to the outcome, so that each record is in one of the two at any time.
fn write(log: &mut Log, work: &mut Work, outcome: &mut Outcome) {
    let over: HashSet<Book> = work.closing.iter().map(|written| written.one.book).collect();
    let losing = std::mem::take(&mut work.losing);
    let changes_count = work.changes.len();
    // Those who ask again right afterwards, in the same write, go on with the same call.
    let lose = |log: &mut Log, changes_before: usize| {
        let is_its_turn = |losing: &&Losing| losing.changes_before == changes_before;
        for losing in losing.iter().filter(is_its_turn).filter(|losing| losing.which == Lost::Answered) {
            log.lose_all_below(losing.below);
        }
    };
    for (number, change) in work.changes.drain(..).enumerate() {
        lose(log, number);
        if matches!(&change, Change::Open { book, .. } if over.contains(book)) {
            continue;
        }
        let is_note = matches!(change, Change::Open { .. });
        if let Err(error) = log.note(change) {
            outcome.notes_failed += u64::from(is_note);
            outcome.error = Some(error);
        }
    }
    lose(log, changes_count);
    for Losing { which, waiting, .. } in losing {
        let lost = log.lost(which);
        outcome.lost.push((waiting, lost.iter().map(|(_, record)| record.clone()).collect()));
        work.closing.extend(lost.into_iter().map(|(book, record)| Written {
            one: Refused { book, record: Box::new(record), waiting: None },
            is_second_try: false,
        }));
    }
    while let Some(written) = work.closing.front() {
        // A disk that refuses once may take it in a new file.
        let first = log.close(written.one.book, &written.one.record);
        let closed = first.or_else(|_| log.close(written.one.book, &written.one.record));
        let Some(written) = work.closing.pop_front() else { return };
        match closed {
            Ok(()) => outcome.written.push(written),
            Err(error) => {
                outcome.error = Some(error);
                outcome.refused.push(written.one);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::Limits;
    use super::*;

    #[test]
    fn calls_that_begin_in_the_write_that_closes_the_lost_ones_are_not_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = Limits { directory: folder.path().to_owned(), spool_bytes_max: 1 << 20 };
        let (mut log, _) = Log::open(limits).expect("opens");
        let open = |book: u64, name: &str, is_answered: bool| {
            let record = CallRecord::for_test(name);
            let answer_unix_nanos = record.answer_unix_nanos.filter(|_| is_answered);
            Change::Open { book: Book(book), record: Box::new(CallRecord { answer_unix_nanos, ..record }) }
        };
        let (waiting, _answer) = oneshot::channel();
        let (waiting_for_all, _answer) = oneshot::channel();
        let mut work = Work {
            changes: vec![
                open(1, "talking", true),
                open(2, "ringing", false),
                open(3, "asks again", false),
                open(4, "asks again", false),
                open(5, "new", true),
            ],
            losing: vec![
                Losing { which: Lost::Answered, below: Book(4), changes_before: 3, waiting },
                Losing { which: Lost::All, below: Book(6), changes_before: 5, waiting: waiting_for_all },
            ],
            ..Work::default()
        };
        let mut outcome = Outcome::default();
        write(&mut log, &mut work, &mut outcome);
        let lost = outcome.lost;
        let names = |records: &[CallRecord]| -> Vec<String> {
            records.iter().map(|record| record.call_id.reveal().clone()).collect()
        };
        assert_eq!(names(&lost[0].1), ["talking"]);
        assert_eq!(names(&lost[1].1), ["talking", "ringing"], "none that lives, none twice");
    }
}
