//! The core's one task: it owns all signalling state, takes one closed enum of events, and never waits for
//! anything but the next of them.

mod event;
mod holdings;
mod outputs;
mod routine;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use belfry_mesh::{Mesh, Service};
use belfry_routing::prepaid::Accounts;
use belfry_routing::rating::Tariffs;
use belfry_routing::{Guard, Plan, Usage};
use belfry_signal::{Registry, SpanContext, SpanId, TraceId, TraceKey, now_unix_nanos};
use belfry_sip_proto::timer::Wheel;
use belfry_sip_proto::transaction::{ById, IdSet, Timers, TransactionId, TransactionLayer};
use belfry_state::{Lost, State, Told};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::admission::Gate;
use crate::authority::{Authority, Ban};
use crate::calls::live::Inquiry;
use crate::calls::{Calls, Strangers};
use crate::config::Config;
use crate::dead::DeadPlaces;
use crate::edges::{Edges, Way};
use crate::error::Error;
use crate::exchange::{Branch, CallKey, Exchange};
use crate::keepalive::KeepAlive;
use crate::location::Gruus;
use crate::prepaid::{Follower, Prepaid};
use crate::probing::Gateways;
use crate::received::Received;
use crate::registrar::Verdict;
use crate::relays::Relays;
use crate::resolver::Resolver;
use crate::routes::{Active, Keeper, REROUTES_MAX, Reroute, Routes, RoutesError};
use crate::signals::Signals;
use crate::{edges, relays};

pub use holdings::Holdings;

pub(crate) use event::{Alarm, Control, Done, Event, Found, Purpose, Then};

/// Inquiries from outside that may wait.
const INQUIRIES_MAX: usize = 16;

/// How often the core looks after what no event reminds it of.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Transactions beyond the configured bound, for those who call for help.
const EMERGENCY_TRANSACTIONS_MAX: usize = 1024;
/// Events that are taken in one go: what a turn costs is shared by so many, and orders and timers wait no longer.
const EVENTS_PER_TURN: usize = 64;

/// After so long, others have their turn.
const TURN_MAX: Duration = Duration::from_micros(500);

/// A caller whose INVITE was lost with its core asks again for so long: Timer B of RFC 3261 section 17.1.1.2 and some.
const LOST_CALLERS_PATIENCE: Duration = Duration::from_secs(40);

/// What the core needs from the house.
pub struct Deps {
    /// Where its signals go.
    pub registry: Registry,
    /// The hops to edges and relays.
    pub mesh: Mesh,
    /// Subscribers, bindings and call records.
    pub state: State,
    /// Who may call whom, by which way.
    pub routes: Routes,
    /// Who pays in advance, and by which prices.
    pub prepaid: Prepaid,
    /// Makes a call's trace id.
    pub trace_key: TraceKey,
    /// What a demonstration may break.
    pub faults: Faults,
}

/// Switches that make the core misbehave, for demonstrations and drills. All off by default.
///
/// They outlive a core that is stopped and started again in one process, and so do its metric handles, which can be
/// registered only once.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    answer_503: Arc<AtomicBool>,
    register_delay_ms: Arc<AtomicU64>,
    signals: Arc<OnceLock<Signals>>,
}

impl Faults {
    /// New calls are answered 503.
    pub fn set_answer_503(&self, is_on: bool) {
        self.answer_503.store(is_on, Ordering::Relaxed);
    }

    /// REGISTER is answered so much later.
    pub fn set_register_delay(&self, delay: Duration) {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.register_delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    fn signals(&self, registry: &Registry) -> Signals {
        self.signals.get_or_init(|| Signals::register(registry)).clone()
    }

    pub(crate) fn answers_503(&self) -> bool {
        self.answer_503.load(Ordering::Relaxed)
    }

    pub(crate) fn register_delay(&self) -> Duration {
        Duration::from_millis(self.register_delay_ms.load(Ordering::Relaxed))
    }
}

/// A running core. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CoreHandle {
    control: mpsc::Sender<Control>,
    pub(crate) inquiries: mpsc::Sender<Inquiry>,
    reroutes: mpsc::Sender<Reroute>,
    load: watch::Receiver<Load>,
}

/// What a drain waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    /// Calls that ring or talk.
    live: usize,
    /// Those and the ones whose record is being written.
    open: usize,
}

