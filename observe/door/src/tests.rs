//! Whole doors over real connections: bounds, times, refusals, the end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use belfry_signal::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::{Access, Door, DoorHandle, Doors, Guard, Limits};

const LIMITS: Limits = Limits {
    connections_max: 2,
    header_timeout: Duration::from_secs(5),
    write_timeout: Duration::from_secs(5),
    request_bytes_max: 1024,
};

struct Bench {
    door: DoorHandle,
    registry: Registry,
    /// Lets `/slow` answer.
    go: Arc<Notify>,
}

impl Bench {
    fn open(limits: Limits) -> Self {
        let registry = Registry::for_test();
        let go = Arc::new(Notify::new());
        let wait = Arc::clone(&go);
        let slow = move || {
            let wait = Arc::clone(&wait);
            async move { wait.notified().await }
        };
        let router = Router::new()
            .route("/", get(|| async { "hello\n" }))
            .route("/read", get(|| async { "hello\n" }))
            .route("/echo", post(|body: String| async { body }))
            .route("/slow/{id}", get(slow))
            .route("/much", get(|| async { vec![b'x'; 32 << 20] }));
        let guard = Guard {
            section: "observe",
            tokens: None,
            pushes: None,
            host_names: vec![],
            open_paths: &[],
            cors_origins: vec!["https://graphs.example".to_owned()],
            cors_paths: &["/read"],
        };
        let listen = "127.0.0.1:0".parse().expect("literal");
        let door = Doors::new(&registry).open(Door::Api, listen, limits, Access::Guarded(guard), router);
        Self { door: door.expect("a free port"), registry, go }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.door.local_addr()).await.expect("it listens")
    }

    /// Sends these bytes and reads until the door closes the connection.
    async fn exchange(&self, sent: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(sent.as_bytes()).await.expect("sent");
        rest(&mut stream).await
    }

    fn counted(&self, metric: &str) -> bool {
        self.registry.encode_text().lines().any(|line| line == metric)
    }

    /// Waits until a metric stands so.
    async fn until(&self, metric: &str) {
        while !self.counted(metric) {
            tokio::task::yield_now().await;
        }
    }
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(line: &str, more: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{more}\r\n")
}

#[tokio::test]
async fn requests_are_answered_or_refused_with_a_reason() {
    let bench = Bench::open(LIMITS);
    let check = async |sent: String, status: &str, word: &str| {
        let answer = bench.exchange(&sent).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(word),
            "{sent}\n{answer}"
        );
    };
    check(request("GET /", ""), "200", "hello").await;
    check(request("GET /none", ""), "404", "").await;
    check(request("POST /echo", "content-length: 3\r\n") + "abc", "200", "abc").await;
    check(request("POST /echo", "content-length: 1025\r\n"), "413", "longer than 1024 bytes").await;
    let chunks = "400\r\n".to_owned() + &"x".repeat(1024) + "\r\n1\r\nx\r\n0\r\n\r\n";
    check(request("POST /echo", "transfer-encoding: chunked\r\n") + &chunks, "413", "longer than").await;
    check(request("GET /", "origin: http://evil.example\r\n"), "403", "another site").await;
    check(request("GET /none", "sec-fetch-site: cross-site\r\n"), "403", "another site").await;
    check(
        "GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n".to_owned(),
        "421",
        "host_names",
    )
    .await;
    for (reason, count) in [("too_long", 2), ("cross_site", 2), ("host", 1)] {
        let line = format!("door_requests_refused_total{{door=\"api\",reason=\"{reason}\"}} {count}");
        assert!(bench.counted(&line), "{line} in:\n{}", bench.registry.encode_text());
    }
}

#[tokio::test]
async fn connections_are_bounded_and_one_more_is_told_so() {
    let bench = Bench::open(LIMITS);
    let (one, two) = (bench.connect().await, bench.connect().await);
    bench.until("door_connections{door=\"api\"} 2").await;
    let answer = bench.exchange(&request("GET /", "")).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("in use now\n"), "{answer}");
    assert!(bench.counted("door_connections_refused_total{door=\"api\",reason=\"full\"} 1"));
    drop(one);
    bench.until("door_connections{door=\"api\"} 1").await;
    assert!(bench.exchange(&request("GET /", "")).await.ends_with("hello\n"));
    drop(two);
}

