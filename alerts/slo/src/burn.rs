//! Burn windows: how fast a budget goes, judged over a long and a short window together.
//!
//! The pairs are those of Google's SRE Workbook (chapter 5) for a period of 30 days. An SLO with another
//! period uses the same pairs scaled with it, so that a pair always stands for the same share of the budget:
//! 14.4 times over 1 h of 30 d, and over 60 s of 12 h, is 2 % of the budget.

use crate::binomial::lower_bound_exceeds;
use crate::budget::{Objective, PPM};
use crate::history::{History, Window};

/// The period that window lengths are written for.
pub const WORKBOOK_PERIOD_SECONDS: u64 = 30 * 86_400;

/// What a burn calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody looks in working hours: shown, not sent.
    Ticket,
    /// Somebody is woken.
    Page,
}

/// A long window that says "it matters" and a short one that says "it still goes on".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BurnPair {
    /// What it calls for.
    pub severity: Severity,
    /// The long window.
    pub long_seconds: u64,
    /// The short window.
    pub short_seconds: u64,
    /// How many times the allowed error rate, in thousandths: 14 400 is 14.4 times.
    pub factor_milli: u32,
}

/// An error ratio above which a pair burns, held exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// In parts per thousand million.
    parts: u64,
}

/// What keeps a handful of events from waking somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Bad events that the long window must hold at least.
    pub bad_events_min: u64,
    /// Events are a sample of traffic, so that few of them mean little: the lower bound of the ratio has to be above
    /// the threshold too. Slices of time and ratios of others are no sample.
    pub is_sample: bool,
}

/// A pair, read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairReading {
    /// The pair.
    pub pair: BurnPair,
    /// What the long window holds.
    pub long: Window,
    /// What the short window holds.
    pub short: Window,
    /// Both windows are above the threshold.
    pub is_burning: bool,
    /// They are, there are enough bad events, and the lower bounds of both ratios are above it too.
    pub is_certain: bool,
    /// A burn that was certain has not been seen to end: the long window is above the threshold, and the short
    /// one is too or holds no events at all. Silence is no recovery.
    pub is_holding: bool,
}

/// Parts of one, for [`Threshold`].
const PARTS: u64 = PPM as u64 * 1_000;

/// The Workbook's pairs for 30 days, in the order in which they are listed there.
#[must_use]
pub fn workbook_pairs() -> Vec<BurnPair> {
    let pair = |severity, long_seconds, short_seconds, factor_milli| BurnPair {
        severity,
        long_seconds,
        short_seconds,
        factor_milli,
    };
    vec![
        pair(Severity::Page, 3_600, 300, 14_400),
        pair(Severity::Page, 21_600, 1_800, 6_000),
        pair(Severity::Ticket, 86_400, 7_200, 3_000),
        pair(Severity::Ticket, 259_200, 21_600, 1_000),
    ]
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::Page => "page",
        }
    }
}

impl BurnPair {
    /// This pair, written for 30 days, for a period of another length. Windows are at least a second long.
    #[must_use]
    pub fn scaled_to(self, period_seconds: u64) -> Self {
        Self {
            long_seconds: scaled(self.long_seconds, period_seconds),
            short_seconds: scaled(self.short_seconds, period_seconds),
            ..self
        }
    }

    /// The error ratio above which this pair burns.
    #[must_use]
    pub fn threshold(&self, objective: Objective) -> Threshold {
        Threshold { parts: u64::from(self.factor_milli) * u64::from(objective.budget_ppm()) }
    }

    /// Reads the pair at the second `now`.
    #[must_use]
    pub fn read(&self, history: &History, now: u64, objective: Objective, guard: Guard) -> PairReading {
        let threshold = self.threshold(objective);
        let long = history.window(now, self.long_seconds);
        let short = history.window(now, self.short_seconds);
        let is_long_above = threshold.is_exceeded_by(&long);
        let is_burning = is_long_above && threshold.is_exceeded_by(&short);
        let is_certain = is_burning
            && long.bad >= guard.bad_events_min
            && (!guard.is_sample
                || (threshold.is_surely_exceeded_by(&long) && threshold.is_surely_exceeded_by(&short)));
        let is_holding = is_burning || (is_long_above && short.total() == 0);
        PairReading { pair: *self, long, short, is_burning, is_certain, is_holding }
    }
}

impl Threshold {
    /// Whether the window's error ratio is above the threshold, decided on integers.
    #[must_use]
    pub fn is_exceeded_by(self, window: &Window) -> bool {
        u128::from(window.bad) * u128::from(PARTS) > u128::from(window.total()) * u128::from(self.parts)
    }

    /// Whether it is, with a confidence of 95 %.
    #[must_use]
    pub fn is_surely_exceeded_by(self, window: &Window) -> bool {
        lower_bound_exceeds(window.bad, window.total(), self.ratio())
    }

    /// Whether any error ratio can be above it.
    #[must_use]
    pub fn is_reachable(self) -> bool {
        self.parts < PARTS
    }

    /// The threshold as a ratio, for people and for probabilities.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "below 2^53 for every factor that a rule may have")]
    pub fn ratio(self) -> f64 {
        self.parts as f64 / PARTS as f64
    }
}

/// How many times the allowed error rate a window burns; `None` when it holds no events.
pub(crate) fn burn(window: &Window, objective: Objective) -> Option<f64> {
    window.error_ratio().map(|ratio| ratio * f64::from(PPM) / f64::from(objective.budget_ppm()))
}

