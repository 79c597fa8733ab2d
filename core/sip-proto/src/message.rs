//! A SIP message over its own bytes: accessors that read in place, and the checks that a server must make.

use std::borrow::Cow;
use std::ops::Range;

use rsip::Method;

use crate::fault::{Fault, FaultKind};
use crate::header::{CSeq, Contact, HeaderName, Values};
use crate::name_addr::NameAddr;
use crate::params::Params;
use crate::scan::{FieldSpan, Limits, Noted, NotedVia, Span, StartLine, Table, scan};
use crate::text::{decimal, unfold};
use crate::uri::Uri;
use crate::via::Via;

/// A message and the table of where everything is in it.
///
/// `Parsed<&[u8]>` borrows ([`Message`]); `Parsed<Vec<u8>>` owns ([`OwnedMessage`]). Both read alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<B> {
    bytes: B,
    pub(crate) table: Table,
}

/// A message that borrows its bytes.
pub type Message<'a> = Parsed<&'a [u8]>;

/// A message that owns its bytes.
pub type OwnedMessage = Parsed<Vec<u8>>;

/// One header field as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// What we know it as.
    pub id: HeaderName,
    /// The name as it stands.
    pub name: &'a str,
    /// The value with its folds, trimmed.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// The value as one line of text.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        unfold(self.value)
    }
}

impl<B: AsRef<[u8]>> Parsed<B> {
    /// Reads a well-framed message: a datagram, a WebSocket frame, or what the [`Framer`](crate::Framer) cut out.
    ///
    /// The framing is checked, the values are not; see [`check`](Self::check).
    ///
    /// # Errors
    /// The first fault. To answer a faulty request, [`scan`](Self::scan) it.
    pub fn parse(bytes: B, limits: &Limits) -> Result<Self, Fault> {
        match Self::scan(bytes, limits) {
            (Some(message), None) => Ok(message),
            (_, Some(fault)) => Err(fault),
            (None, None) => Err(Fault::new(0, FaultKind::Empty)),
        }
    }

    /// Reads as much as there is: the message unless it has no start line, and the first fault.
    pub fn scan(bytes: B, limits: &Limits) -> (Option<Self>, Option<Fault>) {
        let found = scan(bytes.as_ref(), limits);
        (found.table.map(|table| Self { bytes, table }), found.fault)
    }

    /// Reads once what is asked for again and again: both tags and the top Via.
    #[must_use]
    pub fn noted(mut self) -> Self {
        let via = self.top_via().map(|via| NotedVia {
            transport: self.span_of(via.transport.as_bytes()),
            host: self.span_of(via.host.as_bytes()),
            port: via.port,
            params: self.span_of(via.params.as_bytes()),
        });
        let span = |tag: &str| self.span_of(tag.as_bytes());
        let (from_tag, to_tag) = (self.from_tag().map(span), self.to_tag().map(span));
        self.table.noted = Some(Noted { from_tag, to_tag, via });
        self
    }

    /// Where a part of the message is.
    fn span_of(&self, part: &[u8]) -> Span {
        // An empty part may be anywhere.
        let start = part.as_ptr().addr().saturating_sub(self.as_bytes().as_ptr().addr());
        let start = if part.is_empty() { 0 } else { start };
        Span::new(start, start + part.len())
    }

    /// The bytes that it was read from; in a datagram there may be more of them than the message has.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Bytes with a table that is known to be theirs.
    pub(crate) fn with_table(bytes: B, table: Table) -> Self {
        Self { bytes, table }
    }

    /// Gives the bytes back.
    #[must_use]
    pub fn into_bytes(self) -> B {
        self.bytes
    }

    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_owned_message(&self) -> OwnedMessage {
        Parsed { bytes: self.as_bytes().to_vec(), table: self.table.clone() }
    }

    /// The same message over a copy of its bytes.
    #[must_use]
    pub fn into_owned_message(self) -> OwnedMessage {
        Parsed { bytes: self.bytes.as_ref().to_vec(), table: self.table }
    }

    /// Whether it is a request.
    #[must_use]
    pub fn is_request(&self) -> bool {
        matches!(self.table.start_line, StartLine::Request { .. })
    }

    /// The method of a request, or of the request that a response answers (from CSeq, empty if that is broken).
    #[must_use]
    pub fn method(&self) -> &str {
        match self.table.start_line {
            StartLine::Request { method, .. } => self.text_at(method.range()),
            StartLine::Status { .. } => self.cseq().map_or("", |cseq| cseq.method),
        }
    }

    /// The method, when it is one that we know. Methods are case-sensitive (RFC 3261 section 7.1).
    #[must_use]
    pub fn known_method(&self) -> Option<Method> {
        known_method(self.method())
    }

