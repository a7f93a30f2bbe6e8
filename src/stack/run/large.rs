//! Messages larger than a frame: cut where casts and sends enter, put together where deliveries leave (design D8).
//!
//! A large message is kept once, whole, above the top layer; its fragments are written into frames as window, credit
//! and free frames allow. At the receiver its bytes are gathered in memory of their own, taken when its first fragment
//! comes: at most one message per origin and kind of traffic. Layers see frames only.
//!
//! Small casts behind a large one are packed in frames of a shelf, not of the channel: the channel's frames are for
//! what goes out next (in a ring they must go out in the order in which they were taken, and in any region those that
//! wait must not leave the fragments without one). They are copied when their turn comes.

use super::Stack;
use crate::accel::broken::Broken;
use crate::accel::pack::{Closed, PACK_ROOM_BYTES};
use crate::buf::{Exhausted, Frame, FrameMut, Region, RegionOptions};
use crate::group::{Application, CastError, Event, Group, SendError, Ticket};
use crate::id::{Incarnation, Rank, RankSet};
use crate::stack::build::{GuardKind, HeldFor};
use crate::stack::event::{Down, List, Message, Part, Problem};
use crate::stack::layer::Kind;
use crate::wire::Traffic;

/// What waits above the top layer.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// A filled frame.
    Frame(Closed),
    /// A filled frame of the shelf.
    Shelved(Closed),
    /// A message larger than a frame, possibly partly sent.
    Large(Large),
}

/// A message larger than a frame on its way in.
#[derive(Debug)]
pub(crate) struct Large {
    bytes: Vec<u8>,
    sent: usize,
    /// As in [`Closed`].
    agreed: bool,
}

impl Waiting {
    /// How many messages it is.
    pub(super) fn messages(&self) -> u32 {
        match self {
            Waiting::Frame(closed) | Waiting::Shelved(closed) => closed.count.messages(),
            Waiting::Large(_) => 1,
        }
    }
}

impl Large {
    fn new(bytes: Vec<u8>, agreed: bool) -> Large {
        Large { bytes, sent: 0, agreed }
    }

    /// The message to be sent whole in another view, whatever went out in the old one.
    pub(crate) fn again(self) -> Large {
        Large::new(self.bytes, self.agreed)
    }

    /// The next fragment in a frame with room for `room` bytes, written into `frame`.
    fn cut(&mut self, frame: &mut FrameMut, room: usize) -> Part {
        let left = self.bytes.len() - self.sent;
        let end = self.sent + left.min(room);
        frame.extend(&self.bytes[self.sent..end]).expect("a fragment is as long as its frame has room");
        let part = Part::Fragment { first: self.sent == 0, left: left as u64 };
        self.sent = end;
        part
    }

    fn is_sent(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Frames that what is left takes.
    fn frames(&self, room: usize) -> u64 {
        (self.bytes.len() - self.sent).div_ceil(room) as u64
    }
}

/// A large message on its way to some members.
#[derive(Debug)]
struct LargeSend {
    to: RankSet,
    large: Large,
}

/// A message that is partly here.
#[derive(Clone, Debug)]
struct Partial {
    bytes: Vec<u8>,
    whole: u64,
}

/// What a stack keeps of large messages.
#[derive(Debug)]
pub(super) struct LargeMessages {
    /// The longest message; zero if no layer carries fragments.
    bytes_max: usize,
    waiting_bytes: usize,
    waiting_bytes_max: usize,
    /// Frames that the large casts among those waiting take, beyond one each.
    frames_beyond: u64,
    /// Large casts and shelved frames among those waiting.
    shelved: usize,
    /// The open pack is in a frame of the shelf.
    open_shelved: bool,
    /// Where small casts wait behind large ones; made when it is needed first.
    shelf: Option<Region>,
    /// There was no frame for the next fragment or shelved cast.
    starved: bool,
    /// `starved`, or there are sends: for one question in the common case.
    pending: bool,
    /// What was refused last, and waits for room.
    pub(super) refused: Refused,
    /// Under way; no two of them to one member.
    sends: Vec<LargeSend>,
    /// By kind of traffic and origin.
    partial: [Vec<Option<Partial>>; 2],
    /// By origin: the last run of frames without a message of the application.
    blank: Vec<std::ops::Range<u64>>,
}

impl LargeMessages {
    /// A copy; nothing large may be under way.
    #[cfg(test)]
    pub(super) fn fork(&self) -> LargeMessages {
        assert!(!self.pending && self.shelved == 0, "what is under way cannot be copied");
        let new = LargeMessages::new(self.bytes_max, self.waiting_bytes_max, self.blank.len());
        LargeMessages { partial: self.partial.clone(), blank: self.blank.clone(), ..new }
    }

