//! Every machine against the RFC's figures, in virtual time.

use std::time::{Duration, Instant};

use super::*;

const ANY: &[u8] = b"message";

/// A layer, the moment it began, and what it has put out as `milliseconds event`.
struct Bench {
    layer: TransactionLayer<&'static str>,
    start: Instant,
    now: Instant,
    trail: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let start = Instant::now();
        let layer = TransactionLayer::new(Timers::RFC3261, 8, start);
        Self { layer, start, now: start, trail: Vec::new() }
    }

    fn drain(&mut self) {
        let at = self.now.duration_since(self.start).as_millis();
        while let Some(output) = self.layer.next_output() {
            self.trail.push(match output {
                Output::Transmit { bytes, is_repeat, .. } => {
                    let text = String::from_utf8(bytes).expect("test bytes are text");
                    format!("{at} {}{text}", if is_repeat { "again " } else { "" })
                }
                Output::TimedOut { .. } => format!("{at} timed out"),
                Output::Terminated { .. } => format!("{at} terminated"),
            });
        }
    }

    /// Lets time pass up to `milliseconds` after the start.
    fn until(&mut self, milliseconds: u64) -> &mut Self {
        let target = self.start + Duration::from_millis(milliseconds);
        while let Some(deadline) = self.layer.deadline().filter(|deadline| *deadline <= target) {
            self.now = self.now.max(deadline);
            self.layer.on_time(self.now);
            self.drain();
        }
        self.now = target;
        self.layer.on_time(target);
        self.drain();
        self
    }

    fn request(&mut self, method: &str, branch: &str, is_reliable: bool) -> OnRequest {
        let key = server_key(method, branch);
        let outcome = self.layer.on_request(key, "caller", is_reliable, self.now);
        self.drain();
        outcome
    }

    fn new_request(&mut self, method: &str, is_reliable: bool) -> TransactionId {
        match self.request(method, "z9hG4bK1", is_reliable) {
            OnRequest::New(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn respond(&mut self, id: TransactionId, status: u16) -> Result<(), TransactionError> {
        let outcome = self.layer.respond(id, status, status.to_string().into_bytes(), self.now);
        self.drain();
        outcome
    }

    fn send(&mut self, method: &str, is_reliable: bool) -> TransactionId {
        let request = ClientRequest {
            key: ClientKey::new(b"z9hG4bKours", method.as_bytes()),
            method: kind(method),
            path: "callee",
            is_reliable,
            bytes: method.as_bytes().to_vec(),
        };
        let id = self.layer.send(request, self.now).expect("there is room");
        self.drain();
        id
    }

    fn response(&mut self, method: &str, status: u16) -> OnResponse {
        let key = ClientKey::new(b"Z9HG4BKOURS", method.as_bytes());
        let outcome = self.layer.on_response(&key, status, self.now);
        self.drain();
        outcome
    }

    #[track_caller]
    fn check(&mut self, expected: &[&str]) -> &mut Self {
        assert_eq!(std::mem::take(&mut self.trail), expected);
        self
    }
}

fn kind(method: &str) -> MethodKind {
    match method {
        "INVITE" => MethodKind::Invite,
        "ACK" => MethodKind::Ack,
        _ => MethodKind::Other,
    }
}

fn legacy() -> LegacyParts<'static> {
    LegacyParts {
        request_uri: b"sip:b@x",
        from_tag: b"f",
        call_id: b"c@x",
        cseq: 7,
        top_via: b"SIP/2.0/UDP h",
    }
}

fn server_key(method: &str, branch: &str) -> ServerKey {
    ServerKey::new(Some(branch.as_bytes()), b"host:5060", method.as_bytes(), kind(method), legacy)
}

#[test]
fn an_unheard_invite_follows_timers_a_and_b() {
    let mut bench = Bench::new();
    bench.send("INVITE", false);
    bench.until(60_000).check(&[
        "0 INVITE",
        "500 again INVITE",
        "1500 again INVITE",
        "3500 again INVITE",
        "7500 again INVITE",
        "15500 again INVITE",
        "31500 again INVITE",
        "32000 timed out",
        "32000 terminated",
    ]);
    assert!(bench.layer.is_empty());
}

#[test]
fn an_unheard_request_follows_timers_e_and_f() {
    let mut bench = Bench::new();
    bench.send("REGISTER", false);
    let mut expected = vec!["0 REGISTER".to_owned()];
    for at in [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500] {
        expected.push(format!("{at} again REGISTER"));
    }
    expected.extend(["32000 timed out".to_owned(), "32000 terminated".to_owned()]);
    assert_eq!(bench.until(60_000).trail, expected);
}

#[test]
fn reliable_transports_repeat_nothing_and_still_time_out() {
    for method in ["INVITE", "OPTIONS"] {
        let mut bench = Bench::new();
        bench.send(method, true);
        bench.until(60_000).check(&[&format!("0 {method}"), "32000 timed out", "32000 terminated"]);
    }
}

#[test]
fn a_provisional_answer_stops_timer_a_and_timer_b() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", false);
    bench.until(400);
    assert_eq!(bench.response("INVITE", 100), OnResponse::ToUser(id));
    assert_eq!(bench.until(179_000).response("INVITE", 180), OnResponse::ToUser(id));
    bench.check(&["0 INVITE"]);
}

