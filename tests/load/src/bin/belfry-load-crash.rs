//! Kills a store again and again, by `kill -9` and by a simulated power cut, and looks whether what was acknowledged is
//! there once, and whether every start succeeds.
//!
//! A round: a child opens the store that the last round left, counts what it finds, then takes records, each with a
//! number, and says which are acknowledged; small splits are built, published and merged all the time. The parent kills
//! it at a random moment. Every other round the parent then does what a power cut does to what was not fsynced: the
//! log's end behind the last acknowledged record is cut, filled with zeros or with noise, files that have no durable name
//! yet are torn, and files that were deleted come back.
//!
//! `BELFRY_CRASHES` says how many rounds. With `BELFRY_CRASH_TOO_MUCH=1` the power cut takes acknowledged records too: then
//! this program must fail, which shows that it can.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    reason = "a measuring program"
)]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use belfry::app::observe::EventsStore;
use belfry_events::{Config, Events, LogQuery, RecordKind};
use belfry_pipeline::Pipeline;
use belfry_signal::record::{Body, Log};
use belfry_signal::{Pii, Registry, Resource, Severity, Value};

/// A store is begun anew after so many rounds, so that all of it can be read in each.
const ROUNDS_PER_STORE: u64 = 25;
const MARK: &str = "number-";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("child") => child(Path::new(&arguments[2]), arguments[3].parse().expect("a number")),
        _ => parent(),
    }
}

// The child.

fn child(directory: &Path, first: u64) -> ! {
    let (registry, receiver) = Registry::new(Resource::for_test(), 65_536);
    let config = Config {
        seal_records_max: 150,
        merge_splits: 3,
        merged_records_max: 5_000,
        search_rows_max: 100_000,
        ..Config::for_test(directory.join("events"))
    };
    let (writer, reader) = Events::open(config, &registry).expect("the store opens, whatever happened");
    let pipeline_config = belfry_pipeline::Config {
        directory: directory.join("wal"),
        segment_bytes_max: 64 << 10,
        wal_bytes_max: 64 << 20,
        record_bytes_max: 1 << 20,
        commit_interval: Duration::from_millis(2),
        commit_records_max: 64,
        retry_for: Duration::from_secs(2),
        sample_interval: Duration::from_secs(3600),
        export: None,
    };
    let stores: Vec<Box<dyn belfry_pipeline::Store>> = vec![Box::new(EventsStore(writer))];
    let pipeline = Pipeline::start(pipeline_config, registry.clone(), receiver, stores).expect("starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // Answered once the log is replayed.
    runtime.block_on(pipeline.flush());
    let query =
        LogQuery { kinds: vec![RecordKind::Log], limit: 100_000, text: "mark".into(), ..LogQuery::default() };
    let found = reader.search(&query).expect("read");
    assert!(!found.has_more && found.splits_damaged == 0, "{} splits are damaged", found.splits_damaged);
    let mut counts: HashMap<u64, u64> = HashMap::new();
    for row in found.rows {
        if let Body::Log(log) = &row.record.body
            && let Some((_, Value::Text(text))) = log.attributes.first()
        {
            let number = text.strip_prefix(MARK).and_then(|number| number.parse().ok()).expect("a number");
            *counts.entry(number).or_default() += 1;
        }
    }
    let ranges = fs::read_to_string(directory.join("acknowledged")).unwrap_or_default();
    for (number, count) in &counts {
        assert_eq!(*count, 1, "{number} is there {count} times");
    }
    for line in ranges.lines() {
        let (from, to) = line.split_once(' ').expect("two numbers");
        for number in from.parse::<u64>().expect("a number")..=to.parse().expect("a number") {
            assert!(counts.contains_key(&number), "{number} was acknowledged and is gone");
        }
    }
    println!("found {}", counts.len());
    let emitter = registry.emitter();
    let mut number = first;
    loop {
        for _ in 0..30 {
            emit(emitter, number);
            number += 1;
        }
        runtime.block_on(pipeline.flush());
        println!("acknowledged {}", number - 1);
        std::io::stdout().flush().expect("the parent listens");
    }
}

/// Records of all three streams, their number where the parent finds it in the log.
fn emit(emitter: &belfry_signal::Emitter, number: u64) {
    let call_id = number.is_multiple_of(3).then(|| Pii::new(format!("call-{}", number / 30)));
    let log = Log {
        severity: Severity::Debug,
        message: if number % 3 == 1 { "request" } else { "mark" }.into(),
        attributes: vec![
            ("n".into(), Value::Text(format!("{MARK}{number}").into())),
            ("what".into(), "mark".into()),
        ],
        context: None,
        call_id,
    };
    emitter.emit("load", Body::Log(log));
}

// The parent.

struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides.max(1)
    }
}

