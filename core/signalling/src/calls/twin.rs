//! The other dialog of a call that we stand between (RFC 7092): its called side has a Call-ID and a From tag of ours, and
//! the caller has a To tag and a Contact of ours.
//!
//! The core thinks of such a call as one dialog, the one that it would be if we only carried it on. What comes from
//! either side is brought into that form before anybody looks at it, and what leaves is brought into the form of the
//! side that gets it (`proxy/mask.rs`). So there is one call, one trace, one record, and nothing else knows.

use std::collections::HashMap;

use belfry_sip_proto::NameAddr;

use super::{Call, Phase};
use crate::edges::Hop;
use crate::exchange::CallKey;

/// Dialogs of the called side that are remembered: early ones of several phones.
const DIALOGS_MAX: usize = 16;

/// What the called side has in place of what the caller said.
#[derive(Debug)]
pub(crate) struct Twin {
    /// Its Call-ID.
    pub(crate) call_id: Box<str>,
    /// Our From value, with our tag.
    pub(crate) local: String,
    /// Its To value as the INVITE had it, without a tag.
    pub(crate) remote: String,
    /// The dialogs that it opened, the oldest first.
    dialogs: Vec<TwinDialog>,
}

/// A dialog of the called side.
#[derive(Clone, Debug)]
pub(crate) struct TwinDialog {
    /// Its To tag.
    pub(crate) tag: Box<str>,
    /// The one that the caller sees.
    pub(crate) shown: Box<str>,
    /// Its remote target.
    pub(crate) contact: Option<String>,
    /// Proxies between us and it, nearest first.
    pub(crate) routes: Vec<String>,
    /// How it is reached.
    pub(crate) hop: Hop,
}

impl Twin {
    pub(crate) fn new(call_id: String, local: String, remote: String) -> Self {
        Self { call_id: call_id.into(), local, remote, dialogs: Vec::new() }
    }

    /// Our tag in its dialogs.
    pub(crate) fn local_tag(&self) -> Option<&str> {
        NameAddr::parse(self.local.as_bytes())?.tag()
    }

    /// The dialog with this tag, as the caller sees it.
    pub(crate) fn shown_as(&self, shown: &str) -> Option<&TwinDialog> {
        self.dialogs.iter().find(|dialog| &*dialog.shown == shown)
    }

    /// Learns of a dialog, or more of one that is known.
    pub(crate) fn learn(&mut self, dialog: TwinDialog) {
        if let Some(known) = self.dialogs.iter_mut().find(|known| known.tag == dialog.tag) {
            let contact = dialog.contact.or_else(|| known.contact.take());
            *known = TwinDialog { contact, ..dialog };
            return;
        }
        if self.dialogs.len() >= DIALOGS_MAX {
            self.dialogs.remove(0);
        }
        self.dialogs.push(dialog);
    }

    /// The To value as the called side has it, with its own tag for the one that the caller sees.
    pub(crate) fn remote_with(&self, shown: Option<&str>) -> String {
        match shown.and_then(|shown| self.shown_as(shown)) {
            Some(dialog) => format!("{};tag={}", self.remote, dialog.tag),
            None => self.remote.clone(),
        }
    }
}

impl Call {
    /// Where requests of the caller go that show this To tag: target, routes and hop.
    pub(crate) fn target_shown_as(&self, shown: &str) -> Option<(Option<String>, Vec<String>, Hop)> {
        let callee = &self.callee;
        if self.phase == Phase::Talking && callee.tag.as_deref() == Some(shown) {
            let hop = callee.hop.clone()?;
            return Some((callee.contact.clone(), callee.routes.clone(), hop));
        }
        let dialog = self.twin.as_ref()?.shown_as(shown)?;
        Some((dialog.contact.clone(), dialog.routes.clone(), dialog.hop.clone()))
    }
}

/// The calls that have a twin, by its Call-ID.
#[derive(Debug, Default)]
pub(crate) struct Twins(HashMap<Box<str>, CallKey>);

impl Twins {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The call whose twin has this Call-ID.
    pub(crate) fn call_of(&self, call_id: &str) -> Option<&CallKey> {
        self.0.get(call_id)
    }

    pub(super) fn insert(&mut self, twin: &Twin, key: CallKey) {
        self.0.insert(twin.call_id.clone(), key);
    }

    pub(super) fn remove(&mut self, call: &Call) {
        if let Some(twin) = &call.twin {
            self.0.remove(&twin.call_id);
        }
    }
}

/// A From or To value with another tag, or none; display name and URI stay, other parameters go.
pub(crate) fn tagged(value: &str, tag: Option<&str>) -> String {
    let Some(address) = NameAddr::parse(value.as_bytes()) else { return value.to_owned() };
    address_with(&address.display(), address.uri.as_str(), tag)
}

/// A From or To value.
pub(crate) fn address_with(display: &str, uri: &str, tag: Option<&str>) -> String {
    let quoted = display.replace('\\', "\\\\").replace('"', "\\\"");
    let name = if display.is_empty() { String::new() } else { format!("\"{quoted}\" ") };
    let tag = tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
    format!("{name}<{uri}>{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_exchanged_and_names_stay() {
        for (value, tag, expected) in [
            ("<sip:a@b>;tag=1", Some("2"), "<sip:a@b>;tag=2"),
            ("sip:a@b;tag=1", None, "<sip:a@b>"),
            ("\"A \\\"B\\\"\" <sip:a@b;x=y>;tag=1;p=q", Some("t"), "\"A \\\"B\\\"\" <sip:a@b;x=y>;tag=t"),
            ("A B <sip:a@b>", None, "\"A B\" <sip:a@b>"),
        ] {
            assert_eq!(tagged(value, tag), expected);
        }
    }
}
