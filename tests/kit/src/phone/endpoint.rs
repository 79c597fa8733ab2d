//! Transactions of one phone: matching, retransmission over UDP, and where each message goes.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belfry_sip_proto::digest::Challenge;
use belfry_sip_proto::{HeaderName, Limits, MAGIC_COOKIE, OwnedMessage, build};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::report::CallReport;
use super::{PhoneConfig, callee};
use crate::error::Error;
use crate::wire::{Connection, Receiver, Sender, Transport};

/// RFC 3261 timer T1, the round trip that is assumed.
pub(super) const T1: Duration = Duration::from_millis(500);
/// RFC 3261 timer T2, the longest pause between retransmissions.
pub(super) const T2: Duration = Duration::from_secs(4);
/// How often a quiet connection is kept alive (RFC 5626 section 4.4.1 asks for less than 30 s over UDP).
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Messages that wait for one transaction or call.
const QUEUE_MAX: usize = 32;
/// Answers remembered for requests that come again.
const ANSWERS_MAX: usize = 512;

/// One phone on one connection.
pub(super) struct Endpoint {
    pub(super) config: PhoneConfig,
    pub(super) local: SocketAddr,
    pub(super) stop: CancellationToken,
    pub(super) instance: String,
    /// The challenge of the registrar and how often it was answered, so that a refresh needs no round trip more.
    pub(super) challenge: Mutex<Option<(Challenge, u32)>>,
    pub(super) register_sequence: Mutex<(String, u32)>,
    reports: mpsc::Sender<CallReport>,
    sender: Sender,
    via_host: String,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    /// Client transactions by branch and method.
    transactions: HashMap<String, mpsc::Sender<OwnedMessage>>,
    /// Calls by Call-ID.
    calls: HashMap<String, mpsc::Sender<OwnedMessage>>,
    /// The last answer to each request, by its branch and method.
    answers: Remembered,
    /// The ACK of each INVITE that had a final response, by its branch.
    acks: Remembered,
}

/// The latest few of something, by a key.
#[derive(Default)]
struct Remembered {
    entries: HashMap<String, Vec<u8>>,
    order: VecDeque<String>,
}

/// The responses to one request; the transaction ends when this is dropped.
pub(super) struct Responses {
    endpoint: Arc<Endpoint>,
    key: String,
    receiver: mpsc::Receiver<OwnedMessage>,
    request: Vec<u8>,
    pause: Duration,
    retransmit_at: Option<Instant>,
    is_invite: bool,
}

/// The requests of one call; the call is forgotten when this is dropped.
pub(super) struct Requests {
    endpoint: Arc<Endpoint>,
    call_id: String,
    receiver: mpsc::Receiver<OwnedMessage>,
}

impl Endpoint {
    /// Starts to read from the connection.
    pub(super) fn start(
        config: PhoneConfig,
        connection: Connection,
        reports: mpsc::Sender<CallReport>,
    ) -> Arc<Self> {
        let Connection { sender, receiver, local } = connection;
        let via_host = match config.transport {
            // A browser does not know its address (RFC 7118 section 5.2).
            Transport::Wss => format!("{}.invalid", token()),
            _ => local.to_string(),
        };
        let endpoint = Arc::new(Self {
            config,
            local,
            stop: CancellationToken::new(),
            instance: format!("urn:uuid:{}", uuid()),
            challenge: Mutex::default(),
            register_sequence: Mutex::new((token(), 0)),
            reports,
            sender,
            via_host,
            tables: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&endpoint).run(receiver));
        endpoint
    }

    pub(super) fn address_of_record(&self) -> String {
        format!("sip:{}@{}", self.config.user, self.config.domain)
    }

    pub(super) fn calls(&self) -> usize {
        self.tables().calls.len()
    }

    /// The Via value of a new transaction.
    pub(super) fn via(&self, branch: &str) -> String {
        let transport = self.config.transport.via_token();
        format!("SIP/2.0/{transport} {};branch={branch};rport", self.via_host)
    }

