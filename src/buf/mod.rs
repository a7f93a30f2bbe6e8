//! Frames and the regions they live in (design D6).
//!
//! A [`Region`] is a stretch of memory that a transport can send from, and the book-keeping of the frames in it. A
//! [`FrameMut`] is written by one holder; frozen, it becomes a [`Frame`]: immutable, reference-counted, and returned
//! to its region by the last holder. Regions hand frames out in one of two disciplines:
//!
//! - a *pool* of equal frames, returned in any order (memory, udp, io_uring, AF_XDP);
//! - a *ring* of bytes, handed out in order and returned in any order, whose tail follows the oldest frame still held
//!   (shared memory, where the ring itself is the channel).
//!
//! Regions and frames belong to one thread: reference counts are plain cells. Nothing here allocates after
//! construction.
//!
//! ```text
//! frame:  | headroom: link and protocol headers | payload ... | tailroom 16 B |
//!          ^ base                  ^ start                  ^ end (offsets from base)
//! ```
#![allow(unsafe_code)]

pub(crate) mod crc32c;
mod frame;
mod memory;
mod region;

pub use frame::{Frame, FrameMut, NoRoom};
pub use memory::{Memory, MemoryError, Pages};
pub use region::{ChunkOptions, Exhausted, Region, RegionOptions, RegionUse, RingOptions};

/// Room kept free behind the payload of every frame: an authentication tag fits.
pub const TAILROOM_BYTES: usize = 16;

/// The grain of frame placement: a cache line.
pub const LINE_BYTES: usize = 64;

/// Asks for the cache line at `at`, to be written soon.
#[inline]
pub(crate) fn prefetch_to_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that a program can see, whatever the address. Processors without the instruction
    // take it for a long no-operation.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// `bytes` rounded up to whole cache lines.
#[inline]
pub const fn whole_lines(bytes: usize) -> usize {
    bytes.next_multiple_of(LINE_BYTES)
}