    pub(super) fn new(bytes_max: usize, waiting_bytes_max: usize, members: usize) -> LargeMessages {
        LargeMessages {
            bytes_max,
            waiting_bytes: 0,
            waiting_bytes_max,
            frames_beyond: 0,
            shelved: 0,
            open_shelved: false,
            shelf: None,
            starved: false,
            pending: false,
            refused: Refused::default(),
            sends: Vec::new(),
            partial: [(); 2].map(|()| (0..members).map(|_| None).collect()),
            blank: vec![0..0; members],
        }
    }

    /// Frame numbers that waiting casts take, beyond one each.
    #[inline]
    pub(super) fn frames_beyond(&self) -> u64 {
        self.frames_beyond
    }

    /// Whether the open pack is in a frame of the shelf: then it is behind a large cast, and nothing is open else.
    #[inline]
    pub(super) fn open_shelved(&self) -> bool {
        self.open_shelved
    }

    /// Whether something here waits for more than the entry: a frame, or the receivers of a send.
    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }

    fn note_pending(&mut self) {
        self.pending = self.starved || !self.sends.is_empty();
    }

    /// Whether what is cast now comes behind a large cast.
    #[inline]
    pub(super) fn shelves(&self) -> bool {
        self.shelved > 0 || self.open_shelved
    }

    /// A frame for a small cast behind a large one, with as much room as one of the channel.
    #[cold]
    pub(super) fn shelf_frame(&mut self, payload_max: usize, frames: usize) -> Result<FrameMut, Exhausted> {
        if self.shelf.is_none() {
            let options = RegionOptions {
                frames,
                link_headroom_bytes: 0,
                frame_bytes: PACK_ROOM_BYTES + payload_max,
                reserve_frames: 0,
                huge_pages: false,
            };
            self.shelf = Region::pool(options).ok();
        }
        let frame = self.shelf.as_ref().ok_or(Exhausted)?.take(PACK_ROOM_BYTES)?;
        self.open_shelved = true;
        Ok(frame)
    }

    /// There is no open pack any more, and it was empty.
    pub(super) fn nothing_open(&mut self) {
        self.open_shelved = false;
    }

    /// Whether sends are under way.
    #[inline]
    pub(super) fn is_sending(&self) -> bool {
        !self.sends.is_empty()
    }

    /// Whether a send to `peer` is under way: later ones must wait for its end.
    #[inline]
    pub(super) fn is_sending_to(&self, peer: Rank) -> bool {
        self.sends.iter().any(|send| send.to.contains(peer))
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.waiting_bytes == 0 || self.waiting_bytes + bytes <= self.waiting_bytes_max
    }

    /// Whether there is room in memory for the cast that was refused last.
    pub(super) fn has_room_for_refused_cast(&self) -> bool {
        self.has_room(self.refused.cast_bytes)
    }

    /// Whether there is room in memory for the send that was refused last.
    pub(super) fn has_room_for_refused_send(&self) -> bool {
        self.has_room(self.refused.send_bytes)
    }

    /// Whether the cast at the head of the queue waits for a frame.
    pub(super) fn starved(&self) -> bool {
        self.starved
    }

    /// The frames of `origin` that are seen when those below `seen` are.
    pub(super) fn seen(&self, origin: Rank, seen: u64) -> u64 {
        self.blank.get(origin.index()).filter(|blank| blank.contains(&seen)).map_or(seen, |blank| blank.end)
    }

    /// What comes first is of the view that the application was told of last, as it came in the stack before.
    pub(super) fn follow(&mut self, old: &mut LargeMessages) {
        self.partial = std::mem::take(&mut old.partial);
    }

    /// What comes now is of a view of so many members, and begins with whole messages.
    pub(super) fn begin_view(&mut self, members: usize) {
        for partial in &mut self.partial {
            partial.clear();
            partial.resize(members, None);
        }
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        self.sends.clear();
        self.partial.iter_mut().flatten().for_each(|partial| *partial = None);
        (self.waiting_bytes, self.frames_beyond, self.starved) = (0, 0, false);
        (self.shelved, self.open_shelved) = (0, false);
        self.note_pending();
    }
}

