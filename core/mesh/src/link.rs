//! Links as rooms see them: typed, bounded, two-way, and soon known to be down.

use std::sync::Arc;

use belfry_signal::CounterHandle;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Service;
use crate::error::LinkError;
use crate::signals::{Direction, DropReason, Peer, Signals};

/// A link to one room on one peer. Dropping either half ends it.
#[derive(Debug)]
pub struct Link<S, R> {
    sender: LinkSender<S>,
    receiver: LinkReceiver<R>,
}

/// The half that sends. The link ends when the last clone is dropped.
#[derive(Debug)]
pub struct LinkSender<S> {
    messages: mpsc::Sender<S>,
    shared: Arc<Shared>,
}

/// The half that receives.
#[derive(Debug)]
pub struct LinkReceiver<R> {
    messages: mpsc::Receiver<R>,
    life: CancellationToken,
    received: CounterHandle,
    lost: CounterHandle,
    _end: DropGuard,
}

/// Yields a link each time a peer is reached, or reached again.
#[derive(Debug)]
pub struct Links<S, R> {
    links: mpsc::Receiver<Link<S, R>>,
}

#[derive(Debug)]
struct Shared {
    peer: Peer,
    life: CancellationToken,
    sent: CounterHandle,
    full: CounterHandle,
    down: CounterHandle,
    _end: DropGuard,
}

/// The ends of the two queues that belong to one room's link.
pub(crate) struct Queues<S, R> {
    pub(crate) outbound: mpsc::Sender<S>,
    pub(crate) inbound: mpsc::Receiver<R>,
}

impl<S, R> Link<S, R> {
    /// A link over these queues; it is up until `life` is cancelled, which dropping a half does too.
    pub(crate) fn new(
        queues: Queues<S, R>,
        service: Service,
        peer: &Peer,
        life: &CancellationToken,
        signals: &Signals,
    ) -> Self {
        let shared = Shared {
            peer: peer.clone(),
            life: life.clone(),
            sent: signals.message_counter(service, peer, Direction::Sent),
            full: signals.drop_counter(DropReason::LinkFull),
            down: signals.drop_counter(DropReason::LinkDown),
            _end: life.clone().drop_guard(),
        };
        let receiver = LinkReceiver {
            messages: queues.inbound,
            life: life.clone(),
            received: signals.message_counter(service, peer, Direction::Received),
            lost: signals.drop_counter(DropReason::LinkDown),
            _end: life.clone().drop_guard(),
        };
        Self { sender: LinkSender { messages: queues.outbound, shared: Arc::new(shared) }, receiver }
    }

    /// The peer's node name; this node's own name when the peer is in this process.
    #[must_use]
    pub fn peer(&self) -> &str {
        self.sender.peer()
    }

    /// The two halves.
    #[must_use]
    pub fn split(self) -> (LinkSender<S>, LinkReceiver<R>) {
        (self.sender, self.receiver)
    }
}

impl<S> Clone for LinkSender<S> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S> LinkSender<S> {
    /// Gives a message to the link without waiting.
    ///
    /// # Errors
    /// [`LinkError::Full`] when the peer does not keep up, [`LinkError::Down`] when the link is gone.
    /// Both are counted; the message is dropped.
    pub fn try_send(&self, message: S) -> Result<(), LinkError> {
        if self.shared.life.is_cancelled() {
            self.shared.down.inc();
            return Err(LinkError::Down);
        }
        match self.messages.try_send(message) {
            Ok(()) => {
                self.shared.sent.inc();
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.shared.full.inc();
                Err(LinkError::Full)
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.shared.down.inc();
                Err(LinkError::Down)
            }
        }
    }

    /// Gives a message to the link, waiting while it is full.
    ///
    /// # Errors
    /// [`LinkError::Down`] when the link is gone; it is counted.
    pub async fn send(&self, message: S) -> Result<(), LinkError> {
        let is_taken = tokio::select! {
            biased;
            () = self.shared.life.cancelled() => false,
            outcome = self.messages.send(message) => outcome.is_ok(),
        };
        if is_taken {
            self.shared.sent.inc();
            return Ok(());
        }
        self.shared.down.inc();
        Err(LinkError::Down)
    }

    /// Whether the peer does not keep up: half of the queue to it is full.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.messages.capacity() < self.messages.max_capacity() / 2
    }

    /// Whether the link is up as far as is known.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.shared.life.is_cancelled() && !self.messages.is_closed()
    }

    /// Waits until the link is gone.
    pub async fn closed(&self) {
        self.shared.life.cancelled().await;
    }

    /// The peer's node name; this node's own name when the peer is in this process.
    #[must_use]
    pub fn peer(&self) -> &str {
        self.shared.peer.as_str()
    }
}

impl<R> LinkReceiver<R> {
    /// The next message; `None` when the link is gone and everything that came was taken. Cancel-safe.
    pub async fn recv(&mut self) -> Option<R> {
        let message = tokio::select! {
            biased;
            message = self.messages.recv() => message,
            () = self.life.cancelled() => self.messages.try_recv().ok(),
        };
        if message.is_some() {
            self.received.inc();
        }
        message
    }
}

impl<R> LinkReceiver<R> {
    /// Waits for a message and takes with it those that have come since, up to `limit`; appends them and says how many
    /// there are. 0 when the link is gone and everything that came was taken. Cancel-safe.
    pub async fn recv_many(&mut self, messages: &mut Vec<R>, limit: usize) -> usize {
        let before = messages.len();
        let count = tokio::select! {
            biased;
            count = self.messages.recv_many(messages, limit) => count,
            () = self.life.cancelled() => {
                while messages.len() - before < limit && let Ok(message) = self.messages.try_recv() {
                    messages.push(message);
                }
                messages.len() - before
            }
        };
        self.received.add(count as u64);
        count
    }
}

impl<R> Drop for LinkReceiver<R> {
    /// What came and was never taken is lost, and counted.
    fn drop(&mut self) {
        self.messages.close();
        while self.messages.try_recv().is_ok() {
            self.lost.inc();
        }
    }
}

impl<S, R> Links<S, R> {
    pub(crate) fn new(links: mpsc::Receiver<Link<S, R>>) -> Self {
        Self { links }
    }

    /// The next link; `None` when the mesh drains. Cancel-safe.
    pub async fn next(&mut self) -> Option<Link<S, R>> {
        self.links.recv().await
    }
}
