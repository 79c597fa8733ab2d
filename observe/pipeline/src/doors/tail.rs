//! Files of this machine, followed from where they were read to last.
//!
//! A file is known by its inode, so that it is the same after it was renamed; a new file at its path is read from the
//! start. What was read is written down when it is durable: after a crash some lines may come twice, none is left out.
//! Only the very first start passes over what the files hold already; what comes or is rotated while we are down is read.
//! Files are looked at a few times a second, which works on every file system; what is written meanwhile waits in them.

mod checkpoint;
mod lines;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use belfry_signal::{Record, Severity, Value};
use jiff::tz::TimeZone;
use tokio::sync::watch;

use self::checkpoint::{Checkpoint, FileId};
use self::lines::{Cut, cut};
use super::config::{DoorsConfig, FileConfig, FileFormat};
use super::flow::FRAME_BYTES_MAX;
use super::intake::{Intake, Origin};
use super::listen::stopped;
use super::refusal::{Reason, Refusal};
use super::shape::{ForeignLog, Shaper, flatten, log_of_fields, text};
use super::signals::Entrance;
use super::syslog;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(250);
/// Looks at the files between two looks for new ones.
const LOOKS_PER_SEARCH: u32 = 4;
/// Bytes that are read of one file at a time.
const READ_BYTES: usize = 256 << 10;
/// Files that are followed at once.
const FILES_MAX: usize = 1000;
/// Looks after which a file that is gone from its path, and does not grow, is let go of.
const QUIET_LOOKS_MAX: u32 = 8;

/// One open file.
struct Followed {
    file: File,
    id: FileId,
    /// Of which entry of the configuration it is.
    config: usize,
    offset: u64,
    /// Whether the line at `offset` is passed over because it is too long.
    is_passing: bool,
    /// Whether it is still found at its path.
    is_named: bool,
    quiet_looks: u32,
}

impl Followed {
    fn new((file, id): (File, FileId), config: usize, offset: u64, is_named: bool) -> Self {
        Self { file, id, config, offset, is_passing: false, is_named, quiet_looks: 0 }
    }
}

/// All files, and how far each was read.
struct Follower {
    config: DoorsConfig,
    intake: Intake,
    checkpoint: Checkpoint,
    files: Vec<Followed>,
    has_failed: bool,
    is_first_search: bool,
}

/// Follows the files of the configuration until told to stop.
pub(super) async fn follow(config: DoorsConfig, intake: Intake, mut stop: watch::Receiver<bool>) {
    let directory = config.files_directory.clone();
    let Ok(checkpoint) = blocking(move || Checkpoint::open(&directory)).await else { return };
    let mut follower =
        Follower { config, intake, checkpoint, files: Vec::new(), has_failed: false, is_first_search: true };
    let mut looks = 0_u32;
    follower.search_rotated();
    loop {
        if looks.is_multiple_of(LOOKS_PER_SEARCH) {
            follower.search();
        }
        if follower.is_first_search {
            // From now on what is new is read from its start, whether or not we get to read anything.
            follower.is_first_search = false;
            follower.write_down().await;
        }
        looks = looks.wrapping_add(1);
        let has_more = follower.look(&mut stop).await;
        let pause = if has_more { Duration::ZERO } else { LOOK };
        if tokio::time::timeout(pause, stopped(&mut stop)).await.is_ok() {
            return;
        }
    }
}

/// Runs what blocks where that is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}

