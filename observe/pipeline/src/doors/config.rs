//! The section `[observe.doors]`: where others' telemetry may come in, and how much of it.
//!
//! A door is open when its section is present.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::senders::SenderName;

/// Doors for others' telemetry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DoorsConfig {
    /// Bytes that may be under way between all doors and the disk; beyond it senders are told to wait.
    pub bytes_in_flight_max: usize,
    /// Connections of each door at once.
    pub connections_max: usize,
    /// A connection that is silent for so long is closed; a request comes whole within this time.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Bytes of one request, as it comes and again when it is unpacked.
    pub request_bytes_max: usize,
    /// Bytes of a log line that are kept; the rest is cut, counted, and its length noted.
    pub message_bytes_max: usize,
    /// Attributes of a record that stay apart; the rest is kept as one text, which searches find too.
    pub attributes_max: usize,
    /// Bytes of one attribute that are kept.
    pub attribute_bytes_max: usize,
    /// A record from further in the future is kept at the time at which it came, with its own time as an attribute.
    #[serde(with = "humantime_serde")]
    pub future_max: Duration,
    /// The same for one that is older than this.
    #[serde(with = "humantime_serde")]
    pub past_max: Duration,
    /// Records a second that one address may send; 0 is no limit.
    pub sender_records_per_second_max: u64,
    /// Addresses whose accounts are kept.
    pub senders_max: usize,
    /// Samples a second of what each door refuses, kept in the stream `refused`.
    pub refused_samples_per_second_max: u32,
    /// Senders that have a name in the metrics, and their own rates.
    pub senders: Vec<SenderConfig>,
    /// OTLP: logs, traces, metrics.
    pub otlp: Option<OtlpConfig>,
    /// Syslog.
    pub syslog: Option<SyslogConfig>,
    /// What writes to Elasticsearch.
    pub elastic: Option<HttpConfig>,
    /// What writes to Loki.
    pub loki: Option<HttpConfig>,
    /// SIP captures in HEP.
    pub hep: Option<HepConfig>,
    /// Files of this machine.
    pub files: Vec<FileConfig>,
    /// Where it is kept how far files were read.
    pub files_directory: PathBuf,
}

/// Addresses with a name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SenderConfig {
    /// For metrics.
    pub name: String,
    /// Whose.
    pub networks: Vec<IpNet>,
    /// Instead of the rate for everybody.
    pub records_per_second_max: Option<u64>,
}

/// A door that speaks HTTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Tokens that open it, one on a line; absent means that it is for loopback only.
    pub token_file: Option<PathBuf>,
    /// Names that it goes by without a token, beside addresses and `localhost`.
    #[serde(default)]
    pub host_names: Vec<String>,
}

/// The section `[observe.doors.otlp]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Where OTLP/gRPC listens.
    pub grpc_listen: Option<SocketAddr>,
    /// Where OTLP/HTTP listens.
    pub http_listen: Option<SocketAddr>,
    /// As in [`HttpConfig`]; gRPC takes them as metadata `authorization: Bearer TOKEN`.
    pub token_file: Option<PathBuf>,
    /// As in [`HttpConfig`].
    #[serde(default)]
    pub host_names: Vec<String>,
    /// Resource attributes that become labels of every series, besides `job` and `instance`.
    #[serde(default)]
    pub promote: Vec<String>,
    /// Series whose deltas are added up; more are refused.
    #[serde(default = "delta_series_max")]
    pub delta_series_max: usize,
    /// A series of deltas that is silent for so long begins anew.
    #[serde(default = "delta_idle", with = "humantime_serde")]
    pub delta_idle: Duration,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            grpc_listen: None,
            http_listen: None,
            token_file: None,
            host_names: Vec::new(),
            promote: Vec::new(),
            delta_series_max: delta_series_max(),
            delta_idle: delta_idle(),
        }
    }
}

/// The section `[observe.doors.syslog]`. Syslog has no tokens: on a network use TLS with client certificates.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    /// Datagrams (RFC 5426).
    pub udp_listen: Option<SocketAddr>,
    /// Streams (RFC 6587), counted or in lines.
    pub tcp_listen: Option<SocketAddr>,
    /// Streams over TLS (RFC 5425).
    pub tls_listen: Option<SocketAddr>,
    /// For `tls_listen`.
    pub tls: Option<TlsConfig>,
    /// Where the clocks of senders stand that name no zone, as `Europe/Zurich`; UTC when left out.
    pub time_zone: Option<String>,
}

