//! Server machines: we got a request (RFC 3261 section 17.2, RFC 6026 section 7.1).

use std::time::Duration;

use super::{Effects, Timers, Transmit};

/// A server transaction's machine, INVITE or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) state: State,
    is_invite: bool,
    is_reliable: bool,
    /// What Timer G was last armed with.
    interval: Duration,
}

/// The states of both server machines; an INVITE begins in `Proceeding`, the others in `Trying`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Trying,
    Proceeding,
    Completed,
    /// The failure of an INVITE was acknowledged.
    Confirmed,
    /// An INVITE was answered 2xx (RFC 6026): the user repeats, not the machine.
    Accepted,
}

impl Server {
    pub(super) fn new(is_invite: bool, is_reliable: bool, timers: &Timers) -> Self {
        let state = if is_invite { State::Proceeding } else { State::Trying };
        Self { state, is_invite, is_reliable, interval: timers.t1 }
    }

    /// The request came again: answer from what was answered last.
    pub(super) fn on_repeated_request(self) -> Effects {
        match self.state {
            State::Proceeding | State::Completed => Effects::REPEAT_KEPT,
            // In Accepted the user repeats its 2xx; in Confirmed the answer has been acknowledged.
            State::Trying | State::Confirmed | State::Accepted => Effects::NONE,
        }
    }

    /// The user answers; `None` when it may not any more.
    pub(super) fn on_respond(&mut self, status: u16, timers: &Timers) -> Option<Effects> {
        let send = |is_kept| Effects { transmit: Some(Transmit::Given { is_kept }), ..Effects::NONE };
        match self.state {
            State::Trying | State::Proceeding if status < 200 => {
                self.state = State::Proceeding;
                Some(send(true))
            }
            State::Trying | State::Proceeding if self.is_invite && status < 300 => {
                self.state = State::Accepted;
                // Timer L.
                Some(Effects { end: Some(timers.sixty_four_t1()), forget: true, ..send(false) })
            }
            State::Trying | State::Proceeding if self.is_invite => {
                self.state = State::Completed;
                // Timers G and H.
                let repeat = Some((!self.is_reliable).then_some(timers.t1));
                Some(Effects { repeat, end: Some(timers.sixty_four_t1()), ..send(true) })
            }
            State::Trying | State::Proceeding => {
                self.state = State::Completed;
                // Timer J is of no time over a connection, and the layer's own otherwise.
                let is_over = self.is_reliable;
                Some(Effects { is_settled: !is_over, is_terminated: is_over, ..send(false) })
            }
            State::Accepted if (200..300).contains(&status) => Some(send(false)),
            State::Completed | State::Confirmed | State::Accepted => None,
        }
    }

    /// An ACK with the INVITE's branch came; the flag says whether it ends here.
    pub(super) fn on_ack(&mut self, timers: &Timers) -> (bool, Effects) {
        match self.state {
            State::Completed => {
                self.state = State::Confirmed;
                // Timer I.
                let linger = if self.is_reliable { Duration::ZERO } else { timers.t4 };
                (true, Effects { repeat: Some(None), forget: true, ..Effects::linger(linger) })
            }
            State::Accepted => (false, Effects::NONE),
            State::Trying | State::Proceeding | State::Confirmed => (true, Effects::NONE),
        }
    }

    /// Timer G.
    pub(super) fn on_repeat(&mut self, timers: &Timers) -> Effects {
        if self.state != State::Completed || !self.is_invite {
            return Effects::NONE;
        }
        self.interval = (self.interval * 2).min(timers.t2);
        Effects { repeat: Some(Some(self.interval)), ..Effects::REPEAT_KEPT }
    }

    /// Timer H, I, J or L.
    pub(super) fn on_end(self) -> Effects {
        let is_unacknowledged = self.is_invite && self.state == State::Completed;
        Effects { is_timed_out: is_unacknowledged, ..Effects::TERMINATED }
    }
}
