//! Blocks in a bucket: a directory that takes its place, and a server that speaks S3 (moto, of PyPI).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use belfry_promql::{Answer, Data, Options, Severity, Times};

use super::samples::at;
use super::*;
use crate::BucketConfig;

/// Everything goes up at once, and is here no more when it is an hour old.
fn in_bucket(directory: &Path, bucket: BucketConfig) -> Config {
    let bucket = BucketConfig {
        upload_after: Duration::ZERO,
        local_for: Duration::from_mins(20),
        timeout: Duration::from_secs(10),
        prefix: "node-1".to_owned(),
        ..bucket
    };
    Config { bucket: Some(bucket), retention: Duration::from_hours(24), ..config(directory) }
}

fn objects(reader: &SeriesReader) -> Vec<String> {
    let blocks = reader.shared.blocks.load();
    let catalogue = reader.shared.catalogue();
    blocks
        .iter()
        .filter_map(|block| catalogue.place(block.meta().id).map(|held| held.object.clone()))
        .collect()
}

fn options() -> Options {
    Options { lookback_ms: 300_000, samples_max: 1_000_000, subquery_step_ms: 60_000, experimental: false }
}

fn ask(reader: &SeriesReader, query: &str, minute: i64) -> Answer {
    let (times, cancel) = (Times::Instant(at(minute)), AtomicBool::new(false));
    belfry_promql::query(query, &PromqlSource::new(reader, &cancel), times, &options(), &cancel)
        .expect("it evaluates")
}

/// What any bucket must do. `exists` asks it past us.
fn check(directory: &Path, bucket: &BucketConfig, exists: &dyn Fn(&str) -> bool) {
    let config = in_bucket(directory, bucket.clone());
    let (mut writer, reader, registry) = open(config.clone());
    append(&mut writer, 0..95);
    writer.maintenance().tend_bucket(at(95));
    // Nine blocks are up; those of the last twenty minutes, and what is in memory, are here too.
    assert_eq!((objects(&reader).len(), blocks(directory).len()), (9, 2));
    assert!(objects(&reader).iter().all(|object| object.starts_with("node-1/") && exists(object)));
    assert_eq!(eu(&reader), expected_eu(0..95));
    assert!(registry.encode_text().contains("series_blocks_uploaded_total 9"), "{}", registry.encode_text());
    let snapshot = tempfile::tempdir().expect("a directory");
    assert_eq!(writer.maintenance().snapshot(snapshot.path(), &mut |_, _| {}).expect("it is read"), 9);
    assert_eq!(blocks(snapshot.path()).len(), 9);
    drop((writer, reader));

    let (mut writer, reader, _) = open(config.clone());
    append(&mut writer, 90..95);
    assert_eq!(eu(&reader), expected_eu(0..95));
    // Compaction reads them there and writes here; what they were made of goes, and they go up.
    let before = objects(&reader);
    assert!(writer.maintenance().compact().expect("they are read") > 0);
    assert_eq!(eu(&reader), expected_eu(0..95));
    writer.maintenance().tend_bucket(at(200));
    writer.maintenance().sweep_bucket(0);
    let after = objects(&reader);
    assert!(blocks(directory).is_empty() && after.iter().all(|object| exists(object)));
    assert!(before.iter().all(|object| after.contains(object) || !exists(object)), "{before:?}");
    assert_eq!(eu(&reader), expected_eu(0..95));
    // A deletion leaves nothing there either, and retention takes the rest.
    let deleted =
        writer.maintenance().delete(&[Matcher::equal("region", "eu")], at(0), at(9), &mut |_, _| {});
    assert_eq!(deleted.expect("they are read").points, 10);
    writer.maintenance().tend_bucket(at(200));
    writer.maintenance().sweep_bucket(0);
    assert_eq!(eu(&reader), expected_eu(10..95));
    let gone = after.iter().filter(|object| !exists(object)).count();
    assert_eq!(gone, 1, "{after:?}");
    writer.flush().expect("the disk works");
    writer.maintenance().tend_bucket(at(200));
    let after = objects(&reader);
    writer.maintenance().delete_old(at(24 * 60 + 200));
    writer.maintenance().sweep_bucket(0);
    assert!(all(&reader, &[]).is_empty() && !after.iter().any(|object| exists(object)));
}

#[test]
fn old_blocks_live_in_the_bucket() {
    let (directory, target) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let exists = |object: &str| target.path().join(object).exists();
    check(directory.path(), &BucketConfig::in_directory(target.path()), &exists);
}

