//! Blocks in an object store: a bucket that speaks S3, or a directory that is mounted from elsewhere.
//!
//! The library (`object_store`) is asynchronous and the store is not, so the bucket has a thread of its own with a small
//! runtime, and whoever asks waits for the answer, within the configured time. When the bucket did not answer, the next
//! questions within a few seconds are refused at once: a query over a hundred blocks must not wait a hundred times.

mod http;

use std::collections::HashMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
};
use tokio::runtime::Runtime;

use crate::block::PageCache;
use crate::config::BucketConfig;
use crate::error::Error;

/// Parts of an upload: S3 allows no smaller ones but the last, and ten thousand of them.
const PART_BYTES: usize = if cfg!(test) { 5 << 20 } else { 16 << 20 };
/// Ranges are read and kept in pieces of this size.
const PIECE_BYTES: u64 = 256 << 10;
/// For how long a bucket that failed is not asked again by readers.
const PAUSE: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(5) };
/// How often a question that need not be waited for to its end looks whether it may stop.
const CLOSING: Duration = Duration::from_millis(50);
/// What the library says of an answer that is an error of the one question, and not of the bucket.
const REFUSED: &str = "non-2xx status code: 4";
/// How long the names of all objects may take.
const LIST_TIMEOUT: Duration = Duration::from_mins(5);
/// Tries beside the first, within the time that a question may take.
const RETRIES_MAX: usize = 2;

/// An open bucket.
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// A directory in the place of a bucket, in which there is nothing.
    empty: Option<PathBuf>,
    timeout: Duration,
    runtime: Option<Runtime>,
    /// When it last did not answer readers, and how.
    failed: Mutex<Option<(Instant, String)>>,
    cache: PageCache,
    /// Whether it was told that uploads and deletions fail.
    is_told: AtomicBool,
    /// Uploads and deletions end soon.
    is_closing: AtomicBool,
    /// How many blocks, each held by whoever still reads it, are read from an object.
    readers: Mutex<HashMap<String, usize>>,
}

/// An object that is read from: it is not deleted meanwhile.
#[derive(Debug)]
pub(crate) struct Object {
    bucket: Arc<Bucket>,
    name: String,
}

impl Object {
    pub(crate) fn new(bucket: &Arc<Bucket>, name: &str) -> Self {
        *bucket.readers().entry(name.to_owned()).or_default() += 1;
        Self { bucket: Arc::clone(bucket), name: name.to_owned() }
    }

    /// As [`Bucket::read`].
    pub(crate) fn read(&self, id: u64, length: u64, out: &mut [u8], offset: u64) -> Result<(), Error> {
        self.bucket.read((id, &self.name, length), out, offset)
    }

