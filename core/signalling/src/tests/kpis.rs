//! The indicators of RFC 6076 and ITU-T E.425, computed by hand from a recorded scenario: a table of messages with the
//! times at which they came to the edge. In it are challenges, retransmissions, a re-INVITE and a fork, none of which
//! may count.

use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use crate::handle::Transport;

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

const STORIES: [Story; 8] = [
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

#[tokio::test]
async fn the_indicators_are_those_that_a_clerk_computes_from_the_messages() {
    let mut house = House::new().await;
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Wss));
    let carol = [Phone::new("carol", Transport::Wss), Phone::new("carol", Transport::Udp)];
    for phone in [&alice, &bob, &carol[0], &carol[1]] {
        house.register(phone).await;
    }
    for (story, cseq) in STORIES.iter().zip((10..).step_by(10)) {
        let phones = if story.callee == "carol" { vec![&carol[0], &carol[1]] } else { vec![&bob] };
        tell(&mut house, &alice, &phones, story, cseq).await;
    }
    let attempts = |result: &str| {
        house.metric(&format!("core_call_attempts_total{{region=\"eu\",result=\"{result}\"}}")).unwrap_or(0.0)
    };
    let value = |line: &str| house.metric(line).unwrap_or(0.0);
    let is = |what: &str, found: f64, by_hand: f64| {
        assert!((found - by_hand).abs() < 1e-9, "{what}: {found}, by hand {by_hand}");
    };
    // Eight INVITE chains: three answered; 486, 603, 480, 302, 500.
    let all: f64 = [
        "answered",
        "busy",
        "declined",
        "unavailable",
        "redirected",
        "ineffective",
        "cancelled",
        "not_found",
        "denied",
        "rejected",
    ]
    .iter()
    .map(|result| attempts(result))
    .sum();
    is("attempts", all, 8.0);
    let asked = all - attempts("redirected");
    let effective = ["answered", "unavailable", "busy", "declined"].map(attempts).iter().sum::<f64>();
    is("SER", attempts("answered") / asked, 3.0 / 7.0);
    is("SEER", effective / asked, 6.0 / 7.0);
    is("ISA", attempts("ineffective") / all, 1.0 / 8.0);
    is("ASR", attempts("answered") / all, 3.0 / 8.0);
    is("NER", (effective + attempts("cancelled")) / all, 6.0 / 8.0);
    let ended = |cause: &str| value(&format!("core_calls_ended_total{{cause=\"{cause}\",region=\"eu\"}}"));
    is("SCR", (ended("caller_hung_up") + ended("callee_hung_up")) / all, 3.0 / 8.0);
    // 60 s, 5 s, 5.5 s from the 200 to the BYE.
    is("SDT, calls", value("core_call_seconds_count{region=\"eu\"}"), 3.0);
    is("SDT, seconds", value("core_call_seconds_sum{region=\"eu\"}"), 60.0 + 5.0 + 5.5);
    // 40 ms, 500 ms, 100 ms from the BYE to its 200.
    is("SDD, calls", value("core_disconnect_seconds_count{region=\"eu\"}"), 3.0);
    is("SDD, seconds", value("core_disconnect_seconds_sum{region=\"eu\"}"), 0.04 + 0.5 + 0.1);
    // From the first INVITE to 180 or, without one, to the last response.
    let request_delay = |result: &str, part: &str| {
        value(&format!("core_post_dial_seconds_{part}{{region=\"eu\",result=\"{result}\"}}"))
    };
    is("SRD of sessions", request_delay("answered", "count"), 3.0);
    is("SRD of sessions, seconds", request_delay("answered", "sum"), 1.25 + 2.0 + 0.5);
    is("SRD of failures", request_delay("failed", "count"), 5.0);
    is("SRD of failures, seconds", request_delay("failed", "sum"), 2.0 + 0.5 + 1.0 + 0.25 + 3.0);
    // Four phones registered, each challenged once; nobody was refused.
    let registered =
        |outcome: &str| value(&format!("core_registrations_total{{outcome=\"{outcome}\",region=\"eu\"}}"));
    is("registrations", registered("bound"), 4.0);
    is("RRD", value("core_registration_seconds_count{region=\"eu\"}"), 4.0);
    let ineffective = ["denied", "rejected", "failed"].map(registered).iter().sum::<f64>();
    is("IRA", ineffective / (ineffective + registered("bound")), 0.0);
    // The records say the same, to the nanosecond.
    let records = house.state.call_records(100).await.expect("readable");
    let talked: u64 =
        records.iter().filter_map(|record| Some(record.end_unix_nanos - record.answer_unix_nanos?)).sum();
    assert_eq!((records.len(), talked), (8, 70_500_000_000));
}
