//! Which fault is on when: the demo's timetable, as data.

use std::time::Duration;

use crate::cli::{Fault, PlannedFault};

/// One switch of the timetable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When, after the start.
    pub at: Duration,
    /// Which fault.
    pub fault: Fault,
    /// On or off.
    pub is_on: bool,
}

/// A time in which a fault was on, in seconds after the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultWindow {
    /// Which.
    pub fault: Fault,
    /// From when.
    pub from_seconds: f64,
    /// Until when; still on when absent.
    pub until_seconds: Option<f64>,
}

impl FaultWindow {
    /// Whether something that lasted from `from` to `until` met the fault.
    #[must_use]
    pub fn meets(&self, from: f64, until: f64) -> bool {
        until >= self.from_seconds && self.until_seconds.is_none_or(|end| from <= end)
    }
}

/// The timetable of the planned faults, in order of time.
#[must_use]
pub fn timetable(planned: &[PlannedFault]) -> Vec<Turn> {
    let mut turns: Vec<Turn> = planned
        .iter()
        .flat_map(|planned| {
            let on = Turn { at: Duration::from_secs(planned.at_seconds), fault: planned.fault, is_on: true };
            let off = planned.for_seconds.map(|seconds| Turn {
                at: Duration::from_secs(planned.at_seconds.saturating_add(seconds)),
                fault: planned.fault,
                is_on: false,
            });
            [Some(on), off].into_iter().flatten()
        })
        .collect();
    turns.sort_by_key(|turn| turn.at);
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_go_on_and_off_in_order() {
        let planned = ["media-loss@30", "core-errors@20+25"].map(|text| text.parse().expect("well formed"));
        let turns: Vec<(u64, &str, bool)> = timetable(&planned)
            .into_iter()
            .map(|turn| (turn.at.as_secs(), turn.fault.as_str(), turn.is_on))
            .collect();
        assert_eq!(turns, [(20, "core-errors", true), (30, "media-loss", true), (45, "core-errors", false)]);
    }

    #[test]
    fn a_call_meets_a_fault_when_they_overlap() {
        let window = FaultWindow { fault: Fault::CoreErrors, from_seconds: 20.0, until_seconds: Some(45.0) };
        assert!(window.meets(19.0, 20.5) && window.meets(44.0, 50.0) && window.meets(10.0, 60.0));
        assert!(!window.meets(10.0, 19.9) && !window.meets(45.1, 50.0));
        assert!(FaultWindow { until_seconds: None, ..window }.meets(1000.0, 1001.0));
    }
}
