//! The seed's numbers: SplitMix64 (Steele, Lea, Flood), so that each part of the simulation can have
//! a stream of its own that the others do not disturb.

/// A stream of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another stream, for the part of this name.
    pub(crate) fn fork(&self, name: &str) -> Self {
        Self(self.0 ^ xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `low` up to and with `high`.
    pub(crate) fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high.saturating_sub(low) + 1)
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// One of them; there is at least one.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = self.within(0, of.len() as u64 - 1);
        &of[usize::try_from(at).expect("a place in a slice")]
    }

    /// Puts them into any order.
    pub(crate) fn shuffle<T>(&mut self, of: &mut [T]) {
        for at in (1..of.len()).rev() {
            let other = usize::try_from(self.within(0, at as u64)).expect("a place in a slice");
            of.swap(at, other);
        }
    }
}
