//! Unit tests of rule files in promtool's format: series in, alerts and query results out.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use belfry_promql::{
    Data, Labels, MemorySeries, Options, Times, Value, format_short, parse_points, parse_series_name, query,
};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::alerting::AlertState;
use crate::file::{GroupSpec, RuleKind};
use crate::group::{Environment, Group, Health, Limits};
use crate::yaml::{self, Collector, Faults};

#[cfg(test)]
mod tests;

const MINUTE_MS: i64 = 60_000;
/// How many evaluations one test may take.
const EVALUATIONS_MAX: i64 = 1_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    rule_files: Vec<Spanned<String>>,
    evaluation_interval: Option<Spanned<String>>,
    #[serde(default)]
    fuzzy_compare: bool,
    #[serde(default)]
    group_eval_order: Vec<Spanned<String>>,
    #[serde(default)]
    tests: Vec<Spanned<TestText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestText {
    interval: Option<Spanned<String>>,
    #[serde(default)]
    input_series: Vec<SeriesText>,
    name: Option<String>,
    #[serde(default)]
    alert_rule_test: Vec<Spanned<AlertTest>>,
    #[serde(default)]
    promql_expr_test: Vec<Spanned<QueryTest>>,
    #[serde(default)]
    external_labels: BTreeMap<String, String>,
    #[serde(default)]
    external_url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesText {
    series: Spanned<String>,
    values: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertTest {
    eval_time: Spanned<String>,
    #[serde(default)]
    alertname: String,
    #[serde(default)]
    exp_alerts: Option<Vec<ExpectedAlert>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedAlert {
    #[serde(default)]
    exp_labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    exp_annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryTest {
    expr: Spanned<String>,
    eval_time: Spanned<String>,
    #[serde(default)]
    exp_samples: Option<Vec<ExpectedSample>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedSample {
    labels: Spanned<String>,
    #[serde(default)]
    value: Option<f64>,
    histogram: Option<Spanned<String>>,
}

/// What became of the tests of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitReport {
    /// Checks that held.
    pub passed: usize,
    /// Those that did not: what was expected and what was found.
    pub failed: Vec<String>,
}

/// What a query gives.
type Samples = Vec<(Labels, Value)>;
/// An alert as it is compared.
type Compared = (Labels, Vec<(String, String)>);

/// The rule files that a file of tests names, as patterns relative to it.
///
/// # Errors
/// When it is no file of tests.
pub fn rule_file_patterns(text: &str) -> Result<Vec<String>, Faults> {
    let read: FileText = yaml::read(text)?;
    Ok(read.rule_files.into_iter().map(|name| name.value).collect())
}

/// Runs the tests of a file on the groups of its rule files.
///
/// # Errors
/// When it is no file of tests; a test that fails is in the report.
pub fn run_unit_tests(text: &str, groups: &[GroupSpec]) -> Result<UnitReport, Faults> {
    let read: FileText = yaml::read(text)?;
    let mut faults = Collector::default();
    let step_ms =
        read.evaluation_interval.as_ref().map_or(MINUTE_MS, |text| yaml::duration(text, &mut faults));
    if step_ms <= 0 {
        faults.on_place(read.evaluation_interval.as_ref(), "evaluation_interval must be longer than nothing");
    }
    let mut order: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, name) in read.group_eval_order.iter().enumerate() {
        if order.insert(&name.value, place).is_some() {
            faults.on(name, format!("group name repeated in evaluation order: {}", name.value));
        }
    }
    let mut groups = groups.to_vec();
    groups.sort_by_key(|group| order.get(group.name.as_str()).copied().unwrap_or(0));
    let mut tests = Vec::new();
    for test in &read.tests {
        tests.push(Test::read(&test.value, step_ms, read.fuzzy_compare, &mut faults));
    }
    let tests = faults.finish(tests)?;
    let mut report = UnitReport::default();
    for test in tests {
        test.run(&groups, &mut report);
    }
    Ok(report)
}

impl Collector {
    fn on_place<T>(&mut self, value: Option<&Spanned<T>>, message: &str) {
        if let Some(value) = value {
            self.on(value, message);
        }
    }
}

/// One test, ready to run.
struct Test<'a> {
    text: &'a TestText,
    step_ms: i64,
    is_fuzzy: bool,
    store: MemorySeries,
    /// When alerts are asked for, with what is expected.
    alerts: Vec<(i64, &'a AlertTest)>,
    queries: Vec<(i64, &'a QueryTest, Samples)>,
}

impl<'a> Test<'a> {
    fn read(text: &'a TestText, step_ms: i64, is_fuzzy: bool, faults: &mut Collector) -> Self {
        let interval_ms = text.interval.as_ref().map_or(step_ms, |text| yaml::duration(text, faults));
        let mut test =
            Test { text, step_ms, is_fuzzy, store: MemorySeries::new(), alerts: vec![], queries: vec![] };
        for series in &text.input_series {
            let labels = parse_series_name(&series.series.value)
                .map_err(|error| faults.on(&series.series, format!("series: {error}")));
            let points = parse_points(&series.values.value)
                .map_err(|error| faults.on(&series.values, format!("values: {error}")));
            let (Ok(labels), Ok(points)) = (labels, points) else { continue };
            for (at, value) in (0..).zip(points) {
                if let Some(value) = value {
                    test.store.add(&labels, interval_ms.saturating_mul(at), value);
                }
            }
        }
        for alert in &text.alert_rule_test {
            let at_ms = yaml::duration(&alert.value.eval_time, faults);
            if alert.value.alertname.is_empty() {
                faults.on(alert, "an item under alert_rule_test misses required attribute alertname");
            }
            test.alerts.push((at_ms, &alert.value));
        }
        test.alerts.sort_by_key(|(at_ms, _)| *at_ms);
        for expected in &text.promql_expr_test {
            let at_ms = yaml::duration(&expected.value.eval_time, faults);
            let samples = expected.value.exp_samples.iter().flatten();
            let samples = samples.filter_map(|sample| read_sample(sample, faults)).collect();
            test.queries.push((at_ms, &expected.value, samples));
        }
        let last = test.last_ms();
        if last / step_ms.max(1) > EVALUATIONS_MAX {
            let message = format!("a test may take at most {EVALUATIONS_MAX} evaluations");
            faults.on_place(text.interval.as_ref(), &message);
        }
        test
    }

    fn last_ms(&self) -> i64 {
        let alerts = self.alerts.iter().map(|(at_ms, _)| *at_ms);
        alerts.chain(self.queries.iter().map(|(at_ms, ..)| *at_ms)).max().unwrap_or(0)
    }

    fn prefix(&self) -> String {
        self.text.name.as_ref().map_or_else(String::new, |name| format!("name: {name}, "))
    }

    fn run(mut self, groups: &[GroupSpec], report: &mut UnitReport) {
        let environment = Environment {
            external_labels: Labels::from_pairs(&self.text.external_labels),
            external_url: self.text.external_url.clone(),
            options: options(),
            limits: Limits { alerts_max: usize::MAX, series_max: usize::MAX },
        };
        let mut groups: Vec<Group> = groups.iter().cloned().map(Group::new).collect();
        let (mut at_ms, last_ms, mut next) = (0, self.last_ms(), 0);
        while at_ms <= last_ms {
            for group in &mut groups {
                let found =
                    group.evaluate(at_ms, &self.store, &environment, &AtomicBool::new(false), &|| 0.0);
                for point in found.points {
                    self.store.add(&point.labels, point.unix_millis, point.value);
                }
                let errors = group.rules().filter_map(|(rule, status)| match status.health {
                    Health::Failed(error) => Some((rule.name().to_owned(), error)),
                    _ => None,
                });
                let errors: Vec<_> = errors.collect();
                if !errors.is_empty() {
                    for (rule, error) in errors {
                        let seconds = at_ms / 1_000;
                        report
                            .failed
                            .push(format!("{}rule: {rule}, time: {seconds}s, err: {error}", self.prefix()));
                    }
                    return;
                }
            }
            // Prometheus' promtool looks at the evaluation at or before the time that is asked for.
            while let Some((asked_ms, alert)) =
                self.alerts.get(next).filter(|(t, _)| *t < at_ms + self.step_ms)
            {
                self.check_alert(*asked_ms, alert, &groups, report);
                next += 1;
            }
            at_ms += self.step_ms;
        }
        for (at_ms, expected, samples) in &self.queries {
            self.check_query(*at_ms, expected, samples, report);
        }
    }

    fn check_alert(&self, at_ms: i64, test: &AlertTest, groups: &[Group], report: &mut UnitReport) {
        let rules = groups.iter().flat_map(Group::rules);
        let alerts = rules
            .filter(|(rule, _)| matches!(rule.kind, RuleKind::Alert(_)) && rule.name() == test.alertname);
        let firing = alerts.flat_map(|(_, status)| status.alerts);
        let firing = firing.filter(|alert| alert.state == AlertState::Firing);
        let mut found: Vec<Compared> = firing.map(|alert| (alert.labels, alert.annotations)).collect();
        let mut expected: Vec<Compared> = test
            .exp_alerts
            .iter()
            .flatten()
            .map(|alert| {
                let labels = alert.exp_labels.iter().flatten();
                let labels = labels.map(|(name, value)| (name.as_str(), value.as_str()));
                let labels = Labels::from_pairs(labels.chain([("alertname", test.alertname.as_str())]));
                (labels, alert.exp_annotations.clone().unwrap_or_default().into_iter().collect())
            })
            .collect();
        found.sort();
        expected.sort();
        // An annotation that became empty is as good as none.
        let stripped = |alerts: &[Compared]| -> Vec<Compared> {
            let strip =
                |texts: &[(String, String)]| texts.iter().filter(|(_, t)| !t.is_empty()).cloned().collect();
            alerts.iter().map(|(labels, texts)| (labels.clone(), strip(texts))).collect()
        };
        if stripped(&found) == stripped(&expected) {
            report.passed += 1;
            return;
        }
        report.failed.push(format!(
            "{}alertname: {}, time: {}, \n  exp:{}\n  got:{}",
            self.prefix(),
            test.alertname,
            duration_text(at_ms),
            alerts_text(&expected),
            alerts_text(&found)
        ));
    }

    fn check_query(
        &self,
        at_ms: i64,
        test: &QueryTest,
        expected: &[(Labels, Value)],
        report: &mut UnitReport,
    ) {
        let head = format!("{}expr: {:?}, time: {}", self.prefix(), test.expr.value, duration_text(at_ms));
        let cancel = AtomicBool::new(false);
        let found = query(&test.expr.value, &self.store, Times::Instant(at_ms), &options(), &cancel);
        let mut found: Vec<(Labels, Value)> = match found.map(|answer| answer.data) {
            Ok(Data::Vector(samples)) => samples.into_iter().map(|s| (s.labels, s.value)).collect(),
            Ok(Data::Scalar(_, value)) => vec![(Labels::default(), Value::Float(value))],
            Ok(Data::Text(..) | Data::Matrix(_)) => {
                return report.failed.push(format!("{head}, err: rule result is not a vector or scalar"));
            }
            Err(error) => return report.failed.push(format!("{head}, err: {error}")),
        };
        let mut expected = expected.to_vec();
        found.sort_by(|left, right| left.0.cmp(&right.0));
        expected.sort_by(|left, right| left.0.cmp(&right.0));
        let is_same = |(left, right): (&(Labels, Value), &(Labels, Value))| {
            left.0 == right.0 && self.is_equal(&left.1, &right.1)
        };
        if found.len() == expected.len() && found.iter().zip(&expected).all(is_same) {
            report.passed += 1;
            return;
        }
        let (exp, got) = (samples_text(&expected), samples_text(&found));
        report.failed.push(format!("{head},\n  exp: {exp}\n  got: {got}"));
    }

    fn is_equal(&self, found: &Value, expected: &Value) -> bool {
        match (found, expected) {
            (Value::Float(found), Value::Float(expected)) => {
                let is_near =
                    (found - expected).abs() <= expected.abs().max(found.abs()) * f64::EPSILON * 4.0;
                found == expected || (found.is_nan() && expected.is_nan()) || (self.is_fuzzy && is_near)
            }
            (Value::Histogram(found), Value::Histogram(expected)) => {
                // Whether a counter was reset is not said by a test that does not say it.
                let expected = belfry_promql::Histogram { hint: found.hint, ..(**expected).clone() };
                **found == expected
            }
            _ => false,
        }
    }
}

fn read_sample(sample: &ExpectedSample, faults: &mut Collector) -> Option<(Labels, Value)> {
    let labels = parse_series_name(&sample.labels.value)
        .map_err(|error| faults.on(&sample.labels, format!("labels: {error}")))
        .ok()?;
    let Some(histogram) = &sample.histogram else {
        return Some((labels, Value::Float(sample.value.unwrap_or(0.0))));
    };
    match parse_points(&histogram.value).map(|mut points| points.pop()) {
        Ok(Some(Some(value @ Value::Histogram(_)))) => Some((labels, value)),
        Ok(_) => {
            faults.on(histogram, "expected one histogram, as {{schema:0 count:1 sum:2 buckets:[1]}}");
            None
        }
        Err(error) => {
            faults.on(histogram, error);
            None
        }
    }
}

fn options() -> Options {
    Options {
        lookback_ms: 5 * MINUTE_MS,
        samples_max: 50_000_000,
        subquery_step_ms: MINUTE_MS,
        experimental: false,
    }
}

fn alerts_text(alerts: &[Compared]) -> String {
    if alerts.is_empty() {
        return "[]".to_owned();
    }
    let lines: Vec<String> = (0..)
        .zip(alerts)
        .map(|(at, (labels, annotations))| {
            let annotations: Vec<String> =
                annotations.iter().map(|(name, text)| format!("{name}={text:?}")).collect();
            format!("\n    {at}: Labels:{labels} Annotations:{{{}}}", annotations.join(", "))
        })
        .collect();
    format!("[{}\n  ]", lines.concat())
}

fn samples_text(samples: &[(Labels, Value)]) -> String {
    if samples.is_empty() {
        return "nil".to_owned();
    }
    let value = |value: &Value| match value {
        Value::Float(value) => format_short(*value),
        Value::Histogram(histogram) => format!("{histogram:?}"),
    };
    samples.iter().map(|(labels, found)| format!("{labels} {}", value(found))).collect::<Vec<_>>().join(", ")
}

/// `5m`, `1h30m`.
fn duration_text(millis: i64) -> String {
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut rest = millis;
    let mut text = String::new();
    for (unit, size) in [("h", 3_600_000), ("m", MINUTE_MS), ("s", 1_000), ("ms", 1)] {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text
}
