//! Receiving: datagrams land in frames of a pool and stay there until their last holder lets go.
//!
//! A *slot* is where the next datagram goes: one small frame that holds any single frame of the group, and, where the
//! system coalesces (UDP_GRO), one large frame that takes the rest of a run. So a single datagram never occupies
//! 64 KiB, however long it is retained, and a run is handed over as parts of the two. The first bytes of a run go to
//! the small frame, as many whole segments as fit if the run's segments are as long as those of the run before; a
//! segment that straddles the border is copied (counted).
//!
//! A datagram that is longer than a small frame is, or more of them in a run, lies in the large frame as a whole once its
//! first bytes have been copied before the others (counted). The cheapest call, for a datagram that comes alone, has no room
//! for such a one: the first is lost, and for some time none of these calls is made.
//!
//! The slots' frames are the fill reserve: a slot's frame is lent only after another has taken its place. When no
//! large frame can take the place, the parts are copied into small ones (counted); when there is no small one either,
//! the datagrams stay where they are, and the system's buffer fills.

use std::cell::Cell;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::calls::{Calls, Inlet, NOTHING};
use super::socket::{self, Name};
use super::spares::LONG_FRAMES;
use crate::buf::{Exhausted, Frame, FrameMut, MemoryError, Pages, Region, RegionOptions};
use crate::transport::untouched::Untouched;
use crate::transport::{ChannelId, Received, TransportCounters};

/// Datagrams, or runs of them, taken in one system call.
pub(crate) const SLOTS: usize = 32;
/// Datagrams in one system call from which on coalescing is worth its price.
const CROWD: usize = 8;
/// Datagrams that come one by one, after which it is not.
const LONELY_MAX: usize = 64;
/// Datagrams after a long one among which another is expected.
const LONG_PATIENCE: usize = 4096;
/// Frames that may be held of what came when no channel was open.
const OUTSIDE_FRAMES: usize = 64;
/// Bytes of a large frame: the longest run. There is room for a small frame's before them.
const LARGE_BYTES: usize = 65_535;

/// The memory that the frames of one port are received in. It grows when a channel is opened, if need be, and what
/// stands idle for long is given back when one is closed.
///
/// ```text
/// small frames = sockets * SLOTS             what the next datagrams land in (the fill reserve)
///              + SLOTS                       being replaced, or joined, while a batch is handed over
///              + OUTSIDE_FRAMES              what comes when no channel is open
///              + sum of receive_frames       what the users of the open channels hold
///              + what is out when a channel is opened: it may be held for channels closed since, however long
/// large frames = sockets that coalesce * SLOTS + 8                          the same two
///              + 2 * sum of receive_frames * frame_bytes / LARGE_BYTES      what users hold in runs that are half full
///              + what is out when a channel is opened
/// ```
/// The last share of large frames is not the most that can be held: that is a frame of 64 KiB for every two frames
/// received. Where runs are shorter and held long enough, parts are copied to small frames (counted), and the sum
/// above bounds memory all the same.
pub(super) struct Pools {
    small: Pool,
    large: Option<Pool>,
    frame_bytes: usize,
    sockets: usize,
}

/// Frames of one size, in regions that are added as more are needed.
struct Pool {
    frame_bytes: usize,
    /// Room before the bytes.
    headroom_bytes: usize,
    regions: Vec<Region>,
    /// Where a frame was last found.
    at: Cell<usize>,
}

impl Pools {
    /// Pools for `sockets` sockets and no channels yet.
    pub(super) fn new(
        sockets: usize,
        frame_bytes: usize,
        coalescing: bool,
        huge_pages: bool,
        untouched: &mut Untouched,
    ) -> Result<Pools, MemoryError> {
        let mut pools = Pools {
            small: Pool::new(frame_bytes, 0),
            large: coalescing.then(|| Pool::new(LARGE_BYTES, frame_bytes)),
            frame_bytes,
            sockets,
        };
        let (small, large) = pools.wanted(0);
        let reserve = sockets * SLOTS;
        pools.small.grow(small + reserve, huge_pages, untouched)?;
        if let Some(pool) = &mut pools.large {
            pool.grow(large + reserve, huge_pages, untouched)?;
        }
        Ok(pools)
    }

