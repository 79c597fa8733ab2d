//! The whole server over real connections: who gets in, what everybody gets, the live stream, the end.

use std::sync::Arc;
use std::time::Duration;

use belfry_query::{CallFilter, CallRow, CallView, Found, LogLine, LogQuery, Stamped, Timeline};
use belfry_signal::record::{Body, Call, Direction, Log, Name, SipMessage};
use belfry_signal::{Pii, Record, Region, Registry, Severity, TraceId, Value};
use futures_util::FutureExt;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::config::{Config, User};
use crate::handle::{DashboardHandle, Sources, serve};
use crate::reading::Reading;
use crate::runbooks::Runbooks;
use crate::status::View;

/// A server with one user, `ann`, and a hand on what it shows.
struct Bench {
    dashboard: DashboardHandle,
    views: watch::Sender<Arc<View>>,
    registry: Registry,
}

const PASSWORD: &str = "correct horse battery staple";
const CALL_ID: &str = "a84b4c76@pc 33";

fn config() -> Config {
    let hash = crate::hash_password(PASSWORD).expect("randomness");
    let hour = Duration::from_secs(3600);
    Config {
        listen: "127.0.0.1:0".parse().expect("literal"),
        public_url: None,
        login_link: true,
        login_link_ttl: hour,
        session_ttl: hour,
        session_age_max: 24 * hour,
        sessions_file: None,
        sessions_max: 8,
        connections_max: 32,
        header_timeout: Duration::from_secs(20),
        write_timeout: Duration::from_secs(30),
        live_streams_max: 2,
        searches_max: 4,
        rows_max: 200,
        users: vec![User { name: "ann".into(), password_hash: hash }],
    }
}

fn view(step: u64) -> Arc<View> {
    let text = |name: &str| Arc::from(format!("{{\"{name}\":{step}}}"));
    Arc::new(View {
        snapshot: text("snapshot"),
        step,
        trend: text("trend"),
        point: text("point"),
        status: Arc::default(),
    })
}

fn call() -> Call {
    Call {
        call_id: Pii::new(CALL_ID.to_owned()),
        trace_id: TraceId([7; 16]),
        start_unix_nanos: 1_700_000_000_000_000_000,
        answer_unix_nanos: None,
        caller: Pii::new("+442071838750".to_owned()),
        callee: Pii::new("+33170391102".to_owned()),
        region: Region::configured("eu").expect("plain"),
        country: Some("GB".to_owned()),
        transport: Name::Borrowed("tls"),
        tenant: Some("acme".into()),
        calling_trunk: None,
        called_trunk: Some("carrier-a".into()),
        outcome: Name::Borrowed("failed"),
        status_code: 503,
        cause: Name::Borrowed("server_error"),
        post_dial_seconds: Some(0.25),
        mos_min: None,
        mos_mean: None,
        silent_legs: vec![],
    }
}

fn log() -> Log {
    Log {
        severity: Severity::Warn,
        message: Name::Borrowed("call failed"),
        attributes: vec![
            (Name::Borrowed("sip.method"), Value::from("INVITE")),
            (Name::Borrowed("net.peer"), Value::from(Pii::new("192.0.2.1".to_owned()))),
        ],
        context: None,
        call_id: Some(Pii::new(CALL_ID.to_owned())),
    }
}

fn message() -> SipMessage {
    SipMessage {
        call_id: Pii::new(CALL_ID.to_owned()),
        trace_id: TraceId([7; 16]),
        direction: Direction::Received,
        transport: Name::Borrowed("tls"),
        peer: Pii::new("192.0.2.1:5061".parse().expect("literal")),
        node: Name::Borrowed("core-1"),
        summary: Name::Borrowed("INVITE"),
        cseq: "1 INVITE".to_owned(),
        retransmission: false,
        bytes: Pii::new(b"INVITE sip:bob@example.net SIP/2.0\r\n\xff".to_vec()),
    }
}

