//! What the core does about wrong credentials: refusals that wait, bans, and the operator's look at them.

use std::net::IpAddr;
use std::time::Duration;

use belfry_sip_proto::Uri;
use belfry_sip_proto::digest::Credentials;
use belfry_sip_proto::transaction::TransactionId;
use belfry_state::network_of;

use super::{Ban, BanKind};
use crate::config::BannedAnswer;
use crate::core::{Alarm, Core, now};
use crate::exchange::Failure;
use crate::handle::ToEdge;
use crate::received::Received;
use crate::signals::{CallCause, MethodName};

/// Bans that an operator sees at a time.
const BANS_SHOWN_MAX: usize = 1_000;
/// Bans that edges are told of; what is more, the core turns away alone.
const BANS_TOLD_MAX: usize = 16_384;
/// Bans in one order: with IPv6 addresses, 12 KiB of a frame.
const BANS_PER_ORDER: usize = 512;

impl Core {
    /// Whether a new request comes from a banned address; it has been dealt with then. Requests of dialogs pass, and
    /// so does everything from a trunk, and from where a customer whom the request names is registered: a ban is for
    /// strangers.
    pub(crate) fn is_turned_away(&mut self, request: &Received) -> bool {
        let is_answerable = !matches!(request.method, MethodName::Ack | MethodName::Cancel);
        if !is_answerable
            || request.is_in_dialog()
            || !self.authority.guard.is_source_banned(request.source.ip(), now())
            || self.trunk_of(request).is_some()
            || self.is_at_home(request)
        {
            return false;
        }
        self.signals.customers.request_banned();
        if self.config.guard.banned == BannedAnswer::Refuse {
            self.answer_plain(request, 403, &[]);
        }
        true
    }

    /// Whether credentials are not even looked at, because their user was guessed from there too often.
    pub(crate) fn is_user_banned(&self, request: &Received, user: &str, realm: &str) -> bool {
        let guard = &self.authority.guard;
        guard.bans_count() > 0 && guard.is_user_banned(request.source.ip(), &customer(user, realm), now())
    }

    /// Credentials were right.
    pub(crate) fn credentials_were_right(&mut self, request: &Received, user: &str, realm: &str) {
        if self.authority.guard.has_suspects() {
            self.authority.guard.succeeded(request.source.ip(), &customer(user, realm));
        }
    }

    /// Credentials were wrong: the exchange gets its 403, the later the more often that happened.
    pub(crate) fn deny(&mut self, id: TransactionId, request: &Received, user: &str, realm: &str) {
        let source = request.source.ip();
        let failed = self.authority.guard.failed(source, &customer(user, realm), now());
        self.signals.customers.credentials_were_wrong();
        if let Some(kind) = failed.ban {
            self.signals.customers.ban_began(kind, source, self.authority.guard.bans_count());
            if kind == BanKind::Source {
                self.tell_ban(source, self.config.guard.ban_for);
            }
        }
        if failed.delay.is_zero() || self.denials_waiting >= self.config.guard.delayed_max {
            return self.end_denied(id);
        }
        self.denials_waiting += 1;
        self.timers.set(now() + failed.delay, Alarm::Denial(id));
    }

    /// A refusal has waited long enough.
    pub(crate) fn on_denial_due(&mut self, id: TransactionId) {
        self.denials_waiting = self.denials_waiting.saturating_sub(1);
        self.end_denied(id);
    }

    fn end_denied(&mut self, id: TransactionId) {
        let method = self.exchanges.get(&id).map(|exchange| exchange.request.method);
        match method {
            Some(MethodName::Register) => self.deny_registration(id),
            Some(_) => self.fail(id, Failure::plain(403, CallCause::Denied)),
            // The caller gave up meanwhile.
            None => {}
        }
    }

    /// Whether the user whom a request is from is registered at the address that it comes from.
    fn is_at_home(&self, request: &Received) -> bool {
        let aor = request.message.from().and_then(|from| self.aor_of(&from.uri));
        let bindings = aor.map(|aor| self.bindings_of(&aor, belfry_signal::now_unix_nanos()));
        bindings.into_iter().flatten().any(|binding| binding.source.reveal().ip() == request.source.ip())
    }

