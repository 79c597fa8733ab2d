use std::fs;

use belfry_signal::Registry;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn open(folder: &Path, now_seconds: u64) -> Bindings {
    let signals = Signals::register(&Registry::for_test());
    Bindings::open(&Config::for_test(folder), signals, now_seconds * SECOND).expect("opens")
}

fn binding(key: &str, expires_seconds: u64) -> Binding {
    Binding {
        key: key.to_owned(),
        contact: format!("sip:{key}").into(),
        q_thousandths: 1000,
        expires_unix_nanos: expires_seconds * SECOND,
        updated_unix_nanos: expires_seconds,
        epoch_unix_nanos: 0,
        path: vec!["<sip:token@edge;lr>".to_owned()],
        flow: Some(format!("flow-of-{key}")),
        transport: "tls".to_owned(),
        source: "192.0.2.1:5060".parse::<SocketAddr>().expect("an address").into(),
        wants_keepalive: false,
        call_id: "c".to_owned().into(),
        cseq: 1,
        instance: None,
        reg_id: None,
        user_agent: None,
        region: Region::configured("eu").expect("a name"),
        country: None,
    }
}

fn put(bindings: &Bindings, address: &str, binding: Binding) -> Result<(), Error> {
    written(bindings.update(address, &[Change::Put(binding)])?)
}

fn remove(bindings: &Bindings, address: &str, key: &str) {
    written(bindings.update(address, &[Change::Remove(key.to_owned())]).expect("always room"))
        .expect("written");
}

fn written(writing: Writing) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(writing.wait())
}

fn keys(bindings: &Bindings, address: &str, now_seconds: u64) -> Vec<String> {
    bindings.get(address, now_seconds * SECOND).iter().map(|binding| binding.key.clone()).collect()
}

#[test]
fn the_most_wanted_and_youngest_come_first_and_old_ones_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    put(&bindings, "sip:a", binding("one", 100)).expect("room");
    put(&bindings, "sip:a", binding("two", 200)).expect("room");
    put(&bindings, "sip:a", Binding { q_thousandths: 500, ..binding("three", 300) }).expect("room");
    assert_eq!(keys(&bindings, "sip:a", 0), ["two", "one", "three"]);
    assert_eq!(keys(&bindings, "sip:a", 100), ["two", "three"]);
    put(&bindings, "sip:a", binding("one", 400)).expect("a refresh");
    assert_eq!(bindings.len(), 3);
    let expired = bindings.expire(300 * SECOND);
    assert_eq!(expired.iter().map(|gone| gone.binding.key.as_str()).collect::<Vec<_>>(), ["two", "three"]);
    assert_eq!(keys(&bindings, "sip:a", 0), ["one"]);
}

#[test]
fn changes_made_one_right_after_another_share_a_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    let update = |address: &str| bindings.update(address, &[Change::Put(binding("1", 100))]).expect("room");
    // Nobody waits yet, so nothing is written.
    let (one, other) = (update("sip:a"), update("sip:b"));
    assert_eq!(one.batch(), other.batch());
    written(one).expect("written");
    written(other).expect("written");
    let next = update("sip:c");
    assert_eq!(next.batch(), 1);
    drop(next);
    drop(bindings);
    // The end of state writes what nobody waited for.
    assert_eq!(open(folder.path(), 0).len(), 3);
}

#[test]
fn bounds_refuse_the_new_and_never_a_refresh() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { bindings_max: 5, bindings_per_address_max: 3, ..Config::for_test(folder.path()) };
    let bindings = Bindings::open(&config, Signals::register(&Registry::for_test()), 0).expect("opens");
    for n in 0..3 {
        put(&bindings, "sip:a", binding(&n.to_string(), 9)).expect("room");
    }
    assert!(matches!(put(&bindings, "sip:a", binding("3", 9)), Err(Error::AddressFull)));
    put(&bindings, "sip:b", binding("0", 9)).expect("room");
    put(&bindings, "sip:b", binding("1", 9)).expect("room");
    assert!(matches!(put(&bindings, "sip:c", binding("0", 9)), Err(Error::BindingsFull)));
    put(&bindings, "sip:a", binding("0", 99)).expect("a refresh");
    remove(&bindings, "sip:a", "1");
    remove(&bindings, "sip:a", "1");
    put(&bindings, "sip:c", binding("0", 9)).expect("room again");
}

