//! SIP over UDP: one task per socket; a flow is nothing but the peer's address, so there is no state to fill up.
//!
//! The task runs where the core's does when both are in one process: a message then goes in and its answer out
//! without waking another thread. When many come, they are gathered ([`crate::pace`]); when more come than can be
//! served, [`crate::rush`] says who goes first.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_signal::now_unix_nanos;
use belfry_signalling::handle::Transport;
use tokio::io::Interest;
use tokio::net::UdpSocket as Watched;

use crate::datagrams;
use crate::edge::Edge;
use crate::pace::{Next, Pace};
use crate::rush::{self, Change, Fate, Rush};
use crate::signals::{ListenerName, Malformed};
use crate::sip_text;
use crate::stun;

/// How long to leave a socket alone whose readiness nobody can tell.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Errors in a row after which a socket is left alone for a moment.
const ERRORS_MAX: usize = 16;
/// Batches that are taken in one turn; then others have theirs.
const BATCHES_PER_TURN_MAX: usize = 64;

/// Receives until the edge stops. Draining does not end it: calls that are up still need their BYE.
pub(crate) async fn receive(edge: Arc<Edge>, listener: ListenerName, tag: u32, socket: Arc<UdpSocket>) {
    let now = Instant::now();
    let pace = Pace::new(edge.sip.udp_gather, edge.sip.udp_gather_from_per_second, now);
    let mut door = Door { edge: &edge, listener, tag, socket: &socket, rush: Rush::new(now) };
    tokio::select! {
        () = edge.stopping.cancelled() => {}
        () = door.run(pace) => {}
    }
}

/// One socket and what its datagrams are looked at with.
struct Door<'a> {
    edge: &'a Edge,
    listener: ListenerName,
    tag: u32,
    socket: &'a UdpSocket,
    rush: Rush,
}

/// What a try to take one batch found.
enum Taken {
    Full(usize),
    /// What comes after a batch that was not full is announced anew, so nobody needs to look again.
    Last(usize),
    /// The echo of an earlier send (ICMP port unreachable), not the end of the socket.
    Echo,
}

impl Door<'_> {
    async fn run(&mut self, mut pace: Pace) {
        loop {
            let mut rest = match self.one_by_one(&mut pace).await {
                Ok(rest) => rest,
                // The system has no room for another descriptor to watch.
                Err(_) => LOOK_AGAIN,
            };
            // Nobody is woken for this socket from here to the end of the rush.
            loop {
                tokio::time::sleep(rest).await;
                match pace.took(self.take_all(None).await, Instant::now()) {
                    Next::Wait => break,
                    Next::Rest(next) => rest = next,
                }
            }
        }
    }

    /// Takes datagrams as they come until they come thick; then says how long to rest.
    async fn one_by_one(&mut self, pace: &mut Pace) -> io::Result<Duration> {
        // A second descriptor of the same socket: with it goes the watch.
        let watched = Watched::from_std(self.socket.try_clone()?)?;
        loop {
            watched.readable().await?;
            if let Next::Rest(rest) = pace.took(self.take_all(Some(&watched)).await, Instant::now()) {
                return Ok(rest);
            }
        }
    }

    /// Takes what has come, turn by turn, and says how many datagrams that was.
    async fn take_all(&mut self, watched: Option<&Watched>) -> usize {
        let mut all = 0;
        loop {
            let (taken, is_all) = self.take_turn(watched);
            all += taken;
            if is_all {
                return all;
            }
            // More waits; the core has its turn first, so that its queue does not fill up.
            tokio::task::yield_now().await;
        }
    }

    /// The socket is emptied within the turn's bound, so that the kernel drops nothing unseen. How many came, and
    /// whether that was all.
    fn take_turn(&mut self, watched: Option<&Watched>) -> (usize, bool) {
        self.rush.begin_turn(self.edge.cores.is_any_behind(), Instant::now());
        let (mut all, mut errors, mut is_all) = (0, 0, false);
        for _ in 0..BATCHES_PER_TURN_MAX {
            match self.take_batch(watched) {
                Taken::Full(count) => all += count,
                Taken::Echo if errors < ERRORS_MAX => errors += 1,
                Taken::Echo => is_all = true,
                Taken::Last(count) => {
                    all += count;
                    is_all = true;
                }
            }
            if is_all {
                break;
            }
        }
        self.end_turn();
        (all, is_all)
    }

    fn end_turn(&mut self) {
        let change = self.rush.end_turn(Instant::now());
        let (answered, dropped) = self.rush.take_shed();
        if answered + dropped > 0 {
            self.edge.signals.datagrams_shed(&self.listener, answered, dropped);
        }
        match change {
            Change::None => {}
            Change::Began => self.edge.signals.rush_began(&self.listener),
            Change::Ended { answered, dropped } => {
                self.edge.signals.rush_ended(&self.listener, answered, dropped);
            }
        }
    }

    fn take_batch(&mut self, watched: Option<&Watched>) -> Taken {
        let Self { edge, listener, tag, socket, rush } = self;
        let (unix_seconds, now) = (now_unix_nanos() / 1_000_000_000, Instant::now());
        let mut count = 0;
        let mut take = || {
            count = datagrams::receive(socket, |datagram, source| {
                let is_known = || edge.flows.is_known(*tag, source, unix_seconds);
                if let Some(is_answered) = edge.bans.of(source.ip(), now)
                    && !is_known()
                    && is_for_bans(datagram)
                {
                    return turned_away(edge, socket, datagram, source, is_answered && !rush.is_on());
                }
                match rush.fate(datagram, is_known) {
                    Fate::Taken => arrived(edge, listener, *tag, socket, datagram, source),
                    // When the socket is full, it is dropped.
                    Fate::Answered => drop(socket.send_to(&edge.too_busy(datagram), source)),
                    Fate::Dropped => {}
                }
            })?;
            // A watch ends with the last batch.
            if count < datagrams::BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        };
        let taken = match watched {
            Some(watched) => watched.try_io(Interest::READABLE, take),
            None => take(),
        };
        match taken {
            Ok(()) => Taken::Full(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Taken::Last(count),
            Err(_) => Taken::Echo,
        }
    }
}

