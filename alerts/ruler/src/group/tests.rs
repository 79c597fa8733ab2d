use belfry_promql::MemorySeries;

use super::*;
use crate::file::parse_rules;

fn environment() -> Environment {
    Environment {
        external_labels: Labels::default(),
        external_url: String::new(),
        options: Options {
            lookback_ms: 300_000,
            samples_max: 100_000,
            subquery_step_ms: 60_000,
            experimental: false,
        },
        limits: Limits { alerts_max: 3, series_max: 3 },
    }
}

fn group(rules: &str) -> Group {
    let text = format!("groups:\n- name: g\n  rules:\n{rules}");
    Group::new(parse_rules("rules.yaml", &text).expect("right").remove(0))
}

fn up(store: &mut MemorySeries, instance: &str, at_ms: i64, value: f64) {
    store.add(&Labels::from_pairs([("__name__", "up"), ("instance", instance)]), at_ms, Value::Float(value));
}

fn evaluate(group: &mut Group, at_ms: i64, store: &MemorySeries) -> Evaluated {
    group.evaluate(at_ms, store, &environment(), &AtomicBool::new(false), &|| 0.0)
}

fn firing(group: &Group) -> Vec<(String, i64)> {
    let of = |alert: &Active| (alert.labels.get("instance").to_owned(), alert.fired_at_ms.unwrap_or(0));
    group.firing().map(|(_, alert)| of(alert)).collect()
}

const DOWN: &str = "  - alert: Down\n    expr: up == 0\n    for: 1m\n";

#[test]
fn later_rules_see_what_earlier_ones_recorded_and_series_that_end_are_marked() {
    let mut group = group(
        "  - {record: a, expr: 'up + 1'}\n  - {record: b, expr: 'sum(a) * 10'}\n  - {record: c, expr: '{__name__=~\"a|b\"} > 30'}\n",
    );
    let mut store = MemorySeries::new();
    up(&mut store, "x", 0, 1.0);
    up(&mut store, "y", 0, 1.0);
    let found = evaluate(&mut group, 0, &store);
    let names: Vec<_> = found.points.iter().map(|point| point.labels.metric_name()).collect();
    assert_eq!((names, found.failures), (vec!["a", "a", "b", "c"], 0));
    assert_eq!(found.points[3].value, Value::Float(40.0));
    store.add(
        &Labels::from_pairs([("__name__", "up"), ("instance", "y")]),
        60_000,
        Value::Float(stale_marker()),
    );
    let found = evaluate(&mut group, 60_000, &store);
    let over: Vec<_> = found
        .points
        .iter()
        .filter(|point| matches!(point.value, Value::Float(value) if belfry_promql::is_stale(value)))
        .map(|point| point.labels.to_string())
        .collect();
    assert_eq!(over, ["{__name__=\"a\", instance=\"y\"}", "{__name__=\"c\"}"]);
}

/// A store that cannot give all that it is asked for.
struct Away;

impl Series for Away {
    fn select(
        &self,
        _matchers: &[belfry_promql::Matcher],
        _from_ms: i64,
        _to_ms: i64,
    ) -> Result<Vec<belfry_promql::SeriesData>, Error> {
        Err(Error::Source("the bucket does not answer".to_owned()))
    }
}

#[test]
fn a_rule_whose_samples_are_away_fails_and_its_alerts_stay() {
    let mut group = group(DOWN);
    let mut store = MemorySeries::new();
    (0..3).for_each(|minute| up(&mut store, "x", minute * 60_000, 0.0));
    evaluate(&mut group, 0, &store);
    evaluate(&mut group, 60_000, &store);
    let before = firing(&group);
    assert_eq!(before.len(), 1);
    let found = group.evaluate(120_000, &Away, &environment(), &AtomicBool::new(false), &|| 0.0);
    assert_eq!((found.failures, found.points.len(), firing(&group)), (1, 0, before));
    let health: Vec<Health> = group.rules().map(|(_, status)| status.health).collect();
    assert!(matches!(&health[..], [Health::Failed(text)] if text.contains("does not answer")), "{health:?}");
}