    /// Makes room for users that hold at most `receive_frames` frames in all.
    pub(super) fn grow(
        &mut self,
        receive_frames: usize,
        huge_pages: bool,
        untouched: &mut Untouched,
    ) -> Result<(), MemoryError> {
        let (small, large) = self.wanted(receive_frames);
        self.small.grow(small, huge_pages, untouched)?;
        if let Some(pool) = &mut self.large {
            pool.grow(large, huge_pages, untouched)?;
        }
        Ok(())
    }

    /// Gives back idle memory beyond what changing views of users that hold `receive_frames` frames in all take.
    pub(super) fn shrink(&mut self, receive_frames: usize) {
        let (small, large) = self.wanted(3 * receive_frames);
        self.small.shrink(small);
        if let Some(pool) = &mut self.large {
            pool.shrink(large);
        }
    }

    /// Small and large frames that must be free, beside those of the slots.
    fn wanted(&self, receive_frames: usize) -> (usize, usize) {
        let held_in_runs = (2 * receive_frames * self.frame_bytes).div_ceil(LARGE_BYTES);
        // All that one member has under way may wait here for the first of it to come again, which must find a place, too.
        let long = if receive_frames > 0 { LONG_FRAMES } else { 0 };
        (SLOTS + OUTSIDE_FRAMES + receive_frames, 8 + long + held_in_runs)
    }

    /// Another socket will be served.
    pub(super) fn add_socket(&mut self, untouched: &mut Untouched) -> Result<(), MemoryError> {
        self.sockets += 1;
        let (small, _) = self.wanted(0);
        self.small.grow(small + SLOTS, false, untouched)
    }

    pub(super) fn pages(&self) -> &Pages {
        let pool = self.large.as_ref().unwrap_or(&self.small);
        pool.regions.last().expect("a pool has a region").pages()
    }

    /// Frames out of the pools, small and large, those of the slots included.
    pub(super) fn lent(&self) -> usize {
        self.small.lent() + self.large.as_ref().map_or(0, Pool::lent)
    }

    /// Bytes of memory, in use or not.
    pub(super) fn bytes(&self) -> usize {
        let pools = [Some(&self.small), self.large.as_ref()];
        pools.into_iter().flatten().flat_map(|pool| &pool.regions).map(|region| region.memory().bytes()).sum()
    }

    /// A small frame open over its whole length, for the system to write.
    #[inline]
    fn take_small(&self) -> Result<FrameMut, Exhausted> {
        let mut frame = self.small.take()?;
        frame.grow(self.frame_bytes).expect("a frame has room for its own size");
        Ok(frame)
    }

    #[inline]
    fn take_large(&self) -> Result<FrameMut, Exhausted> {
        let mut frame = self.large.as_ref().ok_or(Exhausted)?.take()?;
        frame.grow(LARGE_BYTES).expect("a frame has room for its own size");
        Ok(frame)
    }
}

impl Pool {
    fn new(frame_bytes: usize, headroom_bytes: usize) -> Pool {
        Pool { frame_bytes, headroom_bytes, regions: Vec::new(), at: Cell::new(0) }
    }

    #[inline]
    fn take(&self) -> Result<FrameMut, Exhausted> {
        match self.regions[self.at.get()].take(self.headroom_bytes) {
            Ok(frame) => Ok(frame),
            Err(Exhausted) => self.take_elsewhere(),
        }
    }

    #[cold]
    fn take_elsewhere(&self) -> Result<FrameMut, Exhausted> {
        let at = self.regions.iter().position(|region| region.free_frames() > 0).ok_or(Exhausted)?;
        self.at.set(at);
        self.regions[at].take(self.headroom_bytes)
    }

    fn free(&self) -> usize {
        self.regions.iter().map(Region::free_frames).sum()
    }

