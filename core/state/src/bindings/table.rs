//! The table in memory: by address, by time of expiry, by flow. No files here.
//!
//! A binding is kept as the bytes that the journal gets, and unpacked when somebody asks: a third of the memory of
//! its parts, and the journal and the snapshot copy instead of encoding again.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::{Binding, Change};
use crate::error::Error;

/// A binding as postcard bytes; its first field is its key.
pub(super) type Packed = Arc<[u8]>;

/// No slot.
const NONE: u32 = u32::MAX;

/// All bindings. Slots keep their number while their binding lives.
pub(super) struct Table {
    bindings_max: usize,
    per_address_max: usize,
    len: usize,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// The first slot of each address; the others hang on it.
    addresses: HashMap<Arc<str>, u32>,
    by_expiry: BTreeSet<(u64, u32)>,
    by_flow: BTreeSet<(u64, u32)>,
    /// How many bindings came from each network, by its hash.
    networks: HashMap<u64, u32>,
    hasher: RandomState,
    /// Bindings that want keep-alives.
    kept_alive: usize,
    /// Where the next round of keep-alives begins.
    round_at: usize,
}

struct Slot {
    address: Arc<str>,
    packed: Packed,
    expires_unix_nanos: u64,
    /// A hash of the flow; 0 when there is none.
    flow: u64,
    /// A hash of the network that it came from.
    network: u64,
    next: u32,
    wants_keepalive: bool,
    /// Whether a keep-alive was ever answered: from whoever never does, silence means nothing.
    has_answered: bool,
    unanswered: u8,
}

/// A binding whose turn it is to be kept alive.
pub(super) struct Turn {
    pub(super) slot: u32,
    pub(super) address: Arc<str>,
    pub(super) packed: Packed,
    /// Whether so many of the last ones went unanswered that nobody can be there.
    pub(super) is_lost: bool,
}

/// Customers get whole IPv6 /64s: an address of it is no more than a number that its owner chose.
#[must_use]
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// One binding less of a network.
fn leave(networks: &mut HashMap<u64, u32>, network: u64) {
    if let Some(count) = networks.get_mut(&network) {
        *count -= 1;
        if *count == 0 {
            networks.remove(&network);
        }
    }
}

/// Packs a binding.
pub(super) fn pack(binding: &Binding) -> Option<Packed> {
    postcard::to_stdvec(binding).ok().map(Packed::from)
}

/// Unpacks a binding; none when the bytes are not one.
pub(super) fn unpack(packed: &[u8]) -> Option<Binding> {
    postcard::from_bytes(packed).ok()
}

/// The key of a packed binding, without unpacking the rest.
pub(super) fn key_of(packed: &[u8]) -> &str {
    postcard::take_from_bytes(packed).map_or("", |(key, _)| key)
}

