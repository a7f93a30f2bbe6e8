//! A line: the socket, the memory it has registered, and where every chunk of that is.
//!
//! ```text
//! chunks = headers    headers of frames whose own headroom is in use: 32 to a chunk
//!        + copies     frames joined of pieces, where the system takes only whole ones
//!        + transmit   regions of channels (`Bank`)
//!        + receive    what is in the fill and receive rings (never lent), and what users hold
//! ```
//!
//! A frame goes out with its headers in its own headroom, as one descriptor. While it is under way the headroom is in
//! use: to another destination it goes as two, the headers in a slot of their own. Of each chunk it is known who waits
//! for which completion, so that a frame is held exactly until the system no longer reads it.

use std::ops::Range;
use std::ptr::NonNull;

use wadjet::buf::{ChunkOptions, Frame, FrameMut, Memory, Pages, Region, RegionOptions, TAILROOM_BYTES};
use wadjet::transport::{Slice, TransportCounters, TransportError};

use crate::attach::{Attached, attach};
use crate::bank::Bank;
use crate::depth::Depth;
use crate::header::{ETHERNET_BYTES, IP_BYTES, LINK_BYTES, Template, payload_bytes};
use crate::interface::Interface;
use crate::options::XdpOptions;
use crate::program::Program;
use crate::socket::{Socket, SocketOptions};
use crate::stoppage::Stoppage;

/// Bytes of a chunk before a received frame, which belong to the XDP program.
const PROGRAM_HEADROOM_BYTES: usize = 256;
const HEADER_SLOT_BYTES: usize = 64;
const COPIES: usize = 256;

/// An attached socket and its memory.
pub(crate) struct Line {
    pub(crate) interface: Interface,
    pub(crate) program: Program,
    pub(crate) bank: Bank,
    pub(crate) frame_bytes_max: usize,
    pub(crate) notes: Vec<String>,
    socket: Socket,
    multi_buffer: bool,
    wake_when_asked: bool,
    base: NonNull<u8>,
    bytes: usize,
    chunk_bits: u32,
    transmit: Range<usize>,
    flights: Box<[Flight]>,
    header_slots: Vec<u32>,
    header_slots_all: usize,
    copies: Region,
    pool: Region,
    receive: Range<usize>,
    /// Frames that the system has been given to fill, by chunk of the receive range.
    filling: Box<[Option<FrameMut>]>,
    filled: usize,
    fill_frames: usize,
    depth: Depth,
    /// The rest of a frame in several pieces is being skipped.
    skipping: bool,
    stoppage: Stoppage,
}

/// Who waits for the completions of a chunk.
#[derive(Default)]
struct Flight {
    /// Sent with its headers before it, from this offset in the chunk.
    primary: Option<Frame>,
    at: u32,
    /// Sent as a piece behind other headers, so many times.
    parts: Option<Frame>,
    count: u32,
}

/// Pieces of one frame at most: headers, head, body.
pub(crate) const PIECES_MAX: u32 = 3;