    fn lent(&self) -> usize {
        self.regions.iter().map(|region| region.usage().lent).sum()
    }

    /// Sees to it that `free` frames are free.
    fn grow(&mut self, free: usize, huge_pages: bool, untouched: &mut Untouched) -> Result<(), MemoryError> {
        let lacking = free.saturating_sub(self.free());
        if lacking > 0 {
            // Not one by one, if users keep one more at every change of views.
            let least = if self.regions.is_empty() { 0 } else { free / 4 };
            let region = Region::pool_untouched(RegionOptions {
                frames: lacking.max(least),
                link_headroom_bytes: 0,
                frame_bytes: self.headroom_bytes + self.frame_bytes,
                reserve_frames: 0,
                huge_pages,
            })?;
            untouched.push(region.memory().clone());
            self.regions.push(region);
        }
        Ok(())
    }

    /// Gives back regions that nobody holds a frame of, as long as `free` frames stay free.
    fn shrink(&mut self, free: usize) {
        let mut spare = self.free().saturating_sub(free);
        self.regions.retain(|region| {
            let frames = region.usage().frames;
            let goes = region.all_returned() && frames <= spare;
            spare -= if goes { frames } else { 0 };
            !goes
        });
        self.at.set(0);
    }
}

/// The receiving side of one socket.
pub(super) struct Intake {
    socket: OwnedFd,
    inlet: Inlet,
    /// Whose datagrams are not wanted: this member's own, which multicast brings back.
    own: Option<Name>,
    /// Bytes of the longest single frame that fits a small one, and of the longest there is.
    frame_bytes: usize,
    long_bytes: usize,
    /// Whether it can have runs coalesced.
    runs: bool,
    slots: Box<[Slot]>,
    messages: Box<[libc::mmsghdr]>,
    pieces: Box<[[libc::iovec; 2]]>,
    controls: Box<[Control]>,
    names: Box<[Name]>,
    /// Slots `next..filled` hold datagrams that have not been handed over.
    next: usize,
    filled: usize,
    /// Datagrams, or runs of them, that came last.
    came: usize,
    /// Whether many came at once, which has not been drawn conclusions from yet.
    crowded: bool,
    /// Whether the last call found something: then the next one asks for many.
    flowing: bool,
    /// Datagrams, or runs of them, that it asked for.
    asked: usize,
    /// Bytes of a run that go to the small frame.
    border: usize,
    /// Slots before this one must be pointed at their frames before the next call.
    unarmed: usize,
    /// Whether the system coalesces for this socket now.
    coalescing: bool,
    /// Datagrams that came alone since the last run.
    lonely: usize,
    /// Datagrams to come among which a long one is expected.
    long_due: usize,
    /// Addresses from which nothing is expected any more ...
    watched: Vec<SocketAddr>,
    /// ... and those of them from which something came all the same.
    heard: Vec<SocketAddr>,
    /// Whether the system reported an error instead of a datagram.
    troubled: bool,
}

/// Where one datagram or run lands.
struct Slot {
    small: FrameMut,
    large: Option<FrameMut>,
    /// Bytes of a run that go to the small frame, as the system was told: `Intake::border` may have moved on since.
    border: usize,
    run: Option<Run>,
}

/// A datagram or run being handed over.
struct Run {
    /// Bytes received, of which those before `border` are in the small frame.
    length: usize,
    border: usize,
    /// Bytes of each part; the last may be shorter.
    segment: usize,
    /// The first byte of the next part.
    at: usize,
    /// Bytes of the small frame that hold whole parts.
    small_bytes: usize,
    /// The frames being lent, once others have taken their places.
    small: Option<Frame>,
    large: Option<Frame>,
}

/// Room for one control message with a 32-bit segment size.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 24]);