impl Table {
    pub(super) fn new(bindings_max: usize, per_address_max: usize) -> Self {
        Self {
            bindings_max,
            per_address_max,
            len: 0,
            slots: Vec::new(),
            free: Vec::new(),
            addresses: HashMap::new(),
            by_expiry: BTreeSet::new(),
            by_flow: BTreeSet::new(),
            networks: HashMap::new(),
            hasher: RandomState::new(),
            kept_alive: 0,
            round_at: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many want keep-alives.
    pub(super) fn kept_alive(&self) -> usize {
        self.kept_alive
    }

    /// The bindings of an address that can be unpacked, which is all of them.
    pub(super) fn get(&self, address: &str) -> Vec<Binding> {
        self.chain(address).filter_map(|(_, slot)| unpack(&slot.packed)).collect()
    }

    /// The packed binding with this key.
    pub(super) fn packed(&self, address: &str, key: &str) -> Option<&Packed> {
        self.find(address, key).and_then(|at| self.slot(at)).map(|slot| &slot.packed)
    }

    /// Whether there is room for all of these changes; a refresh always has it.
    pub(super) fn room_for(&self, address: &str, changes: &[Change]) -> Result<(), Error> {
        let known = |key: &str| self.find(address, key).is_some();
        let (mut added, mut removed) = (0, 0);
        for change in changes {
            match change {
                Change::Put(binding) => added += usize::from(!known(&binding.key)),
                Change::Remove(key) => removed += usize::from(known(key)),
            }
        }
        if added == 0 {
            return Ok(());
        }
        if (self.chain(address).count() + added).saturating_sub(removed) > self.per_address_max {
            return Err(Error::AddressFull);
        }
        let total = (self.len + added).saturating_sub(removed);
        if total > self.bindings_max || total >= NONE as usize { Err(Error::BindingsFull) } else { Ok(()) }
    }

    /// Adds a binding or replaces the one with its key; gives what was there before.
    pub(super) fn put(&mut self, address: Arc<str>, binding: &Binding, packed: Packed) -> Option<Packed> {
        let flow = binding.flow.as_deref().map_or(0, |flow| self.flow_hash(flow));
        let known = self.find(&address, &binding.key);
        let mut slot = Slot {
            address,
            packed,
            expires_unix_nanos: binding.expires_unix_nanos,
            flow,
            network: self.hasher.hash_one(network_of(binding.source.reveal().ip())),
            next: NONE,
            wants_keepalive: binding.wants_keepalive,
            has_answered: false,
            unanswered: 0,
        };
        self.kept_alive += usize::from(slot.wants_keepalive);
        *self.networks.entry(slot.network).or_default() += 1;
        if let Some(at) = known {
            let known = self.slots.get_mut(at as usize)?.as_mut()?;
            (slot.next, slot.has_answered) = (known.next, known.has_answered);
            let before = std::mem::replace(known, slot);
            self.kept_alive -= usize::from(before.wants_keepalive);
            leave(&mut self.networks, before.network);
            // A refresh comes over the flow of before.
            self.by_expiry.remove(&(before.expires_unix_nanos, at));
            self.by_expiry.insert((binding.expires_unix_nanos, at));
            if before.flow != flow {
                self.by_flow.remove(&(before.flow, at));
                self.by_flow.extend((flow != 0).then_some((flow, at)));
            }
            return Some(before.packed);
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // `room_for` keeps the number of slots below `NONE`.
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
        });
        slot.next = self.addresses.insert(Arc::clone(&slot.address), at).unwrap_or(NONE);
        if let Some(place) = self.slots.get_mut(at as usize) {
            *place = Some(slot);
        }
        self.by_expiry.insert((binding.expires_unix_nanos, at));
        self.by_flow.extend((flow != 0).then_some((flow, at)));
        self.len += 1;
        None
    }

    /// Removes a binding; gives what it was.
    pub(super) fn remove(&mut self, address: &str, key: &str) -> Option<Packed> {
        let at = self.find(address, key)?;
        self.take(at).map(|slot| slot.packed)
    }

    /// Removes what has run out.
    pub(super) fn expire(&mut self, now_unix_nanos: u64) -> Vec<(Arc<str>, Packed)> {
        let mut expired = Vec::new();
        while let Some(&(at, slot)) = self.by_expiry.first() {
            if at > now_unix_nanos {
                break;
            }
            let Some(slot) = self.take(slot) else { break };
            expired.push((slot.address, slot.packed));
        }
        expired
    }

    /// The bindings of a flow.
    pub(super) fn of_flow(&self, flow: &str) -> Vec<(Arc<str>, Packed)> {
        let hash = self.flow_hash(flow);
        let places = self.by_flow.range((hash, 0)..=(hash, NONE));
        let slots = places.filter_map(|(_, at)| self.slot(*at));
        // Two flows may share a hash.
        let is_meant =
            |slot: &&Slot| unpack(&slot.packed).is_some_and(|binding| binding.flow.as_deref() == Some(flow));
        slots.filter(is_meant).map(|slot| (Arc::clone(&slot.address), Arc::clone(&slot.packed))).collect()
    }

    /// Whether a binding came from this network. Two networks may share a hash.
    pub(super) fn has_network(&self, network: IpAddr) -> bool {
        self.networks.contains_key(&self.hasher.hash_one(network))
    }

    /// The bindings in the slots from this one on, and where to go on; the bindings are shared, not copied.
    pub(super) fn entries(&self, from: usize, slots: usize) -> (Vec<(Arc<str>, Packed)>, Option<usize>) {
        let end = from.saturating_add(slots).min(self.slots.len());
        let some = self.slots.get(from..end).unwrap_or_default().iter().flatten();
        let entries = some.map(|slot| (Arc::clone(&slot.address), Arc::clone(&slot.packed))).collect();
        (entries, (end < self.slots.len()).then_some(end))
    }

    /// The next bindings whose turn it is to be kept alive, at most so many, each at most once.
    pub(super) fn turns(&mut self, turns_max: usize, unanswered_max: u8) -> Vec<Turn> {
        let mut turns = Vec::new();
        for _ in 0..self.slots.len() {
            if turns.len() >= turns_max {
                break;
            }
            self.round_at = (self.round_at + 1) % self.slots.len();
            let Some(slot) = self.slots.get_mut(self.round_at).and_then(Option::as_mut) else { continue };
            if !slot.wants_keepalive {
                continue;
            }
            let is_lost = slot.has_answered && slot.unanswered >= unanswered_max;
            slot.unanswered = slot.unanswered.saturating_add(1);
            turns.push(Turn {
                slot: u32::try_from(self.round_at).unwrap_or(NONE),
                address: Arc::clone(&slot.address),
                packed: Arc::clone(&slot.packed),
                is_lost,
            });
        }
        turns
    }

    /// Somebody at the other end of a slot's flow answered.
    pub(super) fn answered(&mut self, slot: u32) {
        if let Some(slot) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
            (slot.has_answered, slot.unanswered) = (true, 0);
        }
    }

