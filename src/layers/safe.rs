//! SAFE: a cast is delivered when every member of the view holds it.
//!
//! | | |
//! |---|---|
//! | requires | P6 total order, P14 stability |
//! | provides | P7 safe delivery |
//! | promises | what is delivered while the view is whole is held by all of its members, with everything before it in the order: whoever goes on from there, wherever to, delivers it too |
//! | costs | no bits; at most a round trip more than agreed order: each member says what it holds as soon as it has it, by the casts with which it answers if these speak of it, else by a frame |
//!
//! *Held* is not *delivered*: a member that holds a cast may crash before its application sees it. What is safe is that
//! nobody who survives can miss it.
//!
//! What is in order waits here until the reports of all members, those that have failed included, cover it. When the
//! view ends they never may; so everything that is in order by then is delivered between the transitional view (if EVS
//! is in the stack) and the next regular one, and promised only to those that go on together.
//!
//! ```text
//! A ── 7 ──▶ B, C          all hold it, nobody knows
//! A ◀── held: A 8 ── B ──▶ C
//! A ◀── held: A 8 ── C ──▶ B        A, B and C deliver 7
//! ```
//!
//! After Totem's safe delivery (Amir, Moser, Melliar-Smith, Agarwal, Ciarfella, 1995), with STABLE's matrix in place of
//! the token's.

use super::misorder::Misorder;
use crate::accel::case::CommonCase;
use crate::id::{Hasher64, Rank, RankSet};
use crate::stack::build::{Build, Prompts, shared};
use crate::stack::event::Up;
use crate::stack::layer::{Context, Fast, Kind, Layer};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::LayerEntry;
use crate::stack::slots::{MatrixSlot, MemberSlot};

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "SAFE",
        about: "delivers what every member of the view holds",
        requires: Properties::of(&[Property::Total, Property::Stability]),
        provides: Properties::of(&[Property::Safe]),
        destroys: Properties::NONE,
        cost: 6,
        parameters: &[
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| {
            let broken = Misorder::of(parameters)?;
            Ok(Box::new(Safe { broken, handles: None, reported: Vec::new() }))
        },
    }
}

#[derive(Clone)]
struct Safe {
    broken: Misorder,
    handles: Option<Handles>,
    /// By origin: casts that this member has reported as held.
    reported: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Handles {
    held: MatrixSlot,
    /// By origin: casts below this number are held by all.
    safe: MemberSlot,
}

impl Safe {
    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }
}

/// Casts of `origin` that every member of the view holds: the origin does, and whoever has failed has not said more.
fn held_by_all(context: &Context<'_>, held: MatrixSlot, origin: Rank) -> u64 {
    let others = context.view().others().filter(|reporter| *reporter != origin);
    let reports = others.map(|reporter| context.pair(held, reporter, origin));
    reports.min().unwrap_or(u64::MAX).min(context.accepted(origin))
}

impl Layer for Safe {
    fn name(&self) -> &'static str {
        "SAFE"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.reported = vec![0; build.view().size()];
        build.prompt(Prompts::Always);
        self.handles =
            Some(Handles { held: build.shared_matrix_slot(shared::HELD), safe: build.member_slot() });
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.up(&[Flow::Cast])
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        let safe = self.handles().safe;
        match event {
            Up::Cast(origin, message)
                if context.of(safe, origin) <= message.number || context.holds_in_order() =>
            {
                context.hold_in_order(origin, safe, message);
            }
            Up::NextView(next) => {
                // What is in order is promised to those that go on together, and to nobody else.
                let rest = if self.broken.is(Misorder::ForgetsTheRest) { 0 } else { context.view().size() };
                for origin in (0..rest).map(Rank::at) {
                    context.set_of(safe, origin, u64::MAX);
                }
                context.up(Up::NextView(next));
            }
            event => context.up(event),
        }
    }

    fn prompt(&mut self, context: &mut Context<'_>) -> RankSet {
        let Handles { held, safe } = self.handles();
        let mut news = RankSet::EMPTY;
        for origin in (0..context.view().size()).map(Rank::at) {
            let by_all = match self.broken {
                Misorder::HoldsItself => context.accepted(origin),
                Misorder::ExcusesTheFailed => {
                    let accepted = context.accepted(origin);
                    context.least_of_others(held, origin).unwrap_or(accepted).min(accepted)
                }
                _ => held_by_all(context, held, origin),
            };
            if by_all > context.of(safe, origin) {
                context.set_of(safe, origin, by_all);
            }
            if origin != context.rank() {
                let accepted = context.accepted(origin);
                if std::mem::replace(&mut self.reported[origin.index()], accepted) < accepted {
                    news.insert(origin);
                }
            }
        }
        news
    }

    fn post(&mut self, context: &mut Context<'_>) {
        if !self.prompt(context).is_empty() {
            context.gossip_now(false);
        }
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        if matches!(kind, Kind::CastDeliver | Kind::SelfDeliver) {
            case.release_in_order(self.handles().safe);
            return Fast::Declared;
        }
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        self.reported.iter().for_each(|number| digest.word(*number));
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let safe = |rank: usize| {
            let rank = Rank::at(rank);
            format!("{rank}: {} of {}", context.of(self.handles().safe, rank), context.accepted(rank))
        };
        let all: Vec<String> = (0..context.view().size()).map(safe).collect();
        Some(format!("safe {}", all.join(", ")))
    }
}
