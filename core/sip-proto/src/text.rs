//! Character classes of RFC 3261 section 25.1, and trimming that knows folded white space.

use std::borrow::Cow;

/// `token` characters.
pub(crate) const fn is_token(byte: u8) -> bool {
    TOKENS[byte as usize]
}

/// Every byte of a message is asked about once or twice: a look at a table costs less than the comparisons.
static TOKENS: [bool; 256] = {
    let mut tokens = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        tokens[byte] = letter.is_ascii_alphanumeric()
            || matches!(letter, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        byte += 1;
    }
    tokens
};

/// White space inside a header value; CR and LF can only be a fold there, because the scanner saw to it.
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

pub(crate) fn is_token_text(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token(byte))
}

/// `unreserved` characters of a URI.
pub(crate) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
}

pub(crate) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

pub(crate) fn trim_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| !is_space(byte)).unwrap_or(text.len());
    &text[start..]
}

pub(crate) fn trim_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&byte| !is_space(byte)).map_or(0, |last| last + 1);
    &text[..end]
}

/// A value as one line of text: folds become one space, bytes that are not UTF-8 become U+FFFD.
pub(crate) fn unfold(text: &[u8]) -> Cow<'_, str> {
    if !text.contains(&b'\r') && !text.contains(&b'\n') {
        return String::from_utf8_lossy(text);
    }
    let mut line = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(fold) = rest.iter().position(|&byte| matches!(byte, b'\r' | b'\n')) {
        line.extend_from_slice(trim_end(&rest[..fold]));
        line.push(b' ');
        rest = trim_start(&rest[fold..]);
    }
    line.extend_from_slice(rest);
    Cow::Owned(String::from_utf8_lossy(&line).into_owned())
}

/// The end of the quoted string that starts at `text[0]`, past its closing quote; none when it never closes.
pub(crate) fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// The text inside quotes with its quoted pairs resolved; anything else as it is.
pub(crate) fn unquote(text: &[u8]) -> Cow<'_, str> {
    if text.len() < 2 || text[0] != b'"' || text[text.len() - 1] != b'"' {
        return unfold(text);
    }
    let inner = &text[1..text.len() - 1];
    if !inner.contains(&b'\\') {
        return unfold(inner);
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(if byte == b'\\' { bytes.next().copied().unwrap_or(b'\\') } else { byte });
    }
    Cow::Owned(unfold(&plain).into_owned())
}

/// A decimal number that may be larger than anything we count: saturates, and is none when not all digits.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0u64, |n, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_quotes_and_numbers() {
        assert_eq!(unfold(b"a  \r\n\t b"), "a b");
        assert_eq!(unquote(br#""J \"R\" \\""#), r#"J "R" \"#);
        assert_eq!(quoted_end(br#""a\"b" <x>"#), Some(6));
        assert_eq!(quoted_end(br#""never"#), None);
        assert_eq!(decimal(b"0068"), Some(68));
        assert_eq!(decimal(b"36893488147419103232"), Some(u64::MAX));
        assert_eq!(decimal(b"-9"), None);
        assert_eq!(trim(b" \r\n x "), b"x");
    }
}
