//! How records lie in a split: the Tantivy schema, and the document made of a record.
//!
//! Call-IDs and trace ids are indexed whole and have no columns: columns of random values would be larger than
//! everything else together. Attributes are one JSON field for words and one for numbers; the whole record is kept
//! beside them in postcard, so that readers get typed records back.

use std::collections::HashSet;

use tantivy::directory::FileSlice;
use tantivy::index::IndexSettings;
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, JsonObjectOptions, OwnedValue, STORED, Schema,
    TextFieldIndexing, TextOptions,
};
use tantivy::store::{Compressor, ZstdCompressor};
use tantivy::termdict::TermDictionary;
use tantivy::tokenizer::{Token, TokenStream, Tokenizer, TokenizerManager};
use tantivy::{IndexSortByField, Order, TantivyDocument};

use belfry_signal::Record;

use crate::error::Error;
use crate::facts::Facts;
use crate::words::Words;

/// Changes whenever a split of before cannot be read or searched as before.
pub(crate) const FORMAT: &str = "belfry-events-1 tantivy-0.27 sstable";

const TOKENIZER: &str = "belfry";
/// Bigger blocks compress better, smaller ones make a single hit cheaper; a hit page is mostly one block.
const DOCSTORE_BLOCK_BYTES: usize = 64 << 10;

/// Name of the column of times, by which documents are sorted, newest first.
pub(crate) const TIME: &str = "time";
/// Name of the column that orders records of the same time.
pub(crate) const SEQUENCE: &str = "sequence";

/// The schema and its fields.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    pub(crate) schema: Schema,
    pub(crate) time: Field,
    pub(crate) sequence: Field,
    pub(crate) kind: Field,
    pub(crate) severity: Field,
    pub(crate) component: Field,
    pub(crate) node: Field,
    pub(crate) region: Field,
    pub(crate) trace_id: Field,
    pub(crate) call_key: Field,
    pub(crate) text: Field,
    pub(crate) attributes: Field,
    pub(crate) numbers: Field,
    pub(crate) record: Field,
}

impl Fields {
    pub(crate) fn new() -> Self {
        let raw = TextOptions::default().set_indexing_options(
            TextFieldIndexing::default()
                .set_tokenizer("raw")
                .set_fieldnorms(false)
                .set_index_option(IndexRecordOption::Basic),
        );
        let words = TextFieldIndexing::default()
            .set_tokenizer(TOKENIZER)
            .set_fieldnorms(false)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let mut schema = Schema::builder();
        let time = schema.add_u64_field(TIME, FAST);
        let sequence = schema.add_u64_field(SEQUENCE, FAST);
        let kind = schema.add_text_field("kind", raw.clone());
        let severity = schema.add_u64_field("severity", INDEXED);
        let component = schema.add_text_field("component", raw.clone());
        let node = schema.add_text_field("node", raw.clone());
        let region = schema.add_text_field("region", raw);
        let trace_id = schema.add_bytes_field("trace_id", INDEXED);
        let call_key = schema.add_u64_field("call_key", INDEXED);
        let text = schema.add_text_field("text", TextOptions::default().set_indexing_options(words.clone()));
        let attributes = schema.add_json_field(
            "attributes",
            JsonObjectOptions::default().set_indexing_options(words).set_expand_dots_enabled(),
        );
        let numbers =
            schema.add_json_field("numbers", JsonObjectOptions::from(FAST).set_expand_dots_enabled());
        let record = schema.add_bytes_field("record", STORED);
        Self {
            schema: schema.build(),
            time,
            sequence,
            kind,
            severity,
            component,
            node,
            region,
            trace_id,
            call_key,
            text,
            attributes,
            numbers,
            record,
        }
    }

