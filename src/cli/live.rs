//! The arguments of `belfry calls` and `belfry bans`.

use clap::{Args, Subcommand};

use super::Site;

/// Which live calls.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CallsArguments {
    /// What to do instead of listing them.
    #[command(subcommand)]
    pub command: Option<CallsCommand>,
    /// How far they are.
    #[arg(long, value_parser = ["trying", "early", "confirmed"])]
    pub state: Option<String>,
    /// Whose customer's they are.
    #[arg(long)]
    pub tenant: Option<String>,
    /// The trunk that they came by or left by.
    #[arg(long)]
    pub trunk: Option<String>,
    /// The caller's region.
    #[arg(long)]
    pub region: Option<String>,
    /// The caller's country.
    #[arg(long)]
    pub country: Option<String>,
    /// The caller's transport.
    #[arg(long, value_parser = ["udp", "tcp", "tls", "ws", "wss"])]
    pub transport: Option<String>,
    /// Whether somebody is on hold.
    #[arg(long)]
    pub held: Option<bool>,
    /// Began at least so long ago, as 90s or 2h.
    #[arg(long, value_name = "DURATION")]
    pub older_than: Option<String>,
    /// Began at most so long ago.
    #[arg(long, value_name = "DURATION")]
    pub younger_than: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 1000)]
    pub limit: usize,
    /// Print JSON: one call on a line.
    #[arg(long)]
    pub json: bool,
    /// Which Belfry to ask.
    #[command(flatten)]
    pub site: Site,
}

/// What to do with a live call.
#[derive(Debug, Subcommand)]
pub enum CallsCommand {
    /// End a call: BYE to both sides, or CANCEL and 480 when it rings. Its record says `operator`.
    End {
        /// The Call-ID header's value.
        call_id: String,
        /// Which Belfry to ask.
        #[command(flatten)]
        site: Site,
    },
}

/// What to do with bans.
#[derive(Debug, Subcommand)]
pub enum BansCommand {
    /// Print who is turned away, longest first.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Which Belfry to ask.
        #[command(flatten)]
        site: Site,
    },
    /// Forgive an address all its failures (IPv6: its /64).
    Pardon {
        /// The address.
        address: std::net::IpAddr,
        /// Which Belfry to ask.
        #[command(flatten)]
        site: Site,
    },
}
