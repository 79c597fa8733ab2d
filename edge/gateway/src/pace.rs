//! When to take datagrams: as each comes, or, when many come, all that have come once in a while.
//!
//! Waking up for one datagram costs more than serving it. When a socket brings more than a thousand a second, nobody
//! notices a millisecond, and a hundred wake-ups become ten. It is what network cards do about their interrupts.
//!
//! No clock and no socket: counts and the time are arguments.

use std::time::{Duration, Instant};

/// Over so long datagrams are counted.
const WINDOW: Duration = Duration::from_millis(50);

/// Decides for one socket.
#[derive(Debug)]
pub(crate) struct Pace {
    gather: Duration,
    /// Datagrams of a window from which on they are gathered.
    busy_from: usize,
    window_began: Instant,
    in_window: usize,
    is_busy: bool,
}

/// What to do before datagrams are taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait until there is one.
    Wait,
    /// Leave the socket alone for so long.
    Rest(Duration),
}

impl Pace {
    /// Without a time to gather for, every datagram is taken when it comes.
    pub(crate) fn new(gather: Duration, busy_from_per_second: u32, now: Instant) -> Self {
        let windows_per_second = 1_000 / WINDOW.as_millis().max(1);
        let busy_from = u128::from(busy_from_per_second).div_ceil(windows_per_second);
        Self {
            gather,
            busy_from: usize::try_from(busy_from).unwrap_or(usize::MAX),
            window_began: now,
            in_window: 0,
            is_busy: false,
        }
    }

    /// So many were taken, and there are no more.
    pub(crate) fn took(&mut self, count: usize, now: Instant) -> Next {
        self.in_window += count;
        let elapsed = now.saturating_duration_since(self.window_began);
        if elapsed >= WINDOW {
            // A window that lasted longer, because nothing came, counts as the rate that it had.
            let windows =
                usize::try_from(elapsed.as_millis() / WINDOW.as_millis().max(1)).unwrap_or(usize::MAX);
            self.is_busy = self.in_window / windows.max(1) >= self.busy_from;
            (self.window_began, self.in_window) = (now, 0);
        }
        if self.is_busy && !self.gather.is_zero() { Next::Rest(self.gather) } else { Next::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATHER: Duration = Duration::from_millis(1);

    /// Datagrams that come evenly for a second, and what the last of them leads to.
    fn check(per_second: u64, gather: Duration, expected: Next) {
        let start = Instant::now();
        let mut pace = Pace::new(gather, 1_000, start);
        let mut next = Next::Wait;
        for number in 0..per_second {
            next = pace.took(1, start + Duration::from_micros(number * 1_000_000 / per_second));
        }
        assert_eq!(next, expected, "{per_second} per second");
    }

    #[test]
    fn only_many_are_gathered() {
        check(10, GATHER, Next::Wait);
        check(900, GATHER, Next::Wait);
        check(1_100, GATHER, Next::Rest(GATHER));
        check(20_000, GATHER, Next::Rest(GATHER));
        check(20_000, Duration::ZERO, Next::Wait);
    }

    #[test]
    fn silence_ends_it_and_one_burst_does_not_begin_it() {
        let start = Instant::now();
        let mut pace = Pace::new(GATHER, 1_000, start);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(pace.took(40, at(10)), Next::Wait);
        assert_eq!(pace.took(40, at(51)), Next::Rest(GATHER));
        assert_eq!(pace.took(0, at(80)), Next::Rest(GATHER));
        assert_eq!(pace.took(0, at(102)), Next::Wait);
        // A hundred after a second of nothing are a hundred a second.
        assert_eq!(pace.took(100, at(1_102)), Next::Wait);
    }
}
