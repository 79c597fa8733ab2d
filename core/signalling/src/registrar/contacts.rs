//! What a REGISTER asks for (RFC 3261 section 10.3 steps 6 and 7, RFC 5626 section 6, RFC 5627 section 5): from its
//! Contact headers and the present bindings to a list of changes, all of them or none.
//!
//! No store, no answer, no clock: present bindings and the time are arguments.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use belfry_signal::Pii;
use belfry_sip_proto::{Contact, HeaderName, NameAddr, Uri};
use belfry_state::{Binding, Change};

use crate::config::Config;
use crate::handle::Transport;
use crate::location::Aor;
use crate::received::Received;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// Of a User-Agent, so much is kept for those who look at bindings.
const USER_AGENT_CHARS_MAX: usize = 64;

/// What a REGISTER asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Wanted {
    /// Which contacts there are.
    Fetch,
    /// These changes.
    Changes {
        changes: Vec<Change>,
        /// Whether nothing is added or refreshed.
        is_removal: bool,
        /// Whether one of them is a flow of RFC 5626.
        is_outbound: bool,
    },
}

/// Why nothing is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 400: the Contact headers make no sense.
    BadContacts,
    /// 423: shorter than we allow.
    TooBrief,
    /// 500: an older request of the same registration than the last one (step 7).
    OutOfOrder,
    /// 403: a contact that means its own address of record would be called in circles.
    Circle,
    /// 403: more contacts than an address may have.
    TooMany,
    /// 403: a contact with more bytes than we keep.
    TooLarge,
    /// 439: the first proxy on the way does not know RFC 5626.
    FirstHop,
}

impl Refusal {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::BadContacts => 400,
            Self::Circle | Self::TooMany | Self::TooLarge => 403,
            Self::TooBrief => 423,
            Self::FirstHop => 439,
            Self::OutOfOrder => 500,
        }
    }
}

/// Where a REGISTER came from, as its bindings remember it.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The flow to the phone, or to the first proxy before it.
    pub(super) flow: String,
    pub(super) transport: Transport,
    /// What is left of Path behind the flow, top first.
    pub(super) path: Vec<String>,
}

/// One REGISTER against what is there.
pub(super) struct Ask<'a> {
    pub(super) request: &'a Received,
    pub(super) aor: &'a Aor,
    pub(super) origin: &'a Origin,
    pub(super) present: &'a [Arc<Binding>],
    pub(super) config: &'a Config,
    pub(super) now_unix_nanos: u64,
}

