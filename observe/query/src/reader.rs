//! The reader: asks the stores where blocking is allowed, and not too often at once.

use std::sync::Arc;
use std::time::Duration;

use belfry_events::{CallFilter, CallRow, CallView, EventsReader, Found, LogLine, LogQuery, TraceView};
use belfry_series::{Matcher, SeriesData, SeriesReader};
use belfry_signal::TraceId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// Questions that are answered at the same time; more would only slow each other down.
const QUESTIONS_MAX: usize = 4;
/// How long a question waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// Answers questions about events and series. Cheap to clone; clones share the bound on questions at once.
#[derive(Clone, Debug)]
pub struct Reader {
    events: EventsReader,
    series: SeriesReader,
    turns: Arc<Semaphore>,
}

impl Reader {
    /// A reader of these stores.
    #[must_use]
    pub fn new(events: EventsReader, series: SeriesReader) -> Self {
        Self { events, series, turns: Arc::new(Semaphore::new(QUESTIONS_MAX)) }
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
        let stores = self.clone();
        let answered = tokio::task::spawn_blocking(move || {
            // The turn lasts as long as the work, even when the one who asked has gone.
            let _turn = turn;
            question(&stores)
        });
        answered.await.map_err(|_| Error::Stopping)
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        match tokio::time::timeout(TURN_WAIT, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(turn) => turn.map_err(|_| Error::Stopping),
            Err(_) => Err(Error::Busy),
        }
    }
}
