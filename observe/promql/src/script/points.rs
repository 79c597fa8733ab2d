//! The point notation of scripts: `5 2+3x2 _ stale {{schema:1 sum:3 count:22 buckets:[5 10 7]}}`.

use std::sync::Arc;

use crate::histogram::{CounterReset, Histogram, combine};
use crate::source::{Value, stale_marker};
use crate::text;

/// One place in a series line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Point {
    /// `_`
    Missing,
    /// A value.
    Sample {
        /// The value.
        value: Value,
        /// Whether a reset hint was written, and so is to be compared.
        has_hint: bool,
    },
}

/// Reads all points of a line.
pub(super) fn parse(text: &str) -> Result<Vec<Point>, String> {
    let mut reader = Reader { rest: text.trim_start() };
    let mut points = Vec::new();
    while !reader.rest.is_empty() {
        reader.item(&mut points)?;
        let before = reader.rest.len();
        reader.rest = reader.rest.trim_start();
        if before == reader.rest.len() && !reader.rest.is_empty() {
            return Err(format!("expected a blank before {:?}", reader.rest));
        }
    }
    Ok(points)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn accept(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// `x10`: how many more times.
    fn repeats(&mut self) -> Result<Option<usize>, String> {
        if !self.accept("x") {
            return Ok(None);
        }
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let repeats = self.rest[..digits].parse().map_err(|_| "expected a number after x".to_owned())?;
        self.rest = &self.rest[digits..];
        Ok(Some(repeats))
    }

    fn item(&mut self, points: &mut Vec<Point>) -> Result<(), String> {
        if self.accept("_") {
            let count = self.repeats()?.unwrap_or(1);
            points.extend(std::iter::repeat_n(Point::Missing, count));
            return Ok(());
        }
        if self.accept("stale") {
            points.push(Point::Sample { value: Value::Float(stale_marker()), has_hint: false });
            return Ok(());
        }
        if self.rest.starts_with("{{") {
            return self.histograms(points);
        }
        let first = self.number()?;
        let mut increment = 0.0;
        if self.rest.starts_with(['+', '-']) {
            increment = self.number()?;
        }
        let mut value = first;
        for _ in 0..=self.repeats()?.unwrap_or(0) {
            points.push(Point::Sample { value: Value::Float(value), has_hint: false });
            value += increment;
        }
        Ok(())
    }

    /// A float whose `x`, if one follows, belongs to a repetition.
    fn number(&mut self) -> Result<f64, String> {
        let bytes = self.rest.as_bytes();
        let mut end = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
        while end < bytes.len() {
            let is_exponent_sign = matches!(bytes[end], b'+' | b'-')
                && matches!(bytes[end - 1], b'e' | b'E')
                && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
            let belongs = bytes[end].is_ascii_digit() || bytes[end] == b'.' || is_exponent_sign;
            let is_letter = bytes[end].is_ascii_alphabetic() && bytes[end] != b'x';
            if !belongs && !is_letter {
                break;
            }
            end += 1;
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.parse().map_err(|_| format!("bad value {word:?}, expected a float, _, stale or {{{{...}}}}"))
    }

    fn histograms(&mut self, points: &mut Vec<Point>) -> Result<(), String> {
        let (mut current, has_hint) = self.histogram()?;
        let mut increment = None;
        for (sign, factor) in [("+{{", 1.0), ("-{{", -1.0)] {
            if self.rest.starts_with(sign) {
                self.rest = &self.rest[1..];
                increment = Some((self.histogram()?.0, factor));
            }
        }
        for at in 0..=self.repeats()?.unwrap_or(0) {
            if let Some((increment, factor)) = increment.as_ref().filter(|_| at > 0) {
                let sum = combine(&current, increment, *factor);
                current = sum.map_err(|_| "histograms of different kinds do not add".to_owned())?.histogram;
            }
            points.push(Point::Sample { value: Value::Histogram(Arc::new(current.clone())), has_hint });
        }
        Ok(())
    }

    fn histogram(&mut self) -> Result<(Histogram, bool), String> {
        let end = self.rest.find("}}").ok_or("expected }} after a histogram")?;
        let body = &self.rest[2..end];
        self.rest = &self.rest[end + 2..];
        let mut histogram = Histogram::default();
        let (mut offset, mut negative_offset, mut has_hint) = (0, 0, false);
        let (mut positive, mut negative) = (Vec::new(), Vec::new());
        let mut rest = body.trim();
        while !rest.is_empty() {
            let (field, after) =
                rest.split_once(':').ok_or_else(|| format!("expected name:value at {rest:?}"))?;
            let value_end = if after.starts_with('[') {
                after.find(']').ok_or("expected ] after a list")? + 1
            } else {
                after.find(char::is_whitespace).unwrap_or(after.len())
            };
            let (value, after) = after.split_at(value_end);
            match field {
                "schema" => histogram.schema = integer(value)?,
                "sum" => histogram.sum = float(value)?,
                "count" => histogram.count = float(value)?,
                "z_bucket" => histogram.zero_count = float(value)?,
                "z_bucket_w" => histogram.zero_threshold = float(value)?,
                "custom_values" => histogram.custom_bounds = list(value)?.into(),
                "buckets" => positive = list(value)?,
                "n_buckets" => negative = list(value)?,
                "offset" => offset = integer(value)?,
                "n_offset" => negative_offset = integer(value)?,
                "counter_reset_hint" => {
                    has_hint = true;
                    histogram.hint = match value {
                        "gauge" => CounterReset::Gauge,
                        "reset" => CounterReset::Reset,
                        "not_reset" => CounterReset::NotReset,
                        "unknown" => CounterReset::Unknown,
                        _ => return Err(format!("bad counter_reset_hint {value:?}")),
                    };
                }
                _ => return Err(format!("unknown histogram field {field:?}")),
            }
            rest = after.trim_start();
        }
        histogram.positive = indexed(offset, &positive);
        histogram.negative = indexed(negative_offset, &negative);
        Ok((histogram, has_hint))
    }
}

fn indexed(offset: i32, counts: &[f64]) -> Vec<(i32, f64)> {
    counts.iter().enumerate().map(|(at, count)| (offset + at as i32, *count)).collect()
}

fn float(text: &str) -> Result<f64, String> {
    text::parse_float(text).ok_or_else(|| format!("bad number {text:?}"))
}

fn integer(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| format!("bad integer {text:?}"))
}

fn list(text: &str) -> Result<Vec<f64>, String> {
    text.trim_matches(['[', ']']).split_whitespace().map(float).collect()
}
