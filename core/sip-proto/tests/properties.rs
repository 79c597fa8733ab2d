//! Properties of the wire layer: it never panics, edits survive parsing again, and on canonical messages it agrees
//! with `rsip`, which is the second opinion.

use belfry_sip_proto::{
    CSeq, Contact, Edit, Framer, HeaderName, Limits, Message, NameAddr, Uri, Via, build, digest, judge,
    split_list,
};
use proptest::prelude::*;
use rsip::headers::ToTypedHeader;
use rsip::prelude::{HeadersExt, UntypedHeader};

const SEEDS: [&str; 3] = [
    "INVITE sip:bob@biloxi.com;transport=tcp SIP/2.0\r\nVia: SIP/2.0/TCP pc33.atlanta.com:5070;branch=z9hG4bK776\r\n\
     v: SIP/2.0/UDP [::1];rport,\r\n SIP/2.0/TLS b\r\nMax-Forwards: 70\r\nTo: \"B, o\\\"b\" <sip:bob@biloxi.com>\r\n\
     From: Alice <sip:alice@atlanta.com>;tag=1928\r\nCall-ID: a84b@pc33\r\nCSeq: 314159 INVITE\r\n\
     Contact: <sip:alice@pc33;lr>;q=0.3;expires=9\r\nRoute: <sip:a;lr>, <sip:b;lr>\r\nContent-Type: application/sdp\r\n\
     Content-Length: 4\r\n\r\nv=0\n",
    "REGISTER sips:registrar.biloxi.com SIP/2.0\r\nv: SIP/2.0/WSS x.invalid;branch=z9hG4bKnas\r\nt: <tel:+1-201>\r\n\
     f: sip:bob@biloxi.com;tag=456\r\ni: 8438\r\nCSeq: 1826 REGISTER\r\nm: *\r\nExpires: 0\r\n\
     Authorization: Digest username=\"b\", realm=\"r\", nonce=\"n\", uri=\"u\", response=\"x\", qop=auth, nc=0000000a, cnonce=\"c\"\r\n\
     l: 0\r\n\r\n",
    "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;received=2001:db8::1;branch=z9hG4bK1\r\nTo: <sip:a@b>;tag=9\r\n\
     From: <sip:c@d>;tag=8\r\nCall-ID: z\r\nCSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n",
];

/// Everything that reads peers' bytes.
fn read_all(bytes: &[u8]) {
    let limits = Limits::default();
    let _ = judge(bytes, &limits);
    if let (Some(message), _) = Message::scan(bytes, &limits) {
        let _ = message.check();
        let _ = (message.method(), message.status(), message.uri(), message.top_via(), message.body());
        for field in message.fields() {
            let _ = (
                field.text(),
                digest::Credentials::parse(field.value),
                digest::Challenge::parse(field.value),
            );
            for value in split_list(field.value) {
                let _ = (Via::parse(value), NameAddr::parse(value), CSeq::parse(value));
                if let Some(contact) = Contact::parse(value) {
                    let _ = (contact.expires_seconds(), contact.q_thousandths());
                    let _ = contact.address().map(|address| address.uri.address_of_record());
                }
            }
        }
        let edited = Edit::new(&message)
            .set_received([192, 0, 2, 1].into(), Some(9))
            .remove_top(HeaderName::Route)
            .prepend(HeaderName::Via, "SIP/2.0/UDP us;branch=z9hG4bKus")
            .set_max_forwards(9)
            .set_body(Some("text/plain"), b"x")
            .finish();
        let _ = judge(&edited, &limits);
        let _ = build::response_to(&message, 400, None, Some("tag"), &[]);
    }
    let mut framer = Framer::new(limits);
    framer.push(bytes);
    while let Ok(Some(_)) = framer.next_frame() {}
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let change = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        prop::collection::vec(any::<u8>(), 0..6),
    );
    (0..SEEDS.len(), prop::collection::vec(change, 1..6)).prop_map(|(seed, changes)| {
        let mut bytes = SEEDS[seed].as_bytes().to_vec();
        for (from, size, with) in changes {
            let from = from.index(bytes.len().max(1));
            let to = (from + size.index(12)).min(bytes.len());
            bytes.splice(from..to, with);
            if bytes.is_empty() {
                bytes.push(b'x');
            }
        }
        bytes
    })
}

