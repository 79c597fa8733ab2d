//! Relabelling as Prometheus has it: rules that rewrite, keep or drop a set of labels.
//!
//! Source: <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config>. Expressions are
//! anchored at both ends, and `$1` and `${name}` in replacements mean what they mean in Go.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use regex::Regex;
use serde::Deserialize;

/// Names and values while rules are at work.
pub type LabelMap = BTreeMap<String, String>;

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Sets the target label to the replacement, when the expression matches.
    #[default]
    Replace,
    /// Drops the set unless the expression matches.
    Keep,
    /// Drops the set when it does.
    Drop,
    /// Drops the set unless the sources are what the target label is.
    KeepEqual,
    /// Drops the set when they are.
    DropEqual,
    /// Sets the target label to a hash of the sources, modulo a number.
    HashMod,
    /// Copies labels whose names match to names made by the replacement.
    LabelMap,
    /// Removes labels whose names match.
    LabelDrop,
    /// Removes labels whose names do not match.
    LabelKeep,
    /// Sets the target label to the sources in lower case.
    Lowercase,
    /// Sets the target label to the sources in upper case.
    Uppercase,
}

/// A rule as a file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Labels whose values are put together.
    #[serde(default)]
    pub source_labels: Vec<String>,
    /// What stands between them.
    #[serde(default = "semicolon")]
    pub separator: String,
    /// The label that is set.
    #[serde(default)]
    pub target_label: Option<String>,
    /// What must match.
    #[serde(default)]
    pub regex: Option<String>,
    /// For [`Action::HashMod`].
    #[serde(default)]
    pub modulus: u64,
    /// What is set.
    #[serde(default)]
    pub replacement: Option<String>,
    /// What is done.
    #[serde(default)]
    pub action: Action,
}

fn semicolon() -> String {
    ";".to_owned()
}

/// A rule, ready.
#[derive(Clone, Debug)]
pub struct Rule {
    sources: Vec<String>,
    separator: String,
    target: String,
    regex: Regex,
    modulus: u64,
    replacement: String,
    action: Action,
}

impl RuleConfig {
    /// Checks the rule and makes its expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(&self) -> Result<Rule, String> {
        use Action::{
            DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace, Uppercase,
        };
        let action = self.action;
        let name = format!("{action:?}").to_lowercase();
        let target = self.target_label.clone().unwrap_or_default();
        let needs_target =
            matches!(action, Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual);
        if needs_target && target.is_empty() {
            return Err(format!("{name} needs a target_label"));
        }
        if action == HashMod && self.modulus == 0 {
            return Err("hashmod needs a modulus above 0".to_owned());
        }
        let takes_only_regex = matches!(action, LabelDrop | LabelKeep);
        if takes_only_regex
            && (!self.source_labels.is_empty() || !target.is_empty() || self.replacement.is_some())
        {
            return Err(format!("{name} takes only a regex: it looks at the names of labels"));
        }
        if matches!(action, KeepEqual | DropEqual) && (self.regex.is_some() || self.replacement.is_some()) {
            return Err(format!("{name} takes only source_labels and target_label"));
        }
        if action == LabelMap && self.replacement.as_deref() == Some("") {
            return Err("labelmap needs a replacement that names a label".to_owned());
        }
        let pattern = self.regex.as_deref().unwrap_or("(.*)");
        let regex = Regex::new(&format!("^(?s:{pattern})$"))
            .map_err(|error| format!("the regex {pattern:?} cannot be understood: {error}"))?;
        Ok(Rule {
            sources: self.source_labels.clone(),
            separator: self.separator.clone(),
            target,
            regex,
            modulus: self.modulus,
            replacement: self.replacement.clone().unwrap_or_else(|| "$1".to_owned()),
            action,
        })
    }
}

/// Applies rules in order; false when the set is to be dropped.
#[must_use]
pub fn apply(rules: &[Rule], labels: &mut LabelMap) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

impl Rule {
    fn apply(&self, labels: &mut LabelMap) -> bool {
        let value = self.value(labels);
        let target = || labels.get(&self.target).map(String::as_str).unwrap_or_default();
        match self.action {
            Action::Keep => return self.regex.is_match(&value),
            Action::Drop => return !self.regex.is_match(&value),
            Action::KeepEqual => return target() == value,
            Action::DropEqual => return target() != value,
            Action::Replace => self.replace(&value, labels),
            Action::Lowercase => set(labels, &self.target, value.to_lowercase()),
            Action::Uppercase => set(labels, &self.target, value.to_uppercase()),
            Action::HashMod => {
                let digest = Md5::digest(value.as_bytes());
                let low = digest.iter().skip(8).fold(0_u64, |held, byte| (held << 8) | u64::from(*byte));
                set(labels, &self.target, (low % self.modulus.max(1)).to_string());
            }
            Action::LabelMap => {
                let mapped: Vec<(String, String)> = labels
                    .iter()
                    .filter(|(name, _)| self.regex.is_match(name))
                    .map(|(name, value)| {
                        (self.regex.replace(name, self.replacement.as_str()).into_owned(), value.clone())
                    })
                    .collect();
                for (name, value) in mapped {
                    set(labels, &name, value);
                }
            }
            Action::LabelDrop => labels.retain(|name, _| !self.regex.is_match(name)),
            Action::LabelKeep => labels.retain(|name, _| self.regex.is_match(name)),
        }
        true
    }

