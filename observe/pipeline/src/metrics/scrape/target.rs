//! From what was found to what is scraped: labels are completed, rules applied, and the address made.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use belfry_signal::{MetricMetadata, SeriesLabels};
use http::Uri;

use super::config::{Job, Span};
use crate::metrics::exposition::Pair;
use crate::metrics::labels::{LabelLimits, METRIC, series_labels};
use crate::metrics::relabel::{self, LabelMap, Rule};

/// A page that is to be fetched.
#[derive(Debug)]
pub(super) struct Target {
    /// As it was found.
    pub(super) discovered: LabelMap,
    /// What its series get.
    pub(super) labels: LabelMap,
    pub(super) uri: Uri,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) standing: Mutex<Standing>,
}

/// How the last scrape went.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// None before the first.
    pub(super) last: Option<Last>,
    pub(super) metadata: Vec<MetricMetadata>,
}

#[derive(Clone, Debug)]
pub(super) struct Last {
    pub(super) unix_millis: i64,
    pub(super) took: Duration,
    /// None when it went well.
    pub(super) fault: Option<String>,
}

/// What became of something that was found.
#[derive(Debug)]
pub(super) enum Made {
    Target(Box<Target>),
    /// The rules drop it.
    Dropped(LabelMap),
    /// It cannot be one.
    Fault(String),
}

/// Makes a target of what was found.
pub(super) fn make(job: &Job, found: &LabelMap) -> Made {
    let mut labels = found.clone();
    let mut usual = |name: &str, value: String| {
        labels.entry(name.to_owned()).or_insert(value);
    };
    usual("job", job.name.clone());
    usual("__scrape_interval__", Span(job.interval).to_string());
    usual("__scrape_timeout__", Span(job.timeout).to_string());
    usual("__metrics_path__", job.path.clone());
    usual("__scheme__", job.scheme.clone());
    for (name, values) in &job.params {
        if let Some(first) = values.first() {
            usual(&format!("__param_{name}"), first.clone());
        }
    }
    let discovered = labels.clone();
    if !relabel::apply(&job.rules, &mut labels) {
        return Made::Dropped(discovered);
    }
    match completed(job, discovered, labels) {
        Ok(target) => Made::Target(Box::new(target)),
        Err(fault) => Made::Fault(fault),
    }
}

fn completed(job: &Job, discovered: LabelMap, mut labels: LabelMap) -> Result<Target, String> {
    let address = labels.get("__address__").cloned().unwrap_or_default();
    if address.is_empty() {
        return Err("a target has no address".to_owned());
    }
    let span = |name: &str, usual: Duration| match labels.get(name) {
        None => Ok(usual),
        Some(text) => {
            let span = Span::parse(text).filter(|span| !span.0.is_zero());
            span.map(|span| span.0).ok_or_else(|| format!("{name} of {address} is no duration: {text:?}"))
        }
    };
    let (interval, timeout) =
        (span("__scrape_interval__", job.interval)?, span("__scrape_timeout__", job.timeout)?);
    if timeout > interval {
        return Err(format!("the timeout of {address} is longer than its interval"));
    }
    let uri = uri(job, &labels, &address)?;
    labels.retain(|name, _| !name.starts_with("__"));
    labels.entry("instance".to_owned()).or_insert(address);
    Ok(Target { discovered, labels, uri, interval, timeout, standing: Mutex::default() })
}

fn uri(job: &Job, labels: &LabelMap, address: &str) -> Result<Uri, String> {
    let part = |name: &str, usual: &str| labels.get(name).cloned().unwrap_or_else(|| usual.to_owned());
    let mut path = part("__metrics_path__", "/metrics");
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    let mut query = Vec::new();
    let mut params: BTreeMap<String, Vec<String>> = job.params.clone();
    for (name, value) in labels {
        if let Some(name) = name.strip_prefix("__param_") {
            let values = params.entry(name.to_owned()).or_default();
            match values.first_mut() {
                Some(first) => first.clone_from(value),
                None => values.push(value.clone()),
            }
        }
    }
    for (name, values) in &params {
        query.extend(values.iter().map(|value| format!("{}={}", escaped(name), escaped(value))));
    }
    let mark = if query.is_empty() {
        ""
    } else if path.contains('?') {
        "&"
    } else {
        "?"
    };
    let text = format!("{}://{address}{path}{mark}{}", part("__scheme__", "http"), query.join("&"));
    text.parse().map_err(|_| format!("{text:?} is not a URL"))
}

