//! Chunks of the head: up to 120 samples of one series, packed as they come, in about a byte and a half each.
//!
//! Times are stored as the change of the change (zero for an even scrape), values as the XOR with the value before,
//! of which only the bits that differ are written (Pelkonen et al., "Gorilla", VLDB 2015, section 4.1).
//! The buckets for times are ours: samples here are taken in process, so they jitter by a few milliseconds, and
//! seven bits hold that. A native histogram is a row of numbers in the chunk's [`Layout`], each packed like a float.
//! Own code because the one crate for it is abandoned and works on whole series.

use std::sync::Arc;

use belfry_promql::{CounterReset, Histogram, Stretch};

use crate::bits::{BitReader, BitWriter};
use crate::layout::{Layout, hint_number, hint_of};

/// A chunk of the head is closed when it holds this many samples.
pub(crate) const SAMPLES_PER_CHUNK: u32 = 120;

/// A time in milliseconds since the Unix epoch, and a value.
pub(crate) type Point = (i64, f64);
/// A time in milliseconds since the Unix epoch, and a histogram.
pub(crate) type HistogramPoint = (i64, Arc<Histogram>);

/// The samples of a chunk, unpacked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Points {
    Floats(Vec<Point>),
    Histograms(Vec<HistogramPoint>),
    /// Of a downsampled series.
    Stretches(Vec<Stretch>),
}

/// A closed chunk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    pub(crate) count: u32,
    /// Of histograms; none for floats.
    pub(crate) layout: Option<Arc<Layout>>,
    pub(crate) bytes: Box<[u8]>,
}

/// A chunk that grows.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChunkBuilder {
    bits: BitWriter,
    count: u32,
    first_ms: i64,
    times: TimeWriter,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Floats(XorWriter),
    Histograms(Box<Rows>),
}

#[derive(Clone, Debug)]
struct Rows {
    layout: Arc<Layout>,
    columns: Vec<XorWriter>,
    last: Arc<Histogram>,
}

impl Default for Body {
    fn default() -> Self {
        Self::Floats(XorWriter::default())
    }
}

/// Packs times.
#[derive(Clone, Debug, Default)]
struct TimeWriter {
    is_begun: bool,
    last_ms: i64,
    last_step: i64,
}

/// Packs values of one column.
#[derive(Clone, Debug, Default)]
pub(crate) struct XorWriter {
    is_begun: bool,
    /// Zero bits around the last written difference: leading and trailing; 255 when none was written.
    window: Option<(u8, u8)>,
    last: u64,
}

/// Unpacks values of one column.
#[derive(Debug, Default)]
pub(crate) struct XorReader {
    is_begun: bool,
    window: (u8, u8),
    last: u64,
}

/// Widths of the time buckets: prefix, prefix bits, value bits.
const TIME_BUCKETS: [(u64, u8, u8); 3] = [(0b10, 2, 7), (0b110, 3, 14), (0b1110, 4, 22)];

impl TimeWriter {
    fn push(&mut self, bits: &mut BitWriter, unix_millis: i64) {
        if !std::mem::replace(&mut self.is_begun, true) {
            bits.push(unix_millis.cast_unsigned(), 64);
        } else {
            let step = unix_millis.wrapping_sub(self.last_ms);
            push_change(bits, step.wrapping_sub(self.last_step));
            self.last_step = step;
        }
        self.last_ms = unix_millis;
    }
}

fn push_change(bits: &mut BitWriter, change: i64) {
    if change == 0 {
        return bits.push(0, 1);
    }
    for (prefix, prefix_bits, value_bits) in TIME_BUCKETS {
        let half = 1_i64 << (value_bits - 1);
        if (-half..half).contains(&change) {
            bits.push(prefix, prefix_bits);
            return bits.push(change.cast_unsigned(), value_bits);
        }
    }
    bits.push(0b1111, 4);
    bits.push(change.cast_unsigned(), 64);
}

impl XorWriter {
    pub(crate) fn push(&mut self, bits: &mut BitWriter, value: f64) {
        let value = value.to_bits();
        if std::mem::replace(&mut self.is_begun, true) {
            self.push_difference(bits, value ^ self.last);
        } else {
            bits.push(value, 64);
        }
        self.last = value;
    }