impl CoreHandle {
    /// Calls that ring or talk now.
    #[must_use]
    pub fn live_calls(&self) -> usize {
        self.load.borrow().live
    }

    /// Takes a new plan of routes into force, together with what was imported; calls under way are not touched.
    ///
    /// # Errors
    /// When it does not hold together: then the old routes stay in force.
    pub async fn reroute(&self, plan: Plan) -> Result<(), RoutesError> {
        let (done, answer) = oneshot::channel();
        self.reroutes.send(Reroute { plan, done }).await.map_err(|_| RoutesError::Stopped)?;
        answer.await.map_err(|_| RoutesError::Stopped)?
    }

    /// Takes no new calls, waits for the live ones, stops. Names what was still there at the deadline; those calls
    /// are hung up and their records written.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        // A core that is gone already has nothing to drain.
        let _ = self.control.send(Control::Drain).await;
        let mut load = self.load.clone();
        let is_empty = async { load.wait_for(|load| load.open == 0).await.map(|_| ()) };
        let _ = tokio::time::timeout(deadline, is_empty).await;
        let open = self.load.borrow().open;
        // The channel closes when the core has stopped and let go of its links.
        let _ = self.control.send(Control::Stop).await;
        self.control.closed().await;
        match open {
            0 => Vec::new(),
            1 => vec!["1 call".to_owned()],
            calls => vec![format!("{calls} calls")],
        }
    }

    /// Who is turned away for guessing passwords, longest first.
    pub async fn bans(&self) -> Vec<Ban> {
        let (answer, bans) = oneshot::channel();
        let _ = self.control.send(Control::Bans(answer)).await;
        bans.await.unwrap_or_default()
    }

    /// What it holds in memory now; nothing, when it is gone.
    pub async fn holdings(&self) -> Holdings {
        let (answer, holdings) = oneshot::channel();
        let _ = self.control.send(Control::Holdings(answer)).await;
        holdings.await.unwrap_or_default()
    }

    /// Orders something; a core that is gone takes no orders, and whoever waits for its answer learns that.
    pub(crate) async fn order(&self, order: Control) {
        let _ = self.control.send(order).await;
    }

    /// Forgives an address (IPv6: its /64) all its failures; whether it was banned.
    pub async fn pardon(&self, source: IpAddr) -> bool {
        let (answer, was_banned) = oneshot::channel();
        let _ = self.control.send(Control::Pardon(source, answer)).await;
        was_banned.await.unwrap_or(false)
    }

    /// Stops at once, as a crash would: no call is ended, no record is written, nobody is told. For demonstrations and
    /// drills.
    pub async fn kill(&self) {
        let _ = self.control.send(Control::Kill).await;
        self.control.closed().await;
    }
}

/// All signalling state of a node.
#[derive(Debug)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) signals: Signals,
    pub(crate) state: State,
    pub(crate) trace_key: TraceKey,
    /// Tells this life of this core from every other; never 0, which stands in the Routes of what is no call.
    pub(crate) life: u32,
    pub(crate) faults: Faults,
    pub(crate) transactions: TransactionLayer<Arc<Way>>,
    pub(crate) timers: Wheel<Alarm>,
    pub(crate) edges: Edges,
    pub(crate) relays: Relays<Then>,
    pub(crate) exchanges: ById<Exchange>,
    pub(crate) branches: ById<Branch>,
    /// Exchanges that leave no messages and no span unless they end badly; forgotten with their transactions.
    routine: IdSet,
    pub(crate) calls: Calls,
    pub(crate) strangers: Strangers,
    pub(crate) authority: Authority,
    /// Refusals of wrong credentials that wait.
    pub(crate) denials_waiting: usize,
    pub(crate) gruus: Gruus,
    /// Registrations that wait for the journal, by the write that takes them, oldest first.
    pub(crate) unwritten: VecDeque<(u64, Vec<(TransactionId, Verdict)>)>,
    pub(crate) keepalive: KeepAlive,
    pub(crate) jobs: JoinSet<Done>,
    /// Where the books tell what became of records.
    pub(crate) told_sender: mpsc::Sender<Told>,
    /// Records that they have not told of.
    pub(crate) records_awaited: usize,
    /// Who may call whom, by which way; swapped as a whole.
    pub(crate) routes: Arc<Active>,
    /// Calls against limits.
    pub(crate) usage: Usage,
    pub(crate) guard: Guard,
    /// Whose money is where.
    pub(crate) accounts: Accounts,
    pub(crate) tariffs: Arc<Tariffs>,
    /// Which gateways of trunks answer.
    pub(crate) gateways: Gateways,
    pub(crate) resolver: Resolver,
    /// Next hops that are being looked up.
    pub(crate) lookups: usize,
    pub(crate) dead: DeadPlaces,
    /// Who comes first under overload.
    pub(crate) gate: Arc<Gate>,
    pub(crate) is_draining: bool,
    /// When the message came that is looked at, by its edge's clock.
    moment: Option<u64>,
    /// Set once the core is to stop: the latest time to do so.
    pub(crate) stop_at: Option<Instant>,
    /// Messages that wait behind the one that is looked at.
    pub(crate) waiting: usize,
    load: watch::Sender<Load>,
    inquiries: mpsc::Receiver<Inquiry>,
    /// Takes links from edges and relays; they end with the core.
    _doors: JoinSet<()>,
    hasher: RandomState,
}