impl Follower {
    /// Looks for files that are new at their paths.
    fn search(&mut self) {
        self.files.iter_mut().for_each(|file| file.is_named = false);
        for (config, wanted) in self.config.files.iter().enumerate() {
            for path in matching(&wanted.path) {
                let Ok(metadata) = std::fs::metadata(&path) else { continue };
                if !metadata.is_file() {
                    continue;
                }
                let id = FileId { device: metadata.dev(), inode: metadata.ino() };
                if let Some(known) = self.files.iter_mut().find(|file| file.id == id) {
                    known.is_named = true;
                    continue;
                }
                if self.files.len() >= FILES_MAX {
                    continue;
                }
                let Ok(file) = File::open(&path) else { continue };
                // What was there before we ever looked is old, unless it is asked for.
                let is_old = self.is_first_search && self.checkpoint.is_first() && !wanted.from_start;
                let fresh = if is_old { metadata.len() } else { 0 };
                let offset =
                    self.checkpoint.offset(id).filter(|offset| *offset <= metadata.len()).unwrap_or(fresh);
                self.checkpoint.set(id, offset);
                self.files.push(Followed::new((file, id), config, offset, true));
            }
        }
    }

    /// Files that were followed before we went down and have another name now: what was written to them meanwhile is
    /// read before what their successors hold.
    fn search_rotated(&mut self) {
        for (config, wanted) in self.config.files.iter().enumerate() {
            let entries = wanted.path.parent().and_then(|folder| std::fs::read_dir(folder).ok());
            for path in entries.into_iter().flatten().flatten().map(|entry| entry.path()) {
                let Ok(metadata) = std::fs::metadata(&path) else { continue };
                let id = FileId { device: metadata.dev(), inode: metadata.ino() };
                let offset = self.checkpoint.offset(id).filter(|offset| *offset < metadata.len());
                let is_known = self.files.iter().any(|file| file.id == id);
                let Some(offset) = offset.filter(|_| metadata.is_file() && !is_known) else { continue };
                if self.files.len() < FILES_MAX
                    && let Ok(file) = File::open(&path)
                {
                    self.files.push(Followed::new((file, id), config, offset, false));
                }
            }
        }
    }

    /// Reads on in every file. Whether one of them may have more at once.
    async fn look(&mut self, stop: &mut watch::Receiver<bool>) -> bool {
        let (mut has_more, mut has_read, mut lag) = (false, false, 0);
        for index in 0..self.files.len() {
            let before = self.files[index].offset;
            has_more |= self.read_on(index, stop).await;
            let file = &mut self.files[index];
            if file.offset == before {
                file.quiet_looks += 1;
            } else {
                (has_read, file.quiet_looks) = (true, 0);
            }
            lag += file.file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(file.offset));
        }
        self.intake.signals().file_lag(lag);
        self.files.retain(|file| file.is_named || file.quiet_looks <= QUIET_LOOKS_MAX);
        if has_read {
            self.write_down().await;
        }
        has_more
    }

    /// Reads one piece of one file and stores it.
    async fn read_on(&mut self, index: usize, stop: &mut watch::Receiver<bool>) -> bool {
        let followed = &mut self.files[index];
        let Ok(length) = followed.file.metadata().map(|metadata| metadata.len()) else { return false };
        if length < followed.offset {
            // It was cut: what is in it now is new.
            (followed.offset, followed.is_passing) = (0, false);
        }
        if length == followed.offset {
            return false;
        }
        let (offset, is_passing) = (followed.offset, followed.is_passing);
        let Ok(file) = followed.file.try_clone() else { return false };
        let Ok(Ok(bytes)) = blocking(move || read_at(&file, offset, is_passing)).await else { return false };
        // A file that is gone from its path ends where it ends, also within a line.
        let is_end = !followed.is_named && followed.quiet_looks >= QUIET_LOOKS_MAX / 2;
        let Cut { lines, taken, is_passing, too_long } = cut(&bytes, is_passing, is_end);
        let origin = Origin { door: Entrance::File, sender: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        if let Some(line) = too_long {
            let refusal =
                Refusal::new(Reason::TooLong, format!("a line of more than {FRAME_BYTES_MAX} bytes"));
            self.intake.refused(&origin, &refusal, 1, &bytes[line]);
        }
        let wanted = &self.config.files[followed.config];
        let mut shaper = self.intake.shaper(Entrance::File);
        let mut records = Vec::with_capacity(lines.len());
        for line in lines.into_iter().map(|line| &bytes[line]) {
            match read_line(line, wanted, &mut shaper) {
                Ok(record) => records.push(record),
                Err(refusal) => self.intake.refused(&origin, &refusal, 1, line),
            }
        }
        self.intake.note_changes(Entrance::File, &shaper);
        self.intake.received(&origin, taken);
        match self.intake.store_patiently(&origin, records, stop).await {
            // We stop: it is read again at the next start.
            Err(refusal) if refusal.is_passing() => return false,
            Ok(()) | Err(_) => {}
        }
        let followed = &mut self.files[index];
        followed.offset += taken as u64;
        followed.is_passing = is_passing;
        self.checkpoint.set(followed.id, followed.offset);
        taken > 0 && followed.offset < length
    }

    async fn write_down(&mut self) {
        let open: HashMap<FileId, ()> = self.files.iter().map(|file| (file.id, ())).collect();
        self.checkpoint.keep_only(|id| open.contains_key(&id));
        let checkpoint = self.checkpoint.clone();
        let written =
            blocking(move || checkpoint.write()).await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        if let (Err(error), false) = (&written, self.has_failed) {
            self.intake.signals().checkpoint_failed(error);
        }
        self.has_failed = written.is_err();
    }
}

