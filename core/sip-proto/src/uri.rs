//! SIP, SIPS and `tel:` URIs (RFC 3261 section 19.1, RFC 3966), read in place.
//!
//! Other schemes are kept whole as opaque text, so that a proxy can carry them.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::text::is_unreserved;

/// What a URI starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`
    Tel,
    /// Anything else.
    Other,
}

/// A URI in its parts, as slices of the text it was read from.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a> {
    text: &'a str,
    scheme: Scheme,
    user: Option<&'a str>,
    password: Option<&'a str>,
    host: &'a str,
    port: Option<u16>,
    params: &'a str,
    headers: Option<&'a str>,
}

/// Parameters that make two URIs differ when only one has them (RFC 3261 section 19.1.4).
const DECISIVE_PARAMS: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];

impl<'a> Uri<'a> {
    /// Reads a URI; none when it breaks its grammar.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (scheme, rest) = split_at_byte(text, b':')?;
        if !is_scheme(scheme) {
            return None;
        }
        if scheme.eq_ignore_ascii_case("sip") {
            parse_sip(text, Scheme::Sip, rest)
        } else if scheme.eq_ignore_ascii_case("sips") {
            parse_sip(text, Scheme::Sips, rest)
        } else if scheme.eq_ignore_ascii_case("tel") {
            parse_tel(text, rest)
        } else {
            let is_safe = !rest.bytes().any(|byte| matches!(byte, b'<' | b'>' | b'"'));
            is_safe.then_some(Self::opaque(text, Scheme::Other))
        }
    }

    fn opaque(text: &'a str, scheme: Scheme) -> Self {
        Self { text, scheme, user: None, password: None, host: "", port: None, params: "", headers: None }
    }

    /// The URI as it stands.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether it is `sip:` or `sips:`.
    #[must_use]
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// Whether it is `urn:service:sos`, or a service below it (RFC 5031 section 4.2).
    #[must_use]
    pub fn is_emergency(&self) -> bool {
        const SOS: &str = "urn:service:sos";
        let start = self.text.get(..SOS.len()).filter(|start| start.eq_ignore_ascii_case(SOS));
        start.is_some() && self.text[SOS.len()..].chars().next().is_none_or(|next| next == '.')
    }

    /// The user part as it stands, with its escapes; of a `tel:` URI the number with its separators.
    #[must_use]
    pub fn user(&self) -> Option<&'a str> {
        self.user
    }

    /// The user part with its escapes resolved.
    #[must_use]
    pub fn user_unescaped(&self) -> Option<Cow<'a, str>> {
        self.user.map(unescape)
    }

    /// The password, which nobody should use.
    #[must_use]
    pub fn password(&self) -> Option<&'a str> {
        self.password
    }

    /// The host as it stands, IPv6 in its brackets; empty where the scheme has none.
    #[must_use]
    pub fn host(&self) -> &'a str {
        self.host
    }

    /// The host as an address, when it is a literal.
    #[must_use]
    pub fn host_ip(&self) -> Option<IpAddr> {
        host_ip(self.host)
    }

    /// The port, when it is written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The parameters in order; the value is none for a flag such as `lr`.
    pub fn params(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        pairs(self.params, ';')
    }

    /// A parameter: `None` when absent, `Some(None)` when it is a flag.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Option<&'a str>> {
        self.params().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Whether it is a loose router's URI (RFC 3261 section 16.4).
    #[must_use]
    pub fn is_loose_router(&self) -> bool {
        self.param("lr").is_some()
    }

    /// The `transport` parameter.
    #[must_use]
    pub fn transport(&self) -> Option<&'a str> {
        self.param("transport").flatten()
    }

    /// Whether it is a globally routable user agent URI (RFC 5627 section 3).
    #[must_use]
    pub fn is_gruu(&self) -> bool {
        self.is_sip() && self.param("gr").is_some()
    }

    /// Which instance a public GRUU names, with its escapes resolved; none in a temporary one, whose user part says it.
    #[must_use]
    pub fn gruu_instance(&self) -> Option<Cow<'a, str>> {
        self.param("gr").flatten().filter(|instance| !instance.is_empty()).map(unescape)
    }

    /// The headers behind `?`, which a Request-URI must not have.
    #[must_use]
    pub fn headers(&self) -> Option<&'a str> {
        self.headers
    }

    /// The address of record in canonical form (RFC 3261 section 10.3 step 5): no parameters, no password, no
    /// headers, escapes resolved where they need not be, host in lower case.
    /// `sips:` counts as `sip:`, because both name one customer, and the port is left out, because phones
    /// write the port that they happen to reach us on. A `tel:` URI loses its visual separators.
    #[must_use]
    pub fn address_of_record(&self) -> String {
        match self.scheme {
            Scheme::Sip | Scheme::Sips => {
                let host = self.host.to_ascii_lowercase();
                match self.user {
                    Some(user) => format!("sip:{}@{host}", canonical_user(user)),
                    None => format!("sip:{host}"),
                }
            }
            Scheme::Tel => format!("tel:{}", self.user.map(tel_digits).unwrap_or_default()),
            Scheme::Other => self.text.to_owned(),
        }
    }

    /// Whether both name the same resource (RFC 3261 section 19.1.4; RFC 3966 section 4 for `tel:`).
    #[must_use]
    pub fn is_equivalent(&self, other: &Uri<'_>) -> bool {
        if self.scheme != other.scheme {
            return false;
        }
        // What says a parameter twice, and differently, is still itself.
        if self.text == other.text {
            return true;
        }
        match self.scheme {
            Scheme::Other => self.text.eq_ignore_ascii_case(other.text),
            Scheme::Tel => {
                self.user.map(tel_digits) == other.user.map(tel_digits) && same_params(self, other)
            }
            Scheme::Sip | Scheme::Sips => {
                self.user.map(unescape) == other.user.map(unescape)
                    && self.password.map(unescape) == other.password.map(unescape)
                    && same_host(self.host, other.host)
                    && self.port == other.port
                    && same_params(self, other)
                    && same_headers(self.headers, other.headers)
            }
        }
    }
}

