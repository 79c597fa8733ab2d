//! Series by their labels, as people write it: `calls_total{region="eu",outcome=~"busy|failed"}`.
//!
//! The selectors of PromQL, and nothing more of it.

use belfry_series::{MatchOperator, Matcher};

use crate::error::Error;

/// A selector of this length at most.
const BYTES_MAX: usize = 4096;
/// Conditions in one selector.
const MATCHERS_MAX: usize = 32;
const HINT: &str = "write name, name{label=\"value\"}, or {label=~\"expression\"}; operators are = != =~ !~";

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

/// Reads a selector.
///
/// # Errors
/// When it is malformed, with the place, or would be true of every series.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, Error> {
    if text.len() > BYTES_MAX {
        let what = format!("longer than {BYTES_MAX} bytes");
        return Err(Error::BadRequest { place: "match", what, hint: HINT });
    }
    let mut cursor = Cursor { text, at: 0 };
    let mut matchers = Vec::new();
    cursor.skip_spaces();
    let name = cursor.name(true);
    if !name.is_empty() {
        matchers.push(Matcher::metric(name));
    }
    cursor.skip_spaces();
    if cursor.take("{") {
        cursor.matchers(&mut matchers)?;
    }
    cursor.skip_spaces();
    if !cursor.rest().is_empty() {
        return Err(cursor.wrong("something follows the selector"));
    }
    // Prometheus has the same rule: nobody wants every series, and nobody could carry them.
    if matchers.iter().all(|matcher| matcher.is_match("")) {
        let what = "it is true of every series".to_owned();
        return Err(Error::BadRequest {
            place: "match",
            what,
            hint: "name a metric, or a label that must have a value",
        });
    }
    Ok(matchers)
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, wanted: &str) -> bool {
        let is_there = self.rest().starts_with(wanted);
        if is_there {
            self.at += wanted.len();
        }
        is_there
    }

    /// A metric or label name, which may be empty.
    fn name(&mut self, is_metric: bool) -> &'a str {
        let rest = self.rest();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || (is_metric && c == ':');
        let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let starts_well = !rest.starts_with(|c: char| c.is_ascii_digit());
        let name = if starts_well { &rest[..length] } else { "" };
        self.at += name.len();
        name
    }

    fn matchers(&mut self, matchers: &mut Vec<Matcher>) -> Result<(), Error> {
        loop {
            self.skip_spaces();
            if self.take("}") {
                return Ok(());
            }
            let name = self.name(false);
            if name.is_empty() {
                return Err(self.wrong("a label name or } is missing"));
            }
            self.skip_spaces();
            let operator = self.operator()?;
            self.skip_spaces();
            let value = self.quoted()?;
            if matchers.len() >= MATCHERS_MAX {
                return Err(self.wrong("more than 32 conditions"));
            }
            matchers.push(Matcher::new(name, operator, &value)?);
            self.skip_spaces();
            if !self.take(",") && !self.rest().starts_with('}') {
                return Err(self.wrong("a comma or } is missing"));
            }
        }
    }

    fn operator(&mut self) -> Result<MatchOperator, Error> {
        let operators = [
            ("=~", MatchOperator::Regex),
            ("!~", MatchOperator::NotRegex),
            ("!=", MatchOperator::NotEqual),
            ("=", MatchOperator::Equal),
        ];
        let found = operators.into_iter().find(|(text, _)| self.take(text));
        found.map(|(_, operator)| operator).ok_or_else(|| self.wrong("an operator is missing"))
    }

    fn quoted(&mut self) -> Result<String, Error> {
        let mut chars = self.rest().char_indices();
        let quote = match chars.next() {
            Some((_, quote @ ('"' | '\''))) => quote,
            _ => return Err(self.wrong("a quoted value is missing")),
        };
        let mut value = String::new();
        while let Some((index, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.at += index + 1;
                    return Ok(value);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, c @ ('\\' | '"' | '\''))) => value.push(c),
                    // Expressions have backslashes of their own; keep what is not one of ours.
                    Some((_, c)) => value.extend(['\\', c]),
                    None => break,
                },
                c => value.push(c),
            }
        }
        Err(self.wrong("the quote that opens here is never closed"))
    }

    fn wrong(&self, what: &str) -> Error {
        let position = self.text[..self.at].chars().count() + 1;
        Error::BadRequest { place: "match", what: format!("at character {position}: {what}"), hint: HINT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_prometheus_reads_them() {
        let cases: &[(&str, Option<usize>)] = &[
            ("up", Some(1)),
            ("job:calls:rate5m", Some(1)),
            (" up { } ", Some(1)),
            ("up{region=\"eu\"}", Some(2)),
            ("up{region!='eu', outcome=~\"a|b\",}", Some(3)),
            ("{__name__=~\"edge_.+\"}", Some(1)),
            ("{a=\"say \\\"hi\\\"\"}", Some(1)),
            ("", None),
            ("{}", None),
            ("{a=\"\"}", None),
            ("{a=~\".*\"}", None),
            ("9up", None),
            ("up{", None),
            ("up{region}", None),
            ("up{region=eu}", None),
            ("up{region=\"eu}", None),
            ("up{region=\"eu\" x=\"y\"}", None),
            ("up{region=\"eu\"} or down", None),
            ("up{a=~\"(\"}", None),
        ];
        for (text, expected) in cases {
            let read = parse_selector(text);
            assert_eq!(read.as_ref().ok().map(Vec::len), *expected, "{text}: {read:?}");
        }
        let matchers = parse_selector("{path=\"a\\\\b\\n\",number=~\"\\d+\"}").expect("good");
        assert!(matchers[0].is_match("a\\b\n"));
        assert!(matchers[1].is_match("42"));
    }
}
