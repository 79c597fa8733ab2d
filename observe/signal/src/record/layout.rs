//! How a call that ended lies in the log and in the store of events, over releases.
//!
//! The encoding has no names: a field that comes or goes moves all that follow. So the layout has a number, and a
//! release reads those that came before it. Who changes [`Call`] adds a layout here; who changes another record makes
//! it a kind of its own. The golden bytes of the test say when that is due.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Call, Name};
use crate::pii::Pii;

/// The layout that is written. What came before it had no number, and began with the Call-ID, which is never empty.
const LAYOUT: u8 = 2;
const NUMBERED: &str = "";

pub(super) fn serialize<S: Serializer>(call: &Call, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return call.serialize(serializer);
    }
    (NUMBERED, LAYOUT, call).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<Call>, D::Error> {
    if deserializer.is_human_readable() {
        return Box::deserialize(deserializer);
    }
    // How many fields there are is known when the first have been read.
    deserializer.deserialize_tuple(usize::MAX, Layouts)
}

struct Layouts;

impl<'de> Visitor<'de> for Layouts {
    type Value = Box<Call>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a call that ended")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Box<Call>, A::Error> {
        let call_id: String = next(&mut fields)?;
        if call_id != NUMBERED {
            return unnumbered(call_id, &mut fields);
        }
        match next::<u8, A>(&mut fields)? {
            LAYOUT => next(&mut fields),
            other => {
                Err(A::Error::custom(format_args!("layout {other} of a call, which is of a newer release")))
            }
        }
    }
}

/// The layouts before there were numbers: with tenant and trunks, or without. Where the tenant may stand, the byte
/// says whether there is one; in the other it is the length of the outcome, and no outcome has a single letter.
fn unnumbered<'de, A: SeqAccess<'de>>(call_id: String, fields: &mut A) -> Result<Box<Call>, A::Error> {
    let mut call = Call {
        call_id: Pii::new(call_id),
        trace_id: next(fields)?,
        start_unix_nanos: next(fields)?,
        answer_unix_nanos: next(fields)?,
        caller: next(fields)?,
        callee: next(fields)?,
        region: next(fields)?,
        country: next(fields)?,
        transport: next(fields)?,
        tenant: None,
        calling_trunk: None,
        called_trunk: None,
        outcome: Name::Borrowed(""),
        status_code: 0,
        cause: Name::Borrowed(""),
        post_dial_seconds: None,
        mos_min: None,
        mos_mean: None,
        silent_legs: Vec::new(),
    };
    match next::<u8, A>(fields)? {
        has_tenant @ (0 | 1) => {
            call.tenant = if has_tenant == 1 { Some(next(fields)?) } else { None };
            call.calling_trunk = next(fields)?;
            call.called_trunk = next(fields)?;
            call.outcome = next(fields)?;
        }
        length => call.outcome = Name::Owned(letters(fields, length)?),
    }
    call.status_code = next(fields)?;
    call.cause = next(fields)?;
    call.post_dial_seconds = next(fields)?;
    call.mos_min = next(fields)?;
    call.mos_mean = next(fields)?;
    call.silent_legs = next(fields)?;
    Ok(Box::new(call))
}

fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(fields: &mut A) -> Result<T, A::Error> {
    fields.next_element()?.ok_or_else(|| A::Error::custom("a call is cut off"))
}

/// A text whose length was read already.
fn letters<'de, A: SeqAccess<'de>>(fields: &mut A, length: u8) -> Result<String, A::Error> {
    let mut bytes = Vec::with_capacity(length.into());
    for _ in 0..length {
        bytes.push(next::<u8, A>(fields)?);
    }
    String::from_utf8(bytes).map_err(|_| A::Error::custom("an outcome is no text"))
}

#[cfg(test)]
mod tests;
