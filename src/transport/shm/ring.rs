//! The two ends of a ring of stamped frames: a writer that publishes, a reader that adopts.
//!
//! The writer clears the stamp word *behind* a frame before it publishes the frame, so a reader that has followed all
//! stamps never meets a word that was not written for it. Positions only grow; a position's place in the ring is the
//! position modulo the ring's size.
//!
//! A reader that has read everything looks at the next stamp again and again, and takes its line away from the writer
//! each time. Were each frame published alone, such a reader would take the first line of each while the writer is at it.
//! So frames are published together: the first one's stamp is withheld until those behind it have theirs, and the reader
//! finds all of them on lines that only the writer has touched.

use std::num::NonZeroU64;
use std::ops::AddAssign;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::buf::{Frame, LINE_BYTES, Memory, Region, RingOptions, prefetch_to_write};
use crate::transport::{ChannelId, Received};

use super::stamp::{Generations, STAMP_BYTES, START_MAX, Stamp, extent};

/// Where a ring lies in its segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) offset: usize,
    /// A power of two.
    pub(super) bytes: usize,
    pub(super) stamps: Generations,
}

/// The stamp words of a ring.
struct Stamps {
    base: NonNull<u8>,
    mask: u64,
    generations: Generations,
    /// Keeps the mapping.
    _memory: Memory,
}

impl Stamps {
    fn new(memory: &Memory, geometry: Geometry) -> Stamps {
        assert!(geometry.bytes.is_power_of_two() && geometry.offset.is_multiple_of(LINE_BYTES));
        assert!(geometry.offset + geometry.bytes <= memory.bytes(), "the ring overruns its segment");
        // SAFETY: inside the mapping, as just checked.
        let base = unsafe { memory.base().add(geometry.offset) };
        let mask = geometry.bytes as u64 - 1;
        Stamps { base, mask, generations: geometry.stamps, _memory: memory.clone() }
    }

    #[inline]
    fn at(&self, position: u64) -> usize {
        (position & self.mask) as usize
    }

    /// Asks for the line at `position`, to be written soon.
    #[inline]
    fn prefetch_to_write(&self, position: u64) {
        prefetch_to_write(self.base.as_ptr().wrapping_add(self.at(position)));
    }

    /// The stamp word at `position`, a multiple of the cache line.
    #[inline]
    fn word(&self, position: u64) -> &AtomicU64 {
        debug_assert!(position.is_multiple_of(LINE_BYTES as u64));
        // SAFETY: `at` is below the ring's size, which `new` checked to lie in the mapping kept by `_memory`; lines
        // are aligned. The first word of a line at which a frame begins is touched only atomically: applications
        // write behind it (`link_headroom_bytes`). Attacked by the tests with a hostile writer in `tests/shm.rs`.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(self.at(position)).cast()) }
    }

    /// The word behind the stamp word, of a lane's entry at `position`. A hostile writer may change it: it is read atomically.
    #[inline]
    fn second_word(&self, position: u64) -> &AtomicU64 {
        debug_assert!(position.is_multiple_of(LINE_BYTES as u64));
        // SAFETY: on the same line as the stamp word, which lies in the mapping as in `word`; aligned as that is. A writer that
        // keeps the rules writes it before it publishes the entry, whose stamp was read before.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(self.at(position) + STAMP_BYTES).cast()) }
    }
}

/// The writer's end.
pub(super) struct Publisher {
    stamps: Stamps,
    /// Stamps can be followed up to here, where there is zero; by readers, once the first of them is not withheld.
    stamped: u64,
    /// Where the newest frame begins.
    newest: u64,
    /// The first stamp that readers are still to find, which is not zero, and where it belongs.
    withheld: Option<(u64, NonZeroU64)>,
    /// Stamps behind it.
    behind: u32,
}

/// So many frames are published together at most: the first does not wait for long.
const TOGETHER_MAX: u32 = 16;

impl Publisher {
    pub(super) fn new(memory: &Memory, geometry: Geometry) -> Publisher {
        let stamps = Stamps::new(memory, geometry);
        Publisher { stamps, stamped: 0, newest: 0, withheld: None, behind: 0 }
    }

    /// Everything before has been published, or will be with [`Publisher::publish`].
    #[inline]
    pub(super) fn stamped(&self) -> u64 {
        self.stamped
    }

