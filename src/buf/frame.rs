//! Frames: written once by one holder, then shared and immutable.

use std::cell::Cell;
use std::ptr::NonNull;

use super::TAILROOM_BYTES;
use super::region::{Home, Region};

/// A frame being written: one holder.
#[derive(Debug)]
pub struct FrameMut {
    state: NonNull<FrameState>,
}

/// A frame that is no longer written: any number of holders on one thread.
///
/// Until it is submitted a header may still be put before it ([`Frame::prepend`]); afterwards nothing changes.
#[derive(Debug)]
pub struct Frame {
    state: NonNull<FrameState>,
}

/// The payload or header does not fit the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} bytes do not fit; {room} are left in the frame")]
pub struct NoRoom {
    /// Bytes asked for.
    pub wanted: usize,
    /// Bytes left.
    pub room: usize,
}

/// The book-keeping of one frame; lives in its region, in this process's own memory, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct FrameState {
    base: Cell<NonNull<u8>>,
    /// Bytes from `base` that header and payload may use (tailroom excluded).
    capacity: Cell<u32>,
    start: Cell<u32>,
    end: Cell<u32>,
    holders: Cell<u32>,
    submitted: Cell<bool>,
    index: Cell<u32>,
    /// Bytes of the ring the frame takes; unused in a pool.
    extent: Cell<u32>,
    /// Where in the ring's endless sequence of bytes the frame begins; unused in a pool.
    position: Cell<u64>,
    home: Cell<NonNull<Home>>,
}

impl FrameState {
    pub(super) fn new(base: NonNull<u8>, capacity: u32) -> FrameState {
        FrameState {
            base: Cell::new(base),
            capacity: Cell::new(capacity),
            start: Cell::new(0),
            end: Cell::new(0),
            holders: Cell::new(0),
            submitted: Cell::new(false),
            index: Cell::new(0),
            extent: Cell::new(0),
            position: Cell::new(0),
            home: Cell::new(NonNull::dangling()),
        }
    }

    pub(super) fn settle(&self, home: NonNull<Home>, index: u32) {
        self.home.set(home);
        self.index.set(index);
    }

    #[inline]
    pub(super) fn place(&self, base: NonNull<u8>, extent: u32, position: u64) {
        self.base.set(base);
        self.extent.set(extent);
        self.capacity.set(extent.saturating_sub(TAILROOM_BYTES as u32));
        self.position.set(position);
    }

    #[inline]
    pub(super) fn begin(&self, start: u32, end: u32) {
        debug_assert_eq!(self.holders.get(), 0, "a free frame has no holder");
        self.start.set(start);
        self.end.set(end);
        self.holders.set(1);
        self.submitted.set(false);
    }

    #[inline]
    pub(super) fn held(&self) -> bool {
        self.holders.get() != 0
    }

    pub(super) fn index(&self) -> u32 {
        self.index.get()
    }

    pub(super) fn extent(&self) -> u32 {
        self.extent.get()
    }

    pub(super) fn position(&self) -> u64 {
        self.position.get()
    }

    pub(super) fn shrink(&self, extent: u32) {
        self.extent.set(extent);
        self.capacity.set(extent.saturating_sub(TAILROOM_BYTES as u32));
    }

    #[inline]
    fn span(&self, from: u32, to: u32) -> &[u8] {
        debug_assert!(from <= to);
        // SAFETY: `from..to` lies within `start..end` at the time of the call, which lies within the frame
        // (`FrameMut` and `prepend` check against capacity, `adopt` against the extent). While `holders > 1` or a
        // `Frame` exists, bytes in that range are not written: `prepend` writes only below `start`. Memory of other
        // processes is trusted for payload bytes (see `Memory::shared_readable`). Attacked by the tests of `region`.
        unsafe {
            std::slice::from_raw_parts(self.base.get().add(from as usize).as_ptr(), (to - from) as usize)
        }
    }

    #[inline]
    fn let_go(&self) {
        let holders = self.holders.get() - 1;
        self.holders.set(holders);
        if holders == 0 {
            Home::release(self.home.get(), self.index.get());
        }
    }
}

