//! The parts of a `prometheus.yml` that are taken: `global`, `scrape_configs`, `remote_write`.
//!
//! Names, defaults and meanings are those of
//! <https://prometheus.io/docs/prometheus/latest/configuration/configuration/>. What is not known is refused with its
//! place, because a setting without effect is worse than none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_saphyr::Spanned;

use super::client::{Authorization, BasicAuth, HttpConfig, TlsConfig};
use crate::metrics::relabel::{Rule, RuleConfig};
use crate::metrics::remote_write::Protocol;

/// A duration as Prometheus writes it: `1h30m`, `15s`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

const UNITS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
    ("y", 31_536_000_000),
];

impl Span {
    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut millis = 0_u64;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
            millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(*scale)?)?;
            rest = after;
        }
        (!text.is_empty()).then(|| Self(Duration::from_millis(millis)))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in UNITS.iter().rev() {
            let is_short = !matches!(*unit, "y" | "w" | "d");
            // A number of weeks is written as such only when it is whole, as Prometheus does.
            if millis >= *scale && (is_short || millis.is_multiple_of(*scale)) {
                write!(f, "{}{unit}", millis / scale)?;
                millis %= scale;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is no duration, as 1m30s is one")))
    }
}

/// A size as `10MB`; zero is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub usize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim().trim_end_matches("iB").trim_end_matches('B') {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            _ => return Err(D::Error::custom(format!("{text:?} is no size, as 10MB is one"))),
        };
        let size = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
        size.map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is no size, as 10MB is one")))
    }
}

/// A form of exposition that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ScrapeProtocol {
    /// Protobuf, the only one with native histograms.
    PrometheusProto,
    /// OpenMetrics 1.0.
    #[serde(rename = "OpenMetricsText1.0.0")]
    OpenMetricsText100,
    /// OpenMetrics before 1.0.
    #[serde(rename = "OpenMetricsText0.0.1")]
    OpenMetricsText001,
    /// Prometheus' text with quoted names.
    #[serde(rename = "PrometheusText1.0.0")]
    PrometheusText100,
    /// Prometheus' text.
    #[serde(rename = "PrometheusText0.0.4")]
    PrometheusText004,
}

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Defaults of all jobs.
    #[serde(default)]
    pub global: GlobalConfig,
    /// Jobs.
    #[serde(default)]
    pub scrape_configs: Vec<Spanned<ScrapeConfig>>,
    /// Where what is stored is sent on.
    #[serde(default)]
    pub remote_write: Vec<Spanned<RemoteWriteConfig>>,
}

/// `global`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalConfig {
    scrape_interval: Option<Span>,
    scrape_timeout: Option<Span>,
    scrape_protocols: Option<Vec<ScrapeProtocol>>,
    scrape_native_histograms: Option<bool>,
    always_scrape_classic_histograms: Option<bool>,
    extra_scrape_metrics: Option<bool>,
    body_size_limit: Option<Size>,
    sample_limit: Option<usize>,
    label_limit: Option<usize>,
    label_name_length_limit: Option<usize>,
    label_value_length_limit: Option<usize>,
    target_limit: Option<usize>,
    keep_dropped_targets: Option<usize>,
    /// How often rules are evaluated: a matter of the rules' own file here.
    #[serde(rename = "evaluation_interval")]
    _evaluation_interval: Option<Span>,
    /// Labels that everything gets that is sent to others.
    #[serde(default)]
    pub external_labels: BTreeMap<String, String>,
}

