//! What is kept and for how long: streams, holds, outcomes of calls, a full disk.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use belfry_signal::Registry;
use belfry_signal::record::{Body, Record};

use super::{SECOND, START, apply, ended, log, open_with, quality, seconds, sip};
use crate::{Config, Events, EventsReader, Hold, Keep, LogQuery, Stream, WhenDiskFull};

/// So many seconds after the little world's beginning, in milliseconds.
fn later(second: u64) -> i64 {
    i64::try_from((START + second * SECOND) / 1_000_000).expect("fits")
}

fn time(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(START + second * SECOND)
}

fn request(second: u64) -> Record {
    log(second, "request")
}

fn config(directory: &Path, keep: Keep) -> Config {
    let own = Config::for_test(directory.to_owned());
    Config { retention: Duration::from_secs(1000), merged_span_max: Duration::from_secs(500), keep, ..own }
}

fn counted(registry: &Registry, line: &str) {
    let text = registry.encode_text();
    assert!(text.contains(line), "{line} is not in {text}");
}

#[test]
fn each_stream_is_kept_as_long_as_it_should_be() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let keep = Keep {
        calls: Some(Duration::from_secs(3000)),
        access: Some(Duration::from_secs(100)),
        ..Keep::default()
    };
    let (mut writer, reader) = open_with(config(directory.path(), keep));
    apply(&mut writer, 1, &[sip(1, 1, "INVITE"), request(2), log(3, "tick")]).expect("applied");
    writer.flush().expect("flushed");
    let check = |second: u64, expected: &[u64]| {
        writer.keep(later(second));
        assert_eq!(seconds(&reader, ""), expected, "after {second} s");
    };
    check(50, &[3, 2, 1]);
    check(200, &[3, 1]);
    check(1100, &[1]);
    check(4000, &[]);
}

#[test]
fn what_is_held_stays_whatever_its_age_and_the_room() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let hold = |streams| Hold { streams, from: time(0), to: time(10), reason: "case 7".into() };
    let keep = Keep { hold: vec![hold(vec![Stream::System])], ..Keep::default() };
    let config = Config { splits_max: 2, merge_splits: 64, ..config(directory.path(), keep) };
    let (mut writer, reader) = open_with(config);
    for second in [5, 6, 20, 21, 22] {
        apply(&mut writer, second, &[log(second, "tick"), request(second)]).expect("applied");
        writer.flush().expect("flushed");
    }
    writer.keep(later(25));
    assert_eq!(seconds(&reader, ""), [6, 5], "the bound is met by what is not held");
    writer.keep(later(1_000_000));
    assert_eq!(seconds(&reader, ""), [6, 5]);
}

/// Three calls: 1 good, 2 poor, 3 failed; and a registration that is 4, whose INVITE never came.
fn calls() -> Vec<Record> {
    let mut records = Vec::new();
    for call in [1, 2, 3] {
        records.push(sip(u64::from(call), call, "INVITE"));
        records.push(quality(10 + u64::from(call), call, if call == 2 { 2.0 } else { 4.4 }));
    }
    records.push(sip(4, 4, "REGISTER"));
    records.push(sip(5, 5, "INVITE"));
    // The later part of calls whose beginning is in another split.
    records.push(sip(6, 6, "200"));
    records.push(quality(7, 7, 4.4));
    records
}

fn ends() -> Vec<Record> {
    let mos = [Some(4.4), Some(2.0), Some(4.4)];
    let outcomes = ["answered", "answered", "failed"];
    (1..=3)
        .map(|call| {
            ended(20 + u64::from(call), call, outcomes[usize::from(call) - 1], mos[usize::from(call) - 1])
        })
        .collect()
}

fn of_call(reader: &EventsReader, call: u8) -> (usize, bool) {
    let view = reader.call(&format!("call-{call}@host")).expect("read");
    view.map_or((0, false), |view| {
        (view.timeline.messages.len() + view.timeline.quality.len(), view.summary.is_some())
    })
}

