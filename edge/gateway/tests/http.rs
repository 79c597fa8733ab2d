//! HTTP through the edge: both versions, headers, errors, journeys, drain.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod kit;

use belfry_signal::Journey;
use hyper::Request;
use kit::{TestEdge, backend, get, http1, http2};
use tokio::net::TcpStream;

fn identity(config: String) -> String {
    config
}

#[tokio::test]
async fn http1_and_h2_reach_the_backend_with_our_headers_only() {
    let edge = TestEdge::start(backend().await, identity);
    let claims = |request: &mut Request<_>| {
        for (name, value) in [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "gopher"),
            ("x-belfry-region", "mars"),
            ("x-belfry-secret", "me"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ] {
            request.headers_mut().insert(name, value.parse().expect("a value"));
        }
    };
    let mut first = get("/app/x?y=1");
    claims(&mut first);
    let mut second = get("https://edge.example.org/app/x?y=1");
    second.headers_mut().remove("host");
    claims(&mut second);
    let answers = [
        http1(edge.tls("web", &[b"http/1.1"]).await, first).await,
        http2(edge.tls("web", &[b"h2"]).await, second).await,
    ];
    for (status, headers, body) in answers {
        assert_eq!(status, 200, "{body}");
        assert!(headers.get("x-belfry-secret").is_none(), "internal headers stay inside");
        assert!(body.starts_with("GET /app/x?y=1\n"), "{body}");
        for line in ["x-forwarded-for: 127.0.0.1\n", "x-forwarded-proto: https\n", "x-belfry-region: us\n"] {
            assert!(body.contains(line), "{line} is missing in {body}");
        }
        assert!(!body.contains("6.6.6.6") && !body.contains("mars") && !body.contains("secret"), "{body}");
        // The customer's trace goes on, under a span of ours.
        assert!(body.contains("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{body}");
        assert!(!body.contains("00f067aa0ba902b7"), "{body}");
    }
    edge.metric_reaches("requests_total", &[("flag", "fine"), ("class", "2xx"), ("listener", "web")], 2.0)
        .await;
    assert_eq!(edge.journey(Journey::EdgeHttp, "us"), (2, 0));
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let edge = TestEdge::start(backend().await, identity);
    let stream = edge.tls("web", &[]).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("ready");
    tokio::spawn(connection);
    for _ in 0..5 {
        sender.ready().await.expect("kept alive");
        let (status, _, _) = kit::collect(sender.send_request(get("/app")).await.expect("an answer")).await;
        assert_eq!(status, 200);
    }
    edge.metric_reaches("requests_total", &[], 5.0).await;
    assert_eq!(edge.metric("connections_total", &[]), 1.0);
}

#[tokio::test]
async fn failures_say_whose_they_are() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let gone = nobody.local_addr().expect("bound");
    drop(nobody);
    let broken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let broken_address = broken.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = broken.accept().await {
            kit::write(&mut stream, b"NOT HTTP\r\n\r\n").await;
        }
    });
    let edge = TestEdge::start(backend().await, |config| {
        let mut config = config;
        for (name, address) in [("gone", gone), ("broken", broken_address)] {
            config.push_str(&format!(
                "[[http.backends]]\nname = \"{name}\"\naddresses = [\"{address}\"]\nconnect_timeout = \"1s\"\n\
                 read_timeout = \"300ms\"\n[[http.routes]]\npath = \"/{name}\"\nbackend = \"{name}\"\n"
            ));
        }
        config.replacen("read_timeout = \"1s\"", "read_timeout = \"300ms\"", 1)
    });
    for (uri, status, flag) in [
        ("/nowhere", 404, "no_route"),
        ("/gone", 503, "backend_unreachable"),
        ("/broken", 502, "backend_broken"),
        ("/app?stall", 504, "backend_timeout"),
        ("/app?status=500", 500, "backend_error"),
    ] {
        let stream = TcpStream::connect(edge.address("plain")).await.expect("connects");
        let (got, _, body) = http1(stream, get(uri)).await;
        assert_eq!(got, status, "{uri}: {body}");
        if status != 500 {
            assert!(body.contains(flag) && body.contains("trace "), "{body}");
        }
        edge.metric_reaches("requests_total", &[("flag", flag), ("listener", "plain")], 1.0).await;
    }
    assert_eq!(edge.journey(Journey::EdgeHttp, "us"), (1, 4));
    let failed = edge.registry.journeys().failed_since(
        Journey::EdgeHttp,
        &belfry_signal::Region::configured("us").expect("a name"),
        0,
    );
    let causes: Vec<_> = failed.iter().map(|event| (event.room.as_str(), event.cause.as_str())).collect();
    let backend = |cause| ("backend", cause);
    assert_eq!(
        causes,
        [backend("unreachable"), backend("server_error"), backend("timeout"), backend("server_error")]
    );
}

