//! A whole core with an edge and a relay that do as the test says, over the mesh in process.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use belfry_mesh::{LinkReceiver, LinkSender, Links, Mesh, Service};
use belfry_relay_api::{
    FromRelay, Leg, LegReport, Notice, Refusal, Reply, Request, SessionKey, SessionReport, ToRelay,
};
use belfry_routing::Plan;
use belfry_signal::record::Body;
use belfry_signal::{Pii, RecordReceiver, Region, Registry, Resource, TraceKey, now_unix_nanos};
use belfry_sip_proto::digest::{Answering, Challenge};
use belfry_sip_proto::{HeaderName, Limits, OwnedMessage};
use belfry_state::{State, Subscriber};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::handle::{FlowToken, FromEdge, Inbound, PublicAddress, SendFailure, Target, ToEdge, Transport};
use crate::{Config, Core, CoreHandle, Deps, Faults, Prepaid, Routes};

const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const PASSWORD: &str = "secret";
pub(super) const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

/// The core and its neighbours.
pub(super) struct House {
    pub(super) core: CoreHandle,
    mesh: Mesh,
    config: Config,
    plan: Plan,
    pub(super) faults: Faults,
    pub(super) state: State,
    /// What the edge's clock shows, when a test sets it.
    clock_unix_nanos: Option<u64>,
    pub(super) registry: Registry,
    pub(super) relay: FakeRelay,
    records: RecordReceiver,
    /// Of the edges, in the order in which they came.
    links: Vec<Links<FromEdge, ToEdge>>,
    to_core: LinkSender<FromEdge>,
    from_core: LinkReceiver<ToEdge>,
    /// What certificates prove of who speaks.
    pub(super) peer_names: Vec<String>,
    orders: Vec<(std::net::IpAddr, u32, bool)>,
    directory: TempDir,
}

/// Routes by a plan alone; imported ones come later.
fn routes_of(plan: &Plan, config: &Config) -> Routes {
    Routes::of(plan.clone(), config, std::path::Path::new("")).expect("routes")
}

/// Accounts of the store; who has no profile is billed by `all`.
async fn prepaid(state: &State) -> Prepaid {
    Prepaid::load(Some("all".to_owned()), state).await.expect("accounts")
}

/// What the relay does next, and what it was asked.
#[derive(Clone, Default)]
pub(super) struct FakeRelay(Arc<Mutex<RelayScript>>, Arc<Notify>);

#[derive(Default)]
struct RelayScript {
    refusal: Option<(&'static str, Refusal)>,
    is_silent: bool,
    is_held: bool,
    /// Replies that wait until they are let go.
    held: Vec<FromRelay>,
    asked: Vec<String>,
    /// Every description that it was given, as it came.
    described: Vec<String>,
    sender: Option<LinkSender<FromRelay>>,
    /// How long it has heard nothing.
    quiet_seconds: Option<f64>,
}

/// A phone as the core sees it: a flow and a user.
#[derive(Clone, Debug)]
pub(super) struct Phone {
    pub(super) user: &'static str,
    pub(super) flow: String,
    pub(super) transport: Transport,
    pub(super) source: SocketAddr,
}

/// A message that the core sent.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) id: u64,
    pub(super) flow: String,
    pub(super) message: OwnedMessage,
}

impl Phone {
    pub(super) fn new(user: &'static str, transport: Transport) -> Self {
        let flow = format!("token-{user}-{}", transport.uri_token());
        let port = 10_000 + user.bytes().map(u16::from).sum::<u16>();
        Self { user, flow, transport, source: SocketAddr::from(([192, 0, 2, 7], port)) }
    }

    pub(super) fn contact(&self) -> String {
        format!(
            "<sip:{}@192.0.2.7:{};transport={}>",
            self.user,
            self.source.port(),
            self.transport.uri_token()
        )
    }

