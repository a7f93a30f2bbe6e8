//! LOCAL: members deliver their own casts.
//!
//! | | |
//! |---|---|
//! | requires | P4 reliable FIFO multicast |
//! | provides | P25 self-delivery |
//! | promises | every own cast comes back up, once, in order, with its frame number, at the next poll; never inside `cast` |
//! | costs | no bits; one queue entry per cast |
//!
//! It stands next above the layer that numbers casts, so that an own copy has the number its receivers see.
//!
//! ```text
//!        cast n ──▶ [LOCAL] ──▶ [NAK] n ──▶ others
//! next poll: n ◀── [LOCAL]
//! ```
//!
//! After Ensemble's `local` layer (Hayden: "The Ensemble System", 1998).

use crate::accel::case::CommonCase;
use crate::stack::build::Build;
use crate::stack::event::{Down, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer, Look, Posts};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::LayerEntry;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "LOCAL",
        about: "members deliver their own casts",
        requires: Properties::of(&[Property::FifoMulticast]),
        provides: Properties::of(&[Property::SelfDelivery]),
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[],
        make: |_| Ok(Box::new(Local)),
    }
}

#[derive(Clone)]
struct Local;

impl Layer for Local {
    fn name(&self) -> &'static str {
        "LOCAL"
    }

    fn install(&mut self, _build: &mut Build<'_>) {}

    fn notices(&self) -> Notices {
        Notices::NOTHING.down(&[Flow::Cast])
    }

    fn look_up(&mut self, _context: &mut Context<'_>, _event: &Up) -> Look {
        Look::Passes
    }

    fn look_down(&mut self, context: &mut Context<'_>, event: &Down) -> Look {
        if let Down::Cast(message) = event {
            context.loop_back(message);
        }
        Look::Passes
    }

    fn posts(&self) -> Posts {
        Posts::Nothing
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        if kind == Kind::CastSend {
            case.loop_back();
            return Fast::Declared;
        }
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}
