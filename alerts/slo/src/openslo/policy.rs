//! Alert policies: conditions, windows, and whom they would tell.

use super::annotations::POLICY_KEYS;
use super::tree::{Fields, Node};
use super::{Object, Reader};
use crate::burn::{BurnPair, Severity};
use crate::source::Action;

/// One burn condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    severity: Severity,
    factor_milli: u32,
    lookback_seconds: u64,
    after_seconds: u64,
}

/// What a policy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// Windows with their own lengths, as conditions have them.
    pub(super) pairs: Vec<BurnPair>,
    /// Windows written for 30 days, as annotations have them.
    pub(super) scaled: Vec<BurnPair>,
    pub(super) is_paged_when_blind: bool,
}

impl Condition {
    /// A condition as a pair: `alertAfter` is the short window, over which it has to burn as well; without one a
    /// twelfth of the long one is, as everywhere in the house.
    fn pair(self) -> BurnPair {
        let short = if self.after_seconds > 0 { self.after_seconds } else { self.lookback_seconds / 12 };
        BurnPair {
            severity: self.severity,
            long_seconds: self.lookback_seconds,
            short_seconds: short.max(1),
            factor_milli: self.factor_milli,
        }
    }
}

impl Reader<'_> {
    pub(super) fn condition(&mut self, object: Object) -> Option<Condition> {
        let mut spec = object.spec;
        let severity = spec.need(&mut self.notes, "severity");
        let condition = spec.need(&mut self.notes, "condition");
        spec.done(&mut self.notes);
        let severity = severity.and_then(|node| self.severity(&node));
        let mut fields = self.notes.fields("condition", condition?)?;
        if let Some(node) = fields.take("kind")
            && self.notes.text("kind", &node).is_some_and(|kind| kind != "burnrate")
        {
            self.notes.fault(node.at, "a condition's kind is burnrate");
        }
        if let Some(node) = fields.take("op") {
            self.notes.remark(node.at, "a burn rate alerts above its threshold; op is not looked at");
        }
        let threshold = fields.need(&mut self.notes, "threshold");
        let lookback = fields.need(&mut self.notes, "lookbackWindow");
        let after = fields.take("alertAfter");
        fields.done(&mut self.notes);
        let factor_milli = threshold.and_then(|node| self.factor(&node));
        let lookback = lookback?;
        let lookback_seconds = self.shorthand("lookbackWindow", &lookback)?;
        let after_seconds = match after {
            Some(node) => self.shorthand("alertAfter", &node)?,
            None => 0,
        };
        if after_seconds >= lookback_seconds {
            self.notes.fault(lookback.at, "lookbackWindow is longer than alertAfter");
            return None;
        }
        Some(Condition { severity: severity?, factor_milli: factor_milli?, lookback_seconds, after_seconds })
    }

    fn severity(&mut self, node: &Node) -> Option<Severity> {
        match self.notes.text("severity", node)?.as_str() {
            "page" | "critical" => Some(Severity::Page),
            "ticket" | "warning" => Some(Severity::Ticket),
            other => {
                self.notes.fault(
                    node.at,
                    format!(
                        "severity is page or critical (wakes somebody), ticket or warning, not {other:?}"
                    ),
                );
                None
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    fn factor(&mut self, node: &Node) -> Option<u32> {
        let number = self.notes.number("threshold", node)?;
        let milli = (number * 1_000.0).round();
        if (1.0..=10_000_000.0).contains(&milli) && (milli / 1_000.0 - number).abs() < 1e-9 {
            return Some(milli as u32);
        }
        self.notes.fault(node.at, "a burn is 0.001 to 10000 with at most three decimals, as 14.4");
        None
    }

    pub(super) fn target(&mut self, object: Object) {
        let mut spec = object.spec;
        let target = spec.need(&mut self.notes, "target");
        spec.done(&mut self.notes);
        if let Some(node) = target {
            self.notes.text("target", &node);
            self.notes.remark(
                node.at,
                "who is told is said by [alerts.notify] and by routes, not by AlertNotificationTarget",
            );
        }
    }

    pub(super) fn policy(&mut self, object: Object) -> Option<Policy> {
        let mut annotations = object.annotations;
        let scaled = annotations.windows(&mut self.notes).unwrap_or_default();
        annotations.done(&mut self.notes, &POLICY_KEYS);
        let mut spec = object.spec;
        let at = spec.at;
        let breaching = self.flag_of(&mut spec, "alertWhenBreaching").unwrap_or(true);
        let is_paged_when_blind = self.flag_of(&mut spec, "alertWhenNoData").unwrap_or(false);
        if let Some(node) = spec.take("alertWhenResolved")
            && self.notes.flag("alertWhenResolved", &node) == Some(false)
        {
            self.notes.remark(node.at, "who was told that something began is always told that it ended");
        }
        let conditions = spec.need(&mut self.notes, "conditions");
        let targets = spec.take("notificationTargets");
        spec.done(&mut self.notes);
        if let Some(targets) = targets {
            self.targets(targets);
        }
        let conditions = self.notes.list("conditions", conditions?)?;
        if conditions.len() != 1 {
            self.notes.fault(
                at,
                format!(
                    "{} conditions: v1 has exactly one; write more windows as belfry/windows",
                    conditions.len()
                ),
            );
            return None;
        }
        let mut pairs = Vec::new();
        for node in conditions {
            let mut fields = self.notes.fields("a condition", node)?;
            let condition = match fields.take("conditionRef") {
                Some(reference) => {
                    fields.done(&mut self.notes);
                    Self::refer(&mut self.notes, "AlertCondition", &reference, &self.library.conditions)?
                }
                None => {
                    let object = self.inline("AlertCondition", fields)?;
                    self.condition(object)?
                }
            };
            // With windows of the house's kind the one condition is what other tools see of them.
            if breaching && scaled.is_empty() {
                pairs.push(condition.pair());
            }
        }
        let scaled = if breaching { scaled } else { Vec::new() };
        Some(Policy { pairs, scaled, is_paged_when_blind })
    }

    fn flag_of(&mut self, spec: &mut Fields, key: &'static str) -> Option<bool> {
        let node = spec.take(key)?;
        self.notes.flag(key, &node)
    }

    fn targets(&mut self, node: Node) {
        let known = self.library.targets.iter().map(|name| (name.clone(), ())).collect();
        for node in self.notes.list("notificationTargets", node).unwrap_or_default() {
            let Some(mut fields) = self.notes.fields("a notification target", node) else { continue };
            match fields.take("targetRef") {
                Some(reference) => {
                    fields.done(&mut self.notes);
                    let _known = Self::refer(&mut self.notes, "AlertNotificationTarget", &reference, &known);
                }
                None => {
                    if let Some(object) = self.inline("AlertNotificationTarget", fields) {
                        self.target(object);
                    }
                }
            }
        }
    }
}

impl Action {
    /// The action of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}
