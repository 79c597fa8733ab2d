//! Loki's push API: streams of lines with labels, in JSON and in protobuf packed with snappy.
//!
//! Answers are Loki's: 204 when all is durable, 400 with the reason when a request is not understood, 429 when it
//! should come again later. Labels and structured metadata become attributes.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use belfry_door::PeerAddress;
use belfry_signal::{Record, Value};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use prost::Message;
use serde::Deserialize;

use super::http::{answer, origin, too_long, unpack};
use super::intake::{Intake, Room};
use super::refusal::{Reason, Refusal};
use super::shape::{Expansion, Shaper, bytes_of, log_of_fields, text};
use super::signals::Entrance;

/// What Loki calls a push, of `pkg/push/push.proto`.
#[derive(Clone, PartialEq, Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<StreamProto>,
}

#[derive(Clone, PartialEq, Message)]
struct StreamProto {
    /// As `{job="a", host="b"}`.
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<EntryProto>,
}

#[derive(Clone, PartialEq, Message)]
struct EntryProto {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<TimestampProto>,
    #[prost(bytes = "vec", tag = "2")]
    line: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    structured_metadata: Vec<PairProto>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct TimestampProto {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct PairProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Deserialize)]
struct PushJson {
    streams: Vec<StreamJson>,
}

#[derive(Deserialize)]
struct StreamJson {
    #[serde(default)]
    stream: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    values: Vec<Vec<serde_json::Value>>,
}

/// The paths that agents ask for.
pub(super) fn router(intake: Intake) -> Router {
    Router::new()
        .route("/loki/api/v1/push", post(push))
        .route("/api/prom/push", post(push))
        .route("/ready", get(async || "ready\n"))
        .with_state(intake)
}

async fn push(
    State(intake): State<Intake>,
    peer: Option<Extension<PeerAddress>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let origin = origin(Entrance::Loki, peer.map(|Extension(peer)| peer));
    intake.received(&origin, body.len());
    let mut shaper = intake.shaper(Entrance::Loki);
    let read = read(&intake, &headers, body.clone(), &mut shaper);
    intake.note_changes(Entrance::Loki, &shaper);
    let (_room, records) = match read {
        Ok(read) => read,
        Err(refusal) => {
            intake.refused(&origin, &refusal, 1, &body);
            return answer(&intake, &refusal, format!("{refusal}\n"));
        }
    };
    match intake.store(&origin, records).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => answer(&intake, &refusal, format!("{refusal}\n")),
    }
}