impl Ask<'_> {
    /// What is asked for.
    pub(super) fn wanted(&self) -> Result<Wanted, Refusal> {
        let message = &self.request.message;
        let contacts: Vec<Contact<'_>> = message.contacts().collect();
        if contacts.is_empty() {
            return Ok(Wanted::Fetch);
        }
        if contacts.iter().any(|contact| matches!(contact, Contact::Star)) {
            // Only ever alone, and only to remove (section 10.2.2).
            let is_plain = contacts.len() == 1 && message.expires_seconds() == Some(0);
            return if is_plain { self.remove_all() } else { Err(Refusal::BadContacts) };
        }
        let is_outbound = self.is_outbound(&contacts)?;
        let mut changes = Vec::with_capacity(contacts.len());
        let mut known: Vec<(String, String)> =
            self.present.iter().map(|one| (one.contact.reveal().clone(), one.key.clone())).collect();
        for contact in &contacts {
            let address = contact.address().filter(|address| address.uri.is_sip());
            let address = address.ok_or(Refusal::BadContacts)?;
            let expires = self.expires_seconds(contact)?;
            let change = self.change(contact, address, expires, is_outbound, &mut known)?;
            // The last word about a contact counts.
            changes.retain(|other| key_of(other) != key_of(&change));
            changes.push(change);
        }
        self.check_room(&changes)?;
        let is_removal = changes.iter().all(|change| matches!(change, Change::Remove(_)));
        Ok(Wanted::Changes { changes, is_removal, is_outbound })
    }

    fn remove_all(&self) -> Result<Wanted, Refusal> {
        if self.present.iter().any(|known| self.is_out_of_order(known)) {
            return Err(Refusal::OutOfOrder);
        }
        let changes = self.present.iter().map(|known| Change::Remove(known.key.clone())).collect();
        Ok(Wanted::Changes { changes, is_removal: true, is_outbound: false })
    }

    /// Whether the flows of RFC 5626 section 6 apply to this request: it asks for them, and the first proxy on the way
    /// is we, or has said in its Path that it can.
    fn is_outbound(&self, contacts: &[Contact<'_>]) -> Result<bool, Refusal> {
        let message = &self.request.message;
        let asked: Vec<_> = contacts.iter().filter(|contact| flow_of(contact).is_some()).collect();
        if asked.is_empty() || !message.has_token(HeaderName::Supported, "outbound") {
            return Ok(false);
        }
        let is_first_hop = message.headers(HeaderName::Via).count() == 1;
        // The proxy nearest to the phone put its Path in first, so it stands last.
        let first_path = message.headers(HeaderName::Path).last().and_then(NameAddr::parse);
        if !is_first_hop && first_path.is_none_or(|path| path.uri.param("ob").is_none()) {
            return Err(Refusal::FirstHop);
        }
        let is_lasting = |contact: &&Contact<'_>| self.expires_seconds(contact) != Ok(0);
        if contacts.iter().filter(is_lasting).count() > 1 {
            return Err(Refusal::BadContacts);
        }
        Ok(true)
    }

    /// How long a contact is to last; 0 removes it.
    fn expires_seconds(&self, contact: &Contact<'_>) -> Result<u32, Refusal> {
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let asked = contact.expires_seconds().or(self.request.message.expires_seconds());
        let asked = asked.unwrap_or_else(|| seconds(self.config.expires_default));
        if asked != 0 && asked < seconds(self.config.expires_min) {
            return Err(Refusal::TooBrief);
        }
        Ok(asked.min(seconds(self.config.expires_max)))
    }

    fn change(
        &self,
        contact: &Contact<'_>,
        address: &NameAddr<'_>,
        expires_seconds: u32,
        is_outbound: bool,
        known: &mut Vec<(String, String)>,
    ) -> Result<Change, Refusal> {
        let flow = flow_of(contact).filter(|_| is_outbound);
        let key = match &flow {
            Some((instance, reg_id)) => format!("{instance};{reg_id}"),
            None => key_by_uri(address, known),
        };
        let present = self.present.iter().find(|present| present.key == key);
        if present.is_some_and(|present| self.is_out_of_order(present)) {
            return Err(Refusal::OutOfOrder);
        }
        if expires_seconds == 0 {
            return Ok(Change::Remove(key));
        }
        let instance = instance_of(address);
        if instance.is_some() && self.is_circle(&address.uri) {
            return Err(Refusal::Circle);
        }
        known.push((address.uri.as_str().to_owned(), key.clone()));
        let is_same_call = present.is_some_and(|present| *present.call_id.reveal() == self.request.call_id());
        let epoch = present.filter(|_| is_same_call).map(|present| present.epoch_unix_nanos);
        let binding = Binding {
            key,
            contact: Pii::new(address.uri.as_str().to_owned()),
            q_thousandths: contact.q_thousandths(),
            expires_unix_nanos: self.now_unix_nanos + u64::from(expires_seconds) * SECOND,
            epoch_unix_nanos: epoch.unwrap_or(self.now_unix_nanos),
            instance,
            reg_id: flow.map(|(_, reg_id)| reg_id),
            ..self.binding()
        };
        if bytes_of(&binding) > self.config.contact_bytes_max {
            return Err(Refusal::TooLarge);
        }
        Ok(Change::Put(binding))
    }

    /// What all bindings of this request have in common.
    fn binding(&self) -> Binding {
        let (request, message) = (self.request, &self.request.message);
        let user_agent = message.header_text(HeaderName::UserAgent);
        Binding {
            key: String::new(),
            contact: Pii::new(String::new()),
            q_thousandths: 1000,
            expires_unix_nanos: 0,
            updated_unix_nanos: self.now_unix_nanos,
            epoch_unix_nanos: 0,
            path: self.origin.path.clone(),
            flow: Some(self.origin.flow.clone()),
            transport: self.origin.transport.uri_token().to_owned(),
            source: Pii::new(request.source),
            wants_keepalive: self.is_behind_nat(),
            call_id: Pii::new(request.call_id().to_owned()),
            cseq: message.cseq().map_or(0, |cseq| cseq.number),
            instance: None,
            reg_id: None,
            user_agent: user_agent.map(|text| text.chars().take(USER_AGENT_CHARS_MAX).collect()),
            region: request.region.clone(),
            country: request.country.clone(),
        }
    }

    /// Whether a phone speaks UDP through a NAT: what it writes about itself is not where it is seen. Connections are
    /// kept open by whoever opened them.
    fn is_behind_nat(&self) -> bool {
        let request = self.request;
        let is_direct = self.origin.path.is_empty() && request.message.headers(HeaderName::Via).count() == 1;
        if request.transport != Transport::Udp || !is_direct {
            return false;
        }
        let source = request.source;
        let via = request.message.top_via();
        let is_via_elsewhere = via
            .is_some_and(|via| via.host_ip() != Some(source.ip()) || via.port_or_default() != source.port());
        let is_contact_elsewhere = request.message.contacts().any(|contact| {
            let host = contact.address().and_then(|address| address.uri.host_ip());
            host.is_some_and(|host| host != source.ip())
        });
        is_via_elsewhere || is_contact_elsewhere
    }

    /// Whether a binding knows a later request of the same registration (section 10.3 step 7).
    fn is_out_of_order(&self, known: &Binding) -> bool {
        let cseq = self.request.message.cseq().map_or(0, |cseq| cseq.number);
        *known.call_id.reveal() == self.request.call_id() && known.cseq >= cseq
    }

    /// Whether a contact is the address of record itself, or a GRUU of it (RFC 5627 section 5.1).
    fn is_circle(&self, uri: &Uri<'_>) -> bool {
        let is_user = uri.user_unescaped().is_some_and(|user| user == self.aor.user);
        let is_domain = uri.host().eq_ignore_ascii_case(&self.aor.domain) && uri.port().is_none();
        is_domain && (is_user || uri.is_gruu())
    }

    fn check_room(&self, changes: &[Change]) -> Result<(), Refusal> {
        let is_known = |key: &str| self.present.iter().any(|known| known.key == key);
        let (mut added, mut removed) = (0, 0);
        for change in changes {
            match change {
                Change::Put(binding) => added += usize::from(!is_known(&binding.key)),
                Change::Remove(key) => removed += usize::from(is_known(key)),
            }
        }
        let total = (self.present.len() + added).saturating_sub(removed);
        let is_fit = added == 0 || total <= self.config.contacts_per_aor_max;
        is_fit.then_some(()).ok_or(Refusal::TooMany)
    }
}

