//! The state of one alert: inactive, firing, resolved, and when it changes.

/// What the windows say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Some pair burns for certain: reason enough to begin.
    Certain,
    /// Some pair has not been seen to end: not enough to begin, too much to end.
    Holding,
    /// Nothing burns.
    Clear,
}

/// Where an alert stands. Times are seconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It has not fired.
    #[default]
    Inactive,
    /// It fires.
    Firing {
        /// Since when.
        since: u64,
        /// Since when nothing has burnt, if that is so.
        clear_since: Option<u64>,
    },
    /// It fired and ended.
    Resolved {
        /// When it ended.
        at: u64,
    },
}

/// A change that somebody has to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It began to fire.
    Triggered,
    /// It ended.
    Resolved,
}

/// One alert. Triggers and resolves alternate, beginning with a trigger, whatever is fed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    state: State,
    resolve_after_seconds: u64,
}

impl Alert {
    /// An alert that ends when nothing has burnt for so long.
    #[must_use]
    pub fn new(resolve_after_seconds: u64) -> Self {
        Self { state: State::Inactive, resolve_after_seconds }
    }

    /// Puts back an alert that was firing when the process ended: it is owed a resolve, not a second trigger.
    pub fn restore_firing(&mut self, since: u64) {
        self.state = State::Firing { since, clear_since: None };
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether it fires.
    #[must_use]
    pub fn is_firing(&self) -> bool {
        matches!(self.state, State::Firing { .. })
    }

    /// Feeds the condition at the second `now`.
    pub fn step(&mut self, now: u64, condition: Condition) -> Option<Transition> {
        match (self.state, condition) {
            (State::Inactive | State::Resolved { .. }, Condition::Certain) => {
                self.state = State::Firing { since: now, clear_since: None };
                Some(Transition::Triggered)
            }
            (State::Inactive | State::Resolved { .. }, Condition::Holding | Condition::Clear) => None,
            (State::Firing { since, .. }, Condition::Certain | Condition::Holding) => {
                self.state = State::Firing { since, clear_since: None };
                None
            }
            (State::Firing { since, clear_since }, Condition::Clear) => {
                let clear_since = clear_since.unwrap_or(now);
                if now.saturating_sub(clear_since) >= self.resolve_after_seconds {
                    self.state = State::Resolved { at: now };
                    return Some(Transition::Resolved);
                }
                self.state = State::Firing { since, clear_since: Some(clear_since) };
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Condition::{Certain, Clear, Holding};
    use super::*;

    #[test]
    fn it_fires_when_certain_and_resolves_when_clear_for_long_enough() {
        let mut alert = Alert::new(3);
        let steps = [
            (Holding, None),
            (Certain, Some(Transition::Triggered)),
            (Certain, None),
            (Clear, None),
            (Clear, None),
            (Holding, None),
            (Clear, None),
            (Clear, None),
            (Clear, None),
            (Clear, Some(Transition::Resolved)),
            (Holding, None),
            (Certain, Some(Transition::Triggered)),
        ];
        for (now, (condition, expected)) in (100_u64..).zip(steps) {
            assert_eq!(alert.step(now, condition), expected, "at {now}");
        }
    }

    #[test]
    fn a_restored_alert_resolves_and_does_not_trigger_again() {
        let mut alert = Alert::new(0);
        alert.restore_firing(7);
        assert_eq!(alert.step(10, Certain), None);
        assert_eq!(alert.step(11, Clear), Some(Transition::Resolved));
        assert_eq!(alert.state(), State::Resolved { at: 11 });
    }

    proptest! {
        #[test]
        fn triggers_and_resolves_alternate_and_a_resolve_waits(
            steps in prop::collection::vec((0_u64..4, 0_usize..3), 1..300), keep in 0_u64..10
        ) {
            let mut alert = Alert::new(keep);
            let (mut now, mut expects_trigger) = (1_000, true);
            // The oracle: since when every condition has been clear.
            let mut clear_since = None;
            for (step, choice) in steps {
                now += step;
                let condition = [Certain, Holding, Clear][choice];
                clear_since = if condition == Clear { clear_since.or(Some(now)) } else { None };
                let transition = alert.step(now, condition);
                let expected = if expects_trigger {
                    (condition == Certain).then_some(Transition::Triggered)
                } else {
                    clear_since.filter(|since| now - since >= keep).map(|_| Transition::Resolved)
                };
                prop_assert_eq!(transition, expected);
                if transition.is_some() {
                    expects_trigger = !expects_trigger;
                }
            }
        }
    }
}
