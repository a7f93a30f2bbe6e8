//! What waits for something that does not move: the group for who is full, who comes in for the state, and who leaves until it
//! has been given.

use super::giving::Giving;
use super::{Own, Xfer};
use crate::id::RankSet;
use crate::stack::event::Down;
use crate::stack::layer::Context;
use crate::time::Millis;

/// So often within the time that nothing may move it is looked at; and who keeps the group from casting is named at the first.
const LOOKS: u32 = 10;

impl Xfer {
    pub(super) fn look_soon(&self, context: &mut Context<'_>) {
        context.arm_if_idle(self.handles().look, context.now() + self.options.stall / LOOKS);
    }

    /// What waits is looked at: the group for who is full, this member for the state or to give it. Says for whom, and ends
    /// what does not move.
    pub(super) fn look(&mut self, context: &mut Context<'_>) {
        let gives_late = self.givings.iter().any(Giving::is_not_ready);
        let waits = self.own == Own::Lacks || gives_late || self.leaves || !self.full.is_empty();
        if self.flushing || !waits {
            return;
        }
        self.look_soon(context);
        if self.leaves {
            self.leave_if_given(context);
        }
        self.look_at_full(context);
        let stall = self.options.stall;
        let since = if self.full.is_empty() { self.moved } else { self.moved.max(self.held_since) };
        if context.now() < since + stall {
            return;
        }
        let held = if self.full.is_empty() { "" } else { " while the group waited" };
        let not_ready = format!("was not ready for {}{held} (stall_ms)", Millis(stall));
        if self.own == Own::Lacks && self.full.contains(context.rank()) && self.taking.is_late() {
            self.refuse(context, format!("the application {not_ready}"));
            context.down(Down::Leave);
        } else if gives_late && (!self.full.is_empty() || self.is_another_able(context)) {
            self.cannot_give(context, &format!("it {not_ready}"));
        } else if self.own == Own::Lacks && !self.taking.is_late() && !self.taking.has_come() {
            self.nothing_comes(context);
        }
    }

    /// Tells for whom the group has been held.
    fn look_at_full(&mut self, context: &mut Context<'_>) {
        let lasting = context.now().since(self.held_since);
        let early = self.full.is_empty() || lasting < self.options.stall / LOOKS;
        if early || std::mem::replace(&mut self.held_told, true) {
            return;
        }
        let lasting = Millis(lasting);
        for full in self.full.without(RankSet::one(context.rank())).iter() {
            let what = format!(
                "nobody has cast for {lasting}: {} waits for the state and holds back all that it may (hold_kib_max)",
                context.view().member(full).address
            );
            context.problem(Some(full), what);
        }
    }

    /// Whether another member has the state, and is not known to be unable to give it.
    pub(super) fn is_another_able(&self, context: &Context<'_>) -> bool {
        !Xfer::others(context).without(self.lacks).without(self.unable).is_empty()
    }

    /// Whether this member alone can give the state to those who wait for it, and something of that moves.
    fn is_needed(&self, context: &Context<'_>) -> bool {
        self.own == Own::Has
            && !self.lacks.with(self.unable).contains(context.rank())
            && !self.is_another_able(context)
            && !self.wanting().is_empty()
            && context.now() < self.moved + self.options.stall
    }

    /// This member wants to leave: it does once somebody else has the state, or nobody wants it.
    pub(super) fn leave_if_given(&mut self, context: &mut Context<'_>) {
        if self.leaves && !self.is_needed(context) {
            self.leaves = false;
            context.down(Down::Leave);
        }
    }

    /// Nothing of the state has come for as long as it may stand still: it is said once, until something comes.
    fn nothing_comes(&mut self, context: &mut Context<'_>) {
        if std::mem::replace(&mut self.silence_told, self.moved) == self.moved {
            return;
        }
        let lasting = Millis(context.now().since(self.moved));
        let (donor, taken) = self.taking.donor();
        let who = donor.map(|donor| &context.view().member(donor).address);
        let what = match who {
            Some(donor) => {
                format!(
                    "the group's state does not come: nothing for {lasting}, after {taken} bytes of it from {donor}"
                )
            }
            None => format!("the group's state does not come: nobody has given any of it for {lasting}"),
        };
        context.problem(donor, format!("{what}; this process goes on waiting (stall_ms)"));
    }
}
