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
        path: vec!["<sip:token@edge;lr>".to_owned()],
        flow: Some(format!("flow-of-{key}")),
        transport: "tls".to_owned(),
        source: "192.0.2.1:5060".parse::<SocketAddr>().expect("an address").into(),
        call_id: "c".to_owned().into(),
        cseq: 1,
        instance: None,
        reg_id: None,
        user_agent: None,
        region: Region::configured("eu").expect("a name"),
        country: None,
    }
}

fn keys(bindings: &Bindings, address: &str, now_seconds: u64) -> Vec<String> {
    bindings.get(address, now_seconds * SECOND).iter().map(|binding| binding.key.clone()).collect()
}

#[test]
fn the_most_wanted_and_youngest_come_first_and_old_ones_not_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    bindings.put("sip:a", binding("one", 100)).expect("room");
    bindings.put("sip:a", binding("two", 200)).expect("room");
    bindings.put("sip:a", Binding { q_thousandths: 500, ..binding("three", 300) }).expect("room");
    assert_eq!(keys(&bindings, "sip:a", 0), ["two", "one", "three"]);
    assert_eq!(keys(&bindings, "sip:a", 100), ["two", "three"]);
    bindings.put("sip:a", binding("one", 400)).expect("a refresh");
    assert_eq!(bindings.len(), 3);
    let expired = bindings.expire(300 * SECOND);
    assert_eq!(expired.iter().map(|gone| gone.binding.key.as_str()).collect::<Vec<_>>(), ["two", "three"]);
    assert_eq!(keys(&bindings, "sip:a", 0), ["one"]);
}

#[test]
fn bounds_refuse_the_new_and_never_a_refresh() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { bindings_max: 5, bindings_per_address_max: 3, ..Config::for_test(folder.path()) };
    let bindings = Bindings::open(&config, Signals::register(&Registry::for_test()), 0).expect("opens");
    for n in 0..3 {
        bindings.put("sip:a", binding(&n.to_string(), 9)).expect("room");
    }
    assert!(matches!(bindings.put("sip:a", binding("3", 9)), Err(Error::AddressFull)));
    bindings.put("sip:b", binding("0", 9)).expect("room");
    bindings.put("sip:b", binding("1", 9)).expect("room");
    assert!(matches!(bindings.put("sip:c", binding("0", 9)), Err(Error::BindingsFull)));
    bindings.put("sip:a", binding("0", 99)).expect("a refresh");
    assert!(bindings.remove("sip:a", "1").expect("written"));
    assert!(!bindings.remove("sip:a", "1").expect("nothing to write"));
    bindings.put("sip:c", binding("0", 9)).expect("room again");
}

#[test]
fn a_closed_flow_takes_its_bindings_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    let on = |flow: &str, key: &str| Binding { flow: Some(flow.to_owned()), ..binding(key, 100) };
    bindings.put("sip:a", on("f", "1")).expect("room");
    bindings.put("sip:b", on("f", "1")).expect("room");
    bindings.put("sip:a", on("g", "2")).expect("room");
    bindings.put("sip:b", on("g", "1")).expect("moves to another flow");
    let gone = bindings.flow_closed("f");
    assert_eq!(gone.iter().map(|gone| gone.address.reveal().as_str()).collect::<Vec<_>>(), ["sip:a"]);
    assert_eq!((keys(&bindings, "sip:a", 0), bindings.len()), (vec!["2".to_owned()], 2));
    assert!(bindings.flow_closed("f").is_empty());
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    bindings.put("sip:a", binding("1", 100)).expect("room");
    bindings.put("sip:a", binding("2", 100)).expect("room");
    bindings.snapshot().expect("written");
    bindings.put("sip:b", binding("1", 50)).expect("room");
    bindings.remove("sip:a", "2").expect("written");
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
    last.remove_all("sip:a").expect("written");
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
    bindings.put("sip:a", binding("1", 100)).expect("room");
    {
        let mut held = bindings.held();
        let entries = held.table.entries();
        drop(held.files.begin_fold(entries).expect("a new journal"));
    }
    bindings.put("sip:a", binding("2", 200)).expect("room");
    drop(bindings);
    assert_eq!(keys(&open(folder.path(), 0), "sip:a", 0), ["2", "1"]);
}

#[test]
fn torn_files_cost_what_is_torn_and_no_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let bindings = open(folder.path(), 0);
    bindings.put("sip:a", binding("1", 100)).expect("room");
    bindings.snapshot().expect("written");
    bindings.put("sip:b", binding("1", 100)).expect("room");
    bindings.put("sip:c", binding("1", 100)).expect("room");
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
    bindings.put("sip:a", binding("1", 100)).expect("room");
    let signals = Signals::register(&Registry::for_test());
    let second = Bindings::open(&Config::for_test(folder.path()), signals, 0);
    assert!(
        matches!(second, Err(Error::InUse(_))),
        "the second owner would tidy the first one's journal away"
    );
    drop(bindings);
    assert_eq!(open(folder.path(), 0).len(), 1);
}
