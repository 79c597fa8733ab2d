//! The desk as a whole, in paused time, in front of a real outbox whose target does not listen.

use std::path::Path;
use std::sync::Mutex;

use belfry_dispatch::{Config as Alertmanager, SilenceRequest, parse_matchers};
use belfry_notify::{Notify, TargetConfig};
use belfry_promql::{Labels, MemorySeries, Series, SeriesData, Value};
use belfry_ruler::parse_rules;
use belfry_signal::{Registry, SeriesBatch};
use tokio::time::sleep;

use super::*;

const NANOS: u64 = 1_000_000_000;
/// 2026-11-20 08:30 UTC.
const START: u64 = 1_795_163_417 * NANOS;

const RULES: &str = "
groups:
- name: g
  interval: 5s
  rules:
  - {record: 'down:count', expr: 'count(up == 0)'}
  - {alert: Down, expr: 'up == 0', for: 10s, labels: {severity: page}}
";

const ROUTES: &str = "
route: {receiver: hook, group_by: [alertname], group_wait: 5s, group_interval: 10s}
receivers:
- {name: hook, webhook_configs: [{url: 'http://127.0.0.1:9/'}]}
";

/// A store in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<MemorySeries>>);

impl Series for Memory {
    fn select(
        &self,
        matchers: &[belfry_promql::Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<SeriesData>, belfry_promql::Error> {
        self.0.lock().expect("free").select(matchers, from_ms, to_ms)
    }
}

/// What the store of series does with what rules find.
#[derive(Clone, Copy, PartialEq)]
enum Writes {
    Done,
    Never,
}

struct House {
    memory: Memory,
    registry: Registry,
    notify: NotifyHandle,
    desk: DeskHandle,
}

impl House {
    fn open(directory: &Path, memory: &Memory, after_seconds: u64) -> Self {
        Self::open_with(directory, memory, after_seconds, Writes::Done)
    }

    fn open_with(directory: &Path, memory: &Memory, after_seconds: u64, writes: Writes) -> Self {
        let registry = Registry::for_test();
        let routing = Routing {
            rule_files: vec![],
            alertmanager_file: None,
            interval: Duration::from_secs(30),
            evaluations_max: 2,
            rules_max: 100,
            alerts_per_rule_max: 100,
            series_per_rule_max: 100,
            samples_max: 100_000,
            alerts_max: 100,
            posted_max: 50,
            posted_ahead_max: Duration::from_secs(86_400),
            groups_max: 100,
            silences_max: 10,
            notices_max: 100,
            audit_max: 10,
            save_every: Duration::from_secs(10),
            posts_wait: Duration::from_secs(70),
            external_url: "https://belfry.example".into(),
        };
        let sources = Sources {
            groups: parse_rules("rules.yaml", RULES).expect("right"),
            alertmanager: Alertmanager::parse(ROUTES).expect("right"),
        };
        let notify_config = belfry_notify::Config {
            directory: directory.to_owned(),
            public_url: "https://belfry.example".into(),
            outbox_max: 64,
            rejected_max: 4,
            in_flight_max: 1,
            request_timeout: Duration::from_secs(3_600),
            backoff_min: Duration::from_secs(1_800),
            backoff_max: Duration::from_secs(3_600),
            services: vec![],
        };
        let targets: Vec<TargetConfig> = sources.targets();
        let notify = Notify::start_with_targets(notify_config, &targets, &registry).expect("starts");
        let written = memory.clone();
        let write: Write = Arc::new(move |batch: SeriesBatch| {
            if writes == Writes::Never {
                return Box::pin(std::future::pending());
            }
            let mut memory = written.0.lock().expect("free");
            for series in batch.series {
                for (unix_millis, value) in series.points {
                    let belfry_signal::PointValue::Float(value) = value else { continue };
                    memory.add(&Labels::from_sorted(series.labels.clone()), unix_millis, Value::Float(value));
                }
            }
            Box::pin(async { Ok(()) })
        });
        let read = memory.clone();
        let desk = start(Beginning {
            routing,
            sources,
            metrics: Some(Metrics {
                read: Arc::new(move |_, work| work(&read)),
                write,
                external_labels: vec![],
            }),
            notify: notify.clone(),
            store_directory: directory.to_owned(),
            signals: Signals::register(&registry),
            clock: Clock::paused(START + after_seconds * NANOS),
        });
        Self { memory: memory.clone(), registry, notify, desk: desk.expect("starts") }
    }

    /// Lets seconds pass in which an instance is up or down.
    async fn pass(&self, seconds: u64, up: f64) {
        // The engine of SLOs is not here; it says that nothing of its own is wrong.
        assert_eq!(self.desk.judge_slos(vec![]).await, Vec::<bool>::new());
        for _ in 0..seconds {
            let labels = Labels::from_pairs([("__name__", "up"), ("instance", "x")]);
            self.memory.0.lock().expect("free").add(&labels, self.desk.now_ms(), Value::Float(up));
            sleep(Duration::from_secs(1)).await;
            // The evaluation is on a thread of its own, which paused time does not wait for.
            for _ in 0..20 {
                tokio::task::yield_now().await;
                std::thread::yield_now();
            }
        }
    }

    fn enqueued(&self, action: &str) -> u64 {
        let samples = self.registry.samples();
        let of = samples.iter().filter(|sample| {
            sample.name == "notify_events_enqueued_total"
                && sample.labels.iter().any(|(name, value)| name == "action" && value == action)
        });
        of.map(|sample| sample.value as u64).sum()
    }

    async fn end(self) {
        assert_eq!(self.desk.drain(Duration::from_secs(5)).await, Vec::<String>::new());
        self.notify.drain(Duration::ZERO).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_is_wrong_is_told_once_and_its_end_once_through_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let memory = Memory::default();
    let house = House::open(directory.path(), &memory, 0);
    house.pass(20, 1.0).await;
    assert_eq!(house.enqueued("trigger"), 0);
    house.pass(40, 0.0).await;
    assert_eq!((house.enqueued("trigger"), house.enqueued("resolve")), (1, 0));
    let firing = house.desk.ask(|dispatch, now_ms| dispatch.alerts(now_ms).len()).await;
    assert_eq!(firing, Some(1));
    let recorded = memory.select(&[belfry_promql::Matcher::equal("__name__", "down:count")], 0, i64::MAX);
    assert!(!recorded.expect("there").is_empty(), "what rules record is written");
    house.end().await;
    // It goes on over a restart: not told again. Then it ends.
    let house = House::open(directory.path(), &memory, 70);
    house.pass(30, 0.0).await;
    assert_eq!((house.enqueued("trigger"), house.enqueued("resolve")), (0, 0));
    house.pass(60, 1.0).await;
    assert_eq!((house.enqueued("trigger"), house.enqueued("resolve")), (0, 1));
    house.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_silence_outlives_a_restart_and_keeps_the_noise_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let memory = Memory::default();
    let house = House::open(directory.path(), &memory, 0);
    let now_ms = house.desk.now_ms();
    let request = SilenceRequest {
        id: None,
        matchers: parse_matchers("alertname=Down").expect("right"),
        starts_at_ms: now_ms,
        ends_at_ms: now_ms + 3_600_000,
        created_by: "ann".into(),
        comment: "maintenance".into(),
    };
    let set =
        house.desk.change(move |dispatch, now_ms| (dispatch.set_silence(request, "s", now_ms), None)).await;
    assert!(matches!(set, handle::Changed::Saved(Ok(id)) if id == "s"));
    house.end().await;
    let house = House::open(directory.path(), &memory, 1);
    house.pass(60, 0.0).await;
    assert_eq!(house.enqueued("trigger"), 0);
    let muted = house.desk.ask(|dispatch, now_ms| dispatch.alerts(now_ms)[0].muted.silenced_by.clone()).await;
    assert_eq!(muted, Some(vec!["s".to_owned()]));
    house.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_fires_is_told_although_nothing_can_be_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    let house = House::open_with(directory.path(), &Memory::default(), 0, Writes::Never);
    house.pass(40, 0.0).await;
    assert_eq!(house.enqueued("trigger"), 1);
    assert!(house.registry.encode_text().contains("alerts_rule_results_unwritten_total"));
    let stragglers = house.desk.drain(Duration::from_secs(5)).await;
    assert_eq!(stragglers, ["alerts: results of 1 groups of rules were not written"]);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_for_a_while_is_said_and_needs_no_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let house = House::open(directory.path(), &Memory::default(), 0);
    house.pass(20, 1.0).await;
    let file = directory.path().join("routing.redb");
    belfry_ledger::failing::set(&file, true).expect("the switch");
    let now_ms = house.desk.now_ms();
    let request = SilenceRequest {
        id: None,
        matchers: parse_matchers("alertname=Up").expect("right"),
        starts_at_ms: now_ms,
        ends_at_ms: now_ms + 3_600_000,
        created_by: "ann".into(),
        comment: "maintenance".into(),
    };
    let set =
        house.desk.change(move |dispatch, now_ms| (dispatch.set_silence(request, "s", now_ms), None)).await;
    assert!(matches!(set, handle::Changed::Unsaved));
    house.pass(40, 0.0).await;
    assert_eq!(house.enqueued("trigger"), 0, "what is told is on disk first");
    belfry_ledger::failing::set(&file, false).expect("the switch");
    house.pass(5, 0.0).await;
    assert_eq!(house.enqueued("trigger"), 1);
    house.end().await;
    let house = House::open(directory.path(), &Memory::default(), 70);
    let silences = house.desk.ask(|dispatch, _| dispatch.silences().count()).await;
    assert_eq!(silences, Some(1));
    house.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_incident_whose_receiver_got_another_name_is_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let house = House::open(directory.path(), &Memory::default(), 0);
    house.pass(40, 0.0).await;
    assert_eq!((house.enqueued("trigger"), house.enqueued("resolve")), (1, 0));
    let sources = Sources {
        groups: parse_rules("rules.yaml", RULES).expect("right"),
        alertmanager: Alertmanager::parse(&ROUTES.replace(": hook,", ": other,")).expect("right"),
    };
    house.notify.set_targets(&sources.targets()).await.expect("right");
    house.desk.reload(sources).await;
    house.pass(20, 0.0).await;
    assert_eq!((house.enqueued("trigger"), house.enqueued("resolve")), (2, 1), "ended there, begun here");
    house.end().await;
}
