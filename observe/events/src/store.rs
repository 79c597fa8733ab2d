//! What the writer, the readers and the two threads share, and how the store opens.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::catalogue::{Catalogue, Contents, unusable};
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
    /// Reads the catalogue, checks the splits that it names and removes directories that it does not. When the
    /// catalogue is unusable, everything is set aside and the store begins anew.
    pub(crate) fn open(config: Config, signals: Signals) -> Result<(Self, Resume), Error> {
        check_dictionary()?;
        let directory = config.directory.join("splits");
        let (catalogue, contents) = match open_catalogue(&config.directory) {
            Ok(opened) => opened,
            Err(error) => {
                let Some(why) = unusable(&error) else { return Err(error) };
                let aside = set_aside(&config.directory)?;
                signals.catalogue_set_aside(why, &error, &aside);
                open_catalogue(&config.directory)?
            }
        };
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

fn open_catalogue(directory: &Path) -> Result<(Catalogue, Contents), Error> {
    let splits = directory.join("splits");
    fs::create_dir_all(&splits).map_err(|source| Error::disk("create", &splits, source))?;
    let path = directory.join("catalogue.redb");
    // The library takes an empty file for a new one, and then every split would be an orphan and go.
    let is_empty = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == 0);
    if is_empty && fs::read_dir(&splits).is_ok_and(|mut splits| splits.next().is_some()) {
        let message = "it is empty and there are splits".to_owned();
        return Err(Error::catalogue(redb::Error::Corrupted(message)));
    }
    Catalogue::open(&path)
}

/// Gives the directory a name of its own beside it, for a person to look at. Nothing is deleted.
fn set_aside(directory: &Path) -> Result<PathBuf, Error> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let named = |seconds: u64| {
        let mut name = directory.file_name().unwrap_or_default().to_owned();
        name.push(format!(".damaged-{seconds}"));
        directory.with_file_name(name)
    };
    // Two starts within a second must not meet.
    let aside = (seconds..).map(named).find(|aside| !aside.exists()).unwrap_or_else(|| named(seconds));
    fs::rename(directory, &aside).map_err(|source| Error::disk("set aside", directory, source))?;
    Ok(aside)
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