fn found<T>(rows: Vec<T>) -> Found<T> {
    Found { rows, has_more: true, splits_read: 1, splits_damaged: 0 }
}

/// Stores that know one call and one log line, and refuse the search text `(`.
fn reading() -> Reading {
    let calls = |filter: CallFilter| {
        let is_asked = filter.outcome.as_deref().is_none_or(|outcome| outcome == "failed");
        let row = CallRow { end_unix_nanos: 1_700_000_001_500_000_000, call: call() };
        found(if is_asked { vec![row] } else { vec![] })
    };
    let view = |call_id: String| {
        let stamped = Stamped {
            unix_nanos: 1_700_000_000_000_250_000,
            component: Name::Borrowed("core_signalling"),
            value: message(),
        };
        let timeline = Timeline { messages: vec![stamped], ..Timeline::default() };
        let summary = Some(call());
        (call_id == CALL_ID).then(|| CallView {
            call_id: Pii::new(call_id),
            trace_id: Some(TraceId([7; 16])),
            summary,
            timeline,
        })
    };
    let search = |query: LogQuery| {
        let body = Body::Log(log());
        let record = Record {
            unix_nanos: 1_700_000_000_000_000_000,
            component: Name::Borrowed("core_signalling"),
            body,
        };
        let is_bad = query.text == "(";
        if is_bad {
            Err(belfry_query::Error::Busy)
        } else {
            Ok(found(vec![LogLine { sequence: 1, record: Arc::new(record) }]))
        }
    };
    Reading {
        calls: Box::new(move |filter| async move { Ok(calls(filter)) }.boxed()),
        call: Box::new(move |call_id| async move { Ok(view(call_id)) }.boxed()),
        search: Box::new(move |query| async move { search(query) }.boxed()),
    }
}

