//! Others' records in our form, within bounds: the rules that all doors share.
//!
//! Nothing that a stranger sends may grow without bound or stand where the house's own words stand: every text becomes
//! a private value, names are cut, what is too much is cut or folded into one text, and clocks that are far off are
//! put right, each visibly. Pure: the caller gives the time and reports the changes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use belfry_signal::record::{Attributes, Body, Log, Name, Span};
use belfry_signal::{Pii, Record, Severity, SpanContext, SpanId, TraceId, Value};

use super::config::DoorsConfig;
use super::signals::{Change, Entrance};

/// Bytes of an attribute's name that are kept.
const NAME_BYTES_MAX: usize = 128;
/// How deep values within values are read.
const DEPTH_MAX: usize = 8;
/// Bytes that one request may become: what all of its records share is written once there, and with each of them here.
const EXPANDED_BYTES_MAX: usize = 128 << 20;
/// What a record takes besides its texts.
const RECORD_BYTES: usize = 512;
/// What attributes that name a call are called, in the order in which they are looked for.
const CALL_ID_NAMES: [&str; 6] = ["sip.call_id", "call_id", "callid", "call-id", "sip.callid", "Call-ID"];

/// How much of a record is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) message_bytes_max: usize,
    pub(crate) attributes_max: usize,
    pub(crate) attribute_bytes_max: usize,
    future_nanos: u64,
    past_nanos: u64,
}

impl Rules {
    pub(crate) fn of(config: &DoorsConfig) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            message_bytes_max: config.message_bytes_max,
            attributes_max: config.attributes_max,
            attribute_bytes_max: config.attribute_bytes_max,
            future_nanos: nanos(config.future_max),
            past_nanos: nanos(config.past_max),
        }
    }
}

/// A log line as a decoder read it.
#[derive(Clone, Debug)]
pub(crate) struct ForeignLog {
    /// When, as the sender says.
    pub(crate) unix_nanos: Option<u64>,
    pub(crate) severity: Severity,
    pub(crate) message: String,
    pub(crate) attributes: Vec<(String, Value)>,
    pub(crate) context: Option<SpanContext>,
}

/// What one request has become so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expansion {
    bytes: usize,
}

impl Expansion {
    /// Whether so many more may be made that share so many bytes.
    pub(crate) fn allows(&mut self, shared_bytes: usize, count: usize) -> bool {
        self.bytes =
            self.bytes.saturating_add(shared_bytes.saturating_add(RECORD_BYTES).saturating_mul(count));
        self.bytes <= EXPANDED_BYTES_MAX
    }

    /// What the sender is told when they may not.
    pub(crate) const REFUSED: &str = "the request becomes too much when it is unpacked: send less at a time";
}

/// Bytes of the names and texts of attributes.
pub(crate) fn bytes_of(attributes: &[(String, Value)]) -> usize {
    let text = |value: &Value| match value {
        Value::Private(text) => text.reveal().len(),
        _ => 8,
    };
    attributes.iter().map(|(name, value)| name.len() + text(value) + 64).sum()
}

/// Makes records of one request, and counts what had to be changed.
#[derive(Debug)]
pub(crate) struct Shaper<'a> {
    rules: &'a Rules,
    component: &'static str,
    now_nanos: u64,
    changes: [u32; Change::ALL.len()],
}

impl<'a> Shaper<'a> {
    pub(crate) fn new(rules: &'a Rules, door: Entrance, now_nanos: u64) -> Self {
        Self { rules, component: door.component(), now_nanos, changes: [0; Change::ALL.len()] }
    }

