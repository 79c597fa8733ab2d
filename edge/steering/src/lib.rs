//! Steering: from what is known about an address to the region and site that its customer belongs to.
//!
//! `GeoIP record -> country -> region -> site`, with overrides by network and a world-wide default, so that every
//! address has exactly one region. Pure decisions: no sockets, no clock, no file, no telemetry. Reading the GeoIP
//! file is the gateway's; answering DNS is the director's.

mod config;
mod overrides;
mod place;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use config::{Config, OverrideConfig, RegionConfig};
pub use overrides::{LongestPrefix, OVERRIDES_MAX};
pub use place::{BadCode, Continent, Country};

/// How many regions a configuration may name; the same bound as the `region` label.
pub const REGIONS_MAX: usize = 64;

/// What a GeoIP file says about an address. Every part may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Where the address is.
    pub country: Option<Country>,
    /// The continent, for files that know no more.
    pub continent: Option<Continent>,
    /// The autonomous system that announces the address.
    pub asn: Option<u32>,
}

/// Where a customer belongs, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// A configured region.
    pub region: Arc<str>,
    /// The country that was believed, when one was known.
    pub country: Option<Country>,
    /// The region's preferred site, when the configuration names one.
    pub site: Option<Arc<str>>,
    /// Which step decided.
    pub reason: Reason,
}

/// Which step of the decision gave the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An override names the region.
    OverrideRegion,
    /// An override names the country, and a region claims it.
    OverrideCountry,
    /// A region claims the country of the GeoIP record.
    Country,
    /// A region claims the continent of the GeoIP record.
    Continent,
    /// Nothing was known or claimed: the world-wide default.
    Default,
}

impl Reason {
    /// A bounded name, for logs and spans.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OverrideRegion => "override_region",
            Self::OverrideCountry => "override_country",
            Self::Country => "country",
            Self::Continent => "continent",
            Self::Default => "default",
        }
    }
}

/// One step of a decision, in the order in which the steps were tried. `Display` says it in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The longest override network that holds the address.
    OverrideMatched {
        /// The network.
        network: ipnet::IpNet,
        /// What it says about the country.
        country: Option<Country>,
        /// What it says about the region.
        region: Option<Arc<str>>,
    },
    /// No override holds the address.
    NoOverride,
    /// The GeoIP file knows nothing about the address.
    NoRecord,
    /// The record's country was ignored, because an override names another.
    RecordOverruled(Country),
    /// A region claims this country.
    CountryClaimed(Country, Arc<str>),
    /// No region claims this country.
    CountryUnclaimed(Country),
    /// A region claims this continent.
    ContinentClaimed(Continent, Arc<str>),
    /// No region claims this continent.
    ContinentUnclaimed(Continent),
    /// The default was taken.
    DefaultTaken(Arc<str>),
    /// The region's site.
    SiteChosen(Arc<str>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverrideMatched { network, country, region } => {
                write!(f, "override {network} holds the address")?;
                if let Some(country) = country {
                    write!(f, ", country {country}")?;
                }
                region.iter().try_for_each(|region| write!(f, ", region {region}"))
            }
            Self::NoOverride => f.write_str("no override holds the address"),
            Self::NoRecord => f.write_str("the GeoIP file knows nothing about the address"),
            Self::RecordOverruled(country) => write!(f, "the GeoIP file says {country}, which is overruled"),
            Self::CountryClaimed(country, region) => {
                write!(f, "country {country} belongs to region {region}")
            }
            Self::CountryUnclaimed(country) => write!(f, "no region claims country {country}"),
            Self::ContinentClaimed(continent, region) => {
                write!(f, "continent {continent} belongs to region {region}")
            }
            Self::ContinentUnclaimed(continent) => write!(f, "no region claims continent {continent}"),
            Self::DefaultTaken(region) => write!(f, "the world-wide default is region {region}"),
            Self::SiteChosen(site) => write!(f, "the region's site is {site}"),
        }
    }
}

/// The configured map of the world. Immutable: a reload builds a new one.
#[derive(Clone, Debug)]
pub struct Steering {
    overrides: LongestPrefix<Override>,
    countries: HashMap<Country, usize>,
    continents: HashMap<Continent, usize>,
    regions: Vec<Place>,
    default_index: usize,
}

#[derive(Clone, Debug)]
struct Override {
    country: Option<Country>,
    region_index: Option<usize>,
}

#[derive(Clone, Debug)]
struct Place {
    region: Arc<str>,
    site: Option<Arc<str>>,
}

