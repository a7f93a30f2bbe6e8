//! What an application sees of a group: casting, sending, deliveries and events.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Duration;

use crate::buf::Exhausted;
use crate::id::{Rank, RankSet};
pub use crate::stack::build::HeldFor;
use crate::stack::event::{ExitReason, List, MessageId, Problem, Slow};
pub use crate::stack::event::{Grounds, GroundsKind, Suspicion};
use crate::stack::run::Stack;
use crate::stats::Stats;
use crate::view::LocalView;
use crate::wire::pack::Messages;

/// The upcall form of the interface: what happens to a group is told at once, and may be answered at once.
///
/// Upcalls come from `Endpoint::receive` and `Endpoint::poll`, never from `cast` or `send`.
pub trait Application {
    /// A list of messages cast by a member (by this one too, if the stack delivers own casts). By default each is handed to
    /// [`Application::message`], until the group is over.
    #[inline]
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        for message in delivery.messages() {
            self.message(delivery.origin(), message, group);
            if group.exited().is_some() {
                return;
            }
        }
    }

    /// A message cast by a member. Whoever wants those of a frame together, their ids, or to keep them where they lie, has
    /// [`Application::cast`] instead; who has neither of the two does not want to know.
    fn message(&mut self, origin: Rank, message: &[u8], group: &mut Group<'_>) {
        let _ = (origin, message, group);
    }

    /// A message sent to this member.
    fn send(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        let _ = (delivery, group);
    }

    /// Anything else.
    fn event(&mut self, event: &Event, group: &mut Group<'_>) {
        let _ = (event, group);
    }

    /// Whether the application is still behind with its deliveries: asked in every iteration after
    /// [`Group::hold_senders`], until it is not.
    fn is_behind(&mut self) -> bool {
        false
    }

    /// The application's state as it is now, for members that have just come in (with the layer XFER). It is asked for at
    /// the cut of a new view: everything of the last view has been delivered, nothing of the new one. What it returns is
    /// read bit by bit while the group goes on, and must not change with it. `None`: there is no state to be had, and
    /// those who come in need none. The application is told of the new view afterwards: [`Group::view`] is the last one.
    /// A large state is best not made here but as it is read: the whole process waits for what is made here.
    fn snapshot(&mut self, group: &mut Group<'_>) -> Option<Box<dyn Snapshot>> {
        let _ = group;
        None
    }

    /// A part of the group's state, at a member that has just come in; parts come in order, before the view is told, and
    /// replace what the application had. A part at zero begins anew: the donor has failed and another one takes over.
    ///
    /// # Errors
    /// In words: the process then leaves the group, and the others are not disturbed.
    fn install_state(&mut self, part: &StatePart<'_>, group: &mut Group<'_>) -> Result<(), String> {
        let _ = (part, group);
        Err("the group has a state and this application does not take one in (`install_state`)".into())
    }

    /// Whether a part of so many bytes can be taken in without waiting: for a state that another thread digests, or writes
    /// to a disk. If not, it is asked again 100 us later, and the group goes on meanwhile. What has come by then is kept:
    /// the donor sends no more than `flight_kib` of XFER beyond what was taken in. An `install_state` that waits makes the
    /// whole process wait, which the others take for a failure after some milliseconds.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use std::sync::{Arc, mpsc};
    ///
    /// use wadjet::{Application, Delivery, Group, StatePart};
    ///
    /// /// What a thread of its own writes to the disk; it counts down `unwritten`.
    /// struct Store {
    ///     disk: mpsc::Sender<Vec<u8>>,
    ///     unwritten: Arc<AtomicUsize>,
    /// }
    ///
    /// impl Application for Store {
    ///     fn cast(&mut self, _: &Delivery<'_>, _: &mut Group<'_>) {}
    ///
    ///     fn is_ready_for_state(&mut self, bytes: usize) -> bool {
    ///         self.unwritten.load(Ordering::Acquire) + bytes <= 64 << 20
    ///     }
    ///
    ///     fn install_state(&mut self, part: &StatePart<'_>, _: &mut Group<'_>) -> Result<(), String> {
    ///         self.unwritten.fetch_add(part.bytes.len(), Ordering::AcqRel);
    ///         self.disk.send(part.bytes.to_vec()).map_err(|gone| gone.to_string())
    ///     }
    /// }
    /// ```
    fn is_ready_for_state(&mut self, bytes: usize) -> bool {
        let _ = bytes;
        true
    }
}

