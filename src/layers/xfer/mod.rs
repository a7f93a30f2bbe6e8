//! XFER: who comes in gets the group's state, cut exactly at its view.
//!
//! | | |
//! |---|---|
//! | requires | P3 reliable FIFO sends, P9 virtual synchrony, P15 consistent views |
//! | provides | P23 state transfer |
//! | promises | the state given to a member that comes in, and what it delivers after it, are together what the others have: nothing between the two is missing or comes twice |
//! | costs | nothing on ordinary messages of members that have the state; at one that waits for it deliveries take the layers and are copied |
//!
//! A process that founds a group has a state (its own); one that is let in has none and gets the group's, whatever it had.
//! Where two views merge, the side that lets the other in keeps its state. Everybody tracks who lacks the state. The lowest
//! member that has it is the *donor*: it takes a snapshot at the cut of the view, before anything is delivered in it, and
//! sends it as fast as acknowledgements allow, to all that lack it in step (one snapshot, read once). Whoever lacks it holds
//! back what it delivers in the view, and the view itself, until the state is complete. A view change begins the transfer
//! anew at the new cut, by whoever is the donor then; the casts held are let go of, for they are in the new snapshot, and
//! the sends of those that go on together are handed on behind the next view.
//!
//! ```text
//! 0 (donor)                 1                        2 (comes in)
//! ── view 8 {0, 1, 2}: snapshot ───────────────────▶ lacks the state
//! ── begin: 2 lacks it ───▶ ───────────────────────▶
//! ── part 0, part 1, ... ──────────────────────────▶ the application takes them in
//! ── casts of view 8 ─────▶ delivers ──────────────▶ holds them
//! ── last part ────────────────────────────────────▶ view 8, then the casts held
//! ◀─ have ────────────────── ◀─ have ───────────────
//! ```
//!
//! If nobody in a view has the state any more, all say that they lack it. What they may have of it is a part, or what they
//! had before they came in: all leave (`lost=leave`), or the first of them goes on with what it has (`lost=go_on`). Who
//! could not take the state in leaves, says so, and is not given it again.
//! Members that hold too much ask the others to stop casting until they have the state (`full=hold`), or leave
//! (`full=leave`).
//!
//! After Horus's XFER and Ensemble's `xfer` (Hayden, 1998); the donor's cut is the rule of virtual synchrony (Birman and
//! Joseph, 1987).

mod broken;
mod hold;

use std::any::Any;
use std::rc::Rc;
use std::time::Duration;

use self::broken::Broken;
use self::hold::Hold;
use crate::accel::case::CommonCase;
use crate::id::{Hasher64, Incarnation, MEMBERS_MAX, Rank, RankSet};
use crate::stack::build::{Build, Closes, Guard, GuardKind, HeldFor, TimerId, shared};
use crate::stack::event::{Down, ExitReason, Message, NextView, StateBytes, Up};
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
                "parts that may be unacknowledged, in KiB (default 4096): a view change waits for them",
            ),
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| Ok(Box::new(Xfer::new(parameters)?)),
    }
}

/// Parts that are made in one iteration, in bytes: casts wait no longer than that takes.
const BURST_BYTES: usize = 256 << 10;
/// Parts that are on their way through the layers at once: what is written stays in the cache until it is sent.
const PARTS_AT_ONCE: u64 = 8;
/// So much of the state, and whoever takes it in says how far it has come: what is not acknowledged is bounded.
const TELL_BYTES: u64 = 128 << 10;
/// One part of that many, of the frames for control messages and of what a peer may leave unacknowledged, is left to
/// everything else. Parts may take the rest: whenever the two members' turns on a core are long, what is under way at
/// once is what goes over in a turn.
const LEFT_SHARE: u64 = 4;
/// Held events that are handed on in one go: the event queue is bounded.
const RELEASE_MAX: usize = 64;
/// And that many in one iteration: what else there is to do is not kept waiting for all of them.
const RELEASES_PER_ITERATION: u32 = 16;
/// When the application is asked again for what it could not read without waiting.
const NOT_READY: Duration = Duration::from_micros(100);
/// Kind, flags, and how much came before.
const PART_HEAD_BYTES: usize = 10;
/// The set of those who lack the state.
const BEGIN_BYTES: usize = 1 + MEMBERS_MAX / 8;
const LAST: u8 = 1;
/// The application has no state: there is nothing to take in.
const STATELESS: u8 = 2;