    #[inline]
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Stamps the frame `start..end` at `position`, not before what is stamped; what was skipped is void.
    #[inline]
    pub(super) fn frame(&mut self, position: u64, start: usize, end: usize) {
        if position != self.stamped {
            self.void(position);
        }
        let next = position + extent(end) as u64;
        self.stamps.word(next).store(0, Ordering::Relaxed);
        self.stamp(self.stamps.generations.frame(position, start, end - start));
        self.stamped = next;
        self.newest = position;
        // The frame that follows needs its second line and the stamp behind it: had early, they do not hold up its
        // publication, which waits for all stores before it.
        self.stamps.prefetch_to_write(next + LINE_BYTES as u64);
        self.stamps.prefetch_to_write(next + 2 * LINE_BYTES as u64);
    }

    /// Makes readers skip everything up to `position`.
    #[cold]
    pub(super) fn void(&mut self, position: u64) {
        assert!(position > self.stamped, "stamped positions only grow");
        self.stamps.word(position).store(0, Ordering::Relaxed);
        self.stamp(self.stamps.generations.void(self.stamped, position - self.stamped));
        self.stamped = position;
    }

    /// Puts a stamp where stamps end so far, or withholds it.
    #[inline]
    fn stamp(&mut self, stamp: NonZeroU64) {
        if self.withheld.is_none() {
            self.withheld = Some((self.stamped, stamp));
            return;
        }
        // With the release of the one that is withheld.
        self.stamps.word(self.stamped).store(stamp.get(), Ordering::Relaxed);
        self.behind += 1;
        if self.behind == TOGETHER_MAX - 1 {
            self.publish();
        }
    }

    /// Lets readers find everything that is stamped.
    #[inline]
    pub(super) fn publish(&mut self) {
        if let Some((position, stamp)) = self.withheld.take() {
            self.behind = 0;
            self.stamps.word(position).store(stamp.get(), Ordering::Release);
        }
    }
}

/// Where the bytes of a lane's entry begin: behind its stamp there is the position up to which casts had been stamped before it.
/// An entry may count the casts before it; it must not be read before they are, or they look lost.
pub(super) const ENTRY_START: usize = STAMP_BYTES + size_of::<u64>();

/// The writer's end of one member's control lane: entries are copied in.
pub(super) struct LaneRing {
    publisher: Publisher,
    /// The reader has released everything before this position.
    released: u64,
    bytes: u64,
}

impl LaneRing {
    pub(super) fn new(memory: &Memory, geometry: Geometry) -> LaneRing {
        let publisher = Publisher::new(memory, geometry);
        LaneRing { publisher, released: 0, bytes: geometry.bytes as u64 }
    }

    /// The position below which entries may be written.
    pub(super) fn limit(&self) -> u64 {
        self.released + self.bytes
    }

    /// The reader has released everything before `position`; whether that is news. Nonsense is bounded, what goes back
    /// ignored.
    pub(super) fn set_released(&mut self, position: u64) -> bool {
        let before = self.released;
        self.released = position.clamp(before, self.publisher.stamped);
        self.released > before
    }

    /// Where an entry of `length` bytes would begin; none if there is no room.
    #[inline]
    pub(super) fn place(&self, length: usize) -> Option<u64> {
        let extent = extent(ENTRY_START + length) as u64;
        let end = self.publisher.stamped;
        let left = self.bytes - (end & (self.bytes - 1));
        let position = if extent > left { end + left } else { end };
        // A line stays free behind the entry, for the stamp that comes next.
        (position + extent + LINE_BYTES as u64 <= self.limit()).then_some(position)
    }

    /// Copies `head` and `body` in and publishes them, to be read after the casts before position `casts`, which are published;
    /// whether there was room.
    #[inline]
    pub(super) fn push(&mut self, casts: u64, head: &[u8], body: &[u8]) -> bool {
        let Some(position) = self.place(head.len() + body.len()) else { return false };
        let at = self.publisher.stamps.at(position);
        // SAFETY: the entry is inside the ring: one that would wrap begins at the ring's start, and its extent is at
        // most `bytes`, as the sum in `place` shows. No reader reads there: the one there is has released what was
        // before, or keeps no claim to it, and the entry is not published yet. Attacked by
        // `a_full_lane_refuses_and_goes_on` in `tests/shm.rs`.
        unsafe {
            let entry = self.publisher.stamps.base.as_ptr().add(at + STAMP_BYTES);
            entry.cast::<u64>().write(casts);
            let entry = entry.add(ENTRY_START - STAMP_BYTES);
            entry.copy_from_nonoverlapping(head.as_ptr(), head.len());
            entry.add(head.len()).copy_from_nonoverlapping(body.as_ptr(), body.len());
        }
        self.publisher.frame(position, ENTRY_START, ENTRY_START + head.len() + body.len());
        self.publisher.publish();
        true
    }
}

