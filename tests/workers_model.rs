//! The protocol of delivery workers, in every order that the memory model allows: `src/runtime/event_count.rs` as it is,
//! over the atomics, queues and threads of a model checker, and over cells that report any access that is not ordered with
//! the other side's. Over counts that forget an ordering the check fails; the word that ends it all, and the queue, which is
//! stronger than that of the workers, are not weakened.
//!
//! Unsafe only to get at the cells of the model, which checks each access.
#![allow(unsafe_code)]
// Once over each kind of atomics.
#![allow(clippy::duplicate_mod)]

use std::panic::{AssertUnwindSafe, catch_unwind};

/// `src/runtime/event_count.rs` over atomics that replace the orderings of loads and stores.
macro_rules! over {
    ($name:ident, load: $load:expr, store: $store:expr, unpark: $unpark:expr) => {
        #[path = "../src/runtime"]
        mod $name {
            // Each test uses a part of it.
            #![allow(dead_code, unreachable_pub)]

            mod sync {
                pub(super) use loom::sync::atomic::Ordering;
                pub(super) use loom::thread::park;

                /// What is looked at in a loop lets others go on.
                pub(super) fn relax(_spins: &mut u32) {
                    loom::thread::yield_now();
                }

                fn replaced(by: Option<Ordering>, order: Ordering) -> Ordering {
                    by.unwrap_or(order)
                }

                #[derive(Debug)]
                pub(super) struct AtomicU64(loom::sync::atomic::AtomicU64);

                impl AtomicU64 {
                    pub(super) fn new(value: u64) -> AtomicU64 {
                        AtomicU64(loom::sync::atomic::AtomicU64::new(value))
                    }
                    pub(super) fn load(&self, order: Ordering) -> u64 {
                        self.0.load(replaced($load, order))
                    }
                    pub(super) fn store(&self, value: u64, order: Ordering) {
                        self.0.store(value, replaced($store, order));
                    }
                }

                pub(super) use loom::sync::atomic::AtomicBool;

                #[derive(Debug)]
                pub(super) struct Queue<T>(loom::sync::Mutex<std::collections::VecDeque<T>>);

                impl<T> Queue<T> {
                    pub(super) fn new() -> Queue<T> {
                        Queue(loom::sync::Mutex::new(std::collections::VecDeque::new()))
                    }
                    pub(super) fn push(&self, item: T) -> Result<(), T> {
                        self.0.lock().unwrap().push_back(item);
                        Ok(())
                    }
                    pub(super) fn pop(&self) -> Option<T> {
                        self.0.lock().unwrap().pop_front()
                    }
                    pub(super) fn is_empty(&self) -> bool {
                        self.0.lock().unwrap().is_empty()
                    }
                }

                pub(super) struct Thread(pub(super) loom::thread::Thread);

                impl Thread {
                    pub(super) fn unpark(&self) {
                        if $unpark {
                            self.0.unpark();
                        }
                    }
                }
            }

            #[path = "event_count.rs"]
            mod event_count;

            use event_count::{Shared, Turn, hand_to};
            use loom::cell::UnsafeCell;
            use loom::sync::Arc;

            const DELIVERIES: u64 = 3;
            const WORKERS: u64 = 2;

            /// Two workers, each with the deliveries dealt to it, oldest first, change one state in their turns.
            pub(super) fn turns() {
                loom::model(|| {
                    let shared = Arc::new((Shared::new(1), UnsafeCell::new(0_u64)));
                    let worker = |worker: u64| {
                        let shared = Arc::clone(&shared);
                        loom::thread::spawn(move || {
                            for place in (worker..DELIVERIES).step_by(WORKERS as usize) {
                                let mut turn = Turn::new(&shared.0, 0, place);
                                turn.wait();
                                shared.1.with_mut(|state| {
                                    // SAFETY: the model reports any access that is not alone.
                                    let state = unsafe { &mut *state };
                                    assert_eq!(*state, place, "in order");
                                    *state += 1;
                                });
                            }
                        })
                    };
                    let workers: Vec<_> = (0..WORKERS).map(worker).collect();
                    workers.into_iter().for_each(|worker| worker.join().unwrap());
                    assert_eq!(shared.0.done().next(), Some(DELIVERIES));
                });
            }

            /// Who sees that all is done with sees what was done.
            pub(super) fn settles() {
                loom::model(|| {
                    let shared = Arc::new((Shared::new(1), UnsafeCell::new(0_u64)));
                    let theirs = Arc::clone(&shared);
                    let worker = loom::thread::spawn(move || {
                        let _turn = Turn::new(&theirs.0, 0, 0);
                        // SAFETY: the model reports any access that is not alone.
                        theirs.1.with_mut(|state| unsafe { *state = 7 });
                    });
                    let mut spins = 0;
                    while shared.0.done().next() != Some(1) {
                        sync::relax(&mut spins);
                    }
                    // SAFETY: as above.
                    assert_eq!(shared.1.with(|state| unsafe { *state }), 7);
                    worker.join().unwrap();
                });
            }

            /// A worker that may be asleep is handed deliveries, then told of the end: it does them all, and ends.
            pub(super) fn hands_on() {
                loom::model(|| {
                    let shared = Arc::new((Shared::new(1), sync::Queue::new()));
                    let theirs = Arc::clone(&shared);
                    let worker = loom::thread::spawn(move || {
                        let mut done = 0;
                        theirs.0.serve(&theirs.1, |place: u64| {
                            assert_eq!(place, done);
                            done += 1;
                        });
                        done
                    });
                    let thread = sync::Thread(worker.thread().clone());
                    for place in 0..2 {
                        hand_to(&shared.1, &thread, place).unwrap();
                    }
                    shared.0.end();
                    // The end is told whether or not what was handed on was.
                    thread.0.unpark();
                    assert_eq!(worker.join().unwrap(), 2);
                });
            }

            /// One that is asleep is woken by what is handed to it, not by the end alone.
            pub(super) fn wakes() {
                loom::model(|| {
                    let shared = Arc::new((Shared::new(1), sync::Queue::new()));
                    let theirs = Arc::clone(&shared);
                    let worker = loom::thread::spawn(move || {
                        theirs.0.serve(&theirs.1, |place: u64| drop(Turn::new(&theirs.0, 0, place)));
                    });
                    let thread = sync::Thread(worker.thread().clone());
                    hand_to(&shared.1, &thread, 0).unwrap();
                    let mut spins = 0;
                    while shared.0.done().next() != Some(1) {
                        sync::relax(&mut spins);
                    }
                    shared.0.end();
                    thread.0.unpark();
                    worker.join().unwrap();
                });
            }
        }
    };
}

use loom::sync::atomic::Ordering::Relaxed;

over!(as_it_is, load: None, store: None, unpark: true);
over!(load_unordered, load: Some(crate::Relaxed), store: None, unpark: true);
over!(store_unordered, load: None, store: Some(crate::Relaxed), unpark: true);
over!(unwoken, load: None, store: None, unpark: false);

/// Whether the model finds fault.
fn fails(model: fn()) -> bool {
    catch_unwind(AssertUnwindSafe(model)).is_err()
}

#[test]
fn deliveries_are_done_with_one_by_one_and_in_order() {
    as_it_is::turns();
}

#[test]
fn who_sees_that_all_is_done_with_sees_what_was_done() {
    as_it_is::settles();
}

#[test]
fn workers_do_what_is_handed_to_them_and_end() {
    as_it_is::hands_on();
    as_it_is::wakes();
}

#[test]
fn every_ordering_is_needed() {
    assert!(fails(load_unordered::turns) && fails(load_unordered::settles));
    assert!(fails(store_unordered::turns) && fails(store_unordered::settles));
}

#[test]
fn who_is_not_woken_sleeps_on() {
    assert!(fails(unwoken::wakes));
}
