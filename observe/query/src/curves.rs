//! What single calls knew of their sound over time, as series of PromQL.
//!
//! `rtp_jitter_seconds{call_id="..."}` is read from the call's quality windows in the store of events when a query names
//! the call. It never enters the index of series, where each call would stay for as long as metrics are kept. It is for
//! people who may look at calls: rules, federation, remote read and what is sent on have no source like this.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use belfry_events::{EventsReader, Found, Stamped};
use belfry_promql::{
    Error, Labels, METRIC_NAME, MatchOp, Matcher, Purpose, Selected, Series, SeriesData, stale_marker,
};
use belfry_signal::record::{Quality, SipMessage};

use crate::json::loss_ratio;

mod codec;

/// The label that names the call.
pub(crate) const CALL_ID: &str = "call_id";
/// Windows after which a leg of which nothing more is heard has ended.
const QUIET_WINDOWS: f64 = 2.5;
/// Bytes of a Call-ID; SIP messages with longer ones are refused at the edge.
const CALL_ID_BYTES_MAX: usize = 1024;

/// What is known of each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    Jitter,
    LossRatio,
    LostPackets,
    Packets,
    RoundTrip,
    Mos,
    RFactor,
    Window,
}

impl Curve {
    pub(crate) const ALL: [Self; 8] = [
        Self::Jitter,
        Self::LossRatio,
        Self::LostPackets,
        Self::Packets,
        Self::RoundTrip,
        Self::Mos,
        Self::RFactor,
        Self::Window,
    ];

    /// Its name after `rtp_`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Jitter => "jitter_seconds",
            Self::LossRatio => "loss_ratio",
            Self::LostPackets => "lost_packets",
            Self::Packets => "packets",
            Self::RoundTrip => "round_trip_seconds",
            Self::Mos => "mos",
            Self::RFactor => "r_factor",
            Self::Window => "window_seconds",
        }
    }

    /// One sentence.
    pub(crate) fn help(self) -> &'static str {
        match self {
            Self::Jitter => "Interarrival jitter of one call at the end of each window, by leg.",
            Self::LossRatio => {
                "Packets of one call that were lost, of those expected in each window, by leg."
            }
            Self::LostPackets => "Packets of one call that were lost in each window, by leg.",
            Self::Packets => "Packets of one call that came in each window, by leg.",
            Self::RoundTrip => "Round trip to a leg of one call, in each window.",
            Self::Mos => "Listening score (MOS-LQ) of one call in each window, by leg.",
            Self::RFactor => "Transmission rating of one call in each window, by leg.",
            Self::Window => "Length of the windows of one call, by leg.",
        }
    }

    /// The metric's whole name.
    pub(crate) fn metric(self) -> String {
        format!("rtp_{}", self.name())
    }

    #[expect(clippy::cast_precision_loss, reason = "packets of one window")]
    fn value(self, window: &Quality) -> Option<f64> {
        match self {
            Self::Jitter => Some(window.jitter_ms / 1000.0),
            Self::LossRatio => Some(loss_ratio(window.packets, window.lost)),
            Self::LostPackets => Some(window.lost as f64),
            Self::Packets => Some(window.packets as f64),
            Self::RoundTrip => window.rtt_ms.map(|millis| millis / 1000.0),
            Self::Mos => window.mos,
            Self::RFactor => window.r_factor,
            Self::Window => Some(window.window_seconds),
        }
    }
}

/// What a selector wants of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing.
    Nothing,
    /// A curve by its name, but of no call in particular: the name.
    NoCall(String),
    /// Whatever the matchers let through of these calls.
    Calls(BTreeSet<String>),
}

impl Wanted {
    /// What these matchers want.
    pub(crate) fn of(matchers: &[Matcher]) -> Self {
        let names = || matchers.iter().filter(|matcher| matcher.name == METRIC_NAME);
        let fits = |curve: &Curve| names().all(|matcher| matcher.matches(&curve.metric()));
        let Some(first) = Curve::ALL.iter().find(|curve| fits(curve)) else { return Self::Nothing };
        let calls = matchers.iter().filter(|matcher| matcher.name == CALL_ID).find_map(named);
        match calls {
            Some(calls) => Self::Calls(calls),
            None if names().any(|matcher| matcher.op == MatchOp::Equal) => Self::NoCall(first.metric()),
            None => Self::Nothing,
        }
    }
}

