//! Rule files as Prometheus has them: groups of recording and alerting rules.

use std::collections::{BTreeMap, BTreeSet};

use belfry_promql::ast::{Expr, ValueType};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::template::Template;
use crate::yaml::{self, Collector, Faults};

/// Variables that templates of rules have from the beginning.
pub(crate) const VARIABLES: [&str; 4] = ["$labels", "$externalLabels", "$externalURL", "$value"];

/// A group of rules: evaluated together, one rule after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSpec {
    /// The file that it stands in.
    pub file: String,
    /// Its name, once per file.
    pub name: String,
    /// How often it is evaluated, in milliseconds; `None` for the default.
    pub interval_ms: Option<i64>,
    /// How far behind the time it is evaluated, in milliseconds; `None` for the default.
    pub query_offset_ms: Option<i64>,
    /// Series or alerts that a rule may have; 0 is any number.
    pub limit: usize,
    /// Its rules, in order.
    pub rules: Vec<RuleSpec>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSpec {
    /// The expression as it was written.
    pub text: String,
    /// The expression.
    pub expr: Expr,
    /// Labels that it sets, with templates for alerts.
    pub labels: Vec<(String, String)>,
    /// What it is.
    pub kind: RuleKind,
    /// Its line in the file.
    pub line: u64,
}

/// What a rule does with what its expression finds.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleKind {
    /// Writes it as a metric of this name.
    Record(String),
    /// Raises alerts.
    Alert(Box<AlertSpec>),
}

/// An alert.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertSpec {
    /// Its name.
    pub name: String,
    /// How long it is pending before it fires, in milliseconds.
    pub for_ms: i64,
    /// How long it fires on after its expression found nothing, in milliseconds.
    pub keep_firing_for_ms: i64,
    /// What it says, as it was written.
    pub annotations: Vec<(String, String)>,
    pub(crate) label_templates: Vec<(String, Template)>,
    pub(crate) annotation_templates: Vec<(String, Template)>,
}

impl RuleSpec {
    /// The name of the metric or of the alert.
    pub fn name(&self) -> &str {
        match &self.kind {
            RuleKind::Record(name) => name,
            RuleKind::Alert(alert) => &alert.name,
        }
    }