#[tokio::test]
async fn a_slow_answer_is_a_bad_event_of_the_backend() {
    let edge = TestEdge::start(backend().await, |config| {
        config.replace("slow_after = \"2s\"", "slow_after = \"1us\"")
    });
    let (status, _, _) = http1(edge.tls("web", &[]).await, get("/app")).await;
    assert_eq!(status, 200);
    edge.metric_reaches("requests_total", &[("flag", "slow")], 1.0).await;
    assert_eq!(edge.journey(Journey::EdgeHttp, "us"), (0, 1));
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_names_those_that_do_not() {
    let edge = TestEdge::start(backend().await, identity);
    let idle = edge.tls("web", &[]).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(idle)).await.expect("ready");
    tokio::spawn(connection);
    let (status, _, _) = kit::collect(sender.send_request(get("/app")).await.expect("an answer")).await;
    assert_eq!(status, 200);
    let (mut h2_sender, h2_connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(edge.tls("web", &[b"h2"]).await),
    )
    .await
    .expect("ready");
    let h2_connection = tokio::spawn(h2_connection);
    let answer = h2_sender.send_request(get("https://edge.example.org/app")).await.expect("an answer");
    assert_eq!(kit::collect(answer).await.0, 200);
    let stuck = TcpStream::connect(edge.address("plain")).await.expect("connects");
    let stuck = tokio::spawn(http1(stuck, get("/app?stall")));
    edge.metric_reaches("connections", &[("listener", "plain")], 1.0).await;
    let stragglers = edge.handle.drain(std::time::Duration::from_millis(200)).await;
    assert_eq!(stragglers, ["edge: 1 HTTP connections on plain"]);
    // Those that had only been idle are gone; the one with a request gets its answer.
    edge.metric_reaches("requests_total", &[("flag", "backend_timeout")], 1.0).await;
    assert_eq!(stuck.await.expect("ran").0, 504);
    assert!(h2_connection.await.expect("ran").is_ok(), "h2 ends with a proper goodbye");
    assert_eq!(edge.handle.drain(kit::PATIENCE).await, [""; 0]);
    assert_eq!(edge.handle.stop(kit::PATIENCE).await, [""; 0]);
    assert!(TcpStream::connect(edge.address("web")).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_body_that_stalls_is_the_clients_fault() {
    let edge =
        TestEdge::start(backend().await, |config| config.replace("stall = \"5s\"", "stall = \"200ms\""));
    let mut stream = TcpStream::connect(edge.address("plain")).await.expect("connects");
    kit::write(&mut stream, b"POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    let answer = String::from_utf8_lossy(&kit::read_all(&mut stream).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    edge.metric_reaches("requests_total", &[("flag", "client_stalled")], 1.0).await;
    assert_eq!(edge.journey(Journey::EdgeHttp, "us"), (0, 0), "neither good nor bad");
}

#[tokio::test]
async fn only_trusted_proxies_are_believed() {
    let edge = TestEdge::start(backend().await, |config| {
        config.replace("slow_after", "trusted_proxies = [\"127.0.0.2/32\"]\nslow_after")
    });
    for (source, forwarded_for, proto, region) in [
        ("127.0.0.2:0", "6.6.6.6, 203.0.113.9, 127.0.0.2", "https", "eu"),
        ("127.0.0.3:0", "127.0.0.3", "http", "us"),
    ] {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(source.parse().expect("an address")).expect("binds");
        let stream = socket.connect(edge.address("plain")).await.expect("connects");
        let mut request = get("/app");
        request.headers_mut().insert("x-forwarded-for", "6.6.6.6, 203.0.113.9".parse().expect("a value"));
        request.headers_mut().insert("x-forwarded-proto", "https".parse().expect("a value"));
        let (_, _, body) = http1(stream, request).await;
        assert!(body.contains(&format!("x-forwarded-for: {forwarded_for}\n")), "{body}");
        assert!(body.contains(&format!("x-forwarded-proto: {proto}\n")), "{body}");
        assert!(body.contains(&format!("x-belfry-region: {region}\n")), "{body}");
    }
}

/// Two readers that see different messages in the same bytes: what CVE-2026-2833, CVE-2026-2835 and the classics of
/// request smuggling are made of. The backend must never see a request that the edge did not.
#[tokio::test]
async fn no_request_reaches_a_backend_unseen() {
    let (backend, seen) = kit::recording_backend().await;
    let edge = TestEdge::start(backend, |config| {
        let config = config.replace("header = \"5s\"", "header = \"300ms\"");
        config
            .replace("stall = \"5s\"", "stall = \"300ms\"")
            .replace("http_idle = \"30s\"", "http_idle = \"1s\"")
    });
    let hidden = "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = [
        format!("GET /app HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{hidden}"),
        format!("GET /app HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n{hidden}"),
        format!("POST /app HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!(
            "POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!(
            "POST /app HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!("POST /app HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n{hidden}"),
        format!("POST /app HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n{hidden}"),
        format!("GET /app HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("GET /app HTTP/1.1\nHost: a\n\n{hidden}"),
        format!("GET /app HTTP/1.1\r\nHost: a\r\nX: y\r\n {hidden}"),
        format!("GET /app HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n{hidden}"),
        format!("GET /app HTTP/1.1\r\nHost: a\r\nConnection: x-belfry-region\r\n\r\n{hidden}"),
    ];
    let attempts = cases.iter().map(|case| async {
        let mut stream = TcpStream::connect(edge.address("plain")).await.expect("connects");
        kit::write(&mut stream, case.as_bytes()).await;
        // Some are refused, some answered; all connections come to an end.
        kit::read_all(&mut stream).await
    });
    futures_util::future::join_all(attempts).await;
    let seen = seen.lock().expect("not poisoned").clone();
    for line in &seen {
        assert!(line.contains(" /app ") && line.ends_with(" true"), "{line} in {seen:#?}");
    }
    assert!(seen.len() <= cases.len() && !seen.is_empty(), "{seen:#?}");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_let_go() {
    let edge =
        TestEdge::start(backend().await, |config| config.replace("stall = \"5s\"", "stall = \"200ms\""));
    let mut stream = TcpStream::connect(edge.address("plain")).await.expect("connects");
    kit::write(&mut stream, b"GET /app?big HTTP/1.1\r\nHost: a\r\n\r\n").await;
    edge.metric_reaches("requests_total", &[("flag", "client_stalled")], 1.0).await;
    assert_eq!(edge.journey(Journey::EdgeHttp, "us"), (0, 0));
}
