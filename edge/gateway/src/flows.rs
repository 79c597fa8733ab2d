//! The flows that the edge holds (RFC 5626): connections by id, UDP by nothing but its token.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use belfry_signal::{GaugeGuard, now_unix_nanos};
use belfry_signalling::KnownFlows;
use belfry_signalling::handle::{FlowToken, FromEdge, SendFailure, Transport};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::LimitsConfig;
use crate::cores::Core;
use crate::datagrams;
use crate::flow_token::{FlowKey, FlowName};
use crate::signals::{Limit, Signals};
use crate::sip_connect::Peer;
use crate::sip_text;

/// How long a UDP peer is known for having been let in: longer than registrations last.
const KNOWN_FOR: Duration = Duration::from_secs(2 * 3600);

/// A message on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The message.
    pub(crate) bytes: Vec<u8>,
    /// Who wants to know when it cannot be sent.
    pub(crate) report: Option<Report>,
}

/// Who sent a message, for when it cannot be delivered.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) id: u64,
    pub(crate) core: Arc<Core>,
}

impl Report {
    /// Tells the core that its message was not sent.
    pub(crate) fn failed(&self, failure: SendFailure) {
        // A core that cannot even take this is lost; its timers tell it the same later.
        let _ = self.core.send(FromEdge::SendFailed { id: self.id, failure });
    }
}

/// A message for a UDP peer, to be sent together with others.
#[derive(Debug)]
pub(crate) struct Datagram {
    door: usize,
    remote: SocketAddr,
    outgoing: Outgoing,
}

/// All flows of one edge.
#[derive(Debug)]
pub(crate) struct Flows {
    shared: Arc<Shared>,
    key: FlowKey,
    next: AtomicU64,
    udp: OnceLock<Vec<UdpDoor>>,
    /// UDP peers whom the core let in lately, by listener and address.
    known: KnownFlows,
    flows_max: usize,
    outward_max: usize,
    queue_max: usize,
    signals: Signals,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_connection: HashMap<u64, Flow>,
    /// Connections that the edge opened itself, to be used again (RFC 3261 section 18.1.1).
    opened: HashMap<Peer, u64>,
}

#[derive(Clone, Debug)]
struct Flow {
    name: FlowName,
    queue: mpsc::Sender<Outgoing>,
    close: CancellationToken,
}

/// One UDP listener's socket.
#[derive(Clone, Debug)]
pub(crate) struct UdpDoor {
    /// The hash of the listener's name, as in tokens.
    pub(crate) listener: u32,
    /// The socket.
    pub(crate) socket: Arc<UdpSocket>,
    /// Whether it can reach IPv4 peers (else IPv6).
    pub(crate) is_ipv4: bool,
}

/// The end of a flow that its connection's task holds. Dropping it takes the flow out of the table.
#[derive(Debug)]
pub(crate) struct OpenFlow {
    /// The flow's name for the core.
    pub(crate) token: FlowToken,
    /// What to write.
    pub(crate) queue: mpsc::Receiver<Outgoing>,
    /// Cancelled when the flow must end.
    pub(crate) close: CancellationToken,
    name: FlowName,
    /// Whom the edge opened it to, when it did.
    peer: Option<Peer>,
    shared: Arc<Shared>,
    _gauge: GaugeGuard,
}

impl Flows {
    pub(crate) fn new(key: FlowKey, limits: &LimitsConfig, signals: Signals) -> Self {
        // Ids of an earlier life must not name a connection of this one: begin at a random place.
        let next = AtomicU64::new(u64::from(rand::random::<u32>()) << 32);
        Self {
            shared: Arc::default(),
            key,
            next,
            udp: OnceLock::new(),
            known: KnownFlows::new(limits.sip_known_sources_max, limits.sip_known_sources_per_network_max),
            flows_max: limits.sip_flows_max,
            outward_max: limits.sip_outward_max,
            queue_max: limits.sip_flow_queue_max,
            signals,
        }
    }

    /// Says which UDP sockets there are; once, when the runtime runs.
    pub(crate) fn set_udp_doors(&self, doors: Vec<UdpDoor>) {
        let is_first = self.udp.set(doors).is_ok();
        debug_assert!(is_first, "the runtime starts once");
    }

    /// The token of a UDP peer.
    pub(crate) fn udp_token(&self, listener: u32, remote: SocketAddr) -> FlowToken {
        self.key.sign(&FlowName { transport: Transport::Udp, listener, remote, connection: 0 })
    }

    /// Whether the core let this UDP peer in lately.
    pub(crate) fn is_known(&self, listener: u32, remote: SocketAddr, unix_seconds: u64) -> bool {
        self.known.is_known((listener, remote), unix_seconds, KNOWN_FOR)
    }

    /// A new connection's flow.
    pub(crate) fn open(
        &self,
        transport: Transport,
        listener: u32,
        remote: SocketAddr,
    ) -> Result<OpenFlow, Limit> {
        let connection = self.next.fetch_add(1, Ordering::Relaxed).max(1);
        let name = FlowName { transport, listener, remote, connection };
        let (sender, queue) = mpsc::channel(self.queue_max);
        let close = CancellationToken::new();
        let mut table = self.table();
        if table.by_connection.len() >= self.flows_max {
            return Err(Limit::SipFlows);
        }
        table.by_connection.insert(connection, Flow { name, queue: sender, close: close.clone() });
        drop(table);
        let token = self.key.sign(&name);
        let gauge = self.signals.flow_opened(transport);
        Ok(OpenFlow {
            token,
            queue,
            close,
            name,
            peer: None,
            shared: Arc::clone(&self.shared),
            _gauge: gauge,
        })
    }

