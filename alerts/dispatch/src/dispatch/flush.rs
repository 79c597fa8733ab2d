//! Time passes: alerts end by themselves, groups are looked at, notices are decided.

use std::collections::BTreeSet;

use super::Dispatch;
use crate::alert::fingerprint;
use crate::config::{Integration, Route};
use crate::group::{Decision, Group, Standing, Told};
use crate::notice::{ALERTS_MAX, Act, Notice, NoticeAlert};
use sha2::{Digest, Sha256};

impl Dispatch {
    /// Decides everything that is due. Times are Unix milliseconds.
    pub fn tick(&mut self, now_ms: i64) {
        self.end_alerts(now_ms);
        self.dirty_silences.extend(self.silences.forget_old(now_ms));
        let stepped_back_ms = self.last_tick_ms.map_or(0, |last_ms| (last_ms - now_ms).max(0));
        self.last_tick_ms = Some(now_ms);
        if let Some(settling) = &mut self.settling {
            // A clock that steps back must not make the wait longer.
            settling.least_ms -= stepped_back_ms;
            settling.most_ms -= stepped_back_ms;
            let is_heard = settling.awaited.is_empty() && now_ms >= settling.least_ms;
            if !is_heard && now_ms < settling.most_ms {
                return;
            }
            self.settling = None;
        }
        self.follow_clock(now_ms);
        self.place_again(now_ms);
        while self.notices.len() < self.bounds.notices_max {
            let Some((due_ms, key)) = self.dues.first().cloned() else { break };
            if due_ms > now_ms {
                break;
            }
            self.flush(&key, now_ms);
        }
    }

    /// When something is due next.
    #[must_use]
    pub fn due_ms(&self) -> Option<i64> {
        let ends = self.ends.first().map(|(at, _)| *at);
        let groups = self.dues.first().map(|(at, _)| *at);
        ends.into_iter().chain(groups).min()
    }

    fn end_alerts(&mut self, now_ms: i64) {
        while let Some((ends_ms, labels)) = self.ends.first().cloned() {
            if ends_ms > now_ms {
                return;
            }
            self.ends.pop_first();
            self.resolve(&labels, now_ms);
        }
    }

    /// After the clock stepped back, no group waits longer than its route says.
    fn follow_clock(&mut self, now_ms: i64) {
        let Some((last_ms, _)) = self.dues.last() else { return };
        if last_ms - now_ms <= 60_000 {
            return;
        }
        let waits = |route: &Route| route.group_interval_ms.max(route.group_wait_ms);
        let far: Vec<(String, i64)> = self
            .dues
            .iter()
            .rev()
            .take_while(|(due_ms, _)| due_ms - now_ms > 60_000)
            .filter_map(|(due_ms, key)| {
                let group = self.groups.get(key)?;
                let route = self.config.routes.iter().find(|route| route.key == group.route)?;
                let most = now_ms.saturating_add(waits(route));
                (*due_ms > most).then(|| (key.clone(), most))
            })
            .collect();
        for (key, due_ms) in far {
            self.set_due(&key, due_ms);
        }
    }

    fn flush(&mut self, key: &str, now_ms: i64) {
        let Some(mut group) = self.groups.remove(key) else {
            self.dues.retain(|(_, other)| other != key);
            return;
        };
        self.dues.remove(&(group.due_ms, key.to_owned()));
        self.dirty_groups.insert(key.to_owned());
        let config = self.config.clone();
        let route = config.routes.iter().find(|route| route.key == group.route);
        let standing = self.standing(&group, route, now_ms);
        let receiver = config.receiver(&group.receiver);
        let integrations: &[Integration] = receiver.map_or(&[], |receiver| &receiver.integrations);
        let repeat_ms = route.map_or(i64::MAX, |route| route.repeat_interval_ms);
        for integration in integrations {
            let mut told = group.told.remove(&integration.target).unwrap_or_default();
            let decision =
                told.decide(&standing, integration.send_resolved, repeat_ms, now_ms, group.is_orphaned);
            self.act(&mut told, decision, &standing, (key, &group), Some(integration), now_ms);
            if told.is_open {
                group.told.insert(integration.target.clone(), told);
            }
        }
        // What was told in a way that is no longer configured is ended as well as can be.
        let known: BTreeSet<&str> =
            integrations.iter().map(|integration| integration.target.as_str()).collect();
        let gone: Vec<String> =
            group.told.keys().filter(|target| !known.contains(target.as_str())).cloned().collect();
        for target in gone {
            if let Some(mut told) = group.told.remove(&target).filter(|told| told.is_open) {
                let ended =
                    Integration { target, send_resolved: true, kind: crate::IntegrationKind::Service(None) };
                self.act(&mut told, Decision::Resolve, &standing, (key, &group), Some(&ended), now_ms);
            }
        }
        group.has_flushed = true;
        self.leave(&mut group);
        if group.members.is_empty() && group.told.is_empty() {
            return;
        }
        let interval_ms = route.map_or(300_000, |route| route.group_interval_ms);
        group.due_ms = now_ms.saturating_add(interval_ms);
        self.dues.insert((group.due_ms, key.to_owned()));
        self.groups.insert(key.to_owned(), group);
    }

