//! What was received of one leg's stream: sequence state, loss, duplicates, reordering, jitter and lateness.
//!
//! The algorithms of RFC 3550 appendix A.1 (sequence validity with probation and wrap), A.3 (loss) and A.8
//! (jitter). Two things go beyond it: packets of the probation count, because the listener hears them, and a
//! de-jitter buffer is simulated, because a packet that comes after its turn is as good as lost.

use rtcp::reception_report::ReceptionReport;
use webrtc_util::replay_detector::{ReplayDetector, WrappedSlidingWindowDetector};

use crate::packet::RtpView;

/// In-order packets before a source is believed (RFC 3550 A.1 MIN_SEQUENTIAL).
const SEQUENTIAL_MIN: u8 = 2;
/// The largest forward jump that is loss and not a restart (MAX_DROPOUT).
const DROPOUT_MAX: u16 = 3_000;
/// The largest backward jump that is reordering and not a restart (MAX_MISORDER).
const MISORDER_MAX: u16 = 100;
/// Packets back that duplicates are recognised.
const REPLAY_WINDOW: usize = 128;
/// Sources of one leg followed at a time: the sound, and what a transfer or a retransmission stream adds.
const SOURCES_MAX: usize = 3;
/// A jump of the media clock against ours beyond this is a new start of the clock, not jitter.
const CLOCK_JUMP_MS: i64 = 10_000;

/// What a packet turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is the first of a source that is not believed yet, or far out of sequence.
    Unproven,
    /// It is next in order.
    InOrder,
    /// It is ahead: this many before it are missing so far.
    Ahead(u16),
    /// It comes after one that was sent later.
    Reordered,
    /// It came before.
    Duplicate,
}

/// How a payload's clock runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Ticks per second.
    pub rate: u32,
    /// Whether timestamps advance with time: not so for telephone events and comfort noise.
    pub is_steady: bool,
}

/// Sums since the beginning; a window is the difference of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets that the sequence numbers say were sent.
    pub expected: u64,
    /// Packets that came, duplicates left out.
    pub received: u64,
    /// Gaps, each of one or more missing packets.
    pub gaps: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets that came out of order.
    pub reordered: u64,
    /// Packets that came too late to be played.
    pub late: u64,
}

impl Totals {
    /// Packets lost on the way to us (RFC 3550 A.3), never below 0.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            expected: self.expected.saturating_sub(earlier.expected),
            received: self.received.saturating_sub(earlier.received),
            gaps: self.gaps.saturating_sub(earlier.gaps),
            duplicates: self.duplicates.saturating_sub(earlier.duplicates),
            reordered: self.reordered.saturating_sub(earlier.reordered),
            late: self.late.saturating_sub(earlier.late),
        }
    }
}

/// Everything received of one leg's stream, over the sources that it used.
pub struct Reception {
    sources: [Option<Source>; SOURCES_MAX],
    current: usize,
    jitter_buffer_ms: i64,
    totals: Totals,
}

struct Source {
    ssrc: u32,
    sequence: Sequence,
    timing: Timing,
    replay: Option<WrappedSlidingWindowDetector>,
}

/// Sequence state of RFC 3550 A.1.
struct Sequence {
    highest: u16,
    /// Wraps of the sequence number, in the upper 16 bits.
    cycles: u32,
    bad_next: Option<u16>,
    probation: u8,
}

/// Jitter (A.8) and the simulated de-jitter buffer, in ticks of the media clock.
#[derive(Default)]
struct Timing {
    clock_rate: u32,
    last: Option<(u64, u32)>,
    jitter_ticks: f64,
    /// How much later than the first packet this one is, in ticks.
    transit_ticks: i64,
    /// The transit that the buffer takes as prompt: falls at once, rises slowly, as adaptive buffers do.
    floor_ticks: f64,
}

