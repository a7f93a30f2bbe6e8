//! TOTAL: all members deliver all casts in one order, by turns.
//!
//! | | |
//! |---|---|
//! | requires | P9 virtual synchrony, P25 self-delivery |
//! | provides | P6 total order, P5 causal order |
//! | promises | what two members deliver of one view is in the same order at both, also if they part; members that go together deliver the same |
//! | costs | one bit on each cast; a lone sender waits for nobody, of several each waits for its turn |
//!
//! Those who cast at present, and nobody else, stand in a *ring* and take turns. Whose turn it is follows from what has
//! been delivered ([`turns`](crate::stack::turns)): a member casts what waits, marks the last one, and by delivering that
//! everybody knows that it is the turn of its successor. There is no token apart from the casts, so none can be lost or
//! doubled: NAK repairs what carries it. The casts of others that came before their turn wait in the order queue.
//!
//! ```text
//! ring A, B            A ── 7, 8* ──▶            (* ends the turn of A)
//!                      ◀── 3* ── B               (B casts what waited, and ends its own)
//! C wants to cast      C ── may I? ──▶           best effort, repeated
//! ring A, C, B         A ── 9* (invites C) ──▶   a blank: nothing for the application
//!                      ◀── 0* ── C
//! B has nothing        B ── 4* ──▶               a blank; the `leave`th time in a row with a note: B leaves
//! ring A, C
//! ```
//!
//! A member alone in the ring keeps the turn: it casts at the cost of FIFO. One that gets the turn and has nothing to cast
//! passes it on in the same iteration, and what it casts for that takes the plans like any other cast. The ring changes only by what is delivered, so
//! all members know it. Each view begins with the first member alone in it.
//!
//! A turn that begins when somebody outside the ring wants to cast has no mark on its casts: a blank ends it, which invites.
//! So a member that has something to cast whenever its turn comes invites like any other, and everybody's cast waits for a
//! bounded number of those of others.
//!
//! In a flush nobody waits for a turn any more: with MBRSHIP's `block` what was cast before belongs to this view, and
//! whoever has stopped cannot hand the turn on. When the view ends, everything that its turns put in order is delivered,
//! then what else the survivors cast, by rank. A cast of a member that has failed may follow on one that nobody has any
//! more, that of another failed member: what of the failed is not in order by then is delivered nowhere. What turns put
//! in order before a cast of a survivor is always there: it had delivered it.
//!
//! After the TOTAL layer of Horus (van Renesse, Birman, Maffeis, 1996: "the token rotates among the current senders");
//! invitation and leaving by casts, from Totem's rule that all there is to know travels with the token.

use std::time::Duration;

use super::misorder::Misorder;
use crate::accel::case::{CommonCase, Target};
use crate::id::{Hasher64, Rank, RankSet};
use crate::stack::backoff::Backoff;
use crate::stack::build::{Build, Closes, Field, GuardKind, HeldFor, Prompts, TimerId};
use crate::stack::event::{Down, Message, Up};
use crate::stack::layer::{BLANK_RETRY, Context, Fast, Kind, Layer};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{LayerEntry, ParameterError, Parameters};
use crate::stack::turns::{OUT, Says, Turns, phase};
use crate::wire::Traffic;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "TOTAL",
        about: "one order for all casts, by turns of those who cast",
        requires: Properties::of(&[Property::VirtuallySynchronous, Property::SelfDelivery]),
        provides: Properties::of(&[Property::Total, Property::Causal]),
        destroys: Properties::NONE,
        cost: 5,
        parameters: &[
            (
                "burst",
                "the most frames of one turn, of what waits when it begins, if others cast too (default 64)",
            ),
            (
                "idle_us",
                "how long a member with nothing to cast keeps the turn, if others cast too, in microseconds (default 0)",
            ),
            ("leave", "so many turns in a row without a cast end in leaving the ring (default 4)"),
            ("ask_us", "after how long a request for a turn is repeated, in microseconds (default 200)"),
            ("backoff_us", "the longest interval between repetitions, in microseconds (default 50000)"),
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| Ok(Box::new(Total::new(parameters)?)),
    }
}

#[derive(Clone)]
struct Total {
    broken: Misorder,
    burst: u64,
    idle: Duration,
    leave: u64,
    ask: Backoff,
    handles: Option<Handles>,
    /// Members that have asked for a turn.
    wanting: RankSet,
    /// The last that was invited.
    guest: Rank,
    /// Turns in a row without a cast of the application, and the frame number after the last of them.
    quiet: u64,
    quiet_at: u64,
    /// It has kept the turn for as long as it may with nothing to cast.
    kept: bool,
}

