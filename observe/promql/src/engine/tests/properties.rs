//! Random queries over awkward data: nothing panics, and a range query is the instant query at each of its times.

use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::super::*;
use super::options;
use crate::histogram::{CounterReset, Histogram, NHCB_SCHEMA};
use crate::memory::MemorySeries;
use crate::source::stale_marker;

/// Counters with resets, gauges with gaps, staleness, NaN and infinities, histograms of every kind, mixtures.
fn awkward() -> MemorySeries {
    let mut store = MemorySeries::new();
    let mut add = |name: &str, l: &str, at: i64, value: Value| {
        store.add(&Labels::from_pairs([("__name__", name), ("l", l)]), at * 10_000, value);
    };
    for at in 0..60 {
        add("c_total", "a", at, Value::Float((at % 17) as f64 * 3.0));
        add("c_total", "b", at, Value::Float(at as f64));
        if at % 5 != 2 {
            let value = match at % 11 {
                3 => f64::NAN,
                6 => f64::INFINITY,
                8 => stale_marker(),
                _ => (at * at % 13) as f64 - 6.0,
            };
            add("g", "a", at, Value::Float(value));
        }
        add("g", "b", at * 2, Value::Float(-(at as f64) / 7.0));
        let exponential = |schema: i32, scale: f64| Histogram {
            schema,
            count: 6.0 * scale,
            sum: 9.0 * scale,
            zero_threshold: 0.01,
            zero_count: scale,
            positive: vec![(-1, scale), (1, 2.0 * scale), (4, scale)],
            negative: vec![(0, scale)],
            ..Histogram::default()
        };
        let custom = |bounds: &[f64], scale: f64| Histogram {
            schema: NHCB_SCHEMA,
            count: 3.0 * scale,
            sum: 4.0 * scale,
            positive: vec![(0, scale), (1, 2.0 * scale)],
            custom_bounds: bounds.into(),
            ..Histogram::default()
        };
        let scale = (at % 20 + 1) as f64;
        add("h", "a", at, Value::Histogram(exponential(if at > 30 { 1 } else { 0 }, scale).into()));
        add(
            "h",
            "b",
            at,
            Value::Histogram(custom(if at % 9 < 5 { &[1.0, 2.0] } else { &[1.0, 5.0] }, scale).into()),
        );
        let gauge = Histogram { hint: CounterReset::Gauge, ..exponential(0, 20.0 - scale) };
        add("h", "g", at, Value::Histogram(gauge.into()));
        let mixed =
            if at % 7 < 4 { Value::Float(scale) } else { Value::Histogram(exponential(0, scale).into()) };
        add("m", "a", at, mixed);
    }
    store
}

fn vector() -> impl Strategy<Value = String> {
    let selector = prop::sample::select(vec![
        "c_total",
        "g",
        "h",
        "m",
        "{l=\"a\"}",
        "g{l=\"b\"}",
        "c_total offset 35s",
        "g @ 200",
        "nothing",
    ])
    .prop_map(str::to_owned);
    selector.prop_recursive(4, 24, 3, |inner| {
        let over_range = prop::sample::select(vec![
            "rate",
            "increase",
            "delta",
            "irate",
            "idelta",
            "sum_over_time",
            "avg_over_time",
            "min_over_time",
            "max_over_time",
            "count_over_time",
            "last_over_time",
            "first_over_time",
            "stddev_over_time",
            "changes",
            "resets",
            "deriv",
            "mad_over_time",
            "ts_of_max_over_time",
            "present_over_time",
            "absent_over_time",
        ]);
        let range =
            prop::sample::select(vec!["[25s]", "[45s]", "[95s]", "[1m] offset 20s", "[3m]", "[1m] @ 300"]);
        let source = prop::sample::select(vec!["c_total", "g", "h", "m", "{l=\"a\"}"]);
        let simple = prop::sample::select(vec![
            "abs",
            "ceil",
            "sgn",
            "sqrt",
            "histogram_count",
            "histogram_sum",
            "histogram_avg",
            "histogram_stddev",
            "timestamp",
            "absent",
            "-",
            "minute",
            "vector(scalar",
            "info",
        ]);
        let aggregation = prop::sample::select(vec![
            "sum",
            "avg",
            "min",
            "max",
            "count",
            "group",
            "stddev",
            "quantile(0.3,",
            "topk(1,",
            "limitk(1,",
            "limit_ratio(0.5,",
            "count_values(\"v\",",
        ]);
        let by = prop::sample::select(vec!["", " by (l)", " without (l)", " by (__name__)"]);
        let op = prop::sample::select(vec![
            "+",
            "-",
            "*",
            "/",
            "%",
            "^",
            "==",
            "!=",
            ">",
            "<= bool",
            "and",
            "or",
            "unless",
            "and on (l)",
            "or on (l)",
            "+ on (l)",
            "+ on (l) group_left",
            "- ignoring (l)",
            "+ fill (1)",
            "</",
            ">/",
        ]);
        prop_oneof![
            (over_range, source, range)
                .prop_map(|(function, source, range)| format!("{function}({source}{range})")),
            (inner.clone(), prop::sample::select(vec!["max_over_time", "rate", "sum_over_time", "changes"]))
                .prop_map(|(inner, function)| format!("{function}(({inner})[1m:15s])")),
            (simple, inner.clone()).prop_map(|(function, inner)| {
                let close = if function.contains('(') { "))" } else { ")" };
                format!("{function}({inner}{close}")
            }),
            (aggregation, inner.clone(), by).prop_map(|(function, inner, by)| {
                let open = if function.contains('(') { "" } else { "(" };
                format!("{function}{open}{inner}){by}")
            }),
            (inner.clone(), op.clone(), inner.clone())
                .prop_map(|(left, op, right)| format!("({left}) {op} ({right})")),
            (inner.clone(), op)
                .prop_map(|(left, op)| format!("({left}) {} 3", op.split(' ').next().unwrap_or("+"))),
            inner.clone().prop_map(|inner| format!("histogram_quantile(0.7, {inner})")),
            inner.prop_map(|inner| format!("label_replace({inner}, \"l\", \"x$1\", \"l\", \"(.).*\")")),
        ]
    })
}

