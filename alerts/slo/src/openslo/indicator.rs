//! Data sources and indicators: from where numbers come, and what they count.

use super::tree::{Fields, Node, Notes};
use super::{Object, Reader};

/// Where numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataSource {
    /// The exact counts of this process.
    Belfry,
    /// PromQL on our own store of series.
    Prometheus,
}

/// An indicator, before an objective says what is asked of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sli {
    Journey(String),
    Counts { part: String, is_part_bad: bool, total: String, is_counter: bool, needs_part: bool },
    Ratio { query: String, is_failure: bool },
    Threshold { query: String },
}

/// What one metric source asks.
enum Ask {
    Journey { name: String, verdict: Option<String> },
    Query { text: String, is_histogram: bool },
}

/// What a metric source stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Good,
    Bad,
    Total,
    Only,
}

impl Reader<'_> {
    pub(super) fn data_source(&mut self, object: Object) -> Option<DataSource> {
        let mut spec = object.spec;
        let kind = spec.need(&mut self.notes, "type");
        let connection = spec.take("connectionDetails");
        spec.done(&mut self.notes);
        let source = data_source_of(&kind?, &mut self.notes)?;
        if let Some(node) = connection
            && let Some(mut details) = self.notes.fields("connectionDetails", node)
            && let Some((key, _)) = details.rest().first()
        {
            self.notes.fault(
                key.referenced,
                "Belfry asks its own store: leave connectionDetails empty, and bring metrics in by scraping, \
                 remote write or OTLP",
            );
        }
        Some(source)
    }

    pub(super) fn sli(&mut self, object: Object) -> Option<Sli> {
        let mut spec = object.spec;
        let (ratio, threshold) = (spec.take("ratioMetric"), spec.take("thresholdMetric"));
        let at = spec.at;
        spec.done(&mut self.notes);
        match (ratio, threshold) {
            (Some(ratio), None) => {
                let fields = self.notes.fields("ratioMetric", ratio)?;
                self.ratio(fields)
            }
            (None, Some(threshold)) => {
                let at = threshold.at;
                match self.metric(threshold, Role::Only)? {
                    Ask::Query { text, .. } => Some(Sli::Threshold { query: text }),
                    Ask::Journey { .. } => {
                        self.notes.fault(at, "a journey is counted, not measured: use a ratioMetric");
                        None
                    }
                }
            }
            _ => {
                self.notes.fault(at, "an indicator has either a ratioMetric or a thresholdMetric");
                None
            }
        }
    }

    fn ratio(&mut self, mut fields: Fields) -> Option<Sli> {
        let counter = fields.take("counter").and_then(|node| self.notes.flag("counter", &node));
        let [good, bad, total, raw, raw_type] =
            ["good", "bad", "total", "raw", "rawType"].map(|key| fields.take(key));
        let at = fields.at;
        fields.done(&mut self.notes);
        match (good, bad, total, raw) {
            (Some(part), None, Some(total), None) => self.counts(part, Role::Good, total, counter),
            (None, Some(part), Some(total), None) => self.counts(part, Role::Bad, total, counter),
            (None, None, None, Some(raw)) => {
                let Some(node) = raw_type else {
                    self.notes.fault(at, "rawType is missing: success or failure");
                    return None;
                };
                let is_failure = match self.notes.text("rawType", &node)?.as_str() {
                    "success" => false,
                    "failure" => true,
                    _ => {
                        self.notes.fault(node.at, "rawType is success or failure");
                        return None;
                    }
                };
                let at = raw.at;
                match self.metric(raw, Role::Only)? {
                    Ask::Query { text, .. } => Some(Sli::Ratio { query: text, is_failure }),
                    Ask::Journey { .. } => {
                        self.notes.fault(at, "a journey is counted: give good or bad, and total");
                        None
                    }
                }
            }
            _ => {
                self.notes
                    .fault(at, "a ratioMetric has good and total, or bad and total, or raw and rawType");
                None
            }
        }
    }

    fn counts(&mut self, part: Node, role: Role, total: Node, counter: Option<bool>) -> Option<Sli> {
        let (part_at, total_at) = (part.at, total.at);
        let (part, total) = (self.metric(part, role), self.metric(total, Role::Total));
        match (part?, total?) {
            (Ask::Journey { name, verdict }, Ask::Journey { name: all, verdict: None }) => {
                let wanted = if role == Role::Bad { "bad" } else { "good" };
                if verdict.as_deref() != Some(wanted) {
                    self.notes.fault(part_at, format!("this part of a journey has verdict: {wanted}"));
                }
                if name != all {
                    self.notes.fault(total_at, format!("the total is of the journey {name:?} too"));
                }
                Some(Sli::Journey(name))
            }
            (Ask::Query { text: part, is_histogram }, Ask::Query { text: total, .. }) => Some(Sli::Counts {
                part,
                is_part_bad: role == Role::Bad,
                total,
                is_counter: counter.unwrap_or(false) || is_histogram,
                needs_part: is_histogram,
            }),
            _ => {
                self.notes.fault(total_at, "both parts come from the same source; a total has no verdict");
                None
            }
        }
    }

    fn metric(&mut self, node: Node, role: Role) -> Option<Ask> {
        let mut fields = self.notes.fields("a metric", node)?;
        let source = fields.need(&mut self.notes, "metricSource");
        fields.done(&mut self.notes);
        let mut fields = self.notes.fields("metricSource", source?)?;
        let (reference, kind) = (fields.take("metricSourceRef"), fields.take("type"));
        let spec = fields.need(&mut self.notes, "spec");
        let at = fields.at;
        fields.done(&mut self.notes);
        let referred = match &reference {
            Some(node) => Some(Self::refer(&mut self.notes, "DataSource", node, &self.library.sources)?),
            None => None,
        };
        let named = match &kind {
            Some(node) => Some((data_source_of(node, &mut self.notes)?, node.at)),
            None => None,
        };
        let source = match (referred, named) {
            (Some(referred), Some((named, at))) if referred != named => {
                self.notes.fault(at, "the type is not that of the DataSource");
                return None;
            }
            (Some(source), _) | (None, Some((source, _))) => source,
            (None, None) => {
                self.notes.fault(at, "a metricSource has a metricSourceRef or a type: belfry or prometheus");
                return None;
            }
        };
        let spec = self.notes.fields("spec", spec?)?;
        match source {
            DataSource::Belfry => self.journey(spec),
            DataSource::Prometheus => self.query(spec, role),
        }
    }

    fn journey(&mut self, mut spec: Fields) -> Option<Ask> {
        let name = spec.need(&mut self.notes, "journey");
        let verdict = spec.text(&mut self.notes, "verdict");
        spec.done(&mut self.notes);
        let name = self.notes.text("journey", &name?)?;
        Some(Ask::Journey { name, verdict })
    }

    fn query(&mut self, mut spec: Fields, role: Role) -> Option<Ask> {
        let (query, histogram) = (spec.take("query"), spec.take("histogram"));
        let (below, selector) = (spec.take("below"), spec.take("selector"));
        let at = spec.at;
        spec.done(&mut self.notes);
        let (text, at, is_histogram) = match (query, histogram) {
            (Some(node), None) => {
                for unused in [below, selector].into_iter().flatten() {
                    self.notes.fault(unused.at, "below and selector belong to histogram");
                }
                (self.notes.text("query", &node)?, node.at, false)
            }
            (None, Some(node)) => {
                let name = self.notes.text("histogram", &node)?;
                let selector = match selector {
                    Some(selector) => self.notes.text("selector", &selector)?,
                    None => String::new(),
                };
                let below = match below {
                    Some(below) => Some(self.notes.number("below", &below)?),
                    None => None,
                };
                if below.is_some() == matches!(role, Role::Total | Role::Only) {
                    self.notes
                        .fault(node.at, "good or bad of a histogram has below: SECONDS, its total has not");
                    return None;
                }
                (histogram_query(&name, &selector, below, role == Role::Bad), node.at, true)
            }
            _ => {
                self.notes.fault(at, "spec has a query or a histogram");
                return None;
            }
        };
        if let Err(message) = (self.check_query)(&text) {
            self.notes.fault(at, format!("not PromQL: {message}"));
            return None;
        }
        Some(Ask::Query { text, is_histogram })
    }
}

