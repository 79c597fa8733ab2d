//! The stateful proxy (RFC 3261 section 16): from a request to where it may go.
//!
//! Requests of a dialog follow the tokens in their Route; the others are authenticated, and then the location
//! service says where their customer is.

mod anchor;
mod answer;
mod branch;
mod cancel;
mod dialog;
mod forward;
mod locate;
mod mask;
mod prepare;
mod redirect;
mod replaces;
mod response;
mod route;
mod waiting;

pub(crate) use locate::{protocol_of, transport_of};
pub(crate) use prepare::{via_value, way_to};

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use belfry_signal::{Cause, Room, now_unix_nanos};
use belfry_sip_proto::transaction::{LegacyParts, MethodKind, OnRequest, ServerKey, TransactionId};
use belfry_sip_proto::{HeaderName, OwnedMessage, Uri};

use crate::answers::ALLOW;
use crate::authority::{Authority, Judgement, Side};
use crate::core::{Alarm, Core, Done, Found, Purpose, now, unix_seconds};
use crate::exchange::{Exchange, Failure};
use crate::location::Aor;
use crate::received::Received;
use crate::signals::{AttemptResult, CallCause, Decision, MethodName, Scope, ShedReason};
pub(crate) use route::Sender;

impl Core {
    /// A SIP message came from an edge.
    pub(crate) fn on_message(&mut self, received: Received) {
        if received.message.is_request() { self.on_request(received) } else { self.on_response(received) }
    }

    fn on_request(&mut self, mut request: Received) {
        if let Some(fault) = request.fault {
            self.message_received(&mut request, false);
            self.signals.message_malformed(fault.reason(), request.source);
            if let Some(status) = fault.status() {
                self.refuse_malformed(&request, status);
            }
            return;
        }
        if !self.is_emergency(&request) && self.is_turned_away(&request) {
            return;
        }
        request = self.unmasked(request);
        let key = server_key(&request);
        // A repeat of what was let in costs nothing, and a refusal of it would end what goes on.
        if self.is_overloaded_for(&request) && !self.transactions.is_known(&key) {
            self.message_received(&mut request, false);
            return self.shed(&request, ShedReason::Queue);
        }
        let is_reliable = request.transport.is_reliable();
        let way = self.way_back(&request);
        let outcome = self.transactions.on_request(key, way, is_reliable, now());
        match outcome {
            OnRequest::New(id) if self.may_be_routine(&request) => self.routine_began(id, &request),
            _ => self.message_received(&mut request, matches!(outcome, OnRequest::Repeated(_))),
        }
        match outcome {
            OnRequest::New(id) => {
                let request = self.unstrict(request);
                self.on_new_request(id, request);
            }
            OnRequest::Repeated(_) | OnRequest::Acknowledged(_) => {}
            OnRequest::AcknowledgedSuccess(_) | OnRequest::Unmatched => {
                self.on_ack(Arc::new(self.unstrict(request)));
            }
            OnRequest::Refused => self.shed(&request, ShedReason::Transactions),
        }
    }

    /// A message that waited until nobody else did.
    pub(crate) fn on_stranger_message(&mut self, mut request: Received) {
        let waited = now_unix_nanos().saturating_sub(request.unix_nanos);
        let is_known = self.transactions.is_known(&server_key(&request));
        if self.gate.is_stale(Duration::from_nanos(waited)) && !is_known {
            self.message_received(&mut request, false);
            return self.shed(&request, ShedReason::Stale);
        }
        self.on_message(request);
    }

    /// Somebody was let in: under overload, what comes over this flow is served first.
    pub(crate) fn note_let_in(&self, request: &Received) {
        let flow = (&*request.edge, &*request.flow.0);
        if !self.gate.let_in(flow, request.source.ip(), unix_seconds()) {
            self.signals.customers.stayed_unknown();
        }
    }

