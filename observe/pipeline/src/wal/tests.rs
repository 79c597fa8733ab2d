//! The log under crashes, damage and full disks.

use std::path::{Path, PathBuf};

use belfry_signal::record::{Body, Log};
use belfry_signal::{PackedRecord, Record, Sample, Severity};
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { segment_bytes_max: 1 << 20, record_bytes_max: 4096 };

fn log(number: u64, padding: usize) -> Entry {
    let attributes = vec![("padding".into(), belfry_signal::Value::Text("x".repeat(padding).into()))];
    let record = Record {
        unix_nanos: number,
        component: "test".into(),
        body: Body::Log(Log {
            severity: Severity::Info,
            message: "something happened".into(),
            attributes,
            context: None,
            call_id: None,
        }),
    };
    Entry::Record(PackedRecord::of(&record).expect("packed"))
}

fn samples(unix_millis: i64, series: usize) -> Entry {
    let sample = |n: usize| Sample {
        name: format!("edge_gateway_requests_of_kind_{n}_total"),
        labels: vec![("listener".to_owned(), "public".to_owned()), ("outcome".to_owned(), "good".to_owned())],
        value: n as f64 + unix_millis as f64,
    };
    Entry::Samples { unix_millis, samples: (0..series).map(sample).collect() }
}

fn open(directory: &Path) -> (Wal, Recovery) {
    Wal::open(directory, LIMITS, 0).expect("the log opens whatever it holds")
}

fn replay(wal: &Wal, from: u64) -> (Vec<(u64, Entry)>, Replayed) {
    let mut entries = Vec::new();
    let mut reading = Replay::new(from);
    let (segments, end) = wal.segments_past(from);
    for segment in segments {
        reading.read(&segment, |position, _, entry| entries.push((position, entry)));
    }
    reading.finish_at(end);
    assert_eq!(wal.segments_past(reading.position()).0.len(), 0, "a reading comes to its end");
    (entries, reading.met())
}

fn segment_files(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).expect("there is a directory");
    let mut paths: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    paths.sort();
    paths
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart_once_and_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut expected = Vec::new();
    for round in 0..3 {
        let (mut wal, recovery) = open(directory.path());
        assert_eq!(recovery.next_position, expected.len() as u64 + 1);
        for batch in 0..4 {
            let entries: Vec<_> =
                (0..5).map(|n| log(round * 100 + batch * 10 + n, 20)).chain([samples(7, 3)]).collect();
            let appended = wal.append(&entries).expect("the disk works");
            expected.extend(entries);
            assert_eq!(appended.position, expected.len() as u64);
        }
    }
    let (wal, _) = open(directory.path());
    let (entries, replayed) = replay(&wal, 0);
    assert_eq!(
        entries.iter().map(|(position, _)| *position).collect::<Vec<_>>(),
        (1..=72).collect::<Vec<_>>()
    );
    assert!(entries.into_iter().map(|(_, entry)| entry).eq(expected));
    assert_eq!(replayed, Replayed { entries: 72, damaged_bytes: 0, missing: 0 });
    assert_eq!(replay(&wal, 70).0.len(), 2);
    assert_eq!(replay(&wal, 72).0.len(), 0);
}

#[test]
fn a_series_is_spelled_out_once_per_segment() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut wal, _) = open(directory.path());
    let limits_fit = Limits { record_bytes_max: 1 << 20, ..LIMITS };
    wal.limits = limits_fit;
    let first = wal.append(&[samples(1, 500)]).expect("the disk works").bytes;
    let second = wal.append(&[samples(2, 500)]).expect("the disk works").bytes;
    assert!(second * 5 < first, "{first} bytes, then {second}");
}

#[test]
fn an_entry_that_is_too_long_is_left_out_and_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut wal, _) = open(directory.path());
    let entries = [log(1, 10), log(2, 5000), samples(3, 400), samples(4, 2), log(5, 10)];
    let appended = wal.append(&entries).expect("the disk works");
    assert_eq!((appended.oversize.as_slice(), appended.position), (&[1, 2][..], 3));
    drop(wal);
    let (entries_back, _) = replay(&open(directory.path()).0, 0);
    let kept: Vec<_> = entries_back.into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(kept, [entries[0].clone(), entries[3].clone(), entries[4].clone()]);
}

#[test]
fn a_flipped_bit_costs_one_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut wal, _) = open(directory.path());
    let before = wal.append(&(0..10).map(|n| log(n, 50)).collect::<Vec<_>>()).expect("works").bytes;
    wal.append(&(10..20).map(|n| log(n, 50)).collect::<Vec<_>>()).expect("works");
    drop(wal);
    let path = segment_files(directory.path()).remove(0);
    let clean = std::fs::read(&path).expect("readable");
    // In the length, the checksum, the position and the payload of the eleventh record.
    for offset in [0, 5, 9, 40] {
        let mut bytes = clean.clone();
        bytes[usize::try_from(before).expect("small") + offset] ^= 0x10;
        std::fs::write(&path, bytes).expect("writable");
        let (wal, recovery) = open(directory.path());
        let (entries, replayed) = replay(&wal, 0);
        assert_eq!((entries.len(), replayed.missing), (19, 1), "offset {offset}");
        assert!(replayed.damaged_bytes > 0);
        assert_eq!((recovery.torn_bytes, recovery.next_position), (0, 21));
    }
}

