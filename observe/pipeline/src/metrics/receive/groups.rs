//! Groups of metrics that were pushed, repeated until somebody deletes them, also by the next process.
//!
//! The groups are those of the Pushgateway: `/metrics/job/JOB/LABEL/VALUE...`. POST replaces the metrics that it names, PUT
//! the whole group, DELETE ends it. Each is a file of its own, synced before the push is answered. A file that cannot be
//! read is set aside, and the others go on. Marks of what ended are kept until they are stored.

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
/// How a file that is being written ends.
const UNFINISHED: &str = "new";
const CHECKSUM_BYTES: usize = 4;

/// The last page of each group.
#[derive(Debug)]
pub(super) struct Groups {
    groups_max: usize,
    directory: PathBuf,
    held: Mutex<BTreeMap<Group, Held>>,
    next_file: AtomicU64,
    next_write: AtomicU64,
    /// Whoever changes a group has its lane to the end, so that the file is what memory is.
    lanes: [tokio::sync::Mutex<()>; LANES],
}

/// What ended, and is not known to be stored as such.
type Unsent = Arc<Vec<SeriesLabels>>;

/// A group in memory. Without series it is deleted, and goes once the marks of its end are stored.
#[derive(Clone, Debug)]
struct Held {
    file: u64,
    series: Arc<Vec<SeriesPoints>>,
    unsent: Unsent,
}

/// A change that is in the file and in memory, and is now to be stored. Nobody else changes the group meanwhile.
pub(super) struct Told<'a> {
    pub(super) decoded: Decoded,
    unsent: Unsent,
    group: &'a Group,
    groups: &'a Groups,
    _lane: tokio::sync::MutexGuard<'a, ()>,
}

impl Told<'_> {
    /// The store has it all. Without this word the marks are sent again with the next change or repetition.
    pub(super) fn stored(self) {
        self.groups.stored(self.group, &self.unsent);
    }
}

/// The place of a new group: free again unless the group is in its file.
struct Place<'a> {
    groups: &'a Groups,
    group: &'a Group,
    is_taken: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_taken {
            self.groups.held().remove(self.group);
        }
    }
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
                (Some(UNFINISHED), _) => fs::remove_file(&path)?,
                _ => {}
            }
        }
        files.sort();
        for (number, path) in files {
            last = last.max(number);
            match decoded(&fs::read(&path)?) {
                Some(Kept { group, series }) => {
                    let series = Arc::new(series);
                    drop(held.insert(group, Held { file: number, series, unsent: Arc::default() }));
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
            next_write: AtomicU64::new(0),
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

    /// Takes a group's page: what is to be stored now, marks of series that it ends among it. Whoever calls it sees it to
    /// its end, also when its client has left.
    pub(super) async fn put<'a>(
        &'a self,
        group: &'a Group,
        mut page: Decoded,
        replaces_all: bool,
        now_ms: i64,
    ) -> Result<Told<'a>, Refusal> {
        let lane = self.lane(group).lock().await;
        let before = self.held().get(group).cloned();
        // They are repeated with a time of ours, so one of theirs would make no sense.
        for series in &mut page.batch.series {
            series.points.iter_mut().for_each(|(time, _)| *time = now_ms);
        }
        let name = [("__name__".into(), "push_time_seconds".into())];
        let own = labels(&name, group, LabelLimits::default());
        let own = own.map_err(|fault| Refusal::Page(fault.to_string()))?;
        page.batch.series.push(float(own, now_ms, now_ms as f64 / 1000.0));
        let (file, mut place) = match &before {
            Some(before) => (before.file, None),
            None => self.reserve(group).map(|(file, place)| (file, Some(place)))?,
        };
        let before = before.unwrap_or_else(|| Held::empty(file));
        let (kept, unsent) = changed(&before, &page.batch.series, replaces_all);
        let series: Vec<SeriesPoints> = kept.into_iter().chain(page.batch.series.iter().cloned()).collect();
        let kept = Kept { group: group.clone(), series };
        let path = self.path(file);
        let beside = self.beside(&path);
        let writing = move || write(&path, &beside, &kept).map(|()| kept.series);
        let Ok(Ok(series)) = tokio::task::spawn_blocking(writing).await else {
            return Err(Refusal::Write(WriteError::Disk));
        };
        if let Some(place) = &mut place {
            place.is_taken = true;
        }
        let unsent: Unsent = Arc::new(unsent);
        let held = Held { file, series: Arc::new(series), unsent: Arc::clone(&unsent) };
        self.held().insert(group.clone(), held);
        page.batch.series.extend(marks(&unsent, now_ms));
        Ok(Told { decoded: page, unsent, group, groups: self, _lane: lane })
    }

    /// A place for a new group; its file's number.
    fn reserve<'a>(&'a self, group: &'a Group) -> Result<(u64, Place<'a>), Refusal> {
        let mut held = self.held();
        if held.len() >= self.groups_max {
            let text = format!("there are {} groups already: delete some, or raise groups_max", held.len());
            return Err(Refusal::Page(text));
        }
        let file = self.next_file.fetch_add(1, Ordering::Relaxed);
        held.insert(group.clone(), Held::empty(file));
        Ok((file, Place { groups: self, group, is_taken: false }))
    }

    fn path(&self, file: u64) -> PathBuf {
        self.directory.join(format!("{file:012}.{ENDING}"))
    }

    /// A file to write before it takes the place of another: no two writes have the same.
    fn beside(&self, path: &Path) -> PathBuf {
        path.with_extension(format!("{}.{UNFINISHED}", self.next_write.fetch_add(1, Ordering::Relaxed)))
    }

    /// Ends a group: marks of its series.
    pub(super) async fn delete<'a>(&'a self, group: &'a Group, now_ms: i64) -> Result<Told<'a>, Refusal> {
        let lane = self.lane(group).lock().await;
        let before = self.held().get(group).cloned();
        let mut unsent = Unsent::default();
        if let Some(before) = before {
            let path = self.path(before.file);
            let removed = tokio::task::spawn_blocking(move || remove(&path)).await;
            if !matches!(removed, Ok(Ok(()))) {
                return Err(Refusal::Write(WriteError::Disk));
            }
            unsent = Arc::new(changed(&before, &[], true).1);
            let held = Held { unsent: Arc::clone(&unsent), ..Held::empty(before.file) };
            self.held().insert(group.clone(), held);
        }
        let series = marks(&unsent, now_ms).collect();
        let batch = SeriesBatch { series, metadata: Vec::new() };
        let decoded = Decoded { batch, ..Decoded::default() };
        Ok(Told { decoded, unsent, group, groups: self, _lane: lane })
    }

    /// These marks are stored: unless others came meanwhile, none are left to be sent.
    fn stored(&self, group: &Group, unsent: &Unsent) {
        let mut groups = self.held();
        let Some(held) = groups.get_mut(group).filter(|held| Arc::ptr_eq(&held.unsent, unsent)) else {
            return;
        };
        if held.series.is_empty() {
            groups.remove(group);
        } else {
            held.unsent = Arc::default();
        }
    }

    /// Every group again, at another time; and the marks among it, by their group.
    fn again(&self, now_ms: i64) -> (SeriesBatch, Vec<(Group, Unsent)>) {
        let held: Vec<(Group, Held)> =
            self.held().iter().map(|(group, held)| (group.clone(), held.clone())).collect();
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
        let mut series = Vec::new();
        for (_, held) in &held {
            series.extend(held.series.iter().map(at).chain(marks(&held.unsent, now_ms)));
        }
        let unsent = held.into_iter().map(|(group, held)| (group, held.unsent));
        let unsent = unsent.filter(|(_, unsent)| !unsent.is_empty()).collect();
        (SeriesBatch { series, metadata: Vec::new() }, unsent)
    }
}