    /// A request that breaks the rules, answered as its section of RFC 4475 or RFC 3261 says.
    fn refuse_malformed(&mut self, request: &Received, status: u16) {
        let unsupported: Vec<&str> = request.message.tokens(HeaderName::ProxyRequire).collect();
        let unsupported = unsupported.join(", ");
        let extra = [(HeaderName::Unsupported, unsupported.as_str())];
        self.answer_plain(request, status, if status == 420 { &extra } else { &[] });
    }

    /// Requests of a dialog, CANCEL and ACK are let through: refusing them costs more than serving them.
    fn is_overloaded_for(&self, request: &Received) -> bool {
        let is_new =
            !request.is_in_dialog() && !matches!(request.method, MethodName::Cancel | MethodName::Ack);
        is_new && self.waiting >= self.config.queue_messages_overload && !self.is_emergency(request)
    }

    /// Turns a new request away without spending a transaction on it.
    fn shed(&mut self, request: &Received, reason: ShedReason) {
        self.signals.request_shed(reason);
        if request.method == MethodName::Invite && !request.is_in_dialog() {
            let fault = Some((Room::Core, Cause::Overload));
            let result = AttemptResult::Ineffective;
            let scope = Scope::of_region(&request.region);
            self.signals.attempt_ended(result, &scope, fault, None, request.call_id());
        }
        let retry_after = self.config.retry_after.as_secs().to_string();
        self.answer_plain(request, 503, &[(HeaderName::RetryAfter, &retry_after)]);
    }

    fn on_new_request(&mut self, id: TransactionId, request: Received) {
        let method = request.method;
        let is_setup = method == MethodName::Invite && !request.is_in_dialog();
        let is_emergency = self.is_emergency(&request);
        if !is_emergency && !self.has_room_for(&request) {
            // The last places are kept for those who call for help.
            self.transactions.abandon(id, now());
            return self.shed(&request, ShedReason::Transactions);
        }
        let (span, parent) = if is_setup {
            let root = self.calls.chain(&request, now()).root;
            (root.child(), Some(root.span_id))
        } else {
            self.span_of(request.call_id(), request.trace_id)
        };
        let exchange = Exchange {
            request: Arc::new(request),
            began: now(),
            span,
            parent,
            forward: None,
            call: None,
            ended_call: None,
            is_stranger: false,
            is_masked: false,
            opened_on: None,
            is_setup,
            is_cancelled: false,
            cancel_reason: None,
            is_emergency,
        };
        self.exchanges.insert(id, exchange);
        match method {
            MethodName::Cancel => self.on_cancel(id),
            MethodName::Register => self.on_register(id),
            _ => self.on_proxied(id),
        }
    }

    /// A request to carry on, or one for ourselves.
    fn on_proxied(&mut self, id: TransactionId) {
        let Some(request) = self.request_of(id) else { return };
        if request.method == MethodName::Invite {
            // At once, so that nobody repeats it while stores and relays are asked (RFC 3261 section 17.2.1).
            self.answer(id, 100, &[]);
        }
        let used = self.routes_used(&request.message);
        if used.count == 0 && request.message.headers(HeaderName::Route).next().is_some() {
            // A Route that names somebody else: we relay for our own customers only.
            self.decided(id, Decision::Refuse, "route names somebody else");
            return self.fail(id, Failure::plain(403, CallCause::Denied));
        }
        if request.is_in_dialog() {
            return self.on_dialog_request(id, &request, &used);
        }
        if self.is_for_us(&request.message) {
            return self.serve(id, &request);
        }
        if let Some(shed) = self.shed_reason(&request) {
            self.decided(id, Decision::Refuse, shed.as_str());
            self.signals.request_shed(shed);
            let cause = if shed == ShedReason::Fault { Cause::ServerError } else { Cause::Overload };
            if request.method == MethodName::Invite && shed == ShedReason::Fault {
                self.open_call(id, &request, None, None);
            }
            let call_cause =
                if shed == ShedReason::Fault { CallCause::ServerError } else { CallCause::Overload };
            return self.fail(id, Failure::ours(503, Room::Core, cause, call_cause));
        }
        match self.trunk_of(&request) {
            Some(trunk) => self.route(id, &request, &Sender::Trunk(trunk)),
            None => self.authenticate(id, &request),
        }
    }

