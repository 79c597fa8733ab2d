//! Descriptions of real phones, broken ones, and random bytes.

use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { bytes_max: 16_384, media_max: 4 };

const PHONE: &str = "v=0\r\no=alice 2890844526 2890844526 IN IP4 192.168.1.7\r\ns=a call \r\nc=IN IP4 192.168.1.7\r\n\
    t=0 0\r\nm=audio 49170 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
    a=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n";

fn parse(text: &str) -> Description<'_> {
    Description::parse(text.as_bytes(), LIMITS).expect("a description")
}

fn rewritten(text: &str, ports: &[Option<Ports>]) -> String {
    let bytes = parse(text).rewrite("203.0.113.10".parse().expect("an address"), ports);
    String::from_utf8(bytes).expect("text")
}

fn ports(rtp: u16) -> Option<Ports> {
    Some(Ports { rtp, rtcp: rtp + 1 })
}

#[test]
fn only_address_and_port_change() {
    let expected = PHONE.replace("c=IN IP4 192.168.1.7", "c=IN IP4 203.0.113.10").replace("49170", "20000");
    assert_eq!(rewritten(PHONE, &[ports(20_000)]), expected);
    let description = parse(PHONE);
    let media = &description.media()[0];
    assert!(media.is_audio && media.is_on());
    assert_eq!(media.rtp_address(), "192.168.1.7:49170".parse().ok());
    assert_eq!(media.rtcp_address(), "192.168.1.7:49171".parse().ok());
    assert_eq!((media.direction, media.transport), (Direction::SendReceive, Transport::Rtp));
    assert_eq!(media.formats.len(), 2);
    assert!(!media.formats[1].clock.is_steady);
}

#[test]
fn bare_line_feeds_and_a_missing_last_one_stay() {
    let text = PHONE.replace("\r\n", "\n");
    let text = text.trim_end();
    assert_eq!(
        rewritten(text, &[ports(20_000)]),
        text.replace("c=IN IP4 192.168.1.7", "c=IN IP4 203.0.113.10").replace("49170", "20000")
    );
}

#[test]
fn each_media_has_its_own_ports_and_address() {
    let text = "v=0\r\no=- 1 1 IN IP6 2001:db8::1\r\ns=-\r\nt=0 0\r\na=recvonly\r\n\
        m=audio 4000 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\na=rtcp:4005 IN IP6 2001:db8::2\r\na=sendonly\r\n\
        m=video 0 RTP/AVP 31\r\n\
        m=video 5000 RTP/SAVPF 96\r\nc=IN IP4 192.0.2.1\r\na=rtcp-mux\r\na=rtcp:5000\r\na=rtpmap:96 H264/90000\r\n\
        m=image 6000 udptl t38\r\nc=IN IP4 fax.example.com\r\n";
    let description = parse(text);
    let [audio, rejected, video, fax] = description.media() else { panic!("four media") };
    assert_eq!(audio.rtcp_address(), "[2001:db8::2]:4005".parse().ok());
    assert_eq!(audio.direction, Direction::SendOnly);
    assert!(!rejected.is_on());
    assert_eq!((video.transport, video.rtcp_mux), (Transport::SecureRtp, true));
    assert_eq!(video.direction, Direction::ReceiveOnly, "the session's");
    assert_eq!((fax.transport, fax.rtp_address()), (Transport::Datagram, None));
    let got = rewritten(text, &[ports(20_000), None, ports(20_004), ports(20_006)]);
    assert_eq!(
        got,
        "v=0\r\no=- 1 1 IN IP6 2001:db8::1\r\ns=-\r\nt=0 0\r\na=recvonly\r\n\
        m=audio 20000 RTP/AVP 0\r\nc=IN IP4 203.0.113.10\r\na=rtcp:20001 IN IP4 203.0.113.10\r\na=sendonly\r\n\
        m=video 0 RTP/AVP 31\r\n\
        m=video 20004 RTP/SAVPF 96\r\nc=IN IP4 203.0.113.10\r\na=rtcp-mux\r\na=rtcp:20004\r\na=rtpmap:96 H264/90000\r\n\
        m=image 20006 udptl t38\r\nc=IN IP4 203.0.113.10\r\n"
    );
}

