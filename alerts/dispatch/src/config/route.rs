//! The tree of routes: which alerts go to whom, in which groups and how often.

use std::collections::{BTreeMap, BTreeSet};

use belfry_promql::Labels;
use belfry_ruler::yaml::{self, Collector};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::matchers;
use crate::matchers::Matchers;

/// What makes a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// Every alert is one of its own.
    All,
    /// Alerts with the same values of these labels.
    Labels(BTreeSet<String>),
}

/// One route. Times are milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// What identifies it: the matchers from the root down.
    pub key: String,
    /// Which alerts, of those that come to its parent.
    pub matchers: Matchers,
    /// To whom.
    pub receiver: String,
    /// In which groups.
    pub group_by: GroupBy,
    /// How long a new group waits for others.
    pub group_wait_ms: i64,
    /// How long after a notification the next change is told.
    pub group_interval_ms: i64,
    /// How long after a notification it is told again.
    pub repeat_interval_ms: i64,
    /// Intervals in which it says nothing.
    pub mute_time_intervals: Vec<String>,
    /// Intervals outside of which it says nothing.
    pub active_time_intervals: Vec<String>,
    /// Whether routes behind it are looked at too.
    pub continues: bool,
    /// Its children, by place.
    pub children: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteText {
    receiver: Option<Spanned<String>>,
    #[serde(default)]
    group_by: Option<Vec<Spanned<String>>>,
    #[serde(rename = "match", default)]
    match_: BTreeMap<String, String>,
    #[serde(default)]
    match_re: BTreeMap<String, String>,
    #[serde(default)]
    matchers: Vec<Spanned<String>>,
    #[serde(default, rename = "continue")]
    continue_: bool,
    group_wait: Option<Spanned<String>>,
    group_interval: Option<Spanned<String>>,
    repeat_interval: Option<Spanned<String>>,
    #[serde(default)]
    mute_time_intervals: Vec<Spanned<String>>,
    #[serde(default)]
    active_time_intervals: Vec<Spanned<String>>,
    #[serde(default)]
    routes: Option<Vec<Spanned<RouteText>>>,
}

/// Names that routes may use.
pub(super) struct Known {
    pub(super) receivers: BTreeSet<String>,
    pub(super) intervals: BTreeSet<String>,
}

/// How many routes there may be.
const ROUTES_MAX: usize = 10_000;

/// Reads the tree into a list; the root is the first.
pub(super) fn read_root(
    root: &Spanned<RouteText>,
    known: &Known,
    routes: &mut Vec<Route>,
    faults: &mut Collector,
) {
    let text = &root.value;
    if text.receiver.is_none() {
        faults.on(root, "the root route needs a receiver");
    }
    if !text.match_.is_empty() || !text.match_re.is_empty() || !text.matchers.is_empty() {
        faults.on(root, "the root route takes every alert: it has no matchers");
    }
    if text.continue_ {
        faults.on(root, "the root route cannot continue");
    }
    if !text.mute_time_intervals.is_empty() || !text.active_time_intervals.is_empty() {
        faults.on(root, "the root route has no time intervals");
    }
    let base = Route {
        key: "{}".to_owned(),
        matchers: Matchers::default(),
        receiver: String::new(),
        group_by: GroupBy::Labels(BTreeSet::new()),
        group_wait_ms: 30_000,
        group_interval_ms: 300_000,
        repeat_interval_ms: 4 * 3_600_000,
        mute_time_intervals: Vec::new(),
        active_time_intervals: Vec::new(),
        continues: false,
        children: Vec::new(),
    };
    read(text, base, known, routes, faults);
}

fn read(
    text: &RouteText,
    base: Route,
    known: &Known,
    routes: &mut Vec<Route>,
    faults: &mut Collector,
) -> usize {
    let mut route = base;
    if let Some(receiver) = &text.receiver {
        if !known.receivers.contains(&receiver.value) {
            faults.on(receiver, format!("undefined receiver {:?} used in route", receiver.value));
        }
        route.receiver.clone_from(&receiver.value);
    }
    if let Some(names) = &text.group_by {
        route.group_by = group_by(names, faults);
    }
    for (setting, value, may_be_zero) in [
        (&text.group_wait, &mut route.group_wait_ms, true),
        (&text.group_interval, &mut route.group_interval_ms, false),
        (&text.repeat_interval, &mut route.repeat_interval_ms, false),
    ] {
        if let Some(setting) = setting {
            *value = yaml::duration(setting, faults);
            if *value <= 0 && !may_be_zero {
                faults.on(setting, "must be longer than nothing");
            }
        }
    }
    let named = |names: &[Spanned<String>], faults: &mut Collector| -> Vec<String> {
        for name in names.iter().filter(|name| !known.intervals.contains(&name.value)) {
            faults.on(name, format!("undefined time interval {:?} used in route", name.value));
        }
        names.iter().map(|name| name.value.clone()).collect()
    };
    route.mute_time_intervals = named(&text.mute_time_intervals, faults);
    route.active_time_intervals = named(&text.active_time_intervals, faults);
    let place = routes.len();
    routes.push(route.clone());
    if place >= ROUTES_MAX {
        return place;
    }
    for (order, child) in text.routes.iter().flatten().enumerate() {
        let matchers = matchers(&child.value.match_, &child.value.match_re, &child.value.matchers, faults);
        let mut key = format!("{}/{matchers}", route.key);
        if routes.iter().any(|other| other.key == key) {
            key = format!("{key}/{order}");
        }
        let base = Route {
            key,
            matchers,
            continues: child.value.continue_,
            children: Vec::new(),
            mute_time_intervals: Vec::new(),
            active_time_intervals: Vec::new(),
            ..route.clone()
        };
        let child = read(&child.value, base, known, routes, faults);
        routes[place].children.push(child);
    }
    place
}

fn group_by(names: &[Spanned<String>], faults: &mut Collector) -> GroupBy {
    let mut labels = BTreeSet::new();
    for name in names {
        if name.value == "..." {
            if names.len() > 1 {
                faults.on(name, "... stands for all labels: there is nothing to be named beside it");
            }
            return GroupBy::All;
        }
        if !labels.insert(name.value.clone()) {
            faults.on(name, format!("duplicated label {:?} in group_by", name.value));
        }
    }
    GroupBy::Labels(labels)
}

impl GroupBy {
    /// The labels that name the group of an alert.
    #[must_use]
    pub fn labels(&self, labels: &Labels) -> Labels {
        match self {
            GroupBy::All => labels.clone(),
            GroupBy::Labels(names) => {
                Labels::from_pairs(labels.iter().filter(|(name, _)| names.contains(*name)))
            }
        }
    }
}

impl super::Config {
    /// The routes that an alert takes, by place, in order.
    #[must_use]
    pub fn routes_of(&self, labels: &Labels) -> Vec<usize> {
        if self.routes.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        self.collect(0, labels, &mut found);
        found
    }

    fn collect(&self, place: usize, labels: &Labels, found: &mut Vec<usize>) {
        let before = found.len();
        for child in &self.routes[place].children {
            let route = &self.routes[*child];
            if route.matchers.matches(labels) {
                self.collect(*child, labels, found);
                if !route.continues {
                    break;
                }
            }
        }
        if found.len() == before {
            found.push(place);
        }
    }
}
