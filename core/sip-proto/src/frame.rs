//! Cutting a byte stream into SIP messages (RFC 3261 section 18.3) and keep-alives (RFC 5626 section 4.4.1).
//!
//! For TCP and TLS. A WebSocket carries exactly one message per frame (RFC 7118 section 5), so there is nothing to
//! cut there: a frame goes straight to [`Message::parse`](crate::Message), and an empty or CRLF frame is a keep-alive.

use memchr::memmem;

use crate::fault::{Fault, FaultKind};
use crate::scan::{Faults, Limits, content_length, fields};

/// One thing that came on the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole message.
    Message(Vec<u8>),
    /// A double CRLF between messages: answer with [`PONG`](Framer::PONG).
    Ping,
    /// A single CRLF between messages: the peer's answer to a ping of ours, or an older keep-alive.
    Pong,
}

/// Why a stream can no longer be cut: there is no way to find the next message, so the connection must close.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream framing lost: {fault}")]
pub struct FrameFault {
    /// What is wrong; its position counts from the start of the message.
    pub fault: Fault,
    /// The head of the message as far as it came, so that it may be answered before closing.
    pub head: Vec<u8>,
}

/// Cuts one direction of one connection.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were handed out.
    taken: usize,
    /// Up to here, from `taken`, there is no end of a head.
    searched: usize,
    /// The size of the message that starts at `taken`, once its head is known.
    size: Option<usize>,
}

impl Framer {
    /// What answers a [`Frame::Ping`].
    pub const PONG: &'static [u8] = b"\r\n";

    /// A framer for one connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: Vec::new(), taken: 0, searched: 0, size: None }
    }

    /// Adds what was read. Call [`next_frame`](Self::next_frame) until it gives nothing before adding more:
    /// then the buffer never holds more than one message and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their message. A deadline on this being above zero stops slow senders;
    /// half a keep-alive does not count, because a single CRLF may be all that a peer ever sends of it.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        let rest = &self.buffer[self.taken..];
        if b"\r\n\r".starts_with(rest) { 0 } else { rest.len() }
    }

    /// The next frame, or none until more bytes come.
    ///
    /// # Errors
    /// When the stream cannot be cut any more; every later call gives the same error.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Box<FrameFault>> {
        if self.size.is_none() {
            if let Some(keep_alive) = self.keep_alive() {
                return Ok(keep_alive);
            }
            self.size = self.measure()?;
        }
        let Some(size) = self.size else { return Ok(None) };
        let Some(message) = self.buffer.get(self.taken..self.taken + size) else { return Ok(None) };
        let message = message.to_vec();
        self.take(size);
        self.size = None;
        Ok(Some(Frame::Message(message)))
    }

    /// `Some(None)` when what there is may yet become a ping.
    #[expect(clippy::option_option, reason = "not a keep-alive, not yet known, and known are three things")]
    fn keep_alive(&mut self) -> Option<Option<Frame>> {
        let rest = &self.buffer[self.taken..];
        if rest.starts_with(b"\r\n\r\n") {
            self.take(4);
            return Some(Some(Frame::Ping));
        }
        if rest == b"\r\n" || rest == b"\r\n\r" || rest == b"\r" {
            return Some(None);
        }
        if rest.starts_with(b"\r\n") {
            self.take(2);
            return Some(Some(Frame::Pong));
        }
        None
    }

    fn take(&mut self, size: usize) {
        self.taken += size;
        self.searched = 0;
    }

    /// The size of the message in front, once its whole head is there.
    fn measure(&mut self) -> Result<Option<usize>, Box<FrameFault>> {
        let rest = &self.buffer[self.taken..];
        let from = self.searched.saturating_sub(3);
        let Some(found) = memmem::find(&rest[from..], b"\r\n\r\n") else {
            if rest.len() > self.limits.message_bytes_max {
                return Err(self.lost(rest.len(), Fault::new(rest.len(), FaultKind::MessageTooLarge)));
            }
            self.searched = rest.len();
            return Ok(None);
        };
        let head = from + found + 4;
        match body_length(&rest[..head], &self.limits) {
            Ok(length) => {
                match head.checked_add(length).filter(|&size| size <= self.limits.message_bytes_max) {
                    Some(size) => Ok(Some(size)),
                    None => Err(self.lost(head, Fault::new(head, FaultKind::MessageTooLarge))),
                }
            }
            Err(fault) => Err(self.lost(head, fault)),
        }
    }

    fn lost(&self, head: usize, fault: Fault) -> Box<FrameFault> {
        Box::new(FrameFault { fault, head: self.buffer[self.taken..self.taken + head].to_vec() })
    }
}

/// Content-Length of a head; a stream cannot do without it (RFC 3261 section 18.3).
fn body_length(head: &[u8], limits: &Limits) -> Result<usize, Fault> {
    let first = memchr::memchr(b'\n', head).map_or(head.len(), |line_feed| line_feed + 1);
    let mut faults = Faults(None);
    let (fields, _) = fields(head, first, limits, &mut faults);
    match content_length(head, &fields)? {
        Some(length) => Ok(usize::try_from(length).unwrap_or(usize::MAX)),
        None => Err(faults.0.unwrap_or(Fault::new(head.len(), FaultKind::MissingHeader))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nl : 3\r\n\r\nabc";

    fn all(framer: &mut Framer) -> Vec<Frame> {
        std::iter::from_fn(|| framer.next_frame().expect("in frame")).collect()
    }

    #[test]
    fn messages_and_keep_alives_come_out_however_they_came_in() {
        let stream = [b"\r\n\r\n", OPTIONS, OPTIONS, b"\r\n", OPTIONS, b"\r\n\r\n"].concat();
        let message = || Frame::Message(OPTIONS.to_vec());
        let expected = [Frame::Ping, message(), message(), Frame::Pong, message(), Frame::Ping];
        for chunk in 1..=stream.len() {
            let mut framer = Framer::new(Limits::default());
            let mut frames = Vec::new();
            for part in stream.chunks(chunk) {
                framer.push(part);
                frames.extend(all(&mut framer));
            }
            assert_eq!(frames, expected, "chunks of {chunk}");
            assert_eq!(framer.pending_bytes(), 0);
        }
    }

    #[test]
    fn a_stream_that_cannot_be_cut_says_why_and_stays_lost() {
        let limits = Limits { message_bytes_max: 100, ..Limits::default() };
        let long = [b"OPTIONS sip:a SIP/2.0\r\nX: ".as_slice(), &[b'x'; 100]].concat();
        let cases: [(&[u8], FaultKind); 6] = [
            (b"OPTIONS sip:a SIP/2.0\r\n\r\n", FaultKind::MissingHeader),
            (b"OPTIONS sip:a SIP/2.0\r\nl: -1\r\n\r\n", FaultKind::ContentLengthSyntax),
            (b"OPTIONS sip:a SIP/2.0\r\nl: 1\r\nContent-Length: 1\r\n\r\n", FaultKind::DuplicateHeader),
            (b"OPTIONS sip:a SIP/2.0\r\nl: 99\r\n\r\n", FaultKind::MessageTooLarge),
            (b"OPTIONS sip:a SIP/2.0\r\nl: 99999999999999999999999\r\n\r\n", FaultKind::MessageTooLarge),
            (&long, FaultKind::MessageTooLarge),
        ];
        for (bytes, kind) in cases {
            let mut framer = Framer::new(limits);
            framer.push(bytes);
            for _ in 0..2 {
                let lost = framer.next_frame().expect_err("cannot be cut");
                assert_eq!(lost.fault.kind, kind, "{}", String::from_utf8_lossy(bytes));
            }
        }
    }
}
