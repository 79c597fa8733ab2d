//! What may be set about the engine. The defaults are in `belfry.toml`.

use std::path::PathBuf;
use std::time::Duration;

use belfry_signal::Region;
use serde::Deserialize;

use crate::rules;

/// The section `[alerts.engine]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where pages and counts are kept.
    pub directory: PathBuf,
    /// `shipped`, `demo`, or the path of a rule file.
    pub rules: String,
    /// More objectives: OpenSLO v1 files (`.yaml`, `.yml`), or files of the house's own form (`.toml`).
    pub slo_files: Vec<PathBuf>,
    /// Regions that the page shows even before a customer came from there.
    pub regions: Vec<Region>,
    /// A cell without an event for so long is stale: it may be fine, but nobody can know.
    #[serde(with = "humantime_serde")]
    pub stale_after: Duration,
    /// Regions of one SLO that trip within this time become one page.
    #[serde(with = "humantime_serde")]
    pub group_window: Duration,
    /// A region that trips within this time after a page was sent joins it.
    #[serde(with = "humantime_serde")]
    pub group_join: Duration,
    /// How often counts are written down; a crash loses at most this much history, never a page.
    #[serde(with = "humantime_serde")]
    pub save_every: Duration,
    /// Pages that are remembered; the oldest resolved ones make room.
    pub pages_max: usize,
    /// Changes that are remembered.
    pub changes_max: usize,
}

impl Config {
    /// Every setting that cannot stand, as (key inside the section, what is wrong and what is allowed).
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: String| faults.push((key.to_owned(), message));
        if self.directory.as_os_str().is_empty() {
            fault("directory", "must name a directory".to_owned());
        }
        if let Err(error) = rules::load(&self.rules, &self.slo_files) {
            fault("rules", error.to_string());
        }
        if self.regions.len() > Region::MAX {
            fault("regions", format!("at most {} regions", Region::MAX));
        }
        let hour = Duration::from_secs(3_600);
        for (key, value, least, most) in [
            ("stale_after", self.stale_after, Duration::from_secs(1), hour * 24),
            ("group_window", self.group_window, Duration::ZERO, Duration::from_secs(60)),
            ("group_join", self.group_join, Duration::ZERO, hour),
            ("save_every", self.save_every, Duration::from_secs(1), Duration::from_secs(600)),
        ] {
            if value < least || value > most {
                fault(key, format!("{value:?} is not between {least:?} and {most:?}"));
            }
        }
        for (key, value) in [("pages_max", self.pages_max), ("changes_max", self.changes_max)] {
            if value == 0 || value > 100_000 {
                fault(key, format!("{value} is not between 1 and 100000"));
            }
        }
        faults
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The demo's rules, two regions, no waiting for other regions.
    pub(crate) fn config(directory: &std::path::Path) -> Config {
        let region = |name| Region::configured(name).expect("plain");
        Config {
            directory: directory.to_owned(),
            rules: "demo".into(),
            slo_files: vec![],
            regions: vec![region("eu"), region("us")],
            stale_after: Duration::from_secs(60),
            group_window: Duration::from_secs(2),
            group_join: Duration::from_secs(30),
            save_every: Duration::from_secs(10),
            pages_max: 8,
            changes_max: 4,
        }
    }

    #[test]
    fn a_right_configuration_has_no_faults_and_every_wrong_setting_is_named() {
        let mut config = config(std::path::Path::new("/tmp"));
        assert_eq!(config.check(), []);
        config.rules = "/nowhere/slos.toml".into();
        config.group_window = Duration::from_secs(600);
        config.pages_max = 0;
        let keys: Vec<_> = config.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["rules", "group_window", "pages_max"]);
    }
}
