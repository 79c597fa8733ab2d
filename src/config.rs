//! What an operator may set: the sections of `belfry.toml`, one per room.
//!
//! A room is on when its section is present. Each crate owns the struct of its section and knows what is allowed in
//! it; this file reads files and environment, and gives every fault its place.

pub mod document;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use belfry_signal::Region;
use serde::Deserialize;

use crate::billing::Billing;
use document::Document;
pub use document::Fault;

/// The annotated defaults: missing keys of a present section come from here.
pub const SHIPPED: &str = include_str!("../belfry.toml");

/// The prefix of environment variables that set keys: `BELFRY__ADMIN__LISTEN` sets `admin.listen`.
const ENVIRONMENT_PREFIX: &str = "BELFRY__";

/// Every section.
const SECTIONS: &[&str] =
    &["node", "admin", "mesh", "edge", "core", "media", "observe", "alerts", "dashboard"];

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What this process is called, and its bounds.
    pub node: Node,
    /// The admin door.
    pub admin: crate::admin::Config,
    /// Links to other nodes.
    pub mesh: belfry_mesh::Config,
    /// Where customers come in.
    pub edge: Option<belfry_gateway::Config>,
    /// Where calls are decided.
    pub core: Option<Core>,
    /// Where sound flows.
    pub media: Option<belfry_relay::Config>,
    /// Where the house sees itself.
    pub observe: Option<Observe>,
    /// Where trouble is named.
    pub alerts: Option<Alerts>,
    /// Where people look.
    pub dashboard: Option<belfry_dashboard::Config>,
}

/// The `[node]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// This process's name, unique in the site.
    pub name: String,
    /// The site.
    pub site: String,
    /// The region in which the site stands.
    pub region: Region,
    /// Where everything that lives on disk lives; relative paths of other sections start here.
    pub data: PathBuf,
    /// The log filter of the terminal.
    pub log: String,
    /// Threads of the runtime that carries calls.
    pub data_threads: usize,
    /// Threads of the runtime that watches.
    pub tower_threads: usize,
    /// Records that may wait for the telemetry pipeline.
    pub records_max: usize,
    /// How long each room may take to drain.
    pub drain: Drain,
}

/// The `[node.drain]` section.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// The edge: open requests.
    #[serde(with = "humantime_serde")]
    pub edge: Duration,
    /// The core: calls under way.
    #[serde(with = "humantime_serde")]
    pub core: Duration,
    /// Media: streams.
    #[serde(with = "humantime_serde")]
    pub media: Duration,
    /// Alerts: the outbox.
    #[serde(with = "humantime_serde")]
    pub alerts: Duration,
    /// Observe: everything that was emitted.
    #[serde(with = "humantime_serde")]
    pub observe: Duration,
}

/// The `[core]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Core {
    /// Registrar, proxy, calls.
    pub signalling: belfry_signalling::Config,
    /// Who may call whom, by which way.
    #[serde(default)]
    pub routing: belfry_routing::Plan,
    /// Subscribers, bindings, call records.
    pub state: belfry_state::Config,
    /// What calls cost.
    pub billing: Billing,
}

/// The `[observe]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observe {
    /// Where the read APIs listen.
    pub listen: SocketAddr,
    /// Connections at once; more are answered 503.
    pub connections_max: usize,
    /// A client sends a request's head within this time, and its body within the same again.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// A client that takes nothing of an answer for so long loses its connection.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// Bytes of a request's body.
    pub request_bytes_max: usize,
    /// Tokens that open the read APIs, one on a line; absent means that they are for loopback only.
    pub token_file: Option<PathBuf>,
    /// Names that the read APIs go by without a token, beside addresses and `localhost`.
    pub host_names: Vec<String>,
    /// Web pages from elsewhere that may ask the read APIs, as `https://grafana.example.net`; none unless named.
    pub cors_origins: Vec<String>,
    /// Whether queries may use the experimental parts of PromQL.
    pub promql_experimental: bool,
    /// What questions may cost.
    pub query: belfry_query::Config,
    /// WAL and delivery.
    pub pipeline: belfry_pipeline::Config,
    /// Metrics that others push.
    pub receive: belfry_pipeline::metrics::receive::Config,
    /// Metrics that we fetch, and where they are sent on.
    pub scrape: belfry_pipeline::metrics::scrape::Config,
    /// Time series.
    pub series: belfry_series::Config,
    /// Logs, spans, SIP messages, calls.
    pub events: belfry_events::Config,
    /// Where others' telemetry comes in.
    pub doors: Option<Box<belfry_pipeline::doors::DoorsConfig>>,
}

/// The `[alerts]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alerts {
    /// SLOs and pages.
    pub engine: belfry_engine::Config,
    /// Rules on metrics, routes, silences.
    pub routing: belfry_engine::Routing,
    /// PagerDuty.
    pub notify: belfry_notify::Config,
}

