//! The live buffer and the index must give the same answers: generated records, generated searches.

use std::sync::Arc;

use proptest::prelude::*;

use belfry_signal::record::{Body, Record, SpanStatus};
use belfry_signal::{Pii, Value};

use super::{ended, log, quality, sip, span};
use crate::Config;
use crate::catalogue::SplitRow;
use crate::facts::{Facts, Stream};
use crate::query::evaluate::{matches, matches_record};
use crate::query::parse;
use crate::schema::Fields;
use crate::split::{OpenSplits, Split, TimeRange};

const VOCABULARY: &[&str] = &[
    "invite",
    "Busy",
    "hand",
    "handshake failed",
    "edge-gateway",
    "a b a",
    "sip:bob@example.com",
    "ÜBER",
    "7",
    // Identifiers, which are indexed by a hash and their first letters.
    "branch=z9hG4bK0123abc4",
    "4930012345678901",
    "aß0123456789abc",
];

fn any_record() -> impl Strategy<Value = Record> {
    let word = || proptest::sample::select(VOCABULARY);
    let attributes = proptest::collection::vec(
        (
            proptest::sample::select(&["sip.method", "reason", "rtc.mos", "odd name"][..]),
            prop_oneof![
                word().prop_map(Value::from),
                (-3i64..5).prop_map(Value::from),
                proptest::sample::select(&[-0.0, 0.0, 2.5, 3.5, f64::NAN][..]).prop_map(Value::from),
                any::<bool>().prop_map(Value::from),
            ],
        ),
        0..4,
    );
    let severity = proptest::sample::select(&crate::query::SEVERITIES[..]);
    let made_log = (0..20u64, word(), attributes, severity, 0..4u8).prop_map(
        |(second, message, attributes, severity, call)| {
            let mut record = log(second, message);
            if let Body::Log(log) = &mut record.body {
                log.severity = severity;
                log.attributes = attributes.into_iter().map(|(name, value)| (name.into(), value)).collect();
                log.call_id = (call > 1).then(|| Pii::new(format!("call-{call}@host")));
            }
            record
        },
    );
    prop_oneof![
        3 => made_log,
        1 => (0..20u64, 0..4u8, proptest::sample::select(&["INVITE", "180", "BYE"][..]))
            .prop_map(|(second, call, summary)| sip(second, call, summary)),
        1 => (0..20u64, 0..4u8).prop_map(|(second, call)| span(second, call, SpanStatus::Ok)),
        1 => (0..20u64, 0..4u8, proptest::sample::select(&[1.0, 2.5, 4.0][..]))
            .prop_map(|(second, call, mos)| quality(second, call, mos)),
        1 => (0..20u64, 0..4u8).prop_map(|(second, call)| ended(second, call, "busy", Some(2.5))),
    ]
}

fn any_query() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(
        &[
            "invite",
            "busy",
            "hand*",
            "handshake",
            "~\"hand.*fail\"",
            "sip.method:~\"^a b\"",
            "rtc.mos:0..3",
            "\"handshake failed\"",
            "\"a b\"",
            "\"a a\"",
            "b*",
            "edge-gat*",
            "über",
            "kind:sip",
            "kind:log",
            "kind:c*",
            "severity:error",
            "severity:<warn",
            "component:edge*",
            "component:media_relay",
            "node:core-1",
            "region:eu*",
            "call_id:call-2@host",
            "call-3@host",
            "trace_id:03030303030303030303030303030303",
            "sip.method:invite",
            "sip.method:inv*",
            "reason:x",
            "attributes.reason:busy",
            "attributes.reason:\"a b a\"",
            "attributes.reason:7",
            "rtc.mos:<2.5",
            "rtc.mos:<=2.5",
            "rtc.mos:>0",
            "rtc.mos:>=0",
            "rtc.mos:>=-1.5",
            "attributes.odd_name:tr*",
            "true",
            "sip.response.status_code:180",
            "sip.response.status_code:>199.5",
            "sip:bob@example.com",
            "z9hg4bk0123abc4",
            "z9hg4bk0123abc5",
            "branch=z9hg4bk0123abc4",
            "z9hg4bk01*",
            "z9h*",
            "493*",
            "4930012345678901",
            "aß0*",
            "attributes.reason:z9hg*",
            "attributes.reason:z9hg4bk0123abc4",
            "attributes.reason:aß01234*",
            "rtc.mos:2.5",
            "rtc.mos:2*",
            "rtc.mos:nan",
            "rtc.mos:n*",
        ][..],
    )
    .prop_map(|text| if text == "reason:x" { "attributes.reason:true".to_owned() } else { text.to_owned() });
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.clone().prop_map(|a| format!("NOT {a}")),
            inner.prop_map(|a| format!("-{a}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The heart of it: the live buffer and the index give the same answers.
    #[test]
    fn the_index_and_the_scan_agree(
        records in proptest::collection::vec(any_record(), 1..30),
        queries in proptest::collection::vec(any_query(), 12),
        names_max in prop_oneof![Just(16usize), Just(1000)],
    ) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let config = Config {
            split_attributes_max: names_max,
            record_text_bytes_max: 256,
            ..Config::for_test(directory.path().to_owned())
        };
        let fields = Fields::new();
        let entries: Vec<(u64, Arc<Record>)> =
            (0..).zip(records.iter().cloned().map(Arc::new)).collect();
        // Half of them in each of two splits, and those merged: three ways to hold the same records.
        let (left, right) = entries.split_at(entries.len() / 2);
        let build = |id: u64, part: &[(u64, Arc<Record>)]| {
            let path = directory.path().join(id.to_string());
            let records = part.iter().map(|(sequence, record)| (*sequence, record));
            let row = SplitRow::new(id, Stream::System, 0, 0);
            Arc::new(Split::build(path, row, records, &config, &fields).expect("built"))
        };
        let parts: Vec<Arc<Split>> = [left, right]
            .iter()
            .enumerate()
            .filter(|(_, part)| !part.is_empty())
            .map(|(id, part)| build(id as u64, part))
            .collect();
        let merged = Split::merge(9, directory.path().join("9"), &parts, &config, &fields).expect("merged");
        let open = OpenSplits::new(4);
        for text in &queries {
            let expr = parse(text, 2000).expect(text);
            let mut expected: Vec<u64> = entries
                .iter()
                .filter(|(_, record)| {
                    let is_met = matches(&expr, &Facts::of(record, config.record_text_bytes_max));
                    assert_eq!(is_met, matches_record(&expr, record, config.record_text_bytes_max), "{text}");
                    is_met
                })
                .map(|(sequence, _)| *sequence)
                .collect();
            expected.sort_unstable();
            for splits in [parts.iter().map(|part| &**part).collect::<Vec<_>>(), vec![&merged]] {
                let mut found = Vec::new();
                for split in splits {
                    let hits = split
                        .search(&open, &fields, &expr, &TimeRange::ALL, 1000, config.record_text_bytes_max)
                        .expect(text);
                    let times: Vec<u64> = hits.iter().map(|hit| hit.unix_nanos).collect();
                    prop_assert!(times.is_sorted_by(|a, b| a >= b), "newest first: {times:?}");
                    for hit in &hits {
                        // NaN is not itself, so records are compared as text.
                        let original = &entries[usize::try_from(hit.sequence).expect("fits")].1;
                        prop_assert_eq!(format!("{:?}", &hit.record), format!("{original:?}"));
                    }
                    found.extend(hits.iter().map(|hit| hit.sequence));
                }
                found.sort_unstable();
                prop_assert_eq!(&found, &expected, "{}", text);
            }
        }
    }
}
