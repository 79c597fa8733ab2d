//! Starts the observe room: stores, pipeline, read APIs.
//!
//! The stores know nothing of the pipeline and the pipeline nothing of the stores; the two adapters here bring them
//! together.

use std::sync::Arc;

use belfry_events::{EventsReader, EventsWriter};
use belfry_pipeline::{Entry, Pipeline, PipelineHandle, Store, StoreError, numbered};
use belfry_query::Reader;
use belfry_series::{SeriesReader, SeriesWriter};
use belfry_signal::{RecordReceiver, Registry};

use crate::config;

/// The running room.
#[derive(Clone)]
pub struct Observe {
    /// WAL and delivery.
    pub pipeline: PipelineHandle,
    /// Reading.
    pub reader: Reader,
    /// Reading metrics alone, for rules.
    pub series: SeriesReader,
}

/// Opens the stores and starts the pipeline.
///
/// # Errors
/// When a store or the WAL cannot be opened.
pub fn start(
    config: &config::Observe,
    registry: &Registry,
    records: RecordReceiver,
) -> anyhow::Result<Observe> {
    let (mut series_writer, series_reader): (SeriesWriter, SeriesReader) =
        belfry_series::Series::open(config.series.clone(), registry)?;
    series_writer.compact_in_background()?;
    let (events_writer, events_reader): (EventsWriter, EventsReader) =
        belfry_events::Events::open(config.events.clone(), registry)?;
    let stores: Vec<Box<dyn Store>> =
        vec![Box::new(EventsStore(events_writer)), Box::new(SeriesStore(series_writer))];
    let pipeline = Pipeline::start(config.pipeline.clone(), registry.clone(), records, stores)?;
    Ok(Observe { pipeline, series: series_reader.clone(), reader: Reader::new(events_reader, series_reader) })
}

/// Events as a store of the pipeline.
pub struct EventsStore(pub EventsWriter);

impl Store for EventsStore {
    fn name(&self) -> &'static str {
        "events"
    }

    fn apply(&mut self, position: u64, entries: &[Entry]) -> Result<(), StoreError> {
        let records = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Record(record) => Some(Arc::clone(record)),
                Entry::Samples { .. } | Entry::Series(_) => None,
            })
            .collect();
        self.0.apply(position, records).map_err(|error| StoreError::new(error.reason(), error.to_string()))
    }

    fn checkpoint(&self) -> u64 {
        self.0.checkpoint()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.0.flush().map_err(|error| StoreError::new(error.reason(), error.to_string()))
    }

    fn tick(&mut self, unix_millis: i64) {
        self.0.tick(unix_millis);
    }
}

/// Series as a store of the pipeline.
pub struct SeriesStore(pub SeriesWriter);

impl Store for SeriesStore {
    fn name(&self) -> &'static str {
        "series"
    }

    fn apply(&mut self, position: u64, entries: &[Entry]) -> Result<(), StoreError> {
        // A block that cannot be sealed is an error, but its samples are taken: the rest of the batch must be too.
        let mut first_error = None;
        for (position, entry) in numbered(position, entries) {
            let taken = match entry {
                Entry::Record(_) => Ok(()),
                Entry::Samples { unix_millis, samples } => self.0.append(position, *unix_millis, samples),
                Entry::Series(batch) => self.0.write(position, batch).map(drop),
            };
            if let Err(error) = taken {
                first_error.get_or_insert(StoreError::new(error.reason(), error.to_string()).but_taken());
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn checkpoint(&self) -> u64 {
        self.0.checkpoint()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.0.flush().map_err(|error| StoreError::new(error.reason(), error.to_string()))
    }

    fn tick(&mut self, unix_millis: i64) {
        self.0.tick(unix_millis);
    }
}