impl Bench {
    fn start(config: Config) -> Self {
        let registry = Registry::for_test();
        let (views, viewed) = watch::channel(view(7));
        let examples =
            |page: &str, number| (page == "p1" && number == 1).then(|| Pii::new(CALL_ID.to_owned()));
        let sources = Sources {
            views: viewed,
            examples: Box::new(examples),
            acknowledge: Box::new(|page, by| {
                Box::pin(async move { Ok(page == "p1" && by.is_none_or(|(name, _)| name == "ann")) })
            }),
            reading: reading(),
            questions: axum::Router::new(),
            runbooks: Arc::new(Runbooks::built_in()),
            stop: watch::channel(false).0,
            doors: belfry_door::Doors::new(&registry),
        };
        let dashboard = serve(config, &registry, sources).expect("a free port");
        Self { dashboard, views, registry }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.dashboard.local_addr()).await.expect("it listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path).header("host", "tower");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).expect("well formed");
        let (parts, body) = self.send(request).await.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        (parts.status, parts.headers, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn get(&self, path: &str, cookie: &str) -> (StatusCode, HeaderMap, String) {
        self.ask(Method::GET, path, &[("cookie", cookie)], "").await
    }

    async fn post_login(&self, password: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, String) {
        let form = format!("name=ann&password={}&next=%2Flogs%3Fq%3Dx", password.replace(' ', "+"));
        let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
        all.extend_from_slice(headers);
        self.ask(Method::POST, "/login", &all, &form).await
    }

    /// Logs in and returns the cookie.
    async fn cookie(&self) -> String {
        let (status, headers, _) = self.post_login(PASSWORD, &[]).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let cookie = headers["set-cookie"].to_str().expect("text");
        cookie.split(';').next().expect("a pair").to_owned()
    }
}

#[tokio::test]
async fn strangers_get_the_frame_and_no_data() {
    let bench = Bench::start(config());
    let data = [
        "/api/live",
        "/api/status",
        "/api/session",
        "/api/calls",
        "/api/calls/x",
        "/api/logs",
        "/api/runbooks",
        "/api/runbooks/x",
        "/api/pages/p1",
        "/api/pages/p1/examples/1",
        "/api/nothing",
    ];
    for path in data {
        for cookie in ["", "belfry=", "belfry=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            let (status, _, body) = bench.get(path, cookie).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} {cookie}");
            assert_eq!(body, "{\"error\":\"log in first\"}", "{path}");
        }
    }
    for path in
        ["/", "/login", "/calls", "/calls/x", "/logs", "/runbooks/x", "/pages/p1", "/pages/p1/examples/1"]
    {
        let (status, _, body) = bench.get(path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(body.starts_with("<!doctype html>") && !body.contains(CALL_ID), "{path}");
    }
    let (status, ..) = bench.get("/nothing", "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_answer_is_fenced() {
    let bench = Bench::start(config());
    for path in ["/", "/api/status", "/nothing", "/assets/nothing.js"] {
        let (_, headers, _) = bench.get(path, "").await;
        let policy = headers["content-security-policy"].to_str().expect("text");
        assert!(
            policy.starts_with("default-src 'self';") && policy.contains("frame-ancestors 'none'"),
            "{path}"
        );
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "same-origin", "{path}");
        assert!(headers.contains_key("cache-control"), "{path}");
    }
}

#[tokio::test]
async fn a_password_opens_and_logout_closes() {
    let bench = Bench::start(config());
    let (status, headers, _) = bench.post_login("wrong", &[]).await;
    assert_eq!(
        (status, &headers["location"]),
        (StatusCode::SEE_OTHER, &"/login?error=wrong&next=%2Flogs%3Fq%3Dx".parse().expect("text"))
    );
    assert!(!headers.contains_key("set-cookie"));
    let (_, headers, _) = bench.post_login(PASSWORD, &[]).await;
    assert_eq!(headers["location"], "/logs?q=x");
    let cookie = headers["set-cookie"].to_str().expect("text").to_owned();
    for flag in ["belfry=", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "over plain HTTP a Secure cookie would never come back: {cookie}");
    let cookie = cookie.split(';').next().expect("a pair");
    let (status, _, body) = bench.get("/api/status", &format!("other=1; {cookie}")).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "{\"snapshot\":7}"));
    let (status, headers, _) = bench.ask(Method::POST, "/logout", &[("cookie", cookie)], "").await;
    assert_eq!((status, &headers["location"]), (StatusCode::SEE_OTHER, &"/login".parse().expect("text")));
    assert_eq!(bench.get("/api/status", cookie).await.0, StatusCode::UNAUTHORIZED);
    let text = bench.registry.encode_text();
    assert!(text.contains("dashboard_logins_total{outcome=\"wrong_password\"} 1"), "{text}");
    assert!(text.contains("dashboard_sessions 0"), "{text}");
}

#[tokio::test]
async fn behind_tls_the_cookie_is_bound_to_the_host() {
    let bench = Bench::start(Config { public_url: Some("https://tower.example.net".to_owned()), ..config() });
    let (_, headers, _) = bench.post_login(PASSWORD, &[]).await;
    let cookie = headers["set-cookie"].to_str().expect("text");
    assert!(cookie.starts_with("__Host-belfry=") && cookie.ends_with("; Secure"), "{cookie}");
    assert_eq!(bench.dashboard.login_link(), None, "there are users");
    let first_start =
        Config { users: vec![], public_url: Some("https://tower.example.net".to_owned()), ..config() };
    let link = Bench::start(first_start).dashboard.login_link().expect("allowed");
    assert!(link.starts_with("https://tower.example.net/login/"), "{link}");
}

