//! What members say to each other of the state.

use super::{Own, Xfer};
use crate::id::{Incarnation, MEMBERS_MAX, Rank, RankSet, ViewId};
use crate::stack::event::Message;
use crate::stack::layer::Context;

/// Kind, flags, and how much came before.
pub(super) const PART_HEAD_BYTES: usize = 10;
/// Who lacks the state; whether it is for the receiver; the cut, how much has come before, and the view in which the state was
/// founded.
pub(super) const BEGIN_BYTES: usize = 1 + MEMBERS_MAX / 8 + 1 + 8 * 4;
/// Where it says whether it is for the receiver.
pub(super) const TAKES_AT: usize = 1 + MEMBERS_MAX / 8;
pub(super) const CREDIT_BYTES: usize = 1 + 8;
/// The longest frame that this member takes; whether it has a whole state of its own; what it takes in (the cut, and whose
/// state), and how much of that its application has.
pub(super) const LACKS_BYTES: usize = 1 + 4 + 1 + 8 * 4;
/// How much has arrived.
pub(super) const REACHED_BYTES: usize = 1 + 4;
/// Taken in, as credit: whoever has it all needs no more, whether or not its application has got it.
pub(super) const ALL: u64 = u64::MAX;
pub(super) const LAST: u8 = 1;
/// The application has no state: there is nothing to take in.
pub(super) const STATELESS: u8 = 2;

/// First bytes of messages.
pub(super) mod kind {
    pub(crate) const LACKS: u8 = 1;
    pub(crate) const BEGIN: u8 = 2;
    pub(crate) const PART: u8 = 3;
    pub(crate) const HAVE: u8 = 4;
    pub(crate) const FULL: u8 = 5;
    pub(crate) const REFUSED: u8 = 6;
    pub(crate) const CREDIT: u8 = 7;
    pub(crate) const ANEW: u8 = 8;
    pub(crate) const ROOM: u8 = 9;
    pub(crate) const PROBE: u8 = 10;
    pub(crate) const REACHED: u8 = 11;
    pub(crate) const UNABLE: u8 = 12;
}

/// What is to be said, once there is room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    Lacks,
    /// That the giving of this cut begins, or goes on.
    Begin(ViewId),
    Have,
    Full,
    Refused,
    /// How much of the state its application has: credit for the donor.
    Credit,
    /// That what its receiver goes on with was never begun here.
    Anew,
    /// That this member is full no longer.
    Room,
    /// That it cannot read the state that it has.
    Unable,
    /// That a probe of so many bytes has arrived.
    Reached(u32),
}

impl Xfer {
    /// Says something to all others, soon.
    pub(super) fn say(&mut self, context: &mut Context<'_>, what: Say) {
        self.say_to(context, Xfer::others(context), what);
    }

    pub(super) fn say_to(&mut self, context: &mut Context<'_>, to: RankSet, what: Say) {
        if !to.is_empty() {
            self.unsaid.push((to, what));
        }
        self.turn_now(context);
    }

    /// Says what is to be said, as far as there is room.
    pub(super) fn speak(&mut self, context: &mut Context<'_>) {
        if self.flushing {
            return;
        }
        while let Some((to, what)) = self.unsaid.first().copied() {
            for peer in to.iter() {
                let Ok(mut body) = context.control_frame() else { return };
                let written = match what {
                    Say::Lacks => {
                        let most = context.long_frame_bytes().unwrap_or_default() as u32;
                        body.extend(&[kind::LACKS])
                            .and_then(|()| body.extend(&most.to_le_bytes()))
                            .and_then(|()| body.extend(&[u8::from(self.shared)]))
                            .and_then(|()| body.extend(self.taking.tell_all().as_flattened()))
                    }
                    Say::Have => body.extend(&[kind::HAVE]),
                    Say::Full => body.extend(&[kind::FULL]),
                    Say::Refused => body.extend(&[kind::REFUSED]),
                    Say::Credit => body
                        .extend(&[kind::CREDIT])
                        .and_then(|()| body.extend(&self.taking.credit().to_le_bytes())),
                    Say::Anew => body.extend(&[kind::ANEW]),
                    Say::Room => body.extend(&[kind::ROOM]),
                    Say::Unable => body.extend(&[kind::UNABLE]),
                    Say::Reached(bytes) => {
                        body.extend(&[kind::REACHED]).and_then(|()| body.extend(&bytes.to_le_bytes()))
                    }
                    Say::Begin(cut) => body.extend(&self.beginning(cut, peer)),
                };
                written.expect("a frame holds a set of members");
                if context.send_reliable(RankSet::one(peer), body).is_err() {
                    return;
                }
                self.unsaid[0].0.remove(peer);
            }
            self.unsaid.remove(0);
            self.known |= matches!(what, Say::Have | Say::Begin(_));
            if what == Say::Unable && !self.unable_before.contains(context.rank()) {
                // They hear of it in this view, and the next donor's snapshot is taken at the cut of another.
                context.ask_for_view();
            }
        }
    }

    /// What `origin` says.
    pub(super) fn heard(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        let payload = message.list.payload();
        match payload.first() {
            Some(&kind::LACKS) if payload.len() == LACKS_BYTES && payload[5] <= 1 => {
                let most = u32::from_le_bytes(payload[1..5].try_into().expect("four bytes"));
                self.ways[origin.index()].takes_bytes = most as usize;
                self.lacks.insert(origin);
                self.said.insert(origin);
                if payload[5] == 1 {
                    self.with_own.insert(origin);
                }
                let word =
                    |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight bytes"));
                let cut = ViewId { counter: word(6), coordinator: Incarnation(word(14)) };
                let of = context.view().member(context.rank()).incarnation;
                if word(22) == of.0 && self.givings.iter().any(|giving| giving.gives(cut, origin)) {
                    self.has_taken(context, origin, word(30));
                }
                self.found(context);
            }
            Some(&kind::BEGIN) if payload.len() == BEGIN_BYTES && payload[TAKES_AT] <= 1 => {
                self.begin(context, origin, &payload[1..])
            }
            Some(&kind::PART) => self.part(context, origin, message),
            Some(&kind::CREDIT) if payload.len() == CREDIT_BYTES => {
                let taken = u64::from_le_bytes(payload[1..].try_into().expect("eight bytes"));
                self.has_credit(context, origin, taken);
            }
            Some(&kind::ROOM) => self.let_off(context, origin),
            Some(&kind::PROBE) => {
                let to = RankSet::one(origin);
                let answers = |said: &(RankSet, Say)| said.0 == to && matches!(said.1, Say::Reached(_));
                if self.own == Own::Lacks && !self.flushing && !self.unsaid.iter().any(answers) {
                    self.say_to(context, to, Say::Reached(payload.len() as u32));
                }
            }
            Some(&kind::REACHED) if payload.len() == REACHED_BYTES => {
                let bytes = u32::from_le_bytes(payload[1..].try_into().expect("four bytes"));
                self.has_reached(context, origin, bytes as usize);
            }
            Some(&kind::ANEW) => self.begin_anew(context, origin),
            Some(&kind::UNABLE) => self.is_unable(context, origin),
            Some(&kind::HAVE) => {
                self.has(context, origin);
                self.turn_now(context);
            }
            Some(&kind::REFUSED) => {
                self.lacks.insert(origin);
                self.refused.insert(origin);
                context.count("state refused by its receiver");
                self.let_off(context, origin);
                self.found(context);
                self.turn_now(context);
            }
            Some(&kind::FULL) if self.lacks.contains(origin) => self.is_full(context, origin),
            _ => context.count("transfer message that does not decode"),
        }
    }
}
