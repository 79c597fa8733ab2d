//! A session description, read for what a relay needs and edited line by line (RFC 8866, RFC 3264).
//!
//! Parsing finds the byte ranges of addresses and ports; rewriting replaces those ranges and removes the lines
//! that would lead media past the relay (ICE candidates, bundling). Every other byte stays as it came, so what
//! this module does not know cannot be damaged by it.

mod parse;

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::error::Error;
use crate::window::Format;

/// How much of a description is looked at; beyond it is an error, not a truncation.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole body.
    pub bytes_max: usize,
    /// `m=` lines.
    pub media_max: usize,
}

/// Lines of one description.
const LINES_MAX: usize = 1_000;
/// Payload formats remembered per `m=` line.
const FORMATS_MAX: usize = 32;

/// A parsed description, with its edits prepared.
#[derive(Debug)]
pub struct Description<'a> {
    body: &'a [u8],
    media: Vec<Media>,
    edits: Vec<Edit>,
}

/// One `m=` line and what belongs to it.
#[derive(Clone, Debug)]
pub struct Media {
    /// The line's number, from 1.
    pub line: usize,
    /// Whether the media type is `audio`.
    pub is_audio: bool,
    /// The port; 0 means that the media is rejected or ended.
    pub port: u16,
    /// What is carried.
    pub transport: Transport,
    /// The connection address that counts for it: its own or the session's. `None` for a host name.
    pub address: Option<IpAddr>,
    /// Which way it flows, as seen by whoever wrote the description.
    pub direction: Direction,
    /// Where RTCP is wanted, when `a=rtcp` says so (RFC 3605).
    pub rtcp: Option<RtcpAttribute>,
    /// Whether RTP and RTCP may share the port (`a=rtcp-mux`, RFC 5761).
    pub rtcp_mux: bool,
    /// Payload types with an `a=rtpmap`.
    pub formats: Vec<Format>,
}

/// What an `m=` line carries, as far as a relay treats it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Plain RTP: headers and reports can be read.
    Rtp,
    /// SRTP: headers can be read, reports are encrypted.
    SecureRtp,
    /// Something else over UDP, such as fax (T.38): passed on unread.
    Datagram,
}

/// The direction attribute (RFC 8866 section 6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Both ways; also when nothing is said.
    SendReceive,
    /// It only sends.
    SendOnly,
    /// It only listens.
    ReceiveOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// Whether the writer of the description sends.
    #[must_use]
    pub fn sends(self) -> bool {
        matches!(self, Self::SendReceive | Self::SendOnly)
    }

    /// Whether the writer of the description listens.
    #[must_use]
    pub fn receives(self) -> bool {
        matches!(self, Self::SendReceive | Self::ReceiveOnly)
    }
}

/// An `a=rtcp` attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcpAttribute {
    /// The port.
    pub port: u16,
    /// The address, when it is given and differs by right.
    pub address: Option<IpAddr>,
}

/// The relay's ports for one `m=` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// For RTP, even.
    pub rtp: u16,
    /// For RTCP.
    pub rtcp: u16,
}

#[derive(Debug)]
struct Edit {
    range: Range<usize>,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// `IP4 192.0.2.1` in a `c=` line or an `a=rtcp` attribute.
    Address,
    /// The port of the `m=` line with this index.
    Port(usize),
    /// The port of its `a=rtcp` attribute.
    RtcpPort(usize),
    /// A whole line that would lead past the relay.
    Remove,
}

impl Media {
    /// Whether the media is on: not rejected, not ended.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.port != 0
    }

    /// Where the writer wants RTP. The address is unspecified while it holds the old way (`c=0.0.0.0`).
    #[must_use]
    pub fn rtp_address(&self) -> Option<SocketAddr> {
        self.address.map(|address| SocketAddr::new(address, self.port))
    }

    /// Where the writer wants RTCP: as `a=rtcp` says, else on the next port.
    #[must_use]
    pub fn rtcp_address(&self) -> Option<SocketAddr> {
        let port = self.rtcp.map_or(self.port.wrapping_add(1), |rtcp| rtcp.port);
        let address = self.rtcp.and_then(|rtcp| rtcp.address).or(self.address);
        address.map(|address| SocketAddr::new(address, port))
    }

    /// Whether the writer asks for silence from the other side by address.
    #[must_use]
    pub fn is_held_by_address(&self) -> bool {
        self.address.is_some_and(|address| address.is_unspecified())
    }
}

impl<'a> Description<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// With the line's number, when the body is not a session description or describes what a relay cannot carry
    /// (multicast, several ports per `m=` line, transports other than UDP).
    pub fn parse(body: &'a [u8], limits: Limits) -> Result<Self, Error> {
        let (media, edits) = parse::parse(body, limits)?;
        Ok(Self { body, media, edits })
    }

    /// The `m=` lines in order.
    #[must_use]
    pub fn media(&self) -> &[Media] {
        &self.media
    }

    /// The description with every address replaced by `address` and the ports of each `m=` line by the ones at
    /// its index. Addresses that mean hold and `m=` lines that are off stay as they are, and so does an `m=` line
    /// for which there are no ports.
    #[must_use]
    pub fn rewrite(&self, address: IpAddr, ports: &[Option<Ports>]) -> Vec<u8> {
        let mut output = Vec::with_capacity(self.body.len() + 64);
        let mut copied = 0;
        for edit in &self.edits {
            output.extend_from_slice(&self.body[copied..edit.range.start]);
            copied = edit.range.end;
            let ports_at = |index: usize| ports.get(index).copied().flatten();
            let replacement = match edit.what {
                What::Remove => continue,
                What::Address if address.is_ipv4() => Some(format!("IP4 {address}")),
                What::Address => Some(format!("IP6 {address}")),
                What::Port(index) => ports_at(index).map(|ports| ports.rtp.to_string()),
                What::RtcpPort(index) => ports_at(index).map(|ports| {
                    let media = &self.media[index];
                    let is_shared = media.rtcp.is_some_and(|rtcp| rtcp.port == media.port);
                    if is_shared { ports.rtp } else { ports.rtcp }.to_string()
                }),
            };
            match replacement {
                Some(text) => output.extend_from_slice(text.as_bytes()),
                None => output.extend_from_slice(&self.body[edit.range.clone()]),
            }
        }
        output.extend_from_slice(&self.body[copied..]);
        output
    }
}

#[cfg(test)]
mod tests;