impl Held {
    fn empty(file: u64) -> Self {
        Self { file, series: Arc::default(), unsent: Arc::default() }
    }
}

/// What stays of a group under a new page, and what has ended, earlier ends that are not stored yet among it.
fn changed(
    before: &Held,
    new: &[SeriesPoints],
    replaces_all: bool,
) -> (Vec<SeriesPoints>, Vec<SeriesLabels>) {
    let names: HashSet<Option<&str>> = new.iter().map(|series| metric_name(&series.labels)).collect();
    let again: HashSet<&SeriesLabels> = new.iter().map(|series| &series.labels).collect();
    let is_named = |series: &&SeriesPoints| replaces_all || names.contains(&metric_name(&series.labels));
    let (replaced, kept): (Vec<_>, Vec<_>) = before.series.iter().partition(is_named);
    let ended = replaced.into_iter().map(|old| &old.labels).chain(before.unsent.iter());
    let ended = ended.filter(|labels| !again.contains(labels)).cloned();
    (kept.into_iter().cloned().collect(), ended.collect())
}

fn marks(unsent: &Unsent, now_ms: i64) -> impl Iterator<Item = SeriesPoints> {
    unsent.iter().map(move |labels| stale(Arc::clone(labels), now_ms))
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

fn write(path: &Path, beside: &Path, kept: &Kept) -> io::Result<()> {
    let writing = || {
        let mut file = File::create_new(beside)?;
        file.write_all(&encoded(kept)?)?;
        file.sync_all()?;
        fs::rename(beside, path)
    };
    if let Err(error) = writing() {
        // A full disk has room again; what cannot be removed now is when the directory is opened next.
        let _removed = fs::remove_file(beside);
        return Err(error);
    }
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
        let (batch, unsent) = receiver.groups.again(crate::metrics::scrape::now_ms());
        if batch.series.is_empty() {
            continue;
        }
        // A failing disk is told by the log; the next time comes soon.
        if receiver.pipeline.write(batch).await.is_ok_and(|written| !super::is_full(&written)) {
            unsent.iter().for_each(|(group, unsent)| receiver.groups.stored(group, unsent));
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
            let names = names(&told.decoded.batch);
            told.stored();
            names
        };
        assert_eq!(put(groups, &["x", "y"], false).await, ["x", "y"]);
        let (groups, damaged) = open();
        assert_eq!((damaged, names(&groups.again(3).0)), (0, vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!(put(groups, &["x"], false).await, ["x"], "y stays");
        let (groups, _) = open();
        assert_eq!(names(&groups.again(3).0), ["x", "y"]);
        assert_eq!(put(groups, &["z"], true).await, ["x ends", "y ends", "z"]);
        let (groups, _) = open();
        let c = group("c");
        groups.put(&b, page(&b, &["w"]), false, 4).await.expect("taken").stored();
        let full = groups.put(&c, page(&a, &["w"]), false, 4).await;
        assert!(full.err().expect("two are enough").to_string().contains("raise groups_max"));
        let told = groups.delete(&a, 5).await.expect("deleted");
        assert_eq!(names(&told.decoded.batch), ["z ends"]);
        told.stored();
        groups.put(&c, page(&a, &["v"]), false, 6).await.expect("there is room again").stored();
        let (groups, _) = open();
        assert_eq!(names(&groups.again(7).0), ["v", "w"]);
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
        fs::write(directory.path().join("000000000099.3.new"), "cut off").expect("written");
        let (groups, damaged) = open();
        assert_eq!((damaged, groups.len()), (1, 1));
        assert!(
            file.with_extension("damaged").is_file() && !directory.path().join("000000000099.3.new").exists()
        );
    }

    /// When the store fails the sender comes again, and the group looks as if nothing ended.
    #[tokio::test]
    async fn marks_are_told_until_they_are_stored() {
        let directory = tempfile::tempdir().expect("a directory");
        let (groups, _) = Groups::open(directory.path(), 1).expect("a good directory");
        let (a, b) = (group("a"), group("b"));
        let put = async |metrics: &[&str], replaces_all, is_stored| {
            let told = groups.put(&a, page(&a, metrics), replaces_all, 2).await.expect("taken");
            let names = names(&told.decoded.batch);
            if is_stored {
                told.stored();
            }
            names
        };
        assert_eq!(put(&["x", "y"], false, true).await, ["x", "y"]);
        assert_eq!(put(&["z"], true, false).await, ["x ends", "y ends", "z"]);
        assert_eq!(put(&["z", "y"], false, false).await, ["x ends", "y", "z"], "y is back");
        assert_eq!(names(&groups.again(3).0), ["x ends", "y", "z"]);
        assert_eq!(put(&["z"], false, true).await, ["x ends", "z"]);
        assert_eq!(names(&groups.again(3).0), ["y", "z"]);
        for _ in 0..2 {
            let told = groups.delete(&a, 4).await.expect("deleted");
            assert_eq!(names(&told.decoded.batch), ["y ends", "z ends"]);
        }
        let full = groups.put(&b, page(&b, &["w"]), false, 4).await;
        assert!(full.is_err(), "its place is free when its end is stored");
        // The repetition tells it too; what changed since is told by itself.
        let (batch, unsent) = groups.again(5);
        assert_eq!(names(&batch), ["y ends", "z ends"]);
        assert_eq!(put(&["z"], false, false).await, ["y ends", "z"]);
        unsent.iter().for_each(|(group, unsent)| groups.stored(group, unsent));
        assert_eq!(names(&groups.again(6).0), ["y ends", "z"]);
        let (batch, unsent) = groups.again(7);
        assert_eq!(names(&batch), ["y ends", "z"]);
        unsent.iter().for_each(|(group, unsent)| groups.stored(group, unsent));
        assert_eq!(names(&groups.again(8).0), ["z"]);
        groups.delete(&a, 9).await.expect("deleted").stored();
        assert_eq!(groups.len(), 0);
    }

    #[tokio::test]
    async fn a_write_that_fails_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let (groups, _) = Groups::open(directory.path(), 1).expect("a good directory");
        let a = group("a");
        let in_the_way = groups.path(1).join("a");
        fs::create_dir_all(&in_the_way).expect("made");
        let failed = groups.put(&a, page(&a, &["x"]), false, 1).await;
        assert!(matches!(failed.err(), Some(Refusal::Write(WriteError::Disk))));
        assert_eq!(groups.len(), 0, "its place is free again");
        let names = fs::read_dir(directory.path()).expect("there").flatten().map(|entry| entry.path());
        assert_eq!(names.collect::<Vec<_>>(), [groups.path(1)]);
        assert_ne!(groups.beside(&groups.path(1)), groups.beside(&groups.path(1)));
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
            assert_eq!(told.decoded.batch.series.len(), 50_001);
        }
    }
}