#[test]
fn a_closed_flow_takes_its_bindings_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    let on = |flow: &str, key: &str| Binding { flow: Some(flow.to_owned()), ..binding(key, 100) };
    put(&bindings, "sip:a", on("f", "1")).expect("room");
    put(&bindings, "sip:b", on("f", "1")).expect("room");
    put(&bindings, "sip:a", on("g", "2")).expect("room");
    put(&bindings, "sip:b", on("g", "1")).expect("moves to another flow");
    let gone = bindings.flow_closed("f");
    assert_eq!(gone.iter().map(|gone| gone.address.reveal().as_str()).collect::<Vec<_>>(), ["sip:a"]);
    assert_eq!((keys(&bindings, "sip:a", 0), bindings.len()), (vec!["2".to_owned()], 2));
    assert!(bindings.flow_closed("f").is_empty());
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    put(&bindings, "sip:a", binding("1", 100)).expect("room");
    put(&bindings, "sip:a", binding("2", 100)).expect("room");
    bindings.snapshot().expect("written");
    put(&bindings, "sip:b", binding("1", 50)).expect("room");
    remove(&bindings, "sip:a", "2");
    drop(bindings);
    // Nobody says goodbye; the next process reads what is there, and so does the one after it.
    for _ in 0..2 {
        let again = open(folder.path(), 0);
        assert_eq!(
            (keys(&again, "sip:a", 0), keys(&again, "sip:b", 0)),
            (vec!["1".into()], vec!["1".into()])
        );
        assert_eq!(again.get("sip:a", 0)[0].path, ["<sip:token@edge;lr>"]);
    }
    assert_eq!(open(folder.path(), 60).len(), 1, "what ran out meanwhile is gone");
    let last = open(folder.path(), 60);
    remove(&last, "sip:a", "1");
    last.snapshot().expect("written");
    drop(last);
    assert!(open(folder.path(), 0).is_empty());
    let files = fs::read_dir(folder.path()).expect("a folder").count();
    assert!(files <= 4, "{files} files: old journals are removed");
}

#[test]
fn a_fold_that_dies_before_its_rename_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    put(&bindings, "sip:a", binding("1", 100)).expect("room");
    drop(bindings.shared.files().begin_fold().expect("a new journal"));
    put(&bindings, "sip:a", binding("2", 200)).expect("room");
    drop(bindings);
    assert_eq!(keys(&open(folder.path(), 0), "sip:a", 0), ["2", "1"]);
}

#[test]
fn torn_files_cost_what_is_torn_and_no_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    put(&bindings, "sip:a", binding("1", 100)).expect("room");
    bindings.snapshot().expect("written");
    put(&bindings, "sip:b", binding("1", 100)).expect("room");
    put(&bindings, "sip:c", binding("1", 100)).expect("room");
    drop(bindings);
    let journal = |number: u64| folder.path().join(format!("bindings-{number}.journal"));
    let whole = fs::read(journal(1)).expect("the journal");
    fs::write(journal(1), &whole[..whole.len() - 3]).expect("torn");
    assert_eq!(open(folder.path(), 0).len(), 2, "the torn entry is lost, what was before it is not");

    let snapshot = folder.path().join("bindings.snapshot");
    let mut bytes = fs::read(&snapshot).expect("the snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&snapshot, &bytes).expect("torn");
    let again = open(folder.path(), 0);
    assert_eq!((keys(&again, "sip:a", 0), keys(&again, "sip:b", 0)), (vec![], vec!["1".to_owned()]));
    drop(again);
    for garbage in [&b""[..], b"x", &[0xff; 64]] {
        fs::write(&snapshot, garbage).expect("torn");
        open(folder.path(), 0);
    }
}

#[test]
fn a_folder_belongs_to_one_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    put(&bindings, "sip:a", binding("1", 100)).expect("room");
    let signals = Signals::register(&Registry::for_test());
    let second = Bindings::open(&Config::for_test(folder.path()), signals, 0);
    assert!(
        matches!(second, Err(Error::InUse(_))),
        "the second owner would tidy the first one's journal away"
    );
    drop(bindings);
    assert_eq!(open(folder.path(), 0).len(), 1);
}

#[test]
fn an_update_is_done_whole_or_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    put(&bindings, "sip:a", binding("0", 9)).expect("room");
    let five: Vec<Change> = (0..5).map(|n| Change::Put(binding(&n.to_string(), 99))).collect();
    assert!(matches!(bindings.update("sip:a", &five), Err(Error::AddressFull)));
    assert_eq!((keys(&bindings, "sip:a", 50), bindings.len()), (vec![], 1), "not even the refresh was done");
    // What leaves makes room for what comes.
    let mut swap: Vec<Change> = (1..5).map(|n| Change::Put(binding(&n.to_string(), 90 + n))).collect();
    swap.push(Change::Remove("0".to_owned()));
    written(bindings.update("sip:a", &swap).expect("room")).expect("written");
    assert_eq!(keys(&bindings, "sip:a", 50), ["4", "3", "2", "1"]);
    drop(bindings);
    assert_eq!(keys(&open(folder.path(), 0), "sip:a", 50), ["4", "3", "2", "1"]);
}

