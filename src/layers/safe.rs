//! SAFE: a cast is delivered when every member of the view holds it, or as soon as it is in order if its sender says so.
//!
//! | | |
//! |---|---|
//! | requires | P6 total order, P14 stability |
//! | provides | P7 safe delivery |
//! | promises | what is delivered while the view is whole is held by all of its members, with everything before it in the order: whoever goes on from there, wherever to, delivers it too. Not so of a cast that is only *agreed* |
//! | costs | a bit, which says whether a cast is agreed; of safe ones at most a round trip more than agreed order: each member says what it holds as soon as it has it, by the casts with which it answers if these speak of it, else by a frame |
//!
//! An agreed cast waits for nothing but what is before it, and its receivers are in no hurry to say that they hold it. A safe
//! one waits for the agreed ones before it, too ([`service`](crate::stack::service)).
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
use crate::stack::event::{Down, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::LayerEntry;
use crate::stack::service::Services;
use crate::stack::slots::MatrixSlot;

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
    services: Services,
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
        let safe = build.member_slot();
        let (held, services) = (build.shared_matrix_slot(shared::HELD), build.serve(safe));
        self.handles = Some(Handles { held, services });
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.down(&[Flow::Cast]).up(&[Flow::Cast])
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        let services = self.handles().services;
        match event {
            Down::Cast(mut message) => {
                message.set_field(services.agreed, u64::from(context.casts_agreed(&services)));
                context.down(Down::Cast(message));
            }
            event => context.down(event),
        }
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        let services = self.handles().services;
        match event {
            Up::Cast(origin, message) => {
                let agreed = message.field(services.agreed) != 0;
                match context.comes_in_order(&services, origin, message.number, agreed) {
                    true => context.up(Up::Cast(origin, message)),
                    false => context.hold_in_order(&services, origin, message),
                }
            }
            Up::NextView(next) => {
                // What is in order is promised to those that go on together, and to nobody else.
                let rest = if self.broken.is(Misorder::ForgetsTheRest) { 0 } else { context.view().size() };
                for origin in (0..rest).map(Rank::at) {
                    context.set_of(services.safe, origin, u64::MAX);
                }
                if rest > 0 {
                    context.set(services.ahead, 0);
                }
                context.up(Up::NextView(next));
            }
            event => context.up(event),
        }
    }

    fn prompt(&mut self, context: &mut Context<'_>) -> RankSet {
        let Handles { held, services } = self.handles();
        let (members, own) = ((0..context.view().size()).map(Rank::at), context.rank());
        let mut ahead = false;
        for origin in members.clone() {
            let by_all = match self.broken {
                Misorder::HoldsItself => context.accepted(origin),
                Misorder::ExcusesTheFailed => {
                    let accepted = context.accepted(origin);
                    context.least_of_others(held, origin).unwrap_or(accepted).min(accepted)
                }
                _ => held_by_all(context, held, origin),
            };
            if by_all > context.of(services.safe, origin) {
                context.set_of(services.safe, origin, by_all);
            }
            ahead |= context.of(services.gone, origin) > context.of(services.safe, origin);
        }
        if !ahead || self.broken.is(Misorder::ForgetsTheAgreed) {
            context.set(services.ahead, 0);
        }
        // Whoever waits for a safe cast, of this member too, waits for all before it, agreed ones of others among them.
        let awaited = |origin: Rank| self.reported[origin.index()] < context.of(services.awaited, origin);
        if !members.clone().any(awaited) {
            return RankSet::EMPTY;
        }
        let mut news = RankSet::EMPTY;
        for origin in members {
            let accepted = context.accepted(origin);
            if std::mem::replace(&mut self.reported[origin.index()], accepted) < accepted && origin != own {
                news.insert(origin);
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
            case.serve(self.handles().services);
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
            format!(
                "{rank}: {} of {}",
                context.of(self.handles().services.safe, rank),
                context.accepted(rank)
            )
        };
        let all: Vec<String> = (0..context.view().size()).map(safe).collect();
        Some(format!("safe {}", all.join(", ")))
    }
}
