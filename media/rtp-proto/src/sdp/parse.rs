//! Reading a session description into media facts and edits.

use std::net::IpAddr;
use std::ops::Range;

use super::{Direction, Edit, FORMATS_MAX, LINES_MAX, Limits, Media, RtcpAttribute, Transport, What};
use crate::error::Error;
use crate::window::Format;

/// Attributes of ICE and of bundling: with them two clients would agree on a path that is not through us
/// (RFC 8839 section 4.2.5 allows to leave ICE out; RFC 9143 section 7.3 to leave bundling out).
const PAST_THE_RELAY: &[&[u8]] = &[
    b"candidate",
    b"remote-candidates",
    b"end-of-candidates",
    b"ice-ufrag",
    b"ice-pwd",
    b"ice-options",
    b"ice-lite",
    b"ice-mismatch",
    b"ice-pacing",
    b"bundle-only",
];

/// One line on the way through.
struct Line<'a> {
    number: usize,
    /// Where the line begins in the body.
    start: usize,
    /// Without its end-of-line.
    bytes: &'a [u8],
    /// With it.
    whole: Range<usize>,
}

/// What has been read so far.
struct Parser {
    media: Vec<Media>,
    edits: Vec<Edit>,
    session_address: SessionAddress,
    session_direction: Direction,
    media_max: usize,
}

#[derive(Clone, Copy)]
enum SessionAddress {
    Missing,
    Given(Option<IpAddr>),
}

type Parsed = (Vec<Media>, Vec<Edit>);

pub(super) fn parse(body: &[u8], limits: Limits) -> Result<Parsed, Error> {
    if body.len() > limits.bytes_max {
        return Err(Error::Description { line: 0, what: "longer than the limit" });
    }
    let mut parser = Parser {
        media: Vec::new(),
        edits: Vec::new(),
        session_address: SessionAddress::Missing,
        session_direction: Direction::SendReceive,
        media_max: limits.media_max,
    };
    let mut missing = Vec::new();
    let mut last = 0;
    for line in lines(body) {
        last = line.number;
        if line.number > LINES_MAX {
            return line.refuse("too many lines");
        }
        if line.number == 1 && line.bytes != b"v=0" {
            return line.refuse("a description begins with v=0");
        }
        parser.line(&line, &mut missing)?;
    }
    if last == 0 {
        return Err(Error::Description { line: 0, what: "empty" });
    }
    parser.finish(&missing)
}

fn lines(body: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut start = 0;
    body.split_inclusive(|&byte| byte == b'\n').enumerate().map(move |(index, whole)| {
        let bytes = whole.strip_suffix(b"\n").unwrap_or(whole);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let line = Line { number: index + 1, start, bytes, whole: start..start + whole.len() };
        start += whole.len();
        line
    })
}

impl Line<'_> {
    fn refuse<T>(&self, what: &'static str) -> Result<T, Error> {
        Err(Error::Description { line: self.number, what })
    }

    /// The fields of the line's value, separated by blanks, with their ranges in the body.
    fn fields(&self, value_at: usize) -> impl Iterator<Item = (&str, Range<usize>)> {
        let start = self.start;
        let mut at = value_at;
        self.bytes[value_at..].split(|&byte| byte == b' ').filter_map(move |field| {
            let range = start + at..start + at + field.len();
            at += field.len() + 1;
            // What is not UTF-8 is no address and no number; it fails where it is looked at.
            (!field.is_empty()).then(|| (std::str::from_utf8(field).unwrap_or("\u{fffd}"), range))
        })
    }
}

impl Parser {
    /// `missing` collects the lines of media that had no connection address of their own.
    fn line(&mut self, line: &Line<'_>, missing: &mut Vec<usize>) -> Result<(), Error> {
        match line.bytes {
            // Blank lines are not allowed, but some devices end their bodies with one.
            [] => Ok(()),
            [b'c', b'=', ..] => self.connection(line, missing),
            [b'm', b'=', ..] => self.media(line, missing),
            [b'a', b'=', ..] => self.attribute(line),
            [kind, b'=', ..] if kind.is_ascii_lowercase() => Ok(()),
            _ => line.refuse("not of the form x=value"),
        }
    }

