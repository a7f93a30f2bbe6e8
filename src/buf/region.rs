//! Regions: the memory frames live in, and who holds which frame.

use std::cell::Cell;
use std::ptr::NonNull;

use super::frame::{Frame, FrameMut, FrameState};
use super::memory::{Memory, MemoryError, Pages};
use super::{LINE_BYTES, TAILROOM_BYTES, prefetch_to_write, whole_lines};

/// How a pool region is laid out.
///
/// Its size is a sum, named by its holders:
/// `frames = reserve_frames (never lent to the application: receive rings, control) + transmit + retention`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionOptions {
    /// How many frames there are.
    pub frames: usize,
    /// Bytes of a frame that headers below the stack need (Ethernet, IP, UDP).
    pub link_headroom_bytes: usize,
    /// Bytes of header and payload together.
    pub frame_bytes: usize,
    /// How many frames [`Region::take`] leaves for [`Region::take_reserved`].
    pub reserve_frames: usize,
    /// Whether to try for huge pages.
    pub huge_pages: bool,
}

/// How a pool lies in memory that it shares with others, in chunks as a device wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkOptions {
    /// Offset of the first chunk in the memory; a whole number of chunks.
    pub offset_bytes: usize,
    /// Bytes from one chunk to the next; a power of two. Each holds one frame.
    pub stride_bytes: usize,
}

/// How a ring region is laid out over memory it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingOptions {
    /// Offset of the ring's first byte in its memory; whole cache lines.
    pub offset_bytes: usize,
    /// Bytes of the ring; a power of two, so that placing a frame needs no division.
    pub ring_bytes: usize,
    /// The most frames outstanding at once; a power of two.
    pub frames_max: usize,
    /// Bytes before each frame that belong to the transport (its stamp).
    pub link_headroom_bytes: usize,
    /// Bytes of header and payload together.
    pub frame_bytes: usize,
}

/// There is no free frame. Nothing was lost: try again when one comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the region has no free frame; wait until receivers or the transport release some")]
pub struct Exhausted;

/// How full a region is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionUse {
    /// Frames held by somebody.
    pub lent: usize,
    /// Frames in all (for a ring: the most there can be).
    pub frames: usize,
    /// How often no frame was free.
    pub exhausted: u64,
}

/// A region. A handle: clones name the same region, which lives until the last handle and the last frame are gone.
pub struct Region {
    home: NonNull<Home>,
}

/// The region itself, on the heap, shared by handles and frames of one thread.
pub(super) struct Home {
    memory: Memory,
    states: Box<[FrameState]>,
    discipline: Discipline,
    link_headroom: usize,
    frame_bytes: usize,
    /// The same, or zero if nothing can be written here.
    room_bytes: usize,
    handles: Cell<usize>,
    lent: Cell<usize>,
    exhausted: Cell<u64>,
}

enum Discipline {
    /// Of `free` the first `count` are, the last of them next.
    Pool {
        free: Box<[Cell<u32>]>,
        count: Cell<usize>,
        reserve: usize,
    },
    Ring(Ring),
}

/// Frames `tail..head` are out; bytes `tail_bytes..head_bytes` are in use. Positions only grow.
struct Ring {
    offset: usize,
    bytes: usize,
    /// What the largest frame takes, in whole lines.
    largest: usize,
    head: Cell<u64>,
    tail: Cell<u64>,
    head_bytes: Cell<u64>,
    tail_bytes: Cell<u64>,
    /// Readers in other processes have released everything before this position.
    foreign_tail_bytes: Cell<u64>,
}

impl Region {
    /// A pool of equal frames on fresh anonymous memory.
    ///
    /// # Errors
    /// If the memory cannot be had.
    ///
    /// # Panics
    /// If the reserve is not smaller than the number of frames.
    pub fn pool(options: RegionOptions) -> Result<Region, MemoryError> {
        Region::pool_on(options, Memory::anonymous)
    }

    /// As [`Region::pool`], but the memory's pages, if they are ordinary ones, are not there before they are touched
    /// ([`Memory::touch`]).
    ///
    /// # Errors
    /// If the memory cannot be had.
    ///
    /// # Panics
    /// As [`Region::pool`].
    pub fn pool_untouched(options: RegionOptions) -> Result<Region, MemoryError> {
        Region::pool_on(options, Memory::anonymous_untouched)
    }

