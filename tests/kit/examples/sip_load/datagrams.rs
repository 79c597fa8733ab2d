//! UDP sockets that take and give many datagrams per system call.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

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
    /// With the address that it is sent from.
    waiting: Vec<(SocketAddr, Vec<u8>)>,
    is_spread: bool,
}

impl Datagrams {
    pub(crate) fn bind(port: u16, to: SocketAddr, is_spread: bool) -> Result<Self, Failure> {
        let any = if is_spread { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        let socket = UdpSocket::bind((any, port))?;
        socket.set_nonblocking(true)?;
        let options = socket2::SockRef::from(&socket);
        options.set_recv_buffer_size(SOCKET_BYTES)?;
        options.set_send_buffer_size(SOCKET_BYTES)?;
        Ok(Self {
            local: socket.local_addr()?,
            socket,
            to: SockaddrStorage::from(to),
            // Room for a source address that is not filled is an empty control message, which the kernel refuses.
            sending: MultiHeaders::preallocate(
                BATCH,
                is_spread.then(|| nix::cmsg_space!(nix::libc::in_pktinfo)),
            ),
            receiving: MultiHeaders::preallocate(BATCH, None),
            buffer: vec![0; BATCH * DATAGRAM_BYTES],
            waiting: Vec::new(),
            is_spread,
        })
    }

    /// Sends with the next flush, from this address when the socket has more than one.
    pub(crate) fn push(&mut self, from: SocketAddr, datagram: Vec<u8>) {
        self.waiting.push((from, datagram));
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let is_one =
            |one: &(SocketAddr, Vec<u8>), other: &(SocketAddr, Vec<u8>)| !self.is_spread || one.0 == other.0;
        for batch in self.waiting.chunk_by(is_one).flat_map(|same| same.chunks(BATCH)) {
            let source = match batch.first().map(|(from, _)| from.ip()) {
                Some(IpAddr::V4(source)) if self.is_spread => source,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            let information = nix::libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: nix::libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                ipi_addr: nix::libc::in_addr { s_addr: 0 },
            };
            let information = [ControlMessage::Ipv4PacketInfo(&information)];
            let information = if self.is_spread { &information[..] } else { &[] };
            let mut batch = batch;
            while !batch.is_empty() {
                let slices: Vec<[IoSlice<'_>; 1]> =
                    batch.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
                let to = vec![Some(self.to); batch.len()];
                let fd = self.socket.as_raw_fd();
                match sendmmsg(fd, &mut self.sending, &slices, &to, information, MsgFlags::empty()) {
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
