//! Locating a SIP server (RFC 3263 section 4): from a host name to addresses, in the order in which they are tried.
//!
//! [`Locator`] says which DNS question comes next, takes the answers and sorts them: NAPTR by order and preference,
//! SRV by priority and, with the dice that it is given, by weight (RFC 2782). Failing over from one address to the next
//! is the caller's (RFC 3263 section 4.3).
//!
//! Not here: DNS itself, its cache, and any clock.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::uri::host_ip;

#[cfg(test)]
mod tests;

/// Addresses that one lookup gives at most.
const PLACES_MAX: usize = 16;

/// Questions that one lookup asks at most: DNS must not send us round in circles.
const QUESTIONS_MAX: usize = 24;

/// What is spoken to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// SIP over UDP.
    Udp,
    /// SIP over TCP.
    Tcp,
    /// SIP over TLS over TCP.
    Tls,
}

impl Protocol {
    /// The port without a port (RFC 3261 section 19.1.2).
    #[must_use]
    pub fn port_default(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }

    /// The SRV name of a domain (RFC 3263 section 4.1).
    fn srv_name(self, domain: &str) -> String {
        let prefix = match self {
            Self::Udp => "_sip._udp",
            Self::Tcp => "_sip._tcp",
            Self::Tls => "_sips._tcp",
        };
        format!("{prefix}.{domain}")
    }

    /// The protocol of a NAPTR service field.
    fn of_service(service: &str) -> Option<Self> {
        let known = [("SIP+D2U", Self::Udp), ("SIP+D2T", Self::Tcp), ("SIPS+D2T", Self::Tls)];
        known.into_iter().find(|(name, _)| service.eq_ignore_ascii_case(name)).map(|(_, protocol)| protocol)
    }
}

/// A server to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Host name or address literal, IPv6 with or without brackets.
    pub host: String,
    /// The port, when it is written.
    pub port: Option<u16>,
    /// The transport, when it is written.
    pub protocol: Option<Protocol>,
    /// Whether only TLS will do.
    pub is_secure: bool,
}

/// A DNS question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// NAPTR records of a domain.
    Naptr(String),
    /// SRV records of a service.
    Srv(String),
    /// A and AAAA records of a host.
    Addresses(String),
}

/// What DNS knows; nothing at all is an empty list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// To [`Question::Naptr`].
    Naptr(Vec<Naptr>),
    /// To [`Question::Srv`].
    Srv(Vec<Srv>),
    /// To [`Question::Addresses`].
    Addresses(Vec<IpAddr>),
}

/// A NAPTR record (RFC 3403).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naptr {
    /// Lower first.
    pub order: u16,
    /// Within an order, lower first.
    pub preference: u16,
    /// Such as `s`: the replacement names SRV records.
    pub flags: String,
    /// Such as `SIP+D2U`.
    pub service: String,
    /// The name to go on with.
    pub replacement: String,
}

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower first.
    pub priority: u16,
    /// Within a priority, more is more likely.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// Host; `.` says that the service is not there.
    pub target: String,
}

/// One address to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// How.
    pub protocol: Protocol,
    /// Where.
    pub address: SocketAddr,
}

/// One lookup.
#[derive(Debug)]
pub struct Locator {
    wanted: Wanted,
    step: Step,
    /// SRV names that are still to be asked for.
    services: VecDeque<(Protocol, String)>,
    /// Hosts that are still to be asked for, in the order in which they are tried.
    hosts: VecDeque<(Protocol, String, u16)>,
    places: Vec<Place>,
    asked: usize,
    has_srv: bool,
    dice: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Naptr,
    Srv,
    Hosts,
    Done,
}

impl Locator {
    /// A lookup; `dice` decides between servers of one priority.
    #[must_use]
    pub fn new(wanted: Wanted, dice: u64) -> Self {
        let mut locator = Self {
            step: Step::Naptr,
            services: VecDeque::new(),
            hosts: VecDeque::new(),
            places: Vec::new(),
            asked: 0,
            has_srv: false,
            dice,
            wanted,
        };
        locator.begin();
        locator
    }

    /// The next question; none when all is known that there is to know.
    pub fn next_question(&mut self) -> Option<Question> {
        if self.places.len() >= PLACES_MAX || self.asked >= QUESTIONS_MAX {
            self.step = Step::Done;
        }
        self.asked += 1;
        match self.step {
            Step::Naptr => Some(Question::Naptr(self.wanted.host.clone())),
            Step::Srv => self.services.front().map(|(_, name)| Question::Srv(name.clone())),
            Step::Hosts => self.hosts.front().map(|(_, host, _)| Question::Addresses(host.clone())),
            Step::Done => None,
        }
    }

