//! The deadlines of one stack.

use super::build::TimerId;
use crate::id::Hasher64;
use crate::time::Time;

/// One deadline per timer of each layer.
#[derive(Clone, Debug)]
pub(crate) struct Timers {
    deadlines: Vec<Time>,
    earliest: Time,
}

impl Timers {
    pub(crate) fn new(count: usize) -> Timers {
        Timers { deadlines: vec![Time::NEVER; count], earliest: Time::NEVER }
    }

    /// When the next timer is due.
    #[inline]
    pub(crate) fn earliest(&self) -> Time {
        self.earliest
    }

    pub(crate) fn deadline(&self, timer: TimerId) -> Time {
        self.deadlines[timer.0]
    }

    pub(crate) fn set(&mut self, timer: TimerId, at: Time) {
        let before = std::mem::replace(&mut self.deadlines[timer.0], at);
        if at <= self.earliest {
            self.earliest = at;
        } else if before == self.earliest {
            self.earliest = self.deadlines.iter().copied().min().unwrap_or(Time::NEVER);
        }
    }

    /// Takes a timer that is due.
    pub(crate) fn due(&mut self, now: Time) -> Option<TimerId> {
        if self.earliest > now {
            return None;
        }
        let timer = self.deadlines.iter().position(|deadline| *deadline <= now).map(TimerId)?;
        self.set(timer, Time::NEVER);
        Some(timer)
    }

    /// Every deadline, by timer.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Time> {
        self.deadlines.iter().copied()
    }

    pub(crate) fn digest(&self, hasher: &mut Hasher64) {
        for deadline in &self.deadlines {
            hasher.word(deadline.as_nanos());
        }
    }
}