    /// Why a new call is refused before its caller is even known.
    fn shed_reason(&self, request: &Received) -> Option<ShedReason> {
        if request.method != MethodName::Invite {
            None
        } else if self.stop_at.is_some() {
            // Nobody would be here to see the call end, not even one for help: another core is asked at once.
            Some(ShedReason::Draining)
        } else if self.is_emergency(request) {
            None
        } else if self.is_draining {
            Some(ShedReason::Draining)
        } else if self.faults.answers_503() {
            Some(ShedReason::Fault)
        } else {
            (self.calls.len() >= self.config.calls_max).then_some(ShedReason::Calls)
        }
    }

    /// A request to the domain itself.
    fn serve(&mut self, id: TransactionId, request: &Received) {
        match request.method {
            MethodName::Options => self.answer(
                id,
                200,
                &[
                    (HeaderName::Allow, ALLOW),
                    (HeaderName::Accept, "application/sdp"),
                    (HeaderName::Supported, "path, outbound, gruu"),
                ],
            ),
            MethodName::Invite => self.fail(id, Failure::plain(404, CallCause::UnknownCustomer)),
            _ => self.answer(id, 405, &[(HeaderName::Allow, "OPTIONS, REGISTER")]),
        }
    }

    fn authenticate(&mut self, id: TransactionId, request: &Arc<Received>) {
        let realm = self.realm_of_caller(request);
        match Authority::credentials(&request.message, Side::Proxy, &realm) {
            Ok(Some(credentials)) if self.is_user_banned(request, &credentials.username, &realm) => {
                if self.is_help(id) {
                    // Whoever guesses passwords may need help all the same.
                    return self.route_unknown(id, request);
                }
                self.signals.customers.request_banned();
                self.fail(id, Failure::plain(403, CallCause::Denied));
            }
            Ok(Some(credentials)) if !self.is_meant(&credentials, request) => {
                self.fail(id, Failure::plain(400, CallCause::Denied));
            }
            Ok(Some(credentials)) => {
                let user = credentials.username.into_owned();
                self.look_up(id, Purpose::Caller, user, realm);
            }
            Ok(None) if self.may_stay_unknown(id) => self.route_unknown(id, request),
            Ok(None) => self.challenge(id, request, &realm, false),
            Err(_) => self.fail(id, Failure::plain(400, CallCause::Denied)),
        }
    }

    fn challenge(&mut self, id: TransactionId, request: &Received, realm: &str, is_stale: bool) {
        let source = request.source.ip();
        let challenges = self.authority.challenges(realm, source, is_stale, unix_seconds());
        let extra: Vec<(HeaderName, &str)> =
            challenges.iter().map(|value| (HeaderName::ProxyAuthenticate, value.as_str())).collect();
        self.signals.challenged();
        self.decided(id, Decision::Authenticate, if is_stale { "stale" } else { "challenged" });
        self.answer(id, Side::Proxy.status(), &extra);
    }

    /// Asks the store for a subscriber; the answer comes back as an event, or at once when it is remembered.
    pub(crate) fn look_up(&mut self, id: TransactionId, purpose: Purpose, user: String, domain: String) {
        if let Some(remembered) = self.state.remembered_subscriber(&user, &domain) {
            return self.on_subscriber(id, purpose, Ok(remembered));
        }
        if self.jobs.len() >= self.config.store_requests_max && !self.is_help(id) {
            self.signals.request_shed(ShedReason::Queue);
            if purpose == Purpose::Register {
                return self.shed_registration(id);
            }
            return self.fail(id, Failure::ours(503, Room::Core, Cause::Overload, CallCause::Overload));
        }
        let (state, timeout) = (self.state.clone(), self.config.store_timeout);
        let job = async move {
            let found = match tokio::time::timeout(timeout, state.subscriber(&user, &domain)).await {
                Ok(Ok(found)) => Ok(found),
                Ok(Err(error)) => Err(error.reason()),
                Err(_) => Err("timeout"),
            };
            Done::Subscriber { id, purpose, found }
        };
        self.run_job(job, Done::Subscriber { id, purpose, found: Err("panicked") });
    }

