//! From the engine's status to what the overview shows: one task, once a second, for all viewers.
//!
//! It keeps the trend of the past quarter of an hour, so that a page that is opened now has a past. This file and
//! `reading` are the only ones that know the engine's and the stores' types.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use belfry_engine::{CellState, EngineHandle, PageState, PairStatus, Place, StandingState, Status};
use belfry_mesh::Mesh;
use belfry_signal::Pii;
use tokio::sync::watch;

use crate::json;
use crate::json::{State, millis};
use crate::runbooks::Runbooks;

/// One trend point stands for so long.
const STEP_MILLIS: u64 = 5000;
/// The two burn rates that the page has columns for.
const WINDOWS_SHOWN: usize = 2;
/// Resolved pages and changes in each snapshot: what a wall has room for, and not a megabyte a second.
const RESOLVED_SHOWN: usize = 20;
const CHANGES_SHOWN: usize = 40;
/// A quarter of an hour.
const POINTS_MAX: usize = 180;

/// Finds the call behind the n-th example of a page.
pub(crate) type Examples = Box<dyn Fn(&str, usize) -> Option<Pii<String>> + Send + Sync>;

/// What viewers get, already written as JSON: one writing serves all of them.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) snapshot: Arc<str>,
    /// Grows by one with each trend step.
    pub(crate) step: u64,
    /// The whole trend up to this step.
    pub(crate) trend: Arc<str>,
    /// This step alone.
    pub(crate) point: Arc<str>,
    /// What it was made of: more pages than the snapshot carries.
    pub(crate) status: Arc<Status>,
}

/// The task that owns the trend and publishes views.
pub(crate) struct Projector {
    status: watch::Receiver<Arc<Status>>,
    views: watch::Sender<Arc<View>>,
    stop: watch::Receiver<bool>,
    mesh: Option<Mesh>,
    site: String,
    runbooks: Arc<Runbooks>,
    trend: Trend,
}

/// Steps that are complete, and the one that is being gathered.
#[derive(Debug, Default)]
struct Trend {
    /// Which step of the clock is gathered.
    slot: u64,
    completed: u64,
    gathering: BTreeMap<Key, Gathering>,
    points: BTreeMap<Key, VecDeque<(f64, State)>>,
}

/// Region and journey.
type Key = (String, String);

#[derive(Clone, Copy, Debug)]
struct Gathering {
    rate_sum: f64,
    samples: u32,
    worst: State,
}

/// The engine's examples by page.
pub(crate) fn examples(engine: EngineHandle) -> Examples {
    Box::new(move |page_id, number| engine.example(page_id, number))
}

impl View {
    /// One page, however old, as long as the engine remembers it.
    pub(crate) fn page(&self, id: &str, runbooks: &Runbooks) -> Option<json::Page> {
        self.status.pages.iter().find(|page| page.id == id).map(|page| json_page(page, runbooks))
    }

    fn empty() -> Self {
        let (trend, point) = (Trend::default().whole(), Trend::default().newest());
        let snapshot = json::Snapshot {
            at_ms: 0.0,
            site: String::new(),
            cells: vec![],
            slos: vec![],
            pages: vec![],
            changes: vec![],
            peers: vec![],
        };
        Self {
            snapshot: text(&snapshot),
            step: 0,
            trend: text(&trend),
            point: text(&point),
            status: Arc::default(),
        }
    }
}

impl Projector {
    /// The task, not yet running, and where its views come out; the first view is of the status at this moment.
    pub(crate) fn new(
        status: watch::Receiver<Arc<Status>>,
        mesh: Option<Mesh>,
        site: String,
        runbooks: Arc<Runbooks>,
        stop: watch::Receiver<bool>,
    ) -> (Self, watch::Receiver<Arc<View>>) {
        let (views, receiver) = watch::channel(Arc::new(View::empty()));
        let mut projector = Self { status, views, stop, mesh, site, runbooks, trend: Trend::default() };
        projector.publish();
        (projector, receiver)
    }

