//! `/federate`: the last value of each selected series, as a page that another Prometheus scrapes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use belfry_promql::{Labels, METRIC_NAME, is_stale};
use http::header;

use super::envelope::Refusal;
use super::parameters::Parameters;
use super::{Api, SELECTORS_MAX, now_ms};
use crate::reader::{PromqlQuery, ReadQuestion};

/// The last value of a series: its time and itself.
type Last = (i64, f64);

pub(super) async fn federate(State(api): State<Api>, parameters: Parameters) -> Result<Response, Refusal> {
    let selectors = parameters.promql_selectors(SELECTORS_MAX)?;
    if selectors.is_empty() {
        return Err(Refusal::bad_data("no match[] parameter provided"));
    }
    let to_ms = now_ms();
    let lookback_ms = i64::try_from(PromqlQuery::LOOKBACK.as_millis()).unwrap_or(i64::MAX);
    let questions = selectors
        .into_iter()
        .map(|matchers| ReadQuestion { matchers, from_ms: to_ms - lookback_ms + 1, to_ms })
        .collect();
    let page = api.reader.read_then(questions, |answers| {
        let mut found: BTreeMap<Labels, Last> = BTreeMap::new();
        for series in answers.into_iter().flatten() {
            // A text page has no native histograms; whoever wants those reads remotely.
            if let Some(last) = series.floats.last().filter(|(_, value)| !is_stale(*value)) {
                found.insert(series.labels, *last);
            }
        }
        page(&found)
    });
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, page.await?).into_response())
}

/// Families in order of their names, as scrapers want them together.
fn page(found: &BTreeMap<Labels, Last>) -> String {
    let mut families: BTreeMap<&str, Vec<(&Labels, &Last)>> = BTreeMap::new();
    for (labels, last) in found {
        families.entry(labels.get(METRIC_NAME)).or_default().push((labels, last));
    }
    let mut page = String::new();
    for (family, series) in families.into_iter().filter(|(family, _)| !family.is_empty()) {
        let is_plain = is_plain(family);
        let name = if is_plain { family.to_owned() } else { quoted(family) };
        // Writing to memory cannot fail.
        let _written = writeln!(page, "# TYPE {name} untyped");
        for (labels, (time, value)) in series {
            if is_plain {
                page.push_str(family);
            }
            page.push('{');
            if !is_plain {
                page.push_str(&name);
                page.push(',');
            }
            for (label, value) in labels.iter().filter(|(label, _)| *label != METRIC_NAME) {
                let label = if is_plain_label(label) { label.to_owned() } else { quoted(label) };
                let _written = write!(page, "{label}={},", quoted(value));
            }
            // So that the scraper's own label does not take the place of one that is missing.
            if labels.get("instance").is_empty() {
                page.push_str("instance=\"\",");
            }
            page.pop();
            let _written = writeln!(page, "}} {} {time}", belfry_promql::format_float(*value));
        }
    }
    page
}

fn is_plain(name: &str) -> bool {
    is_plain_label(&name.replace(':', "_"))
}

fn is_plain_label(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|letter: char| letter.is_ascii_digit())
}

fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_one_that_a_scraper_reads() {
        let found = BTreeMap::from([
            (Labels::from_pairs([("__name__", "b"), ("x", "a\"\\\n")]), (1500, 2.0)),
            (Labels::from_pairs([("__name__", "a"), ("instance", "h:1")]), (1000, f64::INFINITY)),
            (Labels::from_pairs([("__name__", "c.d"), ("l l", "1")]), (7, -0.5)),
        ]);
        assert_eq!(
            page(&found),
            "# TYPE a untyped\na{instance=\"h:1\"} +Inf 1000\n\
             # TYPE b untyped\nb{x=\"a\\\"\\\\\\n\",instance=\"\"} 2 1500\n\
             # TYPE \"c.d\" untyped\n{\"c.d\",\"l l\"=\"1\",instance=\"\"} -0.5 7\n"
        );
    }
}
