//! What can be wrong with media that came from a peer.

/// Why bytes from a peer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The datagram is not an RTP packet of version 2 (RFC 3550 section 5.1).
    #[error("not an rtp packet: {0}")]
    Packet(&'static str),
    /// The datagram is not an RTCP compound packet (RFC 3550 section 6.1).
    #[error("not an rtcp packet: {0}")]
    Control(&'static str),
    /// A report could not be written.
    #[error("the report cannot be encoded")]
    Encode,
    /// The body is not a session description, or one that cannot be anchored (RFC 8866).
    #[error("line {line} of the session description: {what}")]
    Description {
        /// Line number, from 1; 0 when the whole body is meant.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Error {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Packet(_) => "bad_packet",
            Self::Control(_) => "bad_control_packet",
            Self::Encode => "encode",
            Self::Description { .. } => "bad_description",
        }
    }
}
