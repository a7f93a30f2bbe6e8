//! The application's casts and sends go in (design D8, section 4).

use super::Stack;
use crate::accel::broken::Broken;
use crate::accel::execute::{self, Miss};
use crate::accel::pack::{Closed, PACK_ROOM_BYTES};
use crate::accel::shadow::{Handled, ShadowRun};
use crate::buf::{Exhausted, Frame, FrameMut};
use crate::config::Shadow;
use crate::group::{CastError, SendError, Ticket};
use crate::id::{Rank, RankSet};
use crate::stack::build::{Closes, GuardKind, GuardOwner, HeldFor, STACK_GUARD};
use crate::stack::event::{Count, Down, Grounds, List, Message, MessageId};
use crate::stack::layer::Kind;
use crate::stack::slots::fixed;
use crate::wire::Traffic;

impl Stack {
    /// Casts `message`, copied once. A lone message on a free way goes straight down.
    #[inline]
    pub(crate) fn cast(&mut self, message: &[u8]) -> Result<Ticket, CastError> {
        if self.way_is_free() && !self.open.is_open() {
            if self.exited.is_some() || message.len() > self.payload_max {
                return self.cast_beyond(message);
            }
            let mut frame = self.take_frame()?;
            frame.extend(message).expect("its length was checked");
            self.tickets += 1;
            self.enter(frame, Count::ONE);
            return Ok(Ticket(self.tickets));
        }
        if message.len() > self.payload_max {
            return self.cast_beyond(message);
        }
        self.reserve(message.len())?;
        self.reserved().copy_from_slice(message);
        Ok(self.commit())
    }

    /// Casts a message that does not fit a frame, or not at all.
    #[cold]
    fn cast_beyond(&mut self, message: &[u8]) -> Result<Ticket, CastError> {
        if message.len() > self.message_bytes_max() {
            return Err(self.impossible(message.len()));
        }
        self.cast_large(message.to_vec())
    }

    /// Room for a cast of `length` bytes, to be written and committed.
    #[inline]
    pub(crate) fn reserve(&mut self, length: usize) -> Result<(), CastError> {
        if self.exited.is_some() || length > self.payload_max {
            return Err(self.impossible(length));
        }
        if self.open.is_open() {
            if self.open.fits(length, self.payload_max) {
                self.open.lend(length);
                return Ok(());
            }
            self.close_open();
        }
        let frame = self.take_frame()?;
        self.open_since = self.engine.core.now;
        self.open.begin(frame, length, self.agreed);
        Ok(())
    }

    /// The reserved bytes are a message.
    #[inline]
    pub(crate) fn commit(&mut self) -> Ticket {
        self.open.commit();
        self.tickets += 1;
        if !(self.pack && self.packs()) {
            match self.alone() {
                Some(frame) => self.enter(frame, Count::ONE),
                None => self.close_committed(),
            }
        }
        Ticket(self.tickets)
    }

    /// The frame of a lone message, taken out of the open pack, if the entry is clear.
    #[inline]
    fn alone(&mut self) -> Option<FrameMut> {
        let clear = self.entry_is_clear() && !self.large.open_shelved();
        if clear { self.open.close_lone() } else { None }
    }

    /// Ends what is open, unless it may be packed with others as long as it waits.
    #[inline(never)]
    fn close_committed(&mut self) {
        let clear = self.entry_is_clear();
        if clear || !self.pack {
            self.close_with(clear);
        }
    }

    /// The reserved bytes, to write.
    #[inline]
    pub(crate) fn reserved(&mut self) -> &mut [u8] {
        self.open.lent()
    }

    /// The reserved bytes as written so far.
    pub(crate) fn reserved_bytes(&self) -> &[u8] {
        self.open.lent_bytes()
    }

    /// The reserved bytes are given up.
    pub(crate) fn abandon(&mut self) {
        self.open.take_back();
    }

    /// Whether a cast would leave at once: nothing has left in this iteration, the transport is idle, nothing waits.
    #[inline]
    fn way_is_free(&self) -> bool {
        !self.packs() && self.entry_is_clear()
    }

    /// Whether further messages are to be packed: something has left in this iteration, or the transport is not idle.
    #[inline]
    fn packs(&self) -> bool {
        self.busy || self.sent && self.pack
    }

