//! What delivery workers have in common: whose turn it is, and how they are given work and told of the end.
//!
//! All that depends on the order in which threads see each other's stores is here, over the atomics, queues and threads of
//! [`sync`](super::sync). `tests/workers_model.rs` compiles this file over those of a model checker.

use crossbeam_utils::CachePadded;

use super::sync::{AtomicBool, AtomicU64, Ordering, Queue, Thread, park, relax};

/// What the workers of a group share.
#[derive(Debug)]
pub(super) struct Shared {
    /// By order: how many deliveries are done with.
    done: Box<[CachePadded<AtomicU64>]>,
    ending: AtomicBool,
    failed: AtomicBool,
}

impl Shared {
    pub(super) fn new(orders: usize) -> Shared {
        Shared {
            done: (0..orders).map(|_| CachePadded::new(AtomicU64::new(0))).collect(),
            ending: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// How many deliveries of each order are done with. What was done with them is seen by whoever knows.
    pub(super) fn done(&self) -> impl Iterator<Item = u64> {
        self.done.iter().map(|count| count.load(Ordering::Acquire))
    }

    /// Whether a worker has panicked. Nothing is read because of it but this.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// What is still in the queues is the last there is.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// A worker's life: works on what is handed to it until the end.
    pub(super) fn serve<T>(&self, waiting: &Queue<T>, mut work: impl FnMut(T)) {
        // Ends when the workers are dropped.
        loop {
            let Some(delivered) = waiting.pop() else {
                if self.ending.load(Ordering::Acquire) && waiting.is_empty() {
                    return;
                }
                // Whoever hands something on unparks; that is not lost if it comes before.
                park();
                continue;
            };
            work(delivered);
        }
    }
}

/// Gives a worker something to do, unless it has enough.
pub(super) fn hand_to<T>(waiting: &Queue<T>, thread: &Thread, delivered: T) -> Result<(), T> {
    waiting.push(delivered)?;
    thread.unpark();
    Ok(())
}

/// A worker's place in the order.
#[derive(Debug)]
pub struct Turn<'t> {
    shared: &'t Shared,
    order: usize,
    place: u64,
    come: bool,
}

impl<'t> Turn<'t> {
    pub(super) fn new(shared: &'t Shared, order: usize, place: u64) -> Turn<'t> {
        Turn { shared, order, place, come: false }
    }
}

impl Turn<'_> {
    /// Waits until everything before this delivery is done with. From then on, until the worker is done with it, nothing
    /// behind it in the order is.
    pub fn wait(&mut self) {
        let count = &self.shared.done[self.order];
        let mut spins = 0_u32;
        // Ends: what is before it is with a worker that is not waiting, or before something that is.
        while !self.come && count.load(Ordering::Acquire) != self.place {
            assert!(!self.shared.failed(), "another worker has panicked, and with it the order is lost");
            relax(&mut spins);
        }
        self.come = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.failed.store(true, Ordering::Relaxed);
            return;
        }
        self.wait();
        self.shared.done[self.order].store(self.place + 1, Ordering::Release);
    }
}
