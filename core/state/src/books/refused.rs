//! Records that the database refuses one by one, whatever else it takes: set aside in a file of their own, so that
//! they hold nothing up, and tried again at each start, because a new version may know better.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::segment::{Scanner, Segment};
use crate::error::Error;
use crate::frame;
use crate::record::CallRecord;

const FILE: &str = "refused.log";
/// Nothing is searched for in this file but what we wrote.
const SALT: u32 = 0;

/// The file of refused records.
#[derive(Clone, Debug)]
pub(super) struct RefusedFile {
    path: PathBuf,
}

impl RefusedFile {
    pub(super) fn new(directory: &Path) -> Self {
        Self { path: directory.join(FILE) }
    }

    /// Adds records; they are on the platter when this returns. Blocks on the disk.
    pub(super) fn add(&self, records: &[CallRecord]) -> Result<(), Error> {
        self.write(records, OpenOptions::new().create(true).append(true), &self.path)
            .map_err(Error::file("write", &self.path))
    }

    /// All records in it; none when there is no file. Blocks on the disk.
    pub(super) fn read(&self) -> Result<Vec<CallRecord>, Error> {
        let segment = Segment { path: self.path.clone(), number: 0, salt: SALT, bytes: 0 };
        let read = || -> io::Result<Vec<CallRecord>> {
            let mut records = Vec::new();
            let mut scanner = match Scanner::open(&segment, 0, u64::MAX) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
                scanner => scanner?,
            };
            while let Some(frame) = scanner.next()? {
                records.extend(serde_json::from_slice::<CallRecord>(frame));
            }
            Ok(records)
        };
        read().map_err(Error::file("read", &self.path))
    }

    /// Leaves only these records in it. Blocks on the disk.
    pub(super) fn replace(&self, records: &[CallRecord]) -> Result<(), Error> {
        let beside = self.path.with_extension("new");
        let replaced = || -> io::Result<()> {
            if records.is_empty() {
                return fs::remove_file(&self.path);
            }
            self.write(records, OpenOptions::new().create(true).truncate(true).write(true), &beside)?;
            fs::rename(&beside, &self.path)
        };
        replaced().map_err(Error::file("replace", &self.path))
    }

    fn write(&self, records: &[CallRecord], options: &OpenOptions, path: &Path) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            frame::push(SALT, &serde_json::to_vec(record)?, &mut bytes)?;
        }
        let mut file = options.open(path)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}
