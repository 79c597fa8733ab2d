//! Blocks on their way into the bucket and out of the directory.
//!
//! An upload is noted before it begins, with the name of its object; when the object is whole, one transaction makes the note
//! a place. So whatever a crash leaves in the bucket is known and deleted, or written again under the same name. What a
//! replaced or deleted block had there is noted in the transaction that forgets the block, and deleted afterwards.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::block::Block;
use crate::bucket::Bucket;
use crate::catalogue::Placed;
use crate::error::Error;
use crate::maintenance::Maintenance;
use crate::signals::BucketWork;

/// What is deleted from the bucket stays for so long at least, and as long as a query reads it.
const GARBAGE_MS: i64 = 150_000;
/// Bytes that are summed up at once.
const PIECE_BYTES: usize = 1 << 20;

impl Maintenance {
    /// Does what there is to do with the bucket: deletes what is garbage, uploads blocks that are old enough, and deletes
    /// the files of uploaded ones that are older still. What fails is counted and tried again the next time.
    pub fn tend_bucket(&self, unix_millis: i64) {
        self.sweep_bucket(GARBAGE_MS);
        self.upload_due(unix_millis);
    }

    /// Deletes from the bucket what has been garbage for so long.
    pub(crate) fn sweep_bucket(&self, for_ms: i64) {
        let Some(bucket) = &self.shared().bucket else { return };
        let garbage = self.shared().catalogue().garbage(for_ms).unwrap_or_default();
        for object in garbage.into_iter().filter(|object| !bucket.is_read(object)) {
            if self.is_cancelled() || self.count(BucketWork::Delete, bucket.delete(&object)).is_none() {
                return;
            }
            // A note that stays has the object deleted once more.
            let _removed = self.shared().catalogue().remove_garbage(&object);
        }
    }

    fn upload_due(&self, unix_millis: i64) {
        let shared = self.shared();
        let (Some(bucket), Some(config)) = (&shared.bucket, &shared.config.bucket) else { return };
        let is_older = |block: &Block, than: std::time::Duration| {
            than.is_zero() || block.meta().max_ms < unix_millis.saturating_sub(crate::millis(than))
        };
        let blocks = shared.blocks.load_full();
        for block in blocks.iter().filter(|block| block.is_local()) {
            if self.is_cancelled() {
                return;
            }
            let is_placed = shared.catalogue().place(block.meta().id).is_some();
            if !is_placed && is_older(block, config.upload_after) {
                match self.upload(bucket, block) {
                    Ok(()) => {}
                    Err(error @ Error::Bucket { .. }) => {
                        let _counted = self.count::<()>(BucketWork::Upload, Err(error));
                        return;
                    }
                    // The block is gone meanwhile, or its disk fails: others can be uploaded.
                    Err(_) => continue,
                }
            }
            if is_older(block, config.local_for) {
                shared.retire(block.meta().id);
            }
        }
    }

    fn upload(&self, bucket: &Bucket, block: &Arc<Block>) -> Result<(), Error> {
        let began = Instant::now();
        let (id, bytes) = (block.meta().id, block.meta().bytes);
        let crc = checksum(block.path())?;
        let object = bucket.object(id, crc);
        self.shared().catalogue().begin_upload(&object)?;
        bucket.upload(block.path(), &object)?;
        if bucket.length(&object)? != Some(bytes) {
            let text = "what arrived is not as long as the block".to_owned();
            return Err(Error::Bucket { object, text });
        }
        let mut catalogue = self.shared().catalogue();
        // One that was replaced meanwhile stays noted, and is swept.
        if self.shared().blocks.load().iter().any(|held| held.meta().id == id) {
            catalogue.end_upload(id, Placed { object, crc })?;
            drop(catalogue);
            self.shared().signals.block_uploaded(id, bytes, began.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Counts what failed, and tells it when the bucket begins to fail.
    fn count<T>(&self, work: BucketWork, done: Result<T, Error>) -> Option<T> {
        match done {
            Ok(done) => Some(done),
            Err(error) => {
                self.shared().signals.bucket_failed(work);
                if self.shared().bucket.as_ref().is_some_and(|bucket| bucket.is_news()) {
                    self.shared().signals.bucket_lost(&error.to_string());
                }
                None
            }
        }
    }
}

/// CRC-32C of a file.
fn checksum(path: &Path) -> Result<u32, Error> {
    let fault = |source| Error::File { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(fault)?;
    let mut bytes = vec![0; PIECE_BYTES];
    let mut crc = 0;
    loop {
        match file.read(&mut bytes).map_err(fault)? {
            0 => return Ok(crc),
            read => crc = crc32c::crc32c_append(crc, &bytes[..read]),
        }
    }
}
