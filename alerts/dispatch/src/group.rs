//! A group of alerts on one route: what its receiver was told of it, and what is to be told next.

use std::collections::{BTreeMap, BTreeSet};

use belfry_promql::Labels;
use serde::{Deserialize, Serialize};

/// What one integration was told of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The incident, while it is open or was last.
    pub incident: String,
    /// Notices of the incident so far.
    pub number: u64,
    /// Whether it was triggered and not yet resolved.
    pub is_open: bool,
    /// Firing alerts that it was told of, by fingerprint.
    pub firing: BTreeSet<String>,
    /// Alerts of which it was told that they are over.
    pub resolved: BTreeSet<String>,
    /// When it was last told, in Unix milliseconds.
    pub at_ms: i64,
    /// Somebody works on it.
    pub acknowledgement: Option<Acknowledgement>,
}

/// Somebody works on an incident: it is not told again until it is over, or until a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Who.
    pub by: String,
    /// Why, or what is being done.
    pub comment: String,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// Until when it holds; `None` until the incident is over.
    pub until_ms: Option<i64>,
}

/// A group as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Which route, and which labels.
    pub key: String,
    /// The route's key.
    pub route: String,
    /// The receiver.
    pub receiver: String,
    /// The labels that name it.
    pub labels: Vec<(String, String)>,
    /// When it is looked at next, in Unix milliseconds.
    pub due_ms: i64,
    /// Whether it was looked at once.
    pub has_flushed: bool,
    /// Its alerts.
    pub members: Vec<Vec<(String, String)>>,
    /// What was told, by integration.
    pub told: BTreeMap<String, Told>,
    /// Its route is gone: what was told is to be ended, and nothing more.
    pub is_orphaned: bool,
}

/// A group in memory.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) route: String,
    pub(crate) receiver: String,
    pub(crate) labels: Labels,
    pub(crate) due_ms: i64,
    pub(crate) has_flushed: bool,
    pub(crate) members: BTreeSet<Labels>,
    pub(crate) told: BTreeMap<String, Told>,
    pub(crate) is_orphaned: bool,
}

/// What an integration is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Nothing,
    /// A new incident.
    Open,
    /// More about the open one, or the same again.
    Update,
    Resolve,
}

/// The alerts of a group, by fingerprint.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Firing, and nothing keeps them from being told.
    pub(crate) audible: BTreeSet<String>,
    /// Firing, whether told or not.
    pub(crate) firing: BTreeSet<String>,
    /// Over.
    pub(crate) resolved: BTreeSet<String>,
}

impl Told {
    /// What is to be told now.
    pub(crate) fn decide(
        &self,
        standing: &Standing,
        send_resolved: bool,
        repeat_interval_ms: i64,
        now_ms: i64,
        is_orphaned: bool,
    ) -> Decision {
        if !self.is_open {
            return if standing.audible.is_empty() || is_orphaned {
                Decision::Nothing
            } else {
                Decision::Open
            };
        }
        let goes_on = self.firing.iter().any(|told| standing.firing.contains(told));
        if is_orphaned || (!goes_on && standing.audible.is_empty()) {
            return Decision::Resolve;
        }
        if standing.audible.is_empty() {
            // Silenced while it goes on: it stays open, and nothing is lost.
            return Decision::Nothing;
        }
        if !standing.audible.is_subset(&self.firing) {
            return Decision::Update;
        }
        if send_resolved && standing.resolved.iter().any(|over| self.firing.contains(over)) {
            return Decision::Update;
        }
        let is_acknowledged = self
            .acknowledgement
            .as_ref()
            .is_some_and(|acknowledged| acknowledged.until_ms.is_none_or(|until| now_ms < until));
        // A clock that stepped back must not hold a repetition up for as long as it stepped.
        let since = now_ms.saturating_sub(self.at_ms);
        let is_due = since >= repeat_interval_ms || since < 0;
        if is_due && !is_acknowledged { Decision::Update } else { Decision::Nothing }
    }
}
