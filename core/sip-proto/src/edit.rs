//! Forwarding by editing: the bytes that came, with a few places changed (RFC 3261 section 16.6).
//!
//! Nothing is re-serialised: what no edit touches leaves exactly as it came, whoever wrote it and however.
//! Bytes behind Content-Length in a datagram are dropped (RFC 4475 section 3.1.1.8).

use std::io::Write as _;
use std::net::IpAddr;
use std::ops::Range;

use crate::header::{HeaderName, comma};
use crate::message::{OwnedMessage, Parsed};
use crate::scan::{FieldSpan, StartLine, Table, leading_blank_lines};
use crate::text::{is_space, quoted_end, trim, trim_end};

/// A list of changes to one message; [`finish`](Self::finish) applies them in one pass.
///
/// Changes are laid against the message as it came, so they may be noted in any order.
/// Two changes of the same value are the caller's mistake; the earlier one wins.
#[derive(Clone, Debug)]
pub struct Edit<'m> {
    bytes: &'m [u8],
    table: &'m Table,
    patches: Vec<Patch>,
    prepended: i32,
}

#[derive(Clone, Debug)]
struct Patch {
    range: Range<usize>,
    /// Among patches at one place: prepended lines in reverse, then the rest as noted.
    order: i32,
    text: Vec<u8>,
}

impl<'m> Edit<'m> {
    /// Starts to edit.
    pub fn new<B: AsRef<[u8]>>(message: &'m Parsed<B>) -> Self {
        Self { bytes: message.as_bytes(), table: &message.table, patches: Vec::new(), prepended: 0 }
    }

    /// Puts a new field of this name before the others of its name, as for Via, Record-Route, Route and Path.
    /// What is prepended later stands higher.
    #[must_use]
    pub fn prepend(mut self, name: HeaderName, value: &str) -> Self {
        let at = self.first(name).map_or(self.table.head_start, |field| field.line.start) as usize;
        self.prepended -= 1;
        let order = self.prepended;
        self.patches.push(Patch { range: at..at, order, text: field_line(name.as_str(), value.as_bytes()) });
        self
    }

    /// Puts a new field behind all others.
    #[must_use]
    pub fn append(self, name: &str, value: &str) -> Self {
        let at = self.table.head_end as usize;
        self.patch(at..at, field_line(name, value.as_bytes()))
    }

    /// Removes the top value of a list, as the top Via of a response or the top Route of a request.
    #[must_use]
    pub fn remove_top(self, name: HeaderName) -> Self {
        self.remove_top_values(name, 1)
    }

    /// Removes the top `count` values of a list.
    #[must_use]
    pub fn remove_top_values(mut self, name: HeaderName, count: usize) -> Self {
        let mut left = count;
        let fields: Vec<FieldSpan> = self.all(name).copied().collect();
        for field in fields {
            if left == 0 {
                break;
            }
            let value = &self.bytes[field.value.range()];
            let (removed, end) = skip_values(value, left);
            left -= removed;
            let range = match end {
                Some(end) => field.value.range().start..field.value.range().start + end,
                None => field.line.range(),
            };
            self = self.patch(range, Vec::new());
        }
        self
    }

    /// Replaces the Request-URI; does nothing to a response.
    #[must_use]
    pub fn set_request_uri(self, uri: &str) -> Self {
        match self.table.start_line {
            StartLine::Request { uri: place, .. } => self.patch(place.range(), uri.into()),
            StartLine::Status { .. } => self,
        }
    }

    /// Sets Max-Forwards, or adds it where it is missing (RFC 3261 section 16.6 step 3).
    #[must_use]
    pub fn set_max_forwards(self, hops: u8) -> Self {
        self.set(HeaderName::MaxForwards, &hops.to_string())
    }

    /// Adds `received`, and fills `rport` where it was asked for, in the top Via
    /// (RFC 3261 section 18.2.1, RFC 3581 section 4).
    #[must_use]
    pub fn set_received(self, address: IpAddr, rport: Option<u16>) -> Self {
        let Some(field) = self.first(HeaderName::Via).copied() else { return self };
        let value = &self.bytes[field.value.range()];
        let via = &value[..comma(value).unwrap_or(value.len())];
        let base = field.value.range().start;
        let end = base + trim_end(via).len();
        let mut edit = self;
        // An empty `rport` that nobody fills stays, because a later hop may still want it.
        let replaced = if rport.is_some() { &["received", "rport"][..] } else { &["received"] };
        for name in replaced {
            // Whoever writes it twice must not have the first one read before ours.
            for range in param_ranges(via, name) {
                edit = edit.patch(base + range.start..base + range.end, Vec::new());
            }
        }
        let mut text = format!(";received={address}");
        if let Some(port) = rport {
            text.push_str(&format!(";rport={port}"));
        }
        edit.patch(end..end, text.into_bytes())
    }

    /// Replaces every field of this name by one, in the place of the first, or appends it.
    #[must_use]
    pub fn set(self, name: HeaderName, value: &str) -> Self {
        let Some(first) = self.first(name).copied() else { return self.append(name.as_str(), value) };
        let others: Vec<FieldSpan> = self.all(name).skip(1).copied().collect();
        let edit = self.patch(first.value.range(), value.into());
        others.into_iter().fold(edit, |edit, field| edit.patch(field.line.range(), Vec::new()))
    }

    /// Removes every field of this name.
    #[must_use]
    pub fn remove(self, name: HeaderName) -> Self {
        let fields: Vec<FieldSpan> = self.all(name).copied().collect();
        fields.into_iter().fold(self, |edit, field| edit.patch(field.line.range(), Vec::new()))
    }

