//! The state machine: alerts in, notices out.

mod flush;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use belfry_promql::Labels;

use crate::alert::{Alert, AlertRow, Incoming, fingerprint, plain};
use crate::config::Config;
use crate::group::{Acknowledgement, Group, GroupRow};
use crate::inhibit::Inhibitor;
use crate::notice::{Notice, labels_of};
use crate::silence::{Silence, SilenceError, SilenceRequest, Silences};
use crate::view::Muted;

#[cfg(test)]
mod tests;

/// Bounds and settings that no file has.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Alerts that are known at once.
    pub alerts_max: usize,
    /// Those of them that were posted, so that a stranger's storm leaves room for our own rules.
    pub posted_max: usize,
    /// How far ahead the end of a posted alert may lie, in milliseconds.
    pub posted_ahead_max_ms: i64,
    /// Groups at once.
    pub groups_max: usize,
    /// Silences, those included that are over and remembered.
    pub silences_max: usize,
    /// Notices that may wait to be taken; then no group is looked at.
    pub notices_max: usize,
    /// Where this Belfry is reached.
    pub external_url: String,
    /// Sources whose alerts have their own way out: they are inhibited, silenced and shown, and never grouped.
    pub own_ways: Vec<String>,
}

/// What was written before a restart.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Alerts.
    pub alerts: Vec<AlertRow>,
    /// Groups.
    pub groups: Vec<GroupRow>,
    /// Silences.
    pub silences: Vec<Silence>,
    /// Notices that nobody has taken.
    pub notices: Vec<Notice>,
}

/// How to begin again.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// Sources that must have spoken once before anything new is told.
    pub awaited: BTreeSet<String>,
    /// How long they are waited for, in milliseconds.
    pub wait_max_ms: i64,
    /// How long those who post are waited for, if anything of theirs is known.
    pub posts_wait_ms: i64,
    /// How long nobody was here.
    pub down_ms: i64,
}

/// What became of alerts that were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Known now.
    pub taken: usize,
    /// Not taken, because as many as may be are known.
    pub refused: usize,
}

/// What changed and is to be written down, in one transaction: `None` is to be removed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// By fingerprint.
    pub alerts: Vec<(String, Option<AlertRow>)>,
    /// By key.
    pub groups: Vec<(String, Option<GroupRow>)>,
    /// By id.
    pub silences: Vec<(String, Option<Silence>)>,
    /// By number.
    pub notices: Vec<(u64, Option<Notice>)>,
    /// Whose alerts changed: by their fingerprints nobody finds those that are gone.
    labels: Vec<Labels>,
}

impl Changes {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.alerts.is_empty()
            && self.groups.is_empty()
            && self.silences.is_empty()
            && self.notices.is_empty()
    }
}

/// Waiting for those who were not heard since the restart.
#[derive(Clone, Debug)]
struct Settling {
    awaited: BTreeSet<String>,
    least_ms: i64,
    most_ms: i64,
}

/// Everything that is known and owed.
#[derive(Clone, Debug)]
pub struct Dispatch {
    pub(crate) config: Arc<Config>,
    bounds: Bounds,
    pub(crate) alerts: BTreeMap<Labels, Alert>,
    /// Alerts that end by themselves, by when.
    ends: BTreeSet<(i64, Labels)>,
    by_source: HashMap<String, BTreeSet<Labels>>,
    pub(crate) groups: BTreeMap<String, Group>,
    /// Groups by when they are looked at.
    dues: BTreeSet<(i64, String)>,
    pub(crate) silences: Silences,
    pub(crate) inhibitor: Inhibitor,
    notices: BTreeMap<u64, Notice>,
    next_seq: u64,
    settling: Option<Settling>,
    /// Groups that could not be made.
    groups_refused: u64,
    /// Firing alerts that some group had no room for; they are placed when there is.
    unplaced: BTreeSet<Labels>,
    /// Alerts that were posted.
    posted: usize,
    last_tick_ms: Option<i64>,
    dirty_alerts: BTreeSet<Labels>,
    dirty_groups: BTreeSet<String>,
    dirty_silences: BTreeSet<String>,
    dirty_notices: BTreeSet<u64>,
}

