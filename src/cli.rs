//! The command line: what each command does, told by `--help`.

mod billing;
mod live;
mod logs;
mod slo;
mod test;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use billing::{
    AccountCommand, BillingCommand, RecordFormat, RecordRange, RecordSelection, RecordsCommand,
    RecordsExportArguments, RecordsListArguments,
};
pub use live::{BansCommand, CallsArguments, CallsCommand};
pub use logs::LogsArguments;
pub use slo::{BacktestArguments, SloArguments, SloCommand};
pub use test::TestCommand;

/// Everything after `belfry`.
#[derive(Debug, Parser)]
#[command(
    name = "belfry",
    version,
    about = "One binary for real-time communications: TLS edge, SIP core, media relay, telemetry, SLOs and paging.",
    long_about = "Belfry is one binary that carries calls and watches itself while it does.\n\n\
        A file says which rooms are on: a room is on when its section is present in belfry.toml, so the same binary \
        runs as edge, core, media, observe, or all in one.",
    after_long_help = "FIRST STEPS\n  \
        belfry demo                              everything on loopback, with simulated customers\n  \
        belfry check --config belfry.toml        every mistake in a configuration, with line and column\n  \
        belfry run --config belfry.toml          the real thing; SIGTERM drains, SIGHUP reloads\n\n\
        LOOKING AT A RUNNING BELFRY (from the same machine)\n  \
        belfry slo                               objectives, budgets, burn\n  \
        belfry call CALL-ID                      ladder, quality and logs of one call\n  \
        belfry calls --older-than 2h             the calls that live now; `belfry calls end CALL-ID` ends one\n  \
        belfry logs 'severity:error' --follow    search what happened, and what happens\n  \
        belfry promql query 'rate(x_total[5m])'  ask its metrics, in PromQL\n  \
        belfry route explain --from A --to B     where a call would go, and why\n  \
        belfry fault core-errors on              break something (demo only)\n\n\
        EXIT CODES\n  0 done   1 failed   2 wrong use of the command line   78 the configuration is wrong"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the rooms that a configuration names, until SIGTERM.
    #[command(
        after_help = "SIGTERM or SIGINT drains: the edge stops accepting, calls finish, telemetry is flushed last. \
        A second one stops at once. SIGHUP re-reads the configuration and keeps the old one when it is wrong."
    )]
    Run(RunArguments),
    /// Check a configuration and name every mistake with file, line, column and what is allowed.
    Check(RunArguments),
    /// Run everything on loopback with simulated customers, until Ctrl-C or for a time.
    #[command(after_help = "EXAMPLES\n  \
        belfry demo\n  \
        belfry demo --for 90 --fault core-errors@20+25 --report r.json\n\n\
        FAULTS\n  core-errors (the core answers 503)   media-loss (the relay drops 8 %)   edge-slow (the backend delays)\n  \
        core-down (the core stops)           registrar-slow (REGISTER is answered late)")]
    Demo(DemoArguments),
    /// Print every metric of every room: name, kind, unit, labels and their bounds.
    Catalog,
    /// Show one call of a running Belfry: ladder, quality and logs.
    Call {
        /// The Call-ID header's value.
        call_id: String,
        /// Which Belfry to ask.
        #[command(flatten)]
        site: Site,
    },
    /// List the calls that live now, or end one.
    #[command(after_help = "EXAMPLES\n  \
        belfry calls --state confirmed --older-than 2h\n  \
        belfry calls --trunk carrier-a --held true --json\n  \
        belfry calls end 843817637684230@998sdasdh09")]
    Calls(CallsArguments),
    /// Search what happened: logs, spans, SIP messages and calls, ours and others'.
    #[command(after_help = "EXAMPLES\n  \
        belfry logs 'handshake failed' --since 1h\n  \
        belfry logs 'service.name:kamailio severity:>=warn' --follow\n  \
        belfry logs 'call_id:\"843817637684230@998sdasdh09\"' --kinds all --json\n  \
        belfry logs '\"refused at a door\"'               what doors did not take, and why\n\n\
        QUERIES\n  \
        word  \"some words\"  begin*  ~\"reg.*ex\"  field:value  field:<3.5  field:1..5  trace_id:...  call_id:...  AND OR NOT ( )\n  \
        fields: kind, severity, component, node, region, and every attribute by its name")]
    Logs(LogsArguments),
    /// Show the objectives of a running Belfry: budget, burn, time to exhaustion; check and replay files of objectives.
    #[command(after_help = "EXAMPLES\n  \
        belfry slo\n  \
        belfry slo gate && deploy                               exit code 1 while a spent budget holds changes back\n  \
        belfry slo check alerts/rules/examples.openslo.yaml     every mistake with its place\n  \
        belfry slo backtest new.yaml --from -7d --against slos.toml")]
    Slo(SloArguments),
    /// Switch a fault of a running demo on or off.
    Fault {
        /// Which fault.
        name: Fault,
        /// On or off.
        switch: Switch,
        /// The demo's admin door.
        #[arg(long, default_value = "127.0.0.1:9901")]
        admin: SocketAddr,
    },
    /// Work with SIP messages in files.
    Sip {
        /// What to do.
        #[command(subcommand)]
        command: SipCommand,
    },
    /// Ask metrics in PromQL, test queries, and lay them out.
    Promql {
        /// What to do.
        #[command(subcommand)]
        command: PromqlCommand,
    },
    /// Test rules on metrics without a running Belfry.
    #[command(subcommand)]
    Test(TestCommand),
    /// Explain, list and import who may call whom, by which way.
    Route {
        /// What to do.
        #[command(subcommand)]
        command: RouteCommand,
    },
    /// Look at the store of metrics, and work on one that is not in use.
    #[command(after_help = "EXAMPLES\n  \
        belfry series top                                        who costs what, in a running Belfry\n  \
        belfry series import /var/lib/prometheus                 take over its blocks\n  \
        belfry series export out && promtool tsdb dump out       as blocks of Prometheus\n  \
        belfry series delete 'calls_total{trunk=\"7\"}'          from the disk, for good\n\n\
        belfry series snapshot /backup/today --admin 127.0.0.1:9901   while Belfry runs\n\n\
        With --admin a running Belfry does it, and paths are those of its machine. Without, the store must not be in use.\n\
        Deletion goes on by itself after a crash; the others when they are run again.")]
    Series {
        /// What to do.
        #[command(subcommand)]
        command: SeriesCommand,
    },
    /// Explain where a customer's address would be sent, step by step.
    Steer {
        /// The customer's address.
        address: std::net::IpAddr,
        /// The configuration with the regions and the overrides.
        #[arg(long, default_value = "belfry.toml")]
        config: PathBuf,
    },
    /// Add subscribers to the store of a configuration, or change their passwords.
    #[command(after_help = "Reads lines of `user@domain password` from standard input:\n  \
        echo 'alice@example.org secret' | belfry subscribers --config belfry.toml")]
    Subscribers(RunArguments),
    /// List or export the call records of a store.
    Records {
        /// What to do.
        #[command(subcommand)]
        command: RecordsCommand,
    },
    /// List who is turned away for guessing passwords, or forgive an address.
    #[command(after_help = "EXAMPLES\n  \
        belfry bans list\n  \
        belfry bans pardon 203.0.113.7")]
    Bans {
        /// What to do.
        #[command(subcommand)]
        command: BansCommand,
    },
    /// Work with billing profiles and with accounts that pay in advance, and rate calls.
    #[command(after_help = "EXAMPLES\n  \
        belfry billing account open alice@example.org --currency EUR\n  \
        belfry billing credit alice@example.org 10.00 --key voucher-4711\n  \
        belfry billing balance alice@example.org")]
    Billing {
        /// What to do.
        #[command(subcommand)]
        command: BillingCommand,
    },
    /// Hash a password for `[dashboard] users`. The password is read from standard input.
    HashPassword,
    /// Print the completions of a shell, to be sourced or installed.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The configuration.
    #[arg(long, default_value = "belfry.toml")]
    pub config: PathBuf,
}

