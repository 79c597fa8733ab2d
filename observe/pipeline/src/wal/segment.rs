//! One file of the log: writing frames, and reading them back past any damage.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const HEADER_BYTES: usize = 16;
const EXTENSION: &str = ".wal";
/// In a damaged stretch, a frame is only believed if its position is this near: a cheap test before the checksum.
const POSITIONS_AHEAD_MAX: u64 = 1 << 32;

/// A closed file.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    path: PathBuf,
    first_position: u64,
    salt: u32,
    bytes: u64,
}

/// The file that is written to.
#[derive(Debug)]
pub(super) struct Writer {
    segment: Segment,
    file: File,
    buffer: Vec<u8>,
}

/// What reading a file met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the last readable frame ends.
    pub(super) good_end: u64,
    /// Its position.
    pub(super) last_position: Option<u64>,
    /// Unreadable bytes before that.
    pub(super) damaged_bytes: u64,
    /// Unreadable bytes after that.
    pub(super) tail_bytes: u64,
    /// Whether the disk gave out the whole file.
    pub(super) is_readable: bool,
}

/// Where a file ends, after its torn end was cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) torn_bytes: u64,
    pub(super) last_position: Option<u64>,
    pub(super) is_readable: bool,
}

/// The segments of a directory, oldest first. Other files are left alone.
pub(super) fn list(directory: &Path) -> io::Result<VecDeque<Segment>> {
    let mut segments = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let file = file?;
        let Some((first_position, salt)) = file.file_name().to_str().and_then(parse_name) else { continue };
        segments.push(Segment { path: file.path(), first_position, salt, bytes: file.metadata()?.len() });
    }
    // Two files can begin at one position when the first was abandoned before it held anything; the name breaks the tie.
    segments.sort_by(|a, b| (a.first_position, &a.path).cmp(&(b.first_position, &b.path)));
    Ok(segments.into())
}

/// Makes creations and deletions in a directory survive.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn parse_name(name: &str) -> Option<(u64, u32)> {
    let (position, salt) = name.strip_suffix(EXTENSION)?.split_once('-')?;
    Some((position.parse().ok()?, u32::from_str_radix(salt, 16).ok()?))
}

fn checksum(salt: u32, length: u32, position: u64, payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(salt, &length.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &position.to_le_bytes()), payload)
}

impl Segment {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn first_position(&self) -> u64 {
        self.first_position
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads every frame, in order. A file that cannot be read at all counts as damaged whole.
    pub(super) fn scan(&self, mut visit: impl FnMut(u64, &[u8])) -> Scan {
        let mut bytes = Vec::new();
        // What was read before an error of the disk is still worth having.
        let is_readable = File::open(&self.path).and_then(|mut file| file.read_to_end(&mut bytes)).is_ok();
        let mut scan = Scan { is_readable, ..Scan::default() };
        let mut offset = 0;
        let mut is_lost = false;
        while offset < bytes.len() {
            let lowest = scan.last_position.map_or(self.first_position, |last| last + 1);
            let Some((position, payload)) = self.frame(&bytes[offset..], is_lost.then_some(lowest)) else {
                is_lost = true;
                offset += 1;
                continue;
            };
            scan.damaged_bytes += offset as u64 - scan.good_end;
            is_lost = false;
            visit(position, payload);
            offset += HEADER_BYTES + payload.len();
            scan.good_end = offset as u64;
            scan.last_position = Some(position.max(scan.last_position.unwrap_or(0)));
        }
        scan.tail_bytes = (bytes.len() as u64).max(self.bytes) - scan.good_end;
        scan
    }

    /// Cuts what follows the last readable frame.
    pub(super) fn cut_torn_end(&mut self) -> io::Result<End> {
        let scan = self.scan(|_, _| {});
        if scan.tail_bytes > 0 && scan.is_readable {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            file.set_len(scan.good_end)?;
            file.sync_all()?;
            self.bytes = scan.good_end;
        }
        Ok(End {
            torn_bytes: scan.tail_bytes,
            last_position: scan.last_position,
            is_readable: scan.is_readable,
        })
    }

    /// Deletes a file that holds nothing; one that the disk does not give out is set aside for a person to look at.
    pub(super) fn remove(&self, is_readable: bool) -> io::Result<()> {
        if is_readable {
            return std::fs::remove_file(&self.path);
        }
        std::fs::rename(&self.path, self.path.with_extension("unreadable"))
    }

    /// The frame at the start of `bytes`. In a damaged stretch its position must also be plausible.
    fn frame<'a>(&self, bytes: &'a [u8], lowest: Option<u64>) -> Option<(u64, &'a [u8])> {
        let header = bytes.get(..HEADER_BYTES)?;
        let length = u32::from_le_bytes(header[..4].try_into().ok()?);
        let crc = u32::from_le_bytes(header[4..8].try_into().ok()?);
        let position = u64::from_le_bytes(header[8..].try_into().ok()?);
        let is_plausible =
            lowest.is_none_or(|lowest| position >= lowest && position - lowest < POSITIONS_AHEAD_MAX);
        if !is_plausible {
            return None;
        }
        let payload = bytes[HEADER_BYTES..].get(..usize::try_from(length).ok()?)?;
        (checksum(self.salt, length, position, payload) == crc).then_some((position, payload))
    }
}

impl Writer {
    /// Creates a file whose first frame will have this position.
    pub(super) fn create(directory: &Path, first_position: u64) -> io::Result<Self> {
        let salt: u32 = rand::random();
        let path = directory.join(format!("{first_position:020}-{salt:08x}{EXTENSION}"));
        let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        sync_directory(directory)?;
        Ok(Self { segment: Segment { path, first_position, salt, bytes: 0 }, file, buffer: Vec::new() })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segment.bytes
    }

    pub(super) fn first_position(&self) -> u64 {
        self.segment.first_position
    }

    /// Adds a frame to the batch, whose payload comes in two pieces. Its length fits: the log's limit on entries is far
    /// below.
    pub(super) fn push(&mut self, position: u64, payload: [&[u8]; 2]) {
        let [first, rest] = payload;
        let length = u32::try_from(first.len() + rest.len()).unwrap_or(u32::MAX);
        let crc = crc32c::crc32c_append(checksum(self.segment.salt, length, position, first), rest);
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(&position.to_le_bytes());
        self.buffer.extend_from_slice(first);
        self.buffer.extend_from_slice(rest);
    }

    /// Writes the batch and fsyncs it. Returns its bytes.
    pub(super) fn commit(&mut self) -> io::Result<u64> {
        if self.buffer.is_empty() {
            return Ok(0);
        }
        self.file.write_all(&self.buffer)?;
        self.file.sync_data()?;
        let bytes = self.buffer.len() as u64;
        self.segment.bytes += bytes;
        self.buffer.clear();
        Ok(bytes)
    }

    pub(super) fn seal(self) -> Segment {
        self.segment
    }

    /// Closes the file after a failed commit: cut to what was fsynced, or deleted when that is nothing.
    pub(super) fn abandon(self) -> Option<Segment> {
        // Both are attempts: where the disk refuses them too, the next start cuts or skips what is torn.
        let _cut = self.file.set_len(self.segment.bytes).and_then(|()| self.file.sync_data());
        if self.segment.bytes == 0 {
            let _removed = std::fs::remove_file(&self.segment.path);
            return None;
        }
        Some(self.segment)
    }
}
