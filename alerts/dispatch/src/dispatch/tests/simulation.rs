//! Thousands of incidents with crashes, a receiver that is cut off and clocks that jump: the contract holds.

use std::collections::{BTreeMap, HashSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::dispatch::*;
use crate::matchers::parse_matchers;
use crate::notice::Act;

const FILE: &str = "
route:
  receiver: a
  group_by: [alertname]
  group_wait: 10s
  group_interval: 30s
  repeat_interval: 300s
  routes:
  - {matchers: ['instance=~\"[0-3]\"'], receiver: b, group_by: ['...'], continue: true}
receivers:
- {name: a, webhook_configs: [{url: 'http://a'}]}
- {name: b, webhook_configs: [{url: 'http://b'}]}
inhibit_rules:
- {source_matchers: ['alertname=\"A0\"'], target_matchers: ['alertname=~\"A[1-3]\"']}
";

/// What survives a crash: what was written, and the outbox, which is written for itself.
#[derive(Default)]
struct Disk {
    alerts: BTreeMap<String, AlertRow>,
    groups: BTreeMap<String, GroupRow>,
    silences: BTreeMap<String, Silence>,
    notices: BTreeMap<u64, Notice>,
    /// Incidents as the outbox knows them: numbers that were taken, and whether it is open.
    incidents: BTreeMap<String, (HashSet<u64>, bool)>,
    triggers: BTreeMap<String, usize>,
    resolves: BTreeMap<String, usize>,
}

impl Disk {
    fn write(&mut self, changes: Changes) {
        fn put<K: Ord, V>(table: &mut BTreeMap<K, V>, rows: Vec<(K, Option<V>)>) {
            for (key, row) in rows {
                match row {
                    Some(row) => drop(table.insert(key, row)),
                    None => drop(table.remove(&key)),
                }
            }
        }
        put(&mut self.alerts, changes.alerts);
        put(&mut self.groups, changes.groups);
        put(&mut self.silences, changes.silences);
        put(&mut self.notices, changes.notices);
    }

    /// The outbox takes a notice, once.
    fn take(&mut self, notice: &Notice) {
        let (numbers, is_open) = self.incidents.entry(notice.incident.clone()).or_default();
        if !numbers.insert(notice.number) {
            return;
        }
        match notice.act {
            Act::Trigger => {
                assert!(notice.number == 0 || *is_open, "a trigger after the resolve of its incident");
                *is_open = true;
                *self.triggers.entry(notice.incident.clone()).or_default() += 1;
            }
            Act::Resolve => {
                assert!(*is_open, "a resolve without a trigger");
                *is_open = false;
                *self.resolves.entry(notice.incident.clone()).or_default() += 1;
            }
        }
    }

    fn restored(&self) -> Restored {
        Restored {
            alerts: self.alerts.values().cloned().collect(),
            groups: self.groups.values().cloned().collect(),
            silences: self.silences.values().cloned().collect(),
            notices: self.notices.values().cloned().collect(),
        }
    }
}

struct World {
    random: StdRng,
    disk: Disk,
    dispatch: Dispatch,
    config: Arc<Config>,
    /// What is wrong in truth.
    wrong: BTreeSet<(usize, usize)>,
    now_ms: i64,
    is_cut_off: bool,
    silences: u64,
}

fn bounds() -> Bounds {
    Bounds {
        alerts_max: 1_000,
        posted_max: 1_000,
        posted_ahead_max_ms: 86_400_000,
        groups_max: 1_000,
        silences_max: 10_000,
        notices_max: 1_000,
        external_url: String::new(),
        own_ways: vec![],
    }
}

impl World {
    fn new(seed: u64) -> World {
        let config = Arc::new(Config::parse(FILE).expect("right"));
        World {
            random: StdRng::seed_from_u64(seed),
            disk: Disk::default(),
            dispatch: Dispatch::new(config.clone(), bounds()),
            config,
            wrong: BTreeSet::new(),
            now_ms: 1_000_000_000,
            is_cut_off: false,
            silences: 0,
        }
    }

    fn alerts(&self) -> Vec<Incoming> {
        let of = |(name, instance): &(usize, usize)| Incoming {
            labels: Labels::from_pairs([
                ("alertname", format!("A{name}")),
                ("instance", instance.to_string()),
            ]),
            annotations: vec![],
            starts_at_ms: None,
            ends_at_ms: None,
            generator_url: String::new(),
        };
        self.wrong.iter().map(of).collect()
    }

    fn crash(&mut self) {
        let resume = Resume {
            awaited: ["rules".to_owned()].into(),
            wait_max_ms: 60_000,
            posts_wait_ms: 0,
            down_ms: 0,
        };
        let (dispatch, unreadable) =
            Dispatch::resume(self.config.clone(), bounds(), self.disk.restored(), &resume, self.now_ms);
        assert_eq!(unreadable, 0);
        self.dispatch = dispatch;
    }

    /// One second, with a crash at any of its points.
    fn step(&mut self, is_wild: bool) {
        self.now_ms += 1_000;
        let crash = if is_wild && self.random.random_bool(0.01) { self.random.random_range(0..4) } else { 9 };
        if is_wild {
            self.disturb();
        }
        if crash == 0 {
            return self.crash();
        }
        self.dispatch.sync("rules", self.alerts(), self.now_ms);
        self.dispatch.tick(self.now_ms);
        self.check_inhibition();
        if crash == 1 {
            return self.crash();
        }
        let changes = self.dispatch.take_changes();
        if is_wild && self.random.random_bool(0.02) {
            // The disk refuses: nothing is told of what is not written.
            return self.dispatch.keep_changes(&changes);
        }
        self.disk.write(changes);
        if crash == 2 || self.is_cut_off {
            if crash == 2 {
                self.crash();
            }
            return;
        }
        let notices: Vec<Notice> = self.dispatch.notices().cloned().collect();
        for notice in notices {
            self.disk.take(&notice);
            if crash == 3 {
                return self.crash();
            }
            self.dispatch.taken(notice.seq);
        }
    }

    fn disturb(&mut self) {
        if self.random.random_bool(0.3) {
            // What is wrong is well again sooner than the rest goes wrong, so that whole groups end.
            let alert = (self.random.random_range(0..6), self.random.random_range(0..6));
            if !self.wrong.remove(&alert) && self.random.random_bool(0.33) {
                self.wrong.insert(alert);
            }
        }
        if self.random.random_bool(0.01) {
            self.is_cut_off = !self.is_cut_off;
        }
        if self.random.random_bool(0.003) {
            self.now_ms += self.random.random_range(-600_000..600_000);
        }
        if self.random.random_bool(0.01) {
            self.silences += 1;
            let request = SilenceRequest {
                id: None,
                matchers: parse_matchers(&format!("alertname=A{}", self.random.random_range(0..6)))
                    .expect("right"),
                starts_at_ms: self.now_ms,
                ends_at_ms: self.now_ms + self.random.random_range(1_000..200_000),
                created_by: String::new(),
                comment: String::new(),
            };
            self.dispatch.set_silence(request, &format!("s{}", self.silences), self.now_ms).expect("taken");
        }
    }

    /// No notice of this second names an alert whose inhibitor is known, and firing ones are never silenced ones.
    fn check_inhibition(&self) {
        let is_out = self.wrong.iter().any(|(name, _)| *name == 0);
        for notice in self.dispatch.notices().filter(|notice| notice.at_ms == self.now_ms) {
            for alert in notice.alerts.iter().filter(|alert| alert.is_firing) {
                let labels = labels_of(&alert.labels);
                let is_target = ["A1", "A2", "A3"].contains(&labels.get("alertname"));
                assert!(!(is_out && is_target), "{labels} is inhibited and was told");
                assert!(
                    self.dispatch.muted(&labels, self.now_ms).is_audible(),
                    "{labels} is silenced and was told"
                );
            }
        }
    }

    /// Everything is well again: what was told is ended, once each.
    fn check_contract(&mut self) -> usize {
        self.wrong.clear();
        self.is_cut_off = false;
        for _ in 0..400 {
            self.step(false);
        }
        for (incident, triggers) in &self.disk.triggers {
            assert!(*triggers >= 1);
            assert_eq!(self.disk.resolves.get(incident), Some(&1), "{incident} is ended exactly once");
        }
        assert_eq!(self.disk.resolves.len(), self.disk.triggers.len());
        assert_eq!(self.dispatch.sizes(), (0, 0, 0), "nothing is stuck");
        assert!(self.disk.alerts.is_empty() && self.disk.groups.is_empty() && self.disk.notices.is_empty());
        self.disk.triggers.len()
    }
}

/// How many seeds are tried; the whole run of ten thousand incidents takes `BELFRY_DISPATCH_SEEDS=70`.
fn seeds() -> u64 {
    std::env::var("BELFRY_DISPATCH_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[test]
fn every_incident_is_ended_once_whatever_happens() {
    let mut incidents = 0;
    for seed in 0..seeds() {
        let mut world = World::new(seed);
        for _ in 0..4_000 {
            world.step(true);
        }
        incidents += world.check_contract();
    }
    assert!(incidents > 100 * usize::try_from(seeds()).expect("few"), "the world was too quiet: {incidents}");
}
