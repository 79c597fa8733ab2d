//! A split as one file: blocks, then the files of the index, then a footer that says what lies where.
//!
//! ```text
//! block block … | index file … | footer | footer length (4) | footer checksum (4) | magic (8)
//! ```
//!
//! The footer says all that the catalogue says of the split, so a catalogue that is lost can be made again. Everything
//! has a checksum: each block its own, the index files one together, the footer its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tantivy::directory::error::{DeleteError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    Directory, FileHandle, FileSlice, RamDirectory, WatchCallback, WatchHandle, WritePtr,
};
use tantivy::{HasLen, Index};

use crate::blocks::BlockRow;
use crate::catalogue::SplitRow;
use crate::schema::FORMAT;

const MAGIC: &[u8; 8] = b"belfryE2";
const TRAILER_BYTES: u64 = 16;
/// A longer footer is not one of ours.
const FOOTER_BYTES_MAX: u64 = 1 << 30;

/// What the end of the file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Footer {
    format: String,
    pub(crate) row: SplitRow,
    pub(crate) blocks: Vec<BlockRow>,
    /// Name, offset and length of each file of the index.
    files: Vec<(String, u64, u64)>,
    index_crc: u32,
}

/// Writes a file that counts once it has its name.
pub(crate) struct BundleWriter {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    offset: u64,
}

/// The part of a split's file that the index library reads.
#[derive(Clone, Debug)]
struct IndexFiles {
    files: Arc<HashMap<PathBuf, FileSlice>>,
}

impl BundleWriter {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let partial = path.with_extension("partial");
        let file = BufWriter::with_capacity(256 << 10, File::create(&partial)?);
        Ok(Self { path: path.to_owned(), partial, file, offset: 0 })
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Copies a stretch of another file.
    pub(crate) fn copy(&mut self, from: &File, range: Range<u64>) -> io::Result<()> {
        let length = range.end - range.start;
        let mut source = from;
        source.seek(SeekFrom::Start(range.start))?;
        let copied = io::copy(&mut source.take(length), &mut self.file)?;
        self.offset += copied;
        if copied < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Adds the index and the footer, and makes the file durable under its name. The row is then complete.
    pub(crate) fn finish(
        mut self,
        index: &Index,
        directory: &RamDirectory,
        blocks: Vec<BlockRow>,
        mut row: SplitRow,
    ) -> io::Result<SplitRow> {
        let mut files = Vec::new();
        let mut index_crc = 0;
        let metas = index.load_metas().map_err(io::Error::other)?;
        let names = metas.list_segment_files().into_iter().chain([PathBuf::from("meta.json")]);
        for name in names {
            // The list names files that a segment may have.
            let bytes = match directory.open_read(&name) {
                Ok(file) => file.read_bytes()?,
                Err(OpenReadError::FileDoesNotExist(_)) => continue,
                Err(error) => return Err(io::Error::other(error)),
            };
            files.push((name.to_string_lossy().into_owned(), self.offset, bytes.len() as u64));
            index_crc = crc32c::crc32c_append(index_crc, &bytes);
            self.write(&bytes)?;
        }
        // The length of the footer depends on the number that says the length of the file.
        row.bytes = 0;
        let mut footer = Footer { format: FORMAT.to_owned(), row, blocks, files, index_crc };
        let bytes = postcard::to_allocvec(&footer).map_err(io::Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.write(&bytes)?;
        self.write(&length.to_le_bytes())?;
        self.write(&crc32c::crc32c(&bytes).to_le_bytes())?;
        self.write(MAGIC)?;
        footer.row.bytes = self.offset;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(footer.row)
    }
}

/// Reads the footer; an error of kind `InvalidData` says what is wrong with the file.
pub(crate) fn read_footer(file: &File) -> io::Result<Footer> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let length = file.metadata()?.len();
    let Some(trailer_at) = length.checked_sub(TRAILER_BYTES) else {
        return Err(bad("the file is too short"));
    };
    let mut trailer = [0; 16];
    file.read_exact_at(&mut trailer, trailer_at)?;
    let [a, b, c, d, e, f, g, h, magic @ ..] = trailer;
    if &magic != MAGIC {
        return Err(bad("the end of the file is missing"));
    }
    let footer_length = u64::from(u32::from_le_bytes([a, b, c, d]));
    let Some(footer_at) = trailer_at.checked_sub(footer_length).filter(|_| footer_length <= FOOTER_BYTES_MAX)
    else {
        return Err(bad("the footer is longer than the file"));
    };
    let mut bytes = vec![0; usize::try_from(footer_length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, footer_at)?;
    if crc32c::crc32c(&bytes) != u32::from_le_bytes([e, f, g, h]) {
        return Err(bad("the checksum of the footer is wrong"));
    }
    let mut footer: Footer =
        postcard::from_bytes(&bytes).map_err(|error| bad(&format!("the footer cannot be read: {error}")))?;
    if footer.format != FORMAT {
        return Err(bad(&format!("the format is {:?} and this version reads {FORMAT:?}", footer.format)));
    }
    let fits = |offset: u64, bytes: u64| offset.checked_add(bytes).is_some_and(|end| end <= footer_at);
    let is_whole = footer.blocks.iter().all(|block| fits(block.offset, block.bytes.into()))
        && footer.files.iter().all(|(_, offset, bytes)| fits(*offset, *bytes));
    if !is_whole {
        return Err(bad("the footer speaks of more than there is"));
    }
    footer.row.bytes = length;
    Ok(footer)
}

/// Opens the index in the file, after its checksum was compared.
pub(crate) fn open_index(path: &Path, footer: &Footer) -> Result<Index, tantivy::TantivyError> {
    let whole = FileSlice::open(path)?;
    let mut files = HashMap::new();
    let mut crc = 0;
    for (name, offset, bytes) in &footer.files {
        let from = usize::try_from(*offset).map_err(io::Error::other)?;
        let to = from + usize::try_from(*bytes).map_err(io::Error::other)?;
        let slice = whole.slice(from..to);
        crc = crc32c::crc32c_append(crc, &slice.read_bytes()?);
        files.insert(PathBuf::from(name), slice);
    }
    if crc != footer.index_crc {
        let message = "the checksum of the index is wrong";
        return Err(io::Error::new(io::ErrorKind::InvalidData, message).into());
    }
    let mut index = Index::open(IndexFiles { files: Arc::new(files) })?;
    index.set_tokenizers(crate::schema::tokenizers());
    Ok(index)
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a split is never changed")
}

impl Directory for IndexFiles {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        Ok(Arc::new(self.open_read(path)?))
    }

    fn open_read(&self, path: &Path) -> Result<FileSlice, OpenReadError> {
        let found = self.files.get(path).cloned();
        found.ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        Err(DeleteError::IoError { io_error: Arc::new(read_only()), filepath: path.to_owned() })
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        Ok(self.files.contains_key(path))
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        Err(OpenWriteError::IoError { io_error: Arc::new(read_only()), filepath: path.to_owned() })
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        let slice = self.open_read(path)?;
        debug_assert!(slice.len() > 0, "no file of an index is empty");
        let failed = |error| OpenReadError::wrap_io_error(error, path.to_owned());
        Ok(slice.read_bytes().map_err(failed)?.to_vec())
    }

    fn atomic_write(&self, _path: &Path, _bytes: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn watch(&self, _callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}
