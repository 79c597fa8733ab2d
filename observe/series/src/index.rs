//! Which series there are, and which of them satisfy a query: postings per label value.
//!
//! Head and blocks use the same index. Lists of numbers are sorted, so that they intersect by merging.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::matcher::Matcher;

/// A series' labels, sorted by name, `__name__` among them.
pub(crate) type LabelSet = Arc<[(Arc<str>, Arc<str>)]>;

/// The series of the head or of one block; each has a number, counted from zero.
#[derive(Debug, Default)]
pub(crate) struct SeriesIndex {
    series: Vec<LabelSet>,
    postings: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Vec<u32>>>,
}

impl SeriesIndex {
    pub(crate) fn labels(&self, number: u32) -> Option<&LabelSet> {
        self.series.get(number as usize)
    }

    /// Adds a series that is not there yet. Texts that are there already are shared.
    pub(crate) fn push<'a>(&mut self, labels: impl Iterator<Item = (&'a str, &'a str)>) -> u32 {
        let number = u32::try_from(self.series.len()).unwrap_or(u32::MAX);
        let mut set: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for (name, value) in labels {
            let name = shared(&self.postings, name);
            let values = self.postings.entry(Arc::clone(&name)).or_default();
            let value = shared(values, value);
            values.entry(Arc::clone(&value)).or_default().push(number);
            set.push((name, value));
        }
        set.sort();
        self.series.push(set.into());
        number
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.postings.keys().map(AsRef::as_ref)
    }

    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.postings.get(name).into_iter().flat_map(|values| values.keys().map(AsRef::as_ref))
    }

    /// The numbers of the series that satisfy every matcher, sorted.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> Vec<u32> {
        let mut selected: Option<Vec<u32>> = None;
        // Those that a series without the label cannot satisfy narrow down; the others then take away.
        let (narrowing, widening): (Vec<_>, Vec<_>) =
            matchers.iter().partition(|matcher| !matcher.is_match(""));
        for matcher in narrowing {
            let found = match matcher.only_value() {
                Some(value) => self.posting(matcher.name(), value).to_vec(),
                None => self.union(matcher.name(), |value| matcher.is_match(value)),
            };
            selected = Some(match selected {
                Some(before) => intersection(&before, &found),
                None => found,
            });
        }
        let all = || (0..u32::try_from(self.series.len()).unwrap_or(u32::MAX)).collect();
        let mut selected = selected.unwrap_or_else(all);
        for matcher in widening {
            let excluded = self.union(matcher.name(), |value| !matcher.is_match(value));
            selected.retain(|number| excluded.binary_search(number).is_err());
        }
        selected
    }

    fn posting(&self, name: &str, value: &str) -> &[u32] {
        self.postings.get(name).and_then(|values| values.get(value)).map_or(&[], Vec::as_slice)
    }

    fn union(&self, name: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<u32> {
        let mut numbers = Vec::new();
        for (value, posting) in self.postings.get(name).into_iter().flatten() {
            if is_wanted(value) {
                numbers.extend_from_slice(posting);
            }
        }
        // A series has one value of a label, so there are no repetitions.
        numbers.sort_unstable();
        numbers
    }
}

fn shared<V>(texts: &BTreeMap<Arc<str>, V>, text: &str) -> Arc<str> {
    texts.get_key_value(text).map_or_else(|| text.into(), |(found, _)| Arc::clone(found))
}

fn intersection(a: &[u32], b: &[u32]) -> Vec<u32> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut both = Vec::new();
    while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
        match left.cmp(right) {
            std::cmp::Ordering::Less => drop(a.next()),
            std::cmp::Ordering::Greater => drop(b.next()),
            std::cmp::Ordering::Equal => {
                both.push(**left);
                a.next();
                b.next();
            }
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::MatchOperator::{self, Equal, NotEqual, NotRegex, Regex};

    #[test]
    fn matchers_select_alone_and_together() {
        let mut index = SeriesIndex::default();
        let rows: [&[(&str, &str)]; 4] = [
            &[("__name__", "calls"), ("region", "eu"), ("outcome", "good")],
            &[("__name__", "calls"), ("region", "eu"), ("outcome", "bad")],
            &[("__name__", "calls"), ("region", "us-east"), ("outcome", "good")],
            &[("__name__", "up")],
        ];
        for row in rows {
            index.push(row.iter().copied());
        }
        let check = |matchers: &[(&str, MatchOperator, &str)], expected: &[u32]| {
            let matchers: Vec<_> = matchers
                .iter()
                .map(|(name, operator, value)| Matcher::new(name, *operator, value).expect("it compiles"))
                .collect();
            assert_eq!(index.select(&matchers), expected, "{matchers:?}");
        };
        check(&[], &[0, 1, 2, 3]);
        check(&[("__name__", Equal, "calls")], &[0, 1, 2]);
        check(&[("__name__", Equal, "calls"), ("region", Equal, "eu")], &[0, 1]);
        check(&[("region", NotEqual, "eu")], &[2, 3]);
        check(&[("region", Regex, "eu|us-.*")], &[0, 1, 2]);
        check(&[("region", NotRegex, "us-.*")], &[0, 1, 3]);
        check(&[("region", Equal, "")], &[3]);
        check(&[("region", NotEqual, "")], &[0, 1, 2]);
        check(&[("region", Regex, ".+"), ("outcome", NotEqual, "bad")], &[0, 2]);
        check(&[("nothing", Equal, "x")], &[]);
        check(&[("nothing", Regex, ".*")], &[0, 1, 2, 3]);
        assert_eq!(index.values("region").collect::<Vec<_>>(), ["eu", "us-east"]);
        assert_eq!(index.names().collect::<Vec<_>>(), ["__name__", "outcome", "region"]);
    }
}
