//! Order that is wrong on purpose: the museum of the laboratory, for TOTAL, SEQUENCER and SAFE. Without the feature there
//! is nothing here but the word that nothing is broken.

use crate::stack::event::{List, Message};
use crate::stack::registry::{ParameterError, Parameters};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "laboratory"), allow(dead_code, reason = "only the laboratory breaks anything"))]
pub(super) enum Misorder {
    /// Nothing.
    No,
    /// TOTAL, SEQUENCER: casts are delivered as they come.
    FreeForAll,
    /// TOTAL: casts are issued without a turn.
    CastsOutOfTurn,
    /// TOTAL: the guest stands before its host, at the host alone.
    GuestBefore,
    /// TOTAL: whoever leaves the ring is the only one to know.
    LeavesAlone,
    /// TOTAL: marks of casts that take the layers are not seen.
    IgnoresMarks,
    /// TOTAL, SEQUENCER: what a flush leaves is delivered as it came.
    LeftoversAsTheyCame,
    /// TOTAL, SEQUENCER: what a flush leaves is not delivered.
    DropsLeftovers,
    /// TOTAL, SEQUENCER: what the failed have cast out of order is delivered, too.
    KeepsTheFailed,
    /// TOTAL: in a flush one waits for one's turn.
    WaitsInFlush,
    /// TOTAL: a request that is lost is not repeated.
    AsksOnce,
    /// TOTAL: nobody asks.
    AsksNobody,
    /// TOTAL: who has nothing to cast keeps the turn.
    NeverPasses,
    /// TOTAL: requests are not answered.
    NeverInvites,
    /// TOTAL, SEQUENCER: casts without content are delivered.
    DeliversBlanks,
    /// TOTAL: everybody begins with the turn.
    EverybodyFirst,
    /// TOTAL: a turn handed on counts for those alone that hand it on by the layers.
    GivesTwice,
    /// SEQUENCER: nothing is ordered.
    NeverOrders,
    /// SEQUENCER: some casts are put into two orders.
    OrdersTwice,
    /// SEQUENCER: of an order only the first run is followed, by all but the sequencer.
    FollowsTheFirst,
    /// SEQUENCER: some members follow an order from its end.
    FollowsBackwards,
    /// SEQUENCER: a run does not end with a cast that takes the layers.
    ForgetsEnds,
    /// SEQUENCER: some members believe another to be it.
    TwoSequencers,
    /// SEQUENCER: in a flush no more is let in than in other times.
    BoundInFlush,
    /// SAFE: nobody waits for the failed.
    ExcusesTheFailed,
    /// SAFE: one's own hold is enough.
    HoldsItself,
    /// SAFE: what is not safe when the view ends is not delivered.
    ForgetsTheRest,
    /// SAFE: a safe cast does not wait until all hold the agreed ones before it.
    ForgetsTheAgreed,
}

impl Misorder {
    #[cfg(not(feature = "laboratory"))]
    #[expect(clippy::unnecessary_wraps, reason = "the laboratory's may fail")]
    pub(super) fn of(_: &Parameters) -> Result<Misorder, ParameterError> {
        Ok(Misorder::No)
    }

    #[cfg(feature = "laboratory")]
    pub(super) fn of(parameters: &Parameters) -> Result<Misorder, ParameterError> {
        parameters.broken(VARIANTS)
    }

    /// Whether it is wrong in what blanks do, which plans get right.
    pub(super) fn is_of_blanks(self) -> bool {
        cfg!(feature = "laboratory")
            && matches!(
                self,
                Misorder::DeliversBlanks
                    | Misorder::GuestBefore
                    | Misorder::LeavesAlone
                    | Misorder::GivesTwice
                    | Misorder::FollowsTheFirst
                    | Misorder::FollowsBackwards
            )
    }

    /// What is delivered of a cast.
    pub(super) fn delivered(self, message: Message) -> Message {
        if !self.is(Misorder::DeliversBlanks) || !message.list.is_empty() {
            return message;
        }
        let (frame, from, to) = (message.list.frame().clone(), message.list.from(), message.list.to());
        Message { list: List::single(frame, from, to), ..message }
    }

    /// Whether it is wrong in this way.
    #[inline]
    pub(super) fn is(self, broken: Misorder) -> bool {
        cfg!(feature = "laboratory") && self == broken
    }
}

/// Every way to be wrong, by the name it has as a parameter; the first is none.
#[cfg(feature = "laboratory")]
const VARIANTS: &[(&str, Misorder)] = &[
    ("no", Misorder::No),
    ("free-for-all", Misorder::FreeForAll),
    ("casts-out-of-turn", Misorder::CastsOutOfTurn),
    ("guest-before", Misorder::GuestBefore),
    ("leaves-alone", Misorder::LeavesAlone),
    ("ignores-marks", Misorder::IgnoresMarks),
    ("leftovers-as-they-came", Misorder::LeftoversAsTheyCame),
    ("drops-leftovers", Misorder::DropsLeftovers),
    ("keeps-the-failed", Misorder::KeepsTheFailed),
    ("waits-in-flush", Misorder::WaitsInFlush),
    ("asks-once", Misorder::AsksOnce),
    ("asks-nobody", Misorder::AsksNobody),
    ("never-passes", Misorder::NeverPasses),
    ("never-invites", Misorder::NeverInvites),
    ("delivers-blanks", Misorder::DeliversBlanks),
    ("everybody-first", Misorder::EverybodyFirst),
    ("gives-twice", Misorder::GivesTwice),
    ("never-orders", Misorder::NeverOrders),
    ("orders-twice", Misorder::OrdersTwice),
    ("follows-the-first", Misorder::FollowsTheFirst),
    ("follows-backwards", Misorder::FollowsBackwards),
    ("forgets-ends", Misorder::ForgetsEnds),
    ("two-sequencers", Misorder::TwoSequencers),
    ("bound-in-flush", Misorder::BoundInFlush),
    ("excuses-the-failed", Misorder::ExcusesTheFailed),
    ("holds-itself", Misorder::HoldsItself),
    ("forgets-the-rest", Misorder::ForgetsTheRest),
    ("forgets-the-agreed", Misorder::ForgetsTheAgreed),
];
