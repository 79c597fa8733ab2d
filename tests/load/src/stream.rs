//! A seeded stream of records as an edge, a core and a relay emit them: registrations with digest, calls with both
//! legs, media quality and call records, HTTPS access logs, and now and then a warning.

use std::fmt::Write as _;
use std::net::SocketAddr;

use belfry_signal::record::{
    Attributes, Body, Call, Direction, Log, Quality, Record, SipMessage, Span, SpanKind, SpanStatus,
};
use belfry_signal::{Pii, Region, Severity, SpanContext, SpanId, TraceId, Value};

const AGENTS: [&str; 4] = [
    "Zoiper rv2.10.20.4",
    "Linphone/5.2.5 (belle-sip/5.3.90)",
    "Yealink SIP-T46U 108.86.0.45",
    "baresip v3.14.0 (arm64/linux)",
];
const PATHS: [&str; 6] = [
    "/api/v1/users/me",
    "/api/v1/conversations",
    "/assets/app.js",
    "/api/v1/presence",
    "/websocket",
    "/api/v1/calls/history",
];

/// Makes records without end.
#[derive(Debug)]
pub struct Stream {
    state: u64,
    number: u64,
    unix_nanos: u64,
    step_nanos: u64,
    calls: Vec<(String, TraceId)>,
}

struct Leg<'a> {
    call_id: &'a str,
    trace_id: TraceId,
    from: u64,
    to: u64,
    from_tag: u64,
    to_tag: u64,
    branch: u64,
    direction: Direction,
    peer: SocketAddr,
}

impl Stream {
    /// A stream that begins at a time and takes so long from one record to the next.
    #[must_use]
    pub fn new(seed: u64, unix_nanos: u64, step_nanos: u64) -> Self {
        Self { state: seed, number: 0, unix_nanos, step_nanos, calls: Vec::new() }
    }

    /// Some of the calls that were made: Call-ID and trace.
    #[must_use]
    pub fn calls(&self) -> &[(String, TraceId)] {
        &self.calls
    }

    /// The records of the next thing that happens.
    pub fn next_into(&mut self, records: &mut Vec<Record>) {
        self.number += 1;
        match self.number % 10 {
            0 => self.call(records),
            1 | 4 | 7 => self.register(records),
            _ => {
                for _ in 0..3 {
                    self.request(records);
                }
            }
        }
        if self.number.is_multiple_of(50) {
            let attributes = vec![
                ("mesh.peer".into(), Value::Text("core-fra-2".into())),
                ("error.message".into(), Value::Text("connection reset by peer (os error 104)".into())),
            ];
            let body = log(Severity::Warn, "mesh link lost, reconnecting", attributes, None);
            let record = self.record("core_mesh", body);
            records.push(record);
        }
    }

    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn record(&mut self, component: &'static str, body: Body) -> Record {
        self.unix_nanos += self.step_nanos;
        Record { unix_nanos: self.unix_nanos, component: component.into(), body }
    }

