//! Reading the exposition in protobuf: `io.prometheus.client.MetricFamily`, each with its length before it.
//!
//! The only exposition that has native histograms. Each family becomes the series that the text formats would show;
//! a histogram that is native comes as one, and as classic buckets too when that is asked for.

use belfry_signal::{Exemplar, PointValue};
use belfry_wire::messages::client;
use belfry_wire::native;
use prost::Message;
use prost::bytes::{Buf, Bytes};

use super::exposition::{Fault, Item, NO_TIME, Said, Sink, write_series};

/// What is to be made of histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histograms {
    /// Whether native histograms are taken; else only their classic buckets are.
    pub native: bool,
    /// Whether the classic buckets of a native histogram are taken too.
    pub classic_too: bool,
}

/// Reads a page.
///
/// # Errors
/// At the first family that cannot be read, or when the sink has enough.
pub fn read(mut page: Bytes, histograms: Histograms, sink: &mut dyn Sink) -> Result<(), Fault> {
    let mut reading = Reading { histograms, sink, series: String::new() };
    let mut number = 0;
    while page.has_remaining() {
        number += 1;
        let fault = |what: String| Fault { line: number, what };
        let family = client::MetricFamily::decode_length_delimited(&mut page)
            .map_err(|error| fault(format!("this is not a family of metrics: {error}")))?;
        reading.family(&family).map_err(fault)?;
    }
    Ok(())
}

struct Reading<'a> {
    histograms: Histograms,
    sink: &'a mut dyn Sink,
    /// The series that is being told, reused.
    series: String,
}

fn text(bytes: Option<&Bytes>) -> Result<&str, String> {
    let bytes = bytes.map(|bytes| &bytes[..]).unwrap_or_default();
    std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8".to_owned())
}

/// The rest of a series' description: what it is called beyond the family, and one more label.
#[derive(Clone, Copy, Default)]
struct Ending<'a> {
    name: &'a str,
    label: Option<(&'a str, &'a str)>,
}

