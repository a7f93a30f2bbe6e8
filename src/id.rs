//! Identities. Every number that names something has a type of its own.

use std::fmt;

/// The most members a view can have.
pub const MEMBERS_MAX: usize = 128;

/// A group, by the 64-bit hash of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl GroupId {
    /// The group called `name`. Stable across processes, machines and versions.
    pub fn named(name: &str) -> GroupId {
        let mut hasher = Hasher64::new(0x6772_6f75_7000_0001);
        hasher.bytes(name.as_bytes());
        GroupId(hasher.finish())
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// One life of one process in a group. A restarted process has a new incarnation; none is ever used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// Which start of an incarnation a process is: drawn at random when it starts, so that a second process under one
/// incarnation is not taken for the first. [`Life::NONE`] where nobody draws: then only contradictions are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Life(pub u32);

impl Life {
    /// None was drawn, or none was heard.
    pub const NONE: Life = Life(0);
}

/// A view id: consumed by being proposed, never reused (design section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId {
    /// Grows with every view a member installs.
    pub counter: u64,
    /// The incarnation of the coordinator that proposed the view.
    pub coordinator: Incarnation,
}

impl fmt::Display for ViewId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.counter, self.coordinator)
    }
}

/// A member's place in its view, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u16);

impl Rank {
    /// The rank as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The rank at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`MEMBERS_MAX`].
    #[inline]
    pub fn at(index: usize) -> Rank {
        assert!(index < MEMBERS_MAX, "rank {index} is out of range");
        Rank(index as u16)
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// A set of ranks.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RankSet([u64; MEMBERS_MAX / 64]);

impl RankSet {
    /// The empty set.
    pub const EMPTY: RankSet = RankSet([0; MEMBERS_MAX / 64]);

    /// The set of one.
    pub fn one(rank: Rank) -> RankSet {
        let mut set = RankSet::EMPTY;
        set.insert(rank);
        set
    }

    /// All ranks below `members`.
    pub fn all(members: usize) -> RankSet {
        let below = |at: usize| match members.saturating_sub(64 * at) {
            64.. => u64::MAX,
            some => (1 << some) - 1,
        };
        RankSet(std::array::from_fn(below))
    }

    /// Adds `rank`.
    #[inline]
    pub fn insert(&mut self, rank: Rank) {
        self.0[rank.index() / 64] |= 1 << (rank.index() % 64);
    }

    /// Removes `rank`.
    #[inline]
    pub fn remove(&mut self, rank: Rank) {
        self.0[rank.index() / 64] &= !(1 << (rank.index() % 64));
    }

    /// Whether `rank` is in the set.
    #[inline]
    pub fn contains(&self, rank: Rank) -> bool {
        self.0[rank.index() / 64] & (1 << (rank.index() % 64)) != 0
    }

    /// How many ranks are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// What is in this set or the other.
    #[must_use]
    pub fn with(self, other: RankSet) -> RankSet {
        RankSet(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn without(self, other: RankSet) -> RankSet {
        RankSet(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }

    /// What is in both sets.
    #[must_use]
    pub fn and(self, other: RankSet) -> RankSet {
        RankSet(std::array::from_fn(|at| self.0[at] & other.0[at]))
    }

    /// The set as words, rank 0 the lowest bit of the first.
    pub fn words(self) -> [u64; MEMBERS_MAX / 64] {
        self.0
    }

    /// The set of the given words.
    pub fn from_words(words: [u64; MEMBERS_MAX / 64]) -> RankSet {
        RankSet(words)
    }

    /// The ranks in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Rank> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                Some(Rank::at(at * 64 + bit))
            })
        })
    }
}

impl FromIterator<Rank> for RankSet {
    fn from_iter<I: IntoIterator<Item = Rank>>(ranks: I) -> RankSet {
        let mut set = RankSet::EMPTY;
        for rank in ranks {
            set.insert(rank);
        }
        set
    }
}

impl fmt::Debug for RankSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.iter().map(|rank| rank.0)).finish()
    }
}

/// A 64-bit hash that is the same in every process: for cookies, layouts and digests. Not cryptographic.
#[derive(Clone, Debug)]
pub struct Hasher64(u64);

impl Hasher64 {
    /// A hasher for one purpose, told apart from others by `domain`.
    pub fn new(domain: u64) -> Hasher64 {
        Hasher64(mix(domain ^ 0x9e37_79b9_7f4a_7c15))
    }

    /// Takes in one word.
    #[inline]
    pub fn word(&mut self, word: u64) {
        self.0 = mix(self.0.rotate_left(23) ^ mix(word.wrapping_add(0x9e37_79b9_7f4a_7c15)));
    }

    /// Takes in bytes, and their number.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            self.word(rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    /// The hash of all that was taken in.
    #[inline]
    pub fn finish(&self) -> u64 {
        mix(self.0)
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[inline]
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_set_lists_what_was_inserted_in_order() {
        let mut set: RankSet = [3, 100, 64, 63].into_iter().map(Rank::at).collect();
        set.remove(Rank(64));
        assert_eq!(set.iter().map(|rank| rank.0).collect::<Vec<_>>(), [3, 63, 100]);
        assert_eq!(set.len(), 3);
        assert!(set.contains(Rank(100)) && !set.contains(Rank(64)));
        for members in [0, 1, 63, 64, 65, 127, 128] {
            assert_eq!(RankSet::all(members), (0..members).map(Rank::at).collect());
        }
    }

    #[test]
    fn a_group_id_does_not_change_between_versions() {
        assert_eq!(GroupId::named("orders"), GroupId::named("orders"));
        assert_ne!(GroupId::named("orders"), GroupId::named("order"));
    }
}
