//! The rules that the engine judges by: the shipped ones, or an operator's file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use belfry_notify::AlertName;
use belfry_signal::Journey;
use belfry_slo::{RulesError, SLOS_MAX, Slo, Source, parse_openslo, parse_rules};

use crate::error::Error;

/// An SLO whose names are known to exist.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) slo: Arc<Slo>,
    pub(crate) journey: Journey,
    pub(crate) alert: AlertName,
}

const SHIPPED: &str = include_str!("../../rules/slos.toml");
const DEMO: &str = include_str!("../../rules/slos.demo.toml");

/// Loads `shipped`, `demo`, or a file, and more files.
pub(crate) fn load(name: &str, files: &[PathBuf]) -> Result<Vec<Rule>, Error> {
    let mut rules = match name {
        "shipped" => read("shipped", SHIPPED)?,
        "demo" => read("demo", DEMO)?,
        path => load_file(Path::new(path))?,
    };
    for path in files {
        for rule in load_file(path)? {
            if rules.iter().any(|other| other.slo.name == rule.slo.name) {
                let faults = format!("{}: another file has an SLO {:?} too", path.display(), rule.slo.name);
                return Err(Error::File { faults });
            }
            rules.push(rule);
        }
    }
    if rules.len() > SLOS_MAX {
        let faults = format!("{} SLOs in all files, {SLOS_MAX} at most", rules.len());
        return Err(Error::File { faults });
    }
    Ok(rules)
}

/// Loads a file of either form.
pub(crate) fn load_file(path: &Path) -> Result<Vec<Rule>, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::RulesFile { path: path.to_owned(), source })?;
    read(&path.to_string_lossy(), &text)
}

/// Reads a file of objectives, and says how many there are and what in it does nothing here.
///
/// # Errors
/// Every mistake with its place, for people.
pub fn check_slo_file(path: &Path) -> Result<(usize, Vec<String>), String> {
    let rules = load_file(path).map_err(|error| match error {
        Error::RulesFile { .. } => format!("{error}: {}", source_of(&error)),
        error => error.to_string(),
    })?;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let remarks = if is_openslo(&path.to_string_lossy()) {
        parse_openslo(&text, &check_query).map(|file| file.remarks).unwrap_or_default()
    } else {
        Vec::new()
    };
    Ok((rules.len(), remarks.iter().map(ToString::to_string).collect()))
}

fn source_of(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

fn check_query(query: &str) -> Result<(), String> {
    belfry_promql::parse(query).map(drop).map_err(|error| error.to_string())
}

fn read(place: &str, text: &str) -> Result<Vec<Rule>, Error> {
    let slos = parse(place, text).map_err(|source| Error::Rules { place: place.to_owned(), source })?;
    slos.into_iter().map(|slo| resolve(place, slo)).collect()
}

/// Reads OpenSLO where the name says YAML, and the house's own form otherwise.
fn parse(place: &str, text: &str) -> Result<Vec<Slo>, RulesError> {
    if !is_openslo(place) {
        return parse_rules(text);
    }
    parse_openslo(text, &check_query).map(|file| file.slos)
}

/// Whether a file of this name holds OpenSLO.
pub(crate) fn is_openslo(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| {
        extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
    })
}

impl Rule {
    /// Its events are the counts of this process.
    pub(crate) fn is_counted_here(&self) -> bool {
        self.slo.source == Source::Journey
    }
}

fn resolve(place: &str, slo: Slo) -> Result<Rule, Error> {
    let unknown = |kind, name: &str, known: Vec<&'static str>| Error::Unknown {
        place: place.to_owned(),
        slo: slo.name.clone(),
        kind,
        name: name.to_owned(),
        known: known.join(", "),
    };
    let journeys = Journey::ALL.iter().copied();
    let journey = journeys.clone().find(|journey| journey.as_str() == slo.journey);
    let journey =
        journey.ok_or_else(|| unknown("journey", &slo.journey, journeys.map(Journey::as_str).collect()))?;
    // The Watchdog fires by itself: no SLO may raise it.
    let alerts = AlertName::ALL.iter().copied().filter(|alert| *alert != AlertName::Watchdog);
    let alert = alerts.clone().find(|alert| alert.as_str() == slo.alert);
    let alert = alert.ok_or_else(|| unknown("alert", &slo.alert, alerts.map(AlertName::as_str).collect()))?;
    Ok(Rule { slo: Arc::new(slo), journey, alert })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_rules_cover_the_four_journeys_with_an_alert_each() {
        for name in ["shipped", "demo"] {
            let rules = load(name, &[]).expect("right");
            let pairs: Vec<_> = rules.iter().map(|rule| (rule.journey, rule.alert)).collect();
            assert_eq!(
                pairs,
                [
                    (Journey::Register, AlertName::RegisterBudgetBurn),
                    (Journey::CallSetup, AlertName::CallSetupBudgetBurn),
                    (Journey::MediaQuality, AlertName::MediaQualityBudgetBurn),
                    (Journey::EdgeHttp, AlertName::EdgeHttpBudgetBurn),
                ]
            );
        }
    }

    #[test]
    fn files_of_both_forms_are_read_together_and_each_name_stands_once() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/");
        let examples = PathBuf::from(format!("{folder}examples.openslo.yaml"));
        let rules = load("shipped", std::slice::from_ref(&examples)).expect("right");
        assert_eq!(rules.len(), 8);
        assert_eq!(rules[4].journey, Journey::CallSetup);
        assert_eq!(rules[7].alert, AlertName::SloBudgetBurn);
        assert!(rules[4].is_counted_here() && !rules[7].is_counted_here());
        let error = load("shipped", &[examples.clone(), examples]).expect_err("twice").to_string();
        assert!(error.contains("another file has an SLO"), "{error}");
        let error = read("x.yaml", "apiVersion: openslo/v2").expect_err("wrong").to_string();
        assert!(error.contains("openslo/v1"), "{error}");
    }

    #[test]
    fn names_that_do_not_exist_are_refused_with_those_that_do() {
        for (wrong, words) in [
            (
                SHIPPED.replace("journey = \"register\"", "journey = \"registering\""),
                "one of register, call_setup",
            ),
            (SHIPPED.replace("RegisterBudgetBurn", "Watchdog"), "one of RegisterBudgetBurn"),
            (SHIPPED.replace("999_500", "9_995_000"), "line "),
        ] {
            let error = read("test", &wrong).expect_err("wrong").to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
