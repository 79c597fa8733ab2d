//! What is stored is sent on, by remote write 2.0, or 1.0 where the other store does not take that.
//!
//! The queue is the log itself: a sender is one more store of the pipeline, given every entry after its fsync, and its
//! checkpoint is the position up to which the other store has everything. What does not fit in memory is refused for now
//! and comes again from the log; a restart goes on at the checkpoint. What is lost is lost only when the log reaches its
//! bound, which the pipeline counts.
//!
//! Requests go out side by side, as many as there is work for, up to a bound; a series is in one of them only, so its
//! points arrive in order.

mod queue;
mod requests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use belfry_signal::{Registry, Sample, SeriesBatch, SeriesPoints};
use tokio::sync::watch;

use self::queue::{Queue, Taken};
use self::requests::Requests;
use super::labels::{LabelLimits, METRIC, series_labels};
use super::relabel::{self, LabelMap, Rule};
use super::remote_write::Protocol;
use super::scrape::HttpConfig;
use super::scrape::config::{FileConfig, RemoteWriteConfig};
use super::signals::{SendSignals, Sent};
use crate::error::StoreError;
use crate::store::{Entry, Store, numbered};

/// Bytes of points that wait in memory; what does not fit waits in the log.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// How often the checkpoint is written to disk.
const SAVE_EVERY_MS: i64 = 1000;

/// Where to send, and how.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) url: http::Uri,
    pub(crate) http: HttpConfig,
    pub(crate) headers: http::HeaderMap,
    /// None: whatever the other store takes.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) timeout: Duration,
    pub(crate) batch_points_max: usize,
    pub(crate) requests_max: usize,
    pub(crate) batch_wait: Duration,
    pub(crate) pause_min: Duration,
    pub(crate) pause_max: Duration,
    pub(crate) age_max: Option<Duration>,
    pub(crate) sends_exemplars: bool,
    pub(crate) sends_histograms: bool,
}

/// A sender as a store of the pipeline. Dropping it ends its task.
#[derive(Debug)]
pub struct Sender {
    name: &'static str,
    queue: Arc<Queue>,
    rules: Vec<Rule>,
    external: BTreeMap<String, String>,
    sends_exemplars: bool,
    sends_histograms: bool,
    signals: SendSignals,
    checkpoint_file: PathBuf,
    saved: u64,
    saved_ms: i64,
    _stop: watch::Sender<bool>,
}

/// The senders that a file names, each with its checkpoint in `directory`. Needs a runtime, on which requests are made.
///
/// # Errors
/// What is wrong with the file, or why a checkpoint cannot be read.
pub fn senders(file: &Path, directory: &Path, registry: &Registry) -> Result<Vec<Sender>, String> {
    let (config, _) = FileConfig::load(file)?;
    let base = file.parent().unwrap_or(Path::new(""));
    if config.remote_write.len() > NAMES.len() {
        return Err(format!("more than {} remote_write", NAMES.len()));
    }
    let signals = SendSignals::register(registry);
    let external = &config.global.external_labels;
    let all = config.remote_write.iter().zip(NAMES);
    all.map(|(remote, name)| Sender::start(&remote.value, base, external, directory, name, signals.clone()))
        .collect()
}

/// Names of stores are a closed set: they are labels.
const NAMES: [&str; 4] = ["remote1", "remote2", "remote3", "remote4"];

fn settings(config: &RemoteWriteConfig, base: &Path) -> Result<Settings, String> {
    let mut headers = http::HeaderMap::new();
    for (name, value) in &config.headers {
        let fault = || format!("the header {name:?} of remote_write cannot be one");
        let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| fault())?;
        let mut value: http::HeaderValue = value.parse().map_err(|_| fault())?;
        // A key of the other store, as likely as not.
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let queue = &config.queue_config;
    let span = |own: Option<super::scrape::config::Span>, usual: Duration| own.map_or(usual, |span| span.0);
    Ok(Settings {
        url: config.url.parse().map_err(|_| format!("{:?} is not a URL", config.url))?,
        http: config.http(base),
        headers,
        protocol: config.protocol()?,
        timeout: span(config.remote_timeout, Duration::from_secs(30)),
        batch_points_max: queue.max_samples_per_send.unwrap_or(2000).max(1),
        requests_max: queue.max_shards.unwrap_or(16).clamp(1, 200),
        batch_wait: span(queue.batch_send_deadline, Duration::from_secs(5)),
        pause_min: span(queue.min_backoff, Duration::from_millis(30)).max(Duration::from_millis(1)),
        pause_max: span(queue.max_backoff, Duration::from_secs(5)),
        age_max: queue.sample_age_limit.map(|span| span.0),
        sends_exemplars: config.send_exemplars.unwrap_or(true),
        sends_histograms: config.send_native_histograms.unwrap_or(true),
    })
}