/// One of `scrape_configs`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrapeConfig {
    job_name: String,
    scrape_interval: Option<Span>,
    scrape_timeout: Option<Span>,
    scrape_protocols: Option<Vec<ScrapeProtocol>>,
    scrape_fallback_protocol: Option<ScrapeProtocol>,
    scrape_native_histograms: Option<bool>,
    #[serde(alias = "scrape_classic_histograms")]
    always_scrape_classic_histograms: Option<bool>,
    extra_scrape_metrics: Option<bool>,
    metrics_path: Option<String>,
    #[serde(default)]
    honor_labels: bool,
    honor_timestamps: Option<bool>,
    #[serde(default)]
    track_timestamps_staleness: bool,
    scheme: Option<String>,
    #[serde(default)]
    params: BTreeMap<String, Vec<String>>,
    enable_compression: Option<bool>,
    basic_auth: Option<BasicAuth>,
    authorization: Option<Authorization>,
    tls_config: Option<TlsConfig>,
    follow_redirects: Option<bool>,
    #[serde(default)]
    static_configs: Vec<StaticConfig>,
    #[serde(default)]
    file_sd_configs: Vec<FileDiscovery>,
    #[serde(default)]
    dns_sd_configs: Vec<DnsDiscovery>,
    #[serde(default)]
    mesh_sd_configs: Vec<MeshDiscovery>,
    #[serde(default)]
    relabel_configs: Vec<Spanned<RuleConfig>>,
    #[serde(default)]
    metric_relabel_configs: Vec<Spanned<RuleConfig>>,
    body_size_limit: Option<Size>,
    sample_limit: Option<usize>,
    label_limit: Option<usize>,
    label_name_length_limit: Option<usize>,
    label_value_length_limit: Option<usize>,
    target_limit: Option<usize>,
    keep_dropped_targets: Option<usize>,
    native_histogram_bucket_limit: Option<usize>,
}

/// One of `static_configs`, and an entry of a file of targets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticConfig {
    /// `host:port`
    #[serde(default)]
    pub targets: Vec<String>,
    /// Labels of all of them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// One of `file_sd_configs`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDiscovery {
    /// Paths; the last part may hold `*`.
    pub files: Vec<PathBuf>,
    /// Files are looked at every few seconds whatever this says, and read when they changed.
    #[serde(rename = "refresh_interval")]
    _refresh_interval: Option<Span>,
}

/// One of `dns_sd_configs`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsDiscovery {
    /// Names that are asked for.
    pub names: Vec<String>,
    /// Which records.
    #[serde(default, rename = "type")]
    pub kind: DnsKind,
    /// The port, when records have none.
    pub port: Option<u16>,
    /// How often.
    pub refresh_interval: Option<Span>,
}

/// Which records are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsKind {
    /// With ports.
    #[default]
    Srv,
    /// Addresses.
    A,
    /// Addresses of IPv6.
    Aaaa,
    /// Mail servers.
    Mx,
    /// Name servers.
    Ns,
}

/// One of `mesh_sd_configs`, which only Belfry has: the other nodes of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshDiscovery {
    /// Where their metrics are.
    pub port: u16,
    /// How often the mesh is looked at.
    pub refresh_interval: Option<Span>,
}

/// A job, checked.
#[derive(Clone, Debug)]
pub struct Job {
    pub(super) name: String,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) protocols: Vec<ScrapeProtocol>,
    pub(super) fallback: Option<ScrapeProtocol>,
    pub(super) takes_native: bool,
    pub(super) takes_classic_too: bool,
    pub(super) has_extra_metrics: bool,
    pub(super) path: String,
    pub(super) honors_labels: bool,
    pub(super) honors_times: bool,
    pub(super) tracks_times: bool,
    pub(super) compresses: bool,
    pub(super) scheme: String,
    pub(super) params: BTreeMap<String, Vec<String>>,
    pub(super) http: HttpConfig,
    pub(super) statics: Vec<StaticConfig>,
    pub(super) files: Vec<FileDiscovery>,
    pub(super) dns: Vec<DnsDiscovery>,
    pub(super) mesh: Vec<MeshDiscovery>,
    pub(super) rules: Vec<Rule>,
    pub(super) metric_rules: Vec<Rule>,
    pub(super) body_bytes_max: usize,
    pub(super) samples_max: usize,
    pub(super) labels: crate::metrics::labels::LabelLimits,
    pub(super) targets_max: usize,
    pub(super) dropped_kept_max: usize,
    pub(super) buckets_max: usize,
    /// Paths in the file are relative to its directory.
    pub(super) directory: PathBuf,
}