    /// Whether nothing waits and nothing makes a frame wait.
    #[inline]
    fn entry_is_clear(&self) -> bool {
        self.waiting.is_empty() && self.entry_open()
    }

    #[cold]
    fn impossible(&self, length: usize) -> CastError {
        match self.exited {
            Some(reason) => CastError::Exited(reason),
            None if length > self.message_bytes_max() => {
                CastError::TooLong { length, max: self.message_bytes_max() }
            }
            None => CastError::BeyondFrame { length, max: self.payload_max },
        }
    }

    #[inline]
    fn take_frame(&mut self) -> Result<FrameMut, CastError> {
        if !self.waiting.is_empty() {
            return self.take_frame_behind();
        }
        // The layer that gives numbers closes the entry with the last one.
        let closed = self.engine.core.slots.word(fixed::CAST_SEND_GUARD) != 0;
        if (closed || self.large.frames_beyond() > 0) && !self.numbers_left(1) {
            return Err(self.miss_numbers(1));
        }
        debug_assert!(self.numbers_left(1));
        match self.casts.take(self.cast_header_room + PACK_ROOM_BYTES) {
            Ok(frame) => Ok(frame),
            Err(exhausted) => Err(self.no_frame(exhausted)),
        }
    }

    #[cold]
    fn no_frame(&mut self, exhausted: Exhausted) -> CastError {
        self.refused_cast();
        CastError::NoFrame(exhausted)
    }

    /// A cast is refused, and told when there is room again.
    #[cold]
    pub(super) fn refused_cast(&mut self) {
        (self.refused, self.engine.core.stirred) = (true, true);
    }

    /// A frame for a cast behind others that wait.
    #[cold]
    fn take_frame_behind(&mut self) -> Result<FrameMut, CastError> {
        if !self.numbers_left(1) {
            return Err(self.miss_numbers(1));
        }
        if self.waiting.len() >= self.waiting_max {
            self.refused_cast();
            return Err(self.full());
        }
        let frame = if self.large.shelves() {
            self.large.shelf_frame(self.payload_max, self.waiting_max + 2)
        } else {
            self.casts.take(self.cast_header_room + PACK_ROOM_BYTES)
        };
        frame.map_err(|exhausted| self.no_frame(exhausted))
    }

    /// Too few numbers are left for a cast of so many frames. Where views follow each other, the next one has numbers
    /// again.
    #[cold]
    pub(super) fn miss_numbers(&mut self, frames: u64) -> CastError {
        if self.live {
            self.refused_cast();
            self.large.refused.cast_frames = frames;
            self.ask_for_numbers();
        }
        CastError::NumberLimit
    }

    fn ask_for_numbers(&mut self) {
        self.engine.core.view_wanted = true;
        // The layers are told in post-processing.
        self.engine.core.work += 1;
    }

    /// Whether frames that are begun now will get numbers of this view, after those that wait.
    #[inline]
    pub(super) fn numbers_left(&self, frames: u64) -> bool {
        let waiting = self.waiting.len() as u64 + self.large.frames_beyond();
        self.engine.core.next_frame_number() + waiting + frames <= self.number_limit
    }

    #[inline]
    pub(super) fn entry_open(&self) -> bool {
        self.engine.core.slots.word(fixed::CAST_SEND_GUARD) & self.entry[0] == 0
    }

    /// Closes the open pack: it enters the stack, or waits for the entry to open.
    #[inline]
    pub(super) fn close_open(&mut self) {
        self.close_with(self.entry_is_clear());
    }

    /// As [`Stack::close_open`], when it is known whether the entry is clear.
    #[inline]
    fn close_with(&mut self, clear: bool) {
        let Some(closed) = self.open.close() else {
            self.large.nothing_open();
            return;
        };
        if clear && !self.large.open_shelved() {
            self.enter_closed(closed);
            return;
        }
        self.wait(closed);
    }

    /// Takes down a closed pack, of the kind it was closed as.
    pub(super) fn enter_closed(&mut self, Closed { frame, count, agreed }: Closed) {
        self.as_chosen(agreed, |stack| stack.enter(frame, count));
    }

