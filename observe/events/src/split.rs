//! One immutable split: a directory with a Tantivy index of one segment, documents newest first.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tantivy::columnar::ColumnValues;
use tantivy::directory::MmapDirectory;
use tantivy::query::EnableScoring;
use tantivy::schema::Value;
use tantivy::store::StoreReader;
use tantivy::{DocSet, Index, IndexBuilder, SegmentReader, TERMINATED, TantivyDocument, TantivyError};

use belfry_signal::Record;

use crate::catalogue::SplitRow;
use crate::config::Config;
use crate::error::Error;
use crate::facts::{CallKey, Facts, trace_id};
use crate::filter::{Filter, trace_key};
use crate::live::Entry;
use crate::query::Expr;
use crate::query::compile::{PHRASE_BEGINNINGS_MAX, compile, phrase_beginnings};
use crate::query::evaluate::matches;
use crate::schema::{Fields, SEQUENCE, TIME, settings, tokenizers};

/// Blocks of the docstore kept unpacked while one search reads from a split.
const DOCSTORE_CACHE_BLOCKS: usize = 8;

/// A split that the catalogue names.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) row: SplitRow,
    pub(crate) directory: PathBuf,
    is_damaged: AtomicBool,
    is_verified: AtomicBool,
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
    segment: SegmentReader,
    times: Arc<dyn ColumnValues<u64>>,
    sequences: Arc<dyn ColumnValues<u64>>,
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

    pub(crate) fn meets(&self, row: &SplitRow) -> bool {
        row.to_nanos >= self.from_nanos && (row.from_nanos < self.to_nanos || self.to_nanos == u64::MAX)
    }
}

impl Split {
    pub(crate) fn new(row: SplitRow, directory: PathBuf) -> Self {
        Self { row, directory, is_damaged: AtomicBool::new(false), is_verified: AtomicBool::new(false) }
    }

    /// Builds a split from records and makes it durable; it counts once the catalogue names it.
    pub(crate) fn build(
        id: u64,
        directory: PathBuf,
        entries: &[Arc<Entry>],
        config: &Config,
        fields: &Fields,
    ) -> Result<Self, Error> {
        let index_directory = create_directory(&directory)?;
        let mut writer = IndexBuilder::new()
            .schema(fields.schema.clone())
            .settings(settings())
            .tokenizers(tokenizers())
            .single_segment_index_writer::<TantivyDocument>(index_directory, config.index_memory_bytes)?;
        let mut names = HashSet::new();
        let mut keys = BTreeSet::new();
        let mut has_unindexed_names = false;
        for entry in entries {
            let stored = postcard::to_allocvec(&*entry.record).map_err(|error| Error::Damaged {
                split: id,
                what: format!("record cannot be stored: {error}"),
            })?;
            let (document, is_over) = fields.document(
                &entry.record,
                entry.sequence,
                &stored,
                config.record_text_bytes_max,
                &mut names,
                config.split_attributes_max,
            );
            has_unindexed_names |= is_over;
            keys.extend(entry.call_key.map(|key| key.0));
            keys.extend(trace_id(&entry.record.body).map(|id| trace_key(&id.0)));
            writer.add_document(document)?;
        }
        let index = writer.finalize()?;
        let times = || entries.iter().map(|entry| entry.record.unix_nanos);
        let row = SplitRow {
            id,
            from_nanos: times().min().unwrap_or_default(),
            to_nanos: times().max().unwrap_or_default(),
            records: entries.len() as u64,
            level: 0,
            has_unindexed_names,
            files: files_of(&directory, &index)?,
            filter: Filter::of(&keys.into_iter().collect::<Vec<u64>>(), config.filter_bytes_max),
        };
        let split = Self::new(row, directory);
        split.is_verified.store(true, Ordering::Relaxed);
        Ok(split)
    }

    /// Merges splits into one; nothing is read record by record.
    pub(crate) fn merge(
        id: u64,
        directory: PathBuf,
        parts: &[Arc<Self>],
        config: &Config,
        fields: &Fields,
    ) -> Result<Self, Error> {
        let mut indices = Vec::with_capacity(parts.len());
        for part in parts {
            part.verify()?;
            indices.push(open_index(&part.directory)?);
        }
        let index_directory = create_directory(&directory)?;
        let index = tantivy::indexer::merge_indices(&indices, index_directory)?;
        sync_directory(&directory)?;
        let row = SplitRow {
            id,
            from_nanos: parts.iter().map(|part| part.row.from_nanos).min().unwrap_or_default(),
            to_nanos: parts.iter().map(|part| part.row.to_nanos).max().unwrap_or_default(),
            records: parts.iter().map(|part| part.row.records).sum(),
            level: parts.iter().map(|part| part.row.level).max().unwrap_or_default() + 1,
            has_unindexed_names: parts.iter().any(|part| part.row.has_unindexed_names),
            files: files_of(&directory, &index)?,
            filter: Filter::of(&keys_of(&index, fields)?, config.filter_bytes_max),
        };
        let merged = Self::new(row, directory);
        let documents = merged.open()?.segment.num_docs();
        if u64::from(documents) != merged.row.records {
            let what = format!("a merge of {} records has {documents}", merged.row.records);
            return Err(Error::Damaged { split: id, what });
        }
        Ok(merged)
    }

