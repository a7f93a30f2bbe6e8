//! Seeded randomness. One seed, one sequence, on every machine and in every version.

/// xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021), seeded by splitmix64.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

impl Random {
    /// A generator for one purpose of one seed: purposes do not disturb each other.
    pub fn new(seed: u64, purpose: &str) -> Random {
        let mut state = purpose.bytes().fold(seed, |state, byte| splitmix(state ^ u64::from(byte)));
        Random([(); 4].map(|()| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            splitmix(state)
        }))
    }

    /// 64 random bits.
    #[inline]
    pub fn word(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// If `bound` is zero.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// If `high` is below `low`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "{low} is above {high}");
        match (high - low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.word(),
        }
    }

    /// A number from `low` to `high` whose magnitude is drawn evenly: as often between 10 and 100 as between 100 and
    /// 1000.
    ///
    /// # Panics
    /// If `low` is zero or `high` is below it.
    pub fn scaled(&mut self, low: u64, high: u64) -> u64 {
        assert!(low > 0, "zero has no magnitude");
        let (from, to) = (low.ilog2(), high.ilog2());
        let magnitude = self.between(u64::from(from), u64::from(to));
        let floor = 1 << magnitude;
        self.between(floor, floor * 2 - 1).clamp(low, high)
    }

    /// Whether something of this many chances in a million happens.
    #[inline]
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[inline]
pub(crate) fn splitmix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut random = Random::new(7, "network");
        let first: Vec<u64> = (0..3).map(|_| random.word()).collect();
        assert_eq!(first, [7_189_548_806_214_266_712, 9_637_443_769_396_625_194, 7_814_867_040_648_478_919]);
        let mut again = Random::new(7, "network");
        assert_eq!(again.word(), first[0]);
        assert_ne!(Random::new(7, "workload").word(), first[0]);
        assert_ne!(Random::new(8, "network").word(), first[0]);
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_its_ends() {
        let mut random = Random::new(1, "range");
        let drawn: Vec<u64> = (0..1000).map(|_| random.between(3, 5)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&5)));
        assert!((0..1000).map(|_| random.scaled(10, 5000)).all(|number| (10..=5000).contains(&number)));
        assert_eq!(random.between(u64::MAX, u64::MAX), u64::MAX);
        random.between(0, u64::MAX);
    }

    #[test]
    fn chances_are_what_they_say() {
        let mut random = Random::new(1, "chance");
        let hits = (0..100_000).filter(|_| random.chance(300_000)).count();
        assert!((29_000..31_000).contains(&hits), "{hits}");
        assert!(!(0..1000).any(|_| random.chance(0)));
        assert!((0..1000).all(|_| random.chance(1_000_000)));
    }
}
