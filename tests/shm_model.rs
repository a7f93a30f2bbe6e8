//! The protocol of a shared ring, in every order that the memory model allows.
//!
//! The ring itself lies in memory shared with other processes, which no checker can follow. This is the same protocol,
//! store by store and fence by fence (`src/transport/shm/ring.rs`, `channel.rs`), over cells that report any access that
//! is not ordered with the other side's: a writer that clears the stamp behind a frame, writes the frame, publishes it
//! by its stamp, alone or together with the next, and reuses a place when its release was seen; a reader that follows stamps, reads, and tells what it has
//! released. Leaving out any of the orderings makes the check fail: `broken` says which, and the tests see to it.
//!
//! Unsafe only to get at the cells of the model, which checks each access.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;

/// What an implementation could forget.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// The stamp is stored without release.
    PublishUnordered,
    /// The reader does not order its reads of a frame behind the stamp's.
    ReadUnordered,
    /// The reader tells a release that its reads are not ordered before.
    ReleaseUnordered,
    /// The writer does not order what it writes behind the release it saw.
    ReuseUnordered,
    /// Of frames that are published together the first has its stamp before the others.
    FirstNotWithheld,
    /// The stamp behind a frame is not cleared: one of the lap before is met there.
    BehindNotCleared,
}

/// Places of the ring: one is always left free for the stamp behind the newest frame.
const PLACES: usize = 3;
const FRAMES: u64 = 4;

struct Ring {
    stamps: [AtomicU64; PLACES],
    frames: [UnsafeCell<u64>; PLACES],
    /// Frames before this one are not held by the reader any more.
    released: AtomicU64,
}

fn place(position: u64) -> usize {
    (position % PLACES as u64) as usize
}

/// A stamp says neither lap nor position here, so that only the clearing keeps those of the lap before from being taken.
const STAMP: u64 = 1;

fn write(ring: &Ring, together: u64, broken: Broken) {
    let mut released = 0;
    for first in (0..FRAMES).step_by(together as usize) {
        // The places of the frames and the one behind them must be free.
        while first + together + 1 > released + PLACES as u64 {
            released = ring.released.load(Ordering::Relaxed);
            if broken != Broken::ReuseUnordered {
                fence(Ordering::Acquire);
            }
            thread::yield_now();
        }
        let order = if broken == Broken::PublishUnordered { Ordering::Relaxed } else { Ordering::Release };
        for position in first..first + together {
            // SAFETY: the model checks that nobody else is at the cell.
            ring.frames[place(position)].with_mut(|frame| unsafe { *frame = position + 100 });
            if broken != Broken::BehindNotCleared {
                ring.stamps[place(position + 1)].store(0, Ordering::Relaxed);
            }
            if position > first {
                ring.stamps[place(position)].store(STAMP, Ordering::Relaxed);
            } else if broken == Broken::FirstNotWithheld {
                ring.stamps[place(first)].store(STAMP, order);
            }
        }
        if broken != Broken::FirstNotWithheld {
            ring.stamps[place(first)].store(STAMP, order);
        }
    }
}

fn read(ring: &Ring, broken: Broken) {
    for position in 0..FRAMES {
        while ring.stamps[place(position)].load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        if broken != Broken::ReadUnordered {
            fence(Ordering::Acquire);
        }
        // SAFETY: as in `write`.
        let frame = ring.frames[place(position)].with(|frame| unsafe { *frame });
        assert_eq!(frame, position + 100, "a frame is read once, whole, in its place");
        let order = if broken == Broken::ReleaseUnordered { Ordering::Relaxed } else { Ordering::Release };
        ring.released.store(position + 1, order);
    }
}

fn explore(together: u64, broken: Broken) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let ring = Arc::new(Ring {
            stamps: std::array::from_fn(|_| AtomicU64::new(0)),
            frames: std::array::from_fn(|_| UnsafeCell::new(0)),
            released: AtomicU64::new(0),
        });
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || write(&ring, together, broken))
        };
        read(&ring, broken);
        writer.join().unwrap();
    });
}

#[test]
fn in_every_order_frames_are_read_once_whole_and_never_while_they_are_written() {
    explore(1, Broken::Nothing);
    explore(2, Broken::Nothing);
}

#[test]
fn leaving_out_any_ordering_is_found() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let all = [
        Broken::PublishUnordered,
        Broken::FirstNotWithheld,
        Broken::ReadUnordered,
        Broken::ReleaseUnordered,
        Broken::ReuseUnordered,
        Broken::BehindNotCleared,
    ];
    let passes = |together, broken| catch_unwind(AssertUnwindSafe(|| explore(together, broken))).is_ok();
    let unnoticed = |at: &usize| (1..=2).all(|together| passes(together, all[*at]));
    let survived: Vec<usize> = (0..all.len()).filter(unnoticed).collect();
    std::panic::set_hook(hook);
    assert!(survived.is_empty(), "not found: {survived:?}");
}
