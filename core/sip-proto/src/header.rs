//! Header names, list splitting, and the small typed values: CSeq and Contact.

use std::fmt;

use crate::name_addr::NameAddr;
use crate::text::{decimal, is_space, is_token, quoted_end, trim};

macro_rules! header_names {
    ($($name:ident = $text:literal $(| $compact:literal)?;)+) => {
        /// The headers that we know by name; every other one is [`HeaderName::Other`] and travels untouched.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum HeaderName {
            $(#[doc = $text] $name,)+
            /// A header that we have no name for.
            Other,
        }

        impl HeaderName {
            /// Every known name.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The canonical spelling; empty for [`HeaderName::Other`].
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ Self::Other => "" }
            }

            /// The compact form, where one is registered.
            #[must_use]
            pub const fn compact(self) -> Option<u8> {
                match self { $($(Self::$name => Some($compact),)?)+ _ => None }
            }

            /// Knows a name in long or compact form, in any case.
            #[must_use]
            pub fn from_bytes(name: &[u8]) -> Self {
                if let [byte] = name {
                    return match byte.to_ascii_lowercase() { $($($compact => Self::$name,)?)+ _ => Self::Other };
                }
                // Few names have one length and one first letter.
                let first = name.first().map(u8::to_ascii_lowercase);
                $(if name.len() == $text.len()
                    && first == Some($text.as_bytes()[0].to_ascii_lowercase())
                    && name.eq_ignore_ascii_case($text.as_bytes())
                {
                    return Self::$name;
                })+
                Self::Other
            }
        }
    };
}

header_names! {
    Via = "Via" | b'v';
    From = "From" | b'f';
    To = "To" | b't';
    CallId = "Call-ID" | b'i';
    CSeq = "CSeq";
    Contact = "Contact" | b'm';
    MaxForwards = "Max-Forwards";
    Route = "Route";
    RecordRoute = "Record-Route";
    ContentLength = "Content-Length" | b'l';
    ContentType = "Content-Type" | b'c';
    Expires = "Expires";
    Allow = "Allow";
    Supported = "Supported" | b'k';
    Require = "Require";
    ProxyRequire = "Proxy-Require";
    Unsupported = "Unsupported";
    Authorization = "Authorization";
    ProxyAuthorization = "Proxy-Authorization";
    WwwAuthenticate = "WWW-Authenticate";
    ProxyAuthenticate = "Proxy-Authenticate";
    AuthenticationInfo = "Authentication-Info";
    UserAgent = "User-Agent";
    Server = "Server";
    Path = "Path";
    ServiceRoute = "Service-Route";
    MinExpires = "Min-Expires";
    RetryAfter = "Retry-After";
    Date = "Date";
    Accept = "Accept";
    AcceptEncoding = "Accept-Encoding";
    AcceptLanguage = "Accept-Language";
    AcceptContact = "Accept-Contact" | b'a';
    RejectContact = "Reject-Contact" | b'j';
    RequestDisposition = "Request-Disposition" | b'd';
    AllowEvents = "Allow-Events" | b'u';
    Event = "Event" | b'o';
    SubscriptionState = "Subscription-State";
    ReferTo = "Refer-To" | b'r';
    ReferredBy = "Referred-By" | b'b';
    Replaces = "Replaces";
    Join = "Join";
    Reason = "Reason";
    SessionExpires = "Session-Expires" | b'x';
    MinSe = "Min-SE";
    RAck = "RAck";
    RSeq = "RSeq";
    Subject = "Subject" | b's';
    ContentEncoding = "Content-Encoding" | b'e';
    ContentDisposition = "Content-Disposition";
    ContentLanguage = "Content-Language";
    MimeVersion = "MIME-Version";
    Organization = "Organization";
    Priority = "Priority";
    Timestamp = "Timestamp";
    Warning = "Warning";
    Privacy = "Privacy";
    PAssertedIdentity = "P-Asserted-Identity";
    PPreferredIdentity = "P-Preferred-Identity";
    Diversion = "Diversion";
    HistoryInfo = "History-Info";
    Identity = "Identity" | b'y';
    SipETag = "SIP-ETag";
    SipIfMatch = "SIP-If-Match";
    FlowTimer = "Flow-Timer";
    MaxBreadth = "Max-Breadth";
    InReplyTo = "In-Reply-To";
    ReplyTo = "Reply-To";
    AlertInfo = "Alert-Info";
    CallInfo = "Call-Info";
    ErrorInfo = "Error-Info";
}

