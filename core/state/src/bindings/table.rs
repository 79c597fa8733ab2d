//! The table in memory: by address, by time of expiry, by flow. No files here.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Binding, Expired};
use crate::error::Error;

type Place = (Arc<str>, Arc<str>);

pub(super) struct Table {
    bindings_max: usize,
    per_address_max: usize,
    len: usize,
    addresses: HashMap<Arc<str>, Vec<Arc<Binding>>>,
    by_expiry: BTreeSet<(u64, Place)>,
    by_flow: HashMap<String, HashSet<Place>>,
}

impl Table {
    pub(super) fn new(bindings_max: usize, per_address_max: usize) -> Self {
        Self {
            bindings_max,
            per_address_max,
            len: 0,
            addresses: HashMap::new(),
            by_expiry: BTreeSet::new(),
            by_flow: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, address: &str) -> &[Arc<Binding>] {
        self.addresses.get(address).map_or(&[], Vec::as_slice)
    }

    pub(super) fn contains(&self, address: &str, key: &str) -> bool {
        self.get(address).iter().any(|binding| binding.key == key)
    }

    /// Whether one more fits; a refresh always does.
    pub(super) fn room_for(&self, address: &str, key: &str) -> Result<(), Error> {
        let present = self.get(address);
        if present.iter().any(|binding| binding.key == key) {
            return Ok(());
        }
        if present.len() >= self.per_address_max {
            return Err(Error::AddressFull);
        }
        if self.len >= self.bindings_max { Err(Error::BindingsFull) } else { Ok(()) }
    }

    pub(super) fn put(&mut self, address: &str, binding: Arc<Binding>) {
        self.remove(address, &binding.key);
        let address: Arc<str> = match self.addresses.get_key_value(address) {
            Some((known, _)) => Arc::clone(known),
            None => address.into(),
        };
        let place: Place = (Arc::clone(&address), binding.key.as_str().into());
        self.by_expiry.insert((binding.expires_unix_nanos, place.clone()));
        if let Some(flow) = &binding.flow {
            self.by_flow.entry(flow.clone()).or_default().insert(place);
        }
        self.addresses.entry(address).or_default().push(binding);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, address: &str, key: &str) -> Option<Arc<Binding>> {
        let present = self.addresses.get_mut(address)?;
        let at = present.iter().position(|binding| binding.key == key)?;
        let binding = present.swap_remove(at);
        if present.is_empty() {
            self.addresses.remove(address);
        }
        let place: Place = (address.into(), key.into());
        if let Some(flow) = &binding.flow
            && let Some(places) = self.by_flow.get_mut(flow)
        {
            places.remove(&place);
            if places.is_empty() {
                self.by_flow.remove(flow);
            }
        }
        self.by_expiry.remove(&(binding.expires_unix_nanos, place));
        self.len -= 1;
        Some(binding)
    }

    pub(super) fn expire(&mut self, now_unix_nanos: u64) -> Vec<Expired> {
        let mut expired = Vec::new();
        while let Some((at, (address, key))) = self.by_expiry.first() {
            if *at > now_unix_nanos {
                break;
            }
            let (address, key) = (Arc::clone(address), Arc::clone(key));
            let Some(binding) = self.remove(&address, &key) else { break };
            expired.push(Expired { address: address.to_string().into(), binding });
        }
        expired
    }

    pub(super) fn of_flow(&self, flow: &str) -> Vec<(String, Arc<Binding>)> {
        let places = self.by_flow.get(flow).into_iter().flatten();
        places
            .filter_map(|(address, key)| {
                let binding = self.get(address).iter().find(|binding| *binding.key == **key)?;
                Some((address.to_string(), Arc::clone(binding)))
            })
            .collect()
    }

    /// Everything, cheaply: the bindings are shared, not copied.
    pub(super) fn entries(&self) -> Vec<(Arc<str>, Arc<Binding>)> {
        let mut entries = Vec::with_capacity(self.len);
        for (address, bindings) in &self.addresses {
            entries.extend(bindings.iter().map(|binding| (Arc::clone(address), Arc::clone(binding))));
        }
        entries
    }
}
