//! `belfry series`: the store of metrics for people at a terminal.
//!
//! `top` asks a running Belfry. The others work on the directory of a store that nobody uses, a stopped Belfry's or a
//! snapshot; or, with `--admin`, a running Belfry does them on its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use belfry_promql::ast::Node;
use belfry_series::{Carried, Config, Deleted, Maintenance, Matcher, Series};
use hyper::Method;
use indicatif::ProgressBar;
use serde_json::Value;

use crate::ask::{Token, ask, percent_encoded, post_form};
use crate::cli::{SeriesCommand, SeriesPlaceArguments, SeriesStoreArguments};
use crate::commands::{block_on, say};
use crate::slo_table::aligned;
use crate::upkeep::{Work, WorkState};

/// Where a running Belfry is given work.
const WORK_PATH: &str = "/api/v1/series/work";
/// Between two looks at work under way.
const LOOK: Duration = Duration::from_millis(250);
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
        SeriesCommand::Compact(store) => {
            with_store(store, "compact", &[], |maintenance, _| compacted(maintenance))?;
        }
        SeriesCommand::Snapshot { target, store } => {
            let path = &absolute(target)?;
            with_store(store, "snapshot", &[("path", path)], |maintenance, bar| {
                copied(maintenance.snapshot(target, &mut |done, all| show(bar, done, all))?, target)
            })?;
        }
        SeriesCommand::Export { target, store } => {
            let path = &absolute(target)?;
            with_store(store, "export", &[("path", path)], |maintenance, bar| {
                let mut progress = |done, all| show(bar, done, all);
                carried(&maintenance.export_prometheus(target, &mut progress)?, target)
            })?;
        }
        SeriesCommand::Import { source, store } => {
            let path = &absolute(source)?;
            with_store(store, "import", &[("path", path)], |maintenance, bar| {
                let mut progress = |done, all| show(bar, done, all);
                carried(&maintenance.import_prometheus(source, &mut progress)?, source)
            })?;
        }
        SeriesCommand::Delete { selector, from_ms, to_ms, store } => {
            let matchers = matchers(selector)?;
            let mut order = vec![("selector", selector.clone())];
            order.extend(from_ms.map(|time| ("from_ms", time.to_string())));
            order.extend(to_ms.map(|time| ("to_ms", time.to_string())));
            let order: Vec<(&str, &str)> =
                order.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let (from_ms, to_ms) = (from_ms.unwrap_or(i64::MIN), to_ms.unwrap_or(i64::MAX));
            with_store(store, "delete", &order, |maintenance, bar| {
                deleted(maintenance.delete(&matchers, from_ms, to_ms, &mut |done, all| show(bar, done, all))?)
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A path that means the same to another process.
fn absolute(path: &Path) -> anyhow::Result<String> {
    let whole = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
    Ok(whole.display().to_string())
}

/// What a compaction did.
pub(crate) fn compacted(maintenance: &Maintenance) -> Result<String, belfry_series::Error> {
    Ok(format!("{} blocks made of others", maintenance.compact_all()?))
}

/// What a deletion did.
pub(crate) fn deleted(deleted: Deleted) -> Result<String, belfry_series::Error> {
    Ok(format!("{} points deleted, {} blocks written anew", deleted.points, deleted.blocks))
}

/// What a snapshot did.
pub(crate) fn copied(blocks: u64, target: &Path) -> Result<String, belfry_series::Error> {
    Ok(format!("{blocks} blocks in {}", target.display()))
}

fn show(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}

/// What an export or an import did.
pub(crate) fn carried(carried: &Carried, path: &Path) -> Result<String, belfry_series::Error> {
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
    Ok(text)
}

/// The matchers of a selector as PromQL has it.
pub(crate) fn matchers(selector: &str) -> anyhow::Result<Vec<Matcher>> {
    let parsed = belfry_promql::parse(selector).with_context(|| format!("read the selector {selector:?}"))?;
    let Node::Vector(vector) = &parsed.node else {
        bail!("{selector:?} is not a selector: write calls_total{{region=\"eu\"}}");
    };
    Ok(vector.matchers.iter().map(Matcher::try_from).collect::<Result<_, _>>()?)
}

/// Does some work on a store of this machine, or orders it from a running Belfry by the same name.
fn with_store(
    store: &SeriesStoreArguments,
    name: &str,
    order: &[(&str, &str)],
    work: impl FnOnce(&Maintenance, &ProgressBar) -> Result<String, belfry_series::Error>,
) -> anyhow::Result<()> {
    if let Some(admin) = store.admin {
        return ordered(admin, &Token::of(store.token_file.as_deref())?, name, order);
    }
    let config = match &store.place.directory {
        Some(directory) => Config::in_directory(existing(directory)?),
        None => configured(&store.place.config)?,
    };
    let registry = belfry_signal::Registry::new(belfry_signal::Resource::for_test(), 16).0;
    let (writer, _reader) = Series::open(config, &registry)
        .context("if Belfry runs on it, have that do it: --admin 127.0.0.1:9901")?;
    let bar = ProgressBar::new(0);
    let answer = work(&writer.maintenance(), &bar);
    bar.finish_and_clear();
    say(&answer?);
    Ok(())
}

/// Has a running Belfry do it, and watches.
fn ordered(admin: SocketAddr, token: &Token, name: &str, order: &[(&str, &str)]) -> anyhow::Result<()> {
    let order: Vec<String> =
        order.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    let path = format!("{WORK_PATH}/{name}?{}", order.join("&"));
    let bar = ProgressBar::new(0);
    let work = block_on(async {
        let mut text = ask(Method::POST, admin, &path, token).await?;
        loop {
            let work: Work = serde_json::from_str(&text).with_context(|| format!("read {}", text.trim()))?;
            if work.state != WorkState::Running {
                return anyhow::Ok(work);
            }
            show(&bar, work.done, work.all);
            tokio::time::sleep(LOOK).await;
            text = ask(Method::GET, admin, WORK_PATH, token).await?;
        }
    })?;
    bar.finish_and_clear();
    if work.state == WorkState::Failed {
        bail!("{}", work.result);
    }
    say(&work.result);
    Ok(())
}

/// Works on a store that nobody uses, reading only.
///
/// # Errors
/// When it is in use or cannot be read, and whatever the work says.
pub(crate) fn with_reader<T>(
    store: &SeriesPlaceArguments,
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
