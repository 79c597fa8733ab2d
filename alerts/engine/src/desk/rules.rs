//! Groups of rules at work: when each is due, its evaluation on a blocking thread, and what is kept of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use belfry_dispatch::Incoming;
use belfry_promql::{Labels, Options, Value};
use belfry_ruler::{Environment, Evaluated, Group, GroupSpec, Kept, Limits, Point, Schedule};
use belfry_signal::{NativeHistogram, PointValue, SeriesBatch, SeriesPoints};
use tokio::task::JoinSet;

use super::handle::Metrics;
use super::prometheus::GroupStatus;
use super::settings::Routing;
use super::{ByGroup, incoming};
use crate::signals::Signals;

/// What the names of sources of rules begin with.
pub(super) const SOURCE_PREFIX: &str = "rules/";
/// An evaluation that takes longer than this, and than its interval, is ended.
const PATIENCE_MIN: Duration = Duration::from_secs(10);

/// A group that came back from its evaluation.
pub(super) struct Finished {
    name: String,
    group: Group,
    evaluated: Evaluated,
    took_seconds: f64,
    at_ms: i64,
}

/// Points of a group that were written, or not.
pub(super) struct Written {
    name: String,
    is_written: bool,
}

/// One group: at home, or out being evaluated.
struct Place {
    group: Option<Group>,
    schedule: Schedule,
    firing: Vec<Incoming>,
    status: Arc<GroupStatus>,
    /// Its last points are on their way: the next ones wait for nobody, they are given up.
    is_writing: bool,
}

/// All groups.
pub(super) struct Ruler {
    places: ByGroup<Place>,
    metrics: Option<Metrics>,
    environment: Environment,
    default_interval_ms: i64,
    evaluations_max: usize,
    signals: Signals,
    changed: BTreeSet<String>,
    cancel: Arc<AtomicBool>,
    is_ending: bool,
}

impl Ruler {
    pub(super) fn new(routing: &Routing, metrics: Option<Metrics>, signals: Signals) -> Self {
        let external_labels =
            metrics.as_ref().map(|metrics| metrics.external_labels.clone()).unwrap_or_default();
        Self {
            places: ByGroup::new(),
            metrics,
            environment: Environment {
                external_labels: Labels::from_pairs(external_labels),
                external_url: routing.external_url.clone(),
                options: Options {
                    lookback_ms: 300_000,
                    samples_max: routing.samples_max,
                    subquery_step_ms: 60_000,
                    experimental: false,
                },
                limits: Limits {
                    alerts_max: routing.alerts_per_rule_max,
                    series_max: routing.series_per_rule_max,
                },
            },
            default_interval_ms: i64::try_from(routing.interval.as_millis()).unwrap_or(i64::MAX),
            evaluations_max: routing.evaluations_max,
            signals,
            changed: BTreeSet::new(),
            cancel: Arc::new(AtomicBool::new(false)),
            is_ending: false,
        }
    }

    /// Takes the groups that there are now; gives the ends of the series of those that are gone. All must be at home.
    pub(super) fn take(&mut self, specs: &[GroupSpec], now_ms: i64) -> Vec<Point> {
        let mut before = std::mem::take(&mut self.places);
        for spec in specs {
            let name = source(spec);
            let interval_ms = spec.interval_ms.unwrap_or(self.default_interval_ms);
            let mut group = Group::new(spec.clone());
            let mut schedule = Schedule::new(&name, interval_ms, now_ms).hurried();
            let (mut firing, mut is_writing) = (Vec::new(), false);
            if let Some(held) = before.remove(&name) {
                if held.schedule.interval_ms() == interval_ms {
                    schedule = held.schedule;
                }
                firing = held.firing;
                is_writing = held.is_writing;
                if let Some(held) = held.group {
                    group.inherit(held);
                }
            }
            let status = Arc::new(GroupStatus::of(&group, interval_ms, None, 0.0));
            self.changed.insert(name.clone());
            self.places.insert(name, Place { group: Some(group), schedule, firing, status, is_writing });
        }
        self.changed.extend(before.keys().cloned());
        before.into_values().filter_map(|place| place.group).flat_map(|group| group.ended(now_ms)).collect()
    }

