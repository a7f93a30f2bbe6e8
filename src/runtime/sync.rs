//! Atomics, queues and threads as [`event_count`](super::event_count) uses them.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(super) use std::thread::{Thread, park};

pub(super) use crossbeam_queue::ArrayQueue as Queue;

/// Looks at an event count before the processor is given to others.
const SPINS: u32 = 64;

/// Between two looks at something that another thread will change.
pub(super) fn relax(spins: &mut u32) {
    *spins += 1;
    if *spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
}
