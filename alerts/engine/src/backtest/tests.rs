//! A made-up day through the same code as live counts.

use belfry_promql::{Labels, MemorySeries, Value};

use super::*;

/// 2026-11-20 00:00:00 UTC.
const MIDNIGHT: u64 = 1_795_132_800;

/// Counters every ten seconds; `failing` are stretches in which every second call fails, in seconds after midnight.
fn store(hours: u64, failing: &[(u64, u64)]) -> MemorySeries {
    let mut store = MemorySeries::new();
    for (region, share) in [("eu", 1), ("us", 0)] {
        let (mut good, mut bad) = (1_000_u64, 0_u64);
        let labels = |verdict: &str| {
            Labels::from_pairs([
                ("__name__", "journey_events_total"),
                ("journey", "call_setup"),
                ("region", region),
                ("verdict", verdict),
            ])
        };
        for at in (0..=hours * 3_600).step_by(10) {
            let is_failing = failing.iter().any(|(from, to)| (*from..*to).contains(&at));
            let failed = if is_failing { 50 * share } else { 0 };
            good += 100 - failed;
            bad += failed;
            let time = i64::try_from((MIDNIGHT + at) * 1_000).expect("small");
            #[expect(clippy::cast_precision_loss, reason = "small")]
            for (verdict, count) in [("good", good as f64), ("bad", bad as f64)] {
                // A process that never failed has no series of failures.
                if count > 0.0 {
                    store.add(&labels(verdict), time, Value::Float(count));
                }
            }
        }
    }
    store
}

fn run(file: &str, store: &MemorySeries, from: u64, to: u64) -> Backtest {
    let stretch = Stretch { from: MIDNIGHT + from, to: MIDNIGHT + to };
    backtest(file, store, stretch).expect("replayed")
}

#[test]
fn a_bad_quarter_of_an_hour_is_one_page_that_ends() {
    let store = store(8, &[(4 * 3_600, 4 * 3_600 + 900)]);
    let found = run("shipped", &store, 3 * 3_600, 8 * 3_600);
    assert_eq!(found.pages.len(), 1, "{found:?}");
    let page = &found.pages[0];
    assert_eq!(
        (page.slo.as_str(), page.alert, page.places.as_slice()),
        ("call_setup", "CallSetupBudgetBurn", &["eu".to_owned()][..])
    );
    // Half of 10 calls a second fail: 519 failures are 1.44 % of an hour's 36000, 600 are surely above.
    let (from, to) = (page.from - MIDNIGHT - 4 * 3_600, page.to.expect("over") - MIDNIGHT - 4 * 3_600);
    assert_eq!(from, 110, "the 12th look at the fault");
    assert!((2_700..2_900).contains(&to), "{to}: half an hour of the second pair has to be clean");
    let eu = found.slos.iter().find(|slo| slo.place == "eu").expect("counted");
    assert_eq!((eu.good, eu.bad), (180_100 - 4_500, 4_500));
    let spent = 4_500.0 / (10.0 * 2_592_000.0 * 0.001);
    assert!((eu.budget_spent_ratio - spent).abs() < 0.001 && eu.coverage_ratio > 0.999, "{eu:?}");
    let us = found.slos.iter().find(|slo| slo.place == "us").expect("counted");
    assert_eq!((us.bad, us.warning_seconds), (0, 0));
    assert_eq!(run("shipped", &store, 3 * 3_600, 8 * 3_600), found, "the same each time");
}

#[test]
fn a_laxer_file_pages_less() {
    let directory = tempfile::tempdir().expect("a directory");
    let lax = directory.path().join("lax.toml");
    let text = "[[slo]]\nname = \"call_setup\"\njourney = \"call_setup\"\nalert = \"CallSetupBudgetBurn\"\n\
                description = \"x\"\nobjective_ppm = 950_000\nperiod = \"30d\"\nresolve_after = \"3m\"\n";
    std::fs::write(&lax, text).expect("written");
    let store = store(6, &[(4 * 3_600, 4 * 3_600 + 300)]);
    assert_eq!(run("shipped", &store, 3 * 3_600, 6 * 3_600).pages.len(), 1);
    assert_eq!(run(&lax.to_string_lossy(), &store, 3 * 3_600, 6 * 3_600).pages.len(), 0);
}

#[test]
fn a_file_of_openslo_asks_the_store_and_says_where_it_is_blind() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("calls.yaml");
    let text = "
apiVersion: openslo/v1
kind: SLO
metadata: {name: calls, annotations: {belfry/group-by: region, belfry/groups: us}}
spec:
  service: telephony
  indicator:
    metadata: {name: calls}
    spec:
      ratioMetric:
        counter: true
        bad: {metricSource: {type: prometheus, spec: {query: 'sum by (region) (journey_events_total{verdict=\"bad\"})'}}}
        total: {metricSource: {type: prometheus, spec: {query: sum by (region) (journey_events_total)}}}
  budgetingMethod: Timeslices
  objectives: [{target: 0.99, timeSliceTarget: 0.9, timeSliceWindow: 1m}]
";
    std::fs::write(&file, text).expect("written");
    let mut holed = store(2, &[(3_600, 4_200)]);
    // Nobody counted after two hours.
    let found = run(&file.to_string_lossy(), &holed, 0, 4 * 3_600);
    let places: Vec<_> = found.slos.iter().map(|slo| (slo.place.as_str(), slo.bad)).collect();
    assert_eq!(places, [("other", 3_000), ("us", 0)], "eu is not listed");
    assert!((0.48..0.53).contains(&found.slos[0].coverage_ratio), "{found:?}");
    assert_eq!(found.pages.len(), 1, "ten bad minutes of sixty are 16.7 %, above 14.4 %: {found:?}");
    holed.clear();
    let found = run(&file.to_string_lossy(), &holed, 0, 3_600);
    assert_eq!((found.pages.len(), found.slos.len()), (0, 0));
}

#[test]
fn what_cannot_be_replayed_is_said() {
    let store = MemorySeries::new();
    let run = |file: &str, from, to| backtest(file, &store, Stretch { from, to }).expect_err("wrong");
    assert!(run("shipped", 10, 10).contains("ends before it begins"));
    assert!(run("shipped", 10, 100_000_000).contains("ask about a shorter time"));
    assert!(run("/nowhere.yaml", 10, 20).contains("read rule file"));
}
