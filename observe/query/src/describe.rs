//! One line about any record, and its particulars: what a list of search results shows.

use std::collections::BTreeMap;

use belfry_signal::record::{Attributes, Body, Direction, Quality, Record, SipMessage, SpanStatus};
use belfry_signal::{Pii, Value};

use crate::json::loss_ratio;
use crate::time::offset_millis;

/// The line, the Call-ID, the particulars.
pub(crate) type Description = (String, Option<String>, BTreeMap<String, serde_json::Value>);

/// One line about a record, its call, and its particulars.
pub(crate) fn describe(record: &Record) -> Description {
    let revealed = |call_id: &Option<Pii<String>>| call_id.as_ref().map(|call_id| call_id.reveal().clone());
    match &record.body {
        Body::Log(log) => {
            (log.message.as_ref().to_owned(), revealed(&log.call_id), attributes(&log.attributes))
        }
        Body::Span(span) => {
            let took = offset_millis(span.start_unix_nanos, record.unix_nanos);
            let message = format!("{} {} in {took:.3} ms", span.name, status(span.status));
            (message, revealed(&span.call_id), attributes(&span.attributes))
        }
        Body::Sip(sip) => describe_sip(sip),
        Body::Quality(quality) => describe_quality(quality),
        Body::Call(call) => {
            let message = format!(
                "{} {} {}: {} to {}",
                call.outcome,
                call.status_code,
                call.cause,
                call.caller.reveal(),
                call.callee.reveal()
            );
            let mut particulars = BTreeMap::new();
            particulars.insert("region".to_owned(), call.region.as_str().into());
            particulars.insert("transport".to_owned(), call.transport.as_ref().into());
            if let Some(mos) = call.mos_min {
                particulars.insert("rtc.mos_min".to_owned(), mos.into());
            }
            (message, Some(call.call_id.reveal().clone()), particulars)
        }
    }
}

fn describe_sip(sip: &SipMessage) -> Description {
    let (verb, word) = match sip.direction {
        Direction::Received => ("received", "from"),
        Direction::Sent => ("sent", "to"),
    };
    let message = format!("{} {verb} {word} {} over {}", sip.summary, sip.peer.reveal(), sip.transport);
    let mut particulars = BTreeMap::new();
    particulars.insert("sip.cseq".to_owned(), sip.cseq.as_str().into());
    particulars.insert("node".to_owned(), sip.node.as_ref().into());
    if sip.retransmission {
        particulars.insert("sip.retransmission".to_owned(), true.into());
    }
    (message, Some(sip.call_id.reveal().clone()), particulars)
}

fn describe_quality(quality: &Quality) -> Description {
    let mos = quality.mos.map_or_else(|| "unknown".to_owned(), |mos| format!("{mos:.2}"));
    let loss = loss_ratio(quality.packets, quality.lost);
    let message = format!(
        "{} leg: MOS {mos}, loss {:.1} %, jitter {:.1} ms",
        quality.leg,
        loss * 100.0,
        quality.jitter_ms
    );
    let mut particulars = BTreeMap::new();
    particulars.insert("rtc.leg".to_owned(), quality.leg.as_ref().into());
    particulars.insert("geo.region".to_owned(), quality.region.as_str().into());
    particulars.insert("rtp.loss_ratio".to_owned(), loss.into());
    particulars.insert("rtp.jitter_ms".to_owned(), quality.jitter_ms.into());
    if let Some(mos) = quality.mos {
        particulars.insert("rtc.mos".to_owned(), mos.into());
    }
    (message, Some(quality.call_id.reveal().clone()), particulars)
}

/// How a span ended.
pub(crate) fn status(status: SpanStatus) -> &'static str {
    if status == SpanStatus::Error { "error" } else { "ok" }
}

/// Attributes by name.
pub(crate) fn attributes(attributes: &Attributes) -> BTreeMap<String, serde_json::Value> {
    attributes.iter().map(|(name, value)| (name.as_ref().to_owned(), value_json(value))).collect()
}

fn value_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => text.as_ref().into(),
        Value::Private(text) => text.reveal().as_str().into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Bool(truth) => (*truth).into(),
    }
}
