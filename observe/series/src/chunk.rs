//! Up to 120 samples of one series in about a byte and a half each.
//!
//! Times are stored as the change of the change (zero for an even scrape), values as the XOR with the value before,
//! of which only the bits that differ are written (Pelkonen et al., "Gorilla", VLDB 2015, section 4.1).
//! The buckets for times are ours: samples here are taken in process, so they jitter by a few milliseconds, and
//! seven bits hold that. Own code because the one crate for it is abandoned and works on whole series.

use crate::bits::{BitReader, BitWriter};

/// A chunk is closed when it holds this many samples.
pub(crate) const SAMPLES_PER_CHUNK: u16 = 120;

/// A time in milliseconds since the Unix epoch, and a value.
pub(crate) type Point = (i64, f64);

/// A closed chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    pub(crate) count: u16,
    pub(crate) bytes: Vec<u8>,
}

/// A chunk that grows.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChunkBuilder {
    bits: BitWriter,
    count: u16,
    first_ms: i64,
    last_ms: i64,
    last_step: i64,
    last_value: u64,
    /// Zero bits around the last written difference: (leading, trailing).
    window: Option<(u8, u8)>,
}

/// Widths of the time buckets: prefix, prefix bits, value bits.
const TIME_BUCKETS: [(u64, u8, u8); 3] = [(0b10, 2, 7), (0b110, 3, 14), (0b1110, 4, 22)];

impl ChunkBuilder {
    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// The time of the last sample; none while it is empty.
    pub(crate) fn last_ms(&self) -> Option<i64> {
        (self.count > 0).then_some(self.last_ms)
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bits.bytes().len()
    }

    /// Appends a sample that is later than the last one.
    pub(crate) fn push(&mut self, unix_millis: i64, value: f64) {
        let value = value.to_bits();
        if self.count == 0 {
            self.first_ms = unix_millis;
            self.bits.push(unix_millis.cast_unsigned(), 64);
            self.bits.push(value, 64);
        } else {
            let step = unix_millis.wrapping_sub(self.last_ms);
            self.push_time(step.wrapping_sub(self.last_step));
            self.push_value(value);
            self.last_step = step;
        }
        self.last_ms = unix_millis;
        self.last_value = value;
        self.count += 1;
    }

    fn push_time(&mut self, change: i64) {
        if change == 0 {
            return self.bits.push(0, 1);
        }
        for (prefix, prefix_bits, value_bits) in TIME_BUCKETS {
            let half = 1_i64 << (value_bits - 1);
            if (-half..half).contains(&change) {
                self.bits.push(prefix, prefix_bits);
                return self.bits.push(change.cast_unsigned(), value_bits);
            }
        }
        self.bits.push(0b1111, 4);
        self.bits.push(change.cast_unsigned(), 64);
    }

    fn push_value(&mut self, value: u64) {
        let difference = value ^ self.last_value;
        if difference == 0 {
            return self.bits.push(0, 1);
        }
        // At most 63 zeros can lead or trail a difference that is not zero: both fit a byte. Five bits hold 31.
        let leading = u8::try_from(difference.leading_zeros()).unwrap_or(0).min(31);
        let trailing = u8::try_from(difference.trailing_zeros()).unwrap_or(0);
        match self.window {
            Some((window_leading, window_trailing))
                if leading >= window_leading && trailing >= window_trailing =>
            {
                self.bits.push(0b10, 2);
                self.bits.push(difference >> window_trailing, 64 - window_leading - window_trailing);
            }
            _ => {
                let width = 64 - leading - trailing;
                self.bits.push(0b11, 2);
                self.bits.push(u64::from(leading), 5);
                self.bits.push(u64::from(width - 1), 6);
                self.bits.push(difference >> trailing, width);
                self.window = Some((leading, trailing));
            }
        }
    }

    /// The chunk as it is now.
    pub(crate) fn snapshot(&self) -> Chunk {
        self.clone().close()
    }

    pub(crate) fn close(self) -> Chunk {
        Chunk {
            min_ms: self.first_ms,
            max_ms: self.last_ms,
            count: self.count,
            bytes: self.bits.into_bytes(),
        }
    }
}

