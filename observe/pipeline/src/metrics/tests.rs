//! The doors over a real pipeline: what is pushed, fetched and sent on, by HTTP on loopback.

mod receiving;
mod scraping;
mod sending;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use belfry_signal::{PointValue, Registry, Resource, SeriesBatch, Written};

use crate::{Config, Entry, Pipeline, PipelineHandle, Store, StoreError, numbered};

const SOON: Duration = Duration::from_secs(20);

/// A store of points that refuses those of a metric named `refused`, and has no room for one named `full`.
#[derive(Clone, Debug, Default)]
struct Shelf {
    batches: Arc<Mutex<Vec<SeriesBatch>>>,
    written: Vec<(u64, Written)>,
}

impl Shelf {
    /// Each point as `name{label="value"} value`, without its time.
    fn lines(&self) -> Vec<String> {
        let batches = self.batches.lock().expect("not poisoned");
        let mut lines = Vec::new();
        for series in batches.iter().flat_map(|batch| &batch.series) {
            let name = super::labels::metric_name(&series.labels).unwrap_or_default().to_owned();
            let labels = series.labels.iter().filter(|(label, _)| &**label != "__name__");
            let labels: Vec<String> = labels.map(|(label, value)| format!("{label}={value}")).collect();
            for (_, value) in &series.points {
                let value = match value {
                    PointValue::Float(value) if value.to_bits() == 0x7ff0_0000_0000_0002 => "gone".to_owned(),
                    PointValue::Float(value) => value.to_string(),
                    PointValue::Histogram(held) => format!("native {}", held.count),
                };
                lines.push(format!("{name}{{{}}} {value}", labels.join(",")));
            }
        }
        lines
    }

    async fn has(&self, line: &str) {
        let waiting = async {
            while !self.lines().iter().any(|held| held == line) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(SOON, waiting).await;
        assert!(in_time.is_ok(), "{line} is not in {:#?}", self.lines());
    }
}

impl Store for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn apply(&mut self, position: u64, entries: &[Entry]) -> Result<(), StoreError> {
        self.written.clear();
        for (position, entry) in numbered(position, entries) {
            let Entry::Series(batch) = entry else { continue };
            let mut written = Written::default();
            for series in &batch.series {
                let points = series.points.len() as u64;
                match super::labels::metric_name(&series.labels) {
                    Some("refused") => written.refuse("out_of_order", points),
                    Some("full") => written.refuse(belfry_signal::REFUSED_HEAD_FULL, points),
                    _ => written.floats += points,
                }
                written.exemplars += series.exemplars.len() as u64;
            }
            self.written.push((position, written));
            self.batches.lock().expect("not poisoned").push(batch.clone());
        }
        Ok(())
    }

    fn take_written(&mut self) -> Vec<(u64, Written)> {
        std::mem::take(&mut self.written)
    }

    fn checkpoint(&self) -> u64 {
        0
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn tick(&mut self, _: i64) {}
}

/// A pipeline with a shelf, and with what else is given.
fn pipeline(directory: &Path, others: Vec<Box<dyn Store>>) -> (PipelineHandle, Shelf, Registry) {
    let config = Config {
        directory: directory.join("wal"),
        segment_bytes_max: 64 << 10,
        wal_bytes_max: 8 << 20,
        record_bytes_max: 1 << 20,
        commit_interval: Duration::from_millis(1),
        commit_records_max: 100,
        retry_for: Duration::ZERO,
        sample_interval: Duration::from_secs(3600),
        export: None,
    };
    let (registry, records) = Registry::new(Resource::for_test(), 100);
    let shelf = Shelf::default();
    let stores = others.into_iter().chain([Box::new(shelf.clone()) as Box<dyn Store>]).collect();
    let handle = Pipeline::start(config, registry.clone(), records, stores).expect("it starts");
    (handle, shelf, registry)
}

/// Serves a router on a port of its own until the test ends.
async fn serve(router: Router) -> u16 {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        let _ended = axum::serve(listener, router).await;
    });
    port
}
