//! OpenTelemetry's names as Prometheus writes them ("OTLP metric points to Prometheus" of the OpenTelemetry
//! specification, compatibility/prometheus_and_openmetrics.md): legal characters, units and `_total` as suffixes.

use std::sync::Arc;

use belfry_signal::SeriesLabels;

/// Bytes of a label's value; a point with a longer one is refused.
pub(super) const LABEL_BYTES_MAX: usize = 1024;
/// Labels of one series; a point with more is refused.
pub(super) const LABELS_MAX: usize = 64;

/// Units of UCUM, and the words for them.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
];
/// What stands after the slash of a rate.
const PER_UNITS: &[(&str, &str)] = &[
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// What a metric is, as far as its name shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Counter,
    Gauge,
    Other,
}

/// The metric's name with unit and `_total`, each once.
pub(super) fn metric_name(name: &str, unit: &str, form: Form) -> String {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == ':'))
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let mut parts = words(name);
    let (main, per) = unit.split_once('/').map_or((unit, None), |(main, per)| (main, Some(per)));
    let named = |unit: &str, table: &[(&str, &str)]| -> Vec<String> {
        // Annotations in braces are no units: `{request}`.
        if unit.contains(['{', '}']) {
            return Vec::new();
        }
        let word = table.iter().find(|(short, _)| *short == unit).map_or(unit, |(_, word)| *word);
        words(word)
    };
    let main = if main.trim() == "1" { Vec::new() } else { named(main.trim(), UNITS) };
    let per = per.map(|per| named(per.trim(), PER_UNITS)).unwrap_or_default();
    if form == Form::Counter {
        parts.retain(|word| word != "total");
    }
    for word in main {
        if !parts.contains(&word) {
            parts.push(word);
        }
    }
    if !per.is_empty() && !parts.ends_with(&per) {
        parts.push("per".to_owned());
        parts.extend(per);
    }
    match form {
        Form::Counter => parts.push("total".to_owned()),
        Form::Gauge if unit.trim() == "1" && !parts.iter().any(|word| word == "ratio") => {
            parts.push("ratio".to_owned());
        }
        Form::Gauge | Form::Other => {}
    }
    let joined = parts.join("_");
    if joined.starts_with(|c: char| c.is_ascii_digit()) { format!("_{joined}") } else { joined }
}

/// A label's name: legal characters only, not beginning with a digit, not one of ours.
pub(super) fn label_name(key: &str) -> String {
    let mut name: String =
        key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "key_");
    } else if name.starts_with("__") {
        name.insert_str(0, "key");
    }
    name
}

/// Labels as they are gathered: keys that become one name have their values joined, as the specification asks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Labels(Vec<(String, String)>);

impl Labels {
    /// Adds attributes, in the order of their keys.
    pub(super) fn add_all(&mut self, mut attributes: Vec<(String, String)>) {
        attributes.sort();
        let from = self.0.len();
        for (key, value) in attributes {
            let name = label_name(&key);
            match self.0[from..].iter_mut().find(|(other, _)| *other == name) {
                Some((_, joined)) => {
                    joined.push(';');
                    joined.push_str(&value);
                }
                None => self.set(&name, &value),
            }
        }
    }

    /// Sets a label whose name is legal; an earlier one of that name goes.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|(other, _)| other != name);
        if !value.is_empty() {
            self.0.push((name.to_owned(), value.to_owned()));
        }
    }

    /// Adds a point's own labels, which are stronger than what all of its resource have, but for whose it is.
    pub(super) fn add_own(&mut self, own: Self) {
        for (name, value) in own.0 {
            if name != "job" && name != "instance" || !self.0.iter().any(|(other, _)| *other == name) {
                self.set(&name, &value);
            }
        }
    }

    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let mut labels = self.clone();
        labels.set(name, value);
        labels
    }

    /// Bytes of all names and values.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len() + 64).sum()
    }

    pub(super) fn is_within_bounds(&self) -> bool {
        self.0.len() <= LABELS_MAX
            && self
                .0
                .iter()
                .all(|(name, value)| name.len() <= LABEL_BYTES_MAX && value.len() <= LABEL_BYTES_MAX)
    }

    /// The labels of a series of this metric.
    pub(super) fn of_metric(&self, metric: &str) -> SeriesLabels {
        let mut labels: Vec<(Arc<str>, Arc<str>)> =
            self.0.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
        labels.push(("__name__".into(), metric.into()));
        labels.sort();
        labels.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_units_and_kinds_once() {
        let check = |name: &str, unit: &str, form: Form, expected: &str| {
            assert_eq!(metric_name(name, unit, form), expected, "{name} {unit}");
        };
        check("http.server.request.duration", "s", Form::Other, "http_server_request_duration_seconds");
        check("http_server_duration_seconds", "s", Form::Other, "http_server_duration_seconds");
        check("system.disk.io", "By", Form::Counter, "system_disk_io_bytes_total");
        check("requests_total", "1", Form::Counter, "requests_total");
        check("requests", "{request}", Form::Counter, "requests_total");
        check("system.memory.utilization", "1", Form::Gauge, "system_memory_utilization_ratio");
        check("speed", "m/s", Form::Gauge, "speed_meters_per_second");
        check("cpu.load", "%", Form::Gauge, "cpu_load_percent");
        check("3xx", "", Form::Gauge, "_3xx");
        check("größe", "", Form::Gauge, "gr_e");
    }

    #[test]
    fn labels_are_legal_and_collisions_are_joined() {
        let mut labels = Labels::default();
        labels.add_all(vec![
            ("a_b".into(), "2".into()),
            ("a.b".into(), "1".into()),
            ("9".into(), "x".into()),
        ]);
        labels.set("job", "");
        let shown: Vec<String> =
            labels.of_metric("m").iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["__name__=m", "a_b=1;2", "key_9=x"]);
    }
}