    fn push_difference(&mut self, bits: &mut BitWriter, difference: u64) {
        if difference == 0 {
            return bits.push(0, 1);
        }
        // At most 63 zeros can lead or trail a difference that is not zero: both fit a byte. Five bits hold 31.
        let leading = u8::try_from(difference.leading_zeros()).unwrap_or(0).min(31);
        let trailing = u8::try_from(difference.trailing_zeros()).unwrap_or(0);
        match self.window {
            Some((window_leading, window_trailing))
                if leading >= window_leading && trailing >= window_trailing =>
            {
                bits.push(0b10, 2);
                bits.push(difference >> window_trailing, 64 - window_leading - window_trailing);
            }
            _ => {
                let width = 64 - leading - trailing;
                bits.push(0b11, 2);
                bits.push(u64::from(leading), 5);
                bits.push(u64::from(width - 1), 6);
                bits.push(difference >> trailing, width);
                self.window = Some((leading, trailing));
            }
        }
    }
}

impl XorReader {
    pub(crate) fn take(&mut self, bits: &mut BitReader<'_>) -> Option<f64> {
        self.last = if std::mem::replace(&mut self.is_begun, true) {
            self.last ^ self.take_difference(bits)?
        } else {
            bits.take(64)?
        };
        Some(f64::from_bits(self.last))
    }

    fn take_difference(&mut self, bits: &mut BitReader<'_>) -> Option<u64> {
        if !bits.bit()? {
            return Some(0);
        }
        if bits.bit()? {
            let leading = u8::try_from(bits.take(5)?).ok()?;
            let width = u8::try_from(bits.take(6)?).ok()? + 1;
            self.window = (leading, 64_u8.checked_sub(leading)?.checked_sub(width)?);
        }
        let (leading, trailing) = self.window;
        Some(bits.take(64 - leading - trailing)? << trailing)
    }
}

impl ChunkBuilder {
    /// A chunk for histograms like this one.
    pub(crate) fn for_histogram(histogram: &Arc<Histogram>) -> Self {
        let layout = Arc::new(Layout::of(histogram));
        let columns = vec![XorWriter::default(); layout.columns()];
        let rows = Rows { layout, columns, last: Arc::clone(histogram) };
        Self { body: Body::Histograms(Box::new(rows)), ..Self::default() }
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bits.bytes().len()
    }

    /// Whether a float, or this histogram, can be the next sample.
    pub(crate) fn takes(&self, histogram: Option<&Histogram>) -> bool {
        match (&self.body, histogram) {
            (Body::Floats(_), None) => true,
            (Body::Histograms(rows), Some(histogram)) => rows.layout.holds(histogram),
            _ => false,
        }
    }

    /// The last histogram, if it holds such.
    pub(crate) fn last_histogram(&self) -> Option<&Arc<Histogram>> {
        match &self.body {
            Body::Histograms(rows) if self.count > 0 => Some(&rows.last),
            _ => None,
        }
    }

    fn push_time(&mut self, unix_millis: i64) {
        if self.count == 0 {
            self.first_ms = unix_millis;
        }
        self.times.push(&mut self.bits, unix_millis);
        self.count += 1;
    }

    /// Appends a sample; the chunk must be one that [takes](Self::takes) it.
    pub(crate) fn push(&mut self, unix_millis: i64, value: f64) {
        self.push_time(unix_millis);
        if let Body::Floats(xor) = &mut self.body {
            xor.push(&mut self.bits, value);
        }
    }

    /// Appends a histogram; the chunk must be one that [takes](Self::takes) it.
    pub(crate) fn push_histogram(&mut self, unix_millis: i64, histogram: &Arc<Histogram>) {
        self.push_time(unix_millis);
        if let Body::Histograms(rows) = &mut self.body {
            self.bits.push(u64::from(hint_number(histogram.hint)), 2);
            for (column, value) in rows.columns.iter_mut().zip(rows.layout.row(histogram)) {
                column.push(&mut self.bits, value);
            }
            rows.last = Arc::clone(histogram);
        }
    }

    /// The chunk as it is now.
    pub(crate) fn snapshot(&self) -> Chunk {
        self.clone().close()
    }

    pub(crate) fn close(self) -> Chunk {
        Chunk {
            min_ms: self.first_ms,
            max_ms: self.times.last_ms,
            count: self.count,
            layout: match self.body {
                Body::Floats(_) => None,
                Body::Histograms(rows) => Some(rows.layout),
            },
            bytes: self.bits.into_bytes().into_boxed_slice(),
        }
    }
}

impl Chunk {
    /// Unpacks it; `None` when the bytes do not hold what they should.
    pub(crate) fn points(&self) -> Option<Points> {
        unpack(&self.bytes, self.count, self.layout.as_deref())
    }
}

