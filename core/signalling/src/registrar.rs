//! The registrar (RFC 3261 section 10): who is where.
//!
//! A binding keeps the flow that its REGISTER came on, and calls to it go back along that flow (RFC 5626).

use std::sync::Arc;

use belfry_signal::{Cause, Room};
use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{Contact, HeaderName};
use belfry_state::Subscriber;

use crate::authority::{Authority, Judgement, Side};
use crate::core::{Alarm, Core, Purpose, now, unix_seconds};
use crate::handle::FlowToken;
use crate::location::{Aor, Bound};
use crate::received::Received;
use crate::signals::{Ended, RegisterOutcome};

/// How a REGISTER is answered.
#[derive(Debug)]
struct Verdict {
    status: u16,
    outcome: RegisterOutcome,
    extra: Vec<(HeaderName, String)>,
    fault: Option<(Room, Cause)>,
}

impl Verdict {
    fn new(status: u16, outcome: RegisterOutcome) -> Self {
        Self { status, outcome, extra: Vec::new(), fault: None }
    }

    fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.extra.push((name, value.into()));
        self
    }

    fn blaming(mut self, cause: Cause) -> Self {
        self.fault = Some((Room::Core, cause));
        self
    }
}

impl Core {
    /// A REGISTER came; a fault may make it wait.
    pub(crate) fn on_register(&mut self, id: TransactionId) {
        let delay = self.faults.register_delay();
        if delay.is_zero() {
            return self.register(id);
        }
        self.timers.set(now() + delay, Alarm::RegisterDelay(id));
    }

    /// Steps 1 to 4 of RFC 3261 section 10.3: is it for us, and from whom?
    pub(crate) fn register(&mut self, id: TransactionId) {
        let Some(request) = self.exchanges.get(&id).map(|exchange| Arc::clone(&exchange.request)) else { return };
        let Some(realm) = self.realm_of_registration(&request) else {
            return self.end_registration(id, Verdict::new(404, RegisterOutcome::Rejected));
        };
        if let Some(unknown) = request.message.tokens(HeaderName::Require).find(|token| !is_supported(token)) {
            let verdict = Verdict::new(420, RegisterOutcome::Rejected);
            return self.end_registration(id, verdict.with(HeaderName::Unsupported, unknown));
        }
        match Authority::credentials(&request.message, Side::Registrar, &realm) {
            Ok(Some(credentials)) => {
                let user = credentials.username.into_owned();
                self.look_up(id, Purpose::Register, user, realm);
            }
            Ok(None) => self.challenge_registration(id, &realm, false),
            Err(_) => self.end_registration(id, Verdict::new(400, RegisterOutcome::Rejected)),
        }
    }

    /// The store has said what it knows of the user whom the credentials name.
    pub(crate) fn on_registering_subscriber(
        &mut self,
        id: TransactionId,
        found: Result<Option<Subscriber>, &'static str>,
    ) {
        let Some(request) = self.exchanges.get(&id).map(|exchange| Arc::clone(&exchange.request)) else { return };
        let Ok(subscriber) = found else {
            let verdict = Verdict::new(500, RegisterOutcome::Failed).blaming(Cause::Store);
            return self.end_registration(id, verdict);
        };
        let Some(realm) = self.realm_of_registration(&request) else { return };
        let Ok(Some(credentials)) = Authority::credentials(&request.message, Side::Registrar, &realm) else { return };
        let judgement =
            self.authority.judge(&credentials, "REGISTER", &realm, subscriber.as_ref(), unix_seconds());
        let is_own = self.aor_of_registration(&request).is_some_and(|aor| aor.user == credentials.username);
        match judgement {
            Judgement::Stale => self.challenge_registration(id, &realm, true),
            Judgement::Granted if is_own => self.bind(id, &request),
            Judgement::Granted | Judgement::Denied => {
                self.end_registration(id, Verdict::new(403, RegisterOutcome::Denied));
            }
        }
    }

    /// Steps 5 to 8: the contacts.
    fn bind(&mut self, id: TransactionId, request: &Arc<Received>) {
        let Some(aor) = self.aor_of_registration(request) else { return };
        let verdict = match self.bound_of(request) {
            Ok(Change::Fetch) => self.bindings_answer(&aor, request, RegisterOutcome::Fetched),
            Ok(Change::RemoveAll) => {
                self.location_remove_all(&aor);
                self.bindings_answer(&aor, request, RegisterOutcome::Removed)
            }
            Ok(Change::Update(bounds)) => self.update(&aor, request, bounds),
            Err(verdict) => verdict,
        };
        self.end_registration(id, verdict);
    }

    fn update(&mut self, aor: &Aor, request: &Received, bounds: Vec<Bound>) -> Verdict {
        let present = self.location_get(aor);
        let cseq = request.message.cseq().map_or(0, |cseq| cseq.number);
        // All or nothing (step 7): look before changing anything.
        let is_disorderly = bounds.iter().any(|bound| {
            let known = present.iter().find(|known| known.is_same(bound));
            known.is_some_and(|known| known.call_id == bound.call_id && known.cseq >= cseq)
        });
        if is_disorderly {
            return Verdict::new(500, RegisterOutcome::Rejected).with(HeaderName::RetryAfter, "1");
        }
        let added = bounds.iter().filter(|bound| !bound.is_removal());
        let new_count = added.filter(|bound| !present.iter().any(|known| known.is_same(bound))).count();
        if present.len() + new_count > self.config.contacts_per_aor_max {
            return Verdict::new(403, RegisterOutcome::Rejected);
        }
        let is_removal = bounds.iter().all(Bound::is_removal);
        for bound in bounds {
            if bound.is_removal() {
                self.location_remove(aor, &bound);
            } else if !self.location_put(aor, bound) {
                return Verdict::new(503, RegisterOutcome::Failed)
                    .with(HeaderName::RetryAfter, self.config.retry_after.as_secs().to_string())
                    .blaming(Cause::Overload);
            }
        }
        let outcome = if is_removal { RegisterOutcome::Removed } else { RegisterOutcome::Bound };
        self.bindings_answer(aor, request, outcome)
    }

