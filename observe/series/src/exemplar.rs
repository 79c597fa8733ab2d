//! Exemplars: the last few examples of each series, bounded per series and together.

use std::collections::{BTreeSet, HashMap, VecDeque};

use belfry_signal::Exemplar;

/// Texts of one exemplar's labels at most, in characters, as OpenMetrics has it.
const LABEL_CHARACTERS_MAX: usize = 128;

/// Exemplars by number of series.
#[derive(Debug, Default)]
pub(crate) struct Exemplars {
    rings: HashMap<u32, VecDeque<Exemplar>>,
    /// Series by the time of their oldest exemplar: who gives way when there are too many together.
    oldest: BTreeSet<(i64, u32)>,
    held: usize,
    series_max: usize,
    all_max: usize,
}

impl Exemplars {
    pub(crate) fn new(series_max: usize, all_max: usize) -> Self {
        Self { series_max, all_max, ..Self::default() }
    }

    /// None, with the same limits.
    pub(crate) fn emptied(&self) -> Self {
        Self::new(self.series_max, self.all_max)
    }

    /// Takes one; false when it is older than the series' last, says too much, or none may be held.
    pub(crate) fn push(&mut self, number: u32, exemplar: Exemplar) -> bool {
        let characters: usize =
            exemplar.labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
        if characters > LABEL_CHARACTERS_MAX || self.series_max == 0 || self.all_max == 0 {
            return false;
        }
        let ring = self.rings.entry(number).or_default();
        if ring.back() == Some(&exemplar) {
            return true;
        }
        if ring.back().is_some_and(|last| exemplar.unix_millis < last.unix_millis) {
            return false;
        }
        if let Some(first) = ring.front() {
            self.oldest.remove(&(first.unix_millis, number));
        }
        if ring.len() >= self.series_max {
            ring.pop_front();
            self.held -= 1;
        }
        ring.push_back(exemplar);
        self.held += 1;
        if let Some(first) = ring.front() {
            self.oldest.insert((first.unix_millis, number));
        }
        while self.held > self.all_max {
            self.drop_oldest();
        }
        true
    }

    fn drop_oldest(&mut self) {
        let Some((_, number)) = self.oldest.pop_first() else { return };
        let Some(ring) = self.rings.get_mut(&number) else { return };
        ring.pop_front();
        self.held -= 1;
        match ring.front() {
            Some(first) => drop(self.oldest.insert((first.unix_millis, number))),
            None => drop(self.rings.remove(&number)),
        }
    }

    /// Those of one series, oldest first.
    pub(crate) fn of(&self, number: u32) -> impl Iterator<Item = &Exemplar> {
        self.rings.get(&number).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exemplar(unix_millis: i64) -> Exemplar {
        Exemplar { labels: vec![("trace_id".to_owned(), "abc".to_owned())], unix_millis, value: 1.0 }
    }

    #[test]
    fn the_oldest_give_way() {
        let mut exemplars = Exemplars::new(2, 3);
        for time in 1..=3 {
            assert!(exemplars.push(7, exemplar(time)));
        }
        let times = |exemplars: &Exemplars, number| -> Vec<i64> {
            exemplars.of(number).map(|exemplar| exemplar.unix_millis).collect()
        };
        assert_eq!(times(&exemplars, 7), [2, 3]);
        assert!(!exemplars.push(7, exemplar(1)), "older than the last");
        assert!(exemplars.push(8, exemplar(4)));
        assert!(exemplars.push(9, exemplar(5)));
        assert_eq!((times(&exemplars, 7), times(&exemplars, 8)), (vec![3], vec![4]));
        let long = Exemplar { labels: vec![("x".to_owned(), "y".repeat(128))], ..exemplar(9) };
        assert!(!exemplars.push(9, long));
    }
}
