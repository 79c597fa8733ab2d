//! Finding targets: written down, in files, in DNS, in the mesh. Each way tells its whole list whenever it changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use prost::bytes::Bytes;
use tokio::sync::mpsc;

use super::MeshNodes;
use super::client::Client;
use super::config::{
    DnsDiscovery, DnsKind, FileDiscovery, HttpDiscovery, Job, MeshDiscovery, Span, StaticConfig,
};
use super::masked::without_password;
use crate::metrics::relabel::LabelMap;
use crate::metrics::signals::ScrapeSignals;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(5);
const DNS_REFRESH: Span = Span(Duration::from_secs(30));
const HTTP_REFRESH: Span = Span(Duration::from_mins(1));
/// How long a server may take to tell its list.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
const MESH_REFRESH: Span = Span(Duration::from_secs(10));
/// Bytes of a file of targets.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A node of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshNode {
    /// Its name.
    pub name: String,
    /// Where it is reached, without a port.
    pub host: String,
    /// Whether a link to it is up; none when none was tried.
    pub is_up: Option<bool>,
}

/// What one way found: its number among the job's, and every target that it knows now.
pub(super) type Found = (usize, Vec<LabelMap>);

/// One way of finding targets.
#[derive(Clone, Debug)]
enum Way {
    Static(Vec<StaticConfig>),
    Files(FileDiscovery, PathBuf),
    Dns(DnsDiscovery),
    Http(Box<HttpDiscovery>, PathBuf),
    Mesh(MeshDiscovery),
}

/// Runs every way of a job until nobody listens.
pub(super) async fn run(job: Arc<Job>, nodes: MeshNodes, signals: ScrapeSignals, found: mpsc::Sender<Found>) {
    let files = job.files.iter().map(|files| Way::Files(files.clone(), job.directory.clone()));
    let dns = job.dns.iter().cloned().map(Way::Dns);
    let mesh = job.mesh.iter().cloned().map(Way::Mesh);
    let http = job.http_lists.iter().map(|list| Way::Http(Box::new(list.clone()), job.directory.clone()));
    let ways = [Way::Static(job.statics.clone())].into_iter().chain(files).chain(dns).chain(http).chain(mesh);
    let mut running = tokio::task::JoinSet::new();
    for (number, way) in ways.enumerate() {
        let watching = Watching {
            number,
            job: job.name.clone(),
            signals: signals.clone(),
            found: found.clone(),
            is_failing: false,
        };
        running.spawn(watch(way, watching, Arc::clone(&nodes)));
    }
    while running.join_next().await.is_some() {}
}

/// Where a way tells what it found.
struct Watching {
    number: usize,
    job: String,
    signals: ScrapeSignals,
    found: mpsc::Sender<Found>,
    is_failing: bool,
}

impl Watching {
    /// False when nobody listens any more.
    async fn tell(&mut self, targets: Vec<LabelMap>) -> bool {
        self.is_failing = false;
        self.found.send((self.number, targets)).await.is_ok()
    }

    /// What was found before stays in force.
    fn failed(&mut self, fault: &str) {
        let was_failing = std::mem::replace(&mut self.is_failing, true);
        self.signals.discovery_failed(&self.job, fault, !was_failing);
    }
}

async fn watch(way: Way, mut watching: Watching, nodes: MeshNodes) {
    match way {
        Way::Static(groups) => {
            watching.tell(targets(&groups, &LabelMap::new())).await;
        }
        Way::Files(config, directory) => watch_files(&config, &directory, watching).await,
        Way::Dns(config) => watch_dns(&config, watching).await,
        Way::Http(config, directory) => watch_http(&config, &directory, watching).await,
        Way::Mesh(config) => loop {
            if !watching.tell(mesh_targets(&config, &nodes())).await {
                return;
            }
            tokio::time::sleep(config.refresh_interval.unwrap_or(MESH_REFRESH).0).await;
        },
    }
}

/// The targets of some groups, each with its address, the group's labels and those given.
fn targets(groups: &[StaticConfig], added: &LabelMap) -> Vec<LabelMap> {
    let of_group = |group: &StaticConfig| {
        let base: LabelMap = group.labels.clone().into_iter().chain(added.clone()).collect();
        let with_address = |target: &String| {
            let mut labels = base.clone();
            labels.insert("__address__".to_owned(), target.clone());
            labels
        };
        group.targets.iter().map(with_address).collect::<Vec<_>>()
    };
    groups.iter().flat_map(of_group).collect()
}

