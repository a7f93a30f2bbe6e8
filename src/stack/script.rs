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
//! An order is a blank ([`pack`](crate::wire::pack)) whose note is its runs. A layer makes it, and declares that runs end ([`CommonCase::script`]); plan and layer both go on to
//! the next run by the functions here.
//!
//! [`CommonCase::script`]: crate::accel::case::CommonCase::script

use super::core::Core;
use super::event::List;
use super::layer::Context;
use super::slots::MemberSlot;
use crate::id::{Rank, RankSet};

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

impl Run {
    /// Bytes of a run in an order.
    pub const BYTES: usize = 6;

    /// As it stands in an order: whose, in two bytes, and how many, in four.
    pub fn encode(self) -> [u8; Run::BYTES] {
        let mut bytes = [0; Run::BYTES];
        bytes[..2].copy_from_slice(&self.origin.0.to_le_bytes());
        bytes[2..].copy_from_slice(&self.frames.to_le_bytes());
        bytes
    }

    /// Reads it.
    pub fn decode(bytes: &[u8; Run::BYTES]) -> Run {
        let [o0, o1, f0, f1, f2, f3] = *bytes;
        Run { origin: Rank(u16::from_le_bytes([o0, o1])), frames: u32::from_le_bytes([f0, f1, f2, f3]) }
    }
}

impl Core {
    /// A cast is delivered. Does it end a run, or say what runs follow?
    ///
    /// # Errors
    /// What is wrong with an order, which then says nothing.
    #[inline]
    pub(crate) fn go_on(
        &mut self,
        script: &Script,
        origin: Rank,
        number: u64,
        list: &List,
    ) -> Result<(), &'static str> {
        if list.is_empty() && origin == script.sequencer {
            return self.follow(script, number, list.note());
        }
        if number + 1 == self.slots.of(script.free, origin) {
            self.next_run(script);
        }
        if list.is_empty() { Err("order of one who does not order") } else { Ok(()) }
    }

    /// Follows the order that is the note of the sequencer's cast of this number.
    #[inline(never)]
    fn follow(&mut self, script: &Script, number: u64, order: &[u8]) -> Result<(), &'static str> {
        let (runs, rest) = order.as_chunks::<{ Run::BYTES }>();
        let mut members = RankSet::one(script.sequencer);
        let sound = runs.iter().map(Run::decode).all(|Run { origin, frames }| {
            if origin.index() >= self.view.size() || members.contains(origin) || frames == 0 {
                return false;
            }
            members.insert(origin);
            self.slots.of(script.free, origin).saturating_add(u64::from(frames)) <= self.number_limit
        });
        if runs.is_empty() || !rest.is_empty() || !sound {
            return Err("order that does not decode");
        }
        self.follow_runs(script, number, runs.iter().map(Run::decode));
        Ok(())
    }

    /// The sequencer's cast of this number is delivered: these runs follow it.
    fn follow_runs(&mut self, script: &Script, number: u64, runs: impl Iterator<Item = Run>) {
        self.slots.set_of(script.free, script.sequencer, number + 1);
        self.runs.extend(runs);
        self.next_run(script);
    }

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

    /// A cast is delivered, which may be the last of its run, or an order.
    pub fn go_on(&mut self, script: &Script, origin: Rank, number: u64, list: &List) {
        if let Err(what) = self.core.go_on(script, origin, number, list) {
            self.count(what);
        }
    }

    /// The sequencer's cast of this number is delivered: these runs follow it.
    pub fn follow_runs(&mut self, script: &Script, number: u64, runs: impl Iterator<Item = Run>) {
        self.core.follow_runs(script, number, runs);
    }
}
