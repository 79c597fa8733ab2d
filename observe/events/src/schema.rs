//! What the index of a split says about each block of records: the Tantivy schema, and the document of a block.
//!
//! A document of the index is a block, not a record: some hundred records that lie together because they belong to one
//! call or one stream. The index tells which blocks can hold a hit; the records in them are then compared one by one.
//! So no positions, frequencies, norms or stored fields are needed, and a word that each of a block's messages has is
//! indexed once. Why: docs/adr, "Blocks are indexed, not records".

use tantivy::directory::FileSlice;
use tantivy::index::IndexSettings;
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, JsonObjectOptions, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::store::Compressor;
use tantivy::termdict::TermDictionary;
use tantivy::tokenizer::{Token, TokenStream, Tokenizer, TokenizerManager};

use crate::error::Error;

/// Changes whenever a split of before cannot be read or searched as before.
pub(crate) const FORMAT: &str = "belfry-events-3 tantivy-0.27 sstable";

const TOKENIZER: &str = "lines";
/// The column that says which block a document is of: its checksum.
pub(crate) const BLOCK: &str = "block";

/// The schema and its fields.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    pub(crate) schema: Schema,
    /// See [`BLOCK`].
    pub(crate) block: Field,
    /// Keys of calls and traces, see [`crate::facts::call_key`] and [`crate::filter::trace_key`].
    pub(crate) keys: Field,
    /// Words anywhere in a record.
    pub(crate) words: Field,
    /// Words by the name of the attribute or field in which they stand, see [`crate::terms`].
    pub(crate) facts: Field,
    /// The least and the greatest number of each attribute.
    pub(crate) numbers: Field,
}

impl Fields {
    pub(crate) fn new() -> Self {
        let terms = TextOptions::default().set_indexing_options(
            TextFieldIndexing::default()
                .set_tokenizer(TOKENIZER)
                .set_fieldnorms(false)
                .set_index_option(IndexRecordOption::Basic),
        );
        let mut schema = Schema::builder();
        let block = schema.add_u64_field(BLOCK, FAST);
        let keys = schema.add_u64_field("keys", INDEXED);
        let words = schema.add_text_field("words", terms.clone());
        let facts = schema.add_text_field("facts", terms);
        let numbers =
            schema.add_json_field("numbers", JsonObjectOptions::from(FAST).set_expand_dots_enabled());
        Self { schema: schema.build(), block, keys, words, facts, numbers }
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

/// Documents in the order of blocks, and nothing stored in them.
pub(crate) fn settings() -> IndexSettings {
    IndexSettings {
        docstore_compression: Compressor::None,
        docstore_compress_dedicated_thread: false,
        ..IndexSettings::default()
    }
}

/// Tokenizers by name.
pub(crate) fn tokenizers() -> TokenizerManager {
    let tokenizers = TokenizerManager::default();
    tokenizers.register(TOKENIZER, LineTokenizer::default());
    tokenizers
}

/// One term per line: [`crate::terms`] has made the terms, each once.
#[derive(Clone, Debug, Default)]
struct LineTokenizer {
    token: Token,
}

struct LineStream<'a> {
    lines: std::str::Lines<'a>,
    token: &'a mut Token,
}

impl Tokenizer for LineTokenizer {
    type TokenStream<'a> = LineStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> LineStream<'a> {
        self.token.reset();
        LineStream { lines: text.lines(), token: &mut self.token }
    }
}

impl TokenStream for LineStream<'_> {
    fn advance(&mut self) -> bool {
        let Some(line) = self.lines.next() else { return false };
        self.token.text.clear();
        self.token.text.push_str(line);
        // A fresh token's position is the one before the first.
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}