    /// The status code of a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.table.start_line {
            StartLine::Status { code, .. } => Some(code),
            StartLine::Request { .. } => None,
        }
    }

    /// The reason phrase of a response.
    #[must_use]
    pub fn reason_phrase(&self) -> Option<Cow<'_, str>> {
        match self.table.start_line {
            StartLine::Status { reason, .. } => {
                Some(String::from_utf8_lossy(&self.as_bytes()[reason.range()]))
            }
            StartLine::Request { .. } => None,
        }
    }

    /// The Request-URI as it stands; empty in a response or when it is not text.
    #[must_use]
    pub fn request_uri(&self) -> &str {
        match self.table.start_line {
            StartLine::Request { uri, .. } => self.text_at(uri.range()),
            StartLine::Status { .. } => "",
        }
    }

    /// The Request-URI in its parts.
    #[must_use]
    pub fn uri(&self) -> Option<Uri<'_>> {
        Uri::parse(self.request_uri())
    }

    /// Every header field in order.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.table.fields.iter().map(|field| self.field(field))
    }

    /// The whole value of the first field of this name.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<&[u8]> {
        self.spans(name).next().map(|field| &self.as_bytes()[field.value.range()])
    }

    /// The same as one line of text; bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn header_text(&self, name: HeaderName) -> Option<Cow<'_, str>> {
        self.header(name).map(unfold)
    }

    /// The value of the first field of a name that [`HeaderName`] does not know.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&[u8]> {
        self.fields()
            .find(|field| field.id == HeaderName::Other && field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// Every value of this name: of all its fields, lists split at their commas.
    pub fn headers(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        self.spans(name).flat_map(move |field| Values::of(name, &self.as_bytes()[field.value.range()]))
    }

    /// Every token of a list such as Supported or Require.
    pub fn tokens(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        self.headers(name)
            .filter_map(|value| std::str::from_utf8(value).ok())
            .filter(|value| !value.is_empty())
    }

    /// Whether a list such as Supported names this option, in any case.
    #[must_use]
    pub fn has_token(&self, name: HeaderName, token: &str) -> bool {
        self.tokens(name).any(|value| value.eq_ignore_ascii_case(token))
    }

    /// The Call-ID.
    #[must_use]
    pub fn call_id(&self) -> Option<&str> {
        std::str::from_utf8(self.header(HeaderName::CallId)?).ok().filter(|id| !id.is_empty())
    }

    /// The CSeq.
    #[must_use]
    pub fn cseq(&self) -> Option<CSeq<'_>> {
        CSeq::parse(self.header(HeaderName::CSeq)?)
    }

    /// The top Via.
    #[must_use]
    pub fn top_via(&self) -> Option<Via<'_>> {
        if let Some(noted) = &self.table.noted {
            let via = noted.via.as_ref()?;
            return Some(Via {
                transport: self.text_at(via.transport.range()),
                host: self.text_at(via.host.range()),
                port: via.port,
                params: Params::checked(&self.as_bytes()[via.params.range()]),
            });
        }
        Via::parse(self.headers(HeaderName::Via).next()?)
    }

    /// The From address.
    #[must_use]
    pub fn from(&self) -> Option<NameAddr<'_>> {
        NameAddr::parse(self.header(HeaderName::From)?)
    }

    /// The To address.
    #[must_use]
    pub fn to(&self) -> Option<NameAddr<'_>> {
        NameAddr::parse(self.header(HeaderName::To)?)
    }

    /// The From tag.
    #[must_use]
    pub fn from_tag(&self) -> Option<&str> {
        match &self.table.noted {
            Some(noted) => noted.from_tag.map(|tag| self.text_at(tag.range())),
            None => self.from()?.tag(),
        }
    }

    /// The To tag.
    #[must_use]
    pub fn to_tag(&self) -> Option<&str> {
        match &self.table.noted {
            Some(noted) => noted.to_tag.map(|tag| self.text_at(tag.range())),
            None => self.to()?.tag(),
        }
    }

    /// The Contact values that follow their grammar.
    pub fn contacts(&self) -> impl Iterator<Item = Contact<'_>> {
        self.headers(HeaderName::Contact).filter_map(Contact::parse)
    }

    /// The values of Route, Record-Route, Path or Service-Route that follow their grammar.
    pub fn routes(&self, name: HeaderName) -> impl Iterator<Item = NameAddr<'_>> {
        self.headers(name).filter_map(NameAddr::parse)
    }

    /// Max-Forwards. Above 255 counts as absent (RFC 4475 section 3.1.2.4).
    #[must_use]
    pub fn max_forwards(&self) -> Option<u8> {
        decimal(self.header(HeaderName::MaxForwards)?).and_then(|hops| u8::try_from(hops).ok())
    }

    /// Expires in seconds, capped at `u32::MAX`; none when absent or malformed, which means the default.
    #[must_use]
    pub fn expires_seconds(&self) -> Option<u32> {
        decimal(self.header(HeaderName::Expires)?).map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// The media type of the body without parameters, in lower case.
    #[must_use]
    pub fn content_type(&self) -> Option<String> {
        let text = self.header_text(HeaderName::ContentType)?;
        Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }

    /// The body, cut at Content-Length.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.as_bytes()[self.table.body.range()]
    }

    /// Checks what every element must check before it works with a message: the headers that must be there, once,
    /// and the grammar of the ones that routing and matching use (RFC 3261 sections 8.2, 16.3 and 18).
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), Fault> {
        let checked =
            self.check_once().and_then(|()| self.check_identity()).and_then(|()| self.check_routing());
        checked.map_err(|fault| if self.is_request() { fault } else { fault.discarded() })
    }

    pub(crate) fn text_at(&self, range: Range<usize>) -> &str {
        std::str::from_utf8(&self.as_bytes()[range]).unwrap_or_default()
    }

    pub(crate) fn spans(&self, name: HeaderName) -> impl Iterator<Item = &FieldSpan> {
        self.table.fields.iter().filter(move |field| field.id == name)
    }

    /// Where the first field of this name has its value, or where the headers end.
    pub(crate) fn position(&self, name: HeaderName) -> usize {
        self.spans(name).next().map_or(self.table.head_end, |field| field.value.start) as usize
    }

    fn field(&self, field: &FieldSpan) -> Field<'_> {
        Field {
            id: field.id,
            name: self.text_at(field.name.range()),
            value: &self.as_bytes()[field.value.range()],
        }
    }

    fn check_once(&self) -> Result<(), Fault> {
        for (at, field) in self.table.fields.iter().enumerate() {
            if field.id.is_single() && self.table.fields[..at].iter().any(|before| before.id == field.id) {
                return Err(Fault::new(field.value.start as usize, FaultKind::DuplicateHeader));
            }
        }
        for name in [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq]
        {
            if self.header(name).is_none() {
                return Err(Fault::new(self.table.head_end as usize, FaultKind::MissingHeader));
            }
        }
        Ok(())
    }

    fn check_identity(&self) -> Result<(), Fault> {
        let fault = |name, kind| Fault::new(self.position(name), kind);
        if self.from().is_none() {
            return Err(fault(HeaderName::From, FaultKind::AddressSyntax));
        }
        if self.to().is_none() {
            return Err(fault(HeaderName::To, FaultKind::AddressSyntax));
        }
        if self.call_id().is_none() {
            return Err(fault(HeaderName::CallId, FaultKind::CallIdSyntax));
        }
        let cseq = self.cseq().ok_or(fault(HeaderName::CSeq, FaultKind::CseqSyntax))?;
        if cseq.method != self.method() {
            let kind = match self.known_method() {
                Some(_) => FaultKind::CseqMethodMismatch,
                None => FaultKind::UnknownMethodMismatch,
            };
            return Err(fault(HeaderName::CSeq, kind));
        }
        Ok(())
    }

    fn check_routing(&self) -> Result<(), Fault> {
        self.check_each(HeaderName::Via, FaultKind::ViaSyntax, |value| Via::parse(value).is_some())?;
        self.check_each(HeaderName::Contact, FaultKind::ContactSyntax, |value| {
            Contact::parse(value).is_some()
        })?;
        for name in [HeaderName::Route, HeaderName::RecordRoute, HeaderName::Path, HeaderName::ServiceRoute] {
            self.check_each(name, FaultKind::RouteSyntax, |value| NameAddr::parse(value).is_some())?;
        }
        match self.header(HeaderName::MaxForwards) {
            Some(value) if decimal(value).is_none() => {
                Err(Fault::new(self.position(HeaderName::MaxForwards), FaultKind::MaxForwardsSyntax))
            }
            _ => Ok(()),
        }
    }

    fn check_each(&self, name: HeaderName, kind: FaultKind, is_good: fn(&[u8]) -> bool) -> Result<(), Fault> {
        for field in self.spans(name) {
            let value = &self.as_bytes()[field.value.range()];
            if !Values::of(name, value).all(is_good) {
                return Err(Fault::new(field.value.start as usize, kind));
            }
        }
        Ok(())
    }
}

/// The method of this exact name. `rsip` compares without case, which RFC 3261 section 7.1 forbids.
#[must_use]
pub fn known_method(name: &str) -> Option<Method> {
    Some(match name {
        "ACK" => Method::Ack,
        "BYE" => Method::Bye,
        "CANCEL" => Method::Cancel,
        "INFO" => Method::Info,
        "INVITE" => Method::Invite,
        "MESSAGE" => Method::Message,
        "NOTIFY" => Method::Notify,
        "OPTIONS" => Method::Options,
        "PRACK" => Method::PRack,
        "PUBLISH" => Method::Publish,
        "REFER" => Method::Refer,
        "REGISTER" => Method::Register,
        "SUBSCRIBE" => Method::Subscribe,
        "UPDATE" => Method::Update,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