impl Intake {
    /// For `socket`, of which no datagrams are wanted that come from `own`; with `runs`, what follows upon itself may be
    /// coalesced.
    pub(super) fn new(
        socket: OwnedFd,
        inlet: Inlet,
        own: Option<Name>,
        runs: bool,
        pools: &Pools,
    ) -> Result<Intake, Exhausted> {
        let runs = runs && pools.large.is_some();
        let slots = (0..SLOTS)
            .map(|_| {
                let large = if runs { Some(pools.take_large()?) } else { None };
                Ok(Slot { small: pools.take_small()?, large, border: 0, run: None })
            })
            .collect::<Result<Box<[Slot]>, Exhausted>>()?;
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Ok(Intake {
            socket,
            inlet,
            own,
            border: pools.frame_bytes,
            frame_bytes: pools.frame_bytes,
            long_bytes: pools.frame_bytes,
            runs,
            slots,
            // SAFETY: all zeros is a valid value of this plain structure.
            messages: (0..SLOTS).map(|_| unsafe { zeroed() }).collect(),
            pieces: vec![[empty; 2]; SLOTS].into(),
            controls: vec![Control([0; 24]); SLOTS].into(),
            names: vec![Name::blank(); SLOTS].into(),
            next: 0,
            filled: 0,
            came: 0,
            crowded: false,
            flowing: false,
            asked: 0,
            unarmed: SLOTS,
            coalescing: false,
            lonely: 0,
            long_due: 0,
            watched: Vec::new(),
            heard: Vec::new(),
            troubled: false,
        })
    }

    /// From here on longer datagrams than the small frames are taken, too, up to so many bytes.
    pub(super) fn take_long(&mut self, bytes: Option<usize>) {
        self.long_bytes = bytes.filter(|_| self.runs).unwrap_or(self.frame_bytes);
    }

    /// From here on datagrams from these addresses are noticed.
    pub(super) fn watch(&mut self, addresses: &[SocketAddr]) {
        self.watched.clear();
        self.watched.extend_from_slice(addresses);
        self.heard.clear();
        self.unarmed = SLOTS;
    }

    /// Watched addresses from which something came.
    #[inline]
    pub(super) fn heard(&self) -> &[SocketAddr] {
        &self.heard
    }

