//! COM: binds a stack to a transport. Always the lowest layer.
//!
//! | | |
//! |---|---|
//! | requires | nothing |
//! | provides | P1 best effort, P10 byte-reorder detection, P11 source address; P17 integrity where the transport has it |
//! | promises | what comes down is handed to the transport behind a full header; what comes up names its origin |
//! | costs | nothing on the fast path |
//!
//! ```text
//! Cast ──▶ all others        Send(one) ──▶ one        Resend, Raw(some) ──▶ some
//! ```
//!
//! After the COM layer of Horus (van Renesse, Birman, Maffeis: "Horus, a flexible group communication system", 1996).

use crate::accel::case::CommonCase;
use crate::id::RankSet;
use crate::stack::build::Build;
use crate::stack::event::{Down, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer, Look, Posts};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::LayerEntry;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "COM",
        about: "binds a stack to a transport",
        requires: Properties::NONE,
        provides: Properties::of(&[
            Property::BestEffort,
            Property::ByteReorderDetection,
            Property::SourceAddress,
        ]),
        destroys: Properties::NONE,
        cost: 1,
        parameters: &[],
        make: |_| Ok(Box::new(Com)),
    }
}

#[derive(Clone)]
struct Com;

impl Layer for Com {
    fn name(&self) -> &'static str {
        "COM"
    }

    fn install(&mut self, _build: &mut Build<'_>) {}

    fn notices(&self) -> Notices {
        Notices::NOTHING.down(&[Flow::Cast, Flow::Send, Flow::Control, Flow::Raw, Flow::Again])
    }

    fn look_up(&mut self, _context: &mut Context<'_>, _event: &Up) -> Look {
        Look::Passes
    }

    fn look_down(&mut self, context: &mut Context<'_>, event: &Down) -> Look {
        match event {
            Down::Cast(message) => {
                let others = RankSet::all(context.view().size());
                context.transmit(others, message);
            }
            Down::Send(to, message) | Down::Raw(to, message) | Down::Resend(to, message) => {
                context.transmit(*to, message);
            }
            Down::Forward(to, origin, message) => context.transmit_of(*origin, *to, message),
            Down::Ack { .. }
            | Down::Suspect(..)
            | Down::Flush(_)
            | Down::Cut(_)
            | Down::FlushOk
            | Down::Leave
            | Down::Over
            | Down::Snapshot { .. }
            | Down::StateTaken { .. }
            | Down::StateBack(_)
            | Down::StateRefused(_) => {}
        }
        Look::Ends
    }

    fn posts(&self) -> Posts {
        Posts::Nothing
    }

    fn common_case(&self, _kind: Kind, _case: &mut CommonCase<'_>) -> Fast {
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}
