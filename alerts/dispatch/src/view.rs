//! What is known, for those who ask.

use std::collections::BTreeMap;

use belfry_promql::Labels;

use crate::alert::{AlertRow, fingerprint};
use crate::dispatch::Dispatch;
use crate::group::Told;

/// What keeps an alert from being told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Muted {
    /// Ids of silences.
    pub silenced_by: Vec<String>,
    /// Fingerprints of alerts.
    pub inhibited_by: Vec<String>,
}

impl Muted {
    /// Whether nothing does.
    #[must_use]
    pub fn is_audible(&self) -> bool {
        self.silenced_by.is_empty() && self.inhibited_by.is_empty()
    }
}

/// An alert that fires, with what keeps it from being told and who would be.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertView {
    /// Its labels.
    pub labels: Labels,
    /// The rest of it.
    pub row: AlertRow,
    /// Its stable name.
    pub fingerprint: String,
    /// Names of receivers.
    pub receivers: Vec<String>,
    /// What keeps it.
    pub muted: Muted,
    /// Whether a group of it was looked at since it came.
    pub is_processed: bool,
}

/// A group with its alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupView {
    /// The labels that name it.
    pub labels: Labels,
    /// The receiver.
    pub receiver: String,
    /// What was told, by integration.
    pub told: BTreeMap<String, Told>,
    /// Its alerts that fire.
    pub alerts: Vec<AlertView>,
}

impl Dispatch {
    /// Every alert that fires.
    #[must_use]
    pub fn alerts(&self, now_ms: i64) -> Vec<AlertView> {
        let firing = self.alerts.values().filter(|alert| alert.is_firing());
        firing.map(|alert| self.view(&alert.labels, &alert.row, now_ms)).collect()
    }

    fn view(&self, labels: &Labels, row: &AlertRow, now_ms: i64) -> AlertView {
        let routes = self.config.routes_of(labels);
        let mut receivers: Vec<String> = Vec::new();
        for place in routes {
            let receiver = &self.config.routes[place].receiver;
            if !receivers.contains(receiver) {
                receivers.push(receiver.clone());
            }
        }
        AlertView {
            labels: labels.clone(),
            row: row.clone(),
            fingerprint: fingerprint(labels),
            receivers,
            muted: self.muted(labels, now_ms),
            is_processed: !self.is_settling(),
        }
    }

    /// Every group with firing alerts.
    #[must_use]
    pub fn groups(&self, now_ms: i64) -> Vec<GroupView> {
        let groups = self.groups.values().map(|group| {
            let members = group.members.iter().filter_map(|labels| self.alerts.get(labels));
            let firing = members.filter(|alert| alert.is_firing());
            GroupView {
                labels: group.labels.clone(),
                receiver: group.receiver.clone(),
                told: group.told.clone(),
                alerts: firing.map(|alert| self.view(&alert.labels, &alert.row, now_ms)).collect(),
            }
        });
        groups.filter(|group| !group.alerts.is_empty()).collect()
    }
}
