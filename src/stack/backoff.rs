//! When something is done again until it is settled: at intervals that double up to a longest.
//!
//! What is waited for, and the timer that fires, are the layer's own. One timer can serve many back-offs (one per
//! member, say, so that one that never answers does not put off the others): it is set to the [first](Backoff::first_due)
//! that is due.
//!
//! ```text
//! begin          repeat                repeat                          settle
//!   |--- first ---|------ 2 first ------|------- 4 first ... longest ----|   (the next begins with `first` again)
//! ```

use std::time::Duration;

use crate::id::Hasher64;
use crate::time::Time;

/// One thing that may have to be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    wait: Duration,
    due: Time,
}

impl Backoff {
    /// Waits `first`, then twice as long each time, but never longer than `longest`. Nothing is due yet.
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, wait: first, due: Time::NEVER }
    }

    /// The first interval.
    pub fn first(&self) -> Duration {
        self.first
    }

    /// The longest interval.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// When it is due; never if there is nothing to wait for.
    #[inline]
    pub fn due(&self) -> Time {
        self.due
    }

    /// When the first of many is due.
    pub fn first_due<'b>(all: impl IntoIterator<Item = &'b Backoff>) -> Time {
        all.into_iter().map(Backoff::due).min().unwrap_or(Time::NEVER)
    }

    /// There is something to wait for: it is due after the present interval, unless that is decided already.
    pub fn begin(&mut self, now: Time) {
        if self.due == Time::NEVER {
            self.due = now + self.wait;
        }
    }

    /// Whether it is due by `now`. If so nothing is due any more until the next `begin` or `repeat`.
    pub fn take(&mut self, now: Time) -> bool {
        let due = self.due <= now && self.due != Time::NEVER;
        if due {
            self.due = Time::NEVER;
        }
        due
    }

    /// It was done and may have to be done again: after twice the interval.
    pub fn repeat(&mut self, now: Time) {
        self.wait = (self.wait * 2).min(self.longest);
        self.due = now + self.wait;
    }

    /// There is progress: the next interval is the first one. What is due stays due.
    pub fn reset(&mut self) {
        self.wait = self.first;
    }

    /// There is nothing to wait for any more.
    pub fn settle(&mut self) {
        self.reset();
        self.due = Time::NEVER;
    }

    /// Takes in interval and due time.
    pub fn digest(&self, digest: &mut Hasher64) {
        digest.word(self.wait.as_nanos() as u64);
        digest.word(self.due.as_nanos());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Time {
        Time::from_nanos(micros * 1000)
    }

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_micros(10), Duration::from_micros(35))
    }

    #[test]
    fn intervals_double_up_to_the_longest() {
        let mut backoff = backoff();
        backoff.begin(at(0));
        let mut dues = Vec::new();
        for _ in 0..5 {
            let due = backoff.due();
            dues.push(due);
            assert!(backoff.take(due));
            backoff.repeat(due);
        }
        assert_eq!(dues, [10, 30, 65, 100, 135].map(at));
    }

    #[test]
    fn what_has_begun_is_not_put_off_by_beginning_again() {
        let mut backoff = backoff();
        backoff.begin(at(0));
        backoff.begin(at(9));
        assert_eq!(backoff.due(), at(10));
        backoff.reset();
        assert_eq!(backoff.due(), at(10), "progress does not put it off either");
    }

    #[test]
    fn it_is_due_once_and_not_before_its_time() {
        let mut backoff = backoff();
        assert!(!backoff.take(Time::NEVER), "nothing has begun");
        backoff.begin(at(0));
        assert!(!backoff.take(at(9)));
        assert!(backoff.take(at(12)));
        assert!(!backoff.take(at(12)));
    }

    #[test]
    fn what_is_settled_begins_with_the_first_interval_again() {
        let mut backoff = backoff();
        backoff.begin(at(0));
        backoff.repeat(at(10));
        backoff.repeat(at(30));
        backoff.settle();
        assert_eq!(backoff.due(), Time::NEVER);
        backoff.begin(at(100));
        assert_eq!(backoff.due(), at(110));
    }

    #[test]
    fn one_timer_serves_many() {
        let mut all = vec![backoff(), backoff(), backoff()];
        assert_eq!(Backoff::first_due(&all), Time::NEVER);
        all[2].begin(at(5));
        all[0].begin(at(7));
        assert_eq!(Backoff::first_due(&all), at(15));
    }
}
