//! The clock of a driver loop.

use quanta::Clock as TickClock;

use crate::time::Time;

/// A monotonic clock of the class of rdtsc; its origin is its creation.
#[derive(Clone, Debug)]
pub struct Clock {
    ticks: TickClock,
    origin: u64,
    last: Time,
}

impl Clock {
    /// A clock that begins now. The first one of a process calibrates itself, which takes up to 200 ms.
    pub fn new() -> Clock {
        let ticks = TickClock::new();
        let origin = ticks.raw();
        Clock { ticks, origin, last: Time::ZERO }
    }

    /// Time since the origin. Never goes back, even if the thread moves to a core whose counter is behind.
    #[inline]
    pub fn now(&mut self) -> Time {
        let now = Time::from_nanos(self.ticks.delta_as_nanos(self.origin, self.ticks.raw()));
        self.last = self.last.max(now);
        self.last
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_clock_runs_at_the_pace_of_the_system_clock() {
        let mut clock = Clock::new();
        let (began, from) = (Instant::now(), clock.now());
        while began.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let (measured, real) = (clock.now().since(from).as_secs_f64(), began.elapsed().as_secs_f64());
        assert!((measured / real - 1.0).abs() < 0.1, "{measured} s measured, {real} s passed");
    }
}