/// How a demo runs.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Where to keep its data (default: a new temporary directory, removed at the end).
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Stop after this many seconds.
    #[arg(long = "for", value_name = "SECONDS")]
    pub seconds: Option<u64>,
    /// Add this to every port, so that two demos can run at once.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=20_000))]
    pub port_offset: u16,
    /// Switch a fault on SECONDS after the start, for DURATION seconds (until the end when left out).
    #[arg(long = "fault", value_name = "NAME@SECONDS[+DURATION]")]
    pub faults: Vec<PlannedFault>,
    /// Write what happened as JSON when the demo ends.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Which Belfry to ask.
#[derive(Debug, Args)]
pub struct Site {
    /// The read API of the running Belfry.
    #[arg(long, default_value = "127.0.0.1:9090")]
    pub api: SocketAddr,
    /// A file with the token that the read API asks for; its first one is used.
    #[arg(long, value_name = "FILE", env = "BELFRY_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// What to do with SIP messages.
#[derive(Debug, Subcommand)]
pub enum SipCommand {
    /// Parse each file as one SIP message and print one JSON line: verdict, status, reason, start line, main headers.
    Parse {
        /// Files with one message each; `-` is standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// What to do with routes.
#[derive(Debug, Subcommand)]
pub enum RouteCommand {
    /// Say where a call would go and why: every rule that was looked at. Exit code 1 when it would be refused.
    #[command(after_help = "EXAMPLES\n  \
        belfry route explain --from alice@example.org --to 02071838750\n  \
        belfry route explain --from trunk:carrier-a/+4930123456 --to +442071838750 --json\n  \
        belfry route explain --from alice --to 112 --at 2026-11-20T23:30:00Z\n\n\
        Limits and fraud are counted in the running Belfry and are not looked at here.")]
    Explain(RouteExplainArguments),
    /// List the routes in force: the configuration's and the imported ones.
    List(RouteListArguments),
    /// Put routes into the store; a running Belfry takes them over by itself.
    #[command(after_help = "FILES\n  \
        *.csv with a header: trunk,prefix,cost[,priority][,weight] | number,address[,tenant] | side,prefix[,tenant][,action]\n  \
        *.toml of the shape of [core.routing] without that prefix: [[trunks]], [[tenants]], [[aliases]] ...\n\n\
        A document replaces the one of its name; import an empty one to be rid of it. Rows replace the row of their key.\n\
        Nothing is written when the whole would not hold together.")]
    Import(RouteImportArguments),
}

/// Which call.
#[derive(Debug, Args)]
pub struct RouteExplainArguments {
    /// Who calls: user@domain, trunk:NAME, trunk:NAME/NUMBER, or the address of a trunk.
    #[arg(long, value_name = "A")]
    pub from: String,
    /// Who is called: a number as dialled, user@domain, or a sip:, tel: or urn: URI.
    #[arg(long, value_name = "B", allow_hyphen_values = true)]
    pub to: String,
    /// When: now, 2026-11-20T18:30:00Z, or Unix seconds.
    #[arg(long, value_name = "TIME", default_value = "now")]
    pub at: String,
    /// Decides among trunks that are equal but for their weight.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// The configuration.
    #[arg(long, default_value = "belfry.toml")]
    pub config: PathBuf,
    /// The running Belfry that knows which gateways are alive, when trunks are asked.
    #[command(flatten)]
    pub site: Site,
}

/// Which routes.
#[derive(Debug, Args)]
pub struct RouteListArguments {
    /// What to list.
    #[arg(default_value = "trunks")]
    pub kind: RouteKind,
    /// Print JSON, all rows of it.
    #[arg(long)]
    pub json: bool,
    /// The configuration.
    #[arg(long, default_value = "belfry.toml")]
    pub config: PathBuf,
}

/// What routes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RouteKind {
    /// Other networks.
    Trunks,
    /// Whose customers there are.
    Tenants,
    /// What trunks serve, and for how much.
    Prefixes,
    /// Numbers that mean an address.
    Aliases,
    /// Numbers that may not call or be called.
    Blocks,
    /// Imported documents.
    Documents,
}

/// What to import.
#[derive(Debug, Args)]
pub struct RouteImportArguments {
    /// A .csv table or a .toml document.
    pub file: PathBuf,
    /// The document's name (default: the file's, without extension).
    #[arg(long)]
    pub name: Option<String>,
    /// Rows of a table replace all others: of their trunks for prefixes, all for aliases and blocks.
    #[arg(long)]
    pub replace: bool,
    /// Only say whether it could be imported.
    #[arg(long)]
    pub check: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// The configuration.
    #[arg(long, default_value = "belfry.toml")]
    pub config: PathBuf,
}

/// What to do in PromQL.
#[derive(Debug, Subcommand)]
pub enum PromqlCommand {
    /// Run test scripts in the language of Prometheus' own tests; exit code 1 when any eval fails.
    #[command(
        after_help = "Prints FILE: N passed, N failed, and below it every failure with its line. A script:\n\n  \
        load 1m\n    calls_total{region=\"eu\"} 0+60x10\n\n  \
        eval instant at 10m rate(calls_total[5m])\n    {region=\"eu\"} 1\n\n\
        The series are the script's own; no Belfry need run."
    )]
    Test {
        /// Scripts, usually called *.test.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Ask a running Belfry, or any Prometheus, and print the answer as a table.
    #[command(after_help = "EXAMPLES\n  \
        belfry promql query 'series_head_series'\n  \
        belfry promql query 'sum by (region) (rate(core_call_attempts_total[5m]))' --at -1h\n  \
        belfry promql query 'up' --from -6h --step 5m --url http://prometheus:9090\n  \
        belfry promql query 'rtp_jitter_seconds{call_id=\"a84b4c76@pc33\"}' --from -2h --step 5s\n\n\
        TIMES\n  now, -15m (ago), 2026-11-20T08:30:00Z, or Unix seconds")]
    Query(PromqlQueryArguments),
    /// Ask a running Belfry and print what each part of the query cost instead of the answer.
    #[command(
        after_help = "EXAMPLE\n  belfry promql explain 'sum by (region) (rate(core_call_attempts_total[5m]))' --from -6h\n\n\
        Times are with all that stands below; SAMPLES were read from the store, VALUES computed."
    )]
    Explain(PromqlQueryArguments),
    /// Print a query in its canonical form, long ones broken over lines; say where it is wrong.
    #[command(after_help = "EXAMPLE\n  belfry promql fmt 'sum(rate(x[5m]))by(region)'")]
    Fmt {
        /// The query; `-` is standard input.
        #[arg(value_name = "EXPR", allow_hyphen_values = true)]
        expr: String,
    },
}

