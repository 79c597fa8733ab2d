//! From the items of a page to points of series: with the labels that the door adds, rules applied, and what was there
//! before and is not any more.
//!
//! A page comes again and again with the same series, so what became of each series' text is kept from one reading to the
//! next: rules run once per series, not once per value.

use std::sync::Arc;

use belfry_signal::{Exemplar, PointValue, SeriesBatch, SeriesLabels, SeriesPoints};
use hashbrown::{HashMap, HashSet};

use super::exposition::{Item, NO_TIME, Pair, Said, Sink, pairs};
use super::labels::{METRIC, MetadataSet};

/// Makes the labels of a series from those of the page; `None` drops it.
pub type Build<'a> = &'a dyn Fn(Vec<Pair<'_>>) -> Result<Option<SeriesLabels>, String>;

/// Readings for which a series that is not on the page is still remembered.
const ROUNDS_KEPT: u64 = 10;
/// Readings after which groups that nothing belongs to are forgotten.
const GROUP_ROUNDS: u64 = 64;
/// The marker that a series ended, as bits.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// What became of a series' text.
#[derive(Debug)]
struct Known {
    /// None when the rules drop it.
    labels: Option<SeriesLabels>,
    /// Family and labels that it shares with its `_created` companion, when the page has such; each text is held once.
    group: Option<Arc<str>>,
    is_created: bool,
    /// In which reading it was last on the page.
    seen: u64,
    /// Whether it was on the last good page, and so is to be marked when it goes.
    is_alive: bool,
    /// Whether it may be marked: it came without a time of its own.
    is_tracked: bool,
}

/// What is remembered between readings of one page.
#[derive(Debug, Default)]
pub struct Memory {
    known: HashMap<Box<str>, Known>,
    groups: HashSet<Arc<str>>,
    round: u64,
}

/// A group by the place of its text, which is held once and longer than a reading lasts.
type GroupPlace = usize;

/// How values are taken from a page.
#[derive(Clone, Copy, Debug)]
pub struct Taking {
    /// The time of values that say none, and of all when those of the page are not honoured.
    pub unix_millis: i64,
    /// Whether times on the page count.
    pub honors_times: bool,
    /// Whether series that bring their own times are marked too when they go.
    pub tracks_times: bool,
    /// Values that a page may have after the rules; more, and none of it is taken. Zero: any number.
    pub samples_max: usize,
    /// Buckets of a native histogram; more, and it is made coarser. Zero: any number.
    pub buckets_max: usize,
}

/// What a page came to.
#[derive(Debug, Default)]
pub struct Collected {
    /// The points, and marks of series that went.
    pub batch: SeriesBatch,
    /// Values on the page.
    pub items: u64,
    /// Values after the rules.
    pub taken: u64,
    /// Series that were not there before.
    pub added: u64,
}

/// One reading of a page.
pub struct Collector<'a> {
    memory: &'a mut Memory,
    build: Build<'a>,
    taking: Taking,
    kinds: HashMap<String, &'static str>,
    metadata: MetadataSet,
    collected: Collected,
    /// When groups began, and which of the series belong to them.
    created: HashMap<GroupPlace, i64>,
    members: Vec<(usize, GroupPlace)>,
}

impl<'a> Collector<'a> {
    /// A new reading.
    pub fn new(memory: &'a mut Memory, taking: Taking, build: Build<'a>) -> Self {
        memory.round += 1;
        Self {
            memory,
            build,
            taking,
            kinds: HashMap::new(),
            metadata: MetadataSet::default(),
            collected: Collected::default(),
            created: HashMap::new(),
            members: Vec::new(),
        }
    }

