use super::*;

const A: &str = "10.0.0.1:5060";
const P: &str = "10.0.0.2:5060";
const B: &str = "10.0.0.3:5060";

fn calls(calls_max: usize) -> Calls {
    let region = Region::configured("eu").expect("a name");
    Calls::new(calls_max, Duration::from_secs(3600), region, Instant::now())
}

/// `10 A>B INVITE 1` or `20 B>A 200 INVITE 1`, times in seconds.
fn seen(line: &str) -> Seen<'_> {
    let mut words = line.split(' ').peekable();
    let at: u64 = words.next().and_then(|word| word.parse().ok()).expect("a time");
    let place = |name: &str| match name {
        "A" => A,
        "P" => P,
        _ => B,
    };
    let (source, destination) = words.next().and_then(|word| word.split_once('>')).expect("ends");
    let status = words.peek().and_then(|word| word.parse().ok());
    if status.is_some() {
        words.next();
    }
    let method = words.next().expect("a method");
    let cseq = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
    Seen {
        unix_nanos: at * 1_000_000_000,
        source: place(source).parse().expect("an address"),
        destination: place(destination).parse().expect("an address"),
        call_id: "c",
        trace_id: TraceId([1; 16]),
        status,
        method,
        cseq,
        branch: source,
        transport: "udp",
        from: "sip:a@x",
        to: "sip:b@x",
        from_tag: if status.is_none() && source == "B" { "b" } else { "a" },
        has_to_tag: matches!(method, "BYE" | "ACK"),
    }
}

/// Outcome, status, cause, delay, and when it ended in seconds.
fn check(lines: &[&str], expected: Option<(&str, u16, &str, Option<f64>, u64)>) {
    let mut calls = calls(10);
    let now = Instant::now();
    let mut ended = lines.iter().filter_map(|line| calls.take(&seen(line), now).ended).collect::<Vec<_>>();
    assert!(ended.len() <= 1, "{lines:?}: {ended:?}");
    let found = ended.pop();
    let found = found.as_ref().map(|(nanos, call)| {
        (&*call.outcome, call.status_code, &*call.cause, call.post_dial_seconds, nanos / 1_000_000_000)
    });
    assert_eq!(found, expected, "{lines:?}");
}

#[test]
fn calls_end_as_their_messages_say() {
    let answered = ["1 A>B INVITE", "2 B>A 100 INVITE", "3 B>A 180 INVITE", "5 B>A 200 INVITE", "5 A>B ACK"];
    let mut lines = answered.to_vec();
    lines.extend(["65 B>A BYE 2", "65 A>B 200 BYE 2", "66 B>A BYE 2"]);
    check(&lines, Some(("answered", 200, "callee_hung_up", Some(2.0), 65)));
    let mut lines = answered.to_vec();
    lines.extend(["9 A>B INVITE 2", "9 B>A 488 INVITE 2", "65 A>B BYE 3"]);
    check(&lines, Some(("answered", 200, "caller_hung_up", Some(2.0), 65)));
    check(&answered, None);
    check(&["1 A>B INVITE", "4 B>A 486 INVITE"], Some(("busy", 486, "busy", Some(3.0), 4)));
    check(
        &["1 A>B INVITE", "2 B>A 180 INVITE", "8 A>B CANCEL", "8 B>A 487 INVITE"],
        Some(("cancelled", 487, "cancelled", Some(1.0), 8)),
    );
    check(
        &["1 A>B INVITE 1", "1 B>A 407 INVITE 1", "2 A>B INVITE 2", "3 B>A 503 INVITE 2"],
        Some(("failed", 503, "server_error", Some(2.0), 3)),
    );
    // Through a proxy: the failure of a branch is not the call's.
    check(&["1 A>P INVITE", "1 P>B INVITE", "2 B>P 486 INVITE"], None);
    check(
        &["1 A>P INVITE", "1 P>B INVITE", "2 B>P 486 INVITE", "2 P>A 486 INVITE"],
        Some(("busy", 486, "busy", Some(1.0), 2)),
    );
    check(&["1 A>B REGISTER", "1 B>A 200 REGISTER", "2 A>B BYE"], None);
}

#[test]
fn repeats_are_told_and_nothing_grows() {
    let mut calls = calls(2);
    let now = Instant::now();
    assert!(!calls.take(&seen("1 A>B INVITE"), now).is_repeat);
    assert!(calls.take(&seen("2 A>B INVITE"), now).is_repeat);
    assert!(!calls.take(&seen("2 A>P INVITE"), now).is_repeat, "another hop");
    let ids: Vec<String> = (0..5).map(|number| number.to_string()).collect();
    let unfollowed =
        ids.iter().filter(|id| calls.take(&Seen { call_id: id, ..seen("1 A>B INVITE") }, now).is_unfollowed);
    assert_eq!(unfollowed.count(), 4);
    assert_eq!(calls.open(), 2);
    let later = now + Duration::from_secs(3601);
    let ended = calls.sweep(later);
    assert_eq!(ended.len(), 2);
    assert!(ended.iter().all(|(_, call, end)| call.outcome == "no_answer" && *end == CallEnd::Idle));
    assert_eq!(calls.open(), 0);
}
