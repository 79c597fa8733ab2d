//! Routing a request: what the table decides becomes targets; limits and fraud are looked at; emergencies pass.
//!
//! Not here: the rules (the routing crate) and the forwarding itself.

use std::sync::Arc;
use std::time::Duration;

use belfry_relay_api::Leg;
use belfry_routing::{
    Caller, Decision, Hop as Way, Local, Outcome, Question, Reason, Refusal, Subject, TrunkId,
};
use belfry_signal::now_unix_nanos;
use belfry_sip_proto::forking::{Advance, BranchIndex, Group, StatusSet};
use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{HeaderName, NameAddr, OwnedMessage, Uri};

use super::forward::Trouble;
use super::is_dialog_forming;
use crate::calls::{Meter, OnTrunk};
use crate::core::{Core, Purpose, now, unix_seconds};
use crate::exchange::{Destination, Failure, NextHop, PeerCredentials, Policy, TargetSet, TrunkWay};
use crate::location::{Aor, Called, targets_of};
use crate::received::Received;
use crate::routes::{FraudAction, RouteOutcome, Routed, TrunkOutcome};
use crate::signals::{CallCause, Decision as Decided, MethodName, SendFault};

/// Who sends a request, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A subscriber who has shown who it is.
    Subscriber(Aor),
    /// Another network.
    Trunk(TrunkId),
    /// Somebody who calls for help and need not show who it is.
    Unknown(Aor),
}

/// Ways that are worth trying, and whether some were left out.
struct Alive {
    ways: Vec<Way>,
    is_narrowed: bool,
}

/// A Request-URI as the table asks for it.
struct Dialled {
    user: String,
    domain: String,
    is_telephone: bool,
    context: Option<String>,
    is_emergency_urn: bool,
}

impl Core {
    /// Whether an INVITE begins a call to an emergency number: such calls pass before every limit and overload.
    pub(super) fn is_emergency(&self, request: &Received) -> bool {
        if request.method != MethodName::Invite || request.is_in_dialog() {
            return false;
        }
        let Some(uri) = request.message.uri() else { return false };
        if uri.is_emergency() {
            return true;
        }
        let is_ours = !uri.is_sip() || self.domain_of(&uri).is_some();
        let Some(user) = uri.user_unescaped().filter(|_| is_ours) else { return false };
        let caller = request.message.from().and_then(|from| self.domain_of(&from.uri));
        let user = user.split(';').next().unwrap_or_default();
        self.routes.table.is_emergency(user, caller.as_deref())
    }

    /// The trunk that sends a request, by its address or the name in its certificate.
    pub(crate) fn trunk_of(&self, request: &Received) -> Option<TrunkId> {
        let table = &self.routes.table;
        let named = request.peer_names.iter().find_map(|name| table.trunk_of_tls_name(name));
        named.or_else(|| table.trunk_of_address(request.source.ip()))
    }

    /// Whether an exchange calls for help.
    pub(super) fn is_help(&self, id: TransactionId) -> bool {
        self.exchanges.get(&id).is_some_and(|exchange| exchange.is_emergency)
    }

    /// Whether a request that calls for help may do without showing who sends it.
    pub(super) fn may_stay_unknown(&self, id: TransactionId) -> bool {
        self.is_help(id) && !self.routes.table.is_emergency_authenticated()
    }

    /// Routes a request of somebody who calls for help, as the one who it claims to be.
    pub(super) fn route_unknown(&mut self, id: TransactionId, request: &Arc<Received>) {
        let claimed = request.message.from().and_then(|from| self.aor_of(&from.uri));
        let domain = self.config.domains.first().cloned().unwrap_or_default();
        let aor = claimed.unwrap_or(Aor { user: "anonymous".to_owned(), domain });
        self.route(id, request, &Sender::Unknown(aor));
    }

    /// Whether there is room for a request that may be refused: the last transactions and calls are kept for those who
    /// call for help.
    pub(super) fn has_room_for(&self, request: &Received) -> bool {
        let is_new =
            !request.is_in_dialog() && !matches!(request.method, MethodName::Cancel | MethodName::Ack);
        !is_new || self.transactions.len() <= self.config.transactions_max
    }