impl Reception {
    /// Nothing received yet. A packet later than `jitter_buffer_ms` after the promptest ones counts as late.
    #[must_use]
    pub fn new(jitter_buffer_ms: u32) -> Self {
        let totals = Totals::default();
        Self {
            sources: [const { None }; SOURCES_MAX],
            current: 0,
            jitter_buffer_ms: jitter_buffer_ms.into(),
            totals,
        }
    }

    /// Takes a packet into account.
    pub fn arrived(&mut self, packet: &RtpView<'_>, clock: Clock, now_micros: u64) -> Arrival {
        let index = self.source_of(packet);
        let Some(source) = &mut self.sources[index] else { return Arrival::Unproven };
        let arrival = source.judge(packet.sequence(), &mut self.totals);
        if matches!(arrival, Arrival::InOrder | Arrival::Ahead(_) | Arrival::Reordered) {
            self.current = index;
            let is_late = source.timing.update(packet.timestamp(), clock, now_micros, self.jitter_buffer_ms);
            self.totals.late += u64::from(is_late);
        }
        arrival
    }

    /// Sums over all sources since the beginning.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Interarrival jitter of the source heard last, in milliseconds.
    #[must_use]
    pub fn jitter_ms(&self) -> f64 {
        self.sources[self.current].as_ref().map_or(0.0, |source| source.timing.jitter_ms())
    }

    /// The source heard last.
    #[must_use]
    pub fn ssrc(&self) -> Option<u32> {
        self.sources[self.current].as_ref().map(|source| source.ssrc)
    }

    /// The block that a receiver report of ours would carry about the source heard last (RFC 3550 section 6.4.1):
    /// the fraction lost since `earlier`, the rest since the beginning. LSR and DLSR stay 0 for the caller to set.
    #[must_use]
    pub fn report_block(&self, earlier: &Totals) -> Option<ReceptionReport> {
        let source = self.sources[self.current].as_ref()?;
        let window = self.totals.since(earlier);
        let fraction = (window.lost() * 256).checked_div(window.expected).unwrap_or(0).min(255);
        Some(ReceptionReport {
            ssrc: source.ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            // The field has 24 bits, signed.
            total_lost: u32::try_from(self.totals.lost().min(0x7f_ffff)).unwrap_or(0x7f_ffff),
            last_sequence_number: source.sequence.cycles | u32::from(source.sequence.highest),
            jitter: source.timing.jitter_ticks as u32,
            ..ReceptionReport::default()
        })
    }

    /// The slot of the packet's source; a new source takes a free slot or that of the one not heard last.
    fn source_of(&mut self, packet: &RtpView<'_>) -> usize {
        let ssrc = packet.ssrc();
        let is_it = |source: &Option<Source>| source.as_ref().is_some_and(|source| source.ssrc == ssrc);
        if let Some(index) = self.sources.iter().position(is_it) {
            return index;
        }
        let free = self.sources.iter().position(Option::is_none);
        // Unproven sources go first, so that a flood of random ones cannot push out a proven one.
        let unproven = || {
            self.sources
                .iter()
                .position(|source| source.as_ref().is_some_and(|source| source.sequence.probation > 0))
        };
        let index = free.or_else(unproven).unwrap_or((self.current + 1) % SOURCES_MAX);
        self.sources[index] = Some(Source::new(ssrc, packet.sequence()));
        index
    }
}

impl std::fmt::Debug for Reception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reception").field("totals", &self.totals).finish_non_exhaustive()
    }
}

impl Source {
    fn new(ssrc: u32, sequence: u16) -> Self {
        Self {
            ssrc,
            sequence: Sequence {
                highest: sequence.wrapping_sub(1),
                cycles: 0,
                bad_next: None,
                probation: SEQUENTIAL_MIN,
            },
            timing: Timing::default(),
            replay: None,
        }
    }

