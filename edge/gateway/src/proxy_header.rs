//! PROXY protocol v1 and v2 (HAProxy's specification of 2020): who the customer is when a balancer stands before us.
//!
//! Read only from configured networks, before anything else, with a cap on bytes; the deadline is the caller's.

use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Version 1 takes at most 107 bytes; version 2 declares its length, of which this much is borne (addresses take
/// 232 at most, the rest are type-length-values that balancers add).
const HEADER_BYTES_MAX: usize = 1_024;

/// Why a header was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// It is not one, or too long.
    Malformed,
    /// The connection ended inside it.
    CutShort,
}

/// Reads the header and leaves what follows it in `buffer`. `None` when the balancer speaks for itself (health
/// checks) or does not know the customer.
///
/// # Errors
/// When the connection does not begin with a header; it must be closed.
pub(crate) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Result<Option<SocketAddr>, BadHeader> {
    loop {
        if let Some((length, source)) = parse(buffer)? {
            buffer.advance(length);
            return Ok(source);
        }
        if buffer.len() >= HEADER_BYTES_MAX {
            return Err(BadHeader::Malformed);
        }
        buffer.reserve(HEADER_BYTES_MAX);
        match stream.read_buf(buffer).await {
            Ok(0) | Err(_) => return Err(BadHeader::CutShort),
            Ok(_) => {}
        }
    }
}

/// The header's length and the customer's address; `None` when more bytes are needed.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, BadHeader> {
    if bytes.is_empty() {
        return Ok(None);
    }
    // The library reads both versions; what is too long for version 1 is cut so that it says so itself.
    let result = HeaderResult::parse(bytes);
    if result.is_incomplete() {
        return Ok(None);
    }
    match result {
        HeaderResult::V2(Ok(header)) => {
            let source = match (header.command, header.addresses) {
                (v2::Command::Local, _) => None,
                (_, v2::Addresses::IPv4(it)) => Some(SocketAddr::from((it.source_address, it.source_port))),
                (_, v2::Addresses::IPv6(it)) => Some(SocketAddr::from((it.source_address, it.source_port))),
                (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
            };
            Ok(Some((header.len(), source)))
        }
        HeaderResult::V1(Ok(header)) => {
            let source = match header.addresses {
                v1::Addresses::Tcp4(it) => Some(SocketAddr::from((it.source_address, it.source_port))),
                v1::Addresses::Tcp6(it) => Some(SocketAddr::from((it.source_address, it.source_port))),
                v1::Addresses::Unknown => None,
            };
            Ok(Some((header.header.len(), source)))
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(BadHeader::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20 | command, family], &length, payload].concat()
    }

    async fn check(input: &[u8], want: Result<(Option<&str>, &[u8]), BadHeader>) {
        // One byte at a time: a header may come in any pieces.
        let mut stream = tokio_test_pieces(input);
        let mut buffer = BytesMut::new();
        let got = read(&mut stream, &mut buffer).await;
        match (got, want) {
            (Ok(source), Ok((want, rest))) => {
                assert_eq!(source, want.map(|text| text.parse().expect("an address")), "{input:?}");
                buffer.extend_from_slice(stream.into_rest());
                assert_eq!(&buffer[..], rest, "{input:?}");
            }
            (got, want) => assert_eq!(got.err(), want.err(), "{input:?}"),
        }
    }

    struct Pieces<'a>(&'a [u8]);

    fn tokio_test_pieces(input: &[u8]) -> Pieces<'_> {
        Pieces(input)
    }

    impl Pieces<'_> {
        fn into_rest(&self) -> &[u8] {
            self.0
        }
    }

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            let length = self.0.len().min(1);
            buffer.put_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn both_versions_name_the_customer_and_leave_the_rest() {
        check(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\nrest", Ok((Some("192.0.2.1:4711"), b"rest"))).await;
        check(b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", Ok((Some("[2001:db8::1]:1"), b""))).await;
        check(b"PROXY UNKNOWN\r\nx", Ok((None, b"x"))).await;
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 1, 187];
        check(&[&v2(1, 0x11, &v4)[..], b"rest"].concat(), Ok((Some("192.0.2.1:4711"), b"rest"))).await;
        check(&v2(0, 0x00, &[]), Ok((None, b""))).await;
        let with_values = [&v4[..], &[4, 0, 1, 9]].concat();
        check(&[&v2(1, 0x11, &with_values)[..], b"x"].concat(), Ok((Some("192.0.2.1:4711"), b"x"))).await;
    }

    #[tokio::test]
    async fn what_is_not_a_header_is_refused() {
        check(b"GET / HTTP/1.1\r\n\r\n", Err(BadHeader::Malformed)).await;
        check(b"PROXY TCP4 192.0.2.1", Err(BadHeader::CutShort)).await;
        check(b"", Err(BadHeader::CutShort)).await;
        check(&v2(1, 0x11, &[0; 4]), Err(BadHeader::Malformed)).await;
        check(&v2(1, 0x11, &[0; 4_000]), Err(BadHeader::Malformed)).await;
        check(&[b'P'; 2_000], Err(BadHeader::Malformed)).await;
    }
}
