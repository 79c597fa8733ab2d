//! The sound of one call: a tone sent every 20 ms, an ear for the other side's tone, and RTCP reports.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use belfry_rtp_proto::packet::{Kind, RtpView};
use belfry_rtp_proto::reception::{Clock, Reception, Totals};
use belfry_rtp_proto::rtcp::{self as reports, SenderTime};
use belfry_rtp_proto::sdp::{Description, Limits};
use rtcp::reception_report::ReceptionReport;
use rtcp::sender_report::SenderReport;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tokio_util::sync::CancellationToken;
use webrtc_util::marshal::Marshal as _;

use crate::error::Error;
use crate::tone::{SAMPLES, Tone};

const PACKET_TIME: Duration = Duration::from_millis(20);
const PCMU: u8 = 0;
const PCMU_CLOCK: Clock = Clock { rate: 8_000, is_steady: true };
const JITTER_BUFFER_MS: u32 = 60;
const PORT_TRIES_MAX: usize = 50;
/// Seconds between 1900 and 1970, for NTP timestamps.
const NTP_OFFSET_SECONDS: u64 = 2_208_988_800;
/// The share of packets with the tone from which on it counts as heard.
const TONE_SHARE_MIN: f64 = 0.5;
/// Packets below which nobody would say that something was heard.
const TONE_PACKETS_MIN: u64 = 10;

/// What one side of a call heard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// RTP packets that came.
    pub packets: u64,
    /// Packets that were lost on the way, by their sequence numbers.
    pub lost: u64,
    /// Interarrival jitter at the end, in milliseconds.
    pub jitter_ms: f64,
    /// Packets that carried the other side's tone.
    pub tone_packets: u64,
    /// From the answer to the first packet.
    pub first_packet_after: Option<Duration>,
    /// RTCP reports that came.
    pub reports: u64,
    /// Packets that were sent.
    pub sent: u64,
    /// RTCP reports that were sent.
    pub reports_sent: u64,
}

impl Heard {
    /// Whether the other side's tone came through.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a call has far fewer than 2^52 packets")]
    pub fn is_tone_heard(&self) -> bool {
        self.tone_packets >= TONE_PACKETS_MIN
            && self.tone_packets as f64 >= TONE_SHARE_MIN * self.packets as f64
    }
}

/// Bound ports that wait for the other side's.
pub(crate) struct Media {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    address: SocketAddr,
}

/// Sound that flows.
pub(crate) struct Sound {
    stop: CancellationToken,
    task: JoinHandle<Heard>,
}

/// Where the other side listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) rtp: SocketAddr,
    pub(crate) rtcp: SocketAddr,
}

impl Remote {
    /// Reads the first audio stream of a session description.
    pub(crate) fn from_description(body: &[u8]) -> Option<Self> {
        let limits = Limits { bytes_max: 16_384, media_max: 16 };
        let description = Description::parse(body, limits).ok()?;
        let audio = description.media().iter().find(|media| media.is_audio && media.is_on())?;
        Some(Self { rtp: audio.rtp_address()?, rtcp: audio.rtcp_address()? })
    }
}

impl Media {
    /// Binds an even port for RTP and the next for RTCP.
    pub(crate) async fn bind(address: IpAddr) -> Result<Self, Error> {
        for _ in 0..PORT_TRIES_MAX {
            let rtp = UdpSocket::bind((address, 0)).await.map_err(Error::socket("bind rtp"))?;
            let bound = rtp.local_addr().map_err(Error::socket("bind rtp"))?;
            if bound.port() % 2 == 0
                && let Ok(rtcp) = UdpSocket::bind((address, bound.port() + 1)).await
            {
                return Ok(Self { rtp, rtcp, address: bound });
            }
        }
        Err(Error::Protocol("no pair of media ports is free"))
    }

