//! The mesh as rooms meet it: in process, between nodes over loopback TLS, and with peers that misbehave.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use belfry_signal::{Pii, Registry};
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::config::{Config, IdentityConfig, PeerConfig};
use crate::identity::Identity;
use crate::wire::{self, Hello, PROTOCOL, Welcome};
use crate::{Error, Link, LinkError, Links, Mesh, Service};

const SOON: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Up(u64, Pii<String>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Down {
    Text(String),
    Bytes(Vec<u8>),
}

fn identity(directory: &Path) -> IdentityConfig {
    IdentityConfig {
        directory: Some(directory.to_owned()),
        lifetime: Duration::from_hours(24),
        certificate: None,
        key: None,
        authority: None,
    }
}

fn peer(name: &str, address: Option<SocketAddr>) -> PeerConfig {
    let services = if address.is_some() { vec![Service::Signalling] } else { Vec::new() };
    PeerConfig { name: name.to_owned(), address: address.map(|address| address.to_string()), services }
}

/// A node that listens on a free port and knows `peer_names`.
fn core_config(directory: &Path, peer_names: &[&str]) -> Config {
    Config {
        node: "core-1".to_owned(),
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        identity: Some(identity(directory)),
        peers: peer_names.iter().map(|name| peer(name, None)).collect(),
        handshake_timeout: Duration::from_secs(2),
        heartbeat_interval: Duration::from_millis(50),
        dead_after: Duration::from_secs(2),
        reconnect_min: Duration::from_millis(20),
        reconnect_max: Duration::from_millis(100),
        frame_bytes_max: 4096,
        ..Config::in_process("core-1")
    }
}

/// A node that dials signalling on `core`.
fn edge_config(directory: &Path, core: SocketAddr) -> Config {
    Config {
        node: "edge-1".to_owned(),
        listen: None,
        peers: vec![peer("core-1", Some(core))],
        ..core_config(directory, &[])
    }
}

async fn start(config: Config) -> (Mesh, Registry) {
    let registry = Registry::for_test();
    let mesh = Mesh::start(config, &registry).await.expect("the mesh starts");
    (mesh, registry)
}

async fn next<S, R>(links: &mut Links<S, R>) -> Link<S, R> {
    timeout(SOON, links.next()).await.expect("a link comes soon").expect("the mesh is not draining")
}

/// Waits until a condition holds that another task brings about.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, holds).await.unwrap_or_else(|_| panic!("{what} did not happen"));
}

fn failures(registry: &Registry, reason: &str) -> f64 {
    let reason = ("reason".to_owned(), reason.to_owned());
    let is_it = |sample: &belfry_signal::Sample| {
        sample.name == "mesh_handshake_failures_total" && sample.labels.contains(&reason)
    };
    registry.samples().into_iter().find(is_it).map_or(0.0, |sample| sample.value)
}