/// What the core listens to.
struct Inbox {
    events: mpsc::Receiver<Event>,
    /// Of those whom nobody knows.
    strangers: mpsc::Receiver<Box<Received>>,
    control: mpsc::Receiver<Control>,
    /// What became of call records.
    told: mpsc::Receiver<Told>,
}

fn must_hold_together(config: &Config) -> Result<(), Error> {
    match config.check().into_iter().next() {
        Some((key, allowed)) => Err(Error::Config { key, allowed }),
        None => Ok(()),
    }
}

fn transaction_layer(config: &Config) -> TransactionLayer<Arc<Way>> {
    let places = config.transactions_max + EMERGENCY_TRANSACTIONS_MAX;
    TransactionLayer::new(Timers::RFC3261, places, now())
}

impl Core {
    /// Starts the core: it takes links from edges and relays until it is drained.
    ///
    /// # Errors
    /// When the configuration does not hold together.
    pub fn start(config: Config, deps: Deps) -> Result<CoreHandle, Error> {
        must_hold_together(&config)?;
        let signals = deps.faults.signals(&deps.registry);
        signals.started(config.domains.len());
        let (events, event_receiver) = mpsc::channel(config.queue_messages_max);
        let (strangers, stranger_receiver) = mpsc::channel(config.queue_strangers_max);
        let (control, control_receiver) = mpsc::channel(4);
        let (load_sender, load) = watch::channel(Load::default());
        let (inquiries, inquiry_receiver) = mpsc::channel(INQUIRIES_MAX);
        let routes = deps.routes.active();
        let published = watch::Sender::new(Arc::clone(&routes));
        let reader = reader_of(&config, &deps, signals.clone(), (events.clone(), strangers), &published);
        let gate = Arc::clone(&reader.gate);
        let (reroutes, reroute_receiver) = mpsc::channel(REROUTES_MAX);
        let keeper =
            Keeper::new(deps.routes, deps.state.clone(), signals.clone(), control.downgrade(), published);
        let mut doors = JoinSet::new();
        doors.spawn(keeper.run(reroute_receiver, config.routes_poll_interval));
        doors.spawn(edges::accept(deps.mesh.serve(Service::Signalling), reader));
        doors.spawn(relays::accept(deps.mesh.dial(Service::Media), events));
        let (told_sender, told) = mpsc::channel(config.calls_max);
        let inbox =
            Inbox { events: event_receiver, strangers: stranger_receiver, control: control_receiver, told };
        let mut core = Self {
            signals,
            calls: Calls::new(deps.state.books().clone()),
            state: deps.state,
            gruus: Gruus::new(&deps.trace_key),
            trace_key: deps.trace_key,
            life: rand::random_range(1..=u32::MAX),
            faults: deps.faults,
            transactions: transaction_layer(&config),
            timers: Wheel::new(now()),
            edges: Edges::default(),
            relays: Relays::new(),
            exchanges: ById::default(),
            branches: ById::default(),
            routine: IdSet::default(),
            strangers: Strangers::default(),
            authority: Authority::new(&config),
            denials_waiting: 0,
            unwritten: VecDeque::new(),
            keepalive: KeepAlive::default(),
            jobs: JoinSet::new(),
            told_sender,
            records_awaited: 0,
            routes,
            usage: Usage::default(),
            guard: Guard::default(),
            accounts: deps.prepaid.accounts(),
            tariffs: deps.prepaid.tariffs(),
            gateways: Gateways::default(),
            resolver: Resolver::new(&config),
            lookups: 0,
            gate,
            dead: DeadPlaces::new(config.dead_next_hop_timeout, config.dead_next_hops_max),
            is_draining: false,
            moment: None,
            stop_at: None,
            waiting: 0,
            load: load_sender,
            inquiries: inquiry_receiver,
            _doors: doors,
            hasher: RandomState::new(),
            config,
        };
        core.start_following(deps.prepaid, control.downgrade());
        tokio::spawn(core.run(inbox));
        Ok(CoreHandle { control, reroutes, inquiries, load })
    }

