//! Annotations of ours: what OpenSLO v1 has no words for.

use std::collections::BTreeMap;

use serde_saphyr::Location;

use super::tree::{Node, Notes};
use crate::burn::{BurnPair, Severity};
use crate::duration::parse_seconds;
use crate::rules::{PAIRS_MAX, is_plain_name};
use crate::source::{Action, Commitment, GROUPS_DEFAULT, GROUPS_MAX, Grouping, PolicyStep};

/// What annotations of ours begin with.
const PREFIX: &str = "belfry/";
/// What an SLO may be annotated with.
pub(super) const SLO_KEYS: [&str; 11] = [
    "journey",
    "alert",
    "windows",
    "commitment",
    "interval",
    "resolve-after",
    "bad-events-min",
    "budget-policy",
    "group-by",
    "groups",
    "groups-max",
];
/// What an alert policy may be annotated with.
pub(super) const POLICY_KEYS: [&str; 1] = ["windows"];

/// Annotations that begin with `belfry/`, by the rest of their names, and the description.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    texts: BTreeMap<String, (Location, String)>,
    pub(super) description: String,
}

impl Annotations {
    pub(super) fn read(node: Option<Node>, notes: &mut Notes) -> Self {
        let mut texts = BTreeMap::new();
        let fields = node.and_then(|node| notes.fields("annotations", node));
        for (key, node) in fields.map(|mut fields| fields.rest()).unwrap_or_default() {
            // What others annotate is theirs.
            if let Some(name) = key.value.strip_prefix(PREFIX)
                && let Some(text) = notes.text("an annotation", &node)
            {
                texts.insert(name.to_owned(), (node.at, text));
            }
        }
        Self { texts, description: String::new() }
    }

    pub(super) fn described(mut self, description: Option<String>) -> Self {
        self.description = description.unwrap_or_default();
        self
    }

    /// Takes an annotation.
    pub(super) fn take(&mut self, name: &str) -> Option<(Location, String)> {
        self.texts.remove(name)
    }

    /// What nobody took is a mistake.
    pub(super) fn done(&self, notes: &mut Notes, known: &[&str]) {
        for (name, (at, _)) in &self.texts {
            let known = known.iter().map(|name| format!("{PREFIX}{name}")).collect::<Vec<_>>().join(", ");
            notes.fault(*at, format!("{PREFIX}{name} is not known here: there are {known}"));
        }
    }

    /// No annotation of ours belongs here.
    pub(super) fn none(&self, notes: &mut Notes) {
        for (name, (at, _)) in &self.texts {
            notes.fault(*at, format!("{PREFIX}{name} belongs to an SLO or an AlertPolicy"));
        }
    }

    pub(super) fn commitment(&mut self, notes: &mut Notes) -> Commitment {
        match self.take("commitment") {
            Some((_, text)) if text == "sla" => Commitment::Agreement,
            Some((at, text)) if text != "slo" => {
                notes.fault(at, "a commitment is slo or sla");
                Commitment::Objective
            }
            _ => Commitment::Objective,
        }
    }

    /// A length of time in seconds.
    pub(super) fn seconds(&mut self, notes: &mut Notes, name: &str) -> Option<(Location, u64)> {
        let (at, text) = self.take(name)?;
        match parse_seconds(&text) {
            Ok(seconds) if seconds > 0 => Some((at, seconds)),
            Ok(_) => {
                notes.fault(at, "1s at least");
                None
            }
            Err(error) => {
                notes.fault(at, error.to_string());
                None
            }
        }
    }

    /// A whole number between 1 and `most`.
    pub(super) fn count(&mut self, notes: &mut Notes, name: &str, most: u64) -> Option<u64> {
        let (at, text) = self.take(name)?;
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        if number.is_none() {
            notes.fault(at, format!("{text:?} is not a whole number between 1 and {most}"));
        }
        number
    }

