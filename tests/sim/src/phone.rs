//! A phone as RFC 3261 wants it, with a person in front of it: client and server transactions with their timers (section
//! 17), dialogs, and what the script says. It takes messages and time, and gives what to send and when to be woken.

mod called;
mod calling;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use belfry_signalling::handle::Transport;
use belfry_sip_proto::HeaderName;
use belfry_sip_proto::digest::{Answering, Challenge};

use crate::dice::Seed;
use crate::message::{DOMAIN, Message, PASSWORD, finish, sdp};
use crate::script::{CallScript, CalleeScript, HangsUp, Side};

/// Timers of RFC 3261 section 17, in milliseconds.
pub(crate) const T1: u64 = 500;
pub(crate) const T2: u64 = 4_000;
const GIVE_UP: u64 = 64 * T1;
/// The longest time that a caller hears it ring.
const PATIENCE: u64 = 220_000;

/// What a phone wants done.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Send this to the edge.
    Send(Vec<u8>),
    /// Wake it so many milliseconds later.
    Wake(u64, Wake),
    /// It is switched off.
    Die,
}

/// Why a phone is woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Timers A and E.
    Repeat(Key),
    /// Timers B and F.
    GiveUp(Key),
    /// The caller loses patience.
    Cancel(usize),
    Ring(String),
    Answer(String, u16),
    /// Timer G, and the 2xx of section 13.3.1.4.
    RepeatFinal(String),
    /// Timer H, and the 2xx that nobody acknowledges.
    Unacknowledged(String),
    HangUp(usize),
    Hold(usize),
}

/// A transaction: branch and method, because CANCEL has the branch of its INVITE.
pub(crate) type Key = (String, String);

/// What a phone needs to know of the story.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) seed: Seed,
    pub(crate) scripts: Vec<CallScript>,
    /// When each call was picked up first, in milliseconds.
    pub(crate) picked_up: BTreeMap<usize, u64>,
    pub(crate) now: u64,
}

/// One phone.
#[derive(Debug)]
pub(crate) struct Phone {
    pub(crate) index: usize,
    pub(crate) user: String,
    pub(crate) flow: String,
    pub(crate) transport: Transport,
    pub(crate) source: SocketAddr,
    pub(crate) is_dead: bool,
    clients: BTreeMap<Key, Client>,
    servers: BTreeMap<String, Server>,
    /// The last answer to each other request, for when it comes again.
    answered: BTreeMap<Key, Vec<u8>>,
    pub(crate) dialogs: Vec<Dialog>,
    last_branch: u32,
    /// The parameters of its contact, and the CSeq of its last registration.
    params: String,
    last_register: u32,
    actions: Vec<Action>,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Client {
    call: usize,
    purpose: Purpose,
    bytes: Vec<u8>,
    request: Message,
    interval: u64,
    is_heard: bool,
    is_cancelled: bool,
    wants_cancel: bool,
    /// The final answer; 408 when none came.
    status: Option<u16>,
    /// The ACK of a failure, and of each 2xx by its To tag.
    acks: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Invite {
        attempt: u32,
    },
    Change {
        dialog: usize,
    },
    Cancel,
    Bye,
    /// For so many seconds.
    Register {
        seconds: u64,
        is_proven: bool,
    },
}

/// An INVITE that came.
#[derive(Debug)]
struct Server {
    call: usize,
    tag: String,
    invite: Message,
    script: CalleeScript,
    last: Option<Vec<u8>>,
    status: Option<u16>,
    is_acknowledged: bool,
    interval: u64,
    dialog: Option<usize>,
}

/// A dialog as this phone sees it.
#[derive(Clone, Debug)]
pub(crate) struct Dialog {
    pub(crate) call: usize,
    pub(crate) call_id: String,
    pub(crate) local_tag: String,
    pub(crate) remote_tag: String,
    local: String,
    remote: String,
    target: String,
    routes: Vec<String>,
    cseq: u32,
    pub(crate) side: Side,
    pub(crate) is_over: bool,
    is_confirmed: bool,
}

impl Phone {
    pub(crate) fn new(index: usize, user: &str, transport: Transport) -> Self {
        let port = 10_000 + u16::try_from(index).unwrap_or_default();
        let source = SocketAddr::from(([192, 0, 2, 7], port));
        Self::at(index, user, format!("token-{index}"), transport, source)
    }

    /// A trunk's gateway, which is reached by its address.
    pub(crate) fn gateway(index: usize, address: SocketAddr) -> Self {
        Self::at(index, "gateway", address.to_string(), Transport::Udp, address)
    }

