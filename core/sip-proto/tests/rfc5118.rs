//! RFC 5118: SIP torture tests for IPv6, each message of its section 4 with the verdict that the section asks of a
//! proxy and registrar, and what is read from it.

use belfry_sip_proto::{HeaderName, Limits, Message, NameAddr, Uri, Verdict, Via, judge};

/// Rebuilds a message: line ends, and Content-Length where the body was written by hand.
fn message(head: &str, body: &str) -> Vec<u8> {
    let head = head.trim_start().lines().map(str::trim_start).collect::<Vec<_>>().join("\r\n");
    let body =
        body.trim_start().lines().map(str::trim_start).map(|line| format!("{line}\r\n")).collect::<String>();
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn options_to(uri: &str, more: &str) -> Vec<u8> {
    message(
        &format!(
            "REGISTER {uri} SIP/2.0
            To: sip:user@example.com
            From: sip:user@example.com;tag=81x2
            {more}
            Max-Forwards: 70
            Contact: \"Caller\" <sip:caller@[2001:db8::1]>
            CSeq: 98176 REGISTER"
        ),
        "",
    )
}

const VIA: &str =
    "Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111\nCall-ID: SSG9559905523997077@hlau_4100";

/// A section, a message, and whether its verdict is right.
type Case<'a> = (&'a str, Vec<u8>, &'a dyn Fn(Verdict) -> bool);

#[test]
fn every_message_gets_the_verdict_of_its_section() {
    let sdp = "v=0
        o=assistant 971731711378798081 0 IN IP6 2001:db8::20
        s=Live video feed for today's meeting
        c=IN IP6 2001:db8::20
        t=3338481189 3370017201
        m=audio 6000 RTP/AVP 2
        a=rtpmap:2 G726-32/8000
        m=video 6024 RTP/AVP 107
        a=rtpmap:107 H263-1998/90000";
    let invite = |contact: &str, route: &str| {
        message(
            &format!(
                "INVITE sip:user@[2001:db8::10] SIP/2.0
                To: sip:user@[2001:db8::10]
                From: sip:user@example.com;tag=81x2
                Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111
                {route}Call-ID: SSG9559905523997077@hlau_4100
                Contact: {contact}
                CSeq: 8612 INVITE
                Max-Forwards: 70
                Content-Type: application/sdp"
            ),
            sdp,
        )
    };
    let reject =
        |status| move |verdict: Verdict| matches!(verdict, Verdict::Reject { status: s, .. } if s == status);
    let accept = |verdict: Verdict| verdict == Verdict::Accept;
    let bad = reject(400);
    let cases: [Case<'_>; 11] = [
        ("4.1 valid, an address in the Request-URI", options_to("sip:[2001:db8::10]", VIA), &accept),
        // Without brackets nobody can tell address and port apart: 400.
        ("4.2 invalid, an address without brackets", options_to("sip:2001:db8::10", VIA), &bad),
        ("4.3 valid, the port behind the brackets", options_to("sip:[2001:db8::10]:5070", VIA), &accept),
        // The whole is an address that means something else than was meant; nobody can know.
        (
            "4.4 valid, and not what was meant: the port inside",
            options_to("sip:[2001:db8::10:5070]", VIA),
            &accept,
        ),
        (
            "4.5 valid, received with brackets (old) and without (RFC 3261's grammar)",
            options_to(
                "sip:[2001:db8::10]",
                "Via: SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKas3-111\nCall-ID: a@b",
            ),
            &accept,
        ),
        (
            "4.5 valid, received without brackets",
            options_to(
                "sip:[2001:db8::10]",
                "Via: SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKas3\nCall-ID: a@b",
            ),
            &accept,
        ),
        (
            "4.6 valid, addresses in a session description",
            invite("\"Caller\" <sip:caller@[2001:db8::20]>", ""),
            &accept,
        ),
        (
            "4.7 valid, several addresses: Via and description of both families",
            message(
                "INVITE sip:user@[2001:db8::10] SIP/2.0
                To: sip:user@[2001:db8::10]
                From: sip:user@example.com;tag=81x2
                Via: SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKas3-111
                Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144
                Via: SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bK451jj;received=192.0.2.200
                Call-ID: 997077@lau_4100
                Max-Forwards: 70
                CSeq: 8612 INVITE
                Contact: <sip:caller@[2001:db8::9:1]>",
                "",
            ),
            &accept,
        ),
        (
            "4.8 valid, several addresses in a session description",
            message(
                "INVITE sip:user@[2001:db8::10] SIP/2.0
                To: sip:user@[2001:db8::10]
                From: sip:user@example.com;tag=81x2
                Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111
                Call-ID: SSG9559905523997077@hlau_4100
                Contact: \"Caller\" <sip:caller@[2001:db8::9:1]>
                Max-Forwards: 70
                CSeq: 8912 INVITE
                Content-Type: application/sdp",
                "v=0
                o=bob 280744730 28977631 IN IP4 host.example.com
                s=
                t=0 0
                m=audio 22334 RTP/AVP 0
                c=IN IP4 192.0.2.1
                m=video 6024 RTP/AVP 107
                c=IN IP6 2001:db8::1",
            ),
            &accept,
        ),
        (
            "4.9 valid, an IPv4-mapped address",
            message(
                "INVITE sip:user@example.com SIP/2.0
                To: sip:user@example.com
                From: sip:user@east.example.com;tag=81x2
                Via: SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKbh19
                Via: SIP/2.0/UDP [::ffff:192.0.2.2];branch=z9hG4bKas3-111
                Call-ID: SSG9559905523997077@hlau_4100
                Contact: \"T. desk phone\" <sip:ted@[::ffff:192.0.2.2]>
                CSeq: 612 INVITE
                Max-Forwards: 70",
                "",
            ),
            &accept,
        ),
        // Three colons are no address, whatever RFC 3261's own grammar let through: 400.
        (
            "4.10 invalid, three colons (the error in RFC 3261's ABNF)",
            options_to("sip:[2001:db8:::192.0.2.1]", VIA),
            &bad,
        ),
    ];
    for (section, bytes, is_right) in cases {
        let verdict = judge(&bytes, &Limits::default());
        assert!(is_right(verdict), "{section}: {verdict:?}\n{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn what_is_read_is_what_was_meant() {
    let uri = |text| Uri::parse(text).expect("valid");
    assert_eq!(uri("sip:[2001:db8::10]:5070").port(), Some(5070));
    let inside = uri("sip:[2001:db8::10:5070]");
    assert_eq!((inside.port(), inside.host()), (None, "[2001:db8::10:5070]"));
    assert_eq!(inside.host_ip(), Some("2001:db8::10:5070".parse().expect("an address")));
    assert!(
        uri("sip:a@[2001:DB8:0::1]").is_equivalent(&uri("sip:a@[2001:db8::1]")),
        "one address, two spellings"
    );
    for text in [
        "sip:2001:db8::10",
        "sip:[2001:db8::10",
        "sip:2001:db8::10]",
        "sip:[]",
        "sip:[2001:db8:::1]",
        "sip:[::1]x",
    ] {
        assert!(Uri::parse(text).is_none(), "{text}");
    }
    for received in ["[2001:db8::9:255]", "2001:db8::9:255"] {
        let text = format!("SIP/2.0/UDP [2001:db8::9:1]:6050;received={received};branch=z9hG4bKas3-111");
        let via = Via::parse(text.as_bytes()).expect("valid");
        assert_eq!(via.received(), Some("2001:db8::9:255".parse().expect("an address")), "{received}");
        assert_eq!((via.host, via.port), ("[2001:db8::9:1]", Some(6050)));
        assert_eq!(via.host_ip(), Some("2001:db8::9:1".parse().expect("an address")));
    }
    let bytes = options_to("sip:[2001:db8::10]", VIA);
    let message = Message::parse(&bytes[..], &Limits::default()).expect("valid");
    let contact = message.header(HeaderName::Contact).and_then(NameAddr::parse).expect("valid");
    assert_eq!(contact.uri.host_ip(), Some("2001:db8::1".parse().expect("an address")));
}