    /// The document of a record. `names` are the attribute names that the split has so far; when there are
    /// `names_max` of them, further names are left out of the index and `true` is returned with the document.
    pub(crate) fn document(
        &self,
        record: &Record,
        sequence: u64,
        stored: &[u8],
        text_bytes_max: usize,
        names: &mut HashSet<String>,
        names_max: usize,
    ) -> (TantivyDocument, bool) {
        let facts = Facts::of(record, text_bytes_max);
        let mut document = TantivyDocument::default();
        document.add_u64(self.time, record.unix_nanos);
        document.add_u64(self.sequence, sequence);
        document.add_text(self.kind, facts.kind.as_str());
        document.add_u64(self.severity, facts.severity.number().into());
        document.add_text(self.component, facts.component.to_lowercase());
        if let Some(node) = facts.node {
            document.add_text(self.node, node.to_lowercase());
        }
        if let Some(region) = facts.region {
            document.add_text(self.region, region.to_lowercase());
        }
        if let Some(trace_id) = facts.trace_id {
            document.add_bytes(self.trace_id, &trace_id.0);
        }
        if let Some(call_key) = facts.call_key {
            document.add_u64(self.call_key, call_key.0);
        }
        for text in &facts.texts {
            document.add_text(self.text, text);
        }
        let mut texts = Vec::with_capacity(facts.attributes.len());
        let mut numbers = Vec::new();
        let mut is_over = false;
        for (name, fact) in facts.attributes {
            if !names.contains(name.as_ref()) {
                if names.len() >= names_max {
                    is_over = true;
                    continue;
                }
                names.insert(name.as_ref().to_owned());
            }
            if let Some(number) = fact.number {
                numbers.push((name.as_ref().to_owned(), OwnedValue::F64(number)));
            }
            texts.push((name.into_owned(), OwnedValue::Str(fact.text.into_owned())));
        }
        document.add_field_value(self.attributes, &OwnedValue::Object(texts));
        document.add_field_value(self.numbers, &OwnedValue::Object(numbers));
        document.add_bytes(self.record, stored);
        (document, is_over)
    }
}

/// Makes sure that the index library writes the term dictionary that our splits have.
///
/// The `quickwit` feature of Tantivy decides it for the whole program; were it lost, every split of before would be
/// unreadable and new ones would be of the other kind. The library says which kind it has when it is shown a
/// dictionary of the other.
pub(crate) fn check_dictionary() -> Result<(), Error> {
    let fst_trailer = FileSlice::from(1u32.to_le_bytes().to_vec());
    match TermDictionary::open(fst_trailer) {
        Err(error) if error.to_string().contains("compiled tantivy with SSTable") => Ok(()),
        _ => Err(Error::Format("Tantivy is built without its `quickwit` feature".to_owned())),
    }
}

/// Sorted newest first, so that the newest hits are the first ones and a search stops as soon as it has enough.
pub(crate) fn settings() -> IndexSettings {
    IndexSettings {
        sort_by_field: Some(IndexSortByField { field: TIME.to_owned(), order: Order::Desc }),
        docstore_compression: Compressor::Zstd(ZstdCompressor { compression_level: Some(3) }),
        docstore_blocksize: DOCSTORE_BLOCK_BYTES,
        docstore_compress_dedicated_thread: false,
        ..IndexSettings::default()
    }
}

/// Tokenizers by name: `raw`, and ours.
pub(crate) fn tokenizers() -> TokenizerManager {
    let tokenizers = TokenizerManager::default();
    tokenizers.register(TOKENIZER, WordTokenizer::default());
    tokenizers
}

/// [`Words`] as Tantivy wants it.
#[derive(Clone, Debug, Default)]
struct WordTokenizer {
    token: Token,
}

struct WordStream<'a> {
    words: Words<'a>,
    token: &'a mut Token,
}

impl Tokenizer for WordTokenizer {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { words: Words::new(text), token: &mut self.token }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        // A fresh token's position is the one before the first.
        self.token.position = self.token.position.wrapping_add(1);
        let Some((from, to)) = self.words.next_into(&mut self.token.text) else { return false };
        self.token.offset_from = from;
        self.token.offset_to = to;
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}