fn parent() -> ExitCode {
    let rounds: u64 = std::env::var("BELFRY_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let seed = std::env::var("BELFRY_CRASH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed);
    let mut dice = Dice(seed);
    let temporary = tempfile::tempdir().expect("a directory");
    let began = Instant::now();
    let (mut acknowledged, mut cuts) = (0, 0);
    for round in 0..rounds {
        let directory = temporary.path().join((round / ROUNDS_PER_STORE).to_string());
        fs::create_dir_all(&directory).expect("created");
        let first = (round % ROUNDS_PER_STORE) * 1_000_000;
        let ghosts = link_all(&directory);
        let Some((found, last)) = crash(&directory, first, &mut dice) else {
            let kept = temporary.keep();
            eprintln!("round {round}: seed {seed}, the store is kept in {}", kept.display());
            return ExitCode::FAILURE;
        };
        if let Some(last) = last {
            acknowledged += last - first + 1;
            let path = directory.join("acknowledged");
            let mut ranges = fs::OpenOptions::new().create(true).append(true).open(path).expect("opened");
            writeln!(ranges, "{first} {last}").expect("written");
        }
        if dice.below(2) == 0 {
            cut_power(&directory, last, &ghosts, &mut dice);
            cuts += 1;
        }
        fs::remove_dir_all(directory.join("ghosts")).expect("removed");
        if round % ROUNDS_PER_STORE == ROUNDS_PER_STORE - 1 {
            println!("{} rounds, {acknowledged} acknowledged, {found} found", round + 1);
            fs::remove_dir_all(&directory).expect("removed");
        }
    }
    println!(
        "{rounds} crashes, {cuts} of them with a power cut: {acknowledged} acknowledged records, none lost, none twice; {:.0} s",
        began.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}

/// Starts a child, kills it at a random moment, and says what it found and up to which number it acknowledged.
fn crash(directory: &Path, first: u64, dice: &mut Dice) -> Option<(u64, Option<u64>)> {
    let program = std::env::current_exe().expect("a name");
    let mut child = Command::new(program)
        .arg("child")
        .arg(directory)
        .arg(first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    // Now and then it is killed while it starts.
    let is_early = dice.below(5) == 0;
    let mut found = 0;
    if is_early {
        std::thread::sleep(Duration::from_micros(dice.below(60_000)));
    } else {
        let line = lines.next().and_then(Result::ok);
        let Some(count) = line.as_deref().and_then(|line| line.strip_prefix("found ")) else {
            let _status = child.wait();
            return None;
        };
        found = count.parse().expect("a number");
        std::thread::sleep(Duration::from_micros(dice.below(250_000)));
    }
    let has_failed = child.try_wait().expect("waited").is_some();
    child.kill().expect("killed");
    let _status = child.wait();
    if has_failed {
        return None;
    }
    let mut last = None;
    for line in lines.map_while(Result::ok) {
        if let Some(number) = line.strip_prefix("acknowledged ") {
            last = Some(number.parse().expect("a number"));
        }
    }
    Some((found, last))
}

/// Second names of all files, so that those that are deleted can come back.
fn link_all(directory: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut ghosts = Vec::new();
    for part in ["wal", "events/splits"] {
        let ghost = directory.join("ghosts").join(part);
        fs::create_dir_all(&ghost).expect("created");
        for path in list(&directory.join(part)) {
            let other = ghost.join(path.file_name().expect("a name"));
            if fs::hard_link(&path, &other).is_ok() {
                ghosts.push((path, other));
            }
        }
    }
    ghosts
}

fn list(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn cut_power(directory: &Path, last: Option<u64>, ghosts: &[(PathBuf, PathBuf)], dice: &mut Dice) {
    // A deletion that was not made durable is undone.
    for (path, ghost) in ghosts {
        if !path.exists() && path.extension().is_some_and(|name| name != "partial") && dice.below(3) == 0 {
            fs::hard_link(ghost, path).expect("linked");
        }
    }
    // What has no durable name can have any length.
    for path in list(&directory.join("events/splits")) {
        if path.extension().is_some_and(|name| name == "partial") {
            spoil(&path, 0, dice);
        }
    }
    // The log is good up to the last acknowledged record.
    let logs: Vec<PathBuf> = list(&directory.join("wal"));
    let Some(newest) = logs.iter().rfind(|path| path.extension().is_some_and(|name| name == "wal")) else {
        return;
    };
    let bytes = fs::read(newest).expect("read");
    let mark = last.map(|last| format!("{MARK}{last}\u{4}what"));
    let place = mark.and_then(|mark| bytes.windows(mark.len()).position(|window| window == mark.as_bytes()));
    match (place, last) {
        // Behind the number stand the other attribute, no trace, and perhaps a call: up to 40 bytes.
        (Some(place), _) if is_too_much() => spoil(newest, place.saturating_sub(2000), dice),
        (Some(place), _) => spoil(newest, place + 60, dice),
        // It is in an older file, or in a split already: then this file need not hold anything.
        (None, Some(_)) if is_sealed(&logs, newest, last) => spoil(newest, 0, dice),
        _ => {}
    }
}

fn is_too_much() -> bool {
    std::env::var_os("BELFRY_CRASH_TOO_MUCH").is_some()
}

/// Whether the last acknowledged record stands in an older file.
fn is_sealed(logs: &[PathBuf], newest: &Path, last: Option<u64>) -> bool {
    let Some(last) = last else { return false };
    let mark = format!("{MARK}{last}\u{4}what");
    logs.iter().filter(|path| path.as_path() != newest).any(|path| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
    })
}

/// Cuts a file somewhere behind `from`, or fills what is behind it with zeros or noise.
fn spoil(path: &Path, from: usize, dice: &mut Dice) {
    let mut bytes = fs::read(path).expect("read");
    if bytes.len() <= from {
        return;
    }
    let behind = (bytes.len() - from) as u64;
    let at = from + usize::try_from(dice.below(behind)).expect("small");
    match dice.below(3) {
        0 => bytes.truncate(at),
        1 => bytes[at..].fill(0),
        _ => bytes[at..].iter_mut().for_each(|byte| *byte = u8::try_from(dice.below(256)).expect("a byte")),
    }
    // A new file: the ghost of the old one stays as it was.
    fs::remove_file(path).expect("removed");
    fs::write(path, bytes).expect("written");
}
