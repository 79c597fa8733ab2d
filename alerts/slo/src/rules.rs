//! Rule files: SLOs as data, in TOML, read with the place of every mistake.
//!
//! Every length in `windows` and `resolve_after` is written for a period of 30 days and scales with the
//! period of the SLO. See `alerts/rules/`.

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::budget::Objective;
use crate::burn::{BurnPair, Guard, Severity, scaled, workbook_pairs};
use crate::calendar::Calendar;
use crate::duration::parse_seconds;
use crate::history::HOURS_MAX;
use crate::source::{Commitment, Method, PolicyStep, Source, house_policy};

/// Bad events that a long window must hold before it pages, where a rule file does not say.
pub const BAD_EVENTS_MIN: u64 = 3;
/// How many SLOs a file may hold.
pub const SLOS_MAX: usize = 64;
/// How many pairs of windows an SLO may have.
pub const PAIRS_MAX: usize = 8;

/// The shortest period: at ten minutes the shortest window of the Workbook is one second long.
pub(crate) const PERIOD_SECONDS_MIN: u64 = 600;
/// The longest period, which the ring of hours must hold with one hour to spare at either end.
pub(crate) const PERIOD_SECONDS_MAX: u64 = (HOURS_MAX as u64 - 2) * 3_600;
/// The fastest burn that makes sense: all of a budget of one in ten thousand.
const FACTOR_MAX: f64 = 10_000.0;

/// One objective, ready to be judged: windows and times are already scaled to its period.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    /// Its name, unique in the file.
    pub name: String,
    /// The journey whose events it counts.
    pub journey: String,
    /// The alert that its page pairs raise.
    pub alert: String,
    /// One sentence for people.
    pub description: String,
    /// What is promised.
    pub objective: Objective,
    /// Over which time; of a calendar its longest period.
    pub period_seconds: u64,
    /// The calendar that the period follows; without one it rolls.
    pub calendar: Option<Calendar>,
    /// How good time is told from bad.
    pub method: Method,
    /// To whom it is promised.
    pub commitment: Commitment,
    /// Where its events come from.
    pub source: Source,
    /// The burn windows, fastest first as written.
    pub pairs: Vec<BurnPair>,
    /// What low traffic must show.
    pub guard: Guard,
    /// How long nothing may burn before the alert ends.
    pub resolve_after_seconds: u64,
    /// What is called for when so much of the budget is gone.
    pub policy: Vec<PolicyStep>,
    /// Somebody is woken when nothing is measured any more.
    pub is_paged_when_blind: bool,
}

/// One mistake in a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Every mistake in a rule file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct RulesError {
    /// The mistakes, in the order in which they were found.
    pub faults: Vec<Fault>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    windows: Option<Vec<WindowsEntry>>,
    slo: Spanned<Vec<SloEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowsEntry {
    severity: Spanned<String>,
    long: Spanned<String>,
    short: Spanned<String>,
    burn: Spanned<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SloEntry {
    name: Spanned<String>,
    journey: Spanned<String>,
    alert: Spanned<String>,
    description: String,
    objective_ppm: Spanned<i64>,
    period: Spanned<String>,
    resolve_after: Spanned<String>,
    bad_events_min: Option<Spanned<i64>>,
    windows: Option<Vec<WindowsEntry>>,
}

/// Collects mistakes with their places.
struct Reader<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

/// Reads a rule file.
///
/// # Errors
/// With every mistake that can be told apart, each with its line and column.
pub fn parse_rules(text: &str) -> Result<Vec<Slo>, RulesError> {
    let mut reader = Reader { text, faults: Vec::new() };
    let file: RulesFile = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            reader.fault(error.span().unwrap_or(0..0), error.message().to_owned());
            return Err(RulesError { faults: reader.faults });
        }
    };
    let slos = reader.read_file(&file);
    if reader.faults.is_empty() { Ok(slos) } else { Err(RulesError { faults: reader.faults }) }
}

