//! Groups of metrics that were pushed, repeated until somebody deletes them, also by the next process.
//!
//! The groups are those of the Pushgateway: `/metrics/job/JOB/LABEL/VALUE...`. POST replaces the metrics that it names, PUT
//! the whole group, DELETE ends it. Each is a file of its own, synced before the push is answered. A file that cannot be
//! read is set aside, and the others go on.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use belfry_signal::{PointValue, SeriesBatch, SeriesLabels, SeriesPoints};
use serde::{Deserialize, Serialize};

use super::push::{Group, labels};
use super::{Receiver, Refusal};
use crate::error::WriteError;
use crate::metrics::collect::{float, stale};
use crate::metrics::labels::{LabelLimits, metric_name};
use crate::metrics::remote_write::Decoded;

/// Changes of so many groups are under way side by side.
const LANES: usize = 16;
/// The first byte of a file, so that another form can follow.
const FORMAT: u8 = 1;
const ENDING: &str = "group";
const CHECKSUM_BYTES: usize = 4;

/// The last page of each group.
#[derive(Debug)]
pub(super) struct Groups {
    groups_max: usize,
    directory: PathBuf,
    held: Mutex<BTreeMap<Group, Held>>,
    next_file: AtomicU64,
    /// Whoever changes a group has its lane to the end, so that the file is what memory is.
    lanes: [tokio::sync::Mutex<()>; LANES],
}

/// A group in memory.
#[derive(Clone, Debug)]
struct Held {
    file: u64,
    series: Arc<Vec<SeriesPoints>>,
}

/// A group in its file.
#[derive(Serialize, Deserialize)]
struct Kept {
    group: Group,
    series: Vec<SeriesPoints>,
}