    /// The top lines of a request of this phone.
    pub(super) fn head(&self, method: &str, uri: &str, branch: &str) -> String {
        let via = self.transport.via_token();
        format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/{via} 192.0.2.7:{};branch=z9hG4bK{branch};rport\nMax-Forwards: 70\n",
            self.source.port()
        )
    }

    pub(super) fn register(&self, call_id: &str, cseq: u32, extra: &str) -> String {
        let user = self.user;
        format!(
            "{}From: <sip:{user}@belfry.test>;tag=r{user}\nTo: <sip:{user}@belfry.test>\nCall-ID: {call_id}\nCSeq: {cseq} REGISTER\n{extra}",
            self.head("REGISTER", "sip:belfry.test", &format!("r{user}{call_id}{cseq}"))
        )
    }

    pub(super) fn invite(&self, callee: &str, call_id: &str, cseq: u32, extra: &str) -> String {
        format!(
            "{}From: \"{user}\" <sip:{user}@belfry.test>;tag=f{user}\nTo: <sip:{callee}@belfry.test>\nCall-ID: {call_id}\nCSeq: {cseq} INVITE\nContact: {}\n{extra}",
            self.head("INVITE", &format!("sip:{callee}@belfry.test"), &format!("i{call_id}{cseq}")),
            self.contact(),
            user = self.user,
        )
    }

    /// A request of the dialog that the caller's 2xx made.
    pub(super) fn in_dialog_of(&self, seen: &Heard, method: &str, cseq: u32, peer_contact: &str) -> String {
        self.in_dialog(method, cseq, seen, peer_contact, None)
    }

    fn in_dialog(
        &self,
        method: &str,
        cseq: u32,
        seen: &Heard,
        peer_contact: &str,
        local_tag: Option<&str>,
    ) -> String {
        let uri = peer_contact.trim_start_matches('<').trim_end_matches('>');
        let mut routes = seen.values(HeaderName::RecordRoute);
        let (mut from, mut to) = (seen.header(HeaderName::From), seen.header(HeaderName::To));
        match local_tag {
            None => routes.reverse(),
            Some(tag) => {
                if !to.contains("tag=") {
                    to = format!("{to};tag={tag}");
                }
                std::mem::swap(&mut from, &mut to);
            }
        }
        let mut text = self.head(method, uri, &format!("d{method}{cseq}{}", self.user));
        for route in routes {
            text.push_str(&format!("Route: {route}\n"));
        }
        let call_id = seen.header(HeaderName::CallId);
        text.push_str(&format!(
            "From: {from}\nTo: {to}\nCall-ID: {call_id}\nCSeq: {cseq} {method}\nContact: {}\n",
            self.contact()
        ));
        text
    }
}

impl Heard {
    pub(super) fn status(&self) -> u16 {
        self.message.status().unwrap_or_default()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(self.message.as_bytes()).into_owned()
    }

    pub(super) fn header(&self, name: HeaderName) -> String {
        self.message.header_text(name).unwrap_or_default().into_owned()
    }

