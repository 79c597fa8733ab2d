//! The upstream conformance scripts of PromQL with their series in this store: in the head, in sealed blocks, and in
//! compacted ones. Every eval passes in each place, as it does over the engine's own store.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that prints its table"
)]

use std::time::Duration;

use belfry_promql::{
    CounterReset, Error, Histogram, Labels, Matcher, ScriptStore, SeriesData, Value, run_script_in,
};
use belfry_series::{Config, Series, SeriesReader, SeriesWriter};
use belfry_signal::{NativeHistogram, PointValue, Registry, SeriesBatch, SeriesPoints};

/// The scripts, with the number of their evals.
const FILES: [(&str, usize); 8] = [
    ("aggregators", 160),
    ("functions", 431),
    ("histograms", 185),
    ("literals", 25),
    ("native_histograms", 522),
    ("operators", 214),
    ("selectors", 31),
    ("staleness", 17),
];

/// Where series are when a script asks for them.
#[derive(Clone, Copy, Debug)]
enum Place {
    Head,
    Sealed,
    Compacted,
}

struct Store {
    place: Place,
    added: SeriesBatch,
    position: u64,
    writer: SeriesWriter,
    reader: SeriesReader,
    _directory: tempfile::TempDir,
}

impl Store {
    fn new(place: Place) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = Config {
            // A script is a few hours long: several windows, and levels of them.
            block_duration: Duration::from_mins(30),
            retention: Duration::from_hours(24),
            out_of_order_window: Duration::ZERO,
            ..Config::in_directory(directory.path())
        };
        let (writer, reader) = Series::open(config, &Registry::for_test()).expect("it opens");
        Self { place, added: SeriesBatch::default(), position: 0, writer, reader, _directory: directory }
    }
}

impl belfry_promql::Series for Store {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error> {
        belfry_promql::Series::select(&self.reader, matchers, from_ms, to_ms)
    }
}

fn native(histogram: &Histogram) -> NativeHistogram {
    NativeHistogram {
        is_gauge: histogram.hint == CounterReset::Gauge,
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        zero_count: histogram.zero_count,
        count: histogram.count,
        sum: histogram.sum,
        positive: histogram.positive.clone(),
        negative: histogram.negative.clone(),
        custom_bounds: histogram.custom_bounds.to_vec(),
    }
}

impl ScriptStore for Store {
    fn add(&mut self, labels: &Labels, unix_millis: i64, value: Value) {
        let value = match value {
            Value::Float(value) => PointValue::Float(value),
            Value::Histogram(histogram) => PointValue::Histogram(Box::new(native(&histogram))),
        };
        let is_same = self.added.series.last().is_some_and(|last| *last.labels == *labels.pairs());
        if !is_same {
            let (labels, points, exemplars) = (labels.pairs().into(), Vec::new(), Vec::new());
            self.added.series.push(SeriesPoints { labels, created_ms: None, points, exemplars });
        }
        if let Some(last) = self.added.series.last_mut() {
            last.points.push((unix_millis, value));
        }
    }

    fn loaded(&mut self) {
        self.position += 1;
        let written = self.writer.write(self.position, &std::mem::take(&mut self.added)).0;
        assert_eq!(written.refusals(), 0);
        if matches!(self.place, Place::Sealed | Place::Compacted) {
            self.writer.flush().expect("the disk works");
        }
        if matches!(self.place, Place::Compacted) {
            self.writer.maintenance().compact_all().expect("the disk works");
        }
    }

    fn clear(&mut self) {
        *self = Self::new(self.place);
    }
}

#[test]
fn upstream_scripts_pass_over_head_and_blocks() {
    let Some(folder) = std::env::var_os("BELFRY_PROMQL_DIR") else {
        eprintln!(
            "BELFRY_PROMQL_DIR is unset: the upstream scripts of PromQL were NOT run through the store"
        );
        return;
    };
    println!("{:20} {:>6} {:>6} {:>9} {:>6}", "file", "head", "sealed", "compacted", "evals");
    let mut faults = Vec::new();
    for (name, evals) in FILES {
        let path = std::path::Path::new(&folder).join(format!("{name}.test"));
        let text = std::fs::read_to_string(&path).expect("a script");
        let passed = [Place::Head, Place::Sealed, Place::Compacted].map(|place| {
            let report = run_script_in(&text, &mut Store::new(place));
            for failure in &report.failed {
                faults.push(format!("{name}.test:{} {place:?}: {}", failure.line, failure.text));
            }
            if report.passed != evals {
                faults.push(format!("{name} {place:?}: {} of {evals}", report.passed));
            }
            report.passed
        });
        println!("{name:20} {:>6} {:>6} {:>9} {evals:>6}", passed[0], passed[1], passed[2]);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