    /// Decides where a request goes, and sets out.
    pub(super) fn route(&mut self, id: TransactionId, request: &Arc<Received>, sender: &Sender) {
        if self.is_cancelled(id) {
            return;
        }
        if let Sender::Trunk(trunk) = sender
            && let Some(trunk) = self.routes.table.trunk(*trunk)
        {
            self.signals.routing.came_from_trunk(self.routes.trunk_label(&trunk.name));
        }
        let began = now_unix_nanos();
        let gruu = request.message.uri().filter(Uri::is_gruu).and_then(|uri| self.called_of(&uri, began));
        let called = match &gruu {
            Some(gruu) => Some(Dialled::device(&gruu.aor)),
            None => self.dialled(request),
        };
        let record_called = called.as_ref().map(|called| called.aor());
        let record_caller = match sender {
            Sender::Subscriber(aor) | Sender::Unknown(aor) => Some(aor),
            Sender::Trunk(_) => None,
        };
        let is_invite = request.method == MethodName::Invite;
        if is_invite && !self.open_call(id, request, record_caller, record_called.as_ref()) {
            // The same call came twice by different ways (RFC 3261 section 8.2.2.2).
            return self.fail(id, Failure::plain(482, CallCause::Rejected));
        }
        self.note_calling_trunk(id, sender);
        let Some(called) = called else {
            return self.fail(id, Failure::plain(404, CallCause::UnknownCustomer));
        };
        let claimed = self.claimed_number(request, sender);
        let caller = match sender {
            Sender::Subscriber(aor) | Sender::Unknown(aor) => {
                Caller::Subscriber { user: &aor.user, domain: &aor.domain }
            }
            Sender::Trunk(trunk) => Caller::Trunk { trunk: *trunk, claimed: claimed.as_deref() },
        };
        let routes = Arc::clone(&self.routes);
        let question = Question {
            caller,
            user: &called.user,
            domain: &called.domain,
            is_telephone: called.is_telephone,
            context: called.context.as_deref(),
            is_emergency_urn: called.is_emergency_urn,
            unix_seconds: i64::try_from(unix_seconds()).unwrap_or(i64::MAX),
            random: rand::random(),
        };
        let mut decision = routes.table.decide(&question, &mut ());
        if let Some(Called { aor, .. }) = &gruu
            && !matches!(decision.outcome, Outcome::Refused(_))
        {
            // A GRUU means one device of one subscriber, whatever its user part looks like (RFC 5627).
            decision.outcome = Outcome::Local(Local { user: aor.user.clone(), domain: aor.domain.clone() });
        }
        self.note_decision(id, &decision);
        if matches!(sender, Sender::Unknown(_)) && (!decision.is_emergency || gruu.is_some()) {
            // What calls for help by its looks and goes elsewhere by the rules is a call of nobody.
            self.decided(id, Decided::Refuse, "unknown caller, and no emergency");
            return self.fail(id, Failure::plain(403, CallCause::Denied));
        }
        if is_invite && let Err(reason) = self.let_in(id, request, caller, sender, &decision) {
            decision.outcome = Outcome::Refused(Refusal { reason });
        }
        self.tell_route(id, request, &decision, began);
        if is_invite && let Err(failure) = self.pay(id, sender, &called.user, &decision) {
            return self.fail(id, failure);
        }
        let instance = gruu.and_then(|gruu| gruu.instance);
        self.follow(id, request, sender, instance, decision);
    }

    /// Asks the account of a subscriber, if it has one, to pay for a call; calls for help, and from trunks, are nobody's.
    fn pay(
        &mut self,
        id: TransactionId,
        sender: &Sender,
        dialled: &str,
        decision: &Decision,
    ) -> Result<(), Failure> {
        match (sender, &decision.outcome) {
            (_, Outcome::Refused(_)) => Ok(()),
            (Sender::Subscriber(aor), _) if !decision.is_emergency => {
                self.take_credit(id, aor, dialled, decision)
            }
            _ => Ok(()),
        }
    }

    /// Counts a call against limits and shows it to the guard.
    fn let_in(
        &mut self,
        id: TransactionId,
        request: &Received,
        caller: Caller<'_>,
        sender: &Sender,
        decision: &Decision,
    ) -> Result<(), Reason> {
        if matches!(decision.outcome, Outcome::Refused(_)) {
            return Ok(());
        }
        let routes = Arc::clone(&self.routes);
        let admitted = self.usage.admit(&routes.table, decision, caller, now_unix_nanos())?;
        let key = self.exchanges.get(&id).and_then(|exchange| exchange.call.clone());
        let meter = self.guarded(request, sender, decision)?;
        if let Some(call) = key.and_then(|key| self.calls.get_mut(&key)) {
            call.hold.admitted = Some(admitted);
            call.hold.meter = meter;
        }
        Ok(())
    }

