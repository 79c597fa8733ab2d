//! One leg's meter: counts while packets flow, a verdict per window, and the whole leg at the end.
//!
//! What is judged is what the far side will hear: packets lost before us, packets that we dropped ourselves, and
//! packets that come too late for a de-jitter buffer all count against the score.

use crate::mos::{self, Codec, Conditions};
use crate::packet::RtpView;
use crate::reception::{Arrival, Clock, Reception, Totals};

/// How a payload type is decoded, as far as measuring needs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Its clock.
    pub clock: Clock,
    /// Its factors in the E-model.
    pub codec: Codec,
}

impl Format {
    /// A format by its `a=rtpmap` (RFC 8866 section 6.6): encoding name and clock rate.
    #[must_use]
    pub fn named(payload_type: u8, encoding: &str, rate: u32) -> Self {
        let is_steady =
            !encoding.eq_ignore_ascii_case("telephone-event") && !encoding.eq_ignore_ascii_case("CN");
        Self { payload_type, clock: Clock { rate, is_steady }, codec: Codec::named(encoding) }
    }

    /// A static payload type (RFC 3551 section 6), or G.711 at 8 kHz for what is not known.
    #[must_use]
    pub fn of_static(payload_type: u8) -> Self {
        let (encoding, rate) = match payload_type {
            3 => ("GSM", 8_000),
            4 => ("G723", 8_000),
            6 => ("DVI4", 16_000),
            10 | 11 => ("L16", 44_100),
            13 => ("CN", 8_000),
            14 | 25..=34 => ("", 90_000),
            16 => ("DVI4", 11_025),
            17 => ("DVI4", 22_050),
            18 => ("G729", 8_000),
            _ => ("", 8_000),
        };
        Self::named(payload_type, encoding, rate)
    }
}

/// What hurts a window most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impairment {
    /// Packets that never came or that we dropped.
    Loss,
    /// Packets that came too late.
    Jitter,
}

/// Quality of one leg over one window, or over its whole life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Packets that came.
    pub packets: u64,
    /// Packets lost before us and by us.
    pub lost: u64,
    /// Packets that came too late to be played.
    pub late: u64,
    /// Interarrival jitter at the end, in milliseconds.
    pub jitter_ms: f64,
    /// R for listening.
    pub r_factor: f64,
    /// MOS for listening: delay left out.
    pub mos_listening: f64,
    /// MOS for conversation, when the round trip between the phones is known.
    pub mos_conversation: Option<f64>,
    /// The larger part of what is wrong.
    pub impairment: Impairment,
}

/// Measures one leg's stream.
#[derive(Debug)]
pub struct Meter {
    reception: Reception,
    format: Option<Format>,
    packets: u64,
    bytes: u64,
    dropped: Dropped,
    window: Mark,
    jitter_ms_max: f64,
    mos_min: Option<f64>,
}

/// Packets that we lost ourselves.
#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    packets: u64,
    bursts: u64,
    is_dropping: bool,
}

/// Where a window began.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    totals: Totals,
    packets: u64,
    dropped: Dropped,
}

impl Meter {
    /// Nothing measured yet; see [`Reception::new`] for the buffer.
    #[must_use]
    pub fn new(jitter_buffer_ms: u32) -> Self {
        Self {
            reception: Reception::new(jitter_buffer_ms),
            format: None,
            packets: 0,
            bytes: 0,
            dropped: Dropped::default(),
            window: Mark::default(),
            jitter_ms_max: 0.0,
            mos_min: None,
        }
    }

    /// A packet came. `formats` are the leg's own descriptions of dynamic payload types.
    pub fn arrived(
        &mut self,
        packet: &RtpView<'_>,
        bytes: usize,
        formats: &[Format],
        now_micros: u64,
    ) -> Arrival {
        self.packets += 1;
        self.bytes += bytes as u64;
        let payload_type = packet.payload_type();
        let format = match self.format {
            Some(format) if format.payload_type == payload_type => format,
            _ => {
                let named = formats.iter().find(|format| format.payload_type == payload_type);
                named.copied().unwrap_or_else(|| Format::of_static(payload_type))
            }
        };
        // Events and comfort noise come and go; what the leg speaks is the codec between them.
        if format.clock.is_steady || self.format.is_none() {
            self.format = Some(format);
        }
        self.reception.arrived(packet, format.clock, now_micros)
    }

