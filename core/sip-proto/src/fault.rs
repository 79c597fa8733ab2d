//! What is wrong with a message, where, and what we would answer.
//!
//! A fault is about the bytes; whether the sender can be answered at all (a Via to send to) is the caller's question.

use std::fmt;

/// What we would do about a faulty message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Answer the request with this status code.
    Reject(u16),
    /// Say nothing: it is a response, or it cannot be answered.
    Discard,
}

/// One fault: what and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {position}")]
pub struct Fault {
    /// Byte offset in the message.
    pub position: usize,
    /// What is wrong.
    pub kind: FaultKind,
    /// What we would do about it.
    pub answer: Answer,
}

impl Fault {
    pub(crate) fn new(position: usize, kind: FaultKind) -> Self {
        Self { position, kind, answer: Answer::Reject(kind.status()) }
    }

    /// The same fault in a response, which nobody answers.
    pub(crate) fn discarded(self) -> Self {
        Self { answer: Answer::Discard, ..self }
    }

    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.kind.reason()
    }

    /// The status code that we would answer, unless the message is to be discarded.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.answer {
            Answer::Reject(status) => Some(status),
            Answer::Discard => None,
        }
    }
}

macro_rules! fault_kinds {
    ($($(#[$meta:meta])* $kind:ident = $reason:literal, $status:literal;)+) => {
        /// The kinds of fault, each with its bounded name and the status code that it deserves.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum FaultKind {
            $($(#[$meta])* $kind,)+
        }

        impl FaultKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// A bounded name for labels.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$kind => $reason),+ }
            }

            /// The status code that a request with this fault deserves.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$kind => $status),+ }
            }
        }
    };
}

fault_kinds! {
    /// Nothing but white space.
    Empty = "empty", 400;
    /// Larger than [`Limits::message_bytes_max`](crate::Limits::message_bytes_max).
    MessageTooLarge = "message_too_large", 513;
    /// A line longer than [`Limits::line_bytes_max`](crate::Limits::line_bytes_max).
    LineTooLong = "line_too_long", 513;
    /// More header fields than [`Limits::headers_max`](crate::Limits::headers_max).
    TooManyHeaders = "too_many_headers", 513;
    /// CR without LF, or LF without CR.
    BareLineEnd = "bare_line_end", 400;
    /// Neither a request line nor a status line.
    StartLine = "start_line", 400;
    /// More or other white space than the single spaces of RFC 3261 section 7.1.
    StartLineSpacing = "start_line_spacing", 400;
    /// The method is not a token.
    MethodSyntax = "method_syntax", 400;
    /// A SIP version other than 2.0 (RFC 3261 section 21.5.6).
    Version = "version", 505;
    /// A status code outside 100 to 699.
    StatusCode = "status_code", 400;
    /// The Request-URI breaks RFC 3261 section 19.1.1.
    RequestUri = "request_uri", 400;
    /// The Request-URI carries headers (RFC 3261 section 19.1.1 table 1).
    RequestUriHeaders = "request_uri_headers", 400;
    /// A Request-URI scheme that we do not serve (RFC 3261 section 16.3).
    UnknownScheme = "unknown_scheme", 416;
    /// A header line without a colon, or with a name that is not a token.
    HeaderLine = "header_line", 400;
    /// The message ends before the empty line.
    HeadersUnterminated = "headers_unterminated", 400;
    /// Content-Length is not a number.
    ContentLengthSyntax = "content_length_syntax", 400;
    /// Content-Length announces more than there is.
    ContentLengthPastEnd = "content_length_past_end", 400;
    /// A header field that must stand once stands more than once.
    DuplicateHeader = "duplicate_header", 400;
    /// From, To, Call-ID, CSeq or Via is missing (RFC 3261 section 8.1.1).
    MissingHeader = "missing_header", 400;
    /// The top or another Via breaks RFC 3261 section 20.42.
    ViaSyntax = "via_syntax", 400;
    /// From or To breaks RFC 3261 section 20.10.
    AddressSyntax = "address_syntax", 400;
    /// Contact breaks RFC 3261 section 20.10.
    ContactSyntax = "contact_syntax", 400;
    /// Route, Record-Route or Path breaks RFC 3261 section 20.34.
    RouteSyntax = "route_syntax", 400;
    /// The Call-ID is empty or not text.
    CallIdSyntax = "call_id_syntax", 400;
    /// CSeq is not a number below 2**31 times two and a method (RFC 3261 section 8.1.1.5).
    CseqSyntax = "cseq_syntax", 400;
    /// The CSeq method differs from the request's (RFC 3261 section 8.1.1.5).
    CseqMethodMismatch = "cseq_method_mismatch", 400;
    /// As above, for a method that we do not know (RFC 4475 section 3.1.2.18 prefers 501).
    UnknownMethodMismatch = "unknown_method_mismatch", 501;
    /// Max-Forwards is not a number.
    MaxForwardsSyntax = "max_forwards_syntax", 400;
    /// Max-Forwards has run out (RFC 3261 section 16.3).
    TooManyHops = "too_many_hops", 483;
    /// Proxy-Require names an extension that we do not have (RFC 3261 section 16.3).
    BadExtension = "bad_extension", 420;
    /// A REGISTER whose To is not a SIP address of record (RFC 3261 section 10.3, RFC 4475 section 3.3.4).
    AddressOfRecordScheme = "address_of_record_scheme", 400;
    /// A response that would be sent on to a broadcast address (RFC 4475 section 3.3.10).
    BroadcastVia = "broadcast_via", 400;
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, word) in self.reason().split('_').enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}