#[tokio::test(start_paused = true)]
async fn rooms_of_one_process_meet_whoever_comes_first() {
    for serve_first in [true, false] {
        let mesh = Mesh::for_test(&Registry::for_test());
        let serve = || mesh.serve::<Down, Up>(Service::Signalling);
        let dial = || mesh.dial::<Up, Down>(Service::Signalling);
        let (mut served, mut dialled) = if serve_first {
            let served = serve();
            (served, dial())
        } else {
            let dialled = dial();
            tokio::task::yield_now().await;
            (serve(), dialled)
        };
        let (to_core, mut from_core) = next(&mut dialled).await.split();
        let (to_edge, mut from_edge) = next(&mut served).await.split();
        let message = Up(7, Pii::new("a@b".to_owned()));
        to_core.try_send(message.clone()).expect("the link is up");
        assert_eq!(from_edge.recv().await, Some(message));
        to_edge.send(Down::Text("hello".into())).await.expect("the link is up");
        assert_eq!(from_core.recv().await, Some(Down::Text("hello".into())));
        assert_eq!(to_core.peer(), "node-1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_that_goes_takes_its_links_down_and_a_new_one_gets_new_links() {
    let registry = Registry::for_test();
    let mesh = Mesh::for_test(&registry);
    let mut dialled = mesh.dial::<Up, Down>(Service::Signalling);
    let mut served = mesh.serve::<Down, Up>(Service::Signalling);
    let (to_core, mut from_core) = next(&mut dialled).await.split();
    let link = next(&mut served).await;
    assert!(mesh.peers()[0].up);
    to_core.try_send(Up(1, Pii::new(String::new()))).expect("up");
    drop((link, served));
    assert_eq!(from_core.recv().await, None);
    assert_eq!(to_core.try_send(Up(2, Pii::new(String::new()))), Err(LinkError::Down));
    assert!(!to_core.is_up());
    let text = registry.encode_text();
    assert!(
        text.contains("mesh_dropped_total{reason=\"link_down\"} 2"),
        "one waited, one was refused: {text}"
    );

    let mut served = mesh.serve::<Down, Up>(Service::Signalling);
    let (to_core, _from_core) = next(&mut dialled).await.split();
    let (_to_edge, mut from_edge) = next(&mut served).await.split();
    to_core.try_send(Up(3, Pii::new(String::new()))).expect("up again");
    assert_eq!(from_edge.recv().await, Some(Up(3, Pii::new(String::new()))));
}

#[tokio::test(start_paused = true)]
async fn a_full_link_says_so_at_once() {
    let registry = Registry::for_test();
    let mesh = Mesh::for_test(&registry);
    let mut served = mesh.serve::<Down, Up>(Service::Media);
    let mut dialled = mesh.dial::<Up, Down>(Service::Media);
    let link = next(&mut dialled).await;
    let _unread = next(&mut served).await;
    let (sender, _receiver) = link.split();
    let taken = (0..5000).take_while(|n| sender.try_send(Up(*n, Pii::new(String::new()))).is_ok()).count();
    assert_eq!(taken, 1024);
    assert_eq!(sender.try_send(Up(0, Pii::new(String::new()))), Err(LinkError::Full));
    assert!(registry.encode_text().contains("mesh_dropped_total{reason=\"link_full\"} 2"));
}

#[tokio::test]
async fn two_nodes_talk_over_mutual_tls() {
    let directory = tempfile::tempdir().expect("a directory");
    let (core, core_registry) = start(core_config(directory.path(), &["edge-1"])).await;
    let mut served = core.serve::<Down, Up>(Service::Signalling);
    let (edge, edge_registry) =
        start(edge_config(directory.path(), core.local_address().expect("it listens"))).await;
    let mut dialled = edge.dial::<Up, Down>(Service::Signalling);

    let link = next(&mut dialled).await;
    assert_eq!(link.peer(), "core-1");
    let (to_core, mut from_core) = link.split();
    let link = next(&mut served).await;
    assert_eq!(link.peer(), "edge-1");
    let (to_edge, mut from_edge) = link.split();
    for n in 0..500 {
        to_core.send(Up(n, Pii::new(format!("call {n}")))).await.expect("up");
    }
    for n in 0..500 {
        let message = timeout(SOON, from_edge.recv()).await.expect("soon");
        assert_eq!(message, Some(Up(n, Pii::new(format!("call {n}")))));
    }
    to_edge.try_send(Down::Bytes(vec![0; 3000])).expect("up");
    let message = timeout(SOON, from_core.recv()).await.expect("soon");
    assert_eq!(message, Some(Down::Bytes(vec![0; 3000])));

    until("a round trip", || edge.peers().iter().any(|peer| peer.rtt_seconds.is_some())).await;
    let health = edge.peers().into_iter().find(|peer| peer.name == "core-1").expect("known");
    assert!(health.up && health.service == Service::Signalling);
    let text = core_registry.encode_text();
    let received = "mesh_messages_total{direction=\"received\",peer=\"edge-1\",service=\"signalling\"} 500";
    assert!(text.contains(received), "{text}");
    assert!(edge_registry.encode_text().contains("mesh_links{peer=\"core-1\",service=\"signalling\"} 1"));

    // What was given before the drain arrives before the end.
    to_core.try_send(Up(999, Pii::new(String::new()))).expect("up");
    assert_eq!(edge.drain(SOON).await, Vec::<String>::new());
    assert_eq!(timeout(SOON, from_edge.recv()).await.expect("soon").map(|up| up.0), Some(999));
    assert_eq!(timeout(SOON, from_edge.recv()).await.expect("soon"), None);
    assert_eq!(core.drain(SOON).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_peer_that_restarts_is_met_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (core, _registry) = start(core_config(directory.path(), &["edge-1"])).await;
    let address = core.local_address().expect("it listens");
    let mut served = core.serve::<Down, Up>(Service::Signalling);
    let (edge, edge_registry) = start(edge_config(directory.path(), address)).await;
    let mut dialled = edge.dial::<Up, Down>(Service::Signalling);
    let (to_core, mut from_core) = next(&mut dialled).await.split();
    drop(next(&mut served).await);
    core.drain(SOON).await;
    drop(core);
    assert_eq!(timeout(SOON, from_core.recv()).await.expect("soon"), None);
    assert_eq!(to_core.try_send(Up(0, Pii::new(String::new()))), Err(LinkError::Down));
    until("a refused connection", || failures(&edge_registry, "connect_failed") > 0.0).await;

    let mut config = core_config(directory.path(), &["edge-1"]);
    config.listen = Some(address);
    let (core, _registry) = start(config).await;
    let mut served = core.serve::<Down, Up>(Service::Signalling);
    // The link that core dropped may have come back once before the drain; the last one is the one that works.
    let (to_edge, _from_edge) = next(&mut served).await.split();
    to_edge.try_send(Down::Text("back".into())).expect("up");
    let heard = async {
        loop {
            let (_to_core, mut from_core) = next(&mut dialled).await.split();
            if let Some(message) = from_core.recv().await {
                return message;
            }
        }
    };
    assert_eq!(timeout(SOON, heard).await.expect("soon"), Down::Text("back".into()));
}

#[tokio::test]
async fn a_link_on_which_nothing_is_answered_is_dead() {
    let directory = tempfile::tempdir().expect("a directory");
    let (core, _registry) = start(core_config(directory.path(), &["edge-1"])).await;
    let mut served = core.serve::<Down, Up>(Service::Signalling);
    // A wire that stops carrying without telling either end, as a pulled cable does.
    let wire = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let wire_address = wire.local_addr().expect("bound");
    let core_address = core.local_address().expect("it listens");
    let (cut, is_cut) = tokio::sync::oneshot::channel::<()>();
    let carrying = tokio::spawn(async move {
        let (mut near, _) = wire.accept().await.expect("the edge connects");
        let mut far = TcpStream::connect(core_address).await.expect("it listens");
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = is_cut => {}
        }
        (near, far)
    });
    let mut config = edge_config(directory.path(), wire_address);
    config.dead_after = Duration::from_millis(200);
    let (edge, registry) = start(config).await;
    let mut dialled = edge.dial::<Up, Down>(Service::Signalling);
    let (to_core, mut from_core) = next(&mut dialled).await.split();
    let _served_link = next(&mut served).await;
    cut.send(()).expect("the wire carries");
    let _open_sockets = carrying.await.expect("the wire is cut");
    assert_eq!(timeout(SOON, from_core.recv()).await.expect("soon"), None);
    assert_eq!(to_core.try_send(Up(0, Pii::new(String::new()))), Err(LinkError::Down));
    until("a count", || registry.encode_text().contains("mesh_links_closed_total{reason=\"timed_out\"} 1"))
        .await;
    assert!(edge.peers().iter().all(|peer| !peer.up));
}

#[tokio::test]
async fn strangers_are_refused_and_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let other_directory = tempfile::tempdir().expect("a directory");
    let (core, core_registry) = start(core_config(directory.path(), &["edge-1"])).await;
    let address = core.local_address().expect("it listens");
    let _served = core.serve::<Down, Up>(Service::Signalling);

    // Another authority.
    let (edge, edge_registry) = start(edge_config(other_directory.path(), address)).await;
    let _dialled = edge.dial::<Up, Down>(Service::Signalling);
    until("a refusal by the edge", || failures(&edge_registry, "tls") > 0.0).await;
    until("a refusal by the core", || failures(&core_registry, "tls") > 0.0).await;
    assert!(!edge.peers()[0].up);
    edge.drain(SOON).await;

    // Our authority, but a name that nobody configured.
    let mut config = edge_config(directory.path(), address);
    config.node = "edge-9".to_owned();
    let (edge, _registry) = start(config).await;
    let _dialled = edge.dial::<Up, Down>(Service::Signalling);
    until("a refusal of the name", || failures(&core_registry, "unknown_peer") > 0.0).await;
    edge.drain(SOON).await;

    // The right authority, but somebody else answers at the address.
    let mut config = edge_config(directory.path(), address);
    config.peers[0].name = "core-2".to_owned();
    let (edge, edge_registry) = start(config).await;
    let _dialled = edge.dial::<Up, Down>(Service::Signalling);
    until("a refusal of the answerer", || failures(&edge_registry, "wrong_peer") > 0.0).await;
    edge.drain(SOON).await;

    // A service that nobody serves.
    let mut config = edge_config(directory.path(), address);
    config.peers[0].services = vec![Service::Media];
    let (edge, edge_registry) = start(config).await;
    let _dialled = edge.dial::<Up, Down>(Service::Media);
    until("a refusal of the service", || failures(&edge_registry, "not_served") > 0.0).await;
    assert!(core.peers().iter().all(|peer| !peer.up));
}

#[tokio::test]
async fn nodes_of_different_protocols_refuse_each_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = |name: &str| Identity::load(&identity(directory.path()), "belfry.local", name).expect("loads");
    let (core, core_registry) = start(core_config(directory.path(), &["edge-1"])).await;
    let _served = core.serve::<Down, Up>(Service::Signalling);
    // An edge of before, which would not understand what this core says.
    let stream = TcpStream::connect(core.local_address().expect("it listens")).await.expect("connects");
    let name = ServerName::try_from("core-1").expect("a name");
    let connector = TlsConnector::from(node("edge-1").client);
    let stream = connector.connect(name, stream).await.expect("the handshake");
    let mut transport = wire::transport(TlsStream::Client(stream), 4096);
    let hello = Hello {
        protocol: PROTOCOL - 1,
        node: "edge-1".to_owned(),
        version: "0".to_owned(),
        service: Service::Signalling.as_str().to_owned(),
        instance: 1,
    };
    wire::greet(&mut transport, &hello).await.expect("sent");
    let welcome = timeout(SOON, wire::greeted::<Welcome>(&mut transport)).await.expect("soon");
    assert!(matches!(welcome, Ok(Welcome::WrongProtocol { protocol: PROTOCOL })), "{welcome:?}");
    until("a count", || failures(&core_registry, "wrong_protocol") > 0.0).await;
    assert!(core.peers().iter().all(|peer| !peer.up));

    // A core of before, which does not understand this edge.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let (edge, edge_registry) = start(edge_config(directory.path(), address)).await;
    let _dialled = edge.dial::<Up, Down>(Service::Signalling);
    let (stream, _) = timeout(SOON, listener.accept()).await.expect("soon").expect("it dials");
    let stream = TlsAcceptor::from(node("core-1").server).accept(stream).await.expect("the handshake");
    let mut transport = wire::transport(TlsStream::Server(stream), 4096);
    let hello = wire::greeted::<Hello>(&mut transport).await.expect("it greets");
    assert_eq!(hello.protocol, PROTOCOL);
    let refusal = Welcome::WrongProtocol { protocol: PROTOCOL - 1 };
    wire::greet(&mut transport, &refusal).await.expect("sent");
    until("a count", || failures(&edge_registry, "wrong_protocol") > 0.0).await;
    assert!(edge.peers().iter().all(|peer| !peer.up));
}

