//! The configured port range, leased in pairs: RTP on the even port, RTCP on the odd one after it.
//!
//! Pairs are taken in an order that cannot be guessed and given back to the end of the queue, so that late packets
//! of one call do not reach the next.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use mio::net::UdpSocket;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::faults::Dice;

/// Pairs that another process may be found on before we give up looking.
const TRIES_MAX: usize = 64;

/// Why there is no pair.
#[derive(Debug)]
pub(crate) enum BindError {
    /// Every pair is leased, or held by another process.
    Exhausted,
    /// The kernel gave no socket.
    Socket(io::Error),
}

/// All pairs of the range. Taken on the control path only.
#[derive(Debug)]
pub(crate) struct PortPool {
    address: IpAddr,
    dscp: u8,
    free: Mutex<VecDeque<u16>>,
    ports: usize,
}

/// A bound pair.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) rtp: UdpSocket,
    pub(crate) rtcp: UdpSocket,
    pub(crate) lease: Lease,
}

/// Gives the pair back when it is dropped; declared after the sockets, so that they are closed by then.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<PortPool>,
    pub(crate) rtp_port: u16,
}

impl PortPool {
    /// The pairs within `port_min..=port_max`, shuffled by `seed`.
    pub(crate) fn new(address: IpAddr, dscp: u8, port_min: u16, port_max: u16, seed: u64) -> Self {
        let first = port_min + port_min % 2;
        let mut pairs: Vec<u16> = (first..port_max).step_by(2).collect();
        let mut dice = Dice::new(seed);
        for index in (1..pairs.len()).rev() {
            let other = usize::try_from(dice.next() % (index as u64 + 1)).unwrap_or(0);
            pairs.swap(index, other);
        }
        let ports = pairs.len() * 2;
        Self { address, dscp, free: Mutex::new(pairs.into()), ports }
    }

    /// Ports in the range.
    pub(crate) fn ports(&self) -> usize {
        self.ports
    }

    /// Ports that are leased.
    pub(crate) fn used(&self) -> usize {
        self.ports - self.lock().len() * 2
    }

    /// Binds a pair.
    pub(crate) fn bind(self: &Arc<Self>) -> Result<Pair, BindError> {
        // Pairs that another process holds stay leased while we look, so that each is tried once.
        let mut taken = Vec::new();
        while taken.len() < TRIES_MAX {
            let rtp_port = self.lock().pop_front().ok_or(BindError::Exhausted)?;
            let lease = Lease { pool: Arc::clone(self), rtp_port };
            let bound = self.open(rtp_port).and_then(|rtp| Ok((rtp, self.open(rtp_port + 1)?)));
            match bound {
                Ok((rtp, rtcp)) => return Ok(Pair { rtp, rtcp, lease }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken.push(lease),
                Err(error) => return Err(BindError::Socket(error)),
            }
        }
        Err(BindError::Exhausted)
    }

    fn open(&self, port: u16) -> io::Result<UdpSocket> {
        let socket = bind(self.address, port)?;
        if self.dscp > 0 {
            // The code point is the upper six bits of the byte (RFC 2474). Where marking is not allowed, packets
            // go unmarked rather than not at all.
            let class = u32::from(self.dscp) << 2;
            let marked = SockRef::from(&socket);
            let _ =
                if self.address.is_ipv4() { marked.set_tos_v4(class) } else { marked.set_tclass_v6(class) };
        }
        Ok(socket)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<u16>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.lock().push_back(self.rtp_port);
    }
}

/// Whether sockets can be bound at the address at all.
pub(crate) fn probe(address: IpAddr) -> io::Result<()> {
    bind(address, 0).map(drop)
}

fn bind(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(address, port).into())?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// A range of this many pairs that is free on loopback now: found by binding, because tests run side by side.
#[cfg(test)]
pub(crate) fn free_range(pairs: u16) -> (u16, u16) {
    let address = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let mut dice = Dice::new(std::process::id().into());
    for _ in 0..200 {
        // Below the range from which the kernel serves bind(0), where every other test's sockets are.
        let first = 10_000 + 2 * u16::try_from(dice.next() % 10_000).expect("small");
        let last = first + 2 * pairs - 1;
        if (first..=last).all(|port| bind(address, port).is_ok()) {
            return (first, last);
        }
    }
    panic!("no free range of ports");
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_range_holds_its_even_pairs_only() {
        for (min, max, pairs) in
            [(20_000, 20_003, 2), (20_001, 20_004, 1), (20_000, 20_000, 0), (65_532, 65_535, 2)]
        {
            assert_eq!(PortPool::new(LOOPBACK, 46, min, max, 1).ports(), pairs * 2, "{min}-{max}");
        }
    }

    #[test]
    fn a_pair_comes_back_last() {
        let (min, max) = free_range(4);
        let pool = Arc::new(PortPool::new(LOOPBACK, 46, min, max, 7));
        let first = pool.bind().expect("free ports");
        assert_eq!(pool.used(), 2);
        assert_eq!(first.lease.rtp_port % 2, 0);
        let port = first.lease.rtp_port;
        drop(first);
        assert_eq!(pool.used(), 0);
        assert_eq!(pool.lock().back(), Some(&port));
    }

    #[test]
    fn a_port_of_another_process_is_passed_over() {
        let (min, max) = free_range(2);
        let pool = Arc::new(PortPool::new(LOOPBACK, 46, min, max, 7));
        let next = *pool.lock().front().expect("a pair");
        let _other = std::net::UdpSocket::bind((LOOPBACK, next + 1)).expect("free");
        let pair = pool.bind().expect("the other pair");
        assert_ne!(pair.lease.rtp_port, next);
        assert!(matches!(pool.bind(), Err(BindError::Exhausted)));
    }
}
