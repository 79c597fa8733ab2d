//! The indicators of RFC 6076 and ITU-T E.425, computed by hand from a recorded scenario: a table of messages with the
//! times at which they came to the edge. In it are challenges, retransmissions, a re-INVITE and a fork, none of which
//! may count.

use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use super::routing::{NUMBER, ONE, PLAN, trunk};
use crate::Config;
use crate::handle::Transport;
use crate::signals::AttemptResult;

/// Who hangs up, and when the other side confirms it.
#[derive(Clone, Copy)]
struct Bye {
    is_caller: bool,
    at_millis: u64,
    confirmed_millis: u64,
}

/// One call of the scenario; times in milliseconds since its beginning.
struct Story {
    name: &'static str,
    callee: &'static str,
    /// The first INVITE, and the one with credentials.
    invites_millis: [u64; 2],
    /// `180 Ringing`.
    ringing_millis: Option<u64>,
    /// The final response of the called side, and when it came.
    last: (u64, &'static str),
    bye: Option<Bye>,
}

const STORIES: [Story; 10] = [
    Story {
        name: "talks-a-minute",
        callee: "bob",
        invites_millis: [0, 100],
        ringing_millis: Some(1_250),
        last: (4_000, "200 OK"),
        bye: Some(Bye { is_caller: true, at_millis: 64_000, confirmed_millis: 64_040 }),
    },
    Story {
        name: "picked-up-at-once",
        callee: "bob",
        invites_millis: [100_000, 100_050],
        ringing_millis: None,
        last: (102_000, "200 OK"),
        bye: Some(Bye { is_caller: false, at_millis: 107_000, confirmed_millis: 107_500 }),
    },
    Story {
        name: "rings-on-two-phones",
        callee: "carol",
        invites_millis: [200_000, 200_010],
        ringing_millis: Some(200_500),
        last: (201_000, "200 OK"),
        bye: Some(Bye { is_caller: true, at_millis: 206_500, confirmed_millis: 206_600 }),
    },
    Story {
        name: "busy",
        callee: "bob",
        invites_millis: [300_000, 300_010],
        ringing_millis: None,
        last: (302_000, "486 Busy Here"),
        bye: None,
    },
    Story {
        name: "declined",
        callee: "bob",
        invites_millis: [400_000, 400_010],
        ringing_millis: Some(400_500),
        last: (405_000, "603 Decline"),
        bye: None,
    },
    Story {
        name: "does-not-answer",
        callee: "bob",
        invites_millis: [500_000, 500_010],
        ringing_millis: Some(501_000),
        last: (530_000, "480 Temporarily Unavailable"),
        bye: None,
    },
    Story {
        name: "moved",
        callee: "bob",
        invites_millis: [600_000, 600_010],
        ringing_millis: None,
        last: (600_250, "302 Moved Temporarily"),
        bye: None,
    },
    Story {
        name: "broken",
        callee: "bob",
        invites_millis: [700_000, 700_010],
        ringing_millis: None,
        last: (703_000, "500 Server Internal Error"),
        bye: None,
    },
    Story {
        name: "leaves-by-a-trunk",
        callee: NUMBER,
        invites_millis: [800_000, 800_010],
        ringing_millis: Some(801_000),
        last: (803_000, "200 OK"),
        bye: Some(Bye { is_caller: true, at_millis: 813_000, confirmed_millis: 813_050 }),
    },
    Story {
        name: "busy-behind-a-trunk",
        callee: NUMBER,
        invites_millis: [900_000, 900_010],
        ringing_millis: None,
        last: (900_500, "486 Busy Here"),
        bye: None,
    },
];

/// Alice's INVITE, challenged and said again; also once more, as UDP does.
async fn invite(house: &mut House, alice: &Phone, story: &Story) {
    let [first, second] = story.invites_millis;
    let invite = alice.invite(story.callee, story.name, 1, "");
    house.set_clock(first);
    house.say_with(alice, &invite, SDP);
    house.hear_status(alice, 100).await;
    let challenged = house.hear_status(alice, 407).await;
    house.acknowledge(alice, &challenged);
    let uri = format!("sip:{}@belfry.test", story.callee);
    let authorization = authorize(&challenged, alice.user, PASSWORD, "INVITE", &uri);
    let invite = alice.invite(story.callee, story.name, 2, &authorization);
    house.set_clock(second);
    house.say_with(alice, &invite, SDP);
    house.hear_status(alice, 100).await;
    house.set_clock(second + 1);
    house.say_with(alice, &invite, SDP);
}

/// The INVITE as the called phones get it, with the 100 that a repeated INVITE is answered among it.
async fn heard_by(house: &mut House, phones: &[&Phone]) -> Vec<Heard> {
    let mut invites = Vec::new();
    while invites.len() < phones.len() {
        let heard = house.hear().await;
        if heard.message.is_request() {
            assert_eq!(heard.message.method(), "INVITE");
            invites.push(heard);
        } else {
            assert_eq!(heard.status(), 100, "the repeated INVITE");
        }
    }
    invites.sort_by_key(|heard| phones.iter().position(|phone| phone.flow == heard.flow));
    invites
}

/// Tells a story; its requests within dialogs are numbered from `cseq` on, as their branches must differ.
async fn tell(house: &mut House, alice: &Phone, phones: &[&Phone], story: &Story, cseq: u32) {
    invite(house, alice, story).await;
    let invites = heard_by(house, phones).await;
    let (phone, invite) = (phones[0], &invites[0]);
    let contact = format!("Contact: {}\n", phone.contact());
    if let Some(at) = story.ringing_millis {
        house.set_clock(at);
        house.say(phone, &invite.answer("180 Ringing", "tb", &contact));
        hear_from(house, alice, 180).await;
    }
    let (at, last) = story.last;
    house.set_clock(at);
    let Some(bye) = story.bye else {
        house.say(phone, &invite.answer(last, "tb", &contact));
        let status = last.split(' ').next().and_then(|code| code.parse().ok()).expect("a status");
        let failed = hear_from(house, alice, status).await;
        return house.acknowledge(alice, &failed);
    };
    house.say_with(phone, &invite.answer(last, "tb", &contact), SDP);
    let answered = loop {
        let heard = house.hear().await;
        if heard.flow == alice.flow && heard.status() == 200 {
            break heard;
        }
        // The other phones of a fork are told to stop.
        if heard.message.is_request() && heard.message.method() == "CANCEL" {
            house.say(phones[1], &heard.answer("200 OK", "", ""));
            house.say(phones[1], &invites[1].answer("487 Request Terminated", "tc", ""));
        }
    };
    house.say(alice, &house.in_dialog(alice, "ACK", 2, &answered, &phone.contact(), None));
    hear_request_among(house, phone, "ACK").await;
    // The answer comes again, and a session that changes is no new one.
    house.set_clock(at + 1);
    house.say_with(phone, &invite.answer(last, "tb", &contact), SDP);
    house.set_clock(at + 2);
    house.say_with(alice, &house.in_dialog(alice, "INVITE", cseq, &answered, &phone.contact(), None), SDP);
    let again = hear_request_among(house, phone, "INVITE").await;
    house.set_clock(at + 3);
    house.say_with(phone, &again.answer("200 OK", "", &contact), SDP);
    let changed = loop {
        let heard = house.hear().await;
        if heard.flow == alice.flow
            && heard.status() == 200
            && heard.header(HeaderName::CSeq) == format!("{cseq} INVITE")
        {
            break heard;
        }
    };
    house.say(alice, &house.in_dialog(alice, "ACK", cseq, &changed, &phone.contact(), None));
    hear_request_among(house, phone, "ACK").await;
    house.set_clock(bye.at_millis);
    let (from, to) = if bye.is_caller { (alice, phone) } else { (phone, alice) };
    let request = match bye.is_caller {
        true => house.in_dialog(alice, "BYE", cseq + 1, &answered, &phone.contact(), None),
        false => house.in_dialog(phone, "BYE", 1, invite, &alice.contact(), Some("tb")),
    };
    house.say(from, &request);
    let request = hear_request_among(house, to, "BYE").await;
    house.set_clock(bye.confirmed_millis);
    house.say(to, &request.answer("200 OK", "", ""));
    hear_from(house, from, 200).await;
}

/// The next response of this status that a phone gets, whatever else is said meanwhile.
async fn hear_from(house: &mut House, phone: &Phone, status: u16) -> Heard {
    loop {
        let heard = house.hear().await;
        if heard.flow == phone.flow && !heard.message.is_request() && heard.status() == status {
            return heard;
        }
    }
}

/// The next request of this method that a phone gets, whatever else is said meanwhile.
async fn hear_request_among(house: &mut House, phone: &Phone, method: &str) -> Heard {
    loop {
        let heard = house.hear().await;
        if heard.flow == phone.flow && heard.message.is_request() && heard.message.method() == method {
            return heard;
        }
    }
}

/// A trunk calls bob, talks for twenty seconds, and calls somebody whom the other tenant does not have.
async fn tell_from_trunk(house: &mut House, bob: &Phone) {
    let carrier = Phone { flow: "token-carrier".to_owned(), ..trunk("udp 198.51.100.7:5060 198.51.100.7") };
    house.set_clock(1_000_000);
    house.say_with(&carrier, &carrier.invite("bob", "comes-by-a-trunk", 1, ""), SDP);
    hear_from(house, &carrier, 100).await;
    let invite = hear_request_among(house, bob, "INVITE").await;
    let contact = format!("Contact: {}\n", bob.contact());
    house.set_clock(1_002_000);
    house.say_with(bob, &invite.answer("200 OK", "tb", &contact), SDP);
    let answered = hear_from(house, &carrier, 200).await;
    house.say(&carrier, &house.in_dialog(&carrier, "ACK", 1, &answered, &bob.contact(), None));
    hear_request_among(house, bob, "ACK").await;
    house.set_clock(1_022_000);
    house.say(&carrier, &house.in_dialog(&carrier, "BYE", 900, &answered, &bob.contact(), None));
    let bye = hear_request_among(house, bob, "BYE").await;
    house.set_clock(1_022_070);
    house.say(bob, &bye.answer("200 OK", "", ""));
    hear_from(house, &carrier, 200).await;
    let other =
        carrier.invite("nobody", "for-nobody", 1, "").replace("nobody@belfry.test", "nobody@other.test");
    house.say_with(&carrier, &other, SDP);
    let refused = hear_from(house, &carrier, 404).await;
    house.acknowledge(&carrier, &refused);
}

/// What a clerk computes from the messages of some calls: figures are counts, and sums in seconds.
#[derive(Default)]
struct Clerk {
    answered: f64,
    unavailable: f64,
    busy: f64,
    declined: f64,
    redirected: f64,
    ineffective: f64,
    not_found: f64,
    /// Sessions that one side hung up.
    completed: f64,
    talked_seconds: f64,
    disconnect_seconds: f64,
    request_delay_answered: f64,
    request_delay_failed: f64,
}

/// Holds the families of one set (`core`, `core_tenant` …) under one label against a clerk's figures.
#[track_caller]
fn check(house: &House, set: &str, label: &str, clerk: &Clerk) {
    let value = |line: String| house.metric(&line).unwrap_or(0.0);
    let is = |what: &str, found: f64, by_hand: f64| {
        assert!((found - by_hand).abs() < 1e-9, "{what} of {set} {label}: {found}, by hand {by_hand}");
    };
    // Labels stand in the order of the alphabet.
    let labels = |own: &str| match own < label {
        true => format!("{own},{label}"),
        false => format!("{label},{own}"),
    };
    let attempts = |result: &str| {
        value(format!("{set}_call_attempts_total{{{}}}", labels(&format!("result=\"{result}\""))))
    };
    let all: f64 = AttemptResult::ALL.iter().map(|result| attempts(result.as_str())).sum();
    let failed = clerk.unavailable + clerk.busy + clerk.declined;
    let all_by_hand = clerk.answered + failed + clerk.redirected + clerk.ineffective + clerk.not_found;
    is("attempts", all, all_by_hand);
    let (asked, asked_by_hand) = (all - attempts("redirected"), all_by_hand - clerk.redirected);
    let effective = ["answered", "unavailable", "busy", "declined"].map(attempts).iter().sum::<f64>();
    is("SER", attempts("answered") / asked, clerk.answered / asked_by_hand);
    is("SEER", effective / asked, (clerk.answered + failed) / asked_by_hand);
    is("ISA", attempts("ineffective") / all, clerk.ineffective / all_by_hand);
    is("ASR", attempts("answered") / all, clerk.answered / all_by_hand);
    is("NER", (effective + attempts("cancelled")) / all, (clerk.answered + failed) / all_by_hand);
    let ended =
        |cause: &str| value(format!("{set}_calls_ended_total{{{}}}", labels(&format!("cause=\"{cause}\""))));
    is("SCR", (ended("caller_hung_up") + ended("callee_hung_up")) / all, clerk.completed / all_by_hand);
    is("SDT, calls", value(format!("{set}_call_seconds_count{{{label}}}")), clerk.completed);
    is("SDT, seconds", value(format!("{set}_call_seconds_sum{{{label}}}")), clerk.talked_seconds);
    is("SDD, calls", value(format!("{set}_disconnect_seconds_count{{{label}}}")), clerk.completed);
    is("SDD, seconds", value(format!("{set}_disconnect_seconds_sum{{{label}}}")), clerk.disconnect_seconds);
    let request_delay = |result: &str, part: &str| {
        value(format!("{set}_post_dial_seconds_{part}{{{}}}", labels(&format!("result=\"{result}\""))))
    };
    is("SRD of sessions", request_delay("answered", "count"), clerk.answered);
    is("SRD of sessions, seconds", request_delay("answered", "sum"), clerk.request_delay_answered);
    is("SRD of failures", request_delay("failed", "count"), all_by_hand - clerk.answered);
    is("SRD of failures, seconds", request_delay("failed", "sum"), clerk.request_delay_failed);
}

/// What the formulas of the README are run over (`tests/product/promql.rs`).
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/indicators.txt");

/// The counts and sums of all sets are those of the file.
fn check_golden(metrics: &str) {
    let families = [
        "call_attempts_total",
        "calls_ended_total",
        "post_dial_seconds",
        "call_seconds",
        "disconnect_seconds",
    ];
    let sets = ["core_", "core_tenant_", "core_calling_trunk_", "core_called_trunk_"];
    let is_of = |line: &&str| {
        let name =
            line.split('{').next().unwrap_or_default().trim_end_matches("_sum").trim_end_matches("_count");
        sets.iter().any(|set| name.strip_prefix(set).is_some_and(|family| families.contains(&family)))
    };
    let lines: Vec<&str> = metrics.lines().filter(is_of).collect();
    let text = lines.join("\n") + "\n";
    if std::env::var_os("BELFRY_BLESS").is_some() {
        std::fs::write(GOLDEN, &text).expect("written");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("the file is there; BELFRY_BLESS=1 makes it");
    assert_eq!(text, golden, "BELFRY_BLESS=1 takes this over");
}

#[tokio::test]
async fn the_indicators_are_those_that_a_clerk_computes_from_the_messages() {
    let mut config = Config::for_test();
    config.domains.push("other.test".to_owned());
    let more = "[[tenants]]\nname = \"beta\"\ndomains = [\"other.test\"]\n";
    let mut house = House::with_plan(config, &format!("{PLAN}{more}")).await;
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Wss));
    let carol = [Phone::new("carol", Transport::Wss), Phone::new("carol", Transport::Udp)];
    for phone in [&alice, &bob, &carol[0], &carol[1]] {
        house.register(phone).await;
    }
    let carrier = Phone { flow: ONE.to_owned(), ..trunk(ONE) };
    for (story, cseq) in STORIES.iter().zip((10..).step_by(10)) {
        let phones = match story.callee {
            "carol" => vec![&carol[0], &carol[1]],
            NUMBER => vec![&carrier],
            _ => vec![&bob],
        };
        tell(&mut house, &alice, &phones, story, cseq).await;
    }
    tell_from_trunk(&mut house, &bob).await;
    // Twelve INVITE chains. Five answered, which talked 60, 5, 5.5, 10 and 20 seconds; 486 twice, 603, 480, 302, 500 and
    // 404. From the first INVITE to 180 or, without one, to the last response.
    let acme = Clerk {
        answered: 5.0,
        unavailable: 1.0,
        busy: 2.0,
        declined: 1.0,
        redirected: 1.0,
        ineffective: 1.0,
        completed: 5.0,
        talked_seconds: 60.0 + 5.0 + 5.5 + 10.0 + 20.0,
        disconnect_seconds: 0.04 + 0.5 + 0.1 + 0.05 + 0.07,
        request_delay_answered: 1.25 + 2.0 + 0.5 + 1.0 + 2.0,
        request_delay_failed: 2.0 + 0.5 + 1.0 + 0.25 + 3.0 + 0.5,
        ..Clerk::default()
    };
    check(&house, "core_tenant", "tenant=\"acme\"", &acme);
    check(&house, "core_tenant", "tenant=\"beta\"", &Clerk { not_found: 1.0, ..Clerk::default() });
    check(&house, "core", "region=\"eu\"", &Clerk { not_found: 1.0, ..acme });
    let out = Clerk {
        answered: 1.0,
        busy: 1.0,
        completed: 1.0,
        talked_seconds: 10.0,
        disconnect_seconds: 0.05,
        request_delay_answered: 1.0,
        request_delay_failed: 0.5,
        ..Clerk::default()
    };
    check(&house, "core_called_trunk", "trunk=\"one\"", &out);
    let inward = Clerk {
        answered: 1.0,
        not_found: 1.0,
        completed: 1.0,
        talked_seconds: 20.0,
        disconnect_seconds: 0.07,
        request_delay_answered: 2.0,
        ..Clerk::default()
    };
    check(&house, "core_calling_trunk", "trunk=\"one\"", &inward);
    check_golden(&house.registry.encode_text());
    // Four phones registered, each challenged once; nobody was refused.
    let registered = |outcome: &str| {
        let line = format!("core_registrations_total{{outcome=\"{outcome}\",region=\"eu\"}}");
        house.metric(&line).unwrap_or(0.0)
    };
    assert_eq!(registered("bound").to_string(), "4", "registrations");
    assert_eq!(house.metric("core_registration_seconds_count{region=\"eu\"}"), Some(4.0), "RRD");
    assert_eq!(["denied", "rejected", "failed"].map(registered), [0.0; 3], "IRA");
    // The records say the same, to the nanosecond.
    let records = house.state.call_records(100).await.expect("readable");
    let talked: u64 =
        records.iter().filter_map(|record| Some(record.end_unix_nanos - record.answer_unix_nanos?)).sum();
    assert_eq!((records.len(), talked), (12, 100_500_000_000));
    let of = |name: &str| {
        let record = records.iter().find(|record| record.call_id.reveal() == name).expect("a record");
        let names = [&record.tenant, &record.calling_trunk, &record.called_trunk];
        names.map(|name| name.as_deref().unwrap_or("-").to_owned()).join(" ")
    };
    assert_eq!(of("talks-a-minute"), "acme - -");
    assert_eq!(of("leaves-by-a-trunk"), "acme - one");
    assert_eq!(of("busy-behind-a-trunk"), "acme - one");
    assert_eq!(of("comes-by-a-trunk"), "acme one -");
    assert_eq!(of("for-nobody"), "beta one -");
}
