//! A template's text as pieces: plain text, and the tokens of each action.

/// One token inside `{{ }}`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(String),
    Variable(String),
    Field(String),
    Text(String),
    Int(i64),
    Float(f64),
    Dot,
    Pipe,
    Open,
    Close,
    Declare,
    Assign,
    Comma,
    Blank,
}

/// A piece of the text: plain, or the tokens of an action.
pub(super) enum Piece {
    Text(String),
    Action(Vec<Token>),
}

/// The pieces of a text, with blanks left out where it says so.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let (mut rest, mut is_trimmed) = (text, false);
    loop {
        let start = rest.find("{{");
        let mut plain = &rest[..start.unwrap_or(rest.len())];
        if is_trimmed {
            plain = plain.trim_start();
        }
        let Some(start) = start else {
            pieces.push(Piece::Text(plain.to_owned()));
            return Ok(pieces);
        };
        rest = &rest[start + 2..];
        if let Some(after) = rest.strip_prefix('-').filter(|after| after.starts_with(char::is_whitespace)) {
            plain = plain.trim_end();
            rest = after;
        }
        pieces.push(Piece::Text(plain.to_owned()));
        let trimmed = rest.trim_start();
        if trimmed.starts_with("/*") {
            let end = trimmed.find("*/").ok_or("unclosed comment")?;
            let after = trimmed[end + 2..].trim_start();
            is_trimmed = after.starts_with("-}}");
            rest = after
                .trim_start_matches('-')
                .strip_prefix("}}")
                .ok_or("comment ends before closing delimiter")?;
            continue;
        }
        let (tokens, after, is_trimmed_after) = tokens(rest)?;
        pieces.push(Piece::Action(tokens));
        (rest, is_trimmed) = (after, is_trimmed_after);
    }
}

/// The tokens up to the closing delimiter, what stands behind it, and whether blanks there are left out.
fn tokens(text: &str) -> Result<(Vec<Token>, &str, bool), String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, after, false));
        }
        let blank = rest.len() - rest.trim_start().len();
        if blank > 0 {
            rest = &rest[blank..];
            if let Some(after) = rest.strip_prefix("-}}") {
                return Ok((tokens, after, true));
            }
            tokens.push(Token::Blank);
            continue;
        }
        let (token, after) = token(rest)?;
        tokens.push(token);
        rest = after;
    }
}

fn token(rest: &str) -> Result<(Token, &str), String> {
    let Some(first) = rest.chars().next() else { return Err("unclosed action".to_owned()) };
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    for (prefix, token) in [
        (":=", Token::Declare),
        ("=", Token::Assign),
        ("|", Token::Pipe),
        ("(", Token::Open),
        (")", Token::Close),
        (",", Token::Comma),
    ] {
        if let Some(after) = rest.strip_prefix(prefix) {
            return Ok((token, after));
        }
    }
    match first {
        '"' => {
            let (text, end) = quoted(rest)?;
            Ok((Token::Text(text), &rest[end..]))
        }
        '`' => {
            let end = rest[1..].find('`').ok_or("unterminated raw quoted string")?;
            Ok((Token::Text(rest[1..=end].to_owned()), &rest[end + 2..]))
        }
        '\'' => {
            let inner = rest[1..].chars().next().ok_or("unterminated character constant")?;
            let after = rest[1 + inner.len_utf8()..].strip_prefix('\'');
            Ok((Token::Int(i64::from(u32::from(inner))), after.ok_or("unterminated character constant")?))
        }
        '$' => {
            let end = 1 + word(&rest[1..]);
            Ok((Token::Variable(rest[..end].to_owned()), &rest[end..]))
        }
        '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            let end = 1 + word(&rest[1..]);
            let token = if end == 1 { Token::Dot } else { Token::Field(rest[1..end].to_owned()) };
            Ok((token, &rest[end..]))
        }
        c if c.is_ascii_digit() || matches!(c, '.' | '+' | '-') => number(rest),
        c if c.is_alphabetic() || c == '_' => {
            let end = word(rest);
            Ok((Token::Word(rest[..end].to_owned()), &rest[end..]))
        }
        other => Err(format!("unexpected {other:?} in command")),
    }
}

fn number(rest: &str) -> Result<(Token, &str), String> {
    let signed = usize::from(rest.starts_with(['+', '-']));
    let mut end = signed;
    let bytes = rest.as_bytes();
    while end < bytes.len() {
        let is_sign =
            matches!(bytes[end], b'+' | b'-') && matches!(bytes[end - 1], b'e' | b'E') && end > signed;
        if !bytes[end].is_ascii_alphanumeric() && !matches!(bytes[end], b'.' | b'_') && !is_sign {
            break;
        }
        end += 1;
    }
    let word = rest[..end].replace('_', "");
    let token = match (word.parse::<i64>(), word.parse::<f64>()) {
        (Ok(whole), _) => Token::Int(whole),
        (_, Ok(float)) => Token::Float(float),
        _ => return Err(format!("bad number syntax: {:?}", &rest[..end])),
    };
    Ok((token, &rest[end..]))
}

/// The text of a quoted literal, and where it ends.
fn quoted(text: &str) -> Result<(String, usize), String> {
    let mut value = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, at + 1)),
            '\n' => break,
            '\\' => match letters.next().map(|(_, escape)| escape) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('r') => value.push('\r'),
                Some(escape @ ('\\' | '"' | '\'')) => value.push(escape),
                Some(escape @ ('u' | 'x')) => {
                    let digits = if escape == 'u' { 4 } else { 2 };
                    let code: String = letters.by_ref().take(digits).map(|(_, digit)| digit).collect();
                    let code = u32::from_str_radix(&code, 16).ok().and_then(char::from_u32);
                    value.push(code.ok_or("bad escape sequence in string")?);
                }
                _ => return Err("bad escape sequence in string".to_owned()),
            },
            other => value.push(other),
        }
    }
    Err("unterminated quoted string".to_owned())
}