#[test]
fn what_could_not_be_written_is_taken_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    put(&bindings, "sip:a", binding("old", 10)).expect("room");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
    let journal = bindings.shared.files().journal_for_test(full);
    let changes = [
        Change::Put(binding("old", 99)),
        Change::Put(binding("new", 99)),
        Change::Put(binding("new", 100)),
        Change::Remove("old".to_owned()),
    ];
    let kept = bindings.update("sip:a", &changes).expect("room");
    assert!(matches!(written(kept), Err(Error::File { .. })));
    assert_eq!(keys(&bindings, "sip:a", 0), ["old"]);
    assert_eq!(bindings.get("sip:a", 0)[0].expires_unix_nanos, 10 * SECOND, "as it was before");
    bindings.shared.files().journal_for_test(journal);
    put(&bindings, "sip:a", binding("new", 20)).expect("the disk is back");
    drop(bindings);
    assert_eq!(keys(&open(folder.path(), 0), "sip:a", 0), ["new", "old"]);
}

#[test]
fn keepalives_take_turns_and_the_silent_are_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    for n in 0..6 {
        let wants_keepalive = n != 3;
        let one = Binding { wants_keepalive, ..binding(&n.to_string(), 100) };
        put(&bindings, &format!("sip:{n}"), one).expect("room");
    }
    assert_eq!(bindings.kept_alive(), 5);
    let keys = |round: &Round| round.due.iter().map(|turn| turn.binding.key.clone()).collect::<Vec<_>>();
    let (first, second) = (bindings.keep_alive(3, 2), bindings.keep_alive(3, 2));
    assert_eq!(
        (keys(&first), keys(&second)),
        (vec!["1".into(), "2".into(), "4".into()], vec!["5".into(), "0".into(), "1".into()])
    );
    assert_eq!(bindings.keep_alive(99, 2).due.len(), 5, "nobody twice in a round");
    // Who never answered may be deaf to keep-alives; who did and does not any more is gone.
    let slot = first.due[0].slot;
    bindings.answered(slot);
    let lost: Vec<String> =
        (0..4).flat_map(|_| bindings.keep_alive(99, 2).lost).map(|gone| gone.binding.key).collect();
    assert_eq!((lost, bindings.len()), (vec!["1".to_owned()], 5));
    // Whom nobody asked was not silent.
    bindings.answered(first.due[1].slot);
    for _ in 0..9 {
        let round = bindings.keep_alive(99, 2);
        assert_eq!(round.lost.len(), 0);
        round.due.iter().for_each(|turn| bindings.not_asked(turn.slot));
    }
    put(&bindings, "sip:0", Binding { wants_keepalive: false, ..binding("0", 100) }).expect("moved");
    assert_eq!(bindings.kept_alive(), 3);
    bindings.expire(100 * SECOND);
    assert_eq!((bindings.kept_alive(), bindings.keep_alive(99, 2)), (0, Round::default()));
}

#[test]
fn it_is_known_whether_anybody_is_registered_from_a_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 100);
    let from = |key: &str, address: &str| {
        let address: SocketAddr = address.parse().expect("an address");
        Binding { source: address.into(), ..binding(key, 200) }
    };
    let is_in = |address: &str| bindings.is_anybody_in(network_of(address.parse().expect("an address")));
    put(&bindings, "alice", from("a", "[2001:db8:1:2::7]:5060")).expect("room");
    put(&bindings, "bob", from("b", "192.0.2.1:5060")).expect("room");
    put(&bindings, "carol", from("c", "192.0.2.1:6060")).expect("room");
    assert!(is_in("2001:db8:1:2:ffff::1") && is_in("::ffff:192.0.2.1"));
    assert!(!is_in("2001:db8:1:3::7") && !is_in("192.0.2.2"));
    // Who moves is in the one place and no longer in the other; a refresh counts once.
    put(&bindings, "bob", from("b", "192.0.2.2:5060")).expect("room");
    put(&bindings, "bob", from("b", "192.0.2.2:5061")).expect("room");
    remove(&bindings, "carol", "c");
    assert!(!is_in("192.0.2.1") && is_in("192.0.2.2"));
    bindings.expire(201 * SECOND);
    assert!(!is_in("192.0.2.2") && !is_in("2001:db8:1:2::7"));
}
