//! The slot file (design D3): every layer variable that the fast path reads or writes lives here and only here.
//!
//! ```text
//! own line 0    cast-send guard | hits | template words 0..3 | spare ..
//! own line 1..  slots of one word
//! member line 0 cast-deliver guard | accept hits | template words 0..3 | deliver hits | newest report | last hits
//! member line 1 send-send guard | hits | words 0..1 | send-deliver guard | hits | words 0..1
//! member line 2.. slots of one word per member, and rows of one word per (member, subject)
//! ```
//!
//! Layers reach words through handles given out at build; a handle is checked against nothing but the file's length,
//! so a stack's handles must not be used on another stack's file.

#[cfg(test)]
use crate::id::Hasher64;
use crate::id::{Rank, RankSet};

/// Words of a cache line.
const LINE_WORDS: usize = 8;

/// One word of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub(crate) u32);

/// One word per member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberSlot(pub(crate) u32);

/// One word per pair of members: a row per reporter, a column per subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatrixSlot(pub(crate) u32);

/// A count that grows by one with every hit of a plan, or by hand on the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally(pub(crate) u32);

/// Where the fixed words are.
pub(crate) mod fixed {
    pub(crate) const CAST_SEND_GUARD: u32 = 0;
    pub(crate) const CAST_SEND_HITS: u32 = 1;
    pub(crate) const CAST_SEND_WORDS: u32 = 2;
    pub(crate) const OWN_FREE: u32 = 8;

    pub(crate) const CAST_DELIVER_GUARD: u32 = 0;
    pub(crate) const CAST_ACCEPT_HITS: u32 = 1;
    pub(crate) const CAST_DELIVER_WORDS: u32 = 2;
    pub(crate) const CAST_DELIVER_HITS: u32 = 5;
    pub(crate) const NEWEST_REPORT: u32 = 6;
    pub(crate) const CAST_LAST_HITS: u32 = 7;
    pub(crate) const SEND_SEND_GUARD: u32 = 8;
    pub(crate) const SEND_SEND_HITS: u32 = 9;
    pub(crate) const SEND_SEND_WORDS: u32 = 10;
    pub(crate) const SEND_DELIVER_GUARD: u32 = 12;
    pub(crate) const SEND_DELIVER_HITS: u32 = 13;
    pub(crate) const SEND_DELIVER_WORDS: u32 = 14;
    pub(crate) const MEMBER_FREE: u32 = 16;
    /// Sends have room for fewer template words than casts.
    pub(crate) const SEND_TEMPLATE_WORDS_MAX: usize = 2;
}

/// The words of one stack in one view.
#[derive(Debug)]
pub struct SlotFile {
    /// Some words more than the file has, so that it can begin on a cache line.
    words: Vec<u64>,
    skipped: usize,
    member_base: u32,
    member_stride: u32,
    members: u32,
    /// How often a word of a member's section may have been changed: what follows from them need not be found out again
    /// until then.
    changes: u64,
}

impl SlotFile {
    /// A file of zeroes with `own` words for the stack and `per_member` words for each member.
    pub(crate) fn new(own: u32, per_member: u32, members: usize) -> SlotFile {
        let round = |words: u32| words.next_multiple_of(LINE_WORDS as u32);
        let (member_base, member_stride) = (round(own), round(per_member));
        let count = member_base as usize + member_stride as usize * members;
        let words = vec![0; count + LINE_WORDS];
        let skipped = words.as_ptr().align_offset(LINE_WORDS * 8).min(LINE_WORDS);
        SlotFile { words, skipped, member_base, member_stride, members: members as u32, changes: 0 }
    }

    /// How many words there are.
    pub fn words(&self) -> usize {
        self.words.len() - LINE_WORDS
    }

    /// How many members the file has rows for.
    pub fn members(&self) -> usize {
        self.members as usize
    }

    /// Grows whenever a word of a member's section may have changed.
    #[inline]
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The words of a member's section, to read.
    #[inline]
    pub(crate) fn section_of(&self, rank: Rank) -> &[u64] {
        let from = self.skipped + self.member(rank) as usize;
        &self.words[from..from + self.member_stride as usize]
    }

    /// The word at an index of the whole file.
    #[inline]
    pub(crate) fn word(&self, at: u32) -> u64 {
        self.words[self.skipped + at as usize]
    }

    /// The word at an index of the whole file, to change.
    #[inline]
    pub(crate) fn word_mut(&mut self, at: u32) -> &mut u64 {
        self.changes += 1;
        &mut self.words[self.skipped + at as usize]
    }

    /// The words of a member's section.
    #[inline]
    pub(crate) fn section(&mut self, rank: Rank) -> &mut [u64] {
        self.changes += 1;
        let from = self.skipped + self.member(rank) as usize;
        &mut self.words[from..from + self.member_stride as usize]
    }

    /// The fixed words of a member.
    #[inline]
    pub(crate) fn lines(&mut self, rank: Rank) -> &mut [u64; fixed::MEMBER_FREE as usize] {
        self.changes += 1;
        let from = self.skipped + self.member(rank) as usize;
        self.words[from..].first_chunk_mut().expect("a section has all fixed words")
    }

    /// The fixed words of the stack.
    #[inline]
    pub(crate) fn own_line(&mut self) -> &mut [u64; fixed::OWN_FREE as usize] {
        self.words[self.skipped..].first_chunk_mut().expect("the file has all fixed words")
    }

