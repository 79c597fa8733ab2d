//! A hierarchical timing wheel: many timers, constant work to set and to stop one, time as an argument.
//!
//! Five levels of 64 slots. Level 0 counts single ticks, each level above counts 64 times as much. A timer sits in
//! the lowest level whose slots tell its tick from the present one, and moves down a level each time the present
//! reaches its slot. Timers never fire early; they fire at most one tick late.
//!
//! Not here: any clock, any thread, and any meaning of a timer beyond the value that comes back.

use std::time::{Duration, Instant};

/// The resolution of the wheel.
pub const TICK: Duration = Duration::from_millis(5);

const LEVELS: usize = 5;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Timers further away than this (62 days) are brought nearer; nothing in SIP waits so long.
const TICKS_MAX: u64 = 1 << (SLOT_BITS * LEVELS as u32);
const NONE: u32 = u32::MAX;

/// Names a timer that was set. Harmless once the timer has fired or was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerKey {
    index: u32,
    generation: u32,
}

/// A timing wheel; each timer carries a value that comes back when it fires.
#[derive(Debug)]
pub struct Wheel<T> {
    origin: Instant,
    /// Everything due at this tick or before has been moved to `due`.
    present: u64,
    levels: Box<[Level; LEVELS]>,
    entries: Vec<Entry<T>>,
    free: u32,
    len: usize,
    /// Timers that have fired and were not yet taken, oldest first.
    due: std::collections::VecDeque<T>,
}

#[derive(Debug)]
struct Level {
    /// Bit n is set when slot n has a timer.
    occupied: u64,
    heads: [u32; SLOTS],
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    /// `None` while the entry is on the free list, chained by `next`.
    value: Option<T>,
    tick: u64,
    level: u8,
    previous: u32,
    next: u32,
}

impl<T> Wheel<T> {
    /// A wheel whose time begins at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let level = || Level { occupied: 0, heads: [NONE; SLOTS] };
        Self {
            origin: now,
            present: 0,
            levels: Box::new(std::array::from_fn(|_| level())),
            entries: Vec::new(),
            free: NONE,
            len: 0,
            due: std::collections::VecDeque::new(),
        }
    }

    /// How many timers are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a timer; a deadline in the past fires at the next tick.
    pub fn set(&mut self, deadline: Instant, value: T) -> TimerKey {
        let tick = self.tick_at_or_after(deadline).clamp(self.present + 1, self.present + TICKS_MAX - 1);
        let index = match self.free {
            NONE => {
                let index = u32::try_from(self.entries.len()).unwrap_or(NONE - 1);
                self.entries.push(Entry {
                    generation: 0,
                    value: None,
                    tick,
                    level: 0,
                    previous: NONE,
                    next: NONE,
                });
                index
            }
            index => {
                self.free = self.entries[index as usize].next;
                index
            }
        };
        let entry = &mut self.entries[index as usize];
        entry.value = Some(value);
        entry.tick = tick;
        self.len += 1;
        self.link(index);
        TimerKey { index, generation: self.entries[index as usize].generation }
    }

    /// Stops a timer and gives its value back; `None` when it has fired or was stopped before.
    pub fn stop(&mut self, key: TimerKey) -> Option<T> {
        let entry = self.entries.get(key.index as usize)?;
        if entry.generation != key.generation || entry.value.is_none() {
            return None;
        }
        self.unlink(key.index);
        self.release(key.index)
    }

    /// When to call [`Wheel::next_due`] again at the latest: never later than the next timer, sometimes earlier.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if !self.due.is_empty() {
            return Some(self.origin);
        }
        self.next_slot().map(|(_, _, tick)| self.origin + duration_of(tick))
    }

    /// The next value whose time has come by `now`, in the order of deadlines.
    pub fn next_due(&mut self, now: Instant) -> Option<T> {
        let target = self.tick_at_or_before(now);
        while self.due.is_empty() {
            match self.next_slot() {
                Some((level, slot, tick)) if tick <= target => {
                    self.present = tick;
                    self.empty_slot(level, slot);
                }
                _ => {
                    self.present = self.present.max(target);
                    break;
                }
            }
        }
        self.due.pop_front()
    }

    /// The earliest slot with a timer, and the tick at which it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for (level, content) in self.levels.iter().enumerate() {
            if content.occupied == 0 {
                continue;
            }
            let shift = SLOT_BITS * u32::try_from(level).unwrap_or(0);
            let here = (self.present >> shift) & (SLOTS as u64 - 1);
            let ahead = content.occupied.rotate_right(u32::try_from(here).unwrap_or(0)).trailing_zeros();
            let slot = (here + u64::from(ahead)) % SLOTS as u64;
            let range = 1u64 << (shift + SLOT_BITS);
            let mut tick = (self.present & !(range - 1)) + (slot << shift);
            // Only the top level wraps: there a slot behind the present one means the next round.
            if tick < self.present {
                tick += range;
            }
            return Some((level, usize::try_from(slot).unwrap_or(0), tick));
        }
        None
    }

    /// Fires what is due in a slot and moves the rest to lower levels.
    fn empty_slot(&mut self, level: usize, slot: usize) {
        let mut index = std::mem::replace(&mut self.levels[level].heads[slot], NONE);
        self.levels[level].occupied &= !(1 << slot);
        while index != NONE {
            let entry = &mut self.entries[index as usize];
            let next = entry.next;
            if entry.tick <= self.present {
                if let Some(value) = self.release(index) {
                    self.due.push_back(value);
                }
            } else {
                self.link(index);
            }
            index = next;
        }
    }

    fn link(&mut self, index: u32) {
        let tick = self.entries[index as usize].tick;
        let differing = (tick ^ self.present) | (SLOTS as u64 - 1);
        let level = (((63 - differing.leading_zeros()) / SLOT_BITS) as usize).min(LEVELS - 1);
        let slot = slot_of(level, tick);
        let head = std::mem::replace(&mut self.levels[level].heads[slot], index);
        self.levels[level].occupied |= 1 << slot;
        if head != NONE {
            self.entries[head as usize].previous = index;
        }
        let entry = &mut self.entries[index as usize];
        entry.level = u8::try_from(level).unwrap_or(0);
        entry.previous = NONE;
        entry.next = head;
    }

    fn unlink(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        let (tick, level, previous, next) =
            (entry.tick, usize::from(entry.level), entry.previous, entry.next);
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
            return;
        }
        let slot = slot_of(level, tick);
        self.levels[level].heads[slot] = next;
        if next == NONE {
            self.levels[level].occupied &= !(1 << slot);
        }
    }

    /// Puts an unlinked entry on the free list.
    fn release(&mut self, index: u32) -> Option<T> {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = self.free;
        self.free = index;
        self.len -= 1;
        entry.value.take()
    }

    fn tick_at_or_after(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.origin).as_nanos().div_ceil(TICK.as_nanos());
        u64::try_from(nanos).unwrap_or(u64::MAX / 2)
    }

    fn tick_at_or_before(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.origin).as_nanos() / TICK.as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX / 2)
    }
}