    /// The packet that just came was forwarded.
    pub fn forwarded(&mut self) {
        self.dropped.is_dropping = false;
    }

    /// The packet that just came was dropped by us: the far side will miss it.
    pub fn dropped(&mut self) {
        self.dropped.packets += 1;
        self.dropped.bursts += u64::from(!self.dropped.is_dropping);
        self.dropped.is_dropping = true;
    }

    /// The leg was described anew: dynamic payload types may mean something else.
    pub fn redescribed(&mut self) {
        self.format = None;
    }

    /// Ends the window and begins the next. `None` when nothing came in it.
    /// `round_trip_ms` is the one between the phones, over both legs.
    pub fn end_window(&mut self, round_trip_ms: Option<f64>) -> Option<Quality> {
        let quality = self.judge(&self.window, round_trip_ms);
        self.window = Mark {
            totals: self.reception.totals(),
            packets: self.packets,
            dropped: Dropped { is_dropping: false, ..self.dropped },
        };
        if let Some(quality) = &quality {
            self.jitter_ms_max = self.jitter_ms_max.max(quality.jitter_ms);
            self.mos_min =
                Some(self.mos_min.map_or(quality.mos_listening, |min| min.min(quality.mos_listening)));
        }
        quality
    }

    /// The window that is open, without ending it: for a last one that is too short to be held against the leg.
    #[must_use]
    pub fn window(&self, round_trip_ms: Option<f64>) -> Option<Quality> {
        self.judge(&self.window, round_trip_ms)
    }

    /// The leg from its beginning until now.
    #[must_use]
    pub fn whole(&self, round_trip_ms: Option<f64>) -> Option<Quality> {
        self.judge(&Mark::default(), round_trip_ms)
    }

    /// Packets received in all.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets received in the window that is open.
    #[must_use]
    pub fn window_packets(&self) -> u64 {
        self.packets - self.window.packets
    }

