//! PromQL: lexer, parser, printer and engine, with the semantics of Prometheus 3.x.
//!
//! The engine reads series through the [`Series`] trait and takes every time as an argument: no clock, no
//! sockets, no telemetry, no threads. It evaluates column by column: each operator turns whole series (one
//! value per step) into whole series, so that a range query costs as much as its points and its steps.

mod annotation;
pub mod ast;
mod engine;
mod error;
mod functions;
mod histogram;
mod labels;
mod lexer;
mod matcher;
mod memory;
mod parser;
mod printer;
mod script;
mod source;
mod text;

pub use annotation::{Annotation, Annotations, Severity};
pub use engine::{Answer, Data, Options, Plan, Sample, Times, explain, query, query_expr};
pub use error::Error;
pub use functions::{Function, all as functions};
pub use histogram::{Bucket, CounterReset, Histogram, NHCB_SCHEMA};
pub use labels::{Labels, METRIC_NAME};
pub use matcher::{MatchOp, Matcher};
pub use memory::MemorySeries;
pub use parser::parse;
pub use printer::format;
pub use script::{
    Failure, ScriptReport, ScriptStore, parse_points, parse_series_name, run_script, run_script_in,
};
pub use source::{
    OfWindow, Purpose, STALE_NAN_BITS, STRETCH_POINTS, Selected, Series, SeriesData, Stretch,
    StretchedSeries, Value, is_stale, stale_marker,
};
pub use text::{format_float, format_short, parse_duration};
