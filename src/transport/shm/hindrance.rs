//! What stands where a member's segment should be.

use std::path::PathBuf;

use super::segment::Refusal;

/// Why members' segments were refused, by cause, with the last that was: however many views follow each other while
/// something is in the way, there are no more than there are causes.
#[derive(Debug, Default)]
pub(super) struct Hindrances(Vec<Hindrance>);

#[derive(Debug)]
struct Hindrance {
    why: String,
    last: PathBuf,
    /// Once for each member and view in which it stood in the way.
    times: u64,
}

impl Hindrances {
    /// Another member's segment was refused.
    #[cold]
    pub(super) fn add(&mut self, refusal: Refusal) {
        let Refusal { path, why } = refusal;
        match self.0.iter_mut().find(|known| known.why == why) {
            Some(known) => (known.last, known.times) = (path, known.times + 1),
            None => self.0.push(Hindrance { why, last: path, times: 1 }),
        }
    }

    /// One line for each cause.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|Hindrance { why, last, times }| match times {
            1 => format!("{}: {why}", last.display()),
            _ => format!("{}: {why} ({times} times, in all views)", last.display()),
        })
    }
}