/// A state that does not change any more, to be read in order.
pub trait Snapshot {
    /// Fills `into` from the front with what comes next, and returns how many bytes that is; zero is the end.
    ///
    /// # Errors
    /// In words, if what comes next cannot be read. What was given of the state is void then, this process is told so by
    /// [`Event::Problem`] and goes on, and the next member that has the state gives it.
    fn read(&mut self, into: &mut [u8]) -> Result<usize, String>;

    /// Whether so many bytes, or what is left of it, can be read without waiting: for a state that another thread makes,
    /// or reads from a disk. If not, it is asked again 100 us later, and the group goes on meanwhile; a `read` that waits
    /// makes the whole process wait, which the others take for a failure after some milliseconds.
    fn is_ready(&mut self, bytes: usize) -> bool {
        let _ = bytes;
        true
    }
}

impl Snapshot for std::io::Cursor<Vec<u8>> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, String> {
        std::io::Read::read(self, into).map_err(|error| error.to_string())
    }
}

/// A part of the group's state as another member had it when the view began.
#[derive(Clone, Copy, Debug)]
pub struct StatePart<'p> {
    /// The bytes; the last part may have none.
    pub bytes: &'p [u8],
    /// How many bytes have come before these. At zero the state begins, perhaps once more.
    pub at: u64,
    /// Whether the state is complete with it.
    pub last: bool,
}

/// A delivered list. It lies where it was received; keep it with [`Delivery::keep`], copy it, or let it go.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'d> {
    /// As in [`MessageId`].
    view: u64,
    origin: Rank,
    number: u64,
    list: &'d List,
}

impl<'d> Delivery<'d> {
    pub(crate) fn new(view: u64, origin: Rank, number: u64, list: &'d List) -> Delivery<'d> {
        Delivery { view, origin, number, list }
    }

    /// Who cast or sent it.
    #[inline]
    pub fn origin(&self) -> Rank {
        self.origin
    }

    /// The messages in order; at least one.
    #[inline]
    pub fn messages(&self) -> Messages<'d> {
        self.list.messages()
    }

    /// How many messages there are.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a delivery is never empty")]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The id of its last message: to acknowledge it when it is seen, as long as the view lasts. That of a send names it
    /// only; to acknowledge it does nothing.
    #[inline]
    pub fn id(&self) -> MessageId {
        let index = self.list.len() as u32 - 1;
        MessageId { view: self.view, origin: self.origin, number: self.number, index, last: true }
    }

    /// The ids of all its messages, in order.
    pub fn ids(&self) -> impl Iterator<Item = MessageId> + use<> {
        let (MessageId { index: last, .. }, id) = (self.id(), self.id());
        (0..=last).map(move |index| MessageId { index, last: index == last, ..id })
    }

    /// The list, to keep: the frame stays in place until it is dropped, and takes room in its region so long.
    pub fn keep(&self) -> List {
        self.list.clone()
    }
}

/// What else happens to a group.
#[derive(Clone, Debug)]
pub enum Event {
    /// A view is installed.
    View(Rc<LocalView>),
    /// What is held or seen by members has grown: see [`Group::stability`].
    Stable,
    /// A cast or send that was refused for want of room would be taken now.
    Writable,
    /// A view change has begun. Casts wait from now on and go out in the next view; if the stack says `block`, it waits
    /// for [`Group::block_ok`]. Once in a view at most: of the end of a view that the application has not been told of,
    /// because it waits for the group's state, it is told behind that view, if at all, and it is not waited for.
    Block,
    /// A member is taken for failed, and why: it will not be in the next view. Once for each such member of a view.
    Suspect(Suspicion),
    /// This process did not run for so long (`pause_ms` of SUSPECT), says its own clock. Nobody is blamed for having been
    /// silent meanwhile; the others may have taken this member for failed, and are asked.
    Paused(Duration),
    /// A member has held the senders up for long (`slow_ms` of FC), has caught up again, or is expelled for it
    /// (`expel_ms`).
    Slow(Slow),
    /// The members of this view that go on together to the next: what was delivered in it is promised to be the same at
    /// these, and at nobody else. It precedes the view that follows, and belongs to the one before.
    Transitional(RankSet),
    /// A member has asked to leave.
    Left(Rank),
    /// All members that had the group's state are gone (layer XFER) or cannot read it, and this process, which came in, has
    /// not got all of it: what its application has is what it had before, or a part of the group's state if
    /// [`Application::install_state`] was called. It leaves; or the first of those that came in with a whole state that they had
    /// shared, or with `XFER(lost=go_on)` the first of those who wait, goes on with that and gives it to the others, who
    /// are told this event, too, before the first part. What was cast in the views between that in which this process came in
    /// and that in which the state was found to be lost, its own casts too, is in no state then.
    StateLost {
        /// Whether it goes on, with what it has or with what it is given; else it leaves, and [`Event::Exit`] follows.
        goes_on: bool,
    },
    /// A message is known to be lost.
    LostMessage {
        /// Whose, or on its way to whom.
        origin: Rank,
        /// What is known of it.
        reason: &'static str,
    },
    /// Something is wrong but survived.
    Problem(Problem),
    /// The group is over for this process; nothing more is sent or delivered.
    Exit(ExitReason),
}