    /// As [`Bucket::forget`].
    pub(crate) fn forget(&self, id: u64) {
        self.bucket.forget(id);
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let mut readers = self.bucket.readers();
        let left = readers.get_mut(&self.name).map_or(0, |count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == 0 {
            readers.remove(&self.name);
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// Readers; when there is no answer, the next ones do not ask for a while.
    Reading,
    /// Uploads and deletions, whose failures say nothing of reading.
    Writing,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let failed = &*self.failed();
        f.debug_struct("Bucket").field("prefix", &self.prefix).field("failed", failed).finish_non_exhaustive()
    }
}

impl Bucket {
    /// Opens a bucket. It is not asked anything yet: one that is away does not stop a start.
    ///
    /// # Errors
    /// When the section or a file with a secret cannot be used.
    pub(crate) fn open(config: &BucketConfig) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("belfry-bucket")
            .enable_all()
            .build()
            .map_err(Error::Thread)?;
        let is_empty =
            |path: &PathBuf| std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
        let empty = config.directory.clone().filter(is_empty);
        let store: Arc<dyn ObjectStore> = match &config.directory {
            Some(directory) => {
                let fault = |source| Error::File { path: directory.clone(), source };
                std::fs::create_dir_all(directory).map_err(fault)?;
                let local = object_store::local::LocalFileSystem::new_with_prefix(directory);
                Arc::new(local.map_err(|error| wrong("directory", &error))?.with_fsync(true))
            }
            None => Arc::new(s3(config)?),
        };
        Ok(Self {
            store,
            prefix: Path::from(config.prefix.as_str()),
            empty,
            timeout: config.timeout,
            runtime: Some(runtime),
            failed: Mutex::default(),
            cache: PageCache::new(config.cache_bytes_max),
            is_told: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            readers: Mutex::default(),
        })
    }

    /// The name of a block's object; another content has another.
    pub(crate) fn object(&self, id: u64, crc: u32) -> String {
        self.prefix.clone().join(format!("{id:016}-{crc:08x}.block")).to_string()
    }

    /// Refuses a directory that should hold blocks and holds nothing: what it should be is not mounted.
    ///
    /// # Errors
    /// When it is so.
    pub(crate) fn check_holds(&self, blocks: usize) -> Result<(), Error> {
        let Some(path) = self.empty.as_ref().filter(|_| blocks > 0) else { return Ok(()) };
        // One that we made would look as if it were there.
        let _removed = std::fs::remove_dir(path);
        let fault = format!(
            "{} is missing or empty, and should hold {blocks} blocks: mount it; if they are lost for good, put a file into it",
            path.display()
        );
        Err(Error::Config { key: "bucket.directory".to_owned(), fault })
    }

    /// All our blocks in the bucket: object, block, checksum and length.
    ///
    /// # Errors
    /// When the bucket fails.
    pub(crate) fn list(&self) -> Result<Vec<(String, u64, u32, u64)>, Error> {
        let (store, prefix) = (Arc::clone(&self.store), self.prefix.clone());
        let listed = self.wait(For::Writing, self.prefix.as_ref(), LIST_TIMEOUT, async move {
            store.list_with_delimiter(Some(&prefix)).await
        })?;
        let block = |meta: object_store::ObjectMeta| {
            let (id, crc) = meta.location.filename()?.strip_suffix(".block")?.split_once('-')?;
            let crc = u32::from_str_radix(crc, 16).ok()?;
            Some((meta.location.to_string(), id.parse().ok()?, crc, meta.size))
        };
        Ok(listed.objects.into_iter().filter_map(block).collect())
    }

    /// Copies a file into the bucket. What S3 receives it checks against SHA-256 sums of ours.
    ///
    /// # Errors
    /// When the file or the bucket fails; a part of an upload is no object.
    pub(crate) fn upload(&self, file: &FilePath, object: &str) -> Result<(), Error> {
        let path = Path::from(object);
        let fault = |source| Error::File { path: file.to_owned(), source };
        let mut parts = Parts { file: std::fs::File::open(file).map_err(fault)?, path: file };
        let first = parts.next()?.unwrap_or_default();
        if first.len() < PART_BYTES {
            let store = Arc::clone(&self.store);
            let put = async move { store.put(&path, PutPayload::from(first)).await.map(drop) };
            return self.write(object, put);
        }
        let (store, target) = (Arc::clone(&self.store), path);
        let mut upload = self.write(object, async move { store.put_multipart(&target).await })?;
        let sent = self.send_parts(object, &mut upload, first, &mut parts);
        if sent.is_err() {
            // What cannot be given back now, the bucket's own rule for unfinished uploads takes.
            let _aborted = self.write(object, async move { upload.abort().await });
            return sent;
        }
        self.write(object, async move { upload.complete().await.map(drop) })
    }

    fn send_parts(
        &self,
        object: &str,
        upload: &mut Box<dyn MultipartUpload>,
        first: Vec<u8>,
        parts: &mut Parts<'_>,
    ) -> Result<(), Error> {
        let mut part = Some(first);
        while let Some(bytes) = part {
            let sent = upload.put_part(PutPayload::from(bytes));
            self.wait(For::Writing, object, self.timeout.saturating_mul(4), sent)?;
            part = parts.next()?;
        }
        Ok(())
    }

    /// Deletes an object; one that is not there is deleted.
    ///
    /// # Errors
    /// When the bucket fails.
    pub(crate) fn delete(&self, object: &str) -> Result<(), Error> {
        let (store, path) = (Arc::clone(&self.store), Path::from(object));
        self.write(object, async move {
            match store.delete(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                other => other,
            }
        })
    }

    /// How long an object is; none when there is none.
    ///
    /// # Errors
    /// When the bucket fails.
    pub(crate) fn length(&self, object: &str) -> Result<Option<u64>, Error> {
        let (store, path) = (Arc::clone(&self.store), Path::from(object));
        self.write(object, async move {
            match store.head(&path).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(other) => Err(other),
            }
        })
    }

    /// Fills `out` from a place in an object of this length, by pieces that are kept for a while.
    ///
    /// # Errors
    /// When the bucket fails, or failed a moment ago.
    pub(crate) fn read(
        &self,
        (id, object, length): (u64, &str, u64),
        out: &mut [u8],
        offset: u64,
    ) -> Result<(), Error> {
        let mut filled = 0;
        while filled < out.len() {
            let at = offset + filled as u64;
            let number = at / PIECE_BYTES;
            let piece = self.cache.get((id, number), || {
                let range = number * PIECE_BYTES..((number + 1) * PIECE_BYTES).min(length);
                let wanted = range.end.saturating_sub(range.start);
                let bytes = self.fetch(object, range)?;
                if bytes.len() as u64 != wanted {
                    return Err(Error::Lost { object: object.to_owned() });
                }
                let size = bytes.len();
                Ok::<_, Error>((bytes, size))
            })?;
            let begin = usize::try_from(at % PIECE_BYTES).unwrap_or(usize::MAX);
            let part = piece.get(begin..).unwrap_or_default();
            let taken = part.len().min(out.len() - filled);
            if taken == 0 {
                return Err(Error::Lost { object: object.to_owned() });
            }
            out[filled..filled + taken].copy_from_slice(&part[..taken]);
            filled += taken;
        }
        Ok(())
    }