    /// What identifies a rule of a group when the file is read again: its name and its labels.
    pub(crate) fn identity(&self) -> String {
        let kind = if matches!(self.kind, RuleKind::Record(_)) { "record" } else { "alert" };
        let labels: Vec<String> =
            self.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{kind} {} {{{}}}", self.name(), labels.join(","))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    groups: Option<Vec<GroupText>>,
}

type Texts = Option<yaml::Pairs>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupText {
    name: Spanned<String>,
    interval: Option<Spanned<String>>,
    query_offset: Option<Spanned<String>>,
    limit: Option<Spanned<i64>>,
    #[serde(default)]
    labels: Texts,
    #[serde(default)]
    rules: Option<Vec<Spanned<RuleText>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    record: Option<Spanned<String>>,
    alert: Option<Spanned<String>>,
    expr: Option<Spanned<String>>,
    #[serde(rename = "for")]
    for_: Option<Spanned<String>>,
    keep_firing_for: Option<Spanned<String>>,
    #[serde(default)]
    labels: Texts,
    #[serde(default)]
    annotations: Texts,
}

/// Reads a rule file. `file` is what it is called in messages and in the API.
///
/// # Errors
/// Every mistake with its place: unknown keys, expressions that do not parse, templates with unknown functions.
pub fn parse_rules(file: &str, text: &str) -> Result<Vec<GroupSpec>, Faults> {
    let read: FileText = yaml::read(text)?;
    let mut faults = Collector::default();
    let (mut groups, mut names) = (Vec::new(), BTreeSet::new());
    for group in read.groups.unwrap_or_default() {
        if group.name.value.is_empty() {
            faults.on(&group.name, "a group needs a name");
        }
        if !names.insert(group.name.value.clone()) {
            faults.on(&group.name, format!("group {:?} is there twice in this file", group.name.value));
        }
        let interval_ms = group.interval.as_ref().map(|text| {
            let interval = yaml::duration(text, &mut faults);
            if interval <= 0 {
                faults.on(text, "interval must be longer than nothing");
            }
            interval
        });
        let limit = group.limit.as_ref().map_or(0, |limit| {
            usize::try_from(limit.value).unwrap_or_else(|_| {
                faults.on(limit, "limit must not be below 0");
                0
            })
        });
        let shared = texts(group.labels.as_ref(), &mut faults);
        let rules = group.rules.unwrap_or_default();
        groups.push(GroupSpec {
            file: file.to_owned(),
            name: group.name.value.clone(),
            interval_ms,
            query_offset_ms: group.query_offset.as_ref().map(|text| yaml::duration(text, &mut faults)),
            limit,
            rules: rules.iter().filter_map(|text| rule(text, &shared, &mut faults)).collect(),
        });
    }
    faults.finish(groups)
}

fn rule(text: &Spanned<RuleText>, shared: &[(String, String)], faults: &mut Collector) -> Option<RuleSpec> {
    let read = &text.value;
    let Some(written) = read.expr.as_ref().filter(|expr| !expr.value.trim().is_empty()) else {
        faults.on(text, "a rule needs an expr");
        return None;
    };
    let expr = match belfry_promql::parse(&written.value) {
        Ok(expr) => expr,
        Err(error) => {
            faults.on(written, format!("expr {:?}: {error}", written.value));
            return None;
        }
    };
    if !matches!(expr.value_type(), ValueType::InstantVector | ValueType::Scalar) {
        let found = expr.value_type().name();
        faults.on(written, format!("expr gives {found}, a rule needs an instant vector or a scalar"));
    }
    let kind = match (&read.record, &read.alert) {
        (Some(name), None) => record(read, name, faults),
        (None, Some(name)) => alert(read, name, shared, faults)?,
        _ => {
            faults.on(text, "a rule needs either record or alert");
            return None;
        }
    };
    let labels = merged(shared, texts(read.labels.as_ref(), faults));
    Some(RuleSpec { text: written.value.clone(), expr, labels, kind, line: text.referenced.line() })
}

fn record(read: &RuleText, name: &Spanned<String>, faults: &mut Collector) -> RuleKind {
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    if !is_name(&name.value) {
        faults.on(name, format!("{:?} is not a name of a metric", name.value));
    }
    for (key, place) in [("for", &read.for_), ("keep_firing_for", &read.keep_firing_for)] {
        if let Some(place) = place {
            faults.on(place, format!("{key} belongs to alerts, not to recording rules"));
        }
    }
    if let Some((_, place)) = read.annotations.iter().flat_map(|pairs| &pairs.0).next() {
        faults.on(place, "annotations belong to alerts, not to recording rules");
    }
    RuleKind::Record(name.value.clone())
}

fn alert(
    read: &RuleText,
    name: &Spanned<String>,
    shared: &[(String, String)],
    faults: &mut Collector,
) -> Option<RuleKind> {
    if name.value.is_empty() {
        faults.on(name, "an alert needs a name");
    }
    let millis = |place: &Option<Spanned<String>>, faults: &mut Collector| {
        place.as_ref().map_or(0, |place| yaml::duration(place, faults))
    };
    let mut label_templates = templates(read.labels.as_ref(), faults);
    for (name, text) in shared {
        if !label_templates.iter().any(|(held, _)| held == name) {
            label_templates.push((name.clone(), Template::parse(text, &VARIABLES).ok()?));
        }
    }
    Some(RuleKind::Alert(Box::new(AlertSpec {
        name: name.value.clone(),
        for_ms: millis(&read.for_, faults),
        keep_firing_for_ms: millis(&read.keep_firing_for, faults),
        annotations: texts(read.annotations.as_ref(), faults),
        label_templates,
        annotation_templates: templates(read.annotations.as_ref(), faults),
    })))
}

/// A rule's own labels go before those of its group.
fn merged(shared: &[(String, String)], own: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut labels: BTreeMap<String, String> = shared.iter().cloned().collect();
    labels.extend(own);
    labels.into_iter().collect()
}

/// Names and texts, with names checked.
fn texts(read: Option<&yaml::Pairs>, faults: &mut Collector) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in read.iter().flat_map(|pairs| &pairs.0) {
        let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        found.push((name.clone(), text.value.clone()));
        if !is_plain || name == belfry_promql::METRIC_NAME {
            faults.on(text, format!("{name:?} may not be the name of a label or annotation"));
        }
    }
    found
}