    /// A slot's turn came, and nobody was asked: that is no silence.
    pub(super) fn not_asked(&mut self, slot: u32) {
        if let Some(slot) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) {
            slot.unanswered = slot.unanswered.saturating_sub(1);
        }
    }

    fn slot(&self, at: u32) -> Option<&Slot> {
        self.slots.get(at as usize)?.as_ref()
    }

    fn chain(&self, address: &str) -> impl Iterator<Item = (u32, &Slot)> {
        let mut at = self.addresses.get(address).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let slot = self.slot(at)?;
            Some((std::mem::replace(&mut at, slot.next), slot))
        })
    }

    fn find(&self, address: &str, key: &str) -> Option<u32> {
        self.chain(address).find(|(_, slot)| key_of(&slot.packed) == key).map(|(at, _)| at)
    }

    /// The address as the table has it, or a new one.
    pub(super) fn shared_address(&self, address: &str) -> Arc<str> {
        self.addresses.get_key_value(address).map_or_else(|| address.into(), |(known, _)| Arc::clone(known))
    }

    fn flow_hash(&self, flow: &str) -> u64 {
        self.hasher.hash_one(flow).max(1)
    }

    fn unlist(&mut self, at: u32, slot: &Slot) {
        self.by_expiry.remove(&(slot.expires_unix_nanos, at));
        self.by_flow.remove(&(slot.flow, at));
        self.kept_alive -= usize::from(slot.wants_keepalive);
        leave(&mut self.networks, slot.network);
    }

    fn take(&mut self, at: u32) -> Option<Slot> {
        let slot = self.slots.get_mut(at as usize)?.take()?;
        self.unlist(at, &slot);
        match self.addresses.get_mut(&slot.address) {
            Some(first) if *first == at && slot.next == NONE => {
                self.addresses.remove(&slot.address);
            }
            Some(first) if *first == at => *first = slot.next,
            _ => {
                let before = self.chain(&slot.address).find(|(_, other)| other.next == at).map(|(at, _)| at);
                let before = before.and_then(|before| self.slots.get_mut(before as usize)?.as_mut());
                if let Some(before) = before {
                    before.next = slot.next;
                }
            }
        }
        self.free.push(at);
        self.len -= 1;
        Some(slot)
    }
}
