//! Any bytes as the values of From, Contact, Via and lists of them: reading never panics.
#![no_main]

use belfry_sip_proto::{CSeq, Contact, NameAddr, Via, split_list};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for value in split_list(bytes) {
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
    let _cseq = CSeq::parse(bytes);
});