fn slot_of(level: usize, tick: u64) -> usize {
    let shift = SLOT_BITS * u32::try_from(level).unwrap_or(0);
    usize::try_from((tick >> shift) & (SLOTS as u64 - 1)).unwrap_or(0)
}

fn duration_of(tick: u64) -> Duration {
    let nanos = u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(nanos.saturating_mul(tick))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn timers_fire_in_order_and_never_early() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        for delay in [5, 7, 320, 500, 31_995, 32_000, 180_000, 3_600_000, 90_000_000] {
            wheel.set(start + ms(delay), delay);
        }
        let mut fired = Vec::new();
        let mut now = start;
        while let Some(deadline) = wheel.deadline() {
            now = now.max(deadline);
            while let Some(delay) = wheel.next_due(now) {
                let late = now.duration_since(start).saturating_sub(ms(delay));
                assert!(now >= start + ms(delay) && late <= TICK, "{delay} fired {late:?} late");
                fired.push(delay);
            }
        }
        assert_eq!(fired, [5, 7, 320, 500, 31_995, 32_000, 180_000, 3_600_000, 90_000_000]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_stopped_timer_is_silent_and_its_key_is_harmless() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let first = wheel.set(start + ms(10), "first");
        let second = wheel.set(start + ms(10), "second");
        assert_eq!(wheel.stop(first), Some("first"));
        assert_eq!(wheel.stop(first), None);
        // The third takes the first one's place; the old key must not reach it.
        wheel.set(start + ms(10), "third");
        assert_eq!(wheel.stop(first), None);
        let fired: Vec<_> = std::iter::from_fn(|| wheel.next_due(start + ms(10))).collect();
        assert_eq!(fired.len(), 2);
        assert_eq!(wheel.stop(second), None);
    }

    #[test]
    fn a_long_idle_time_costs_nothing_and_loses_nothing() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let later = start + Duration::from_secs(40 * 24 * 3600);
        assert_eq!(wheel.next_due(later), None::<u8>);
        wheel.set(later + ms(32_000), 1);
        assert_eq!(wheel.next_due(later + ms(31_995)), None);
        assert_eq!(wheel.next_due(later + ms(32_000)), Some(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn it_does_what_a_sorted_list_would(steps in prop::collection::vec((0u64..200_000, 0u64..70_000, any::<bool>()), 1..60)) {
            let start = Instant::now();
            let mut wheel = Wheel::new(start);
            let mut model: Vec<(u64, usize)> = Vec::new();
            let mut keys = Vec::new();
            let mut now = 0;
            for (number, (delay, advance, is_stopped)) in steps.into_iter().enumerate() {
                keys.push(wheel.set(start + ms(now + delay), number));
                // A timer of no delay fires at the next tick.
                model.push(((now + delay).div_ceil(5).max(now / 5 + 1) * 5, number));
                if is_stopped {
                    let victim = number / 2;
                    let is_live = model.iter().any(|(_, n)| *n == victim);
                    prop_assert_eq!(wheel.stop(keys[victim]).is_some(), is_live);
                    model.retain(|(_, n)| *n != victim);
                }
                now += advance;
                let mut fired: Vec<usize> = std::iter::from_fn(|| wheel.next_due(start + ms(now))).collect();
                fired.sort_unstable();
                let mut expected: Vec<usize> = model.iter().filter(|(at, _)| *at <= now).map(|(_, n)| *n).collect();
                expected.sort_unstable();
                prop_assert_eq!(fired, expected);
                model.retain(|(at, _)| *at > now);
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
