//! Can a split hold a record that meets a condition? Said by its row in the catalogue, without opening it.

use super::evaluate::is_word;
use super::{Expr, Keyword};
use crate::catalogue::SplitRow;
use crate::facts::{RecordKind, Stream};

/// `false` when no record of the split can meet the condition.
pub(crate) fn may_be_in(expr: &Expr, row: &SplitRow) -> bool {
    match expr {
        Expr::Kind(kinds) => kinds.iter().any(|kind| may_have(row.stream, *kind)),
        Expr::Call(_) => row.stream == Stream::Calls,
        Expr::Keyword(Keyword::Component, word) => {
            row.components.is_empty() || row.components.iter().any(|component| is_word(word, component))
        }
        Expr::And(parts) => parts.iter().all(|part| may_be_in(part, row)),
        Expr::Or(parts) => parts.iter().any(|part| may_be_in(part, row)),
        // What a negation leaves is not known.
        Expr::Not(_) => true,
        Expr::All
        | Expr::Text(_)
        | Expr::Severity(_)
        | Expr::Keyword(..)
        | Expr::Trace(_)
        | Expr::Attribute(..)
        | Expr::Regex(..)
        | Expr::Compare(..) => true,
    }
}

/// What always has a Call-ID is always in the stream of calls.
fn may_have(stream: Stream, kind: RecordKind) -> bool {
    match kind {
        RecordKind::Sip | RecordKind::Quality | RecordKind::Call => stream == Stream::Calls,
        RecordKind::Log | RecordKind::Span => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse;

    #[test]
    fn splits_are_left_out_by_stream_and_component() {
        let mut row = SplitRow::new(1, Stream::Access, 0, 0);
        row.set_components(["edge_gateway".to_owned()]);
        let check = |text: &str, expected: bool| {
            let expr = parse(text, 1000).expect(text);
            assert_eq!(may_be_in(&expr, &row), expected, "{text}");
        };
        check("kind:sip", false);
        check("kind:log busy", true);
        check("call_id:a@b", false);
        check("call_id:a@b OR busy", true);
        check("component:edge*", true);
        check("component:core_mesh busy", false);
        check("NOT component:core_mesh", true);
        check("component:core_mesh OR component:edge_gateway", true);
    }
}
