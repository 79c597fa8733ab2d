//! The little that the edge must see in a SIP message: which call it belongs to, and enough to say 503.
//!
//! Not a parser: the core has one. Here are only header lines as they stand (RFC 3261 section 7.3.1, with compact
//! names and folding), looked at once and never rewritten.

use crate::signals::Method;

/// One header field with all its folded lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    /// The name as written.
    pub(crate) name: &'a [u8],
    /// The value as written, without surrounding white space.
    pub(crate) value: &'a [u8],
    /// The whole field with its line ends.
    pub(crate) lines: &'a [u8],
}

/// The header fields of a message, one by one.
#[derive(Clone, Debug)]
pub(crate) struct Headers<'a> {
    rest: &'a [u8],
}

/// What the edge wants to know about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glance<'a> {
    /// The method, when it is a request.
    pub(crate) request: Option<Method>,
    /// The Call-ID's value.
    pub(crate) call_id: &'a str,
    /// The CSeq's value.
    pub(crate) cseq: &'a str,
    /// Whether it is inside a dialog.
    pub(crate) has_to_tag: bool,
}

impl<'a> Header<'a> {
    /// Whether this is the header of that name or compact form (RFC 3261 section 7.3.3).
    pub(crate) fn is(&self, name: &str, compact: Option<u8>) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
            || compact
                .is_some_and(|compact| self.name.len() == 1 && self.name[0].eq_ignore_ascii_case(&compact))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.rest.is_empty() || self.rest.starts_with(b"\r\n") {
            return None;
        }
        let mut end = 0;
        loop {
            end += line_length(&self.rest[end..]);
            // A line that begins with white space continues the one before.
            if !matches!(self.rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let (lines, rest) = self.rest.split_at(end);
        self.rest = rest;
        let colon = memchr::memchr(b':', lines).unwrap_or(lines.len());
        let value = lines.get(colon + 1..).unwrap_or_default();
        Some(Header { name: lines[..colon].trim_ascii(), value: value.trim_ascii(), lines })
    }
}

/// The header fields of a message, after its start line.
pub(crate) fn headers(message: &[u8]) -> Headers<'_> {
    Headers { rest: &message[line_length(message)..] }
}

/// Looks at a message; `None` when it has no Call-ID, without which nobody can route or answer it.
pub(crate) fn glance(message: &[u8]) -> Option<Glance<'_>> {
    let start_line = message[..line_length(message)].trim_ascii();
    let request = (!start_line.starts_with(b"SIP/2.0 ")).then(|| {
        match start_line.split(|byte| *byte == b' ').next().unwrap_or_default() {
            b"INVITE" => Method::Invite,
            b"REGISTER" => Method::Register,
            b"ACK" => Method::Ack,
            _ => Method::Other,
        }
    });
    let mut call_id = None;
    let mut cseq = "";
    let mut has_to_tag = false;
    for header in headers(message) {
        if header.is("call-id", Some(b'i')) {
            call_id = std::str::from_utf8(header.value).ok().filter(|value| !value.is_empty());
        } else if header.is("cseq", None) {
            cseq = std::str::from_utf8(header.value).unwrap_or_default();
        } else if header.is("to", Some(b't')) {
            has_to_tag = has_tag(header.value);
        }
    }
    Some(Glance { request, call_id: call_id?, cseq, has_to_tag })
}

/// Whether a start line can be SIP: `METHOD uri SIP/2.0` or `SIP/2.0 code reason`.
pub(crate) fn is_start_line(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let is_request = line.ends_with(b" SIP/2.0") && line.first().is_some_and(u8::is_ascii_alphabetic);
    is_request || line.starts_with(b"SIP/2.0 ")
}

/// Whether a message to somebody shows that the core has let it in: a request, which only customers, their calls and
/// trunks get, or the success of what one must have answered a challenge for. A registration counts when something is
/// registered, of which a customer has so many and no more: asking, and taking back, may go on from port to port for ever.
pub(crate) fn lets_in(message: &[u8]) -> bool {
    let Some(rest) = message.strip_prefix(b"SIP/2.0 ") else { return true };
    rest.first() == Some(&b'2')
        && glance(message).is_some_and(|seen| match seen.cseq.rsplit(' ').next().unwrap_or_default() {
            "REGISTER" => headers(message).any(|header| header.is("contact", Some(b'm'))),
            method => method == "INVITE",
        })
}