    /// Calls of before get their records, and then balances are read.
    fn start_following(&mut self, prepaid: Prepaid, core: mpsc::WeakSender<Control>) {
        let follower = Follower::new(prepaid, self.state.clone(), self.signals.prepaid.clone(), core);
        // The order is handed in here: what the follower waits for includes it.
        self.close_lost_calls(Lost::Answered);
        self._doors.spawn(follower.run(self.config.prepaid.poll_interval));
    }

    async fn run(mut self, inbox: Inbox) {
        let Inbox { mut events, mut strangers, mut control, mut told } = inbox;
        self.timers.set(now() + SWEEP_INTERVAL, Alarm::Sweep);
        self.gateways.probes.follow(&self.routes.table, now(), unix_seconds());
        self.timers.set(now() + LOST_CALLERS_PATIENCE, Alarm::LostCallers);
        let mut batch = Vec::with_capacity(EVENTS_PER_TURN);
        let mut records = Vec::new();
        let mut alarm = pin!(tokio::time::sleep_until(now().into()));
        let mut turn_began = Instant::now();
        loop {
            self.set_alarm(alarm.as_mut());
            tokio::select! {
                biased;
                Some(order) = control.recv() => match order {
                    Control::Drain => self.begin_drain(),
                    Control::Stop => self.begin_stop(),
                    Control::Kill => return,
                    Control::Routes(routes) => self.follow_routes(routes),
                    Control::Gateways(answer) => drop(answer.send(self.gateway_states())),
                    Control::Accounts(news) => self.on_account_news(*news),
                    // Whoever asked may be gone.
                    Control::Bans(answer) => drop(answer.send(self.bans())),
                    Control::Holdings(answer) => drop(answer.send(self.holdings())),
                    Control::Pardon(source, answer) => drop(answer.send(self.pardon(source))),
                },
                () = alarm.as_mut() => {}
                Some(done) = self.jobs.join_next() => self.on_done(done),
                // We hold a sender, so that it does not end.
                _ = told.recv_many(&mut records, EVENTS_PER_TURN) => self.on_records(records.drain(..)),
                Some(inquiry) = self.inquiries.recv() => self.on_inquiry(inquiry),
                count = events.recv_many(&mut batch, EVENTS_PER_TURN) => if count == 0 { return },
                // Last of all: what is left over is theirs.
                Some(received) = strangers.recv() => {
                    self.waiting = events.len();
                    self.on_stranger_message(*received);
                }
            }
            self.waiting = events.len() + batch.len();
            for event in batch.drain(..) {
                self.waiting -= 1;
                self.on_event(event);
                self.finish_step();
            }
            self.on_time();
            self.finish_step();
            // The books hear of everything in this turn at once, before the edge, whose turn comes after ours.
            self.state.books().nudge();
            self.publish_load();
            // Others share the thread, among them whoever empties the sockets: a core that is busy must not starve them.
            if turn_began.elapsed() > TURN_MAX {
                if !events.is_empty() || !strangers.is_empty() {
                    tokio::task::yield_now().await;
                }
                turn_began = Instant::now();
            }
            if self.stop_at.is_some_and(|at| self.calls.len() == 0 || at <= now()) {
                // The last word of the gauges.
                self.report_usage();
                return;
            }
        }
    }

