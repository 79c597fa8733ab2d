//! PROXY protocol v1 and v2 (HAProxy's specification of 2020): who the customer is when a balancer stands before us.
//!
//! Read only from configured networks, before anything else, with a cap on bytes; the deadline is the caller's.

use std::net::SocketAddr;

use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest version 1 header by the specification.
const V1_BYTES_MAX: usize = 107;
/// Addresses take 216 bytes at most; the rest is for the type-length-values that balancers add.
const V2_PAYLOAD_BYTES_MAX: usize = 1_024;

/// Why a header was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// It is not one, or too long.
    Malformed,
    /// The connection ended inside it.
    CutShort,
}

/// Reads the header and not a byte more. `None` when the balancer speaks for itself (health checks) or does not
/// know the customer.
///
/// # Errors
/// When the connection does not begin with a header; it must be closed.
pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<SocketAddr>, BadHeader> {
    // Both versions are longer than this, and it is enough to tell them apart.
    let mut header = vec![0; SIGNATURE.len()];
    fill(stream, &mut header).await?;
    if header == SIGNATURE {
        header.resize(SIGNATURE.len() + 4, 0);
        fill(stream, &mut header[SIGNATURE.len()..]).await?;
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if length > V2_PAYLOAD_BYTES_MAX {
            return Err(BadHeader::Malformed);
        }
        header.resize(header.len() + length, 0);
        fill(stream, &mut header[SIGNATURE.len() + 4..]).await?;
    } else if header.starts_with(b"PROXY ") {
        // Version 1 does not say how long it is, so it is read byte by byte up to its line end.
        while !header.ends_with(b"\r\n") {
            if header.len() >= V1_BYTES_MAX {
                return Err(BadHeader::Malformed);
            }
            header.push(0);
            let last = header.len() - 1;
            fill(stream, &mut header[last..]).await?;
        }
    } else {
        return Err(BadHeader::Malformed);
    }
    parse(&header)
}

async fn fill<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut [u8]) -> Result<(), BadHeader> {
    stream.read_exact(buffer).await.map(|_| ()).map_err(|_| BadHeader::CutShort)
}

fn parse(header: &[u8]) -> Result<Option<SocketAddr>, BadHeader> {
    match HeaderResult::parse(header) {
        HeaderResult::V2(Ok(header)) => Ok(match (header.command, header.addresses) {
            (v2::Command::Local, _) => None,
            (_, v2::Addresses::IPv4(it)) => Some(SocketAddr::from((it.source_address, it.source_port))),
            (_, v2::Addresses::IPv6(it)) => Some(SocketAddr::from((it.source_address, it.source_port))),
            (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        }),
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(it) => Some(SocketAddr::from((it.source_address, it.source_port))),
            v1::Addresses::Tcp6(it) => Some(SocketAddr::from((it.source_address, it.source_port))),
            v1::Addresses::Unknown => None,
        }),
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
        let mut stream = input;
        let got = read(&mut stream).await;
        let got = got.map(|source| (source.map(|source| source.to_string()), stream));
        assert_eq!(got, want.map(|(source, rest)| (source.map(str::to_owned), rest)), "{input:?}");
    }

    #[tokio::test]
    async fn both_versions_name_the_customer_and_leave_the_rest() {
        check(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\nrest", Ok((Some("192.0.2.1:4711"), b"rest")))
            .await;
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