impl Groups {
    /// The groups of a directory, which is made when it is not there; and how many files could not be read.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(super) fn open(directory: &Path, groups_max: usize) -> io::Result<(Self, usize)> {
        fs::create_dir_all(directory)?;
        let (mut held, mut last, mut damaged) = (BTreeMap::new(), 0, 0);
        let mut files: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
            match (path.extension().and_then(|ending| ending.to_str()), number) {
                (Some(ENDING), Some(number)) => files.push((number, path)),
                // A change that was cut off before it was answered.
                (Some("new"), _) => fs::remove_file(&path)?,
                _ => {}
            }
        }
        files.sort();
        for (number, path) in files {
            last = last.max(number);
            match decoded(&fs::read(&path)?) {
                Some(Kept { group, series }) => {
                    drop(held.insert(group, Held { file: number, series: Arc::new(series) }));
                }
                None => {
                    damaged += 1;
                    fs::rename(&path, path.with_extension("damaged"))?;
                }
            }
        }
        let groups = Self {
            groups_max,
            directory: directory.to_owned(),
            held: Mutex::new(held),
            next_file: AtomicU64::new(last + 1),
            lanes: Default::default(),
        };
        Ok((groups, damaged))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.held().len()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Group, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane(&self, group: &Group) -> &tokio::sync::Mutex<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(group);
        &self.lanes[usize::try_from(hash % LANES as u64).unwrap_or_default()]
    }

    /// Takes a group's page: what is to be written now, marks of series that it ends among it.
    pub(super) async fn put(
        &self,
        group: &Group,
        mut page: Decoded,
        replaces_all: bool,
        now_ms: i64,
    ) -> Result<Decoded, Refusal> {
        let _lane = self.lane(group).lock().await;
        let before = self.held().get(group).cloned();
        // They are repeated with a time of ours, so one of theirs would make no sense.
        for series in &mut page.batch.series {
            series.points.iter_mut().for_each(|(time, _)| *time = now_ms);
        }
        let name = [("__name__".into(), "push_time_seconds".into())];
        let own = labels(&name, group, LabelLimits::default());
        let own = own.map_err(|fault| Refusal::Page(fault.to_string()))?;
        page.batch.series.push(float(own, now_ms, now_ms as f64 / 1000.0));
        let empty = Arc::default();
        let old = before.as_ref().map_or(&empty, |before| &before.series);
        let (kept, ended) = changed(old, &page.batch.series, replaces_all, now_ms);
        let series: Vec<SeriesPoints> = kept.into_iter().chain(page.batch.series.iter().cloned()).collect();
        let file = match before {
            Some(before) => before.file,
            None => self.reserve(group)?,
        };
        let kept = Kept { group: group.clone(), series };
        let path = self.path(file);
        let written = tokio::task::spawn_blocking(move || write(&path, &kept).map(|()| kept.series)).await;
        let Ok(Ok(series)) = written else {
            let mut held = self.held();
            // A place that was only reserved is free again.
            if held.get(group).is_some_and(|held| held.series.is_empty()) {
                held.remove(group);
            }
            return Err(Refusal::Write(WriteError::Disk));
        };
        self.held().insert(group.clone(), Held { file, series: Arc::new(series) });
        page.batch.series.extend(ended);
        Ok(page)
    }

    /// A place for a new group; its file's number.
    fn reserve(&self, group: &Group) -> Result<u64, Refusal> {
        let mut held = self.held();
        if held.len() >= self.groups_max {
            let text = format!("there are {} groups already: delete some, or raise groups_max", held.len());
            return Err(Refusal::Page(text));
        }
        let file = self.next_file.fetch_add(1, Ordering::Relaxed);
        held.insert(group.clone(), Held { file, series: Arc::default() });
        Ok(file)
    }

    fn path(&self, file: u64) -> PathBuf {
        self.directory.join(format!("{file:012}.{ENDING}"))
    }

    /// Ends a group: marks of its series.
    pub(super) async fn delete(&self, group: &Group, now_ms: i64) -> Result<Decoded, Refusal> {
        let _lane = self.lane(group).lock().await;
        let Some(before) = self.held().get(group).cloned() else { return Ok(Decoded::default()) };
        let path = self.path(before.file);
        let removed = tokio::task::spawn_blocking(move || remove(&path)).await;
        if !matches!(removed, Ok(Ok(()))) {
            return Err(Refusal::Write(WriteError::Disk));
        }
        self.held().remove(group);
        let series = before.series.iter().map(|series| stale(Arc::clone(&series.labels), now_ms)).collect();
        Ok(Decoded { batch: SeriesBatch { series, metadata: Vec::new() }, ..Decoded::default() })
    }

    /// Every group again, at another time.
    fn again(&self, now_ms: i64) -> SeriesBatch {
        let held: Vec<Arc<Vec<SeriesPoints>>> =
            self.held().values().map(|held| Arc::clone(&held.series)).collect();
        let at = |series: &SeriesPoints| {
            let last = series.points.last().map(|(_, value)| (now_ms, value.clone()));
            let points: Vec<(i64, PointValue)> = last.into_iter().collect();
            SeriesPoints {
                labels: Arc::clone(&series.labels),
                created_ms: None,
                points,
                exemplars: Vec::new(),
            }
        };
        SeriesBatch {
            series: held.iter().flat_map(|series| series.iter()).map(at).collect(),
            metadata: Vec::new(),
        }
    }
}

/// What stays of a group under a new page, and marks of what ends.
fn changed(
    old: &[SeriesPoints],
    new: &[SeriesPoints],
    replaces_all: bool,
    now_ms: i64,
) -> (Vec<SeriesPoints>, Vec<SeriesPoints>) {
    let names: HashSet<Option<&str>> = new.iter().map(|series| metric_name(&series.labels)).collect();
    let again: HashSet<&SeriesLabels> = new.iter().map(|series| &series.labels).collect();
    let is_named = |series: &&SeriesPoints| replaces_all || names.contains(&metric_name(&series.labels));
    let (replaced, kept): (Vec<_>, Vec<_>) = old.iter().partition(is_named);
    let ended = replaced.into_iter().filter(|old| !again.contains(&old.labels));
    let ended = ended.map(|old| stale(Arc::clone(&old.labels), now_ms)).collect();
    (kept.into_iter().cloned().collect(), ended)
}

