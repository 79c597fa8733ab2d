//! Reading what the house saw: calls, traces, logs and series, for people and programs.
//!
//! [`Reader`] is what the rest of the house asks; [`router`] is the same over HTTP, in JSON, and for metrics the HTTP API
//! of Prometheus; [`render_call`] draws a call for a terminal. Whoever serves the router decides who may read: what it answers holds private values.
//!
//! Not here: stores (events, series), logins, the page.

mod config;
mod curves;
mod describe;
mod error;
mod http;
mod json;
mod ladder;
mod participants;
mod prometheus;
mod reader;
mod selector;
mod series;
mod signals;
#[cfg(test)]
mod tests;
mod time;

pub use belfry_events::{
    CallFilter, CallRow, CallView, Found, LogLine, LogQuery, RecordKind, Stamped, Timeline, TraceView,
};
pub use belfry_promql::{Answer, Data, Times};
pub use belfry_series::{MatchOperator, Matcher, SeriesData};
pub use config::Config;
pub use error::Error;
pub use http::{questions, router};
pub use json::{
    CallJson, CallRowJson, CallSummaryJson, LadderEntryJson, LegJson, LogLineJson, ParticipantJson,
    QualityPointJson, SpanJson, TraceJson,
};
pub use ladder::render_call;
pub use reader::{PromqlQuery, Reader};
pub use selector::parse_selector;

/// Registers the crate's metric families, for the catalogue of a process that does not run it.
pub fn describe(registry: &belfry_signal::Registry) {
    signals::Signals::register(registry);
}