    fn connection(&mut self, line: &Line<'_>, missing: &mut Vec<usize>) -> Result<(), Error> {
        let mut fields = line.fields(2);
        let (Some(("IN", _)), Some((family, family_at)), Some((text, address_at))) =
            (fields.next(), fields.next(), fields.next())
        else {
            return line.refuse("c= wants IN, IP4 or IP6, and an address");
        };
        if fields.next().is_some() {
            return line.refuse("c= has more than three fields");
        }
        let address = connection_address(line, family, text)?;
        match self.media.last_mut() {
            None => self.session_address = SessionAddress::Given(address),
            Some(media) => {
                media.address = address;
                missing.retain(|&number| number != media.line);
            }
        }
        // Hold by address must reach the other side; media that is off says nothing.
        let is_hold = address.is_some_and(|address| address.is_unspecified());
        let is_off = self.media.last().is_some_and(|media| !media.is_on());
        if !is_hold && !is_off {
            self.edits.push(Edit { range: family_at.start..address_at.end, what: What::Address });
        }
        Ok(())
    }

    fn media(&mut self, line: &Line<'_>, missing: &mut Vec<usize>) -> Result<(), Error> {
        if self.media.len() == self.media_max {
            return line.refuse("more m= lines than the relay takes");
        }
        let mut fields = line.fields(2);
        let (Some((kind, _)), Some((port_text, port_at)), Some((protocol, _)), Some(_)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return line.refuse("m= wants media, port, protocol and formats");
        };
        let (port_text, count) = port_text.split_once('/').unwrap_or((port_text, "1"));
        let Ok(port) = port_text.parse::<u16>() else { return line.refuse("the port is not 0 to 65535") };
        if port != 0 && count != "1" {
            return line.refuse("more than one port per m= line cannot be relayed");
        }
        let transport = match protocol {
            _ if port == 0 => Transport::Datagram,
            "RTP/AVP" | "RTP/AVPF" => Transport::Rtp,
            _ if protocol.starts_with("TCP") => return line.refuse("only media over udp can be relayed"),
            _ if protocol.contains("RTP/SAVP") => Transport::SecureRtp,
            _ if protocol.to_ascii_lowercase().contains("udp") => Transport::Datagram,
            _ => return line.refuse("only media over udp can be relayed"),
        };
        let address = match self.session_address {
            SessionAddress::Given(address) => address,
            SessionAddress::Missing => {
                if port != 0 {
                    missing.push(line.number);
                }
                None
            }
        };
        if port != 0 {
            let digits = port_at.start..port_at.start + port_text.len();
            self.edits.push(Edit { range: digits, what: What::Port(self.media.len()) });
        }
        self.media.push(Media {
            line: line.number,
            is_audio: kind == "audio",
            port,
            transport,
            address,
            direction: self.session_direction,
            rtcp: None,
            rtcp_mux: false,
            formats: Vec::new(),
        });
        Ok(())
    }

    fn attribute(&mut self, line: &Line<'_>) -> Result<(), Error> {
        let value = &line.bytes[2..];
        let colon = value.iter().position(|&byte| byte == b':');
        let name = &value[..colon.unwrap_or(value.len())];
        let is_bundle = name == b"group" && value[name.len()..].starts_with(b":BUNDLE");
        if is_bundle || PAST_THE_RELAY.contains(&name) {
            self.edits.push(Edit { range: line.whole.clone(), what: What::Remove });
            return Ok(());
        }
        let direction = match name {
            b"sendrecv" => Some(Direction::SendReceive),
            b"sendonly" => Some(Direction::SendOnly),
            b"recvonly" => Some(Direction::ReceiveOnly),
            b"inactive" => Some(Direction::Inactive),
            _ => None,
        };
        let index = self.media.len().wrapping_sub(1);
        let Some(media) = self.media.last_mut() else {
            self.session_direction = direction.unwrap_or(self.session_direction);
            return Ok(());
        };
        media.direction = direction.unwrap_or(media.direction);
        match name {
            b"rtcp-mux" => media.rtcp_mux = true,
            b"rtcp" if media.is_on() => self.rtcp(line, index)?,
            b"rtpmap" if media.formats.len() < FORMATS_MAX => media.formats.extend(format(line)),
            _ => {}
        }
        Ok(())
    }

