//! Counts in, judgements out: every SLO in every region, once a second. No I/O and no clock.

use std::collections::BTreeMap;

use belfry_signal::{Journey, JourneyCount, Region};
use belfry_slo::{
    ALL, Assessment, Counts, Grain, History, Metered, OTHER, Series, Source, Transition, Window,
};

use crate::rules::Rule;
use crate::status::{Cell, CellState, PairStatus, PolicyStatus, SloStatus, Window as WindowStatus};

#[cfg(test)]
mod tests;

/// Below this share of the period's budget a cell is a warning.
const BUDGET_LOW_PPM: u32 = 250_000;
/// Groups of all SLOs that ask queries; each costs about 400 KB.
pub(crate) const QUERY_SERIES_MAX: usize = 256;
const NANOS: u64 = 1_000_000_000;

/// A rule by its place, and a region.
pub(crate) type SeriesKey = (usize, Region);

/// A page alert that began or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) rule: usize,
    pub(crate) region: Region,
    pub(crate) transition: Transition,
}

/// One series and what was last said about it.
#[derive(Debug)]
struct Watched {
    series: Series,
    assessment: Option<Assessment>,
    last_event_second: Option<u64>,
}

/// Judges by rules.
#[derive(Debug)]
pub(crate) struct Judge {
    rules: Vec<Rule>,
    regions: Vec<Region>,
    stale_after_seconds: u64,
    watched: BTreeMap<SeriesKey, Watched>,
    /// The counts of the sample before, since the process started.
    counted: BTreeMap<(Journey, Region), (u64, u64)>,
    /// The state of each cell and the second in which it came to it.
    states: BTreeMap<(Journey, Region), (CellState, u64)>,
    /// Groups that are judged together for want of a place of their own, by rule.
    beyond: BTreeMap<usize, usize>,
}

impl Judge {
    pub(crate) fn new(rules: Vec<Rule>, regions: Vec<Region>, stale_after_seconds: u64) -> Self {
        let mut judge = Self {
            rules,
            regions,
            stale_after_seconds,
            watched: BTreeMap::new(),
            counted: BTreeMap::new(),
            states: BTreeMap::new(),
            beyond: BTreeMap::new(),
        };
        judge.expect_groups();
        judge
    }

    /// What queries are known to be about is shown before they have an answer: blind, if they never have one.
    fn expect_groups(&mut self) {
        for rule in 0..self.rules.len() {
            let Source::Queries(indicator) = self.rules[rule].slo.source.clone() else { continue };
            let groups = &indicator.groups;
            let places = match &groups.label {
                None => vec![ALL],
                Some(_) => groups.listed.iter().map(String::as_str).chain([OTHER]).collect(),
            };
            for place in places.into_iter().filter_map(|place| Region::configured(place).ok()) {
                self.watch(rule, &place);
            }
        }
    }

    /// Takes what a rule's queries found in the second `at`; `beyond` is how many groups have no place of their own.
    pub(crate) fn measured(&mut self, rule: usize, at: u64, metered: &Metered, beyond: usize) {
        self.beyond.insert(rule, beyond);
        if metered.groups.is_empty() || metered.seconds == 0 {
            return;
        }
        let mut places: BTreeMap<Region, (u64, u64)> = BTreeMap::new();
        if let Ok(other) = Region::configured(OTHER) {
            // Somebody answered: what is not there for the others did not happen.
            if self.watched.contains_key(&(rule, other.clone())) {
                places.insert(other, (0, 0));
            }
        }
        let is_query = |rules: &[Rule], place: usize| !rules[place].is_counted_here();
        let mut held = self.watched.keys().filter(|(place, _)| is_query(&self.rules, *place)).count();
        for (group, (good, bad)) in &metered.groups {
            let Ok(mut place) = Region::configured(group) else { continue };
            if !self.watched.contains_key(&(rule, place.clone())) {
                if held >= QUERY_SERIES_MAX {
                    let Ok(other) = Region::configured(OTHER) else { continue };
                    place = other;
                    *self.beyond.entry(rule).or_default() += 1;
                } else {
                    held += 1;
                }
            }
            let sum = places.entry(place).or_default();
            *sum = (sum.0.saturating_add(*good), sum.1.saturating_add(*bad));
        }
        for (place, (good, bad)) in places {
            let watched = self.watch(rule, &place);
            watched.series.observe_span(at, metered.seconds, good, bad);
            if good + bad > 0 {
                watched.last_event_second = watched.last_event_second.max(Some(at));
            }
        }
    }