    /// Does `what` while casts that enter are agreed, or are not, if there is a choice; then the choice is again what it was.
    #[inline]
    pub(super) fn as_chosen<T>(&mut self, agreed: bool, what: impl FnOnce(&mut Stack) -> T) -> T {
        if agreed == self.agreed || self.engine.core.services.is_none() {
            return what(self);
        }
        self.choose_agreed(agreed);
        let done = what(self);
        self.choose_agreed(!agreed);
        done
    }

    /// As [`Stack::as_chosen`], for what the application casts agreed: packs of the other kind end before, and its own is full
    /// for others afterwards.
    pub(crate) fn cast_agreed<T>(&mut self, what: impl FnOnce(&mut Stack) -> T) -> T {
        if self.open.is_open() && self.engine.core.services.is_some() {
            if self.open.is_agreed() { self.open.set_apart(false) } else { self.close_open() }
        }
        let done = self.as_chosen(true, what);
        if self.open.is_open() && self.open.is_agreed() {
            self.open.set_apart(true);
        }
        done
    }

    /// From now on what is cast is agreed, or is not: the mark of casts says so.
    #[inline(never)]
    fn choose_agreed(&mut self, agreed: bool) {
        self.agreed = agreed;
        let core = &mut self.engine.core;
        if let Some(services) = core.services {
            core.set_sending(services.agreed, core.own, u64::from(agreed));
        }
    }

    /// Takes a filled frame down to its frame number: by the plan, or by the layers.
    #[inline(never)]
    pub(super) fn enter(&mut self, frame: FrameMut, count: Count) {
        self.sent = true;
        self.cast_frames += 1;
        self.enter_frame(frame, count);
    }

    /// A layer's own cast enters: that layer knows that it may.
    /// Nobody waits for the news that all hold it, but for what comes behind it.
    pub(super) fn enter_blank(&mut self, frame: FrameMut) {
        self.as_chosen(true, |stack| stack.enter_frame(frame, Count::pack(0)));
    }

    #[inline]
    fn enter_frame(&mut self, frame: FrameMut, count: Count) {
        let guard = self.engine.core.slots.word(fixed::CAST_SEND_GUARD);
        match &self.plans[Kind::CastSend as usize] {
            Ok(plan) if guard == 0 => {
                self.fast.send_hit += 1;
                let own = self.engine.core.own;
                if self.shadow == Shadow::Off {
                    execute::send(&mut self.engine.core, plan, own, frame, count);
                } else {
                    self.send_shadowed(Kind::CastSend, own, frame, count);
                }
            }
            _ => self.enter_slow(guard, frame, count),
        }
    }

    #[cold]
    fn enter_slow(&mut self, guard: u64, frame: FrameMut, count: Count) {
        self.fast.send_miss += 1;
        self.note_miss(Kind::CastSend, Miss::Guard(guard));
        if guard & STACK_GUARD != 0 {
            // For the rest of the view: the next frame is taken with room for what is put before it.
            self.cast_header_room = self.engine.core.full_bytes(Traffic::Cast);
        }
        let list = whole(frame.freeze(), 0, count);
        self.engine.core.work += 1;
        self.engine.enter(Down::Cast(Message::data(Traffic::Cast, list)));
    }

    /// Runs a send plan, then repeats it by the layers.
    #[cold]
    fn send_shadowed(&mut self, kind: Kind, peer: Rank, frame: FrameMut, count: Count) {
        let Ok(plan) = &self.plans[kind as usize] else { return };
        let before = ShadowRun::before(&self.engine);
        let core = &mut self.engine.core;
        execute::send_apart(core, plan, peer, frame, count);
        let Some(sent) = core.all_outgoing().last().map(|transmit| transmit.head) else { return };
        let list = whole(sent, plan.header_bytes, count);
        let differs = before.compare(&mut self.engine, Handled::Sent(kind, peer, &list));
        self.compared(kind, differs);
    }

    /// Plan and layers have been compared, after whole post-processing: none is due any more.
    #[cold]
    pub(super) fn compared(&mut self, kind: Kind, differs: Option<String>) {
        self.nothing_due();
        let Some(differs) = differs else { return };
        let spec = &self.core().view.view().spec;
        let text = format!("{} plan and layers of {spec} disagree: {differs}", kind.name());
        assert!(self.shadow != Shadow::Panic, "{text}");
        self.divergences.push(text);
    }

