//! How many packets the relay forwards per second of processor time, on loopback.
//!
//! `relay_rate SESSIONS PACKETS_PER_SECOND SECONDS`: each leg of each session sends G.711 packets at the given rate,
//! evenly spread; the processor time is that of the worker thread alone. Loopback charges the delivery to the
//! receiver to the sender, so the figure is comparable with other loopback figures only.
#![expect(clippy::print_stdout, reason = "the figure is what it is for")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use belfry_relay::{Config, Faults, Relay, RelayHandle};
use belfry_relay_api::{Description, Leg, Reply, Request, SessionKey};
use belfry_signal::{Registry, Resource};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (sessions, rate, seconds) = (next(100)?, next(50)?, next(5)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (registry, _records) = Registry::new(Resource::for_test(), 1024);
    let config = config(usize::try_from(sessions)?);
    let relay = Relay::start(config, &registry, Faults::default())?;
    let mut phones = Vec::new();
    for number in 0..sessions {
        phones.extend(runtime.block_on(call(&relay, number))?);
    }
    let before = (worker_ticks()?, forwarded(&registry), Instant::now());
    let sent = talk(&phones, rate, Duration::from_secs(seconds))?;
    std::thread::sleep(Duration::from_millis(50));
    let (user, system) = worker_ticks()?;
    let (user, system) = ((user - before.0.0) / 100.0, (system - before.0.1) / 100.0);
    let packets = forwarded(&registry) - before.1;
    let elapsed = before.2.elapsed().as_secs_f64();
    println!("sent {sent}, forwarded {packets} in {elapsed:.2} s: {:.0} packets/s", packets / elapsed);
    println!(
        "worker: {user:.2} s user, {system:.2} s system: {:.0} packets per processor second, {:.1} us each",
        packets / (user + system),
        (user + system) * 1e6 / packets
    );
    Ok(())
}

fn config(sessions_max: usize) -> Config {
    Config {
        bind_address: Ipv4Addr::LOCALHOST.into(),
        advertised_address: None,
        port_min: 10_000,
        port_max: 32_000,
        dscp: 46,
        workers: 1,
        pin_workers: true,
        sessions_max,
        streams_max: 1,
        description_bytes_max: 4_096,
        commands_max: 64,
        notices_max: 64,
        reply_timeout: Duration::from_secs(2),
        quality_window: Duration::from_secs(5),
        jitter_buffer: Duration::from_millis(60),
        mos_min: 3.8,
        one_way_after: Duration::from_secs(10),
        silent_after: Duration::from_secs(30),
        abandoned_after: Duration::from_secs(3_600),
        abandoned_held_after: Duration::from_secs(3_600),
    }
}

/// Two connected sockets, the legs of one call.
async fn call(relay: &RelayHandle, number: u64) -> Result<[UdpSocket; 2], Failure> {
    let phones = [UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?];
    for (from, phone, other) in [(Leg::Caller, &phones[0], &phones[1]), (Leg::Callee, &phones[1], &phones[0])]
    {
        let port = phone.local_addr()?.port();
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 8\r\n"
        );
        let description = Description {
            session: SessionKey(format!("{number}@rate")),
            from,
            sdp: sdp.into_bytes(),
            signalled_from: Ipv4Addr::LOCALHOST.into(),
            region: "test".to_owned(),
            trace_id: [0; 16],
        };
        let request = match from {
            Leg::Caller => Request::Offer(description),
            Leg::Callee => Request::Answer(description),
        };
        let Reply::Description { sdp } = relay.request(request).await else { return Err("refused".into()) };
        let sdp = String::from_utf8(sdp)?;
        let port = sdp.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
        let port: u16 = port.ok_or("no port")?.parse()?;
        other.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    }
    for phone in &phones {
        phone.set_nonblocking(true)?;
    }
    Ok(phones)
}

/// All phones send at `rate`, each a little after the one before, and empty their sockets as they go.
fn talk(phones: &[UdpSocket], rate: u64, length: Duration) -> Result<u64, Failure> {
    let gap = Duration::from_secs(1) / u32::try_from(rate * phones.len() as u64)?;
    let mut packet = [0xd5; 172];
    packet[..2].copy_from_slice(&[0x80, 8]);
    let mut buffer = [0; 2_048];
    let (start, mut sent) = (Instant::now(), 0_u64);
    while start.elapsed() < length {
        let due = u64::try_from(start.elapsed().as_nanos() / gap.as_nanos())?;
        while sent < due {
            let index = usize::try_from(sent % phones.len() as u64)?;
            let number = u16::try_from(sent / phones.len() as u64 % 65_536)?;
            packet[2..4].copy_from_slice(&number.to_be_bytes());
            packet[4..8].copy_from_slice(&(u32::from(number) * 160).to_be_bytes());
            packet[8..12].copy_from_slice(&u32::try_from(index)?.to_be_bytes());
            let _ = phones[index].send(&packet);
            while phones[index].recv(&mut buffer).is_ok() {}
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(sent)
}

fn forwarded(registry: &Registry) -> f64 {
    let is_rtp = |sample: &&belfry_signal::Sample| {
        sample.name == "media_forwarded_packets_total"
            && sample.labels.iter().any(|(_, value)| value == "rtp")
    };
    registry.samples().iter().find(is_rtp).map_or(0.0, |sample| sample.value)
}

/// User and system time of the thread `media-0`, in hundredths of a second (proc(5)).
fn worker_ticks() -> Result<(f64, f64), Failure> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        if let Some((_, fields)) = stat.split_once("(media-0) ") {
            let fields: Vec<&str> = fields.split(' ').collect();
            return Ok((fields[11].parse()?, fields[12].parse()?));
        }
    }
    Err("no worker thread".into())
}