impl HeaderName {
    /// Whether the value is a comma-separated list by its grammar.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(
            self,
            Self::Via
                | Self::Contact
                | Self::Route
                | Self::RecordRoute
                | Self::Path
                | Self::ServiceRoute
                | Self::Allow
                | Self::Supported
                | Self::Require
                | Self::ProxyRequire
                | Self::Unsupported
                | Self::Accept
                | Self::AcceptEncoding
                | Self::AcceptLanguage
                | Self::AcceptContact
                | Self::RejectContact
                | Self::RequestDisposition
                | Self::AllowEvents
                | Self::Reason
                | Self::ContentEncoding
                | Self::ContentLanguage
                | Self::Warning
                | Self::PAssertedIdentity
                | Self::PPreferredIdentity
                | Self::Diversion
                | Self::HistoryInfo
                | Self::InReplyTo
                | Self::AlertInfo
                | Self::CallInfo
                | Self::ErrorInfo
        )
    }

    /// Whether a message may carry it only once (RFC 3261 section 7.3.1).
    #[must_use]
    pub fn is_single(self) -> bool {
        matches!(
            self,
            Self::From
                | Self::To
                | Self::CallId
                | Self::CSeq
                | Self::MaxForwards
                | Self::ContentLength
                | Self::ContentType
                | Self::Expires
                | Self::MinExpires
                | Self::Date
                | Self::Event
                | Self::SubscriptionState
                | Self::ReferTo
                | Self::SessionExpires
                | Self::MinSe
                | Self::RAck
                | Self::RSeq
                | Self::Timestamp
                | Self::MimeVersion
                | Self::MaxBreadth
                | Self::Subject
        )
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The comma-separated elements of one value; commas in quotes and in `<>` do not count. Empty elements stay.
pub fn split_list(value: &[u8]) -> Values<'_> {
    Values { rest: Some(value), is_list: true }
}

/// Iterates over the elements of one header value (see [`split_list`]).
#[derive(Clone, Debug)]
pub struct Values<'a> {
    rest: Option<&'a [u8]>,
    is_list: bool,
}

impl<'a> Values<'a> {
    pub(crate) fn of(name: HeaderName, value: &'a [u8]) -> Self {
        Self { rest: Some(value), is_list: name.is_list() }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.rest.take()?;
        match self.is_list.then(|| comma(text)).flatten() {
            Some(at) => {
                self.rest = Some(&text[at + 1..]);
                Some(trim(&text[..at]))
            }
            None => Some(trim(text)),
        }
    }
}

/// The first comma that separates elements.
pub(crate) fn comma(text: &[u8]) -> Option<usize> {
    // Most values have none at all.
    memchr::memchr(b',', text)?;
    let mut at = 0;
    let mut is_in_angle = false;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' if !is_in_angle => {
                at += quoted_end(&text[at..])?;
                continue;
            }
            b'<' => is_in_angle = true,
            b'>' => is_in_angle = false,
            b',' if !is_in_angle => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// A CSeq value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// The sequence number.
    pub number: u32,
    /// The method as it stands.
    pub method: &'a str,
}

impl<'a> CSeq<'a> {
    /// Reads `number method`; none when it breaks RFC 3261 section 20.16.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = trim(value);
        let space = value.iter().position(|&byte| is_space(byte))?;
        let number = decimal(&value[..space]).and_then(|number| u32::try_from(number).ok())?;
        let method = trim(&value[space..]);
        let is_method = !method.is_empty() && method.iter().all(|&byte| is_token(byte));
        Some(Self { number, method: is_method.then(|| std::str::from_utf8(method).ok()).flatten()? })
    }
}