/// Percent-encoding of what has a meaning of its own in a query.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl Target {
    /// What it is told apart by: two that agree in this are one.
    pub(super) fn key(&self) -> String {
        format!("{} {:?} {:?}/{:?}", self.uri, self.labels, self.interval, self.timeout)
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note(&self, last: Last, metadata: Option<Vec<MetricMetadata>>) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.last = Some(last);
        if let Some(metadata) = metadata {
            standing.metadata = metadata;
        }
    }

    /// The labels of a series that tells about the scrape itself.
    pub(super) fn own_series(&self, metric: &str) -> Option<SeriesLabels> {
        let own =
            self.labels.iter().map(|(name, value)| (Arc::from(name.as_str()), Arc::from(value.as_str())));
        let metric = (Arc::from(METRIC), Arc::from(metric));
        series_labels(own.chain([metric]).collect(), LabelLimits::default()).ok()
    }

    /// The labels of a series on the page; none when the rules drop it.
    pub(super) fn series(
        &self,
        pairs: Vec<Pair<'_>>,
        honors_labels: bool,
        rules: &[Rule],
        limits: LabelLimits,
    ) -> Result<Option<SeriesLabels>, String> {
        let mut labels = LabelMap::new();
        for (name, value) in pairs {
            if !value.is_empty() && labels.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(format!("the label {name:?} stands twice"));
            }
        }
        for (name, value) in &self.labels {
            match labels.get(name) {
                Some(_) if honors_labels => {}
                Some(_) => {
                    let theirs = labels.insert(name.clone(), value.clone()).unwrap_or_default();
                    let mut other = format!("exported_{name}");
                    while labels.contains_key(&other) {
                        other.insert_str(0, "exported_");
                    }
                    labels.insert(other, theirs);
                }
                None => {
                    labels.insert(name.clone(), value.clone());
                }
            }
        }
        if !relabel::apply(rules, &mut labels) {
            return Ok(None);
        }
        let pairs = labels.iter().map(|(name, value)| (Arc::from(name.as_str()), Arc::from(value.as_str())));
        series_labels(pairs.collect(), limits).map(Some).map_err(|fault| fault.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::config::FileConfig;
    use super::*;

    fn job(text: &str) -> Job {
        let (_, mut jobs) = FileConfig::parse(text, Path::new("")).expect("a good file");
        jobs.remove(0)
    }

    fn check(text: &str, found: &[(&str, &str)], expected: &str) {
        let found = found.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let told = match make(&job(text), &found) {
            Made::Target(target) => format!("{} {:?}", target.uri, target.labels),
            Made::Dropped(labels) => format!("dropped {}", labels.len()),
            Made::Fault(fault) => fault,
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn a_target_is_what_rules_make_of_it() {
        let plain = "scrape_configs: [{job_name: j}]";
        check(
            plain,
            &[("__address__", "h:1"), ("team", "x")],
            "http://h:1/metrics {\"instance\": \"h:1\", \"job\": \"j\", \"team\": \"x\"}",
        );
        check(plain, &[], "a target has no address");
        check(plain, &[("__address__", "a b")], "\"http://a b/metrics\" is not a URL");
        check(
            "scrape_configs:\n- job_name: probe\n  metrics_path: /probe\n  params: {module: [icmp], target: [x]}\n  relabel_configs:\n  \
             - {source_labels: [__address__], target_label: __param_target}\n  \
             - {source_labels: [__param_target], target_label: instance}\n  \
             - {target_label: __address__, replacement: 'blackbox:9115'}\n  - {target_label: __scheme__, replacement: https}",
            &[("__address__", "a b&c")],
            "https://blackbox:9115/probe?module=icmp&target=a%20b%26c {\"instance\": \"a b&c\", \"job\": \"probe\"}",
        );
        check(
            "scrape_configs: [{job_name: j, relabel_configs: [{source_labels: [env], regex: prod, action: keep}]}]",
            &[("__address__", "h:1")],
            "dropped 6",
        );
    }

    #[test]
    fn labels_of_the_page_and_of_the_target_do_not_collide() {
        let found = LabelMap::from([("__address__".to_owned(), "h:1".to_owned())]);
        let Made::Target(target) = make(&job("scrape_configs: [{job_name: j}]"), &found) else {
            panic!("a target");
        };
        let pairs = || {
            let texts = [(METRIC, "m"), ("job", "theirs"), ("exported_job", "older"), ("e", "")];
            texts.map(|(name, value)| (name.into(), value.into())).to_vec()
        };
        let told = |honors| {
            let labels =
                target.series(pairs(), honors, &[], LabelLimits::default()).expect("good").expect("kept");
            labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
        };
        assert_eq!(
            told(false),
            "__name__=m,exported_exported_job=theirs,exported_job=older,instance=h:1,job=j"
        );
        assert_eq!(told(true), "__name__=m,exported_job=older,instance=h:1,job=theirs");
    }
}
