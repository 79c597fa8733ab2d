//! SIP transactions (RFC 3261 section 17, corrected by RFC 6026): who repeats what, for how long.
//!
//! [`TransactionLayer`] owns every client and server transaction of a core. It takes requests, responses and the
//! time as arguments, says at once what a message is, and queues what is to be sent and what came to an end as
//! [`Output`]s. It knows methods, status codes and opaque bytes; it never looks into a message.
//!
//! Not here: sockets, clocks, parsing, forking (that is the proxy's), and Timer C (the proxy's too).

mod client;
mod key;
mod layer;
mod server;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use key::{ClientKey, LegacyParts, ServerKey};
pub use layer::{ById, ClientRequest, IdSet, OnRequest, OnResponse, TransactionError, TransactionLayer};

/// Names a transaction; never used twice by one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(pub u64);

/// What the state machines need to know of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MethodKind {
    /// INVITE: three messages, and people in between.
    Invite,
    /// ACK: belongs to an INVITE and is never answered.
    Ack,
    /// Everything else, CANCEL and unknown methods included.
    Other,
}

/// The base values of all timers (RFC 3261 table 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Round-trip time estimate.
    pub t1: Duration,
    /// The longest time between repeats of a non-INVITE request or an INVITE response.
    pub t2: Duration,
    /// The longest time that a message stays in the network.
    pub t4: Duration,
}

impl Timers {
    /// The values of RFC 3261.
    pub const RFC3261: Self =
        Self { t1: Duration::from_millis(500), t2: Duration::from_secs(4), t4: Duration::from_secs(5) };

    /// Timers B, F, H, J over unreliable transports, L and M: 64 times T1.
    #[must_use]
    pub fn sixty_four_t1(&self) -> Duration {
        self.t1 * 64
    }
}

/// What a layer wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<P> {
    /// Send these bytes along the transaction's path.
    Transmit {
        /// Whose they are.
        id: TransactionId,
        /// Where to.
        path: P,
        /// The message.
        bytes: Vec<u8>,
        /// Whether it was sent before.
        is_repeat: bool,
    },
    /// Client: nobody answered (Timer B or F): act as on 408. Server: nobody acknowledged a final
    /// response to an INVITE (Timer H). [`Output::Terminated`] follows.
    TimedOut {
        /// Which transaction.
        id: TransactionId,
    },
    /// The transaction is over and forgotten.
    Terminated {
        /// Which transaction.
        id: TransactionId,
    },
}

/// What a machine asks of the layer after an event; the layer owns timers and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Effects {
    transmit: Option<Transmit>,
    /// `Some` re-arms the repeat timer, or stops it with `Some(None)`.
    repeat: Option<Option<Duration>>,
    /// `Some` re-arms the timer that ends the present state.
    end: Option<Duration>,
    /// The bytes handed in are the last word: they are sent, kept for repeats, and all else is forgotten (Timer J).
    is_settled: bool,
    is_timed_out: bool,
    is_terminated: bool,
    /// The kept bytes are not needed any more.
    forget: bool,
}

/// Which bytes to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transmit {
    /// Those handed in with the event, kept or not.
    Given { is_kept: bool },
    /// Those kept from before.
    Kept,
}

impl Effects {
    const NONE: Self = Self {
        transmit: None,
        repeat: None,
        end: None,
        is_settled: false,
        is_timed_out: false,
        is_terminated: false,
        forget: false,
    };
    const TERMINATED: Self = Self { is_terminated: true, ..Self::NONE };
    const REPEAT_KEPT: Self = Self { transmit: Some(Transmit::Kept), ..Self::NONE };

    /// Waits `linger` and terminates, at once when there is nothing to wait for (reliable transports).
    fn linger(linger: Duration) -> Self {
        if linger.is_zero() { Self::TERMINATED } else { Self { end: Some(linger), ..Self::NONE } }
    }
}
