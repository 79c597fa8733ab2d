//! From characters to lexemes: parentheses, operators, and `field:value` terms.

use super::{BadQuery, Comparison};
use crate::facts::is_name_char;

/// A lexeme and the character where it begins, counted from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lexeme {
    pub(super) position: usize,
    pub(super) kind: LexemeKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum LexemeKind {
    Open,
    Close,
    And,
    Or,
    /// `NOT` or a leading minus.
    Not,
    Term(Term),
}

/// `value`, `field:value`, `field:>=value` or `field:~"expression"`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    pub(super) field: Option<String>,
    pub(super) comparison: Option<Comparison>,
    pub(super) value: String,
    pub(super) value_position: usize,
    pub(super) is_quoted: bool,
    pub(super) is_prefix: bool,
    /// Whether the value is a regular expression.
    pub(super) is_regex: bool,
}

/// Words before a colon that belong to what people paste, not to fields.
const SCHEMES: &[&str] = &["sip", "sips", "tel", "urn", "http", "https", "ws", "wss", "im", "pres"];

struct Lexer<'a> {
    rest: std::iter::Peekable<std::iter::Enumerate<std::str::Chars<'a>>>,
}

/// Reads a whole text.
pub(super) fn lex(text: &str) -> Result<Vec<Lexeme>, BadQuery> {
    let mut lexer = Lexer { rest: text.chars().enumerate().peekable() };
    let mut lexemes = Vec::new();
    while let Some((index, c)) = lexer.rest.peek().copied() {
        let position = index + 1;
        let kind = match c {
            c if c.is_whitespace() => {
                lexer.rest.next();
                continue;
            }
            '(' => lexer.take(LexemeKind::Open),
            ')' => lexer.take(LexemeKind::Close),
            '-' => {
                lexer.rest.next();
                if lexer.rest.peek().is_none_or(|(_, c)| c.is_whitespace() || *c == ')') {
                    return Err(BadQuery::new(position, "nothing follows the minus: write -word or \"-\""));
                }
                LexemeKind::Not
            }
            _ => lexer.term(position)?,
        };
        lexemes.push(Lexeme { position, kind });
    }
    Ok(lexemes)
}

impl Lexer<'_> {
    fn take(&mut self, kind: LexemeKind) -> LexemeKind {
        self.rest.next();
        kind
    }

    /// The run of characters up to a space, a parenthesis or a quote; up to a colon too if `stops_at_colon`.
    fn run(&mut self, stops_at_colon: bool) -> String {
        let mut run = String::new();
        while let Some((_, c)) = self.rest.peek().copied() {
            let ends = c.is_whitespace() || matches!(c, '(' | ')' | '"') || (stops_at_colon && c == ':');
            if ends {
                break;
            }
            run.push(c);
            self.rest.next();
        }
        run
    }

    fn term(&mut self, position: usize) -> Result<LexemeKind, BadQuery> {
        if self.peek_is('"') {
            return self.quoted(None, position);
        }
        if self.begins_regex() {
            return self.regex(None, position);
        }
        let mut start = self.run(true);
        if !self.peek_is(':') || !is_field(&start) {
            start.push_str(&self.run(false));
            match start.as_str() {
                "AND" => return Ok(LexemeKind::And),
                "OR" => return Ok(LexemeKind::Or),
                "NOT" => return Ok(LexemeKind::Not),
                _ => {}
            }
            return bare(None, None, start, position);
        }
        self.rest.next();
        let comparison = self.comparison();
        let value_position = self.rest.peek().map_or(position + start.chars().count() + 1, |(i, _)| i + 1);
        if self.peek_is('"') && comparison.is_none() {
            return self.quoted(Some(start), value_position);
        }
        if comparison.is_none() && self.begins_regex() {
            return self.regex(Some(start), value_position);
        }
        let value = self.run(false);
        if value.is_empty() {
            return Err(BadQuery::new(value_position, format!("nothing follows {start}:")));
        }
        bare(Some(start), comparison, value, value_position)
    }

    fn peek_is(&mut self, wanted: char) -> bool {
        self.rest.peek().is_some_and(|(_, c)| *c == wanted)
    }

    /// Whether `~"` comes next.
    fn begins_regex(&self) -> bool {
        let mut next = self.rest.clone().map(|(_, c)| c);
        next.next() == Some('~') && next.next() == Some('"')
    }

    /// What stands between `~"` and the next quote. Backslashes are the expression's own, but for `\"`.
    fn regex(&mut self, field: Option<String>, position: usize) -> Result<LexemeKind, BadQuery> {
        self.rest.next();
        self.rest.next();
        let mut value = String::new();
        loop {
            match self.rest.next() {
                None => return Err(BadQuery::new(position, "the quote that opens here is never closed")),
                Some((_, '"')) => break,
                Some((_, '\\')) => match self.rest.next() {
                    Some((_, '"')) => value.push('"'),
                    Some((_, other)) => value.extend(['\\', other]),
                    None => {}
                },
                Some((_, c)) => value.push(c),
            }
        }
        Ok(LexemeKind::Term(Term {
            field,
            comparison: None,
            value,
            value_position: position,
            is_quoted: true,
            is_prefix: false,
            is_regex: true,
        }))
    }

    fn comparison(&mut self) -> Option<Comparison> {
        let is_less = match self.rest.peek() {
            Some((_, '<')) => true,
            Some((_, '>')) => false,
            _ => return None,
        };
        self.rest.next();
        let or_equal = self.peek_is('=');
        if or_equal {
            self.rest.next();
        }
        Some(match (is_less, or_equal) {
            (true, false) => Comparison::Less,
            (true, true) => Comparison::LessOrEqual,
            (false, false) => Comparison::Greater,
            (false, true) => Comparison::GreaterOrEqual,
        })
    }

    fn quoted(&mut self, field: Option<String>, position: usize) -> Result<LexemeKind, BadQuery> {
        self.rest.next();
        let mut value = String::new();
        loop {
            match self.rest.next() {
                None => return Err(BadQuery::new(position, "the quote that opens here is never closed")),
                Some((_, '"')) => break,
                Some((_, '\\')) => value.extend(self.rest.next().map(|(_, c)| c)),
                Some((_, c)) => value.push(c),
            }
        }
        let is_prefix = self.peek_is('*');
        if is_prefix {
            self.rest.next();
        }
        Ok(LexemeKind::Term(Term {
            field,
            comparison: None,
            value,
            value_position: position,
            is_quoted: true,
            is_prefix,
            is_regex: false,
        }))
    }
}

fn bare(
    field: Option<String>,
    comparison: Option<Comparison>,
    mut value: String,
    position: usize,
) -> Result<LexemeKind, BadQuery> {
    let is_prefix = value.ends_with('*');
    if is_prefix {
        value.pop();
    }
    if let Some(star) = value.chars().position(|c| c == '*') {
        let message = "a star stands at the end of a word only; put text with a star in quotes";
        return Err(BadQuery::new(position + star, message));
    }
    let value_position = position;
    let (is_quoted, is_regex) = (false, false);
    Ok(LexemeKind::Term(Term { field, comparison, value, value_position, is_quoted, is_prefix, is_regex }))
}

fn is_field(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(is_name_char)
        && !text.contains('@')
        && !SCHEMES.contains(&text.to_ascii_lowercase().as_str())
}
