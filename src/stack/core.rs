//! The state of one stack in one view that is not a layer's own: slots, retained frames, timers, queues.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::Range;
use std::rc::Rc;

use super::build::{Blueprint, Field, FieldHome, GuardKind, GuardOwner, TallyDefinition};
use super::event::{Down, List, Message, Part, Up};
use super::gossip::GossipState;
use super::identify::Asked;
use super::notices::Ways;
use super::order::OrderQueue;
use super::retention::Retention;
use super::script::Run;
use super::service::Services;
use super::slots::{MatrixSlot, MemberSlot, SlotFile, Tally, fixed};
use super::timers::Timers;
use crate::accel::effects::Pending;
use crate::buf::{Exhausted, Frame, FrameMut, Region};
use crate::endpoint::Room;
use crate::group::Snapshot;
use crate::id::{Hasher64, Rank, RankSet};
use crate::time::Time;
use crate::transport::{Addresses, ChannelId, Destination, Outside, Slice, Transmit};
use crate::view::{LocalView, Neighbours};
use crate::wire::Traffic;
use crate::wire::control::Identify;
use crate::wire::full::{Identification, PREFIX_BYTES, Prefix, STACK_CONTROL};
use crate::wire::layout::{FIELDS_MAX, Header, Layout};
use crate::wire::pack::run_header;

/// One own cast on its way back up.
#[derive(Clone, Debug)]
pub(crate) struct Looped {
    /// The layer that looped it; it goes up from there.
    pub(crate) layer: usize,
    pub(crate) number: u64,
    pub(crate) list: List,
    /// Whether it took the slow path: then its fields are the next of `looped_headers`, else its compressed header
    /// stands before the payload.
    pub(crate) slow: bool,
}

/// An event and the layer it is for.
#[derive(Clone, Debug)]
pub(crate) enum Queued {
    Down(usize, Down),
    Up(usize, Up),
}

/// What has come out at the top.
#[derive(Clone, Debug)]
pub(crate) enum Emerged {
    Cast(Rank, Message),
    Send(Rank, Message),
    Event(Up),
}

/// How many snapshots of the application's state there may be at a time.
pub(crate) const SNAPSHOTS: usize = 2;

/// The application's state, while it is given to others. A fork has none.
#[derive(Default)]
pub(crate) struct HeldSnapshot(pub(crate) Option<Box<dyn Snapshot>>);

impl Clone for HeldSnapshot {
    fn clone(&self) -> HeldSnapshot {
        HeldSnapshot::default()
    }
}

/// A frame on its way to where casts enter the stack, if there is one. A fork has none.
#[derive(Default)]
pub(crate) struct Blank(pub(crate) Option<FrameMut>);

impl Clone for Blank {
    fn clone(&self) -> Blank {
        Blank(None)
    }
}

/// A counted thing: whose, what, how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The layer, or the part of the stack.
    pub layer: &'static str,
    /// What.
    pub what: &'static str,
    /// How often.
    pub count: u64,
}

