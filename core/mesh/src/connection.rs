//! One link over one TLS connection, from the end of the handshake to the end of the link.
//!
//! Three things run side by side in one task: reading, writing, and watching that probes are answered.
//! A room that does not take its messages stops the reading, TCP then stops the peer, and the peer's `try_send`
//! says full: pressure shows where the load comes from. A stop longer than `dead_after` ends the link.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Service;
use crate::handle::Inner;
use crate::link::{Link, Queues};
use crate::signals::{CloseReason, Peer};
use crate::wire::{self, Frame, Transport};

/// Messages written before the TLS records are pushed out, so that one burst costs few system calls.
const BURST_MESSAGES: usize = 64;
/// Probes of the peer that wait for their answer; more than a few means that we cannot write anyway.
const PONGS_WAITING: usize = 8;

/// The wire's ends of a link's queues.
pub(crate) struct Wire<S, R> {
    outbound: mpsc::Receiver<S>,
    inbound: mpsc::Sender<R>,
    life: CancellationToken,
}

/// Makes a link for a room, and the ends that [`run`] moves messages between.
pub(crate) fn link<S, R>(inner: &Inner, service: Service, peer: &Peer) -> (Link<S, R>, Wire<S, R>) {
    let (outbound, outbound_taken) = mpsc::channel(inner.config.queue_messages_max);
    let (inbound_given, inbound) = mpsc::channel(inner.config.queue_messages_max);
    let life = CancellationToken::new();
    let link = Link::new(Queues { outbound, inbound }, service, peer, &life, &inner.signals);
    (link, Wire { outbound: outbound_taken, inbound: inbound_given, life })
}

/// Moves messages until the link ends, and tells why it did. `superseded` ends it from outside.
pub(crate) async fn run<S, R>(
    inner: &Inner,
    service: Service,
    peer: &Peer,
    transport: Transport,
    wire: Wire<S, R>,
    superseded: CancellationToken,
) where
    S: Serialize + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    let Wire { mut outbound, inbound, life } = wire;
    let opening = inner.open(service, peer);
    let (mut sink, mut stream) = transport.split();
    let (pongs, mut pongs_due) = mpsc::channel(PONGS_WAITING);
    let side = Side { inner, service, peer, heard: Heard::new() };
    let reason = tokio::select! {
        reason = side.read(&mut stream, inbound, pongs) => reason,
        reason = side.write(&mut sink, &mut outbound, &mut pongs_due, &life) => reason,
        reason = side.watch() => reason,
        () = superseded.cancelled() => CloseReason::Superseded,
    };
    life.cancel();
    outbound.close();
    let mut lost = 0;
    while outbound.try_recv().is_ok() {
        lost += 1;
    }
    opening.close(reason, lost);
}

struct Side<'a> {
    inner: &'a Inner,
    service: Service,
    peer: &'a Peer,
    heard: Heard,
}

/// When the last probe was answered, shared by the three activities of one task.
struct Heard {
    start: Instant,
    answered_micros: AtomicU64,
}

impl Heard {
    fn new() -> Self {
        Self { start: Instant::now(), answered_micros: AtomicU64::new(0) }
    }

    fn micros_now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn silence(&self) -> Duration {
        let answered = self.answered_micros.load(Ordering::Relaxed);
        Duration::from_micros(self.micros_now().saturating_sub(answered))
    }
}

