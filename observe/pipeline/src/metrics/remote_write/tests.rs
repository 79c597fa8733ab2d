use std::sync::Arc;

use belfry_signal::{Exemplar, MetricMetadata, NativeHistogram, PointValue, SeriesLabels, SeriesPoints};
use belfry_wire::messages::{v1, v2};
use prost::Message as _;
use prost::bytes::Bytes;

use super::encoding::{bytes, encode_v1, encode_v2};
use super::*;

const LIMITS: Limits = Limits {
    bytes_max: 1 << 20,
    series_max: 100,
    memory_bytes_max: 16 << 20,
    labels: LabelLimits { labels_max: 10, name_bytes_max: 50, value_bytes_max: 50 },
    exemplar_bytes_max: 100,
    help_bytes_max: 40,
};

fn labels(pairs: &[(&str, &str)]) -> SeriesLabels {
    pairs.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value))).collect()
}

fn batch() -> SeriesBatch {
    let histogram = NativeHistogram {
        schema: 3,
        count: 6.0,
        sum: 1.5,
        positive: vec![(-1, 2.0), (4, 4.0)],
        ..NativeHistogram::default()
    };
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let metadata = |name: &str, kind: &str, unit: &str| MetricMetadata {
        name: name.to_owned(),
        kind: kind.to_owned(),
        help: format!("help of {name}"),
        unit: unit.to_owned(),
    };
    SeriesBatch {
        series: vec![
            SeriesPoints {
                labels: labels(&[("__name__", "calls_total"), ("region", "eu")]),
                created_ms: Some(900),
                points: vec![(1000, PointValue::Float(1.0)), (2000, PointValue::Float(-0.5))],
                exemplars: vec![Exemplar {
                    labels: vec![("trace_id".to_owned(), "abc".to_owned())],
                    unix_millis: 1500,
                    value: 1.0,
                }],
            },
            SeriesPoints {
                labels: labels(&[("__name__", "delay_seconds")]),
                created_ms: None,
                points: vec![(1000, PointValue::Histogram(Box::new(histogram)))],
                exemplars: Vec::new(),
            },
            SeriesPoints {
                labels: labels(&[("__name__", "gone")]),
                created_ms: None,
                points: vec![(1000, PointValue::Float(stale))],
                exemplars: Vec::new(),
            },
        ],
        metadata: vec![
            metadata("calls_total", "counter", ""),
            metadata("delay_seconds", "histogram", "seconds"),
        ],
    }
}

/// Bits and all, as a stale marker is not equal to itself.
fn text(batch: &SeriesBatch) -> String {
    let mut text = format!("{batch:?}");
    for series in &batch.series {
        for (_, value) in &series.points {
            if let PointValue::Float(value) = value {
                text.push_str(&format!(" {:x}", value.to_bits()));
            }
        }
    }
    text
}

#[test]
fn both_versions_carry_everything() {
    for protocol in [Protocol::V1, Protocol::V2] {
        let mut expected = batch();
        if protocol == Protocol::V1 {
            // It has no place for these.
            expected.series[0].created_ms = None;
        }
        let decoded = decode(protocol, &encode(protocol, &batch()), &LIMITS).expect("a good request");
        assert_eq!(text(&decoded.batch), text(&expected), "{protocol:?}");
        assert_eq!((decoded.refused, decoded.first_fault), (Written::default(), None));
    }
}

#[test]
fn the_content_type_names_the_version() {
    let cases = [
        ("application/x-protobuf", Some(Protocol::V1)),
        ("application/x-protobuf;proto=prometheus.WriteRequest", Some(Protocol::V1)),
        ("Application/X-Protobuf; Proto=\"io.prometheus.write.v2.Request\"", Some(Protocol::V2)),
        ("application/x-protobuf;proto=io.prometheus.write.v3.Request", None),
        ("application/json", None),
        ("", None),
    ];
    for (content_type, expected) in cases {
        assert_eq!(Protocol::of_content_type(content_type), expected, "{content_type:?}");
    }
}

#[test]
fn one_wrong_series_costs_only_itself() {
    let mut request = encode_v1(&batch());
    request.timeseries[0].labels[1].name = Bytes::from_static(b"\xff");
    request.timeseries[2].labels.clear();
    let compressed = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).expect("short");
    let decoded = decode(Protocol::V1, &compressed, &LIMITS).expect("readable");
    assert_eq!(decoded.batch.series.len(), 1);
    assert_eq!(decoded.refused.refused, [("labels", 3)]);
    assert_eq!(decoded.first_fault.as_deref(), Some("a label that is not UTF-8"));

    let mut request = encode_v2(&batch());
    request.timeseries[0].labels_refs.push(1);
    request.timeseries[1].labels_refs[0] = 9999;
    let compressed = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).expect("short");
    let decoded = decode(Protocol::V2, &compressed, &LIMITS).expect("readable");
    assert_eq!((decoded.batch.series.len(), decoded.refused.refused), (1, vec![("labels", 3)]));
}

