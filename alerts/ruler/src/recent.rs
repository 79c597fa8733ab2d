//! What this evaluation of a group has found so far, over what the store holds: a rule sees what the rules before it
//! in its group recorded, before the store has it.

use std::collections::BTreeMap;

use belfry_promql::{Error, Labels, METRIC_NAME, MatchOp, Matcher, Series, SeriesData, Value};

use crate::group::Point;

/// Points by metric name.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    points: BTreeMap<String, BTreeMap<Labels, Point>>,
}

impl Recent {
    pub(crate) fn add(&mut self, point: &Point) {
        let name = point.labels.metric_name().to_owned();
        self.points.entry(name).or_default().insert(point.labels.clone(), point.clone());
    }
}

/// A store with what is recent over it.
pub(crate) struct Overlay<'a> {
    pub(crate) store: &'a dyn Series,
    pub(crate) recent: &'a Recent,
}

impl Series for Overlay<'_> {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error> {
        let mut found = self.store.select(matchers, from_ms, to_ms)?;
        let name =
            matchers.iter().find(|matcher| matcher.name == METRIC_NAME && matcher.op == MatchOp::Equal);
        let of_name = name.map(|matcher| self.recent.points.get(&matcher.value).into_iter().flatten());
        let of_all = name.is_none().then(|| self.recent.points.values().flatten());
        for (labels, point) in of_name.into_iter().flatten().chain(of_all.into_iter().flatten()) {
            let is_inside = (from_ms..=to_ms).contains(&point.unix_millis);
            if is_inside && matchers.iter().all(|matcher| matcher.matches_labels(labels)) {
                merge(&mut found, point);
            }
        }
        Ok(found)
    }

    fn warnings(&self) -> Vec<String> {
        self.store.warnings()
    }
}

/// Adds a point to the series that has its labels. It is the newest of them.
fn merge(found: &mut Vec<SeriesData>, point: &Point) {
    let at = found.iter().position(|series| series.labels == point.labels).unwrap_or_else(|| {
        found.push(SeriesData { labels: point.labels.clone(), ..SeriesData::default() });
        found.len() - 1
    });
    let series = &mut found[at];
    series.floats.retain(|(time, _)| *time != point.unix_millis);
    series.histograms.retain(|(time, _)| *time != point.unix_millis);
    match &point.value {
        Value::Float(value) => {
            let place = series.floats.partition_point(|(time, _)| *time < point.unix_millis);
            series.floats.insert(place, (point.unix_millis, *value));
        }
        Value::Histogram(value) => {
            let place = series.histograms.partition_point(|(time, _)| *time < point.unix_millis);
            series.histograms.insert(place, (point.unix_millis, value.clone()));
        }
    }
}