impl Reading<'_> {
    fn family(&mut self, family: &client::MetricFamily) -> Result<(), String> {
        let name = text(family.name.as_ref())?;
        let kind = match family.kind.unwrap_or(0) {
            0 => "counter",
            1 => "gauge",
            2 => "summary",
            4 => "histogram",
            5 => "gaugehistogram",
            _ => "unknown",
        };
        self.sink.said(name, Said::Kind(kind));
        self.sink.said(name, Said::Help(text(family.help.as_ref())?.into()));
        let unit = text(family.unit.as_ref())?;
        if !unit.is_empty() {
            self.sink.said(name, Said::Unit(unit));
        }
        for metric in &family.metric {
            self.metric(name, kind, metric)?;
        }
        Ok(())
    }

    fn metric(&mut self, name: &str, kind: &str, metric: &client::Metric) -> Result<(), String> {
        if let Some(counter) = &metric.counter {
            let exemplars = counter.exemplar.iter().map(exemplar).collect::<Result<_, _>>()?;
            let created_ms = counter.created_timestamp.map(client::Timestamp::millis);
            let value = PointValue::Float(counter.value.unwrap_or(0.0));
            return self.tell(name, Ending::default(), metric, value, exemplars, created_ms);
        }
        if let Some(number) = metric.gauge.as_ref().or(metric.untyped.as_ref()) {
            return self.float(name, Ending::default(), metric, number.value.unwrap_or(0.0), None);
        }
        if let Some(summary) = &metric.summary {
            return self.summary(name, metric, summary);
        }
        match &metric.histogram {
            Some(histogram) => self.histogram(name, kind == "gaugehistogram", metric, histogram),
            None => Ok(()),
        }
    }

    fn summary(
        &mut self,
        name: &str,
        metric: &client::Metric,
        summary: &client::Summary,
    ) -> Result<(), String> {
        let created_ms = summary.created_timestamp.map(client::Timestamp::millis);
        for quantile in &summary.quantile {
            let place = number(quantile.quantile.unwrap_or(0.0));
            let ending = Ending { name: "", label: Some(("quantile", &place)) };
            self.float(name, ending, metric, quantile.value.unwrap_or(f64::NAN), None)?;
        }
        let ending = |name| Ending { name, label: None };
        self.float(name, ending("_sum"), metric, summary.sample_sum.unwrap_or(0.0), created_ms)?;
        self.float(name, ending("_count"), metric, summary.sample_count.unwrap_or(0) as f64, created_ms)
    }

    fn histogram(
        &mut self,
        name: &str,
        is_gauge: bool,
        metric: &client::Metric,
        histogram: &client::Histogram,
    ) -> Result<(), String> {
        let created_ms = histogram.created_timestamp.map(client::Timestamp::millis);
        if self.histograms.native {
            let native = native::from_exposition(histogram, is_gauge).map_err(|fault| fault.to_string())?;
            if let Some(native) = native {
                let in_buckets = histogram.bucket.iter().filter_map(|bucket| bucket.exemplar.as_ref());
                let exemplars = histogram.exemplars.iter().chain(in_buckets);
                // Only those with a time can be told apart in a native histogram.
                let exemplars = exemplars.map(exemplar).collect::<Result<Vec<_>, _>>()?;
                let exemplars = exemplars.into_iter().filter(|held| held.unix_millis != NO_TIME).collect();
                let value = PointValue::Histogram(Box::new(native));
                self.tell(name, Ending::default(), metric, value, exemplars, created_ms)?;
                if !self.histograms.classic_too {
                    return Ok(());
                }
            }
        }
        let count = histogram.sample_count_float.filter(|count| *count > 0.0);
        let count = count.unwrap_or(histogram.sample_count.unwrap_or(0) as f64);
        let mut has_infinite = false;
        for bucket in &histogram.bucket {
            let bound = bucket.upper_bound.unwrap_or(f64::INFINITY);
            has_infinite |= bound == f64::INFINITY;
            let held = bucket.cumulative_count_float.filter(|count| *count > 0.0);
            let held = held.unwrap_or(bucket.cumulative_count.unwrap_or(0) as f64);
            let bound = number(bound);
            let ending = Ending { name: "_bucket", label: Some(("le", &bound)) };
            let exemplars = bucket.exemplar.iter().map(exemplar).collect::<Result<_, _>>()?;
            self.tell(name, ending, metric, PointValue::Float(held), exemplars, created_ms)?;
        }
        if !has_infinite {
            let ending = Ending { name: "_bucket", label: Some(("le", "+Inf")) };
            self.float(name, ending, metric, count, created_ms)?;
        }
        let ending = |name| Ending { name, label: None };
        self.float(name, ending("_sum"), metric, histogram.sample_sum.unwrap_or(0.0), created_ms)?;
        self.float(name, ending("_count"), metric, count, created_ms)
    }

    fn float(
        &mut self,
        name: &str,
        ending: Ending<'_>,
        metric: &client::Metric,
        value: f64,
        created_ms: Option<i64>,
    ) -> Result<(), String> {
        self.tell(name, ending, metric, PointValue::Float(value), Vec::new(), created_ms)
    }

    fn tell(
        &mut self,
        name: &str,
        ending: Ending<'_>,
        metric: &client::Metric,
        value: PointValue,
        exemplars: Vec<Exemplar>,
        created_ms: Option<i64>,
    ) -> Result<(), String> {
        let mut labels = Vec::with_capacity(metric.label.len() + 1);
        for label in &metric.label {
            labels.push((text(label.name.as_ref())?, text(label.value.as_ref())?));
        }
        labels.extend(ending.label);
        self.series.clear();
        let full = if ending.name.is_empty() { name.to_owned() } else { format!("{name}{}", ending.name) };
        write_series(&mut self.series, &full, &mut labels.into_iter());
        let unix_millis = metric.timestamp_ms.filter(|time| *time != 0);
        self.sink.take(Item { series: &self.series, value, unix_millis, exemplars, created_ms })
    }
}

/// A bound or quantile as the text formats write it.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        return "+Inf".to_owned();
    }
    // Whole numbers as 1.0, as OpenMetrics and Prometheus 3 have them.
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.1}") } else { value.to_string() }
}

fn exemplar(held: &client::Exemplar) -> Result<Exemplar, String> {
    let labels = held
        .label
        .iter()
        .map(|label| Ok((text(label.name.as_ref())?.to_owned(), text(label.value.as_ref())?.to_owned())));
    Ok(Exemplar {
        labels: labels.collect::<Result<_, String>>()?,
        unix_millis: held.timestamp.map_or(NO_TIME, client::Timestamp::millis),
        value: held.value.unwrap_or(0.0),
    })
}

#[cfg(test)]
mod tests;
