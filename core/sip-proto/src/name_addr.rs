//! A name and an address, as in From, To, Contact, Route (RFC 3261 section 20.10, `name-addr` and `addr-spec`).

use std::borrow::Cow;

use crate::params::Params;
use crate::text::{is_space, is_token, quoted_end, trim, trim_start, unquote};
use crate::uri::Uri;

/// A display name, a URI and the header's parameters, as slices of the value.
#[derive(Clone, Copy, Debug)]
pub struct NameAddr<'a> {
    display: &'a [u8],
    /// The URI.
    pub uri: Uri<'a>,
    /// The parameters behind the address; they belong to the header, not to the URI.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value; none when it breaks its grammar.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = trim(value);
        let display_end = display_end(value)?;
        let rest = trim_start(&value[display_end..]);
        let Some(rest) = rest.strip_prefix(b"<") else {
            return if display_end == 0 { parse_addr_spec(value) } else { None };
        };
        let close = rest.iter().position(|&byte| byte == b'>')?;
        Some(Self {
            display: trim(&value[..display_end]),
            uri: Uri::parse(std::str::from_utf8(&rest[..close]).ok()?)?,
            params: Params::parse(&rest[close + 1..])?,
        })
    }

    /// The display name without quotes; empty when there is none.
    #[must_use]
    pub fn display(&self) -> Cow<'a, str> {
        unquote(self.display)
    }

    /// The `tag` parameter.
    #[must_use]
    pub fn tag(&self) -> Option<&'a str> {
        self.params.token("tag").filter(|tag| !tag.is_empty())
    }
}

/// Where the display name ends: at `<`, or 0 when there is none.
fn display_end(value: &[u8]) -> Option<usize> {
    if value.first() == Some(&b'"') {
        return quoted_end(value);
    }
    let open = value.iter().position(|&byte| byte == b'<').unwrap_or(0);
    // A bare address may have a '<' only in a quoted parameter behind it.
    let is_name = value[..open].iter().all(|&byte| is_token(byte) || is_space(byte));
    if is_name {
        return Some(open);
    }
    let is_spec = value[..open].contains(&b';') && value[..open].contains(&b':');
    is_spec.then_some(0)
}

/// Without `<>`, what follows `;` belongs to the header, and the URI must have no `,` `?` or `;`
/// (RFC 3261 section 20.10).
fn parse_addr_spec(value: &[u8]) -> Option<NameAddr<'_>> {
    let end = value.iter().position(|&byte| byte == b';' || is_space(byte)).unwrap_or(value.len());
    let (spec, params) = value.split_at(end);
    if spec.iter().any(|byte| matches!(byte, b',' | b'?')) {
        return None;
    }
    Some(NameAddr {
        display: &[],
        uri: Uri::parse(std::str::from_utf8(spec).ok()?)?,
        params: Params::parse(params)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        let cases: [(&[u8], &str, &str, Option<&str>); 9] = [
            (
                b"\"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com>\r\n  ;\r\n  tag = 98asjd8",
                "J Rosenberg \\\"",
                "sip:jdrosen@example.com",
                Some("98asjd8"),
            ),
            (b"caller<sip:caller@example.com>;tag=323", "caller", "sip:caller@example.com", Some("323")),
            (b"A. Bell <sip:a.g.bell@example.com>;tag=q", "A. Bell", "sip:a.g.bell@example.com", Some("q")),
            (b"sip:+19725552222@gw1.example.net;tag=1", "", "sip:+19725552222@gw1.example.net", Some("1")),
            (b"<sip:a@b;tag=no>", "", "sip:a@b;tag=no", None),
            (b"\"a <b> , c\" <tel:+1-201-555-0123;x=y>", "a <b> , c", "tel:+1-201-555-0123;x=y", None),
            (b"isbn:2983792873", "", "isbn:2983792873", None),
            (b"sip:a@b;+sip.instance=\"<urn:uuid:1>\"", "", "sip:a@b", None),
            (b"<sip:[2001:db8::1]:5070>", "", "sip:[2001:db8::1]:5070", None),
        ];
        for (value, display, uri, tag) in cases {
            let text = String::from_utf8_lossy(value);
            let address = NameAddr::parse(value).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(address.display(), display, "{text}");
            assert_eq!(address.uri.as_str(), uri, "{text}");
            assert_eq!(address.tag(), tag, "{text}");
        }
    }

    #[test]
    fn broken_addresses_are_refused() {
        for text in [
            "\"Mr. J. User <sip:j.user@example.com>",
            "Bell, Alexander <sip:a.g.bell@example.com>;tag=43",
            "\"Watson, Thomas\" < sip:t.watson@example.org >",
            "sip:user@example.com?Route=%3Csip:a%3E",
            "\"Joe\" <sip:joe@example.org>;;;;",
            "alan@jasomi.com",
            "<sip:a@b",
            "",
            "<>",
            "\"x\"",
            "sip:a,b@c",
            "\"x\" sip:a@b",
            "<sip:a@b> junk",
        ] {
            assert!(NameAddr::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
