//! Deterministic mutation of byte strings: the same seed gives the same inputs on every machine.

/// Inputs never grow beyond this.
pub const INPUT_BYTES_MAX: usize = 16 * 1024;

/// The most mutations one input gets on top of each other.
const MUTATIONS_MAX: u64 = 8;

/// A seeded generator (splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `limit`, or 0 if `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.word()) * limit as u128) >> 64) as usize
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// Turns inputs of `corpus` into others.
#[derive(Debug)]
pub struct Mutator<'a> {
    dice: Dice,
    corpus: &'a [Vec<u8>],
}

impl<'a> Mutator<'a> {
    /// A mutator over `corpus` for one seed.
    pub fn new(seed: u64, corpus: &'a [Vec<u8>]) -> Mutator<'a> {
        Mutator { dice: Dice::new(seed), corpus }
    }

    /// The next input: an entry of the corpus with a few mutations on top of each other.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = match self.corpus {
            [] => Vec::new(),
            corpus => self.dice.one_of(corpus).clone(),
        };
        let mutations = 1 + (self.dice.word().trailing_zeros() as u64).min(MUTATIONS_MAX - 1);
        for _ in 0..mutations {
            self.mutate(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        if input.is_empty() {
            return self.append(input);
        }
        match self.dice.below(12) {
            0 | 1 => self.flip_bit(input),
            2 => self.set_byte(input),
            3 => self.nudge_integer(input),
            4 | 5 => self.set_extreme_integer(input),
            6 => self.truncate(input),
            7 => self.append(input),
            8 => self.delete(input),
            9 => self.repeat(input),
            10 => self.overwrite_from_itself(input),
            _ => self.splice(input),
        }
    }

    fn flip_bit(&mut self, input: &mut [u8]) {
        let bit = self.dice.below(input.len() * 8);
        input[bit / 8] ^= 1 << (bit % 8);
    }

    fn set_byte(&mut self, input: &mut [u8]) {
        let at = self.dice.below(input.len());
        input[at] = self.dice.word() as u8;
    }

    fn nudge_integer(&mut self, input: &mut [u8]) {
        let (at, width) = self.integer(input);
        let mut word = [0; 8];
        word[..width].copy_from_slice(&input[at..at + width]);
        let step = 1 + self.dice.below(16) as u64;
        let word = u64::from_le_bytes(word);
        let moved = if self.dice.below(2) == 0 { word.wrapping_add(step) } else { word.wrapping_sub(step) };
        input[at..at + width].copy_from_slice(&moved.to_le_bytes()[..width]);
    }

    fn set_extreme_integer(&mut self, input: &mut [u8]) {
        let (at, width) = self.integer(input);
        let bits = 8 * width as u32;
        let mask = u64::MAX >> (64 - bits);
        let length = input.len() as u64;
        let extremes =
            [0, 1, mask, mask - 1, mask >> 1, (mask >> 1) + 1, length, length + 1, length.wrapping_sub(1)];
        let bytes = self.dice.one_of(&extremes).to_le_bytes();
        input[at..at + width].copy_from_slice(&bytes[..width]);
        if self.dice.below(4) == 0 {
            input[at..at + width].reverse();
        }
    }

    fn truncate(&mut self, input: &mut Vec<u8>) {
        let length = self.dice.below(input.len());
        input.truncate(length);
    }

    fn append(&mut self, input: &mut Vec<u8>) {
        let count = 1 + self.dice.below(64);
        input.extend((0..count).map(|_| self.dice.word() as u8));
    }

    fn delete(&mut self, input: &mut Vec<u8>) {
        let (from, to) = self.range(input.len());
        input.drain(from..to);
    }

    fn repeat(&mut self, input: &mut Vec<u8>) {
        let (from, to) = self.range(input.len());
        let copy = input[from..to].to_vec();
        input.splice(to..to, copy);
    }

    fn overwrite_from_itself(&mut self, input: &mut [u8]) {
        let (from, to) = self.range(input.len());
        let at = self.dice.below(input.len() - (to - from) + 1);
        input.copy_within(from..to, at);
    }

    fn splice(&mut self, input: &mut Vec<u8>) {
        let other = self.dice.one_of(self.corpus_or_empty()).clone();
        if other.is_empty() {
            return self.append(input);
        }
        let (from, to) = self.range(other.len());
        let at = self.dice.below(input.len() + 1);
        input.truncate(at + if self.dice.below(2) == 0 { 0 } else { input.len() - at });
        input.splice(at..at, other[from..to].iter().copied());
    }

    fn corpus_or_empty(&self) -> &'a [Vec<u8>] {
        const NONE: &[Vec<u8>] = &[Vec::new()];
        if self.corpus.is_empty() { NONE } else { self.corpus }
    }

