//! XFER: who comes in gets the group's state, cut exactly at its view.
//!
//! | | |
//! |---|---|
//! | requires | P3 reliable FIFO sends, P9 virtual synchrony, P15 consistent views, P25 self-delivery: own casts wait with the others |
//! | provides | P23 state transfer |
//! | promises | the state given to a member that comes in, and what it delivers after it, are together what the others have: nothing between the two is missing or comes twice |
//! | costs | nothing on ordinary messages of members that have the state; at one that waits for it deliveries take the layers and are copied |
//!
//! A process that founds a group has a state (its own); one that is let in has none and gets the group's, whatever it had.
//! Where two views merge, the side that lets the other in keeps its state. Everybody tracks who lacks the state. The lowest
//! member that has it is the *donor*: it takes a snapshot at the cut of the view, before anything is delivered in it, and
//! sends it as fast as acknowledgements allow, to all that lack it in step (one snapshot, read once). Whoever lacks it holds
//! back what it delivers in the view, and the view itself, until the state is complete.
//!
//! ```text
//! 0 (donor)                 1                        2 (comes in)
//! ── view 8 {0, 1, 2}: snapshot ───────────────────▶ lacks the state
//! ◀─ lacks it, and takes so long frames ─────────────
//! ── begin: 2 lacks it ───▶ ───────────────────────▶
//! ── part 0, part 1, ... ──────────────────────────▶ the application takes them in
//! ── casts of view 8 ─────▶ delivers ──────────────▶ holds them
//! ── last part ────────────────────────────────────▶ view 8, then the casts held
//! ◀─ have ────────────────── ◀─ have ───────────────
//! ```
//!
//! A transfer goes on across view changes as long as its donor and its taker go together, and nobody lower than the donor
//! has got the state meanwhile, who begins anew with all that lack it. What a member holds of view 8 is what the others
//! have delivered in it (virtual synchrony), and what was sent in it has arrived (design D7), so the state at the cut of
//! view 8, what was held of it, view 9 and what is held of that is the state at any later time. When the state is there
//! all of it is told in this order. Two snapshots at most are given at a time: the oldest is given to its end, and
//! whoever comes in meanwhile shares the second one, which is taken anew at the view they come in with. If the donor is
//! gone the next one begins anew at the cut of the new view; casts held before it are let go of then, for they are in
//! that snapshot, and sends are told in that view. So it is as well where layers above XFER keep a state of their own; whoever
//! has taken the state in by then hands on to them all that was held, and the view ends behind it.
//! Two may take themselves for the donor, where one got the state while the view changed; the higher gives way. If the
//! lower is gone before the higher has heard of it, the next view's donor goes on with what was never begun at its taker,
//! which says so: it is given the state anew, at the cut of another view.
//!
//! A donor that cannot read its snapshot says so to all, gives nothing to anybody who lacks the state at that time, and asks
//! for a view: the next member that has the state gives it, at the cut of that one. Once nobody waits any more it is a donor
//! like others again.
//!
//! Where both ends can, and a probe has shown that what lies between them can, too, parts go in frames that are longer than
//! others: what a part costs in the layers is spread over more of the state.
//!
//! If nobody in a view has the state any more, or nobody who has it can read it, all say that they lack it. Who was let in
//! with a whole state, and has taken in nothing of another since, says that as well: if nobody has the side's state that let
//! it in, the first of them goes on with what it had and gives it to the others, so that the only whole state is not lost.
//! That is a state that members of a view shared: what a process that has met nobody starts with is not the group's. What
//! others may have is a part: all leave (`lost=leave`), or the first of them goes on with what it has (`lost=go_on`). Whoever is
//! given that instead is told that the state it waited for is lost, with the casts of the views since it came in: who gives it
//! says in which view it took the other's place. Who could not take the state in leaves, says so, and is not given it again.
//! Members that hold too much ask the others to stop casting until they have the state (`full=hold`), in the
//! views after as well if the transfer goes on, or leave (`full=leave`). Parts that the application is not ready for
//! wait here, and are credit that the donor has not got back; so do those that are more than an iteration's, which is as many
//! as the application takes in within a millisecond: who takes in a state is heard by others meanwhile. Who keeps the others
//! from casting is named to them, and if nothing moves for `stall_ms` it leaves, if it is its application that is not ready. A
//! donor whose application is not ready for so long lets another member give the state, if one has it, and who waits for it in
//! vain is told. Who alone has the state and wants to leave does so when another has it, or nothing has moved for so long.
//!
//! After Horus's XFER and Ensemble's `xfer` (Hayden, 1998); the donor's cut is the rule of virtual synchrony (Birman and
//! Joseph, 1987).