    fn at(index: usize, user: &str, flow: String, transport: Transport, source: SocketAddr) -> Self {
        Self {
            index,
            user: user.to_owned(),
            flow,
            transport,
            source,
            is_dead: false,
            clients: BTreeMap::new(),
            servers: BTreeMap::new(),
            answered: BTreeMap::new(),
            dialogs: Vec::new(),
            last_branch: 0,
            params: String::new(),
            last_register: 0,
            actions: Vec::new(),
        }
    }

    /// What it wants done since it was asked last.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub(crate) fn contact(&self) -> String {
        format!("<sip:{}@{};transport={}>", self.user, self.source, self.transport.uri_token())
    }

    /// The first registration, before the story begins.
    pub(crate) fn register(&mut self, params: &str, challenged: Option<&Message>) -> Vec<u8> {
        params.clone_into(&mut self.params);
        self.register_for(3600, challenged)
    }

    /// Registers for so many seconds from now on, or not any more.
    pub(crate) fn register_again(&mut self, seconds: u64, challenged: Option<&Message>) {
        let bytes = self.register_for(seconds, challenged);
        let is_proven = challenged.is_some();
        self.send_request(usize::MAX, Purpose::Register { seconds, is_proven }, bytes);
    }

    /// REGISTER; with credentials when it was challenged.
    fn register_for(&mut self, seconds: u64, challenged: Option<&Message>) -> Vec<u8> {
        let (user, uri) = (self.user.clone(), format!("sip:{DOMAIN}"));
        let credentials = challenged.map(|challenge| self.credentials(challenge, "REGISTER", &uri));
        self.last_register += 1;
        let (cseq, params) = (self.last_register, self.params.clone());
        let head = self.head("REGISTER", &uri);
        let text = format!(
            "{head}From: <sip:{user}@{DOMAIN}>;tag=r{index}\nTo: <sip:{user}@{DOMAIN}>\nCall-ID: register-{index}\n\
             CSeq: {cseq} REGISTER\nContact: {}{params}\nExpires: {seconds}\n{}",
            self.contact(),
            credentials.unwrap_or_default(),
            index = self.index,
        );
        finish(&text, "")
    }

    fn head(&mut self, method: &str, uri: &str) -> String {
        self.last_branch += 1;
        let (via, source, branch) = (self.transport.via_token(), self.source, self.last_branch);
        format!(
            "{method} {uri} SIP/2.0\nVia: SIP/2.0/{via} {source};branch=z9hG4bKp{}n{branch};rport\nMax-Forwards: 70\n",
            self.index
        )
    }

    fn credentials(&self, challenge: &Message, method: &str, uri: &str) -> String {
        let (asked, name) = match challenge.status() {
            401 => (HeaderName::WwwAuthenticate, "Authorization"),
            _ => (HeaderName::ProxyAuthenticate, "Proxy-Authorization"),
        };
        let value = challenge.sip().headers(asked).find_map(|value| Challenge::parse(value).ok());
        let Some(challenge) = value else { return String::new() };
        let cnonce = format!("{:x}x{:x}", self.index, self.last_branch);
        let answering = Answering {
            username: &self.user,
            password: PASSWORD,
            method,
            uri,
            cnonce: &cnonce,
            nonce_count: 1,
        };
        format!("{name}: {}\n", challenge.answer(&answering))
    }

    /// A message arrived.
    pub(crate) fn hear(&mut self, story: &mut Story, message: &Message, call: usize) {
        if message.status() > 0 {
            return self.on_response(story, message);
        }
        match message.method() {
            "INVITE" => self.on_invite(story, message, call),
            "ACK" => self.on_ack(story, message),
            "CANCEL" => self.on_cancel(message),
            _ => self.on_other(message),
        }
    }

    /// It is time for something.
    pub(crate) fn wake(&mut self, story: &mut Story, wake: &Wake) {
        match wake {
            Wake::Repeat(key) => self.repeat(key),
            Wake::GiveUp(key) => self.give_up(key),
            Wake::Cancel(call) => self.cancel_call(*call),
            Wake::Ring(branch) => self.ring(branch),
            Wake::Answer(branch, status) => self.pick_up(story, branch, *status),
            Wake::RepeatFinal(branch) => self.repeat_final(branch),
            Wake::Unacknowledged(branch) => self.on_unacknowledged(branch),
            Wake::HangUp(dialog) => self.hang_up(*dialog),
            Wake::Hold(dialog) => self.hold(*dialog),
        }
    }