/// One Contact value.
#[derive(Clone, Copy, Debug)]
pub enum Contact<'a> {
    /// `*`: every binding (REGISTER with `Expires: 0`).
    Star,
    /// An address.
    Address(NameAddr<'a>),
}

impl<'a> Contact<'a> {
    /// Reads one element of a Contact list; none when it breaks its grammar.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        if trim(value) == b"*" { Some(Self::Star) } else { NameAddr::parse(value).map(Self::Address) }
    }

    /// The address, unless it is `*`.
    #[must_use]
    pub fn address(&self) -> Option<&NameAddr<'a>> {
        match self {
            Self::Star => None,
            Self::Address(address) => Some(address),
        }
    }

    /// The `expires` parameter in seconds, capped at `u32::MAX`; none when absent or not a number, which counts
    /// as the default (RFC 3261 section 10.2.1.1).
    #[must_use]
    pub fn expires_seconds(&self) -> Option<u32> {
        let value = self.address()?.params.get("expires")?.raw?;
        decimal(value).map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// The `q` parameter in thousandths: 1000 when absent or malformed.
    #[must_use]
    pub fn q_thousandths(&self) -> u16 {
        let Some(value) = self.address().and_then(|address| address.params.token("q")) else { return 1000 };
        let (whole, part) = value.split_once('.').unwrap_or((value, ""));
        let is_q = matches!(whole, "0" | "1") && part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit());
        if !is_q {
            return 1000;
        }
        let digit = |at: usize| part.as_bytes().get(at).map_or(0, |digit| u16::from(digit - b'0'));
        let thousandths = digit(0) * 100 + digit(1) * 10 + digit(2);
        (if whole == "1" { 1000 + thousandths } else { thousandths }).min(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_in_both_forms_and_any_case() {
        for &name in HeaderName::ALL {
            assert_eq!(HeaderName::from_bytes(name.as_str().to_ascii_uppercase().as_bytes()), name);
            if let Some(compact) = name.compact() {
                assert_eq!(HeaderName::from_bytes(&[compact.to_ascii_uppercase()]), name);
            }
        }
        assert_eq!(HeaderName::from_bytes(b"C%6Fntact"), HeaderName::Other);
        assert_eq!(HeaderName::from_bytes(b""), HeaderName::Other);
    }

    #[test]
    fn lists_split_outside_quotes_and_angles() {
        let split = |text: &'static str| {
            split_list(text.as_bytes()).map(|v| String::from_utf8_lossy(v).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(split("a, b\r\n ,c"), ["a", "b", "c"]);
        assert_eq!(
            split("\"x, \\\" y\" <sip:a,b@c>;q=1, <sip:d>"),
            ["\"x, \\\" y\" <sip:a,b@c>;q=1", "<sip:d>"]
        );
        assert_eq!(split("a,,b"), ["a", "", "b"]);
        assert_eq!(split("\"open, a"), ["\"open, a"]);
    }

    #[test]
    fn sequence_numbers() {
        let cseq = CSeq::parse(b"0009\r\n  INVITE").expect("valid");
        assert_eq!((cseq.number, cseq.method), (9, "INVITE"));
        for text in ["36893488147419103232 REGISTER", "4294967296 X", "INVITE", "1", "1 ", "-1 A", "1 A B"] {
            assert_eq!(CSeq::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn contacts() {
        let contact = Contact::parse(b"<sip:a@b>;expires=280297596632815;q=0.33").expect("valid");
        assert_eq!((contact.expires_seconds(), contact.q_thousandths()), (Some(u32::MAX), 330));
        assert!(matches!(Contact::parse(b" * "), Some(Contact::Star)));
        let contact = Contact::parse(b"<sip:a@b>;q=7;expires=soon").expect("valid");
        assert_eq!((contact.expires_seconds(), contact.q_thousandths()), (None, 1000));
    }
}
