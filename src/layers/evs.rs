//! EVS: the transitional view before each regular one.
//!
//! | | |
//! |---|---|
//! | requires | P9 virtual synchrony, P15 consistent views |
//! | provides | nothing new: it says what is promised to whom |
//! | promises | before every regular view the application is told which members of the last one go on together: to these, and to nobody else, the promises about what was delivered in it apply |
//! | costs | nothing on ordinary messages; one event per view |
//!
//! In a partition both sides go on, each to a view of its own, and neither can know what the other delivered last. The
//! transitional view says so before the next regular one does: it names the members that deliver the same. What an
//! ordering layer has to deliver in the interval between the two (messages that are in order but not known to be held by
//! all) comes after it; a stack without such a layer leaves the interval empty.
//!
//! ```text
//! view 7 {A, B, C}    A ║ B, C       transitional {A}       view 8 {A}
//!                                    transitional {B, C}    view 9 {B, C}
//! ```
//!
//! After extended virtual synchrony (Moser, Amir, Melliar-Smith, Agarwal, 1994).

use super::mistake::Mistake;
use crate::accel::case::CommonCase;
use crate::id::{Rank, RankSet};
use crate::stack::build::Build;
use crate::stack::event::{NextView, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer};
use crate::stack::notices::Notices;
use crate::stack::property::{Properties, Property};
use crate::stack::registry::LayerEntry;
use crate::view::{LocalView, Member};

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "EVS",
        about: "transitional views before regular ones",
        requires: Properties::of(&[Property::VirtuallySynchronous, Property::ConsistentViews]),
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| Ok(Box::new(Evs { mistake: Mistake::of(parameters)? })),
    }
}

#[derive(Clone)]
struct Evs {
    mistake: Mistake,
}

impl Evs {
    /// Who is said to go on together.
    fn named(&self, view: &LocalView, next: &NextView) -> RankSet {
        let rank_there = |rank| {
            let goes_on = |member: &Member| member.incarnation == view.member(rank).incarnation;
            next.view.members.iter().position(goes_on).map(Rank::at)
        };
        if self.mistake.is(Mistake::NamesAll) {
            RankSet::all(view.size())
        } else if self.mistake.is(Mistake::NamesTheLeaving) {
            next.survivors
        } else if self.mistake.is(Mistake::CountsInTheNext) {
            next.together.iter().filter_map(rank_there).collect()
        } else {
            next.together
        }
    }
}

impl Layer for Evs {
    fn name(&self) -> &'static str {
        "EVS"
    }

    fn install(&mut self, _build: &mut Build<'_>) {}

    fn notices(&self) -> Notices {
        Notices::NOTHING
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        if let Up::NextView(next) = &event {
            context.up(Up::Transitional(self.named(context.view(), next)));
        }
        context.up(event);
    }

    fn common_case(&self, _kind: Kind, _case: &mut CommonCase<'_>) -> Fast {
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}
