//! A worker: one thread, one poll, the sessions that hash to it.
//!
//! The loop waits for packets and for requests, in that order of importance: packets that are there are forwarded
//! first, then a few requests, then a slice of the sessions is looked at for windows and timeouts. Poll is
//! edge-triggered, so a socket is read until it is empty; one that is still not empty after its share is
//! remembered and read again after the others had theirs.

mod forward;
mod requests;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use belfry_relay_api::{Leg, SessionKey};
use mio::{Events, Interest, Poll, Token, Waker};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::faults::Dice;
use crate::handle::{Command, Common, Door};
use crate::session::{Session, Stream};
use crate::signals::{Counts, End};

/// The token of the waker.
const WAKE: Token = Token(usize::MAX);
/// Sockets that one poll reports.
const EVENTS_MAX: usize = 1024;
/// The largest UDP datagram.
const DATAGRAM_MAX: usize = 65_535;
/// Requests served between two looks at the sockets: each binds up to a few sockets, some 50 microseconds.
const COMMANDS_PER_TURN: usize = 8;
/// How often a slice of the sessions is looked at.
const TICK: Duration = Duration::from_millis(10);
/// Slices: a session is looked at every `TICK * SLICES`.
const SLICES: usize = 10;

/// Starts worker `number` on its own thread.
pub(crate) fn start(number: usize, common: &Arc<Common>) -> Result<Door, Error> {
    let poll = Poll::new().map_err(Error::Poll)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(Error::Poll)?);
    let (sender, commands) = sync_channel(common.config.commands_max);
    let worker = Worker {
        number,
        poll,
        commands,
        common: Arc::clone(common),
        sessions: Vec::new(),
        free: Vec::new(),
        by_key: HashMap::new(),
        unread: VecDeque::new(),
        buffer: vec![0; DATAGRAM_MAX].into_boxed_slice(),
        counts: Counts::default(),
        dice: Dice::new(number as u64),
        epoch: Instant::now(),
        next_tick: Instant::now(),
        next_slice: 0,
    };
    std::thread::Builder::new()
        .name(format!("media-{number}"))
        .spawn(move || worker.run())
        .map_err(Error::Thread)?;
    Ok(Door { commands: sender, waker })
}

/// The state of one worker.
struct Worker {
    number: usize,
    poll: Poll,
    commands: Receiver<Command>,
    common: Arc<Common>,
    /// By slot; a slot's number is part of its sockets' tokens.
    sessions: Vec<Option<Session>>,
    free: Vec<usize>,
    by_key: HashMap<SessionKey, usize>,
    /// Sockets that had more packets than their share.
    unread: VecDeque<Place>,
    buffer: Box<[u8]>,
    counts: Counts,
    dice: Dice,
    /// From which packet times are counted.
    epoch: Instant,
    next_tick: Instant,
    next_slice: usize,
}

/// Which socket: its session's slot, its `m=` line, the leg that it faces, and whether it is the RTCP one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    slot: usize,
    stream: usize,
    leg: Leg,
    is_rtcp: bool,
}

impl Place {
    fn token(self) -> Token {
        let leg = usize::from(self.leg == Leg::Callee);
        Token(self.slot << 7 | self.stream << 2 | leg << 1 | usize::from(self.is_rtcp))
    }

    fn from_token(Token(bits): Token) -> Self {
        let leg = if bits & 2 == 0 { Leg::Caller } else { Leg::Callee };
        Self { slot: bits >> 7, stream: bits >> 2 & 31, leg, is_rtcp: bits & 1 == 1 }
    }
}

/// Whether the loop goes on.
enum Turn {
    /// Requests may be waiting.
    Again,
    /// Nothing waits.
    Idle,
    /// Stop, and tell whoever asked.
    Stop(Option<oneshot::Sender<()>>),
}

