//! The engine as a whole, in paused time, in front of a real outbox whose service does not listen: what the
//! engine handed over is what the outbox counts.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use belfry_notify::{AlertName, Notify, ServiceConfig};
use belfry_signal::{Cause, Journey, Pii, Room};
use http_body_util::BodyExt;
use tokio::time::sleep;

use super::*;
use crate::config::tests::config;
use crate::handle::{EngineHandle, start_with};
use crate::status::{CellState, PageState};

/// 2026-11-20 08:30 UTC.
const START: u64 = 1_795_163_417 * NANOS;

struct House {
    calls: AtomicU64,
    registry: Registry,
    notify: NotifyHandle,
    engine: EngineHandle,
}

fn notify_config(directory: &Path) -> belfry_notify::Config {
    std::fs::write(directory.join("key"), "0123456789abcdef0123456789abcdef").expect("written");
    belfry_notify::Config {
        directory: directory.to_owned(),
        public_url: "https://belfry.example".into(),
        outbox_max: 64,
        rejected_max: 4,
        in_flight_max: 1,
        request_timeout: Duration::from_secs(3_600),
        backoff_min: Duration::from_secs(1_800),
        backoff_max: Duration::from_secs(3_600),
        services: vec![ServiceConfig {
            back: None,
            name: "primary".into(),
            // The discard port: nothing listens there.
            url: "http://127.0.0.1:9/v2/enqueue".into(),
            routing_key_file: Some(directory.join("key")),
            routing_key_env: None,
            journeys: None,
        }],
    }
}

impl House {
    /// Opens the house on what lies in the directory, at a time after the start.
    fn open(directory: &Path, config: Config, after_seconds: u64) -> Self {
        let registry = Registry::for_test();
        let notify = Notify::start(notify_config(directory), &registry).expect("starts");
        let deps =
            EngineDeps { registry: registry.clone(), notify: notify.clone(), desk: None, metrics: None };
        let clock = Clock::paused(START + after_seconds * NANOS);
        let engine = start_with(config, deps, clock).expect("starts");
        Self { calls: AtomicU64::new(0), registry, notify, engine }
    }

