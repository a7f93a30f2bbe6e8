//! GATE: a test layer that delivers a cast only when all members hold it. It is what an ordering layer looks like to
//! the accelerator (design D4): fields below it are accepted at once, delivery waits for a release word.

use wadjet::Rank;
use wadjet::accel::case::{CommonCase, Operation, Source, Target};
use wadjet::id::Hasher64;
use wadjet::stack::build::{Build, shared};
use wadjet::stack::event::Up;
use wadjet::stack::layer::{Context, Fast, Kind, Layer};
use wadjet::stack::property::{Properties, Property};
use wadjet::stack::registry::LayerEntry;
use wadjet::stack::slots::{MatrixSlot, MemberSlot};

pub fn gate() -> LayerEntry {
    LayerEntry {
        name: "GATE",
        about: "delivers a cast when all members hold it",
        requires: Properties::of(&[Property::FifoMulticast]),
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 1,
        parameters: &[],
        make: |_| Ok(Box::new(Gate { handles: None })),
    }
}

#[derive(Clone)]
struct Gate {
    handles: Option<(MatrixSlot, MemberSlot)>,
}

impl Gate {
    fn handles(&self) -> (MatrixSlot, MemberSlot) {
        self.handles.expect("installed before use")
    }
}

impl Layer for Gate {
    fn name(&self) -> &'static str {
        "GATE"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.handles = Some((build.shared_matrix_slot(shared::HELD), build.member_slot()));
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        let (_, free) = self.handles();
        match event {
            Up::Cast(origin, message)
                if context.of(free, origin) <= message.number
                    || context.holds_before(origin, message.number) =>
            {
                context.hold(origin, free, message);
            }
            event => context.up(event),
        }
    }

    fn post(&mut self, context: &mut Context<'_>) {
        let (held, free) = self.handles();
        for origin in (0..context.view().size()).map(Rank::at) {
            let accepted = context.accepted(origin);
            let least = context.least_of_others(held, origin).unwrap_or(accepted).min(accepted);
            context.set_of(free, origin, least.max(context.of(free, origin)));
        }
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        if matches!(kind, Kind::CastDeliver | Kind::SelfDeliver) {
            case.release(self.handles().1);
            return Fast::Declared;
        }
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}

/// SUM: adds up the bytes of what passes, per origin. Above a GATE its effect belongs to the deliver step.
pub fn sum() -> LayerEntry {
    LayerEntry {
        name: "SUM",
        about: "adds up delivered bytes",
        requires: Properties::NONE,
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[("fast", "what the fast path adds: right (default) or wrong")],
        make: |parameters| {
            let wrong = parameters.choice("fast", &["right", "wrong"])? == "wrong";
            Ok(Box::new(Sum { wrong, bytes: None }))
        },
    }
}

#[derive(Clone)]
struct Sum {
    wrong: bool,
    bytes: Option<MemberSlot>,
}

impl Layer for Sum {
    fn name(&self) -> &'static str {
        "SUM"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.bytes = Some(build.member_slot());
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        if let Up::Cast(origin, message) = &event {
            let slot = self.bytes.expect("installed");
            let sum = context.of(slot, *origin) + message.list.payload().len() as u64;
            context.set_of(slot, *origin, sum);
        }
        context.up(event);
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        if matches!(kind, Kind::CastDeliver | Kind::SelfDeliver) {
            let source = if self.wrong { Source::Messages } else { Source::PayloadBytes };
            case.effect(Operation::Add, Target::Member(self.bytes.expect("installed")), source);
            return Fast::Declared;
        }
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, _digest: &mut Hasher64) {}

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let sums: Vec<String> = (0..context.view().size())
            .map(|rank| context.of(self.bytes.expect("installed"), Rank::at(rank)).to_string())
            .collect();
        Some(sums.join(" "))
    }
}
