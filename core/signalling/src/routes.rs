//! The routes that calls go by: put together from the configuration and the store, compiled, and swapped as a whole.
//!
//! A task of its own looks whether something was imported, and takes new configurations. What does not compile is told
//! and changes nothing: calls go on by the old routes.
//!
//! Not here: decisions (the routing crate) and what they do to calls (the proxy).

mod quiet;
mod signals;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use belfry_routing::{Alias, Block, Cost, DEFAULT_TENANT, Plan, PrefixRow, Side, Table, TableError};
use belfry_state::{RouteAlias, RouteBlock, RoutePrefix, RouteRows, State};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Config;
use crate::core::{Control, Core};
use crate::signals::Signals;

pub(crate) use quiet::QuietGateways;
pub(crate) use signals::{
    FraudAction, ProbeOutcome, RouteOutcome, Routed, RoutingSignals, TenantName, TrunkName, TrunkOutcome,
};

/// New configurations that may wait.
pub(crate) const REROUTES_MAX: usize = 4;

/// Why there are no new routes.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// An imported document is not of the shape of `[core.routing]`.
    #[error("imported document {name:?}: {message}")]
    Document {
        /// Its name.
        name: String,
        /// What is wrong, with line and column.
        message: String,
    },
    /// Configuration and imports do not hold together.
    #[error("routes: {0}")]
    Plan(#[from] TableError),
    /// A trunk's password cannot be read.
    #[error("password of trunk {trunk}: cannot read {}: {source}", path.display())]
    Password {
        /// The trunk.
        trunk: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store cannot be read.
    #[error("imported routes: {0}")]
    Store(#[from] belfry_state::Error),
    /// Nobody takes new routes: the core has stopped.
    #[error("the core has stopped")]
    Stopped,
}

impl RoutesError {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Document { .. } => "document",
            Self::Plan(_) => "plan",
            Self::Password { .. } => "password",
            Self::Store(_) => "store",
            Self::Stopped => "stopped",
        }
    }
}

/// Where routes come from, and the first ones.
#[derive(Debug)]
pub struct Routes {
    source: Source,
    active: Arc<Active>,
    /// The imports that `active` knows.
    version: Option<u64>,
    fault: Option<RoutesError>,
}

/// What the configuration says.
#[derive(Clone, Debug)]
struct Source {
    plan: Plan,
    domains: Vec<String>,
    /// Tenants with a label of their own.
    tenants_labelled_max: usize,
    /// Relative password files are below it.
    directory: PathBuf,
}

/// Routes as calls use them.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) table: Table,
    /// Our passwords at trunks, by trunk.
    pub(crate) passwords: HashMap<Arc<str>, String>,
    trunks: HashMap<Arc<str>, TrunkName>,
    tenants: HashMap<Arc<str>, TenantName>,
}

impl Active {
    /// A trunk's name as a label.
    pub(crate) fn trunk_label(&self, name: &str) -> TrunkName {
        self.trunks.get(name).cloned().unwrap_or_else(TrunkName::other)
    }

    /// A tenant's name as a label; those beyond the label's bound share one.
    pub(crate) fn tenant_label(&self, name: &str) -> TenantName {
        self.tenants.get(name).cloned().unwrap_or_else(TenantName::other)
    }
}

impl Routes {
    /// Routes by the plan alone, with domains and bounds of the signalling section; relative password files are below
    /// `directory`.
    ///
    /// # Errors
    /// When the plan does not hold together, or a password cannot be read.
    pub fn of(plan: Plan, config: &Config, directory: &Path) -> Result<Self, RoutesError> {
        let source = Source {
            plan,
            domains: config.domains.clone(),
            tenants_labelled_max: config.tenants_labelled_max,
            directory: directory.to_owned(),
        };
        let active = Arc::new(source.compile(source.plan.clone())?);
        Ok(Self { source, active, version: None, fault: None })
    }

