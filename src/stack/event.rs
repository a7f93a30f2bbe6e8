//! What travels between layers: message lists, and the Horus Common Protocol Interface (HCPI) as two enums.
//!
//! Layers emit events, they never call each other; the stack takes them one at a time from one bounded queue. What a
//! layer does not care about it passes on unchanged.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::buf::Frame;
use crate::id::{GroupId, Incarnation, Rank, RankSet, ViewId};
use crate::stack::build::Field;
use crate::time::{Millis, Time};
use crate::view::{LocalView, View};
use crate::wire::Traffic;
use crate::wire::control::ControlError;
use crate::wire::full::NO_CONTROL;
use crate::wire::layout::Header;
use crate::wire::pack::{self, Messages, PackError};

/// The payload of one frame: a list of messages (a single message is a list of one).
#[derive(Clone, Debug)]
pub struct List {
    frame: Frame,
    from: u32,
    to: u32,
    count: Count,
}

/// How many messages a payload has and whether it is a pack, in one word: lists are copied for every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(u32);

const PACKED: u32 = 1 << 31;

impl Count {
    /// One message that is the whole payload.
    pub(crate) const ONE: Count = Count(1);

    /// A pack of so many messages.
    #[inline]
    pub(crate) fn pack(messages: usize) -> Count {
        Count(messages as u32 | PACKED)
    }

    /// The messages in a pack (in a blank none), or in a payload that is no pack.
    #[inline]
    pub(crate) fn of(messages: u32, packed: bool) -> Count {
        Count(messages | if packed { PACKED } else { 0 })
    }

    #[inline]
    pub(crate) fn messages(self) -> u32 {
        self.0 & !PACKED
    }

    #[inline]
    pub(crate) fn is_pack(self) -> bool {
        self.0 & PACKED != 0
    }
}

impl List {
    /// The one message at `from..to` of `frame`.
    #[inline]
    pub fn single(frame: Frame, from: usize, to: usize) -> List {
        List::counted(frame, from, to, Count::ONE)
    }

    /// The pack of `messages` messages at `from..to` of `frame`, which this process packed.
    #[inline]
    pub(crate) fn packed(frame: Frame, from: usize, to: usize, messages: u32) -> List {
        List::counted(frame, from, to, Count::pack(messages as usize))
    }

    /// The messages at `from..to` of `frame`, counted already.
    #[inline]
    pub(crate) fn counted(frame: Frame, from: usize, to: usize, count: Count) -> List {
        List { frame, from: from as u32, to: to as u32, count }
    }

    /// The messages that somebody sent at `from..to` of `frame`.
    ///
    /// # Errors
    /// If it is said to be a pack and is none.
    #[inline]
    pub fn parse(frame: Frame, from: usize, to: usize, packed: bool) -> Result<List, PackError> {
        let count = if packed { Count::pack(pack::check(frame.slice(from, to))?) } else { Count::ONE };
        Ok(List::counted(frame, from, to, count))
    }

    /// The frame it lies in.
    #[inline]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Offset of the payload from the frame's base.
    #[inline]
    pub fn from(&self) -> usize {
        self.from as usize
    }

    /// Offset after the payload from the frame's base.
    #[inline]
    pub fn to(&self) -> usize {
        self.to as usize
    }

    /// The payload as it is on the wire.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.frame.slice(self.from as usize, self.to as usize)
    }

    /// Whether the payload is a pack.
    #[inline]
    pub fn is_packed(&self) -> bool {
        self.count.is_pack()
    }

    #[inline]
    pub(crate) fn count(&self) -> Count {
        self.count
    }

    /// How many messages there are; none in a blank.
    #[inline]
    pub fn len(&self) -> usize {
        self.count.messages() as usize
    }

    /// Whether it is a blank: a layer's own cast, of which the application gets nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count.messages() == 0
    }

    /// What a blank says to layers; nothing if this is none.
    pub fn note(&self) -> &[u8] {
        if self.is_empty() { pack::note(self.payload()).unwrap_or_default() } else { &[] }
    }

    /// The messages in order.
    #[inline]
    pub fn messages(&self) -> Messages<'_> {
        if self.is_packed() { Messages::pack(self.payload()) } else { Messages::single(self.payload()) }
    }
}

