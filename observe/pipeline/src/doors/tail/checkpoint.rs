//! How far each file was read, in a file that is replaced whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const NAME: &str = "offsets";

/// Which file, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// Offsets by file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Checkpoint {
    directory: PathBuf,
    /// Whether nothing was ever written down.
    is_first: bool,
    offsets: BTreeMap<FileId, u64>,
}

impl Checkpoint {
    /// Reads what was written down; lines that cannot be read are left out, and their files begin anew.
    pub(super) fn open(directory: &Path) -> Self {
        let text = std::fs::read_to_string(directory.join(NAME));
        // What is there and cannot be read is a disk's fault, and no beginning.
        let is_first = text.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let text = text.unwrap_or_default();
        let line = |line: &str| {
            let mut numbers = line.split(' ').map(str::parse::<u64>);
            let mut next = || numbers.next()?.ok();
            Some((FileId { device: next()?, inode: next()? }, next()?))
        };
        let offsets = text.lines().filter_map(line).collect();
        Self { directory: directory.to_owned(), is_first, offsets }
    }

    /// Whether files were never followed here before.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    pub(super) fn offset(&self, id: FileId) -> Option<u64> {
        self.offsets.get(&id).copied()
    }

    pub(super) fn set(&mut self, id: FileId, offset: u64) {
        self.offsets.insert(id, offset);
    }

    pub(super) fn keep_only(&mut self, is_wanted: impl Fn(FileId) -> bool) {
        self.offsets.retain(|id, _| is_wanted(*id));
    }

    /// Writes it down so that it survives; what was there before stays until then.
    pub(super) fn write(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        let partial = self.directory.join(format!("{NAME}.partial"));
        let mut file = File::create(&partial)?;
        for (FileId { device, inode }, offset) in &self.offsets {
            writeln!(file, "{device} {inode} {offset}")?;
        }
        file.sync_all()?;
        std::fs::rename(&partial, self.directory.join(NAME))?;
        File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_and_damage_costs_its_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut written = Checkpoint::open(directory.path());
        let id = |inode| FileId { device: 7, inode };
        written.set(id(1), 100);
        written.set(id(2), 200);
        written.keep_only(|id| id.inode != 2);
        written.set(id(3), 300);
        written.write().expect("writable");
        assert!(written.is_first());
        assert_eq!(Checkpoint::open(directory.path()), Checkpoint { is_first: false, ..written.clone() });
        std::fs::write(directory.path().join(NAME), "7 1 100\n7 x 3\n7 3").expect("writable");
        let damaged = Checkpoint::open(directory.path());
        assert_eq!((damaged.offset(id(1)), damaged.offset(id(3))), (Some(100), None));
    }
}
