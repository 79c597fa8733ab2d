//! What an eval expects, and whether it got it.

use std::collections::BTreeMap;

use super::points::Point;
use super::{series_line, time};
use crate::annotation::{Annotations, Severity};
use crate::engine::{Answer, Data, Times};
use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::source::{SeriesData, Value};
use crate::text;

/// Results may differ from what is written by this share.
const TOLERANCE: f64 = 1e-6;

/// How a message is recognised.
enum Message {
    Any,
    Exact(String),
    Pattern(regex::Regex),
}

impl Message {
    fn read(text: &str) -> Result<Message, String> {
        let text = text.trim();
        if let Some(exact) = text.strip_prefix("msg:") {
            return Ok(Message::Exact(exact.trim().to_owned()));
        }
        match text.strip_prefix("regex:") {
            Some(pattern) => {
                regex::Regex::new(pattern.trim()).map(Message::Pattern).map_err(|e| e.to_string())
            }
            None => Ok(Message::Any),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Message::Any => true,
            Message::Exact(exact) => exact == text,
            Message::Pattern(pattern) => pattern.is_match(text),
        }
    }

    fn describe(&self) -> String {
        match self {
            Message::Any => "anything".to_owned(),
            Message::Exact(exact) => exact.clone(),
            Message::Pattern(pattern) => pattern.to_string(),
        }
    }
}

/// The expectations of one eval.
#[derive(Default)]
pub(super) struct Expected {
    failures: Vec<Message>,
    warnings: Vec<Message>,
    infos: Vec<Message>,
    no_warning: bool,
    no_info: bool,
    is_ordered: bool,
    is_range_vector: Option<(i64, i64)>,
    text: Option<String>,
    scalar: Option<f64>,
    series: Vec<(Labels, Vec<Point>)>,
}

impl Expected {
    /// Reads the lines below an eval; `kind` is what follows `eval_` in the older form.
    pub(super) fn read(kind: &str, lines: &[&str]) -> Result<Expected, String> {
        let mut expected = Expected::default();
        match kind {
            "fail" => expected.failures.push(Message::Any),
            "warn" => expected.warnings.push(Message::Any),
            "info" => expected.infos.push(Message::Any),
            "ordered" => expected.is_ordered = true,
            _ => {}
        }
        for line in lines {
            if let Some(rest) = line.strip_prefix("expect ") {
                expected.read_expectation(rest.trim())?;
            } else if let Some(message) = line.strip_prefix("expected_fail_message ") {
                expected.failures = vec![Message::Exact(message.trim().to_owned())];
            } else if let Some(pattern) = line.strip_prefix("expected_fail_regexp ") {
                expected.failures = vec![Message::read(&format!("regex:{pattern}"))?];
            } else if let Some(value) = text::parse_float(line) {
                expected.scalar = Some(value);
            } else {
                expected.series.push(series_line(line)?);
            }
        }
        Ok(expected)
    }

    fn read_expectation(&mut self, line: &str) -> Result<(), String> {
        let (kind, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match kind {
            "fail" => self.failures.push(Message::read(rest)?),
            "warn" => self.warnings.push(Message::read(rest)?),
            "info" => self.infos.push(Message::read(rest)?),
            "no_warn" => self.no_warning = true,
            "no_info" => self.no_info = true,
            "ordered" => self.is_ordered = true,
            "string" => {
                let literal = rest.trim();
                let body =
                    literal.get(1..literal.len().saturating_sub(1)).ok_or("expected a quoted string")?;
                let is_raw = literal.starts_with('`');
                self.text = Some(if is_raw { body.to_owned() } else { text::unescape(body)? });
            }
            "range" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let ["vector", "from", from, "to", _, "step", step] = words.as_slice() else {
                    return Err("expected \"range vector from A to B step S\"".to_owned());
                };
                self.is_range_vector = Some((time(from)?, time(step)?));
            }
            _ => return Err(format!("unknown expectation {kind:?}")),
        }
        Ok(())
    }