    /// What the Contact headers ask for.
    fn bound_of(&self, request: &Received) -> Result<Change, Verdict> {
        let message = &request.message;
        let contacts: Vec<Contact<'_>> = message.contacts().collect();
        let header_expires = message.expires_seconds();
        if contacts.iter().any(|contact| matches!(contact, Contact::Star)) {
            let is_plain = contacts.len() == 1 && header_expires == Some(0);
            let refused = Verdict::new(400, RegisterOutcome::Rejected);
            return if is_plain { Ok(Change::RemoveAll) } else { Err(refused) };
        }
        if contacts.is_empty() {
            return Ok(Change::Fetch);
        }
        let mut bounds = Vec::with_capacity(contacts.len());
        for contact in &contacts {
            let default = || u32::try_from(self.config.expires_default.as_secs()).unwrap_or(u32::MAX);
            let asked = contact.expires_seconds().or(header_expires).unwrap_or_else(default);
            if asked != 0 && u64::from(asked) < self.config.expires_min.as_secs() {
                let min = self.config.expires_min.as_secs().to_string();
                return Err(Verdict::new(423, RegisterOutcome::Rejected).with(HeaderName::MinExpires, min));
            }
            let expires_max = u32::try_from(self.config.expires_max.as_secs()).unwrap_or(u32::MAX);
            let Some(bound) = Bound::new(request, contact, asked.min(expires_max), unix_seconds()) else {
                return Err(Verdict::new(400, RegisterOutcome::Rejected));
            };
            bounds.push(bound);
        }
        Ok(Change::Update(bounds))
    }

    /// 200 with every present binding (step 8).
    fn bindings_answer(&self, aor: &Aor, request: &Received, outcome: RegisterOutcome) -> Verdict {
        let mut verdict = Verdict::new(200, outcome);
        let now = unix_seconds();
        let mut is_outbound = false;
        for bound in self.location_get(aor) {
            is_outbound |= bound.reg_id.is_some();
            verdict = verdict.with(HeaderName::Contact, bound.contact_value(now));
        }
        if request.message.has_token(HeaderName::Supported, "path") {
            for value in request.message.headers(HeaderName::Path) {
                verdict = verdict.with(HeaderName::Path, String::from_utf8_lossy(value));
            }
        }
        if is_outbound && request.message.has_token(HeaderName::Supported, "outbound") {
            verdict = verdict.with(HeaderName::Require, "outbound");
        }
        verdict
    }

    fn challenge_registration(&mut self, id: TransactionId, realm: &str, is_stale: bool) {
        let mut verdict = Verdict::new(Side::Registrar.status(), RegisterOutcome::Challenged);
        for challenge in self.authority.challenges(realm, is_stale, unix_seconds()) {
            verdict = verdict.with(HeaderName::WwwAuthenticate, challenge);
        }
        self.signals.challenged();
        self.end_registration(id, verdict);
    }

    fn end_registration(&mut self, id: TransactionId, verdict: Verdict) {
        let Some(exchange) = self.exchanges.get(&id) else { return };
        let request = Arc::clone(&exchange.request);
        let is_slow = now().saturating_duration_since(exchange.began) > self.config.register_slow;
        let slowness = is_slow.then_some((Room::Core, Cause::Slow));
        let ended = Ended {
            context: exchange.span,
            parent: exchange.parent,
            call_id: request.call_id(),
            start_unix_nanos: request.unix_nanos,
            status: verdict.status,
        };
        let fault = verdict.fault.or(slowness);
        self.signals.registration_ended(ended, verdict.outcome, &request.region, fault);
        let extra: Vec<(HeaderName, &str)> =
            verdict.extra.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.answer(id, verdict.status, &extra);
    }

    /// A connection is gone: nobody can be called over it any more (RFC 5626 section 5.3).
    pub(crate) fn on_flow_closed(&mut self, flow: &FlowToken) {
        self.location_flow_closed(flow);
    }

    /// The realm of a REGISTER: the domain that it asks for, which must be ours.
    fn realm_of_registration(&self, request: &Received) -> Option<String> {
        let uri = request.message.uri()?;
        self.aor_of_registration(request)?;
        self.domain_of(&uri)
    }

    fn aor_of_registration(&self, request: &Received) -> Option<Aor> {
        let to = request.message.to()?;
        self.aor_of(&to.uri)
    }
}

/// What a REGISTER asks for.
#[derive(Debug)]
enum Change {
    Fetch,
    RemoveAll,
    Update(Vec<Bound>),
}

/// Extensions that the registrar has.
fn is_supported(token: &str) -> bool {
    ["path", "outbound"].iter().any(|known| token.eq_ignore_ascii_case(known))
}
