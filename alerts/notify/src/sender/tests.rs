//! Notification as a whole, with a service that answers by a script, in paused time.

use std::sync::Mutex;

use belfry_signal::Registry;
use serde_json::Value;

use super::*;
use crate::back::{Place, Signature, StandingState, WebhookError};
use crate::client::Get;
use crate::config::BackConfig;
use crate::event::tests::page;
use crate::handle::{NotifyHandle, start_both, start_with};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Stands for PagerDuty: validates every request as the real one does, and answers by a script.
#[derive(Default)]
struct Pager {
    script: Mutex<VecDeque<(Outcome, Duration)>>,
    received: Mutex<Vec<(Instant, String, String)>>,
    open: Mutex<BTreeMap<String, u32>>,
}

impl Pager {
    fn answers(outcomes: impl IntoIterator<Item = Outcome>) -> Arc<Self> {
        let script = outcomes.into_iter().map(|outcome| (outcome, Duration::from_millis(50))).collect();
        Arc::new(Self { script: Mutex::new(script), ..Self::default() })
    }

    fn post(self: &Arc<Self>) -> Post {
        let pager = Arc::clone(self);
        Arc::new(move |to, body| {
            let pager = Arc::clone(&pager);
            Box::pin(async move {
                let scripted = pager.script.lock().expect("free").pop_front();
                let (outcome, takes) = scripted.unwrap_or((Outcome::Accepted, Duration::from_millis(50)));
                tokio::time::sleep(takes).await;
                pager.receive(&to.url.to_string(), &body, &outcome);
                outcome
            })
        })
    }

    fn receive(&self, to: &str, body: &[u8], outcome: &Outcome) {
        assert!(body.len() <= 512_000);
        let event: Value = serde_json::from_slice(body).expect("JSON");
        assert_eq!(event["routing_key"], KEY);
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let (action, key) = (text(&event["event_action"]), text(&event["dedup_key"]));
        assert!(key.len() <= 255);
        if action == "trigger" {
            let payload = &event["payload"];
            assert!(text(&payload["summary"]).chars().count() <= 1_024);
            assert!(["critical", "error", "warning", "info"].contains(&text(&payload["severity"]).as_str()));
            assert_eq!(payload["source"], "site-1");
        } else {
            assert!(action == "resolve" || action == "acknowledge", "{action}");
        }
        self.received.lock().expect("free").push((Instant::now(), action.clone(), key.clone()));
        if *outcome == Outcome::Accepted {
            let mut open = self.open.lock().expect("free");
            let incidents = open.entry(format!("{to} {key}")).or_default();
            match action.as_str() {
                "trigger" => *incidents += 1,
                "resolve" => *incidents = incidents.saturating_sub(1),
                _ => {}
            }
            assert!(*incidents <= 1, "at most one open incident per key");
        }
    }

    fn actions(&self) -> Vec<String> {
        self.received.lock().expect("free").iter().map(|(_, action, _)| action.clone()).collect()
    }
}

fn config(directory: &std::path::Path) -> Config {
    std::fs::write(directory.join("routing.key"), KEY).expect("written");
    let mut config = crate::config::tests::config(directory);
    config.services.truncate(1);
    config
}

async fn start(directory: &std::path::Path, pager: &Arc<Pager>) -> NotifyHandle {
    start_with(config(directory), &Registry::for_test(), pager.post()).expect("starts")
}

fn trigger(slo: &str, started: u64) -> Notification {
    Notification::Trigger(Box::new(page(slo, started)))
}

fn resolve(slo: &str, started: u64) -> Notification {
    let page = page(slo, started);
    Notification::Resolve { id: page.id, dedup_key: page.dedup_key }
}

fn retry(reason: RetryReason) -> Outcome {
    Outcome::Retry { reason, after: None }
}

