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
    /// When it was said or heard here, in nanoseconds since the epoch, by this site's clock.
    pub since_unix_nanos: u64,
}

/// What a service says of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) dedup_key: String,
    pub(crate) state: StandingState,
    pub(crate) by: Option<Pii<String>>,
    pub(crate) age: Age,
}

/// How new a word of a service is, by its own clock alone, in nanoseconds since the epoch: ours may go wrong. A later
/// incident under the same key is newer than anything that is said of an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Age {
    pub(crate) created_unix_nanos: u64,
    pub(crate) said_unix_nanos: u64,
}

/// The longest name of a person that is kept.
const NAME_CHARS_MAX: usize = 256;

impl Standing {
    /// How it stands after a report that is newer than all before it.
    pub(crate) fn after(&self, report: &Report, now_unix_nanos: u64) -> Standing {
        if report.state == self.state {
            return self.clone();
        }
        Standing {
            state: report.state,
            by: report.by.clone(),
            comment: String::new(),
            place: Place::Service,
            since_unix_nanos: now_unix_nanos,
            ..self.clone()
        }
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

    #[test]
    fn names_are_kept_short_and_without_controls() {
        assert_eq!(person("  \u{7}\n ").map(Pii::into_inner), None);
        assert_eq!(person(" Ann\u{1b}[2J ").map(Pii::into_inner).as_deref(), Some("Ann[2J"));
        assert_eq!(person(&"x".repeat(999)).map(Pii::into_inner).map(|name| name.len()), Some(256));
    }
}