    fn pool_on(
        options: RegionOptions,
        fresh: fn(usize, bool) -> Result<Memory, MemoryError>,
    ) -> Result<Region, MemoryError> {
        assert!(options.reserve_frames < options.frames, "a pool must be larger than its reserve");
        let stride = Region::stride(&options);
        let memory = fresh(stride * options.frames, options.huge_pages)?;
        Ok(Region::frames_at(memory, options, |index| index * stride))
    }

    /// A pool of equal frames in chunks of memory that belongs to several regions. The chunks must be nobody else's
    /// while the region or one of its frames lives: what is written to a frame is otherwise in another.
    ///
    /// Chunks are a power of two apart, so the first lines of all would fall into the same few sets of the cache. Where
    /// a chunk is longer than its frame, frames begin as many lines into their chunks as leaves them room, up to seven,
    /// each another number than its neighbour. `huge_pages` says nothing here: the memory is what it is.
    ///
    /// # Panics
    /// If the reserve is not smaller than the number of frames, the chunks do not lie in the memory on whole chunks, or
    /// a frame with headroom and tailroom does not fit a chunk.
    pub fn pool_in(memory: Memory, chunks: ChunkOptions, options: RegionOptions) -> Region {
        assert!(options.reserve_frames < options.frames, "a pool must be larger than its reserve");
        let ChunkOptions { offset_bytes, stride_bytes } = chunks;
        assert!(stride_bytes.is_power_of_two() && offset_bytes.is_multiple_of(stride_bytes));
        let bytes =
            options.frames.checked_mul(stride_bytes).and_then(|bytes| bytes.checked_add(offset_bytes));
        assert!(bytes.is_some_and(|end| end <= memory.bytes()), "the chunks overrun their memory");
        let used = options.link_headroom_bytes + options.frame_bytes + TAILROOM_BYTES;
        assert!(used <= stride_bytes, "a frame with headroom and tailroom must fit a chunk");
        let colours = ((stride_bytes - used) / LINE_BYTES + 1).min(COLOURS_MAX);
        Region::frames_at(memory, options, |index| {
            offset_bytes + index * stride_bytes + index % colours * LINE_BYTES
        })
    }

    /// A pool whose frames begin at the offsets in `memory` that `at` tells.
    fn frames_at(memory: Memory, options: RegionOptions, at: impl Fn(usize) -> usize) -> Region {
        let base = memory.base();
        let length = options.link_headroom_bytes + options.frame_bytes;
        let states: Box<[FrameState]> = (0..options.frames)
            .map(|index| {
                let at = at(index);
                assert!(at + length + TAILROOM_BYTES <= memory.bytes(), "a frame overruns its memory");
                // SAFETY: just checked to be inside the memory with all its bytes.
                let at = unsafe { base.add(at) };
                FrameState::new(at, length as u32)
            })
            .collect();
        let free = (0..options.frames as u32).rev().map(Cell::new).collect();
        Region::house(Home {
            room_bytes: if memory.writable() { options.frame_bytes } else { 0 },
            memory,
            states,
            discipline: Discipline::Pool {
                free,
                count: Cell::new(options.frames),
                reserve: options.reserve_frames,
            },
            link_headroom: options.link_headroom_bytes,
            frame_bytes: options.frame_bytes,
            handles: Cell::new(1),
            lent: Cell::new(0),
            exhausted: Cell::new(0),
        })
    }

    /// Bytes from one frame of a pool to the next: an odd number of cache lines, so that the frames' first lines do
    /// not fall into the same few sets of the cache.
    pub fn stride(options: &RegionOptions) -> usize {
        let lines =
            whole_lines(options.link_headroom_bytes + options.frame_bytes + TAILROOM_BYTES) / LINE_BYTES;
        (lines | 1) * LINE_BYTES
    }