/// The section `[observe.doors.hep]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HepConfig {
    /// Datagrams.
    pub udp_listen: Option<SocketAddr>,
    /// Streams.
    pub tcp_listen: Option<SocketAddr>,
    /// Streams over TLS.
    pub tls_listen: Option<SocketAddr>,
    /// For `tls_listen`.
    pub tls: Option<TlsConfig>,
    /// A file with the key that agents send (chunk 0x0e); absent takes all.
    pub key_file: Option<PathBuf>,
    /// Calls that are followed at once until they end.
    #[serde(default = "hep_calls_max")]
    pub calls_max: usize,
    /// A call of which nothing was heard for so long is over.
    #[serde(default = "hep_call_idle", with = "humantime_serde")]
    pub call_idle: Duration,
}

/// The certificate of a door, and whose it asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, PEM.
    pub certificate_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
    /// Authorities of the client certificates without which nobody comes in; absent asks for none.
    pub client_ca_file: Option<PathBuf>,
}

/// One of `[[observe.doors.files]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// A file, or a directory with a pattern as the last part, as `/var/log/kamailio/*.log`.
    pub path: PathBuf,
    /// What wrote it, as the attribute `service.name`.
    pub service: String,
    /// How a line is read.
    #[serde(default)]
    pub format: FileFormat,
    /// Whether a file that is there when it is first seen is read from its start.
    #[serde(default)]
    pub from_start: bool,
}

/// How the lines of a file are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// A line is a message, at the time at which it is read.
    #[default]
    Text,
    /// As syslog daemons write them: time, host, tag.
    Syslog,
    /// A JSON object on each line.
    Json,
}

fn delta_series_max() -> usize {
    100_000
}

fn delta_idle() -> Duration {
    Duration::from_hours(1)
}

fn hep_calls_max() -> usize {
    100_000
}

fn hep_call_idle() -> Duration {
    Duration::from_hours(3)
}

impl Default for DoorsConfig {
    fn default() -> Self {
        Self {
            bytes_in_flight_max: 64 << 20,
            connections_max: 256,
            idle_timeout: Duration::from_mins(10),
            request_bytes_max: 4 << 20,
            message_bytes_max: 64 << 10,
            attributes_max: 128,
            attribute_bytes_max: 4 << 10,
            future_max: Duration::from_mins(10),
            past_max: Duration::from_hours(90 * 24),
            sender_records_per_second_max: 0,
            senders_max: 10_000,
            refused_samples_per_second_max: 5,
            senders: Vec::new(),
            otlp: None,
            syslog: None,
            elastic: None,
            loki: None,
            hep: None,
            files: Vec::new(),
            files_directory: PathBuf::from("observe/files"),
        }
    }
}

