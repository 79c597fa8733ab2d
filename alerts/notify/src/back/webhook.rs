//! Webhooks v3 of PagerDuty: who sent one, and what it says. No I/O and no clock.
//!
//! `X-PagerDuty-Signature: v1=HEX[,v1=HEX]` are HMAC-SHA256 of the body as it came, one for each secret that is valid
//! there (<https://developer.pagerduty.com/docs/verifying-webhook-signatures>). Any that is right will do.

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

use super::standing::{Report, StandingState, person, unix_nanos};

/// Signatures of one request that are looked at.
const SIGNATURES_MAX: usize = 8;

/// The header's value.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a>(pub &'a str);

/// Why a webhook is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// No secret of ours made any of its signatures.
    #[error("no signature in X-PagerDuty-Signature fits a webhook secret of ours")]
    Signature,
    /// It is no event of this kind.
    #[error("the body is not an event of webhooks v3")]
    Malformed,
    /// It cannot be written down now; it is to be sent again.
    #[error("it cannot be taken now, send it again")]
    Unavailable,
}

impl WebhookError {
    /// The reason, bounded, for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// How an incident stands.
    Report(Report),
    /// How an incident stands whose key the event does not carry: it is one of several alerts.
    Unnamed,
    /// Nothing about how an incident stands.
    Nothing,
}

#[derive(Deserialize)]
struct Envelope {
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    event_type: String,
    #[serde(deserialize_with = "unix_nanos")]
    occurred_at: u64,
    agent: Option<Agent>,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize)]
struct Agent {
    summary: Option<String>,
}

#[derive(Default, Deserialize)]
struct Data {
    incident_key: Option<String>,
}

/// Whether one of the signatures is that of the body under the secret.
pub(crate) fn is_signed(secret: &str, signatures: Signature<'_>, body: &[u8]) -> bool {
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    let mac = mac.chain_update(body);
    let given = signatures.0.split(',').take(SIGNATURES_MAX).filter_map(|one| one.trim().strip_prefix("v1="));
    // Each is compared in constant time; upper-case digits say the same.
    given.filter_map(|digits| hex::decode(digits).ok()).any(|given| mac.clone().verify_slice(&given).is_ok())
}

/// Reads an event whose signature was right.
pub(crate) fn read(body: &[u8]) -> Result<Said, WebhookError> {
    let Envelope { event } = serde_json::from_slice(body).map_err(|_| WebhookError::Malformed)?;
    let state = match event.event_type.as_str() {
        "incident.triggered" | "incident.reopened" | "incident.unacknowledged" => StandingState::Triggered,
        "incident.acknowledged" => StandingState::Acknowledged,
        "incident.resolved" => StandingState::Resolved,
        // Priorities, notes, responders and tests of the hook.
        _ => return Ok(Said::Nothing),
    };
    let Some(dedup_key) = event.data.incident_key.filter(|key| !key.is_empty()) else {
        return Ok(Said::Unnamed);
    };
    Ok(Said::Report(Report {
        dedup_key,
        state,
        by: event.agent.and_then(|agent| agent.summary).as_deref().and_then(person),
        at_unix_nanos: event.occurred_at,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"event":{"id":"01","event_type":"incident.acknowledged","resource_type":"incident",
        "occurred_at":"2026-11-20T10:00:00.250Z","agent":{"id":"PU1","type":"user_reference","summary":"Ann"},
        "client":null,"data":{"id":"PI1","type":"incident","status":"acknowledged","incident_key":"abc"}}}"#;

    fn sign(secret: &str, body: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
        hex::encode(mac.chain_update(body).finalize().into_bytes())
    }

    #[test]
    fn one_right_signature_is_enough_and_nothing_else_is() {
        let body = BODY.as_bytes();
        let right = sign("secret", body);
        let check = |header: &str, body: &[u8], expected: bool| {
            assert_eq!(is_signed("secret", Signature(header), body), expected, "{header}");
        };
        check(&format!("v1={right}"), body, true);
        check(&format!("v1={},v1={right}", sign("other", body)), body, true);
        check(&format!("v1={}", right.to_uppercase()), body, true);
        check(&format!(" v1={right} "), body, true);
        check(&format!("v1={right}"), BODY.replace("abc", "abd").as_bytes(), false);
        check(&format!("v1={right}"), format!("{BODY} ").as_bytes(), false);
        check(&format!("v1={}", sign("other", body)), body, false);
        check(&format!("v2={right}"), body, false);
        check(&right, body, false);
        check(&format!("v1={}", &right[..62]), body, false);
        check("", body, false);
        let buried = format!("{}v1={right}", "v1=00,".repeat(SIGNATURES_MAX));
        check(&buried, body, false);
    }

    #[test]
    fn events_say_how_an_incident_stands() {
        let Ok(Said::Report(report)) = read(BODY.as_bytes()) else { panic!("a report") };
        assert_eq!(
            (report.dedup_key.as_str(), report.state, report.at_unix_nanos),
            ("abc", StandingState::Acknowledged, 1_795_168_800_250_000_000)
        );
        assert_eq!(report.by.map(belfry_signal::Pii::into_inner).as_deref(), Some("Ann"));
        let said = |event_type: &str| read(BODY.replace("incident.acknowledged", event_type).as_bytes());
        let state = |event_type: &str| match said(event_type) {
            Ok(Said::Report(report)) => Some(report.state),
            _ => None,
        };
        assert_eq!(state("incident.unacknowledged"), Some(StandingState::Triggered));
        assert_eq!(state("incident.reopened"), Some(StandingState::Triggered));
        assert_eq!(state("incident.resolved"), Some(StandingState::Resolved));
        assert_eq!(said("incident.annotated"), Ok(Said::Nothing));
        assert_eq!(said("pagey.ping"), Ok(Said::Nothing));
        assert_eq!(read(BODY.replace("\"abc\"", "null").as_bytes()), Ok(Said::Unnamed));
        for malformed in ["", "{}", "[]", "{\"event\":{}}", &BODY.replace("2026-", "soon-")] {
            assert_eq!(read(malformed.as_bytes()), Err(WebhookError::Malformed), "{malformed}");
        }
    }
}