    /// What was changed, and how often.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (Change, u32)> {
        Change::ALL.iter().copied().zip(self.changes).filter(|(_, times)| *times > 0)
    }

    pub(crate) fn now_nanos(&self) -> u64 {
        self.now_nanos
    }

    /// A log line.
    pub(crate) fn log(&mut self, log: ForeignLog) -> Record {
        let ForeignLog { unix_nanos, severity, message, mut attributes, context } = log;
        let unix_nanos = self.time(unix_nanos, &mut attributes);
        let message = self.message(message, &mut attributes);
        let call_id = call_id(&attributes);
        let attributes = self.attributes(attributes);
        let message = Name::Owned(message);
        let body = Body::Log(Log { severity, message, attributes, context, call_id });
        Record { unix_nanos, component: Name::Borrowed(self.component), body }
    }

    /// A span, its attributes in `attributes` instead of its own.
    pub(crate) fn span(
        &mut self,
        end_nanos: u64,
        span: Span,
        mut attributes: Vec<(String, Value)>,
    ) -> Record {
        let unix_nanos = self.time(Some(end_nanos), &mut attributes);
        let took = end_nanos.saturating_sub(span.start_unix_nanos);
        let call_id = call_id(&attributes);
        let name = Name::Owned(self.cut(span.name.into_owned(), self.rules.attribute_bytes_max));
        let start_unix_nanos = unix_nanos.saturating_sub(took);
        let attributes = self.attributes(attributes);
        let span = Span { name, start_unix_nanos, attributes, call_id, ..span };
        Record { unix_nanos, component: Name::Borrowed(self.component), body: Body::Span(span) }
    }

    /// Bytes as text; what is none is replaced.
    pub(crate) fn text<'b>(&mut self, bytes: &'b [u8]) -> Cow<'b, str> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => {
                self.note(Change::Encoding);
                String::from_utf8_lossy(bytes)
            }
        }
    }

    /// The sender's time, or ours when his clock cannot be right.
    pub(crate) fn time(&mut self, claimed: Option<u64>, attributes: &mut Vec<(String, Value)>) -> u64 {
        let Some(claimed) = claimed.filter(|claimed| *claimed > 0) else { return self.now_nanos };
        let is_ahead = claimed > self.now_nanos.saturating_add(self.rules.future_nanos);
        let is_behind = claimed < self.now_nanos.saturating_sub(self.rules.past_nanos);
        if !is_ahead && !is_behind {
            return claimed;
        }
        self.note(if is_ahead { Change::Future } else { Change::Past });
        let seconds = i64::try_from(claimed / 1_000_000_000).unwrap_or(i64::MAX);
        let said =
            jiff::Timestamp::from_second(seconds).map_or_else(|_| claimed.to_string(), |at| at.to_string());
        // At the front, where they are not folded.
        attributes.insert(0, ("time.claimed".to_owned(), text(said)));
        self.now_nanos
    }

    fn message(&mut self, message: String, attributes: &mut Vec<(String, Value)>) -> String {
        let bytes = message.len();
        let message = self.cut(message, self.rules.message_bytes_max);
        if message.len() < bytes {
            attributes.insert(0, ("message.bytes".to_owned(), Value::from(bytes as u64)));
        }
        message
    }

    /// The attributes within bounds: the first stay apart, the rest becomes one text.
    pub(crate) fn attributes(&mut self, attributes: Vec<(String, Value)>) -> Attributes {
        let apart = self.rules.attributes_max - 1;
        let is_too_many = attributes.len() > self.rules.attributes_max;
        let bytes_max = self.rules.attribute_bytes_max;
        let mut kept: Attributes = Vec::with_capacity(attributes.len().min(self.rules.attributes_max));
        let mut rest = String::new();
        for (index, (name, value)) in attributes.into_iter().enumerate() {
            if is_too_many && index >= apart {
                if rest.len() < bytes_max {
                    let _never =
                        write!(rest, "{}={} ", head(&name, NAME_BYTES_MAX), shown(&value, bytes_max));
                }
                continue;
            }
            let value = match value {
                Value::Private(long) if long.reveal().len() > bytes_max => {
                    text(self.cut(long.into_inner(), bytes_max))
                }
                value => value,
            };
            kept.push((Name::Owned(self.cut(name, NAME_BYTES_MAX)), value));
        }
        if is_too_many {
            self.note(Change::Folded);
            rest.truncate(rest.floor_char_boundary(bytes_max));
            kept.push(("attributes.rest".into(), text(rest)));
        }
        kept
    }

    fn cut(&mut self, mut long: String, bytes_max: usize) -> String {
        if long.len() > bytes_max {
            self.note(Change::Cut);
            long.truncate(long.floor_char_boundary(bytes_max));
        }
        long
    }

    fn note(&mut self, change: Change) {
        self.changes[change as usize] += 1;
    }
}

/// A stranger's text.
pub(crate) fn text(text: impl Into<String>) -> Value {
    Value::Private(Pii::new(text.into()))
}

