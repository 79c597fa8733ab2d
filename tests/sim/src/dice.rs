//! Dice that are named and not thrown in a row: what a message meets depends on the seed and on which message it is, and
//! not on what else happened to be thrown before. So two runs of a seed agree even where the core does two things of one
//! moment in another order.

/// All dice of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(pub(crate) u64);

/// The throws for one purpose.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Seed {
    /// The dice with this name.
    pub(crate) fn dice(self, name: &str) -> Dice {
        // FNV-1a, and then as many mixing steps as there are throws.
        let mut hash = 0xcbf2_9ce4_8422_2325 ^ self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Dice(hash)
    }
}

impl Dice {
    /// The next word (SplitMix64).
    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// One of `0..sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.word() % sides.max(1)
    }

    /// Between two values, the last one included.
    pub(crate) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.roll(last - first + 1)
    }

    /// Whether something happens that happens so many times in a thousand.
    pub(crate) fn happens(&mut self, per_mille: u64) -> bool {
        self.roll(1000) < per_mille
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_throw_whatever_was_thrown_before() {
        let throws = |seed: u64, name: &str| {
            let mut dice = Seed(seed).dice(name);
            [dice.word(), dice.word()]
        };
        let _other = throws(1, "other");
        assert_eq!(throws(1, "a"), throws(1, "a"));
        assert_ne!(throws(1, "a"), throws(1, "b"));
        assert_ne!(throws(1, "a"), throws(2, "a"));
        assert_ne!(throws(1, "a")[0], throws(1, "a")[1]);
    }

    #[test]
    fn dice_are_fair_enough() {
        let count = (0..10_000).filter(|n| Seed(7).dice(&format!("m{n}")).happens(200)).count();
        assert!((1_800..2_200).contains(&count), "{count}");
    }
}
