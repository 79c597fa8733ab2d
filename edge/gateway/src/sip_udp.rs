//! SIP over UDP: one task per socket; a flow is nothing but the peer's address, so there is no state to fill up.
//!
//! The task runs where the core's does when both are in one process: a message then goes in and its answer out
//! without waking another thread. When more comes than can be served, [`crate::rush`] says who goes first.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use belfry_signal::now_unix_nanos;
use belfry_signalling::handle::Transport;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::datagrams;
use crate::edge::Edge;
use crate::rush::{Change, Fate, Rush};
use crate::signals::{ListenerName, Malformed};
use crate::sip_text;
use crate::stun;

/// Batches that are taken in one turn of a rush; then others have theirs.
const BATCHES_PER_TURN_MAX: usize = 64;

/// Receives until the edge stops. Draining does not end it: calls that are up still need their BYE.
pub(crate) async fn receive(edge: Arc<Edge>, listener: ListenerName, tag: u32, socket: Arc<UdpSocket>) {
    let mut stopping = pin!(edge.stopping.cancelled());
    let mut rush = Rush::new(Instant::now());
    loop {
        tokio::select! {
            () = &mut stopping => return,
            // An error would be that of the runtime's own poll, and comes again below.
            _ = socket.readable() => {}
        }
        rush.begin_turn(edge.cores.is_any_behind(), Instant::now());
        // The socket is emptied, so that the kernel drops nothing unseen.
        for _ in 0..BATCHES_PER_TURN_MAX {
            if !take_batch(&edge, &listener, tag, &socket, &mut rush) {
                break;
            }
        }
        end_turn(&edge, &listener, &mut rush);
        // More may wait; the core has its turn first, so that its queue does not fill up.
        tokio::task::yield_now().await;
    }
}

fn end_turn(edge: &Edge, listener: &ListenerName, rush: &mut Rush) {
    let change = rush.end_turn(Instant::now());
    let (answered, dropped) = rush.take_shed();
    if answered + dropped > 0 {
        edge.signals.datagrams_shed(listener, answered, dropped);
    }
    match change {
        Change::None => {}
        Change::Began => edge.signals.rush_began(listener),
        Change::Ended { answered, dropped } => edge.signals.rush_ended(listener, answered, dropped),
    }
}

/// Takes what has come, at most one batch; whether it was full.
fn take_batch(edge: &Edge, listener: &ListenerName, tag: u32, socket: &UdpSocket, rush: &mut Rush) -> bool {
    let unix_seconds = now_unix_nanos() / 1_000_000_000;
    let mut is_full = false;
    // Errors are the echo of an earlier send (ICMP port unreachable), not the end of the socket.
    let _ = socket.try_io(Interest::READABLE, || {
        let taken = datagrams::receive(socket, |datagram, source| {
            match rush.fate(datagram, || edge.flows.is_known(tag, source, unix_seconds)) {
                Fate::Taken => arrived(edge, listener, tag, socket, datagram, source),
                // When the socket is full, it is dropped.
                Fate::Answered => drop(socket.try_send_to(&edge.too_busy(datagram), source)),
                Fate::Dropped => {}
            }
        })?;
        is_full = taken == datagrams::BATCH;
        // What comes after a batch that was not full is announced anew, so nobody needs to look again.
        if is_full { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    });
    is_full
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
            let _ = socket.try_send_to(b"\r\n", source);
        }
        return;
    }
    if stun::is_stun(datagram) {
        if let Some(answer) = stun::answer(datagram, source) {
            edge.signals.keepalive_answered(Transport::Udp);
            // When the socket is full, the phone asks again.
            let _ = socket.try_send_to(&answer, source);
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
        && socket.try_send_to(&answer, source).is_ok()
    {
        edge.signals.sip_sent(Transport::Udp, answer.len());
    }
}