/// The beginning of a text, of at most so many bytes.
pub(crate) fn head(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn shown(value: &Value, bytes_max: usize) -> String {
    match value {
        Value::Private(text) => head(text.reveal(), bytes_max).to_owned(),
        other => other.to_string(),
    }
}

/// The call that a record names, if it does.
fn call_id(attributes: &[(String, Value)]) -> Option<Pii<String>> {
    CALL_ID_NAMES.iter().find_map(|wanted| {
        attributes.iter().find_map(|(name, value)| match value {
            Value::Private(text) if name == wanted && (1..=1024).contains(&text.reveal().len()) => {
                Some(text.clone())
            }
            _ => None,
        })
    })
}

/// Where in a trace, from bytes of the right length that are not all zero.
pub(crate) fn context(trace_id: &[u8], span_id: &[u8], is_sampled: bool) -> Option<SpanContext> {
    let trace_id: [u8; 16] = trace_id.try_into().ok().filter(|bytes| *bytes != [0; 16])?;
    // A log line may belong to a trace and to no span of it.
    let span_id: [u8; 8] = span_id.try_into().unwrap_or_default();
    Some(SpanContext { trace_id: TraceId(trace_id), span_id: SpanId(span_id), sampled: is_sampled })
}

/// How much a line matters, by the words that loggers use.
pub(crate) fn severity(word: &str) -> Option<Severity> {
    let word = head(word.trim(), 16).to_ascii_lowercase();
    Some(match word.as_str() {
        "trace" | "debug" | "dbug" | "verbose" | "finest" | "finer" | "fine" => Severity::Debug,
        "info" | "information" | "informational" | "notice" | "log" => Severity::Info,
        "warn" | "warning" => Severity::Warn,
        "err" | "error" | "severe" | "crit" | "critical" | "alert" | "emerg" | "emergency" | "fatal"
        | "panic" | "dpanic" => Severity::Error,
        _ => return None,
    })
}

/// The name of a field inside another. Of the outer name only so much is kept as a name may have in the end, because it
/// is copied for each of the fields.
pub(crate) fn below(name: &str, field: String) -> String {
    if name.is_empty() { field } else { format!("{}.{field}", head(name, NAME_BYTES_MAX)) }
}

/// A JSON value as attributes: objects become names with dots, lists become text.
pub(crate) fn flatten(name: &str, value: serde_json::Value, depth: usize, into: &mut Vec<(String, Value)>) {
    use serde_json::Value as Json;
    let owned = || name.to_owned();
    match value {
        Json::Null => {}
        Json::Bool(truth) => into.push((owned(), truth.into())),
        Json::Number(number) => into.push((
            owned(),
            match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => whole.into(),
                (None, Some(measured)) => measured.into(),
                (None, None) => text(number.to_string()),
            },
        )),
        Json::String(string) => into.push((owned(), text(string))),
        Json::Object(fields) if depth < DEPTH_MAX => {
            for (field, value) in fields {
                let path = below(name, field);
                flatten(&path, value, depth + 1, into);
            }
        }
        nested @ (Json::Array(_) | Json::Object(_)) => into.push((owned(), text(nested.to_string()))),
    }
}

/// A log line from the fields of a JSON object, by the names that shippers use for time, text, level and trace.
pub(crate) fn log_of_fields(mut fields: Vec<(String, Value)>, whole: impl FnOnce() -> String) -> ForeignLog {
    let mut take = |names: &[&str]| -> Option<Value> {
        let at = names.iter().find_map(|name| fields.iter().position(|(own, _)| own == name))?;
        Some(fields.remove(at).1)
    };
    let unix_nanos = take(&["@timestamp", "timestamp", "time", "ts"]).as_ref().and_then(time_of);
    let message = take(&["message", "msg", "log", "body", "MESSAGE"]).map(|value| shown(&value, usize::MAX));
    let level = take(&["log.level", "level", "severity", "severity_text", "lvl", "PRIORITY"]);
    let level_text = level.as_ref().map(|value| shown(value, 16));
    let severity = level_text.as_deref().and_then(|word| severity(word).or_else(|| syslog_severity(word)));
    let hex_field =
        |value: Option<Value>| value.and_then(|value| hex(&shown(&value, 64))).unwrap_or_default();
    let trace_id = hex_field(take(&["trace_id", "trace.id", "traceId"]));
    let span_id = hex_field(take(&["span_id", "span.id", "spanId"]));
    if let (None, Some(level)) = (severity, level) {
        fields.push(("level".to_owned(), level));
    }
    ForeignLog {
        unix_nanos,
        severity: severity.unwrap_or(Severity::Info),
        message: message.unwrap_or_else(whole),
        attributes: fields,
        context: context(&trace_id, &span_id, true),
    }
}

/// Syslog's numbers, as journald writes them.
fn syslog_severity(word: &str) -> Option<Severity> {
    let number: u8 = word.parse().ok().filter(|number| *number < 8)?;
    Some(super::syslog::severity(number))
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// A time as text (RFC 3339) or as a number of seconds, milliseconds, microseconds or nanoseconds, told by its size.
pub(crate) fn time_of(value: &Value) -> Option<u64> {
    match value {
        Value::Private(text) => {
            let text = text.reveal().trim();
            if let Ok(number) = text.parse() {
                return whole_nanos(number);
            }
            let stamp: Option<jiff::Timestamp> = text.parse().ok();
            let nanos = stamp.and_then(|stamp| u64::try_from(stamp.as_nanosecond()).ok());
            nanos.or_else(|| text.parse::<f64>().ok().and_then(nanos_of_number))
        }
        Value::Int(number) => whole_nanos(*number),
        Value::Float(number) => nanos_of_number(*number),
        Value::Text(_) | Value::Bool(_) => None,
    }
}

fn whole_nanos(number: i64) -> Option<u64> {
    let number = u64::try_from(number).ok()?;
    let factor = match number {
        0..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    number.checked_mul(factor)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded before")]
fn nanos_of_number(number: f64) -> Option<u64> {
    if !(0.0..9e18).contains(&number) {
        return None;
    }
    if number.fract() == 0.0 {
        return whole_nanos(number as i64);
    }
    // With a fraction it is seconds or milliseconds.
    let seconds = if number < 1e11 { number } else { number / 1e3 };
    Some((seconds * 1e9) as u64)
}

#[cfg(test)]
mod tests;
