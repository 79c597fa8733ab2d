//! SIP through the edge: every transport inwards and outwards, flows, tokens, and what happens without a core.

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod kit;

use belfry_signal::Journey;
use belfry_signalling::handle::{FlowToken, FromEdge, SendFailure, Target, ToEdge, Transport};
use futures_util::{SinkExt as _, StreamExt as _};
use kit::{PATIENCE, TestCore, TestEdge, backend, read_until, request, write};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

fn identity(config: String) -> String {
    config
}

const OK: &[u8] = b"SIP/2.0 200 OK\r\nCall-ID: x\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn the_core_learns_where_customers_reach_us() {
    let edge = TestEdge::start(backend().await, identity);
    let core = edge.core().await;
    let of = |transport| {
        let found = core.addresses.iter().find(|address| address.transport == transport).expect("announced");
        (found.host.clone(), found.port)
    };
    assert_eq!(core.addresses.len(), 5);
    assert_eq!(of(Transport::Tls), ("sip.example.org".to_owned(), 5061));
    assert_eq!(of(Transport::Udp), ("127.0.0.1".to_owned(), edge.address("sip-udp").port()));
    assert_eq!(of(Transport::Wss), ("127.0.0.1".to_owned(), edge.address("web").port()));
}

#[tokio::test]
async fn udp_goes_both_ways_and_needs_no_table() {
    let edge = TestEdge::start(backend().await, identity);
    let mut core = edge.core().await;
    let phone = UdpSocket::bind("127.0.0.9:0").await.expect("binds");
    phone.connect(edge.address("sip-udp")).await.expect("connects");
    let message = request("REGISTER", "udp-1");
    phone.send(&message).await.expect("sent");
    let inbound = core.message().await;
    assert_eq!((inbound.transport, inbound.bytes), (Transport::Udp, message));
    assert_eq!(*inbound.source.reveal(), phone.local_addr().expect("bound"));
    // 127.0.0.8/29 is Germany in this test's world, and Germany is in the eu.
    assert_eq!((inbound.region.as_str(), inbound.country.as_deref()), ("eu", Some("DE")));
    core.send(1, Target::Flow(inbound.flow), OK);
    let mut buffer = [0; 2_000];
    let length = timeout(PATIENCE, phone.recv(&mut buffer)).await.expect("in time").expect("received");
    assert_eq!(&buffer[..length], OK);
    let address = phone.local_addr().expect("bound");
    core.send(2, Target::Address { transport: Transport::Udp, address, name: None }, OK);
    let length = timeout(PATIENCE, phone.recv(&mut buffer)).await.expect("in time").expect("received");
    assert_eq!(&buffer[..length], OK);
    phone.send(b"\r\n\r\n").await.expect("sent");
    let length = timeout(PATIENCE, phone.recv(&mut buffer)).await.expect("in time").expect("a pong");
    assert_eq!(&buffer[..length], b"\r\n");
    phone.send(b"garbage").await.expect("sent");
    phone.send(b"OPTIONS sip:a SIP/2.0\r\n\r\n").await.expect("sent");
    edge.metric_reaches("malformed_total", &[("reason", "sip_start_line")], 1.0).await;
    edge.metric_reaches("malformed_total", &[("reason", "sip_no_call_id")], 1.0).await;
    assert_eq!(edge.metric("sip_flows", &[]), 0.0);
}