/// First bytes of messages.
mod kind {
    pub(super) const LACKS: u8 = 1;
    pub(super) const BEGIN: u8 = 2;
    pub(super) const PART: u8 = 3;
    pub(super) const HAVE: u8 = 4;
    pub(super) const FULL: u8 = 5;
    pub(super) const REFUSED: u8 = 6;
}

#[derive(Clone)]
struct Xfer {
    options: Options,
    handles: Option<Handles>,
    own: Own,
    /// Members without the state, as far as it is known here. Whoever is not in it has the state for certain.
    lacks: RankSet,
    /// Members that have said in this view that they lack it.
    said: RankSet,
    /// The others know that this member has the state.
    known: bool,
    /// Members that are full: nobody casts until they have the state.
    full: RankSet,
    /// Members that lack it and will not have it: they leave.
    refused: RankSet,
    giving: Option<Giving>,
    /// What is still to be said, and to whom.
    unsaid: Vec<(RankSet, Say)>,
    hold: Hold,
    /// Rounds of handing on in the iteration of that time.
    rounds: (Time, u32),
    /// What is stable has changed meanwhile.
    stable_held: bool,
    /// The application was asked to stop while it waited for the state.
    blocks_early: bool,
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
    broken: Broken,
}

#[derive(Clone, Copy)]
struct Handles {
    casts_held: Guard,
    sends_held: Guard,
    deliver: [Guard; 2],
    acked: MatrixSlot,
    turn: TimerId,
}

/// How this member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    /// It has the state.
    Has,
    /// It waits for the state, or takes it in: from whom, and how much there is.
    Lacks { donor: Option<Rank>, at: u64 },
    /// The state is whole; what was held is on its way up.
    Whole,
    /// Its application could not take the state in, or it was full: it leaves.
    Refused,
}

/// What the donor is at.
#[derive(Clone, Copy)]
struct Giving {
    stage: Stage,
    at: u64,
    part_bytes: u64,
    /// There was no room for another part; it goes on when half of it is there again.
    paused: bool,
    /// Bytes of parts made in the iteration of that time.
    burst: usize,
    burst_at: Time,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The application has been asked for its snapshot.
    Asked,
    /// Parts are sent.
    Parts,
    /// The application has no state; that must be said.
    Stateless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    Lacks,
    Begin,
    Have,
    Full,
    Refused,
}

/// What is left to other traffic.
#[derive(Clone, Copy, Default)]
struct Limits {
    /// Reliable messages to a peer.
    room: u64,
    /// Frames for control messages.
    frames: usize,
    /// Parts that may be unacknowledged: where they have frames of their own, some of these are still to be let go of.
    parts: u64,
}

