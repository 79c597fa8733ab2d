//! The catalogue from nothing: what the blocks say of themselves, here and in the bucket.

use std::sync::Arc;

use super::{BLOCKS, Catalogue, Placed, fault, put_block, put_facts, put_place};
use crate::block::{Block, Meta};
use crate::bucket::Bucket;
use crate::error::Error;
use crate::level::{DayChange, Resolution, State, day_of};

impl Catalogue {
    /// Lists every block that can be read, in one transaction. A bucket that is away stops it: without what is there nobody
    /// knows which raw samples are gone. The log is asked for all that blocks in the directory do not cover, because those in
    /// the bucket may be of another log.
    pub(super) fn rebuild(&mut self, ids: &[u64], bucket: Option<&Arc<Bucket>>) -> Result<u64, Error> {
        let mut blocks: Vec<Meta> =
            ids.iter().filter_map(|id| Block::read_meta(&self.directory, *id)).collect();
        let checkpoint = blocks.iter().map(|meta| meta.checkpoint).max().unwrap_or(0);
        let places =
            bucket.map_or(Ok(Vec::new()), |bucket| add_from(bucket, &mut blocks)).map_err(unknown)?;
        let (days, raw_gone_ms) = levels_of(&blocks);
        self.transact(|write| {
            let mut table = write.open_table(BLOCKS).map_err(fault)?;
            blocks.iter().try_for_each(|meta| put_block(&mut table, meta))?;
            places.iter().try_for_each(|(id, placed)| put_place(write, *id, placed))?;
            put_facts(write, checkpoint, &days, raw_gone_ms)
        })?;
        Ok(blocks.len() as u64)
    }
}

/// Adds the blocks that are only in the bucket, and says where each is that is there.
fn add_from(bucket: &Arc<Bucket>, blocks: &mut Vec<Meta>) -> Result<Vec<(u64, Placed)>, Error> {
    let mut places = Vec::new();
    for (object, id, crc, bytes) in bucket.list()? {
        let Some(meta) = Block::read_meta_in(bucket, (&object, id, bytes))? else { continue };
        match blocks.iter().find(|held| held.id == id) {
            // Another block of the same number: it stays where it is.
            Some(held) if *held != meta => continue,
            Some(_) => {}
            None => blocks.push(meta),
        }
        places.push((id, Placed { object, crc }));
    }
    Ok(places)
}

fn unknown(error: Error) -> Error {
    let fault = format!("there is no catalogue, and what is in the bucket cannot be listed: {error}");
    Error::Config { key: "bucket".to_owned(), fault }
}

/// What blocks tell of levels when the catalogue is lost: which days there are, but not whether they are up to date.
pub(super) fn levels_of(blocks: &[Meta]) -> (Vec<DayChange>, Option<i64>) {
    let mut days = Vec::new();
    for meta in blocks.iter().filter(|meta| meta.resolution() != Resolution::Raw) {
        let touched = day_of(meta.min_ms)..=day_of(meta.max_ms);
        days.extend(touched.map(|day| ((meta.resolution(), day), Some(State::Outdated))));
    }
    let raw = blocks.iter().filter(|meta| meta.resolution() == Resolution::Raw);
    let oldest = raw.map(|meta| meta.min_ms.saturating_sub(1)).min();
    let newest = blocks.iter().map(|meta| meta.max_ms).max();
    let raw_gone_ms = if days.is_empty() { None } else { oldest.or(newest) };
    (days, raw_gone_ms)
}