type Stamps = BTreeMap<PathBuf, Option<SystemTime>>;

async fn watch_files(config: &FileDiscovery, directory: &Path, mut watching: Watching) {
    let mut before: Option<Stamps> = None;
    let mut known: BTreeMap<PathBuf, Vec<LabelMap>> = BTreeMap::new();
    loop {
        let patterns: Vec<PathBuf> = config.files.iter().map(|path| directory.join(path)).collect();
        let stamps = tokio::task::spawn_blocking(move || stamps(&patterns)).await.unwrap_or_default();
        if before.as_ref() != Some(&stamps) {
            known.retain(|path, _| stamps.contains_key(path));
            let mut fault = None;
            for path in stamps.keys() {
                match read_file(path).await {
                    Ok(groups) => {
                        let name = path.display().to_string();
                        let added = LabelMap::from([("__meta_filepath".to_owned(), name)]);
                        known.insert(path.clone(), targets(&groups, &added));
                    }
                    // A file that is half written is read again when it has changed; until then its targets stay.
                    Err(error) => fault = Some(error),
                }
            }
            if !watching.tell(known.values().flatten().cloned().collect()).await {
                return;
            }
            before = Some(stamps);
            if let Some(fault) = fault {
                watching.failed(&fault);
            }
        }
        tokio::time::sleep(LOOK).await;
        if watching.found.is_closed() {
            return;
        }
    }
}

/// The files that patterns name, with the times when they changed.
fn stamps(patterns: &[PathBuf]) -> Stamps {
    let mut found = Stamps::new();
    let changed = |path: &Path| std::fs::metadata(path).and_then(|facts| facts.modified()).ok();
    for pattern in patterns {
        let name = pattern.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.contains('*') {
            if pattern.is_file() {
                found.insert(pattern.clone(), changed(pattern));
            }
            continue;
        }
        let Ok(entries) = std::fs::read_dir(pattern.parent().unwrap_or(Path::new("."))) else { continue };
        for entry in entries.flatten().filter(|entry| matches(&name, &entry.file_name().to_string_lossy())) {
            found.insert(entry.path(), changed(&entry.path()));
        }
    }
    found
}

/// Whether a name is of a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

async fn read_file(path: &Path) -> Result<Vec<StaticConfig>, String> {
    let owned = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let length = std::fs::metadata(&owned)?.len();
        if length > FILE_BYTES_MAX {
            return Err(std::io::Error::other(format!(
                "{length} bytes are more than a file of targets may have"
            )));
        }
        std::fs::read_to_string(&owned)
    });
    let named = |fault: String| format!("{}: {fault}", path.display());
    let text = reading.await.map_err(|_| named("cannot be read".to_owned()))?;
    // JSON is YAML too.
    let text = text.map_err(|error| named(error.to_string()))?;
    serde_saphyr::from_str(&text).map_err(|error| named(error.without_snippet().to_string()))
}

async fn watch_dns(config: &DnsDiscovery, mut watching: Watching) {
    let resolver = match TokioResolver::builder_tokio().and_then(|builder| builder.build()) {
        Ok(resolver) => resolver,
        Err(error) => return watching.failed(&error.to_string()),
    };
    loop {
        match resolve(config, &resolver).await {
            Ok(targets) => {
                if !watching.tell(targets).await {
                    return;
                }
            }
            Err(fault) => watching.failed(&fault),
        }
        tokio::time::sleep(config.refresh_interval.unwrap_or(DNS_REFRESH).0).await;
        if watching.found.is_closed() {
            return;
        }
    }
}

async fn resolve(config: &DnsDiscovery, resolver: &TokioResolver) -> Result<Vec<LabelMap>, String> {
    let kind = match config.kind {
        DnsKind::Srv => RecordType::SRV,
        DnsKind::A => RecordType::A,
        DnsKind::Aaaa => RecordType::AAAA,
        DnsKind::Mx => RecordType::MX,
        DnsKind::Ns => RecordType::NS,
    };
    let mut targets = Vec::new();
    for name in &config.names {
        let found = resolver.lookup(name.as_str(), kind).await;
        let answers = match found {
            Ok(found) => found.answers().to_vec(),
            // A name that has no such records has no targets, which is no fault.
            Err(error) if error.is_no_records_found() => Vec::new(),
            Err(error) => return Err(format!("{name}: {error}")),
        };
        targets.extend(answers.iter().filter_map(|record| dns_target(name, &record.data, config.port)));
    }
    Ok(targets)
}

