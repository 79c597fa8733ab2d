//! Budgets, slices, calendars and corrections against sums over a plain list.

use proptest::prelude::*;

use super::*;
use crate::budget::Objective;
use crate::burn::{Guard, workbook_pairs};
use crate::calendar::{Calendar, Unit};
use crate::source::{Commitment, house_policy};

/// 2026-11-20 08:30:17 UTC.
const START: u64 = 1_795_163_417;

fn slo(method: Method, period_seconds: u64, calendar: Option<Calendar>, objective_ppm: u32) -> Slo {
    let objective = Objective::from_ppm(objective_ppm).expect("in range");
    Slo {
        name: "test".into(),
        journey: "call_setup".into(),
        alert: "TestBurn".into(),
        description: String::new(),
        objective,
        period_seconds,
        calendar,
        method,
        commitment: Commitment::Objective,
        source: Source::Journey,
        pairs: workbook_pairs().into_iter().map(|pair| pair.scaled_to(period_seconds)).collect(),
        guard: Guard { bad_events_min: 3, is_sample: true },
        resolve_after_seconds: 3,
        policy: house_policy(),
        is_paged_when_blind: false,
    }
}

/// What a second held; `None` was not sampled.
type Second = Option<(u64, u64)>;

fn traffic() -> impl Strategy<Value = Vec<Second>> {
    let second = prop_oneof![
        6 => (0_u64..30, Just(0_u64)).prop_map(Some),
        2 => (0_u64..10, 0_u64..5).prop_map(Some),
        1 => Just(None),
    ];
    prop::collection::vec(second, 1..900)
}

/// Feeds a list, judging each second, and gives the last judgement.
fn feed(series: &mut Series, seconds: &[Second]) -> Assessment {
    let mut last = None;
    for (now, second) in (START..).zip(seconds) {
        if let Some((good, bad)) = second {
            series.observe_span(now, 1, *good, *bad);
        }
        last = Some(series.evaluate(now));
    }
    last.expect("one second at least")
}

/// Good, bad and measured seconds of the list between two seconds.
fn sum(seconds: &[Second], from: u64, to: u64) -> (u64, u64, u64) {
    let inside = (START..).zip(seconds).filter(|(second, _)| (from..to).contains(second));
    inside
        .filter_map(|(_, second)| *second)
        .fold((0, 0, 0), |sum, (good, bad)| (sum.0 + good, sum.1 + bad, sum.2 + 1))
}

