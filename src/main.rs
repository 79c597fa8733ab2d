//! The binary: command line, then one command.

use std::process::ExitCode;

use belfry::cli::{
    BillingCommand, CallsArguments, CallsCommand, Cli, Command, PromqlCommand, RecordsCommand, RouteCommand,
    SipCommand, TestCommand,
};
use belfry::{billing, commands, demo, logs, promql, records, route, run};
use clap::Parser;

/// Messages are allocated by one thread and freed by another, all day long: glibc's allocator locks and consolidates
/// for that, this one does not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(arguments) => run::run(&arguments.config),
        Command::Check(arguments) => commands::check(&arguments.config),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Catalog => commands::catalog(),
        Command::Call { call_id, site } => commands::call(&call_id, &site),
        Command::Calls(CallsArguments { command: Some(CallsCommand::End { call_id, site }), .. }) => {
            commands::end_call(&call_id, &site)
        }
        Command::Calls(arguments) => commands::calls(&arguments),
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Slo { site } => commands::slo(&site),
        Command::Fault { name, switch, admin } => commands::fault(name, switch, admin),
        Command::Sip { command: SipCommand::Parse { files } } => commands::sip_parse(&files),
        Command::Series { command } => belfry::series::run(&command),
        Command::Promql { command: PromqlCommand::Test { files } } => promql::test(&files),
        Command::Promql { command: PromqlCommand::Query(arguments) } => promql::query(&arguments),
        Command::Promql { command: PromqlCommand::Explain(arguments) } => promql::explain(&arguments),
        Command::Promql { command: PromqlCommand::Fmt { expr } } => promql::format(&expr),
        Command::Test(TestCommand::Rules { files }) => belfry::rule_tests::run(&files),
        Command::Route { command: RouteCommand::Explain(arguments) } => route::explain(&arguments),
        Command::Route { command: RouteCommand::List(arguments) } => route::list(&arguments),
        Command::Route { command: RouteCommand::Import(arguments) } => route::import(&arguments),
        Command::Steer { address, config } => commands::steer(address, &config),
        Command::Subscribers(arguments) => commands::subscribers(&arguments.config),
        Command::Records { command: RecordsCommand::List(arguments) } => records::list(&arguments),
        Command::Records { command: RecordsCommand::Export(arguments) } => records::export(&arguments),
        Command::Billing { command: BillingCommand::Import { files, config } } => {
            billing::import(&files, &config)
        }
        Command::Billing { command: BillingCommand::List(arguments) } => billing::list(&arguments.config),
        Command::Billing { command: BillingCommand::Assign { address, profile, config } } => {
            billing::assign(&address, profile.as_deref(), &config)
        }
        Command::Billing { command: BillingCommand::Rate(range) } => billing::rate_again(&range),
        Command::Billing { command } => billing::accounts::run(command),
        Command::Bans { command } => commands::bans(&command),
        Command::HashPassword => commands::hash_password(),
        Command::Completions { shell } => commands::completions(shell),
    };
    done.unwrap_or_else(|error| {
        commands::complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}
