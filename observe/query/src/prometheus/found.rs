//! Which series there are, and their labels: those of the store, and of the curves of calls that a selector names.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::response::Response;
use belfry_promql::{MatchOp, Matcher};
use http::{HeaderValue, header};
use serde::Serialize;

use super::envelope::{self, Refusal, Remarks};
use super::parameters::{Parameters, for_index};
use super::{Api, SELECTORS_MAX, TRUNCATED};
use crate::curves::{CALL_ID, Wanted, advice};

/// Series that one selector finds at most.
const SERIES_MAX: usize = 100_000;

/// Label sets that a request found.
struct Found {
    sets: Vec<Vec<(String, String)>>,
    remarks: Remarks,
    has_calls: bool,
}

pub(super) async fn series(State(api): State<Api>, parameters: Parameters) -> Result<Response, Refusal> {
    let selectors = parameters.promql_selectors(SELECTORS_MAX)?;
    if selectors.is_empty() {
        return Err(Refusal::bad_data("no match[] parameter provided"));
    }
    let found = find(&api, &parameters, selectors).await?;
    let sets: Vec<BTreeMap<String, String>> =
        found.sets.into_iter().map(|labels| labels.into_iter().collect()).collect();
    limited(sets, &parameters, found.remarks, found.has_calls)
}

pub(super) async fn labels(State(api): State<Api>, parameters: Parameters) -> Result<Response, Refusal> {
    let selectors = parameters.promql_selectors(SELECTORS_MAX)?;
    if selectors.is_empty() && !parameters.has_range() {
        return limited(api.reader.label_names().await?, &parameters, Remarks::default(), false);
    }
    let selectors = if selectors.is_empty() { vec![Vec::new()] } else { selectors };
    let found = find(&api, &parameters, selectors).await?;
    let names: BTreeSet<String> = found.sets.into_iter().flatten().map(|(name, _)| name).collect();
    limited(names.into_iter().collect(), &parameters, found.remarks, found.has_calls)
}

pub(super) async fn label_values(
    State(api): State<Api>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    let mut selectors = parameters.promql_selectors(SELECTORS_MAX)?;
    if selectors.is_empty() && !parameters.has_range() {
        let mut remarks = Remarks::default();
        if name == CALL_ID {
            remarks.infos.push(
                "the calls that curves are read from are no labels: they are at /api/v1/calls".to_owned(),
            );
        }
        return limited(api.reader.label_values(name).await?, &parameters, remarks, false);
    }
    let is_there =
        Matcher::new(&name, MatchOp::NotEqual, "").map_err(|fault| Refusal::parameter("name", fault))?;
    if selectors.is_empty() {
        selectors.push(Vec::new());
    }
    selectors.iter_mut().for_each(|matchers| matchers.push(is_there.clone()));
    let found = find(&api, &parameters, selectors).await?;
    let values: BTreeSet<String> =
        found.sets.into_iter().flatten().filter(|(held, _)| *held == name).map(|(_, value)| value).collect();
    limited(values.into_iter().collect(), &parameters, found.remarks, found.has_calls)
}

/// The label sets that any of the selectors finds in the request's time, which is all time unless it says otherwise.
async fn find(api: &Api, parameters: &Parameters, selectors: Vec<Vec<Matcher>>) -> Result<Found, Refusal> {
    let start_ms = parameters.time("start")?.unwrap_or(i64::MIN);
    let end_ms = parameters.time("end")?.unwrap_or(i64::MAX);
    if end_ms < start_ms {
        return Err(Refusal::parameter("end", "end timestamp must not be before start timestamp"));
    }
    let mut remarks = Remarks::default();
    let indexed = for_index(&selectors)?;
    let mut sets = api.reader.label_sets(indexed, start_ms, end_ms, SERIES_MAX).await?;
    if sets.len() >= SERIES_MAX {
        remarks.warnings.push(format!("no more than {SERIES_MAX} series are looked at: narrow the selector"));
    }
    let wanted: Vec<Wanted> = selectors.iter().map(|matchers| Wanted::of(matchers)).collect();
    let has_calls = wanted.iter().any(|wanted| matches!(wanted, Wanted::Calls(_)));
    if has_calls {
        let (curves, said) = api.reader.curve_labels(selectors, start_ms, end_ms).await?;
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        sets.extend(curves.iter().map(|labels| labels.iter().map(owned).collect::<Vec<_>>()));
        sets.sort();
        sets.dedup();
        remarks.warnings.extend(said);
    }
    if sets.is_empty() {
        let advised = wanted.iter().filter_map(|wanted| match wanted {
            Wanted::NoCall(metric) => Some(advice(metric)),
            Wanted::Nothing | Wanted::Calls(_) => None,
        });
        remarks.warnings.extend(advised);
    }
    Ok(Found { sets, remarks, has_calls })
}

fn limited<T: Serialize>(
    mut items: Vec<T>,
    parameters: &Parameters,
    mut remarks: Remarks,
    has_calls: bool,
) -> Result<Response, Refusal> {
    if let Some(limit) = parameters.limit()?
        && items.len() > limit
    {
        items.truncate(limit);
        remarks.warnings.push(TRUNCATED.to_owned());
    }
    let mut response = envelope::success(&items, remarks)?;
    if has_calls {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}