#[test]
fn a_request_that_cannot_be_read_says_why() {
    let good = encode(Protocol::V2, &batch());
    let reason =
        |protocol, bytes: &[u8], limits: &Limits| decode(protocol, bytes, limits).map_err(|f| f.to_string());
    let starts = |answer: Result<Decoded, String>, text: &str| {
        assert!(answer.as_ref().is_err_and(|error| error.starts_with(text)), "{answer:?}");
    };
    starts(reason(Protocol::V2, b"\xff\xff\xff\xff\xff\xff", &LIMITS), "the body is not in snappy");
    starts(reason(Protocol::V2, &good, &Limits { bytes_max: 10, ..LIMITS }), "the body is ");
    starts(reason(Protocol::V2, &good, &Limits { series_max: 2, ..LIMITS }), "3 series are more");
    let no_message = snap::raw::Encoder::new().compress_vec(b"not protobuf").expect("short");
    starts(reason(Protocol::V1, &no_message, &LIMITS), "the body is not the protobuf");
    // One version read as the other is no points, not wrong ones.
    let other = decode(Protocol::V1, &good, &LIMITS).map(|decoded| decoded.batch.points());
    assert!(other.is_err() || other == Ok(0));
    let no_symbols = v2::Request { symbols: vec![bytes("a")], timeseries: vec![v2::TimeSeries::default()] };
    let compressed = snap::raw::Encoder::new().compress_vec(&no_symbols.encode_to_vec()).expect("short");
    starts(reason(Protocol::V2, &compressed, &LIMITS), "the first symbol");
}

fn packed(message: &impl prost::Message) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(&message.encode_to_vec()).expect("short")
}

#[test]
fn labels_that_came_before_are_the_same_again() {
    let known = KnownLabels::new(1 << 20);
    let request = encode(Protocol::V1, &batch());
    let read = || decode_known(Protocol::V1, &request, &LIMITS, &known).expect("a good request").batch;
    let (first, second) = (read(), read());
    assert_eq!(text(&first), text(&second));
    for (first, second) in first.series.iter().zip(&second.series) {
        assert!(Arc::ptr_eq(&first.labels, &second.labels));
    }
    // Labels that go on after the samples are labels all the same.
    let mut series = encode_v1(&batch()).timeseries.remove(0);
    let later = v1::TimeSeries { labels: vec![series.labels.remove(1)], ..v1::TimeSeries::default() };
    let mut bytes = series.encode_to_vec();
    bytes.extend(later.encode_to_vec());
    let mut request = vec![0x0a];
    prost::encoding::encode_varint(bytes.len() as u64, &mut request);
    request.extend(bytes);
    let request = snap::raw::Encoder::new().compress_vec(&request).expect("short");
    for _ in 0..2 {
        let read = decode_known(Protocol::V1, &request, &LIMITS, &known).expect("a good request");
        assert_eq!(read.batch.series[0].labels, batch().series[0].labels);
    }
}

/// Two bytes of a message can stand for a hundred in memory, and one long symbol for many copies.
#[test]
fn what_a_request_becomes_is_bounded_before_it_is_built() {
    let refused = |protocol, message: &[u8], limits: &Limits, text: &str| {
        let message = snap::raw::Encoder::new().compress_vec(message).expect("short");
        let answer = decode(protocol, &message, limits).map_err(|fault| fault.to_string());
        assert!(answer.as_ref().is_err_and(|error| error.contains(text)), "{answer:?}");
    };
    refused(Protocol::V1, &b"\x0a\x00".repeat(101), &LIMITS, "101 series are more than the 100");
    refused(Protocol::V1, &b"\x1a\x00".repeat(101), &LIMITS, "101 series are more than the 100");
    refused(Protocol::V2, &b"\x2a\x00".repeat(101), &LIMITS, "101 series are more than the 100");
    let small = Limits { memory_bytes_max: 10_000, ..LIMITS };
    let series = |inner: &[u8]| {
        let mut message = vec![0x0a];
        prost::encoding::encode_varint(inner.len() as u64, &mut message);
        [message, inner.to_vec()].concat()
    };
    refused(Protocol::V1, &series(&b"\x12\x00".repeat(1000)), &small, "more than the 10000 bytes");
    refused(Protocol::V1, &series(&b"\x0a\x00".repeat(1000)), &small, "more than the 10000 bytes");
    let named = [&b"\x0a\x0d\x0a\x08__name__\x12\x01m"[..], &b"\x22\x00".repeat(1000)].concat();
    refused(Protocol::V1, &series(&named), &small, "more than the 10000 bytes");
    refused(Protocol::V2, &b"\x22\x00".repeat(1000), &small, "more than the 10000 bytes");
}

