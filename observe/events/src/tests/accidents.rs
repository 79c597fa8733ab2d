//! What may happen to a store: damage, crashes, full disks, readers in the middle of everything.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belfry_signal::Registry;

use proptest::prelude::*;
use redb::{Database, TableDefinition};

use super::{SECOND, START, apply, log, open, open_with, seconds};
use crate::{Config, Error, Events, LogQuery};

/// Changes the file of the oldest split.
fn damage(directory: &Path, change: impl Fn(&mut Vec<u8>)) {
    let file = directory.join("splits").join(&names(&directory.join("splits"))[0]);
    let mut bytes = fs::read(&file).expect("read");
    change(&mut bytes);
    fs::remove_file(&file).expect("removed");
    fs::write(&file, bytes).expect("written");
}

#[test]
fn damaged_splits_are_reported_and_the_others_answer() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 6] = [
        ("torn", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
        ("block", |bytes| bytes[10] ^= 0xff),
        ("index", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
        }),
        ("magic", |bytes| *bytes.last_mut().expect("long") ^= 0x55),
        ("everywhere", |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 0x55)),
    ];
    for (case, change) in changes {
        let directory = tempfile::tempdir().expect("temporary directory");
        {
            let (mut writer, _reader) = open(directory.path());
            for second in [1, 2] {
                apply(&mut writer, second, &[log(second, "tick")]).expect("applied");
                writer.flush().expect("flushed");
            }
        }
        damage(directory.path(), change);
        let registry = Registry::for_test();
        let config = Config::for_test(directory.path().to_owned());
        let (writer, reader) = Events::open(config, &registry).expect("the store opens");
        let found = reader.search(&LogQuery { limit: 10, ..LogQuery::default() }).expect("read");
        assert_eq!((found.rows.len(), found.splits_damaged), (1, 1), "{case}");
        assert_eq!(found.rows[0].record.unix_nanos, START + 2 * SECOND);
        let text = registry.encode_text();
        assert!(text.contains("events_splits{state=\"damaged\"} 1"), "{case}: {text}");
        assert!(text.contains("events_records_dropped_total{reason=\"unreadable\"} 1"), "{case}");
        drop(writer);
    }
}