async fn settle(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_resolve_follows_its_trigger_however_often_that_is_tried() {
    let directory = tempfile::tempdir().expect("a directory");
    let pager = Pager::answers([retry(RetryReason::ServerError), retry(RetryReason::Timeout)]);
    let notify = start(directory.path(), &pager).await;
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    notify.enqueue(resolve("call_setup", 1)).await.expect("taken");
    settle(60).await;
    assert_eq!(pager.actions(), ["trigger", "trigger", "trigger", "resolve"]);
    assert_eq!(notify.status().services[0].waiting, 0);
    assert_eq!(notify.status().services[0].accepted, 2);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_fails_does_not_hold_up_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let pager = Pager::answers(std::iter::once(retry(RetryReason::Network)));
    let notify = start(directory.path(), &pager).await;
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    tokio::time::sleep(Duration::from_millis(100)).await;
    notify.enqueue(trigger("register", 1)).await.expect("taken");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(notify.status().services[0].accepted, 1, "register went out while call_setup pauses");
    settle(5).await;
    assert_eq!(notify.status().services[0].accepted, 2);
}

#[tokio::test(start_paused = true)]
async fn pauses_double_with_jitter_up_to_the_longest() {
    let directory = tempfile::tempdir().expect("a directory");
    let pager = Pager::answers(vec![retry(RetryReason::ServerError); 12]);
    let notify = start(directory.path(), &pager).await;
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    settle(1_000).await;
    let times: Vec<Instant> = pager.received.lock().expect("free").iter().map(|(at, _, _)| *at).collect();
    assert_eq!(times.len(), 13);
    for (failures, pair) in times.windows(2).enumerate() {
        let pause = (pair[1] - pair[0]).as_secs_f64() - 0.05;
        let full = f64::from(1_u32 << failures.min(6)).min(60.0);
        assert!(
            (full / 2.0 - 0.01..=full + 0.01).contains(&pause),
            "pause {failures} took {pause} s of {full}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_limits_its_rate_gets_the_pause_it_asks_for_from_all_lanes() {
    let directory = tempfile::tempdir().expect("a directory");
    let limited = Outcome::Retry { reason: RetryReason::RateLimited, after: Some(Duration::from_secs(120)) };
    let pager = Pager::answers([limited]);
    let notify = start(directory.path(), &pager).await;
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    settle(1).await;
    notify.enqueue(trigger("register", 1)).await.expect("taken");
    settle(110).await;
    assert_eq!(pager.actions().len(), 1);
    assert_eq!(notify.status().services[0].last_failure, Some("rate_limited"));
    settle(20).await;
    assert_eq!(pager.actions().len(), 3);
    assert_eq!(notify.status().services[0].last_failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_event_is_kept_visible_and_never_tried_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let pager = Pager::answers([Outcome::Rejected { status: 400, message: "bad severity".into() }]);
    let notify = start(directory.path(), &pager).await;
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    settle(600).await;
    assert_eq!(pager.actions(), ["trigger"]);
    let status = notify.status();
    assert_eq!(status.services[0].waiting, 0);
    assert_eq!((status.rejected[0].status, status.rejected[0].message.as_str()), (400, "bad severity"));
    drop(notify);
    settle(1).await;
    let notify = start(directory.path(), &pager).await;
    settle(60).await;
    assert_eq!(pager.actions(), ["trigger"], "nor after a restart");
    assert_eq!(notify.status().rejected.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_sent_after_a_restart_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let silent = Pager::answers(vec![retry(RetryReason::Network); 100]);
    let notify = start(directory.path(), &silent).await;
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    notify.enqueue(resolve("call_setup", 1)).await.expect("taken");
    notify.enqueue(trigger("call_setup", 2)).await.expect("taken");
    let stragglers = notify.drain(Duration::from_secs(2)).await;
    assert_eq!(stragglers, ["notify: 3 events for primary stay in the outbox"]);
    assert!(matches!(notify.enqueue(trigger("call_setup", 3)).await, Err(Error::Closed)));
    drop(notify);

    let pager = Pager::answers([]);
    let notify = start(directory.path(), &pager).await;
    notify.enqueue(trigger("call_setup", 1)).await.expect("a repetition is harmless");
    settle(5).await;
    assert_eq!(pager.actions(), ["trigger", "resolve", "trigger"]);
    assert_eq!(notify.drain(Duration::from_secs(1)).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_full_outbox_refuses_and_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let pager = Pager::answers(vec![retry(RetryReason::Network); 100]);
    let mut config = config(directory.path());
    config.outbox_max = 2;
    let registry = Registry::for_test();
    let notify = start_with(config, &registry, pager.post()).expect("starts");
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    notify.enqueue(trigger("register", 1)).await.expect("taken");
    assert!(matches!(notify.enqueue(trigger("edge_http", 1)).await, Err(Error::Full { entries: 2 })));
    assert!(registry.encode_text().contains("notify_outbox_refusals_total 1"));
    notify.enqueue(resolve("call_setup", 1)).await.expect("an end has room");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_full_keeps_nothing_from_another() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("routing.key"), KEY).expect("written");
    let mut config = crate::config::tests::config(directory.path());
    config.outbox_max = 1;
    for (at, service) in config.services.iter_mut().enumerate() {
        service.journeys = None;
        service.url = format!("http://127.0.0.1:9/{at}");
    }
    // The first event of each service fails; then one of them is accepted, the other is not for a long time.
    let pager = Pager::answers([retry(RetryReason::Network), Outcome::Accepted]);
    let notify = start_with(config, &Registry::for_test(), pager.post()).expect("starts");
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    tokio::time::sleep(Duration::from_millis(60)).await;
    let waiting = |notify: &NotifyHandle| {
        let status = notify.status();
        status.services.iter().map(|service| (service.waiting, service.accepted)).collect::<Vec<_>>()
    };
    assert_eq!(waiting(&notify), [(1, 0), (0, 1)]);
    assert!(matches!(notify.enqueue(trigger("register", 1)).await, Err(Error::Full { entries: 1 })));
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(waiting(&notify)[1], (0, 2), "the other was told");
    settle(10).await;
    notify.enqueue(trigger("register", 1)).await.expect("there is room, and the other is not told twice");
    settle(10).await;
    assert_eq!(waiting(&notify), [(0, 2), (0, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_for_a_while_loses_nothing_and_needs_no_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("outbox.redb");
    let pager = Pager::answers([]);
    let notify = start(directory.path(), &pager).await;
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    // It fails before the event is accepted, so that this cannot be noted.
    belfry_ledger::failing::set(&file, true).expect("the switch");
    settle(5).await;
    assert_eq!(pager.actions(), ["trigger"]);
    assert!(matches!(notify.enqueue(resolve("call_setup", 1)).await, Err(Error::Store(_))));
    assert!(matches!(notify.enqueue(trigger("register", 1)).await, Err(Error::Store(_))));
    settle(5).await;
    belfry_ledger::failing::set(&file, false).expect("the switch");
    notify.enqueue(resolve("call_setup", 1)).await.expect("taken");
    notify.enqueue(trigger("register", 1)).await.expect("taken");
    settle(5).await;
    let mut actions = pager.actions();
    actions.sort();
    assert_eq!(actions, ["resolve", "trigger", "trigger"], "each once");
    drop(notify);
    settle(1).await;
    let notify = start(directory.path(), &pager).await;
    settle(5).await;
    assert_eq!(
        (pager.actions().len(), notify.status().services[0].waiting),
        (3, 0),
        "and nothing is left over"
    );
}

#[tokio::test(start_paused = true)]
async fn a_service_hears_of_its_journeys_only_and_gets_their_resolves() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("routing.key"), KEY).expect("written");
    let pager = Pager::answers([]);
    let config = crate::config::tests::config(directory.path());
    let notify = start_with(config, &Registry::for_test(), pager.post()).expect("starts");
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    notify.enqueue(resolve("call_setup", 1)).await.expect("taken");
    settle(2).await;
    let accepted: Vec<u64> = notify.status().services.iter().map(|service| service.accepted).collect();
    assert_eq!(accepted, [2, 0], "the media team has nothing to do with calls");
}

#[tokio::test(start_paused = true)]
async fn an_event_for_a_service_that_left_the_configuration_is_shown_as_rejected() {
    let directory = tempfile::tempdir().expect("a directory");
    let silent = Pager::answers(vec![retry(RetryReason::Network); 100]);
    let notify = start(directory.path(), &silent).await;
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    notify.drain(Duration::ZERO).await;
    drop(notify);
    let mut config = config(directory.path());
    config.services[0].name = "secondary".into();
    let notify = start_with(config, &Registry::for_test(), silent.post()).expect("starts");
    settle(1).await;
    let status = notify.status();
    assert_eq!((status.rejected[0].service.as_str(), status.rejected[0].status), ("primary", 0));
    assert_eq!(status.services[0].waiting, 0);
}

const SECRET: &str = "webhook-secret";

/// With webhooks and looks.
fn followed(directory: &std::path::Path, pager: &Arc<Pager>, get: &Get) -> NotifyHandle {
    let mut config = config(directory);
    std::fs::write(directory.join("secrets"), format!("an-older-one\n{SECRET}\n")).expect("written");
    std::fs::write(directory.join("token"), "rest-token").expect("written");
    config.services[0].back = Some(BackConfig {
        webhook_secrets_file: Some(directory.join("secrets")),
        webhook_secrets_env: None,
        rest_url: "http://127.0.0.1:9/api".into(),
        rest_token_file: Some(directory.join("token")),
        rest_token_env: None,
        look_every: Duration::from_secs(300),
        looks_max: 2,
    });
    assert_eq!(config.check(), []);
    start_both(config, &Registry::for_test(), pager.post(), get).expect("starts")
}

fn silent() -> Get {
    Arc::new(|_| Box::pin(async { None }))
}

/// A time so many seconds from now, as PagerDuty writes it.
fn time_in(seconds: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string()
}

fn hook(kind: &str, dedup_key: &str, seconds: i64) -> (String, String) {
    use hmac::{Hmac, KeyInit, Mac};
    let body = serde_json::json!({ "event": {
        "id": "01", "event_type": kind, "resource_type": "incident", "occurred_at": time_in(seconds),
        "agent": { "summary": "Ann" }, "data": { "type": "incident", "incident_key": dedup_key },
    }});
    let body = body.to_string();
    let mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    let signature = hex::encode(mac.chain_update(body.as_bytes()).finalize().into_bytes());
    (format!("v1={signature}"), body)
}

fn standings(notify: &NotifyHandle) -> Vec<(String, StandingState, Option<String>, Place)> {
    let status = notify.status();
    let shown = |standing: &Standing| {
        let by = standing.by.clone().map(belfry_signal::Pii::into_inner);
        (standing.service.clone(), standing.state, by, standing.place)
    };
    status.standings.iter().map(shown).collect()
}

#[tokio::test(start_paused = true)]
async fn what_people_do_at_the_service_comes_back_and_outlives_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let pager = Pager::answers([]);
    let notify = followed(directory.path(), &pager, &silent());
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    let key = page("call_setup", 1).dedup_key;
    let post = async |notify: &NotifyHandle, kind: &str, key: &str, seconds: i64| {
        let (signature, body) = hook(kind, key, seconds);
        notify.webhook(Signature(&signature), body.as_bytes()).await
    };
    let primary =
        |state, by: Option<&str>, place| vec![("primary".to_owned(), state, by.map(str::to_owned), place)];
    assert_eq!(standings(&notify), primary(StandingState::Triggered, None, Place::Here));
    post(&notify, "incident.acknowledged", key.as_str(), 30).await.expect("taken");
    let acknowledged = primary(StandingState::Acknowledged, Some("Ann"), Place::Service);
    assert_eq!(standings(&notify), acknowledged);
    // Late, of nobody, unreadable, or not signed: all of that changes nothing.
    post(&notify, "incident.unacknowledged", key.as_str(), 20).await.expect("late");
    post(&notify, "incident.acknowledged", "feed", 50).await.expect("not ours");
    post(&notify, "incident.annotated", key.as_str(), 50).await.expect("no standing");
    let (signature, body) = hook("incident.resolved", key.as_str(), 60);
    let forged = notify.webhook(Signature(&signature), body.replace("resolved", "reopened").as_bytes()).await;
    assert_eq!(forged, Err(WebhookError::Signature));
    assert_eq!(standings(&notify), acknowledged);
    drop(notify);
    settle(1).await;
    let notify = followed(directory.path(), &pager, &silent());
    settle(1).await;
    assert_eq!(standings(&notify), acknowledged);
    notify.webhook(Signature(&signature), body.as_bytes()).await.expect("taken");
    assert_eq!(standings(&notify), primary(StandingState::Resolved, Some("Ann"), Place::Service));
    notify.enqueue(resolve("call_setup", 1)).await.expect("taken");
    settle(2).await;
    assert_eq!(
        (standings(&notify), pager.actions()),
        (vec![], vec!["trigger".to_owned(), "resolve".to_owned()])
    );
}

#[tokio::test(start_paused = true)]
async fn what_somebody_here_says_is_told_to_the_service_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let pager = Pager::answers([]);
    let notify = followed(directory.path(), &pager, &silent());
    notify.enqueue(trigger("call_setup", 1)).await.expect("taken");
    let id = page("call_setup", 1).id.to_string();
    for _ in 0..2 {
        assert!(notify.acknowledge(&id, "Bob", "on it", true, false).await.expect("written"));
    }
    assert!(!notify.acknowledge("feed", "Bob", "", true, false).await.expect("asked"), "nobody knows it");
    settle(2).await;
    assert_eq!(pager.actions(), ["trigger", "acknowledge"]);
    assert!(
        standings(&notify).iter().all(|(_, state, by, _)| {
            (*state, by.as_deref()) == (StandingState::Acknowledged, Some("Bob"))
        })
    );
    notify.enqueue(resolve("call_setup", 1)).await.expect("taken");
    settle(2).await;
    assert_eq!((standings(&notify), pager.actions().len()), (vec![], 3));
    // A page that nobody was told of is acknowledged here alone.
    assert!(notify.acknowledge("0123456789abcdef", "Bob", "", true, true).await.expect("written"));
    assert_eq!(standings(&notify).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_no_webhook_said_is_seen_by_looking() {
    let directory = tempfile::tempdir().expect("a directory");
    let pager = Pager::answers([]);
    // What the API would say, by key.
    let incidents: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let get: Get = {
        let (incidents, asked) = (incidents.clone(), asked.clone());
        Arc::new(move |from| {
            assert_eq!(from.authorization.expect("a login"), "Token token=rest-token");
            let url = from.url.to_string();
            let key = url.strip_prefix("http://127.0.0.1:9/api/incidents?incident_key=").expect("the API");
            let key = key.split('&').next().expect("one").to_owned();
            asked.lock().expect("free").push(key.clone());
            let status = incidents.lock().expect("free").get(&key).cloned();
            Box::pin(async move {
                let incident = status.map(|status| serde_json::json!({
                    "status": status, "last_status_change_at": time_in(30), "last_status_change_by": { "summary": "Ann" },
                }));
                Some(serde_json::json!({ "incidents": Vec::from_iter(incident) }).to_string().into())
            })
        })
    };
    let notify = followed(directory.path(), &pager, &get);
    for slo in ["call_setup", "register", "edge_http"] {
        notify.enqueue(trigger(slo, 1)).await.expect("taken");
    }
    let keys = ["call_setup", "register", "edge_http"].map(|slo| page(slo, 1).dedup_key.as_str().to_owned());
    for key in &keys {
        incidents.lock().expect("free").insert(key.clone(), "acknowledged".into());
    }
    settle(301).await;
    let acknowledged = |notify: &NotifyHandle| {
        standings(notify).iter().filter(|(_, state, ..)| *state == StandingState::Acknowledged).count()
    };
    assert_eq!(acknowledged(&notify), 2, "two in one look");
    settle(300).await;
    assert_eq!(acknowledged(&notify), 3, "the third has its turn");
    let asked: Vec<String> = asked.lock().expect("free").clone();
    assert!(keys.iter().all(|key| asked.contains(key)));
}
