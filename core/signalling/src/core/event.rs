//! Everything that can happen to the core.

use std::net::IpAddr;
use std::sync::Arc;

use belfry_relay_api::{FromRelay, SessionKey};
use belfry_routing::GatewayKey;
use belfry_sip_proto::forking::BranchIndex;
use belfry_sip_proto::locate::Place;
use belfry_sip_proto::transaction::TransactionId;
use belfry_state::{CallRecord, Error, Lost, Subscriber};
use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::{Core, Holdings, now};
use crate::authority::Ban;
use crate::edges::EdgeEvent;
use crate::exchange::CallKey;
use crate::prepaid::News;
use crate::probing::GatewayState;
use crate::received::Received;
use crate::relays::RelayEvent;
use crate::routes::Active;

/// What comes over links.
#[derive(Debug)]
pub(crate) enum Event {
    /// From an edge.
    Edge(EdgeEvent),
    /// From a relay.
    Relay(RelayEvent),
}

/// What the handle and the keeper of the routes ask for.
#[derive(Debug)]
pub(crate) enum Control {
    /// Who is banned?
    Bans(oneshot::Sender<Vec<Ban>>),
    /// What is held in memory?
    Holdings(oneshot::Sender<Holdings>),
    /// Forgive an address; tells whether it was banned.
    Pardon(IpAddr, oneshot::Sender<bool>),
    /// No new calls.
    Drain,
    /// Stop as soon as the calls that are left have been ended.
    Stop,
    /// Stop as a crash would.
    Kill,
    /// Which gateways are up?
    Gateways(oneshot::Sender<Vec<GatewayState>>),
    /// There is news of accounts that pay in advance.
    Accounts(Box<News>),
    /// From now on calls go by these routes.
    Routes(Arc<Active>),
}

/// A job that came to an end.
#[derive(Debug)]
pub(crate) enum Done {
    /// What is known of the subscriber whom an exchange asked about.
    Subscriber { id: TransactionId, purpose: Purpose, found: Found },
    /// It is known where a next hop is.
    Located { id: TransactionId, branch: BranchIndex, lookup: u32, places: Vec<Place> },
    /// It is known where a gateway is that is to be asked whether it is alive.
    GatewayLocated { key: GatewayKey, uri: String, places: Vec<Place> },
    /// The bindings that one write takes are in the journal, or could not be written.
    Written { batch: u64, written: Result<(), Error> },
    /// The calls of a core that is gone have their records.
    Lost(Vec<CallRecord>),
}

/// What the store knows of a subscriber; the error names why it failed.
pub(crate) type Found = Result<Option<Arc<Subscriber>>, &'static str>;

/// Why a subscriber was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To check a REGISTER's credentials.
    Register,
    /// To check a caller's credentials.
    Caller,
    /// To tell an unknown customer (404) from one who is away (480).
    Callee,
}

/// A timer of the core's own.
#[derive(Clone, Debug)]
pub(crate) enum Alarm {
    /// Timer C of an exchange.
    Ring(TransactionId),
    /// A request other than INVITE has no answer yet.
    Trying(TransactionId),
    /// The relay took too long over a request.
    Relay(u64),
    /// A REGISTER that a fault delays may go on.
    RegisterDelay(TransactionId),
    /// The refusal of wrong credentials has waited long enough.
    Denial(TransactionId),
    /// The record of the call of this epoch takes too long.
    Record(u64),
    /// A call outlived every sensible call.
    Lifetime(CallKey),
    /// A session may not have been refreshed in time.
    SessionOver(CallKey),
    /// A call's money runs out, or the slice of it that it has.
    Credit(CallKey),
    /// A silent session that is no call of ours was not ended by anybody.
    Orphan { relay: Arc<str>, session: SessionKey },
    /// Callers of a core that is gone have given up.
    LostCallers,
    /// Look after everything else.
    Sweep,
}

/// What is to happen when the relay has answered.
#[derive(Debug)]
pub(crate) enum Then {
    /// Forward the exchange's request with the new body.
    Forward { id: TransactionId },
    /// Take a stranger's request to this relay, now that it is known whether that has its session.
    Seek { id: TransactionId, relay: Arc<str> },
    /// Forward a response of a branch with the new body. The branch may be forgotten by then: over a connection, its
    /// transaction ends with the response.
    Respond { exchange: TransactionId, branch: TransactionId, response: Arc<Received> },
    /// Forward the answer of a branch as it is, now that the relay knows again what its phone wants.
    Restore { exchange: TransactionId, branch: TransactionId, response: Arc<Received> },
    /// Forward an ACK with the new body.
    Acknowledge { ack: Arc<Received> },
    /// Close the books of the call of this epoch with the relay's report.
    Close { epoch: u64 },
    /// Count the session that was freed, if the relay had one.
    Free,
    /// The relay knows now whose the session is; or it does not know the session, and the call has no sound.
    Claim { call: CallKey },
}

