//! Blocks: compaction in levels, retention, deletion, snapshots, many series.

use super::samples::{at, series};
use super::*;
use crate::Maintenance;
use crate::block::Block;

fn metas(directory: &Path) -> Vec<(u8, i64, i64)> {
    let ids = crate::block::list(directory).expect("a directory");
    let mut metas: Vec<_> = ids
        .iter()
        .map(|id| Block::read_meta(directory, *id).expect("a block"))
        .map(|meta| (meta.level, (meta.min_ms - START_MS) / MINUTE_MS, (meta.max_ms - START_MS) / MINUTE_MS))
        .collect();
    metas.sort_by_key(|(_, min_ms, _)| *min_ms);
    metas
}

#[test]
fn windows_are_compacted_upward_and_answers_stay_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let long = Config { retention: Duration::from_hours(24), ..config(directory.path()) };
    let (mut writer, reader, _) = open(long.clone());
    append(&mut writer, 0..200);
    let before = all(&reader, &[]);
    assert_eq!(before[0].points.len(), 200);
    let maintenance = writer.maintenance();
    assert!(maintenance.compact().expect("the disk works") > 0);
    assert_eq!(maintenance.compact().expect("the disk works"), 0, "nothing is left to do");
    // Windows of 10, 30 and 90 minutes, counted from 1970; the last ten minutes are still in memory.
    let expected = [(3, 0, 59), (3, 60, 149), (2, 150, 179), (1, 180, 189)];
    assert_eq!(metas(directory.path()), expected);
    assert_eq!(all(&reader, &[]), before);
    drop((maintenance, writer, reader));
    let (writer, reader, _) = open(long);
    assert_eq!(writer.checkpoint(), 190);
    assert_eq!(eu(&reader), expected_eu(0..190));
}

#[test]
fn the_oldest_blocks_go_when_all_are_too_large() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = Config {
        disk_bytes_max: Some(1 << 20),
        retention: Duration::from_hours(24),
        ..config(directory.path())
    };
    let (mut writer, reader, registry) = open(small);
    let noise: Vec<_> = (0..90).map(|n| sample("noise", &[("id", n.to_string().as_str())], 0.0)).collect();
    for second in 0..3000_u32 {
        let values = noise.iter().enumerate().map(|(n, sample)| Sample {
            value: (f64::from(second) * 1.7 + n as f64).sin(),
            ..sample.clone()
        });
        let time = START_MS + i64::from(second) * 1000;
        writer.append(u64::from(second) + 1, time, &values.collect::<Vec<_>>()).expect("the disk works");
    }
    writer.tick(START_MS + 3_000_000);
    assert!(registry.encode_text().contains("series_blocks_deleted_total"));
    let bytes: u64 = blocks(directory.path()).iter().map(|path| path.metadata().expect("there").len()).sum();
    assert!((1..=1 << 20).contains(&bytes), "{bytes}");
    let left = all(&reader, &[Matcher::metric("noise"), Matcher::equal("id", "7")]);
    assert!(left[0].points[0].0 > START_MS && left[0].points.last().expect("some").0 == START_MS + 2_999_000);
}

#[test]
fn what_a_matcher_names_is_deleted_from_the_disk_and_a_crash_does_not_stop_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, _) = open(config(directory.path()));
    append(&mut writer, 0..25);
    writer.flush().expect("the disk works");
    let maintenance = writer.maintenance();
    let mut told = Vec::new();
    let eu_only = [Matcher::new("region", MatchOperator::Regex, "e.").expect("it compiles")];
    let deleted = maintenance
        .delete(&eu_only, at(5), at(14), &mut |done, whole| told.push((done, whole)))
        .expect("the disk works");
    assert_eq!((deleted.blocks, deleted.points), (2, 10));
    assert_eq!(told.last(), Some(&(3, 3)));
    let left: Vec<_> = expected_eu(0..5).into_iter().chain(expected_eu(15..25)).collect();
    assert_eq!(eu(&reader), left);
    assert_eq!(all(&reader, &[Matcher::equal("region", "us-east")])[0].points.len(), 25);
    // Noted and then interrupted: the next run of the compactor finishes it.
    let deletion = crate::catalogue::StoredDeletion {
        id: 0,
        matchers: vec![("region".to_owned(), "=".to_owned(), "us-east".to_owned())],
        from_ms: i64::MIN,
        to_ms: i64::MAX,
    };
    maintenance.shared().catalogue().put_deletion(deletion).expect("the disk works");
    drop((maintenance, writer, reader));
    let (writer, reader, registry) = open(config(directory.path()));
    let maintenance: Maintenance = writer.maintenance();
    maintenance.finish_deletions().expect("the disk works");
    assert!(all(&reader, &[Matcher::equal("region", "us-east")]).is_empty());
    assert_eq!(reader.label_values("region"), ["eu"]);
    assert_eq!(eu(&reader), left);
    assert!(registry.encode_text().contains("series_points_deleted_total 25"));
    for path in blocks(directory.path()) {
        let bytes = std::fs::read(&path).expect("readable");
        assert!(
            !bytes.windows(7).any(|window| window == b"us-east"),
            "no trace is left in {}",
            path.display()
        );
    }
}