    /// The page was read to its end: what it came to, with marks of what was on the last page and is not on this.
    #[must_use]
    pub fn finish(mut self) -> Collected {
        let members = if self.created.is_empty() { &[][..] } else { &self.members[..] };
        for (place, group) in members {
            if let (Some(series), Some(created_ms)) =
                (self.collected.batch.series.get_mut(*place), self.created.get(group))
            {
                series.created_ms = Some(*created_ms);
            }
        }
        let round = self.memory.round;
        self.collected.batch.series.extend(self.memory.gone(self.taking.unix_millis, |known| {
            let is_on_page = known.seen == round;
            let was_alive = std::mem::replace(&mut known.is_alive, is_on_page && known.is_tracked);
            was_alive && !is_on_page
        }));
        self.memory.known.retain(|_, known| known.seen + ROUNDS_KEPT > round);
        if round.is_multiple_of(GROUP_ROUNDS) {
            self.memory.groups.retain(|group| Arc::strong_count(group) > 1);
        }
        self.collected.batch.metadata = self.metadata.into_vec();
        self.collected
    }

    /// Remembers a series that was not on the page before.
    fn learn(&mut self, series: &str) -> Result<(), String> {
        let pairs = pairs(series)?;
        let (group, is_created) = self.group(&pairs);
        let group = group.map(|group| Arc::clone(self.memory.groups.get_or_insert(group)));
        let labels = (self.build)(pairs)?;
        self.collected.added += u64::from(labels.is_some());
        let (seen, is_alive, is_tracked) = (0, false, true);
        let known = Known { labels, group, is_created, seen, is_alive, is_tracked };
        self.memory.known.insert(series.into(), known);
        Ok(())
    }

    /// The family and labels that a series shares with the one that says when it began; and whether it is that one.
    fn group(&self, pairs: &[Pair<'_>]) -> (Option<Arc<str>>, bool) {
        let Some((_, metric)) = pairs.iter().find(|(name, _)| name == METRIC) else { return (None, false) };
        let endings = ["_created", "_total", "_bucket", "_sum", "_count", ""];
        let family = endings.iter().find_map(|ending| {
            let family = metric.strip_suffix(ending)?;
            let kind = self.kinds.get(family)?;
            matches!(*kind, "counter" | "histogram" | "summary").then_some((family, *ending == "_created"))
        });
        let Some((family, is_created)) = family else { return (None, false) };
        let mut labels: Vec<String> = pairs
            .iter()
            .filter(|(name, _)| !matches!(&**name, METRIC | "le" | "quantile"))
            .map(|(name, value)| format!("{name}\u{1}{value}"))
            .collect();
        labels.sort_unstable();
        (Some(format!("{family}\u{2}{}", labels.join("\u{2}")).into()), is_created)
    }
}

impl Sink for Collector<'_> {
    fn said(&mut self, family: &str, said: Said<'_>) {
        let entry = self.metadata.entry(family);
        match said {
            Said::Kind(kind) => {
                entry.kind = kind.to_owned();
                let known = super::labels::KINDS.into_iter().find(|known| *known == kind);
                self.kinds.insert(family.to_owned(), known.unwrap_or("unknown"));
            }
            Said::Help(help) => entry.help = help.into_owned(),
            Said::Unit(unit) => entry.unit = unit.to_owned(),
        }
    }

