//! What would have happened: stored history through the same meters, windows, alerts and pages as live counts.
//!
//! Objectives on journeys are read from `journey_events_total`, the metric of the counts that the engine takes live.
//! History is judged at the interval of its objective (ten seconds for journeys) and not each second, so a page may
//! come so much later here than it came live. Before the time that is asked about, counts are read for as long as the
//! longest window, and nothing is judged.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use belfry_notify::BudgetFigures;
use belfry_promql::Series;
use belfry_signal::Region;
use belfry_slo::{
    Budget, Element, Grouping, Indicator, Meter, Metered, OTHER, Reading, Source, Transition, Window,
};
use serde::Serialize;

use crate::evidence;
use crate::judge::Judge;
use crate::pages::{Findings, Pages};
use crate::queries::Asker;
use crate::rules::{self, Rule};

/// How often journeys are looked at.
const JOURNEY_INTERVAL_SECONDS: u64 = 10;
/// Looks that are fetched at once.
const CHUNK_LOOKS: u64 = 500;
/// Looks of one objective in a run: about four months at ten seconds.
const LOOKS_MAX: u64 = 1_000_000;
/// Pages of a run.
const PAGES_MAX: usize = 10_000;
const NANOS: u64 = 1_000_000_000;

/// What a run is about, in seconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// The first second.
    pub from: u64,
    /// The last second.
    pub to: u64,
}

/// What a file of objectives would have done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Backtest {
    /// Every objective in every place that had events.
    pub slos: Vec<Replayed>,
    /// Every page, in the order in which they were opened.
    pub pages: Vec<ReplayedPage>,
}

/// One objective in one place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replayed {
    /// The objective.
    pub slo: String,
    /// Where: a region, or a group of its own.
    pub place: String,
    /// What is promised, in parts per million.
    pub objective_ppm: u32,
    /// Good events.
    pub good: u64,
    /// Bad events.
    pub bad: u64,
    /// The share of a whole period's budget that went; above 1 is overdrawn.
    pub budget_spent_ratio: f64,
    /// The share of the time that was measured.
    pub coverage_ratio: f64,
    /// Seconds in which the ticket alert fired or a page pair burned without being certain.
    pub warning_seconds: u64,
}

/// A page that would have been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplayedPage {
    /// The objective.
    pub slo: String,
    /// The alert.
    pub alert: &'static str,
    /// Everywhere that it was bad.
    pub places: Vec<String>,
    /// When it would have been sent, in seconds since the epoch.
    pub from: u64,
    /// When it would have ended; `None` when it went on.
    pub to: Option<u64>,
}

/// One objective at work.
struct Replay {
    interval: u64,
    asker: Asker,
    meter: Meter,
    /// The answers of the chunk, one list for each query, by second.
    answers: Vec<BTreeMap<u64, Vec<Element>>>,
    counted: BTreeMap<String, (Window, u64)>,
}

/// Replays a file (of either form; `shipped` and `demo` are known too) over a store.
///
/// # Errors
/// For people: what is wrong with the file, the times, or the store.
pub fn backtest(file: &str, series: &dyn Series, stretch: Stretch) -> Result<Backtest, String> {
    let rules = match file {
        "shipped" | "demo" => rules::load(file, &[]),
        path => rules::load_file(Path::new(path)),
    };
    let rules: Vec<Rule> = rules.map_err(|error| error.to_string())?.into_iter().map(asking).collect();
    if stretch.from >= stretch.to {
        return Err("the time that is asked about ends before it begins".to_owned());
    }
    let mut replays = rules.iter().map(Replay::new).collect::<Result<Vec<_>, String>>()?;
    let step = replays.iter().map(|replay| replay.interval).fold(0, greatest_common).max(1);
    let windows = rules.iter().flat_map(|rule| &rule.slo.pairs).map(|pair| pair.long_seconds);
    let begin = stretch.from.saturating_sub(windows.max().unwrap_or(0)) / step * step;
    let looks = (stretch.to - begin) / step;
    if looks > LOOKS_MAX {
        return Err(format!("{looks} looks of {step} s each, {LOOKS_MAX} at most: ask about a shorter time"));
    }
    let mut judge = Judge::new(rules, Vec::new(), u64::MAX);
    let mut pages = Pages::new("backtest".into(), Duration::ZERO, Duration::from_secs(300), PAGES_MAX);
    let mut warnings = BTreeMap::new();
    for now in (begin..=stretch.to).step_by(usize::try_from(step).unwrap_or(1)) {
        for (rule, replay) in replays.iter_mut().enumerate().filter(|(_, replay)| now % replay.interval == 0)
        {
            let metered = replay.look(series, now, stretch)?;
            judge.measured(rule, now, &metered, replay.meter.overflowed());
        }
        if now >= stretch.from {
            let next = move_pages(&mut judge, &mut pages, now);
            for (slo, place) in next {
                *warnings.entry((slo, place)).or_insert(0) += step;
            }
        }
    }
    Ok(report(&judge, &pages, &replays, &warnings, stretch))
}