    /// What the guard says of a call to trunks; emergencies and calls inside are none of its business.
    fn guarded(
        &mut self,
        request: &Received,
        sender: &Sender,
        decision: &Decision,
    ) -> Result<Option<Meter>, Reason> {
        let (Outcome::Trunks(ways), Some(number), false) =
            (&decision.outcome, decision.called, decision.is_emergency)
        else {
            return Ok(None);
        };
        let routes = Arc::clone(&self.routes);
        let mut subjects = vec![Subject::Tenant((&*decision.tenant).into())];
        if let Sender::Subscriber(aor) = sender {
            subjects.insert(0, Subject::Subscriber(aor.key().into()));
        }
        let destination = routes.table.destination_of(&number);
        let is_home = routes.table.is_home(&decision.tenant, &number);
        let fraud = routes.table.fraud();
        let judgement = self.guard.judge(fraud, &subjects, destination, is_home, unix_seconds());
        let tenant = routes.tenant_label(&decision.tenant);
        let signals = &self.signals.routing;
        if judgement.unwatched > 0 {
            signals.fraud_unwatched(judgement.unwatched);
        }
        let alerted = judgement.alerts.into_iter().map(|alert| (alert, FraudAction::Alerted));
        let blocked = judgement.block.map(|alert| (alert, FraudAction::Blocked));
        let is_blocked = blocked.is_some();
        for (alert, action) in alerted.chain(blocked) {
            let subject = match alert.subject {
                Subject::Subscriber(address) => address,
                Subject::Tenant(name) => name,
            };
            let call_id = request.call_id();
            signals.fraud_suspected(alert.suspicion, action, &tenant, subject.into(), call_id);
        }
        if is_blocked {
            return Err(Reason::Fraud);
        }
        let cost = ways.first().map(|way| way.cost).unwrap_or_default();
        Ok(Some(Meter { subjects, cost }))
    }

    /// The decision as span and count.
    fn tell_route(&self, id: TransactionId, request: &Received, decision: &Decision, began: u64) {
        let Some(parent) = self.exchanges.get(&id).map(|exchange| exchange.span) else { return };
        let (outcome, reason, ways) = match &decision.outcome {
            Outcome::Local(_) => (RouteOutcome::Local, None, 1),
            Outcome::Trunks(ways) => (RouteOutcome::Trunk, None, ways.len()),
            Outcome::Refused(refusal) => (RouteOutcome::Refused, Some(refusal.reason), 0),
        };
        let first = match &decision.outcome {
            Outcome::Trunks(ways) => ways.first().and_then(|way| self.routes.table.trunk(way.trunk)),
            Outcome::Local(_) | Outcome::Refused(_) => None,
        };
        self.signals.routing.routed(Routed {
            outcome,
            reason,
            tenant: self.routes.tenant_label(&decision.tenant),
            trunk: first.map(|trunk| self.routes.trunk_label(&trunk.name)),
            ways,
            is_emergency: decision.is_emergency,
            call_id: request.call_id(),
            parent,
            began_unix_nanos: began,
        });
    }

