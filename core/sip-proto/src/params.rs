//! `;name=value` parameters of headers (RFC 3261 section 25.1, `generic-param`).
//!
//! Parameters of URIs follow another grammar and live in [`Uri`](crate::Uri).

use std::borrow::Cow;

use crate::text::{is_space, is_token, quoted_end, trim, trim_start, unquote};

/// The parameters of a header value, checked when made and read in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a>(&'a [u8]);

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// The name as it stands (compare without case).
    pub name: &'a str,
    /// The value as it stands, with its quotes if it has any.
    pub raw: Option<&'a [u8]>,
}

impl<'a> Param<'a> {
    /// The value without quotes; empty when there is none.
    #[must_use]
    pub fn text(&self) -> Cow<'a, str> {
        self.raw.map_or(Cow::Borrowed(""), unquote)
    }
}

impl<'a> Params<'a> {
    /// Checks the text from the first `;` to its end.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let text = trim(text);
        let mut rest = text;
        while !rest.is_empty() {
            (_, rest) = next(rest)?;
        }
        Some(Self(text))
    }

    /// Parameters that were checked before.
    pub(crate) fn checked(text: &'a [u8]) -> Self {
        Self(text)
    }

    /// Every parameter in order.
    pub fn iter(&self) -> impl Iterator<Item = Param<'a>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (param, after) = next(rest)?;
            rest = after;
            Some(param)
        })
    }

    /// The first parameter of this name, without regard to case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Param<'a>> {
        self.iter().find(|param| param.name.eq_ignore_ascii_case(name))
    }

    /// The value of a parameter that is a plain token, as `tag` and `branch` are.
    #[must_use]
    pub fn token(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.get(name)?.raw?).ok()
    }

    /// The parameters as they stand, from the first `;`.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// Takes one `; name [= value]` off the front.
fn next(text: &[u8]) -> Option<(Param<'_>, &[u8])> {
    let text = trim_start(text.strip_prefix(b";")?);
    let end = text.iter().position(|&byte| !is_token(byte)).unwrap_or(text.len());
    if end == 0 {
        return None;
    }
    let name = std::str::from_utf8(&text[..end]).ok()?;
    let rest = trim_start(&text[end..]);
    let Some(rest) = rest.strip_prefix(b"=") else {
        return ends_well(rest).then_some((Param { name, raw: None }, rest));
    };
    let rest = trim_start(rest);
    let end = if rest.first() == Some(&b'"') {
        quoted_end(rest)?
    } else {
        rest.iter().position(|&byte| !is_value(byte)).unwrap_or(rest.len())
    };
    let (value, rest) = (&rest[..end], trim_start(&rest[end..]));
    ends_well(rest).then_some((Param { name, raw: Some(value) }, rest))
}

/// Tokens, hosts and bare IPv6 addresses, and what real devices put there unquoted.
fn is_value(byte: u8) -> bool {
    byte.is_ascii_graphic() && !is_space(byte) && !matches!(byte, b';' | b',' | b'"' | b'<' | b'>')
}

fn ends_well(rest: &[u8]) -> bool {
    rest.is_empty() || rest[0] == b';'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_in_place() {
        let params =
            Params::parse(b"; Tag = 98asjd8 ;lr;+sip.instance=\"<urn:uuid:a;b>\";received=2001:db8::1")
                .expect("well formed");
        assert_eq!(params.token("tag"), Some("98asjd8"));
        assert_eq!(params.get("lr").expect("stands there").raw, None);
        assert_eq!(params.get("+sip.instance").expect("stands there").text(), "<urn:uuid:a;b>");
        assert_eq!(params.token("received"), Some("2001:db8::1"));
        assert_eq!(params.iter().count(), 4);
        assert_eq!(params.get("nothing"), None);
    }

    #[test]
    fn empty_and_broken_parameters_are_refused() {
        for text in [&b";"[..], b";;", b"; a;;b", b";a=\"x", b";a b", b";,", b"a"] {
            assert_eq!(Params::parse(text), None, "{}", String::from_utf8_lossy(text));
        }
        assert!(Params::parse(b"").is_some());
    }
}
