//! The arguments of `belfry records` and `belfry billing`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::RunArguments;

/// Which call records: those that ended in a time.
#[derive(Debug, Args)]
pub struct RecordRange {
    /// The first end: now, -15m (ago), 2026-11-20, 2026-11-20T08:30:00Z, or Unix seconds.
    #[arg(long, value_name = "TIME", default_value = "-1d", allow_hyphen_values = true)]
    pub from: String,
    /// The end after the last.
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    pub to: String,
    /// The configuration that names the store.
    #[arg(long, default_value = "belfry.toml")]
    pub config: PathBuf,
}

/// Which call records, of which calls.
#[derive(Debug, Args)]
pub struct RecordSelection {
    /// When they ended.
    #[command(flatten)]
    pub range: RecordRange,
    /// Whose customer's they are.
    #[arg(long)]
    pub tenant: Option<String>,
    /// The trunk that they came by or left by.
    #[arg(long)]
    pub trunk: Option<String>,
    /// Why they ended, as no_credit.
    #[arg(long)]
    pub cause: Option<String>,
}

/// What to do with call records.
#[derive(Debug, Subcommand)]
pub enum RecordsCommand {
    /// Print call records as a table, the earliest end first.
    List(RecordsListArguments),
    /// Write call records to a file, or to standard output.
    #[command(after_help = "EXAMPLES\n  \
        belfry records export --from 2026-11-01 --to 2026-12-01 --format parquet --output november.parquet\n  \
        belfry records export --from -1h > last-hour.csv\n\n\
        Both formats have the same columns. A file appears under its name when it is whole.")]
    Export(RecordsExportArguments),
}

/// Which records are listed.
#[derive(Debug, Args)]
pub struct RecordsListArguments {
    /// Which.
    #[command(flatten)]
    pub selection: RecordSelection,
    /// At most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

/// Which records are exported, and how.
#[derive(Debug, Args)]
pub struct RecordsExportArguments {
    /// Which.
    #[command(flatten)]
    pub selection: RecordSelection,
    /// In which format.
    #[arg(long, value_enum, default_value = "csv")]
    pub format: RecordFormat,
    /// Where to; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A format of exported records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    /// RFC 4180, with a header line.
    Csv,
    /// Apache Parquet, compressed with Snappy.
    Parquet,
}

/// What to do in billing.
#[derive(Debug, Subcommand)]
pub enum BillingCommand {
    /// Add versions of billing profiles to the store, from TOML files with one profile each.
    Import {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The configuration that names the store.
        #[arg(long, default_value = "belfry.toml")]
        config: PathBuf,
    },
    /// Print the profiles of the store and who is billed by them.
    List(RunArguments),
    /// Bill an address (`user@domain`, or a whole `domain`) by a profile of the store.
    Assign {
        /// Whom.
        address: String,
        /// By which profile; left out, by none of its own.
        profile: Option<String>,
        /// The configuration that names the store.
        #[arg(long, default_value = "belfry.toml")]
        config: PathBuf,
    },
    /// Open, list, block or unblock accounts that pay in advance.
    Account {
        /// What to do.
        #[command(subcommand)]
        command: AccountCommand,
    },
    /// Print the balance of an account and its latest movements.
    Balance {
        /// `user@domain`, or a tenant's name.
        name: String,
        /// So many movements.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100_000))]
        movements: u32,
        /// The configuration that names the store.
        #[arg(long, default_value = "belfry.toml")]
        config: PathBuf,
    },
    /// Add an amount to an account, once for each key; less than nothing takes it off.
    Credit {
        /// `user@domain`, or a tenant's name.
        name: String,
        /// How much, as 10.00.
        #[arg(allow_negative_numbers = true)]
        amount: String,
        /// What this top-up is known by, as a voucher's number: doing it again changes nothing.
        #[arg(long)]
        key: String,
        /// What to write beside it.
        #[arg(long)]
        note: Option<String>,
        /// The configuration that names the store.
        #[arg(long, default_value = "belfry.toml")]
        config: PathBuf,
    },
    /// Rate calls again that ended in a time, by the profiles that are there now.
    Rate(RecordRange),
}

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Open an account: from then on who it is named after pays in advance.
    Open {
        /// `user@domain`, or a tenant's name for all its subscribers without an account of their own.
        name: String,
        /// The currency's code (ISO 4217): that of the billing profile.
        #[arg(long)]
        currency: String,
        /// The configuration that names the store.
        #[arg(long, default_value = "belfry.toml")]
        config: PathBuf,
    },
    /// Print all accounts with their balances.
    List(RunArguments),
    /// Let an account pay for nothing: no new calls, and calls that are up end with what they hold.
    Block {
        /// Whose.
        name: String,
        /// The configuration that names the store.
        #[arg(long, default_value = "belfry.toml")]
        config: PathBuf,
    },
    /// Let a blocked account pay again.
    Unblock {
        /// Whose.
        name: String,
        /// The configuration that names the store.
        #[arg(long, default_value = "belfry.toml")]
        config: PathBuf,
    },
}
