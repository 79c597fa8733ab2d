//! From answers of queries to good and bad events: differences of counters, groups, and what nobody knows.
//!
//! Answers come with the second that they are about; what goes out is whole numbers by group. What cannot be known is
//! left out, so that it becomes neither good nor bad: a first look, a source that is away, a sum that shrank.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::budget::PPM;
use crate::rules::is_plain_name;
use crate::source::{ALL, Grouping, Indicator, OTHER, Reading};

/// Elements that an answer may have.
pub const ELEMENTS_MAX: usize = 10_000;
/// Answers that may be missing before counters are looked at anew: what grew meanwhile belongs to no interval.
const MISSED_MAX: u64 = 3;

/// One element of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// All of its labels: what makes it the same one the next time.
    pub identity: String,
    /// Who counts it, as job and instance: a new element of somebody known began at zero.
    pub origin: String,
    /// The value of the label that is grouped by.
    pub group: String,
    /// Its value.
    pub value: f64,
}

/// What one look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// Good and bad events by group; a group that is missing was not measured.
    pub groups: BTreeMap<String, (u64, u64)>,
    /// The seconds that they are about, up to and with the second of the look.
    pub seconds: u64,
}

/// Why an answer is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeterError {
    /// It has too many elements.
    #[error("an answer has {0} elements, {ELEMENTS_MAX} at most: sum them in the query")]
    TooMany(usize),
    /// It is older than the one before.
    #[error("the clock went back")]
    Backwards,
}

/// Reads the answers of one indicator.
#[derive(Clone, Debug)]
pub struct Meter {
    reading: Reading,
    interval_seconds: u64,
    groups: Groups,
    /// Whether elements of the part, and of the total, are sums over several counters.
    is_summed: [bool; 2],
    seen: [BTreeMap<String, Seen>; 2],
    origins: BTreeSet<String>,
    last: Option<u64>,
}

/// A counter as it was last.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: u64,
    value: f64,
}

/// Which groups there are.
#[derive(Clone, Debug)]
struct Groups {
    grouping: Grouping,
    known: BTreeSet<String>,
    overflow: BTreeSet<String>,
}

/// What became of a group in one answer: the sum, or that it cannot be known.
type Sums = BTreeMap<String, Option<f64>>;

impl Meter {
    /// Reads answers to [`Reading::queries`]; `is_summed` says of each whether its elements are sums, of which nobody
    /// can tell why they shrank.
    #[must_use]
    pub fn new(indicator: &Indicator, is_summed: [bool; 2]) -> Self {
        let grouping = indicator.groups.clone();
        Self {
            reading: indicator.reading.clone(),
            interval_seconds: indicator.interval_seconds.max(1),
            groups: Groups {
                known: grouping.listed.iter().cloned().collect(),
                grouping,
                overflow: BTreeSet::new(),
            },
            is_summed,
            seen: [BTreeMap::new(), BTreeMap::new()],
            origins: BTreeSet::new(),
            last: None,
        }
    }

    /// How many values of the label are judged together as [`OTHER`], as far as they are told apart
    /// ([`ELEMENTS_MAX`]).
    #[must_use]
    pub fn overflowed(&self) -> usize {
        self.groups.overflow.len()
    }

    /// Takes the answers of the second `now`, one for each query.
    ///
    /// # Errors
    /// When an answer is of no use; it is as if nobody had looked.
    pub fn sample(&mut self, now: u64, answers: &[Vec<Element>]) -> Result<Metered, MeterError> {
        if let Some(answer) = answers.iter().find(|answer| answer.len() > ELEMENTS_MAX) {
            return Err(MeterError::TooMany(answer.len()));
        }
        if self.last.is_some_and(|last| now <= last) {
            // Begin anew: counters of a time that is denied are compared with nothing.
            self.forget();
            return Err(MeterError::Backwards);
        }
        let elapsed = self.last.map(|last| now - last);
        if elapsed.is_some_and(|elapsed| elapsed > MISSED_MAX * self.interval_seconds) {
            self.forget();
        }
        let elapsed = self.last.map(|last| now - last);
        self.last = Some(now);
        let [first, second] = [0, 1].map(|place| answers.get(place).map_or(&[][..], Vec::as_slice));
        let reading = self.reading.clone();
        let groups = match reading {
            Reading::Counts { is_part_bad, is_counter, needs_part, .. } => {
                let (part, total) = if is_counter {
                    let sums = (self.grown(now, 0, first), self.grown(now, 1, second));
                    self.origins = first.iter().chain(second).map(|element| element.origin.clone()).collect();
                    sums
                } else {
                    (self.summed(first), self.summed(second))
                };
                counted(&part, &total, is_part_bad, needs_part)
            }
            Reading::Ratio { is_failure, .. } => self.each(first, |value| {
                let share = (0.0..=1.0).contains(&value).then(|| whole(value * f64::from(PPM)))?;
                let rest = u64::from(PPM) - share;
                Some(if is_failure { (rest, share) } else { (share, rest) })
            }),
            Reading::Threshold { comparison, mark, .. } => self.each(first, |value| {
                let is_good = u64::from(comparison.is_good(value, mark));
                (!value.is_nan()).then_some((is_good, 1 - is_good))
            }),
        };
        let is_counter = matches!(self.reading, Reading::Counts { is_counter: true, .. });
        let seconds = if is_counter { elapsed.unwrap_or(0) } else { self.interval_seconds };
        Ok(Metered { groups, seconds })
    }

