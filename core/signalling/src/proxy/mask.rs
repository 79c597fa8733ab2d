//! Topology hiding: what a side of a call sees of the other one is us (RFC 7092, section 3 of RFC 5853).
//!
//! Three things are done to the messages of such a call. What comes is brought into the form that the core thinks in
//! (`Core::unmasked`, `Core::unmask_response`): the dialog as it would be if we only carried it on. What is carried on
//! leaves with our Via, Contact and tags only (`Core::masked_request`). And answers leave as whoever asked knows the
//! dialog (`Core::masked_answer`).

use std::sync::Arc;

use belfry_relay_api::Leg;
use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{Edit, HeaderName, Limits, OwnedMessage};

use crate::calls::hop_of;
use crate::calls::twin::{Twin, TwinDialog, address_with, tagged};
use crate::core::Core;
use crate::edges::Hop;
use crate::exchange::{CallKey, TargetSet};
use crate::received::Received;
use crate::signals::MethodName;

/// What came was within the configured limits; what we make of it grows only by what we know.
const OWN_LIMITS: Limits = Limits { message_bytes_max: 1 << 20, line_bytes_max: 1 << 18, headers_max: 4096 };

impl Core {
    /// A call is about to leave: does one of its destinations ask for hiding? Then it gets its twin.
    pub(super) fn mask(&mut self, id: TransactionId, targets: &TargetSet) {
        let Some(exchange) = self.exchanges.get(&id) else { return };
        let (Some(key), request) = (exchange.call.clone(), Arc::clone(&exchange.request)) else { return };
        let call = self.calls.get(&key).filter(|call| exchange.is_setup && call.twin.is_none());
        if call.is_some_and(|call| self.hides(call.whose.calling_trunk.as_deref(), targets)) {
            let twin = self.new_twin(&request);
            self.calls.set_twin(&key, twin);
        }
        let is_masked = self.calls.get(&key).is_some_and(|call| call.twin.is_some());
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.is_masked = is_masked;
        }
    }

    /// Whether either side of a call is one that is told nothing of the other.
    fn hides(&self, calling_trunk: Option<&str>, targets: &TargetSet) -> bool {
        let hiding = &self.config.hiding;
        let is_listed = |name: &str| hiding.trunks.iter().any(|known| known == "*" || known == name);
        let mut destinations = targets.iter().flat_map(|group| &group.targets);
        calling_trunk.is_some_and(is_listed)
            || destinations.any(|destination| match &destination.trunk {
                Some(way) => is_listed(&way.name),
                None => hiding.customers,
            })
    }

    fn new_twin(&self, request: &Received) -> Twin {
        let call_id = format!("{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>());
        let tag = format!("{:016x}", rand::random::<u64>());
        let message = &request.message;
        let from = message.header_text(HeaderName::From).unwrap_or_default();
        let local = match message.from() {
            // RFC 3323 section 5.3: who asks for it has no name on the other side.
            Some(_) if wants_no_name(message) => {
                address_with("Anonymous", "sip:anonymous@anonymous.invalid", Some(&tag))
            }
            Some(address) if self.domain_of(&address.uri).is_none() && address.uri.is_sip() => {
                // Another network's address tells its insides; its number is enough.
                let domain = self.config.domains.first().map_or("localhost", String::as_str);
                let uri = match address.uri.user() {
                    Some(user) => format!("sip:{user}@{domain}"),
                    None => format!("sip:{domain}"),
                };
                address_with(&address.display(), &uri, Some(&tag))
            }
            _ => tagged(&from, Some(&tag)),
        };
        let remote = tagged(&message.header_text(HeaderName::To).unwrap_or_default(), None);
        Twin::new(call_id, local, remote)
    }

    /// The To tag that a caller sees in place of the called side's.
    pub(super) fn shown_tag(&self, call_id: &str, tag: &str) -> String {
        format!("{:016x}", self.hash(("shown tag", call_id, tag)))
    }

    /// A request, as the core thinks of it.
    pub(super) fn unmasked(&self, request: Received) -> Received {
        if self.calls.twins().is_empty() || request.fault.is_some() {
            return request;
        }
        let bytes = match self.calls.twins().call_of(request.call_id()).cloned() {
            Some(key) => self.unmasked_callee(&request, &key),
            None => self.unmasked_caller(&request),
        };
        let Some(message) = bytes.and_then(|bytes| OwnedMessage::scan(bytes, &OWN_LIMITS).0) else {
            return request;
        };
        let trace_id = self.trace_key.trace_of_call(message.call_id().unwrap_or_default());
        Received { original: Some(Box::new(request.message)), message, trace_id, ..request }
    }

    /// The caller's request: it goes where its To tag says.
    fn unmasked_caller(&self, request: &Received) -> Option<Vec<u8>> {
        let call = self.calls.get(request.call_id()).filter(|call| call.twin.is_some())?;
        let (contact, routes, hop) = call.target_shown_as(request.message.to_tag()?)?;
        let caller = call.caller.hop.clone()?;
        let ours = [(&caller, Leg::Caller), (&hop, Leg::Callee)];
        Some(self.aimed(&request.message, contact?, &routes, ours, &call.key).finish())
    }

    /// The called side's request: its dialog is the caller's.
    fn unmasked_callee(&self, request: &Received, key: &CallKey) -> Option<Vec<u8>> {
        let message = &request.message;
        let call = self.calls.get(key)?;
        let twin = call.twin.as_ref()?;
        let callee = call.callee.hop.clone().unwrap_or_else(|| hop_of(request));
        let caller = call.caller.hop.clone()?;
        let ours = [(&callee, Leg::Callee), (&caller, Leg::Caller)];
        let shown = self.shown_tag(key, message.from_tag()?);
        // Only a dialog that it opened is one.
        twin.shown_as(&shown)?;
        let remote = tagged(&call.callee.address, Some(&shown));
        let contact = call.caller.contact.clone()?;
        let edit = self.aimed(message, contact, &call.caller.routes, ours, key);
        let edit = edit.set(HeaderName::CallId, key).set(HeaderName::From, &remote);
        Some(edit.set(HeaderName::To, &call.caller.address).finish())
    }

    /// A request of a dialog with the target and the Route that it would have if we were no more than a proxy.
    fn aimed<'m>(
        &self,
        message: &'m OwnedMessage,
        contact: String,
        routes: &[String],
        ours: [(&Hop, Leg); 2],
        key: &CallKey,
    ) -> Edit<'m> {
        let own = ours.into_iter().filter_map(|(hop, leg)| self.route_of(hop, leg, key, 0));
        let all: Vec<String> = own.chain(routes.iter().cloned()).collect();
        Edit::new(message).set_request_uri(&contact).set(HeaderName::Route, &all.join(", "))
    }

    /// A response, as the core thinks of it: the answer to the request that came, by way of us.
    pub(super) fn unmask_response(&mut self, id: TransactionId, response: Received) -> Received {
        let Some(branch) = self.branches.get(&id) else { return response };
        let way = Arc::clone(&branch.way);
        let exchange = branch.exchange.and_then(|exchange| self.exchanges.get(&exchange));
        let is_other = response.call_id() != &*way.call_id;
        if !is_other && !exchange.is_some_and(|exchange| exchange.is_masked) {
            return response;
        }
        let request = exchange.map(|exchange| Arc::clone(&exchange.request));
        let message = &response.message;
        let shown = message.to_tag().filter(|_| is_other).map(|tag| self.shown_tag(&way.call_id, tag));
        let mut edit = Edit::new(message).set(HeaderName::CallId, &way.call_id);
        let to = match &request {
            Some(request) => request.message.header_text(HeaderName::To).unwrap_or_default(),
            None => message.header_text(HeaderName::To).unwrap_or_default(),
        };
        let has_tag = request.as_ref().is_some_and(|request| request.is_in_dialog());
        if let (Some(shown), false) = (&shown, has_tag) {
            edit = edit.set(HeaderName::To, &tagged(&to, Some(shown)));
        } else if has_tag {
            edit = edit.set(HeaderName::To, &to);
        }
        if let Some(request) = &request {
            edit = edit
                .set(HeaderName::From, &request.message.header_text(HeaderName::From).unwrap_or_default());
            edit = edit
                .set(HeaderName::Via, &joined(message.headers(HeaderName::Via).take(1), &request.message));
            if is_dialog_forming(request, message.status()) {
                edit = self.with_routes(edit, &response, request);
            }
        }
        if let (Some(request), Some(shown)) = (&request, shown)
            && is_dialog_forming(request, message.status())
        {
            self.learn_twin_dialog(&way.call_id, shown, &response);
        }
        let Some(message) = OwnedMessage::scan(edit.finish(), &OWN_LIMITS).0 else { return response };
        let original = Some(Box::new(response.message.clone()));
        Received { original, message, trace_id: way.trace_id, ..response }
    }

    /// The Record-Route that a response would have: theirs, ours, and those between us and the caller.
    fn with_routes<'m>(&self, edit: Edit<'m>, response: &'m Received, request: &Received) -> Edit<'m> {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let ours = [(hop_of(response), Leg::Callee), (hop_of(request), Leg::Caller)];
        let ours = ours.into_iter().filter_map(|(hop, leg)| self.route_of(&hop, leg, request.call_id(), 0));
        let theirs = response.message.headers(HeaderName::RecordRoute).map(text);
        let before = request.message.headers(HeaderName::RecordRoute).map(text);
        let all: Vec<String> = theirs.chain(ours).chain(before).collect();
        edit.set(HeaderName::RecordRoute, &all.join(", "))
    }

    fn learn_twin_dialog(&mut self, call_id: &str, shown: String, response: &Received) {
        let message = &response.message;
        let contact = message.contacts().next();
        let contact = contact.as_ref().and_then(|contact| contact.address());
        let mut routes: Vec<String> = message
            .headers(HeaderName::RecordRoute)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect();
        routes.reverse();
        let dialog = TwinDialog {
            tag: message.to_tag().unwrap_or_default().into(),
            shown: shown.into(),
            contact: contact.map(|address| address.uri.as_str().to_owned()),
            routes,
            hop: hop_of(response),
        };
        if let Some(twin) = self.calls.get_mut(call_id).and_then(|call| call.twin.as_mut()) {
            twin.learn(dialog);
        }
    }

    /// A request of a call with a twin, as its other side gets it: our Via, our Contact, its own dialog. `None` for
    /// all other requests.
    pub(super) fn masked_request<'m>(
        &self,
        edit: Edit<'m>,
        request: &'m Received,
        hop: &Hop,
        via: &str,
    ) -> Option<Edit<'m>> {
        let message = &request.message;
        let call = self.calls.get(message.call_id()?)?;
        let twin = call.twin.as_ref()?;
        let to = if request.is_in_dialog() { call.leg_of(message)?.other() } else { Leg::Callee };
        let mut edit = edit.set(HeaderName::Via, via).remove(HeaderName::RecordRoute);
        if message.header(HeaderName::Contact).is_some() {
            edit = edit.set(HeaderName::Contact, &self.our_contact(hop, &call.key)?);
        }
        edit = self.without_private(edit, message);
        if to == Leg::Caller {
            return Some(edit);
        }
        let edit = edit.set(HeaderName::CallId, &twin.call_id).set(HeaderName::From, &twin.local);
        Some(edit.set(HeaderName::To, &twin.remote_with(message.to_tag())))
    }

    /// An answer on its way to whoever asked, as it knows the dialog.
    pub(super) fn masked_answer(&self, id: TransactionId, bytes: Vec<u8>) -> Vec<u8> {
        let Some(exchange) = self.exchanges.get(&id).filter(|exchange| exchange.is_masked) else {
            return bytes;
        };
        let request = &exchange.request;
        let Some(message) = OwnedMessage::scan(bytes.clone(), &OWN_LIMITS).0 else { return bytes };
        let mut edit = Edit::new(&message);
        let is_callee =
            request.original.as_ref().is_some_and(|original| original.call_id() != request.message.call_id());
        if let Some(original) = request.original.as_deref().filter(|_| is_callee) {
            for name in [HeaderName::CallId, HeaderName::From, HeaderName::To] {
                edit = edit.set(name, &original.header_text(name).unwrap_or_default());
            }
        }
        let before: Vec<String> = request
            .message
            .headers(HeaderName::RecordRoute)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect();
        edit = match before.is_empty() || message.header(HeaderName::RecordRoute).is_none() {
            true => edit.remove(HeaderName::RecordRoute),
            false => edit.set(HeaderName::RecordRoute, &before.join(", ")),
        };
        let is_target = message.status().is_some_and(|status| (101..300).contains(&status));
        if is_target
            && message.header(HeaderName::Contact).is_some()
            && let Some(contact) = self.our_contact(&hop_of(request), request.call_id())
        {
            edit = edit.set(HeaderName::Contact, &contact);
        }
        self.without_private(edit, &message).finish()
    }

    /// Takes off what tells about a phone or a network and is nobody else's business.
    fn without_private<'m>(&self, edit: Edit<'m>, message: &'m OwnedMessage) -> Edit<'m> {
        let hiding = &self.config.hiding;
        let is_named = |names: &[String], name: &str| names.iter().any(|n| n.eq_ignore_ascii_case(name));
        message.fields().fold(edit, |edit, field| {
            let is_kept = hiding.keep_headers.is_empty() || is_named(&hiding.keep_headers, field.name);
            let is_removed = is_named(&hiding.remove_headers, field.name);
            match field.id {
                HeaderName::Other if is_removed || !is_kept => edit.remove_extension(field.name),
                known
                    if is_removed
                        && known != HeaderName::Other
                        && !super::prepare::is_ours_to_write(known) =>
                {
                    edit.remove(known)
                }
                _ => edit,
            }
        })
    }

    /// Where a side of a call with a twin finds its other side: here.
    fn our_contact(&self, hop: &Hop, call_id: &str) -> Option<String> {
        let address = self.edges.address(&hop.edge, hop.transport)?;
        let user = format!("{:016x}", self.hash(("contact", call_id, hop.transport)));
        let (host, port) = (&address.host, address.port);
        Some(format!("<sip:{user}@{host}:{port};transport={}>", hop.transport.uri_token()))
    }
}

/// Whether a response may open a dialog.
fn is_dialog_forming(request: &Received, status: Option<u16>) -> bool {
    let is_forming = status.is_some_and(|status| (101..300).contains(&status));
    request.method == MethodName::Invite && !request.is_in_dialog() && is_forming
}

/// The top Via of a response, and below it those of the request that it answers.
fn joined<'a>(top: impl Iterator<Item = &'a [u8]>, request: &'a OwnedMessage) -> String {
    let below = request.headers(HeaderName::Via);
    let all = top.chain(below).map(|value| String::from_utf8_lossy(value).into_owned());
    all.collect::<Vec<String>>().join(", ")
}

/// Whether a caller asks that its name be hidden.
fn wants_no_name(message: &OwnedMessage) -> bool {
    let wishes = message.header_text(HeaderName::Privacy).unwrap_or_default().to_ascii_lowercase();
    wishes.split([';', ',']).any(|wish| matches!(wish.trim(), "user" | "header"))
}
