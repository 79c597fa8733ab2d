//! Who talks to whom in a call: names for the columns of a ladder.
//!
//! Belfry's own nodes see every message, each with one peer. The peer of the first INVITE that came is the caller,
//! the peer of the first INVITE that went is the callee; everyone else is an address.

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

    /// The columns of a message: from whom, to whom.
    pub(crate) fn ends(&self, message: &SipMessage) -> (usize, usize) {
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

    fn add(&mut self, label: String, role: Role, address: Option<SocketAddr>) {
        if !self.list.iter().any(|other| other.label == label && other.role == role) {
            self.list.push(Participant { label, role, address });
        }
    }
}