    /// A ring over `memory`: frames are handed out in order of position.
    ///
    /// # Panics
    /// If the ring does not lie inside the memory on whole cache lines, or its size or `frames_max` is not a power of
    /// two, or the ring cannot hold four of its largest frames.
    pub fn ring(memory: Memory, options: RingOptions) -> Region {
        assert!(options.offset_bytes.is_multiple_of(LINE_BYTES) && options.ring_bytes.is_power_of_two());
        assert!(options.offset_bytes + options.ring_bytes <= memory.bytes(), "the ring overruns its memory");
        assert!(options.frames_max.is_power_of_two());
        let largest = whole_lines(options.link_headroom_bytes + options.frame_bytes + TAILROOM_BYTES);
        assert!(options.ring_bytes >= 4 * largest, "a ring must hold four of its largest frames");
        // SAFETY: checked above to be inside the memory.
        let base = unsafe { memory.base().add(options.offset_bytes) };
        let states: Box<[FrameState]> = (0..options.frames_max).map(|_| FrameState::new(base, 0)).collect();
        Region::house(Home {
            room_bytes: if memory.writable() { options.frame_bytes } else { 0 },
            states,
            discipline: Discipline::Ring(Ring {
                offset: options.offset_bytes,
                bytes: options.ring_bytes,
                largest,
                head: Cell::new(0),
                tail: Cell::new(0),
                head_bytes: Cell::new(0),
                tail_bytes: Cell::new(0),
                foreign_tail_bytes: Cell::new(u64::MAX),
            }),
            memory,
            link_headroom: options.link_headroom_bytes,
            frame_bytes: options.frame_bytes,
            handles: Cell::new(1),
            lent: Cell::new(0),
            exhausted: Cell::new(0),
        })
    }

    /// A region of one frame, which is out: `bytes` as they are, without room for a header. It goes with its frame.
    ///
    /// # Panics
    /// If there are more bytes than a frame can have (2^32 - 1).
    pub(super) fn of_one(bytes: Vec<u8>) -> Frame {
        let length = u32::try_from(bytes.len()).expect("a frame has at most 2^32 - 1 bytes");
        let memory = Memory::heap(bytes);
        let state = FrameState::new(memory.base(), length);
        state.begin(0, length);
        let region = Region::house(Home {
            memory,
            states: Box::new([state]),
            discipline: Discipline::Pool { free: Box::new([Cell::new(0)]), count: Cell::new(0), reserve: 0 },
            link_headroom: 0,
            frame_bytes: length as usize,
            room_bytes: 0,
            handles: Cell::new(1),
            lent: Cell::new(1),
            exhausted: Cell::new(0),
        });
        Frame::adopted(&region.home().states[0])
    }

    fn house(home: Home) -> Region {
        let home = NonNull::from(Box::leak(Box::new(home)));
        // SAFETY: just made; nobody else refers to it yet. Frames need the address of their home.
        for (index, state) in unsafe { home.as_ref() }.states.iter().enumerate() {
            state.settle(home, index as u32);
        }
        Region { home }
    }

    #[inline]
    fn home(&self) -> &Home {
        // SAFETY: a home lives while any handle does (`Home::let_go`), and is never borrowed mutably.
        unsafe { self.home.as_ref() }
    }

    /// A frame to write, with `header_bytes` of room for the stack's header before the payload.
    ///
    /// In a ring the frame takes the largest size until it is frozen, and then what it needs.
    ///
    /// # Errors
    /// [`Exhausted`] if none is free, or only the reserve is.
    ///
    /// # Panics
    /// If the region's memory is read-only or the header does not fit a frame.
    #[inline]
    pub fn take(&self, header_bytes: usize) -> Result<FrameMut, Exhausted> {
        match &self.home().discipline {
            Discipline::Pool { reserve, .. } => self.take_leaving(header_bytes, *reserve),
            Discipline::Ring(_) => self.take_placed(header_bytes),
        }
    }

    /// As [`Region::take`], but may use the reserve. For control messages and receive rings.
    ///
    /// # Errors
    /// [`Exhausted`] if none is free.
    ///
    /// # Panics
    /// As [`Region::take`].
    #[inline]
    pub fn take_reserved(&self, header_bytes: usize) -> Result<FrameMut, Exhausted> {
        self.take_leaving(header_bytes, 0)
    }

    /// Of a pool, if more than `keep` frames are free.
    #[inline]
    fn take_leaving(&self, header_bytes: usize, keep: usize) -> Result<FrameMut, Exhausted> {
        let home = self.home();
        let Discipline::Pool { free, count, .. } = &home.discipline else {
            return self.take_placed(header_bytes);
        };
        assert!(header_bytes < home.room_bytes, "the region is to be written and has room for the header");
        let left = count.get();
        if left <= keep {
            return Err(home.exhausted());
        }
        count.set(left - 1);
        let index = free[left - 1].get();
        Ok(home.lend(&home.states[index as usize], header_bytes))
    }

