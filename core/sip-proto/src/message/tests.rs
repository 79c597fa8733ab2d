use super::*;
use crate::fault::Answer;

const INVITE: &str = "INVITE sip:bob@biloxi.com SIP/2.0\r\n\
    v: SIP / 2.0 / UDP pc33.atlanta.com;branch=z9hG4bK776asdhds ,\r\n SIP/2.0/TLS [2001:db8::1]:5061;branch=z9hG4bKx\r\n\
    Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bKy\r\n\
    Max-Forwards : 0070\r\n\
    t: Bob <sip:bob@biloxi.com>\r\n\
    FROM: \"Alice, \\\"A\\\"\" <sip:alice@atlanta.com>;tag=1928301774\r\n\
    i: a84b4c76e66710@pc33.atlanta.com\r\n\
    CSeq: 314159 INVITE\r\n\
    m: <sip:alice@pc33.atlanta.com;transport=tls>;+sip.instance=\"<urn:uuid:1>\";expires=60, <tel:+1555>\r\n\
    k: timer, Path\r\n\
    X-Own: kept\r\n\
    c: application/SDP;x=y\r\n\
    l: 4\r\n\r\nv=0\nrest";

fn parse(text: &str) -> Result<Message<'_>, Fault> {
    let message = Message::parse(text.as_bytes(), &Limits::default())?;
    message.check()?;
    Ok(message)
}

#[test]
fn what_was_noted_is_what_stands_there() {
    let bare = "OPTIONS sip:a@b SIP/2.0\r\nFrom: <sip:a@b>;tag=\r\nTo: sip:b@c;tag=7\r\n\r\n";
    let short = INVITE.replace(" ,\r\n SIP/2.0/TLS [2001:db8::1]:5061;branch=z9hG4bKx", ":5070");
    for text in [INVITE, bare, &short, "SIP/2.0 200 OK\r\nVia: what\r\n\r\n"] {
        let message = Message::scan(text.as_bytes(), &Limits::default()).0.expect("a start line");
        let noted = message.clone().noted();
        let of = |message: &Message<'_>| {
            let via = message.top_via().map(|via| {
                let all: Vec<String> = via.params.iter().map(|param| format!("{param:?}")).collect();
                (via.transport.to_owned(), via.host.to_owned(), via.port, all, via.wants_rport())
            });
            (message.from_tag().map(str::to_owned), message.to_tag().map(str::to_owned), via)
        };
        assert_eq!(of(&noted), of(&message), "{text}");
        // A Via that grows is noted anew.
        let grown = noted.with_received("192.0.2.9".parse().expect("an address"), Some(7));
        let rport = |via: &Via<'_>| (via.rport(), via.received());
        let grown = grown.map(|grown| grown.noted().top_via().as_ref().map(rport));
        let expected = message.top_via().map(|_| Some((Some(7), "192.0.2.9".parse().ok())));
        assert_eq!(grown.filter(Option::is_some), expected, "{text}");
    }
}

#[test]
fn everything_is_found_in_place() {
    let invite = parse(INVITE).expect("valid");
    assert!(invite.is_request());
    assert_eq!((invite.method(), invite.known_method()), ("INVITE", Some(Method::Invite)));
    assert_eq!(invite.request_uri(), "sip:bob@biloxi.com");
    let hosts: Vec<_> = invite.headers(HeaderName::Via).filter_map(Via::parse).map(|via| via.host).collect();
    assert_eq!(hosts, ["pc33.atlanta.com", "[2001:db8::1]", "df7jal23ls0d.invalid"]);
    assert_eq!(invite.top_via().and_then(|via| via.branch()), Some("z9hG4bK776asdhds"));
    assert_eq!(invite.max_forwards(), Some(70));
    assert_eq!((invite.from_tag(), invite.to_tag()), (Some("1928301774"), None));
    assert_eq!(invite.from().expect("valid").display(), "Alice, \"A\"");
    assert_eq!(invite.call_id(), Some("a84b4c76e66710@pc33.atlanta.com"));
    assert_eq!(invite.cseq(), Some(CSeq { number: 314_159, method: "INVITE" }));
    assert_eq!(invite.contacts().count(), 2);
    assert!(invite.has_token(HeaderName::Supported, "path"));
    assert_eq!(invite.extension("x-own"), Some(&b"kept"[..]));
    assert_eq!(invite.content_type().as_deref(), Some("application/sdp"));
    assert_eq!(invite.body(), b"v=0\n");
    assert_eq!(invite.to_owned_message().call_id(), invite.call_id());
}