/// Bytes that matter to the grammar, so that random text gets deep.
fn grammatical() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"\"\\<>;,:=@[]%?/ \t\r\nsip:0aZ*.".to_vec()), 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        read_all(&bytes);
    }

    #[test]
    fn mutated_messages_never_panic(bytes in mutated()) {
        read_all(&bytes);
    }

    #[test]
    fn values_never_panic(value in grammatical()) {
        read_all(&[b"OPTIONS sip:a SIP/2.0\r\nVia: ", &value[..], b"\r\n\r\n"].concat());
        if let Some(uri) = std::str::from_utf8(&value).ok().and_then(Uri::parse) {
            prop_assert!(uri.is_equivalent(&uri), "a uri equals itself: {uri}");
            let _ = uri.address_of_record();
        }
    }

    #[test]
    fn edits_survive_parsing_again(hops in any::<u8>(), port in 1u16.., routes in 0usize..5, body in prop::collection::vec(any::<u8>(), 0..64)) {
        let message = Message::parse(SEEDS[0].as_bytes(), &Limits::default()).expect("valid");
        let bytes = Edit::new(&message)
            .set_received([127, 0, 0, 2].into(), Some(port))
            .prepend(HeaderName::Via, "SIP/2.0/UDP us;branch=z9hG4bKus")
            .remove_top_values(HeaderName::Route, routes)
            .set_max_forwards(hops)
            .set_body(None, &body)
            .finish();
        let again = Message::parse(&bytes[..], &Limits::default()).expect("still well framed");
        again.check().expect("still right");
        prop_assert_eq!(again.max_forwards(), Some(hops));
        prop_assert_eq!(again.body(), &body[..]);
        prop_assert_eq!(again.headers(HeaderName::Via).count(), 4);
        prop_assert_eq!(again.headers(HeaderName::Route).count(), 2usize.saturating_sub(routes));
        let second = again.headers(HeaderName::Via).nth(1).and_then(Via::parse).expect("valid");
        prop_assert_eq!(second.rport(), Some(port));
        prop_assert_eq!(second.received(), Some([127, 0, 0, 2].into()));
        prop_assert_eq!(again.call_id(), message.call_id());
    }

    #[test]
    fn rsip_agrees_on_canonical_messages(
        user in "[a-z0-9]{1,12}", host in "[a-z]{1,8}[.]example[.]com", port in 1024u16.., tag in "[a-z0-9]{1,16}",
        call_id in "[a-zA-Z0-9]{1,30}", number in 1u32..2_000_000_000, hops in 0u8..=70, expires in 0u32..100_000,
    ) {
        let bytes = build::Writer::request("REGISTER", &format!("sip:{host}"))
            .header(HeaderName::Via, &format!("SIP/2.0/UDP {host}:{port};branch=z9hG4bK{tag}"))
            .header(HeaderName::MaxForwards, &hops.to_string())
            .header(HeaderName::From, &format!("<sip:{user}@{host}>;tag={tag}"))
            .header(HeaderName::To, &format!("<sip:{user}@{host}>"))
            .header(HeaderName::CallId, &call_id)
            .header(HeaderName::CSeq, &format!("{number} REGISTER"))
            .header(HeaderName::Contact, &format!("<sip:{user}@{host}:{port}>;expires={expires}"))
            .finish();
        let ours = Message::parse(&bytes[..], &Limits::default()).expect("valid");
        ours.check().expect("valid");
        let theirs = rsip::Request::try_from(&bytes[..]).expect("rsip takes it");
        prop_assert_eq!(ours.method(), theirs.method.to_string());
        prop_assert_eq!(ours.request_uri(), theirs.uri.to_string());
        prop_assert_eq!(ours.call_id(), Some(theirs.call_id_header().expect("there").value()));
        let via = theirs.via_header().expect("there").typed().expect("valid");
        let top = ours.top_via().expect("valid");
        prop_assert_eq!(top.branch(), via.branch().map(|branch| branch.value()));
        prop_assert_eq!(top.port, via.uri.host_with_port.port.as_ref().map(|port| *port.value()));
        let cseq = theirs.cseq_header().expect("there").typed().expect("valid");
        prop_assert_eq!(ours.cseq().map(|cseq| cseq.number), Some(cseq.seq));
        let from = theirs.from_header().expect("there");
        prop_assert_eq!(ours.from_tag().map(str::to_owned), from.tag().expect("valid").map(|tag| tag.value().to_owned()));
        let uri = from.uri().expect("valid");
        prop_assert_eq!(ours.from().and_then(|from| from.uri.user()), uri.user());
        prop_assert_eq!(ours.from().map(|from| from.uri.host().to_owned()), Some(uri.host().to_string()));
        prop_assert_eq!(ours.max_forwards().map(u32::from), theirs.max_forwards_header().expect("there").num().ok());
        prop_assert_eq!(ours.fields().count(), theirs.headers.iter().count());
    }
}
