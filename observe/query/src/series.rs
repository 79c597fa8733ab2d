//! Series over HTTP: labels and series in the shapes of Prometheus, points in a shape for drawing.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use belfry_series::SeriesData;

use crate::error::Error;
use crate::http::{Params, Range};
use crate::reader::Reader;
use crate::selector::parse_selector;

/// Selectors in one request.
const SELECTORS_MAX: usize = 16;
/// Points of one series, unless the request says otherwise: more than a screen is wide.
const POINTS_DEFAULT: usize = 1000;
const POINTS_MAX: usize = 20_000;

/// The envelope of Prometheus' HTTP API.
#[derive(Debug, Serialize)]
struct Success<T> {
    status: &'static str,
    data: T,
}

#[derive(Debug, Serialize)]
struct PointsJson {
    series: Vec<SeriesJson>,
}

/// One series and what it was: pairs of milliseconds since the Unix epoch and value, null where it is no number.
#[derive(Debug, Serialize)]
struct SeriesJson {
    labels: BTreeMap<String, String>,
    points: Vec<(i64, Option<f64>)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PointsParams {
    r#match: Option<String>,
    from: Option<String>,
    to: Option<String>,
    points_max: Option<usize>,
}

pub(crate) fn routes() -> Router<Reader> {
    Router::new()
        .route("/api/v1/labels", get(labels))
        .route("/api/v1/label/{name}/values", get(label_values))
        .route("/api/v1/series", get(series))
        .route("/api/v1/points", get(points))
}

async fn labels(State(reader): State<Reader>) -> Result<Json<Success<Vec<String>>>, Error> {
    Ok(success(reader.label_names().await?))
}

async fn label_values(
    State(reader): State<Reader>,
    Path(name): Path<String>,
) -> Result<Json<Success<Vec<String>>>, Error> {
    Ok(success(reader.label_values(name).await?))
}

/// Label sets; `match[]` may stand several times, as in Prometheus, and a series meets one of them at least.
async fn series(
    State(reader): State<Reader>,
    Params(params): Params<Vec<(String, String)>>,
) -> Result<Json<Success<Vec<BTreeMap<String, String>>>>, Error> {
    let named = |names: [&'static str; 2]| {
        params.iter().filter(move |(name, _)| names.contains(&name.as_str())).map(|(_, value)| value.as_str())
    };
    let range = Range::of(named(["from", "start"]).next(), named(["to", "end"]).next())?;
    let selectors: Vec<&str> = named(["match[]", "match"]).collect();
    if selectors.is_empty() || selectors.len() > SELECTORS_MAX {
        return Err(no_selector(format!("{} selectors", selectors.len())));
    }
    let mut sets = std::collections::BTreeSet::new();
    for selector in selectors {
        let (from_ms, to_ms) = millis(&range);
        for found in reader.select(parse_selector(selector)?, from_ms, to_ms).await? {
            sets.insert(found.labels);
        }
    }
    Ok(success(sets.into_iter().map(|labels| labels.into_iter().collect()).collect()))
}

async fn points(
    State(reader): State<Reader>,
    Params(params): Params<PointsParams>,
) -> Result<Json<PointsJson>, Error> {
    let selector = params.r#match.ok_or_else(|| no_selector("it is missing".to_owned()))?;
    let matchers = parse_selector(&selector)?;
    let range = Range::of(params.from.as_deref(), params.to.as_deref())?;
    let points_max = params.points_max.unwrap_or(POINTS_DEFAULT);
    if !(1..=POINTS_MAX).contains(&points_max) {
        let what = format!("{points_max} points");
        return Err(Error::BadRequest {
            place: "points_max",
            what,
            hint: "ask for 1 to 20000 points of each series",
        });
    }
    let (from_ms, to_ms) = millis(&range);
    let found = reader.select(matchers, from_ms, to_ms).await?;
    Ok(Json(PointsJson { series: found.into_iter().map(|series| thin(series, points_max)).collect() }))
}

/// Keeps the last point of each of `points_max` stretches of about the same number of points.
fn thin(series: SeriesData, points_max: usize) -> SeriesJson {
    let stretch = series.points.len().div_ceil(points_max).max(1);
    let points = series
        .points
        .chunks(stretch)
        .filter_map(|chunk| chunk.last())
        .map(|(unix_ms, value)| (*unix_ms, Some(*value).filter(|value| value.is_finite())))
        .collect();
    SeriesJson { labels: series.labels.into_iter().collect(), points }
}

fn success<T>(data: T) -> Json<Success<T>> {
    Json(Success { status: "success", data })
}

fn no_selector(what: String) -> Error {
    let hint = "name 1 to 16 selectors, as match=calls_total or match[]=calls_total{region=\"eu\"}";
    Error::BadRequest { place: "match", what, hint }
}

fn millis(range: &Range) -> (i64, i64) {
    let millis = |nanos: u64| i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX);
    (millis(range.from), millis(range.to))
}
