//! What all parts of one edge share: settings, snapshots that a reload swaps, and the way of a SIP message inwards.

use std::sync::Arc;

use arc_swap::ArcSwap;
use belfry_signal::now_unix_nanos;
use belfry_signalling::handle::{FlowToken, FromEdge, Inbound, PublicAddress, Transport};
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, ListenerCount};
use crate::bans::Bans;
use crate::certificates::Certificates;
use crate::config::{LimitsConfig, SipConfig, TimeoutsConfig};
use crate::cores::Cores;
use crate::flows::Flows;
use crate::geography::Geography;
use crate::peer::Peer;
use crate::routes::Routes;
use crate::signals::{CoreRefusal, Malformed, Method, RefusedRequest, Signals};
use crate::sip_text::{self, Glance};

/// When a phone may try again after a 503 of the edge: long enough to let a core come back, short enough that the
/// customer does not hang up first.
const RETRY_AFTER_SECONDS: u32 = 5;

/// The shared part of one edge.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) node: String,
    pub(crate) signals: Signals,
    pub(crate) limits: LimitsConfig,
    pub(crate) timeouts: TimeoutsConfig,
    pub(crate) sip: SipConfig,
    pub(crate) admission: Admission,
    pub(crate) handshakes: Semaphore,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) geography: ArcSwap<Geography>,
    pub(crate) routes: ArcSwap<Routes>,
    pub(crate) outbound_tls: ArcSwap<ClientConfig>,
    pub(crate) flows: Flows,
    /// Whom the cores have banned.
    pub(crate) bans: Bans,
    pub(crate) cores: Cores,
    /// Where customers reach this edge by SIP, at most one address per transport.
    pub(crate) public_addresses: Vec<PublicAddress>,
    /// Listeners that still take connections.
    pub(crate) accepting: ListenerCount,
    /// Cancelled when no new connection may come in.
    pub(crate) draining: CancellationToken,
    /// Cancelled when everything must end.
    pub(crate) stopping: CancellationToken,
}

impl Edge {
    /// Hands one framed SIP message to the core of its call. Returns what must be sent back when no core takes it.
    pub(crate) fn sip_arrived(
        &self,
        peer: &Peer,
        transport: Transport,
        flow: &FlowToken,
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        let received_unix_nanos = now_unix_nanos();
        self.signals.sip_received(transport, bytes.len());
        let Some(seen) = sip_text::glance(bytes) else {
            self.signals.input_malformed(&peer.listener, Malformed::SipNoCallId, peer.address);
            return None;
        };
        let inbound = Inbound {
            flow: flow.clone(),
            transport,
            source: peer.address.into(),
            region: peer.region.clone(),
            country: peer.country.map(|country| country.to_string()),
            peer_names: peer.names.clone(),
            received_unix_nanos,
            bytes: bytes.to_vec(),
        };
        match self.cores.send(seen.call_id, FromEdge::Message(inbound)) {
            Ok(()) => None,
            Err(reason) => self.refuse(peer, transport, &seen, bytes, reason),
        }
    }

    /// The answer to a datagram for which there is no time.
    pub(crate) fn too_busy(&self, datagram: &[u8]) -> Vec<u8> {
        sip_text::service_unavailable(datagram, RETRY_AFTER_SECONDS)
    }

    /// A connection flow ended.
    pub(crate) fn flow_closed(&self, flow: &FlowToken) {
        self.cores.tell_all(&FromEdge::FlowClosed { flow: flow.clone() });
    }

    fn refuse(
        &self,
        peer: &Peer,
        transport: Transport,
        seen: &Glance<'_>,
        request: &[u8],
        reason: CoreRefusal,
    ) -> Option<Vec<u8>> {
        let Some(method) = seen.request.filter(|method| *method != Method::Ack) else {
            self.signals.message_refused(transport, reason);
            return None;
        };
        let answer = sip_text::service_unavailable(request, RETRY_AFTER_SECONDS);
        self.signals.request_refused(&RefusedRequest {
            transport,
            region: &peer.region,
            source: peer.address,
            call_id: seen.call_id,
            cseq: seen.cseq,
            method,
            is_initial: !seen.has_to_tag,
            reason,
            request,
            answer: Some(&answer),
        });
        Some(answer)
    }
}
