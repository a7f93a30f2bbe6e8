//! Scripts: one member says in which order the casts of the others are delivered (design D4).
//!
//! The casts of that member, the *sequencer*, are delivered in their own order. One of them may be an *order*: a list of
//! runs, each so many casts of one other member. The runs stand in the group's order after the cast that carries them and
//! before the sequencer's next. Everybody follows the same script, so all members deliver all casts in one order.
//!
//! ```text
//! sequencer  0   1 [B 2, C 1]                   2
//! B                            0   1
//! C                                    0
//! delivered everywhere: S0, B0, B1, C0, S2
//! ```
//!
//! What is left of a script is never more than what one order holds: the next order waits until its runs are through.
//!
//! A layer makes and reads the orders, and declares that runs end ([`CommonCase::script`]); plan and layer both go on to
//! the next run by the functions here.
//!
//! [`CommonCase::script`]: crate::accel::case::CommonCase::script

use super::core::Core;
use super::layer::Context;
use super::slots::MemberSlot;
use crate::id::Rank;

/// Everything that a script is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// By origin: casts below this number may be delivered. All of the sequencer while no run is under way.
    pub free: MemberSlot,
    /// Who orders.
    pub sequencer: Rank,
}

/// So many casts of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whose.
    pub origin: Rank,
    /// How many.
    pub frames: u32,
}

impl Core {
    /// A run is through: the next begins, or the sequencer goes on.
    #[inline(never)]
    pub(crate) fn next_run(&mut self, script: &Script) {
        match self.runs.pop_front() {
            Some(Run { origin, frames }) => {
                let free = self.slots.of(script.free, origin);
                self.slots.set_of(script.free, origin, free + u64::from(frames));
            }
            None => self.slots.set_of(script.free, script.sequencer, u64::MAX),
        }
    }
}

impl Context<'_> {
    /// Nothing is ordered yet: the sequencer begins.
    pub fn begin_script(&mut self, script: &Script) {
        self.core.next_run(script);
    }

    /// The sequencer's cast of this number is delivered: these runs follow it.
    pub fn follow_order(&mut self, script: &Script, number: u64, runs: impl IntoIterator<Item = Run>) {
        self.set_of(script.free, script.sequencer, number + 1);
        self.core.runs.extend(runs);
        self.core.next_run(script);
    }

    /// A cast is delivered, which may be the last of its run.
    pub fn advance_script(&mut self, script: &Script, origin: Rank, number: u64) {
        if number + 1 == self.of(script.free, origin) {
            self.core.next_run(script);
        }
    }
}