/// The queue's settings that have a meaning here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueConfig {
    /// Points of one request.
    pub max_samples_per_send: Option<usize>,
    /// Requests under way at once.
    pub max_shards: Option<usize>,
    /// How long a point waits for company.
    pub batch_send_deadline: Option<Span>,
    /// The first pause after a failure.
    pub min_backoff: Option<Span>,
    /// The longest.
    pub max_backoff: Option<Span>,
    /// Whether 429 is tried again; here it always is, as 2.0 recommends.
    #[serde(rename = "retry_on_http_429")]
    _retry_on_http_429: Option<bool>,
    /// Of no meaning here: what does not fit in memory waits in the log, and requests are as many as there is work.
    #[serde(rename = "capacity")]
    _capacity: Option<usize>,
    #[serde(rename = "min_shards")]
    _min_shards: Option<usize>,
    /// Points older than this are not sent any more.
    pub sample_age_limit: Option<Span>,
}

/// One of `remote_write`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteWriteConfig {
    /// Where to.
    pub url: String,
    /// What it is called; the place of its checkpoint.
    pub name: Option<String>,
    /// How long a request may take.
    pub remote_timeout: Option<Span>,
    /// Which message; without it 2.0, and 1.0 when the other store does not take that.
    pub protobuf_message: Option<String>,
    /// More headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    write_relabel_configs: Vec<Spanned<RuleConfig>>,
    /// Whether exemplars go too.
    pub send_exemplars: Option<bool>,
    /// Whether native histograms go too.
    pub send_native_histograms: Option<bool>,
    basic_auth: Option<BasicAuth>,
    authorization: Option<Authorization>,
    tls_config: Option<TlsConfig>,
    follow_redirects: Option<bool>,
    /// Batches, pauses.
    #[serde(default)]
    pub queue_config: QueueConfig,
}

impl RemoteWriteConfig {
    /// How its requests are made.
    #[must_use]
    pub(crate) fn http(&self, directory: &Path) -> HttpConfig {
        HttpConfig {
            basic_auth: self.basic_auth.clone(),
            authorization: self.authorization.clone(),
            tls: self.tls_config.clone().unwrap_or_default(),
            follows_redirects: self.follow_redirects.unwrap_or(true),
            directory: directory.to_owned(),
        }
    }

    /// Its rules, ready.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn rules(&self) -> Result<Vec<Rule>, String> {
        rules(&self.write_relabel_configs)
    }

    /// The message that it is to be, when that is fixed.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn protocol(&self) -> Result<Option<Protocol>, String> {
        let named = |name: &String| {
            let protocol = Protocol::of_content_type(&format!("application/x-protobuf;proto={name}"));
            protocol.ok_or_else(|| {
                format!(
                    "{name:?}: protobuf_message is prometheus.WriteRequest or io.prometheus.write.v2.Request"
                )
            })
        };
        self.protobuf_message.as_ref().map(named).transpose()
    }
}

fn rules(configs: &[Spanned<RuleConfig>]) -> Result<Vec<Rule>, String> {
    let compile = |rule: &Spanned<RuleConfig>| {
        let place = rule.referenced;
        rule.value
            .compile()
            .map_err(|fault| format!("line {}, column {}: {fault}", place.line(), place.column()))
    };
    configs.iter().map(compile).collect()
}

impl FileConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong with it, with its place.
    pub fn load(path: &Path) -> Result<(Self, Vec<Job>), String> {
        let named = |fault: String| format!("{}: {fault}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Self::parse(&text, &directory).map_err(named)
    }

    /// Reads and checks a text; paths in it are relative to `directory`.
    ///
    /// # Errors
    /// What is wrong with it, with its place.
    pub fn parse(text: &str, directory: &Path) -> Result<(Self, Vec<Job>), String> {
        if text.trim().is_empty() {
            return Ok((Self::default(), Vec::new()));
        }
        let file: Self = serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
        let mut jobs: Vec<Job> = Vec::new();
        for config in &file.scrape_configs {
            let (line, column) = (config.referenced.line(), config.referenced.column());
            let at = |fault: String| format!("line {line}, column {column}: {fault}");
            let job = config.value.check(&file.global, directory);
            let job = job.map_err(|fault| if fault.starts_with("line ") { fault } else { at(fault) })?;
            if jobs.iter().any(|other| other.name == job.name) {
                return Err(at(format!("there is a job {:?} already", job.name)));
            }
            jobs.push(job);
        }
        for remote in &file.remote_write {
            let (line, column) = (remote.referenced.line(), remote.referenced.column());
            let at = |fault: String| format!("line {line}, column {column}: {fault}");
            remote.value.rules()?;
            remote.value.protocol().map_err(at)?;
            remote.value.http(directory).check().map_err(at)?;
            let url = remote.value.url.parse::<http::Uri>().ok();
            if url
                .is_none_or(|url| !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none())
            {
                return Err(at(format!(
                    "{:?} is not a URL, as http://host:9090/api/v1/write is one",
                    remote.value.url
                )));
            }
        }
        Ok((file, jobs))
    }
}

