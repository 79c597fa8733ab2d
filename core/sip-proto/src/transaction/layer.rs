//! The layer: finds the machine, runs it, and carries out its effects with timers and bytes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

use super::client::{Client, Passing};
use super::key::{ClientKey, ServerKey};
use super::server::Server;
use super::{Effects, MethodKind, Output, Timers, TransactionId, Transmit};
use crate::timer::{TimerKey, Wheel};

/// A request that the user wants to send in a transaction.
#[derive(Clone, Debug)]
pub struct ClientRequest<P> {
    /// How its responses find it.
    pub key: ClientKey,
    /// INVITE or not; an ACK has no transaction.
    pub method: MethodKind,
    /// Where it goes.
    pub path: P,
    /// Whether the transport never loses (TCP, TLS, WebSocket).
    pub is_reliable: bool,
    /// The message.
    pub bytes: Vec<u8>,
}

/// What a request from the network turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRequest {
    /// New: the user answers it with [`TransactionLayer::respond`].
    New(TransactionId),
    /// Seen before; answered from state if there is an answer.
    Repeated(TransactionId),
    /// An ACK of a failed INVITE: it ends here.
    Acknowledged(TransactionId),
    /// An ACK that shares the branch of an answered INVITE: for the user.
    AcknowledgedSuccess(TransactionId),
    /// An ACK of no transaction of ours: the ACK of a 2xx, for the user to forward.
    Unmatched,
    /// New, and there is no room: answer 503 without a transaction.
    Refused,
}

/// What a response from the network turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnResponse {
    /// For the user. When it is a failure of an INVITE, [`TransactionLayer::acknowledge`] must follow.
    ToUser(TransactionId),
    /// It repeats what the user has seen.
    Absorbed(TransactionId),
    /// No transaction of ours.
    Stray,
}

/// Why the user could not do what it wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The bound on transactions is reached.
    #[error("as many transactions are open as may be")]
    Full,
    /// The key is in use: a branch was made twice.
    #[error("a transaction with this key is open")]
    Duplicate,
    /// The transaction is over, or past this step.
    #[error("the transaction is over")]
    Over,
}

/// Every transaction of one owner.
#[derive(Debug)]
pub struct TransactionLayer<P> {
    timers: Timers,
    transactions_max: usize,
    wheel: Wheel<Alarm>,
    transactions: ById<Transaction<P>>,
    /// Server transactions with nothing left to do but to repeat their answer, and to end.
    answered: ById<Answered<P>>,
    /// When those end: all after the same time, so the first one in is the first one out.
    ends: VecDeque<(Instant, TransactionId)>,
    /// Their ends are told in steps of [`END_STEP`] from here.
    origin: Instant,
    clients: HashMap<ClientKey, TransactionId>,
    servers: HashMap<Fingerprint, TransactionId>,
    hashers: [RandomState; 2],
    last_id: u64,
    outputs: VecDeque<Output<P>>,
}

#[derive(Debug)]
struct Transaction<P> {
    machine: Machine,
    path: P,
    /// Kept for repeating: a request, its ACK, or the last response. Empty when there is nothing to repeat.
    kept: Vec<u8>,
    repeat: Option<TimerKey>,
    end: Option<TimerKey>,
    is_cancelled: bool,
}

/// What is kept by transaction. Ids are our own numbers: nobody can choose them so that they collide.
pub type ById<V> = HashMap<TransactionId, V, FixedState>;

/// Transactions among others, in the same way.
pub type IdSet = HashSet<TransactionId, FixedState>;

/// Stands for a server transaction's key: keyed hashes that nobody else can make, so wide that two keys never share one.
type Fingerprint = [u64; 2];

/// Timer J may be so much late: one wake-up ends many transactions.
const END_STEP: Duration = Duration::from_millis(100);

/// What is left of a server transaction, not of an INVITE, that was answered finally over UDP: it is most of what a
/// registrar remembers, so it is kept small.
#[derive(Debug)]
struct Answered<P> {
    key: Fingerprint,
    path: P,
    bytes: Box<[u8]>,
}

