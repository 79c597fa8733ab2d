//! Objectives that ask queries: what is asked, when each is due, and its answers on their way.
//!
//! Evaluation blocks and runs on blocking threads, one at a time for each objective and a few for all; an answer that
//! takes too long is ended, and its objective has measured nothing.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use belfry_promql::ast::{Expr, Node};
use belfry_promql::{Data, Labels, Options, Series, Times, Value, parse, query_expr};
use belfry_slo::{Element, Indicator, Meter, Metered, Source};
use tokio::task::JoinSet;

use crate::desk::{Metrics, Read};
use crate::rules::Rule;
use crate::signals::Signals;

/// Objectives whose queries are evaluated at once.
const EVALUATIONS_MAX: usize = 4;
/// An answer may take as long as the interval, but not less than this and not more than a minute.
const PATIENCE_MIN: Duration = Duration::from_secs(5);
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// Points that the queries of one objective may read.
const SAMPLES_MAX: usize = 5_000_000;

/// The queries of an indicator, understood.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    indicator: Indicator,
    queries: Vec<(String, Expr)>,
}

/// One objective that asks.
struct Asked {
    rule: usize,
    name: String,
    asker: Arc<Asker>,
    meter: Meter,
    due_second: u64,
    is_out: bool,
    has_failed: bool,
}

/// What came back.
struct Answered {
    place: usize,
    second: u64,
    answers: Result<Vec<Vec<Element>>, String>,
    took: Duration,
}

/// What was found about a rule.
pub(crate) struct Found {
    pub(crate) rule: usize,
    pub(crate) second: u64,
    pub(crate) metered: Metered,
    pub(crate) beyond: usize,
}

/// All objectives that ask.
pub(crate) struct Queries {
    asked: Vec<Asked>,
    metrics: Option<Metrics>,
    running: JoinSet<Answered>,
    signals: Signals,
}

impl Asker {
    /// Understands the queries; they were checked when their file was read, and are again.
    pub(crate) fn new(indicator: &Indicator) -> Result<Self, String> {
        let mut queries = Vec::new();
        for text in indicator.reading.queries() {
            let expr = parse(text).map_err(|error| error.to_string())?;
            queries.push((text.to_owned(), expr));
        }
        Ok(Self { indicator: indicator.clone(), queries })
    }

    /// Reads the answers that this asks for.
    pub(crate) fn meter(&self) -> Meter {
        let is_summed = |place: usize| self.queries.get(place).is_some_and(|(_, expr)| is_summed(expr));
        Meter::new(&self.indicator, [is_summed(0), is_summed(1)])
    }

    /// Asks about one second.
    pub(crate) fn ask(
        &self,
        series: &dyn Series,
        second: u64,
        cancel: &AtomicBool,
    ) -> Result<Vec<Vec<Element>>, String> {
        let (at_ms, options) = (millis(second), self.options());
        let mut answers = Vec::new();
        for (text, expr) in &self.queries {
            let answer = query_expr(text, expr, series, Times::Instant(at_ms), &options, cancel);
            let answer = answer.map_err(|error| error.to_string())?;
            answers.push(self.elements(answer.data)?);
        }
        Ok(answers)
    }

    /// Asks about every look from a second on to another; answers by second, one list for each query.
    pub(crate) fn ask_range(
        &self,
        series: &dyn Series,
        (from, to): (u64, u64),
        cancel: &AtomicBool,
    ) -> Result<Vec<BTreeMap<u64, Vec<Element>>>, String> {
        let interval = self.indicator.interval_seconds.max(1);
        let times = Times::Range { start_ms: millis(from), end_ms: millis(to), step_ms: millis(interval) };
        let options = self.options();
        let mut answers = Vec::new();
        for (text, expr) in &self.queries {
            let answer = query_expr(text, expr, series, times, &options, cancel);
            let Data::Matrix(found) = answer.map_err(|error| error.to_string())?.data else {
                return Err("the answer is neither a number nor a vector".to_owned());
            };
            // Every look is there, also one that found nothing.
            let looks = (from..=to).step_by(usize::try_from(interval).unwrap_or(1));
            let mut by_second: BTreeMap<u64, Vec<Element>> =
                looks.map(|second| (second, Vec::new())).collect();
            for one in found {
                if !one.histograms.is_empty() {
                    return Err("the answer is histograms: ask for histogram_count(...)".to_owned());
                }
                for (at_ms, value) in &one.floats {
                    let second = u64::try_from(at_ms / 1_000).unwrap_or(0);
                    if let Some(elements) = by_second.get_mut(&second) {
                        elements.push(self.element(&one.labels, *value));
                    }
                }
            }
            answers.push(by_second);
        }
        Ok(answers)
    }

    fn options(&self) -> Options {
        Options {
            // What is older than this is no longer said by anybody, so that a source that is away is noticed.
            lookback_ms: millis(self.indicator.interval_seconds).saturating_mul(5).clamp(120_000, 300_000),
            samples_max: SAMPLES_MAX,
            subquery_step_ms: 60_000,
            experimental: false,
        }
    }