proptest! {
    #[test]
    fn a_rolling_budget_is_the_exact_rational_with_and_without_corrections(
        seconds in traffic(),
        period in 600_u64..2_000,
        objective_ppm in 900_000_u32..999_999,
        cuts in prop::collection::vec((0_u64..900, 0_u64..200), 0..4),
        percent in 1_u32..150,
    ) {
        let mut series = Series::new(Arc::new(slo(Method::Occurrences, period, None, objective_ppm)));
        let cuts: Vec<(u64, u64)> = cuts.iter().map(|(at, length)| (START + at, START + at + length)).collect();
        series.exclude(&cuts);
        let found = feed(&mut series, &seconds);
        let end = START + seconds.len() as u64;
        let start = end - period;
        // Second by second: what lies in any cut does not count.
        let is_cut = |second: u64| cuts.iter().any(|(from, to)| (*from..*to).contains(&second));
        let (mut good, mut bad, mut measured, mut counted) = (0_u64, 0_u64, 0_u64, 0_u64);
        for second in (start..end).filter(|second| !is_cut(*second)) {
            counted += 1;
            if let Some(Some((g, b))) = second.checked_sub(START).and_then(|at| seconds.get(usize::try_from(at).expect("small"))) {
                (good, bad, measured) = (good + g, bad + b, measured + 1);
            }
        }
        let budget = found.budget;
        prop_assert_eq!((budget.counted.good, budget.counted.bad), (good, bad));
        prop_assert_eq!((budget.counted.measured_seconds, budget.counted.seconds), (measured, counted));
        let raw = sum(&seconds, start, end);
        prop_assert_eq!(raw, (good + found.excluded.good, bad + found.excluded.bad, measured + found.excluded.measured_seconds));
        // bad / (projected total * allowed share) >= percent / 100, with every division multiplied out
        let (spent, allowed) = (
            u128::from(bad) * u128::from(measured.max(1)) * 1_000_000,
            u128::from(good + bad) * u128::from(budget.period_seconds.max(1)) * u128::from(1_000_000 - objective_ppm),
        );
        prop_assert_eq!(budget.is_spent(percent), spent > 0 && spent * 100 >= allowed * u128::from(percent));
        prop_assert_eq!(budget.is_below(250_000), spent * 4 > allowed * 3);
    }

    #[test]
    fn slices_are_judged_each_by_its_own_events(
        seconds in traffic(),
        slice_seconds in prop::sample::select(vec![10_u64, 30, 60]),
        target_ppm in 1_u32..=1_000_000,
    ) {
        let method = Method::Timeslices { slice_seconds, target_ppm };
        let mut series = Series::new(Arc::new(slo(method, 3_600, None, 990_000)));
        let found = feed(&mut series, &seconds);
        let (mut good, mut bad) = (0, 0);
        // A slice is closed by the next second that is measured after it.
        let newest = (START..).zip(&seconds).filter(|(_, second)| second.is_some()).map(|(at, _)| at).last();
        let last = newest.unwrap_or(START) / slice_seconds;
        for slice in START / slice_seconds..last {
            let (g, b, _) = sum(&seconds, slice * slice_seconds, (slice + 1) * slice_seconds);
            if g + b > 0 && u128::from(g) * 1_000_000 >= u128::from(g + b) * u128::from(target_ppm) {
                good += 1;
            } else if g + b > 0 {
                bad += 1;
            }
        }
        prop_assert_eq!((found.budget.counted.good, found.budget.counted.bad), (good, bad));
    }

    #[test]
    fn a_calendars_budget_begins_with_its_period(
        seconds in traffic(),
        minutes in 0_u64..60,
        hours in 1_u32..4,
    ) {
        let start = format!("2026-11-20 00:{minutes:02}:00");
        let calendar = Calendar::new(&start, "UTC", Unit::Hour, hours).expect("right");
        let mut series = Series::new(Arc::new(slo(Method::Occurrences, calendar.seconds_max(), Some(calendar), 999_000)));
        let found = feed(&mut series, &seconds);
        let now = START + seconds.len() as u64 - 1;
        let length = u64::from(hours) * 3_600;
        let origin = START - (8 * 3_600 + 30 * 60 + 17) + minutes * 60;
        let from = origin + (now - origin) / length * length;
        let expected = sum(&seconds, from, now + 1);
        let counted = found.budget.counted;
        prop_assert_eq!((counted.good, counted.bad, counted.measured_seconds), expected);
        prop_assert_eq!((counted.seconds, found.budget.period_seconds), (now + 1 - from, length));
    }
}

#[test]
fn who_measures_nothing_for_long_is_blind_and_may_wake_somebody() {
    let mut slo = slo(Method::Occurrences, 3_600, None, 999_000);
    slo.is_paged_when_blind = true;
    let mut series = Series::new(Arc::new(slo));
    let mut seconds = vec![Some((1, 0)); 100];
    seconds.extend(vec![None; 60]);
    let found = feed(&mut series, &seconds);
    assert!(found.is_blind && found.is_paging);
    series.observe_span(START + 160, 1, 1, 0);
    assert!(!series.evaluate(START + 160).is_blind);
    series.observe_span(START + 163, 3, 3, 0);
    assert!(!series.evaluate(START + 163).is_paging, "it sees again for as long as an alert has to be clear");
    let fresh = &mut Series::new(series.slo().clone());
    assert!(!fresh.evaluate(START).is_blind, "who has just begun is not");
}

#[test]
fn corrections_that_touch_are_counted_once() {
    assert_eq!(apart(&[(5, 9), (1, 3), (2, 6), (20, 20), (9, 10)]), [(1, 10)]);
}