#[tokio::test]
async fn tls_flows_live_and_die_with_their_connection() {
    for (listener, protocols) in [("sip-tls", &[][..]), ("web", &[][..]), ("web", &[&b"sip/2"[..]][..])] {
        let edge = TestEdge::start(backend().await, identity);
        let mut core = edge.core().await;
        let mut phone = edge.tls(listener, protocols).await;
        let (first, second) = (request("REGISTER", "tls-1"), request("INVITE", "tls-2"));
        write(&mut phone, &[&b"\r\n\r\n"[..], &first, &second].concat()).await;
        assert_eq!(read_until(&mut phone, b"\n").await, b"\r\n", "the ping is answered");
        let inbound = core.message().await;
        assert_eq!((inbound.transport, inbound.bytes), (Transport::Tls, first));
        let again = core.message().await;
        assert_eq!((again.bytes, &again.flow), (second, &inbound.flow));
        core.send(1, Target::Flow(inbound.flow.clone()), OK);
        assert_eq!(read_until(&mut phone, b"\r\n\r\n").await, OK);
        drop(phone);
        let FromEdge::FlowClosed { flow } = core.next().await else { panic!("not closed") };
        assert_eq!(flow, inbound.flow);
        core.send(2, Target::Flow(flow), OK);
        let FromEdge::SendFailed { id, failure } = core.next().await else { panic!("not failed") };
        assert_eq!((id, failure), (2, SendFailure::FlowGone));
        core.send(3, Target::Flow(FlowToken("bm90IG91cnM".to_owned())), OK);
        let FromEdge::SendFailed { id, failure } = core.next().await else { panic!("not failed") };
        assert_eq!((id, failure), (3, SendFailure::BadToken));
        assert_eq!(edge.metric("sip_flows", &[]), 0.0);
    }
}

#[tokio::test]
async fn a_websocket_phone_registers_on_the_https_port() {
    let edge = TestEdge::start(backend().await, identity);
    let mut core = edge.core().await;
    for (listener, transport) in [("web", Transport::Wss), ("plain", Transport::Ws)] {
        let mut opening =
            format!("wss://edge.example.org/{}", "sip").into_client_request().expect("a request");
        opening.headers_mut().insert("sec-websocket-protocol", "sip".parse().expect("a value"));
        let stream: Box<dyn Both> = match transport {
            Transport::Wss => Box::new(edge.tls(listener, &[b"http/1.1"]).await),
            _ => Box::new(TcpStream::connect(edge.address(listener)).await.expect("connects")),
        };
        let (mut socket, response) =
            tokio_tungstenite::client_async(opening, stream).await.expect("upgraded");
        assert_eq!(response.headers().get("sec-websocket-protocol").expect("chosen"), "sip");
        let message = request("REGISTER", "wss-1");
        let text = String::from_utf8(message.clone()).expect("text");
        socket.send(Message::text(text)).await.expect("sent");
        let inbound = core.message().await;
        assert_eq!((inbound.transport, &inbound.bytes), (transport, &message));
        socket.send(Message::binary(message.clone())).await.expect("sent");
        assert_eq!(core.message().await.bytes, message);
        core.send(1, Target::Flow(inbound.flow.clone()), OK);
        let answer =
            timeout(PATIENCE, socket.next()).await.expect("in time").expect("open").expect("a message");
        assert_eq!(answer.into_data(), OK);
        socket.close(None).await.expect("sent");
        assert!(matches!(core.next().await, FromEdge::FlowClosed { .. }));
    }
}

#[tokio::test]
async fn websockets_are_told_why_they_end() {
    let edge = TestEdge::start(backend().await, |config| {
        config.replace("websocket_ping = \"30s\"", "websocket_ping = \"100ms\"")
    });
    let mut core = edge.core().await;
    let text = |size: usize| Message::text(format!("OPTIONS sip:a SIP/2.0\r\n{}", "x".repeat(size)));
    // What a phone sends, and the close code that it gets; nothing at all is a phone that answers no ping.
    let cases = [
        (Some(text(30_000)), 1009),
        (Some(Message::text("GET / HTTP/1.1\r\n\r\n")), 1003),
        (Some(Message::binary(b"\x16\x03\x01".to_vec())), 1003),
        (None, 1001),
    ];
    for (message, code) in cases {
        let mut opening = "ws://edge.example.org/sip".into_client_request().expect("a request");
        opening.headers_mut().insert("sec-websocket-protocol", "sip".parse().expect("a value"));
        let stream = TcpStream::connect(edge.address("plain")).await.expect("connects");
        let (mut socket, _) = tokio_tungstenite::client_async(opening, stream).await.expect("upgraded");
        let Some(message) = message else {
            // Its library answers pings only while somebody reads.
            assert!(matches!(core.next().await, FromEdge::FlowClosed { .. }));
            let mut frames = Vec::new();
            while let Some(Ok(frame)) = timeout(PATIENCE, socket.next()).await.expect("in time") {
                frames.push(frame);
            }
            let Some(Message::Close(Some(frame))) = frames.last() else { panic!("{frames:?}") };
            assert_eq!((u16::from(frame.code), frame.reason.as_str()), (code, "no pong"));
            continue;
        };
        socket.send(message.clone()).await.expect("sent");
        let end = loop {
            match timeout(PATIENCE, socket.next()).await.expect("in time").expect("open") {
                Ok(Message::Ping(_)) => {}
                end => break end.expect("a close frame"),
            }
        };
        let Message::Close(Some(frame)) = end else { panic!("{message:?}: {end:?}") };
        assert_eq!(u16::from(frame.code), code, "{message:?}");
        assert!(matches!(core.next().await, FromEdge::FlowClosed { .. }));
    }
}

