//! Vector matching: which series of one side meets which of the other. Signatures are computed once per
//! series; what is left per time is to look whether both have a value there.

use std::collections::HashMap;

use super::binary::Element;
use super::column::{Column, Row, joined};
use super::{Evaluator, Grid};
use crate::ast::{Binary, BinaryOp, Group, Matching, Span};
use crate::error::Error;
use crate::labels::Labels;
use crate::source::Value;

fn signature(matching: &Matching, labels: &Labels) -> Labels {
    if matching.is_on {
        labels.keep(&matching.labels)
    } else {
        labels.without(&matching.labels).without_name()
    }
}

/// `and`, `or`, `unless`.
pub(super) fn set_operation(binary: &Binary, left: Vec<Row>, right: Vec<Row>) -> Result<Vec<Row>, Error> {
    let matching = &binary.matching;
    let presence = |rows: &[Row]| {
        let mut presence: HashMap<Labels, Vec<bool>> = HashMap::new();
        for row in rows {
            let seen = presence
                .entry(signature(matching, &row.labels))
                .or_insert_with(|| vec![false; row.column.len()]);
            for (seen, slot) in seen.iter_mut().zip(&row.column) {
                *seen |= slot.is_some();
            }
        }
        presence
    };
    let filter = |rows: Vec<Row>, presence: &HashMap<Labels, Vec<bool>>, wanted: bool| {
        let mut kept = Vec::with_capacity(rows.len());
        for mut row in rows {
            let seen = presence.get(&signature(matching, &row.labels));
            for (at, slot) in row.column.iter_mut().enumerate() {
                if seen.is_some_and(|seen| seen[at]) != wanted {
                    *slot = None;
                }
            }
            if row.has_values() {
                kept.push(row);
            }
        }
        kept
    };
    match binary.op {
        BinaryOp::And => Ok(filter(left, &presence(&right), true)),
        BinaryOp::Unless => Ok(filter(left, &presence(&right), false)),
        _ => {
            let rest = filter(right, &presence(&left), false);
            joined(left.into_iter().chain(rest).collect())
        }
    }
}

/// The series that share a signature.
#[derive(Default)]
struct Partners {
    many: Vec<usize>,
    one: Vec<usize>,
}

/// Both sides of a match, the "many" side first.
struct Sides {
    many: Vec<Row>,
    one: Vec<Row>,
    /// Whether the "many" side is the right operand.
    is_swapped: bool,
    /// Whether a side has any value at a time.
    many_present: Vec<bool>,
}

fn present(rows: &[Row], count: usize) -> Vec<bool> {
    let mut present = vec![false; count];
    for row in rows {
        for (seen, slot) in present.iter_mut().zip(&row.column) {
            *seen |= slot.is_some();
        }
    }
    present
}

