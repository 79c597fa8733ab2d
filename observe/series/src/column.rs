//! Columns of sealed chunks: times and values, each in whatever packs it smallest.
//!
//! A head chunk takes one sample at a time; a sealed chunk is written once and read for months, so here every codec is
//! tried and the shortest wins: one value (constant), runs, differences of whole numbers in a fixed width, XOR, and `pco`
//! (a library: bins, modes and entropy coding, for whole numbers and floats). NaN, and with it the staleness marker,
//! stands beside the column with its exact bits, so that one of them does not spoil the packing of the rest.
//!
//! ```text
//! codec u8 | [exceptions: count, then (place, bits) each] | body
//! ```

use pco::ChunkConfig;
use pco::wrapped::{FileCompressor, FileDecompressor};

use crate::bits::{BitReader, BitWriter};
use crate::chunk::{XorReader, XorWriter};

/// Values of one column at most; a reader believes no more.
pub(crate) const COLUMN_VALUES_MAX: usize = 1 << 16;

const CONSTANT: u8 = 0;
const DELTA: u8 = 1;
const XOR: u8 = 2;
const PCO_WHOLE: u8 = 3;
const PCO_FLOAT: u8 = 4;
const RUNS: u8 = 5;
const HAS_EXCEPTIONS: u8 = 0x80;

/// Shorter columns are not worth pco's header.
const PCO_VALUES_MIN: usize = 16;
/// Effort of pco, 0 to 12. Above this, ratios on metrics rise by less than a hundredth.
const PCO_LEVEL: usize = 6;
/// Whole numbers above this are not exact as doubles.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Appends a column of values.
pub(crate) fn encode_values(values: &[f64], out: &mut Vec<u8>) {
    let (filled, exceptions) = without_nan(values);
    let mark = if exceptions.is_empty() { 0 } else { HAS_EXCEPTIONS };
    let whole = as_whole(&filled);
    let mut best = encode_constant(&filled).map(|body| (CONSTANT, body));
    let mut offer = |codec: u8, body: Option<Vec<u8>>| {
        if let Some(body) = body
            && best.as_ref().is_none_or(|(_, held)| body.len() < held.len())
        {
            best = Some((codec, body));
        }
    };
    if filled.len() > 1 {
        offer(RUNS, encode_runs(&filled));
        offer(XOR, Some(encode_xor(&filled)));
        match &whole {
            Some(whole) => {
                offer(DELTA, Some(encode_delta(whole)));
                offer(PCO_WHOLE, encode_pco(whole));
            }
            None => offer(PCO_FLOAT, encode_pco(&filled)),
        }
    }
    let (codec, body) = best.unwrap_or_else(|| (XOR, encode_xor(&filled)));
    out.push(codec | mark);
    if !exceptions.is_empty() {
        push_varint(out, exceptions.len() as u64);
        let mut last = 0;
        for (place, bits) in exceptions {
            push_varint(out, place - last);
            out.extend_from_slice(&bits.to_le_bytes());
            last = place;
        }
    }
    out.extend_from_slice(&body);
}

/// Reads a column of `count` values that fills `bytes`; `None` when they do not hold it.
pub(crate) fn decode_values(bytes: &[u8], count: usize) -> Option<Vec<f64>> {
    if count > COLUMN_VALUES_MAX {
        return None;
    }
    let (&codec, mut rest) = bytes.split_first()?;
    let mut exceptions = Vec::new();
    if codec & HAS_EXCEPTIONS != 0 {
        let listed = usize::try_from(take_varint(&mut rest)?).ok().filter(|listed| *listed <= count)?;
        let mut place = 0_u64;
        for _ in 0..listed {
            place = place.checked_add(take_varint(&mut rest)?)?;
            let (bits, after) = rest.split_first_chunk::<8>()?;
            exceptions.push((usize::try_from(place).ok()?, f64::from_bits(u64::from_le_bytes(*bits))));
            rest = after;
        }
    }
    let mut values = match codec & !HAS_EXCEPTIONS {
        CONSTANT => vec![f64::from_bits(take_varint(&mut rest)?.swap_bytes()); count],
        RUNS => decode_runs(rest, count)?,
        XOR => decode_xor(rest, count)?,
        DELTA => as_floats(&decode_delta(rest, count)?),
        PCO_WHOLE => as_floats(&decode_pco::<i64>(rest, count)?),
        PCO_FLOAT => decode_pco::<f64>(rest, count)?,
        _ => return None,
    };
    for (place, value) in exceptions {
        *values.get_mut(place)? = value;
    }
    Some(values)
}