/// What a cast and a send that were refused need: bytes if they are larger than a frame and wait for room in memory,
/// frames if they wait for numbers. Nothing else of them is kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refused {
    cast_bytes: usize,
    pub(super) cast_frames: u64,
    send_bytes: usize,
    pub(super) send_frames: u64,
}

impl Refused {
    pub(super) fn forget_cast(&mut self) {
        (self.cast_bytes, self.cast_frames) = (0, 0);
    }

    pub(super) fn forget_send(&mut self) {
        (self.send_bytes, self.send_frames) = (0, 0);
    }
}

/// Fragments taken down in one iteration: enough to keep the way busy, few enough not to starve reception.
const FRAGMENTS_PER_POLL: usize = 64;

impl Stack {
    /// The longest message that can be cast. It has numbers of one view.
    pub(crate) fn message_bytes_max(&self) -> usize {
        numbered(self.payload_max, self.large.bytes_max, self.number_limit)
    }

    /// The longest message that can be sent. It has numbers of one view.
    pub(crate) fn send_bytes_max(&self) -> usize {
        numbered(self.send_payload_max, self.large.bytes_max, self.send_number_limit)
    }

    /// Casts a message as it is, without copying it if it is larger than a frame.
    pub(crate) fn cast_buffer(&mut self, message: Vec<u8>) -> Result<Ticket, CastError> {
        if message.len() > self.payload_max { self.cast_large(message) } else { self.cast(&message) }
    }

    /// Casts a message larger than a frame.
    #[cold]
    pub(super) fn cast_large(&mut self, message: Vec<u8>) -> Result<Ticket, CastError> {
        let (length, max) = (message.len(), self.message_bytes_max());
        if let Some(reason) = self.exited {
            return Err(CastError::Exited(reason));
        }
        if length > max {
            return Err(CastError::TooLong { length, max });
        }
        let large = Large::new(message, self.agreed);
        let frames = large.frames(self.payload_max);
        let frames_with_open = frames + u64::from(self.open.is_open());
        if !self.numbers_left(frames_with_open) {
            return Err(self.miss_numbers(frames_with_open));
        }
        // The open pack, which comes before, may have to wait too.
        let queued = self.waiting.len() + usize::from(self.open.is_open());
        if queued >= self.waiting_max || !self.large.has_room(length) {
            self.refused_cast();
            self.large.refused.cast_bytes = length;
            return Err(match self.full() {
                CastError::Full { why: HeldFor::Iteration, slowest } if queued < self.waiting_max => {
                    CastError::Full { why: HeldFor::Memory, slowest }
                }
                full => full,
            });
        }
        self.close_open();
        self.tickets += 1;
        self.large.waiting_bytes += length;
        self.large.frames_beyond += frames - 1;
        self.large.shelved += 1;
        self.engine.core.stirred = true;
        self.waiting.push_back(Waiting::Large(large));
        if self.waiting.len() == 1 && self.entry_open() {
            self.enter_waiting();
        }
        Ok(Ticket(self.tickets))
    }

    /// The closed pack waits for its turn.
    #[cold]
    pub(super) fn wait(&mut self, closed: Closed) {
        self.engine.core.stirred = true;
        if !std::mem::take(&mut self.large.open_shelved) {
            self.waiting.push_back(Waiting::Frame(closed));
            return;
        }
        self.large.shelved += 1;
        self.waiting.push_back(Waiting::Shelved(closed));
        if self.waiting.len() == 1 && self.entry_open() {
            self.enter_waiting();
        }
    }