mod broken;
mod giving;
mod hold;
mod message;
mod pace;
mod stall;
mod taking;

use std::any::Any;
use std::rc::Rc;
use std::time::Duration;

use self::broken::Broken;
use self::giving::{Giving, LeftGiving};
use self::hold::Hold;
use self::message::Say;
use self::pace::Pace;
use self::taking::Taking;
use crate::accel::case::CommonCase;
use crate::id::{Hasher64, Incarnation, Rank, RankSet};
use crate::stack::build::{Build, Closes, Guard, GuardKind, HeldFor, TimerId, shared};
use crate::stack::core::{HeldSnapshot, SNAPSHOTS};
use crate::stack::event::{Down, ExitReason, Message, NextView, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{LayerEntry, ParameterError, Parameters};
use crate::stack::slots::MatrixSlot;
use crate::time::Time;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "XFER",
        about: "state transfer to members that come in",
        requires: Properties::of(&[
            Property::FifoUnicast,
            Property::VirtuallySynchronous,
            Property::ConsistentViews,
            // What comes back above would be told before the state that it is to change.
            Property::SelfDelivery,
        ]),
        provides: Properties::of(&[Property::StateTransfer]),
        destroys: Properties::NONE,
        cost: 3,
        parameters: &[
            (
                "hold_kib_max",
                "what a member that waits for the state may hold back before it is full, in KiB (default 262144); \
                 what is under way by then comes on top",
            ),
            (
                "full",
                "what it does then; hold: the others stop casting until it has the state (default), leave: it leaves",
            ),
            (
                "lost",
                "what happens when all members that had the state are gone before anybody got all of it; leave: those who \
                 wait for it leave (default), go_on: the first goes on with what it has, which may be a part",
            ),
            (
                "flight_kib",
                "parts that may be unacknowledged, or acknowledged and not taken in by the application, in KiB (default \
                 4096): a view change waits for their acknowledgement",
            ),
            (
                "stall_ms",
                "for how long, in milliseconds (default 5000), nothing of the state may move: then a full member, for which the \
                 group is held, leaves if its application has not been ready; who gives it lets another do so if its application \
                 has not been; who waits for it is told; and who stayed to give it leaves",
            ),
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| Ok(Box::new(Xfer::new(parameters)?)),
    }
}