#[tokio::test]
async fn garbage_on_the_port_is_counted_and_closed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (core, registry) = start(core_config(directory.path(), &["edge-1"])).await;
    let address = core.local_address().expect("it listens");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(b"INVITE sip:a@b SIP/2.0\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    // A reset is as good an end as an end of file.
    let _ended = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("it is closed");
    until("a count", || failures(&registry, "tls") > 0.0).await;

    // One who says nothing is let go after the handshake's time.
    let mut silent = TcpStream::connect(address).await.expect("it listens");
    let _ended = timeout(SOON, silent.read_to_end(&mut answer)).await.expect("it is closed");
    until("a count", || failures(&registry, "timed_out") > 0.0).await;
}

#[tokio::test]
async fn a_message_larger_than_a_frame_is_dropped_where_it_is_sent_and_refused_where_it_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (core, core_registry) = start(core_config(directory.path(), &["edge-1"])).await;
    let mut served = core.serve::<Down, Up>(Service::Signalling);
    let mut config = edge_config(directory.path(), core.local_address().expect("it listens"));
    let (edge, edge_registry) = start(config.clone()).await;
    let mut dialled = edge.dial::<Up, Down>(Service::Signalling);
    let (to_core, _from_core) = next(&mut dialled).await.split();
    let (_to_edge, mut from_edge) = next(&mut served).await.split();
    to_core.try_send(Up(1, Pii::new("x".repeat(10_000)))).expect("up");
    to_core.try_send(Up(2, Pii::new(String::new()))).expect("up");
    assert_eq!(timeout(SOON, from_edge.recv()).await.expect("soon").map(|up| up.0), Some(2));
    assert!(edge_registry.encode_text().contains("mesh_dropped_total{reason=\"oversize\"} 1"));
    edge.drain(SOON).await;

    // A peer with a larger limit than ours.
    config.frame_bytes_max = 1 << 20;
    let (edge, _registry) = start(config).await;
    let mut dialled = edge.dial::<Up, Down>(Service::Signalling);
    let (to_core, mut from_core) = next(&mut dialled).await.split();
    to_core.try_send(Up(3, Pii::new("x".repeat(10_000)))).expect("up");
    assert_eq!(timeout(SOON, from_core.recv()).await.expect("soon"), None);
    until("a count", || {
        core_registry.encode_text().contains("mesh_links_closed_total{reason=\"oversize\"} 1")
    })
    .await;
}

