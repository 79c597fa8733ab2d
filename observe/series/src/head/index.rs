//! Who is in the head: series by their labels, sets of series per label value, and the limits on both.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use belfry_promql::Labels;
use hashbrown::{DefaultHashBuilder, HashTable};
use roaring::RoaringBitmap;

use crate::error::Error;
use crate::postings::Postings;
use crate::symbols::Symbols;

/// The label that carries the metric's name, as in Prometheus.
pub(crate) const METRIC_LABEL: &str = "__name__";

/// Limits on series.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) series_max: usize,
    pub(crate) metric_series_max: usize,
    /// The label that says whose series it is; none when there are no tenants.
    pub(crate) tenant_label: Option<Arc<str>>,
    pub(crate) tenant_series_max: usize,
}

/// Why a new series was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Series,
    /// The metric has too many. The first time since the last seal, with the label that has the most values.
    Metric {
        news: Option<Offender>,
    },
    /// The tenant has too many.
    Tenant {
        news: Option<Offender>,
    },
}

/// What is behind too many series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offender {
    /// The metric, or the tenant.
    pub(crate) name: String,
    /// The label with the most values among its series.
    pub(crate) label: String,
    /// How many values.
    pub(crate) values: usize,
}

/// Series numbers: most label values of a high-cardinality label have one.
#[derive(Debug)]
enum Set {
    One(u32),
    Many(Box<RoaringBitmap>),
}

type Pair = (u32, u32);

#[derive(Debug, Default)]
pub(crate) struct HeadIndex {
    symbols: Symbols,
    hasher: DefaultHashBuilder,
    /// Names and values as numbers of texts, and the hash of the labels, by series.
    series: Vec<(Box<[Pair]>, u64)>,
    numbers: HashTable<u32>,
    sets: hashbrown::HashMap<Pair, Set>,
    /// The values of each name.
    values: HashMap<u32, Vec<u32>>,
    metric_series: HashMap<u32, usize>,
    tenant_series: HashMap<u32, usize>,
    /// Metrics and tenants whose limit was already told.
    offenders: HashSet<u32>,
}

impl Limits {
    pub(crate) fn without_limits(&self) -> Self {
        Self {
            series_max: usize::MAX,
            metric_series_max: usize::MAX,
            tenant_series_max: usize::MAX,
            tenant_label: self.tenant_label.clone(),
        }
    }
}

impl Set {
    fn insert(&mut self, number: u32) {
        match self {
            Self::One(first) => {
                let both = [*first, number].into_iter().collect();
                *self = Self::Many(Box::new(both));
            }
            Self::Many(numbers) => {
                numbers.insert(number);
            }
        }
    }

    fn add_to(&self, numbers: &mut RoaringBitmap) {
        match self {
            Self::One(number) => {
                numbers.insert(*number);
            }
            Self::Many(many) => *numbers |= &**many,
        }
    }
}

