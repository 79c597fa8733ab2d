//! The demo's site: all rooms on loopback, three regions on 127.0.0.0/8, rules whose windows fit a visit of minutes.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// The SIP domain of the demo's customers.
pub const DOMAIN: &str = "demo.belfry";
/// The routing key that the stand-in for PagerDuty knows.
pub const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";

/// Where that key is kept, below the data directory.
pub const ROUTING_KEY_FILE: &str = "secrets/pagerduty.key";

/// Where customers come from: the region, its country, and the third byte of their 127.0.x.0/24 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Land {
    /// The steering region.
    pub region: &'static str,
    /// ISO 3166-1 alpha-2.
    pub country: &'static str,
    /// The third byte of the loopback network that stands for it.
    pub network: u8,
}

/// The three countries of the demo.
pub const LANDS: [Land; 3] = [
    Land { region: "eu", country: "GB", network: 1 },
    Land { region: "us", country: "US", network: 2 },
    Land { region: "apac", country: "SG", network: 3 },
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
    let (port_min, port_max) = doors.rtp();
    let mut text = format!(
        r#"# The demo's configuration, over the shipped defaults: `belfry.toml` of the repository explains every key.
[node]
name = "demo-1"
site = "loopback"
region = "eu"
data = "{data}"
log = "error"

[node.drain]
edge = "1s"
core = "2s"
media = "1s"
alerts = "2s"
observe = "5s"

[admin]
listen = "{admin}"

[edge]
[[edge.listeners]]
name = "https"
kind = "tls-sniff"
address = "{tls}"
[[edge.listeners]]
name = "sip-udp"
kind = "sip-udp"
address = "{sip}"
[[edge.listeners]]
name = "sip-tcp"
kind = "sip-tcp"
address = "{sip}"
[[edge.listeners]]
name = "sip-tls"
kind = "sip-tls"
address = "{sips}"

[edge.http]
slow_after = "500ms"
backends = [{{ name = "portal", addresses = ["{backend}"], connect_timeout = "1s", read_timeout = "5s" }}]
routes = [{{ path = "/", backend = "portal" }}]

[edge.steering]
default_region = "eu"
"#,
        data = data.display(),
        admin = doors.admin(),
        tls = doors.tls(),
        sip = doors.sip(),
        sips = doors.sips(),
        backend = doors.backend(),
    );
    // Writing to a string cannot fail.
    for Land { region, country, .. } in LANDS {
        let _ = write!(
            text,
            "[[edge.steering.regions]]\nname = \"{region}\"\nsite = \"loopback\"\ncountries = [\"{country}\"]\n"
        );
    }
    for Land { country, network, .. } in LANDS {
        let _ = write!(
            text,
            "[[edge.steering.overrides]]\nnetwork = \"127.0.{network}.0/24\"\ncountry = \"{country}\"\n"
        );
    }
    let _ = write!(
        text,
        r#"
[core.signalling]
domains = ["{DOMAIN}"]
register_slow = "500ms"

[media]
bind_address = "127.0.0.1"
port_min = {port_min}
port_max = {port_max}
quality_window = "2s"
# The customers share two processors with everything else: their packets are late when these are busy.
jitter_buffer = "400ms"
mos_min = 4.0

[observe]
listen = "{api}"

[alerts.engine]
rules = "demo"
regions = ["eu", "us", "apac"]
stale_after = "15s"
group_window = "1s"
group_join = "30s"

[alerts.notify]
public_url = "http://{page}"
[[alerts.notify.services]]
name = "demo"
url = "http://{pagerduty}/v2/enqueue"
routing_key_file = "{ROUTING_KEY_FILE}"

[dashboard]
listen = "{page}"
public_url = "http://{page}"
"#,
        api = doors.api(),
        page = doors.page(),
        pagerduty = doors.pagerduty(),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_demo_is_a_good_configuration() {
        let text = configuration(Path::new("/tmp/belfry-demo"), Doors::new(100));
        let config = Config::parse("demo.toml", &text, &[]).expect("good");
        assert!(config.edge.is_some() && config.dashboard.is_some());
        assert_eq!(config.admin.listen, "127.0.0.1:10001".parse().expect("an address"));
    }
}
