//! Faults that can be switched on to see that they are noticed. All off from the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The relay's fault switches. Cheap to clone; all clones are one set of switches.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    loss_ppm: Arc<AtomicU32>,
}

impl Faults {
    /// Drops this share of the RTP packets that would be forwarded, in parts per million; 0 drops none.
    pub fn set_loss(&self, ppm: u32) {
        self.loss_ppm.store(ppm.min(1_000_000), Ordering::Relaxed);
    }

    /// The share that is dropped now, in parts per million.
    #[must_use]
    pub fn loss_ppm(&self) -> u32 {
        self.loss_ppm.load(Ordering::Relaxed)
    }
}

/// A small seeded generator (SplitMix64): the same seed gives the same faults.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True for this share of throws.
    pub(crate) fn falls(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.next() % 1_000_000 < u64::from(ppm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_the_seed_decides() {
        let throw = |seed| {
            let mut dice = Dice::new(seed);
            (0..100_000).filter(|_| dice.falls(80_000)).count()
        };
        assert!((7_700..8_300).contains(&throw(1)), "{}", throw(1));
        assert_eq!(throw(1), throw(1));
        let mut dice = Dice::new(1);
        assert!((0..1_000).all(|_| !dice.falls(0)));
    }
}
