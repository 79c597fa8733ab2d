//! OTLP's metrics as points of series, as Prometheus would have them.
//!
//! Resource attributes make `job` and `instance`, and the rest stands on `target_info`; exponential histograms become
//! native ones; a point without a value becomes a staleness marker. Pure but for the state of deltas.

use std::collections::BTreeMap;
use std::time::Instant;

use belfry_signal::{
    Exemplar, MetricMetadata, NativeHistogram, PointValue, SeriesBatch, SeriesLabels, SeriesPoints,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar as OtlpExemplar, ExponentialHistogramDataPoint, HistogramDataPoint,
    Metric, NumberDataPoint, SummaryDataPoint, exemplar,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::Understood;
use super::attributes::spelled;
use super::delta::{Deltas, Total, coarser};
use super::names::{Form, LABELS_MAX, Labels, metric_name};
use crate::doors::shape::Expansion;

/// Prometheus' staleness marker.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;
/// A point says that there is no value (`DataPointFlags.NO_RECORDED_VALUE_MASK`).
const NO_VALUE: u32 = 1;
/// Resolutions of native histograms.
const SCHEMA_MIN: i32 = -4;
const SCHEMA_MAX: i32 = 8;
/// Width of the zero bucket where none is told; as in Prometheus.
const ZERO_THRESHOLD: f64 = 1e-128;
/// Buckets of one histogram; a point with more is refused.
const BUCKETS_MAX: usize = 10_000;
/// Exemplars of one point that are kept.
const EXEMPLARS_MAX: usize = 10;

/// What a conversion makes, and with what.
pub(super) struct Converter<'a> {
    pub(super) deltas: &'a mut Deltas,
    pub(super) promote: &'a [String],
    pub(super) now: Instant,
    batch: SeriesBatch,
    places: BTreeMap<SeriesLabels, usize>,
    refused: Understood<()>,
    expansion: Expansion,
    /// The newest point of the resource under way, in milliseconds since the Unix epoch.
    newest_ms: Option<i64>,
}

/// One point's place in time.
#[derive(Clone, Copy)]
struct Span {
    start_ms: i64,
    time_ms: i64,
    is_delta: bool,
    has_value: bool,
}

impl<'a> Converter<'a> {
    pub(super) fn new(deltas: &'a mut Deltas, promote: &'a [String], now: Instant) -> Self {
        Self {
            deltas,
            promote,
            now,
            batch: SeriesBatch::default(),
            places: BTreeMap::new(),
            refused: Understood::default(),
            expansion: Expansion::default(),
            newest_ms: None,
        }
    }

    /// The points of a request, and what of it was refused.
    pub(super) fn convert(mut self, request: ExportMetricsServiceRequest) -> (SeriesBatch, Understood<()>) {
        for of_resource in request.resource_metrics {
            self.newest_ms = None;
            let (shared, target) = self.resource(of_resource.resource);
            for of_scope in of_resource.scope_metrics {
                for metric in of_scope.metrics {
                    self.metric(metric, &shared);
                }
            }
            if let (Some(target), Some(newest_ms)) = (target, self.newest_ms) {
                self.push(target.of_metric("target_info"), None, newest_ms, PointValue::Float(1.0));
            }
        }
        (self.batch, self.refused)
    }