#[test]
fn a_bucket_that_is_away_costs_what_is_in_it_and_nothing_else() {
    let parent = tempfile::tempdir().expect("a directory");
    let (directory, target) = (parent.path().join("series"), parent.path().join("bucket"));
    let config = in_bucket(&directory, BucketConfig::in_directory(&target));
    let (mut writer, reader, registry) = open(config.clone());
    append(&mut writer, 0..65);
    writer.maintenance().tend_bucket(at(65));
    assert_eq!(blocks(&directory).len(), 2);
    // Its disk is unmounted.
    std::fs::rename(&target, parent.path().join("elsewhere")).expect("renamed");
    std::fs::write(&target, b"").expect("written");
    append(&mut writer, 65..95);
    assert_eq!(eu(&reader), expected_eu(40..95), "what is here is read");
    let answer = ask(&reader, "count_over_time(up[95m])", 94);
    let warnings: Vec<String> =
        answer.annotations.of(Severity::Warning).map(|warning| warning.message.clone()).collect();
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(warnings[0].contains("bucket with older blocks does not answer, and node-1/"), "{}", warnings[0]);
    let Data::Vector(samples) = answer.data else { panic!("no vector") };
    assert_eq!(samples.len(), 1);
    let strict = |query: &str, cancel: &AtomicBool| {
        let source = PromqlSource::strict(&reader, cancel);
        belfry_promql::query(query, &source, Times::Instant(at(94)), &options(), &AtomicBool::new(false))
            .map(|answer| answer.annotations.iter().count())
            .map_err(|error| error.to_string())
    };
    let refused = strict("count_over_time(up[95m])", &AtomicBool::new(false)).expect_err("a part is missing");
    assert!(refused.contains("bucket with older blocks does not answer"), "{refused}");
    assert_eq!(strict("up", &AtomicBool::new(false)), Ok(0), "rules go on by what is here");
    assert!(strict("up", &AtomicBool::new(true)).is_err(), "it is cancelled");
    assert_eq!(ask(&reader, "up", 94).annotations.iter().count(), 0, "it is not asked for what is here");
    writer.maintenance().tend_bucket(at(95));
    assert!(writer.maintenance().compact().is_err() || blocks(&directory).len() < 5);
    assert!(blocks(&directory).len() >= 2, "nothing goes that is not there");
    let text = registry.encode_text();
    assert!(text.contains("series_bucket_failures_total{work=\"upload\"} 1"), "{text}");
    // A start needs no answer from it, but a directory that should hold blocks is there and not empty: what has to be
    // mounted there would be missed later.
    drop((writer, reader));
    std::fs::remove_file(&target).expect("it was there");
    for _ in 0..2 {
        let opened = Series::open(config.clone(), &Registry::for_test());
        let refused = opened.map(drop).expect_err("it is not mounted");
        assert!(refused.to_string().contains("missing or empty, and should hold"), "{refused}");
    }
    std::fs::create_dir(&target).expect("removed by the start");
    std::fs::write(target.join("lost"), b"").expect("written");
    let (writer, reader, _) = open(config);
    assert_eq!(eu(&reader).last(), expected_eu(0..90).last());
    // It is back, and so is everything.
    std::fs::remove_dir_all(&target).expect("it is there");
    std::fs::rename(parent.path().join("elsewhere"), &target).expect("renamed");
    assert_eq!(eu(&reader), expected_eu(0..90));
    writer.maintenance().tend_bucket(at(95));
    writer.maintenance().compact().expect("they are read");
    assert_eq!(eu(&reader), expected_eu(0..90));
}

