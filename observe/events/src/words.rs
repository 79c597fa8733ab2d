//! How text becomes words: one rule for the index, for the live buffer and for what people type.
//!
//! A word is a run of letters and digits, in lower case, cut at [`WORD_BYTES_MAX`]. Everything else separates
//! words, so `sip:alice@example.com` is the phrase `sip alice example com` wherever it stands.

/// Longer words are cut here, when indexing and when searching alike.
pub(crate) const WORD_BYTES_MAX: usize = 128;
/// A phrase has at most this many words (one bit each in [`Phrase::is_in`]).
pub(crate) const PHRASE_WORDS_MAX: usize = 64;

/// Reads words off a text, one after the other, into a buffer of the caller's.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    text: &'a str,
    offset: usize,
}

/// Some words in a row; the last may be the beginning of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phrase {
    /// The words.
    pub words: Vec<String>,
    /// Whether the last is only a beginning.
    pub is_prefix: bool,
}

impl<'a> Words<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, offset: 0 }
    }

    /// Puts the next word into `word` and says whether there was one.
    pub(crate) fn next_into(&mut self, word: &mut String) -> bool {
        word.clear();
        let Some(found) = self.next_raw() else { return false };
        push_lower(word, found);
        true
    }

    /// The next word as it stands in the text: neither in lower case nor cut.
    pub(crate) fn next_raw(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let mut from = self.offset;
        while let Some(byte) = bytes.get(from) {
            if byte.is_ascii() {
                if byte.is_ascii_alphanumeric() {
                    break;
                }
                from += 1;
            } else {
                let c = self.text[from..].chars().next()?;
                if c.is_alphanumeric() {
                    break;
                }
                from += c.len_utf8();
            }
        }
        if from >= bytes.len() {
            self.offset = from;
            return None;
        }
        let mut to = from;
        while let Some(byte) = bytes.get(to) {
            if byte.is_ascii() {
                if !byte.is_ascii_alphanumeric() {
                    break;
                }
                to += 1;
            } else {
                let c = self.text[to..].chars().next()?;
                if !c.is_alphanumeric() {
                    break;
                }
                to += c.len_utf8();
            }
        }
        self.offset = to;
        Some(&self.text[from..to])
    }
}

/// Adds a word in lower case and cut, as it is indexed and compared. Letter by letter: the word's beginning never
/// depends on its end, so prefixes stay prefixes.
pub(crate) fn push_lower(word: &mut String, text: &str) {
    if text.is_ascii() && text.len() <= WORD_BYTES_MAX {
        let from = word.len();
        word.push_str(text);
        word[from..].make_ascii_lowercase();
        return;
    }
    let bytes_max = word.len() + WORD_BYTES_MAX;
    for lower in text.chars().flat_map(char::to_lowercase) {
        if word.len() + lower.len_utf8() > bytes_max {
            return;
        }
        word.push(lower);
    }
}

/// Identifiers of machines, as tags, branches and nonces: long, with digits among letters, or more digits than a
/// telephone number has. Nearly each is seen once or twice, so a dictionary of them would be larger than all else.
pub(crate) fn is_identifier(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let length = word.len();
    (length >= 12 && digits > 0 && digits < length) || (length >= 16 && digits == length)
}

impl Phrase {
    /// The words of a text.
    pub(crate) fn of(text: &str, is_prefix: bool) -> Self {
        let mut words = Vec::new();
        let mut reader = Words::new(text);
        let mut word = String::new();
        while reader.next_into(&mut word) {
            words.push(word.clone());
        }
        // `gateway *` or `gateway-*` would otherwise make `gateway` a beginning, which nobody asked for.
        let ends_in_word = text.chars().next_back().is_some_and(char::is_alphanumeric);
        Self { words, is_prefix: is_prefix && ends_in_word }
    }

    /// Whether the phrase stands in the text. Shift-and: bit `i` says that words `0..=i` match up to here.
    pub(crate) fn is_in(&self, text: &str, word: &mut String) -> bool {
        let Some(last) = self.words.len().checked_sub(1).filter(|last| *last < PHRASE_WORDS_MAX) else {
            return false;
        };
        let mut reader = Words::new(text);
        let mut matched: u64 = 0;
        while reader.next_into(word) {
            let mut fits: u64 = 0;
            for (i, wanted) in self.words.iter().enumerate() {
                let is_fit = if i == last && self.is_prefix {
                    word.starts_with(wanted.as_str())
                } else {
                    word == wanted
                };
                fits |= u64::from(is_fit) << i;
            }
            matched = ((matched << 1) | 1) & fits;
            if matched >> last & 1 == 1 {
                return true;
            }
        }
        false
    }
}

/// The longest beginning of `text` of at most `bytes_max` bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(phrase: &str, is_prefix: bool, text: &str, expected: bool) {
        let found = Phrase::of(phrase, is_prefix).is_in(text, &mut String::new());
        assert_eq!(found, expected, "{phrase:?} prefix {is_prefix} in {text:?}");
    }

    #[test]
    fn phrases_are_words_in_a_row() {
        check("handshake", false, "TLS Handshake failed", true);
        check("hand", false, "TLS handshake failed", false);
        check("hand", true, "TLS handshake failed", true);
        check("tls handshake", false, "tls-handshake", true);
        check("tls failed", false, "TLS handshake failed", false);
        check("alice@example.com", false, "INVITE sip:Alice@example.com SIP/2.0", true);
        check("a a b", false, "a a a b", true);
        check("+44 2071", true, "tel:+44 2071838750", true);
        check("münchen", false, "MÜNCHEN Hbf", true);
        check("", false, "anything", false);
        check("--", false, "anything", false);
        check("a-", true, "abc", false);
    }

    #[test]
    fn long_words_are_cut_alike() {
        let long = "x".repeat(1000);
        check(&long, false, &long, true);
        check(&long, false, &"x".repeat(500), true);
        check(&long, false, &"x".repeat(WORD_BYTES_MAX - 1), false);
        assert_eq!(cut("aé", 2), "a");
    }
}
