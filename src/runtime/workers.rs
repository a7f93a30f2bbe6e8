//! Delivery workers: several threads behind one endpoint, with the order of deliveries kept.
//!
//! One thread drives the endpoint and hands what is delivered to N workers, in turn. They work on their deliveries at the
//! same time, up to the point at which order matters: there a worker waits for its turn, and from then on until it is done
//! it is alone in its order. That order is all casts as they were delivered (which a stack with TOTAL makes the same at all
//! members), or those of each origin apart.
//!
//! ```text
//! driver   1 2 3 4 5 ...
//! worker A 1 decode|apply        3 decode|apply
//! worker B 2 decode ....|apply   4 decode ......|apply      (waits for the count to reach its number)
//! ```
//!
//! What keeps the order is an *event count* for each: how many deliveries are done with. The oldest delivery that is not
//! done is always the next of its worker and never waits, so there is always progress.
//!
//! Frames belong to the driver's thread: a delivery is copied, once, into a buffer that is used again and again.
//!
//! The driver never waits for a worker, because while it waits it is silent, and who is silent is taken for failed. What a
//! worker has no room for is kept, and the senders are held until there is room ([`Group::hold_senders`]).
//!
//! After Reed and Kanodia, "Synchronization with Eventcounts and Sequencers" (1979), and the event counts of Horus.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

pub use super::event_count::Turn;
use super::event_count::{Shared, hand_to};
use super::sync::{Queue, relax};
use crate::group::{Delivery, Group};
use crate::id::{Hasher64, Incarnation};

/// Which deliveries wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All of them: they are done with in the order in which they were delivered.
    Total,
    /// Those of one origin, whatever rank it has from view to view.
    PerOrigin,
}

/// How many workers there are, and what waits for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkersOptions {
    /// Threads; at least one.
    pub workers: usize,
    /// Deliveries that may wait for or be with one worker; at least one. Beyond it they are kept in the driver's thread and
    /// the senders are held, so that at most a window of each member is kept.
    pub deliveries_max: usize,
    /// Which of them wait for each other.
    pub order: Order,
}

/// A delivery in a worker's hands: the messages of one list.
#[derive(Debug)]
pub struct Delivered {
    origin: Incarnation,
    number: u64,
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
    /// Which event count it waits for, and its place there.
    order: usize,
    place: u64,
}

impl Delivered {
    fn blank() -> Box<Delivered> {
        let (bytes, ends) = (Vec::new(), Vec::new());
        Box::new(Delivered { origin: Incarnation(0), number: 0, bytes, ends, order: 0, place: 0 })
    }

    /// Who cast it: the process, because its rank may be another's when a worker gets to it. It can be answered by
    /// [`Handle::send`](super::Handle::send).
    pub fn origin(&self) -> Incarnation {
        self.origin
    }

    /// The number of its frame.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(from, to)| &self.bytes[from..*to])
    }
}

/// Event counts where those of one origin are in order. Origins that share one wait for each other without need, no more.
const ORDERS: usize = 256;

#[derive(Debug)]
struct Worker {
    waiting: Arc<Queue<Box<Delivered>>>,
    spent: Arc<Queue<Box<Delivered>>>,
    thread: JoinHandle<()>,
}

/// The workers of one group, as its application has them: it hands them what is delivered to it.
#[derive(Debug)]
pub struct Workers {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    next: usize,
    order: Order,
    /// By order: deliveries handed on so far.
    places: Vec<u64>,
    /// What there was no room for, and with which worker, in order.
    kept: VecDeque<(usize, Box<Delivered>)>,
}

/// A worker has panicked: what was delivered is not worked on any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a delivery worker has panicked; deliveries are not worked on any more")]
pub struct WorkerPanicked;