    /// Does what was decided.
    fn follow(
        &mut self,
        id: TransactionId,
        request: &Arc<Received>,
        sender: &Sender,
        instance: Option<String>,
        decision: Decision,
    ) {
        let targets = match decision.outcome {
            Outcome::Refused(Refusal { reason }) => {
                self.decided(id, Decided::Refuse, reason.as_str());
                return self.fail(id, Failure::plain(reason.status(), cause_of(reason)));
            }
            Outcome::Local(local) => {
                let aor = Aor { user: local.user, domain: local.domain };
                let called = Called { aor, instance };
                let devices = self.devices_of(&called, now_unix_nanos());
                let mut targets = targets_of(&devices, self.config.fork_ring_timeout);
                let is_forked = targets.len() > 1 || targets.iter().any(|group| group.targets.len() > 1);
                match is_forked {
                    true => self.decided(id, Decided::Fork, "several contacts"),
                    false if targets.is_empty() => self.decided(id, Decided::Route, "not registered"),
                    false => self.decided(id, Decided::Route, "registered"),
                }
                if targets.is_empty() {
                    return self.look_up(id, Purpose::Callee, called.aor.user, called.aor.domain);
                }
                self.hide_identity(request, sender, &mut targets);
                targets
            }
            Outcome::Trunks(ways) => {
                let ways = self.ways_alive(ways, decision.is_emergency);
                let reason =
                    if ways.is_narrowed { "trunks, without gateways that are down" } else { "trunks" };
                self.decided(id, Decided::Route, reason);
                self.trunk_targets(request, &ways.ways, decision.is_emergency)
            }
        };
        let is_recorded = is_dialog_forming(request.method);
        let used = self.routes_used(&request.message).count;
        self.begin_forward(id, targets, used, is_recorded, Leg::Caller);
    }

    /// The ways without gateways that are known to be down. Should all be, they are tried all the same, because OPTIONS
    /// are not calls; and who calls for help leaves nothing untried.
    fn ways_alive(&self, ways: Vec<Way>, is_emergency: bool) -> Alive {
        let is_down = |way: &Way| {
            let trunk = self.routes.table.trunk(way.trunk);
            trunk.is_some_and(|trunk| self.gateways.probes.is_down(&trunk.name, way.gateway))
        };
        let (down, mut alive): (Vec<Way>, Vec<Way>) = ways.into_iter().partition(is_down);
        if down.is_empty() || alive.is_empty() {
            alive.extend(down);
            return Alive { ways: alive, is_narrowed: false };
        }
        alive.extend(down.into_iter().filter(|_| is_emergency));
        Alive { ways: alive, is_narrowed: !is_emergency }
    }

    /// The ways as targets: one after another, all to the same number.
    fn trunk_targets(&self, request: &Received, ways: &[Way], is_emergency: bool) -> TargetSet {
        let mut targets = Vec::with_capacity(ways.len());
        let now = now();
        let is_quiet = |way: &&Way| {
            let trunk = self.routes.table.trunk(way.trunk);
            trunk.is_some_and(|trunk| self.gateways.quiet.is_quiet(&trunk.name, way.gateway, now))
        };
        let (quiet, heard): (Vec<&Way>, Vec<&Way>) = ways.iter().partition(is_quiet);
        for way in heard.into_iter().chain(quiet) {
            let Some(trunk) = self.routes.table.trunk(way.trunk) else { continue };
            let Some(gateway) = trunk.gateways.get(usize::from(way.gateway)) else { continue };
            let uri = gateway.uri();
            let Some(next_hop) = Uri::parse(&uri).and_then(|uri| NextHop::of_uri(&uri)) else {
                continue;
            };
            let credentials = trunk.user.as_ref().and_then(|user| {
                let password = self.routes.passwords.get(&trunk.name)?.clone();
                Some(PeerCredentials { username: user.to_string(), password })
            });
            let policy = Policy {
                name: Arc::clone(&trunk.name),
                credentials,
                remove: IDENTITY_HEADERS.map(str::to_owned).to_vec(),
                add: self.identity(request, trunk, way),
            };
            let destination = Destination {
                uri: Some(gateway.uri_of(&way.called)),
                policy: Some(Arc::new(policy)),
                trunk: Some(TrunkWay {
                    name: Arc::clone(&trunk.name),
                    gateway: way.gateway,
                    cost: way.cost,
                    is_emergency,
                    is_redirected: false,
                }),
                ..Destination::next_hop(next_hop)
            };
            targets.push(Group {
                advance: Advance::On(StatusSet::of(&trunk.failover_codes)),
                silence: Some(Duration::from_secs(trunk.response_timeout_seconds.into())),
                ..Group::new(vec![destination])
            });
        }
        targets
    }

    /// What a trunk is told of the caller (RFC 3325).
    fn identity(
        &self,
        request: &Received,
        trunk: &belfry_routing::TrunkEntry,
        way: &Way,
    ) -> Vec<(String, String)> {
        let is_private = !trunk.is_trusted && wants_privacy(&request.message);
        let is_told = trunk.identity == belfry_routing::Identity::Asserted && !is_private;
        let (Some(caller), true) = (&way.caller, is_told) else { return Vec::new() };
        let domain = self.config.domains.first().map_or("localhost", String::as_str);
        let value = format!("<sip:{caller}@{domain};user=phone>");
        vec![("P-Asserted-Identity".to_owned(), value)]
    }

