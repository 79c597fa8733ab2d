//! One SIP message as it came over an edge's link, read and made ready for the core.
//!
//! Reading happens in the task of the link, so that the core's own task spends its time on decisions.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use belfry_routing::Table;
use belfry_signal::{Region, TraceId, TraceKey};
use belfry_sip_proto::multipart::part_of;
use belfry_sip_proto::{Fault, FaultKind, HeaderName, Limits, Message, OwnedMessage, admit};

use crate::admission::Class;
use crate::handle::{FlowToken, Inbound, Target, Transport};
use crate::signals::MethodName;

/// A message with everything that is known about where it came from.
#[derive(Debug)]
pub(crate) struct Received {
    /// The edge that brought it.
    pub(crate) edge: Arc<str>,
    pub(crate) flow: FlowToken,
    pub(crate) transport: Transport,
    pub(crate) source: SocketAddr,
    pub(crate) region: Region,
    pub(crate) country: Option<String>,
    /// The DNS names that the peer's certificate proves.
    pub(crate) peer_names: Vec<String>,
    pub(crate) unix_nanos: u64,
    /// The trace of its Call-ID.
    pub(crate) trace_id: TraceId,
    /// The message; a request's top Via already has `received` and `rport` (RFC 3261 section 18.2.1, RFC 3581).
    pub(crate) message: OwnedMessage,
    /// The message as it came, when the core thinks of it in another form (`proxy/mask.rs`).
    pub(crate) original: Option<Box<OwnedMessage>>,
    /// The Call-ID that it is told with, when that is not its own.
    pub(crate) told_as: Option<Box<str>>,
    pub(crate) method: MethodName,
    /// What is wrong with it, when something is.
    pub(crate) fault: Option<Fault>,
    /// The bytes as they were on the wire, until the ladder takes them.
    pub(crate) wire: Vec<u8>,
}

impl Received {
    /// Reads what an edge brought.
    ///
    /// # Errors
    /// When it has not even a start line: nobody can answer that.
    pub(crate) fn read(
        edge: Arc<str>,
        inbound: Inbound,
        limits: &Limits,
        trace_key: &TraceKey,
    ) -> Result<Self, Fault> {
        let source = inbound.source.into_inner();
        let wire = inbound.bytes;
        let (message, fault) = Message::scan(&wire[..], limits);
        let Some(message) = message else {
            return Err(fault.unwrap_or(Fault {
                position: 0,
                kind: FaultKind::Empty,
                answer: belfry_sip_proto::Answer::Discard,
            }));
        };
        let fault = fault.or_else(|| message.check().err()).or_else(|| admit(&message).err());
        let message = with_source(message, source).noted();
        let method = MethodName::of(message.method().as_bytes());
        let trace_id = trace_key.trace_of_call(message.call_id().unwrap_or_default());
        Ok(Self {
            trace_id,
            edge,
            flow: inbound.flow,
            transport: inbound.transport,
            source,
            region: inbound.region,
            country: inbound.country,
            peer_names: inbound.peer_names,
            unix_nanos: inbound.received_unix_nanos,
            message,
            original: None,
            told_as: None,
            method,
            fault,
            wire,
        })
    }

    /// The Call-ID; empty when the message has none that can be read.
    pub(crate) fn call_id(&self) -> &str {
        self.message.call_id().unwrap_or_default()
    }

    /// The CSeq as it stands, for the ladder.
    pub(crate) fn cseq_text(&self) -> String {
        self.message.cseq().map_or_else(String::new, |cseq| format!("{} {}", cseq.number, cseq.method))
    }

    /// What it is for the queue. A CANCEL waits where its INVITE does.
    pub(crate) fn class(&self, table: &Table) -> Class {
        let is_begun = !self.message.is_request() || self.method == MethodName::Ack || self.is_in_dialog();
        if is_begun {
            return Class::Begun;
        }
        match matches!(self.method, MethodName::Invite | MethodName::Cancel) && self.is_for_help(table) {
            true => Class::Emergency,
            false => Class::New,
        }
    }

    /// Whether it is addressed to an emergency number of its sender's tenant. Whether the domain is one of ours is not
    /// looked at here: it costs a place in a queue at most.
    fn is_for_help(&self, table: &Table) -> bool {
        let Some(uri) = self.message.uri() else { return false };
        let Some(user) = uri.user_unescaped() else { return uri.is_emergency() };
        let domain = self.message.from().map(|from| from.uri.host().to_ascii_lowercase());
        uri.is_emergency()
            || table.is_emergency(user.split(';').next().unwrap_or_default(), domain.as_deref())
    }

    /// Where answers to this request go, and the address of that place: back along its flow.
    ///
    /// Over UDP without `rport`, a device that sends from another port than it names in its Via and is not behind
    /// a NAT expects the answer where the Via says (RFC 3261 section 18.2.2).
    pub(crate) fn way_back(&self) -> (Target, SocketAddr) {
        let mut peer = self.source;
        if let Some(via) = self.message.top_via().filter(|_| self.transport == Transport::Udp) {
            let port = via.port_or_default();
            let is_open = via.host_ip() == Some(self.source.ip()) && !via.wants_rport();
            if is_open && port != self.source.port() {
                peer.set_port(port);
                let target = Target::Address { transport: Transport::Udp, address: peer, name: None };
                return (target, peer);
            }
        }
        (Target::Flow(self.flow.clone()), peer)
    }

    /// Whether it belongs to a dialog (RFC 3261 section 12.2). A REGISTER never does, whatever tag its To has: what
    /// belongs to a dialog is let through where new requests are not.
    pub(crate) fn is_in_dialog(&self) -> bool {
        self.method != MethodName::Register && self.message.to_tag().is_some()
    }

    /// The session description: the body, or a part of it.
    pub(crate) fn sdp(&self) -> Option<&[u8]> {
        self.message.body().get(self.sdp_range()?)
    }

    /// The body with another session description in the place of its own.
    pub(crate) fn body_with(&self, sdp: &[u8]) -> Vec<u8> {
        let body = self.message.body();
        match self.sdp_range() {
            Some(range) => [&body[..range.start], sdp, &body[range.end..]].concat(),
            None => sdp.to_vec(),
        }
    }

    fn sdp_range(&self) -> Option<Range<usize>> {
        let body = self.message.body();
        if body.is_empty() {
            return None;
        }
        let content_type = self.message.header_text(HeaderName::ContentType)?;
        part_of(&content_type, body, "application/sdp")
    }
}

/// Notes in the top Via of a request where it really came from.
fn with_source(message: Message<'_>, source: SocketAddr) -> OwnedMessage {
    let via = message.top_via().filter(|_| message.is_request());
    let noted = via.and_then(|via| {
        let wants_rport = via.wants_rport();
        let is_there = !wants_rport && via.host_ip() == Some(source.ip());
        if is_there { None } else { message.with_received(source.ip(), wants_rport.then_some(source.port())) }
    });
    noted.unwrap_or_else(|| message.into_owned_message())
}
