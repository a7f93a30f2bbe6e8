//! Turns: one member at a time casts, and ends its turn by a mark on a cast (design D4).
//!
//! Whose turn it is follows from what has been delivered, and from nothing else: the casts of the member whose turn it
//! is are delivered in their own order, up to and including the first that carries the mark; then it is the turn of that
//! member's *next*. So all members deliver all casts in one order without a number for it on the wire.
//!
//! ```text
//! next of A is B, next of B is A
//! A   0  1  2*           3*            (* carries the mark)
//! B             0* ----------> 1
//! delivered everywhere: A0 A1 A2 | B0 | A3 | B1
//! ```
//!
//! A cast that ends a turn may be a blank ([`pack`](crate::wire::pack)): its origin has nothing to say. Its note may change
//! who is whose next: its origin leaves, or another comes in behind it ([`Says`]). So all members know the ring.
//!
//! When the view ends, turns do ([`Turns::phase`]): in a flush everybody casts what waits, and what is still held when
//! nothing more can come is delivered by rank.
//!
//! A layer says who is whose next, and declares that this is what happens ([`CommonCase::turns`]); plan and layer both do
//! it by the functions here.
//!
//! [`CommonCase::turns`]: crate::accel::case::CommonCase::turns

use super::build::{Field, Guard};
use super::core::Core;
use super::event::List;
use super::layer::Context;
use super::slots::{MemberSlot, Slot};
use crate::id::{Rank, RankSet};

/// Everything that turns are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// On a cast: its origin's turn ends here.
    pub mark: Field,
    /// By origin: casts below this number may be delivered. All of the member whose turn it is.
    pub free: MemberSlot,
    /// By member: the rank of who comes after it; [`OUT`] of those who take no turns.
    pub next: MemberSlot,
    /// Closes the entry while it is not this member's turn.
    pub waits: Guard,
    /// The frame number from which on this member's casts carry the mark, and the one at which the entry is closed to
    /// them. Of a turn that a blank is to end, whatever else is cast, only the second is set.
    pub mark_at: Slot,
    /// See `mark_at`.
    pub over_at: Slot,
    /// Whether this member's next turn is to end in a blank: it has something to say.
    pub blank: Slot,
    /// One of [`phase`]: whether turns are taken.
    pub phase: Slot,
    /// The most frames of one turn.
    pub burst: u64,
}

/// Values of [`Turns::phase`].
pub mod phase {
    /// Turns are taken.
    pub const TURNS: u64 = 0;
    /// A flush has begun: nobody ends its turn, and nobody waits for one in order to cast.
    pub const FLUSH: u64 = 1;
    /// Nothing more will come: what is held is delivered by rank.
    pub const OVER: u64 = 2;
}

/// Who takes no turns, as a [`Turns::next`].
pub const OUT: u64 = u64::MAX;

/// What the note of a blank says that ends a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing: the next goes on.
    Passes,
    /// Its origin takes no turns any more.
    Leaves,
    /// This member takes turns, and the next one.
    Invites(Rank),
}

/// First bytes of notes.
const LEAVES: u8 = 1;
const INVITES: u8 = 2;

impl Says {
    /// Writes the note into `room`; returns it.
    pub fn encode(self, room: &mut [u8; 3]) -> &[u8] {
        match self {
            Says::Passes => &[],
            Says::Leaves => {
                room[0] = LEAVES;
                &room[..1]
            }
            Says::Invites(Rank(rank)) => {
                let [low, high] = rank.to_le_bytes();
                *room = [INVITES, low, high];
                room
            }
        }
    }

    /// Reads a note.
    pub fn decode(note: &[u8]) -> Option<Says> {
        match *note {
            [] => Some(Says::Passes),
            [LEAVES] => Some(Says::Leaves),
            [INVITES, low, high] => Some(Says::Invites(Rank(u16::from_le_bytes([low, high])))),
            _ => None,
        }
    }
}

