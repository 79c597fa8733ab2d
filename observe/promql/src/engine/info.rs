//! `info`: adds the labels of info metrics (`target_info`) to the series of the same instance and job.

use std::collections::HashMap;

use super::calls::identifying;
use super::column::{Column, Row, joined};
use super::select::Reads;
use super::{Evaluator, Grid};
use crate::ast::{Expr, Extension, Node, Selector};
use crate::error::Error;
use crate::labels::{Labels, METRIC_NAME};
use crate::matcher::Matcher;

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
        if !wanted.iter().any(|matcher| matcher.name == METRIC_NAME) {
            matchers.push(Matcher::equal(METRIC_NAME, TARGET_INFO));
        }
        let is_info = |labels: &Labels| {
            let mut names = matchers.iter().filter(|matcher| matcher.name == METRIC_NAME);
            names.all(|matcher| matcher.matches(labels.metric_name()))
        };
        let selector =
            Selector { matchers: matchers.clone(), offset: None, at: None, extension: Extension::None };
        let infos = self.select_vector(&selector, grid, Reads::Values)?;
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

/// One row per set of info labels that was in force at some time.
fn enriched(row: &Row, partners: &[&Row], data_labels: &[&str], may_lack: bool) -> Result<Vec<Row>, Error> {
    let mut results: Vec<Row> = Vec::new();
    for (at, slot) in row.column.iter().enumerate() {
        let Some(value) = slot else { continue };
        let mut labels = row.labels.clone();
        let mut seen: HashMap<&str, ()> = HashMap::new();
        let in_force: Vec<&&Row> = partners.iter().filter(|partner| partner.column[at].is_some()).collect();
        if in_force.is_empty() && !may_lack {
            continue;
        }
        for partner in in_force {
            if seen.insert(partner.metric_name(), ()).is_some() {
                return Err(Error::Execution(format!(
                    "found duplicate series for info metric {}: existing and {}",
                    partner.metric_name(),
                    partner.labels
                )));
            }
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