#[test]
fn what_is_kept_survives_a_restart_and_time_without_a_judge_counts_for_nothing() {
    let mut before = group(DOWN);
    let mut store = MemorySeries::new();
    for minute in 0..20 {
        up(&mut store, "old", minute * 60_000, 0.0);
    }
    assert!(evaluate(&mut before, 0, &store).has_changed);
    assert!(evaluate(&mut before, 60_000, &store).has_changed);
    assert!(!evaluate(&mut before, 90_000, &store).has_changed);
    up(&mut store, "new", 90_000, 0.0);
    up(&mut store, "new", 400_000, 0.0);
    evaluate(&mut before, 100_000, &store);
    assert_eq!(firing(&before), [("old".to_owned(), 60_000)]);
    // Nobody judged for five minutes.
    let mut after = group(DOWN);
    assert_eq!(after.restore(before.kept(), 300_000), 0);
    assert_eq!(firing(&after), firing(&before));
    evaluate(&mut after, 400_000, &store);
    assert_eq!(firing(&after), [("old".to_owned(), 60_000)], "the minute is not over");
    evaluate(&mut after, 460_000, &store);
    assert_eq!(firing(&after), [("new".to_owned(), 460_000), ("old".to_owned(), 60_000)]);
    let mut other = group("  - {alert: Other, expr: up}\n");
    assert_eq!(other.restore(after.kept(), 0), 2, "alerts of rules that are gone are counted");
}

#[test]
fn a_clock_that_steps_back_holds_no_alert_up() {
    let mut group = group(DOWN);
    for (at_s, fires) in [(10_000, None), (400, None), (459, None), (460, Some(460_000))] {
        let mut store = MemorySeries::new();
        up(&mut store, "x", at_s * 1_000, 0.0);
        evaluate(&mut group, at_s * 1_000, &store);
        let since: Vec<i64> = firing(&group).into_iter().map(|(_, since)| since).collect();
        assert_eq!(since, Vec::from_iter(fires), "at {at_s} s");
    }
}

#[test]
fn what_fires_on_does_so_for_its_time_of_judged_time() {
    let rules = "  - {alert: Down, expr: up == 0, keep_firing_for: 2m}\n";
    let mut before = group(rules);
    let mut store = MemorySeries::new();
    up(&mut store, "x", 0, 0.0);
    evaluate(&mut before, 0, &store);
    let nothing = MemorySeries::new();
    evaluate(&mut before, 60_000, &nothing);
    assert_eq!(firing(&before).len(), 1);
    let mut after = group(rules);
    after.restore(before.kept(), 300_000);
    for (at_s, fires) in [(360, 1), (479, 1), (480, 0)] {
        evaluate(&mut after, at_s * 1_000, &nothing);
        assert_eq!(firing(&after).len(), fires, "at {at_s} s");
    }
}

#[test]
fn reading_a_file_again_keeps_what_stays_and_ends_what_goes() {
    let mut before = group("  - {alert: Down, expr: 'up == 0'}\n  - {record: gone, expr: up}\n");
    let mut store = MemorySeries::new();
    up(&mut store, "x", 0, 0.0);
    evaluate(&mut before, 0, &store);
    let mut after = group("  - {record: fresh, expr: up}\n  - {alert: Down, expr: 'up < 1'}\n");
    after.inherit(before);
    assert_eq!(firing(&after), [("x".to_owned(), 0)]);
    let found = evaluate(&mut after, 60_000, &store);
    let ended = found.points.iter().filter(|point| point.labels.metric_name() == "gone").count();
    assert_eq!((ended, firing(&after)), (1, vec![("x".to_owned(), 0)]));
    assert_eq!(after.ended(120_000).len(), 3, "two of the alert, one record");
}

#[test]
fn bounds_and_faults_are_the_rules_own() {
    let mut group = group(
        "  - {alert: Many, expr: 'up == 0'}\n  - {record: many, expr: up}\n  - {record: twice, expr: 'label_replace(up, \"instance\", \"\", \"\", \"\")'}\n  - {record: fine, expr: '1'}\n",
    );
    let mut store = MemorySeries::new();
    for instance in ["a", "b", "c", "d"] {
        up(&mut store, instance, 0, 0.0);
    }
    let found = evaluate(&mut group, 0, &store);
    assert_eq!((found.failures, found.points.len()), (3, 1));
    let errors: Vec<_> = group
        .rules()
        .filter_map(|(_, status)| match status.health {
            Health::Failed(error) => Some(error),
            _ => None,
        })
        .collect();
    assert!(
        errors[0].contains("limit of 3 with 4 alerts") && errors[1].contains("limit of 3 with 4 series"),
        "{errors:?}"
    );
    assert!(errors[2].contains("same labelset"), "{errors:?}");
    let cancelled = group.evaluate(1, &store, &environment(), &AtomicBool::new(true), &|| 0.0);
    assert!(cancelled.is_ended_early);
}
