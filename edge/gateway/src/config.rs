//! The `edge` section: where customers come in, and what they may cost.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use belfry_signal::label::check_name;
use ipnet::IpNet;
use serde::Deserialize;

use crate::signals::ListenerName;
use crate::sip_connect::OUTWARD;

/// Longer than that, somebody would notice.
const UDP_GATHER_MAX: Duration = Duration::from_millis(20);

/// The edge's configuration. Keys marked *(start)* need a restart; the rest follow a reload.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Threads of the runtime that carries all connections *(start)*.
    pub threads: usize,
    /// Where the edge listens *(start)*.
    pub listeners: Vec<ListenerConfig>,
    /// What customers may cost *(start)*.
    pub limits: LimitsConfig,
    /// How long customers may take *(start)*.
    pub timeouts: TimeoutsConfig,
    /// Certificates.
    pub tls: TlsConfig,
    /// The operator's GeoIP file, if any.
    #[serde(default)]
    pub geoip: Option<GeoipConfig>,
    /// Countries, regions, overrides.
    pub steering: belfry_steering::Config,
    /// SIP flows *(start)*.
    pub sip: SipConfig,
    /// What HTTP requests are forwarded to.
    pub http: HttpConfig,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListenerKind {
    /// TLS, and then whatever the first bytes say: HTTP/1.1, h2, WSS with subprotocol `sip`, or SIP.
    TlsSniff,
    /// SIP over TLS and nothing else.
    SipTls,
    /// SIP over TCP.
    SipTcp,
    /// SIP over UDP.
    SipUdp,
    /// HTTP and WebSocket without TLS, for a balancer in front that ends TLS itself.
    Http,
}

/// One listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Its name, as in labels.
    pub name: String,
    /// What is spoken.
    pub kind: ListenerKind,
    /// Where it binds; port 0 takes a free one.
    pub address: SocketAddr,
    /// The host that customers use, for Via, Record-Route and Path. Default: the bound address.
    #[serde(default)]
    pub public_host: Option<String>,
    /// The port that customers use. Default: the bound port.
    #[serde(default)]
    pub public_port: Option<u16>,
    /// Networks whose connections must begin with a PROXY protocol header (v1 or v2). Nobody else may send one.
    #[serde(default)]
    pub proxy_protocol_from: Vec<IpNet>,
}

/// What customers may cost.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Open connections on all listeners.
    pub connections_max: usize,
    /// Open connections on one listener.
    pub connections_per_listener_max: usize,
    /// Open connections from one IPv4 address or one IPv6 /64.
    pub connections_per_ip_max: usize,
    /// TLS handshakes under way.
    pub handshakes_max: usize,
    /// Bytes of a SIP message on any transport, 1,300 to 65,535.
    pub sip_message_bytes_max: usize,
    /// SIP connection flows.
    pub sip_flows_max: usize,
    /// Connections that the edge opens to other servers, of those.
    pub sip_outward_max: usize,
    /// Messages waiting to be written to one flow; a reader slower than that loses its connection.
    pub sip_flow_queue_max: usize,
    /// Addresses that are remembered for having been let in lately: they are served first when more datagrams come than
    /// can be served. 8 bytes each.
    pub sip_known_sources_max: usize,
    /// Addresses of one IPv4 address or IPv6 /64 that become known within an hour.
    pub sip_known_sources_per_network_max: u32,
    /// Bans of the cores that stand here too; more stand in the cores alone.
    pub sip_bans_max: usize,
    /// Remembered TLS sessions for resumption by id; tickets need no memory.
    pub tls_sessions_max: usize,
    /// Concurrent h2 streams of one connection.
    pub h2_streams_max: u32,
    /// Requests of one HTTP/1.1 connection.
    pub http_requests_per_connection_max: u32,
}

/// How long customers may take.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeoutsConfig {
    /// PROXY header and TLS handshake together.
    #[serde(with = "humantime_serde")]
    pub handshake: Duration,
    /// A whole request header, from the connection or from its own first byte, however it trickles.
    #[serde(with = "humantime_serde")]
    pub header: Duration,
    /// Between two reads of a request body, and for a blocked write.
    #[serde(with = "humantime_serde")]
    pub stall: Duration,
    /// An HTTP connection without a request.
    #[serde(with = "humantime_serde")]
    pub http_idle: Duration,
    /// A SIP connection without a message or keep-alive (RFC 5626 clients send one every 95 to 120 s).
    #[serde(with = "humantime_serde")]
    pub sip_idle: Duration,
    /// After so much silence the kernel probes a peer; one that answers none of three probes, 10 s apart, is gone.
    #[serde(with = "humantime_serde")]
    pub tcp_keepalive: Duration,
    /// How often a WebSocket phone is pinged; one that leaves two pings without a sign of life is gone.
    #[serde(with = "humantime_serde")]
    pub websocket_ping: Duration,
    /// Opening a connection to a SIP peer.
    #[serde(with = "humantime_serde")]
    pub sip_connect: Duration,
}

