//! The registrar (RFC 3261 section 10): who is where.
//!
//! A binding keeps the flow that its REGISTER came on, and calls to it go back along that flow (RFC 5626). What its
//! Contact headers ask for is in `contacts`.

mod contacts;

use std::fmt::Write as _;
use std::sync::Arc;

use belfry_signal::{Cause, Room, now_unix_nanos};
use belfry_sip_proto::digest::Credentials;
use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{HeaderName, NameAddr};
use belfry_state::{Binding, Error, Subscriber, Writing};

use crate::authority::{Authority, Judgement, Side};
use crate::core::{Alarm, Core, Done, Found, Purpose, now, unix_seconds};
use crate::handle::{FlowToken, Transport};
use crate::location::{Aor, Gruus, flow_key, is_full};
use crate::received::Received;
use crate::signals::{Ended, RegisterOutcome};
use contacts::{Ask, Origin, Refusal, Wanted};

/// How a REGISTER is answered, once the journal has what it changed.
#[derive(Debug)]
pub(crate) struct Verdict {
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
            Ok(Some(credentials)) if self.is_user_banned(&request, &credentials.username, &realm) => {
                self.signals.customers.request_banned();
                self.deny_registration(id);
            }
            Ok(Some(credentials)) if !self.is_meant(&credentials, &request) => {
                self.end_registration(id, Verdict::new(400, RegisterOutcome::Rejected));
            }
            Ok(Some(credentials)) => match self.state.remembered_subscriber(&credentials.username, &realm) {
                Some(subscriber) => {
                    self.judge_registration(id, &request, &realm, &credentials, subscriber.as_deref());
                }
                None => {
                    let user = credentials.username.into_owned();
                    self.look_up(id, Purpose::Register, user, realm);
                }
            },
            Ok(None) => self.challenge_registration(id, &request, &realm, false),
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
        self.judge_registration(id, &request, &realm, &credentials, subscriber.as_deref());
    }

    fn judge_registration(
        &mut self,
        id: TransactionId,
        request: &Arc<Received>,
        realm: &str,
        credentials: &Credentials<'_>,
        subscriber: Option<&Subscriber>,
    ) {
        let at = (realm, request.source.ip());
        let asked = ("REGISTER", request.message.body());
        let judgement = self.authority.judge(credentials, asked, at, subscriber, unix_seconds());
        match judgement {
            Judgement::Stale => self.challenge_registration(id, request, realm, true),
            Judgement::Granted => {
                self.credentials_were_right(request, &credentials.username, realm);
                match self.aor_of_registration(request).filter(|aor| aor.user == credentials.username) {
                    Some(aor) => self.bind(id, request, &aor),
                    None => self.deny_registration(id),
                }
            }
            Judgement::Denied => self.deny(id, request, &credentials.username, realm),
        }
    }

    /// Steps 5 to 8: the contacts.
    fn bind(&mut self, id: TransactionId, request: &Arc<Received>, aor: &Aor) {
        let now = now_unix_nanos();
        let key = aor.key();
        let present = self.state.bindings().get(&key, now);
        let Some(origin) = self.origin_of(request) else {
            return self.end_registration(id, Verdict::new(403, RegisterOutcome::Rejected));
        };
        let ask = Ask {
            request,
            aor,
            origin: &origin,
            present: &present,
            config: &self.config,
            now_unix_nanos: now,
        };
        let verdict = match ask.wanted() {
            Ok(Wanted::Fetch) => {
                self.bindings_answer(aor, request, RegisterOutcome::Fetched, false, &present)
            }
            Ok(Wanted::Changes { changes, is_removal, is_outbound }) => {
                let outcome = if is_removal { RegisterOutcome::Removed } else { RegisterOutcome::Bound };
                match self.state.bindings().update(&key, &changes) {
                    Ok(writing) => {
                        let bindings = contacts::changed(present, changes);
                        let verdict = self.bindings_answer(aor, request, outcome, is_outbound, &bindings);
                        return self.await_journal(id, writing, verdict);
                    }
                    Err(error) => self.store_verdict(&error),
                }
            }
            Err(refusal) => self.refusal_verdict(refusal),
        };
        self.end_registration(id, verdict);
    }

    /// A binding may be relied on when it survives the death of this process, so the answer waits for that. Those that
    /// the journal takes in one write wait together.
    fn await_journal(&mut self, id: TransactionId, writing: Writing, verdict: Verdict) {
        let batch = writing.batch();
        let waiting = (id, verdict);
        match self.unwritten.back_mut() {
            Some((last, registrations)) if *last == batch => return registrations.push(waiting),
            _ => self.unwritten.push_back((batch, vec![waiting])),
        }
        let timeout = self.config.store_timeout;
        self.jobs.spawn(async move {
            let written = tokio::time::timeout(timeout, writing.wait()).await;
            Done::Written { batch, written: written.unwrap_or(Err(Error::Closed)) }
        });
    }

    /// The journal has the changes of a write, or could not take them.
    pub(crate) fn on_written(&mut self, batch: u64, written: &Result<(), Error>) {
        let Some(at) = self.unwritten.iter().position(|(known, _)| *known == batch) else { return };
        let (_, registrations) = self.unwritten.remove(at).unwrap_or_default();
        for (id, verdict) in registrations {
            let verdict = match written {
                Ok(()) => verdict,
                Err(error) => self.store_verdict(error),
            };
            self.end_registration(id, verdict);
        }
    }

    fn refusal_verdict(&self, refusal: Refusal) -> Verdict {
        let verdict = Verdict::new(refusal.status(), RegisterOutcome::Rejected);
        match refusal {
            Refusal::TooBrief => {
                verdict.with(HeaderName::MinExpires, self.config.expires_min.as_secs().to_string())
            }
            Refusal::OutOfOrder => verdict.with(HeaderName::RetryAfter, "1"),
            _ => verdict,
        }
    }

    fn store_verdict(&self, error: &Error) -> Verdict {
        self.signals.store_failed(error.reason());
        let retry_after = self.config.retry_after.as_secs().to_string();
        let cause = if is_full(error) { Cause::Overload } else { Cause::Store };
        Verdict::new(503, RegisterOutcome::Failed).with(HeaderName::RetryAfter, retry_after).blaming(cause)
    }

    /// The flow that a REGISTER came on. An edge of ours that stands between the phone and this one has put itself
    /// into Path with its flow's token: then that flow is the phone's, and the rest of Path lies behind it.
    ///
    /// `None` when somebody else names a flow of ours: every Record-Route shows such tokens, and a customer who could
    /// bind a trunk's would call over it as if he called himself.
    fn origin_of(&self, request: &Received) -> Option<Origin> {
        let values = request.message.headers(HeaderName::Path);
        let mut path: Vec<String> = values.map(|value| String::from_utf8_lossy(value).into_owned()).collect();
        let named = path.first().and_then(|top| {
            let top = NameAddr::parse(top.as_bytes())?;
            let edge = self.edges.edge_of(&top.uri, &request.edge)?;
            let token = top.uri.user().filter(|token| !token.is_empty())?;
            let transport = Transport::from_uri_token(top.uri.transport().unwrap_or_default());
            Some((flow_key(&edge, &FlowToken(token.to_owned())), transport))
        });
        let Some((flow, transport)) = named else {
            let flow = flow_key(&request.edge, &request.flow);
            return Some(Origin { flow, transport: request.transport, path });
        };
        path.remove(0);
        let is_from_edge = self.edges.is_edge(request.source.ip(), &request.peer_names);
        is_from_edge.then_some(Origin { flow, transport, path })
    }

    /// 200 with every present binding (step 8).
    fn bindings_answer(
        &self,
        aor: &Aor,
        request: &Received,
        outcome: RegisterOutcome,
        is_outbound: bool,
        bindings: &[Arc<Binding>],
    ) -> Verdict {
        let (message, now) = (&request.message, now_unix_nanos());
        let mut verdict = Verdict::new(200, outcome);
        let wants_gruu = message.has_token(HeaderName::Supported, "gruu");
        for binding in bindings {
            let mut value = contact_value(binding, now);
            if wants_gruu && let Some(instance) = &binding.instance {
                value.push_str(&format!(";pub-gruu=\"{}\"", Gruus::public(aor, instance)));
                let temporary = self.gruus.temporary(aor, binding);
                value.extend(temporary.map(|temporary| format!(";temp-gruu=\"{temporary}\"")));
            }
            verdict = verdict.with(HeaderName::Contact, value);
        }
        if message.has_token(HeaderName::Supported, "path") {
            for value in message.headers(HeaderName::Path) {
                verdict = verdict.with(HeaderName::Path, String::from_utf8_lossy(value));
            }
        }
        if is_outbound {
            let seconds = self.config.flow_timer.as_secs().to_string();
            verdict = verdict.with(HeaderName::Require, "outbound").with(HeaderName::FlowTimer, seconds);
        }
        match self.service_route(request) {
            Some(route) => verdict.with(HeaderName::ServiceRoute, route),
            None => verdict,
        }
    }

    /// The way out for the phone's own requests: the edge that it registered through (RFC 3608).
    fn service_route(&self, request: &Received) -> Option<String> {
        if !self.config.service_route {
            return None;
        }
        let address = self.edges.address(&request.edge, request.transport)?;
        let transport = request.transport.uri_token();
        Some(format!("<sip:{}:{};transport={transport};lr>", address.host, address.port))
    }

    /// The credentials are wrong, or not for this address.
    pub(crate) fn deny_registration(&mut self, id: TransactionId) {
        self.end_registration(id, Verdict::new(403, RegisterOutcome::Denied));
    }

    /// There is no room to ask the store.
    pub(crate) fn shed_registration(&mut self, id: TransactionId) {
        let retry_after = self.config.retry_after.as_secs().to_string();
        let verdict = Verdict::new(503, RegisterOutcome::Failed).blaming(Cause::Overload);
        self.end_registration(id, verdict.with(HeaderName::RetryAfter, retry_after));
    }

    fn challenge_registration(&mut self, id: TransactionId, request: &Received, realm: &str, is_stale: bool) {
        let mut verdict = Verdict::new(Side::Registrar.status(), RegisterOutcome::Challenged);
        let source = request.source.ip();
        for challenge in self.authority.challenges(realm, source, is_stale, unix_seconds()) {
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
        if verdict.outcome == RegisterOutcome::Bound {
            self.note_let_in(&request);
        }
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
        let to = request.message.to()?;
        let is_user = to.uri.user().is_some_and(|user| !user.is_empty());
        let domain =
            if to.uri.is_sip() { self.domain_of(&to.uri) } else { self.config.domains.first().cloned() };
        (is_user && domain? == asked).then_some(asked)
    }

    fn aor_of_registration(&self, request: &Received) -> Option<Aor> {
        let to = request.message.to()?;
        self.aor_of(&to.uri)
    }
}

/// The binding as the registrar shows it in a 200.
fn contact_value(binding: &Binding, now_unix_nanos: u64) -> String {
    let left = binding.expires_unix_nanos.saturating_sub(now_unix_nanos).div_ceil(1_000_000_000);
    let contact = binding.contact.reveal();
    let mut value = String::with_capacity(contact.len() + 96);
    // Writing to a string cannot fail.
    let _ = write!(value, "<{contact}>;expires={left}");
    if binding.q_thousandths < 1000 {
        let _ = write!(value, ";q={}.{:03}", binding.q_thousandths / 1000, binding.q_thousandths % 1000);
    }
    if let Some(instance) = &binding.instance {
        let _ = write!(value, ";+sip.instance=\"{instance}\"");
    }
    if let Some(reg_id) = binding.reg_id {
        let _ = write!(value, ";reg-id={reg_id}");
    }
    value
}

/// Extensions that the registrar has.
fn is_supported(token: &str) -> bool {
    ["path", "outbound", "gruu"].iter().any(|known| token.eq_ignore_ascii_case(known))
}