    /// Sets the alarm for the next timer. One that is set too early stays, because it costs less to wake up in vain now
    /// and then than to move it with every message.
    fn set_alarm(&self, alarm: Pin<&mut Sleep>) {
        let next = [self.timers.deadline(), self.transactions.deadline()].into_iter().flatten().min();
        let next = tokio::time::Instant::from_std(next.unwrap_or_else(|| now() + SWEEP_INTERVAL));
        if alarm.is_elapsed() || next < alarm.deadline() {
            alarm.reset(next);
        }
    }

    /// Lets the world know what one event led to, once the books have it.
    fn finish_step(&mut self) {
        self.calls.note_changes(self.signals.node());
        self.drain_outputs();
    }

    /// From now on calls go by these routes.
    fn follow_routes(&mut self, routes: Arc<Active>) {
        self.gateways.probes.follow(&routes.table, now(), unix_seconds());
        self.routes = routes;
        self.follow_bans();
    }

    fn begin_drain(&mut self) {
        self.is_draining = true;
        self.signals.drain_began(self.calls.live_count());
    }

    /// Ends what is still there, and waits for its records as long as the store may take.
    fn begin_stop(&mut self) {
        self.is_draining = true;
        self.end_all_calls();
        let at = now() + self.config.relay_timeout + self.config.store_timeout;
        self.stop_at = Some(at);
        self.timers.set(at, Alarm::Sweep);
    }

    fn publish_load(&mut self) {
        let load = Load { live: self.calls.live_count(), open: self.calls.len() };
        self.load.send_if_modified(|known| std::mem::replace(known, load) != load);
    }

    /// Looks after what no event reminds us of.
    pub(crate) fn sweep(&mut self) {
        if self.stop_at.is_none() {
            self.timers.set(now() + SWEEP_INTERVAL, Alarm::Sweep);
        }
        self.expire_bindings(now_unix_nanos());
        self.dead.forget_old(now());
        self.authority.guard.expire(now());
        self.follow_bans();
        self.signals.customers.bans_changed(self.authority.guard.bans_count());
        self.keep_alive();
        self.probe_gateways();
        self.report_strangers();
        self.report_usage();
        self.report_accounts();
        let (calls, dead) = (self.calls.live_count(), self.dead.len());
        self.signals.load_changed(calls, self.transactions.len(), self.waiting, dead);
    }

    /// A span in the trace of a Call-ID; below its call's root, when there is a call.
    pub(crate) fn span_of(&self, call_id: &str, trace_id: TraceId) -> (SpanContext, Option<SpanId>) {
        if let Some(root) = self.calls.root(call_id) {
            return (root.child(), Some(root.span_id));
        }
        (SpanContext { trace_id, span_id: SpanId::random(), sampled: true }, None)
    }

    /// When what happens now happened, in nanoseconds since the Unix epoch: when its message came to the edge, whatever
    /// it waited for us. What lasts from message to message is measured by it, and bills are made from it.
    pub(crate) fn moment(&self) -> u64 {
        self.moment.unwrap_or_else(now_unix_nanos)
    }

    /// A hash that only this process can make: tags, branches and loop marks.
    pub(crate) fn hash(&self, of: impl std::hash::Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    /// The key of the call with this Call-ID, when it lives.
    pub(crate) fn call_key(&self, call_id: &str) -> Option<CallKey> {
        self.calls.key(call_id)
    }
}

/// What the tasks of links need.
fn reader_of(
    config: &Config,
    deps: &Deps,
    signals: Signals,
    (events, strangers): (mpsc::Sender<Event>, mpsc::Sender<Box<Received>>),
    routes: &watch::Sender<Arc<Active>>,
) -> edges::Reader {
    let (flows_max, per_network_max) = (config.known_flows_max, config.known_flows_per_network_max);
    let gate = Arc::new(Gate::new(config.admission_rules(), flows_max, per_network_max));
    edges::Reader {
        events,
        strangers,
        gate,
        routes: routes.subscribe(),
        retry_after: config.retry_after.as_secs().to_string().into(),
        signals,
        trace_key: deps.trace_key.clone(),
        limits: config.message.limits(),
    }
}

/// The time of all timers; under a test's paused clock it is the test's time.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Seconds since the Unix epoch.
pub(crate) fn unix_seconds() -> u64 {
    now_unix_nanos() / 1_000_000_000
}
