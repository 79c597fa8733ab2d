//! Notices about groups of alerts, as PagerDuty events and as Alertmanager's JSON for webhooks.
//!
//! Unlike a page, a notice carries texts that somebody wrote into rules. What is too long is cut where one sees it.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::event::{DEDUP_KEY_CHARS_MAX, EVENT_BYTES_MAX, SUMMARY_CHARS_MAX, cut, within};

/// Names and texts.
pub type Pairs = Vec<(String, String)>;

/// What is told about a group of alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNotice {
    /// The target that is told, or a service of the configuration; `None` tells all services.
    pub to: Option<String>,
    /// The incident that it belongs to.
    pub incident: String,
    /// How many notices of the incident came before it.
    pub number: u64,
    /// Whether the incident is over.
    pub is_resolve: bool,
    /// The receiver.
    pub receiver: String,
    /// The group, readable.
    pub group_key: String,
    /// The labels that name the group.
    pub group_labels: Pairs,
    /// Labels that all alerts have.
    pub common_labels: Pairs,
    /// Annotations that all alerts have.
    pub common_annotations: Pairs,
    /// The alerts.
    pub alerts: Vec<GroupAlert>,
    /// Alerts that are left out.
    pub truncated: usize,
    /// `description`, `severity`, `details.NAME` and others.
    pub texts: Pairs,
    /// Where this Belfry is reached.
    pub external_url: String,
}

/// One alert of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupAlert {
    /// Whether it fires.
    pub is_firing: bool,
    /// What identifies it.
    pub labels: Pairs,
    /// What it says.
    pub annotations: Pairs,
    /// Since when, in Unix milliseconds.
    pub starts_at_ms: i64,
    /// Until when.
    pub ends_at_ms: Option<i64>,
    /// Where it comes from.
    pub generator_url: String,
    /// Its stable name.
    pub fingerprint: String,
}

/// The longest text of a message of Slack; longer ones are cut there as well, and refused above 40,000.
const SLACK_TEXT_CHARS_MAX: usize = 3_000;
const SLACK_URL_CHARS_MAX: usize = 2_048;
/// How many alerts stand in the details of a PagerDuty event.
const DETAILS_ALERTS_MAX: usize = 20;

