//! Which blocks there are and how far they cover the log: one redb file, changed in whole transactions.
//!
//! A block exists when the catalogue says so. A file that it does not know is left over from a crash before the
//! transaction, and the log still has its samples; so it is deleted. Only when the catalogue itself is gone or cannot
//! be read do the blocks speak for themselves, each knowing its own checkpoint.

use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableTable, TableDefinition};

use crate::block::{self, Block, Meta};
use crate::error::{Error, catalogue as fault};
use crate::signals::Signals;

const BLOCKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks");
const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");
const CHECKPOINT: &str = "checkpoint";
const FILE: &str = "catalogue.redb";

#[derive(Debug)]
pub(crate) struct Catalogue {
    database: Database,
    directory: PathBuf,
}

/// What the catalogue says at start.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Blocks that can be read, oldest first.
    pub(crate) blocks: Vec<Meta>,
    pub(crate) checkpoint: u64,
    pub(crate) next_id: u64,
}

impl Catalogue {
    /// Opens the catalogue, checks each block's file, and deletes what no transaction published.
    pub(crate) fn open(directory: &Path, signals: &Signals) -> Result<(Self, Contents), Error> {
        let file_fault = |source| Error::File { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(file_fault)?;
        let path = directory.join(FILE);
        let ids = block::list(directory).map_err(file_fault)?;
        let was_there = path.exists();
        let (database, is_readable) = match Database::create(&path) {
            Ok(database) => (database, true),
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(Error::InUse { path }),
            Err(_) => {
                // A start never refuses because of damage: the file is set aside for a person to look at.
                let aside = path.with_extension("damaged");
                std::fs::rename(&path, aside).map_err(file_fault)?;
                (Database::create(&path).map_err(fault)?, false)
            }
        };
        let catalogue = Self { database, directory: directory.to_owned() };
        if !is_readable || (!was_there && !ids.is_empty()) {
            let rebuilt = catalogue.rebuild(&ids)?;
            signals.catalogue_rebuilt(rebuilt);
        }
        let contents = catalogue.read(&ids, signals)?;
        Ok((catalogue, contents))
    }

    fn read(&self, ids: &[u64], signals: &Signals) -> Result<Contents, Error> {
        let write = self.database.begin_write().map_err(fault)?;
        let mut contents = Contents::default();
        {
            let blocks = write.open_table(BLOCKS).map_err(fault)?;
            let facts = write.open_table(FACTS).map_err(fault)?;
            contents.checkpoint = facts.get(CHECKPOINT).map_err(fault)?.map_or(0, |value| value.value());
            for row in blocks.iter().map_err(fault)? {
                let (id, meta) = row.map_err(fault)?;
                contents.next_id = id.value() + 1;
                let meta = postcard::from_bytes::<Meta>(meta.value()).ok();
                match meta.filter(|meta| block::is_whole(&self.directory, meta.id)) {
                    Some(meta) => contents.blocks.push(meta),
                    None => signals.block_damaged(id.value()),
                }
            }
            for id in ids {
                contents.next_id = contents.next_id.max(id + 1);
                if blocks.get(id).map_err(fault)?.is_none() {
                    // What cannot be deleted now is tried again at the next start.
                    let _deleted = std::fs::remove_file(block::path(&self.directory, *id));
                }
            }
        }
        write.commit().map_err(fault)?;
        Ok(contents)
    }

    /// Lists every block that can be read.
    fn rebuild(&self, ids: &[u64]) -> Result<u64, Error> {
        let blocks: Vec<Meta> = ids
            .iter()
            .filter_map(|id| Block::open(&self.directory, *id).ok())
            .map(|block| block.meta().clone())
            .collect();
        let checkpoint = blocks.iter().map(|meta| meta.checkpoint).max().unwrap_or(0);
        self.change(&blocks, &[], checkpoint)?;
        Ok(blocks.len() as u64)
    }

    /// Publishes blocks and forgets others, in one transaction with the checkpoint.
    pub(crate) fn change(&self, added: &[Meta], removed: &[u64], checkpoint: u64) -> Result<(), Error> {
        let write = self.database.begin_write().map_err(fault)?;
        {
            let mut blocks = write.open_table(BLOCKS).map_err(fault)?;
            for meta in added {
                let bytes = postcard::to_stdvec(meta).map_err(Error::Encode)?;
                blocks.insert(meta.id, bytes.as_slice()).map_err(fault)?;
            }
            for id in removed {
                blocks.remove(id).map_err(fault)?;
            }
            let mut facts = write.open_table(FACTS).map_err(fault)?;
            facts.insert(CHECKPOINT, checkpoint).map_err(fault)?;
        }
        write.commit().map_err(fault)
    }
}
