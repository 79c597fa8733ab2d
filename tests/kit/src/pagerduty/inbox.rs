//! What came: incidents with their triggers and resolves, and what was refused.

use belfry_signal::now_unix_nanos;
use serde::Serialize;
use serde_json::Value;

use super::event::{Action, Event};

/// Refusals that are kept with their reasons; beyond it they are only counted.
const REJECTED_MAX: usize = 1000;
/// Incidents that are kept; beyond it the oldest resolved one makes room.
const INCIDENTS_MAX: usize = 10_000;

/// The state of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IncidentState {
    /// Somebody is being called.
    Triggered,
    /// Somebody works on it.
    Acknowledged,
    /// Over.
    Resolved,
}

/// One incident: everything under one dedup key of one routing key between a trigger and its resolve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// The dedup key.
    pub dedup_key: String,
    /// The state.
    pub state: IncidentState,
    /// Trigger events, repetitions included.
    pub triggers: u64,
    /// Acknowledge events.
    pub acknowledges: u64,
    /// Resolve events.
    pub resolves: u64,
    /// When the first trigger came, in nanoseconds since the Unix epoch.
    pub triggered_unix_nanos: u64,
    /// When its state changed last, and who changed it, if it was a person.
    pub changed_unix_nanos: u64,
    /// The person.
    pub changed_by: Option<String>,
    /// When the resolve came.
    pub resolved_unix_nanos: Option<u64>,
    /// The summary of the first trigger.
    pub summary: String,
    /// Its severity.
    pub severity: String,
    /// The first trigger, without its routing key.
    pub event: Value,
    /// The service's routing key; not shown.
    #[serde(skip)]
    pub routing_key: String,
}

/// One refused event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// The status code that was answered.
    pub status: u16,
    /// Everything that was wrong.
    pub errors: Vec<String>,
}

/// Everything that came.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Inbox {
    /// Incidents, oldest first.
    pub incidents: Vec<Incident>,
    /// Events that were taken.
    pub accepted: u64,
    /// Events that were refused, with the reasons of the first thousand.
    pub rejected: Vec<Rejected>,
    /// Events that were refused.
    pub rejected_total: u64,
    /// Requests that got a scripted status.
    pub scripted: u64,
    /// Acknowledge and resolve events without an open incident, which PagerDuty drops.
    pub stray: u64,
    /// Change events.
    pub changes: u64,
    /// Texts in events that look like numbers or SIP URIs: there must be none.
    pub private_texts: Vec<String>,
}

impl Inbox {
    /// Incidents that are open.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().filter(|incident| incident.state != IncidentState::Resolved)
    }

    /// Incidents under this dedup key, oldest first.
    pub fn of(&self, dedup_key: &str) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().filter(move |incident| incident.dedup_key == dedup_key)
    }

    /// Takes a checked event; gives its dedup key, and the state of its incident before, if that changed.
    pub(super) fn take(&mut self, event: Event) -> Result<(String, Option<IncidentState>), String> {
        let now = now_unix_nanos();
        let dedup_key = event.dedup_key.clone().unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
        let is_foreign = |incident: &&Incident| {
            incident.dedup_key == dedup_key && incident.routing_key != event.routing_key
        };
        // PagerDuty would open a second incident; for us one dedup key belongs to one service for its life.
        if event.action != Action::Change && self.incidents.iter().find(is_foreign).is_some() {
            return Err("'dedup_key' was used with another routing key".to_owned());
        }
        self.accepted += 1;
        self.private_texts.extend(event.private_texts.iter().cloned());
        if event.action == Action::Change {
            self.changes += 1;
            return Ok((dedup_key, None));
        }
        let open =
            self.incidents.iter_mut().rev().find(|incident| {
                incident.dedup_key == dedup_key && incident.state != IncidentState::Resolved
            });
        let mut before = open.as_ref().map(|incident| incident.state);
        match (event.action, open) {
            (Action::Trigger, Some(incident)) => {
                incident.triggers += 1;
                before = None;
            }
            (Action::Trigger, None) => {
                self.trigger(event, dedup_key.clone(), now);
                before = Some(IncidentState::Triggered);
            }
            (Action::Acknowledge, Some(incident)) => {
                incident.acknowledges += 1;
                incident.state = IncidentState::Acknowledged;
                (incident.changed_unix_nanos, incident.changed_by) = (now, None);
            }
            (Action::Resolve, Some(incident)) => {
                incident.resolves += 1;
                incident.state = IncidentState::Resolved;
                (incident.changed_unix_nanos, incident.changed_by) = (now, None);
                incident.resolved_unix_nanos = Some(now);
            }
            (Action::Resolve, None) => {
                // Counted where it can be seen that a client resolved twice.
                let last = self.incidents.iter_mut().rev().find(|incident| incident.dedup_key == dedup_key);
                if let Some(last) = last {
                    last.resolves += 1;
                }
                self.stray += 1;
            }
            _ => self.stray += 1,
        }
        Ok((dedup_key, before))
    }

    pub(super) fn reject(&mut self, status: u16, errors: Vec<String>) {
        self.rejected_total += 1;
        if self.rejected.len() < REJECTED_MAX {
            self.rejected.push(Rejected { status, errors });
        }
    }

    fn trigger(&mut self, event: Event, dedup_key: String, now: u64) {
        if self.incidents.len() >= INCIDENTS_MAX {
            let resolved = |incident: &Incident| incident.state == IncidentState::Resolved;
            let oldest = self.incidents.iter().position(resolved).unwrap_or(0);
            self.incidents.remove(oldest);
        }
        self.incidents.push(Incident {
            dedup_key,
            state: IncidentState::Triggered,
            triggers: 1,
            acknowledges: 0,
            resolves: 0,
            triggered_unix_nanos: now,
            changed_unix_nanos: now,
            changed_by: None,
            resolved_unix_nanos: None,
            summary: event.summary,
            severity: event.severity,
            event: event.body,
            routing_key: event.routing_key,
        });
    }
}
