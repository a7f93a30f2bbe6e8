//! SEQUENCER: all members deliver all casts in one order, which one of them says.
//!
//! | | |
//! |---|---|
//! | requires | P9 virtual synchrony, P25 self-delivery |
//! | provides | P6 total order, P5 causal order |
//! | promises | members that go on together deliver the same in the same order; with SAFE above, so does whoever fails or parts, as far as it delivers while the view is whole, of safe casts and of agreed ones before a safe one it delivers |
//! | costs | no bits on casts; those of the sequencer wait for nobody, all others for a message to it and one back; one order per iteration in which it received anything |
//!
//! The first member of the view is its *sequencer*. Everybody casts when it likes. What has come to the sequencer it puts
//! into an *order*, a blank whose note says whose casts come next and how many ([`script`](crate::stack::script)); it casts
//! it in the iteration in which they came, and the plans carry it, and follow it, as they do any other cast;
//! its own stand in the group's order where they stand among its casts. Casts that came before their order wait in the
//! order queue.
//!
//! ```text
//! A (sequencer)     ── 0, 1 ──▶                 delivered as they come
//! B  ── 0, 1 ──▶    A, C: wait
//! C  ── 0 ──▶       A, B: wait
//! A                 ── 2 [B 2, C 1] ──▶         everywhere: B0, B1, C0
//! ```
//!
//! An order is as reliable as any cast: NAK repairs it. When the view ends, everybody that goes on has the same casts and
//! the same orders. What these leave is delivered by rank, if its origin goes on; the rest nowhere: it may follow on what
//! an order lost with the sequencer said. That the sequencer dies is a view change like any other, and the next view has
//! its own.
//!
//! A sequencer that fails may have delivered by an order that nobody else ever got. Those who go on do not notice, but
//! whoever listened to it does. With SAFE above, what an order puts in order waits until every member holds the order, a
//! cast like others, so nobody can have delivered a safe cast by one that is lost. An agreed cast ([`agreed`](crate::group::Group::agreed)) does not wait
//! for that: it is delivered by an order that only the sequencer may hold, until a safe cast after it is delivered. TOTAL has this for nothing: whoever casts knows
//! whose turn it is.
//!
//! After the sequencer of Amoeba (Kaashoek, Tanenbaum, 1991: "BB", the sender multicasts and the sequencer accepts) and of
//! ISIS (Birman, Schiper, Stephenson, 1991: orders for runs of messages).

use super::misorder::Misorder;
use crate::accel::case::CommonCase;
use crate::id::{Hasher64, Rank, RankSet};
use crate::stack::build::{Build, Prompts, TimerId};
use crate::stack::event::{Message, Up};
use crate::stack::layer::{BLANK_RETRY, Context, Fast, Kind, Layer};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{LayerEntry, ParameterError, Parameters};
use crate::stack::script::{Run, Script};

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "SEQUENCER",
        about: "one order for all casts, which the first member says",
        requires: Properties::of(&[Property::VirtuallySynchronous, Property::SelfDelivery]),
        provides: Properties::of(&[Property::Total, Property::Causal]),
        destroys: Properties::NONE,
        cost: 4,
        parameters: &[
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| Ok(Box::new(Sequencer::new(parameters)?)),
    }
}

/// Who orders.
const SEQUENCER: Rank = Rank(0);
/// Runs in an order at most: there is always room for them.
const RUNS_MAX: usize = 8;
const _: () = assert!(RUNS_MAX * Run::BYTES <= 60);

#[derive(Clone)]
struct Sequencer {
    broken: Misorder,
    handles: Option<Handles>,
    /// At the sequencer, by origin: how many casts it has put into orders.
    ordered: Vec<u64>,
    /// Whose casts come first in the next order, if they do not all fit one.
    first: usize,
    /// The view has ended: nothing is ordered any more.
    over: bool,
}

#[derive(Clone, Copy)]
struct Handles {
    script: Script,
    /// After which an order that found no frame is tried again.
    retry: TimerId,
}

