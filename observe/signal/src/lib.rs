//! Emission: what every component of Belfry uses to tell the world what happened.
//!
//! A component gets a [`Component`] from the [`Registry`], registers its metric families in its own `signals.rs`,
//! and keeps one method per thing that can happen; each method moves the counters and hands a typed record
//! to the [`Emitter`]. Nothing here does I/O and nothing here waits: a record that finds the queue full is
//! dropped and counted, so telemetry can never cost a call its timing.
//!
//! Not here: queues to disk, stores, exporters (the pipeline), queries (the query crate).

mod batch;
mod emitter;
pub mod journey;
pub mod label;
mod metric;
mod packed;
mod pii;
mod queue;
pub mod record;
mod registry;
mod trace;
pub mod wire;

pub use batch::{
    Exemplar, MetricMetadata, NativeHistogram, PointValue, REFUSED_HEAD_FULL, SeriesBatch, SeriesLabels,
    SeriesPoints, Written,
};
pub use emitter::{Emitter, Resource};
pub use journey::{Cause, FailedEvent, Journey, JourneyCount, Journeys, Room};
pub use label::{Bound, Label, Labels, Region};
pub use metric::{
    Counter, CounterHandle, Gauge, GaugeGuard, Histogram, HistogramHandle, SECONDS, SECONDS_FAST,
};
pub use packed::{PackedRecord, RecordKind, call_hash};
pub use pii::Pii;
pub use queue::{NoRecord, RecordReceiver};
pub use record::{Record, Severity, SipMessageRef, Value};
pub use registry::{Component, Descriptor, Kind, Registry, Sample};
pub use trace::{SpanContext, SpanId, TraceId, TraceKey};

thread_local! {
    static SIMULATED: std::cell::Cell<Option<fn() -> u64>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread takes the time of [`now_unix_nanos`] from there: for simulations, in which time is theirs. In a
/// process without one this costs a nanosecond.
#[doc(hidden)]
pub fn simulate_clock(clock: Option<fn() -> u64>) {
    SIMULATED.set(clock);
}

/// Nanoseconds since the Unix epoch, now. Shells stamp records with it; sans-IO crates get time as an argument.
#[must_use]
pub fn now_unix_nanos() -> u64 {
    if let Some(clock) = SIMULATED.get() {
        return clock();
    }
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}