    /// Sends `message` to the members in `to`, reliably and in order.
    pub(crate) fn send(&mut self, to: &RankSet, message: &[u8]) -> Result<(), SendError> {
        // It may be refused, or be too large to go at once.
        self.engine.core.stirred = true;
        if message.len() > self.send_payload_max {
            return self.send_large(to, message);
        }
        self.check_send(to, 1)?;
        let core = &self.engine.core;
        let guard = |rank: Rank| core.slots.word(GuardKind::SendSend.word(&core.slots, rank));
        let only = to.iter().next().filter(|peer| to.len() == 1 && *peer != core.view.rank());
        let guards = only.map_or(0, guard);
        let frame = match self.control_frame_to_spare() {
            true => core.control.take(self.send_header_room + PACK_ROOM_BYTES),
            false => Err(Exhausted),
        };
        let mut frame = frame.map_err(|exhausted| {
            self.refused_frame = true;
            SendError::NoFrame(exhausted)
        })?;
        frame.extend(message).expect("its length was checked");
        self.sends += to.len() as u64;
        match (&self.plans[Kind::SendSend as usize], only) {
            (Ok(plan), Some(peer)) if guards == 0 => {
                self.fast.send_hit += 1;
                if self.shadow == Shadow::Off {
                    execute::send_apart(&mut self.engine.core, plan, peer, frame, Count::ONE);
                } else {
                    self.send_shadowed(Kind::SendSend, peer, frame, Count::ONE);
                }
            }
            _ => {
                self.fast.send_miss += 1;
                self.note_miss(Kind::SendSend, Miss::Guard(guards));
                let list = whole(frame.freeze(), 0, Count::ONE);
                self.engine.core.work += 1;
                self.engine.enter(Down::Send(*to, Message::data(Traffic::Send, list)));
            }
        }
        Ok(())
    }

    /// Whether a send of `frames` frames to the members in `to` can be taken.
    #[inline]
    pub(super) fn check_send(&mut self, to: &RankSet, frames: u64) -> Result<(), SendError> {
        let core = &self.engine.core;
        if let Some(reason) = self.exited {
            return Err(SendError::Exited(reason));
        }
        if core.layouts[Traffic::Send as usize].frame_number().is_none() {
            return Err(SendError::NoLayer);
        }
        if let Some(rank) = to.iter().find(|rank| rank.index() >= core.view.size()) {
            return Err(SendError::NotAMember(rank));
        }
        if let Some(peer) = to.iter().find(|rank| !self.open_to(*rank)) {
            self.refused_by.insert(peer);
            return Err(SendError::Full { to: peer, why: self.why_send_waits(peer) });
        }
        if let Some(peer) = to.iter().find(|peer| !self.send_numbers_left(*peer, frames)) {
            if self.live {
                // The next view has numbers again.
                self.refused_by.insert(peer);
                self.large.refused.send_frames = frames;
                self.ask_for_numbers();
            }
            return Err(SendError::NumberLimit(peer));
        }
        Ok(())
    }

    /// Whether so many more frames to `peer` will get numbers of this view.
    fn send_numbers_left(&self, peer: Rank, frames: u64) -> bool {
        let core = &self.engine.core;
        let next = core.send_number.map_or(0, |field| core.sending(field, peer));
        next + frames <= self.send_number_limit
    }

    /// Casts are held, and no more of them may wait.
    #[cold]
    pub(super) fn full(&self) -> CastError {
        let why = self.why_held(GuardKind::CastSend, self.engine.core.own).unwrap_or(HeldFor::Iteration);
        CastError::Full { why, slowest: self.slowest().filter(|_| why == HeldFor::Acknowledgements) }
    }

    fn why_send_waits(&self, peer: Rank) -> HeldFor {
        self.why_held(GuardKind::SendSend, peer).unwrap_or(HeldFor::Larger)
    }

    /// Why the entry of casts, or that of sends to `peer`, is closed; `None` if it is not.
    pub(super) fn why_held(&self, kind: GuardKind, peer: Rank) -> Option<HeldFor> {
        let core = &self.engine.core;
        let word = core.slots.word(kind.word(&core.slots, peer));
        let closed = core.guards.iter().filter(|owner| owner.kind == kind && owner.mask & word != 0);
        let weight = |owner: &GuardOwner| match owner.closes {
            Closes::Entry(hold) => HeldFor::BY_WEIGHT.iter().position(|other| *other == hold),
            Closes::FastPath => None,
        };
        Some(HeldFor::BY_WEIGHT[closed.filter_map(weight).min()?])
    }