#[test]
fn a_lost_catalogue_is_made_again_from_the_bucket_too() {
    let (directory, target) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let config = in_bucket(directory.path(), BucketConfig::in_directory(target.path()));
    let (mut writer, reader, _) = open(config.clone());
    append(&mut writer, 0..95);
    writer.maintenance().tend_bucket(at(95));
    let reading = reader.shared.blocks.load_full();
    writer.maintenance().compact_all().expect("they are read");
    writer.maintenance().tend_bucket(at(95));
    // What was replaced goes when nobody reads it any more.
    let count_there = || std::fs::read_dir(target.path().join("node-1")).map_or(0, Iterator::count);
    writer.maintenance().sweep_bucket(0);
    let read_there = reading.iter().filter(|block| !block.is_local()).count();
    assert!(read_there > 3);
    assert!(count_there() >= read_there + objects(&reader).len(), "{} of {read_there}", count_there());
    // Questions about labels end when nobody waits.
    let ended = reader.until(std::sync::Arc::new(AtomicBool::new(true)));
    let sets = |reader: &SeriesReader| reader.label_sets(&[], at(0), at(9), 10).len();
    assert_eq!((sets(&ended), sets(&reader)), (0, 3));
    drop(reading);
    writer.maintenance().sweep_bucket(0);
    assert_eq!(count_there(), objects(&reader).len());
    let (held, checkpoint) = (objects(&reader), writer.checkpoint());
    drop((writer, reader));
    // What is no block of ours is left alone.
    let foreign = ["0000000000000077-00000001.block", "0000000000000078.block", "notes"];
    foreign.iter().for_each(|name| {
        std::fs::write(target.path().join("node-1").join(name), b"something").expect("written");
    });
    std::fs::remove_file(directory.path().join("catalogue.redb")).expect("it was there");
    let (writer, reader, registry) = open(config.clone());
    assert_eq!(eu(&reader), expected_eu(0..90));
    assert!(held.iter().all(|object| objects(&reader).contains(object)), "{held:?}");
    assert!(writer.checkpoint() <= checkpoint);
    assert!(
        registry.encode_text().contains("series_catalogue_rebuilds_total 1"),
        "{}",
        registry.encode_text()
    );
    drop((writer, reader));
    // The whole directory is lost: the log is asked for everything.
    std::fs::remove_dir_all(directory.path()).expect("it was there");
    let (mut writer, reader, _) = open(config.clone());
    assert_eq!(writer.checkpoint(), 0);
    let found = eu(&reader).len();
    assert!(found >= 60, "{found} points were in the bucket");
    append(&mut writer, 100..125);
    writer.maintenance().compact_all().expect("they are read");
    writer.maintenance().tend_bucket(at(200));
    writer.maintenance().sweep_bucket(0);
    assert_eq!(eu(&reader).len(), found + 25);
    drop((writer, reader));
    assert!(foreign.iter().all(|name| target.path().join("node-1").join(name).exists()));
    // Without an answer nobody knows what there is, so nothing is begun.
    std::fs::remove_dir_all(directory.path()).expect("it was there");
    let secret = target.path().join("secret");
    std::fs::write(&secret, b"secret").expect("written");
    let away = BucketConfig {
        name: Some("belfry".to_owned()),
        directory: None,
        endpoint: Some(format!("http://127.0.0.1:{}", free_port())),
        access_key_file: Some(secret.clone()),
        secret_key_file: Some(secret),
        ..BucketConfig::in_directory("")
    };
    let opened = Series::open(in_bucket(directory.path(), away), &Registry::for_test());
    let refused = opened.map(drop).expect_err("nobody answers").to_string();
    assert!(refused.contains("what is in the bucket cannot be listed"), "{refused}");
}

#[test]
fn what_comes_damaged_or_not_at_all_is_missed_and_nothing_else() {
    let (directory, target) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let config = in_bucket(directory.path(), BucketConfig::in_directory(target.path()));
    let (mut writer, reader, _) = open(config.clone());
    append(&mut writer, 0..95);
    let maintenance = writer.maintenance();
    maintenance.tend_bucket(at(95));
    // Its first chunk, of the series that is asked for, comes with a wrong byte.
    let object = target.path().join(&objects(&reader)[1]);
    let whole = std::fs::read(&object).expect("it is there");
    let mut wrong = whole.clone();
    wrong[12] ^= 0x55;
    std::fs::write(&object, &wrong).expect("written");
    assert_eq!(eu(&reader).len(), 85);
    let failed = maintenance.compact_all().expect_err("nothing is made without it");
    assert_eq!(failed.reason(), "damaged");
    assert!(maintenance.compact_all().expect("the others are") > 0);
    maintenance.sweep_bucket(0);
    assert_eq!(eu(&reader).len(), 85);
    // Nothing keeps the wrong piece.
    std::fs::write(&object, &whole).expect("written");
    assert_eq!(eu(&reader), expected_eu(0..95));
    // It is not there: the question is answered from the others, which are asked on.
    std::fs::rename(&object, target.path().join("elsewhere")).expect("renamed");
    drop((maintenance, writer, reader));
    let (writer, reader, _) = open(config);
    let answer = ask(&reader, "count_over_time(up[95m])", 94);
    let warnings: Vec<String> =
        answer.annotations.of(Severity::Warning).map(|warning| warning.message.clone()).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("is not in the bucket any more"), "{warnings:?}");
    assert_eq!(eu(&reader).len(), 80);
    // What cannot be written says nothing of reading.
    let bucket = reader.shared.bucket.clone().expect("configured");
    assert!(bucket.upload(&target.path().join("elsewhere"), "node-1").is_err());
    assert!(format!("{bucket:?}").contains("failed: None"), "{bucket:?}");
    assert!(writer.maintenance().compact_all().is_err());
    std::fs::rename(target.path().join("elsewhere"), &object).expect("renamed");
    assert_eq!(eu(&reader), expected_eu(0..90));
    drop((writer, reader));
    let (writer, reader, _) = open(in_bucket(directory.path(), BucketConfig::in_directory(target.path())));
    writer.maintenance().compact_all().expect("they are read");
    assert_eq!(eu(&reader), expected_eu(0..90));
}

