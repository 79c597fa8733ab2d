//! Blocks of Prometheus: out, in again, and before the eyes of promtool.

use std::process::Command;

use super::samples::at;
use super::*;
use crate::Carried;

fn filled(directory: &Path) -> (SeriesWriter, SeriesReader) {
    let (mut writer, reader, _) = open(config(directory));
    append(&mut writer, 0..150);
    let odd = [sample("odd", &[("text", "größe \"x\"\n")], -1.5e-300), sample("odd", &[], f64::INFINITY)];
    writer.append(151, at(150), &odd).expect("the disk works");
    writer.flush().expect("the disk works");
    writer.maintenance().compact_all().expect("the disk works");
    (writer, reader)
}

#[test]
fn blocks_go_out_and_come_in_again_unchanged() {
    let directories: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().expect("a directory"));
    let (writer, reader) = filled(directories[0].path());
    let prometheus = directories[1].path();
    let mut told = Vec::new();
    let carried = writer
        .maintenance()
        .export_prometheus(prometheus, &mut |done, whole| told.push((done, whole)))
        .expect("the disk works");
    assert_eq!((carried.samples, carried.histograms_left_out), (452, 0));
    assert_eq!(told.last(), Some(&(carried.blocks, carried.blocks)));
    let again = writer.maintenance().export_prometheus(prometheus, &mut |_, _| {}).expect("the disk works");
    assert_eq!(again, Carried { blocks_before: carried.blocks, ..Carried::default() });

    let long = Config { retention: Duration::from_hours(24), ..config(directories[2].path()) };
    let (copy_writer, copy_reader, _) = open(long);
    let imported =
        copy_writer.maintenance().import_prometheus(prometheus, &mut |_, _| {}).expect("they are read");
    assert_eq!(imported, carried);
    assert_eq!(all(&copy_reader, &[]), all(&reader, &[]));
    let again =
        copy_writer.maintenance().import_prometheus(prometheus, &mut |_, _| {}).expect("they are read");
    assert_eq!(again.blocks_before, carried.blocks);

    // Damage is refused with what and where, and nothing of the block is taken over.
    let mut entries =
        std::fs::read_dir(prometheus).expect("readable").map(|entry| entry.expect("readable").path());
    let block = entries.find(|path| path.join("meta.json").exists()).expect("a block");
    let chunks = block.join("chunks/000001");
    let mut bytes = std::fs::read(&chunks).expect("readable");
    bytes[20] ^= 1;
    std::fs::write(&chunks, bytes).expect("writable");
    let empty = tempfile::tempdir().expect("a directory");
    let (fresh, fresh_reader, _) = open(config(empty.path()));
    let refused = fresh.maintenance().import_prometheus(&block, &mut |_, _| {});
    assert!(matches!(&refused, Err(Error::Foreign { .. })), "{refused:?}");
    assert!(all(&fresh_reader, &[]).is_empty());
    assert!(fresh.maintenance().import_prometheus(empty.path(), &mut |_, _| {}).is_err());
}

#[test]
#[allow(clippy::print_stderr, reason = "what was not run is told")]
fn promtool_reads_what_is_exported() {
    let Some(promtool) = std::env::var_os("BELFRY_PROMTOOL") else {
        eprintln!("NOT RUN: BELFRY_PROMTOOL is unset, so promtool did not read an exported block");
        return;
    };
    let (directory, target) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (writer, reader) = filled(directory.path());
    writer.maintenance().export_prometheus(target.path(), &mut |_, _| {}).expect("the disk works");
    let run = |arguments: &[&str]| {
        let output =
            Command::new(&promtool).args(arguments).arg(target.path()).output().expect("promtool runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out.into_owned()
    };
    let dump = run(&["tsdb", "dump"]);
    let samples: usize = all(&reader, &[]).iter().map(|series| series.points.len()).sum();
    assert_eq!(dump.lines().count(), samples, "{dump}");
    for line in [
        format!("{{__name__=\"calls_total\", outcome=\"good\", region=\"eu\"}} 420 {}", at(42)),
        format!("{{__name__=\"odd\", text=\"größe \\\"x\\\"\\n\"}} -1.5e-300 {}", at(150)),
        format!("{{__name__=\"odd\"}} +Inf {}", at(150)),
    ] {
        assert!(dump.lines().any(|held| held == line), "{line} is not in\n{dump}");
    }
    let matched = Command::new(&promtool)
        .args(["tsdb", "dump", "--match={region=~\"us.*\"}"])
        .arg(target.path())
        .output()
        .expect("promtool runs");
    assert_eq!(String::from_utf8_lossy(&matched.stdout).lines().count(), 150, "postings select");
    assert!(run(&["tsdb", "list"]).lines().count() > 1);
}
