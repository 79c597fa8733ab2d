//! Levels: which parts of time there are downsampled series for, and which of them answer a question.
//!
//! A level is made day by day. A day that is made is used as long as nothing was added to it or taken from it since; then
//! it is made again, and raw samples answer meanwhile, unless retention has taken them.

use std::collections::BTreeMap;

use belfry_promql::{OfWindow, Purpose};

use crate::config::Config;
use crate::stretch;

/// What is made at once.
pub(crate) const DAY_MS: i64 = 86_400_000;
/// Windows whose borders are no borders of stretches must be this many stretches long.
const STRETCHES_MIN: i64 = 5;

/// How finely a block's samples are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Resolution {
    Raw,
    FiveMinutes,
    OneHour,
}

/// Those that are downsampled.
pub(crate) const LEVELS: [Resolution; 2] = [Resolution::FiveMinutes, Resolution::OneHour];

/// How a day of a level stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It says what the raw samples say.
    Made,
    /// Raw samples were added or deleted since.
    Outdated,
}

/// A day of a level: days since 1970.
pub(crate) type Day = (Resolution, i64);

/// What there is of all levels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    days: BTreeMap<Day, State>,
    /// Raw samples up to this time may be gone.
    raw_gone_ms: Option<i64>,
}

/// What answers a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) level: Resolution,
    /// Up to when it answers; samples do afterwards. None: to the end, because it serves the purpose.
    pub(crate) until_ms: Option<i64>,
}

/// A change of a day: none when it is gone.
pub(crate) type DayChange = (Day, Option<State>);

impl Resolution {
    /// Length of a stretch.
    pub(crate) fn millis(self) -> i64 {
        match self {
            Self::Raw => 1,
            Self::FiveMinutes => 300_000,
            Self::OneHour => 3_600_000,
        }
    }

    /// In the two high bits of a block's level, so that blocks written before there were levels read as raw.
    pub(crate) fn bits(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::FiveMinutes => 1 << 6,
            Self::OneHour => 2 << 6,
        }
    }

    pub(crate) fn of_bits(level: u8) -> Self {
        match level >> 6 {
            0 => Self::Raw,
            1 => Self::FiveMinutes,
            _ => Self::OneHour,
        }
    }

    /// A number for the catalogue.
    pub(crate) fn number(self) -> u8 {
        self.bits() >> 6
    }

    /// How old a day is when it is made, and how long it is kept; none when it is not made.
    pub(crate) fn configured(self, config: &Config) -> Option<(i64, i64)> {
        let (after, retention) = match self {
            Self::Raw => return None,
            Self::FiveMinutes => (config.five_minutes_after, config.five_minutes_retention),
            Self::OneHour => (config.one_hour_after, config.one_hour_retention),
        };
        // What is still in memory, or may still come late, would have every day made twice.
        let ready = config.out_of_order_window.saturating_add(config.block_duration);
        (!retention.is_zero()).then(|| (crate::millis(after.max(ready)), crate::millis(retention)))
    }
}

/// The day whose stretches a time lies in: midnight belongs to the day that it ends.
pub(crate) fn day_of(unix_millis: i64) -> i64 {
    unix_millis.saturating_sub(1).div_euclid(DAY_MS)
}

impl Levels {
    pub(crate) fn set(&mut self, (day, state): DayChange) {
        match state {
            Some(state) => drop(self.days.insert(day, state)),
            None => drop(self.days.remove(&day)),
        }
    }

    pub(crate) fn state(&self, day: Day) -> Option<State> {
        self.days.get(&day).copied()
    }

    pub(crate) fn raw_gone_ms(&self) -> Option<i64> {
        self.raw_gone_ms
    }

    pub(crate) fn raw_went(&mut self, up_to_ms: i64) {
        self.raw_gone_ms = self.raw_gone_ms.max(Some(up_to_ms));
    }

    /// Whether all raw samples of a day are there.
    pub(crate) fn has_raw(&self, day: i64) -> bool {
        self.raw_gone_ms.is_none_or(|gone_ms| gone_ms <= day.saturating_mul(DAY_MS))
    }

