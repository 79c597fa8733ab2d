//! The shipped Grafana dashboards: every panel says what it shows, and every query parses and asks for metrics and
//! labels that the catalogue has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use belfry_promql::{METRIC_NAME, MatchOp, parse};
use serde_json::Value;

use super::{collect, no_faults, root};

/// What Grafana puts in place of its variables.
const VARIABLES: &[(&str, &str)] = &[("$__rate_interval", "1m"), ("$region", ".*"), ("$call_id", "a@b")];

/// Labels that every series of a histogram's buckets has, and those that the store adds to all of a node's metrics.
const COMMON_LABELS: &[&str] = &["le", "node", "site", "instance", "job"];

/// Label names by metric name, as `belfry catalog` prints them; histograms by the names of their parts.
fn catalogue() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("tests/golden/catalog.txt")).expect("the pinned catalogue");
    let mut metrics = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with(' ')) {
        let mut columns = line.split("  ");
        let (name, kind) = (columns.next().expect("a name"), columns.next().expect("a kind"));
        let labels: BTreeSet<String> = columns
            .nth(1)
            .unwrap_or_default()
            .split(' ')
            .filter_map(|label| label.split_once('(').map(|(name, _)| name.to_owned()))
            .collect();
        match kind {
            "histogram" => {
                for part in ["_bucket", "_sum", "_count"] {
                    metrics.insert(format!("{name}{part}"), labels.clone());
                }
            }
            _ => drop(metrics.insert(name.to_owned(), labels)),
        }
    }
    assert!(metrics.len() > 100, "the catalogue is read");
    metrics
}

/// What is wrong with one query.
fn faults_of(query: &str, metrics: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let filled =
        VARIABLES.iter().fold(query.to_owned(), |text, (variable, value)| text.replace(variable, value));
    let expression = match parse(&filled) {
        Ok(expression) => expression,
        Err(error) => return vec![format!("{query:?} does not parse: {error}")],
    };
    let mut faults = Vec::new();
    for selector in expression.selectors() {
        let name = selector
            .matchers
            .iter()
            .find(|matcher| matcher.name == METRIC_NAME && matcher.op == MatchOp::Equal)
            .map(|matcher| matcher.value.clone());
        let Some(labels) = name.as_ref().and_then(|name| metrics.get(name)) else {
            faults.push(format!("{query:?} asks for {name:?}, which the catalogue does not have"));
            continue;
        };
        let unknown = selector.matchers.iter().filter(|matcher| {
            matcher.name != METRIC_NAME
                && !labels.contains(&matcher.name)
                && !COMMON_LABELS.contains(&matcher.name.as_str())
        });
        faults.extend(unknown.map(|matcher| format!("{query:?}: {name:?} has no label {:?}", matcher.name)));
    }
    faults
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn panels_are_described_and_ask_for_what_exists() {
    let metrics = catalogue();
    let mut files = BTreeMap::new();
    collect(&root().join("dashboards/grafana"), "json", &mut files);
    assert!(files.len() >= 6, "the shipped dashboards are found");
    let (mut faults, mut ids) = (Vec::new(), BTreeSet::new());
    for (path, json) in &files {
        let board: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{path}: {error}"));
        if !ids.insert(text(&board, "uid").to_owned()) || text(&board, "description").is_empty() {
            faults.push(format!("{path} has no uid of its own, or no description"));
        }
        let panels = board["panels"].as_array().unwrap_or_else(|| panic!("{path} has panels"));
        for panel in panels.iter().filter(|panel| text(panel, "type") != "row") {
            let place = format!("{path}, {:?}", text(panel, "title"));
            let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
            if text(panel, "description").is_empty() || targets.is_empty() {
                faults.push(format!("{place} has no description or asks nothing"));
            }
            for target in targets {
                let found = faults_of(text(target, "expr"), &metrics);
                faults.extend(found.into_iter().map(|fault| format!("{place}: {fault}")));
            }
        }
        for annotation in board["annotations"]["list"].as_array().into_iter().flatten() {
            faults.extend(faults_of(text(annotation, "expr"), &metrics));
        }
    }
    no_faults("panels are described and ask for what exists", &faults);
}

#[test]
fn a_bad_query_is_seen() {
    let metrics = catalogue();
    for (query, expected) in [
        ("sum(rate(core_responses_total[$__rate_interval]))", 0),
        ("sum(rate(core_responses_totals[$__rate_interval]))", 1),
        ("core_responses_total{color=\"red\"}", 1),
        ("sum(", 1),
        ("histogram_quantile(0.9, core_call_seconds)", 1),
        ("core_call_seconds_bucket{le=\"1\"} / absent(nothing)", 1),
    ] {
        assert_eq!(faults_of(query, &metrics).len(), expected, "{query}");
    }
}