    pub(super) fn is_comparable_over_range(&self) -> bool {
        !self.is_ordered && self.text.is_none() && self.is_range_vector.is_none()
    }

    pub(super) fn check_failure(&self, error: &str) -> Result<(), String> {
        if self.failures.is_empty() {
            return Err(format!("failed: {error}"));
        }
        match self.failures.iter().find(|message| !message.matches(error)) {
            Some(message) => Err(format!("failed with {error:?}, expected {:?}", message.describe())),
            None => Ok(()),
        }
    }

    pub(super) fn check_answer(&self, answer: &Answer, times: Times) -> Result<(), String> {
        if !self.failures.is_empty() {
            return Err("expected a failure".to_owned());
        }
        self.check_annotations(&answer.annotations)?;
        match (&answer.data, times) {
            (Data::Text(_, text), _) => match &self.text {
                Some(expected) if expected == text => Ok(()),
                _ => Err(format!("got string {text:?}, expected {:?}", self.text)),
            },
            (Data::Scalar(_, value), _) => match self.scalar {
                Some(expected) if almost_equal(expected, *value) => Ok(()),
                _ => Err(format!("got {value}, expected {:?}", self.scalar)),
            },
            (Data::Vector(samples), _) => {
                let found: Vec<(&Labels, &Value)> = samples.iter().map(|s| (&s.labels, &s.value)).collect();
                self.check_vector(&found)
            }
            (Data::Matrix(series), Times::Range { start_ms, step_ms, .. }) => {
                self.check_matrix(series, start_ms, step_ms)
            }
            (Data::Matrix(series), Times::Instant(_)) => {
                let (start, step) = self.is_range_vector.ok_or("got a range vector")?;
                self.check_matrix(series, start, step)
            }
        }
    }

    /// Whether a range query gave the expected vector at one of its times.
    pub(super) fn check_at(&self, answer: &Answer, at: i64) -> Result<(), String> {
        let Data::Matrix(series) = &answer.data else { return Err("got no matrix".to_owned()) };
        let mut held = Vec::new();
        for series in series {
            let float =
                series.floats.iter().find(|(time, _)| *time == at).map(|(_, value)| Value::Float(*value));
            let histogram = series.histograms.iter().find(|(time, _)| *time == at);
            if let Some(value) = float.or(histogram.map(|(_, value)| Value::Histogram(value.clone()))) {
                held.push((&series.labels, value));
            }
        }
        if let Some(expected) = self.scalar {
            return match held.as_slice() {
                [(_, Value::Float(value))] if almost_equal(expected, *value) => Ok(()),
                _ => Err(format!("got {} values, expected {expected}", held.len())),
            };
        }
        let found: Vec<(&Labels, &Value)> = held.iter().map(|(labels, value)| (*labels, value)).collect();
        self.check_vector(&found)
    }

    fn check_annotations(&self, annotations: &Annotations) -> Result<(), String> {
        let kinds = [
            (Severity::Warning, &self.warnings, self.no_warning),
            (Severity::Info, &self.infos, self.no_info),
        ];
        for (severity, expected, wants_none) in kinds {
            let found: Vec<String> = annotations.of(severity).map(ToString::to_string).collect();
            if wants_none && !found.is_empty() {
                return Err(format!("unexpected annotation {:?}", found[0]));
            }
            if let Some(message) =
                expected.iter().find(|message| !found.iter().any(|text| message.matches(text)))
            {
                return Err(format!("no annotation {:?}, found {found:?}", message.describe()));
            }
            let unexplained = found.iter().find(|text| !expected.iter().any(|message| message.matches(text)));
            if let Some(text) = unexplained.filter(|_| !expected.is_empty()) {
                return Err(format!("unexpected annotation {text:?}"));
            }
        }
        Ok(())
    }

