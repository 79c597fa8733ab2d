//! What the fuzz targets call: readers of bytes that come from a disk, past their checksums, and writers whose bytes must
//! read as what was written.

use crate::chunk::{ChunkBuilder, Point, Points, SAMPLES_PER_CHUNK};
use crate::sealed::{self, Kind, Sealed};
use crate::{block, column, prometheus};

/// Reads bytes as a chunk: first its kind, its count, and how many of the bytes are times. Then writes points that the
/// bytes make, in each encoding, and reads them again.
///
/// # Panics
/// When what was written does not read the same.
pub fn chunk(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return };
    let kinds = [Kind::HeadFloats, Kind::HeadHistograms, Kind::Floats, Kind::Histograms, Kind::Stretches];
    let kind = kinds[usize::from(head[0]) % kinds.len()];
    let count = u32::from(u16::from_le_bytes([head[1], head[2]]));
    let (times, values) = rest.split_at(usize::from(head[3]).min(rest.len()));
    let _points = sealed::open(kind, count, times, values);
    prometheus::read_any(bytes);
    write_and_read(&points_of(head[0], rest));
}

/// Points that the bytes make: values of any bits, or steps from the one before.
fn points_of(how: u8, bytes: &[u8]) -> Vec<Point> {
    let (mut time, mut value) = (1_700_000_000_000_i64, 0.0_f64);
    let point = |step: &[u8; 10]| {
        let (ahead, bits) = step.split_first_chunk::<2>().unwrap_or((&[0; 2], &[]));
        let bits = u64::from_le_bytes(bits.try_into().unwrap_or_default());
        let ahead = i64::from(u16::from_le_bytes(*ahead));
        time += if how & 0x40 == 0 { ahead } else { ahead << 32 };
        value = if how & 0x80 == 0 { f64::from_bits(bits) } else { value + f64::from(bits.to_le_bytes()[0]) };
        (time, value)
    };
    bytes.as_chunks::<10>().0.iter().map(point).collect()
}

fn write_and_read(points: &[Point]) {
    let bits =
        |points: &[Point]| points.iter().map(|(time, value)| (*time, value.to_bits())).collect::<Vec<_>>();
    let same = |read: Option<Points>, written: &[Point]| {
        let read =
            read.and_then(|read| if let Points::Floats(read) = read { Some(bits(&read)) } else { None });
        assert_eq!(read, Some(bits(written)));
    };
    for head in points.chunks(SAMPLES_PER_CHUNK as usize) {
        let mut builder = ChunkBuilder::default();
        head.iter().for_each(|(time, value)| builder.push(*time, *value));
        same(builder.snapshot().points(), head);
        let sealed = Sealed::of_head(&builder.close());
        same(sealed.and_then(|sealed| sealed::open(sealed.kind, sealed.count, &[], &sealed.values)), head);
    }
    let mut rest = points;
    for sealed in Sealed::of_floats(points) {
        let (stretch, after) = rest.split_at(sealed.times.len());
        let times = column::encode_times(&sealed.times);
        same(sealed::open(sealed.kind, sealed.count, &times, &sealed.values), stretch);
        rest = after;
    }
    assert!(rest.is_empty());
}

/// Reads bytes as every part of a block, and as an index of Prometheus.
pub fn block(bytes: &[u8]) {
    block::read_any(bytes);
    prometheus::read_any(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            super::chunk(&bytes);
            super::block(&bytes);
        }
    }
}