    /// The URI where this phone can be reached on its own connection.
    pub(super) fn contact(&self) -> String {
        let transport = self.config.transport.uri_token();
        format!("<sip:{}@{};transport={transport}>", self.config.user, self.via_host)
    }

    /// Sends a request and gives the final response. Not for INVITE.
    pub(super) async fn transact(self: &Arc<Self>, request: Vec<u8>) -> Result<OwnedMessage, Error> {
        let deadline = Instant::now() + self.config.timeout;
        let mut responses = self.begin(request).await?;
        loop {
            let response = responses.next(deadline).await?;
            if response.status().is_some_and(|status| status >= 200) {
                return Ok(response);
            }
        }
    }

    /// Sends a request and gives its transaction.
    pub(super) async fn begin(self: &Arc<Self>, request: Vec<u8>) -> Result<Responses, Error> {
        let message = OwnedMessage::parse(request, &Limits::default())
            .map_err(|_| Error::Protocol("our own request is malformed"))?;
        let key = transaction_key(&message).ok_or(Error::Protocol("our own request has no branch"))?;
        let is_invite = message.method() == "INVITE";
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        self.tables().transactions.insert(key.clone(), sender);
        if self.stop.is_cancelled() {
            self.tables().transactions.remove(&key);
            return Err(Error::ConnectionLost);
        }
        let request = message.into_bytes();
        let is_datagram = self.config.transport == Transport::Udp;
        let retransmit_at = is_datagram.then(|| Instant::now() + T1);
        let endpoint = Arc::clone(self);
        let responses = Responses { endpoint, key, receiver, request, pause: T1, retransmit_at, is_invite };
        self.send(responses.request.clone()).await?;
        Ok(responses)
    }

    /// Sends an ACK, and again whenever the response that it acknowledges comes again.
    pub(super) async fn acknowledge(&self, branch: &str, ack: Vec<u8>) -> Result<(), Error> {
        self.tables().acks.insert(branch.to_owned(), ack.clone());
        self.send(ack).await
    }

    /// Answers a request, and again whenever it comes again.
    pub(super) async fn answer(&self, request: &OwnedMessage, response: Vec<u8>) -> Result<(), Error> {
        if let Some(key) = transaction_key(request) {
            self.tables().answers.insert(key, response.clone());
        }
        self.send(response).await
    }

    /// Takes the requests of a call from now on.
    pub(super) fn follow(self: &Arc<Self>, call_id: &str) -> Requests {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        self.tables().calls.insert(call_id.to_owned(), sender);
        Requests { endpoint: Arc::clone(self), call_id: call_id.to_owned(), receiver }
    }

    pub(super) async fn send(&self, bytes: Vec<u8>) -> Result<(), Error> {
        self.sender.send(bytes).await
    }

    /// Tells about an answered call; a report that nobody reads in time is not missed by anybody.
    pub(super) fn report(&self, report: CallReport) {
        drop(self.reports.try_send(report));
    }