/// A column of rising times, in milliseconds.
pub(crate) fn encode_times(times: &[i64]) -> Vec<u8> {
    let delta = encode_delta(times);
    let (codec, body) = match encode_pco(times) {
        Some(packed) if packed.len() < delta.len() => (PCO_WHOLE, packed),
        _ => (DELTA, delta),
    };
    let mut out = Vec::with_capacity(body.len() + 1);
    out.push(codec);
    out.extend_from_slice(&body);
    out
}

/// Reads `count` times; `None` when the bytes do not hold them.
pub(crate) fn decode_times(bytes: &[u8], count: usize) -> Option<Vec<i64>> {
    if count > COLUMN_VALUES_MAX {
        return None;
    }
    let (&codec, rest) = bytes.split_first()?;
    match codec {
        DELTA => decode_delta(rest, count),
        PCO_WHOLE => decode_pco::<i64>(rest, count),
        _ => None,
    }
}

/// The column with every NaN replaced by what goes on from the values before it, and where which NaN was.
fn without_nan(values: &[f64]) -> (Vec<f64>, Vec<(u64, u64)>) {
    let first = values.iter().copied().find(|value| !value.is_nan()).unwrap_or(0.0);
    let (mut last, mut step) = (first, 0.0);
    let mut exceptions = Vec::new();
    let filled = (0..).zip(values).map(|(place, value)| {
        if value.is_nan() {
            exceptions.push((place, value.to_bits()));
            // A counter goes on as it went; where that is no number, nothing changes.
            if (last + step).is_finite() && step.is_finite() {
                last += step;
            }
        } else {
            step = if place == 0 { 0.0 } else { *value - last };
            last = *value;
        }
        last
    });
    let filled = filled.collect();
    (filled, exceptions)
}

#[expect(clippy::cast_possible_truncation, reason = "tested to be whole and below 2^53")]
fn as_whole(values: &[f64]) -> Option<Vec<i64>> {
    let is_whole = |value: &f64| {
        value.trunc() == *value && value.abs() < WHOLE_MAX && value.to_bits() != (-0.0_f64).to_bits()
    };
    values.iter().all(is_whole).then(|| values.iter().map(|value| *value as i64).collect())
}

#[expect(clippy::cast_precision_loss, reason = "the writer only writes whole numbers below 2^53")]
fn as_floats(values: &[i64]) -> Vec<f64> {
    values.iter().map(|value| *value as f64).collect()
}

fn encode_constant(values: &[f64]) -> Option<Vec<u8>> {
    let first = values.first()?.to_bits();
    if values.iter().any(|value| value.to_bits() != first) {
        return None;
    }
    // The usual constants end in zero bits: turned around, they are short.
    let mut body = Vec::new();
    push_varint(&mut body, first.swap_bytes());
    Some(body)
}

fn encode_runs(values: &[f64]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    for run in values.chunk_by(|a, b| a.to_bits() == b.to_bits()) {
        push_varint(&mut body, run.len() as u64);
        push_varint(&mut body, run.first()?.to_bits().swap_bytes());
        if body.len() > values.len() {
            return None;
        }
    }
    Some(body)
}

fn decode_runs(mut bytes: &[u8], count: usize) -> Option<Vec<f64>> {
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
        let value = f64::from_bits(take_varint(&mut bytes)?.swap_bytes());
        if length == 0 || length > count - values.len() {
            return None;
        }
        values.extend(std::iter::repeat_n(value, length));
    }
    Some(values)
}

fn encode_xor(values: &[f64]) -> Vec<u8> {
    let (mut bits, mut xor) = (BitWriter::default(), XorWriter::default());
    values.iter().for_each(|value| xor.push(&mut bits, *value));
    bits.into_bytes()
}

fn decode_xor(bytes: &[u8], count: usize) -> Option<Vec<f64>> {
    let (mut bits, mut xor) = (BitReader::new(bytes), XorReader::default());
    (0..count).map(|_| xor.take(&mut bits)).collect()
}

/// First value, least difference, width, and what each difference is above the least, in that width.
fn encode_delta(values: &[i64]) -> Vec<u8> {
    let mut body = Vec::new();
    let Some(first) = values.first() else { return body };
    push_varint(&mut body, zigzag(*first));
    let differences = || values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let Some(least) = differences().min() else { return body };
    let above = |difference: i64| difference.wrapping_sub(least).cast_unsigned();
    let width = differences().map(|difference| 64 - above(difference).leading_zeros()).max().unwrap_or(0);
    let width = u8::try_from(width).unwrap_or(64);
    push_varint(&mut body, zigzag(least));
    body.push(width);
    if width > 0 {
        let mut bits = BitWriter::default();
        differences().for_each(|difference| bits.push(above(difference), width));
        body.extend_from_slice(bits.bytes());
    }
    body
}

