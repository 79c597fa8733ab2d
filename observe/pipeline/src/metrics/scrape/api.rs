//! What Prometheus' API says of targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::Span;
use super::manager::Manager;
use super::target::Target;
use crate::metrics::relabel::LabelMap;

const METADATA_MAX: usize = 100_000;

pub(super) fn router(manager: Arc<Manager>) -> Router {
    Router::new()
        .route("/api/v1/targets", get(targets))
        .route("/api/v1/targets/metadata", get(metadata))
        .route("/api/v1/scrape_pools", get(pools))
        .route("/api/v1/status/config", get(config))
        .with_state(manager)
}

#[derive(Serialize)]
struct Envelope<T> {
    status: &'static str,
    data: T,
}

fn success<T: Serialize>(data: T) -> Response {
    Json(Envelope { status: "success", data }).into_response()
}

#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    state: String,
    #[serde(default, rename = "scrapePool")]
    scrape_pool: String,
    #[serde(default)]
    metric: String,
    limit: Option<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Targets {
    active_targets: Vec<Active>,
    dropped_targets: Vec<Dropped>,
    dropped_target_counts: BTreeMap<String, usize>,
    /// Ours: why a job has fewer targets than it should.
    faults: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Active {
    discovered_labels: LabelMap,
    labels: LabelMap,
    scrape_pool: String,
    scrape_url: String,
    global_url: String,
    last_error: String,
    last_scrape: String,
    last_scrape_duration: f64,
    health: &'static str,
    scrape_interval: String,
    scrape_timeout: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dropped {
    discovered_labels: LabelMap,
    scrape_pool: String,
}

fn active(pool: &str, target: &Target) -> Active {
    let last = target.standing().last;
    let stamp = |millis: i64| {
        Timestamp::from_millisecond(millis).map_or_else(|_| String::new(), |stamp| stamp.to_string())
    };
    let never = || "0001-01-01T00:00:00Z".to_owned();
    Active {
        discovered_labels: target.discovered.clone(),
        labels: target.labels.clone(),
        scrape_pool: pool.to_owned(),
        scrape_url: target.uri.to_string(),
        global_url: target.uri.to_string(),
        last_error: last.as_ref().and_then(|last| last.fault.clone()).unwrap_or_default(),
        last_scrape: last.as_ref().map_or_else(never, |last| stamp(last.unix_millis)),
        last_scrape_duration: last.as_ref().map_or(0.0, |last| last.took.as_secs_f64()),
        health: match &last {
            None => "unknown",
            Some(last) if last.fault.is_none() => "up",
            Some(_) => "down",
        },
        scrape_interval: Span(target.interval).to_string(),
        scrape_timeout: Span(target.timeout).to_string(),
    }
}

async fn targets(State(manager): State<Arc<Manager>>, Query(asked): Query<Asked>) -> Response {
    let (shows_active, shows_dropped) = match asked.state.to_lowercase().as_str() {
        "active" => (true, false),
        "dropped" => (false, true),
        _ => (true, true),
    };
    let mut told = Targets {
        active_targets: Vec::new(),
        dropped_targets: Vec::new(),
        dropped_target_counts: BTreeMap::new(),
        faults: BTreeMap::new(),
    };
    manager.view(|pool, targets, state| {
        if !asked.scrape_pool.is_empty() && asked.scrape_pool != pool {
            return;
        }
        if shows_active {
            told.active_targets.extend(targets.iter().map(|target| active(pool, target)));
        }
        if shows_dropped {
            let dropped = |labels: &LabelMap| Dropped {
                discovered_labels: labels.clone(),
                scrape_pool: pool.to_owned(),
            };
            told.dropped_targets.extend(state.dropped.iter().map(dropped));
        }
        told.dropped_target_counts.insert(pool.to_owned(), state.dropped_count);
        told.faults.extend(state.fault.iter().map(|fault| (pool.to_owned(), fault.clone())));
    });
    success(told)
}

async fn pools(State(manager): State<Arc<Manager>>) -> Response {
    let names = manager.view(|pool, _, _| pool.to_owned());
    success(BTreeMap::from([("scrapePools", names)]))
}

#[derive(Serialize)]
struct TargetMetadata {
    target: LabelMap,
    metric: String,
    r#type: String,
    help: String,
    unit: String,
}

async fn metadata(State(manager): State<Arc<Manager>>, Query(asked): Query<Asked>) -> Response {
    let limit = asked.limit.filter(|limit| *limit > 0).unwrap_or(METADATA_MAX).min(METADATA_MAX);
    let mut told = Vec::new();
    manager.view(|_, targets, _| {
        for target in targets {
            for metric in target.standing().metadata {
                if told.len() < limit && (asked.metric.is_empty() || asked.metric == metric.name) {
                    told.push(TargetMetadata {
                        target: target.labels.clone(),
                        metric: metric.name,
                        r#type: metric.kind,
                        help: metric.help,
                        unit: metric.unit,
                    });
                }
            }
        }
    });
    success(told)
}

async fn config(State(manager): State<Arc<Manager>>) -> Response {
    success(BTreeMap::from([("yaml", manager.text())]))
}
