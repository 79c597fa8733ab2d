use std::net::Ipv4Addr;

use belfry_signal::{Registry, TraceKey};

use super::*;
use crate::config::GeoipConfig;

/// A value of the MaxMind DB format, as much of it as country files use.
enum Datum {
    Text(&'static str),
    Number16(u16),
    Number32(u32),
    Number64(u64),
    Map(Vec<(&'static str, Datum)>),
    List(Vec<Datum>),
}

impl Datum {
    fn write(&self, out: &mut Vec<u8>) {
        let control = |kind: u8, length: usize| kind << 5 | u8::try_from(length).expect("short values only");
        match self {
            Self::Text(text) => {
                assert!(text.len() < 29, "longer texts are encoded otherwise");
                out.push(control(2, text.len()));
                out.extend_from_slice(text.as_bytes());
            }
            Self::Number16(number) => {
                out.push(control(5, 2));
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Number32(number) => {
                out.push(control(6, 4));
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Number64(number) => {
                out.extend_from_slice(&[control(0, 8), 2]);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Map(pairs) => {
                out.push(control(7, pairs.len()));
                for (key, value) in pairs {
                    Self::Text(key).write(out);
                    value.write(out);
                }
            }
            Self::List(values) => {
                out.extend_from_slice(&[control(0, values.len()), 4]);
                values.iter().for_each(|value| value.write(out));
            }
        }
    }
}

/// A whole file: a binary tree over the bits of IPv4 addresses with 24-bit records, the data, the metadata.
fn database(networks: &[(Ipv4Addr, u8, Datum)]) -> Vec<u8> {
    #[derive(Clone, Copy, PartialEq)]
    enum Slot {
        Empty,
        Node(usize),
        Data(usize),
    }
    let mut nodes = vec![[Slot::Empty; 2]];
    let mut data = Vec::new();
    for (address, length, datum) in networks {
        let offset = data.len();
        datum.write(&mut data);
        let bit = |index: u8| (u32::from(*address) >> (31 - index) & 1) as usize;
        let mut node = 0;
        for index in 0..length - 1 {
            node = match nodes[node][bit(index)] {
                Slot::Node(next) => next,
                _ => {
                    nodes.push([Slot::Empty; 2]);
                    let next = nodes.len() - 1;
                    nodes[node][bit(index)] = Slot::Node(next);
                    next
                }
            };
        }
        nodes[node][bit(length - 1)] = Slot::Data(offset);
    }
    let mut file = Vec::new();
    for slot in nodes.iter().flatten() {
        let record = match slot {
            Slot::Empty => nodes.len(),
            Slot::Node(index) => *index,
            Slot::Data(offset) => nodes.len() + 16 + offset,
        };
        file.extend_from_slice(&u32::try_from(record).expect("small").to_be_bytes()[1..]);
    }
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    Datum::Map(vec![
        ("node_count", Datum::Number32(u32::try_from(nodes.len()).expect("small"))),
        ("record_size", Datum::Number16(24)),
        ("ip_version", Datum::Number16(4)),
        ("database_type", Datum::Text("Belfry-Test-Country")),
        ("languages", Datum::List(vec![Datum::Text("en")])),
        ("binary_format_major_version", Datum::Number16(2)),
        ("binary_format_minor_version", Datum::Number16(0)),
        ("build_epoch", Datum::Number64(1_700_000_000)),
        ("description", Datum::Map(vec![("en", Datum::Text("a test"))])),
    ])
    .write(&mut file);
    file
}

fn world() -> Vec<u8> {
    let nested = Datum::Map(vec![
        ("continent", Datum::Map(vec![("code", Datum::Text("EU"))])),
        ("country", Datum::Map(vec![("iso_code", Datum::Text("DE"))])),
        ("autonomous_system_number", Datum::Number32(64_500)),
    ]);
    let flat = Datum::Map(vec![("country_code", Datum::Text("FR")), ("continent_code", Datum::Text("EU"))]);
    let flatter = Datum::Map(vec![("country", Datum::Text("JP")), ("asn", Datum::Text("AS64501"))]);
    let continent = Datum::Map(vec![("continent", Datum::Map(vec![("code", Datum::Text("EU"))]))]);
    let odd = Datum::Map(vec![("country", Datum::Number32(7)), ("country_code", Datum::Text("Germany"))]);
    database(&[
        (Ipv4Addr::new(192, 0, 2, 0), 24, nested),
        (Ipv4Addr::new(198, 51, 100, 0), 24, flat),
        (Ipv4Addr::new(203, 0, 113, 0), 24, flatter),
        (Ipv4Addr::new(100, 64, 0, 0), 10, continent),
        (Ipv4Addr::new(10, 0, 0, 0), 8, odd),
    ])
}

fn config(path: &Path) -> Config {
    let text = r#"
        threads = 1
        listeners = [{ name = "web", kind = "http", address = "127.0.0.1:0" }]
        [limits]
        connections_max = 1
        connections_per_listener_max = 1
        connections_per_ip_max = 1
        handshakes_max = 1
        sip_message_bytes_max = 2000
        sip_flows_max = 1
        sip_outward_max = 1
        sip_flow_queue_max = 1
        sip_known_sources_max = 64
        sip_known_sources_per_network_max = 64
        sip_bans_max = 16
        tls_sessions_max = 1
        h2_streams_max = 1
        http_requests_per_connection_max = 1
        [timeouts]
        handshake = "1s"
        header = "1s"
        stall = "1s"
        http_idle = "1s"
        sip_idle = "1s"
        tcp_keepalive = "60s"
        websocket_ping = "30s"
        sip_connect = "1s"
        [tls]
        directory = "unused"
        [steering]
        default_region = "us"
        regions = [{ name = "eu", countries = ["DE"], continents = ["EU"] }, { name = "us" }, { name = "ap", countries = ["JP"] }]
        overrides = [{ network = "192.0.2.128/25", region = "ap" }]
        [sip]
        flow_key_file = "unused"
        websocket_path = "/sip"
        [http]
        slow_after = "1s"
        trace_one_in = 1
    "#;
    let mut config: Config = toml::from_str(text).expect("readable");
    assert_eq!(config.check(), []);
    config.geoip = Some(GeoipConfig { database: path.to_owned() });
    config
}

fn load(path: &Path) -> Result<Geography, Error> {
    let signals = Signals::register(&Registry::for_test(), TraceKey::new([0; 32]));
    Geography::load(&config(path), &signals)
}

#[test]
fn both_schemas_place_customers() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("country.mmdb");
    std::fs::write(&path, world()).expect("written");
    let geography = load(&path).expect("a good file");
    let listener = ListenerName::configured("web").expect("a name");
    for (ip, region, country, asn) in [
        ("192.0.2.1", "eu", Some("DE"), Some(64_500)),
        ("192.0.2.200", "ap", Some("DE"), Some(64_500)),
        ("::ffff:192.0.2.1", "eu", Some("DE"), Some(64_500)),
        ("198.51.100.1", "eu", Some("FR"), None),
        ("203.0.113.1", "ap", Some("JP"), Some(64_501)),
        ("100.64.0.1", "eu", None, None),
        ("10.0.0.1", "us", None, None),
        ("8.8.8.8", "us", None, None),
        ("2001:db8::1", "us", None, None),
    ] {
        let peer = geography.place(&listener, SocketAddr::new(ip.parse().expect("an address"), 1), false);
        let seen = (peer.region.as_str(), peer.country.map(|code| code.to_string()), peer.asn);
        assert_eq!(seen, (region, country.map(str::to_owned), asn), "{ip}");
    }
    let words = geography.explain("198.51.100.1".parse().expect("an address"));
    assert_eq!(
        words,
        ["no override holds the address", "no region claims country FR", "continent EU belongs to region eu"]
    );
}

#[test]
fn damaged_files_are_refused_wherever_they_are_damaged() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("country.mmdb");
    let good = world();
    let refused = |content: &[u8]| {
        std::fs::write(&path, content).expect("written");
        load(&path).map_err(|error| error.reason()).err()
    };
    assert_eq!(refused(&good), None);
    assert_eq!(refused(b""), Some("geoip"));
    assert_eq!(refused(b"not a database"), Some("geoip"));
    for length in (0..good.len()).step_by(7) {
        assert_eq!(refused(&good[..length]), Some("geoip"), "cut at {length}");
    }
    // A flipped byte is either noticed or harmless, but never a panic, and lookups stay bounded.
    let listener = ListenerName::configured("web").expect("a name");
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 0xff;
        std::fs::write(&path, &bad).expect("written");
        if let Ok(geography) = load(&path) {
            for ip in ["192.0.2.1", "198.51.100.1", "203.0.113.1", "100.64.0.1", "10.0.0.1"] {
                let _ =
                    geography.place(&listener, SocketAddr::new(ip.parse().expect("an address"), 1), false);
            }
        }
    }
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(load(&path).map_err(|error| error.reason()).err(), Some("file"));
}
