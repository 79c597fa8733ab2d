//! Any bytes as a session description: reading never panics; what was read can be rewritten and read again, says then
//! what it was told to say, keeps everything else, and does not change when it is rewritten once more.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use belfry_rtp_proto::sdp::{Description, Limits, Ports};

const LIMITS: Limits = Limits { bytes_max: 1 << 16, media_max: 16 };

/// Lines that a relay has nothing to do with.
fn bystanders(body: &[u8]) -> Vec<&[u8]> {
    let is_bystander = |line: &&[u8]| {
        [&b"v="[..], b"o=", b"s=", b"b=", b"t=", b"a=rtpmap:", b"a=fmtp:", b"a=send", b"a=recv", b"a=crypto:"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    body.split(|byte| *byte == b'\n').filter(is_bystander).collect()
}

fn check(body: &[u8], description: &Description<'_>, address: IpAddr) {
    let ports: Vec<Option<Ports>> = (0..description.media().len())
        .map(|at| u16::try_from(20_000 + 2 * at).ok().map(|rtp| Ports { rtp, rtcp: rtp + 1 }))
        .collect();
    let rewritten = description.rewrite(address, &ports);
    let again = Description::parse(&rewritten, LIMITS).expect("what we write can be read");
    assert_eq!(again.media().len(), description.media().len());
    for ((before, after), ports) in description.media().iter().zip(again.media()).zip(&ports) {
        assert_eq!((before.is_on(), before.transport), (after.is_on(), after.transport));
        assert_eq!((before.direction, before.rtcp_mux, before.is_audio), (after.direction, after.rtcp_mux, after.is_audio));
        assert_eq!(before.formats, after.formats);
        if before.is_on() {
            assert_eq!(Some(after.port), ports.map(|ports| ports.rtp));
            assert!(after.address == Some(address) || before.is_held_by_address(), "{after:?}");
        }
    }
    assert_eq!(bystanders(&rewritten), bystanders(body));
    assert_eq!(again.rewrite(address, &ports), rewritten, "once is enough");
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(description) = Description::parse(bytes, LIMITS) {
        let none = vec![None; description.media().len()];
        let kept = description.rewrite(Ipv4Addr::LOCALHOST.into(), &none);
        let kept = Description::parse(&kept, LIMITS).expect("what we write can be read");
        for (before, after) in description.media().iter().zip(kept.media()) {
            assert_eq!(before.port, after.port, "without ports of ours theirs stay");
        }
        check(bytes, &description, Ipv4Addr::LOCALHOST.into());
        check(bytes, &description, Ipv6Addr::LOCALHOST.into());
    }
});
