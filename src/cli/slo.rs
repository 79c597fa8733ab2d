//! What `belfry slo` understands.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{SeriesPlaceArguments, Site};

/// Whom to ask, or what to do.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SloArguments {
    /// What to do; without it the objectives are shown.
    #[command(subcommand)]
    pub command: Option<SloCommand>,
    /// Which Belfry to ask.
    #[command(flatten)]
    pub site: Site,
}

/// What to do with objectives.
#[derive(Debug, Subcommand)]
pub enum SloCommand {
    /// Say whether changes may go out: exit code 1 while the policy of a spent budget holds them back.
    Gate {
        /// Which Belfry to ask.
        #[command(flatten)]
        site: Site,
    },
    /// Read files of objectives, OpenSLO (.yaml) or the house's own form (.toml), and name every mistake.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Replay stored history through a file of objectives: which pages would have been sent, when, and for how long.
    #[command(after_help = "EXAMPLES\n  \
        belfry slo backtest shipped --from -1d\n  \
        belfry slo backtest new.yaml --from 2026-11-01T00:00:00Z --to 2026-11-20T00:00:00Z --against shipped\n  \
        belfry slo backtest new.yaml --from -6h --directory snapshot/series --json\n\n\
        A running Belfry is asked unless --store or --directory names a store that nobody uses (native histograms \
        can only be read there).\n\
        TIMES\n  now, -15m (ago), 2026-11-20T08:30:00Z, or Unix seconds")]
    Backtest(BacktestArguments),
}

/// What to replay.
#[derive(Debug, Args)]
pub struct BacktestArguments {
    /// A file of objectives, or `shipped`.
    pub file: String,
    /// The first moment that is judged.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: String,
    /// The last one.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "now")]
    pub to: String,
    /// Another version of the file, to be compared with.
    #[arg(long, value_name = "FILE")]
    pub against: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Read the store of --config instead of asking a running Belfry.
    #[arg(long)]
    pub store: bool,
    /// Which store.
    #[command(flatten)]
    pub place: SeriesPlaceArguments,
    /// Whom to ask.
    #[arg(long, default_value = "http://127.0.0.1:9090")]
    pub url: String,
    /// A file with the token that is asked for; its first one is used.
    #[arg(long, value_name = "FILE", env = "BELFRY_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}
