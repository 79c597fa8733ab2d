//! Reading a block: the footer once, pages and chunks as they are asked for.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use belfry_promql::Labels;
use belfry_signal::Exemplar;
use roaring::RoaringBitmap;

use super::{
    Footer, LabelPage, LabelPages, MAGIC, Meta, PageCache, Place, SERIES_PER_PAGE, SeriesPage,
    StoredExemplars, StoredSet, TAIL_BYTES, path, unpack, unpack_bytes,
};
use crate::bucket::{Bucket, Object};
use crate::chunk::Points;
use crate::error::Error;
use crate::matcher::Matcher;
use crate::postings::{self, Postings};
use crate::sealed::{self, Kind};

/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;
/// For how long a block that could not be read from the bucket is left as it is by what would write it anew.
const SUSPECT: Duration = Duration::from_hours(1);

/// A block that can be read. It holds its file open: deleted meanwhile, it can be read to the end. Of a block that is in
/// the bucket only, ranges are read as they are asked for.
#[derive(Debug)]
pub(crate) struct Block {
    path: PathBuf,
    source: Source,
    meta: Meta,
    footer: OnceLock<Footer>,
    /// When it was last found damaged in the bucket, by what would write it anew.
    suspected: Mutex<Option<Instant>>,
}

/// Where a block's bytes come from.
#[derive(Debug)]
enum Source {
    File(File),
    Bucket(Object),
}

/// A series of a block.
#[derive(Debug)]
pub(crate) struct BlockSeries {
    pub(crate) labels: Labels,
    pub(crate) chunks: Vec<ChunkPlace>,
}

/// Where a chunk is, and what it holds.
#[derive(Clone, Debug)]
pub(crate) struct ChunkPlace {
    pub(crate) kind: Kind,
    pub(crate) count: u32,
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    times: Place,
    values: Place,
}

impl ChunkPlace {
    pub(crate) fn touches(&self, from_ms: i64, to_ms: i64) -> bool {
        self.max_ms >= from_ms && self.min_ms <= to_ms
    }
}

impl Block {
    /// Opens a block that the catalogue knows: only the tail is looked at.
    pub(crate) fn open(directory: &Path, meta: Meta) -> Result<Self, Error> {
        let path = path(directory, meta.id);
        let fault = |source| Error::File { path: path.clone(), source };
        let file = File::open(&path).map_err(fault)?;
        let bytes = file.metadata().map_err(fault)?.len();
        let block = Self::new(path, Source::File(file), Meta { bytes, ..meta });
        block.tail()?;
        Ok(block)
    }

    /// A block that the catalogue knows to be in the bucket. Nothing of it is read yet.
    pub(crate) fn in_bucket(directory: &Path, meta: Meta, bucket: &Arc<Bucket>, object: &str) -> Self {
        let path = path(directory, meta.id);
        let source = Source::Bucket(Object::new(bucket, object));
        Self::new(path, source, meta)
    }

    fn new(path: PathBuf, source: Source, meta: Meta) -> Self {
        Self { path, source, meta, footer: OnceLock::new(), suspected: Mutex::default() }
    }

    /// What a block says of itself.
    pub(crate) fn read_meta(directory: &Path, id: u64) -> Option<Meta> {
        let path = path(directory, id);
        let file = File::open(&path).ok()?;
        let bytes = file.metadata().ok()?.len();
        let meta = Meta { id, bytes, ..Meta::default() };
        let block = Self::new(path, Source::File(file), meta);
        let footer = block.footer().ok()?;
        Some(Meta { bytes, ..footer.meta.clone() })
    }

