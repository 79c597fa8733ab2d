//! Objectives on metrics, from a store in memory to the outbox, in paused time.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use belfry_notify::{AlertName, Notify, NotifyHandle, ServiceConfig};
use belfry_promql::{Error, Matcher, MemorySeries, SeriesData};
use belfry_signal::Registry;
use http_body_util::BodyExt;
use tokio::time::sleep;

use super::*;
use crate::clock::Clock;
use crate::config::tests::config;
use crate::handle::{EngineDeps, EngineHandle, start_with};
use crate::status::{PageState, SloStatus};

/// 2026-11-20 08:30:17 UTC.
const START: u64 = 1_795_163_417;

const FILE: &str = "
apiVersion: openslo/v1
kind: SLO
metadata:
  name: carriers
  annotations:
    belfry/interval: 2s
    belfry/group-by: trunk
    belfry/groups: carrier-a, carrier-b
spec:
  service: trunks
  indicator:
    metadata: {name: answered}
    spec:
      ratioMetric:
        counter: true
        bad: {metricSource: {type: prometheus, spec: {query: 'trunk_calls_total{verdict=\"bad\"}'}}}
        total: {metricSource: {type: prometheus, spec: {query: trunk_calls_total}}}
  budgetingMethod: Occurrences
  timeWindow: [{duration: 12h, isRolling: true}]
  objectives: [{target: 0.999}]
";

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<MemorySeries>>);

impl Series for Shared {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error> {
        self.0.lock().expect("whole").select(matchers, from_ms, to_ms)
    }
}

struct House {
    store: Shared,
    registry: Registry,
    engine: EngineHandle,
    notify: NotifyHandle,
    now: u64,
    counts: [f64; 4],
}

impl House {
    fn open(directory: &Path, now: u64) -> Self {
        let file = directory.join("carriers.yaml");
        std::fs::write(&file, FILE).expect("written");
        std::fs::write(directory.join("key"), "0123456789abcdef0123456789abcdef").expect("written");
        let registry = Registry::for_test();
        let notify = belfry_notify::Config {
            directory: directory.to_owned(),
            public_url: "https://belfry.example".into(),
            outbox_max: 64,
            rejected_max: 4,
            in_flight_max: 1,
            request_timeout: Duration::from_secs(3_600),
            backoff_min: Duration::from_secs(1_800),
            backoff_max: Duration::from_secs(3_600),
            services: vec![ServiceConfig {
                name: "primary".into(),
                url: "http://127.0.0.1:9/v2/enqueue".into(),
                routing_key_file: Some(directory.join("key")),
                routing_key_env: None,
                journeys: None,
                back: None,
            }],
        };
        let notify = Notify::start(notify, &registry).expect("starts");
        let store = Shared::default();
        let read = store.clone();
        let metrics = Metrics {
            read: Arc::new(move |_, work| work(&read)),
            write: Arc::new(|_| Box::pin(async { Ok(()) })),
            external_labels: vec![],
        };
        let mut config = config(directory);
        config.slo_files = vec![file];
        let deps = EngineDeps {
            registry: registry.clone(),
            notify: notify.clone(),
            desk: None,
            metrics: Some(metrics),
        };
        let engine = start_with(config, deps, Clock::paused(now * 1_000_000_000)).expect("starts");
        Self { store, registry, engine, notify, now, counts: [0.0; 4] }
    }

    /// Lets seconds pass in which each carrier has ten calls, of which so many of the first one's fail.
    async fn pass(&mut self, seconds: u64, bad: f64) {
        for _ in 0..seconds {
            let new = [10.0 - bad, bad, 10.0, 0.0];
            for (count, new) in self.counts.iter_mut().zip(new) {
                *count += new;
            }
            let time = i64::try_from(self.now * 1_000).expect("small");
            let names =
                [("carrier-a", "good"), ("carrier-a", "bad"), ("carrier-b", "good"), ("+4930123", "good")];
            for ((trunk, verdict), count) in names.into_iter().zip(self.counts) {
                let labels = Labels::from_pairs([
                    ("__name__", "trunk_calls_total"),
                    ("trunk", trunk),
                    ("verdict", verdict),
                ]);
                self.store.0.lock().expect("whole").add(&labels, time, Value::Float(count));
            }
            self.wait(1).await;
        }
    }