/// Whether a message begins something: a request outside dialogs that is no ACK and no CANCEL.
pub(crate) fn begins(message: &[u8]) -> bool {
    !message.starts_with(b"SIP/2.0 ")
        && !message.starts_with(b"ACK ")
        && !message.starts_with(b"CANCEL ")
        && glance(message).is_none_or(|seen| !seen.has_to_tag)
}

/// A stateless `503 Service Unavailable`.
pub(crate) fn service_unavailable(request: &[u8], retry_after_seconds: u32) -> Vec<u8> {
    answer(request, "503 Service Unavailable", &format!("Retry-After: {retry_after_seconds}\r\n"))
}

/// A stateless `403 Forbidden`.
pub(crate) fn forbidden(request: &[u8]) -> Vec<u8> {
    answer(request, "403 Forbidden", "")
}

/// A stateless answer from the request's own lines (RFC 3261 section 8.2.6.2): Via, From, To, Call-ID and CSeq are copied
/// as they stand; To gets a tag that is the same for every retransmission.
fn answer(request: &[u8], status: &str, more: &str) -> Vec<u8> {
    let mut answer = format!("SIP/2.0 {status}\r\n").into_bytes();
    for header in headers(request) {
        if header.is("to", Some(b't')) && !has_tag(header.value) {
            answer.extend_from_slice(header.lines.trim_ascii_end());
            answer.extend_from_slice(format!(";tag=edge-{:016x}\r\n", hash(request, b"")).as_bytes());
        } else if header.is("via", Some(b'v'))
            || header.is("from", Some(b'f'))
            || header.is("to", Some(b't'))
            || header.is("call-id", Some(b'i'))
            || header.is("cseq", None)
        {
            answer.extend_from_slice(header.lines);
        }
    }
    answer.extend_from_slice(more.as_bytes());
    answer.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    answer
}

/// 64 bits of FNV-1a with a final mix: not secret, the same on every machine and in every version.
pub(crate) fn hash(first: &[u8], second: &[u8]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in first.iter().chain([&0xff]).chain(second) {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state ^ (state >> 33)
}

/// The length of the first line with its end; all of it when no line ends.
fn line_length(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |index| index + 1)
}