/// The bindings after these changes, the most wanted first, as the store would give them.
pub(super) fn changed(present: Vec<Arc<Binding>>, changes: Vec<Change>) -> Vec<Arc<Binding>> {
    let mut bindings = present;
    for change in changes {
        let at = bindings.iter().position(|known| known.key == key_of(&change));
        match (change, at) {
            (Change::Put(binding), Some(at)) => bindings[at] = Arc::new(binding),
            (Change::Put(binding), None) => bindings.insert(0, Arc::new(binding)),
            (Change::Remove(_), Some(at)) => drop(bindings.remove(at)),
            (Change::Remove(_), None) => {}
        }
    }
    bindings.sort_by_key(|binding| Reverse(binding.rank()));
    bindings
}

fn key_of(change: &Change) -> &str {
    match change {
        Change::Put(binding) => &binding.key,
        Change::Remove(key) => key,
    }
}

/// The key of the binding whose contact is the same URI by the rules of RFC 3261 section 19.1.4; a new one is its own.
fn key_by_uri(address: &NameAddr<'_>, known: &[(String, String)]) -> String {
    let text = address.uri.as_str();
    let same = known.iter().find(|(contact, key)| {
        // A flow's key is its own, whatever its contact: instance and reg-id say which it is.
        let is_by_uri = !key.starts_with('<');
        is_by_uri
            && (contact == text || Uri::parse(contact).is_some_and(|known| known.is_equivalent(&address.uri)))
    });
    same.map_or_else(|| text.to_owned(), |(_, key)| key.clone())
}

/// The instance and the number of its flow; a reg-id without an instance means nothing (RFC 5626 section 6).
fn flow_of(contact: &Contact<'_>) -> Option<(String, u32)> {
    let address = contact.address()?;
    let reg_id = address.params.token("reg-id")?.parse().ok().filter(|reg_id| *reg_id > 0)?;
    Some((instance_of(address)?, reg_id))
}

/// `+sip.instance`, a URN in angle brackets (RFC 5626 section 4.1).
fn instance_of(address: &NameAddr<'_>) -> Option<String> {
    let instance = address.params.get("+sip.instance").map(|param| param.text())?;
    let is_urn = instance.starts_with('<') && instance.ends_with('>') && instance.len() > 2;
    is_urn.then(|| Cow::into_owned(instance))
}

fn bytes_of(binding: &Binding) -> usize {
    let path: usize = binding.path.iter().map(String::len).sum();
    let instance = binding.instance.as_ref().map_or(0, String::len);
    binding.contact.reveal().len() + path + instance + binding.call_id.reveal().len()
}