    /// The stack's own words.
    #[inline]
    pub(crate) fn own(&mut self) -> &mut [u64] {
        &mut self.words[self.skipped..self.skipped + self.member_base as usize]
    }

    /// Index of the first word of a member's section.
    #[inline]
    pub(crate) fn member(&self, rank: Rank) -> u32 {
        self.member_base + u32::from(rank.0) * self.member_stride
    }

    /// The value of a stack's word.
    #[inline]
    pub fn get(&self, slot: Slot) -> u64 {
        self.word(slot.0)
    }

    /// Changes a stack's word.
    #[inline]
    pub fn set(&mut self, slot: Slot, value: u64) {
        *self.word_mut(slot.0) = value;
    }

    /// The value of a member's word.
    #[inline]
    pub fn of(&self, slot: MemberSlot, rank: Rank) -> u64 {
        self.word(self.member(rank) + slot.0)
    }

    /// Changes a member's word.
    #[inline]
    pub fn set_of(&mut self, slot: MemberSlot, rank: Rank, value: u64) {
        let at = self.member(rank) + slot.0;
        if self.word(at) != value {
            *self.word_mut(at) = value;
        }
    }

    /// What `reporter` says of `subject`.
    #[inline]
    pub fn pair(&self, matrix: MatrixSlot, reporter: Rank, subject: Rank) -> u64 {
        self.word(self.member(reporter) + matrix.0 + u32::from(subject.0))
    }

    /// The least that any member but those of `out` says of `subject`.
    pub(crate) fn least_pair(&self, matrix: MatrixSlot, subject: Rank, out: RankSet) -> Option<u64> {
        let at = self.skipped + (self.member_base + matrix.0 + u32::from(subject.0)) as usize;
        let mut column = self.words[at..].iter().step_by(self.member_stride as usize);
        let (mut least, mut any, mut left) = (u64::MAX, false, self.members());
        for out in out.words() {
            let here = left.min(64);
            for (says, reporter) in column.by_ref().take(here).zip(0..) {
                if out >> reporter & 1 == 0 {
                    (least, any) = (least.min(*says), true);
                }
            }
            left -= here;
        }
        any.then_some(least)
    }

    /// Raises what `reporter` says of `subject` to at least `value`.
    #[inline]
    pub fn raise_pair(&mut self, matrix: MatrixSlot, reporter: Rank, subject: Rank, value: u64) {
        self.raise(self.member(reporter) + matrix.0 + u32::from(subject.0), value);
    }

    /// Raises what `reporter` says of `subject` in some matrices.
    #[inline]
    pub(crate) fn raise_row(
        &mut self,
        reporter: Rank,
        subject: Rank,
        says: impl Iterator<Item = (MatrixSlot, u64)>,
    ) {
        let from = self.skipped + self.member(reporter) as usize;
        let section = &mut self.words[from..from + self.member_stride as usize];
        for (matrix, value) in says {
            let word = &mut section[matrix.0 as usize + subject.index()];
            if *word < value {
                *word = value;
                self.changes += 1;
            }
        }
    }

    /// Raises the word at an index of the whole file to at least `value`.
    #[inline]
    pub(crate) fn raise(&mut self, at: u32, value: u64) {
        if self.word(at) < value {
            *self.word_mut(at) = value;
        }
    }

    /// Takes in all words but those for which `skip` says yes.
    #[cfg(test)]
    pub(crate) fn hash(&self, hasher: &mut Hasher64, skip: impl Fn(usize) -> bool) {
        for (at, word) in self.all().iter().enumerate() {
            hasher.word(if skip(at) { 0 } else { *word });
        }
    }

    /// Whether `other` has the same words but for those for which `skip` says yes.
    pub(crate) fn agree(&self, other: &SlotFile, skip: impl Fn(usize) -> bool) -> bool {
        let (own, other) = (self.all(), other.all());
        let same = |(at, (own, other)): (usize, (&u64, &u64))| own == other || skip(at);
        own.len() == other.len() && own.iter().zip(other).enumerate().all(same)
    }

    fn all(&self) -> &[u64] {
        &self.words[self.skipped..self.skipped + self.words()]
    }
}

impl Clone for SlotFile {
    fn clone(&self) -> SlotFile {
        let per_member = self.member_stride;
        let mut copy = SlotFile::new(self.member_base, per_member, self.members as usize);
        let all = copy.skipped..copy.skipped + self.words();
        copy.words[all].copy_from_slice(self.all());
        copy.changes = self.changes;
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_members_do_not_overlap() {
        let mut file = SlotFile::new(9, 17, 3);
        assert_eq!(file.words(), 16 + 3 * 24);
        for rank in 0..3 {
            file.set_of(MemberSlot(16), Rank(rank), u64::from(rank) + 1);
        }
        file.set(Slot(8), 9);
        assert_eq!((0..3).map(|r| file.of(MemberSlot(16), Rank(r))).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(file.get(Slot(8)), 9);
        file.raise_pair(MatrixSlot(4), Rank(1), Rank(2), 7);
        file.raise_pair(MatrixSlot(4), Rank(1), Rank(2), 5);
        assert_eq!(file.pair(MatrixSlot(4), Rank(1), Rank(2)), 7);
    }
}
