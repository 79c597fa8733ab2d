//! Reading: searches, calls and traces over live buffers and splits.
//!
//! A reader is cheap to clone and never waits for the writer. Its methods read files and take milliseconds; async
//! callers run them where blocking is allowed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use belfry_signal::record::{Body, Call, Quality, SipMessage};
use belfry_signal::{Pii, Record, TraceId};
use memchr::memmem::Finder;

use crate::blocks::unpack_one;
use crate::error::Error;
use crate::facts::{RecordKind, call_key, trace_id};
use crate::filter::trace_key;
use crate::live::Snapshot;
use crate::query::evaluate::matches_record;
use crate::query::{Expr, Keyword, Word, parse};
use crate::signals::{Outcome, Question};
use crate::split::{Hit, Split, TimeRange};
use crate::store::Store;
use crate::view::{CallFilter, CallRow, CallView, Found, LogLine, LogQuery, Stamped, Timeline, TraceView};
use crate::words::Phrase;

/// Reads the store of events.
#[derive(Clone)]
pub struct EventsReader {
    store: Arc<Store>,
}

/// For questions that nobody cancels.
const NEVER: &dyn Fn() -> bool = &|| false;

/// What one condition found.
#[derive(Debug, Default)]
struct Gathered {
    /// Newest first.
    hits: Vec<Hit>,
    has_more: bool,
    splits_read: usize,
    splits_damaged: usize,
}

impl EventsReader {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Records that meet the search, newest first.
    ///
    /// # Errors
    /// [`Error::BadQuery`] with the place of the mistake. Damaged splits are counted in the answer, not errors.
    pub fn search(&self, query: &LogQuery) -> Result<Found<LogLine>, Error> {
        self.counted(Question::Search, |reader| {
            let mut expr = parse(&query.text, reader.store.config.search_text_bytes_max)?;
            if let Some(least) = query.severity_min {
                expr = expr.and(Expr::severity_at_least(least));
            }
            if !query.kinds.is_empty() {
                expr = expr.and(Expr::Kind(query.kinds.clone()));
            }
            let range = range(query.from_nanos, query.to_nanos);
            let gathered = reader.gather(&expr, &range, None, reader.limit(query.limit), NEVER);
            Ok(gathered.into_found(|hit| Some(LogLine { sequence: hit.sequence, record: hit.record })))
        })
    }

    /// Calls that ended, newest first.
    ///
    /// # Errors
    /// [`Error::BadQuery`] when the filter's text has a mistake.
    pub fn calls(&self, filter: &CallFilter) -> Result<Found<CallRow>, Error> {
        self.counted(Question::Calls, |reader| {
            let mut parts = vec![Expr::Kind(vec![RecordKind::Call])];
            if let Some(outcome) = &filter.outcome {
                parts.push(Expr::Attribute("call.outcome".to_owned(), Phrase::of(outcome, false)));
            }
            if let Some(region) = &filter.region {
                let word = Word { text: region.to_lowercase(), is_prefix: false };
                parts.push(Expr::Keyword(Keyword::Region, word));
            }
            parts.extend(filter.trace_id.map(Expr::Trace));
            match parse(&filter.text, reader.store.config.search_text_bytes_max)? {
                Expr::All => {}
                more => parts.push(more),
            }
            let range = range(filter.from_nanos, filter.to_nanos);
            let key = filter.trace_id.map(|trace_id| trace_key(&trace_id.0));
            let gathered = reader.gather(&Expr::And(parts), &range, key, reader.limit(filter.limit), NEVER);
            Ok(gathered.into_found(|hit| match &hit.record.body {
                Body::Call(call) => Some(CallRow { end_unix_nanos: hit.unix_nanos, call: Call::clone(call) }),
                _ => None,
            }))
        })
    }

    /// Everything about the call with this Call-ID, or `None` when nothing is known.
    ///
    /// # Errors
    /// When the store fails as a whole; damaged splits are counted in the answer.
    pub fn call(&self, wanted: &str) -> Result<Option<CallView>, Error> {
        let found = self.counted(Question::Call, |reader| {
            let max = reader.store.config.call_records_max;
            let key = call_key(wanted);
            let mut gathered =
                reader.gather(&Expr::Call(wanted.to_owned()), &TimeRange::ALL, Some(key), max, NEVER);
            let trace_id = gathered.hits.iter().find_map(|hit| match &hit.record.body {
                // Only these belong to the call's own trace for certain.
                Body::Sip(_) | Body::Quality(_) | Body::Call(_) => trace_id(&hit.record.body),
                Body::Log(_) | Body::Span(_) => None,
            });
            if let Some(trace_id) = trace_id {
                let key = trace_key(&trace_id.0);
                let of_trace = reader.gather(&Expr::Trace(trace_id), &TimeRange::ALL, Some(key), max, NEVER);
                gathered.add(of_trace, max);
            }
            Ok(gathered.into_found(|hit| Some((trace_id, hit))))
        })?;
        let trace_id = found.rows.first().and_then(|(trace_id, _)| *trace_id);
        if found.rows.is_empty() {
            return Ok(None);
        }
        let (calls, timeline) = timeline(found.map(|(_, hit)| hit));
        let summary = calls.into_iter().rev().find(|call| call.call_id.reveal() == wanted);
        Ok(Some(CallView { call_id: Pii::new(wanted.to_owned()), trace_id, summary, timeline }))
    }