    /// The labels that all series of a resource have, and those of its `target_info`.
    fn resource(&self, resource: Option<Resource>) -> (Labels, Option<Labels>) {
        let attributes = plain(resource.map(|resource| resource.attributes).unwrap_or_default());
        let named =
            |wanted: &str| attributes.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
        let mut shared = Labels::default();
        let job = match (named("service.namespace"), named("service.name")) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            (None, Some(name)) => name.to_owned(),
            _ => String::new(),
        };
        shared.set("job", &job);
        shared.set("instance", named("service.instance.id").unwrap_or_default());
        let identifying = ["service.namespace", "service.name", "service.instance.id"];
        let is_rest = |(key, _): &&(String, String)| !identifying.contains(&key.as_str());
        let rest: Vec<_> = attributes.iter().filter(is_rest).take(LABELS_MAX + 1).cloned().collect();
        let mut target = Labels::default();
        let has_target = !rest.is_empty() && shared != Labels::default();
        target.add_all(rest);
        for (name, value) in
            [("job", job.as_str()), ("instance", named("service.instance.id").unwrap_or_default())]
        {
            target.set(name, value);
        }
        let promoted = attributes.iter().filter(|(key, _)| self.promote.contains(key)).cloned().collect();
        shared.add_all(promoted);
        (shared, (has_target && target.is_within_bounds()).then_some(target))
    }

    fn metric(&mut self, metric: Metric, shared: &Labels) {
        let Metric { name, description, unit, data, .. } = metric;
        let Some(data) = data else { return };
        let is_counter = |sum: &opentelemetry_proto::tonic::metrics::v1::Sum| sum.is_monotonic;
        let (form, kind) = match &data {
            Data::Sum(sum) if is_counter(sum) => (Form::Counter, "counter"),
            Data::Gauge(_) | Data::Sum(_) => (Form::Gauge, "gauge"),
            Data::Histogram(_) | Data::ExponentialHistogram(_) => (Form::Other, "histogram"),
            Data::Summary(_) => (Form::Other, "summary"),
        };
        let name = metric_name(&name, &unit, form);
        if name.is_empty() || name.len() > super::names::LABEL_BYTES_MAX {
            return self.refused.refuse("a metric needs a name of at most 1024 bytes");
        }
        let metadata = MetricMetadata { name: name.clone(), kind: kind.to_owned(), help: description, unit };
        if !self.batch.metadata.contains(&metadata) {
            self.batch.metadata.push(metadata);
        }
        let is_delta = |temporality: i32| temporality == AggregationTemporality::Delta as i32;
        match data {
            Data::Gauge(gauge) => {
                gauge
                    .data_points
                    .into_iter()
                    .for_each(|point| self.number(&name, point, shared, false, false));
            }
            Data::Sum(sum) => {
                let (is_delta, is_monotonic) = (is_delta(sum.aggregation_temporality), sum.is_monotonic);
                sum.data_points
                    .into_iter()
                    .for_each(|point| self.number(&name, point, shared, is_delta, is_monotonic));
            }
            Data::Histogram(histogram) => {
                let is_delta = is_delta(histogram.aggregation_temporality);
                histogram
                    .data_points
                    .into_iter()
                    .for_each(|point| self.classic(&name, point, shared, is_delta));
            }
            Data::ExponentialHistogram(histogram) => {
                let is_delta = is_delta(histogram.aggregation_temporality);
                histogram
                    .data_points
                    .into_iter()
                    .for_each(|point| self.native(&name, point, shared, is_delta));
            }
            Data::Summary(summary) => {
                summary.data_points.into_iter().for_each(|point| self.summary(&name, point, shared));
            }
        }
    }

    /// The labels and the time of a point, or nothing when it is refused.
    fn place(
        &mut self,
        attributes: Vec<KeyValue>,
        shared: &Labels,
        (start_nanos, time_nanos, flags): (u64, u64, u32),
        is_delta: bool,
        series: usize,
    ) -> Option<(Labels, Span)> {
        if attributes.len() > LABELS_MAX {
            self.refused.refuse("a point has more than 64 labels");
            return None;
        }
        let mut labels = Labels::default();
        labels.add_all(plain(attributes));
        let mut joined = shared.clone();
        joined.add_own(labels);
        if !joined.is_within_bounds() {
            self.refused.refuse("a point has more than 64 labels, or one of more than 1024 bytes");
            return None;
        }
        if !self.expansion.allows(joined.bytes(), series) {
            self.refused.refuse(Expansion::REFUSED);
            return None;
        }
        let millis = |nanos: u64| i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX);
        let (start_ms, time_ms) = (millis(start_nanos), millis(time_nanos));
        if time_ms == 0 {
            self.refused.refuse("a point needs a time");
            return None;
        }
        self.newest_ms = self.newest_ms.max(Some(time_ms));
        Some((joined, Span { start_ms, time_ms, is_delta, has_value: flags & NO_VALUE == 0 }))
    }

    fn number(
        &mut self,
        name: &str,
        point: NumberDataPoint,
        shared: &Labels,
        is_delta: bool,
        is_monotonic: bool,
    ) {
        let times = (point.start_time_unix_nano, point.time_unix_nano, point.flags);
        let Some((labels, span)) = self.place(point.attributes, shared, times, is_delta, 1) else { return };
        let series = labels.of_metric(name);
        let value = match point.value {
            #[expect(clippy::cast_precision_loss, reason = "series hold doubles")]
            Some(Number::AsInt(number)) => number as f64,
            Some(Number::AsDouble(number)) => number,
            None if span.has_value => return self.refused.refuse("a point has no value"),
            None => 0.0,
        };
        let Some((total, created_ms)) = self.total(&series, Total::Number(value), span) else { return };
        let Total::Number(total) = total else { return };
        let value = if span.has_value { total } else { f64::from_bits(STALE_BITS) };
        let created_ms = created_ms.filter(|_| is_monotonic);
        let at = self.push(series, created_ms, span.time_ms, PointValue::Float(value));
        self.exemplars(at, point.exemplars);
    }

    /// Adds a delta up; what is cumulative already stays as it is. With when it began.
    fn total(&mut self, series: &SeriesLabels, value: Total, span: Span) -> Option<(Total, Option<i64>)> {
        if !span.is_delta || !span.has_value {
            let created_ms = (span.start_ms > 0 && span.start_ms < span.time_ms).then_some(span.start_ms);
            return Some((value, created_ms));
        }
        match self.deltas.add(series, value, (span.start_ms, span.time_ms), self.now) {
            Ok((total, created_ms)) => Some((total, (created_ms > 0).then_some(created_ms))),
            Err(why) => {
                self.refused.refuse(why);
                None
            }
        }
    }

    /// A histogram with bounds: a series for each bucket, which counts all below its bound.
    fn classic(&mut self, name: &str, point: HistogramDataPoint, shared: &Labels, is_delta: bool) {
        let times = (point.start_time_unix_nano, point.time_unix_nano, point.flags);
        let Some((labels, span)) =
            self.place(point.attributes, shared, times, is_delta, point.explicit_bounds.len() + 3)
        else {
            return;
        };
        let (bounds, counts) = (point.explicit_bounds, point.bucket_counts);
        let is_whole = counts.is_empty() || counts.len() == bounds.len() + 1;
        if span.has_value && (!is_whole || bounds.len() > BUCKETS_MAX) {
            return self.refused.refuse("a histogram needs one count more than bounds, and at most 10000");
        }
        let sum = point.sum;
        let own = Total::Classic { bounds, counts, count: point.count, sum: sum.unwrap_or_default() };
        let Some((total, created_ms)) = self.total(&labels.of_metric(name), own, span) else { return };
        let Total::Classic { bounds, counts, count, sum: total_sum } = total else { return };
        #[expect(clippy::cast_precision_loss, reason = "series hold doubles")]
        let value = |count: u64| {
            PointValue::Float(if span.has_value { count as f64 } else { f64::from_bits(STALE_BITS) })
        };
        let mut below = 0_u64;
        let mut places = Vec::new();
        for (bound, count) in bounds.iter().zip(&counts) {
            below = below.saturating_add(*count);
            let series = labels.with("le", &number_text(*bound)).of_metric(&format!("{name}_bucket"));
            places.push((*bound, self.push(series, created_ms, span.time_ms, value(below))));
        }
        let series = labels.with("le", "+Inf").of_metric(&format!("{name}_bucket"));
        places.push((f64::INFINITY, self.push(series, created_ms, span.time_ms, value(count))));
        self.push(labels.of_metric(&format!("{name}_count")), created_ms, span.time_ms, value(count));
        if sum.is_some() || !span.has_value {
            let sum = if span.has_value { total_sum } else { f64::from_bits(STALE_BITS) };
            let series = labels.of_metric(&format!("{name}_sum"));
            self.push(series, created_ms, span.time_ms, PointValue::Float(sum));
        }
        for exemplar in point.exemplars.into_iter().take(EXEMPLARS_MAX) {
            if let Some(exemplar) = example(exemplar)
                && let Some((_, at)) = places.iter().find(|(bound, _)| exemplar.value <= *bound)
            {
                self.batch.series[*at].exemplars.push(exemplar);
            }
        }
    }

    fn native(&mut self, name: &str, point: ExponentialHistogramDataPoint, shared: &Labels, is_delta: bool) {
        let times = (point.start_time_unix_nano, point.time_unix_nano, point.flags);
        let Some((labels, span)) = self.place(point.attributes.clone(), shared, times, is_delta, 1) else {
            return;
        };
        let exemplars = point.exemplars.clone();
        let histogram = match histogram(point, span.has_value) {
            Ok(histogram) => histogram,
            Err(why) => return self.refused.refuse(why),
        };
        let series = labels.of_metric(name);
        let Some((total, created_ms)) = self.total(&series, Total::Native(Box::new(histogram)), span) else {
            return;
        };
        let Total::Native(total) = total else { return };
        let at = self.push(series, created_ms, span.time_ms, PointValue::Histogram(total));
        self.exemplars(at, exemplars);
    }

    fn summary(&mut self, name: &str, point: SummaryDataPoint, shared: &Labels) {
        let times = (point.start_time_unix_nano, point.time_unix_nano, point.flags);
        let Some((labels, span)) =
            self.place(point.attributes, shared, times, false, point.quantile_values.len() + 2)
        else {
            return;
        };
        let created_ms = (span.start_ms > 0 && span.start_ms < span.time_ms).then_some(span.start_ms);
        let value =
            |number: f64| PointValue::Float(if span.has_value { number } else { f64::from_bits(STALE_BITS) });
        for quantile in point.quantile_values.into_iter().take(LABELS_OF_SUMMARY_MAX) {
            let series = labels.with("quantile", &number_text(quantile.quantile)).of_metric(name);
            self.push(series, created_ms, span.time_ms, value(quantile.value));
        }
        #[expect(clippy::cast_precision_loss, reason = "series hold doubles")]
        let count = point.count as f64;
        self.push(labels.of_metric(&format!("{name}_count")), created_ms, span.time_ms, value(count));
        self.push(labels.of_metric(&format!("{name}_sum")), created_ms, span.time_ms, value(point.sum));
    }

    /// Adds a point to its series; returns where that is.
    fn push(
        &mut self,
        labels: SeriesLabels,
        created_ms: Option<i64>,
        time_ms: i64,
        value: PointValue,
    ) -> usize {
        let at = *self.places.entry(labels.clone()).or_insert_with(|| {
            self.batch.series.push(SeriesPoints {
                labels,
                created_ms,
                points: Vec::new(),
                exemplars: Vec::new(),
            });
            self.batch.series.len() - 1
        });
        self.batch.series[at].points.push((time_ms, value));
        at
    }

    fn exemplars(&mut self, at: usize, exemplars: Vec<OtlpExemplar>) {
        let kept = exemplars.into_iter().take(EXEMPLARS_MAX).filter_map(example);
        self.batch.series[at].exemplars.extend(kept);
    }
}

