//! The data path: read, check the source, measure, send on.
//!
//! Per RTP packet: one `recv`, one `send`, no lock, no allocation, no shared memory; an RTCP packet, one per leg in
//! five seconds, is decoded and may allocate. Every packet ends in exactly one of `Counts`' cells.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use belfry_relay_api::Leg;
use belfry_rtp_proto::latch::{Latch, Verdict};
use belfry_rtp_proto::packet::{Kind, RtpView};
use belfry_rtp_proto::rtcp;
use belfry_rtp_proto::sdp::Transport;

use super::{Place, Worker};
use crate::session::{Component, Filter, Side, Stream, side_of};
use crate::signals::{Counts, Loss, Signals, Subject, Traffic, Unwanted};

/// Packets that one socket may have forwarded before others get their turn.
const SHARE: usize = 32;

/// What a datagram needs on its way through.
struct Passage<'a> {
    counts: &'a mut Counts,
    signals: &'a Signals,
    subject: &'a Subject,
    leg: Leg,
    is_rtcp: bool,
    now: Instant,
    now_micros: u64,
}

impl Worker {
    /// Forwards what waits on one socket, up to its share.
    pub(super) fn receive(&mut self, place: Place) {
        let Some(Some(session)) = self.sessions.get_mut(place.slot) else { return };
        let Some(Some(stream)) = session.streams.get_mut(place.stream) else { return };
        let loss_ppm = self.common.faults.loss_ppm();
        let mut is_more = false;
        for _ in 0..SHARE {
            let component = component(&mut stream.sides[side_of(place.leg)], place.is_rtcp);
            let (length, source) = match read(component, &mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if component.filter == Filter::Draining {
                        component.filter = Filter::Connected;
                    }
                    return;
                }
                // An ICMP error of something sent before is reported here once; the next read goes on.
                Err(_) => {
                    is_more = false;
                    continue;
                }
            };
            is_more = true;
            if let Some(source) = source
                && let Err(unwanted) = admit(component, source)
            {
                self.counts.unwanted[unwanted as usize] += 1;
                continue;
            }
            let now = Instant::now();
            let mut passage = Passage {
                counts: &mut self.counts,
                signals: &self.common.signals,
                subject: &session.subject,
                leg: place.leg,
                is_rtcp: place.is_rtcp,
                now,
                now_micros: u64::try_from(now.duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX),
            };
            passage.forward(stream, &self.buffer[..length], || self.dice.falls(loss_ppm));
        }
        // Errors alone are no reason to come back: poll reports the socket when there is something.
        if is_more {
            self.unread.push_back(place);
        }
    }
}

