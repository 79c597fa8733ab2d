//! From lexemes to a tree: recursive descent, bounded in depth and size.

use std::sync::Arc;

use belfry_signal::TraceId;

use super::lex::{Lexeme, LexemeKind, Term, lex};
use super::{BadQuery, Comparison, Expr, Keyword, Pattern, SEVERITIES, Word};
use crate::facts::RecordKind;
use crate::words::{PHRASE_WORDS_MAX, Phrase};

/// Parentheses and negations may nest this deep.
const DEPTH_MAX: usize = 32;
/// A search has at most this many terms.
const TERMS_MAX: usize = 64;
/// Memory that a regular expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

struct Parser {
    lexemes: std::iter::Peekable<std::vec::IntoIter<Lexeme>>,
    end: usize,
    depth: usize,
}

/// Reads a search text of at most `bytes_max` bytes. An empty text asks for everything.
pub(crate) fn parse(text: &str, bytes_max: usize) -> Result<Expr, BadQuery> {
    if text.len() > bytes_max {
        return Err(BadQuery::new(1, format!("the search is longer than {bytes_max} bytes")));
    }
    let lexemes = lex(text)?;
    let terms = lexemes.iter().filter(|lexeme| matches!(lexeme.kind, LexemeKind::Term(_)));
    if let Some(excess) = terms.clone().nth(TERMS_MAX) {
        return Err(BadQuery::new(excess.position, format!("more than {TERMS_MAX} terms")));
    }
    if lexemes.is_empty() {
        return Ok(Expr::All);
    }
    let end = text.chars().count() + 1;
    let mut parser = Parser { lexemes: lexemes.into_iter().peekable(), end, depth: 0 };
    let expr = parser.or()?;
    match parser.lexemes.next() {
        None => Ok(expr),
        Some(lexeme) => Err(BadQuery::new(lexeme.position, "this parenthesis closes nothing")),
    }
}

impl Parser {
    fn peek(&mut self) -> Option<&LexemeKind> {
        self.lexemes.peek().map(|lexeme| &lexeme.kind)
    }

    fn or(&mut self) -> Result<Expr, BadQuery> {
        let mut parts = vec![self.and()?];
        while self.peek() == Some(&LexemeKind::Or) {
            self.lexemes.next();
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, BadQuery> {
        let mut parts = vec![self.unary()?];
        loop {
            match self.peek() {
                Some(LexemeKind::And) => {
                    self.lexemes.next();
                }
                None | Some(LexemeKind::Or | LexemeKind::Close) => return Ok(one_or(parts, Expr::And)),
                Some(_) => {}
            }
            parts.push(self.unary()?);
        }
    }

    fn unary(&mut self) -> Result<Expr, BadQuery> {
        let Some(lexeme) = self.lexemes.next() else {
            return Err(BadQuery::new(self.end, "a word, a field or a parenthesis is missing here"));
        };
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(BadQuery::new(lexeme.position, format!("nested deeper than {DEPTH_MAX}")));
        }
        let expr = match lexeme.kind {
            LexemeKind::Not => Expr::Not(Box::new(self.unary()?)),
            LexemeKind::Open => {
                let inner = self.or()?;
                match self.lexemes.next() {
                    Some(Lexeme { kind: LexemeKind::Close, .. }) => inner,
                    _ => return Err(BadQuery::new(lexeme.position, "this parenthesis is never closed")),
                }
            }
            LexemeKind::Term(term) => leaf(term)?,
            LexemeKind::Close => {
                return Err(BadQuery::new(lexeme.position, "nothing stands before this parenthesis"));
            }
            LexemeKind::And | LexemeKind::Or => {
                let message =
                    "AND and OR stand between two conditions; put the word in quotes to search for it";
                return Err(BadQuery::new(lexeme.position, message));
            }
        };
        self.depth -= 1;
        Ok(expr)
    }
}

fn one_or(mut parts: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match (parts.len(), parts.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            parts.extend(last);
            many(parts)
        }
    }
}

fn leaf(term: Term) -> Result<Expr, BadQuery> {
    let position = term.value_position;
    if term.is_regex {
        return regex(&term);
    }
    let Some(field) = &term.field else {
        // A pasted trace id is meant as one.
        if let Some(trace_id) = TraceId::parse(&term.value).filter(|_| !term.is_prefix) {
            return Ok(Expr::Or(vec![Expr::Trace(trace_id), Expr::Text(phrase(&term)?)]));
        }
        return Ok(Expr::Text(phrase(&term)?));
    };
    match field.as_str() {
        "kind" => kind(&term),
        "severity" | "level" => severity(&term),
        "component" => keyword(Keyword::Component, &term),
        "node" => keyword(Keyword::Node, &term),
        "region" => keyword(Keyword::Region, &term),
        "call_id" => {
            whole(&term)?;
            Ok(Expr::Call(term.value.clone()))
        }
        "trace_id" => {
            whole(&term)?;
            TraceId::parse(&term.value)
                .map(Expr::Trace)
                .ok_or_else(|| BadQuery::new(position, "a trace id has 32 hexadecimal digits, not all zero"))
        }
        name => {
            let name = attribute(name, position)?;
            if let (None, Some((least, most))) = (term.comparison, range(&term)) {
                let compare = |comparison, bound| Expr::Compare(name.to_owned(), comparison, bound);
                return Ok(Expr::And(vec![
                    compare(Comparison::GreaterOrEqual, least),
                    compare(Comparison::LessOrEqual, most),
                ]));
            }
            match term.comparison {
                Some(comparison) => Ok(Expr::Compare(name.to_owned(), comparison, number(&term)?)),
                None => Ok(Expr::Attribute(name.to_owned(), phrase(&term)?)),
            }
        }
    }
}