    /// The answer to the question that was asked last. One that is missing or failed is an empty one.
    pub fn on_found(&mut self, found: Found) {
        match (self.step, found) {
            (Step::Naptr, Found::Naptr(records)) => self.on_naptr(records),
            (Step::Srv, Found::Srv(records)) => self.on_srv(records),
            (Step::Hosts, Found::Addresses(addresses)) => self.on_addresses(&addresses),
            _ => {}
        }
    }

    /// The addresses, most wanted first.
    #[must_use]
    pub fn places(self) -> Vec<Place> {
        self.places
    }

    /// What the name itself says (RFC 3263 section 4.1).
    fn begin(&mut self) {
        let Wanted { host, port, protocol, is_secure } = &self.wanted;
        let fallback = if *is_secure { Protocol::Tls } else { Protocol::Udp };
        let protocol = match (protocol, is_secure) {
            // TLS over TCP is what `sips` with `transport=tcp` means (RFC 3261 section 26.2.2).
            (Some(_), true) => Some(Protocol::Tls),
            (known, _) => *known,
        };
        if let Some(ip) = host_ip(host).or_else(|| host.parse().ok()) {
            let protocol = protocol.unwrap_or(fallback);
            let port = port.unwrap_or(protocol.port_default());
            self.places.push(Place { protocol, address: SocketAddr::new(ip, port) });
            self.step = Step::Done;
        } else if let Some(port) = port {
            self.hosts.push_back((protocol.unwrap_or(fallback), host.clone(), *port));
            self.step = Step::Hosts;
        } else if let Some(protocol) = protocol {
            self.services.push_back((protocol, protocol.srv_name(host)));
            self.step = Step::Srv;
        }
    }

    fn on_naptr(&mut self, mut records: Vec<Naptr>) {
        records.sort_by_key(|record| (record.order, record.preference));
        let usable = records.into_iter().filter_map(|record| {
            let protocol = Protocol::of_service(&record.service)?;
            let is_srv = record.flags.eq_ignore_ascii_case("s");
            let is_allowed = !self.wanted.is_secure || protocol == Protocol::Tls;
            (is_srv && is_allowed).then_some((protocol, bare(&record.replacement)))
        });
        self.services = usable.collect();
        if self.services.is_empty() {
            let host = &self.wanted.host;
            let spoken: &[Protocol] = match self.wanted.is_secure {
                true => &[Protocol::Tls],
                false => &[Protocol::Udp, Protocol::Tcp, Protocol::Tls],
            };
            self.services = spoken.iter().map(|protocol| (*protocol, protocol.srv_name(host))).collect();
        }
        self.step = Step::Srv;
    }

    fn on_srv(&mut self, records: Vec<Srv>) {
        let Some((protocol, _)) = self.services.pop_front() else { return };
        self.has_srv |= !records.is_empty();
        for record in self.in_order(records) {
            let target = bare(&record.target);
            // A single "." says that the service is decidedly not there (RFC 2782).
            if !target.is_empty() {
                self.hosts.push_back((protocol, target, record.port));
            }
        }
        if !self.services.is_empty() {
            return;
        }
        self.step = Step::Hosts;
        if !self.has_srv {
            // No SRV at all: the host itself (RFC 3263 section 4.2).
            let fallback = if self.wanted.is_secure { Protocol::Tls } else { Protocol::Udp };
            let protocol = match (self.wanted.protocol, self.wanted.is_secure) {
                (Some(protocol), false) => protocol,
                _ => fallback,
            };
            self.hosts.push_back((protocol, self.wanted.host.clone(), protocol.port_default()));
        }
        if self.hosts.is_empty() {
            self.step = Step::Done;
        }
    }

    fn on_addresses(&mut self, addresses: &[IpAddr]) {
        let Some((protocol, _, port)) = self.hosts.pop_front() else { return };
        for ip in addresses {
            let place = Place { protocol, address: SocketAddr::new(*ip, port) };
            if self.places.len() < PLACES_MAX && !self.places.contains(&place) {
                self.places.push(place);
            }
        }
        if self.hosts.is_empty() {
            self.step = Step::Done;
        }
    }

    /// The records in the order in which they are tried (RFC 2782, "Usage rules").
    fn in_order(&mut self, mut records: Vec<Srv>) -> Vec<Srv> {
        // Those of weight 0 stand first, so that they are chosen now and then.
        records.sort_by_key(|record| (record.priority, record.weight != 0));
        let mut ordered = Vec::with_capacity(records.len());
        while let Some(priority) = records.first().map(|record| record.priority) {
            let end = records.iter().take_while(|record| record.priority == priority).count();
            let sum: u64 = records[..end].iter().map(|record| u64::from(record.weight)).sum();
            let chosen = self.roll() % (sum + 1);
            let mut running = 0;
            let index = records[..end].iter().position(|record| {
                running += u64::from(record.weight);
                running >= chosen
            });
            ordered.push(records.remove(index.unwrap_or(0)));
        }
        ordered
    }

    /// The next number of the dice (splitmix64).
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A domain name without the dot of the root.
fn bare(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