/// What does not change within a view a fork shares.
#[derive(Clone)]
pub(crate) struct Core {
    pub(crate) view: Rc<LocalView>,
    pub(crate) own: Rank,
    pub(crate) names: Rc<[&'static str]>,
    /// Which layer a message comes to next.
    pub(crate) ways: Rc<Ways>,
    pub(crate) now: Time,
    pub(crate) slots: SlotFile,
    pub(crate) layouts: [Layout; 3],
    pub(crate) homes: [Rc<[FieldHome]>; 3],
    pub(crate) frame_number: Option<Field>,
    /// Where it is among the template words, if anywhere.
    pub(crate) number_home: FieldHome,
    pub(crate) send_number: Option<Field>,
    pub(crate) guards: Rc<[GuardOwner]>,
    pub(crate) tallies: Rc<[TallyDefinition]>,
    /// By traffic and field: the layer that registered it.
    pub(crate) field_layers: [Rc<[usize]>; 3],
    /// By tally: the hits word it follows, once a plan counts it.
    pub(crate) counted: Rc<[Option<u32>]>,
    pub(crate) loop_layer: Option<usize>,
    /// By what casts that are in order are served.
    pub(crate) services: Option<Services>,
    pub(crate) shared_matrices: Rc<[(&'static str, MatrixSlot)]>,
    /// The frame number at which this view ends.
    pub(crate) number_limit: u64,
    /// The number of sends to one member at which it does.
    pub(crate) send_number_limit: u64,
    /// The application is behind with what was delivered to it: the senders are to be held.
    pub(crate) holds_senders: bool,
    /// When all that had come was taken in, last.
    pub(crate) level_at: Time,
    /// A message was refused because too few numbers are left for it, or a layer has asked for a view.
    pub(crate) view_wanted: bool,
    /// Per peer: number from which sends are refused, control messages so many later.
    pub(crate) reliable: Option<(MemberSlot, u64)>,
    /// Frames of the control region that reliable control messages leave to what lets them go: gossip, repetitions.
    pub(crate) control_floor: usize,
    /// Frames of the control region that what is said again and again leaves, but for now and then: what others have not read yet holds
    /// its frames, and one that is far behind would have all of them, and nothing be left for reliable messages, or to be heard by
    /// the others.
    pub(crate) control_plenty: usize,
    /// Frames that casts without content leave: they are retained like any cast, and what repairs them needs some. Fewer
    /// than sends leave, or an application that only sends could keep the order from going on for good.
    pub(crate) blank_floor: usize,
    /// How often something was refused or left out for want of frames that a fork takes too.
    pub(crate) starved: u64,
    /// The longest message that is carried in fragments; zero if no layer does that.
    pub(crate) fragmented_bytes_max: u64,
    pub(crate) timers: Timers,
    pub(crate) timer_layers: Rc<[usize]>,
    /// By origin.
    pub(crate) casts: Vec<Retention>,
    /// Bytes of others' frames that may be retained in place, memory for what exceeds it, and how often it was used.
    pub(crate) retain_bytes_max: u64,
    /// The most that one of these frames pinned so far.
    pub(crate) pinned_most: u64,
    pub(crate) copies: Vec<Region>,
    pub(crate) copy_bytes: usize,
    /// What frames this process can take, and this stack needs, in bytes.
    pub(crate) frame_bytes_max: u32,
    pub(crate) frame_bytes_least: u32,
    /// How many members a view may have: as far as the configuration is concerned, and the transport.
    pub(crate) members_max: usize,
    pub(crate) room: Room,
    pub(crate) copied: u64,
    /// By peer.
    pub(crate) sends: Vec<Retention>,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) queue_max: usize,
    /// Own casts that wait to come back up. First those by plan with these numbers, whose lists retention has, then the
    /// others.
    pub(crate) loop_numbers: Range<u64>,
    pub(crate) loopback: VecDeque<Looped>,
    pub(crate) looped_headers: VecDeque<(Header, Part)>,
    /// Accepted casts that their ordering layer has not released yet.
    pub(crate) order: OrderQueue,
    /// What the last order of a sequencer says and has not been begun yet.
    pub(crate) runs: VecDeque<Run>,
    pub(crate) emerged: VecDeque<Emerged>,
    /// What is to be submitted. First these frames, then the casts by plan with these numbers, whose frames retention has.
    pub(crate) outbox: VecDeque<Transmit>,
    pub(crate) outgoing_numbers: Range<u64>,
    /// Messages to processes outside the view.
    pub(crate) outside: Vec<(Outside, Vec<u8>)>,
    /// Members to be excluded from the channel.
    pub(crate) excluded: Vec<Rank>,
    /// Members that have failed: nothing waits for them.
    pub(crate) failed: RankSet,
    /// Another view is about to follow.
    pub(crate) view_expected: bool,
    /// Layers want to be prompted as soon as the entry is open.
    pub(crate) prompt_wanted: bool,
    /// A blank that the layer just prompted casts.
    pub(crate) blank: Blank,
    /// Casts wait above the stack, and in how many frames.
    pub(crate) casts_waiting: bool,
    pub(crate) waiting_frames: u64,
    /// Frame numbers that the waiting casts will take, of those of this view if some are of the next.
    pub(crate) waiting_numbers: u64,
    /// The last frame cast is a piece of a message of which more will follow.
    pub(crate) amid_message: bool,
    /// Frames that came ahead of their turn are to go to the layers.
    pub(crate) expand_early: bool,
    /// Own copies wait elsewhere: this is a fork, and its queue was left behind.
    pub(crate) left_behind: bool,
    /// Whether somebody wants to know whose process is gone, and what else the transport may know.
    pub(crate) hint_wanted: bool,
    pub(crate) snapshots: [HeldSnapshot; SNAPSHOTS],
    /// Who else can be found, besides the members of the view.
    pub(crate) neighbours: Rc<Neighbours>,
    /// The highest counter of a view id that was used here, by proposing it or by being in the view.
    pub(crate) counter_used: u64,
    /// What the transport's addresses are.
    pub(crate) addresses: Addresses,
    pub(crate) gossip: GossipState,
    /// When origins were asked for full headers.
    pub(crate) asked: Asked,
    pub(crate) channel: ChannelId,
    pub(crate) control: Region,
    /// Longer frames, if the channel has any ([`Channel::long`](crate::transport::Channel::long)).
    pub(crate) long: Option<Region>,
    pub(crate) identification: Identification,
    /// By rank and traffic.
    pub(crate) cookies: Vec<[u64; 3]>,
    /// What plans still have to do before a layer runs.
    pub(crate) pending_effects: Pending,
    /// Ordinary messages since the last post-processing began.
    pub(crate) work: u32,
    /// Layers have handled events since: what follows from these is done at once, not in pieces.
    pub(crate) by_layers: bool,
    /// Something else than hits has happened since the last whole iteration, or waits for the next: that looks at all there
    /// may be to do.
    pub(crate) stirred: bool,
    /// No limit on this member's casts is below this number. Whatever may change a limit sets it to zero: then the next
    /// cast by plan looks at the limits themselves.
    pub(crate) ceiling: u64,
    /// Whether casts are counted by hits (there is a cast-send plan).
    pub(crate) fast_casts: bool,
    pub(crate) counts: Vec<Count>,
    pub(crate) traced: VecDeque<String>,
    pub(crate) traced_max: usize,
}

/// The name under which the stack itself counts.
const STACK: &str = "stack";

impl Core {
    pub(crate) fn has_fast_casts(&self) -> bool {
        self.fast_casts
    }

    /// Emits to the layer at `target`, downwards, or to the first below it that looks at such an event.
    #[inline]
    pub(crate) fn emit_down(&mut self, target: usize, event: Down) {
        let target = self.ways.down(target, &event);
        self.push(Queued::Down(target, event));
    }

    /// Emits to the top layer, downwards.
    pub(crate) fn emit_top(&mut self, event: Down) {
        self.emit_down(0, event);
    }

    /// Emits to the first layer above `layer` that looks at such an event, or out at the top.
    #[inline]
    pub(crate) fn emit_up(&mut self, layer: usize, event: Up) {
        match self.ways.up(layer, &event) {
            Some(target) => self.push(Queued::Up(target, event)),
            None => self.emerge(event),
        }
    }

    /// Emits to the application.
    pub(crate) fn emit_application(&mut self, event: Up) {
        self.stirred = true;
        self.emerged.push_back(Emerged::Event(event));
    }

    pub(super) fn push(&mut self, event: Queued) {
        assert!(
            self.queue.len() < self.queue_max,
            "the event queue's bound is a sum over what layers can emit"
        );
        self.queue.push_back(event);
    }

    /// An event comes out at the top.
    #[inline]
    pub(super) fn emerge(&mut self, event: Up) {
        // Most are what members report, which does not leave the stack and is not moved.
        match &event {
            Up::Raw(origin, message) => self.raw_emerged(*origin, message),
            _ => self.come_out(event),
        }
    }

    fn raw_emerged(&mut self, origin: Rank, message: &Message) {
        if message.control != STACK_CONTROL {
            return self.no_layer();
        }
        match message.list.payload() {
            body @ [Identify::KIND, ..] => self.identification_asked(origin, body),
            body => self.gossip_received(origin, body),
        }
    }

    fn no_layer(&mut self) {
        self.count_stack("control message for no layer");
    }

    fn come_out(&mut self, event: Up) {
        match event {
            Up::Cast(origin, message) => self.emerged.push_back(Emerged::Cast(origin, message)),
            Up::Send(origin, message) if !message.is_control() => {
                self.emerged.push_back(Emerged::Send(origin, message));
            }
            Up::Raw(..) | Up::Send(..) => self.no_layer(),
            event => self.emit_application(event),
        }
    }

    /// Counts something under a layer's name.
    pub(crate) fn count(&mut self, layer: usize, what: &'static str) {
        self.count_as(self.names[layer], what);
    }

    /// Counts something under the stack's own name.
    pub(crate) fn count_stack(&mut self, what: &'static str) {
        self.count_as(STACK, what);
    }

    #[cold]
    fn count_as(&mut self, layer: &'static str, what: &'static str) {
        self.count_more(Count { layer, what, count: 1 });
    }

    /// Adds to what is counted.
    pub(crate) fn count_more(&mut self, more: Count) {
        match self.counts.iter_mut().find(|count| count.layer == more.layer && count.what == more.what) {
            Some(count) => count.count += more.count,
            None => self.counts.push(more),
        }
    }

    /// Writes a line to the trace; the oldest goes when it is full.
    pub(crate) fn trace(&mut self, layer: usize, line: std::fmt::Arguments<'_>) {
        if self.traced_max == 0 {
            return;
        }
        let mut text = if self.traced.len() >= self.traced_max {
            self.traced.pop_front().unwrap_or_default()
        } else {
            String::new()
        };
        text.clear();
        let _ = write!(text, "{} {} {}", self.now, self.names[layer], line);
        self.traced.push_back(text);
    }

    pub(super) fn home(&self, field: Field) -> FieldHome {
        self.homes[field.traffic as usize][usize::from(field.index)]
    }

    /// Index of the template word of what this member sends next.
    pub(super) fn sending_word(&self, traffic: Traffic, word: u8, peer: Rank) -> u32 {
        match traffic {
            Traffic::Cast => fixed::CAST_SEND_WORDS + u32::from(word),
            _ => self.slots.member(peer) + fixed::SEND_SEND_WORDS + u32::from(word),
        }
    }

    /// Index of the template word of what is expected next from a member.
    pub(super) fn expected_word(&self, traffic: Traffic, word: u8, origin: Rank) -> u32 {
        let first = match traffic {
            Traffic::Cast => fixed::CAST_DELIVER_WORDS,
            _ => fixed::SEND_DELIVER_WORDS,
        };
        self.slots.member(origin) + first + u32::from(word)
    }

    pub(crate) fn sending(&self, field: Field, peer: Rank) -> u64 {
        let home = self.home(field);
        let Some(word) = home.word else { return 0 };
        (self.slots.word(self.sending_word(field.traffic, word, peer)) >> home.shift) & home.mask
    }

    pub(crate) fn expected(&self, field: Field, origin: Rank) -> u64 {
        let home = self.home(field);
        let Some(word) = home.word else { return 0 };
        (self.slots.word(self.expected_word(field.traffic, word, origin)) >> home.shift) & home.mask
    }

    pub(crate) fn set_sending(&mut self, field: Field, peer: Rank, value: u64) {
        let home = self.home(field);
        if let Some(word) = home.word {
            let at = self.sending_word(field.traffic, word, peer);
            put(self.slots.word_mut(at), home, value);
        }
    }

    pub(crate) fn set_expected(&mut self, field: Field, origin: Rank, value: u64) {
        let home = self.home(field);
        if let Some(word) = home.word {
            let at = self.expected_word(field.traffic, word, origin);
            put(self.slots.word_mut(at), home, value);
        }
    }

    #[inline]
    pub(crate) fn next_frame_number(&self) -> u64 {
        let FieldHome { word: Some(word), shift, mask } = self.number_home else { return 0 };
        (self.slots.word(fixed::CAST_SEND_WORDS + u32::from(word)) >> shift) & mask
    }

    pub(crate) fn accepted(&self, origin: Rank) -> u64 {
        let FieldHome { word: Some(word), shift, mask } = self.number_home else { return 0 };
        let at = match origin == self.own {
            true => self.sending_word(Traffic::Cast, word, origin),
            false => self.expected_word(Traffic::Cast, word, origin),
        };
        (self.slots.word(at) >> shift) & mask
    }

    fn tally_words(&self, tally: Tally, rank: Rank) -> (u32, Option<u32>) {
        let TallyDefinition { kind, base, layer, .. } = self.tallies[tally.0 as usize];
        let section = if kind == GuardKind::CastSend { 0 } else { self.slots.member(rank) };
        // Own casts come back above the layer that loops them: the layers below see none.
        let unseen = kind == GuardKind::CastDeliver
            && rank == self.view.rank()
            && self.loop_layer.is_none_or(|loops| layer >= loops);
        let hits = self.counted[tally.0 as usize].filter(|_| !unseen);
        (section + base, hits.map(|hits| section + hits))
    }

    pub(crate) fn tally(&self, tally: Tally, rank: Rank) -> u64 {
        let (base, hits) = self.tally_words(tally, rank);
        self.slots.word(base) + hits.map_or(0, |hits| self.slots.word(hits))
    }

    pub(crate) fn bump(&mut self, tally: Tally, rank: Rank) {
        let (base, _) = self.tally_words(tally, rank);
        *self.slots.word_mut(base) += 1;
    }

    /// Bytes of a full header of `traffic`.
    pub(crate) fn full_bytes(&self, traffic: Traffic) -> usize {
        PREFIX_BYTES + self.layouts[traffic as usize].full_bytes()
    }

    /// Whether the application is behind and holds the senders. Not while a view is expected: what still waits of this one must
    /// get out, or nobody could report.
    pub(crate) fn is_behind(&self) -> bool {
        self.holds_senders && !self.view_expected
    }

    /// Whether what is said again and again is to be said less often, for want of frames.
    pub(crate) fn spares_frames(&mut self) -> bool {
        let spares = self.control.free_frames() <= self.control_plenty;
        self.starved += u64::from(spares);
        spares
    }

    /// A frame for a control message's body.
    pub(crate) fn control_frame(&mut self) -> Result<FrameMut, Exhausted> {
        let header = self.full_bytes(Traffic::Raw).max(self.full_bytes(Traffic::Send));
        self.control.take_reserved(header)
    }

    /// A blank with that note.
    pub(crate) fn blank_frame(&self, note: &[u8]) -> Result<FrameMut, Exhausted> {
        let header =
            self.full_bytes(Traffic::Cast).max(self.layouts[Traffic::Cast as usize].compressed_bytes());
        let mut frame = self.control.take_reserved(header)?;
        let run = run_header(0, note.len() as u16);
        frame
            .extend(&run)
            .and_then(|_| frame.extend(note))
            .expect("a frame has room for a note behind its header");
        Ok(frame)
    }

    /// A frame for a long control message's body.
    pub(crate) fn long_frame(&mut self) -> Result<FrameMut, Exhausted> {
        let header = self.full_bytes(Traffic::Send);
        self.long.as_ref().ok_or(Exhausted)?.take(header)
    }

    /// How many more reliable control messages to `peer` there is room for: those on their way down count.
    pub(crate) fn reliable_room(&self, peer: Rank) -> u64 {
        let (Some((limit, reserve)), Some(number)) = (self.reliable, self.send_number) else { return 0 };
        let entering =
            |queued: &&Queued| matches!(queued, Queued::Down(_, Down::Send(to, _)) if to.contains(peer));
        let entering = self.queue.iter().filter(entering).count() as u64;
        (self.slots.of(limit, peer) + reserve).saturating_sub(self.sending(number, peer) + entering)
    }

    /// The value of a message field of a message from `origin`.
    pub(crate) fn filter(&self, field: Field, origin: Rank, message: &Message) -> u64 {
        let layout = &self.layouts[field.traffic as usize];
        let words = layout.compress(&message.header);
        let cookie = self.cookies[origin.index()][field.traffic as usize];
        let packed = message.list.is_packed();
        layout.filter(
            usize::from(field.index),
            cookie,
            packed,
            message.control,
            layout.exception(&message.header),
            &words,
            message.list.payload(),
        )
    }

    /// The fields of a fast message, from the compressed header before its payload.
    pub(crate) fn header_before(&self, traffic: Traffic, list: &List) -> Option<Header> {
        let layout = &self.layouts[traffic as usize];
        let end = list.from();
        let start = end.checked_sub(layout.compressed_bytes())?;
        let words = layout.words_of(list.frame().slice(start, end))?;
        Some(layout.expand(&words))
    }

    /// How many accepted casts of `origin` wait for their release.
    #[inline]
    pub(crate) fn holding(&self, origin: Rank) -> usize {
        self.order.of(origin)
    }

    /// Fills in the message fields from `first` on, the last one first: they were registered from the bottom up, and a
    /// filter covers those of the layers above.
    pub(crate) fn compute_filters(&self, message: &Message, header: &mut Header, first: usize) {
        self.compute_filters_of(self.own, message, header, first);
    }

    fn compute_filters_of(&self, origin: Rank, message: &Message, header: &mut Header, first: usize) {
        let layout = &self.layouts[message.traffic as usize];
        let cookie = self.cookies[origin.index()][message.traffic as usize];
        for at in layout.message_fields(first) {
            let words = layout.compress(header);
            let (packed, payload) = (message.list.is_packed(), message.list.payload());
            let exception = layout.exception(header);
            header.values[at] =
                layout.filter(at, cookie, packed, message.control, exception, &words, payload);
        }
    }

    /// Hands a message to the transport behind a full header: in place if there is room before the payload, else in a
    /// frame of its own.
    pub(crate) fn transmit(&mut self, to: RankSet, message: &Message) {
        let own = self.own;
        self.transmit_of(own, to, message);
    }

    /// As [`Core::transmit`], for a message that `origin` has sent first.
    pub(crate) fn transmit_of(&mut self, origin: Rank, to: RankSet, message: &Message) {
        let traffic = message.traffic;
        let mut header = Header { gossip: Header::ZERO.gossip, ..message.header };
        self.layouts[traffic as usize].put_constants(&mut header);
        self.compute_filters_of(origin, message, &mut header, 0);
        let layout = &self.layouts[traffic as usize];
        let full = PREFIX_BYTES + layout.full_bytes();
        let mut bytes = [0; PREFIX_BYTES + FIELDS_MAX * 8];
        let prefix = Prefix {
            traffic,
            control: message.control,
            pack: message.list.is_packed(),
            words: (layout.full_bytes() / 8) as u8,
            identification: Identification {
                origin: self.view.member(origin).incarnation,
                ..self.identification
            },
        };
        prefix.encode(&mut bytes);
        layout.write_full(&header, &mut bytes[PREFIX_BYTES..full]);
        let Some(to) = self.destination(to) else { return };
        let (head, body) = match self.behind(&bytes[..full], &message.list) {
            Ok(placed) => placed,
            Err(Exhausted) => {
                // Lost before it was sent: repaired like any loss.
                self.count_stack("no frame for a header");
                return;
            }
        };
        self.submit(Transmit { channel: self.channel, to, head, body });
    }

    fn behind(
        &mut self,
        header: &[u8],
        list: &List,
    ) -> Result<(crate::buf::Frame, Option<Slice>), Exhausted> {
        let whole = list.from() == list.frame().start() && list.to() == list.frame().end();
        if whole && list.frame().prepend(header).is_ok() {
            list.frame().submit();
            return Ok((list.frame().clone(), None));
        }
        let mut head = self.control.take_reserved(0)?;
        head.extend(header).expect("a frame holds at least a header");
        let (from, to) = (list.from(), list.to());
        let body = Slice { frame: list.frame().clone(), from, to };
        Ok((head.freeze(), (from < to).then_some(body)))
    }

    /// The destination that means the ranks in `to`, this member apart; `None` if nobody is left.
    pub(crate) fn destination(&self, mut to: RankSet) -> Option<Destination> {
        to.remove(self.view.rank());
        match to.len() {
            0 => None,
            others if others == self.view.size() - 1 => Some(Destination::All),
            1 => to.iter().next().map(Destination::One),
            _ => Some(Destination::Some(to)),
        }
    }

    /// A frame is to be submitted, after all others.
    #[inline]
    pub(crate) fn submit(&mut self, transmit: Transmit) {
        if !self.outgoing_numbers.is_empty() {
            self.line_up_outgoing();
        }
        self.outbox.push_back(transmit);
    }

    /// As [`Core::submit`], of the frame of an own cast by plan, which is retained, to all others.
    #[inline]
    pub(crate) fn submit_retained(&mut self, number: u64) {
        if self.outgoing_numbers.end != number {
            self.line_up_outgoing();
            self.outgoing_numbers = number..number;
        }
        self.outgoing_numbers.end = number + 1;
    }

    /// A frame that was to be submitted next, and is again.
    pub(crate) fn give_back(&mut self, transmit: Transmit) {
        self.outbox.push_front(transmit);
    }

    /// The next frame to submit. The queue begins anew when it is empty: it is as long as a window can make it, and would
    /// else go round through all of its memory.
    #[inline]
    pub(crate) fn next_transmit(&mut self) -> Option<Transmit> {
        if self.outbox.is_empty() {
            self.outbox.clear();
            let head = self.next_outgoing()?;
            return Some(Transmit { channel: self.channel, to: Destination::All, head, body: None });
        }
        self.outbox.pop_front()
    }

    /// As [`Core::next_transmit`], if it is a whole frame for all others.
    #[inline]
    pub(crate) fn next_cast(&mut self) -> Option<Frame> {
        if self.outbox.is_empty() {
            return self.next_outgoing();
        }
        let next =
            self.outbox.pop_front_if(|next| matches!(next.to, Destination::All) && next.body.is_none());
        next.map(|next| next.head)
    }

    /// The next of the casts by plan.
    #[inline]
    fn next_outgoing(&mut self) -> Option<Frame> {
        let number = self.outgoing_numbers.next()?;
        let list = self.casts[self.own.index()].list_at(number);
        debug_assert!(list.is_some(), "what is retained has a list");
        list.map(|list| list.frame().clone())
    }

    /// Gives every cast by plan that is to be submitted a place in the queue.
    #[cold]
    fn line_up_outgoing(&mut self) {
        while let Some(head) = self.next_outgoing() {
            let channel = self.channel;
            self.outbox.push_back(Transmit { channel, to: Destination::All, head, body: None });
        }
    }

    /// Whether nothing is to be submitted.
    pub(crate) fn all_submitted(&self) -> bool {
        self.outbox.is_empty() && self.outgoing_numbers.is_empty()
    }

    /// Takes out all that is to be submitted.
    pub(crate) fn take_outbox(&mut self) -> VecDeque<Transmit> {
        self.line_up_outgoing();
        std::mem::take(&mut self.outbox)
    }

    /// Forgets all that is to be submitted.
    pub(crate) fn clear_outbox(&mut self) {
        self.outbox.clear();
        self.outgoing_numbers = 0..0;
    }

    /// All that is to be submitted, for the shadow.
    pub(crate) fn all_outgoing(&self) -> impl Iterator<Item = Transmit> {
        let (channel, to) = (self.channel, Destination::All);
        let lists =
            self.outgoing_numbers.clone().filter_map(|number| self.casts[self.own.index()].list(number));
        let casts = lists.map(move |list| Transmit { channel, to, head: list.frame().clone(), body: None });
        self.outbox.iter().cloned().chain(casts)
    }

    /// Gives an own cast by plan, which is retained, back to this member.
    #[inline]
    pub(crate) fn loop_retained(&mut self, layer: usize, number: u64) {
        if self.loopback.is_empty() && self.loop_numbers.end == number {
            self.loop_numbers.end = number + 1;
        } else {
            self.loop_retained_behind(layer, number);
        }
    }

    /// As [`Core::loop_retained`], if it is not the one after those that are on their way.
    #[cold]
    #[inline(never)]
    fn loop_retained_behind(&mut self, layer: usize, number: u64) {
        if self.looping() == 0 {
            self.loop_numbers = number..number + 1;
        } else if let Some(list) = self.casts[self.own.index()].list(number).cloned() {
            self.loop_back(Looped { layer, number, list, slow: false });
        }
    }

    /// Gives any own cast back to this member.
    pub(crate) fn loop_back(&mut self, looped: Looped) {
        self.loopback.push_back(looped);
    }

    /// The next own cast to come back up.
    pub(crate) fn next_looped(&mut self) -> Option<Looped> {
        if self.loop_numbers.is_empty() {
            return self.loopback.pop_front();
        }
        let looped = self.looped(self.loop_numbers.start);
        self.loop_numbers.start += 1;
        looped
    }

    /// The own cast with that number, by plan and retained.
    fn looped(&self, number: u64) -> Option<Looped> {
        let list = self.casts[self.own.index()].list(number)?.clone();
        Some(Looped { layer: self.loop_layer?, number, list, slow: false })
    }

    /// How many own casts wait to come back up.
    #[inline]
    pub(crate) fn looping(&self) -> usize {
        (self.loop_numbers.end - self.loop_numbers.start) as usize + self.loopback.len()
    }

    /// All own casts that wait to come back up, for the shadow.
    pub(crate) fn all_looped(&self) -> impl Iterator<Item = Looped> {
        let retained = self.loop_numbers.clone().filter_map(|number| self.looped(number));
        retained.chain(self.loopback.iter().cloned())
    }

    /// Lets go of the casts of `origin` below `number`; own ones that have not come back up, or not gone out, keep their lists.
    pub(crate) fn trim_casts(&mut self, origin: Rank, number: u64) {
        if origin == self.own && number > self.loop_numbers.start {
            self.unloop_retained();
        }
        if origin == self.own && number > self.outgoing_numbers.start {
            self.line_up_outgoing();
        }
        self.casts[origin.index()].trim(number);
    }

    /// Keeps the next own cast, for which room must be made.
    #[cold]
    pub(crate) fn keep_own(&mut self, number: u64, list: List) {
        if self.casts[self.own.index()].is_full() {
            self.unloop_retained();
            self.line_up_outgoing();
        }
        self.casts[self.own.index()].keep(number, list);
    }

    /// Gives every own cast that waits to come back up a list of its own.
    #[cold]
    pub(crate) fn unloop_retained(&mut self) {
        for number in std::mem::take(&mut self.loop_numbers).rev() {
            if let Some(looped) = self.looped(number) {
                self.loopback.push_front(looped);
            }
        }
    }

    /// A guard's owners whose bits are set.
    pub(crate) fn closers(&self, kind: GuardKind, bits: u64) -> impl Iterator<Item = &GuardOwner> {
        self.guards.iter().filter(move |owner| owner.kind == kind && owner.mask & bits != 0)
    }

    /// By word, whether plan and layers differ in it by design: hits, and the words that tallies are sums of.
    pub(crate) fn uncompared(&self) -> Vec<bool> {
        let mut uncompared = vec![false; self.slots.words()];
        let mut skip = |word: u32| uncompared[word as usize] = true;
        skip(fixed::CAST_SEND_HITS);
        let members = self.view.size();
        for rank in (0..members).map(Rank::at) {
            let section = self.slots.member(rank);
            [fixed::CAST_ACCEPT_HITS, fixed::CAST_DELIVER_HITS, fixed::CAST_LAST_HITS]
                .into_iter()
                .for_each(|at| skip(section + at));
            [fixed::SEND_SEND_HITS, fixed::SEND_DELIVER_HITS].into_iter().for_each(|at| skip(section + at));
        }
        for (at, definition) in self.tallies.iter().enumerate() {
            let ranks = if definition.kind == GuardKind::CastSend { 1 } else { members };
            (0..ranks).for_each(|rank| skip(self.tally_words(Tally(at as u32), Rank::at(rank)).0));
        }
        uncompared
    }

    /// Takes in everything that plan and layers must agree on, layers and slots apart.
    pub(crate) fn digest(&self, hasher: &mut Hasher64) {
        for retention in &self.casts {
            retention.digest(hasher);
        }
        self.digest_apart_from_casts(hasher);
    }

    /// Whether `other` has the same in all slots that plan and layers must agree on.
    pub(crate) fn slots_agree(&self, other: &Core) -> bool {
        let uncompared = self.uncompared();
        let tallies = |core: &Core| {
            let mut hasher = Hasher64::new(0);
            core.digest_tallies(&mut hasher);
            hasher.finish()
        };
        self.slots.agree(&other.slots, |at| uncompared[at]) && tallies(self) == tallies(other)
    }

    /// As [`Core::digest`], wherever the frames lie, and of slots too.
    #[cfg(test)]
    pub(crate) fn digest_contents(&self, hasher: &mut Hasher64) {
        for retention in &self.casts {
            retention.digest_contents(hasher);
        }
        self.digest_tallies(hasher);
        let uncompared = self.uncompared();
        self.slots.hash(hasher, |at| uncompared[at]);
        self.digest_apart_from_casts(hasher);
    }

    fn digest_tallies(&self, hasher: &mut Hasher64) {
        for (at, definition) in self.tallies.iter().enumerate() {
            let ranks = if definition.kind == GuardKind::CastSend { 1 } else { self.view.size() };
            for rank in (0..ranks).map(Rank::at) {
                hasher.word(self.tally(Tally(at as u32), rank));
            }
        }
    }

    fn digest_apart_from_casts(&self, hasher: &mut Hasher64) {
        for retention in &self.sends {
            // Layers write their reliable messages in post-processing, too: plan and fork in frames of their own.
            retention.digest_contents(hasher);
        }
        self.order.digest(hasher);
        for run in &self.runs {
            hasher.word(u64::from(run.origin.0) << 32 | u64::from(run.frames));
        }
        self.timers.digest(hasher);
        self.gossip.digest(hasher);
    }
}

/// A fresh set of counts and queues for a fork.
impl Core {
    /// Lets go of every frame that waits or is retained: the group is over for this process.
    pub(crate) fn let_go(&mut self) {
        self.line_up_outgoing();
        self.loop_numbers = 0..0;
        self.snapshots = Default::default();
        self.loopback.clear();
        self.looped_headers.clear();
        self.order.clear();
        for retention in self.casts.iter_mut().chain(&mut self.sends) {
            retention.trim(u64::MAX);
            retention.let_go(u64::MAX);
        }
    }

    /// A copy with empty queues.
    pub(crate) fn fork(&self) -> Core {
        let mut fork = self.clone();
        fork.left_behind |= self.looping() > 0;
        fork.queue.clear();
        fork.loop_numbers = 0..0;
        fork.loopback.clear();
        fork.looped_headers.clear();
        fork.emerged.clear();
        fork.clear_outbox();
        fork.outside.clear();
        fork.excluded.clear();
        fork.traced.clear();
        fork
    }

    /// Builds the parts that follow from a blueprint.
    pub(crate) fn slots_of(blueprint: &Blueprint, members: usize) -> SlotFile {
        SlotFile::new(blueprint.own_words, blueprint.member_words, members)
    }
}

#[cfg(feature = "laboratory")]
impl Core {
    /// What a word of the slot file is: fixed words, matrices and tallies by name, other slots of layers by place.
    pub(crate) fn slot_name(&self, at: u32) -> String {
        let first = self.slots.member(Rank(0));
        if at < first {
            let tally = self.tallies.iter().find(|t| t.kind == GuardKind::CastSend && t.base == at);
            return match (at, tally) {
                (fixed::CAST_SEND_GUARD, _) => "cast-send guard".to_string(),
                (fixed::CAST_SEND_HITS, _) => "cast-send hits".to_string(),
                (fixed::CAST_SEND_WORDS..fixed::OWN_FREE, _) => {
                    format!("cast-send word {}", at - fixed::CAST_SEND_WORDS)
                }
                (_, Some(tally)) => format!("{} {}", self.names[tally.layer], tally.name),
                _ => format!("slot {}", at - fixed::OWN_FREE),
            };
        }
        let stride = if self.view.size() > 1 { self.slots.member(Rank(1)) - first } else { u32::MAX };
        let (rank, at) = ((at - first) / stride, (at - first) % stride);
        let members = self.view.size() as u32;
        let matrix = |slot: &MatrixSlot| (slot.0..slot.0 + members).contains(&at).then(|| at - slot.0);
        let gossip = self.gossip.definitions.iter().find_map(|g| Some((&g.name, matrix(&g.matrix)?)));
        let tally = self.tallies.iter().find(|t| t.kind != GuardKind::CastSend && t.base == at);
        let what = match at {
            fixed::CAST_DELIVER_GUARD => "cast-deliver guard".to_string(),
            fixed::CAST_ACCEPT_HITS => "cast-accept hits".to_string(),
            fixed::CAST_DELIVER_HITS => "cast-deliver hits".to_string(),
            fixed::NEWEST_REPORT => "newest report".to_string(),
            fixed::SEND_SEND_GUARD => "send-send guard".to_string(),
            fixed::SEND_SEND_HITS => "send-send hits".to_string(),
            fixed::SEND_DELIVER_GUARD => "send-deliver guard".to_string(),
            fixed::SEND_DELIVER_HITS => "send-deliver hits".to_string(),
            fixed::CAST_DELIVER_WORDS..fixed::CAST_DELIVER_HITS => {
                format!("cast-deliver word {}", at - fixed::CAST_DELIVER_WORDS)
            }
            fixed::SEND_SEND_WORDS..fixed::SEND_DELIVER_GUARD => {
                format!("send-send word {}", at - fixed::SEND_SEND_WORDS)
            }
            fixed::SEND_DELIVER_WORDS..fixed::MEMBER_FREE => {
                format!("send-deliver word {}", at - fixed::SEND_DELIVER_WORDS)
            }
            fixed::MEMBER_FREE.. => match (gossip, tally) {
                (Some((name, subject)), _) => format!("{name} about {subject}"),
                (_, Some(tally)) => format!("{} {}", self.names[tally.layer], tally.name),
                _ => format!("member slot {}", at - fixed::MEMBER_FREE),
            },
            _ => "cast-deliver last hits".to_string(),
        };
        format!("of {rank}: {what}")
    }
}

fn put(word: &mut u64, home: FieldHome, value: u64) {
    let mask = home.mask << home.shift;
    *word = (*word & !mask) | ((value & home.mask) << home.shift);
}
