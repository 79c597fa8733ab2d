use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use belfry_signal::record::{Body, Log};
use belfry_signal::{Record, Registry, TraceKey, Value};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::*;
use crate::PipelineHandle;
use crate::tests::{Notebook, SOON, config as pipeline_config, start};

const TOKEN: &str = "correct-horse-battery";
const LOCAL: &str = "127.0.0.1:0";

/// A pipeline with doors, and a store that one can look into.
struct House {
    pipeline: PipelineHandle,
    registry: Registry,
    store: Notebook,
    doors: OpenDoors,
    _directory: tempfile::TempDir,
}

impl House {
    fn open(config: impl FnOnce(&Path) -> DoorsConfig) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Notebook::default();
        let pipeline = crate::Config { record_bytes_max: 1 << 20, ..pipeline_config(directory.path()) };
        let (pipeline, registry) = start(pipeline, &store, 5000);
        let config = config(directory.path());
        assert_eq!(config.check(1 << 20), vec![]);
        let deps = DoorsDeps {
            pipeline: pipeline.clone(),
            registry: registry.clone(),
            trace_key: TraceKey::new([7; 32]),
            doors: belfry_door::Doors::new(&registry),
        };
        let doors = OpenDoors::open(config, deps).expect("they open");
        Self { pipeline, registry, store, doors, _directory: directory }
    }

    fn address(&self, name: &str) -> SocketAddr {
        self.doors.addresses().iter().find(|(own, _)| *own == name).expect("it is open").1
    }

    /// What came in by doors, once there is so much of it.
    async fn records(&self, count: usize) -> Vec<Arc<Record>> {
        let begun = std::time::Instant::now();
        while begun.elapsed() < SOON {
            let records = self.store.records(Record::is_foreign);
            if records.len() >= count {
                return records;
            }
            tokio::task::yield_now().await;
            self.pipeline.flush().await;
        }
        panic!("{count} records did not come: {:?}", self.store.records(Record::is_foreign));
    }

    async fn messages(&self, count: usize) -> Vec<String> {
        let mut messages: Vec<String> =
            self.records(count).await.iter().map(|record| log(record).message.to_string()).collect();
        messages.sort();
        messages
    }

    /// A metric by the start of its line.
    fn metric(&self, name: &str) -> f64 {
        let text = self.registry.encode_text();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    }

    async fn close(self) {
        assert_eq!(self.doors.drain(SOON).await, Vec::<String>::new());
        let counts = self.pipeline.counts();
        self.pipeline.drain(SOON).await;
        assert_eq!(counts.dropped, 0);
    }
}

fn log(record: &Record) -> &Log {
    match &record.body {
        Body::Log(log) => log,
        other => panic!("a line, not {other:?}"),
    }
}

fn attribute(record: &Record, name: &str) -> String {
    let log = log(record);
    let found =
        log.attributes.iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("{name} in {log:?}"));
    match &found.1 {
        Value::Private(text) => text.reveal().clone(),
        other => other.to_string(),
    }
}

/// One request over HTTP: status and body.
async fn request(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let mut head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(body).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("answered");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    (status, body)
}

fn write_token(directory: &Path) -> PathBuf {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = directory.join("token");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&path).expect("writable");
    std::io::Write::write_all(&mut file, TOKEN.as_bytes()).expect("written");
    path
}

fn otlp(token_file: Option<PathBuf>) -> DoorsConfig {
    let otlp = OtlpConfig {
        grpc_listen: LOCAL.parse().ok(),
        http_listen: LOCAL.parse().ok(),
        token_file,
        host_names: vec![],
        tls: None,
        promote: vec![],
        delta_series_max: 10,
        delta_idle: Duration::from_secs(60),
    };
    DoorsConfig { otlp: Some(otlp), ..DoorsConfig::default() }
}

fn some_logs(count: usize) -> ExportLogsServiceRequest {
    let log_records = vec![LogRecord { severity_number: 17, ..LogRecord::default() }; count];
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
}

