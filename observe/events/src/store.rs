//! What the writer, the readers and the two threads share, and how the store opens.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::catalogue::{Catalogue, Contents, SplitRow, unusable};
use crate::config::Config;
use crate::error::Error;
use crate::live::Live;
use crate::recovery::rebuild;
use crate::schema::{Fields, check_dictionary};
use crate::signals::{Signals, Unusable};
use crate::split::{OpenSplits, Split};

const CATALOGUE: &str = "catalogue.redb";
pub(crate) const SPLIT_EXTENSION: &str = "split";

/// The shared parts of the store.
pub(crate) struct Store {
    pub(crate) config: Config,
    pub(crate) fields: Fields,
    pub(crate) live: Live,
    pub(crate) catalogue: Catalogue,
    pub(crate) open: OpenSplits,
    pub(crate) signals: Signals,
    split_next: AtomicU64,
    /// Splits that should have replaced others, while the catalogue may still name them.
    leftovers: Mutex<Vec<Arc<Split>>>,
}

/// Where the store left off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resume {
    pub(crate) checkpoint: u64,
    pub(crate) sequence_next: u64,
}

impl Store {
    /// Reads the catalogue, checks the splits that it names and removes files that it does not. When the catalogue is
    /// missing or damaged, it is made again from the splits; when the store is of another format, everything is set
    /// aside and the store begins anew.
    pub(crate) fn open(config: Config, signals: Signals) -> Result<(Self, Resume), Error> {
        check_dictionary()?;
        let (catalogue, contents) = match open_catalogue(&config.directory, &signals) {
            Ok(opened) => opened,
            Err(error) => {
                let Some(why) = unusable(&error) else { return Err(error) };
                // Splits of another format cannot be read either; those of this one make the catalogue again.
                let path = match why {
                    Unusable::Format => config.directory.clone(),
                    Unusable::Corrupted | Unusable::Row => config.directory.join(CATALOGUE),
                };
                let aside = set_aside(&path)?;
                signals.catalogue_set_aside(why, &error, &aside);
                open_catalogue(&config.directory, &signals)?
            }
        };
        let directory = config.directory.join("splits");
        remove_orphans(&directory, &contents.rows.iter().map(|row| file_name(row.id)).collect(), &signals)?;
        let mut splits = Vec::with_capacity(contents.rows.len());
        let mut records = 0;
        for row in contents.rows {
            records += row.records;
            let path = directory.join(file_name(row.id));
            splits.push(Arc::new(Split::new(row, path)));
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
            leftovers: Mutex::default(),
            config,
        };
        for split in &splits {
            if let Err(error) = split.check_length() {
                store.found_damaged(split, &error);
            }
        }
        store.count_splits();
        Ok((store, resume))
    }

    /// The number of a new split.
    pub(crate) fn next_id(&self) -> u64 {
        self.split_next.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a new split, of which nothing is left when that fails: a full disk must not fill with half-built splits.
    pub(crate) fn make_split(
        &self,
        id: u64,
        make: impl FnOnce(PathBuf) -> Result<Split, Error>,
    ) -> Result<Split, Error> {
        let path = self.config.directory.join("splits").join(file_name(id));
        make(path.clone()).inspect_err(|_| {
            // What cannot be deleted now is an orphan, and goes at the next start.
            let _ = fs::remove_file(path.with_extension("partial"));
            let _ = fs::remove_file(&path);
        })
    }

    /// Puts a new split in the place of others, in the catalogue. When that fails, it has not happened once
    /// [`settle`](Self::settle) succeeds.
    pub(crate) fn put_in_place(&self, new: &Arc<Split>, replaced: &[Arc<Split>]) -> Result<(), Error> {
        let rows: Vec<&SplitRow> = replaced.iter().map(|split| &split.row).collect();
        self.catalogue.replace(&new.row, &rows).inspect_err(|_| {
            self.leftovers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(new));
            // What cannot be settled now is tried again before the next split is made.
            let _ = self.settle();
        })
    }

    /// Makes sure that the catalogue names no split whose putting in place failed, and deletes those.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        self.catalogue.settle()?;
        let leftovers = std::mem::take(&mut *self.leftovers.lock().unwrap_or_else(PoisonError::into_inner));
        self.delete(&leftovers);
        Ok(())
    }

    /// Bytes that are missing until so much of the disk is free as must be.
    pub(crate) fn missing_bytes(&self) -> u64 {
        // A file system that does not say is not taken for full: what it refuses is an error of its own.
        let free = rustix::fs::statvfs(&self.config.directory)
            .map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        self.config.disk_free_bytes_min.saturating_sub(free)
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

    /// Deletes the files of splits that the catalogue no longer names, each when its last reader is done.
    pub(crate) fn delete(&self, splits: &[Arc<Split>]) {
        for split in splits {
            split.condemn();
        }
    }
}

/// Opens the catalogue; when there is none, or an empty file, and there are splits, it is made again from them.
fn open_catalogue(directory: &Path, signals: &Signals) -> Result<(Catalogue, Contents), Error> {
    let splits = directory.join("splits");
    fs::create_dir_all(&splits).map_err(|source| Error::disk("create", &splits, source))?;
    let path = directory.join(CATALOGUE);
    // The library takes an empty file for a new one, and then every split would be an orphan and go.
    let is_missing = fs::metadata(&path).map_or_else(
        |error| error.kind() == std::io::ErrorKind::NotFound,
        |metadata| metadata.is_file() && metadata.len() == 0,
    );
    if is_missing && fs::read_dir(&splits).is_ok_and(|mut splits| splits.next().is_some()) {
        rebuild(directory, &path, signals)?;
    }
    Catalogue::open(&path)
}

/// Gives a file or directory a name of its own beside it, for a person to look at. Nothing is deleted.
fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let named = |seconds: u64| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".damaged-{seconds}"));
        path.with_file_name(name)
    };
    // Two starts within a second must not meet.
    let aside = (seconds..).map(named).find(|aside| !aside.exists()).unwrap_or_else(|| named(seconds));
    fs::rename(path, &aside).map_err(|source| Error::disk("set aside", path, source))?;
    Ok(aside)
}

/// The name of a split's file.
pub(crate) fn file_name(id: u64) -> String {
    format!("{id:016x}.{SPLIT_EXTENSION}")
}

/// Makes creations, deletions and new names in a directory survive.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), Error> {
    let synced = fs::File::open(directory).and_then(|file| file.sync_all());
    synced.map_err(|source| Error::disk("sync", directory, source))
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
