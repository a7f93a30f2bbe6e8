//! The words of a ring that both ends look at, in the memory they share.

use std::ptr::NonNull;

use crate::buf::{LINE_BYTES, Memory, prefetch_to_write};

use super::stamp::{Generations, STAMP_BYTES};
use super::sync::AtomicU64;

/// Where a ring lies in its segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) offset: usize,
    /// A power of two.
    pub(super) bytes: usize,
    pub(super) stamps: Generations,
}

/// A ring's stamp words.
pub(super) struct Words {
    base: NonNull<u8>,
    mask: u64,
    generations: Generations,
    /// Keeps the mapping.
    _memory: Memory,
}

impl Words {
    pub(super) fn new(memory: &Memory, geometry: Geometry) -> Words {
        assert!(geometry.bytes.is_power_of_two() && geometry.offset.is_multiple_of(LINE_BYTES));
        assert!(geometry.offset + geometry.bytes <= memory.bytes(), "the ring overruns its segment");
        // SAFETY: inside the mapping, as just checked.
        let base = unsafe { memory.base().add(geometry.offset) };
        let mask = geometry.bytes as u64 - 1;
        Words { base, mask, generations: geometry.stamps, _memory: memory.clone() }
    }

    #[inline]
    pub(super) fn at(&self, position: u64) -> usize {
        (position & self.mask) as usize
    }

    /// Asks for the line at `position`, to be written soon.
    #[inline]
    pub(super) fn prefetch_to_write(&self, position: u64) {
        prefetch_to_write(self.base.as_ptr().wrapping_add(self.at(position)));
    }

    /// The stamp word at `position`, a multiple of the cache line.
    #[inline]
    pub(super) fn word(&self, position: u64) -> &AtomicU64 {
        debug_assert!(position.is_multiple_of(LINE_BYTES as u64));
        // SAFETY: `at` is below the ring's size, which `new` checked to lie in the mapping kept by `_memory`; lines
        // are aligned. The first word of a line at which a frame begins is touched only atomically: applications
        // write behind it (`link_headroom_bytes`). Attacked by the tests with a hostile writer in `tests/shm.rs`.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(self.at(position)).cast()) }
    }

    /// The word behind the stamp word, of a lane's entry at `position`. A hostile writer may change it: it is read atomically.
    #[inline]
    pub(super) fn second_word(&self, position: u64) -> &AtomicU64 {
        debug_assert!(position.is_multiple_of(LINE_BYTES as u64));
        // SAFETY: on the same line as the stamp word, which lies in the mapping as in `word`; aligned as that is; touched
        // only atomically.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(self.at(position) + STAMP_BYTES).cast()) }
    }

    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.mask + 1
    }

    #[inline]
    pub(super) fn generations(&self) -> Generations {
        self.generations
    }

    /// Where the memory of a frame at `position` begins, of which as much is in the ring as does not wrap.
    #[inline]
    pub(super) fn start(&self, position: u64) -> NonNull<u8> {
        // SAFETY: `at` is below the ring's size, as in `word`.
        unsafe { self.base.add(self.at(position)) }
    }
}