trait Both: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Both for T {}

#[tokio::test]
async fn the_edge_opens_connections_for_the_core() {
    let edge = TestEdge::start(backend().await, identity);
    let mut core = edge.core().await;
    let trunk = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = trunk.local_addr().expect("bound");
    let target = Target::Address { transport: Transport::Tcp, address, name: None };
    core.send(1, target.clone(), OK);
    core.send(2, target, OK);
    let (mut stream, _) = timeout(PATIENCE, trunk.accept()).await.expect("in time").expect("accepted");
    assert_eq!(read_until(&mut stream, b"\r\n\r\n").await, OK);
    assert_eq!(read_until(&mut stream, b"\r\n\r\n").await, OK, "the same connection is used again");
    let message = request("OPTIONS", "out-1");
    write(&mut stream, &message).await;
    assert_eq!(core.message().await.bytes, message, "what comes back on it goes to the core");
    drop((stream, trunk));
    assert!(matches!(core.next().await, FromEdge::FlowClosed { .. }));
    for (id, transport, want) in [
        (3, Transport::Tcp, SendFailure::Unreachable),
        (4, Transport::Tls, SendFailure::Unreachable),
        (5, Transport::Wss, SendFailure::UnsupportedTransport),
    ] {
        core.send(id, Target::Address { transport, address, name: None }, OK);
        let mut got = core.next().await;
        if matches!(got, FromEdge::FlowClosed { .. }) {
            got = core.next().await;
        }
        let FromEdge::SendFailed { id: failed, failure } = got else { panic!("not failed: {got:?}") };
        assert_eq!((failed, failure), (id, want));
    }
}

#[tokio::test]
async fn one_edge_calls_another_over_tls() {
    let caller = TestEdge::start(backend().await, identity);
    let mut core = caller.core().await;
    // The caller's own TLS port stands for a peer whose certificate names its address.
    let address = caller.address("sip-tls");
    let message = request("OPTIONS", "loop-1");
    core.send(1, Target::Address { transport: Transport::Tls, address, name: None }, &message);
    let inbound = core.message().await;
    assert_eq!((inbound.transport, inbound.bytes), (Transport::Tls, message));
    // A name that its certificate does not show proves nothing, and the open connection is no proof of it either.
    let name = Some("trunk.example.org".to_owned());
    core.send(2, Target::Address { transport: Transport::Tls, address, name }, OK);
    let failed = loop {
        match core.next().await {
            FromEdge::SendFailed { id, failure } => break (id, failure),
            FromEdge::FlowClosed { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failed, (2, SendFailure::Unreachable));
}

/// A CA and a certificate of it for a trunk, as PEM files in a folder.
fn peer_certificate(folder: &std::path::Path) -> rustls::sign::CertifiedKey {
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).expect("signed");
    std::fs::write(folder.join("carrier-ca.pem"), authority.pem()).expect("written");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["SIP.Carrier.test".to_owned()]).expect("a name");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let issuer = rcgen::Issuer::from_ca_cert_pem(&authority.pem(), authority_key).expect("an issuer");
    let certificate = params.signed_by(&key, &issuer).expect("signed");
    let der = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let signing = rustls::crypto::ring::sign::any_supported_type(&der.into()).expect("a signing key");
    rustls::sign::CertifiedKey::new(vec![certificate.der().clone()], signing)
}