/// Makes a store with one split in `parent`, and has something happen to its catalogue.
fn store_with(parent: &Path, happen: impl Fn(&Path)) -> Config {
    let config = Config::for_test(parent.join("events"));
    let (mut writer, reader) = open_with(config.clone());
    apply(&mut writer, 1, &[log(1, "tick")]).expect("applied");
    writer.flush().expect("flushed");
    drop((writer, reader));
    happen(&config.directory.join("catalogue.redb"));
    config
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("listed");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("listed").file_name();
    let mut names: Vec<_> = entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn bad_row(catalogue: &Path) {
    let database = Database::create(catalogue).expect("opened");
    let write = database.begin_write().expect("begun");
    let splits = TableDefinition::<u64, &[u8]>::new("splits");
    write.open_table(splits).expect("opened").insert(0, [0xff; 3].as_slice()).expect("inserted");
    write.commit().expect("committed");
}

fn other_format(catalogue: &Path) {
    let database = Database::create(catalogue).expect("opened");
    let write = database.begin_write().expect("begun");
    let texts = TableDefinition::<&str, &str>::new("texts");
    write.open_table(texts).expect("opened").insert("format", "of yore").expect("inserted");
    write.commit().expect("committed");
}

fn other_tables(catalogue: &Path) {
    fs::remove_file(catalogue).expect("removed");
    let database = Database::create(catalogue).expect("created");
    let write = database.begin_write().expect("begun");
    write.open_table(TableDefinition::<&str, &str>::new("splits")).expect("opened");
    write.commit().expect("committed");
}

fn torn(catalogue: &Path, keep: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(catalogue).expect("read");
    bytes.truncate(keep(bytes.len()));
    fs::write(catalogue, bytes).expect("written");
}

type Happen = fn(&Path);

#[test]
fn a_store_of_another_format_is_set_aside_and_the_store_begins_anew() {
    let cases: [(&str, Happen); 2] = [("other format", other_format), ("other tables", other_tables)];
    for (case, happen) in cases {
        let parent = tempfile::tempdir().expect("temporary directory");
        let config = store_with(parent.path(), happen);
        let found_splits = names(&config.directory.join("splits"));
        let registry = Registry::for_test();
        let (mut writer, reader) = match Events::open(config.clone(), &registry) {
            Ok(opened) => opened,
            Err(error) => panic!("{case}: {error}"),
        };
        assert_eq!(writer.checkpoint(), 0, "{case}: the log is replayed from its beginning");
        let stores = names(parent.path());
        let [_, aside] = stores.as_slice() else { panic!("{case}: {stores:?}") };
        let seconds_aside = aside.strip_prefix("events.damaged-").expect("the name of before begins it");
        assert!(seconds_aside.parse::<u64>().is_ok(), "{case}: {aside}");
        let aside = parent.path().join(aside);
        assert!(aside.join("catalogue.redb").exists(), "{case}");
        assert_eq!((names(&aside.join("splits")), found_splits.len()), (found_splits, 1), "{case}");
        let text = registry.encode_text();
        assert!(text.contains("events_catalogues_set_aside_total{reason=\"format\"} 1"), "{case}: {text}");

        apply(&mut writer, 2, &[log(2, "tock")]).expect("applied");
        writer.flush().expect("flushed");
        assert_eq!(seconds(&reader, ""), [2], "{case}");
        drop((writer, reader));
        let (_writer, reader) = open_with(config);
        assert_eq!(seconds(&reader, "tock"), [2], "{case}: and stays");
        assert_eq!(names(parent.path()).len(), 2, "{case}: once");
    }
}

#[test]
fn a_lost_or_damaged_catalogue_is_made_again_from_the_splits() {
    let cases: [(&str, &str, Happen); 7] = [
        ("garbage", "corrupted", |path| fs::write(path, b"this is not a database").expect("written")),
        ("torn in the header", "corrupted", |path| torn(path, |_| 100)),
        ("torn in the middle", "corrupted", |path| torn(path, |length| length / 2)),
        ("overwritten behind the header", "corrupted", |path| {
            let mut bytes = fs::read(path).expect("read");
            bytes[4096..].fill(0x55);
            fs::write(path, bytes).expect("written");
        }),
        ("bad row", "row", bad_row),
        ("emptied", "", |path| torn(path, |_| 0)),
        ("missing", "", |path| fs::remove_file(path).expect("removed")),
    ];
    for (case, reason, happen) in cases {
        let parent = tempfile::tempdir().expect("temporary directory");
        let config = store_with(parent.path(), happen);
        let registry = Registry::for_test();
        let (mut writer, reader) = match Events::open(config.clone(), &registry) {
            Ok(opened) => opened,
            Err(error) => panic!("{case}: {error}"),
        };
        assert_eq!(writer.checkpoint(), 1, "{case}: nothing is replayed twice");
        assert_eq!(seconds(&reader, "tick"), [1], "{case}: nothing is lost");
        let text = registry.encode_text();
        assert!(text.contains("events_catalogues_rebuilt_total 1"), "{case}: {text}");
        if !reason.is_empty() {
            let counted = format!("events_catalogues_set_aside_total{{reason=\"{reason}\"}} 1");
            assert!(text.contains(&counted), "{case}: {text}");
            let aside = names(&config.directory);
            assert!(
                aside.iter().any(|name| name.starts_with("catalogue.redb.damaged-")),
                "{case}: {aside:?}"
            );
        }
        apply(&mut writer, 2, &[log(2, "tock")]).expect("applied");
        writer.flush().expect("flushed");
        drop((writer, reader));
        let (_writer, reader) = open_with(config);
        assert_eq!(seconds(&reader, ""), [2, 1], "{case}: life goes on");
    }
}

#[test]
fn a_split_whose_footer_is_damaged_is_set_aside_when_the_catalogue_is_lost() {
    let parent = tempfile::tempdir().expect("temporary directory");
    let config = store_with(parent.path(), |_| {});
    {
        let (mut writer, _reader) = open_with(config.clone());
        apply(&mut writer, 2, &[log(2, "tock")]).expect("applied");
        writer.flush().expect("flushed");
    }
    damage(&config.directory, |bytes| *bytes.last_mut().expect("long") ^= 1);
    fs::remove_file(config.directory.join("catalogue.redb")).expect("removed");
    let (_writer, reader) = open_with(config.clone());
    assert_eq!(seconds(&reader, ""), [2]);
    assert_eq!(names(&config.directory.join("damaged")).len(), 1);
}

#[test]
fn a_sibling_that_cannot_be_read_costs_no_sound_split_when_the_catalogue_is_lost() {
    let directory = tempfile::tempdir().expect("temporary directory");
    {
        let (mut writer, _reader) = open(directory.path());
        // Two splits of one publication, of calls and of the system.
        apply(&mut writer, 1, &[super::sip(1, 1, "INVITE"), log(2, "tick")]).expect("applied");
        writer.flush().expect("flushed");
    }
    let found = names(&directory.path().join("splits"));
    damage(directory.path(), |bytes| *bytes.last_mut().expect("long") ^= 1);
    fs::remove_file(directory.path().join("catalogue.redb")).expect("removed");
    drop(open(directory.path()));
    // And once more: the damaged one is set aside by now.
    fs::remove_file(directory.path().join("catalogue.redb")).expect("removed");
    {
        let (_writer, reader) = open(directory.path());
        assert_eq!(seconds(&reader, ""), [2]);
    }
    // Without it, the other is of a publication that is not whole.
    fs::remove_file(directory.path().join("catalogue.redb")).expect("removed");
    fs::remove_dir_all(directory.path().join("damaged")).expect("removed");
    let (writer, reader) = open(directory.path());
    assert_eq!((seconds(&reader, ""), writer.checkpoint()), (vec![], 0), "the log has it");
    assert_eq!(names(&directory.path().join("damaged")), found[1..], "and its file is kept");
}

#[test]
fn two_stores_can_be_set_aside_within_a_second() {
    let parent = tempfile::tempdir().expect("temporary directory");
    for _ in 0..3 {
        let config = store_with(parent.path(), other_format);
        drop(open_with(config));
    }
    assert_eq!(names(parent.path()).len(), 4);
}

#[test]
fn a_catalogue_that_is_in_use_or_refused_by_the_disk_stays_where_it_is() {
    let parent = tempfile::tempdir().expect("temporary directory");
    let config = store_with(parent.path(), |_| {});
    let catalogue = config.directory.join("catalogue.redb");
    let other = Database::create(&catalogue).expect("opened");
    let registry = Registry::for_test();
    let error = Events::open(config.clone(), &registry).err().expect("refused");
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert!(error.to_string().contains("is open in another process"), "{error}");
    drop(other);
    // A directory cannot be opened as a file: the disk's word, not damage.
    fs::rename(&catalogue, config.directory.join("kept")).expect("renamed");
    fs::create_dir(&catalogue).expect("created");
    let registry_of_second = Registry::for_test();
    let error = Events::open(config.clone(), &registry_of_second).err().expect("refused");
    assert!(matches!(error, Error::Disk { action: "open", .. }), "{error}");
    assert!(error.to_string().contains("catalogue.redb"), "{error}");
    assert_eq!(names(parent.path()), ["events"]);
    fs::remove_dir(&catalogue).expect("removed");
    fs::rename(config.directory.join("kept"), &catalogue).expect("renamed");
    let (_writer, reader) = open_with(config);
    assert_eq!(seconds(&reader, ""), [1]);
    let text = registry.encode_text() + &registry_of_second.encode_text();
    let mut counts = text.lines().filter(|line| line.starts_with("events_catalogues_set_aside_total{"));
    assert!(counts.all(|line| line.ends_with(" 0")), "nothing was set aside: {text}");
}

#[test]
fn what_a_crash_left_half_built_is_removed() {
    let directory = tempfile::tempdir().expect("temporary directory");
    drop(open(directory.path()));
    let orphan = directory.path().join("splits/00000000000000aa.partial");
    fs::write(&orphan, b"half").expect("written");
    let (_writer, reader) = open(directory.path());
    assert!(!orphan.exists());
    assert_eq!(seconds(&reader, ""), Vec::<u64>::new());
}

#[test]
fn a_full_store_refuses_instead_of_growing_and_recovers() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let config = Config {
        seal_records_max: 2,
        live_records_max: 4,
        sealed_buffers_max: 1,
        // Longer than a test may run: a builder that fails is not waited for.
        hand_over_wait: Duration::from_hours(1),
        ..Config::for_test(directory.path().to_owned())
    };
    let (mut writer, reader) = open_with(config);
    // A file where the splits should be: no split can be built.
    let splits = directory.path().join("splits");
    fs::remove_dir(&splits).expect("removed");
    fs::write(&splits, b"").expect("written");
    let mut taken = 0;
    let refused = (1..20).find_map(|position| match apply(&mut writer, position, &[log(position, "tick")]) {
        Ok(()) => {
            taken += 1;
            None
        }
        Err(error) => Some((position, error)),
    });
    let (position, error) = refused.expect("the store is bounded");
    assert!(matches!(error, Error::Busy), "{error}");
    assert_eq!(seconds(&reader, "").len(), taken);
    assert!(writer.flush().is_err());
    assert!(matches!(apply(&mut writer, position, &[log(position, "tick")]), Err(Error::Busy)), "at once");
    fs::remove_file(&splits).expect("removed");
    fs::create_dir(&splits).expect("created");
    // The builder tries again by itself; a flush may still meet the last failure.
    while writer.flush().is_err() {}
    apply(&mut writer, position, &[log(position, "tick")]).expect("applied");
    assert_eq!(seconds(&reader, "").len(), taken + 1);
    assert_eq!(writer.checkpoint(), position - 1);
}

