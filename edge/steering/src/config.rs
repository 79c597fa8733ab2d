//! The `steering` section: plain keys, checked as a whole.

use std::collections::HashSet;

use ipnet::IpNet;
use serde::Deserialize;

use crate::REGIONS_MAX;
use crate::overrides::OVERRIDES_MAX;
use crate::place::{Continent, Country};

/// The map of the world, as the operator writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The region of every address that nothing else places.
    pub default_region: String,
    /// All regions, 1 to [`REGIONS_MAX`].
    pub regions: Vec<RegionConfig>,
    /// Networks that the operator knows better than the GeoIP file; the longest prefix wins.
    #[serde(default)]
    pub overrides: Vec<OverrideConfig>,
}

/// One region.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionConfig {
    /// Its name, as in labels.
    pub name: String,
    /// The site that serves it first.
    #[serde(default)]
    pub site: Option<String>,
    /// Its countries; a country belongs to one region.
    #[serde(default)]
    pub countries: Vec<Country>,
    /// Continents whose countries nobody else claims.
    #[serde(default)]
    pub continents: Vec<Continent>,
}

/// What the operator knows about one network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideConfig {
    /// The network, as `198.51.100.0/24`.
    pub network: IpNet,
    /// The country to believe.
    #[serde(default)]
    pub country: Option<Country>,
    /// The region to take whatever the country.
    #[serde(default)]
    pub region: Option<String>,
}

impl Config {
    /// Every problem as (key inside the section, what is wrong and what is allowed).
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut names = HashSet::new();
        let mut claimed = HashSet::new();
        let mut claimed_continents = HashSet::new();
        if self.regions.is_empty() || self.regions.len() > REGIONS_MAX {
            let problem = format!("{} regions; 1 to {REGIONS_MAX} are allowed", self.regions.len());
            problems.push(("regions".to_owned(), problem));
        }
        for (index, region) in self.regions.iter().enumerate() {
            if !names.insert(region.name.as_str()) {
                problems
                    .push((format!("regions[{index}].name"), format!("{:?} is named twice", region.name)));
            }
            for country in &region.countries {
                if !claimed.insert(*country) {
                    let problem = format!("{country} is claimed twice; a country belongs to one region");
                    problems.push((format!("regions[{index}].countries"), problem));
                }
            }
            for continent in &region.continents {
                if !claimed_continents.insert(*continent) {
                    let problem = format!("{continent} is claimed twice; a continent belongs to one region");
                    problems.push((format!("regions[{index}].continents"), problem));
                }
            }
        }
        let known = || self.regions.iter().map(|region| region.name.as_str()).collect::<Vec<_>>().join(", ");
        if !names.contains(self.default_region.as_str()) {
            let problem =
                format!("{:?} is not a configured region; use one of {}", self.default_region, known());
            problems.push(("default_region".to_owned(), problem));
        }
        self.check_overrides(&names, &known(), &mut problems);
        problems
    }

    fn check_overrides(&self, names: &HashSet<&str>, known: &str, problems: &mut Vec<(String, String)>) {
        if self.overrides.len() > OVERRIDES_MAX {
            let problem = format!("{} overrides; at most {OVERRIDES_MAX} are allowed", self.overrides.len());
            problems.push(("overrides".to_owned(), problem));
        }
        let mut networks = HashSet::new();
        for (index, entry) in self.overrides.iter().enumerate() {
            if !networks.insert(entry.network.trunc()) {
                let problem = format!("{} is overridden twice", entry.network.trunc());
                problems.push((format!("overrides[{index}].network"), problem));
            }
            if entry.country.is_none() && entry.region.is_none() {
                let problem = "says nothing; give country, region or both".to_owned();
                problems.push((format!("overrides[{index}]"), problem));
            }
            if let Some(region) = entry.region.as_deref().filter(|region| !names.contains(region)) {
                let problem = format!("{region:?} is not a configured region; use one of {known}");
                problems.push((format!("overrides[{index}].region"), problem));
            }
        }
    }
}
