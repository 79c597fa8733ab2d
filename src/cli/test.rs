//! What `belfry test` understands.

use std::path::PathBuf;

use clap::Subcommand;

/// What to test.
#[derive(Debug, Subcommand)]
pub enum TestCommand {
    /// Run unit tests of Prometheus rule files, in promtool's format; exit code 1 when any of them fails.
    #[command(after_help = "EXAMPLE\n  belfry test rules alerts/rules/health.test.yaml\n\n\
        Rule files are found relative to the file of tests, with * and ? in the last part of their names.")]
    Rules {
        /// Files of tests.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}
