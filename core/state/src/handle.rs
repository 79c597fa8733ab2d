//! The handle that others hold, and the one task behind the bindings.

mod accounts;
mod billing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use belfry_signal::{Registry, now_unix_nanos};
use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::bindings::{Bindings, prepare};
use crate::books::{self, Books};
use crate::config::Config;
use crate::database::{self, Counted, Write};
use crate::error::Error;
use crate::record::CallRecord;
use crate::routes::{self, RouteImport, RouteRows};
use crate::signals::Signals;
use crate::subscriber::Subscriber;

pub use billing::Ledger;

/// State of one core. Cheap to clone.
#[derive(Clone)]
pub struct State {
    readers: SqlitePool,
    /// Gone once state is closing.
    writes: Arc<Mutex<Option<mpsc::Sender<Write>>>>,
    bindings: Bindings,
    books: Books,
    subscribers: Arc<Remembered>,
    tasks: Arc<Mutex<Vec<Task>>>,
    signals: Signals,
}

/// What was read and when.
type Read = (Option<Arc<Subscriber>>, Instant);

/// Tasks that only tick: they end when they are told to.
const SNAPSHOT: &str = "bindings snapshot";
const CLOCK: &str = "books clock";

/// How long a reader of call records waits for those that are on their way.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// A task and the name by which a drain tells that it did not end.
type Task = (&'static str, JoinHandle<()>);

/// Subscribers read lately, the unknown ones too.
struct Remembered {
    entries_max: usize,
    lifetime: Duration,
    /// By domain, of which there are few, and user.
    entries: Mutex<HashMap<String, HashMap<String, Read>>>,
}

impl State {
    /// Opens or makes everything in the configured folder.
    ///
    /// # Errors
    /// When the folder or the database cannot be used. A torn snapshot of bindings is no error: it is told, and
    /// phones register again.
    pub async fn open(config: Config, registry: &Registry) -> Result<Self, Error> {
        let signals = Signals::register(registry);
        prepare(&config.directory)?;
        // First, because it takes the folder for this process.
        let bindings = {
            let (config, signals) = (config.clone(), signals.clone());
            let opening =
                tokio::task::spawn_blocking(move || Bindings::open(&config, signals, now_unix_nanos()));
            opening.await.map_err(|_| Error::Closed)??
        };
        let (readers, writes, writer) = database::open(&config, signals.clone()).await?;
        let (books, books_tasks) =
            Books::open(&config, bindings.folder_lock(), writes.clone(), signals.clone()).await?;
        let folder = tokio::spawn(fold_now_and_then(bindings.clone(), config.snapshot_interval));
        signals.opened(bindings.len());
        let subscribers = Remembered {
            entries_max: config.subscribers_cached_max,
            lifetime: config.subscriber_cached_for,
            entries: Mutex::default(),
        };
        Ok(Self {
            readers,
            writes: Arc::new(Mutex::new(Some(writes))),
            bindings,
            books,
            subscribers: Arc::new(subscribers),
            tasks: Arc::new(Mutex::new(tasks_of(books_tasks, writer, folder))),
            signals,
        })
    }

    /// Adds subscribers, or replaces them, in a store that a running core may be using: only the database is
    /// opened, which several processes may share; the bindings belong to one process. On disk when it returns.
    ///
    /// # Errors
    /// When the folder or the database cannot be used.
    pub async fn add_subscribers(
        config: &Config,
        registry: &Registry,
        subscribers: &[Subscriber],
    ) -> Result<(), Error> {
        prepare(&config.directory)?;
        let (readers, writes, writer) = database::open(config, Signals::register(registry)).await?;
        // As many as share a commit are on their way together.
        for together in subscribers.chunks(config.writes_per_commit_max.max(1)) {
            let mut answers = Vec::with_capacity(together.len());
            for subscriber in together {
                let (waiting, answer) = oneshot::channel();
                let write = Write::Subscriber(Box::new(subscriber.clone()), waiting);
                writes.send(write).await.map_err(|_| Error::Closed)?;
                answers.push(answer);
            }
            for answer in answers {
                answer.await.map_err(|_| Error::Closed)??;
            }
        }
        drop(writes);
        writer.await.map_err(|_| Error::Closed)?;
        readers.close().await;
        Ok(())
    }

    /// Imports routes into a store that a running core may be using, as [`add_subscribers`](Self::add_subscribers)
    /// does with subscribers. All of it or nothing; gives the new version.
    ///
    /// # Errors
    /// When the folder or the database cannot be used.
    pub async fn import_routes(
        config: &Config,
        registry: &Registry,
        import: &RouteImport,
    ) -> Result<u64, Error> {
        prepare(&config.directory)?;
        routes::import(config, registry, import).await
    }

    /// The imported routes of a store that need not be open; none of a store that is not there.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub async fn read_routes(config: &Config, registry: &Registry) -> Result<RouteRows, Error> {
        if !database::exists(config) {
            return Ok(RouteRows::default());
        }
        let (readers, writes, writer) = database::open(config, Signals::register(registry)).await?;
        let rows = routes::rows(&readers).await;
        drop(writes);
        writer.await.map_err(|_| Error::Closed)?;
        readers.close().await;
        rows
    }

    /// How often routes were imported: whoever sees it change reads [`routes`](Self::routes) again.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn routes_version(&self) -> Result<u64, Error> {
        routes::version(&self.readers).await
    }

    /// All imported routes, as of one moment.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn routes(&self) -> Result<RouteRows, Error> {
        routes::rows(&self.readers).await
    }

    /// What is remembered of the subscriber with this user part and domain; `None` when the database must be asked
    /// ([`State::subscriber`]).
    #[must_use]
    pub fn remembered_subscriber(&self, user: &str, domain: &str) -> Option<Option<Arc<Subscriber>>> {
        let remembered = self.subscribers.get(user, domain)?;
        self.signals.subscriber_remembered();
        Some(remembered)
    }

    /// The subscriber with this user part and domain.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn subscriber(&self, user: &str, domain: &str) -> Result<Option<Arc<Subscriber>>, Error> {
        if let Some(remembered) = self.subscribers.get(user, domain) {
            self.signals.subscriber_remembered();
            return Ok(remembered);
        }
        let read = database::subscriber(&self.readers, user, domain).await;
        self.signals.subscriber_read(read.is_ok());
        let read = read?;
        self.subscribers.remember(user, domain, read.clone());
        Ok(read)
    }

    /// Adds a subscriber or replaces it; on disk when it returns.
    ///
    /// # Errors
    /// When it could not be written, or too many writes wait.
    pub async fn put_subscriber(&self, subscriber: &Subscriber) -> Result<(), Error> {
        let (waiting, answer) = oneshot::channel();
        self.write(Write::Subscriber(Box::new(subscriber.clone()), waiting))?;
        let result = answer.await.map_err(|_| Error::Closed)?;
        self.subscribers.forget(&subscriber.user, &subscriber.domain);
        result
    }

    /// How many subscribers there are.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn subscribers_count(&self) -> Result<u64, Error> {
        database::count(&self.readers, Counted::Subscribers).await
    }

    /// The books of calls, from which call records come.
    #[must_use]
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// The latest call records, the latest first; those included that are on their way to the database.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn call_records(&self, limit: u32) -> Result<Vec<CallRecord>, Error> {
        self.settle_for_reading().await;
        database::call_records(&self.readers, limit).await
    }

    /// How many call records there are.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn call_records_count(&self) -> Result<u64, Error> {
        self.settle_for_reading().await;
        database::count(&self.readers, Counted::CallRecords).await
    }

    /// Readers see what was written before they asked. Without a database to write to, they see what there is.
    async fn settle_for_reading(&self) {
        // A delivery at work on a busy database is not waited for.
        drop(tokio::time::timeout(SETTLE_TIMEOUT, self.books.settle()).await);
    }

    /// Where subscribers are.
    #[must_use]
    pub fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    /// Takes no more writes, finishes the ones that wait, writes the last snapshot and closes.
    /// Gives the names of what was not finished by the deadline.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        let until = Instant::now() + deadline;
        drop(tokio::time::timeout_at(until, self.books.finish()).await);
        drop(self.writes.lock().unwrap_or_else(PoisonError::into_inner).take());
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let mut stragglers = Vec::new();
        for (name, task) in tasks {
            if name == SNAPSHOT || name == CLOCK {
                // A fold runs on a blocking thread and is never cut short.
                task.abort();
            } else if tokio::time::timeout_at(until, task).await.is_err() {
                stragglers.push(name.to_owned());
            }
        }
        let bindings = self.bindings.clone();
        let last = tokio::task::spawn_blocking(move || bindings.snapshot());
        if !matches!(tokio::time::timeout_at(until, last).await, Ok(Ok(Ok(())))) {
            stragglers.push(SNAPSHOT.to_owned());
        }
        if tokio::time::timeout_at(until, self.readers.close()).await.is_err() {
            stragglers.push("state readers".to_owned());
        }
        stragglers
    }

    /// Stops at once, as a crash would.
    #[cfg(test)]
    pub(crate) fn kill_for_test(&self) {
        for (_, task) in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    fn write(&self, write: Write) -> Result<(), Error> {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = writes.as_ref().ok_or(Error::Closed)?;
        sender.try_send(write).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::QueueFull,
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        })
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("bindings", &self.bindings).finish_non_exhaustive()
    }
}

