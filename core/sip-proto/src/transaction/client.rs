//! Client machines: we sent a request (RFC 3261 section 17.1, RFC 6026 section 7.2).

use std::time::Duration;

use super::{Effects, Timers, Transmit};

/// A client transaction's machine, INVITE or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) state: State,
    is_invite: bool,
    is_reliable: bool,
    /// What the repeat timer was last armed with (Timers A and E).
    interval: Duration,
}

/// The states of both client machines; `Calling` is called Trying when the request is not an INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Calling,
    Proceeding,
    /// A failure came (INVITE), or any final response (others).
    Completed,
    /// A 2xx came to an INVITE (RFC 6026): late ones still pass to the user.
    Accepted,
}

/// What a response is to the user of a client transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    /// Hand it over.
    ToUser,
    /// Keep it: it repeats or comes too late.
    Absorbed,
    /// Keep it, and send the kept ACK again.
    AcknowledgedAgain,
}

impl Client {
    /// A machine whose request goes out now (Timers A and B, or E and F).
    pub(super) fn start(is_invite: bool, is_reliable: bool, timers: &Timers) -> (Self, Effects) {
        let machine = Self { state: State::Calling, is_invite, is_reliable, interval: timers.t1 };
        let effects = Effects {
            transmit: Some(Transmit::Given { is_kept: !is_reliable }),
            repeat: Some((!is_reliable).then_some(timers.t1)),
            end: Some(timers.sixty_four_t1()),
            ..Effects::NONE
        };
        (machine, effects)
    }

    pub(super) fn on_response(&mut self, status: u16, timers: &Timers) -> (Passing, Effects) {
        match self.state {
            State::Calling | State::Proceeding if status < 200 => (Passing::ToUser, self.provisional(timers)),
            State::Calling | State::Proceeding => (Passing::ToUser, self.last(status, timers)),
            State::Completed if self.is_invite && status >= 300 => {
                (Passing::AcknowledgedAgain, Effects::REPEAT_KEPT)
            }
            State::Accepted if (200..300).contains(&status) => (Passing::ToUser, Effects::NONE),
            State::Completed | State::Accepted => (Passing::Absorbed, Effects::NONE),
        }
    }

    fn provisional(&mut self, timers: &Timers) -> Effects {
        self.state = State::Proceeding;
        if self.is_invite {
            // An INVITE that was heard is not repeated, and only the user's Timer C bounds the wait. The end timer
            // is pushed out of the way; `Client::on_end` ignores it in this state.
            return Effects { repeat: Some(None), forget: true, ..Effects::NONE };
        }
        self.interval = timers.t2;
        Effects { repeat: Some((!self.is_reliable).then_some(timers.t2)), ..Effects::NONE }
    }

    fn last(&mut self, status: u16, timers: &Timers) -> Effects {
        let quiet = Effects { repeat: Some(None), forget: true, ..Effects::NONE };
        if self.is_invite && status < 300 {
            self.state = State::Accepted;
            // Timer M.
            return Effects { end: Some(timers.sixty_four_t1()), ..quiet };
        }
        self.state = State::Completed;
        let linger = match (self.is_invite, self.is_reliable) {
            (_, true) => Duration::ZERO,
            // Timer D: at least 32 s, which is 64 * T1 with the RFC's T1; the peer repeats for so long (Timer H).
            (true, false) => timers.sixty_four_t1(),
            // Timer K.
            (false, false) => timers.t4,
        };
        if self.is_invite && linger.is_zero() {
            // `Client::acknowledged` terminates; should the user never hand in the ACK, time does.
            return Effects { end: Some(timers.sixty_four_t1()), ..quiet };
        }
        Effects { repeat: Some(None), forget: true, ..Effects::linger(linger) }
    }

    /// The user handed in the ACK of a failed INVITE.
    pub(super) fn acknowledged(self) -> Effects {
        let send =
            Effects { transmit: Some(Transmit::Given { is_kept: !self.is_reliable }), ..Effects::NONE };
        Effects { is_terminated: self.is_reliable, ..send }
    }

    /// Timer A or E.
    pub(super) fn on_repeat(&mut self, timers: &Timers) -> Effects {
        self.interval = match (self.is_invite, self.state) {
            (true, State::Calling) => self.interval * 2,
            (false, State::Calling) => (self.interval * 2).min(timers.t2),
            (false, State::Proceeding) => timers.t2,
            _ => return Effects::NONE,
        };
        Effects { repeat: Some(Some(self.interval)), ..Effects::REPEAT_KEPT }
    }

    /// Timer B, F, D, K or M, or the time allowed after a CANCEL.
    pub(super) fn on_end(self, is_cancelled: bool) -> Effects {
        match self.state {
            State::Proceeding if self.is_invite && !is_cancelled => Effects::NONE,
            State::Calling | State::Proceeding => Effects { is_timed_out: true, ..Effects::TERMINATED },
            State::Completed | State::Accepted => Effects::TERMINATED,
        }
    }
}
