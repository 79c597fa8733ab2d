//! Does a record meet a condition? For the live buffer, and for splits that cannot answer from their index.

use super::{Comparison, Expr, Keyword, Word};
use crate::facts::{self, Facts, RecordKind, severity};
use crate::live::Entry;

/// Whether a live record meets the condition. Most records are told from what lies open, without taking their text
/// apart.
pub(crate) fn matches_entry(expr: &Expr, entry: &Entry, text_bytes_max: usize) -> bool {
    at_a_glance(expr, entry).unwrap_or_else(|| matches(expr, &Facts::of(&entry.record, text_bytes_max)))
}

/// The answer, if kind, severity, component, call and trace are enough to know it.
fn at_a_glance(expr: &Expr, entry: &Entry) -> Option<bool> {
    let body = &entry.record.body;
    match expr {
        Expr::All => Some(true),
        Expr::Kind(kinds) => Some(kinds.contains(&RecordKind::of(body))),
        Expr::Severity(severities) => Some(severities.contains(&severity(body))),
        Expr::Keyword(Keyword::Component, wanted) => Some(is_word(wanted, &entry.record.component)),
        Expr::Trace(trace_id) => Some(facts::trace_id(body) == Some(*trace_id)),
        Expr::Call(call_key) => Some(entry.call_key == Some(*call_key)),
        Expr::Not(inner) => at_a_glance(inner, entry).map(|is_met| !is_met),
        Expr::And(parts) => settle(parts, entry, false),
        Expr::Or(parts) => settle(parts, entry, true),
        Expr::Text(_) | Expr::Keyword(..) | Expr::Attribute(..) | Expr::Compare(..) => None,
    }
}

/// One part that is `decisive` settles it; all parts known settle it the other way.
fn settle(parts: &[Expr], entry: &Entry, decisive: bool) -> Option<bool> {
    let mut is_known = true;
    for part in parts {
        match at_a_glance(part, entry) {
            Some(is_met) if is_met == decisive => return Some(decisive),
            Some(_) => {}
            None => is_known = false,
        }
    }
    is_known.then_some(!decisive)
}

/// Whether the facts meet the condition.
pub(crate) fn matches(expr: &Expr, facts: &Facts<'_>) -> bool {
    let mut word = String::new();
    meets(expr, facts, &mut word)
}

fn meets(expr: &Expr, facts: &Facts<'_>, word: &mut String) -> bool {
    match expr {
        Expr::All => true,
        Expr::Text(phrase) => facts.texts.iter().any(|text| phrase.is_in(text, word)),
        Expr::Kind(kinds) => kinds.contains(&facts.kind),
        Expr::Severity(severities) => severities.contains(&facts.severity),
        Expr::Keyword(field, wanted) => {
            let value = match field {
                Keyword::Component => Some(facts.component),
                Keyword::Node => facts.node,
                Keyword::Region => facts.region,
            };
            value.is_some_and(|value| is_word(wanted, value))
        }
        Expr::Trace(trace_id) => facts.trace_id == Some(*trace_id),
        Expr::Call(call_key) => facts.call_key == Some(*call_key),
        Expr::Attribute(name, phrase) => {
            facts.attributes.iter().any(|(own, fact)| own == name && phrase.is_in(&fact.text, word))
        }
        Expr::Compare(name, comparison, bound) => facts.attributes.iter().any(|(own, fact)| {
            own == name && fact.number.is_some_and(|number| is_so(number, *comparison, *bound))
        }),
        Expr::Not(inner) => !meets(inner, facts, word),
        Expr::And(parts) => parts.iter().all(|part| meets(part, facts, word)),
        Expr::Or(parts) => parts.iter().any(|part| meets(part, facts, word)),
    }
}

fn is_word(wanted: &Word, value: &str) -> bool {
    let value = value.to_lowercase();
    if wanted.is_prefix { value.starts_with(&wanted.text) } else { value == wanted.text }
}

fn is_so(number: f64, comparison: Comparison, bound: f64) -> bool {
    match comparison {
        Comparison::Less => number < bound,
        Comparison::LessOrEqual => number <= bound,
        Comparison::Greater => number > bound,
        Comparison::GreaterOrEqual => number >= bound,
    }
}
