//! The time-series store: every metric of the house, in chunks, on disk, found by its labels.
//!
//! New samples go to the head, in memory, packed as they come. When a window of time is over the head becomes a sealed
//! block: one file that never changes, published together with the position of the write-ahead log that it covers
//! in one transaction of the catalogue. A restart opens the blocks and is given the rest from the log again.
//! Old blocks are deleted whole.
//!
//! Why our own: see `reference/telemetry.md` section 0. No crate has a head that takes one sample at a time in about a byte
//! and a half, blocks that share a checkpoint with a log, and a limit on cardinality that names the offender.
//!
//! PromQL's engine reads it through [`PromqlSource`].
//!
//! Not here: PromQL itself, HTTP, the write-ahead log itself (the pipeline calls the writer from its one thread).

mod bits;
mod block;
mod bucket;
mod catalogue;
mod chunk;
mod column;
mod compact;
mod config;
mod downsample;
mod error;
mod exemplar;
#[doc(hidden)]
pub mod fuzz;
mod handle;
mod head;
mod layout;
mod level;
mod maintenance;
mod matcher;
mod merge;
mod plan;
mod postings;
mod prometheus;
mod promql;
mod read;
mod seal;
mod sealed;
mod shared;
mod signals;
mod stretch;
mod symbols;
mod top;
mod upload;

pub use config::{BucketConfig, Config};
pub use error::Error;
pub use handle::{Series, SeriesWriter};
pub use maintenance::{Deleted, Maintenance, Progress};
pub use matcher::{MatchOperator, Matcher};
pub use prometheus::{Carried, xor_chunk};
pub use promql::PromqlSource;
pub use read::{SeriesData, SeriesExemplars, SeriesReader};
pub use top::{Top, TopEntry};

/// Milliseconds of a configured duration.
fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Registers this room's signals without starting it, for the catalogue.
pub fn describe(registry: &belfry_signal::Registry) {
    drop(signals::Signals::register(registry));
}

#[cfg(test)]
mod tests;
