//! Mean opinion scores from what was measured: the E-model of ITU-T G.107 with its default values, and the formula
//! that rtpengine uses, for side-by-side checks.
//!
//! *Listening quality* (MOS-LQ) leaves delay out; *conversational quality* (MOS-CQ) includes it. Both are
//! estimates for narrowband speech (0 to 100 on the R scale, 1.0 to 4.5 as MOS).

/// What the E-model needs to know about a codec.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Codec {
    /// Equipment impairment factor without loss (Ie, G.113 appendix I).
    pub impairment: f64,
    /// Packet-loss robustness factor (Bpl).
    pub loss_robustness: f64,
}

impl Codec {
    /// G.711 with packet loss concealment; also the assumption for codecs without published factors.
    pub const G711: Self = Self { impairment: 0.0, loss_robustness: 25.1 };
    /// G.729 annex A.
    pub const G729: Self = Self { impairment: 11.0, loss_robustness: 19.0 };
    /// G.723.1 at 6.3 kbit/s.
    pub const G723: Self = Self { impairment: 15.0, loss_robustness: 16.1 };
    /// GSM enhanced full rate, the nearest published factors for GSM and AMR at 12.2 kbit/s.
    pub const GSM: Self = Self { impairment: 5.0, loss_robustness: 10.0 };

    /// The factors for an encoding name as it stands in `a=rtpmap` (case does not matter).
    #[must_use]
    pub fn named(encoding: &str) -> Self {
        if encoding.eq_ignore_ascii_case("G729") || encoding.eq_ignore_ascii_case("G729D") {
            Self::G729
        } else if encoding.eq_ignore_ascii_case("G723") {
            Self::G723
        } else if encoding.eq_ignore_ascii_case("GSM")
            || encoding.eq_ignore_ascii_case("GSM-EFR")
            || encoding.eq_ignore_ascii_case("AMR")
        {
            Self::GSM
        } else {
            Self::G711
        }
    }
}

/// What happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Share of packets that the listener does not hear, 0.0 to 1.0.
    pub loss_ratio: f64,
    /// Mean length of loss bursts over what random loss would give; 1.0 when loss is random (G.107 BurstR).
    pub burst_ratio: f64,
    /// Mouth-to-ear delay in milliseconds; 0 for listening quality.
    pub delay_ms: f64,
}

/// Simultaneous impairment and basic signal-to-noise ratio with the default values of G.107 table 3.
const BASIC_SIGNAL_TO_NOISE: f64 = 94.7688;
const SIMULTANEOUS_IMPAIRMENT: f64 = 1.4136;
/// Talker echo loudness rating and weighted echo path loss, defaults, in dB.
const TALKER_ECHO_LOUDNESS: f64 = 65.0;
const WEIGHTED_ECHO_PATH_LOSS: f64 = 110.0;

/// The transmission rating factor R of G.107, with default values for all that a packet relay cannot see.
#[must_use]
pub fn r_factor(codec: Codec, conditions: Conditions) -> f64 {
    let r = BASIC_SIGNAL_TO_NOISE
        - SIMULTANEOUS_IMPAIRMENT
        - delay_impairment(conditions.delay_ms)
        - effective_equipment_impairment(codec, conditions);
    r.clamp(0.0, 100.0)
}

