//! The layout of HEP version 3 (the EEP of sipcapture.org): `HEP3`, a length, and chunks of vendor, type, length, value,
//! all big-endian. Pure.
//!
//! Why our own: the one crate that reads it has not moved since 2021, takes no compressed payloads and no chunks of
//! vendors.

use std::borrow::Cow;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use flate2::read::ZlibDecoder;

use crate::doors::refusal::Refusal;

const MAGIC: &[u8; 4] = b"HEP3";
/// Magic and length.
pub(super) const HEADER_BYTES: usize = 6;
const CHUNK_HEADER_BYTES: usize = 6;
/// Bytes of a payload when it is unpacked: what SIP in a datagram may have.
const PAYLOAD_BYTES_MAX: u64 = 65_535;

/// What a packet says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Packet<'a> {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// The number of the IP protocol: 17 is UDP, 6 TCP.
    pub(super) ip_protocol: u8,
    pub(super) unix_nanos: Option<u64>,
    /// 1 is SIP, 5 RTCP in JSON, 100 a log line.
    pub(super) kind: u8,
    /// The capture agent's number.
    pub(super) agent: u32,
    /// Its name, if it has one.
    pub(super) agent_name: Option<&'a [u8]>,
    pub(super) key: Option<&'a [u8]>,
    /// Usually the Call-ID.
    pub(super) correlation: Option<&'a [u8]>,
    pub(super) payload: Cow<'a, [u8]>,
}

/// Chunks as they come.
#[derive(Default)]
struct Chunks<'a> {
    addresses: [Option<IpAddr>; 2],
    ports: [u16; 2],
    ip_protocol: u8,
    seconds: u32,
    micros: u32,
    kind: u8,
    agent: u32,
    agent_name: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    correlation: Option<&'a [u8]>,
    payload: Option<&'a [u8]>,
    is_packed: bool,
}

/// The length of the packet at the front, once its header is there.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Err("a packet begins with HEP3");
    }
    let Some(length) = bytes.get(4..HEADER_BYTES) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length < HEADER_BYTES { Err("a packet is shorter than its header") } else { Ok(Some(length)) }
}

/// Reads one packet from whomever.
pub(super) fn parse(bytes: &[u8]) -> Result<Packet<'_>, Refusal> {
    parse_known(bytes, |_| Ok(()))
}

/// Reads one packet. The key that it shows is looked at before its payload is unpacked.
pub(super) fn parse_known(
    bytes: &[u8],
    check_key: impl FnOnce(Option<&[u8]>) -> Result<(), Refusal>,
) -> Result<Packet<'_>, Refusal> {
    let length = length(bytes).map_err(Refusal::malformed)?;
    let length = length.filter(|length| *length <= bytes.len());
    let length = length.ok_or_else(|| Refusal::malformed("a packet is cut off"))?;
    let mut rest = &bytes[HEADER_BYTES..length];
    let mut chunks = Chunks::default();
    while !rest.is_empty() {
        let header =
            rest.get(..CHUNK_HEADER_BYTES).ok_or_else(|| Refusal::malformed("a chunk is cut off"))?;
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let length = usize::from(number(4));
        let value = rest.get(CHUNK_HEADER_BYTES..length);
        let value = value.ok_or_else(|| Refusal::malformed("a chunk's length is wrong"))?;
        // What vendors add is theirs.
        if number(0) == 0 {
            chunks.take(number(2), value).ok_or_else(|| {
                Refusal::malformed(format!("chunk {} has a value of {} bytes", number(2), value.len()))
            })?;
        }
        rest = &rest[length..];
    }
    check_key(chunks.key)?;
    chunks.packet()
}

impl<'a> Chunks<'a> {
    /// Nothing when the value has a wrong length.
    fn take(&mut self, kind: u16, value: &'a [u8]) -> Option<()> {
        match kind {
            0x02 => self.ip_protocol = *value.first()?,
            0x03 | 0x04 => {
                let bytes: [u8; 4] = value.try_into().ok()?;
                self.addresses[usize::from(kind - 0x03)] = Some(Ipv4Addr::from(bytes).into());
            }
            0x05 | 0x06 => {
                let bytes: [u8; 16] = value.try_into().ok()?;
                self.addresses[usize::from(kind - 0x05)] = Some(Ipv6Addr::from(bytes).into());
            }
            0x07 | 0x08 => self.ports[usize::from(kind - 0x07)] = u16::from_be_bytes(value.try_into().ok()?),
            0x09 => self.seconds = u32::from_be_bytes(value.try_into().ok()?),
            0x0a => self.micros = u32::from_be_bytes(value.try_into().ok()?),
            0x0b => self.kind = *value.first()?,
            0x0c => self.agent = u32::from_be_bytes(value.try_into().ok()?),
            0x0e => self.key = Some(value),
            0x0f => (self.payload, self.is_packed) = (Some(value), false),
            0x10 => (self.payload, self.is_packed) = (Some(value), true),
            0x11 => self.correlation = Some(value),
            0x13 => self.agent_name = Some(value),
            _ => {}
        }
        Some(())
    }

