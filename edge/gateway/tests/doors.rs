//! The doors themselves: limits, deadlines, PROXY headers, certificates, regions, bad input, floods.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod kit;

use std::net::SocketAddr;
use std::time::Duration;

use belfry_signalling::handle::FromEdge;
use kit::{PATIENCE, TestEdge, backend, get, http1, parse, read_all, request, write};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

fn identity(config: String) -> String {
    config
}

async fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(source.parse().expect("an address")).expect("binds");
    socket.connect(address).await.expect("connects")
}

#[tokio::test]
async fn regions_follow_the_source_address() {
    let edge = TestEdge::start(backend().await, identity);
    for (source, region, country) in
        [("127.0.0.9:0", "eu", "x-belfry-country: DE\n"), ("127.0.0.1:0", "us", "")]
    {
        let stream = connect_from(source, edge.address("plain")).await;
        let (_, _, body) = http1(stream, get("/app")).await;
        assert!(body.contains(&format!("x-belfry-region: {region}\n")), "{body}");
        assert!(body.contains(country), "{body}");
    }
}

#[tokio::test]
async fn a_proxy_header_names_the_customer() {
    let edge = TestEdge::start(backend().await, identity);
    let v2 = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c"[..],
        &[203, 0, 113, 7, 127, 0, 0, 1],
        &4_711_u16.to_be_bytes(),
        &443_u16.to_be_bytes(),
    ]
    .concat();
    for header in [&b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 443\r\n"[..], &v2] {
        let mut stream = TcpStream::connect(edge.address("balanced")).await.expect("connects");
        write(&mut stream, header).await;
        let stream = edge.tls_over(stream, &[]).await.expect("shakes hands");
        let (status, _, body) = http1(stream, get("/app")).await;
        assert_eq!(status, 200, "{body}");
        assert!(
            body.contains("x-forwarded-for: 203.0.113.7\n") && body.contains("x-belfry-region: eu\n"),
            "{body}"
        );
    }
    // Whoever should send one and does not is refused, and nobody else may send one.
    let mut stream = TcpStream::connect(edge.address("balanced")).await.expect("connects");
    write(&mut stream, b"GET /app HTTP/1.1\r\n\r\n").await;
    assert_eq!(read_all(&mut stream).await, b"");
    edge.metric_reaches("malformed_total", &[("listener", "balanced"), ("reason", "proxy_header")], 1.0)
        .await;
    let mut stream = TcpStream::connect(edge.address("plain")).await.expect("connects");
    write(&mut stream, b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 443\r\nGET /app HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(read_all(&mut stream).await, b"");
    edge.metric_reaches("malformed_total", &[("listener", "plain"), ("reason", "first_bytes")], 1.0).await;
}

#[tokio::test]
async fn slow_headers_meet_one_deadline_however_they_trickle() {
    let edge =
        TestEdge::start(backend().await, |config| config.replace("header = \"5s\"", "header = \"300ms\""));
    // Plain and TLS; from the first byte, and on a connection that was kept alive.
    let mut fresh = TcpStream::connect(edge.address("plain")).await.expect("connects");
    let mut silent = edge.tls("web", &[]).await;
    let mut kept = edge.tls("web", &[]).await;
    write(&mut kept, b"GET /app HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut answer = [0; 12];
    kept.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    let trickle = async {
        write(&mut fresh, b"GET /app HTTP/1.1\r\n").await;
        write(&mut kept, b"GET /app HTTP/1.1\r\n").await;
        let (mut fresh_read, mut fresh_write) = fresh.split();
        let (mut kept_read, mut kept_write) = tokio::io::split(&mut kept);
        let ends = async {
            tokio::join!(read_all(&mut fresh_read), read_all(&mut kept_read), read_all(&mut silent))
        };
        let bytes = async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                // One fails when the edge has closed it; that is what the other side waits for.
                let _ = tokio::io::AsyncWriteExt::write_all(&mut fresh_write, b"a: b\r\n").await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut kept_write, b"a: b\r\n").await;
                let _ = tokio::io::AsyncWriteExt::flush(&mut kept_write).await;
            }
        };
        tokio::select! { ends = ends => ends, () = bytes => unreachable!("endless") }
    };
    let (fresh_end, _, silent_end) = timeout(PATIENCE, trickle).await.expect("all are closed");
    assert_eq!((fresh_end, silent_end), (Vec::new(), Vec::new()));
    edge.metric_reaches("limits_total", &[("limit", "header_time"), ("listener", "web")], 2.0).await;
    edge.metric_reaches("limits_total", &[("limit", "header_time"), ("listener", "plain")], 1.0).await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come_meets_its_deadline() {
    let edge = TestEdge::start(backend().await, |config| {
        config.replace("handshake = \"5s\"", "handshake = \"200ms\"")
    });
    let mut stream = TcpStream::connect(edge.address("web")).await.expect("connects");
    write(&mut stream, b"\x16\x03\x01\x02\x00\x01").await;
    assert_eq!(read_all(&mut stream).await, b"");
    edge.metric_reaches("handshakes_total", &[("outcome", "timed_out")], 1.0).await;
    let mut stream = TcpStream::connect(edge.address("balanced")).await.expect("connects");
    assert_eq!(read_all(&mut stream).await, b"");
    edge.metric_reaches("limits_total", &[("limit", "proxy_header_time")], 1.0).await;
}

