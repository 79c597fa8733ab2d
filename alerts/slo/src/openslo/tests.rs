//! OpenSLO files, right and wrong.

use super::*;
use crate::budget::Objective;
use crate::burn::{BurnPair, Severity};
use crate::source::{ALL, Action, Commitment, Comparison, Grouping, Method, PolicyStep, Reading, Source};

const RIGHT: &str = "
apiVersion: openslo/v1
kind: SLO
metadata:
  name: calls
spec:
  service: telephony
  indicator:
    metadata:
      name: calls-set-up
    spec:
      ratioMetric:
        counter: true
        bad:
          metricSource:
            type: Prometheus
            spec:
              query: calls_total{code=\"5xx\"}
        total:
          metricSource:
            type: Prometheus
            spec:
              query: calls_total
  budgetingMethod: Occurrences
  timeWindow:
    - duration: 30d
      isRolling: true
  objectives:
    - targetPercent: 99.95
";

fn query(text: &str) -> Result<(), String> {
    if text.contains("((") { Err("no closing parenthesis".to_owned()) } else { Ok(()) }
}

fn read(text: &str) -> OpenSlo {
    parse_openslo(text, &query).unwrap_or_else(|error| panic!("{error}"))
}

fn check(text: &str, expected: &[(usize, usize, &str)]) {
    let faults = parse_openslo(text, &query).expect_err("it has mistakes").faults;
    let found: Vec<_> = faults.iter().map(|fault| (fault.line, fault.column)).collect();
    let places: Vec<_> = expected.iter().map(|(line, column, _)| (*line, *column)).collect();
    assert_eq!(found, places, "{faults:?}");
    for (fault, (_, _, words)) in faults.iter().zip(expected) {
        assert!(fault.message.contains(words), "{fault} does not say {words:?}");
    }
}

fn pair(severity: Severity, long_seconds: u64, short_seconds: u64, factor_milli: u32) -> BurnPair {
    BurnPair { severity, long_seconds, short_seconds, factor_milli }
}

#[test]
fn an_slo_without_annotations_is_judged_by_the_house() {
    let slos = read(RIGHT).slos;
    assert_eq!(slos.len(), 1);
    let slo = &slos[0];
    assert_eq!(
        (slo.name.as_str(), slo.journey.as_str(), slo.alert.as_str()),
        ("calls", "service", "SloBudgetBurn")
    );
    assert_eq!(Some(slo.objective), Objective::from_ppm(999_500));
    assert_eq!((slo.period_seconds, slo.pairs.len()), (2_592_000, 4));
    assert_eq!(slo.commitment, Commitment::Objective);
    assert_eq!(slo.policy.iter().map(|step| step.spent_percent).collect::<Vec<_>>(), [50, 75, 100]);
    let Source::Queries(indicator) = &slo.source else { panic!("{:?}", slo.source) };
    assert_eq!(indicator.interval_seconds, 10);
    assert_eq!(
        indicator.reading,
        Reading::Counts {
            part: "calls_total{code=\"5xx\"}".into(),
            is_part_bad: true,
            total: "calls_total".into(),
            is_counter: true,
            needs_part: false,
        }
    );
}

#[test]
fn the_examples_say_what_they_mean() {
    let OpenSlo { slos, remarks } = read(include_str!("../../../rules/examples.openslo.yaml"));
    let named = |name: &str| slos.iter().find(|slo| slo.name == name).unwrap_or_else(|| panic!("{name}"));
    let own = named("calls-9999");
    assert_eq!((own.source.clone(), own.journey.as_str()), (Source::Journey, "call_setup"));
    assert_eq!(own.pairs[0], pair(Severity::Page, 3_360, 280, 14_400), "scaled to 28 days");
    let contract = named("calls-sla");
    assert_eq!((contract.commitment, contract.pairs.len()), (Commitment::Agreement, 0));
    assert!(contract.calendar.is_some() && contract.source == own.source);
    assert_eq!(
        contract.policy,
        [
            PolicyStep { spent_percent: 50, action: Action::Notice },
            PolicyStep { spent_percent: 100, action: Action::Report }
        ]
    );
    let Source::Queries(indicator) = &named("requests-in-time").source else { panic!("queries") };
    assert_eq!(
        indicator.groups,
        Grouping { label: Some("region".into()), listed: vec![], is_open: true, groups_max: 20 }
    );
    assert_eq!(
        indicator.reading.queries()[0],
        "edge_gateway_request_seconds_bucket{le=~\"0\\\\.25\"} or ignoring (le) (histogram_fraction(0, 0.25, \
         edge_gateway_request_seconds{}) * histogram_count(edge_gateway_request_seconds{}))"
    );
    let queue = named("queue-short");
    assert_eq!(queue.method, Method::Timeslices { slice_seconds: 60, target_ppm: 900_000 });
    assert_eq!(queue.pairs, [pair(Severity::Page, 3_600, 300, 14_400)]);
    assert!(queue.is_paged_when_blind && !queue.guard.is_sample);
    let Source::Queries(indicator) = &queue.source else { panic!("queries") };
    assert_eq!(
        indicator.reading,
        Reading::Threshold {
            query: "max(message_queue_length)".into(),
            comparison: Comparison::Below,
            mark: 100.0
        }
    );
    assert_eq!(remarks.len(), 1, "who is told is said elsewhere: {remarks:?}");
    assert_eq!(ALL, "all");
}

#[test]
fn several_objectives_are_several_slos() {
    let text = RIGHT.replace("    - targetPercent: 99.95", "    - target: 0.9999\n    - targetPercent: 99.5");
    let slos = read(&text).slos;
    let found: Vec<_> = slos.iter().map(|slo| (slo.name.as_str(), slo.objective.ppm())).collect();
    assert_eq!(found, [("calls-1", 999_900), ("calls-2", 995_000)]);
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let text = RIGHT
        .replace("name: calls\n", "name: Calls\n")
        .replace("openslo/v1", "openslo/v2")
        .replace("\nspec:\n  service", "\nspec:\n  servce: x\n  service");
    check(&text, &[(2, 13, "openslo/v1"), (5, 9, "a-z")]);
    check(
        &RIGHT.replace("  service", "  servce: x\n  service"),
        &[(7, 3, "not known here: there are description, service")],
    );
    check(
        &RIGHT
            .replace("Occurrences", "Sometimes")
            .replace(
                "type: Prometheus\n            spec:\n              query: calls_total\n",
                "type: Datadog\n            spec:\n              query: calls_total\n",
            )
            .replace("30d", "30 days"),
        &[(21, 19, "belfry"), (24, 20, "Occurrences or Timeslices"), (26, 17, "whole number and one of")],
    );
    check(
        &RIGHT.replace("query: calls_total{code", "query: sum((calls_total{code"),
        &[(18, 22, "not PromQL")],
    );
    check(&RIGHT.replace("99.95", "100"), &[(29, 22, "below 100")]);
}

#[test]
fn references_lead_to_what_is_there() {
    let indicator = RIGHT.find("  indicator:").expect("there");
    let budgeting = RIGHT.find("  budgetingMethod").expect("there");
    let text = format!("{}  indicatorRef: nowhere\n{}", &RIGHT[..indicator], &RIGHT[budgeting..]);
    let error = parse_openslo(&text, &query).expect_err("nothing there").to_string();
    assert!(error.contains("line 8, column 17") && error.contains("no SLI of this file is named"), "{error}");
    let with = |spec: &str| format!("{RIGHT}  alertPolicies:\n    - {spec}\n");
    let error = parse_openslo(&with("alertPolicyRef: fast"), &query).expect_err("nothing there").to_string();
    assert!(error.contains("no AlertPolicy"), "{error}");
    let text =
        format!("{RIGHT}---\napiVersion: openslo/v1\nkind: Service\nmetadata: {{name: other}}\nspec: {{}}\n");
    let error = parse_openslo(&text, &query).expect_err("another service").to_string();
    assert!(error.contains("there are other"), "{error}");
}

#[test]
fn windows_of_time_roll_or_follow_a_calendar() {
    let with = |window: &str| {
        RIGHT.replace("    - duration: 30d\n      isRolling: true", &format!("    - {window}"))
    };
    let slo = |window: &str| read(&with(window)).slos.remove(0);
    let calendar = "calendar: {startTime: \"2026-01-01 00:00:00\", timeZone: UTC}";
    assert!(slo(&format!("{{duration: 1Q, {calendar}}}")).calendar.is_some());
    assert_eq!(slo("{duration: 1M, isRolling: true}").period_seconds, 2_592_000);
    for (window, words) in [
        ("{duration: 30d}", "isRolling: true or a calendar"),
        ("{duration: 1Y, isRolling: true}", "93d"),
        ("{duration: 5m, isRolling: true}", "10m"),
        ("{duration: 1M, isRolling: true, calendar: {}}", "does not roll"),
        ("{duration: 1M, calendar: {startTime: x, timeZone: UTC}}", "is not a time"),
        ("{duration: 1M, calendar: {startTime: \"2026-01-01 00:00:00\", timeZone: Mars}}", "IANA"),
    ] {
        let error = parse_openslo(&with(window), &query).expect_err(window).to_string();
        assert!(error.contains(words), "{window}: {error}");
    }
}

#[test]
fn annotations_of_ours_are_strict_and_those_of_others_are_left_alone() {
    let with = |annotations: &str| {
        RIGHT.replace("  name: calls\n", &format!("  name: calls\n  annotations: {{{annotations}}}\n"))
    };
    let slo = |annotations: &str| read(&with(annotations)).slos.remove(0);
    assert_eq!(slo("sloth.dev/x: y, belfry/alert: CallSetupBudgetBurn").alert, "CallSetupBudgetBurn");
    assert_eq!(
        slo("belfry/windows: 'page 2h/10m x7.2, ticket 3d/6h x1'").pairs,
        [pair(Severity::Page, 7_200, 600, 7_200), pair(Severity::Ticket, 259_200, 21_600, 1_000)]
    );
    assert_eq!(slo("belfry/budget-policy: none").policy, []);
    for (annotations, words) in [
        ("belfry/windws: x", "there are belfry/journey"),
        ("belfry/windows: page 1h x14", "windows are written as"),
        ("belfry/windows: page 1h/5m x5000", "cannot burn here"),
        ("belfry/interval: 10m", "not longer than the shortest window"),
        ("belfry/budget-policy: 50=panic", "notice, change_gate, report"),
        ("belfry/group-by: region", "belfry/groups is missing"),
        ("belfry/group-by: region, belfry/groups: 'eu, +49'", "is not a name"),
        ("belfry/groups-max: '1000'", "between 1 and 100"),
        ("belfry/commitment: slq", "slo or sla"),
    ] {
        let error = parse_openslo(&with(annotations), &query).expect_err(annotations).to_string();
        assert!(error.contains(words), "{annotations}: {error}");
    }
}

#[test]
fn what_is_no_openslo_is_refused_and_nothing_panics() {
    for (text, words) in [
        ("", "there is no SLO"),
        ("[]", "a document is a mapping"),
        ("kind: SLO", "apiVersion is missing"),
        ("apiVersion: openslo/v1\nkind: Slo\nmetadata: {name: x}\nspec: {}", "one of DataSource"),
        ("a: [", "line 1"),
        ("apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: x}\nspec: {}", "budgetingMethod is missing"),
    ] {
        let error = parse_openslo(text, &query).expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    // Every line left out of the examples is read or refused, with a place inside of the file.
    let whole = include_str!("../../../rules/examples.openslo.yaml");
    let lines: Vec<&str> = whole.lines().collect();
    for left_out in 0..lines.len() {
        let text: Vec<&str> = lines
            .iter()
            .enumerate()
            .filter(|(number, _)| *number != left_out)
            .map(|(_, line)| *line)
            .collect();
        if let Err(error) = parse_openslo(&text.join("\n"), &query) {
            assert!(error.faults.iter().all(|fault| fault.line <= lines.len()), "{error}");
        }
    }
}