/// What to do with the store of metrics.
#[derive(Debug, Subcommand)]
pub enum SeriesCommand {
    /// Show which metrics, labels and values have the most series in memory.
    Top {
        /// Lines of each list.
        #[arg(long, default_value_t = 10)]
        limit: usize,
        /// Whom to ask.
        #[arg(long, default_value = "http://127.0.0.1:9090")]
        url: String,
        /// A file with the token that is asked for; its first one is used.
        #[arg(long)]
        token_file: Option<PathBuf>,
    },
    /// Make few large blocks of many.
    Compact(SeriesStoreArguments),
    /// Copy a store into an empty directory, by links where the file system can.
    Snapshot {
        /// The directory.
        target: PathBuf,
        /// Which store.
        #[command(flatten)]
        store: SeriesStoreArguments,
    },
    /// Write a store as blocks of Prometheus.
    Export {
        /// The directory.
        target: PathBuf,
        /// Which store.
        #[command(flatten)]
        store: SeriesStoreArguments,
    },
    /// Take over the blocks of a Prometheus.
    Import {
        /// Its data directory, or one block.
        source: PathBuf,
        /// Which store.
        #[command(flatten)]
        store: SeriesStoreArguments,
    },
    /// Delete the points of the series that a selector names from the disk.
    Delete {
        /// As `calls_total{region=\"eu\"}`.
        selector: String,
        /// From this time on, in milliseconds since the Unix epoch.
        #[arg(long)]
        from_ms: Option<i64>,
        /// Up to and with this time, in milliseconds since the Unix epoch.
        #[arg(long)]
        to_ms: Option<i64>,
        /// Which store.
        #[command(flatten)]
        store: SeriesStoreArguments,
    },
}