    /// Of a ring.
    #[inline(never)]
    fn take_placed(&self, header_bytes: usize) -> Result<FrameMut, Exhausted> {
        let home = self.home();
        let Discipline::Ring(ring) = &home.discipline else { return Err(home.exhausted()) };
        assert!(header_bytes < home.room_bytes, "the region is to be written and has room for the header");
        let state = home.place(ring, ring.largest).ok_or_else(|| home.exhausted())?;
        Ok(home.lend(state, header_bytes))
    }

    /// A frame that another process wrote into this (read-only) ring: `extent` bytes at `position`, of which the
    /// frame is `start..end`. Positions must grow.
    ///
    /// # Errors
    /// [`Exhausted`] if as many frames as the ring can count are out.
    ///
    /// # Panics
    /// If the region is not a ring, or the frame lies outside of it.
    #[inline]
    pub fn adopt(&self, position: u64, extent: usize, start: usize, end: usize) -> Result<Frame, Exhausted> {
        let home = self.home();
        let Discipline::Ring(ring) = &home.discipline else { panic!("only a ring adopts frames") };
        assert!(position >= ring.head_bytes.get(), "adopted positions must grow");
        assert!(start <= end && end <= extent && ring.at(position) + extent <= ring.bytes);
        if ring.head.get() - ring.tail.get() >= home.states.len() as u64 {
            return Err(home.exhausted());
        }
        let state = home.note(ring, position, extent);
        home.lent.set(home.lent.get() + 1);
        state.begin(start as u32, end as u32);
        Ok(Frame::adopted(state))
    }

    /// Bytes of header and payload that fit one frame.
    #[inline]
    pub fn frame_bytes(&self) -> usize {
        self.home().frame_bytes
    }

    /// Bytes before the stack's header that belong to the transport.
    #[inline]
    pub fn link_headroom_bytes(&self) -> usize {
        self.home().link_headroom
    }

    /// The ring position before which this process has released every frame. Zero for a pool.
    #[inline]
    pub fn released_bytes(&self) -> u64 {
        match &self.home().discipline {
            Discipline::Pool { .. } => 0,
            Discipline::Ring(ring) => ring.tail_bytes.get(),
        }
    }

    /// Tells a ring that readers elsewhere have released everything before `position`; until the first call nobody
    /// else reads it. A position that goes back is ignored.
    #[inline]
    pub fn set_foreign_released_bytes(&self, position: u64) {
        if let Discipline::Ring(ring) = &self.home().discipline {
            let known = ring.foreign_tail_bytes.get();
            if known == u64::MAX || position > known {
                ring.foreign_tail_bytes.set(position);
            }
        }
    }

    /// Free bytes of a ring as far as is known; zero for a pool.
    #[inline]
    pub fn free_bytes(&self) -> usize {
        match &self.home().discipline {
            Discipline::Pool { .. } => 0,
            Discipline::Ring(ring) => ring.bytes - (ring.head_bytes.get() - ring.oldest()) as usize,
        }
    }

    /// Free frames of a pool, the reserve included; zero for a ring.
    pub fn free_frames(&self) -> usize {
        match &self.home().discipline {
            Discipline::Pool { count, .. } => count.get(),
            Discipline::Ring(_) => 0,
        }
    }

    /// Whether `frame` lives here.
    #[inline]
    pub fn owns(&self, frame: &Frame) -> bool {
        frame.home() == self.home
    }

    /// The memory, for transports that must register or map it.
    pub fn memory(&self) -> &Memory {
        &self.home().memory
    }

    /// What pages the memory is on.
    pub fn pages(&self) -> &Pages {
        self.home().memory.pages()
    }

    /// How often no frame was free.
    #[inline]
    pub fn exhausted(&self) -> u64 {
        self.home().exhausted.get()
    }

    /// Whether nobody holds a frame.
    #[inline]
    pub fn all_returned(&self) -> bool {
        self.home().lent.get() == 0
    }

    /// Whether this is the only handle and nobody holds a frame: then the region can serve somebody else, as good as new.
    pub fn is_idle(&self) -> bool {
        self.home().handles.get() == 1 && self.all_returned()
    }

    /// How full the region is.
    #[inline]
    pub fn usage(&self) -> RegionUse {
        let home = self.home();
        RegionUse { lent: home.lent.get(), frames: home.states.len(), exhausted: home.exhausted.get() }
    }
}

impl Home {
    /// A free frame, with so many bytes of room for a header.
    #[inline]
    fn lend(&self, state: &FrameState, header_bytes: usize) -> FrameMut {
        let start = (self.link_headroom + header_bytes) as u32;
        self.lent.set(self.lent.get() + 1);
        state.begin(start, start);
        FrameMut::of(state)
    }