#[tokio::test]
async fn the_core_learns_the_names_that_a_peers_certificate_proves() {
    let folder = tempfile::tempdir().expect("a folder");
    let certified = peer_certificate(folder.path());
    let file = folder.path().join("carrier-ca.pem").display().to_string();
    let files = format!("names = [\"edge.example.org\"]\npeer_ca_files = [{file:?}]");
    let edge =
        TestEdge::start(backend().await, |config| config.replace("names = [\"edge.example.org\"]", &files));
    let mut core = edge.core().await;
    // Who has no certificate is served, and proves nothing.
    let mut phone = edge.tls("sip-tls", &[]).await;
    write(&mut phone, &request("OPTIONS", "no-name")).await;
    assert_eq!(core.message().await.peer_names, Vec::<String>::new());
    let mut config = (*edge.client_config(&[])).clone();
    config.client_auth_cert_resolver = std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let stream = TcpStream::connect(edge.address("sip-tls")).await.expect("connects");
    let mut trunk = kit::connect_tls(&std::sync::Arc::new(config), stream).await.expect("shakes hands");
    write(&mut trunk, &request("OPTIONS", "named")).await;
    assert_eq!(core.message().await.peer_names, ["sip.carrier.test"]);
}

#[tokio::test]
async fn without_a_core_phones_are_told_and_the_journey_is_bad() {
    let edge = TestEdge::start(backend().await, identity);
    let phone = UdpSocket::bind("127.0.0.9:0").await.expect("binds");
    phone.connect(edge.address("sip-udp")).await.expect("connects");
    let mut buffer = [0; 2_000];
    for method in ["REGISTER", "INVITE", "OPTIONS"] {
        phone.send(&request(method, "lost")).await.expect("sent");
        let length = timeout(PATIENCE, phone.recv(&mut buffer)).await.expect("in time").expect("received");
        let answer = String::from_utf8_lossy(&buffer[..length]);
        assert!(answer.starts_with("SIP/2.0 503 Service Unavailable\r\n"), "{answer}");
        assert!(
            answer.contains("branch=z9hG4bKlost") && answer.contains("To: <sip:bob@example.org>;tag="),
            "{answer}"
        );
    }
    // An ACK is never answered (RFC 3261 section 17.1.1.3), a response neither.
    phone.send(&request("ACK", "lost")).await.expect("sent");
    phone.send(OK).await.expect("sent");
    edge.metric_reaches("sip_refused_total", &[("transport", "udp"), ("reason", "none_up")], 5.0).await;
    assert_eq!(edge.metric("sip_messages_total", &[("direction", "out")]), 3.0);
    assert_eq!(edge.journey(Journey::Register, "eu"), (0, 1));
    assert_eq!(edge.journey(Journey::CallSetup, "eu"), (0, 1));
    let mut stream = TcpStream::connect(edge.address("sip-tcp")).await.expect("connects");
    write(&mut stream, &request("REGISTER", "lost-tcp")).await;
    let answer = read_until(&mut stream, b"\r\n\r\n").await;
    assert!(answer.starts_with(b"SIP/2.0 503 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn strangers_of_a_banned_network_do_not_reach_the_core() {
    let edge = TestEdge::start(backend().await, identity);
    let mut core = edge.core().await;
    let (customer, stranger) = (UdpSocket::bind("127.0.0.9:0").await, UdpSocket::bind("127.0.0.9:0").await);
    let (customer, stranger) = (customer.expect("binds"), stranger.expect("binds"));
    for phone in [&customer, &stranger] {
        phone.connect(edge.address("sip-udp")).await.expect("connects");
    }
    let mut buffer = [0; 2_000];
    customer.send(&request("REGISTER", "home")).await.expect("sent");
    let flow = core.message().await.flow;
    let bound = b"SIP/2.0 200 OK\r\nCall-ID: home\r\nCSeq: 1 REGISTER\r\nContact: <sip:a@b>\r\n\r\n";
    // What a core says is done in its order: after this, a ban is in force.
    let mut settle = async |core: &TestCore| {
        core.send(1, Target::Flow(flow.clone()), bound);
        timeout(PATIENCE, customer.recv(&mut buffer)).await.expect("in time").expect("received");
    };
    settle(&core).await;
    for (is_answered, call_id) in [(true, "told"), (false, "silent")] {
        core.ban("127.0.0.9", 60, is_answered);
        settle(&core).await;
        stranger.send(&request("REGISTER", call_id)).await.expect("sent");
        if is_answered {
            let mut answer = [0; 2_000];
            let length = timeout(PATIENCE, stranger.recv(&mut answer)).await.expect("in time").expect("told");
            let answer = String::from_utf8_lossy(&answer[..length]);
            assert!(answer.starts_with("SIP/2.0 403 Forbidden\r\n"), "{answer}");
        }
        // Customers, calls for help, and what goes on with something else pass.
        customer.send(&request("INVITE", &format!("customer-{call_id}"))).await.expect("sent");
        let help = String::from_utf8(request("INVITE", &format!("help-{call_id}"))).expect("text");
        stranger.send(help.replace("sip:bob@", "sip:112@").as_bytes()).await.expect("sent");
        stranger.send(&request("ACK", &format!("ack-{call_id}"))).await.expect("sent");
        for expected in ["customer", "help", "ack"] {
            let message = String::from_utf8(core.message().await.bytes).expect("text");
            assert!(message.contains(&format!("Call-ID: {expected}-{call_id}")), "{message}");
        }
    }
    assert_eq!(edge.metric("sip_banned_total", &[]), 2.0);
    // Lifted; banned again with all others; and not among all others any more.
    for (number, is_whole) in [(1, false), (2, true)] {
        if is_whole {
            core.ban_only(&["127.0.0.8", "127.0.0.9"], 60, false);
            settle(&core).await;
            stranger.send(&request("REGISTER", "banned")).await.expect("sent");
            // Datagrams are taken in their order.
            customer.send(&request("INVITE", "behind")).await.expect("sent");
            let message = String::from_utf8(core.message().await.bytes).expect("text");
            assert!(message.contains("Call-ID: behind"), "{message}");
            core.ban_only(&["127.0.0.8"], 60, false);
        } else {
            core.ban("127.0.0.9", 0, true);
        }
        settle(&core).await;
        stranger.send(&request("REGISTER", &format!("again-{number}"))).await.expect("sent");
        let message = String::from_utf8(core.message().await.bytes).expect("text");
        assert!(message.contains(&format!("Call-ID: again-{number}")), "{message}");
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_loses_its_connection() {
    let edge = TestEdge::start(backend().await, |config| {
        config
            .replace("sip_flow_queue_max = 64", "sip_flow_queue_max = 4")
            .replace("stall = \"5s\"", "stall = \"60s\"")
    });
    let mut core = edge.core().await;
    let mut phone = TcpStream::connect(edge.address("sip-tcp")).await.expect("connects");
    write(&mut phone, &request("REGISTER", "slow")).await;
    let flow = core.message().await.flow;
    let big = [b'x'; 60_000];
    let sender = core.sender.clone();
    let flood = tokio::spawn(async move {
        for id in 0.. {
            let message = ToEdge::Send { id, target: Target::Flow(flow.clone()), bytes: big.to_vec() };
            if sender.send(message).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    });
    // The message that finds no room closes the flow, and those that wait in its queue fail with the flow: whose
    // failure is told first is a race of two tasks.
    let (mut is_refused, mut is_closed) = (false, false);
    while !(is_refused && is_closed) {
        match core.next().await {
            FromEdge::SendFailed { failure: SendFailure::QueueFull, .. } => is_refused = true,
            FromEdge::SendFailed { failure, .. } => assert_eq!(failure, SendFailure::FlowGone),
            FromEdge::FlowClosed { .. } => is_closed = true,
            _ => {}
        }
    }
    flood.abort();
    edge.metric_reaches("sip_unsent_total", &[("reason", "queue_full")], 1.0).await;
}

#[tokio::test]
async fn a_udp_flow_survives_a_restart_and_a_connection_does_not() {
    let first = TestEdge::start(backend().await, identity);
    let mut core = first.core().await;
    let phone = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    phone.send_to(&request("REGISTER", "before"), first.address("sip-udp")).await.expect("sent");
    let udp = core.message().await.flow;
    let mut stream = TcpStream::connect(first.address("sip-tcp")).await.expect("connects");
    write(&mut stream, &request("REGISTER", "before-tcp")).await;
    let tcp = core.message().await.flow;
    let key = std::fs::read(first.directory.path().join("flow.key")).expect("made");
    assert_eq!(first.handle.stop(PATIENCE).await, [""; 0]);
    assert!(!first.handle.is_running());

    let second = TestEdge::start(backend().await, |config| {
        let path = config.lines().find_map(|line| line.strip_prefix("flow_key_file = ")).expect("configured");
        std::fs::write(path.trim_matches('"'), key).expect("written");
        config
    });
    let mut core = second.core().await;
    core.send(1, Target::Flow(udp), OK);
    let mut buffer = [0; 2_000];
    let (length, from) =
        timeout(PATIENCE, phone.recv_from(&mut buffer)).await.expect("in time").expect("received");
    assert_eq!((&buffer[..length], from), (OK, second.address("sip-udp")));
    core.send(2, Target::Flow(tcp), OK);
    let FromEdge::SendFailed { id, failure } = core.next().await else { panic!("not failed") };
    assert_eq!((id, failure), (2, SendFailure::FlowGone));
}

#[tokio::test]
async fn stun_keeps_a_phones_binding_alive() {
    let edge = TestEdge::start(backend().await, identity);
    let phone = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let question = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[9; 12]].concat();
    phone.send_to(&question, edge.address("sip-udp")).await.expect("sent");
    let mut buffer = [0; 100];
    let length = timeout(PATIENCE, phone.recv(&mut buffer)).await.expect("in time").expect("received");
    assert_eq!((length, &buffer[..2], &buffer[8..20]), (32, &[1, 1][..], &[9; 12][..]));
    assert_eq!(edge.metric("sip_keepalives_total", &[("transport", "udp")]), 1.0);
}

#[tokio::test]
async fn a_core_restart_drops_no_customer() {
    let edge = TestEdge::start(backend().await, identity);
    let mut core = edge.core().await;
    let mut phone = edge.tls("sip-tls", &[]).await;
    write(&mut phone, &request("REGISTER", "restart")).await;
    let flow = core.message().await.flow;
    assert_eq!(edge.metric("cores", &[]), 1.0);
    let mut core = core.restart().await;
    core.send(1, Target::Flow(flow.clone()), OK);
    assert_eq!(read_until(&mut phone, b"\r\n\r\n").await, OK, "the old flow still leads to the phone");
    let again = async {
        // The first answer may still be a 503, given while there was no core.
        loop {
            write(&mut phone, &request("OPTIONS", "restart")).await;
            tokio::select! {
                inbound = core.message() => return inbound,
                answer = read_until(&mut phone, b"\r\n\r\n") => assert!(answer.starts_with(b"SIP/2.0 503 ")),
            }
        }
    };
    assert_eq!(timeout(PATIENCE, again).await.expect("in time").flow, flow);
}

#[tokio::test]
async fn calls_are_served_after_a_drain_until_the_core_is_done() {
    let edge = TestEdge::start(backend().await, identity);
    let mut core = edge.core().await;
    let mut phone = edge.tls("sip-tls", &[]).await;
    let udp_phone = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let (udp, tcp) = (edge.address("sip-udp"), edge.address("sip-tcp"));
    write(&mut phone, &request("INVITE", "last-call")).await;
    core.message().await;
    let TestEdge { handle, directory: _directory, .. } = edge;
    assert_eq!(handle.drain(PATIENCE).await, [""; 0], "open flows are no stragglers");
    drop(handle);
    assert!(TcpStream::connect(tcp).await.is_err(), "nobody new comes in");
    write(&mut phone, &request("BYE", "last-call")).await;
    let bye = core.message().await;
    assert!(bye.bytes.starts_with(b"BYE "));
    core.send(1, Target::Flow(bye.flow), OK);
    assert_eq!(read_until(&mut phone, b"\r\n\r\n").await, OK);
    udp_phone.send_to(&request("BYE", "last-udp"), udp).await.expect("sent");
    assert!(core.message().await.bytes.starts_with(b"BYE "));
}
