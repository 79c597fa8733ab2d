use super::*;
use crate::message::{Message, OwnedMessage};
use crate::scan::Limits;

const INVITE: &str = "INVITE sip:bob@b SIP/2.0\r\nv: SIP/2.0/UDP one;branch=z9hG4bK1,\r\n SIP/2.0/UDP two\r\n\
    Via: SIP/2.0/UDP three\r\nRecord-Route: <sip:p;lr>\r\nRoute: <sip:r;lr>\r\nf: <sip:a@a>;tag=a\r\nt: <sip:bob@b>\r\ni: c\r\n\
    CSeq: 7 INVITE\r\nTimestamp: 54\r\nMax-Forwards: 9\r\n\r\n";

fn invite() -> Message<'static> {
    Message::parse(INVITE.as_bytes(), &Limits::default()).expect("valid")
}

fn read(bytes: Vec<u8>) -> OwnedMessage {
    let message = OwnedMessage::parse(bytes, &Limits::default()).expect("what we build is valid");
    message.check().expect("what we build is complete");
    message
}

#[test]
fn responses_carry_what_the_request_brought() {
    let ringing =
        read(response_to(&invite(), 180, None, Some("b"), &[(HeaderName::Server, "Belfry\r\nX: y")]));
    assert_eq!((ringing.status(), ringing.reason_phrase().as_deref()), (Some(180), Some("Ringing")));
    assert_eq!(ringing.headers(HeaderName::Via).count(), 3);
    assert_eq!((ringing.from_tag(), ringing.to_tag(), ringing.call_id()), (Some("a"), Some("b"), Some("c")));
    assert_eq!(ringing.header_text(HeaderName::RecordRoute).as_deref(), Some("<sip:p;lr>"));
    assert_eq!(ringing.header_text(HeaderName::Server).as_deref(), Some("Belfry  X: y"));
    assert_eq!(ringing.header(HeaderName::ContentLength), Some(&b"0"[..]));

    let trying = read(response_to(&invite(), 100, None, None, &[]));
    assert_eq!((trying.to_tag(), trying.header(HeaderName::Timestamp)), (None, Some(&b"54"[..])));
    assert_eq!(trying.header(HeaderName::RecordRoute), None);
}

#[test]
fn ack_and_cancel_belong_to_the_same_transaction() {
    let busy = read(response_to(&invite(), 486, None, Some("b"), &[]));
    let ack = read(ack_to(&invite(), &busy));
    let cancel = read(cancel_of(&invite()));
    for (message, method, tag) in [(&ack, "ACK", Some("b")), (&cancel, "CANCEL", None)] {
        assert_eq!((message.method(), message.to_tag()), (method, tag));
        assert_eq!(message.headers(HeaderName::Via).count(), 1);
        assert_eq!(message.top_via().and_then(|via| via.branch()), Some("z9hG4bK1"));
        assert_eq!(message.cseq().map(|cseq| cseq.number), Some(7));
        assert_eq!(message.routes(HeaderName::Route).count(), 1);
    }
}

#[test]
fn requests_with_bodies() {
    let request = Writer::request("MESSAGE", "sip:a@b")
        .header(HeaderName::Via, "SIP/2.0/UDP us;branch=z9hG4bK2")
        .header(HeaderName::From, "<sip:c@d>;tag=1")
        .header(HeaderName::To, "<sip:a@b>")
        .header(HeaderName::CallId, "x")
        .header(HeaderName::CSeq, "1 MESSAGE")
        .header(HeaderName::ContentType, "text/plain")
        .extension("X-Own", "y")
        .finish_with_body(b"hello");
    assert_eq!(read(request).body(), b"hello");
}

#[test]
fn phrases_are_in_order_and_agree_with_the_vocabulary_of_rsip() {
    assert!(REASONS.is_sorted_by_key(|(code, _)| *code));
    assert_eq!((reason_phrase(486), reason_phrase(299)), ("Busy Here", "Unknown"));
    let letters =
        |text: &str| text.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_lowercase();
    for (code, phrase) in REASONS {
        let name = rsip::StatusCode::from(code).to_string();
        let known = name.split_once(' ').map_or(name.as_str(), |(_, name)| name);
        if known != "Other" && letters(known) != letters(phrase) {
            // Where rsip shortens a name, at least the first word is the same.
            let first = letters(phrase.split([' ', '/', '-']).next().unwrap_or_default());
            assert!(letters(known).starts_with(&first), "{code}: {known} and {phrase}");
        }
    }
}