/// What the next view's layer must know.
#[derive(Clone)]
struct Legacy {
    has: bool,
    known: bool,
    refused: bool,
    /// It was waiting for the state.
    waited: bool,
    /// Members that have the state and go on together with this one.
    complete: Vec<Incarnation>,
    /// Members that will not have it.
    leaving: Vec<Incarnation>,
    /// Sends that wait for the state, by their origins' ranks in `members`.
    sends: Hold,
    members: Vec<Incarnation>,
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
            broken: Broken::of(parameters)?,
        };
        Ok(Xfer {
            options,
            handles: None,
            own: Own::Has,
            lacks: RankSet::EMPTY,
            said: RankSet::EMPTY,
            known: true,
            full: RankSet::EMPTY,
            refused: RankSet::EMPTY,
            giving: None,
            unsaid: Vec::new(),
            hold: Hold::default(),
            rounds: (Time::NEVER, 0),
            stable_held: false,
            blocks_early: false,
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

    /// Says something to all others, soon.
    fn say(&mut self, context: &mut Context<'_>, what: Say) {
        let others = Xfer::others(context);
        if !others.is_empty() {
            self.unsaid.push((others, what));
        }
        self.turn_now(context);
    }

    /// Says what is to be said, as far as there is room.
    fn speak(&mut self, context: &mut Context<'_>) {
        if self.flushing {
            return;
        }
        while let Some((to, what)) = self.unsaid.first().copied() {
            for peer in to.iter() {
                let Ok(mut body) = context.control_frame() else { return };
                let written = match what {
                    Say::Lacks => body.extend(&[kind::LACKS]),
                    Say::Have => body.extend(&[kind::HAVE]),
                    Say::Full => body.extend(&[kind::FULL]),
                    Say::Refused => body.extend(&[kind::REFUSED]),
                    Say::Begin => {
                        let words = self.lacks.words().map(u64::to_le_bytes);
                        body.extend(&[kind::BEGIN]).and_then(|()| body.extend(words.as_flattened()))
                    }
                };
                written.expect("a frame holds a set of members");
                if context.send_reliable(RankSet::one(peer), body).is_err() {
                    return;
                }
                self.unsaid[0].0.remove(peer);
            }
            self.unsaid.remove(0);
            self.known |= matches!(what, Say::Have | Say::Begin);
        }
    }

    /// This member takes a snapshot, and gives it to those who lack it.
    fn become_donor(&mut self, context: &mut Context<'_>) {
        self.giving = Some(Giving {
            stage: Stage::Asked,
            at: 0,
            part_bytes: 0,
            paused: false,
            burst: 0,
            burst_at: Time::NEVER,
        });
        context.count("snapshot taken");
        if self.options.broken == Broken::LateSnapshot {
            context.arm(self.handles().turn, context.now() + Duration::from_millis(2));
            return;
        }
        context.up(Up::Snapshot);
    }

    /// Members that are given the state.
    fn wanting(&self) -> RankSet {
        self.lacks.without(self.refused)
    }

    /// How many more parts acknowledgements allow.
    fn room(&self, context: &Context<'_>, giving: &Giving) -> u64 {
        let own = context.rank();
        let most = (self.options.flight_bytes / giving.part_bytes.max(1)).max(2).min(self.limits.parts);
        // Beyond half of it the application's sends to the peer are refused: they must get their turn, too.
        let left = self.limits.room * if giving.paused { LEFT_SHARE / 2 } else { 1 };
        let room = |peer: Rank| {
            let acked = context.pair(self.handles().acked, peer, own);
            let under_way = context.next_send_number(peer).saturating_sub(acked);
            context.reliable_room(peer).saturating_sub(left).min(most.saturating_sub(under_way))
        };
        self.wanting().iter().map(room).min().unwrap_or(0)
    }

    /// Whether there are frames for another part; what is kept of them is for everything else.
    fn has_frames(&self, context: &Context<'_>) -> bool {
        let long = context.long_frames().is_none_or(|(_, free)| free > 0);
        long && context.control_frames_free() > self.limits.frames + self.wanting().len()
    }

    /// Sends parts.
    fn give(&mut self, context: &mut Context<'_>) {
        if self.flushing || !self.unsaid.is_empty() {
            return;
        }
        let Some(mut giving) = self.giving.filter(|giving| giving.stage != Stage::Asked) else { return };
        if giving.burst_at != context.now() {
            (giving.burst, giving.burst_at) = (0, context.now());
        }
        let mut room_left = self.room(context, &giving);
        let mut sent = 0;
        while !self.wanting().is_empty() {
            if room_left == 0 || !self.has_frames(context) {
                giving.paused = true;
                self.giving = Some(giving);
                break;
            }
            if std::mem::take(&mut giving.paused) {
                // So much as may be under way in all.
                room_left = self.room(context, &giving);
            }
            if giving.burst >= BURST_BYTES || sent == PARTS_AT_ONCE {
                // What else there is to do comes first, in this iteration or before the next.
                let next = Duration::from_nanos(u64::from(giving.burst >= BURST_BYTES));
                context.arm(self.handles().turn, context.now() + next);
                break;
            }
            let Ok(mut body) = context.long_frame() else { break };
            let room = body.room();
            if !context.snapshot_is_ready(room - PART_HEAD_BYTES) {
                context.arm(self.handles().turn, context.now() + NOT_READY);
                break;
            }
            let part = body.grow(room).expect("the room was asked for");
            let length = context.read_snapshot(&mut part[PART_HEAD_BYTES..]);
            let last = length < room - PART_HEAD_BYTES;
            let stateless = giving.stage == Stage::Stateless;
            let flags = (u8::from(last) * LAST) | (u8::from(stateless) * STATELESS);
            part[..2].copy_from_slice(&[kind::PART, flags]);
            part[2..PART_HEAD_BYTES].copy_from_slice(&giving.at.to_le_bytes());
            body.truncate(PART_HEAD_BYTES + length);
            context.send_reliable(self.wanting(), body).expect("there was room for it");
            giving.at += length as u64;
            giving.part_bytes = room as u64;
            giving.burst += room;
            (sent, room_left) = (sent + 1, room_left - 1);
            self.giving = Some(giving);
            if last {
                context.count("state given");
                self.given(context);
                return;
            }
        }
        if self.wanting().is_empty() {
            self.given(context);
        }
    }

    /// The snapshot is needed no more.
    fn given(&mut self, context: &mut Context<'_>) {
        self.giving = None;
        context.drop_snapshot();
    }

    /// `origin` has the state, it says.
    fn has(&mut self, context: &mut Context<'_>, origin: Rank) {
        self.lacks.remove(origin);
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
            }
        }
    }

    /// `origin`, which may be this member, is full.
    fn is_full(&mut self, context: &mut Context<'_>, origin: Rank) {
        let Handles { casts_held, sends_held, .. } = self.handles();
        self.full.insert(origin);
        if self.flushing {
            return;
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

    /// `origin` begins to give the state.
    fn begin(&mut self, context: &mut Context<'_>, origin: Rank, lacks: RankSet) {
        self.has(context, origin);
        // Whoever is known to have it has it.
        self.lacks = self.lacks.and(lacks);
        match self.own {
            Own::Lacks { donor, .. } => {
                self.lacks.insert(context.rank());
                if donor.is_none_or(|donor| origin < donor) {
                    self.own = Own::Lacks { donor: Some(origin), at: 0 };
                }
            }
            Own::Refused => self.lacks.insert(context.rank()),
            Own::Has | Own::Whole => {
                self.lacks.remove(context.rank());
                if self.giving.is_some() && origin < context.rank() {
                    self.given(context);
                }
                if lacks.contains(context.rank()) && self.own == Own::Has && !self.flushing {
                    self.say(context, Say::Have);
                }
            }
        }
    }

    /// A part of the state.
    fn part(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        let payload = message.list.payload();
        let Some((head, bytes)) = payload.split_at_checked(PART_HEAD_BYTES) else {
            context.count("part that does not decode");
            return;
        };
        let flags = head[1];
        let mut at = [0; 8];
        at.copy_from_slice(&head[2..]);
        let at = u64::from_le_bytes(at);
        match self.own {
            Own::Lacks { donor: Some(donor), at: expected } if donor == origin && at == expected => {}
            _ => {
                context.count("part of a state that is not taken in");
                return;
            }
        }
        let last = flags & LAST != 0;
        if flags & STATELESS == 0 {
            let (frame, to) = (message.list.frame().clone(), message.list.to());
            let list = crate::stack::event::List::single(frame, to - bytes.len(), to);
            context.up(Up::State(StateBytes { donor: origin, at, last, list }));
        }
        let through = at + bytes.len() as u64;
        self.own = Own::Lacks { donor: Some(origin), at: through };
        if self.options.broken == Broken::HasTooEarly && at == 0 && !last {
            self.say(context, Say::Have);
        }
        if through / TELL_BYTES > at / TELL_BYTES {
            context.gossip_now(false);
        }
        if last {
            // The application has its say first.
            self.own = Own::Whole;
            self.turn_now(context);
        }
    }

    /// Whether nobody in this view has the state, and what follows from it for this member.
    fn found(&mut self, context: &mut Context<'_>) {
        let Own::Lacks { donor: None, .. } = self.own else { return };
        let all_lack = Xfer::others(context).without(self.said).without(self.refused).is_empty();
        if self.flushing || !all_lack {
            return;
        }
        if !self.options.go_on {
            context.count("left because nobody had the state");
            context.up(Up::StateLost { goes_on: false });
            let why = "all members that had the group's state are gone, and nobody else has got all of it: this process \
                       leaves (lost=leave)";
            self.refuse(context, why.to_owned());
            context.down(Down::Leave);
            return;
        }
        let first = self.wanting().iter().next();
        if first != Some(context.rank()) {
            return;
        }
        context.count("nobody had the state");
        context.up(Up::StateLost { goes_on: true });
        self.own = Own::Whole;
        self.lacks.remove(context.rank());
        if !self.wanting().is_empty() {
            self.become_donor(context);
        }
        self.turn_now(context);
    }

    /// Hands on what was held, a bounded part of it at a time.
    fn release(&mut self, context: &mut Context<'_>) {
        if self.own != Own::Whole || self.giving.is_some_and(|giving| giving.stage == Stage::Asked) {
            return;
        }
        for _ in 0..RELEASE_MAX {
            let Some(event) = self.hold.pop() else {
                self.complete(context);
                return;
            };
            context.up(event);
        }
        let now = context.now();
        let rounds = if self.rounds.0 == now { self.rounds.1 + 1 } else { 1 };
        self.rounds = (now, rounds);
        // The end of the view waits for all of it.
        let pause = rounds >= RELEASES_PER_ITERATION && !self.flushing;
        context.arm(self.handles().turn, now + Duration::from_nanos(u64::from(pause)));
    }

    /// This member has the state and has delivered what was held.
    fn complete(&mut self, context: &mut Context<'_>) {
        let own = context.rank();
        self.own = Own::Has;
        self.hold.clear();
        self.has(context, own);
        for rank in (0..context.view().size()).map(Rank::at) {
            self.handles().deliver.into_iter().for_each(|guard| context.open(guard, rank));
        }
        if std::mem::take(&mut self.stable_held) {
            context.up(Up::Stable);
        }
        // The application was asked to stop in a view of which it had not been told yet.
        if std::mem::take(&mut self.blocks_early) {
            context.up(Up::Flush);
        }
        context.count("state complete");
        self.known = Xfer::others(context).is_empty();
        if !self.flushing {
            self.say(context, Say::Have);
        }
    }

    /// It is over for this member.
    fn refuse(&mut self, context: &mut Context<'_>, why: String) {
        self.own = Own::Refused;
        self.hold.clear();
        context.problem(None, why);
        if !self.flushing {
            self.say(context, Say::Refused);
        }
    }

    /// An event at a member that has not got the state yet.
    fn keep(&mut self, context: &mut Context<'_>, event: Up) {
        match event {
            Up::Stable => self.stable_held = true,
            Up::Send(_, ref message) if message.is_control() => context.up(event),
            Up::View(_)
            | Up::Cast(..)
            | Up::Send(..)
            | Up::Transitional(_)
            | Up::Suspect(_)
            | Up::Slow(_)
            | Up::Leave(_)
            | Up::LostMessage { .. } => {
                if self.own == Own::Refused {
                    return;
                }
                if matches!(event, Up::View(_)) {
                    // Sends of the view before wait already.
                    self.hold.push_first(event);
                    return;
                }
                self.hold.push(event, context.layer > 0);
                if self.hold.bytes() >= self.options.hold_bytes && !self.full_said {
                    self.full_said = true;
                    self.filled(context);
                }
            }
            event => context.up(event),
        }
    }

    fn filled(&mut self, context: &mut Context<'_>) {
        if self.options.leave {
            let why = format!(
                "more than {} KiB were cast in the group before its state was complete here (hold_kib_max)",
                self.options.hold_bytes >> 10
            );
            self.refuse(context, why);
            context.down(Down::Leave);
            return;
        }
        self.is_full(context, context.rank());
        if !self.flushing {
            self.say(context, Say::Full);
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
        });
    }

    fn start(&mut self, context: &mut Context<'_>) {
        let own = context.rank();
        let peer = context.view().others().next();
        self.limits = Limits {
            room: peer.map_or(0, |peer| context.reliable_room(peer)) / LEFT_SHARE,
            frames: context.control_frames_free() / LEFT_SHARE as usize,
            parts: context.long_frames().map_or(u64::MAX, |(all, _)| (all - all.div_ceil(4)).max(1) as u64),
        };
        let Some(legacy) = self.legacy.take() else { return };
        if legacy.waited {
            context.count("transfer begun anew in the next view");
        }
        let view = context.view();
        let ranks = || (0..view.size()).map(Rank::at);
        let among = |list: &[Incarnation], rank: Rank| list.contains(&view.member(rank).incarnation);
        self.lacks = ranks().filter(|rank| !among(&legacy.complete, *rank)).collect();
        self.refused = ranks().filter(|rank| among(&legacy.leaving, *rank)).collect();
        self.known = legacy.known;
        if legacy.has {
            self.lacks.remove(own);
            if !legacy.known {
                self.say(context, Say::Have);
            }
            let lower = RankSet::all(own.index());
            if !self.wanting().is_empty() && lower.without(self.lacks).is_empty() {
                self.become_donor(context);
            }
            return;
        }
        self.hold = legacy.sends;
        let same_stack = legacy.spec == view.view().spec;
        let keeps_hold = self.options.broken == Broken::KeepsHold;
        self.hold.keep_sends(keeps_hold, |old| view.rank_of(legacy.members[old.index()]));
        if !same_stack {
            self.hold.drop_headers();
        }
        self.own = if legacy.refused { Own::Refused } else { Own::Lacks { donor: None, at: 0 } };
        self.lacks.insert(own);
        for rank in (0..context.view().size()).map(Rank::at) {
            self.handles().deliver.into_iter().for_each(|guard| context.close(guard, rank));
        }
        self.say(context, if legacy.refused { Say::Refused } else { Say::Lacks });
    }

    fn bequeath(&mut self) -> Option<Box<dyn Any>> {
        self.next.as_ref()?;
        Some(Box::new(self.legacy.take()?))
    }

    fn inherit(&mut self, legacy: Box<dyn Any>) {
        self.legacy = legacy.downcast::<Legacy>().ok().map(|legacy| *legacy);
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.up(&[Flow::Cast, Flow::Send])
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        match event {
            Down::Snapshot(taken) => match &mut self.giving {
                Some(giving) if giving.stage == Stage::Asked => {
                    giving.stage = if taken { Stage::Parts } else { Stage::Stateless };
                    self.say(context, Say::Begin);
                }
                _ => context.drop_snapshot(),
            },
            Down::StateRefused(why) => {
                self.refuse(context, format!("the group's state was not taken in: {why}"))
            }
            event => context.down(event),
        }
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        match event {
            Up::NextView(next) => {
                let view = context.view();
                let has = |rank: &Rank| !self.lacks.contains(*rank) && *rank != view.rank();
                let incarnation = |rank: Rank| view.member(rank).incarnation;
                let complete: Vec<Incarnation> = next.together.iter().filter(has).map(incarnation).collect();
                let mut sends = std::mem::take(&mut self.hold);
                match self.options.broken {
                    Broken::DropsSends => sends.clear(),
                    broken => sends.keep_sends(broken == Broken::KeepsHold, |rank| {
                        next.together.contains(rank).then_some(rank)
                    }),
                }
                self.legacy = Some(Legacy {
                    has: self.own == Own::Has && !next.guest,
                    known: self.known,
                    refused: self.own == Own::Refused,
                    waited: matches!(self.own, Own::Lacks { .. }),
                    complete: if next.guest { Vec::new() } else { complete },
                    leaving: self.refused.iter().map(incarnation).collect(),
                    sends,
                    members: (0..view.size()).map(Rank::at).map(incarnation).collect(),
                    spec: view.view().spec.clone(),
                });
                self.given(context);
                context.disarm(self.handles().turn);
                self.next = Some(Rc::clone(&next));
                context.up(Up::NextView(next));
            }
            Up::Flush if self.own == Own::Whole => {
                // Everything of this view is handed on before it may end.
                self.flush(context);
                self.hold.push(Up::Flush, false);
                self.turn_now(context);
            }
            Up::Flush => {
                self.flush(context);
                self.blocks_early = self.waits();
                context.up(Up::Flush);
            }
            Up::Exit(ExitReason::Left) if self.own == Own::Refused => context.exit(ExitReason::NoState),
            // What an ordering layer releases at the end of the view: it is in the next snapshot.
            Up::Cast(..) if self.waits() && self.next.is_some() => {}
            event if self.waits() && self.next.is_none() => self.keep(context, event),
            event => context.up(event),
        }
    }

    fn control(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        if self.next.is_some() {
            return;
        }
        let payload = message.list.payload();
        match payload.first() {
            Some(&kind::LACKS) => {
                self.lacks.insert(origin);
                self.said.insert(origin);
                self.found(context);
            }
            Some(&kind::BEGIN) if payload.len() == BEGIN_BYTES => {
                let mut words = [0; MEMBERS_MAX / 64];
                for (word, bytes) in words.iter_mut().zip(payload[1..].chunks_exact(8)) {
                    *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
                }
                self.begin(context, origin, RankSet::from_words(words));
            }
            Some(&kind::PART) => self.part(context, origin, message),
            Some(&kind::HAVE) => {
                self.has(context, origin);
                self.turn_now(context);
            }
            Some(&kind::REFUSED) => {
                self.lacks.insert(origin);
                self.refused.insert(origin);
                context.count("state refused by its receiver");
                self.let_off(context, origin);
                self.found(context);
                self.turn_now(context);
            }
            Some(&kind::FULL) if self.lacks.contains(origin) => self.is_full(context, origin),
            _ => context.count("transfer message that does not decode"),
        }
    }

    fn timer(&mut self, context: &mut Context<'_>, _timer: TimerId) {
        if self.next.is_some() {
            return;
        }
        if self.options.broken == Broken::LateSnapshot
            && self.giving.is_some_and(|giving| giving.stage == Stage::Asked)
        {
            context.up(Up::Snapshot);
        }
        self.found(context);
        self.release(context);
        self.speak(context);
        self.give(context);
    }

    fn post(&mut self, context: &mut Context<'_>) {
        if self.next.is_some() || self.flushing {
            return;
        }
        // Frames are not looked at here: a fork of the stack takes some, too, and must come to the same result.
        let gives = self
            .giving
            .as_ref()
            .is_some_and(|giving| giving.stage != Stage::Asked && self.room(context, giving) > 0);
        if gives || !self.unsaid.is_empty() {
            context.arm_if_idle(self.handles().turn, context.now());
        }
    }

    fn common_case(&self, _kind: Kind, _case: &mut CommonCase<'_>) -> Fast {
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        let own = match self.own {
            Own::Has => 0,
            Own::Whole => 1,
            Own::Refused => 2,
            Own::Lacks { donor, at } => 3 + donor.map_or(0, |donor| 1 + u64::from(donor.0)) + (at << 16),
        };
        digest.word(own);
        for set in [self.lacks, self.said, self.full, self.refused] {
            set.words().into_iter().for_each(|word| digest.word(word));
        }
        digest.word(self.hold.bytes());
        digest.word(self.unsaid.len() as u64);
        digest.word(self.giving.map_or(u64::MAX, |giving| giving.at));
        digest.word(u64::from(self.flushing));
    }

    fn dump(&self, _context: &Context<'_>) -> Option<String> {
        let own = match self.own {
            Own::Has => "has the state".to_owned(),
            Own::Whole => "has the state, and hands on what was held".to_owned(),
            Own::Lacks { donor: None, .. } => "waits for a donor".to_owned(),
            Own::Lacks { donor: Some(donor), at } => format!("has {at} bytes of the state of member {donor}"),
            Own::Refused => "could not take in the state, and leaves".to_owned(),
        };
        let giving = self.giving.map_or(String::new(), |giving| format!("; has given {} bytes", giving.at));
        Some(format!(
            "{own}; without it {:?}, full {:?}; holds {} of at most {} KiB{giving}",
            self.lacks,
            self.full,
            self.hold.bytes() >> 10,
            self.options.hold_bytes >> 10
        ))
    }
}