#[test]
fn good_calls_keep_their_summary_and_bad_ones_everything() {
    for (good_share, expected) in [(0.0, (0, true)), (1.0, (2, true))] {
        let directory = tempfile::tempdir().expect("temporary directory");
        let keep = Keep { thin_after: Some(Duration::from_secs(100)), good_share, ..Keep::default() };
        let registry = Registry::for_test();
        let (mut writer, reader) = Events::open(config(directory.path(), keep), &registry).expect("opened");
        // The summaries are in another split than the messages.
        apply(&mut writer, 1, &calls()).expect("applied");
        writer.flush().expect("flushed");
        apply(&mut writer, 2, &ends()).expect("applied");
        writer.flush().expect("flushed");
        writer.keep(later(50));
        assert_eq!(of_call(&reader, 1), (2, true), "its time has not come");
        writer.keep(later(200));
        assert_eq!(of_call(&reader, 1), expected, "share {good_share}");
        assert_eq!((of_call(&reader, 2), of_call(&reader, 3)), ((2, true), (2, true)), "poor and failed");
        for call in [5, 6, 7] {
            assert_eq!(of_call(&reader, call), (1, false), "nobody knows how {call} went");
        }
        let dropped = if good_share < 0.5 { 3 } else { 0 };
        assert_eq!(of_call(&reader, 4), (usize::from(dropped == 0), false), "a registration is of the share");
        counted(&registry, &format!("events_records_dropped_total{{reason=\"thinned\"}} {dropped}"));
        writer.keep(later(300));
        counted(&registry, &format!("events_records_dropped_total{{reason=\"thinned\"}} {dropped}"));
        drop((writer, reader));
        let (_writer, reader) = open_with(config(directory.path(), Keep::default()));
        assert_eq!(of_call(&reader, 1), expected, "and stays so");
    }
}

#[test]
fn a_full_disk_refuses_or_drops_the_oldest_as_configured() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let full = |when_disk_full| Config {
        disk_free_bytes_min: u64::MAX,
        when_disk_full,
        ..config(directory.path(), Keep::default())
    };
    {
        let (mut writer, _reader) = open_with(config(directory.path(), Keep::default()));
        apply(&mut writer, 1, &[log(1, "tick")]).expect("applied");
        writer.flush().expect("flushed");
    }
    {
        let (mut writer, reader) = open_with(full(WhenDiskFull::Refuse));
        apply(&mut writer, 2, &[log(2, "tock")]).expect("applied");
        let error = writer.flush().expect_err("nothing more fits");
        assert!(error.to_string().contains("drop_oldest"), "{error}");
        writer.keep(later(10));
        assert_eq!(seconds(&reader, ""), [2, 1], "what is there stays, and what is live is found");
        assert_eq!(writer.checkpoint(), 1, "the log keeps the rest");
    }
    let registry = Registry::for_test();
    let (writer, reader) = Events::open(full(WhenDiskFull::DropOldest), &registry).expect("opened");
    writer.keep(later(10));
    assert_eq!(seconds(&reader, ""), Vec::<u64>::new());
    counted(&registry, "events_records_dropped_total{reason=\"disk_full\"} 1");
}

#[test]
fn a_full_disk_is_not_filled_by_merging_and_thinning() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let keep = Keep { thin_after: Some(Duration::from_secs(100)), good_share: 0.0, ..Keep::default() };
    let roomy = Config { merge_splits: 2, ..config(directory.path(), keep) };
    {
        let (mut writer, _reader) = open_with(roomy.clone());
        apply(&mut writer, 1, &calls()).expect("applied");
        writer.flush().expect("flushed");
        apply(&mut writer, 2, &ends()).expect("applied");
        writer.flush().expect("flushed");
    }
    let names = || {
        let files = std::fs::read_dir(directory.path().join("splits")).expect("listed");
        let mut names: Vec<_> = files.map(|file| file.expect("listed").file_name()).collect();
        names.sort();
        names
    };
    let found = names();
    {
        let (writer, _reader) = open_with(Config { disk_free_bytes_min: u64::MAX, ..roomy.clone() });
        writer.keep(later(200));
        assert_eq!(names(), found, "nothing is written anew");
    }
    let (writer, reader) = open_with(roomy);
    crate::housekeeping::keep(writer.store(), later(200), &|| true);
    assert_eq!(names(), found, "nor by a round that is stopped");
    writer.keep(later(200));
    assert_ne!(names(), found);
    assert_eq!(of_call(&reader, 2), (2, true));
}

#[test]
fn a_condemned_split_is_not_kept_open() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (mut writer, reader) = open_with(config(directory.path(), Keep::default()));
    apply(&mut writer, 1, &[log(1, "tick")]).expect("applied");
    writer.flush().expect("flushed");
    let store = writer.store();
    // A search that took the list of splits before a split was dropped opens it afterwards.
    let splits = store.live.splits();
    store.delete(&splits);
    store.open.forget(&[splits[0].row.id]);
    assert_eq!(seconds(&reader, "tick"), [1]);
    assert_eq!(store.open.count(), 0);
}