/// Which part of a message of the application a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Whole messages: one, or a pack; none in a blank.
    #[default]
    Whole,
    /// A piece of a message that is larger than a frame.
    Fragment {
        /// Whether the message begins here.
        first: bool,
        /// Bytes of the message from here on, this fragment's included: in the last one, its length.
        left: u64,
    },
    /// A piece of a message that was refused: nothing of it is delivered.
    Void,
}

/// A message on its way through the layers.
#[derive(Clone, Debug)]
pub struct Message {
    /// The kind of traffic.
    pub traffic: Traffic,
    /// The layer it is for, or [`NO_CONTROL`] for the application's data.
    pub control: u8,
    /// The frame number, once it has one.
    pub number: u64,
    /// The fields.
    pub header: Header,
    /// What the payload is of a message of the application. Known above the layer that fragments, and where the stack
    /// begins.
    pub part: Part,
    /// The payload.
    pub list: List,
}

impl Message {
    /// A message of the application.
    pub fn data(traffic: Traffic, list: List) -> Message {
        Message { traffic, control: NO_CONTROL, number: 0, header: Header::ZERO, part: Part::Whole, list }
    }

    /// The value of a field.
    #[inline]
    pub fn field(&self, field: Field) -> u64 {
        debug_assert_eq!(field.traffic, self.traffic, "a field of another kind of traffic");
        self.header.values[usize::from(field.index)]
    }

    /// Sets a field, on the way down.
    #[inline]
    pub fn set_field(&mut self, field: Field, value: u64) {
        debug_assert_eq!(field.traffic, self.traffic, "a field of another kind of traffic");
        self.header.values[usize::from(field.index)] = value;
    }

    /// Whether it is a control message.
    pub fn is_control(&self) -> bool {
        self.control != NO_CONTROL
    }
}

/// What the application has seen: message `index` of frame `number` of `origin`, and everything before. A frame is seen
/// when the last of its messages is (design D7). Ranks and numbers are of one view, and so is an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Which of this member's views of the group it was cast in, counted from 1; 0 for a message that was sent, which
    /// nobody is told has been seen.
    pub view: u64,
    /// Who cast it.
    pub origin: Rank,
    /// Its frame.
    pub number: u64,
    /// Its place in the frame.
    pub index: u32,
    /// Whether it is the frame's last.
    pub last: bool,
}

/// Events that go down.
#[derive(Clone, Debug)]
pub enum Down {
    /// Multicast to the view.
    Cast(Message),
    /// Reliable FIFO to some members.
    Send(RankSet, Message),
    /// Best effort to some members.
    Raw(RankSet, Message),
    /// A numbered message once more, to some members.
    Resend(RankSet, Message),
    /// A cast of another member, which cannot send it again itself, to some members.
    Forward(RankSet, Rank, Message),
    /// Frames of `origin` are seen: all numbers below `seen`, provided that those below `from` are.
    Ack {
        /// Whose frames.
        origin: Rank,
        /// The first frame this is about: 0 if the application says so, the frame's number for a frame without a message
        /// of the application.
        from: u64,
        /// Frames seen.
        seen: u64,
    },
    /// Members have failed, says the application or a layer above.
    Suspect(RankSet, Grounds),
    /// These members have failed as far as this view is concerned: nothing more of them is accepted until [`Down::Cut`]
    /// says how much the survivors hold.
    Flush(RankSet),
    /// What everybody delivers before the next view.
    Cut(Rc<Cut>),
    /// The application has stopped casting.
    FlushOk,
    /// Leave the group.
    Leave,
    /// This view is over: the next one is decided.
    Over,
    /// The application's snapshot is taken, as [`Up::Snapshot`] asked.
    Snapshot {
        /// Where it is.
        slot: usize,
        /// Whether there is a state at all.
        taken: bool,
    },
    /// The application has taken a part of the state in ([`Up::State`]): whose, how much it has now, and whether that is
    /// all.
    StateTaken {
        /// As in the part.
        donor: Rank,
        /// Bytes.
        through: u64,
        /// As in the part.
        last: bool,
    },
    /// The application is not ready for a part of the state yet: it is to be offered again later, and then what came
    /// behind it.
    StateBack(StateBytes),
    /// The application could not take in the state it was given, and says why.
    StateRefused(String),
}

/// How much of each member's casts belongs to a view, and who can forward what its origin cannot send any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// By origin: frames of this view.
    pub frames: Vec<u64>,
    /// By origin: a live member that holds them; the origin itself if it lives.
    pub holders: Vec<Rank>,
}

