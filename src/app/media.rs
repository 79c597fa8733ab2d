//! Starts the media room and serves it to cores over the mesh.

use std::future::poll_fn;
use std::task::Poll;

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

/// Answers one core until its link is gone. Requests reach the workers in the order in which they came, so that the end
/// of a session never overtakes its beginning; they are waited for side by side, so that one holds up no other.
///
/// The handle is the link's own. It ends with the last request under way, and the sessions that the core anchored are
/// orphaned then.
async fn serve(link: Link<FromRelay, ToRelay>, relay: RelayHandle) {
    let (sender, mut receiver) = link.split();
    tokio::spawn(forward_notices(sender.clone(), relay.notices()));
    while let Some(ToRelay { id, request }) = receiver.recv().await {
        let (sender, relay) = (sender.clone(), relay.clone());
        let mut answering = Box::pin(async move {
            let reply = relay.request(request).await;
            if sender.send(FromRelay::Reply { id, reply }).await.is_err() {
                // The core that asked is gone; its sessions are orphans when the last such task ends.
            }
        });
        // The first poll puts the request into its worker's queue.
        let is_waiting = poll_fn(|context| Poll::Ready(answering.as_mut().poll(context).is_pending())).await;
        if is_waiting {
            tokio::spawn(answering);
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use belfry_relay_api::{Description, Leg, Reply, Request, SessionKey};

    use super::*;
    use crate::config::Config;

    const SDP: &str =
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

    type Sent = (LinkSender<ToRelay>, belfry_mesh::LinkReceiver<FromRelay>);

    /// A core connects.
    async fn core(mesh: &Mesh) -> Sent {
        mesh.dial::<ToRelay, FromRelay>(Service::Media).next().await.expect("a link").split()
    }

    async fn ask((sender, receiver): &mut Sent, request: Request) -> Reply {
        sender.try_send(ToRelay { id: 1, request }).expect("room");
        match receiver.recv().await.expect("a reply") {
            FromRelay::Reply { id: 1, reply } => reply,
            other => panic!("{other:?}"),
        }
    }

    fn offer(call: &str) -> Request {
        Request::Offer(Description {
            session: SessionKey(call.to_owned()),
            from: Leg::Caller,
            sdp: SDP.as_bytes().to_vec(),
            signalled_from: [127, 0, 0, 1].into(),
            region: "eu".to_owned(),
            trace_id: [1; 16],
        })
    }

    async fn until(registry: &Registry, line: &str) {
        let is_so = async {
            while !registry.encode_text().lines().any(|text| text == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), is_so).await.is_ok(), "never: {line}");
    }

    #[tokio::test]
    async fn what_a_core_anchored_is_orphaned_with_its_link_and_no_other() {
        let registry = Registry::for_test();
        let mesh = Mesh::for_test(&registry);
        let config =
            Config::parse("test.toml", "[media]\nbind_address = \"127.0.0.1\"\n", &[]).expect("good");
        let config = config.media.expect("the room is on");
        let relay = start(config, &registry, &mesh, belfry_relay::Faults::default()).expect("it starts");
        let (mut one, mut other) = (core(&mesh).await, core(&mesh).await);
        for call in ["a", "b", "moved"] {
            assert!(matches!(ask(&mut one, offer(call)).await, Reply::Description { .. }));
        }
        for call in ["c", "moved"] {
            assert!(matches!(ask(&mut other, offer(call)).await, Reply::Description { .. }));
        }
        drop(one);
        until(&registry, "media_sessions_orphaned_total 2").await;
        // Whoever comes after may end them.
        let mut next = core(&mesh).await;
        for call in ["a", "b"] {
            let session = SessionKey(call.to_owned());
            assert!(matches!(ask(&mut next, Request::Delete { session }).await, Reply::Deleted(_)));
        }
        drop(other);
        until(&registry, "media_sessions_orphaned_total 4").await;
        assert_eq!(relay.live_sessions(), 2);
    }
}
