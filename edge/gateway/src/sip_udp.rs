//! SIP over UDP: one task per socket; a flow is nothing but the peer's address, so there is no state to fill up.

use std::net::SocketAddr;
use std::sync::Arc;

use belfry_signalling::handle::Transport;
use tokio::net::UdpSocket;

use crate::edge::Edge;
use crate::signals::{ListenerName, Malformed};
use crate::sip_text;
use crate::stun;

/// One datagram; longer ones do not exist.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Receives until the edge stops. Draining does not end it: calls that are up still need their BYE.
pub(crate) async fn receive(edge: Arc<Edge>, listener: ListenerName, tag: u32, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            () = edge.stopping.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error here is the echo of an earlier send (ICMP port unreachable), not the end of the socket.
        let Ok((length, source)) = received else { continue };
        arrived(&edge, &listener, tag, &socket, &buffer[..length], source);
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
    if let Some(answer) = edge.sip_arrived(&peer, Transport::Udp, &token, message.to_vec())
        && socket.try_send_to(&answer, source).is_ok()
    {
        edge.signals.sip_sent(Transport::Udp, answer.len());
    }
}
