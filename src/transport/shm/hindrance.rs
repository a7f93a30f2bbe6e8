//! What stands where a member's segment should be.

use std::path::PathBuf;

use super::segment::Refusal;

/// Why members' segments were refused, by cause, with the first that was: however many views follow each other while
/// something is in the way, there are no more than there are causes.
#[derive(Debug, Default)]
pub(super) struct Hindrances(Vec<Hindrance>);

#[derive(Debug)]
struct Hindrance {
    why: String,
    first: PathBuf,
    others: bool,
}

impl Hindrances {
    /// Another member's segment was refused.
    #[cold]
    pub(super) fn add(&mut self, refusal: Refusal) {
        let Refusal { path, why } = refusal;
        match self.0.iter_mut().find(|known| known.why == why) {
            Some(known) => known.others |= known.first != path,
            None => self.0.push(Hindrance { why, first: path, others: false }),
        }
    }

    /// One line for each cause.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|Hindrance { why, first, others }| {
            let others = if *others { " (and others, for the same reason)" } else { "" };
            format!("{}: {why}{others}", first.display())
        })
    }
}