/// Whether a datagram is none that passes a ban: what begins something and is no call for help.
fn is_for_bans(datagram: &[u8]) -> bool {
    let start = datagram.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(datagram.len());
    let message = &datagram[start..];
    let is_sip = sip_text::is_start_line(message.split(|byte| *byte == b'\n').next().unwrap_or_default());
    is_sip && sip_text::begins(message) && !rush::may_call_for_help(message)
}

/// A stranger of a banned network is turned away.
fn turned_away(edge: &Edge, socket: &UdpSocket, datagram: &[u8], source: SocketAddr, is_answered: bool) {
    edge.signals.stranger_turned_away();
    if is_answered {
        let answer = sip_text::forbidden(datagram);
        // When the socket is full, the stranger asks again.
        if socket.send_to(&answer, source).is_ok() {
            edge.signals.sip_sent(Transport::Udp, answer.len());
        }
    }
}

fn arrived(
    edge: &Edge,
    listener: &ListenerName,
    tag: u32,
    socket: &UdpSocket,
    datagram: &[u8],
    source: SocketAddr,
) {
    if datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        // The answer is never longer than the question, so that a forged source gains nothing.
        if datagram.len() >= 4 {
            edge.signals.keepalive_answered(Transport::Udp);
            // When the socket is full, the phone asks again.
            let _ = socket.send_to(b"\r\n", source);
        }
        return;
    }
    if stun::is_stun(datagram) {
        if let Some(answer) = stun::answer(datagram, source) {
            edge.signals.keepalive_answered(Transport::Udp);
            // When the socket is full, the phone asks again.
            let _ = socket.send_to(&answer, source);
        }
        return;
    }
    let malformed = |reason| edge.signals.input_malformed(listener, reason, source);
    if datagram.len() > edge.limits.sip_message_bytes_max {
        return malformed(Malformed::SipTooLong);
    }
    // Some phones send line ends before the message (RFC 3261 section 7.5).
    let start = datagram.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(0);
    let message = &datagram[start..];
    if !sip_text::is_start_line(message.split(|byte| *byte == b'\n').next().unwrap_or_default()) {
        return malformed(Malformed::SipStartLine);
    }
    let peer = edge.geography.load().place(listener, source, false);
    let token = edge.flows.udp_token(tag, source);
    if let Some(answer) = edge.sip_arrived(&peer, Transport::Udp, &token, message)
        && socket.send_to(&answer, source).is_ok()
    {
        edge.signals.sip_sent(Transport::Udp, answer.len());
    }
}