/// A cast was taken. Tickets of a group count up from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A cast was not taken; nothing was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CastError {
    /// It is longer than the stack carries.
    #[error(
        "the message has {length} bytes; this stack carries {max} (FRAG carries up to message_bytes_max)"
    )]
    TooLong {
        /// Its length.
        length: usize,
        /// The most.
        max: usize,
    },
    /// A reservation does not fit a frame, in which it is made. The stack does carry messages of that length: give it to
    /// [`Group::cast`] or [`Group::cast_buffer`].
    #[error("{length} bytes are reserved in one frame, which has room for {max}; cast the message instead")]
    BeyondFrame {
        /// Its length.
        length: usize,
        /// The most that can be reserved.
        max: usize,
    },
    /// Casts are held, and enough of them wait already. Wait for [`Event::Writable`].
    #[error("casts wait and the queue is full, because {why}{}; wait until the group is writable", of(*slowest))]
    Full {
        /// Why they are held.
        why: HeldFor,
        /// If it is for want of acknowledgements: who has acknowledged least.
        slowest: Option<Rank>,
    },
    /// No frame is free. Wait for [`Event::Writable`].
    #[error(transparent)]
    NoFrame(Exhausted),
    /// Too few numbers of this view are left. Where views are agreed on a new one is asked for, which has numbers again:
    /// wait for [`Event::Writable`]. In a fixed view that is final.
    #[error("too few frame numbers of this view are left; a new view must be installed")]
    NumberLimit,
    /// The group is over for this process.
    #[error("the group is over for this process: {0}")]
    Exited(ExitReason),
}

/// Names the slowest member.
fn of(slowest: Option<Rank>) -> String {
    slowest.map_or_else(String::new, |slowest| format!(" (slowest member: {slowest})"))
}

/// A send was not taken; nothing was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It is longer than the stack carries.
    #[error(
        "the message has {length} bytes; this stack carries {max} (FRAG carries up to message_bytes_max)"
    )]
    TooLong {
        /// Its length.
        length: usize,
        /// The most.
        max: usize,
    },
    /// Sends to a member are held; they do not wait in a queue. Wait for [`Event::Writable`].
    #[error("member {to} cannot be sent anything now, because {why}; wait until the group is writable")]
    Full {
        /// To whom.
        to: Rank,
        /// Why they are held.
        why: HeldFor,
    },
    /// No frame is free. Wait for [`Event::Writable`].
    #[error(transparent)]
    NoFrame(Exhausted),
    /// Too few numbers of this view are left. Where views are agreed on a new one is asked for, which has numbers again:
    /// wait for [`Event::Writable`]. In a fixed view that is final.
    #[error("too few numbers of sends to member {0} in this view are left; a new view must be installed")]
    NumberLimit(Rank),
    /// No layer of the stack makes sends reliable.
    #[error("no layer of this stack carries sends; put UNICAST into it")]
    NoLayer,
    /// No such member, or none any more ([`Group::endpoint_view`]).
    #[error("there is no member {0} in this view")]
    NotAMember(Rank),
    /// The group is over for this process.
    #[error("the group is over for this process: {0}")]
    Exited(ExitReason),
}

/// What each member has of each member's casts, in frames: `rows[reporter][origin]`, as last reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stability {
    /// Held by the endpoint.
    pub held: Vec<Vec<u64>>,
    /// Seen (acknowledged) by the application.
    pub seen: Vec<Vec<u64>>,
}

