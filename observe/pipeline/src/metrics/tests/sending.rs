//! What is sent on: versions, waiting, restarts.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use belfry_signal::SeriesPoints;
use http::{HeaderMap, StatusCode, header};

use super::*;
use crate::metrics::labels::LabelLimits;
use crate::metrics::remote_write::{Limits, Protocol, decode};
use crate::metrics::send::senders;

const LIMITS: Limits = Limits {
    bytes_max: 1 << 20,
    series_max: 10_000,
    memory_bytes_max: 16 << 20,
    labels: LabelLimits { labels_max: 0, name_bytes_max: 0, value_bytes_max: 0 },
    exemplar_bytes_max: 100,
    help_bytes_max: 40,
};

/// Another store: takes 2.0 or only 1.0, and answers what the test says.
#[derive(Clone)]
struct Other {
    takes_v2: bool,
    status: Arc<Mutex<StatusCode>>,
    /// Points as `name{labels} value`, in the order in which they came.
    points: Arc<Mutex<Vec<String>>>,
}

async fn take(State(other): State<Other>, headers: HeaderMap, body: Bytes) -> Response {
    let status = *other.status.lock().expect("not poisoned");
    if status != StatusCode::OK {
        return (status, "not now").into_response();
    }
    let content_type = headers[header::CONTENT_TYPE].to_str().expect("text");
    let protocol = Protocol::of_content_type(content_type).expect("one of ours");
    if protocol == Protocol::V2 && !other.takes_v2 {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let decoded = decode(protocol, &body, &LIMITS).expect("a good request");
    let count = decoded.batch.points();
    let mut points = other.points.lock().expect("not poisoned");
    for series in &decoded.batch.series {
        let labels: Vec<String> =
            series.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for (time, _) in &series.points {
            points.push(format!("{} @{time}", labels.join(",")));
        }
    }
    let counts = [("x-prometheus-remote-write-samples-written", count.to_string())];
    if other.takes_v2 {
        (StatusCode::NO_CONTENT, counts).into_response()
    } else {
        StatusCode::OK.into_response()
    }
}

async fn other(takes_v2: bool) -> (Other, u16) {
    let other = Other { takes_v2, status: Arc::new(Mutex::new(StatusCode::OK)), points: Arc::default() };
    let port =
        serve(Router::new().route("/write", axum::routing::post(take)).with_state(other.clone())).await;
    (other, port)
}

impl Other {
    async fn has(&self, points: &[String]) {
        let waiting = async {
            loop {
                let held = self.points.lock().expect("not poisoned").clone();
                if points.iter().all(|point| held.contains(point)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(SOON, waiting).await;
        assert!(in_time.is_ok(), "{points:?} are not all in {:?}", self.points.lock());
    }
}

fn batch(name: &str, time: i64) -> SeriesBatch {
    let labels = [(Arc::from("__name__"), Arc::from(name))].into();
    let points = vec![(time, PointValue::Float(1.0))];
    let series = vec![SeriesPoints { labels, created_ms: None, points, exemplars: Vec::new() }];
    SeriesBatch { series, metadata: Vec::new() }
}

fn file(directory: &Path, port: u16) -> std::path::PathBuf {
    let path = directory.join("prometheus.yml");
    let text = format!(
        "global: {{external_labels: {{site: x}}}}\nremote_write:\n- url: http://127.0.0.1:{port}/write\n  \
         queue_config: {{batch_send_deadline: 10ms, max_samples_per_send: 3, max_backoff: 50ms}}\n  \
         write_relabel_configs: [{{source_labels: [__name__], regex: secret, action: drop}}]\n"
    );
    std::fs::write(&path, text).expect("written");
    path
}

#[tokio::test]
async fn what_is_stored_is_sent_in_the_version_that_is_taken_and_waits_while_nobody_takes_it() {
    for takes_v2 in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let (other, port) = other(takes_v2).await;
        let path = file(directory.path(), port);
        let start = || {
            let all =
                senders(&path, &directory.path().join("sent"), &Registry::for_test()).expect("a good file");
            let stores = all.into_iter().map(|sender| Box::new(sender) as Box<dyn Store>).collect();
            pipeline(directory.path(), stores)
        };
        let (handle, _, _) = start();
        let expected = |times: std::ops::Range<i64>| -> Vec<String> {
            times.map(|time| format!("__name__=m,site=x @{time}")).collect()
        };
        for time in 0..10 {
            handle.write(batch("m", time)).await.expect("stored");
            handle.write(batch("secret", time)).await.expect("stored");
        }
        other.has(&expected(0..10)).await;
        // It is away, and so are we meanwhile: what was not sent comes after our next start.
        *other.status.lock().expect("not poisoned") = StatusCode::SERVICE_UNAVAILABLE;
        for time in 10..20 {
            handle.write(batch("m", time)).await.expect("stored");
        }
        assert!(handle.drain(SOON).await.is_empty());
        drop(handle);
        *other.status.lock().expect("not poisoned") = StatusCode::OK;
        let (handle, _, _) = start();
        other.has(&expected(10..20)).await;
        handle.write(batch("m", 20)).await.expect("stored");
        other.has(&expected(20..21)).await;
        let held = other.points.lock().expect("not poisoned").clone();
        assert!(!held.iter().any(|point| point.contains("secret")), "the rule drops it");
        assert!(handle.drain(SOON).await.is_empty());
    }
}
