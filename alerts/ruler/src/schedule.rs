//! When a group is evaluated: at its own moment of each interval, never twice at once, and missed ones are counted.

/// The moments of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    interval_ms: i64,
    offset_ms: i64,
    due_ms: i64,
}

/// An evaluation that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The moment that it is for, in Unix milliseconds.
    pub at_ms: i64,
    /// Moments before it for which it is too late.
    pub missed: u64,
}

impl Schedule {
    /// The schedule of a group whose name is given from now on. Groups of one interval are spread over it by their
    /// names, so that they do not all read the store at once.
    pub fn new(name: &str, interval_ms: i64, now_ms: i64) -> Schedule {
        let interval_ms = interval_ms.max(1);
        // FNV-1a: the same moment after every restart.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let offset_ms = i64::try_from(hash % interval_ms.unsigned_abs()).unwrap_or(0);
        let mut schedule = Schedule { interval_ms, offset_ms, due_ms: 0 };
        schedule.due_ms = schedule.first_from(now_ms);
        schedule
    }

    /// The same, with the last moment before now still to come: a group that is new need not wait to be heard.
    #[must_use]
    pub fn hurried(mut self) -> Schedule {
        self.due_ms -= self.interval_ms;
        self
    }

    /// How long the pauses are.
    pub fn interval_ms(&self) -> i64 {
        self.interval_ms
    }

    /// When the next evaluation is due.
    pub fn due_ms(&self) -> i64 {
        self.due_ms
    }

    /// The evaluation that is due now, if one is. Of several only the newest is made.
    pub fn take(&mut self, now_ms: i64) -> Option<Turn> {
        if self.due_ms.saturating_sub(now_ms) > self.interval_ms {
            // The clock stepped back: waiting for the old moment would be waiting for long.
            self.due_ms = self.first_from(now_ms);
        }
        if now_ms < self.due_ms {
            return None;
        }
        let missed = (now_ms - self.due_ms) / self.interval_ms;
        let at_ms = self.due_ms + missed * self.interval_ms;
        self.due_ms = at_ms + self.interval_ms;
        Some(Turn { at_ms, missed: missed.unsigned_abs() })
    }

    /// The first moment at or after a time.
    fn first_from(&self, now_ms: i64) -> i64 {
        let past = (now_ms - self.offset_ms).rem_euclid(self.interval_ms);
        if past == 0 { now_ms } else { now_ms - past + self.interval_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_regular_and_missed_ones_are_counted() {
        let mut schedule = Schedule::new("calls", 60_000, 1_000_000);
        let first = schedule.due_ms();
        assert!((1_000_000..1_060_000).contains(&first));
        assert_eq!(Schedule::new("calls", 60_000, first).due_ms(), first, "stable over restarts");
        assert_eq!(schedule.take(first - 1), None);
        let mut hurried = schedule.hurried();
        assert_eq!(hurried.take(first - 1), Some(Turn { at_ms: first - 60_000, missed: 0 }));
        assert_eq!(hurried.due_ms(), first);
        assert_eq!(schedule.take(first + 10), Some(Turn { at_ms: first, missed: 0 }));
        assert_eq!(schedule.take(first + 20), None, "once per moment");
        let late = first + 60_000 * 4 + 5;
        assert_eq!(schedule.take(late), Some(Turn { at_ms: first + 240_000, missed: 3 }));
        assert_eq!(schedule.take(first - 599_990), None);
        assert!(schedule.due_ms() <= first - 540_000, "a clock that stepped back is followed");
    }
}