impl Workers {
    /// Starts workers for a group; `make` makes what each of them does with a delivery. It is given its turn, and may wait
    /// for it as early or as late as it wants; at the end it is waited for in any case.
    ///
    /// # Errors
    /// If a thread cannot be started.
    ///
    /// # Panics
    /// If there are to be no workers, or no delivery may wait.
    pub fn start<W>(options: WorkersOptions, mut make: impl FnMut(usize) -> W) -> std::io::Result<Workers>
    where
        W: FnMut(&Delivered, &mut Turn<'_>) + Send + 'static,
    {
        let WorkersOptions { workers, deliveries_max, order } = options;
        assert!(workers > 0 && deliveries_max > 0, "somebody must work, and on something");
        let orders = if order == Order::Total { 1 } else { ORDERS };
        let shared = Arc::new(Shared::new(orders));
        let places = vec![0; orders];
        let kept = VecDeque::new();
        let mut all = Workers { shared, workers: Vec::with_capacity(workers), next: 0, order, places, kept };
        for at in 0..workers {
            let waiting: Arc<Queue<Box<Delivered>>> = Arc::new(Queue::new(deliveries_max));
            let spent = Arc::new(Queue::new(deliveries_max));
            for _ in 0..deliveries_max {
                let put = spent.push(Delivered::blank());
                assert!(put.is_ok(), "made for as many");
            }
            let (theirs, back) = (Arc::clone(&waiting), Arc::clone(&spent));
            let (shared, mut work) = (Arc::clone(&all.shared), make(at));
            let serve = move || {
                shared.serve(&theirs, |delivered| {
                    work(&delivered, &mut Turn::new(&shared, delivered.order, delivered.place));
                    // Those that were made because there was none are too many.
                    drop(back.push(delivered));
                });
            };
            let thread = thread::Builder::new().name(format!("wadjet-worker-{at}")).spawn(serve)?;
            all.workers.push(Worker { waiting, spent, thread });
        }
        Ok(all)
    }

    /// Hands a delivery on. If its worker has no room it is kept, and the senders are held as long as
    /// [`Workers::is_behind`] says: call that from [`Application::is_behind`](crate::Application::is_behind).
    ///
    /// # Errors
    /// [`WorkerPanicked`].
    pub fn hand_on(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) -> Result<(), WorkerPanicked> {
        let origin = group.view().member(delivery.origin()).incarnation;
        self.put(origin, delivery.id().number, delivery.messages())?;
        if !self.kept.is_empty() {
            group.hold_senders();
        }
        Ok(())
    }

    /// Hands on what was kept, as far as there is room now. Whether some of it is still kept.
    pub fn is_behind(&mut self) -> bool {
        if self.shared.failed() {
            // Nobody will take it any more, and the group is not to wait for that. What is handed on next says so.
            self.kept.clear();
        }
        // Only the first is looked at: that is what keeps them in order, and it has room when what is before it is done.
        while let Some((at, delivered)) = self.kept.pop_front() {
            let worker = &self.workers[at];
            if let Err(delivered) = hand_to(&worker.waiting, worker.thread.thread(), delivered) {
                self.kept.push_front((at, delivered));
                return true;
            }
        }
        false
    }

    /// Waits until everything that was handed on is done with: the state is then that at this point of the deliveries. For
    /// [`Application::snapshot`](crate::Application::snapshot), say, and for [`Event::View`](crate::Event::View) if work on
    /// the casts of one view may not last into the next. The driver is silent meanwhile: what may be waiting must be done
    /// in less time than the others take to suspect this member.
    ///
    /// # Errors
    /// [`WorkerPanicked`].
    pub fn settle(&mut self) -> Result<(), WorkerPanicked> {
        let mut spins = 0_u32;
        // Ends: the workers go on by themselves.
        while self.is_behind() || self.waiting() > 0 {
            if self.shared.failed() {
                return Err(WorkerPanicked);
            }
            relax(&mut spins);
        }
        Ok(())
    }

    fn put<'m>(
        &mut self,
        origin: Incarnation,
        number: u64,
        messages: impl Iterator<Item = &'m [u8]>,
    ) -> Result<(), WorkerPanicked> {
        if self.shared.failed() {
            return Err(WorkerPanicked);
        }
        let at = self.next;
        self.next = (self.next + 1) % self.workers.len();
        let mut delivered = self.workers[at].spent.pop().unwrap_or_else(Delivered::blank);
        let order = if self.order == Order::Total { 0 } else { order_of(origin) };
        (delivered.origin, delivered.number) = (origin, number);
        (delivered.order, delivered.place) = (order, self.places[order]);
        self.places[order] += 1;
        delivered.bytes.clear();
        delivered.ends.clear();
        for message in messages {
            delivered.bytes.extend_from_slice(message);
            delivered.ends.push(delivered.bytes.len());
        }
        self.kept.push_back((at, delivered));
        self.is_behind();
        Ok(())
    }