#[test]
fn a_provisional_answer_slows_timer_e_to_t2() {
    let mut bench = Bench::new();
    bench.send("OPTIONS", false);
    bench.until(600);
    bench.response("OPTIONS", 100);
    bench.until(9_000).check(&["0 OPTIONS", "500 again OPTIONS", "4600 again OPTIONS", "8600 again OPTIONS"]);
}

#[test]
fn a_failed_invite_is_acknowledged_as_often_as_it_fails() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", false);
    assert_eq!(bench.response("INVITE", 486), OnResponse::ToUser(id));
    bench.layer.acknowledge(id, b"ACK".to_vec(), bench.now);
    bench.until(0).until(500);
    assert_eq!(bench.response("INVITE", 486), OnResponse::Absorbed(id));
    // A 2xx after a failure, or a late provisional one, changes nothing.
    assert_eq!(bench.response("INVITE", 180), OnResponse::Absorbed(id));
    assert_eq!(bench.response("INVITE", 200), OnResponse::Absorbed(id));
    // Timer D.
    bench.until(40_000).check(&["0 INVITE", "0 ACK", "500 again ACK", "32000 terminated"]);
    assert_eq!(bench.response("INVITE", 486), OnResponse::Stray);
}

#[test]
fn over_a_reliable_transport_the_ack_is_the_end() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", true);
    bench.response("INVITE", 404);
    bench.check(&["0 INVITE"]);
    bench.layer.acknowledge(id, b"ACK".to_vec(), bench.now);
    bench.drain();
    bench.check(&["0 ACK", "0 terminated"]);
}

#[test]
fn a_user_that_never_acknowledges_does_not_leak() {
    let mut bench = Bench::new();
    bench.send("INVITE", true);
    bench.response("INVITE", 100);
    bench.until(100_000).response("INVITE", 500);
    bench.until(200_000).check(&["0 INVITE", "132000 terminated"]);
}

#[test]
fn late_2xx_pass_for_timer_m() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", false);
    bench.response("INVITE", 180);
    assert_eq!(bench.response("INVITE", 200), OnResponse::ToUser(id));
    bench.until(31_990);
    assert_eq!(bench.response("INVITE", 200), OnResponse::ToUser(id));
    assert_eq!(bench.response("INVITE", 486), OnResponse::Absorbed(id));
    bench.until(40_000).check(&["0 INVITE", "32000 terminated"]);
    assert_eq!(bench.response("INVITE", 200), OnResponse::Stray);
}

#[test]
fn an_answered_request_lingers_for_timer_k() {
    let mut bench = Bench::new();
    let id = bench.send("BYE", false);
    bench.until(100);
    assert_eq!(bench.response("BYE", 200), OnResponse::ToUser(id));
    assert_eq!(bench.response("BYE", 200), OnResponse::Absorbed(id));
    bench.until(40_000).check(&["0 BYE", "5100 terminated"]);
    let mut bench = Bench::new();
    bench.send("BYE", true);
    bench.response("BYE", 200);
    bench.check(&["0 BYE", "0 terminated"]);
}

