//! Where the two ends of a ring of stamped frames are, and what each knows of the other.
//!
//! The writer clears the stamp word *behind* a frame before it publishes the frame, so a reader that has followed all
//! stamps never meets a word that was not written for it. Positions only grow; a position's place in the ring is the
//! position modulo the ring's size.
//!
//! A reader that has read everything looks at the next stamp again and again, and takes its line away from the writer
//! each time. Were each frame published alone, such a reader would take the first line of each while the writer is at it.
//! So frames are published together: the first one's stamp is withheld until those behind it have theirs, and the reader
//! finds all of them on lines that only the writer has touched.
//!
//! What has been read is released by a word of the reader's, and what may be overwritten is told by one of the writer's. All that
//! depends on the order in which both see each other's stores is here, over the atomics of [`sync`](super::sync) and the words
//! of [`words`](super::words): `tests/shm_model.rs` compiles this file over those of a model checker.

use std::num::NonZeroU64;
use std::ops::AddAssign;
use std::ptr::NonNull;

use crate::buf::LINE_BYTES;

use super::stamp::{STAMP_BYTES, START_MAX, Stamp, extent};
use super::sync::{AtomicU64, NOTHING, Ordering, fence};
use super::words::Words;

/// The writer's end.
pub(super) struct Publisher {
    words: Words,
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
pub(super) const TOGETHER_MAX: u32 = 16;

impl Publisher {
    pub(super) fn new(words: Words) -> Publisher {
        Publisher::at(words, 0)
    }

    /// One whose ring is empty, at `position`.
    pub(super) fn at(words: Words, position: u64) -> Publisher {
        Publisher { words, stamped: position, newest: position, withheld: None, behind: 0 }
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
        self.words.word(next).store(0, Ordering::Relaxed);
        self.stamp(self.words.generations().frame(position, start, end - start));
        self.stamped = next;
        self.newest = position;
        // The frame that follows needs its second line and the stamp behind it: had early, they do not hold up its
        // publication, which waits for all stores before it.
        self.words.prefetch_to_write(next + LINE_BYTES as u64);
        self.words.prefetch_to_write(next + 2 * LINE_BYTES as u64);
    }

    /// Makes readers skip everything up to `position`.
    #[cold]
    pub(super) fn void(&mut self, position: u64) {
        assert!(position > self.stamped, "stamped positions only grow");
        self.words.word(position).store(0, Ordering::Relaxed);
        self.stamp(self.words.generations().void(self.stamped, position - self.stamped));
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
        self.words.word(self.stamped).store(stamp.get(), Ordering::Relaxed);
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
            self.words.word(position).store(stamp.get(), Ordering::Release);
        }
    }
}

/// Where the bytes of a lane's entry begin: behind its stamp there is the position up to which casts had been stamped before it.
/// An entry may count the casts before it; it must not be read before they are, or they look lost.
pub(super) const ENTRY_START: usize = STAMP_BYTES + size_of::<u64>();

/// The writer's end of one member's control lane.
pub(super) struct LanePublisher {
    publisher: Publisher,
    /// The reader has released everything before this position.
    released: u64,
}

impl LanePublisher {
    pub(super) fn new(words: Words) -> LanePublisher {
        LanePublisher::at(words, 0)
    }

    /// One whose lane is empty, at `position`.
    pub(super) fn at(words: Words, position: u64) -> LanePublisher {
        LanePublisher { publisher: Publisher::at(words, position), released: position }
    }

    /// The position below which entries may be written.
    pub(super) fn limit(&self) -> u64 {
        self.released + self.publisher.words.bytes()
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
        let bytes = self.publisher.words.bytes();
        let left = bytes - (end & (bytes - 1));
        let position = if extent > left { end + left } else { end };
        // A line stays free behind the entry, for the stamp that comes next.
        (position + extent + LINE_BYTES as u64 <= self.limit()).then_some(position)
    }

    /// Publishes an entry of `length` bytes, to be read after the casts before position `casts`, which are published; whether
    /// there was room. `write` writes the bytes, [`ENTRY_START`] behind the position it is given.
    #[inline]
    pub(super) fn push(&mut self, casts: u64, length: usize, write: impl FnOnce(&Words, u64)) -> bool {
        let Some(position) = self.place(length) else { return false };
        self.publisher.words.second_word(position).store(casts, Ordering::Relaxed);
        write(&self.publisher.words, position);
        self.publisher.frame(position, ENTRY_START, ENTRY_START + length);
        self.publisher.publish();
        true
    }
}

/// The reader's end.
pub(super) struct Follower {
    /// The next stamp, or a word that is always zero once the ring was found to be rubbish.
    next: NonNull<AtomicU64>,
    position: u64,
    words: Words,
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

/// A frame in a ring: bytes `start..end` from its position, and the bytes of the ring it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) extent: usize,
    pub(super) start: usize,
    pub(super) end: usize,
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

impl Follower {
    pub(super) fn new(words: Words) -> Follower {
        Follower::at(words, 0)
    }

