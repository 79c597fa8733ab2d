//! Redirection by a trunk (RFC 3261 section 16.7 step 4): as many of the places that its 3xx names as its plan allows are
//! tried in its stead. Without that the answer goes back to the caller, who may follow it.

use std::sync::Arc;
use std::time::Duration;

use belfry_sip_proto::Uri;
use belfry_sip_proto::forking::{Advance, BranchIndex, Group, StatusSet};
use belfry_sip_proto::transaction::TransactionId;

use crate::core::{Core, now};
use crate::exchange::{Destination, NextHop, Policy, TrunkWay};
use crate::received::Received;
use crate::signals::Decision;

impl Core {
    /// Goes where a trunk's 3xx leads, most wanted first; false when the plan does not want that, or nothing new is named.
    pub(super) fn follow_redirect(
        &mut self,
        id: TransactionId,
        branch: BranchIndex,
        response: &Received,
    ) -> bool {
        let Some(known) = self.try_of(id, branch) else { return false };
        let destination = Arc::clone(&known.destination);
        let Some(way) = destination.trunk.clone() else { return false };
        let routes = Arc::clone(&self.routes);
        let Some(trunk) = routes.table.trunk_named(&way.name) else { return false };
        let left = match self.forward_of(id) {
            Some(forward) => trunk.redirects_max.saturating_sub(forward.redirects),
            None => 0,
        };
        let uris = self.places_named(id, response, usize::from(left));
        if uris.is_empty() {
            return false;
        }
        let count = u8::try_from(uris.len()).unwrap_or(u8::MAX);
        let groups: Vec<_> = uris
            .iter()
            .filter_map(|uri| redirected(uri, &destination, &way, trunk))
            .map(|destination| Group {
                advance: Advance::On(StatusSet::of(&trunk.failover_codes)),
                silence: Some(Duration::from_secs(trunk.response_timeout_seconds.into())),
                ..Group::new(vec![destination])
            })
            .collect();
        if groups.is_empty() {
            return false;
        }
        let Some(forward) = self.forward_of(id) else { return false };
        if !forward.context.on_redirect(branch, groups, now()) {
            return false;
        }
        forward.redirects = forward.redirects.saturating_add(count);
        if !way.is_redirected {
            self.gateways.quiet.heard(&way.name, way.gateway);
        }
        self.decided(id, Decision::FailOver, "redirected");
        self.act(id);
        self.tell_lost_dialogs(id, branch, response.message.status().unwrap_or_default());
        true
    }

    /// The URIs in a 3xx that were not tried yet and do not lead back to us, by q value.
    fn places_named(&mut self, id: TransactionId, response: &Received, count_max: usize) -> Vec<String> {
        let mut named: Vec<(u16, String)> = Vec::new();
        for contact in response.message.contacts() {
            let Some(address) = contact.address() else { continue };
            let uri = &address.uri;
            let is_ours = self.domain_of(uri).is_some() || self.edges.is_ours(uri);
            let text = uri.as_str().split('?').next().unwrap_or_default().to_owned();
            if uri.is_sip() && !is_ours && !named.iter().any(|(_, known)| *known == text) {
                named.push((contact.q_thousandths(), text));
            }
        }
        // A stable sort: those of one value stay in the order in which they were named.
        named.sort_by_key(|(q, _)| std::cmp::Reverse(*q));
        let Some(forward) = self.forward_of(id) else { return Vec::new() };
        let is_tried =
            |text: &String| forward.tries.iter().any(|known| known.destination.uri.as_ref() == Some(text));
        named.into_iter().map(|(_, text)| text).filter(|text| !is_tried(text)).take(count_max).collect()
    }
}

/// A place that a trunk named, to be tried as the trunk would have been. None for another number than the one that was
/// decided on, priced and allowed: a callee could have us dial anything. Our credentials and what we say of the caller
/// are for the trunk's own gateways, to which no `maddr` leads.
fn redirected(
    text: &str,
    from: &Destination,
    way: &TrunkWay,
    trunk: &belfry_routing::TrunkEntry,
) -> Option<Destination> {
    let uri = Uri::parse(text)?;
    let next_hop = NextHop::of_uri(&uri)?;
    let asked = from.uri.as_deref().and_then(Uri::parse);
    let is_same_user = asked.is_some_and(|asked| asked.user() == uri.user());
    let is_number =
        uri.user().is_some_and(|user| user.starts_with(|first: char| first == '+' || first.is_ascii_digit()));
    if is_number && !is_same_user {
        return None;
    }
    let has_other_address = text.to_ascii_lowercase().contains(";maddr=");
    let is_gateway = !has_other_address
        && trunk.gateways.iter().any(|gateway| {
            let known = gateway.uri();
            Uri::parse(&known).is_some_and(|known| known.host().eq_ignore_ascii_case(uri.host()))
        });
    let policy = from.policy.as_deref().map(|policy| {
        let credentials = policy.credentials.clone().filter(|_| is_gateway && is_same_user);
        let add = if is_gateway { policy.add.clone() } else { Vec::new() };
        Arc::new(Policy { credentials, add, ..policy.clone() })
    });
    let trunk = Some(TrunkWay { is_redirected: true, ..way.clone() });
    Some(Destination { uri: Some(text.to_owned()), policy, trunk, ..Destination::next_hop(next_hop) })
}
