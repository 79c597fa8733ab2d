//! Addresses of record and where they are: the registrar's view of the location store.

use std::sync::Arc;
use std::time::Duration;

use belfry_signal::Pii;
use belfry_sip_proto::forking::Group;
use belfry_sip_proto::{Contact, HeaderName, Uri};
use belfry_state::{Binding, Error};

use crate::core::Core;
use crate::edges::Hop;
use crate::exchange::{Destination, NextHop, TargetSet};
use crate::handle::{FlowToken, Target, Transport};
use crate::received::Received;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// An address of record: a user of a domain of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aor {
    pub(crate) user: String,
    pub(crate) domain: String,
}

impl Aor {
    /// The address of record as a URI.
    pub(crate) fn uri(&self) -> String {
        format!("sip:{}@{}", self.user, self.domain)
    }

    /// The key in the location store.
    pub(crate) fn key(&self) -> String {
        format!("{}@{}", self.user, self.domain)
    }
}

impl Core {
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
        self.state.bindings().flow_closed(&flow_key(edge, flow));
    }
}

/// What a Contact of a REGISTER would bind; `None` when it has no URI that can be called.
pub(crate) fn binding_of(
    request: &Received,
    contact: &Contact<'_>,
    expires_seconds: u32,
    now_unix_nanos: u64,
) -> Option<Binding> {
    let address = contact.address().filter(|address| address.uri.is_sip())?;
    let message = &request.message;
    let uri = address.uri.as_str().to_owned();
    let instance = address.params.get("+sip.instance").map(|param| param.text().into_owned());
    let reg_id = address.params.token("reg-id").and_then(|text| text.parse().ok());
    let key = match (&instance, reg_id) {
        (Some(instance), Some(reg_id)) => format!("{instance};{reg_id}"),
        _ => uri.clone(),
    };
    let path = message.headers(HeaderName::Path).map(|value| String::from_utf8_lossy(value).into_owned());
    Some(Binding {
        key,
        contact: Pii::new(uri),
        q_thousandths: contact.q_thousandths(),
        expires_unix_nanos: now_unix_nanos + u64::from(expires_seconds) * SECOND,
        path: path.collect(),
        flow: Some(flow_key(&request.edge, &request.flow)),
        transport: request.transport.uri_token().to_owned(),
        source: Pii::new(request.source),
        call_id: Pii::new(request.call_id().to_owned()),
        cseq: message.cseq().map_or(0, |cseq| cseq.number),
        instance,
        reg_id,
        user_agent: message.header_text(HeaderName::UserAgent).map(std::borrow::Cow::into_owned),
        region: request.region.clone(),
        country: request.country.clone(),
    })
}

/// The binding as the registrar shows it in a 200.
pub(crate) fn contact_value(binding: &Binding, now_unix_nanos: u64) -> String {
    let left = binding.expires_unix_nanos.saturating_sub(now_unix_nanos).div_ceil(SECOND);
    let mut value = format!("<{}>;expires={left}", binding.contact.reveal());
    if binding.q_thousandths < 1000 {
        value.push_str(&format!(";q={}.{:03}", binding.q_thousandths / 1000, binding.q_thousandths % 1000));
    }
    if let (Some(instance), Some(reg_id)) = (&binding.instance, binding.reg_id) {
        value.push_str(&format!(";+sip.instance=\"{instance}\";reg-id={reg_id}"));
    }
    value
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

/// Whom a request for these bindings goes to: those of one q value at once, most wanted first (RFC 3261 section
/// 16.6). Of the flows of one instance one after another is tried (RFC 5626 section 5.3). The store's order is the most
/// wanted first, and of those the one that registered last.
pub(crate) fn targets_of(bindings: &[Arc<Binding>], patience: Duration) -> TargetSet {
    let mut targets: TargetSet = Vec::new();
    let mut last_q = None;
    let mut instances: Vec<Option<&str>> = Vec::new();
    for binding in bindings {
        let Some(destination) = destination_of(binding) else { continue };
        let instance = binding.instance.as_deref().filter(|_| binding.reg_id.is_some());
        let group = match targets.last_mut().filter(|_| last_q == Some(binding.q_thousandths)) {
            Some(group) => group,
            None => {
                last_q = Some(binding.q_thousandths);
                targets.push(Group { patience: Some(patience), ..Group::new(Vec::new()) });
                instances.clear();
                let Some(group) = targets.last_mut() else { continue };
                group
            }
        };
        let same = instances.iter().position(|known| known.is_some() && *known == instance);
        match same.and_then(|index| group.targets.get_mut(index)) {
            Some(first) => first.alternates.push(destination),
            None => {
                instances.push(instance);
                group.targets.push(destination);
            }
        }
    }
    targets
}

/// Whether the store refused for want of room and not for trouble of its own.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(error, Error::BindingsFull | Error::AddressFull)
}

/// A flow in the location store: tokens are an edge's own, so the edge's name stands before it.
fn flow_key(edge: &str, flow: &FlowToken) -> String {
    format!("{edge}/{}", flow.0)
}
