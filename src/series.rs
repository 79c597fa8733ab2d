//! `belfry series`: the store of metrics for people at a terminal.
//!
//! `top` asks a running Belfry. The others work on the directory of a store that nobody uses: a stopped Belfry, or a snapshot.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use belfry_promql::ast::Node;
use belfry_series::{Carried, Config, Maintenance, Matcher, Series};
use indicatif::ProgressBar;
use serde_json::Value;

use crate::ask::{Token, post_form};
use crate::cli::{SeriesCommand, SeriesStoreArguments};
use crate::commands::{block_on, say};
use crate::slo_table::aligned;

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// `belfry series`.
///
/// # Errors
/// When nobody can be asked, or the store cannot be used.
pub fn run(command: &SeriesCommand) -> anyhow::Result<ExitCode> {
    match command {
        SeriesCommand::Top { limit, url, token_file } => {
            top(*limit, url, &Token::of(token_file.as_deref())?)?
        }
        SeriesCommand::Compact(store) => with_store(store, |maintenance, _| {
            let made = maintenance.compact_all()?;
            Ok(format!("{made} blocks made of others"))
        })?,
        SeriesCommand::Snapshot { target, store } => with_store(store, |maintenance, bar| {
            let blocks = maintenance.snapshot(target, &mut |done, all| show(bar, done, all))?;
            Ok(format!("{blocks} blocks in {}", target.display()))
        })?,
        SeriesCommand::Export { target, store } => with_store(store, |maintenance, bar| {
            let carried = maintenance.export_prometheus(target, &mut |done, all| show(bar, done, all))?;
            Ok(told(&carried, target))
        })?,
        SeriesCommand::Import { source, store } => with_store(store, |maintenance, bar| {
            let carried = maintenance.import_prometheus(source, &mut |done, all| show(bar, done, all))?;
            Ok(told(&carried, source))
        })?,
        SeriesCommand::Delete { selector, from_ms, to_ms, store } => {
            let matchers = matchers(selector)?;
            let (from_ms, to_ms) = (from_ms.unwrap_or(i64::MIN), to_ms.unwrap_or(i64::MAX));
            with_store(store, |maintenance, bar| {
                let mut progress = |done, all| show(bar, done, all);
                let deleted = maintenance.delete(&matchers, from_ms, to_ms, &mut progress)?;
                Ok(format!("{} points deleted, {} blocks written anew", deleted.points, deleted.blocks))
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}

fn told(carried: &Carried, path: &Path) -> String {
    let mut text = format!(
        "{}: {} blocks with {} series and {} samples carried over, {} were there already",
        path.display(),
        carried.blocks,
        carried.series,
        carried.samples,
        carried.blocks_before
    );
    if carried.histograms_left_out > 0 {
        text.push_str(&format!("; {} native histogram samples LEFT OUT", carried.histograms_left_out));
    }
    text
}

/// The matchers of a selector as PromQL has it.
fn matchers(selector: &str) -> anyhow::Result<Vec<Matcher>> {
    let parsed = belfry_promql::parse(selector).with_context(|| format!("read the selector {selector:?}"))?;
    let Node::Vector(vector) = &parsed.node else {
        bail!("{selector:?} is not a selector: write calls_total{{region=\"eu\"}}");
    };
    Ok(vector.matchers.iter().map(Matcher::try_from).collect::<Result<_, _>>()?)
}

fn with_store(
    store: &SeriesStoreArguments,
    work: impl FnOnce(&Maintenance, &ProgressBar) -> Result<String, belfry_series::Error>,
) -> anyhow::Result<()> {
    let config = match &store.directory {
        Some(directory) => Config::in_directory(existing(directory)?),
        None => configured(&store.config)?,
    };
    let registry = belfry_signal::Registry::new(belfry_signal::Resource::for_test(), 16).0;
    let (writer, _reader) =
        Series::open(config, &registry).context("stop the Belfry that uses it, or work on a snapshot")?;
    let bar = ProgressBar::new(0);
    let answer = work(&writer.maintenance(), &bar);
    bar.finish_and_clear();
    say(&answer?);
    Ok(())
}

/// Works on a store that nobody uses, reading only.
///
/// # Errors
/// When it is in use or cannot be read, and whatever the work says.
pub(crate) fn with_reader<T>(
    store: &SeriesStoreArguments,
    work: impl FnOnce(&dyn belfry_promql::Series) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let config = match &store.directory {
        Some(directory) => Config::in_directory(existing(directory)?),
        None => configured(&store.config)?,
    };
    let registry = belfry_signal::Registry::new(belfry_signal::Resource::for_test(), 16).0;
    let (_writer, reader) =
        Series::open(config, &registry).context("stop the Belfry that uses it, or work on a snapshot")?;
    work(&reader)
}

/// A wrong path must not become an empty store.
fn existing(directory: &Path) -> anyhow::Result<PathBuf> {
    if directory.is_dir() {
        Ok(directory.to_owned())
    } else {
        bail!("{} is not a directory", directory.display())
    }
}

fn configured(path: &Path) -> anyhow::Result<Config> {
    match crate::run::load(path) {
        Ok((config, _)) => match config.observe {
            Some(observe) => Ok(observe.series),
            None => bail!("{} has no [observe]: name the store with --directory", path.display()),
        },
        Err(faults) => {
            // The faults were told; this says for whom they matter.
            let _code = crate::run::refuse(&faults);
            bail!("{} is wrong", path.display())
        }
    }
}

fn top(limit: usize, url: &str, token: &Token) -> anyhow::Result<()> {
    let limit = limit.to_string();
    let (status, text) =
        block_on(post_form(url, "/api/v1/status/tsdb", &[("limit", &limit)], token, PATIENCE))?;
    let Ok(answer) = serde_json::from_str::<Value>(&text) else {
        bail!("{url} answered {status}: {}", text.trim())
    };
    if answer["status"] != "success" {
        bail!("{url}: {}", answer["error"].as_str().unwrap_or(&text));
    }
    let data = &answer["data"];
    let head = &data["headStats"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    say(&format!(
        "{} series, {} label pairs, {} bytes in memory",
        number(&head["numSeries"]),
        number(&head["numLabelPairs"]),
        number(&head["bytes"])
    ));
    for (key, title, unit) in [
        ("seriesCountByMetricName", "METRIC", "SERIES"),
        ("labelValueCountByLabelName", "LABEL", "VALUES"),
        ("seriesCountByLabelValuePair", "LABEL AND VALUE", "SERIES"),
        ("memoryInBytesByLabelName", "LABEL", "BYTES"),
    ] {
        let mut rows = vec![[title.to_owned(), unit.to_owned()]];
        for line in data[key].as_array().into_iter().flatten() {
            rows.push([
                line["name"].as_str().unwrap_or_default().to_owned(),
                number(&line["value"]).to_string(),
            ]);
        }
        say(&format!("\n{}", aligned(&rows).trim_end()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_read_and_anything_else_refused() {
        assert_eq!(matchers("calls_total{region=~\"eu.*\"}").map(|found| found.len()).ok(), Some(2));
        assert!(matchers("rate(calls_total[5m])").is_err());
        assert!(matchers("{").is_err());
        assert!(existing(Path::new("/does/not/exist")).is_err());
    }
}
