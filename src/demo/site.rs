//! The demo's site: all rooms on loopback, three regions on 127.0.0.0/8, rules whose windows fit a visit of minutes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// The SIP domain of the demo's customers.
pub const DOMAIN: &str = "demo.belfry";
/// The routing key that the stand-in for PagerDuty knows.
pub const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";

/// Where that key is kept, below the data directory.
pub const ROUTING_KEY_FILE: &str = "secrets/pagerduty.key";

/// Where customers come from, as `site.toml` has it: the region, and the third byte of its 127.0.x.0/24 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Land {
    /// The steering region.
    pub region: &'static str,
    /// The third byte of the loopback network that stands for it.
    pub network: u8,
}

/// The three regions of the demo.
pub const LANDS: [Land; 3] = [
    Land { region: "eu", network: 1 },
    Land { region: "us", network: 2 },
    Land { region: "apac", network: 3 },
];

impl Land {
    /// The address of the customer with this number, from 1.
    #[must_use]
    pub fn address(&self, number: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, 0, self.network, number))
    }
}

/// The demo's doors, all on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    offset: u16,
}

impl Doors {
    /// The usual doors, each moved up by `offset`.
    #[must_use]
    pub fn new(offset: u16) -> Self {
        Self { offset }
    }

    fn at(self, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port + self.offset))
    }

    /// HTTPS, h2, WSS and SIP over TLS.
    #[must_use]
    pub fn tls(self) -> SocketAddr {
        self.at(8443)
    }

    /// SIP over UDP and TCP.
    #[must_use]
    pub fn sip(self) -> SocketAddr {
        self.at(5060)
    }

    /// SIP over TLS.
    #[must_use]
    pub fn sips(self) -> SocketAddr {
        self.at(5061)
    }

    /// The read APIs.
    #[must_use]
    pub fn api(self) -> SocketAddr {
        self.at(9090)
    }

    /// The control-tower page.
    #[must_use]
    pub fn page(self) -> SocketAddr {
        self.at(8080)
    }

    /// The admin door.
    #[must_use]
    pub fn admin(self) -> SocketAddr {
        self.at(9901)
    }

    /// The HTTP backend behind the edge.
    #[must_use]
    pub fn backend(self) -> SocketAddr {
        self.at(8081)
    }

    /// The stand-in for PagerDuty.
    #[must_use]
    pub fn pagerduty(self) -> SocketAddr {
        self.at(8082)
    }

    /// OTLP of others over gRPC.
    #[must_use]
    pub fn otlp_grpc(self) -> SocketAddr {
        self.at(4317)
    }

    /// The same over HTTP.
    #[must_use]
    pub fn otlp_http(self) -> SocketAddr {
        self.at(4318)
    }

    /// Syslog of others.
    #[must_use]
    pub fn syslog(self) -> SocketAddr {
        self.at(6514)
    }

    /// SIP that others captured.
    #[must_use]
    pub fn hep(self) -> SocketAddr {
        self.at(9060)
    }

    /// The first and last RTP port.
    #[must_use]
    pub fn rtp(self) -> (u16, u16) {
        // The offset goes up to 20,000, so the range stays below 65,536.
        (22_000 + self.offset, 23_999 + self.offset)
    }
}

/// The demo's configuration, over the shipped defaults.
#[must_use]
pub fn configuration(data: &Path, doors: Doors) -> String {
    let (rtp_first, rtp_last) = doors.rtp();
    [
        ("@DATA@", data.display().to_string()),
        ("@ADMIN@", doors.admin().to_string()),
        ("@OTLP_GRPC@", doors.otlp_grpc().to_string()),
        ("@OTLP_HTTP@", doors.otlp_http().to_string()),
        ("@SYSLOG@", doors.syslog().to_string()),
        ("@HEP@", doors.hep().to_string()),
        ("@TLS@", doors.tls().to_string()),
        ("@SIPS@", doors.sips().to_string()),
        ("@SIP@", doors.sip().to_string()),
        ("@BACKEND@", doors.backend().to_string()),
        ("@DOMAIN@", DOMAIN.to_owned()),
        ("@RTP_FIRST@", rtp_first.to_string()),
        ("@RTP_LAST@", rtp_last.to_string()),
        ("@API@", doors.api().to_string()),
        ("@PAGERDUTY@", doors.pagerduty().to_string()),
        ("@PAGE@", doors.page().to_string()),
        ("@ROUTING_KEY_FILE@", ROUTING_KEY_FILE.to_owned()),
    ]
    .iter()
    .fold(include_str!("site.toml").to_owned(), |text, (sign, value)| text.replace(sign, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_demo_is_a_good_configuration() {
        let text = configuration(Path::new("/tmp/belfry-demo"), Doors::new(100));
        let config = Config::parse("demo.toml", &text, &[]).expect("good");
        assert!(!text.contains('@'), "every sign is filled in");
        let regions: Vec<String> =
            config.edge.expect("an edge").steering.regions.into_iter().map(|region| region.name).collect();
        assert_eq!(regions, LANDS.map(|land| land.region));
        assert_eq!(config.admin.listen, "127.0.0.1:10001".parse().expect("an address"));
    }
}
