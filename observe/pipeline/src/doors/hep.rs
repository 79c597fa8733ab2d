//! HEP in: what agents of Kamailio, OpenSIPS, FreeSWITCH, rtpengine and sniffers capture becomes messages and calls of
//! our store, as if we had carried them.
//!
//! A captured message is told from where it went: its node is `AGENT/ADDRESS` of who sent it, its peer is to whom. RTCP
//! reports and other payloads become log lines of their call.

mod calls;
mod packet;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use belfry_signal::record::{Body, Direction, Name, SipMessage};
use belfry_signal::{Pii, Record, Severity, TraceKey, Value};
use belfry_sip_proto::{Limits, Parsed, known_method};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

use self::calls::{Calls, Learnt, Seen};
use self::packet::Packet;
use super::config::HepConfig;
use super::flow::{Frame, Passing, Protocol};
use super::intake::{Intake, Origin};
use super::listen::stopped;
use super::open::{DoorsError, read_small};
use super::refusal::{Reason, Refusal};
use super::shape::{ForeignLog, Shaper, flatten, log_of_fields, text};
use super::signals::{CallEnd, Entrance, Signals};

/// Payloads of SIP.
const SIP: u8 = 1;
/// Between two looks for calls that are over.
const SWEEP: Duration = Duration::from_secs(10);
/// Characters of an agent's name.
const AGENT_CHARS_MAX: usize = 32;
/// Bytes of a Call-ID; messages with longer ones are refused at our edge too.
const CALL_ID_BYTES_MAX: usize = 1024;

/// HEP as a protocol of streams and datagrams.
#[derive(Clone, Debug)]
pub(super) struct Hep {
    key: Option<Arc<[u8]>>,
    trace_key: TraceKey,
    signals: Signals,
    calls: Arc<Mutex<Calls>>,
}

impl Hep {
    pub(super) fn new(config: &HepConfig, intake: &Intake) -> Result<Self, DoorsError> {
        let key = config.key_file.as_deref().map(read_small).transpose()?;
        let calls = Calls::new(config.calls_max, config.call_idle, intake.region().clone(), Instant::now());
        Ok(Self {
            key: key.map(|key| key.into_bytes().into()),
            trace_key: intake.trace_key().clone(),
            signals: intake.signals().clone(),
            calls: Arc::new(Mutex::new(calls)),
        })
    }

    /// Ends calls of which nothing is heard any more, until told to stop.
    pub(super) async fn sweep(self, intake: Intake, mut stop: watch::Receiver<bool>) {
        let origin = Origin { door: Entrance::Hep, sender: IpAddr::from([0, 0, 0, 0]) };
        while tokio::time::timeout(SWEEP, stopped(&mut stop)).await.is_err() {
            let (ended, open) = {
                let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
                (calls.sweep(Instant::now()), calls.open())
            };
            self.signals.captured_calls(open);
            let records = ended.into_iter().map(|(unix_nanos, call, end)| {
                self.signals.captured_call_ended(end);
                record(unix_nanos, Body::Call(Box::new(call)))
            });
            // Counted there.
            let _ = intake.store(&origin, records.collect()).await;
        }
    }

    fn check_key(&self, shown: Option<&[u8]>) -> Result<(), Refusal> {
        let Some(key) = &self.key else { return Ok(()) };
        let is_right = shown.is_some_and(|shown| bool::from(shown.ct_eq(key)));
        if is_right {
            Ok(())
        } else {
            Err(Refusal::new(Reason::Token, "a packet shows no key, or a wrong one"))
        }
    }

