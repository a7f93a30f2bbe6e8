//! The clock that all processes of a host share, in whatever namespaces they are.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the system's monotonic clock.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