    /// Sends along the flow that a token names; what goes over UDP is given back for [`Flows::send_datagrams`].
    pub(crate) fn send(
        &self,
        token: &FlowToken,
        outgoing: Outgoing,
    ) -> Result<Option<Datagram>, (Option<Transport>, SendFailure)> {
        let name = self.key.open(token).ok_or((None, SendFailure::BadToken))?;
        let failed = |failure| (Some(name.transport), failure);
        if name.transport == Transport::Udp {
            let door = self.doors().iter().position(|door| door.listener == name.listener);
            let door = door.ok_or(failed(SendFailure::FlowGone))?;
            return Ok(Some(Datagram { door, remote: name.remote, outgoing }));
        }
        let flow = self.table().by_connection.get(&name.connection).cloned();
        let flow = flow.filter(|flow| flow.name == name).ok_or(failed(SendFailure::FlowGone))?;
        enqueue(&flow, outgoing).map(|()| None).map_err(failed)
    }

    /// A datagram to an address, from the first socket that can reach it.
    pub(crate) fn datagram_to(
        &self,
        remote: SocketAddr,
        outgoing: Outgoing,
    ) -> Result<Datagram, SendFailure> {
        let door = self.doors().iter().position(|door| door.is_ipv4 == remote.is_ipv4());
        Ok(Datagram { door: door.ok_or(SendFailure::UnsupportedTransport)?, remote, outgoing })
    }

    /// Sends datagrams, and tells the core of those that did not leave.
    pub(crate) fn send_datagrams(&self, datagrams: &mut Vec<Datagram>) {
        for batch in datagrams.chunk_by(|one, other| one.door == other.door) {
            if let Some(door) = batch.first().and_then(|first| self.doors().get(first.door)) {
                self.send_through(door, batch);
            }
        }
        datagrams.clear();
    }

    /// Sends along a connection that the edge opened to that address before. Gives the message back when there is
    /// none: then the new flow for it is returned and the caller must connect it.
    pub(crate) fn send_or_open(
        &self,
        peer: &Peer,
        outgoing: Outgoing,
    ) -> Result<Option<OpenFlow>, SendFailure> {
        let known = {
            let table = self.table();
            let id = table.opened.get(peer);
            id.and_then(|id| table.by_connection.get(id)).cloned()
        };
        if let Some(flow) = known {
            return enqueue(&flow, outgoing).map(|()| None);
        }
        if self.table().opened.len() >= self.outward_max {
            return Err(SendFailure::QueueFull);
        }
        let mut flow = self.open(peer.transport, 0, peer.address).map_err(|_| SendFailure::QueueFull)?;
        flow.peer = Some(peer.clone());
        let mut table = self.table();
        if let Some(entry) = table.by_connection.get(&flow.name.connection) {
            enqueue(entry, outgoing)?;
        }
        table.opened.insert(peer.clone(), flow.name.connection);
        Ok(Some(flow))
    }

    /// Ends all connection flows.
    pub(crate) fn close_all(&self) {
        for flow in self.table().by_connection.values() {
            flow.close.cancel();
        }
    }

    /// Connection flows that are open.
    pub(crate) fn count(&self) -> usize {
        self.table().by_connection.len()
    }

    fn send_through(&self, door: &UdpDoor, mut batch: &[Datagram]) {
        while let Some(first) = batch.first() {
            let wanted = batch.iter().map(|datagram| (datagram.remote, datagram.outgoing.bytes.as_slice()));
            let sent = match datagrams::send(&door.socket, wanted) {
                Ok(sent) => sent.max(1),
                Err(error) => {
                    // The error is the first one's: the socket is full, or its peer cannot be reached.
                    let is_full = error.kind() == std::io::ErrorKind::WouldBlock;
                    let failure = if is_full { SendFailure::QueueFull } else { SendFailure::Unreachable };
                    self.signals.send_refused(Some(Transport::Udp), failure);
                    if let Some(report) = &first.outgoing.report {
                        report.failed(failure);
                    }
                    batch = &batch[1..];
                    continue;
                }
            };
            let unix_seconds = now_unix_nanos() / 1_000_000_000;
            for datagram in &batch[..sent] {
                if sip_text::lets_in(&datagram.outgoing.bytes) {
                    let (peer, ip) = ((door.listener, datagram.remote), datagram.remote.ip());
                    if !self.known.note(peer, ip, unix_seconds) {
                        self.signals.peer_stayed_unknown();
                    }
                }
                self.signals.sip_sent(Transport::Udp, datagram.outgoing.bytes.len());
            }
            batch = &batch[sent..];
        }
    }

    fn doors(&self) -> &[UdpDoor] {
        self.udp.get().map_or(&[], Vec::as_slice)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader that lets its queue fill is gone for all practical purposes: it loses the connection, so that the core
/// learns it and the phone registers anew.
fn enqueue(flow: &Flow, outgoing: Outgoing) -> Result<(), SendFailure> {
    flow.queue.try_send(outgoing).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => {
            flow.close.cancel();
            SendFailure::QueueFull
        }
        mpsc::error::TrySendError::Closed(_) => SendFailure::FlowGone,
    })
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        let mut table = self.shared.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.by_connection.remove(&self.name.connection);
        if let Some(peer) = self.peer.take()
            && let Entry::Occupied(entry) = table.opened.entry(peer)
            && *entry.get() == self.name.connection
        {
            entry.remove();
        }
        drop(table);
        self.queue.close();
        while let Ok(outgoing) = self.queue.try_recv() {
            if let Some(report) = outgoing.report {
                report.failed(SendFailure::FlowGone);
            }
        }
    }
}
