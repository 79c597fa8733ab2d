//! Building the messages that we originate: responses, requests, and the ACK and CANCEL that belong to an INVITE.
//!
//! Values are written as given: whoever passes text from a peer must not pass line ends, and [`Writer`] replaces
//! them by spaces to be safe. Forwarded messages are never built; see [`Edit`](crate::Edit).

use std::io::Write as _;

use crate::header::HeaderName;
use crate::message::Parsed;

/// Writes one message line by line.
#[derive(Clone, Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A request: `METHOD uri SIP/2.0`.
    #[must_use]
    pub fn request(method: &str, uri: &str) -> Self {
        let mut writer = Self { bytes: Vec::with_capacity(1024) };
        writer.text(method.as_bytes());
        writer.bytes.push(b' ');
        writer.text(uri.as_bytes());
        writer.bytes.extend_from_slice(b" SIP/2.0\r\n");
        writer
    }

    /// A response: `SIP/2.0 code reason`, with the RFC's own phrase when `reason` is none.
    #[must_use]
    pub fn response(code: u16, reason: Option<&str>) -> Self {
        let mut writer = Self { bytes: Vec::with_capacity(512) };
        // Writing into a vector cannot fail.
        let _ = write!(writer.bytes, "SIP/2.0 {code} ");
        writer.text(reason.unwrap_or_else(|| reason_phrase(code)).as_bytes());
        writer.bytes.extend_from_slice(b"\r\n");
        writer
    }

    /// Adds a header.
    #[must_use]
    pub fn header(self, name: HeaderName, value: &str) -> Self {
        self.field(name.as_str(), value.as_bytes())
    }

    /// Adds a header that [`HeaderName`] does not know.
    #[must_use]
    pub fn extension(self, name: &str, value: &str) -> Self {
        self.field(name, value.as_bytes())
    }

    /// Adds Content-Length: 0 and ends the message.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.finish_with_body(&[])
    }

    /// Adds Content-Length and the body; set Content-Type before.
    #[must_use]
    pub fn finish_with_body(mut self, body: &[u8]) -> Vec<u8> {
        let _ = write!(self.bytes, "Content-Length: {}\r\n\r\n", body.len());
        self.bytes.extend_from_slice(body);
        self.bytes
    }

    /// Copies every field of this name as it stands, under its canonical name.
    #[must_use]
    pub fn copy<B: AsRef<[u8]>>(mut self, from: &Parsed<B>, name: HeaderName) -> Self {
        for field in from.spans(name) {
            let value = &from.as_bytes()[field.value.range()];
            self.bytes.extend_from_slice(name.as_str().as_bytes());
            self.bytes.extend_from_slice(b": ");
            self.bytes.extend_from_slice(value);
            self.bytes.extend_from_slice(b"\r\n");
        }
        self
    }

    fn tagged_to(mut self, to: &[u8], tag: &str) -> Self {
        self.bytes.extend_from_slice(b"To: ");
        self.text(to);
        self.bytes.extend_from_slice(b";tag=");
        self.text(tag.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    fn field(mut self, name: &str, value: &[u8]) -> Self {
        self.text(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.text(value);
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    fn text(&mut self, text: &[u8]) {
        if memchr::memchr2(b'\r', b'\n', text).is_none() {
            return self.bytes.extend_from_slice(text);
        }
        self.bytes.extend(text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    }
}

/// Starts the response to a request: Via, From, To, Call-ID, CSeq, and Record-Route where a dialog may come of it
/// (RFC 3261 sections 8.2.6 and 12.1.1). `to_tag` is added where To has none; give none for 100.
#[must_use]
pub fn response<B: AsRef<[u8]>>(
    request: &Parsed<B>,
    code: u16,
    reason: Option<&str>,
    to_tag: Option<&str>,
) -> Writer {
    let mut writer =
        Writer::response(code, reason).copy(request, HeaderName::Via).copy(request, HeaderName::From);
    writer = match (request.header(HeaderName::To), to_tag.filter(|_| request.to_tag().is_none())) {
        (Some(to), Some(tag)) => writer.tagged_to(to, tag),
        _ => writer.copy(request, HeaderName::To),
    };
    writer = writer.copy(request, HeaderName::CallId).copy(request, HeaderName::CSeq);
    if (101..300).contains(&code) {
        writer = writer.copy(request, HeaderName::RecordRoute);
    }
    if code == 100 {
        writer = writer.copy(request, HeaderName::Timestamp);
    }
    writer
}

/// The whole response to a request, without a body (see [`response`] for what it copies).
#[must_use]
pub fn response_to<B: AsRef<[u8]>>(
    request: &Parsed<B>,
    code: u16,
    reason: Option<&str>,
    to_tag: Option<&str>,
    extra: &[(HeaderName, &str)],
) -> Vec<u8> {
    let writer = response(request, code, reason, to_tag);
    extra.iter().fold(writer, |writer, (name, value)| writer.header(*name, value)).finish()
}

/// The ACK of a response that is not 2xx: of the same transaction as the INVITE (RFC 3261 section 17.1.1.3).
#[must_use]
pub fn ack_to<A: AsRef<[u8]>, B: AsRef<[u8]>>(invite: &Parsed<A>, response: &Parsed<B>) -> Vec<u8> {
    let writer = hop_request(invite, "ACK");
    let writer = writer.copy(response, HeaderName::To);
    cseq_of(writer, invite, "ACK").finish()
}

/// The CANCEL of a pending INVITE (RFC 3261 section 9.1).
#[must_use]
pub fn cancel_of<B: AsRef<[u8]>>(invite: &Parsed<B>) -> Vec<u8> {
    let writer = hop_request(invite, "CANCEL");
    let writer = writer.copy(invite, HeaderName::To);
    cseq_of(writer, invite, "CANCEL").finish()
}

/// What ACK and CANCEL share with their INVITE: Request-URI, top Via, Route, From, Call-ID.
fn hop_request<B: AsRef<[u8]>>(invite: &Parsed<B>, method: &str) -> Writer {
    let via = invite.headers(HeaderName::Via).next().unwrap_or_default();
    Writer::request(method, invite.request_uri())
        .field("Via", via)
        .copy(invite, HeaderName::Route)
        .header(HeaderName::MaxForwards, "70")
        .copy(invite, HeaderName::From)
        .copy(invite, HeaderName::CallId)
}

fn cseq_of<B: AsRef<[u8]>>(writer: Writer, invite: &Parsed<B>, method: &str) -> Writer {
    let number = invite.cseq().map_or(1, |cseq| cseq.number);
    writer.header(HeaderName::CSeq, &format!("{number} {method}"))
}

/// The RFC's reason phrase of a status code. (`rsip` prints its variant names instead.)
#[must_use]
pub fn reason_phrase(code: u16) -> &'static str {
    REASONS.binary_search_by_key(&code, |(known, _)| *known).map_or("Unknown", |at| REASONS[at].1)
}

/// RFC 3261 section 21 and the IANA registry's additions that a proxy, registrar or phone of ours sends.
const REASONS: [(u16, &str); 76] = [
    (100, "Trying"),
    (180, "Ringing"),
    (181, "Call Is Being Forwarded"),
    (182, "Queued"),
    (183, "Session Progress"),
    (199, "Early Dialog Terminated"),
    (200, "OK"),
    (202, "Accepted"),
    (204, "No Notification"),
    (300, "Multiple Choices"),
    (301, "Moved Permanently"),
    (302, "Moved Temporarily"),
    (305, "Use Proxy"),
    (380, "Alternative Service"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (402, "Payment Required"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"),
    (408, "Request Timeout"),
    (410, "Gone"),
    (412, "Conditional Request Failed"),
    (413, "Request Entity Too Large"),
    (414, "Request-URI Too Long"),
    (415, "Unsupported Media Type"),
    (416, "Unsupported URI Scheme"),
    (417, "Unknown Resource-Priority"),
    (420, "Bad Extension"),
    (421, "Extension Required"),
    (422, "Session Interval Too Small"),
    (423, "Interval Too Brief"),
    (424, "Bad Location Information"),
    (428, "Use Identity Header"),
    (429, "Provide Referrer Identity"),
    (430, "Flow Failed"),
    (433, "Anonymity Disallowed"),
    (436, "Bad Identity Info"),
    (437, "Unsupported Credential"),
    (438, "Invalid Identity Header"),
    (439, "First Hop Lacks Outbound Support"),
    (440, "Max-Breadth Exceeded"),
    (469, "Bad Info Package"),
    (470, "Consent Needed"),
    (480, "Temporarily Unavailable"),
    (481, "Call/Transaction Does Not Exist"),
    (482, "Loop Detected"),
    (483, "Too Many Hops"),
    (484, "Address Incomplete"),
    (485, "Ambiguous"),
    (486, "Busy Here"),
    (487, "Request Terminated"),
    (488, "Not Acceptable Here"),
    (489, "Bad Event"),
    (491, "Request Pending"),
    (493, "Undecipherable"),
    (494, "Security Agreement Required"),
    (500, "Server Internal Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Server Time-out"),
    (505, "Version Not Supported"),
    (513, "Message Too Large"),
    (555, "Push Notification Service Not Supported"),
    (580, "Precondition Failure"),
    (600, "Busy Everywhere"),
    (603, "Decline"),
    (604, "Does Not Exist Anywhere"),
    (606, "Not Acceptable"),
    (607, "Unwanted"),
    (608, "Rejected"),
    (687, "Dialog Terminated"),
    (699, "Extension"),
];

#[cfg(test)]
mod tests;