    /// `a=rtcp:53020` or `a=rtcp:53020 IN IP4 126.16.64.4` (RFC 3605).
    fn rtcp(&mut self, line: &Line<'_>, index: usize) -> Result<(), Error> {
        let mut fields = line.fields("a=rtcp:".len().min(line.bytes.len()));
        let Some((text, port_at)) = fields.next() else { return line.refuse("a=rtcp wants a port") };
        let Ok(port) = text.parse::<u16>() else { return line.refuse("the port is not 0 to 65535") };
        self.edits.push(Edit { range: port_at, what: What::RtcpPort(index) });
        let mut address = None;
        if let Some(("IN", _)) = fields.next() {
            let (Some((family, family_at)), Some((text, address_at))) = (fields.next(), fields.next()) else {
                return line.refuse("a=rtcp wants IP4 or IP6 and an address after IN");
            };
            address = connection_address(line, family, text)?;
            if !address.is_some_and(|address| address.is_unspecified()) {
                self.edits.push(Edit { range: family_at.start..address_at.end, what: What::Address });
            }
        }
        self.media[index].rtcp = Some(RtcpAttribute { port, address });
        Ok(())
    }

    fn finish(self, missing: &[usize]) -> Result<Parsed, Error> {
        if let Some(&line) = missing.first() {
            return Err(Error::Description { line, what: "no c= line says where this media goes" });
        }
        Ok((self.media, self.edits))
    }
}

/// `None` for a host name, which we do not resolve: the phone's packets will say where it is.
fn connection_address(line: &Line<'_>, family: &str, text: &str) -> Result<Option<IpAddr>, Error> {
    // A time to live or a count after a slash is for multicast only.
    let (host, suffix) = text.split_once('/').map_or((text, None), |(host, suffix)| (host, Some(suffix)));
    let address = match (family, host.parse::<IpAddr>()) {
        ("IP4", Ok(IpAddr::V4(address))) => Some(IpAddr::V4(address)),
        ("IP6", Ok(IpAddr::V6(address))) => Some(IpAddr::V6(address)),
        ("IP4" | "IP6", Ok(_)) => return line.refuse("the address is not of the family that is named"),
        ("IP4" | "IP6", Err(_)) if is_host_name(host) => None,
        ("IP4" | "IP6", Err(_)) => return line.refuse("neither an address nor a host name"),
        _ => return line.refuse("the address family is neither IP4 nor IP6"),
    };
    if suffix.is_some() || address.is_some_and(|address| address.is_multicast()) {
        return line.refuse("multicast cannot be relayed");
    }
    Ok(address)
}

fn is_host_name(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
    is_plain
        && text.len() <= 253
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.contains(|c: char| c.is_ascii_alphabetic())
}

/// `a=rtpmap:96 opus/48000/2`; one that cannot be read is left out, since only measuring needs it.
fn format(line: &Line<'_>) -> Option<Format> {
    let mut fields = line.fields("a=rtpmap:".len().min(line.bytes.len()));
    let payload_type = fields.next()?.0.parse::<u8>().ok().filter(|number| *number < 128)?;
    let mut encoding = fields.next()?.0.split('/');
    let (name, rate) = (encoding.next()?, encoding.next()?);
    Some(Format::named(payload_type, name, rate.parse().ok().filter(|rate| (1..=1_000_000).contains(rate))?))
}
