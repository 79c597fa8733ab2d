//! From the tree to a Tantivy query that finds exactly the records that [`super::evaluate`] would.

use std::ops::Bound;

use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, EmptyQuery, FastFieldRangeQuery, Occur, PhrasePrefixQuery, PhraseQuery, Query,
    TermQuery,
};
use tantivy::schema::{Field, IndexRecordOption};

use super::excluded::Excluded;
use super::{Comparison, Expr, Keyword, Word};
use crate::schema::Fields;
use crate::words::{PHRASE_WORDS_MAX, Phrase};

/// So many different words may stand for the beginning that ends a phrase; with more of them in a split, the split
/// is scanned instead.
pub(crate) const PHRASE_BEGINNINGS_MAX: u32 = 1000;

/// The beginnings that end phrases of several words: the caller counts how many words in the split begin so.
pub(crate) fn phrase_beginnings(expr: &Expr, fields: &Fields) -> Vec<Term> {
    match expr {
        Expr::Text(phrase) => beginning(phrase, |word| Term::from_field_text(fields.text, word)),
        Expr::Attribute(name, phrase) => beginning(phrase, |word| attribute_term(fields, name, word)),
        Expr::Not(inner) => phrase_beginnings(inner, fields),
        Expr::And(parts) | Expr::Or(parts) => {
            parts.iter().flat_map(|part| phrase_beginnings(part, fields)).collect()
        }
        _ => Vec::new(),
    }
}

fn beginning(phrase: &Phrase, term: impl Fn(&str) -> Term) -> Vec<Term> {
    let last = phrase.words.last().filter(|_| phrase.is_prefix && phrase.words.len() > 1);
    last.map(|word| term(word)).into_iter().collect()
}

/// The query for the condition.
pub(crate) fn compile(expr: &Expr, fields: &Fields) -> Box<dyn Query> {
    match expr {
        Expr::All => Box::new(AllQuery),
        Expr::Text(phrase) => phrase_query(phrase, |word| Term::from_field_text(fields.text, word)),
        Expr::Kind(kinds) => {
            any(kinds.iter().map(|kind| term_query(Term::from_field_text(fields.kind, kind.as_str()))))
        }
        Expr::Severity(severities) => any(severities
            .iter()
            .map(|severity| term_query(Term::from_field_u64(fields.severity, severity.number().into())))),
        Expr::Keyword(keyword, word) => {
            let field = match keyword {
                Keyword::Component => fields.component,
                Keyword::Node => fields.node,
                Keyword::Region => fields.region,
            };
            keyword_query(field, word)
        }
        Expr::Trace(trace_id) => term_query(Term::from_field_bytes(fields.trace_id, &trace_id.0)),
        Expr::Call(call_key) => term_query(Term::from_field_u64(fields.call_key, call_key.0)),
        Expr::Attribute(name, phrase) => phrase_query(phrase, |word| attribute_term(fields, name, word)),
        Expr::Compare(name, comparison, bound) => compare_query(fields.numbers, name, *comparison, *bound),
        Expr::Not(inner) => but_not(vec![excluded(inner, fields)]),
        Expr::And(parts) => and_query(parts, fields),
        Expr::Or(parts) => any(parts.iter().map(|part| compile(part, fields))),
    }
}

fn attribute_term(fields: &Fields, name: &str, word: &str) -> Term {
    let mut term = Term::from_field_json_path(fields.attributes, name, true);
    term.append_type_and_str(word);
    term
}

/// All of the parts; negations become exclusions, which the index answers without visiting everything.
fn and_query(parts: &[Expr], fields: &Fields) -> Box<dyn Query> {
    let clauses: Vec<(Occur, Box<dyn Query>)> = parts
        .iter()
        .map(|part| match part {
            Expr::Not(inner) => excluded(inner, fields),
            part => (Occur::Must, compile(part, fields)),
        })
        .collect();
    if clauses.iter().any(|(occur, _)| *occur == Occur::Must) {
        Box::new(BooleanQuery::new(clauses))
    } else {
        but_not(clauses)
    }
}

fn excluded(expr: &Expr, fields: &Fields) -> (Occur, Box<dyn Query>) {
    (Occur::MustNot, Box::new(Excluded(compile(expr, fields))))
}

fn but_not(mut clauses: Vec<(Occur, Box<dyn Query>)>) -> Box<dyn Query> {
    clauses.push((Occur::Must, Box::new(AllQuery)));
    Box::new(BooleanQuery::new(clauses))
}

fn any(queries: impl Iterator<Item = Box<dyn Query>>) -> Box<dyn Query> {
    let clauses: Vec<(Occur, Box<dyn Query>)> = queries.map(|query| (Occur::Should, query)).collect();
    if clauses.is_empty() { Box::new(EmptyQuery) } else { Box::new(BooleanQuery::new(clauses)) }
}

fn term_query(term: Term) -> Box<dyn Query> {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

fn keyword_query(field: Field, word: &Word) -> Box<dyn Query> {
    let term = Term::from_field_text(field, &word.text);
    if !word.is_prefix {
        return term_query(term);
    }
    prefix_query(vec![term])
}

fn phrase_query(phrase: &Phrase, term: impl Fn(&str) -> Term) -> Box<dyn Query> {
    // As when scanning: a phrase that is too long is nowhere. The parser refuses it with a place.
    let words = if phrase.words.len() > PHRASE_WORDS_MAX { &[] } else { phrase.words.as_slice() };
    let mut terms: Vec<Term> = words.iter().map(|word| term(word)).collect();
    match (terms.len(), phrase.is_prefix) {
        (0, _) => Box::new(EmptyQuery),
        (_, true) => prefix_query(terms),
        (1, false) => term_query(terms.remove(0)),
        (_, false) => Box::new(PhraseQuery::new(terms)),
    }
}

fn prefix_query(terms: Vec<Term>) -> Box<dyn Query> {
    // Its own default stops after 50 words that begin so, which would silently lose answers. A lone beginning is a
    // walk over the dictionary and needs no bound; in a phrase each word costs memory, see [`phrase_beginnings`].
    let words_max = if terms.len() == 1 { u32::MAX } else { PHRASE_BEGINNINGS_MAX };
    let mut query = PhrasePrefixQuery::new(terms);
    query.set_max_expansions(words_max);
    Box::new(query)
}

fn compare_query(field: Field, name: &str, comparison: Comparison, bound: f64) -> Box<dyn Query> {
    let term = |number: f64| {
        let mut term = Term::from_field_json_path(field, name, true);
        term.append_type_and_fast_value(number);
        term
    };
    let (lower, upper) = match comparison {
        Comparison::Less => (Bound::Unbounded, Bound::Excluded(term(bound))),
        Comparison::LessOrEqual => (Bound::Unbounded, Bound::Included(term(bound))),
        Comparison::Greater => (Bound::Excluded(term(bound)), Bound::Unbounded),
        Comparison::GreaterOrEqual => (Bound::Included(term(bound)), Bound::Unbounded),
    };
    Box::new(FastFieldRangeQuery::new(lower, upper))
}
