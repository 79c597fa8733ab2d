//! One target, again and again: fetch, read, write, and say how it went.

use std::sync::Arc;
use std::time::Duration;

use belfry_signal::{MetricMetadata, SeriesBatch, SeriesPoints};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use prost::bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::client::{Answer, Client, ClientFault};
use super::config::{Job, ScrapeProtocol};
use super::now_ms;
use super::target::{Last, Target};
use crate::handle::PipelineHandle;
use crate::metrics::collect::{Collected, Collector, Memory, Taking, float};
use crate::metrics::exposition::{self, Flavour, Pair};
use crate::metrics::families::{self, Histograms};
use crate::metrics::signals::{ScrapeSignals, Scraped};

/// A scrape that begins this close to its due time is said to have begun then: even times pack better.
const TOLERANCE_MS: i64 = 2;

/// What the tasks of all targets share.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) pipeline: PipelineHandle,
    pub(super) signals: ScrapeSignals,
    pub(super) turns: Arc<Semaphore>,
    pub(super) page_bytes_max: usize,
}

/// How a task is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It goes on.
    Not,
    /// The target is gone: its series ended.
    Gone,
    /// Nobody looks any more.
    Quiet,
}

/// A target's task.
pub(super) struct Scraping {
    pub(super) job: Arc<Job>,
    pub(super) target: Arc<Target>,
    pub(super) client: Client,
    pub(super) surroundings: Surroundings,
    pub(super) ending: watch::Receiver<Ending>,
    pub(super) memory: Memory,
}

/// Why a page came to nothing.
struct Failure {
    outcome: Scraped,
    text: String,
}

impl Failure {
    fn new(outcome: Scraped, text: impl Into<String>) -> Self {
        Self { outcome, text: text.into() }
    }
}