#[tokio::test]
async fn other_sites_cannot_log_anybody_in_or_out() {
    let bench = Bench::start(config());
    let (status, headers, _) = bench.post_login(PASSWORD, &[("sec-fetch-site", "cross-site")]).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(!headers.contains_key("set-cookie"));
    let cookie = bench.cookie().await;
    let from_elsewhere = [("cookie", cookie.as_str()), ("origin", "http://evil.example")];
    let (status, ..) = bench.ask(Method::POST, "/logout", &from_elsewhere, "").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(bench.get("/api/session", &cookie).await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let bench = Bench::start(config());
    for _ in 0..5 {
        bench.post_login("guess", &[]).await;
    }
    let (_, headers, _) = bench.post_login(PASSWORD, &[]).await;
    assert_eq!(headers["location"], "/login?error=slow&next=%2Flogs%3Fq%3Dx");
    assert!(bench.registry.encode_text().contains("dashboard_logins_total{outcome=\"slowed\"} 1"));
}

#[tokio::test]
async fn a_login_link_works_once() {
    let bench = Bench::start(Config { users: vec![], ..config() });
    let link = bench.dashboard.login_link().expect("allowed");
    let (_, path) = link.split_once("/login/").expect("a login link");
    let path = format!("/login/{path}");
    for _ in 0..3 {
        let (status, headers, body) = bench.get(&path, "").await;
        assert_eq!(status, StatusCode::OK, "whoever only looks does not spend it");
        assert!(body.contains("<button") && !body.contains("<script"), "{body}");
        assert!(!headers.contains_key("set-cookie"));
    }
    let post = |headers: &'static [(&str, &str)]| bench.ask(Method::POST, &path, headers, "");
    let (status, headers, _) = post(&[("sec-fetch-site", "cross-site")]).await;
    assert_eq!((status, headers.contains_key("set-cookie")), (StatusCode::FORBIDDEN, false));
    let (_, headers, _) = post(&[("origin", "http://tower")]).await;
    assert_eq!(headers["location"], "/");
    let cookie = headers["set-cookie"].to_str().expect("text").split(';').next().expect("a pair").to_owned();
    assert_eq!(bench.get("/api/session", &cookie).await.0, StatusCode::NO_CONTENT);
    for (status, _, body) in [bench.get(&path, "").await, post(&[]).await] {
        assert_eq!(status, StatusCode::GONE);
        assert!(body.contains("was used before or is too old") && body.contains("waits 1 h"), "{body}");
    }
    assert_eq!(bench.get(&path, &cookie).await.1["location"], "/", "whoever is in just goes on");
    let without = Bench::start(Config { login_link: false, ..config() });
    assert_eq!(without.dashboard.login_link(), None);
}

#[tokio::test]
async fn a_restart_logs_nobody_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dashboard/sessions");
    let keeping = Config { sessions_file: Some(file.clone()), ..config() };
    let bench = Bench::start(keeping.clone());
    let cookie = bench.cookie().await;
    // The login is written down by a task of its own, at once.
    while !std::fs::read_to_string(&file).is_ok_and(|text| text.lines().count() == 2) {
        tokio::task::yield_now().await;
    }
    let text = std::fs::read_to_string(&file).expect("it was there");
    let token = cookie.strip_prefix("belfry=").expect("our cookie");
    assert!(!text.contains(token), "the file holds hashes only: {text}");
    bench.dashboard.drain(Duration::from_secs(5)).await;
    let again = Bench::start(keeping);
    assert_eq!(again.get("/api/session", &cookie).await.0, StatusCode::NO_CONTENT);
    std::fs::write(&file, "something else").expect("writable");
    let damaged = Bench::start(Config { sessions_file: Some(file), ..config() });
    assert_eq!(damaged.get("/api/session", &cookie).await.0, StatusCode::UNAUTHORIZED);
    assert!(damaged.registry.encode_text().contains("dashboard_session_file_failures_total 1"));
}