/// What to do about a curve of no call in particular.
pub(crate) fn advice(metric: &str) -> String {
    format!(
        "{metric} is read from calls, each by its name: write {metric}{{call_id=\"...\"}} \
         or {metric}{{call_id=~\"one|other\"}}; the calls are at /api/v1/calls"
    )
}

/// The calls that a matcher names one by one.
fn named(matcher: &Matcher) -> Option<BTreeSet<String>> {
    let calls = match matcher.op {
        MatchOp::Equal => BTreeSet::from([matcher.value.clone()]),
        MatchOp::Regex => alternatives(&matcher.value)?,
        MatchOp::NotEqual | MatchOp::NotRegex => return None,
    };
    let is_call_id = |call_id: &String| (1..=CALL_ID_BYTES_MAX).contains(&call_id.len());
    calls.iter().all(is_call_id).then_some(calls)
}

/// The texts of a pattern that is nothing but texts with bars between them, as Grafana writes variables of many values.
fn alternatives(pattern: &str) -> Option<BTreeSet<String>> {
    let inner = pattern.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(pattern);
    let (mut found, mut text) = (BTreeSet::new(), String::new());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.push(letters.next().filter(|escaped| !escaped.is_alphanumeric())?),
            '|' => drop(found.insert(std::mem::take(&mut text))),
            '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            plain => text.push(plain),
        }
    }
    found.insert(text);
    Some(found)
}

/// The stores for one query of a person: series, and beside them the curves of the calls that it names.
pub(crate) struct CallSource<'a, S> {
    series: S,
    events: &'a EventsReader,
    cancel: &'a AtomicBool,
    calls_max: usize,
    known: RefCell<Known>,
}

/// What was read so far.
#[derive(Debug, Default)]
struct Known {
    calls: BTreeMap<String, Arc<Vec<SeriesData>>>,
    remarks: BTreeSet<&'static str>,
}

impl<'a, S: Series> CallSource<'a, S> {
    pub(crate) fn new(series: S, events: &'a EventsReader, cancel: &'a AtomicBool, calls_max: usize) -> Self {
        Self { series, events, cancel, calls_max, known: RefCell::default() }
    }

    /// How many calls were read, and what should be known of them.
    pub(crate) fn into_remarks(self) -> (usize, Vec<String>) {
        let known = self.known.into_inner();
        (known.calls.len(), known.remarks.into_iter().map(str::to_owned).collect())
    }

