//! `/api/v1/rules` and `/api/v1/alerts` as Prometheus answers them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use belfry_ruler::{Active, AlertState, Group, Health, RuleKind, RuleStatus};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::handle::DeskHandle;
use super::json::{object, scientific, time};

/// A group as it was last evaluated.
#[derive(Clone, Debug)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    interval_ms: i64,
    limit: usize,
    evaluated_at_ms: Option<i64>,
    took_seconds: f64,
    rules: Vec<Shown>,
}

/// Names and texts.
type Texts = Vec<(String, String)>;

/// A rule as it was last evaluated.
#[derive(Clone, Debug)]
struct Shown {
    name: String,
    query: String,
    labels: Vec<(String, String)>,
    /// `for`, `keep_firing_for` and annotations of an alert.
    alert: Option<(i64, i64, Texts)>,
    status: RuleStatus,
}

impl GroupStatus {
    pub(super) fn of(
        group: &Group,
        interval_ms: i64,
        evaluated_at_ms: Option<i64>,
        took_seconds: f64,
    ) -> Self {
        let rules = group.rules().map(|(rule, status)| Shown {
            name: rule.name().to_owned(),
            query: belfry_promql::format(&rule.expr),
            labels: rule.labels.clone(),
            alert: match &rule.kind {
                RuleKind::Alert(alert) => {
                    Some((alert.for_ms, alert.keep_firing_for_ms, alert.annotations.clone()))
                }
                RuleKind::Record(_) => None,
            },
            status,
        });
        Self {
            name: group.spec().name.clone(),
            file: group.spec().file.clone(),
            interval_ms,
            limit: group.spec().limit,
            evaluated_at_ms,
            took_seconds,
            rules: rules.collect(),
        }
    }

    /// Every alert of the group, with the name of its rule.
    pub fn alerts(&self) -> impl Iterator<Item = (&str, &Active)> {
        self.rules.iter().flat_map(|rule| rule.status.alerts.iter().map(|alert| (rule.name.as_str(), alert)))
    }
}

type Parameters = Query<Vec<(String, String)>>;

#[derive(Serialize)]
struct AlertJson<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<&'a str, &'a str>,
    state: &'static str,
    #[serde(rename = "activeAt")]
    active_at: String,
    #[serde(rename = "keepFiringSince", skip_serializing_if = "Option::is_none")]
    keep_firing_since: Option<String>,
    value: String,
}

fn alert_json(alert: &Active) -> AlertJson<'_> {
    AlertJson {
        labels: alert.labels.iter().collect(),
        annotations: object(&alert.annotations),
        state: alert.state.as_str(),
        active_at: time(Some(alert.active_at_ms)),
        keep_firing_since: alert.keep_firing_since_ms.map(|since| time(Some(since))),
        value: scientific(alert.value),
    }
}

pub(super) async fn alerts(State(desk): State<DeskHandle>) -> Response {
    let groups = desk.rules();
    let alerts: Vec<AlertJson<'_>> =
        groups.iter().flat_map(|group| group.alerts()).map(|(_, alert)| alert_json(alert)).collect();
    Json(json!({ "status": "success", "data": { "alerts": alerts } })).into_response()
}

/// What a request asks for.
#[derive(Default)]
struct Wanted {
    kind: Option<bool>,
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    is_without_alerts: bool,
}

impl Wanted {
    fn read(parameters: Vec<(String, String)>) -> Result<Self, String> {
        let mut wanted = Self::default();
        for (name, value) in parameters {
            match name.as_str() {
                "type" => {
                    wanted.kind = match value.as_str() {
                        "alert" => Some(true),
                        "record" => Some(false),
                        "" => None,
                        _ => {
                            return Err(format!("invalid parameter \"type\": not supported value {value:?}"));
                        }
                    }
                }
                "rule_name[]" => wanted.names.push(value),
                "rule_group[]" => wanted.groups.push(value),
                "file[]" => wanted.files.push(value),
                "exclude_alerts" => wanted.is_without_alerts = matches!(value.as_str(), "true" | "1" | "t"),
                _ => {}
            }
        }
        Ok(wanted)
    }

    fn has(list: &[String], value: &str) -> bool {
        list.is_empty() || list.iter().any(|wanted| wanted == value)
    }
}

pub(super) async fn rules(State(desk): State<DeskHandle>, Query(parameters): Parameters) -> Response {
    let wanted = match Wanted::read(parameters) {
        Ok(wanted) => wanted,
        Err(error) => {
            let body = json!({ "status": "error", "errorType": "bad_data", "error": error });
            return (StatusCode::BAD_REQUEST, Json(body)).into_response();
        }
    };
    let groups = desk.rules();
    let groups = groups
        .iter()
        .filter(|group| Wanted::has(&wanted.groups, &group.name) && Wanted::has(&wanted.files, &group.file));
    let groups = groups.filter_map(|group| {
        let rules = group.rules.iter().filter(|rule| {
            Wanted::has(&wanted.names, &rule.name)
                && wanted.kind.is_none_or(|kind| kind == rule.alert.is_some())
        });
        let rules: Vec<Value> = rules.map(|rule| rule_json(rule, wanted.is_without_alerts)).collect();
        let is_narrow = wanted.kind.is_some() || !wanted.names.is_empty();
        (!rules.is_empty() || !is_narrow).then(|| {
            json!({
                "name": group.name,
                "file": group.file,
                "rules": rules,
                "interval": group.interval_ms as f64 / 1_000.0,
                "limit": group.limit,
                "evaluationTime": group.took_seconds,
                "lastEvaluation": time(group.evaluated_at_ms),
            })
        })
    });
    Json(json!({ "status": "success", "data": { "groups": groups.collect::<Vec<_>>() } })).into_response()
}

fn rule_json(rule: &Shown, is_without_alerts: bool) -> Value {
    let (health, error) = match &rule.status.health {
        Health::Unknown => ("unknown", None),
        Health::Ok => ("ok", None),
        Health::Failed(error) => ("err", Some(error)),
    };
    let mut shown = json!({
        "name": rule.name,
        "query": rule.query,
        "health": health,
        "evaluationTime": rule.status.took_seconds,
        "lastEvaluation": time(rule.status.evaluated_at_ms),
        "type": if rule.alert.is_some() { "alerting" } else { "recording" },
    });
    if let Some(error) = error {
        shown["lastError"] = json!(error);
    }
    match &rule.alert {
        None => {
            if !rule.labels.is_empty() {
                shown["labels"] = json!(object(&rule.labels));
            }
        }
        Some((for_ms, keep_firing_for_ms, annotations)) => {
            let state = rule.status.alerts.iter().map(|alert| alert.state).max();
            shown["state"] = json!(state.map_or("inactive", AlertState::as_str));
            shown["duration"] = json!(*for_ms as f64 / 1_000.0);
            shown["keepFiringFor"] = json!(*keep_firing_for_ms as f64 / 1_000.0);
            shown["labels"] = json!(object(&rule.labels));
            shown["annotations"] = json!(object(annotations));
            let alerts = rule.status.alerts.iter().filter(|_| !is_without_alerts).map(alert_json);
            shown["alerts"] = json!(alerts.collect::<Vec<_>>());
        }
    }
    shown
}