#[test]
fn a_damaged_split_does_not_keep_its_neighbours_from_merging() {
    let directory = tempfile::tempdir().expect("temporary directory");
    {
        let (mut writer, _reader) = open(directory.path());
        for second in 1..=5 {
            apply(&mut writer, second, &[log(second, "tick")]).expect("applied");
            writer.flush().expect("flushed");
        }
    }
    // The length stays right: only the checksum tells, and merging looks at it first.
    damage(directory.path(), |bytes| bytes[10] ^= 0xff);
    let config = Config { merge_splits: 2, ..Config::for_test(directory.path().to_owned()) };
    let (writer, reader) = open_with(config);
    writer.keep(i64::try_from(START / 1_000_000).expect("fits"));
    let found = reader.search(&LogQuery { limit: 10, ..LogQuery::default() }).expect("read");
    assert_eq!((found.rows.len(), found.splits_damaged), (4, 1));
    let splits = fs::read_dir(directory.path().join("splits")).expect("listed").count();
    assert_eq!(splits, 2, "the damaged one, and one of all others");
}

#[test]
fn readers_see_every_record_once_while_buffers_become_splits_and_splits_merge() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let config = Config { merge_splits: 2, ..Config::for_test(directory.path().to_owned()) };
    let (mut writer, reader) = open_with(config);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for position in 1..=30 {
                apply(&mut writer, position, &[log(position, "tick"), log(position, "tock")])
                    .expect("applied");
                if position % 2 == 0 {
                    writer.flush().expect("flushed");
                    writer.keep(i64::try_from(START / 1_000_000).expect("fits"));
                }
            }
            is_done.store(true, Ordering::Release);
        });
        let mut seen = 0;
        while !is_done.load(Ordering::Acquire) {
            let found = reader.search(&LogQuery { limit: 1000, ..LogQuery::default() }).expect("read");
            let mut sequences: Vec<u64> = found.rows.iter().map(|row| row.sequence).collect();
            sequences.sort_unstable();
            let expected: Vec<u64> = (0..sequences.len() as u64).collect();
            assert_eq!(sequences, expected, "nothing is missing and nothing is twice");
            assert!(sequences.len() >= seen, "nothing disappears");
            seen = sequences.len();
            assert_eq!(found.splits_damaged, 0);
        }
    });
    assert_eq!(seconds(&reader, "").len(), 60);
}

