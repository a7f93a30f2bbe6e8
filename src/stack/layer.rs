//! The layer interface: the only place where a protocol's semantics are written (design D1).

use std::any::Any;
use std::borrow::Cow;
use std::time::Duration;

use super::build::{Build, Closes, Field, Guard, GuardKind, GuardOwner, TimerId};
use super::core::{Core, HeldSnapshot, Looped};
use super::event::{Down, ExitReason, Message, Problem, Up};
use super::notices::Notices;
use super::order::{Ordered, Rest};
use super::retention::Retained;
use super::service::Services;
use super::slots::{MatrixSlot, MemberSlot, Slot, Tally};
use crate::accel::case::CommonCase;
use crate::buf::{Exhausted, FrameMut, Region};
use crate::id::{Hasher64, MEMBERS_MAX, Rank, RankSet, ViewId};
use crate::stack::event::List;
use crate::time::Time;
use crate::transport::Outside;
use crate::view::{Address, LocalView, Neighbours};
use crate::wire::Traffic;
use crate::wire::full::NO_CONTROL;

/// After how long a blank that found no frame is tried again ([`Context::cast_blank`]).
pub const BLANK_RETRY: Duration = Duration::from_micros(100);

/// The five kinds of plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// This member casts.
    CastSend,
    /// This member sends to one peer.
    SendSend,
    /// Another member's cast arrives.
    CastDeliver,
    /// This member's own cast comes back up from the layer that looped it.
    SelfDeliver,
    /// Another member's send arrives.
    SendDeliver,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] =
        [Kind::CastSend, Kind::SendSend, Kind::CastDeliver, Kind::SelfDeliver, Kind::SendDeliver];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::CastSend => "cast-send",
            Kind::SendSend => "send-send",
            Kind::CastDeliver => "cast-deliver",
            Kind::SelfDeliver => "self-deliver",
            Kind::SendDeliver => "send-deliver",
        }
    }

    /// The traffic it is about.
    pub const fn traffic(self) -> Traffic {
        match self {
            Kind::SendSend | Kind::SendDeliver => Traffic::Send,
            _ => Traffic::Cast,
        }
    }

    /// The guard it runs behind.
    pub const fn guard(self) -> GuardKind {
        match self {
            Kind::CastSend => GuardKind::CastSend,
            Kind::SendSend => GuardKind::SendSend,
            Kind::CastDeliver | Kind::SelfDeliver => GuardKind::CastDeliver,
            Kind::SendDeliver => GuardKind::SendDeliver,
        }
    }

    /// Whether it is about messages that come up.
    pub const fn delivers(self) -> bool {
        matches!(self, Kind::CastDeliver | Kind::SelfDeliver | Kind::SendDeliver)
    }
}

/// What a layer says of its common case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fast {
    /// It was declared; possibly there is nothing to do.
    Declared,
    /// Ordinary messages pass unchanged and unnoticed.
    Transparent,
    /// There is none: this kind of traffic has no plan. The text says why.
    Opaque(&'static str),
}

/// A reliable control message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// This member has too much unacknowledged, or there is no layer that makes sends reliable.
    #[error("member {0} has not acknowledged enough; try again when it has")]
    Unacknowledged(Rank),
    /// Nearly all frames for control messages are retained or under way; the rest is for what lets them go.
    #[error("frames for control messages are short; try again when some have come back")]
    NoFrame,
}

/// What becomes of an event that a layer has looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It goes on as it is.
    Passes,
    /// It ends here.
    Ends,
    /// The layer is to have it: [`Layer::up`] or [`Layer::down`] follows.
    Takes,
}

/// What a layer does in post-processing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posts {
    /// Nothing.
    Nothing,
    /// [`Layer::post`].
    Once,
    /// [`Layer::post_member`] for each member in order of rank, then [`Layer::post`].
    EachMember,
}

/// A microprotocol.
///
/// A layer keeps every variable that ordinary messages read or write in slots, everything else in itself. Ordinary
/// messages change slots and nothing else; timers are armed and events are made of their consequences in
/// [`Layer::post`], which runs some time after them. That is what makes plan and layer comparable.
pub trait Layer {
    /// Its name in a stack.
    fn name(&self) -> &'static str;

