//! `belfry sip parse`: what we make of one SIP message, as one JSON line.

use belfry_sip_proto::{HeaderName, Limits, Message, Verdict, judge as verdict_of};
use serde_json::{Value, json};

/// The verdict, the status that we would answer, the reason, the start line and the main headers.
#[must_use]
pub fn judge(file: &str, bytes: &[u8]) -> Value {
    let limits = Limits::default();
    let (verdict, status, reason, position) = match verdict_of(bytes, &limits) {
        Verdict::Accept => ("ok", None, None, None),
        Verdict::Reject { status, reason, position } => {
            ("reject", Some(status), Some(reason), Some(position))
        }
        // Nobody is answered; the verdict is a refusal all the same.
        Verdict::Discard { reason, position } => ("reject", None, Some(reason), Some(position)),
    };
    let (message, _) = Message::scan(bytes, &limits);
    json!({
        "file": file,
        "verdict": verdict,
        "status": status,
        "reason": reason,
        "position": position,
        "start_line": message.as_ref().map(start_line),
        "headers": message.as_ref().map(main_headers),
    })
}

fn start_line(message: &Message<'_>) -> Value {
    match message.status() {
        Some(code) => json!({ "status": code, "reason": message.reason_phrase() }),
        None => json!({ "method": message.method(), "uri": message.request_uri() }),
    }
}

fn main_headers(message: &Message<'_>) -> Value {
    let text = |name: HeaderName| {
        let values: Vec<String> = message
            .fields()
            .filter(|field| field.id == name)
            .map(|field| field.text().into_owned())
            .collect();
        if values.len() == 1 { json!(values[0]) } else { json!(values) }
    };
    json!({
        "via": text(HeaderName::Via),
        "from": text(HeaderName::From),
        "to": text(HeaderName::To),
        "call_id": text(HeaderName::CallId),
        "cseq": text(HeaderName::CSeq),
        "contact": text(HeaderName::Contact),
        "max_forwards": message.max_forwards(),
        "content_length": message.body().len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = "OPTIONS sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\n\
        From: <sip:a@example.com>;tag=1\r\nt: <sip:b@example.com>\r\ni: x@y\r\nCSeq: 1 OPTIONS\r\n\
        Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn a_good_message_is_ok_with_its_headers() {
        let line = judge("good.sip", OPTIONS.as_bytes());
        assert_eq!((&line["verdict"], &line["status"]), (&json!("ok"), &Value::Null));
        assert_eq!(line["start_line"], json!({ "method": "OPTIONS", "uri": "sip:b@example.com" }));
        assert_eq!(
            (&line["headers"]["call_id"], &line["headers"]["to"]),
            (&json!("x@y"), &json!("<sip:b@example.com>"))
        );
    }

    #[test]
    fn a_bad_message_names_status_reason_and_place() {
        let line = judge("bad.sip", OPTIONS.replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia").as_bytes());
        assert_eq!(
            (&line["verdict"], &line["status"], &line["reason"]),
            (&json!("reject"), &json!(505), &json!("version"))
        );
        assert_eq!(judge("noise", b"\x00\xff")["verdict"], json!("reject"));
    }
}
