//! Transport: everything that components emit goes through here into a durable log and from there into the stores.
//!
//! One thread of its own takes records from the emitter's queue and samples from the registry, appends them to the
//! write-ahead log, and only after the fsync counts them as stored and hands them to each [`Store`]. After a crash
//! each store gets what its own checkpoint does not cover, in order, once.
//! Nothing here ever makes a component wait: when the disk does not keep up or fails, records are dropped and counted.
//!
//! Spans and logs also go to a collector over OTLP/gRPC where one is configured, without their private values.
//!
//! [`doors`] let in what others log, trace, measure and capture.
//! [`metrics`] are the doors for metrics that others measured, in and out.
//!
//! Not here: what the stores do with entries (series, events), queries.

mod config;
pub mod doors;
mod error;
mod export;
mod handle;
pub mod metrics;
mod pieces;
mod signals;
mod store;
mod wal;
mod worker;

pub use config::{Config, ExportConfig};
pub use error::{Error, StoreError, WriteError};
pub use handle::{Counts, Pipeline, PipelineHandle};
pub use store::{Entry, Store, numbered};

/// Registers this room's signals without starting it, for the catalogue.
pub fn describe(registry: &belfry_signal::Registry) {
    drop(signals::Signals::register(registry));
    doors::describe(registry);
    drop(metrics::signals::ReceiveSignals::register(registry));
    drop(metrics::signals::ScrapeSignals::register(registry));
    drop(metrics::signals::SendSignals::register(registry));
}

#[cfg(test)]
mod tests;