/// Why a configuration cannot become a map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("steering.{key}: {problem}")]
pub struct BadConfig {
    /// The key, relative to the section.
    pub key: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

impl Steering {
    /// Builds the map.
    ///
    /// # Errors
    /// The first of [`Config::check`]'s findings.
    pub fn new(config: &Config) -> Result<Self, BadConfig> {
        if let Some((key, problem)) = config.check().into_iter().next() {
            return Err(BadConfig { key, problem });
        }
        let regions: Vec<Place> = config
            .regions
            .iter()
            .map(|region| Place {
                region: region.name.as_str().into(),
                site: region.site.as_deref().map(Into::into),
            })
            .collect();
        let index_of = |name: &str| config.regions.iter().position(|region| region.name == name);
        let mut countries = HashMap::new();
        let mut continents = HashMap::new();
        for (index, region) in config.regions.iter().enumerate() {
            countries.extend(region.countries.iter().map(|country| (*country, index)));
            continents.extend(region.continents.iter().map(|continent| (*continent, index)));
        }
        let mut overrides = LongestPrefix::default();
        for entry in &config.overrides {
            let region_index = entry.region.as_deref().and_then(index_of);
            overrides.insert(entry.network, Override { country: entry.country, region_index });
        }
        // `check` made sure that the default exists; the first region stands in for what cannot happen.
        let default_index = index_of(&config.default_region).unwrap_or_default();
        Ok(Self { overrides, countries, continents, regions, default_index })
    }

    /// Where the customer at `ip` belongs.
    #[must_use]
    pub fn decide(&self, ip: IpAddr, record: Option<&Record>) -> Decision {
        self.walk(ip, record, &mut |_| {})
    }

    /// The same decision with its steps in order.
    #[must_use]
    pub fn explain(&self, ip: IpAddr, record: Option<&Record>) -> (Decision, Vec<Step>) {
        let mut steps = Vec::new();
        let decision = self.walk(ip, record, &mut |step| steps.push(step()));
        (decision, steps)
    }

    /// The names of all regions, in configured order.
    pub fn regions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.regions.iter().map(|place| &place.region)
    }

    /// Decides and tells each step; `decide` and `explain` can never differ because both are this.
    fn walk(
        &self,
        ip: IpAddr,
        record: Option<&Record>,
        tell: &mut impl FnMut(&dyn Fn() -> Step),
    ) -> Decision {
        let found = self.overrides.find(ip);
        match found {
            None => tell(&|| Step::NoOverride),
            Some((network, entry)) => tell(&|| Step::OverrideMatched {
                network,
                country: entry.country,
                region: entry.region_index.map(|index| Arc::clone(&self.regions[index].region)),
            }),
        }
        let overridden_country = found.and_then(|(_, entry)| entry.country);
        let recorded_country = record.and_then(|record| record.country);
        if record.is_none() {
            tell(&|| Step::NoRecord);
        }
        if let (Some(country), Some(other)) = (recorded_country, overridden_country)
            && country != other
        {
            tell(&|| Step::RecordOverruled(country));
        }
        let country = overridden_country.or(recorded_country);
        if let Some(index) = found.and_then(|(_, entry)| entry.region_index) {
            return self.decision(index, country, Reason::OverrideRegion, tell);
        }
        if let Some(country) = country {
            if let Some(&index) = self.countries.get(&country) {
                tell(&|| Step::CountryClaimed(country, Arc::clone(&self.regions[index].region)));
                let reason =
                    if overridden_country.is_some() { Reason::OverrideCountry } else { Reason::Country };
                return self.decision(index, Some(country), reason, tell);
            }
            tell(&|| Step::CountryUnclaimed(country));
        }
        // A continent from the record says nothing about a country that an override put in its place.
        let continent = record.and_then(|record| record.continent).filter(|_| overridden_country.is_none());
        if let Some(continent) = continent {
            if let Some(&index) = self.continents.get(&continent) {
                tell(&|| Step::ContinentClaimed(continent, Arc::clone(&self.regions[index].region)));
                return self.decision(index, country, Reason::Continent, tell);
            }
            tell(&|| Step::ContinentUnclaimed(continent));
        }
        tell(&|| Step::DefaultTaken(Arc::clone(&self.regions[self.default_index].region)));
        self.decision(self.default_index, country, Reason::Default, tell)
    }

    fn decision(
        &self,
        index: usize,
        country: Option<Country>,
        reason: Reason,
        tell: &mut impl FnMut(&dyn Fn() -> Step),
    ) -> Decision {
        let place = &self.regions[index];
        if let Some(site) = &place.site {
            tell(&|| Step::SiteChosen(Arc::clone(site)));
        }
        Decision { region: Arc::clone(&place.region), country, site: place.site.clone(), reason }
    }
}

#[cfg(test)]
mod tests;
