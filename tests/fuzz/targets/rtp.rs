//! Any bytes as media packets, alone and as a stream: reading never panics and says what another library says; counts add
//! up whatever order packets come in; scores stay in their scale; a report of ours reads as it was written.
#![no_main]

use belfry_rtp_proto::packet::{Kind, RtpView};
use belfry_rtp_proto::reception::{Clock, Reception, Totals};
use belfry_rtp_proto::rtcp;
use belfry_rtp_proto::window::Meter;
use webrtc_util::marshal::Unmarshal as _;

/// A second opinion on one packet.
fn check_packet(bytes: &[u8]) {
    let Ok(packet) = RtpView::parse(bytes) else { return };
    let _kind = Kind::of(bytes);
    assert!(packet.payload().len() + 12 <= bytes.len());
    let mut rest = bytes;
    // It panics over header extensions that are not what they say (which we pass on unread).
    if bytes[0] & 0x10 == 0 && let Ok(other) = rtp::packet::Packet::unmarshal(&mut rest) {
        let header = &other.header;
        assert_eq!(
            (header.sequence_number, header.timestamp, header.ssrc, header.payload_type, header.marker),
            (packet.sequence(), packet.timestamp(), packet.ssrc(), packet.payload_type(), packet.marker()),
        );
        if !header.padding {
            assert_eq!(other.payload.as_ref(), packet.payload());
        }
    }
}

/// Four bytes a packet: sequence number, how much later it came, and what it is.
fn check_stream(bytes: &[u8]) {
    let (mut meter, mut reception) = (Meter::new(60), Reception::new(60));
    let (mut now_micros, mut previous) = (1_u64 << 40, meter.totals());
    for (number, step) in bytes.chunks_exact(4).enumerate() {
        let mut packet = [0_u8; 32];
        packet[0] = 0x80;
        packet[1] = step[3];
        packet[2..4].copy_from_slice(&step[..2]);
        packet[4..8].copy_from_slice(&(u32::from(step[0]) << 24 | u32::from(step[1]) * 160).to_be_bytes());
        packet[11] = step[3] & 1;
        now_micros += u64::from(step[2]) * 1_000;
        let view = RtpView::parse(&packet).expect("a header that is right");
        meter.arrived(&view, packet.len(), &[], now_micros);
        reception.arrived(&view, Clock { rate: 8_000, is_steady: true }, now_micros);
        if step[3] & 2 == 0 { meter.forwarded() } else { meter.dropped() }
        let totals = meter.totals();
        assert!(totals.received >= previous.received && totals.expected >= previous.expected);
        assert!(totals.received + totals.duplicates <= number as u64 + 1);
        previous = totals;
        if number % 50 == 49 && let Some(quality) = meter.end_window(Some(f64::from(step[2]))) {
            assert!((1.0..=5.0).contains(&quality.mos_listening), "{quality:?}");
            assert!(quality.mos_conversation.is_none_or(|mos| (1.0..=5.0).contains(&mos)), "{quality:?}");
            assert!(quality.jitter_ms.is_finite() && quality.jitter_ms >= 0.0);
        }
    }
    assert_eq!(meter.packets(), (bytes.len() / 4) as u64);
    if let Some(block) = reception.report_block(&Totals::default()) {
        let written = rtcp::write_receiver_report(7, block.clone()).expect("it can be written");
        let read = rtcp::read(&written).expect("our own report");
        assert_eq!(read.blocks, [block]);
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check_packet(bytes);
    if let Ok(reports) = rtcp::read(bytes) {
        assert!(reports.blocks.len() <= 8);
    }
    check_stream(bytes);
});
