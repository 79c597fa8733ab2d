//! A flood of strangers over UDP: whoever is registered calls all the same. How much ten times the capacity is, and what
//! it costs, is `tests/bench/overload`; here it is only more than a rush begins with, from one process beside the phones.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use belfry_kit::{AnswerPlan, CallOutcome, CallPlan, CallReport, Phone, PhoneConfig};

use crate::running::{Ports, Running, eventually, site_config};

/// Pairs of customers, and how often each calls.
const PAIRS: usize = 3;
const CALLS: usize = 8;
/// Strangers send so many datagrams at once, from so many ports, with such pauses.
const BURST: usize = 40;
const PORTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(25);

async fn phone(user: &str, sip: u16) -> Arc<Phone> {
    let edge = SocketAddr::from((Ipv4Addr::LOCALHOST, sip));
    let mut config = PhoneConfig::new(user, "belfry.test", "secret", edge);
    config.answer = AnswerPlan::Answer { ring: Duration::from_millis(20) };
    let phone = Arc::new(Phone::start(config).await.expect("a socket"));
    phone.register().await.expect("registered");
    phone
}

/// Registrations and calls of nobody, until it is to stop.
fn flood(sip: u16, is_over: &AtomicBool) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let sockets: Vec<UdpSocket> = (0..PORTS)
        .map(|_| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 66), 0)).expect("a port");
            socket.connect((Ipv4Addr::LOCALHOST, sip)).expect("connects");
            socket.set_nonblocking(true).expect("does not wait");
            socket
        })
        .collect();
    while !is_over.load(Ordering::Relaxed) {
        for socket in &sockets {
            for _ in 0..BURST {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let (method, uri) = match number % 2 {
                    0 => ("REGISTER", "sip:belfry.test"),
                    _ => ("INVITE", "sip:nobody-of-ours@belfry.test"),
                };
                let message = format!(
                    "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.66;branch=z9hG4bKs{number};rport\r\n\
                     Max-Forwards: 70\r\nFrom: <sip:s{number}@belfry.test>;tag=s\r\nTo: <{uri}>\r\n\
                     Call-ID: stranger-{number}\r\nCSeq: 1 {method}\r\nContact: <sip:s@127.0.0.66>\r\n\
                     Content-Length: 0\r\n\r\n"
                );
                // What finds no room is one stranger less; answers are not read.
                let _ = socket.send(message.as_bytes());
            }
        }
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn customers_call_each_other_while_strangers_flood() {
    let directory = tempfile::tempdir().expect("a folder");
    let ports = Ports::free();
    let config = site_config(directory.path(), &ports);
    let belfry = Running::start(directory.path(), ports, &config);
    let users: Vec<String> = (0..2 * PAIRS).map(|number| format!("customer{number}")).collect();
    belfry.subscribe(&users.iter().map(String::as_str).collect::<Vec<_>>());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
    let sip = belfry.ports.sip;
    let phones: Vec<Arc<Phone>> = users.iter().map(|user| runtime.block_on(phone(user, sip))).collect();

    let is_over = Arc::new(AtomicBool::new(false));
    let storm = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || flood(sip, &is_over)
    });
    eventually("the rush began", || {
        belfry.metric("edge_gateway_sip_shed_total", "").gt(&1_000.0).then_some(())
    });
    let pairs = (0..PAIRS).map(|pair| {
        let (from, to) = (Arc::clone(&phones[2 * pair]), format!("sip:{}@belfry.test", users[2 * pair + 1]));
        runtime.spawn(async move {
            let mut reports = Vec::new();
            for _ in 0..CALLS {
                reports.push(from.call(&to, CallPlan::talk(Duration::from_millis(100))).await);
            }
            reports
        })
    });
    let pairs: Vec<_> = pairs.collect();
    let reports: Vec<CallReport> =
        pairs.into_iter().flat_map(|pair| runtime.block_on(pair).expect("reports")).collect();
    let shed = belfry.metric("edge_gateway_sip_shed_total", "");
    is_over.store(true, Ordering::Relaxed);
    storm.join().expect("the strangers stop");

    let done = reports.iter().filter(|report| report.outcome == CallOutcome::Ended).count();
    assert!(done * 100 >= reports.len() * 95, "{done} of {} calls: {reports:?}", reports.len());
    assert!(shed > 5_000.0, "{shed} datagrams of strangers were shed: that was no flood");
}
