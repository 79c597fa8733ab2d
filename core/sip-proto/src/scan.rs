//! One pass over a message: bytes to a table of offsets.
//!
//! The scan finds where things are and keeps going after the first fault, so that a faulty request can still be
//! answered with its own Via, From and To. Whether the values make sense is [`Parsed::check`](crate::Parsed::check).

use std::ops::Range;

use memchr::memchr;

use crate::fault::{Fault, FaultKind};
use crate::header::HeaderName;
use crate::text::{decimal, is_token, is_token_text, trim, trim_end, trim_start};

/// How large a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a whole message.
    pub message_bytes_max: usize,
    /// Bytes of the start line, or of one header field with its folds.
    pub line_bytes_max: usize,
    /// Header fields.
    pub headers_max: usize,
}

impl Default for Limits {
    /// What fits every transport: a UDP datagram's 65,535 bytes, lines of 8 KiB, 256 header fields.
    fn default() -> Self {
        Self { message_bytes_max: 65_535, line_bytes_max: 8_192, headers_max: 256 }
    }
}

/// A place in the message. Messages are far below 4 GiB, and half the size keeps the table in cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    #[expect(clippy::cast_possible_truncation, reason = "the scan refuses messages of 4 GiB and more")]
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartLine {
    Request { method: Span, uri: Span },
    Status { code: u16, reason: Span },
}

/// One header field: `line` is the whole of it with folds and the last CRLF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldSpan {
    pub(crate) id: HeaderName,
    pub(crate) line: Span,
    pub(crate) name: Span,
    pub(crate) value: Span,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) start_line: StartLine,
    pub(crate) fields: Vec<FieldSpan>,
    /// Where the first header line starts.
    pub(crate) head_start: u32,
    /// Where the empty line starts.
    pub(crate) head_end: u32,
    pub(crate) body: Span,
    /// What is asked for again and again, when it was noted.
    pub(crate) noted: Option<Noted>,
}

/// The parts of a message by which dialogs and transactions are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) from_tag: Option<Span>,
    pub(crate) to_tag: Option<Span>,
    pub(crate) via: Option<NotedVia>,
}

/// The top Via.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotedVia {
    pub(crate) transport: Span,
    pub(crate) host: Span,
    pub(crate) port: Option<u16>,
    pub(crate) params: Span,
}

impl Table {
    /// Says where everything is after the bytes have moved.
    pub(crate) fn relocate(&mut self, moved: impl Fn(u32) -> usize) {
        // The Via that moved everything is another one now.
        self.noted = None;
        let span = |span: &mut Span| *span = Span::new(moved(span.start), moved(span.end));
        match &mut self.start_line {
            StartLine::Request { method, uri } => {
                span(method);
                span(uri);
            }
            StartLine::Status { reason, .. } => span(reason),
        }
        for field in &mut self.fields {
            span(&mut field.line);
            span(&mut field.name);
            span(&mut field.value);
        }
        let mut head = Span { start: self.head_start, end: self.head_end };
        span(&mut head);
        (self.head_start, self.head_end) = (head.start, head.end);
        span(&mut self.body);
    }
}

/// What a scan found: the table unless there is no start line, and the first fault.
pub(crate) struct Scan {
    pub(crate) table: Option<Table>,
    pub(crate) fault: Option<Fault>,
}

/// Scans one whole message: a datagram, a WebSocket frame, or what the [`Framer`](crate::Framer) cut out.
pub(crate) fn scan(bytes: &[u8], limits: &Limits) -> Scan {
    if bytes.len() > limits.message_bytes_max.min(u32::MAX as usize) {
        return nothing(limits.message_bytes_max, FaultKind::MessageTooLarge);
    }
    let start = leading_blank_lines(bytes);
    if start == bytes.len() {
        return nothing(0, FaultKind::Empty);
    }
    let mut faults = Faults(None);
    let line = match line_at(bytes, start) {
        Ok(line) => line,
        Err(fault) => return Scan { table: None, fault: Some(fault) },
    };
    if line.len() > limits.line_bytes_max {
        return nothing(start, FaultKind::LineTooLong);
    }
    let start_line = match start_line(bytes, line.clone(), &mut faults) {
        Ok(start_line) => start_line,
        Err(fault) => return Scan { table: None, fault: Some(fault) },
    };
    let (fields, head_end) = fields(bytes, line.end + 2, limits, &mut faults);
    let body_start = (head_end + 2).min(bytes.len());
    let body = body(bytes, body_start, &fields, &mut faults);
    let is_response = matches!(start_line, StartLine::Status { .. });
    let head_start = Span::new(line.end + 2, head_end);
    let (head_start, head_end) = (head_start.start, head_start.end);
    let table = Table { start_line, fields, head_start, head_end, body, noted: None };
    let fault = faults.0.map(|fault| if is_response { fault.discarded() } else { fault });
    Scan { table: Some(table), fault }
}