    /// What a block in the bucket says of itself; none when it is no block of ours.
    pub(crate) fn read_meta_in(
        bucket: &Arc<Bucket>,
        (object, id, bytes): (&str, u64, u64),
    ) -> Result<Option<Meta>, Error> {
        let meta = Meta { id, bytes, ..Meta::default() };
        let block = Self::in_bucket(Path::new(object), meta, bucket, object);
        match block.footer() {
            Ok(footer) => Ok(Some(Meta { bytes, ..footer.meta.clone() }).filter(|meta| meta.id == id)),
            Err(Error::Damaged { .. } | Error::Lost { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Whether it is in our directory.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// Whether it was found damaged in the bucket a while ago. What is there may be read well later, so it is not written
    /// anew without what could not be read.
    pub(crate) fn is_suspect(&self) -> bool {
        let suspected = self.suspected.lock().unwrap_or_else(PoisonError::into_inner);
        suspected.is_some_and(|at| at.elapsed() < SUSPECT)
    }

    /// It was found damaged in the bucket.
    pub(crate) fn suspect(&self) {
        *self.suspected.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Reads something; what comes damaged from the bucket is read once more, past what is kept of it, and not kept.
    fn twice<T>(&self, read: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        match (read(), &self.source) {
            (Err(Error::Damaged { .. }), Source::Bucket(object)) => {
                object.forget(self.meta.id);
                read().inspect_err(|_| object.forget(self.meta.id))
            }
            (read, _) => read,
        }
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> Result<(), Error> {
        match &self.source {
            Source::File(file) => file
                .read_exact_at(out, offset)
                .map_err(|source| Error::File { path: self.path.clone(), source }),
            Source::Bucket(object) => object.read(self.meta.id, self.meta.bytes, out, offset),
        }
    }

    /// Offset and length of the footer, and its checksum.
    fn tail(&self) -> Result<(u64, usize, u32), Error> {
        let start = self.meta.bytes.checked_sub(TAIL_BYTES as u64).ok_or_else(|| self.damaged())?;
        let mut tail = [0; TAIL_BYTES];
        self.read_at(&mut tail, start)?;
        let parsed = || {
            let length = u64::from_le_bytes(tail[..8].try_into().ok()?);
            let crc = u32::from_le_bytes(tail[8..12].try_into().ok()?);
            let is_whole = tail[12..] == MAGIC;
            Some((start.checked_sub(length)?, usize::try_from(length).ok()?, crc)).filter(|_| is_whole)
        };
        parsed().ok_or_else(|| self.damaged())
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn footer(&self) -> Result<&Footer, Error> {
        if let Some(footer) = self.footer.get() {
            return Ok(footer);
        }
        let footer = self.twice(|| {
            let (offset, length, crc) = self.tail()?;
            let mut packed = vec![0; length];
            self.read_at(&mut packed, offset)?;
            let footer = (crc32c::crc32c(&packed) == crc).then(|| unpack(&packed)).flatten();
            footer.ok_or_else(|| self.damaged())
        })?;
        Ok(self.footer.get_or_init(|| footer))
    }

    fn damaged(&self) -> Error {
        Error::Damaged { path: self.path.clone() }
    }

    fn bytes(&self, place: &Place) -> Result<Vec<u8>, Error> {
        // A place beyond the file's end is damage, and must not ask for memory first.
        let end = place.offset.checked_add(u64::from(place.length)).filter(|end| *end <= self.meta.bytes);
        end.ok_or_else(|| self.damaged())?;
        self.twice(|| {
            let mut bytes = vec![0; place.length as usize];
            self.read_at(&mut bytes, place.offset)?;
            if crc32c::crc32c(&bytes) == place.crc { Ok(bytes) } else { Err(self.damaged()) }
        })
    }

    /// Copies the whole block into a file.
    pub(crate) fn copy_to(&self, target: &Path) -> Result<(), Error> {
        let fault = |source| Error::File { path: target.to_owned(), source };
        let mut file = File::create(target).map_err(fault)?;
        let mut bytes = vec![0; COPY_BYTES];
        let mut offset = 0;
        while offset < self.meta.bytes {
            let length =
                usize::try_from(self.meta.bytes - offset).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
            self.read_at(&mut bytes[..length], offset)?;
            file.write_all(&bytes[..length]).map_err(fault)?;
            offset += length as u64;
        }
        file.sync_all().map_err(fault)
    }

    /// How many pages of series there are.
    pub(crate) fn pages(&self) -> Result<usize, Error> {
        Ok(self.footer()?.series.len())
    }

    /// A page of series, read anew: compaction reads each once.
    pub(crate) fn page(&self, page: usize) -> Result<Vec<BlockSeries>, Error> {
        self.read_page(page).map(|(series, _)| series)
    }

    fn read_page(&self, page: usize) -> Result<(Vec<BlockSeries>, usize), Error> {
        let place = self.footer()?.series.get(page).ok_or_else(|| self.damaged())?;
        let plain = unpack_bytes(&self.bytes(place)?).ok_or_else(|| self.damaged())?;
        let stored: SeriesPage = postcard::from_bytes(&plain).map_err(|_| self.damaged())?;
        let series = open_page(stored).ok_or_else(|| self.damaged())?;
        Ok((series, plain.len() * 3))
    }

    /// The series of these numbers, with those of the same page; pages come from the cache.
    pub(crate) fn series(
        &self,
        cache: &PageCache,
        numbers: &RoaringBitmap,
        mut visit: impl FnMut(u32, &BlockSeries) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        // Without its footer it is the block that is damaged, and no page of it.
        self.footer()?;
        let mut held: Option<(u32, Arc<Vec<BlockSeries>>)> = None;
        let mut damaged = 0;
        for number in numbers {
            let page = number / SERIES_PER_PAGE;
            if held.as_ref().is_none_or(|(at, _)| *at != page) {
                match self.cached_page(cache, page) {
                    Ok(series) => held = Some((page, series)),
                    Err(Error::Damaged { .. }) => {
                        damaged += 1;
                        held = Some((page, Arc::default()));
                    }
                    Err(other) => return Err(other),
                }
            }
            let series =
                held.as_ref().and_then(|(_, series)| series.get((number % SERIES_PER_PAGE) as usize));
            if let Some(series) = series {
                visit(number, series)?;
            }
        }
        Ok(damaged)
    }

    fn cached_page(&self, cache: &PageCache, page: u32) -> Result<Arc<Vec<BlockSeries>>, Error> {
        let place = self.footer()?.series.get(page as usize).ok_or_else(|| self.damaged())?;
        cache.get((self.meta.id, place.offset), || self.read_page(page as usize))
    }

    /// The numbers of the series that satisfy every matcher.
    pub(crate) fn select(&self, cache: &PageCache, matchers: &[Matcher]) -> Result<RoaringBitmap, Error> {
        postings::select(&BlockPostings { block: self, cache }, matchers)
    }

    /// A chunk's samples; an error of kind damaged when they cannot be made out.
    pub(crate) fn chunk(&self, chunk: &ChunkPlace) -> Result<Points, Error> {
        let times = if chunk.times.length == 0 { Vec::new() } else { self.bytes(&chunk.times)? };
        let values = self.bytes(&chunk.values)?;
        sealed::open(chunk.kind, chunk.count, &times, &values).ok_or_else(|| self.damaged())
    }

    /// Exemplars by series' number.
    pub(crate) fn exemplars(&self) -> Result<Vec<(u32, Vec<Exemplar>)>, Error> {
        let Some(place) = &self.footer()?.exemplars else { return Ok(Vec::new()) };
        let stored: StoredExemplars = unpack(&self.bytes(place)?).ok_or_else(|| self.damaged())?;
        Ok(stored.series)
    }

    /// The names of all labels.
    pub(crate) fn label_names(&self) -> Result<impl Iterator<Item = &str>, Error> {
        Ok(self.footer()?.labels.iter().map(|label| label.name.as_str()))
    }

    /// Calls `visit` with each value of a label.
    pub(crate) fn label_values(
        &self,
        cache: &PageCache,
        name: &str,
        mut visit: impl FnMut(&str),
    ) -> Result<(), Error> {
        for (_, place) in self.label_pages(name)?.into_iter().flat_map(|label| &label.pages) {
            self.label_page(cache, place)?.values.iter().for_each(|(value, _)| visit(value));
        }
        Ok(())
    }

    /// Calls `visit` with each value of a label, in order, and the series that have it.
    pub(crate) fn label_sets_of(
        &self,
        cache: &PageCache,
        name: &str,
        visit: &mut dyn FnMut(&str, &RoaringBitmap) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (_, place) in self.label_pages(name)?.into_iter().flat_map(|label| &label.pages) {
            for (value, set) in &self.label_page(cache, place)?.values {
                let mut numbers = RoaringBitmap::new();
                self.add_set(set, &mut numbers)?;
                visit(value, &numbers)?;
            }
        }
        Ok(())
    }

    fn label_pages(&self, name: &str) -> Result<Option<&LabelPages>, Error> {
        let labels = &self.footer()?.labels;
        let found = labels.binary_search_by(|label| label.name.as_str().cmp(name));
        Ok(found.ok().and_then(|at| labels.get(at)))
    }

    fn label_page(&self, cache: &PageCache, place: &Place) -> Result<Arc<LabelPage>, Error> {
        cache.get((self.meta.id, place.offset), || {
            let plain = unpack_bytes(&self.bytes(place)?).ok_or_else(|| self.damaged())?;
            let page: LabelPage = postcard::from_bytes(&plain).map_err(|_| self.damaged())?;
            Ok((page, plain.len() * 2))
        })
    }

    fn add_set(&self, set: &StoredSet, numbers: &mut RoaringBitmap) -> Result<(), Error> {
        match set {
            StoredSet::One(number) => drop(numbers.insert(*number)),
            StoredSet::Many(bytes) => {
                *numbers |= RoaringBitmap::deserialize_from(bytes.as_slice()).map_err(|_| self.damaged())?;
            }
        }
        Ok(())
    }
}

/// The series of a stored page; `None` when its numbers are not its own.
pub(super) fn open_page(stored: SeriesPage) -> Option<Vec<BlockSeries>> {
    let texts: Vec<Arc<str>> = stored.texts.into_iter().map(Arc::from).collect();
    let text = |number: u32| texts.get(number as usize).cloned();
    let mut end = 0_u64;
    let mut all = Vec::with_capacity(stored.series.len());
    for series in stored.series {
        let pairs = series.labels.into_iter().map(|(name, value)| Some((text(name)?, text(value)?)));
        let pairs: Vec<_> = pairs.collect::<Option<_>>()?;
        if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
            return None;
        }
        let mut chunks = Vec::with_capacity(series.chunks.len());
        for chunk in series.chunks {
            let offset = end.wrapping_add(chunk.gap.cast_unsigned());
            end = offset.checked_add(u64::from(chunk.length))?;
            chunks.push(ChunkPlace {
                kind: chunk.kind,
                count: chunk.count,
                min_ms: chunk.min_ms,
                max_ms: chunk.min_ms.wrapping_add(chunk.span_ms.cast_signed()),
                times: chunk.times,
                values: Place { offset, length: chunk.length, crc: chunk.crc },
            });
        }
        all.push(BlockSeries { labels: Labels::from_sorted(pairs), chunks });
    }
    Some(all)
}

/// The label index of a block.
struct BlockPostings<'a> {
    block: &'a Block,
    cache: &'a PageCache,
}

impl Postings for BlockPostings<'_> {
    fn all(&self) -> RoaringBitmap {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..u32::try_from(self.block.meta.series).unwrap_or(u32::MAX));
        all
    }

    fn with_value(&self, name: &str, value: &str) -> Result<RoaringBitmap, Error> {
        let mut numbers = RoaringBitmap::new();
        let Some(label) = self.block.label_pages(name)? else { return Ok(numbers) };
        let after = label.pages.partition_point(|(first, _)| first.as_str() <= value);
        let Some((_, place)) = after.checked_sub(1).and_then(|at| label.pages.get(at)) else {
            return Ok(numbers);
        };
        let page = self.block.label_page(self.cache, place)?;
        if let Ok(at) = page.values.binary_search_by(|(held, _)| held.as_str().cmp(value)) {
            self.block.add_set(&page.values[at].1, &mut numbers)?;
        }
        Ok(numbers)
    }

    fn with_values(&self, name: &str, is_wanted: &dyn Fn(&str) -> bool) -> Result<RoaringBitmap, Error> {
        let mut numbers = RoaringBitmap::new();
        for (_, place) in self.block.label_pages(name)?.into_iter().flat_map(|label| &label.pages) {
            let page = self.block.label_page(self.cache, place)?;
            for (_, set) in page.values.iter().filter(|(value, _)| is_wanted(value)) {
                self.block.add_set(set, &mut numbers)?;
            }
        }
        Ok(numbers)
    }
}