    /// The days of a time, of all levels, that say what is no longer so, now that samples came in or went there.
    pub(crate) fn outdated(&self, from_ms: i64, to_ms: i64) -> Vec<DayChange> {
        let days = day_of(from_ms)..=day_of(to_ms);
        let touched =
            self.days.iter().filter(|((_, day), state)| days.contains(day) && **state == State::Made);
        touched.map(|(day, _)| (*day, Some(State::Outdated))).collect()
    }

    /// Days that are to be made again.
    pub(crate) fn to_mend(&self) -> impl Iterator<Item = Day> + '_ {
        let outdated = self.days.iter().filter(|(_, state)| **state == State::Outdated);
        outdated.map(|(day, _)| *day).filter(|(_, day)| self.has_raw(*day))
    }

    /// The days of a level before a time.
    pub(crate) fn before(&self, level: Resolution, time_ms: i64) -> impl Iterator<Item = Day> + '_ {
        let ended = move |day: i64| day.saturating_add(1).saturating_mul(DAY_MS) < time_ms;
        self.days.keys().copied().filter(move |(held, day)| *held == level && ended(*day))
    }

    /// Whether a day of a level answers. Samples in memory from `head_ms` on are in no level yet.
    fn answers(&self, (level, day): Day, head_ms: Option<i64>) -> bool {
        let is_in_head =
            head_ms.is_some_and(|head_ms| head_ms <= day.saturating_add(1).saturating_mul(DAY_MS));
        match self.state((level, day)) {
            None => false,
            Some(State::Made) => !is_in_head || !self.has_raw(day),
            Some(State::Outdated) => !self.has_raw(day),
        }
    }

    /// From where to read what is to be answered in stretches of a level: pieces of time, after the first and up to and
    /// with the second, in order.
    pub(crate) fn sources(
        &self,
        level: Resolution,
        range: (i64, i64),
        head_ms: Option<i64>,
    ) -> Vec<(Resolution, i64, i64)> {
        self.pieces([level, Resolution::FiveMinutes], range, head_ms)
    }

    /// The finest that is left where raw samples are gone, as with [`sources`](Self::sources).
    pub(crate) fn left(&self, range: (i64, i64)) -> Vec<(Resolution, i64, i64)> {
        self.pieces(LEVELS, range, None)
    }

    /// Pieces of time with the first of these that answers for them.
    fn pieces(
        &self,
        fitting: [Resolution; 2],
        (after_ms, until_ms): (i64, i64),
        head_ms: Option<i64>,
    ) -> Vec<(Resolution, i64, i64)> {
        let mut pieces: Vec<(Resolution, i64, i64)> = Vec::new();
        let known = self.days.keys().map(|(_, day)| *day);
        let (Some(first), Some(last)) = (known.clone().min(), known.max()) else {
            return vec![(Resolution::Raw, after_ms, until_ms)];
        };
        let mut push = |source: Resolution, from: i64, to: i64| {
            let (from, to) = (from.max(after_ms), to.min(until_ms));
            if from >= to {
                return;
            }
            match pieces.last_mut().filter(|(held, _, end)| *held == source && *end == from) {
                Some(held) => held.2 = to,
                None => pieces.push((source, from, to)),
            }
        };
        // Outside of the days that are known there are raw samples only.
        push(Resolution::Raw, after_ms, first.saturating_mul(DAY_MS));
        for day in first.max(day_of(after_ms))..=last.min(day_of(until_ms)) {
            let source = fitting.into_iter().find(|source| self.answers((*source, day), head_ms));
            let (from, to) = (day.saturating_mul(DAY_MS), day.saturating_add(1).saturating_mul(DAY_MS));
            push(source.unwrap_or(Resolution::Raw), from, to);
        }
        push(Resolution::Raw, last.saturating_add(1).saturating_mul(DAY_MS).max(after_ms), until_ms);
        pieces
    }

    /// Which level of stretches no longer than this answers best, none when raw samples do. A query at one time, and one
    /// that needs every sample, are answered from a level only where retention has taken the raw ones.
    pub(crate) fn choose(
        &self,
        purpose: &Purpose,
        (from_ms, to_ms): (i64, i64),
        head_ms: Option<i64>,
        stretch_max_ms: i64,
    ) -> Option<Choice> {
        let range = (from_ms.saturating_sub(1), to_ms);
        let is_fit = |level: Resolution| level.millis() <= stretch_max_ms && is_fit(purpose, level.millis());
        let covered = |level: Resolution, range: (i64, i64), is_wanted: &dyn Fn(Resolution) -> bool| {
            let pieces = self.sources(level, range, head_ms);
            let wanted = pieces.iter().filter(|piece| is_wanted(piece.0));
            wanted.map(|piece| piece.2.abs_diff(piece.1)).sum::<u64>()
        };
        let is_worth_it = |level: &Resolution| {
            covered(*level, range, &|source| source == *level) >= to_ms.abs_diff(from_ms).div_ceil(2)
        };
        let fitting = LEVELS.into_iter().rev().filter(|level| is_fit(*level)).find(is_worth_it);
        let whole = |level: Resolution| Choice { level, until_ms: None };
        let Some(gone_ms) = self.raw_gone_ms.filter(|_| !self.has_raw_from(from_ms)) else {
            return fitting.map(whole);
        };
        // Where raw samples are gone, what there is more of; an hour's pieces are those of five minutes too.
        let gone = (range.0, gone_ms.min(to_ms));
        let kept = |level: Resolution| match level.millis() <= stretch_max_ms {
            true => covered(level, gone, &|source| source != Resolution::Raw),
            false => 0,
        };
        let level = match (kept(Resolution::FiveMinutes), kept(Resolution::OneHour)) {
            (0, 0) => return fitting.map(whole),
            (five, hour) if hour > five => Resolution::OneHour,
            _ => fitting.unwrap_or(Resolution::FiveMinutes),
        };
        // One that does not serve the purpose answers where there is nothing better, and samples do where they are whole.
        let end_ms = stretch::end_of(gone_ms, level.millis());
        Some(Choice { level, until_ms: (!is_fit(level)).then_some(end_ms) })
    }

    /// Whether raw samples of a time are surely all there.
    pub(crate) fn has_raw_from(&self, from_ms: i64) -> bool {
        self.raw_gone_ms.is_none_or(|gone_ms| gone_ms < from_ms)
    }
}