impl ScrapeConfig {
    fn check(&self, global: &GlobalConfig, directory: &Path) -> Result<Job, String> {
        let minute = Span(Duration::from_mins(1));
        let interval = self.scrape_interval.or(global.scrape_interval).unwrap_or(minute);
        let usual = global.scrape_timeout.unwrap_or(Span(Duration::from_secs(10))).min(interval);
        let timeout = self.scrape_timeout.unwrap_or(usual);
        if self.job_name.is_empty() {
            return Err("job_name is empty".to_owned());
        }
        if interval.0 < Duration::from_millis(100) || timeout.0.is_zero() {
            return Err("scrape_interval is at least 100ms, and scrape_timeout above zero".to_owned());
        }
        if timeout > interval {
            return Err(format!("scrape_timeout {timeout} is longer than scrape_interval {interval}"));
        }
        let scheme = self.scheme.clone().unwrap_or_else(|| "http".to_owned());
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(format!("the scheme {scheme:?} is neither http nor https"));
        }
        let takes_native = self.scrape_native_histograms.or(global.scrape_native_histograms).unwrap_or(false);
        let http = HttpConfig {
            basic_auth: self.basic_auth.clone(),
            authorization: self.authorization.clone(),
            tls: self.tls_config.clone().unwrap_or_default(),
            follows_redirects: self.follow_redirects.unwrap_or(true),
            directory: directory.to_owned(),
        };
        http.check()?;
        let or = |own: Option<usize>, all: Option<usize>| own.or(all).unwrap_or(0);
        let protocols = self.scrape_protocols.clone().or_else(|| global.scrape_protocols.clone());
        Ok(Job {
            name: self.job_name.clone(),
            interval: interval.0,
            timeout: timeout.0,
            protocols: protocols.unwrap_or_else(|| usual_protocols(takes_native)),
            fallback: self.scrape_fallback_protocol,
            takes_native,
            takes_classic_too: self
                .always_scrape_classic_histograms
                .or(global.always_scrape_classic_histograms)
                .unwrap_or(false),
            has_extra_metrics: self.extra_scrape_metrics.or(global.extra_scrape_metrics).unwrap_or(false),
            path: self.metrics_path.clone().unwrap_or_else(|| "/metrics".to_owned()),
            honors_labels: self.honor_labels,
            honors_times: self.honor_timestamps.unwrap_or(true),
            tracks_times: self.track_timestamps_staleness,
            compresses: self.enable_compression.unwrap_or(true),
            scheme,
            params: self.params.clone(),
            http,
            statics: self.static_configs.clone(),
            files: self.file_sd_configs.clone(),
            dns: self.dns_sd_configs.iter().map(checked_dns).collect::<Result<_, _>>()?,
            mesh: self.mesh_sd_configs.clone(),
            rules: rules(&self.relabel_configs)?,
            metric_rules: rules(&self.metric_relabel_configs)?,
            body_bytes_max: self.body_size_limit.or(global.body_size_limit).unwrap_or_default().0,
            samples_max: or(self.sample_limit, global.sample_limit),
            labels: crate::metrics::labels::LabelLimits {
                labels_max: or(self.label_limit, global.label_limit),
                name_bytes_max: or(self.label_name_length_limit, global.label_name_length_limit),
                value_bytes_max: or(self.label_value_length_limit, global.label_value_length_limit),
            },
            targets_max: or(self.target_limit, global.target_limit),
            dropped_kept_max: or(self.keep_dropped_targets, global.keep_dropped_targets),
            buckets_max: self.native_histogram_bucket_limit.unwrap_or(0),
            directory: directory.to_owned(),
        })
    }
}

