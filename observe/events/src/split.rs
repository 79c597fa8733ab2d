//! One immutable split: a file of packed blocks of records, with an index that says which block can hold a hit.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use memchr::memmem::Finder;
use tantivy::directory::RamDirectory;
use tantivy::query::EnableScoring;
use tantivy::{DocSet, Index, SegmentReader, TERMINATED, TantivyError};

use belfry_signal::Record;

use crate::assembly::Assembly;
use crate::blocks::{BLOCK_BYTES, BlockRow, Stub, in_order, place_of, unpack};
use crate::bundle::{BundleWriter, Footer, open_index, read_footer};
use crate::catalogue::SplitRow;
use crate::config::Config;
use crate::error::Error;
use crate::filter::Filter;
use crate::query::Expr;
use crate::query::compile::compile;
use crate::query::evaluate::matches_record;
use crate::query::prune;
use crate::schema::{BLOCK, Fields};

/// A split that the catalogue names.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) row: SplitRow,
    pub(crate) path: PathBuf,
    is_damaged: AtomicBool,
    is_condemned: AtomicBool,
}

/// The file goes with the last reader.
impl Drop for Split {
    fn drop(&mut self) {
        if self.is_condemned.load(Ordering::Relaxed) {
            // What cannot be deleted now is an orphan, and goes at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// From when (included) to when (excluded), in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeRange {
    pub(crate) from_nanos: u64,
    pub(crate) to_nanos: u64,
}

/// A record that was found, with the numbers by which results are ordered.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub(crate) unix_nanos: u64,
    pub(crate) sequence: u64,
    pub(crate) record: Arc<Record>,
}

/// An opened split.
pub(crate) struct OpenSplit {
    split: u64,
    file: File,
    segment: SegmentReader,
    blocks: Vec<BlockRow>,
}

/// Opened splits, at most so many: the ones used last stay.
pub(crate) struct OpenSplits {
    open: Mutex<HashMap<u64, (Arc<OpenSplit>, u64)>>,
    uses: AtomicU64,
    max: usize,
}

impl TimeRange {
    pub(crate) const ALL: Self = Self { from_nanos: 0, to_nanos: u64::MAX };

    pub(crate) fn holds(&self, unix_nanos: u64) -> bool {
        // The end of time is included when nobody set an end.
        unix_nanos >= self.from_nanos && (unix_nanos < self.to_nanos || self.to_nanos == u64::MAX)
    }

    /// Whether something between the two times, both included, may be in the range.
    pub(crate) fn meets(&self, from_nanos: u64, to_nanos: u64) -> bool {
        to_nanos >= self.from_nanos && (from_nanos < self.to_nanos || self.to_nanos == u64::MAX)
    }
}

impl Split {
    pub(crate) fn new(row: SplitRow, path: PathBuf) -> Self {
        Self { row, path, is_damaged: AtomicBool::new(false), is_condemned: AtomicBool::new(false) }
    }

    /// Has the file deleted when nobody reads it any more.
    pub(crate) fn condemn(&self) {
        self.is_condemned.store(true, Ordering::Release);
    }

    /// Builds a split from records, with their numbers, and makes it durable; it counts once the catalogue names it.
    /// `row` says what only the caller knows; what the records say is filled in.
    pub(crate) fn build<'a>(
        path: PathBuf,
        row: SplitRow,
        records: impl Iterator<Item = (u64, &'a Arc<Record>)>,
        config: &Config,
        fields: &Fields,
    ) -> Result<Self, Error> {
        let mut assembly = Assembly::begin(&path, row, config, fields)?;
        for (sequence, record) in in_order(records, |(_, record)| place_of(record)) {
            assembly.push(sequence, record)?;
        }
        Ok(Self::new(assembly.finish()?, path))
    }

    /// As [`build`](Self::build), from records of live batches, which are taken out one after the other.
    pub(crate) fn build_packed<'a>(
        path: PathBuf,
        row: SplitRow,
        records: impl Iterator<Item = (&'a Stub, &'a [u8])>,
        config: &Config,
        fields: &Fields,
    ) -> Result<Self, Error> {
        let mut assembly = Assembly::begin(&path, row, config, fields)?;
        for (stub, bytes) in in_order(records, |(stub, _)| stub.place) {
            assembly.push_packed(stub, bytes)?;
        }
        Ok(Self::new(assembly.finish()?, path))
    }

