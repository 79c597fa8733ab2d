use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::tests::world;

const START_MS: i64 = 1_795_161_600_000;

async fn ask(router: &Router, accepted: &[i32], kind: i32, value: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
    let matcher = |name: &str, kind: i32, value: &str| read::LabelMatcher {
        kind,
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let query = read::Query {
        start_timestamp_ms: START_MS + 10_000,
        end_timestamp_ms: START_MS + 12_000,
        matchers: vec![matcher("__name__", 0, "calls_total"), matcher("region", kind, value)],
    };
    let request = read::ReadRequest { queries: vec![query], accepted_response_types: accepted.to_vec() };
    let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).expect("short");
    let request = Request::post("/api/v1/read").body(Body::from(body)).expect("a good request");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.expect("a body").to_bytes().to_vec())
}

#[tokio::test]
async fn samples_are_read_where_they_are_wanted() {
    let router = world().router();
    for accepted in [&[][..], &[0], &[0, 1], &[7, 0]] {
        let (status, headers, body) = ask(&router, accepted, 2, "e.").await;
        assert_eq!(
            (status, &headers[header::CONTENT_ENCODING]),
            (StatusCode::OK, &http::HeaderValue::from_static("snappy"))
        );
        let plain = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
        let response = read::ReadResponse::decode(&plain[..]).expect("the message");
        let series = &response.results[0].timeseries;
        let points: Vec<(i64, f64)> =
            series[0].samples.iter().map(|sample| (sample.timestamp - START_MS, sample.value)).collect();
        assert_eq!((series.len(), points), (1, vec![(10_000, 10.0), (11_000, 11.0), (12_000, 12.0)]));
        assert_eq!(series[0].labels.len(), 2);
    }
}

#[tokio::test]
async fn chunks_are_streamed_in_frames_with_their_checksums() {
    let router = world().router();
    let (status, headers, body) = ask(&router, &[1, 0], 0, "eu").await;
    assert_eq!(status, StatusCode::OK);
    let kind = headers[header::CONTENT_TYPE].to_str().expect("text");
    assert!(kind.starts_with("application/x-streamed-protobuf"), "{kind}");
    let length = usize::from(body[0]);
    assert!(length < 0x80 && body.len() == length + 5, "one small frame");
    assert_eq!(body[1..5], crc32c::crc32c(&body[5..]).to_be_bytes());
    let frame = read::ChunkedReadResponse::decode(&body[5..]).expect("the message");
    let chunk = &frame.chunked_series[0].chunks[0];
    assert_eq!((chunk.kind, chunk.min_time_ms - START_MS, chunk.max_time_ms - START_MS), (1, 10_000, 12_000));
    let points: Vec<(i64, f64)> =
        (10..=12_u8).map(|second| (START_MS + i64::from(second) * 1000, f64::from(second))).collect();
    assert_eq!(chunk.data, belfry_series::xor_chunk(&points));
}

#[tokio::test]
async fn what_cannot_be_asked_is_told() {
    let router = world().router();
    for (kind, value, expected) in [(9, "eu", "9 is no kind of matcher"), (2, "(", "regex")] {
        let (status, _, body) = ask(&router, &[], kind, value).await;
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(status == StatusCode::BAD_REQUEST && text.contains(expected), "{status} {text}");
    }
    let request = Request::post("/api/v1/read").body(Body::from("no snappy")).expect("a good request");
    let response = router.oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}