    fn packet(self) -> Result<Packet<'a>, Refusal> {
        let [Some(source), Some(destination)] = self.addresses else {
            return Err(Refusal::malformed("a packet needs the addresses of source and destination"));
        };
        let payload = self.payload.ok_or_else(|| Refusal::malformed("a packet needs a payload"))?;
        let payload = if self.is_packed { Cow::Owned(unpack(payload)?) } else { Cow::Borrowed(payload) };
        let nanos = u64::from(self.seconds) * 1_000_000_000 + u64::from(self.micros) * 1000;
        Ok(Packet {
            source: SocketAddr::new(source, self.ports[0]),
            destination: SocketAddr::new(destination, self.ports[1]),
            ip_protocol: self.ip_protocol,
            unix_nanos: (self.seconds > 0).then_some(nanos),
            kind: self.kind,
            agent: self.agent,
            agent_name: self.agent_name,
            key: self.key,
            correlation: self.correlation,
            payload,
        })
    }
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let read = ZlibDecoder::new(packed).take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| Refusal::malformed(format!("a payload cannot be unpacked: {error}")))?;
    if bytes.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(Refusal::malformed("a payload is longer than 65535 bytes when unpacked"));
    }
    Ok(bytes)
}

#[cfg(test)]
pub(in crate::doors) mod tests {
    use super::*;

    /// A packet of these chunks.
    pub(in crate::doors) fn packet(chunks: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = b"HEP3\0\0".to_vec();
        for (kind, value) in chunks {
            bytes.extend_from_slice(&[0, 0]);
            bytes.extend_from_slice(&kind.to_be_bytes());
            let length = u16::try_from(value.len() + CHUNK_HEADER_BYTES).expect("short");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(value);
        }
        let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
        bytes[4..6].copy_from_slice(&length);
        bytes
    }

    /// The chunks that every packet has, and a payload.
    pub(in crate::doors) fn capture(ports: [u16; 2], seconds: u32, payload: &[u8]) -> Vec<u8> {
        packet(&[
            (0x01, &[2]),
            (0x02, &[17]),
            (0x03, &[10, 0, 0, 1]),
            (0x04, &[10, 0, 0, 2]),
            (0x07, &ports[0].to_be_bytes()),
            (0x08, &ports[1].to_be_bytes()),
            (0x09, &seconds.to_be_bytes()),
            (0x0a, &500_000_u32.to_be_bytes()),
            (0x0b, &[1]),
            (0x0c, &2001_u32.to_be_bytes()),
            (0x0f, payload),
        ])
    }

    #[test]
    fn packets_are_read_whole_or_refused() {
        let bytes = capture([5060, 5080], 1_795_183_200, b"payload");
        let read = parse(&bytes).expect("a packet");
        assert_eq!(
            (read.source.to_string(), read.destination.to_string()),
            ("10.0.0.1:5060".into(), "10.0.0.2:5080".into())
        );
        assert_eq!((read.unix_nanos, read.kind, read.agent), (Some(1_795_183_200_500_000_000), 1, 2001));
        assert_eq!(read.payload.as_ref(), b"payload");
        for cut in 0..bytes.len() {
            assert!(parse(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut wrong = bytes.clone();
        wrong[10..12].copy_from_slice(&3_u16.to_be_bytes());
        assert!(parse(&wrong).is_err(), "a chunk shorter than its header");
        assert!(parse(&packet(&[(0x03, &[1, 2, 3])])).is_err(), "an address of three bytes");
        assert!(parse(&packet(&[(0x0f, b"x")])).is_err(), "no addresses");
        let mut own = bytes;
        own[7] = 9;
        assert!(parse(&own).is_ok(), "chunks of vendors are passed over");
    }

    #[test]
    fn packed_payloads_are_unpacked_within_bounds() {
        use std::io::Write as _;
        let pack = |bytes: &[u8]| {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(bytes).expect("in memory");
            encoder.finish().expect("in memory")
        };
        let of = |payload: &[u8]| packet(&[(0x03, &[1; 4]), (0x04, &[2; 4]), (0x10, payload)]);
        let bytes = of(&pack(b"INVITE"));
        assert_eq!(parse(&bytes).map(|read| read.payload.into_owned()), Ok(b"INVITE".to_vec()));
        assert!(parse(&of(&pack(&vec![b'x'; 1 << 20]))).is_err(), "a bomb");
        assert!(parse(&of(b"not zlib")).is_err());
        // Strangers make us unpack nothing.
        let stranger = |_: Option<&[u8]>| Err(Refusal::malformed("no key"));
        let refused = parse_known(&of(b"not zlib"), stranger).err().map(|refusal| refusal.text);
        assert_eq!(refused.as_deref(), Some("no key"));
    }
}