#[test]
fn an_upload_that_a_crash_cut_leaves_nothing_wrong() {
    let (directory, target) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let config = in_bucket(directory.path(), BucketConfig::in_directory(target.path()));
    let (mut writer, reader, _) = open(config.clone());
    append(&mut writer, 0..25);
    // Noted and half written; and noted, written and the block then gone.
    let halves = ["node-1/0000000000000000-00000001.block", "node-1/0000000000000009-00000002.block"];
    std::fs::create_dir_all(target.path().join("node-1")).expect("created");
    for object in halves {
        reader.shared.catalogue().begin_upload(object).expect("the disk works");
        std::fs::write(target.path().join(object), b"half").expect("written");
    }
    drop((writer, reader));
    let (writer, reader, _) = open(config);
    writer.maintenance().tend_bucket(at(300));
    assert_eq!(objects(&reader).len(), 2);
    assert!(halves.iter().all(|object| target.path().join(object).exists()), "a query may still read it");
    writer.maintenance().sweep_bucket(0);
    assert!(!halves.iter().any(|object| target.path().join(object).exists()));
    assert_eq!(eu(&reader), expected_eu(0..20));
    assert!(objects(&reader).iter().all(|object| target.path().join(object).exists()));
    assert!(blocks(directory.path()).is_empty());
}

/// A server of others, ended when it goes.
pub(super) struct Server {
    pub(super) child: Child,
    pub(super) port: u16,
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Says something over HTTP and gives the answer.
pub(super) fn say(port: u16, line: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let credential =
        "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: {credential}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
#[allow(clippy::print_stderr, reason = "what was not run is told")]
fn a_server_that_speaks_s3_is_such_a_bucket() {
    let Some(program) = std::env::var_os("BELFRY_S3_SERVER") else {
        eprintln!(
            "NOT RUN: BELFRY_S3_SERVER is unset (moto_server), so no blocks went to a server that speaks S3"
        );
        return;
    };
    let port = free_port();
    let child = Command::new(program)
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let server = Server { child, port };
    while say(port, "PUT /belfry").is_none() {
        std::thread::yield_now();
    }
    let secrets = tempfile::tempdir().expect("a directory");
    let secret = |name: &str| {
        let path = secrets.path().join(name);
        std::fs::write(&path, format!("{name}\n")).expect("written");
        Some(path)
    };
    let bucket = BucketConfig {
        name: Some("belfry".to_owned()),
        directory: None,
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        access_key_file: secret("key"),
        secret_key_file: secret("secret"),
        ..BucketConfig::in_directory("")
    };
    let directory = tempfile::tempdir().expect("a directory");
    let exists = |object: &str| {
        say(server.port, &format!("HEAD /belfry/{object}")).is_some_and(|answer| answer.contains(" 200 "))
    };
    check(directory.path(), &bucket, &exists);

    // A block of several parts.
    let directory = tempfile::tempdir().expect("a directory");
    let config = in_bucket(directory.path(), bucket.clone());
    let (mut writer, reader, _) = open(Config { head_bytes_max: 64 << 20, ..config });
    let noise: Vec<_> = (0..100).map(|n| sample("noise", &[("id", n.to_string().as_str())], 0.0)).collect();
    for second in 0..10_000_u32 {
        let values = noise.iter().enumerate().map(|(n, sample)| Sample {
            value: (f64::from(second) * 1.7 + n as f64).sin(),
            ..sample.clone()
        });
        let time = START_MS + i64::from(second) * 50;
        writer.append(u64::from(second) + 1, time, &values.collect::<Vec<_>>()).expect("the disk works");
    }
    writer.flush().expect("the disk works");
    let one = |reader: &SeriesReader| all(reader, &[Matcher::equal("id", "42")]);
    let before = one(&reader);
    writer.maintenance().tend_bucket(at(100));
    assert!(blocks(directory.path()).is_empty());
    let bytes: Vec<u64> = reader.shared.blocks.load().iter().map(|block| block.meta().bytes).collect();
    assert!(bytes[0] > 6 << 20, "{bytes:?}");
    assert_eq!(one(&reader), before);
    // The server dies: an answer comes all the same.
    drop(server);
    let answer = ask(&reader, "up offset 1m", 3);
    assert_eq!(answer.annotations.iter().count(), 0, "what was read before is still here");
    let (writer, reader, _) = {
        drop((writer, reader));
        open(in_bucket(directory.path(), BucketConfig { timeout: Duration::from_secs(1), ..bucket }))
    };
    assert_eq!(ask(&reader, "noise", 3).annotations.of(Severity::Warning).count(), 1);
    drop(writer);
}