impl FrameMut {
    #[inline]
    pub(super) fn of(state: &FrameState) -> FrameMut {
        FrameMut { state: NonNull::from(state) }
    }

    #[inline]
    fn state(&self) -> &FrameState {
        // SAFETY: the state lives in the home, which lives while this frame is lent.
        unsafe { self.state.as_ref() }
    }

    /// Bytes written so far.
    #[inline]
    pub fn len(&self) -> usize {
        (self.state().end.get() - self.state().start.get()) as usize
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that can still be appended.
    #[inline]
    pub fn room(&self) -> usize {
        (self.state().capacity.get() - self.state().end.get()) as usize
    }

    /// Bytes that can still be put before.
    pub fn headroom(&self) -> usize {
        self.state().start.get() as usize
    }

    /// What has been written.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.state().span(self.state().start.get(), self.state().end.get())
    }

    /// What has been written, to change.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let state = self.state();
        let (from, length) = (state.start.get() as usize, self.len());
        // SAFETY: inside the frame as in `span`; this is the only holder, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(state.base.get().add(from).as_ptr(), length) }
    }

    /// Appends `count` bytes of undefined content and lends them.
    ///
    /// # Errors
    /// [`NoRoom`] if they do not fit; nothing is changed then.
    #[inline]
    pub fn grow(&mut self, count: usize) -> Result<&mut [u8], NoRoom> {
        let room = self.room();
        if count > room {
            return Err(NoRoom { wanted: count, room });
        }
        let state = self.state();
        let end = state.end.get();
        state.end.set(end + count as u32);
        // SAFETY: `end..end + count` is inside the frame (`room`); this is the only holder, borrowed mutably. Attacked by
        // the tests of `region`.
        Ok(unsafe { std::slice::from_raw_parts_mut(state.base.get().add(end as usize).as_ptr(), count) })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`NoRoom`] if they do not fit; nothing is changed then.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.grow(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Keeps the first `length` bytes.
    ///
    /// # Panics
    /// If fewer were written.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        assert!(length <= self.len());
        let state = self.state();
        state.end.set(state.start.get() + length as u32);
    }

    /// Puts `count` bytes of undefined content before what is there and lends them.
    ///
    /// # Errors
    /// [`NoRoom`] if the headroom is smaller.
    #[inline]
    pub fn prepend(&mut self, count: usize) -> Result<&mut [u8], NoRoom> {
        let room = self.headroom();
        if count > room {
            return Err(NoRoom { wanted: count, room });
        }
        let state = self.state();
        let start = state.start.get() as usize - count;
        state.start.set(start as u32);
        // SAFETY: `start..start + count` is inside the frame, for it was before its first byte; this is the only holder,
        // borrowed mutably. Attacked by the tests of `region`.
        Ok(unsafe { std::slice::from_raw_parts_mut(state.base.get().add(start).as_ptr(), count) })
    }

    /// Ends writing. In a ring, what the frame did not use goes back.
    #[inline]
    pub fn freeze(self) -> Frame {
        let state = self.state();
        // SAFETY: the home lives while this frame is lent.
        unsafe { state.home.get().as_ref() }.trim(state, state.end.get());
        let frame = Frame { state: self.state };
        std::mem::forget(self);
        frame
    }
}

impl Drop for FrameMut {
    #[inline]
    fn drop(&mut self) {
        let state = self.state();
        // SAFETY: the home lives while this frame is lent.
        unsafe { state.home.get().as_ref() }.give_up(state);
        state.let_go();
    }
}

impl Frame {
    /// A frame of bytes from the heap, for what belongs to no transport: a message put together of fragments, say. The
    /// bytes stay where they are and go with the frame's last holder; there is no room for a header.
    ///
    /// # Panics
    /// If there are 2^32 bytes or more.
    pub fn owned(bytes: Vec<u8>) -> Frame {
        Region::of_one(bytes)
    }