/// Held events that are handed on in one go: the event queue is bounded.
const RELEASE_MAX: usize = 64;
/// The shortest time that is not in this iteration.
const NEXT_ITERATION: Duration = Duration::from_nanos(1);
/// One part of that many, of the frames for control messages and of what a peer may leave unacknowledged, is left to
/// everything else. Parts may take the rest: whenever the two members' turns on a core are long, what is under way at
/// once is what goes over in a turn.
const LEFT_SHARE: u64 = 4;
/// When the application is asked again for what it could not read or take in without waiting.
const NOT_READY: Duration = Duration::from_micros(100);
/// So many probes go out, so long after each other: some are lost, and who did not expect long frames may lose the first.
const PROBES_MAX: u32 = 4;
const PROBE_PAUSE: Duration = Duration::from_micros(500);
#[derive(Clone)]
struct Xfer {
    options: Options,
    handles: Option<Handles>,
    own: Own,
    /// Members without the state, as far as it is known here. Whoever is not in it has the state for certain.
    lacks: RankSet,
    /// Members that have said in this view that they lack it; and of them, those that have a whole one of their own.
    said: RankSet,
    with_own: RankSet,
    /// What this member has, or had when it was let in, is whole and was a group's: it shared it with others in a view.
    shared: bool,
    /// The last view in which nobody had the group's state and the one that this member has took its place, by its counter; 0 if
    /// there was none. Who lacked the state by then is told that the one it waited for is lost, in whichever view it is given
    /// this one.
    founded: u64,
    /// The view since which this member lacks the state.
    lacks_since: u64,
    /// The others know that this member has the state.
    known: bool,
    /// Members that are full: nobody casts until they have the state.
    full: RankSet,
    /// Members that lack it and will not have it: they leave.
    refused: RankSet,
    /// Members that have it and could not read it: they do not give it to those who lack it now.
    unable: RankSet,
    /// Of them, those of whom the others knew when this view began.
    unable_before: RankSet,
    /// What this member gives, the oldest first; each member takes at most one of them.
    givings: Vec<Giving>,
    /// By member: bytes of it that its application has taken in.
    taken: Vec<u64>,
    /// When anything of what is given or taken in has moved here, last.
    moved: Time,
    /// What `moved` was when this member said that nothing came of the state.
    silence_told: Time,
    /// Since when the group has been held for members that are full; and whether that has been said.
    held_since: Time,
    held_told: bool,
    /// This member wants to leave, once somebody else has the state.
    leaves: bool,
    /// By member.
    ways: Vec<Way>,
    /// Members that have said in this view that all of the state has come to them.
    whole: RankSet,
    /// Bytes of parts made in the iteration of that time.
    burst: (Time, usize),
    taking: Taking,
    /// Somebody has begun to give in this view.
    donated: bool,
    /// What is still to be said, and to whom.
    unsaid: Vec<(RankSet, Say)>,
    hold: Hold,
    /// Of that, what was held when the view began; and whether its beginning comes first in what is held.
    carried: u64,
    begins_here: bool,
    /// How much of the state and of what was held the application gets in one iteration.
    pace: Pace,
    /// What is stable has changed meanwhile.
    stable_held: bool,
    /// This member has said that it is full.
    full_said: bool,
    /// A view change is under way: what is said now might not arrive in this view.
    flushing: bool,
    /// The next view is decided.
    next: Option<Rc<NextView>>,
    legacy: Option<Legacy>,
    /// Of the first view in this stack: before anything was sent.
    limits: Limits,
}

#[derive(Clone, Copy)]
struct Options {
    hold_bytes: u64,
    leave: bool,
    go_on: bool,
    flight_bytes: u64,
    stall: Duration,
    broken: Broken,
}

#[derive(Clone, Copy)]
struct Handles {
    casts_held: Guard,
    sends_held: Guard,
    deliver: [Guard; 2],
    acked: MatrixSlot,
    turn: TimerId,
    offer: TimerId,
    look: TimerId,
}

/// How this member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    /// It has the state.
    Has,
    /// It waits for the state, or takes it in.
    Lacks,
    /// The state is whole; what was held is on its way up.
    Whole,
    /// Its application could not take the state in, or it was full: it leaves.
    Refused,
}

/// How long frames to a member may be, in bytes.
#[derive(Clone, Copy, Default)]
struct Way {
    /// What it can take, as it has said with that it lacks the state.
    takes_bytes: usize,
    /// Probes that have gone out to it, and when another may.
    probes: u32,
    probe_at: Time,
    /// That of a probe that has arrived there.
    reached_bytes: usize,
}

/// What is left to other traffic.
#[derive(Clone, Copy, Default)]
struct Limits {
    /// Reliable messages to a peer.
    room: u64,
    /// Frames for control messages.
    frames: usize,
    /// Long parts that may be unacknowledged: some of their frames are still to be let go of.
    long_parts: u64,
}

/// What the next view's layer must know.
#[derive(Clone)]
struct Legacy {
    own: Own,
    known: bool,
    shared: bool,
    leaves: bool,
    founded: u64,
    /// None if it has the state, or lacks it from the next view on.
    lacks_since: Option<u64>,
    /// Members that have the state and go on together with this one.
    complete: Vec<Incarnation>,
    /// Members that will not have it.
    leaving: Vec<Incarnation>,
    /// Members that could not read it, if there is still somebody who waits for it; and whether this one, if it is one of
    /// them, has said so.
    unable: Vec<Incarnation>,
    unable_said: bool,
    /// Members that are full, and stay so if the transfer goes on.
    full: Vec<Incarnation>,
    /// What is given goes on, and what is taken: nothing of it is void in the next view.
    goes_on: bool,
    givings: Vec<LeftGiving>,
    taking: Taking,
    hold: Hold,
    /// The stack of the view they came in.
    spec: String,
}

