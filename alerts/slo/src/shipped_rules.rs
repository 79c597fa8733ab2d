//! The shipped rule files, run against their unit tests (`alerts/rules/*.test.toml`).

use std::sync::Arc;

use crate::{GAP_SECONDS_MAX, Series, Slo, Transition, parse_openslo, parse_rules, parse_seconds};
use serde::Deserialize;

const RULES: &str = include_str!("../../rules/slos.toml");
const RULES_TEST: &str = include_str!("../../rules/slos.test.toml");
const DEMO: &str = include_str!("../../rules/slos.demo.toml");
const DEMO_TEST: &str = include_str!("../../rules/slos.demo.test.toml");
const EXAMPLES: &str = include_str!("../../rules/examples.openslo.yaml");
const EXAMPLES_TEST: &str = include_str!("../../rules/examples.openslo.test.toml");

/// 2026-11-20 08:30 UTC; seconds of a test are counted from here.
const START: u64 = 1_795_163_417;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    test: Vec<RuleTest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTest {
    name: String,
    slo: String,
    events: String,
    expect: Vec<Expectation>,
    pages: Pages,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    at: String,
    state: String,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pages {
    triggers: u32,
    resolves: u32,
}

/// One second of a test; `None` was not sampled.
type Second = Option<(u64, u64)>;

/// Reads `10/0x60 _x5`: sixty seconds of ten good events, then five that nobody sampled.
fn read_events(notation: &str) -> Vec<Second> {
    let mut seconds = Vec::new();
    for stretch in notation.split_whitespace() {
        let (counts, length) = stretch.rsplit_once('x').expect("COUNTSxSECONDS");
        let counts = (counts != "_").then(|| {
            let (good, bad) = counts.split_once('/').expect("GOOD/BAD");
            (good.parse().expect("good"), bad.parse().expect("bad"))
        });
        seconds.extend(std::iter::repeat_n(counts, length.parse().expect("seconds")));
    }
    seconds
}

fn run(slos: &[Slo], test: &RuleTest) {
    let slo =
        slos.iter().find(|slo| slo.name == test.slo).unwrap_or_else(|| panic!("{}: no such slo", test.name));
    let mut series = Series::new(Arc::new(slo.clone()));
    let mut pages = Pages::default();
    let seconds = read_events(&test.events);
    let mut states = Vec::with_capacity(seconds.len());
    for (now, second) in (START..).zip(&seconds) {
        let Some((good, bad)) = second else {
            states.push("unmeasured");
            continue;
        };
        series.observe(now, *good, *bad);
        let assessment = series.evaluate(now);
        match assessment.page {
            Some(Transition::Triggered) => pages.triggers += 1,
            Some(Transition::Resolved) => pages.resolves += 1,
            None => {}
        }
        states.push(match (assessment.is_paging, assessment.is_warning) {
            (true, _) => "page",
            (false, true) => "warning",
            (false, false) => "inactive",
        });
    }
    for expectation in &test.expect {
        let at = usize::try_from(parse_seconds(&expectation.at).expect("a length of time")).expect("small");
        assert_eq!(states[at - 1], expectation.state, "{}: at {}", test.name, expectation.at);
    }
    assert_eq!(pages, test.pages, "{}", test.name);
}

fn run_all(rules: &str, tests: &str) {
    run_each(&parse_rules(rules).expect("the shipped rules are right"), tests);
}

fn run_each(slos: &[Slo], tests: &str) {
    let tests: TestFile = toml::from_str(tests).expect("the shipped tests are right");
    for test in &tests.test {
        run(slos, test);
    }
    for slo in slos {
        assert!(tests.test.iter().any(|test| test.slo == slo.name), "{} has no test", slo.name);
    }
}

#[test]
fn the_shipped_rules_do_what_their_tests_say() {
    run_all(RULES, RULES_TEST);
}

#[test]
fn the_demo_rules_do_what_their_tests_say() {
    run_all(DEMO, DEMO_TEST);
}

#[test]
fn the_examples_of_openslo_do_what_their_tests_say() {
    let examples = parse_openslo(EXAMPLES, &|_| Ok(())).expect("the examples are right");
    run_each(&examples.slos, EXAMPLES_TEST);
}

#[test]
fn the_demo_promises_what_production_promises() {
    let (production, demo) = (parse_rules(RULES).expect("right"), parse_rules(DEMO).expect("right"));
    assert_eq!(production.len(), demo.len());
    for (production, demo) in production.iter().zip(&demo) {
        assert_eq!(
            (&production.name, &production.journey, &production.alert, &production.description),
            (&demo.name, &demo.journey, &demo.alert, &demo.description)
        );
        assert_eq!(production.objective, demo.objective);
        let factors = |slo: &Slo| slo.pairs.iter().map(|pair| pair.factor_milli).collect::<Vec<_>>();
        assert_eq!(factors(production), factors(demo));
    }
}

#[test]
fn a_stretch_that_was_not_sampled_is_longer_than_a_late_sample() {
    // `_x` in the test files would mean nothing otherwise.
    assert!(read_events("_x400").len() as u64 > GAP_SECONDS_MAX);
}
