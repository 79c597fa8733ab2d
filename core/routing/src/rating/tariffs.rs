//! Profiles made ready, and who is billed by which.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::RateTable;

/// The profiles that are in force, and whose they are.
#[derive(Clone, Debug, Default)]
pub struct Tariffs {
    /// The newest version of each profile, by its name.
    pub tables: BTreeMap<String, Arc<RateTable>>,
    /// Profiles by `user@domain`, or by `domain`.
    pub assignments: HashMap<String, String>,
    /// The profile of all others.
    pub default: Option<String>,
}

impl Tariffs {
    /// The profile of an address (`sip:user@domain`, with or without a scheme): its own, its domain's, or the one of all
    /// others.
    #[must_use]
    pub fn of(&self, caller: &str) -> Option<&Arc<RateTable>> {
        let address = caller.split_once(':').map_or(caller, |(_, address)| address).to_ascii_lowercase();
        let domain = address.split_once('@').map_or(address.as_str(), |(_, domain)| domain);
        let own = self.assignments.get(&address).or_else(|| self.assignments.get(domain));
        self.tables.get(own.or(self.default.as_ref())?)
    }
}