/// MOS from R (G.107 annex B); never below 1.
#[must_use]
pub fn mos(r: f64) -> f64 {
    if r <= 0.0 {
        1.0
    } else if r >= 100.0 {
        4.5
    } else {
        (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
    }
}

/// Ie,eff = Ie + (95 - Ie) * Ppl / (Ppl / BurstR + Bpl), with Ppl in percent.
fn effective_equipment_impairment(codec: Codec, conditions: Conditions) -> f64 {
    let loss_percent = 100.0 * conditions.loss_ratio.clamp(0.0, 1.0);
    if loss_percent == 0.0 {
        return codec.impairment;
    }
    let share = loss_percent / (loss_percent / conditions.burst_ratio.max(1.0) + codec.loss_robustness);
    codec.impairment + (95.0 - codec.impairment) * share.min(1.0)
}

/// Id = Idte + Idle + Idd: talker echo, listener echo and pure delay (G.107 section 7.4).
fn delay_impairment(delay_ms: f64) -> f64 {
    let t = delay_ms.max(0.0);
    let echo_difference = {
        let noise = TALKER_ECHO_LOUDNESS - 40.0 * ((1.0 + t / 10.0) / (1.0 + t / 150.0)).log10()
            + 6.0 * (-0.3 * t * t).exp();
        BASIC_SIGNAL_TO_NOISE - (80.0 + 2.5 * (noise - 14.0))
    };
    let talker_echo = (echo_difference / 2.0 + (echo_difference * echo_difference / 4.0 + 100.0).sqrt()
        - 1.0)
        * (1.0 - (-t).exp());
    let listener_difference =
        BASIC_SIGNAL_TO_NOISE - 10.5 * (WEIGHTED_ECHO_PATH_LOSS + 7.0) * (2.0 * t + 1.0).powf(-0.25);
    let listener_echo =
        listener_difference / 2.0 + (listener_difference * listener_difference / 4.0 + 169.0).sqrt();
    talker_echo + listener_echo + pure_delay(t)
}

fn pure_delay(delay_ms: f64) -> f64 {
    if delay_ms <= 100.0 {
        return 0.0;
    }
    let x = (delay_ms / 100.0).log2();
    25.0 * ((1.0 + x.powi(6)).powf(1.0 / 6.0) - 3.0 * (1.0 + (x / 3.0).powi(6)).powf(1.0 / 6.0) + 2.0)
}

/// The narrowband score as rtpengine computes it from a receiver report: loss in percent, end-to-end round trip
/// and jitter in milliseconds. Kept apart so that both can be shown for one stream. Its quadratic has its minimum
/// near 16 % loss and rises again beyond: read it as comparison below that, not as a verdict above.
#[must_use]
pub fn mos_like_rtpengine(loss_percent: f64, round_trip_ms: f64, jitter_ms: f64) -> f64 {
    let delay = round_trip_ms / 2.0 + jitter_ms;
    let delay_impairment = 0.024 * delay + if delay > 177.3 { 0.11 * (delay - 177.3) } else { 0.0 };
    let r = if loss_percent > 93.0 { 0.0 } else { 93.2 - loss_percent };
    let rating = 0.18 * r * r - 27.9 * r + 1126.62 - delay_impairment;
    if rating < 0.0 {
        1.0
    } else if rating > 100.0 {
        4.5
    } else {
        (1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLEAN: Conditions = Conditions { loss_ratio: 0.0, burst_ratio: 1.0, delay_ms: 0.0 };

    #[test]
    fn loss_lowers_the_score_as_the_formula_says() {
        // R and MOS computed apart from this code, from the formulas of G.107 with its default values.
        for (codec, loss_percent, r, score) in [
            (Codec::G711, 0.0, 93.206, 4.4094),
            (Codec::G711, 1.0, 89.566, 4.3282),
            (Codec::G711, 3.0, 83.064, 4.1344),
            (Codec::G711, 5.0, 77.425, 3.9231),
            (Codec::G711, 8.0, 70.245, 3.6085),
            (Codec::G711, 20.0, 51.078, 2.6316),
            (Codec::G729, 0.0, 82.206, 4.1046),
            (Codec::G729, 2.0, 74.206, 3.7876),
            (Codec::G729, 8.0, 57.317, 2.9602),
        ] {
            let got = r_factor(codec, Conditions { loss_ratio: loss_percent / 100.0, ..CLEAN });
            assert!((got - r).abs() < 0.01, "{loss_percent} %: R {got}, not {r}");
            assert!((mos(got) - score).abs() < 0.001, "{loss_percent} %: MOS {}, not {score}", mos(got));
        }
    }

    #[test]
    fn delay_lowers_conversational_quality() {
        for (delay_ms, r) in [
            (0.0, 93.206),
            (50.0, 91.756),
            (100.0, 90.664),
            (150.0, 89.539),
            (200.0, 85.805),
            (300.0, 72.666),
            (400.0, 62.247),
        ] {
            let got = r_factor(Codec::G711, Conditions { delay_ms, ..CLEAN });
            assert!((got - r).abs() < 0.01, "{delay_ms} ms: R {got}, not {r}");
        }
    }

    #[test]
    fn bursts_hurt_more_than_scattered_loss() {
        let scattered = r_factor(Codec::G711, Conditions { loss_ratio: 0.05, ..CLEAN });
        let bursty = r_factor(Codec::G711, Conditions { loss_ratio: 0.05, burst_ratio: 3.0, ..CLEAN });
        assert!(bursty < scattered - 1.0, "{bursty} against {scattered}");
    }

    #[test]
    fn the_rtpengine_formula_gives_its_values() {
        // By hand: loss 0, no delay: r = 93.2, R = 0.18*8686.24 - 27.9*93.2 + 1126.62 = 89.8632, MOS 4.335.
        for (loss, round_trip, jitter, score) in [
            (0.0, 0.0, 0.0, 4.3356),
            (8.0, 0.0, 0.0, 2.8998),
            (0.0, 600.0, 0.0, 3.5577),
            (1.0, 100.0, 10.0, 4.1305),
        ] {
            let got = mos_like_rtpengine(loss, round_trip, jitter);
            assert!((got - score).abs() < 0.001, "{loss} % {round_trip} ms: {got}, not {score}");
        }
    }

    proptest! {
        #[test]
        fn scores_stay_on_the_scale(loss in -1.0..2.0f64, burst in 0.0..50.0f64, delay in -10.0..5_000.0f64) {
            let conditions = Conditions { loss_ratio: loss, burst_ratio: burst, delay_ms: delay };
            let score = mos(r_factor(Codec::G729, conditions));
            prop_assert!((1.0..=4.5).contains(&score), "{score}");
        }
    }
}
