//! Does a record meet a condition? For the live buffer, and for splits that cannot answer from their index.

use belfry_signal::Record;

use super::{Comparison, Expr, Keyword, Pattern, Word};
use crate::facts::{self, Fact, Facts, RecordKind, severity};

/// Whether a record meets the condition. Most records are told from what lies open, without taking their text
/// apart.
pub(crate) fn matches_record(expr: &Expr, record: &Record, text_bytes_max: usize) -> bool {
    at_a_glance(expr, record).unwrap_or_else(|| matches(expr, &Facts::of(record, text_bytes_max)))
}

/// The answer, if kind, severity, component, call and trace are enough to know it.
fn at_a_glance(expr: &Expr, record: &Record) -> Option<bool> {
    let body = &record.body;
    match expr {
        Expr::All => Some(true),
        Expr::Kind(kinds) => Some(kinds.contains(&RecordKind::of(body))),
        Expr::Severity(severities) => Some(severities.contains(&severity(body))),
        Expr::Keyword(Keyword::Component, wanted) => Some(is_word(wanted, &record.component)),
        Expr::Trace(trace_id) => Some(facts::trace_id(body) == Some(*trace_id)),
        Expr::Call(wanted) => Some(facts::call_id(body) == Some(wanted.as_str())),
        Expr::Not(inner) => at_a_glance(inner, record).map(|is_met| !is_met),
        Expr::And(parts) => settle(parts, record, false),
        Expr::Or(parts) => settle(parts, record, true),
        Expr::Text(_) | Expr::Keyword(..) | Expr::Attribute(..) | Expr::Regex(..) | Expr::Compare(..) => None,
    }
}

/// One part that is `decisive` settles it; all parts known settle it the other way.
fn settle(parts: &[Expr], record: &Record, decisive: bool) -> Option<bool> {
    let mut is_known = true;
    for part in parts {
        match at_a_glance(part, record) {
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
        Expr::Text(phrase) => {
            let in_fact = |fact: &Fact<'_>, word: &mut String| match fact {
                Fact::Text(text) => phrase.is_in(text, word),
                Fact::Int(_) => phrase.is_in(&fact.text(), word),
                Fact::Float(_) => false,
            };
            facts.texts.iter().any(|text| phrase.is_in(text, word))
                || facts.attributes.iter().any(|(_, fact)| in_fact(fact, word))
        }
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
        Expr::Call(wanted) => facts.call_id == Some(wanted.as_str()),
        Expr::Attribute(name, phrase) => {
            facts.attributes.iter().any(|(own, fact)| own == name && phrase.is_in(&fact.text(), word))
        }
        Expr::Regex(None, Pattern(regex)) => {
            facts.texts.iter().any(|text| regex.is_match(text))
                || facts.attributes.iter().any(|(_, fact)| regex.is_match(&fact.text()))
        }
        Expr::Regex(Some(name), Pattern(regex)) => {
            facts.attributes.iter().any(|(own, fact)| own == name && regex.is_match(&fact.text()))
        }
        Expr::Compare(name, comparison, bound) => facts.attributes.iter().any(|(own, fact)| {
            own == name && fact.number().is_some_and(|number| is_so(number, *comparison, *bound))
        }),
        Expr::Not(inner) => !meets(inner, facts, word),
        Expr::And(parts) => parts.iter().all(|part| meets(part, facts, word)),
        Expr::Or(parts) => parts.iter().any(|part| meets(part, facts, word)),
    }
}

pub(super) fn is_word(wanted: &Word, value: &str) -> bool {
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
