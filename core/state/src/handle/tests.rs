use super::*;
use crate::record::Kept;

async fn open(folder: &std::path::Path) -> State {
    State::open(Config::for_test(folder), &Registry::for_test()).await.expect("opens")
}

async fn close(state: &State, record: &CallRecord) -> Result<Kept, Error> {
    let books = state.books();
    books.close_call(books.open_call(), record.clone()).await
}

#[test]
fn a_record_is_written_once_and_outlives_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = || tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let record = CallRecord::for_test("call-1");
    let next_epoch = CallRecord { epoch: 1, ..record.clone() };
    let killed = process();
    killed.block_on(async {
        let state = open(folder.path()).await;
        for record in [&record, &record, &next_epoch] {
            assert_eq!(close(&state, record).await.expect("kept"), Kept::Spooled);
        }
    });
    // No drain: another process opens what a killed one left.
    drop(killed);
    process().block_on(async {
        // Threads of the killed one may take a moment to let the folder go, which a killed process does at once.
        let again = loop {
            match State::open(Config::for_test(folder.path()), &Registry::for_test()).await {
                Err(Error::InUse(_)) => tokio::task::yield_now().await,
                opened => break opened.expect("opens"),
            }
        };
        assert_eq!(again.call_records(10).await.expect("read"), [next_epoch, record]);
        assert_eq!(again.call_records_count().await.expect("read"), 2);
    });
}

#[tokio::test]
async fn writes_that_come_together_all_land() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = open(folder.path()).await;
    let mut writes = tokio::task::JoinSet::new();
    for n in 0..250 {
        let state = state.clone();
        writes.spawn(async move { close(&state, &CallRecord::for_test(&format!("call-{n}"))).await });
    }
    for result in writes.join_all().await {
        assert_eq!(result.expect("kept"), Kept::Spooled);
    }
    assert_eq!(state.call_records_count().await.expect("read"), 250);
}

#[tokio::test]
async fn subscribers_are_kept_without_a_password_and_changes_show_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = open(folder.path()).await;
    assert_eq!(state.subscriber("bob", "biloxi.com").await.expect("read"), None);
    let mut bob = Subscriber::new("bob", "biloxi.com", "zanzibar");
    // The value that RFC 2617 arithmetic gives for these three words.
    assert_eq!(bob.ha1_md5, "12af60467a33e8518da5c68bbff12b11");
    state.put_subscriber(&bob).await.expect("written");
    assert_eq!(state.subscriber("bob", "biloxi.com").await.expect("read").as_deref(), Some(&bob));
    bob.enabled = false;
    state.put_subscriber(&bob).await.expect("written");
    assert_eq!(state.subscriber("bob", "biloxi.com").await.expect("read").as_deref(), Some(&bob));
    assert_eq!(state.subscribers_count().await.expect("read"), 1);
    assert!(!format!("{bob:?}").contains("bob"));
}

#[tokio::test]
async fn another_process_may_add_subscribers_and_touches_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = open(folder.path()).await;
    let alice = Subscriber::new("alice", "atlanta.com", "secret");
    let config = Config::for_test(folder.path());
    let added = State::add_subscribers(&config, &Registry::for_test(), std::slice::from_ref(&alice)).await;
    added.expect("the database is shared");
    assert_eq!(state.subscriber("alice", "atlanta.com").await.expect("read").as_deref(), Some(&alice));
    let second = State::open(config, &Registry::for_test()).await;
    assert_eq!(second.err().map(|error| error.reason()), Some("in_use"), "the bindings are not");
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_broken_folder_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { writes_queue_max: 1, ..Config::for_test(folder.path()) };
    let state = State::open(config, &Registry::for_test()).await.expect("opens");
    let subscribers: Vec<_> = (0..50).map(|n| Subscriber::new(&format!("user-{n}"), "x", "y")).collect();
    // On this single thread the writer cannot run between two first polls.
    let mut writes = Vec::new();
    for subscriber in &subscribers {
        writes.push(Box::pin(state.put_subscriber(subscriber)));
    }
    let mut refused = 0;
    let results = futures_join(writes).await;
    for result in results {
        match result {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.reason(), "queue_full");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 49);

    let file = folder.path().join("a-file");
    std::fs::write(&file, b"").expect("written");
    let error = State::open(Config::for_test(&file), &Registry::for_test()).await.expect_err("not a folder");
    assert_eq!(error.reason(), "file");
}

/// Polls every future once in order, then waits for each.
async fn futures_join<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in futures.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(context)
            {
                *slot = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
