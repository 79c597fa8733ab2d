//! Any bytes as a stream, in two pieces: framing never panics and never grows past its limits.
#![no_main]

use belfry_sip_proto::{Framer, Limits};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut framer = Framer::new(Limits::default());
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for piece in [first, second] {
        framer.push(piece);
        while let Ok(Some(_frame)) = framer.next_frame() {}
    }
});