/// The name of an attribute: one with a dot, or behind `attributes.`.
fn attribute(name: &str, position: usize) -> Result<&str, BadQuery> {
    match name.strip_prefix("attributes.") {
        Some(name) if !name.is_empty() => Ok(name),
        None if name.contains('.') => Ok(name),
        _ => Err(unknown_field(name, position)),
    }
}

/// `2..3.5`: from the one to the other, both included.
fn range(term: &Term) -> Option<(f64, f64)> {
    let (least, most) = term.value.split_once("..").filter(|_| !term.is_quoted && !term.is_prefix)?;
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    Some((number(least)? + 0.0, number(most)? + 0.0))
}

fn regex(term: &Term) -> Result<Expr, BadQuery> {
    let name = match term.field.as_deref() {
        None => None,
        Some(
            name @ ("kind" | "severity" | "level" | "component" | "node" | "region" | "call_id" | "trace_id"),
        ) => {
            let message = format!("{name}: takes no expression; texts and attributes do");
            return Err(BadQuery::new(term.value_position, message));
        }
        Some(name) => Some(attribute(name, term.value_position)?.to_owned()),
    };
    let built =
        regex::RegexBuilder::new(&term.value).case_insensitive(true).size_limit(REGEX_BYTES_MAX).build();
    let built = built.map_err(|error| {
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        BadQuery::new(term.value_position, format!("not a regular expression: {why}"))
    })?;
    Ok(Expr::Regex(name, Pattern(Arc::new(built))))
}

fn unknown_field(name: &str, position: usize) -> BadQuery {
    let position = position.saturating_sub(name.chars().count() + 1).max(1);
    BadQuery::new(
        position,
        format!(
            "there is no field {name:?}: use kind, severity, component, node, region, call_id, trace_id, \
             attributes.{name} or another attribute, or put the text in quotes"
        ),
    )
}

fn phrase(term: &Term) -> Result<Phrase, BadQuery> {
    let position = term.value_position;
    let phrase = Phrase::of(&term.value, term.is_prefix);
    if phrase.words.is_empty() {
        return Err(BadQuery::new(position, "there is no letter or digit to search for"));
    }
    if phrase.words.len() > PHRASE_WORDS_MAX {
        return Err(BadQuery::new(position, format!("more than {PHRASE_WORDS_MAX} words in a row")));
    }
    Ok(phrase)
}

fn whole(term: &Term) -> Result<(), BadQuery> {
    let field = term.field.as_deref().unwrap_or_default();
    if term.comparison.is_some() || term.is_prefix {
        return Err(BadQuery::new(
            term.value_position,
            format!("{field}: takes a whole value, without * < >"),
        ));
    }
    Ok(())
}

fn keyword(field: Keyword, term: &Term) -> Result<Expr, BadQuery> {
    if term.comparison.is_some() {
        return Err(BadQuery::new(term.value_position, "only severity and attributes can be compared"));
    }
    Ok(Expr::Keyword(field, Word { text: term.value.to_lowercase(), is_prefix: term.is_prefix }))
}

fn kind(term: &Term) -> Result<Expr, BadQuery> {
    let wanted = term.value.to_ascii_lowercase();
    let is_meant = |kind: &&RecordKind| {
        kind.as_str() == wanted || (term.is_prefix && kind.as_str().starts_with(wanted.as_str()))
    };
    let kinds: Vec<RecordKind> = RecordKind::ALL.iter().filter(is_meant).copied().collect();
    if kinds.is_empty() || term.comparison.is_some() {
        return Err(BadQuery::new(term.value_position, "kind is log, span, sip, quality or call"));
    }
    Ok(Expr::Kind(kinds))
}

fn severity(term: &Term) -> Result<Expr, BadQuery> {
    let wanted = term.value.to_ascii_uppercase();
    let named = SEVERITIES
        .into_iter()
        .find(|severity| severity.as_str() == wanted || (wanted == "WARNING" && severity.as_str() == "WARN"));
    let Some(named) = named.filter(|_| !term.is_prefix) else {
        return Err(BadQuery::new(term.value_position, "severity is debug, info, warn or error"));
    };
    let is_meant = |severity: &belfry_signal::Severity| match term.comparison {
        None => *severity == named,
        Some(Comparison::Less) => *severity < named,
        Some(Comparison::LessOrEqual) => *severity <= named,
        Some(Comparison::Greater) => *severity > named,
        Some(Comparison::GreaterOrEqual) => *severity >= named,
    };
    Ok(Expr::Severity(SEVERITIES.into_iter().filter(is_meant).collect()))
}

