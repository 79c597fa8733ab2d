//! The reader: asks the stores where blocking is allowed, and not too often at once.

mod promql;

pub(crate) use promql::Evaluated;
pub use promql::PromqlQuery;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belfry_events::{CallFilter, CallRow, CallView, EventsReader, Found, LogLine, LogQuery, TraceView};
use belfry_series::{Matcher, PromqlSource, SeriesData, SeriesExemplars, SeriesReader, Top};
use belfry_signal::{MetricMetadata, Registry, TraceId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::error::Error;
use crate::signals::Signals;

/// How long a question waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// Answers questions about events and series. Cheap to clone; clones share the bound on questions at once.
#[derive(Clone, Debug)]
pub struct Reader {
    events: EventsReader,
    series: SeriesReader,
    turns: Arc<Semaphore>,
    config: Arc<Config>,
    signals: Signals,
    has_experimental: bool,
}

/// A selection of series in a time, both ends inclusive, in milliseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub(crate) struct ReadQuestion {
    pub(crate) matchers: Vec<belfry_promql::Matcher>,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

/// Tells a query that nobody waits for it any more.
pub(crate) struct RaiseOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Reader {
    /// A reader of these stores, which tells of itself in `registry`.
    #[must_use]
    pub fn new(events: EventsReader, series: SeriesReader, config: Config, registry: &Registry) -> Self {
        let turns = Arc::new(Semaphore::new(config.questions_max));
        let signals = Signals::register(registry);
        Self { events, series, turns, config: Arc::new(config), signals, has_experimental: false }
    }

    /// Its bounds.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same reader, with the experimental parts of PromQL or without them.
    #[must_use]
    pub fn with_experimental_promql(self, has_experimental: bool) -> Self {
        Self { has_experimental, ..self }
    }

    /// Records that meet a search, newest first.
    ///
    /// # Errors
    /// A bad search text with the place of the mistake; [`Error::Busy`].
    pub async fn search(&self, query: LogQuery) -> Result<Found<LogLine>, Error> {
        Ok(self.ask(move |stores| stores.events.search(&query)).await??)
    }

    /// Calls that ended, newest first.
    ///
    /// # Errors
    /// A bad text in the filter; [`Error::Busy`].
    pub async fn calls(&self, filter: CallFilter) -> Result<Found<CallRow>, Error> {
        Ok(self.ask(move |stores| stores.events.calls(&filter)).await??)
    }

    /// Everything about one call.
    ///
    /// # Errors
    /// [`Error::Busy`], or when the store fails as a whole.
    pub async fn call(&self, call_id: String) -> Result<Option<CallView>, Error> {
        Ok(self.ask(move |stores| stores.events.call(&call_id)).await??)
    }

    /// Everything in one trace.
    ///
    /// # Errors
    /// [`Error::Busy`], or when the store fails as a whole.
    pub async fn trace(&self, trace_id: TraceId) -> Result<Option<TraceView>, Error> {
        Ok(self.ask(move |stores| stores.events.trace(trace_id)).await??)
    }

    /// Series that satisfy every matcher, with their points from `from_ms` to `to_ms` inclusive, in milliseconds since
    /// the Unix epoch.
    ///
    /// # Errors
    /// When more points would be read than one query may; [`Error::Busy`].
    pub async fn select(
        &self,
        matchers: Vec<Matcher>,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<SeriesData>, Error> {
        Ok(self.ask(move |stores| stores.series.select(&matchers, from_ms, to_ms)).await??)
    }

    /// All points of the series that some questions select, histograms among them, put to use where blocking is allowed.
    /// It is worked on only as long as the future lives.
    pub(crate) async fn read_then<T: Send + 'static>(
        &self,
        questions: Vec<ReadQuestion>,
        then: impl FnOnce(Vec<Vec<belfry_promql::SeriesData>>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let cancel = Arc::new(AtomicBool::new(false));
        let _given_up = RaiseOnDrop(Arc::clone(&cancel));
        let answered = self.ask(move |stores| {
            let source = PromqlSource::new(&stores.series, &cancel);
            let one = |question: &ReadQuestion| {
                belfry_promql::Series::select(&source, &question.matchers, question.from_ms, question.to_ms)
            };
            questions.iter().map(one).collect::<Result<Vec<_>, _>>().map(then)
        });
        Ok(answered.await??)
    }

    /// How long series are kept.
    #[must_use]
    pub fn retention(&self) -> Duration {
        self.series.retention()
    }

    /// The labels of the series that satisfy every matcher of one list at least and may have points from `from_ms` to
    /// `to_ms`, sorted, at most `series_max` of each list.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub async fn label_sets(
        &self,
        matchers: Vec<Vec<Matcher>>,
        from_ms: i64,
        to_ms: i64,
        series_max: usize,
    ) -> Result<Vec<Vec<(String, String)>>, Error> {
        self.ask(move |stores| {
            let mut sets: Vec<_> = matchers
                .iter()
                .flat_map(|list| stores.series.label_sets(list, from_ms, to_ms, series_max))
                .collect();
            sets.sort();
            sets.dedup();
            sets
        })
        .await
    }

    /// The names of all labels, sorted.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub async fn label_names(&self) -> Result<Vec<String>, Error> {
        self.ask(|stores| stores.series.label_names()).await
    }

    /// The values of one label, sorted.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub async fn label_values(&self, name: String) -> Result<Vec<String>, Error> {
        self.ask(move |stores| stores.series.label_values(&name)).await
    }

    /// The exemplars of the series that satisfy every matcher of one list at least, from `from_ms` to `to_ms` inclusive.
    ///
    /// # Errors
    /// [`Error::Busy`], or when the store fails as a whole.
    pub async fn exemplars(
        &self,
        matchers: Vec<Vec<Matcher>>,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<SeriesExemplars>, Error> {
        self.ask(move |stores| {
            let mut all = Vec::new();
            for list in &matchers {
                all.extend(stores.series.exemplars(list, from_ms, to_ms)?);
            }
            all.sort_by(|a, b| a.labels.cmp(&b.labels));
            all.dedup_by(|a, b| a.labels == b.labels);
            Ok(all)
        })
        .await?
    }

    /// What the series in memory cost: the `limit` largest of each kind.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub async fn top(&self, limit: usize) -> Result<Top, Error> {
        self.ask(move |stores| stores.series.top(limit)).await
    }

    /// What is known about metrics that others brought.
    #[must_use]
    pub fn metadata(&self) -> Vec<MetricMetadata> {
        self.series.metadata()
    }

    /// Series that are alive now.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.series.series_count()
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let turn = self.turn().await?;
        let is_ended = Arc::new(AtomicBool::new(false));
        let _given_up = RaiseOnDrop(Arc::clone(&is_ended));
        let stores = Self { series: self.series.until(is_ended), ..self.clone() };
        let answered = tokio::task::spawn_blocking(move || {
            // The turn lasts as long as the work, even when the one who asked has gone.
            let _turn = turn;
            question(&stores)
        });
        let timeout = self.config.timeout_max;
        match tokio::time::timeout(timeout, answered).await {
            Ok(answered) => answered.map_err(|_| Error::Stopping),
            Err(_) => Err(Error::Timeout { timeout }),
        }
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        match tokio::time::timeout(TURN_WAIT, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(turn) => turn.map_err(|_| Error::Stopping),
            Err(_) => {
                self.signals.busy();
                Err(Error::Busy)
            }
        }
    }
}