    #[cold]
    fn exhausted(&self) -> Exhausted {
        self.exhausted.set(self.exhausted.get() + 1);
        Exhausted
    }

    /// Places a frame of `extent` bytes at the head of the ring, skipping to its start if it would wrap.
    #[inline]
    fn place(&self, ring: &Ring, extent: usize) -> Option<&FrameState> {
        if ring.head.get() - ring.tail.get() >= self.states.len() as u64 {
            return None;
        }
        let head = ring.head_bytes.get();
        let at = ring.at(head);
        let position = if at + extent > ring.bytes { head + (ring.bytes - at) as u64 } else { head };
        // Lines of a ring were last read by others: had early, they do not hold up the frames that will lie there.
        for ahead in [AHEAD_BYTES, AHEAD_BYTES + LINE_BYTES as u64] {
            let at = ring.offset + ring.at(head + ahead);
            prefetch_to_write(self.memory.base().as_ptr().wrapping_add(at));
        }
        // One line is left free behind the head: the transport clears the stamp after the last frame there.
        if position + extent as u64 + LINE_BYTES as u64 > ring.oldest() + ring.bytes as u64 {
            return None;
        }
        Some(self.note(ring, position, extent))
    }

    #[inline]
    fn note(&self, ring: &Ring, position: u64, extent: usize) -> &FrameState {
        let head = ring.head.get();
        let index = head as usize & (self.states.len() - 1);
        // SAFETY: callers checked that `at(position) + extent` is inside the ring, and the ring inside the memory.
        let base = unsafe { self.memory.base().add(ring.offset + ring.at(position)) };
        let state = &self.states[index];
        state.place(base, extent as u32, position);
        ring.head.set(head + 1);
        ring.head_bytes.set(position + extent as u64);
        state
    }

    /// Gives back what a just-frozen frame does not need, if it is the newest of its ring.
    #[inline]
    pub(super) fn trim(&self, state: &FrameState, used: u32) {
        let Discipline::Ring(ring) = &self.discipline else { return };
        let newest = (ring.head.get().wrapping_sub(1)) as usize & (self.states.len() - 1);
        if state.index() as usize == newest && self.memory.writable() {
            let extent = whole_lines(used as usize + TAILROOM_BYTES).min(state.extent() as usize);
            state.shrink(extent as u32);
            ring.head_bytes.set(state.position() + extent as u64);
        }
    }

    /// Takes back the newest frame of a ring, given up before it was frozen: as if it had never been taken.
    pub(super) fn give_up(&self, state: &FrameState) {
        let Discipline::Ring(ring) = &self.discipline else { return };
        let newest = (ring.head.get().wrapping_sub(1)) as usize & (self.states.len() - 1);
        if state.index() as usize == newest {
            state.shrink(0);
            ring.head_bytes.set(state.position());
        }
    }

    /// The last holder of the frame at `index` let go. Not inlined: every place where a holder lets go would have it.
    #[inline(never)]
    pub(super) fn release(home: NonNull<Home>, index: u32) {
        // SAFETY: the frame being released counted in `lent`, so the home is alive until `let_go`.
        let this = unsafe { home.as_ref() };
        match &this.discipline {
            Discipline::Pool { free, count, .. } => {
                let left = count.get();
                free[left].set(index);
                count.set(left + 1);
            }
            Discipline::Ring(ring) => this.free_oldest(ring),
        }
        this.lent.set(this.lent.get() - 1);
        if this.handles.get() == 0 && this.lent.get() == 0 {
            Home::free(home);
        }
    }

    /// Makes the oldest frames of a ring that nobody holds free.
    #[inline(never)]
    fn free_oldest(&self, ring: &Ring) {
        let mut tail = ring.tail.get();
        while tail < ring.head.get() {
            let state = &self.states[tail as usize & (self.states.len() - 1)];
            if state.held() {
                break;
            }
            ring.tail_bytes.set(state.position() + u64::from(state.extent()));
            tail += 1;
        }
        ring.tail.set(tail);
    }

    #[cold]
    fn free(home: NonNull<Home>) {
        // SAFETY: made by `Box::leak` in `Region::house`; no handle and no frame refers to it any more.
        drop(unsafe { Box::from_raw(home.as_ptr()) });
    }
}

