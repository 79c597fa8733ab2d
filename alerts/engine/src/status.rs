//! What the engine shows: one snapshot a second, for the control-tower page and the JSON APIs.

use belfry_notify::{AlertName, Place, StandingState};
use belfry_signal::{Cause, Journey, Label, Region, Room};
use serde::{Serialize, Serializer};

/// Everything that the engine knows, at one moment. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// When it was judged.
    pub unix_nanos: u64,
    /// The alert that always fires.
    pub watchdog: Watchdog,
    /// Every SLO in every region that had an event, in the order of the rules.
    pub slos: Vec<SloStatus>,
    /// Every journey that has an SLO in every known region.
    pub cells: Vec<Cell>,
    /// Open and past pages, newest first.
    pub pages: Vec<Page>,
    /// What was changed, newest first.
    pub changes: Vec<Change>,
}

/// Proof that somebody judges: when this stands still, nobody does.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Watchdog {
    /// When the last evaluation ended.
    pub unix_nanos: u64,
    /// How many there were since the process started.
    pub evaluations: u64,
}

/// One SLO in one region.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SloStatus {
    /// The SLO's name.
    pub name: String,
    /// The journey whose events it counts.
    #[serde(serialize_with = "label")]
    pub journey: Journey,
    /// Where.
    pub region: Region,
    /// What is promised, in parts per million.
    pub objective_ppm: u32,
    /// The length of the rolling period.
    pub period_seconds: u64,
    /// Events of the period that were as they should be.
    pub good: u64,
    /// Events of the period that were not.
    pub bad: u64,
    /// What is left of the period's budget: 1 is all, below 0 is overdrawn.
    pub budget_remaining_ratio: f64,
    /// How many times the allowed rate the first long window burns (1 h of 30 d, scaled to the period).
    pub burn_1h: f64,
    /// The same for the second long window (6 h of 30 d, scaled).
    pub burn_6h: f64,
    /// When the budget is gone at the rate of the first long window; `None` when nothing burns.
    pub exhaustion_seconds: Option<f64>,
    /// The share of the period that was measured.
    pub coverage_ratio: f64,
    /// The burn windows, one by one.
    pub pairs: Vec<PairStatus>,
}

/// One pair of burn windows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairStatus {
    /// `page` or `ticket`.
    pub severity: &'static str,
    /// How many times the allowed rate it takes.
    pub factor: f64,
    /// The long window.
    pub long: Window,
    /// The short window.
    pub short: Window,
    /// Both are above it.
    pub is_burning: bool,
    /// And that is certain, however few events there were.
    pub is_certain: bool,
}

/// One window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Window {
    /// Its length.
    pub seconds: u64,
    /// Events that were as they should be.
    pub good: u64,
    /// Events that were not.
    pub bad: u64,
    /// How many times the allowed rate it burns; 0 without events.
    pub burn: f64,
    /// The share of it that was measured.
    pub coverage_ratio: f64,
}

/// How a journey fares in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CellState {
    /// No customer ever came from there for that.
    NotDeployed,
    /// As promised.
    Ok,
    /// Customers came, but not lately: nobody can know.
    Stale,
    /// The budget goes too fast for the month, or little of it is left.
    Warning,
    /// Somebody was woken.
    Critical,
}

/// One field of the grid.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Where.
    pub region: Region,
    /// What customers came for.
    #[serde(serialize_with = "label")]
    pub journey: Journey,
    /// How it fares.
    pub state: CellState,
    /// Since when.
    pub since_unix_nanos: u64,
    /// The share of good events in the last five minutes; `None` without events.
    pub good_ratio_5m: Option<f64>,
    /// Events a second over the measured part of the last minute.
    pub events_per_second: f64,
    /// When the last event was; `None` when there never was one.
    pub last_event_unix_nanos: Option<u64>,
}

/// Whether somebody is still needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PageState {
    /// It goes on.
    Triggered,
    /// It is over.
    Resolved,
}

/// One page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page {
    /// The opaque handle that links carry.
    pub id: String,
    /// Which alert; its runbook has the same name.
    #[serde(serialize_with = "label")]
    pub alert: AlertName,
    /// What customers cannot do.
    #[serde(serialize_with = "label")]
    pub journey: Journey,
    /// Where it is worst.
    pub region: Region,
    /// Everywhere that it was bad.
    pub regions: Vec<Region>,
    /// The room at fault.
    #[serde(serialize_with = "label")]
    pub room: Room,
    /// Why events were bad, most frequent first.
    #[serde(serialize_with = "causes")]
    pub causes: Vec<(Cause, u64)>,
    /// Whether it goes on.
    pub state: PageState,
    /// When it was sent.
    pub triggered_unix_nanos: u64,
    /// When it ended.
    pub resolved_unix_nanos: Option<u64>,
    /// One sentence.
    pub summary: String,
    /// How many examples there are, numbered from 1.
    pub examples: usize,
    /// What people do about it.
    pub handled: Option<Handled>,
}

/// What people do about a page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Handled {
    /// Acknowledged, or ended at the service although it goes on here.
    pub state: StandingState,
    /// Who; a name of this site's people, for this site only.
    pub by: Option<String>,
    /// What they wrote.
    pub comment: String,
    /// Here or at the service.
    pub place: Place,
    /// The service; empty when it was said here.
    pub service: String,
    /// When.
    pub since_unix_nanos: u64,
}

/// Something that somebody or something changed: a deploy, a reload, a fault switched on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// When.
    pub unix_nanos: u64,
    /// What kind, as `config_reload`.
    pub kind: &'static str,
    /// What, for people on this site.
    pub text: String,
}

fn label<S: Serializer>(value: &impl Label, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.text())
}

fn causes<S: Serializer>(causes: &[(Cause, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct CauseCount {
        cause: &'static str,
        count: u64,
    }
    serializer
        .collect_seq(causes.iter().map(|(cause, count)| CauseCount { cause: cause.as_str(), count: *count }))
}
