//! Time stamps of the benchmarks: raw counter ticks, comparable between processes of one machine.

use std::time::Duration;

/// Reads ticks and turns them into nanoseconds.
#[derive(Clone, Debug)]
pub struct Ticks {
    clock: quanta::Clock,
    nanoseconds_per_tick: f64,
}

impl Ticks {
    /// Calibrates on first use in a process.
    pub fn new() -> Ticks {
        let clock = quanta::Clock::new();
        let span = 1_u64 << 32;
        let nanoseconds_per_tick = clock.delta_as_nanos(0, span) as f64 / span as f64;
        Ticks { clock, nanoseconds_per_tick }
    }

    /// Now.
    #[inline]
    pub fn now(&self) -> u64 {
        self.clock.raw()
    }

    /// Nanoseconds from `earlier` to `later`; zero if they are the other way round.
    #[inline]
    pub fn nanoseconds(&self, earlier: u64, later: u64) -> u64 {
        (later.saturating_sub(earlier) as f64 * self.nanoseconds_per_tick) as u64
    }

    /// How many ticks last as long as `duration`.
    pub fn lasting(&self, duration: Duration) -> u64 {
        (duration.as_nanos() as f64 / self.nanoseconds_per_tick) as u64
    }
}

impl Default for Ticks {
    fn default() -> Ticks {
        Ticks::new()
    }
}
