//! `info`: adds the labels of info metrics (`target_info`) to the series of the same instance and job.

use std::collections::HashMap;

use super::calls::identifying;
use super::column::{Column, Row, joined};
use super::select::Reads;
use super::{Evaluator, Grid};
use crate::ast::{Expr, Extension, Node, Selector};
use crate::error::Error;
use crate::labels::{Labels, METRIC_NAME};
use crate::matcher::{MatchOp, Matcher};
use crate::source::Value;

/// The info metric if the query names none.
const TARGET_INFO: &str = "target_info";

fn identity(labels: &Labels) -> Labels {
    labels.filtered(|name| identifying().contains(name))
}

impl Evaluator<'_> {
    pub(super) fn info(&mut self, arguments: &[Expr], grid: Grid) -> Result<Vec<Row>, Error> {
        let wanted: Vec<Matcher> = match arguments.get(1).map(|argument| &argument.unwrapped().node) {
            None => Vec::new(),
            Some(Node::Vector(selector)) => selector.matchers.clone(),
            Some(_) => {
                return Err(Error::Execution("info needs a selector as its second argument".to_owned()));
            }
        };
        let rows = self.rows(&arguments[0], grid)?;
        let mut matchers = wanted.clone();
        let names = || wanted.iter().filter(|matcher| matcher.name == METRIC_NAME);
        if names().next().is_none() {
            matchers.push(Matcher::equal(METRIC_NAME, TARGET_INFO));
        } else if names().all(|matcher| matches!(matcher.op, MatchOp::NotEqual | MatchOp::NotRegex)) {
            // "Not these" alone would find every metric there is.
            matchers.push(Matcher::new(METRIC_NAME, MatchOp::Regex, ".+_info").map_err(Error::Execution)?);
        }
        let is_info = |labels: &Labels| {
            let mut names = matchers.iter().filter(|matcher| matcher.name == METRIC_NAME);
            names.all(|matcher| matcher.matches(labels.metric_name()))
        };
        let selector =
            Selector { matchers: matchers.clone(), offset: None, at: None, extension: Extension::None };
        let infos = self.select_vector(&selector, grid, Reads::Times)?;
        let mut by_identity: HashMap<Labels, Vec<&Row>> = HashMap::new();
        for info in &infos {
            by_identity.entry(identity(&info.labels)).or_default().push(info);
        }
        let data_labels: Vec<&str> =
            wanted.iter().map(|matcher| &*matcher.name).filter(|name| *name != METRIC_NAME).collect();
        let may_lack = wanted.iter().filter(|m| m.name != METRIC_NAME).all(|matcher| matcher.matches(""));
        let mut results = Vec::new();
        for row in rows {
            if is_info(&row.labels) {
                results.push(row);
                continue;
            }
            let partners = by_identity.get(&identity(&row.labels)).map_or(&[][..], Vec::as_slice);
            self.spend(grid.count * (partners.len() + 1))?;
            results.extend(enriched(&row, partners, &data_labels, may_lack)?);
        }
        joined(results)
    }
}

/// The series of each info metric that is in force: of several the one with the newest sample.
fn newest<'a>(partners: &[&'a Row], at: usize) -> Result<Vec<&'a Row>, Error> {
    let mut newest: Vec<(f64, &Row)> = Vec::new();
    for partner in partners {
        let Some(Value::Float(time)) = partner.column[at] else { continue };
        match newest.iter_mut().find(|(_, held)| held.metric_name() == partner.metric_name()) {
            Some((held_time, held)) if *held_time == time => {
                return Err(Error::Execution(format!(
                    "found duplicate series for info metric: existing {}, new {}, both at {time}",
                    held.labels, partner.labels
                )));
            }
            Some(held) if held.0 < time => *held = (time, partner),
            Some(_) => {}
            None => newest.push((time, partner)),
        }
    }
    Ok(newest.into_iter().map(|(_, row)| row).collect())
}

/// One row per set of info labels that was in force at some time.
fn enriched(row: &Row, partners: &[&Row], data_labels: &[&str], may_lack: bool) -> Result<Vec<Row>, Error> {
    let mut results: Vec<Row> = Vec::new();
    for (at, slot) in row.column.iter().enumerate() {
        let Some(value) = slot else { continue };
        let mut labels = row.labels.clone();
        let in_force = newest(partners, at)?;
        if in_force.is_empty() && !may_lack {
            continue;
        }
        for partner in in_force {
            for (name, info) in partner.labels.iter() {
                let is_data = name != METRIC_NAME && !identifying().contains(name);
                let is_wanted = data_labels.is_empty() || data_labels.contains(&name);
                if is_data && is_wanted && !row.labels.has(name) {
                    labels = labels.with(name, info);
                }
            }
        }
        let place = results.iter().position(|held| held.labels == labels).unwrap_or_else(|| {
            let column: Column = vec![None; row.column.len()];
            results.push(Row { labels, drops_name: row.drops_name, column });
            results.len() - 1
        });
        results[place].column[at] = Some(value.clone());
    }
    Ok(results)
}