/// How many bytes of blank lines stand before the start line (RFC 3261 section 7.5 says to skip them).
pub(crate) fn leading_blank_lines(bytes: &[u8]) -> usize {
    let mut start = 0;
    while bytes[start..].starts_with(b"\r\n") {
        start += 2;
    }
    start
}

/// The Content-Length values of a head, each with its offset.
pub(crate) fn content_length(bytes: &[u8], fields: &[FieldSpan]) -> Result<Option<u64>, Fault> {
    let mut length = None;
    for field in fields.iter().filter(|field| field.id == HeaderName::ContentLength) {
        let at = field.value.start as usize;
        if length.is_some() {
            return Err(Fault::new(at, FaultKind::DuplicateHeader));
        }
        let value = decimal(&bytes[field.value.range()]);
        length = Some(value.ok_or(Fault::new(at, FaultKind::ContentLengthSyntax))?);
    }
    Ok(length)
}

/// Scans the header lines from `at`; gives the fields and where the empty line starts.
pub(crate) fn fields(
    bytes: &[u8],
    mut at: usize,
    limits: &Limits,
    faults: &mut Faults,
) -> (Vec<FieldSpan>, usize) {
    let mut fields = Vec::with_capacity(16);
    loop {
        let line = match field_line_at(bytes, at) {
            Ok(line) => line,
            Err(fault) => {
                faults.note(fault);
                return (fields, at.min(bytes.len()));
            }
        };
        if line.is_empty() {
            return (fields, at);
        }
        let end = line.end + 2;
        if line.len() > limits.line_bytes_max {
            faults.note(Fault::new(at, FaultKind::LineTooLong));
        } else if fields.len() >= limits.headers_max {
            faults.note(Fault::new(at, FaultKind::TooManyHeaders));
        } else {
            match field(bytes, line) {
                Some(field) => fields.push(field),
                None => faults.note(Fault::new(at, FaultKind::HeaderLine)),
            }
        }
        at = end;
    }
}

/// Keeps the first fault.
pub(crate) struct Faults(pub(crate) Option<Fault>);

impl Faults {
    pub(crate) fn note(&mut self, fault: Fault) {
        self.0.get_or_insert(fault);
    }
}

fn nothing(position: usize, kind: FaultKind) -> Scan {
    Scan { table: None, fault: Some(Fault::new(position, kind)) }
}

/// The line from `at`, without its CRLF.
fn line_at(bytes: &[u8], at: usize) -> Result<Range<usize>, Fault> {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(line_feed) = memchr(b'\n', rest) else {
        return Err(Fault::new(bytes.len(), FaultKind::HeadersUnterminated));
    };
    let line = &rest[..line_feed];
    let Some(text) = line.strip_suffix(b"\r") else {
        return Err(Fault::new(at + line_feed, FaultKind::BareLineEnd));
    };
    match memchr(b'\r', text) {
        Some(bare) => Err(Fault::new(at + bare, FaultKind::BareLineEnd)),
        None => Ok(at..at + text.len()),
    }
}

/// The header line from `at` with the lines folded into it, without the last CRLF.
fn field_line_at(bytes: &[u8], at: usize) -> Result<Range<usize>, Fault> {
    let mut line = line_at(bytes, at)?;
    while !line.is_empty() && matches!(bytes.get(line.end + 2), Some(b' ' | b'\t')) {
        line.end = line_at(bytes, line.end + 2)?.end;
    }
    Ok(line)
}

