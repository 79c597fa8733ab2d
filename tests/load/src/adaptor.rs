//! Events as a store of the pipeline, as the product attaches them.

use std::sync::Arc;

use belfry_events::EventsWriter;
use belfry_pipeline::{Entry, Store, StoreError};

/// The adaptor.
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
