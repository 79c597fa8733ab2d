//! One SLO in one region: its counts, its windows, its alerts.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::alert::{Alert, Condition, Transition};
use crate::budget::{Budget, PPM};
use crate::burn::{BurnPair, PairReading, Severity, burn};
use crate::history::{Counts, GAP_SECONDS_MAX, Grain, History, Window};
use crate::rules::Slo;
use crate::source::{Method, Source};

/// Counts in, judgements out.
#[derive(Clone, Debug)]
pub struct Series {
    slo: Arc<Slo>,
    history: History,
    page: Alert,
    ticket: Alert,
    slice: Slice,
    /// The first second that was judged.
    born: Option<u64>,
    /// Stretches of time that do not count, apart from each other and in order.
    excluded: Arc<[(u64, u64)]>,
}

/// The slice of time that goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    index: u64,
    counts: Counts,
    newest: u64,
}

/// What one evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// Every pair, in the order of the rules.
    pub pairs: Vec<PairReading>,
    /// The period's budget, without what was corrected.
    pub budget: Budget,
    /// What corrections took out of the period.
    pub excluded: Window,
    /// Nobody has measured anything for a while.
    pub is_blind: bool,
    /// A change of the paging alert.
    pub page: Option<Transition>,
    /// The paging alert fires.
    pub is_paging: bool,
    /// The ticket alert fires, or a page pair burns without being certain yet.
    pub is_warning: bool,
}

/// An SLO is blind when nothing was measured for so long at least.
const BLIND_SECONDS_MIN: u64 = 60;

