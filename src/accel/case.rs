//! What a layer can declare of its common case (design D1, D2).
//!
//! A declaration is data. The compiler merges those of a whole stack into one plan per kind of traffic; layers never
//! run on the fast path.

use crate::stack::build::{Field, Gossip, Guard};
use crate::stack::layer::Kind;
use crate::stack::script::Script;
use crate::stack::service::Services;
use crate::stack::slots::{MemberSlot, Slot, Tally};
use crate::stack::turns::Turns;

/// A word that an effect changes: for deliveries a member slot is the origin's, for sends the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A word of the stack.
    Own(Slot),
    /// A word of the member concerned.
    Member(MemberSlot),
}

/// A value that an effect uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Always the same.
    Constant(u64),
    /// The frame's number.
    FrameNumber,
    /// Bytes of payload.
    PayloadBytes,
    /// Messages in the list.
    Messages,
    /// The time of this iteration, in nanoseconds.
    Now,
}

/// What an effect does with target and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Adds it.
    Add,
    /// Stores it.
    Store,
    /// Raises the target to it.
    Raise,
}

/// A change of one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// What is done.
    pub operation: Operation,
    /// To what.
    pub target: Target,
    /// With what.
    pub source: Source,
}

/// What happens when a field reaches a slot's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) field: Field,
    pub(crate) limit: Target,
    pub(crate) sets: Sets,
}

/// What a limit sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sets {
    /// The guard closes.
    Guard(Guard),
    /// From then on this member's messages carry the mark.
    Mark(Field),
}

/// One statement, and the layer that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Advance(Field),
    Bound(Field),
    Filter(Field),
    Gossip(Gossip),
    Count(Tally),
    Retain,
    LoopBack,
    Limit(Limit),
    Effect(Effect),
    Release(MemberSlot),
    Serve(Services),
    Turns(Turns),
    Script(Script),
}

/// Takes a layer's declaration for one kind of traffic.
pub struct CommonCase<'c> {
    pub(crate) kind: Kind,
    pub(crate) layer: usize,
    pub(crate) statements: &'c mut Vec<(usize, Statement)>,
}

impl CommonCase<'_> {
    /// The kind of traffic asked about.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn state(&mut self, statement: Statement) {
        self.statements.push((self.layer, statement));
    }

    /// A protocol field: sent as this member's next value, which then advances by one; on receipt equal to what is
    /// expected of the origin, which then advances by one.
    pub fn advance(&mut self, field: Field) {
        self.state(Statement::Advance(field));
    }

    /// A bound field: it equals the frame number, and needs neither bits nor work.
    pub fn bound(&mut self, field: Field) {
        self.state(Statement::Bound(field));
    }

    /// A message field: computed when sent, verified on receipt.
    pub fn filter(&mut self, field: Field) {
        self.state(Statement::Filter(field));
    }

    /// A gossip rides along.
    pub fn gossip(&mut self, gossip: Gossip) {
        self.state(Statement::Gossip(gossip));
    }

    /// A count grows by one.
    pub fn count(&mut self, tally: Tally) {
        self.state(Statement::Count(tally));
    }

    /// The frame is retained under its number.
    pub fn retain(&mut self) {
        self.state(Statement::Retain);
    }

    /// The cast is given back to this member, above this layer, at the next poll.
    pub fn loop_back(&mut self) {
        self.state(Statement::LoopBack);
    }

    /// When `field`, after advancing, has reached the value of `limit`, the guard closes.
    pub fn limit(&mut self, field: Field, limit: Target, guard: Guard) {
        self.state(Statement::Limit(Limit { field, limit, sets: Sets::Guard(guard) }));
    }

    /// When `field`, after advancing, has reached the value of `limit`, this member's messages carry `mark`.
    pub fn mark_from(&mut self, field: Field, limit: Target, mark: Field) {
        self.state(Statement::Limit(Limit { field, limit, sets: Sets::Mark(mark) }));
    }

    /// A word changes.
    pub fn effect(&mut self, operation: Operation, target: Target, source: Source) {
        self.state(Statement::Effect(Effect { operation, target, source }));
    }

    /// Frames that layers beneath have put in order ([`turns`](CommonCase::turns), [`script`](CommonCase::script)) go to
    /// this layer's upper neighbour in that order, agreed ones when those before them have, safe ones when all members hold
    /// them. What this layer and those above declare takes effect then.
    pub fn serve(&mut self, services: Services) {
        self.state(Statement::Serve(services));
    }

    /// Members deliver in turns: a frame goes to this layer's upper neighbour when it is its origin's turn, which a mark
    /// ends. What this layer and those above declare takes effect then.
    pub fn turns(&mut self, turns: Turns) {
        self.state(Statement::Turns(turns));
    }

    /// Members deliver by a script: a frame goes to this layer's upper neighbour when its run has come, and the last of a
    /// run begins the next. What this layer and those above declare takes effect then.
    pub fn script(&mut self, script: Script) {
        self.state(Statement::Script(script));
    }

    /// The frame is delivered to this layer's upper neighbour only when the origin's word in `slot` exceeds its
    /// number. What this layer and those above declare takes effect then.
    pub fn release(&mut self, slot: MemberSlot) {
        self.state(Statement::Release(slot));
    }
}