#[tokio::test]
async fn a_session_does_not_outlive_its_password() {
    let directory = tempfile::tempdir().expect("a directory");
    let keeping = Config { sessions_file: Some(directory.path().join("sessions")), ..config() };
    let bench = Bench::start(keeping.clone());
    let cookie = bench.cookie().await;
    bench.dashboard.drain(Duration::from_secs(5)).await;
    let mut users = keeping.users.clone();
    users[0].password_hash = crate::hash_password("another one").expect("hashed");
    let changed = Bench::start(Config { users, ..keeping });
    assert_eq!(changed.get("/api/session", &cookie).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn calls_and_logs_are_read_as_people_need_them() {
    let bench = Bench::start(config());
    let cookie = bench.cookie().await;
    let json = |body: &str| serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    let (_, _, body) = bench.get("/api/calls?outcome=failed", &cookie).await;
    let calls = json(&body);
    assert_eq!(calls["calls"][0]["caller"], "+442071838750");
    assert_eq!(calls["calls"][0]["end_ms"], 1_700_000_001_500.0);
    assert_eq!(calls["has_more"], true);
    assert_eq!(
        json(&bench.get("/api/calls?outcome=busy&region=", &cookie).await.2)["calls"],
        serde_json::json!([])
    );
    let (_, _, body) = bench.get("/api/calls/a84b4c76%40pc%2033", &cookie).await;
    let call = json(&body);
    assert_eq!(call["summary"]["end_ms"], 1_700_000_001_500.0);
    assert_eq!(call["messages"][0]["at_ms"], 1_700_000_000_000.25);
    assert_eq!(call["messages"][0]["text"], "INVITE sip:bob@example.net SIP/2.0\r\n\u{fffd}");
    assert_eq!(bench.get("/api/calls/other", &cookie).await.0, StatusCode::NOT_FOUND);
    let (_, _, body) = bench.get("/api/logs?q=call&severity=warn&since=15m", &cookie).await;
    let line = &json(&body)["lines"][0];
    assert_eq!((&line["severity"], &line["call_id"]), (&"WARN".into(), &CALL_ID.into()));
    assert_eq!(line["attributes"], serde_json::json!([["sip.method", "INVITE"], ["net.peer", "192.0.2.1"]]));
    for bad in ["/api/logs?severity=loud", "/api/logs?since=yesterday"] {
        assert_eq!(bench.get(bad, &cookie).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(bench.get("/api/logs?q=%28", &cookie).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn an_example_leads_to_its_call_for_those_who_are_in() {
    let bench = Bench::start(config());
    let cookie = bench.cookie().await;
    let (status, headers, _) = bench.get("/pages/p1/examples/1", &cookie).await;
    assert_eq!(
        (status, &headers["location"]),
        (StatusCode::SEE_OTHER, &"/calls/a84b4c76%40pc%2033".parse().expect("text"))
    );
    let (_, _, body) = bench.get("/api/pages/p1/examples/1", &cookie).await;
    assert_eq!(body, format!("{{\"call_id\":\"{CALL_ID}\"}}"));
    assert_eq!(bench.get("/api/pages/p1/examples/2", &cookie).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn files_are_cached_by_their_names_and_the_frame_by_its_tag() {
    let bench = Bench::start(config());
    let (_, headers, _) = bench.get("/", "").await;
    let etag = headers["etag"].to_str().expect("text");
    let (status, ..) = bench.ask(Method::GET, "/", &[("if-none-match", etag)], "").await;
    assert_eq!(status, StatusCode::NOT_MODIFIED);
    // A build without npm has the frame only.
    let assets = crate::assets::Assets::new();
    for path in assets.paths().into_iter().filter(|path| path.ends_with(".js")) {
        let gzip = [("accept-encoding", "br, gzip;q=0.8")];
        let (_, headers, _) = bench.ask(Method::GET, &format!("/{path}"), &gzip, "").await;
        assert_eq!(headers["cache-control"], "public, max-age=31536000, immutable");
        assert_eq!(headers["content-encoding"], "gzip");
        assert_eq!(headers["content-type"], "text/javascript; charset=utf-8");
        let (_, headers, _) = bench.get(&format!("/{path}"), "").await;
        assert!(!headers.contains_key("content-encoding"));
    }
}

/// Reads a live stream until the text is there.
async fn read_until(body: &mut Incoming, text: &mut String, wanted: &str) {
    while !text.contains(wanted) {
        let frame = body.frame().await.unwrap_or_else(|| panic!("the stream ended before {wanted}: {text}"));
        let bytes = frame.expect("no error").into_data().expect("data");
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
}

async fn live(bench: &Bench, cookie: &str) -> Response<Incoming> {
    let request = Request::get("/api/live").header("host", "tower").header("cookie", cookie);
    bench.send(request.body(Full::default()).expect("well formed")).await
}

#[tokio::test]
async fn the_live_stream_tells_the_past_then_the_present() {
    let bench = Bench::start(config());
    let cookie = bench.cookie().await;
    let response = live(&bench, &cookie).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (mut body, mut text) = (response.into_body(), String::new());
    read_until(&mut body, &mut text, "event: snapshot\ndata: {\"snapshot\":7}\n\n").await;
    assert!(text.contains("event: trend\ndata: {\"trend\":7}\n\n"), "{text}");
    read_until(&mut body, &mut text, "event: heartbeat\ndata: {\"at_ms\":").await;
    bench.views.send_replace(view(8));
    read_until(&mut body, &mut text, "{\"snapshot\":8}\n\n").await;
    assert!(text.contains("event: point\ndata: {\"point\":8}\n\n"), "{text}");
    // Steps that were missed cannot be made up by one point.
    bench.views.send_replace(view(11));
    read_until(&mut body, &mut text, "{\"snapshot\":11}\n\n").await;
    assert!(text.contains("event: trend\ndata: {\"trend\":11}\n\n"), "{text}");
    assert!(bench.registry.encode_text().contains("dashboard_live_streams 1"));
}

#[tokio::test]
async fn live_streams_are_bounded_and_end_with_the_server() {
    let bench = Bench::start(config());
    let cookie = bench.cookie().await;
    let first = live(&bench, &cookie).await;
    let second = live(&bench, &cookie).await;
    let refused = live(&bench, &cookie).await;
    assert_eq!(
        [first.status(), second.status(), refused.status()].map(|status| status.as_u16()),
        [200, 200, 503]
    );
    let stragglers = bench.dashboard.drain(Duration::from_secs(5)).await;
    assert_eq!(stragglers, Vec::<String>::new());
    let rest = first.into_body().collect().await.expect("an orderly end");
    assert!(String::from_utf8_lossy(&rest.to_bytes()).contains("event: snapshot"));
    assert!(TcpStream::connect(bench.dashboard.local_addr()).await.is_err());
}

#[tokio::test]
async fn whoever_is_logged_in_acknowledges_in_their_own_name() {
    let bench = Bench::start(config());
    let path = "/api/pages/p1/acknowledgement";
    let json = ("content-type", "application/json");
    assert_eq!(bench.ask(Method::POST, path, &[json], "{}").await.0, StatusCode::UNAUTHORIZED);
    let (_, headers, _) = bench.post_login(PASSWORD, &[]).await;
    let cookie = headers["set-cookie"].to_str().expect("text").split(';').next().expect("a pair").to_owned();
    let cookie = ("cookie", cookie.as_str());
    let check =
        async |method: Method, path: &str, more: &[(&str, &str)], body: &'static str, expected: u16| {
            let headers = [&[cookie, json], more].concat();
            let (status, _, answer) = bench.ask(method, path, &headers, body).await;
            assert_eq!(status.as_u16(), expected, "{path} {body}: {answer}");
        };
    check(Method::POST, path, &[], "{\"comment\":\"on it\"}", 204).await;
    check(Method::DELETE, path, &[], "", 204).await;
    check(Method::POST, "/api/pages/other/acknowledgement", &[], "{}", 404).await;
    check(Method::POST, path, &[], "{\"by\":\"somebody else\"}", 422).await;
    check(Method::POST, path, &[("origin", "http://evil.example")], "{}", 403).await;
}