    /// Whether the system reported an error since the last call.
    #[inline]
    pub(super) fn troubled(&mut self) -> bool {
        std::mem::take(&mut self.troubled)
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(super) fn inlet(&self) -> Inlet {
        self.inlet
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether datagrams wait here that the system no longer knows of.
    pub(super) fn pending(&self) -> bool {
        self.next < self.filled
    }

    /// Whether there may be more: the last fetch found as much as was asked for.
    #[inline]
    pub(super) fn more(&self) -> bool {
        self.flowing && self.filled >= self.asked
    }

    /// Datagrams that the system dropped because the socket's buffer was full.
    pub(super) fn overrun(&self) -> u64 {
        socket::drops(self.descriptor())
    }

    /// Hands over at most `budget` frames; at most one system call.
    #[inline]
    pub(super) fn receive<C: Calls>(
        &mut self,
        calls: &mut C,
        channel: ChannelId,
        budget: usize,
        pools: &Pools,
        counters: &mut TransportCounters,
        sink: &mut impl FnMut(Received),
    ) -> usize {
        let mut handed = 0;
        if self.pending() {
            handed = self.hand_over(channel, budget, pools, counters, sink);
            if self.pending() || (handed == budget && !C::LASTING) {
                return handed;
            }
        }
        if !C::LASTING {
            let wanted = if self.flowing { (budget - handed).min(SLOTS) } else { (budget - handed).min(1) };
            if wanted == 0 {
                return handed;
            }
            self.ask(wanted, calls, counters);
        }
        if self.take_landed(calls, counters) {
            handed += self.hand_over(channel, budget - handed, pools, counters, sink);
        }
        self.expect(calls, counters);
        handed
    }

    /// Sees to it that what comes is received, where that takes a request that lasts.
    #[inline]
    pub(super) fn expect<C: Calls>(&mut self, calls: &mut C, counters: &mut TransportCounters) {
        if C::LASTING && !self.pending() && calls.idle(self.inlet) {
            // What was lent has been replaced: the next datagrams may land.
            self.ask(calls.crowd(self.inlet, SLOTS), calls, counters);
        }
    }

    /// Asks for datagrams in the slots `0..wanted`, into which nothing asked for before may come any more.
    #[inline]
    fn ask<C: Calls>(&mut self, wanted: usize, calls: &mut C, counters: &mut TransportCounters) {
        for at in 0..self.unarmed {
            self.arm(at);
        }
        self.unarmed = if C::LASTING { wanted } else { 0 };
        // The cheapest call for the commonest case: the bare bytes. It says by the length what is too long.
        let bare = (wanted == 1 || C::LASTING)
            && !self.coalescing
            && self.long_due == 0
            && self.own.is_none()
            && self.watched.is_empty();
        let socket = self.socket.as_raw_fd();
        // `arm` has pointed the headers at live memory of this intake: names and control data in its boxed arrays, pieces
        // in frames that only its slots hold, and that stay there until they landed.
        self.asked = wanted;
        calls.ask(self.inlet, socket, &mut self.messages[..wanted], bare, counters);
    }

    /// Takes what has arrived; whether there was anything.
    #[inline]
    fn take_landed<C: Calls>(&mut self, calls: &mut C, counters: &mut TransportCounters) -> bool {
        let landed = calls.landed(self.inlet, &mut self.messages);
        self.troubled |= landed.troubled;
        self.flowing = landed.to > landed.from;
        (self.next, self.filled) = (landed.from, landed.to);
        if !self.flowing {
            return false;
        }
        if !C::LASTING {
            self.unarmed = landed.to;
        }
        let brought =
            self.messages[landed.from..landed.to].iter().filter(|message| message.msg_len != NOTHING);
        self.came = if C::LASTING { brought.count() } else { landed.to - landed.from };
        for at in landed.from..landed.to {
            self.note(at, counters);
        }
        self.crowded |= self.came >= CROWD;
        // With requests outstanding that do not expect runs, none may be made.
        if (self.crowded && calls.idle(self.inlet)) || self.lonely >= LONELY_MAX {
            self.adapt(counters);
        }
        true
    }

    /// Has the system coalesce while there is something to coalesce, for without it a datagram that comes alone can be
    /// had by a cheaper call (a ping-pong over loopback is 3 % shorter).
    #[cold]
    fn adapt(&mut self, counters: &mut TransportCounters) {
        self.lonely = 0;
        // A run that is queued when coalescing ends would come without its segment size; the last fetch found but one
        // datagram, so at most a run that arrived since: it is handed up as one frame, which its checksum refuses, or dropped.
        let coalescing = std::mem::take(&mut self.crowded);
        if coalescing != self.coalescing && self.runs {
            counters.system_calls += 1;
            socket::coalesce(&self.socket, coalescing);
            self.coalescing = coalescing;
            // A datagram that comes alone belongs into the small frame as a whole; of what will come in runs, the longest
            // that came just now tells the size.
            let lengths = self.messages[..self.filled].iter().map(|message| message.msg_len as usize);
            let longest = lengths.filter(|length| (1..=self.frame_bytes).contains(length)).max();
            let longest = longest.filter(|_| coalescing);
            self.border = longest.map_or(self.frame_bytes, |bytes| self.frame_bytes / bytes * bytes);
            self.unarmed = SLOTS;
        }
    }

    /// Points the header of a slot at its frames.
    #[inline]
    fn arm(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let pieces = &mut self.pieces[at];
        let piece = |frame: &mut FrameMut, length: usize| {
            let bytes = &mut frame.bytes_mut()[..length];
            libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length }
        };
        let header = &mut self.messages[at].msg_hdr;
        header.msg_iov = pieces.as_mut_ptr();
        if let Some(large) = &mut slot.large {
            slot.border = self.border;
            pieces[0] = piece(&mut slot.small, slot.border);
            pieces[1] = piece(large, LARGE_BYTES);
            header.msg_iovlen = 2;
            header.msg_control = self.controls[at].0.as_mut_ptr().cast();
            header.msg_controllen = self.controls[at].0.len();
        } else {
            pieces[0] = piece(&mut slot.small, self.frame_bytes);
            header.msg_iovlen = 1;
        }
        if self.own.is_some() || !self.watched.is_empty() {
            header.msg_name = (&raw mut self.names[at].storage).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        }
    }

    /// Looks at what a slot got.
    #[inline]
    fn note(&mut self, at: usize, counters: &mut TransportCounters) {
        let message = &self.messages[at];
        let header = &message.msg_hdr;
        let slot = &mut self.slots[at];
        slot.run = None;
        if message.msg_len == NOTHING {
            return;
        }
        self.lonely = if self.coalescing && self.came == 1 { self.lonely + 1 } else { 0 };
        if self.own.as_ref().is_some_and(|own| own.same_v4(&self.names[at])) {
            return;
        }
        if !self.watched.is_empty()
            && header.msg_namelen > 0
            && let Some(from) = self.names[at].address()
            && let Some(place) = self.watched.iter().position(|watched| socket::same(*watched, from))
        {
            self.heard.push(self.watched.swap_remove(place));
        }
        let length = message.msg_len as usize;
        self.long_due = if (self.frame_bytes + 1..=self.long_bytes).contains(&length) {
            LONG_PATIENCE
        } else {
            self.long_due.saturating_sub(1)
        };
        if header.msg_flags & libc::MSG_TRUNC != 0 {
            counters.dropped += 1;
            return;
        }
        let mut segment = length;
        let mut border = self.frame_bytes;
        if slot.large.is_some() {
            border = slot.border;
            if header.msg_controllen > 0 {
                segment = self.controls[at].segment().unwrap_or(length).clamp(1, length.max(1));
            }
        }
        if segment > self.long_bytes {
            counters.dropped += length.div_ceil(segment) as u64;
            return;
        }
        if segment < length {
            self.lonely = 0;
        }
        if segment < length && segment <= self.frame_bytes {
            let border = self.frame_bytes / segment * segment;
            // A run that fits the small frame needs no border, and the next long one is of the size of the last.
            if border != self.border && length > self.frame_bytes {
                self.border = border;
                self.unarmed = SLOTS;
            }
        }
        slot.run = Some(Run {
            length,
            border,
            segment,
            at: 0,
            small_bytes: length.min(border),
            small: None,
            large: None,
        });
    }

    /// Hands over parts until the budget or the small frames are at their end, or there are no more.
    #[inline]
    fn hand_over(
        &mut self,
        channel: ChannelId,
        budget: usize,
        pools: &Pools,
        counters: &mut TransportCounters,
        sink: &mut impl FnMut(Received),
    ) -> usize {
        let mut handed = 0;
        while self.next < self.filled {
            let slot = &mut self.slots[self.next];
            if slot.run.is_some() {
                if slot.lend(pools, counters).is_err() {
                    break;
                }
                if slot.run.is_none() {
                    self.next += 1;
                    continue;
                }
                let run = slot.run.as_mut().expect("seen above");
                while !run.is_over() && handed < budget {
                    let Ok(received) = run.part(channel, slot.large.as_ref(), pools, counters) else {
                        counters.frames_received += handed as u64;
                        return handed;
                    };
                    handed += 1;
                    sink(received);
                }
                if !run.is_over() {
                    break;
                }
                slot.run = None;
            }
            self.next += 1;
        }
        counters.frames_received += handed as u64;
        handed
    }
}

impl Slot {
    /// Puts other frames in the places of those to be lent, if that has not been done.
    #[inline]
    fn lend(&mut self, pools: &Pools, counters: &mut TransportCounters) -> Result<(), Exhausted> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if run.small.is_some() || run.large.is_some() {
            return Ok(());
        }
        if run.segment > self.small.len() {
            self.lend_long(pools, counters);
            return Ok(());
        }
        let next = pools.take_small()?;
        let mut small = std::mem::replace(&mut self.small, next);
        if let (Some(large), true) = (&mut self.large, run.length > run.border) {
            if run.segment > run.border {
                // The first part goes on in the large frame; there is room for it behind its beginning.
                let first = run.segment.min(run.length);
                small.bytes_mut()[run.border..first].copy_from_slice(&large.bytes()[..first - run.border]);
                run.small_bytes = first;
                counters.copies += 1;
            }
            if run.length > run.small_bytes
                && let Ok(next) = pools.take_large()
            {
                let mut large = std::mem::replace(large, next);
                large.truncate(run.length - run.border);
                run.large = Some(large.freeze());
            }
        }
        small.truncate(run.small_bytes);
        run.small = Some(small.freeze());
        Ok(())
    }

