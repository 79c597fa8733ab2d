//! The arguments of `belfry logs`.

use clap::Args;

use super::Site;

/// What to search for.
#[derive(Debug, Args)]
pub struct LogsArguments {
    /// What must stand in a record; left out, all do.
    #[arg(default_value = "", allow_hyphen_values = true)]
    pub query: String,
    /// Go on with what comes, until Ctrl-C.
    #[arg(short, long, conflicts_with = "until")]
    pub follow: bool,
    /// From when: 15m, 6h, 7d ago, 2026-11-20T18:30:00Z, or Unix seconds.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub since: String,
    /// Until when, written as `--since` is.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Which kinds: log, span, sip, quality, call, separated by commas, or all.
    #[arg(long, default_value = "log")]
    pub kinds: String,
    /// This severity and above.
    #[arg(long, value_parser = ["debug", "info", "warn", "error"])]
    pub severity: Option<String>,
    /// How many, the newest of them.
    #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Print a JSON object for each.
    #[arg(long)]
    pub json: bool,
    /// Which Belfry to ask.
    #[command(flatten)]
    pub site: Site,
}
