//! The parts of a `prometheus.yml` that are taken: `global`, `scrape_configs`, `remote_write`.
//!
//! Names, defaults and meanings are those of
//! <https://prometheus.io/docs/prometheus/latest/configuration/configuration/>. What is not known is refused with its
//! place, because a setting without effect is worse than none.

mod job;
mod span;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::client::{Authorization, BasicAuth, HttpConfig, TlsConfig};
use crate::metrics::relabel::{Rule, RuleConfig};
use crate::metrics::remote_write::Protocol;

pub use job::Job;
pub use span::{Size, Span};

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
    /// The second name is that of earlier versions of ours.
    #[serde(alias = "scrape_fallback_protocol")]
    fallback_scrape_protocol: Option<ScrapeProtocol>,
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
    http_sd_configs: Vec<HttpDiscovery>,
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

/// One of `http_sd_configs`: a list of targets that a server answers with, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpDiscovery {
    /// Where the list is.
    pub url: String,
    /// How often it is asked for.
    pub refresh_interval: Option<Span>,
    basic_auth: Option<BasicAuth>,
    authorization: Option<Authorization>,
    tls_config: Option<TlsConfig>,
    follow_redirects: Option<bool>,
}

impl HttpDiscovery {
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
        job::rules(&self.write_relabel_configs)
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

#[cfg(test)]
mod tests;