#[test]
fn hold_reaches_the_other_side() {
    let by_address = PHONE.replace("c=IN IP4 192.168.1.7", "c=IN IP4 0.0.0.0");
    assert!(parse(&by_address).media()[0].is_held_by_address());
    assert!(rewritten(&by_address, &[ports(20_000)]).contains("c=IN IP4 0.0.0.0\r\n"));
    let by_attribute = PHONE.replace("a=sendrecv", "a=inactive");
    let description = parse(&by_attribute);
    let direction = description.media()[0].direction;
    assert!(!direction.sends() && !direction.receives());
}

#[test]
fn nothing_leads_past_the_relay() {
    let text = PHONE.replace("t=0 0\r\n", "t=0 0\r\na=group:BUNDLE 0\r\na=group:LS 0 1\r\na=ice-lite\r\n")
        + "a=candidate:1 1 UDP 2130706431 192.168.1.7 49170 typ host\r\na=ice-ufrag:F7gI\r\na=mid:0\r\n";
    let got = rewritten(&text, &[ports(20_000)]);
    assert!(!got.contains("candidate") && !got.contains("BUNDLE") && !got.contains("ice-"), "{got}");
    assert!(got.contains("a=group:LS 0 1\r\n") && got.ends_with("a=mid:0\r\n"), "{got}");
}

#[test]
fn errors_name_the_line() {
    for (text, line, what) in [
        ("", 0, "empty"),
        ("o=x\r\n", 1, "v=0"),
        ("v=0\r\nhello\r\n", 2, "x=value"),
        ("v=0\r\nc=IN IP4\r\n", 2, "c= wants"),
        ("v=0\r\nc=IN IP4 ::1\r\n", 2, "family"),
        ("v=0\r\nc=IN IP5 1.2.3.4\r\n", 2, "neither IP4 nor IP6"),
        ("v=0\r\nc=IN IP4 224.2.1.1/127\r\n", 2, "multicast"),
        ("v=0\r\nc=IN IP4 1.2.3\r\n", 2, "neither an address"),
        ("v=0\r\nm=audio 4000 RTP/AVP 0\r\n", 2, "no c= line"),
        ("v=0\r\nc=IN IP4 1.2.3.4\r\nm=audio 70000 RTP/AVP 0\r\n", 3, "port"),
        ("v=0\r\nc=IN IP4 1.2.3.4\r\nm=audio 4000/2 RTP/AVP 0\r\n", 3, "more than one port"),
        ("v=0\r\nc=IN IP4 1.2.3.4\r\nm=message 4000 TCP/MSRP *\r\n", 3, "udp"),
        ("v=0\r\nc=IN IP4 1.2.3.4\r\nm=audio 4000\r\n", 3, "m= wants"),
        ("v=0\r\nc=IN IP4 1.2.3.4\r\nm=audio 4000 RTP/AVP 0\r\na=rtcp:x\r\n", 4, "port"),
        (
            "v=0\nm=a 0 RTP/AVP 0\nm=a 0 RTP/AVP 0\nm=a 0 RTP/AVP 0\nm=a 0 RTP/AVP 0\nm=a 0 RTP/AVP 0\n",
            6,
            "m= lines",
        ),
    ] {
        match Description::parse(text.as_bytes(), LIMITS) {
            Err(Error::Description { line: at, what: why }) => {
                assert!(at == line && why.contains(what), "{text:?}: line {at}: {why}");
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
    assert!(Description::parse(&[b'v'; 20_000], LIMITS).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Description::parse(&body, LIMITS);
    }

    #[test]
    fn no_lines_panic_and_rewriting_twice_changes_nothing(
        lines in proptest::collection::vec("(c=IN IP4 [0-9.]{0,9}|m=audio [0-9/]{0,6} (RTP/AVP|udptl|x) [0-9 ]{0,4}|a=(rtcp|rtpmap|rtcp-mux|inactive|candidate|group)[: ]?.{0,12}|[a-z]=.{0,8}|)", 0..12),
        ending in "(\r\n|\n)",
    ) {
        let text = format!("v=0{ending}c=IN IP4 192.0.2.7{ending}{}", lines.join(&ending));
        if let Ok(description) = Description::parse(text.as_bytes(), LIMITS) {
            let all = [ports(20_000), ports(20_002), ports(20_004), ports(20_006)];
            let address = "203.0.113.10".parse().expect("an address");
            let once = description.rewrite(address, &all);
            let again = Description::parse(&once, LIMITS).expect("what we write we can read");
            prop_assert_eq!(again.media().len(), description.media().len());
            prop_assert_eq!(again.rewrite(address, &all), once.clone());
        }
    }
}
