//! Why something was not taken: one bounded word for counters, one sentence for whoever sent it.

use crate::error::WriteError;

belfry_signal::label_enum! {
    /// Why something that came to a door was not stored.
    pub(crate) enum Reason("reason") {
        /// It is not what the door's protocol says.
        Malformed = "malformed",
        /// It is longer than the door takes.
        TooLong = "too_long",
        /// It is well formed, but nothing that we keep.
        Unsupported = "unsupported",
        /// The sender is over its rate.
        Rate = "rate",
        /// As much waits for the disk as may wait.
        Busy = "busy",
        /// The disk refuses.
        Disk = "disk",
        /// We are stopping.
        Ended = "ended",
        /// It shows no token, or a wrong one.
        Token = "token",
        /// It broke off.
        Broken = "broken",
    }
}

/// Why something was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    pub(crate) fn malformed(text: impl Into<String>) -> Self {
        Self::new(Reason::Malformed, text)
    }

    /// Whether the same may be taken a little later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.reason, Reason::Rate | Reason::Busy | Reason::Disk | Reason::Ended)
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        let reason = match error {
            WriteError::Disk => Reason::Disk,
            WriteError::Ended => Reason::Ended,
            WriteError::Oversize => Reason::TooLong,
        };
        Self::new(reason, error.to_string())
    }
}
