//! SIP over WebSocket (RFC 7118): one message per frame, text or binary, on a stream that the sniffer found.
//!
//! Browsers cannot ping, so the edge does (section 6): it keeps balancers and NATs open, and a phone that left without a
//! word is found out in two pings instead of at the end of its registration.

use std::sync::Arc;

use belfry_signalling::handle::{SendFailure, Transport};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error as WsError, Message};

use crate::edge::Edge;
use crate::flows::OpenFlow;
use crate::peer::Peer;
use crate::signals::{Limit, Malformed};
use crate::sip_stream::GOODBYE;
use crate::sip_text;
use crate::stream::EdgeStream;

type Socket = WebSocketStream<EdgeStream>;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    PeerLeft,
    Closed,
    Idle,
    /// Pings went unanswered.
    Silent,
    Stalled,
    Malformed(Malformed),
}

impl End {
    /// What the peer is told (RFC 6455 section 7.4.1).
    fn close_frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::PeerLeft | Self::Stalled => return None,
            Self::Closed => (CloseCode::Away, "flow closed"),
            Self::Idle => (CloseCode::Away, "idle"),
            Self::Silent => (CloseCode::Away, "no pong"),
            Self::Malformed(Malformed::SipTooLong) => (CloseCode::Size, "message too long"),
            Self::Malformed(Malformed::SipNotUtf8) => (CloseCode::Invalid, "text is not utf-8"),
            Self::Malformed(Malformed::WebSocket) => (CloseCode::Protocol, "not websocket"),
            Self::Malformed(_) => (CloseCode::Unsupported, "not sip"),
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

/// Answers the opening handshake with subprotocol `sip`. `None` when it is not a proper one, which has then been
/// answered with an HTTP error.
pub(crate) async fn accept(stream: EdgeStream, message_bytes_max: usize) -> Option<Socket> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(message_bytes_max.saturating_mul(4));
    tokio_tungstenite::accept_hdr_async_with_config(stream, choose_sip, Some(config)).await.ok()
}

#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
fn choose_sip(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    // The sniffer sends only handshakes here that offer it.
    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("sip"));
    Ok(response)
}

/// Carries SIP on a WebSocket until it ends, then tells the cores.
pub(crate) async fn carry(
    edge: &Arc<Edge>,
    peer: &Peer,
    transport: Transport,
    mut socket: Socket,
    mut flow: OpenFlow,
) {
    let end = run(edge, peer, transport, &mut socket, &mut flow).await;
    match end {
        End::PeerLeft | End::Closed => {}
        End::Idle | End::Silent => edge.signals.limit_hit(&peer.listener, Limit::SipIdle),
        End::Stalled => edge.signals.limit_hit(&peer.listener, Limit::WriteStall),
        End::Malformed(reason) => edge.signals.input_malformed(&peer.listener, reason, peer.address),
    }
    // Say goodbye properly, but do not wait for a peer that does not listen.
    let _ = timeout(GOODBYE, socket.close(end.close_frame())).await;
    let token = flow.token.clone();
    drop(flow);
    edge.flow_closed(&token);
}

async fn run(
    edge: &Edge,
    peer: &Peer,
    transport: Transport,
    socket: &mut Socket,
    flow: &mut OpenFlow,
) -> End {
    let idle = sleep_until(Instant::now() + edge.timeouts.sip_idle);
    tokio::pin!(idle);
    let ping = edge.timeouts.websocket_ping;
    let mut pings = interval_at(Instant::now() + ping, ping);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Whether anything came since the last ping.
    let mut was_heard = true;
    let close = flow.close.clone();
    loop {
        let step = tokio::select! {
            () = close.cancelled() => Err(End::Closed),
            Some(outgoing) = flow.queue.recv() => {
                edge.signals.sip_sent(transport, outgoing.bytes.len());
                // A reader whose queue is full is closed by the sender while a write to it still waits.
                let sent = tokio::select! {
                    () = close.cancelled() => Err(End::Closed),
                    sent = send(edge, socket, outgoing.bytes) => sent,
                };
                if let (Err(_), Some(report)) = (&sent, outgoing.report) {
                    report.failed(SendFailure::FlowGone);
                }
                sent
            }
            _ = pings.tick() => {
                if std::mem::replace(&mut was_heard, false) { ping_peer(edge, socket).await } else { Err(End::Silent) }
            }
            message = socket.next() => {
                was_heard = true;
                // An answer to our own ping is no use of the connection.
                if !matches!(message, Some(Ok(Message::Pong(_)))) {
                    idle.as_mut().reset(Instant::now() + edge.timeouts.sip_idle);
                }
                receive(edge, peer, transport, socket, flow, message).await
            }
            () = &mut idle => Err(End::Idle),
        };
        if let Err(end) = step {
            return end;
        }
    }
}

async fn receive(
    edge: &Edge,
    peer: &Peer,
    transport: Transport,
    socket: &mut Socket,
    flow: &OpenFlow,
    message: Option<Result<Message, WsError>>,
) -> Result<(), End> {
    let bytes = match message {
        Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
        Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
        // The library answers pings by itself; the answer leaves with the next flush.
        Some(Ok(Message::Ping(_))) => return flush(edge, socket).await,
        Some(Ok(Message::Pong(_) | Message::Frame(_))) => return Ok(()),
        Some(
            Ok(Message::Close(_)) | Err(WsError::ConnectionClosed | WsError::AlreadyClosed | WsError::Io(_)),
        )
        | None => return Err(End::PeerLeft),
        Some(Err(WsError::Capacity(_))) => return Err(End::Malformed(Malformed::SipTooLong)),
        Some(Err(WsError::Utf8(_))) => return Err(End::Malformed(Malformed::SipNotUtf8)),
        Some(Err(_)) => return Err(End::Malformed(Malformed::WebSocket)),
    };
    if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
        edge.signals.keepalive_answered(transport);
        return send(edge, socket, b"\r\n".to_vec()).await;
    }
    if !sip_text::is_start_line(bytes.split(|byte| *byte == b'\n').next().unwrap_or_default()) {
        return Err(End::Malformed(Malformed::SipStartLine));
    }
    match edge.sip_arrived(peer, transport, &flow.token, &bytes) {
        None => Ok(()),
        Some(answer) => {
            edge.signals.sip_sent(transport, answer.len());
            send(edge, socket, answer).await
        }
    }
}

async fn ping_peer(edge: &Edge, socket: &mut Socket) -> Result<(), End> {
    match timeout(edge.timeouts.stall, socket.send(Message::Ping(Bytes::new()))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::PeerLeft),
        Err(_) => Err(End::Stalled),
    }
}

/// SIP is text wherever it can be (RFC 7118 section 5): browsers like it better in their tools.
async fn send(edge: &Edge, socket: &mut Socket, bytes: Vec<u8>) -> Result<(), End> {
    let message = match String::from_utf8(bytes) {
        Ok(text) => Message::Text(text.into()),
        Err(error) => Message::Binary(error.into_bytes().into()),
    };
    match timeout(edge.timeouts.stall, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::PeerLeft),
        Err(_) => Err(End::Stalled),
    }
}

async fn flush(edge: &Edge, socket: &mut Socket) -> Result<(), End> {
    match timeout(edge.timeouts.stall, socket.flush()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::PeerLeft),
        Err(_) => Err(End::Stalled),
    }
}