#[tokio::test]
async fn otlp_answers_as_the_specification_says() {
    let house = House::open(|_| otlp(None));
    let address = house.address("otlp http");
    let proto = [("content-type", "application/x-protobuf")];
    // A full success leaves partial_success out, and so does an empty request.
    for (count, body) in [(0, vec![]), (2, some_logs(2).encode_to_vec())] {
        assert_eq!(request(address, "/v1/logs", &proto, &body).await, (200, String::new()), "{count}");
    }
    assert_eq!(request(address, "/v1/logs", &proto, b"\xff\xff").await.0, 400);
    assert_eq!(request(address, "/v1/logs", &[("content-type", "text/plain")], b"x").await.0, 415);
    let json = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}}]},
        "scopeLogs":[{"logRecords":[{"body":{"stringValue":"from json"},"severityText":"WARN",
        "traceId":"4bf92f3577b34da6a3ce929d0e0e4736"}]}]}]}"#;
    let json_type = [("content-type", "application/json")];
    assert_eq!(request(address, "/v1/logs", &json_type, json.as_bytes()).await, (200, "{}".to_owned()));
    let span =
        |span_id: Vec<u8>| Span { trace_id: vec![1; 16], span_id, name: "s".to_owned(), ..Span::default() };
    let scope_spans =
        vec![ScopeSpans { spans: vec![span(vec![2; 8]), span(vec![])], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    let spans = ExportTraceServiceRequest { resource_spans };
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", house.address("otlp grpc")));
    let channel = channel.expect("an address").connect().await.expect("it listens");
    let answer = TraceServiceClient::new(channel.clone()).export(spans).await.expect("a partial success");
    assert_eq!(answer.into_inner().partial_success.map(|partial| partial.rejected_spans), Some(1));
    let gzip = LogsServiceClient::new(channel).send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let answer = gzip.accept_compressed(tonic::codec::CompressionEncoding::Gzip).export(some_logs(3)).await;
    assert_eq!(answer.expect("taken").into_inner(), ExportLogsServiceResponse::default());

    let records = house.records(7).await;
    assert_eq!(records.len(), 7);
    let line =
        records.iter().find(|record| matches!(&record.body, Body::Log(log) if log.message == "from json"));
    let line = line.expect("it was stored");
    assert_eq!((line.component.as_ref(), attribute(line, "service.name")), ("door_otlp", "s".to_owned()));
    assert!(log(line).context.is_some());
    assert_eq!(house.metric("doors_refused_total{door=\"otlp_grpc\",reason=\"malformed\"}"), 1.0);
    assert_eq!(house.metric("doors_refused_total{door=\"otlp_http\",reason=\"malformed\"}"), 1.0);
    assert_eq!(house.metric("doors_records_stored_total{door=\"otlp_grpc\",sender=\"other\"}"), 4.0);
    // Samples of what was refused are records of ours.
    house.pipeline.flush().await;
    let samples = house.store.records(|record| record.component == "doors");
    assert!(
        samples
            .iter()
            .any(|record| matches!(&record.body, Body::Log(log) if log.message == "refused at a door"))
    );
    house.close().await;
}

#[tokio::test]
async fn otlp_asks_for_a_token_where_there_is_one() {
    let house = House::open(|directory| otlp(Some(write_token(directory))));
    let (http, grpc) = (house.address("otlp http"), house.address("otlp grpc"));
    let proto = ("content-type", "application/x-protobuf");
    assert_eq!(request(http, "/v1/logs", &[proto], &[]).await.0, 401);
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(request(http, "/v1/logs", &[proto, ("authorization", &bearer)], &[]).await.0, 200);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{grpc}")).expect("an address");
    let mut client = LogsServiceClient::new(channel.connect().await.expect("it listens"));
    let refused = client.export(some_logs(1)).await.expect_err("no token");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let mut with_token = tonic::Request::new(some_logs(1));
    with_token.metadata_mut().insert("authorization", bearer.parse().expect("a value"));
    client.export(with_token).await.expect("taken");
    assert_eq!(house.metric("doors_refused_total{door=\"otlp_grpc\",reason=\"token\"}"), 1.0);
    house.close().await;
}

#[tokio::test]
async fn who_sends_too_much_is_told_to_come_later() {
    let house = House::open(|_| DoorsConfig { sender_records_per_second_max: 1, ..otlp(None) });
    let (http, grpc) = (house.address("otlp http"), house.address("otlp grpc"));
    let proto = [("content-type", "application/x-protobuf")];
    assert_eq!(request(http, "/v1/logs", &proto, &some_logs(5).encode_to_vec()).await.0, 200);
    assert_eq!(request(http, "/v1/logs", &proto, &some_logs(5).encode_to_vec()).await.0, 429);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{grpc}")).expect("an address");
    let mut client = LogsServiceClient::new(channel.connect().await.expect("it listens"));
    let refused = client.export(some_logs(5)).await.expect_err("too much");
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    let details = tonic_types::StatusExt::get_details_retry_info(&refused);
    assert_eq!(details.and_then(|info| info.retry_delay), Some(Duration::from_secs(1)));
    assert_eq!(house.doors.senders(10)[0].stored, 5);
    house.close().await;
}

fn certificates(directory: &Path) -> (TlsConfig, tokio_rustls::TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("made");
    let (certificate_file, key_file) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&certificate_file, made.cert.pem()).expect("writable");
    std::fs::write(&key_file, made.signing_key.serialize_pem()).expect("writable");
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let client = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("good")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsConfig { certificate_file, key_file, client_ca_file: None }, Arc::new(client).into())
}

