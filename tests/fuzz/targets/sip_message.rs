//! Any bytes as a datagram: judging and reading every part never panics.
#![no_main]

use belfry_sip_proto::{Limits, Message, judge};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let _verdict = judge(bytes, &limits);
    if let (Some(message), _) = Message::scan(bytes, &limits) {
        let _parts = (message.call_id(), message.cseq(), message.top_via(), message.from_tag(), message.to_tag());
        let _lists = (message.contacts().count(), message.body().len(), message.max_forwards());
    }
});
