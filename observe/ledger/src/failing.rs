//! A disk that fails when a test says so: while a file of the same name with `.failing` behind it exists, nothing can be
//! written or synced. Only tests open files by it.

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

/// Opens the file as [`super::open_file`] does, behind the switch.
///
/// # Errors
/// What the library says.
pub fn open(path: &Path) -> Result<Database, DatabaseError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
    let backend = Failing { inner: FileBackend::new(file)?, switch: switch(path) };
    Database::builder().create_with_backend(backend)
}

/// Makes the disk of a file fail, or work again.
///
/// # Errors
/// When the switch itself cannot be made or removed.
pub fn set(path: &Path, is_failing: bool) -> io::Result<()> {
    if is_failing { std::fs::write(switch(path), b"") } else { std::fs::remove_file(switch(path)) }
}

fn switch(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".failing");
    name.into()
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
