//! Answers in, events out.

use super::*;
use crate::source::Comparison;

fn counts(is_part_bad: bool, is_counter: bool) -> Reading {
    Reading::Counts { part: "p".into(), is_part_bad, total: "t".into(), is_counter, needs_part: false }
}

fn meter(reading: Reading, groups: Grouping, is_summed: bool) -> Meter {
    Meter::new(&Indicator { reading, interval_seconds: 10, groups }, [is_summed; 2])
}

/// `name=value` elements; `name` is `origin/series` with the group after a dot, as `a/x.eu`.
fn answer(text: &str) -> Vec<Element> {
    text.split_whitespace()
        .map(|word| {
            let (name, value) = word.split_once('=').expect("NAME=VALUE");
            let (origin, rest) = name.split_once('/').expect("ORIGIN/SERIES");
            let group = rest.split_once('.').map_or("", |(_, group)| group);
            Element {
                identity: name.to_owned(),
                origin: origin.to_owned(),
                group: group.to_owned(),
                value: value.parse().expect("a number"),
            }
        })
        .collect()
}

fn shown(metered: &Metered) -> String {
    let groups: Vec<String> =
        metered.groups.iter().map(|(group, (good, bad))| format!("{group}:{good}/{bad}")).collect();
    format!("{} s {}", metered.seconds, groups.join(" "))
}

/// Looks at `(second, part, total)` one after the other.
fn check(mut meter: Meter, steps: &[(u64, &str, &str, &str)]) {
    for (now, part, total, expected) in steps {
        let found = meter.sample(*now, &[answer(part), answer(total)]).expect("of use");
        assert_eq!(shown(&found).trim(), *expected, "at {now}");
    }
}

#[test]
fn counters_are_compared_with_the_look_before_and_may_begin_anew() {
    check(
        meter(counts(false, true), Grouping::default(), false),
        &[
            (100, "a/ok=90", "a/all=100", "0 s"),
            (110, "a/ok=98", "a/all=110", "10 s all:8/2"),
            (120, "a/ok=98", "a/all=110", "10 s all:0/0"),
            // The process began anew and counted five good ones since.
            (130, "a/ok=5", "a/all=5", "10 s all:5/0"),
            // A second process that nobody knew: what it counted before is not ours to judge.
            (140, "a/ok=5 b/ok=900", "a/all=6 b/all=1000", "10 s all:0/1"),
            (150, "a/ok=5 b/ok=901", "a/all=6 b/all=1001", "10 s all:1/0"),
        ],
    );
}

#[test]
fn the_first_failures_of_a_known_process_count() {
    check(
        meter(counts(true, true), Grouping::default(), false),
        &[
            (100, "", "a/all=100", "0 s"),
            // The series of failures was not there before: it began at zero.
            (110, "a/bad=7", "a/all=120", "10 s all:13/7"),
        ],
    );
}

#[test]
fn a_sum_that_shrank_and_a_source_that_is_away_are_not_measured() {
    check(
        meter(counts(true, true), Grouping::default(), true),
        &[
            (100, "a/bad=1", "a/all=3000", "0 s"),
            (110, "a/bad=1", "a/all=2010", "10 s"),
            (120, "a/bad=1", "a/all=2020", "10 s all:10/0"),
            (130, "", "", "10 s"),
            // It is back within three intervals: its counters say what happened meanwhile.
            (140, "a/bad=3", "a/all=2050", "10 s all:28/2"),
            // After a longer time they are looked at anew.
            (200, "a/bad=3", "a/all=9000", "0 s"),
            (210, "a/bad=3", "a/all=9001", "10 s all:1/0"),
        ],
    );
}

#[test]
fn numbers_of_an_interval_ratios_and_thresholds_are_events_too() {
    check(
        meter(counts(true, false), Grouping::default(), false),
        &[
            (100, "a/bad=2.4", "a/all=10", "10 s all:8/2"),
            (110, "a/bad=NaN", "a/all=10", "10 s"),
            (120, "", "a/all=10", "10 s all:10/0"),
        ],
    );
    let ratio = |is_failure| Reading::Ratio { query: "q".into(), is_failure };
    check(
        meter(ratio(true), Grouping::default(), false),
        &[(100, "a/r=0.25", "", "10 s all:750000/250000"), (110, "a/r=1.5", "", "10 s")],
    );
    check(meter(ratio(false), Grouping::default(), false), &[(100, "a/r=1", "", "10 s all:1000000/0")]);
    let threshold = Reading::Threshold { query: "q".into(), comparison: Comparison::AtMost, mark: 0.25 };
    check(
        meter(threshold, Grouping::default(), false),
        &[(100, "a/x=0.25 a/y=0.3 a/z=NaN", "", "10 s all:1/1")],
    );
}

#[test]
fn a_histogram_without_its_bucket_says_nothing() {
    let mut reading = counts(false, false);
    if let Reading::Counts { needs_part, .. } = &mut reading {
        *needs_part = true;
    }
    check(
        meter(reading, Grouping::default(), false),
        &[(100, "", "a/all=10", "10 s"), (110, "a/le=9", "a/all=10", "10 s all:9/1")],
    );
}

#[test]
fn groups_are_listed_or_come_until_there_is_no_room() {
    let listed = Grouping {
        label: Some("trunk".into()),
        listed: vec!["carrier-a".into()],
        is_open: false,
        groups_max: 1,
    };
    let total = "a/1.carrier-a=5 a/2.carrier-b=1 a/3.+4930123=1";
    let mut meter_of = meter(counts(true, false), listed, false);
    let found = meter_of.sample(100, &[answer("a/1.carrier-a=1"), answer(total)]).expect("of use");
    assert_eq!(shown(&found), "10 s carrier-a:4/1 other:2/0");
    assert_eq!(meter_of.overflowed(), 2);
    let open = Grouping { label: Some("trunk".into()), listed: vec![], is_open: true, groups_max: 2 };
    let mut meter_of = meter(counts(true, false), open, false);
    let total = "a/1.x=1 a/2.+49=2 a/3.y=3 a/4.z=4";
    let found = meter_of.sample(100, &[vec![], answer(total)]).expect("of use");
    assert_eq!(shown(&found), "10 s other:6/0 x:1/0 y:3/0", "a number is no name, and z came too late");
}

#[test]
fn answers_without_bounds_and_clocks_that_go_back_are_refused() {
    let mut meter = meter(counts(true, true), Grouping::default(), false);
    let many: Vec<Element> = (0..=ELEMENTS_MAX).flat_map(|n| answer(&format!("a/{n}=1"))).collect();
    assert_eq!(meter.sample(100, &[vec![], many]), Err(MeterError::TooMany(ELEMENTS_MAX + 1)));
    assert!(meter.sample(100, &[vec![], answer("a/all=1")]).is_ok());
    assert_eq!(meter.sample(99, &[vec![], answer("a/all=1")]), Err(MeterError::Backwards));
    let found = meter.sample(100, &[vec![], answer("a/all=5")]).expect("of use");
    assert_eq!(shown(&found).trim(), "0 s", "what the clock denied is compared with nothing");
}