impl Core {
    /// The turn of `origin` ended with its cast of this number, which is or is not a blank.
    ///
    /// # Errors
    /// What is wrong with a blank. Its turn ends all the same.
    #[inline(never)]
    pub(crate) fn end_turn(
        &mut self,
        turns: &Turns,
        origin: Rank,
        number: u64,
        list: &List,
    ) -> Result<(), &'static str> {
        if self.slots.get(turns.phase) == phase::OVER {
            return Ok(());
        }
        let next = self.slots.of(turns.next, origin);
        let (next, outcome) = match list.is_empty() {
            false => (next, Ok(())),
            true => self.change_ring(turns, origin, next, Says::decode(list.note())),
        };
        // Nobody but a liar ends a turn who is not in the ring.
        let next = if next == OUT { origin } else { Rank(next as u16) };
        self.hand_to(turns, origin, number, next);
        outcome
    }

    /// A blank of `origin`, whose next is `next`, says this: whose turn it is now.
    fn change_ring(
        &mut self,
        turns: &Turns,
        origin: Rank,
        next: u64,
        says: Option<Says>,
    ) -> (u64, Result<(), &'static str>) {
        let slot = turns.next;
        match says {
            None => (next, Err("note that does not decode")),
            Some(Says::Passes) => (next, Ok(())),
            Some(Says::Leaves) if next == u64::from(origin.0) => {
                (next, Err("the last of the ring wants to leave it"))
            }
            Some(Says::Leaves) => {
                let is_before = |rank: &Rank| self.slots.of(slot, *rank) == u64::from(origin.0);
                let mut others = (0..self.view.size()).map(Rank::at).filter(|rank| *rank != origin);
                if let Some(before) = others.find(is_before) {
                    self.slots.set_of(slot, before, next);
                }
                self.slots.set_of(slot, origin, OUT);
                (next, Ok(()))
            }
            Some(Says::Invites(guest)) if guest.index() >= self.view.size() => {
                (next, Err("invitation of no member"))
            }
            Some(Says::Invites(guest)) => {
                if self.slots.of(slot, guest) == OUT {
                    self.slots.set_of(slot, guest, next);
                    self.slots.set_of(slot, origin, u64::from(guest.0));
                }
                (u64::from(guest.0), Ok(()))
            }
        }
    }

    /// The turn of `origin` ended with its cast of this number: it is the turn of `next`.
    pub(crate) fn hand_to(&mut self, turns: &Turns, origin: Rank, number: u64, next: Rank) {
        self.slots.set_of(turns.free, origin, number + 1);
        self.slots.set_of(turns.free, next, u64::MAX);
        if next == self.own {
            self.take_turn(turns);
        }
    }

    /// It is this member's turn: until the end of the view if there is nobody else, otherwise for what waits. If a blank is
    /// to end it, none of that carries the mark: whoever has a cast ready each time would never come to its blank.
    pub(crate) fn take_turn(&mut self, turns: &Turns) {
        let own = self.own;
        let flush = self.slots.get(turns.phase) != phase::TURNS;
        let blank = !flush && self.slots.get(turns.blank) != 0;
        let alone = flush || self.slots.of(turns.next, own) == u64::from(own.0);
        let number = self.next_frame_number();
        let frames = self.waiting_frames.clamp(1, turns.burst);
        let (mark_at, over_at) = match number + frames {
            over_at if blank => (u64::MAX, over_at),
            _ if alone => (u64::MAX, u64::MAX),
            over_at => (over_at - 1, over_at),
        };
        self.slots.set(turns.mark_at, mark_at);
        self.slots.set(turns.over_at, over_at);
        self.set_sending(turns.mark, own, u64::from(number >= mark_at));
        self.open_turn(turns);
        // Whoever has nothing to cast is not to keep the others waiting.
        self.prompt_wanted |= blank || !alone && (self.waiting_frames == 0 || self.is_behind());
    }

    /// How many of this member's casts by plan, from `number` on, which is the first that is not delivered, are known to carry
    /// no mark: they are of this turn, unless a flush has begun and another turn with it.
    #[inline]
    pub(crate) fn own_unmarked(&self, turns: &Turns, number: u64) -> u64 {
        match self.slots.get(turns.phase) {
            phase::TURNS => self.slots.get(turns.mark_at).saturating_sub(number),
            _ => 0,
        }
    }

    /// Opens the entry to the casts of a turn.
    fn open_turn(&mut self, turns: &Turns) {
        *self.slots.word_mut(turns.waits.kind.offset()) &= !turns.waits.mask;
        self.ceiling = 0;
    }
}

impl Context<'_> {
    /// The turn of `origin` ended with its cast of this number, which is or is not a blank.
    pub fn end_turn(&mut self, turns: &Turns, origin: Rank, number: u64, list: &List) {
        if let Err(what) = self.core.end_turn(turns, origin, number, list) {
            self.count(what);
        }
    }

    /// Whether it is this member's turn, and only a blank ends it.
    pub fn ends_in_blank(&self, turns: &Turns) -> bool {
        self.get(turns.mark_at) == u64::MAX && self.get(turns.over_at) != u64::MAX
    }

    /// The turn is over but for its blank, and there is none between the pieces of a message: the next piece may go.
    pub fn finish_message(&mut self, turns: &Turns) {
        if self.core.amid_message && self.is_closed(turns.waits, self.rank()) {
            self.set(turns.over_at, self.next_frame_number() + 1);
            self.core.open_turn(turns);
        }
    }

    /// The next cast of this member, for which the entry is open, ends its turn.
    pub fn last_of_turn(&mut self, turns: &Turns) {
        let (own, number) = (self.rank(), self.next_frame_number());
        self.set(turns.mark_at, number);
        self.set(turns.over_at, number + 1);
        self.core.set_sending(turns.mark, own, 1);
        self.core.open_turn(turns);
    }

    /// The turn of `origin` ended with its cast of this number: it is the turn of `next`.
    pub fn hand_to(&mut self, turns: &Turns, origin: Rank, number: u64, next: Rank) {
        self.core.hand_to(turns, origin, number, next);
    }

    /// It is this member's turn.
    pub fn take_turn(&mut self, turns: &Turns) {
        self.core.take_turn(turns);
    }

    /// A flush has begun.
    pub fn flush_turns(&mut self, turns: &Turns) {
        if self.get(turns.phase) == phase::TURNS {
            self.set(turns.phase, phase::FLUSH);
            self.core.take_turn(turns);
            self.lift_order_bound();
        }
    }

    /// Nothing more will come: what is held of the members in `of` is delivered, by rank or as it came; the rest never.
    pub fn end_turns(&mut self, turns: &Turns, of: RankSet, by_rank: bool) {
        self.set(turns.phase, phase::OVER);
        self.release_rest(turns.free, of, by_rank);
    }

    /// What a plan does with a cast's mark: writes it as it is, then sets it for the next one or ends the turn. Returns
    /// whether this cast carries it.
    pub fn spend_turn(&mut self, turns: &Turns) -> bool {
        let own = self.rank();
        let marked = self.core.sending(turns.mark, own) != 0;
        let next = self.core.next_frame_number() + 1;
        if next >= self.get(turns.mark_at) {
            self.core.set_sending(turns.mark, own, 1);
        }
        if next >= self.get(turns.over_at) {
            self.close(turns.waits, own);
        }
        marked
    }
}