    /// Whether sends to `peer` are not held by its window, nor by a large one that is under way.
    #[inline]
    fn open_to(&self, peer: Rank) -> bool {
        let core = &self.engine.core;
        let guard = core.slots.word(GuardKind::SendSend.word(&core.slots, peer));
        guard & self.entry[1] == 0 && !(self.large.is_sending() && self.large.is_sending_to(peer))
    }

    /// Sends are retained until acknowledged, and acknowledgements need frames of the same region: were sends to take the
    /// last ones at two members, neither could ever let the other go on.
    pub(super) fn control_frame_to_spare(&self) -> bool {
        self.engine.core.control.free_frames() > self.control_reserve
    }

    /// Whether a send that was refused would be taken now.
    pub(super) fn sendable(&self) -> bool {
        let frames = self.large.refused.send_frames.max(1);
        let open = |peer: Rank| self.open_to(peer) && self.send_numbers_left(peer, frames);
        let room = self.refused_frame || self.refused_by.iter().any(open);
        self.exited.is_none()
            && room
            && self.control_frame_to_spare()
            && self.large.has_room_for_refused_send()
    }

    /// The application has stopped casting, as it was asked to.
    pub(crate) fn block_ok(&mut self) {
        // What was cast so far belongs to this view, and what is cast from now on comes behind it.
        if !self.broken.is(Broken::PacksAcrossViews) {
            self.close_open();
        }
        self.of_this_view = Some(self.waiting.len()).filter(|waiting| self.live && *waiting > 0);
        self.engine.core.casts_waiting = !self.waiting.is_empty();
        self.engine.core.waiting_frames = self.waiting.len() as u64;
        self.engine.core.waiting_numbers = self.waiting.len() as u64 + self.large.frames_beyond();
        self.engine.enter(Down::FlushOk);
        self.engine.core.work += 1;
    }

    /// One that waited has entered whole.
    pub(super) fn one_less_waits(&mut self) {
        let Some(waiting) = &mut self.of_this_view else { return };
        *waiting -= 1;
        if *waiting == 0 {
            // Nothing of this view waits any more: the layers close the entry to what comes behind.
            self.of_this_view = None;
            self.engine.core.casts_waiting = false;
            self.engine.enter(Down::FlushOk);
        }
    }

    /// The application is behind, or is not any more.
    pub(crate) fn hold_senders(&mut self, hold: bool) {
        let core = &mut self.engine.core;
        if core.holds_senders != hold {
            (core.holds_senders, core.stirred) = (hold, true);
            core.work += 1;
        }
    }

    /// The application wants the loop that drives it to end.
    pub(crate) fn ask_to_stop(&mut self) {
        (self.asks_to_stop, self.engine.core.stirred) = (true, true);
    }

    /// The application says that members have failed.
    pub(crate) fn suspect(&mut self, ranks: RankSet) {
        self.engine.enter(Down::Suspect(ranks, Grounds::Application));
        self.engine.core.work += 1;
    }

    /// The ticket of the first cast that belongs to this view or a later one.
    pub(crate) fn first_ticket(&self) -> Ticket {
        self.first_ticket
    }

    /// The application has seen this message.
    pub(crate) fn ack_message(&mut self, id: MessageId) {
        if id.view == self.views {
            self.ack(id.origin, id.number.saturating_add(u64::from(id.last)));
        } else {
            let what =
                if id.view == 0 { "acknowledgement of a send" } else { "acknowledgement after its view" };
            self.engine.core.count_stack(what);
        }
    }

    /// The application has seen everything of `origin` below `seen`.
    pub(crate) fn ack(&mut self, origin: Rank, seen: u64) {
        let seen = self.large.seen(origin, seen);
        self.engine.enter(Down::Ack { origin, from: 0, seen });
        self.engine.core.work += 1;
    }
}

/// The payload of a whole frame behind `header_bytes` of header.
fn whole(frame: Frame, header_bytes: usize, count: Count) -> List {
    let (from, to) = (frame.start() + header_bytes, frame.end());
    List::counted(frame, from, to, count)
}
