//! The store of events: logs, spans, SIP messages, quality windows and calls, searchable the moment they come.
//!
//! Records go into a live buffer that is searched by scanning; full buffers become small immutable splits (packed
//! blocks of records and a Tantivy index of them), published in a catalogue together with the log position that they
//! reach. Small neighbours are merged, old ones dropped whole. One search language works on both, and gives the same
//! answers.
//!
//! This is the only crate that knows Tantivy. Not here: the log that makes records durable before they are in a
//! split (the pipeline), HTTP and JSON (the query crate).

mod assembly;
mod blocks;
mod building;
mod bundle;
mod catalogue;
mod config;
mod error;
mod facts;
#[cfg(test)]
mod faults;
mod filter;
mod handle;
mod housekeeping;
mod keeping;
mod live;
mod query;
mod recovery;
mod schema;
mod signals;
mod split;
mod store;
mod terms;
#[cfg(test)]
mod tests;
mod view;
mod words;
mod writer;

pub use config::{Config, WhenDiskFull};
pub use error::{BadQuery, Error};
pub use facts::{RecordKind, Stream, severity, trace_id};
pub use handle::EventsReader;
pub use keeping::{Hold, Keep};
pub use view::{CallFilter, CallRow, CallView, Found, LogLine, LogQuery, Stamped, Timeline, TraceView};
pub use writer::{Events, EventsWriter};

/// Registers what this crate tells the world, for the catalogue.
pub fn describe(registry: &belfry_signal::Registry) {
    let _registered = signals::Signals::register(registry);
}
