//! What may be set about metric rules and routes, and the files that belong to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use belfry_dispatch::{Authorization, Config as Alertmanager, IntegrationKind, Secret};
use belfry_notify::{SecretSource, TargetConfig, TargetKind};
use belfry_ruler::{GroupSpec, parse_rules};
use serde::Deserialize;

use super::faulty;
use crate::error::Error;

/// The section `[alerts.routing]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// Prometheus rule files: paths, and `shipped` for those that come with Belfry.
    pub rule_files: Vec<PathBuf>,
    /// An Alertmanager configuration file; without one, alerts of severity `page` or `critical` go to all services.
    pub alertmanager_file: Option<PathBuf>,
    /// How often groups that do not say it are evaluated.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Groups that are evaluated at once.
    pub evaluations_max: usize,
    /// Rules in all files.
    pub rules_max: usize,
    /// Alerts of one rule; a rule that finds more fails.
    pub alerts_per_rule_max: usize,
    /// Series that one recording rule may write.
    pub series_per_rule_max: usize,
    /// Samples that one rule may read.
    pub samples_max: usize,
    /// Alerts that are known at once, posted ones among them.
    pub alerts_max: usize,
    /// Alerts of those that may have been posted; the rest is for our own rules.
    pub posted_max: usize,
    /// How far ahead the end of a posted alert may lie; a later one is brought forward to this.
    #[serde(with = "humantime_serde")]
    pub posted_ahead_max: Duration,
    /// Groups of alerts at once.
    pub groups_max: usize,
    /// Silences, those included that are over and remembered for five days.
    pub silences_max: usize,
    /// Notices that may wait for the outbox.
    pub notices_max: usize,
    /// Changes of silences that are remembered.
    pub audit_max: usize,
    /// How often it is noted that somebody judges; time after the last note counts for no pending alert.
    #[serde(with = "humantime_serde")]
    pub save_every: Duration,
    /// How long those who post alerts are waited for after a restart, before anything is told; Prometheus repeats
    /// itself each minute.
    #[serde(with = "humantime_serde")]
    pub posts_wait: Duration,
    /// Where links in notices and templates lead; filled in from `[alerts.notify]`.
    #[serde(skip)]
    pub external_url: String,
}

/// What the files say.
#[derive(Clone, Debug)]
pub struct Sources {
    /// All groups of rules.
    pub groups: Vec<GroupSpec>,
    /// The routes.
    pub alertmanager: Alertmanager,
}

/// Rules that come with Belfry.
const SHIPPED: &str = include_str!("../../../rules/health.yaml");

impl Routing {
    /// Every setting that cannot stand, as (key inside the section, what is wrong and what is allowed).
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        for (key, value, most) in [
            ("evaluations_max", self.evaluations_max, 64),
            ("rules_max", self.rules_max, 1_000_000),
            ("alerts_per_rule_max", self.alerts_per_rule_max, 1_000_000),
            ("series_per_rule_max", self.series_per_rule_max, 10_000_000),
            ("samples_max", self.samples_max, 1_000_000_000),
            ("alerts_max", self.alerts_max, 1_000_000),
            ("posted_max", self.posted_max, self.alerts_max),
            ("groups_max", self.groups_max, 1_000_000),
            ("silences_max", self.silences_max, 100_000),
            ("notices_max", self.notices_max, 1_000_000),
            ("audit_max", self.audit_max, 1_000_000),
        ] {
            if value == 0 || value > most {
                faults.push((key.to_owned(), format!("{value} is not between 1 and {most}")));
            }
        }
        for (key, value) in [("interval", self.interval), ("save_every", self.save_every)] {
            if value < Duration::from_secs(1) {
                faults.push((key.to_owned(), "must be 1s at least".to_owned()));
            }
        }
        if faults.is_empty()
            && let Err(error) = self.read()
        {
            faults.push(("rule_files".to_owned(), error.to_string()));
        }
        faults
    }

    /// Reads the files.
    ///
    /// # Errors
    /// Every mistake in them, with its place.
    pub fn read(&self) -> Result<Sources, Error> {
        let text_of = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| Error::RulesFile { path: path.to_owned(), source })
        };
        let mut groups = Vec::new();
        for path in &self.rule_files {
            let name = path.to_string_lossy().into_owned();
            let text = if name == "shipped" { SHIPPED.to_owned() } else { text_of(path)? };
            groups.extend(parse_rules(&name, &text).map_err(|faults| faulty(&name, &faults))?);
        }
        let rules: usize = groups.iter().map(|group| group.rules.len()).sum();
        if rules > self.rules_max {
            return Err(Error::File {
                faults: format!("there are {rules} rules, rules_max is {}", self.rules_max),
            });
        }
        let alertmanager = match &self.alertmanager_file {
            None => Alertmanager::default(),
            Some(path) => {
                let name = path.to_string_lossy();
                Alertmanager::parse(&text_of(path)?).map_err(|faults| faulty(&name, &faults))?
            }
        };
        Ok(Sources { groups, alertmanager })
    }
}

impl Sources {
    /// Whom the routes tell, for the outbox.
    #[must_use]
    pub fn targets(&self) -> Vec<TargetConfig> {
        let integrations = self.alertmanager.receivers.iter().flat_map(|receiver| &receiver.integrations);
        let targets = integrations.filter_map(|integration| {
            let kind = match &integration.kind {
                IntegrationKind::Service(_) => return None,
                IntegrationKind::Pagerduty(pagerduty) => TargetKind::Pagerduty {
                    url: pagerduty.url.clone(),
                    routing_key: secret(&pagerduty.routing_key),
                },
                IntegrationKind::Webhook(webhook) => {
                    let (mut scheme, mut basic) = (None, None);
                    match &webhook.authorization {
                        Some(Authorization::Scheme(name, of)) => scheme = Some((name.clone(), secret(of))),
                        Some(Authorization::Basic(user, of)) => basic = Some((user.clone(), secret(of))),
                        None => {}
                    }
                    TargetKind::Webhook { url: secret(&webhook.url), scheme, basic }
                }
            };
            Some(TargetConfig { name: integration.target.clone(), kind })
        });
        targets.collect()
    }
}

fn secret(of: &Secret) -> SecretSource {
    match of {
        Secret::Inline(text) => SecretSource::Inline(text.clone()),
        Secret::File(path) => SecretSource::File(path.clone()),
    }
}
