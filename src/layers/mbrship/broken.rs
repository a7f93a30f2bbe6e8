//! Membership that is wrong on purpose: the museum of the laboratory. Without the feature there is nothing here but the
//! word that nothing is broken.

use super::Mbrship;
use crate::stack::registry::{ParameterError, Parameters};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "laboratory"), allow(dead_code, reason = "only the laboratory breaks anything"))]
pub(super) enum Broken {
    /// Nothing.
    No,
    /// The cut is what every survivor holds of a failed member, not what any holds.
    CutsAtLeast,
    /// The cut is what the coordinator holds of a failed member.
    CutsAtOwn,
    /// Nobody forwards what the dead have sent.
    NobodyForwards,
    /// Frames of the failed are accepted after the report.
    AcceptsTheFailed,
    /// The cut is what the coordinator holds also of the living.
    CutsLiveAtOwn,
    /// A flush that is begun anew keeps the reports about the failed set before.
    KeepsOldReports,
    /// The coordinator waits for nobody's confirmation.
    DecidesAlone,
    /// A flush that is begun anew has the id of the one before, and is taken part in.
    UsesIdsAgain,
    /// Whatever view it is told is installed, whether it follows this one and was confirmed or not.
    InstallsUnconfirmed,
    /// Own copies are not waited for.
    LeavesOwnCopies,
    /// Sends that are not acknowledged are not waited for.
    LeavesSends,
    /// Casting goes on during the flush.
    CastsOn,
    /// The cut is confirmed before it is delivered.
    ConfirmsUnread,
    /// A further failure does not begin the flush anew.
    NeverBeginsAnew,
    /// Whoever takes part in a flush takes part in no later one.
    PromisesOnce,
    /// An id does not name who proposed it.
    SharesIds,
    /// The next view's id need not be above those of the guests.
    IgnoresGuestIds,
    /// Two lives of one process are let in.
    LetsInTwice,
    /// The failed are in the next view.
    KeepsTheFailed,
    /// The last member of a view is not in the next.
    LosesTheLast,
    /// The decided view is told to nobody, and who asks for it is not answered.
    TellsNobody,
    /// The view that let this one in is not told to the others, and who asks for it is not answered.
    KeepsTheHostsView,
    /// Nobody looks for other views.
    NeverLooks,
    /// Who stayed behind in a past view is not answered.
    NeverAnswers,
    /// Who wants to leave tells nobody.
    LeavesUntold,
    /// Who is expelled is not told.
    ExpelsInSilence,
    /// Who was suspected after the report does not go together with the others, though the decided view has it.
    LeavesOutTheSuspected,
    /// Reports count whomever their members have given up.
    MixesFailedSets,
    /// The lowest survivor is to forward what the dead have sent, whoever holds it.
    LowestForwards,
    /// The cut is one frame less than any survivor holds of a failed member.
    CutsOneShort,
    /// The cut is confirmed when all but the last frame of it is delivered.
    ConfirmsOneShort,
    /// A view whose cut was confirmed once is installed, though a later one has been confirmed since.
    InstallsTheGivenUp,
    /// Who leaves is in the next view.
    KeepsTheLeaving,
    /// The application's word is not waited for.
    ForgetsBlock,
    /// What was cast before that word and still waits is left for the next view.
    LeavesWaitingCasts,
    /// Sending goes on during the flush.
    SendsOn,
    /// Who holds up a flush is waited for without end.
    WaitsForTheSlow,
    /// Who was let in is told the view, whichever request of its it was let in for.
    TellsWhoeverAsks,
    /// Each of two views wants to be let into the other.
    MergesBothWays,
    /// Who hears that it is out of some view leaves, whichever view it is in.
    BelievesOldExclusions,
    /// Members that are gone are not remembered.
    ForgetsTheFormer,
    /// That sends to the failed were not acknowledged is not told.
    TellsNoLoss,
    /// A lesser part excludes, too.
    ObeysTheFew,
}

