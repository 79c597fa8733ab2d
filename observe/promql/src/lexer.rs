//! Text to tokens. Knows where it is inside brackets, because a colon there separates range and step, while
//! outside it belongs to a metric name.

use crate::ast::Span;
use crate::error::Error;
use crate::text;

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A word: name, keyword or function; a metric name if it has colons.
    Word(String),
    /// A float literal.
    Number(f64),
    /// `5m`, in milliseconds.
    Duration(i64),
    /// A string literal, unescaped.
    Text(String),
    /// An operator or a bracket.
    Sign(&'static str),
    /// The end of the text.
    End,
}

impl Token {
    /// How an error message names it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Token::Word(word) => format!("{word:?}"),
            Token::Number(value) => format!("number {}", text::format_short(*value)),
            Token::Duration(milliseconds) => format!("duration {}", text::format_duration(*milliseconds)),
            Token::Text(value) => format!("string {}", text::quote(value)),
            Token::Sign(sign) => format!("{sign:?}"),
            Token::End => "end of input".to_owned(),
        }
    }
}

/// Longest first, so that `<=` is not read as `<`.
const SIGNS: &[&str] = &[
    "==", "!=", "<=", ">=", "=~", "!~", "</", ">/", "+", "-", "*", "/", "%", "^", "<", ">", "=", ",", "(",
    ")", "{", "}", "[", "]", ":", "@",
];

/// All tokens of a text with their places, ended by `Token::End`.
pub(crate) fn tokens(input: &str) -> Result<Vec<(Token, Span)>, Error> {
    let mut lexer = Lexer { input, at: 0, brackets: 0, braces: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        let token = lexer.next()?;
        let is_end = token == Token::End;
        tokens.push((token, Span { start, end: lexer.at }));
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    input: &'a str,
    at: usize,
    brackets: usize,
    braces: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.input[self.at..]
    }

    fn fail<T>(&self, start: usize, message: impl Into<String>) -> Result<T, Error> {
        Err(Error::parse(self.input, Span { start, end: self.at }, message))
    }

    fn skip_blanks(&mut self) {
        loop {
            let blanks = self.rest().len() - self.rest().trim_start().len();
            self.at += blanks;
            if !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn next(&mut self) -> Result<Token, Error> {
        let Some(first) = self.rest().chars().next() else { return Ok(Token::End) };
        let second = self.rest().as_bytes().get(1).copied().unwrap_or(0);
        if first.is_ascii_digit() || (first == '.' && second.is_ascii_digit()) {
            return self.number();
        }
        if matches!(first, '"' | '\'' | '`') {
            return self.string(first);
        }
        let is_colon_word = first == ':' && self.brackets == 0 && self.braces == 0;
        if first.is_ascii_alphabetic() || first == '_' || is_colon_word {
            return Ok(self.word());
        }
        for sign in SIGNS {
            if self.rest().starts_with(sign) {
                self.at += sign.len();
                match *sign {
                    "[" => self.brackets += 1,
                    "]" => self.brackets = self.brackets.saturating_sub(1),
                    "{" => self.braces += 1,
                    "}" => self.braces = self.braces.saturating_sub(1),
                    _ => {}
                }
                return Ok(Token::Sign(sign));
            }
        }
        self.at += first.len_utf8();
        self.fail(self.at - first.len_utf8(), format!("unexpected character {first:?}"))
    }

    fn word(&mut self) -> Token {
        let with_colons = self.brackets == 0 && self.braces == 0;
        let belongs =
            |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (with_colons && byte == b':');
        let length = self.rest().bytes().take_while(|byte| belongs(*byte)).count();
        let word = self.rest()[..length].to_owned();
        self.at += length;
        if word.eq_ignore_ascii_case("inf") {
            return Token::Number(f64::INFINITY);
        }
        if word.eq_ignore_ascii_case("nan") {
            return Token::Number(f64::NAN);
        }
        Token::Word(word)
    }

    fn number(&mut self) -> Result<Token, Error> {
        let start = self.at;
        let bytes = self.rest().as_bytes();
        let is_hex = bytes.len() > 1 && bytes[0] == b'0' && (bytes[1] | 32) == b'x';
        let mut length = 0;
        while let Some(byte) = bytes.get(length) {
            let is_exponent_sign = matches!(byte, b'+' | b'-')
                && !is_hex
                && length > 0
                && (bytes[length - 1] | 32) == b'e'
                && bytes.get(length + 1).is_some_and(u8::is_ascii_digit);
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || is_exponent_sign) {
                break;
            }
            length += 1;
        }
        let word = self.rest()[..length].to_owned();
        self.at += length;
        if let Some(value) = text::parse_float(&word) {
            return Ok(Token::Number(value));
        }
        match text::parse_duration(&word) {
            Some(milliseconds) => Ok(Token::Duration(milliseconds)),
            None => self.fail(
                start,
                format!("bad number or duration {word:?}, expected for example 5, 1.5e3 or 1h30m"),
            ),
        }
    }

    fn string(&mut self, quote: char) -> Result<Token, Error> {
        let start = self.at;
        self.at += 1;
        let body_start = self.at;
        let mut is_escaped = false;
        while let Some(letter) = self.rest().chars().next() {
            if letter == quote && !is_escaped {
                let body = &self.input[body_start..self.at];
                self.at += 1;
                if quote == '`' {
                    return Ok(Token::Text(body.to_owned()));
                }
                return match text::unescape(body) {
                    Ok(value) => Ok(Token::Text(value)),
                    Err(message) => self.fail(start, message),
                };
            }
            if letter == '\n' && quote != '`' {
                break;
            }
            is_escaped = letter == '\\' && !is_escaped && quote != '`';
            self.at += letter.len_utf8();
        }
        self.fail(start, format!("unterminated string, expected a closing {quote}"))
    }
}
