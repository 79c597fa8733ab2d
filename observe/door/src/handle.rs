//! Opening doors, and the handle that the rest of the process holds.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use belfry_signal::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::config::Limits;
use crate::error::Error;
use crate::guard::Guard;
use crate::serving::{Keeper, Server, UnderWay};
use crate::signals::{Cut, Door, Signals};

/// What all doors of a process have in common: make one, and open doors with it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Doors {
    signals: Signals,
}

/// Who decides whether somebody may ask.
#[derive(Clone, Debug)]
pub enum Access {
    /// What is behind the door, as the page does with its login.
    Behind,
    /// The door.
    Guarded(Guard),
}

/// An open door. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DoorHandle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    keeper: Arc<Keeper>,
    connections: Arc<Semaphore>,
    stop: watch::Sender<bool>,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl Doors {
    /// Registers the signals of all doors.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self { signals: Signals::register(registry) }
    }

    /// Listens and serves until [`DoorHandle::drain`]. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn open(
        &self,
        door: Door,
        listen: SocketAddr,
        limits: Limits,
        access: Access,
        router: Router,
    ) -> Result<DoorHandle, Error> {
        self.open_with(door, listen, limits, access, router, None)
    }

    /// The same over TLS, when there is an acceptor for it.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn open_with(
        &self,
        door: Door,
        listen: SocketAddr,
        limits: Limits,
        access: Access,
        router: Router,
        tls: Option<TlsAcceptor>,
    ) -> Result<DoorHandle, Error> {
        let error = |source| Error::Listen { address: listen, source };
        let listener = bind(listen).map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        let (stop, stopped) = watch::channel(false);
        let guard = match access {
            Access::Behind => None,
            Access::Guarded(guard) => Some(guard),
        };
        let has_token = guard.as_ref().is_some_and(|guard| guard.tokens.is_some());
        let signals = self.signals.clone();
        let keeper = Arc::new(Keeper { door, limits, guard, signals, under_way: UnderWay::default() });
        let server = Server::new(listener, router, &keeper, stopped, tls);
        let connections = Arc::clone(&server.connections);
        self.signals.opened(door, address, has_token);
        let server = Mutex::new(Some(tokio::spawn(server.run())));
        Ok(DoorHandle { inner: Arc::new(Inner { address, keeper, connections, stop, server }) })
    }
}

/// Binds at once, so that whoever opens a door knows whether the address was free.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl DoorHandle {
    /// The address that is listened on, with the port that was given for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.address
    }

    /// Reads the token files again, if there are any. When one cannot be used its old tokens stay in force.
    ///
    /// # Errors
    /// What is wrong with the first such file.
    pub fn reread_tokens(&self) -> Result<(), Error> {
        let keeper = &self.inner.keeper;
        let Some(guard) = &keeper.guard else { return Ok(()) };
        let own = guard.pushes.as_ref().map(|pushes| &pushes.tokens);
        let (mut good, mut first_error) = (None, None);
        for tokens in guard.tokens.iter().chain(own) {
            match tokens.reread() {
                Ok(count) => good = Some(good.unwrap_or(0) + count),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        if let Some(error) = first_error {
            keeper.signals.tokens_not_reread(keeper.door);
            return Err(error.into());
        }
        if let Some(count) = good {
            keeper.signals.tokens_reread(keeper.door, count);
        }
        Ok(())
    }

    /// Stops accepting and waits for answers; names what was still open at the deadline, and ends it.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        self.inner.stop.send_replace(true);
        let server = self.inner.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut server) = server else { return vec![] };
        if tokio::time::timeout(deadline, &mut server).await.is_ok() {
            return vec![];
        }
        let keeper = &self.inner.keeper;
        let open = keeper.limits.connections_max.saturating_sub(self.inner.connections.available_permits());
        let (answering, mut stragglers) = keeper.under_way.names();
        // Idle connections, and those that were still asking, have been closed.
        let reading = open.saturating_sub(answering);
        if reading > 0 {
            stragglers.push(format!("clients that have not read their answer: {reading}"));
        }
        for _ in 0..open {
            keeper.signals.connection_cut(keeper.door, Cut::Drained);
        }
        server.abort();
        stragglers
    }
}

#[cfg(test)]
impl DoorHandle {
    /// Requests under way.
    pub(crate) fn answering(&self) -> usize {
        self.inner.keeper.under_way.names().0
    }
}