    fn judge(&mut self, number: u16, totals: &mut Totals) -> Arrival {
        if self.sequence.probation > 0 {
            return self.prove(number, totals);
        }
        let ahead = number.wrapping_sub(self.sequence.highest);
        if ahead > DROPOUT_MAX && ahead <= u16::MAX - MISORDER_MAX {
            // Two packets in a row from far away: the other side restarted. One: it is ignored.
            if self.sequence.bad_next == Some(number) {
                self.begin(number, 1, totals);
                return Arrival::InOrder;
            }
            self.sequence.bad_next = Some(number.wrapping_add(1));
            return Arrival::Unproven;
        }
        if let Some(replay) = &mut self.replay {
            if !replay.check(number.into()) {
                totals.duplicates += 1;
                return Arrival::Duplicate;
            }
            replay.accept();
        }
        totals.received += 1;
        if ahead > DROPOUT_MAX {
            totals.reordered += 1;
            return Arrival::Reordered;
        }
        if number < self.sequence.highest {
            self.sequence.cycles = self.sequence.cycles.wrapping_add(1 << 16);
        }
        self.sequence.highest = number;
        totals.expected += u64::from(ahead);
        if ahead > 1 {
            totals.gaps += 1;
            return Arrival::Ahead(ahead - 1);
        }
        Arrival::InOrder
    }

    fn prove(&mut self, number: u16, totals: &mut Totals) -> Arrival {
        if number != self.sequence.highest.wrapping_add(1) {
            self.sequence.probation = SEQUENTIAL_MIN;
        }
        self.sequence.probation -= 1;
        self.sequence.highest = number;
        if self.sequence.probation > 0 {
            return Arrival::Unproven;
        }
        self.begin(number, SEQUENTIAL_MIN, totals);
        Arrival::InOrder
    }

    /// The source is believed from here on; `heard` packets up to and with this one came in order.
    fn begin(&mut self, number: u16, heard: u8, totals: &mut Totals) {
        self.sequence.highest = number;
        self.sequence.cycles = 0;
        self.sequence.bad_next = None;
        totals.expected += u64::from(heard);
        totals.received += u64::from(heard);
        let mut replay = WrappedSlidingWindowDetector::new(REPLAY_WINDOW, u16::MAX.into());
        if replay.check(number.into()) {
            replay.accept();
        }
        self.replay = Some(replay);
    }
}

impl Timing {
    /// Takes one packet's timing in; whether it came too late to be played.
    fn update(&mut self, timestamp: u32, clock: Clock, now_micros: u64, buffer_ms: i64) -> bool {
        if !clock.is_steady || clock.rate == 0 {
            return false;
        }
        if self.clock_rate != clock.rate {
            *self = Self { clock_rate: clock.rate, ..Self::default() };
        }
        let Some((last_micros, last_timestamp)) = self.last.replace((now_micros, timestamp)) else {
            return false;
        };
        let rate = i64::from(clock.rate);
        // Signed, so that packets fed out of order of arrival cannot shift the transit for good.
        let elapsed_micros = now_micros.wrapping_sub(last_micros).cast_signed();
        let elapsed_ticks = elapsed_micros.saturating_mul(rate) / 1_000_000;
        let media_ticks = i64::from(timestamp.wrapping_sub(last_timestamp).cast_signed());
        let difference = elapsed_ticks.saturating_sub(media_ticks);
        if difference.abs() > CLOCK_JUMP_MS * rate / 1_000 {
            self.transit_ticks = 0;
            self.floor_ticks = 0.0;
            return false;
        }
        self.jitter_ticks += (difference.abs() as f64 - self.jitter_ticks) / 16.0;
        self.transit_ticks = self.transit_ticks.saturating_add(difference);
        let transit = self.transit_ticks as f64;
        let is_late = transit - self.floor_ticks > (buffer_ms * rate) as f64 / 1_000.0;
        self.floor_ticks = if transit < self.floor_ticks {
            transit
        } else {
            self.floor_ticks + (transit - self.floor_ticks) / 256.0
        };
        is_late
    }

    fn jitter_ms(&self) -> f64 {
        if self.clock_rate == 0 { 0.0 } else { self.jitter_ticks * 1_000.0 / f64::from(self.clock_rate) }
    }
}

#[cfg(test)]
mod tests;