#[derive(Clone, Copy)]
struct Handles {
    turns: Turns,
    number: Field,
    pass: TimerId,
    ask: TimerId,
}

impl Total {
    fn new(parameters: &Parameters) -> Result<Total, ParameterError> {
        let micros = |name, default, least| {
            parameters.number(name, default, least..=10_000_000).map(Duration::from_micros)
        };
        Ok(Total {
            broken: Misorder::of(parameters)?,
            // As many as wait by default (`waiting_frames_max`): handing a turn on costs its next owner's waking, where members
            // share processors.
            burst: parameters.number("burst", 64, 1..=1 << 20)?,
            idle: micros("idle_us", 0, 0)?,
            leave: parameters.number("leave", 4, 1..=1 << 20)?,
            ask: Backoff::new(micros("ask_us", 200, 1)?, micros("backoff_us", 50_000, 1)?),
            handles: None,
            wanting: RankSet::EMPTY,
            guest: Rank(0),
            quiet: 0,
            quiet_at: 0,
            kept: false,
        })
    }

    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }

    /// Whether it is this member's turn, and it has not ended it yet.
    fn has_turn(&self, context: &Context<'_>) -> bool {
        let turns = self.handles().turns;
        !context.is_closed(turns.waits, context.rank()) || context.ends_in_blank(&turns)
    }

    fn next(&self, context: &Context<'_>, rank: Rank) -> u64 {
        context.of(self.handles().turns.next, rank)
    }

    fn is_in_ring(&self, context: &Context<'_>, rank: Rank) -> bool {
        self.next(context, rank) != OUT
    }

    fn is_alone(&self, context: &Context<'_>) -> bool {
        self.next(context, context.rank()) == u64::from(context.rank().0)
    }

    /// Whether this member, whose turn it is, has nothing to cast and keeps others waiting. What it holds in order it may
    /// still answer.
    fn is_idle(&self, context: &Context<'_>) -> bool {
        !self.is_alone(context) && !context.casts_waiting() && !context.holds_in_order()
    }

    /// Whose wish it is now to take turns: of those in the ring it is fulfilled. As long as there are others, each turn here
    /// ends in a blank, which invites the first after the last one that was invited.
    fn set_wanting(&mut self, context: &mut Context<'_>, wanting: RankSet) -> Option<Rank> {
        let fulfilled = wanting.iter().filter(|rank| self.is_in_ring(context, *rank));
        self.wanting =
            wanting.without(fulfilled.fold(RankSet::EMPTY, |set, rank| set.with(RankSet::one(rank))));
        let first = self.wanting.iter().next().filter(|_| !self.broken.is(Misorder::NeverInvites));
        context.set(self.handles().turns.blank, u64::from(first.is_some()));
        let next = self.wanting.iter().find(|rank| *rank > self.guest);
        first.map(|first| next.unwrap_or(first))
    }

    /// A cast is delivered: whose turn is it now?
    fn delivered(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        let turns = self.handles().turns;
        let number = message.number;
        if message.field(turns.mark) == 0
            || self.broken.is(Misorder::IgnoresMarks) && !message.list.is_empty()
        {
            return;
        }
        let says = if message.list.is_empty() { Says::decode(message.list.note()) } else { None };
        match (self.broken, says) {
            (Misorder::GivesTwice, Some(Says::Passes)) => {
                context.end_turn(&turns, origin, number, &message.list);
                context.hand_to(&turns, origin, number, Rank(0));
            }
            (Misorder::LeavesAlone, Some(Says::Leaves)) if origin != context.rank() => {
                let next = self.next(context, origin);
                context.set_of(turns.next, origin, OUT);
                context.hand_to(&turns, origin, number, Rank(next as u16));
            }
            (Misorder::GuestBefore, Some(Says::Invites(guest)))
                if origin == context.rank() && !self.is_alone(context) =>
            {
                context.set_of(turns.next, guest, u64::from(origin.0));
                context.hand_to(&turns, origin, number, guest);
            }
            _ => context.end_turn(&turns, origin, number, &message.list),
        }
    }

    /// Ends this member's turn by a blank, if there is a reason.
    fn pass(&mut self, context: &mut Context<'_>) {
        let kept = std::mem::take(&mut self.kept) || self.idle.is_zero();
        let Handles { turns, pass, .. } = self.handles();
        let ends = context.get(turns.phase) != phase::TURNS;
        if ends || !self.has_turn(context) {
            return;
        }
        let owes_blank = context.ends_in_blank(&turns);
        if !context.may_cast() {
            if owes_blank && context.casts_take_all_numbers() {
                // There is none for a blank: the turn goes on for the casts that wait, the last of which ends it.
                context.set(turns.blank, 0);
                context.take_turn(&turns);
            } else if owes_blank {
                context.finish_message(&turns);
            }
            return;
        }
        let guest = self.set_wanting(context, self.wanting);
        let idle = kept && self.is_idle(context);
        let begun = context.next_frame_number();
        let quiet = if begun == self.quiet_at { self.quiet + 1 } else { 1 };
        let says = match guest {
            Some(guest) => Says::Invites(guest),
            None if self.broken.is(Misorder::NeverPasses) => return,
            None if idle && quiet >= self.leave => Says::Leaves,
            None if idle || owes_blank => Says::Passes,
            None => {
                // What kept the turn here may be over: the time for which it is kept without a reason begins then.
                if !kept && self.is_idle(context) {
                    context.arm_if_idle(pass, context.now() + self.idle);
                }
                return;
            }
        };
        if context.cast_blank(says.encode(&mut [0; 3])).is_err() {
            context.count("turn kept for want of a frame");
            context.arm(pass, context.now() + BLANK_RETRY);
            return;
        }
        context.last_of_turn(&turns);
        context.disarm(pass);
        if let Says::Invites(guest) = says {
            // It may come and go before the next look at the ring, and is not to be invited for ever.
            self.guest = guest;
            self.set_wanting(context, self.wanting.without(RankSet::one(guest)));
        }
        (self.quiet, self.quiet_at) = if idle { (quiet, begun + 1) } else { (0, 0) };
        context.count(match says {
            Says::Passes => "turns passed on",
            Says::Leaves => "turns passed on in leaving",
            Says::Invites(_) => "invitations",
        });
    }

    /// Asks for a turn.
    fn request(&mut self, context: &mut Context<'_>) {
        if let Ok(mut body) = context.control_frame() {
            body.extend(&[WANTS]).expect("a frame holds a byte");
            let others = context.view().others().collect();
            context.send_raw(others, body);
            context.count("requests for a turn");
        }
    }
}

