//! The codec of a window by its RTP payload type: as RFC 3551 assigns it, or as the call's own messages say.

use std::borrow::Cow;

use belfry_events::Stamped;
use belfry_signal::record::{Quality, SipMessage};

/// RFC 3551, tables 4 and 5.
const STATIC: &[(u8, &str)] = &[
    (0, "PCMU"),
    (3, "GSM"),
    (4, "G723"),
    (5, "DVI4"),
    (6, "DVI4"),
    (7, "LPC"),
    (8, "PCMA"),
    (9, "G722"),
    (10, "L16"),
    (11, "L16"),
    (12, "QCELP"),
    (13, "CN"),
    (14, "MPA"),
    (15, "G728"),
    (16, "DVI4"),
    (17, "DVI4"),
    (18, "G729"),
    (25, "CelB"),
    (26, "JPEG"),
    (28, "nv"),
    (31, "H261"),
    (32, "MPV"),
    (33, "MP2T"),
    (34, "H263"),
];
/// Letters of a codec's name (RFC 4855 section 3 has a media subtype, RFC 6838 section 4.2 its length).
const NAME_BYTES_MAX: usize = 127;

/// Whether only the call itself can say what the payload type means.
pub(super) fn is_dynamic(window: &Quality) -> bool {
    window.payload_type.is_some_and(|wanted| STATIC.iter().all(|(number, _)| *number != wanted))
}

/// The codec's name, when it is known.
pub(super) fn name(window: &Quality, messages: &[Stamped<SipMessage>]) -> Option<Cow<'static, str>> {
    let wanted = window.payload_type?;
    if let Some((_, name)) = STATIC.iter().find(|(number, _)| *number == wanted) {
        return Some(Cow::Borrowed(name));
    }
    // They come newest first: what was agreed on last counts.
    let said = |message: &Stamped<SipMessage>| rtpmap(message.value.bytes.reveal(), wanted);
    messages.iter().find_map(said).map(Cow::Owned)
}

/// The name in `a=rtpmap:96 opus/48000/2` (RFC 8866 section 6.6).
fn rtpmap(message: &[u8], wanted: u8) -> Option<String> {
    let beginning = format!("a=rtpmap:{wanted} ");
    let line =
        message.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(beginning.as_bytes()))?;
    let name = line.split(|byte| *byte == b'/' || *byte == b'\r').next()?;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.iter().all(is_plain);
    is_name.then(|| String::from_utf8_lossy(name).into_owned())
}