fn number(term: &Term) -> Result<f64, BadQuery> {
    let number = term.value.parse::<f64>().ok().filter(|number| number.is_finite() && !term.is_prefix);
    match number {
        // The two zeros are one, as in the index.
        Some(number) => Ok(number + 0.0),
        None => Err(BadQuery::new(term.value_position, "a number must follow < or >, as in rtc.mos:<3.5")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Expr {
        Expr::Text(Phrase::of(text, false))
    }

    fn check(text: &str, expected: Expr) {
        assert_eq!(parse(text, 2000), Ok(expected), "{text:?}");
    }

    fn check_bad(text: &str, position: usize, part: &str) {
        let error = parse(text, 2000).expect_err(text);
        assert_eq!(error.position, position, "{text:?}: {error}");
        assert!(error.message.contains(part), "{text:?}: {error}");
    }

    #[test]
    fn searches_become_trees() {
        check("", Expr::All);
        check("busy", words("busy"));
        check("a b", Expr::And(vec![words("a"), words("b")]));
        check("a OR b c", Expr::Or(vec![words("a"), Expr::And(vec![words("b"), words("c")])]));
        check("-a NOT b", Expr::And(vec![Expr::Not(words("a").into()), Expr::Not(words("b").into())]));
        check("(a OR b) AND c", Expr::And(vec![Expr::Or(vec![words("a"), words("b")]), words("c")]));
        check("\"no route\"", words("no route"));
        check("sip:alice@example.com", words("sip alice example com"));
        check("10.0.0.1:5060", words("10 0 0 1 5060"));
        check("hand*", Expr::Text(Phrase::of("hand", true)));
        check("kind:sip", Expr::Kind(vec![RecordKind::Sip]));
        check("severity:>=WARN", Expr::Severity(SEVERITIES[2..].to_vec()));
        check("call_id:a-b@c:5", Expr::Call("a-b@c:5".to_owned()));
        check("call_id:\"a(b\\\"\"", Expr::Call("a(b\"".to_owned()));
        let invite = Expr::Attribute("sip.method".into(), Phrase::of("invite", false));
        check("attributes.sip.method:INVITE", invite.clone());
        check("sip.method:INVITE", invite);
        let range = |least, most| {
            let compare = |comparison, bound| Expr::Compare("rtc.mos".into(), comparison, bound);
            Expr::And(vec![
                compare(Comparison::GreaterOrEqual, least),
                compare(Comparison::LessOrEqual, most),
            ])
        };
        check("rtc.mos:2..3.5", range(2.0, 3.5));
        check("a.b:1..x", Expr::Attribute("a.b".into(), Phrase::of("1..x", false)));
        let pattern = |text: &str| {
            let built = regex::RegexBuilder::new(text).case_insensitive(true).build();
            Pattern(Arc::new(built.expect("an expression")))
        };
        check("~\"a (b|c)\\d\\\"\"", Expr::Regex(None, pattern("a (b|c)\\d\"")));
        check("host.name:~\"^e\"", Expr::Regex(Some("host.name".into()), pattern("^e")));
        check("~word", words("word"));
        check("rtc.mos:<3.5", Expr::Compare("rtc.mos".into(), Comparison::Less, 3.5));
        let gateway = Word { text: "edge_g".into(), is_prefix: true };
        check("component:edge_g*", Expr::Keyword(Keyword::Component, gateway));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        check_bad("a AND", 6, "missing");
        check_bad("OR a", 1, "between two");
        check_bad("(a", 1, "never closed");
        check_bad("a)", 2, "closes nothing");
        check_bad("()", 2, "nothing stands");
        check_bad("\"a", 1, "never closed");
        check_bad("a *b", 3, "star");
        check_bad("x ~\"(\"", 3, "not a regular expression: unclosed group");
        check_bad("~\"a", 1, "never closed");
        check_bad("node:~\"a\"", 6, "takes no expression");
        check_bad("x severity:loud", 12, "debug, info");
        check_bad("reason:busy", 1, "attributes.reason");
        check_bad("component:", 11, "nothing follows");
        check_bad("trace_id:zz", 10, "32 hexadecimal");
        check_bad("rtc.mos:<low", 10, "number");
        check_bad("a - b", 3, "minus");
        check_bad("@@@", 1, "no letter");
        check_bad(&"(".repeat(40), 33, "deeper");
        check_bad(&"x ".repeat(65), 129, "64 terms");
        assert!(parse(&"x".repeat(3000), 2000).is_err());
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_typed_makes_the_parser_fall_over(text in "[a-z:*()\"\\\\<>= .@-]{0,60}|\\PC{0,40}") {
            let _ = parse(&text, 2000);
        }
    }
}