impl Scraping {
    pub(super) async fn run(mut self) {
        let interval = self.target.interval;
        let first = due_in(&self.target.key(), interval, now_ms());
        let mut ticks = tokio::time::interval_at(Instant::now() + first, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut due_ms = now_ms() + millis(first);
        loop {
            let ending = tokio::select! {
                biased;
                ending = self.ending.wait_for(|ending| *ending != Ending::Not) => {
                    // Without a manager nobody looks any more.
                    ending.map_or(Ending::Quiet, |ending| *ending)
                }
                _ = ticks.tick() => Ending::Not,
            };
            match ending {
                Ending::Not => {}
                Ending::Gone => return self.mark_end().await,
                Ending::Quiet => return,
            }
            let late_ms = now_ms() - due_ms;
            let skipped = late_ms / millis(interval).max(1);
            if skipped > 0 {
                self.surroundings.signals.skipped(u64::try_from(skipped).unwrap_or(0));
                due_ms += skipped * millis(interval);
            }
            let Ok(turn) = Arc::clone(&self.surroundings.turns).acquire_owned().await else { return };
            let now = now_ms();
            let unix_millis = if (0..=TOLERANCE_MS).contains(&(now - due_ms)) { due_ms } else { now };
            self.scrape(unix_millis).await;
            drop(turn);
            due_ms += millis(interval);
        }
    }

    async fn scrape(&mut self, unix_millis: i64) {
        let began = Instant::now();
        let fetched = self.fetch().await;
        let fetched = match fetched {
            Ok(answer) => {
                let bytes = answer.body.len();
                self.read(&answer, unix_millis).map(|collected| (collected, bytes))
            }
            Err(failure) => Err(failure),
        };
        let took = began.elapsed();
        let (mut batch, metadata, fault) = match fetched {
            Ok((collected, bytes)) => {
                let mut batch = self.report(unix_millis, took, Some((&collected, bytes)));
                let metadata = collected.batch.metadata.clone();
                batch.splice(0..0, collected.batch.series);
                (batch, Some(metadata), None)
            }
            Err(failure) => {
                let mut batch = self.report(unix_millis, took, None);
                batch.extend(self.memory.all_gone(unix_millis));
                (batch, None, Some(failure))
            }
        };
        let metadata_news = self.news(metadata.as_deref());
        let series = std::mem::take(&mut batch);
        let written = self.surroundings.pipeline.write(SeriesBatch { series, metadata: metadata_news }).await;
        let fault = match written {
            Err(error) => Some(Failure::new(Scraped::Store, error.to_string())),
            Ok(_) => fault,
        };
        let outcome = fault.as_ref().map_or(Scraped::Good, |failure| failure.outcome);
        self.surroundings.signals.scraped(outcome, began.elapsed().as_secs_f64());
        self.target.note(Last { unix_millis, took, fault: fault.map(|failure| failure.text) }, metadata);
    }

    /// What the page says of its metrics that it did not say the last time.
    fn news(&self, metadata: Option<&[MetricMetadata]>) -> Vec<MetricMetadata> {
        let before = self.target.standing().metadata;
        let all = metadata.unwrap_or_default().iter();
        all.filter(|metric| {
            before
                .binary_search_by(|held| held.name.cmp(&metric.name))
                .map_or(true, |at| before[at] != **metric)
        })
        .cloned()
        .collect()
    }

    async fn fetch(&self) -> Result<Answer, Failure> {
        let mut headers = HeaderMap::new();
        let value =
            |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("*/*"));
        headers.insert(header::ACCEPT, value(&self.job.accept()));
        let coding = if self.job.compresses { "gzip" } else { "identity" };
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(coding));
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("belfry/", env!("CARGO_PKG_VERSION"))),
        );
        let seconds = self.target.timeout.as_secs_f64().to_string();
        headers.insert("x-prometheus-scrape-timeout-seconds", value(&seconds));
        let bytes_max = match self.job.body_bytes_max {
            0 => self.surroundings.page_bytes_max,
            own => own.min(self.surroundings.page_bytes_max),
        };
        let asking = self.client.send(Method::GET, self.target.uri.clone(), headers, Bytes::new(), bytes_max);
        let answer = match tokio::time::timeout(self.target.timeout, asking).await {
            Err(_) => {
                return Err(Failure::new(Scraped::Timeout, "context deadline exceeded: no page in time"));
            }
            Ok(Err(fault @ ClientFault::TooLong { .. })) => {
                return Err(Failure::new(Scraped::Limit, fault.to_string()));
            }
            Ok(Err(fault @ ClientFault::Coding(_))) => {
                return Err(Failure::new(Scraped::Page, fault.to_string()));
            }
            Ok(Err(fault)) => return Err(Failure::new(Scraped::Connection, fault.to_string())),
            Ok(Ok(answer)) => answer,
        };
        if answer.status != StatusCode::OK {
            let text = format!("server returned HTTP status {}", answer.status);
            return Err(Failure::new(Scraped::Status, text));
        }
        Ok(answer)
    }

    fn read(&mut self, answer: &Answer, unix_millis: i64) -> Result<Collected, Failure> {
        let content_type = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let form = form(content_type.unwrap_or_default(), self.job.fallback);
        let taking = Taking {
            unix_millis,
            honors_times: self.job.honors_times,
            tracks_times: self.job.tracks_times,
            samples_max: self.job.samples_max,
            buckets_max: self.job.buckets_max,
        };
        let (job, target) = (&self.job, &self.target);
        let build =
            |pairs: Vec<Pair<'_>>| target.series(pairs, job.honors_labels, &job.metric_rules, job.labels);
        let mut collector = Collector::new(&mut self.memory, taking, &build);
        let read = match form {
            None => {
                let histograms = Histograms { native: job.takes_native, classic_too: job.takes_classic_too };
                families::read(answer.body.clone(), histograms, &mut collector)
                    .map_err(|fault| fault.to_string())
            }
            Some(flavour) => match std::str::from_utf8(&answer.body) {
                Ok(text) => {
                    exposition::read(text, flavour, &mut collector).map_err(|fault| fault.to_string())
                }
                Err(_) => Err("the page is not UTF-8".to_owned()),
            },
        };
        match read {
            Ok(()) => Ok(collector.finish()),
            Err(text) => Err(Failure::new(Scraped::Page, text)),
        }
    }

    /// The series that tell about the scrape itself.
    fn report(
        &self,
        unix_millis: i64,
        took: Duration,
        good: Option<(&Collected, usize)>,
    ) -> Vec<SeriesPoints> {
        let (items, taken, added) =
            good.map_or((0, 0, 0), |(collected, _)| (collected.items, collected.taken, collected.added));
        let mut values = vec![
            ("up", if good.is_some() { 1.0 } else { 0.0 }),
            ("scrape_duration_seconds", took.as_secs_f64()),
            ("scrape_samples_scraped", items as f64),
            ("scrape_samples_post_metric_relabeling", taken as f64),
            ("scrape_series_added", added as f64),
        ];
        if self.job.has_extra_metrics {
            values.extend([
                ("scrape_timeout_seconds", self.target.timeout.as_secs_f64()),
                ("scrape_sample_limit", self.job.samples_max as f64),
                ("scrape_body_size_bytes", good.map_or(0.0, |(_, bytes)| bytes as f64)),
            ]);
        }
        let point = |(metric, value): (&str, f64)| {
            self.target.own_series(metric).map(|labels| float(labels, unix_millis, value))
        };
        values.into_iter().filter_map(point).collect()
    }

    /// The target is gone: its series ended, those about the scrapes too.
    async fn mark_end(&mut self) {
        let now = now_ms();
        let mut series = self.memory.all_gone(now);
        let stale = f64::from_bits(0x7ff0_0000_0000_0002);
        series.extend(
            self.report(now, Duration::ZERO, None).into_iter().map(|own| float(own.labels, now, stale)),
        );
        // A failing disk is told by the log; nobody waits for these.
        let _written = self.surroundings.pipeline.write(SeriesBatch { series, metadata: Vec::new() }).await;
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// How long until a target's place within the interval: the same after every start.
fn due_in(key: &str, interval: Duration, now_ms: i64) -> Duration {
    let interval_ms = millis(interval).max(1);
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |held, byte| {
        (held ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let place = i64::try_from(hash >> 1).unwrap_or(0) % interval_ms;
    let wait = (place - now_ms).rem_euclid(interval_ms);
    Duration::from_millis(u64::try_from(wait).unwrap_or(0))
}

/// The form of a page by its `Content-Type`; none is protobuf.
fn form(content_type: &str, fallback: Option<ScrapeProtocol>) -> Option<Flavour> {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    match media {
        "application/vnd.google.protobuf" => None,
        "application/openmetrics-text" => Some(Flavour::OpenMetrics),
        "text/plain" => Some(Flavour::Prometheus),
        _ => match fallback {
            Some(ScrapeProtocol::PrometheusProto) => None,
            Some(ScrapeProtocol::OpenMetricsText100 | ScrapeProtocol::OpenMetricsText001) => {
                Some(Flavour::OpenMetrics)
            }
            _ => Some(Flavour::Prometheus),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_keep_their_places_and_are_spread() {
        let interval = Duration::from_secs(15);
        let place = |key: &str, now| (now + millis(due_in(key, interval, now))).rem_euclid(15_000);
        assert_eq!(place("a", 1_000_000), place("a", 9_999_999));
        let places: std::collections::BTreeSet<i64> =
            (0..1000).map(|number| place(&format!("http://host-{number}:9100/metrics"), 0) / 1000).collect();
        assert_eq!(places.len(), 15, "every second has some");
    }
}
