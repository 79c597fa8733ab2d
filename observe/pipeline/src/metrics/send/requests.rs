//! Requests to the other store: rounds of them, each tried until it is answered for good.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belfry_signal::SeriesBatch;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use prost::bytes::Bytes;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Settings;
use super::queue::{Queue, Taken};
use crate::metrics::remote_write::{Protocol, encode};
use crate::metrics::scrape::{Client, now_ms};
use crate::metrics::signals::{SendSignals, Sent};

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Characters of an answer that are told.
const ANSWER_CHARS_MAX: usize = 300;
/// The longest that the other store may make us wait at a time.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// The task that sends.
pub(super) struct Requests {
    settings: Arc<Settings>,
    client: Client,
    queue: Arc<Queue>,
    signals: SendSignals,
    /// Whether the other store said that it does not take 2.0.
    takes_only_v1: Arc<AtomicBool>,
    is_failing: Arc<AtomicBool>,
    is_refusing: Arc<AtomicBool>,
}

/// What an answer means.
enum Verdict {
    Taken,
    /// Never again: what is wrong.
    Refused(String),
    /// Again, after this at least.
    Later(String, Option<Duration>),
    /// Again at once, in 1.0.
    Older,
}

impl Requests {
    pub(super) fn new(settings: Settings, queue: Arc<Queue>, signals: SendSignals) -> Result<Self, String> {
        Ok(Self {
            client: Client::new(settings.http.clone())?,
            settings: Arc::new(settings),
            queue,
            signals,
            takes_only_v1: Arc::default(),
            is_failing: Arc::default(),
            is_refusing: Arc::default(),
        })
    }

    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let this = Arc::new(self);
        tokio::select! {
            // Whoever held the other end is gone.
            _ = stop.wait_for(|stops| *stops) => {}
            () = Arc::clone(&this).rounds() => {}
        }
    }

    async fn rounds(self: Arc<Self>) {
        loop {
            self.gather().await;
            let settings = &self.settings;
            let taken = self.queue.take(settings.batch_points_max.saturating_mul(settings.requests_max));
            if taken.is_empty() {
                continue;
            }
            let positions: Vec<u64> = taken.iter().map(|taken| taken.position).collect();
            let parts = parts(taken, settings.batch_points_max, settings.requests_max, self.oldest_ms());
            let sending = parts.into_iter().map(|part| Arc::clone(&self).deliver(part));
            futures_util::future::join_all(sending).await;
            self.queue.finish(&positions);
        }
    }

    /// Waits until there is something, and a little longer for company unless there is enough.
    async fn gather(&self) {
        while self.queue.points() == 0 {
            self.queue.news().await;
        }
        let wait = Instant::now() + self.settings.batch_wait;
        while self.queue.points() < self.settings.batch_points_max {
            if tokio::time::timeout_at(wait, self.queue.news()).await.is_err() {
                return;
            }
        }
    }

    fn oldest_ms(&self) -> Option<i64> {
        let age_max = self.settings.age_max?;
        Some(now_ms() - i64::try_from(age_max.as_millis()).unwrap_or(i64::MAX))
    }

    /// Sends one batch until it is answered for good.
    async fn deliver(self: Arc<Self>, batch: SeriesBatch) {
        let mut pause = self.settings.pause_min;
        loop {
            let fixed = self.settings.protocol;
            let older = self.takes_only_v1.load(Ordering::Relaxed).then_some(Protocol::V1);
            let protocol = fixed.or(older).unwrap_or(Protocol::V2);
            let began = Instant::now();
            let verdict = self.ask(protocol, &batch).await;
            self.signals.answered(began.elapsed().as_secs_f64());
            match verdict {
                Verdict::Taken => {
                    if self.is_failing.swap(false, Ordering::Relaxed) {
                        self.signals.recovered();
                    }
                    return self.signals.sent(Sent::Sent, batch.points() as u64);
                }
                Verdict::Refused(fault) => {
                    let was_refusing = self.is_refusing.swap(true, Ordering::Relaxed);
                    return self.signals.refused(batch.points() as u64, &fault, !was_refusing);
                }
                Verdict::Older => self.takes_only_v1.store(true, Ordering::Relaxed),
                Verdict::Later(fault, after) => {
                    let was_failing = self.is_failing.swap(true, Ordering::Relaxed);
                    self.signals.failed(&fault, !was_failing);
                    // A little apart, so that all senders do not come back at once.
                    let spread = pause.mul_f64(rand::rng().random_range(0.5..1.0));
                    tokio::time::sleep(after.unwrap_or(spread).max(spread)).await;
                    pause = (pause * 2).min(self.settings.pause_max);
                }
            }
        }
    }

    async fn ask(&self, protocol: Protocol, batch: &SeriesBatch) -> Verdict {
        let mut headers: HeaderMap = self.settings.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(protocol.content_type()));
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        headers.insert("x-prometheus-remote-write-version", HeaderValue::from_static(protocol.version()));
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("belfry/", env!("CARGO_PKG_VERSION"))),
        );
        let body = Bytes::from(encode(protocol, batch));
        let url = self.settings.url.clone();
        let asking = self.client.send(Method::POST, url, headers, body, ANSWER_BYTES_MAX);
        let answer = match tokio::time::timeout(self.settings.timeout, asking).await {
            Err(_) => return Verdict::Later("no answer in time".to_owned(), None),
            Ok(Err(fault)) => return Verdict::Later(fault.to_string(), None),
            Ok(Ok(answer)) => answer,
        };
        let can_be_older = protocol == Protocol::V2 && self.settings.protocol.is_none();
        let counts = answer.headers.contains_key("x-prometheus-remote-write-samples-written");
        judge(answer.status, &answer.headers, &answer.body, can_be_older, counts)
    }
}

