//! The rules that the engine judges by: the shipped ones, or an operator's file.

use std::path::Path;
use std::sync::Arc;

use belfry_notify::AlertName;
use belfry_signal::Journey;
use belfry_slo::{Slo, parse_rules};

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

/// Loads `shipped`, `demo`, or a file.
pub(crate) fn load(name: &str) -> Result<Vec<Rule>, Error> {
    match name {
        "shipped" => read("shipped", SHIPPED),
        "demo" => read("demo", DEMO),
        path => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| Error::RulesFile { path: Path::new(path).to_owned(), source })?;
            read(path, &text)
        }
    }
}

fn read(place: &str, text: &str) -> Result<Vec<Rule>, Error> {
    let slos = parse_rules(text).map_err(|source| Error::Rules { place: place.to_owned(), source })?;
    slos.into_iter().map(|slo| resolve(place, slo)).collect()
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
            let rules = load(name).expect("right");
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