    /// The store has said what it knows of the caller.
    pub(crate) fn on_calling_subscriber(&mut self, id: TransactionId, found: Found) {
        let Some(request) = self.request_of(id) else { return };
        let subscriber = match found {
            Ok(subscriber) => subscriber,
            // Who calls for help does not wait for our disk.
            Err(reason) if self.is_help(id) => {
                self.signals.store_failed(reason);
                return self.route_unknown(id, &request);
            }
            Err(reason) => return self.fail_by_store(id, reason),
        };
        let realm = self.realm_of_caller(&request);
        let Ok(Some(credentials)) = Authority::credentials(&request.message, Side::Proxy, &realm) else {
            // The realm is another one by now, because an edge came or left meanwhile.
            return self.challenge(id, &request, &realm, false);
        };
        let asked = (request.message.method(), request.message.body());
        let at = (&*realm, request.source.ip());
        let judgement = self.authority.judge(&credentials, asked, at, subscriber.as_deref(), unix_seconds());
        let claimed = request.message.from().map(|from| from.uri);
        // Who hides from the called side (RFC 3323 section 4.1.1.3) does not hide from us.
        let is_hidden = claimed.is_some_and(|uri| uri.host().eq_ignore_ascii_case("anonymous.invalid"));
        let caller = Aor { user: credentials.username.into_owned(), domain: realm.clone() };
        let is_own = is_hidden || claimed.and_then(|uri| self.aor_of(&uri)).as_ref() == Some(&caller);
        // A trunk that shows credentials calls for whomever it likes.
        let trunk = self.routes.table.trunk_of_user(&caller.key());
        match judgement {
            Judgement::Stale => self.challenge(id, &request, &realm, true),
            Judgement::Granted => {
                self.credentials_were_right(&request, &caller.user, &realm);
                if trunk.is_none() && !is_own {
                    self.decided(id, Decision::Refuse, "caller claims to be somebody else");
                    return self.fail(id, Failure::plain(403, CallCause::Denied));
                }
                self.note_let_in(&request);
                self.decided(id, Decision::Authenticate, "granted");
                let sender = trunk.map_or(Sender::Subscriber(caller), Sender::Trunk);
                self.route(id, &request, &sender);
            }
            Judgement::Denied if self.may_stay_unknown(id) => self.route_unknown(id, &request),
            Judgement::Denied => {
                self.decided(id, Decision::Refuse, "wrong credentials");
                self.deny(id, &request, &caller.user, &realm);
            }
        }
    }

    /// Nobody is registered: is the customer unknown, or only away?
    pub(crate) fn on_called_subscriber(&mut self, id: TransactionId, found: Found) {
        match found {
            Ok(Some(subscriber)) if subscriber.enabled => {
                self.fail(id, Failure::plain(480, CallCause::NotRegistered));
            }
            Ok(_) => self.fail(id, Failure::plain(404, CallCause::UnknownCustomer)),
            Err(reason) => self.fail_by_store(id, reason),
        }
    }

    fn fail_by_store(&mut self, id: TransactionId, reason: &'static str) {
        self.signals.store_failed(reason);
        self.fail(id, Failure::ours(500, Room::Core, Cause::Store, CallCause::ServerError));
    }