/// The rules of the specification of 2.0; a store of 1.0 that is given 2.0 answers 415, 400, or takes nothing and says
/// nothing of counts.
fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    can_be_older: bool,
    has_counts: bool,
) -> Verdict {
    let text: String = String::from_utf8_lossy(body).trim().chars().take(ANSWER_CHARS_MAX).collect();
    let fault = format!("{status}: {text}");
    let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    match status.as_u16() {
        415 if can_be_older => Verdict::Older,
        400 | 200..=299 if can_be_older && !has_counts => Verdict::Older,
        200..=299 => Verdict::Taken,
        429 | 500..=599 => Verdict::Later(fault, after),
        // What is wrong with who we are is mended by a person, and nothing needs to be lost until then.
        401 | 403 | 404 | 407 | 408 => Verdict::Later(fault, after),
        _ => Verdict::Refused(fault),
    }
}

/// The series of some entries in as many parts as there is work for, each series in one of them.
fn parts(taken: Vec<Taken>, points_max: usize, parts_max: usize, oldest_ms: Option<i64>) -> Vec<SeriesBatch> {
    let points: usize = taken.iter().map(|taken| taken.batch.points()).sum();
    let count = points.div_ceil(points_max.max(1)).clamp(1, parts_max.max(1));
    let mut parts: Vec<SeriesBatch> = vec![SeriesBatch::default(); count];
    let mut places: Vec<BTreeMap<belfry_signal::SeriesLabels, usize>> = vec![BTreeMap::new(); count];
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let (metadata, series): (Vec<_>, Vec<_>) =
        taken.into_iter().map(|taken| (taken.batch.metadata, taken.batch.series)).unzip();
    parts[0].metadata = metadata.into_iter().flatten().collect();
    for mut series in series.into_iter().flatten() {
        if let Some(oldest_ms) = oldest_ms {
            series.points.retain(|(time, _)| *time >= oldest_ms);
        }
        if series.points.is_empty() && series.exemplars.is_empty() {
            continue;
        }
        let number = usize::try_from(hasher.hash_one(&series.labels) % count as u64).unwrap_or(0);
        let part = &mut parts[number];
        // Points of one series from several entries are one series of the request.
        match places[number].get(&series.labels).and_then(|place| part.series.get_mut(*place)) {
            Some(held) if held.created_ms == series.created_ms => {
                held.points.append(&mut series.points);
                held.exemplars.append(&mut series.exemplars);
            }
            _ => {
                places[number].insert(Arc::clone(&series.labels), part.series.len());
                part.series.push(series);
            }
        }
    }
    parts.retain(|part| !part.series.is_empty() || !part.metadata.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::collect::float;

    #[test]
    fn a_series_is_in_one_part_and_in_order() {
        let labels = |number: usize| -> belfry_signal::SeriesLabels {
            [("__name__".into(), format!("m{number}").into())].into()
        };
        let entry = |position: u64| {
            let time = i64::try_from(position).expect("small");
            let series = (0..100).map(|number| float(labels(number), time, 1.0)).collect();
            Taken { position, batch: SeriesBatch { series, metadata: Vec::new() } }
        };
        let split = parts((1..=4).map(entry).collect(), 100, 3, Some(2));
        assert_eq!(split.len(), 3);
        let mut seen = 0;
        for part in &split {
            for series in &part.series {
                seen += 1;
                let times: Vec<i64> = series.points.iter().map(|(time, _)| *time).collect();
                assert_eq!(times, [2, 3, 4], "the first is too old");
            }
        }
        assert_eq!(seen, 100);
    }

    #[test]
    fn answers_mean_what_the_specification_says() {
        let check = |status: u16, can_be_older, has_counts, expected: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
            let told = match judge(status, &headers, b"why\n", can_be_older, has_counts) {
                Verdict::Taken => "taken".to_owned(),
                Verdict::Refused(fault) => format!("refused {fault}"),
                Verdict::Later(_, after) => format!("later {after:?}"),
                Verdict::Older => "older".to_owned(),
            };
            assert_eq!(told, expected, "{status}");
        };
        check(204, true, true, "taken");
        check(204, true, false, "older");
        check(204, false, false, "taken");
        check(415, true, false, "older");
        check(415, false, false, "refused 415 Unsupported Media Type: why");
        check(400, true, false, "older");
        check(400, true, true, "refused 400 Bad Request: why");
        check(429, true, true, "later Some(7s)");
        check(503, false, false, "later Some(7s)");
        check(401, false, false, "later Some(7s)");
    }
}
