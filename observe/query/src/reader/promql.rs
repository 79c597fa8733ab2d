//! Queries in PromQL for people: over series and the curves of the calls that they name, bounded, timed, and told of when
//! they are slow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use belfry_promql::{Answer, Labels, Matcher, Options, Plan, Times};
use belfry_series::PromqlSource;

use super::{RaiseOnDrop, Reader};
use crate::curves::{CallSource, Wanted};
use crate::error::Error;
use crate::signals::{Ended, Outcome, Signals};

/// The step of a subquery that names none: the usual distance of samples here and in Prometheus.
const SUBQUERY_STEP_MS: i64 = 60_000;

/// A query in PromQL.
#[derive(Clone, Debug)]
pub struct PromqlQuery {
    /// The query.
    pub text: String,
    /// When it is evaluated.
    pub times: Times,
    /// How long a sample counts as current.
    pub lookback: Duration,
    /// When it is given up; the configuration's bound counts as well.
    pub timeout: Duration,
    /// Whether the answer says what each part of the query cost.
    pub explain: bool,
}

impl PromqlQuery {
    /// How long a sample counts as current, unless a query says otherwise; as in Prometheus.
    pub const LOOKBACK: Duration = Duration::from_mins(5);

    /// A query with the usual bounds.
    #[must_use]
    pub fn new(text: impl Into<String>, times: Times) -> Self {
        Self { text: text.into(), times, lookback: Self::LOOKBACK, timeout: Duration::MAX, explain: false }
    }

    /// From its first to its last time.
    fn span(&self) -> Duration {
        match self.times {
            Times::Instant(_) => Duration::ZERO,
            Times::Range { start_ms, end_ms, .. } => Duration::from_millis(end_ms.abs_diff(start_ms)),
        }
    }
}

/// What became of a query.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub(crate) answer: Answer,
    /// What should be known of the answer beside the engine's own remarks.
    pub(crate) remarks: Vec<String>,
    /// Whether it holds what was known of single calls.
    pub(crate) has_calls: bool,
    /// What each part cost, if it was asked for.
    pub(crate) plan: Option<Plan>,
}

/// Keeps the account of one query, whatever becomes of it.
struct Account {
    signals: Signals,
    text: String,
    span: Duration,
    began: Instant,
    slow_after: Duration,
    slow_text_bytes_max: usize,
    samples: Arc<AtomicUsize>,
    /// Who leaves says nothing.
    outcome: Outcome,
}

impl Drop for Account {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let samples = self.samples.load(Ordering::Relaxed);
        let ended = Ended { text: &self.text, outcome: self.outcome, took, samples, span: self.span };
        self.signals.ended(&ended, took >= self.slow_after, self.slow_text_bytes_max);
    }
}

impl Reader {
    /// The answer to a query in PromQL. It is worked on only as long as the future lives.
    ///
    /// # Errors
    /// [`Error::Promql`] when it does not parse, has no result, or asks for too much; [`Error::Timeout`];
    /// [`Error::Busy`].
    pub async fn evaluate(&self, query: PromqlQuery) -> Result<Answer, Error> {
        self.evaluate_then(query, |evaluated| evaluated.answer).await
    }