    fn trace(&mut self) -> TraceId {
        let (high, low) = (self.random(), self.random());
        TraceId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    fn context(&mut self, trace_id: TraceId) -> SpanContext {
        SpanContext { trace_id, span_id: SpanId(self.random().to_be_bytes()), sampled: true }
    }

    fn address(&mut self) -> SocketAddr {
        let bits = self.random();
        let octet = |shift: u32| u8::try_from(bits >> shift & 0xff).expect("a byte");
        SocketAddr::from(([84, octet(0) % 32, octet(8), octet(16)], 1024 + u16::from(octet(24)) * 17))
    }

    fn request(&mut self, records: &mut Vec<Record>) {
        let trace_id = self.trace();
        let context = self.context(trace_id);
        let pick = self.random();
        let path = PATHS[usize::try_from(pick % 6).expect("small")];
        let status: i64 = if pick.is_multiple_of(97) { 502 } else { 200 };
        let attributes: Attributes = vec![
            ("http.request.method".into(), "GET".into()),
            ("url.path".into(), Pii::new(path.to_owned()).into()),
            ("http.response.status_code".into(), status.into()),
            ("http.route".into(), "api".into()),
            ("edge.listener".into(), "https".into()),
            ("edge.flag".into(), if status == 200 { "fine" } else { "backend_error" }.into()),
            ("backend.name".into(), Value::Text(format!("app-{}", pick % 3).into())),
            ("duration_seconds".into(), (f64::from(u16::try_from(pick % 5000).expect("small")) / 1e5).into()),
            ("client.address".into(), Pii::new(self.address().to_string()).into()),
            (
                "user_agent.original".into(),
                Pii::new(
                    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36"
                        .to_owned(),
                )
                .into(),
            ),
            ("geo.region".into(), "eu-west".into()),
            ("geo.country".into(), "DE".into()),
        ];
        let severity = if status == 200 { Severity::Debug } else { Severity::Warn };
        let body = log(severity, "request", attributes, Some(context));
        let record = self.record("edge_gateway", body);
        records.push(record);
    }

    fn sip(&mut self, leg: &Leg<'_>, summary: &'static str, cseq: u32, method: &str, extra: &str) -> Record {
        let agent = AGENTS[usize::try_from(leg.from % 4).expect("small")];
        let mut text = String::with_capacity(900);
        let (from, to) = (leg.from, leg.to);
        let _ = match summary.parse::<u16>() {
            Ok(code) => {
                write!(text, "SIP/2.0 {code} {}\r\n", if code == 200 { "OK" } else { "Unauthorized" })
            }
            Err(_) => write!(text, "{summary} sip:{to}@sip.example.com SIP/2.0\r\n"),
        };
        let _ = write!(
            text,
            "Via: SIP/2.0/TLS {};branch=z9hG4bK-{:016x};rport={};received={}\r\nMax-Forwards: 70\r\n\
             From: <sip:{from}@sip.example.com>;tag={:012x}\r\nTo: <sip:{to}@sip.example.com>;tag={:012x}\r\n\
             Call-ID: {}\r\nCSeq: {cseq} {method}\r\nContact: <sip:{from}@{};transport=tls>;expires=600\r\n\
             Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE, SUBSCRIBE, INFO, UPDATE\r\n\
             Supported: replaces, outbound, gruu, path, timer\r\nUser-Agent: {agent}\r\n{extra}Content-Length: 0\r\n\r\n",
            leg.peer,
            leg.branch,
            leg.peer.port(),
            leg.peer.ip(),
            leg.from_tag & 0xffff_ffff_ffff,
            leg.to_tag & 0xffff_ffff_ffff,
            leg.call_id,
            leg.peer,
        );
        let message = SipMessage {
            call_id: Pii::new(leg.call_id.to_owned()),
            trace_id: leg.trace_id,
            direction: leg.direction,
            transport: "tls".into(),
            peer: Pii::new(leg.peer),
            node: "core-fra-1".into(),
            summary: summary.into(),
            cseq: format!("{cseq} {method}"),
            retransmission: false,
            bytes: Pii::new(text.into_bytes()),
        };
        self.record("core_signalling", Body::Sip(message))
    }

    fn leg<'a>(&mut self, call_id: &'a str, trace_id: TraceId) -> Leg<'a> {
        Leg {
            call_id,
            trace_id,
            from: 4_930_000_000 + self.random() % 200_000,
            to: 4_930_000_000 + self.random() % 200_000,
            from_tag: self.random(),
            to_tag: self.random(),
            branch: self.random(),
            direction: Direction::Received,
            peer: self.address(),
        }
    }

    fn span(&mut self, name: &'static str, trace_id: TraceId, call_id: &str, more: Attributes) -> Record {
        let context = self.context(trace_id);
        let mut attributes: Attributes = vec![
            ("sip.method".into(), if name == "sip.register" { "REGISTER" } else { "INVITE" }.into()),
            ("sip.response.status_code".into(), 200_i64.into()),
            ("sip.transport".into(), "tls".into()),
            ("geo.region".into(), "eu-west".into()),
            ("sip.call_id".into(), Pii::new(call_id.to_owned()).into()),
        ];
        attributes.extend(more);
        let body = Body::Span(Span {
            context,
            parent: None,
            name: name.into(),
            kind: SpanKind::Server,
            start_unix_nanos: self.unix_nanos - 3_000_000,
            status: SpanStatus::Ok,
            attributes,
            call_id: Some(Pii::new(call_id.to_owned())),
        });
        self.record("core_signalling", body)
    }

    /// Four messages and two spans.
    fn register(&mut self, records: &mut Vec<Record>) {
        let trace_id = self.trace();
        let call_id = format!("{:016x}{:08x}@84.17.3.9", self.random(), self.random() & 0xffff_ffff);
        let mut leg = self.leg(&call_id, trace_id);
        leg.to = leg.from;
        let nonce = format!("{:016x}{:016x}", self.random(), self.random());
        records.push(self.sip(&leg, "REGISTER", 1, "REGISTER", ""));
        leg.direction = Direction::Sent;
        let challenge = format!(
            "WWW-Authenticate: Digest realm=\"sip.example.com\", nonce=\"{nonce}\", algorithm=SHA-256, qop=\"auth\"\r\n"
        );
        records.push(self.sip(&leg, "401", 1, "REGISTER", &challenge));
        records.push(self.span("sip.transaction", trace_id, &call_id, vec![]));
        leg.direction = Direction::Received;
        leg.branch = self.random();
        let answer = format!(
            "Authorization: Digest username=\"{}\", realm=\"sip.example.com\", nonce=\"{nonce}\", uri=\"sip:sip.example.com\", response=\"{:016x}{:016x}{:016x}{:016x}\", algorithm=SHA-256, qop=auth, nc=00000001, cnonce=\"{:016x}\"\r\n",
            leg.from,
            self.random(),
            self.random(),
            self.random(),
            self.random(),
            self.random(),
        );
        records.push(self.sip(&leg, "REGISTER", 2, "REGISTER", &answer));
        leg.direction = Direction::Sent;
        records.push(self.sip(&leg, "200", 2, "REGISTER", "Date: Fri, 20 Nov 2026 11:20:48 GMT\r\n"));
        records.push(self.span("sip.register", trace_id, &call_id, vec![]));
    }

    /// Two legs of an answered call, its quality, spans and record.
    fn call(&mut self, records: &mut Vec<Record>) {
        let trace_id = self.trace();
        let call_id = format!("{:016x}-{:016x}@sip.example.com", self.random(), self.random());
        if self.calls.len() < 100_000 {
            self.calls.push((call_id.clone(), trace_id));
        }
        let mut leg = self.leg(&call_id, trace_id);
        let caller_peer = leg.peer;
        let callee_peer = self.address();
        let sdp = format!(
            "Content-Type: application/sdp\r\n\r\nv=0\r\no=- {} 1 IN IP4 84.17.3.9\r\ns=-\r\nc=IN IP4 84.17.3.9\r\nt=0 0\r\nm=audio {} RTP/AVP 96 0 8 101\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n",
            self.random(),
            10_000 + self.random() % 40_000,
        );
        for (summary, method, has_body) in [
            ("INVITE", "INVITE", true),
            ("180", "INVITE", false),
            ("200", "INVITE", true),
            ("ACK", "ACK", false),
            ("BYE", "BYE", false),
            ("200", "BYE", false),
        ] {
            for (direction, peer) in [(Direction::Received, caller_peer), (Direction::Sent, callee_peer)] {
                leg.direction = direction;
                leg.peer = peer;
                leg.branch = if method == summary { self.random() } else { leg.branch };
                let cseq = if method == "BYE" { 2 } else { 1 };
                records.push(self.sip(&leg, summary, cseq, method, if has_body { &sdp } else { "" }));
            }
        }
        for _ in 0..2 {
            for leg_name in ["caller", "callee"] {
                let mos = 3.0 + f64::from(u16::try_from(self.random() % 1400).expect("small")) / 1000.0;
                let body = Body::Quality(Quality {
                    call_id: Pii::new(call_id.clone()),
                    trace_id,
                    leg: leg_name.into(),
                    region: region(),
                    window_seconds: 5.0,
                    packets: 250,
                    lost: self.random() % 4,
                    jitter_ms: mos * 1.7,
                    rtt_ms: Some(mos * 9.1),
                    mos: Some(mos),
                    r_factor: Some(mos * 20.0),
                    payload_type: Some(96),
                });
                let record = self.record("media_relay", body);
                records.push(record);
            }
        }
        for name in ["sip.transaction", "sip.transaction", "sip.route", "sip.call"] {
            let more = vec![("sip.trunk".into(), Value::Text("carrier-a".into()))];
            records.push(self.span(name, trace_id, &call_id, more));
        }
        let outcome = ["answered", "answered", "answered", "busy", "failed"]
            [usize::try_from(self.random() % 5).expect("small")];
        let body = Body::Call(Box::new(Call {
            call_id: Pii::new(call_id.clone()),
            trace_id,
            start_unix_nanos: self.unix_nanos - 60_000_000_000,
            answer_unix_nanos: Some(self.unix_nanos - 55_000_000_000),
            caller: Pii::new(format!("sip:{}@sip.example.com", leg.from)),
            callee: Pii::new(format!("sip:{}@sip.example.com", leg.to)),
            region: region(),
            country: Some("DE".into()),
            transport: "tls".into(),
            tenant: Some("acme".into()),
            calling_trunk: None,
            called_trunk: Some("carrier-a".into()),
            outcome: outcome.into(),
            status_code: if outcome == "failed" { 503 } else { 200 },
            cause: "normal".into(),
            post_dial_seconds: Some(0.31),
            mos_min: Some(3.9),
            mos_mean: Some(4.2),
            silent_legs: vec![],
        }));
        let record = self.record("core_signalling", body);
        records.push(record);
    }
}

