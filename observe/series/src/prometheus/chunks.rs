//! The files of chunks in a block: `chunks/000001` and so on.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{file_fault, foreign};
use crate::column::{push_varint, take_varint};
use crate::error::Error;

const MAGIC: u32 = 0x85BD_40DD;
const HEADER_BYTES: u64 = 8;
/// A file is closed when it is this long, as Prometheus does.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// No chunk that anybody writes is longer.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Floats packed by XOR.
pub(super) const XOR: u8 = 1;
/// Native histograms of whole counts.
pub(super) const HISTOGRAM: u8 = 2;
/// Native histograms of any counts.
pub(super) const FLOAT_HISTOGRAM: u8 = 3;

/// Writes chunks one after the other.
pub(super) struct ChunkFiles {
    directory: PathBuf,
    number: u64,
    file: BufWriter<File>,
    offset: u64,
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:06}"))
}

fn begin(directory: &Path, number: u64) -> Result<BufWriter<File>, Error> {
    let path = path(directory, number);
    let mut file = BufWriter::new(File::create(&path).map_err(file_fault(&path))?);
    let mut header = MAGIC.to_be_bytes().to_vec();
    header.extend_from_slice(&[1, 0, 0, 0]);
    file.write_all(&header).map_err(file_fault(&path))?;
    Ok(file)
}

impl ChunkFiles {
    pub(super) fn create(block: &Path) -> Result<Self, Error> {
        let directory = block.join("chunks");
        std::fs::create_dir_all(&directory).map_err(file_fault(&directory))?;
        Ok(Self { file: begin(&directory, 1)?, directory, number: 1, offset: HEADER_BYTES })
    }

    /// Writes a chunk; returns how the index refers to it.
    pub(super) fn push(&mut self, encoding: u8, bytes: &[u8]) -> Result<u64, Error> {
        if self.offset >= FILE_BYTES_MAX {
            self.sync()?;
            self.number += 1;
            self.file = begin(&self.directory, self.number)?;
            self.offset = HEADER_BYTES;
        }
        let reference = ((self.number - 1) << 32) | self.offset;
        let mut frame = Vec::with_capacity(bytes.len() + 16);
        push_varint(&mut frame, bytes.len() as u64);
        let start = frame.len();
        frame.push(encoding);
        frame.extend_from_slice(bytes);
        let crc = crc32c::crc32c(&frame[start..]);
        frame.extend_from_slice(&crc.to_be_bytes());
        self.file.write_all(&frame).map_err(file_fault(&self.directory))?;
        self.offset += frame.len() as u64;
        Ok(reference)
    }

    pub(super) fn sync(&mut self) -> Result<(), Error> {
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(file_fault(&self.directory))
    }
}

/// Reads chunks by how the index refers to them.
pub(super) struct ChunkReader {
    directory: PathBuf,
    files: Vec<File>,
}

impl ChunkReader {
    pub(super) fn open(block: &Path) -> Result<Self, Error> {
        let directory = block.join("chunks");
        let mut files = Vec::new();
        while let Ok(file) = File::open(path(&directory, files.len() as u64 + 1)) {
            let mut magic = [0; 4];
            file.read_exact_at(&mut magic, 0).map_err(file_fault(&directory))?;
            if u32::from_be_bytes(magic) != MAGIC {
                return Err(foreign(&directory, "a file of chunks does not begin as one"));
            }
            files.push(file);
        }
        Ok(Self { directory, files })
    }

    /// Encoding and bytes of a chunk.
    pub(super) fn read(&self, reference: u64) -> Result<(u8, Vec<u8>), Error> {
        let damaged = || foreign(&self.directory, "a chunk is not whole");
        let number = usize::try_from(reference >> 32).map_err(|_| damaged())?;
        let offset = reference & 0xffff_ffff;
        let file = self.files.get(number).ok_or_else(damaged)?;
        let mut head = [0; 10];
        let taken = file.read_at(&mut head, offset).map_err(file_fault(&self.directory))?;
        let mut rest = head.get(..taken).unwrap_or_default();
        let length = take_varint(&mut rest).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| *length <= CHUNK_BYTES_MAX).ok_or_else(damaged)?;
        let start = offset + (taken - rest.len()) as u64;
        let mut frame = vec![0; length + 5];
        file.read_exact_at(&mut frame, start).map_err(|_| damaged())?;
        let (body, crc) = frame.split_at(length + 1);
        if crc32c::crc32c(body).to_be_bytes() != crc {
            return Err(damaged());
        }
        Ok((body[0], body[1..].to_vec()))
    }
}
