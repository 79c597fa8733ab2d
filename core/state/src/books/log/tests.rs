use super::*;

fn open(folder: &Path) -> (Log, Found) {
    open_bounded(folder, 1 << 20)
}

fn open_bounded(folder: &Path, spool_bytes_max: u64) -> (Log, Found) {
    Log::open(Limits { directory: folder.to_owned(), spool_bytes_max }).expect("opens")
}

fn record(name: &str) -> CallRecord {
    CallRecord { end_unix_nanos: 0, ..CallRecord::for_test(name) }
}

fn note(log: &mut Log, book: u64, name: &str) {
    log.note(Change::Open { book: Book(book), record: Box::new(record(name)) }).expect("noted");
}

fn alive(log: &mut Log, unix_nanos: u64) {
    log.note(Change::Alive { unix_nanos }).expect("noted");
}

/// Names and ends of the calls that are open.
fn open_calls(log: &mut Log) -> Vec<(String, u64)> {
    log.lose_all_below(Book(u64::MAX));
    let lost = log.lost(Lost::All);
    lost.into_iter().map(|(_, record)| (record.call_id.reveal().clone(), record.end_unix_nanos)).collect()
}

fn call(name: &str, end: u64) -> (String, u64) {
    (name.to_owned(), end)
}

/// The records in all files, as a billing clerk would read them.
fn records(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for segment in segment::list(folder).expect("listed") {
        let mut scanner = Scanner::open(&segment, 0, u64::MAX).expect("readable");
        while let Some(frame) = scanner.next().expect("readable") {
            if let Some(Entry::Closed { record, .. }) = Entry::read(frame) {
                names.push(record.call_id.reveal().clone());
            }
        }
    }
    names
}

#[test]
fn what_was_open_at_a_crash_is_lost_with_its_last_sign_of_life() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, found) = open(folder.path());
    assert_eq!(found, Found::default());
    note(&mut log, 1, "closed");
    note(&mut log, 2, "forgotten");
    note(&mut log, 3, "open");
    alive(&mut log, 100);
    note(&mut log, 4, "late");
    log.note(Change::Gone { book: Book(2) }).expect("noted");
    log.close(Book(1), &record("closed")).expect("closed");
    log.sync().expect("synced");
    alive(&mut log, 200);
    drop(log);

    // A start that dies before anybody closes them: the time of the second process is not theirs.
    let (mut log, found) = open(folder.path());
    assert_eq!(found, Found { undelivered: 1, open: 2, damaged_bytes: 0 });
    assert_eq!(log.next_book(), 5);
    note(&mut log, 5, "next");
    alive(&mut log, 1_000);
    drop(log);

    let (mut log, found) = open(folder.path());
    assert_eq!(found, Found { undelivered: 1, open: 3, damaged_bytes: 0 });
    assert_eq!(open_calls(&mut log), [call("open", 200), call("late", 200), call("next", 1_000)]);
    for (book, record) in log.lost(Lost::All) {
        log.close(book, &record).expect("closed");
    }
    log.sync().expect("synced");
    drop(log);
    let (mut log, found) = open(folder.path());
    assert_eq!((found.undelivered, found.open), (4, 0));
    assert_eq!(open_calls(&mut log), []);
    assert_eq!(records(folder.path()), ["closed", "open", "late", "next"]);
}

#[test]
fn calls_of_a_dead_core_in_a_living_process_are_lost_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, _) = open(folder.path());
    note(&mut log, 1, "open");
    alive(&mut log, 100);
    assert_eq!(open_calls(&mut log), [call("open", 100)]);
    alive(&mut log, 200);
    assert_eq!(open_calls(&mut log), [call("open", 100)], "nobody lives for it any more");
}

#[test]
fn a_caller_that_asks_again_after_a_crash_has_one_call() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, _) = open(folder.path());
    let unanswered = |name: &str| CallRecord { answer_unix_nanos: None, ..record(name) };
    for (book, name) in [(1, "again"), (2, "again and over"), (3, "never again")] {
        log.note(Change::Open { book: Book(book), record: Box::new(unanswered(name)) }).expect("noted");
    }
    note(&mut log, 4, "answered");
    drop(log);
    let (mut log, _) = open(folder.path());
    log.lose_all_below(Book(u64::MAX));
    let names = |lost: Vec<(Book, CallRecord)>| -> Vec<String> {
        lost.into_iter().map(|(_, record)| record.call_id.reveal().clone()).collect()
    };
    assert_eq!(names(log.lost(Lost::Answered)), ["answered"]);
    log.note(Change::Open { book: Book(5), record: Box::new(unanswered("again")) }).expect("noted");
    log.close(Book(6), &record("again and over")).expect("closed");
    log.sync().expect("synced");
    assert_eq!(names(log.lost(Lost::All)), ["never again", "answered"]);
    drop(log);
    let (mut log, _) = open(folder.path());
    assert_eq!(open_calls(&mut log).len(), 3, "the one that asked again is open, too");
}

