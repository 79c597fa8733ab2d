use std::path::Path;

use belfry_signal::Registry;

use super::*;
use crate::State;

/// State over a folder, with a second hand on its database.
struct House {
    folder: tempfile::TempDir,
    registry: Registry,
    state: State,
}

impl House {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (registry, state) = open(folder.path(), change).await;
        Self { folder, registry, state }
    }

    /// Another process over what a killed one left: nothing of it was drained.
    async fn start_again(self) -> Self {
        let Self { folder, state, .. } = self;
        state.kill_for_test();
        drop(state);
        let mut patience = 500;
        loop {
            let registry = Registry::for_test();
            match State::open(Config::for_test(folder.path()), &registry).await {
                Ok(state) => return Self { folder, registry, state },
                Err(error) => assert_eq!(error.reason(), "in_use"),
            }
            patience -= 1;
            assert!(patience > 0, "the old process does not let go");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Says something to the database, past the state.
    async fn sql(&self, statement: &'static str) {
        crate::database::execute_for_test(self.folder.path(), statement).await;
    }

    async fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .state
            .call_records(1_000)
            .await
            .expect("readable")
            .into_iter()
            .map(|record| record.call_id.reveal().clone())
            .collect();
        names.sort_unstable();
        names
    }

    async fn close(&self, name: &str) -> Result<Kept, Error> {
        let books = self.state.books();
        books.close_call(books.open_call(), CallRecord::for_test(name)).await
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.registry.encode_text();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            if is_so(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never: {what}\n{}", self.registry.encode_text());
    }
}

async fn open(folder: &Path, change: impl FnOnce(&mut Config)) -> (Registry, State) {
    let mut config = Config::for_test(folder);
    change(&mut config);
    let registry = Registry::for_test();
    let state = State::open(config, &registry).await.expect("opens");
    (registry, state)
}

/// Closing the books of a call of this Call-ID makes the thread of the books panic.
pub(super) const FAULT: &str = "fault";

const TAKE_AWAY: &str = "alter table call_record rename to elsewhere";
const GIVE_BACK: &str = "alter table elsewhere rename to call_record";

#[tokio::test]
async fn records_wait_for_the_database_over_a_crash_and_arrive_once() {
    let house = House::new(|_| {}).await;
    house.sql(TAKE_AWAY).await;
    for n in 0..250 {
        assert_eq!(house.close(&format!("call-{n:03}")).await.expect("kept"), Kept::Spooled);
    }
    assert!(!house.state.books().settle().await, "the database is away");
    assert!((house.metric("state_spool_records") - 250.0).abs() < 0.5);
    let house = house.start_again().await;
    assert_eq!(house.close("call-000").await.expect("kept"), Kept::Spooled, "told again");
    house.sql(GIVE_BACK).await;
    house.until("delivered", |house| house.metric("state_spool_records") < 0.5).await;
    let expected: Vec<String> = (0..250).map(|n| format!("call-{n:03}")).collect();
    assert_eq!(house.names().await, expected);
    assert!((house.metric("state_call_records_total{outcome=\"known\"}") - 1.0).abs() < 0.5);
    let house = house.start_again().await;
    assert_eq!(house.names().await, expected, "what is delivered is not delivered again");
    assert!(house.metric("state_call_records_total{outcome=\"known\"}") < 0.5);
}

#[tokio::test]
async fn a_record_that_the_database_refuses_costs_no_other_and_is_tried_at_the_next_start() {
    let house = House::new(|_| {}).await;
    house
        .sql(
            "create trigger poison before insert on call_record when new.call_id like 'bad%' \
              begin select raise(abort, 'poison'); end",
        )
        .await;
    let books = house.state.books();
    let closing: Vec<_> = ["good-1", "bad-1", "good-2", "bad-2", "good-3"]
        .map(|name| books.close_call(books.open_call(), CallRecord::for_test(name)))
        .into_iter()
        .collect();
    for closed in closing {
        assert_eq!(closed.await.expect("kept"), Kept::Spooled);
    }
    assert_eq!(house.names().await, ["good-1", "good-2", "good-3"]);
    assert!((house.metric("state_call_records_total{outcome=\"refused\"}") - 2.0).abs() < 0.5);
    let aside = house.state.books().set_aside().await.expect("readable");
    assert_eq!(
        aside.iter().map(|record| record.call_id.reveal().as_str()).collect::<Vec<_>>(),
        ["bad-1", "bad-2"]
    );
    let house = house.start_again().await;
    assert_eq!(house.names().await.len(), 3, "tried while the trigger was there");
    house.sql("drop trigger poison").await;
    let house = house.start_again().await;
    house
        .until("tried again", |house| house.folder.path().join("books/refused.log").metadata().is_err())
        .await;
    assert_eq!(house.names().await, ["bad-1", "bad-2", "good-1", "good-2", "good-3"]);
    assert_eq!(house.state.books().set_aside().await.expect("readable"), []);
}

#[tokio::test]
async fn when_disk_and_database_refuse_memory_keeps_what_it_can_and_says_what_it_cannot() {
    let house = House::new(|config| {
        config.records_spool_bytes_max = 0;
        config.records_in_memory_max = 3;
        config.records_retry_interval = Duration::from_secs(3600);
    })
    .await;
    assert_eq!(house.close("straight").await.expect("kept"), Kept::Stored, "the database is there");
    house.sql(TAKE_AWAY).await;
    for n in 1..=3 {
        assert_eq!(house.close(&format!("memory-{n}")).await.expect("kept"), Kept::InMemory);
    }
    assert_eq!(house.close("too-much").await.expect_err("no place").reason(), "record_lost");
    assert!((house.metric("state_call_records_total{outcome=\"lost\"}") - 1.0).abs() < 0.5);
    assert!((house.metric("state_records_in_memory") - 3.0).abs() < 0.5);
    house.sql(GIVE_BACK).await;
    assert!(house.state.books().settle().await);
    assert_eq!(house.names().await, ["memory-1", "memory-2", "memory-3", "straight"]);
    assert!(house.metric("state_records_in_memory") < 0.5);
}

#[tokio::test]
async fn every_open_call_gets_one_record_after_a_crash() {
    let house = House::new(|_| {}).await;
    let books = house.state.books();
    let note = |name: &str, is_answered: bool| {
        let record = CallRecord::for_test(name);
        let to_tag = if is_answered { record.to_tag.clone() } else { String::new() };
        let answer_unix_nanos = record.answer_unix_nanos.filter(|_| is_answered);
        let book = books.open_call();
        let cause = "node_lost".into();
        books.note_call(book, CallRecord { to_tag, answer_unix_nanos, cause, ..record.clone() });
        (book, record)
    };
    let (ringing, talking) = (note("ringing", false), note("talking", true));
    let (ended, challenged) = (note("ended", true), note("challenged", false));
    books.close_call(ended.0, ended.1).await.expect("kept");
    books.forget_call(challenged.0);
    // Its record took another way than the spool, of which the note knows nothing: the database keeps one.
    let (_, other) = note("other", false);
    books.close_call(books.open_call(), other).await.expect("kept");
    let _ = (ringing, talking);
    assert_eq!(house.names().await, ["ended", "other"]);

    let house = house.start_again().await;
    let mut lost = Vec::new();
    for which in [Lost::Answered, Lost::All] {
        lost.extend(house.state.books().close_lost_calls(which).await);
    }
    let mut lost: Vec<&str> = lost.iter().map(|record| record.call_id.reveal().as_str()).collect();
    lost.sort_unstable();
    assert_eq!(lost, ["other", "ringing", "talking"]);
    assert_eq!(house.names().await, ["ended", "other", "ringing", "talking"]);
    let house = house.start_again().await;
    assert_eq!(house.state.books().close_lost_calls(Lost::Answered).await, []);
    assert_eq!(house.state.books().close_lost_calls(Lost::All).await, []);
    assert_eq!(house.names().await.len(), 4);
}

#[tokio::test]
async fn what_ends_together_shares_the_disk_and_a_call_told_twice_is_one_all_the_same() {
    let house = House::new(|_| {}).await;
    let books = house.state.books();
    let (told, mut outcomes) = mpsc::channel(300);
    for n in 0..300_u64 {
        // One call in a hundred is told a second time, at once.
        let call = if n % 100 == 99 { n - 1 } else { n };
        let record = CallRecord::for_test(&format!("call-{call:03}"));
        books.close_call_among(books.open_call(), record, n, &told);
    }
    books.nudge();
    let mut names = Vec::new();
    for _ in 0..300 {
        let (name, outcome) = outcomes.recv().await.expect("told");
        assert_eq!(outcome.expect("kept"), Kept::Spooled);
        names.push(name);
    }
    names.sort_unstable();
    assert!(names.into_iter().eq(0..300), "each is told once");
    assert_eq!(house.names().await.len(), 297);
    assert!((house.metric("state_call_records_total{outcome=\"new\"}") - 297.0).abs() < 0.5);
    assert!((house.metric("state_call_records_total{outcome=\"known\"}") - 3.0).abs() < 0.5);
    assert!(house.metric("state_spool_seconds_count") < 30.0, "ten records share a sync at least");
    assert!(house.metric("state_commits_total{outcome=\"ok\"}") < 30.0, "and a transaction");
}

#[tokio::test]
async fn a_drain_delivers_everything_and_takes_nothing_more() {
    let house = House::new(|config| config.records_retry_interval = Duration::from_secs(3600)).await;
    let books = house.state.books().clone();
    let closing: Vec<_> = (0..300)
        .map(|n| books.close_call(books.open_call(), CallRecord::for_test(&format!("call-{n}"))))
        .collect();
    assert_eq!(house.state.drain(Duration::from_secs(10)).await, Vec::<String>::new());
    for closed in closing {
        closed.await.expect("taken before the drain");
    }
    let refused = books.close_call(books.open_call(), CallRecord::for_test("late")).await;
    assert!(refused.is_err());
    let count = crate::database::count_for_test(house.folder.path()).await;
    assert_eq!(count, 300);
}

#[tokio::test]
async fn records_outlive_the_thread_that_writes_them() {
    let house = House::new(|config| config.records_in_memory_max = 64).await;
    let books = house.state.books().clone();
    assert!(books.is_kept() && house.metric("state_books_kept") > 0.5);
    assert_eq!(house.close("before").await.expect("kept"), Kept::Spooled);
    // Handed in together, so that some wait with the one over which it stumbles and some behind it.
    let names = (0..20).map(|n| if n == 5 { FAULT.to_owned() } else { format!("call-{n:02}") });
    let closing: Vec<_> =
        names.map(|name| books.close_call(books.open_call(), CallRecord::for_test(&name))).collect();
    for closed in closing {
        let kept = closed.await.expect("kept");
        assert!(matches!(kept, Kept::Spooled | Kept::Stored), "{kept:?}");
    }
    house.until("told", |house| house.metric("state_books_kept") < 0.5).await;
    assert!(!books.is_kept());
    // What comes goes straight to the database, and waits in memory while that is away.
    assert_eq!(house.close("after").await.expect("kept"), Kept::Stored);
    books.note_call(books.open_call(), CallRecord::for_test("noted"));
    assert!((house.metric("state_call_notes_failed_total") - 1.0).abs() < 0.5);
    assert_eq!(books.close_lost_calls(Lost::All).await, []);
    house.sql(TAKE_AWAY).await;
    assert_eq!(house.close("away").await.expect("kept"), Kept::InMemory);
    house.sql(GIVE_BACK).await;
    assert!(books.settle().await);
    let mut expected: Vec<String> = (0..20).filter(|n| *n != 5).map(|n| format!("call-{n:02}")).collect();
    expected.extend(["after", "away", "before", FAULT].map(str::to_owned));
    expected.sort_unstable();
    assert_eq!(house.names().await, expected);
    assert_eq!(house.state.drain(Duration::from_secs(10)).await, Vec::<String>::new());
    let house = house.start_again().await;
    assert_eq!(house.names().await, expected, "none is lost, none is there twice");
    assert!(house.state.books().is_kept());
}

#[tokio::test]
async fn a_sync_that_panics_is_one_that_failed() {
    let (syncs_to_run, syncs) = std_mpsc::sync_channel(1);
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { directory: folder.path().to_owned(), spool_bytes_max: 1 << 20 };
    let (mut log, _) = Log::open(limits).expect("opens");
    log.close(Book(1), &CallRecord::for_test("one")).expect("written");
    let sync = log.begin_sync().expect("something to sync").panicking();
    let desk = Desk::new(1);
    syncs_to_run.send(sync).expect("room");
    drop(syncs_to_run);
    keeper::run_syncs(&syncs, &desk);
    let wanted = desk::Wanted { commands_max: 1, is_syncing: true, until: Some(Instant::now()) };
    let found = desk.take(wanted, &mut Vec::new());
    assert!(found.synced.is_some_and(|(_, result)| result.is_err()), "the keeper hears of it");
}