impl Broken {
    #[cfg(not(feature = "laboratory"))]
    #[expect(clippy::unnecessary_wraps, reason = "the laboratory's may fail")]
    pub(super) fn of(_: &Parameters) -> Result<Broken, ParameterError> {
        Ok(Broken::No)
    }

    #[cfg(feature = "laboratory")]
    pub(super) fn of(parameters: &Parameters) -> Result<Broken, ParameterError> {
        parameters.broken(VARIANTS)
    }

    /// Whether it is wrong in this way.
    #[inline]
    pub(super) fn is(self, broken: Broken) -> bool {
        cfg!(feature = "laboratory") && self == broken
    }
}

impl Mbrship {
    /// Whether it is wrong in this way.
    #[inline]
    pub(super) fn is(&self, broken: Broken) -> bool {
        self.options.broken.is(broken)
    }
}

/// Every way to be wrong, by the name it has as a parameter; the first is none.
#[cfg(feature = "laboratory")]
const VARIANTS: &[(&str, Broken)] = &[
    ("no", Broken::No),
    ("cuts-at-least", Broken::CutsAtLeast),
    ("cuts-at-own", Broken::CutsAtOwn),
    ("nobody-forwards", Broken::NobodyForwards),
    ("accepts-the-failed", Broken::AcceptsTheFailed),
    ("cuts-live-at-own", Broken::CutsLiveAtOwn),
    ("keeps-old-reports", Broken::KeepsOldReports),
    ("decides-alone", Broken::DecidesAlone),
    ("uses-ids-again", Broken::UsesIdsAgain),
    ("installs-unconfirmed", Broken::InstallsUnconfirmed),
    ("leaves-own-copies", Broken::LeavesOwnCopies),
    ("leaves-sends", Broken::LeavesSends),
    ("casts-on", Broken::CastsOn),
    ("confirms-unread", Broken::ConfirmsUnread),
    ("never-begins-anew", Broken::NeverBeginsAnew),
    ("promises-once", Broken::PromisesOnce),
    ("shares-ids", Broken::SharesIds),
    ("ignores-guest-ids", Broken::IgnoresGuestIds),
    ("lets-in-twice", Broken::LetsInTwice),
    ("keeps-the-failed", Broken::KeepsTheFailed),
    ("loses-the-last", Broken::LosesTheLast),
    ("tells-nobody", Broken::TellsNobody),
    ("keeps-the-hosts-view", Broken::KeepsTheHostsView),
    ("never-looks", Broken::NeverLooks),
    ("never-answers", Broken::NeverAnswers),
    ("leaves-untold", Broken::LeavesUntold),
    ("expels-in-silence", Broken::ExpelsInSilence),
    ("leaves-out-the-suspected", Broken::LeavesOutTheSuspected),
    ("mixes-failed-sets", Broken::MixesFailedSets),
    ("lowest-forwards", Broken::LowestForwards),
    ("cuts-one-short", Broken::CutsOneShort),
    ("confirms-one-short", Broken::ConfirmsOneShort),
    ("installs-the-given-up", Broken::InstallsTheGivenUp),
    ("keeps-the-leaving", Broken::KeepsTheLeaving),
    ("forgets-block", Broken::ForgetsBlock),
    ("leaves-waiting-casts", Broken::LeavesWaitingCasts),
    ("sends-on", Broken::SendsOn),
    ("waits-for-the-slow", Broken::WaitsForTheSlow),
    ("tells-whoever-asks", Broken::TellsWhoeverAsks),
    ("merges-both-ways", Broken::MergesBothWays),
    ("believes-old-exclusions", Broken::BelievesOldExclusions),
    ("forgets-the-former", Broken::ForgetsTheFormer),
    ("tells-no-loss", Broken::TellsNoLoss),
    ("obeys-the-few", Broken::ObeysTheFew),
];
