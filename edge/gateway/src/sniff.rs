//! What a connection speaks, from its first bytes.
//!
//! Decided without answering anything: the bytes stay in the buffer and are read again by whoever gets the
//! connection. The deadline is the caller's.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::sip_text;

/// How far it looks for the end of a request header when the path is the WebSocket path.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// HTTP/1.x.
    Http1,
    /// HTTP/2, by its preface.
    Http2,
    /// A WebSocket opening handshake that asks for SIP (RFC 7118).
    SipWebSocket,
    /// SIP as a stream.
    Sip,
}

/// Why nothing is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The client left first.
    CutShort,
    /// Neither HTTP nor SIP.
    Malformed,
}

/// Reads into `buffer` until it is clear what is spoken.
///
/// # Errors
/// When it is nothing that the edge speaks.
pub(crate) async fn sniff<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    websocket_path: &str,
) -> Result<Spoken, Unknown> {
    loop {
        if let Some(spoken) = classify(buffer, websocket_path)? {
            return Ok(spoken);
        }
        buffer.reserve(1_024);
        match stream.read_buf(buffer).await {
            Ok(0) | Err(_) => return Err(Unknown::CutShort),
            Ok(_) => {}
        }
    }
}

/// `None` when more bytes are needed.
fn classify(bytes: &[u8], websocket_path: &str) -> Result<Option<Spoken>, Unknown> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    match bytes.first() {
        None => return Ok(None),
        // Phones may send keep-alives before their first message (RFC 5626).
        Some(b'\r') => {
            return match bytes.get(1) {
                None => Ok(None),
                Some(b'\n') => Ok(Some(Spoken::Sip)),
                Some(_) => Err(Unknown::Malformed),
            };
        }
        Some(byte) if !byte.is_ascii_alphabetic() => return Err(Unknown::Malformed),
        Some(_) => {}
    }
    if bytes.len() >= PREFACE.len() && bytes.starts_with(PREFACE) {
        return Ok(Some(Spoken::Http2));
    }
    let Some(line_end) = bytes.iter().position(|byte| *byte == b'\n') else {
        // A line this long is for the HTTP engine to refuse in its own words.
        return Ok((bytes.len() >= HEAD_BYTES_MAX).then_some(Spoken::Http1));
    };
    let line = bytes[..line_end].trim_ascii_end();
    if sip_text::is_start_line(line) {
        return Ok(Some(Spoken::Sip));
    }
    if PREFACE.starts_with(&bytes[..bytes.len().min(PREFACE.len())]) {
        return Ok(None);
    }
    if !line.ends_with(b" HTTP/1.1") && !line.ends_with(b" HTTP/1.0") {
        return Err(Unknown::Malformed);
    }
    let path =
        line.strip_prefix(b"GET ").and_then(|rest| rest.split(|byte| matches!(byte, b' ' | b'?')).next());
    if path != Some(websocket_path.as_bytes()) {
        return Ok(Some(Spoken::Http1));
    }
    let is_whole = bytes.windows(4).any(|window| window == b"\r\n\r\n");
    if is_whole {
        return Ok(Some(if asks_for_sip(bytes) { Spoken::SipWebSocket } else { Spoken::Http1 }));
    }
    Ok((bytes.len() >= HEAD_BYTES_MAX).then_some(Spoken::Http1))
}

/// Whether an HTTP request is a WebSocket opening handshake with `sip` among its subprotocols.
fn asks_for_sip(request: &[u8]) -> bool {
    let (mut is_upgrade, mut is_sip) = (false, false);
    for header in sip_text::headers(request) {
        let mut items = header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        if header.is("upgrade", None) {
            is_upgrade |= items.any(|item| item.eq_ignore_ascii_case(b"websocket"));
        } else if header.is("sec-websocket-protocol", None) {
            is_sip |= items.any(|item| item.eq_ignore_ascii_case(b"sip"));
        }
    }
    is_upgrade && is_sip
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &str, want: Result<Option<Spoken>, Unknown>) {
        assert_eq!(classify(bytes.as_bytes(), "/sip"), want, "{bytes:?}");
        // Never decided differently on fewer bytes: a shorter beginning is undecided or says the same.
        for length in 0..bytes.len() {
            let early = classify(&bytes.as_bytes()[..length], "/sip");
            assert!(early == Ok(None) || early == want, "{:?} gave {early:?}", &bytes[..length]);
        }
    }

    #[test]
    fn first_bytes_tell_what_is_spoken() {
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
        check("GET / HTTP/1.1\r\n", Ok(Some(Spoken::Http1)));
        check("POST /sip HTTP/1.1\r\n", Ok(Some(Spoken::Http1)));
        check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Ok(Some(Spoken::Http2)));
        check("REGISTER sip:example.org SIP/2.0\r\n", Ok(Some(Spoken::Sip)));
        check("SIP/2.0 200 OK\r\n", Ok(Some(Spoken::Sip)));
        check("\r\n", Ok(Some(Spoken::Sip)));
        check(
            &format!("GET /sip HTTP/1.1\r\nHost: a\r\n{upgrade}Sec-WebSocket-Protocol: chat, SIP\r\n\r\n"),
            Ok(Some(Spoken::SipWebSocket)),
        );
        check(
            &format!("GET /sip?x=1 HTTP/1.1\r\n{upgrade}Sec-WebSocket-Protocol: sip\r\n\r\n"),
            Ok(Some(Spoken::SipWebSocket)),
        );
        check(&format!("GET /sip HTTP/1.1\r\n{upgrade}\r\n"), Ok(Some(Spoken::Http1)));
        check(
            &format!("GET /other HTTP/1.1\r\n{upgrade}Sec-WebSocket-Protocol: sip\r\n\r\n"),
            Ok(Some(Spoken::Http1)),
        );
        check("GET /si", Ok(None));
    }

    #[test]
    fn what_nobody_speaks_is_refused() {
        for bytes in ["\u{16}\u{3}\u{1}", "SSH-2.0-OpenSSH\r\n", "EHLO a\r\n", "\r\r", "{\"a\":1}"] {
            check(bytes, Err(Unknown::Malformed));
        }
        let endless = "A".repeat(HEAD_BYTES_MAX);
        assert_eq!(classify(endless.as_bytes(), "/sip"), Ok(Some(Spoken::Http1)));
    }
}