    /// All values of a header, as a Route set is made of them.
    pub(super) fn values(&self, name: HeaderName) -> Vec<String> {
        self.message.headers(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The response of a phone to this request: the headers that must be copied, and `extra`.
    pub(super) fn answer(&self, status: &str, tag: &str, extra: &str) -> String {
        let mut text = format!("SIP/2.0 {status}\n");
        for via in self.values(HeaderName::Via) {
            text.push_str(&format!("Via: {via}\n"));
        }
        for route in self.values(HeaderName::RecordRoute) {
            text.push_str(&format!("Record-Route: {route}\n"));
        }
        let to = self.header(HeaderName::To);
        let to = if to.contains("tag=") || tag.is_empty() { to } else { format!("{to};tag={tag}") };
        text.push_str(&format!(
            "From: {}\nTo: {to}\nCall-ID: {}\nCSeq: {}\n{extra}",
            self.header(HeaderName::From),
            self.header(HeaderName::CallId),
            self.header(HeaderName::CSeq),
        ));
        text
    }
}

impl House {
    pub(super) async fn new() -> Self {
        Self::with(Config::for_test()).await
    }

    pub(super) async fn with(config: Config) -> Self {
        Self::with_plan(config, "").await
    }

    /// With these routes.
    pub(super) async fn with_plan(config: Config, plan: &str) -> Self {
        let plan: Plan = toml::from_str(plan).expect("a plan");
        let directory = TempDir::new().expect("a temporary folder");
        let (registry, records) = Registry::new(Resource::for_test(), 65_536);
        let state_config = belfry_state::Config::for_test(directory.path());
        let state = State::open(state_config, &registry).await.expect("state opens");
        for user in ["alice", "bob", "carol"] {
            let subscriber = Subscriber::new(user, "belfry.test", PASSWORD);
            state.put_subscriber(&subscriber).await.expect("state writes");
        }
        let mesh = Mesh::for_test(&registry);
        let relay = FakeRelay::default();
        tokio::spawn(relay.clone().serve(mesh.clone()));
        let faults = Faults::default();
        let deps = Deps {
            registry: registry.clone(),
            mesh: mesh.clone(),
            state: state.clone(),
            routes: routes_of(&plan, &config),
            prepaid: prepaid(&state).await,
            trace_key: TraceKey::new([7; 32]),
            faults: faults.clone(),
        };
        let core = Core::start(config.clone(), deps).expect("the core starts");
        let mut links = mesh.dial::<FromEdge, ToEdge>(Service::Signalling);
        let (to_core, from_core) = hello(&mut links, "edge-1", "edge.test").await;
        let house = Self {
            core,
            mesh,
            config,
            plan,
            faults,
            state,
            clock_unix_nanos: None,
            registry,
            relay,
            records,
            links: vec![links],
            to_core,
            from_core,
            peer_names: Vec::new(),
            orders: Vec::new(),
            directory,
        };
        house.until(|text| text.contains("core_edges 1") && text.contains("core_relays 1")).await;
        house
    }

    /// Where its state is.
    pub(super) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Stops the core as a crash would and starts it again; the edge and the relay stay.
    pub(super) async fn restart(&mut self) {
        self.core.kill().await;
        let deps = Deps {
            registry: self.registry.clone(),
            mesh: self.mesh.clone(),
            state: self.state.clone(),
            routes: routes_of(&self.plan, &self.config),
            prepaid: prepaid(&self.state).await,
            trace_key: TraceKey::new([7; 32]),
            faults: self.faults.clone(),
        };
        self.core = Core::start(self.config.clone(), deps).expect("the core starts again");
        (self.to_core, self.from_core) = hello(&mut self.links[0], "edge-1", "edge.test").await;
    }

    /// Another edge connects; the house speaks and hears through it from now on. Gives the ends of the first.
    pub(super) async fn change_edge(&mut self) -> (LinkSender<FromEdge>, LinkReceiver<ToEdge>) {
        let mut links = self.mesh.dial::<FromEdge, ToEdge>(Service::Signalling);
        let (to_core, from_core) = hello(&mut links, "edge-2", "edge-two.test").await;
        self.links.push(links);
        self.until(|text| text.contains("core_edges 2")).await;
        (std::mem::replace(&mut self.to_core, to_core), std::mem::replace(&mut self.from_core, from_core))
    }

    /// The edge that came last is gone for good, with these ends.
    pub(super) async fn lose_edge(&mut self, ends: (LinkSender<FromEdge>, LinkReceiver<ToEdge>)) {
        drop((self.links.pop(), ends));
        self.until(|text| text.contains("core_edges 1")).await;
    }

    /// Speaks and hears through these ends.
    pub(super) fn use_edge(&mut self, ends: &mut (LinkSender<FromEdge>, LinkReceiver<ToEdge>)) {
        std::mem::swap(&mut self.to_core, &mut ends.0);
        std::mem::swap(&mut self.from_core, &mut ends.1);
    }

    /// What the core has said until now.
    pub(super) async fn hear_all(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        while let Ok(Some(sent)) = tokio::time::timeout(Duration::from_millis(3), self.from_core.recv()).await
        {
            match sent {
                ToEdge::Send { .. } => all.push(heard(sent)),
                order => self.ordered(order),
            }
        }
        all
    }

    /// Waits until the metrics say so.
    pub(super) async fn until(&self, is_so: impl Fn(&str) -> bool) {
        let wait = async {
            while !is_so(&self.registry.encode_text()) {
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("{}", self.registry.encode_text());
        }
    }

    /// A phone says something; line ends, Content-Length and an empty body are added.
    pub(super) fn say(&self, phone: &Phone, head: &str) {
        self.say_with(phone, head, "");
    }

    /// The same with a session description.
    pub(super) fn say_with(&self, phone: &Phone, head: &str, sdp: &str) {
        let content_type = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let head = head.trim_end().replace('\n', "\r\n");
        let length = sdp.len();
        let text = format!("{head}\r\n{content_type}Content-Length: {length}\r\n\r\n{sdp}");
        self.say_bytes(phone, text.into_bytes());
    }

    /// Sets the edge's clock to so many milliseconds after the beginning of a test's own time.
    pub(super) fn set_clock(&mut self, millis: u64) {
        self.clock_unix_nanos = Some(1_800_000_000_000_000_000 + millis * 1_000_000);
    }

    /// Sets the edge's clock to so long ago.
    pub(super) fn set_clock_back(&mut self, ago: Duration) {
        let nanos = u64::try_from(ago.as_nanos()).expect("some years at most");
        self.clock_unix_nanos = Some(now_unix_nanos() - nanos);
    }

    pub(super) fn say_bytes(&self, phone: &Phone, bytes: Vec<u8>) {
        let inbound = Inbound {
            flow: FlowToken(phone.flow.clone()),
            transport: phone.transport,
            source: Pii::new(phone.source),
            region: Region::configured("eu").expect("a plain name"),
            country: Some("GB".to_owned()),
            peer_names: self.peer_names.clone(),
            received_unix_nanos: self.clock_unix_nanos.unwrap_or_else(now_unix_nanos),
            bytes,
        };
        self.to_core.try_send(FromEdge::Message(inbound)).expect("room");
    }

    pub(super) fn close_flow(&self, phone: &Phone) {
        let flow = FlowToken(phone.flow.clone());
        self.to_core.try_send(FromEdge::FlowClosed { flow }).expect("room");
    }

    pub(super) fn fail_send(&self, heard: &Heard, failure: SendFailure) {
        self.to_core.try_send(FromEdge::SendFailed { id: heard.id, failure }).expect("room");
    }

    /// The next message that the core sends.
    pub(super) async fn hear(&mut self) -> Heard {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.from_core.recv()).await;
            match next.expect("the core says something").expect("the link is up") {
                sent @ ToEdge::Send { .. } => return heard(sent),
                order => self.ordered(order),
            }
        }
    }

    /// The next message, which must be this response to this phone.
    #[track_caller]
    pub(super) fn hear_status(&mut self, phone: &Phone, status: u16) -> impl Future<Output = Heard> {
        let (flow, caller) = (phone.flow.clone(), std::panic::Location::caller());
        async move {
            let heard = self.hear().await;
            // Not in `hear`: the refusal of a malformed request copies what is malformed.
            heard.message.check().expect("the core speaks SIP as it should be");
            assert_eq!((heard.flow.clone(), heard.status()), (flow, status), "{caller}: {}", heard.text());
            heard
        }
    }

    /// The next requests of this method, one for each of these phones, in whatever order they come; they are given in
    /// the phones' order.
    #[track_caller]
    pub(super) fn hear_requests<'a>(
        &'a mut self,
        phones: &'a [&'a Phone],
        method: &'a str,
    ) -> impl Future<Output = Vec<Heard>> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let mut heard = Vec::new();
            for _ in phones {
                heard.push(self.hear().await);
            }
            let of = |phone: &&Phone| {
                let is_his = |heard: &&Heard| heard.flow == phone.flow && heard.message.method() == method;
                let found = heard.iter().find(|heard| is_his(heard) && heard.message.is_request());
                let all = || heard.iter().map(Heard::text).collect::<Vec<_>>().join("\n");
                found.unwrap_or_else(|| panic!("{caller}: no {method} to {}: {}", phone.flow, all())).clone()
            };
            phones.iter().map(of).collect()
        }
    }

    /// The next message, which must be this request to this phone.
    #[track_caller]
    pub(super) fn hear_request(&mut self, phone: &Phone, method: &str) -> impl Future<Output = Heard> {
        let (flow, method) = (phone.flow.clone(), method.to_owned());
        let caller = std::panic::Location::caller();
        async move {
            let heard = self.hear().await;
            heard.message.check().expect("the core speaks SIP as it should be");
            assert!(heard.message.is_request(), "{caller}: {}", heard.text());
            assert_eq!(
                (heard.flow.as_str(), heard.message.method()),
                (flow.as_str(), method.as_str()),
                "{caller}"
            );
            heard
        }
    }

    /// Lets time pass that nobody has the patience for. The stores' own threads know nothing of it: nothing may be
    /// asked of them meanwhile.
    pub(super) async fn let_pass(&self, time: Duration) {
        tokio::time::pause();
        let step = Duration::from_millis(100);
        for _ in 0..time.as_millis() / step.as_millis() {
            tokio::time::advance(step).await;
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
        tokio::time::resume();
    }

    /// Whether the core has nothing to say now; orders to the edge are put aside.
    pub(super) async fn is_quiet(&mut self) -> bool {
        let next = async {
            loop {
                match self.from_core.recv().await {
                    Some(order @ (ToEdge::Ban { .. } | ToEdge::Bans { .. })) => self.ordered(order),
                    _ => return,
                }
            }
        };
        tokio::time::timeout(Duration::from_millis(50), next).await.is_err()
    }

    fn ordered(&mut self, order: ToEdge) {
        match order {
            ToEdge::Ban { network, seconds, is_answered } => {
                self.orders.push((network, seconds, is_answered));
            }
            ToEdge::Bans { is_first, bans, is_answered } => {
                if is_first {
                    self.orders.clear();
                }
                self.orders
                    .extend(bans.into_iter().map(|(network, seconds)| (network, seconds, is_answered)));
            }
            ToEdge::Send { .. } => {}
        }
    }

    /// The bans that the edge was told since the last look, or since it was told all of them: network, seconds, whether to
    /// answer.
    pub(super) fn orders(&mut self) -> Vec<(std::net::IpAddr, u32, bool)> {
        std::mem::take(&mut self.orders)
    }

    /// Registers a phone with digest; gives the 200.
    pub(super) async fn register(&mut self, phone: &Phone) -> Heard {
        self.register_as(phone, "").await
    }

    /// The same with these parameters of its Contact, as `;q=0.5`.
    pub(super) async fn register_as(&mut self, phone: &Phone, params: &str) -> Heard {
        let contact = format!("Contact: {}{params}\n", phone.contact());
        let call_id = format!("reg-{}", phone.flow);
        self.say(phone, &phone.register(&call_id, 1, &contact));
        let challenged = self.hear_status(phone, 401).await;
        let authorization = authorize(&challenged, phone.user, PASSWORD, "REGISTER", "sip:belfry.test");
        self.say(phone, &phone.register(&call_id, 2, &format!("{contact}{authorization}")));
        self.hear_status(phone, 200).await
    }

    /// Sends an INVITE until it is let in; the core's 100 after it is heard.
    pub(super) async fn call(&mut self, caller: &Phone, callee: &str, call_id: &str, sdp: &str) {
        self.call_with(caller, (callee, call_id), 1, "", sdp).await;
    }

    /// The same with this CSeq for the first INVITE.
    pub(super) async fn call_from(
        &mut self,
        caller: &Phone,
        callee: &str,
        call_id: &str,
        cseq: u32,
        sdp: &str,
    ) {
        self.call_with(caller, (callee, call_id), cseq, "", sdp).await;
    }

    /// An INVITE with these headers, let in; gives it as the called phone got it.
    pub(super) async fn invite(
        &mut self,
        caller: &Phone,
        called: &Phone,
        call_id: &str,
        headers: &str,
    ) -> Heard {
        self.call_with(caller, (called.user, call_id), 1, headers, SDP).await;
        self.hear_request(called, "INVITE").await
    }

    async fn call_with(
        &mut self,
        caller: &Phone,
        (callee, call_id): (&str, &str),
        cseq: u32,
        headers: &str,
        sdp: &str,
    ) {
        self.say_with(caller, &caller.invite(callee, call_id, cseq, headers), sdp);
        self.hear_status(caller, 100).await;
        let challenged = self.hear_status(caller, 407).await;
        self.acknowledge(caller, &challenged);
        let uri = format!("sip:{callee}@belfry.test");
        let authorization = authorize(&challenged, caller.user, PASSWORD, "INVITE", &uri);
        let headers = format!("{authorization}{headers}");
        self.say_with(caller, &caller.invite(callee, call_id, cseq + 1, &headers), sdp);
        self.hear_status(caller, 100).await;
    }

    /// The hop-by-hop ACK of a failure.
    pub(super) fn acknowledge(&self, phone: &Phone, failure: &Heard) {
        let cseq = failure.header(HeaderName::CSeq);
        let number = cseq.split(' ').next().unwrap_or_default();
        let via = failure.values(HeaderName::Via).remove(0);
        self.say(
            phone,
            &format!(
                "ACK sip:x@belfry.test SIP/2.0\nVia: {via}\nMax-Forwards: 70\nFrom: {}\nTo: {}\nCall-ID: {}\nCSeq: {number} ACK\n",
                failure.header(HeaderName::From),
                failure.header(HeaderName::To),
                failure.header(HeaderName::CallId),
            ),
        );
    }

    /// A request within the dialog that a 2xx made, from the caller (who got the 2xx) or the callee (who got the
    /// INVITE).
    pub(super) fn in_dialog(
        &self,
        phone: &Phone,
        method: &str,
        cseq: u32,
        seen: &Heard,
        peer_contact: &str,
        local_tag: Option<&str>,
    ) -> String {
        phone.in_dialog(method, cseq, seen, peer_contact, local_tag)
    }

    /// The records of a kind that were emitted since the last look.
    pub(super) fn emitted(&mut self) -> Vec<Body> {
        std::iter::from_fn(|| self.records.try_recv().ok()).map(|record| record.body).collect()
    }

    /// The value of a metric's line.
    pub(super) fn metric(&self, line: &str) -> Option<f64> {
        let text = self.registry.encode_text();
        let found = text.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' '))?;
        found.parse().ok()
    }
}