fn templates(read: Option<&yaml::Pairs>, faults: &mut Collector) -> Vec<(String, Template)> {
    let mut found = Vec::new();
    for (name, text) in read.iter().flat_map(|pairs| &pairs.0) {
        match Template::parse(&text.value, &VARIABLES) {
            Ok(template) => found.push((name.clone(), template)),
            Err(error) => faults.on(text, format!("template of {name}: {error}")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_everything_in_it() {
        let text = "groups:\n- name: calls\n  interval: 30s\n  limit: 10\n  query_offset: 5s\n  labels: {team: voice}\n  rules:\n  \
            - record: job:calls:rate5m\n    expr: sum by (job) (rate(calls_total[5m]))\n    labels: {kind: rate}\n  \
            - alert: CallsFail\n    expr: job:calls:rate5m < 1\n    for: 5m\n    keep_firing_for: 2m\n    \
            labels: {severity: page}\n    annotations:\n      summary: '{{ $labels.job }} has {{ $value | humanize }}'\n";
        let groups = parse_rules("calls.yaml", text).expect("right");
        assert_eq!(
            (groups[0].interval_ms, groups[0].query_offset_ms, groups[0].limit),
            (Some(30_000), Some(5_000), 10)
        );
        let [record, alert] = groups[0].rules.as_slice() else { panic!("two rules") };
        assert_eq!((record.name(), alert.name()), ("job:calls:rate5m", "CallsFail"));
        assert_eq!(record.labels, [("kind".into(), "rate".into()), ("team".into(), "voice".into())]);
        let RuleKind::Alert(spec) = &alert.kind else { panic!("an alert") };
        assert_eq!((spec.for_ms, spec.keep_firing_for_ms), (300_000, 120_000));
        assert_eq!(alert.line, 11);
        for empty in ["", "# nothing\n", "groups:\n", "groups: []\n"] {
            assert_eq!(parse_rules("empty.yaml", empty), Ok(Vec::new()), "{empty:?}");
        }
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let of = |rule: &str| format!("groups:\n- name: g\n  rules:\n  - {rule}\n");
        for (text, words) in [
            (of("alert: A\n    expr: sum("), "5:11: expr \"sum(\": 1:5: parse error"),
            (
                of("alert: A\n    expr: up\n    annotations: {a: '{{ nope }}'}"),
                "6:22: template of a: function \"nope\"",
            ),
            (of("alert: A\n    expr: up\n    fro: 5m"), "6:5: unknown field"),
            (of("alert: A\n    record: b\n    expr: up"), "4:5: a rule needs either record or alert"),
            (of("record: a b\n    expr: up"), "4:13: \"a b\" is not a name"),
            (of("record: a\n    expr: up\n    for: 1m"), "6:10: for belongs to alerts"),
            (of("alert: A\n    expr: up\n    for: five"), "6:10: \"five\" is not a duration"),
            (of("alert: A\n    expr: up\n    labels: {a-b: c}"), "6:19: \"a-b\" may not be the name"),
            (of("alert: A\n    expr: up[5m]"), "5:11: expr gives"),
            (of("alert: A"), "a rule needs an expr"),
            ("groups:\n- name: g\n- name: g\n".to_owned(), "3:9: group \"g\" is there twice"),
            ("groups:\n- name: g\n  interval: 0s\n".to_owned(), "3:13: interval must be longer"),
            ("grops: []".to_owned(), "1:1: unknown field"),
            ("groups: [".to_owned(), "1:"),
        ] {
            let error = parse_rules("wrong.yaml", &text).expect_err(&text).to_string();
            assert!(error.contains(words), "{text}\nwanted {words:?} in\n{error}");
        }
    }
}
