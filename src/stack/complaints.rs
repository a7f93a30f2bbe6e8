//! What is said of other processes to the application: once of each, and not too often.

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::Incarnation;
use crate::time::Time;

/// Of whom something was said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Complaints {
    about: VecDeque<Incarnation>,
    /// Before this nothing more is said.
    next: Time,
}

/// Processes that are remembered; the one that was complained of longest ago goes first.
const ABOUT_MAX: usize = 128;
/// Between two complaints. Whoever is put off is spoken of when it is heard again.
const PAUSE: Duration = Duration::from_millis(100);

impl Complaints {
    /// Whether something is to be said of a process now; then it will not be again.
    pub(crate) fn may(&mut self, about: Incarnation, now: Time) -> bool {
        if now < self.next || self.about.contains(&about) {
            return false;
        }
        if self.about.len() == ABOUT_MAX {
            self.about.pop_front();
        }
        self.about.push_back(about);
        self.next = now + PAUSE;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_process_once_and_not_of_many_at_once() {
        let mut complaints = Complaints::default();
        let at = |millis: u64| Time::from_nanos(millis * 1_000_000);
        assert!(complaints.may(Incarnation(1), at(5)));
        assert!(!complaints.may(Incarnation(2), at(6)));
        assert!(complaints.may(Incarnation(2), at(200)));
        assert!(!complaints.may(Incarnation(1), at(900)));
        for other in 3..1000 {
            complaints.may(Incarnation(other), at(1000 * other));
        }
        assert!(complaints.about.len() <= ABOUT_MAX);
    }
}
