//! One anchored call: its streams, their sockets and what is known of each leg.
//!
//! Plain state with no loop of its own; the worker that owns it moves it.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use belfry_relay_api::{Leg, LegReport, Refusal, SessionReport};
use belfry_rtp_proto::latch::Latch;
use belfry_rtp_proto::rtcp::RoundTrip;
use belfry_rtp_proto::sdp::{Direction, Media, Ports, Transport};
use belfry_rtp_proto::window::{Format, Meter, Quality};
use mio::net::UdpSocket;

use crate::handle::Controller;
use crate::ports::{Lease, Pair};
use crate::signals::Subject;

/// The most `m=` lines that a configuration may allow: they are numbered in five bits of a poll token.
pub(crate) const STREAMS_MAX: usize = 32;

/// Both legs, in the order of their sides.
pub(crate) const LEGS: [Leg; 2] = [Leg::Caller, Leg::Callee];

/// A call.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) subject: Subject,
    /// Who may end it: whoever asked about it last.
    pub(crate) controller: Controller,
    /// When its controller was found gone.
    pub(crate) orphaned: Option<Instant>,
    /// By the index of the `m=` line.
    pub(crate) streams: Vec<Option<Stream>>,
    pub(crate) start_unix_nanos: u64,
    pub(crate) created: Instant,
    /// When the first answer came: from then on there is something to hear.
    pub(crate) answered: Option<Instant>,
    /// When the last request came.
    pub(crate) touched: Instant,
    pub(crate) window_started: Instant,
    pub(crate) is_silent_noticed: bool,
    pub(crate) is_one_way_noticed: [bool; 2],
}

/// One `m=` line.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) is_audio: bool,
    pub(crate) transport: Transport,
    /// Whether both legs agreed to RTP and RTCP on one port.
    pub(crate) is_muxed: bool,
    /// When it was last described, from which waiting for sound is counted.
    pub(crate) described: Instant,
    /// What faces the caller, and what faces the callee.
    pub(crate) sides: [Side; 2],
}

/// What faces one leg.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) rtp: Component,
    pub(crate) rtcp: Component,
    /// After the sockets, so that they are closed when the ports are given back.
    pub(crate) lease: Lease,
    /// The leg's own description; `None` until it sent one or while it rejects the stream.
    pub(crate) described: Option<Described>,
    pub(crate) meter: Meter,
    pub(crate) round_trip: RoundTrip,
    pub(crate) last_heard: Option<Instant>,
}

/// What a leg's description says about a stream.
#[derive(Debug)]
pub(crate) struct Described {
    direction: Direction,
    is_held_by_address: bool,
    rtcp_mux: bool,
    pub(crate) formats: Vec<Format>,
}

/// One socket and where its leg is.
#[derive(Debug)]
pub(crate) struct Component {
    pub(crate) socket: UdpSocket,
    pub(crate) latch: Option<Latch>,
    pub(crate) filter: Filter,
}

/// How far the kernel filters strangers on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Not at all: every source is looked at.
    Open,
    /// Connected, but packets that queued up before are still to be looked at.
    Draining,
    /// Connected: only the leg gets through.
    Connected,
}

impl Session {
    pub(crate) fn new(subject: Subject, controller: Controller, start_unix_nanos: u64, now: Instant) -> Self {
        Self {
            subject,
            controller,
            orphaned: None,
            streams: Vec::new(),
            start_unix_nanos,
            created: now,
            answered: None,
            touched: now,
            window_started: now,
            is_silent_noticed: false,
            is_one_way_noticed: [false; 2],
        }
    }

    /// Takes in what `from` says about its side of every stream.
    pub(crate) fn describe(&mut self, from: Leg, media: &[Media], signalled_from: IpAddr, now: Instant) {
        for (slot, media) in self.streams.iter_mut().zip(media) {
            if let Some(stream) = slot {
                stream.describe(from, media, signalled_from, now);
            }
        }
        self.is_one_way_noticed = [false; 2];
        self.is_silent_noticed = false;
    }

    /// The relay's ports that `leg` shall send to, by `m=` line.
    pub(crate) fn ports_facing(&self, leg: Leg) -> Vec<Option<Ports>> {
        let of = |stream: &Stream| {
            let rtp = stream.sides[side_of(leg)].lease.rtp_port;
            Ports { rtp, rtcp: rtp + 1 }
        };
        self.streams.iter().map(|slot| slot.as_ref().map(of)).collect()
    }

    /// The last packet from `leg`, over all streams.
    pub(crate) fn last_heard(&self, leg: Leg) -> Option<Instant> {
        self.streams.iter().flatten().filter_map(|stream| stream.sides[side_of(leg)].last_heard).max()
    }

    /// Whether any stream should bring sound from `leg`.
    pub(crate) fn expects(&self, leg: Leg) -> bool {
        self.streams.iter().flatten().any(|stream| stream.expects(leg))
    }

    /// When the streams were last described; waiting is counted from there.
    pub(crate) fn described(&self) -> Instant {
        self.streams.iter().flatten().map(|stream| stream.described).max().unwrap_or(self.created)
    }

    /// The session as it stands.
    pub(crate) fn report(&self, now: Instant) -> SessionReport {
        let seconds_since = |then: Instant| now.saturating_duration_since(then).as_secs_f64();
        SessionReport {
            session: self.subject.key.clone(),
            seconds: seconds_since(self.created),
            quiet_seconds: LEGS.iter().filter_map(|leg| self.last_heard(*leg)).max().map(seconds_since),
            caller: self.leg_report(Leg::Caller),
            callee: self.leg_report(Leg::Callee),
        }
    }

