//! The registry: every metric family of a process, with a descriptor that the catalogue prints.
//!
//! It is passed in by constructor, never reached for: two tests in one process each read their own numbers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

use serde::{Deserialize, Serialize};

use crate::emitter::{Emitter, Resource};
use crate::journey::Journeys;
use crate::label::{Bound, Labels};
use crate::metric::{Counter, Gauge, Histogram};
use crate::queue::RecordReceiver;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by bucket.
    Histogram,
    /// No series of its own: a value that one call had over time, read when a question names the call.
    Curve,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Curve => "curve",
        })
    }
}

/// One family, as the catalogue shows it.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// Full name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Labels and their bounds.
    pub labels: &'static [(&'static str, Bound)],
}

impl Descriptor {
    /// The unit, read from the name's last words.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        let stem = self.name.strip_suffix("_total").unwrap_or(&self.name);
        ["seconds", "bytes", "ratio", "mos", "packets"]
            .into_iter()
            .find(|unit| stem.ends_with(unit))
            .unwrap_or("1")
    }
}

/// One sample of one series, read from the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Metric name (`x_bucket`, `x_sum`, `x_count` for histograms).
    pub name: String,
    /// Label names and values, sorted by name.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

/// All families of a process, its emitter and its journeys.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    families: prometheus::Registry,
    descriptors: Mutex<Vec<Descriptor>>,
    emitter: Emitter,
    journeys: Journeys,
}

/// A component's own corner of the registry: its families start with its prefix.
#[derive(Clone, Debug)]
pub struct Component {
    registry: Registry,
    prefix: &'static str,
}

impl Registry {
    /// A registry whose emitter holds at most `records_max` records before it drops.
    #[must_use]
    pub fn new(resource: Resource, records_max: usize) -> (Self, RecordReceiver) {
        let families = prometheus::Registry::new();
        let (emitter, receiver) = Emitter::new(resource, records_max);
        let inner = Inner { families, descriptors: Mutex::default(), emitter, journeys: Journeys::new() };
        let registry = Self { inner: Arc::new(inner) };
        registry.inner.emitter.register(&registry.component("signal"));
        registry.inner.journeys.register(&registry.component("journey"));
        (registry, receiver)
    }

    /// A registry for tests: small queue, nobody reads the records.
    #[must_use]
    pub fn for_test() -> Self {
        Self::new(Resource::for_test(), 1024).0
    }

    /// The corner of the component with this prefix, as `edge_gateway`.
    #[must_use]
    pub fn component(&self, prefix: &'static str) -> Component {
        Component { registry: self.clone(), prefix }
    }

    /// Where records go.
    #[must_use]
    pub fn emitter(&self) -> &Emitter {
        &self.inner.emitter
    }

    /// The exact counts that SLOs are judged on.
    #[must_use]
    pub fn journeys(&self) -> &Journeys {
        &self.inner.journeys
    }

    /// Every registered family, sorted by name.
    #[must_use]
    pub fn catalogue(&self) -> Vec<Descriptor> {
        let mut descriptors = self.inner.descriptors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        descriptors.sort_by(|a, b| a.name.cmp(&b.name));
        descriptors
    }

    /// The Prometheus text exposition of every family.
    #[must_use]
    pub fn encode_text(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.inner.families.gather()).unwrap_or_default()
    }

    /// Every series' present value: the in-process path to the store, with no text between.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for family in self.inner.families.gather() {
            for metric in family.get_metric() {
                let mut labels: Vec<(String, String)> = metric
                    .get_label()
                    .iter()
                    .map(|pair| (pair.name().to_owned(), pair.value().to_owned()))
                    .collect();
                labels.sort();
                match family.get_field_type() {
                    MetricType::COUNTER => {
                        let value = metric.get_counter().get_value();
                        samples.push(Sample { name: family.name().to_owned(), labels, value });
                    }
                    MetricType::HISTOGRAM => push_histogram(&mut samples, family.name(), &labels, metric),
                    _ => {
                        let value = metric.get_gauge().get_value();
                        samples.push(Sample { name: family.name().to_owned(), labels, value });
                    }
                }
            }
        }
        samples
    }

    fn register(&self, descriptor: Descriptor, collector: Box<dyn Collector>) {
        // A second registration of a name would lose one component's numbers: the catalogue test fails on it.
        let registered = self.inner.families.register(collector);
        debug_assert!(registered.is_ok(), "{}: {registered:?}", descriptor.name);
        self.inner.descriptors.lock().unwrap_or_else(PoisonError::into_inner).push(descriptor);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sample is a double; counts stay exact below 2^53")]
fn push_histogram(
    samples: &mut Vec<Sample>,
    name: &str,
    labels: &[(String, String)],
    metric: &prometheus::proto::Metric,
) {
    let histogram = metric.get_histogram();
    let mut push_bucket = |bound: f64, count: u64| {
        let mut labels = labels.to_vec();
        let le = if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() };
        labels.push(("le".to_owned(), le));
        labels.sort();
        samples.push(Sample { name: format!("{name}_bucket"), labels, value: count as f64 });
    };
    for bucket in histogram.get_bucket() {
        push_bucket(bucket.upper_bound(), bucket.cumulative_count());
    }
    push_bucket(f64::INFINITY, histogram.get_sample_count());
    samples.push(Sample {
        name: format!("{name}_sum"),
        labels: labels.to_vec(),
        value: histogram.get_sample_sum(),
    });
    let count = histogram.get_sample_count() as f64;
    samples.push(Sample { name: format!("{name}_count"), labels: labels.to_vec(), value: count });
}

impl Component {
    /// The registry that this is a corner of.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Where this component's records go.
    #[must_use]
    pub fn emitter(&self) -> Emitter {
        self.registry.inner.emitter.clone()
    }