impl Xfer {
    fn new(parameters: &Parameters) -> Result<Xfer, ParameterError> {
        let kib = |name, default| parameters.number(name, default, 1..=1 << 30).map(|kib| kib << 10);
        let options = Options {
            hold_bytes: kib("hold_kib_max", 256 << 10)?,
            leave: parameters.choice("full", &["hold", "leave"])? == "leave",
            go_on: parameters.choice("lost", &["leave", "go_on"])? == "go_on",
            flight_bytes: kib("flight_kib", 4096)?,
            stall: parameters.number("stall_ms", 5000, 1..=3_600_000).map(Duration::from_millis)?,
            broken: Broken::of(parameters)?,
        };
        Ok(Xfer {
            options,
            handles: None,
            own: Own::Has,
            lacks: RankSet::EMPTY,
            said: RankSet::EMPTY,
            with_own: RankSet::EMPTY,
            shared: false,
            founded: 0,
            lacks_since: 0,
            known: true,
            full: RankSet::EMPTY,
            refused: RankSet::EMPTY,
            unable: RankSet::EMPTY,
            unable_before: RankSet::EMPTY,
            givings: Vec::new(),
            taken: Vec::new(),
            moved: Time::ZERO,
            silence_told: Time::NEVER,
            held_since: Time::ZERO,
            held_told: false,
            leaves: false,
            ways: Vec::new(),
            whole: RankSet::EMPTY,
            burst: (Time::NEVER, 0),
            taking: Taking::default(),
            donated: false,
            unsaid: Vec::new(),
            hold: Hold::default(),
            carried: 0,
            begins_here: false,
            pace: Pace::default(),
            stable_held: false,
            full_said: false,
            flushing: false,
            next: None,
            legacy: None,
            limits: Limits::default(),
        })
    }

    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }

    fn others(context: &Context<'_>) -> RankSet {
        context.view().others().collect()
    }

    fn turn_now(&self, context: &mut Context<'_>) {
        context.arm(self.handles().turn, context.now());
    }

    /// Members that are given the state.
    fn wanting(&self) -> RankSet {
        self.lacks.without(self.refused)
    }

    /// `origin` has the state, it says: also if it has said before in this view that it lacks it.
    fn has(&mut self, context: &mut Context<'_>, origin: Rank) {
        self.lacks.remove(origin);
        self.said.remove(origin);
        self.let_off(context, origin);
    }

    /// Nobody waits for `origin` any more if it was full.
    fn let_off(&mut self, context: &mut Context<'_>, origin: Rank) {
        if self.full.contains(origin) {
            self.full.remove(origin);
            let Handles { casts_held, sends_held, .. } = self.handles();
            context.open(sends_held, origin);
            if self.full.is_empty() {
                context.open(casts_held, context.rank());
                self.held_told = false;
            }
        }
    }

    /// `origin`, which may be this member, is full.
    fn is_full(&mut self, context: &mut Context<'_>, origin: Rank) {
        let Handles { casts_held, sends_held, .. } = self.handles();
        if self.full.contains(origin) {
            return;
        }
        self.full.insert(origin);
        if self.flushing {
            return;
        }
        if self.full.len() == 1 {
            self.held_since = context.now();
            self.look_soon(context);
        }
        context.close(casts_held, context.rank());
        context.close(sends_held, origin);
        context.count("casts held for a member without the state");
    }

    /// A view change has begun. Casts that belong to this view still (`block=yes`) must go out before it ends, however much
    /// somebody holds, who lets go of them with it.
    fn flush(&mut self, context: &mut Context<'_>) {
        self.flushing = true;
        let Handles { casts_held, sends_held, .. } = self.handles();
        for full in self.full.iter() {
            context.open(sends_held, full);
        }
        if !self.full.is_empty() {
            context.open(casts_held, context.rank());
        }
    }

    /// Hands on what was held, a bounded part of it at a time.
    fn release(&mut self, context: &mut Context<'_>) {
        if self.own != Own::Whole || self.givings.iter().any(Giving::is_asked) {
            return;
        }
        let now = context.now();
        let mut soon = now;
        for _ in 0..RELEASE_MAX {
            if !self.hold.is_empty() && !self.pace.allows(now) {
                soon = now + NEXT_ITERATION;
                break;
            }
            let Some(event) = self.hold.pop() else {
                self.complete(context);
                return;
            };
            self.pace.goes();
            if self.options.broken.is(Broken::DropsCasts) && matches!(event, Up::Cast(..)) {
                continue;
            }
            if self.hand_on(context, event) {
                break;
            }
        }
        context.arm(self.handles().turn, soon);
    }

    /// Hands on what comes first of what was held. Whether layers above are to have it before what comes next, which may pass
    /// them by: so it is with the beginning of a view.
    fn hand_on(&self, context: &mut Context<'_>, event: Up) -> bool {
        let first = context.layer > 0 && !matches!(event, Up::Cast(..) | Up::Send(..));
        context.up(event);
        first
    }

    /// The next view is decided: whether what is held can be handed on there. If not it is now, for it is of this view, of
    /// which the application has been told, and layers above end with it. They get a bounded part at a time, and this word
    /// comes here again behind each; returns whether that was all.
    fn release_before(&mut self, context: &mut Context<'_>, next: &Rc<NextView>) -> bool {
        let goes_on = !next.guest && next.view.spec == context.view().view().spec && context.layer == 0;
        if self.own != Own::Whole || goes_on {
            return true;
        }
        for _ in 0..RELEASE_MAX {
            let Some(event) = self.hold.pop() else {
                self.complete(context);
                return true;
            };
            if self.hand_on(context, event) {
                break;
            }
        }
        context.up_again(Up::NextView(Rc::clone(next)));
        false
    }

    /// This member has the state and has delivered what was held.
    fn complete(&mut self, context: &mut Context<'_>) {
        let own = context.rank();
        self.own = Own::Has;
        self.shared = true;
        self.hold.clear();
        self.has(context, own);
        for rank in (0..context.view().size()).map(Rank::at) {
            self.handles().deliver.into_iter().for_each(|guard| context.open(guard, rank));
        }
        if std::mem::take(&mut self.stable_held) {
            context.up(Up::Stable);
        }
        context.count("state complete");
        self.known = Xfer::others(context).is_empty();
        if !self.flushing {
            self.say(context, Say::Have);
        }
        if !self.is_another_able(context)
            && !self.wanting().is_empty()
            && !self.donated
            && self.givings.is_empty()
        {
            // Those who wait have nobody else to get it from, and a snapshot is taken at the cut of a view. If somebody
            // else had it when this view began, its lowest such member gives it, though it may not have said so yet.
            context.ask_for_view();
        }
    }

    fn waits(&self) -> bool {
        self.own != Own::Has
    }
}

