//! The part of PagerDuty's REST API that says how incidents stand. No I/O and no clock.

use belfry_signal::Pii;
use serde::Deserialize;

use super::standing::{Report, StandingState, person, unix_nanos};

/// The path and query that ask for the newest incident under a key.
pub(crate) fn query(dedup_key: &str) -> String {
    // A key of ours is hexadecimal; anything else is not asked for.
    let key: String = dedup_key.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("/incidents?incident_key={key}&date_range=all&sort_by=created_at%3Adesc&limit=1")
}

#[derive(Deserialize)]
struct Answer {
    incidents: Vec<Incident>,
}

#[derive(Deserialize)]
struct Incident {
    status: StandingState,
    #[serde(deserialize_with = "unix_nanos")]
    last_status_change_at: u64,
    last_status_change_by: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    summary: Option<String>,
}

/// Reads an answer: how the newest incident under the key stands, if there is one.
pub(crate) fn read(dedup_key: &str, body: &[u8]) -> Result<Option<Report>, serde_json::Error> {
    let answer: Answer = serde_json::from_slice(body)?;
    Ok(answer.incidents.into_iter().next().map(|incident| Report {
        dedup_key: dedup_key.to_owned(),
        state: incident.status,
        by: by(incident.last_status_change_by),
        at_unix_nanos: incident.last_status_change_at,
    }))
}

fn by(reference: Option<Reference>) -> Option<Pii<String>> {
    reference.and_then(|reference| reference.summary).as_deref().and_then(person)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_incident_is_read() {
        let body = br#"{"incidents":[{"id":"P1","status":"acknowledged","incident_key":"abc",
            "last_status_change_at":"2026-11-20T10:00:00Z","last_status_change_by":{"summary":"Ann","type":"user_reference"}}],
            "limit":1,"offset":0,"more":false}"#;
        let report = read("abc", body).expect("JSON").expect("one");
        assert_eq!(
            (report.state, report.at_unix_nanos, report.dedup_key.as_str()),
            (StandingState::Acknowledged, 1_795_168_800_000_000_000, "abc")
        );
        assert_eq!(read("abc", br#"{"incidents":[]}"#).expect("JSON"), None);
        assert!(read("abc", b"<html>").is_err());
        assert!(read("abc", br#"{"incidents":[{"status":"snoozed"}]}"#).is_err());
        assert_eq!(
            query("ab&c=1"),
            "/incidents?incident_key=abc1&date_range=all&sort_by=created_at%3Adesc&limit=1"
        );
    }
}