    fn take(&mut self, item: Item<'_>) -> Result<(), String> {
        self.collected.items += 1;
        let taking = self.taking;
        let round = self.memory.round;
        if !self.memory.known.contains_key(item.series) {
            self.learn(item.series)?;
        }
        let Some(known) = self.memory.known.get_mut(item.series) else { return Ok(()) };
        known.seen = round;
        let own_time = item.unix_millis.filter(|_| taking.honors_times);
        known.is_tracked = own_time.is_none() || taking.tracks_times;
        let Some(labels) = known.labels.clone() else { return Ok(()) };
        let (group, is_created) = (known.group.as_ref().map(|group| group.as_ptr().addr()), known.is_created);
        self.collected.taken += 1;
        if taking.samples_max > 0 && self.collected.taken > taking.samples_max as u64 {
            return Err(format!("more than the {} values that sample_limit allows", taking.samples_max));
        }
        let unix_millis = own_time.unwrap_or(taking.unix_millis);
        if let Some(group) = group {
            match &item.value {
                PointValue::Float(seconds) if is_created => {
                    self.created.insert(group, millis(*seconds));
                }
                _ => self.members.push((self.collected.batch.series.len(), group)),
            }
        }
        let exemplars = item.exemplars.into_iter().map(|held| {
            let time = if held.unix_millis == NO_TIME { unix_millis } else { held.unix_millis };
            Exemplar { unix_millis: time, ..held }
        });
        let value = match item.value {
            PointValue::Histogram(held) => PointValue::Histogram(coarser(held, taking.buckets_max)?),
            float @ PointValue::Float(_) => float,
        };
        self.collected.batch.series.push(SeriesPoints {
            labels,
            created_ms: item.created_ms,
            points: vec![(unix_millis, value)],
            exemplars: exemplars.collect(),
        });
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a float as an integer saturates")]
fn millis(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

/// A histogram with at most so many buckets: two neighbours become one, as often as needed.
fn coarser(
    mut held: Box<belfry_signal::NativeHistogram>,
    buckets_max: usize,
) -> Result<Box<belfry_signal::NativeHistogram>, String> {
    let count = |held: &belfry_signal::NativeHistogram| held.positive.len() + held.negative.len();
    while buckets_max > 0 && count(&held) > buckets_max {
        if held.schema <= -4 || held.schema > 8 {
            return Err(format!(
                "a native histogram has more than the {buckets_max} buckets that are allowed"
            ));
        }
        held.schema -= 1;
        held.positive = halved(&held.positive);
        held.negative = halved(&held.negative);
    }
    Ok(held)
}

/// Buckets of the next coarser schema: of indexes 2n-1 and 2n, the upper bounds being inclusive.
fn halved(buckets: &[(i32, f64)]) -> Vec<(i32, f64)> {
    let mut half: Vec<(i32, f64)> = Vec::with_capacity(buckets.len());
    for (index, count) in buckets {
        let index = (index + 1) >> 1;
        match half.last_mut() {
            Some(last) if last.0 == index => last.1 += count,
            _ => half.push((index, *count)),
        }
    }
    half
}

impl Memory {
    /// Marks of every series that was on the last good page: the page could not be had, or is not asked for any more.
    #[must_use]
    pub fn all_gone(&mut self, unix_millis: i64) -> Vec<SeriesPoints> {
        self.gone(unix_millis, |known| std::mem::take(&mut known.is_alive))
    }

    fn gone(&mut self, unix_millis: i64, mut has_gone: impl FnMut(&mut Known) -> bool) -> Vec<SeriesPoints> {
        let mut gone: Vec<&mut Known> = self.known.values_mut().collect();
        gone.retain_mut(|known| has_gone(known));
        gone.iter()
            .filter_map(|known| known.labels.clone())
            .map(|labels| stale(labels, unix_millis))
            .collect()
    }

    /// Series that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// The mark that a series ended.
#[must_use]
pub fn stale(labels: SeriesLabels, unix_millis: i64) -> SeriesPoints {
    float(labels, unix_millis, f64::from_bits(STALE))
}

/// One value of a series.
#[must_use]
pub fn float(labels: SeriesLabels, unix_millis: i64, value: f64) -> SeriesPoints {
    SeriesPoints {
        labels,
        created_ms: None,
        points: vec![(unix_millis, PointValue::Float(value))],
        exemplars: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::{Flavour, read};
    use super::super::labels::{LabelLimits, series_labels};
    use super::*;

    fn build(pairs: Vec<Pair<'_>>) -> Result<Option<SeriesLabels>, String> {
        if pairs.iter().any(|(name, value)| name == METRIC && value == "dropped") {
            return Ok(None);
        }
        let pairs = pairs.iter().map(|(name, value)| (Arc::from(&**name), Arc::from(&**value))).collect();
        series_labels(pairs, LabelLimits::default()).map(Some).map_err(|fault| fault.to_string())
    }

    fn page(memory: &mut Memory, unix_millis: i64, samples_max: usize, text: &str) -> Result<String, String> {
        let taking =
            Taking { unix_millis, honors_times: true, tracks_times: false, samples_max, buckets_max: 0 };
        let mut collector = Collector::new(memory, taking, &build);
        if let Err(fault) = read(text, Flavour::OpenMetrics, &mut collector) {
            drop(collector);
            let marks = memory.all_gone(unix_millis).len();
            return Err(format!("{fault}; {marks} gone"));
        }
        let collected = collector.finish();
        let mut lines: Vec<String> = collected
            .batch
            .series
            .iter()
            .map(|series| {
                let labels: Vec<&str> = series.labels.iter().map(|(_, value)| &**value).collect();
                let created = series.created_ms.map_or(String::new(), |created| format!(" since {created}"));
                match &series.points[0] {
                    (time, PointValue::Float(value)) if value.to_bits() == STALE => {
                        format!("{} gone@{time}", labels.join(","))
                    }
                    (time, PointValue::Float(value)) => {
                        format!("{} {value}@{time}{created}", labels.join(","))
                    }
                    (_, PointValue::Histogram(_)) => String::new(),
                }
            })
            .collect();
        lines.sort();
        Ok(format!(
            "{} of {}, {} new: {}",
            collected.taken,
            collected.items,
            collected.added,
            lines.join("; ")
        ))
    }

    #[test]
    fn what_goes_is_marked_once() {
        let mut memory = Memory::default();
        let mut next = |time, text: &str| page(&mut memory, time, 3, &format!("{text}# EOF\n"));
        let two = "a 1\nb{x=\"y\"} 2\ndropped 3\n";
        assert_eq!(next(10, two).as_deref(), Ok("2 of 3, 2 new: a 1@10; b,y 2@10"));
        assert_eq!(next(20, "a 1\n").as_deref(), Ok("1 of 1, 0 new: a 1@20; b,y gone@20"));
        assert_eq!(next(30, "a 1\nc 5 0.007\n").as_deref(), Ok("2 of 2, 1 new: a 1@30; c 5@7"));
        // A page that breaks off counts for nothing; c brought its own time and is not marked.
        assert_eq!(
            next(40, "a 1\n?\n"),
            Err("line 2: a value is missing behind the series; 1 gone".to_owned())
        );
        assert_eq!(next(50, "").as_deref(), Ok("0 of 0, 0 new: "));
        let many = "a 1\nb 1\nc 1\nd 1\n";
        let limit = "line 4: more than the 3 values that sample_limit allows; 0 gone";
        assert_eq!(next(60, many), Err(limit.to_owned()));
    }

    #[test]
    fn a_created_companion_says_when_its_family_began() {
        let text =
            "# TYPE a counter\na_total{x=\"1\"} 5\na_created{x=\"1\"} 0.5\na_total{x=\"2\"} 6\n# EOF\n";
        let told = page(&mut Memory::default(), 10, 0, text);
        let expected = "3 of 3, 3 new: a_created,1 0.5@10; a_total,1 5@10 since 500; a_total,2 6@10";
        assert_eq!(told.as_deref(), Ok(expected));
    }

    #[test]
    fn a_histogram_is_made_coarser_until_it_fits() {
        let held = belfry_signal::NativeHistogram {
            schema: 0,
            count: 10.0,
            positive: vec![(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)],
            ..belfry_signal::NativeHistogram::default()
        };
        let coarse = coarser(Box::new(held.clone()), 2).expect("it can be");
        assert_eq!((coarse.schema, &coarse.positive[..]), (-1, &[(1, 3.0), (2, 7.0)][..]));
        let custom = belfry_signal::NativeHistogram { schema: -53, ..held };
        assert!(coarser(Box::new(custom), 2).is_err());
    }
}