    /// Puts back what was kept; how many alerts belong to nothing any more.
    pub(super) fn restore(&mut self, kept: ByGroup<Vec<Kept>>, down_ms: i64) -> usize {
        let mut lost = 0;
        for (name, kept) in kept {
            match self.places.get_mut(&name).and_then(|place| place.group.as_mut()) {
                Some(group) => lost += group.restore(kept, down_ms),
                None => {
                    lost += kept.len();
                    self.changed.insert(name);
                }
            }
        }
        lost
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = String> {
        // Without a store nothing is evaluated, and nobody is waited for.
        let places = self.places.keys().filter(|_| self.metrics.is_some());
        places.cloned().collect::<Vec<_>>().into_iter()
    }

    pub(super) fn rules(&self) -> usize {
        let groups = self.places.values().filter_map(|place| place.group.as_ref());
        groups.map(|group| group.spec().rules.len()).sum()
    }

    pub(super) fn statuses(&self) -> Vec<Arc<GroupStatus>> {
        self.places.values().map(|place| place.status.clone()).collect()
    }

    /// Sends groups out that are due, as far as there is room; one that is out already is late, and counted when it
    /// is taken next.
    pub(super) fn begin_due(&mut self, now_ms: i64, running: &mut JoinSet<Finished>) {
        let Some(metrics) = self.metrics.clone().filter(|_| !self.is_ending) else { return };
        let mut due: Vec<(i64, String)> = self
            .places
            .iter()
            .filter(|(_, place)| place.group.is_some())
            .map(|(name, place)| (place.schedule.due_ms(), name.clone()))
            .filter(|(due_ms, _)| *due_ms <= now_ms || due_ms - now_ms > 86_400_000)
            .collect();
        due.sort();
        for (_, name) in due {
            if running.len() >= self.evaluations_max {
                return;
            }
            let Some(place) = self.places.get_mut(&name) else { continue };
            let Some(turn) = place.schedule.take(now_ms) else { continue };
            let Some(group) = place.group.take() else { continue };
            self.signals.evaluations_missed(turn.missed);
            let patience =
                Duration::from_millis(place.schedule.interval_ms().unsigned_abs()).max(PATIENCE_MIN);
            let (environment, ending) = (self.environment.clone(), self.cancel.clone());
            running.spawn(evaluate(name, group, turn.at_ms, metrics.clone(), environment, patience, ending));
        }
    }

    /// Writes points; those of a group, named, one evaluation at a time. What fires is told without waiting for it.
    pub(super) fn write(&mut self, name: &str, points: Vec<Point>, writing: &mut JoinSet<Written>) {
        let Some(metrics) = self.metrics.clone().filter(|_| !points.is_empty()) else { return };
        if let Some(place) = self.places.get_mut(name) {
            if place.is_writing {
                return self.signals.results_not_written();
            }
            place.is_writing = true;
        }
        let name = name.to_owned();
        writing.spawn(async move {
            let is_written = (metrics.write)(batch(points)).await.is_ok();
            Written { name, is_written }
        });
    }

    /// Points were written; `None` when the task that wrote them broke.
    pub(super) fn written(&mut self, written: Option<Written>) {
        let Some(written) = written else {
            // Nobody knows whose they were; a group too many that writes does no harm.
            self.places.values_mut().for_each(|place| place.is_writing = false);
            return self.signals.results_not_written();
        };
        if !written.is_written {
            self.signals.results_not_written();
        }
        if let Some(place) = self.places.get_mut(&written.name) {
            place.is_writing = false;
        }
    }

    /// Takes a group home; its source and what fires now.
    pub(super) fn finished(
        &mut self,
        finished: Finished,
        writing: &mut JoinSet<Written>,
    ) -> Option<(String, Vec<Incoming>)> {
        let Finished { name, group, mut evaluated, took_seconds, at_ms } = finished;
        self.write(&name, std::mem::take(&mut evaluated.points), writing);
        self.signals.rules_evaluated(group.spec().rules.len(), evaluated.failures, took_seconds);
        let place = self.places.get_mut(&name)?;
        if evaluated.has_changed {
            self.changed.insert(name.clone());
        }
        place.firing = group
            .firing()
            .map(|(rule, alert)| {
                let since_ms = alert.fired_at_ms.unwrap_or(alert.active_at_ms);
                let url = generator(&self.environment.external_url, &rule.text);
                incoming(&alert.labels, &alert.annotations, since_ms, url)
            })
            .collect();
        place.status =
            Arc::new(GroupStatus::of(&group, place.schedule.interval_ms(), Some(at_ms), took_seconds));
        place.group = Some(group);
        // What was cut short says nothing about those it did not come to.
        (!evaluated.is_ended_early).then(|| (name, place.firing.clone()))
    }

    /// What is kept of groups that changed: `None` for groups that are gone.
    pub(super) fn take_changes(&mut self) -> Vec<(String, Option<Vec<Kept>>)> {
        // One that is out is written when it is home.
        let is_home = |places: &ByGroup<Place>, name: &String| {
            places.get(name).is_none_or(|place| place.group.is_some())
        };
        let (home, out): (BTreeSet<String>, BTreeSet<String>) =
            std::mem::take(&mut self.changed).into_iter().partition(|name| is_home(&self.places, name));
        self.changed = out;
        let kept = |name: String| {
            let group = self.places.get(&name).and_then(|place| place.group.as_ref());
            (name, group.map(Group::kept))
        };
        home.into_iter().map(kept).collect()
    }

    pub(super) fn keep_changes(&mut self, names: impl Iterator<Item = String>) {
        self.changed.extend(names);
    }

    /// Ends evaluations that run, and begins no more.
    pub(super) fn cancel(&mut self) {
        self.is_ending = true;
        self.cancel.store(true, Ordering::Relaxed);
    }
}

/// What a group's alerts are called as a source.
fn source(spec: &GroupSpec) -> String {
    format!("{SOURCE_PREFIX}{};{}", spec.file, spec.name)
}

async fn evaluate(
    name: String,
    mut group: Group,
    at_ms: i64,
    metrics: Metrics,
    environment: Environment,
    patience: Duration,
    ending: Arc<AtomicBool>,
) -> Finished {
    let began = Instant::now();
    let cancel = Arc::new(AtomicBool::new(false));
    let (read, flag, fallback) = (metrics.read.clone(), cancel.clone(), group.clone());
    let mut working = tokio::task::spawn_blocking(move || {
        let mut evaluated = Evaluated::default();
        read(&flag, &mut |series| {
            let elapsed = || began.elapsed().as_secs_f64();
            evaluated = group.evaluate(at_ms, series, &environment, &flag, &elapsed);
        });
        (group, evaluated)
    });
    let mut checks = tokio::time::interval(Duration::from_millis(250));
    let worked = loop {
        tokio::select! {
            worked = &mut working => break worked,
            _ = checks.tick() => {
                if ending.load(Ordering::Relaxed) || began.elapsed() > patience {
                    cancel.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    // A thread that broke takes nothing with it: the group is as it was.
    let ended = || (fallback, Evaluated { is_ended_early: true, failures: 1, ..Evaluated::default() });
    let (group, evaluated) = worked.unwrap_or_else(|_| ended());
    Finished { name, group, evaluated, took_seconds: began.elapsed().as_secs_f64(), at_ms }
}

/// Where a rule's expression can be looked at.
fn generator(external_url: &str, expr: &str) -> String {
    let mut encoded = String::new();
    for byte in expr.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    format!("{}/graph?g0.expr={encoded}&g0.tab=1", external_url.trim_end_matches('/'))
}

/// Points as the pipeline takes them.
fn batch(points: Vec<Point>) -> SeriesBatch {
    let series = points.into_iter().map(|point| SeriesPoints {
        labels: point.labels.pairs().into(),
        created_ms: None,
        points: vec![(point.unix_millis, value(point.value))],
        exemplars: Vec::new(),
    });
    SeriesBatch { series: series.collect(), metadata: Vec::new() }
}

fn value(value: Value) -> PointValue {
    match value {
        Value::Float(value) => PointValue::Float(value),
        Value::Histogram(histogram) => PointValue::Histogram(Box::new(NativeHistogram {
            is_gauge: true,
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            zero_count: histogram.zero_count,
            count: histogram.count,
            sum: histogram.sum,
            positive: histogram.positive.clone(),
            negative: histogram.negative.clone(),
            custom_bounds: histogram.custom_bounds.to_vec(),
        })),
    }
}
