//! Addresses of record and where they are: the location service of RFC 3261 section 10.3, with the flows of
//! RFC 5626 and the device addresses of RFC 5627.

mod gruu;

use std::sync::Arc;
use std::time::Duration;

use belfry_sip_proto::forking::Group;
use belfry_sip_proto::{Uri, escape_user};
use belfry_state::{Binding, Error, Expired};

use crate::core::Core;
use crate::edges::Hop;
use crate::exchange::{Destination, NextHop, TargetSet};
use crate::handle::{FlowToken, Target, Transport};
use crate::signals::BindingLoss;

pub(crate) use gruu::Gruus;

/// An address of record: a user of a domain of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aor {
    pub(crate) user: String,
    pub(crate) domain: String,
}

impl Aor {
    /// The address of record as a URI.
    pub(crate) fn uri(&self) -> String {
        format!("sip:{}@{}", escape_user(&self.user), self.domain)
    }

    /// The key in the location store.
    pub(crate) fn key(&self) -> String {
        format!("{}@{}", self.user, self.domain)
    }
}

/// Whom a Request-URI means: a customer, or one device of a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Called {
    /// The customer.
    pub(crate) aor: Aor,
    /// Which of the customer's devices (a GRUU, RFC 5627); all of them, without.
    pub(crate) instance: Option<String>,
}

/// One device of a customer. Its flows are alternatives: the next is tried when the one before is broken (430, or it
/// does not leave the edge), and never beside it, or the device would ring twice (RFC 5626 section 7).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Device {
    /// At least one, the one that was refreshed last first.
    pub(crate) flows: Vec<Arc<Binding>>,
}

impl Device {
    /// How to reach it: by its first flow, and by the others when that is broken.
    fn destination(&self) -> Option<Destination> {
        let mut flows = self.flows.iter().filter_map(|binding| destination_of(binding));
        let first = flows.next()?;
        Some(Destination { alternates: flows.collect(), ..first })
    }
}

impl Core {
    /// Whom a Request-URI means, when it is one of ours. A temporary GRUU whose registration is over means nobody.
    pub(crate) fn called_of(&self, uri: &Uri<'_>, now_unix_nanos: u64) -> Option<Called> {
        let aor = self.aor_of(uri)?;
        if !uri.is_gruu() {
            return Some(Called { aor, instance: None });
        }
        if let Some(instance) = uri.gruu_instance() {
            return Some(Called { aor, instance: Some(instance.into_owned()) });
        }
        let temporary = self.gruus.read(&aor.user)?;
        let (user, domain) =
            temporary.address.rsplit_once('@').filter(|(_, domain)| *domain == aor.domain)?;
        let aor = Aor { user: user.to_owned(), domain: domain.to_owned() };
        let is_live = self.bindings_of(&aor, now_unix_nanos).iter().any(|binding| temporary.is_of(binding));
        is_live.then(|| Called { aor, instance: Some(temporary.instance().to_owned()) })
    }

    /// Where a request may go: groups of devices, the most wanted group first. The devices of a group have the same q
    /// value and are tried at the same time (RFC 3261 section 16.6); the flows of a device never are. Empty when
    /// nobody is registered.
    pub(crate) fn devices_of(&self, called: &Called, now_unix_nanos: u64) -> Vec<Vec<Device>> {
        let mut bindings = self.bindings_of(&called.aor, now_unix_nanos);
        if let Some(instance) = &called.instance {
            bindings.retain(|binding| gruu::is_instance(binding, instance));
        }
        group(bindings)
    }

    /// The contact of the device that a GRUU names, for a request of a dialog that goes to this hop: the peer writes the
    /// GRUU into the Request-URI, and the phone wants to see its contact there (RFC 5627 section 5.3).
    pub(crate) fn contact_behind(&self, uri: &Uri<'_>, hop: &Hop, now_unix_nanos: u64) -> Option<String> {
        if !uri.is_gruu() {
            return None;
        }
        let called = self.called_of(uri, now_unix_nanos)?;
        let devices = self.devices_of(&called, now_unix_nanos);
        let flows: Vec<&Arc<Binding>> = devices.iter().flatten().flat_map(|device| &device.flows).collect();
        let is_there =
            |binding: &&&Arc<Binding>| destination_of(binding).is_some_and(|known| known.is_over(hop));
        let binding = flows.iter().find(is_there).or(flows.first())?;
        Some(binding.contact.reveal().clone())
    }