    /// Bytes received in all, headers of RTP included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sums of what was received.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.reception.totals()
    }

    /// Interarrival jitter now, in milliseconds.
    #[must_use]
    pub fn jitter_ms(&self) -> f64 {
        self.reception.jitter_ms()
    }

    /// The highest jitter at the end of any window, or now.
    #[must_use]
    pub fn jitter_ms_max(&self) -> f64 {
        self.jitter_ms_max.max(self.reception.jitter_ms())
    }

    /// The lowest score of any window.
    #[must_use]
    pub fn mos_min(&self) -> Option<f64> {
        self.mos_min
    }

    /// The payload type heard last, events and comfort noise left out.
    #[must_use]
    pub fn payload_type(&self) -> Option<u8> {
        self.format.map(|format| format.payload_type)
    }

    fn judge(&self, from: &Mark, round_trip_ms: Option<f64>) -> Option<Quality> {
        let packets = self.packets - from.packets;
        if packets == 0 {
            return None;
        }
        let totals = self.reception.totals().since(&from.totals);
        let dropped = self.dropped.packets - from.dropped.packets;
        let lost = totals.lost() + dropped;
        let missed = (lost + totals.late) as f64;
        let loss_ratio = missed / totals.expected.max(missed as u64).max(1) as f64;
        let bursts = totals.gaps + (self.dropped.bursts - from.dropped.bursts) + totals.late;
        // Mean burst length over the length that random loss of this ratio has, which is 1 / (1 - loss).
        let burst_ratio = if bursts == 0 { 1.0 } else { missed / bursts as f64 * (1.0 - loss_ratio) };
        let codec = self.format.map_or(Codec::G711, |format| format.codec);
        let jitter_ms = self.reception.jitter_ms();
        let listening = Conditions { loss_ratio, burst_ratio: burst_ratio.max(1.0), delay_ms: 0.0 };
        let r_factor = mos::r_factor(codec, listening);
        let mos_conversation = round_trip_ms.map(|round_trip_ms| {
            // Half the way there and back, a de-jitter buffer of twice the jitter, and one frame.
            let delay_ms = round_trip_ms / 2.0 + 2.0 * jitter_ms + 20.0;
            mos::mos(mos::r_factor(codec, Conditions { delay_ms, ..listening }))
        });
        let impairment = if totals.late > lost { Impairment::Jitter } else { Impairment::Loss };
        let mos_listening = mos::mos(r_factor);
        Some(Quality {
            packets,
            lost,
            late: totals.late,
            jitter_ms,
            r_factor,
            mos_listening,
            mos_conversation,
            impairment,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 250 packets of a 20 ms stream; `fate` says of each whether it comes, and how many ms late.
    fn stream(
        meter: &mut Meter,
        first: u16,
        fate: impl Fn(u16) -> Option<u64>,
        dropped: impl Fn(u16) -> bool,
    ) {
        for n in 0..250u16 {
            let Some(late_ms) = fate(n) else { continue };
            let number = first.wrapping_add(n);
            let mut bytes = vec![0x80, 0];
            bytes.extend(number.to_be_bytes());
            bytes.extend((u32::from(number) * 160).to_be_bytes());
            bytes.extend([0, 0, 0, 1]);
            let now = (u64::from(number) * 20 + late_ms) * 1_000;
            meter.arrived(&RtpView::parse(&bytes).expect("well formed"), 172, &[], now);
            if dropped(n) { meter.dropped() } else { meter.forwarded() }
        }
    }

    #[test]
    fn a_clean_window_scores_best() {
        let mut meter = Meter::new(60);
        stream(&mut meter, 0, |_| Some(0), |_| false);
        let quality = meter.end_window(None).expect("packets came");
        assert_eq!((quality.packets, quality.lost, quality.late), (250, 0, 0));
        assert!((quality.mos_listening - 4.409).abs() < 0.001, "{quality:?}");
        assert_eq!(quality.mos_conversation, None);
        assert_eq!(meter.end_window(None), None, "nothing came since");
    }

    #[test]
    fn what_we_drop_counts_like_what_the_network_loses() {
        let is_twelfth = |n: u16| n % 12 == 5; // 8.4 %
        let mut by_network = Meter::new(60);
        stream(&mut by_network, 0, |n| (!is_twelfth(n)).then_some(0), |_| false);
        let mut by_us = Meter::new(60);
        stream(&mut by_us, 0, |_| Some(0), is_twelfth);
        let (network, us) = (by_network.end_window(None), by_us.end_window(None));
        let (network, us) = (network.expect("packets"), us.expect("packets"));
        assert_eq!((network.lost, us.lost), (21, 21));
        assert!((network.mos_listening - us.mos_listening).abs() < 0.01, "{network:?} {us:?}");
        assert!(us.mos_listening < 3.7, "{us:?}");
        assert_eq!(us.impairment, Impairment::Loss);
        assert_eq!(by_us.totals().lost(), 0, "the way to us was clean");
    }

    #[test]
    fn lateness_is_jitter_and_a_later_window_starts_clean() {
        let mut meter = Meter::new(60);
        stream(&mut meter, 0, |n| Some(if n % 10 == 9 { 90 } else { 0 }), |_| false);
        let bad = meter.end_window(Some(80.0)).expect("packets came");
        assert_eq!(bad.impairment, Impairment::Jitter);
        assert!(bad.late >= 20 && bad.mos_listening < 3.7, "{bad:?}");
        assert!(bad.mos_conversation.is_some_and(|score| score < bad.mos_listening), "{bad:?}");
        stream(&mut meter, 250, |_| Some(0), |_| false);
        let good = meter.end_window(None).expect("packets came");
        assert!(good.mos_listening > 4.3, "{good:?}");
        assert_eq!(meter.mos_min(), Some(bad.mos_listening));
        assert!(meter.whole(None).is_some_and(|whole| whole.packets == 500));
    }
}