/// Values by labels at one time, in a form that can be compared.
fn at_time(data: &Data, time: i64) -> Vec<String> {
    let show = |labels: &Labels, value: &Value| match value {
        Value::Float(value) if value.is_nan() => format!("{labels} NaN"),
        // The order of adding up may differ in the last digits.
        Value::Float(value) => format!("{labels} {:.6e}", value + 0.0),
        Value::Histogram(histogram) => {
            format!("{labels} {:.6e} {:.6e}", histogram.count + 0.0, histogram.sum + 0.0)
        }
    };
    let mut shown: Vec<String> = match data {
        Data::Vector(samples) => samples.iter().map(|sample| show(&sample.labels, &sample.value)).collect(),
        Data::Matrix(series) => series
            .iter()
            .filter_map(|series| {
                let float =
                    series.floats.iter().find(|(at, _)| *at == time).map(|(_, value)| Value::Float(*value));
                let histogram = series.histograms.iter().find(|(at, _)| *at == time);
                let value = float.or(histogram.map(|(_, value)| Value::Histogram(value.clone())))?;
                Some(show(&series.labels, &value))
            })
            .collect(),
        other => vec![format!("{other:?}")],
    };
    shown.sort();
    shown
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_range_query_is_an_instant_query_at_each_time(text in vector()) {
        at_each_time(&text)?;
    }
}

/// Of equal series the same one is picked whatever others a range brings along.
#[test]
fn ties_are_broken_alike_alone_and_in_a_range() {
    for pick in ["topk(1,", "bottomk(1,", "limitk(1,"] {
        at_each_time(&format!("{pick}count_values(\"v\",c_total offset 35s))")).unwrap();
    }
}

fn at_each_time(text: &str) -> Result<(), TestCaseError> {
    let store = awkward();
    let never = AtomicBool::new(false);
    let (start_ms, end_ms, step_ms) = (95_000, 620_000, 35_000);
    let ask = |times| query(text, &store, times, &options(), &never);
    let range = ask(Times::Range { start_ms, end_ms, step_ms });
    let mut has_failed = false;
    for time in (start_ms..=end_ms).step_by(35_000) {
        match (ask(Times::Instant(time)), &range) {
            (Ok(instant), Ok(range)) => {
                prop_assert_eq!(
                    at_time(&instant.data, time),
                    at_time(&range.data, time),
                    "{} at {}",
                    text,
                    time
                );
            }
            (Err(error), Ok(_)) => prop_assert!(false, "{} fails at {} only alone: {}", text, time, error),
            (Err(_), Err(_)) => has_failed = true,
            (Ok(_), Err(_)) => {}
        }
    }
    if let Err(error) = &range {
        prop_assert!(has_failed, "{} fails only over a range: {}", text, error);
    }
    Ok(())
}