#[test]
fn merging_does_not_outgrow_the_retention_of_the_stream() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let keep = Keep { access: Some(Duration::from_secs(80)), ..Keep::default() };
    let config = Config { merge_splits: 2, ..config(directory.path(), keep) };
    let (mut writer, reader) = open_with(config);
    for second in [1, 30] {
        apply(&mut writer, second, &[request(second), log(second, "tick")]).expect("applied");
        writer.flush().expect("flushed");
    }
    writer.keep(later(31));
    assert_eq!(seconds(&reader, ""), [30, 30, 1, 1]);
    writer.keep(later(90));
    assert_eq!(seconds(&reader, "request"), [30], "not kept by its younger neighbour");
}

#[test]
fn clocks_of_others_keep_nothing_longer_and_no_split_from_merging() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let config = Config { merge_splits: 3, ..config(directory.path(), Keep::default()) };
    let (mut writer, reader) = open_with(config);
    let now = belfry_signal::now_unix_nanos();
    for (position, unix_nanos) in [(1, 0), (2, u64::MAX), (3, now)] {
        let at = |unix_nanos, message| Record { unix_nanos, ..log(0, message) };
        apply(&mut writer, position, &[at(now, "tock"), at(unix_nanos, "tick")]).expect("applied");
        writer.flush().expect("flushed");
    }
    let millis = i64::try_from(now / 1_000_000).expect("fits");
    let count = |text: &str| {
        let query = LogQuery { text: text.into(), limit: 100, ..LogQuery::default() };
        reader.search(&query).expect("read").rows.len()
    };
    writer.keep(millis + 2_000);
    assert_eq!((count("tick"), count("tock")), (3, 3));
    let splits = std::fs::read_dir(directory.path().join("splits")).expect("listed").count();
    assert_eq!(splits, 1, "merged");
    writer.keep(millis + 1_500_000);
    assert_eq!((count("tick"), count("tock")), (0, 0), "dropped in time");
}

#[test]
fn very_many_names_and_very_long_lines_are_kept_whole_and_found_within_the_bounds() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let config = Config { split_attributes_max: 100, ..config(directory.path(), Keep::default()) };
    let (mut writer, reader) = open_with(config);
    let hostile = |second: u64, message: String, names: std::ops::Range<u32>| {
        let mut record = log(second, "");
        if let Body::Log(log) = &mut record.body {
            log.message = message.into();
            log.attributes =
                names.map(|name| (format!("made.up{name}").into(), i64::from(name).into())).collect();
        }
        record
    };
    let long = format!("begin {} end", "x y ".repeat(250_000));
    let records = [
        hostile(1, "many".into(), 0..30_000),
        hostile(2, long.clone(), 0..0),
        hostile(3, "\0\u{1}\u{2}\u{3}\u{4}\n\r\u{fffd}odd".into(), 0..1),
    ];
    apply(&mut writer, 1, &records).expect("applied");
    for _ in 0..2 {
        assert_eq!(seconds(&reader, "made.up29999:29999"), [1]);
        assert_eq!(seconds(&reader, "made.up29998:>29997"), [1]);
        assert_eq!(seconds(&reader, "begin"), [2]);
        assert_eq!(seconds(&reader, "end"), Vec::<u64>::new(), "beyond the searchable part");
        assert_eq!(seconds(&reader, "odd"), [3]);
        writer.flush().expect("flushed");
    }
    let found =
        reader.search(&LogQuery { text: "begin".into(), limit: 1, ..LogQuery::default() }).expect("read");
    let Body::Log(log) = &found.rows[0].record.body else { panic!("a log") };
    assert_eq!(log.message.len(), long.len(), "the record is whole");
}

#[test]
fn records_go_to_their_stream() {
    let of = |record: &Record| Stream::of(&record.body);
    assert_eq!(of(&sip(1, 1, "INVITE")), Stream::Calls);
    assert_eq!(of(&ended(1, 1, "busy", None)), Stream::Calls);
    assert_eq!(of(&request(1)), Stream::Access);
    assert_eq!(of(&log(1, "tick")), Stream::System);
    let Record { body: Body::Log(mut own), .. } = log(1, "tick") else { panic!("a log") };
    own.call_id = Some("call-1@host".to_owned().into());
    assert_eq!(Stream::of(&Body::Log(own)), Stream::Calls);
}