/// The same objective, asking the store for what it counts live.
fn asking(rule: Rule) -> Rule {
    if !rule.is_counted_here() {
        return rule;
    }
    let name = rule.journey.as_str();
    let reading = Reading::Counts {
        part: format!("journey_events_total{{journey=\"{name}\",verdict=\"bad\"}}"),
        is_part_bad: true,
        total: format!("journey_events_total{{journey=\"{name}\"}}"),
        is_counter: true,
        needs_part: false,
    };
    let groups = Grouping {
        label: Some("region".to_owned()),
        listed: Vec::new(),
        is_open: true,
        groups_max: Region::MAX,
    };
    let indicator = Indicator { reading, interval_seconds: JOURNEY_INTERVAL_SECONDS, groups };
    let mut slo = (*rule.slo).clone();
    slo.source = Source::Queries(Box::new(indicator));
    Rule { slo: Arc::new(slo), ..rule }
}

impl Replay {
    fn new(rule: &Rule) -> Result<Self, String> {
        let Source::Queries(indicator) = &rule.slo.source else {
            return Err(format!("{} asks nothing", rule.slo.name));
        };
        let asker = Asker::new(indicator)?;
        Ok(Self {
            interval: indicator.interval_seconds.max(1),
            meter: asker.meter(),
            asker,
            answers: Vec::new(),
            counted: BTreeMap::new(),
        })
    }

    /// What the queries find in a second.
    fn look(&mut self, series: &dyn Series, now: u64, stretch: Stretch) -> Result<Metered, String> {
        let is_held = self.answers.first().is_some_and(|answers| answers.contains_key(&now));
        if !is_held {
            let end = now.saturating_add((CHUNK_LOOKS - 1) * self.interval).min(stretch.to.max(now));
            self.answers = self.asker.ask_range(series, (now, end), &AtomicBool::new(false))?;
        }
        let answers: Vec<Vec<Element>> =
            self.answers.iter_mut().map(|found| found.remove(&now).unwrap_or_default()).collect();
        let metered = self.meter.sample(now, &answers).map_err(|error| error.to_string())?;
        if now >= stretch.from {
            for (place, (good, bad)) in &metered.groups {
                let (window, seconds) = self.counted.entry(place.clone()).or_default();
                window.good += good;
                window.bad += bad;
                *seconds += metered.seconds;
            }
        }
        Ok(metered)
    }
}

/// Judges one second, as the engine does; the objectives and places that warn.
fn move_pages(judge: &mut Judge, pages: &mut Pages, now: u64) -> BTreeSet<(String, String)> {
    let now_nanos = now.saturating_mul(NANOS);
    for turn in judge.sample(now, &[]) {
        let slo = judge.rules()[turn.rule].slo.name.clone();
        match turn.transition {
            Transition::Triggered => pages.tripped(now_nanos, &slo, &turn.region),
            Transition::Resolved => {
                let _ended = pages.recovered(now_nanos, &slo, &turn.region);
            }
        }
    }
    for (slo, regions) in pages.due(now_nanos) {
        let found = judge.rules().iter().find(|rule| rule.slo.name == slo);
        if let (Some(rule), Some(lead)) = (found, regions.first().cloned()) {
            let found = Findings {
                alert: rule.alert,
                journey: rule.journey,
                lead,
                evidence: evidence::gather(rule.journey, Vec::new()),
                budget: BudgetFigures {
                    objective_ppm: rule.slo.objective.ppm(),
                    window_seconds: 0,
                    bad_events: 0,
                    events: 0,
                    burn_milli: 0,
                    budget_remaining_ppm: 0,
                },
            };
            pages.open(now_nanos, &slo, regions, found);
        }
    }
    let warned = judge.warnings().map(|(rule, region)| (rule.slo.name.clone(), region.to_string()));
    warned.collect()
}

fn report(
    judge: &Judge,
    pages: &Pages,
    replays: &[Replay],
    warnings: &BTreeMap<(String, String), u64>,
    stretch: Stretch,
) -> Backtest {
    let mut slos = Vec::new();
    let seconds = stretch.to - stretch.from;
    for (rule, replay) in judge.rules().iter().zip(replays) {
        for (place, (counted, measured)) in &replay.counted {
            let measured_seconds = (*measured).min(seconds);
            let counted = Window { seconds, measured_seconds, ..*counted };
            let period_seconds = rule.slo.period_seconds;
            let budget = Budget { counted, period_seconds, objective: rule.slo.objective };
            let key = (rule.slo.name.clone(), place.clone());
            if place == OTHER && counted.total() == 0 {
                continue;
            }
            slos.push(Replayed {
                slo: key.0.clone(),
                place: place.clone(),
                objective_ppm: rule.slo.objective.ppm(),
                good: counted.good,
                bad: counted.bad,
                budget_spent_ratio: 1.0 - budget.remaining_ratio(),
                coverage_ratio: counted.coverage_ratio(),
                warning_seconds: warnings.get(&key).copied().unwrap_or(0),
            });
        }
    }
    let pages = pages.records().map(|record| ReplayedPage {
        slo: record.slo.clone(),
        alert: record.alert.as_str(),
        places: record.members.iter().map(|member| member.region.to_string()).collect(),
        from: record.started_unix_nanos / NANOS,
        to: record.resolved_unix_nanos.map(|nanos| nanos / NANOS),
    });
    Backtest { slos, pages: pages.collect() }
}

fn greatest_common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common(b, a % b) }
}
