//! Plans that are used wrongly on purpose: the museum of the laboratory. Without the feature there is nothing here but the
//! word that nothing is broken.

/// What is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    #[default]
    No,
    /// The pack that is open when the application ends its view takes in what is cast for the next one.
    PacksAcrossViews,
    /// A member of two views that follow each other is predicted by what it was in the first.
    PredictsAcrossViews,
    /// One frame more than there may be waits for its turn, and one that is further ahead.
    ParksOneMore,
    /// What was cast while the view changed goes out in the next one from its end.
    QueuesBackwards,
    /// A large cast that was under way when the view ended goes on in the next from where it was.
    GoesOnAcrossViews,
}

impl Broken {
    /// Whether it is wrong in this way.
    #[inline]
    pub(crate) fn is(self, broken: Broken) -> bool {
        cfg!(feature = "laboratory") && self == broken
    }
}