impl HeadIndex {
    /// The labels of a series, their texts shared.
    pub(crate) fn labels(&self, number: u32) -> Labels {
        let Some((pairs, _)) = self.series.get(number as usize) else { return Labels::default() };
        let text = |symbol: u32| Arc::clone(self.symbols.text(symbol));
        let texts: Vec<_> = pairs.iter().map(|(name, value)| (text(*name), text(*value))).collect();
        Labels::from_sorted(texts)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(|name| &**self.symbols.text(*name))
    }

    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.symbols.find(name).and_then(|name| self.values.get(&name));
        values.into_iter().flatten().map(|value| &**self.symbols.text(*value))
    }

    /// Series per metric, values per label, series per pair of a label: what `top` sorts.
    pub(crate) fn counts(&self) -> crate::top::Counts {
        let text = |symbol: u32| self.symbols.text(symbol).to_string();
        let size = |set: &Set| match set {
            Set::One(_) => 1,
            Set::Many(many) => many.len(),
        };
        crate::top::Counts {
            metrics: self.metric_series.iter().map(|(name, count)| (text(*name), *count as u64)).collect(),
            labels: self.values.iter().map(|(name, values)| (text(*name), values.len() as u64)).collect(),
            pairs: self
                .sets
                .iter()
                .map(|((name, value), set)| (format!("{}={}", text(*name), text(*value)), size(set)))
                .collect(),
            label_bytes: self
                .values
                .iter()
                .map(|(name, values)| {
                    let bytes: usize = values.iter().map(|value| self.symbols.text(*value).len()).sum();
                    (text(*name), bytes as u64)
                })
                .collect(),
        }
    }

    /// Limits are told anew after a seal.
    pub(crate) fn forget_offenders(&mut self) {
        self.offenders.clear();
    }

    /// Bytes of texts and sets, about.
    pub(crate) fn bytes(&self) -> usize {
        let sets: usize = self
            .sets
            .values()
            .map(|set| match set {
                Set::One(_) => 24,
                Set::Many(many) => 48 + many.serialized_size(),
            })
            .sum();
        let series: usize = self.series.iter().map(|(pairs, _)| 29 + pairs.len() * 8).sum();
        self.symbols.bytes() + self.symbols.len() * 4 + sets + series
    }

    /// The number of a series, which is new or not.
    pub(crate) fn number(&mut self, labels: &[(&str, &str)], limits: &Limits) -> Result<u32, Refused> {
        let hash = self.hasher.hash_one(labels);
        let symbols = &self.symbols;
        let is_it = |number: &u32| {
            let (pairs, _) = &self.series[*number as usize];
            pairs.len() == labels.len()
                && pairs.iter().zip(labels).all(|((name, value), (other_name, other_value))| {
                    &**symbols.text(*value) == *other_value && &**symbols.text(*name) == *other_name
                })
        };
        if let Some(number) = self.numbers.find(hash, is_it) {
            return Ok(*number);
        }
        self.admit(labels, limits)?;
        let number = u32::try_from(self.series.len()).map_err(|_| Refused::Series)?;
        let mut pairs = Vec::with_capacity(labels.len());
        for (name, value) in labels {
            let pair = (self.symbols.number(name), self.symbols.number(value));
            pairs.push(pair);
            match self.sets.entry(pair) {
                hashbrown::hash_map::Entry::Occupied(mut set) => set.get_mut().insert(number),
                hashbrown::hash_map::Entry::Vacant(slot) => {
                    slot.insert(Set::One(number));
                    self.values.entry(pair.0).or_default().push(pair.1);
                }
            }
        }
        self.series.push((pairs.into(), hash));
        let series = &self.series;
        self.numbers.insert_unique(hash, number, |number| series[*number as usize].1);
        Ok(number)
    }

    /// Counts a new series against the limits.
    fn admit(&mut self, labels: &[(&str, &str)], limits: &Limits) -> Result<(), Refused> {
        if self.series.len() >= limits.series_max {
            return Err(Refused::Series);
        }
        let value =
            |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| value);
        let metric = self.symbols.number(value(METRIC_LABEL));
        let tenant = limits.tenant_label.as_ref().map(|label| self.symbols.number(value(label)));
        if self.metric_series.get(&metric).copied().unwrap_or(0) >= limits.metric_series_max {
            return Err(Refused::Metric { news: self.offender(METRIC_LABEL, metric) });
        }
        if let (Some(tenant), Some(label)) = (tenant, &limits.tenant_label) {
            if self.tenant_series.get(&tenant).copied().unwrap_or(0) >= limits.tenant_series_max {
                let label = Arc::clone(label);
                return Err(Refused::Tenant { news: self.offender(&label, tenant) });
            }
            *self.tenant_series.entry(tenant).or_default() += 1;
        }
        *self.metric_series.entry(metric).or_default() += 1;
        Ok(())
    }

    /// Among the series with this value of a label: the other label that has the most values. Told once.
    fn offender(&mut self, label: &str, value: u32) -> Option<Offender> {
        if !self.offenders.insert(value) {
            return None;
        }
        let name = self.symbols.find(label)?;
        let mut members = RoaringBitmap::new();
        if let Some(set) = self.sets.get(&(name, value)) {
            set.add_to(&mut members);
        }
        let mut values: HashMap<u32, HashSet<u32>> = HashMap::new();
        for member in members {
            for (held, value) in self.series[member as usize].0.iter().filter(|(held, _)| *held != name) {
                values.entry(*held).or_default().insert(*value);
            }
        }
        let (label, count) = values
            .into_iter()
            .map(|(label, values)| (self.symbols.text(label).to_string(), values.len()))
            .max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(&a.0)))
            .unwrap_or_default();
        Some(Offender { name: self.symbols.text(value).to_string(), label, values: count })
    }
}

impl Postings for HeadIndex {
    fn all(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..u32::try_from(self.series.len()).unwrap_or(u32::MAX));
        all
    }

    fn with_value(&self, name: &str, value: &str) -> Result<RoaringBitmap, Error> {
        let mut numbers = RoaringBitmap::new();
        let pair = self.symbols.find(name).zip(self.symbols.find(value));
        if let Some(set) = pair.and_then(|pair| self.sets.get(&pair)) {
            set.add_to(&mut numbers);
        }
        Ok(numbers)
    }

    fn with_values(&self, name: &str, is_wanted: &dyn Fn(&str) -> bool) -> Result<RoaringBitmap, Error> {
        let mut numbers = RoaringBitmap::new();
        let Some(name) = self.symbols.find(name) else { return Ok(numbers) };
        for value in self.values.get(&name).into_iter().flatten() {
            if is_wanted(self.symbols.text(*value))
                && let Some(set) = self.sets.get(&(name, *value))
            {
                set.add_to(&mut numbers);
            }
        }
        Ok(numbers)
    }
}