impl Dispatch {
    /// Begins with nothing.
    #[must_use]
    pub fn new(config: Arc<Config>, bounds: Bounds) -> Dispatch {
        Dispatch {
            inhibitor: Inhibitor::new(&config.inhibit_rules),
            config,
            bounds,
            alerts: BTreeMap::new(),
            ends: BTreeSet::new(),
            by_source: HashMap::new(),
            groups: BTreeMap::new(),
            dues: BTreeSet::new(),
            silences: Silences::default(),
            notices: BTreeMap::new(),
            next_seq: 0,
            settling: None,
            groups_refused: 0,
            unplaced: BTreeSet::new(),
            posted: 0,
            last_tick_ms: None,
            dirty_alerts: BTreeSet::new(),
            dirty_groups: BTreeSet::new(),
            dirty_silences: BTreeSet::new(),
            dirty_notices: BTreeSet::new(),
        }
    }

    /// Begins with what was written before a restart. Nothing new is told until everybody who is awaited has spoken:
    /// an alert must not be told because its inhibitor was not heard yet. Rows that cannot be read are counted.
    #[must_use]
    pub fn resume(
        config: Arc<Config>,
        bounds: Bounds,
        restored: Restored,
        resume: &Resume,
        now_ms: i64,
    ) -> (Dispatch, usize) {
        let mut dispatch = Dispatch::new(config, bounds);
        let (mut unreadable, mut has_posted) = (0, false);
        for mut row in restored.alerts {
            let labels = labels_of(&row.labels);
            if row.source.is_empty() && !row.is_resolved {
                has_posted = true;
                // While we were away nobody could tell us that it goes on.
                row.ends_at_ms = row.ends_at_ms.map(|ends| ends.saturating_add(resume.down_ms));
            }
            dispatch.insert(labels, row);
        }
        for row in restored.groups {
            dispatch.restore_group(row);
        }
        for silence in restored.silences {
            unreadable += usize::from(dispatch.silences.restore(silence).is_err());
        }
        dispatch.next_seq = restored.notices.iter().map(|notice| notice.seq + 1).max().unwrap_or(0);
        dispatch.notices = restored.notices.into_iter().map(|notice| (notice.seq, notice)).collect();
        let posts_wait = if has_posted { resume.posts_wait_ms } else { 0 };
        dispatch.settling = Some(Settling {
            awaited: resume.awaited.clone(),
            least_ms: now_ms.saturating_add(posts_wait),
            most_ms: now_ms.saturating_add(resume.wait_max_ms.max(posts_wait)),
        });
        dispatch.dirty_alerts.clear();
        dispatch.reroute(now_ms);
        let known: Vec<Labels> = dispatch.alerts.keys().cloned().collect();
        known.iter().for_each(|labels| dispatch.forget_if_over(labels));
        (dispatch, unreadable)
    }

    fn restore_group(&mut self, row: GroupRow) {
        let members: BTreeSet<Labels> = row.members.iter().map(|pairs| labels_of(pairs)).collect();
        // A member that is not known any more is over; its group learns of it when it is looked at.
        let members: BTreeSet<Labels> =
            members.into_iter().filter(|labels| self.alerts.contains_key(labels)).collect();
        for labels in &members {
            if let Some(alert) = self.alerts.get_mut(labels) {
                alert.groups += 1;
            }
        }
        self.dues.insert((row.due_ms, row.key.clone()));
        let group = Group {
            route: row.route,
            receiver: row.receiver,
            labels: labels_of(&row.labels),
            due_ms: row.due_ms,
            has_flushed: row.has_flushed,
            members,
            told: row.told,
            is_orphaned: row.is_orphaned,
        };
        self.groups.insert(row.key, group);
    }