impl Stability {
    /// Frames of `origin` that at least `members` members have seen.
    pub fn seen_by(&self, members: usize, origin: Rank) -> u64 {
        Stability::by(&self.seen, members, origin)
    }

    /// Frames of `origin` that at least `members` members hold.
    pub fn held_by(&self, members: usize, origin: Rank) -> u64 {
        Stability::by(&self.held, members, origin)
    }

    fn by(rows: &[Vec<u64>], members: usize, origin: Rank) -> u64 {
        let mut column: Vec<u64> = rows.iter().map(|row| row[origin.index()]).collect();
        column.sort_unstable_by(|a, b| b.cmp(a));
        members.checked_sub(1).and_then(|at| column.get(at)).copied().unwrap_or(0)
    }
}

/// A group, to act on: from outside through `Endpoint::group`, in an upcall as its second argument.
pub struct Group<'g> {
    stack: &'g mut Stack,
}

impl<'g> Group<'g> {
    pub(crate) fn new(stack: &'g mut Stack) -> Group<'g> {
        Group { stack }
    }

    /// Casts `message` to the view. It is copied once; [`Group::reserve`] saves that. One that does not fit a frame
    /// (only in a stack with FRAG) is copied once more, into its frames; [`Group::cast_buffer`] saves the first copy.
    ///
    /// # Errors
    /// [`CastError`]; nothing was taken then.
    #[inline]
    pub fn cast(&mut self, message: &[u8]) -> Result<Ticket, CastError> {
        self.stack.cast(message)
    }

    /// Casts `message` to the view. If it does not fit a frame it is kept as it is until its last fragment has left, and
    /// not copied but into its frames; else this is [`Group::cast`].
    ///
    /// # Errors
    /// [`CastError`]; nothing was taken then.
    pub fn cast_buffer(&mut self, message: Vec<u8>) -> Result<Ticket, CastError> {
        self.stack.cast_buffer(message)
    }

    /// Room for a message of `length` bytes, to be written in place and committed. It lies in one frame
    /// ([`Group::reserve_bytes_max`]): larger messages cannot be reserved.
    ///
    /// # Errors
    /// [`CastError`]; nothing was taken then. [`CastError::BeyondFrame`] if the message could only be cast.
    #[inline]
    pub fn reserve(&mut self, length: usize) -> Result<Reservation<'_>, CastError> {
        self.stack.reserve(length)?;
        Ok(Reservation { stack: self.stack })
    }

