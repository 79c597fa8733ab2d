//! One file of the log: appending to it, and reading it back past any damage.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::frame::{self, Front};

const PREFIX: &str = "books-";
const SUFFIX: &str = ".log";
/// Bytes read from the disk at once.
const READ_BYTES: usize = 256 * 1024;

/// A file of the log. Its name holds its number and the seed of its checksums, so that there is no header to damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) number: u64,
    pub(super) salt: u32,
    pub(super) bytes: u64,
}

/// The file that is appended to.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) segment: Segment,
    file: Arc<File>,
    /// How much of it is on the platter.
    pub(super) synced_bytes: u64,
}

/// Reads the frames of a file one after another.
#[derive(Debug)]
pub(super) struct Scanner {
    file: File,
    salt: u32,
    /// Bytes of the file that were read and not yet taken, from `start`.
    buffer: Vec<u8>,
    start: usize,
    /// Where in the file `buffer[start]` stands.
    position: u64,
    /// Nothing is read past this.
    end: u64,
    /// Bytes between frames that are no frame.
    pub(super) damaged_bytes: u64,
    /// Bytes passed over since the last frame.
    skipped: u64,
}

/// The files of a folder, oldest first. Other files are left alone.
pub(super) fn list(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for file in fs::read_dir(directory)? {
        let file = file?;
        if let Some((number, salt)) = file.file_name().to_str().and_then(parse_name) {
            segments.push(Segment { path: file.path(), number, salt, bytes: file.metadata()?.len() });
        }
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}

fn parse_name(name: &str) -> Option<(u64, u32)> {
    let (number, salt) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('-')?;
    Some((number.parse().ok()?, u32::from_str_radix(salt, 16).ok()?))
}

impl Writer {
    /// Makes an empty file.
    pub(super) fn create(directory: &Path, number: u64) -> io::Result<Self> {
        #[expect(clippy::cast_possible_truncation, reason = "half of a random number is one too")]
        let salt = RandomState::new().hash_one(number) as u32;
        let path = directory.join(format!("{PREFIX}{number:012}-{salt:08x}{SUFFIX}"));
        let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        File::open(directory)?.sync_all()?;
        Ok(Self { segment: Segment { path, number, salt, bytes: 0 }, file: Arc::new(file), synced_bytes: 0 })
    }

    /// Hands bytes to the kernel: they survive the process.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&*self.file).write_all(bytes)?;
        self.segment.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Brings what was written to the platter: it survives the machine.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.synced_bytes < self.segment.bytes {
            self.file.sync_data()?;
            self.synced_bytes = self.segment.bytes;
        }
        Ok(())
    }

    /// Cuts what was not written whole, and brings the rest to the platter.
    pub(super) fn cut_and_sync(&mut self) -> io::Result<()> {
        self.file.set_len(self.segment.bytes)?;
        self.sync()
    }

    /// A second handle on the file, to bring it to the platter beside further writing.
    pub(super) fn handle(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// A sync through such a handle went well when so much had been written.
    pub(super) fn synced(&mut self, bytes: u64) {
        self.synced_bytes = self.synced_bytes.max(bytes);
    }

    /// Closes a file whose write or fsync failed: what was synced stays, the rest is cut if the disk allows. The
    /// page cache cannot be believed any more, so nothing is appended to it.
    pub(super) fn abandon(mut self) -> Segment {
        if self.file.set_len(self.synced_bytes).is_ok() {
            self.segment.bytes = self.synced_bytes;
        }
        self.segment
    }
}

impl Scanner {
    /// Reads from an offset at which a frame begins, up to `end` or the end of the file.
    pub(super) fn open(segment: &Segment, offset: u64, end: u64) -> io::Result<Self> {
        let mut file = File::open(&segment.path)?;
        let end = end.min(file.metadata()?.len());
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self {
            file,
            salt: segment.salt,
            buffer: Vec::new(),
            start: 0,
            position: offset,
            end,
            damaged_bytes: 0,
            skipped: 0,
        })
    }

    /// Where the next frame begins.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The bytes of the next whole frame; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let length = loop {
            let rest = self.buffer.get(self.start..).unwrap_or_default();
            let is_partial = match frame::front(self.salt, rest) {
                Front::Whole(frame) => break frame.len(),
                Front::Partial => true,
                Front::Damaged => false,
            };
            if is_partial && self.refill()? {
                continue;
            }
            // At the end of the file, what may have become a frame never will.
            if self.start >= self.buffer.len() {
                return Ok(None);
            }
            self.skip();
        };
        self.damaged_bytes += std::mem::take(&mut self.skipped);
        let from = self.start + frame::HEADER_BYTES;
        self.start = from + length;
        self.position += (frame::HEADER_BYTES + length) as u64;
        Ok(self.buffer.get(from..from + length))
    }

    fn skip(&mut self) {
        self.start += 1;
        self.position += 1;
        self.skipped += 1;
    }

    /// Reads more; whether there was more.
    fn refill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let held = self.buffer.len();
        let left = self.end.saturating_sub(self.position + held as u64);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES);
        if wanted == 0 {
            return Ok(false);
        }
        self.buffer.resize(held + wanted, 0);
        let target = self.buffer.get_mut(held..).unwrap_or_default();
        match self.file.read(target) {
            Ok(read) => {
                self.buffer.truncate(held + read);
                Ok(read > 0)
            }
            Err(error) => {
                self.buffer.truncate(held);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frames: &[&[u8]]) -> (tempfile::TempDir, Segment) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Writer::create(folder.path(), 1).expect("a file");
        for frame in frames {
            let mut bytes = Vec::new();
            frame::push(writer.segment.salt, frame, &mut bytes).expect("short");
            writer.write(&bytes).expect("written");
        }
        writer.sync().expect("synced");
        let segments = list(folder.path()).expect("listed");
        assert_eq!(segments, [writer.segment]);
        let segment = segments.into_iter().next().expect("one");
        (folder, segment)
    }

    fn read(segment: &Segment, offset: u64) -> (Vec<Vec<u8>>, u64) {
        let mut scanner = Scanner::open(segment, offset, u64::MAX).expect("readable");
        let mut frames = Vec::new();
        while let Some(frame) = scanner.next().expect("readable") {
            frames.push(frame.to_vec());
        }
        (frames, scanner.damaged_bytes)
    }

    #[test]
    fn damage_costs_the_damaged_frames_and_nothing_else() {
        let long = vec![b'x'; 3 * READ_BYTES];
        let frames: [&[u8]; 4] = [b"first", &long, b"third", b"fourth"];
        let (_folder, segment) = written(&frames);
        assert_eq!(read(&segment, 0), (frames.map(<[u8]>::to_vec).to_vec(), 0));
        assert_eq!(read(&segment, 13).0.len(), 3, "from the second on");
        let whole = fs::read(&segment.path).expect("read");
        for (at, lost) in [(0, 0), (9, 0), (13, 1), (100, 1), (whole.len() - 20, 2)] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            fs::write(&segment.path, &damaged).expect("written");
            let (found, damaged_bytes) = read(&segment, 0);
            let kept: Vec<&[u8]> = (0..4).filter(|index| *index != lost).map(|index| frames[index]).collect();
            assert_eq!(found, kept, "byte {at}");
            assert_eq!(damaged_bytes, (frames[lost].len() + 8) as u64, "byte {at}");
        }
        fs::write(&segment.path, &whole[..whole.len() - 1]).expect("written");
        assert_eq!(read(&segment, 0), (frames[..3].iter().map(|f| f.to_vec()).collect(), 0), "a torn end");
    }
}
