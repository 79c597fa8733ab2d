//! Stored points over HTTP, thinned for drawing. Metrics in the shapes of Prometheus are in `prometheus.rs`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use belfry_series::SeriesData;

use crate::error::Error;
use crate::http::{Params, Range};
use crate::reader::Reader;
use crate::selector::parse_selector;

/// Points of one series, unless the request says otherwise: more than a screen is wide.
const POINTS_DEFAULT: usize = 1000;
const POINTS_MAX: usize = 20_000;

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
    Router::new().route("/api/v1/points", get(points))
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

fn no_selector(what: String) -> Error {
    let hint = "name a selector, as match=calls_total or match=calls_total{region=\"eu\"}";
    Error::BadRequest { place: "match", what, hint }
}

fn millis(range: &Range) -> (i64, i64) {
    let millis = |nanos: u64| i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX);
    (millis(range.from), millis(range.to))
}