/// A length written for 30 days, for a period of another length, rounded to the nearest second.
pub(crate) fn scaled(seconds: u64, period_seconds: u64) -> u64 {
    let product = u128::from(seconds) * u128::from(period_seconds);
    let workbook = u128::from(WORKBOOK_PERIOD_SECONDS);
    u64::try_from((product + workbook / 2) / workbook).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_795_163_417;

    fn objective(ppm: u32) -> Objective {
        Objective::from_ppm(ppm).expect("in range")
    }

    fn history(seconds: &[(u64, u64)]) -> History {
        let mut history = History::new(WORKBOOK_PERIOD_SECONDS);
        let start = NOW + 1 - seconds.len() as u64;
        for (second, (good, bad)) in (start..).zip(seconds) {
            history.observe(second, *good, *bad);
        }
        history
    }

    #[test]
    fn windows_scale_with_the_period() {
        let lengths = |period| -> Vec<_> {
            let scaled = workbook_pairs().into_iter().map(|pair| pair.scaled_to(period));
            scaled.map(|pair| (pair.long_seconds, pair.short_seconds, pair.factor_milli)).collect()
        };
        assert_eq!(
            lengths(12 * 3_600),
            [(60, 5, 14_400), (360, 30, 6_000), (1_440, 120, 3_000), (4_320, 360, 1_000)]
        );
        assert_eq!(lengths(28 * 86_400)[0], (3_360, 280, 14_400));
        assert_eq!(lengths(60)[0], (1, 1, 14_400), "never shorter than a second");
    }

    #[test]
    fn thresholds_are_those_of_the_workbook() {
        for (ppm, ratio) in [(999_900, 0.00144), (999_000, 0.0144), (995_000, 0.072)] {
            let threshold = workbook_pairs()[0].threshold(objective(ppm));
            assert!((threshold.ratio() - ratio).abs() < 1e-12);
        }
        assert!(!workbook_pairs()[0].threshold(objective(900_000)).is_reachable(), "14.4 x 10 % is above 1");
    }

    #[test]
    fn exactly_at_the_threshold_does_not_burn() {
        // 14.4 x 0.1 % = 1.44 %: 144 of 10 000 is at it, 145 of 10 000 above.
        let threshold = workbook_pairs()[0].threshold(objective(999_000));
        let window = |bad| Window { seconds: 60, good: 10_000 - bad, bad, measured_seconds: 60 };
        assert!(!threshold.is_exceeded_by(&window(144)));
        assert!(threshold.is_exceeded_by(&window(145)));
        assert!(!threshold.is_exceeded_by(&Window::default()), "no events");
    }

    #[test]
    fn a_single_failure_at_night_burns_but_is_not_certain() {
        let pair = workbook_pairs()[0].scaled_to(12 * 3_600);
        let mut seconds = vec![(0, 0); 59];
        seconds.push((0, 1));
        let reading = pair.read(
            &history(&seconds),
            NOW,
            objective(999_000),
            Guard { bad_events_min: 3, is_sample: true },
        );
        assert!(reading.is_burning && !reading.is_certain, "{reading:?}");
        seconds.extend([(0, 1), (0, 1)]);
        let reading = pair.read(
            &history(&seconds),
            NOW,
            objective(999_000),
            Guard { bad_events_min: 3, is_sample: true },
        );
        assert!(reading.is_certain, "{reading:?}");
    }

    #[test]
    fn silence_after_a_burn_is_no_recovery() {
        let pair = workbook_pairs()[0].scaled_to(12 * 3_600);
        let mut seconds = vec![(0, 4); 10];
        seconds.extend([(0, 0); 6]);
        let reading = pair.read(
            &history(&seconds),
            NOW,
            objective(999_000),
            Guard { bad_events_min: 3, is_sample: true },
        );
        assert!(!reading.is_burning && reading.is_holding, "{reading:?}");
        seconds.push((1, 0));
        let reading = pair.read(
            &history(&seconds),
            NOW,
            objective(999_000),
            Guard { bad_events_min: 3, is_sample: true },
        );
        assert!(!reading.is_holding, "a good event is one: {reading:?}");
    }

    proptest! {
        #[test]
        fn a_reading_agrees_with_sums_over_a_list(
            seconds in prop::collection::vec((0_u64..20, prop_oneof![4 => Just(0_u64), 1 => 0_u64..5]), 1..400),
            objective_ppm in 900_000_u32..999_999,
            factor_milli in 500_u32..20_000,
            long_seconds in 1_u64..400,
            short_seconds in 1_u64..40,
        ) {
            let pair = BurnPair { severity: Severity::Page, long_seconds, short_seconds, factor_milli };
            let guard = Guard { bad_events_min: 3, is_sample: true };
            let reading = pair.read(&history(&seconds), NOW, objective(objective_ppm), guard);
            let sum = |length: u64| {
                let newest_first = seconds.iter().rev().take(usize::try_from(length).expect("small"));
                newest_first.fold((0, 0), |(good, bad), second| (good + second.0, bad + second.1))
            };
            // ratio > factor / 1000 * (1 - objective), with every division multiplied out
            let is_above = |(good, bad): (u64, u64)| {
                bad * 1_000_000_000 > (good + bad) * u64::from(factor_milli) * u64::from(1_000_000 - objective_ppm)
            };
            let (long, short) = (sum(long_seconds), sum(short_seconds));
            prop_assert_eq!((reading.long.good, reading.long.bad), long);
            prop_assert_eq!((reading.short.good, reading.short.bad), short);
            prop_assert_eq!(reading.is_burning, is_above(long) && is_above(short));
            prop_assert!(!reading.is_certain || (reading.is_burning && long.1 >= 3));
            prop_assert!(!reading.is_burning || reading.is_holding);
        }
    }
}