    /// To cast what is delivered as soon as it is in order, in a stack that delivers casts when all members hold them (layer
    /// SAFE). Beneath SAFE both are in one order: an agreed cast behind a safe one waits for it. Without SAFE there is no
    /// choice, and this is the group itself.
    ///
    /// ```
    /// use wadjet::group::{CastError, Group};
    ///
    /// /// Whoever has seen an order executed must be able to rely on it; of a price the next one is news enough.
    /// fn tell(group: &mut Group<'_>, execution: &[u8], price: &[u8]) -> Result<(), CastError> {
    ///     group.cast(execution)?;
    ///     group.agreed().cast(price)?;
    ///     Ok(())
    /// }
    /// ```
    pub fn agreed(&mut self) -> Agreed<'_> {
        Agreed { stack: self.stack }
    }

    /// Sends `message` to the members in `to`, reliably and in order of sending.
    ///
    /// # Errors
    /// [`SendError`]; nothing was taken then.
    pub fn send(&mut self, to: &RankSet, message: &[u8]) -> Result<(), SendError> {
        self.stack.send_as_told(to, message)
    }

    /// The application has seen this message and all before it of the same origin (displayed it, say, or written it to
    /// disk). What others are told are whole frames: a frame is seen when its last message is, so the id of a message before
    /// the last counts for the frames before its own ([`Delivery::id`] is that of the last one, [`Delivery::ids`] are all).
    ///
    /// What a view has of seen and unseen is final when the next one is installed: an id of an earlier view comes too late,
    /// and is counted ([`Stats::counts`]) and ignored. So is that of a send.
    pub fn ack(&mut self, id: MessageId) {
        self.stack.ack_message(id);
    }

    /// Leaves the group. In a fixed view that is at once: casts that still wait for flow control are given up, nothing is
    /// sent or delivered any more, and [`Event::Exit`] follows at the next poll. Where views are agreed on, the others are
    /// told and go on to a view without this member; until then it takes part, and [`Event::Exit`] follows that.
    pub fn leave(&mut self) {
        self.stack.leave();
    }

    /// The application is behind with what has been delivered to it, and wants the casts of all held: nobody is granted
    /// more (by FC; without it this does nothing), so that at most a window of each member comes after this. It lasts until
    /// [`Application::is_behind`] says that it is over. Everything else goes on, sends and view changes too.
    pub fn hold_senders(&mut self) {
        self.stack.hold_senders(true);
    }

    /// Asks the loop that drives this endpoint to end: [`Driver::run`](crate::runtime::Driver::run) returns after this
    /// iteration. To the others nothing is said: who wants to leave leaves, and `run` returns when the last group is over.
    pub fn stop(&mut self) {
        self.stack.ask_to_stop();
    }

    /// The application has stopped casting, as [`Event::Block`] asked it to; casts from now on go out in the next view.
    pub fn block_ok(&mut self) {
        self.stack.block_ok();
    }

    /// These members have failed, says the application: they are treated like members that are silent for too long. The
    /// other members, who hear them, believe it after the longest time-out (`SUSPECT(most_ms=..)`).
    pub fn suspect(&mut self, ranks: &RankSet) {
        self.stack.suspect_as_told(ranks);
    }

    /// The ticket of the first cast that was issued in the view that the endpoint is in ([`Group::endpoint_view`]): those
    /// before it went out in earlier ones.
    pub fn first_ticket(&self) -> Ticket {
        self.stack.first_ticket()
    }

    /// Whether a cast would be taken now. After a refusal, [`Event::Writable`] says when to try again.
    pub fn writable(&self) -> bool {
        self.stack.writable()
    }

    /// The longest message that can be cast, in bytes: what fits a frame or, in a stack with FRAG, what that carries.
    pub fn message_bytes_max(&self) -> usize {
        self.stack.message_bytes_max()
    }

    /// The longest message that can be reserved, in bytes: what fits a frame.
    pub fn reserve_bytes_max(&self) -> usize {
        self.stack.payload_max()
    }

    /// The longest message that can be sent, in bytes: without FRAG, headers of sends and casts differ.
    pub fn send_bytes_max(&self) -> usize {
        self.stack.send_bytes_max()
    }

    /// Whether views are agreed on, so that one follows another.
    pub(crate) fn is_live(&self) -> bool {
        self.stack.is_live()
    }

    /// The view that the application was told of last ([`Event::View`]): ranks are those of its members. Before the first it
    /// is [`Group::endpoint_view`].
    pub fn view(&self) -> &LocalView {
        self.stack.told_view()
    }

    /// The view that this process is in. It is ahead of [`Group::view`] at a member that comes in and takes over the group's
    /// state (layer XFER), until the application has been told of what happened meanwhile. What it casts goes out in this
    /// view; what it sends goes to those of the members it names that are in this view, too.
    pub fn endpoint_view(&self) -> &LocalView {
        &self.stack.core().view
    }

    /// The member that has acknowledged least of this member's casts. Nobody while this process is ahead of what the
    /// application was told ([`Group::endpoint_view`]).
    pub fn slowest(&self) -> Option<Rank> {
        self.stack.slowest()
    }

    /// Who holds and has seen what in this view: nothing is known while this process is ahead of what the application was
    /// told ([`Group::endpoint_view`]).
    pub fn stability(&self) -> Stability {
        self.stack.stability()
    }

    /// Why the group is over for this process, if it is.
    pub fn exited(&self) -> Option<ExitReason> {
        self.stack.exited()
    }

    /// What the stack did so far.
    pub fn stats(&self) -> Stats {
        self.stack.stats()
    }

    /// Lines for a person (HCPI's dump): the state of each layer and the time-outs in force in it, then the delays of the
    /// configuration. All lengths of time are in milliseconds.
    pub fn dump(&mut self) -> Vec<String> {
        self.stack.dump()
    }

    /// Takes the lines that tracing layers wrote.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.stack.take_trace()
    }
}

/// A group of which what is cast is agreed and not safe ([`Group::agreed`]): it is delivered as soon as it is in order, and
/// no member waits for the news that others hold it. Messages of both kinds do not share a pack.
#[must_use = "what is cast by it is agreed; by itself it does nothing"]
pub struct Agreed<'a> {
    stack: &'a mut Stack,
}

