//! A tone in G.711 mu-law, and an ear that knows it again.
//!
//! The frequencies divide the 160 samples of a 20 ms packet, so one payload repeated is a clean tone.

use std::f64::consts::TAU;

/// Samples of a 20 ms packet at 8 kHz.
pub(crate) const SAMPLES: usize = 160;
const SAMPLE_RATE: f64 = 8_000.0;
const AMPLITUDE: f64 = 8_000.0;
/// The share of a packet's energy that the tone must have.
const SHARE_MIN: f64 = 0.5;

/// A tone of one frequency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tone {
    hertz: f64,
}

impl Tone {
    /// What a caller sends.
    pub(crate) const CALLER: Self = Self { hertz: 400.0 };
    /// What a callee sends.
    pub(crate) const CALLEE: Self = Self { hertz: 650.0 };

    /// One packet's payload.
    #[expect(clippy::cast_possible_truncation, reason = "the amplitude is far below 32,767")]
    pub(crate) fn payload(self) -> [u8; SAMPLES] {
        let mut sample = 0.0;
        std::array::from_fn(|_| {
            let value = AMPLITUDE * (TAU * self.hertz * sample / SAMPLE_RATE).sin();
            sample += 1.0;
            encode(value as i16)
        })
    }

    /// Whether this payload is mostly this tone (Goertzel's algorithm).
    pub(crate) fn is_heard_in(self, payload: &[u8]) -> bool {
        if payload.is_empty() {
            return false;
        }
        let coefficient = 2.0 * (TAU * self.hertz / SAMPLE_RATE).cos();
        let (mut before, mut last, mut energy, mut count) = (0.0, 0.0, 0.0, 0.0);
        for &byte in payload {
            let sample = f64::from(decode(byte));
            energy += sample * sample;
            count += 1.0;
            (before, last) = (last, sample + coefficient * last - before);
        }
        let power = last * last + before * before - coefficient * last * before;
        energy > 0.0 && 2.0 * power / (count * energy) > SHARE_MIN
    }
}

/// ITU-T G.711 mu-law of a 16-bit sample.
fn encode(sample: i16) -> u8 {
    const BIAS: i32 = 0x84;
    const CLIP: i32 = 32_635;
    let sign: u8 = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(CLIP) + BIAS;
    let exponent = (0..8u8).rev().find(|exponent| magnitude >> (exponent + 7) & 1 == 1).unwrap_or(0);
    let mantissa = u8::try_from(magnitude >> (exponent + 3) & 0x0f).unwrap_or(0);
    !(sign | exponent << 4 | mantissa)
}

/// The 16-bit sample of a mu-law byte.
fn decode(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = ((i16::from(byte & 0x0f) << 3) + 0x84) << (byte >> 4 & 0x07);
    if byte & 0x80 == 0 { magnitude - 0x84 } else { 0x84 - magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_known_and_another_is_not() {
        let (caller, callee) = (Tone::CALLER.payload(), Tone::CALLEE.payload());
        assert!(Tone::CALLER.is_heard_in(&caller) && Tone::CALLEE.is_heard_in(&callee));
        assert!(!Tone::CALLER.is_heard_in(&callee) && !Tone::CALLEE.is_heard_in(&caller));
        assert!(!Tone::CALLER.is_heard_in(&[0xff; SAMPLES]), "silence");
        assert!(!Tone::CALLER.is_heard_in(&[]));
    }

    #[test]
    fn mu_law_keeps_samples_within_its_steps() {
        for sample in [-32_000, -8_000, -100, -1, 0, 1, 100, 1_000, 8_000, 32_000] {
            let error = (i32::from(decode(encode(sample))) - i32::from(sample)).abs();
            assert!(error <= i32::from(sample).abs() / 16 + 8, "{sample}: {error}");
        }
        assert_eq!(encode(0), 0xff);
    }
}
