//! Services: of casts that are in one order, the application says of each whether it is delivered as soon as it is in
//! order (*agreed*), or when every member holds it and all before it (*safe*).
//!
//! What is in order and may not go yet waits in one queue, and everything behind it too, or the order would be broken. So
//! an agreed cast goes at once if nothing waits. A safe cast may go when all members hold all of its origin up to it, and
//! every agreed cast that has gone before it: else a survivor that lacks one of those could never deliver the safe one.
//!
//! ```text
//! in order     a  a  s  a  s          a agreed, s safe
//! goes         ▲  ▲  │  │  │          the agreed ones at once
//!                    └──┴──┴─▶ wait until all members hold a, a and s; then s and the next a go
//! ```
//!
//! A layer declares this ([`CommonCase::serve`]); plan and layer both do it by the
//! functions here.
//!
//! [`CommonCase::serve`]: crate::accel::case::CommonCase::serve

use super::build::Field;
use super::core::Core;
use super::layer::Context;
use super::slots::{MemberSlot, Slot, SlotFile};
use crate::id::Rank;

/// Everything that services are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Services {
    /// A mark on a cast: it is agreed, and else it is safe.
    pub agreed: Field,
    /// By origin: casts below this number are held by all.
    pub safe: MemberSlot,
    /// By origin: of its casts, those that are safe and have come into order are below this number. Somebody waits for the
    /// news that they are held.
    pub awaited: MemberSlot,
    /// By origin: of its casts, the agreed ones that have gone are below this number.
    pub gone: MemberSlot,
    /// Whether an agreed cast has gone that is not known to be held by all: until it is, no safe one goes.
    pub ahead: Slot,
}

impl Services {
    /// Whether the first of those in order goes.
    #[inline]
    pub(crate) fn may_go(&self, slots: &SlotFile, origin: Rank, number: u64, agreed: bool) -> bool {
        agreed || slots.get(self.ahead) == 0 && slots.of(self.safe, origin) > number
    }

    /// An agreed cast goes, held by all or not.
    #[inline]
    pub(crate) fn goes_agreed(&self, slots: &mut SlotFile, origin: Rank, number: u64) {
        if slots.of(self.safe, origin) <= number {
            slots.set_of(self.gone, origin, number + 1);
            slots.set(self.ahead, 1);
        }
    }
}

impl Core {
    /// A cast of `origin` has come into order. Whether it goes on at once; if not, it is to wait.
    #[inline]
    pub(crate) fn comes_in_order(&mut self, by: &Services, origin: Rank, number: u64, agreed: bool) -> bool {
        if !agreed {
            self.slots.set_of(by.awaited, origin, number + 1);
        }
        let goes = self.order.is_clear() && by.may_go(&self.slots, origin, number, agreed);
        if goes && agreed {
            by.goes_agreed(&mut self.slots, origin, number);
        }
        goes
    }
}

impl Context<'_> {
    /// A cast of `origin` has come into order. Whether it goes on at once; if not, it is to wait
    /// ([`Context::hold_in_order`]).
    pub fn comes_in_order(&mut self, services: &Services, origin: Rank, number: u64, agreed: bool) -> bool {
        self.core.comes_in_order(services, origin, number, agreed)
    }

    /// Whether what this member casts now is agreed.
    pub fn casts_agreed(&self, services: &Services) -> bool {
        self.core.sending(services.agreed, self.rank()) != 0
    }
}
