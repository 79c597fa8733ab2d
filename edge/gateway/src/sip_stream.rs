//! SIP over a stream: one task per connection, reading frames inwards and writing what the core sends.

use std::sync::Arc;
use std::time::Duration;

use belfry_signalling::handle::{SendFailure, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use crate::edge::Edge;
use crate::flows::{OpenFlow, Outgoing};
use crate::framing::{Frame, Framer};
use crate::peer::Peer;
use crate::signals::{Limit, Malformed};
use crate::stream::EdgeStream;

/// How many bytes are written in one go when many messages wait.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// How long a peer has to take our last words.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    PeerLeft,
    Closed,
    Idle,
    Stalled,
    Malformed(Malformed),
}

/// Carries SIP on a connection until it ends, then tells the cores.
pub(crate) async fn carry(
    edge: &Arc<Edge>,
    peer: &Peer,
    transport: Transport,
    mut stream: EdgeStream,
    mut flow: OpenFlow,
) {
    let end = run(edge, peer, transport, &mut stream, &mut flow).await;
    match end {
        End::PeerLeft | End::Closed => {}
        End::Idle => edge.signals.limit_hit(&peer.listener, Limit::SipIdle),
        End::Stalled => edge.signals.limit_hit(&peer.listener, Limit::WriteStall),
        End::Malformed(reason) => edge.signals.input_malformed(&peer.listener, reason, peer.address),
    }
    // Say goodbye properly, but do not wait for a peer that does not listen.
    let _ = timeout(GOODBYE, stream.shutdown()).await;
    let token = flow.token.clone();
    drop(flow);
    edge.flow_closed(&token);
}

async fn run(
    edge: &Edge,
    peer: &Peer,
    transport: Transport,
    stream: &mut EdgeStream,
    flow: &mut OpenFlow,
) -> End {
    let mut framer = Framer::new(b"", edge.limits.sip_message_bytes_max);
    let idle = sleep_until(Instant::now() + edge.timeouts.sip_idle);
    tokio::pin!(idle);
    let mut answers = Vec::new();
    loop {
        tokio::select! {
            () = flow.close.cancelled() => return End::Closed,
            Some(outgoing) = flow.queue.recv() => {
                if let Err(end) = write(edge, transport, stream, flow, outgoing).await {
                    return end;
                }
            }
            read = stream.read_buf(framer.buffer()) => {
                match read {
                    Ok(0) | Err(_) => return End::PeerLeft,
                    Ok(_) => idle.as_mut().reset(Instant::now() + edge.timeouts.sip_idle),
                }
                loop {
                    match framer.next() {
                        Ok(None) => break,
                        Ok(Some(Frame::Ping)) => {
                            edge.signals.keepalive_answered(transport);
                            answers.extend_from_slice(b"\r\n");
                        }
                        Ok(Some(Frame::Message(bytes))) => {
                            if let Some(answer) = edge.sip_arrived(peer, transport, &flow.token, &bytes) {
                                edge.signals.sip_sent(transport, answer.len());
                                answers.extend_from_slice(&answer);
                            }
                        }
                        Err(reason) => return End::Malformed(reason),
                    }
                }
                if !answers.is_empty() {
                    match timeout(edge.timeouts.stall, stream.write_all(&answers)).await {
                        Ok(Ok(())) => answers.clear(),
                        Ok(Err(_)) => return End::PeerLeft,
                        Err(_) => return End::Stalled,
                    }
                }
            }
            () = &mut idle => return End::Idle,
        }
    }
}

/// Writes a message, and with it those that wait behind it.
async fn write(
    edge: &Edge,
    transport: Transport,
    stream: &mut EdgeStream,
    flow: &mut OpenFlow,
    first: Outgoing,
) -> Result<(), End> {
    let mut reports = Vec::new();
    let mut bytes = first.bytes;
    edge.signals.sip_sent(transport, bytes.len());
    reports.extend(first.report);
    while bytes.len() < BATCH_BYTES_MAX
        && let Ok(next) = flow.queue.try_recv()
    {
        edge.signals.sip_sent(transport, next.bytes.len());
        bytes.extend_from_slice(&next.bytes);
        reports.extend(next.report);
    }
    let writing = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    let end = tokio::select! {
        // A reader whose queue is full is closed by the sender while a write to it still waits.
        () = flow.close.cancelled() => End::Closed,
        written = timeout(edge.timeouts.stall, writing) => match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => End::PeerLeft,
            Err(_) => End::Stalled,
        },
    };
    for report in reports {
        report.failed(SendFailure::FlowGone);
    }
    Err(end)
}