#[test]
fn the_writer_can_live_on_any_thread_and_readers_on_many() {
    fn check<W: Send, R: Clone + Send + Sync>(_: &(W, R)) {}
    let directory = tempfile::tempdir().expect("temporary directory");
    check(&open(directory.path()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever happens to a split's file, and to the catalogue besides: the store opens, and an answer is whole or says
    /// that a split is missing.
    #[test]
    fn a_split_changed_anywhere_gives_no_wrong_answer(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), 1..=255_u8), 0..4),
        cut in proptest::option::weighted(0.3, any::<proptest::sample::Index>()),
        is_catalogue_lost in any::<bool>(),
    ) {
        let parent = tempfile::tempdir().expect("temporary directory");
        let config = store_with(parent.path(), |_| {});
        {
            let (mut writer, _reader) = open_with(config.clone());
            apply(&mut writer, 2, &[log(2, "tock"), log(3, "tack")]).expect("applied");
            writer.flush().expect("flushed");
        }
        damage(&config.directory, |bytes| {
            for (place, change) in &changes {
                let place = place.index(bytes.len());
                bytes[place] ^= change;
            }
            if let Some(cut) = &cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        });
        if is_catalogue_lost {
            fs::remove_file(config.directory.join("catalogue.redb")).expect("removed");
        }
        let (_writer, reader) = open_with(config.clone());
        let found = reader.search(&LogQuery { limit: 10, ..LogQuery::default() }).expect("read");
        let times: Vec<u64> = found.rows.iter().map(|row| (row.record.unix_nanos - START) / SECOND).collect();
        let is_set_aside = config.directory.join("damaged").exists();
        if found.splits_damaged == 0 && !is_set_aside {
            prop_assert_eq!(times, [3, 2, 1]);
        } else {
            prop_assert_eq!(times, [3, 2]);
        }
    }
}