    /// Takes another configuration. What was told on a route that is gone is ended; alerts find their new routes.
    pub fn reconfigure(&mut self, config: Arc<Config>, now_ms: i64) {
        self.inhibitor = Inhibitor::new(&config.inhibit_rules);
        self.config = config;
        for alert in self.alerts.values().filter(|alert| alert.is_firing()) {
            self.inhibitor.add(&alert.labels);
        }
        self.reroute(now_ms);
    }

    /// Marks groups whose route is gone or speaks to another, and puts alerts into their groups.
    fn reroute(&mut self, now_ms: i64) {
        let routes: HashMap<&str, &str> =
            self.config.routes.iter().map(|route| (route.key.as_str(), route.receiver.as_str())).collect();
        let mut orphaned = Vec::new();
        for (key, group) in &mut self.groups {
            let is_there = routes.get(group.route.as_str()) == Some(&group.receiver.as_str());
            let keeps_labels =
                self.config.routes.iter().find(|route| route.key == group.route).is_some_and(|route| {
                    group.members.iter().all(|member| route.group_by.labels(member) == group.labels)
                });
            if (!is_there || !keeps_labels) && !group.is_orphaned {
                group.is_orphaned = true;
                orphaned.push(key.clone());
            }
        }
        for key in orphaned {
            self.set_due(&key, now_ms);
        }
        let firing: Vec<Labels> = self
            .alerts
            .values()
            .filter(|alert| alert.is_firing())
            .map(|alert| alert.labels.clone())
            .collect();
        for labels in firing {
            self.place(&labels, now_ms);
        }
    }

    /// Takes alerts that somebody posted.
    pub fn post(&mut self, alerts: Vec<Incoming>, now_ms: i64) -> Taken {
        let mut taken = Taken::default();
        for alert in alerts {
            let starts_at_ms =
                alert.starts_at_ms.or(alert.ends_at_ms.filter(|ends| *ends <= now_ms)).unwrap_or(now_ms);
            let timeout = now_ms.saturating_add(self.config.resolve_timeout_ms);
            let latest = now_ms.saturating_add(self.bounds.posted_ahead_max_ms);
            let ends_at_ms = alert.ends_at_ms.unwrap_or(timeout).min(latest);
            if self
                .alerts
                .get(&alert.labels)
                .is_some_and(|held| held.is_firing() && !held.row.source.is_empty())
            {
                // A source of ours says that it fires, and says when it is over.
                taken.taken += 1;
                continue;
            }
            self.tell(alert, starts_at_ms, Some(ends_at_ms), "", now_ms, &mut taken);
        }
        taken
    }

    /// Takes all alerts of a source that fire now; those of it that are not among them are over.
    pub fn sync(&mut self, source: &str, alerts: Vec<Incoming>, now_ms: i64) -> Taken {
        if let Some(settling) = &mut self.settling {
            settling.awaited.remove(source);
        }
        let mut taken = Taken::default();
        let mut over = self.by_source.get(source).cloned().unwrap_or_default();
        for alert in alerts {
            over.remove(&alert.labels);
            let starts_at_ms = alert.starts_at_ms.unwrap_or(now_ms);
            self.tell(alert, starts_at_ms, None, source, now_ms, &mut taken);
        }
        for labels in over {
            self.resolve(&labels, now_ms);
        }
        taken
    }

    /// Sources that are gone are not waited for.
    pub fn await_only(&mut self, is_there: impl Fn(&str) -> bool) {
        if let Some(settling) = &mut self.settling {
            settling.awaited.retain(|source| is_there(source));
        }
    }