/// A store of series on this machine.
#[derive(Debug, Args)]
pub struct SeriesPlaceArguments {
    /// The configuration that names it.
    #[arg(long, default_value = "belfry.toml")]
    pub config: PathBuf,
    /// The store's directory, instead of a configuration.
    #[arg(long)]
    pub directory: Option<PathBuf>,
}

/// Which store of metrics.
#[derive(Debug, Args)]
pub struct SeriesStoreArguments {
    /// Which store.
    #[command(flatten)]
    pub place: SeriesPlaceArguments,
    /// Have a running Belfry do it on its own store: the address of its admin door, as 127.0.0.1:9901.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "directory")]
    pub admin: Option<SocketAddr>,
    /// A file with the token that the admin door asks for; its first one is used.
    #[arg(long, value_name = "FILE", env = "BELFRY_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// A query and when it is evaluated.
#[derive(Debug, Args)]
pub struct PromqlQueryArguments {
    /// The query.
    #[arg(value_name = "EXPR", allow_hyphen_values = true)]
    pub expr: String,
    /// Evaluate at this time (default: now).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with_all = ["from", "to", "step"])]
    pub at: Option<String>,
    /// Evaluate at every step from this time on.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// The last time of a range (default: now).
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "from")]
    pub to: Option<String>,
    /// The distance between times of a range.
    #[arg(long, value_name = "DURATION", default_value = "1m", requires = "from")]
    pub step: String,
    /// Whom to ask.
    #[arg(long, default_value = "http://127.0.0.1:9090")]
    pub url: String,
    /// A file with the token that is asked for; its first one is used.
    #[arg(long, value_name = "FILE", env = "BELFRY_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// What can be broken in a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// The core answers 503 to every call.
    CoreErrors,
    /// The relay drops 8 % of the packets.
    MediaLoss,
    /// The HTTP backend delays its answers.
    EdgeSlow,
    /// The core stops.
    CoreDown,
    /// The registrar answers late.
    RegistrarSlow,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::CoreErrors, Self::MediaLoss, Self::EdgeSlow, Self::CoreDown, Self::RegistrarSlow];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CoreErrors => "core-errors",
            Self::MediaLoss => "media-loss",
            Self::EdgeSlow => "edge-slow",
            Self::CoreDown => "core-down",
            Self::RegistrarSlow => "registrar-slow",
        }
    }

    /// The fault of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.as_str() == name)
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Break it.
    On,
    /// Mend it.
    Off,
}

