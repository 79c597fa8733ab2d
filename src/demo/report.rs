//! What a demo did, as JSON. The shape is a contract with whoever runs demos in scripts: fields are only ever added.

use belfry_kit::Incident;
use serde::Serialize;

use super::plan::FaultWindow;

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

/// The incidents at the stand-in, each with the fault that was on when it was triggered.
///
/// `started_unix_nanos` is when the demo's clock began, from which the windows are counted.
#[must_use]
pub fn pages(incidents: &[Incident], started_unix_nanos: u64, windows: &[FaultWindow]) -> Vec<Page> {
    incidents
        .iter()
        .map(|incident| {
            let seconds = |nanos: u64| nanos.saturating_sub(started_unix_nanos) as f64 / 1e9;
            let triggered = seconds(incident.triggered_unix_nanos);
            // A page comes some seconds after its cause, perhaps when that is over.
            let window = windows.iter().rfind(|window| window.from_seconds <= triggered);
            let end = window.and_then(|window| window.until_seconds);
            let resolved = incident.resolved_unix_nanos.map(seconds);
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let payload = &incident.event["payload"];
            Page {
                alert: text(&payload["class"]),
                journey: text(&payload["custom_details"]["journey"]),
                region: text(&payload["custom_details"]["region"]),
                fault: window.map_or_else(String::new, |window| window.fault.as_str().to_owned()),
                triggers: incident.triggers,
                resolves: incident.resolves,
                seconds_to_trigger: window.map(|window| tenths(triggered - window.from_seconds)),
                seconds_to_resolve: resolved.zip(end).map(|(resolved, end)| tenths(resolved - end)),
            }
        })
        .collect()
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
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
