//! The task that owns the log: whoever waits for the disk shares one fsync with all others who do.

use std::collections::HashSet;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};

use super::log::{Change, Log, Progress};
use crate::error::Error;
use crate::record::{Book, CallRecord, Kept};
use crate::signals::Signals;

/// Commands that share one write.
const COMMANDS_PER_WRITE_MAX: usize = 1024;

/// Who waits until a record is safe.
pub(crate) type Waiting = Option<oneshot::Sender<Result<Kept, Error>>>;

/// Calls whose core is gone, with the records that they get.
type Lost = Vec<CallRecord>;

/// What is asked of the books.
#[derive(Debug)]
pub(crate) enum Command {
    /// Note something.
    Note(Change),
    /// Write a call's record.
    Close { book: Book, record: Box<CallRecord>, waiting: Waiting },
    /// Close what nobody else will.
    CloseLost { waiting: oneshot::Sender<Lost> },
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

/// The task.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) log: Log,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) refused: mpsc::Sender<Refused>,
    pub(crate) signals: Signals,
}

/// One write, sorted by what is asked.
#[derive(Debug, Default)]
struct Work {
    changes: Vec<Change>,
    closing: Vec<Refused>,
    lost: Vec<oneshot::Sender<Lost>>,
    syncs: Vec<oneshot::Sender<()>>,
    is_sync_wanted: bool,
}

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    kept: Vec<Waiting>,
    refused: Vec<Refused>,
    notes_failed: u64,
    lost: Lost,
    error: Option<Error>,
}

impl Keeper {
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(COMMANDS_PER_WRITE_MAX);
        while self.commands.recv_many(&mut batch, COMMANDS_PER_WRITE_MAX).await > 0 {
            let mut work = Work::of(batch.drain(..));
            let (waiting_for_lost, syncs) = (std::mem::take(&mut work.lost), std::mem::take(&mut work.syncs));
            let closes_lost = !waiting_for_lost.is_empty();
            let start = Instant::now();
            let mut log = self.log;
            let writing = tokio::task::spawn_blocking(move || {
                let outcome = write(&mut log, work, closes_lost);
                (log, outcome)
            });
            // Only a runtime that is going down gives nothing back.
            let Ok((log, outcome)) = writing.await else { return };
            self.log = log;
            let progress = self.log.progress();
            self.signals.books_written(start.elapsed(), outcome.kept.len(), outcome.error.as_ref());
            self.signals.notes_failed(outcome.notes_failed);
            self.signals.spool_changed(progress.bytes, progress.last_sequence - self.log.delivered());
            self.progress.send_replace(progress);
            for waiting in outcome.kept.into_iter().flatten() {
                drop(waiting.send(Ok(Kept::Spooled)));
            }
            for refused in outcome.refused {
                pass_on(&self.refused, refused, &self.signals);
            }
            for waiting in waiting_for_lost {
                self.signals.calls_lost(outcome.lost.len());
                drop(waiting.send(outcome.lost.clone()));
            }
            for waiting in syncs {
                let _ = waiting.send(());
            }
        }
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
        drop(waiting.send(Err(Error::RecordLost)));
    }
}

impl Work {
    fn of(batch: impl Iterator<Item = Command>) -> Self {
        let mut work = Self::default();
        for command in batch {
            match command {
                Command::Note(change) => {
                    // Once a second, what was noted is brought to the platter too.
                    work.is_sync_wanted |= matches!(change, Change::Alive { .. });
                    work.changes.push(change);
                }
                Command::Close { book, record, waiting } => {
                    work.closing.push(Refused { book, record, waiting });
                }
                Command::CloseLost { waiting } => work.lost.push(waiting),
                Command::Sync { waiting } => {
                    work.is_sync_wanted = true;
                    work.syncs.push(waiting);
                }
            }
        }
        work
    }
}

/// Does one write. Within it notes come first: a call that opens and closes in one write has nothing to note.
fn write(log: &mut Log, work: Work, closes_lost: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut closing = work.closing;
    let over: HashSet<Book> = closing.iter().map(|one| one.book).collect();
    for change in work.changes {
        if matches!(&change, Change::Open { book, .. } if over.contains(book)) {
            continue;
        }
        let is_note = matches!(change, Change::Open { .. });
        if let Err(error) = log.note(change) {
            outcome.notes_failed += u64::from(is_note);
            outcome.error = Some(error);
        }
    }
    if closes_lost {
        for (book, record) in log.lost() {
            outcome.lost.push(record.clone());
            closing.push(Refused { book, record: Box::new(record), waiting: None });
        }
    }
    // A disk that refuses once may take it in a new file.
    for _ in 0..2 {
        closing = close(log, closing, &mut outcome);
    }
    outcome.refused = closing;
    if work.is_sync_wanted
        && let Err(error) = log.sync()
    {
        outcome.error = Some(error);
    }
    outcome
}

/// Tries to close; gives back what was not.
fn close(log: &mut Log, closing: Vec<Refused>, outcome: &mut Outcome) -> Vec<Refused> {
    let (mut written, mut refused) = (Vec::new(), Vec::new());
    for one in closing {
        match log.close(one.book, &one.record) {
            Ok(()) => written.push(one),
            Err(error) => {
                outcome.error = Some(error);
                refused.push(one);
            }
        }
    }
    if written.is_empty() {
        return refused;
    }
    match log.sync() {
        Ok(()) => outcome.kept.extend(written.into_iter().map(|one| one.waiting)),
        Err(error) => {
            outcome.error = Some(error);
            refused.extend(written);
        }
    }
    refused
}