    /// Whether the split may hold what is looked for: in time, and by call or trace.
    pub(crate) fn may_hold(&self, range: &TimeRange, key: Option<u64>) -> bool {
        range.meets(&self.row) && key.is_none_or(|key| self.row.filter.may_hold(key))
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// Marks the split as damaged and says whether it was not before.
    pub(crate) fn mark_damaged(&self) -> bool {
        !self.is_damaged.swap(true, Ordering::Relaxed)
    }

    /// Compares the files' lengths with the catalogue: cheap, and enough to notice a torn or missing file.
    pub(crate) fn check_lengths(&self) -> Result<(), Error> {
        for (name, expected) in &self.row.files {
            let found = fs::metadata(self.directory.join(name)).map(|metadata| metadata.len());
            if !matches!(&found, Ok(found) if found == expected) {
                let found = found.map_or_else(|error| error.to_string(), |bytes| format!("{bytes} bytes"));
                let what = format!("{name}: {found} instead of {expected} bytes");
                return Err(Error::Damaged { split: self.row.id, what });
            }
        }
        Ok(())
    }

    /// The newest records that meet the condition, at most `limit` and those of the last one's time.
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
            let opened = open.get(self)?;
            let is_indexed = !(self.row.has_unindexed_names && expr.names_an_attribute())
                && opened.can_expand(expr, fields)?;
            let index_expr = if is_indexed { expr } else { &Expr::All };
            let check = (!is_indexed).then_some((expr, text_bytes_max));
            opened.search(self.row.id, fields, index_expr, check, range, limit)
        }));
        searched.unwrap_or_else(|_| {
            let message = "the library panicked while it read a split".to_owned();
            Err(Error::Index(TantivyError::InternalError(message)))
        })
    }

    /// Looks for damage after a failure to read: an error in hand may be the library's or the machine's fault, and
    /// a sound split must not be given up for it.
    pub(crate) fn verify_again(&self) -> Result<(), Error> {
        self.is_verified.store(false, Ordering::Relaxed);
        self.verify()
    }

    /// Verifies checksums once, before the first use.
    fn verify(&self) -> Result<(), Error> {
        if self.is_verified.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.check_lengths()?;
        let damaged = open_index(&self.directory)?.validate_checksum()?;
        if let Some(file) = damaged.iter().next() {
            let what = format!("{}: the checksum is wrong", file.display());
            return Err(Error::Damaged { split: self.row.id, what });
        }
        self.is_verified.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn open(&self) -> Result<OpenSplit, Error> {
        self.verify()?;
        let damaged = |what: &str| Error::Damaged { split: self.row.id, what: what.to_owned() };
        let segments = open_index(&self.directory)?.searchable_segments()?;
        let [segment] = segments.as_slice() else { return Err(damaged("it has not one segment")) };
        let segment = SegmentReader::open(segment)?;
        if u64::from(segment.num_docs()) != self.row.records {
            return Err(damaged("it has not as many records as the catalogue says"));
        }
        let times = segment.fast_fields().u64(TIME)?.first_or_default_col(0);
        let sequences = segment.fast_fields().u64(SEQUENCE)?.first_or_default_col(0);
        Ok(OpenSplit { segment, times, sequences })
    }
}

impl OpenSplit {
    fn search(
        &self,
        split: u64,
        fields: &Fields,
        expr: &Expr,
        check: Option<(&Expr, usize)>,
        range: &TimeRange,
        limit: usize,
    ) -> Result<Vec<Hit>, Error> {
        let query = compile(expr, fields);
        let weight = query.weight(EnableScoring::disabled_from_schema(&fields.schema))?;
        let mut documents = weight.scorer(&self.segment, 1.0)?;
        let store = self
            .segment
            .get_store_reader(DOCSTORE_CACHE_BLOCKS)
            .map_err(|error| Error::Damaged { split, what: error.to_string() })?;
        let mut hits: Vec<Hit> = Vec::new();
        let first = self.first_before(range);
        let mut document = documents.doc();
        if document < first {
            document = documents.seek(first);
        }
        while document != TERMINATED {
            let unix_nanos = self.times.get_val(document);
            // Newest first: from here on everything is older, and more of one time may still be newer by sequence.
            let has_enough =
                hits.len() >= limit && hits.last().is_some_and(|last| last.unix_nanos != unix_nanos);
            if unix_nanos < range.from_nanos || has_enough {
                break;
            }
            let record = read_record(&store, document, fields, split)?;
            if check.is_none_or(|(expr, bytes_max)| matches(expr, &Facts::of(&record, bytes_max))) {
                let sequence = self.sequences.get_val(document);
                hits.push(Hit { unix_nanos, sequence, record: Arc::new(record) });
            }
            document = documents.advance();
        }
        Ok(hits)
    }