/// Quantiles of one summary that are kept.
const LABELS_OF_SUMMARY_MAX: usize = 100;

fn histogram(point: ExponentialHistogramDataPoint, has_value: bool) -> Result<NativeHistogram, &'static str> {
    if point.scale < SCHEMA_MIN {
        return Err("an exponential histogram of a scale below -4 is too coarse");
    }
    let schema = point.scale.min(SCHEMA_MAX);
    let steps = u32::try_from(point.scale - schema).unwrap_or_default();
    let positive = buckets(point.positive, steps)?;
    let negative = buckets(point.negative, steps)?;
    let zero_threshold = if point.zero_threshold > 0.0 { point.zero_threshold } else { ZERO_THRESHOLD };
    let sum = if has_value { point.sum.unwrap_or_default() } else { f64::from_bits(STALE_BITS) };
    #[expect(clippy::cast_precision_loss, reason = "counts are doubles here, exact to 2^53")]
    let (zero_count, count) = (point.zero_count as f64, point.count as f64);
    Ok(NativeHistogram {
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive,
        negative,
        ..NativeHistogram::default()
    })
}

/// OTLP's bucket `i` ends at `base^(i+1)`, Prometheus' at `base^i`.
fn buckets(buckets: Option<Buckets>, steps: u32) -> Result<Vec<(i32, f64)>, &'static str> {
    let Some(Buckets { offset, bucket_counts }) = buckets else { return Ok(Vec::new()) };
    if bucket_counts.len() > BUCKETS_MAX {
        return Err("an exponential histogram has at most 10000 buckets to a side");
    }
    let far = i32::try_from(bucket_counts.len()).ok().and_then(|count| offset.checked_add(count + 1));
    if far.is_none() || offset.checked_sub(1).is_none() {
        return Err("an exponential histogram's offset is out of range");
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are doubles here, exact to 2^53")]
    let counted = (offset + 1..).zip(bucket_counts).map(|(index, count)| (index, count as f64));
    let all: Vec<(i32, f64)> = counted.filter(|(_, count)| *count > 0.0).collect();
    Ok(coarser(&all, steps))
}