/// An edge connects and says who it is.
async fn hello(
    links: &mut Links<FromEdge, ToEdge>,
    node: &str,
    host: &str,
) -> (LinkSender<FromEdge>, LinkReceiver<ToEdge>) {
    let link = tokio::time::timeout(PATIENCE, links.next()).await.expect("in time").expect("a link");
    let (to_core, from_core) = link.split();
    let transports = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Wss];
    let addresses = transports
        .into_iter()
        .zip([5060, 5060, 5061, 8443])
        .map(|(transport, port)| PublicAddress { transport, host: host.to_owned(), port })
        .collect();
    to_core.try_send(FromEdge::Hello { node: node.to_owned(), addresses }).expect("room");
    (to_core, from_core)
}

fn heard(sent: ToEdge) -> Heard {
    let ToEdge::Send { id, target, bytes } = sent else { panic!("no message: {sent:?}") };
    let flow = match target {
        Target::Flow(FlowToken(token)) => token,
        Target::Address { address, name: None, .. } => address.to_string(),
        Target::Address { transport, address, name: Some(name) } => {
            format!("{} {address} {name}", transport.uri_token())
        }
    };
    let message = OwnedMessage::parse(bytes, &Limits::default()).expect("the core speaks SIP");
    Heard { id, flow, message }
}

