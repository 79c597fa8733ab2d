//! The commands that answer and end.

use std::io::{IsTerminal, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use belfry_signal::{Registry, Resource};
use belfry_state::{State, Subscriber};
use clap::CommandFactory;
use hyper::Method;

use crate::ask::{Token, ask, percent_encoded};
use crate::cli::{BansCommand, CallsArguments, Cli, Fault, Site, Switch};
use crate::run::{load, refuse};
use crate::{catalog, live_table, slo_table};

/// Prints a line for whoever reads the output. A closed pipe is the reader's wish.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints a line for whoever must mend something.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "belfry: {line}");
}

/// `belfry check`.
///
/// # Errors
/// Never; a wrong configuration is an exit code.
pub fn check(path: &Path) -> anyhow::Result<ExitCode> {
    match load(path) {
        Ok((config, _)) => {
            // A file may be for the one who runs Belfry only, so the other commands leave it alone.
            let faults = config.check_tokens();
            if !faults.is_empty() {
                return Ok(refuse(&faults));
            }
            let rooms = [
                ("edge", config.edge.is_some()),
                ("core", config.core.is_some()),
                ("media", config.media.is_some()),
                ("observe", config.observe.is_some()),
                ("alerts", config.alerts.is_some()),
                ("dashboard", config.dashboard.is_some()),
            ];
            let on: Vec<&str> = rooms.iter().filter(|(_, is_on)| *is_on).map(|(room, _)| *room).collect();
            say(&format!("{}: good; rooms that are on: {}", path.display(), on.join(", ")));
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => Ok(refuse(&faults)),
    }
}

/// A registry with the signals of every room, none of which runs.
#[must_use]
pub fn catalogue_of_all_rooms() -> Registry {
    let registry = Registry::new(Resource::for_test(), 1).0;
    drop(crate::signals::Signals::register(&registry));
    belfry_mesh::describe(&registry);
    belfry_gateway::describe(&registry);
    belfry_state::describe(&registry);
    belfry_signalling::describe(&registry);
    belfry_relay::describe(&registry);
    belfry_pipeline::describe(&registry);
    belfry_series::describe(&registry);
    belfry_events::describe(&registry);
    belfry_query::describe(&registry);
    belfry_notify::describe(&registry);
    belfry_engine::describe(&registry);
    belfry_dashboard::describe(&registry);
    belfry_door::describe(&registry);
    registry
}

/// `belfry catalog`.
///
/// # Errors
/// Never.
pub fn catalog() -> anyhow::Result<ExitCode> {
    let text = catalog::render(&catalogue_of_all_rooms().catalogue());
    say(text.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// `belfry call`.
///
/// # Errors
/// When the Belfry cannot be asked or does not know the call.
pub fn call(call_id: &str, site: &Site) -> anyhow::Result<ExitCode> {
    let path = format!("/api/v1/calls/{}?format=text", percent_encoded(call_id));
    let token = Token::of(site.token_file.as_deref())?;
    say(block_on(ask(Method::GET, site.api, &path, &token))?.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// `belfry calls`.
///
/// # Errors
/// When the Belfry cannot be asked.
pub fn calls(arguments: &CallsArguments) -> anyhow::Result<ExitCode> {
    let token = Token::of(arguments.site.token_file.as_deref())?;
    let calls = block_on(async {
        let mut calls: Vec<serde_json::Value> = Vec::new();
        let mut after = Some(0);
        while let Some(next) = after.filter(|_| calls.len() < arguments.limit) {
            let path = live_table::path(arguments, next, arguments.limit - calls.len());
            let answer = ask(Method::GET, arguments.site.api, &path, &token).await?;
            let (page, next) = live_table::read(&answer)?;
            calls.extend(page);
            after = next;
        }
        Ok(calls)
    })?;
    if arguments.json {
        calls.iter().for_each(|call| say(&call.to_string()));
    } else {
        say(live_table::render(&calls).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// `belfry calls end`.
///
/// # Errors
/// When the Belfry cannot be asked, or no call with this Call-ID lives.
pub fn end_call(call_id: &str, site: &Site) -> anyhow::Result<ExitCode> {
    let path = format!("/api/v1/calls/live/{}", percent_encoded(call_id));
    let token = Token::of(site.token_file.as_deref())?;
    block_on(ask(Method::DELETE, site.api, &path, &token))?;
    say(&format!("{call_id} ended"));
    Ok(ExitCode::SUCCESS)
}

/// `belfry bans`.
///
/// # Errors
/// When the Belfry cannot be asked.
pub fn bans(command: &BansCommand) -> anyhow::Result<ExitCode> {
    let (BansCommand::List { site, .. } | BansCommand::Pardon { site, .. }) = command;
    let token = Token::of(site.token_file.as_deref())?;
    match command {
        BansCommand::List { json, .. } => {
            let answer = block_on(ask(Method::GET, site.api, "/api/v1/bans", &token))?;
            say(if *json { answer } else { bans_table(&answer)? }.trim_end());
        }
        BansCommand::Pardon { address, .. } => {
            let path = format!("/api/v1/bans/{}", percent_encoded(&address.to_string()));
            let answer = block_on(ask(Method::DELETE, site.api, &path, &token))?;
            let answer: serde_json::Value = serde_json::from_str(&answer).context("read the answer")?;
            let was_banned = answer["was_banned"].as_bool().unwrap_or(false);
            say(&format!("{address} {}", if was_banned { "is forgiven" } else { "was not banned" }));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn bans_table(json: &str) -> anyhow::Result<String> {
    let answer: serde_json::Value = serde_json::from_str(json).context("read the bans")?;
    let bans = answer["bans"].as_array().context("read the bans: no list of them")?;
    let mut rows = vec![["ADDRESS", "WHOM", "LEFT", "FAILURES"].map(str::to_owned)];
    rows.extend(bans.iter().map(|ban| {
        let whom = if ban["is_whole_source"].as_bool() == Some(true) { "everybody" } else { "one user" };
        [
            ban["source"].as_str().unwrap_or("-").to_owned(),
            whom.to_owned(),
            slo_table::in_words(ban["remaining_seconds"].as_f64().unwrap_or_default()),
            ban["failures"].to_string(),
        ]
    }));
    Ok(format!("{}{} bans\n", slo_table::aligned(&rows), bans.len()))
}

/// `belfry slo`.
///
/// # Errors
/// When the Belfry cannot be asked.
pub fn slo(site: &Site) -> anyhow::Result<ExitCode> {
    let token = Token::of(site.token_file.as_deref())?;
    let json = block_on(ask(Method::GET, site.api, "/api/v1/slos", &token))?;
    say(slo_table::render(&json)?.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// `belfry fault`.
///
/// # Errors
/// When the demo's admin door cannot be asked or refuses.
pub fn fault(fault: Fault, switch: Switch, admin: SocketAddr) -> anyhow::Result<ExitCode> {
    let switch = if switch == Switch::On { "on" } else { "off" };
    let path = format!("/faults/{}/{switch}", fault.as_str());
    // A demo's admin door is on loopback and asks for none.
    block_on(ask(Method::POST, admin, &path, &Token::none()))?;
    say(&format!("{} {switch}", fault.as_str()));
    Ok(ExitCode::SUCCESS)
}

/// `belfry sip parse`: one JSON line per file; the exit code is 0 whatever the verdicts are.
///
/// # Errors
/// When a file cannot be read.
pub fn sip_parse(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    for file in files {
        let bytes = if file.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).context("read standard input")?;
            bytes
        } else {
            std::fs::read(file).with_context(|| format!("read {}", file.display()))?
        };
        say(&crate::sip_line::judge(&file.display().to_string(), &bytes).to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// `belfry steer`.
///
/// # Errors
/// When the GeoIP file or the steering section cannot be used.
pub fn steer(address: IpAddr, path: &Path) -> anyhow::Result<ExitCode> {
    let config = match load(path) {
        Ok((config, _)) => config,
        Err(faults) => return Ok(refuse(&faults)),
    };
    let Some(edge) = config.edge else {
        bail!("{} has no [edge] section, so nothing is steered", path.display())
    };
    for step in belfry_gateway::explain(&edge, address, &Registry::new(Resource::for_test(), 1).0)? {
        say(&step);
    }
    Ok(ExitCode::SUCCESS)
}

/// `belfry subscribers`: reads lines of `user@domain password` from standard input, so that no password stands in the
/// process list.
///
/// # Errors
/// When a line is not of that form, or the store cannot be written.
pub fn subscribers(path: &Path) -> anyhow::Result<ExitCode> {
    let config = match load(path) {
        Ok((config, _)) => config,
        Err(faults) => return Ok(refuse(&faults)),
    };
    let Some(core) = config.core else {
        bail!("{} has no [core] section, so there is no store", path.display())
    };
    let mut subscribers = Vec::new();
    for (number, line) in std::io::stdin().lines().enumerate() {
        let line = line.context("read standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        let subscriber = read_subscriber(&line).with_context(|| format!("read line {}", number + 1))?;
        subscribers.push(subscriber);
    }
    let count = subscribers.len();
    let registry = Registry::new(Resource::for_test(), 1).0;
    block_on(async {
        let added = State::add_subscribers(&core.state, &registry, &subscribers).await;
        added.context("write the subscribers")
    })?;
    say(&format!("{count} subscribers can register"));
    Ok(ExitCode::SUCCESS)
}

fn read_subscriber(line: &str) -> anyhow::Result<Subscriber> {
    let (address, password) =
        line.trim().split_once(char::is_whitespace).context("write `user@domain password`")?;
    let (user, domain) = address.split_once('@').context("write `user@domain password`")?;
    if user.is_empty() || domain.is_empty() {
        bail!("{address:?} is not user@domain");
    }
    Ok(Subscriber::new(user, domain, password.trim()))
}

/// `belfry hash-password`.
///
/// # Errors
/// When standard input holds no password.
pub fn hash_password() -> anyhow::Result<ExitCode> {
    say(&belfry_dashboard::hash_password(&read_password()?)?);
    Ok(ExitCode::SUCCESS)
}

/// `belfry completions`.
///
/// # Errors
/// Never.
pub fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    clap_complete::generate(shell, &mut Cli::command(), "belfry", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}

fn read_password() -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        complain("type the password, then Enter (it is shown)");
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("read the password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("standard input holds no password; try: echo -n SECRET | belfry ...");
    }
    Ok(password.to_owned())
}

/// Runs what must wait, for a command.
///
/// # Errors
/// What the future fails with, or when there can be no runtime.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
