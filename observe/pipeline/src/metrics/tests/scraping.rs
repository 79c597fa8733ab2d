//! What is fetched: labels, ends, limits, ways of finding targets.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, StatusCode, header};
use std::io::Write as _;

use super::*;
use crate::metrics::scrape::{Config as Scrape, MeshNode, Scraper};

/// A page that a test may change, and what it is asked with.
#[derive(Clone, Default)]
struct Page {
    text: Arc<Mutex<(StatusCode, String, Vec<u8>)>>,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Page {
    fn set(&self, status: StatusCode, content_type: &str, body: impl Into<Vec<u8>>) {
        *self.text.lock().expect("not poisoned") = (status, content_type.to_owned(), body.into());
    }

    fn asked_with(&self, name: HeaderName) -> String {
        let asked = self.asked.lock().expect("not poisoned");
        let last = asked.last().and_then(|headers| headers.get(name)?.to_str().ok()).unwrap_or_default();
        last.to_owned()
    }
}

impl Page {
    /// Waits until it is asked once more.
    async fn asked_again(&self) {
        let count = || self.asked.lock().expect("not poisoned").len();
        let before = count();
        while count() == before {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

async fn answer(State(page): State<Page>, headers: HeaderMap) -> Response {
    page.asked.lock().expect("not poisoned").push(headers.clone());
    let (status, content_type, body) = page.text.lock().expect("not poisoned").clone();
    if headers.get(header::ACCEPT_ENCODING).is_some_and(|coding| coding == "gzip") {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&body).expect("memory");
        let body = packed.finish().expect("memory");
        let headers = [(header::CONTENT_TYPE, content_type), (header::CONTENT_ENCODING, "gzip".to_owned())];
        return (status, headers, Bytes::from(body)).into_response();
    }
    (status, [(header::CONTENT_TYPE, content_type)], Bytes::from(body)).into_response()
}

async fn exporter(page: &Page) -> u16 {
    let moved = axum::response::Redirect::temporary("/metrics");
    let router = Router::new()
        .route("/metrics", axum::routing::get(answer))
        .route("/moved", axum::routing::get(move || async move { moved.clone() }))
        .with_state(page.clone());
    serve(router).await
}

/// Scrapes what the text says; `PORT` is the exporter's.
async fn scrape(text: &str, page: &Page) -> (Scraper, Shelf, tempfile::TempDir, u16) {
    let directory = tempfile::tempdir().expect("a directory");
    let (handle, shelf, registry) = pipeline(directory.path(), Vec::new());
    let port = exporter(page).await;
    let file = directory.path().join("prometheus.yml");
    std::fs::write(&file, text.replace("PORT", &port.to_string())).expect("written");
    std::fs::write(directory.path().join("secret"), "let me in\n").expect("written");
    let node = MeshNode { name: "media-1".to_owned(), host: "127.0.0.1".to_owned(), is_up: Some(true) };
    let config = Scrape { file: Some(file), ..Scrape::shipped() };
    let nodes: crate::metrics::scrape::MeshNodes = Arc::new(move || vec![node.clone()]);
    let scraper = Scraper::start(config, handle, &registry, nodes).expect("a good file");
    (scraper, shelf, directory, port)
}

const TEXT: &str = "text/plain; version=0.0.4";

#[tokio::test]
async fn pages_become_series_with_their_targets_labels_and_end_with_them() {
    let page = Page::default();
    page.set(StatusCode::OK, TEXT, "calls{job=\"theirs\"} 5\nnoise 1\nqueue 2\n");
    let file = "scrape_configs:\n- job_name: j\n  scrape_interval: 100ms\n  basic_auth: {username: u, password_file: secret}\n  \
        static_configs: [{targets: ['127.0.0.1:PORT'], labels: {site: x}}]\n  \
        metric_relabel_configs: [{source_labels: [__name__], regex: noise, action: drop}]\n";
    let (scraper, shelf, directory, port) = scrape(file, &page).await;
    let own = format!("instance=127.0.0.1:{port},job=j,site=x");
    shelf.has(&format!("calls{{exported_job=theirs,{own}}} 5")).await;
    shelf.has(&format!("up{{{own}}} 1")).await;
    shelf.has(&format!("scrape_samples_scraped{{{own}}} 3")).await;
    shelf.has(&format!("scrape_samples_post_metric_relabeling{{{own}}} 2")).await;
    assert!(!shelf.lines().iter().any(|line| line.starts_with("noise")));
    assert_eq!(page.asked_with(header::AUTHORIZATION), "Basic dTpsZXQgbWUgaW4=", "the file's secret");
    assert!(page.asked_with(header::ACCEPT).starts_with("application/openmetrics-text;version=1.0.0"));
    // A series that is not on the page any more.
    page.set(StatusCode::OK, TEXT, "queue 3\n");
    shelf.has(&format!("calls{{exported_job=theirs,{own}}} gone")).await;
    // A page that cannot be had, and one that cannot be read.
    page.set(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "");
    shelf.has(&format!("up{{{own}}} 0")).await;
    shelf.has(&format!("queue{{{own}}} gone")).await;
    page.set(StatusCode::OK, TEXT, "queue 4\n");
    shelf.has(&format!("queue{{{own}}} 4")).await;
    // The target itself goes: the job is not in the file any more.
    std::fs::write(directory.path().join("prometheus.yml"), "scrape_configs: []\n").expect("written");
    scraper.reload().expect("a good file");
    shelf.has(&format!("up{{{own}}} gone")).await;
    std::fs::write(directory.path().join("prometheus.yml"), "scrape_config: []\n").expect("written");
    let fault = scraper.reload().expect_err("a key that is none");
    assert!(fault.contains("prometheus.yml") && fault.contains("line 1"), "{fault}");
}

#[tokio::test]
async fn limits_cost_the_page() {
    let page = Page::default();
    page.set(StatusCode::OK, TEXT, "a 1\nb 2\nc 3\n");
    let file = "global: {scrape_interval: 100ms}\nscrape_configs:\n\
        - {job_name: samples, sample_limit: 2, static_configs: [{targets: ['127.0.0.1:PORT']}]}\n\
        - {job_name: bytes, body_size_limit: 5B, static_configs: [{targets: ['127.0.0.1:PORT']}]}\n\
        - {job_name: labels, label_limit: 2, static_configs: [{targets: ['127.0.0.1:PORT']}]}\n\
        - {job_name: names, label_name_length_limit: 7, static_configs: [{targets: ['127.0.0.1:PORT']}]}\n\
        - {job_name: values, label_value_length_limit: 6, static_configs: [{targets: ['127.0.0.1:PORT']}]}\n\
        - {job_name: many, target_limit: 1, static_configs: [{targets: ['127.0.0.1:PORT', '127.0.0.2:PORT']}]}\n\
        - {job_name: fine, metrics_path: /moved, static_configs: [{targets: ['127.0.0.1:PORT']}]}\n";
    let (_scraper, shelf, _directory, port) = scrape(file, &page).await;
    for (job, up) in [("samples", 0), ("bytes", 0), ("labels", 0), ("names", 0), ("values", 0), ("fine", 1)] {
        shelf.has(&format!("up{{instance=127.0.0.1:{port},job={job}}} {up}")).await;
    }
    let lines = shelf.lines();
    assert!(!lines.iter().any(|line| line.contains("job=many")), "a job with too many targets has none");
    let pages = lines.iter().filter(|line| line.starts_with("a{"));
    assert!(pages.clone().count() > 0 && pages.clone().all(|line| line.contains("job=fine")), "{lines:?}");
}

#[tokio::test]
async fn targets_are_found_in_files_over_http_and_in_the_mesh() {
    let page = Page::default();
    page.set(
        StatusCode::OK,
        "application/openmetrics-text; version=1.0.0",
        "# TYPE a counter\na_total 1\n# EOF\n",
    );
    let port_file = "- targets: ['127.0.0.1:PORT']\n  labels: {from: file}\n";
    let file = "global: {scrape_interval: 100ms}\nscrape_configs:\n\
        - {job_name: files, file_sd_configs: [{files: ['targets/*.yml']}]}\n\
        - job_name: mesh\n  mesh_sd_configs: [{port: PORT}]\n  \
        relabel_configs: [{source_labels: [__meta_mesh_node], target_label: node}]\n\
        - job_name: http\n  http_sd_configs:\n  - url: 'http://127.0.0.1:LIST/metrics'\n    \
        authorization: {credentials_file: secret}\n    refresh_interval: 1s\n  \
        relabel_configs: [{source_labels: [__meta_url], regex: '.*(/metrics)', target_label: list}]\n";
    // The directory must be there before the job looks for the first time.
    let directory = tempfile::tempdir().expect("a directory");
    let (handle, shelf, registry) = pipeline(directory.path(), Vec::new());
    let port = exporter(&page).await;
    std::fs::create_dir(directory.path().join("targets")).expect("created");
    let targets = directory.path().join("targets/one.yml");
    std::fs::write(targets, port_file.replace("PORT", &port.to_string())).expect("written");
    let path = directory.path().join("prometheus.yml");
    let list = Page::default();
    let targets = format!("[{{\"targets\": [\"127.0.0.1:{port}\"], \"labels\": {{\"from\": \"http\"}}}}]");
    list.set(StatusCode::OK, "application/json; charset=utf-8", targets);
    let lists = exporter(&list).await.to_string();
    let text = file.replace("PORT", &port.to_string()).replace("LIST", &lists);
    std::fs::write(&path, text).expect("written");
    std::fs::write(directory.path().join("secret"), "let me in\n").expect("written");
    let node = MeshNode { name: "media-1".to_owned(), host: "127.0.0.1".to_owned(), is_up: None };
    let config = Scrape { file: Some(path), ..Scrape::shipped() };
    let _scraper =
        Scraper::start(config, handle, &registry, Arc::new(move || vec![node.clone()])).expect("good");
    shelf.has(&format!("a_total{{from=file,instance=127.0.0.1:{port},job=files}} 1")).await;
    shelf.has(&format!("a_total{{instance=127.0.0.1:{port},job=mesh,node=media-1}} 1")).await;
    shelf.has(&format!("a_total{{from=http,instance=127.0.0.1:{port},job=http,list=/metrics}} 1")).await;
    assert_eq!(list.asked_with(header::AUTHORIZATION), "Bearer let me in");
    assert_eq!(list.asked_with(HeaderName::from_static("x-prometheus-refresh-interval-seconds")), "1");
    // A server that fails leaves what it said last; one that names no target ends them.
    list.set(StatusCode::BAD_GATEWAY, "application/json", "[]");
    list.asked_again().await;
    list.asked_again().await;
    assert!(!shelf.lines().iter().any(|line| line.contains("job=http") && line.ends_with("gone")));
    list.set(StatusCode::OK, "application/json", "[]");
    shelf.has(&format!("up{{from=http,instance=127.0.0.1:{port},job=http,list=/metrics}} gone")).await;
}

#[tokio::test]
async fn forms_are_asked_for_in_order_and_told_by_the_answer() {
    let page = Page::default();
    page.set(StatusCode::OK, "", "a 1\n");
    let file = "global: {scrape_interval: 100ms}\nscrape_configs:\n\
        - {job_name: plain, static_configs: [{targets: ['127.0.0.1:PORT']}]}\n\
        - job_name: other\n  scrape_protocols: [PrometheusProto, PrometheusText0.0.4]\n  \
        fallback_scrape_protocol: OpenMetricsText1.0.0\n  static_configs: [{targets: ['127.0.0.1:PORT']}]\n";
    let (scraper, shelf, directory, port) = scrape(file, &page).await;
    shelf.has(&format!("a{{instance=127.0.0.1:{port},job=plain}} 1")).await;
    // As the other form it has no end.
    shelf.has(&format!("up{{instance=127.0.0.1:{port},job=other}} 0")).await;
    let one = "scrape_configs:\n- {job_name: one, scrape_interval: 100ms, scrape_native_histograms: true, \
        enable_compression: false, static_configs: [{targets: ['127.0.0.1:PORT']}]}\n";
    std::fs::write(directory.path().join("prometheus.yml"), one.replace("PORT", &port.to_string()))
        .expect("written");
    scraper.reload().expect("a good file");
    page.set(StatusCode::OK, TEXT, "b 1\n");
    shelf.has(&format!("b{{instance=127.0.0.1:{port},job=one}} 1")).await;
    let accept = page.asked_with(header::ACCEPT);
    let order: Vec<&str> = accept.split(',').map(|part| part.split(';').next().unwrap_or_default()).collect();
    assert_eq!(order[..2], ["application/vnd.google.protobuf", "application/openmetrics-text"], "{accept}");
    assert_eq!(page.asked_with(header::ACCEPT_ENCODING), "identity");
    let seconds = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
    assert!(page.asked_with(seconds).parse::<f64>().is_ok_and(|seconds| seconds <= 0.1));
}