    /// Takes asserted identities away that nobody whom we believe has asserted, or that the caller wants hidden (RFC
    /// 3325 sections 5 and 7).
    fn hide_identity(&self, request: &Received, sender: &Sender, targets: &mut TargetSet) {
        let has_one = request.message.header(HeaderName::PAssertedIdentity).is_some();
        let is_believed = match sender {
            Sender::Trunk(trunk) => self.routes.table.trunk(*trunk).is_some_and(|trunk| trunk.is_trusted),
            Sender::Subscriber(_) | Sender::Unknown(_) => false,
        };
        if !has_one || is_believed && !wants_privacy(&request.message) {
            return;
        }
        let policy = Policy { remove: vec!["P-Asserted-Identity".to_owned()], ..Policy::default() };
        let policy = Arc::new(policy);
        for destination in targets.iter_mut().flat_map(|group| &mut group.targets) {
            destination.policy = Some(Arc::clone(&policy));
            for alternate in &mut destination.alternates {
                alternate.policy = Some(Arc::clone(&policy));
            }
        }
    }

    /// What another network says of its caller: what it asserts when it is believed, or its From.
    fn claimed_number(&self, request: &Received, sender: &Sender) -> Option<String> {
        let Sender::Trunk(trunk) = sender else { return None };
        let is_trusted = self.routes.table.trunk(*trunk).is_some_and(|trunk| trunk.is_trusted);
        let asserted = request.message.header(HeaderName::PAssertedIdentity).filter(|_| is_trusted);
        let asserted = asserted.and_then(|value| user_of(&NameAddr::parse(value)?.uri));
        asserted.or_else(|| user_of(&request.message.from()?.uri))
    }

    /// The Request-URI as the table asks for it; `None` when it names somebody else's domain.
    fn dialled(&self, request: &Received) -> Option<Dialled> {
        let uri = request.message.uri()?;
        let home = || self.config.domains.first().cloned().unwrap_or_default();
        if uri.is_emergency() {
            return Some(Dialled {
                user: String::new(),
                domain: home(),
                is_telephone: false,
                context: None,
                is_emergency_urn: true,
            });
        }
        let written = uri.user_unescaped().filter(|user| !user.is_empty())?;
        let is_telephone = !uri.is_sip() || uri.param("user").flatten() == Some("phone");
        // A telephone number may carry its parameters within the user part (RFC 3261 section 19.1.6).
        let mut parts = written.split(';');
        let user = if is_telephone { parts.next().unwrap_or_default() } else { &written };
        let inside = parts.find_map(|part| part.strip_prefix("phone-context=")).map(str::to_owned);
        let context = inside.or_else(|| uri.param("phone-context").flatten().map(str::to_owned));
        let domain = if uri.is_sip() { self.domain_of(&uri)? } else { home() };
        Some(Dialled { user: user.to_owned(), domain, is_telephone, context, is_emergency_urn: false })
    }

    /// Takes a place on the trunk that a branch is about to leave by; the one before it is given back. The error is
    /// that the trunk takes no call now.
    pub(super) fn enter_trunk(&mut self, id: TransactionId, way: &TrunkWay) -> Result<(), Failure> {
        let Some(exchange) = self.exchanges.get(&id).filter(|exchange| exchange.is_setup) else {
            return Ok(());
        };
        let (key, span) = (exchange.call.clone(), exchange.span);
        let Some(call) = key.as_ref().and_then(|key| self.calls.get_mut(key)) else { return Ok(()) };
        // The place on the trunk that failed is free before the next one is asked for: it may be the same.
        call.hold.on_trunk = None;
        call.whose.called_trunk = Some(Arc::clone(&way.name));
        let routes = Arc::clone(&self.routes);
        let entered = self.usage.enter_trunk(&routes.table, &way.name, way.is_emergency, now_unix_nanos());
        let outcome = match &entered {
            Ok(_) => TrunkOutcome::Entered,
            Err(belfry_routing::Full::Rate) => TrunkOutcome::Rate,
            Err(belfry_routing::Full::Calls | belfry_routing::Full::Gone) => TrunkOutcome::Full,
        };
        let label = routes.trunk_label(&way.name);
        self.signals.routing.trunk_tried(label, outcome, &call.key, span);
        let pass = entered.map_err(|_| Failure::plain(503, CallCause::TrunkFull))?;
        call.hold.on_trunk = Some(OnTrunk { way: way.clone(), _pass: pass });
        if let Some(meter) = &mut call.hold.meter {
            meter.cost = way.cost;
        }
        Ok(())
    }