    /// Everything in the trace, or `None` when nothing is known.
    ///
    /// # Errors
    /// When the store fails as a whole; damaged splits are counted in the answer.
    pub fn trace(&self, trace_id: TraceId) -> Result<Option<TraceView>, Error> {
        let found = self.counted(Question::Trace, |reader| {
            let max = reader.store.config.call_records_max;
            let key = trace_key(&trace_id.0);
            let gathered = reader.gather(&Expr::Trace(trace_id), &TimeRange::ALL, Some(key), max, NEVER);
            Ok(gathered.into_found(Some))
        })?;
        if found.rows.is_empty() {
            return Ok(None);
        }
        let (calls, timeline) = timeline(found);
        Ok(Some(TraceView { trace_id, calls, timeline }))
    }

    /// The quality windows of the call with this Call-ID, newest first; no call, no windows. It ends early, with what was
    /// found so far, when it is cancelled.
    ///
    /// # Errors
    /// When the store fails as a whole; damaged splits are counted in the answer.
    pub fn quality(
        &self,
        wanted: &str,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Found<Stamped<Quality>>, Error> {
        self.of_call(wanted, RecordKind::Quality, is_cancelled, |body| match body {
            Body::Quality(quality) => Some(quality),
            _ => None,
        })
    }

    /// The SIP messages of the call with this Call-ID, as [`quality`](Self::quality) gives its windows.
    ///
    /// # Errors
    /// When the store fails as a whole; damaged splits are counted in the answer.
    pub fn messages(
        &self,
        wanted: &str,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Found<Stamped<SipMessage>>, Error> {
        self.of_call(wanted, RecordKind::Sip, is_cancelled, |body| match body {
            Body::Sip(message) => Some(message),
            _ => None,
        })
    }

    fn of_call<T>(
        &self,
        wanted: &str,
        kind: RecordKind,
        is_cancelled: &dyn Fn() -> bool,
        value: impl Fn(Body) -> Option<T>,
    ) -> Result<Found<Stamped<T>>, Error> {
        self.counted(Question::Curve, |reader| {
            let expr = Expr::And(vec![Expr::Call(wanted.to_owned()), Expr::Kind(vec![kind])]);
            let (key, max) = (call_key(wanted), reader.store.config.call_records_max);
            let gathered = reader.gather(&expr, &TimeRange::ALL, Some(key), max, is_cancelled);
            Ok(gathered.into_found(|hit| {
                let Record { unix_nanos, component, body } = Arc::unwrap_or_clone(hit.record);
                Some(Stamped { unix_nanos, component, value: value(body)? })
            }))
        })
    }

    fn limit(&self, wanted: usize) -> usize {
        wanted.clamp(1, self.store.config.search_rows_max)
    }

    fn counted<T>(
        &self,
        question: Question,
        answer: impl FnOnce(&Self) -> Result<Found<T>, Error>,
    ) -> Result<Found<T>, Error> {
        let started = Instant::now();
        let answered = answer(self);
        let outcome = match &answered {
            Ok(found) if found.splits_damaged == 0 => Outcome::Complete,
            Ok(_) => Outcome::Partial,
            Err(Error::BadQuery(_)) => Outcome::BadQuery,
            Err(_) => Outcome::Failed,
        };
        self.store.signals.query_ended(question, outcome, started.elapsed());
        answered
    }

    /// The newest records that meet the condition, from live buffers and from every split that may hold one.
    fn gather(
        &self,
        expr: &Expr,
        range: &TimeRange,
        key: Option<u64>,
        limit: usize,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Gathered {
        let Snapshot { batches, mut splits } = self.store.live.snapshot();
        let text_bytes_max = self.store.config.record_text_bytes_max;
        let mut gathered = Gathered::default();
        // One more than is asked for, to know whether there are more.
        let wanted = limit + 1;
        let needle = expr.needle().map(Finder::new);
        for batch in batches.iter().rev() {
            let oldest = gathered.time_of_last(wanted).unwrap_or(0);
            for (stub, bytes) in batch.records.iter() {
                let may_matter = range.holds(stub.unix_nanos) && stub.unix_nanos >= oldest;
                if !may_matter || needle.as_ref().is_some_and(|needle| needle.find(bytes).is_none()) {
                    continue;
                }
                // They were packed in this process a moment ago.
                let Ok((sequence, record)) = unpack_one(bytes) else { continue };
                if matches_record(expr, &record, text_bytes_max) {
                    let record = Arc::new(record);
                    gathered.hits.push(Hit { unix_nanos: stub.unix_nanos, sequence, record });
                }
            }
            if gathered.hits.len() > wanted {
                gathered.keep_newest(wanted);
            }
        }
        gathered.keep_newest(wanted);
        splits.retain(|split| split.may_hold(range, key, expr));
        splits.sort_by_key(|split| std::cmp::Reverse(split.row.to_nanos));
        for split in splits {
            if is_cancelled() {
                break;
            }
            // Once there are enough, only what is newer than the last of them can still matter.
            let from_nanos = gathered.time_of_last(wanted).unwrap_or(0).max(range.from_nanos);
            let range = TimeRange { from_nanos, ..*range };
            if !range.meets(split.row.from_nanos, split.row.to_nanos) {
                continue;
            }
            if split.is_damaged() {
                gathered.splits_damaged += 1;
                continue;
            }
            self.read_split(&split, expr, &range, wanted, &mut gathered);
            gathered.keep_newest(wanted);
        }
        gathered.has_more = gathered.hits.len() > limit;
        gathered.keep_newest(limit);
        gathered
    }

    /// A split that was replaced meanwhile can still be read: its file goes with its last reader.
    fn read_split(
        &self,
        split: &Split,
        expr: &Expr,
        range: &TimeRange,
        limit: usize,
        gathered: &mut Gathered,
    ) {
        let store = &self.store;
        let text_bytes_max = store.config.record_text_bytes_max;
        match split.search(&store.open, &store.fields, expr, range, limit, text_bytes_max) {
            Ok(hits) => {
                gathered.splits_read += 1;
                gathered.hits.extend(hits);
            }
            Err(error) => {
                gathered.splits_damaged += 1;
                let damage = if matches!(error, Error::Damaged { .. }) {
                    Err(error)
                } else {
                    split.verify().map(|()| error)
                };
                match damage {
                    Err(damage) => store.found_damaged(split, &damage),
                    Ok(error) => store.signals.split_unreadable(split.row.id, &error),
                }
            }
        }
    }
}

impl std::fmt::Debug for EventsReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventsReader")
            .field("directory", &self.store.config.directory)
            .finish_non_exhaustive()
    }
}

impl Gathered {
    fn keep_newest(&mut self, limit: usize) {
        self.hits.sort_by_key(|hit| std::cmp::Reverse((hit.unix_nanos, hit.sequence)));
        self.hits.truncate(limit);
    }

