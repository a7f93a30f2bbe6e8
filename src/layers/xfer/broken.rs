//! State transfer that is wrong on purpose: the museum of the laboratory. Without the feature there is nothing here but the
//! word that nothing is broken.

use crate::stack::registry::{ParameterError, Parameters};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "laboratory"), allow(dead_code, reason = "only the laboratory breaks anything"))]
pub(super) enum Broken {
    /// Nothing.
    No,
    /// The snapshot is taken when the view has begun to deliver.
    LateSnapshot,
    /// What was held is handed on behind the next view's state, which contains it.
    KeepsHold,
    /// Who has got the first part says that it has the state.
    HasTooEarly,
    /// Sends that come before the state are let go of.
    DropsSends,
    /// What was held in views before is let go of, though the transfer goes on from where it was.
    ForgetsHold,
    /// The casts that were held are not handed on behind the state.
    DropsCasts,
    /// A part is taken in whoever gives it, and wherever it belongs.
    TakesFromAnybody,
    /// What was held is let go of up to this view, though the state is that of one before.
    BeginsAtThisView,
    /// The state is whole when its last part has come, taken in or not.
    WholeTooEarly,
    /// Who had a state of its own keeps it when it is let in.
    GuestsKeepTheirs,
    /// What members had before they were let in counts for nothing, though nobody else has the state any more.
    OwnIsVoid,
    /// It counts although parts of another's state have taken its place.
    OwnIsKeptInPart,
    /// It counts for nothing as soon as another's state is on offer, though the application has taken in nothing of it.
    OwnGoesWithTheOffer,
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

/// Every way to be wrong, by the name it has as a parameter; the first is none.
#[cfg(feature = "laboratory")]
const VARIANTS: &[(&str, Broken)] = &[
    ("no", Broken::No),
    ("late-snapshot", Broken::LateSnapshot),
    ("keeps-hold", Broken::KeepsHold),
    ("has-too-early", Broken::HasTooEarly),
    ("drops-sends", Broken::DropsSends),
    ("forgets-hold", Broken::ForgetsHold),
    ("drops-casts", Broken::DropsCasts),
    ("takes-from-anybody", Broken::TakesFromAnybody),
    ("begins-at-this-view", Broken::BeginsAtThisView),
    ("whole-too-early", Broken::WholeTooEarly),
    ("guests-keep-theirs", Broken::GuestsKeepTheirs),
    ("own-is-void", Broken::OwnIsVoid),
    ("own-is-kept-in-part", Broken::OwnIsKeptInPart),
    ("own-goes-with-the-offer", Broken::OwnGoesWithTheOffer),
];
