//! The story itself: what happens when, until nothing happens any more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use belfry_mesh::LinkReceiver;
use belfry_relay_api::{FromRelay, ToRelay};
use belfry_signal::{Pii, Region, now_unix_nanos};
use belfry_signalling::Holdings;
use belfry_signalling::handle::{FlowToken, FromEdge, Inbound, SendFailure, Target, ToEdge, Transport};
use belfry_state::CallRecord;
use tokio::time::Instant;

use crate::clock;
use crate::core_house::{Brake, CoreHouse, let_threads_work};
use crate::dice::Seed;
use crate::message::Message;
use crate::network::Network;
use crate::phone::{Action, Phone, Story, Wake};
use crate::relay::Relay;
use crate::script::{CallScript, Outage, Trouble, registrations};
use crate::witness::{Crash, End, Witness, call_of};

/// Calls begin within so many milliseconds.
const WINDOW_MS: u64 = 90_000;
/// After the last event nothing may be left after so long: the lifetime of a call, and of its transactions.
const PEACE_MS: u64 = 330_000;
/// What an outage is to blame for: everything that a call said or heard so long before and after it. A transaction lives
/// for 32 s, and a caller whom nobody answered asks as long.
const TROUBLE_MS: u64 = 40_000;
/// Calls of a fault's story that are printed.
const TOLD_MAX: usize = 3;

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of everything that crossed the core's door, and when.
    pub hash: u64,
    /// Calls that were begun, answered, and have a record.
    pub calls: usize,
    /// Calls whose caller heard somebody pick up.
    pub answered: usize,
    /// Call records.
    pub records: usize,
    /// Messages that reached the core, and that it sent.
    pub messages: usize,
}

#[derive(Debug)]
enum Event {
    Begin(usize),
    Die(usize),
    Wake(usize, Wake),
    /// A message reaches the core.
    ToCore(usize, Vec<u8>),
    /// A message reaches a phone.
    ToPhone(usize, Vec<u8>),
    /// A reply of the relay to what came over this link, by its number.
    FromRelay(usize, FromRelay),
    /// What the edge has to say about what came over this link.
    Edge(usize, FromEdge),
    Register(usize, u64),
    Lose(Trouble),
    Return(Trouble),
}

struct World {
    story: Story,
    began: Instant,
    house: CoreHouse,
    network: Network,
    relay: Relay,
    witness: Witness,
    phones: Vec<Phone>,
    by_flow: HashMap<String, usize>,
    /// The call of each Call-ID that the core made up.
    masks: HashMap<String, usize>,
    /// Time, order, event.
    events: BinaryHeap<Reverse<Queued>>,
    last_event: u64,
    outages: Vec<Outage>,
    crashes: Vec<Crash>,
    /// Links that were lost so far: what was asked over one is not answered over the next.
    links_lost: usize,
    /// What crossed the core's door: time and text, by call.
    told: BTreeMap<Option<usize>, Vec<(u64, String)>>,
    messages: usize,
}

#[derive(Debug)]
struct Queued(u64, u64, Event);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// All that the core does now and then, it has done as often after so many seconds.
const TURN_SECONDS: u64 = 120;

/// Runs one seed with so many calls.
///
/// # Errors
/// Everything that should not have been, with the stories of some calls that it happened to.
///
/// # Panics
/// When the core cannot be started.
pub fn run(seed: u64, calls: usize) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let _clock = clock::begin();
        let mut world = World::begin(Seed(seed), calls).await;
        world.play().await;
        world.end().await
    })
}

