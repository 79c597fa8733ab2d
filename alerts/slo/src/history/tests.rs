//! The history against a plain list of everything that was observed.

use proptest::prelude::*;

use super::*;

/// 2026-11-20 08:30 UTC, not at a whole hour or minute.
const START: u64 = 1_795_163_417;

/// Remembers every second: what the rings must agree with.
#[derive(Default)]
struct Oracle {
    seconds: std::collections::BTreeMap<u64, Counts>,
    newest: u64,
}

impl Oracle {
    fn observe(&mut self, now: u64, good: u64, bad: u64) {
        let from = if self.newest > 0 && now - self.newest <= GAP_SECONDS_MAX {
            (self.newest + 1).min(now)
        } else {
            now
        };
        for second in from..=now {
            self.seconds.entry(second).or_default().measured_seconds = 1;
        }
        let counts = self.seconds.entry(now).or_default();
        counts.good += good;
        counts.bad += bad;
        self.newest = now;
    }

    fn window(&self, now: u64, seconds: u64) -> Window {
        let start = now + 1 - seconds;
        // The rounding that the module promises.
        let held =
            |grain_seconds: u64, len: usize| (self.newest / grain_seconds + 1 - len as u64) * grain_seconds;
        let start = if start >= held(1, SECONDS_MAX) {
            start
        } else if start / 60 * 60 >= held(60, MINUTES_MAX) {
            start / 60 * 60
        } else {
            start / 3_600 * 3_600
        };
        let counts =
            self.seconds.range(start..=now).fold(Counts::default(), |sum, (_, counts)| sum + *counts);
        Window { seconds, good: counts.good, bad: counts.bad, measured_seconds: counts.measured_seconds }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn windows_agree_with_a_list_of_all_seconds(
        observations in prop::collection::vec((prop_oneof![
            8 => 0_u64..3, 2 => 3_u64..400, 1 => 400_u64..200_000
        ], 0_u64..1_000, 0_u64..50), 1..200),
        windows in prop::collection::vec(prop_oneof![
            1_u64..400, 400_u64..21_600, 21_600_u64..259_200, 259_200_u64..2_592_000
        ], 1..12),
    ) {
        let mut history = History::new(2_592_000);
        let mut oracle = Oracle::default();
        let mut now = START;
        for (step, good, bad) in observations {
            now += step;
            history.observe(now, good, bad);
            oracle.observe(now, good, bad);
        }
        for seconds in windows {
            prop_assert_eq!(history.window(now, seconds), oracle.window(now, seconds), "{} s", seconds);
        }
    }

    #[test]
    fn a_written_and_restored_history_answers_the_same(
        observations in prop::collection::vec((0_u64..5_000, 0_u64..1_000, 0_u64..50), 1..100),
    ) {
        let mut history = History::new(2_592_000);
        let mut now = START;
        for (step, good, bad) in observations {
            now += step;
            history.observe(now, good, bad);
        }
        let mut restored = History::new(2_592_000);
        for grain in [Grain::Second, Grain::Minute, Grain::Hour] {
            for (index, counts) in history.steps(grain, 0) {
                restored.restore(grain, index, counts);
            }
        }
        for seconds in [1, 5, 60, 3_600, 21_600, 86_400, 259_200, 2_592_000] {
            prop_assert_eq!(restored.window(now, seconds), history.window(now, seconds));
        }
    }
}

#[test]
fn a_late_sample_covers_the_seconds_before_it_and_a_long_gap_does_not() {
    let mut history = History::new(2_592_000);
    history.observe(START, 1, 0);
    history.observe(START + 3, 1, 0);
    assert_eq!(history.window(START + 3, 4).measured_seconds, 4);
    history.observe(START + 3 + GAP_SECONDS_MAX + 1, 1, 0);
    assert_eq!(history.window(START + 9, 10).measured_seconds, 5);
    assert_eq!(history.window(START + 9, 10).good, 3);
}

#[test]
fn a_small_step_back_of_the_clock_adds_to_the_newest_second() {
    let mut history = History::new(2_592_000);
    history.observe(START + 10, 5, 0);
    history.observe(START + 8, 0, 2);
    assert_eq!(history.window(START + 10, 1), Window { seconds: 1, good: 5, bad: 2, measured_seconds: 1 });
}

#[test]
fn a_large_step_back_of_the_clock_forgets_the_seconds_it_denies() {
    let mut history = History::new(2_592_000);
    for second in 0..7_200 {
        history.observe(START + second, 1, 0);
    }
    history.observe(START + 1_000, 0, 1);
    let window = history.window(START + 1_000, 86_400);
    assert_eq!((window.good, window.bad, window.measured_seconds), (1_001, 1, 1_001));
}

#[test]
fn memory_is_bounded_and_a_far_jump_forgets_everything() {
    let mut history = History::new(86_400);
    history.observe(START, 1, 1);
    history.observe(START + 400 * 86_400, 1, 0);
    assert_eq!(history.window(START + 400 * 86_400, 86_400).bad, 0);
    assert_eq!(history.steps(Grain::Hour, 0).count(), 1);
}