    fn fetch(&self, object: &str, range: std::ops::Range<u64>) -> Result<Vec<u8>, Error> {
        if let Some((at, text)) = &*self.failed()
            && at.elapsed() < PAUSE
        {
            return Err(failure(object, text));
        }
        let (store, path) = (Arc::clone(&self.store), Path::from(object));
        let get = async move { store.get_range(&path, range).await.map(Vec::from) };
        self.wait(For::Reading, object, self.timeout, get)
    }

    /// Forgets what was read of a block.
    pub(crate) fn forget(&self, id: u64) {
        self.cache.forget(id);
    }

    /// Whether somebody still reads from an object.
    pub(crate) fn is_read(&self, object: &str) -> bool {
        self.readers().contains_key(object)
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, HashMap<String, usize>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on uploads and deletions end soon; reading goes on.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// Whether nobody was told yet that it fails; from now on somebody was.
    pub(crate) fn is_news(&self) -> bool {
        !self.is_told.swap(true, Ordering::Relaxed)
    }

    /// Whether it did not answer readers a moment ago.
    pub(crate) fn is_failing(&self) -> bool {
        self.failed().as_ref().is_some_and(|(at, _)| at.elapsed() < PAUSE)
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, Option<(Instant, String)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a question in the bucket's thread and waits for its answer. Callers may be in any thread, but for one that
    /// must not block.
    fn wait<T: Send + 'static>(
        &self,
        purpose: For,
        object: &str,
        timeout: Duration,
        question: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, answers) = sync_channel(1);
        let Some(runtime) = &self.runtime else { return Err(failure(object, "it is closed")) };
        let task = runtime.spawn(async move {
            let answer = tokio::time::timeout(timeout, question).await;
            // Nobody waits for it when the process ends.
            let _gone = sender.send(answer);
        });
        let answer = loop {
            match answers.recv_timeout(CLOSING) {
                Err(RecvTimeoutError::Timeout) if purpose == For::Writing && self.is_closing() => {
                    task.abort();
                    return Err(failure(object, "it is closed"));
                }
                Err(RecvTimeoutError::Timeout) => {}
                answer => break answer,
            }
        };
        let is_reading = purpose == For::Reading;
        let (text, is_answered) = match answer {
            Ok(Ok(Ok(answer))) => {
                if is_reading {
                    *self.failed() = None;
                } else {
                    self.is_told.store(false, Ordering::Relaxed);
                }
                return Ok(answer);
            }
            Ok(Ok(Err(object_store::Error::NotFound { .. }))) if is_reading => {
                return Err(Error::Lost { object: object.to_owned() });
            }
            Ok(Ok(Err(error))) => {
                let text = error.to_string();
                let is_generic = matches!(error, object_store::Error::Generic { .. });
                let is_answered = !is_generic || text.contains(REFUSED);
                (text, is_answered)
            }
            Ok(Err(_)) => (format!("no answer within {} s", timeout.as_secs_f64()), false),
            Err(_) => ("it is closed".to_owned(), false),
        };
        if is_reading && !is_answered {
            *self.failed() = Some((Instant::now(), text.clone()));
        }
        Err(failure(object, &text))
    }

    /// As [`wait`](Self::wait), for uploads and deletions.
    fn write<T: Send + 'static>(
        &self,
        object: &str,
        question: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, Error> {
        self.wait(For::Writing, object, self.timeout, question)
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // It may be dropped inside another runtime, which must not wait.
            runtime.shutdown_background();
        }
    }
}

/// A file, part by part.
struct Parts<'a> {
    file: std::fs::File,
    path: &'a FilePath,
}

impl Parts<'_> {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        use std::io::Read;
        let mut bytes = Vec::with_capacity(PART_BYTES);
        let read = (&mut self.file).take(PART_BYTES as u64).read_to_end(&mut bytes);
        read.map_err(|source| Error::File { path: self.path.to_owned(), source })?;
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}

fn s3(config: &BucketConfig) -> Result<object_store::aws::AmazonS3, Error> {
    let (id, secret) = config.keys()?;
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() },
        max_retries: RETRIES_MAX,
        retry_timeout: config.timeout,
    };
    let is_plain = config.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(config.name.as_deref().unwrap_or_default())
        .with_region(&config.region)
        .with_access_key_id(id)
        .with_secret_access_key(secret)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_retry(retry)
        .with_client_options(ClientOptions::new().with_allow_http(is_plain))
        .with_http_connector(http::Connector);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    builder.build().map_err(|error| wrong("name", &error))
}

fn wrong(key: &str, error: &object_store::Error) -> Error {
    Error::Config { key: format!("bucket.{key}"), fault: error.to_string() }
}

fn failure(object: &str, text: &str) -> Error {
    Error::Bucket { object: object.to_owned(), text: text.to_owned() }
}
