//! What the fuzz targets call: readers of bytes that come from a disk, past their checksums.

use crate::sealed::{self, Kind};
use crate::{block, prometheus};

/// Reads bytes as a chunk: first its kind, its count, and how many of the bytes are times.
pub fn chunk(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return };
    let kinds = [Kind::HeadFloats, Kind::HeadHistograms, Kind::Floats, Kind::Histograms];
    let kind = kinds[usize::from(head[0]) % kinds.len()];
    let count = u32::from(u16::from_le_bytes([head[1], head[2]]));
    let (times, values) = rest.split_at(usize::from(head[3]).min(rest.len()));
    let _points = sealed::open(kind, count, times, values);
    prometheus::read_any(bytes);
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