/// A fault that a demo switches on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// Which.
    pub fault: Fault,
    /// Seconds after the start.
    pub at_seconds: u64,
    /// For how long; until the end when absent.
    pub for_seconds: Option<u64>,
}

impl std::str::FromStr for PlannedFault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = Fault::ALL.map(Fault::as_str).join(", ");
        let (name, times) = text
            .split_once('@')
            .ok_or_else(|| format!("write NAME@SECONDS[+DURATION], with a name of {names}"))?;
        let fault =
            Fault::named(name).ok_or_else(|| format!("no fault is called {name:?}; there are {names}"))?;
        let seconds =
            |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number of seconds"));
        let (at_seconds, for_seconds) = match times.split_once('+') {
            Some((at, duration)) => (seconds(at)?, Some(seconds(duration)?)),
            None => (seconds(times)?, None),
        };
        Ok(Self { fault, at_seconds, for_seconds })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn planned_faults_are_read_and_refused_with_a_reason() {
        let planned: PlannedFault = "core-errors@20+25".parse().expect("well formed");
        assert_eq!(planned, PlannedFault { fault: Fault::CoreErrors, at_seconds: 20, for_seconds: Some(25) });
        assert_eq!("media-loss@3".parse::<PlannedFault>().map(|p| p.for_seconds), Ok(None));
        for (text, word) in
            [("core-errors", "write NAME@"), ("corerrors@1", "no fault"), ("core-down@x", "seconds")]
        {
            let error = text.parse::<PlannedFault>().expect_err(text);
            assert!(error.contains(word), "{error}");
        }
    }
}
