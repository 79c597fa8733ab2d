//! Latching against the kinds of NAT that phones sit behind (RFC 4787), in a virtual network: no sockets, no root.
//!
//! The relay end is a virtual connection judged by the same [`Latch`] that the workers use.
#![expect(clippy::expect_used, reason = "helpers of a test, which the lint takes for product code")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use belfry_rtp_proto::latch::{Latch, Verdict};
use tokio::sync::Mutex;
use tokio::time::timeout;
use webrtc_util::Conn;
use webrtc_util::vnet::nat::{EndpointDependencyType, NatType};
use webrtc_util::vnet::net::{Net, NetConfig};
use webrtc_util::vnet::router::{Router, RouterConfig};

const RELAY: &str = "1.2.3.4";
const NAT: &str = "1.2.3.5";
const STRANGER: &str = "1.2.3.66";
const PHONE: &str = "192.168.0.7";
const SOON: Duration = Duration::from_secs(5);

type Port = Arc<dyn Conn + Send + Sync>;

/// A relay and a stranger on the outside, a phone behind a NAT.
struct World {
    relay: Net,
    stranger: Net,
    phone: Net,
    _outside: Arc<Mutex<Router>>,
}

async fn attach(router: &Arc<Mutex<Router>>, address: &str) -> Net {
    let net = Net::new(Some(NetConfig { static_ips: vec![address.to_owned()], ..NetConfig::default() }));
    let nic = net.get_nic().expect("virtual");
    router.lock().await.add_net(Arc::clone(&nic)).await.expect("the address is free");
    nic.lock().await.set_router(Arc::clone(router)).await.expect("attached");
    net
}

async fn world(nat_type: NatType) -> World {
    let outside = RouterConfig { cidr: "1.2.3.0/24".to_owned(), ..RouterConfig::default() };
    let outside = Arc::new(Mutex::new(Router::new(outside).expect("a router")));
    let inside = RouterConfig {
        cidr: "192.168.0.0/24".to_owned(),
        static_ips: vec![NAT.to_owned()],
        nat_type: Some(nat_type),
        ..RouterConfig::default()
    };
    let inside = Arc::new(Mutex::new(Router::new(inside).expect("a router")));
    let (relay, stranger) = (attach(&outside, RELAY).await, attach(&outside, STRANGER).await);
    let phone = attach(&inside, PHONE).await;
    outside.lock().await.add_router(Arc::clone(&inside)).await.expect("a way in");
    {
        use webrtc_util::vnet::router::Nic as _;
        inside.lock().await.set_router(Arc::clone(&outside)).await.expect("a way out");
    }
    let started = outside.lock().await.start();
    started.await.expect("started");
    World { relay, stranger, phone, _outside: outside }
}

async fn bind(net: &Net, host: &str, port: u16) -> Port {
    net.bind(SocketAddr::new(host.parse().expect("a host"), port)).await.expect("bound")
}

async fn hears(port: &Port) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 64];
    let (length, source) = timeout(SOON, port.recv_from(&mut buffer)).await.ok()?.ok()?;
    Some((buffer[..length].to_vec(), source))
}

/// A call's RTP and RTCP through a NAT of this kind, with a stranger who knows the relay's port.
async fn check(name: &str, mapping: EndpointDependencyType, filtering: EndpointDependencyType) {
    let nat_type = NatType { mapping_behavior: mapping, filtering_behavior: filtering, ..NatType::default() };
    let world = world(nat_type).await;
    let nat: IpAddr = NAT.parse().expect("a host");
    let stranger = bind(&world.stranger, STRANGER, 9_000).await;
    for (component, port) in [("rtp", 20_000), ("rtcp", 20_001)] {
        let relay = bind(&world.relay, RELAY, port).await;
        let phone = bind(&world.phone, PHONE, port - 16_000).await;
        let address = SocketAddr::new(RELAY.parse().expect("a host"), port);
        // The phone describes its private address; its signalling comes from the NAT's.
        let described = phone.local_addr().expect("bound");
        let mut latch = Latch::new(Some(described), nat);
        assert_eq!(latch.destination(), Some(described));

        stranger.send_to(b"stranger", address).await.expect("sent");
        let (_, source) = hears(&relay).await.expect("the stranger gets to the port");
        assert_eq!(latch.admit(source), Verdict::Foreign, "{name} {component}");

        phone.send_to(b"phone", address).await.expect("sent");
        let (packet, source) = hears(&relay).await.expect("the phone gets through");
        assert_eq!((packet.as_slice(), source.ip()), (&b"phone"[..], nat));
        assert_eq!(latch.admit(source), Verdict::Latched, "{name} {component}");

        let back = latch.destination().expect("latched");
        relay.send_to(b"relay", back).await.expect("sent");
        let (packet, _) = hears(&phone).await.expect("the answer passes the NAT");
        assert_eq!(packet, b"relay", "{name} {component}");
        assert_eq!(latch.foreign(), 1);
    }
}

#[tokio::test]
async fn every_kind_of_nat_is_passed() {
    use EndpointDependencyType::{EndpointAddrDependent, EndpointAddrPortDependent, EndpointIndependent};
    check("full cone", EndpointIndependent, EndpointIndependent).await;
    check("address restricted", EndpointIndependent, EndpointAddrDependent).await;
    check("port restricted", EndpointIndependent, EndpointAddrPortDependent).await;
    check("symmetric", EndpointAddrPortDependent, EndpointAddrPortDependent).await;
}
