//! How much goes up to the application in one iteration: what it takes its time over must not keep this member from being
//! heard.

use std::time::Duration;

use crate::id::Hasher64;
use crate::time::Time;

/// An iteration is not meant to be longer than that: a few of them go into the shortest time-out of others.
const ITERATION: Duration = Duration::from_millis(1);
/// If it was, less is given to the next.
const TOO_LONG: Duration = Duration::from_millis(3);
/// Before it is known how long the application takes: so much of what takes it milliseconds is borne.
const AT_FIRST: u32 = 4;
/// However little time each takes: what comes next may take more.
const AT_MOST: u32 = 1024;

/// As many a time as took the application a millisecond when last they were as many as they might be.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// What has gone up in the iteration of that time, and how much may.
    at: Time,
    gone: u32,
    most: u32,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { at: Time::ZERO, gone: 0, most: AT_FIRST }
    }
}

impl Pace {
    /// Whether one more may go up in this iteration.
    pub(super) fn allows(&mut self, now: Time) -> bool {
        if now != self.at {
            let took = now.since(self.at);
            if self.gone >= self.most && took <= ITERATION {
                self.most = (2 * self.most).min(AT_MOST);
            } else if took > TOO_LONG && self.gone > 0 {
                // By half and no more: it may have been another's turn on this core.
                let share = u128::from(self.gone) * ITERATION.as_nanos() / took.as_nanos();
                self.most = self.most.min((share as u32).max(self.most / 2)).max(1);
            }
            (self.at, self.gone) = (now, 0);
        }
        self.gone < self.most
    }

    /// One goes up.
    pub(super) fn goes(&mut self) {
        self.gone += 1;
    }

    pub(super) fn digest(&self, digest: &mut Hasher64) {
        digest.word(self.at.as_nanos());
        digest.word(u64::from(self.gone) << 32 | u64::from(self.most));
    }
}