    /// A branch over a trunk failed.
    pub(super) fn note_trunk_failure(&mut self, id: TransactionId, branch: BranchIndex, trouble: Trouble) {
        if trouble == Trouble::Ours {
            return;
        }
        let status = match trouble {
            Trouble::Answered(status) => status,
            Trouble::Silent => 408,
            Trouble::NotSent(_) | Trouble::Ours => 503,
        };
        let Some(way) = self.try_of(id, branch).and_then(|known| known.destination.trunk.clone()) else {
            return;
        };
        match trouble {
            _ if way.is_redirected => {}
            Trouble::Silent | Trouble::NotSent(SendFault::Unreachable) => {
                let (now, lifetime) = (now(), self.config.dead_next_hop_timeout);
                self.gateways.quiet.note(&way.name, way.gateway, now + lifetime, now);
            }
            Trouble::Answered(_) => self.gateways.quiet.heard(&way.name, way.gateway),
            Trouble::NotSent(_) | Trouble::Ours => {}
        }
        let label = self.routes.trunk_label(&way.name);
        self.signals.routing.trunk_failed(label, status);
    }

    /// A call was answered: from now on it costs.
    pub(super) fn note_trunk_answer(&mut self, key: &str) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if let Some(on_trunk) = &call.hold.on_trunk {
            if !on_trunk.way.is_redirected {
                self.gateways.quiet.heard(&on_trunk.way.name, on_trunk.way.gateway);
            }
            let label = self.routes.trunk_label(&on_trunk.way.name);
            self.signals.routing.trunk_answered(label);
            if let Some(meter) = &call.hold.meter {
                self.guard.answered(&meter.subjects, meter.cost, unix_seconds());
            }
        }
    }
}

impl Dialled {
    /// A device of a subscriber, by its own address.
    fn device(aor: &Aor) -> Self {
        let (user, domain) = (aor.user.clone(), aor.domain.clone());
        Self { user, domain, is_telephone: false, context: None, is_emergency_urn: false }
    }

    fn aor(&self) -> Aor {
        Aor { user: self.user.clone(), domain: self.domain.clone() }
    }
}

/// Headers by which callers say who they are, beside From.
const IDENTITY_HEADERS: [&str; 2] = ["P-Asserted-Identity", "P-Preferred-Identity"];

/// Whether the caller wants its identity kept from who is not trusted (RFC 3323 section 4.2, RFC 3325 section 9.3).
fn wants_privacy(message: &OwnedMessage) -> bool {
    message.header(HeaderName::Privacy).is_some_and(|value| {
        let text = String::from_utf8_lossy(value).to_ascii_lowercase();
        text.split([';', ',']).any(|part| matches!(part.trim(), "id" | "user"))
    })
}

fn user_of(uri: &Uri<'_>) -> Option<String> {
    let user = uri.user_unescaped()?;
    Some(user.split(';').next().unwrap_or_default().to_owned())
}

/// What the call record says of a refusal.
fn cause_of(reason: Reason) -> CallCause {
    match reason {
        Reason::NumberInvalid | Reason::NumberUnknown => CallCause::UnknownCustomer,
        Reason::NoTrunk => CallCause::NoRoute,
        Reason::CalledBlocked
        | Reason::CalledBlockedByTenant
        | Reason::CallerBlocked
        | Reason::CallerBlockedByTenant
        | Reason::Barred => CallCause::Blocked,
        Reason::Fraud => CallCause::Fraud,
        Reason::SubscriberFull
        | Reason::CalledFull
        | Reason::TenantFull
        | Reason::TenantRate
        | Reason::EmergencyFull => CallCause::LimitReached,
        Reason::TrunkFull | Reason::TrunkRate => CallCause::TrunkFull,
    }
}
