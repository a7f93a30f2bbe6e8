//! Layers that are wrong on purpose: the museum of the laboratory, for SUSPECT, EVS, FRAG, FC, STABLE, NAK and UNICAST.
//! Without the feature there is nothing here but the word that nothing is broken.

use crate::id::Rank;
use crate::stack::layer::Context;
use crate::stack::registry::{ParameterError, Parameters};
use crate::stack::slots::MatrixSlot;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "laboratory"), allow(dead_code, reason = "only the laboratory breaks anything"))]
pub(super) enum Mistake {
    /// Nothing.
    No,
    /// SUSPECT: who has not been heard yet in a view is waited for without end.
    TrustsTheUnheard,
    /// SUSPECT: time in which this process did not run counts as silence of the others.
    BlamesForOwnPause,
    /// SUSPECT: whatever suspicion is told is taken over at once.
    BelievesEverybody,
    /// SUSPECT: who hears nobody accuses all that it has heard in this view, before it has waited for the others.
    ForgetsTheUnheard,
    /// SUSPECT: no suspicion is taken over.
    BelievesNobody,
    /// SUSPECT: who hears nobody accuses the others one after the other.
    DeafAccuses,
    /// EVS: whoever was in the view is said to go on.
    NamesAll,
    /// EVS: whoever took part in the end of the view is said to go on, who leaves with it, too.
    NamesTheLeaving,
    /// EVS: who goes on is named by rank in the view that follows.
    CountsInTheNext,
    /// FRAG: what is partly there when a view ends is waited for in the next.
    KeepsParts,
    /// FRAG: casts and sends of an origin are taken for parts of one message.
    OneProgress,
    /// FRAG: parts are taken for those of one message, whoever they come from.
    MixesOrigins,
    /// FC: credit that is lost is never asked for.
    NeverAsks,
    /// FC: a receiver grants two windows.
    GivesTwice,
    /// FC: what this member has not taken in yet is missed.
    BlamesUnread,
    /// FC: who says nothing is slow.
    BlamesTheUnheard,
    /// FC: credit that came meanwhile does not count.
    ForgetsCredit,
    /// FC: another than the slow one is named.
    ExpelsAnother,
    /// FC, STABLE: the failed count as long as the view lasts.
    WaitsForTheFailed,
    /// STABLE: the last member does not count.
    ForgetsTheLast,
    /// STABLE: others are told that all hold what those lack that are taken for failed here.
    LeavesOutTheFailed,
    /// STABLE: an application that has seen something has seen all that its member holds.
    SeenIsHeld,
    /// NAK: who is asked for casts of another forwards its own of these numbers.
    AnswersFromItsOwn,
    /// NAK: one cast more of a failed member is accepted before the cut.
    FreezesLate,
    /// NAK: one cast more than the cut says is accepted.
    ReadsPastTheCut,
    /// NAK: casts are missed only when a later one has come.
    ForgetsTheTail,
    /// UNICAST: an acknowledgement that is lost is not said again.
    SaysItOnce,
    /// UNICAST: what this member has got of a peer is taken for what the peer has got.
    TakesOwnForTheirs,
}

impl Mistake {
    #[cfg(not(feature = "laboratory"))]
    #[expect(clippy::unnecessary_wraps, reason = "the laboratory's may fail")]
    pub(super) fn of(_: &Parameters) -> Result<Mistake, ParameterError> {
        Ok(Mistake::No)
    }

    #[cfg(feature = "laboratory")]
    pub(super) fn of(parameters: &Parameters) -> Result<Mistake, ParameterError> {
        parameters.broken(VARIANTS)
    }

    /// Whether it is wrong in this way.
    #[inline]
    pub(super) fn is(self, mistake: Mistake) -> bool {
        cfg!(feature = "laboratory") && self == mistake
    }

    /// The least that others say of `subject`, as whoever is wrong in this way counts them.
    #[inline]
    pub(super) fn least_of_others(
        self,
        context: &Context<'_>,
        says: MatrixSlot,
        subject: Rank,
    ) -> Option<u64> {
        let last = usize::from(self.is(Mistake::ForgetsTheLast));
        if last == 0 && !self.is(Mistake::WaitsForTheFailed) {
            return context.least_of_others(says, subject);
        }
        let others = (0..context.view().size() - last).map(Rank::at).filter(|reporter| *reporter != subject);
        others.map(|reporter| context.pair(says, reporter, subject)).min()
    }
}

/// Every way to be wrong, by the name it has as a parameter; the first is none.
#[cfg(feature = "laboratory")]
const VARIANTS: &[(&str, Mistake)] = &[
    ("no", Mistake::No),
    ("trusts-the-unheard", Mistake::TrustsTheUnheard),
    ("blames-for-own-pause", Mistake::BlamesForOwnPause),
    ("believes-everybody", Mistake::BelievesEverybody),
    ("forgets-the-unheard", Mistake::ForgetsTheUnheard),
    ("believes-nobody", Mistake::BelievesNobody),
    ("deaf-accuses", Mistake::DeafAccuses),
    ("names-all", Mistake::NamesAll),
    ("names-the-leaving", Mistake::NamesTheLeaving),
    ("counts-in-the-next", Mistake::CountsInTheNext),
    ("keeps-parts", Mistake::KeepsParts),
    ("one-progress", Mistake::OneProgress),
    ("mixes-origins", Mistake::MixesOrigins),
    ("never-asks", Mistake::NeverAsks),
    ("gives-twice", Mistake::GivesTwice),
    ("blames-unread", Mistake::BlamesUnread),
    ("blames-the-unheard", Mistake::BlamesTheUnheard),
    ("forgets-credit", Mistake::ForgetsCredit),
    ("expels-another", Mistake::ExpelsAnother),
    ("waits-for-the-failed", Mistake::WaitsForTheFailed),
    ("forgets-the-last", Mistake::ForgetsTheLast),
    ("leaves-out-the-failed", Mistake::LeavesOutTheFailed),
    ("seen-is-held", Mistake::SeenIsHeld),
    ("answers-from-its-own", Mistake::AnswersFromItsOwn),
    ("freezes-late", Mistake::FreezesLate),
    ("reads-past-the-cut", Mistake::ReadsPastTheCut),
    ("forgets-the-tail", Mistake::ForgetsTheTail),
    ("says-it-once", Mistake::SaysItOnce),
    ("takes-own-for-theirs", Mistake::TakesOwnForTheirs),
];
