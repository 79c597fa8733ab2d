//! Prometheus' XOR chunks: count as u16, then bits (`tsdb/docs/format/chunks.md`).

use crate::bits::{BitReader, BitWriter};
use crate::chunk::Point;

/// Widths of the changes of times, with their prefixes.
const TIME_BUCKETS: [(u64, u8, u8); 3] = [(0b10, 2, 14), (0b110, 3, 17), (0b1110, 4, 20)];

/// Packs at most 65535 points.
pub(super) fn encode(points: &[Point]) -> Vec<u8> {
    let mut bits = BitWriter::default();
    bits.push(points.len() as u64 & 0xffff, 16);
    let (mut last_ms, mut last_step, mut last_value) = (0_i64, 0_i64, 0_u64);
    let mut window: Option<(u8, u8)> = None;
    for (at, (time, value)) in points.iter().enumerate() {
        let value = value.to_bits();
        let step = time.wrapping_sub(last_ms);
        match at {
            0 => {
                push_varint(&mut bits, ((time << 1) ^ (time >> 63)).cast_unsigned());
                bits.push(value, 64);
            }
            1 => push_varint(&mut bits, step.cast_unsigned()),
            _ => push_change(&mut bits, step.wrapping_sub(last_step)),
        }
        if at > 0 {
            push_difference(&mut bits, value ^ last_value, &mut window);
            last_step = step;
        }
        (last_ms, last_value) = (*time, value);
    }
    bits.into_bytes()
}

fn push_varint(bits: &mut BitWriter, mut value: u64) {
    while value >= 0x80 {
        bits.push(value & 0x7f | 0x80, 8);
        value >>= 7;
    }
    bits.push(value, 8);
}

fn push_change(bits: &mut BitWriter, change: i64) {
    if change == 0 {
        return bits.push(0, 1);
    }
    for (prefix, prefix_bits, width) in TIME_BUCKETS {
        let half = 1_i64 << (width - 1);
        if (1 - half..=half).contains(&change) {
            bits.push(prefix, prefix_bits);
            return bits.push(change.cast_unsigned(), width);
        }
    }
    bits.push(0b1111, 4);
    bits.push(change.cast_unsigned(), 64);
}

/// A column of values, each as what differs from the one before.
#[derive(Clone, Debug, Default)]
pub(super) struct Differences {
    pub(super) last: u64,
    pub(super) window: Option<(u8, u8)>,
}

pub(super) fn push_difference(bits: &mut BitWriter, difference: u64, window: &mut Option<(u8, u8)>) {
    if difference == 0 {
        return bits.push(0, 1);
    }
    let leading = u8::try_from(difference.leading_zeros()).unwrap_or(0).min(31);
    let trailing = u8::try_from(difference.trailing_zeros()).unwrap_or(0);
    if let Some((held_leading, held_trailing)) = *window
        && leading >= held_leading
        && trailing >= held_trailing
    {
        bits.push(0b10, 2);
        return bits.push(difference >> held_trailing, 64 - held_leading - held_trailing);
    }
    let width = 64 - leading - trailing;
    bits.push(0b11, 2);
    bits.push(u64::from(leading), 5);
    // Six bits hold no 64: it is written as 0.
    bits.push(u64::from(width & 63), 6);
    bits.push(difference >> trailing, width);
    *window = Some((leading, trailing));
}

/// Unpacks a chunk; `None` when the bytes do not hold one.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Point>> {
    let mut bits = BitReader::new(bytes);
    let count = bits.take(16)?;
    let mut points = Vec::with_capacity(usize::try_from(count).ok()?);
    let (mut time, mut step, mut value) = (0_i64, 0_i64, 0_u64);
    let mut window = (0_u8, 0_u8);
    for at in 0..count {
        match at {
            0 => {
                let raw = take_varint(&mut bits)?;
                time = (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed();
                value = bits.take(64)?;
            }
            1 => step = take_varint(&mut bits)?.cast_signed(),
            _ => step = step.wrapping_add(take_change(&mut bits)?),
        }
        if at > 0 {
            time = time.wrapping_add(step);
            value ^= take_difference(&mut bits, &mut window)?;
        }
        points.push((time, f64::from_bits(value)));
    }
    Some(points)
}

fn take_varint(bits: &mut BitReader<'_>) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = bits.take(8)?;
        value |= (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take_change(bits: &mut BitReader<'_>) -> Option<i64> {
    if !bits.bit()? {
        return Some(0);
    }
    for (_, _, width) in TIME_BUCKETS {
        if !bits.bit()? {
            let raw = bits.take(width)?.cast_signed();
            // The largest of a width is positive here: the range leans by one.
            return Some(if raw > 1 << (width - 1) { raw - (1 << width) } else { raw });
        }
    }
    bits.take(64).map(u64::cast_signed)
}

pub(super) fn take_difference(bits: &mut BitReader<'_>, window: &mut (u8, u8)) -> Option<u64> {
    if !bits.bit()? {
        return Some(0);
    }
    if bits.bit()? {
        let leading = u8::try_from(bits.take(5)?).ok()?;
        let width = match u8::try_from(bits.take(6)?).ok()? {
            0 => 64,
            width => width,
        };
        *window = (leading, 64_u8.checked_sub(leading)?.checked_sub(width)?);
    }
    let (leading, trailing) = *window;
    Some(bits.take(64 - leading - trailing)? << trailing)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_cut_short_does_not_decode() {
        let points: Vec<Point> =
            (0..20_i32).map(|n| (i64::from(n * n) * 9_777, f64::from(n).cos())).collect();
        let bytes = encode(&points);
        assert_eq!(decode(&bytes), Some(points));
        assert!((0..bytes.len()).all(|end| decode(&bytes[..end]).is_none()));
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(
            steps in proptest::collection::vec((1_i64..2_000_000, any::<u64>()), 0..200),
            first in -1_000_000_000_000_i64..2_000_000_000_000,
        ) {
            let mut time = first;
            let points: Vec<(i64, u64)> = steps.iter().map(|(step, bits)| { time += step; (time, *bits) }).collect();
            let floats: Vec<Point> = points.iter().map(|(time, bits)| (*time, f64::from_bits(*bits))).collect();
            let back = decode(&encode(&floats)).expect("it decodes");
            let back: Vec<(i64, u64)> = back.iter().map(|(time, value)| (*time, value.to_bits())).collect();
            prop_assert_eq!(back, points);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _points = decode(&bytes);
        }
    }
}
