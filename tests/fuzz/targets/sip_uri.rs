//! Any text as a URI: reading never panics, what is read is equal to itself, and a user that is escaped reads the same.
#![no_main]

use belfry_sip_proto::{Uri, escape_param, escape_user};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    if let Some(uri) = Uri::parse(first) {
        assert!(uri.is_equivalent(&uri), "{first}");
        let _parts = (uri.user_unescaped(), uri.host_ip(), uri.port(), uri.params().count(), uri.gruu_instance());
        let canonical = uri.address_of_record();
        if uri.is_sip() {
            let again = Uri::parse(&canonical).expect("an address of record is a URI");
            assert_eq!(again.address_of_record(), canonical);
        }
        if let Some(other) = Uri::parse(second) {
            assert_eq!(uri.is_equivalent(&other), other.is_equivalent(&uri), "{first} {second}");
        }
    }
    if !first.is_empty() {
        let made = format!("sip:{}@h;gr={}", escape_user(first), escape_param(first));
        let uri = Uri::parse(&made).expect("what was escaped is a URI");
        assert_eq!(uri.user_unescaped().as_deref(), Some(first));
        assert_eq!(uri.gruu_instance().as_deref(), Some(first));
    }
});