/// Certificates by server name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Where the local CA lives (`ca.pem` for clients, `ca.key` with mode 0600); made on first start when no
    /// certificate is configured.
    pub directory: PathBuf,
    /// Configured certificates; each serves the names in its subject alternative names, the first also those
    /// who ask for none.
    #[serde(default)]
    pub certificates: Vec<CertificateConfig>,
    /// More names for the certificate of the local CA, beside `localhost`, the loopback addresses and the
    /// listeners' public hosts.
    #[serde(default)]
    pub names: Vec<String>,
    /// CA certificates (PEM) that are trusted when the edge itself connects to a SIP peer over TLS, beside the
    /// local CA. With any, `sip-tls` listeners also ask who connects for a certificate of these, and the core may know a
    /// trunk by the names in it; who has none is served all the same.
    #[serde(default)]
    pub peer_ca_files: Vec<PathBuf>,
}

/// One certificate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// The chain, leaf first (PEM).
    pub chain_file: PathBuf,
    /// The key (PEM).
    pub key_file: PathBuf,
}

/// The GeoIP file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeoipConfig {
    /// An `.mmdb` file, nested GeoIP2 schema or flat with `country_code`.
    pub database: PathBuf,
}

/// SIP flows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SipConfig {
    /// The key that signs flow tokens (made on first start with mode 0600; the same on all edges of a site).
    pub flow_key_file: PathBuf,
    /// Where WebSocket clients connect.
    pub websocket_path: String,
    /// Where datagrams come thick, they are taken once in so long and not one by one; 0 takes each when it comes.
    #[serde(with = "humantime_serde", default = "udp_gather_default")]
    pub udp_gather: Duration,
    /// From so many datagrams a second on, to one listener, they come thick.
    #[serde(default = "udp_gather_from_default")]
    pub udp_gather_from_per_second: u32,
}

fn udp_gather_default() -> Duration {
    Duration::from_millis(1)
}

fn udp_gather_from_default() -> u32 {
    1_000
}

/// HTTP forwarding.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// A request that waited longer for its response header is a bad event of the `edge_http` journey.
    #[serde(with = "humantime_serde")]
    pub slow_after: Duration,
    /// Of the requests that went well and whose sender traces nothing, one in so many leaves a span; a request that
    /// went badly always does, and the access log has them all.
    pub trace_one_in: u32,
    /// Networks whose `x-forwarded-for` is believed and extended; everybody else's is replaced.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
    /// Groups of servers.
    #[serde(default)]
    pub backends: Vec<BackendConfig>,
    /// Which requests go where: an exact host before any host, a longer path before a shorter one.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
}

/// One group of servers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// Its name.
    pub name: String,
    /// Its servers, taken in turn.
    pub addresses: Vec<SocketAddr>,
    /// Opening a connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Waiting for the next bytes of an answer.
    #[serde(with = "humantime_serde")]
    pub read_timeout: Duration,
}

/// One route.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The request's host without port; any host when absent.
    #[serde(default)]
    pub host: Option<String>,
    /// The beginning of the request's path, in whole segments.
    pub path: String,
    /// A backend's name.
    pub backend: String,
}

type Problems = Vec<(String, String)>;