impl Sender {
    fn start(
        config: &RemoteWriteConfig,
        base: &Path,
        external: &BTreeMap<String, String>,
        directory: &Path,
        name: &'static str,
        signals: SendSignals,
    ) -> Result<Self, String> {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        // Another destination has nothing of what this one has, so each has a file of its own.
        let known_as = config.name.clone().unwrap_or_else(|| config.url.clone());
        let checkpoint_file = directory.join(format!("{}.position", file_name(&known_as)));
        let saved = read_checkpoint(&checkpoint_file)?;
        let settings = settings(config, base)?;
        let (sends_exemplars, sends_histograms) = (settings.sends_exemplars, settings.sends_histograms);
        let queue = Arc::new(Queue::new(saved.unwrap_or(0), WAITING_BYTES_MAX, signals.clone()));
        let (stop, is_stopped) = watch::channel(false);
        let requests = Requests::new(settings, Arc::clone(&queue), signals.clone())?;
        tokio::spawn(requests.run(is_stopped));
        Ok(Self {
            name,
            queue,
            rules: config.rules()?,
            external: external.clone(),
            sends_exemplars,
            sends_histograms,
            signals,
            checkpoint_file,
            saved: saved.unwrap_or(0),
            saved_ms: 0,
            _stop: stop,
        })
    }

    /// The points of an entry as they are sent.
    fn outgoing(&self, entry: &Entry) -> SeriesBatch {
        match entry {
            Entry::Record(_) => SeriesBatch::default(),
            Entry::Samples { unix_millis, samples } => {
                let series = samples.iter().filter_map(|sample| self.own(*unix_millis, sample)).collect();
                SeriesBatch { series, metadata: Vec::new() }
            }
            Entry::Series(batch) => {
                let series = batch.series.iter().filter_map(|series| self.foreign(series)).collect();
                SeriesBatch { series, metadata: batch.metadata.clone() }
            }
        }
    }

    fn own(&self, unix_millis: i64, sample: &Sample) -> Option<SeriesPoints> {
        let pairs = sample.labels.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let mut labels: LabelMap = pairs.filter(|(_, value)| !value.is_empty()).collect();
        labels.insert(METRIC.to_owned(), sample.name.to_string());
        let labels = self.relabelled(labels, 1)?;
        Some(super::collect::float(labels, unix_millis, sample.value))
    }

    fn foreign(&self, series: &SeriesPoints) -> Option<SeriesPoints> {
        let is_float =
            |value: &belfry_signal::PointValue| matches!(value, belfry_signal::PointValue::Float(_));
        let mut points = series.points.clone();
        if !self.sends_histograms {
            points.retain(|(_, value)| is_float(value));
        }
        let labels = if self.rules.is_empty() && self.external.is_empty() {
            Arc::clone(&series.labels)
        } else {
            let pairs = series.labels.iter().map(|(name, value)| (name.to_string(), value.to_string()));
            self.relabelled(pairs.collect(), points.len())?
        };
        let exemplars = if self.sends_exemplars { series.exemplars.clone() } else { Vec::new() };
        Some(SeriesPoints { labels, created_ms: series.created_ms, points, exemplars })
    }

    fn relabelled(&self, mut labels: LabelMap, points: usize) -> Option<belfry_signal::SeriesLabels> {
        for (name, value) in &self.external {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let is_kept = relabel::apply(&self.rules, &mut labels);
        let pairs = labels.iter().map(|(name, value)| (Arc::from(name.as_str()), Arc::from(value.as_str())));
        let made = is_kept.then(|| series_labels(pairs.collect(), LabelLimits::default()).ok()).flatten();
        if made.is_none() {
            self.signals.sent(Sent::Dropped, points as u64);
        }
        made
    }

    fn save(&mut self) -> std::io::Result<()> {
        let position = self.queue.done();
        if position == self.saved {
            return Ok(());
        }
        let beside = self.checkpoint_file.with_extension("new");
        std::fs::write(&beside, position.to_string())?;
        std::fs::File::open(&beside)?.sync_all()?;
        std::fs::rename(&beside, &self.checkpoint_file)?;
        self.saved = position;
        Ok(())
    }
}

impl Store for Sender {
    fn name(&self) -> &'static str {
        self.name
    }

    fn apply(&mut self, position: u64, entries: &[Entry]) -> Result<(), StoreError> {
        if !self.queue.has_room() {
            return Err(StoreError::later());
        }
        // One refusal refuses them all, so once begun all of them are taken: a batch is bounded, and so is what it adds.
        for (position, entry) in numbered(position, entries) {
            let batch = self.outgoing(entry);
            self.queue.put(Taken { position, batch });
        }
        Ok(())
    }

    /// What the other store has, as far as it is noted on disk.
    fn checkpoint(&self) -> u64 {
        self.saved
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.save().map_err(|error| StoreError::new("disk", error.to_string()).but_taken())
    }

    fn tick(&mut self, unix_millis: i64) {
        if unix_millis - self.saved_ms >= SAVE_EVERY_MS {
            self.saved_ms = unix_millis;
            // Noted too late costs points that are sent twice, which the other store knows.
            let _saved = self.save();
        }
    }
}

/// A name that can be a file's.
fn file_name(text: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    let mut name: String = text.chars().map(plain).take(80).collect();
    let hash = crc32c::crc32c(text.as_bytes());
    name.push_str(&format!("-{hash:08x}"));
    name
}

fn read_checkpoint(path: &Path) -> Result<Option<u64>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}