/// Phones by user: how many each has, and the parameters of their contacts.
fn households(seed: Seed) -> Vec<(String, Vec<(Transport, &'static str)>)> {
    let mut dice = seed.dice("households");
    let mut phone = |params| (dice.pick(&[Transport::Udp, Transport::Udp, Transport::Tcp]), params);
    let mut users: Vec<_> = (0..8).map(|n| (format!("single{n}"), vec![phone("")])).collect();
    users.extend((0..3).map(|n| (format!("double{n}"), vec![phone(""), phone("")])));
    users.push(("triple".to_owned(), vec![phone(""), phone(""), phone("")]));
    users.push(("ordered".to_owned(), vec![phone(";q=1.0"), phone(";q=0.5"), phone(";q=0.5")]));
    users
}

impl World {
    async fn begin(seed: Seed, calls: usize) -> Self {
        let households = households(seed);
        let mut phones = Vec::new();
        let mut params = Vec::new();
        for (user, owned) in &households {
            for (transport, param) in owned {
                phones.push(Phone::new(phones.len(), user, *transport));
                params.push(*param);
            }
        }
        let registered = phones.len();
        for last in [201, 202, 203] {
            phones.push(Phone::gateway(phones.len(), SocketAddr::from(([192, 0, 2, last], 5060))));
        }
        let mut users: Vec<String> = households.iter().map(|(user, _)| user.clone()).collect();
        let mut called: Vec<String> = users.iter().cloned().cycle().take(3 * users.len()).collect();
        called.extend(["+4930123", "+4930124", "+4930125", "+4930126", "ghost", "away"].map(str::to_owned));
        users.push("away".to_owned());
        // A carrier calls in, too.
        let callers: Vec<usize> = (0..registered).chain([registered + 1, registered + 1]).collect();
        let script = |number| CallScript::of(seed, number, &callers, &called, WINDOW_MS);
        let scripts: Vec<CallScript> = (0..calls).map(script).collect();
        let house = CoreHouse::start(seed, &users, &["ghost".to_owned(), "gateway".to_owned()]).await;
        let by_flow = phones.iter().map(|phone| (phone.flow.clone(), phone.index)).collect();
        let story = Story { seed, scripts, picked_up: BTreeMap::new(), now: 0 };
        let mut world = Self {
            story,
            began: Instant::now(),
            house,
            network: Network::new(seed),
            relay: Relay::new(seed),
            witness: Witness::default(),
            phones,
            by_flow,
            masks: HashMap::new(),
            events: BinaryHeap::new(),
            last_event: 0,
            outages: Outage::of(seed, WINDOW_MS),
            crashes: Vec::new(),
            links_lost: 0,
            told: BTreeMap::new(),
            messages: 0,
        };
        let brake = Brake::put();
        for (phone, params) in params.into_iter().enumerate() {
            world.register(phone, params).await;
        }
        brake.release();
        // However long that took, the core's wheels stand as they did at their beginning.
        let turns = world.house.origin.elapsed().as_secs() / TURN_SECONDS + 1;
        tokio::time::sleep_until(world.house.origin + Duration::from_secs(turns * TURN_SECONDS)).await;
        world.began = Instant::now();
        world.schedule_story(registered);
        world
    }

    /// Registrations are before the story: they need the journal's thread, which knows nothing of our time.
    async fn register(&mut self, phone: usize, params: &str) {
        let first = self.phones[phone].register(params, None);
        self.give_to_core(phone, first);
        let challenged = self.hear_status(401).await;
        let second = self.phones[phone].register(params, Some(&challenged));
        self.give_to_core(phone, second);
        self.hear_status(200).await;
    }

    async fn hear_status(&mut self, status: u16) -> Message {
        loop {
            let (_, from_core) = self.house.life.edge.as_mut().expect("the edge is there");
            let sent = from_core.recv().await.expect("the core lives");
            let ToEdge::Send { bytes, .. } = sent else { continue };
            let message = Message::read(&bytes).expect("the core speaks SIP");
            if message.method() == "REGISTER" {
                assert_eq!(message.status(), status, "{}", String::from_utf8_lossy(&bytes));
                return message;
            }
        }
    }

    fn schedule_story(&mut self, registered: usize) {
        for number in 0..self.story.scripts.len() {
            self.schedule(self.story.scripts[number].begin_ms, Event::Begin(number));
        }
        for outage in self.outages.clone() {
            self.schedule(outage.from_ms, Event::Lose(outage.trouble));
            self.schedule(outage.to_ms, Event::Return(outage.trouble));
        }
        self.witness.story_begins();
        for phone in 0..registered {
            self.witness.bound(phone, "", 3_600_000);
            for (at, seconds) in registrations(self.story.seed, phone, WINDOW_MS) {
                self.schedule(at, Event::Register(phone, seconds));
            }
        }
        let mut dice = self.story.seed.dice("deaths");
        for phone in 0..registered {
            let at = dice.roll(3 * WINDOW_MS);
            if dice.happens(80) {
                self.schedule(at, Event::Die(phone));
            }
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.last_event += 1;
        self.events.push(Reverse(Queued(at, self.last_event, event)));
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Lets everything happen, until nothing is left and the core has nothing to do.
    async fn play(&mut self) {
        let mut quiet_since = None;
        loop {
            let now = self.now();
            self.story.now = now;
            while self.events.peek().is_some_and(|Reverse(Queued(at, ..))| *at <= now) {
                let Some(Reverse(Queued(_, _, event))) = self.events.pop() else { break };
                match event {
                    Event::Lose(trouble) => self.lose(trouble).await,
                    Event::Return(trouble) => self.come_back(trouble).await,
                    event => self.happen(event),
                }
            }
            let next = self.events.peek().map(|Reverse(Queued(at, ..))| *at);
            if next.is_some() {
                quiet_since = None;
            } else {
                let since = *quiet_since.get_or_insert(now);
                if is_at_peace(self.house.life.core.holdings().await) || now > since + PEACE_MS {
                    return;
                }
            }
            self.let_the_disk_work().await;
            let until = self.began + Duration::from_millis(next.unwrap_or(now + 500).max(now + 1));
            tokio::select! {
                biased;
                Some(sent) = next_of(&mut self.house.life.edge) => self.core_said(sent),
                Some(asked) = next_of(&mut self.house.life.relay) => self.relay_asked(asked),
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// The books have a thread of their own, which knows nothing of our time: it stands still until they have written.
    async fn let_the_disk_work(&mut self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        if !self.is_writing().await {
            return;
        }
        let brake = Brake::put();
        while self.is_writing().await {
            let_threads_work().await;
        }
        brake.release();
    }

    async fn lose(&mut self, trouble: Trouble) {
        self.links_lost += 1;
        match trouble {
            Trouble::Edge => self.house.life.edge = None,
            Trouble::Relay => self.house.life.relay = None,
            Trouble::Core => {
                let brake = Brake::put();
                let calls = self.house.life.core.holdings().await.calls;
                self.house.crash().await;
                self.crashes.push(Crash { unix_nanos: now_unix_nanos(), calls });
                brake.release();
                self.witness.life += 1;
            }
        }
    }

    async fn come_back(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Edge => self.house.life.meet_edge().await,
            Trouble::Relay => self.house.life.meet_relay().await,
            Trouble::Core => self.house.start_again().await,
        }
    }

    async fn is_writing(&self) -> bool {
        let holdings = self.house.life.core.holdings().await;
        holdings.jobs + holdings.records > 0
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Begin(number) => {
                let caller = self.story.scripts[number].caller;
                if !self.phones[caller].is_dead {
                    self.phones[caller].call(&self.story, number);
                    self.act(caller);
                }
            }
            Event::Wake(phone, wake) => {
                if !self.phones[phone].is_dead {
                    self.phones[phone].wake(&mut self.story, &wake);
                    self.act(phone);
                }
            }
            Event::Die(phone) => self.die(phone),
            Event::ToCore(phone, bytes) => self.give_to_core(phone, bytes),
            Event::ToPhone(phone, bytes) => {
                let Some(message) = Message::read(&bytes) else { return };
                if !self.phones[phone].is_dead {
                    let call = self.call_of(&message).unwrap_or(usize::MAX);
                    self.phones[phone].hear(&mut self.story, &message, call);
                    self.act(phone);
                }
            }
            Event::FromRelay(link, reply) => {
                if let Some((to_core, _)) = self.house.life.relay.as_ref().filter(|_| link == self.links_lost)
                {
                    to_core.try_send(reply).expect("room for a reply");
                }
            }
            Event::Edge(link, told) => {
                if let Some((to_core, _)) = self.house.life.edge.as_ref().filter(|_| link == self.links_lost)
                {
                    to_core.try_send(told).expect("room for what the edge tells");
                }
            }
            Event::Register(phone, seconds) => {
                if !self.phones[phone].is_dead {
                    self.phones[phone].register_again(seconds, None);
                    self.act(phone);
                }
            }
            // They take time, and are seen to elsewhere.
            Event::Lose(_) | Event::Return(_) => {}
        }
    }

    /// A phone is switched off; who holds its connection notices.
    fn die(&mut self, phone: usize) {
        if std::mem::replace(&mut self.phones[phone].is_dead, true)
            || !self.phones[phone].transport.is_reliable()
        {
            return;
        }
        let flow = FlowToken(self.phones[phone].flow.clone());
        self.schedule(self.story.now + 5, Event::Edge(self.links_lost, FromEdge::FlowClosed { flow }));
    }

    fn act(&mut self, phone: usize) {
        for action in self.phones[phone].take_actions() {
            let now = self.story.now;
            match action {
                Action::Send(bytes) => self.phone_said(phone, bytes),
                Action::Wake(after, wake) => self.schedule(now + after, Event::Wake(phone, wake)),
                Action::Die => self.die(phone),
            }
        }
    }

    /// The call of a message: phones and the core carry its number with them; what the core makes itself has the Call-ID.
    fn call_of(&mut self, message: &Message) -> Option<usize> {
        let id = message.call_id();
        if let Some(number) = id.strip_prefix("sim-").and_then(|number| number.parse().ok()) {
            return Some(number);
        }
        let number =
            message.sip().extension("X-Sim").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        match number {
            Some(number) => drop(self.masks.insert(id, number)),
            None => return self.masks.get(&id).copied(),
        }
        number
    }

    /// What the dice and the traces call a message of a phone.
    fn name_of(&mut self, phone: usize, is_up: bool, message: &Message) -> (Option<usize>, String) {
        let call = self.call_of(message);
        let way = if is_up { "->" } else { "<-" };
        let number = call.map_or_else(String::new, |call| call.to_string());
        (call, format!("{phone}{way} {number} {}", message.label()))
    }

    fn phone_said(&mut self, phone: usize, bytes: Vec<u8>) {
        let Some(message) = Message::read(&bytes) else {
            self.witness.nonsense.push(format!("a phone of ours said {}", String::from_utf8_lossy(&bytes)));
            return;
        };
        let (_, name) = self.name_of(phone, true, &message);
        let now = self.story.now;
        if self.phones[phone].transport.is_reliable() {
            let at = self.network.stream(&name, true, phone, now);
            return self.schedule(at, Event::ToCore(phone, bytes));
        }
        for delay in self.network.datagram(&name) {
            self.schedule(now + delay, Event::ToCore(phone, bytes.clone()));
        }
    }

    fn give_to_core(&mut self, phone: usize, bytes: Vec<u8>) {
        let now = self.story.now;
        // Nobody is there to take it: the phone repeats it, if it can.
        let Some(to_core) = self.house.life.edge.as_ref().map(|(to_core, _)| to_core.clone()) else { return };
        if let Some(message) = Message::read(&bytes) {
            let (call, name) = self.name_of(phone, true, &message);
            self.tell(call, name);
            self.witness.came(phone, call.unwrap_or(usize::MAX), &message, now);
        }
        let phone = &self.phones[phone];
        let inbound = Inbound {
            flow: FlowToken(phone.flow.clone()),
            transport: phone.transport,
            source: Pii::new(phone.source),
            region: Region::configured("eu").expect("a plain name"),
            country: Some("GB".to_owned()),
            peer_names: Vec::new(),
            received_unix_nanos: now_unix_nanos(),
            bytes,
        };
        self.messages += 1;
        to_core.try_send(FromEdge::Message(inbound)).expect("room for a message");
    }

    fn core_said(&mut self, sent: ToEdge) {
        // Nobody here guesses passwords.
        let ToEdge::Send { id, target, bytes } = sent else { return };
        self.story.now = self.now();
        let flow = match &target {
            Target::Flow(FlowToken(token)) => token.clone(),
            Target::Address { address, .. } => address.to_string(),
        };
        let (Some(phone), Some(message)) = (self.by_flow.get(&flow).copied(), Message::read(&bytes)) else {
            let text = format!("the core said to {flow}: {}", String::from_utf8_lossy(&bytes));
            return self.witness.nonsense.push(text);
        };
        self.messages += 1;
        let (call, name) = self.name_of(phone, false, &message);
        let now = self.story.now;
        self.witness.went(phone, call.unwrap_or(usize::MAX), &message, now);
        if call.is_some() || message.method() == "REGISTER" {
            self.tell(call, name.clone());
        }
        self.check_binding(phone, call, &message);
        let is_reliable = self.phones[phone].transport.is_reliable();
        let failure = match is_reliable {
            true => self.phones[phone].is_dead.then_some(SendFailure::FlowGone),
            false => self.network.is_unsendable(&name).then_some(SendFailure::Unreachable),
        };
        if let Some(failure) = failure {
            if message.method() == "INVITE" && message.status() == 0 {
                self.witness.was_unsendable(phone, &message.branch());
            }
            self.tell(call, format!("   ({name} could not be sent)"));
            self.schedule(now + 1, Event::Edge(self.links_lost, FromEdge::SendFailed { id, failure }));
        } else if !is_reliable {
            for delay in self.network.datagram(&name) {
                self.schedule(now + delay, Event::ToPhone(phone, bytes.clone()));
            }
        } else {
            let at = self.network.stream(&name, false, phone, now);
            self.schedule(at, Event::ToPhone(phone, bytes));
        }
    }

    /// What a registration came to, and that nobody is called who was not registered when the call began.
    fn check_binding(&mut self, phone: usize, call: Option<usize>, message: &Message) {
        if message.method() == "REGISTER" && (200..300).contains(&message.status()) {
            let source = self.phones[phone].source.to_string();
            let contact = message.sip().contacts().find(|contact| {
                contact.address().is_some_and(|address| address.uri.as_str().contains(&source))
            });
            let seconds = contact.and_then(|contact| contact.expires_seconds()).unwrap_or(0);
            let until = self.story.now + u64::from(seconds) * 1000;
            self.witness.bound(phone, &message.branch(), until);
        }
        let is_first = message.method() == "INVITE" && message.status() == 0 && message.to_tag().is_empty();
        let script = call.and_then(|call| self.story.scripts.get(call)).filter(|_| is_first);
        if let Some(script) = script {
            self.witness.was_called(phone, call.unwrap_or_default(), script.begin_ms);
        }
    }

    /// Calls that an outage may have harmed: they were under way then.
    fn troubled(&self, is_harmful: impl Fn(&Outage) -> bool) -> BTreeSet<usize> {
        let outages: Vec<&Outage> = self.outages.iter().filter(|outage| is_harmful(outage)).collect();
        let harms = |call: usize| {
            let told = self.told.get(&Some(call)).map(Vec::as_slice).unwrap_or_default();
            let times = told.iter().map(|(at, _)| *at).chain([self.story.scripts[call].begin_ms]);
            let (first, last) = times.fold((u64::MAX, 0), |(first, last), at| (first.min(at), last.max(at)));
            outages
                .iter()
                .any(|outage| first <= outage.to_ms + TROUBLE_MS && last + TROUBLE_MS >= outage.from_ms)
        };
        (0..self.story.scripts.len()).filter(|call| harms(*call)).collect()
    }

    /// Calls that the core ended while the edge was away, as one that rang too long: nobody could be told.
    fn ended_untold(&self, records: &[CallRecord], began_unix_nanos: u64) -> BTreeSet<usize> {
        let away = self.outages.iter().filter(|outage| outage.trouble == Trouble::Edge);
        let away: Vec<_> = away.map(|outage| outage.from_ms..=outage.to_ms).collect();
        let is_untold = |record: &&CallRecord| {
            let end_ms = record.end_unix_nanos.saturating_sub(began_unix_nanos) / 1_000_000;
            away.iter().any(|away| away.contains(&end_ms))
        };
        records.iter().filter(is_untold).filter_map(call_of).collect()
    }

    fn relay_asked(&mut self, asked: ToRelay) {
        let now = self.now();
        let (delay, reply) = self.relay.asked(asked.request);
        let reply = FromRelay::Reply { id: asked.id, reply };
        self.schedule(now + delay, Event::FromRelay(self.links_lost, reply));
    }

    fn tell(&mut self, call: Option<usize>, text: String) {
        let now = self.story.now;
        self.told.entry(call).or_default().push((now, text));
    }

    /// Looks at what is left, and at the records.
    async fn end(self) -> Result<Outcome, String> {
        let holdings = self.house.life.core.holdings().await;
        // The gauges follow once a second.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let virtual_ms = self.now();
        let began_unix_nanos = now_unix_nanos() - virtual_ms * 1_000_000;
        tokio::time::resume();
        let records = self.house.state().call_records(1_000_000).await.map_err(|error| error.to_string())?;
        let mut troubled = self.troubled(|outage| outage.trouble != Trouble::Relay);
        // Calls in which nothing was said for long are lost with their core, too.
        troubled.extend(self.witness.lost(&records, &self.crashes));
        troubled.extend(self.ended_untold(&records, began_unix_nanos));
        let end = End {
            records: &records,
            calls: self.story.scripts.len(),
            is_anchored: self.house.config.anchor_media,
            may_hide: self.house.config.hiding.customers || !self.house.config.hiding.trunks.is_empty(),
            ended: self.house.count("core_calls_ended_total"),
            without_relay: self.troubled(|_| true).union(&troubled).copied().collect(),
            troubled,
            crashes: &self.crashes,
        };
        let mut faults = self.witness.faults(&end);
        self.check_memory(holdings, &end, &mut faults);
        self.check_phones(&end, &mut faults);
        self.house.life.core.drain(Duration::ZERO).await;
        self.house.state().drain(Duration::from_secs(10)).await;
        if faults.is_empty() {
            let outcome = Outcome {
                hash: self.hash(),
                calls: self.story.scripts.len(),
                answered: records.iter().filter(|record| record.answer_unix_nanos.is_some()).count(),
                records: records.len(),
                messages: self.messages,
            };
            return Ok(outcome);
        }
        Err(self.story_of(&faults, virtual_ms))
    }

    /// Everything that was held is given back.
    fn check_memory(&self, holdings: Holdings, end: &End<'_>, faults: &mut Vec<(Option<usize>, String)>) {
        if !is_at_peace(holdings) {
            faults.push((None, format!("still held: {holdings:?}")));
        }
        if self.house.config.anchor_media && self.relay.made == 0 {
            faults.push((None, "the relay was never asked".to_owned()));
        }
        for session in &self.relay.open {
            let call = session.strip_prefix("sim-").and_then(|number| number.parse().ok());
            // A relay ends by itself what nobody could tell it of.
            if call.is_some_and(|call| end.without_relay.contains(&call)) {
                continue;
            }
            faults.push((call, format!("the relay still has the session {session}")));
        }
        for gauge in ["core_trunk_calls{", "core_tenant_calls{"] {
            let value = self.house.gauge(gauge);
            if value > 0.5 {
                faults.push((None, format!("{gauge} is {value} in the end")));
            }
        }
        for counter in
            ["core_call_records_total{outcome=\"repeated\"}", "core_call_records_total{outcome=\"failed\"}"]
        {
            let value = self.house.count(counter);
            if value > 0.5 {
                faults.push((None, format!("{counter} is {value}")));
            }
        }
    }

    /// No living phone thinks that it talks to somebody, unless it was told otherwise and did not hear it.
    fn check_phones(&self, end: &End<'_>, faults: &mut Vec<(Option<usize>, String)>) {
        for phone in self.phones.iter().filter(|phone| !phone.is_dead) {
            for dialog in phone.open_dialogs().filter(|dialog| !end.troubled.contains(&dialog.call)) {
                if !self.witness.was_hung_up_on(dialog.call, phone.index, &dialog.local_tag) {
                    let text = format!("phone {} still talks ({})", phone.index, dialog.local_tag);
                    faults.push((Some(dialog.call), text));
                }
            }
        }
    }

    fn hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for (call, lines) in &self.told {
            let mut lines: Vec<_> = lines.iter().collect();
            lines.sort();
            for byte in format!("{call:?} {lines:?}").bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        hash
    }

    fn story_of(&self, faults: &[(Option<usize>, String)], virtual_ms: u64) -> String {
        let config = &self.house.config;
        let mut text = format!(
            "{} faults after {virtual_ms} ms; {:?}; {:?}; anchored {}, hiding {:?}, ring {:?}, session {:?}\n",
            faults.len(),
            self.network.weather,
            self.outages,
            config.anchor_media,
            config.hiding,
            config.ring_timeout,
            config.session_interval,
        );
        for (call, fault) in faults.iter().take(40) {
            text.push_str(&format!("  call {call:?}: {fault}\n"));
        }
        let mut calls: Vec<usize> = faults.iter().filter_map(|(call, _)| *call).collect();
        calls.dedup();
        for call in calls.into_iter().take(TOLD_MAX) {
            text.push_str(&format!("{:?}\n", self.story.scripts.get(call)));
            for (at, line) in self.told.get(&Some(call)).into_iter().flatten() {
                text.push_str(&format!("  {at:>8} {line}\n"));
            }
        }
        text
    }
}

/// The next message over a link, while there is one.
async fn next_of<S, R>(link: &mut Option<(S, LinkReceiver<R>)>) -> Option<R> {
    match link {
        Some((_, receiver)) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether nothing is left but the timer that looks after everything once a second.
fn is_at_peace(holdings: Holdings) -> bool {
    Holdings { timers: holdings.timers.saturating_sub(1), ..holdings } == Holdings::default()
}