    /// Registers what it needs for a view. Layers are installed from the bottom up.
    fn install(&mut self, build: &mut Build<'_>);

    /// Sets first values and timers, when all layers are installed. From the bottom up.
    fn start(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// Which messages it looks at: others are not brought to it. Those that it is not to change or count pass it by.
    fn notices(&self) -> Notices {
        Notices::ALL
    }

    /// Looks at an event on its way down, which is not moved for that: for layers that let messages by unchanged. What it
    /// says [`Look::Takes`] of, it must have left alone.
    fn look_down(&mut self, context: &mut Context<'_>, event: &Down) -> Look {
        let _ = (context, event);
        Look::Takes
    }

    /// As [`Layer::look_down`], of an event on its way up.
    fn look_up(&mut self, context: &mut Context<'_>, event: &Up) -> Look {
        let _ = (context, event);
        Look::Takes
    }

    /// An event on its way down.
    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        if self.look_down(context, &event) != Look::Ends {
            context.down(event);
        }
    }

    /// An event on its way up.
    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        if self.look_up(context, &event) != Look::Ends {
            context.up(event);
        }
    }

    /// A control message of the same layer at `origin`.
    fn control(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        let _ = (origin, message);
        context.count("unexpected control message");
    }

    /// One of its timers is due.
    fn timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        let _ = (context, timer);
    }

    /// What post-processing it does.
    fn posts(&self) -> Posts {
        Posts::Once
    }

    /// The part of post-processing that concerns one member ([`Posts::EachMember`]). Ordinary messages may pass between
    /// any two of these calls, and when a layer has handled an event all begin anew.
    fn post_member(&mut self, context: &mut Context<'_>, member: Rank) {
        let _ = (context, member);
    }

    /// Post-processing: the consequences of messages that have passed since the last call.
    fn post(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// What somebody waits for, of a layer that asked for it ([`Build::prompt`]): done near the end of an iteration, when the
    /// application has got what there was, and before it gets what this releases; the layers above have had their turn.
    /// Here, and only here, a layer may cast on its own account ([`Context::cast_blank`]). Returns of which members' casts
    /// others wait to hear that they are held here; they are told at once, unless own casts have told them by then.
    ///
    /// [`Build::prompt`]: super::build::Build::prompt
    fn prompt(&mut self, context: &mut Context<'_>) -> RankSet {
        let _ = context;
        RankSet::EMPTY
    }

    /// Declares the common case of one kind of traffic.
    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast;

    /// A copy, for the shadow and the explorer.
    fn fork(&self) -> Box<dyn Layer>;

    /// What it leaves to its successor of the same name in the next view's stack.
    fn bequeath(&mut self) -> Option<Box<dyn Any>> {
        None
    }

    /// Takes what its predecessor in the last view left; called before [`Layer::start`].
    fn inherit(&mut self, legacy: Box<dyn Any>) {
        let _ = legacy;
    }

    /// Takes in all state outside slots.
    fn digest(&self, digest: &mut Hasher64) {
        let _ = digest;
    }

    /// The time-outs in force: those that are parameters by their names without the unit, then what follows from them. They
    /// are printed with what [`Layer::dump`] says.
    fn time_outs(&self) -> Vec<(&'static str, Duration)> {
        Vec::new()
    }

    /// A line about its state, for a person.
    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let _ = context;
        None
    }
}

/// What a layer can do while it handles an event.
pub struct Context<'c> {
    pub(crate) core: &'c mut Core,
    pub(crate) layer: usize,
}