    fn check_vector(&self, found: &[(&Labels, &Value)]) -> Result<(), String> {
        for (at, (labels, points)) in self.series.iter().enumerate() {
            let Some(Point::Sample { value, has_hint }) = points.first() else { continue };
            let place = found.iter().position(|(held, _)| *held == labels);
            let Some(place) = place else { return Err(format!("series {labels} is missing")) };
            if self.is_ordered && place != at {
                return Err(format!("series {labels} is at place {place}, expected {at}"));
            }
            check_value(value, found[place].1, *has_hint)
                .map_err(|message| format!("{labels}: {message}"))?;
        }
        for (labels, value) in found {
            if !self.series.iter().any(|(expected, _)| expected == *labels) {
                return Err(format!("unexpected series {labels} {}", describe(value)));
            }
        }
        Ok(())
    }

    fn check_matrix(&self, found: &[SeriesData], start: i64, step: i64) -> Result<(), String> {
        for (labels, points) in &self.series {
            let series = found.iter().find(|series| series.labels == *labels);
            let mut held: BTreeMap<i64, Value> = BTreeMap::new();
            if let Some(series) = series {
                held.extend(series.floats.iter().map(|(time, value)| (*time, Value::Float(*value))));
                held.extend(
                    series.histograms.iter().map(|(time, value)| (*time, Value::Histogram(value.clone()))),
                );
            }
            for (at, point) in points.iter().enumerate() {
                let at = start + step * at as i64;
                match (point, held.remove(&at)) {
                    (Point::Missing, None) => {}
                    (Point::Sample { value, has_hint }, Some(got)) => {
                        check_value(value, &got, *has_hint)
                            .map_err(|text| format!("{labels} at {at}: {text}"))?;
                    }
                    (Point::Missing, Some(got)) => {
                        return Err(format!("{labels} at {at}: got {}, expected nothing", describe(&got)));
                    }
                    (Point::Sample { value, .. }, None) => {
                        return Err(format!("{labels} at {at}: got nothing, expected {}", describe(value)));
                    }
                }
            }
            if let Some((at, got)) = held.first_key_value() {
                return Err(format!("{labels} at {at}: got {}, expected nothing", describe(got)));
            }
        }
        match found.iter().find(|series| !self.series.iter().any(|(labels, _)| *labels == series.labels)) {
            Some(series) => Err(format!("unexpected series {}", series.labels)),
            None => Ok(()),
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Float(value) => text::format_short(*value),
        Value::Histogram(histogram) => {
            format!("{histogram} schema {} {:?}", histogram.schema, histogram.hint)
        }
    }
}

fn check_value(expected: &Value, got: &Value, has_hint: bool) -> Result<(), String> {
    let is_equal = match (expected, got) {
        (Value::Float(expected), Value::Float(got)) => almost_equal(*expected, *got),
        (Value::Histogram(expected), Value::Histogram(got)) => {
            (!has_hint || expected.hint == got.hint) && almost_same(expected, got)
        }
        _ => false,
    };
    if is_equal { Ok(()) } else { Err(format!("got {}, expected {}", describe(got), describe(expected))) }
}

fn almost_equal(left: f64, right: f64) -> bool {
    if left == right || (left.is_nan() && right.is_nan()) {
        return true;
    }
    let (total, distance) = (left.abs() + right.abs(), (left - right).abs());
    if left == 0.0 || right == 0.0 || total < f64::MIN_POSITIVE {
        return distance < TOLERANCE * f64::MIN_POSITIVE;
    }
    distance / total.min(f64::MAX) < TOLERANCE
}

fn almost_same(expected: &Histogram, got: &Histogram) -> bool {
    let (expected, got) = (expected.clone().compacted(), got.clone().compacted());
    let same_buckets = |left: &[(i32, f64)], right: &[(i32, f64)]| {
        left.len() == right.len()
            && left.iter().zip(right).all(|(left, right)| left.0 == right.0 && almost_equal(left.1, right.1))
    };
    expected.schema == got.schema
        && almost_equal(expected.count, got.count)
        && almost_equal(expected.sum, got.sum)
        && almost_equal(expected.zero_count, got.zero_count)
        && almost_equal(expected.zero_threshold, got.zero_threshold)
        && expected.custom_bounds == got.custom_bounds
        && same_buckets(&expected.positive, &got.positive)
        && same_buckets(&expected.negative, &got.negative)
}
