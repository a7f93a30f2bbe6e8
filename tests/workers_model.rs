//! The protocol of delivery workers, in every order that the memory model allows (`src/runtime/workers.rs`): a driver deals
//! deliveries to two workers, and each does in its turn what the other must see.
//!
//! It is written once more here, store by store, over cells that report any access that is not ordered with the other
//! worker's. Leaving out an ordering makes the check fail.
//!
//! Unsafe only to get at the cells of the model, which checks each access.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

/// What an implementation could forget.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// The count is advanced without release.
    AdvanceUnordered,
    /// It is read without acquire.
    WaitUnordered,
    /// Nobody waits.
    NoTurns,
    /// The count is advanced before the work is done.
    AdvanceEarly,
}

const DELIVERIES: u64 = 3;
const WORKERS: u64 = 2;

struct Shared {
    done: AtomicU64,
    /// What workers change in their turn: the place of the next delivery.
    state: UnsafeCell<u64>,
}

/// What the worker does with one delivery.
fn work(shared: &Shared, place: u64, broken: Broken) {
    let (acquire, release) = (
        if broken == Broken::WaitUnordered { Ordering::Relaxed } else { Ordering::Acquire },
        if broken == Broken::AdvanceUnordered { Ordering::Relaxed } else { Ordering::Release },
    );
    while broken != Broken::NoTurns && shared.done.load(acquire) != place {
        thread::yield_now();
    }
    if broken == Broken::AdvanceEarly {
        shared.done.store(place + 1, release);
    }
    shared.state.with_mut(|state| {
        // SAFETY: the model reports any access that is not alone.
        let state = unsafe { &mut *state };
        assert_eq!(*state, place, "in order");
        *state += 1;
    });
    if broken != Broken::AdvanceEarly {
        shared.done.store(place + 1, release);
    }
}

fn model(broken: Broken) {
    loom::model(move || {
        let shared = Arc::new(Shared { done: AtomicU64::new(0), state: UnsafeCell::new(0) });
        // Each worker has the deliveries dealt to it, oldest first.
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for place in (worker..DELIVERIES).step_by(WORKERS as usize) {
                        work(&shared, place, broken);
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(shared.done.load(Ordering::Acquire), DELIVERIES);
    });
}

#[test]
fn deliveries_are_done_with_one_by_one_and_in_order() {
    model(Broken::Nothing);
}

#[test]
fn every_ordering_is_needed() {
    let broken = [Broken::AdvanceUnordered, Broken::WaitUnordered, Broken::NoTurns, Broken::AdvanceEarly];
    for broken in broken {
        assert!(catch_unwind(AssertUnwindSafe(|| model(broken))).is_err());
    }
}