    /// The curves of the calls that pass the matchers, with their points in the time.
    pub(crate) fn curves(
        &self,
        calls: &BTreeSet<String>,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<SeriesData>, Error> {
        let mut found = Vec::new();
        for call_id in calls {
            for curve in self.call(call_id)?.iter() {
                if !matchers.iter().all(|matcher| matcher.matches_labels(&curve.labels)) {
                    continue;
                }
                let from = curve.floats.partition_point(|(time, _)| *time < from_ms);
                let to = curve.floats.partition_point(|(time, _)| *time <= to_ms);
                if from < to {
                    let floats = curve.floats[from..to].to_vec();
                    found.push(SeriesData { labels: curve.labels.clone(), floats, histograms: Vec::new() });
                }
            }
        }
        Ok(found)
    }

    /// All curves of one call, read once in a query.
    fn call(&self, call_id: &str) -> Result<Arc<Vec<SeriesData>>, Error> {
        if let Some(known) = self.known.borrow().calls.get(call_id) {
            return Ok(Arc::clone(known));
        }
        if self.known.borrow().calls.len() >= self.calls_max {
            return Err(Error::Execution(format!(
                "the query names more than {} calls: ask for fewer, or raise calls_max of [observe.query]",
                self.calls_max
            )));
        }
        let is_cancelled = || self.cancel.load(Ordering::Relaxed);
        let fault = |error: belfry_events::Error| Error::Source(error.to_string());
        let windows = self.events.quality(call_id, &is_cancelled).map_err(fault)?;
        let needs_offers = windows.rows.iter().any(|window| codec::is_dynamic(&window.value));
        let messages = if needs_offers {
            self.events.messages(call_id, &is_cancelled).map_err(fault)?.rows
        } else {
            Vec::new()
        };
        if is_cancelled() {
            return Err(Error::Cancelled);
        }
        let mut known = self.known.borrow_mut();
        if windows.has_more {
            known
                .remarks
                .insert("the oldest windows of a call are left out: it has more than call_records_max");
        }
        if windows.splits_damaged > 0 {
            known
                .remarks
                .insert("a part of the store of events is damaged: windows of a call may be missing");
        }
        let curves = Arc::new(curves(call_id, &windows, &messages));
        known.calls.insert(call_id.to_owned(), Arc::clone(&curves));
        Ok(curves)
    }
}

impl<S: Series> Series for CallSource<'_, S> {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error> {
        let mut found = self.series.select(matchers, from_ms, to_ms)?;
        match Wanted::of(matchers) {
            // Somebody may scrape series of that name.
            Wanted::NoCall(metric) if found.is_empty() => return Err(Error::Execution(advice(&metric))),
            Wanted::Nothing | Wanted::NoCall(_) => {}
            Wanted::Calls(calls) => {
                let held: BTreeSet<Labels> = found.iter().map(|series| series.labels.clone()).collect();
                let curves = self.curves(&calls, matchers, from_ms, to_ms)?;
                found.extend(curves.into_iter().filter(|curve| !held.contains(&curve.labels)));
            }
        }
        Ok(found)
    }

    /// What no call is asked for is the store's to choose.
    fn select_for(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
        purpose: &Purpose,
    ) -> Result<Selected, Error> {
        match Wanted::of(matchers) {
            Wanted::Nothing => self.series.select_for(matchers, from_ms, to_ms, purpose),
            Wanted::NoCall(_) | Wanted::Calls(_) => {
                self.select(matchers, from_ms, to_ms).map(Selected::Samples)
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.series.warnings()
    }
}

/// The curves of one call by leg and codec, with a mark where one ends.
fn curves(
    call_id: &str,
    windows: &Found<Stamped<Quality>>,
    messages: &[Stamped<SipMessage>],
) -> Vec<SeriesData> {
    let mut by_labels: BTreeMap<Labels, Vec<(i64, f64, i64)>> = BTreeMap::new();
    // They come newest first.
    for window in windows.rows.iter().rev() {
        let quality = &window.value;
        let payload_type = quality.payload_type.map(|number| number.to_string()).unwrap_or_default();
        let codec = codec::name(quality, messages).unwrap_or_default();
        let at_ms = i64::try_from(window.unix_nanos / 1_000_000).unwrap_or(i64::MAX);
        #[expect(clippy::cast_possible_truncation, reason = "a window is seconds long")]
        let quiet_ms = (quality.window_seconds * 1000.0 * QUIET_WINDOWS).clamp(1.0, 3_600_000.0) as i64;
        for curve in Curve::ALL {
            let Some(value) = curve.value(quality) else { continue };
            let metric = curve.metric();
            let labels = Labels::from_pairs([
                (METRIC_NAME, metric.as_str()),
                (CALL_ID, call_id),
                ("leg", quality.leg.as_ref()),
                ("region", quality.region.as_str()),
                ("codec", codec.as_ref()),
                ("payload_type", payload_type.as_str()),
            ]);
            by_labels.entry(labels).or_default().push((at_ms, value, quiet_ms));
        }
    }
    let series = by_labels.into_iter().map(|(labels, mut points)| {
        points.sort_by_key(|(at_ms, ..)| *at_ms);
        let mut floats: Vec<(i64, f64)> = Vec::with_capacity(points.len() + 1);
        for (place, (at_ms, value, quiet_ms)) in points.iter().enumerate() {
            match floats.last_mut() {
                Some(last) if last.0 == *at_ms => last.1 = *value,
                _ => floats.push((*at_ms, *value)),
            }
            let silent_at = at_ms.saturating_add(*quiet_ms);
            if points.get(place + 1).is_none_or(|(next_ms, ..)| *next_ms > silent_at) {
                floats.push((silent_at, stale_marker()));
            }
        }
        SeriesData { labels, floats, histograms: Vec::new() }
    });
    series.collect()
}

#[cfg(test)]
mod tests;
