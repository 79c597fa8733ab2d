//! What a phone has to say about a call.

use std::time::Duration;

use crate::media::Heard;

/// How a call went, seen from one phone.
#[derive(Clone, Debug, PartialEq)]
pub enum CallOutcome {
    /// Answered and ended with BYE.
    Ended,
    /// Taken back before it was answered, as planned.
    Cancelled,
    /// Refused with this status code.
    Rejected(u16),
    /// No final response to the INVITE, or no ACK, or no answer to BYE.
    TimedOut,
    /// Something else broke; a bounded reason.
    Failed(&'static str),
}

/// One call, seen from one phone.
#[derive(Clone, Debug, PartialEq)]
pub struct CallReport {
    /// The Call-ID.
    pub call_id: String,
    /// Whether this phone called.
    pub is_caller: bool,
    /// How it went.
    pub outcome: CallOutcome,
    /// The final status code of the INVITE; 0 when there was none.
    pub status: u16,
    /// From the INVITE to the first ringing or final response (post-dial delay).
    pub post_dial: Option<Duration>,
    /// From the INVITE to the answer.
    pub answered_after: Option<Duration>,
    /// From the answer to the end.
    pub talked: Duration,
    /// What this phone heard.
    pub heard: Heard,
}

impl CallReport {
    pub(super) fn new(call_id: &str, is_caller: bool) -> Self {
        Self {
            call_id: call_id.to_owned(),
            is_caller,
            outcome: CallOutcome::Failed("unfinished"),
            status: 0,
            post_dial: None,
            answered_after: None,
            talked: Duration::ZERO,
            heard: Heard::default(),
        }
    }

    pub(super) fn ended(mut self, outcome: CallOutcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Whether it was answered, heard, and ended as meant.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.outcome == CallOutcome::Ended && self.heard.is_tone_heard()
    }
}