impl Sequencer {
    fn new(parameters: &Parameters) -> Result<Sequencer, ParameterError> {
        Ok(Sequencer {
            broken: Misorder::of(parameters)?,
            handles: None,
            ordered: Vec::new(),
            first: 0,
            over: false,
        })
    }

    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }

    fn orders(&self, context: &Context<'_>) -> bool {
        context.rank() == self.handles().script.sequencer
    }

    /// Casts of `origin` that have come and are in no order yet.
    fn unordered(&self, context: &Context<'_>, origin: usize) -> u64 {
        match Rank::at(origin) == context.rank() {
            true => 0,
            false => context.accepted(Rank::at(origin)) - self.ordered[origin],
        }
    }

    /// Whether there is something to order, and a way for it.
    fn has_orders(&self, context: &Context<'_>) -> bool {
        self.orders(context)
            && !self.broken.is(Misorder::NeverOrders)
            && context.may_cast()
            && (0..context.view().size()).any(|origin| self.unordered(context, origin) > 0)
    }

    /// Casts an order of what has come.
    fn cast_order(&mut self, context: &mut Context<'_>) {
        let members = context.view().size();
        let mut note = [0; RUNS_MAX * Run::BYTES];
        let mut runs = note.as_chunks_mut::<{ Run::BYTES }>().0.iter_mut();
        let mut last = self.first;
        let mut put = [(0, 0); RUNS_MAX];
        let mut count = 0;
        for origin in (0..members).map(|at| (self.first + at) % members) {
            let frames = self.unordered(context, origin).min(u64::from(u32::MAX));
            if frames == 0 {
                continue;
            }
            let Some(run) = runs.next() else { break };
            *run = Run { origin: Rank::at(origin), frames: frames as u32 }.encode();
            put[count] = (origin, frames);
            count += 1;
            last = origin + 1;
        }
        if context.cast_blank(&note[..count * Run::BYTES]).is_err() {
            context.count("order put off for want of a frame");
            context.arm(self.handles().retry, context.now() + BLANK_RETRY);
            return;
        }
        context.count("orders");
        self.first = last % members;
        for (origin, frames) in put.into_iter().take(count) {
            if !self.broken.is(Misorder::OrdersTwice) || frames % 7 != 3 {
                self.ordered[origin] += frames;
            }
        }
        if self.has_orders(context) {
            // What did not fit follows.
            context.prompt_soon();
        }
    }

    /// A cast is delivered: what comes next?
    fn delivered(&self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        let script = self.handles().script;
        let (number, list) = (message.number, &message.list);
        let order = list.is_empty() && origin == script.sequencer;
        let mut runs = list.note().as_chunks::<{ Run::BYTES }>().0.iter().map(Run::decode);
        if self.broken.is(Misorder::ForgetsEnds) && !list.is_empty() {
            return;
        }
        match self.broken {
            Misorder::FollowsTheFirst if order && context.rank() != script.sequencer => {
                context.follow_runs(&script, number, runs.next().into_iter());
            }
            Misorder::FollowsBackwards if order && context.rank().index() % 2 == 1 => {
                context.follow_runs(&script, number, runs.rev());
            }
            _ => context.go_on(&script, origin, number, list),
        }
    }
}

impl Layer for Sequencer {
    fn name(&self) -> &'static str {
        "SEQUENCER"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        let members = build.view().size();
        let two = self.broken.is(Misorder::TwoSequencers) && build.view().rank().index() % 2 == 1;
        let script = Script { free: build.member_slot(), sequencer: if two { Rank(1) } else { SEQUENCER } };
        self.handles = Some(Handles { script, retry: build.timer("retry") });
        self.ordered = vec![0; members];
        if build.view().rank() == script.sequencer {
            // All others wait for its orders; while it casts alone there are none.
            build.prompt(Prompts::IfHeld);
        }
    }

    fn start(&mut self, context: &mut Context<'_>) {
        let script = self.handles().script;
        context.begin_script(&script);
        if self.broken.is(Misorder::FreeForAll) {
            (0..context.view().size()).for_each(|rank| context.set_of(script.free, Rank::at(rank), u64::MAX));
        }
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.up(&[Flow::Cast])
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        let script = self.handles().script;
        match event {
            Up::Cast(origin, message)
                if context.of(script.free, origin) <= message.number
                    || context.holds_before(origin, message.number) =>
            {
                context.hold(origin, script.free, message);
            }
            Up::Cast(origin, message) => {
                self.delivered(context, origin, &message);
                let message = self.broken.delivered(message);
                context.up(Up::Cast(origin, message));
            }
            Up::Flush => {
                // What the sequencer does not order any more is let in until the view ends.
                if !self.broken.is(Misorder::BoundInFlush) {
                    context.lift_order_bound();
                }
                context.up(Up::Flush);
            }
            Up::NextView(next) => {
                let of = match self.broken {
                    Misorder::DropsLeftovers => RankSet::EMPTY,
                    Misorder::KeepsTheFailed => RankSet::all(context.view().size()),
                    _ => next.survivors,
                };
                self.over = true;
                context.release_rest(script.free, of, !self.broken.is(Misorder::LeftoversAsTheyCame));
                context.up(Up::NextView(next));
            }
            event => context.up(event),
        }
    }

    fn timer(&mut self, context: &mut Context<'_>, _: TimerId) {
        context.prompt_soon();
    }

    fn prompt(&mut self, context: &mut Context<'_>) -> RankSet {
        if !self.over && self.has_orders(context) {
            self.cast_order(context);
        }
        RankSet::EMPTY
    }

    fn post(&mut self, context: &mut Context<'_>) {
        // The entry may have been closed when they came.
        if !self.over && self.has_orders(context) {
            context.prompt_soon();
        }
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        if self.broken.is_of_blanks() && kind.delivers() {
            return Fast::Opaque("what blanks say is followed wrongly");
        }
        if matches!(kind, Kind::CastDeliver | Kind::SelfDeliver) {
            case.script(self.handles().script);
            return Fast::Declared;
        }
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        self.ordered.iter().for_each(|number| digest.word(*number));
        digest.word(self.first as u64);
        digest.word(u64::from(self.over));
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let Script { free, sequencer } = self.handles().script;
        let of = |rank: usize| match context.of(free, Rank::at(rank)) {
            u64::MAX => format!("{} goes on", Rank::at(rank)),
            ordered => format!("{} up to {ordered}", Rank::at(rank)),
        };
        let all: Vec<String> = (0..context.view().size()).map(of).collect();
        Some(format!("ordered by {sequencer}: {}", all.join(", ")))
    }
}
