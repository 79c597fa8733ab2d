//! The stand-in against events that the real service takes, refuses, or never sees.

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";

async fn started() -> PagerDuty {
    PagerDuty::start("127.0.0.1:0".parse().expect("an address"), &[KEY, OTHER_KEY]).await.expect("starts")
}

fn trigger(dedup_key: &str) -> Value {
    json!({
        "routing_key": KEY, "event_action": "trigger", "dedup_key": dedup_key, "client": "Belfry",
        "links": [{ "href": "http://127.0.0.1:8080/pages/1", "text": "Page" }],
        "payload": {
            "summary": "call_setup in eu fails", "source": "loopback", "severity": "critical",
            "timestamp": "2026-11-20T08:30:00.000Z", "component": "core", "custom_details": { "bad": 7 },
        },
    })
}

fn resolve(dedup_key: &str) -> Value {
    json!({ "routing_key": KEY, "event_action": "resolve", "dedup_key": dedup_key })
}

/// Posts raw bytes; the status, or none when the connection was closed.
async fn post(pagerduty: &PagerDuty, path: &str, body: Vec<u8>) -> Option<(u16, Value)> {
    let stream = tokio::net::TcpStream::connect(pagerduty.address).await.expect("listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    let request =
        Request::post(path).header("host", "stand-in").body(Full::new(Bytes::from(body))).expect("valid");
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, serde_json::from_slice(&body).expect("json")))
}

async fn send(pagerduty: &PagerDuty, event: &Value) -> u16 {
    post(pagerduty, "/v2/enqueue", event.to_string().into_bytes()).await.expect("answered").0
}

#[tokio::test]
async fn one_dedup_key_is_one_incident_until_it_is_resolved() {
    let pagerduty = started().await;
    for _ in 0..2 {
        assert_eq!(send(&pagerduty, &trigger("k")).await, 202);
    }
    assert_eq!(pagerduty.inbox().open().count(), 1);
    assert_eq!(send(&pagerduty, &resolve("k")).await, 202);
    assert_eq!(send(&pagerduty, &trigger("k")).await, 202);
    let inbox = pagerduty.inbox();
    let counts: Vec<_> = inbox.of("k").map(|i| (i.triggers, i.resolves, i.state)).collect();
    assert_eq!(counts, [(2, 1, IncidentState::Resolved), (1, 0, IncidentState::Triggered)]);
    assert_eq!(send(&pagerduty, &resolve("unknown")).await, 202);
    assert_eq!((pagerduty.inbox().stray, pagerduty.inbox().accepted), (1, 5));
}

