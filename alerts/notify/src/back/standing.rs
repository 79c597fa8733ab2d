//! What is known of an incident at one service: the newest word wins.

use belfry_signal::Pii;
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// How an incident stands at a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StandingState {
    /// Somebody is being called.
    Triggered,
    /// Somebody works on it.
    Acknowledged,
    /// Somebody ended it there, although it goes on here.
    Resolved,
}

/// Where something was said of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Here, on this site.
    Here,
    /// At the service.
    Service,
}

/// The newest word about an incident at one service, or here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The service that was told of the incident; empty for what was said here alone.
    pub service: String,
    /// The page's handle, or the incident of a group of alerts.
    pub incident: String,
    /// How it stands.
    pub state: StandingState,
    /// Who said so, if somebody did.
    pub by: Option<Pii<String>>,
    /// What they wrote.
    pub comment: String,
    /// Where.
    pub place: Place,
    /// When, in nanoseconds since the epoch.
    pub since_unix_nanos: u64,
}

/// What a service says of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) dedup_key: String,
    pub(crate) state: StandingState,
    pub(crate) by: Option<Pii<String>>,
    pub(crate) at_unix_nanos: u64,
}

/// The longest name of a person that is kept.
const NAME_CHARS_MAX: usize = 256;

impl Standing {
    /// How it stands after a report; `None` when that is nothing newer.
    pub(crate) fn after(&self, report: &Report) -> Option<Standing> {
        let is_newer = report.at_unix_nanos > self.since_unix_nanos;
        (is_newer && report.state != self.state).then(|| Standing {
            state: report.state,
            by: report.by.clone(),
            comment: String::new(),
            place: Place::Service,
            since_unix_nanos: report.at_unix_nanos,
            ..self.clone()
        })
    }
}

/// A name as it is kept.
pub(crate) fn person(name: &str) -> Option<Pii<String>> {
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    (!name.is_empty()).then(|| Pii::new(name))
}

/// Reads a time as these APIs write it (RFC 3339), as nanoseconds since the epoch.
pub(crate) fn unix_nanos<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time: Timestamp = text.parse().map_err(D::Error::custom)?;
    Ok(u64::try_from(time.as_nanosecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> Standing {
        Standing {
            service: "primary".into(),
            incident: "p".into(),
            state: StandingState::Triggered,
            by: None,
            comment: String::new(),
            place: Place::Here,
            since_unix_nanos: 100,
        }
    }

    #[test]
    fn any_order_and_any_repetition_ends_with_the_newest_word() {
        use StandingState::{Acknowledged, Resolved, Triggered};
        let report =
            |state, at_unix_nanos| Report { dedup_key: "k".into(), state, by: person("Ann"), at_unix_nanos };
        let reports = [
            report(Acknowledged, 110),
            report(Triggered, 120),
            report(Acknowledged, 130),
            report(Resolved, 140),
        ];
        let mut order = vec![0, 1, 2, 3, 0, 1, 2, 3];
        for turn in 0..5_000_u64 {
            // Every turn shuffles with a generator of its own.
            let mut seed = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            for at in (1..order.len()).rev() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                order.swap(at, (seed >> 33) as usize % (at + 1));
            }
            let mut now = standing();
            for at in &order {
                if let Some(next) = now.after(&reports[*at]) {
                    now = next;
                }
            }
            assert_eq!((now.state, now.since_unix_nanos), (Resolved, 140), "{order:?}");
        }
        assert_eq!(standing().after(&report(Acknowledged, 99)), None, "of an incident before this one");
    }

    #[test]
    fn names_are_kept_short_and_without_controls() {
        assert_eq!(person("  \u{7}\n ").map(Pii::into_inner), None);
        assert_eq!(person(" Ann\u{1b}[2J ").map(Pii::into_inner).as_deref(), Some("Ann[2J"));
        assert_eq!(person(&"x".repeat(999)).map(Pii::into_inner).map(|name| name.len()), Some(256));
    }
}
