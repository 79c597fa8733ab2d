//! Any bytes as a session description: reading never panics, and what was read can be rewritten and read again.
#![no_main]

use belfry_rtp_proto::sdp::{Description, Limits};

const LIMITS: Limits = Limits { bytes_max: 1 << 16, media_max: 16 };

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(description) = Description::parse(bytes, LIMITS) {
        let ports = vec![None; description.media().len()];
        let rewritten = description.rewrite(std::net::Ipv4Addr::LOCALHOST.into(), &ports);
        assert!(Description::parse(&rewritten, LIMITS).is_ok());
    }
});