#[test]
fn a_catalogue_whose_disk_failed_is_opened_again_and_nothing_is_left_behind() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let config = Config { merge_splits: 2, ..Config::for_test(directory.path().to_owned()) };
    let (mut writer, reader) = open_with(config);
    let switch = crate::faults::switch(&directory.path().join("catalogue.redb"));
    let splits = || names(&directory.path().join("splits")).len();
    apply(&mut writer, 1, &[log(1, "tick")]).expect("applied");
    writer.flush().expect("flushed");
    fs::write(&switch, b"").expect("the disk fails");
    apply(&mut writer, 2, &[log(2, "tock")]).expect("applied");
    for _ in 0..3 {
        assert!(writer.flush().is_err());
        writer.keep(i64::try_from(START / 1_000_000).expect("fits"));
    }
    assert_eq!(splits(), 2, "each try commits the same split");
    assert_eq!(seconds(&reader, ""), [2, 1]);
    fs::remove_file(&switch).expect("the disk works");
    while writer.flush().is_err() {}
    assert_eq!((writer.checkpoint(), splits()), (2, 2));
    // Merging: one split may be left over while the disk fails, and goes when it works again.
    fs::write(&switch, b"").expect("the disk fails");
    for _ in 0..3 {
        writer.keep(i64::try_from(START / 1_000_000).expect("fits"));
        assert_eq!(splits(), 3, "each round would leave one more");
    }
    assert_eq!(seconds(&reader, ""), [2, 1]);
    fs::remove_file(&switch).expect("the disk works");
    writer.keep(i64::try_from(START / 1_000_000).expect("fits"));
    assert_eq!((splits(), seconds(&reader, "")), (1, vec![2, 1]));
    drop((writer, reader));
    assert_eq!(seconds(&open(directory.path()).1, ""), [2, 1]);
}
