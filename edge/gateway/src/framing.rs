//! SIP messages out of a byte stream: Content-Length framing (RFC 3261 section 18.3) and CRLF keep-alives
//! (RFC 5626 section 3.5.1). Bounded; linear in the bytes however they trickle in.

use bytes::{Buf, BytesMut};

use crate::signals::Malformed;
use crate::sip_text;

/// A start line and all headers may not be longer, whatever the message limit: nothing that works needs more.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A double CRLF: answer with one CRLF.
    Ping,
    /// A whole message.
    Message(Vec<u8>),
}

/// Cuts one stream into messages.
#[derive(Debug)]
pub(crate) struct Framer {
    buffer: BytesMut,
    message_bytes_max: usize,
    /// How far the end of the head was looked for already.
    searched: usize,
    /// The length of the message at the front, once its head is whole.
    length: Option<usize>,
}

impl Framer {
    /// A framer that begins with bytes that were read before.
    pub(crate) fn new(beginning: &[u8], message_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::from(beginning), message_bytes_max, searched: 0, length: None }
    }

    /// Where to read into. Never asked to hold more than one message and one read.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        self.buffer.reserve(4096);
        &mut self.buffer
    }

    /// The next frame, `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the stream is not SIP or a message is too long: nothing after it can be trusted, so the connection ends.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        if self.length.is_none() {
            if self.skip_line_ends() {
                return Ok(Some(Frame::Ping));
            }
            self.length = self.measure()?;
        }
        let Some(length) = self.length.filter(|length| self.buffer.len() >= *length) else { return Ok(None) };
        self.length = None;
        self.searched = 0;
        Ok(Some(Frame::Message(self.buffer.split_to(length).to_vec())))
    }

    /// Drops line ends before a message; true for a ping.
    fn skip_line_ends(&mut self) -> bool {
        while self.buffer.starts_with(b"\r\n") {
            if self.buffer.starts_with(b"\r\n\r\n") {
                self.buffer.advance(4);
                return true;
            }
            // Half a ping perhaps: wait for what follows.
            if matches!(self.buffer.get(2..), Some(b"" | b"\r")) {
                return false;
            }
            self.buffer.advance(2);
        }
        false
    }

    /// The length of the message at the front, once its head is whole.
    fn measure(&mut self) -> Result<Option<usize>, Malformed> {
        let head_end = self.buffer[self.searched..].windows(4).position(|window| window == b"\r\n\r\n");
        let Some(head_length) = head_end.map(|index| self.searched + index + 4) else {
            self.searched = self.buffer.len().saturating_sub(3);
            self.check_beginning()?;
            return Ok(None);
        };
        if head_length > HEAD_BYTES_MAX {
            return Err(Malformed::SipHeaderTooLong);
        }
        let head = &self.buffer[..head_length];
        if !sip_text::is_start_line(first_line(head)) {
            return Err(Malformed::SipStartLine);
        }
        let length = head_length.saturating_add(content_length(head)?);
        if length > self.message_bytes_max {
            return Err(Malformed::SipTooLong);
        }
        Ok(Some(length))
    }

    /// Gives up early on what cannot become SIP.
    fn check_beginning(&self) -> Result<(), Malformed> {
        let has_line = self.buffer.contains(&b'\n');
        if has_line && !self.buffer.starts_with(b"\r\n") && !sip_text::is_start_line(first_line(&self.buffer))
        {
            return Err(Malformed::SipStartLine);
        }
        if self.buffer.len() > HEAD_BYTES_MAX.min(self.message_bytes_max) {
            return Err(Malformed::SipHeaderTooLong);
        }
        Ok(())
    }
}

fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// The body's length. A message without the header is taken to have no body: RFC 3261 section 20.14 demands the
/// header on streams, yet phones forget it on bodiless messages; a body would be met as a bad start line.
fn content_length(head: &[u8]) -> Result<usize, Malformed> {
    let mut length = None;
    for header in sip_text::headers(head) {
        if header.is("content-length", Some(b'l')) {
            // Nine digits are far above every limit and below every overflow; signs and white space are not digits.
            let digits = header.value;
            let is_number = !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit);
            let value =
                std::str::from_utf8(digits).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
            let value: usize = value.ok_or(Malformed::SipContentLength)?;
            // Two different lengths are two different messages to two readers: smuggling.
            if length.is_some_and(|other| other != value) {
                return Err(Malformed::SipContentLength);
            }
            length = Some(value);
        }
    }
    Ok(length.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> Vec<u8> {
        let length = body.len();
        format!("OPTIONS sip:a SIP/2.0\r\nCall-ID: 1\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    }

    /// Feeds the stream in pieces of the given size and collects all frames.
    fn frames(stream: &[u8], piece: usize) -> Result<Vec<Frame>, Malformed> {
        let mut framer = Framer::new(b"", 2_000);
        let mut frames = Vec::new();
        for bytes in stream.chunks(piece) {
            framer.buffer().extend_from_slice(bytes);
            while let Some(frame) = framer.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn messages_and_pings_come_out_however_they_trickle_in() {
        let (first, second) = (message("v=0\r\n\r\nm=audio"), message(""));
        let stream = [&b"\r\n\r\n"[..], &first, b"\r\n", &second, b"\r\n\r\n"].concat();
        let want = vec![Frame::Ping, Frame::Message(first), Frame::Message(second), Frame::Ping];
        for piece in [1, 2, 3, 7, 64, stream.len()] {
            assert_eq!(frames(&stream, piece).as_ref(), Ok(&want), "pieces of {piece}");
        }
    }

    #[test]
    fn compact_and_folded_lengths_count() {
        let stream = b"A b SIP/2.0\r\nl:\r\n 3\r\n\r\nabc";
        assert_eq!(frames(stream, 5), Ok(vec![Frame::Message(stream.to_vec())]));
        let bodiless = b"ACK sip:a SIP/2.0\r\nCall-ID: 1\r\n\r\n";
        assert_eq!(frames(bodiless, 5), Ok(vec![Frame::Message(bodiless.to_vec())]));
    }

    #[test]
    fn what_is_not_sip_is_given_up_early() {
        for (stream, want) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n"[..], Malformed::SipStartLine),
            (b"\x16\x03\x01\n", Malformed::SipStartLine),
            (b"A b SIP/2.0\r\nContent-Length: x\r\n\r\n", Malformed::SipContentLength),
            (b"A b SIP/2.0\r\nContent-Length: -1\r\n\r\n", Malformed::SipContentLength),
            (b"A b SIP/2.0\r\nContent-Length: 1\r\nl: 2\r\n\r\n", Malformed::SipContentLength),
            (b"A b SIP/2.0\r\nContent-Length: 99999999999999999999\r\n\r\n", Malformed::SipContentLength),
            (b"A b SIP/2.0\r\nContent-Length: 1990\r\n\r\n", Malformed::SipTooLong),
            (&[b'x'; 4_000], Malformed::SipHeaderTooLong),
        ] {
            assert_eq!(frames(stream, 7), Err(want), "{:?}", String::from_utf8_lossy(stream));
        }
    }
}
