//! The client against a real HTTP server on this machine that answers as it is told.

use std::convert::Infallible;

use http::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use http::Uri;

use super::*;
use crate::page::Notification;

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Accepts every event and hands it on.
async fn accept_all() -> (String, mpsc::Receiver<serde_json::Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let (events, received) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let events = events.clone();
            let service = service_fn(move |request: http::Request<Incoming>| {
                let events = events.clone();
                async move {
                    assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/v2/enqueue"));
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    let event = serde_json::from_slice(&body).expect("JSON");
                    events.send(event).await.expect("the test listens");
                    let answer = Full::new(Bytes::from_static(br#"{"status":"success"}"#));
                    Ok::<_, Infallible>(Response::builder().status(202).body(answer).expect("valid"))
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (format!("http://{address}/v2/enqueue"), received)
}

#[tokio::test]
async fn a_page_goes_the_whole_way_and_its_key_never_lies_on_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("routing.key"), KEY).expect("written");
    let (url, mut received) = accept_all().await;
    let mut config = crate::config::tests::config(directory.path());
    config.services.truncate(1);
    config.services[0].url = url;
    config.directory = directory.path().join("outbox");
    assert!(!format!("{config:?}").contains(KEY));
    let notify = crate::Notify::start(config, &belfry_signal::Registry::for_test()).expect("starts");
    let page = crate::event::tests::page("call_setup", 1);
    let (id, dedup_key) = (page.id, page.dedup_key.clone());
    notify.enqueue(Notification::Trigger(Box::new(page))).await.expect("taken");
    let outbox = std::fs::read(directory.path().join("outbox/outbox.redb")).expect("read");
    assert!(!outbox.windows(KEY.len()).any(|bytes| bytes == KEY.as_bytes()));
    notify.enqueue(Notification::Resolve { id, dedup_key: dedup_key.clone() }).await.expect("taken");
    for action in ["trigger", "resolve"] {
        let event = received.recv().await.expect("an event");
        assert_eq!(event["event_action"], action);
        assert_eq!((&event["routing_key"], &event["dedup_key"]), (&KEY.into(), &dedup_key.as_str().into()));
    }
    assert_eq!(notify.drain(Duration::from_secs(5)).await, Vec::<String>::new());
    assert!(!format!("{notify:?}").contains(KEY));
}

/// Answers every request with the given status, headers and body; a status of 0 never answers.
async fn serve(status: u16, headers: &'static [(&'static str, &'static str)], body: &'static str) -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: http::Request<Incoming>| async move {
                assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
                if status == 0 {
                    std::future::pending::<()>().await;
                }
                let mut answer = Response::builder().status(status);
                for (name, value) in headers {
                    answer = answer.header(*name, *value);
                }
                Ok::<_, Infallible>(
                    answer.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("valid"),
                )
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    format!("http://{address}/v2/enqueue").parse().expect("a URL")
}

async fn check(status: u16, headers: &'static [(&'static str, &'static str)], expected: Outcome) {
    let url = serve(status, headers, r#"{"status":"x"}"#).await;
    let post = http_post(false, Duration::from_millis(200)).expect("a client");
    assert_eq!(post(url.into(), b"{}".to_vec()).await, expected, "status {status}");
}

fn retry(reason: RetryReason, after_seconds: Option<u64>) -> Outcome {
    Outcome::Retry { reason, after: after_seconds.map(Duration::from_secs) }
}

#[tokio::test]
async fn answers_mean_what_the_manual_says() {
    check(202, &[], Outcome::Accepted).await;
    check(400, &[], Outcome::Rejected { status: 400, message: r#"{"status":"x"}"#.into() }).await;
    check(429, &[("retry-after", "120")], retry(RetryReason::RateLimited, Some(120))).await;
    check(429, &[("retry-after", "a while")], retry(RetryReason::RateLimited, None)).await;
    check(429, &[("retry-after", "999999")], retry(RetryReason::RateLimited, Some(3_600))).await;
    check(500, &[], retry(RetryReason::ServerError, None)).await;
    check(503, &[], retry(RetryReason::ServerError, None)).await;
    check(403, &[], retry(RetryReason::Refused, None)).await;
    check(302, &[("location", "/elsewhere")], retry(RetryReason::Refused, None)).await;
}

#[tokio::test]
async fn silence_and_a_closed_door_are_tried_again() {
    check(0, &[], retry(RetryReason::Timeout, None)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let post = http_post(false, Duration::from_secs(5)).expect("a client");
    let url: Uri = format!("http://{address}/").parse().expect("a URL");
    assert_eq!(post(url.into(), b"{}".to_vec()).await, retry(RetryReason::Network, None));
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    static LONG: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| "x".repeat(1 << 20));
    let url = serve(400, &[], &LONG).await;
    let post = http_post(false, Duration::from_secs(5)).expect("a client");
    let outcome = post(url.into(), b"{}".to_vec()).await;
    assert_eq!(outcome, Outcome::Rejected { status: 400, message: String::new() });
}