impl Passage<'_> {
    fn forward(&mut self, stream: &mut Stream, datagram: &[u8], falls: impl FnOnce() -> bool) {
        match (stream.transport, Kind::of(datagram)) {
            (Transport::Datagram, _) | (_, Kind::Dtls) => {
                let (from, to) = sides(stream, self.leg);
                from.last_heard = Some(self.now);
                // The outcome is counted; there is no meter for what cannot be read.
                let _ = self.pass_on(component(to, self.is_rtcp), datagram, Traffic::Other);
            }
            (_, Kind::Rtp) if !self.is_rtcp => self.forward_rtp(stream, datagram, falls),
            (_, Kind::Rtcp) => self.forward_rtcp(stream, datagram),
            (_, Kind::Stun) => self.refuse(Unwanted::Stun),
            (_, Kind::Rtp | Kind::Other) => self.refuse(Unwanted::Malformed),
        }
    }

    fn forward_rtp(&mut self, stream: &mut Stream, datagram: &[u8], falls: impl FnOnce() -> bool) {
        let (from, to) = sides(stream, self.leg);
        let Ok(packet) = RtpView::parse(datagram) else { return self.refuse(Unwanted::Malformed) };
        from.last_heard = Some(self.now);
        let formats = from.described.as_ref().map_or(&[][..], |described| &described.formats);
        from.meter.arrived(&packet, datagram.len(), formats, self.now_micros);
        let is_sent = if falls() {
            self.counts.losses[Loss::Fault as usize] += 1;
            Err(Loss::Fault)
        } else {
            self.pass_on(&to.rtp, datagram, Traffic::Rtp)
        };
        match is_sent {
            // What we lose the far side does not hear; what it refuses to take is not our loss.
            Err(Loss::Fault | Loss::SendBuffer) => from.meter.dropped(),
            Ok(()) | Err(Loss::Unreachable | Loss::NoDestination) => from.meter.forwarded(),
        }
    }

    fn forward_rtcp(&mut self, stream: &mut Stream, datagram: &[u8]) {
        let (is_muxed, is_readable) = (stream.is_muxed, stream.transport == Transport::Rtp);
        let (from, to) = sides(stream, self.leg);
        if is_readable {
            let Ok(reports) = rtcp::read(datagram) else { return self.refuse(Unwanted::Malformed) };
            if let Some(sender) = reports.sender {
                to.round_trip.sent(sender, self.now_micros);
            }
            for block in &reports.blocks {
                if let Some(round_trip_ms) = from.round_trip.received(block, self.now_micros) {
                    self.signals.round_trip_measured(self.subject, self.leg, round_trip_ms);
                }
                self.signals.loss_reported(self.subject, self.leg, f64::from(block.fraction_lost) / 256.0);
            }
        }
        let _ = self.pass_on(component(to, !is_muxed), datagram, Traffic::Rtcp);
    }

    fn refuse(&mut self, unwanted: Unwanted) {
        self.counts.unwanted[unwanted as usize] += 1;
    }

    fn pass_on(&mut self, to: &Component, datagram: &[u8], traffic: Traffic) -> Result<(), Loss> {
        let sent = send(to, datagram);
        match sent {
            Ok(()) => {
                self.counts.packets[traffic as usize] += 1;
                self.counts.bytes[traffic as usize] += datagram.len() as u64;
            }
            Err(loss) => self.counts.losses[loss as usize] += 1,
        }
        sent
    }
}

/// The side that a packet came in on, and the one that it goes out of.
fn sides(stream: &mut Stream, from: Leg) -> (&mut Side, &mut Side) {
    let [caller, callee] = &mut stream.sides;
    match from {
        Leg::Caller => (caller, callee),
        Leg::Callee => (callee, caller),
    }
}

fn component(side: &mut Side, is_rtcp: bool) -> &mut Component {
    if is_rtcp { &mut side.rtcp } else { &mut side.rtp }
}

/// One datagram, with its source while the kernel does not vouch for it.
fn read(component: &Component, buffer: &mut [u8]) -> io::Result<(usize, Option<SocketAddr>)> {
    match component.filter {
        Filter::Connected => component.socket.recv(buffer).map(|length| (length, None)),
        Filter::Open | Filter::Draining => {
            component.socket.recv_from(buffer).map(|(length, source)| (length, Some(source)))
        }
    }
}

fn admit(component: &mut Component, source: SocketAddr) -> Result<(), Unwanted> {
    let Some(latch) = &mut component.latch else { return Err(Unwanted::Undescribed) };
    match latch.admit(source) {
        Verdict::Known => Ok(()),
        Verdict::Foreign => Err(Unwanted::Foreign),
        Verdict::Latched => {
            component.latched(source);
            Ok(())
        }
    }
}

fn send(to: &Component, datagram: &[u8]) -> Result<(), Loss> {
    let destination = to.latch.as_ref().and_then(Latch::destination).ok_or(Loss::NoDestination)?;
    let sent = match to.filter {
        Filter::Open => to.socket.send_to(datagram, destination),
        Filter::Draining | Filter::Connected => to.socket.send(datagram),
    };
    match sent {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Loss::SendBuffer),
        Err(_) => Err(Loss::Unreachable),
    }
}