    /// Sends a request and looks after it until it is answered.
    fn send_request(&mut self, call: usize, purpose: Purpose, bytes: Vec<u8>) {
        let Some(request) = Message::read(&bytes) else { return };
        let key = (request.branch(), request.method().to_owned());
        self.actions.push(Action::Send(bytes.clone()));
        if !self.transport.is_reliable() {
            self.actions.push(Action::Wake(T1, Wake::Repeat(key.clone())));
        }
        self.actions.push(Action::Wake(GIVE_UP, Wake::GiveUp(key.clone())));
        let client = Client {
            call,
            purpose,
            bytes,
            request,
            interval: T1,
            is_heard: false,
            is_cancelled: false,
            wants_cancel: false,
            status: None,
            acks: BTreeMap::new(),
        };
        self.clients.insert(key, client);
    }

    fn repeat(&mut self, key: &Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let is_invite = key.1 == "INVITE";
        if client.status.is_some() || (is_invite && client.is_heard) {
            return;
        }
        client.interval = if is_invite { client.interval * 2 } else { (client.interval * 2).min(T2) };
        self.actions.push(Action::Send(client.bytes.clone()));
        self.actions.push(Action::Wake(client.interval, Wake::Repeat(key.clone())));
    }

    /// A request within a dialog.
    fn in_dialog(&mut self, dialog: usize, method: &str, cseq: Option<u32>, body: &str) -> Vec<u8> {
        let known = self.dialogs[dialog].clone();
        let cseq = cseq.unwrap_or_else(|| {
            self.dialogs[dialog].cseq += 1;
            self.dialogs[dialog].cseq
        });
        let mut text = self.head(method, &known.target);
        for route in &known.routes {
            text.push_str(&format!("Route: {route}\n"));
        }
        let contact = self.contact();
        text.push_str(&format!(
            "From: {}\nTo: {}\nCall-ID: {}\nCSeq: {cseq} {method}\nContact: {contact}\nX-Sim: {}\n",
            known.local, known.remote, known.call_id, known.call
        ));
        finish(&text, body)
    }

    fn hang_up(&mut self, dialog: usize) {
        if std::mem::replace(&mut self.dialogs[dialog].is_over, true) {
            return;
        }
        let bytes = self.in_dialog(dialog, "BYE", None, "");
        self.send_request(self.dialogs[dialog].call, Purpose::Bye, bytes);
    }

    fn hold(&mut self, dialog: usize) {
        if self.dialogs[dialog].is_over {
            return;
        }
        let bytes = self.in_dialog(dialog, "INVITE", None, &sdp(self.index, 2, "sendonly"));
        self.send_request(self.dialogs[dialog].call, Purpose::Change { dialog }, bytes);
    }

    /// The talk begins: who hangs up, and when, is in the script.
    fn plan_talk(&mut self, story: &Story, dialog: usize) {
        let known = &self.dialogs[dialog];
        let Some(script) = story.scripts.get(known.call) else { return };
        let begun = story.picked_up.get(&known.call).copied().unwrap_or(story.now);
        let side = known.side;
        let hangs_up = match script.hangs_up {
            HangsUp::Both => true,
            HangsUp::Caller => side == Side::Caller,
            HangsUp::Callee => side == Side::Callee,
            HangsUp::Nobody => false,
        };
        // Both hang up at one moment, however late one of them heard of the other.
        let both = if script.hangs_up == HangsUp::Both { 1_000 } else { 0 };
        if hangs_up {
            let at = (begun + script.talk_ms + both).max(story.now);
            self.actions.push(Action::Wake(at - story.now, Wake::HangUp(dialog)));
        }
        if let Some((who, after)) = script.hold
            && who == side
        {
            self.actions.push(Action::Wake((begun + after).max(story.now) - story.now, Wake::Hold(dialog)));
        }
    }

    fn dialog_of(&self, request: &Message) -> Option<usize> {
        let tags = (request.to_tag(), request.sender_tag());
        let is_it = |dialog: &Dialog| {
            dialog.call_id == request.call_id()
                && (&dialog.local_tag, &dialog.remote_tag) == (&tags.0, &tags.1)
        };
        self.dialogs.iter().position(is_it)
    }

    /// Whether anything is still going on here.
    pub(crate) fn open_dialogs(&self) -> impl Iterator<Item = &Dialog> {
        self.dialogs.iter().filter(|dialog| !dialog.is_over)
    }
}
