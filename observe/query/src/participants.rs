//! Who talks to whom in a call: names for the columns of a ladder.
//!
//! Belfry's own nodes see every message, each with one peer. The peer of the first INVITE that came is the caller,
//! the peer of the first INVITE that went is the callee; everyone else is an address.
//! Of messages that others captured both ends are known: who sent the first INVITE is the caller, who got it and sent
//! it to nobody else is the callee.

use std::net::SocketAddr;

use belfry_events::Stamped;
use belfry_signal::record::{Direction, SipMessage};

/// What a participant is in the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Caller,
    /// One of our own nodes.
    Node,
    Callee,
    Other,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Node => "node",
            Self::Callee => "callee",
            Self::Other => "other",
        }
    }
}

/// One column of the ladder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Participant {
    /// Unique among the participants.
    pub(crate) label: String,
    pub(crate) role: Role,
    /// Where it is, unless it is one of ours.
    pub(crate) address: Option<SocketAddr>,
}

/// The participants of a call in the order of their columns: caller, our nodes, callee, others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Participants {
    pub(crate) list: Vec<Participant>,
}

impl Participants {
    /// Reads them off the messages, which are in order of time.
    pub(crate) fn of(messages: &[Stamped<SipMessage>]) -> Self {
        if messages.iter().any(|message| captured_source(&message.value).is_some()) {
            return Self::of_captured(messages);
        }
        let first_invite = |direction: Direction| {
            messages
                .iter()
                .map(|message| &message.value)
                .find(|message| message.direction == direction && message.summary == "INVITE")
                .map(|message| *message.peer.reveal())
        };
        let caller = first_invite(Direction::Received)
            .or_else(|| messages.first().map(|message| *message.value.peer.reveal()));
        let callee = first_invite(Direction::Sent).filter(|callee| Some(*callee) != caller);
        let mut participants = Self::default();
        if let Some(caller) = caller {
            participants.add("caller".to_owned(), Role::Caller, Some(caller));
        }
        for message in messages {
            participants.add(message.value.node.as_ref().to_owned(), Role::Node, None);
        }
        if let Some(callee) = callee {
            participants.add("callee".to_owned(), Role::Callee, Some(callee));
        }
        for message in messages {
            let peer = *message.value.peer.reveal();
            if participants.of_address(peer).is_none() {
                participants.add(peer.to_string(), Role::Other, Some(peer));
            }
        }
        participants
    }

    /// The columns when messages were captured, ours among them or not.
    fn of_captured(messages: &[Stamped<SipMessage>]) -> Self {
        let invites = || messages.iter().map(|message| &message.value).filter(|sip| sip.summary == "INVITE");
        let first = invites().next().or_else(|| messages.first().map(|message| &message.value));
        let caller = first.map(|sip| captured_source(sip).unwrap_or(*sip.peer.reveal()));
        let sends_invite = |address: &SocketAddr| invites().any(|sip| captured_source(sip) == Some(*address));
        let mut reached =
            invites().filter(|sip| sip.direction == Direction::Sent).map(|sip| *sip.peer.reveal());
        let callee = reached.find(|address| !sends_invite(address)).filter(|callee| Some(*callee) != caller);
        let mut participants = Self::default();
        participants.list.extend(caller.map(|address| named("caller", Role::Caller, address)));
        for message in messages {
            let ends = [captured_source(&message.value), Some(*message.value.peer.reveal())];
            for address in ends.into_iter().flatten() {
                if participants.of_address(address).is_none() && Some(address) != callee {
                    participants.add(address.to_string(), Role::Other, Some(address));
                }
            }
            if captured_source(&message.value).is_none() {
                participants.add(message.value.node.as_ref().to_owned(), Role::Node, None);
            }
        }
        participants.list.extend(callee.map(|address| named("callee", Role::Callee, address)));
        participants
    }

    /// The columns of a message: from whom, to whom.
    pub(crate) fn ends(&self, message: &SipMessage) -> (usize, usize) {
        if let Some(source) = captured_source(message) {
            let column = |address| self.of_address(address).unwrap_or_default();
            return (column(source), column(*message.peer.reveal()));
        }
        let peer = self.of_address(*message.peer.reveal()).unwrap_or_default();
        let node = self
            .list
            .iter()
            .position(|participant| participant.role == Role::Node && participant.label == message.node)
            .unwrap_or_default();
        match message.direction {
            Direction::Received => (peer, node),
            Direction::Sent => (node, peer),
        }
    }

    fn of_address(&self, address: SocketAddr) -> Option<usize> {
        self.list.iter().position(|participant| participant.address == Some(address))
    }

    /// Adds a column, unless there is one of that name.
    fn add(&mut self, label: String, role: Role, address: Option<SocketAddr>) {
        if !self.list.iter().any(|other| other.label == label && other.role == role) {
            self.list.push(Participant { label, role, address });
        }
    }
}

fn named(label: &str, role: Role, address: SocketAddr) -> Participant {
    Participant { label: label.to_owned(), role, address: Some(address) }
}

/// Who sent a message that others captured: its node is `AGENT/ADDRESS`. Names of our own nodes have no slash.
fn captured_source(message: &SipMessage) -> Option<SocketAddr> {
    message.node.rsplit_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use belfry_signal::{Pii, TraceId};

    use super::*;

    fn message(node: &str, peer: &str, summary: &'static str, direction: Direction) -> Stamped<SipMessage> {
        let value = SipMessage {
            call_id: Pii::new("c".to_owned()),
            trace_id: TraceId([1; 16]),
            direction,
            transport: "udp".into(),
            peer: Pii::new(peer.parse().expect("an address")),
            node: node.to_owned().into(),
            summary: summary.into(),
            cseq: "1 INVITE".to_owned(),
            retransmission: false,
            bytes: Pii::new(Vec::new()),
        };
        Stamped { unix_nanos: 1, component: "door_hep".into(), value }
    }

    #[test]
    fn captured_messages_have_two_ends() {
        let sent = |from: &str, to: &str, summary| {
            message(
                &format!("hep-1/10.0.0.{from}:5060"),
                &format!("10.0.0.{to}:5060"),
                summary,
                Direction::Sent,
            )
        };
        let mut messages = vec![
            sent("1", "2", "INVITE"),
            sent("2", "3", "INVITE"),
            sent("3", "2", "200"),
            sent("2", "1", "200"),
        ];
        let check = |messages: &[Stamped<SipMessage>], labels: &[&str], ends: &[(usize, usize)]| {
            let participants = Participants::of(messages);
            let found: Vec<&str> = participants.list.iter().map(|one| one.label.as_str()).collect();
            assert_eq!(found, labels);
            let found: Vec<_> = messages.iter().map(|message| participants.ends(&message.value)).collect();
            assert_eq!(found, ends);
        };
        check(&messages, &["caller", "10.0.0.2:5060", "callee"], &[(0, 1), (1, 2), (2, 1), (1, 0)]);
        // Our own edge saw the same call from another side.
        messages.push(message("edge-1", "10.0.0.3:5060", "INVITE", Direction::Received));
        let columns = ["caller", "10.0.0.2:5060", "edge-1", "callee"];
        check(&messages, &columns, &[(0, 1), (1, 3), (3, 1), (1, 0), (3, 2)]);
    }
}