fn decode_delta(mut bytes: &[u8], count: usize) -> Option<Vec<i64>> {
    let mut values = Vec::with_capacity(count);
    if count == 0 {
        return Some(values);
    }
    let mut value = unzigzag(take_varint(&mut bytes)?);
    values.push(value);
    if count == 1 {
        return Some(values);
    }
    let least = unzigzag(take_varint(&mut bytes)?);
    let (&width, rest) = bytes.split_first()?;
    if width > 64 {
        return None;
    }
    let mut bits = BitReader::new(rest);
    for _ in 1..count {
        value = value.wrapping_add(least).wrapping_add(bits.take(width)?.cast_signed());
        values.push(value);
    }
    Some(values)
}

fn encode_pco<T: pco::data_types::Number>(values: &[T]) -> Option<Vec<u8>> {
    if values.len() < PCO_VALUES_MIN {
        return None;
    }
    let files = FileCompressor::default();
    let config = ChunkConfig::default().with_compression_level(PCO_LEVEL);
    let mut chunk = files.chunk_compressor(values, &config).ok()?;
    let body = files.write_header(Vec::new()).ok()?;
    let body = chunk.write_meta(body).ok()?;
    // One page: the chunk is the piece that is read.
    if chunk.n_per_page().len() != 1 {
        return None;
    }
    chunk.write_page(0, body).ok()
}

fn decode_pco<T: pco::data_types::Number + Default>(bytes: &[u8], count: usize) -> Option<Vec<T>> {
    let (files, rest) = FileDecompressor::new(bytes).ok()?;
    let (mut chunk, rest) = files.chunk_decompressor::<T, _>(rest).ok()?;
    let mut page = chunk.page_decompressor(rest, count).ok()?;
    let mut values = vec![T::default(); count];
    let progress = page.read(&mut values).ok()?;
    (progress.n_processed == count).then_some(values)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Appends seven bits a byte, least first.
pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Reads what [`push_varint`] wrote.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return None;
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    fn check(values: &[f64]) -> usize {
        let mut packed = Vec::new();
        encode_values(values, &mut packed);
        let back = decode_values(&packed, values.len()).expect("it decodes");
        assert_eq!(bits(&back), bits(values), "codec {}", packed[0]);
        packed.len()
    }

    #[test]
    fn each_kind_of_column_finds_its_codec() {
        let stale = f64::from_bits(belfry_promql::STALE_NAN_BITS);
        let counter: Vec<f64> = (0..480).map(|n| f64::from(n * 15)).collect();
        assert!(check(&counter) < 12);
        assert!(check(&[1.0; 480]) < 6);
        let mut ended = counter.clone();
        ended[479] = stale;
        assert!(check(&ended) < 24, "one marker does not spoil a column");
        let steps: Vec<f64> = (0..480).map(|n| f64::from(n / 100) + 0.1).collect();
        assert!(check(&steps) < 70);
        let noise: Vec<f64> = (0..480).map(|n| f64::from(n).sin()).collect();
        assert!(check(&noise) < 480 * 9);
        check(&[]);
        check(&[f64::NAN; 40]);
        check(&[-0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 1e300]);
    }

    #[test]
    fn even_times_cost_a_few_bytes() {
        let times: Vec<i64> = (0..480).map(|n| 1_700_000_000_000 + n * 15_000).collect();
        let packed = encode_times(&times);
        assert!(packed.len() < 16, "{}", packed.len());
        assert_eq!(decode_times(&packed, 480), Some(times));
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(
            any in proptest::collection::vec(any::<u64>(), 0..600),
            walk in proptest::collection::vec(-5_i64..50, 0..600),
            times in proptest::collection::vec(any::<i64>(), 0..600),
        ) {
            check(&any.iter().map(|bits| f64::from_bits(*bits)).collect::<Vec<_>>());
            let mut total = 0;
            let walked: Vec<f64> = walk.iter().map(|step| { total += step; total as f64 / 4.0 }).collect();
            check(&walked);
            prop_assert_eq!(decode_times(&encode_times(&times), times.len()), Some(times));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), count in 0_usize..700) {
            let _values = decode_values(&bytes, count);
            let _times = decode_times(&bytes, count);
        }
    }
}