impl Remembered {
    #[expect(clippy::option_option, reason = "unknown here, and known not to exist, are two things")]
    fn get(&self, user: &str, domain: &str) -> Option<Option<Arc<Subscriber>>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (subscriber, at) = entries.get(domain)?.get(user)?;
        (at.elapsed() < self.lifetime).then(|| subscriber.clone())
    }

    fn remember(&self, user: &str, domain: &str, subscriber: Option<Arc<Subscriber>>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |entries: &HashMap<String, HashMap<String, Read>>| {
            entries.values().map(HashMap::len).sum::<usize>()
        };
        if count(&entries) >= self.entries_max {
            for users in entries.values_mut() {
                users.retain(|_, (_, at)| at.elapsed() < self.lifetime);
            }
            entries.retain(|_, users| !users.is_empty());
        }
        if count(&entries) >= self.entries_max {
            // Everything is young: starting over costs one query each, and keeps no order to maintain per read.
            entries.clear();
        }
        if self.entries_max > 0 {
            let users = entries.entry(domain.to_owned()).or_default();
            users.insert(user.to_owned(), (subscriber, Instant::now()));
        }
    }

    fn forget(&self, user: &str, domain: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(users) = entries.get_mut(domain) {
            users.remove(user);
        }
    }
}

/// In the order in which they can end.
fn tasks_of(books: books::Tasks, writer: JoinHandle<()>, folder: JoinHandle<()>) -> Vec<Task> {
    vec![
        (CLOCK, books.clock),
        ("call record delivery", books.delivery),
        ("books keeper", books.keeper),
        ("state writer", writer),
        (SNAPSHOT, folder),
    ]
}

async fn fold_now_and_then(bindings: Bindings, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let bindings = bindings.clone();
        // A failure is told by the signals, and the journal still holds everything.
        drop(tokio::task::spawn_blocking(move || bindings.snapshot()).await);
    }
}

#[cfg(test)]
mod tests;
