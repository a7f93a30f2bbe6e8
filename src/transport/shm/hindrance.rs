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
}

impl Hindrances {
    /// Another member's segment was refused.
    #[cold]
    pub(super) fn add(&mut self, refusal: Refusal) {
        let Refusal { path, why } = refusal;
        if !self.0.iter().any(|known| known.why == why) {
            self.0.push(Hindrance { why, first: path });
        }
    }

    /// How many causes.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// One line for each cause.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|Hindrance { why, first }| format!("{}: {why}", first.display()))
    }
}
