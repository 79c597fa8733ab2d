//! Many datagrams per system call: recvmmsg and sendmmsg, which tokio does not have, through nix's safe face.
//!
//! What is kept between calls belongs to the thread, because it may not move to another one while a task sleeps.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

/// Datagrams per call: enough that the call costs little per datagram, few enough that others get their turn.
pub(crate) const BATCH: usize = 32;

/// One datagram; longer ones do not exist.
const DATAGRAM_BYTES_MAX: usize = 65_535;

thread_local! {
    /// Memory that no datagram has reached is never touched, and so costs nothing.
    static RECEIVING: RefCell<Vec<u8>> = RefCell::new(vec![0; BATCH * DATAGRAM_BYTES_MAX]);
    /// Never used to receive: after a call they still point to the addresses that were given to it.
    static SENDING: RefCell<MultiHeaders<SockaddrStorage>> = RefCell::new(MultiHeaders::preallocate(BATCH, None));
}

/// Hands over what has come, at most [`BATCH`] datagrams, and says how many. Fewer than that were all there were.
///
/// # Errors
/// `WouldBlock` when there is nothing.
pub(crate) fn receive(socket: &UdpSocket, mut arrived: impl FnMut(&[u8], SocketAddr)) -> io::Result<usize> {
    // New ones each time: nix leaves the length of the last address in them, which cuts an IPv6 address after an IPv4 one.
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    RECEIVING.with_borrow_mut(|buffer| {
        let mut slices = buffer.chunks_mut(DATAGRAM_BYTES_MAX);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(slices.next().unwrap_or_default())]);
        let mut taken: [(usize, Option<SocketAddr>); BATCH] = [(0, None); BATCH];
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None)?;
        let mut count = 0;
        for (place, message) in taken.iter_mut().zip(received) {
            *place = (message.bytes, message.address.as_ref().and_then(address_of));
            count += 1;
        }
        let datagrams = buffer.chunks(DATAGRAM_BYTES_MAX).zip(&taken[..count]);
        for (chunk, (length, source)) in datagrams {
            if let Some(source) = source {
                arrived(&chunk[..*length], *source);
            }
        }
        Ok(count)
    })
}

/// Sends datagrams in order and says how many left, at most [`BATCH`]; the next one is where it stopped.
///
/// # Errors
/// When not even the first one left.
pub(crate) fn send<'a>(
    socket: &UdpSocket,
    datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>,
) -> io::Result<usize> {
    let mut addresses = [None; BATCH];
    let mut slices: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|_| [IoSlice::new(&[])]);
    let mut count = 0;
    for (remote, bytes) in datagrams.take(BATCH) {
        addresses[count] = Some(SockaddrStorage::from(remote));
        slices[count] = [IoSlice::new(bytes)];
        count += 1;
    }
    SENDING.with_borrow_mut(|headers| {
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let sent = sendmmsg(fd, headers, &slices[..count], &addresses[..count], [], flags)?;
        Ok(sent.count())
    })
}

fn address_of(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| SocketAddr::V4(SocketAddrV4::from(*address)));
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| SocketAddr::V6(SocketAddrV6::from(*address))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(address: &str) -> UdpSocket {
        UdpSocket::bind(address).expect("a socket")
    }

    fn check(address: &str) {
        let (one, other) = (bind(address), bind(address));
        let (from, to) = (one.local_addr().expect("bound"), other.local_addr().expect("bound"));
        let sent: Vec<Vec<u8>> = (0..BATCH + 3).map(|number| vec![b'x'; number * 10]).collect();
        let mut left = &sent[..];
        while !left.is_empty() {
            let count = send(&one, left.iter().map(|bytes| (to, bytes.as_slice()))).expect("room");
            left = &left[count..];
        }
        let mut got = Vec::new();
        while got.len() < sent.len() {
            // Loopback delivers before it returns.
            let taken = receive(&other, |bytes, source| got.push((bytes.to_vec(), source)));
            assert!(taken.is_ok_and(|count| (1..=BATCH).contains(&count)));
        }
        assert_eq!(got, sent.into_iter().map(|bytes| (bytes, from)).collect::<Vec<_>>());
        let nothing = receive(&other, |_, _| {});
        assert_eq!(nothing.map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn batches_keep_order_bytes_and_sources() {
        check("127.0.0.1:0");
        check("[::1]:0");
    }

    #[test]
    fn what_is_too_long_is_the_senders_fault() {
        let socket = bind("127.0.0.1:0");
        let to = socket.local_addr().expect("bound");
        let long = vec![0; DATAGRAM_BYTES_MAX + 1];
        let both = [&b"short"[..], &long];
        let datagrams = || both.iter().map(|bytes| (to, *bytes));
        assert_eq!(send(&socket, datagrams()).expect("the first leaves"), 1);
        assert!(send(&socket, datagrams().skip(1)).is_err());
    }
}