/// The one request there is.
const WANTS: u8 = 1;

impl Layer for Total {
    fn name(&self) -> &'static str {
        "TOTAL"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        let number = build.frame_number().expect("FIFO multicast numbers casts");
        let turns = Turns {
            mark: build.mark_field(Traffic::Cast, "ends"),
            free: build.member_slot(),
            next: build.member_slot(),
            waits: build.guard(GuardKind::CastSend, "not its turn", Closes::Entry(HeldFor::Turn)),
            mark_at: build.slot(),
            over_at: build.slot(),
            blank: build.slot(),
            phase: build.slot(),
            // What others hold of one turn until all have it, as SAFE does, is to find room.
            burst: self.burst.min(build.order_share()),
        };
        self.handles = Some(Handles { turns, number, pass: build.timer("pass"), ask: build.timer("ask") });
        build.prompt(Prompts::IfAsked);
    }

    fn start(&mut self, context: &mut Context<'_>) {
        let turns = self.handles().turns;
        for rank in (0..context.view().size()).map(Rank::at) {
            let everybody = self.broken.is(Misorder::EverybodyFirst) && rank == context.rank();
            let first = rank == Rank(0) && !self.broken.is(Misorder::EverybodyFirst) || everybody;
            context.set_of(turns.next, rank, if first { u64::from(rank.0) } else { OUT });
            let free = first || self.broken.is(Misorder::FreeForAll);
            context.set_of(turns.free, rank, if free { u64::MAX } else { 0 });
        }
        if context.of(turns.next, context.rank()) != OUT {
            context.take_turn(&turns);
        } else if !self.broken.is(Misorder::CastsOutOfTurn) {
            context.close(turns.waits, context.rank());
        }
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.down(&[Flow::Cast]).up(&[Flow::Cast])
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        match event {
            Down::Cast(mut message) => {
                let turns = self.handles().turns;
                let marked = context.spend_turn(&turns);
                message.set_field(turns.mark, u64::from(marked));
                context.down(Down::Cast(message));
            }
            event => context.down(event),
        }
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        let turns = self.handles().turns;
        match event {
            Up::Cast(origin, message)
                if context.of(turns.free, origin) <= message.number
                    || context.holds_before(origin, message.number) =>
            {
                context.hold(origin, turns.free, message);
            }
            Up::Cast(origin, message) => {
                self.delivered(context, origin, &message);
                let message = self.broken.delivered(message);
                context.up(Up::Cast(origin, message));
            }
            Up::Flush => {
                // Those who have stopped casting cannot hand the turn on any more.
                if !self.broken.is(Misorder::WaitsInFlush) {
                    context.flush_turns(&turns);
                }
                context.up(Up::Flush);
            }
            Up::NextView(next) => {
                let of = match self.broken {
                    Misorder::DropsLeftovers => RankSet::EMPTY,
                    Misorder::KeepsTheFailed => RankSet::all(context.view().size()),
                    _ => next.survivors,
                };
                context.end_turns(&turns, of, !self.broken.is(Misorder::LeftoversAsTheyCame));
                context.up(Up::NextView(next));
            }
            event => context.up(event),
        }
    }

    fn control(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        if message.list.payload() != [WANTS] {
            context.count("request that does not decode");
        } else if self.is_in_ring(context, origin) {
            context.count("request of one in the ring");
        } else {
            self.set_wanting(context, self.wanting.with(RankSet::one(origin)));
            let turns = self.handles().turns;
            let keeps_turn =
                context.get(turns.over_at) == u64::MAX && context.get(turns.phase) == phase::TURNS;
            if keeps_turn && context.get(turns.blank) != 0 {
                // It was alone and its turn without end, which it is no more.
                context.take_turn(&turns);
            }
            context.prompt_soon();
        }
    }

    fn timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        if timer == self.handles().pass {
            self.kept = true;
            context.prompt_soon();
        } else {
            if !self.broken.is(Misorder::AsksNobody) {
                self.request(context);
            }
            self.ask.repeat(context.now());
            if !self.broken.is(Misorder::AsksOnce) {
                context.arm(timer, self.ask.due());
            }
        }
    }

    fn prompt(&mut self, context: &mut Context<'_>) -> RankSet {
        self.pass(context);
        RankSet::EMPTY
    }

    fn post(&mut self, context: &mut Context<'_>) {
        let Handles { turns, pass, ask, .. } = self.handles();
        if context.get(turns.phase) != phase::TURNS {
            self.ask.settle();
            context.disarm(pass);
            context.disarm(ask);
            return;
        }
        let invites = self.set_wanting(context, self.wanting).is_some() || context.ends_in_blank(&turns);
        let has_turn = self.has_turn(context);
        let idle = has_turn && self.is_idle(context);
        if idle && !self.idle.is_zero() {
            context.arm_if_idle(pass, context.now() + self.idle);
        } else {
            context.disarm(pass);
        }
        if idle && self.idle.is_zero() || has_turn && invites {
            context.prompt_soon();
        }
        if context.casts_waiting() && !self.is_in_ring(context, context.rank()) {
            if context.is_closed(turns.waits, context.rank()) && self.ask.due() == crate::time::Time::NEVER {
                self.ask.begin(context.now());
                context.arm(ask, context.now());
            }
        } else {
            self.ask.settle();
            context.disarm(ask);
        }
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        let Handles { turns, number, .. } = self.handles();
        if self.broken.is_of_blanks() && kind.delivers() {
            return Fast::Opaque("what blanks say is followed wrongly");
        }
        match kind {
            Kind::CastSend => {
                case.mark_from(number, Target::Own(turns.mark_at), turns.mark);
                case.limit(number, Target::Own(turns.over_at), turns.waits);
                Fast::Declared
            }
            Kind::CastDeliver | Kind::SelfDeliver => {
                case.turns(turns);
                Fast::Declared
            }
            Kind::SendSend | Kind::SendDeliver => Fast::Transparent,
        }
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        self.wanting.words().into_iter().for_each(|word| digest.word(word));
        digest.word(u64::from(self.guest.0));
        digest.word(self.quiet);
        digest.word(self.quiet_at);
        digest.word(u64::from(self.kept));
        self.ask.digest(digest);
    }

    fn time_outs(&self) -> Vec<(&'static str, Duration)> {
        vec![("idle", self.idle), ("ask", self.ask.first()), ("backoff", self.ask.longest())]
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let turns = self.handles().turns;
        let mut ring = Vec::new();
        let members = || (0..context.view().size()).map(Rank::at);
        let turn = members().find(|rank| context.of(turns.free, *rank) == u64::MAX)?;
        let mut at = turn;
        while ring.len() < context.view().size() && self.is_in_ring(context, at) {
            ring.push(at.to_string());
            at = Rank(self.next(context, at) as u16);
            if at == turn {
                break;
            }
        }
        Some(format!(
            "turn of {turn}, ring {}; here {}, wanting {:?}",
            ring.join(" "),
            if self.has_turn(context) { "casting" } else { "waiting" },
            self.wanting
        ))
    }
}