fn encoded(kept: &Kept) -> io::Result<Vec<u8>> {
    let mut bytes = postcard::to_extend(kept, vec![FORMAT]).map_err(io::Error::other)?;
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn decoded(bytes: &[u8]) -> Option<Kept> {
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    match body.split_first()? {
        (&FORMAT, payload) => postcard::from_bytes(payload).ok(),
        _ => None,
    }
}

fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(&encoded(kept)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_directory(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_directory(path),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Writes the groups again and again, while the door is there.
pub(super) async fn repeat(receiver: Weak<Receiver>) {
    loop {
        let Some(interval) = receiver.upgrade().map(|receiver| receiver.config.group_interval) else {
            return;
        };
        tokio::time::sleep(interval).await;
        let Some(receiver) = receiver.upgrade() else { return };
        let batch = receiver.groups.again(crate::metrics::scrape::now_ms());
        if !batch.series.is_empty() {
            // A failing disk is told by the log; the next time comes soon.
            let _written = receiver.pipeline.write(batch).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> Group {
        [("job".to_owned(), name.to_owned())].into()
    }

    fn page(group: &Group, metrics: &[&str]) -> Decoded {
        let series = metrics.iter().map(|metric| {
            let name = [("__name__".into(), (*metric).into())];
            float(labels(&name, group, LabelLimits::default()).expect("good"), 1, 5.0)
        });
        Decoded {
            batch: SeriesBatch { series: series.collect(), metadata: Vec::new() },
            ..Decoded::default()
        }
    }

    fn names(batch: &SeriesBatch) -> Vec<String> {
        let name = |series: &SeriesPoints| {
            let is_end = matches!(series.points[..], [(_, PointValue::Float(value))] if value.is_nan());
            format!(
                "{}{}",
                metric_name(&series.labels).unwrap_or_default(),
                if is_end { " ends" } else { "" }
            )
        };
        let mut names: Vec<String> = batch.series.iter().map(name).collect();
        names.sort();
        names.retain(|name| !name.starts_with("push_time_seconds"));
        names
    }

    #[tokio::test]
    async fn groups_outlive_the_process_until_they_are_deleted() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || Groups::open(directory.path(), 2).expect("a good directory");
        let (a, b) = (group("a"), group("b"));
        let (groups, _) = open();
        let put = |groups: Groups, metrics: &'static [&'static str], replaces_all| async move {
            let group = group("a");
            let told = groups.put(&group, page(&group, metrics), replaces_all, 2).await.expect("taken");
            names(&told.batch)
        };
        assert_eq!(put(groups, &["x", "y"], false).await, ["x", "y"]);
        let (groups, damaged) = open();
        assert_eq!((damaged, names(&groups.again(3))), (0, vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!(put(groups, &["x"], false).await, ["x"], "y stays");
        let (groups, _) = open();
        assert_eq!(names(&groups.again(3)), ["x", "y"]);
        assert_eq!(put(groups, &["z"], true).await, ["x ends", "y ends", "z"]);
        let (groups, _) = open();
        groups.put(&b, page(&b, &["w"]), false, 4).await.expect("taken");
        let full = groups.put(&group("c"), page(&a, &["w"]), false, 4).await;
        assert!(full.expect_err("two are enough").to_string().contains("raise groups_max"));
        assert_eq!(names(&groups.delete(&a, 5).await.expect("deleted").batch), ["z ends"]);
        groups.put(&group("c"), page(&a, &["v"]), false, 6).await.expect("there is room again");
        let (groups, _) = open();
        assert_eq!(names(&groups.again(7)), ["v", "w"]);
        // A file that a disk has spoilt costs that group, and is kept to be looked at.
        let file = fs::read_dir(directory.path())
            .expect("there")
            .flatten()
            .map(|file| file.path())
            .min()
            .expect("one");
        let mut bytes = fs::read(&file).expect("there");
        bytes[9] ^= 1;
        fs::write(&file, bytes).expect("written");
        fs::write(directory.path().join("000000000099.new"), "cut off").expect("written");
        let (groups, damaged) = open();
        assert_eq!((damaged, groups.len()), (1, 1));
        assert!(
            file.with_extension("damaged").is_file() && !directory.path().join("000000000099.new").exists()
        );
    }

    /// As many series as a request may have, pushed twice: comparing each with each would take minutes.
    #[tokio::test]
    async fn a_large_group_is_compared_by_its_index() {
        let directory = tempfile::tempdir().expect("a directory");
        let (groups, _) = Groups::open(directory.path(), 2).expect("a good directory");
        let all: Vec<String> = (0..50_000).map(|number| format!("metric_{number}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let a = group("a");
        for _ in 0..2 {
            let told = groups.put(&a, page(&a, &all), false, 2).await.expect("taken");
            assert_eq!(told.batch.series.len(), 50_001);
        }
    }
}
