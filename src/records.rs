//! `belfry records`: call records of the store, as a table for people or a file for the billing system.
//!
//! Records are read a page at a time and written as they come, so that a year of them needs no more memory than an hour.
//! What a running Belfry still holds in its spool is not in the store yet; that is a second's worth, or what has come
//! since the database went away.

mod columns;
mod csv;
mod parquet;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use belfry_signal::{Registry, Resource, now_unix_nanos};
use belfry_state::{CallRecord, Ledger, RecordPage, RecordWhose};

use crate::cli::{RecordFormat, RecordSelection, RecordsExportArguments, RecordsListArguments};
use crate::commands::{block_on, complain, say};
use crate::run::{load, refuse};

/// Records in memory at a time.
const PAGE_RECORDS: u32 = 2_000;

/// Takes records as they come.
trait Sink {
    fn write(&mut self, records: &[CallRecord]) -> anyhow::Result<()>;
    /// Nothing more comes.
    fn end(self: Box<Self>) -> anyhow::Result<()>;
}

/// `belfry records list`.
///
/// # Errors
/// When a time cannot be read, or the store.
pub fn list(arguments: &RecordsListArguments) -> anyhow::Result<ExitCode> {
    // One more than is shown says whether there are more.
    let limit = arguments.limit.saturating_add(1);
    let Some(page) = page(&arguments.selection, limit)? else {
        bail!("--from is not before --to");
    };
    with_ledger(&arguments.selection.range.config, async |ledger| {
        let (mut records, _) = ledger.records(&page).await.context("read the call records")?;
        let has_more = records.len() > arguments.limit as usize;
        records.truncate(arguments.limit as usize);
        say(&columns::table(&records));
        if has_more {
            complain(&format!(
                "only the first {} are shown; narrow the time or raise --limit",
                arguments.limit
            ));
        }
        Ok(())
    })
}

/// `belfry records export`.
///
/// # Errors
/// When a time cannot be read, the store, or the file cannot be written: then there is no file of that name.
pub fn export(arguments: &RecordsExportArguments) -> anyhow::Result<ExitCode> {
    let Some(page) = page(&arguments.selection, PAGE_RECORDS)? else {
        bail!("--from is not before --to");
    };
    with_ledger(&arguments.selection.range.config, async |ledger| {
        let count = match arguments.output.as_deref().filter(|path| *path != Path::new("-")) {
            None => write_all(&ledger, page, sink(arguments.format, io::stdout())?).await?,
            Some(path) => {
                write_file(path, async |file| {
                    write_all(&ledger, page, sink(arguments.format, BufWriter::new(file))?).await
                })
                .await?
            }
        };
        complain(&format!("{count} call records exported"));
        Ok(())
    })
}

/// Writes a file that has its name only when it is whole; when it cannot be written, nothing is left.
async fn write_file(
    path: &Path,
    write: impl AsyncFnOnce(File) -> anyhow::Result<u64>,
) -> anyhow::Result<u64> {
    let beside = path.with_added_extension("part");
    let file = File::create(&beside).with_context(|| format!("create {}", beside.display()))?;
    let written = async {
        let synced = file.try_clone().context("hold the file")?;
        let count = write(file).await?;
        synced.sync_all().with_context(|| format!("write {}", beside.display()))?;
        std::fs::rename(&beside, path).with_context(|| format!("name {}", path.display()))?;
        Ok(count)
    };
    written.await.inspect_err(|_| {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&beside);
    })
}

fn sink(format: RecordFormat, output: impl Write + Send + 'static) -> anyhow::Result<Box<dyn Sink>> {
    Ok(match format {
        RecordFormat::Csv => Box::new(csv::CsvSink::new(output)?),
        RecordFormat::Parquet => Box::new(parquet::ParquetSink::new(output)?),
    })
}

async fn write_all(ledger: &Ledger, page: RecordPage, mut sink: Box<dyn Sink>) -> anyhow::Result<u64> {
    let mut next = Some(page);
    let mut count = 0;
    while let Some(page) = next {
        let (records, following) = ledger.records(&page).await.context("read the call records")?;
        sink.write(&records).context("write the export")?;
        count += records.len() as u64;
        next = following;
    }
    sink.end().context("finish the export")?;
    Ok(count)
}

/// Opens the store of a configuration for a command.
pub(crate) fn with_ledger(
    config: &Path,
    work: impl AsyncFnOnce(Ledger) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let config = match load(config) {
        Ok((config, _)) => config,
        Err(faults) => return Ok(refuse(&faults)),
    };
    let Some(core) = config.core else {
        bail!("the configuration has no [core] section, so there is no store")
    };
    let registry = Registry::new(Resource::for_test(), 1).0;
    block_on(async {
        let ledger = Ledger::open(&core.state, &registry).await.context("open the store")?;
        work(ledger).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The records of a time; `None` when it ends before it begins.
fn page(selection: &RecordSelection, limit: u32) -> anyhow::Result<Option<RecordPage>> {
    let now = now_unix_nanos();
    let (from, to) = (moment(&selection.range.from, now)?, moment(&selection.range.to, now)?);
    let whose = RecordWhose {
        tenant: selection.tenant.clone(),
        trunk: selection.trunk.clone(),
        cause: selection.cause.clone(),
    };
    Ok((from < to).then(|| RecordPage::new(from, to, limit).of(whose)))
}

/// A time in nanoseconds since the Unix epoch.
pub(crate) fn moment(text: &str, now_unix_nanos: u64) -> anyhow::Result<u64> {
    let wrong =
        || format!("{text:?}: write now, -15m (ago), 2026-11-20, 2026-11-20T08:30:00Z, or Unix seconds");
    if text == "now" {
        return Ok(now_unix_nanos);
    }
    if let Some(millis) = text.strip_prefix('-').and_then(belfry_promql::parse_duration) {
        let nanos = u64::try_from(millis).ok().and_then(|millis| millis.checked_mul(1_000_000));
        return nanos.map(|nanos| now_unix_nanos.saturating_sub(nanos)).with_context(wrong);
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1_000_000_000).with_context(wrong);
    }
    let timestamp = match text.parse::<jiff::civil::Date>() {
        Ok(date) if text.len() == 10 => date.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp()),
        _ => text.parse::<jiff::Timestamp>(),
    };
    u64::try_from(timestamp.with_context(wrong)?.as_nanosecond()).ok().with_context(wrong)
}

#[cfg(test)]
mod tests;