    /// Routes by the configuration and everything that was imported. Imports that do not hold together are left out,
    /// which the core tells when it starts.
    ///
    /// # Errors
    /// When the configuration alone does not hold together, or a password cannot be read.
    pub async fn load(
        plan: Plan,
        config: &Config,
        directory: &Path,
        state: &State,
    ) -> Result<Self, RoutesError> {
        let mut routes = Self::of(plan, config, directory)?;
        match read(&routes.source, state).await {
            (version, Ok(active)) => {
                routes.active = active;
                routes.version = version;
            }
            (version, Err(fault)) => {
                routes.version = version;
                routes.fault = Some(fault);
            }
        }
        Ok(routes)
    }

    pub(crate) fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active)
    }
}

/// Everything that counts: the configuration with what was imported.
///
/// # Errors
/// When an imported document cannot be read. The whole may still have faults: [`Plan::check`] names them.
pub fn compose(plan: &Plan, rows: &RouteRows) -> Result<Plan, RoutesError> {
    let mut whole = plan.clone();
    for document in &rows.documents {
        let part: Plan = toml::from_str(&document.text).map_err(|error| {
            let message = error.to_string().trim().replace('\n', " ");
            RoutesError::Document { name: document.name.clone(), message }
        })?;
        whole.append(part);
    }
    whole.append(plan_of(&rows.prefixes, &rows.aliases, &rows.blocks));
    Ok(whole)
}

/// The store's rows as a plan with nothing else in it.
fn plan_of(prefixes: &[RoutePrefix], aliases: &[RouteAlias], blocks: &[RouteBlock]) -> Plan {
    let tenant = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    let prefix = |row: &RoutePrefix| PrefixRow {
        trunk: row.trunk.clone(),
        prefix: row.prefix.clone(),
        cost: row.cost_millionths.map(Cost),
        priority: row.priority,
        weight: row.weight,
    };
    let alias = |row: &RouteAlias| Alias {
        number: row.number.clone(),
        tenant: tenant(&row.tenant),
        address: row.address.clone(),
    };
    let block = |row: &RouteBlock| Block {
        tenant: tenant(&row.tenant),
        side: if row.side == "caller" { Side::Caller } else { Side::Called },
        prefix: row.prefix.clone(),
        is_allowed: row.is_allowed,
    };
    Plan {
        prefixes: prefixes.iter().map(prefix).collect(),
        aliases: aliases.iter().map(alias).collect(),
        blocks: blocks.iter().map(block).collect(),
        ..Plan::default()
    }
}

impl Source {
    fn compile(&self, plan: Plan) -> Result<Active, RoutesError> {
        let table = Table::compile(&plan, &self.domains)?;
        let mut passwords = HashMap::new();
        for trunk in &plan.trunks {
            let Some(file) = &trunk.password_file else { continue };
            let path = self.directory.join(file);
            let text = std::fs::read_to_string(&path).map_err(|source| RoutesError::Password {
                trunk: trunk.name.clone(),
                path,
                source,
            })?;
            passwords.insert(trunk.name.as_str().into(), text.trim_end_matches(['\r', '\n']).to_owned());
        }
        let trunks = table.trunks().filter_map(|trunk| {
            let label = TrunkName::configured(&trunk.name).ok()?;
            Some((Arc::clone(&trunk.name), label))
        });
        let trunks = trunks.collect();
        // One of them stands for all that are too many.
        let tenants =
            table.tenants().take(self.tenants_labelled_max.min(TenantName::MAX - 1)).filter_map(|tenant| {
                let label = TenantName::configured(tenant).ok()?;
                Some((Arc::clone(tenant), label))
            });
        let tenants = tenants.collect();
        Ok(Active { table, passwords, trunks, tenants })
    }
}