fn checked_dns(config: &DnsDiscovery) -> Result<DnsDiscovery, String> {
    if config.kind != DnsKind::Srv && config.port.is_none() {
        return Err("dns_sd_configs needs a port, because only SRV records have one".to_owned());
    }
    if config.names.is_empty() { Err("dns_sd_configs names nothing".to_owned()) } else { Ok(config.clone()) }
}

/// What is asked for when a job says nothing: protobuf first where native histograms are wanted.
fn usual_protocols(takes_native: bool) -> Vec<ScrapeProtocol> {
    use ScrapeProtocol::{
        OpenMetricsText001, OpenMetricsText100, PrometheusProto, PrometheusText004, PrometheusText100,
    };
    let texts = [OpenMetricsText100, OpenMetricsText001, PrometheusText100, PrometheusText004];
    takes_native.then_some(PrometheusProto).into_iter().chain(texts).collect()
}

impl Job {
    /// The `Accept` header.
    pub(super) fn accept(&self) -> String {
        let mut weight = self.protocols.len() + 1;
        let mut accepted: Vec<String> = Vec::new();
        for protocol in &self.protocols {
            let media = match protocol {
                ScrapeProtocol::PrometheusProto => {
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
                }
                ScrapeProtocol::OpenMetricsText100 => {
                    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"
                }
                ScrapeProtocol::OpenMetricsText001 => "application/openmetrics-text;version=0.0.1",
                ScrapeProtocol::PrometheusText100 => "text/plain;version=1.0.0;escaping=allow-utf-8",
                ScrapeProtocol::PrometheusText004 => "text/plain;version=0.0.4",
            };
            accepted.push(format!("{media};q=0.{weight}"));
            weight -= 1;
        }
        accepted.push(format!("*/*;q=0.{weight}"));
        accepted.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let parsed = FileConfig::parse(text, Path::new("")).map(|(_, jobs)| {
            let names: Vec<String> = jobs
                .iter()
                .map(|job| format!("{} {} {}", job.name, Span(job.interval), Span(job.timeout)))
                .collect();
            names.join("; ")
        });
        match &parsed {
            Ok(told) => assert_eq!(told, expected, "{text}"),
            Err(fault) => assert!(fault.contains(expected), "{fault}\n{text}"),
        }
    }

    #[test]
    fn files_are_read_and_faults_have_a_place() {
        check("", "");
        check(
            "global: {scrape_interval: 15s}\nscrape_configs:\n- job_name: a\n- job_name: b\n  scrape_interval: 1m30s",
            "a 15s 10s; b 1m30s 10s",
        );
        check("scrape_configs:\n- job_name: a\n  scrape_interval: 5s\n", "a 5s 5s");
        check("scrape_configs:\n- job_name: a\n  scrape_intervall: 5s\n", "line 3");
        check("rule_files: [a.yml]\n", "rule_files");
        check(
            "scrape_configs:\n- job_name: a\n- job_name: a\n",
            "line 3, column 3: there is a job \"a\" already",
        );
        check("scrape_configs:\n- job_name: a\n  scheme: ftp\n", "line 2, column 3: the scheme \"ftp\"");
        check("scrape_configs:\n- job_name: a\n  scrape_timeout: 2m\n", "scrape_timeout 2m is longer");
        check(
            "scrape_configs:\n- job_name: a\n  relabel_configs:\n  - action: hashmod\n",
            "line 4, column 5: hashmod",
        );
        check(
            "scrape_configs:\n- job_name: a\n  dns_sd_configs:\n  - {names: [x], type: A}\n",
            "needs a port",
        );
        check("scrape_configs:\n- job_name: a\n  body_size_limit: 10XB\n", "is no size");
        check("remote_write:\n- url: here\n", "line 2, column 3: \"here\" is not a URL");
        check("remote_write:\n- {url: 'http://h/w', protobuf_message: v3}\n", "protobuf_message is");
    }

    #[test]
    fn durations_are_those_of_prometheus() {
        for (text, written) in
            [("90s", "1m30s"), ("1d", "1d"), ("36h", "36h"), ("2w", "2w"), ("1500ms", "1s500ms")]
        {
            assert_eq!(Span::parse(text).map(|span| span.to_string()).as_deref(), Some(written));
        }
        for text in ["", "5", "s", "5x", "-5s", "99999999999999999999s"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }
}