/// Unpacks `count` samples; `None` when the bytes do not hold them.
pub(crate) fn unpack(bytes: &[u8], count: u32, layout: Option<&Layout>) -> Option<Points> {
    let mut bits = BitReader::new(bytes);
    // A sample takes two bits at least: no count is believed that the bytes cannot hold.
    let room = usize::try_from(count).ok().filter(|count| *count <= bytes.len().saturating_mul(4))?;
    let (mut time, mut step) = (0_i64, 0_i64);
    let mut next_time = |bits: &mut BitReader<'_>, at: usize| {
        if at == 0 {
            time = bits.take(64)?.cast_signed();
        } else {
            step = step.wrapping_add(take_change(bits)?);
            time = time.wrapping_add(step);
        }
        Some(time)
    };
    let Some(layout) = layout else {
        let mut points = Vec::with_capacity(room);
        let mut xor = XorReader::default();
        for at in 0..room {
            points.push((next_time(&mut bits, at)?, xor.take(&mut bits)?));
        }
        return Some(Points::Floats(points));
    };
    let mut points = Vec::with_capacity(room);
    let mut columns: Vec<XorReader> = (0..layout.columns()).map(|_| XorReader::default()).collect();
    for at in 0..room {
        let time = next_time(&mut bits, at)?;
        let hint: CounterReset = hint_of(bits.take(2)?);
        let row: Vec<f64> = columns.iter_mut().map(|column| column.take(&mut bits)).collect::<Option<_>>()?;
        points.push((time, Arc::new(layout.histogram(hint, &row)?)));
    }
    Some(Points::Histograms(points))
}

fn take_change(bits: &mut BitReader<'_>) -> Option<i64> {
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

    fn floats(bytes: &[u8], count: u32) -> Option<Vec<Point>> {
        match unpack(bytes, count, None)? {
            Points::Floats(points) => Some(points),
            Points::Histograms(_) | Points::Stretches(_) => None,
        }
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
        assert_eq!(floats(&chunk.bytes, chunk.count), Some(points));
        for end in 0..chunk.bytes.len() {
            assert_eq!(floats(&chunk.bytes[..end], chunk.count), None, "{end}");
        }
    }

    fn histogram(count: f64, buckets: &[(i32, f64)]) -> Arc<Histogram> {
        Arc::new(Histogram {
            schema: 3,
            count,
            sum: count * 0.7,
            positive: buckets.to_vec(),
            ..Histogram::default()
        })
    }

    #[test]
    fn histograms_share_a_layout_and_one_with_a_new_bucket_begins_a_chunk() {
        let first = histogram(3.0, &[(1, 1.0), (4, 2.0)]);
        let mut builder = ChunkBuilder::for_histogram(&first);
        assert!(builder.takes(Some(&first)) && !builder.takes(None));
        builder.push_histogram(1000, &first);
        let fewer = histogram(4.0, &[(4, 4.0)]);
        assert!(builder.takes(Some(&fewer)), "an empty bucket may be left out");
        builder.push_histogram(2000, &fewer);
        assert!(!builder.takes(Some(&histogram(5.0, &[(2, 5.0)]))));
        let chunk = builder.close();
        let Some(Points::Histograms(points)) = chunk.points() else { panic!("no histograms") };
        assert_eq!(points[0], (1000, first));
        assert_eq!(points[1].1.positive, [(1, 0.0), (4, 4.0)]);
        for end in 0..chunk.bytes.len() {
            assert_eq!(unpack(&chunk.bytes[..end], chunk.count, chunk.layout.as_deref()), None, "{end}");
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
            let back = floats(&chunk.bytes, chunk.count).expect("it decodes");
            prop_assert_eq!(as_bits(&back), as_bits(&any_points));
            let (mut time, mut value) = (1_700_000_000_000, 0.0);
            let usual: Vec<Point> = scraped.iter().map(|(step, change)| {
                time += step;
                value += f64::from(*change);
                (time, value)
            }).collect();
            let chunk = pack(&usual);
            prop_assert_eq!(floats(&chunk.bytes, chunk.count).expect("it decodes"), usual);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0_u32..130) {
            let _points = unpack(&bytes, count, None);
            let layout = Layout::of(&histogram(3.0, &[(1, 1.0), (4, 2.0)]));
            let _points = unpack(&bytes, count, Some(&layout));
        }
    }
}