    /// Merges splits into one: blocks are copied as they are, indexes merged. Where blocks are small, as when little
    /// happens, the records are taken out and packed together anew.
    pub(crate) fn merge(
        id: u64,
        path: PathBuf,
        parts: &[Arc<Self>],
        config: &Config,
        fields: &Fields,
    ) -> Result<Self, Error> {
        let row = SplitRow::of_parts(id, parts.iter().map(|part| &part.row));
        let footers = parts.iter().map(|part| part.footer()).collect::<Result<Vec<_>, _>>()?;
        let blocks = footers.iter().flat_map(|(_, footer)| &footer.blocks);
        let raw_bytes: u64 = blocks.clone().map(|block| u64::from(block.raw_bytes)).sum();
        let is_scattered = raw_bytes / (blocks.count() as u64).max(1) < BLOCK_BYTES as u64 / 4;
        if is_scattered && raw_bytes <= config.seal_bytes_max as u64 {
            return Self::pack_anew(path, row, parts, config, fields);
        }
        let mut indices = Vec::with_capacity(parts.len());
        for (part, (_, footer)) in parts.iter().zip(&footers) {
            indices.push(open_index(&part.path, footer).map_err(|error| part.unreadable(error))?);
        }
        let directory = RamDirectory::create();
        let index = tantivy::indexer::merge_indices(&indices, directory.clone())?;
        let disk = |source| Error::disk("write", &path, source);
        let mut bundle = BundleWriter::create(&path).map_err(disk)?;
        let mut blocks = Vec::new();
        for (file, footer) in &footers {
            let shift = bundle.offset();
            let end = footer.blocks.last().map_or(0, |block| block.offset + u64::from(block.bytes));
            bundle.copy(file, 0..end).map_err(disk)?;
            blocks.extend(
                footer.blocks.iter().map(|block| BlockRow { offset: block.offset + shift, ..block.clone() }),
            );
        }
        check_order(id, &index, &blocks)?;
        let row = SplitRow { filter: Filter::of(&keys_of(&index, fields)?, config.filter_bytes_max), ..row };
        let row = bundle.finish(&index, &directory, blocks, row).map_err(disk)?;
        Ok(Self::new(row, path))
    }

    /// A new split of all records of the parts, which fit into memory.
    fn pack_anew(
        path: PathBuf,
        row: SplitRow,
        parts: &[Arc<Self>],
        config: &Config,
        fields: &Fields,
    ) -> Result<Self, Error> {
        let mut records: Vec<(u64, Arc<Record>)> = Vec::new();
        for part in parts {
            part.each_record(|sequence, record| {
                records.push((sequence, Arc::new(record)));
                Ok(())
            })?;
        }
        records.sort_unstable_by_key(|(sequence, _)| *sequence);
        let records = records.iter().map(|(sequence, record)| (*sequence, record));
        Self::build(path, row, records, config, fields)
    }

    /// A new split of those records of this one that are wanted, in the order in which they lie.
    pub(crate) fn filtered(
        &self,
        path: PathBuf,
        row: SplitRow,
        config: &Config,
        fields: &Fields,
        is_wanted: impl Fn(&Record) -> bool,
    ) -> Result<Self, Error> {
        let mut assembly = Assembly::begin(&path, row, config, fields)?;
        self.each_record(
            |sequence, record| {
                if is_wanted(&record) { assembly.push(sequence, &record) } else { Ok(()) }
            },
        )?;
        Ok(Self::new(assembly.finish()?, path))
    }

    /// Every record, in the order in which they lie.
    pub(crate) fn each_record(
        &self,
        mut visit: impl FnMut(u64, Record) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (file, footer) = self.footer()?;
        for block in &footer.blocks {
            let mut visited = Ok(());
            read_block(self.row.id, &file, block, None, &mut |sequence, record| {
                if visited.is_ok() {
                    visited = visit(sequence, record);
                }
            })?;
            visited?;
        }
        Ok(())
    }

    /// Every record that meets the condition, whatever its time and however many there are.
    pub(crate) fn each_match(
        &self,
        open: &OpenSplits,
        fields: &Fields,
        expr: &Expr,
        text_bytes_max: usize,
        mut visit: impl FnMut(Record),
    ) -> Result<(), Error> {
        let opened = open.get(self)?;
        for block in opened.candidates(expr, fields)? {
            read_block(self.row.id, &opened.file, block, None, &mut |_, record| {
                if matches_record(expr, &record, text_bytes_max) {
                    visit(record);
                }
            })?;
        }
        Ok(())
    }