fn field(bytes: &[u8], line: Range<usize>) -> Option<FieldSpan> {
    let text = &bytes[line.clone()];
    let colon = memchr(b':', text)?;
    let name = trim_end(&text[..colon]);
    if !is_token_text(name) {
        return None;
    }
    let value = &text[colon + 1..];
    let start = line.start + colon + 1 + (value.len() - trim_start(value).len());
    Some(FieldSpan {
        id: HeaderName::from_bytes(name),
        line: Span::new(line.start, line.end + 2),
        name: Span::new(line.start, line.start + name.len()),
        value: Span::new(start, start + trim(value).len()),
    })
}

fn start_line(bytes: &[u8], line: Range<usize>, faults: &mut Faults) -> Result<StartLine, Fault> {
    let text = &bytes[line.clone()];
    let is_status = text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"));
    if is_status { status_line(text, line.start, faults) } else { request_line(text, line.start, faults) }
}

fn status_line(text: &[u8], at: usize, faults: &mut Faults) -> Result<StartLine, Fault> {
    let malformed = |offset| Fault::new(at + offset, FaultKind::StartLine).discarded();
    let space = memchr(b' ', text).ok_or(malformed(0))?;
    if !text[..space].eq_ignore_ascii_case(b"SIP/2.0") {
        faults.note(Fault::new(at, FaultKind::Version));
    }
    let rest = &text[space + 1..];
    let code_end = memchr(b' ', rest).unwrap_or(rest.len());
    let code = decimal(&rest[..code_end]).ok_or(malformed(space + 1))?;
    let code = u16::try_from(code).ok().filter(|code| (100..700).contains(code) && code_end == 3);
    if code.is_none() {
        faults.note(Fault::new(at + space + 1, FaultKind::StatusCode));
    }
    let reason_start = at + space + 1 + (code_end + 1).min(rest.len());
    Ok(StartLine::Status { code: code.unwrap_or(0), reason: Span::new(reason_start, at + text.len()) })
}

fn request_line(text: &[u8], at: usize, faults: &mut Faults) -> Result<StartLine, Fault> {
    let fault = |offset, kind| Fault::new(at + offset, kind);
    let method_end = text.iter().position(|&byte| !is_token(byte)).unwrap_or(text.len());
    if method_end == 0 || text.get(method_end) != Some(&b' ') {
        return Err(fault(method_end, FaultKind::StartLine));
    }
    let rest = &text[method_end + 1..];
    // Liberal in where the URI is, so that the message can be answered; strict in what is accepted.
    let uri_start = method_end + 1 + rest.iter().position(|&byte| byte != b' ').unwrap_or(rest.len());
    let body = trim_end(&text[uri_start..]);
    let Some(version_start) = body.iter().rposition(|&byte| byte == b' ').map(|at| at + 1) else {
        faults.note(fault(text.len(), FaultKind::StartLine));
        let uri = Span::new(at + uri_start, at + uri_start + body.len());
        return Ok(StartLine::Request { method: Span::new(at, at + method_end), uri });
    };
    let version = &body[version_start..];
    let uri = trim_end(&body[..version_start]);
    if !is_version(version) {
        faults.note(fault(uri_start + version_start, FaultKind::StartLine));
    } else if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        faults.note(fault(uri_start + version_start, FaultKind::Version));
    } else if method_end + 1 + uri.len() + 1 + version.len() != text.len() {
        faults.note(fault(method_end, FaultKind::StartLineSpacing));
    }
    let uri = Span::new(at + uri_start, at + uri_start + uri.len());
    Ok(StartLine::Request { method: Span::new(at, at + method_end), uri })
}

fn is_version(text: &[u8]) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"))
        && text[4..]
            .iter()
            .position(|&byte| byte == b'.')
            .is_some_and(|dot| digits(&text[4..4 + dot]) && digits(&text[5 + dot..]))
}

/// What lies behind the body in a datagram is not part of the message (RFC 3261 section 18.3).
fn body(bytes: &[u8], start: usize, fields: &[FieldSpan], faults: &mut Faults) -> Span {
    let there = bytes.len() - start;
    match content_length(bytes, fields) {
        Ok(None) => Span::new(start, bytes.len()),
        Ok(Some(length)) => match usize::try_from(length).ok().filter(|&length| length <= there) {
            Some(length) => Span::new(start, start + length),
            None => {
                faults.note(Fault::new(start, FaultKind::ContentLengthPastEnd));
                Span::new(start, bytes.len())
            }
        },
        Err(fault) => {
            faults.note(fault);
            Span::new(start, bytes.len())
        }
    }
}
