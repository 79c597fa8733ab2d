mod properties;

use std::sync::atomic::AtomicBool;

use super::*;
use crate::memory::MemorySeries;

fn options() -> Options {
    Options { lookback_ms: 300_000, samples_max: 2_000_000, subquery_step_ms: 60_000, experimental: true }
}

fn counter() -> MemorySeries {
    let mut series = MemorySeries::new();
    let labels = Labels::from_pairs([("__name__", "calls_total"), ("region", "eu")]);
    for minute in 0..60 {
        series.add(&labels, minute * 60_000, Value::Float(minute as f64 * 60.0));
    }
    series
}

fn run(text: &str, times: Times) -> Result<Answer, Error> {
    query(text, &counter(), times, &options(), &AtomicBool::new(false))
}

#[test]
fn a_rate_is_per_second_and_loses_its_name() {
    let answer = run("rate(calls_total[5m])", Times::Instant(1_800_000)).unwrap();
    let Data::Vector(samples) = answer.data else { panic!("a vector") };
    assert_eq!(samples.len(), 1);
    assert_eq!(samples[0].labels, Labels::from_pairs([("region", "eu")]));
    assert_eq!(samples[0].value, Value::Float(1.0));
}

#[test]
fn a_range_query_gives_a_point_per_step() {
    let times = Times::Range { start_ms: 600_000, end_ms: 1_200_000, step_ms: 60_000 };
    let Data::Matrix(series) = run("sum(calls_total)", times).unwrap().data else { panic!("a matrix") };
    assert_eq!(series[0].floats.len(), 11);
    assert_eq!(series[0].floats[10], (1_200_000, 1200.0));
}

#[test]
fn limits_and_cancellation_end_a_query() {
    let small = Options { samples_max: 3, ..options() };
    let cancel = AtomicBool::new(false);
    let result = query("calls_total[1h]", &counter(), Times::Instant(3_000_000), &small, &cancel);
    assert_eq!(result, Err(Error::TooManySamples { samples_max: 3 }));
    let cancel = AtomicBool::new(true);
    let result = query("calls_total", &counter(), Times::Instant(0), &options(), &cancel);
    assert_eq!(result, Err(Error::Cancelled));
}

#[test]
fn the_longest_and_deepest_queries_fit_the_stack() {
    let chain = vec!["calls_total"; 400].join(" or ");
    let nested = format!("{}calls_total{}", "abs((".repeat(45), "))".repeat(45));
    for text in [chain, nested] {
        assert!(run(&text, Times::Instant(600_000)).is_ok(), "{text}");
    }
}

#[test]
fn experimental_parts_are_behind_one_switch() {
    let stable = Options { experimental: false, ..options() };
    let at = Times::Instant(600_000);
    let never = AtomicBool::new(false);
    for text in
        ["limitk(1, calls_total)", "first_over_time(calls_total[5m])", "rate(calls_total[5m] smoothed)"]
    {
        assert!(query(text, &counter(), at, &stable, &never).is_err(), "{text}");
        assert!(query(text, &counter(), at, &options(), &never).is_ok(), "{text}");
    }
}

#[test]
fn extended_ranges_do_not_extrapolate() {
    for (text, expected) in [
        ("increase(calls_total[90s] anchored)", 120.0),
        ("increase(calls_total[90s] smoothed)", 90.0),
        ("delta(calls_total[1m] smoothed)", 60.0),
        ("calls_total smoothed", 615.0),
    ] {
        let Data::Vector(samples) = run(text, Times::Instant(615_000)).unwrap().data else {
            panic!("a vector")
        };
        assert_eq!(samples[0].value, Value::Float(expected), "{text}");
    }
}

/// Prometheus answers so; a differential test showed it.
#[test]
fn the_end_is_the_one_asked_for_and_infinities_win_over_nan() {
    let times = Times::Range { start_ms: 600_000, end_ms: 1_229_000, step_ms: 65_000 };
    let last = |text: &str| {
        let Data::Matrix(series) = run(text, times).unwrap().data else { panic!("a matrix") };
        *series[0].floats.last().unwrap()
    };
    assert_eq!(last("calls_total @ end() - 20*60"), (1_185_000, 0.0), "the last step is before the end");
    assert_eq!(last("vector(end())").1, 1229.0);
    assert_eq!(last("vector(range())").1, 629.0);
    let number = |text: &str| match run(text, Times::Instant(0)).unwrap().data {
        Data::Vector(samples) => match samples[0].value {
            Value::Float(value) => value,
            Value::Histogram(_) => panic!("a float"),
        },
        _ => panic!("a vector"),
    };
    assert_eq!(number("clamp_min(vector(Inf), NaN)"), f64::INFINITY);
    assert_eq!(number("clamp_max(vector(-Inf), NaN)"), f64::NEG_INFINITY);
    assert!(number("clamp_min(vector(1), NaN)").is_nan() && number("clamp_max(vector(Inf), NaN)").is_nan());
}

#[test]
fn a_plan_says_what_each_node_read_and_computed() {
    let mut series = MemorySeries::new();
    for (region, count) in [("eu", 3), ("us", 2)] {
        let labels = Labels::from_pairs([("__name__", "calls"), ("region", region)]);
        (0..count).for_each(|minute| series.add(&labels, minute * 60_000, Value::Float(minute as f64)));
    }
    let text = "sum(rate(calls[2m])) / (time() + 1)";
    let expr = crate::parse(text).expect("PromQL");
    let ticks = std::cell::Cell::new(0.0);
    let clock = || {
        ticks.set(ticks.get() + 1.0);
        ticks.get()
    };
    let times = Times::Range { start_ms: 0, end_ms: 120_000, step_ms: 60_000 };
    let cancel = AtomicBool::new(false);
    let (answer, plan) =
        explain((text, &expr), &series, times, &options(), &cancel, &clock).expect("an answer");
    assert_eq!(
        Ok(&answer.data),
        query(text, &series, times, &options(), &cancel).map(|plain| plain.data).as_ref()
    );
    assert_eq!((plan.kind, plan.text.as_str(), plan.evaluations), ("operator", text, 1));
    let sum = &plan.below[0];
    assert_eq!((sum.kind, sum.series, sum.values), ("aggregation", 1, 3));
    let range = &sum.below[0].below[0];
    assert_eq!((range.kind, range.text.as_str()), ("range", "calls[2m]"));
    assert_eq!((range.series, range.series_read, range.samples_read), (2, 2, 5));
    assert!(range.seconds < sum.seconds && sum.seconds < plan.seconds, "with what is below: {plan:?}");
    let read: usize = answer.samples;
    assert!(read >= 5 + 3, "{read}");
    let long = format!("sum(calls{{a=~\"{}\"}})", "x".repeat(500));
    let expr = crate::parse(&long).expect("PromQL");
    let (_, plan) = explain((&long, &expr), &series, times, &options(), &cancel, &clock).expect("an answer");
    assert_eq!(plan.text.chars().count(), 161);
}
