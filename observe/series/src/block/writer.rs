//! Writing a block as its series come, in the order of their labels; memory holds a page of them, and the postings.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::hash::BuildHasher;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use belfry_promql::Labels;
use belfry_signal::Exemplar;
use hashbrown::DefaultHashBuilder;
use roaring::RoaringBitmap;

use super::{
    Footer, LabelPage, LabelPages, MAGIC, Meta, PAGE_BYTES, Place, SERIES_PER_PAGE, SeriesPage, StoredChunk,
    StoredExemplars, StoredSeries, StoredSet, TAIL_BYTES, VALUES_PER_PAGE, pack, path,
};
use crate::column;
use crate::error::Error;
use crate::sealed::Sealed;

/// Bytes of columns of times that are remembered, so that series that were sampled together share one.
const TIMES_BYTES_MAX: usize = 32 << 20;

/// A block that is being written. Dropped unfinished, it leaves no file.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    directory: PathBuf,
    path: PathBuf,
    new_path: PathBuf,
    file: BufWriter<File>,
    offset: u64,
    page: SeriesPage,
    page_texts: HashMap<Arc<str>, u32>,
    /// Where the values of the last chunk of the page ended.
    page_end: u64,
    pages: Vec<Place>,
    postings: BTreeMap<Arc<str>, BTreeMap<Arc<str>, RoaringBitmap>>,
    times: HashMap<u64, (Vec<i64>, Place)>,
    times_bytes: usize,
    hasher: DefaultHashBuilder,
    exemplars: Vec<(u32, Vec<Exemplar>)>,
    meta: Meta,
    is_finished: bool,
}

impl BlockWriter {
    pub(crate) fn create(directory: &Path, id: u64, level: u8, checkpoint: u64) -> Result<Self, Error> {
        let path = path(directory, id);
        let new_path = path.with_extension("new");
        let fault = |source| Error::File { path: new_path.clone(), source };
        let file =
            OpenOptions::new().create(true).truncate(true).write(true).open(&new_path).map_err(fault)?;
        let (min_ms, max_ms) = (i64::MAX, i64::MIN);
        let meta =
            Meta { id, first_id: id, level, min_ms, max_ms, series: 0, samples: 0, bytes: 0, checkpoint };
        let mut writer = Self {
            directory: directory.to_owned(),
            path,
            new_path,
            file: BufWriter::with_capacity(1 << 20, file),
            offset: 0,
            page: SeriesPage::default(),
            page_texts: HashMap::new(),
            page_end: 0,
            pages: Vec::new(),
            postings: BTreeMap::new(),
            times: HashMap::new(),
            times_bytes: 0,
            hasher: DefaultHashBuilder::default(),
            exemplars: Vec::new(),
            meta,
            is_finished: false,
        };
        writer.write(&MAGIC)?;
        Ok(writer)
    }

    /// Series written so far.
    pub(crate) fn series(&self) -> u64 {
        self.meta.series
    }

    /// Says that it is made of others, of which this one came first.
    pub(crate) fn descend_from(&mut self, first_id: u64) {
        self.meta.first_id = self.meta.first_id.min(first_id);
    }

    /// Says how far the log is covered by this block and those before it.
    pub(crate) fn cover(&mut self, checkpoint: u64) {
        self.meta.checkpoint = self.meta.checkpoint.max(checkpoint);
    }

