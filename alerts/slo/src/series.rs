//! One SLO in one region: its counts, its windows, its alerts.

use std::sync::Arc;

use crate::alert::{Alert, Condition, Transition};
use crate::budget::Budget;
use crate::burn::{BurnPair, PairReading, Severity, burn};
use crate::history::{Grain, History, Window};
use crate::rules::Slo;

/// Counts in, judgements out.
#[derive(Clone, Debug)]
pub struct Series {
    slo: Arc<Slo>,
    history: History,
    page: Alert,
    ticket: Alert,
}

/// What one evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// Every pair, in the order of the rules.
    pub pairs: Vec<PairReading>,
    /// The period's budget.
    pub budget: Budget,
    /// A change of the paging alert.
    pub page: Option<Transition>,
    /// The paging alert fires.
    pub is_paging: bool,
    /// The ticket alert fires, or a page pair burns without being certain yet.
    pub is_warning: bool,
}

impl Series {
    /// A series without counts.
    #[must_use]
    pub fn new(slo: Arc<Slo>) -> Self {
        let history = History::new(slo.period_seconds);
        let alert = Alert::new(slo.resolve_after_seconds);
        Self { slo, history, page: alert, ticket: alert }
    }

    /// The SLO.
    #[must_use]
    pub fn slo(&self) -> &Arc<Slo> {
        &self.slo
    }

    /// The counts.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The paging alert.
    #[must_use]
    pub fn page(&self) -> &Alert {
        &self.page
    }

    /// Puts back written counts.
    pub fn restore(&mut self, grain: Grain, index: u64, counts: crate::history::Counts) {
        self.history.restore(grain, index, counts);
    }

    /// Puts back an alert whose trigger was sent and whose resolve was not.
    pub fn restore_firing(&mut self, since: u64) {
        self.page.restore_firing(since);
    }

    /// Adds what happened in the second `now`; zero and zero means that somebody looked and nothing happened.
    pub fn observe(&mut self, now: u64, good: u64, bad: u64) {
        self.history.observe(now, good, bad);
    }

    /// Judges the windows that end with the second `now` and moves the alerts.
    pub fn evaluate(&mut self, now: u64) -> Assessment {
        // After a small step back of the clock the newest counts lie ahead of `now`: judge them, not a hole.
        let now = now.max(self.history.newest_second());
        let pairs: Vec<PairReading> = self
            .slo
            .pairs
            .iter()
            .map(|pair| pair.read(&self.history, now, self.slo.objective, self.slo.guard))
            .collect();
        let page = self.page.step(now, condition(&pairs, Severity::Page));
        // A ticket is for looking at, not for sending: its changes concern nobody.
        let _shown_only = self.ticket.step(now, condition(&pairs, Severity::Ticket));
        let is_doubtful =
            pairs.iter().any(|reading| reading.pair.severity == Severity::Page && reading.is_burning);
        Assessment {
            budget: Budget {
                counted: self.history.window(now, self.slo.period_seconds),
                objective: self.slo.objective,
            },
            page,
            is_paging: self.page.is_firing(),
            is_warning: self.ticket.is_firing() || is_doubtful,
            pairs,
        }
    }
}

impl Assessment {
    /// The burn over a pair's long window, by the pair's place in the rules; `None` without events or pair.
    #[must_use]
    pub fn long_burn(&self, place: usize) -> Option<f64> {
        self.pairs.get(place).and_then(|reading| burn(&reading.long, self.budget.objective))
    }

    /// The burn over a pair's short window.
    #[must_use]
    pub fn short_burn(&self, place: usize) -> Option<f64> {
        self.pairs.get(place).and_then(|reading| burn(&reading.short, self.budget.objective))
    }

    /// The fastest paging pair that burns, with what its long window holds: why somebody is woken.
    #[must_use]
    pub fn worst_page_pair(&self) -> Option<(BurnPair, Window)> {
        self.pairs
            .iter()
            .filter(|reading| reading.pair.severity == Severity::Page && reading.is_burning)
            .max_by_key(|reading| reading.pair.factor_milli)
            .map(|reading| (reading.pair, reading.long))
    }
}

fn condition(pairs: &[PairReading], severity: Severity) -> Condition {
    let of_severity = || pairs.iter().filter(|reading| reading.pair.severity == severity);
    if of_severity().any(|reading| reading.is_certain) {
        Condition::Certain
    } else if of_severity().any(|reading| reading.is_holding) {
        Condition::Holding
    } else {
        Condition::Clear
    }
}
