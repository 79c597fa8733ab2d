//! Any bytes as the values of From, Contact, Via and lists of them: reading never panics, a list splits into what stands in
//! it, and what is put together from parts reads as its parts.
#![no_main]

use arbitrary::Arbitrary;
use belfry_sip_proto::{CSeq, Contact, NameAddr, Via, split_list};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Plain(&'a [u8]),
    Made { display: &'a str, tag: u32, before: &'a [u8] },
    Count(u32, u8),
}

fn check_value(value: &[u8]) {
    if let Some(address) = NameAddr::parse(value) {
        let _parts = (address.display(), address.tag(), address.uri.user_unescaped(), address.params.iter().count());
    }
    if let Some(contact) = Contact::parse(value) {
        assert!(contact.q_thousandths() <= 1000);
        let _expires = contact.expires_seconds();
    }
    if let Some(via) = Via::parse(value) {
        let _parts = (via.branch(), via.received(), via.host_ip(), via.port_or_default(), via.wants_rport());
    }
}

libfuzzer_sys::fuzz_target!(|input: Input<'_>| match input {
    Input::Plain(bytes) => {
        let values: Vec<&[u8]> = split_list(bytes).collect();
        for value in &values {
            check_value(value);
            if NameAddr::parse(value).is_some() {
                assert_eq!(split_list(value).collect::<Vec<_>>(), [*value], "an element is a list of one");
            }
        }
        // Whoever joins the elements of a list has the same list.
        if values.iter().all(|value| NameAddr::parse(value).is_some()) {
            assert_eq!(split_list(&values.join(&b", "[..])).collect::<Vec<_>>(), values);
        }
        let _cseq = CSeq::parse(bytes);
    }
    Input::Made { display, tag, before } => {
        if display.chars().any(char::is_control) {
            return;
        }
        let quoted = display.replace('\\', "\\\\").replace('"', "\\\"");
        let made = format!("\"{quoted}\" <sip:a@b.test;x=y>;tag={tag:x}");
        let address = NameAddr::parse(made.as_bytes()).expect("it is made as it should be");
        assert_eq!(address.display(), display);
        assert_eq!(address.uri.as_str(), "sip:a@b.test;x=y");
        assert_eq!(address.tag(), Some(format!("{tag:x}").as_str()));
        // Behind another element that can be read it is found again.
        if NameAddr::parse(before).is_some() {
            let list = [before, b",", made.as_bytes()].concat();
            assert_eq!(split_list(&list).last(), Some(made.as_bytes()));
        }
    }
    Input::Count(number, spaces) => {
        let text = format!("{number}{}INVITE", " ".repeat(usize::from(spaces % 3) + 1));
        let cseq = CSeq::parse(text.as_bytes()).map(|cseq| (cseq.number, cseq.method.to_owned()));
        // RFC 3261 section 8.1.1.5: below 2^31.
        if number < 1 << 31 {
            assert_eq!(cseq, Some((number, "INVITE".to_owned())));
        }
    }
});
