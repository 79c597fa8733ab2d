//! Inhibition: what need not be said while something worse is known.
//!
//! Sources are indexed by the values of the labels that must be equal, so that asking costs one look-up per rule however
//! many alerts there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use belfry_promql::Labels;

use crate::matchers::Matchers;

/// An inhibition rule.
#[derive(Clone, Debug, PartialEq)]
pub struct InhibitRule {
    /// What inhibits.
    pub source: Matchers,
    /// What is inhibited.
    pub target: Matchers,
    /// Labels that must be the same on both.
    pub equal: Vec<String>,
}

/// Firing alerts by the values of the labels that must be equal.
type Sources = HashMap<Vec<String>, BTreeSet<Labels>>;

/// Rules with the alerts that inhibit now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inhibitor {
    rules: Vec<(InhibitRule, Sources)>,
}

impl Inhibitor {
    pub(crate) fn new(rules: &[InhibitRule]) -> Inhibitor {
        Inhibitor { rules: rules.iter().map(|rule| (rule.clone(), HashMap::new())).collect() }
    }

    /// An alert fires.
    pub(crate) fn add(&mut self, labels: &Labels) {
        for (rule, sources) in &mut self.rules {
            if rule.source.matches(labels) {
                sources.entry(values(&rule.equal, labels)).or_default().insert(labels.clone());
            }
        }
    }

    /// An alert fires no longer.
    pub(crate) fn remove(&mut self, labels: &Labels) {
        for (rule, sources) in &mut self.rules {
            let key = values(&rule.equal, labels);
            if let Some(held) = sources.get_mut(&key) {
                held.remove(labels);
                if held.is_empty() {
                    sources.remove(&key);
                }
            }
        }
    }

    /// What inhibits an alert: one source of each rule. An alert that is itself a source of a rule is not inhibited by
    /// others that are source and target at once, else two could silence one another.
    pub(crate) fn inhibitors(&self, labels: &Labels) -> Vec<&Labels> {
        let mut found: BTreeMap<&Labels, ()> = BTreeMap::new();
        for (rule, sources) in &self.rules {
            if !rule.target.matches(labels) {
                continue;
            }
            let Some(sources) = sources.get(&values(&rule.equal, labels)) else { continue };
            let is_two_sided = rule.source.matches(labels);
            let source = sources.iter().find(|source| !is_two_sided || !rule.target.matches(source));
            found.extend(source.map(|source| (source, ())));
        }
        found.into_keys().collect()
    }
}

fn values(names: &[String], labels: &Labels) -> Vec<String> {
    names.iter().map(|name| labels.get(name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matchers::parse_matchers;

    #[test]
    fn a_source_inhibits_targets_with_equal_labels_while_it_fires() {
        let of = |text: &str| Matchers::of(&parse_matchers(text).expect("right")).expect("compiles");
        let rule = InhibitRule {
            source: of("severity=\"page\""),
            target: of("severity=~\"page|ticket\""),
            equal: vec!["site".into()],
        };
        let mut inhibitor = Inhibitor::new(&[rule]);
        let alert = |name: &str, severity: &str, site: &str| {
            Labels::from_pairs([("alertname", name), ("severity", severity), ("site", site)])
        };
        let (page, other_page) = (alert("a", "page", "x"), alert("b", "page", "x"));
        let (ticket, far) = (alert("c", "ticket", "x"), alert("c", "ticket", "y"));
        inhibitor.add(&page);
        inhibitor.add(&other_page);
        assert_eq!(inhibitor.inhibitors(&ticket).len(), 1);
        assert!(inhibitor.inhibitors(&far).is_empty());
        assert!(inhibitor.inhibitors(&page).is_empty(), "both sides do not silence one another");
        inhibitor.remove(&page);
        assert_eq!(inhibitor.inhibitors(&ticket), [&other_page]);
        inhibitor.remove(&other_page);
        assert!(inhibitor.inhibitors(&ticket).is_empty());
    }
}
