//! Dialogs that are named in requests (Replaces of RFC 3891, also inside Refer-To), across calls whose sides see two
//! different dialogs: whoever transfers names the call as it knows it, and its other side knows it by other names.

use belfry_sip_proto::{Edit, HeaderName, NameAddr, OwnedMessage};

use crate::core::Core;
use crate::signals::MethodName;

/// A dialog as Replaces names it, with whatever else stands there. `to` is the tag of whom it is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named<'a> {
    call_id: &'a str,
    to: &'a str,
    from: &'a str,
    rest: Vec<&'a str>,
}

impl<'a> Named<'a> {
    fn parse(value: &'a str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let call_id = parts.next().filter(|call_id| !call_id.is_empty())?;
        let (mut to, mut from, mut rest) = (None, None, Vec::new());
        for part in parts {
            match part.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                Some((name, tag)) if name.eq_ignore_ascii_case("to-tag") => to = Some(tag),
                Some((name, tag)) if name.eq_ignore_ascii_case("from-tag") => from = Some(tag),
                _ => rest.push(part),
            }
        }
        Some(Self { call_id, to: to?, from: from?, rest })
    }

    fn written(&self, call_id: &str, to: &str, from: &str) -> String {
        let rest: String = self.rest.iter().map(|part| format!(";{part}")).collect();
        format!("{call_id};to-tag={to};from-tag={from}{rest}")
    }
}

impl Core {
    /// A request with the dialogs that it names written as whoever gets them knows them.
    pub(super) fn with_named_dialogs<'m>(
        &self,
        edit: Edit<'m>,
        method: MethodName,
        message: &'m OwnedMessage,
    ) -> Edit<'m> {
        if self.calls.twins().is_empty() {
            return edit;
        }
        let (name, changed) = match method {
            MethodName::Invite => {
                let value = message.header_text(HeaderName::Replaces);
                (HeaderName::Replaces, value.and_then(|value| self.as_known_there(&value)))
            }
            MethodName::Refer => {
                let value = message.header_text(HeaderName::ReferTo);
                (HeaderName::ReferTo, value.and_then(|value| self.referred_as_known_there(&value)))
            }
            _ => return edit,
        };
        match changed {
            Some(value) => edit.set(name, &value),
            None => edit,
        }
    }

    /// A Replaces value as the side knows the dialog whose tag stands in `to-tag`; `None` when it stands so already, or
    /// names no call with two dialogs.
    fn as_known_there(&self, value: &str) -> Option<String> {
        let named = Named::parse(value)?;
        if let Some(key) = self.calls.twins().call_of(named.call_id) {
            // The called side names it to the caller.
            let call = self.calls.get(key)?;
            let twin = call.twin.as_ref()?;
            let shown = self.shown_tag(key, named.from);
            let is_meant = twin.local_tag() == Some(named.to) && twin.shown_as(&shown).is_some();
            let caller = call.caller.tag.as_deref().filter(|_| is_meant)?;
            return Some(named.written(key, caller, &shown));
        }
        // The caller names it to the called side.
        let call = self.calls.get(named.call_id)?;
        let twin = call.twin.as_ref()?;
        let dialog = twin.shown_as(named.to).filter(|_| call.caller.tag.as_deref() == Some(named.from))?;
        Some(named.written(&twin.call_id, &dialog.tag, twin.local_tag()?))
    }

    /// The same within the URI of a Refer-To (RFC 3261 section 19.1.1).
    fn referred_as_known_there(&self, value: &str) -> Option<String> {
        let address = NameAddr::parse(value.as_bytes())?;
        let headers = address.uri.headers()?;
        let mut is_changed = false;
        let fields: Vec<String> = headers
            .split('&')
            .map(|field| {
                let (name, written) = field.split_once('=').unwrap_or((field, ""));
                let changed = name
                    .eq_ignore_ascii_case("replaces")
                    .then(|| self.as_known_there(&unescaped(written)?))
                    .flatten();
                is_changed |= changed.is_some();
                changed.map_or_else(|| field.to_owned(), |changed| format!("{name}={}", escaped(&changed)))
            })
            .collect();
        is_changed.then(|| value.replace(headers, &fields.join("&")))
    }
}

/// A header's value as it may stand in a URI: escaped more than need be, because not every phone knows the finer rules.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 16);
    for byte in value.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' | b'!' | b'~' | b'*' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_dialog_is_read_in_any_order_and_written_again() {
        for (value, expected) in [
            ("a@b;to-tag=t;from-tag=f", Some(("a@b", "t", "f", "x;to-tag=1;from-tag=2"))),
            (
                " a ; FROM-TAG=f;early-only ;to-tag = t;p=q",
                Some(("a", "t", "f", "x;to-tag=1;from-tag=2;early-only;p=q")),
            ),
            ("a;to-tag=t", None),
            (";to-tag=t;from-tag=f", None),
            ("", None),
        ] {
            let named = Named::parse(value);
            let shown = named.as_ref().map(|named| (named.call_id, named.to, named.from));
            assert_eq!(shown, expected.map(|(call_id, to, from, _)| (call_id, to, from)), "{value}");
            let written = named.map(|named| named.written("x", "1", "2"));
            assert_eq!(written.as_deref(), expected.map(|(_, _, _, written)| written), "{value}");
        }
    }

    #[test]
    fn escapes_are_undone_and_made() {
        let value = "a/b@c;to-tag=%1;x=\u{e9}";
        assert_eq!(escaped(value), "a%2Fb%40c%3Bto-tag%3D%251%3Bx%3D%C3%A9");
        assert_eq!(unescaped(&escaped(value)).as_deref(), Some(value));
        for broken in ["%", "%4", "%zz", "%FF"] {
            assert_eq!(unescaped(broken), None, "{broken}");
        }
    }
}
