//! Any bytes as a datagram: judging and reading every part never panics; what was read prints and reads the same; an
//! edit changes what it names and nothing else; a stream cuts the same message out that a datagram holds.
#![no_main]

use std::net::Ipv4Addr;

use belfry_sip_proto::{Edit, Frame, Framer, HeaderName, Limits, Message, OwnedMessage, build, judge, split_list};

const VIA: &str = "SIP/2.0/UDP edge.test:5060;branch=z9hG4bKfuzz";

/// Every field as it stands, but those of one name.
fn fields_but(message: &OwnedMessage, but: Option<HeaderName>) -> Vec<(String, Vec<u8>)> {
    let others = message.fields().filter(|field| Some(field.id) != but);
    others.map(|field| (field.name.to_owned(), field.value.to_vec())).collect()
}

fn values(message: &OwnedMessage, name: HeaderName) -> Vec<Vec<u8>> {
    message.headers(name).map(<[u8]>::to_vec).collect()
}

fn again(bytes: Vec<u8>, limits: &Limits) -> OwnedMessage {
    OwnedMessage::parse(bytes, limits).expect("what was edited can be read")
}

/// The edits of a proxy, each against the message read again.
fn check_edits(message: &OwnedMessage, limits: &Limits) {
    let same = again(Edit::new(message).finish(), limits);
    assert_eq!(fields_but(&same, None), fields_but(message, None));
    assert_eq!((same.body(), same.status()), (message.body(), message.status()));

    let pushed = again(Edit::new(message).prepend(HeaderName::Via, VIA).finish(), limits);
    assert_eq!(values(&pushed, HeaderName::Via)[0], VIA.as_bytes());
    assert_eq!(values(&pushed, HeaderName::Via)[1..], values(message, HeaderName::Via));
    let popped = again(Edit::new(&pushed).remove_top(HeaderName::Via).finish(), limits);
    assert_eq!(values(&popped, HeaderName::Via), values(message, HeaderName::Via));
    assert_eq!(fields_but(&popped, Some(HeaderName::Via)), fields_but(message, Some(HeaderName::Via)));
    assert_eq!(popped.body(), message.body());

    let hops = again(Edit::new(message).set_max_forwards(7).finish(), limits);
    assert_eq!((hops.max_forwards(), values(&hops, HeaderName::MaxForwards).len()), (Some(7), 1));
    assert_eq!(fields_but(&hops, Some(HeaderName::MaxForwards)), fields_but(message, Some(HeaderName::MaxForwards)));

    let told = again(Edit::new(message).set_body(None, b"\r\n\r\nv=0\r\n").finish(), limits);
    assert_eq!(told.body(), b"\r\n\r\nv=0\r\n");
    assert_eq!(fields_but(&told, Some(HeaderName::ContentLength)), fields_but(message, Some(HeaderName::ContentLength)));

    if message.check().is_ok() {
        let seen = again(Edit::new(message).set_received(Ipv4Addr::LOCALHOST.into(), Some(9)).finish(), limits);
        let via = seen.top_via().expect("a Via that was read before");
        assert_eq!((via.received(), via.rport()), (Some(Ipv4Addr::LOCALHOST.into()), Some(9)));
        let table = message.with_received(Ipv4Addr::LOCALHOST.into(), Some(9)).expect("a Via that was read before");
        assert_eq!(table.as_bytes(), seen.as_bytes(), "the edit without another scan is the edit");
        assert_eq!(fields_but(&table, None), fields_but(&seen, None));
        assert_eq!(table.body(), seen.body());
    }
}

/// What we answer can be read and belongs to the request.
fn check_answer(request: &OwnedMessage) {
    let answer = build::response_to(request, 486, None, Some("fuzz"), &[(HeaderName::RetryAfter, "5")]);
    let limits = Limits { message_bytes_max: 1 << 20, ..Limits::default() };
    let Ok(answer) = OwnedMessage::parse(answer, &limits) else {
        // Values that were folded stand on one line in an answer, which may be too long.
        return;
    };
    answer.check().expect("our answer is as it should be");
    assert_eq!((answer.status(), answer.call_id()), (Some(486), request.call_id()));
    assert_eq!(answer.cseq().map(|cseq| cseq.number), request.cseq().map(|cseq| cseq.number));
    assert_eq!(answer.headers(HeaderName::Via).count(), request.headers(HeaderName::Via).count());
    assert!(answer.to_tag().is_some());
}

/// A message with a length, whose lines end as they should, is cut out of a stream as it is.
fn check_stream(bytes: &[u8], message: &OwnedMessage, limits: &Limits) {
    let has_length = message.header(HeaderName::ContentLength).is_some();
    let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) else { return };
    let is_whole = head + message.body().len() == bytes.len();
    let is_lined = !bytes[..head].windows(2).any(|two| two[1] == b'\n' && two[0] != b'\r');
    if !has_length || !is_whole || !is_lined || bytes.starts_with(b"\r\n") {
        return;
    }
    let mut framer = Framer::new(*limits);
    framer.push(bytes);
    assert_eq!(framer.next_frame().expect("it can be cut"), Some(Frame::Message(bytes.to_vec())));
    assert_eq!(framer.pending_bytes(), 0);
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let _verdict = judge(bytes, &limits);
    if let (Some(message), _) = Message::scan(bytes, &limits) {
        let _parts = (message.call_id(), message.cseq(), message.top_via(), message.from_tag(), message.to_tag());
        let _lists = (message.contacts().count(), message.body().len(), message.max_forwards());
        let _values = message.fields().map(|field| split_list(field.value).count()).sum::<usize>();
    }
    let Ok(message) = OwnedMessage::parse(bytes.to_vec(), &limits) else { return };
    // Edits make a message longer, which is not theirs to refuse.
    let roomy = Limits { message_bytes_max: 1 << 20, line_bytes_max: 1 << 18, headers_max: limits.headers_max + 8 };
    check_edits(&message, &roomy);
    check_stream(bytes, &message, &limits);
    if message.is_request() && message.check().is_ok() {
        check_answer(&message);
    }
});
