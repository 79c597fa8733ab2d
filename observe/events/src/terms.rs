//! What a block of records can be found by: each word, fact and key once, however many of its records have it.
//!
//! Messages of one call repeat most of their lines, and so do log lines of one callsite. A line or an attribute that was
//! seen before in the block is recognised by a keyed hash of it, and costs no more than that hash.
//!
//! Facts are terms of a name and a word, as `sip.method`, NUL, `invite`. The names of fixed fields begin with a
//! character that no attribute's name has.
//!
//! Of an identifier, as a tag or a nonce, the term is a hash of 36 bits, and one more is its first letters, so that it is
//! found whole and by its beginning without being spelled out.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use belfry_signal::Severity;
use foldhash::quality::RandomState;
use tantivy::TantivyDocument;
use tantivy::schema::OwnedValue;

use crate::facts::{Fact, Facts, RecordKind, call_key};
use crate::filter::{trace_key, word_key};
use crate::query::SEVERITIES;
use crate::schema::Fields;
use crate::words::{Words, is_identifier, push_lower};

/// Stands between the name and the word of a fact.
pub(crate) const SEPARATOR: char = '\0';
/// Fixed fields, as the names of facts.
pub(crate) const KIND: &str = "\u{1}kind";
pub(crate) const SEVERITY: &str = "\u{1}severity";
pub(crate) const COMPONENT: &str = "\u{1}component";
pub(crate) const NODE: &str = "\u{1}node";
pub(crate) const REGION: &str = "\u{1}region";
/// In the place of a word: the attribute is a measured number somewhere in the block.
pub(crate) const MEASURED: &str = "\u{1}";
/// The block has attributes that are not indexed, because the split has too many names.
pub(crate) const UNINDEXED: &str = "\u{2}";

/// What is hashed is told apart by its first byte, which no text has: lines are hashed as they are, and senders choose
/// what stands in them.
const WORD: u8 = 0xfe;
const FACT: u8 = 0xfd;
const CALL: u8 = 0xfc;
const TRACE: u8 = 0xfb;
const INT: u8 = 0xfa;
const FLOAT: u8 = 0xf9;
const LETTERS: u8 = 0xf8;

/// Before the hash of an identifier.
const HASHED: char = '\u{3}';
/// Before the first letters of an identifier.
const BEGINNING: char = '\u{4}';
const BEGINNING_LETTERS: usize = 4;

type Seen = HashSet<u64, BuildHasherDefault<Same>>;

/// The names of attributes that a split has, up to a number.
#[derive(Debug)]
pub(crate) struct Names {
    known: HashSet<String, RandomState>,
    max: usize,
}

/// Gathers the terms of one block after the other.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    hasher: RandomState,
    seen: Seen,
    words: String,
    facts: String,
    /// A word in lower case, for a moment.
    lower: String,
    numbers: HashMap<u64, (String, f64, f64), BuildHasherDefault<Same>>,
    keys: Vec<u64>,
    kinds: [bool; RecordKind::ALL.len()],
    severities: [bool; SEVERITIES.len()],
    is_over: bool,
}

/// For numbers that are hashes already.
#[derive(Debug, Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "only for hashes, not for {bytes:?}");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Names {
    pub(crate) fn new(max: usize) -> Self {
        Self { known: HashSet::default(), max }
    }

    /// Whether the name is indexed: it is known, or there is room for one more.
    fn admit(&mut self, name: &str) -> bool {
        if self.known.contains(name) {
            return true;
        }
        if self.known.len() >= self.max {
            return false;
        }
        self.known.insert(name.to_owned())
    }
}

/// Adds the term of a word in lower case.
pub(crate) fn push_term(terms: &mut String, word: &str) {
    const DIGITS: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
    if !is_identifier(word) {
        return terms.push_str(word);
    }
    terms.push(HASHED);
    let key = word_key(word);
    terms.extend((0..6).map(|digit| char::from(DIGITS[usize::from((key >> (6 * digit)) as u8 & 63)])));
}

/// The term of the first letters of identifiers that may begin with `beginning`, which is all of them or their
/// beginning again.
pub(crate) fn beginning_term(beginning: &str) -> (String, bool) {
    let letters = first_letters(beginning);
    (format!("{BEGINNING}{letters}"), letters.chars().count() < BEGINNING_LETTERS)
}

fn first_letters(word: &str) -> &str {
    let end = word.char_indices().nth(BEGINNING_LETTERS).map_or(word.len(), |(index, _)| index);
    &word[..end]
}

/// Whether a phrase's words could be a measured number's text.
pub(crate) fn may_be_measured(words: &[String]) -> bool {
    words.iter().all(|word| {
        word.bytes().all(|byte| byte.is_ascii_digit())
            || "nan".starts_with(word.as_str())
            || "inf".starts_with(word.as_str())
    })
}

impl Terms {
    /// Takes what a record can be found by.
    pub(crate) fn add(&mut self, facts: &Facts<'_>, names: &mut Names) {
        self.kinds[facts.kind as usize] = true;
        self.severities[severity_index(facts.severity)] = true;
        self.whole(COMPONENT, facts.component);
        if let Some(node) = facts.node {
            self.whole(NODE, node);
        }
        if let Some(region) = facts.region {
            self.whole(REGION, region);
        }
        if let Some(trace_id) = facts.trace_id {
            let hash = self.hasher.hash_one((TRACE, trace_id));
            if self.seen.insert(hash) {
                self.keys.push(trace_key(&trace_id.0));
            }
        }
        if let Some(call_id) = facts.call_id {
            let hash = self.hasher.hash_one((CALL, call_id));
            if self.seen.insert(hash) {
                self.keys.push(call_key(call_id));
            }
        }
        for text in &facts.texts {
            for line in text.split('\n') {
                self.line(line);
            }
        }
        for (name, fact) in &facts.attributes {
            self.fact(name, fact, names);
        }
    }