    /// A frame of somebody else's making: submitted from the beginning.
    pub(super) fn adopted(state: &FrameState) -> Frame {
        state.submitted.set(true);
        Frame { state: NonNull::from(state) }
    }

    #[inline]
    fn state(&self) -> &FrameState {
        // SAFETY: the state lives in the home, which lives while this frame is lent.
        unsafe { self.state.as_ref() }
    }

    #[inline]
    pub(super) fn home(&self) -> NonNull<Home> {
        self.state().home.get()
    }

    /// The frame's bytes: headers put before it so far, and the payload.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.state().span(self.state().start.get(), self.state().end.get())
    }

    /// Offset of the first byte from the frame's base.
    #[inline]
    pub fn start(&self) -> usize {
        self.state().start.get() as usize
    }

    /// Offset after the last byte from the frame's base.
    #[inline]
    pub fn end(&self) -> usize {
        self.state().end.get() as usize
    }

    /// The bytes between two offsets from the frame's base. Offsets stay valid when a header is put before.
    ///
    /// # Panics
    /// If they are not within the frame.
    #[inline]
    pub fn slice(&self, from: usize, to: usize) -> &[u8] {
        let state = self.state();
        assert!(from <= to && from >= state.start.get() as usize && to <= state.end.get() as usize);
        state.span(from as u32, to as u32)
    }

    /// Puts `header` before the frame's bytes.
    ///
    /// # Errors
    /// [`NoRoom`] if the headroom is smaller, or the frame was submitted already.
    #[inline]
    pub fn prepend(&self, header: &[u8]) -> Result<(), NoRoom> {
        let state = self.state();
        let room = if state.submitted.get() { 0 } else { state.start.get() as usize };
        if header.len() > room {
            return Err(NoRoom { wanted: header.len(), room });
        }
        let start = room - header.len();
        // SAFETY: `start..room` is inside the frame and below `start`, where no slice handed out reaches (`span`);
        // `take` made the frame, so its memory is writable: adopted frames are submitted from the beginning.
        unsafe {
            std::ptr::copy_nonoverlapping(
                header.as_ptr(),
                state.base.get().add(start).as_ptr(),
                header.len(),
            );
        }
        state.start.set(start as u32);
        Ok(())
    }

    /// Marks the frame as submitted: from here to its last release nothing in it changes.
    #[inline]
    pub fn submit(&self) {
        self.state().submitted.set(true);
    }

    /// Whether the frame was submitted.
    pub fn submitted(&self) -> bool {
        self.state().submitted.get()
    }

    /// Where the frame's memory begins; its bytes are at [`Frame::start`] from there.
    pub fn base(&self) -> NonNull<u8> {
        self.state().base.get()
    }

    /// The frame's position in its ring; zero in a pool.
    pub fn position(&self) -> u64 {
        self.state().position.get()
    }

    /// The bytes of the ring the frame takes; zero in a pool.
    pub fn extent(&self) -> usize {
        self.state().extent.get() as usize
    }

    /// The bytes of its region that cannot be used for anything else while somebody holds the frame.
    #[inline]
    pub fn pinned_bytes(&self) -> usize {
        self.state().capacity.get() as usize + TAILROOM_BYTES
    }

    /// Whether both are the same frame, not just equal bytes.
    #[inline]
    pub fn is(&self, other: &Frame) -> bool {
        self.state == other.state
    }

    /// How many hold the frame.
    pub fn holders(&self) -> u32 {
        self.state().holders.get()
    }

    /// The frame as its only holder, to write on.
    ///
    /// # Errors
    /// The frame itself, if it has other holders or was submitted.
    pub fn thaw(self) -> Result<FrameMut, Frame> {
        if self.holders() != 1 || self.submitted() {
            return Err(self);
        }
        let state = self.state;
        std::mem::forget(self);
        Ok(FrameMut { state })
    }
}

impl Clone for Frame {
    #[inline]
    fn clone(&self) -> Frame {
        let state = self.state();
        state.holders.set(state.holders.get() + 1);
        Frame { state: self.state }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        self.state().let_go();
    }
}