#[tokio::test]
async fn one_address_may_hold_so_many_connections() {
    let edge = TestEdge::start(backend().await, |config| {
        config.replace("connections_per_ip_max = 1000", "connections_per_ip_max = 2")
    });
    let address = edge.address("sip-tcp");
    let held = [connect_from("127.0.0.2:0", address).await, connect_from("127.0.0.2:0", address).await];
    edge.metric_reaches("sip_flows", &[], 2.0).await;
    let mut third = connect_from("127.0.0.2:0", address).await;
    assert_eq!(read_all(&mut third).await, b"", "closed");
    edge.metric_reaches("limits_total", &[("limit", "ip_connections")], 1.0).await;
    let _other = connect_from("127.0.0.3:0", address).await;
    edge.metric_reaches("sip_flows", &[], 3.0).await;
    drop(held);
    edge.metric_reaches("connections_total", &[], 4.0).await;
    let again = async {
        while edge.metric("sip_flows", &[]) > 1.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("places are given back");
    let _again = connect_from("127.0.0.2:0", address).await;
    edge.metric_reaches("sip_flows", &[], 2.0).await;
}

#[tokio::test]
async fn a_flood_of_connections_meets_the_limit_and_leaves_the_edge_alive() {
    let edge = TestEdge::start(backend().await, |config| {
        config.replace("connections_max = 1000", "connections_max = 100")
    });
    let address = edge.address("web");
    let mut held = Vec::new();
    for _ in 0..2_000 {
        held.push(TcpStream::connect(address).await.expect("connects"));
        // Descriptors of this process are bounded too: refused ones are let go as they come.
        if held.len() > 400 {
            held.drain(100..);
        }
    }
    edge.metric_reaches("limits_total", &[("limit", "connections")], 1_900.0).await;
    assert!(edge.metric("connections", &[]) <= 100.0);
    assert_eq!(edge.metric("connections_total", &[]), 100.0);
    drop(held);
    let served = async {
        loop {
            let stream = TcpStream::connect(edge.address("plain")).await.expect("connects");
            let connected = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await;
            let Ok((mut sender, connection)) = connected else { continue };
            tokio::spawn(connection);
            if sender.send_request(get("/app")).await.is_ok_and(|answer| answer.status() == 200) {
                return;
            }
        }
    };
    timeout(PATIENCE, served).await.expect("customers are served again");
}

#[tokio::test]
async fn a_reload_swaps_certificates_and_regions_and_keeps_connections() {
    let edge = TestEdge::start(backend().await, identity);
    let stream = edge.tls("web", &[]).await;
    let before = stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("ready");
    tokio::spawn(connection);
    let (status, _, _) = kit::collect(sender.send_request(get("/app")).await.expect("an answer")).await;
    assert_eq!(status, 200);

    let changed = edge.config.replace("network = \"127.0.0.8/29\"", "network = \"127.0.0.0/8\"");
    edge.handle.reload(&parse(&changed)).expect("reloads");
    let stream = edge.tls("web", &[]).await;
    let after = stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone();
    assert_ne!(before, after, "the next handshake gets the new certificate");
    let (_, _, body) = http1(stream, get("/app")).await;
    assert!(body.contains("x-belfry-region: eu\n"), "{body}");
    sender.ready().await.expect("still open");
    let (status, _, _) = kit::collect(sender.send_request(get("/app")).await.expect("an answer")).await;
    assert_eq!(status, 200, "the old connection lives on");

    let broken = changed.replace("[steering]", "[geoip]\ndatabase = \"/nonexistent.mmdb\"\n[steering]");
    let error = edge.handle.reload(&parse(&broken)).expect_err("refused");
    assert_eq!(error.reason(), "file");
    let (status, _, body) = http1(edge.tls("web", &[]).await, get("/app")).await;
    assert!(status == 200 && body.contains("x-belfry-region: eu\n"), "the last good one stays: {body}");
    assert_eq!(edge.metric("reloads_total", &[("outcome", "refused")]), 1.0);
}

#[tokio::test]
async fn bad_input_is_counted_and_harms_nobody() {
    let edge = TestEdge::start(backend().await, identity);
    let mut core = edge.core().await;
    let inputs: [&[u8]; 8] = [
        b"",
        b"\0\0\0\0",
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\xff\xff\xff\xff\xff",
        b"INVITE sip:a SIP/2.0\r\nContent-Length: 1000000\r\n\r\n",
        b"INVITE sip:a SIP/2.0\r\nContent-Length: a\r\n\r\n",
        &[0xff; 20_000],
    ];
    for listener in ["web", "sip-tcp", "sip-tls", "plain", "balanced"] {
        for input in inputs {
            let mut stream = TcpStream::connect(edge.address(listener)).await.expect("connects");
            // The edge may close before it has read everything.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, input).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
            read_all(&mut stream).await;
            // The same inside TLS.
            if listener == "web" || listener == "sip-tls" {
                let mut stream = edge.tls(listener, &[]).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, input).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
                read_all(&mut stream).await;
            }
        }
    }
    let h2 = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xff; 200]].concat();
    let mut stream = edge.tls("web", &[b"h2"]).await;
    write(&mut stream, &h2).await;
    read_all(&mut stream).await;
    for reason in [
        "first_bytes",
        "sip_start_line",
        "sip_too_long",
        "sip_content_length",
        "proxy_header",
        "http_request",
    ] {
        edge.metric_reaches("malformed_total", &[("reason", reason)], 1.0).await;
    }
    edge.metric_reaches("handshakes_total", &[("outcome", "malformed")], 1.0).await;
    edge.metric_reaches("handshakes_total", &[("outcome", "cut_short")], 1.0).await;
    let (status, _, _) = http1(edge.tls("web", &[]).await, get("/app")).await;
    assert_eq!(status, 200);
    let mut phone = edge.tls("sip-tls", &[]).await;
    write(&mut phone, &request("OPTIONS", "fine")).await;
    loop {
        match core.next().await {
            FromEdge::Message(inbound) => {
                assert_eq!(inbound.bytes, request("OPTIONS", "fine"));
                break;
            }
            FromEdge::FlowClosed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_second_handshake_is_resumed() {
    let edge = TestEdge::start(backend().await, identity);
    let config = edge.client_config(&[]);
    for _ in 0..2 {
        let stream = TcpStream::connect(edge.address("web")).await.expect("connects");
        let stream = kit::connect_tls(&config, stream).await.expect("shakes hands");
        // The ticket comes after the handshake, with the first answer.
        let (status, _, _) = http1(stream, get("/app")).await;
        assert_eq!(status, 200);
    }
    assert_eq!(edge.metric("handshakes_total", &[("outcome", "done")]), 1.0);
    assert_eq!(edge.metric("handshakes_total", &[("outcome", "resumed")]), 1.0);
}

#[tokio::test]
async fn handshakes_under_way_are_bounded() {
    let edge = TestEdge::start(backend().await, |config| {
        config.replace("handshakes_max = 1000", "handshakes_max = 1")
    });
    let silent = TcpStream::connect(edge.address("web")).await.expect("connects");
    let also_silent = TcpStream::connect(edge.address("sip-tls")).await.expect("connects");
    // Whoever comes second is refused; the first waits for a handshake that never comes.
    edge.metric_reaches("limits_total", &[("limit", "handshakes")], 1.0).await;
    drop((silent, also_silent));
    edge.metric_reaches("handshakes_total", &[("outcome", "cut_short")], 1.0).await;
    drop(edge.tls("web", &[]).await);
}

#[tokio::test]
async fn a_header_may_be_so_long() {
    let edge = TestEdge::start(backend().await, identity);
    let header = |bytes: usize| {
        let mut text = "GET /app HTTP/1.1\r\nHost: a\r\nConnection: close\r\n".to_owned();
        while text.len() < bytes {
            text.push_str(&format!("x-{}: {}\r\n", text.len(), "y".repeat(1_000)));
        }
        text + "\r\n"
    };
    let mut stream = TcpStream::connect(edge.address("plain")).await.expect("connects");
    write(&mut stream, header(60_000).as_bytes()).await;
    assert!(read_all(&mut stream).await.starts_with(b"HTTP/1.1 200"));
    let mut stream = TcpStream::connect(edge.address("plain")).await.expect("connects");
    // The edge may close before it has read everything.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, header(200_000).as_bytes()).await;
    assert_eq!(read_all(&mut stream).await, b"");
    edge.metric_reaches("limits_total", &[("limit", "header_bytes")], 1.0).await;
}
