//! Two phones that do anything at any time, from a seed: whatever happens, every call has one record, every request
//! at most one kind of final answer, and nothing is left behind.

use std::collections::HashMap;

use belfry_relay_api::Refusal;
use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use crate::Config;
use crate::handle::{SendFailure, Transport};

const SEEDS: u64 = 12;
const STEPS: u64 = 60;

/// Whom alice calls: a phone, a number with two small trunks, help.
const CALLED: [&str; 5] = ["bob", "bob", "+4930123", "+4930124", "112"];

const PLAN: &str = r#"
    [[tenants]]
    name = "acme"
    domains = ["belfry.test"]
    concurrent_calls_max = 6
    subscriber_concurrent_calls_max = 5
    [[trunks]]
    name = "one"
    gateways = [{ uri = "sip:192.0.2.201" }]
    concurrent_calls_max = 2
    [[trunks]]
    name = "two"
    gateways = [{ uri = "sip:192.0.2.202" }, { uri = "sip:192.0.2.203" }]
    concurrent_calls_max = 2
    cost = "0.1"
"#;

/// A small generator, so that a seed is a whole story (Knuth's MMIX constants).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.roll(from.len())) }
    }
}

/// What has happened so far.
struct Story {
    house: House,
    dice: Dice,
    alice: Phone,
    bob: Phone,
    calls: usize,
    cseq: u32,
    /// Requests that the phones got, and answers that the caller got to its INVITEs.
    requests: Vec<(Phone, Heard)>,
    answers: Vec<Heard>,
    /// What was said last, to be said again.
    said: Vec<(Phone, String)>,
    finals: HashMap<(String, String), u16>,
    /// Whom each call is for.
    called: HashMap<String, &'static str>,
}

impl Story {
    async fn begin(seed: u64) -> Self {
        let mut house = House::with_plan(Config::for_test(), PLAN).await;
        let transports = [Transport::Udp, Transport::Tcp];
        let mut dice = Dice(seed);
        let alice = Phone::new("alice", transports[dice.roll(2)]);
        let bob = Phone::new("bob", transports[dice.roll(2)]);
        house.register(&alice).await;
        house.register(&bob).await;
        let (requests, answers, said, finals) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        let called = HashMap::new();
        Self { house, dice, alice, bob, calls: 0, cseq: 10, requests, answers, said, finals, called }
    }

    fn say(&mut self, phone: &Phone, head: String, sdp: &str) {
        self.house.say_with(phone, &head, sdp);
        self.said.push((phone.clone(), head));
    }

    async fn step(&mut self) {
        let (alice, bob) = (self.alice.clone(), self.bob.clone());
        match self.dice.roll(12) {
            0..=2 => {
                self.calls += 1;
                let sdp = if self.dice.roll(4) == 0 { "" } else { SDP };
                let called = CALLED[self.dice.roll(CALLED.len())];
                self.called.insert(format!("chaos-{}", self.calls), called);
                self.say(&alice, alice.invite(called, &format!("chaos-{}", self.calls), 1, ""), sdp);
            }
            3..=5 => self.answer_something(),
            6 => {
                let number = self.dice.roll(self.calls + 1);
                let called = self.called.get(&format!("chaos-{number}")).copied().unwrap_or("bob");
                let invite = alice.invite(called, &format!("chaos-{number}"), 2, "");
                self.say(&alice, invite.replace("INVITE ", "CANCEL ").replace("2 INVITE", "2 CANCEL"), "");
            }
            7 => {
                if let Some(answered) = self.dice.pick(&self.answers).cloned() {
                    let cseq = self.next_cseq();
                    let bye = self.house.in_dialog(&alice, "BYE", cseq, &answered, &bob.contact(), None);
                    self.say(&alice, bye, "");
                }
            }
            8 => {
                if let Some((phone, request)) = self.dice.pick(&self.requests).cloned() {
                    let cseq = self.next_cseq();
                    let bye =
                        self.house.in_dialog(&phone, "BYE", cseq, &request, &alice.contact(), Some("tb"));
                    self.say(&phone, bye, "");
                }
            }
            9 => {
                // Only UDP repeats; on a connection the same bytes would be a new transaction.
                let said = self.dice.pick(&self.said).cloned();
                if let Some((phone, head)) = said.filter(|(phone, _)| phone.transport == Transport::Udp) {
                    self.house.say(&phone, &head);
                }
            }
            10 => {
                let failures =
                    [SendFailure::QueueFull, SendFailure::Unreachable, SendFailure::UnsupportedTransport];
                let failure = failures[self.dice.roll(failures.len())];
                if let Some((_, request)) = self.dice.pick(&self.requests) {
                    self.house.fail_send(request, failure);
                }
            }
            _ => {
                let (what, refusal) = [
                    ("offer", Refusal::PortsExhausted),
                    ("answer", Refusal::Unavailable),
                    ("none", Refusal::Draining),
                ][self.dice.roll(3)];
                self.house.relay.refuse(what, refusal);
            }
        }
        for heard in self.house.hear_all().await {
            self.react(heard);
        }
    }