#[tokio::test]
async fn syslog_comes_in_datagrams_streams_and_tls() {
    let connector = std::cell::OnceCell::new();
    let house = House::open(|directory| {
        let (tls, client) = certificates(directory);
        let _ = connector.set(client);
        let syslog = SyslogConfig {
            udp_listen: LOCAL.parse().ok(),
            tcp_listen: LOCAL.parse().ok(),
            tls_listen: LOCAL.parse().ok(),
            tls: Some(tls),
            time_zone: None,
        };
        DoorsConfig { syslog: Some(syslog), ..DoorsConfig::default() }
    });
    let socket = UdpSocket::bind(LOCAL).await.expect("bound");
    for message in ["<13>1 - h app - - - one", "<14>app[7]: two", " "] {
        socket.send_to(message.as_bytes(), house.address("syslog udp")).await.expect("sent");
    }
    let mut stream = TcpStream::connect(house.address("syslog tcp")).await.expect("it listens");
    let long = "x".repeat(3 << 20);
    stream.write_all(b"25 <13>1 - h app - - - three<13>app: four\n").await.expect("sent");
    stream.write_all(format!("<13>{long}\n<13>app: {}\n", &long[..200_000]).as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("sent");
    let connector = connector.into_inner().expect("made");
    let stream = TcpStream::connect(house.address("syslog tls")).await.expect("it listens");
    let mut stream = connector.connect("localhost".try_into().expect("a name"), stream).await.expect("TLS");
    stream.write_all(b"24 <13>1 - h app - - - five").await.expect("sent");
    stream.flush().await.expect("sent");

    let records = house.records(6).await;
    let mut messages: Vec<_> = records.iter().map(|record| log(record).message.to_string()).collect();
    messages.sort_by_key(String::len);
    assert_eq!(messages[..5].iter().map(String::len).collect::<Vec<_>>(), [3, 3, 4, 4, 5]);
    assert_eq!(messages[5].len(), 64 << 10, "cut");
    let cut = records.iter().find(|record| log(record).message.len() > 1000).expect("it was stored");
    assert_eq!(attribute(cut, "message.bytes"), "200000");
    assert_eq!(attribute(cut, "host.name"), "127.0.0.1");
    assert_eq!(house.metric("doors_refused_total{door=\"syslog\",reason=\"too_long\"}"), 1.0);
    assert_eq!(house.metric("doors_refused_total{door=\"syslog\",reason=\"malformed\"}"), 1.0);
    assert_eq!(house.metric("doors_changed_total{change=\"cut\",door=\"syslog\"}"), 1.0);
    // What is not TLS is refused, and told.
    let mut stream = TcpStream::connect(house.address("syslog tls")).await.expect("it listens");
    stream.write_all(b"<13>plain\n").await.expect("sent");
    let _ended = stream.read_to_end(&mut Vec::new()).await;
    house.close().await;
}

#[tokio::test]
async fn shippers_find_an_elasticsearch_that_takes_bulk() {
    let listen = |_: &Path| {
        let door = HttpConfig {
            listen: LOCAL.parse().expect("literal"),
            token_file: None,
            host_names: vec![],
            tls: None,
        };
        DoorsConfig { elastic: Some(door.clone()), loki: Some(door), ..DoorsConfig::default() }
    };
    let house = House::open(listen);
    let address = house.address("elastic");
    let json = [("content-type", "application/x-ndjson")];
    let body =
        b"{\"create\":{\"_index\":\"l\"}}\n{\"message\":\"one\",\"log.level\":\"error\"}\n{\"delete\":{}}\n";
    let (status, answer) = request(address, "/_bulk", &json, body).await;
    assert_eq!(status, 200);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!((&answer["errors"], &answer["items"][0]["create"]["status"]), (&true.into(), &201.into()));
    assert_eq!(answer["items"][1]["delete"]["status"], 400);
    assert_eq!(request(address, "/logs-x/_bulk", &json, b"nonsense\n").await.0, 400);
    assert_eq!(request(address, "/logs-x/_doc", &json, b"{\"msg\":\"two\"}").await.0, 201);
    let loki = house.address("loki");
    let line = r#"{"streams":[{"stream":{"job":"j"},"values":[["1","three"]]}]}"#;
    let json = [("content-type", "application/json")];
    assert_eq!(request(loki, "/loki/api/v1/push", &json, line.as_bytes()).await.0, 204);
    assert_eq!(request(loki, "/loki/api/v1/push", &json, b"{}").await.0, 400);
    assert_eq!(house.messages(3).await, ["one", "three", "two"]);
    house.close().await;
}

#[tokio::test]
async fn captured_messages_become_a_call() {
    let hep = |_: &Path| {
        let hep = HepConfig {
            udp_listen: LOCAL.parse().ok(),
            tcp_listen: LOCAL.parse().ok(),
            tls_listen: None,
            tls: None,
            key_file: None,
            calls_max: 100,
            call_idle: Duration::from_secs(60),
        };
        DoorsConfig { hep: Some(hep), ..DoorsConfig::default() }
    };
    let house = House::open(hep);
    let now = u32::try_from(belfry_signal::now_unix_nanos() / 1_000_000_000).expect("before 2106");
    let sip = |start: &str, cseq: &str, to_tag: &str| {
        format!(
            "{start}\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK{cseq}\r\nFrom: <sip:a@x>;tag=1\r\n\
             To: <sip:b@x>{to_tag}\r\nCall-ID: captured@x\r\nCSeq: {cseq}\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let invite = sip("INVITE sip:b@x SIP/2.0", "1 INVITE", "");
    let ok = sip("SIP/2.0 200 OK", "1 INVITE", ";tag=2");
    let bye = sip("BYE sip:b@x SIP/2.0", "2 BYE", ";tag=2");
    let packets = [
        hep::tests::capture([5060, 5080], now - 20, invite.as_bytes()),
        hep::tests::capture([5060, 5080], now - 19, invite.as_bytes()),
        hep::tests::capture([5080, 5060], now - 15, ok.as_bytes()),
        hep::tests::capture([5060, 5080], now, bye.as_bytes()),
    ];
    let mut stream = TcpStream::connect(house.address("hep tcp")).await.expect("it listens");
    stream.write_all(&packets.concat()).await.expect("sent");
    let records = house.records(5).await;
    let messages: Vec<_> = records
        .iter()
        .filter_map(|record| match &record.body {
            Body::Sip(message) => {
                Some((message.summary.to_string(), message.retransmission, message.node.to_string()))
            }
            _ => None,
        })
        .collect();
    let node = "hep-2001/10.0.0.1:5060".to_owned();
    assert_eq!(messages[0], ("INVITE".to_owned(), false, node.clone()));
    assert_eq!(messages[1], ("INVITE".to_owned(), true, node));
    let call = records.iter().find_map(|record| match &record.body {
        Body::Call(call) => Some(call.clone()),
        _ => None,
    });
    let call = call.expect("it ended");
    assert_eq!((call.outcome.as_ref(), call.cause.as_ref()), ("answered", "caller_hung_up"));
    assert_eq!(call.trace_id, TraceKey::new([7; 32]).trace_of_call("captured@x"));
    assert_eq!((call.caller.reveal().as_str(), call.callee.reveal().as_str()), ("sip:a@x", "sip:b@x"));
    let socket = UdpSocket::bind(LOCAL).await.expect("bound");
    for wrong in [&b"HEP3\0"[..], b"SIP/2.0 200 OK\r\n\r\n", &hep::tests::capture([1, 2], now, b"nonsense")] {
        socket.send_to(wrong, house.address("hep udp")).await.expect("sent");
    }
    while house.metric("doors_refused_total{door=\"hep\",reason=\"malformed\"}") < 3.0 {
        tokio::task::yield_now().await;
    }
    house.close().await;
}

#[tokio::test]
async fn files_are_followed_through_rotation_and_a_restart() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("app.log");
    std::fs::write(&path, "old\n").expect("writable");
    let config = |_: &Path| DoorsConfig {
        files: vec![FileConfig {
            path: folder.path().join("*.log"),
            service: "app".to_owned(),
            format: FileFormat::Text,
            from_start: true,
        }],
        files_directory: folder.path().join("offsets"),
        ..DoorsConfig::default()
    };
    let append = |text: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&path).expect("a file");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("writable");
    };
    let house = House::open(config);
    assert_eq!(house.messages(1).await, ["old"]);
    append("one\ntw");
    assert_eq!(house.messages(2).await, ["old", "one"]);
    append("o\n");
    std::fs::rename(&path, folder.path().join("app.log.1")).expect("renamed");
    append("three\n");
    assert_eq!(house.messages(4).await, ["old", "one", "three", "two"]);
    house.close().await;
    append("four\n");
    let house = House::open(config);
    assert_eq!(house.messages(1).await, ["four"], "only what is new");
    std::fs::write(&path, "5\n").expect("cut and written anew");
    assert_eq!(house.messages(2).await, ["5", "four"]);
    house.close().await;
}