/// The reader's end.
pub(super) struct RingReader {
    /// The next stamp, or a word that is always zero once the ring was found to be rubbish.
    next: NonNull<AtomicU64>,
    position: u64,
    stamps: Stamps,
    /// The frames handed out.
    region: Region,
}

/// What one look into a ring brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) frames: usize,
    /// Rings that turned out to be rubbish just now.
    pub(super) rubbish: u64,
}

impl AddAssign for Taken {
    fn add_assign(&mut self, more: Taken) {
        self.frames += more.frames;
        self.rubbish += more.rubbish;
    }
}

/// When a frame may be handed out.
enum Due {
    Now,
    /// Once other frames have been.
    Later,
    /// What it says of that is rubbish.
    Never,
}

/// So much may be skipped without being counted against the budget.
const SKIPPED_FREE: usize = 4;

static NOTHING: AtomicU64 = AtomicU64::new(0);

impl RingReader {
    /// A reader of a ring in `memory`, mapped read-only, that can have `frames_max` frames out at once.
    pub(super) fn new(memory: &Memory, geometry: Geometry, frames_max: usize) -> RingReader {
        let stamps = Stamps::new(memory, geometry);
        let region = Region::ring(
            memory.clone(),
            RingOptions {
                offset_bytes: geometry.offset,
                ring_bytes: geometry.bytes,
                frames_max,
                link_headroom_bytes: STAMP_BYTES,
                // Nothing is ever taken here, only adopted.
                frame_bytes: LINE_BYTES,
            },
        );
        let next = NonNull::from(stamps.word(0));
        RingReader { next, position: 0, stamps, region }
    }

    /// Whether something is there, or was when last looked at.
    #[inline]
    pub(super) fn ready(&self) -> bool {
        // SAFETY: `next` is a stamp word of the mapping that `stamps` keeps, or the static.
        unsafe { self.next.as_ref() }.load(Ordering::Relaxed) != 0
    }

    /// Hands at most `budget` frames of a cast ring to `sink`.
    #[inline]
    pub(super) fn receive(
        &mut self,
        channel: ChannelId,
        budget: usize,
        sink: &mut impl FnMut(Received),
    ) -> Taken {
        self.take(channel, budget, STAMP_BYTES, |_, _| Due::Now, sink)
    }

    /// As [`RingReader::receive`], of a lane: entries whose writer's `casts` before them have been read.
    #[inline]
    pub(super) fn receive_behind(
        &mut self,
        casts: &RingReader,
        channel: ChannelId,
        budget: usize,
        sink: &mut impl FnMut(Received),
    ) -> Taken {
        // Of a ring that is read no further nothing is waited for.
        let read = if casts.given_up() { u64::MAX } else { casts.position };
        let most = read.saturating_add(casts.bytes() as u64);
        let due = |stamps: &Stamps, position| match stamps.second_word(position).load(Ordering::Relaxed) {
            behind if behind <= read => Due::Now,
            behind if behind <= most => Due::Later,
            // So much is in no ring at once.
            _ => Due::Never,
        };
        self.take(channel, budget, ENTRY_START, due, sink)
    }

    /// Hands at most `budget` frames to `sink`, which begin at `start_min` or behind and are due.
    #[inline(always)]
    fn take(
        &mut self,
        channel: ChannelId,
        budget: usize,
        start_min: usize,
        due: impl Fn(&Stamps, u64) -> Due,
        sink: &mut impl FnMut(Received),
    ) -> Taken {
        let mut taken = Taken::default();
        // What is skipped costs turns too: a writer of nothing else must not keep the reader.
        for _ in 0..budget.saturating_add(SKIPPED_FREE) {
            if taken.frames == budget {
                break;
            }
            // SAFETY: as in `ready`.
            let word = unsafe { self.next.as_ref() }.load(Ordering::Relaxed);
            if word == 0 {
                break;
            }
            // With the writer's release store of the stamp: what it wrote before is seen after.
            fence(Ordering::Acquire);
            match self.stamps.generations.parse(self.position, word) {
                Stamp::Frame { start, end, extent } => {
                    if start < start_min || self.stamps.at(self.position) + extent > self.bytes() {
                        taken.rubbish = self.give_up();
                        break;
                    }
                    match due(&self.stamps, self.position) {
                        Due::Now => {}
                        Due::Later => break,
                        Due::Never => {
                            taken.rubbish = self.give_up();
                            break;
                        }
                    }
                    let Ok(frame) = self.region.adopt(self.position, extent, start, end) else { break };
                    self.advance(extent as u64);
                    taken.frames += 1;
                    sink(Received { channel, frame, from: start, to: end });
                }
                Stamp::Void { extent } if extent > 0 && extent <= self.bytes() as u64 => self.advance(extent),
                Stamp::Nothing | Stamp::Void { .. } | Stamp::Rubbish => {
                    taken.rubbish = self.give_up();
                    break;
                }
            }
        }
        taken
    }