    /// Publishes until the engine or the page stops.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::select! {
                changed = self.status.changed() => if changed.is_err() { return },
                _ = self.stop.changed() => return,
            }
            self.publish();
        }
    }

    fn publish(&mut self) {
        let status = Arc::clone(&self.status.borrow_and_update());
        let snapshot = self.snapshot(&status);
        let before = self.views.borrow().clone();
        let mut view =
            View { snapshot: text(&snapshot), status: Arc::clone(&status), ..View::clone(&before) };
        if self.trend.gather(status.unix_nanos / 1_000_000, &snapshot.cells) {
            view.step = self.trend.completed;
            view.trend = text(&self.trend.whole());
            view.point = text(&self.trend.newest());
        }
        self.views.send_replace(Arc::new(view));
    }

    fn snapshot(&self, status: &Status) -> json::Snapshot {
        json::Snapshot {
            at_ms: millis(status.unix_nanos),
            site: self.site.clone(),
            cells: status.cells.iter().map(cell).collect(),
            slos: status.slos.iter().map(slo).collect(),
            pages: shown(&status.pages).map(|page| json_page(page, &self.runbooks)).collect(),
            changes: status.changes.iter().take(CHANGES_SHOWN).map(change).collect(),
            peers: self.peers(),
        }
    }

    fn peers(&self) -> Vec<json::Peer> {
        let peers = self.mesh.as_ref().map(Mesh::peers).unwrap_or_default();
        let peer = |peer: belfry_mesh::PeerHealth| json::Peer {
            service: peer.service.as_str().to_owned(),
            name: peer.name,
            up: peer.up,
        };
        peers.into_iter().map(peer).collect()
    }
}

impl Trend {
    /// Adds one look at the fields; true when that completed a step.
    fn gather(&mut self, unix_millis: u64, cells: &[json::Cell]) -> bool {
        let slot = unix_millis / STEP_MILLIS;
        let is_complete = slot != self.slot && !self.gathering.is_empty();
        if is_complete {
            self.complete();
        }
        self.slot = slot;
        for cell in cells.iter().filter(|cell| cell.state != State::NotDeployed) {
            let key = (cell.region.clone(), cell.journey.clone());
            let start = Gathering { rate_sum: 0.0, samples: 0, worst: State::Ok };
            let gathering = self.gathering.entry(key).or_insert(start);
            gathering.rate_sum += cell.events_per_second;
            gathering.samples += 1;
            gathering.worst = gathering.worst.max(cell.state);
        }
        is_complete
    }

    fn complete(&mut self) {
        for (key, gathering) in std::mem::take(&mut self.gathering) {
            let points = self.points.entry(key).or_default();
            if points.len() >= POINTS_MAX {
                points.pop_front();
            }
            let rate = gathering.rate_sum / f64::from(gathering.samples.max(1));
            // Hundredths are enough for a picture, and a third of the bytes.
            points.push_back(((rate * 100.0).round() / 100.0, gathering.worst));
        }
        self.completed += 1;
    }

    fn whole(&self) -> json::Trend {
        self.written(|points| points.iter().copied().collect())
    }

    fn newest(&self) -> json::Trend {
        self.written(|points| points.back().copied().into_iter().collect())
    }

    fn written(&self, choose: impl Fn(&VecDeque<(f64, State)>) -> Vec<(f64, State)>) -> json::Trend {
        let cell = |((region, journey), points): (&Key, &VecDeque<(f64, State)>)| json::TrendCell {
            region: region.clone(),
            journey: journey.clone(),
            points: choose(points),
        };
        json::Trend {
            step_ms: STEP_MILLIS,
            points_max: POINTS_MAX,
            cells: self.points.iter().map(cell).collect(),
        }
    }
}

fn json_page(page: &belfry_engine::Page, runbooks: &Runbooks) -> json::Page {
    let cause = |(cause, count): &(belfry_signal::Cause, u64)| json::CauseCount {
        cause: cause.as_str().to_owned(),
        count: *count,
    };
    json::Page {
        id: page.id.clone(),
        alert: page.alert.as_str().to_owned(),
        journey: page.journey.as_str().to_owned(),
        region: page.region.as_str().to_owned(),
        regions: page.regions.iter().map(|region| region.as_str().to_owned()).collect(),
        room: page.room.as_str().to_owned(),
        causes: page.causes.iter().map(cause).collect(),
        state: match page.state {
            PageState::Triggered => "triggered",
            PageState::Resolved => "resolved",
        },
        triggered_ms: millis(page.triggered_unix_nanos),
        resolved_ms: page.resolved_unix_nanos.map(millis),
        summary: page.summary.clone(),
        examples: page.examples,
        has_runbook: runbooks.has(page.alert.as_str()),
        handled: page.handled.as_ref().map(handled),
    }
}