    /// A SIP message, and the call that it ended.
    fn sip(
        &self,
        packet: &Packet<'_>,
        shaper: &mut Shaper<'_>,
        into: &mut Vec<Record>,
    ) -> Result<(), Refusal> {
        // Phones keep their way open with blank lines.
        if packet.payload.trim_ascii().is_empty() {
            return Ok(());
        }
        // What is faulty was captured all the same, and is the more worth seeing.
        let (message, fault) = Parsed::scan(packet.payload.as_ref(), &Limits::default());
        let why = || fault.as_ref().map_or_else(|| "no SIP message".to_owned(), ToString::to_string);
        let message = message.ok_or_else(|| Refusal::malformed(why()))?;
        let call_id = message.call_id().filter(|call_id| (1..=CALL_ID_BYTES_MAX).contains(&call_id.len()));
        let call_id = call_id.ok_or_else(|| Refusal::malformed("a SIP message has no usable Call-ID"))?;
        let unix_nanos = shaper.time(packet.unix_nanos, &mut Vec::new());
        let trace_id = self.trace_key.trace_of_call(call_id);
        let via = message.top_via();
        let transport = transport(packet, via.as_ref().map(|via| via.transport));
        let method = message.method();
        let cseq = message.cseq();
        let aor = |address: Option<belfry_sip_proto::NameAddr<'_>>| {
            address.map_or_else(String::new, |address| address.uri.address_of_record())
        };
        let seen = Seen {
            unix_nanos,
            source: packet.source,
            destination: packet.destination,
            call_id,
            trace_id,
            status: message.status(),
            method,
            cseq: cseq.as_ref().map_or(0, |cseq| cseq.number),
            branch: via.as_ref().and_then(|via| via.branch()).unwrap_or_default(),
            transport,
            from: &aor(message.from()),
            to: &aor(message.to()),
            from_tag: message.from_tag().unwrap_or_default(),
            has_to_tag: message.to_tag().is_some(),
        };
        let Learnt { is_repeat, ended, is_unfollowed } =
            self.calls.lock().unwrap_or_else(PoisonError::into_inner).take(&seen, Instant::now());
        if is_unfollowed {
            self.signals.captured_call_ended(CallEnd::Unfollowed);
        }
        let summary = match (seen.status, known_method(method)) {
            (Some(status), _) => Name::Owned(status.to_string()),
            (None, Some(_)) => Name::Owned(method.to_owned()),
            (None, None) => Name::Borrowed("OTHER"),
        };
        let captured = SipMessage {
            call_id: Pii::new(call_id.to_owned()),
            trace_id,
            direction: Direction::Sent,
            transport: Name::Borrowed(transport),
            peer: Pii::new(packet.destination),
            node: Name::Owned(format!("{}/{}", agent(packet), packet.source)),
            summary,
            cseq: cseq.map_or_else(String::new, |cseq| format!("{} {}", cseq.number, cseq.method)),
            retransmission: is_repeat,
            bytes: Pii::new(packet.payload.to_vec()),
        };
        into.push(record(unix_nanos, Body::Sip(captured)));
        if let Some((unix_nanos, call)) = ended {
            self.signals.captured_call_ended(CallEnd::Ended);
            into.push(record(unix_nanos, Body::Call(Box::new(call))));
        }
        Ok(())
    }

    /// Anything else as a log line of the call that it names.
    fn line(packet: &Packet<'_>, shaper: &mut Shaper<'_>, into: &mut Vec<Record>) {
        let payload = shaper.text(&packet.payload).into_owned();
        let mut log = match serde_json::from_str::<serde_json::Map<_, _>>(&payload) {
            Ok(fields) => {
                let mut flat = Vec::new();
                flatten("", serde_json::Value::Object(fields), 0, &mut flat);
                log_of_fields(flat, || kind_name(packet.kind).to_owned())
            }
            Err(_) => ForeignLog {
                unix_nanos: None,
                severity: Severity::Info,
                message: payload,
                attributes: Vec::new(),
                context: None,
            },
        };
        log.unix_nanos = packet.unix_nanos;
        let correlation = packet.correlation.map(|correlation| shaper.text(correlation).into_owned());
        // The agent knows the call better than what it captured.
        log.attributes.retain(|(name, _)| name != "sip.call_id" || correlation.is_none());
        log.attributes.extend(correlation.map(|call_id| ("sip.call_id".to_owned(), text(call_id))));
        log.attributes.extend([
            ("hep.kind".to_owned(), Value::from(i64::from(packet.kind))),
            ("host.name".to_owned(), text(agent(packet))),
            ("net.source".to_owned(), text(packet.source.to_string())),
            ("net.destination".to_owned(), text(packet.destination.to_string())),
        ]);
        into.push(shaper.log(log));
    }
}