#[tokio::test]
async fn files_are_old_only_at_the_very_first_start() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("app.log"), "before we came\n").expect("writable");
    let config = |_: &Path| DoorsConfig {
        files: vec![FileConfig {
            path: path("*.log"),
            service: "app".to_owned(),
            format: FileFormat::Text,
            from_start: false,
        }],
        files_directory: path("offsets"),
        ..DoorsConfig::default()
    };
    let append = |name: &str, text: &str| {
        let mut file =
            std::fs::OpenOptions::new().append(true).create(true).open(path(name)).expect("a file");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("writable");
    };
    let house = House::open(config);
    while !path("offsets/offsets").exists() {
        tokio::task::yield_now().await;
    }
    house.close().await;
    // Nothing was read before we went down. Meanwhile lines come, the file is rotated, and another one is new.
    append("app.log", "one\n");
    std::fs::rename(path("app.log"), path("app.log.1")).expect("renamed");
    append("app.log", "two\n");
    append("other.log", "three\n");
    let house = House::open(config);
    assert_eq!(house.messages(3).await, ["one", "three", "two"]);
    house.close().await;
    let house = House::open(config);
    append("other.log", "four\n");
    assert_eq!(house.messages(1).await, ["four"], "nothing comes twice");
    house.close().await;
}

