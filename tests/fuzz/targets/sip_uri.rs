//! Any text as a URI, plain and put together from parts: reading never panics, what is read is equal to itself in any
//! case of its host, its address of record is stable, and a user that is escaped reads the same.
#![no_main]

use arbitrary::Arbitrary;
use belfry_sip_proto::{Uri, escape_param, escape_user};

#[derive(Arbitrary, Debug)]
struct Parts<'a> {
    scheme: u8,
    user: Option<&'a str>,
    password: Option<&'a str>,
    host: u8,
    port: Option<u16>,
    params: Vec<(u8, Option<&'a str>)>,
    headers: Option<&'a str>,
}

const SCHEMES: [&str; 5] = ["sip:", "sips:", "SIP:", "tel:", "urn:"];
const HOSTS: [&str; 8] =
    ["a.test", "A.Test", "192.0.2.1", "[2001:db8::1]", "[2001:DB8:0::1]", "a", "a.", "xn--nxasmq6b.test"];
const NAMES: [&str; 10] =
    ["transport", "lr", "gr", "maddr", "ttl", "user", "method", "ob", "TRANSPORT", "x"];

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Plain(&'a str, &'a str),
    Made(Parts<'a>, &'a str),
}

impl Parts<'_> {
    fn text(&self) -> String {
        let pick = |from: &[&str], at: u8| from[usize::from(at) % from.len()].to_owned();
        let mut text = pick(&SCHEMES, self.scheme);
        if let Some(user) = self.user {
            text.push_str(&escape_user(user));
            if let Some(password) = self.password {
                text.push_str(&format!(":{password}"));
            }
            text.push('@');
        }
        text.push_str(&pick(&HOSTS, self.host));
        text.extend(self.port.map(|port| format!(":{port}")));
        for (name, value) in self.params.iter().take(8) {
            text.push_str(&format!(";{}", pick(&NAMES, *name)));
            text.extend(value.map(|value| format!("={}", escape_param(value))));
        }
        text.extend(self.headers.map(|headers| format!("?{headers}")));
        text
    }
}

fn check(first: &str, second: &str) {
    let Some(uri) = Uri::parse(first) else { return };
    assert_eq!(uri.as_str(), first);
    assert!(uri.is_equivalent(&uri), "{first}");
    let _parts = (uri.user_unescaped(), uri.host_ip(), uri.port(), uri.params().count(), uri.gruu_instance());
    let canonical = uri.address_of_record();
    if uri.is_sip() {
        let again = Uri::parse(&canonical).expect("an address of record is a URI");
        assert_eq!(again.address_of_record(), canonical);
        assert_eq!(again.user_unescaped(), uri.user_unescaped(), "{first}");
        assert!(again.host().eq_ignore_ascii_case(uri.host()), "{first}");
    }
    if let Some(other) = Uri::parse(second) {
        assert_eq!(uri.is_equivalent(&other), other.is_equivalent(&uri), "{first} {second}");
    }
}

libfuzzer_sys::fuzz_target!(|input: Input<'_>| {
    let (first, second) = match &input {
        Input::Plain(first, second) => ((*first).to_owned(), *second),
        Input::Made(parts, second) => (parts.text(), *second),
    };
    check(&first, second);
    check(&first, &first.replace("a.test", "A.TEST"));
    if !second.is_empty() {
        let made = format!("sip:{}@h;gr={}", escape_user(second), escape_param(second));
        let uri = Uri::parse(&made).expect("what was escaped is a URI");
        assert_eq!(uri.user_unescaped().as_deref(), Some(second));
        assert_eq!(uri.gruu_instance().as_deref(), Some(second));
    }
});
