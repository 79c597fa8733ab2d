//! From an address to its place: the operator's GeoIP file, then steering. Both swap together on reload.
//!
//! Not here: the decision itself, which is `belfry-steering`'s and pure.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use belfry_signal::Region;
use belfry_steering::{Record, Steering};
use maxminddb::{LookupResult, PathElement, Reader};

use crate::config::Config;
use crate::error::Error;
use crate::peer::Peer;
use crate::signals::{ListenerName, Signals};

/// A GeoIP file is read whole; one larger than this is refused rather than eating the machine.
const DATABASE_BYTES_MAX: u64 = 1 << 30;

/// The map of the world in use. Immutable; a reload builds a new one.
#[derive(Debug)]
pub(crate) struct Geography {
    database: Option<Reader<Vec<u8>>>,
    steering: Steering,
    regions: HashMap<Arc<str>, Region>,
    default_region: Region,
}

impl Geography {
    /// Reads the file and the map.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or the map is contradictory; the caller keeps what it had.
    pub(crate) fn load(config: &Config, signals: &Signals) -> Result<Self, Error> {
        let database = config.geoip.as_ref().map(|geoip| open(&geoip.database)).transpose()?;
        let bad = |key: String, problem: String| Error::Config { key: format!("steering.{key}"), problem };
        let steering = Steering::new(&config.steering).map_err(|error| bad(error.key, error.problem))?;
        let regions = steering
            .regions()
            .map(|name| match Region::configured(name) {
                Ok(region) => Ok((Arc::clone(name), region)),
                Err(error) => Err(bad("regions".to_owned(), error.to_string())),
            })
            .collect::<Result<HashMap<_, _>, _>>()?;
        let default_region = Region::configured(&config.steering.default_region)
            .map_err(|error| bad("default_region".to_owned(), error.to_string()))?;
        if let Some(database) = &database {
            signals.geoip_loaded(database.metadata().build_epoch);
        }
        Ok(Self { database, steering, regions, default_region })
    }

    /// The decision for an address, step by step in words.
    pub(crate) fn explain(&self, ip: IpAddr) -> Vec<String> {
        let ip = ip.to_canonical();
        let record = self.database.as_ref().and_then(|database| look_up(database, ip));
        let (_, steps) = self.steering.explain(ip, record.as_ref());
        steps.iter().map(ToString::to_string).collect()
    }

    /// Who is at `address`.
    pub(crate) fn place(&self, listener: &ListenerName, address: SocketAddr, is_secure: bool) -> Peer {
        let ip = address.ip().to_canonical();
        let record = self.database.as_ref().and_then(|database| look_up(database, ip));
        let decision = self.steering.decide(ip, record.as_ref());
        let region = self.regions.get(&decision.region).unwrap_or(&self.default_region).clone();
        Peer {
            listener: listener.clone(),
            address,
            region,
            reason: decision.reason,
            country: decision.country,
            asn: record.and_then(|record| record.asn),
            site: decision.site,
            is_secure,
            names: Vec::new(),
        }
    }
}

/// Opens and verifies a file whole, so that a damaged one is met here and not under a customer.
fn open(path: &Path) -> Result<Reader<Vec<u8>>, Error> {
    let file_error = |source| Error::File { path: path.to_owned(), source };
    let refuse = |problem: String| Error::Geoip { path: path.to_owned(), problem };
    let bytes = std::fs::metadata(path).map_err(file_error)?.len();
    if bytes > DATABASE_BYTES_MAX {
        return Err(refuse(format!("{bytes} bytes; at most {DATABASE_BYTES_MAX} are read")));
    }
    let content = std::fs::read(path).map_err(file_error)?;
    let database = Reader::from_source(content).map_err(|error| refuse(error.to_string()))?;
    database.verify().map_err(|error| refuse(error.to_string()))?;
    Ok(database)
}

/// Reads both schemas: nested GeoIP2 (`country.iso_code`) and flat (`country_code`, or `country` as text).
fn look_up(database: &Reader<Vec<u8>>, ip: IpAddr) -> Option<Record> {
    let found = database.lookup(ip).ok()?;
    if !found.has_data() {
        return None;
    }
    let country = text(&found, &["country", "iso_code"])
        .or_else(|| text(&found, &["country_code"]))
        .or_else(|| text(&found, &["country"]));
    let continent = text(&found, &["continent", "code"])
        .or_else(|| text(&found, &["continent_code"]))
        .or_else(|| text(&found, &["continent"]));
    let asn = found
        .decode_path::<u32>(&[PathElement::Key("autonomous_system_number")])
        .ok()
        .flatten()
        .or_else(|| text(&found, &["asn"]).and_then(|asn| asn.trim_start_matches("AS").parse().ok()));
    Some(Record {
        country: country.and_then(|code| code.parse().ok()),
        continent: continent.and_then(|code| code.parse().ok()),
        asn,
    })
}

fn text<'a>(found: &LookupResult<'a, Vec<u8>>, path: &[&str]) -> Option<&'a str> {
    let keys: Vec<PathElement<'_>> = path.iter().map(|key| PathElement::Key(key)).collect();
    found.decode_path::<&str>(&keys).ok().flatten()
}

#[cfg(test)]
mod tests;