#[tokio::test]
async fn a_second_resolve_is_seen() {
    let pagerduty = started().await;
    send(&pagerduty, &trigger("k")).await;
    send(&pagerduty, &resolve("k")).await;
    send(&pagerduty, &resolve("k")).await;
    assert_eq!(pagerduty.inbox().of("k").map(|incident| incident.resolves).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn what_the_real_service_or_we_would_refuse() {
    let change = |path: &[&str], value: Value| {
        let mut event = trigger("k");
        let mut place = &mut event;
        for name in path {
            place = &mut place[*name];
        }
        *place = value;
        event
    };
    let cases = [
        (change(&["routing_key"], json!("short")), "32 characters"),
        (change(&["routing_key"], json!("x".repeat(32))), "no service"),
        (change(&["event_action"], json!("open")), "event_action"),
        (change(&["dedup_key"], json!("k".repeat(256))), "dedup_key"),
        (change(&["payload"], json!("text")), "payload"),
        (change(&["payload", "summary"], json!("")), "payload.summary"),
        (change(&["payload", "summary"], json!("s".repeat(1025))), "payload.summary"),
        (change(&["payload", "source"], Value::Null), "payload.source"),
        (change(&["payload", "severity"], json!("page")), "payload.severity"),
        (change(&["payload", "timestamp"], json!("yesterday")), "payload.timestamp"),
        (change(&["payload", "custom_details"], json!("text")), "payload.custom_details"),
        (change(&["links"], json!([{ "text": "no href" }])), "links"),
        (change(&["images"], json!([{ "src": "http://plain" }])), "images"),
        (json!({ "routing_key": KEY, "event_action": "resolve" }), "dedup_key"),
        (json!([1]), "not an object"),
    ];
    let pagerduty = started().await;
    for (event, fragment) in cases {
        let (status, answer) =
            post(&pagerduty, "/v2/enqueue", event.to_string().into_bytes()).await.expect("answered");
        assert_eq!(status, 400, "{event}");
        let errors = answer["errors"].to_string();
        assert!(errors.contains(fragment), "{errors} lacks {fragment}");
    }
    assert_eq!(post(&pagerduty, "/v2/enqueue", b"{".to_vec()).await.expect("answered").0, 400);
    let large = change(&["payload", "custom_details"], json!({ "x": "y".repeat(512_000) }));
    assert_eq!(send(&pagerduty, &large).await, 413);
    assert_eq!(post(&pagerduty, "/v3/enqueue", Vec::new()).await.expect("answered").0, 404);
    let inbox = pagerduty.inbox();
    assert_eq!((inbox.accepted, inbox.rejected_total, inbox.incidents.len()), (0, 17, 0));

    assert_eq!(send(&pagerduty, &trigger("k")).await, 202);
    let moved = json!({ "routing_key": OTHER_KEY, "event_action": "resolve", "dedup_key": "k" });
    assert_eq!(send(&pagerduty, &moved).await, 400, "one service per dedup key");
}

#[tokio::test]
async fn answers_follow_the_script_and_then_are_usual_again() {
    let pagerduty = started().await;
    pagerduty.script([Reply::Status(429), Reply::Status(500), Reply::Close, Reply::TakeAndClose]);
    assert_eq!(send(&pagerduty, &trigger("k")).await, 429);
    assert_eq!(send(&pagerduty, &trigger("k")).await, 500);
    assert_eq!(pagerduty.inbox().accepted, 0);
    let body = || trigger("k").to_string().into_bytes();
    assert_eq!(post(&pagerduty, "/v2/enqueue", body()).await, None);
    assert_eq!(pagerduty.inbox().accepted, 0);
    assert_eq!(post(&pagerduty, "/v2/enqueue", body()).await, None);
    assert_eq!(pagerduty.inbox().accepted, 1, "taken, though nobody was told");
    pagerduty.script([Reply::Slow(Duration::from_millis(20))]);
    assert_eq!(send(&pagerduty, &resolve("k")).await, 202);
}

#[tokio::test]
async fn the_inbox_is_json_and_shows_what_should_not_be_there() {
    let pagerduty = started().await;
    let mut event = trigger("k");
    event["payload"]["custom_details"]["who"] = json!("sip:alice@example.com");
    event["payload"]["custom_details"]["number"] = json!("called +442071838750 twice");
    event["payload"]["custom_details"]["burn"] = json!("14.4x over 3600 s, +12 %");
    assert_eq!(send(&pagerduty, &event).await, 202);
    assert_eq!(pagerduty.inbox().private_texts.len(), 2);
    let change = json!({ "routing_key": KEY, "payload": { "summary": "reloaded" } });
    let body = change.to_string().into_bytes();
    assert_eq!(post(&pagerduty, "/v2/change/enqueue", body).await.expect("answered").0, 202);

    let stream = tokio::net::TcpStream::connect(pagerduty.address).await.expect("listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    let request = Request::get("/inbox").header("host", "x").body(Full::<Bytes>::default()).expect("valid");
    let body =
        sender.send_request(request).await.expect("answered").into_body().collect().await.expect("whole");
    let inbox: Value = serde_json::from_slice(&body.to_bytes()).expect("json");
    assert_eq!(inbox["incidents"][0]["state"], "triggered");
    assert_eq!((&inbox["incidents"][0]["triggers"], &inbox["changes"]), (&json!(1), &json!(1)));
    assert!(!inbox.to_string().contains(KEY), "routing keys are not shown");
}