#[tokio::test]
async fn an_authority_is_made_once_and_its_key_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let (_one, _registry) = start(core_config(directory.path(), &[])).await;
    let authority = std::fs::read(directory.path().join("authority.pem")).expect("made");
    let (_two, _registry) = start(core_config(directory.path(), &[])).await;
    assert_eq!(std::fs::read(directory.path().join("authority.pem")).expect("kept"), authority);
    let mode = std::fs::metadata(directory.path().join("authority.key")).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(directory.path().join("authority.key"), "garbage").expect("written");
    let refused = Mesh::start(core_config(directory.path(), &[]), &Registry::for_test()).await;
    assert_eq!(refused.err().map(|error| error.reason()), Some("identity_content"));
}

#[test]
fn a_wrong_configuration_is_told_with_its_key() {
    let check = |change: &dyn Fn(&mut Config), key: &str| {
        let mut config = core_config(Path::new("/nowhere"), &["edge-1"]);
        change(&mut config);
        let keys: Vec<_> = config.check().into_iter().map(|(key, _)| key).collect();
        assert!(keys.iter().any(|found| found == key), "{key} is not among {keys:?}");
    };
    assert_eq!(core_config(Path::new("/nowhere"), &["edge-1"]).check(), vec![]);
    check(&|config| config.node = "Core 1".into(), "node");
    check(&|config| config.trust_domain = String::new(), "trust_domain");
    check(&|config| config.identity = None, "identity");
    check(&|config| config.dead_after = Duration::ZERO, "dead_after");
    check(&|config| config.peers[0].name = "core-1".into(), "peers[0].name");
    check(&|config| config.peers[0].services = vec![Service::Media], "peers[0].address");
    check(&|config| config.peers[0].address = Some("nowhere".into()), "peers[0].address");
    check(&|config| config.frame_bytes_max = 1, "frame_bytes_max");
    check(&|config| config.queue_messages_max = 0, "queue_messages_max");
    check(&|config| config.reconnect_max = Duration::ZERO, "reconnect_max");
}

