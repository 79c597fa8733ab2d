//! Handing over to the outbox.

use std::time::Duration;

use belfry_notify::{Error, Notification, NotifyHandle};
use tokio::time::timeout;

/// How long the outbox may take for one message before everything else matters more. The message is offered again; the
/// outbox recognises it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the outbox made of a message.
pub(crate) enum Offer {
    /// It is on disk for every service.
    Taken,
    /// One of its services has no room; others may have taken it.
    Full,
    /// Nothing can be handed over now, and why.
    Refused(&'static str),
}

pub(crate) async fn offer(notify: &NotifyHandle, notification: Notification) -> Offer {
    match timeout(TIMEOUT, notify.enqueue(notification)).await {
        Ok(Ok(())) => Offer::Taken,
        Ok(Err(Error::Full { .. })) => Offer::Full,
        Ok(Err(error)) => Offer::Refused(error.reason()),
        Err(_elapsed) => Offer::Refused("timeout"),
    }
}