impl fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn parse_sip<'a>(text: &'a str, scheme: Scheme, rest: &'a str) -> Option<Uri<'a>> {
    let (userinfo, rest) = match split_at_byte(rest, b'@') {
        Some((userinfo, rest)) => (Some(userinfo), rest),
        None => (None, rest),
    };
    let (user, password) =
        match userinfo.map(|info| split_at_byte(info, b':').map_or((info, None), with_some)) {
            Some((user, password)) => (Some(user), password),
            None => (None, None),
        };
    let is_password = |byte| is_unreserved(byte) || matches!(byte, b'&' | b'=' | b'+' | b'$' | b',');
    if user.is_some_and(|user| user.is_empty() || !is_escaped_text(user, is_user_char))
        || password.is_some_and(|password| !is_escaped_text(password, is_password))
    {
        return None;
    }
    let (rest, headers) = split_at_byte(rest, b'?').map_or((rest, None), with_some);
    let (hostport, params) = match byte_at(rest, b';') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (host, port) = split_host_port(hostport)?;
    let is_header =
        |byte| is_unreserved(byte) || matches!(byte, b'[' | b']' | b'/' | b'?' | b':' | b'+' | b'$');
    if !are_params(params)
        || headers.is_some_and(|headers| {
            !is_escaped_text(headers, |byte| is_header(byte) || matches!(byte, b'=' | b'&'))
        })
    {
        return None;
    }
    Some(Uri { text, scheme, user, password, host, port, params, headers })
}

fn parse_tel<'a>(text: &'a str, rest: &'a str) -> Option<Uri<'a>> {
    let (number, params) = match rest.find(';') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let digits = number.strip_prefix('+').unwrap_or(number);
    let is_number = digits.bytes().any(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'*' | b'#'))
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'*' | b'#' | b'-' | b'.' | b'(' | b')'));
    (is_number && are_params(params)).then(|| Uri {
        user: Some(number),
        params,
        ..Uri::opaque(text, Scheme::Tel)
    })
}

/// Splits `host[:port]`, IPv6 in brackets.
pub(crate) fn split_host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let host_end = match text.strip_prefix('[') {
        Some(inner) => byte_at(inner, b']')? + 2,
        None => byte_at(text, b':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_end);
    let port = match rest.strip_prefix(':') {
        Some(digits) => Some(parse_port(digits)?),
        None if rest.is_empty() => None,
        None => return None,
    };
    is_host(host).then_some((host, port))
}

fn parse_port(digits: &str) -> Option<u16> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|&port| port != 0)
}

/// A host name, an IPv4 address, or an IPv6 address in brackets. Underscores are outside the grammar and real.
pub(crate) fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|inner| ipv6(inner).is_some());
    }
    !host.is_empty()
        && host.len() <= 255
        && !host.starts_with(['.', '-'])
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

pub(crate) fn host_ip(host: &str) -> Option<IpAddr> {
    let inner = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    inner.map_or_else(|| host.parse().ok(), |inner| ipv6(inner).map(IpAddr::V6))
}