    /// One that has read everything before `position`.
    pub(super) fn at(words: Words, position: u64) -> Follower {
        Follower { next: NonNull::from(words.word(position)), position, words }
    }

    #[inline]
    fn next(&self) -> u64 {
        // SAFETY: `next` is a stamp word of the mapping that `words` keeps, or the static.
        unsafe { self.next.as_ref() }.load(Ordering::Relaxed)
    }

    /// Whether something is there, or was when last looked at.
    #[inline]
    pub(super) fn ready(&self) -> bool {
        self.next() != 0
    }

    /// Follows at most `budget` frames of a cast ring, as long as `hold` takes them; what it makes of each goes to `sink`.
    #[inline]
    pub(super) fn follow<T>(
        &mut self,
        budget: usize,
        hold: impl FnMut(Place) -> Option<T>,
        sink: impl FnMut(T),
    ) -> Taken {
        self.take(budget, STAMP_BYTES, |_, _| Due::Now, hold, sink)
    }

    /// As [`Follower::follow`], of a lane: entries whose writer's `casts` before them have been read.
    #[inline]
    pub(super) fn follow_behind<T>(
        &mut self,
        casts: &Follower,
        budget: usize,
        hold: impl FnMut(Place) -> Option<T>,
        sink: impl FnMut(T),
    ) -> Taken {
        // Of a ring that is read no further nothing is waited for.
        let read = if casts.given_up() { u64::MAX } else { casts.position };
        let most = read.saturating_add(casts.words.bytes());
        let due = |words: &Words, position| match words.second_word(position).load(Ordering::Relaxed) {
            behind if behind <= read => Due::Now,
            behind if behind <= most => Due::Later,
            // So much is in no ring at once.
            _ => Due::Never,
        };
        self.take(budget, ENTRY_START, due, hold, sink)
    }

    /// Follows at most `budget` frames which begin at `start_min` or behind and are due.
    #[inline(always)]
    fn take<T>(
        &mut self,
        budget: usize,
        start_min: usize,
        due: impl Fn(&Words, u64) -> Due,
        mut hold: impl FnMut(Place) -> Option<T>,
        mut sink: impl FnMut(T),
    ) -> Taken {
        let mut taken = Taken::default();
        // What is skipped costs turns too: a writer of nothing else must not keep the reader.
        for _ in 0..budget.saturating_add(SKIPPED_FREE) {
            if taken.frames == budget {
                break;
            }
            let word = self.next();
            if word == 0 {
                break;
            }
            // With the writer's release store of the stamp: what it wrote before is seen after.
            fence(Ordering::Acquire);
            match self.words.generations().parse(self.position, word) {
                Stamp::Frame { start, end, extent } => {
                    if start < start_min
                        || self.words.at(self.position) + extent > self.words.bytes() as usize
                    {
                        taken.rubbish = self.give_up();
                        break;
                    }
                    match due(&self.words, self.position) {
                        Due::Now => {}
                        Due::Later => break,
                        Due::Never => {
                            taken.rubbish = self.give_up();
                            break;
                        }
                    }
                    let Some(held) = hold(Place { position: self.position, extent, start, end }) else {
                        break;
                    };
                    self.advance(extent as u64);
                    taken.frames += 1;
                    sink(held);
                }
                Stamp::Void { extent } if extent > 0 && extent <= self.words.bytes() => self.advance(extent),
                Stamp::Nothing | Stamp::Void { .. } | Stamp::Rubbish => {
                    taken.rubbish = self.give_up();
                    break;
                }
            }
        }
        taken
    }

    #[inline]
    fn advance(&mut self, extent: u64) {
        self.position += extent;
        self.next = NonNull::from(self.words.word(self.position));
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

    /// Whether the writer had not begun to reuse the memory of the frame `start..end` at `position` when the frame's bytes were
    /// read, before this; `limit` is what the writer tells of where it may write.
    pub(super) fn intact(&self, position: u64, start: usize, end: usize, limit: &AtomicU64) -> bool {
        // Reads of the bytes come before those of limit and stamp.
        fence(Ordering::Acquire);
        if start > START_MAX {
            return false;
        }
        let stamp = self.words.generations().frame(position, start, end - start).get();
        limit.load(Ordering::Relaxed) <= position + self.words.bytes()
            && self.words.word(position).load(Ordering::Relaxed) == stamp
    }
}

/// A writer says in `word`, before anything is written there, below which position it may write.
pub(super) fn tell_limit(word: &AtomicU64, limit: u64) {
    word.store(limit, Ordering::Relaxed);
    fence(Ordering::Release);
}

/// A reader says in `word` that it has released everything before `position`: all reads of that come before.
#[inline]
pub(super) fn tell_released(word: &AtomicU64, position: u64) {
    word.store(position, Ordering::Release);
}

/// Up to where the readers have released everything, as each says in its word; none without readers. Their last reads come before
/// what is written from now on.
pub(super) fn released_by<'a>(words: impl Iterator<Item = &'a AtomicU64>) -> Option<u64> {
    let released = words.map(|word| word.load(Ordering::Relaxed)).min();
    fence(Ordering::Acquire);
    released
}
