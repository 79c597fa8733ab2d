//! A disk that fails when a test says so: while a file of the catalogue's name with `.failing` behind it exists, nothing
//! can be written or synced; with `.unsynced`, all is written and its sync fails. And what the store makes of that.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{BackendError, Database, DatabaseError, StorageBackend};

use super::*;

#[derive(Debug)]
struct Failing {
    inner: FileBackend,
    switch: PathBuf,
    sync_switch: PathBuf,
}

/// Opens the database as the library does, behind the switch.
pub(crate) fn open(path: &Path, is_created: bool) -> Result<Database, DatabaseError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(is_created).truncate(false).open(path)?;
    let backend = Failing {
        inner: FileBackend::new(file)?,
        switch: path.with_extension("redb.failing"),
        sync_switch: path.with_extension("redb.unsynced"),
    };
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
        self.inner.sync_data()?;
        if self.sync_switch.exists() { Err(io::Error::other("the test's sync fails")) } else { Ok(()) }
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

fn set_failing(directory: &Path, fails: bool) {
    let switch = directory.join("catalogue.redb.failing");
    if fails {
        std::fs::write(switch, b"").expect("written");
    } else {
        std::fs::remove_file(switch).expect("it was there");
    }
}

#[test]
fn a_disk_that_fails_for_a_while_costs_nothing_and_no_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, _) = super::open(config(directory.path()));
    append(&mut writer, 0..25);
    let before = writer.checkpoint();
    set_failing(directory.path(), true);
    for _ in 0..3 {
        assert!(writer.flush().is_err(), "nothing can be published");
        // Whether anything is due depends on the windows.
        let _failed = writer.maintenance().compact_all();
    }
    assert_eq!((writer.checkpoint(), eu(&reader)), (before, expected_eu(0..25)), "all is readable meanwhile");
    set_failing(directory.path(), false);
    writer.flush().expect("the disk works again");
    writer.maintenance().compact_all().expect("here too");
    assert_eq!((writer.checkpoint(), eu(&reader)), (25, expected_eu(0..25)));
    let on_disk = blocks(directory.path()).len();
    drop((writer, reader));
    let (writer, reader, registry) = super::open(config(directory.path()));
    assert_eq!((writer.checkpoint(), eu(&reader)), (25, expected_eu(0..25)));
    assert_eq!(blocks(directory.path()).len(), on_disk, "no file is left over");
    assert!(registry.encode_text().contains("series_blocks_set_aside_total 0"));
}

#[test]
fn days_and_uploads_wait_for_a_disk_that_fails() {
    let parent = tempfile::tempdir().expect("a directory");
    let (directory, bucket) = (parent.path().join("series"), parent.path().join("bucket"));
    let config = Config {
        retention: Duration::from_hours(24 * 365),
        one_hour_after: Duration::from_mins(20),
        five_minutes_after: Duration::from_mins(20),
        bucket: Some(crate::BucketConfig {
            upload_after: Duration::ZERO,
            local_for: Duration::ZERO,
            ..crate::BucketConfig::in_directory(&bucket)
        }),
        ..config(&directory)
    };
    let (mut writer, reader, registry) = super::open(config);
    append(&mut writer, 0..3000);
    let maintenance = writer.maintenance();
    let in_bucket = || std::fs::read_dir(&bucket).map_or(0, Iterator::count);
    set_failing(&directory, true);
    assert!(maintenance.downsample().is_err());
    maintenance.tend_bucket(super::samples::at(3000));
    assert_eq!((in_bucket(), reader.shared.levels.load().to_mend().count()), (0, 0));
    assert_eq!(eu(&reader), expected_eu(0..3000), "all is readable meanwhile");
    let text = registry.encode_text();
    assert!(text.contains("series_downsampling_failures_total 1"), "{text}");
    set_failing(&directory, false);
    assert!(maintenance.downsample().expect("the disk works again") >= 4);
    maintenance.compact().expect("here too");
    maintenance.tend_bucket(super::samples::at(3000));
    assert!(in_bucket() > 3 && blocks(&directory).is_empty());
    // What is in memory goes on; what is in the bucket is read there, levels too.
    append(&mut writer, 3000..3003);
    assert_eq!(eu(&reader), expected_eu(0..3003));
    assert!(registry.encode_text().contains("series_blocks_set_aside_total 0"));
}

#[test]
fn a_commit_that_failed_costs_nothing_in_the_bucket() {
    let parent = tempfile::tempdir().expect("a directory");
    let (directory, bucket) = (parent.path().join("series"), parent.path().join("bucket"));
    let config = Config {
        retention: Duration::from_hours(24 * 365),
        bucket: Some(crate::BucketConfig {
            upload_after: Duration::ZERO,
            local_for: Duration::ZERO,
            ..crate::BucketConfig::in_directory(&bucket)
        }),
        ..config(&directory)
    };
    let switch = directory.join("catalogue.redb.unsynced");
    let (mut writer, reader, _) = super::open(config.clone());
    append(&mut writer, 0..65);
    let maintenance = writer.maintenance();
    let now = super::samples::at(65);
    let in_bucket = || std::fs::read_dir(&bucket).map_or(0, Iterator::count);
    // The end of an upload is on the disk, and the store does not know.
    let id = reader.shared.blocks.load()[0].meta().id;
    let placed = crate::catalogue::Placed { object: "half.block".to_owned(), crc: 1 };
    std::fs::write(bucket.join("half.block"), b"half").expect("written");
    std::fs::write(&switch, b"").expect("written");
    assert!(reader.shared.catalogue().end_upload(id, placed).is_err());
    std::fs::remove_file(&switch).expect("it was there");
    maintenance.sweep_bucket(0);
    assert_eq!(in_bucket(), 0, "taken back, and so garbage");
    maintenance.tend_bucket(now);
    assert_eq!((in_bucket(), blocks(&directory).len()), (6, 0));
    // What a compaction replaced is noted as garbage on the disk, and the store still reads it.
    std::fs::write(&switch, b"").expect("written");
    assert!(maintenance.compact_all().is_err());
    maintenance.sweep_bucket(0);
    assert_eq!(in_bucket(), 6);
    std::fs::remove_file(&switch).expect("it was there");
    maintenance.sweep_bucket(0);
    assert_eq!((in_bucket(), eu(&reader)), (6, expected_eu(0..65)));
    drop((maintenance, writer, reader));
    let (writer, reader, _) = super::open(config);
    assert_eq!(eu(&reader), expected_eu(0..60));
    writer.maintenance().compact_all().expect("the disk works");
    writer.maintenance().sweep_bucket(0);
    writer.maintenance().tend_bucket(now);
    assert_eq!(eu(&reader), expected_eu(0..60));
}