    fn elements(&self, data: Data) -> Result<Vec<Element>, String> {
        let one = |labels: &Labels, value: f64| self.element(labels, value);
        match data {
            Data::Scalar(_, value) => Ok(vec![one(&Labels::default(), value)]),
            Data::Vector(samples) => samples
                .into_iter()
                .map(|sample| match sample.value {
                    Value::Float(value) => Ok(one(&sample.labels, value)),
                    Value::Histogram(_) => {
                        Err("the answer is histograms: ask for histogram_count(...)".to_owned())
                    }
                })
                .collect(),
            Data::Text(..) | Data::Matrix(_) => Err("the answer is neither a number nor a vector".to_owned()),
        }
    }

    /// An element with what makes it the same one the next time.
    pub(crate) fn element(&self, labels: &Labels, value: f64) -> Element {
        let identity = labels.iter().fold(String::new(), |mut text, (name, value)| {
            text.extend([name, "\u{1}", value, "\u{2}"]);
            text
        });
        let origin = format!("{}\u{1}{}", labels.get("job"), labels.get("instance"));
        let label = self.indicator.groups.label.as_deref();
        let group = label.map_or(String::new(), |label| labels.get(label).to_owned());
        Element { identity, origin, group, value }
    }
}

impl Queries {
    pub(crate) fn new(rules: &[Rule], metrics: Option<Metrics>, signals: Signals) -> Self {
        let mut asked = Vec::new();
        for (rule, of_rule) in rules.iter().enumerate() {
            let Source::Queries(indicator) = &of_rule.slo.source else { continue };
            let name = of_rule.slo.name.clone();
            match Asker::new(indicator) {
                Ok(asker) => {
                    let meter = asker.meter();
                    let asker = Arc::new(asker);
                    let (due_second, is_out, has_failed) = (0, false, false);
                    asked.push(Asked { rule, name, asker, meter, due_second, is_out, has_failed });
                }
                Err(message) => signals.slo_query_failed(&name, true, &message),
            }
        }
        Self { asked, metrics, running: JoinSet::new(), signals }
    }

    /// Asks for those that are due in the second `now`, as far as there is room; the others are asked a second later.
    pub(crate) fn begin_due(&mut self, now: u64) {
        let Some(metrics) = self.metrics.clone() else { return };
        for (place, asked) in self.asked.iter_mut().enumerate() {
            let interval = asked.asker.indicator.interval_seconds.max(1);
            // A clock that went back far would make it wait for the time that it denies.
            let is_due = asked.due_second <= now || asked.due_second > now.saturating_add(2 * interval);
            if asked.is_out || !is_due || self.running.len() >= EVALUATIONS_MAX {
                continue;
            }
            asked.is_out = true;
            // Whole multiples of the interval, so that a restart asks at the same seconds.
            asked.due_second = (now / interval + 1) * interval;
            let patience = Duration::from_secs(interval).clamp(PATIENCE_MIN, PATIENCE_MAX);
            self.running.spawn(answer(place, now, asked.asker.clone(), metrics.read.clone(), patience));
        }
    }

    /// Waits for the next answer; for ever when nothing was asked. Safe to drop and call again.
    pub(crate) async fn next(&mut self) -> Option<Found> {
        if self.running.is_empty() {
            return std::future::pending().await;
        }
        let answered = match self.running.join_next().await? {
            Ok(answered) => answered,
            Err(_broken) => {
                // Nobody knows whose it was: all that are out are asked again.
                self.asked.iter_mut().for_each(|asked| asked.is_out = false);
                return None;
            }
        };
        self.take(answered)
    }

    fn take(&mut self, answered: Answered) -> Option<Found> {
        let asked = self.asked.get_mut(answered.place)?;
        asked.is_out = false;
        self.signals.slo_was_asked(answered.took.as_secs_f64());
        let metered = answered.answers.and_then(|answers| {
            asked.meter.sample(answered.second, &answers).map_err(|error| error.to_string())
        });
        match metered {
            Ok(metered) => {
                asked.has_failed = false;
                let beyond = asked.meter.overflowed();
                Some(Found { rule: asked.rule, second: answered.second, metered, beyond })
            }
            Err(message) => {
                self.signals.slo_query_failed(&asked.name, !asked.has_failed, &message);
                asked.has_failed = true;
                None
            }
        }
    }
}

async fn answer(place: usize, second: u64, asker: Arc<Asker>, read: Read, patience: Duration) -> Answered {
    let began = Instant::now();
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = cancel.clone();
    let mut working = tokio::task::spawn_blocking(move || {
        let mut answers = Err("the store was not asked".to_owned());
        read(&flag, &mut |series| answers = asker.ask(series, second, &flag));
        answers
    });
    let worked = tokio::select! {
        worked = &mut working => worked,
        () = tokio::time::sleep(patience) => {
            cancel.store(true, Ordering::Relaxed);
            working.await
        }
    };
    let answers = worked.unwrap_or_else(|_| Err("the evaluation broke".to_owned()));
    Answered { place, second, answers, took: began.elapsed() }
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

/// Whether elements are made of several series, so that nobody can tell why one shrank.
fn is_summed(expr: &Expr) -> bool {
    match &expr.node {
        Node::Aggregate(_) => true,
        Node::Paren(inner) | Node::Unary { operand: inner, .. } => is_summed(inner),
        Node::Binary(binary) => is_summed(&binary.left) || is_summed(&binary.right),
        Node::Call(_, arguments) => arguments.iter().any(is_summed),
        Node::Subquery(subquery) => is_summed(&subquery.inner),
        Node::Number(_) | Node::Text(_) | Node::Vector(_) | Node::Range(..) => false,
    }
}
