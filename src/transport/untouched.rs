//! Memory that was mapped and not yet touched. To have the system make the pages of what a channel needs takes milliseconds,
//! in which nobody would hear of this process; so they are made bit by bit, and what is used before takes a fault.

use crate::buf::{Memory, Pages};

/// Bytes touched at one step: some tens of microseconds.
pub(super) const STEP_BYTES: usize = 128 << 10;

/// Stretches of memory, and how much of each was touched.
#[derive(Default)]
pub(super) struct Untouched {
    stretches: Vec<(Memory, usize)>,
}

impl Untouched {
    pub(super) fn push(&mut self, memory: Memory) {
        // Huge pages are there from the beginning.
        if *memory.pages() == Pages::Huge {
            return;
        }
        self.stretches.push((memory, 0));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }

    /// Touches the next bit of what somebody else has a handle to, and lets go of the rest.
    pub(super) fn step(&mut self) {
        self.stretches.retain(|(memory, _)| memory.is_shared());
        if let Some((memory, done)) = self.stretches.last_mut() {
            memory.touch(*done, STEP_BYTES);
            *done += STEP_BYTES;
            if *done >= memory.bytes() {
                self.stretches.pop();
            }
        }
    }

    /// Lets go of this memory.
    pub(super) fn remove(&mut self, memory: &Memory) {
        self.stretches.retain(|(untouched, _)| untouched.base() != memory.base());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_touched_in_steps_and_not_kept_for_that() {
        let memory = Memory::anonymous_untouched(2 * STEP_BYTES + 1, false).unwrap();
        let mut untouched = Untouched::default();
        untouched.push(memory.clone());
        for _ in 0..3 {
            assert!(!untouched.is_empty());
            untouched.step();
        }
        assert!(untouched.is_empty());
        untouched.push(memory.clone());
        untouched.step();
        assert!(!untouched.is_empty(), "somebody uses it");
        drop(memory);
        untouched.step();
        assert!(untouched.is_empty());
    }
}
