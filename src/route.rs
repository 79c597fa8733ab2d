//! `belfry route`: what the routes say about a call, what they are, and how they get into the store.
//!
//! Everything here works on the configuration file and the store beside a running Belfry, which sees imports by itself.

mod health;
mod import;

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use belfry_routing::{Caller, Cost, Decision, Hop, Outcome, Plan, Question, Step, Table, TrunkId};
use belfry_signal::{Registry, Resource, now_unix_nanos};
use belfry_state::{RouteRows, State};
use serde_json::{Value, json};

use crate::cli::{RouteExplainArguments, RouteKind, RouteListArguments};
use crate::commands::{block_on, complain, say};
use crate::config::{Config, Core};
use crate::run::{load, refuse};
use crate::slo_table::aligned;

pub use import::import;

/// Rows that `list` prints when it is not asked for JSON.
const ROWS_SHOWN_MAX: usize = 200;

/// `belfry route explain`.
///
/// # Errors
/// When the configuration or the store cannot be read, or an argument means nothing.
pub fn explain(arguments: &RouteExplainArguments) -> anyhow::Result<ExitCode> {
    let core = match core_of(&arguments.config)? {
        Ok(core) => core,
        Err(code) => return Ok(code),
    };
    let rows = stored(&core)?;
    let plan = belfry_signalling::compose(&core.routing, &rows)?;
    let table = Table::compile(&plan, &core.signalling.domains).context("compile the routes")?;
    let unix_seconds = unix_seconds_of(&arguments.at)?;
    let home = core.signalling.domains.first().map_or("localhost", String::as_str);
    let called = Called::read(&arguments.to, home);
    let from = From::read(&arguments.from, &table, home)?;
    let question = Question {
        caller: from.caller(),
        user: &called.user,
        domain: &called.domain,
        is_telephone: called.is_telephone,
        context: called.context.as_deref(),
        is_emergency_urn: called.is_emergency_urn,
        unix_seconds,
        random: arguments.seed,
    };
    let mut steps: Vec<Step> = Vec::new();
    let decision = table.decide(&question, &mut steps);
    steps.extend(health::steps(&table, &decision, &arguments.site));
    if arguments.json {
        say(&serde_json::to_string_pretty(&decision_json(&table, &decision, &steps))?);
    } else {
        steps.iter().for_each(|step| say(&step.to_string()));
    }
    Ok(if matches!(decision.outcome, Outcome::Refused(_)) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `belfry route list`.
///
/// # Errors
/// When the configuration or the store cannot be read.
pub fn list(arguments: &RouteListArguments) -> anyhow::Result<ExitCode> {
    let core = match core_of(&arguments.config)? {
        Ok(core) => core,
        Err(code) => return Ok(code),
    };
    let rows = stored(&core)?;
    let plan = belfry_signalling::compose(&core.routing, &rows)?;
    let table = table_of(arguments.kind, &plan, &rows);
    if arguments.json {
        let [head, rest @ ..] = table.as_slice() else { return Ok(ExitCode::SUCCESS) };
        let objects: Vec<Value> = rest
            .iter()
            .map(|row| {
                let field =
                    |(key, value): (&String, &String)| (key.to_lowercase().replace(' ', "_"), json!(value));
                Value::Object(head.iter().zip(row).map(field).collect())
            })
            .collect();
        say(&serde_json::to_string_pretty(&objects)?);
        return Ok(ExitCode::SUCCESS);
    }
    let shown = &table[..table.len().min(ROWS_SHOWN_MAX + 1)];
    say(aligned(shown).trim_end());
    if table.len() > shown.len() {
        complain(&format!("{} more; --json shows all", table.len() - shown.len()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The core's section, or the exit code of a configuration that is wrong.
fn core_of(path: &Path) -> anyhow::Result<Result<Core, ExitCode>> {
    let config: Config = match load(path) {
        Ok((config, _)) => config,
        Err(faults) => return Ok(Err(refuse(&faults))),
    };
    match config.core {
        Some(core) => Ok(Ok(core)),
        None => bail!("{} has no [core] section, so there are no routes", path.display()),
    }
}

fn stored(core: &Core) -> anyhow::Result<RouteRows> {
    let registry = Registry::new(Resource::for_test(), 1).0;
    let reading =
        async { State::read_routes(&core.state, &registry).await.context("read the imported routes") };
    Ok(belfry_signalling::rows_of_known(&core.routing, block_on(reading)?))
}

/// A time as people write it, in seconds since the Unix epoch.
fn unix_seconds_of(text: &str) -> anyhow::Result<i64> {
    if text == "now" {
        return Ok(i64::try_from(now_unix_nanos() / 1_000_000_000).unwrap_or(i64::MAX));
    }
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let time: jiff::Timestamp = text
        .parse()
        .with_context(|| format!("{text:?} is neither now, 2026-11-20T18:30:00Z nor Unix seconds"))?;
    Ok(time.as_second())
}

/// Who calls, as `--from` says.
enum From {
    Subscriber { user: String, domain: String },
    Trunk { trunk: TrunkId, claimed: Option<String> },
}

impl From {
    fn read(text: &str, table: &Table, home: &str) -> anyhow::Result<Self> {
        if let Some(rest) = text.strip_prefix("trunk:") {
            let (name, claimed) =
                rest.split_once('/').map_or((rest, None), |(name, number)| (name, Some(number)));
            let place = table.trunks().position(|trunk| &*trunk.name == name);
            let names: Vec<&str> = table.trunks().map(|trunk| &*trunk.name).collect();
            let place = place
                .with_context(|| format!("no trunk is called {name:?}; there are {}", names.join(", ")))?;
            let trunk = TrunkId(u16::try_from(place).unwrap_or(u16::MAX));
            return Ok(Self::Trunk { trunk, claimed: claimed.map(str::to_owned) });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            let trunk = table.trunk_of_address(address);
            let trunk = trunk.with_context(|| format!("no trunk accepts requests from {address}"))?;
            return Ok(Self::Trunk { trunk, claimed: None });
        }
        let address = text.strip_prefix("sip:").unwrap_or(text);
        let (user, domain) = address.split_once('@').unwrap_or((address, home));
        Ok(Self::Subscriber { user: user.to_owned(), domain: domain.to_owned() })
    }

    fn caller(&self) -> Caller<'_> {
        match self {
            Self::Subscriber { user, domain } => Caller::Subscriber { user, domain },
            Self::Trunk { trunk, claimed } => Caller::Trunk { trunk: *trunk, claimed: claimed.as_deref() },
        }
    }
}

/// Who is called, as `--to` says.
struct Called {
    user: String,
    domain: String,
    is_telephone: bool,
    context: Option<String>,
    is_emergency_urn: bool,
}

impl Called {
    fn read(text: &str, home: &str) -> Self {
        let is_urn = text.starts_with("urn:service:sos");
        let is_telephone = text.starts_with("tel:") || text.contains(";user=phone");
        let bare =
            ["sips:", "sip:", "tel:"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        let context =
            bare.split(";phone-context=").nth(1).map(|rest| rest.split([';', '@']).next().unwrap_or(rest));
        let (user, domain) = bare.split_once('@').unwrap_or((bare, home));
        let plain = |part: &str| part.split(';').next().unwrap_or_default().to_owned();
        Self {
            user: if is_urn { String::new() } else { plain(user) },
            domain: plain(domain),
            is_telephone,
            context: context.map(str::to_owned),
            is_emergency_urn: is_urn,
        }
    }
}

fn decision_json(table: &Table, decision: &Decision, steps: &[Step]) -> Value {
    let way = |hop: &Hop| {
        let trunk = table.trunk(hop.trunk);
        let gateway = trunk.and_then(|trunk| trunk.gateways.get(usize::from(hop.gateway)));
        json!({
            "trunk": trunk.map(|trunk| trunk.name.to_string()),
            "gateway": gateway.map(belfry_routing::GatewayEntry::uri),
            "called": hop.called,
            "caller": hop.caller,
            "cost_per_minute": hop.cost.to_string(),
        })
    };
    let outcome = match &decision.outcome {
        Outcome::Local(local) => json!({ "local": format!("{}@{}", local.user, local.domain) }),
        Outcome::Trunks(hops) => json!({ "trunks": hops.iter().map(way).collect::<Vec<_>>() }),
        Outcome::Refused(refusal) => json!({ "refused": {
            "status": refusal.status(), "reason": refusal.reason.as_str(), "text": refusal.reason.text(),
        }}),
    };
    let steps: Vec<Value> =
        steps.iter().map(|step| json!({ "rule": step.rule, "detail": step.detail })).collect();
    json!({
        "outcome": outcome,
        "tenant": &*decision.tenant,
        "is_emergency": decision.is_emergency,
        "called": decision.called.map(|number| number.to_string()),
        "caller": decision.caller.map(|number| number.to_string()),
        "steps": steps,
    })
}

/// A list with its head.
fn table_of(kind: RouteKind, plan: &Plan, rows: &RouteRows) -> Vec<[String; 5]> {
    let head = |names: [&str; 5]| names.map(str::to_owned);
    let mut table = match kind {
        RouteKind::Trunks => vec![head(["TRUNK", "GATEWAYS", "PRIORITY", "COST", "CALLS MAX"])],
        RouteKind::Tenants => vec![head(["TENANT", "DOMAINS", "COUNTRY CODE", "CALLS MAX", "OWN PREFIXES"])],
        RouteKind::Prefixes => vec![head(["TRUNK", "PREFIX", "COST", "PRIORITY", "WEIGHT"])],
        RouteKind::Aliases => vec![head(["NUMBER", "ADDRESS", "TENANT", "", ""])],
        RouteKind::Blocks => vec![head(["SIDE", "PREFIX", "ACTION", "TENANT", ""])],
        RouteKind::Documents => vec![head(["DOCUMENT", "BYTES", "TRUNKS", "TENANTS", "ALIASES"])],
    };
    match kind {
        RouteKind::Trunks => table.extend(plan.trunks.iter().map(|trunk| {
            let gateways: Vec<&str> = trunk.gateways.iter().map(|gateway| gateway.uri.as_str()).collect();
            let limit = bound(trunk.concurrent_calls_max);
            [
                trunk.name.clone(),
                gateways.join(" "),
                trunk.priority.to_string(),
                trunk.cost.to_string(),
                limit,
            ]
        })),
        RouteKind::Tenants => table.extend(plan.tenants.iter().map(|tenant| {
            let limit = bound(tenant.concurrent_calls_max);
            let (domains, own) = (tenant.domains.join(" "), tenant.own_prefixes.join(" "));
            [tenant.name.clone(), domains, tenant.dial.country_code.clone(), limit, own]
        })),
        RouteKind::Prefixes => table.extend(prefixes(plan)),
        RouteKind::Aliases => table.extend(plan.aliases.iter().map(|alias| {
            let tenant = alias.tenant.clone().unwrap_or_default();
            [alias.number.clone(), alias.address.clone(), tenant, String::new(), String::new()]
        })),
        RouteKind::Blocks => table.extend(plan.blocks.iter().map(|block| {
            let side = if block.side == belfry_routing::Side::Caller { "caller" } else { "called" };
            let action = if block.is_allowed { "allow" } else { "block" };
            let tenant = block.tenant.clone().unwrap_or_default();
            [side.to_owned(), block.prefix.clone(), action.to_owned(), tenant, String::new()]
        })),
        RouteKind::Documents => table.extend(rows.documents.iter().map(|document| {
            let part: Plan = toml::from_str(&document.text).unwrap_or_default();
            let counts =
                [part.trunks.len(), part.tenants.len(), part.aliases.len()].map(|count| count.to_string());
            let [trunks, tenants, aliases] = counts;
            [document.name.clone(), document.text.len().to_string(), trunks, tenants, aliases]
        })),
    }
    table
}

fn prefixes(plan: &Plan) -> Vec<[String; 5]> {
    let row = |trunk: &str, prefix: &str, cost: Option<Cost>, priority: Option<u16>, weight: Option<u16>| {
        let number = |number: Option<u16>| number.map(|number| number.to_string()).unwrap_or_default();
        let cost = cost.map_or_else(|| "-".to_owned(), |cost| cost.to_string());
        [trunk.to_owned(), prefix.to_owned(), cost, number(priority), number(weight)]
    };
    let own = plan.trunks.iter().flat_map(|trunk| {
        trunk.prefixes.iter().map(|p| row(&trunk.name, &p.prefix, p.cost, p.priority, p.weight))
    });
    own.chain(plan.prefixes.iter().map(|p| row(&p.trunk, &p.prefix, p.cost, p.priority, p.weight))).collect()
}

fn bound(calls_max: u32) -> String {
    if calls_max == 0 { "-".to_owned() } else { calls_max.to_string() }
}