/// What is put by until the labels are known counts too, also when the series is then refused.
#[test]
fn memory_is_charged_before_it_is_taken() {
    let field = |number: u8, inner: &[u8]| {
        let mut message = vec![number << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut message);
        [message, inner.to_vec()].concat()
    };
    let read = |protocol, message: &[u8], memory_bytes_max| {
        let message = snap::raw::Encoder::new().compress_vec(message).expect("short");
        decode(protocol, &message, &Limits { memory_bytes_max, ..LIMITS })
    };
    let memory = Err(Fault::Memory { allowed: 10_000 });
    let no_text = b"\x0a\x03\x0a\x01\xff";
    let sample = b"\x12\x00";
    for put_by in [&b"\x1a\x00"[..], b"\x22\x00", b"\x0a\x00"] {
        let series = [&no_text[..], sample, &put_by.repeat(1000)].concat();
        assert_eq!(read(Protocol::V1, &field(1, &series), 10_000), memory, "{put_by:?}");
    }
    let few = [&no_text[..], sample, &b"\x22\x00".repeat(9)].concat();
    assert_eq!(
        read(Protocol::V1, &field(1, &few), 10_000).expect("readable").refused.refused,
        [("labels", 10)]
    );
    for put_by in [b"\x1a\x00", b"\x22\x00"] {
        let message =
            [field(4, b""), field(5, &[&b"\x0a\x01\x09"[..], &put_by.repeat(1000)].concat())].concat();
        assert_eq!(read(Protocol::V2, &message, 10_000), memory, "{put_by:?}");
    }
    // Many references, and very many labels of an exemplar, cost the series and the exemplar alone.
    let symbols: Vec<u8> = ["", "__name__", "m"].iter().flat_map(|text| field(4, text.as_bytes())).collect();
    let references = field(1, &b"\x01\x02".repeat(2000));
    let message = [&symbols[..], &field(5, &references)].concat();
    let decoded = read(Protocol::V2, &message, 10_000).expect("readable");
    assert_eq!(decoded.refused.refused, [("label_limit", 1)]);
    assert_eq!(decoded.first_fault.as_deref(), Some("labels of \"m\": 2000 are more than the 10 allowed"));
    let named = [&field(1, b"\x0a\x08__name__\x12\x01m")[..], &field(3, &b"\x0a\x00".repeat(2000))].concat();
    let of_v1 = read(Protocol::V1, &field(1, &named), 10_000);
    let exemplar = field(4, &field(1, &b"\0\0".repeat(2000)));
    let message = [&symbols[..], &field(5, &[&field(1, b"\x01\x02")[..], &exemplar].concat())].concat();
    for decoded in [of_v1, read(Protocol::V2, &message, 10_000)] {
        let decoded = decoded.expect("readable");
        assert_eq!((decoded.batch.series.len(), decoded.refused.refused), (1, vec![("label_limit", 1)]));
        let fault = decoded.first_fault.expect("one");
        assert_eq!(fault, "2000 labels of an exemplar are more than the 64 allowed");
    }
}

/// Each text of a label is held once, but beside its bytes it takes a place.
#[test]
fn texts_of_labels_are_charged_once() {
    let request = |is_same: bool| {
        let label = |name: String| v1::Label { name: name.into(), value: bytes("v") };
        let series = (0..50).map(|number| v1::TimeSeries {
            labels: (0..8)
                .map(|at| label(format!("a{}", if is_same { at } else { number * 8 + at })))
                .collect(),
            ..v1::TimeSeries::default()
        });
        packed(&v1::WriteRequest { timeseries: series.collect(), ..v1::WriteRequest::default() })
    };
    let limits = Limits { memory_bytes_max: 40_000, ..LIMITS };
    assert!(decode(Protocol::V1, &request(true), &limits).is_ok());
    assert_eq!(decode(Protocol::V1, &request(false), &limits), Err(Fault::Memory { allowed: 40_000 }));
}

#[test]
fn exemplars_and_help_have_bounds_of_their_own() {
    let long = "x".repeat(200);
    let mut held = batch();
    held.series[0].exemplars[0].labels[0].1.clone_from(&long);
    held.metadata[0].help.clone_from(&long);
    for protocol in [Protocol::V1, Protocol::V2] {
        let decoded = decode(protocol, &encode(protocol, &held), &LIMITS).expect("readable");
        assert_eq!(decoded.batch.points(), batch().points(), "the samples are taken");
        assert_eq!(decoded.batch.series[0].exemplars, []);
        assert_eq!(decoded.refused.refused, [("label_limit", 1)]);
        let fault = decoded.first_fault.expect("one");
        assert_eq!(fault, "208 bytes of an exemplar's labels are more than the 100 allowed");
        assert_eq!(decoded.batch.metadata[0].help, format!("{}…", "x".repeat(37)));
    }
    // A long symbol that many series name as their help is there once.
    let mut request = encode_v2(&held);
    let one = request.timeseries[0].clone();
    request.timeseries = vec![one; 90];
    let limits = Limits { memory_bytes_max: 60_000, help_bytes_max: 1000, ..LIMITS };
    let decoded = decode(Protocol::V2, &packed(&request), &limits).expect("readable");
    assert_eq!(decoded.batch.metadata.len(), 1);
}