impl GroupNotice {
    /// What ties a resolve to its trigger at a service: stable for a group, and different for each that is told.
    pub(crate) fn dedup_key(&self, site: &str, name: &str) -> String {
        let mut hash = Sha256::new();
        for part in [site, name, &self.group_key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hex::encode(hash.finalize())
    }

    /// As an event for PagerDuty, without its routing key.
    pub(crate) fn event(&self, dedup_key: &str, site: &str) -> String {
        let dedup_key = cut(dedup_key, DEDUP_KEY_CHARS_MAX);
        if self.is_resolve {
            return json!({ "event_action": "resolve", "dedup_key": dedup_key }).to_string();
        }
        let text = |name: &str| {
            let found = self.texts.iter().find(|(held, _)| held == name).map(|(_, text)| text.trim());
            found.filter(|text| !text.is_empty())
        };
        let severity = match text("severity").or(label(&self.common_labels, "severity")) {
            Some("page" | "critical") => "critical",
            Some("warning" | "ticket") => "warning",
            Some("info" | "none") => "info",
            _ => "error",
        };
        let summary = text("description").map_or_else(|| self.summary(), str::to_owned);
        let mut details = Map::new();
        for (name, value) in
            self.texts.iter().filter_map(|(name, text)| Some((name.strip_prefix("details.")?, text)))
        {
            details.insert(name.to_owned(), json!(value));
        }
        details.insert("labels".to_owned(), object(&self.common_labels));
        details.insert("annotations".to_owned(), object(&self.common_annotations));
        let firing = self.alerts.iter().filter(|alert| alert.is_firing);
        let shown: Vec<Value> =
            firing.clone().take(DETAILS_ALERTS_MAX).map(|alert| object(&alert.labels)).collect();
        let more = firing.count().saturating_sub(shown.len()) + self.truncated;
        details.insert("firing".to_owned(), json!(shown));
        if more > 0 {
            details.insert("cut".to_owned(), json!(format!("{more} more alerts are not shown here")));
        }
        let mut payload = json!({
            "summary": cut(&summary, SUMMARY_CHARS_MAX),
            "source": site,
            "severity": severity,
            "custom_details": details,
        });
        for name in ["class", "component", "group"] {
            let given = text(name)
                .or_else(|| (name == "class").then(|| label(&self.common_labels, "alertname")).flatten());
            if let Some(given) = given {
                payload[name] = json!(cut(given, SUMMARY_CHARS_MAX));
            }
        }
        let url = text("client_url").filter(|url| url.starts_with("http")).unwrap_or(&self.external_url);
        let mut event = json!({
            "event_action": "trigger",
            "dedup_key": dedup_key,
            "client": text("client").unwrap_or("Belfry"),
            "client_url": url,
            "payload": payload,
        });
        let runbook = label(&self.common_annotations, "runbook_url").filter(|url| url.starts_with("http"));
        if let Some(runbook) = runbook {
            event["links"] = json!([{ "href": runbook, "text": "Runbook" }]);
        }
        within(event, EVENT_BYTES_MAX)
    }

    /// As Alertmanager's webhooks have it, version 4.
    pub(crate) fn webhook(&self) -> String {
        let status = |is_firing: bool| if is_firing { "firing" } else { "resolved" };
        let alerts: Vec<Value> = self
            .alerts
            .iter()
            .map(|alert| {
                json!({
                    "status": status(alert.is_firing),
                    "labels": object(&alert.labels),
                    "annotations": object(&alert.annotations),
                    "startsAt": time(Some(alert.starts_at_ms)),
                    "endsAt": time(if alert.is_firing { None } else { alert.ends_at_ms }),
                    "generatorURL": alert.generator_url,
                    "fingerprint": alert.fingerprint,
                })
            })
            .collect();
        json!({
            "version": "4",
            "groupKey": self.group_key,
            "truncatedAlerts": self.truncated,
            "status": status(!self.is_resolve),
            "receiver": self.receiver,
            "groupLabels": object(&self.group_labels),
            "commonLabels": object(&self.common_labels),
            "commonAnnotations": object(&self.common_annotations),
            "externalURL": self.external_url,
            "alerts": alerts,
        })
        .to_string()
    }

    /// As Slack's incoming webhooks take it: one attachment (<https://api.slack.com/reference/messaging/attachments>).
    pub(crate) fn slack(&self) -> String {
        let text = |name: &str| {
            let found = self.texts.iter().find(|(held, _)| held == name).map(|(_, text)| text.trim());
            found.filter(|text| !text.is_empty())
        };
        let mut attachment = Map::new();
        for (name, chars_max) in [
            ("color", 32),
            ("title", SUMMARY_CHARS_MAX),
            ("title_link", SLACK_URL_CHARS_MAX),
            ("pretext", SLACK_TEXT_CHARS_MAX),
            ("text", SLACK_TEXT_CHARS_MAX),
            ("fallback", SUMMARY_CHARS_MAX),
            ("footer", SUMMARY_CHARS_MAX),
        ] {
            if let Some(text) = text(name) {
                attachment.insert(name.to_owned(), json!(cut(text, chars_max)));
            }
        }
        attachment.insert("mrkdwn_in".to_owned(), json!(["fallback", "pretext", "text"]));
        let mut message = json!({ "attachments": [attachment] });
        for name in ["channel", "username", "icon_emoji", "icon_url"] {
            if let Some(text) = text(name) {
                message[name] = json!(cut(text, SUMMARY_CHARS_MAX));
            }
        }
        message.to_string()
    }

    /// One sentence, when nobody wrote one.
    fn summary(&self) -> String {
        let firing = self.alerts.iter().filter(|alert| alert.is_firing).count() + self.truncated;
        let name = label(&self.common_labels, "alertname").unwrap_or("alerts");
        let said =
            label(&self.common_annotations, "summary").map_or_else(String::new, |text| format!(": {text}"));
        let labels: Vec<&str> = self
            .group_labels
            .iter()
            .filter(|(held, _)| held != "alertname")
            .map(|(_, value)| value.as_str())
            .collect();
        let place = if labels.is_empty() { String::new() } else { format!(" ({})", labels.join(", ")) };
        format!("[FIRING:{firing}] {name}{place}{said}")
    }
}

fn label<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(held, _)| held == name)
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

fn object(pairs: &Pairs) -> Value {
    Value::Object(pairs.iter().map(|(name, value)| (name.clone(), json!(value))).collect())
}