impl Evaluator<'_> {
    pub(super) fn match_vectors(
        &mut self,
        binary: &Binary,
        span: Span,
        left: Vec<Row>,
        right: Vec<Row>,
        grid: Grid,
    ) -> Result<Vec<Row>, Error> {
        let is_swapped = binary.matching.group == Group::Right;
        let (many, one) = if is_swapped { (right, left) } else { (left, right) };
        let many_present = present(&many, grid.count);
        let sides = Sides { many, one, is_swapped, many_present };
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut groups: Vec<(Labels, Partners)> = Vec::new();
        for (rows, is_one) in [(&sides.many, false), (&sides.one, true)] {
            for (at, row) in rows.iter().enumerate() {
                let signature = signature(&binary.matching, &row.labels);
                let place = *places.entry(signature.clone()).or_insert_with(|| {
                    groups.push((signature, Partners::default()));
                    groups.len() - 1
                });
                let partners = &mut groups[place].1;
                if is_one { partners.one.push(at) } else { partners.many.push(at) }
            }
        }
        let mut rows = Vec::new();
        for (signature, partners) in &groups {
            self.spend((partners.many.len() + 1) * grid.count)?;
            self.match_group(binary, span, &sides, signature, partners, grid, &mut rows)?;
        }
        joined(rows).map_err(|error| match error {
            Error::Execution(_) => Error::Execution(
                "multiple matches for labels: grouping labels must ensure unique matches".to_owned(),
            ),
            other => other,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one group of one match: all of it is needed")]
    fn match_group(
        &mut self,
        binary: &Binary,
        span: Span,
        sides: &Sides,
        signature: &Labels,
        partners: &Partners,
        grid: Grid,
        rows: &mut Vec<Row>,
    ) -> Result<(), Error> {
        let matching = &binary.matching;
        let (fill_many, fill_one) = match sides.is_swapped {
            true => (matching.fill_right, matching.fill_left),
            false => (matching.fill_left, matching.fill_right),
        };
        if partners.one.is_empty() && fill_one.is_none() {
            return Ok(());
        }
        let one_at = unique_partner(sides, signature, &partners.one, fill_many.is_some(), grid.count)?;
        let mut is_matched = vec![false; grid.count];
        for many in &partners.many {
            let many = &sides.many[*many];
            let mut built: Vec<(Option<usize>, Row)> = Vec::new();
            for at in 0..grid.count {
                let Some(many_value) = &many.column[at] else { continue };
                let one = one_at[at].map(|one| &sides.one[one]);
                let one_value = one.and_then(|row| row.column[at].clone()).or(fill_one.map(Value::Float));
                let Some(one_value) = one_value else { continue };
                if is_matched[at] && matching.group == Group::None {
                    return Err(Error::Execution(
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                            .to_owned(),
                    ));
                }
                is_matched[at] = true;
                let value = self.pair(binary, span, sides.is_swapped, many_value, &one_value);
                if value.is_some() {
                    let place = built.iter().position(|(held, _)| *held == one_at[at]).unwrap_or_else(|| {
                        let row = result_row(binary, many, one, grid.count);
                        built.push((one_at[at], row));
                        built.len() - 1
                    });
                    built[place].1.column[at] = value;
                }
            }
            rows.extend(built.into_iter().map(|(_, row)| row));
        }
        let Some(fill) = fill_many else { return Ok(()) };
        // One series stands for all that are missing, known by the labels that were matched on.
        let missing = Row { labels: signature.clone(), drops_name: false, column: Vec::new() };
        for one in &partners.one {
            let one = &sides.one[*one];
            let mut row = result_row(binary, &missing, Some(one), grid.count);
            for at in (0..grid.count).filter(|at| !is_matched[*at]) {
                let Some(value) = &one.column[at] else { continue };
                row.column[at] = self.pair(binary, span, sides.is_swapped, &Value::Float(fill), value);
            }
            rows.push(row);
        }
        Ok(())
    }

    fn pair(
        &mut self,
        binary: &Binary,
        span: Span,
        is_swapped: bool,
        many: &Value,
        one: &Value,
    ) -> Option<Value> {
        let (left, right) = if is_swapped { (one, many) } else { (many, one) };
        match self.element(binary.op, left, right, span) {
            Element::Value(value) => Some(value),
            Element::Verdict(verdict) if binary.returns_bool => {
                Some(Value::Float(f64::from(u8::from(verdict))))
            }
            Element::Verdict(true) => Some(left.clone()),
            Element::Verdict(false) | Element::Nothing => None,
        }
    }
}

/// Which series of the "one" side has the value at each time. Two at once have no defined meaning.
fn unique_partner(
    sides: &Sides,
    signature: &Labels,
    candidates: &[usize],
    is_filled: bool,
    count: usize,
) -> Result<Vec<Option<usize>>, Error> {
    let mut partner: Vec<Option<usize>> = vec![None; count];
    for candidate in candidates {
        for (at, slot) in sides.one[*candidate].column.iter().enumerate() {
            if slot.is_none() {
                continue;
            }
            match partner[at] {
                Some(held) if sides.many_present[at] || is_filled => {
                    let mut pair = [&sides.one[held].labels, &sides.one[*candidate].labels];
                    pair.sort();
                    let hand = if sides.is_swapped { "left" } else { "right" };
                    return Err(Error::Execution(format!(
                        "found duplicate series for the match group {signature} on the {hand} hand-side of the \
                         operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on \
                         one side",
                        pair[0], pair[1]
                    )));
                }
                _ => partner[at] = Some(*candidate),
            }
        }
    }
    Ok(partner)
}

fn result_row(binary: &Binary, many: &Row, one: Option<&Row>, count: usize) -> Row {
    let matching = &binary.matching;
    let keeps_name = (binary.op.is_comparison() || binary.op.is_trim()) && !binary.returns_bool;
    // First, so that `group_left (__name__)` can bring another name in.
    let mut labels = if keeps_name { many.labels.clone() } else { many.labels.without_name() };
    if matching.group == Group::None {
        labels =
            if matching.is_on { labels.keep(&matching.labels) } else { labels.without(&matching.labels) };
    } else if let Some(one) = one {
        for name in &matching.include {
            labels = labels.with(name, one.labels.get(name));
        }
    }
    let column: Column = vec![None; count];
    Row { labels, drops_name: many.drops_name && keeps_name, column }
}