    /// The sources whose alerts are known and fire.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.by_source.iter().filter(|(_, alerts)| !alerts.is_empty()).map(|(source, _)| source.as_str())
    }

    fn tell(
        &mut self,
        alert: Incoming,
        starts_at_ms: i64,
        ends_at_ms: Option<i64>,
        source: &str,
        now_ms: i64,
        taken: &mut Taken,
    ) {
        let is_over = ends_at_ms.is_some_and(|ends| ends <= now_ms);
        let held = self.alerts.get(&alert.labels);
        let is_full = self.alerts.len() >= self.bounds.alerts_max
            || (source.is_empty() && self.posted >= self.bounds.posted_max);
        if held.is_none() && (is_over || is_full) {
            // What nobody knew of and is over is nothing to tell.
            if is_over {
                taken.taken += 1
            } else {
                taken.refused += 1
            }
            return;
        }
        taken.taken += 1;
        let earlier = held.filter(|held| held.is_firing()).map(|held| held.row.starts_at_ms);
        let row = AlertRow {
            labels: plain(&alert.labels),
            annotations: alert.annotations,
            starts_at_ms: earlier.map_or(starts_at_ms, |earlier| earlier.min(starts_at_ms)),
            ends_at_ms,
            updated_at_ms: now_ms,
            generator_url: alert.generator_url,
            source: source.to_owned(),
            is_resolved: is_over,
        };
        let labels = alert.labels;
        if held.is_some_and(|held| AlertRow { updated_at_ms: now_ms, ..held.row.clone() } == row) {
            // Said again, as each second or each evaluation: nothing to write down.
            return;
        }
        let is_new = held.is_none_or(|held| !held.is_firing());
        self.insert(labels.clone(), row);
        if is_over {
            self.forget_if_over(&labels);
        } else if is_new {
            self.place(&labels, now_ms);
        }
    }

    /// Puts an alert in, in place of what was known of it.
    fn insert(&mut self, labels: Labels, row: AlertRow) {
        let groups = self.alerts.get(&labels).map_or(0, |held| held.groups);
        self.forget_indexes(&labels);
        if row.is_resolved {
            self.unplaced.remove(&labels);
        } else {
            self.inhibitor.add(&labels);
            if let Some(ends) = row.ends_at_ms {
                self.ends.insert((ends, labels.clone()));
            }
            if !row.source.is_empty() {
                self.by_source.entry(row.source.clone()).or_default().insert(labels.clone());
            }
        }
        self.dirty_alerts.insert(labels.clone());
        self.posted += usize::from(row.source.is_empty());
        if let Some(before) = self.alerts.insert(labels.clone(), Alert { labels, row, groups }) {
            self.posted -= usize::from(before.row.source.is_empty());
        }
    }

    fn forget_indexes(&mut self, labels: &Labels) {
        let Some(held) = self.alerts.get(labels) else { return };
        if let Some(ends) = held.row.ends_at_ms {
            self.ends.remove(&(ends, labels.clone()));
        }
        if let Some(of_source) = self.by_source.get_mut(&held.row.source) {
            of_source.remove(labels);
            if of_source.is_empty() {
                self.by_source.remove(&held.row.source);
            }
        }
        self.inhibitor.remove(labels);
    }

    fn resolve(&mut self, labels: &Labels, now_ms: i64) {
        let Some(held) = self.alerts.get(labels) else { return };
        let ends_at_ms = Some(held.row.ends_at_ms.map_or(now_ms, |ends| ends.min(now_ms)));
        let row = AlertRow { is_resolved: true, ends_at_ms, updated_at_ms: now_ms, ..held.row.clone() };
        self.insert(labels.clone(), row);
        self.forget_if_over(labels);
    }

    /// An alert that is over leaves memory when no group has to hear of it.
    fn forget_if_over(&mut self, labels: &Labels) {
        if self.alerts.get(labels).is_some_and(|alert| alert.groups == 0 && !alert.is_firing()) {
            let gone = self.alerts.remove(labels);
            self.posted -= usize::from(gone.is_some_and(|gone| gone.row.source.is_empty()));
            self.dirty_alerts.insert(labels.clone());
        }
    }

    /// Puts a firing alert into the groups of its routes.
    fn place(&mut self, labels: &Labels, now_ms: i64) {
        let Some(alert) = self.alerts.get(labels) else { return };
        if self.bounds.own_ways.contains(&alert.row.source) {
            return;
        }
        let starts_at_ms = alert.row.starts_at_ms;
        let config = self.config.clone();
        for place in config.routes_of(labels) {
            let route = &config.routes[place];
            let group_labels = route.group_by.labels(labels);
            let key = format!("{}:{group_labels}", route.key);
            // The receiver is part of the key, so that a route that speaks to another has groups of its own.
            let key = format!("{key}@{}", route.receiver);
            if !self.groups.contains_key(&key) {
                if self.groups.len() >= self.bounds.groups_max {
                    self.groups_refused += u64::from(self.unplaced.insert(labels.clone()));
                    continue;
                }
                let due_ms = now_ms.saturating_add(route.group_wait_ms);
                self.dues.insert((due_ms, key.clone()));
                let group = Group {
                    route: route.key.clone(),
                    receiver: route.receiver.clone(),
                    labels: group_labels,
                    due_ms,
                    has_flushed: false,
                    members: BTreeSet::new(),
                    told: BTreeMap::new(),
                    is_orphaned: false,
                };
                self.groups.insert(key.clone(), group);
            }
            let Some(group) = self.groups.get_mut(&key) else { continue };
            group.is_orphaned = false;
            let is_member = !group.members.insert(labels.clone());
            // An alert that is older than the group would have waited waits no more.
            let is_late = !group.has_flushed && starts_at_ms.saturating_add(route.group_wait_ms) < now_ms;
            if !is_member && let Some(alert) = self.alerts.get_mut(labels) {
                alert.groups += 1;
            }
            self.dirty_groups.insert(key.clone());
            if is_late {
                self.set_due(&key, now_ms);
            }
        }
    }

    /// Places alerts that had no room, as far as there is now.
    fn place_again(&mut self, now_ms: i64) {
        while self.groups.len() < self.bounds.groups_max {
            let Some(labels) = self.unplaced.pop_first() else { return };
            if self.alerts.get(&labels).is_some_and(Alert::is_firing) {
                self.place(&labels, now_ms);
            }
        }
    }

    fn set_due(&mut self, key: &str, due_ms: i64) {
        if let Some(group) = self.groups.get_mut(key) {
            self.dues.remove(&(group.due_ms, key.to_owned()));
            group.due_ms = due_ms;
            self.dues.insert((due_ms, key.to_owned()));
            self.dirty_groups.insert(key.to_owned());
        }
    }

    /// Why an alert is not told, if something keeps it.
    #[must_use]
    pub fn muted(&self, labels: &Labels, now_ms: i64) -> Muted {
        Muted {
            silenced_by: self.silences.of(labels, now_ms),
            inhibited_by: self.inhibitor.inhibitors(labels).into_iter().map(fingerprint).collect(),
        }
    }

    /// What holds now.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether those who were not heard since a restart are still waited for.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.settling.is_some()
    }

    /// Takes a silence, new or changed. `fresh_id` is a new UUID. The id under which it is known now.
    ///
    /// # Errors
    /// When it cannot be, or there are as many as may be.
    pub fn set_silence(
        &mut self,
        request: SilenceRequest,
        fresh_id: &str,
        now_ms: i64,
    ) -> Result<String, SilenceError> {
        let changed = self.silences.set(request, fresh_id, now_ms, self.bounds.silences_max)?;
        self.dirty_silences.extend(changed.iter().cloned());
        changed.last().cloned().ok_or_else(|| SilenceError::NotFound(fresh_id.to_owned()))
    }

    /// Ends a silence.
    ///
    /// # Errors
    /// When there is none of this id, or it is over.
    pub fn expire_silence(&mut self, id: &str, now_ms: i64) -> Result<(), SilenceError> {
        self.silences.expire(id, now_ms)?;
        self.dirty_silences.insert(id.to_owned());
        Ok(())
    }

    /// A silence.
    #[must_use]
    pub fn silence(&self, id: &str) -> Option<&Silence> {
        self.silences.get(id)
    }

    /// All silences, those included that are over and remembered.
    pub fn silences(&self) -> impl Iterator<Item = &Silence> {
        self.silences.all()
    }

    /// Notes that somebody works on an incident, or that nobody does any more. Whether there is such an open incident.
    pub fn acknowledge(&mut self, incident: &str, acknowledgement: Option<&Acknowledgement>) -> bool {
        for (key, group) in &mut self.groups {
            let told = group.told.values_mut().find(|told| told.is_open && told.incident == incident);
            if let Some(told) = told {
                told.acknowledgement = acknowledgement.cloned();
                self.dirty_groups.insert(key.clone());
                return true;
            }
        }
        false
    }

    /// Who works on an incident; `None` when there is no such open incident.
    #[must_use]
    pub fn acknowledgement(&self, incident: &str) -> Option<Option<&Acknowledgement>> {
        let mut told = self.groups.values().flat_map(|group| group.told.values());
        let told = told.find(|told| told.is_open && told.incident == incident)?;
        Some(told.acknowledgement.as_ref())
    }

    /// Notices that wait to be taken, in order.
    pub fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.notices.values()
    }

    /// A notice was taken.
    pub fn taken(&mut self, seq: u64) {
        if self.notices.remove(&seq).is_some() {
            self.dirty_notices.insert(seq);
        }
    }

    /// Groups that could not be made since the start, because there were as many as may be.
    #[must_use]
    pub fn groups_refused(&self) -> u64 {
        self.groups_refused
    }

    /// How many alerts fire, how many groups there are, and how many notices wait.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        let firing = self.alerts.values().filter(|alert| alert.is_firing()).count();
        (firing, self.groups.len(), self.notices.len())
    }

    /// What changed since this was last asked.
    pub fn take_changes(&mut self) -> Changes {
        let row_of = |labels: &Labels| self.alerts.get(labels).map(|alert| alert.row.clone());
        let alerts = std::mem::take(&mut self.dirty_alerts);
        let rows = alerts.iter().map(|labels| (fingerprint(labels), row_of(labels))).collect();
        let labels = alerts.into_iter().collect();
        let groups = std::mem::take(&mut self.dirty_groups);
        let groups = groups.into_iter().map(|key| {
            let row = self.groups.get(&key).map(|group| group_row(&key, group));
            (key, row)
        });
        let groups = groups.collect();
        let silences = std::mem::take(&mut self.dirty_silences);
        let silences = silences.into_iter().map(|id| {
            let row = self.silences.get(&id).cloned();
            (id, row)
        });
        let silences = silences.collect();
        let notices = std::mem::take(&mut self.dirty_notices);
        let notices = notices.into_iter().map(|seq| (seq, self.notices.get(&seq).cloned())).collect();
        Changes { alerts: rows, groups, silences, notices, labels }
    }

    /// Gives back changes that could not be written down.
    pub fn keep_changes(&mut self, changes: &Changes) {
        self.dirty_alerts.extend(changes.labels.iter().cloned());
        self.dirty_groups.extend(changes.groups.iter().map(|(key, _)| key.clone()));
        self.dirty_silences.extend(changes.silences.iter().map(|(id, _)| id.clone()));
        self.dirty_notices.extend(changes.notices.iter().map(|(seq, _)| *seq));
    }
}

fn group_row(key: &str, group: &Group) -> GroupRow {
    GroupRow {
        key: key.to_owned(),
        route: group.route.clone(),
        receiver: group.receiver.clone(),
        labels: plain(&group.labels),
        due_ms: group.due_ms,
        has_flushed: group.has_flushed,
        members: group.members.iter().map(plain).collect(),
        told: group.told.clone(),
        is_orphaned: group.is_orphaned,
    }
}
