//! Time as the core sees it: nanoseconds on a monotonic clock that somebody else reads.
//!
//! Nothing in the core reads a clock (design D5). The runtime reads one per loop iteration and passes it in; the
//! simulator passes in whatever it likes.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: nanoseconds since an origin chosen by whoever drives the endpoint. Only differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The origin.
    pub const ZERO: Time = Time(0);
    /// Later than every deadline; used as "never".
    pub const NEVER: Time = Time(u64::MAX);

    /// The time `nanoseconds` after the origin.
    #[inline]
    pub const fn from_nanos(nanoseconds: u64) -> Time {
        Time(nanoseconds)
    }

    /// Nanoseconds since the origin.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time elapsed since `earlier`; zero if `earlier` is later.
    #[inline]
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    #[inline]
    fn add(self, duration: Duration) -> Time {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanoseconds))
    }
}

impl Sub<Time> for Time {
    type Output = Duration;
    #[inline]
    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

/// A length of time in milliseconds, the one unit in which people are told of time-outs and waits: `30 ms`, `0.2 ms`. From
/// a millisecond on it is rounded to microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub Duration);

impl fmt::Display for Millis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MILLI: u128 = 1_000_000;
        let nanos = self.0.as_nanos();
        let nanos = if nanos < MILLI { nanos } else { (nanos + 500) / 1000 * 1000 };
        write!(formatter, "{}", nanos / MILLI)?;
        if !nanos.is_multiple_of(MILLI) {
            let fraction = format!("{:06}", nanos % MILLI);
            write!(formatter, ".{}", fraction.trim_end_matches('0'))?;
        }
        formatter.write_str(" ms")
    }
}

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Time::NEVER {
            return formatter.write_str("never");
        }
        write!(formatter, "{}.{:06} ms", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_told_in_milliseconds_whatever_they_are() {
        let told = |nanos| Millis(Duration::from_nanos(nanos)).to_string();
        let table = [
            (0, "0 ms"),
            (20, "0.00002 ms"),
            (200_000, "0.2 ms"),
            (1_000_000, "1 ms"),
            (31_234_567, "31.235 ms"),
            (99_999_900, "100 ms"),
            (200_000_000, "200 ms"),
            (3_600_000_000_000, "3600000 ms"),
        ];
        for (nanos, text) in table {
            assert_eq!(told(nanos), text);
        }
    }
}
