//! What is pushed: statuses, counts, bounds.

use std::task::Poll;

use axum::body::Body;
use belfry_signal::SeriesPoints;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::metrics::receive::{Config as Receive, router};
use crate::metrics::remote_write::{Protocol, encode};

fn series(name: &str, points: i64) -> SeriesPoints {
    let labels = [(Arc::from("__name__"), Arc::from(name)), (Arc::from("a"), Arc::from("b"))];
    SeriesPoints {
        labels: labels.into(),
        created_ms: None,
        points: (1..=points).map(|time| (time, PointValue::Float(0.5))).collect(),
        exemplars: Vec::new(),
    }
}

fn push(protocol: Protocol, names: &[(&str, i64)]) -> Request<Body> {
    let series = names.iter().map(|(name, points)| series(name, *points)).collect();
    let body = encode(protocol, &SeriesBatch { series, metadata: Vec::new() });
    Request::post("/api/v1/write")
        .header(header::CONTENT_TYPE, protocol.content_type())
        .header(header::CONTENT_ENCODING, "snappy")
        .body(Body::from(body))
        .expect("a good request")
}

fn receiving(directory: &Path) -> Receive {
    Receive { groups_directory: directory.join("groups"), ..Receive::shipped() }
}

async fn check(router: &Router, request: Request<Body>, expected: (u16, &str, &str)) {
    let response = router.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let text = body.collect().await.expect("a body").to_bytes();
    let count = |kind: &str| {
        let name = format!("x-prometheus-remote-write-{kind}-written");
        parts.headers.get(name).map_or("-".to_owned(), |value| value.to_str().expect("a number").to_owned())
    };
    let counts = format!("{}/{}/{}", count("samples"), count("histograms"), count("exemplars"));
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!((parts.status.as_u16(), counts.as_str()), (expected.0, expected.1), "{text}");
    assert!(text.starts_with(expected.2), "{text}");
    let is_later = parts.status == StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(parts.headers.contains_key(header::RETRY_AFTER), is_later);
}

#[tokio::test]
async fn a_sender_is_told_what_became_of_each_point() {
    let directory = tempfile::tempdir().expect("a directory");
    let (handle, shelf, registry) = pipeline(directory.path(), Vec::new());
    let router = router(receiving(directory.path()), handle, &registry).expect("a good directory");
    for protocol in [Protocol::V1, Protocol::V2] {
        check(&router, push(protocol, &[("good", 3)]), (204, "3/0/0", "")).await;
        let partly = "2 points were refused: out_of_order 2; 3 were written";
        check(&router, push(protocol, &[("good", 3), ("refused", 2)]), (400, "3/0/0", partly)).await;
        let full = "1 points were refused: head_full 1; 1 were written";
        check(&router, push(protocol, &[("good", 1), ("full", 1)]), (503, "1/0/0", full)).await;
    }
    check(&router, push(Protocol::V2, &[]), (204, "0/0/0", "")).await;
    let of_kind = |content_type: &str, coding: &str| {
        let request = Request::post("/api/v1/write").header(header::CONTENT_TYPE, content_type);
        request.header(header::CONTENT_ENCODING, coding).body(Body::from("x")).expect("a good request")
    };
    let taken = "this door takes application/x-protobuf";
    check(&router, of_kind("application/x-protobuf;proto=other.Request", "snappy"), (415, "-/-/-", taken))
        .await;
    check(&router, of_kind("application/json", "snappy"), (415, "-/-/-", taken)).await;
    check(&router, of_kind("application/x-protobuf", "zstd"), (415, "-/-/-", taken)).await;
    check(&router, of_kind("application/x-protobuf", "snappy"), (400, "-/-/-", "the body is not in snappy"))
        .await;
    assert_eq!(shelf.lines().iter().filter(|line| *line == "good{a=b} 0.5").count(), 14);
    let text = registry.encode_text();
    for line in [
        "pipeline_received_points_total{protocol=\"remote_write_2\"} 7",
        "pipeline_received_points_refused_total{protocol=\"remote_write_1\"} 3",
        "pipeline_received_requests_total{outcome=\"partly\",protocol=\"remote_write_2\"} 2",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn bounds_hold() {
    let directory = tempfile::tempdir().expect("a directory");
    let (handle, _, registry) = pipeline(directory.path(), Vec::new());
    let config = Receive {
        request_bytes_max: 2000,
        request_series_max: 3,
        label_value_bytes_max: 4,
        ..receiving(directory.path())
    };
    let router = router(config, handle, &registry).expect("a good directory");
    let many = [("a", 1), ("b", 1), ("c", 1), ("d", 1)];
    check(&router, push(Protocol::V1, &many), (413, "-/-/-", "4 series are more than the 3")).await;
    check(&router, push(Protocol::V1, &[("a", 1000)]), (413, "-/-/-", "the body is ")).await;
    let long = "1 points were refused: label_limit 1 (first: bytes of a label's value of \"longer\": 6 are more than the 4";
    check(&router, push(Protocol::V2, &[("a", 1), ("longer", 1)]), (400, "1/0/0", long)).await;
}

fn page(method: &str, job: &str, text: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(format!("/metrics/job/{job}"));
    request.body(Body::from(text.to_owned())).expect("a good request")
}

/// A client may leave at any time; what it pushed is then in the file, in memory and in the store all the same.
#[tokio::test]
async fn a_push_goes_on_without_its_client() {
    let directory = tempfile::tempdir().expect("a directory");
    let (handle, shelf, registry) = pipeline(directory.path(), Vec::new());
    let router = router(receiving(directory.path()), handle, &registry).expect("a good directory");
    for (method, text, line) in
        [("POST", "x 5\n", "x{job=j} 5"), ("PUT", "y 6\n", "x{job=j} gone"), ("DELETE", "", "y{job=j} gone")]
    {
        let mut asking = Box::pin(router.clone().oneshot(page(method, "j", text)));
        let polled = std::future::poll_fn(|context| Poll::Ready(asking.as_mut().poll(context)));
        assert!(polled.await.is_pending(), "it waits for the disk");
        drop(asking);
        shelf.has(line).await;
    }
}

/// 503 means that the same request may do better: what ended is told with it again.
#[tokio::test]
async fn what_ended_is_told_again_when_the_store_was_full() {
    let directory = tempfile::tempdir().expect("a directory");
    let (handle, shelf, registry) = pipeline(directory.path(), Vec::new());
    let router = router(receiving(directory.path()), handle, &registry).expect("a good directory");
    check(&router, page("POST", "j", "x 5\n"), (200, "-/-/-", "")).await;
    let full = "1 points were refused: head_full 1; 2 were written";
    for _ in 0..2 {
        check(&router, page("PUT", "j", "full 6\n"), (503, "2/0/0", full)).await;
    }
    let ends = shelf.lines().into_iter().filter(|line| line == "x{job=j} gone").count();
    assert_eq!(ends, 2, "{:#?}", shelf.lines());
}
