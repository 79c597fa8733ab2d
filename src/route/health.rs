//! What a running Belfry knows of the gateways that a decision names: `belfry route explain` works on files, and a file
//! does not say who answers.

use belfry_routing::{Decision, Outcome, Step, Table};
use hyper::Method;
use serde::Deserialize;

use crate::ask::{Token, ask};
use crate::cli::Site;
use crate::commands::block_on;

/// As `GET /api/v1/trunks` tells it.
#[derive(Debug, Deserialize)]
struct Told {
    gateways: Vec<Gateway>,
}

#[derive(Debug, Deserialize)]
struct Gateway {
    trunk: String,
    gateway: u8,
    is_down: bool,
    since_unix_seconds: i64,
}

/// What is to be said of the gateways of a decision; nothing when none of them is asked whether it is alive.
pub(super) fn steps(table: &Table, decision: &Decision, site: &Site) -> Vec<Step> {
    let Outcome::Trunks(hops) = &decision.outcome else { return Vec::new() };
    let asked: Vec<_> = hops
        .iter()
        .filter_map(|hop| {
            let trunk = table.trunk(hop.trunk).filter(|trunk| trunk.probe.interval_seconds > 0)?;
            Some((&*trunk.name, hop.gateway, trunk.gateways.get(usize::from(hop.gateway))?.uri()))
        })
        .collect();
    if asked.is_empty() {
        return Vec::new();
    }
    let told = match told(site) {
        Ok(told) => told,
        Err(error) => {
            let detail = format!("who is alive is not known: {error:#} (--api names another Belfry)");
            return vec![Step { rule: "gateway", detail }];
        }
    };
    // For whoever calls for help nothing is left out.
    let is_left_out = !decision.is_emergency && told.up_among(&asked, hops.len());
    asked.iter().map(|(trunk, place, uri)| step(told.find(trunk, *place), trunk, uri, is_left_out)).collect()
}

fn step(known: Option<&Gateway>, trunk: &str, uri: &str, is_left_out: bool) -> Step {
    let detail = match known {
        None => format!("{trunk} {uri}: not known yet"),
        Some(Gateway { is_down, since_unix_seconds, .. }) => {
            let since = jiff::Timestamp::from_second(*since_unix_seconds).unwrap_or_default();
            let becomes = match (is_down, is_left_out) {
                (false, _) => "up",
                (true, true) => "down, left out while others are up",
                (true, false) => "down, and tried all the same",
            };
            format!("{trunk} {uri}: {becomes}, since {since}")
        }
    };
    Step { rule: "gateway", detail }
}

impl Told {
    fn find(&self, trunk: &str, place: u8) -> Option<&Gateway> {
        self.gateways.iter().find(|gateway| gateway.trunk == trunk && gateway.gateway == place)
    }

    /// Whether any way is left when those that are down are left out.
    fn up_among(&self, asked: &[(&str, u8, String)], ways: usize) -> bool {
        let is_down = |(trunk, place, _): &&(&str, u8, String)| {
            self.find(trunk, *place).is_some_and(|gateway| gateway.is_down)
        };
        asked.iter().filter(is_down).count() < ways
    }
}

fn told(site: &Site) -> anyhow::Result<Told> {
    let token = Token::of(site.token_file.as_deref())?;
    let answer = block_on(ask(Method::GET, site.api, "/api/v1/trunks", &token))?;
    Ok(serde_json::from_str(&answer)?)
}
