//! Symmetric latching with a source check: where a leg's packets may come from, and where its packets go.
//!
//! Behind a NAT a phone does not know its own public address, so the relay sends to where packets come from
//! (RFC 7362 section 4). Anyone who guesses the port could then take the call over; so only two hosts may latch:
//! the one that the session description names and the one that the signalling came from. Whichever packet of
//! theirs comes first decides the port, and nobody else is heard until the leg sends a new description.

use std::net::{IpAddr, SocketAddr};

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first packet from an allowed host: its source is the leg's address from now on.
    Latched,
    /// It comes from the latched address.
    Known,
    /// It comes from somewhere else: refuse it and count it.
    Foreign,
}

/// The addresses of one component (RTP or RTCP) of one leg.
#[derive(Clone, Debug)]
pub struct Latch {
    /// From the description; an unspecified address means hold (RFC 3264 section 8.4).
    expected: Option<SocketAddr>,
    /// Where the signalling came from.
    signalled_from: IpAddr,
    latched: Option<SocketAddr>,
    is_open: bool,
    foreign: u64,
}

impl Latch {
    /// A latch that waits for its first packet. `expected` is the address in the session description, when it is
    /// an address and not a name.
    #[must_use]
    pub fn new(expected: Option<SocketAddr>, signalled_from: IpAddr) -> Self {
        let expected = expected.map(canonical);
        Self {
            expected,
            signalled_from: signalled_from.to_canonical(),
            latched: None,
            is_open: true,
            foreign: 0,
        }
    }

    /// The leg sent a new description: it may have moved, so the next packet from an allowed host latches again.
    /// Until then packets still go where they went, unless the description names a new address.
    pub fn reopen(&mut self, expected: Option<SocketAddr>, signalled_from: IpAddr) {
        let expected = expected.map(canonical);
        let signalled_from = signalled_from.to_canonical();
        let is_moved = self.expected != expected || self.signalled_from != signalled_from;
        if is_moved {
            self.latched = None;
        }
        self.expected = expected;
        self.signalled_from = signalled_from;
        self.is_open = true;
    }

    /// Judges the source of a packet.
    pub fn admit(&mut self, source: SocketAddr) -> Verdict {
        let source = canonical(source);
        if !self.is_open {
            if self.latched == Some(source) {
                return Verdict::Known;
            }
            self.foreign += 1;
            return Verdict::Foreign;
        }
        let is_described = self.expected.is_some_and(|expected| expected.ip() == source.ip());
        if is_described || source.ip() == self.signalled_from {
            self.latched = Some(source);
            self.is_open = false;
            return Verdict::Latched;
        }
        self.foreign += 1;
        Verdict::Foreign
    }

    /// Where packets to the leg go: to the latched address, or to the described one until a packet came. `None`
    /// while the leg is on hold by address, or described by a name that we do not resolve.
    #[must_use]
    pub fn destination(&self) -> Option<SocketAddr> {
        match self.expected {
            Some(expected) if expected.ip().is_unspecified() => None,
            expected => self.latched.or(expected).filter(|address| address.port() != 0),
        }
    }

    /// The address that was latched, when the latch is closed.
    #[must_use]
    pub fn latched(&self) -> Option<SocketAddr> {
        self.latched.filter(|_| !self.is_open)
    }

    /// Packets refused so far.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.foreign
    }
}

/// An IPv4 address that a dual-stack socket shows as IPv6 is the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn host(text: &str) -> IpAddr {
        text.parse().expect("a host")
    }

    #[test]
    fn the_first_allowed_source_latches_and_then_only_it() {
        let mut latch = Latch::new(Some(at("192.168.1.7:4000")), host("203.0.113.9"));
        assert_eq!(latch.destination(), Some(at("192.168.1.7:4000")));
        for (source, verdict) in [
            ("198.51.100.66:4000", Verdict::Foreign),
            ("203.0.113.9:61000", Verdict::Latched), // the NAT's port
            ("203.0.113.9:61000", Verdict::Known),
            ("203.0.113.9:61001", Verdict::Foreign), // same host, too late
            ("192.168.1.7:4000", Verdict::Foreign),
            ("[::ffff:203.0.113.9]:61000", Verdict::Known),
        ] {
            assert_eq!(latch.admit(at(source)), verdict, "{source}");
        }
        assert_eq!(latch.destination(), Some(at("203.0.113.9:61000")));
        assert_eq!(latch.foreign(), 3);
    }

    #[test]
    fn a_new_description_opens_the_latch_without_a_gap() {
        let mut latch = Latch::new(Some(at("10.0.0.7:4000")), host("203.0.113.9"));
        latch.admit(at("203.0.113.9:61000"));
        latch.reopen(Some(at("10.0.0.7:4000")), host("203.0.113.9"));
        assert_eq!(latch.destination(), Some(at("203.0.113.9:61000")), "nothing moved, so the path stays");
        assert_eq!(latch.latched(), None);
        assert_eq!(latch.admit(at("198.51.100.66:1")), Verdict::Foreign);
        assert_eq!(latch.admit(at("203.0.113.9:62000")), Verdict::Latched);
        latch.reopen(Some(at("10.0.0.8:4002")), host("203.0.113.9"));
        assert_eq!(latch.destination(), Some(at("10.0.0.8:4002")), "it moved");
    }

    #[test]
    fn hold_by_address_stops_sending_but_not_hearing() {
        let mut latch = Latch::new(Some(at("0.0.0.0:4000")), host("203.0.113.9"));
        assert_eq!(latch.destination(), None);
        assert_eq!(latch.admit(at("203.0.113.9:61000")), Verdict::Latched);
        assert_eq!(latch.destination(), None);
        latch.reopen(Some(at("203.0.113.9:4000")), host("203.0.113.9"));
        assert_eq!(latch.destination(), Some(at("203.0.113.9:4000")));
    }

    #[test]
    fn a_name_instead_of_an_address_leaves_the_signalling_source() {
        let mut latch = Latch::new(None, host("203.0.113.9"));
        assert_eq!(latch.destination(), None);
        assert_eq!(latch.admit(at("203.0.113.9:61000")), Verdict::Latched);
        assert_eq!(latch.destination(), Some(at("203.0.113.9:61000")));
    }
}
