//! The upstream conformance scripts of PromQL with their series in this store, sealed between load and eval.
//!
//! The store holds floats, and many scripts load native histograms too. What must hold is that every eval ends as it does
//! over the engine's own store without the histograms: the same pass, and the same fail in the same way. The engine's
//! own tests run the scripts whole.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that prints its table"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use belfry_promql::{
    Error, Labels, METRIC_NAME, Matcher, MemorySeries, ScriptStore, SeriesData, Value, run_script_in,
};
use belfry_series::{Config, Series, SeriesReader, SeriesWriter};
use belfry_signal::{Registry, Sample};

const FILES: [&str; 8] = [
    "aggregators",
    "functions",
    "histograms",
    "literals",
    "native_histograms",
    "operators",
    "selectors",
    "staleness",
];

/// The engine's own store, which histograms do not get into.
#[derive(Default)]
struct Floats(MemorySeries);

impl belfry_promql::Series for Floats {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error> {
        self.0.select(matchers, from_ms, to_ms)
    }
}

impl ScriptStore for Floats {
    fn add(&mut self, labels: &Labels, unix_millis: i64, value: Value) {
        if matches!(value, Value::Float(_)) {
            self.0.add(labels, unix_millis, value);
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// Where series are when a script asks for them.
#[derive(Clone, Copy, Debug)]
enum Place {
    Head,
    Blocks,
}

struct Store {
    place: Place,
    added: BTreeMap<i64, Vec<Sample>>,
    position: u64,
    writer: SeriesWriter,
    reader: SeriesReader,
    _directory: tempfile::TempDir,
}

impl Store {
    fn new(place: Place) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = Config {
            directory: directory.path().to_owned(),
            block_duration: Duration::from_hours(24),
            retention: Duration::from_hours(24),
            series_max: 100_000,
            metric_series_max: 100_000,
            head_bytes_max: 64 << 20,
            select_points_max: 10_000_000,
            block_indexes_max: 16,
        };
        let (writer, reader) = Series::open(config, &Registry::for_test()).expect("it opens");
        Self { place, added: BTreeMap::new(), position: 0, writer, reader, _directory: directory }
    }
}

impl belfry_promql::Series for Store {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error> {
        belfry_promql::Series::select(&self.reader, matchers, from_ms, to_ms)
    }
}

impl ScriptStore for Store {
    fn add(&mut self, labels: &Labels, unix_millis: i64, value: Value) {
        let Value::Float(value) = value else { return };
        let name = labels.metric_name().to_owned();
        let labels = labels.iter().filter(|(name, _)| *name != METRIC_NAME);
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.added.entry(unix_millis).or_default().push(Sample { name, labels, value });
    }

    fn loaded(&mut self) {
        for (unix_millis, samples) in std::mem::take(&mut self.added) {
            self.position += 1;
            self.writer.append(self.position, unix_millis, &samples).expect("the disk works");
        }
        if matches!(self.place, Place::Blocks) {
            self.writer.flush().expect("the disk works");
        }
    }

    fn clear(&mut self) {
        *self = Self::new(self.place);
    }
}

#[test]
fn upstream_scripts_end_the_same_over_head_and_blocks() {
    let Some(folder) = std::env::var_os("BELFRY_PROMQL_DIR") else {
        eprintln!(
            "BELFRY_PROMQL_DIR is unset: the upstream scripts of PromQL were NOT run through the store"
        );
        return;
    };
    let mut passed = 0;
    for name in FILES {
        let path = std::path::Path::new(&folder).join(format!("{name}.test"));
        let text = std::fs::read_to_string(&path).expect("a script");
        let expected = run_script_in(&text, &mut Floats::default());
        println!("{name:20} {} of {}", expected.passed, expected.passed + expected.failed.len());
        passed += expected.passed;
        for place in [Place::Head, Place::Blocks] {
            let found = run_script_in(&text, &mut Store::new(place));
            assert_eq!(found.passed, expected.passed, "{name} {place:?}");
            for (found, expected) in found.failed.iter().zip(&expected.failed) {
                assert_eq!(found, expected, "{name} {place:?}");
            }
        }
    }
    assert!(passed >= 820, "only {passed} pass without histograms");
}