/// Whether a From or To value has a tag parameter after its address.
fn has_tag(value: &[u8]) -> bool {
    // Parameters of the URI stand inside the angle brackets; a quoted name may hold anything before them.
    let after = value.iter().rposition(|byte| *byte == b'>').map_or(value, |index| &value[index..]);
    after.split(|byte| *byte == b';').skip(1).any(|parameter| {
        let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"tag")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] = b"INVITE sip:bob@example.org SIP/2.0\r\n\
        v: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\n\
        Via: SIP/2.0/TCP 192.0.2.9\r\n\
        Max-Forwards: 70\r\n\
        f: \"A;tag=x\" <sip:alice@example.org>;tag=1\r\n\
        t:\r\n <sip:bob@example.org;tag=no>\r\n\
        i: abc@192.0.2.1\r\n\
        CSeq: 1 INVITE\r\n\
        l: 4\r\n\r\nbody";

    #[test]
    fn a_glance_sees_compact_and_folded_headers() {
        let seen = glance(INVITE).expect("has a Call-ID");
        let request = Some(Method::Invite);
        assert_eq!(seen, Glance { request, call_id: "abc@192.0.2.1", cseq: "1 INVITE", has_to_tag: false });
        let response = b"SIP/2.0 200 OK\r\nCall-ID: x\r\nTo: sip:bob@example.org;tag=9\r\n\r\n";
        let seen = glance(response).expect("has a Call-ID");
        assert_eq!((seen.request, seen.has_to_tag), (None, true));
    }

    #[test]
    fn a_message_without_a_call_id_is_nobodys() {
        for message in
            ["", "\r\n", "OPTIONS sip:a SIP/2.0\r\n\r\n", "A b SIP/2.0\r\nCall-ID: \r\n\r\n", "x\r\ni:\u{0}"]
        {
            let call_id = glance(message.as_bytes()).map(|seen| seen.call_id.to_owned());
            assert_eq!(call_id.filter(|id| id != "\0"), None, "{message:?}");
        }
        // The body is not a header.
        assert_eq!(glance(b"A b SIP/2.0\r\nTo: x\r\n\r\nCall-ID: body\r\n"), None);
    }

    #[test]
    fn a_503_copies_what_the_phone_matches_on() {
        let answer = String::from_utf8(service_unavailable(INVITE, 5)).expect("text");
        let tag = format!("edge-{:016x}", hash(INVITE, b""));
        let want = format!(
            "SIP/2.0 503 Service Unavailable\r\n\
             v: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1\r\n\
             Via: SIP/2.0/TCP 192.0.2.9\r\n\
             f: \"A;tag=x\" <sip:alice@example.org>;tag=1\r\n\
             t:\r\n <sip:bob@example.org;tag=no>;tag={tag}\r\n\
             i: abc@192.0.2.1\r\n\
             CSeq: 1 INVITE\r\n\
             Retry-After: 5\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(answer, want);
        assert_eq!(service_unavailable(INVITE, 5), answer.as_bytes(), "retransmissions get the same answer");
    }

    #[test]
    fn start_lines_are_told_from_other_protocols() {
        for (line, is_sip) in [
            ("REGISTER sip:example.org SIP/2.0\r\n", true),
            ("SIP/2.0 200 OK\r\n", true),
            ("GET / HTTP/1.1\r\n", false),
            ("\u{1}\u{2} SIP/2.0\r\n", false),
            ("", false),
        ] {
            assert_eq!(is_start_line(line.as_bytes()), is_sip, "{line:?}");
        }
    }

    #[test]
    fn what_begins_is_told_from_what_goes_on() {
        for (start, to, expected) in [
            ("REGISTER sip:a SIP/2.0", "To: x", true),
            ("INVITE sip:a SIP/2.0", "t: <sip:b;tag=no>", true),
            ("INVITE sip:a SIP/2.0", "To: x;tag=1", false),
            ("ACK sip:a SIP/2.0", "To: x", false),
            ("CANCEL sip:a SIP/2.0", "To: x", false),
            ("SIP/2.0 200 OK", "To: x", false),
        ] {
            let message = format!("{start}\r\nCall-ID: x\r\n{to}\r\n\r\n");
            assert_eq!(begins(message.as_bytes()), expected, "{message}");
        }
        assert!(begins(b"OPTIONS sip:a SIP/2.0\r\n\r\n"), "nobody's");
    }

    #[test]
    fn whoever_gets_a_request_or_a_success_was_let_in() {
        let check = |start: &str, cseq: &str, expected: bool| {
            let message = format!("{start}\r\nCall-ID: x\r\nCSeq: 1 {cseq}\r\n\r\n");
            assert_eq!(lets_in(message.as_bytes()), expected, "{start} {cseq}");
        };
        check("INVITE sip:a SIP/2.0", "INVITE", true);
        check("SIP/2.0 202 Accepted", "INVITE", true);
        // What is registered counts, not that somebody asked, or took all of it back.
        check("SIP/2.0 200 OK", "REGISTER", false);
        check("SIP/2.0 200 OK\r\nContact: <sip:a@192.0.2.1>;expires=60", "REGISTER", true);
        check("SIP/2.0 200 OK\r\nm: <sip:a@192.0.2.1>;expires=60", "REGISTER", true);
        // Who hangs up was let in when it called.
        check("SIP/2.0 200 OK", "BYE", false);
        // Anybody may ask what we can do.
        check("SIP/2.0 200 OK", "OPTIONS", false);
        check("SIP/2.0 100 Trying", "INVITE", false);
        check("SIP/2.0 401 Unauthorized", "REGISTER", false);
        check("SIP/2.0 503 Service Unavailable", "INVITE", false);
        assert!(!lets_in(b"SIP/2.0 2"));
    }
}