impl Config {
    /// Every problem as (key inside the section, what is wrong and what is allowed).
    #[must_use]
    pub fn check(&self) -> Problems {
        let mut problems = Problems::new();
        let mut need = |good: bool, key: &str, allowed: &str| {
            if !good {
                problems.push((key.to_owned(), allowed.to_owned()));
            }
        };
        need((1..=256).contains(&self.threads), "threads", "use 1 to 256");
        let limits = &self.limits;
        let bytes = limits.sip_message_bytes_max;
        need((1_300..=65_535).contains(&bytes), "limits.sip_message_bytes_max", "use 1300 to 65535");
        for (key, value) in [
            ("limits.connections_max", limits.connections_max),
            ("limits.connections_per_listener_max", limits.connections_per_listener_max),
            ("limits.connections_per_ip_max", limits.connections_per_ip_max),
            ("limits.handshakes_max", limits.handshakes_max),
            ("limits.sip_flows_max", limits.sip_flows_max),
            ("limits.sip_outward_max", limits.sip_outward_max),
            ("limits.sip_flow_queue_max", limits.sip_flow_queue_max),
            ("limits.sip_known_sources_max", limits.sip_known_sources_max),
            ("limits.sip_known_sources_per_network_max", limits.sip_known_sources_per_network_max as usize),
            ("limits.sip_bans_max", limits.sip_bans_max),
            ("limits.tls_sessions_max", limits.tls_sessions_max),
            ("http.trace_one_in", self.http.trace_one_in as usize),
            ("limits.h2_streams_max", limits.h2_streams_max as usize),
            ("limits.http_requests_per_connection_max", limits.http_requests_per_connection_max as usize),
        ] {
            need((1..=10_000_000).contains(&value), key, "use 1 to 10000000");
        }
        let timeouts = &self.timeouts;
        for (key, value) in [
            ("timeouts.handshake", timeouts.handshake),
            ("timeouts.header", timeouts.header),
            ("timeouts.stall", timeouts.stall),
            ("timeouts.http_idle", timeouts.http_idle),
            ("timeouts.sip_idle", timeouts.sip_idle),
            ("timeouts.tcp_keepalive", timeouts.tcp_keepalive),
            ("timeouts.websocket_ping", timeouts.websocket_ping),
            ("timeouts.sip_connect", timeouts.sip_connect),
            ("http.slow_after", self.http.slow_after),
        ] {
            need(!value.is_zero(), key, "use more than 0 s, as in \"10s\"");
        }
        need(self.sip.udp_gather <= UDP_GATHER_MAX, "sip.udp_gather", "use 0 to 20ms, as in \"1ms\"");
        need(
            self.sip.websocket_path.starts_with('/'),
            "sip.websocket_path",
            "use a path that starts with \"/\"",
        );
        self.check_listeners(&mut problems);
        self.check_http(&mut problems);
        let steering = self.steering.check();
        problems.extend(steering.into_iter().map(|(key, problem)| (format!("steering.{key}"), problem)));
        for (index, region) in self.steering.regions.iter().enumerate() {
            if let Err(error) = check_name(&region.name) {
                problems.push((format!("steering.regions[{index}].name"), error.to_string()));
            }
        }
        problems
    }

    fn check_listeners(&self, problems: &mut Problems) {
        if self.listeners.is_empty() || self.listeners.len() > ListenerName::MAX {
            let problem = format!("{} listeners; use 1 to {}", self.listeners.len(), ListenerName::MAX);
            problems.push(("listeners".to_owned(), problem));
        }
        let mut names = HashSet::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            if let Err(error) = check_name(&listener.name) {
                problems.push((format!("listeners[{index}].name"), error.to_string()));
            }
            if !names.insert(&listener.name) {
                problems.push((
                    format!("listeners[{index}].name"),
                    format!("{:?} is named twice", listener.name),
                ));
            }
            if listener.name == OUTWARD {
                let problem =
                    format!("{OUTWARD:?} names the connections that the edge opens itself; choose another");
                problems.push((format!("listeners[{index}].name"), problem));
            }
            if listener.address.ip().is_unspecified() && listener.public_host.is_none() {
                let problem = "needed, because the address says nothing that a customer could use".to_owned();
                problems.push((format!("listeners[{index}].public_host"), problem));
            }
            if listener.kind == ListenerKind::SipUdp && !listener.proxy_protocol_from.is_empty() {
                let problem =
                    "a UDP listener has no connections that could begin with a PROXY header".to_owned();
                problems.push((format!("listeners[{index}].proxy_protocol_from"), problem));
            }
        }
    }

    fn check_http(&self, problems: &mut Problems) {
        let mut names = HashSet::new();
        for (index, backend) in self.http.backends.iter().enumerate() {
            if let Err(error) = check_name(&backend.name) {
                problems.push((format!("http.backends[{index}].name"), error.to_string()));
            }
            if !names.insert(&backend.name) {
                let problem = format!("{:?} is named twice", backend.name);
                problems.push((format!("http.backends[{index}].name"), problem));
            }
            if backend.addresses.is_empty() {
                let problem = "no address; give at least one, as \"127.0.0.1:8000\"".to_owned();
                problems.push((format!("http.backends[{index}].addresses"), problem));
            }
            if backend.connect_timeout.is_zero() || backend.read_timeout.is_zero() {
                let problem = "a timeout is zero; use more than 0 s, as in \"2s\"".to_owned();
                problems.push((format!("http.backends[{index}]"), problem));
            }
        }
        for (index, route) in self.http.routes.iter().enumerate() {
            if !names.contains(&route.backend) {
                let problem = format!("{:?} is not a configured backend", route.backend);
                problems.push((format!("http.routes[{index}].backend"), problem));
            }
            if !route.path.starts_with('/') {
                let problem = format!("{:?} does not start with \"/\"", route.path);
                problems.push((format!("http.routes[{index}].path"), problem));
            }
        }
    }
}
