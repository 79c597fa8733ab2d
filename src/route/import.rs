//! `belfry route import`: tables and documents, checked together with what is there before anything is written.

use std::collections::HashSet;
use std::process::ExitCode;

use anyhow::{Context, bail};
use belfry_routing::{Imported, Plan, read_rows};
use belfry_signal::{Registry, Resource, now_unix_nanos};
use belfry_state::{RouteAlias, RouteBlock, RouteDocument, RouteImport, RoutePrefix, RouteRows, State};
use serde_json::json;

use super::{core_of, stored};
use crate::cli::RouteImportArguments;
use crate::commands::{block_on, say};
use crate::config::document::{Document, Fault};
use crate::run::refuse;

/// `belfry route import`.
///
/// # Errors
/// When the file or the store cannot be used. A file with faults is an exit code.
pub fn import(arguments: &RouteImportArguments) -> anyhow::Result<ExitCode> {
    let core = match core_of(&arguments.config)? {
        Ok(core) => core,
        Err(code) => return Ok(code),
    };
    let shown = arguments.file.display().to_string();
    let text = std::fs::read_to_string(&arguments.file).with_context(|| format!("read {shown}"))?;
    let is_table = arguments.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let read = if is_table {
        read_table(&shown, &text, arguments.replace)
    } else {
        read_document(arguments, &shown, &text)
    };
    let (import, what) = match read {
        Ok(read) => read,
        Err(faults) => return Ok(refuse(&faults)),
    };
    let mut rows = stored(&core)?;
    overlay(&mut rows, &import);
    let plan = match belfry_signalling::compose(&core.routing, &rows) {
        Ok(plan) => plan,
        Err(error) => bail!("{shown}: {error}"),
    };
    let file = File { shown: &shown, text: &text, import: &import };
    let faults = placed(&plan.check(), &core.routing, &rows, &file);
    if !faults.is_empty() {
        return Ok(refuse(&faults));
    }
    if arguments.check {
        say(&format!("{shown}: good; {what} would be imported"));
        return Ok(ExitCode::SUCCESS);
    }
    let registry = Registry::new(Resource::for_test(), 1).0;
    let version = block_on(async {
        State::import_routes(&core.state, &registry, &import).await.context("write the routes")
    })?;
    if arguments.json {
        say(&json!({ "imported": what, "version": version }).to_string());
    } else {
        say(&format!(
            "{shown}: {what} imported; routes are at version {version}, which a running core takes over by itself"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

type Read = Result<(RouteImport, String), Vec<Fault>>;

fn read_table(shown: &str, text: &str, replaces: bool) -> Read {
    let (kind, plan) = read_rows(text).map_err(|faults| {
        let fault = |fault: belfry_routing::RowFault| Fault {
            source: shown.to_owned(),
            position: Some((usize::try_from(fault.line).unwrap_or(usize::MAX), fault.column)),
            message: fault.message,
        };
        faults.into_iter().map(fault).collect::<Vec<_>>()
    })?;
    Ok(match kind {
        Imported::Prefixes => {
            let row = |row: belfry_routing::PrefixRow| RoutePrefix {
                trunk: row.trunk,
                prefix: row.prefix,
                cost_millionths: row.cost.map(|cost| cost.0),
                priority: row.priority,
                weight: row.weight,
            };
            let rows: Vec<RoutePrefix> = plan.prefixes.into_iter().map(row).collect();
            let what = format!("{} prefixes", rows.len());
            (RouteImport::Prefixes { rows, replaces }, what)
        }
        Imported::Aliases => {
            let row = |row: belfry_routing::Alias| RouteAlias {
                tenant: row.tenant.unwrap_or_default(),
                number: row.number,
                address: row.address,
            };
            let rows: Vec<RouteAlias> = plan.aliases.into_iter().map(row).collect();
            let what = format!("{} aliases", rows.len());
            (RouteImport::Aliases { rows, replaces }, what)
        }
        Imported::Blocks => {
            let row = |row: belfry_routing::Block| RouteBlock {
                tenant: row.tenant.unwrap_or_default(),
                side: if row.side == belfry_routing::Side::Caller { "caller" } else { "called" }.to_owned(),
                prefix: row.prefix,
                is_allowed: row.is_allowed,
            };
            let rows: Vec<RouteBlock> = plan.blocks.into_iter().map(row).collect();
            let what = format!("{} blocks", rows.len());
            (RouteImport::Blocks { rows, replaces }, what)
        }
    })
}

fn read_document(arguments: &RouteImportArguments, shown: &str, text: &str) -> Read {
    let mut document = Document::parse(shown, text, "");
    let read: Option<Plan> = document.whole();
    let faults = document.into_faults();
    if read.is_none() || !faults.is_empty() {
        return Err(faults);
    }
    let stem = arguments.file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = arguments.name.clone().or(stem).unwrap_or_else(|| "routes".to_owned());
    let what = format!("document {name:?}");
    let imported_unix_nanos = now_unix_nanos();
    Ok((RouteImport::Document(RouteDocument { name, text: text.to_owned(), imported_unix_nanos }), what))
}

/// The rows as they would be after the import.
fn overlay(rows: &mut RouteRows, import: &RouteImport) {
    match import {
        RouteImport::Document(document) => {
            rows.documents.retain(|known| known.name != document.name);
            // Last, so that its faults are known by their place.
            rows.documents.push(document.clone());
        }
        RouteImport::Prefixes { rows: new, replaces } => {
            let keys: HashSet<(&str, &str)> =
                new.iter().map(|row| (row.trunk.as_str(), row.prefix.as_str())).collect();
            let trunks: HashSet<&str> = new.iter().map(|row| row.trunk.as_str()).collect();
            rows.prefixes.retain(|row| {
                let is_same = keys.contains(&(row.trunk.as_str(), row.prefix.as_str()));
                let is_replaced = *replaces && trunks.contains(row.trunk.as_str());
                !(is_same || is_replaced)
            });
            rows.prefixes.extend(new.iter().cloned());
        }
        RouteImport::Aliases { rows: new, replaces } => {
            let keys: HashSet<(&str, &str)> =
                new.iter().map(|row| (row.tenant.as_str(), row.number.as_str())).collect();
            rows.aliases
                .retain(|row| !*replaces && !keys.contains(&(row.tenant.as_str(), row.number.as_str())));
            rows.aliases.extend(new.iter().cloned());
        }
        RouteImport::Blocks { rows: new, replaces } => {
            let key = |row: &RouteBlock| (row.tenant.clone(), row.side.clone(), row.prefix.clone());
            let keys: HashSet<_> = new.iter().map(key).collect();
            rows.blocks.retain(|row| !*replaces && !keys.contains(&key(row)));
            rows.blocks.extend(new.iter().cloned());
        }
    }
}

/// Faults of the whole by their place in the file that is imported, as far as they are in it.
fn placed(faults: &[(String, String)], own: &Plan, rows: &RouteRows, read: &File<'_>) -> Vec<Fault> {
    let mut document = Document::parse(read.shown, read.text, "");
    let is_document = matches!(read.import, RouteImport::Document(_));
    let mut found = Vec::new();
    for (key, message) in faults {
        let (list, rest) = key.split_once('[').unwrap_or((key, ""));
        let (index, rest) = rest.split_once(']').unwrap_or((rest, ""));
        let index = index.parse::<usize>().ok();
        match index.and_then(|index| index.checked_sub(before(list, own, rows, read.import))) {
            Some(index) if is_document => document.fault_of_path(&format!("{list}[{index}]{rest}"), message),
            Some(index) => found.push(Fault {
                source: read.shown.to_owned(),
                position: row_line(read.text, index).map(|line| (line, 1)),
                message: format!("{}: {message}", rest.trim_start_matches('.')),
            }),
            None => found.push(Fault {
                source: format!("{} together with what is there already", read.shown),
                position: None,
                message: format!("`{key}` {message}"),
            }),
        }
    }
    if is_document {
        // A text that parses has no faults but the ones that were added here.
        found.extend(document.into_faults());
    }
    found
}

/// How many entries of a list come before those of the imported file: the configuration's, then the documents' in the
/// store's order with the imported one last, then the tables'.
fn before(list: &str, own: &Plan, rows: &RouteRows, import: &RouteImport) -> usize {
    let count = |plan: &Plan| match list {
        "tenants" => plan.tenants.len(),
        "aliases" => plan.aliases.len(),
        "subscribers" => plan.subscribers.len(),
        "trunks" => plan.trunks.len(),
        "prefixes" => plan.prefixes.len(),
        "blocks" => plan.blocks.len(),
        _ => 0,
    };
    let others = rows.documents.len() - usize::from(matches!(import, RouteImport::Document(_)));
    let documents = rows.documents.iter().take(others);
    let in_documents: usize =
        documents.map(|document| count(&toml::from_str(&document.text).unwrap_or_default())).sum();
    let in_tables = match import {
        RouteImport::Prefixes { rows: new, .. } if list == "prefixes" => rows.prefixes.len() - new.len(),
        RouteImport::Aliases { rows: new, .. } if list == "aliases" => rows.aliases.len() - new.len(),
        RouteImport::Blocks { rows: new, .. } if list == "blocks" => rows.blocks.len() - new.len(),
        _ => 0,
    };
    count(own) + in_documents + in_tables
}

/// A file that was read.
struct File<'f> {
    shown: &'f str,
    text: &'f str,
    import: &'f RouteImport,
}

/// The line of a row of a table, from 1; rows over several lines are not told apart.
fn row_line(text: &str, index: usize) -> Option<usize> {
    let rows = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    rows.map(|(number, _)| number + 1).nth(index + 1)
}
