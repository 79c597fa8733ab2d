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

/// The REGISTER of sections 4.1 to 4.4: they differ in the Request-URI.
fn register_to(uri: &str) -> Vec<u8> {
    message(
        &format!(
            "REGISTER {uri} SIP/2.0
            To: sip:user@example.com
            From: sip:user@example.com;tag=81x2
            Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111
            Call-ID: SSG9559905523997077@hlau_4100
            Max-Forwards: 70
            Contact: \"Caller\" <sip:caller@[2001:db8::1]>
            CSeq: 98176 REGISTER"
        ),
        "",
    )
}

/// The OPTIONS of section 4.10.
fn options_to(uri: &str) -> Vec<u8> {
    message(
        &format!(
            "OPTIONS {uri} SIP/2.0
            To: {uri}
            From: sip:user@example.com;tag=810x2
            Via: SIP/2.0/UDP lab1.east.example.com;branch=z9hG4bKas3-111
            Call-ID: G9559905523997077@hlau_4100
            CSeq: 689 OPTIONS
            Max-Forwards: 70"
        ),
        "",
    )
}

/// The two of section 4.5: brackets around the address in `received`, and none.
fn with_received() -> [Vec<u8>; 2] {
    let bracketed = "BYE sip:[2001:db8::10] SIP/2.0
        To: sip:user@example.com;tag=bd76ya
        From: sip:user@example.com;tag=81x2
        Via: SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKas3-111
        Call-ID: SSG9559905523997077@hlau_4100
        Max-Forwards: 70
        CSeq: 321 BYE";
    let bare = "OPTIONS sip:[2001:db8::10] SIP/2.0
        To: sip:user@example.com
        From: sip:user@example.com;tag=81x2
        Via: SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKas3
        Call-ID: SSG95523997077@hlau_4100
        Max-Forwards: 70
        Contact: \"Caller\" <sip:caller@[2001:db8::9:1]>
        CSeq: 921 OPTIONS";
    [message(bracketed, ""), message(bare, "")]
}

/// The description of sections 4.6 and 4.9.
fn video(address: &str, subject: &str) -> String {
    format!(
        "v=0
        o=assistant 971731711378798081 0 IN IP6 {address}
        s={subject}
        c=IN IP6 {address}
        t=3338481189 3370017201
        m=audio 6000 RTP/AVP 2
        a=rtpmap:2 G726-32/8000
        m=video 6024 RTP/AVP 107
        a=rtpmap:107 H263-1998/90000"
    )
}

fn in_description() -> Vec<u8> {
    message(
        "INVITE sip:user@[2001:db8::10] SIP/2.0
        To: sip:user@[2001:db8::10]
        From: sip:user@example.com;tag=81x2
        Via: SIP/2.0/UDP [2001:db8::20];branch=z9hG4bKas3-111
        Call-ID: SSG9559905523997077@hlau_4100
        Contact: \"Caller\" <sip:caller@[2001:db8::20]>
        CSeq: 8612 INVITE
        Max-Forwards: 70
        Content-Type: application/sdp",
        &video("2001:db8::20", "Live video feed for today's meeting"),
    )
}

fn in_headers() -> Vec<u8> {
    message(
        "BYE sip:user@host.example.net SIP/2.0
        Via: SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKas3-111
        Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144
        Via: SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bK451jj;received=192.0.2.200
        Call-ID: 997077@lau_4100
        Max-Forwards: 70
        CSeq: 89187 BYE
        To: sip:user@example.net;tag=9817--94
        From: sip:user@example.com;tag=81x2",
        "",
    )
}

fn of_both_families() -> Vec<u8> {
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
        c=IN IP6 2001:db8::1
        a=rtpmap:107 H263-1998/90000",
    )
}

fn mapped() -> Vec<u8> {
    message(
        "INVITE sip:user@example.com SIP/2.0
        To: sip:user@example.com
        From: sip:user@east.example.com;tag=81x2
        Via: SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKbh19
        Via: SIP/2.0/UDP [::ffff:192.0.2.2];branch=z9hG4bKas3-111
        Call-ID: SSG9559905523997077@hlau_4100
        Contact: \"T. desk phone\" <sip:ted@[::ffff:192.0.2.2]>
        CSeq: 612 INVITE
        Max-Forwards: 70
        Content-Type: application/sdp",
        &video("::ffff:192.0.2.2", "Call me soon, please!"),
    )
}

#[test]
fn every_message_gets_the_verdict_of_its_section() {
    let [bracketed, bare] = with_received();
    // Section, message, and whether it is good.
    let cases = [
        ("4.1 an address in the Request-URI", register_to("sip:[2001:db8::10]"), true),
        // Without brackets nobody can tell address and port apart: 400.
        ("4.2 an address without brackets", register_to("sip:2001:db8::10"), false),
        // The whole is an address, and most likely not the one that was meant; nobody can know.
        ("4.3 the port inside the brackets", register_to("sip:[2001:db8::10:5070]"), true),
        ("4.4 the port behind the brackets", register_to("sip:[2001:db8::10]:5070"), true),
        // The grammar has no brackets here; the section asks to take them all the same.
        ("4.5 received with brackets", bracketed, true),
        ("4.5 received without brackets", bare, true),
        ("4.6 addresses in a session description", in_description(), true),
        ("4.7 several addresses in headers", in_headers(), true),
        ("4.8 addresses of both families in a session description", of_both_families(), true),
        ("4.9 IPv4-mapped addresses", mapped(), true),
        // RFC 3261's grammar lets the first be written; the section has both taken.
        ("4.10 three colons before an IPv4 address", options_to("sip:user@[2001:db8:::192.0.2.1]"), true),
        ("4.10 two colons before an IPv4 address", options_to("sip:user@[2001:db8::192.0.2.1]"), true),
    ];
    for (section, bytes, is_good) in cases {
        let verdict = judge(&bytes, &Limits::default());
        let is_judged_so = match verdict {
            Verdict::Accept => is_good,
            Verdict::Reject { status, .. } => !is_good && status == 400,
            Verdict::Discard { .. } => false,
        };
        assert!(is_judged_so, "{section}: {verdict:?}\n{}", String::from_utf8_lossy(&bytes));
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
    let three = uri("sip:[2001:db8:::192.0.2.1]");
    assert_eq!(three.host_ip(), Some("2001:db8::192.0.2.1".parse().expect("an address")));
    assert_eq!(three.as_str(), "sip:[2001:db8:::192.0.2.1]", "what we do not change passes as it is");
    for text in [
        "sip:2001:db8::10",
        "sip:[2001:db8::::192.0.2.1]",
        "sip:[2001::db8:::192.0.2.1]",
        "sip:2001:db8:::192.0.2.1",
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
    let bytes = register_to("sip:[2001:db8::10]");
    let message = Message::parse(&bytes[..], &Limits::default()).expect("valid");
    let contact = message.header(HeaderName::Contact).and_then(NameAddr::parse).expect("valid");
    assert_eq!(contact.uri.host_ip(), Some("2001:db8::1".parse().expect("an address")));
}