    /// Takes stretches of time out of the budget of an SLO, in one place or in all.
    pub(crate) fn exclude(&mut self, stretches: impl Fn(&str, &str) -> Vec<(u64, u64)>) {
        for ((rule, region), watched) in &mut self.watched {
            watched.series.exclude(&stretches(&self.rules[*rule].slo.name, region.as_str()));
        }
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Takes a sample in the second `now` and judges; what comes back is what somebody has to hear of.
    pub(crate) fn sample(&mut self, now: u64, counts: &[JourneyCount]) -> Vec<Turn> {
        let mut news: BTreeMap<(Journey, Region), (u64, u64)> = BTreeMap::new();
        for count in counts {
            let key = (count.journey, count.region.clone());
            let before = self.counted.insert(key.clone(), (count.good, count.bad)).unwrap_or_default();
            let new = (count.good.saturating_sub(before.0), count.bad.saturating_sub(before.1));
            for rule in self.places_of(count.journey) {
                self.watch(rule, &count.region);
            }
            news.insert(key, new);
        }
        let mut turns = Vec::new();
        for ((rule, region), watched) in &mut self.watched {
            if self.rules[*rule].is_counted_here() {
                let journey = self.rules[*rule].journey;
                let (good, bad) = news.get(&(journey, region.clone())).copied().unwrap_or_default();
                watched.series.observe(now, good, bad);
                if good + bad > 0 {
                    watched.last_event_second = Some(now);
                }
            }
            let assessment = watched.series.evaluate(now);
            if let Some(transition) = assessment.page {
                turns.push(Turn { rule: *rule, region: region.clone(), transition });
            }
            watched.assessment = Some(assessment);
        }
        self.move_states(now);
        turns
    }

    /// What the series of an SLO in a region counted in the last `seconds` seconds.
    pub(crate) fn window(&self, rule: usize, region: &Region, now: u64, seconds: u64) -> Window {
        let watched = self.watched.get(&(rule, region.clone()));
        watched.map_or_else(Window::default, |watched| watched.series.history().window(now, seconds))
    }

    /// What was last said about an SLO in a region.
    pub(crate) fn assessment(&self, rule: usize, region: &Region) -> Option<&Assessment> {
        self.watched.get(&(rule, region.clone())).and_then(|watched| watched.assessment.as_ref())
    }

    /// Every rule and place that warns.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = (&Rule, &Region)> {
        let warning = self.watched.iter().filter(|(_, watched)| {
            watched.assessment.as_ref().is_some_and(|assessment| assessment.is_warning)
        });
        warning.map(|((rule, region), _)| (&self.rules[*rule], region))
    }

    /// Every series with its history.
    pub(crate) fn histories(&self) -> impl Iterator<Item = (&SeriesKey, &History)> {
        self.watched.iter().map(|(key, watched)| (key, watched.series.history()))
    }

    /// Puts back a step of a written history.
    pub(crate) fn restore(&mut self, rule: usize, region: &Region, grain: Grain, index: u64, counts: Counts) {
        let watched = self.watch(rule, region);
        watched.series.restore(grain, index, counts);
        if counts.good + counts.bad > 0 {
            let second = index.saturating_mul(grain.seconds());
            watched.last_event_second = watched.last_event_second.max(Some(second));
        }
    }

    /// Puts back an alert that is owed a resolve.
    pub(crate) fn restore_firing(&mut self, rule: usize, region: &Region, since: u64) {
        self.watch(rule, region).series.restore_firing(since);
    }

    /// Every SLO in every region that had an event.
    pub(crate) fn slos(&self) -> Vec<SloStatus> {
        let judged = self.watched.iter().filter_map(|((rule, region), watched)| {
            let beyond = self.beyond.get(rule).copied().unwrap_or(0);
            watched
                .assessment
                .as_ref()
                .map(|assessment| slo_status(&self.rules[*rule], region, assessment, beyond))
        });
        judged.collect()
    }

    /// The grid: every journey that has an SLO, in every region.
    pub(crate) fn cells(&self, now: u64) -> Vec<Cell> {
        let mut cells = Vec::new();
        for region in self.all_regions() {
            for journey in self.journeys() {
                cells.push(self.cell(now, journey, &region));
            }
        }
        cells
    }

    #[expect(clippy::cast_precision_loss, reason = "rates and ratios for people")]
    fn cell(&self, now: u64, journey: Journey, region: &Region) -> Cell {
        let state = self.states.get(&(journey, region.clone())).copied();
        let (state, since) = state.unwrap_or((CellState::NotDeployed, now));
        let watched =
            self.places_of(journey).into_iter().find_map(|rule| self.watched.get(&(rule, region.clone())));
        let window = |seconds| watched.map(|watched| watched.series.history().window(now, seconds));
        let minute = window(60).unwrap_or_default();
        Cell {
            region: region.clone(),
            journey,
            state,
            since_unix_nanos: since.saturating_mul(NANOS),
            good_ratio_5m: window(300).and_then(|window| window.error_ratio()).map(|ratio| 1.0 - ratio),
            events_per_second: minute.total() as f64 / minute.measured_seconds.max(1) as f64,
            last_event_unix_nanos: watched.and_then(|w| w.last_event_second).map(|s| s.saturating_mul(NANOS)),
        }
    }

