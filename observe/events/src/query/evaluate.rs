//! Does a record meet a condition? For the live buffer, and for splits that cannot answer from their index.

use super::{Comparison, Expr, Keyword, Word};
use crate::facts::Facts;

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
