//! What happens next: a queue ordered by time and, within one time, by the order in which entries were made.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The queue. Taking from it never goes back in time.
pub(crate) struct Agenda<T> {
    /// What is small is moved about; what happens stays where it is.
    heap: BinaryHeap<Entry>,
    what: Vec<Option<T>>,
    /// Places in `what` where nothing is.
    vacant: Vec<u32>,
    made: u64,
    now: u64,
}

/// A time, then the order of making, then a place, in one number: it is compared without a branch for each part. The least
/// comes first.
type Entry = Reverse<u128>;

/// Bits of a place, and of an order and a place.
const PLACE_BITS: u32 = 24;
const BEHIND_TIME_BITS: u32 = 64;

fn entry(at: u64, order: u64, place: usize) -> Entry {
    assert!(place >> PLACE_BITS == 0 && order >> (BEHIND_TIME_BITS - PLACE_BITS) == 0, "an agenda has room");
    Reverse(u128::from(at) << BEHIND_TIME_BITS | u128::from(order << PLACE_BITS | place as u64))
}

fn time_of(Reverse(entry): Entry) -> u64 {
    (entry >> BEHIND_TIME_BITS) as u64
}

fn place_of(Reverse(entry): Entry) -> usize {
    entry as usize & ((1 << PLACE_BITS) - 1)
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Agenda<T> {
        Agenda {
            heap: BinaryHeap::with_capacity(1024),
            what: Vec::with_capacity(1024),
            vacant: Vec::with_capacity(1024),
            made: 0,
            now: 0,
        }
    }

    /// Enters `what` at the time `at`, or now if that is past.
    pub(crate) fn enter(&mut self, at: u64, what: T) {
        self.made += 1;
        let place = match self.vacant.pop() {
            Some(place) => {
                self.what[place as usize] = Some(what);
                place
            }
            None => {
                self.what.push(Some(what));
                self.what.len() as u32 - 1
            }
        };
        self.heap.push(entry(at.max(self.now), self.made, place as usize));
    }

    /// Takes the next entry and goes on to its time.
    pub(crate) fn take(&mut self) -> Option<(u64, T)> {
        let entry = self.heap.pop()?;
        let place = place_of(entry);
        self.now = time_of(entry);
        self.vacant.push(place as u32);
        Some((self.now, self.what[place].take()?))
    }

    /// As [`Agenda::take`], if the next entry is not later than `at`.
    pub(crate) fn take_until(&mut self, at: u64) -> Option<(u64, T)> {
        if time_of(*self.heap.peek()?) <= at { self.take() } else { None }
    }

    /// Goes on to the time `at`, before which there is no entry.
    pub(crate) fn go_on_to(&mut self, at: u64) {
        debug_assert!(self.heap.peek().is_none_or(|next| time_of(*next) > at));
        self.now = self.now.max(at);
    }

    /// The time of the entry taken last.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_by_time_and_then_by_order_of_making() {
        let mut agenda = Agenda::new();
        for (at, what) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            agenda.enter(at, what);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.take()).collect();
        assert_eq!(order, [(1, 'a'), (3, 'b'), (5, 'c'), (5, 'd')]);
    }

    #[test]
    fn time_never_goes_back() {
        let mut agenda = Agenda::new();
        agenda.enter(10, 'a');
        agenda.take();
        agenda.enter(4, 'b');
        assert_eq!((agenda.take(), agenda.now()), (Some((10, 'b')), 10));
    }
}
