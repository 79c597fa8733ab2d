//! Putting a split together, record by record: packed blocks into its file, their terms into its index.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use belfry_signal::Record;
use belfry_signal::record::Name;
use tantivy::directory::RamDirectory;
use tantivy::indexer::SingleSegmentIndexWriter;
use tantivy::{IndexBuilder, TantivyDocument};

use crate::blocks::{BlockRow, Packer, Run, Stub, unpack_one};
use crate::bundle::BundleWriter;
use crate::catalogue::SplitRow;
use crate::config::Config;
use crate::error::Error;
use crate::facts::Facts;
use crate::filter::Filter;
use crate::schema::{Fields, settings, tokenizers};
use crate::terms::{Names, Terms};

/// A split on its way. What is not finished leaves a file without a durable name.
pub(crate) struct Assembly<'a> {
    config: &'a Config,
    fields: &'a Fields,
    path: PathBuf,
    row: SplitRow,
    directory: RamDirectory,
    index: SingleSegmentIndexWriter,
    bundle: BundleWriter,
    packer: Packer,
    names: Names,
    terms: Terms,
    keys: Vec<u64>,
    blocks: Vec<BlockRow>,
    components: HashSet<Name>,
    run: Run,
}

impl<'a> Assembly<'a> {
    /// Begins a split. `row` says what the records do not.
    pub(crate) fn begin(
        path: &Path,
        row: SplitRow,
        config: &'a Config,
        fields: &'a Fields,
    ) -> Result<Self, Error> {
        let disk = |source| Error::disk("write", path, source);
        let directory = RamDirectory::create();
        let index = IndexBuilder::new()
            .schema(fields.schema.clone())
            .settings(settings())
            .tokenizers(tokenizers())
            .single_segment_index_writer::<TantivyDocument>(directory.clone(), config.index_memory_bytes)?;
        Ok(Self {
            config,
            fields,
            path: path.to_owned(),
            row: SplitRow { has_unindexed_names: false, ..row },
            directory,
            index,
            bundle: BundleWriter::create(path).map_err(disk)?,
            packer: Packer::new().map_err(disk)?,
            names: Names::new(config.split_attributes_max),
            terms: Terms::default(),
            keys: Vec::new(),
            blocks: Vec::new(),
            components: HashSet::new(),
            run: Run::Rest,
        })
    }

    /// Takes a record. Those of one run should come together.
    pub(crate) fn push(&mut self, sequence: u64, record: &Record) -> Result<(), Error> {
        self.index(record, Run::of(record))?;
        self.packer.push(sequence, record).map_err(|error| self.unstorable(&error))
    }

    /// Takes a record of a live batch as it stands there.
    pub(crate) fn push_packed(&mut self, stub: &Stub, bytes: &[u8]) -> Result<(), Error> {
        let (_, record) = unpack_one(bytes).map_err(|error| self.unstorable(&error))?;
        self.index(&record, stub.place.0)?;
        self.packer.push_packed(bytes, stub.unix_nanos).map_err(|error| self.unstorable(&error))
    }

    fn unstorable(&self, error: &dyn std::error::Error) -> Error {
        Error::Damaged { split: self.row.id, what: format!("record cannot be stored: {error}") }
    }

    /// What the record can be found by goes to its block, which is the present one or the next.
    fn index(&mut self, record: &Record, run: Run) -> Result<(), Error> {
        if self.packer.is_full() || run != self.run {
            self.end_block()?;
            self.run = run;
        }
        if !self.components.contains(&record.component) {
            self.components.insert(record.component.clone());
        }
        self.terms.add(&Facts::of(record, self.config.record_text_bytes_max), &mut self.names);
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), Error> {
        if self.packer.is_empty() {
            return Ok(());
        }
        let disk = |source| Error::disk("write", &self.path, source);
        self.row.has_unindexed_names |= self.terms.is_over();
        let (packed, block) = self.packer.finish(self.bundle.offset()).map_err(disk)?;
        self.bundle.write(&packed).map_err(disk)?;
        self.index.add_document(self.terms.finish(self.fields, block.crc, &mut self.keys))?;
        self.blocks.push(block);
        Ok(())
    }

    /// Makes the split durable; the row is then complete.
    pub(crate) fn finish(mut self) -> Result<SplitRow, Error> {
        self.end_block()?;
        let Self { config, path, mut row, directory, index, bundle, mut keys, blocks, components, .. } = self;
        keys.sort_unstable();
        keys.dedup();
        row.set_components(components.into_iter().map(|name| name.to_lowercase()));
        row.filter = Filter::of(&keys, config.filter_bytes_max);
        row.from_nanos = blocks.iter().map(|block| block.from_nanos).min().unwrap_or_default();
        row.to_nanos = blocks.iter().map(|block| block.to_nanos).max().unwrap_or_default();
        row.records = blocks.iter().map(|block| u64::from(block.records)).sum();
        let index = index.finalize()?;
        bundle.finish(&index, &directory, blocks, row).map_err(|source| Error::disk("write", &path, source))
    }
}