fn example(exemplar: OtlpExemplar) -> Option<Exemplar> {
    #[expect(clippy::cast_precision_loss, reason = "exemplars hold doubles")]
    let value = match exemplar.value? {
        exemplar::Value::AsInt(number) => number as f64,
        exemplar::Value::AsDouble(number) => number,
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut labels = Vec::new();
    if exemplar.trace_id.len() == 16 {
        labels.push(("trace_id".to_owned(), hex(&exemplar.trace_id)));
    }
    if exemplar.span_id.len() == 8 {
        labels.push(("span_id".to_owned(), hex(&exemplar.span_id)));
    }
    for (key, value) in plain(exemplar.filtered_attributes) {
        // As in OpenMetrics: 128 characters of names and values together.
        let used: usize =
            labels.iter().map(|(name, value): &(String, String)| name.len() + value.len()).sum();
        let name = super::names::label_name(&key);
        if used + name.len() + value.len() <= 128 {
            labels.push((name, value));
        }
    }
    let unix_millis = i64::try_from(exemplar.time_unix_nano / 1_000_000).ok()?;
    Some(Exemplar { labels, unix_millis, value })
}

/// Attributes as labels are: all of it text.
fn plain(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    attributes.into_iter().map(|KeyValue { key, value, .. }| (key, spelled(value))).collect()
}

/// A bound as Prometheus writes it.
fn number_text(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if number != 0.0 && !(1e-4..1e21).contains(&number.abs()) {
        format!("{number:e}")
    } else {
        number.to_string()
    }
}

#[cfg(test)]
mod tests;
