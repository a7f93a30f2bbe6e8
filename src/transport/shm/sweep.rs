//! Looking for what dead processes have left, a file at a time.
//!
//! Survivors see a member's end, and remove its segment, in the channels they have open. A member that dies has segments of other
//! views too: of one that it had not closed yet, while others had; of one in which it was excluded long before it ended. Nobody
//! has those open, so the directory is looked through whenever channels come and go.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;

use super::owner::Owner;
use super::segment;

/// A walk through the directory, in steps.
#[derive(Default)]
pub(super) struct Sweep {
    /// Files to be looked at, each once.
    rest: VecDeque<PathBuf>,
}

impl Sweep {
    /// Has these files looked at, too, behind those whose turn has not come yet: however often that is asked for, each has its
    /// turn. They are listed here, and not in steps, which are done while frames come and allocate nothing.
    pub(super) fn begin(&mut self, files: impl Iterator<Item = PathBuf>) {
        let waiting: HashSet<PathBuf> = self.rest.iter().cloned().collect();
        self.rest.extend(files.filter(|file| !waiting.contains(file)));
    }

    pub(super) fn has_steps(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Looks at the next file.
    #[cold]
    pub(super) fn step(&mut self, here: &Owner) {
        segment::remove_dead(self.rest.pop_front().into_iter(), here);
    }
}
