//! UDP sockets that take and give many datagrams per system call.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

use crate::Failure;

const BATCH: usize = 64;
const DATAGRAM_BYTES: usize = 4096;
/// Kernel memory per socket, so that a busy generator loses nothing.
const SOCKET_BYTES: usize = 8 << 20;

/// One socket that speaks to one server.
pub(crate) struct Datagrams {
    pub(crate) socket: UdpSocket,
    pub(crate) local: SocketAddr,
    to: SockaddrStorage,
    /// Two sets: after a call, those for sending still point to the addresses that were given to it.
    sending: MultiHeaders<SockaddrStorage>,
    receiving: MultiHeaders<SockaddrStorage>,
    buffer: Vec<u8>,
    waiting: Vec<Vec<u8>>,
}

impl Datagrams {
    pub(crate) fn bind(port: u16, to: SocketAddr) -> Result<Self, Failure> {
        let socket = UdpSocket::bind(("127.0.0.1", port))?;
        socket.set_nonblocking(true)?;
        let options = socket2::SockRef::from(&socket);
        options.set_recv_buffer_size(SOCKET_BYTES)?;
        options.set_send_buffer_size(SOCKET_BYTES)?;
        Ok(Self {
            local: socket.local_addr()?,
            socket,
            to: SockaddrStorage::from(to),
            sending: MultiHeaders::preallocate(BATCH, None),
            receiving: MultiHeaders::preallocate(BATCH, None),
            buffer: vec![0; BATCH * DATAGRAM_BYTES],
            waiting: Vec::new(),
        })
    }

    /// Sends with the next flush.
    pub(crate) fn push(&mut self, datagram: Vec<u8>) {
        self.waiting.push(datagram);
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        for batch in self.waiting.chunks(BATCH) {
            let mut batch = batch;
            while !batch.is_empty() {
                let slices: Vec<[IoSlice<'_>; 1]> = batch.iter().map(|bytes| [IoSlice::new(bytes)]).collect();
                let to = vec![Some(self.to); batch.len()];
                let fd = self.socket.as_raw_fd();
                match sendmmsg(fd, &mut self.sending, &slices, &to, [], MsgFlags::empty()) {
                    Ok(sent) => batch = &batch[sent.count().max(1)..],
                    // A full socket: the delivery is a softirq away.
                    Err(Errno::EAGAIN) => std::thread::yield_now(),
                    // The echo of an earlier datagram to a port that nobody listens on.
                    Err(Errno::ECONNREFUSED) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.waiting.clear();
        Ok(())
    }

    /// Takes what has come, up to one batch, and says how many datagrams that was.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(&[u8])) -> Result<usize, Failure> {
        let mut lengths = [0; BATCH];
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.buffer.chunks_mut(DATAGRAM_BYTES).map(|chunk| [IoSliceMut::new(chunk)]).collect();
        let fd = self.socket.as_raw_fd();
        let count = match recvmmsg(fd, &mut self.receiving, &mut slices, MsgFlags::MSG_DONTWAIT, None) {
            Ok(received) => {
                let mut count = 0;
                for message in received {
                    lengths[count] = message.bytes;
                    count += 1;
                }
                count
            }
            Err(Errno::EAGAIN | Errno::ECONNREFUSED) => 0,
            Err(error) => return Err(error.into()),
        };
        for (chunk, length) in self.buffer.chunks(DATAGRAM_BYTES).zip(&lengths[..count]) {
            take(&chunk[..*length]);
        }
        Ok(count)
    }
}
