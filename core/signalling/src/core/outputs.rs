//! From the transaction layer to the edges: what leaves, what timed out, what is forgotten. And the ladder.

use std::borrow::Cow;
use std::sync::Arc;

use belfry_signal::now_unix_nanos;
use belfry_sip_proto::transaction::{Output, TransactionId};

use super::{Core, now};
use crate::edges::Way;
use crate::received::Received;
use crate::signals::{MethodName, Passing, SendFault, Way as Direction};

impl Core {
    /// Does everything that the transaction layer wants done. Events may lead to more outputs; all are done here.
    pub(super) fn drain_outputs(&mut self) {
        while let Some(output) = self.transactions.next_output() {
            match output {
                Output::Transmit { id, path, bytes, is_repeat } => self.transmit(id, &path, bytes, is_repeat),
                Output::TimedOut { id } => {
                    if !self.is_probe_unsendable(id) {
                        self.on_branch_timeout(id);
                    }
                }
                Output::Terminated { id } => {
                    self.exchanges.remove(&id);
                    self.branches.remove(&id);
                    self.routine.remove(&id);
                }
            }
        }
    }

    /// Sends a message that belongs to a transaction.
    fn transmit(&mut self, id: TransactionId, way: &Arc<Way>, bytes: Vec<u8>, is_repeat: bool) {
        // A repeat is never routine.
        if !is_repeat && self.routine.contains(&id) || self.gateways.asked.contains_key(&id) {
            self.signals.message_counted(way.method, status_of(&bytes), Direction::Sent, is_repeat);
        } else {
            self.message_sent(way, &bytes, is_repeat);
        }
        if let Err(fault) = self.edges.send(&way.edge, way.target.clone(), id.0, bytes) {
            self.on_send_failed(id.0, fault);
        }
    }

    /// Sends a message without a transaction: the ACK of a 2xx, or a stateless refusal. Nobody learns of a failure.
    pub(crate) fn send_plain(&mut self, way: &Way, bytes: Vec<u8>) {
        self.message_sent(way, &bytes, false);
        if let Err(fault) = self.edges.send(&way.edge, way.target.clone(), 0, bytes) {
            self.signals.send_failed(fault);
        }
    }

    /// A message did not leave.
    pub(super) fn on_send_failed(&mut self, id: u64, fault: SendFault) {
        self.signals.send_failed(fault);
        let id = TransactionId(id);
        if self.is_probe_unsendable(id) {
            return;
        }
        if self.branches.get(&id).is_some_and(|branch| !branch.is_over) {
            self.on_branch_unsendable(id, fault);
            self.transactions.abandon(id, now());
        }
    }

    /// A message came: the ladder takes it as it was on the wire.
    pub(crate) fn message_received(&mut self, received: &mut Received, is_repeat: bool) {
        let bytes = std::mem::take(&mut received.wire);
        self.signals.message_counted(
            received.method,
            received.message.status(),
            Direction::Received,
            is_repeat,
        );
        self.signals.message_told(passing(received, is_repeat, &received.cseq_text(), &bytes));
    }

    fn message_sent(&self, way: &Way, bytes: &[u8], is_repeat: bool) {
        // The ACK of a failed INVITE travels in its INVITE's transaction.
        let is_ack = way.method == MethodName::Invite && bytes.starts_with(b"ACK ");
        let (method, cseq) = if is_ack {
            (MethodName::Ack, Cow::Owned(way.cseq.replace("INVITE", "ACK")))
        } else {
            (way.method, Cow::Borrowed(&*way.cseq))
        };
        let status = status_of(bytes);
        self.signals.message_counted(method, status, Direction::Sent, is_repeat);
        self.signals.message_told(Passing {
            way: Direction::Sent,
            method,
            status,
            call_id: &way.call_id,
            trace_id: way.trace_id,
            cseq: &cseq,
            transport: way.transport,
            peer: way.peer,
            is_repeat,
            unix_nanos: now_unix_nanos(),
            bytes,
        });
    }
}

/// A message that came, for the ladder.
pub(super) fn passing<'a>(
    received: &'a Received,
    is_repeat: bool,
    cseq: &'a str,
    bytes: &'a [u8],
) -> Passing<'a> {
    Passing {
        way: Direction::Received,
        method: received.method,
        status: received.message.status(),
        call_id: received.told_as.as_deref().unwrap_or(received.call_id()),
        trace_id: received.trace_id,
        cseq,
        transport: received.transport,
        peer: Some(received.source),
        is_repeat,
        unix_nanos: received.unix_nanos,
        bytes,
    }
}

/// The status code of a message that we made or edited; `None` for requests.
fn status_of(bytes: &[u8]) -> Option<u16> {
    let rest = bytes.strip_prefix(b"SIP/2.0 ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}
