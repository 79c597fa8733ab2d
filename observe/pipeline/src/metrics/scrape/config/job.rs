//! From the file as it is written to jobs that can run: checks, defaults, and the place of what is wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_saphyr::Spanned;

use super::super::client::HttpConfig;
use super::{
    DnsDiscovery, DnsKind, FileConfig, FileDiscovery, GlobalConfig, HttpDiscovery, MeshDiscovery,
    ScrapeConfig, ScrapeProtocol, Span, StaticConfig,
};
use crate::metrics::relabel::{Rule, RuleConfig};

/// A job, checked.
#[derive(Clone, Debug)]
pub struct Job {
    pub(in super::super) name: String,
    pub(in super::super) interval: Duration,
    pub(in super::super) timeout: Duration,
    pub(in super::super) protocols: Vec<ScrapeProtocol>,
    pub(in super::super) fallback: Option<ScrapeProtocol>,
    pub(in super::super) takes_native: bool,
    pub(in super::super) takes_classic_too: bool,
    pub(in super::super) has_extra_metrics: bool,
    pub(in super::super) path: String,
    pub(in super::super) honors_labels: bool,
    pub(in super::super) honors_times: bool,
    pub(in super::super) tracks_times: bool,
    pub(in super::super) compresses: bool,
    pub(in super::super) scheme: String,
    pub(in super::super) params: BTreeMap<String, Vec<String>>,
    pub(in super::super) http: HttpConfig,
    pub(in super::super) statics: Vec<StaticConfig>,
    pub(in super::super) files: Vec<FileDiscovery>,
    pub(in super::super) dns: Vec<DnsDiscovery>,
    pub(in super::super) http_lists: Vec<HttpDiscovery>,
    pub(in super::super) mesh: Vec<MeshDiscovery>,
    pub(in super::super) rules: Vec<Rule>,
    pub(in super::super) metric_rules: Vec<Rule>,
    pub(in super::super) body_bytes_max: usize,
    pub(in super::super) samples_max: usize,
    pub(in super::super) labels: crate::metrics::labels::LabelLimits,
    pub(in super::super) targets_max: usize,
    pub(in super::super) dropped_kept_max: usize,
    pub(in super::super) buckets_max: usize,
    /// Paths in the file are relative to its directory.
    pub(in super::super) directory: PathBuf,
}

pub(super) fn rules(configs: &[Spanned<RuleConfig>]) -> Result<Vec<Rule>, String> {
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
            if !is_url(&remote.value.url) {
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
    /// The interval and the timeout.
    fn times(&self, global: &GlobalConfig) -> Result<(Duration, Duration), String> {
        let minute = Span(Duration::from_mins(1));
        let interval = self.scrape_interval.or(global.scrape_interval).unwrap_or(minute);
        let usual = global.scrape_timeout.unwrap_or(Span(Duration::from_secs(10))).min(interval);
        let timeout = self.scrape_timeout.unwrap_or(usual);
        if interval.0 < Duration::from_millis(100) || timeout.0.is_zero() {
            return Err("scrape_interval is at least 100ms, and scrape_timeout above zero".to_owned());
        }
        if timeout > interval {
            return Err(format!("scrape_timeout {timeout} is longer than scrape_interval {interval}"));
        }
        Ok((interval.0, timeout.0))
    }

    fn check(&self, global: &GlobalConfig, directory: &Path) -> Result<Job, String> {
        if self.job_name.is_empty() {
            return Err("job_name is empty".to_owned());
        }
        let (interval, timeout) = self.times(global)?;
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
            interval,
            timeout,
            protocols: protocols.unwrap_or_else(|| usual_protocols(takes_native)),
            fallback: self.fallback_scrape_protocol,
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
            http_lists: self
                .http_sd_configs
                .iter()
                .map(|config| checked_http(config, directory))
                .collect::<Result<_, _>>()?,
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

fn checked_http(config: &HttpDiscovery, directory: &Path) -> Result<HttpDiscovery, String> {
    if !is_url(&config.url) {
        return Err(format!("http_sd_configs: {:?} is not a URL, as http://host/targets is one", config.url));
    }
    config.http(directory).check().map_err(|fault| format!("http_sd_configs: {fault}"))?;
    Ok(config.clone())
}

/// Whether it is a URL that can be fetched.
fn is_url(text: &str) -> bool {
    let url = text.parse::<http::Uri>().ok();
    url.is_some_and(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some())
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
    pub(in super::super) fn accept(&self) -> String {
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
