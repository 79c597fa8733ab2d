//! Records from protocols that know no acknowledgement: datagrams and streams, one shell for all of them.
//!
//! A stream is read on when what was read is durable: that is the only "later" that it understands. A datagram finds
//! room or is refused and counted.

use std::net::IpAddr;

use belfry_signal::Record;
use tokio::io::AsyncReadExt as _;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::intake::{Intake, Origin};
use super::listen::{Guest, stopped};
use super::refusal::{Reason, Refusal};
use super::shape::Shaper;
use super::signals::Entrance;

/// Bytes that one message of a stream may have: a longer one is refused, and passed over as it comes.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// Datagrams that are taken at a time.
const DATAGRAMS_MAX: usize = 512;
/// Batches of datagrams on their way to the disk; more wait in the kernel.
const BATCHES_MAX: usize = 16;

/// What stands at the front of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A message in these bytes, and how many bytes it takes with its frame.
    Message {
        /// Where it is.
        at: std::ops::Range<usize>,
        /// What it takes.
        taken: usize,
    },
    /// Bytes that are passed over; `is_new` with the first of them.
    PassOver {
        /// How many.
        taken: usize,
        /// Whether a message begins here that is refused for its length.
        is_new: bool,
    },
    /// Nothing whole yet.
    More,
    /// Nothing that can be framed: the stream is closed.
    Broken(&'static str),
}

/// What is being passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Passing {
    #[default]
    Nothing,
    /// So many bytes more.
    Bytes(usize),
    /// All until a line ends.
    Line,
}

/// A protocol: how its messages are framed and what is in them. Pure, but for what it learns of calls.
pub(crate) trait Protocol: Clone + Send + Sync + 'static {
    /// Its door.
    const DOOR: Entrance;

    /// What stands at the front of the buffer; `is_end` when no more will come.
    fn frame(&self, passing: &mut Passing, buffer: &[u8], is_end: bool) -> Frame;

    /// Adds the records of one message.
    fn decode(
        &self,
        message: &[u8],
        sender: IpAddr,
        shaper: &mut Shaper<'_>,
        into: &mut Vec<Record>,
    ) -> Result<(), Refusal>;
}

/// Reads one connection to its end, or until told to stop.
pub(crate) async fn stream<P: Protocol>(
    protocol: P,
    mut guest: Guest,
    intake: Intake,
    mut stop: watch::Receiver<bool>,
) {
    let origin = Origin { door: P::DOOR, sender: guest.peer };
    let idle = intake.config().idle_timeout;
    let mut buffer: Vec<u8> = Vec::new();
    let mut chunk = vec![0; READ_BYTES];
    let mut passing = Passing::default();
    loop {
        let read = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            read = tokio::time::timeout(idle, guest.read(&mut chunk)) => read,
        };
        let count = match read {
            Ok(Ok(count)) => count,
            // Silent for too long, or broken off: what is not whole was never a message.
            Ok(Err(_)) | Err(_) => return,
        };
        buffer.extend_from_slice(&chunk[..count]);
        intake.received(&origin, count);
        let Some(_room) = intake.room(count).await else { return };
        let (records, taken, is_broken) = cut(&protocol, &origin, &intake, &mut passing, &buffer, count == 0);
        buffer.drain(..taken);
        let stored = intake.store_patiently(&origin, records, &mut stop).await;
        if count == 0 || is_broken || stored.is_err_and(|refusal| refusal.is_passing()) {
            return;
        }
    }
}

/// The records of all whole messages in the buffer, how much of it they take, and whether the stream is broken.
fn cut<P: Protocol>(
    protocol: &P,
    origin: &Origin,
    intake: &Intake,
    passing: &mut Passing,
    buffer: &[u8],
    is_end: bool,
) -> (Vec<Record>, usize, bool) {
    let mut records = Vec::new();
    let mut shaper = intake.shaper(P::DOOR);
    let (mut done, mut is_broken) = (0, false);
    loop {
        let rest = &buffer[done..];
        match protocol.frame(passing, rest, is_end) {
            Frame::Message { at, taken } => {
                let message = &rest[at];
                if let Err(refusal) = protocol.decode(message, origin.sender, &mut shaper, &mut records) {
                    intake.refused(origin, &refusal, 1, message);
                }
                done += taken;
            }
            Frame::PassOver { taken, is_new } => {
                if is_new {
                    let text = format!("a message of more than {FRAME_BYTES_MAX} bytes");
                    intake.refused(origin, &Refusal::new(Reason::TooLong, text), 1, rest);
                }
                done += taken;
            }
            Frame::More => break,
            Frame::Broken(why) => {
                intake.refused(origin, &Refusal::malformed(why), 1, rest);
                is_broken = true;
                break;
            }
        }
    }
    intake.note_changes(P::DOOR, &shaper);
    (records, done, is_broken)
}

/// Reads datagrams until told to stop.
pub(crate) async fn datagrams<P: Protocol>(
    protocol: P,
    socket: UdpSocket,
    intake: Intake,
    mut stop: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 1 << 16];
    let mut under_way = JoinSet::new();
    let mut is_last = false;
    while !is_last {
        tokio::select! {
            biased;
            // What has come by now is still taken.
            () = stopped(&mut stop) => is_last = true,
            Some(_) = under_way.join_next() => continue,
            is_readable = socket.readable(), if under_way.len() < BATCHES_MAX => {
                if is_readable.is_err() {
                    continue;
                }
            }
        }
        for (sender, records, size) in take(&protocol, &socket, &mut bytes, &intake) {
            let (origin, intake) = (Origin { door: P::DOOR, sender }, intake.clone());
            match intake.try_room(size) {
                Ok(room) => {
                    under_way.spawn(async move {
                        // Counted there; nobody can be told.
                        let _ = intake.store(&origin, records).await;
                        drop(room);
                    });
                }
                Err(refusal) => intake.refused(&origin, &refusal, records.len(), &[]),
            }
        }
    }
    while under_way.join_next().await.is_some() {}
}

/// The records of the datagrams that wait now, by sender.
fn take<P: Protocol>(
    protocol: &P,
    socket: &UdpSocket,
    bytes: &mut [u8],
    intake: &Intake,
) -> Vec<(IpAddr, Vec<Record>, usize)> {
    let mut shaper = intake.shaper(P::DOOR);
    let mut batches: Vec<(IpAddr, Vec<Record>, usize)> = Vec::new();
    for _ in 0..DATAGRAMS_MAX {
        // An error of an earlier datagram's way back is nothing to us.
        let Ok((count, peer)) = socket.try_recv_from(bytes) else { break };
        let peer = peer.ip().to_canonical();
        let origin = Origin { door: P::DOOR, sender: peer };
        intake.received(&origin, count);
        let at = batches.iter().position(|(sender, ..)| *sender == peer).unwrap_or_else(|| {
            batches.push((peer, Vec::new(), 0));
            batches.len() - 1
        });
        let (_, records, size) = &mut batches[at];
        *size += count;
        if let Err(refusal) = protocol.decode(&bytes[..count], peer, &mut shaper, records) {
            intake.refused(&origin, &refusal, 1, &bytes[..count]);
        }
    }
    intake.note_changes(P::DOOR, &shaper);
    batches.retain(|(_, records, _)| !records.is_empty());
    batches
}