    fn value(&self, labels: &LabelMap) -> String {
        let values: Vec<&str> = self
            .sources
            .iter()
            .map(|name| labels.get(name).map(String::as_str).unwrap_or_default())
            .collect();
        values.join(&self.separator)
    }

    fn replace(&self, value: &str, labels: &mut LabelMap) {
        let Some(found) = self.regex.captures(value) else { return };
        let (mut target, mut replacement) = (String::new(), String::new());
        found.expand(&self.target, &mut target);
        found.expand(&self.replacement, &mut replacement);
        if !target.is_empty() {
            set(labels, &target, replacement);
        }
    }
}

/// Sets a label; an empty value removes it.
pub fn set(labels: &mut LabelMap, name: &str, value: String) {
    if value.is_empty() {
        labels.remove(name);
    } else {
        labels.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcomes are those of upstream's own tests for the same rules.
    fn check(rules: &str, labels: &[(&str, &str)], expected: Option<&[(&str, &str)]>) {
        let configs: Vec<RuleConfig> = serde_saphyr::from_str(rules).expect("rules");
        let rules: Vec<Rule> = configs.iter().map(|rule| rule.compile().expect("a good rule")).collect();
        let owned = |pairs: &[(&str, &str)]| -> LabelMap {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let mut labels = owned(labels);
        let is_kept = apply(&rules, &mut labels);
        assert_eq!(is_kept.then_some(labels), expected.map(owned), "{configs:?}");
    }

    #[test]
    fn every_action_does_what_it_does_upstream() {
        let abc = [("a", "foo"), ("b", "bar"), ("c", "baz")];
        check(
            "[{source_labels: [a], regex: 'f(.*)', target_label: d, replacement: 'ch${1}-ch${1}', separator: ';'}]",
            &abc,
            Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "choo-choo")]),
        );
        check(
            "[{source_labels: [a, b], regex: 'f(.*);(.*)r', target_label: a, replacement: 'b${1}${2}m'},
              {source_labels: [c, a], regex: '(b).*b(.*)ba(.*)', target_label: d, replacement: '$1$2$2$3'}]",
            &abc,
            Some(&[("a", "boobam"), ("b", "bar"), ("c", "baz"), ("d", "boooom")]),
        );
        check("[{source_labels: [a], regex: '.*o.*', action: drop}]", &abc, None);
        check("[{source_labels: [a], regex: 'f|o', action: drop}]", &abc, Some(&abc));
        check("[{source_labels: [a], regex: no-match, action: keep}]", &abc, None);
        check("[{source_labels: [a], regex: 'f.*', action: keep}]", &abc, Some(&abc));
        check("[{source_labels: [x], regex: 'x', target_label: b, replacement: y}]", &abc, Some(&abc));
        check(
            "[{regex: '', source_labels: [x], target_label: b, replacement: ''}]",
            &abc,
            Some(&[abc[0], abc[2]]),
        );
        check(
            "[{source_labels: [c], target_label: d, action: hashmod, modulus: 1000}]",
            &abc,
            Some(&[abc[0], abc[1], abc[2], ("d", "976")]),
        );
        check(
            "[{regex: '(b.*)', replacement: 'bar_${1}', action: labelmap}]",
            &[("a", "foo"), ("b1", "bar"), ("b2", "baz")],
            Some(&[("a", "foo"), ("b1", "bar"), ("b2", "baz"), ("bar_b1", "bar"), ("bar_b2", "baz")]),
        );
        check("[{regex: 'a|c', action: labeldrop}]", &abc, Some(&[abc[1]]));
        check("[{regex: 'a|c', action: labelkeep}]", &abc, Some(&[abc[0], abc[2]]));
        check(
            "[{source_labels: [a], target_label: u, action: uppercase}, {source_labels: [u], target_label: l, action: lowercase}]",
            &[("a", "Foo")],
            Some(&[("a", "Foo"), ("l", "foo"), ("u", "FOO")]),
        );
        let port = [("port", "80"), ("want", "80")];
        check("[{source_labels: [port], target_label: want, action: keepequal}]", &port, Some(&port));
        check("[{source_labels: [port], target_label: want, action: dropequal}]", &port, None);
        check("[{source_labels: [port], target_label: other, action: keepequal}]", &port, None);
        check(
            "[{source_labels: [a], regex: '(.+)-(.+)', target_label: '${1}', replacement: '${2}'}]",
            &[("a", "name-value")],
            Some(&[("a", "name-value"), ("name", "value")]),
        );
        check("[{target_label: fixed, replacement: x}]", &[], Some(&[("fixed", "x")]));
    }

    #[test]
    fn a_rule_that_cannot_work_says_why() {
        let cases = [
            ("{action: replace}", "replace needs a target_label"),
            ("{action: hashmod, target_label: a}", "hashmod needs a modulus above 0"),
            ("{action: labeldrop, source_labels: [a]}", "labeldrop takes only a regex"),
            ("{action: keepequal, target_label: a, regex: x}", "keepequal takes only source_labels"),
            ("{target_label: a, regex: '('}", "the regex \"(\" cannot be understood"),
        ];
        for (rule, expected) in cases {
            let rule: RuleConfig = serde_saphyr::from_str(rule).expect("a rule");
            let fault = rule.compile().map(drop);
            assert!(fault.as_ref().is_err_and(|fault| fault.starts_with(expected)), "{fault:?}");
        }
        assert!(serde_saphyr::from_str::<RuleConfig>("{acton: keep}").is_err());
    }
}