    fn forget(&mut self) {
        self.seen = [BTreeMap::new(), BTreeMap::new()];
        self.origins.clear();
        self.last = None;
    }

    /// What the counters of an answer grew by, per group.
    fn grown(&mut self, now: u64, place: usize, elements: &[Element]) -> Sums {
        let mut sums = Sums::new();
        for element in elements.iter().filter(|element| element.value.is_finite()) {
            let seen = Seen { at: now, value: element.value };
            let before = self.seen[place].insert(element.identity.clone(), seen);
            let growth = match before {
                Some(before) if element.value >= before.value => Some(element.value - before.value),
                // A sum that shrank lost a member or saw one begin anew; how much grew beside it nobody knows.
                Some(_) if self.is_summed[place] => {
                    sums.insert(self.groups.place(&element.group), None);
                    continue;
                }
                // A counter that shrank began anew.
                Some(_) => Some(element.value),
                None => self.origins.contains(&element.origin).then_some(element.value),
            };
            if let Some(growth) = growth {
                let sum = sums.entry(self.groups.place(&element.group)).or_insert(Some(0.0));
                *sum = sum.map(|sum| sum + growth);
            }
        }
        let patience = MISSED_MAX * self.interval_seconds;
        self.seen[place].retain(|_, seen| now - seen.at <= patience);
        sums
    }

    /// The numbers of events that an answer says, per group.
    fn summed(&mut self, elements: &[Element]) -> Sums {
        let mut sums = Sums::new();
        for element in elements {
            let value = (element.value.is_finite() && element.value >= 0.0).then_some(element.value);
            let sum = sums.entry(self.groups.place(&element.group)).or_insert(Some(0.0));
            *sum = sum.zip(value).map(|(sum, value)| sum + value);
        }
        sums
    }

    /// Events that each element stands for, per group.
    fn each(
        &mut self,
        elements: &[Element],
        events: impl Fn(f64) -> Option<(u64, u64)>,
    ) -> BTreeMap<String, (u64, u64)> {
        let mut groups: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for element in elements {
            let Some((good, bad)) = events(element.value) else { continue };
            let sum = groups.entry(self.groups.place(&element.group)).or_default();
            *sum = (sum.0.saturating_add(good), sum.1.saturating_add(bad));
        }
        groups
    }
}

impl Groups {
    /// Where the events of a value are judged.
    fn place(&mut self, value: &str) -> String {
        if self.grouping.label.is_none() {
            return ALL.to_owned();
        }
        if self.known.contains(value) {
            return value.to_owned();
        }
        let has_room = self.grouping.is_open && self.known.len() < self.grouping.groups_max;
        if has_room && is_plain_name(value) && value != OTHER {
            self.known.insert(value.to_owned());
            return value.to_owned();
        }
        if self.overflow.len() < ELEMENTS_MAX && !self.overflow.contains(value) {
            self.overflow.insert(value.to_owned());
        }
        OTHER.to_owned()
    }
}

/// Good and bad events of each group whose total is known.
fn counted(part: &Sums, total: &Sums, is_part_bad: bool, needs_part: bool) -> BTreeMap<String, (u64, u64)> {
    let mut groups = BTreeMap::new();
    for (group, total) in total {
        let Some(total) = total.map(whole) else { continue };
        let part = match part.get(group) {
            Some(Some(part)) => whole(*part).min(total),
            None if !needs_part => 0,
            _ => continue,
        };
        let rest = total - part;
        groups.insert(group.clone(), if is_part_bad { (rest, part) } else { (part, rest) });
    }
    groups
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float that is too large is cut"
)]
fn whole(value: f64) -> u64 {
    value.round() as u64
}