    /// Deliveries that are not done with yet.
    pub fn waiting(&self) -> u64 {
        self.places.iter().zip(self.shared.done()).map(|(handed_on, done)| handed_on - done).sum()
    }
}

/// Which event count the deliveries of a process wait for.
fn order_of(origin: Incarnation) -> usize {
    let mut hasher = Hasher64::new(0x776f_726b_6572_7300);
    hasher.word(origin.0);
    hasher.finish() as usize % ORDERS
}

impl Drop for Workers {
    /// Waits until everything that was handed on is done with.
    fn drop(&mut self) {
        // If a worker has panicked there is nothing to wait for.
        let _ = self.settle();
        self.shared.end();
        for worker in self.workers.drain(..) {
            worker.thread.thread().unpark();
            // What a worker has to say of its panic it has said.
            let _ = worker.thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn run(workers: usize, order: Order, deliveries: u64) -> Vec<(u64, u64)> {
        let done = Arc::new(Mutex::new(Vec::new()));
        let options = WorkersOptions { workers, deliveries_max: 4, order };
        let mut all = Workers::start(options, |worker| {
            let done = Arc::clone(&done);
            let mut dice = worker as u64 + 1;
            move |delivered: &Delivered, turn: &mut Turn<'_>| {
                // Some take longer, before and after their turn has come.
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (0..dice >> 58).for_each(|_| thread::yield_now());
                let messages: Vec<&[u8]> = delivered.messages().collect();
                assert_eq!(messages, [&delivered.number().to_le_bytes()[..], b"", b"last"]);
                if dice >> 40 & 3 > 0 {
                    turn.wait();
                    done.lock().unwrap().push((delivered.origin().0, delivered.number()));
                    (0..dice >> 60).for_each(|_| thread::yield_now());
                } else {
                    turn.wait();
                    done.lock().unwrap().push((delivered.origin().0, delivered.number()));
                }
            }
        })
        .unwrap();
        for number in 0..deliveries {
            let bytes = number.to_le_bytes();
            let messages: [&[u8]; 3] = [&bytes, b"", b"last"];
            all.put(Incarnation(number % 3), number, messages.into_iter()).unwrap();
        }
        drop(all);
        Arc::try_unwrap(done).unwrap().into_inner().unwrap()
    }

    #[test]
    fn all_deliveries_are_done_with_in_total_order() {
        for workers in [1, 2, 5] {
            let done = run(workers, Order::Total, 2000);
            assert!(done.iter().map(|(_, number)| *number).eq(0..2000), "{workers} workers");
        }
    }

    #[test]
    fn those_of_each_origin_are_in_order_and_none_is_missing() {
        for workers in [1, 2, 5] {
            let done = run(workers, Order::PerOrigin, 2000);
            for origin in 0..3 {
                let of = done.iter().filter(|(from, _)| *from == origin).map(|(_, number)| *number);
                assert!(of.eq((origin..2000).step_by(3)), "{workers} workers");
            }
        }
    }

    #[test]
    fn a_worker_that_panics_ends_the_work_and_says_so() {
        let options = WorkersOptions { workers: 2, deliveries_max: 2, order: Order::Total };
        let mut all = Workers::start(options, |_| {
            |delivered: &Delivered, _: &mut Turn<'_>| {
                assert!(delivered.number() < 3, "the fourth is too much")
            }
        })
        .unwrap();
        let put =
            (0..1000).find_map(|number| all.put(Incarnation(0), number, std::iter::once(&b"x"[..])).err());
        assert_eq!(put.or_else(|| all.settle().err()), Some(WorkerPanicked));
        drop(all);
    }
}
