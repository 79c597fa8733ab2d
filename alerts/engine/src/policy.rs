//! Budget policies: what is called for now, what is news, and whether changes may go out.

use std::collections::BTreeSet;

use belfry_signal::Region;
use serde::Serialize;

use crate::status::SloStatus;

/// A step by its objective, place and percent.
type Step = (String, Region, u32);

/// Remembers what was reached, so that it is said once.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    /// `None` until the first look: what was reached before a restart is no news.
    reached: Option<BTreeSet<Step>>,
}

/// Why changes wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Closed {
    pub(crate) slo: String,
    pub(crate) region: Region,
    pub(crate) spent_percent: u32,
}

impl Policies {
    /// The steps that are reached now and were not at the look before.
    pub(crate) fn news(&mut self, slos: &[SloStatus]) -> Vec<(SloStatus, u32, &'static str)> {
        let mut reached = BTreeSet::new();
        let mut news = Vec::new();
        for slo in slos {
            for step in slo.policy.iter().filter(|step| step.is_reached) {
                let key = (slo.name.clone(), slo.region.clone(), step.spent_percent);
                if self.reached.as_ref().is_some_and(|before| !before.contains(&key)) {
                    news.push((slo.clone(), step.spent_percent, step.action));
                }
                reached.insert(key);
            }
        }
        self.reached = Some(reached);
        news
    }
}

/// Which objectives hold changes back.
pub(crate) fn closed_by(slos: &[SloStatus]) -> Vec<Closed> {
    let holds = slos.iter().flat_map(|slo| {
        let steps = slo.policy.iter().filter(|step| step.is_reached && step.action == "change_gate");
        steps.map(|step| Closed {
            slo: slo.name.clone(),
            region: slo.region.clone(),
            spent_percent: step.spent_percent,
        })
    });
    holds.collect()
}