impl Series {
    /// A series without counts.
    #[must_use]
    pub fn new(slo: Arc<Slo>) -> Self {
        let history = History::new(slo.period_seconds);
        let alert = Alert::new(slo.resolve_after_seconds);
        let excluded = Arc::from([]);
        Self { slo, history, page: alert, ticket: alert, slice: Slice::default(), born: None, excluded }
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
    pub fn restore(&mut self, grain: Grain, index: u64, counts: Counts) {
        self.history.restore(grain, index, counts);
    }

    /// Puts back an alert whose trigger was sent and whose resolve was not.
    pub fn restore_firing(&mut self, since: u64) {
        self.page.restore_firing(since);
    }

    /// Takes stretches of time out of the budget, from a second up to but not including another. Counts stay as they
    /// were, and what burns is judged with them.
    pub fn exclude(&mut self, stretches: &[(u64, u64)]) {
        self.excluded = apart(stretches).into();
    }

    /// Adds what happened in the second `now`; zero and zero means that somebody looked and nothing happened.
    pub fn observe(&mut self, now: u64, good: u64, bad: u64) {
        match self.slo.method {
            Method::Occurrences => self.history.observe(now, good, bad),
            Method::Timeslices { slice_seconds, target_ppm } => {
                let late = now.saturating_sub(self.slice.newest);
                let seconds = if (1..=GAP_SECONDS_MAX).contains(&late) { late } else { 1 };
                self.slice_up(slice_seconds, target_ppm, now, seconds, good, bad);
            }
        }
    }

    /// Adds what happened in the `seconds` seconds that end with `now`.
    pub fn observe_span(&mut self, now: u64, seconds: u64, good: u64, bad: u64) {
        match self.slo.method {
            Method::Occurrences => self.history.observe_span(now, seconds, good, bad),
            Method::Timeslices { slice_seconds, target_ppm } => {
                self.slice_up(slice_seconds, target_ppm, now, seconds, good, bad);
            }
        }
    }

    /// Adds to the slice that `now` lies in; one that is over becomes one event, good when enough of its own were.
    /// A slice in which nothing happened was measured and is neither.
    fn slice_up(&mut self, length: u64, target_ppm: u32, now: u64, seconds: u64, good: u64, bad: u64) {
        let now = now.max(self.slice.newest);
        let index = now / length;
        if index != self.slice.index {
            let Counts { good, bad, measured_seconds } = self.slice.counts;
            if measured_seconds > 0 {
                let is_good = u128::from(good) * u128::from(PPM)
                    >= u128::from(good.saturating_add(bad)) * u128::from(target_ppm);
                let happened = u64::from(good > 0 || bad > 0);
                let good = happened * u64::from(is_good);
                let end = (self.slice.index + 1).saturating_mul(length) - 1;
                self.history.observe_span(end, measured_seconds.min(length), good, happened - good);
            }
            self.slice = Slice { index, counts: Counts::default(), newest: now };
        }
        self.slice.newest = now;
        self.slice.counts += Counts { good, bad, measured_seconds: seconds };
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
        let is_blind = self.is_blind(now);
        let condition_of = |severity| match condition(&pairs, severity) {
            Condition::Clear if is_blind && severity == Severity::Page && self.slo.is_paged_when_blind => {
                Condition::Certain
            }
            condition => condition,
        };
        let (page, ticket) = (condition_of(Severity::Page), condition_of(Severity::Ticket));
        let page = self.page.step(now, page);
        // A ticket is for looking at, not for sending: its changes concern nobody.
        let _shown_only = self.ticket.step(now, ticket);
        let is_doubtful =
            pairs.iter().any(|reading| reading.pair.severity == Severity::Page && reading.is_burning);
        let (budget, excluded) = self.budget(now);
        Assessment {
            budget,
            excluded,
            is_blind,
            page,
            is_paging: self.page.is_firing(),
            is_warning: self.ticket.is_firing() || is_doubtful,
            pairs,
        }
    }

    /// The budget of the period that `now` lies in, and what was taken out of it.
    fn budget(&self, now: u64) -> (Budget, Window) {
        let end = now.saturating_add(1);
        let (start, period_seconds) = match &self.slo.calendar {
            None => (end.saturating_sub(self.slo.period_seconds), self.slo.period_seconds),
            Some(calendar) => {
                let period = calendar.period(now);
                (period.start, period.end - period.start)
            }
        };
        let raw = self.history.between(start, end);
        let (mut out, mut out_seconds) = (Counts::default(), 0);
        for (from, to) in self.excluded.iter() {
            let (from, to) = ((*from).max(start), (*to).min(end));
            if from < to {
                out += self.history.between(from, to);
                out_seconds += to - from;
            }
        }
        let counted = Window {
            seconds: (end - start).saturating_sub(out_seconds),
            good: raw.good.saturating_sub(out.good),
            bad: raw.bad.saturating_sub(out.bad),
            measured_seconds: raw.measured_seconds.saturating_sub(out.measured_seconds),
        };
        let excluded = Window {
            seconds: out_seconds,
            good: raw.good - counted.good,
            bad: raw.bad - counted.bad,
            measured_seconds: raw.measured_seconds - counted.measured_seconds,
        };
        let period_seconds = period_seconds.saturating_sub(out_seconds);
        (Budget { counted, period_seconds, objective: self.slo.objective }, excluded)
    }

    fn is_blind(&mut self, now: u64) -> bool {
        let born = *self.born.get_or_insert(now);
        let interval = match &self.slo.source {
            Source::Journey => 1,
            Source::Queries(indicator) => indicator.interval_seconds,
        };
        let slices = match self.slo.method {
            Method::Occurrences => 0,
            Method::Timeslices { slice_seconds, .. } => 2 * slice_seconds,
        };
        let patience = BLIND_SECONDS_MIN.max(4 * interval) + slices;
        now.saturating_sub(born) >= patience && self.history.window(now, patience).measured_seconds == 0
    }
}

/// The same stretches in order, with those that touch made one.
fn apart(stretches: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut sorted: Vec<(u64, u64)> = stretches.iter().copied().filter(|(from, to)| from < to).collect();
    sorted.sort_unstable();
    let mut apart: Vec<(u64, u64)> = Vec::new();
    for (from, to) in sorted {
        match apart.last_mut() {
            Some((_, end)) if from <= *end => *end = (*end).max(to),
            _ => apart.push((from, to)),
        }
    }
    apart
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