#[test]
fn segments_roll_and_go_when_every_store_has_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut wal, _) = open(directory.path());
    wal.limits.segment_bytes_max = 1000;
    for n in 0..50 {
        wal.append(&[log(n, 100)]).expect("works");
    }
    let files = segment_files(directory.path()).len();
    assert!(files > 4, "{files} files");
    assert_eq!(wal.trim(0).expect("works"), 0);
    assert!(wal.trim(25).expect("works") > 1);
    let first_left = wal.sealed.front().expect("some are left").first_position();
    assert!(first_left <= 26, "{first_left}");
    assert_eq!(replay(&wal, first_left - 1).1.missing, 0);
    wal.trim(50).expect("works");
    assert_eq!(segment_files(directory.path()).len(), 1, "the newest stays: it carries the position");
    drop(wal);
    assert_eq!(open(directory.path()).1.next_position, 51);
}

#[test]
fn one_directory_has_one_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let (wal, _) = open(directory.path());
    assert!(matches!(Wal::open(directory.path(), LIMITS, 0), Err(OpenError::InUse)));
    drop(wal);
    // A store knows more than the log: positions go on above.
    let (mut wal, _) = Wal::open(directory.path(), LIMITS, 1000).expect("free again");
    assert_eq!(wal.append(&[log(1, 0)]).expect("works").position, 1001);
}

#[test]
fn a_disk_that_fails_and_works_again_leaves_no_position_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("wal");
    let (mut wal, _) = open(&path);
    wal.append(&[log(1, 0)]).expect("works");
    wal.seal_current();
    let away = directory.path().join("away");
    std::fs::rename(&path, &away).expect("renamed");
    assert!(wal.append(&[log(2, 0), log(3, 0)]).is_err());
    wal.skip(2);
    std::fs::rename(&away, &path).expect("renamed");
    assert_eq!(wal.append(&[log(4, 0)]).expect("works again").position, 4);
    drop(wal);
    let (entries, replayed) = replay(&open(&path).0, 0);
    assert_eq!(entries, [(1, log(1, 0)), (4, log(4, 0))]);
    assert_eq!(replayed.missing, 2);

    // Positions given up at the very end do not keep a reading from its end.
    let (mut wal, _) = open(&directory.path().join("other"));
    wal.append(&[log(1, 0)]).expect("works");
    wal.seal_current();
    wal.skip(5);
    assert_eq!(replay(&wal, 0).0.len(), 1);
}

/// Batches of entries (samples or not, size), the share of the file that is left, and what stands behind it.
type Crash = (Vec<Vec<(bool, usize)>>, f64, Vec<u8>);

fn crashes() -> impl Strategy<Value = Crash> {
    let entry = (proptest::bool::weighted(0.2), 0_usize..60);
    let batches = proptest::collection::vec(proptest::collection::vec(entry, 1..5), 1..6);
    (batches, 0.0..=1.0, proptest::collection::vec(any::<u8>(), 0..40))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A crash leaves any part of the unacknowledged end, or any garbage, behind what was fsynced.
    #[test]
    fn a_crash_at_any_byte_loses_nothing_acknowledged((batches, cut, garbage) in crashes()) {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut wal, _) = open(directory.path());
        let mut number = 0;
        let mut acknowledged = vec![(0_u64, 0_usize)];
        let mut all = Vec::new();
        for batch in &batches {
            let entries: Vec<_> = batch.iter().map(|(is_samples, size)| {
                number += 1;
                if *is_samples { samples(number, *size % 7) } else { log(number.unsigned_abs(), *size) }
            }).collect();
            let bytes = wal.append(&entries).expect("the disk works").bytes;
            all.extend(entries);
            acknowledged.push((acknowledged.last().expect("one").0 + bytes, all.len()));
        }
        drop(wal);
        let path = segment_files(directory.path()).remove(0);
        let mut bytes = std::fs::read(&path).expect("readable");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a small file")]
        let kept = (bytes.len() as f64 * cut) as usize;
        bytes.truncate(kept);
        bytes.extend(&garbage);
        std::fs::write(&path, bytes).expect("writable");

        let promised = acknowledged.iter().rev().find(|(end, _)| *end <= kept as u64).expect("zero").1;
        let (mut wal, recovery) = open(directory.path());
        let (entries, replayed) = replay(&wal, 0);
        prop_assert!(entries.len() >= promised, "{} of {promised}", entries.len());
        for (index, (position, entry)) in entries.iter().enumerate() {
            prop_assert_eq!(*position, index as u64 + 1);
            prop_assert_eq!(entry, &all[index]);
        }
        prop_assert_eq!(replayed.missing, 0);
        prop_assert_eq!(recovery.next_position, entries.len() as u64 + 1);

        // Life goes on: what is appended now is replayed too, once, after the rest.
        wal.append(&[log(9999, 1)]).expect("the disk works");
        drop(wal);
        let (wal, recovery) = open(directory.path());
        prop_assert_eq!(recovery.torn_bytes, 0);
        let (again, _) = replay(&wal, 0);
        prop_assert_eq!(again.len(), entries.len() + 1);
        prop_assert_eq!(&again[entries.len()].1, &log(9999, 1));
        let middle = entries.len() as u64 / 2;
        prop_assert_eq!(replay(&wal, middle).0.first().map(|(position, _)| *position), Some(middle + 1));
    }
}
