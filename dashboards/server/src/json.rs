//! The wire twins: what the page's JSON looks like. `dashboards/ui/src/wire.ts` says the same in TypeScript.
//!
//! Times are milliseconds since the Unix epoch with a fraction, because a script's number cannot hold nanoseconds;
//! ratios are 0 to 1; absent values are null. Conversion from the engine and the stores is in `status` and `reading`.

use serde::Serialize;

/// Nanoseconds as milliseconds; exact to a quarter of a microsecond in our century.
#[expect(clippy::cast_precision_loss, reason = "the loss is the documented quarter of a microsecond")]
pub(crate) fn millis(unix_nanos: u64) -> f64 {
    unix_nanos as f64 / 1e6
}

/// Everything the overview shows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) at_ms: f64,
    pub(crate) site: String,
    pub(crate) cells: Vec<Cell>,
    pub(crate) slos: Vec<Slo>,
    pub(crate) pages: Vec<Page>,
    pub(crate) changes: Vec<Change>,
    pub(crate) peers: Vec<Peer>,
}

/// One field of the grid.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) region: String,
    pub(crate) journey: String,
    pub(crate) state: State,
    pub(crate) since_ms: f64,
    pub(crate) good_ratio_5m: Option<f64>,
    pub(crate) events_per_second: f64,
    pub(crate) last_event_ms: Option<f64>,
}

/// How a field stands; the order is from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    NotDeployed,
    Ok,
    Stale,
    Warning,
    Critical,
}

/// One objective.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Slo {
    pub(crate) name: String,
    pub(crate) journey: String,
    pub(crate) region: String,
    pub(crate) objective_ratio: f64,
    pub(crate) good: u64,
    pub(crate) bad: u64,
    pub(crate) budget_remaining_ratio: f64,
    pub(crate) burn_1h: f64,
    pub(crate) burn_6h: f64,
    pub(crate) exhaustion_seconds: Option<f64>,
    pub(crate) coverage_ratio: f64,
    /// What `burn_1h` and `burn_6h` are measured over: an hour and six of a month, scaled to the objective's period.
    pub(crate) windows: Vec<BurnWindow>,
}

/// A burn window and what it leads to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BurnWindow {
    pub(crate) seconds: u64,
    /// From this burn rate on it alerts.
    pub(crate) factor: f64,
    /// `page` or `ticket`.
    pub(crate) severity: &'static str,
    pub(crate) is_burning: bool,
}

/// One page that was sent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Page {
    pub(crate) id: String,
    pub(crate) alert: String,
    pub(crate) journey: String,
    /// Where it is worst.
    pub(crate) region: String,
    pub(crate) regions: Vec<String>,
    pub(crate) room: String,
    pub(crate) causes: Vec<CauseCount>,
    /// `triggered` or `resolved`.
    pub(crate) state: &'static str,
    pub(crate) triggered_ms: f64,
    pub(crate) resolved_ms: Option<f64>,
    pub(crate) summary: String,
    pub(crate) examples: usize,
    pub(crate) has_runbook: bool,
    pub(crate) handled: Option<Handled>,
}

/// What people do about a page.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Handled {
    /// `acknowledged`, or `resolved` at the service although it goes on here.
    pub(crate) state: &'static str,
    pub(crate) by: Option<String>,
    pub(crate) comment: String,
    /// The service where it was said; empty when it was said here.
    pub(crate) service: String,
    pub(crate) since_ms: f64,
}

/// One cause's share of a page.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CauseCount {
    pub(crate) cause: String,
    pub(crate) count: u64,
}

/// Something that people or faults changed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) at_ms: f64,
    pub(crate) kind: String,
    pub(crate) text: String,
}

/// A link to another node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) up: bool,
}

/// The past quarter of an hour of every field, or one new step of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trend {
    pub(crate) step_ms: u64,
    pub(crate) points_max: usize,
    pub(crate) cells: Vec<TrendCell>,
}