/// The header that answers a challenge.
pub(super) fn authorize(challenged: &Heard, user: &str, password: &str, method: &str, uri: &str) -> String {
    let (asked, answer) = match challenged.status() {
        401 => (HeaderName::WwwAuthenticate, "Authorization"),
        _ => (HeaderName::ProxyAuthenticate, "Proxy-Authorization"),
    };
    let challenge = challenged.message.header(asked).expect("a challenge");
    let challenge = Challenge::parse(challenge).expect("a challenge that can be answered");
    let cnonce = format!("{:x}", rand::random::<u64>());
    let answering = Answering { username: user, password, method, uri, cnonce: &cnonce, nonce_count: 1 };
    format!("{answer}: {}\n", challenge.answer(&answering))
}

impl FakeRelay {
    /// Refuses offers, answers or both (`""`) from now on.
    pub(super) fn refuse(&self, what: &'static str, refusal: Refusal) {
        self.script().refusal = Some((what, refusal));
    }

    /// It has heard nothing for so long.
    pub(super) fn heard_nothing_for(&self, seconds: f64) {
        self.script().quiet_seconds = Some(seconds);
    }

    pub(super) fn stay_silent(&self) {
        self.script().is_silent = true;
    }

    /// Keeps its replies back from now on.
    pub(super) fn hold(&self) {
        self.script().is_held = true;
    }