impl Observe {
    /// What is wrong with the door although it has the right type: key, what is allowed.
    fn check(&self) -> Vec<(String, String)> {
        let mut faults = self.limits().check_guarded(self.listen, self.token_file.is_some());
        if let Err(allowed) = belfry_door::check_origins(&self.cors_origins) {
            faults.push(("cors_origins".to_owned(), allowed.to_owned()));
        }
        faults
    }

    /// The bounds of the read APIs' door.
    #[must_use]
    pub fn limits(&self) -> belfry_door::Limits {
        belfry_door::Limits {
            connections_max: self.connections_max,
            header_timeout: self.header_timeout,
            write_timeout: self.write_timeout,
            request_bytes_max: self.request_bytes_max,
        }
    }
}

impl Config {
    /// Reads a file, with the environment over it.
    ///
    /// # Errors
    /// Every fault, with its place.
    pub fn load(path: &Path, environment: &[(String, String)]) -> Result<Self, Vec<Fault>> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("cannot be read: {error}; `belfry demo` needs no file, and the repository's belfry.toml is a start");
            vec![Fault { source: name.clone(), position: None, message }]
        })?;
        Self::parse(&name, &text, environment)
    }

    /// Reads a text; `name` is shown in faults.
    ///
    /// # Errors
    /// Every fault, with its place.
    pub fn parse(name: &str, text: &str, environment: &[(String, String)]) -> Result<Self, Vec<Fault>> {
        let mut document = Document::parse(name, text, SHIPPED);
        document.only_sections(SECTIONS);
        let paths: Vec<(&str, String, &str)> = environment
            .iter()
            .filter_map(|(variable, value)| {
                let path = variable.strip_prefix(ENVIRONMENT_PREFIX)?.to_lowercase();
                Some((variable.as_str(), path, value.as_str()))
            })
            .collect();
        for (variable, path, value) in &paths {
            document.set(variable, &path.split("__").collect::<Vec<_>>(), value);
        }
        let node: Option<Node> = document.required_section("node");
        let node_name = node.as_ref().map_or_else(String::new, |node| node.name.clone());
        document.set("node.name", &["mesh", "node"], &node_name);
        let admin = document.required_section("admin");
        let mesh = document.required_section("mesh");
        let (edge, core, media) =
            (document.section("edge"), document.section("core"), document.section("media"));
        let (observe, alerts) = (document.section("observe"), document.section("alerts"));
        let dashboard = document.section("dashboard");
        let (Some(node), Some(admin), Some(mesh)) = (node, admin, mesh) else {
            return Err(document.into_faults());
        };
        let config = Self { node, admin, mesh, edge, core, media, observe, alerts, dashboard };
        for (section, key, message) in config.check() {
            document.fault_of_key(section, &key, &message);
        }
        let faults = document.into_faults();
        if faults.is_empty() { Ok(config.placed()) } else { Err(faults) }
    }

    /// What is wrong with files that the configuration names: tokens, and what is scraped.
    #[must_use]
    pub fn check_tokens(&self) -> Vec<Fault> {
        let files = [
            ("admin", self.admin.token_file.as_ref()),
            ("observe", self.observe.as_ref().and_then(|observe| observe.token_file.as_ref())),
        ];
        let wrong = |(section, file): (&str, Option<&PathBuf>)| {
            let error = belfry_door::Tokens::read(file?).err()?;
            Some(Fault {
                source: format!("[{section}] token_file"),
                position: None,
                message: error.to_string(),
            })
        };
        let doors = self.observe.as_ref().and_then(|observe| observe.doors.as_deref());
        let of_doors = doors.into_iter().flat_map(belfry_pipeline::doors::DoorsConfig::token_files);
        let of_doors = of_doors.map(|(section, file)| (section, Some(file)));
        let scrape = self.observe.as_ref().and_then(|observe| observe.scrape.check_file());
        let scrape = scrape.map(|message| Fault {
            source: "[observe.scrape] file".to_owned(),
            position: None,
            message,
        });
        files.into_iter().chain(of_doors).filter_map(wrong).chain(scrape).collect()
    }

    /// What is wrong although it has the right type: section, key inside it, what is allowed.
    fn check(&self) -> Vec<(&'static str, String, String)> {
        let mut faults = Vec::new();
        let mut add = |section: &'static str, below: &str, found: Vec<(String, String)>| {
            for (key, message) in found {
                let key = if below.is_empty() { key } else { format!("{below}.{key}") };
                faults.push((section, key, message));
            }
        };
        add("node", "", self.node.check());
        add("admin", "", self.admin.check());
        add("mesh", "", self.mesh.check());
        if let Some(edge) = &self.edge {
            add("edge", "", edge.check());
        }
        if let Some(core) = &self.core {
            add("core", "signalling", core.signalling.check());
            add("core", "state", core.state.check());
            add("core", "routing", core.routing.check());
            add("core", "billing", core.billing.check());
        }
        if let Some(media) = &self.media {
            add("media", "", media.check());
        }
        if let Some(observe) = &self.observe {
            add("observe", "", observe.check());
            add("observe", "query", observe.query.check());
            add("observe", "pipeline", observe.pipeline.check());
            add("observe", "receive", observe.receive.check());
            add("observe", "scrape", observe.scrape.check());
            add("observe", "series", observe.series.check());
            add("observe", "events", observe.events.check());
            if let Some(doors) = &observe.doors {
                add("observe", "doors", doors.check(observe.pipeline.record_bytes_max));
            }
        }
        if let Some(alerts) = &self.alerts {
            add("alerts", "engine", alerts.engine.check());
            add("alerts", "routing", alerts.routing.check());
            add("alerts", "notify", alerts.notify.check());
            if self.observe.is_none() {
                faults.push((
                    "alerts",
                    String::new(),
                    "needs the section [observe] in the same process".to_owned(),
                ));
            }
        }
        if let Some(dashboard) = &self.dashboard {
            let mut add = |found: Vec<(String, String)>| {
                faults.extend(found.into_iter().map(|(key, message)| ("dashboard", key, message)));
            };
            add(dashboard.check());
            if self.observe.is_none() || self.alerts.is_none() {
                let message = "needs the sections [observe] and [alerts] in the same process";
                faults.push(("dashboard", String::new(), message.to_owned()));
            }
        }
        faults
    }
}

