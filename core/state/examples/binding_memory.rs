//! What a binding costs in memory.
//!
//! `binding_memory BINDINGS`: one binding for each of so many customers, as a phone behind a NAT registers, and the
//! resident memory of this process before and after, with the journal and one snapshot written in between.
#![expect(clippy::print_stdout, reason = "the figure is what it is for")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use belfry_signal::{Pii, Region, Registry, Resource, now_unix_nanos};
use belfry_state::{Binding, Change, Config, State};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let bindings: u32 = std::env::args().nth(1).map_or(Ok(200_000), |text| text.parse())?;
    let directory = tempfile::tempdir()?;
    let (registry, _records) = Registry::new(Resource::for_test(), 1024);
    let config = Config {
        bindings_max: bindings as usize,
        writes_queue_max: 10_000,
        snapshot_interval: Duration::from_secs(1),
        ..Config::for_test(directory.path())
    };
    let state = State::open(config, &registry).await?;
    let before = resident_bytes()?;
    let began = Instant::now();
    for number in 0..bindings {
        let binding = binding(number)?;
        let kept =
            state.bindings().update(&format!("+4420{number:08}@sip.example.org"), &[Change::Put(binding)])?;
        if number % 100 == 0 {
            kept.wait().await?;
        }
    }
    let took = began.elapsed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = resident_bytes()?;
    let each = after.saturating_sub(before) / u64::from(bindings);
    println!(
        "{bindings} bindings: {} MiB before, {} MiB after, {each} bytes each",
        before >> 20,
        after >> 20
    );
    println!("registered in {took:.2?}, {:.0} a second", f64::from(bindings) / took.as_secs_f64());
    state.drain(Duration::from_secs(10)).await;
    Ok(())
}

fn binding(number: u32) -> Result<Binding, Failure> {
    let now = now_unix_nanos();
    let contact = format!("sip:+4420{number:08}@192.168.178.23:5060;transport=udp;line=3f1c{number:x}");
    let ip = Ipv4Addr::from(0x0a00_0000 + number);
    Ok(Binding {
        key: contact.clone(),
        contact: Pii::new(contact),
        q_thousandths: 1000,
        expires_unix_nanos: now + 600_000_000_000,
        updated_unix_nanos: now,
        epoch_unix_nanos: now,
        path: Vec::new(),
        flow: Some(format!("edge-1/AQAAAAAB{number:08x}wAACBxPEq0r9Zk1u7Qx2T0w")),
        transport: "udp".to_owned(),
        source: Pii::new(SocketAddr::from((ip, 5060))),
        wants_keepalive: true,
        call_id: Pii::new(format!("3c26700a{number:08x}-kxv9d8h2w1pm@192.168.178.23")),
        cseq: 1234,
        instance: Some(format!("<urn:uuid:00000000-0000-1000-8000-{number:012x}>")),
        reg_id: None,
        user_agent: Some("snomD385/10.1.184.14".to_owned()),
        region: Region::configured("eu")?,
        country: Some("GB".to_owned()),
    })
}

fn resident_bytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kibibytes * 1024)
}