    /// As [`evaluate`](Self::evaluate), with the answer put to use where blocking is allowed.
    pub(crate) async fn evaluate_then<T: Send + 'static>(
        &self,
        query: PromqlQuery,
        then: impl FnOnce(Evaluated) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let mut account = Account {
            signals: self.signals.clone(),
            text: query.text.clone(),
            span: query.span(),
            began: Instant::now(),
            slow_after: self.config.slow_after,
            slow_text_bytes_max: self.config.slow_text_bytes_max,
            samples: Arc::new(AtomicUsize::new(0)),
            outcome: Outcome::Left,
        };
        let samples = Arc::clone(&account.samples);
        let evaluated = self.evaluate_counted(query, samples, then).await;
        account.outcome = evaluated.as_ref().map_or_else(outcome, |_| Outcome::Answered);
        evaluated
    }

    async fn evaluate_counted<T: Send + 'static>(
        &self,
        query: PromqlQuery,
        samples: Arc<AtomicUsize>,
        then: impl FnOnce(Evaluated) -> T + Send + 'static,
    ) -> Result<T, Error> {
        // What does not parse need not wait for its turn.
        let expr = belfry_promql::parse(&query.text)?;
        let cancel = Arc::new(AtomicBool::new(false));
        let _given_up = RaiseOnDrop(Arc::clone(&cancel));
        let PromqlQuery { text, times, lookback, timeout, explain } = query;
        let timeout = timeout.min(self.config.timeout_max);
        let options = Options {
            lookback_ms: i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX),
            samples_max: self.config.samples_max,
            subquery_step_ms: SUBQUERY_STEP_MS,
            experimental: self.has_experimental,
        };
        let asking = self.ask(move |stores| -> Result<T, Error> {
            let series = PromqlSource::new(&stores.series, &cancel);
            let source = CallSource::new(series, &stores.events, &cancel, stores.config.calls_max);
            let (answer, plan) = if explain {
                let began = Instant::now();
                let clock = || began.elapsed().as_secs_f64();
                let explained = (text.as_str(), &expr);
                let (answer, plan) =
                    belfry_promql::explain(explained, &source, times, &options, &cancel, &clock)?;
                (answer, Some(plan))
            } else {
                (belfry_promql::query_expr(&text, &expr, &source, times, &options, &cancel)?, None)
            };
            samples.store(answer.samples, Ordering::Relaxed);
            let (calls, remarks) = source.into_remarks();
            stores.signals.calls_read(calls);
            Ok(then(Evaluated { answer, remarks, has_calls: calls > 0, plan }))
        });
        match tokio::time::timeout(timeout, asking).await {
            Ok(answered) => answered?,
            Err(_) => Err(Error::Timeout { timeout }),
        }
    }

    /// The labels of the curves that any of the selectors finds in calls that it names, and what should be known of them.
    ///
    /// # Errors
    /// [`Error::Promql`] when they name too many calls; [`Error::Busy`].
    pub(crate) async fn curve_labels(
        &self,
        selectors: Vec<Vec<Matcher>>,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<(BTreeSet<Labels>, Vec<String>), Error> {
        let cancel = Arc::new(AtomicBool::new(false));
        let _given_up = RaiseOnDrop(Arc::clone(&cancel));
        let asking = self.ask(move |stores| {
            let none = belfry_promql::MemorySeries::new();
            let source = CallSource::new(none, &stores.events, &cancel, stores.config.calls_max);
            let mut found = BTreeSet::new();
            for matchers in &selectors {
                if let Wanted::Calls(calls) = Wanted::of(matchers) {
                    let curves = source.curves(&calls, matchers, from_ms, to_ms)?;
                    found.extend(curves.into_iter().map(|curve| curve.labels));
                }
            }
            let (calls, remarks) = source.into_remarks();
            stores.signals.calls_read(calls);
            Ok::<_, belfry_promql::Error>((found, remarks))
        });
        Ok(asking.await??)
    }
}

fn outcome(error: &Error) -> Outcome {
    use belfry_promql::Error as Query;
    match error {
        Error::Promql(Query::TooManySamples { .. }) | Error::Busy => Outcome::TooMuch,
        Error::Promql(Query::Parse { .. } | Query::Execution(_)) => Outcome::Refused,
        Error::Promql(Query::Cancelled) => Outcome::Left,
        Error::Timeout { .. } => Outcome::TimedOut,
        Error::Promql(Query::Source(_)) | Error::Series(_) | Error::Events(_) | Error::Stopping => {
            Outcome::Failed
        }
        Error::BadRequest { .. } | Error::NotFound { .. } => Outcome::Refused,
    }
}
