//! Whole-relay tests: two fake phones over loopback, through the handle.

mod quality;
mod setup;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use belfry_relay_api::{Description, Leg, LegReport, Refusal, Reply, Request, SessionKey, SessionReport};
use belfry_signal::record::Record;
use belfry_signal::{RecordReceiver, Registry};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::ports::free_range;
use crate::{Config, Faults, Relay, RelayHandle};

/// How long a packet that should come may take, on a machine where everything else compiles.
const SOON: Duration = Duration::from_secs(5);
/// How long is waited for a packet that should not come.
const BRIEFLY: Duration = Duration::from_millis(100);

fn config(pairs: u16) -> Config {
    let (port_min, port_max) = free_range(pairs);
    Config {
        bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        advertised_address: None,
        port_min,
        port_max,
        dscp: 46,
        workers: 2,
        pin_workers: false,
        sessions_max: 8,
        streams_max: 4,
        description_bytes_max: 4_096,
        commands_max: 16,
        notices_max: 16,
        reply_timeout: SOON,
        quality_window: Duration::from_secs(60),
        jitter_buffer: Duration::from_millis(60),
        mos_min: 4.0,
        one_way_after: Duration::from_secs(60),
        silent_after: Duration::from_secs(60),
        abandoned_after: Duration::from_secs(3_600),
        abandoned_held_after: Duration::from_secs(3_600),
    }
}

struct Bench {
    relay: RelayHandle,
    registry: Registry,
    records: RecordReceiver,
    faults: Faults,
}

impl Bench {
    fn start(config: Config) -> Self {
        let (registry, records) = Registry::new(belfry_signal::Resource::for_test(), 4_096);
        let faults = Faults::default();
        let relay = Relay::start(config, &registry, faults.clone()).expect("the relay starts");
        Self { relay, registry, records, faults }
    }

    /// A call from offer to answer.
    async fn call(&self, name: &str, caller: &mut Phone, callee: &mut Phone) {
        callee.rtp_to = self.offer(name, Leg::Caller, caller, "").await.expect("offer taken").rtp;
        caller.rtp_to = self.answer(name, callee, "").await.expect("answer taken").rtp;
    }

    async fn offer(&self, name: &str, from: Leg, phone: &Phone, extra: &str) -> Result<Given, Refusal> {
        given(self.relay.request(Request::Offer(describe(name, from, &phone.sdp(extra)))).await)
    }

    async fn answer(&self, name: &str, phone: &Phone, extra: &str) -> Result<Given, Refusal> {
        given(self.relay.request(Request::Answer(describe(name, Leg::Callee, &phone.sdp(extra)))).await)
    }

    async fn delete(&self, name: &str) -> SessionReport {
        match self.relay.request(Request::Delete { session: key(name) }).await {
            Reply::Deleted(report) => *report,
            other => panic!("{other:?}"),
        }
    }

    async fn query(&self, name: &str) -> Reply {
        self.relay.request(Request::Query { session: key(name) }).await
    }

    fn metric(&self, line: &str) -> bool {
        self.registry.encode_text().lines().any(|text| text == line)
    }

    /// The value of the series of a family with one label.
    fn value(&self, name: &str, label: &str) -> f64 {
        let samples = self.registry.samples();
        let found =
            samples.iter().find(|s| s.name == name && s.labels.iter().any(|(_, value)| value == label));
        found.map_or(0.0, |sample| sample.value)
    }

    fn records(&mut self) -> Vec<Record> {
        std::iter::from_fn(|| self.records.try_recv().ok()).collect()
    }
}

/// What a rewritten description says.
#[derive(Debug)]
struct Given {
    sdp: String,
    rtp: SocketAddr,
}

fn given(reply: Reply) -> Result<Given, Refusal> {
    let sdp = match reply {
        Reply::Description { sdp } => String::from_utf8(sdp).expect("text"),
        Reply::Refused(refusal) => return Err(refusal),
        other => panic!("{other:?}"),
    };
    let port =
        sdp.lines().find_map(|line| line.strip_prefix("m=audio ")).and_then(|rest| rest.split(' ').next());
    let port = port.and_then(|port| port.parse().ok()).expect("a port");
    Ok(Given { sdp, rtp: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port) })
}

fn key(name: &str) -> SessionKey {
    SessionKey(format!("{name}@test"))
}

fn describe(name: &str, from: Leg, sdp: &str) -> Description {
    Description {
        session: key(name),
        from,
        sdp: sdp.as_bytes().to_vec(),
        signalled_from: Ipv4Addr::LOCALHOST.into(),
        region: "eu".to_owned(),
        trace_id: [7; 16],
    }
}

/// A phone's media end.
struct Phone {
    socket: UdpSocket,
    /// What its description says, which a NAT may make untrue.
    described: SocketAddr,
    rtp_to: SocketAddr,
    ssrc: u32,
    next: u16,
}

impl Phone {
    async fn new(ssrc: u32) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, ssrc).await
    }

    async fn at(host: Ipv4Addr, ssrc: u32) -> Self {
        let socket = UdpSocket::bind((host, 0)).await.expect("a socket");
        let described = socket.local_addr().expect("an address");
        Self { socket, described, rtp_to: SocketAddr::from(([0, 0, 0, 0], 0)), ssrc, next: 65_530 }
    }

    fn sdp(&self, extra: &str) -> String {
        let (host, port) = (self.described.ip(), self.described.port());
        format!(
            "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8 101\r\n\
             a=rtpmap:101 telephone-event/8000\r\n{extra}"
        )
    }

    async fn send(&mut self) -> Vec<u8> {
        let mut packet = vec![0x80, 8];
        packet.extend(self.next.to_be_bytes());
        packet.extend(u32::from(self.next).wrapping_mul(160).to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend([0xd5; 160]);
        self.next = self.next.wrapping_add(1);
        self.send_to_relay(&packet).await;
        packet
    }

    async fn send_to_relay(&self, packet: &[u8]) {
        // An ICMP error of an earlier packet may be reported here; the packet itself is not lost by it.
        if self.socket.send_to(packet, self.rtp_to).await.is_err() {
            self.socket.send_to(packet, self.rtp_to).await.expect("the second try goes out");
        }
    }

    async fn hears(&self) -> Option<Vec<u8>> {
        self.hears_within(SOON).await
    }

    async fn hears_within(&self, time: Duration) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 2_048];
        let length = timeout(time, self.socket.recv(&mut buffer)).await.ok()?.ok()?;
        buffer.truncate(length);
        Some(buffer)
    }
}

/// Waits until `is_so`, which something outside of tokio makes true.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(SOON, wait).await.is_ok(), "never: {what}");
}

fn leg_of(reply: Reply, leg: Leg) -> LegReport {
    let Reply::State(report) = reply else { panic!("{reply:?}") };
    match leg {
        Leg::Caller => report.caller,
        Leg::Callee => report.callee,
    }
}