#[tokio::test]
async fn whoever_dawdles_is_let_go() {
    let short = Duration::from_millis(100);
    let bench = Bench::open(Limits { header_timeout: short, write_timeout: short, ..LIMITS });
    assert_eq!(bench.exchange("GET / HTTP/1.1\r\nhost: 127").await, "", "half a head");
    bench.until("door_connections_cut_total{door=\"api\",reason=\"header_timeout\"} 1").await;
    let answer = bench.exchange("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await;
    assert!(answer.ends_with("hello\n"), "an answer, and then nothing more was asked: {answer}");
    bench.until("door_connections_cut_total{door=\"api\",reason=\"header_timeout\"} 2").await;
    let half = request("POST /echo", "content-length: 9\r\n") + "half";
    assert!(bench.exchange(&half).await.starts_with("HTTP/1.1 408"));
    let mut stream = bench.connect().await;
    stream.write_all(request("GET /much", "").as_bytes()).await.expect("sent");
    bench.until("door_connections_cut_total{door=\"api\",reason=\"write_stalled\"} 1").await;
    bench.until("door_connections{door=\"api\"} 0").await;
    assert!(rest(&mut stream).await.len() < 32 << 20);
}

#[tokio::test]
async fn a_drain_waits_for_answers() {
    let bench = Bench::open(LIMITS);
    let mut asking = bench.connect().await;
    asking.write_all(request("GET /slow/1", "").as_bytes()).await.expect("sent");
    let mut dawdling = bench.connect().await;
    dawdling.write_all(b"GET /").await.expect("sent");
    bench.until("door_connections{door=\"api\"} 2").await;
    let go = Arc::clone(&bench.go);
    let (stragglers, answer) = tokio::join!(bench.door.drain(Duration::from_secs(60)), async {
        go.notify_one();
        rest(&mut asking).await
    });
    assert_eq!(stragglers, Vec::<String>::new());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(TcpStream::connect(bench.door.local_addr()).await.is_err(), "it is closed");
    assert_eq!(bench.door.drain(Duration::ZERO).await, Vec::<String>::new(), "twice is once");
    assert_eq!(rest(&mut dawdling).await, "", "half a head is not waited for");
}

#[tokio::test]
async fn a_drain_names_what_did_not_finish() {
    let bench = Bench::open(LIMITS);
    let mut asking = bench.connect().await;
    asking.write_all(request("GET /slow/a-call-id", "").as_bytes()).await.expect("sent");
    while bench.door.answering() == 0 {
        tokio::task::yield_now().await;
    }
    let mut stalled = bench.connect().await;
    stalled.write_all(request("GET /much", "").as_bytes()).await.expect("sent");
    stalled.readable().await.expect("the answer has begun");
    let stragglers = bench.door.drain(Duration::from_millis(10)).await;
    assert_eq!(stragglers, ["GET /slow/{id}", "clients that have not read their answer: 1"]);
    assert!(bench.counted("door_connections_cut_total{door=\"api\",reason=\"drained\"} 2"));
    assert_eq!(rest(&mut asking).await, "");
}

#[tokio::test]
async fn pages_that_are_invited_may_read_and_no_others() {
    let bench = Bench::open(LIMITS);
    let ask_for = |path: &str, method: &str, origin: &str, more: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\n{more}connection: close\r\n\r\n"
        )
    };
    let ask = |method: &str, origin: &str, more: &str| ask_for("/read", method, origin, more);
    let answer = bench.exchange(&ask("GET", "https://graphs.example", "")).await.to_lowercase();
    assert!(answer.starts_with("http/1.1 200") && answer.contains("vary: origin"), "{answer}");
    assert!(answer.contains("access-control-allow-origin: https://graphs.example\r\n"), "{answer}");
    let preflight = "access-control-request-method: POST\r\n";
    let answer = bench.exchange(&ask("OPTIONS", "https://graphs.example", preflight)).await.to_lowercase();
    assert!(answer.starts_with("http/1.1 204") && answer.contains("authorization"), "{answer}");
    for (method, more) in [("GET", ""), ("OPTIONS", preflight)] {
        let answer = bench.exchange(&ask(method, "https://other.example", more)).await.to_lowercase();
        assert!(answer.starts_with("http/1.1 403") && !answer.contains("access-control"), "{answer}");
        // What does more than read is for nobody from elsewhere.
        let asked = ask_for("/echo", method, "https://graphs.example", more);
        let answer = bench.exchange(&asked).await.to_lowercase();
        assert!(answer.starts_with("http/1.1 403") && !answer.contains("access-control"), "{answer}");
    }
}