/// The lines of a push that is unpacked.
type Decode = fn(&[u8], &mut Shaper<'_>) -> Result<Vec<Record>, Refusal>;

fn read(
    intake: &Intake,
    headers: &HeaderMap,
    body: Bytes,
    shaper: &mut Shaper<'_>,
) -> Result<([Room; 2], Vec<Record>), Refusal> {
    let bytes_max = intake.config().request_bytes_max;
    let first = intake.try_room(body.len())?;
    let is_json =
        headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let (bytes, decode): (Bytes, Decode) = if is_json {
        (unpack(headers, body, bytes_max)?, json)
    } else {
        (unsnap(&unpack(headers, body, bytes_max)?, bytes_max)?.into(), protobuf)
    };
    let second = intake.try_room(bytes.len())?;
    Ok(([first, second], decode(&bytes, shaper)?))
}

fn unsnap(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    let wrong = |error: snap::Error| Refusal::malformed(format!("the body is not snappy: {error}"));
    if snap::raw::decompress_len(packed).map_err(wrong)? > bytes_max {
        return Err(too_long(bytes_max));
    }
    snap::raw::Decoder::new().decompress_vec(packed).map_err(wrong)
}

/// The lines of a push in protobuf.
fn protobuf(bytes: &[u8], shaper: &mut Shaper<'_>) -> Result<Vec<Record>, Refusal> {
    let request =
        PushRequest::decode(bytes).map_err(|error| Refusal::malformed(format!("Loki push: {error}")))?;
    let (mut records, mut expansion) = (Vec::new(), Expansion::default());
    for stream in request.streams {
        let labels = labels(&stream.labels).ok_or_else(|| {
            Refusal::malformed("labels of a stream are not {name=\"value\", ...}, as Loki writes them")
        })?;
        check(&mut expansion, &labels, stream.entries.len())?;
        for entry in stream.entries {
            let unix_nanos = entry.timestamp.and_then(|TimestampProto { seconds, nanos }| {
                let nanos = u64::try_from(nanos).ok()?;
                u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
            });
            let mut fields: Vec<(String, Value)> =
                entry.structured_metadata.into_iter().map(|pair| (pair.name, text(pair.value))).collect();
            fields.extend(labels.iter().cloned());
            let line = shaper.text(&entry.line).into_owned();
            records.push(line_record(unix_nanos, line, fields, shaper));
        }
    }
    Ok(records)
}

/// The lines of a push in JSON.
fn json(bytes: &[u8], shaper: &mut Shaper<'_>) -> Result<Vec<Record>, Refusal> {
    let request: PushJson =
        serde_json::from_slice(bytes).map_err(|error| Refusal::malformed(format!("Loki push: {error}")))?;
    let (mut records, mut expansion) = (Vec::new(), Expansion::default());
    for stream in request.streams {
        let plain = |(name, value): (String, serde_json::Value)| match value {
            serde_json::Value::String(string) => (name, text(string)),
            other => (name, text(other.to_string())),
        };
        let labels: Vec<(String, Value)> = stream.stream.into_iter().map(plain).collect();
        check(&mut expansion, &labels, stream.values.len())?;
        for tuple in stream.values {
            let mut tuple = tuple.into_iter();
            let (Some(serde_json::Value::String(time)), Some(serde_json::Value::String(line))) =
                (tuple.next(), tuple.next())
            else {
                return Err(Refusal::malformed("a value is [\"nanoseconds as text\", \"line\"]"));
            };
            let unix_nanos: u64 = time
                .parse()
                .map_err(|_| Refusal::malformed("the time of a value is text with nanoseconds since 1970"))?;
            let mut fields: Vec<(String, Value)> = match tuple.next() {
                Some(serde_json::Value::Object(metadata)) => metadata.into_iter().map(plain).collect(),
                _ => Vec::new(),
            };
            fields.extend(labels.iter().cloned());
            records.push(line_record(Some(unix_nanos), line, fields, shaper));
        }
    }
    Ok(records)
}

/// Whether a stream's lines may be made, each with the stream's labels.
fn check(expansion: &mut Expansion, labels: &[(String, Value)], lines: usize) -> Result<(), Refusal> {
    let is_allowed = expansion.allows(bytes_of(labels), lines);
    if is_allowed { Ok(()) } else { Err(Refusal::new(Reason::TooLong, Expansion::REFUSED)) }
}

fn line_record(
    unix_nanos: Option<u64>,
    line: String,
    mut fields: Vec<(String, Value)>,
    shaper: &mut Shaper<'_>,
) -> Record {
    // The names that searches over all doors know.
    for (loki, ours) in [("service_name", "service.name"), ("job", "service.name"), ("host", "host.name")] {
        if !fields.iter().any(|(name, _)| name == ours)
            && let Some((_, value)) = fields.iter().find(|(name, _)| name == loki)
        {
            let value = value.clone();
            fields.push((ours.to_owned(), value));
        }
    }
    // A label may be called as a field of the line's own: time and text are the tuple's.
    let own = ["@timestamp", "timestamp", "time", "ts", "message", "msg", "log", "body", "MESSAGE"];
    let (kept, fields): (Vec<_>, Vec<_>) =
        fields.into_iter().partition(|(name, _)| own.contains(&name.as_str()));
    let mut log = log_of_fields(fields, || line);
    log.attributes.extend(kept);
    log.unix_nanos = unix_nanos;
    shaper.log(log)
}

/// `{name="value", other="value"}` with Go's escapes.
fn labels(written: &str) -> Option<Vec<(String, Value)>> {
    let mut rest = written.trim().strip_prefix('{')?.trim_start();
    let mut labels = Vec::new();
    while !rest.starts_with('}') {
        let (name, after) = rest.split_once('=')?;
        let mut characters = after.trim_start().strip_prefix('"')?.char_indices();
        let inner = after.trim_start().strip_prefix('"')?;
        let mut value = String::new();
        rest = loop {
            match characters.next()? {
                (at, '"') => break &inner[at + 1..],
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim().to_owned(), text(value)));
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some(labels)
}

/// For the fuzzer.
#[doc(hidden)]
pub(super) mod fuzz {
    use super::super::config::DoorsConfig;
    use super::super::shape::{Rules, Shaper};
    use super::{Entrance, json, labels, protobuf, unsnap};

    /// Any bytes as a push.
    pub fn loki(bytes: &[u8]) {
        let rules = Rules::of(&DoorsConfig::default());
        let mut shaper = Shaper::new(&rules, Entrance::Loki, 1_795_000_000_000_000_000);
        let _json = json(bytes, &mut shaper);
        let _protobuf = protobuf(bytes, &mut shaper);
        let _packed = unsnap(bytes, 1 << 20).map(|bytes| protobuf(&bytes, &mut shaper));
        let _labels = std::str::from_utf8(bytes).ok().and_then(labels);
    }
}

#[cfg(test)]
mod tests {
    use belfry_signal::Severity;
    use belfry_signal::record::Body;

    use super::*;
    use crate::doors::config::DoorsConfig;
    use crate::doors::shape::Rules;

    const NOW: u64 = 1_795_183_200_000_000_000;

    /// Nanoseconds before now, severity, line, names of attributes.
    type Line = (u64, Severity, String, Vec<String>);

    fn lines(bytes: &[u8], decode: Decode) -> Result<Vec<Line>, String> {
        let rules = Rules::of(&DoorsConfig::default());
        let mut shaper = Shaper::new(&rules, Entrance::Loki, NOW);
        let records = decode(bytes, &mut shaper).map_err(|refusal| refusal.text)?;
        let shown = |record: Record| {
            let Body::Log(log) = record.body else { panic!("a line") };
            let mut attributes: Vec<String> =
                log.attributes.iter().map(|(name, _)| name.to_string()).collect();
            attributes.sort();
            (NOW - record.unix_nanos, log.severity, log.message.into_owned(), attributes)
        };
        Ok(records.into_iter().map(shown).collect())
    }

    #[test]
    fn json_and_protobuf_say_the_same() {
        let time = (NOW - 5).to_string();
        let body = serde_json::json!({"streams": [{
            "stream": {"job": "web", "level": "warn"},
            "values": [[time, "GET /", {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "user": "7"}], [time, "B"]],
        }]});
        let expected = vec![
            (
                5,
                Severity::Warn,
                "GET /".to_owned(),
                vec!["job".to_owned(), "service.name".into(), "user".into()],
            ),
            (5, Severity::Warn, "B".to_owned(), vec!["job".to_owned(), "service.name".into()]),
        ];
        assert_eq!(lines(body.to_string().as_bytes(), json), Ok(expected.clone()));
        let timestamp = Some(TimestampProto { seconds: 1_795_183_199, nanos: 999_999_995 });
        let pair = |name: &str, value: &str| PairProto { name: name.into(), value: value.into() };
        let entry = |line: &str, structured_metadata| EntryProto {
            timestamp,
            line: line.as_bytes().to_vec(),
            structured_metadata,
        };
        let metadata = vec![pair("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"), pair("user", "7")];
        let stream = StreamProto {
            labels: "{job=\"web\", level=\"warn\"}".to_owned(),
            entries: vec![entry("GET /", metadata), entry("B", vec![])],
        };
        let packed = PushRequest { streams: vec![stream] }.encode_to_vec();
        assert_eq!(lines(&packed, protobuf), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |body: &str, part: &str| {
            let error = lines(body.as_bytes(), json).expect_err(body);
            assert!(error.contains(part), "{error}");
        };
        check("{", "Loki push: EOF");
        check(r#"{"streams":[{"stream":{},"values":[[1,"x"]]}]}"#, "nanoseconds as text");
        check(r#"{"streams":[{"stream":{},"values":[["soon","x"]]}]}"#, "text with nanoseconds");
        assert_eq!(labels("{a=\"b\\\"c\\n\" , d=\"\"}").map(|found| found.len()), Some(2));
        assert_eq!(labels("{}").map(|found| found.len()), Some(0));
        for bad in ["", "a=\"b\"", "{a=b}", "{a=\"b}", "{a"] {
            assert_eq!(labels(bad), None, "{bad}");
        }
        let bomb = snap::raw::Encoder::new().compress_vec(&vec![0; 8 << 20]).expect("in memory");
        assert!(unsnap(&bomb, 1 << 20).is_err());
    }
}
