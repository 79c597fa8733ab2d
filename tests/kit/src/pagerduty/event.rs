//! One event: what PagerDuty's documentation asks of it, and what we ask of ourselves on top.
//!
//! PagerDuty's published schema knows no lengths and hardly any required fields, so passing it proves little.

use serde_json::{Map, Value};

/// The documented limit of 512 KB, read as Alertmanager reads it.
pub(super) const EVENT_BYTES_MAX: usize = 512_000;
const ROUTING_KEY_CHARS: usize = 32;
const DEDUP_KEY_CHARS_MAX: usize = 255;
const SUMMARY_CHARS_MAX: usize = 1024;
const SOURCE_CHARS_MAX: usize = 1024;
const SEVERITIES: [&str; 4] = ["critical", "error", "warning", "info"];

/// What an event asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Trigger,
    Acknowledge,
    Resolve,
    Change,
}

/// A checked event.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) routing_key: String,
    pub(super) action: Action,
    /// None for a trigger without one, and for changes.
    pub(super) dedup_key: Option<String>,
    pub(super) summary: String,
    pub(super) severity: String,
    /// The whole event without its routing key.
    pub(super) body: Value,
    /// Texts that look like a number, a SIP URI or an address: they must never leave a site.
    pub(super) private_texts: Vec<String>,
}

/// Collects everything that is wrong.
struct Check<'a> {
    fields: &'a Map<String, Value>,
    errors: Vec<String>,
}

impl Event {
    /// Checks an alert event.
    pub(super) fn parse(value: &Value, routing_keys: &[String]) -> Result<Self, Vec<String>> {
        let empty = Map::new();
        let mut check = Check { fields: value.as_object().unwrap_or(&empty), errors: Vec::new() };
        if !value.is_object() {
            check.errors.push("the event is not an object".to_owned());
        }
        let routing_key = check.routing_key(routing_keys);
        let action = match check.text("event_action").unwrap_or_default() {
            "trigger" => Action::Trigger,
            "acknowledge" => Action::Acknowledge,
            "resolve" => Action::Resolve,
            other => {
                let error = format!("'event_action' is {other:?}, not trigger, acknowledge or resolve");
                check.errors.push(error);
                Action::Trigger
            }
        };
        let dedup_key = check.dedup_key(action);
        let (summary, severity) = check.payload(action);
        check.extras(action);
        check.finish(value, routing_key, action, dedup_key, summary, severity)
    }

    /// Checks a change event.
    pub(super) fn parse_change(value: &Value, routing_keys: &[String]) -> Result<Self, Vec<String>> {
        let empty = Map::new();
        let mut check = Check { fields: value.as_object().unwrap_or(&empty), errors: Vec::new() };
        let routing_key = check.routing_key(routing_keys);
        let summary = match check.fields.get("payload").and_then(|payload| payload.get("summary")) {
            Some(Value::String(summary)) if !summary.is_empty() => summary.clone(),
            _ => {
                check.errors.push("'payload.summary' is missing or blank".to_owned());
                String::new()
            }
        };
        check.finish(value, routing_key, Action::Change, None, summary, "info".to_owned())
    }
}