    /// Removes every field of a name that [`HeaderName`] does not know, in any case.
    #[must_use]
    pub fn remove_extension(self, name: &str) -> Self {
        let bytes = self.bytes;
        let is_named = |field: &&FieldSpan| bytes[field.name.range()].eq_ignore_ascii_case(name.as_bytes());
        let fields: Vec<FieldSpan> = self.table.fields.iter().filter(is_named).copied().collect();
        fields.into_iter().fold(self, |edit, field| edit.patch(field.line.range(), Vec::new()))
    }

    /// Replaces the body, with Content-Length; `content_type` replaces Content-Type where it is given.
    #[must_use]
    pub fn set_body(self, content_type: Option<&str>, body: &[u8]) -> Self {
        let place = self.table.body.range();
        let edit = self.set(HeaderName::ContentLength, &body.len().to_string()).patch(place, body.to_vec());
        match content_type {
            Some(content_type) => edit.set(HeaderName::ContentType, content_type),
            None => edit,
        }
    }

    /// The edited message.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.patches.sort_by_key(|patch| (patch.range.start, !patch.range.is_empty(), patch.order));
        let grown: usize = self.patches.iter().map(|patch| patch.text.len()).sum();
        let body_end = self.table.body.range().end;
        let mut message = Vec::with_capacity(body_end + grown);
        let mut at = leading_blank_lines(self.bytes);
        for patch in &self.patches {
            if patch.range.start < at {
                continue;
            }
            message.extend_from_slice(&self.bytes[at..patch.range.start]);
            message.extend_from_slice(&patch.text);
            at = patch.range.end;
        }
        message.extend_from_slice(&self.bytes[at.min(body_end)..body_end]);
        message
    }

    fn patch(mut self, range: Range<usize>, text: Vec<u8>) -> Self {
        let order = i32::try_from(self.patches.len()).unwrap_or(i32::MAX);
        self.patches.push(Patch { range, order, text });
        self
    }

    fn all(&self, name: HeaderName) -> impl Iterator<Item = &'m FieldSpan> + use<'m> {
        self.table.fields.iter().filter(move |field| field.id == name)
    }

    fn first(&self, name: HeaderName) -> Option<&'m FieldSpan> {
        self.all(name).next()
    }
}

impl<B: AsRef<[u8]>> Parsed<B> {
    /// The message with the address that it came from in its top Via (see [`Edit::set_received`]), without another scan:
    /// all that stands behind that Via moves by as much as it grew. None when it has no Via.
    #[must_use]
    pub fn with_received(&self, address: IpAddr, rport: Option<u16>) -> Option<OwnedMessage> {
        let via_end = self.spans(HeaderName::Via).next()?.value.end;
        let bytes = self.spliced(address, rport)?;
        let left_out = leading_blank_lines(self.as_bytes());
        let kept = self.table.body.range().end - left_out;
        let mut table = self.table.clone();
        table.relocate(|at| {
            let moved = at as usize - left_out;
            // An edit of one Via never takes away more than stands before its end.
            if at >= via_end { moved + bytes.len() - kept } else { moved }
        });
        Some(OwnedMessage::with_table(bytes, table))
    }

    /// What [`Edit::set_received`] makes of the bytes, in one pass: every request goes through here.
    fn spliced(&self, address: IpAddr, rport: Option<u16>) -> Option<Vec<u8>> {
        let bytes = self.as_bytes();
        let value = self.spans(HeaderName::Via).next()?.value.range();
        let via = &bytes[value.clone()];
        let via = &via[..comma(via).unwrap_or(via.len())];
        let end = value.start + trim_end(via).len();
        let mut removed = param_ranges(via, "received");
        if rport.is_some() {
            removed.extend(param_ranges(via, "rport"));
        }
        removed.sort_by_key(|range| range.start);
        let body_end = self.table.body.range().end;
        let mut message = Vec::with_capacity(body_end + 64);
        let mut at = leading_blank_lines(bytes);
        for range in removed {
            message.extend_from_slice(&bytes[at..value.start + range.start]);
            at = value.start + range.end;
        }
        message.extend_from_slice(&bytes[at..end]);
        // Writing into a vector cannot fail.
        let _ = write!(message, ";received={address}");
        if let Some(port) = rport {
            let _ = write!(message, ";rport={port}");
        }
        message.extend_from_slice(&bytes[end..body_end]);
        Some(message)
    }
}

pub(crate) fn field_line(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b": ", value, b"\r\n"].concat()
}

/// Skips up to `count` values of a list: how many were there, and where the next one starts if there is one.
fn skip_values(value: &[u8], count: usize) -> (usize, Option<usize>) {
    let mut at = 0;
    for skipped in 1..=count {
        match comma(&value[at..]) {
            Some(end) => at += end + 1,
            None => return (skipped, None),
        }
    }
    let spaces = value[at..].iter().take_while(|&&byte| is_space(byte)).count();
    (count, Some(at + spaces))
}

/// Where `;name[=value]` stands in a Via, each time from its semicolon to before the next.
fn param_ranges(via: &[u8], name: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let Some(mut at) = via.iter().position(|&byte| byte == b';') else { return found };
    while at < via.len() {
        let mut end = at + 1;
        while end < via.len() && via[end] != b';' {
            let quoted = if via[end] == b'"' { quoted_end(&via[end..]) } else { Some(1) };
            let Some(length) = quoted else { return found };
            end += length;
        }
        let param = &via[at + 1..end];
        let key_end = param.iter().position(|&byte| byte == b'=').unwrap_or(param.len());
        if trim(&param[..key_end]).eq_ignore_ascii_case(name.as_bytes()) {
            found.push(at..at + 1 + trim_end(param).len());
        }
        at = end;
    }
    found
}

#[cfg(test)]
mod tests;