    /// The session description that offers or answers with these ports.
    pub(crate) fn description(&self) -> String {
        let (address, port) = (self.address.ip(), self.address.port());
        let family = if address.is_ipv4() { "IP4" } else { "IP6" };
        let session: u32 = rand::random();
        format!(
            "v=0\r\no=- {session} 1 IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na=sendrecv\r\n"
        )
    }

    /// Starts to send one tone and to listen for the other.
    pub(crate) fn start(self, remote: Remote, send: Tone, expect: Tone, report_interval: Duration) -> Sound {
        let stop = CancellationToken::new();
        let line = Line {
            rtp: Arc::new(self.rtp),
            rtcp: Arc::new(self.rtcp),
            remote,
            expect,
            payload: send.payload(),
            ssrc: rand::random(),
            sequence: rand::random(),
            timestamp: rand::random(),
            start: Instant::now(),
            reception: Reception::new(JITTER_BUFFER_MS),
            reported: Totals::default(),
            last_report: None,
            heard: Heard::default(),
        };
        let task = tokio::spawn(line.run(stop.clone(), report_interval));
        Sound { stop, task }
    }
}

impl Sound {
    /// Stops, and tells what was heard.
    pub(crate) async fn stop(self) -> Heard {
        self.stop.cancel();
        self.task.await.unwrap_or_default()
    }
}

struct Line {
    rtp: Arc<UdpSocket>,
    rtcp: Arc<UdpSocket>,
    remote: Remote,
    expect: Tone,
    payload: [u8; SAMPLES],
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    start: Instant,
    reception: Reception,
    reported: Totals,
    /// The last sender report that came and when.
    last_report: Option<(SenderTime, Instant)>,
    heard: Heard,
}

impl Line {
    async fn run(mut self, stop: CancellationToken, report_interval: Duration) -> Heard {
        // Phones do not speak in step: each starts somewhere within the packet time.
        let offset = Duration::from_micros(rand::random_range(0..20_000));
        let mut packets = interval_at(self.start + offset, PACKET_TIME);
        let mut report_times = interval(report_interval);
        report_times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        report_times.tick().await;
        let (rtp, rtcp) = (Arc::clone(&self.rtp), Arc::clone(&self.rtcp));
        let (mut packet, mut report) = (vec![0; 2048], vec![0; 2048]);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = packets.tick() => self.send_packet().await,
                _ = report_times.tick() => self.send_report().await,
                received = rtp.recv_from(&mut packet) => {
                    if let Ok((size, _)) = received {
                        self.hear(&packet[..size]);
                    }
                }
                received = rtcp.recv_from(&mut report) => {
                    if let Ok((size, _)) = received {
                        self.hear_report(&report[..size]);
                    }
                }
            }
        }
        let totals = self.reception.totals();
        Heard { lost: totals.lost(), jitter_ms: self.reception.jitter_ms(), ..self.heard }
    }

    async fn send_packet(&mut self) {
        let mut packet = Vec::with_capacity(12 + SAMPLES);
        let marker = if self.heard.sent == 0 { 0x80 } else { 0 };
        packet.extend_from_slice(&[0x80, PCMU | marker]);
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&self.timestamp.to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(&self.payload);
        // A packet that cannot be sent is a lost packet.
        drop(self.rtp.send_to(&packet, self.remote.rtp).await);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(SAMPLES as u32);
        self.heard.sent += 1;
    }

    fn hear(&mut self, datagram: &[u8]) {
        match Kind::of(datagram) {
            Kind::Rtcp => return self.hear_report(datagram),
            Kind::Rtp => {}
            _ => return,
        }
        let Ok(packet) = RtpView::parse(datagram) else { return };
        let elapsed = self.start.elapsed();
        self.heard.first_packet_after.get_or_insert(elapsed);
        self.heard.packets += 1;
        let now_micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.reception.arrived(&packet, PCMU_CLOCK, now_micros);
        if packet.payload_type() == PCMU && self.expect.is_heard_in(packet.payload()) {
            self.heard.tone_packets += 1;
        }
    }

    fn hear_report(&mut self, datagram: &[u8]) {
        let Ok(read) = reports::read(datagram) else { return };
        self.heard.reports += 1;
        if let Some(time) = read.sender {
            self.last_report = Some((time, Instant::now()));
        }
    }

    async fn send_report(&mut self) {
        let block = self.reception.report_block(&self.reported).map(|block| self.timed(block));
        self.reported = self.reception.totals();
        let report = SenderReport {
            ssrc: self.ssrc,
            ntp_time: ntp_now(),
            rtp_time: self.timestamp,
            packet_count: u32::try_from(self.heard.sent).unwrap_or(u32::MAX),
            octet_count: u32::try_from(self.heard.sent * SAMPLES as u64).unwrap_or(u32::MAX),
            reports: block.into_iter().collect(),
            ..SenderReport::default()
        };
        let Ok(mut compound) = report.marshal().map(|bytes| bytes.to_vec()) else { return };
        compound.extend_from_slice(&description_of_source(self.ssrc));
        drop(self.rtcp.send_to(&compound, self.remote.rtcp).await);
        self.heard.reports_sent += 1;
    }

    /// Adds LSR and DLSR (RFC 3550 section 6.4.1), from which the other side knows the round trip.
    fn timed(&self, block: ReceptionReport) -> ReceptionReport {
        match self.last_report {
            Some((time, at)) if time.ssrc == block.ssrc => {
                let delay = at.elapsed().as_micros() * 65_536 / 1_000_000;
                let delay = u32::try_from(delay).unwrap_or(u32::MAX);
                ReceptionReport { last_sender_report: time.ntp_middle, delay, ..block }
            }
            _ => block,
        }
    }
}