/// A piece of a file: more of it when a line may be long.
fn read_at(file: &File, offset: u64, is_passing: bool) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; READ_BYTES];
    let mut count = file.read_at(&mut bytes, offset)?;
    if !is_passing && count == READ_BYTES && memchr::memchr(b'\n', &bytes).is_none() {
        bytes.resize(FRAME_BYTES_MAX + 1, 0);
        count += file.read_at(&mut bytes[READ_BYTES..], offset + READ_BYTES as u64)?;
    }
    bytes.truncate(count);
    Ok(bytes)
}

fn read_line(line: &[u8], config: &FileConfig, shaper: &mut Shaper<'_>) -> Result<Record, Refusal> {
    let service = || ("service.name".to_owned(), text(config.service.clone()));
    let plain = |message: String, attributes: Vec<(String, Value)>| ForeignLog {
        unix_nanos: None,
        severity: Severity::Info,
        message,
        attributes,
        context: None,
    };
    match config.format {
        FileFormat::Syslog => syslog::parse(line, None, &TimeZone::system(), shaper),
        FileFormat::Text => {
            let message = shaper.text(line).into_owned();
            Ok(shaper.log(plain(message, vec![service()])))
        }
        FileFormat::Json => {
            let fields: serde_json::Map<_, _> = serde_json::from_slice(line)
                .map_err(|error| Refusal::malformed(format!("the line is not a JSON object: {error}")))?;
            let mut flat = Vec::new();
            flatten("", serde_json::Value::Object(fields), 0, &mut flat);
            let mut log = log_of_fields(flat, || String::from_utf8_lossy(line).into_owned());
            if !log.attributes.iter().any(|(name, _)| name == "service.name") {
                log.attributes.push(service());
            }
            Ok(shaper.log(log))
        }
    }
}

/// The files of a path whose last part may have stars.
fn matching(path: &Path) -> Vec<PathBuf> {
    let pattern = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !pattern.contains('*') {
        return vec![path.to_owned()];
    }
    let Some(entries) = path.parent().and_then(|folder| std::fs::read_dir(folder).ok()) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| fits(pattern, name)))
        .map(|entry| entry.path())
        .take(FILES_MAX)
        .collect();
    found.sort();
    found
}

/// Whether a name is of a pattern in which a star stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, expected) in [
            ("*.log", "a.log", true),
            ("*.log", "a.log.1", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "ac", false),
            ("*", "", true),
            ("app-*.log", "app-.log", true),
            ("x", "x", true),
            ("x", "xy", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
