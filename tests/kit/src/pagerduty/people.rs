//! People at the service, and how others hear of what they do: webhooks v3 and the REST API.

use std::sync::Arc;

use belfry_signal::now_unix_nanos;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{IncidentState, PagerDuty, Shared};

/// Where webhooks go, with what they are signed.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    url: String,
    secrets: Vec<String>,
}

/// How often a webhook is tried.
const TRIES_MAX: usize = 5;

impl PagerDuty {
    /// From now on everything that happens to an incident is posted there, signed with each of the secrets.
    pub fn hook(&self, url: &str, secrets: &[&str]) {
        let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        self.shared.state().hooks.push(Hook { url: url.to_owned(), secrets });
    }

    /// Webhooks are switched off, as happens without a word after three failures.
    pub fn unhook(&self) {
        self.shared.state().hooks.clear();
    }

    /// The REST API answers whoever shows this token.
    pub fn set_rest_token(&self, token: &str) {
        self.shared.state().rest_token = Some(token.to_owned());
    }

    /// Somebody does something about the open incident of a key. Whether there is one.
    pub fn act(&self, dedup_key: &str, by: &str, to: IncidentState) -> bool {
        let mut state = self.shared.state();
        let open = state.inbox.incidents.iter_mut().rev();
        let mut open = open.filter(|incident| incident.state != IncidentState::Resolved);
        let Some(incident) = open.find(|incident| incident.dedup_key == dedup_key) else { return false };
        let before = incident.state;
        incident.state = to;
        incident.changed_unix_nanos = now_unix_nanos();
        incident.changed_by = Some(by.to_owned());
        drop(state);
        tell(&self.shared, dedup_key, before);
        true
    }
}

/// Tells all hooks what became of the newest incident of a key.
pub(super) fn tell(shared: &Arc<Shared>, dedup_key: &str, before: IncidentState) {
    let state = shared.state();
    let Some(incident) = state.inbox.incidents.iter().rev().find(|incident| incident.dedup_key == dedup_key)
    else {
        return;
    };
    let kind = match (before, incident.state) {
        (_, IncidentState::Acknowledged) => "incident.acknowledged",
        (_, IncidentState::Resolved) => "incident.resolved",
        (IncidentState::Acknowledged, IncidentState::Triggered) => "incident.unacknowledged",
        (_, IncidentState::Triggered) => "incident.triggered",
    };
    let body = json!({ "event": {
        "id": format!("{:026x}", rand::random::<u64>()),
        "event_type": kind,
        "resource_type": "incident",
        "occurred_at": time(incident.changed_unix_nanos),
        "agent": incident.changed_by.as_ref().map(|by| json!({ "type": "user_reference", "summary": by })),
        "client": null,
        "data": { "type": "incident", "incident_key": dedup_key, "status": incident.state },
    }});
    let body = Bytes::from(body.to_string());
    for hook in state.hooks.clone() {
        tokio::spawn(post(hook, body.clone()));
    }
}

async fn post(hook: Hook, body: Bytes) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let signatures: Vec<String> =
        hook.secrets.iter().map(|secret| format!("v1={}", sign(secret, &body))).collect();
    for _ in 0..TRIES_MAX {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&hook.url)
            .header("content-type", "application/json")
            .header("x-pagerduty-signature", signatures.join(","))
            .body(Full::new(body.clone()));
        let Ok(request) = request else { return };
        // A refusal for good is not tried again, as there.
        if client.request(request).await.is_ok_and(|answer| !answer.status().is_server_error()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

fn sign(secret: &str, body: &[u8]) -> String {
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    hex::encode(mac.chain_update(body).finalize().into_bytes())
}

/// `GET /incidents?incident_key=...`: the newest incident of the key.
pub(super) fn incidents(shared: &Shared, login: Option<&str>, query: &str) -> (StatusCode, Value) {
    let state = shared.state();
    let token = state.rest_token.as_ref().map(|token| format!("Token token={token}"));
    if token.is_none() || login != token.as_deref() {
        return (StatusCode::UNAUTHORIZED, json!({ "error": { "message": "Unauthorized", "code": 2006 } }));
    }
    let key = query.split('&').find_map(|pair| pair.strip_prefix("incident_key=")).unwrap_or_default();
    let newest = state.inbox.incidents.iter().rev().find(|incident| incident.dedup_key == key);
    let incidents = newest.map(|incident| {
        json!({
            "type": "incident",
            "status": incident.state,
            "incident_key": incident.dedup_key,
            "last_status_change_at": time(incident.changed_unix_nanos),
            "last_status_change_by": incident.changed_by.as_ref().map(|by| json!({ "summary": by })),
        })
    });
    (
        StatusCode::OK,
        json!({ "incidents": Vec::from_iter(incidents), "limit": 1, "offset": 0, "more": false }),
    )
}

fn time(unix_nanos: u64) -> String {
    Timestamp::from_nanosecond(i128::from(unix_nanos)).unwrap_or_default().to_string()
}
