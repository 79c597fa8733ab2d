//! Samples and judgements.

use super::*;

const START: u64 = 1_795_163_417;

fn region(name: &str) -> Region {
    Region::configured(name).expect("plain")
}

fn judge() -> Judge {
    Judge::new(crate::rules::load("demo", &[]).expect("right"), vec![region("eu"), region("us")], 60)
}

fn counts(region_name: &str, good: u64, bad: u64) -> Vec<JourneyCount> {
    vec![JourneyCount { journey: Journey::CallSetup, region: region(region_name), good, bad }]
}

fn state(judge: &Judge, now: u64, region_name: &str) -> CellState {
    let cells = judge.cells(now);
    let cell =
        cells.iter().find(|cell| cell.journey == Journey::CallSetup && cell.region == region(region_name));
    cell.expect("shown").state
}

#[test]
fn a_cell_goes_from_not_deployed_through_its_states() {
    let mut judge = judge();
    assert!(judge.sample(START, &[]).is_empty());
    assert_eq!(state(&judge, START, "eu"), CellState::NotDeployed);
    let mut now = START;
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20 {
        (now, good) = (now + 1, good + 2);
        assert!(judge.sample(now, &counts("eu", good, bad)).is_empty());
    }
    assert_eq!(state(&judge, now, "eu"), CellState::Ok);
    let mut turns = Vec::new();
    for _ in 0..10 {
        (now, bad) = (now + 1, bad + 2);
        turns.extend(judge.sample(now, &counts("eu", good, bad)));
    }
    assert_eq!(state(&judge, now, "eu"), CellState::Critical);
    assert_eq!(turns, [Turn { rule: 1, region: region("eu"), transition: Transition::Triggered }]);
    for _ in 0..20 {
        (now, good) = (now + 1, good + 2);
        turns.extend(judge.sample(now, &counts("eu", good, bad)));
    }
    assert_eq!(state(&judge, now, "eu"), CellState::Warning, "the ticket windows still burn");
    assert_eq!(turns.len(), 2);
    for _ in 0..61 {
        now += 1;
        judge.sample(now, &counts("eu", good, bad));
    }
    assert_eq!(state(&judge, now, "eu"), CellState::Stale, "nobody has called for a minute");
    assert_eq!(state(&judge, now, "us"), CellState::NotDeployed);
}

#[test]
fn traffic_that_stops_in_a_fault_stays_critical() {
    let mut judge = judge();
    let mut now = START;
    for bad in 1..=10 {
        now += 1;
        judge.sample(now, &counts("eu", 0, bad));
    }
    for _ in 0..40 {
        now += 1;
        assert!(judge.sample(now, &counts("eu", 0, 10)).is_empty());
    }
    assert_eq!(state(&judge, now, "eu"), CellState::Critical);
}

#[test]
fn the_table_shows_what_was_counted_and_how_much_of_the_period_that_is() {
    let mut judge = judge();
    for second in 1..=60 {
        judge.sample(START + second, &counts("apac", 10 * second, 0));
    }
    judge.sample(START + 61, &counts("apac", 600, 6));
    let slos = judge.slos();
    assert_eq!(slos.len(), 1);
    let slo = &slos[0];
    assert_eq!((slo.name.as_str(), slo.good, slo.bad, slo.period_seconds), ("call_setup", 600, 6, 43_200));
    assert!((slo.coverage_ratio - 61.0 / 43_200.0).abs() < 1e-9);
    // 6 of 596 in the minute's window (the first second has left it) at an objective of 99.9 %
    assert!((slo.burn_1h - 6.0 / 596.0 * 1_000.0).abs() < 1e-6, "{}", slo.burn_1h);
    assert!(slo.exhaustion_seconds.is_some_and(|seconds| seconds > 0.0));
    assert_eq!(slo.pairs.len(), 4);
    assert!(slo.pairs[0].short.burn > slo.pairs[0].long.burn);
    let regions: Vec<_> =
        judge.cells(START + 61).iter().map(|cell| cell.region.as_str().to_owned()).collect();
    assert_eq!(regions.len(), 12, "four journeys in the two configured regions and in the one that came");
    assert_eq!(regions.last().map(String::as_str), Some("apac"));
}

#[test]
fn a_restored_series_keeps_its_budget_and_owes_its_resolve() {
    let mut before = judge();
    for second in 1..=30 {
        before.sample(START + second, &counts("eu", 2 * second, 0));
    }
    for second in 31..=40 {
        before.sample(START + second, &counts("eu", 60, 2 * (second - 30)));
    }
    let mut after = judge();
    for ((rule, region), history) in before.histories() {
        for grain in [Grain::Second, Grain::Minute, Grain::Hour] {
            for (index, counts) in history.steps(grain, 0) {
                after.restore(*rule, region, grain, index, counts);
            }
        }
    }
    after.restore_firing(1, &region("eu"), START + 33);
    // Ten seconds nobody counted; the new process begins its counts at nothing.
    let mut turns = Vec::new();
    for second in 51..=70 {
        turns.extend(after.sample(START + second, &counts("eu", 2 * (second - 50), 0)));
    }
    assert_eq!(turns, [Turn { rule: 1, region: region("eu"), transition: Transition::Resolved }]);
    let slo = &after.slos()[0];
    assert_eq!((slo.good, slo.bad), (100, 20));
    assert!((slo.coverage_ratio - 60.0 / 43_200.0).abs() < 1e-9);
}
