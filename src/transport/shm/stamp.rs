//! Stamps: the word before every frame of a ring, whose appearance publishes the frame.
//!
//! ```text
//!  63 62 61        34 33    22 21       0
//! | kind | generation | start | length |     a frame: bytes start..start+length from the frame's position
//! | kind | generation |      lines      |     void: that many cache lines to skip
//! ```
//!
//! A word of zero says that nothing is there yet. The generation is the lap of the ring plus a number that differs
//! from segment to segment: a word left over from an earlier lap, or from an earlier life of the memory, is not valid
//! in this one.

use std::num::NonZeroU64;

use crate::buf::{LINE_BYTES, TAILROOM_BYTES, whole_lines};

/// Bytes of the stamp word, at the beginning of every frame of a ring.
pub(super) const STAMP_BYTES: usize = 8;

const LENGTH_BITS: u32 = 22;
const START_BITS: u32 = 12;
const GENERATION_SHIFT: u32 = LENGTH_BITS + START_BITS;
const GENERATION_BITS: u32 = 28;
const KIND_SHIFT: u32 = GENERATION_SHIFT + GENERATION_BITS;
const KIND_FRAME: u64 = 1;
const KIND_VOID: u64 = 2;
const FRAME: NonZeroU64 = NonZeroU64::new(KIND_FRAME << KIND_SHIFT).expect("a kind is not zero");
const VOID: NonZeroU64 = NonZeroU64::new(KIND_VOID << KIND_SHIFT).expect("a kind is not zero");

/// The largest offset at which a frame's bytes may begin.
pub(super) const START_MAX: usize = (1 << START_BITS) - 1;
/// The most bytes of a frame that a stamp can tell.
pub(super) const LENGTH_MAX: usize = (1 << LENGTH_BITS) - 1;

const _: () = assert!(KIND_SHIFT == 62);

/// What kind and generation a ring's stamps have at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generations {
    /// Ring bytes as a power of two.
    pub(super) shift: u32,
    /// The segment's own number.
    pub(super) seed: u64,
}

/// What a stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// Nothing is there yet.
    Nothing,
    /// A frame: `start..end` from its position, and the bytes of the ring it takes.
    Frame { start: usize, end: usize, extent: usize },
    /// So many bytes to skip.
    Void { extent: u64 },
    /// No stamp of this ring at this position.
    Rubbish,
}

impl Generations {
    #[inline]
    fn at(self, position: u64) -> u64 {
        ((position >> self.shift) + self.seed) & ((1 << GENERATION_BITS) - 1)
    }

    /// The stamp of a frame.
    #[inline]
    pub(super) fn frame(self, position: u64, start: usize, length: usize) -> NonZeroU64 {
        debug_assert!(start <= START_MAX && length <= LENGTH_MAX);
        let rest = self.at(position) << GENERATION_SHIFT | (start as u64) << LENGTH_BITS | length as u64;
        FRAME | rest
    }

    /// The stamp of `extent` bytes without content; whole cache lines.
    #[inline]
    pub(super) fn void(self, position: u64, extent: u64) -> NonZeroU64 {
        let lines = extent / LINE_BYTES as u64;
        debug_assert!(lines > 0 && lines < 1 << GENERATION_SHIFT && extent.is_multiple_of(LINE_BYTES as u64));
        VOID | self.at(position) << GENERATION_SHIFT | lines
    }

    /// What `word`, read at `position`, says. Bounds within the ring are the reader's to check.
    #[inline]
    pub(super) fn parse(self, position: u64, word: u64) -> Stamp {
        if word == 0 {
            return Stamp::Nothing;
        }
        if word >> GENERATION_SHIFT == KIND_FRAME << GENERATION_BITS | self.at(position) {
            let start = (word >> LENGTH_BITS) as usize & START_MAX;
            let end = start + (word as usize & LENGTH_MAX);
            return Stamp::Frame { start, end, extent: extent(end) };
        }
        if word >> GENERATION_SHIFT == KIND_VOID << GENERATION_BITS | self.at(position) {
            return Stamp::Void { extent: (word & ((1 << GENERATION_SHIFT) - 1)) * LINE_BYTES as u64 };
        }
        Stamp::Rubbish
    }
}

/// The bytes of a ring that a frame ending at offset `end` takes: what freezing a frame leaves it.
#[inline]
pub(super) fn extent(end: usize) -> usize {
    whole_lines(end + TAILROOM_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: Generations = Generations { shift: 16, seed: 0xfff_ffff };

    #[test]
    fn what_is_stamped_is_read_in_its_own_lap_only() {
        let position = 5 << 16 | 128;
        let word = RING.frame(position, 8, 88).get();
        assert_eq!(RING.parse(position, word), Stamp::Frame { start: 8, end: 96, extent: 128 });
        for lap in [0, 1, 4, 6, 1000] {
            assert_eq!(RING.parse(lap << 16 | 128, word), Stamp::Rubbish);
        }
        let other = Generations { seed: 7, ..RING };
        assert_eq!(other.parse(position, word), Stamp::Rubbish);
    }

    #[test]
    fn the_largest_values_do_not_run_into_each_other() {
        let word = RING.frame(0, START_MAX, LENGTH_MAX).get();
        let end = START_MAX + LENGTH_MAX;
        assert_eq!(RING.parse(0, word), Stamp::Frame { start: START_MAX, end, extent: extent(end) });
        let large = (1 << 34) * 64 - 64;
        assert_eq!(RING.parse(0, RING.void(0, large).get()), Stamp::Void { extent: large });
    }

    #[test]
    fn no_stamp_is_zero_and_zero_is_nothing() {
        let zero = Generations { shift: 16, seed: 0 };
        assert_ne!(zero.parse(0, zero.frame(0, 0, 0).get()), Stamp::Nothing);
        assert_eq!(zero.parse(0, 0), Stamp::Nothing);
        assert_eq!(zero.parse(0, u64::MAX), Stamp::Rubbish);
        assert_eq!(zero.parse(0, 1), Stamp::Rubbish);
    }
}