#[tokio::test]
async fn strangers_make_us_decode_nothing_over_grpc() {
    let house = House::open(|directory| otlp(Some(write_token(directory))));
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", house.address("otlp grpc")));
    let channel = channel.expect("an address").connect().await.expect("it listens");
    let mut client = LogsServiceClient::new(channel);
    // Longer than is taken: whoever decodes it says so.
    let mut long = some_logs(1);
    long.resource_logs[0].schema_url = "x".repeat(5 << 20);
    let refused = client.export(long.clone()).await.expect_err("no token");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    assert_eq!(house.metric("doors_received_bytes_total"), 0.0, "and nothing was taken in");
    let mut with_token = tonic::Request::new(long);
    let bearer = format!("Bearer {TOKEN}").parse().expect("a value");
    with_token.metadata_mut().insert("authorization", bearer);
    let refused = client.export(with_token).await.expect_err("too long");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "sent again it would be as long");
    assert_eq!(house.metric("doors_refused_total{door=\"otlp_grpc\",reason=\"too_long\"}"), 1.0);
    house.close().await;
}

#[tokio::test]
async fn doors_of_http_and_grpc_speak_tls_where_they_are_told_to() {
    let connector = std::cell::OnceCell::new();
    let house = House::open(|directory| {
        let (tls, client) = certificates(directory);
        let _ = connector.set(client);
        let mut config = otlp(None);
        if let Some(otlp) = &mut config.otlp {
            otlp.tls = Some(tls);
        }
        config
    });
    let connector = connector.into_inner().expect("made");
    let connect = |address| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await.expect("it listens");
            connector.connect("localhost".try_into().expect("a name"), stream).await.expect("TLS")
        }
    };
    let mut stream = connect(house.address("otlp http")).await;
    let body = some_logs(1).encode_to_vec();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(house.records(1).await.len(), 1);
    // HTTP/2 with the preface and an empty SETTINGS frame (RFC 9113 section 3.4) is answered in kind.
    let mut stream = connect(house.address("otlp grpc")).await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.expect("answered");
    assert_eq!(frame[3], 4, "SETTINGS");
    drop(stream);
    // Whoever speaks without TLS is counted, and gets nothing.
    let mut plain = TcpStream::connect(house.address("otlp http")).await.expect("it listens");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    let mut nothing = Vec::new();
    let _ = plain.read_to_end(&mut nothing).await;
    assert!(!nothing.starts_with(b"HTTP"), "{nothing:?}");
    assert_eq!(house.metric("door_connections_cut_total{door=\"otlp\",reason=\"handshake\"}"), 1.0);
    house.close().await;
}