impl DoorsConfig {
    /// Every fault: the key inside the section, and what is wrong with it and what is allowed. A record must fit an
    /// entry of the log, which takes `record_bytes_max`.
    #[must_use]
    pub fn check(&self, record_bytes_max: u64) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut expect = |is_good: bool, key: &str, text: &str| {
            if !is_good {
                faults.push((key.to_owned(), text.to_owned()));
            }
        };
        let in_flight = self.request_bytes_max.saturating_mul(2)..=4 << 30;
        expect(
            in_flight.contains(&self.bytes_in_flight_max),
            "bytes_in_flight_max",
            "use twice request_bytes_max to 4294967296",
        );
        expect((1..=100_000).contains(&self.connections_max), "connections_max", "use 1 to 100000");
        expect(
            (Duration::from_secs(1)..=Duration::from_hours(24)).contains(&self.idle_timeout),
            "idle_timeout",
            "use 1s to 1day",
        );
        let requests = 64 << 10..=64 << 20;
        expect(
            requests.contains(&self.request_bytes_max),
            "request_bytes_max",
            "use 65536 to 67108864 bytes",
        );
        // Lossy reading of bytes that are no text may make three of each.
        let record = self.message_bytes_max + self.attributes_max.saturating_mul(self.attribute_bytes_max);
        expect(
            (256..=1 << 20).contains(&self.message_bytes_max)
                && (1..=1000).contains(&self.attributes_max)
                && (64..=64 << 10).contains(&self.attribute_bytes_max)
                && record as u64 + (16 << 10) <= record_bytes_max,
            "message_bytes_max",
            "message_bytes_max, and attributes_max times attribute_bytes_max, must fit record_bytes_max of [observe.pipeline]",
        );
        expect(self.future_max <= Duration::from_hours(24 * 366), "future_max", "use at most a year");
        expect((2..=1_000_000).contains(&self.senders_max), "senders_max", "use 2 to 1000000");
        expect(self.senders.len() < SenderName::MAX, "senders", "name at most 32");
        for sender in &self.senders {
            let is_name = SenderName::configured(&sender.name).is_ok() && sender.name != "other";
            expect(is_name, "senders", "a name has 1 to 63 of a-z, 0-9, - and _, and is not `other`");
            expect(!sender.networks.is_empty(), "senders", "name the networks of each");
        }
        faults.extend(self.check_doors());
        faults
    }

    /// Every path of the section but those of followed files, which are absolute.
    pub fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = vec![&mut self.files_directory];
        paths.extend(self.otlp.as_mut().and_then(|otlp| otlp.token_file.as_mut()));
        for door in [&mut self.elastic, &mut self.loki] {
            paths.extend(door.as_mut().and_then(|door| door.token_file.as_mut()));
        }
        let syslog = self.syslog.as_mut().and_then(|syslog| syslog.tls.as_mut());
        let hep = self.hep.as_mut().map(|hep| (hep.key_file.as_mut(), hep.tls.as_mut()));
        let (key_file, hep) = hep.unwrap_or_default();
        paths.extend(key_file);
        for tls in [syslog, hep].into_iter().flatten() {
            paths.extend([&mut tls.certificate_file, &mut tls.key_file]);
            paths.extend(&mut tls.client_ca_file);
        }
        paths
    }

    /// The token files, each with the section that names it.
    #[must_use]
    pub fn token_files(&self) -> Vec<(&'static str, &PathBuf)> {
        let otlp = self.otlp.as_ref().and_then(|door| door.token_file.as_ref());
        let elastic = self.elastic.as_ref().and_then(|door| door.token_file.as_ref());
        let loki = self.loki.as_ref().and_then(|door| door.token_file.as_ref());
        let named =
            [("observe.doors.otlp", otlp), ("observe.doors.elastic", elastic), ("observe.doors.loki", loki)];
        named.into_iter().filter_map(|(section, file)| Some((section, file?))).collect()
    }

    fn check_doors(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut expect = |is_good: bool, key: &str, text: &str| {
            if !is_good {
                faults.push((key.to_owned(), text.to_owned()));
            }
        };
        let open = "is not a loopback address: without a token anybody who reaches the port could write; set token_file";
        let is_local = |listen: &SocketAddr| listen.ip().to_canonical().is_loopback();
        for (key, door) in [("elastic.listen", &self.elastic), ("loki.listen", &self.loki)] {
            if let Some(door) = door {
                expect(door.token_file.is_some() || is_local(&door.listen), key, open);
            }
        }
        if let Some(otlp) = &self.otlp {
            for (key, listen) in
                [("otlp.grpc_listen", otlp.grpc_listen), ("otlp.http_listen", otlp.http_listen)]
            {
                expect(otlp.token_file.is_some() || listen.is_none_or(|listen| is_local(&listen)), key, open);
            }
            expect(
                otlp.grpc_listen.is_some() || otlp.http_listen.is_some(),
                "otlp",
                "set grpc_listen, http_listen or both",
            );
        }
        let needs_tls = "tls_listen needs [tls] with certificate_file and key_file";
        if let Some(syslog) = &self.syslog {
            expect(syslog.tls_listen.is_none() || syslog.tls.is_some(), "syslog.tls", needs_tls);
            let zone = syslog.time_zone.as_deref().map(jiff::tz::TimeZone::get);
            expect(zone.is_none_or(|zone| zone.is_ok()), "syslog.time_zone", "use a name as Europe/Zurich");
        }
        if let Some(hep) = &self.hep {
            expect(hep.tls_listen.is_none() || hep.tls.is_some(), "hep.tls", needs_tls);
            expect((1..=10_000_000).contains(&hep.calls_max), "hep.calls_max", "use 1 to 10000000");
        }
        for file in &self.files {
            expect(file.path.is_absolute(), "files", "paths are absolute");
        }
        faults
    }
}