    /// A name that is compared whole.
    fn whole(&mut self, name: &str, text: &str) {
        let hash = self.hasher.hash_one((name, text));
        if self.seen.insert(hash) {
            self.facts.push_str(name);
            self.facts.push(SEPARATOR);
            self.facts.push_str(&text.to_lowercase().replace('\n', " "));
            self.facts.push('\n');
        }
    }

    fn line(&mut self, line: &str) {
        let hash = self.hasher.hash_one(line);
        if !self.seen.insert(hash) {
            return;
        }
        let mut words = Words::new(line);
        while let Some(word) = words.next_raw() {
            self.word(word);
        }
    }

    fn word(&mut self, word: &str) {
        let hash = self.hasher.hash_one((WORD, word));
        if self.seen.insert(hash) {
            self.lower.clear();
            push_lower(&mut self.lower, word);
            push_term(&mut self.words, &self.lower);
            self.words.push('\n');
            if is_identifier(&self.lower) {
                let letters = first_letters(&self.lower);
                if self.seen.insert(self.hasher.hash_one((LETTERS, letters))) {
                    self.words.push(BEGINNING);
                    self.words.push_str(letters);
                    self.words.push('\n');
                }
            }
        }
    }

    fn fact(&mut self, name: &str, fact: &Fact<'_>, names: &mut Names) {
        let hash = match fact {
            Fact::Text(text) => self.hasher.hash_one((name, text.as_ref())),
            Fact::Int(number) => self.hasher.hash_one((INT, name, number)),
            Fact::Float(_) => self.hasher.hash_one((FLOAT, name)),
        };
        let is_new = self.seen.insert(hash);
        if !is_new && !matches!(fact, Fact::Float(_)) {
            return;
        }
        let is_indexed = names.admit(name);
        self.is_over |= !is_indexed;
        if let Some(number) = fact.number().filter(|_| is_indexed) {
            let hash = self.hasher.hash_one(name);
            let (_, least, greatest) =
                self.numbers.entry(hash).or_insert_with(|| (name.to_owned(), number, number));
            *least = least.min(number);
            *greatest = greatest.max(number);
        }
        if !is_new {
            return;
        }
        if matches!(fact, Fact::Float(_)) {
            if is_indexed {
                self.push_fact(name, MEASURED);
            }
            return;
        }
        let text = fact.text();
        let mut words = Words::new(&text);
        while let Some(word) = words.next_raw() {
            self.word(word);
            let hash = self.hasher.hash_one((FACT, name, word));
            if is_indexed && self.seen.insert(hash) {
                self.named_word(name, word);
            }
        }
    }

    fn named_word(&mut self, name: &str, word: &str) {
        self.lower.clear();
        push_lower(&mut self.lower, word);
        self.facts.push_str(name);
        self.facts.push(SEPARATOR);
        push_term(&mut self.facts, &self.lower);
        self.facts.push('\n');
        if is_identifier(&self.lower) {
            self.facts.push_str(name);
            self.facts.push(SEPARATOR);
            self.facts.push(BEGINNING);
            self.facts.push_str(first_letters(&self.lower));
            self.facts.push('\n');
        }
    }

    fn push_fact(&mut self, name: &str, word: &str) {
        self.facts.push_str(name);
        self.facts.push(SEPARATOR);
        push_lower(&mut self.facts, word);
        self.facts.push('\n');
    }

    /// Whether attributes were left out of the block's terms.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The document of the block, which ends here.
    pub(crate) fn finish(&mut self, fields: &Fields, block: u32, keys: &mut Vec<u64>) -> TantivyDocument {
        for (kind, is_there) in RecordKind::ALL.iter().zip(std::mem::take(&mut self.kinds)) {
            if is_there {
                self.push_fact(KIND, kind.as_str());
            }
        }
        for (severity, is_there) in SEVERITIES.iter().zip(std::mem::take(&mut self.severities)) {
            if is_there {
                self.push_fact(SEVERITY, severity.as_str());
            }
        }
        if std::mem::take(&mut self.is_over) {
            self.facts.push_str(UNINDEXED);
        }
        let mut document = TantivyDocument::default();
        document.add_u64(fields.block, block.into());
        for key in &self.keys {
            document.add_u64(fields.keys, *key);
        }
        document.add_text(fields.words, &self.words);
        document.add_text(fields.facts, &self.facts);
        let bounds = |least: f64, greatest: f64| {
            OwnedValue::Array(vec![OwnedValue::F64(least), OwnedValue::F64(greatest)])
        };
        let numbers = self.numbers.drain();
        let numbers = numbers.map(|(_, (name, least, greatest))| (name, bounds(least, greatest))).collect();
        document.add_field_value(fields.numbers, &OwnedValue::Object(numbers));
        keys.append(&mut self.keys);
        self.seen.clear();
        self.words.clear();
        self.facts.clear();
        document
    }
}

fn severity_index(severity: Severity) -> usize {
    SEVERITIES.iter().position(|known| *known == severity).unwrap_or_default()
}
