//! What the relay tells the world. The only file of this crate that names a metric, a span or a log line.

mod labels;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belfry_relay_api::{Leg, Notice, Reply, SessionKey, SessionReport};
use belfry_rtp_proto::window::{Impairment, Quality};
use belfry_signal::record::{self, SpanKind, SpanStatus};
use belfry_signal::{
    Cause, Counter, CounterHandle, Emitter, Gauge, Histogram, Journey, Journeys, Pii, Region, Registry, Room,
    SECONDS, SECONDS_FAST, Severity, SpanContext, SpanId, TraceId, now_unix_nanos,
};

use crate::config::Config;

pub(crate) use self::labels::{Asked, End, Loss, Traffic, Unwanted};
use self::labels::{Outcome, Place, Side};

const COMPONENT: &str = "media";

/// Upper bounds for mean opinion scores, 1.0 to 4.5.
const SCORES: &[f64] = &[1.5, 2.0, 2.5, 3.0, 3.3, 3.6, 3.8, 4.0, 4.1, 4.2, 4.3, 4.4, 4.5];
/// Upper bounds for shares of lost packets.
const RATIOS: &[f64] = &[0.0, 0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.5, 1.0];

/// Per-packet counts of one worker, added up between two polls so that packets touch no shared memory.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) packets: [u64; Traffic::ALL.len()],
    pub(crate) bytes: [u64; Traffic::ALL.len()],
    pub(crate) unwanted: [u64; Unwanted::ALL.len()],
    pub(crate) losses: [u64; Loss::ALL.len()],
}

/// What identifies a session in records.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) key: SessionKey,
    pub(crate) region: Region,
    pub(crate) trace_id: TraceId,
}

/// One leg's window, as it is reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) leg: Leg,
    pub(crate) seconds: f64,
    pub(crate) round_trip_ms: Option<f64>,
    pub(crate) payload_type: Option<u8>,
}