fn data_source_of(node: &Node, notes: &mut Notes) -> Option<DataSource> {
    let text = notes.text("type", node)?;
    match text.to_ascii_lowercase().as_str() {
        "belfry" => Some(DataSource::Belfry),
        "prometheus" => Some(DataSource::Prometheus),
        _ => {
            notes.fault(
                node.at,
                format!("type is belfry (counts of this process) or prometheus, not {text:?}"),
            );
            None
        }
    }
}

/// The events of a histogram, classic or native: all, or those up to a bound, which has to be a bucket's of a classic
/// one and may be any of a native one.
fn histogram_query(name: &str, selector: &str, below: Option<f64>, is_rest: bool) -> String {
    let Some(bound) = below else {
        return format!("{name}_count{{{selector}}} or histogram_count({name}{{{selector}}})");
    };
    let separator = if selector.is_empty() { "" } else { "," };
    // Prometheus 3 writes whole bounds as 1.0, older ones as 1.
    let le = if bound.fract() == 0.0 {
        format!("{bound}(\\\\.0)?")
    } else {
        format!("{bound}").replace('.', "\\\\.")
    };
    let within = format!(
        "{name}_bucket{{{selector}{separator}le=~\"{le}\"}} or ignoring (le) \
         (histogram_fraction(0, {bound}, {name}{{{selector}}}) * histogram_count({name}{{{selector}}}))"
    );
    if is_rest {
        format!(
            "({name}_count{{{selector}}} or histogram_count({name}{{{selector}}})) - ignoring (le) ({within})"
        )
    } else {
        within
    }
}