/// An SDES packet with a CNAME, which every compound packet must have (RFC 3550 section 6.1).
fn description_of_source(ssrc: u32) -> Vec<u8> {
    let name = b"phone";
    let mut packet = vec![0x81, 202, 0, 0];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[1, name.len() as u8]);
    packet.extend_from_slice(name);
    packet.push(0);
    packet.resize(packet.len().next_multiple_of(4), 0);
    packet[3] = (packet.len() / 4 - 1) as u8;
    packet
}

fn ntp_now() -> u64 {
    let nanos = belfry_signal::now_unix_nanos();
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    ((seconds + NTP_OFFSET_SECONDS) << 32) | ((rest << 32) / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_sides_hear_each_other_and_report() {
        let here: IpAddr = [127, 0, 0, 1].into();
        let (one, two) = (Media::bind(here).await.expect("ports"), Media::bind(here).await.expect("ports"));
        let to_one = Remote::from_description(one.description().as_bytes()).expect("our own");
        let to_two = Remote::from_description(two.description().as_bytes()).expect("our own");
        assert_eq!(to_one.rtp, one.address);
        assert_eq!(to_one.rtcp.port(), one.address.port() + 1);
        let every = Duration::from_millis(100);
        let one = one.start(to_two, Tone::CALLER, Tone::CALLEE, every);
        let two = two.start(to_one, Tone::CALLEE, Tone::CALLER, every);
        tokio::time::sleep(Duration::from_millis(600)).await;
        let (one, two) = (one.stop().await, two.stop().await);
        for heard in [one, two] {
            assert!(heard.is_tone_heard(), "{heard:?}");
            assert!(heard.reports > 0 && heard.reports_sent > 0, "{heard:?}");
            assert_eq!(heard.lost, 0, "{heard:?}");
        }
    }

    #[test]
    fn silence_and_a_wrong_tone_are_not_heard() {
        assert!(!Heard::default().is_tone_heard());
        assert!(!Heard { packets: 100, tone_packets: 20, ..Heard::default() }.is_tone_heard());
        assert!(Heard { packets: 100, tone_packets: 92, ..Heard::default() }.is_tone_heard());
    }
}
