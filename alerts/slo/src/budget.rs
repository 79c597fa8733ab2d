//! Objectives and error budgets.

use crate::history::Window;

/// One whole, in parts per million.
pub const PPM: u32 = 1_000_000;

/// The share of events that has to be good, in parts per million: 999 000 is 99.9 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Objective(u32);

/// What an objective allows over its period, and what of it is gone.
///
/// The budget is that of a whole period: when only part of the period was measured, the events of the period
/// are projected from the measured part at its mean rate. So a process that is one minute old and had a few
/// bad events has not "spent" a month's budget many times over. With full coverage it is the plain
/// `bad / (total * (1 - objective))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What was counted in the period so far.
    pub counted: Window,
    /// The whole period; longer than `counted` while a calendar's period goes on.
    pub period_seconds: u64,
    /// What was promised.
    pub objective: Objective,
}

impl Objective {
    /// An objective of so many parts per million, between 1 and 999 999: 100 % leaves no budget to judge by.
    #[must_use]
    pub fn from_ppm(ppm: u32) -> Option<Self> {
        (1..PPM).contains(&ppm).then_some(Self(ppm))
    }

    /// The share that has to be good, in parts per million.
    #[must_use]
    pub fn ppm(self) -> u32 {
        self.0
    }

    /// The share that may be bad, in parts per million.
    #[must_use]
    pub fn budget_ppm(self) -> u32 {
        PPM - self.0
    }
}

impl Budget {
    /// What is left as a share of the period's budget: 1 is all, 0 is none, below 0 is overdrawn.
    ///
    /// No events means that nothing was spent.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people; decisions use the integers")]
    pub fn remaining_ratio(&self) -> f64 {
        let (spent, allowed) = self.spent_and_allowed();
        if allowed == 0 { 1.0 } else { 1.0 - spent as f64 / allowed as f64 }
    }

    /// Whether less than `share_ppm` of the budget is left, decided on integers.
    #[must_use]
    pub fn is_below(&self, share_ppm: u32) -> bool {
        let (spent, allowed) = self.spent_and_allowed();
        let keep = u128::from(PPM.saturating_sub(share_ppm));
        spent.saturating_mul(u128::from(PPM)) > allowed.saturating_mul(keep)
    }

    /// Seconds until nothing is left when events keep failing at `burn` times the allowed rate.
    ///
    /// `None` when nothing burns; 0 when the budget is already gone.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
    pub fn exhaustion_seconds(&self, burn: Option<f64>) -> Option<f64> {
        let burn = burn.filter(|burn| *burn > 0.0)?;
        Some((self.remaining_ratio() * self.period_seconds as f64 / burn).max(0.0))
    }

    /// Whether at least `percent` of the budget is gone, decided on integers.
    #[must_use]
    pub fn is_spent(&self, percent: u32) -> bool {
        let (spent, allowed) = self.spent_and_allowed();
        spent > 0 && spent.saturating_mul(100) >= allowed.saturating_mul(u128::from(percent))
    }

    /// Bad events and allowed bad events, both times the same positive factor.
    fn spent_and_allowed(&self) -> (u128, u128) {
        let counted = &self.counted;
        let period = self.period_seconds.max(1);
        // Projected total = total * period / measured. Multiply through by `measured` to stay in integers;
        // a window whose oldest edge was rounded outward may have measured a little more than its length.
        let measured = u128::from(counted.measured_seconds.clamp(1, period));
        let spent = u128::from(counted.bad) * measured * u128::from(PPM);
        let allowed =
            u128::from(counted.total()) * u128::from(period) * u128::from(self.objective.budget_ppm());
        (spent, allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(good: u64, bad: u64, measured_seconds: u64) -> Budget {
        let counted = Window { seconds: 43_200, good, bad, measured_seconds };
        Budget { counted, period_seconds: 43_200, objective: Objective::from_ppm(999_000).expect("in range") }
    }

    #[test]
    fn remaining_is_event_weighted_and_goes_below_zero() {
        for (good, bad, expected) in [
            (0, 0, 1.0),
            (1_000_000, 0, 1.0),
            (999_500, 500, 0.5),
            (999_000, 1_000, 0.0),
            (998_000, 2_000, -1.0),
        ] {
            let remaining = budget(good, bad, 43_200).remaining_ratio();
            assert!((remaining - expected).abs() < 1e-9, "{good} {bad}: {remaining}");
        }
    }

    #[test]
    fn a_partly_measured_period_has_the_budget_of_the_whole_period() {
        // 90 s of 12 h were measured, 25 of them all bad at 4 events a second: the period allows 43.2 s.
        let remaining = budget(65 * 4, 25 * 4, 90).remaining_ratio();
        assert!((remaining - (1.0 - 25.0 / 43.2)).abs() < 1e-9, "{remaining}");
    }

    #[test]
    fn thresholds_are_decided_on_integers() {
        assert!(!budget(999_250, 750, 43_200).is_below(250_000), "exactly a quarter is left");
        assert!(budget(999_249, 751, 43_200).is_below(250_000));
        assert!(!budget(0, 0, 0).is_below(250_000), "nothing was counted, nothing was spent");
    }

    #[test]
    fn exhaustion_needs_something_that_burns() {
        let half = budget(999_500, 500, 43_200);
        assert_eq!(half.exhaustion_seconds(None), None);
        assert_eq!(half.exhaustion_seconds(Some(0.0)), None);
        assert_eq!(half.exhaustion_seconds(Some(1.0)), Some(21_600.0));
        assert_eq!(budget(1, 999_999, 43_200).exhaustion_seconds(Some(3.0)), Some(0.0));
    }

    #[test]
    fn an_objective_leaves_a_budget() {
        assert_eq!(Objective::from_ppm(0), None);
        assert_eq!(Objective::from_ppm(1_000_000), None);
        assert_eq!(Objective::from_ppm(999_999).map(Objective::budget_ppm), Some(1));
    }
}
