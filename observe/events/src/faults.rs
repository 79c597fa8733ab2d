//! A disk that fails when a test says so: the catalogue's file with a switch beside it.
//!
//! While a file of the catalogue's name with `.failing` behind it exists, nothing can be written or synced.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{BackendError, Database, DatabaseError, StorageBackend};

#[derive(Debug)]
struct Failing {
    inner: FileBackend,
    switch: PathBuf,
}

/// The file whose presence makes the catalogue's disk fail.
pub(crate) fn switch(catalogue: &Path) -> PathBuf {
    catalogue.with_extension("redb.failing")
}

/// Opens the database as the library does, behind the switch.
pub(crate) fn open(path: &Path, is_created: bool) -> Result<Database, DatabaseError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(is_created).truncate(false).open(path)?;
    let backend = Failing { inner: FileBackend::new(file)?, switch: switch(path) };
    Database::builder().create_with_backend(backend)
}

impl Failing {
    fn check(&self) -> io::Result<()> {
        if self.switch.exists() { Err(io::Error::other("the test's disk fails")) } else { Ok(()) }
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }
}