impl Line {
    /// Attaches to an interface.
    pub(crate) fn new(interface: Interface, options: &XdpOptions) -> Result<Line, TransportError> {
        let chunk_bytes = chunk_bytes(interface.mtu);
        let frame_bytes_max = frame_bytes_max(&interface, options);
        let header_chunks =
            (options.transmit_entries as usize / 2 * HEADER_SLOT_BYTES).div_ceil(chunk_bytes).max(1);
        let copies = header_chunks..header_chunks + COPIES;
        let transmit = copies.end..copies.end + options.transmit_frames.max(2);
        let receive_frames = options.receive_frames.max(options.fill_frames + 1).max(2);
        let receive = transmit.end..transmit.end + receive_frames;
        let memory = Memory::anonymous(receive.end * chunk_bytes, options.huge_pages)?;
        let mut notes = Vec::new();
        if let Pages::Fallback(why) = memory.pages() {
            notes.push(why.clone());
        }
        let ring = |entries: usize| (entries.max(1) as u32).next_power_of_two();
        let transmit_entries = ring(options.transmit_entries as usize);
        let sizes = SocketOptions {
            interface: interface.index,
            queue: options.queue,
            chunk_bytes,
            fill_entries: ring(options.fill_frames.min(receive_frames)),
            completion_entries: 2 * transmit_entries,
            receive_entries: ring(options.fill_frames.min(receive_frames)),
            transmit_entries,
            flags: 0,
        };
        let Attached { program, socket, multi_buffer, wake_when_asked, notes: got } =
            attach(&interface, options, &memory, &sizes)?;
        notes.splice(0..0, got);
        let pool = |range: &Range<usize>| {
            let chunks = ChunkOptions { offset_bytes: range.start * chunk_bytes, stride_bytes: chunk_bytes };
            let options = RegionOptions {
                frames: range.len(),
                link_headroom_bytes: 0,
                frame_bytes: chunk_bytes - TAILROOM_BYTES,
                reserve_frames: 0,
                huge_pages: false,
            };
            Region::pool_in(memory.clone(), chunks, options)
        };
        let slots = header_chunks * chunk_bytes / HEADER_SLOT_BYTES;
        let fill_frames = options.fill_frames.clamp(1, receive_frames - 1);
        let mut line = Line {
            frame_bytes_max,
            notes,
            socket,
            multi_buffer,
            wake_when_asked,
            base: memory.base(),
            bytes: memory.bytes(),
            chunk_bits: chunk_bytes.trailing_zeros(),
            flights: (0..receive.end).map(|_| Flight::default()).collect(),
            header_slots: (0..slots as u32).rev().collect(),
            header_slots_all: slots,
            copies: pool(&copies),
            pool: pool(&receive),
            filling: (0..receive.len()).map(|_| None).collect(),
            filled: 0,
            fill_frames,
            depth: Depth::new(fill_frames),
            skipping: false,
            stoppage: Stoppage::default(),
            bank: Bank::new(memory, chunk_bytes, transmit.clone()),
            transmit,
            receive,
            program,
            interface,
        };
        line.refill();
        Ok(line)
    }

    /// Why the system did not send, if it ever did not, and what to do.
    pub(crate) fn stoppage(&self) -> Option<String> {
        self.stoppage.note(&self.interface.name)
    }

    /// Changes with what [`Line::stoppage`] says.
    pub(crate) fn stoppage_digest(&self) -> u64 {
        self.stoppage.digest()
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.socket.descriptor()
    }

    /// The longest frame to be steered to the socket, Ethernet header included.
    pub(crate) fn longest(&self) -> usize {
        (1 << self.chunk_bits) - PROGRAM_HEADROOM_BYTES - TAILROOM_BYTES
    }

    /// Frames and slots of the line that somebody holds or that are under way.
    pub(crate) fn lent(&self) -> usize {
        self.held() + self.copies.usage().lent + self.header_slots_all - self.header_slots.len()
    }

    /// Received frames that users hold.
    #[inline]
    fn held(&self) -> usize {
        self.pool.usage().lent - self.filled
    }

    /// The most received frames that users may hold.
    pub(crate) fn receive_frames_max(&self) -> usize {
        self.receive.len() - self.fill_frames
    }

    /// What the system dropped for want of room, and what it did not understand.
    pub(crate) fn statistics(&self) -> Option<libc::xdp_statistics> {
        self.socket.statistics()
    }