impl Layer for Xfer {
    fn name(&self) -> &'static str {
        "XFER"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        let deliver = [GuardKind::CastDeliver, GuardKind::SendDeliver]
            .map(|kind| build.guard(kind, "no state yet", Closes::FastPath));
        self.handles = Some(Handles {
            casts_held: build.guard(
                GuardKind::CastSend,
                "a member without the state is full",
                Closes::Entry(HeldFor::State),
            ),
            sends_held: build.guard(
                GuardKind::SendSend,
                "without the state, and full",
                Closes::Entry(HeldFor::State),
            ),
            deliver,
            acked: build.shared_matrix_slot(shared::ACKED),
            turn: build.timer("turn"),
            look: build.timer("look"),
            offer: build.timer("the application was not ready for the state"),
        });
    }

    fn start(&mut self, context: &mut Context<'_>) {
        let own = context.rank();
        let peer = context.view().others().next();
        self.limits = Limits {
            room: peer.map_or(0, |peer| context.reliable_room(peer)) / LEFT_SHARE,
            frames: context.control_frames_free() / LEFT_SHARE as usize,
            long_parts: (context.long_frames().0 * 3 / 4).max(1) as u64,
        };
        self.taken = vec![0; context.view().size()];
        self.ways = vec![Way::default(); context.view().size()];
        let Some(legacy) = self.legacy.take() else {
            self.shared = peer.is_some();
            return;
        };
        self.moved = context.now();
        if legacy.leaves {
            self.leaves = true;
            self.turn_now(context);
            self.look_soon(context);
        }
        let view = context.view();
        self.shared = legacy.shared || legacy.own == Own::Has && peer.is_some();
        let ranks = || (0..view.size()).map(Rank::at);
        let among = |list: &[Incarnation], rank: Rank| list.contains(&view.member(rank).incarnation);
        self.lacks = ranks().filter(|rank| !among(&legacy.complete, *rank)).collect();
        self.refused = ranks().filter(|rank| among(&legacy.leaving, *rank)).collect();
        self.unable_before = ranks().filter(|rank| among(&legacy.unable, *rank)).collect();
        self.unable = self.unable_before;
        self.known = legacy.known;
        self.founded = legacy.founded;
        self.lacks_since = legacy.lacks_since.unwrap_or(view.view().id.counter);
        // Layers above know nothing of the views before.
        let same_stack = legacy.spec == view.view().spec;
        let goes_on = legacy.goes_on && same_stack && context.layer == 0;
        if goes_on {
            // Nobody gets a window of casts in before they say so again; if it is begun anew they say that they have room.
            let full: RankSet = ranks().filter(|rank| among(&legacy.full, *rank)).collect();
            for full in full.and(self.lacks).iter() {
                self.is_full(context, full);
            }
        }
        if legacy.own == Own::Has {
            self.lacks.remove(own);
            if !legacy.known {
                self.say(context, Say::Have);
            }
            if self.unable.contains(own) {
                // Those who have come in do not know it, nor do others that it was not said to before the view ended.
                if !legacy.unable_said {
                    self.unable_before.remove(own);
                }
                self.say(context, Say::Unable);
                return;
            }
            let lower = RankSet::all(own.index());
            if lower.without(self.lacks).without(self.unable).is_empty() {
                self.give_on(context, if goes_on { legacy.givings } else { Vec::new() });
            }
            return;
        }
        self.own = if legacy.own == Own::Refused { Own::Refused } else { Own::Lacks };
        self.lacks.insert(own);
        for rank in (0..context.view().size()).map(Rank::at) {
            self.handles().deliver.into_iter().for_each(|guard| context.close(guard, rank));
        }
        if self.own == Own::Refused {
            self.say(context, Say::Refused);
            return;
        }
        let mut hold = legacy.hold;
        if !same_stack {
            hold.drop_headers();
        }
        self.take_on(context, goes_on, legacy.taking, hold);
    }

    fn bequeath(&mut self) -> Option<Box<dyn Any>> {
        self.next.as_ref()?;
        let mut legacy = self.legacy.take()?;
        // What came since: an ordering layer's casts, and the application's word.
        (legacy.hold, legacy.taking) = (std::mem::take(&mut self.hold), std::mem::take(&mut self.taking));
        legacy.shared = self.shared;
        // What it has is not the state of those that let it in.
        let guest = self.next.as_ref().is_some_and(|next| next.guest);
        let keeps = self.options.broken.is(Broken::GuestsKeepTheirs);
        legacy.own = match self.own {
            Own::Has if guest && !keeps => Own::Lacks,
            own => own,
        };
        legacy.founded = self.founded;
        legacy.lacks_since = Some(self.lacks_since).filter(|_| self.own == Own::Lacks && !guest);
        Some(Box::new(legacy))
    }

    fn inherit(&mut self, legacy: Box<dyn Any>) {
        self.legacy = legacy.downcast::<Legacy>().ok().map(|legacy| *legacy);
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.up(&[Flow::Cast, Flow::Send])
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        match event {
            Down::Leave if !self.flushing => {
                // What was under way before counts for nothing: it may have been given long ago.
                (self.leaves, self.moved) = (true, context.now());
                self.leave_if_given(context);
                if self.leaves {
                    context.count("leave that waits until another has the state");
                    self.look_soon(context);
                }
            }
            Down::Snapshot { slot, taken } => self.snapshot(context, slot, taken),
            Down::StateTaken { donor, through, last } => self.state_taken(context, donor, through, last),
            Down::StateBack(part) => self.state_back(context, part),
            Down::StateRefused(why) => {
                self.refuse(context, format!("the group's state was not taken in: {why}"))
            }
            event => context.down(event),
        }
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        match event {
            Up::NextView(next) => {
                if !self.release_before(context, &next) {
                    return;
                }
                let view = context.view();
                let has = |rank: &Rank| !self.lacks.contains(*rank) && *rank != view.rank();
                let incarnation = |rank: Rank| view.member(rank).incarnation;
                let complete: Vec<Incarnation> = next.together.iter().filter(has).map(incarnation).collect();
                let leaving = self.refused.iter().map(incarnation).collect();
                let full = self.full.iter().map(incarnation).collect();
                let nobody_waits = self.wanting().and(next.together).is_empty();
                let unable = if nobody_waits || next.guest { RankSet::EMPTY } else { self.unable };
                let unable_unsaid = self.unsaid.iter().any(|(_, what)| *what == Say::Unable);
                let spec = view.view().spec.clone();
                let goes_on = !next.guest;
                self.legacy = Some(Legacy {
                    own: self.own,
                    known: self.known,
                    shared: self.shared,
                    leaves: self.leaves,
                    founded: self.founded,
                    lacks_since: None,
                    complete: if next.guest { Vec::new() } else { complete },
                    leaving,
                    unable: unable.iter().map(incarnation).collect(),
                    unable_said: !unable_unsaid,
                    full,
                    goes_on,
                    givings: self.leave_givings(context, next.together),
                    taking: Taking::default(),
                    hold: Hold::default(),
                    spec,
                });
                context.disarm(self.handles().turn);
                context.disarm(self.handles().offer);
                context.disarm(self.handles().look);
                self.next = Some(Rc::clone(&next));
                context.up(Up::NextView(next));
            }
            Up::Flush => {
                self.flush(context);
                context.up(Up::Flush);
            }
            Up::Exit(ExitReason::Left) if self.own == Own::Refused => context.exit(ExitReason::NoState),
            event if self.waits() => self.keep(context, event),
            event => context.up(event),
        }
    }

    fn control(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        if self.next.is_some() {
            return;
        }
        self.heard(context, origin, message);
    }

    fn timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        if self.next.is_some() {
            return;
        }
        if timer == self.handles().offer {
            self.offer(context);
            return;
        }
        if timer == self.handles().look {
            self.look(context);
            return;
        }
        self.ask_late(context);
        self.found(context);
        self.leave_if_given(context);
        self.release(context);
        self.speak(context);
        self.give(context);
    }

    fn post(&mut self, context: &mut Context<'_>) {
        if self.next.is_some() || self.flushing {
            return;
        }
        // Frames are not looked at here: a fork of the stack takes some, too, and must come to the same result.
        let now = context.now();
        let gives = self.givings.iter().any(|giving| giving.goes_on(now) && self.room(context, giving) > 0);
        if gives || !self.unsaid.is_empty() {
            context.arm_sooner(self.handles().turn, now);
        }
    }

    fn common_case(&self, _kind: Kind, _case: &mut CommonCase<'_>) -> Fast {
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        digest.word(self.own as u64);
        let sets = [self.lacks, self.said, self.with_own, self.full];
        for set in sets.into_iter().chain([self.refused, self.unable, self.unable_before, self.whole]) {
            set.words().into_iter().for_each(|word| digest.word(word));
        }
        for way in &self.ways {
            digest.word((way.takes_bytes as u64) << 8 | u64::from(way.probes));
            digest.word(way.probe_at.as_nanos());
            digest.word(way.reached_bytes as u64);
        }
        self.taken.iter().for_each(|taken| digest.word(*taken));
        for time in [self.moved, self.silence_told, self.held_since] {
            digest.word(time.as_nanos());
        }
        let said = [self.known, self.shared, self.donated, self.begins_here, self.stable_held];
        let asked = [self.full_said, self.flushing, self.held_told, self.leaves];
        said.into_iter().chain(asked).for_each(|yes| digest.word(u64::from(yes)));
        digest.word(self.founded);
        digest.word(self.lacks_since);
        digest.word(self.hold.bytes());
        digest.word(self.carried);
        digest.word(self.unsaid.len() as u64);
        self.givings.iter().for_each(|giving| giving.digest(digest));
        self.taking.digest(digest);
        self.pace.digest(digest);
    }

    fn time_outs(&self) -> Vec<(&'static str, Duration)> {
        let fixed = [("ask again for what was not ready", NOT_READY), ("probe again", PROBE_PAUSE)];
        std::iter::once(("stall", self.options.stall)).chain(fixed).collect()
    }

    fn dump(&self, _context: &Context<'_>) -> Option<String> {
        let own = match self.own {
            Own::Has => "has the state".to_owned(),
            Own::Whole => "has the state, and hands on what was held".to_owned(),
            Own::Lacks => self.taking.dump(),
            Own::Refused => "could not take in the state, and leaves".to_owned(),
        };
        let giving: String = self.givings.iter().map(Giving::dump).collect();
        Some(format!(
            "{own}; without it {:?}, full {:?}; holds {} of at most {} KiB{giving}",
            self.lacks,
            self.full,
            self.hold.bytes() >> 10,
            self.options.hold_bytes >> 10
        ))
    }
}