    fn move_states(&mut self, now: u64) {
        for region in self.all_regions() {
            for journey in self.journeys() {
                let state = self.state(now, journey, &region);
                let entry = self.states.entry((journey, region.clone())).or_insert((state, now));
                if entry.0 != state {
                    *entry = (state, now);
                }
            }
        }
    }

    /// The worst that any SLO of the journey says; what was not lately seen is stale unless somebody was woken.
    fn state(&self, now: u64, journey: Journey, region: &Region) -> CellState {
        let of_journey = self.places_of(journey).into_iter();
        let states = of_journey.filter_map(|rule| self.watched.get(&(rule, region.clone()))).map(|watched| {
            let Some(assessment) = &watched.assessment else { return CellState::NotDeployed };
            let Some(last_event) = watched.last_event_second else { return CellState::NotDeployed };
            if assessment.is_paging {
                CellState::Critical
            } else if now.saturating_sub(last_event) > self.stale_after_seconds {
                CellState::Stale
            } else if assessment.is_warning || assessment.budget.is_below(BUDGET_LOW_PPM) {
                CellState::Warning
            } else {
                CellState::Ok
            }
        });
        states.max().unwrap_or(CellState::NotDeployed)
    }

    fn watch(&mut self, rule: usize, region: &Region) -> &mut Watched {
        let slo = &self.rules[rule].slo;
        self.watched.entry((rule, region.clone())).or_insert_with(|| Watched {
            series: Series::new(slo.clone()),
            assessment: None,
            last_event_second: None,
        })
    }

    fn places_of(&self, journey: Journey) -> Vec<usize> {
        let is_of = |rule: &Rule| rule.journey == journey && rule.is_counted_here();
        (0..self.rules.len()).filter(|place| is_of(&self.rules[*place])).collect()
    }

    /// The journeys of the rules, each once, in the order of the rules.
    fn journeys(&self) -> Vec<Journey> {
        let mut journeys = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.is_counted_here()) {
            if !journeys.contains(&rule.journey) {
                journeys.push(rule.journey);
            }
        }
        journeys
    }

    /// The configured regions in their order, then those that customers came from besides.
    fn all_regions(&self) -> Vec<Region> {
        let mut regions = self.regions.clone();
        for (_, region) in self.watched.keys().filter(|(rule, _)| self.rules[*rule].is_counted_here()) {
            if !regions.contains(region) {
                regions.push(region.clone());
            }
        }
        regions
    }
}

fn slo_status(rule: &Rule, region: &Region, assessment: &Assessment, groups_beyond: usize) -> SloStatus {
    let budget = &assessment.budget;
    let fast = assessment.long_burn(0);
    SloStatus {
        name: rule.slo.name.clone(),
        journey: rule.journey,
        region: region.clone(),
        objective_ppm: rule.slo.objective.ppm(),
        period_seconds: budget.period_seconds,
        elapsed_seconds: budget.counted.seconds,
        commitment: rule.slo.commitment.as_str(),
        source: if rule.is_counted_here() { "journey" } else { "queries" },
        is_blind: assessment.is_blind,
        excluded_good: assessment.excluded.good,
        excluded_bad: assessment.excluded.bad,
        groups_beyond,
        policy: policy_status(rule, assessment),
        good: budget.counted.good,
        bad: budget.counted.bad,
        budget_remaining_ratio: budget.remaining_ratio(),
        burn_1h: fast.unwrap_or(0.0),
        burn_6h: assessment.long_burn(1).unwrap_or(0.0),
        exhaustion_seconds: budget.exhaustion_seconds(fast),
        coverage_ratio: budget.counted.coverage_ratio(),
        pairs: (0..assessment.pairs.len()).map(|place| pair_status(assessment, place)).collect(),
    }
}

/// What the budget policy calls for.
fn policy_status(rule: &Rule, assessment: &Assessment) -> Vec<PolicyStatus> {
    let steps = rule.slo.policy.iter().map(|step| PolicyStatus {
        spent_percent: step.spent_percent,
        action: step.action.as_str(),
        is_reached: assessment.budget.is_spent(step.spent_percent),
    });
    steps.collect()
}

fn pair_status(assessment: &Assessment, place: usize) -> PairStatus {
    let reading = &assessment.pairs[place];
    let window = |window: &Window, burn: Option<f64>| WindowStatus {
        seconds: window.seconds,
        good: window.good,
        bad: window.bad,
        burn: burn.unwrap_or(0.0),
        coverage_ratio: window.coverage_ratio(),
    };
    PairStatus {
        severity: reading.pair.severity.as_str(),
        factor: f64::from(reading.pair.factor_milli) / 1_000.0,
        long: window(&reading.long, assessment.long_burn(place)),
        short: window(&reading.short, assessment.short_burn(place)),
        is_burning: reading.is_burning,
        is_certain: reading.is_certain,
    }
}
