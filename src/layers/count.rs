//! COUNT: counts frames of casts and sends, both ways. Can stand anywhere, any number of times.
//!
//! | | |
//! |---|---|
//! | requires | nothing |
//! | provides | nothing |
//! | promises | its counts (in `dump`) are exact for the place where it stands |
//! | costs | nothing: on the fast path its counts are the plans' hits |
//!
//! ```text
//! casts sent 3, sends sent 1        casts delivered of 0: 7, of 1: 3; sends delivered of 1: 2
//! ```
//!
//! Source: this project.

use crate::accel::case::CommonCase;
use crate::id::Rank;
use crate::stack::build::{Build, GuardKind};
use crate::stack::event::{Down, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer, Look, Posts};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::Properties;
use crate::stack::registry::LayerEntry;
use crate::stack::slots::Tally;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "COUNT",
        about: "counts frames both ways",
        requires: Properties::NONE,
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[],
        make: |_| Ok(Box::new(Count { tallies: None })),
    }
}

#[derive(Clone)]
struct Count {
    /// By [`GuardKind`].
    tallies: Option<[Tally; 4]>,
}

impl Count {
    fn tally(&self, kind: GuardKind) -> Tally {
        self.tallies.expect("installed before use")[kind as usize]
    }
}

impl Layer for Count {
    fn name(&self) -> &'static str {
        "COUNT"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.tallies = Some([
            build.tally(GuardKind::CastSend, "casts sent"),
            build.tally(GuardKind::SendSend, "sends sent"),
            build.tally(GuardKind::CastDeliver, "casts delivered"),
            build.tally(GuardKind::SendDeliver, "sends delivered"),
        ]);
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.down(&[Flow::Cast, Flow::Send]).up(&[Flow::Cast, Flow::Send])
    }

    fn look_down(&mut self, context: &mut Context<'_>, event: &Down) -> Look {
        match event {
            Down::Cast(_) => context.bump(self.tally(GuardKind::CastSend), context.rank()),
            Down::Send(to, message) if !message.is_control() => {
                for peer in to.iter() {
                    context.bump(self.tally(GuardKind::SendSend), peer);
                }
            }
            _ => {}
        }
        Look::Passes
    }

    fn look_up(&mut self, context: &mut Context<'_>, event: &Up) -> Look {
        match event {
            Up::Cast(origin, _) => context.bump(self.tally(GuardKind::CastDeliver), *origin),
            Up::Send(origin, message) if !message.is_control() => {
                context.bump(self.tally(GuardKind::SendDeliver), *origin);
            }
            _ => {}
        }
        Look::Passes
    }

    fn posts(&self) -> Posts {
        Posts::Nothing
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        case.count(self.tally(kind.guard()));
        Fast::Declared
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let own = context.rank();
        let all = |kind: GuardKind| {
            let of = |rank: usize| context.tally(self.tally(kind), Rank::at(rank)).to_string();
            (0..context.view().size()).map(of).collect::<Vec<_>>().join(" ")
        };
        Some(format!(
            "casts sent {}, sends sent {}; delivered by rank: casts {}, sends {}",
            context.tally(self.tally(GuardKind::CastSend), own),
            all(GuardKind::SendSend),
            all(GuardKind::CastDeliver),
            all(GuardKind::SendDeliver)
        ))
    }
}