#[test]
fn responses() {
    let text = "SIP/2.0 180 Ringing =2**3\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKq\r\nFrom: <sip:a@b>;tag=1\r\n\
        To: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\r\n";
    let ringing = parse(text).expect("valid");
    assert_eq!((ringing.status(), ringing.method(), ringing.request_uri()), (Some(180), "INVITE", ""));
    assert_eq!(ringing.reason_phrase().as_deref(), Some("Ringing =2**3"));
    let text = text.replace("CSeq: 1 INVITE", "CSeq: 9292394834772304023312 INVITE");
    assert_eq!(parse(&text).expect_err("overflows").answer, Answer::Discard);
}

#[test]
fn faults_say_what_where_and_the_answer() {
    let cases = [
        ("", "\r\n\r\n", FaultKind::Empty, 400),
        ("INVITE sip:bob", "invite sip:bob", FaultKind::CseqMethodMismatch, 0),
        ("SIP/2.0\r\nv", "SIP/3.0\r\nv", FaultKind::Version, 505),
        ("SIP/2.0\r\nv", "SIP2.0\r\nv", FaultKind::StartLine, 400),
        ("INVITE sip", "INVITE  sip", FaultKind::StartLineSpacing, 400),
        ("X-Own: kept", "X-Own kept", FaultKind::HeaderLine, 400),
        ("X-Own: kept", "X Own: kept", FaultKind::HeaderLine, 400),
        ("X-Own: kept\r\n", "X-Own: kept\n", FaultKind::BareLineEnd, 400),
        ("X-Own: kept", "X-Own: ke\rpt", FaultKind::BareLineEnd, 400),
        ("X-Own: kept", "Call-ID: twice", FaultKind::DuplicateHeader, 400),
        ("X-Own: kept", "l: 4", FaultKind::DuplicateHeader, 400),
        ("l: 4", "l: four", FaultKind::ContentLengthSyntax, 400),
        ("l: 4", "l: 400", FaultKind::ContentLengthPastEnd, 400),
        ("i: a84", "X: a84", FaultKind::MissingHeader, 400),
        ("314159 INVITE", "314159 BYE", FaultKind::CseqMethodMismatch, 400),
        ("314159 INVITE", "4294967296 INVITE", FaultKind::CseqSyntax, 400),
        ("t: Bob <", "t: \"Bob <", FaultKind::AddressSyntax, 400),
        ("<tel:+1555>", "<tel:home>", FaultKind::ContactSyntax, 400),
        ("TLS [2001", "TLS 2001", FaultKind::ViaSyntax, 400),
        ("X-Own: kept", "Route: junk", FaultKind::RouteSyntax, 400),
        ("0070", "many", FaultKind::MaxForwardsSyntax, 400),
        ("\r\n\r\nv=0\nrest", "", FaultKind::HeadersUnterminated, 400),
    ];
    for (from, to, kind, status) in cases {
        let text = if from.is_empty() { to.to_owned() } else { INVITE.replacen(from, to, 1) };
        let fault = parse(&text).map(|_| ()).expect_err(to);
        if status == 0 {
            // Another case is another method, and an unknown one.
            assert_eq!(fault.status(), Some(501));
            continue;
        }
        assert_eq!((fault.kind, fault.status()), (kind, Some(status)), "{to:?}");
        assert!(fault.position <= text.len());
    }
}

#[test]
fn limits_are_kept() {
    let limits = Limits { message_bytes_max: 2_000, line_bytes_max: 200, headers_max: 20 };
    let check =
        |text: String| Message::parse(text.as_bytes(), &limits).map(|_| ()).expect_err("over a limit").kind;
    assert_eq!(check(INVITE.replace("rest", &"x".repeat(2_000))), FaultKind::MessageTooLarge);
    assert_eq!(check(INVITE.replace("kept", &"x".repeat(200))), FaultKind::LineTooLong);
    assert_eq!(
        check(INVITE.replace("bob@biloxi.com SIP", &format!("{}@b SIP", "b".repeat(200)))),
        FaultKind::LineTooLong
    );
    assert_eq!(check(INVITE.replace("X-Own: kept\r\n", &"X: y\r\n".repeat(20))), FaultKind::TooManyHeaders);
}

#[test]
fn a_faulty_request_can_still_be_answered() {
    let text = INVITE.replacen("l: 4", "l: -4", 1);
    let (message, fault) = Message::scan(text.as_bytes(), &Limits::default());
    let message = message.expect("it has a start line");
    assert_eq!(fault.map(|fault| fault.kind), Some(FaultKind::ContentLengthSyntax));
    assert_eq!(message.headers(HeaderName::Via).count(), 3);
    assert_eq!(message.from_tag(), Some("1928301774"));
}

#[test]
fn every_fault_has_its_own_reason() {
    let mut reasons: Vec<_> = FaultKind::ALL.iter().map(|kind| kind.reason()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), FaultKind::ALL.len());
}
