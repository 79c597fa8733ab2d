//! What readers ask and what they get: typed records, never text that was taken apart.

use std::sync::Arc;

use belfry_signal::record::{Call, Log, Name, Quality, SipMessage, Span};
use belfry_signal::{Pii, Record, Severity, TraceId};

use crate::facts::{RecordKind, severity};

/// A search.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// In the search language; empty asks for everything.
    pub text: String,
    /// Only records of this time or later, in nanoseconds since the Unix epoch.
    pub from_nanos: Option<u64>,
    /// Only records before this time.
    pub to_nanos: Option<u64>,
    /// Only records that matter so much at least.
    pub severity_min: Option<Severity>,
    /// Only these kinds; none named means all.
    pub kinds: Vec<RecordKind>,
    /// How many rows; the store's own bound applies as well.
    pub limit: usize,
}

/// Which calls.
#[derive(Clone, Debug, Default)]
pub struct CallFilter {
    /// Only calls that ended at this time or later, in nanoseconds since the Unix epoch.
    pub from_nanos: Option<u64>,
    /// Only calls that ended before this time.
    pub to_nanos: Option<u64>,
    /// `answered`, `busy`, `no_answer`, `cancelled`, `rejected` or `failed`.
    pub outcome: Option<String>,
    /// The caller's region.
    pub region: Option<String>,
    /// The call's trace.
    pub trace_id: Option<TraceId>,
    /// Further conditions in the search language, as `rtc.mos_min:<3.5`.
    pub text: String,
    /// How many rows; the store's own bound applies as well.
    pub limit: usize,
}

/// Rows, and how far they can be trusted.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<T> {
    /// Newest first.
    pub rows: Vec<T>,
    /// Whether older rows were left out because of the limit.
    pub has_more: bool,
    /// Splits that had to be opened.
    pub splits_read: usize,
    /// Splits of that time that are damaged or could not be read: rows of theirs are missing.
    pub splits_damaged: usize,
}

/// One record that a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// The record's number in the store: its order of arrival.
    pub sequence: u64,
    /// The record.
    pub record: Arc<Record>,
}

impl LogLine {
    /// How much it matters.
    #[must_use]
    pub fn severity(&self) -> Severity {
        severity(&self.record.body)
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        RecordKind::of(&self.record.body)
    }
}

/// One call in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRow {
    /// When it ended, in nanoseconds since the Unix epoch.
    pub end_unix_nanos: u64,
    /// The call.
    pub call: Call,
}

/// Something that a component said at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped<T> {
    /// When, in nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
    /// Which component.
    pub component: Name,
    /// What.
    pub value: T,
}

/// All that is known of a call, each list oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct CallView {
    /// The Call-ID.
    pub call_id: Pii<String>,
    /// Its trace, when a record said it.
    pub trace_id: Option<TraceId>,
    /// The call record, once the call ended.
    pub summary: Option<Call>,
    /// What was said about it.
    pub timeline: Timeline,
}

/// All that is known of a trace, each list oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceView {
    /// The trace.
    pub trace_id: TraceId,
    /// The calls in it.
    pub calls: Vec<Call>,
    /// What was said in it.
    pub timeline: Timeline,
}

/// Records of one call or trace by kind, each list oldest first; spans by their start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// SIP messages.
    pub messages: Vec<Stamped<SipMessage>>,
    /// Spans; the time is their end.
    pub spans: Vec<Stamped<Span>>,
    /// Quality windows; the time is their end.
    pub quality: Vec<Stamped<Quality>>,
    /// Log lines.
    pub logs: Vec<Stamped<Log>>,
    /// Whether older records were left out because there were too many.
    pub is_cut: bool,
    /// Splits that are damaged and could have held more.
    pub splits_damaged: usize,
}
