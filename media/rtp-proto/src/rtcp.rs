//! RTCP as the relay needs it: who reports what about whom, our own receiver reports, and the round trip.
//!
//! Compound packets are walked here, with the validity checks of RFC 3550 appendix A.2; only sender and receiver
//! reports go to the `rtcp` crate, so that nothing else that a peer may send is decoded at all.

use rtcp::packet::Packet as _;
use rtcp::receiver_report::ReceiverReport;
use rtcp::reception_report::ReceptionReport;
use rtcp::sender_report::SenderReport;
use webrtc_util::marshal::{Marshal as _, Unmarshal as _};

use crate::error::Error;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
/// Report blocks kept of one compound packet; a phone sends one.
const BLOCKS_MAX: usize = 8;
/// Sender reports of one leg that are remembered for the round trip.
const SENT_MAX: usize = 4;

/// What one compound packet says, as far as a relay wants to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// The sender's own report: its SSRC and the middle 32 bits of its NTP time.
    pub sender: Option<SenderTime>,
    /// What it reports about the streams that it receives.
    pub blocks: Vec<ReceptionReport>,
}

/// When a sender report was written, by the sender's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderTime {
    /// The sender.
    pub ssrc: u32,
    /// Middle 32 bits of the NTP timestamp: units of 1/65536 s.
    pub ntp_middle: u32,
}

/// Reads the sender and receiver reports of a compound packet.
///
/// # Errors
/// When it is not a valid compound packet (RFC 3550 A.2) or a report in it is malformed.
pub fn read(datagram: &[u8]) -> Result<Reports, Error> {
    let mut reports = Reports::default();
    let mut rest = datagram;
    while !rest.is_empty() {
        let &[first, packet_type, high, low, ..] = rest else {
            return Err(Error::Control("shorter than a header"));
        };
        if first >> 6 != 2 {
            return Err(Error::Control("not version 2"));
        }
        let bytes = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        if bytes > rest.len() {
            return Err(Error::Control("cut off"));
        }
        let (mut packet, after) = rest.split_at(bytes);
        rest = after;
        match packet_type {
            SENDER_REPORT => {
                let report = SenderReport::unmarshal(&mut packet)
                    .map_err(|_| Error::Control("malformed sender report"))?;
                let ntp_middle = (report.ntp_time >> 16 & 0xffff_ffff) as u32;
                reports.sender = Some(SenderTime { ssrc: report.ssrc, ntp_middle });
                reports.blocks.extend(report.reports);
            }
            RECEIVER_REPORT => {
                let report = ReceiverReport::unmarshal(&mut packet)
                    .map_err(|_| Error::Control("malformed receiver report"))?;
                reports.blocks.extend(report.reports);
            }
            _ => {}
        }
        reports.blocks.truncate(BLOCKS_MAX);
    }
    if datagram.is_empty() { Err(Error::Control("empty")) } else { Ok(reports) }
}

/// Writes a receiver report of ours about one stream (RFC 3550 section 6.4.2).
///
/// # Errors
/// When the encoder refuses, which no value of the arguments causes.
pub fn write_receiver_report(ssrc: u32, block: ReceptionReport) -> Result<Vec<u8>, Error> {
    let report = ReceiverReport { ssrc, reports: vec![block], ..ReceiverReport::default() };
    debug_assert_eq!(report.header().count, 1);
    report.marshal().map(|bytes| bytes.to_vec()).map_err(|_| Error::Encode)
}

/// Measures the round trip to a leg from the sender reports that went to it and the receiver reports that come
/// back (RFC 3550 section 6.4.1, LSR and DLSR). The relay passes reports on unchanged, so the reports of the other
/// leg serve, timed when they pass through.
#[derive(Clone, Debug, Default)]
pub struct RoundTrip {
    sent: [Option<(SenderTime, u64)>; SENT_MAX],
    next: usize,
    last_ms: Option<f64>,
}

