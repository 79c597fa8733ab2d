//! Texts as numbers: the head names each label text once, whatever number of series have it.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Texts by number, and numbers by text.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    texts: Vec<Arc<str>>,
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Symbols {
    /// The number of a text, which is new or not.
    pub(crate) fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.find(text) {
            return number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let hash = self.hasher.hash_one(text);
        self.texts.push(text.into());
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.numbers.insert_unique(hash, number, |number| hasher.hash_one(&*texts[*number as usize]));
        number
    }

    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.numbers.find(hash, |number| &*self.texts[*number as usize] == text).copied()
    }

    pub(crate) fn text(&self, number: u32) -> &Arc<str> {
        &self.texts[number as usize]
    }

    /// Bytes of the texts, about.
    pub(crate) fn bytes(&self) -> usize {
        self.texts.iter().map(|text| text.len() + 48).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }
}
