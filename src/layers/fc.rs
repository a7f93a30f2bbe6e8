//! FC: flow control by credit, in frames.
//!
//! | | |
//! |---|---|
//! | requires | P3, P4 reliable FIFO sends and casts |
//! | provides | P20 bounded memory (together with P14 stability and P21 suspicion) |
//! | promises | a member never casts beyond what every receiver can retain; a slow receiver holds the senders, nothing is lost |
//! | costs | 16 bits of gossip per cast |
//!
//! Each receiver grants each origin a cumulative limit: what it has let go of, plus its window. The least limit closes
//! the sender's entry, and casts wait above the stack. Credit is gossip, and gossip may be lost: a sender that is held
//! asks for it, at growing intervals, until it comes.
//!
//! ```text
//! B ── credit: A may cast up to 1024 ──▶ A      A casts 0 to 1023, then waits
//! B lets go of 0 to 511 (stable)
//! B ── credit: A may cast up to 1536 ──x        (lost)
//! A ── (please report) ──▶ B
//! B ── credit: A may cast up to 1536 ──▶ A      A casts 1024 ...
//! ```
//!
//! After Ensemble's `mflow` (Hayden, 1998), with credit that advertises retention, in frames.

use std::time::Duration;

use crate::accel::case::{CommonCase, Target};
use crate::id::Hasher64;
use crate::stack::backoff::Backoff;
use crate::stack::build::{Build, Closes, Field, Gossip, GossipSource, Guard, GuardKind, TimerId, shared};
use crate::stack::event::Down;
use crate::stack::layer::{Context, Fast, Kind, Layer};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{LayerEntry, ParameterError, Parameters};
use crate::stack::slots::{MatrixSlot, MemberSlot, Slot};
use crate::wire::Traffic;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "FC",
        about: "flow control by credit",
        requires: Properties::of(&[Property::FifoUnicast, Property::FifoMulticast]),
        provides: Properties::of(&[Property::BoundedMemory]),
        destroys: Properties::NONE,
        cost: 2,
        parameters: &[
            (
                "window",
                "casts of one origin that a receiver retains, in frames (default: the endpoint's window_frames)",
            ),
            ("ask_us", "how long a sender is held before it asks for credit, in microseconds (default 1000)"),
            ("backoff_us", "the longest interval between repetitions, in microseconds (default 50000)"),
        ],
        make: |parameters| Ok(Box::new(Fc::new(parameters)?)),
    }
}

#[derive(Clone)]
struct Fc {
    window: u64,
    /// When credit is asked for.
    ask: Backoff,
    handles: Option<Handles>,
}

#[derive(Clone, Copy)]
struct Handles {
    number: Option<Field>,
    /// Per origin: the limit this member grants it.
    granted: MemberSlot,
    credit: MatrixSlot,
    gossip: Gossip,
    limit: Slot,
    no_credit: Guard,
    ask: TimerId,
    /// Per origin: frames let go of, if some layer keeps them until stable.
    released: Option<MemberSlot>,
}

impl Fc {
    fn new(parameters: &Parameters) -> Result<Fc, ParameterError> {
        // Zero stands for the endpoint's.
        let window = parameters.number("window", 0, 1..=crate::config::WINDOW_FRAMES_MAX)?;
        let micros =
            |name, default| parameters.number(name, default, 1..=10_000_000).map(Duration::from_micros);
        let ask = Backoff::new(micros("ask_us", 1000)?, micros("backoff_us", 50_000)?);
        Ok(Fc { window, ask, handles: None })
    }

    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }
}

impl Layer for Fc {
    fn name(&self) -> &'static str {
        "FC"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        if self.window == 0 || self.window > build.window_max() {
            self.window = build.window_max();
        }
        let granted = build.member_slot();
        let credit = build.matrix_slot();
        let retains = build.stack_provides(Property::Stability);
        let source = GossipSource::Slot(granted);
        self.handles = Some(Handles {
            number: build.frame_number(),
            granted,
            credit,
            gossip: build.gossip("credit", source, credit, Some(Traffic::Cast), (self.window / 4).max(1)),
            limit: build.slot(),
            no_credit: build.guard(GuardKind::CastSend, "no credit", Closes::Entry),
            ask: build.timer("ask"),
            released: retains.then(|| build.shared_member_slot(shared::RELEASED)),
        });
    }

    fn start(&mut self, context: &mut Context<'_>) {
        let Handles { granted, credit, limit, .. } = self.handles();
        let own = context.rank();
        for rank in (0..context.view().size()).map(crate::id::Rank::at) {
            // Everybody knows everybody's first grant: the window is part of the stack's name.
            context.set_of(granted, rank, self.window);
            context.raise_pair(credit, rank, own, self.window);
        }
        context.set(limit, self.window);
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        let cast = matches!(event, Down::Cast(_));
        // The cast is about to get the next number; the one after it is what must have credit.
        let after = context.next_frame_number() + 1;
        if cast && after >= context.get(self.handles().limit) {
            context.close(self.handles().no_credit, context.rank());
        }
        context.down(event);
    }

    fn timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        context.gossip_now(true);
        self.ask.repeat(context.now());
        context.arm(timer, self.ask.due());
    }

    fn post(&mut self, context: &mut Context<'_>) {
        let Handles { granted, credit, limit, no_credit, ask, released, .. } = self.handles();
        let own = context.rank();
        for origin in context.view().others() {
            let released = released.map_or_else(|| context.accepted(origin), |slot| context.of(slot, origin));
            context.set_of(granted, origin, released + self.window);
        }
        let next = context.next_frame_number();
        let least = context.least_of_others(credit, own).unwrap_or(u64::MAX);
        context.set(limit, least);
        if next < least {
            context.open(no_credit, own);
            self.ask.settle();
        } else {
            self.ask.begin(context.now());
        }
        context.arm_or_disarm(ask, self.ask.due());
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        let handles = self.handles();
        match (kind, handles.number) {
            (Kind::CastSend, Some(number)) => {
                case.gossip(handles.gossip);
                case.limit(number, Target::Own(handles.limit), handles.no_credit);
                Fast::Declared
            }
            (Kind::CastSend, None) => Fast::Opaque("no layer below numbers casts"),
            (Kind::CastDeliver, _) => {
                case.gossip(handles.gossip);
                Fast::Declared
            }
            _ => Fast::Transparent,
        }
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        self.ask.digest(digest);
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let handles = self.handles();
        Some(format!(
            "may cast up to frame {}, is at {}; window {}",
            context.get(handles.limit),
            context.next_frame_number(),
            self.window
        ))
    }
}