/// The view that follows this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextView {
    /// The view; it may lack this member, which then is out.
    pub view: View,
    /// Members of this view that go on together to the next: to them the promises of virtual synchrony apply.
    pub together: RankSet,
    /// Members of this view that took part in its end, those that leave included: all of their casts belong to it.
    pub survivors: RankSet,
    /// Whether this side was let in by the other: where both have a state, the other's counts.
    pub guest: bool,
}

/// A part of the group's state, on its way to the application.
#[derive(Clone, Debug)]
pub struct StateBytes {
    /// Who gives it.
    pub donor: Rank,
    /// How much has come before it, in bytes; zero begins anew.
    pub at: u64,
    /// Whether it is the last.
    pub last: bool,
    /// The bytes.
    pub list: List,
}

/// A message from outside the view, from another view of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Who wrote it.
    pub origin: Incarnation,
    /// Of which group.
    pub group: GroupId,
    /// In which wire version.
    pub wire_version: u8,
    /// The view it is in.
    pub view: ViewId,
    /// What it says.
    pub body: Vec<u8>,
}

/// Events that go up.
#[derive(Clone, Debug)]
pub enum Up {
    /// A view is installed.
    View(Rc<LocalView>),
    /// A cast of `origin`.
    Cast(Rank, Message),
    /// A send of `origin`.
    Send(Rank, Message),
    /// A best-effort message of `origin`.
    Raw(Rank, Message),
    /// A message from outside the view.
    Outside(Rc<Letter>),
    /// Somebody sent a message of another view of this group.
    Stranger {
        /// Who.
        origin: Incarnation,
        /// Of which view.
        view: ViewId,
    },
    /// Members whose process is known to be gone: a hint.
    Gone(RankSet),
    /// Members that are ready to run and have had no processor since the last time this was asked: a hint.
    Starved(RankSet),
    /// Members that have excluded this one from the view's channel, or have closed it: a hint.
    Parted(RankSet),
    /// Whether these are in this view still is worth asking them, outside it.
    Doubt(RankSet),
    /// A timer of this stack should have run a while ago, and has not yet: what is received next may have waited as long.
    Late,
    /// This process did not run for so long.
    Paused(Duration),
    /// The members of this view that go on together: what is delivered until the next view is promised to them alone.
    Transitional(RankSet),
    /// The next view is decided, and all of this one has been delivered.
    NextView(Rc<NextView>),
    /// What is stable has changed.
    Stable,
    /// Members are suspected that were not before.
    Suspect(Rc<[Suspicion]>),
    /// A flush has begun: stop casting.
    Flush,
    /// All have stopped casting.
    FlushOk,
    /// A message is known to be lost.
    LostMessage {
        /// Whose, or on its way to whom.
        origin: Rank,
        /// What is known of it.
        reason: &'static str,
    },
    /// Something the application should know.
    Problem(Problem),
    /// A member holds the senders up.
    Slow(Slow),
    /// A member left.
    Leave(Rank),
    /// The application's state is wanted as it is now: before anything of this view is delivered. The snapshot goes to
    /// this one of the places that the stack has for them.
    Snapshot(usize),
    /// A part of the group's state.
    State(StateBytes),
    /// All members that had the group's state are gone or cannot read it, and this one has not got all of it.
    StateLost {
        /// Whether it goes on, with what it has or with what another one has; else it leaves.
        goes_on: bool,
    },
    /// The group is over for this process.
    Exit(ExitReason),
}

/// Something that is wrong but survived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which layer says so.
    pub layer: &'static str,
    /// Whose doing it is, if it can be said: a rank in the view that the endpoint is in (`Group::endpoint_view`).
    pub origin: Option<Rank>,
    /// What is wrong.
    pub what: Cow<'static, str>,
}

/// A member that is taken for failed, for good in this view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Who.
    pub member: Rank,
    /// Why.
    pub why: Grounds,
}

/// Why a member is taken for failed. Silence does not count while this process itself does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grounds {
    /// Nothing was heard of it.
    Silent {
        /// For so long.
        lasting: Duration,
        /// What it was allowed by then.
        limit: Duration,
    },
    /// Nothing at all was heard of it since the view began.
    Unheard {
        /// For so long.
        lasting: Duration,
    },
    /// The transport says that its process is gone, and nothing was heard of it any more.
    Gone {
        /// For so long.
        lasting: Duration,
    },
    /// Another member says so.
    ToldBy {
        /// Who has found it out, or, if that is not known, who says so.
        by: Rank,
        /// Of which kind its grounds are, if they are known.
        kind: Option<GroundsKind>,
    },
    /// It takes this member for failed, and so takes nothing of it in any more.
    Accuser,
    /// It has not done its part of a view change.
    HeldUp {
        /// For so long.
        lasting: Duration,
    },
    /// It has gone on to another view than this member.
    Elsewhere,
    /// The application says so.
    Application,
}