#[test]
fn a_snapshot_is_a_store() {
    let (directory, target) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (mut writer, _reader, _) = open(config(directory.path()));
    append(&mut writer, 0..25);
    writer.flush().expect("the disk works");
    let copy = target.path().join("copy");
    let maintenance = writer.maintenance();
    assert_eq!(maintenance.snapshot(&copy, &mut |_, _| {}).expect("the disk works"), 3);
    assert_eq!(maintenance.snapshot(&copy, &mut |_, _| {}).expect("again"), 3);
    let (writer, reader, _) = open(config(&copy));
    assert_eq!((writer.checkpoint(), eu(&reader)), (25, expected_eu(0..25)));
}

#[test]
fn what_is_in_memory_is_sealed_when_someone_asks_and_the_writer_ticks() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, _reader, _) = open(config(directory.path()));
    append(&mut writer, 0..5);
    let maintenance = writer.maintenance();
    let asked = std::thread::spawn(move || maintenance.flush());
    while !asked.is_finished() {
        writer.tick(at(5));
        std::thread::yield_now();
    }
    assert!(asked.join().expect("no panic").is_ok());
    assert_eq!((writer.checkpoint(), blocks(directory.path()).len()), (5, 1));
}

#[test]
fn a_block_of_many_series_is_read_by_pages() {
    let directory = tempfile::tempdir().expect("a directory");
    let many = Config { series_max: 10_000, metric_series_max: 10_000, ..config(directory.path()) };
    let (mut writer, reader, _) = open(many);
    let wide = |n: usize| belfry_signal::SeriesPoints {
        labels: super::samples::labels(&[
            ("__name__", "wide"),
            ("id", &format!("{n:05}")),
            ("odd", if n % 2 == 1 { "yes" } else { "no" }),
        ]),
        ..series("", &[(1, n as f64)])
    };
    let batch = belfry_signal::SeriesBatch { series: (0..3000).map(wide).collect(), metadata: Vec::new() };
    assert_eq!(writer.write(1, &batch).0.refusals(), 0);
    writer.flush().expect("the disk works");
    let check = |matchers: &[Matcher], expected: &[usize]| {
        let found: Vec<usize> =
            all(&reader, matchers).iter().map(|series| series.points[0].1 as usize).collect();
        assert_eq!(found, expected, "{matchers:?}");
    };
    let regex = |name, pattern| Matcher::new(name, MatchOperator::Regex, pattern).expect("it compiles");
    check(&[Matcher::equal("id", "02345")], &[2345]);
    check(&[Matcher::equal("id", "2345")], &[]);
    check(&[regex("id", "0299."), Matcher::equal("odd", "yes")], &[2991, 2993, 2995, 2997, 2999]);
    check(
        &[regex("id", "0100[0-3]"), Matcher::new("odd", MatchOperator::NotEqual, "no").expect("it compiles")],
        &[1001, 1003],
    );
    assert_eq!(all(&reader, &[Matcher::metric("wide")]).len(), 3000);
    assert_eq!(reader.label_values("id").len(), 3000);
    assert_eq!(reader.label_sets(&[Matcher::equal("odd", "no")], i64::MIN, i64::MAX, 10_000).len(), 1500);
}
