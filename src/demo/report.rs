//! What a demo did, as JSON. The shape is a contract with whoever runs demos in scripts: fields are only ever added.

use serde::Serialize;

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// How long the demo ran.
    pub seconds: u64,
    /// Calls of the simulated customers.
    pub calls: Calls,
    /// Their registrations.
    pub registrations: Attempts,
    /// Their HTTPS requests.
    pub http: Requests,
    /// Scores of the calls, as the relay measured them.
    pub mos: Scores,
    /// Telemetry records of the process.
    pub signals: Signals,
    /// Incidents at the stand-in for PagerDuty.
    pub pages: Vec<Page>,
}

/// Calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Calls {
    /// Calls that were begun.
    pub tried: u64,
    /// Calls that were answered, heard on both sides, and ended as meant.
    pub completed: u64,
    /// Completed over tried, of the calls that met no fault.
    pub completed_ratio_outside_faults: f64,
}

/// Attempts of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attempts {
    /// All.
    pub tried: u64,
    /// Those that went well.
    pub ok: u64,
}

/// HTTPS requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// All.
    pub requests: u64,
    /// Those that went well.
    pub ok: u64,
}

/// Mean opinion scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// Five in a hundred calls were worse.
    pub p5: f64,
    /// Half of the calls were worse.
    pub p50: f64,
}

/// Telemetry records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Signals {
    /// Handed over by components.
    pub emitted: u64,
    /// Durable and applied.
    pub stored: u64,
    /// Lost to a full queue or disk.
    pub dropped: u64,
}

/// One incident.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page {
    /// The alert's name.
    pub alert: String,
    /// The journey that fails.
    pub journey: String,
    /// Where it fails.
    pub region: String,
    /// The fault that was on, if any.
    pub fault: String,
    /// Triggers received under its key.
    pub triggers: u64,
    /// Resolves received under its key.
    pub resolves: u64,
    /// From the fault's start to the trigger.
    pub seconds_to_trigger: Option<f64>,
    /// From the fault's end to the resolve.
    pub seconds_to_resolve: Option<f64>,
}

/// The value below which `share` (0 to 1) of the values lie (nearest rank); 0 for none.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank"
)]
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil().max(1.0) as usize;
    values.get(rank - 1).or(values.last()).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((quantile(&mut values, 0.05), quantile(&mut values, 0.5)), (5.0, 50.0));
        assert_eq!(quantile(&mut [4.2], 0.05), 4.2);
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn the_shape_is_the_contract() {
        let json = serde_json::to_value(Report::default()).expect("plain data");
        let keys: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut expected = ["seconds", "calls", "registrations", "http", "mos", "signals", "pages"];
        expected.sort_unstable();
        let mut keys = keys;
        keys.sort_unstable();
        assert_eq!(keys, expected);
    }
}
