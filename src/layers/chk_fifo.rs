//! CHK_FIFO: checks that casts come gap-free and in order. For tests and for distrust.
//!
//! | | |
//! |---|---|
//! | requires | P4 reliable FIFO multicast |
//! | provides | nothing |
//! | promises | a cast out of order is told to the application as a problem, counted, and goes up all the same |
//! | costs | nothing: its number always equals the frame number (`wire=yes` sends it all the same, 40 bits) |
//!
//! ```text
//! A ── m, 7 ──▶ B      B expects 7: up      else: Problem("CHK_FIFO: out of order"), up
//! ```
//!
//! It can stand anywhere above the layer that numbers casts, any number of times. After Ensemble's `chk_fifo`.

use crate::accel::case::CommonCase;
use crate::stack::build::{Build, Field, GuardKind};
use crate::stack::event::{Down, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::LayerEntry;
use crate::stack::slots::Tally;
use crate::wire::Traffic;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "CHK_FIFO",
        about: "checks that casts come gap-free and in order",
        requires: Properties::of(&[Property::FifoMulticast]),
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[(
            "wire",
            "whether the number travels although it equals the frame number: no (default) or yes",
        )],
        make: |parameters| {
            let on_wire = parameters.choice("wire", &["no", "yes"])? == "yes";
            Ok(Box::new(ChkFifo { on_wire, handles: None }))
        },
    }
}

#[derive(Clone)]
struct ChkFifo {
    on_wire: bool,
    handles: Option<Handles>,
}

#[derive(Clone, Copy)]
struct Handles {
    field: Field,
    /// What is sent and expected next, if the number does not travel (else the field's own slots say it).
    cast: Tally,
    delivered: Tally,
}

impl ChkFifo {
    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }
}

impl Layer for ChkFifo {
    fn name(&self) -> &'static str {
        "CHK_FIFO"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        let field = match self.on_wire {
            true => build.protocol_field(Traffic::Cast, "number", 40),
            false => build.bound_field(Traffic::Cast, "number", 40),
        };
        self.handles = Some(Handles {
            field,
            cast: build.tally(GuardKind::CastSend, "cast"),
            delivered: build.tally(GuardKind::CastDeliver, "delivered"),
        });
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.down(&[Flow::Cast]).up(&[Flow::Cast])
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        let Handles { field, cast, .. } = self.handles();
        let own = context.rank();
        if let Down::Cast(mut message) = event {
            let next = if self.on_wire { context.sending(field, own) } else { context.tally(cast, own) };
            message.header.values[usize::from(field.index)] = next;
            if self.on_wire {
                context.advance_sending(field, own);
            }
            context.bump(cast, own);
            context.down(Down::Cast(message));
            return;
        }
        context.down(event);
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        let Handles { field, delivered, .. } = self.handles();
        if let Up::Cast(origin, message) = &event {
            let number = message.header.values[usize::from(field.index)];
            let expected = match self.on_wire {
                true => context.expected(field, *origin),
                false => context.tally(delivered, *origin),
            };
            if number != expected {
                context.count("out of order");
                context.problem(Some(*origin), "out of order");
            }
            if self.on_wire {
                context.advance_expected(field, *origin);
            }
            context.bump(delivered, *origin);
        }
        context.up(event);
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        let Handles { field, cast, delivered } = self.handles();
        let count = match kind {
            Kind::CastSend => cast,
            Kind::CastDeliver | Kind::SelfDeliver => delivered,
            Kind::SendSend | Kind::SendDeliver => return Fast::Transparent,
        };
        if self.on_wire {
            case.advance(field);
        } else {
            case.bound(field);
        }
        case.count(count);
        Fast::Declared
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}