#[test]
fn a_cancelled_invite_without_an_answer_ends_after_64_t1() {
    let mut bench = Bench::new();
    let id = bench.send("INVITE", false);
    bench.response("INVITE", 180);
    bench.until(50_000);
    bench.layer.limit_after_cancel(id, bench.now);
    bench.until(90_000).check(&["0 INVITE", "82000 timed out", "82000 terminated"]);
}

#[test]
fn repeated_requests_are_answered_from_state() {
    let mut bench = Bench::new();
    let id = bench.new_request("REGISTER", false);
    // Trying: nothing to say yet.
    assert_eq!(bench.request("REGISTER", "z9hG4bK1", false), OnRequest::Repeated(id));
    bench.check(&[]);
    bench.respond(id, 100).expect("open");
    assert_eq!(bench.request("REGISTER", "Z9HG4BK1", false), OnRequest::Repeated(id));
    bench.until(1_000).respond(id, 200).expect("open");
    bench.request("REGISTER", "z9hG4bK1", false);
    assert_eq!(bench.respond(id, 500), Err(TransactionError::Over));
    // Timer J.
    bench.until(40_000).check(&["0 100", "0 again 100", "1000 200", "1000 again 200", "33000 terminated"]);
    let mut bench = Bench::new();
    let id = bench.new_request("REGISTER", true);
    bench.respond(id, 200).expect("open");
    bench.check(&["0 200", "0 terminated"]);
}

#[test]
fn a_refused_invite_is_repeated_until_acknowledged() {
    let mut bench = Bench::new();
    let id = bench.new_request("INVITE", false);
    bench.respond(id, 100).expect("open");
    assert_eq!(bench.request("INVITE", "z9hG4bK1", false), OnRequest::Repeated(id));
    bench.respond(id, 486).expect("open");
    bench.until(2_000);
    assert_eq!(bench.request("ACK", "z9hG4bK1", false), OnRequest::Acknowledged(id));
    bench.until(3_000);
    // Confirmed: repeats of either are absorbed in silence, until Timer I.
    assert_eq!(bench.request("ACK", "z9hG4bK1", false), OnRequest::Acknowledged(id));
    assert_eq!(bench.request("INVITE", "z9hG4bK1", false), OnRequest::Repeated(id));
    bench.until(20_000).check(&[
        "0 100",
        "0 again 100",
        "0 486",
        "500 again 486",
        "1500 again 486",
        "7000 terminated",
    ]);
}

#[test]
fn an_unacknowledged_refusal_follows_timers_g_and_h() {
    let mut bench = Bench::new();
    let id = bench.new_request("INVITE", false);
    bench.respond(id, 503).expect("open");
    let mut expected = vec!["0 503".to_owned()];
    for at in [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500] {
        expected.push(format!("{at} again 503"));
    }
    expected.extend(["32000 timed out".to_owned(), "32000 terminated".to_owned()]);
    assert_eq!(bench.until(60_000).trail, expected);
    let mut bench = Bench::new();
    let id = bench.new_request("INVITE", true);
    bench.respond(id, 503).expect("open");
    assert_eq!(bench.request("ACK", "z9hG4bK1", true), OnRequest::Acknowledged(id));
    bench.check(&["0 503", "0 terminated"]);
}

#[test]
fn an_accepted_invite_passes_2xx_and_ack_for_timer_l() {
    let mut bench = Bench::new();
    let id = bench.new_request("INVITE", false);
    bench.respond(id, 180).expect("open");
    bench.respond(id, 200).expect("open");
    // The user repeats its 2xx; a repeated INVITE is absorbed.
    bench.until(500).respond(id, 200).expect("accepted");
    assert_eq!(bench.request("INVITE", "z9hG4bK1", false), OnRequest::Repeated(id));
    assert_eq!(bench.request("ACK", "z9hG4bK1", false), OnRequest::AcknowledgedSuccess(id));
    assert_eq!(bench.respond(id, 486), Err(TransactionError::Over));
    bench.until(60_000).check(&["0 180", "0 200", "500 200", "32000 terminated"]);
}