    /// Whether the split may hold what is looked for: in time, by call or trace, by stream and by component.
    pub(crate) fn may_hold(&self, range: &TimeRange, key: Option<u64>, expr: &Expr) -> bool {
        range.meets(self.row.from_nanos, self.row.to_nanos)
            && key.is_none_or(|key| self.row.filter.may_hold(key))
            && prune::may_be_in(expr, &self.row)
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// Marks the split as damaged and says whether it was not before.
    pub(crate) fn mark_damaged(&self) -> bool {
        !self.is_damaged.swap(true, Ordering::Relaxed)
    }

    /// Compares the file's length with the catalogue: cheap, and enough to notice a torn or missing file.
    pub(crate) fn check_length(&self) -> Result<(), Error> {
        let found = fs::metadata(&self.path).map(|metadata| metadata.len());
        if matches!(&found, Ok(found) if *found == self.row.bytes) {
            return Ok(());
        }
        let found = found.map_or_else(|error| error.to_string(), |bytes| format!("{bytes} bytes"));
        let what = format!("its file: {found} instead of {} bytes", self.row.bytes);
        Err(Error::Damaged { split: self.row.id, what })
    }

    /// The newest records that meet the condition, at most `limit`, newest first.
    ///
    /// # Errors
    /// When the split cannot be read: the search must go on without it.
    pub(crate) fn search(
        &self,
        open: &OpenSplits,
        fields: &Fields,
        expr: &Expr,
        range: &TimeRange,
        limit: usize,
        text_bytes_max: usize,
    ) -> Result<Vec<Hit>, Error> {
        // Tantivy trusts its files and may panic on damaged ones; one bad split must not end a search.
        let searched = catch_unwind(AssertUnwindSafe(|| {
            open.get(self)?.search(fields, expr, range, limit, text_bytes_max)
        }));
        searched.unwrap_or_else(|_| {
            let message = "the library panicked while it read a split".to_owned();
            Err(Error::Index(TantivyError::InternalError(message)))
        })
    }

    /// Looks for damage after a failure to read: an error in hand may be the library's or the machine's fault, and
    /// a sound split must not be given up for it.
    pub(crate) fn verify(&self) -> Result<(), Error> {
        self.check_length()?;
        let (file, footer) = self.footer()?;
        open_index(&self.path, &footer).map_err(|error| self.unreadable(error))?;
        for block in &footer.blocks {
            read_block(self.row.id, &file, block, None, &mut |_, _| {})?;
        }
        Ok(())
    }

    fn footer(&self) -> Result<(File, Footer), Error> {
        let read = File::open(&self.path).and_then(|file| read_footer(&file).map(|footer| (file, footer)));
        let (file, footer) = read.map_err(|error| self.unreadable(error.into()))?;
        if footer.row.id == self.row.id && footer.row.records == self.row.records {
            return Ok((file, footer));
        }
        let what = "it is not the split that the catalogue names".to_owned();
        Err(Error::Damaged { split: self.row.id, what })
    }

    /// What is wrong with the contents is damage; what the disk refuses is not.
    fn unreadable(&self, error: TantivyError) -> Error {
        let damaged = |what: String| Error::Damaged { split: self.row.id, what };
        match error {
            TantivyError::IoError(error) => match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => {
                    damaged(error.to_string())
                }
                kind => Error::disk("read", &self.path, kind.into()),
            },
            error => damaged(error.to_string()),
        }
    }

    fn open(&self) -> Result<OpenSplit, Error> {
        self.check_length()?;
        let damaged = |what: &str| Error::Damaged { split: self.row.id, what: what.to_owned() };
        let (file, footer) = self.footer()?;
        let index = open_index(&self.path, &footer).map_err(|error| self.unreadable(error))?;
        let segments = index.searchable_segments()?;
        let [segment] = segments.as_slice() else { return Err(damaged("its index has not one segment")) };
        let segment = SegmentReader::open(segment)?;
        if segment.num_docs() as usize != footer.blocks.len() {
            return Err(damaged("its index has not as many documents as there are blocks"));
        }
        Ok(OpenSplit { split: self.row.id, file, segment, blocks: footer.blocks })
    }
}