    /// Where an integer lies: offset and width.
    fn integer(&mut self, input: &[u8]) -> (usize, usize) {
        let width = (*self.dice.one_of(&[1, 2, 4, 8])).min(input.len());
        (self.dice.below(input.len() - width + 1), width)
    }

    /// A part of `length` bytes, not empty, mostly short.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let from = self.dice.below(length);
        let limit = length - from;
        let limit = if self.dice.below(4) == 0 { limit } else { limit.min(16) };
        (from, from + 1 + self.dice.below(limit))
    }
}

/// What is tried before chance is: the truncations of `seed` and the flips of each of its bits; every one of them, or
/// `limit` of them, evenly spread, if there are more.
pub fn exhaustive(seed: &[u8], limit: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
    let (truncations, flips) = (seed.len(), seed.len() * 8);
    // Odd, so that a sparse choice still comes to all eight bits.
    let stride = if limit == 0 { usize::MAX } else { (truncations + flips).div_ceil(limit) | 1 };
    (0..truncations + flips).step_by(stride).take(limit).map(move |at| match at.checked_sub(truncations) {
        None => seed[..at].to_vec(),
        Some(bit) => {
            let mut input = seed.to_vec();
            input[bit / 8] ^= 1 << (bit % 8);
            input
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_the_same_inputs_and_another_gives_others() {
        let corpus = vec![vec![1, 2, 3, 4, 5, 6, 7, 8], b"NAK(window=4096):COM".to_vec()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, &corpus);
            (0..500).map(|_| mutator.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
    }

    #[test]
    fn inputs_stay_within_their_limit_whatever_the_corpus() {
        for corpus in [vec![], vec![vec![]], vec![vec![0; INPUT_BYTES_MAX]]] {
            let mut mutator = Mutator::new(1, &corpus);
            assert!((0..2_000).all(|_| mutator.next_input().len() <= INPUT_BYTES_MAX));
        }
    }

    #[test]
    fn mutations_reach_a_length_field_that_overruns() {
        // A decoder that trusts this length would read past the end; the mutator must find such inputs quickly.
        let corpus = vec![vec![4, 0, 1, 2, 3, 4]];
        let mut mutator = Mutator::new(3, &corpus);
        let overruns = (0..1_000)
            .map(|_| mutator.next_input())
            .filter(|input| {
                input.len() > 2 && usize::from(u16::from_le_bytes([input[0], input[1]])) > input.len() - 2
            })
            .count();
        assert!(overruns > 50, "only {overruns} of 1000 inputs overrun");
    }

    #[test]
    fn every_truncation_and_every_bit_is_tried() {
        let tried: Vec<_> = exhaustive(&[0xff, 0x00], usize::MAX).collect();
        assert_eq!(tried.len(), 2 + 16);
        assert!(
            tried.contains(&vec![]) && tried.contains(&vec![0x7f, 0x00]) && tried.contains(&vec![0xff, 0x80])
        );
        let sparse: Vec<_> = exhaustive(&[0; 100], 90).collect();
        assert!((45..=90).contains(&sparse.len()));
        assert!(
            sparse.iter().any(|input| input.len() < 100) && sparse.iter().any(|input| input.contains(&0x80))
        );
        assert_eq!(exhaustive(&[0; 100], 0).count(), 0);
    }
}