#[test]
fn files_follow_one_another_and_go_when_the_database_has_their_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, _) = open_bounded(folder.path(), 64 << 10);
    note(&mut log, 1, "long");
    for n in 2..=100 {
        note(&mut log, n, &format!("call-{n}"));
        log.close(Book(n), &record(&format!("call-{n}"))).expect("closed");
        log.sync().expect("synced");
        let Progress { number, last_sequence, .. } = log.progress();
        if n < 90 {
            log.note(Change::Delivered { sequence: last_sequence, number }).expect("noted");
        }
    }
    let files = segment::list(folder.path()).expect("listed");
    assert!(files[0].number > 3, "the first files are gone");
    let progress = log.progress();
    assert!(progress.bytes < 64 << 10, "{}", progress.bytes);
    drop(log);
    let (mut log, found) = open_bounded(folder.path(), 64 << 10);
    assert_eq!(found, Found { undelivered: 11, open: 1, damaged_bytes: 0 });
    assert_eq!(open_calls(&mut log).len(), 1, "carried from file to file");
}

#[test]
fn a_full_spool_refuses_notes_first_and_takes_again_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let max = 32 << 10;
    let (mut log, _) = open_bounded(folder.path(), max);
    let mut noted = 0;
    while log.note(Change::Open { book: Book(noted), record: Box::new(record("open")) }).is_ok() {
        log.close(Book(noted), &record("closed")).expect("there is room for records");
        log.sync().expect("synced");
        noted += 1;
    }
    let mut closed = noted;
    let error = loop {
        match log.close(Book(closed), &record("closed")) {
            Ok(()) => closed += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), "spool_full");
    assert!(closed > noted + 5, "a quarter is for records: {noted} {closed}");
    assert!(log.progress().bytes <= max);
    log.sync().expect("synced");
    let Progress { number, last_sequence, .. } = log.progress();
    log.note(Change::Delivered { sequence: last_sequence, number }).expect("noted");
    note(&mut log, 1_000, "open");
    log.close(Book(1_000), &record("closed")).expect("there is room again");
}

#[test]
fn a_new_file_that_was_torn_while_it_was_begun_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, _) = open(folder.path());
    for n in 1..=20 {
        note(&mut log, n, &format!("call-{n}"));
    }
    drop(log);
    let (mut log, _) = open(folder.path());
    alive(&mut log, 7);
    drop(log);
    let newest = segment::list(folder.path()).expect("listed").pop().expect("two files");
    let bytes = fs::read(&newest.path).expect("read");
    for end in [0, 3, bytes.len() / 2, bytes.len() - 60] {
        fs::write(&newest.path, &bytes[..end]).expect("written");
        let (_, found) = open(folder.path());
        assert_eq!(found, Found { undelivered: 0, open: 20, damaged_bytes: 0 }, "{end}");
    }
}

#[test]
fn a_disk_that_refuses_is_told_and_what_is_open_goes_into_the_next_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let books = folder.path().join("books");
    let (mut log, _) = open(&books);
    note(&mut log, 1, "first");
    // Nothing can be made in a folder that is gone: the next file fails.
    fs::remove_dir_all(&books).expect("removed");
    log.abandon();
    let refused = log.note(Change::Open { book: Book(2), record: Box::new(record("second")) });
    assert_eq!(refused.expect_err("no folder").reason(), "file");
    assert_eq!(log.close(Book(1), &record("first")).expect_err("no folder").reason(), "file");
    fs::create_dir(&books).expect("made");
    log.close(Book(1), &record("first")).expect("closed");
    log.sync().expect("synced");
    drop(log);
    let (mut log, found) = open(&books);
    assert_eq!(found, Found { undelivered: 1, open: 1, damaged_bytes: 0 });
    assert_eq!(open_calls(&mut log).len(), 1);
}

#[test]
fn the_error_of_a_sync_counts_when_its_file_was_closed_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut log, _) = open(folder.path());
    let refused = || Err(io::Error::other("the platter is gone"));
    let begin = |log: &mut Log, n| {
        note(log, n, "call");
        log.close(Book(n), &record("call")).expect("closed");
        log.begin_sync().expect("something to sync")
    };
    let sync = begin(&mut log, 1);
    log.close_after_error();
    note(&mut log, 2, "next");
    assert_eq!(log.end_sync(&sync, refused()).expect_err("lost").reason(), "file");
    assert_eq!(log.losses(), 1, "whoever waits writes again");
    // A file that was given up was counted then.
    let sync = begin(&mut log, 3);
    log.abandon();
    note(&mut log, 4, "next");
    assert!(log.end_sync(&sync, refused()).is_err());
    assert_eq!(log.losses(), 2);
}