    /// The time of the last of enough hits.
    fn time_of_last(&self, limit: usize) -> Option<u64> {
        self.hits.get(limit.checked_sub(1)?).map(|hit| hit.unix_nanos)
    }

    /// Adds what another condition found, without doubles.
    fn add(&mut self, other: Self, limit: usize) {
        let known: HashSet<u64> = self.hits.iter().map(|hit| hit.sequence).collect();
        self.hits.extend(other.hits.into_iter().filter(|hit| !known.contains(&hit.sequence)));
        self.has_more |= other.has_more || self.hits.len() > limit;
        self.splits_read += other.splits_read;
        self.splits_damaged = self.splits_damaged.max(other.splits_damaged);
        self.keep_newest(limit);
    }

    fn into_found<T>(self, row: impl Fn(Hit) -> Option<T>) -> Found<T> {
        Found {
            rows: self.hits.into_iter().filter_map(row).collect(),
            has_more: self.has_more,
            splits_read: self.splits_read,
            splits_damaged: self.splits_damaged,
        }
    }
}

impl<T> Found<T> {
    fn map<U>(self, row: impl Fn(T) -> U) -> Found<U> {
        let Self { rows, has_more, splits_read, splits_damaged } = self;
        Found { rows: rows.into_iter().map(row).collect(), has_more, splits_read, splits_damaged }
    }
}

fn range(from_nanos: Option<u64>, to_nanos: Option<u64>) -> TimeRange {
    TimeRange { from_nanos: from_nanos.unwrap_or(0), to_nanos: to_nanos.unwrap_or(u64::MAX) }
}

/// Sorts records by kind, oldest first, and keeps the calls apart.
fn timeline(found: Found<Hit>) -> (Vec<Call>, Timeline) {
    let mut calls = Vec::new();
    let mut timeline =
        Timeline { is_cut: found.has_more, splits_damaged: found.splits_damaged, ..Timeline::default() };
    for hit in found.rows.into_iter().rev() {
        let record = Arc::unwrap_or_clone(hit.record);
        let (unix_nanos, component) = (record.unix_nanos, record.component);
        match record.body {
            Body::Log(value) => timeline.logs.push(Stamped { unix_nanos, component, value }),
            Body::Span(value) => timeline.spans.push(Stamped { unix_nanos, component, value }),
            Body::Sip(value) => timeline.messages.push(Stamped { unix_nanos, component, value }),
            Body::Quality(value) => timeline.quality.push(Stamped { unix_nanos, component, value }),
            Body::Call(call) => calls.push(*call),
        }
    }
    timeline.spans.sort_by_key(|span| span.value.start_unix_nanos);
    (calls, timeline)
}