    /// Sends the replies that it kept back, and keeps none any more.
    pub(super) fn release(&self) {
        let mut script = self.script();
        script.is_held = false;
        let held = std::mem::take(&mut script.held);
        let sender = script.sender.as_ref().expect("the relay is connected");
        for reply in held {
            sender.try_send(reply).expect("room");
        }
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.script().asked.clone()
    }

    pub(super) fn described(&self) -> Vec<String> {
        self.script().described.clone()
    }

    /// Lets go of its link, and takes the next.
    pub(super) fn let_go(&self) {
        self.1.notify_one();
    }

    pub(super) fn notice(&self, notice: Notice) {
        let script = self.script();
        let sender = script.sender.as_ref().expect("the relay is connected");
        sender.try_send(FromRelay::Notice(notice)).expect("room");
    }

    fn script(&self) -> std::sync::MutexGuard<'_, RelayScript> {
        self.0.lock().expect("no test panics while it holds this")
    }

    async fn serve(self, mesh: Mesh) {
        let mut links = mesh.serve::<FromRelay, ToRelay>(Service::Media);
        while let Some(link) = links.next().await {
            let (sender, mut receiver) = link.split();
            self.script().sender = Some(sender.clone());
            loop {
                let asked = tokio::select! {
                    asked = receiver.recv() => asked,
                    () = self.1.notified() => None,
                };
                let Some(ToRelay { id, request }) = asked else { break };
                let Some(reply) = self.reply(request) else { continue };
                let reply = FromRelay::Reply { id, reply };
                if let Some(reply) = self.keep(reply) {
                    let _ = sender.send(reply).await;
                }
            }
        }
    }

    /// Keeps a reply when it is told to; otherwise gives it back.
    fn keep(&self, reply: FromRelay) -> Option<FromRelay> {
        let mut script = self.script();
        if !script.is_held {
            return Some(reply);
        }
        script.held.push(reply);
        None
    }

    fn reply(&self, request: Request) -> Option<Reply> {
        let mut script = self.script();
        let (name, who) = match &request {
            Request::Offer(description) => ("offer", description.from.as_str()),
            Request::Answer(description) => ("answer", description.from.as_str()),
            Request::Delete { .. } => ("delete", ""),
            Request::Query { .. } => ("query", ""),
        };
        script.asked.push(format!("{name} {who}").trim_end().to_owned());
        if let Request::Offer(description) | Request::Answer(description) = &request {
            script.described.push(String::from_utf8_lossy(&description.sdp).into_owned());
        }
        if script.is_silent {
            return None;
        }
        let refusal = script.refusal.filter(|(what, _)| name != "delete" && name.starts_with(what));
        if let Some((_, refusal)) = refusal {
            return Some(Reply::Refused(refusal));
        }
        Some(match request {
            Request::Offer(description) | Request::Answer(description) => {
                let sdp = String::from_utf8(description.sdp).expect("the tests speak text");
                let port = if description.from == Leg::Caller { 20_000 } else { 30_000 };
                let sdp = sdp.replace("192.0.2.1", "198.51.100.9").replace("4000", &port.to_string());
                Reply::Description { sdp: sdp.into_bytes() }
            }
            Request::Delete { session } | Request::Query { session } => {
                Reply::Deleted(Box::new(report(session, script.quiet_seconds)))
            }
        })
    }
}

fn report(session: SessionKey, quiet_seconds: Option<f64>) -> SessionReport {
    let leg =
        |mos| LegReport { packets: 500, mos: Some(mos), mos_min: Some(mos - 0.2), ..LegReport::default() };
    SessionReport { session, seconds: 10.0, quiet_seconds, caller: leg(4.4), callee: leg(4.2) }
}