impl RoundTrip {
    /// A sender report goes to the leg.
    pub fn sent(&mut self, time: SenderTime, now_micros: u64) {
        self.sent[self.next] = Some((time, now_micros));
        self.next = (self.next + 1) % SENT_MAX;
    }

    /// A report block comes from the leg; the round trip in milliseconds when it answers a report that we saw.
    pub fn received(&mut self, block: &ReceptionReport, now_micros: u64) -> Option<f64> {
        if block.last_sender_report == 0 {
            return None;
        }
        let (_, sent_micros) = self
            .sent
            .iter()
            .flatten()
            .find(|(time, _)| time.ssrc == block.ssrc && time.ntp_middle == block.last_sender_report)?;
        let held_micros = u64::from(block.delay) * 1_000_000 / 65_536;
        let elapsed_micros = now_micros.checked_sub(*sent_micros)?;
        // A leg whose clock runs fast can claim to have held a report longer than it was away: that is 0, not less.
        let round_trip_ms = elapsed_micros.saturating_sub(held_micros) as f64 / 1_000.0;
        self.last_ms = Some(round_trip_ms);
        self.last_ms
    }

    /// The last round trip, in milliseconds.
    #[must_use]
    pub fn last_ms(&self) -> Option<f64> {
        self.last_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sender_report(ssrc: u32, ntp_time: u64) -> Vec<u8> {
        SenderReport { ssrc, ntp_time, ..SenderReport::default() }.marshal().expect("encodes").to_vec()
    }

    #[test]
    fn the_round_trip_is_what_was_away_less_what_was_held() {
        let mut round_trip = RoundTrip::default();
        let report = read(&sender_report(7, 0x1234_5678_9abc_def0)).expect("valid").sender.expect("a sender");
        assert_eq!(report, SenderTime { ssrc: 7, ntp_middle: 0x5678_9abc });
        round_trip.sent(report, 1_000_000);
        let block = ReceptionReport {
            ssrc: 7,
            last_sender_report: 0x5678_9abc,
            delay: 65_536 / 2, // held for half a second
            ..ReceptionReport::default()
        };
        let bytes = write_receiver_report(9, block).expect("encodes");
        let blocks = read(&bytes).expect("valid").blocks;
        let measured = round_trip.received(&blocks[0], 1_540_000).expect("it answers ours");
        assert!((measured - 40.0).abs() < 0.1, "{measured}");
        let stranger = ReceptionReport { last_sender_report: 1, ..blocks[0].clone() };
        assert_eq!(round_trip.received(&stranger, 1_600_000), None);
        assert_eq!(round_trip.last_ms(), Some(measured));
    }

    #[test]
    fn compound_packets_are_walked_whole() {
        let mut compound = sender_report(1, 0xffff_0000_0000);
        compound.extend([0x81, 202, 0, 2, 0, 0, 0, 1, 1, 1, b'x', 0]); // source description
        let block = ReceptionReport { ssrc: 5, fraction_lost: 64, ..ReceptionReport::default() };
        compound.extend(write_receiver_report(2, block.clone()).expect("encodes"));
        let reports = read(&compound).expect("valid");
        assert_eq!(reports.sender.map(|sender| sender.ssrc), Some(1));
        assert_eq!(reports.blocks, vec![block]);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bytes in [
            &[][..],
            &[0x80],
            &[0x80, 201, 0, 1, 0, 0, 0],
            &[0x40, 201, 0, 0],
            &[0x9f, 201, 0, 1, 0, 0, 0, 1],
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 199u8..204, words in 0u8..48) {
            let _ = read(&bytes);
            // And again as something that looks like a report, so that the decoder is reached.
            if bytes.len() >= 4 {
                bytes[0] = 0x80 | bytes[0] & 0x3f;
                bytes[1] = kind;
                bytes[2] = 0;
                bytes[3] = words;
                let _ = read(&bytes);
            }
        }
    }
}
