//! STABLE: what all members hold, and what all applications have seen.
//!
//! | | |
//! |---|---|
//! | requires | P3, P4 reliable FIFO sends and casts, P11 source address |
//! | provides | P14 stability |
//! | promises | casts of others are retained here until every member holds them, then let go; `Stable` events report both matrices, truthfully: a count never exceeds what its member really has |
//! | costs | no bits; one reference per delivered cast |
//!
//! *Held* (the endpoint has it) is gossiped by the layer that numbers casts; its column minimum frees buffers and
//! drives credit. What all hold as one member knows it tells the others in its rows (*stable*): who does not hear a member
//! hears from who has cast it what that member holds, and neither keeps it nor lets the caster wait for want of that
//! member's word. What is told counts those that have failed, too: another may still go on with them, and give them what
//! they lack. *Seen* (the application acknowledged it: displayed it, wrote it to disk) never holds a buffer; it is
//! reported in gossip rows.
//!
//! ```text
//! held   A    B    C          casts of A below 5 are stable: B and C let go of them,
//!   A    9    7    4          and by `released` the credit of A grows
//!   B    5    7    4
//!   C    6    6    4          B does not hear C: A tells it in a row that all hold what is below 5
//! ```
//!
//! After the STABLE layer of Horus (the application defines what "seen" means) and Ensemble's `stable`.

use std::time::Duration;

use super::mistake::Mistake;
use crate::accel::case::CommonCase;
use crate::id::{Hasher64, Rank};
use crate::stack::backoff::Backoff;
use crate::stack::build::{Build, GossipSource, TimerId, shared};
use crate::stack::event::{Down, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer, Look, Posts};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{LayerEntry, ParameterError, Parameters};
use crate::stack::slots::{MatrixSlot, MemberSlot};

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "STABLE",
        about: "what all members hold and have seen",
        requires: Properties::of(&[Property::FifoUnicast, Property::FifoMulticast, Property::SourceAddress]),
        provides: Properties::of(&[Property::Stability]),
        destroys: Properties::NONE,
        cost: 2,
        parameters: &[
            ("report_us", "the least time between Stable events, in microseconds (default 1000)"),
            (
                "ask_us",
                "how long unstable casts are kept before reports are asked for, in microseconds (default 5000)",
            ),
            ("backoff_us", "the longest interval between repetitions, in microseconds (default 100000)"),
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| Ok(Box::new(Stable::new(parameters)?)),
    }
}

#[derive(Clone)]
struct Stable {
    mistake: Mistake,
    report: Duration,
    /// When reports are asked for.
    ask: Backoff,
    handles: Option<Handles>,
    /// During post-processing: whether more has become stable since the last one, and whether anything is not.
    progress: bool,
    unstable: bool,
}

#[derive(Clone, Copy)]
struct Handles {
    held: MatrixSlot,
    seen: MatrixSlot,
    /// Per origin: frames this member's application has seen.
    own_seen: MemberSlot,
    stable: MatrixSlot,
    /// Per origin: frames that all members hold, as this one knows.
    own_stable: MemberSlot,
    /// Per origin: frames let go of here.
    released: MemberSlot,
    report_timer: TimerId,
    ask_timer: TimerId,
}

impl Stable {
    fn new(parameters: &Parameters) -> Result<Stable, ParameterError> {
        let micros =
            |name, default| parameters.number(name, default, 1..=10_000_000).map(Duration::from_micros);
        let ask = Backoff::new(micros("ask_us", 5000)?, micros("backoff_us", 100_000)?);
        let report = micros("report_us", 1000)?;
        Ok(Stable {
            mistake: Mistake::of(parameters)?,
            report,
            ask,
            handles: None,
            progress: false,
            unstable: false,
        })
    }

    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }

    /// Frames of `origin` that every member holds, of those that this one has accepted (their origin always does): what all
    /// may be told, and what may be let go of here. The failed are not waited for, but others are not told so: they may go on
    /// with one that is taken for failed here.
    fn stable(&self, context: &Context<'_>, origin: Rank, accepted: u64) -> (u64, u64) {
        let held = self.handles().held;
        let least = self.mistake.least_of_others(context, held, origin);
        let strict = context.has_any_failed() && !self.mistake.is(Mistake::LeavesOutTheFailed);
        let all = if strict { context.least_of_all_others(held, origin) } else { least };
        [all, least].map(|least| least.unwrap_or(accepted).min(accepted)).into()
    }

    /// Who has cast it may have heard of somebody that is not heard here: what all hold each of them holds.
    fn believe(&self, context: &mut Context<'_>, origin: Rank, accepted: u64) {
        let Handles { held, stable, own_stable, .. } = self.handles();
        let told = context.pair(stable, origin, origin).min(accepted);
        if told > context.of(own_stable, origin) {
            for reporter in (0..context.view().size()).map(Rank::at) {
                context.raise_pair(held, reporter, origin, told);
            }
        }
    }
}