fn region() -> Region {
    Region::configured("eu-west").expect("a plain name")
}

fn log(
    severity: Severity,
    message: &'static str,
    attributes: Attributes,
    context: Option<SpanContext>,
) -> Body {
    Body::Log(Log { severity, message: message.into(), attributes, context, call_id: None })
}

/// The length of the record as a line of JSON, as a shipper of logs would send it: what "raw" means here.
#[must_use]
pub fn raw_bytes(record: &Record) -> usize {
    let mut object = serde_json::Map::new();
    object.insert("time".into(), record.unix_nanos.into());
    object.insert("component".into(), record.component.as_ref().into());
    object.insert("kind".into(), record.body.kind().into());
    let attributes = |object: &mut serde_json::Map<String, serde_json::Value>, attributes: &Attributes| {
        for (name, value) in attributes {
            let value = match value {
                Value::Text(text) => text.as_ref().into(),
                Value::Private(text) => text.reveal().as_str().into(),
                Value::Int(number) => (*number).into(),
                Value::Float(number) => (*number).into(),
                Value::Bool(truth) => (*truth).into(),
            };
            object.insert(name.to_string(), value);
        }
    };
    match &record.body {
        Body::Log(log) => {
            object.insert("severity".into(), log.severity.as_str().into());
            object.insert("message".into(), log.message.as_ref().into());
            if let Some(context) = &log.context {
                object.insert("trace_id".into(), context.trace_id.to_string().into());
                object.insert("span_id".into(), context.span_id.to_string().into());
            }
            attributes(&mut object, &log.attributes);
        }
        Body::Span(span) => {
            object.insert("name".into(), span.name.as_ref().into());
            object.insert("trace_id".into(), span.context.trace_id.to_string().into());
            object.insert("span_id".into(), span.context.span_id.to_string().into());
            object.insert("start".into(), span.start_unix_nanos.into());
            object.insert("status".into(), "ok".into());
            attributes(&mut object, &span.attributes);
        }
        Body::Sip(message) => {
            object.insert("call_id".into(), message.call_id.reveal().as_str().into());
            object.insert("trace_id".into(), message.trace_id.to_string().into());
            object.insert("peer".into(), message.peer.reveal().to_string().into());
            object.insert("node".into(), message.node.as_ref().into());
            object.insert("transport".into(), message.transport.as_ref().into());
            object.insert("direction".into(), "received".into());
            object.insert("summary".into(), message.summary.as_ref().into());
            object.insert("message".into(), String::from_utf8_lossy(message.bytes.reveal()).into());
        }
        Body::Quality(quality) => {
            return serde_json::to_string(quality).expect("plain").len() + 60;
        }
        Body::Call(call) => return serde_json::to_string(call).expect("plain").len() + 60,
    }
    serde_json::Value::Object(object).to_string().len()
}