    /// Whether the digest-uri of credentials means what the request asks for (RFC 7616 section 3.4.6: it may not
    /// grant another resource).
    ///
    /// Lenient in exactly this: a digest-uri without a user fits every request, and of one with a user any of our own
    /// names stands for any other, port and parameters do not count. Phones write the domain where the request has the
    /// edge's address and the other way round, and SIPp puts the `sip:host:port` there that it sends to, whatever it
    /// calls. A user part that is there must be the request's: credentials for one number do not call another. The realm
    /// and our nonce have been checked, so credentials of another house do not come this far.
    pub(crate) fn is_meant(&self, credentials: &Credentials<'_>, request: &Received) -> bool {
        let (Some(meant), Some(asked)) = (Uri::parse(&credentials.uri), request.message.uri()) else {
            return false;
        };
        if credentials.uri == request.message.request_uri() || (meant.is_sip() && meant.user().is_none()) {
            return true;
        }
        let is_user = meant.user_unescaped() == asked.user_unescaped();
        let is_ours = |uri: &Uri<'_>| uri.is_sip() && self.domain_of(uri).is_some();
        let is_host = meant.host().eq_ignore_ascii_case(asked.host())
            || (is_ours(&meant) && (is_ours(&asked) || !asked.is_sip()));
        is_user && is_host
    }

    /// The bans in force, longest first.
    pub(crate) fn bans(&self) -> Vec<Ban> {
        self.authority.guard.bans(BANS_SHOWN_MAX, now())
    }

    /// An operator forgives an address; whether it was banned. Edges hear of it all the same: they may have the ban of
    /// another core, or of an earlier life of this one.
    pub(crate) fn pardon(&mut self, source: IpAddr) -> bool {
        let was_banned = self.authority.guard.pardon(source);
        if was_banned {
            self.signals.customers.ban_lifted(source, self.authority.guard.bans_count());
        }
        self.tell_ban(source, Duration::ZERO);
        was_banned
    }
}

impl Core {
    /// An edge that comes learns whom it is to turn away, in the place of all that this core told it before.
    pub(crate) fn tell_bans_to(&mut self, edge: &str) {
        let orders = self.ban_orders();
        self.edges.tell_all_bans(Some(edge), &orders);
    }

    /// Tells every edge anew when other networks are to be turned away there than before, and an edge whose link was full.
    /// Bans begin and end, and so do trunks and registrations in banned networks.
    pub(crate) fn follow_bans(&mut self) {
        let told = self.bans_for_edges().into_iter().map(|(network, _)| network).collect();
        if told != self.authority.told {
            self.authority.told = told;
            let orders = self.ban_orders();
            self.edges.tell_all_bans(None, &orders);
        } else if self.edges.is_any_untold() {
            let orders = self.ban_orders();
            self.edges.tell_the_untold(&orders);
        }
    }

    /// Edges turn strangers of a banned network away before they cost us anything.
    fn tell_ban(&mut self, source: IpAddr, left: Duration) {
        let network = network_of(source);
        if left.is_zero() {
            self.authority.told.remove(&network);
        } else if self.is_for_edges(network) && self.authority.told.len() < BANS_TOLD_MAX {
            self.authority.told.insert(network);
        } else {
            return;
        }
        let is_answered = self.is_ban_answered();
        self.edges.tell_ban(&ToEdge::Ban { network, seconds: seconds_of(left), is_answered });
    }

    /// Edges know no trunks and no registrations: a network with one in it is our own business.
    fn is_for_edges(&self, network: IpAddr) -> bool {
        !self.routes.table.is_trunk_in(network) && !self.state.bindings().is_anybody_in(network)
    }

    fn bans_for_edges(&self) -> Vec<(IpAddr, Duration)> {
        let mut bans = self.authority.guard.source_bans(BANS_TOLD_MAX, now());
        bans.retain(|(network, _)| self.is_for_edges(*network));
        bans
    }

    /// All that edges have to know; at least one order.
    fn ban_orders(&self) -> Vec<ToEdge> {
        let bans = self.bans_for_edges();
        let bans: Vec<_> = bans.into_iter().map(|(network, left)| (network, seconds_of(left))).collect();
        let is_answered = self.is_ban_answered();
        let first = bans.get(..bans.len().min(BANS_PER_ORDER)).unwrap_or_default();
        let others = bans.get(first.len()..).unwrap_or_default().chunks(BANS_PER_ORDER);
        let order = |(number, bans): (usize, &[(IpAddr, u32)])| {
            let bans = bans.to_vec();
            ToEdge::Bans { is_first: number == 0, bans, is_answered }
        };
        std::iter::once(first).chain(others).enumerate().map(order).collect()
    }

    fn is_ban_answered(&self) -> bool {
        self.config.guard.banned == BannedAnswer::Refuse
    }
}

/// A rest of a second is one.
fn seconds_of(left: Duration) -> u32 {
    u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

/// A customer as failures are counted for.
fn customer(user: &str, realm: &str) -> String {
    format!("{user}@{realm}")
}