    /// The exact counts that SLOs are judged on.
    #[must_use]
    pub fn journeys(&self) -> Journeys {
        self.registry.inner.journeys.clone()
    }

    /// Registers a family of counters; `name` ends in `_total`.
    #[must_use]
    pub fn counter<L: Labels>(&self, name: &'static str, help: &'static str) -> Counter<L> {
        debug_assert!(name.ends_with("_total"), "a counter's name ends in _total: {name}");
        let full_name = format!("{}_{name}", self.prefix);
        let label_names: Vec<&str> = L::DESCRIPTIONS.iter().map(|(name, _)| *name).collect();
        let family = IntCounterVec::new(Opts::new(&full_name, help), &label_names)
            .unwrap_or_else(|error| bad_family(&error));
        if label_names.is_empty() {
            family.with_label_values::<&str>(&[]);
        }
        self.registry.register(
            Descriptor { name: full_name, kind: Kind::Counter, help, labels: L::DESCRIPTIONS },
            Box::new(family.clone()),
        );
        Counter::new(family)
    }

    /// Registers a family of gauges.
    #[must_use]
    pub fn gauge<L: Labels>(&self, name: &'static str, help: &'static str) -> Gauge<L> {
        let full_name = format!("{}_{name}", self.prefix);
        let label_names: Vec<&str> = L::DESCRIPTIONS.iter().map(|(name, _)| *name).collect();
        let family = IntGaugeVec::new(Opts::new(&full_name, help), &label_names)
            .unwrap_or_else(|error| bad_family(&error));
        if label_names.is_empty() {
            family.with_label_values::<&str>(&[]);
        }
        self.registry.register(
            Descriptor { name: full_name, kind: Kind::Gauge, help, labels: L::DESCRIPTIONS },
            Box::new(family.clone()),
        );
        Gauge::new(family)
    }

    /// Describes what is known of single calls over time. It has no series, and so no labels that could be too many.
    pub fn curve(&self, name: &'static str, help: &'static str, labels: &'static [(&'static str, Bound)]) {
        let name = format!("{}_{name}", self.prefix);
        let descriptor = Descriptor { name, kind: Kind::Curve, help, labels };
        self.registry.inner.descriptors.lock().unwrap_or_else(PoisonError::into_inner).push(descriptor);
    }

    /// Registers a family of histograms with these upper bounds, in the unit that the name ends in.
    #[must_use]
    pub fn histogram<L: Labels>(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: &[f64],
    ) -> Histogram<L> {
        let full_name = format!("{}_{name}", self.prefix);
        let label_names: Vec<&str> = L::DESCRIPTIONS.iter().map(|(name, _)| *name).collect();
        let options = HistogramOpts::new(&full_name, help).buckets(buckets.to_vec());
        let family = HistogramVec::new(options, &label_names).unwrap_or_else(|error| bad_family(&error));
        self.registry.register(
            Descriptor { name: full_name, kind: Kind::Histogram, help, labels: L::DESCRIPTIONS },
            Box::new(family.clone()),
        );
        Histogram::new(family)
    }
}

/// Names and labels are literals in `signals.rs` files: a bad one is a bug that the catalogue test meets first.
#[expect(clippy::panic, reason = "only a malformed literal can come here, at start-up")]
fn bad_family<T>(error: &prometheus::Error) -> T {
    panic!("a metric family is malformed: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::SECONDS;

    crate::label_enum! {
        /// Test label.
        enum Outcome("outcome") { Ok = "ok", Failed = "failed" }
    }

    #[test]
    fn families_carry_their_component_and_are_described() {
        let registry = Registry::for_test();
        let component = registry.component("edge_gateway");
        let handshakes: Counter<(Outcome,)> = component.counter("handshakes_total", "Handshakes ended.");
        let seconds: Histogram<()> = component.histogram("handshake_seconds", "Handshake time.", SECONDS);
        let open: Gauge<()> = component.gauge("connections", "Connections open now.");
        handshakes.inc((Outcome::Ok,));
        handshakes.add((Outcome::Failed,), 2);
        seconds.observe((), 0.003);
        let guard = open.guard(());
        let text = registry.encode_text();
        assert!(text.contains("edge_gateway_handshakes_total{outcome=\"failed\"} 2"), "{text}");
        assert!(text.contains("edge_gateway_connections 1"), "{text}");
        drop(guard);
        assert_eq!(open.value(()), 0);
        let catalogue = registry.catalogue();
        let handshake =
            catalogue.iter().find(|d| d.name == "edge_gateway_handshake_seconds").expect("described");
        assert_eq!((handshake.kind, handshake.unit()), (Kind::Histogram, "seconds"));
    }

    #[test]
    fn samples_of_a_histogram_have_buckets_sum_and_count() {
        let registry = Registry::for_test();
        let seconds: Histogram<()> = registry.component("x").histogram("wait_seconds", "Wait.", &[0.1, 1.0]);
        seconds.observe((), 0.5);
        let samples = registry.samples();
        let value = |name: &str, le: Option<&str>| {
            samples
                .iter()
                .find(|s| s.name == name && le.is_none_or(|le| s.labels.contains(&("le".into(), le.into()))))
                .map(|s| s.value)
        };
        assert_eq!(value("x_wait_seconds_bucket", Some("0.1")), Some(0.0));
        assert_eq!(value("x_wait_seconds_bucket", Some("1")), Some(1.0));
        assert_eq!(value("x_wait_seconds_bucket", Some("+Inf")), Some(1.0));
        assert_eq!(value("x_wait_seconds_sum", None), Some(0.5));
        assert_eq!(value("x_wait_seconds_count", None), Some(1.0));
    }
}
