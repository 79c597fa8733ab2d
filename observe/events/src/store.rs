//! What the writer, the readers and the two threads share, and how the store opens.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::error::Error;
use crate::live::Live;
use crate::schema::{Fields, check_dictionary};
use crate::signals::Signals;
use crate::split::{OpenSplits, Split};

/// The shared parts of the store.
pub(crate) struct Store {
    pub(crate) config: Config,
    pub(crate) fields: Fields,
    pub(crate) live: Live,
    pub(crate) catalogue: Catalogue,
    pub(crate) open: OpenSplits,
    pub(crate) signals: Signals,
    split_next: AtomicU64,
}

/// Where the store left off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resume {
    pub(crate) checkpoint: u64,
    pub(crate) sequence_next: u64,
}

impl Store {
    /// Reads the catalogue, checks the splits that it names and removes directories that it does not.
    pub(crate) fn open(config: Config, signals: Signals) -> Result<(Self, Resume), Error> {
        check_dictionary()?;
        let directory = config.directory.join("splits");
        fs::create_dir_all(&directory).map_err(|source| Error::disk("create", &directory, source))?;
        let (catalogue, contents) = Catalogue::open(&config.directory.join("catalogue.redb"))?;
        remove_orphans(&directory, &contents.rows.iter().map(|row| name(row.id)).collect(), &signals)?;
        let mut splits = Vec::with_capacity(contents.rows.len());
        let mut records = 0;
        for row in contents.rows {
            records += row.records;
            let split_directory = directory.join(name(row.id));
            splits.push(Arc::new(Split::new(row, split_directory)));
        }
        let resume = Resume { checkpoint: contents.checkpoint, sequence_next: contents.sequence_next };
        signals.opened(splits.len(), records, resume.checkpoint);
        let store = Self {
            fields: Fields::new(),
            live: Live::new(splits.clone()),
            catalogue,
            open: OpenSplits::new(config.open_splits_max),
            signals,
            split_next: AtomicU64::new(contents.split_next),
            config,
        };
        for split in &splits {
            if let Err(error) = split.check_lengths() {
                store.found_damaged(split, &error);
            }
        }
        store.count_splits();
        Ok((store, resume))
    }

    /// Makes a new split in a new directory, of which nothing is left when that fails: a full disk must not fill
    /// with half-built splits.
    pub(crate) fn make_split(
        &self,
        make: impl FnOnce(u64, PathBuf) -> Result<Split, Error>,
    ) -> Result<Split, Error> {
        let id = self.split_next.fetch_add(1, Ordering::Relaxed);
        let directory = self.config.directory.join("splits").join(name(id));
        make(id, directory.clone()).inspect_err(|_| {
            // What cannot be deleted now is an orphan, and goes at the next start.
            let _ = fs::remove_dir_all(&directory);
        })
    }

    /// Takes a split out of searches, and says so once.
    pub(crate) fn found_damaged(&self, split: &Split, error: &Error) {
        if split.mark_damaged() {
            self.signals.split_damaged(split.row.id, split.row.records, &error.to_string());
            self.count_splits();
        }
    }

    /// Brings the gauges up to date.
    pub(crate) fn count_splits(&self) {
        let (ready, damaged, bytes) = self.live.split_counts();
        self.signals.splits_changed(ready, damaged, bytes);
        self.signals.live_changed(self.live.live_records());
    }

    /// Deletes the files of splits that the catalogue no longer names. Readers that have them open keep them.
    pub(crate) fn delete(&self, splits: &[Arc<Split>]) {
        for split in splits {
            // What cannot be deleted now is an orphan, and goes at the next start.
            let _ = fs::remove_dir_all(&split.directory);
        }
    }
}

fn name(id: u64) -> String {
    format!("{id:016x}")
}

fn remove_orphans(directory: &PathBuf, named: &HashSet<String>, signals: &Signals) -> Result<(), Error> {
    let failed = |action| move |source| Error::disk(action, directory, source);
    for entry in fs::read_dir(directory).map_err(failed("list"))? {
        let entry = entry.map_err(failed("list"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !named.contains(&name) {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|source| Error::disk("remove", &path, source))?;
            signals.orphan_removed(name);
        }
    }
    Ok(())
}
