//! What the doors that speak HTTP have in common: unpacking, and answers that senders understand.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use belfry_door::PeerAddress;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use super::intake::{Intake, Origin};
use super::refusal::{Reason, Refusal};
use super::signals::Entrance;

/// Whose request it is.
pub(crate) fn origin(door: Entrance, peer: Option<PeerAddress>) -> Origin {
    Origin { door, sender: peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |PeerAddress(address)| address) }
}

/// A body as its sender wrote it, unpacked to at most `bytes_max`.
pub(crate) fn unpack(headers: &HeaderMap, body: Bytes, bytes_max: usize) -> Result<Bytes, Refusal> {
    let encoding = headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    match encoding.as_deref() {
        None | Some(b"" | b"identity") => Ok(body),
        Some(b"gzip" | b"x-gzip") => read_all(MultiGzDecoder::new(body.as_ref()), bytes_max),
        Some(b"deflate") => read_all(ZlibDecoder::new(body.as_ref()), bytes_max),
        Some(_) => Err(Refusal::new(
            Reason::Unsupported,
            "this content-encoding is not understood: send gzip, deflate, or no encoding",
        )),
    }
}

fn read_all(packed: impl std::io::Read, bytes_max: usize) -> Result<Bytes, Refusal> {
    let mut bytes = Vec::new();
    let read = packed.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Refusal::malformed(format!("the body cannot be unpacked: {error}")))?;
    if bytes.len() > bytes_max {
        return Err(too_long(bytes_max));
    }
    Ok(bytes.into())
}

pub(crate) fn too_long(bytes_max: usize) -> Refusal {
    let text = format!(
        "longer than {bytes_max} bytes when unpacked: send less at a time, or raise request_bytes_max"
    );
    Refusal::new(Reason::TooLong, text)
}

/// The status code of a refusal.
pub(crate) fn status(refusal: &Refusal) -> StatusCode {
    match refusal.reason {
        Reason::Malformed | Reason::Broken => StatusCode::BAD_REQUEST,
        Reason::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Reason::Rate | Reason::Busy => StatusCode::TOO_MANY_REQUESTS,
        Reason::Disk | Reason::Ended => StatusCode::SERVICE_UNAVAILABLE,
        Reason::Token => StatusCode::UNAUTHORIZED,
    }
}

/// An answer with the refusal's status, and when to come again.
pub(crate) fn answer(intake: &Intake, refusal: &Refusal, body: impl IntoResponse) -> Response {
    let mut response = (status(refusal), body).into_response();
    if refusal.is_passing() {
        response.headers_mut().insert(RETRY_AFTER, intake.retry_after().as_secs().into());
    }
    response
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn bodies_are_unpacked_within_bounds() {
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("in memory");
            Bytes::from(encoder.finish().expect("in memory"))
        };
        let check = |encoding: &str, body: Bytes| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, encoding.parse().expect("a value"));
            unpack(&headers, body, 1000).map_err(|refusal| refusal.reason)
        };
        assert_eq!(check("gzip", gzip(b"hello")), Ok(Bytes::from_static(b"hello")));
        assert_eq!(check("identity", Bytes::from_static(b"hello")), Ok(Bytes::from_static(b"hello")));
        assert_eq!(check("gzip", gzip(&vec![0; 10 << 20])), Err(Reason::TooLong), "a bomb");
        assert_eq!(check("gzip", Bytes::from_static(b"hello")), Err(Reason::Malformed));
        assert_eq!(check("br", Bytes::from_static(b"hello")), Err(Reason::Unsupported));
    }
}
