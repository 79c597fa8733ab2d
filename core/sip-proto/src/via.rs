//! One Via value (RFC 3261 section 20.42, `received` and `rport` of RFC 3581).

use std::net::IpAddr;

use crate::params::Params;
use crate::text::{is_space, is_token, trim, trim_start};
use crate::uri::{host_ip, split_host_port};

/// The start of a branch that is a transaction id by RFC 3261 section 8.1.1.7.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// One hop of the way a request came.
#[derive(Clone, Copy, Debug)]
pub struct Via<'a> {
    /// `UDP`, `TCP`, `TLS`, `WS`, `WSS` or another token, as it stands.
    pub transport: &'a str,
    /// The sent-by host as it stands, IPv6 in brackets.
    pub host: &'a str,
    /// The sent-by port, when written.
    pub port: Option<u16>,
    /// `branch`, `received`, `rport` and the rest.
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Reads one Via value; none when it breaks its grammar or is not SIP/2.0.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (name, rest) = token(value)?;
        let (version, rest) = token(slash(rest)?)?;
        let (transport, rest) = token(slash(rest)?)?;
        if !name.eq_ignore_ascii_case("SIP")
            || version != "2.0"
            || !rest.first().is_some_and(|&b| is_space(b))
        {
            return None;
        }
        let params_at = rest.iter().position(|&byte| byte == b';').unwrap_or(rest.len());
        let (sent_by, params) = rest.split_at(params_at);
        let (host, port) = sent_by_parts(std::str::from_utf8(trim(sent_by)).ok()?)?;
        Some(Self { transport, host, port, params: Params::parse(params)? })
    }

    /// The branch, which names the transaction.
    #[must_use]
    pub fn branch(&self) -> Option<&'a str> {
        self.params.token("branch")
    }

    /// The address that the request really came from.
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        self.params.token("received").and_then(host_ip)
    }

    /// Whether the sender asked for `rport` (RFC 3581), filled or not.
    #[must_use]
    pub fn wants_rport(&self) -> bool {
        self.params.get("rport").is_some()
    }

    /// The filled `rport`.
    #[must_use]
    pub fn rport(&self) -> Option<u16> {
        self.params.token("rport")?.parse().ok()
    }

    /// The `maddr` parameter.
    #[must_use]
    pub fn maddr(&self) -> Option<&'a str> {
        self.params.token("maddr")
    }

    /// The sent-by host as an address, when it is a literal.
    #[must_use]
    pub fn host_ip(&self) -> Option<IpAddr> {
        host_ip(self.host)
    }

    /// The port to answer to when nothing says otherwise (RFC 3261 section 18.2.2).
    #[must_use]
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(if self.transport.eq_ignore_ascii_case("TLS") { 5061 } else { 5060 })
    }
}

fn token(text: &[u8]) -> Option<(&str, &[u8])> {
    let text = trim_start(text);
    let end = text.iter().position(|&byte| !is_token(byte)).unwrap_or(text.len());
    let name = std::str::from_utf8(&text[..end]).ok()?;
    (!name.is_empty()).then_some((name, &text[end..]))
}

fn slash(text: &[u8]) -> Option<&[u8]> {
    trim_start(text).strip_prefix(b"/")
}

/// Splits sent-by; white space may stand around the colon (`COLON` in the grammar).
fn sent_by_parts(text: &str) -> Option<(&str, Option<u16>)> {
    if !text.bytes().any(is_space) {
        return split_host_port(text);
    }
    let colon = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':')? };
    let (host, rest) = text.split_at(text[colon..].find(':')? + colon);
    let (host, _) = split_host_port(host.trim())?;
    let port = rest[1..].trim().parse().ok().filter(|&port| port != 0)?;
    Some((host, Some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_via() {
        let via = Via::parse(b"SIP  /   2.0\r\n /UDP\r\n    192.0.2.2 : 5070;branch=z9hG4bKx;rport")
            .expect("valid");
        assert_eq!((via.transport, via.host, via.port), ("UDP", "192.0.2.2", Some(5070)));
        assert_eq!(via.branch(), Some("z9hG4bKx"));
        assert!(via.wants_rport());
        assert_eq!(via.rport(), None);

        let via = Via::parse(b"SIP/2.0/TLS [2001:db8::9]:5061;received=2001:db8::1;rport=9;branch=z9hG4bK")
            .expect("valid");
        assert_eq!((via.host, via.port, via.rport()), ("[2001:db8::9]", Some(5061), Some(9)));
        assert_eq!(via.received(), "2001:db8::1".parse().ok());
        assert_eq!(
            Via::parse(b"SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK56").map(|v| v.port_or_default()),
            Some(5060)
        );
    }

    #[test]
    fn broken_vias_are_refused() {
        for text in [
            &b"SIP/2.0/UDP"[..],
            b"SIP/2.0/UDP ",
            b"SIP/2.0 UDP a",
            b"SIP/7.0/UDP a",
            b"HTTP/2.0/UDP a",
            b"SIP/2.0/UDP 192.0.2.15;;,;,,",
            b"SIP/2.0/UDP a:",
            b"SIP/2.0/UDP a:99999",
            b"SIP/2.0/UDP [::1",
            b"",
            b"SIP/2.0/UDP a b",
            b"SIP/2.0/UDP a : b",
        ] {
            assert!(Via::parse(text).is_none(), "{}", String::from_utf8_lossy(text));
        }
    }
}