fn handled(handled: &belfry_engine::Handled) -> json::Handled {
    json::Handled {
        state: match handled.state {
            StandingState::Resolved => "resolved",
            StandingState::Acknowledged | StandingState::Triggered => "acknowledged",
        },
        by: handled.by.clone(),
        comment: handled.comment.clone(),
        service: match handled.place {
            Place::Here => String::new(),
            Place::Service => handled.service.clone(),
        },
        since_ms: millis(handled.since_unix_nanos),
    }
}

/// All that are open, and the newest that are not; the engine gives the newest first.
fn shown(pages: &[belfry_engine::Page]) -> impl Iterator<Item = &belfry_engine::Page> {
    let is = |state| move |page: &&belfry_engine::Page| page.state == state;
    let resolved = pages.iter().filter(is(PageState::Resolved)).take(RESOLVED_SHOWN);
    pages.iter().filter(is(PageState::Triggered)).chain(resolved)
}

fn cell(cell: &belfry_engine::Cell) -> json::Cell {
    json::Cell {
        region: cell.region.as_str().to_owned(),
        journey: cell.journey.as_str().to_owned(),
        state: match cell.state {
            CellState::Ok => State::Ok,
            CellState::Warning => State::Warning,
            CellState::Critical => State::Critical,
            CellState::Stale => State::Stale,
            CellState::NotDeployed => State::NotDeployed,
        },
        since_ms: millis(cell.since_unix_nanos),
        good_ratio_5m: cell.good_ratio_5m,
        events_per_second: cell.events_per_second,
        last_event_ms: cell.last_event_unix_nanos.map(millis),
    }
}

fn slo(slo: &belfry_engine::SloStatus) -> json::Slo {
    json::Slo {
        name: slo.name.clone(),
        journey: slo.journey.as_str().to_owned(),
        region: slo.region.as_str().to_owned(),
        objective_ratio: f64::from(slo.objective_ppm) / 1e6,
        good: slo.good,
        bad: slo.bad,
        budget_remaining_ratio: slo.budget_remaining_ratio,
        burn_1h: slo.burn_1h,
        burn_6h: slo.burn_6h,
        exhaustion_seconds: slo.exhaustion_seconds,
        coverage_ratio: slo.coverage_ratio,
        windows: slo.pairs.iter().take(WINDOWS_SHOWN).map(window).collect(),
    }
}

fn window(pair: &PairStatus) -> json::BurnWindow {
    json::BurnWindow {
        seconds: pair.long.seconds,
        factor: pair.factor,
        severity: pair.severity,
        is_burning: pair.is_burning,
    }
}

fn change(change: &belfry_engine::Change) -> json::Change {
    json::Change { at_ms: millis(change.unix_nanos), kind: change.kind.to_owned(), text: change.text.clone() }
}

/// Our own plain types always have a JSON form; were one ever refused, the page would show nothing, not wrong things.
fn text(value: &impl serde::Serialize) -> Arc<str> {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell_with(rate: f64, state: State) -> json::Cell {
        json::Cell {
            region: "eu".into(),
            journey: "register".into(),
            state,
            since_ms: 0.0,
            good_ratio_5m: None,
            events_per_second: rate,
            last_event_ms: None,
        }
    }

    #[test]
    fn a_step_is_the_mean_rate_and_the_worst_state() {
        let mut trend = Trend::default();
        for (second, rate, state) in
            [(10, 4.0, State::Ok), (11, 8.0, State::Critical), (14, 6.0, State::Stale)]
        {
            assert!(!trend.gather(second * 1000, &[cell_with(rate, state)]), "second {second}");
        }
        assert!(trend.gather(15_000, &[cell_with(1.0, State::Ok)]));
        let newest = trend.newest();
        assert_eq!(newest.cells[0].points, [(6.0, State::Critical)]);
        assert!(trend.gather(20_000, &[cell_with(3.0, State::Ok)]));
        assert_eq!(trend.whole().cells[0].points, [(6.0, State::Critical), (1.0, State::Ok)]);
    }

    #[test]
    fn the_trend_is_bounded() {
        let mut trend = Trend::default();
        for step in 1..=(POINTS_MAX as u64 + 20) {
            trend.gather(step * STEP_MILLIS, &[cell_with(1.0, State::Ok)]);
        }
        assert_eq!(trend.whole().cells[0].points.len(), POINTS_MAX);
    }
}
