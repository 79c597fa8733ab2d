//! STUN as a keep-alive on the SIP port (RFC 5626 section 4.4.2, RFC 8489): one question, one answer, no state.
//!
//! A phone behind a NAT asks which address it is seen from, and so keeps its binding alive and notices when it moved.
//! Not here: STUN for media and TURN, which are the relay's.

use std::net::{IpAddr, SocketAddr};

const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER_BYTES: usize = 20;
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0x00, 0x20];

/// Whether a datagram is STUN: the first two bits are zero, which no SIP message has, and the magic cookie follows.
pub(crate) fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_BYTES && datagram[0] < 0x40 && datagram[4..8] == MAGIC
}

/// The answer to a binding request from `source`; `None` for anything else.
pub(crate) fn answer(datagram: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes([*datagram.get(2)?, *datagram.get(3)?]));
    let is_request = is_stun(datagram) && datagram[..2] == BINDING_REQUEST;
    if !is_request || length % 4 != 0 || datagram.len() != HEADER_BYTES + length {
        return None;
    }
    // Magic and transaction id together are what the address is hidden with from meddling routers.
    let mask = &datagram[4..HEADER_BYTES];
    let (family, address) = match source.ip().to_canonical() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let port = source.port() ^ 0x2112;
    let mut value = vec![0, family];
    value.extend_from_slice(&port.to_be_bytes());
    value.extend(address.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    let value_length = u16::try_from(value.len()).ok()?;
    let mut answer = BINDING_SUCCESS.to_vec();
    answer.extend_from_slice(&(value_length + 4).to_be_bytes());
    answer.extend_from_slice(mask);
    answer.extend_from_slice(&XOR_MAPPED_ADDRESS);
    answer.extend_from_slice(&value_length.to_be_bytes());
    answer.extend_from_slice(&value);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The transaction of RFC 5769 section 2, whose mapped addresses are given there.
    const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn request(attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(attributes.len()).expect("short").to_be_bytes();
        [&BINDING_REQUEST[..], &length, &MAGIC, &TRANSACTION, attributes].concat()
    }

    #[test]
    fn the_answer_holds_the_mapped_address_of_the_rfc() {
        let v4 = answer(&request(&[]), "192.0.2.1:32853".parse().expect("an address")).expect("answered");
        assert_eq!(v4[..2], BINDING_SUCCESS);
        assert_eq!(v4[4..20], request(&[])[4..20], "the transaction comes back");
        assert_eq!(v4[20..], [0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let source = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().expect("an address");
        let v6 = answer(&request(&[0x80, 0x22, 0, 0]), source).expect("answered");
        let want = [
            0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79,
            0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
        ];
        assert_eq!(v6[20..], want);
    }

    #[test]
    fn anything_else_gets_no_answer() {
        let source = "192.0.2.1:1".parse().expect("an address");
        let good = request(&[]);
        for length in 0..good.len() {
            assert_eq!(answer(&good[..length], source), None, "cut at {length}");
        }
        let mut indication = good.clone();
        indication[1] = 0x11;
        let mut long = good.clone();
        long.push(0);
        for datagram in [indication, long, b"INVITE sip:a SIP/2.0\r\n".to_vec()] {
            assert_eq!(answer(&datagram, source), None, "{datagram:?}");
        }
    }
}