    /// Lets seconds pass in which nobody counts.
    async fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        sleep(Duration::from_secs(seconds)).await;
    }

    fn slo(&self, place: &str) -> SloStatus {
        let status = self.engine.status();
        let found = status.slos.iter().find(|slo| slo.name == "carriers" && slo.region.as_str() == place);
        found.cloned().unwrap_or_else(|| panic!("{place} is not shown"))
    }

    fn metric(&self, series: &str) -> Option<String> {
        let text = self.registry.encode_text();
        text.lines().find_map(|line| line.strip_prefix(series).map(|value| value.trim().to_owned()))
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(axum::body::Body::from(body.to_owned()))
            .expect("a request");
        let service = hyper_util::service::TowerToHyperService::new(self.engine.router());
        let answer = hyper::service::Service::call(&service, request).await.expect("answered");
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.expect("whole").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_fails_is_a_page_of_its_own_and_nothing_else_leaves() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut house = House::open(directory.path(), START);
    assert!(house.engine.status().slos.is_empty() || !house.slo("carrier-a").is_blind, "it has just begun");
    house.pass(70, 0.0).await;
    let (a, b) = (house.slo("carrier-a"), house.slo("carrier-b"));
    assert_eq!((a.bad, b.bad), (0, 0));
    assert_eq!(a.good, b.good);
    assert!((660..=700).contains(&a.good), "exact, but for what came before the first look: {}", a.good);
    house.pass(20, 5.0).await;
    let status = house.engine.status();
    assert_eq!(status.pages.len(), 1, "{:?}", status.pages);
    let page = &status.pages[0];
    assert_eq!((page.alert, page.state), (AlertName::SloBudgetBurn, PageState::Triggered));
    assert_eq!(page.regions.iter().map(|place| place.as_str()).collect::<Vec<_>>(), ["carrier-a"]);
    assert!(!serde_json::to_string(&*status).expect("JSON").contains("4930123"), "a number is not a group");
    assert_eq!(house.slo("other").groups_beyond, 1);
    assert!(status.cells.iter().all(|cell| cell.region.as_str() != "carrier-a"), "the grid is of journeys");
    house.pass(120, 0.0).await;
    assert_eq!(house.engine.status().pages[0].state, PageState::Resolved);
    let told = house.notify.status();
    assert_eq!(told.services[0].waiting, 2, "the trigger and its resolve");
    // Nobody counts any more: the figures stand still, and it says so.
    house.wait(4).await;
    let before = house.slo("carrier-a");
    house.wait(240).await;
    let blind = house.slo("carrier-a");
    assert!(blind.is_blind && blind.good == before.good, "{blind:?}");
    assert_eq!(house.metric("alerts_slo_blind{slo=\"carriers\"}").as_deref(), Some("3"));
}

#[tokio::test(start_paused = true)]
async fn budgets_are_corrected_by_name_and_the_gate_follows() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut house = House::open(directory.path(), START);
    house.pass(10, 0.0).await;
    let from = house.now - 1;
    house.pass(60, 10.0).await;
    let to = house.now + 3;
    house.pass(10, 0.0).await;
    let (_, gate) = house.ask("GET", "/api/v1/slos/gate", "").await;
    assert_eq!(
        (gate["is_open"].as_bool(), gate["closed_by"][0]["region"].as_str()),
        (Some(false), Some("carrier-a"))
    );
    assert!(house.engine.status().changes.iter().any(|change| change.kind == "change_gate"));
    let wanted = format!(
        "{{\"slo\":\"carriers\",\"place\":\"carrier-a\",\"from\":{from},\"to\":{to},\"kind\":\"maintenance\",\
         \"author\":\"ann\",\"reason\":\"new trunk\"}}"
    );
    let (status, made) = house.ask("POST", "/api/v1/slos/corrections", &wanted).await;
    assert_eq!((status, made["id"].as_u64()), (200, Some(1)), "{made}");
    house.pass(2, 0.0).await;
    let corrected = house.slo("carrier-a");
    assert_eq!((corrected.bad, corrected.excluded_bad), (0, 600), "raw counts are kept beside it");
    assert_eq!(house.ask("GET", "/api/v1/slos/gate", "").await.1["is_open"].as_bool(), Some(true));
    house.engine.drain(Duration::from_secs(5)).await;
    house.notify.drain(Duration::ZERO).await;
    drop(house);
    // It survives a restart, and can be withdrawn.
    let mut house = House::open(directory.path(), START + 90);
    house.pass(3, 0.0).await;
    assert_eq!(house.slo("carrier-a").excluded_bad, 600);
    let (status, _) = house.ask("DELETE", "/api/v1/slos/corrections/1?author=bob", "").await;
    assert_eq!(status, 200);
    house.pass(2, 0.0).await;
    assert_eq!(house.slo("carrier-a").bad, 600);
    let (_, all) = house.ask("GET", "/api/v1/slos/corrections", "").await;
    assert_eq!(all["corrections"][0]["withdrawn"][0].as_str(), Some("bob"));
    for (body, status) in [(wanted.replace("carriers", "x"), 400), (wanted.replace("ann", ""), 400)] {
        assert_eq!(house.ask("POST", "/api/v1/slos/corrections", &body).await.0, status);
    }
    assert_eq!(house.ask("DELETE", "/api/v1/slos/corrections/9?author=bob", "").await.0, 404);
}
