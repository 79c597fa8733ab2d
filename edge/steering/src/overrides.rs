//! Longest-prefix lookup over a bounded set of networks.
//!
//! One hash map per prefix length that occurs, tried from the longest: at most 33 or 129 probes, no tree to get
//! wrong. IPv4-mapped IPv6 addresses are looked up as IPv4.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// How many overrides a configuration may hold.
pub const OVERRIDES_MAX: usize = 65_536;

/// A map from networks to values that answers with the longest network that holds an address.
#[derive(Clone, Debug)]
pub struct LongestPrefix<T> {
    v4: Vec<(u8, HashMap<Ipv4Net, T>)>,
    v6: Vec<(u8, HashMap<Ipv6Net, T>)>,
}

impl<T> Default for LongestPrefix<T> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<T> LongestPrefix<T> {
    /// Adds a network; its host bits do not matter. The same network again replaces the value.
    pub fn insert(&mut self, network: IpNet, value: T) {
        match network {
            IpNet::V4(network) => insert_sorted(&mut self.v4, network.prefix_len(), network.trunc(), value),
            IpNet::V6(network) => insert_sorted(&mut self.v6, network.prefix_len(), network.trunc(), value),
        }
    }

    /// The longest network that holds `ip`, and its value.
    #[must_use]
    pub fn find(&self, ip: IpAddr) -> Option<(IpNet, &T)> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.iter().find_map(|(length, networks)| {
                let network = Ipv4Net::new(ip, *length).ok()?.trunc();
                networks.get(&network).map(|value| (IpNet::V4(network), value))
            }),
            IpAddr::V6(ip) => self.v6.iter().find_map(|(length, networks)| {
                let network = Ipv6Net::new(ip, *length).ok()?.trunc();
                networks.get(&network).map(|value| (IpNet::V6(network), value))
            }),
        }
    }
}

/// Keeps the lengths in falling order, so that the first hit is the longest.
fn insert_sorted<N: std::hash::Hash + Eq, T>(
    lengths: &mut Vec<(u8, HashMap<N, T>)>,
    length: u8,
    network: N,
    value: T,
) {
    let index = lengths.partition_point(|(other, _)| *other > length);
    if lengths.get(index).is_none_or(|(other, _)| *other != length) {
        lengths.insert(index, (length, HashMap::new()));
    }
    lengths[index].1.insert(network, value);
}
