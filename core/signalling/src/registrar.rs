//! The registrar (RFC 3261 section 10): who is where.
//!
//! A binding keeps the flow that its REGISTER came on, and calls to it go back along that flow (RFC 5626).

use std::sync::Arc;
use std::time::Duration;

use belfry_signal::{Cause, Room, now_unix_nanos};
use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{Contact, HeaderName};
use belfry_state::Binding;

use crate::authority::{Authority, Judgement, Side};
use crate::core::{Alarm, Core, Found, Purpose, now, unix_seconds};
use crate::location::{Aor, binding_of, contact_value, is_full};
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
        let Some(request) = self.exchanges.get(&id).map(|exchange| Arc::clone(&exchange.request)) else {
            return;
        };
        let Some(realm) = self.realm_of_registration(&request) else {
            return self.end_registration(id, Verdict::new(404, RegisterOutcome::Rejected));
        };
        if let Some(unknown) = request.message.tokens(HeaderName::Require).find(|token| !is_supported(token))
        {
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
    pub(crate) fn on_registering_subscriber(&mut self, id: TransactionId, found: Found) {
        let Some(request) = self.exchanges.get(&id).map(|exchange| Arc::clone(&exchange.request)) else {
            return;
        };
        let Ok(subscriber) = found else {
            let verdict = Verdict::new(500, RegisterOutcome::Failed).blaming(Cause::Store);
            return self.end_registration(id, verdict);
        };
        let realm = self.realm_of_registration(&request).unwrap_or_default();
        let credentials = Authority::credentials(&request.message, Side::Registrar, &realm);
        let Ok(Some(credentials)) = credentials else {
            // The edge whose address the phone meant left meanwhile.
            return self.end_registration(id, Verdict::new(404, RegisterOutcome::Rejected));
        };
        let judgement =
            self.authority.judge(&credentials, "REGISTER", &realm, subscriber.as_deref(), unix_seconds());
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
        let now = now_unix_nanos();
        let verdict = match self.change_of(request, now) {
            Ok(Change::Fetch) => self.bindings_answer(&aor, request, RegisterOutcome::Fetched, now),
            Ok(Change::RemoveAll) => match self.state.bindings().remove_all(&aor.key()) {
                Ok(_) => self.bindings_answer(&aor, request, RegisterOutcome::Removed, now),
                Err(error) => self.store_verdict(&error),
            },
            Ok(Change::Update(updates)) => self.update(&aor, request, updates, now),
            Err(verdict) => verdict,
        };
        self.end_registration(id, verdict);
    }

    fn update(&mut self, aor: &Aor, request: &Received, updates: Vec<Update>, now: u64) -> Verdict {
        let present = self.bindings_of(aor, now);
        // All or nothing (step 7): look before changing anything.
        let is_disorderly = updates.iter().any(|update| {
            let known = present.iter().find(|known| known.key == update.binding.key);
            known.is_some_and(|known| {
                known.call_id == update.binding.call_id && known.cseq >= update.binding.cseq
            })
        });
        if is_disorderly {
            return Verdict::new(500, RegisterOutcome::Rejected).with(HeaderName::RetryAfter, "1");
        }
        let is_new = |update: &&Update| {
            !update.is_removal && !present.iter().any(|known| known.key == update.binding.key)
        };
        if present.len() + updates.iter().filter(is_new).count() > self.config.contacts_per_aor_max {
            return Verdict::new(403, RegisterOutcome::Rejected);
        }
        let is_removal = updates.iter().all(|update| update.is_removal);
        for update in updates {
            let done = if update.is_removal {
                self.state.bindings().remove(&aor.key(), &update.binding.key).map(|_| ())
            } else {
                self.state.bindings().put(&aor.key(), update.binding)
            };
            if let Err(error) = done {
                return self.store_verdict(&error);
            }
        }
        let outcome = if is_removal { RegisterOutcome::Removed } else { RegisterOutcome::Bound };
        self.bindings_answer(aor, request, outcome, now)
    }

    fn store_verdict(&self, error: &belfry_state::Error) -> Verdict {
        self.signals.store_failed(error.reason());
        let retry_after = self.config.retry_after.as_secs().to_string();
        let cause = if is_full(error) { Cause::Overload } else { Cause::Store };
        Verdict::new(503, RegisterOutcome::Failed).with(HeaderName::RetryAfter, retry_after).blaming(cause)
    }

    /// What the Contact headers ask for.
    fn change_of(&self, request: &Received, now: u64) -> Result<Change, Verdict> {
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
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        let (min, max) = (seconds(self.config.expires_min), seconds(self.config.expires_max));
        let mut updates = Vec::with_capacity(contacts.len());
        for contact in &contacts {
            let asked = contact.expires_seconds().or(header_expires);
            let asked = asked.unwrap_or_else(|| seconds(self.config.expires_default));
            if asked != 0 && asked < min {
                let verdict = Verdict::new(423, RegisterOutcome::Rejected);
                return Err(verdict.with(HeaderName::MinExpires, min.to_string()));
            }
            let Some(binding) = binding_of(request, contact, asked.min(max), now) else {
                return Err(Verdict::new(400, RegisterOutcome::Rejected));
            };
            updates.push(Update { binding, is_removal: asked == 0 });
        }
        Ok(Change::Update(updates))
    }

    /// 200 with every present binding (step 8).
    fn bindings_answer(&self, aor: &Aor, request: &Received, outcome: RegisterOutcome, now: u64) -> Verdict {
        let mut verdict = Verdict::new(200, outcome);
        let mut is_outbound = false;
        for binding in self.bindings_of(aor, now) {
            is_outbound |= binding.reg_id.is_some();
            verdict = verdict.with(HeaderName::Contact, contact_value(&binding, now));
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

    /// There is no room to ask the store.
    pub(crate) fn shed_registration(&mut self, id: TransactionId) {
        let retry_after = self.config.retry_after.as_secs().to_string();
        let verdict = Verdict::new(503, RegisterOutcome::Failed).blaming(Cause::Overload);
        self.end_registration(id, verdict.with(HeaderName::RetryAfter, retry_after));
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
        let is_told = self.is_told(id, &request, fault.is_none() && verdict.outcome.is_good());
        self.signals.registration_ended(ended, verdict.outcome, &request.region, fault, is_told);
        let extra: Vec<(HeaderName, &str)> =
            verdict.extra.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.answer(id, verdict.status, &extra);
    }

    /// The realm of a REGISTER: the domain that it asks for, which must be ours.
    fn realm_of_registration(&self, request: &Received) -> Option<String> {
        let asked = self.domain_of(&request.message.uri()?)?;
        // Credentials of one domain must not bind an address of another.
        (self.aor_of_registration(request)?.domain == asked).then_some(asked)
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
    Update(Vec<Update>),
}

/// One Contact of it.
#[derive(Debug)]
struct Update {
    binding: Binding,
    is_removal: bool,
}

/// Extensions that the registrar has.
fn is_supported(token: &str) -> bool {
    ["path", "outbound"].iter().any(|known| token.eq_ignore_ascii_case(known))
}