    /// Whether the beginnings in the condition stand for few enough words here.
    fn can_expand(&self, expr: &Expr, fields: &Fields) -> Result<bool, Error> {
        for term in phrase_beginnings(expr, fields) {
            let dictionary = self.segment.inverted_index(term.field())?;
            let failed = |source| Error::disk("read", "term dictionary", source);
            let beginning = term.serialized_value_bytes();
            let mut words = dictionary.terms().range().ge(beginning).into_stream().map_err(failed)?;
            let mut left = PHRASE_BEGINNINGS_MAX;
            while words.advance() && words.key().starts_with(beginning) {
                if left == 0 {
                    return Ok(false);
                }
                left -= 1;
            }
        }
        Ok(true)
    }

    /// The first document that is not too new.
    fn first_before(&self, range: &TimeRange) -> u32 {
        if range.to_nanos == u64::MAX {
            return 0;
        }
        let (mut low, mut high) = (0, self.segment.max_doc());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.times.get_val(middle) >= range.to_nanos { low = middle + 1 } else { high = middle }
        }
        low
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
        if open.len() >= self.max
            && let Some(oldest) = open.iter().min_by_key(|(_, (_, last_used))| *last_used).map(|(id, _)| *id)
        {
            open.remove(&oldest);
        }
        open.insert(split.row.id, (Arc::clone(&opened), used));
        Ok(opened)
    }

    /// Lets go of splits that were dropped.
    pub(crate) fn forget(&self, splits: &[u64]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for split in splits {
            open.remove(split);
        }
    }
}

fn read_record(store: &StoreReader, document: u32, fields: &Fields, split: u64) -> Result<Record, Error> {
    let document: TantivyDocument = store.get(document)?;
    let damaged = |what: String| Error::Damaged { split, what };
    let value = document.get_first(fields.record).and_then(|value| value.as_bytes());
    let bytes = value.ok_or_else(|| damaged("a document has no record".to_owned()))?;
    postcard::from_bytes(bytes).map_err(|error| damaged(format!("a record cannot be read: {error}")))
}

fn create_directory(directory: &Path) -> Result<MmapDirectory, Error> {
    if directory.exists() {
        // What an earlier, failed try left.
        fs::remove_dir_all(directory).map_err(|source| Error::disk("remove", directory, source))?;
    }
    fs::create_dir_all(directory).map_err(|source| Error::disk("create", directory, source))?;
    MmapDirectory::open(directory).map_err(|error| Error::Index(error.into()))
}

fn open_index(directory: &Path) -> Result<Index, Error> {
    let mmap = MmapDirectory::open(directory).map_err(|error| Error::Index(error.into()))?;
    Ok(Index::open(mmap)?)
}

/// The files that make the split, with lengths; makes directory entries durable on the way.
fn files_of(directory: &Path, index: &Index) -> Result<Vec<(String, u64)>, Error> {
    sync_directory(directory)?;
    if let Some(parent) = directory.parent() {
        sync_directory(parent)?;
    }
    let mut files = Vec::new();
    for path in index.load_metas()?.list_segment_files() {
        let full_path = directory.join(&path);
        // The list names files that a segment may have; one without deletions has fewer.
        if let Ok(metadata) = fs::metadata(&full_path) {
            files.push((path.to_string_lossy().into_owned(), metadata.len()));
        }
    }
    let metas = directory.join("meta.json");
    let length = fs::metadata(&metas).map_err(|source| Error::disk("read", &metas, source))?.len();
    files.push(("meta.json".to_owned(), length));
    files.sort();
    Ok(files)
}

fn sync_directory(directory: &Path) -> Result<(), Error> {
    fs::File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(|source| Error::disk("sync", directory, source))
}

/// The distinct calls and traces of an index, from its dictionaries.
fn keys_of(index: &Index, fields: &Fields) -> Result<Vec<u64>, Error> {
    let mut keys = Vec::new();
    for segment in index.searchable_segments()? {
        let segment = SegmentReader::open(&segment)?;
        let disk = |source| Error::disk("read", "term dictionary", source);
        let calls = segment.inverted_index(fields.call_key)?;
        let mut terms = calls.terms().stream().map_err(disk)?;
        while terms.advance() {
            let mut bytes = [0; 8];
            if terms.key().len() == bytes.len() {
                bytes.copy_from_slice(terms.key());
                keys.push(CallKey(u64::from_be_bytes(bytes)).0);
            }
        }
        let traces = segment.inverted_index(fields.trace_id)?;
        let mut terms = traces.terms().stream().map_err(disk)?;
        while terms.advance() {
            keys.push(trace_key(terms.key()));
        }
    }
    Ok(keys)
}