impl Core {
    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Edge(EdgeEvent::Message(received)) => {
                self.moment = Some(received.unix_nanos);
                self.on_message(*received);
                self.moment = None;
            }
            Event::Edge(EdgeEvent::SendFailed { id, failure }) => self.on_send_failed(id, failure.into()),
            Event::Edge(EdgeEvent::FlowClosed { edge, flow }) => self.on_flow_closed(&edge, &flow),
            Event::Edge(EdgeEvent::Up { node, link, addresses, sender }) => {
                self.edges.connected(Arc::clone(&node), link, addresses, sender);
                self.tell_bans_to(&node);
                self.signals.edge_connected(&node, self.edges.connected_count());
            }
            Event::Edge(EdgeEvent::Down { node, link }) => {
                if self.edges.lost(&node, link) {
                    self.signals.edge_lost(&node, self.edges.connected_count());
                }
            }
            Event::Relay(event) => self.on_relay(event),
        }
    }

    fn on_relay(&mut self, event: RelayEvent) {
        match event {
            RelayEvent::Up { node, link, sender } => {
                self.relays.connected(Arc::clone(&node), link, sender);
                self.signals.relay_connected(&node, self.relays.connected_count());
                self.claim_sessions(&node);
            }
            RelayEvent::Down { node, link } => {
                let orphans = self.relays.lost(link);
                self.signals.relay_lost(&node, self.relays.connected_count());
                for orphan in orphans {
                    self.timers.stop(orphan.timer);
                    self.on_relay_silent(orphan);
                }
            }
            RelayEvent::Message { node, message } => match *message {
                FromRelay::Reply { id, reply } => {
                    if let Some(waiting) = self.relays.take(id) {
                        self.timers.stop(waiting.timer);
                        self.on_relay_reply(waiting, reply);
                    }
                }
                FromRelay::Notice(notice) => self.on_relay_notice(&node, &notice),
            },
        }
    }

    pub(super) fn on_done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Subscriber { id, purpose, found }) => self.on_subscriber(id, purpose, found),
            Ok(Done::Located { id, branch, lookup, places }) => {
                self.lookups = self.lookups.saturating_sub(1);
                self.on_located(id, branch, lookup, places);
            }
            Ok(Done::GatewayLocated { key, uri, places }) => {
                self.lookups = self.lookups.saturating_sub(1);
                self.on_gateway_located(&key, &uri, places);
            }
            Ok(Done::Written { batch, written }) => self.on_written(batch, &written),
            Ok(Done::Lost(records)) => self.on_lost_calls(records),
            // Jobs do not panic themselves and are not aborted.
            Err(_) => self.signals.store_failed("aborted"),
        }
    }

    /// It is known what the store knows of a subscriber.
    pub(crate) fn on_subscriber(&mut self, id: TransactionId, purpose: Purpose, found: Found) {
        match purpose {
            Purpose::Register => self.on_registering_subscriber(id, found),
            Purpose::Caller => self.on_calling_subscriber(id, found),
            Purpose::Callee => self.on_called_subscriber(id, found),
        }
    }

    /// Has something done that takes time. Should it panic, it comes to `otherwise`: whoever waits for it must not wait
    /// for ever.
    pub(crate) fn run_job(&mut self, job: impl Future<Output = Done> + Send + 'static, otherwise: Done) {
        let job = std::panic::AssertUnwindSafe(job).catch_unwind();
        self.jobs.spawn(async move { job.await.unwrap_or(otherwise) });
    }

    pub(super) fn on_time(&mut self) {
        let now = now();
        self.transactions.on_time(now);
        while let Some(alarm) = self.timers.next_due(now) {
            match alarm {
                Alarm::Ring(id) => self.on_ring_timeout(id),
                Alarm::Trying(id) => self.on_no_answer_yet(id),
                Alarm::Relay(id) => {
                    if let Some(waiting) = self.relays.take(id) {
                        self.on_relay_silent(waiting);
                    }
                }
                Alarm::RegisterDelay(id) => self.register(id),
                Alarm::Denial(id) => self.on_denial_due(id),
                Alarm::Record(epoch) => self.on_record_written(epoch, Err("timeout")),
                Alarm::Lifetime(call) => self.on_lifetime_over(&call),
                Alarm::SessionOver(call) => self.on_session_over(&call),
                Alarm::Credit(call) => self.on_credit_due(&call),
                Alarm::Orphan { relay, session } => self.on_orphan(&relay, session),
                Alarm::LostCallers => self.close_lost_calls(Lost::All),
                Alarm::Sweep => self.sweep(),
            }
        }
    }
}
