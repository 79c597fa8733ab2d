//! Pages that are pushed: what stands in a request, and the labels of the group that it is for.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use belfry_signal::SeriesLabels;
use http::{HeaderMap, header};
use prost::bytes::Bytes;

use super::{Config, Refusal};
use crate::metrics::collect::{Collector, Memory, Taking};
use crate::metrics::exposition::{self, Flavour, Pair};
use crate::metrics::families::{self, Histograms};
use crate::metrics::labels::{LabelFault, LabelLimits, series_labels};
use crate::metrics::remote_write::Decoded;

/// Labels that say whose page it is, over those on the page.
pub(super) type Group = BTreeMap<String, String>;

/// A page as it came.
pub(super) enum Page {
    Text(String, Flavour),
    Protobuf(Bytes),
}

impl Page {
    pub(super) fn of(headers: &HeaderMap, body: Bytes, config: &Config) -> Result<Self, Refusal> {
        let header = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let body = match header(header::CONTENT_ENCODING) {
            None | Some("identity") => body,
            Some("gzip") => unzipped(&body, config.request_bytes_max)?,
            Some("snappy") => {
                crate::metrics::remote_write::decompress(&body, config.request_bytes_max)?.into()
            }
            Some(_) => return Err(Refusal::MediaType("a body that is plain, gzip or snappy")),
        };
        let content_type = header(header::CONTENT_TYPE).unwrap_or_default();
        if content_type.starts_with("application/vnd.google.protobuf") {
            return Ok(Self::Protobuf(body));
        }
        let is_open = content_type.starts_with("application/openmetrics-text");
        let flavour = if is_open { Flavour::OpenMetrics } else { Flavour::Prometheus };
        let text =
            String::from_utf8(body.into()).map_err(|_| Refusal::Page("the page is not UTF-8".to_owned()))?;
        Ok(Self::Text(text, flavour))
    }

    /// The points of the page, with the group's labels over its own.
    pub(super) fn decoded(&self, group: &Group, now_ms: i64, config: &Config) -> Result<Decoded, Refusal> {
        let limits = config.label_limits();
        let build =
            |pairs: Vec<Pair<'_>>| labels(&pairs, group, limits).map(Some).map_err(|fault| fault.to_string());
        let taking = Taking {
            unix_millis: now_ms,
            honors_times: true,
            tracks_times: false,
            samples_max: config.request_series_max,
            buckets_max: 0,
        };
        let mut memory = Memory::default();
        let mut collector = Collector::new(&mut memory, taking, &build);
        let read = match self {
            Self::Text(text, flavour) => exposition::read(text, *flavour, &mut collector),
            Self::Protobuf(bytes) => {
                let histograms = Histograms { native: true, classic_too: false };
                families::read(bytes.clone(), histograms, &mut collector)
            }
        };
        read.map_err(|fault| Refusal::Page(fault.to_string()))?;
        Ok(Decoded { batch: collector.finish().batch, ..Decoded::default() })
    }
}

/// A gzip body, of so many bytes at most.
fn unzipped(body: &[u8], bytes_max: usize) -> Result<Bytes, Refusal> {
    let plain = crate::metrics::scrape::unzipped(body, bytes_max);
    plain.map(Bytes::from).map_err(Refusal::Page)
}

/// A series' labels: those of the group, and its own where the group has none of the name.
pub(super) fn labels(
    pairs: &[Pair<'_>],
    group: &Group,
    limits: LabelLimits,
) -> Result<SeriesLabels, LabelFault> {
    let own = pairs.iter().filter(|(name, _)| !group.contains_key(&**name));
    let own = own.map(|(name, value)| (Arc::from(&**name), Arc::from(&**value)));
    let added = group.iter().map(|(name, value)| (Arc::from(name.as_str()), Arc::from(value.as_str())));
    series_labels(own.chain(added).collect(), limits)
}

/// The labels in a path below `/metrics/`: `job/JOB/LABEL/VALUE...`, where `LABEL@base64` has its value encoded.
pub(super) fn grouping(path: &str) -> Result<Group, String> {
    let mut parts = path.trim_end_matches('/').split('/');
    let mut group = Group::new();
    while let Some(name) = parts.next() {
        let value = parts.next().ok_or_else(|| format!("the label {name:?} has no value in the path"))?;
        let (name, value) = match name.strip_suffix("@base64") {
            None => (name, value.to_owned()),
            Some(name) => (name, decoded(value).ok_or_else(|| format!("{value:?} is not base64"))?),
        };
        if group.is_empty() && name != "job" {
            return Err("the path begins with /metrics/job/".to_owned());
        }
        if name.is_empty() || group.insert(name.to_owned(), value).is_some() {
            return Err(format!("the label {name:?} stands twice in the path, or has no name"));
        }
    }
    if group.get("job").is_none_or(String::is_empty) {
        Err("the job has no name".to_owned())
    } else {
        Ok(group)
    }
}

fn decoded(value: &str) -> Option<String> {
    let plain = value.trim_end_matches('=');
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(plain).ok()?;
    String::from_utf8(bytes).ok()
}
