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
}

impl Mbrship {
    /// Whether it is wrong in this way.
    #[inline]
    pub(super) fn is(&self, broken: Broken) -> bool {
        cfg!(feature = "laboratory") && self.options.broken == broken
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
];
