//! Billing: which profile a call is rated by, the task that rates calls as they come, and `belfry billing`.
//!
//! A call is rated after its record is in the store, in the order in which records came, so that nothing of it can
//! delay a call; a record says by which version of which profile, and can be rated again by others.

pub mod accounts;
mod rater;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use belfry_routing::rating::{Profile, RateTable};
use belfry_signal::now_unix_nanos;
use belfry_state::{Ledger, ProfileDocument};
use serde::Deserialize;

use crate::cli::RecordRange;
use crate::commands::say;
use crate::records::{moment, with_ledger};
use crate::signals::Signals;
use rater::Rater;

/// The `[core.billing]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Billing {
    /// Who has no profile of its own is billed by this one.
    #[serde(default)]
    pub default_profile: Option<String>,
    /// Profiles of small sites; large ones import theirs.
    #[serde(default)]
    pub profiles: Vec<Profile>,
    /// How often the store is asked for calls to rate.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Calls that are rated at a time.
    pub calls_per_batch_max: u32,
}

impl Billing {
    /// Every fault: the key inside the section, and what is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        for (index, profile) in self.profiles.iter().enumerate() {
            if let Err(error) = RateTable::new(profile.clone()) {
                faults.push((format!("profiles[{index}]"), error.to_string()));
            }
        }
        if self.interval < Duration::from_millis(10) {
            faults.push(("interval".to_owned(), "use at least 10ms".to_owned()));
        }
        if !(1..=10_000).contains(&self.calls_per_batch_max) {
            faults.push(("calls_per_batch_max".to_owned(), "use 1 to 10000 calls".to_owned()));
        }
        faults
    }
}

/// Puts the configured profiles into the store and rates calls as they come, until it is dropped. Without any profile
/// nothing is rated, and everything can be later.
///
/// # Errors
/// When a configured profile is in the store with another text, or the store cannot be used.
pub async fn start(
    config: &Billing,
    ledger: Ledger,
    signals: Signals,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    for profile in &config.profiles {
        let (name, version) = (profile.name.clone(), profile.version);
        let document = toml::to_string(profile).context("write the profile down")?;
        ledger
            .put_profile(ProfileDocument { name, version, document })
            .await
            .context("keep a billing profile")?;
    }
    let mut rater = Rater::load(&ledger, config.default_profile.clone()).await?;
    let (interval, limit) = (config.interval, config.calls_per_batch_max);
    Ok(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_failing = false;
        loop {
            ticks.tick().await;
            let fault = rate_what_waits(&mut rater, limit).await.err();
            if fault.is_some() != is_failing {
                signals.rating_changed(fault.as_ref().map(|fault| format!("{fault:#}")).as_deref());
                is_failing = fault.is_some();
            }
        }
    }))
}

async fn rate_what_waits(rater: &mut Rater, limit: u32) -> anyhow::Result<()> {
    rater.refresh().await?;
    while !rater.is_empty() && rater.step(limit).await? > 0 {}
    Ok(())
}

/// `belfry billing import`.
///
/// # Errors
/// When a file is no profile, or its version is in the store with another text.
pub fn import(files: &[PathBuf], config: &Path) -> anyhow::Result<ExitCode> {
    let mut profiles = Vec::new();
    for file in files {
        let document = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let profile = read(&document).with_context(|| file.display().to_string())?;
        profiles.push(ProfileDocument { name: profile.name, version: profile.version, document });
    }
    with_ledger(config, async |ledger| {
        for profile in profiles {
            let name = format!("{} version {}", profile.name, profile.version);
            let is_new = ledger.put_profile(profile).await?;
            say(&format!("{name}: {}", if is_new { "added" } else { "was there" }));
        }
        Ok(())
    })
}

/// `belfry billing list`.
///
/// # Errors
/// When the store cannot be read.
pub fn list(config: &Path) -> anyhow::Result<ExitCode> {
    with_ledger(config, async |ledger| {
        for profile in ledger.profiles().await? {
            let shown = read(&profile.document).map_or_else(
                |error| format!("cannot be used: {error:#}"),
                |read| {
                    format!("{}, {} destinations, {}", read.currency, read.destinations.len(), read.time_zone)
                },
            );
            say(&format!("{} version {}: {shown}", profile.name, profile.version));
        }
        for (address, profile) in ledger.assignments().await? {
            say(&format!("{address} is billed by {profile}"));
        }
        Ok(())
    })
}

/// `belfry billing assign`.
///
/// # Errors
/// When the profile is unknown, or the store cannot be written.
pub fn assign(address: &str, profile: Option<&str>, config: &Path) -> anyhow::Result<ExitCode> {
    let address = address.to_ascii_lowercase();
    with_ledger(config, async |ledger| {
        if let Some(profile) = profile
            && !ledger.profiles().await?.iter().any(|known| known.name == profile)
        {
            bail!("no billing profile is called {profile:?}; `belfry billing list` shows them");
        }
        let is_changed = ledger.assign_profile(&address, profile).await?;
        say(match (profile, is_changed) {
            (Some(_), _) => "assigned",
            (None, true) => "taken back",
            (None, false) => "had no profile of its own",
        });
        Ok(())
    })
}

/// `belfry billing rate`.
///
/// # Errors
/// When a time cannot be read, or the store cannot be used.
pub fn rate_again(range: &RecordRange) -> anyhow::Result<ExitCode> {
    let now = now_unix_nanos();
    let (from, to) = (moment(&range.from, now)?, moment(&range.to, now)?);
    let default = crate::run::load(&range.config)
        .ok()
        .and_then(|(config, _)| config.core)
        .and_then(|core| core.billing.default_profile);
    with_ledger(&range.config, async |ledger| {
        let mut rater = Rater::load(&ledger, default).await?;
        if rater.is_empty() {
            bail!("the store has no billing profile; `belfry billing import` adds one");
        }
        let forgotten = ledger.forget_ratings(from, to).await?;
        let mut rated = 0;
        loop {
            match rater.step(1_000).await? {
                0 => break,
                some => rated += some,
            }
        }
        say(&format!("{forgotten} ratings taken back, {rated} calls rated"));
        Ok(())
    })
}

/// A profile, checked.
fn read(document: &str) -> anyhow::Result<Profile> {
    let profile: Profile = toml::from_str(document)?;
    RateTable::new(profile.clone())?;
    Ok(profile)
}