    async fn run(self: Arc<Self>, mut receiver: Receiver) {
        let mut keep_alive = interval(KEEP_ALIVE);
        keep_alive.tick().await;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                _ = keep_alive.tick(), if self.config.transport != Transport::Wss => {
                    if self.send(b"\r\n\r\n".to_vec()).await.is_err() {
                        break;
                    }
                }
                received = receiver.next() => match received {
                    Some(bytes) => self.dispatch(bytes).await,
                    None => break,
                },
            }
        }
        self.stop.cancel();
        // Whoever waits for a response or a request learns that none will come.
        let mut tables = self.tables();
        tables.transactions.clear();
        tables.calls.clear();
    }

    async fn dispatch(self: &Arc<Self>, bytes: Vec<u8>) {
        let Ok(message) = OwnedMessage::parse(bytes, &Limits::default()) else { return };
        if message.check().is_err() {
            return;
        }
        let Some(key) = transaction_key(&message) else { return };
        if message.is_request() {
            // A request that was answered before is answered alike; an answer that cannot be sent is a lost one.
            let known = self.tables().answers.get(&key);
            match known {
                Some(answer) => drop(self.send(answer).await),
                None => self.request(message).await,
            }
            return;
        }
        let (waiting, ack) = {
            let tables = self.tables();
            let branch = key.split(' ').next().unwrap_or_default();
            (tables.transactions.get(&key).cloned(), tables.acks.get(branch))
        };
        match (waiting, ack) {
            (_, Some(ack)) if message.method() == "INVITE" && message.status() >= Some(200) => {
                drop(self.send(ack).await);
            }
            (Some(waiting), _) => drop(waiting.try_send(message)),
            _ => {}
        }
    }

    async fn request(self: &Arc<Self>, request: OwnedMessage) {
        let call_id = request.call_id().unwrap_or_default().to_owned();
        let call = self.tables().calls.get(&call_id).cloned();
        let status = match (request.method(), call) {
            ("OPTIONS", _) => 200,
            // A phone that does not keep up with a call loses messages, as on a real network.
            (_, Some(call)) => return drop(call.try_send(request)),
            ("INVITE", None) if request.to_tag().is_none() => {
                let requests = self.follow(&call_id);
                let endpoint = Arc::clone(self);
                tokio::spawn(async move {
                    let report = callee::take(&endpoint, request, requests).await;
                    endpoint.report(report);
                });
                return;
            }
            ("ACK", None) => return,
            ("INVITE" | "BYE" | "CANCEL" | "UPDATE" | "INFO", None) => 481,
            _ => 405,
        };
        let allow = [(HeaderName::Allow, "INVITE, ACK, BYE, CANCEL, OPTIONS")];
        let response = build::response_to(&request, status, None, Some(&token()), &allow);
        drop(self.answer(&request, response).await);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("transport", &self.config.transport).finish_non_exhaustive()
    }
}

impl Responses {
    /// The next response, retransmitting the request meanwhile where the transport may lose it.
    pub(super) async fn next(&mut self, deadline: Instant) -> Result<OwnedMessage, Error> {
        loop {
            let wake = self.retransmit_at.map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                response = self.receiver.recv() => {
                    let response = response.ok_or(Error::ConnectionLost)?;
                    // A provisional response stops the retransmission of an INVITE and slows the others'.
                    if self.is_invite || response.status() >= Some(200) {
                        self.retransmit_at = None;
                    } else {
                        self.pause = T2;
                    }
                    return Ok(response);
                }
                () = sleep_until(wake) => {
                    if Instant::now() >= deadline {
                        return Err(Error::Timeout);
                    }
                    self.endpoint.send(self.request.clone()).await?;
                    self.pause *= 2;
                    if !self.is_invite {
                        self.pause = self.pause.min(T2);
                    }
                    self.retransmit_at = Some(Instant::now() + self.pause);
                }
            }
        }
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        self.endpoint.tables().transactions.remove(&self.key);
    }
}

impl Requests {
    /// The next request of the call; none when the connection is gone.
    pub(super) async fn next(&mut self) -> Option<OwnedMessage> {
        self.receiver.recv().await
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.endpoint.tables().calls.remove(&self.call_id);
    }
}

impl Remembered {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries.get(key).cloned()
    }

    fn insert(&mut self, key: String, value: Vec<u8>) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > ANSWERS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

/// Branch and method: RFC 3261 sections 17.1.3 and 17.2.3, for peers that set branches as they should.
fn transaction_key(message: &OwnedMessage) -> Option<String> {
    Some(format!("{} {}", message.top_via()?.branch()?, message.cseq()?.method))
}

/// A random token: a tag, a Call-ID, a client nonce.
pub(super) fn token() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// A new branch.
pub(super) fn branch() -> String {
    format!("{MAGIC_COOKIE}{}", token())
}

/// A version 4 UUID.
fn uuid() -> String {
    let bits = rand::random::<u128>() & !(0xf << 76 | 0x3 << 62) | (0x4 << 76 | 0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