    /// Counts are over all streams; sound is judged by the first audio stream.
    fn leg_report(&self, leg: Leg) -> LegReport {
        let mut report = LegReport::default();
        for stream in self.streams.iter().flatten() {
            let side = &stream.sides[side_of(leg)];
            let totals = side.meter.totals();
            report.packets += side.meter.packets();
            report.bytes += side.meter.bytes();
            report.lost += totals.lost();
            report.duplicates += totals.duplicates;
            report.foreign += side.rtp.foreign() + side.rtcp.foreign();
        }
        let Some(stream) = self.streams.iter().flatten().find(|stream| stream.is_judged()) else {
            return report;
        };
        let side = &stream.sides[side_of(leg)];
        let whole: Option<Quality> = side.meter.whole(stream.round_trip_ms());
        report.jitter_ms = side.meter.jitter_ms();
        report.jitter_ms_max = side.meter.jitter_ms_max();
        report.rtt_ms = side.round_trip.last_ms();
        report.mos = whole.map(|quality| quality.mos_listening);
        report.mos_min = side.meter.mos_min().or(report.mos);
        report.payload_type = side.meter.payload_type();
        report
    }
}

impl Stream {
    /// A stream on two bound pairs: what faces the caller and what faces the callee.
    pub(crate) fn new(media: &Media, pairs: [Pair; 2], jitter_buffer_ms: u32, now: Instant) -> Self {
        let sides = pairs.map(|pair| Side {
            rtp: Component::new(pair.rtp),
            rtcp: Component::new(pair.rtcp),
            lease: pair.lease,
            described: None,
            meter: Meter::new(jitter_buffer_ms),
            round_trip: RoundTrip::default(),
            last_heard: None,
        });
        let (is_audio, transport) = (media.is_audio, media.transport);
        Self { is_audio, transport, is_muxed: false, described: now, sides }
    }

    /// Whether its sound is judged: audio over RTP.
    pub(crate) fn is_judged(&self) -> bool {
        self.is_audio && self.transport != Transport::Datagram
    }

    /// Whether the leg should send: it says so, and the other side listens.
    pub(crate) fn expects(&self, leg: Leg) -> bool {
        let (own, other) = (&self.sides[side_of(leg)].described, &self.sides[side_of(leg.other())].described);
        let (Some(own), Some(other)) = (own, other) else { return false };
        own.direction.sends() && other.direction.receives() && !other.is_held_by_address
    }

    /// The round trip between the phones in milliseconds: over both legs, when both are known.
    pub(crate) fn round_trip_ms(&self) -> Option<f64> {
        Some(self.sides[0].round_trip.last_ms()? + self.sides[1].round_trip.last_ms()?)
    }

    fn describe(&mut self, from: Leg, media: &Media, signalled_from: IpAddr, now: Instant) {
        let side = &mut self.sides[side_of(from)];
        if !media.is_on() {
            side.described = None;
            return;
        }
        self.is_audio = media.is_audio;
        self.transport = media.transport;
        self.described = now;
        side.rtp.expect(media.rtp_address(), signalled_from);
        side.rtcp.expect(media.rtcp_address(), signalled_from);
        side.described = Some(Described {
            direction: media.direction,
            is_held_by_address: media.is_held_by_address(),
            rtcp_mux: media.rtcp_mux,
            formats: media.formats.clone(),
        });
        side.meter.redescribed();
        self.is_muxed = self.sides.iter().all(|side| side.described.as_ref().is_some_and(|d| d.rtcp_mux));
    }
}

impl Component {
    fn new(socket: UdpSocket) -> Self {
        Self { socket, latch: None, filter: Filter::Open }
    }

    /// Packets refused for their source.
    pub(crate) fn foreign(&self) -> u64 {
        self.latch.as_ref().map_or(0, Latch::foreign)
    }

    /// Waits for the first packet of a leg that was described, or described anew.
    fn expect(&mut self, expected: Option<SocketAddr>, signalled_from: IpAddr) {
        // An address of the other family cannot be reached from this socket; the signalling source may do.
        let is_reachable = |address: &SocketAddr| {
            self.socket.local_addr().is_ok_and(|local| local.is_ipv4() == address.is_ipv4())
        };
        let expected = expected.filter(is_reachable);
        match &mut self.latch {
            Some(latch) => latch.reopen(expected, signalled_from),
            None => self.latch = Some(Latch::new(expected, signalled_from)),
        }
        if self.filter != Filter::Open {
            // Dissolve the association (connect to AF_UNSPEC), or the kernel would hide a leg that moved. The port
            // stays bound. If that ever failed the leg would keep the address it had, which is what it had before.
            if rustix::net::connect_unspec(&self.socket).is_ok() {
                self.filter = Filter::Open;
            }
        }
    }

    /// The first packet came from `source`: let the kernel keep everyone else out.
    pub(crate) fn latched(&mut self, source: SocketAddr) {
        if self.socket.connect(source).is_ok() {
            self.filter = Filter::Draining;
        }
    }
}

/// The index of the side that faces a leg.
pub(crate) fn side_of(leg: Leg) -> usize {
    match leg {
        Leg::Caller => 0,
        Leg::Callee => 1,
    }
}

/// Whether media can flow between us and a described leg at all: its address, or the source of its signalling,
/// must be of the relay's address family.
pub(crate) fn check_family(media: &[Media], signalled_from: IpAddr, ours: IpAddr) -> Result<(), Refusal> {
    let is_ours = |address: IpAddr| address.to_canonical().is_ipv4() == ours.is_ipv4();
    let is_reachable =
        |media: &Media| !media.is_on() || is_ours(signalled_from) || media.address.is_some_and(is_ours);
    if media.iter().all(is_reachable) { Ok(()) } else { Err(Refusal::BadDescription) }
}