#[test]
fn the_section_reads_from_toml_and_unknown_keys_are_errors() {
    let text = r#"
        node = "edge-1"
        trust_domain = "belfry.local"
        handshake_timeout = "5s"
        heartbeat_interval = "1s"
        dead_after = "5s"
        reconnect_min = "200ms"
        reconnect_max = "10s"
        frame_bytes_max = 1048576
        queue_messages_max = 4096
        connections_max = 256
        [identity]
        directory = "data/mesh"
        lifetime = "24h"
        [[peers]]
        name = "core-1"
        address = "127.0.0.1:9440"
        services = ["signalling", "media"]
    "#;
    let config: Config = toml::from_str(text).expect("the section reads");
    assert_eq!(config.check(), vec![]);
    assert_eq!(config.peers[0].services, vec![Service::Signalling, Service::Media]);
    let wrong = text.replace("\"media\"]", "\"moon\"]");
    let error = toml::from_str::<Config>(&wrong).expect_err("no such service").to_string();
    assert!(error.contains("use one of signalling, media"), "{error}");
    assert!(toml::from_str::<Config>(&format!("speed = 3\n{text}")).is_err());
}

#[tokio::test]
async fn a_wrong_configuration_stops_the_start() {
    let mut config = core_config(Path::new("/nowhere"), &[]);
    config.connections_max = 0;
    let refused = Mesh::start(config, &Registry::for_test()).await;
    assert!(matches!(refused, Err(Error::Config { key, .. }) if key == "connections_max"));
}