/// Keys of `[edge]` that a running edge cannot change.
const EDGE_RESTART_KEYS: &[&str] = &["threads", "listeners", "limits", "timeouts", "sip"];

/// What differs between two configuration texts and needs a restart: all but the edge's certificates, GeoIP file,
/// steering and routes, and the core's routing, which a running process takes over.
#[must_use]
pub fn needs_restart(old: &str, new: &str) -> Vec<String> {
    let parse = |text: &str| text.parse::<toml::Table>().unwrap_or_default();
    let (old, new) = (parse(old), parse(new));
    let mut changed = Vec::new();
    for section in SECTIONS {
        let (old, new) = (old.get(*section), new.get(*section));
        let is_kept_on = old.is_some() == new.is_some();
        let within = |table: Option<&toml::Value>, key: &str| table.and_then(|table| table.get(key)).cloned();
        if *section == "edge" && is_kept_on {
            let keys = EDGE_RESTART_KEYS.iter().filter(|key| within(old, key) != within(new, key));
            changed.extend(keys.map(|key| format!("edge.{key}")));
        } else if *section == "core" && is_kept_on {
            changed.extend(core_restart_keys(old, new).into_iter().map(|key| format!("core.{key}")));
        } else if *section == "alerts" && is_kept_on && without_alert_files(old) == without_alert_files(new) {
            // Rules and routes of alerts are read again by a running process.
        } else if old != new {
            changed.push((*section).to_owned());
        }
    }
    changed
}

/// `[alerts]` without the files that are read again while it runs.
fn without_alert_files(alerts: Option<&toml::Value>) -> Option<toml::Value> {
    let mut alerts = alerts.cloned()?;
    if let Some(routing) = alerts.get_mut("routing").and_then(toml::Value::as_table_mut) {
        routing.remove("rule_files");
        routing.remove("alertmanager_file");
    }
    Some(alerts)
}

/// Keys of `[core]` that differ and that a running core cannot change: all but the routes.
fn core_restart_keys(old: Option<&toml::Value>, new: Option<&toml::Value>) -> Vec<String> {
    let (old, new) = (old.and_then(toml::Value::as_table), new.and_then(toml::Value::as_table));
    let keys: std::collections::BTreeSet<&String> =
        old.into_iter().chain(new).flat_map(toml::Table::keys).collect();
    let differs = |key: &&String| old.and_then(|old| old.get(*key)) != new.and_then(|new| new.get(*key));
    keys.into_iter().filter(|key| *key != "routing").filter(differs).cloned().collect()
}

impl Node {
    fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        for (key, name) in [("name", &self.name), ("site", &self.site)] {
            if let Err(error) = belfry_signal::label::check_name(name) {
                faults.push((key.to_owned(), error.to_string()));
            }
        }
        for (key, threads) in [("data_threads", self.data_threads), ("tower_threads", self.tower_threads)] {
            if !(1..=256).contains(&threads) {
                faults.push((key.to_owned(), "use 1 to 256".to_owned()));
            }
        }
        if !(1024..=16_000_000).contains(&self.records_max) {
            faults.push(("records_max".to_owned(), "use 1024 to 16000000".to_owned()));
        }
        faults
    }
}

