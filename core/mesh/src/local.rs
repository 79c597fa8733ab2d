//! Links inside one process: two bounded channels, no serialisation, no sockets.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Service;
use crate::handle::Inner;
use crate::link::{Link, Queues};
use crate::signals::CloseReason;

/// Keeps one link between a room that dials and whichever room of this process serves, for as long as both live.
pub(crate) async fn keep<S, R>(inner: Arc<Inner>, service: Service, links: mpsc::Sender<Link<S, R>>)
where
    S: Send + 'static,
    R: Send + 'static,
{
    let mut server_watch = inner.servers[service.index()].subscribe();
    loop {
        let current = server_watch.borrow_and_update().clone();
        let rooms = current.as_ref().map(|server| server.local.downcast_ref::<mpsc::Sender<Link<R, S>>>());
        if matches!(rooms, Some(None)) {
            inner.signals.service_mismatched(service, &inner.node);
        }
        let room = rooms.flatten().filter(|room| !room.is_closed()).cloned();
        let Some(room) = room else {
            tokio::select! {
                changed = server_watch.changed() => if changed.is_err() { return },
                () = links.closed() => return,
                () = inner.draining.cancelled() => return,
            }
            continue;
        };
        let life = CancellationToken::new();
        let (ours, theirs) = pair(&inner, service, &life);
        let meeting = async { room.send(theirs).await.is_ok() && links.send(ours).await.is_ok() };
        let have_met = tokio::select! {
            have_met = meeting => have_met,
            () = inner.draining.cancelled() => return,
        };
        if have_met {
            let opening = inner.open(service, &inner.node);
            tokio::select! {
                () = life.cancelled() => opening.close(CloseReason::LetGo, 0),
                () = inner.draining.cancelled() => opening.close(CloseReason::Drained, 0),
            }
            life.cancel();
        }
        if links.is_closed() {
            return;
        }
        // A room that lets go of every link at once must not make this a busy loop.
        tokio::select! {
            () = tokio::time::sleep(inner.config.reconnect_min) => {}
            () = inner.draining.cancelled() => return,
        }
    }
}

fn pair<S, R>(inner: &Inner, service: Service, life: &CancellationToken) -> (Link<S, R>, Link<R, S>) {
    let (to_server, from_dialer) = mpsc::channel(inner.config.queue_messages_max);
    let (to_dialer, from_server) = mpsc::channel(inner.config.queue_messages_max);
    let link = Link::new(
        Queues { outbound: to_server, inbound: from_server },
        service,
        &inner.node,
        life,
        &inner.signals,
    );
    let other = Link::new(
        Queues { outbound: to_dialer, inbound: from_dialer },
        service,
        &inner.node,
        life,
        &inner.signals,
    );
    (link, other)
}
