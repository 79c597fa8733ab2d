//! The store of events: logs, spans, SIP messages, quality windows and calls, searchable the moment they come.
//!
//! Records go into a live buffer that is searched by scanning; full buffers become small immutable splits (one
//! Tantivy index each), published in a catalogue together with the log position that they reach. Small neighbours
//! are merged, old ones dropped whole. One search language works on both, and gives the same answers.
//!
//! This is the only crate that knows Tantivy. Not here: the log that makes records durable before they are in a
//! split (the pipeline), HTTP and JSON (the query crate).

mod building;
mod catalogue;
mod config;
mod error;
mod facts;
mod filter;
mod handle;
mod housekeeping;
mod live;
mod query;
mod schema;
mod signals;
mod split;
mod store;
#[cfg(test)]
mod tests;
mod view;
mod words;
mod writer;

pub use config::Config;
pub use error::{BadQuery, Error};
pub use facts::{RecordKind, severity, trace_id};
pub use handle::EventsReader;
pub use view::{CallFilter, CallRow, CallView, Found, LogLine, LogQuery, Stamped, Timeline, TraceView};
pub use writer::{Events, EventsWriter};

/// Registers what this crate tells the world, for the catalogue.
pub fn describe(registry: &belfry_signal::Registry) {
    let _registered = signals::Signals::register(registry);
}