impl Config {
    /// The same with every relative path put below the data directory.
    fn placed(mut self) -> Self {
        let data = self.node.data.clone();
        for path in self.paths() {
            // Joining an absolute path gives that path.
            *path = data.join(&*path);
        }
        self
    }

    /// Every path of every section.
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = Vec::new();
        if let Some(identity) = &mut self.mesh.identity {
            let files = [
                &mut identity.directory,
                &mut identity.certificate,
                &mut identity.key,
                &mut identity.authority,
            ];
            paths.extend(files.into_iter().flatten());
        }
        if let Some(edge) = &mut self.edge {
            paths.extend([&mut edge.tls.directory, &mut edge.sip.flow_key_file]);
            paths.extend(
                edge.tls.certificates.iter_mut().flat_map(|pair| [&mut pair.chain_file, &mut pair.key_file]),
            );
            paths.extend(&mut edge.tls.peer_ca_files);
            paths.extend(edge.geoip.as_mut().map(|geoip| &mut geoip.database));
        }
        if let Some(core) = &mut self.core {
            paths.push(&mut core.state.directory);
        }
        paths.extend(&mut self.admin.token_file);
        if let Some(observe) = &mut self.observe {
            paths.extend(&mut observe.token_file);
            paths.extend(&mut observe.scrape.file);
            paths.extend([
                &mut observe.pipeline.directory,
                &mut observe.events.directory,
                &mut observe.series.directory,
                &mut observe.receive.groups_directory,
            ]);
            paths.extend(observe.doors.iter_mut().flat_map(|doors| doors.paths()));
        }
        if let Some(alerts) = &mut self.alerts {
            paths.extend([&mut alerts.engine.directory, &mut alerts.notify.directory]);
            // The rules that come with Belfry are no file.
            paths.extend(alerts.routing.rule_files.iter_mut().filter(|file| file.as_os_str() != "shipped"));
            paths.extend(&mut alerts.routing.alertmanager_file);
            paths.extend(
                alerts.notify.services.iter_mut().filter_map(|service| service.routing_key_file.as_mut()),
            );
        }
        paths.extend(self.dashboard.as_mut().and_then(|dashboard| dashboard.sessions_file.as_mut()));
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routes_that_the_shipped_file_shows_are_good() {
        let start = SHIPPED.find("# [[core.routing.tenants]]").expect("they are shown");
        let shown = SHIPPED[start..].lines().map_while(|line| line.strip_prefix("# "));
        let text = format!("[core.signalling]\n{}\n", shown.collect::<Vec<_>>().join("\n"));
        let core = Config::parse("shown", &text, &[]).expect("good").core.expect("there is a core");
        assert_eq!((core.routing.tenants.len(), core.routing.trunks.len()), (1, 1));
        assert_eq!(core.routing.trunks[0].prefixes.len(), 2);
        let broken = text.replace("priority = 1\n", "priority = 1\ncolour = 3\n");
        let faults = Config::parse("shown", &broken, &[]).expect_err("an unknown key");
        assert!(
            faults[0].message.contains("unknown field `colour`") && faults[0].position.is_some(),
            "{faults:?}"
        );
        let broken = text.replace("uri = \"sip:203.0.113.11\"", "uri = \"203.0.113.11\"");
        let faults = Config::parse("shown", &broken, &[]).expect_err("no URI");
        let line = broken.lines().position(|line| line.starts_with("gateways")).expect("a line") + 1;
        let fault = &faults[0];
        assert!(fault.message.contains("`core.routing.trunks[0].gateways[1].uri`"), "{fault}");
        assert_eq!(fault.position.map(|(line, _)| line), Some(line));
    }

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        let old = "[edge]\nthreads = 1\n[edge.tls]\nnames = []\n[media]\nworkers = 1\n";
        let check = |new: &str, expected: &[&str]| assert_eq!(needs_restart(old, new), expected, "{new}");
        check(old, &[]);
        check("[edge]\nthreads = 1\n[edge.tls]\nnames = [\"a\"]\n[media]\nworkers = 1\n", &[]);
        check(
            "[edge]\nthreads = 2\n[edge.tls]\nnames = []\n[media]\nworkers = 2\n",
            &["edge.threads", "media"],
        );
        check("[media]\nworkers = 1\n", &["edge"]);
        let old = "[core.signalling]\ncalls_max = 1\n";
        let check = |new: &str, expected: &[&str]| assert_eq!(needs_restart(old, new), expected, "{new}");
        check("[core.signalling]\ncalls_max = 1\n[[core.routing.trunks]]\nname = \"a\"\n", &[]);
        check("[core.signalling]\ncalls_max = 2\n[core.state]\n", &["core.signalling", "core.state"]);
    }
}