/// Unpacks `count` samples; `None` when the bytes do not hold them.
pub(crate) fn decode(bytes: &[u8], count: u16) -> Option<Vec<Point>> {
    let mut bits = BitReader::new(bytes);
    let mut points = Vec::with_capacity(usize::from(count));
    let (mut time, mut step, mut value) = (0_i64, 0_i64, 0_u64);
    let mut window = (0_u8, 0_u8);
    for index in 0..count {
        if index == 0 {
            time = bits.take(64)?.cast_signed();
            value = bits.take(64)?;
        } else {
            step = step.wrapping_add(take_time(&mut bits)?);
            time = time.wrapping_add(step);
            value ^= take_difference(&mut bits, &mut window)?;
        }
        points.push((time, f64::from_bits(value)));
    }
    Some(points)
}

fn take_time(bits: &mut BitReader<'_>) -> Option<i64> {
    if !bits.bit()? {
        return Some(0);
    }
    for (_, _, value_bits) in TIME_BUCKETS {
        if !bits.bit()? {
            let raw = bits.take(value_bits)?;
            // The value is a two's complement of `value_bits`: shifting up and down again spreads its sign.
            let unused = 64 - u32::from(value_bits);
            return Some((raw << unused).cast_signed() >> unused);
        }
    }
    bits.take(64).map(u64::cast_signed)
}

fn take_difference(bits: &mut BitReader<'_>, window: &mut (u8, u8)) -> Option<u64> {
    if !bits.bit()? {
        return Some(0);
    }
    if bits.bit()? {
        let leading = u8::try_from(bits.take(5)?).ok()?;
        let width = u8::try_from(bits.take(6)?).ok()? + 1;
        *window = (leading, 64_u8.checked_sub(leading)?.checked_sub(width)?);
    }
    let (leading, trailing) = *window;
    Some(bits.take(64 - leading - trailing)? << trailing)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(points: &[Point]) -> Chunk {
        let mut builder = ChunkBuilder::default();
        for (time, value) in points {
            builder.push(*time, *value);
        }
        builder.close()
    }

    fn as_bits(points: &[Point]) -> Vec<(i64, u64)> {
        points.iter().map(|(time, value)| (*time, value.to_bits())).collect()
    }

    #[test]
    fn an_even_counter_takes_about_two_bytes_a_sample_and_a_still_gauge_two_bits() {
        let counter: Vec<_> =
            (0..120_i32).map(|n| (1_700_000_000_000 + i64::from(n) * 5000, f64::from(n * 7))).collect();
        let still: Vec<_> = counter.iter().map(|(time, _)| (*time, 3.0)).collect();
        assert!(pack(&counter).bytes.len() < 280, "{}", pack(&counter).bytes.len());
        assert!(pack(&still).bytes.len() < 50, "{}", pack(&still).bytes.len());
    }

    #[test]
    fn what_is_cut_short_does_not_decode_and_does_not_panic() {
        let points: Vec<_> = (0..50_i32).map(|n| (i64::from(n * n) * 977, f64::from(n).sin())).collect();
        let chunk = pack(&points);
        assert_eq!(decode(&chunk.bytes, chunk.count), Some(points));
        for end in 0..chunk.bytes.len() {
            assert_eq!(decode(&chunk.bytes[..end], chunk.count), None, "{end}");
        }
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(
            points in proptest::collection::vec((any::<i64>(), any::<u64>()), 0..130),
            scraped in proptest::collection::vec((4990_i64..5010, -3_i32..4), 0..130),
        ) {
            // Any bits at all, and what a scraper sees.
            let any_points: Vec<Point> = points.iter().map(|(time, bits)| (*time, f64::from_bits(*bits))).collect();
            let chunk = pack(&any_points);
            let back = decode(&chunk.bytes, chunk.count).expect("it decodes");
            prop_assert_eq!(as_bits(&back), as_bits(&any_points));
            let (mut time, mut value) = (1_700_000_000_000, 0.0);
            let usual: Vec<Point> = scraped.iter().map(|(step, change)| {
                time += step;
                value += f64::from(*change);
                (time, value)
            }).collect();
            let chunk = pack(&usual);
            prop_assert_eq!(decode(&chunk.bytes, chunk.count).expect("it decodes"), usual);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0_u16..130) {
            let _points = decode(&bytes, count);
        }
    }
}