impl Context<'_> {
    /// The view.
    #[inline]
    pub fn view(&self) -> &LocalView {
        &self.core.view
    }

    /// This member's rank.
    #[inline]
    pub fn rank(&self) -> Rank {
        self.core.view.rank()
    }

    /// The time of this iteration.
    #[inline]
    pub fn now(&self) -> Time {
        self.core.now
    }

    /// Emits an event to the layer below.
    #[inline]
    pub fn down(&mut self, event: Down) {
        self.core.emit_down(self.layer + 1, event);
    }

    /// Emits an event to the layer above. A message that no layer above looks at is out at once, before other events that
    /// were emitted earlier and that layers above are still to have.
    #[inline]
    pub fn up(&mut self, event: Up) {
        self.core.emit_up(self.layer, event);
    }

    /// Emits an event that goes up to this layer once more, behind all that has been emitted by now.
    pub fn up_again(&mut self, event: Up) {
        self.core.emit_up(self.layer + 1, event);
    }

    /// Tells the application of something wrong.
    pub fn problem(&mut self, origin: Option<Rank>, what: impl Into<Cow<'static, str>>) {
        let layer = self.core.names[self.layer];
        self.up(Up::Problem(Problem { layer, origin, what: what.into() }));
    }

    /// Ends the group for this process.
    pub fn exit(&mut self, reason: ExitReason) {
        self.up(Up::Exit(reason));
    }

    /// Counts something under this layer's name.
    pub fn count(&mut self, what: &'static str) {
        self.core.count(self.layer, what);
    }

    /// Sets a timer; one that was set before is replaced.
    pub fn arm(&mut self, timer: TimerId, at: Time) {
        self.core.timers.set(timer, at);
    }

    /// Sets a timer that is not set.
    pub fn arm_if_idle(&mut self, timer: TimerId, at: Time) {
        if self.core.timers.deadline(timer) == Time::NEVER {
            self.core.timers.set(timer, at);
        }
    }

    /// Sets a timer that is not set, or set for later.
    pub fn arm_sooner(&mut self, timer: TimerId, at: Time) {
        if at < self.core.timers.deadline(timer) {
            self.core.timers.set(timer, at);
        }
    }

    /// Sets a timer, or unsets it if `at` is never.
    pub fn arm_or_disarm(&mut self, timer: TimerId, at: Time) {
        if self.core.timers.deadline(timer) != at {
            self.core.timers.set(timer, at);
        }
    }

    /// Unsets a timer.
    pub fn disarm(&mut self, timer: TimerId) {
        if self.core.timers.deadline(timer) != Time::NEVER {
            self.core.timers.set(timer, Time::NEVER);
        }
    }

    /// A word of the stack.
    #[inline]
    pub fn get(&self, slot: Slot) -> u64 {
        self.core.slots.get(slot)
    }

    /// Changes a word of the stack.
    #[inline]
    pub fn set(&mut self, slot: Slot, value: u64) {
        self.core.slots.set(slot, value);
        self.core.ceiling = 0;
    }

    /// A member's word.
    #[inline]
    pub fn of(&self, slot: MemberSlot, rank: Rank) -> u64 {
        self.core.slots.of(slot, rank)
    }

    /// Changes a member's word.
    #[inline]
    pub fn set_of(&mut self, slot: MemberSlot, rank: Rank, value: u64) {
        self.core.slots.set_of(slot, rank, value);
    }

    /// Counts one more in a member's word.
    #[inline]
    pub fn count_of(&mut self, slot: MemberSlot, rank: Rank) {
        self.set_of(slot, rank, self.of(slot, rank) + 1);
    }

    /// What `reporter` says of `subject`.
    #[inline]
    pub fn pair(&self, matrix: MatrixSlot, reporter: Rank, subject: Rank) -> u64 {
        self.core.slots.pair(matrix, reporter, subject)
    }

    /// Raises what `reporter` says of `subject`.
    pub fn raise_pair(&mut self, matrix: MatrixSlot, reporter: Rank, subject: Rank, value: u64) {
        self.core.slots.raise_pair(matrix, reporter, subject, value);
    }

    /// The least that members other than `subject` itself say of it, those that have failed apart; `None` if there are no
    /// others.
    pub fn least_of_others(&self, matrix: MatrixSlot, subject: Rank) -> Option<u64> {
        let mut out = self.core.failed;
        out.insert(subject);
        self.core.slots.least_pair(matrix, subject, out)
    }

    /// Whom that is: the first member other than `subject` that says least of it, and what it says.
    pub fn least_other(&self, matrix: MatrixSlot, subject: Rank) -> Option<(Rank, u64)> {
        (0..self.view().size())
            .map(Rank::at)
            .filter(|reporter| *reporter != subject && !self.core.failed.contains(*reporter))
            .map(|reporter| (reporter, self.pair(matrix, reporter, subject)))
            .min_by_key(|(_, says)| *says)
    }

    /// The least that all members other than `subject` itself say of it, those that have failed, too.
    pub fn least_of_all_others(&self, matrix: MatrixSlot, subject: Rank) -> Option<u64> {
        self.core.slots.least_pair(matrix, subject, RankSet::one(subject))
    }

    /// Whether any member has failed as far as this view is concerned ([`Context::exclude`]).
    pub fn has_any_failed(&self) -> bool {
        !self.core.failed.is_empty()
    }

    /// Whether a member has.
    pub fn has_failed(&self, rank: Rank) -> bool {
        self.core.failed.contains(rank)
    }

    /// A count.
    pub fn tally(&self, tally: Tally, rank: Rank) -> u64 {
        self.core.tally(tally, rank)
    }

    /// Adds one to a count, on the slow path.
    pub fn bump(&mut self, tally: Tally, rank: Rank) {
        self.core.bump(tally, rank);
    }

    /// What this member sends next in a protocol field (for sends: to `peer`).
    #[inline]
    pub fn sending(&self, field: Field, peer: Rank) -> u64 {
        self.core.sending(field, peer)
    }

    /// What is expected next from `origin` in a protocol field.
    #[inline]
    pub fn expected(&self, field: Field, origin: Rank) -> u64 {
        self.core.expected(field, origin)
    }

    /// Adds one to what this member sends next.
    pub fn advance_sending(&mut self, field: Field, peer: Rank) {
        let next = self.core.sending(field, peer) + 1;
        self.core.set_sending(field, peer, next);
    }

    /// Adds one to what is expected next from `origin`.
    pub fn advance_expected(&mut self, field: Field, origin: Rank) {
        let next = self.core.expected(field, origin) + 1;
        self.core.set_expected(field, origin, next);
    }

    /// The frame number that this member's next cast gets (design D7). Zero without a numbering layer.
    #[inline]
    pub fn next_frame_number(&self) -> u64 {
        self.core.next_frame_number()
    }

    /// The frame number at which this view ends.
    pub fn frame_number_limit(&self) -> u64 {
        self.core.number_limit
    }

    /// The number of sends to one member at which this view ends.
    pub fn send_number_limit(&self) -> u64 {
        self.core.send_number_limit
    }

    /// Whether a cast of `origin` with a lower number is held: then this one must be too.
    pub fn holds_before(&self, origin: Rank, number: u64) -> bool {
        self.core.order.holds_before(origin, number)
    }

    /// The longest message of the application that this stack carries in fragments, in bytes; zero if no layer does.
    pub fn fragmented_bytes_max(&self) -> u64 {
        self.core.fragmented_bytes_max
    }

    /// The number of frames accepted from `origin`; for this member, of frames cast.
    pub fn accepted(&self, origin: Rank) -> u64 {
        self.core.accepted(origin)
    }

    /// Closes a guard (of `rank`, if it is one per member).
    #[inline]
    pub fn close(&mut self, guard: Guard, rank: Rank) {
        let at = guard.kind.word(&self.core.slots, rank);
        *self.core.slots.word_mut(at) |= guard.mask;
    }

    /// Opens a guard.
    #[inline]
    pub fn open(&mut self, guard: Guard, rank: Rank) {
        let at = guard.kind.word(&self.core.slots, rank);
        *self.core.slots.word_mut(at) &= !guard.mask;
    }

    /// Whether a guard is closed by this bit.
    pub fn is_closed(&self, guard: Guard, rank: Rank) -> bool {
        self.core.slots.word(guard.kind.word(&self.core.slots, rank)) & guard.mask != 0
    }

    /// Keeps a cast of `origin` for retransmission and forwarding.
    pub fn retain_cast(&mut self, origin: Rank, message: &Message) {
        if self.core.casts[origin.index()].is_full() {
            self.core.unloop_retained();
        }
        if origin != self.core.own {
            self.core.pinned_most = self.core.pinned_most.max(message.list.frame().pinned_bytes() as u64);
        }
        self.core.casts[origin.index()].keep_slow(message);
    }

    /// Keeps a send to `peer` for retransmission.
    pub fn retain_send(&mut self, peer: Rank, message: &Message) {
        self.core.sends[peer.index()].keep_slow(message);
    }

    /// Lets go of the casts of `origin` below `number`.
    pub fn trim_casts(&mut self, origin: Rank, number: u64) {
        self.core.trim_casts(origin, number);
    }

    /// Lets go of the sends to `peer` below `number`.
    pub fn trim_sends(&mut self, peer: Rank, number: u64) {
        self.core.sends[peer.index()].trim(number);
    }

    /// Numbers of the casts of `origin` that are kept.
    pub fn retained_casts(&self, origin: Rank) -> std::ops::Range<u64> {
        self.core.casts[origin.index()].numbers()
    }

    /// A kept cast as a message to send again, or `None` if it is not kept (any more).
    pub fn recall_cast(&self, origin: Rank, number: u64) -> Option<Message> {
        let retained = self.core.casts[origin.index()].get(number)?;
        self.recall(Traffic::Cast, number, retained)
    }

    /// A kept send as a message to send again, or `None` if it is not kept (any more).
    pub fn recall_send(&self, peer: Rank, number: u64) -> Option<Message> {
        let retained = self.core.sends[peer.index()].get(number)?;
        self.recall(Traffic::Send, number, retained)
    }

    fn recall(&self, traffic: Traffic, number: u64, retained: Retained) -> Option<Message> {
        let (header, control) = match retained.slow {
            Some(slow) => slow,
            None => (self.core.header_before(traffic, &retained.list)?, NO_CONTROL),
        };
        Some(Message { control, number, header, ..Message::data(traffic, retained.list) })
    }

    /// Gives a cast of this member back to itself, above this layer, at the next poll: the copy comes up with the
    /// frame number that the cast is about to get.
    pub fn loop_back(&mut self, message: &Message) {
        let number = self.core.next_frame_number();
        let mut header = message.header;
        // The layers above will want to verify their message fields; those beneath never see the copy.
        let above = |layer: &usize| *layer < self.layer;
        let layers = &self.core.field_layers[message.traffic as usize];
        let first = layers.iter().position(above).unwrap_or(layers.len());
        self.core.compute_filters(message, &mut header, first);
        let list = message.list.clone();
        self.core.loopback.push_back(Looped { layer: self.layer, number, list, slow: true });
        self.core.looped_headers.push_back((header, message.part));
    }

    /// Holds a cast of `origin` until its word in `slot` exceeds the cast's frame number; then it comes to this layer once
    /// more, in order with what plans have accepted.
    pub fn hold(&mut self, origin: Rank, slot: MemberSlot, message: Message) {
        let held = self.core.order.slow(origin, self.layer + 1, Some(slot), message);
        self.core.order.insert(held);
    }

    /// Holds a cast that layers beneath have put in order until it may go ([`Services`]) and all that were held so before it
    /// have gone; then it goes on up from this layer.
    pub fn hold_in_order(&mut self, services: &Services, origin: Rank, message: Message) {
        let agreed = message.field(services.agreed) != 0;
        let held = self.core.order.slow(origin, self.layer, None, message);
        self.core.order.push_ordered(Ordered { agreed, ..held });
    }

    /// Whether a cast that is in order is held.
    pub fn holds_in_order(&self) -> bool {
        !self.core.order.is_clear()
    }

    /// A flush has begun: what can still come waited at its origins, and what is held of it has no bound any more.
    pub fn lift_order_bound(&mut self) {
        self.core.order.lift_bound();
    }

    /// Nothing more will come: when all that is released has gone, what else is held of the members in `of` until their word
    /// in `slot` passes it follows, by rank or as it came.
    pub fn release_rest(&mut self, slot: MemberSlot, of: RankSet, by_rank: bool) {
        self.core.order.release_rest(Rest { slot, of, by_rank });
    }

    /// A frame for a control message's body.
    ///
    /// # Errors
    /// If the region for control messages is empty.
    pub fn control_frame(&mut self) -> Result<FrameMut, Exhausted> {
        self.core.control_frame()
    }

    /// Sends a control message of this layer, best effort, to the same layer at `to`.
    pub fn send_raw(&mut self, to: RankSet, body: FrameMut) {
        let message = self.control_message(Traffic::Raw, body);
        self.down(Down::Raw(to, message));
    }

    /// Sends a control message of this layer, reliably and in order with the sends, to the same layer at `to`. It
    /// needs a layer beneath that makes sends reliable. This member itself, if it is in `to`, is always ready.
    ///
    /// # Errors
    /// [`NotNow`]; nothing was sent then, to anybody. [`Layer::post`] is the place to try again: it runs when
    /// acknowledgements have come.
    pub fn send_reliable(&mut self, to: RankSet, body: FrameMut) -> Result<(), NotNow> {
        let own = self.rank();
        if let Some(slowest) = to.iter().find(|peer| *peer != own && self.core.reliable_room(*peer) == 0) {
            self.count("reliable message refused: unacknowledged");
            return Err(NotNow::Unacknowledged(slowest));
        }
        if self.core.control.free_frames() < self.core.control_floor {
            self.count("reliable message refused: no frame");
            self.core.starved += 1;
            return Err(NotNow::NoFrame);
        }
        let message = self.control_message(Traffic::Send, body);
        self.down(Down::Send(to, message));
        // Whoever repeats it sets its timer when it looks again, also if nothing comes until then.
        self.core.work += 1;
        Ok(())
    }

    /// How many more control messages `peer` can be sent reliably before [`Context::send_reliable`] refuses for want of
    /// its acknowledgements. Zero without a layer that makes sends reliable.
    pub fn reliable_room(&self, peer: Rank) -> u64 {
        self.core.reliable_room(peer)
    }

    /// A frame for the body of a reliable control message of much that is to be said, to members that can take so much at
    /// once ([`Context::long_frame_bytes`]). Its headroom is for the header.
    ///
    /// # Errors
    /// If the region for them is empty, or there is none.
    pub fn long_frame(&mut self) -> Result<FrameMut, Exhausted> {
        self.core.long_frame()
    }

    /// The longest frame that this member can send to single members and take from them, in bytes, if that is longer than
    /// other frames. Others may not be able to take it.
    pub fn long_frame_bytes(&self) -> Option<usize> {
        self.core.long.as_ref().map(Region::frame_bytes)
    }

    /// How many such frames there are, and how many of them are free.
    pub fn long_frames(&self) -> (usize, usize) {
        self.core.long.as_ref().map_or((0, 0), |long| (long.usage().frames, long.free_frames()))
    }

    /// The longest frame that this process can send and receive, in bytes: what its transport carries, and its configuration
    /// allows. Where members agree on views, those of a view are no longer than the least of these.
    pub fn frame_bytes_max(&self) -> u32 {
        self.core.frame_bytes_max
    }

    /// How many members a view may have as far as this process is concerned: what its configuration allows, and its transport
    /// has room for.
    pub fn members_max(&self) -> usize {
        self.core.members_max.min(self.core.room.members_max)
    }

    /// Why no more, in words.
    pub fn members_max_reason(&self) -> &str {
        match self.core.room.members_max < self.core.members_max {
            true => &self.core.room.why,
            false if self.core.members_max < MEMBERS_MAX => "region_bytes_max",
            false => "",
        }
    }

    /// Bytes that a frame must have for this stack.
    pub fn frame_bytes_least(&self) -> u32 {
        self.core.frame_bytes_least
    }

    /// Whether a layer is to say less often what it says again and again: frames for control messages are few, as others have
    /// not read the last ones yet.
    pub fn spares_frames(&mut self) -> bool {
        self.core.spares_frames()
    }

    /// Frames for control messages that are free.
    pub fn control_frames_free(&self) -> usize {
        self.core.control.free_frames()
    }

    /// Reads on in a snapshot of the application ([`Up::Snapshot`]) until `into` is full; returns how many bytes came, fewer
    /// at its end.
    ///
    /// # Errors
    /// What the application says if it cannot read on.
    pub(crate) fn read_snapshot(&mut self, slot: usize, into: &mut [u8]) -> Result<usize, String> {
        let Some(snapshot) = &mut self.core.snapshots[slot].0 else { return Ok(0) };
        let mut filled = 0;
        while filled < into.len() {
            match snapshot.read(&mut into[filled..])? {
                0 => break,
                // More than there was room for is the application's mistake, and must not become this stack's.
                count => filled = into.len().min(filled.saturating_add(count)),
            }
        }
        Ok(filled)
    }

    /// Whether so many bytes of a snapshot, or its end, can be read now.
    pub(crate) fn snapshot_is_ready(&mut self, slot: usize, bytes: usize) -> bool {
        self.core.snapshots[slot].0.as_mut().is_none_or(|snapshot| snapshot.is_ready(bytes))
    }

    /// A snapshot, to be let go of or to be kept for the next view.
    pub(crate) fn take_snapshot(&mut self, slot: usize) -> HeldSnapshot {
        std::mem::take(&mut self.core.snapshots[slot])
    }

    /// A snapshot that was taken in a view before.
    pub(crate) fn put_snapshot(&mut self, slot: usize, snapshot: HeldSnapshot) {
        self.core.snapshots[slot] = snapshot;
    }

    /// Asks for a new view, with the same members if nothing else is due.
    pub(crate) fn ask_for_view(&mut self) {
        self.core.view_wanted = true;
        self.core.work += 1;
    }

    fn control_message(&self, traffic: Traffic, body: FrameMut) -> Message {
        let frame = body.freeze();
        let (from, to) = (frame.start(), frame.end());
        let list = List::single(frame, from, to);
        Message { control: self.layer as u8, ..Message::data(traffic, list) }
    }

    /// Hands a message to the transport. For the lowest layer.
    pub fn transmit(&mut self, to: RankSet, message: &Message) {
        self.core.transmit(to, message);
    }

    /// Hands a cast of `origin`, which cannot send it again itself, to the transport. For the lowest layer.
    pub fn transmit_of(&mut self, origin: Rank, to: RankSet, message: &Message) {
        self.core.transmit_of(origin, to, message);
    }

    /// Sends a message of this layer, best effort, to a process outside the view: the layer of the same name in its
    /// stack gets it as [`Up::Outside`].
    pub fn send_outside(&mut self, to: Outside, body: Vec<u8>) {
        self.core.outside.push((to, body));
    }

    /// Who can be found outside the view.
    pub fn neighbours(&self) -> &Neighbours {
        &self.core.neighbours
    }

    /// This process has proposed or decided a view of that id: it is used, whatever becomes of it.
    pub fn use_id(&mut self, id: ViewId) {
        self.core.counter_used = self.core.counter_used.max(id.counter);
    }

    /// Why a process at this address cannot be in one view with this one, if it cannot.
    pub fn unreachable(&self, address: &Address) -> Option<String> {
        let own = &self.view().member(self.rank()).address;
        self.core.addresses.check(own, address).err().map(|error| error.to_string())
    }

    /// `rank` has failed as far as this view is concerned: nothing waits for it, neither windows nor the channel, and what
    /// is kept of its casts is brought to safety.
    pub fn exclude(&mut self, rank: Rank) {
        self.core.failed.insert(rank);
        self.core.work += 1;
        self.core.excluded.push(rank);
    }

    /// Frames that came ahead of their turn go to the layers before the next post-processing.
    pub fn expand_early(&mut self) {
        self.core.expand_early = true;
        self.core.work += 1;
    }

    /// Asks the transport whose process is gone, who waits for a processor, and who takes no part in this view with this member
    /// any more: [`Up::Gone`], [`Up::Starved`] and [`Up::Parted`] tell, if it knows of any.
    pub fn want_hint(&mut self) {
        self.core.hint_wanted = true;
    }

    /// Whether own casts are still on their way up.
    pub fn own_copies_pending(&self) -> bool {
        self.core.looping() > 0 || self.core.left_behind
    }

    /// Another view is about to follow: frames that may be of it are held for it.
    pub fn expect_view(&mut self) {
        self.core.view_expected = true;
    }

    /// Whether the application is behind with its deliveries, and wants the senders held. Not while a view is expected: what
    /// still waits of this one must get out, or nobody could report.
    pub fn holds_senders(&self) -> bool {
        self.core.is_behind()
    }

    /// When this process had taken in all that had come, last: what it has not heard since may be here already.
    pub fn level_at(&self) -> Time {
        self.core.level_at
    }

    /// Whether a new view is wanted: a message of the application was refused because too few numbers are left for it, or a
    /// layer has asked for one (`Context::ask_for_view`).
    pub fn view_wanted(&self) -> bool {
        self.core.view_wanted
    }

    /// Whether a cast of a layer's own may go down now, whosever turn it is and however far behind the application: no
    /// window is full, no flush has stopped casting, the last cast was not a piece of a message, and the casts that wait do
    /// not take all numbers that are left.
    pub fn may_cast(&self) -> bool {
        let entry = |owner: &&GuardOwner| match owner.closes {
            Closes::Entry(why) => owner.kind == GuardKind::CastSend && why.holds_blanks(),
            Closes::FastPath => false,
        };
        let entry = self.core.guards.iter().filter(entry).fold(0, |mask, owner| mask | owner.mask);
        let closed = self.core.slots.word(GuardKind::CastSend.offset()) & entry;
        closed == 0 && !self.core.amid_message && self.numbers_left() > 0 && !self.casts_take_all_numbers()
    }

    /// Whether the casts that wait take all frame numbers of this view that are left: each was taken while there was one for it,
    /// and waits for that. Those of an earlier view may be more: then some go on to the next view in any case.
    pub fn casts_take_all_numbers(&self) -> bool {
        let left = self.numbers_left();
        left > 0 && self.core.waiting_numbers == left
    }

    fn numbers_left(&self) -> u64 {
        self.core.number_limit.saturating_sub(self.next_frame_number())
    }

    /// Asks for [`Layer::prompt`] as soon as casts may enter, whosever turn it is.
    pub fn prompt_soon(&mut self) {
        self.core.prompt_wanted = true;
    }

    /// Casts a *blank*: nothing for the application, and a note for this layer at all members, in a frame for control
    /// messages. It enters where casts do, by the plan or by the layers, before anything else does, and takes a frame number
    /// as any cast. Above the stack it counts as seen, and nobody is told of it. Only in [`Layer::prompt`], once, and if
    /// [`Context::may_cast`].
    ///
    /// # Errors
    /// If there is no frame to spare: such a cast is retained until all others hold it, and leaves frames for what gets
    /// it there. The next may be tried after [`BLANK_RETRY`].
    ///
    /// # Panics
    /// If the note is longer than the 60 bytes for which there is always room, or there is a blank already.
    pub fn cast_blank(&mut self, note: &[u8]) -> Result<(), Exhausted> {
        if self.core.control.free_frames() <= self.core.blank_floor {
            self.core.starved += 1;
            return Err(Exhausted);
        }
        let frame = self.core.blank_frame(note)?;
        assert!(self.core.blank.0.replace(frame).is_none(), "one blank each time a layer is prompted");
        Ok(())
    }

    /// How many casts of `origin` wait here for nothing any more: what is accepted beyond that waits for its order, which others
    /// say, or for what else its service asks for. While the view ends all may come, and this is what is accepted.
    pub fn passed(&self, origin: Rank) -> u64 {
        self.core.order.first_of(origin).unwrap_or_else(|| self.accepted(origin))
    }

    /// Whether casts wait above the stack, as of the last prompt or the beginning of this iteration's post-processing.
    pub fn casts_waiting(&self) -> bool {
        self.core.casts_waiting
    }

    /// The number that this member's next send to `peer` gets. Zero without a layer that numbers sends.
    pub fn next_send_number(&self, peer: Rank) -> u64 {
        self.core.send_number.map_or(0, |field| self.core.sending(field, peer))
    }

    /// The value a message field should have.
    pub fn filter(&self, field: Field, origin: Rank, message: &Message) -> u64 {
        self.core.filter(field, origin, message)
    }

    /// How many rows of gossip another member has reported so far that say what it holds of this one's casts, and the like: that
    /// is as new as the last of them.
    pub fn reports_of(&self, reporter: Rank) -> u64 {
        self.core.gossip.rows_of(reporter)
    }

    /// Reports own gossip to all soon; asks them to report back if `ask`.
    pub fn gossip_now(&mut self, ask: bool) {
        self.core.gossip.request(ask);
    }

    /// Asks for another post-processing soon: what this one changed matters to layers that have had their turn.
    pub fn post_again(&mut self) {
        self.core.work += 1;
    }

    /// Writes a line to the stack's trace.
    pub fn trace(&mut self, line: std::fmt::Arguments<'_>) {
        self.core.trace(self.layer, line);
    }
}