    /// Above those of all INVITEs, and never the same.
    fn next_cseq(&mut self) -> u32 {
        self.cseq += 1;
        self.cseq
    }

    fn answer_something(&mut self) {
        let Some((phone, request)) = self.dice.pick(&self.requests).cloned() else { return };
        let contact = format!("Contact: {}\n", phone.contact());
        let is_invite = request.message.method() == "INVITE";
        let statuses = if is_invite {
            [
                "180 Ringing",
                "183 Session Progress",
                "200 OK",
                "486 Busy Here",
                "603 Decline",
                "503 Out Of Order",
            ]
        } else {
            ["200 OK", "200 OK", "481 Gone", "500 Oops", "408 Slow", "100 Trying"]
        };
        let status = statuses[self.dice.roll(statuses.len())];
        let sdp =
            if is_invite && (status.starts_with("200") || status.starts_with("183")) { SDP } else { "" };
        self.say(&phone, request.answer(status, "tb", &contact), sdp);
    }

    /// What phones do by themselves: answer challenges, acknowledge.
    fn react(&mut self, heard: Heard) {
        let phone = match heard.flow.as_str() {
            flow if flow == self.bob.flow => self.bob.clone(),
            flow if flow == self.alice.flow => self.alice.clone(),
            // A trunk; it answers over the flow by which it was reached.
            flow => {
                let source = flow.split(' ').nth(1).unwrap_or_default();
                let source = source.parse().unwrap_or(self.bob.source);
                Phone { user: "trunk", flow: flow.to_owned(), transport: Transport::Udp, source }
            }
        };
        if heard.message.is_request() {
            if heard.message.method() != "ACK" {
                self.requests.push((phone, heard));
            }
            return;
        }
        let (status, cseq) = (heard.status(), heard.header(HeaderName::CSeq));
        let call_id = heard.header(HeaderName::CallId);
        // A phone on a connection that says CANCEL again starts a new transaction; INVITEs are said once there.
        if status >= 200 && cseq.ends_with("INVITE") {
            let first =
                *self.finals.entry((call_id.clone(), format!("{cseq} {}", phone.user))).or_insert(status);
            assert_eq!(first, status, "{call_id} {cseq} got two kinds of final answer");
        }
        if !cseq.ends_with("INVITE") || status < 200 {
            return;
        }
        if status < 300 {
            let ack = self.house.in_dialog(&phone, "ACK", 2, &heard, &self.bob.contact(), None);
            self.house.say(&phone, &ack);
            return self.answers.push(heard);
        }
        self.house.acknowledge(&phone, &heard);
        if status == 407 && cseq.starts_with('1') {
            let called = self.called.get(&call_id).copied().unwrap_or("bob");
            let uri = format!("sip:{called}@belfry.test");
            let authorization = authorize(&heard, phone.user, PASSWORD, "INVITE", &uri);
            self.say(&phone, phone.invite(called, &call_id, 2, &authorization), SDP);
        }
    }

    async fn end(self, seed: u64) {
        let house = self.house;
        house.core.drain(std::time::Duration::ZERO).await;
        let text = house.registry.encode_text();
        let sum = |name: &str| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
        };
        let records = house.state.call_records(10_000).await.expect("readable");
        let mut names: Vec<&str> = records.iter().map(|record| record.call_id.reveal().as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let ended = sum("core_calls_ended_total");
        assert!(
            (ended - f64::from(u32::try_from(records.len()).expect("few"))).abs() < 0.5,
            "seed {seed}: {ended} ended, {} written",
            records.len()
        );
        assert_eq!(names.len(), records.len(), "seed {seed}: a call has two records");
        assert!(
            sum("core_call_records_total{outcome=\"repeated\"}")
                + sum("core_call_records_total{outcome=\"failed\"}")
                < 0.5,
            "seed {seed}"
        );
        let held = sum("core_trunk_calls{") + sum("core_tenant_calls{");
        assert!(held < 0.5, "seed {seed}: {held} places in limits did not come back");
        assert!(sum("core_trunk_tries_total{") > 0.5, "seed {seed}: no call went to a trunk");
        assert_eq!(house.core.live_calls(), 0, "seed {seed}");
        assert!(ended > 0.0, "seed {seed} told no story");
    }
}

#[tokio::test]
async fn whatever_phones_do_the_books_are_right() {
    for seed in 1..=SEEDS {
        let mut story = Story::begin(seed).await;
        for _ in 0..STEPS {
            story.step().await;
        }
        story.end(seed).await;
    }
}
