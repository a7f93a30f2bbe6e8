//! FIXED: a view that never changes.
//!
//! | | |
//! |---|---|
//! | requires | P4 reliable FIFO multicast |
//! | provides | P8, P9 virtual synchrony |
//! | promises | nothing that is not true of any group with one view: nobody goes on to another, so nobody differs from those that do |
//! | costs | nothing |
//!
//! It says that membership is not this stack's business: the view is given when the group is opened, and whoever fails is
//! waited for. So layers that need virtual synchrony (total order, say) can be used without membership, as one would in a
//! test, in a benchmark, or where something else decides about the end of everybody.
//!
//! ```text
//! view 1 {A, B, C} ──────────────────────────────────────▶
//! ```
//!
//! There is no paper to follow.

use crate::accel::case::CommonCase;
use crate::stack::build::Build;
use crate::stack::layer::{Fast, Kind, Layer, Posts};
use crate::stack::notices::Notices;
use crate::stack::property::{Properties, Property};
use crate::stack::registry::LayerEntry;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "FIXED",
        about: "a view that never changes",
        requires: Properties::of(&[Property::FifoMulticast]),
        provides: Properties::of(&[Property::SemiSynchronous, Property::VirtuallySynchronous]),
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[],
        make: |_| Ok(Box::new(Fixed)),
    }
}

#[derive(Clone)]
struct Fixed;

impl Layer for Fixed {
    fn name(&self) -> &'static str {
        "FIXED"
    }

    fn install(&mut self, _build: &mut Build<'_>) {}

    fn notices(&self) -> Notices {
        Notices::NOTHING
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