    /// Takes over a cast that waited in the last view's stack; one that was partly sent is sent whole. Returns false if
    /// this stack cannot carry it, or has no frame for it.
    pub(super) fn inherit(&mut self, waiting: Waiting) -> bool {
        let Closed { frame, count, agreed } = match waiting {
            Waiting::Frame(closed) | Waiting::Shelved(closed) => closed,
            Waiting::Large(large) => {
                let goes_on = self.broken.is(Broken::GoesOnAcrossViews);
                let large = if goes_on { large } else { large.again() };
                let length = large.bytes.len();
                if length > self.large.bytes_max {
                    return false;
                }
                self.large.waiting_bytes += length;
                self.large.frames_beyond += large.frames(self.payload_max) - 1;
                self.large.shelved += 1;
                self.waiting.push_back(Waiting::Large(large));
                return true;
            }
        };
        // The frame is of the old view's region, or of its shelf, which holds more; what it holds moves to the new region, or
        // waits behind what is large, or because there is no frame for it yet.
        let direct = match self.large.shelves() {
            true => None,
            false => self.casts.take(self.cast_header_room + PACK_ROOM_BYTES).ok(),
        };
        let shelves = direct.is_none();
        let shelf_frame = || self.large.shelf_frame(self.payload_max, self.waiting_max + 2).ok();
        let taken = direct.or_else(shelf_frame);
        self.large.open_shelved = false;
        let Some(mut copy) = taken.filter(|copy| copy.room() >= frame.len()) else { return false };
        copy.extend(frame.bytes()).expect("the room was looked at");
        self.copies += 1;
        let closed = Closed { frame: copy, count, agreed };
        self.large.shelved += usize::from(shelves);
        self.waiting.push_back(if shelves { Waiting::Shelved(closed) } else { Waiting::Frame(closed) });
        true
    }

    /// Takes over the large sends that were under way when the last view ended: they are sent whole in this one, to those
    /// who are in it. Returns who is not, or cannot be sent it.
    pub(super) fn inherit_sends(&mut self, old: &mut Stack) -> Vec<Incarnation> {
        let mut lost = Vec::new();
        for LargeSend { to, large } in std::mem::take(&mut old.large.sends) {
            let large = large.again();
            let carried = large.bytes.len() <= self.large.bytes_max;
            let mut there = RankSet::EMPTY;
            for rank in to.iter() {
                let incarnation = old.engine.core.view.member(rank).incarnation;
                match self.engine.core.view.rank_of(incarnation) {
                    Some(rank) if carried => there.insert(rank),
                    _ => lost.push(incarnation),
                };
            }
            if !there.is_empty() {
                self.large.waiting_bytes += large.bytes.len();
                self.large.sends.push(LargeSend { to: there, large });
            }
        }
        self.large.note_pending();
        lost
    }

    /// What waits enters, in order, as long as the entry is open and there are frames.
    pub(super) fn enter_waiting(&mut self) {
        let mut fragments = 0;
        while self.entry_open() {
            match self.waiting.pop_front() {
                None => return,
                Some(Waiting::Frame(closed)) => {
                    self.enter_closed(closed);
                    self.one_less_waits();
                }
                Some(Waiting::Shelved(closed)) => match self.unshelve(&closed) {
                    Some(frame) => {
                        self.large.shelved -= 1;
                        self.enter_closed(Closed { frame, ..closed });
                        self.one_less_waits();
                    }
                    None => {
                        self.waiting.push_front(Waiting::Shelved(closed));
                        return;
                    }
                },
                Some(Waiting::Large(mut large)) => {
                    let entered = fragments < FRAGMENTS_PER_POLL && self.enter_fragment(&mut large);
                    self.engine.core.amid_message |= entered;
                    if large.is_sent() {
                        self.engine.core.amid_message = false;
                        self.large.shelved -= 1;
                        self.large.waiting_bytes -= large.bytes.len();
                        self.one_less_waits();
                    } else {
                        self.large.frames_beyond -= u64::from(entered);
                        self.waiting.push_front(Waiting::Large(large));
                    }
                    if !entered {
                        return;
                    }
                    fragments += 1;
                }
            }
        }
    }

    /// A frame of the channel for what waits, with room for `header_bytes`; `None` if there is none.
    fn frame_for_waiting(&mut self, header_bytes: usize) -> Option<FrameMut> {
        let mut frame = self.casts.take(header_bytes + PACK_ROOM_BYTES).ok();
        if frame.is_none() && self.of_this_view.is_some() {
            self.free_frames_of_held_casts();
            frame = self.casts.take(header_bytes + PACK_ROOM_BYTES).ok();
        }
        self.large.starved = frame.is_none();
        self.large.note_pending();
        frame
    }

    /// Own casts that wait for their order keep the frames they left in. Where who orders has failed they wait for the end
    /// of the view, and the view does not end before all that was cast in it has left: they are copied elsewhere.
    #[cold]
    fn free_frames_of_held_casts(&mut self) {
        let header_bytes = self.engine.core.layouts[0].compressed_bytes();
        let core = &mut self.engine.core;
        for list in core.order.lists_of(core.own).filter(|list| self.casts.owns(list.frame())) {
            let before = header_bytes.min(list.from());
            let bytes = list.frame().slice(list.from() - before, list.to()).to_vec();
            *list = list.moved(Frame::owned(bytes), before);
            self.copies += 1;
        }
    }

