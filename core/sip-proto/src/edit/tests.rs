use super::*;
use crate::message::Message;
use crate::scan::Limits;

const REQUEST: &str = "\r\nINVITE sip:bob@biloxi.com SIP/2.0\r\n\
    X-First:  as it  came\r\n\
    v: SIP/2.0/UDP pc33;rport ;branch=z9hG4bK1, SIP/2.0/UDP second\r\n\
    Via:SIP/2.0/UDP third\r\n\
    Route: <sip:one;lr>,\r\n <sip:two;lr>\r\n\
    Route: <sip:three;lr>\r\n\
    l: 2\r\n\
    Contact:<sip:a@b>\r\n\r\nhitrailing";

fn edited(edit: impl for<'m> FnOnce(Edit<'m>) -> Edit<'m>) -> String {
    let message = Message::parse(REQUEST.as_bytes(), &Limits::default()).expect("valid");
    let bytes = edit(Edit::new(&message)).finish();
    let again = Message::parse(&bytes[..], &Limits::default()).expect("still valid");
    assert_eq!(again.as_bytes().len(), bytes.len());
    String::from_utf8(bytes).expect("text")
}

/// Checks that an edit changes exactly this.
fn check(edit: impl for<'m> FnOnce(Edit<'m>) -> Edit<'m>, from: &str, to: &str) {
    let untouched = REQUEST.trim_start().replace("trailing", "");
    assert!(untouched.contains(from), "{from}");
    assert_eq!(edited(edit), untouched.replacen(from, to, 1));
}

#[test]
fn what_no_edit_touches_stays() {
    check(|edit| edit, "", "");
}

#[test]
fn single_edits() {
    check(|edit| edit.set_request_uri("sip:bob@192.0.2.4"), "sip:bob@biloxi.com", "sip:bob@192.0.2.4");
    check(|edit| edit.prepend(HeaderName::Via, "SIP/2.0/TLS us"), "v: SIP", "Via: SIP/2.0/TLS us\r\nv: SIP");
    check(
        |edit| {
            edit.prepend(HeaderName::RecordRoute, "<sip:1;lr>").prepend(HeaderName::RecordRoute, "<sip:2;lr>")
        },
        "X-First",
        "Record-Route: <sip:2;lr>\r\nRecord-Route: <sip:1;lr>\r\nX-First",
    );
    check(
        |edit| edit.remove_top(HeaderName::Via),
        "v: SIP/2.0/UDP pc33;rport ;branch=z9hG4bK1, SIP",
        "v: SIP",
    );
    check(|edit| edit.remove_top(HeaderName::Route), "<sip:one;lr>,\r\n <sip:two", "<sip:two");
    check(
        |edit| edit.remove_top_values(HeaderName::Route, 2),
        "Route: <sip:one;lr>,\r\n <sip:two;lr>\r\n",
        "",
    );
    check(
        |edit| edit.remove_top_values(HeaderName::Route, 9),
        "Route: <sip:one;lr>,\r\n <sip:two;lr>\r\nRoute: <sip:three;lr>\r\n",
        "",
    );
    check(|edit| edit.set_max_forwards(69), "b>\r\n\r\n", "b>\r\nMax-Forwards: 69\r\n\r\n");
    check(
        |edit| edit.set_received("2001:db8::7".parse().expect("address"), Some(40_000)),
        "pc33;rport ;branch=z9hG4bK1,",
        "pc33 ;branch=z9hG4bK1;received=2001:db8::7;rport=40000,",
    );
    check(|edit| edit.set(HeaderName::Contact, "<sip:us>"), "<sip:a@b>", "<sip:us>");
    check(|edit| edit.remove(HeaderName::Contact), "Contact:<sip:a@b>\r\n", "");
    check(|edit| edit.remove_extension("x-first"), "X-First:  as it  came\r\n", "");
    check(|edit| edit.append("X-Own", "y"), "b>\r\n\r\n", "b>\r\nX-Own: y\r\n\r\n");
}

#[test]
fn a_new_body_brings_its_length_and_type() {
    let text = edited(|edit| edit.set_body(Some("application/sdp"), b"v=0\r\n"));
    assert!(text.contains("l: 5\r\n"), "{text}");
    assert!(text.ends_with("Content-Type: application/sdp\r\n\r\nv=0\r\n"), "{text}");
}

#[test]
fn a_forwarded_request_is_all_its_edits_at_once() {
    let text = edited(|edit| {
        edit.set_received("192.0.2.1".parse().expect("address"), None)
            .prepend(HeaderName::Via, "SIP/2.0/UDP us;branch=z9hG4bKnew")
            .remove_top(HeaderName::Route)
            .prepend(HeaderName::Route, "<sip:next;lr>")
            .set_max_forwards(9)
            .set_request_uri("sip:x@y")
    });
    let message = Message::parse(text.as_bytes(), &Limits::default()).expect("valid");
    let values = |name| {
        message.headers(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        values(HeaderName::Via),
        [
            "SIP/2.0/UDP us;branch=z9hG4bKnew",
            "SIP/2.0/UDP pc33;rport ;branch=z9hG4bK1;received=192.0.2.1",
            "SIP/2.0/UDP second",
            "SIP/2.0/UDP third"
        ]
    );
    assert_eq!(values(HeaderName::Route), ["<sip:next;lr>", "<sip:two;lr>", "<sip:three;lr>"]);
}

#[test]
fn what_a_peer_says_of_its_own_source_is_gone_however_often_it_says_it() {
    let text = "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h;received=1.1.1.1;rport;Received=2.2.2.2;x=y;RPORT=3\r\n\r\n";
    let message = Message::parse(text.as_bytes(), &Limits::default()).expect("valid");
    let edited = Edit::new(&message).set_received([192, 0, 2, 1].into(), Some(9)).finish();
    let expected = "Via: SIP/2.0/UDP h;x=y;received=192.0.2.1;rport=9\r\n";
    let edited = String::from_utf8(edited).expect("text");
    assert!(edited.contains(expected), "{edited}");
}

#[test]
fn noting_the_source_finds_everything_as_a_new_scan_does() {
    for (text, rport) in [
        ("OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nTo: <sip:a>\r\n\r\n", None),
        (
            "\r\n\r\nOPTIONS sip:a SIP/2.0\r\nFrom: x\r\nv: SIP/2.0/UDP h;rport , SIP/2.0/TCP i\r\nl: 2\r\n\r\nhixx",
            Some(9),
        ),
        (
            "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h;received=2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff;rport=65535\r\n\
          Via: SIP/2.0/UDP j\r\nTo: <sip:a>\r\n\r\n",
            Some(1),
        ),
        ("OPTIONS sip:a SIP/2.0\r\nTo: <sip:a>\r\n\r\n", None),
    ] {
        let limits = Limits::default();
        let message = Message::scan(text.as_bytes(), &limits).0.expect("a start line").to_owned_message();
        let address = [192, 0, 2, 1].into();
        let edited = Edit::new(&message).set_received(address, rport).finish();
        let scanned = OwnedMessage::scan(edited, &limits).0.expect("a start line");
        let noted = message.with_received(address, rport);
        assert_eq!(noted, message.top_via().is_some().then_some(scanned), "{text:?}");
    }
}