#[tokio::test]
async fn what_waits_and_is_stored_was_not_refused() {
    let syslog = SyslogConfig { tcp_listen: LOCAL.parse().ok(), ..SyslogConfig::default() };
    let house = House::open(|_| DoorsConfig {
        sender_records_per_second_max: 2,
        syslog: Some(syslog),
        ..DoorsConfig::default()
    });
    let mut stream = TcpStream::connect(house.address("syslog tcp")).await.expect("it listens");
    stream.write_all(b"<13>app: one\n<13>app: two\n").await.expect("sent");
    assert_eq!(house.messages(2).await, ["one", "two"]);
    stream.write_all(b"<13>app: three\n").await.expect("sent");
    assert_eq!(house.messages(3).await, ["one", "three", "two"]);
    assert_eq!(house.metric("doors_refused_total{door=\"syslog\",reason=\"rate\"}"), 0.0);
    drop(stream);
    house.close().await;
}

#[tokio::test]
async fn addresses_have_one_form_on_sockets_of_both_families() {
    let syslog = SyslogConfig { udp_listen: "[::]:0".parse().ok(), ..SyslogConfig::default() };
    let senders = vec![SenderConfig {
        name: "local".to_owned(),
        networks: vec!["127.0.0.0/8".parse().expect("a network")],
        records_per_second_max: None,
    }];
    let house = House::open(|_| DoorsConfig { syslog: Some(syslog), senders, ..DoorsConfig::default() });
    let socket = UdpSocket::bind(LOCAL).await.expect("bound");
    let port = house.address("syslog udp").port();
    socket.send_to(b"<14>app: one", ("127.0.0.1", port)).await.expect("sent");
    assert_eq!(attribute(&house.records(1).await[0], "host.name"), "127.0.0.1");
    // It is counted a moment after it can be found.
    let begun = std::time::Instant::now();
    while house.metric("doors_records_stored_total{door=\"syslog\",sender=\"local\"}") < 1.0 {
        assert!(begun.elapsed() < SOON, "the sender's name counts");
        tokio::task::yield_now().await;
    }
    assert_eq!(house.doors.senders(1)[0].address.reveal().to_string(), "127.0.0.1");
    house.close().await;
}

/// What each door reads well: changed a little, it reaches further into the decoders than noise does.
fn seeds() -> Vec<Vec<u8>> {
    let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","unit":"s","sum":{"isMonotonic":true,
        "aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"5","asInt":"7"}]}}]}]}]}"#;
    vec![
        b"<34>1 2026-11-20T13:59:00.003Z h su 7 ID47 [a@1 b=\"c\\\"\"] text".to_vec(),
        b"<34>Nov 20 13:59:59 h su[77]: text\n31 <34>Nov 20 13:59:59 h su[77]: text".to_vec(),
        b"{\"create\":{\"_index\":\"l\"}}\n{\"message\":\"one\",\"@timestamp\":1795183200}\n{\"delete\":{}}\n".to_vec(),
        br#"{"streams":[{"stream":{"job":"j"},"values":[["1795183200000000000","line",{"a":"b"}]]}]}"#.to_vec(),
        hep::tests::capture([5060, 5080], 1_795_183_200, b"INVITE sip:b@x SIP/2.0\r\nCall-ID: c\r\n\r\n"),
        some_logs(2).encode_to_vec(),
        json.as_bytes().to_vec(),
    ]
}

proptest::proptest! {
    #[test]
    fn nothing_that_comes_to_a_door_breaks_it(
        seed in 0..7_usize,
        changes in proptest::collection::vec((proptest::prelude::any::<usize>(), proptest::prelude::any::<u8>()), 0..6),
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
    ) {
        let mut changed = seeds().swap_remove(seed);
        for (at, byte) in changes {
            let at = at % changed.len();
            changed[at] = byte;
        }
        for bytes in [&changed, &noise] {
            fuzz::syslog(bytes);
            fuzz::hep(bytes);
            fuzz::otlp(bytes);
            fuzz::elastic(bytes);
            fuzz::loki(bytes);
        }
    }
}
