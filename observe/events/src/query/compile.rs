//! From the tree to a Tantivy query that finds every block in which a record can meet the condition.
//!
//! It may find more: whoever reads the blocks asks [`super::evaluate`] about each record. So a phrase is its words, a
//! comparison is whether the block's least or greatest number is on that side, and a negation says nothing.

use std::ops::Bound;

use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, EmptyQuery, FastFieldRangeQuery, InvertedIndexRangeQuery, Occur, Query, TermQuery,
};
use tantivy::schema::{Field, IndexRecordOption};

use super::{Comparison, Expr, Keyword, Word};
use crate::facts::call_key;
use crate::filter::trace_key;
use crate::schema::Fields;
use crate::terms::{self, SEPARATOR};
use crate::words::{PHRASE_WORDS_MAX, Phrase};

/// The query for the condition; `None` when every block can hold a hit.
pub(crate) fn compile(expr: &Expr, fields: &Fields) -> Option<Box<dyn Query>> {
    let query = match expr {
        Expr::All | Expr::Not(_) | Expr::Regex(..) => return None,
        Expr::Text(phrase) => phrase_query(phrase, fields.words, ""),
        Expr::Kind(kinds) => any(kinds.iter().map(|kind| fact_query(fields, terms::KIND, kind.as_str()))),
        Expr::Severity(severities) => any(severities
            .iter()
            .map(|severity| fact_query(fields, terms::SEVERITY, &severity.as_str().to_lowercase()))),
        Expr::Keyword(keyword, word) => keyword_query(fields, *keyword, word),
        Expr::Trace(trace_id) => key_query(fields, trace_key(&trace_id.0)),
        Expr::Call(call_id) => key_query(fields, call_key(call_id)),
        Expr::Attribute(name, phrase) => attribute_query(fields, name, phrase),
        Expr::Compare(name, comparison, bound) => {
            any([compare_query(fields.numbers, name, *comparison, *bound), unindexed(fields)].into_iter())
        }
        Expr::And(parts) => {
            let clauses: Vec<(Occur, Box<dyn Query>)> =
                parts.iter().filter_map(|part| Some((Occur::Must, compile(part, fields)?))).collect();
            if clauses.is_empty() {
                return None;
            }
            Box::new(BooleanQuery::new(clauses))
        }
        Expr::Or(parts) => {
            let queries: Option<Vec<_>> = parts.iter().map(|part| compile(part, fields)).collect();
            any(queries?.into_iter())
        }
    };
    Some(query)
}

fn any(queries: impl Iterator<Item = Box<dyn Query>>) -> Box<dyn Query> {
    let clauses: Vec<(Occur, Box<dyn Query>)> = queries.map(|query| (Occur::Should, query)).collect();
    if clauses.is_empty() { Box::new(EmptyQuery) } else { Box::new(BooleanQuery::new(clauses)) }
}

fn all(queries: impl Iterator<Item = Box<dyn Query>>) -> Box<dyn Query> {
    let clauses: Vec<(Occur, Box<dyn Query>)> = queries.map(|query| (Occur::Must, query)).collect();
    if clauses.is_empty() { Box::new(AllQuery) } else { Box::new(BooleanQuery::new(clauses)) }
}

fn term_query(term: Term) -> Box<dyn Query> {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

fn key_query(fields: &Fields, key: u64) -> Box<dyn Query> {
    term_query(Term::from_field_u64(fields.keys, key))
}

fn fact(name: &str, word: &str) -> String {
    format!("{name}{SEPARATOR}{word}")
}

fn fact_query(fields: &Fields, name: &str, word: &str) -> Box<dyn Query> {
    term_query(Term::from_field_text(fields.facts, &fact(name, word)))
}

/// The blocks of which not all attributes are indexed: what is asked of an attribute may be so in any of them.
fn unindexed(fields: &Fields) -> Box<dyn Query> {
    term_query(Term::from_field_text(fields.facts, terms::UNINDEXED))
}

fn keyword_query(fields: &Fields, keyword: Keyword, word: &Word) -> Box<dyn Query> {
    let name = match keyword {
        Keyword::Component => terms::COMPONENT,
        Keyword::Node => terms::NODE,
        Keyword::Region => terms::REGION,
    };
    let text = fact(name, &word.text);
    if word.is_prefix {
        prefix_query(fields.facts, &text)
    } else {
        term_query(Term::from_field_text(fields.facts, &text))
    }
}

fn attribute_query(fields: &Fields, name: &str, phrase: &Phrase) -> Box<dyn Query> {
    let mut queries = vec![phrase_query(phrase, fields.facts, &fact(name, "")), unindexed(fields)];
    if terms::may_be_measured(&phrase.words) {
        queries.push(fact_query(fields, name, terms::MEASURED));
    }
    any(queries.into_iter())
}

/// All words of the phrase, wherever they stand behind `name`; of the last perhaps only its beginning.
fn phrase_query(phrase: &Phrase, field: Field, name: &str) -> Box<dyn Query> {
    // As when comparing: a phrase that is too long is nowhere. The parser refuses it with a place.
    if phrase.words.is_empty() || phrase.words.len() > PHRASE_WORDS_MAX {
        return Box::new(EmptyQuery);
    }
    let last = phrase.words.len() - 1;
    all(phrase.words.iter().enumerate().map(|(index, word)| {
        let mut text = name.to_owned();
        if index == last && phrase.is_prefix {
            let (beginning, is_short) = terms::beginning_term(word);
            let identifiers = format!("{name}{beginning}");
            text.push_str(word);
            let identifiers = if is_short {
                prefix_query(field, &identifiers)
            } else {
                term_query(Term::from_field_text(field, &identifiers))
            };
            any([prefix_query(field, &text), identifiers].into_iter())
        } else {
            terms::push_term(&mut text, word);
            term_query(Term::from_field_text(field, &text))
        }
    }))
}

/// The terms that begin so. Terms are UTF-8, in which no byte is 0xff.
fn prefix_query(field: Field, beginning: &str) -> Box<dyn Query> {
    let lower = Term::from_field_text(field, beginning);
    let mut upper = lower.clone();
    upper.append_bytes(&[0xff]);
    Box::new(InvertedIndexRangeQuery::new(Bound::Included(lower), Bound::Excluded(upper)))
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