/// Why a member is taken for failed, as members tell it each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroundsKind {
    /// [`Grounds::Silent`]
    Silent,
    /// [`Grounds::Unheard`]
    Unheard,
    /// [`Grounds::Gone`]
    Gone,
    /// [`Grounds::Accuser`]
    Accuser,
    /// [`Grounds::HeldUp`]
    HeldUp,
    /// [`Grounds::Elsewhere`]
    Elsewhere,
    /// [`Grounds::Application`]
    Application,
}

impl GroundsKind {
    /// In the order of their codes on the wire.
    const ALL: [GroundsKind; 7] = [
        GroundsKind::Silent,
        GroundsKind::Unheard,
        GroundsKind::Gone,
        GroundsKind::Accuser,
        GroundsKind::HeldUp,
        GroundsKind::Elsewhere,
        GroundsKind::Application,
    ];
    /// The code of grounds that are not known.
    const UNKNOWN: u8 = u8::MAX;

    /// The code of `kind` on the wire.
    pub(crate) fn code(kind: Option<GroundsKind>) -> u8 {
        kind.map_or(GroundsKind::UNKNOWN, |kind| kind as u8)
    }

    /// What a code stands for; an error if for nothing.
    pub(crate) fn of_code(code: u8) -> Result<Option<GroundsKind>, ControlError> {
        match GroundsKind::ALL.get(usize::from(code)) {
            Some(kind) => Ok(Some(*kind)),
            None if code == GroundsKind::UNKNOWN => Ok(None),
            None => Err(ControlError),
        }
    }
}

/// What its accuser did, of whom this is said.
impl fmt::Display for GroundsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GroundsKind::Silent => "heard nothing of it for too long",
            GroundsKind::Unheard => "never heard it in that view",
            GroundsKind::Gone => "was told by the transport that it was gone",
            GroundsKind::Accuser => "was taken for failed by it",
            GroundsKind::HeldUp => "waited for it in a view change for too long",
            GroundsKind::Elsewhere => "saw it go on to another view",
            GroundsKind::Application => "was told so by its application",
        })
    }
}

/// Who has found out that a member has failed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) by: Rank,
    pub(crate) kind: Option<GroundsKind>,
}

impl Charge {
    /// Of somebody whom the member `own` takes for failed.
    pub(crate) fn of(own: Rank, why: Grounds) -> Charge {
        match why {
            Grounds::ToldBy { by, kind } => Charge { by, kind },
            why => Charge { by: own, kind: why.kind() },
        }
    }

    /// The grounds of somebody who is told so.
    pub(crate) fn told(self) -> Grounds {
        Grounds::ToldBy { by: self.by, kind: self.kind }
    }
}

impl Grounds {
    /// Of which kind they are, if that is known.
    pub fn kind(self) -> Option<GroundsKind> {
        Some(match self {
            Grounds::Silent { .. } => GroundsKind::Silent,
            Grounds::Unheard { .. } => GroundsKind::Unheard,
            Grounds::Gone { .. } => GroundsKind::Gone,
            Grounds::ToldBy { kind, .. } => return kind,
            Grounds::Accuser => GroundsKind::Accuser,
            Grounds::HeldUp { .. } => GroundsKind::HeldUp,
            Grounds::Elsewhere => GroundsKind::Elsewhere,
            Grounds::Application => GroundsKind::Application,
        })
    }
}

impl fmt::Display for Grounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grounds::Silent { lasting, limit } => {
                write!(
                    f,
                    "nothing was heard of it for {}, and its limit is {}",
                    Millis(*lasting),
                    Millis(*limit)
                )
            }
            Grounds::Unheard { lasting } => {
                write!(f, "nothing was heard of it since the view began, {} ago", Millis(*lasting))
            }
            Grounds::Gone { lasting } => {
                write!(f, "its process is gone, and nothing was heard of it for {}", Millis(*lasting))
            }
            Grounds::ToldBy { by, kind: None } => write!(f, "member {by} takes it for failed"),
            Grounds::ToldBy { by, kind: Some(kind) } => write!(f, "member {by} {kind}"),
            Grounds::Accuser => f.write_str("it takes this member for failed"),
            Grounds::HeldUp { lasting } => write!(f, "it held a view change up for {}", Millis(*lasting)),
            Grounds::Elsewhere => f.write_str("it has gone on to another view"),
            Grounds::Application => f.write_str("the application says so"),
        }
    }
}