    /// Appends a series, whose labels come after those of the one before, with its chunks by time.
    pub(crate) fn push(
        &mut self,
        labels: &Labels,
        chunks: &[Sealed],
        exemplars: Vec<Exemplar>,
    ) -> Result<(), Error> {
        let Ok(number) = u32::try_from(self.meta.series) else { return Ok(()) };
        let mut stored = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let times = self.put_times(&chunk.times)?;
            let values = self.put(&chunk.values)?;
            self.meta.samples += u64::from(chunk.count);
            self.meta.min_ms = self.meta.min_ms.min(chunk.min_ms);
            self.meta.max_ms = self.meta.max_ms.max(chunk.max_ms);
            stored.push(StoredChunk {
                kind: chunk.kind,
                count: chunk.count,
                min_ms: chunk.min_ms,
                span_ms: chunk.max_ms.wrapping_sub(chunk.min_ms).cast_unsigned(),
                times,
                gap: values.offset.wrapping_sub(self.page_end).cast_signed(),
                length: values.length,
                crc: values.crc,
            });
            self.page_end = values.offset + u64::from(values.length);
        }
        let mut numbers = Vec::with_capacity(labels.len());
        for (name, value) in labels.pairs() {
            numbers.push((self.text(name), self.text(value)));
            let values = match self.postings.get_mut(name) {
                Some(values) => values,
                None => self.postings.entry(Arc::clone(name)).or_default(),
            };
            match values.get_mut(value) {
                Some(set) => drop(set.insert(number)),
                None => drop(values.insert(Arc::clone(value), [number].into_iter().collect())),
            }
        }
        self.page.series.push(StoredSeries { labels: numbers, chunks: stored });
        if !exemplars.is_empty() {
            self.exemplars.push((number, exemplars));
        }
        self.meta.series += 1;
        if self.meta.series.is_multiple_of(u64::from(SERIES_PER_PAGE)) {
            self.end_page()?;
        }
        Ok(())
    }

    /// Writes the index and makes the file survive under its name. A block without series is no file and `None`.
    pub(crate) fn finish(mut self) -> Result<Option<Meta>, Error> {
        if self.meta.series == 0 {
            return Ok(None);
        }
        self.end_page()?;
        let labels = self.put_labels()?;
        let exemplars = match std::mem::take(&mut self.exemplars) {
            none if none.is_empty() => None,
            series => {
                let packed = pack(&StoredExemplars { series })?;
                Some(self.put(&packed)?)
            }
        };
        let footer =
            Footer { meta: self.meta.clone(), series: std::mem::take(&mut self.pages), labels, exemplars };
        let packed = pack(&footer)?;
        self.write(&packed)?;
        self.write(&(packed.len() as u64).to_le_bytes())?;
        self.write(&crc32c::crc32c(&packed).to_le_bytes())?;
        self.write(&MAGIC)?;
        debug_assert_eq!(TAIL_BYTES, 8 + 4 + MAGIC.len());
        let fault = |source| Error::File { path: self.path.clone(), source };
        self.file.flush().map_err(fault)?;
        self.file.get_ref().sync_all().map_err(fault)?;
        std::fs::rename(&self.new_path, &self.path).map_err(fault)?;
        self.is_finished = true;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(fault)?;
        Ok(Some(Meta { bytes: self.offset, ..self.meta.clone() }))
    }

    fn text(&mut self, text: &Arc<str>) -> u32 {
        if let Some(number) = self.page_texts.get(text) {
            return *number;
        }
        let number = u32::try_from(self.page.texts.len()).unwrap_or(u32::MAX);
        self.page.texts.push(text.to_string());
        self.page_texts.insert(Arc::clone(text), number);
        number
    }

    fn end_page(&mut self) -> Result<(), Error> {
        let page = std::mem::take(&mut self.page);
        self.page_texts.clear();
        self.page_end = 0;
        if !page.series.is_empty() {
            let packed = pack(&page)?;
            let place = self.put(&packed)?;
            self.pages.push(place);
        }
        Ok(())
    }

    fn put_labels(&mut self) -> Result<Vec<LabelPages>, Error> {
        let mut labels = Vec::new();
        for (name, values) in std::mem::take(&mut self.postings) {
            let mut pages = Vec::new();
            let mut page = LabelPage::default();
            let mut page_bytes = 0;
            for (value, mut set) in values {
                let stored = match set.min().filter(|_| set.len() == 1) {
                    Some(only) => StoredSet::One(only),
                    None => {
                        set.optimize();
                        let mut bytes = Vec::with_capacity(set.serialized_size());
                        let fault = |source| Error::File { path: self.path.clone(), source };
                        set.serialize_into(&mut bytes).map_err(fault)?;
                        page_bytes += bytes.len();
                        StoredSet::Many(bytes)
                    }
                };
                page_bytes += value.len() + 8;
                page.values.push((value.to_string(), stored));
                if page.values.len() >= VALUES_PER_PAGE || page_bytes >= PAGE_BYTES {
                    self.put_label_page(&mut page, &mut pages)?;
                    page_bytes = 0;
                }
            }
            self.put_label_page(&mut page, &mut pages)?;
            labels.push(LabelPages { name: name.to_string(), pages });
        }
        Ok(labels)
    }

    fn put_label_page(
        &mut self,
        page: &mut LabelPage,
        pages: &mut Vec<(String, Place)>,
    ) -> Result<(), Error> {
        let full = std::mem::take(page);
        if let Some((first, _)) = full.values.first() {
            let first = first.clone();
            let packed = pack(&full)?;
            pages.push((first, self.put(&packed)?));
        }
        Ok(())
    }

    /// Writes a column of times, unless it was just written for another series.
    fn put_times(&mut self, times: &[i64]) -> Result<Place, Error> {
        if times.is_empty() {
            return Ok(Place::default());
        }
        let hash = self.hasher.hash_one(times);
        if let Some((held, place)) = self.times.get(&hash)
            && held == times
        {
            return Ok(*place);
        }
        let place = self.put(&column::encode_times(times))?;
        self.times_bytes += times.len() * 8;
        if self.times_bytes > TIMES_BYTES_MAX {
            self.times.clear();
            self.times_bytes = times.len() * 8;
        }
        self.times.insert(hash, (times.to_vec(), place));
        Ok(place)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<Place, Error> {
        let offset = self.offset;
        self.write(bytes)?;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Ok(Place { offset, length, crc: crc32c::crc32c(bytes) })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| Error::File { path: self.new_path.clone(), source })
    }
}

impl Drop for BlockWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // What cannot be deleted now is deleted at the next start.
            let _removed = std::fs::remove_file(&self.new_path);
        }
    }
}