/// Whether stretches answer as samples do: exactly, when all borders of windows are borders of stretches; else, for what
/// changes little when a window moves by less than a stretch, when it is several stretches long.
fn is_fit(purpose: &Purpose, resolution_ms: i64) -> bool {
    let is_whole = |millis: i64| millis.rem_euclid(resolution_ms) == 0;
    if !purpose.is_range_query || purpose.of_window == OfWindow::Samples {
        return false;
    }
    let is_exact = is_whole(purpose.start_ms) && is_whole(purpose.step_ms) && is_whole(purpose.range_ms);
    let is_window = purpose.of_window != OfWindow::Latest;
    if is_exact {
        return !is_window || purpose.range_ms >= resolution_ms;
    }
    let is_long =
        purpose.step_ms >= resolution_ms && purpose.range_ms >= resolution_ms.saturating_mul(STRETCHES_MIN);
    match purpose.of_window {
        OfWindow::Change | OfWindow::Least | OfWindow::Largest | OfWindow::Mean => is_long,
        // Sums and counts grow with the window, so it must not.
        OfWindow::Sum | OfWindow::Count => is_long && is_whole(purpose.range_ms),
        OfWindow::Latest | OfWindow::Edge | OfWindow::Samples => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: Resolution = Resolution::FiveMinutes;
    const HOUR: Resolution = Resolution::OneHour;
    const MINUTE_MS: i64 = 60_000;

    fn levels(days: &[(Resolution, i64)]) -> Levels {
        let mut levels = Levels::default();
        days.iter().for_each(|day| levels.set((*day, Some(State::Made))));
        levels
    }

    #[test]
    fn a_level_answers_where_it_is_right_and_worth_it() {
        let days: Vec<_> = (0..10).flat_map(|day| [(FIVE, day), (HOUR, day)]).collect();
        let levels = levels(&days);
        let check = |(start, step, range): (i64, i64, i64), of_window, expected: Option<Resolution>| {
            let purpose = Purpose {
                is_range_query: true,
                start_ms: start * MINUTE_MS,
                step_ms: step * MINUTE_MS,
                range_ms: range * MINUTE_MS,
                of_window,
            };
            let chosen = levels.choose(&purpose, (DAY_MS, 9 * DAY_MS), None, i64::MAX);
            let expected = expected.map(|level| Choice { level, until_ms: None });
            assert_eq!(chosen, expected, "{start} {step} {range} {of_window:?}");
            let instant = Purpose { is_range_query: false, ..purpose };
            assert_eq!(levels.choose(&instant, (DAY_MS, 9 * DAY_MS), None, i64::MAX), None);
        };
        check((60, 60, 60), OfWindow::Change, Some(HOUR));
        check((60, 60, 0), OfWindow::Latest, Some(HOUR));
        check((60, 15, 60), OfWindow::Change, Some(FIVE));
        check((60, 5, 5), OfWindow::Sum, Some(FIVE));
        check((60, 1, 5), OfWindow::Sum, None);
        check((61, 60, 0), OfWindow::Latest, None);
        // As Grafana's `$__rate_interval` has it: a scrape more than a step.
        check((60, 60, 61), OfWindow::Change, Some(FIVE));
        check((60, 360, 361), OfWindow::Change, Some(HOUR));
        check((61, 60, 61), OfWindow::Count, None);
        check((61, 60, 60), OfWindow::Count, Some(FIVE));
        check((60, 60, 60), OfWindow::Samples, None);
    }

    #[test]
    fn what_is_gone_is_answered_by_what_is_left() {
        let mut levels = levels(&[(HOUR, 1), (FIVE, 2), (HOUR, 2), (FIVE, 3)]);
        let purpose = Purpose {
            is_range_query: false,
            start_ms: 7,
            step_ms: 0,
            range_ms: 0,
            of_window: OfWindow::Latest,
        };
        let choose = |levels: &Levels, from: i64, to: i64| {
            levels.choose(&purpose, (from * DAY_MS + 1, to * DAY_MS), None, i64::MAX)
        };
        let until = |level: Resolution, day: i64| Some(Choice { level, until_ms: Some(day * DAY_MS) });
        assert_eq!(choose(&levels, 1, 2), None);
        levels.raw_went(3 * DAY_MS);
        assert_eq!((choose(&levels, 1, 2), choose(&levels, 2, 5)), (until(HOUR, 3), until(FIVE, 3)));
        assert_eq!((choose(&levels, 0, 1), choose(&levels, 3, 4)), (None, None));
        // Five minutes would be exact, but for the first day there is an hour only.
        let steps = Purpose { is_range_query: true, start_ms: 0, step_ms: 300_000, ..purpose };
        let choose_steps = |from: i64, stretch_max_ms: i64| {
            levels.choose(&steps, (from * DAY_MS + 1, 4 * DAY_MS), None, stretch_max_ms)
        };
        assert_eq!(choose_steps(1, i64::MAX), until(HOUR, 3));
        let five = Some(Choice { level: FIVE, until_ms: None });
        assert_eq!((choose_steps(2, i64::MAX), choose_steps(1, 300_000)), (five, five));
        assert_eq!(
            levels.left((0, 3 * DAY_MS)).iter().map(|piece| piece.0).collect::<Vec<_>>(),
            [Resolution::Raw, HOUR, FIVE]
        );
        let expected = [
            (Resolution::Raw, 0, DAY_MS),
            (HOUR, DAY_MS, 3 * DAY_MS),
            (FIVE, 3 * DAY_MS, 4 * DAY_MS),
            (Resolution::Raw, 4 * DAY_MS, 5 * DAY_MS),
        ];
        assert_eq!(levels.sources(HOUR, (0, 5 * DAY_MS), None), expected);
        // What came late makes a day unfit, until it is made again, if that can be.
        assert_eq!(levels.outdated(3 * DAY_MS + 1, 9 * DAY_MS), [((FIVE, 3), Some(State::Outdated))]);
        levels.set(((FIVE, 3), Some(State::Outdated)));
        assert_eq!(levels.sources(HOUR, (0, 5 * DAY_MS), None).len(), 3);
        assert_eq!(levels.to_mend().collect::<Vec<_>>(), [(FIVE, 3)]);
        levels.raw_went(4 * DAY_MS);
        assert_eq!(levels.to_mend().count(), 0);
        assert_eq!(levels.sources(HOUR, (0, 5 * DAY_MS), Some(0)), expected);
    }
}