/// The relay's metrics, logs and spans.
#[derive(Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    journeys: Journeys,
    packets: Vec<CounterHandle>,
    bytes: Vec<CounterHandle>,
    unwanted: Vec<CounterHandle>,
    losses: Vec<CounterHandle>,
    requests: Counter<(Asked, Outcome)>,
    request_seconds: Histogram<(Asked,)>,
    sessions: Gauge<()>,
    sessions_ended: Counter<(End,)>,
    sessions_orphaned: CounterHandle,
    ports: Gauge<()>,
    ports_used: Gauge<()>,
    missed: Counter<(Place, Region)>,
    jitter: Histogram<(Region, Side)>,
    mos: Histogram<(Region, Side)>,
    round_trip: Histogram<(Region, Side)>,
    reported_loss: Histogram<(Region, Side)>,
    one_way: Counter<(Region, Side)>,
    silent: Counter<(Region,)>,
    socket_errors: Counter<()>,
    is_exhausted: AtomicBool,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        let packets: Counter<(Traffic,)> =
            component.counter("forwarded_packets_total", "Packets sent on to the other leg.");
        let bytes: Counter<(Traffic,)> =
            component.counter("forwarded_bytes_total", "UDP payload bytes sent on to the other leg.");
        let unwanted: Counter<(Unwanted,)> =
            component.counter("refused_packets_total", "Packets from outside that were not taken.");
        let losses: Counter<(Loss,)> =
            component.counter("dropped_packets_total", "Packets that were taken and not sent on.");
        Self {
            emitter: component.emitter(),
            journeys: component.journeys(),
            packets: Traffic::ALL.iter().map(|kind| packets.handle((*kind,))).collect(),
            bytes: Traffic::ALL.iter().map(|kind| bytes.handle((*kind,))).collect(),
            unwanted: Unwanted::ALL.iter().map(|reason| unwanted.handle((*reason,))).collect(),
            losses: Loss::ALL.iter().map(|reason| losses.handle((*reason,))).collect(),
            requests: component.counter("requests_total", "Requests of the core, by outcome."),
            request_seconds: component.histogram(
                "request_seconds",
                "Time from a request to its reply.",
                SECONDS_FAST,
            ),
            sessions: component.gauge("sessions", "Calls anchored now."),
            sessions_ended: component.counter("sessions_ended_total", "Calls that were anchored and ended."),
            sessions_orphaned: component
                .counter::<()>(
                    "sessions_orphaned_total",
                    "Calls whose core went away while they were anchored.",
                )
                .handle(()),
            ports: component.gauge("ports", "Ports in the configured range."),
            ports_used: component.gauge("ports_used", "Ports in use now."),
            missed: component.counter(
                "missed_packets_total",
                "Packets of measured windows that a listener misses, by place.",
            ),
            jitter: component.histogram(
                "jitter_seconds",
                "Interarrival jitter of each window.",
                SECONDS_FAST,
            ),
            mos: component.histogram("window_mos", "Listening score (MOS-LQ) of each window.", SCORES),
            round_trip: component.histogram(
                "round_trip_seconds",
                "Round trip between relay and leg, from RTCP.",
                SECONDS,
            ),
            reported_loss: component.histogram(
                "reported_loss_ratio",
                "Share of lost packets that a leg's receiver reports state.",
                RATIOS,
            ),
            one_way: component.counter(
                "one_way_sessions_total",
                "Calls in which one leg should have been heard and was not.",
            ),
            silent: component
                .counter("silent_sessions_total", "Calls of which nothing was heard for too long."),
            socket_errors: component
                .counter("socket_errors_total", "Media sockets that could not be opened or polled."),
            is_exhausted: AtomicBool::new(false),
        }
    }

    /// The region of this site, for calls whose own is not known.
    pub(crate) fn home_region(&self) -> Region {
        self.emitter.resource().region.clone()
    }

    pub(crate) fn started(&self, config: &Config, ports: usize) {
        self.ports.set((), as_gauge(ports));
        let attributes = vec![
            ("media.ports".into(), (ports as u64).into()),
            ("media.workers".into(), (config.workers as u64).into()),
            ("media.port_min".into(), config.port_min.into()),
            ("media.port_max".into(), config.port_max.into()),
        ];
        self.emitter.log(COMPONENT, Severity::Info, "media relay started", attributes, None, None);
    }

    /// A worker stays on no core: jitter may be higher, calls work.
    pub(crate) fn pinning_failed(&self, worker: usize) {
        let attributes = vec![("media.worker".into(), (worker as u64).into())];
        let message = "a media worker could not be pinned to a core";
        self.emitter.log(COMPONENT, Severity::Warn, message, attributes, None, None);
    }

    /// Fewer files may be open than the configured calls need: offers will be refused before the ports run out.
    pub(crate) fn files_are_few(&self, files_max: u64, files_needed: u64) {
        let attributes = vec![
            ("media.files_max".into(), files_max.into()),
            ("media.files_needed".into(), files_needed.into()),
        ];
        let message = "the limit of open files is too low for media.sessions_max";
        self.emitter.log(COMPONENT, Severity::Warn, message, attributes, None, None);
    }

    /// A media socket could not be opened or polled, for another reason than a port in use.
    pub(crate) fn socket_failed(&self, error: &std::io::Error) {
        self.socket_errors.inc(());
        let attributes =
            vec![("os.error".into(), i64::from(error.raw_os_error().unwrap_or_default()).into())];
        // One line until a call gets its sockets again.
        if !self.is_exhausted.swap(true, Ordering::Relaxed) {
            let message = "a media socket could not be opened";
            self.emitter.log(COMPONENT, Severity::Error, message, attributes, None, None);
        }
    }

    /// A worker's event loop failed; its sessions are lost.
    pub(crate) fn worker_failed(&self, worker: usize, sessions: usize) {
        let attributes = vec![
            ("media.worker".into(), (worker as u64).into()),
            ("media.sessions".into(), (sessions as u64).into()),
        ];
        self.emitter.log(COMPONENT, Severity::Error, "a media worker failed to poll", attributes, None, None);
    }

    pub(crate) fn request_answered(&self, asked: Asked, reply: &Reply, took: Duration) {
        let outcome = Outcome::from(reply);
        self.requests.inc((asked, outcome));
        self.request_seconds.observe((asked,), took.as_secs_f64());
        self.exhaustion_changed(asked, outcome);
    }

    /// One line when ports or sessions run out and one when they are back, not one per refused call.
    fn exhaustion_changed(&self, asked: Asked, outcome: Outcome) {
        let is_exhausted = matches!(outcome, Outcome::PortsExhausted | Outcome::SessionsExhausted);
        let is_answered = asked == Asked::Offer && outcome == Outcome::Done;
        if is_exhausted && !self.is_exhausted.swap(true, Ordering::Relaxed) {
            let attributes = vec![("reason".into(), outcome.as_str().into())];
            let message = "media relay is full and refuses calls";
            self.emitter.log(COMPONENT, Severity::Error, message, attributes, None, None);
        } else if is_answered && self.is_exhausted.swap(false, Ordering::Relaxed) {
            let message = "media relay takes calls again";
            self.emitter.log(COMPONENT, Severity::Info, message, vec![], None, None);
        }
    }

    /// A description could not be used; `what` and the line come from the parser, never from the peer.
    pub(crate) fn description_refused(
        &self,
        subject: &SessionKey,
        leg: Leg,
        line: usize,
        what: &'static str,
    ) {
        let attributes = vec![
            ("rtc.leg".into(), leg.as_str().into()),
            ("sdp.line".into(), (line as u64).into()),
            ("reason".into(), what.into()),
        ];
        let message = "a session description was refused";
        let call_id = Some(Pii::new(subject.0.clone()));
        self.emitter.log(COMPONENT, Severity::Warn, message, attributes, None, call_id);
    }

    pub(crate) fn session_began(&self, ports_used: usize) {
        self.sessions.add((), 1);
        self.ports_used.set((), as_gauge(ports_used));
    }

    /// The core of a call is gone.
    pub(crate) fn session_orphaned(&self, subject: &Subject) {
        self.sessions_orphaned.inc();
        self.call_log(Severity::Info, "the core of a call is gone; its sound goes on", subject);
    }

    /// A core asked about a call that had lost its own.
    pub(crate) fn session_adopted(&self, subject: &Subject) {
        self.call_log(Severity::Info, "a call without a core has one again", subject);
    }

    pub(crate) fn ports_changed(&self, ports_used: usize) {
        self.ports_used.set((), as_gauge(ports_used));
    }

    /// A session is gone: the gauge falls and its span is written into the call's trace.
    pub(crate) fn session_ended(
        &self,
        subject: &Subject,
        report: &SessionReport,
        end: End,
        start_unix_nanos: u64,
        ports_used: usize,
    ) {
        self.sessions.add((), -1);
        self.sessions_ended.inc((end,));
        self.ports_used.set((), as_gauge(ports_used));
        let mut attributes: record::Attributes =
            vec![("media.end".into(), end.as_str().into()), ("geo.region".into(), (&subject.region).into())];
        for (leg, names) in [(&report.caller, &CALLER), (&report.callee, &CALLEE)] {
            attributes.push((names[0].into(), leg.packets.into()));
            attributes.push((names[1].into(), leg.lost.into()));
            attributes.push((names[2].into(), leg.jitter_ms.into()));
            if let Some(mos) = leg.mos {
                attributes.push((names[3].into(), mos.into()));
            }
        }
        let is_good = end == End::Deleted;
        let span = record::Span {
            context: self.context(subject),
            parent: None,
            name: "media.session".into(),
            kind: SpanKind::Server,
            start_unix_nanos,
            status: if is_good { SpanStatus::Ok } else { SpanStatus::Error },
            attributes,
            call_id: Some(Pii::new(subject.key.0.clone())),
        };
        self.emitter.span(COMPONENT, span);
        let message = match end {
            End::Abandoned => "a call was given up: no packet and no request for too long",
            End::Orphaned => "a call without a core was given up: a side fell silent",
            End::Deleted | End::Stopped => return,
        };
        self.call_log(Severity::Warn, message, subject);
    }

    /// A window ended in which packets came from the leg.
    pub(crate) fn window_measured(&self, subject: &Subject, window: &Window, quality: &Quality) {
        let side = Side::from(window.leg);
        let labels = || (subject.region.clone(), side);
        self.missed.add((Place::Lost, subject.region.clone()), quality.lost);
        self.missed.add((Place::Late, subject.region.clone()), quality.late);
        self.jitter.observe(labels(), quality.jitter_ms / 1_000.0);
        self.mos.observe(labels(), quality.mos_listening);
        self.emit_quality(subject, window, Some(quality));
    }

    /// The window was judged and is as it should be.
    pub(crate) fn window_good(&self, subject: &Subject) {
        self.journeys.good(Journey::MediaQuality, &subject.region);
    }

    /// The window was judged and its score is too low.
    pub(crate) fn window_bad(&self, subject: &Subject, impairment: Impairment) {
        let cause = match impairment {
            Impairment::Loss => Cause::Loss,
            Impairment::Jitter => Cause::Jitter,
        };
        self.bad(subject, cause);
    }

    /// A window ended in which the leg should have been heard and was not.
    pub(crate) fn window_unheard(&self, subject: &Subject, window: &Window, is_judged: bool) {
        self.emit_quality(subject, window, None);
        if is_judged {
            self.bad(subject, Cause::OneWay);
        }
    }

    /// The leg's RTCP told how long a packet takes there and back.
    pub(crate) fn round_trip_measured(&self, subject: &Subject, leg: Leg, round_trip_ms: f64) {
        self.round_trip.observe((subject.region.clone(), leg.into()), round_trip_ms / 1_000.0);
    }

    /// The leg's receiver report tells what share of the other leg's packets it missed.
    pub(crate) fn loss_reported(&self, subject: &Subject, leg: Leg, ratio: f64) {
        self.reported_loss.observe((subject.region.clone(), leg.into()), ratio);
    }

    /// A notice goes to the core.
    pub(crate) fn noticed(&self, subject: &Subject, notice: &Notice) {
        match notice {
            Notice::Silent { .. } => {
                self.silent.inc((subject.region.clone(),));
                self.call_log(Severity::Warn, "nothing is heard of a call", subject);
            }
            Notice::OneWay { missing, .. } => {
                self.one_way.inc((subject.region.clone(), (*missing).into()));
                let message = match missing {
                    Leg::Caller => "one-way audio: the caller is not heard",
                    Leg::Callee => "one-way audio: the callee is not heard",
                };
                self.call_log(Severity::Warn, message, subject);
            }
        }
    }

    /// Adds a worker's counts to the metrics and empties them.
    pub(crate) fn flush(&self, counts: &mut Counts) {
        let rows = [
            (&self.packets, &mut counts.packets[..]),
            (&self.bytes, &mut counts.bytes[..]),
            (&self.unwanted, &mut counts.unwanted[..]),
            (&self.losses, &mut counts.losses[..]),
        ];
        for (handles, values) in rows {
            for (handle, value) in handles.iter().zip(values) {
                if *value > 0 {
                    handle.add(std::mem::take(value));
                }
            }
        }
    }

    /// Drain began or ended.
    pub(crate) fn drained(&self, stragglers: usize) {
        let attributes = vec![("media.sessions".into(), (stragglers as u64).into())];
        let (severity, message) = match stragglers {
            0 => (Severity::Info, "media relay drained"),
            _ => (Severity::Warn, "media relay stopped with calls still anchored"),
        };
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }

    fn bad(&self, subject: &Subject, cause: Cause) {
        let call_id = Some(Pii::new(subject.key.0.clone()));
        self.journeys.bad(Journey::MediaQuality, &subject.region, Room::Media, cause, call_id);
    }

    fn call_log(&self, severity: Severity, message: &'static str, subject: &Subject) {
        let attributes = vec![("geo.region".into(), (&subject.region).into())];
        let call_id = Some(Pii::new(subject.key.0.clone()));
        self.emitter.log(COMPONENT, severity, message, attributes, Some(self.context(subject)), call_id);
    }

    fn context(&self, subject: &Subject) -> SpanContext {
        SpanContext { trace_id: subject.trace_id, span_id: SpanId::random(), sampled: true }
    }

    fn emit_quality(&self, subject: &Subject, window: &Window, quality: Option<&Quality>) {
        let record = record::Quality {
            call_id: Pii::new(subject.key.0.clone()),
            trace_id: subject.trace_id,
            leg: window.leg.as_str().into(),
            region: subject.region.clone(),
            window_seconds: window.seconds,
            packets: quality.map_or(0, |quality| quality.packets),
            lost: quality.map_or(0, |quality| quality.lost),
            jitter_ms: quality.map_or(0.0, |quality| quality.jitter_ms),
            rtt_ms: window.round_trip_ms,
            mos: quality.map(|quality| quality.mos_listening),
            r_factor: quality.map(|quality| quality.r_factor),
            payload_type: window.payload_type,
        };
        self.emitter.quality(COMPONENT, record);
    }
}

const CALLER: [&str; 4] = ["caller.packets", "caller.lost", "caller.jitter_ms", "caller.mos"];
const CALLEE: [&str; 4] = ["callee.packets", "callee.lost", "callee.jitter_ms", "callee.mos"];

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The start of a session's span.
pub(crate) fn unix_nanos() -> u64 {
    now_unix_nanos()
}