impl Protocol for Hep {
    const DOOR: Entrance = Entrance::Hep;

    fn frame(&self, _passing: &mut Passing, buffer: &[u8], _is_end: bool) -> Frame {
        frame(buffer)
    }

    fn decode(
        &self,
        message: &[u8],
        _sender: IpAddr,
        shaper: &mut Shaper<'_>,
        into: &mut Vec<Record>,
    ) -> Result<(), Refusal> {
        let packet = packet::parse_known(message, |shown| self.check_key(shown))?;
        if packet.kind == SIP {
            return self.sip(&packet, shaper, into);
        }
        if !packet.payload.is_empty() {
            Self::line(&packet, shaper, into);
        }
        Ok(())
    }
}

fn frame(buffer: &[u8]) -> Frame {
    match packet::length(buffer) {
        Err(why) => Frame::Broken(why),
        Ok(Some(length)) if length <= buffer.len() => Frame::Message { at: 0..length, taken: length },
        Ok(_) => Frame::More,
    }
}

fn record(unix_nanos: u64, body: Body) -> Record {
    Record { unix_nanos, component: Name::Borrowed(Entrance::Hep.component()), body }
}

/// The transport in our words: what the message says, if the packet does not speak against it.
fn transport(packet: &Packet<'_>, via: Option<&str>) -> &'static str {
    let said = ["udp", "tcp", "tls", "ws", "wss", "sctp"]
        .into_iter()
        .find(|name| via.is_some_and(|via| via.eq_ignore_ascii_case(name)));
    match (packet.ip_protocol, said) {
        (17, _) => "udp",
        (6, Some(said)) if said != "udp" => said,
        (6, _) => "tcp",
        (132, _) => "sctp",
        (_, said) => said.unwrap_or("other"),
    }
}

/// The agent's own name, or its number.
fn agent(packet: &Packet<'_>) -> String {
    let name = packet.agent_name.and_then(|name| std::str::from_utf8(name).ok()).map(str::trim);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match name.filter(|name| (1..=AGENT_CHARS_MAX).contains(&name.len()) && name.chars().all(is_plain)) {
        Some(name) => name.to_owned(),
        None => format!("hep-{}", packet.agent),
    }
}

/// What a payload that is an object without a message is called.
fn kind_name(kind: u8) -> &'static str {
    match kind {
        5 => "rtcp report",
        34 | 35 => "rtp report",
        53 => "dns",
        _ => "captured",
    }
}

#[cfg(test)]
pub(super) use self::packet::tests;

/// For the fuzzer.
#[doc(hidden)]
pub(super) mod fuzz {
    use super::super::config::DoorsConfig;
    use super::super::flow::Frame;
    use super::super::shape::{Rules, Shaper};
    use super::super::signals::Entrance;
    use super::{Hep, SIP, frame, packet};

    /// Any bytes as packets.
    pub fn hep(bytes: &[u8]) {
        let rules = Rules::of(&DoorsConfig::default());
        let mut shaper = Shaper::new(&rules, Entrance::Hep, 1_795_000_000_000_000_000);
        let mut rest = bytes;
        while let Frame::Message { at, taken } = frame(rest) {
            if let Ok(packet) = packet::parse(&rest[at])
                && packet.kind != SIP
            {
                Hep::line(&packet, &mut shaper, &mut Vec::new());
            }
            rest = &rest[taken..];
        }
        let _packet = packet::parse(bytes);
    }
}
