//! Starts the media room and serves it to cores over the mesh.

use belfry_mesh::{Link, LinkSender, Mesh, Service};
use belfry_relay::{Relay, RelayHandle};
use belfry_relay_api::{FromRelay, Notice, ToRelay};
use belfry_signal::Registry;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// Starts the relay, and answers every core that asks for it.
///
/// # Errors
/// When the relay's threads or ports cannot be had.
pub fn start(
    config: belfry_relay::Config,
    registry: &Registry,
    mesh: &Mesh,
    faults: belfry_relay::Faults,
) -> anyhow::Result<RelayHandle> {
    let relay = Relay::start(config, registry, faults)?;
    let mut links = mesh.serve::<FromRelay, ToRelay>(Service::Media);
    let serving = relay.clone();
    tokio::spawn(async move {
        while let Some(link) = links.next().await {
            tokio::spawn(serve(link, serving.for_core()));
        }
    });
    Ok(relay)
}

/// Answers one core until its link is gone. Requests run side by side: one that waits for a worker holds up no other.
///
/// The handle is the link's own. It ends with the last request under way, and the sessions that the core anchored are
/// orphaned then.
async fn serve(link: Link<FromRelay, ToRelay>, relay: RelayHandle) {
    let (sender, mut receiver) = link.split();
    tokio::spawn(forward_notices(sender.clone(), relay.notices()));
    while let Some(ToRelay { id, request }) = receiver.recv().await {
        let (sender, relay) = (sender.clone(), relay.clone());
        tokio::spawn(async move {
            let reply = relay.request(request).await;
            if sender.send(FromRelay::Reply { id, reply }).await.is_err() {
                // The core that asked is gone; its sessions are orphans when the last such task ends.
            }
        });
    }
}

async fn forward_notices(sender: LinkSender<FromRelay>, mut notices: Receiver<Notice>) {
    loop {
        let notice = tokio::select! {
            () = sender.closed() => return,
            notice = notices.recv() => notice,
        };
        match notice {
            Ok(notice) => {
                if sender.send(FromRelay::Notice(notice)).await.is_err() {
                    return;
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