impl<'a> Check<'a> {
    fn text(&mut self, name: &str) -> Option<&'a str> {
        match self.fields.get(name) {
            Some(Value::String(text)) => Some(text),
            Some(Value::Null) | None => None,
            Some(_) => {
                self.errors.push(format!("'{name}' is not a string"));
                None
            }
        }
    }

    fn routing_key(&mut self, known: &[String]) -> String {
        let key = self.text("routing_key").unwrap_or_default();
        if key.chars().count() != ROUTING_KEY_CHARS {
            let error = "Length of 'routing_key' is incorrect (should be 32 characters)";
            self.errors.push(error.to_owned());
        } else if !known.iter().any(|known| known == key) {
            self.errors.push("'routing_key' belongs to no service".to_owned());
        }
        key.to_owned()
    }

    fn dedup_key(&mut self, action: Action) -> Option<String> {
        let key = self.text("dedup_key").filter(|key| !key.is_empty());
        match key {
            Some(key) if key.chars().count() > DEDUP_KEY_CHARS_MAX => {
                self.errors.push(format!("'dedup_key' is longer than {DEDUP_KEY_CHARS_MAX} characters"));
            }
            None if action != Action::Trigger => {
                self.errors.push("'dedup_key' is missing or blank".to_owned());
            }
            _ => {}
        }
        key.map(str::to_owned)
    }

    /// Summary and severity of a trigger.
    fn payload(&mut self, action: Action) -> (String, String) {
        let payload = match self.fields.get("payload") {
            Some(Value::Object(payload)) => payload,
            Some(_) => {
                self.errors.push("'payload' is not an object".to_owned());
                return Default::default();
            }
            None => {
                if action == Action::Trigger {
                    self.errors.push("'payload' is missing".to_owned());
                }
                return Default::default();
            }
        };
        let mut payload = Check { fields: payload, errors: Vec::new() };
        let summary = payload.required("summary", SUMMARY_CHARS_MAX);
        payload.required("source", SOURCE_CHARS_MAX);
        let severity = payload.text("severity").unwrap_or_default();
        if !SEVERITIES.contains(&severity) {
            payload.errors.push(format!("'severity' is {severity:?}, not one of {SEVERITIES:?}"));
        }
        if payload.text("timestamp").is_some_and(|time| !is_timestamp(time)) {
            payload.errors.push("'timestamp' is not ISO 8601".to_owned());
        }
        for name in ["component", "group", "class"] {
            payload.text(name);
        }
        if payload.fields.get("custom_details").is_some_and(|details| !details.is_object()) {
            payload.errors.push("'custom_details' is not an object".to_owned());
        }
        self.errors.extend(payload.errors.into_iter().map(|error| error.replacen('\'', "'payload.", 1)));
        (summary, severity.to_owned())
    }

    fn required(&mut self, name: &str, chars_max: usize) -> String {
        let text = self.text(name).unwrap_or_default();
        if text.is_empty() {
            self.errors.push(format!("'{name}' is missing or blank"));
        } else if text.chars().count() > chars_max {
            self.errors.push(format!("'{name}' is longer than {chars_max} characters"));
        }
        text.to_owned()
    }

    /// Client, links and images; only triggers have them.
    fn extras(&mut self, action: Action) {
        for name in ["client", "client_url"] {
            if self.text(name).is_some() && action != Action::Trigger {
                self.errors.push(format!("'{name}' is for triggers only"));
            }
        }
        for (name, target, is_https_only) in [("links", "href", false), ("images", "src", true)] {
            let entries = match self.fields.get(name) {
                None => continue,
                Some(Value::Array(entries)) => entries,
                Some(_) => {
                    self.errors.push(format!("'{name}' is not a list"));
                    continue;
                }
            };
            for entry in entries {
                let url = entry.get(target).and_then(Value::as_str).unwrap_or_default();
                let is_url = url.starts_with("https://") || (!is_https_only && url.starts_with("http://"));
                if !is_url {
                    self.errors.push(format!("'{name}' has an entry without a usable '{target}'"));
                }
            }
        }
    }

    fn finish(
        self,
        value: &Value,
        routing_key: String,
        action: Action,
        dedup_key: Option<String>,
        summary: String,
        severity: String,
    ) -> Result<Event, Vec<String>> {
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let mut body = value.clone();
        if let Some(fields) = body.as_object_mut() {
            fields.remove("routing_key");
        }
        let mut private_texts = Vec::new();
        collect_private(&body, &mut private_texts);
        Ok(Event { routing_key, action, dedup_key, summary, severity, body, private_texts })
    }
}

/// `2026-11-20T08:30:00`, with a fraction and an offset or without.
fn is_timestamp(text: &str) -> bool {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let bytes = text.as_bytes();
    let is_shaped = bytes.len() >= SHAPE.len()
        && SHAPE.iter().zip(bytes).all(|(shape, byte)| match shape {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        });
    let rest = text.get(SHAPE.len()..).unwrap_or_default();
    is_shaped
        && rest.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'Z' | b'+' | b'-' | b':'))
}

fn collect_private(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if is_private(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect_private(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| collect_private(value, found)),
        _ => {}
    }
}

/// SIP and `tel:` URIs, and telephone numbers with their plus.
fn is_private(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let has_uri = ["sip:", "sips:", "tel:"].iter().any(|scheme| lower.contains(scheme));
    let has_number = text.match_indices('+').any(|(at, _)| {
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        digits >= 7
    });
    has_uri || has_number
}