/// Reads and compiles what there is now; the version even when it does not compile, so that one fault is told once.
async fn read(source: &Source, state: &State) -> (Option<u64>, Result<Arc<Active>, RoutesError>) {
    let rows = match state.routes().await {
        Ok(rows) => rows,
        Err(error) => return (None, Err(error.into())),
    };
    let (version, source) = (rows.version, source.clone());
    // A hundred thousand prefixes take a moment, which no other task should wait for.
    let compiling = tokio::task::spawn_blocking(move || {
        let plan = compose(&source.plan, &rows_of_known(&source.plan, rows))?;
        source.compile(plan).map(Arc::new)
    });
    (Some(version), compiling.await.unwrap_or(Err(RoutesError::Stopped)))
}

/// The rows of trunks and tenants that some plan names: the others are no fault, only of no use.
#[must_use]
pub fn rows_of_known(plan: &Plan, mut rows: RouteRows) -> RouteRows {
    let documents = rows.documents.iter().filter_map(|document| toml::from_str::<Plan>(&document.text).ok());
    let documents: Vec<Plan> = documents.collect();
    let plans = || documents.iter().chain([plan]);
    let trunks: HashSet<&str> =
        plans().flat_map(|plan| &plan.trunks).map(|trunk| trunk.name.as_str()).collect();
    let tenants: HashSet<&str> =
        plans().flat_map(|plan| &plan.tenants).map(|tenant| tenant.name.as_str()).collect();
    let is_known = |tenant: &str| matches!(tenant, "" | DEFAULT_TENANT) || tenants.contains(tenant);
    rows.prefixes.retain(|row| trunks.contains(row.trunk.as_str()));
    rows.aliases.retain(|row| is_known(&row.tenant));
    rows.blocks.retain(|row| is_known(&row.tenant));
    rows
}

/// A new configuration, and who waits for its being in force.
#[derive(Debug)]
pub(crate) struct Reroute {
    pub(crate) plan: Plan,
    pub(crate) done: oneshot::Sender<Result<(), RoutesError>>,
}

/// Keeps the routes up to date.
#[derive(Debug)]
pub(crate) struct Keeper {
    source: Source,
    version: Option<u64>,
    state: State,
    signals: Signals,
    /// Weak, so that a core whose handles are gone still ends.
    core: mpsc::WeakSender<Control>,
    /// For the tasks of links.
    published: watch::Sender<Arc<Active>>,
}

impl Keeper {
    pub(crate) fn new(
        routes: Routes,
        state: State,
        signals: Signals,
        core: mpsc::WeakSender<Control>,
        published: watch::Sender<Arc<Active>>,
    ) -> Self {
        match &routes.fault {
            Some(fault) => signals.routing.refused(fault),
            None => signals.routing.loaded(routes.version, routes.active.table.size()),
        }
        Self { source: routes.source, version: routes.version, state, signals, core, published }
    }

    /// Runs until the core is gone.
    pub(crate) async fn run(mut self, mut reroutes: mpsc::Receiver<Reroute>, poll_interval: Duration) {
        let mut ticks = tokio::time::interval(poll_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                reroute = reroutes.recv() => match reroute {
                    Some(Reroute { plan, done }) => {
                        // Whoever asked may not wait any more.
                        let _ = done.send(self.replace(plan).await);
                    }
                    None => return,
                },
                _ = ticks.tick() => self.look().await,
            }
        }
    }

    /// Takes a new configuration, or keeps the old one.
    async fn replace(&mut self, plan: Plan) -> Result<(), RoutesError> {
        let source = Source { plan, ..self.source.clone() };
        let (version, read) = read(&source, &self.state).await;
        match read {
            Ok(active) => {
                self.source = source;
                self.version = version;
                self.publish(active).await;
                Ok(())
            }
            Err(fault) => {
                self.signals.routing.refused(&fault);
                Err(fault)
            }
        }
    }

    /// Looks whether something was imported.
    async fn look(&mut self) {
        let version = match self.state.routes_version().await {
            Ok(version) => version,
            Err(error) => return self.signals.store_failed(error.reason()),
        };
        if self.version == Some(version) {
            return;
        }
        if self.version.is_none() && version == 0 {
            self.version = Some(0);
            return;
        }
        let (read_version, read) = read(&self.source, &self.state).await;
        self.version = read_version.or(self.version);
        match read {
            Ok(active) => self.publish(active).await,
            Err(fault) => self.signals.routing.refused(&fault),
        }
    }

    async fn publish(&self, active: Arc<Active>) {
        self.signals.routing.loaded(self.version, active.table.size());
        self.published.send_replace(Arc::clone(&active));
        // A core that is gone needs no routes.
        if let Some(core) = self.core.upgrade() {
            let _ = core.send(Control::Routes(active)).await;
        }
    }
}