    /// Lets seconds pass in which every region has this many good and bad calls.
    async fn pass(&self, seconds: u64, regions: &[&str], good: u64, bad: u64) {
        for _ in 0..seconds {
            for name in regions {
                let region = Region::configured(name).expect("plain");
                for _ in 0..good {
                    self.registry.journeys().good(Journey::CallSetup, &region);
                }
                for _ in 0..bad {
                    let call = self.calls.fetch_add(1, Ordering::Relaxed);
                    let call_id = Some(Pii::new(format!("{name}-{call}@host")));
                    let journeys = self.registry.journeys();
                    journeys.bad(Journey::CallSetup, &region, Room::Core, Cause::ServerError, call_id);
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// How many triggers and resolves the outbox took in this process.
    fn taken(&self) -> (u64, u64) {
        let text = self.registry.encode_text();
        let count = |action: &str| {
            let series = format!("notify_events_enqueued_total{{action=\"{action}\",service=\"primary\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned));
            line.map_or(0, |count| count.parse().expect("a number"))
        };
        (count("trigger"), count("resolve"))
    }

    fn state(&self, region: &str) -> CellState {
        let status = self.engine.status();
        let cell = status
            .cells
            .iter()
            .find(|cell| cell.journey == Journey::CallSetup && cell.region.as_str() == region);
        cell.expect("shown").state
    }

    async fn json(&self, path: &str) -> serde_json::Value {
        use axum::http::Request;
        let request = Request::get(path).body(axum::body::Body::empty()).expect("a request");
        let service = hyper_util::service::TowerToHyperService::new(self.engine.router());
        let answer = hyper::service::Service::call(&service, request).await.expect("answers");
        assert_eq!(answer.status(), 200, "{path}");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&body).expect("JSON")
    }
}

#[tokio::test(start_paused = true)]
async fn the_demos_fault_is_paged_within_8_seconds_and_resolved_soon_after_its_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let house = House::open(directory.path(), config(directory.path()), 0);
    house.pass(20, &["eu"], 2, 0).await;
    assert_eq!((house.taken(), house.state("eu")), ((0, 0), CellState::Ok));
    let mut seconds_to_trigger = 0;
    for second in 1..=25 {
        house.pass(1, &["eu"], 0, 2).await;
        if house.taken().0 == 1 && seconds_to_trigger == 0 {
            seconds_to_trigger = second;
        }
    }
    assert!((1..=8).contains(&seconds_to_trigger), "{seconds_to_trigger} s to trigger");
    assert_eq!(house.state("eu"), CellState::Critical);
    let mut seconds_to_resolve = 0;
    for second in 1..=45 {
        house.pass(1, &["eu"], 2, 0).await;
        if house.taken().1 == 1 && seconds_to_resolve == 0 {
            seconds_to_resolve = second;
        }
    }
    assert!((1..=12).contains(&seconds_to_resolve), "{seconds_to_resolve} s to resolve");
    assert_eq!(house.taken(), (1, 1));
    let status = house.engine.status();
    let page = &status.pages[0];
    assert_eq!(
        (page.alert, page.room, page.state),
        (AlertName::CallSetupBudgetBurn, Room::Core, PageState::Resolved)
    );
    assert_eq!(page.causes[0].0, Cause::ServerError);
    assert_eq!(page.examples, 3);
    let example = house.engine.example(&page.id, 1).expect("kept");
    assert!(example.reveal().starts_with("eu-"), "{}", example.reveal());
    assert_eq!(house.engine.example(&page.id, 4), None);
    assert_eq!(status.watchdog.unix_nanos, status.unix_nanos);
    assert!(status.watchdog.evaluations >= 90);
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_all_regions_is_one_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let house = House::open(directory.path(), config(directory.path()), 0);
    let all = ["eu", "us", "apac"];
    house.pass(20, &all, 2, 0).await;
    house.pass(25, &all, 0, 2).await;
    house.pass(45, &all, 2, 0).await;
    assert_eq!(house.taken(), (1, 1));
    assert_eq!(house.engine.status().pages[0].regions.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_a_fault_neither_pages_again_nor_forgets_the_resolve() {
    let directory = tempfile::tempdir().expect("a directory");
    {
        let house = House::open(directory.path(), config(directory.path()), 0);
        house.pass(20, &["eu"], 2, 0).await;
        house.pass(10, &["eu"], 0, 2).await;
        assert_eq!(house.taken(), (1, 0));
        assert_eq!(house.engine.drain(Duration::from_secs(5)).await, Vec::<String>::new());
        house.notify.drain(Duration::ZERO).await;
    }
    let house = House::open(directory.path(), config(directory.path()), 60);
    house.pass(10, &["eu"], 0, 2).await;
    assert_eq!(house.taken(), (0, 0), "the page goes on");
    assert_eq!(house.state("eu"), CellState::Critical);
    house.pass(20, &["eu"], 2, 0).await;
    assert_eq!(house.taken(), (0, 1));
    let slo = &house.engine.status().slos[0];
    assert_eq!((slo.good, slo.bad), (80, 40), "counts survive");
}

/// The files as they are on disk now, without anybody closing them: what a crash leaves.
fn crashed_copy(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for name in ["alerts.redb", "outbox.redb"] {
        std::fs::copy(directory.join(name), copy.path().join(name)).expect("copied");
    }
    copy
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_a_fault_neither_pages_again_nor_forgets_the_resolve() {
    let directory = tempfile::tempdir().expect("a directory");
    let house = House::open(directory.path(), config(directory.path()), 0);
    house.pass(20, &["eu"], 2, 0).await;
    house.pass(15, &["eu"], 0, 2).await;
    assert_eq!(house.taken(), (1, 0));
    let copy = crashed_copy(directory.path());
    let house = House::open(copy.path(), config(copy.path()), 36);
    house.pass(10, &["eu"], 0, 2).await;
    assert_eq!(house.taken(), (0, 0), "the outbox recognises the page");
    house.pass(20, &["eu"], 2, 0).await;
    assert_eq!(house.taken(), (0, 1));
    let slo = &house.engine.status().slos[0];
    assert!(slo.bad >= 30, "at most ten seconds of counts are lost: {}", slo.bad);
}

#[tokio::test(start_paused = true)]
async fn a_page_whose_slo_left_the_rules_is_resolved_at_the_next_start() {
    let directory = tempfile::tempdir().expect("a directory");
    {
        let house = House::open(directory.path(), config(directory.path()), 0);
        house.pass(10, &["eu"], 0, 2).await;
        assert_eq!(house.taken(), (1, 0));
        house.engine.drain(Duration::from_secs(5)).await;
        house.notify.drain(Duration::ZERO).await;
    }
    let rules =
        include_str!("../../../rules/slos.demo.toml").replace("name = \"call_setup\"", "name = \"calls\"");
    let path = directory.path().join("slos.toml");
    std::fs::write(&path, rules).expect("written");
    let config = Config { rules: path.display().to_string(), ..config(directory.path()) };
    let house = House::open(directory.path(), config, 20);
    house.pass(2, &[], 0, 0).await;
    assert_eq!(house.taken(), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_the_outbox_refuses_is_offered_until_it_is_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let house = House::open(directory.path(), config(directory.path()), 0);
    house.notify.drain(Duration::ZERO).await;
    house.pass(10, &["eu"], 0, 2).await;
    assert_eq!(house.taken(), (0, 0));
    assert!(house.registry.encode_text().contains("alerts_pages_undelivered 1"));
    assert_eq!(
        house.engine.drain(Duration::from_secs(5)).await,
        ["alerts: 1 messages of pages wait for the outbox"]
    );
    drop(house);
    let house = House::open(directory.path(), config(directory.path()), 20);
    house.pass(2, &["eu"], 0, 2).await;
    assert_eq!(house.taken(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn changes_are_kept_newest_first_and_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let house = House::open(directory.path(), config(directory.path()), 0);
    for number in 0..6 {
        house.engine.record_change(Change {
            unix_nanos: number,
            kind: "fault",
            text: format!("change {number}"),
        });
    }
    house.pass(2, &[], 0, 0).await;
    let changes: Vec<u64> = house.engine.status().changes.iter().map(|change| change.unix_nanos).collect();
    assert_eq!(changes, [5, 4, 3, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_apis_show_slos_pages_and_changes_and_no_call_id() {
    let directory = tempfile::tempdir().expect("a directory");
    let house = House::open(directory.path(), config(directory.path()), 0);
    house.engine.record_change(Change { unix_nanos: 7, kind: "fault", text: "core-errors on".into() });
    house.pass(10, &["eu"], 0, 2).await;
    let slos = house.json("/api/v1/slos").await;
    assert_eq!(slos["slos"][0]["name"], "call_setup");
    assert_eq!(slos["slos"][0]["objective_ppm"], 999_000);
    assert_eq!(slos["slos"][0]["pairs"][0]["long"]["seconds"], 60);
    let pages = house.json("/api/v1/pages").await;
    assert_eq!(pages["pages"][0]["state"], "triggered");
    assert_eq!(pages["pages"][0]["causes"][0]["cause"], "server_error");
    assert_eq!(house.json("/api/v1/changes").await["changes"][0]["text"], "core-errors on");
    let cells = house.json("/api/v1/cells").await;
    assert_eq!(cells["cells"][0]["state"], "not_deployed");
    for text in [slos.to_string(), pages.to_string(), cells.to_string()] {
        assert!(!text.contains("@host"), "{text}");
    }
}