/// One field's trend, oldest first.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TrendCell {
    pub(crate) region: String,
    pub(crate) journey: String,
    pub(crate) points: Vec<(f64, State)>,
}

/// The server lives, even when there is nothing new.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Heartbeat {
    pub(crate) at_ms: f64,
    pub(crate) interval_ms: u64,
    /// Which page is built in: a wall that shows another one loads itself anew.
    pub(crate) page: String,
}

/// A list of calls.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Calls {
    pub(crate) calls: Vec<CallRow>,
    pub(crate) has_more: bool,
    pub(crate) is_damaged: bool,
}

/// One call that ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CallRow {
    pub(crate) call_id: String,
    pub(crate) trace_id: String,
    pub(crate) start_ms: f64,
    pub(crate) end_ms: Option<f64>,
    pub(crate) answer_ms: Option<f64>,
    pub(crate) caller: String,
    pub(crate) callee: String,
    pub(crate) region: String,
    pub(crate) country: Option<String>,
    pub(crate) transport: String,
    pub(crate) tenant: Option<String>,
    pub(crate) calling_trunk: Option<String>,
    pub(crate) called_trunk: Option<String>,
    pub(crate) outcome: String,
    pub(crate) status_code: u16,
    pub(crate) cause: String,
    pub(crate) post_dial_seconds: Option<f64>,
    pub(crate) mos_min: Option<f64>,
    pub(crate) mos_mean: Option<f64>,
    pub(crate) silent_legs: Vec<String>,
}

/// All that is known of a call, each list oldest first.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CallDetail {
    pub(crate) call_id: String,
    pub(crate) trace_id: Option<String>,
    pub(crate) summary: Option<CallRow>,
    pub(crate) messages: Vec<Message>,
    pub(crate) spans: Vec<Span>,
    pub(crate) quality: Vec<Quality>,
    pub(crate) logs: Vec<LogLine>,
    pub(crate) is_cut: bool,
    pub(crate) is_damaged: bool,
}

/// One SIP message.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Message {
    pub(crate) at_ms: f64,
    /// `received` or `sent`.
    pub(crate) direction: &'static str,
    pub(crate) transport: String,
    pub(crate) peer: String,
    pub(crate) node: String,
    pub(crate) summary: String,
    pub(crate) cseq: String,
    pub(crate) retransmission: bool,
    /// Bytes that are not UTF-8 are shown as the replacement character.
    pub(crate) text: String,
}

/// One finished span.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Span {
    pub(crate) span_id: String,
    pub(crate) parent_id: Option<String>,
    pub(crate) component: String,
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) start_ms: f64,
    pub(crate) end_ms: f64,
    pub(crate) ok: bool,
    pub(crate) attributes: Vec<(String, String)>,
}

/// One window of one leg's quality.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Quality {
    pub(crate) at_ms: f64,
    pub(crate) leg: String,
    pub(crate) region: String,
    pub(crate) window_seconds: f64,
    pub(crate) packets: u64,
    pub(crate) lost: u64,
    pub(crate) jitter_ms: f64,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) mos: Option<f64>,
    pub(crate) r_factor: Option<f64>,
    pub(crate) payload_type: Option<u8>,
}

/// What a log search found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Logs {
    pub(crate) lines: Vec<LogLine>,
    pub(crate) has_more: bool,
    pub(crate) is_damaged: bool,
}

/// One log line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LogLine {
    pub(crate) at_ms: f64,
    pub(crate) severity: &'static str,
    pub(crate) component: String,
    pub(crate) message: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) trace_id: Option<String>,
    pub(crate) call_id: Option<String>,
}

/// A rendered runbook.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Runbook {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) html: String,
}

/// A runbook in the list.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunbookTitle {
    pub(crate) name: String,
    pub(crate) title: String,
}

/// The list of runbooks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Runbooks {
    pub(crate) runbooks: Vec<RunbookTitle>,
}

/// The call behind an example link.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Example {
    pub(crate) call_id: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Refusal {
    pub(crate) error: String,
}
