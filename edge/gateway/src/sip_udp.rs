//! SIP over UDP: one task per socket; a flow is nothing but the peer's address, so there is no state to fill up.
//!
//! The task runs where the core's does when both are in one process: a message then goes in and its answer out
//! without waking another thread. When many come, they are gathered ([`crate::pace`]).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_signalling::handle::Transport;
use tokio::io::Interest;
use tokio::net::UdpSocket as Watched;

use crate::datagrams;
use crate::edge::Edge;
use crate::pace::{Next, Pace};
use crate::signals::{ListenerName, Malformed};
use crate::sip_text;
use crate::stun;

/// How long to leave a socket alone whose readiness nobody can tell.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Errors in a row after which a socket is left alone for a moment.
const ERRORS_MAX: usize = 16;

/// Receives until the edge stops. Draining does not end it: calls that are up still need their BYE.
pub(crate) async fn receive(edge: Arc<Edge>, listener: ListenerName, tag: u32, socket: Arc<UdpSocket>) {
    let door = Door { edge: &edge, listener, tag, socket: &socket };
    let pace = Pace::new(edge.sip.udp_gather, edge.sip.udp_gather_from_per_second, Instant::now());
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
}

impl Door<'_> {
    async fn run(&self, mut pace: Pace) {
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
    async fn one_by_one(&self, pace: &mut Pace) -> io::Result<Duration> {
        // A second descriptor of the same socket: with it goes the watch.
        let watched = Watched::from_std(self.socket.try_clone()?)?;
        loop {
            watched.readable().await?;
            if let Next::Rest(rest) = pace.took(self.take_all(Some(&watched)).await, Instant::now()) {
                return Ok(rest);
            }
        }
    }

    /// Takes what has come and says how many datagrams that was.
    async fn take_all(&self, watched: Option<&Watched>) -> usize {
        let (mut all, mut errors) = (0, 0);
        loop {
            let mut take = || {
                let count = datagrams::receive(self.socket, |datagram, source| {
                    arrived(self.edge, &self.listener, self.tag, self.socket, datagram, source);
                })?;
                all += count;
                // What comes after a batch that was not full is announced anew, so nobody needs to look again.
                if count < datagrams::BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            };
            let taken = match watched {
                Some(watched) => watched.try_io(Interest::READABLE, take),
                None => take(),
            };
            match taken {
                // More waits; the core has its turn first, so that its queue does not fill up.
                Ok(()) => tokio::task::yield_now().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || errors == ERRORS_MAX => {
                    return all;
                }
                // The echo of an earlier send (ICMP port unreachable), not the end of the socket.
                Err(_) => errors += 1,
            }
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
