//! Atomics as [`cursor`](super::cursor) uses them.

pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Where nothing is ever found.
pub(super) static NOTHING: AtomicU64 = AtomicU64::new(0);