impl Ring {
    /// Where in the ring `position` lies. The size is a power of two.
    #[inline]
    fn at(&self, position: u64) -> usize {
        position as usize & (self.bytes - 1)
    }

    #[inline]
    fn oldest(&self) -> u64 {
        self.tail_bytes.get().min(self.foreign_tail_bytes.get())
    }
}

impl Clone for Region {
    fn clone(&self) -> Region {
        let home = self.home();
        home.handles.set(home.handles.get() + 1);
        Region { home: self.home }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let home = self.home();
        home.handles.set(home.handles.get() - 1);
        if home.handles.get() == 0 && home.lent.get() == 0 {
            Home::free(self.home);
        }
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Region").field("use", &self.usage()).finish_non_exhaustive()
    }
}

/// How far before they are taken the lines of a ring are asked for: eight small frames.
const AHEAD_BYTES: u64 = 1024;

/// Places in a chunk at which frames may begin, a line apart.
const COLOURS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_of_one_memory_keep_to_their_chunks_and_their_frames_begin_on_different_lines() {
        let memory = Memory::anonymous(32 * 2048, false).unwrap();
        let options = RegionOptions {
            frames: 16,
            link_headroom_bytes: 64,
            frame_bytes: 1472,
            reserve_frames: 0,
            huge_pages: false,
        };
        let pools = [0, 16 * 2048].map(|offset_bytes| {
            let chunks = ChunkOptions { offset_bytes, stride_bytes: 2048 };
            (offset_bytes, Region::pool_in(memory.clone(), chunks, options))
        });
        let mut held = Vec::new();
        for (offset, pool) in &pools {
            let mut chunks = std::collections::BTreeSet::new();
            let mut lines = std::collections::BTreeSet::new();
            for _ in 0..16 {
                let mut frame = pool.take(24).unwrap();
                frame.extend(&[held.len() as u8; 1448]).unwrap();
                assert!(frame.extend(&[0]).is_err(), "no more than it was made for");
                let frame = frame.freeze();
                let at = frame.base().as_ptr() as usize - memory.base().as_ptr() as usize;
                assert!((*offset..offset + 16 * 2048).contains(&at));
                assert!(at % 2048 + 64 + 1472 + TAILROOM_BYTES <= 2048, "it does not leave its chunk");
                chunks.insert(at / 2048);
                lines.insert(at % 2048 / LINE_BYTES);
                held.push(frame);
            }
            assert_eq!((chunks.len(), lines.len()), (16, 8));
            assert!(pool.take(0).is_err());
        }
        for (number, frame) in held.iter().enumerate() {
            assert_eq!(frame.bytes(), [number as u8; 1448], "no frame lies in another");
        }
    }

    #[test]
    fn chunks_that_frames_fill_leave_no_choice_where_they_begin() {
        let memory = Memory::anonymous(4 * 2048, false).unwrap();
        let options = RegionOptions {
            frames: 4,
            link_headroom_bytes: 0,
            frame_bytes: 2048 - TAILROOM_BYTES,
            reserve_frames: 0,
            huge_pages: false,
        };
        let chunks = ChunkOptions { offset_bytes: 0, stride_bytes: 2048 };
        let pool = Region::pool_in(memory.clone(), chunks, options);
        let frames: Vec<_> = (0..4).map(|_| pool.take(0).unwrap().freeze()).collect();
        assert!(frames.iter().all(|frame| (frame.base().as_ptr() as usize).is_multiple_of(2048)));
        let refused = |chunks: ChunkOptions, options: RegionOptions| {
            let memory = memory.clone();
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                Region::pool_in(memory, chunks, options)
            }))
            .is_err()
        };
        assert!(refused(ChunkOptions { offset_bytes: 2048, ..chunks }, options), "beyond the memory");
        assert!(refused(
            ChunkOptions { offset_bytes: 1024, ..chunks },
            RegionOptions { frames: 1, ..options }
        ));
        assert!(refused(chunks, RegionOptions { link_headroom_bytes: 1, ..options }), "longer than a chunk");
    }

    fn pool(frames: usize, reserve: usize) -> Region {
        Region::pool(RegionOptions {
            frames,
            link_headroom_bytes: 64,
            frame_bytes: 512,
            reserve_frames: reserve,
            huge_pages: false,
        })
        .unwrap()
    }

    fn ring(bytes: usize) -> Region {
        let memory = Memory::anonymous(bytes, false).unwrap();
        let options = RingOptions {
            offset_bytes: 0,
            ring_bytes: bytes,
            frames_max: 64,
            link_headroom_bytes: 8,
            frame_bytes: 256 - 8 - TAILROOM_BYTES,
        };
        Region::ring(memory, options)
    }

    #[test]
    fn the_reserve_is_never_lent() {
        let region = pool(4, 2);
        let held = [region.take(24).unwrap(), region.take(24).unwrap()];
        assert_eq!(region.take(24).err(), Some(Exhausted));
        let reserved = region.take_reserved(24).unwrap();
        assert_eq!(region.usage(), RegionUse { lent: 3, frames: 4, exhausted: 1 });
        drop(held);
        drop(reserved);
        assert_eq!(region.usage().lent, 0);
    }

    #[test]
    fn a_frame_comes_back_with_its_last_holder_and_outlives_its_region_handle() {
        let region = pool(1, 0);
        let mut frame = region.take(24).unwrap();
        frame.extend(b"payload").unwrap();
        let frame = frame.freeze();
        let other = frame.clone();
        drop(frame);
        assert!(region.take(24).is_err());
        drop(region);
        assert_eq!(other.bytes(), b"payload");
    }

    #[test]
    fn an_owned_frame_has_its_bytes_and_no_room_and_goes_with_its_last_holder() {
        for bytes in [vec![], vec![7; 100_000]] {
            let given = bytes.clone();
            let at = given.as_ptr();
            let frame = Frame::owned(given);
            assert_eq!(frame.bytes(), bytes);
            assert_eq!(frame.base().as_ptr().cast_const(), at, "not copied");
            assert!(frame.submitted() && frame.prepend(&[1]).is_err());
            let other = frame.clone();
            drop(frame);
            assert_eq!((other.holders(), other.slice(0, bytes.len())), (1, &bytes[..]));
            assert!(other.thaw().is_err(), "nobody writes it any more");
        }
    }

    #[test]
    fn a_header_goes_before_the_payload_without_touching_it() {
        let region = pool(1, 0);
        let mut frame = region.take(24).unwrap();
        frame.extend(b"payload").unwrap();
        let frame = frame.freeze();
        let other = frame.clone();
        let payload = other.slice(frame.start(), frame.end());
        assert!(frame.prepend(b"head").is_ok());
        assert_eq!(payload, b"payload");
        assert_eq!(frame.bytes(), b"headpayload");
        frame.submit();
        assert!(frame.prepend(b"late").is_err(), "a submitted frame is immutable");
    }

    #[test]
    fn a_ring_trims_frames_and_frees_them_in_order_of_position() {
        let region = ring(1024);
        let mut first = region.take(24).unwrap();
        first.extend(&[1; 10]).unwrap();
        let first = first.freeze();
        let second = region.take(24).unwrap().freeze();
        assert_eq!(region.free_bytes(), 1024 - 128, "each took one line, and its newest extent was trimmed");
        drop(second);
        assert_eq!(region.released_bytes(), 0, "the first still holds the tail");
        drop(first);
        assert_eq!(region.released_bytes(), 128);
    }

    #[test]
    fn a_ring_refuses_what_a_foreign_reader_still_holds_and_wraps_when_it_lets_go() {
        let region = ring(1024);
        region.set_foreign_released_bytes(0);
        let mut taken = 0;
        while let Ok(mut frame) = region.take(0) {
            frame.extend(&[7; 200]).unwrap();
            drop(frame.freeze());
            taken += 1;
        }
        assert_eq!(taken, 3, "three frames of 256 bytes and a spare line");
        region.set_foreign_released_bytes(512);
        let mut frame = region.take(0).unwrap();
        frame.extend(&[9; 200]).unwrap();
        let frame = frame.freeze();
        assert_eq!(frame.position() % 1024 + 256, 1024);
        region.set_foreign_released_bytes(768);
        assert_eq!(region.take(0).unwrap().freeze().position(), 1024);
    }

    #[test]
    fn adopted_frames_release_in_order() {
        let region = ring(1024);
        let first = region.adopt(0, 128, 8, 100).unwrap();
        let second = region.adopt(128, 64, 8, 16).unwrap();
        assert_eq!((first.bytes().len(), second.bytes().len()), (92, 8));
        drop(second);
        assert_eq!(region.released_bytes(), 0);
        drop(first);
        assert_eq!(region.released_bytes(), 192);
    }
}