impl Layer for Stable {
    fn name(&self) -> &'static str {
        "STABLE"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        let own_seen = build.member_slot();
        let seen = build.shared_matrix_slot(shared::SEEN);
        build.gossip("seen", GossipSource::Slot(own_seen), seen, None, Some(build.window_max() / 4 + 1));
        let own_stable = build.member_slot();
        let stable = build.shared_matrix_slot(shared::STABLE);
        build.gossip("stable", GossipSource::Slot(own_stable), stable, None, None);
        self.handles = Some(Handles {
            held: build.shared_matrix_slot(shared::HELD),
            seen,
            own_seen,
            stable,
            own_stable,
            released: build.shared_member_slot(shared::RELEASED),
            report_timer: build.timer("report"),
            ask_timer: build.timer("ask"),
        });
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.up(&[Flow::Cast])
    }

    fn look_down(&mut self, context: &mut Context<'_>, event: &Down) -> Look {
        if let Down::Ack { origin, from, seen } = *event {
            if origin.index() >= context.view().size() || seen > context.accepted(origin) {
                context.count("acknowledgement of what was not delivered");
                return Look::Ends;
            }
            let slot = self.handles().own_seen;
            let known = context.of(slot, origin);
            if known < from {
                return Look::Ends;
            }
            let seen = if self.mistake.is(Mistake::SeenIsHeld) { context.accepted(origin) } else { seen };
            context.set_of(slot, origin, known.max(seen));
            context.arm_if_idle(self.handles().report_timer, context.now() + self.report);
            return Look::Ends;
        }
        Look::Passes
    }

    fn look_up(&mut self, context: &mut Context<'_>, event: &Up) -> Look {
        if let Up::Cast(origin, message) = event
            && *origin != context.rank()
        {
            context.retain_cast(*origin, message);
        }
        Look::Passes
    }

    fn timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        if timer == self.handles().report_timer {
            context.up(Up::Stable);
        } else {
            context.gossip_now(true);
            self.ask.repeat(context.now());
            context.arm(timer, self.ask.due());
        }
    }

    fn posts(&self) -> Posts {
        Posts::EachMember
    }

    fn post_member(&mut self, context: &mut Context<'_>, origin: Rank) {
        let Handles { own_stable, released, .. } = self.handles();
        let accepted = context.accepted(origin);
        // No less is stable than is told to be.
        if context.of(own_stable, origin) == accepted {
            // All of it was stable when somebody looked last, and is.
            return;
        }
        self.believe(context, origin, accepted);
        let (stable, gone) = self.stable(context, origin, accepted);
        self.progress |= gone > context.of(released, origin);
        self.unstable |= gone < accepted;
        // Who waits for others to say an order keeps what it holds: that it gives no credit for it is not its fault, and who
        // cast it is told so by this.
        let done = if origin == context.rank() { accepted } else { context.passed(origin) };
        context.set_of(own_stable, origin, stable.min(done));
        context.set_of(released, origin, gone);
        if origin != context.rank() {
            context.trim_casts(origin, gone);
        }
    }

    fn post(&mut self, context: &mut Context<'_>) {
        let Handles { report_timer, ask_timer, .. } = self.handles();
        if std::mem::take(&mut self.progress) {
            // Credit follows from what was let go of, and a layer below computes it. Without this its senders wait until
            // they ask: seeds 0..40 of calm with FC(window=2) take 629 ms instead of 457.
            context.post_again();
            context.arm_if_idle(report_timer, context.now() + self.report);
            self.ask.settle();
        }
        if std::mem::take(&mut self.unstable) {
            self.ask.begin(context.now());
        } else {
            self.ask.settle();
        }
        context.arm_or_disarm(ask_timer, self.ask.due());
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        if kind == Kind::CastDeliver {
            case.retain();
            return Fast::Declared;
        }
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        self.ask.digest(digest);
    }

    fn time_outs(&self) -> Vec<(&'static str, Duration)> {
        vec![("report", self.report), ("ask", self.ask.first()), ("backoff", self.ask.longest())]
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let Handles { seen, .. } = self.handles();
        let line = |origin: Rank| {
            let all =
                (0..context.view().size()).map(|reporter| context.pair(seen, Rank::at(reporter), origin));
            format!(
                "{origin}: stable {}, seen by all {}",
                self.stable(context, origin, context.accepted(origin)).1,
                all.min().unwrap_or(0)
            )
        };
        let lines: Vec<String> = (0..context.view().size()).map(|origin| line(Rank::at(origin))).collect();
        Some(lines.join("; "))
    }
}
