//! Where the keeper is handed what it has to do. Whoever hands something in never waits.
//!
//! Our own queue, because the keeper is a thread that waits for three things at once, and one of them has a time:
//! commands, the end of a sync, and the moment when the next sync is due. Nobody is woken who does not sleep, because
//! under load a call costs more in wakings than in writing.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::keeper::Command;
use super::log::Sync;

/// Commands that wait for the keeper, and what it hears of syncs.
#[derive(Debug)]
pub(crate) struct Desk {
    queue: Mutex<Queue>,
    changed: Condvar,
    commands_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    commands: VecDeque<Command>,
    synced: Option<(Sync, io::Result<()>)>,
    is_asleep: bool,
    /// Nothing more is taken from outside.
    is_closed: bool,
    /// Nothing more will come from anywhere.
    is_over: bool,
    /// Nobody sits at it any more.
    is_deserted: bool,
}

/// What the keeper found on its desk, besides commands.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) synced: Option<(Sync, io::Result<()>)>,
    pub(crate) is_over: bool,
}

/// What the keeper waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Commands at most; none while it has no room.
    pub(crate) commands_max: usize,
    /// A sync is under way.
    pub(crate) is_syncing: bool,
    /// When it has something to do in any case.
    pub(crate) until: Option<Instant>,
}

/// Whoever holds it may still have something for the keeper; without it the keeper ends.
#[derive(Debug)]
pub(crate) struct Door(pub(crate) std::sync::Arc<Desk>);

impl Drop for Door {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.is_closed = true;
        queue.is_over = true;
        self.0.wake(queue);
    }
}

impl Desk {
    pub(crate) fn new(commands_max: usize) -> Self {
        Self { queue: Mutex::default(), changed: Condvar::new(), commands_max }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        if std::mem::take(&mut queue.is_asleep) {
            drop(queue);
            self.changed.notify_one();
        }
    }

    /// Hands in a command from outside; it comes back when the desk is full or closed.
    pub(crate) fn push(&self, command: Command) -> Result<(), Command> {
        self.put(command).map(|queue| self.wake(queue))
    }

    /// The same, for one of many: whoever hands them in calls [`Desk::nudge`] after the last.
    pub(crate) fn push_quietly(&self, command: Command) -> Result<(), Command> {
        self.put(command).map(drop)
    }

    fn put(&self, command: Command) -> Result<MutexGuard<'_, Queue>, Command> {
        let mut queue = self.lock();
        if queue.is_closed || queue.commands.len() >= self.commands_max {
            return Err(command);
        }
        queue.commands.push_back(command);
        Ok(queue)
    }

    /// Wakes the keeper for what was handed in quietly.
    pub(crate) fn nudge(&self) {
        let queue = self.lock();
        if !queue.commands.is_empty() {
            self.wake(queue);
        }
    }

    /// Hands in a command of the delivery's, which has one batch under way and no more.
    pub(crate) fn push_own(&self, command: Command) {
        let mut queue = self.lock();
        if queue.is_deserted {
            // Whoever waits learns it by the end of its channel.
            return;
        }
        queue.commands.push_back(command);
        self.wake(queue);
    }

    /// A sync came to its end.
    pub(crate) fn synced(&self, sync: Sync, result: io::Result<()>) {
        let mut queue = self.lock();
        queue.synced = Some((sync, result));
        self.wake(queue);
    }

    /// The keeper came to a sudden end: nothing more is taken from anybody, and what waits is given back.
    pub(crate) fn desert(&self) -> VecDeque<Command> {
        let mut queue = self.lock();
        (queue.is_closed, queue.is_deserted) = (true, true);
        std::mem::take(&mut queue.commands)
    }

    pub(crate) fn is_deserted(&self) -> bool {
        self.lock().is_deserted
    }

    /// Takes nothing more from outside.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Waits for what is wanted, and takes it.
    pub(crate) fn take(&self, wanted: Wanted, commands: &mut Vec<Command>) -> Found {
        let mut queue = self.lock();
        loop {
            let is_work = wanted.commands_max > 0 && !queue.commands.is_empty();
            if is_work || queue.synced.is_some() || (queue.is_over && !wanted.is_syncing) {
                break;
            }
            let left = wanted.until.map(|until| until.saturating_duration_since(Instant::now()));
            queue.is_asleep = true;
            queue = match left {
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
        queue.is_asleep = false;
        let count = queue.commands.len().min(wanted.commands_max);
        commands.extend(queue.commands.drain(..count));
        Found { synced: queue.synced.take(), is_over: queue.is_over && queue.commands.is_empty() }
    }
}
