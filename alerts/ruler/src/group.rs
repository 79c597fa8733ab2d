//! A group of rules with everything that it remembers from one evaluation to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use belfry_promql::{Error, Labels, METRIC_NAME, Options, Series, Times, Value, query_expr, stale_marker};

use crate::alerting::{Active, AlertState, Alerting, Kept, samples};
use crate::file::{GroupSpec, RuleKind, RuleSpec};
use crate::recent::{Overlay, Recent};

#[cfg(test)]
mod tests;

/// What all groups share.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Labels that name this Belfry to others; templates see them.
    pub external_labels: Labels,
    /// Where it is reached; templates see it.
    pub external_url: String,
    /// What a query may use.
    pub options: Options,
    /// What a group may hold.
    pub limits: Limits,
}

/// Bounds that hold beside a group's own.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Alerts of one rule.
    pub alerts_max: usize,
    /// Series that one recording rule may write.
    pub series_max: usize,
}

/// A point that a rule found.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its series.
    pub labels: Labels,
    /// Its time.
    pub unix_millis: i64,
    /// Its value; the staleness marker for a series that is over.
    pub value: Value,
}

/// What an evaluation of a group gave.
#[derive(Clone, Debug, Default)]
pub struct Evaluated {
    /// To be stored.
    pub points: Vec<Point>,
    /// Rules that failed.
    pub failures: usize,
    /// Alerts came, went or began to fire: what is kept is to be written down.
    pub has_changed: bool,
    /// It was cancelled: rules behind that point were not evaluated.
    pub is_ended_early: bool,
}

/// How a rule fared.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Health {
    /// It was not evaluated yet.
    #[default]
    Unknown,
    /// It was evaluated.
    Ok,
    /// It could not be.
    Failed(String),
}

/// A rule as the API shows it.
#[derive(Clone, Debug)]
pub struct RuleStatus {
    /// How it fared.
    pub health: Health,
    /// When it was last evaluated, in Unix milliseconds.
    pub evaluated_at_ms: Option<i64>,
    /// How long that took.
    pub took_seconds: f64,
    /// Its alerts.
    pub alerts: Vec<Active>,
}

/// One rule and what it remembers.
#[derive(Clone, Debug, Default)]
struct Memory {
    alerting: Alerting,
    /// Series that it wrote at its last evaluation.
    written: BTreeSet<Labels>,
    health: Health,
    evaluated_at_ms: Option<i64>,
    took_seconds: f64,
}

/// A group and what it remembers.
#[derive(Clone, Debug)]
pub struct Group {
    spec: GroupSpec,
    memories: Vec<Memory>,
    /// Series of rules that are gone, to be marked as over at the next evaluation.
    orphaned: BTreeSet<Labels>,
}

impl Group {
    /// A group that was never evaluated.
    pub fn new(spec: GroupSpec) -> Group {
        let memories = vec![Memory::default(); spec.rules.len()];
        Group { spec, memories, orphaned: BTreeSet::new() }
    }

    /// What the file says.
    pub fn spec(&self) -> &GroupSpec {
        &self.spec
    }

    /// Takes over what the group of the same name remembered before its file was read again.
    pub fn inherit(&mut self, before: Group) {
        let mut old: BTreeMap<String, Vec<Memory>> = BTreeMap::new();
        for (rule, memory) in before.spec.rules.iter().zip(before.memories).rev() {
            old.entry(rule.identity()).or_default().push(memory);
        }
        self.orphaned = before.orphaned;
        for (rule, memory) in self.spec.rules.iter().zip(&mut self.memories) {
            if let Some(held) = old.get_mut(&rule.identity()).and_then(Vec::pop) {
                *memory = held;
            }
        }
        self.orphaned.extend(old.into_values().flatten().flat_map(|memory| memory.written));
    }

    /// The series that end with this group.
    pub fn ended(&self, at_ms: i64) -> Vec<Point> {
        let written = self.memories.iter().flat_map(|memory| &memory.written).chain(&self.orphaned);
        written.map(|labels| over(labels.clone(), at_ms)).collect()
    }

    /// Alerts to be kept over a restart.
    pub fn kept(&self) -> Vec<Kept> {
        let rules = self.spec.rules.iter().zip(&self.memories);
        rules.flat_map(|(rule, memory)| memory.alerting.kept(&rule.identity()).collect::<Vec<_>>()).collect()
    }

    /// Puts kept alerts back; `down_ms` is how long nobody judged. Alerts of rules that are gone are left out: their
    /// number is returned.
    pub fn restore(&mut self, kept: Vec<Kept>, down_ms: i64) -> usize {
        let mut lost = 0;
        for alert in kept {
            let place = self.spec.rules.iter().position(|rule| rule.identity() == alert.rule);
            match place {
                Some(place) => self.memories[place].alerting.restore(alert, down_ms),
                None => lost += 1,
            }
        }
        lost
    }

    /// Every alert that fires now, with its rule.
    pub fn firing(&self) -> impl Iterator<Item = (&RuleSpec, &Active)> {
        let rules = self.spec.rules.iter().zip(&self.memories);
        rules.flat_map(|(rule, memory)| {
            let firing = memory.alerting.active.values().filter(|alert| alert.state == AlertState::Firing);
            firing.map(move |alert| (rule, alert))
        })
    }

