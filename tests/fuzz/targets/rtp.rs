//! Any bytes as a media packet: RTP and RTCP reading never panics.
#![no_main]

use belfry_rtp_proto::{packet::RtpView, rtcp};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(packet) = RtpView::parse(bytes) {
        let _parts = (packet.sequence(), packet.ssrc(), packet.payload().len());
    }
    let _reports = rtcp::read(bytes);
});
