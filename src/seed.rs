//! Seeds: every random choice of a run is a function of the sweep's seed.
//!
//! Pure. `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number
//! generators", OOPSLA 2014) is written out here because its stream must never
//! change: a seed in an old report must still give the same order and prompts.

/// A point in the tree of seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u64);

impl Seed {
    pub(crate) const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The branch of this seed named `label`.
    pub(crate) fn branch(self, label: &str) -> Self {
        // FNV-1a over the label, then mixed: equal labels, equal branches.
        let hash = label.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(mix(self.0 ^ mix(hash)))
    }

    /// The `n`-th branch of this seed.
    pub(crate) fn nth(self, n: u64) -> Self {
        Self(mix(self.0 ^ mix(n.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// The number that `new` makes this point from again.
    pub(crate) const fn value(self) -> u64 {
        self.0
    }

    pub(crate) const fn stream(self) -> Stream {
        Stream(self.0)
    }
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `0..bound`; 0 for a bound of 0. Multiply-shift: its bias is below 2^-32 for the
    /// bounds used here.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next_u64()) * (bound as u128);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        crate::units::count_f64(self.next_u64() >> 11) / 9_007_199_254_740_992.0
    }

    /// Fisher-Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_never_changes() {
        // First outputs of SplitMix64 seeded with 0, from the reference implementation.
        let mut stream = Seed::new(0).stream();
        assert_eq!(stream.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(stream.next_u64(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn branches_differ_and_repeat() {
        let seed = Seed::new(7);
        assert_eq!(seed.branch("order"), seed.branch("order"));
        assert_ne!(seed.branch("order"), seed.branch("prompts"));
        assert_ne!(seed.nth(0), seed.nth(1));
        assert_ne!(seed.nth(0), seed);
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..100).collect();
        Seed::new(3).stream().shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