    /// Whether `bytes` lie in the registered memory.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        self.offset(bytes.as_ptr()).is_some_and(|at| at + bytes.len() <= self.bytes)
    }

    #[inline]
    fn offset(&self, at: *const u8) -> Option<usize> {
        let offset = (at as usize).wrapping_sub(self.base.as_ptr() as usize);
        (offset < self.bytes).then_some(offset)
    }

    /// Whether so many frames can be sent now, whatever they look like.
    #[inline]
    pub(crate) fn has_room(&mut self, frames: u32) -> bool {
        let wanted = frames * PIECES_MAX;
        let room = |line: &mut Line| {
            line.socket.transmit.has_room(wanted)
                && line.header_slots.len() >= frames as usize
                && line.copies.free_frames() >= frames as usize
        };
        room(self) || {
            self.complete();
            room(self)
        }
    }

    /// Sends a frame in one direction. There must be room.
    #[inline]
    pub(crate) fn launch(
        &mut self,
        head: &Frame,
        body: Option<&Slice>,
        template: &Template,
        counters: &mut TransportCounters,
    ) {
        counters.frames_sent += 1;
        let body = body.filter(|body| body.to > body.from);
        let payload = head.end() - head.start() + body.map_or(0, |body| body.to - body.from);
        let body_at = match body {
            None => Some(0),
            Some(body) if self.multi_buffer => self.offset(body.bytes().as_ptr()),
            Some(_) => None,
        };
        let in_place = match (self.offset(head.base().as_ptr()), body_at) {
            (Some(base), Some(body_at)) => {
                self.launch_in_place(head, base, body.zip(Some(body_at)), (template, payload))
            }
            _ => false,
        };
        if !in_place {
            self.launch_copy(head, body, &template.of(payload), counters);
        }
    }

    /// Sends a frame from where it lies, if it can be.
    #[inline]
    fn launch_in_place(
        &mut self,
        head: &Frame,
        base: usize,
        body: Option<(&Slice, usize)>,
        headers: (&Template, usize),
    ) -> bool {
        let (at, length) = (base + head.start(), head.end() - head.start());
        let chunk = at >> self.chunk_bits;
        let more = |more: bool| if more { libc::XDP_PKT_CONTD } else { 0 };
        let own = self.transmit.contains(&chunk) && head.start() >= LINK_BYTES;
        if own && self.flights[chunk].primary.is_none() {
            self.write_headers(at - LINK_BYTES, headers);
            let mask = self.mask();
            let flight = &mut self.flights[chunk];
            flight.primary = Some(head.clone());
            flight.at = (at - LINK_BYTES) as u32 & mask;
            self.describe(at - LINK_BYTES, LINK_BYTES + length, more(body.is_some()));
        } else if self.multi_buffer
            && let Some(slot) = self.header_slots.pop()
        {
            let slot_at = slot as usize * HEADER_SLOT_BYTES;
            self.write_headers(slot_at, headers);
            self.describe(slot_at, LINK_BYTES, more(length > 0 || body.is_some()));
            if length > 0 {
                self.part(head, at, length, more(body.is_some()));
            }
        } else {
            return false;
        }
        if let Some((body, at)) = body {
            self.part(&body.frame, at, body.to - body.from, 0);
        }
        true
    }

    /// Sends a frame as one piece that is joined of its own.
    #[cold]
    fn launch_copy(
        &mut self,
        head: &Frame,
        body: Option<&Slice>,
        headers: &[u8; LINK_BYTES],
        counters: &mut TransportCounters,
    ) {
        let Ok(mut copy) = self.copies.take(0) else {
            // `has_room` has seen that there is one.
            counters.dropped += 1;
            return;
        };
        counters.copies += 1;
        let body = body.map_or(&[][..], Slice::bytes);
        let parts = [&headers[..], head.bytes(), body];
        if parts.into_iter().any(|part| copy.extend(part).is_err()) {
            counters.dropped += 1;
            return;
        }
        let copy = copy.freeze();
        copy.submit();
        let at = self.offset(copy.base().as_ptr()).expect("copies lie in the registered memory");
        let flight = &mut self.flights[at >> self.chunk_bits];
        flight.at = at as u32 & ((1 << self.chunk_bits) - 1);
        let length = copy.end();
        flight.primary = Some(copy);
        self.describe(at, length, 0);
    }

    #[inline]
    fn mask(&self) -> u32 {
        (1 << self.chunk_bits) - 1
    }

    #[inline]
    fn write_headers(&mut self, at: usize, (template, payload): (&Template, usize)) {
        assert!(at + LINK_BYTES <= self.bytes);
        // SAFETY: inside the registered memory, as just checked, and bytes need no alignment: a header slot that was free, or the headroom of a frame of one of our
        // regions, below its start, where no slice that was handed out reaches and which nobody else writes; that no
        // frame under way is read there is seen to by `flights`. Attacked by the conformance suite, which sends frames
        // to several members at once and compares what arrives.
        let headers = unsafe { self.base.add(at).cast::<[u8; LINK_BYTES]>().as_mut() };
        template.write(payload, headers);
    }

    #[inline]
    fn part(&mut self, frame: &Frame, at: usize, length: usize, options: u32) {
        let flight = &mut self.flights[at >> self.chunk_bits];
        if flight.count == 0 {
            flight.parts = Some(frame.clone());
        }
        flight.count += 1;
        self.describe(at, length, options);
    }

    #[inline]
    fn describe(&mut self, at: usize, length: usize, options: u32) {
        debug_assert_eq!(at >> self.chunk_bits, (at + length - 1) >> self.chunk_bits);
        self.socket.transmit.write(libc::xdp_desc { addr: at as u64, len: length as u32, options });
    }

    /// Descriptors that wait to be shown to the system.
    #[inline]
    pub(crate) fn staged(&self) -> u32 {
        self.socket.transmit.unpublished()
    }

    /// Whether the system has not taken all that was submitted.
    #[inline]
    pub(crate) fn busy(&self) -> bool {
        self.socket.transmit.waiting() > 0
    }

    /// Shows the system what is staged, and has it taken as far as it will.
    #[inline]
    pub(crate) fn flush(&mut self, counters: &mut TransportCounters) {
        self.socket.transmit.publish();
        if self.stoppage.rests() {
            return;
        }
        let mut waiting = self.socket.transmit.waiting();
        // In copy mode each call takes a portion; a call that takes nothing ends it.
        let mut turns = waiting / self.socket.budget + 2;
        while waiting > 0 && turns > 0 {
            if self.wake_when_asked && !self.socket.transmit.wants_waking() {
                break;
            }
            counters.system_calls += 1;
            // Whatever it says, what it took has left the ring, and what it did not is tried again: at once if it had
            // no room, after a while if it cannot.
            let kicked = self.socket.kick();
            self.complete();
            self.stoppage.learn(kicked);
            let left = self.socket.transmit.waiting();
            if left == waiting || self.stoppage.rests() {
                break;
            }
            (waiting, turns) = (left, turns - 1);
        }
    }

    /// Takes back what the system has sent.
    #[inline]
    pub(crate) fn complete(&mut self) {
        let mut any = false;
        while let Some(address) = self.socket.completion.read() {
            any = true;
            self.settle(address);
        }
        if any {
            self.socket.completion.release();
        }
    }

    #[inline]
    fn settle(&mut self, address: u64) {
        let chunk = (address >> self.chunk_bits) as usize;
        if address < (self.header_slots_all * HEADER_SLOT_BYTES) as u64 {
            debug_assert!(self.header_slots.len() < self.header_slots_all);
            self.header_slots.push((address as usize / HEADER_SLOT_BYTES) as u32);
            return;
        }
        let at = address as u32 & self.mask();
        let Some(flight) = self.flights.get_mut(chunk) else { return };
        if flight.primary.is_some() && flight.at == at {
            flight.primary = None;
        } else if flight.count > 0 {
            flight.count -= 1;
            if flight.count == 0 {
                flight.parts = None;
            }
        }
    }

    /// Gives the system frames to fill.
    #[inline]
    pub(crate) fn refill(&mut self) {
        if self.filled >= self.depth.frames() {
            return;
        }
        while self.filled < self.depth.frames() && self.socket.fill.has_room(1) {
            let Ok(mut frame) = self.pool.take(0) else { break };
            let bytes = frame.grow(frame.room()).expect("as many as there is room for");
            let at = self.offset(bytes.as_ptr()).expect("the pool lies in the registered memory");
            self.filling[(at >> self.chunk_bits) - self.receive.start] = Some(frame);
            self.filled += 1;
            self.socket.fill.write(at as u64);
        }
        self.socket.fill.publish();
    }

    /// Nobody looks for a while: all the frames there are for it are given to the system.
    pub(crate) fn leave(&mut self) {
        self.depth.deepen();
        self.refill();
    }

    /// Has the system look at the fill ring, if it asks for it.
    #[inline]
    pub(crate) fn wake_receive(&self, counters: &mut TransportCounters) {
        if self.wake_when_asked && self.socket.fill.wants_waking() {
            counters.system_calls += 1;
            self.socket.wake_receive();
        }
    }

    /// Hands over frames that have come, as offsets of the payload; at most `budget` of them.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        budget: usize,
        counters: &mut TransportCounters,
        sink: &mut impl FnMut(Frame, usize, usize),
    ) -> usize {
        // Beyond what was asked for frames stay where they are, and the system drops: the reserve is not lent.
        let budget = budget.min(self.receive_frames_max().saturating_sub(self.held()));
        let mut handed = 0;
        let mut read = 0;
        // What is dropped here counts against a limit too, so that rubbish cannot keep this call for ever.
        while handed < budget && read < 4 * budget {
            let Some(piece) = self.socket.receive.read() else { break };
            read += 1;
            let at = piece.addr as usize;
            let slot = (at >> self.chunk_bits).wrapping_sub(self.receive.start);
            let Some(mut frame) = self.filling.get_mut(slot).and_then(Option::take) else { continue };
            self.filled -= 1;
            let from = at & self.mask() as usize;
            let more = piece.options & libc::XDP_PKT_CONTD != 0;
            let whole = !more && !self.skipping;
            self.skipping = more;
            let payload = (frame.bytes().get(from..from + piece.len as usize))
                .filter(|_| whole)
                .and_then(payload_bytes);
            let Some(payload) = payload else {
                counters.dropped += u64::from(!more);
                continue;
            };
            let from = from + LINK_BYTES;
            frame.truncate(from + payload);
            handed += 1;
            let frame = frame.freeze();
            frame.submit();
            sink(frame, from, from + payload);
        }
        if read > 0 {
            self.socket.receive.release();
            // What comes next may be answered first: frames to fill are given when the next iteration begins.
            self.depth.found(read + self.socket.receive.known() as usize, counters.frames_sent);
            if self.filled < self.depth.frames() / 2 {
                self.refill();
            }
            counters.frames_received += handed as u64;
        }
        handed
    }

    /// A frame for a datagram that comes by an ordinary socket, if users may hold another.
    pub(crate) fn spare(&mut self) -> Option<FrameMut> {
        if self.held() >= self.receive_frames_max() {
            return None;
        }
        let mut frame = self.pool.take(0).ok()?;
        frame.grow(frame.room()).ok()?;
        Some(frame)
    }
}

/// The largest frame that an interface and a chunk hold.
pub(crate) fn frame_bytes_max(interface: &Interface, options: &XdpOptions) -> usize {
    let headers = LINK_BYTES - ETHERNET_BYTES;
    let chunk = chunk_bytes(interface.mtu) - PROGRAM_HEADROOM_BYTES - LINK_BYTES - TAILROOM_BYTES;
    debug_assert!(headers > IP_BYTES);
    options.frame_bytes_max.min(interface.mtu.saturating_sub(headers)).min(chunk)
}

/// Chunks that hold a frame of an interface, or the largest there are.
fn chunk_bytes(mtu: usize) -> usize {
    let small = 2048;
    if mtu + ETHERNET_BYTES + PROGRAM_HEADROOM_BYTES + TAILROOM_BYTES <= small { small } else { 4096 }
}