    /// A shelved cast in a frame of the channel.
    fn unshelve(&mut self, closed: &Closed) -> Option<FrameMut> {
        let mut frame = self.frame_for_waiting(self.cast_header_room)?;
        frame.extend(closed.frame.bytes()).expect("a shelved frame has no more room than any other");
        Some(frame)
    }

    /// Takes the next fragment of a cast down to its frame number; returns false if there is no frame for it.
    fn enter_fragment(&mut self, large: &mut Large) -> bool {
        let header_bytes = self.engine.core.full_bytes(Traffic::Cast);
        let Some(mut frame) = self.frame_for_waiting(header_bytes) else { return false };
        let part = large.cut(&mut frame, self.payload_max);
        self.sent = true;
        self.cast_frames += 1;
        self.fast.send_miss += 1;
        self.note_fragment(Kind::CastSend);
        self.engine.core.work += 1;
        let fragment = Down::Cast(fragment(Traffic::Cast, frame, part));
        self.as_chosen(large.agreed, |stack| stack.engine.enter(fragment));
        true
    }

    /// Sends a message larger than a frame.
    #[cold]
    pub(super) fn send_large(&mut self, to: &RankSet, message: &[u8]) -> Result<(), SendError> {
        let (length, max) = (message.len(), self.send_bytes_max());
        if let Some(reason) = self.exited {
            return Err(SendError::Exited(reason));
        }
        if length > max {
            return Err(SendError::TooLong { length, max });
        }
        self.check_send(to, length.div_ceil(self.send_payload_max) as u64)?;
        if !self.large.has_room(length) {
            let to = to.iter().next().unwrap_or(self.engine.core.own);
            self.refused_by.insert(to);
            self.large.refused.send_bytes = length;
            return Err(SendError::Full { to, why: HeldFor::Memory });
        }
        self.sends += to.len() as u64;
        if !to.is_empty() {
            self.large.waiting_bytes += length;
            self.large.sends.push(LargeSend { to: *to, large: Large::new(message.to_vec(), false) });
            self.enter_sends();
        }
        Ok(())
    }

    /// What sends are under way go on, each as far as its receivers and free frames allow.
    pub(super) fn enter_sends(&mut self) {
        let mut sends = std::mem::take(&mut self.large.sends);
        sends.retain_mut(|LargeSend { to, large }| {
            for _ in 0..FRAGMENTS_PER_POLL {
                if !self.can_send_fragment(to) {
                    return true;
                }
                let headers = self.engine.core.full_bytes(Traffic::Send) + PACK_ROOM_BYTES;
                let Ok(mut frame) = self.engine.core.control.take(headers) else { return true };
                let part = large.cut(&mut frame, self.send_payload_max);
                self.fast.send_miss += 1;
                self.note_fragment(Kind::SendSend);
                self.engine.core.work += 1;
                self.engine.enter(Down::Send(*to, fragment(Traffic::Send, frame, part)));
                if large.is_sent() {
                    self.large.waiting_bytes -= large.bytes.len();
                    return false;
                }
            }
            true
        });
        self.large.sends = sends;
        self.large.note_pending();
    }

    /// Whether a fragment to the members in `to` would be taken now.
    fn can_send_fragment(&self, to: &RankSet) -> bool {
        let core = &self.engine.core;
        let open =
            |rank: Rank| core.slots.word(GuardKind::SendSend.word(&core.slots, rank)) & self.entry[1] == 0;
        let numbered = |rank: Rank| {
            core.send_number.is_none_or(|field| core.sending(field, rank) < self.send_number_limit)
        };
        self.control_frame_to_spare() && to.iter().all(|rank| open(rank) && numbered(rank))
    }

    /// Whether some send that is under way could go on now.
    pub(super) fn can_go_on_sending(&self) -> bool {
        self.large.sends.iter().any(|send| self.can_send_fragment(&send.to))
    }