impl Core {
    /// What limits hold now, for the gauges.
    pub(crate) fn report_usage(&self) {
        let signals = &self.signals.routing;
        let gateways = self.gateways.probes.all();
        for (name, label) in &self.routes.trunks {
            signals.trunk_load(label.clone(), self.usage.trunk_calls(name));
            let (up, down): (Vec<_>, Vec<_>) =
                gateways.iter().filter(|one| one.key.0 == *name).partition(|one| !one.is_down);
            signals.gateways_counted(label, up.len(), down.len());
        }
        for (name, label) in &self.routes.tenants {
            signals.tenant_load(label.clone(), self.usage.tenant_calls(name));
        }
        signals.tenants_unlabelled(self.routes.table.size().tenants - self.routes.tenants.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belfry_state::RouteDocument;

    fn rows(documents: &[(&str, &str)]) -> RouteRows {
        let document = |(name, text): &(&str, &str)| RouteDocument {
            name: (*name).to_owned(),
            text: (*text).to_owned(),
            imported_unix_nanos: 0,
        };
        RouteRows { documents: documents.iter().map(document).collect(), ..RouteRows::default() }
    }

    #[test]
    fn imports_and_configuration_make_one_plan() {
        let file: Plan = toml::from_str("[[trunks]]\nname = \"a\"\n").expect("a plan");
        let mut rows = rows(&[("more", "[[trunks]]\nname = \"b\"\n[emergency]\nnumbers = [\"999\"]\n")]);
        let prefix = |trunk: &str| RoutePrefix {
            trunk: trunk.to_owned(),
            prefix: "44".to_owned(),
            cost_millionths: Some(5),
            priority: None,
            weight: None,
        };
        rows.prefixes = vec![prefix("a"), prefix("b"), prefix("gone")];
        let plan = compose(&file, &rows_of_known(&file, rows)).expect("composes");
        assert_eq!(plan.check(), vec![]);
        assert_eq!((plan.trunks.len(), plan.prefixes.len()), (2, 2));
        assert_eq!(plan.emergency.numbers, ["999"]);
    }

    #[test]
    fn a_broken_document_is_named() {
        let error =
            compose(&Plan::default(), &rows(&[("bad", "[[trunks]]\nnam = 1\n")])).expect_err("broken");
        let text = error.to_string();
        assert!(text.contains("\"bad\"") && text.contains("line 2"), "{text}");
        assert_eq!(error.reason(), "document");
    }

    #[test]
    fn passwords_come_from_files() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a.secret"), "s3cret\n").expect("writes");
        let text = "[[trunks]]\nname = \"a\"\nuser = \"u\"\npassword_file = \"a.secret\"\n";
        let plan: Plan = toml::from_str(text).expect("a plan");
        let routes = Routes::of(plan.clone(), &Config::for_test(), folder.path()).expect("loads");
        assert_eq!(routes.active.passwords.get("a").map(String::as_str), Some("s3cret"));
        let error = Routes::of(plan, &Config::for_test(), Path::new("/nowhere")).expect_err("no file");
        assert!(error.to_string().contains("/nowhere/a.secret"), "{error}");
    }
}