    #[inline]
    fn bytes(&self) -> usize {
        self.stamps.mask as usize + 1
    }

    #[inline]
    fn advance(&mut self, extent: u64) {
        self.position += extent;
        self.next = NonNull::from(self.stamps.word(self.position));
    }

    /// Reads no further: what stands here was not written by a writer that keeps the rules.
    #[cold]
    pub(super) fn give_up(&mut self) -> u64 {
        self.next = NonNull::from(&NOTHING);
        1
    }

    #[inline]
    fn given_up(&self) -> bool {
        self.next == NonNull::from(&NOTHING)
    }

    /// Everything before this position has been handed out or skipped.
    #[inline]
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Everything before this position is not held any more.
    #[inline]
    pub(super) fn released(&self) -> u64 {
        if self.idle() { self.position } else { self.region.released_bytes() }
    }

    /// Whether no frame is held.
    #[inline]
    pub(super) fn idle(&self) -> bool {
        self.region.all_returned()
    }

    /// How many frames are held.
    pub(super) fn held(&self) -> usize {
        self.region.usage().lent
    }

    pub(super) fn owns(&self, frame: &Frame) -> bool {
        self.region.owns(frame)
    }

    /// Whether the writer had not begun to reuse the memory of `frame` when `limit`, the position below which it
    /// may write, was read after the frame's bytes.
    pub(super) fn intact(&self, frame: &Frame, limit: u64) -> bool {
        let (position, start) = (frame.position(), frame.start());
        if start > START_MAX {
            return false;
        }
        let stamp = self.stamps.generations.frame(position, start, frame.end() - start).get();
        limit <= position + self.bytes() as u64 && self.stamps.word(position).load(Ordering::Relaxed) == stamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING_BYTES: usize = 1 << 14;
    /// Start and end of a frame that takes one line.
    const FRAME: (usize, usize) = (STAMP_BYTES, 40);

    fn ends() -> (Publisher, RingReader) {
        let memory = Memory::anonymous(RING_BYTES, false).unwrap();
        let stamps = Generations { shift: RING_BYTES.trailing_zeros(), seed: 7 };
        let geometry = Geometry { offset: 0, bytes: RING_BYTES, stamps };
        (Publisher::new(&memory, geometry), RingReader::new(&memory, geometry, 64))
    }

    fn put(publisher: &mut Publisher, count: u32) {
        (0..count).for_each(|_| publisher.frame(publisher.stamped(), FRAME.0, FRAME.1));
    }

    fn taken(reader: &mut RingReader) -> u32 {
        let mut positions = Vec::new();
        let sink = &mut |received: Received| positions.push(received.frame.position());
        assert_eq!(reader.receive(ChannelId(1), 64, sink).rubbish, 0);
        assert!(positions.is_sorted());
        positions.len() as u32
    }

    #[test]
    fn frames_are_found_together_when_they_are_published_and_the_first_does_not_wait_for_many() {
        let (mut publisher, mut reader) = ends();
        put(&mut publisher, 3);
        assert!(!reader.ready() && taken(&mut reader) == 0, "the first is withheld");
        publisher.publish();
        assert_eq!(taken(&mut reader), 3);
        publisher.publish();
        assert_eq!(taken(&mut reader), 0, "each once");
        put(&mut publisher, TOGETHER_MAX + 1);
        assert_eq!(taken(&mut reader), TOGETHER_MAX);
        publisher.publish();
        assert_eq!(taken(&mut reader), 1);
    }

    #[test]
    fn what_is_void_is_withheld_like_a_frame() {
        let (mut publisher, mut reader) = ends();
        publisher.void(publisher.stamped() + 128);
        put(&mut publisher, 1);
        assert!(!reader.ready());
        publisher.publish();
        assert_eq!(taken(&mut reader), 1);
        assert_eq!(reader.position(), publisher.stamped());
    }
}