impl Reader<'_> {
    fn read_file(&mut self, file: &RulesFile) -> Vec<Slo> {
        let entries = file.slo.get_ref();
        if entries.is_empty() || entries.len() > SLOS_MAX {
            self.fault(file.slo.span(), format!("{} SLOs: a file holds 1 to {SLOS_MAX}", entries.len()));
        }
        let mut slos: Vec<Slo> = Vec::new();
        for entry in entries.iter().take(SLOS_MAX) {
            if slos.iter().any(|slo| slo.name == *entry.name.get_ref()) {
                self.fault(entry.name.span(), format!("a second SLO is named {:?}", entry.name.get_ref()));
            }
            let windows = entry.windows.as_ref().or(file.windows.as_ref());
            if let Some(slo) = self.read_slo(entry, windows) {
                slos.push(slo);
            }
        }
        slos
    }

    fn read_slo(&mut self, entry: &SloEntry, windows: Option<&Vec<WindowsEntry>>) -> Option<Slo> {
        self.check_name(&entry.name);
        self.check_name(&entry.journey);
        self.check_alert(&entry.alert);
        let objective = u32::try_from(*entry.objective_ppm.get_ref()).ok().and_then(Objective::from_ppm);
        if objective.is_none() {
            self.fault(
                entry.objective_ppm.span(),
                "an objective is between 1 and 999999 parts per million (999000 is 99.9 %)".to_owned(),
            );
        }
        let period_seconds = self.read_period(&entry.period);
        let resolve_after = self.read_seconds(&entry.resolve_after);
        let bad_events_min = self.read_bad_events_min(entry.bad_events_min.as_ref());
        let (objective, period_seconds) = (objective?, period_seconds?);
        let pairs = self.read_pairs(entry, windows, objective, period_seconds)?;
        Some(Slo {
            name: entry.name.get_ref().clone(),
            journey: entry.journey.get_ref().clone(),
            alert: entry.alert.get_ref().clone(),
            description: entry.description.clone(),
            objective,
            period_seconds,
            calendar: None,
            method: Method::Occurrences,
            commitment: Commitment::Objective,
            source: Source::Journey,
            pairs,
            guard: Guard { bad_events_min: bad_events_min?, is_sample: true },
            resolve_after_seconds: scaled(resolve_after?, period_seconds),
            policy: house_policy(),
            is_paged_when_blind: false,
        })
    }

    fn read_period(&mut self, period: &Spanned<String>) -> Option<u64> {
        let seconds = self.read_seconds(period)?;
        if (PERIOD_SECONDS_MIN..=PERIOD_SECONDS_MAX).contains(&seconds) {
            return Some(seconds);
        }
        self.fault(period.span(), "a period lasts from 10m to 93d".to_owned());
        None
    }

    fn read_bad_events_min(&mut self, entry: Option<&Spanned<i64>>) -> Option<u64> {
        let Some(entry) = entry else { return Some(BAD_EVENTS_MIN) };
        let number = u64::try_from(*entry.get_ref()).ok().filter(|number| *number > 0);
        if number.is_none() {
            self.fault(entry.span(), "at least one bad event must be asked for".to_owned());
        }
        number
    }

    fn read_pairs(
        &mut self,
        slo: &SloEntry,
        windows: Option<&Vec<WindowsEntry>>,
        objective: Objective,
        period_seconds: u64,
    ) -> Option<Vec<BurnPair>> {
        let Some(windows) = windows else {
            let pairs = workbook_pairs().into_iter().map(|pair| pair.scaled_to(period_seconds));
            // The Workbook's own pairs: one that no error ratio reaches at a low objective is left out.
            return Some(pairs.filter(|pair| pair.threshold(objective).is_reachable()).collect());
        };
        if windows.is_empty() || windows.len() > PAIRS_MAX {
            self.fault(slo.name.span(), format!("{} pairs of windows: 1 to {PAIRS_MAX}", windows.len()));
            return None;
        }
        let mut pairs = Vec::new();
        for entry in windows {
            let pair = self.read_pair(entry)?.scaled_to(period_seconds);
            if !pair.threshold(objective).is_reachable() {
                self.fault(
                    entry.burn.span(),
                    format!("no error ratio can burn this fast at the objective of {:?}", slo.name.get_ref()),
                );
            }
            pairs.push(pair);
        }
        Some(pairs)
    }

    fn read_pair(&mut self, entry: &WindowsEntry) -> Option<BurnPair> {
        let severity = match entry.severity.get_ref().as_str() {
            "page" => Some(Severity::Page),
            "ticket" => Some(Severity::Ticket),
            _ => {
                self.fault(entry.severity.span(), "a severity is \"page\" or \"ticket\"".to_owned());
                None
            }
        };
        let (long_seconds, short_seconds) = (self.read_seconds(&entry.long), self.read_seconds(&entry.short));
        let factor_milli = self.read_factor(&entry.burn);
        let (long_seconds, short_seconds) = (long_seconds?, short_seconds?);
        if short_seconds == 0 || short_seconds >= long_seconds {
            self.fault(entry.short.span(), "the short window is shorter than the long one".to_owned());
            return None;
        }
        Some(BurnPair { severity: severity?, long_seconds, short_seconds, factor_milli: factor_milli? })
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    fn read_factor(&mut self, entry: &Spanned<f64>) -> Option<u32> {
        let milli = (*entry.get_ref() * 1_000.0).round();
        let is_exact = (milli / 1_000.0 - *entry.get_ref()).abs() < 1e-9;
        if (1.0..=FACTOR_MAX * 1_000.0).contains(&milli) && is_exact {
            return Some(milli as u32);
        }
        self.fault(entry.span(), "a burn is 0.001 to 10000 with at most three decimals, as 14.4".to_owned());
        None
    }

    fn read_seconds(&mut self, entry: &Spanned<String>) -> Option<u64> {
        match parse_seconds(entry.get_ref()) {
            Ok(seconds) => Some(seconds),
            Err(error) => {
                self.fault(entry.span(), error.to_string());
                None
            }
        }
    }

    fn check_name(&mut self, entry: &Spanned<String>) {
        if !is_plain_name(entry.get_ref()) {
            self.fault(
                entry.span(),
                "a name has 1 to 63 of a-z, 0-9, '-' and '_', starting with a letter".to_owned(),
            );
        }
    }

    fn check_alert(&mut self, entry: &Spanned<String>) {
        if !is_alert_name(entry.get_ref()) {
            self.fault(
                entry.span(),
                "an alert is named in capitals and letters, as CallSetupBudgetBurn".to_owned(),
            );
        }
    }

    fn fault(&mut self, span: Range<usize>, message: String) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
        self.faults.push(Fault { line, column, message });
    }
}

/// Whether a text is a name of this house.
pub(crate) fn is_plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
        && name.len() <= 63
}

/// Whether a text names an alert.
pub(crate) fn is_alert_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
        && name.len() <= 63
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, fault) in self.faults.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}