impl Side<'_> {
    async fn read<R: DeserializeOwned>(
        &self,
        stream: &mut (impl Stream<Item = std::io::Result<BytesMut>> + Unpin),
        inbound: mpsc::Sender<R>,
        pongs: mpsc::Sender<u64>,
    ) -> CloseReason {
        while let Some(frame) = stream.next().await {
            let bytes = match frame {
                Ok(bytes) => bytes,
                Err(error) => return wire::read_failure(&error),
            };
            match wire::decode::<Frame<R>>(&bytes) {
                Some(Frame::Message(message)) => {
                    if inbound.send(message).await.is_err() {
                        return CloseReason::LetGo;
                    }
                }
                // A probe without room for its answer goes unanswered: the peer sends another.
                Some(Frame::Ping(number)) => drop(pongs.try_send(number)),
                Some(Frame::Pong(sent_micros)) => self.answered(sent_micros),
                Some(Frame::Goodbye) => return CloseReason::PeerClosed,
                None => return CloseReason::BadFrame,
            }
        }
        CloseReason::PeerClosed
    }

    fn answered(&self, sent_micros: u64) {
        let now = self.heard.micros_now();
        // The number comes back from the peer: one that we cannot have sent says nothing.
        if let Some(round_trip) = now.checked_sub(sent_micros) {
            self.heard.answered_micros.store(now, Ordering::Relaxed);
            let seconds = Duration::from_micros(round_trip).as_secs_f64();
            self.inner.signals.heartbeat_answered(self.service, self.peer, seconds);
            self.inner.health.measured(self.peer, self.service, seconds);
        }
    }

    async fn watch(&self) -> CloseReason {
        let config = &self.inner.config;
        loop {
            tokio::time::sleep(config.heartbeat_interval).await;
            if self.heard.silence() > config.dead_after {
                return CloseReason::TimedOut;
            }
        }
    }

    async fn write<S: Serialize>(
        &self,
        sink: &mut (impl Sink<Bytes, Error = std::io::Error> + Unpin),
        outbound: &mut mpsc::Receiver<S>,
        pongs_due: &mut mpsc::Receiver<u64>,
        life: &CancellationToken,
    ) -> CloseReason {
        let mut probes = tokio::time::interval(self.inner.config.heartbeat_interval);
        probes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let written = tokio::select! {
                message = outbound.recv() => match message {
                    Some(message) => self.write_burst(sink, outbound, message).await,
                    None => return self.finish(sink, outbound, CloseReason::LetGo).await,
                },
                Some(number) = pongs_due.recv() => self.write_control(sink, &Frame::Pong(number)).await,
                _ = probes.tick() => {
                    self.write_control(sink, &Frame::Ping(self.heard.micros_now())).await
                }
                () = life.cancelled() => return self.finish(sink, outbound, CloseReason::LetGo).await,
                () = self.inner.draining.cancelled() => {
                    return self.finish(sink, outbound, CloseReason::Drained).await;
                }
            };
            if written.is_err() {
                return CloseReason::Broken;
            }
        }
    }

    async fn write_burst<S: Serialize>(
        &self,
        sink: &mut (impl Sink<Bytes, Error = std::io::Error> + Unpin),
        outbound: &mut mpsc::Receiver<S>,
        first: S,
    ) -> std::io::Result<()> {
        self.feed(sink, first).await?;
        for _ in 1..BURST_MESSAGES {
            let Ok(message) = outbound.try_recv() else { break };
            self.feed(sink, message).await?;
        }
        sink.flush().await
    }

    /// Writes what still waits, says goodbye and closes; the watch bounds how long that may take.
    async fn finish<S: Serialize>(
        &self,
        sink: &mut (impl Sink<Bytes, Error = std::io::Error> + Unpin),
        outbound: &mut mpsc::Receiver<S>,
        reason: CloseReason,
    ) -> CloseReason {
        outbound.close();
        while let Ok(message) = outbound.try_recv() {
            if self.feed(sink, message).await.is_err() {
                return CloseReason::Broken;
            }
        }
        let is_written = self.write_control(sink, &Frame::Goodbye).await.is_ok();
        if is_written && sink.close().await.is_ok() { reason } else { CloseReason::Broken }
    }

    async fn feed<S: Serialize>(
        &self,
        sink: &mut (impl Sink<Bytes, Error = std::io::Error> + Unpin),
        message: S,
    ) -> std::io::Result<()> {
        // By value: the future must not hold a reference to a message that may not be shared between threads.
        let bytes = wire::encode(&Frame::Message(message));
        match bytes.filter(|bytes| bytes.len() <= self.inner.config.frame_bytes_max) {
            Some(bytes) => sink.feed(bytes).await,
            None => {
                self.inner.signals.message_oversized(self.service, self.peer);
                Ok(())
            }
        }
    }

    async fn write_control(
        &self,
        sink: &mut (impl Sink<Bytes, Error = std::io::Error> + Unpin),
        frame: &Frame<()>,
    ) -> std::io::Result<()> {
        match wire::encode(frame) {
            Some(bytes) => sink.send(bytes).await,
            None => Ok(()),
        }
    }
}