    /// The same for what is longer than a small frame: as a whole, or not at all.
    #[inline(never)]
    fn lend_long(&mut self, pools: &Pools, counters: &mut TransportCounters) {
        let (Some(run), Some(large)) = (&mut self.run, &mut self.large) else { return };
        let Ok(next) = pools.take_large() else {
            counters.dropped += run.length.div_ceil(run.segment) as u64;
            self.run = None;
            return;
        };
        let mut large = std::mem::replace(large, next);
        large.truncate(run.length - run.border);
        let first = large.prepend(run.border).expect("there is room for as much as a small frame holds");
        first.copy_from_slice(&self.small.bytes()[..run.border]);
        counters.copies += 1;
        run.large = Some(large.freeze());
        (run.border, run.small_bytes) = (0, 0);
    }
}

impl Run {
    #[inline]
    fn is_over(&self) -> bool {
        // An empty datagram is a frame of no bytes, and over when it was handed over.
        self.at >= self.length && (self.length > 0 || self.at > 0)
    }

    /// The next part; `kept` is the slot's large frame if it is not being lent.
    #[inline]
    fn part(
        &mut self,
        channel: ChannelId,
        kept: Option<&FrameMut>,
        pools: &Pools,
        counters: &mut TransportCounters,
    ) -> Result<Received, Exhausted> {
        let (from, to) = (self.at, (self.at + self.segment).min(self.length));
        let received = if let (Some(small), true) = (&self.small, to <= self.small_bytes) {
            let start = small.start();
            Received { channel, frame: small.clone(), from: start + from, to: start + to }
        } else if let (Some(large), true) = (&self.large, from >= self.border) {
            let start = large.start();
            let (from, to) = (from - self.border, to - self.border);
            Received { channel, frame: large.clone(), from: start + from, to: start + to }
        } else {
            let large = match (&self.large, kept) {
                (Some(large), _) => large.bytes(),
                (None, kept) => kept.map_or(&[][..], FrameMut::bytes),
            };
            let small = self.small.as_ref().expect("lent before its parts are");
            let mut copy = pools.small.take()?;
            let before = &small.bytes()[from.min(self.small_bytes)..self.small_bytes];
            let behind = &large[from.saturating_sub(self.border)..to - self.border];
            copy.extend(before).and_then(|()| copy.extend(behind)).expect("no part is longer than a frame");
            counters.copies += 1;
            let frame = copy.freeze();
            Received { channel, from: frame.start(), to: frame.end(), frame }
        };
        self.at = to.max(1);
        Ok(received)
    }
}

impl Control {
    /// The size of the segments, if the system says that there are some.
    #[inline]
    fn segment(&self) -> Option<usize> {
        let at = size_of::<libc::cmsghdr>();
        // SAFETY: the 24 bytes are initialised, aligned for the header, and larger.
        let header = unsafe { &*self.0.as_ptr().cast::<libc::cmsghdr>() };
        let is_segment = header.cmsg_level == libc::SOL_UDP && header.cmsg_type == libc::UDP_GRO;
        let bytes = i32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"));
        (is_segment && bytes > 0).then_some(bytes as usize)
    }
}