    /// A message that came up by the layers: delivers it, or what it completes.
    pub(super) fn deliver_part(
        &mut self,
        kind: Kind,
        origin: Rank,
        message: &Message,
        app: &mut dyn Application,
    ) {
        let at = message.traffic as usize;
        let (first, left) = match message.part {
            Part::Whole if message.list.is_empty() => {
                self.blank(kind, origin, message.number);
                return;
            }
            Part::Whole => {
                self.large.partial[at][origin.index()] = None;
                self.upcall(kind, origin, message.number, &message.list, app);
                return;
            }
            Part::Fragment { first, left } => (first, left),
            Part::Void => {
                self.large.partial[at][origin.index()] = None;
                self.blank(kind, origin, message.number);
                return;
            }
        };
        if first {
            self.large.partial[at][origin.index()] = self.begin_partial(origin, left, app);
        }
        let payload = message.list.payload();
        let partial = &mut self.large.partial[at][origin.index()];
        let due = |partial: &Partial| partial.whole - partial.bytes.len() as u64 == left;
        match partial.take_if(|partial| !due(partial) || payload.len() as u64 >= left) {
            Some(mut whole) if due(&whole) && payload.len() as u64 == left => {
                whole.bytes.extend_from_slice(payload);
                let length = whole.bytes.len();
                let list = List::single(Frame::owned(whole.bytes), 0, length);
                self.upcall(kind, origin, message.number, &list, app);
                return;
            }
            Some(_) => self.engine.core.count_stack("fragment out of place"),
            None => {
                if let Some(partial) = partial {
                    partial.bytes.extend_from_slice(payload);
                }
            }
        }
        self.blank(kind, origin, message.number);
    }

    fn begin_partial(&mut self, origin: Rank, whole: u64, app: &mut dyn Application) -> Option<Partial> {
        let mut bytes = Vec::new();
        if usize::try_from(whole).is_ok_and(|whole| bytes.try_reserve_exact(whole).is_ok()) {
            return Some(Partial { bytes, whole });
        }
        self.engine.core.count_stack(NO_MEMORY);
        let problem = Problem { layer: "stack", origin: Some(origin), what: NO_MEMORY.into() };
        app.event(&Event::Problem(problem), &mut Group::new(self));
        None
    }

    /// A frame without a message of the application is seen when it is held (design D7).
    #[cold]
    pub(super) fn blank(&mut self, kind: Kind, origin: Rank, number: u64) {
        // What was seen in a view before is settled.
        if kind == Kind::SendDeliver || self.past().is_some() {
            return;
        }
        let run = &mut self.large.blank[origin.index()];
        if run.end == number {
            run.end += 1;
        } else {
            *run = number..number + 1;
        }
        self.engine.enter(Down::Ack { origin, from: number, seen: number + 1 });
    }
}

const NO_MEMORY: &str = "no memory for a large message";

/// A fragment as a message for the layers.
fn fragment(traffic: Traffic, frame: FrameMut, part: Part) -> Message {
    let frame = frame.freeze();
    let (from, to) = (frame.start(), frame.end());
    Message { part, ..Message::data(traffic, List::single(frame, from, to)) }
}

/// The longest message of `frame_bytes` a frame and `bytes_max` in all that has numbers, of which there are `limit`.
fn numbered(frame_bytes: usize, bytes_max: usize, limit: u64) -> usize {
    let frames = usize::try_from(limit).unwrap_or(usize::MAX);
    bytes_max.min(frame_bytes.saturating_mul(frames)).max(frame_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_the_message_and_another_view_gets_it_whole() {
        let bytes: Vec<u8> = (0..100).collect();
        let region = Region::pool(RegionOptions {
            frames: 1,
            link_headroom_bytes: 0,
            frame_bytes: 64,
            reserve_frames: 0,
            huge_pages: false,
        });
        let region = region.unwrap();
        let mut large = Large::new(bytes.clone(), false);
        for (room, whole) in [(30, 4), (50, 2)] {
            assert_eq!(large.frames(room), whole);
            let mut gathered = Vec::new();
            while !large.is_sent() {
                let mut frame = region.take(8).unwrap();
                let (first, left) = (gathered.is_empty(), (100 - gathered.len()) as u64);
                assert_eq!(large.cut(&mut frame, room), Part::Fragment { first, left });
                gathered.extend_from_slice(frame.bytes());
            }
            assert_eq!(gathered, bytes);
            large = large.again();
        }
        large.cut(&mut region.take(8).unwrap(), 30);
        assert_eq!(large.again().frames(30), 4, "what went out in the old view goes out again");
    }
}