/// A member that holds the senders up: they may not cast until it has taken in more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// Who.
    pub member: Rank,
    /// In which way.
    pub why: Holdup,
    /// Since when, on this process's clock.
    pub since: Time,
    /// For how long that is, not counting time in which this process did not run.
    pub lasting: Duration,
    /// What becomes of it.
    pub outcome: SlowOutcome,
}

/// In which way a member holds the senders up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holdup {
    /// It has not taken in so many frames of casts that the others may have long since.
    Behind {
        /// How many.
        frames: u64,
    },
    /// It has taken in everything, and gives no credit for more.
    NoCredit,
}

/// What becomes of a member that holds the senders up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowOutcome {
    /// It is waited for.
    Waits,
    /// It has caught up, or nobody waits for it any more.
    CaughtUp,
    /// It is expelled: the next view is without it.
    Expelled {
        /// By whom.
        by: Rank,
    },
}

impl fmt::Display for Holdup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holdup::Behind { frames } => write!(f, "it lacks {frames} frames of casts"),
            Holdup::NoCredit => f.write_str("it gives no credit for more"),
        }
    }
}

/// Why a process was excluded, in the words of those who did it.
struct AsTold(Option<Rank>, Option<GroundsKind>);

impl fmt::Display for AsTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AsTold(Some(accuser), Some(kind)) => write!(f, "because member {accuser} {kind}"),
            AsTold(Some(accuser), None) => write!(f, "which member {accuser} took for failed"),
            AsTold(None, Some(kind)) => write!(f, "because a member {kind}"),
            AsTold(None, None) => f.write_str("which was taken for failed"),
        }
    }
}

/// Why the group is over for this process. Ranks are those of the view that the endpoint was in (`Group::endpoint_view`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExitReason {
    /// It left.
    #[error("left the group")]
    Left,
    /// The others have gone on without it.
    #[error(
        "excluded: member {by} has gone on to {view} without this process, {}; join again with a new incarnation",
        AsTold(*accuser, *kind)
    )]
    Excluded {
        /// Who says so.
        by: Rank,
        /// The view it is in now.
        view: ViewId,
        /// Who has found this process failed, if it is a member of the view that this one was in.
        accuser: Option<Rank>,
        /// Why, if that is known.
        kind: Option<GroundsKind>,
    },
    /// It held the senders up for longer than the stack allows (`expel_ms` of FC).
    #[error(
        "expelled: member {by} waited {} ms for this process to take in what was cast, which is longer than the stack \
         allows; it may join again with a new incarnation, if it can keep up",
        lasting.as_millis()
    )]
    Expelled {
        /// Who says so.
        by: Rank,
        /// How long it was waited for.
        lasting: Duration,
    },
    /// The next view could not be opened here.
    #[error("the next view could not be opened at this process; the event before says why")]
    NotOpened,
    /// The group's state could not be taken over.
    #[error("this process could not take over the group's state and left; the event before says why")]
    NoState,
    /// Others have heard this incarnation before: the process was restarted into a view that it was in already.
    #[error(
        "member {reporter} holds {reported} casts of this incarnation, which has cast {own}: \
         it was in this view before; start with a new incarnation and a new view"
    )]
    Reincarnated {
        /// Who says so.
        reporter: Rank,
        /// Frames it holds.
        reported: u64,
        /// Frames cast by this process.
        own: u64,
    },
    /// Others have heard another start of this incarnation in this view.
    #[error(
        "member {reporter} has heard another process under this incarnation in this view; if that one is over, \
         start with a new incarnation and a new view, else give this one an incarnation of its own"
    )]
    OtherLife {
        /// Who says so.
        reporter: Rank,
    },
    /// A process that looked for its group has the incarnation of a member.
    #[error(
        "another process is in the group under this incarnation; the event before says which; \
         start with an incarnation of its own"
    )]
    IncarnationTaken,
}