/// An IPv6 address between brackets. RFC 3261's own grammar lets three colons stand before an IPv4 address in it where two
/// are meant, and RFC 5118 section 4.10 has both taken; anywhere else three colons are none.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    let tolerated = || {
        let (front, back) =
            text.split_once(":::").filter(|(_, back)| back.contains('.') && !back.contains(':'))?;
        format!("{front}::{back}").parse().ok()
    };
    text.parse().ok().or_else(tolerated)
}

/// Where an ASCII byte stands. These texts are short: a plain loop is over before a search has been set up.
fn byte_at(text: &str, byte: u8) -> Option<usize> {
    text.bytes().position(|known| known == byte)
}

fn split_at_byte(text: &str, byte: u8) -> Option<(&str, &str)> {
    byte_at(text, byte).map(|at| (&text[..at], &text[at + 1..]))
}

fn with_some<A, B>((a, b): (A, B)) -> (A, Option<B>) {
    (a, Some(b))
}

fn is_escaped_text(text: &str, is_plain: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let is_escape =
                bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
            if !is_escape {
                return false;
            }
            at += 3;
        } else if is_plain(bytes[at]) {
            at += 1;
        } else {
            return false;
        }
    }
    true
}

/// Whether the text is empty or `;name[=value]...`.
fn are_params(params: &str) -> bool {
    params.is_empty()
        || params[1..].split(';').all(|param| {
            let (name, value) = param.split_once('=').map_or((param, None), with_some);
            !name.is_empty()
                && is_escaped_text(name, is_param_char)
                && value.is_none_or(|value| is_escaped_text(value, is_param_char))
        })
}

fn pairs(text: &str, separator: char) -> impl Iterator<Item = (&str, Option<&str>)> {
    text.split(separator)
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').map_or((part, None), with_some))
}

/// Resolves `%HH`; text with escapes that are not UTF-8 stays readable through U+FFFD.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(String::from_utf8_lossy(&unescape_bytes(text)).into_owned())
}

fn unescape_bytes(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| Some(hex_digit(hex[0])? << 4 | hex_digit(hex[1])?));
        match escape {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    plain
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Resolves escapes that need not be, writes the others in upper case, so that one user has one spelling.
fn canonical_user(user: &str) -> String {
    escape(&unescape_bytes(user), is_user_char)
}

/// A user as the user part of a URI: what may not stand there as it is becomes `%HH`.
#[must_use]
pub fn escape_user(user: &str) -> String {
    escape(user.as_bytes(), is_user_char)
}

/// A text as the value of a URI parameter.
#[must_use]
pub fn escape_param(value: &str) -> String {
    escape(value.as_bytes(), is_param_char)
}

fn escape(bytes: &[u8], is_plain: impl Fn(u8) -> bool) -> String {
    let mut escaped = String::with_capacity(bytes.len());
    for &byte in bytes {
        if is_plain(byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// '#' must be escaped by the letter of the RFC, and phones dial feature codes with it unescaped.
fn is_user_char(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/' | b'#')
}

fn is_param_char(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$')
}

/// The dialled characters of a number, without its visual separators, in lower case.
fn tel_digits(number: &str) -> String {
    number.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).map(|c| c.to_ascii_lowercase()).collect()
}

fn same_host(a: &str, b: &str) -> bool {
    match (host_ip(a), host_ip(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a.eq_ignore_ascii_case(b),
    }
}

fn same_params(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    let same_value = |a: Option<&str>, b: Option<&str>| match (a, b) {
        (Some(a), Some(b)) => unescape(a).eq_ignore_ascii_case(&unescape(b)),
        (None, None) => true,
        _ => false,
    };
    let agrees = |one: &Uri<'_>, two: &Uri<'_>| {
        one.params().all(|(name, value)| match two.param(&unescape(name)) {
            Some(other) => same_value(value, other),
            None => !DECISIVE_PARAMS.iter().any(|decisive| decisive.eq_ignore_ascii_case(name)),
        })
    };
    agrees(a, b) && agrees(b, a)
}

fn same_headers(a: Option<&str>, b: Option<&str>) -> bool {
    let sorted = |headers: Option<&str>| {
        let mut all: Vec<(String, String)> = pairs(headers.unwrap_or_default(), '&')
            .map(|(name, value)| {
                (unescape(name).to_ascii_lowercase(), unescape(value.unwrap_or_default()).into_owned())
            })
            .collect();
        all.sort();
        all
    };
    sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests;