#[test]
fn keys_tell_requests_apart_as_the_rfc_says() {
    let mut bench = Bench::new();
    let id = bench.new_request("INVITE", false);
    // The ACK of a 2xx has a branch of its own; a CANCEL is a transaction that knows its INVITE.
    assert_eq!(bench.request("ACK", "z9hG4bK2", false), OnRequest::Unmatched);
    assert_eq!(bench.layer.invite_of_cancel(&server_key("CANCEL", "z9hG4bK1")), Some(id));
    assert_eq!(bench.layer.invite_of_cancel(&server_key("CANCEL", "z9hG4bK2")), None);
    assert!(matches!(bench.request("CANCEL", "z9hG4bK1", false), OnRequest::New(_)));
    let other_host = ServerKey::new(Some(b"z9hG4bK1"), b"other:5060", b"INVITE", MethodKind::Invite, legacy);
    assert!(matches!(bench.layer.on_request(other_host, "x", false, bench.now), OnRequest::New(_)));
}

#[test]
fn old_peers_are_known_by_the_parts_of_rfc_2543() {
    let mut bench = Bench::new();
    let key = |method: &str, cseq| {
        let parts = LegacyParts { cseq, ..legacy() };
        ServerKey::new(Some(b"1"), b"host", method.as_bytes(), kind(method), || parts)
    };
    let OnRequest::New(id) = bench.layer.on_request(key("INVITE", 7), "x", false, bench.now) else {
        panic!("a first INVITE is new");
    };
    assert_eq!(bench.layer.on_request(key("INVITE", 7), "x", false, bench.now), OnRequest::Repeated(id));
    assert_eq!(bench.layer.invite_of_cancel(&key("CANCEL", 7)), Some(id));
    assert!(matches!(bench.layer.on_request(key("INVITE", 8), "x", false, bench.now), OnRequest::New(_)));
    bench.respond(id, 404).expect("open");
    assert_eq!(bench.layer.on_request(key("ACK", 7), "x", false, bench.now), OnRequest::Acknowledged(id));
}

#[test]
fn a_full_layer_refuses_and_recovers() {
    let mut bench = Bench::new();
    for number in 0..8 {
        assert!(matches!(bench.request("OPTIONS", &format!("z9hG4bK{number}"), true), OnRequest::New(_)));
    }
    assert_eq!(bench.request("OPTIONS", "z9hG4bKone-more", true), OnRequest::Refused);
    let request = ClientRequest {
        key: ClientKey::new(b"b", b"BYE"),
        method: MethodKind::Other,
        path: "x",
        is_reliable: true,
        bytes: ANY.to_vec(),
    };
    assert_eq!(bench.layer.send(request.clone(), bench.now), Err(TransactionError::Full));
    // What is open still works, and what ends makes room.
    bench.respond(TransactionId(1), 200).expect("open");
    let id = bench.layer.send(request.clone(), bench.now).expect("room again");
    bench.layer.abandon(id, bench.now);
    assert!(bench.layer.send(request.clone(), bench.now).is_ok());
    bench.respond(TransactionId(2), 200).expect("open");
    assert_eq!(bench.layer.send(request, bench.now), Err(TransactionError::Duplicate));
}

#[test]
fn nothing_is_left_behind() {
    let mut bench = Bench::new();
    let server = bench.new_request("INVITE", false);
    let client = bench.send("INVITE", false);
    bench.response("INVITE", 180);
    bench.respond(server, 180).expect("open");
    bench.response("INVITE", 486);
    bench.layer.acknowledge(client, b"ACK".to_vec(), bench.now);
    bench.respond(server, 486).expect("open");
    bench.until(100_000);
    assert!(bench.layer.is_empty());
    assert_eq!(bench.layer.deadline(), None);
}