    /// Every rule as it stands.
    pub fn rules(&self) -> impl Iterator<Item = (&RuleSpec, RuleStatus)> {
        self.spec.rules.iter().zip(&self.memories).map(|(rule, memory)| {
            let status = RuleStatus {
                health: memory.health.clone(),
                evaluated_at_ms: memory.evaluated_at_ms,
                took_seconds: memory.took_seconds,
                alerts: memory.alerting.active.values().cloned().collect(),
            };
            (rule, status)
        })
    }

    /// Evaluates every rule for a time, in order. `elapsed` tells how many seconds have passed since some moment:
    /// the time each rule took is measured by it. Raising `cancel` ends it soon.
    pub fn evaluate(
        &mut self,
        now_ms: i64,
        store: &dyn Series,
        environment: &Environment,
        cancel: &AtomicBool,
        elapsed: &dyn Fn() -> f64,
    ) -> Evaluated {
        let stamp_ms = now_ms.saturating_sub(self.spec.query_offset_ms.unwrap_or(0));
        let mut evaluated = Evaluated::default();
        let mut recent = Recent::default();
        let last = self.spec.rules.len().saturating_sub(1);
        for (place, (rule, memory)) in self.spec.rules.iter().zip(&mut self.memories).enumerate() {
            let began = elapsed();
            let overlay = Overlay { store, recent: &recent };
            let limit = self.spec.limit;
            let outcome = evaluate(rule, memory, (now_ms, stamp_ms), limit, &overlay, environment, cancel);
            memory.took_seconds = elapsed() - began;
            memory.evaluated_at_ms = Some(now_ms);
            match outcome {
                Ok((points, has_changed)) => {
                    memory.health = Health::Ok;
                    evaluated.has_changed |= has_changed;
                    if place < last {
                        points.iter().for_each(|point| recent.add(point));
                    }
                    evaluated.points.extend(points);
                }
                Err(Ended::Cancelled) => {
                    evaluated.is_ended_early = true;
                    return evaluated;
                }
                Err(Ended::Failed(error)) => {
                    memory.health = Health::Failed(error);
                    evaluated.failures += 1;
                }
            }
        }
        let orphaned = std::mem::take(&mut self.orphaned);
        evaluated.points.extend(orphaned.into_iter().map(|labels| over(labels, stamp_ms)));
        evaluated
    }
}

/// Why a rule gave nothing.
enum Ended {
    Cancelled,
    Failed(String),
}

/// One rule: what it found, and whether its alerts changed. Series that it wrote before and does not now are over.
fn evaluate(
    rule: &RuleSpec,
    memory: &mut Memory,
    (now_ms, stamp_ms): (i64, i64),
    limit: usize,
    series: &dyn Series,
    environment: &Environment,
    cancel: &AtomicBool,
) -> Result<(Vec<Point>, bool), Ended> {
    let found =
        query_expr(&rule.text, &rule.expr, series, Times::Instant(stamp_ms), &environment.options, cancel);
    let found = found.map_err(|error| match error {
        Error::Cancelled => Ended::Cancelled,
        other => Ended::Failed(other.to_string()),
    })?;
    let either = |own: usize, all: usize| if own == 0 { all } else { own.min(all) };
    let (mut points, has_changed) = match &rule.kind {
        RuleKind::Record(name) => {
            let limit = either(limit, environment.limits.series_max);
            (
                record(rule, name, samples(found.data).map_err(Ended::Failed)?, stamp_ms, limit)
                    .map_err(Ended::Failed)?,
                false,
            )
        }
        RuleKind::Alert(spec) => {
            let limit = either(limit, environment.limits.alerts_max);
            let turned = memory
                .alerting
                .turn(rule, spec, found.data, (now_ms, stamp_ms), limit, environment)
                .map_err(Ended::Failed)?;
            (turned.points, turned.has_changed)
        }
    };
    let written: BTreeSet<Labels> = points.iter().map(|point| point.labels.clone()).collect();
    points.extend(memory.written.difference(&written).map(|labels| over(labels.clone(), stamp_ms)));
    memory.written = written;
    Ok((points, has_changed))
}

fn record(
    rule: &RuleSpec,
    name: &str,
    found: Vec<(Labels, Value)>,
    stamp_ms: i64,
    limit: usize,
) -> Result<Vec<Point>, String> {
    if found.len() > limit {
        return Err(format!("exceeded limit of {limit} with {} series", found.len()));
    }
    let mut seen = BTreeSet::new();
    let mut points = Vec::with_capacity(found.len());
    for (labels, value) in found {
        let own = rule.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let labels = Labels::from_pairs(labels.iter().chain([(METRIC_NAME, name)]).chain(own));
        if !seen.insert(labels.clone()) {
            return Err(
                "vector contains metrics with the same labelset after applying rule labels".to_owned()
            );
        }
        points.push(Point { labels, unix_millis: stamp_ms, value });
    }
    Ok(points)
}

/// The end of a series.
fn over(labels: Labels, unix_millis: i64) -> Point {
    Point { labels, unix_millis, value: Value::Float(stale_marker()) }
}
