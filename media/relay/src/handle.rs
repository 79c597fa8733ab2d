//! The relay's handle: requests in, replies and notices out, and the drain.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use belfry_relay_api::{Notice, Refusal, Reply, Request, SessionKey};
use mio::Waker;
use tokio::sync::{Notify, broadcast, oneshot};

use crate::config::Config;
use crate::faults::Faults;
use crate::ports::PortPool;
use crate::signals::{Asked, Signals};

/// How long a worker may take to close its sockets when told to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(1);

/// What goes to a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// A request, who asks, and where its reply goes.
    Request(Request, Controller, oneshot::Sender<Reply>),
    /// End every session and the thread.
    Stop(oneshot::Sender<()>),
}

/// Whoever may end a session that it asked for. A session looks at it from time to time, so that nothing has to be
/// sent, and nothing can be lost, when a core and its thousand sessions part.
#[derive(Clone, Debug)]
pub(crate) struct Controller(Weak<()>);

/// What handle and workers share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) config: Config,
    pub(crate) pool: Arc<PortPool>,
    pub(crate) signals: Signals,
    pub(crate) faults: Faults,
    pub(crate) notices: broadcast::Sender<Notice>,
    live: AtomicUsize,
    is_draining: AtomicBool,
    ended: Notify,
}

/// The way into one worker.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) commands: SyncSender<Command>,
    pub(crate) waker: Arc<Waker>,
}

/// The ways into all workers. When the last handle is gone the workers stop.
#[derive(Debug)]
pub(crate) struct Doors(Vec<Door>);

/// Talks to the relay. Cheap to clone.
///
/// What it asks for is asked in the name of one controller, which it shares with its clones. When the last of them is
/// gone, the sessions that they anchored are *orphaned*: see [`RelayHandle::for_core`].
#[derive(Clone, Debug)]
pub struct RelayHandle {
    common: Arc<Common>,
    doors: Arc<Doors>,
    spread: RandomState,
    life: Arc<()>,
}

impl Common {
    pub(crate) fn new(config: Config, pool: Arc<PortPool>, signals: Signals, faults: Faults) -> Self {
        let (notices, _) = broadcast::channel(config.notices_max);
        Self {
            config,
            pool,
            signals,
            faults,
            notices,
            live: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    /// Counts a new session, unless there may be no more.
    pub(crate) fn admit_session(&self) -> Result<(), Refusal> {
        if self.is_draining.load(Ordering::Relaxed) {
            return Err(Refusal::Draining);
        }
        let sessions_max = self.config.sessions_max;
        self.live
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |live| {
                (live < sessions_max).then_some(live + 1)
            })
            .map(drop)
            .map_err(|_| Refusal::SessionsExhausted)
    }

    /// Counts an admitted session out again.
    pub(crate) fn release_session(&self) {
        self.live.fetch_sub(1, Ordering::AcqRel);
        self.ended.notify_waiters();
    }

    fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }
}

impl Controller {
    /// Whether nobody is left who could end what it anchored.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl FromIterator<Door> for Doors {
    fn from_iter<I: IntoIterator<Item = Door>>(doors: I) -> Self {
        Self(doors.into_iter().collect())
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        for Door { commands, waker } in self.0.drain(..) {
            // The worker finds its queue disconnected when it wakes.
            drop(commands);
            let _ = waker.wake();
        }
    }
}

impl RelayHandle {
    pub(crate) fn new(common: Arc<Common>, doors: Doors) -> Self {
        Self { common, doors: Arc::new(doors), spread: RandomState::new(), life: Arc::new(()) }
    }

    /// A handle for one core's link: a controller of its own.
    ///
    /// When it and all its clones are gone, the sessions that it anchored, and that nobody has asked about since, are
    /// orphaned: sound goes on, windows are measured and recorded but not judged, and a session ends by itself when
    /// a leg that was heard falls silent, since a BYE may have found nobody. An offer, an answer or a query by
    /// another controller adopts them.
    #[must_use]
    pub fn for_core(&self) -> Self {
        Self { life: Arc::new(()), ..self.clone() }
    }

    /// Hands a request to the worker that owns the session. Always answers: a worker that is overloaded or does
    /// not reply in the configured time is [`Refusal::Unavailable`].
    pub async fn request(&self, request: Request) -> Reply {
        let start = Instant::now();
        let asked = Asked::from(&request);
        let reply = self.ask(request).await.unwrap_or(Reply::Refused(Refusal::Unavailable));
        self.common.signals.request_answered(asked, &reply, start.elapsed());
        reply
    }

    /// What the relay notices on its own account, from now on.
    #[must_use]
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.common.notices.subscribe()
    }

    /// Sessions anchored now.
    #[must_use]
    pub fn live_sessions(&self) -> usize {
        self.common.live()
    }

    /// Refuses new sessions, waits until the last one ends or the deadline passes, and stops the workers. Tells
    /// how many sessions were cut off.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        self.common.is_draining.store(true, Ordering::Relaxed);
        let all_ended = async {
            loop {
                let mut ended = std::pin::pin!(self.common.ended.notified());
                // Registered before the count is read, so that no ending is missed between the two.
                ended.as_mut().enable();
                if self.common.live() == 0 {
                    return;
                }
                ended.await;
            }
        };
        let _ = tokio::time::timeout(deadline, all_ended).await;
        let stragglers = self.common.live();
        self.stop().await;
        self.common.signals.drained(stragglers);
        match stragglers {
            0 => vec![],
            1 => vec!["1 media session".to_owned()],
            many => vec![format!("{many} media sessions")],
        }
    }

    async fn stop(&self) {
        for door in &self.doors.0 {
            let (done, stopped) = oneshot::channel();
            if door.commands.try_send(Command::Stop(done)).is_ok() && door.waker.wake().is_ok() {
                let _ = tokio::time::timeout(STOP_DEADLINE, stopped).await;
            }
        }
    }

    async fn ask(&self, request: Request) -> Option<Reply> {
        let key: &SessionKey = match &request {
            Request::Offer(description) | Request::Answer(description) => &description.session,
            Request::Delete { session } | Request::Query { session } => session,
        };
        // Keyed per process: a caller cannot choose Call-IDs that all land on one worker.
        let share = self.spread.hash_one(key) % self.doors.0.len().max(1) as u64;
        let door = self.doors.0.get(usize::try_from(share).ok()?)?;
        let (answer, reply) = oneshot::channel();
        let controller = Controller(Arc::downgrade(&self.life));
        door.commands.try_send(Command::Request(request, controller, answer)).ok()?;
        door.waker.wake().ok()?;
        tokio::time::timeout(self.common.config.reply_timeout, reply).await.ok()?.ok()
    }
}