/// RFC 3339; Go's zero time for none.
fn time(unix_millis: Option<i64>) -> String {
    let at = unix_millis.and_then(|millis| Timestamp::from_millisecond(millis).ok());
    at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(of: &[(&str, &str)]) -> Pairs {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn notice(alerts: usize) -> GroupNotice {
        let labels = pairs(&[("alertname", "DiskFull"), ("severity", "page")]);
        GroupNotice {
            to: None,
            incident: "i".into(),
            number: 0,
            is_resolve: false,
            receiver: "noc".into(),
            group_key: "{}:{alertname=\"DiskFull\"}".into(),
            group_labels: pairs(&[("alertname", "DiskFull"), ("site", "fra-1")]),
            common_labels: labels.clone(),
            common_annotations: pairs(&[
                ("summary", "The disk is full"),
                ("runbook_url", "https://b.example/r"),
            ]),
            alerts: vec![
                GroupAlert {
                    is_firing: true,
                    labels,
                    annotations: vec![],
                    starts_at_ms: 1_795_163_417_000,
                    ends_at_ms: None,
                    generator_url: String::new(),
                    fingerprint: "f".into(),
                };
                alerts
            ],
            truncated: 0,
            texts: vec![],
            external_url: "https://b.example".into(),
        }
    }

    #[test]
    fn an_event_says_what_and_stays_within_the_limits() {
        let event: Value = serde_json::from_str(&notice(25).event("key", "fra-1")).expect("JSON");
        assert_eq!(event["payload"]["summary"], "[FIRING:25] DiskFull (fra-1): The disk is full");
        assert_eq!(
            (&event["payload"]["severity"], &event["payload"]["class"]),
            (&json!("critical"), &json!("DiskFull"))
        );
        assert_eq!(event["payload"]["custom_details"]["firing"].as_array().map(Vec::len), Some(20));
        assert_eq!(event["payload"]["custom_details"]["cut"], "5 more alerts are not shown here");
        assert_eq!(event["links"][0]["href"], "https://b.example/r");
        let mut long = notice(1);
        long.texts = pairs(&[
            ("description", &"é".repeat(3_000)),
            ("severity", "info"),
            ("details.note", &"x".repeat(600_000)),
        ]);
        let text = long.event("key", "fra-1");
        let event: Value = serde_json::from_str(&text).expect("JSON");
        assert!(text.len() < 512_000 && text.contains("512000 are allowed"));
        assert_eq!(event["payload"]["summary"].as_str().map(|text| text.chars().count()), Some(1_024));
        assert_eq!(event["payload"]["severity"], "info");
        let over = GroupNotice { is_resolve: true, ..notice(1) };
        assert_eq!(over.event("key", "s"), r#"{"dedup_key":"key","event_action":"resolve"}"#);
        assert_ne!(over.dedup_key("s", "a"), over.dedup_key("s", "b"));
    }

    #[test]
    fn a_webhook_is_told_in_alertmanagers_shape() {
        let body: Value = serde_json::from_str(&notice(1).webhook()).expect("JSON");
        assert_eq!(
            (&body["version"], &body["status"], &body["receiver"]),
            (&json!("4"), &json!("firing"), &json!("noc"))
        );
        assert_eq!(body["alerts"][0]["startsAt"], "2026-11-20T08:30:17.000Z");
        assert_eq!(body["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
        assert_eq!(body["groupLabels"]["alertname"], "DiskFull");
    }

    #[test]
    fn a_message_of_slack_is_one_attachment_with_what_templates_said() {
        let texts = pairs(&[
            ("channel", "#noc"),
            ("username", "Belfry"),
            ("color", "danger"),
            ("title", "[FIRING:1] DiskFull"),
            ("title_link", "https://b.example"),
            ("text", &"x".repeat(5_000)),
            ("footer", "  "),
        ]);
        let message: Value = serde_json::from_str(&GroupNotice { texts, ..notice(1) }.slack()).expect("JSON");
        assert_eq!((&message["channel"], &message["username"]), (&json!("#noc"), &json!("Belfry")));
        let attachment = &message["attachments"][0];
        assert_eq!(
            (&attachment["color"], &attachment["title"], &attachment["title_link"]),
            (&json!("danger"), &json!("[FIRING:1] DiskFull"), &json!("https://b.example"))
        );
        let text = attachment["text"].as_str().expect("text");
        assert_eq!((text.chars().count(), text.ends_with('…')), (SLACK_TEXT_CHARS_MAX, true));
        assert!(attachment.get("footer").is_none() && message.get("icon_url").is_none());
    }
}