impl<'a> Agreed<'a> {
    /// As [`Group::cast`].
    ///
    /// # Errors
    /// [`CastError`]; nothing was taken then.
    #[inline]
    pub fn cast(&mut self, message: &[u8]) -> Result<Ticket, CastError> {
        self.stack.cast_agreed(|stack| stack.cast(message))
    }

    /// As [`Group::cast_buffer`].
    ///
    /// # Errors
    /// [`CastError`]; nothing was taken then.
    pub fn cast_buffer(&mut self, message: Vec<u8>) -> Result<Ticket, CastError> {
        self.stack.cast_agreed(|stack| stack.cast_buffer(message))
    }

    /// As [`Group::reserve`].
    ///
    /// # Errors
    /// [`CastError`]; nothing was taken then.
    #[inline]
    pub fn reserve(self, length: usize) -> Result<Reservation<'a, true>, CastError> {
        self.stack.cast_agreed(|stack| stack.reserve(length))?;
        Ok(Reservation { stack: self.stack })
    }
}

/// Room for one message in a frame. Write it, then [`Reservation::commit`]; dropped, it is as if it had never been.
pub struct Reservation<'r, const AGREED: bool = false> {
    stack: &'r mut Stack,
}

impl<const AGREED: bool> Reservation<'_, AGREED> {
    /// Casts what was written.
    #[inline]
    pub fn commit(self) -> Ticket {
        let mut this = std::mem::ManuallyDrop::new(self);
        if AGREED { this.stack.cast_agreed(Stack::commit) } else { this.stack.commit() }
    }
}

impl<const AGREED: bool> Deref for Reservation<'_, AGREED> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.stack.reserved_bytes()
    }
}

impl<const AGREED: bool> DerefMut for Reservation<'_, AGREED> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.stack.reserved()
    }
}

impl<const AGREED: bool> Drop for Reservation<'_, AGREED> {
    fn drop(&mut self) {
        self.stack.abandon();
    }
}

/// The polled form of the interface: an [`Application`] that keeps what happens until it is asked. When more is kept than
/// it was made for, it holds the senders ([`Group::hold_senders`]): beyond that come the casts of at most a window of each
/// member, and what no credit is asked for: sends, up to what their senders have to send, and events. Of [`Event::Stable`],
/// which says only that something has changed, at most one is kept.
#[derive(Debug)]
pub struct Polled {
    happened: VecDeque<Happened>,
    /// What may be kept before the senders are held.
    limit: usize,
    /// An [`Event::Stable`] waits to be taken: another would say no more.
    stable_waits: bool,
}

/// What [`Polled`] kept. Lists stay in their frames: take them out soon.
#[derive(Clone, Debug)]
pub enum Happened {
    /// A list cast by a member.
    Cast {
        /// Who.
        origin: Rank,
        /// The id of its last message.
        id: MessageId,
        /// The messages.
        list: List,
    },
    /// A message sent to this member.
    Send {
        /// By whom.
        origin: Rank,
        /// The message.
        list: List,
    },
    /// Anything else.
    Event(Event),
}

impl Polled {
    /// With room for `events` before it allocates, and holds the senders. What lies in frames takes them from reception;
    /// up to `Config::early_frames_max` there are enough of them.
    pub fn with_capacity(events: usize) -> Polled {
        Polled { happened: VecDeque::with_capacity(events), limit: events, stable_waits: false }
    }

    /// The oldest thing that happened and was not taken yet.
    pub fn take(&mut self) -> Option<Happened> {
        let happened = self.happened.pop_front();
        self.stable_waits &= !matches!(happened, Some(Happened::Event(Event::Stable)));
        happened
    }
}

impl Default for Polled {
    /// With room for what an iteration of the driver brings, by default.
    fn default() -> Polled {
        Polled::with_capacity(64)
    }
}

impl Application for Polled {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        let happened = Happened::Cast { origin: delivery.origin(), id: delivery.id(), list: delivery.keep() };
        self.happened.push_back(happened);
        if self.is_behind() {
            group.hold_senders();
        }
    }

    fn is_behind(&mut self) -> bool {
        self.happened.len() > self.limit
    }

    fn send(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        self.happened.push_back(Happened::Send { origin: delivery.origin(), list: delivery.keep() });
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        let stable = matches!(event, Event::Stable);
        if !(stable && self.stable_waits) {
            self.stable_waits |= stable;
            self.happened.push_back(Happened::Event(event.clone()));
        }
    }
}