impl Worker {
    fn run(mut self) {
        if self.common.config.pin_workers && !pin(self.number) {
            self.common.signals.pinning_failed(self.number);
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut is_again = false;
        let stopped = loop {
            if let Err(error) = self.poll.poll(&mut events, self.patience(is_again)) {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                self.common.signals.worker_failed(self.number, self.by_key.len());
                break None;
            }
            let mut is_woken = is_again;
            for event in &events {
                if event.token() == WAKE {
                    is_woken = true;
                } else {
                    self.receive(Place::from_token(event.token()));
                }
            }
            self.read_unread();
            if is_woken {
                match self.serve() {
                    Turn::Again => is_again = true,
                    Turn::Idle => is_again = false,
                    Turn::Stop(done) => break done,
                }
            }
            self.tick();
            self.common.signals.flush(&mut self.counts);
        };
        self.end_all();
        if let Some(done) = stopped {
            let _ = done.send(());
        }
    }

    /// How long poll may sleep.
    fn patience(&self, is_again: bool) -> Option<Duration> {
        if is_again || !self.unread.is_empty() {
            Some(Duration::ZERO)
        } else if self.by_key.is_empty() {
            None
        } else {
            Some(self.next_tick.saturating_duration_since(Instant::now()))
        }
    }

    /// Reads on where sockets had more than their share, once round.
    fn read_unread(&mut self) {
        for _ in 0..self.unread.len() {
            if let Some(place) = self.unread.pop_front() {
                self.receive(place);
            }
        }
    }

    /// Serves a few requests.
    fn serve(&mut self) -> Turn {
        for _ in 0..COMMANDS_PER_TURN {
            match self.commands.try_recv() {
                Ok(Command::Request(request, controller, answer)) => {
                    let reply = self.answer(request, &controller, Instant::now());
                    // Whoever asked may have given up waiting; the session stands all the same.
                    let _ = answer.send(reply);
                }
                Ok(Command::Stop(done)) => return Turn::Stop(Some(done)),
                Err(TryRecvError::Empty) => return Turn::Idle,
                Err(TryRecvError::Disconnected) => return Turn::Stop(None),
            }
        }
        Turn::Again
    }

    /// Looks at the next slice of the sessions when it is time.
    fn tick(&mut self) {
        let now = Instant::now();
        if now < self.next_tick || self.by_key.is_empty() {
            return;
        }
        self.next_tick = now + TICK;
        for slot in (self.next_slice..self.sessions.len()).step_by(SLICES) {
            self.watch(slot, now);
        }
        self.next_slice = (self.next_slice + 1) % SLICES;
    }

    /// Puts a session into a slot, its sockets not yet polled.
    fn insert(&mut self, session: Session) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() - 1
        });
        self.by_key.insert(session.subject.key.clone(), slot);
        self.sessions[slot] = Some(session);
        slot
    }

    /// Takes a session out, reports it, and frees its ports.
    fn remove(&mut self, slot: usize, end: End, now: Instant) -> Option<belfry_relay_api::SessionReport> {
        self.close_windows(slot, now);
        let session = self.sessions.get_mut(slot)?.take()?;
        self.by_key.remove(&session.subject.key);
        self.free.push(slot);
        let report = session.report(now);
        let (subject, start_unix_nanos) = (session.subject.clone(), session.start_unix_nanos);
        // Closing a socket takes it out of the poll; the ports are free before anyone is told.
        drop(session);
        self.common.release_session();
        let ports_used = self.common.pool.used();
        self.common.signals.session_ended(&subject, &report, end, start_unix_nanos, ports_used);
        Some(report)
    }

    fn end_all(&mut self) {
        let now = Instant::now();
        for slot in 0..self.sessions.len() {
            self.remove(slot, End::Stopped, now);
        }
        self.common.signals.flush(&mut self.counts);
    }

    /// Has the poll watch a stream's sockets.
    fn register(&self, slot: usize, index: usize, stream: &mut Stream) -> io::Result<()> {
        for (side, leg) in stream.sides.iter_mut().zip(crate::session::LEGS) {
            for (component, is_rtcp) in [(&mut side.rtp, false), (&mut side.rtcp, true)] {
                let token = Place { slot, stream: index, leg, is_rtcp }.token();
                self.poll.registry().register(&mut component.socket, token, Interest::READABLE)?;
            }
        }
        Ok(())
    }
}

/// Keeps this thread on one core, counted from the last: the first cores serve interrupts and everything else.
fn pin(number: usize) -> bool {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if cores.is_empty() {
        return false;
    }
    core_affinity::set_for_current(cores[cores.len() - 1 - number % cores.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_socket() {
        for slot in [0, 1, 99_999] {
            for (stream, leg, is_rtcp) in
                [(0, Leg::Caller, false), (31, Leg::Callee, true), (7, Leg::Callee, false)]
            {
                let place = Place { slot, stream, leg, is_rtcp };
                assert_eq!(Place::from_token(place.token()), place);
            }
        }
    }
}
