//! What the core holds in memory: what must come back to nothing when nobody calls any more.

use super::Core;

/// How many of everything there are now. All but `timers` are zero in a core that has nothing to do; of timers one is
/// left, which wakes the core once a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Transactions, client and server (RFC 3261 section 17).
    pub transactions: usize,
    /// Requests that were taken and whose transaction is open.
    pub exchanges: usize,
    /// Client transactions of those.
    pub branches: usize,
    /// Exchanges that leave no span unless they end badly.
    pub routine: usize,
    /// Calls, those included whose record is being written.
    pub calls: usize,
    /// Timers of the core's own; those of transactions are not among them.
    pub timers: usize,
    /// Requests to relays that wait for their reply.
    pub relay_requests: usize,
    /// Requests to stores, and lookups.
    pub jobs: usize,
    /// Call records that the books have not spoken of.
    pub records: usize,
    /// Refusals of wrong credentials that wait.
    pub denials: usize,
}

impl Core {
    pub(super) fn holdings(&self) -> Holdings {
        Holdings {
            transactions: self.transactions.len(),
            exchanges: self.exchanges.len(),
            branches: self.branches.len(),
            routine: self.routine.len(),
            calls: self.calls.len(),
            timers: self.timers.len(),
            relay_requests: self.relays.waiting_count(),
            jobs: self.jobs.len(),
            records: self.records_awaited,
            denials: self.denials_waiting,
        }
    }
}