    /// The address of record that a URI means, when it is one of ours. A telephone number is a user of the first
    /// domain.
    pub(crate) fn aor_of(&self, uri: &Uri<'_>) -> Option<Aor> {
        let user = uri.user_unescaped().filter(|user| !user.is_empty())?.into_owned();
        let domain = if uri.is_sip() { self.domain_of(uri) } else { self.config.domains.first().cloned() };
        Some(Aor { user, domain: domain? })
    }

    /// Where an address of record is, most wanted first.
    pub(crate) fn bindings_of(&self, aor: &Aor, now_unix_nanos: u64) -> Vec<Arc<Binding>> {
        self.state.bindings().get(&aor.key(), now_unix_nanos)
    }

    /// Forgets what has run out.
    pub(crate) fn expire_bindings(&self, now_unix_nanos: u64) {
        self.state.bindings().expire(now_unix_nanos);
    }

    /// A flow of an edge is gone: nobody can be called over it any more (RFC 5626 section 5.3).
    pub(crate) fn on_flow_closed(&mut self, edge: &str, flow: &FlowToken) {
        let gone = self.state.bindings().flow_closed(&flow_key(edge, flow));
        self.bindings_lost(BindingLoss::FlowClosed, &gone);
    }

    /// Bindings were removed because their devices cannot be reached.
    pub(crate) fn bindings_lost(&self, loss: BindingLoss, gone: &[Expired]) {
        for Expired { address, binding } in gone {
            self.signals.customers.binding_lost(loss, address.reveal(), *binding.source.reveal());
        }
    }
}

/// Sorts bindings, the most wanted and youngest first, into groups of devices. A device is an instance with its
/// flows; a binding without an instance is a device of its own. A device stands where its most wanted flow stands.
fn group(bindings: Vec<Arc<Binding>>) -> Vec<Vec<Device>> {
    let mut groups: Vec<(u16, Vec<Device>)> = Vec::new();
    for binding in bindings {
        let is_same = |device: &Device| {
            let known = device.flows.first().and_then(|known| known.instance.as_deref());
            known.is_some_and(|known| gruu::is_instance(&binding, known))
        };
        let device = groups.iter_mut().flat_map(|(_, devices)| devices).find(|device| is_same(device));
        if let Some(device) = device {
            device.flows.push(binding);
            continue;
        }
        let q = binding.q_thousandths;
        let device = Device { flows: vec![binding] };
        match groups.last_mut() {
            Some((last, devices)) if *last == q => devices.push(device),
            _ => groups.push((q, vec![device])),
        }
    }
    for (_, devices) in &mut groups {
        for device in devices {
            device.flows.sort_by_key(|flow| std::cmp::Reverse(flow.updated_unix_nanos));
        }
    }
    groups.into_iter().map(|(_, devices)| devices).collect()
}

/// How to reach a binding: over the flow that it was registered on. One that nobody registered, as an operator may put
/// there for a device at a fixed address, is reached where its path or its contact says.
pub(crate) fn destination_of(binding: &Binding) -> Option<Destination> {
    let Some(flow) = binding.flow.as_deref() else {
        let contact = || NextHop::of_uri(&Uri::parse(binding.contact.reveal())?);
        let next_hop = binding.path.first().map_or_else(contact, |route| NextHop::of_route(route))?;
        let uri = Some(binding.contact.reveal().clone());
        return Some(Destination { uri, path: binding.path.clone(), ..Destination::next_hop(next_hop) });
    };
    let (edge, token) = flow.split_once('/')?;
    let hop = Hop {
        edge: edge.into(),
        target: Target::Flow(FlowToken(token.to_owned())),
        transport: Transport::from_uri_token(&binding.transport),
        peer: Some(*binding.source.reveal()),
    };
    let uri = Some(binding.contact.reveal().clone());
    Some(Destination { uri, path: binding.path.clone(), ..Destination::flow(hop) })
}

/// Whom a request for these devices goes to: those of one group at once (RFC 3261 section 16.6), and of the flows of a
/// device one after another (RFC 5626 section 5.3).
pub(crate) fn targets_of(groups: &[Vec<Device>], patience: Duration) -> TargetSet {
    let targets = groups.iter().map(|devices| devices.iter().filter_map(Device::destination).collect());
    let groups = targets.map(|targets| Group { patience: Some(patience), ..Group::new(targets) });
    groups.filter(|group| !group.targets.is_empty()).collect()
}

/// Whether the store refused for want of room and not for trouble of its own.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(error, Error::BindingsFull | Error::AddressFull | Error::QueueFull)
}

/// A flow in the location store: tokens are an edge's own, so the edge's name stands before it.
pub(crate) fn flow_key(edge: &str, flow: &FlowToken) -> String {
    format!("{edge}/{}", flow.0)
}