    /// `page 1h/5m x14.4, ticket 3d/6h x1`, written for 30 days.
    pub(super) fn windows(&mut self, notes: &mut Notes) -> Option<Vec<BurnPair>> {
        let (at, text) = self.take("windows")?;
        let pairs: Option<Vec<BurnPair>> = text.split(',').map(|part| window(part.trim())).collect();
        match pairs {
            Some(pairs) if pairs.len() <= PAIRS_MAX => return Some(pairs),
            Some(pairs) => notes.fault(at, format!("{} pairs of windows: 1 to {PAIRS_MAX}", pairs.len())),
            None => notes.fault(
                at,
                "windows are written as \"page 1h/5m x14.4, ticket 3d/6h x1\": severity, long and short window for a \
                 period of 30 days, burn",
            ),
        }
        None
    }

    /// `50=notice, 75=change_gate, 100=report`.
    pub(super) fn policy(&mut self, notes: &mut Notes) -> Option<Vec<PolicyStep>> {
        let (at, text) = self.take("budget-policy")?;
        if text.trim() == "none" {
            return Some(Vec::new());
        }
        let step = |part: &str| {
            let (percent, action) = part.trim().split_once('=')?;
            let spent_percent =
                percent.trim().parse().ok().filter(|percent| (1..=1_000).contains(percent))?;
            Some(PolicyStep { spent_percent, action: Action::named(action.trim())? })
        };
        let steps: Option<Vec<PolicyStep>> = text.split(',').map(step).collect();
        if steps.is_none() {
            let actions = Action::ALL.map(Action::as_str).join(", ");
            notes.fault(
                at,
                format!("a budget policy is none, or as \"50=notice, 75=change_gate\": percent spent, and one of {actions}"),
            );
        }
        steps
    }

    pub(super) fn grouping(&mut self, notes: &mut Notes) -> Grouping {
        let label = self.take("group-by");
        let groups = self.take("groups");
        let most = self.count(notes, "groups-max", GROUPS_MAX as u64);
        let Some((at, label)) = label else {
            if let Some((at, _)) = groups {
                notes.fault(at, "belfry/groups needs belfry/group-by");
            }
            return Grouping::default();
        };
        let is_label = label.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_label {
            notes.fault(at, format!("{label:?} is not the name of a label"));
        }
        let Some((at, text)) = groups else {
            notes.fault(
                at,
                "belfry/groups is missing: the values that are judged apart, or * when all values of the label are \
                 configured names that may stand in pages",
            );
            return Grouping::default();
        };
        let is_open = text.trim() == "*";
        let listed: Vec<String> =
            if is_open { Vec::new() } else { text.split(',').map(|name| name.trim().to_owned()).collect() };
        let groups_max = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(if is_open {
            GROUPS_DEFAULT
        } else {
            listed.len()
        });
        for name in listed.iter().filter(|name| !is_plain_name(name)) {
            notes.fault(at, format!("{name:?} is not a name: a-z, 0-9, '-' and '_', starting with a letter"));
        }
        if listed.len() > groups_max.min(GROUPS_MAX) {
            notes.fault(at, format!("{} groups: {} at most", listed.len(), groups_max.min(GROUPS_MAX)));
        }
        Grouping { label: Some(label), listed, is_open, groups_max }
    }
}

/// `page 1h/5m x14.4`
fn window(text: &str) -> Option<BurnPair> {
    let mut words = text.split_whitespace();
    let (severity, windows, burn) = (words.next()?, words.next()?, words.next()?);
    let severity = match severity {
        "page" => Severity::Page,
        "ticket" => Severity::Ticket,
        _ => return None,
    };
    let (long, short) = windows.split_once('/')?;
    let (long_seconds, short_seconds) = (parse_seconds(long).ok()?, parse_seconds(short).ok()?);
    let factor_milli = milli(burn.strip_prefix('x')?)?;
    let is_right = words.next().is_none() && short_seconds > 0 && short_seconds < long_seconds;
    is_right.then_some(BurnPair { severity, long_seconds, short_seconds, factor_milli })
}

/// A number with at most three decimals, in thousandths.
fn milli(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u32 = format!("{decimals:0<3}").parse().ok()?;
    let milli = whole.parse::<u32>().ok()?.checked_mul(1_000)?.checked_add(thousandths)?;
    (1..=10_000_000).contains(&milli).then_some(milli)
}