impl OpenSplit {
    fn search(
        &self,
        fields: &Fields,
        expr: &Expr,
        range: &TimeRange,
        limit: usize,
        text_bytes_max: usize,
    ) -> Result<Vec<Hit>, Error> {
        let mut blocks = self.candidates(expr, fields)?;
        blocks.retain(|block| range.meets(block.from_nanos, block.to_nanos));
        blocks.sort_unstable_by_key(|block| std::cmp::Reverse(block.to_nanos));
        let needle = expr.needle().map(Finder::new);
        let mut hits: Vec<Hit> = Vec::new();
        for block in blocks {
            // Newest first: once there are enough, what is older than the last of them cannot matter.
            let oldest = hits.get(limit.saturating_sub(1)).map_or(0, |hit| hit.unix_nanos);
            if block.to_nanos < oldest {
                break;
            }
            read_block(self.split, &self.file, block, needle.as_ref(), &mut |sequence, record| {
                let unix_nanos = record.unix_nanos;
                let may_matter = range.holds(unix_nanos) && unix_nanos >= oldest;
                if may_matter && matches_record(expr, &record, text_bytes_max) {
                    hits.push(Hit { unix_nanos, sequence, record: Arc::new(record) });
                }
            })?;
            hits.sort_unstable_by_key(|hit| std::cmp::Reverse((hit.unix_nanos, hit.sequence)));
            hits.truncate(limit);
        }
        Ok(hits)
    }

    /// The blocks that can hold a hit.
    fn candidates(&self, expr: &Expr, fields: &Fields) -> Result<Vec<&BlockRow>, Error> {
        let Some(query) = compile(expr, fields) else { return Ok(self.blocks.iter().collect()) };
        let weight = query.weight(EnableScoring::disabled_from_schema(&fields.schema))?;
        let mut documents = weight.scorer(&self.segment, 1.0)?;
        let mut blocks = Vec::new();
        let mut document = documents.doc();
        while document != TERMINATED {
            blocks.extend(self.blocks.get(document as usize));
            document = documents.advance();
        }
        Ok(blocks)
    }
}

impl OpenSplits {
    pub(crate) fn new(max: usize) -> Self {
        Self { open: Mutex::default(), uses: AtomicU64::new(0), max }
    }

    fn get(&self, split: &Split) -> Result<Arc<OpenSplit>, Error> {
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((opened, last_used)) = open.get_mut(&split.row.id) {
            *last_used = used;
            return Ok(Arc::clone(opened));
        }
        drop(open);
        let opened = Arc::new(split.open()?);
        open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Condemned before it is forgotten: whoever comes later would hold its space until the next start.
        if split.is_condemned.load(Ordering::Acquire) {
            return Ok(opened);
        }
        if open.len() >= self.max
            && let Some(oldest) = open.iter().min_by_key(|(_, (_, last_used))| *last_used).map(|(id, _)| *id)
        {
            open.remove(&oldest);
        }
        open.insert(split.row.id, (Arc::clone(&opened), used));
        Ok(opened)
    }

    /// Lets go of splits that were condemned before.
    pub(crate) fn forget(&self, splits: &[u64]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for split in splits {
            open.remove(split);
        }
    }

    /// How many are open.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn read_block(
    split: u64,
    file: &File,
    block: &BlockRow,
    needle: Option<&Finder<'_>>,
    visit: &mut impl FnMut(u64, Record),
) -> Result<(), Error> {
    let mut packed = vec![0; block.bytes as usize];
    let damaged = |what: String| Error::Damaged { split, what };
    file.read_exact_at(&mut packed, block.offset).map_err(|error| damaged(error.to_string()))?;
    unpack(&packed, block, needle, visit).map_err(|error| damaged(error.to_string()))
}

/// Whether the documents of a merged index stand in the order of the blocks.
fn check_order(split: u64, index: &Index, blocks: &[BlockRow]) -> Result<(), Error> {
    let mut crcs = Vec::with_capacity(blocks.len());
    for segment in index.searchable_segments()? {
        let segment = SegmentReader::open(&segment)?;
        let column = segment.fast_fields().u64(BLOCK)?.first_or_default_col(0);
        crcs.extend((0..segment.max_doc()).map(|document| column.get_val(document)));
    }
    if crcs.into_iter().eq(blocks.iter().map(|block| u64::from(block.crc))) {
        return Ok(());
    }
    Err(Error::Damaged { split, what: "a merge mixed up its blocks".to_owned() })
}

/// The distinct keys of calls and traces of an index, from its dictionary.
fn keys_of(index: &Index, fields: &Fields) -> Result<Vec<u64>, Error> {
    let mut keys = Vec::new();
    for segment in index.searchable_segments()? {
        let segment = SegmentReader::open(&segment)?;
        let terms = segment.inverted_index(fields.keys)?;
        let path = Path::new("term dictionary");
        let mut terms = terms.terms().stream().map_err(|source| Error::disk("read", path, source))?;
        while terms.advance() {
            if let Ok(bytes) = terms.key().try_into() {
                keys.push(u64::from_be_bytes(bytes));
            }
        }
    }
    Ok(keys)
}