fn dns_target(name: &str, record: &RData, port: Option<u16>) -> Option<LabelMap> {
    let mut labels = LabelMap::from([("__meta_dns_name".to_owned(), name.to_owned())]);
    let plain = |name: String| name.trim_end_matches('.').to_owned();
    let port = port.unwrap_or(0);
    let address = match record {
        RData::SRV(srv) => {
            labels.insert("__meta_dns_srv_record_target".to_owned(), srv.target.to_string());
            labels.insert("__meta_dns_srv_record_port".to_owned(), srv.port.to_string());
            format!("{}:{}", plain(srv.target.to_string()), srv.port)
        }
        RData::MX(mx) => {
            labels.insert("__meta_dns_mx_record_target".to_owned(), mx.exchange.to_string());
            format!("{}:{port}", plain(mx.exchange.to_string()))
        }
        RData::NS(ns) => {
            labels.insert("__meta_dns_ns_record_target".to_owned(), ns.0.to_string());
            format!("{}:{port}", plain(ns.0.to_string()))
        }
        other => match other.ip_addr()? {
            std::net::IpAddr::V4(address) => format!("{address}:{port}"),
            std::net::IpAddr::V6(address) => format!("[{address}]:{port}"),
        },
    };
    labels.insert("__address__".to_owned(), address);
    Some(labels)
}

/// Asks for a list again and again, as <https://prometheus.io/docs/prometheus/latest/http_sd/> has it. What a failing
/// server said last stays in force.
async fn watch_http(config: &HttpDiscovery, directory: &Path, mut watching: Watching) {
    let client = match Client::new(config.http(directory)) {
        Ok(client) => client,
        Err(fault) => return watching.failed(&fault),
    };
    let refresh = config.refresh_interval.unwrap_or(HTTP_REFRESH).0;
    loop {
        let asking = tokio::time::timeout(HTTP_TIMEOUT, list(config, &client, refresh));
        match asking.await.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(groups) => {
                let added = LabelMap::from([("__meta_url".to_owned(), config.url.clone())]);
                if !watching.tell(targets(&groups, &added)).await {
                    return;
                }
            }
            Err(fault) => watching.failed(&format!("{}: {fault}", without_password(&config.url))),
        }
        tokio::time::sleep(refresh).await;
        if watching.found.is_closed() {
            return;
        }
    }
}

async fn list(
    config: &HttpDiscovery,
    client: &Client,
    refresh: Duration,
) -> Result<Vec<StaticConfig>, String> {
    let uri: Uri = config.url.parse().map_err(|_| "not a URL".to_owned())?;
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert("x-prometheus-refresh-interval-seconds", HeaderValue::from(refresh.as_secs()));
    let bytes_max = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX);
    let answer = client.send(Method::GET, uri, headers, Bytes::new(), bytes_max).await;
    let answer = answer.map_err(|fault| fault.to_string())?;
    if answer.status != StatusCode::OK {
        return Err(format!("the server answered {}", answer.status));
    }
    let kind =
        answer.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(format!("the server answered with {kind:?} instead of application/json"));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("not a list of targets: {error}"))
}

fn mesh_targets(config: &MeshDiscovery, nodes: &[MeshNode]) -> Vec<LabelMap> {
    let of_node = |node: &MeshNode| {
        let state = match node.is_up {
            Some(true) => "up",
            Some(false) => "down",
            None => "unknown",
        };
        LabelMap::from([
            ("__address__".to_owned(), format!("{}:{}", node.host, config.port)),
            ("__meta_mesh_node".to_owned(), node.name.clone()),
            ("__meta_mesh_state".to_owned(), state.to_owned()),
        ])
    };
    nodes.iter().map(of_node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_the_last_part_of_a_path() {
        let cases = [
            ("*.yml", "a.yml", true),
            ("*.yml", "a.json", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a*", "a", true),
            ("*", "", true),
            ("ab*b", "ab", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn nodes_of_the_mesh_become_targets() {
        let config = MeshDiscovery { port: 9901, refresh_interval: None };
        let node = MeshNode { name: "core-2".to_owned(), host: "10.0.0.2".to_owned(), is_up: Some(true) };
        let found = mesh_targets(&config, &[node]);
        let told: Vec<String> = found[0].iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(told, ["__address__=10.0.0.2:9901", "__meta_mesh_node=core-2", "__meta_mesh_state=up"]);
    }
}