#[derive(Debug)]
enum Machine {
    Client(ClientKey, Client),
    Server(Fingerprint, Server),
}

#[derive(Clone, Copy, Debug)]
enum Alarm {
    Repeat(TransactionId),
    End(TransactionId),
}

impl<P: Clone> TransactionLayer<P> {
    /// A layer that holds at most `transactions_max` transactions at a time.
    #[must_use]
    pub fn new(timers: Timers, transactions_max: usize, now: Instant) -> Self {
        Self {
            timers,
            transactions_max,
            wheel: Wheel::new(now),
            transactions: HashMap::default(),
            answered: HashMap::default(),
            ends: VecDeque::new(),
            origin: now,
            clients: HashMap::new(),
            servers: HashMap::new(),
            hashers: [RandomState::new(), RandomState::new()],
            last_id: 0,
            outputs: VecDeque::new(),
        }
    }

    /// How many transactions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.transactions.len() + self.answered.len()
    }

    /// Whether no transaction is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A request came from the network; responses to it go along `path`.
    pub fn on_request(&mut self, key: ServerKey, path: P, is_reliable: bool, now: Instant) -> OnRequest {
        let fingerprint = self.fingerprint(&key);
        if let Some(&id) = self.servers.get(&fingerprint) {
            return self.on_known_request(id, key.method(), now);
        }
        if key.method() == MethodKind::Ack {
            return OnRequest::Unmatched;
        }
        if self.len() >= self.transactions_max {
            return OnRequest::Refused;
        }
        let id = self.next_id();
        let machine = Server::new(key.method() == MethodKind::Invite, is_reliable, &self.timers);
        self.servers.insert(fingerprint, id);
        self.transactions.insert(id, Transaction::new(Machine::Server(fingerprint, machine), path));
        OnRequest::New(id)
    }

    /// Whether a request with this key belongs to a transaction that is open, as repeats do.
    #[must_use]
    pub fn is_known(&self, key: &ServerKey) -> bool {
        self.servers.contains_key(&self.fingerprint(key))
    }

    /// The INVITE transaction that a CANCEL with this key belongs to.
    #[must_use]
    pub fn invite_of_cancel(&self, cancel: &ServerKey) -> Option<TransactionId> {
        self.servers.get(&self.fingerprint(&cancel.invite_of_cancel())).copied()
    }

    /// The user answers a server transaction.
    ///
    /// # Errors
    /// [`TransactionError::Over`] when the transaction is gone or was answered finally; nothing is sent.
    pub fn respond(
        &mut self,
        id: TransactionId,
        status: u16,
        bytes: Vec<u8>,
        now: Instant,
    ) -> Result<(), TransactionError> {
        let transaction = self.transactions.get_mut(&id).ok_or(TransactionError::Over)?;
        let Machine::Server(_, machine) = &mut transaction.machine else {
            return Err(TransactionError::Over);
        };
        let effects = machine.on_respond(status, &self.timers).ok_or(TransactionError::Over)?;
        self.carry_out(id, effects, bytes, now);
        Ok(())
    }

    /// The user sends a request in a new client transaction.
    ///
    /// # Errors
    /// [`TransactionError::Full`] or [`TransactionError::Duplicate`]; nothing is sent.
    pub fn send(
        &mut self,
        request: ClientRequest<P>,
        now: Instant,
    ) -> Result<TransactionId, TransactionError> {
        if self.len() >= self.transactions_max {
            return Err(TransactionError::Full);
        }
        if self.clients.contains_key(&request.key) {
            return Err(TransactionError::Duplicate);
        }
        let id = self.next_id();
        let is_invite = request.method == MethodKind::Invite;
        let (machine, effects) = Client::start(is_invite, request.is_reliable, &self.timers);
        self.clients.insert(request.key.clone(), id);
        let machine = Machine::Client(request.key, machine);
        self.transactions.insert(id, Transaction::new(machine, request.path));
        self.carry_out(id, effects, request.bytes, now);
        Ok(id)
    }

    /// A response came from the network.
    pub fn on_response(&mut self, key: &ClientKey, status: u16, now: Instant) -> OnResponse {
        let Some(&id) = self.clients.get(key) else { return OnResponse::Stray };
        let Some(transaction) = self.transactions.get_mut(&id) else { return OnResponse::Stray };
        let Machine::Client(_, machine) = &mut transaction.machine else { return OnResponse::Stray };
        let (passing, effects) = machine.on_response(status, &self.timers);
        self.carry_out(id, effects, Vec::new(), now);
        match passing {
            Passing::ToUser => OnResponse::ToUser(id),
            Passing::Absorbed | Passing::AcknowledgedAgain => OnResponse::Absorbed(id),
        }
    }

    /// The user hands in the ACK of a failed INVITE (RFC 3261 section 17.1.1.3); repeats are sent from here.
    pub fn acknowledge(&mut self, id: TransactionId, bytes: Vec<u8>, now: Instant) {
        let Some(transaction) = self.transactions.get(&id) else { return };
        let Machine::Client(_, machine) = &transaction.machine else { return };
        let effects = machine.acknowledged();
        self.carry_out(id, effects, bytes, now);
    }

    /// The user has sent a CANCEL for this INVITE: without a final response in 64 * T1 it is over
    /// (RFC 3261 section 9.1).
    pub fn limit_after_cancel(&mut self, id: TransactionId, now: Instant) {
        if let Some(transaction) = self.transactions.get_mut(&id) {
            transaction.is_cancelled = true;
            let effects = Effects { end: Some(self.timers.sixty_four_t1()), ..Effects::NONE };
            self.carry_out(id, effects, Vec::new(), now);
        }
    }

    /// Forgets a transaction at once: the transport failed, or the user has no use for it any more.
    /// [`Output::Terminated`] follows.
    pub fn abandon(&mut self, id: TransactionId, now: Instant) {
        self.forget_answered(id);
        self.carry_out(id, Effects::TERMINATED, Vec::new(), now);
    }

    /// When to call [`TransactionLayer::on_time`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let end = self.ends.front().map(|(at, _)| *at);
        [self.wheel.deadline(), end].into_iter().flatten().min()
    }

    /// Fires every timer that is due.
    pub fn on_time(&mut self, now: Instant) {
        while let Some((_, id)) = self.ends.pop_front_if(|(at, _)| *at <= now) {
            self.forget_answered(id);
        }
        while let Some(alarm) = self.wheel.next_due(now) {
            let (Alarm::Repeat(id) | Alarm::End(id)) = alarm;
            let Some(transaction) = self.transactions.get_mut(&id) else { continue };
            let is_cancelled = transaction.is_cancelled;
            let effects = match (alarm, &mut transaction.machine) {
                (Alarm::Repeat(_), Machine::Client(_, machine)) => machine.on_repeat(&self.timers),
                (Alarm::Repeat(_), Machine::Server(_, machine)) => machine.on_repeat(&self.timers),
                (Alarm::End(_), Machine::Client(_, machine)) => machine.on_end(is_cancelled),
                (Alarm::End(_), Machine::Server(_, machine)) => machine.on_end(),
            };
            self.carry_out(id, effects, Vec::new(), now);
        }
    }

    /// The next thing to do. Drain it after every call.
    pub fn next_output(&mut self) -> Option<Output<P>> {
        self.outputs.pop_front()
    }

    fn on_known_request(&mut self, id: TransactionId, method: MethodKind, now: Instant) -> OnRequest {
        if let Some(answered) = self.answered.get(&id) {
            let (path, bytes) = (answered.path.clone(), answered.bytes.to_vec());
            self.outputs.push_back(Output::Transmit { id, path, bytes, is_repeat: true });
            return OnRequest::Repeated(id);
        }
        let Some(transaction) = self.transactions.get_mut(&id) else { return OnRequest::Unmatched };
        let Machine::Server(_, machine) = &mut transaction.machine else { return OnRequest::Unmatched };
        if method != MethodKind::Ack {
            let effects = machine.on_repeated_request();
            self.carry_out(id, effects, Vec::new(), now);
            return OnRequest::Repeated(id);
        }
        let (ends_here, effects) = machine.on_ack(&self.timers);
        self.carry_out(id, effects, Vec::new(), now);
        if ends_here { OnRequest::Acknowledged(id) } else { OnRequest::AcknowledgedSuccess(id) }
    }

    fn carry_out(&mut self, id: TransactionId, effects: Effects, given: Vec<u8>, now: Instant) {
        if effects.is_settled {
            return self.settle(id, given, now);
        }
        let Some(transaction) = self.transactions.get_mut(&id) else { return };
        if effects.forget {
            transaction.kept = Vec::new();
        }
        let path = || transaction.path.clone();
        match effects.transmit {
            Some(Transmit::Given { is_kept }) => {
                let path = path();
                if is_kept {
                    transaction.kept.clone_from(&given);
                }
                self.outputs.push_back(Output::Transmit { id, path, bytes: given, is_repeat: false });
            }
            Some(Transmit::Kept) if !transaction.kept.is_empty() => {
                let bytes = transaction.kept.clone();
                self.outputs.push_back(Output::Transmit { id, path: path(), bytes, is_repeat: true });
            }
            Some(Transmit::Kept) | None => {}
        }
        if let Some(repeat) = effects.repeat {
            rearm(&mut self.wheel, &mut transaction.repeat, repeat, Alarm::Repeat(id), now);
        }
        if let Some(end) = effects.end {
            rearm(&mut self.wheel, &mut transaction.end, Some(end), Alarm::End(id), now);
        }
        if effects.is_timed_out {
            self.outputs.push_back(Output::TimedOut { id });
        }
        if effects.is_terminated {
            self.forget(id);
        }
    }

    /// Sends the answer after which nothing happens any more but repeats of it, until Timer J ends it.
    fn settle(&mut self, id: TransactionId, bytes: Vec<u8>, now: Instant) {
        let Some(Transaction { machine: Machine::Server(key, _), path, .. }) = self.transactions.remove(&id)
        else {
            return;
        };
        self.answered.insert(id, Answered { key, path: path.clone(), bytes: bytes.as_slice().into() });
        let end = now.saturating_duration_since(self.origin) + self.timers.sixty_four_t1();
        let steps = end.as_nanos().div_ceil(END_STEP.as_nanos());
        let end = self.origin + END_STEP * u32::try_from(steps).unwrap_or(u32::MAX);
        self.ends.push_back((end, id));
        self.outputs.push_back(Output::Transmit { id, path, bytes, is_repeat: false });
    }

    fn forget_answered(&mut self, id: TransactionId) {
        if let Some(answered) = self.answered.remove(&id) {
            self.servers.remove(&answered.key);
            self.outputs.push_back(Output::Terminated { id });
        }
    }

    fn fingerprint(&self, key: &ServerKey) -> Fingerprint {
        self.hashers.each_ref().map(|hasher| hasher.hash_one(key.bytes()))
    }

    fn forget(&mut self, id: TransactionId) {
        let Some(transaction) = self.transactions.remove(&id) else { return };
        for key in [transaction.repeat, transaction.end].into_iter().flatten() {
            self.wheel.stop(key);
        }
        match transaction.machine {
            Machine::Client(key, _) => self.clients.remove(&key),
            Machine::Server(key, _) => self.servers.remove(&key),
        };
        self.outputs.push_back(Output::Terminated { id });
    }

    fn next_id(&mut self) -> TransactionId {
        self.last_id += 1;
        TransactionId(self.last_id)
    }
}

impl<P> Transaction<P> {
    fn new(machine: Machine, path: P) -> Self {
        Self { machine, path, kept: Vec::new(), repeat: None, end: None, is_cancelled: false }
    }
}

fn rearm(
    wheel: &mut Wheel<Alarm>,
    slot: &mut Option<TimerKey>,
    after: Option<Duration>,
    alarm: Alarm,
    now: Instant,
) {
    if let Some(key) = slot.take() {
        wheel.stop(key);
    }
    *slot = after.map(|after| wheel.set(now + after, alarm));
}