    /// Opens the books of a call; false when one with its Call-ID is open.
    fn open_call(
        &mut self,
        id: TransactionId,
        request: &Received,
        caller: Option<&Aor>,
        called: Option<&Aor>,
    ) -> bool {
        let Some(key) = self.calls.open(request, now()) else { return false };
        let alarm = Alarm::Lifetime(Arc::clone(&key));
        let timer = self.timers.set(now() + self.config.call_lifetime, alarm);
        if let Some(call) = self.calls.get_mut(&key) {
            call.lifetime = Some(timer);
            // Whom we know is written down by the address that we know.
            for (party, aor) in [(&mut call.caller, caller), (&mut call.callee, called)] {
                party.uri = aor.map_or_else(|| party.uri.clone(), Aor::uri);
            }
        }
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.call = Some(key);
        }
        true
    }

    /// Tells the call's trace what was decided about its INVITE, and why.
    pub(super) fn decided(&self, id: TransactionId, decision: Decision, reason: &'static str) {
        if let Some(exchange) = self.exchanges.get(&id).filter(|exchange| exchange.is_setup) {
            self.signals.decided(decision, reason, exchange.span, exchange.request.call_id());
        }
    }

    pub(crate) fn request_of(&self, id: TransactionId) -> Option<Arc<Received>> {
        self.exchanges.get(&id).map(|exchange| Arc::clone(&exchange.request))
    }

    /// Whether the caller gave up while we were asking around; then the exchange has been answered.
    fn is_cancelled(&self, id: TransactionId) -> bool {
        self.exchanges.get(&id).is_none_or(|exchange| exchange.is_cancelled)
    }

    /// The domain whose subscriber a caller must be: the one it claims, or our first.
    fn realm_of_caller(&self, request: &Received) -> String {
        let claimed = request.message.from().and_then(|from| self.domain_of(&from.uri));
        claimed.unwrap_or_else(|| self.config.domains.first().cloned().unwrap_or_default())
    }

    /// Whether a request is for the domain itself and not for one of its customers.
    pub(crate) fn is_for_us(&self, message: &OwnedMessage) -> bool {
        message
            .uri()
            .is_some_and(|uri| uri.is_sip() && uri.user().is_none() && self.domain_of(&uri).is_some())
    }

    /// Which of our domains a URI names; our edges' own addresses stand for the first.
    pub(crate) fn domain_of(&self, uri: &Uri<'_>) -> Option<String> {
        let host = uri.host().to_ascii_lowercase();
        if self.config.domains.contains(&host) {
            return Some(host);
        }
        self.edges.is_our_host(&host).then(|| self.config.domains.first().cloned()).flatten()
    }
}

/// Requests that may begin a dialog, in whose path we stay.
fn is_dialog_forming(method: MethodName) -> bool {
    matches!(method, MethodName::Invite | MethodName::Subscribe | MethodName::Refer | MethodName::Notify)
}

/// What identifies a request's transaction (RFC 3261 section 17.2.3).
fn server_key(request: &Received) -> ServerKey {
    let message = &request.message;
    let kind = match request.method {
        MethodName::Invite => MethodKind::Invite,
        MethodName::Ack => MethodKind::Ack,
        _ => MethodKind::Other,
    };
    let via = message.top_via();
    let mut sent_by = Vec::with_capacity(48);
    if let Some(via) = &via {
        // Writing into a vector cannot fail.
        let _ = write!(sent_by, "{}:{}", via.host, via.port_or_default());
    }
    let legacy = || LegacyParts {
        request_uri: message.request_uri().as_bytes(),
        from_tag: message.from_tag().unwrap_or_default().as_bytes(),
        call_id: message.call_id().unwrap_or_default().as_bytes(),
        cseq: message.cseq().map_or(0, |cseq| cseq.number),
        top_via: message.headers(HeaderName::Via).next().unwrap_or_default(),
    };
    let branch = via.and_then(|via| via.branch().map(str::as_bytes));
    ServerKey::new(branch, &sent_by, message.method().as_bytes(), kind, legacy)
}