    /// Alerts that are over leave the group, and memory when no group holds them.
    fn leave(&mut self, group: &mut Group) {
        let is_orphaned = group.is_orphaned;
        let over: Vec<_> = group
            .members
            .iter()
            .filter(|labels| is_orphaned || self.alerts.get(labels).is_none_or(|alert| !alert.is_firing()))
            .cloned()
            .collect();
        for labels in over {
            group.members.remove(&labels);
            let Some(alert) = self.alerts.get_mut(&labels) else { continue };
            alert.groups = alert.groups.saturating_sub(1);
            self.forget_if_over(&labels);
        }
    }

    fn standing(&self, group: &Group, route: Option<&Route>, now_ms: i64) -> Standing {
        let is_quiet = route.is_none_or(|route| {
            self.config.is_within(&route.mute_time_intervals, now_ms)
                || (!route.active_time_intervals.is_empty()
                    && !self.config.is_within(&route.active_time_intervals, now_ms))
        });
        let mut standing = Standing::default();
        for labels in &group.members {
            let print = fingerprint(labels);
            match self.alerts.get(labels) {
                Some(alert) if alert.is_firing() => {
                    standing.firing.insert(print.clone());
                    if !is_quiet && self.muted(labels, now_ms).is_audible() {
                        standing.audible.insert(print);
                    }
                }
                _ => drop(standing.resolved.insert(print)),
            }
        }
        standing
    }

    fn act(
        &mut self,
        told: &mut Told,
        decision: Decision,
        standing: &Standing,
        (key, group): (&str, &Group),
        integration: Option<&Integration>,
        now_ms: i64,
    ) {
        let act = match decision {
            Decision::Nothing => return,
            Decision::Open => {
                *told = Told {
                    incident: incident(key, integration, now_ms, self.next_seq),
                    is_open: true,
                    ..Told::default()
                };
                Act::Trigger
            }
            Decision::Update => Act::Trigger,
            Decision::Resolve => Act::Resolve,
        };
        let is_wanted =
            act == Act::Trigger || integration.is_some_and(|integration| integration.send_resolved);
        if is_wanted {
            let mut notice = self.notice(told, act, standing, (key, group), integration, now_ms);
            notice.complete(integration, &self.bounds.external_url);
            self.dirty_notices.insert(notice.seq);
            self.notices.insert(notice.seq, notice);
            self.next_seq += 1;
        }
        told.number += 1;
        told.at_ms = now_ms;
        if act == Act::Resolve {
            told.is_open = false;
            told.acknowledgement = None;
        } else {
            // Told before and firing still: silenced now or not, its end is owed.
            let still: BTreeSet<String> = told.firing.intersection(&standing.firing).cloned().collect();
            told.firing = standing.audible.union(&still).cloned().collect();
            told.resolved.clone_from(&standing.resolved);
        }
    }

    fn notice(
        &self,
        told: &Told,
        act: Act,
        standing: &Standing,
        (key, group): (&str, &Group),
        integration: Option<&Integration>,
        now_ms: i64,
    ) -> Notice {
        let mut alerts: Vec<NoticeAlert> = Vec::new();
        for labels in &group.members {
            let print = fingerprint(labels);
            let Some(alert) = self.alerts.get(labels) else { continue };
            // An orphaned group ends although its alerts go on elsewhere.
            let is_firing = act == Act::Trigger && alert.is_firing();
            let is_said = if is_firing {
                standing.audible.contains(&print)
            } else {
                told.firing.contains(&print) || act == Act::Resolve
            };
            if is_said {
                alerts.push(NoticeAlert {
                    is_firing,
                    labels: alert.row.labels.clone(),
                    annotations: alert.row.annotations.clone(),
                    starts_at_ms: alert.row.starts_at_ms,
                    ends_at_ms: alert.row.ends_at_ms,
                    generator_url: alert.row.generator_url.clone(),
                    fingerprint: print,
                });
            }
        }
        alerts.sort_by_key(|alert| !alert.is_firing);
        let truncated = alerts.len().saturating_sub(ALERTS_MAX);
        alerts.truncate(ALERTS_MAX);
        Notice {
            seq: self.next_seq,
            receiver: group.receiver.clone(),
            target: integration.map_or_else(String::new, |integration| integration.target.clone()),
            group_key: key.to_owned(),
            incident: told.incident.clone(),
            number: told.number,
            act,
            group_labels: crate::alert::plain(&group.labels),
            common_labels: Vec::new(),
            common_annotations: Vec::new(),
            alerts,
            truncated,
            texts: Vec::new(),
            at_ms: now_ms,
        }
    }
}

/// A new incident: of this group, this way, at this time; the number keeps two of one millisecond apart.
fn incident(key: &str, integration: Option<&Integration>, now_ms: i64, seq: u64) -> String {
    let mut hash = Sha256::new();
    let target = integration.map_or("", |integration| integration.target.as_str());
    for part in [key, target] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(now_ms.to_be_bytes());
    hash.update(seq.to_be_bytes());
    hex::encode(&hash.finalize()[..16])
}
