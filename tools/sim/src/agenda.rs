//! What happens next: a queue ordered by time and, within one time, by the order in which entries were made.

use std::cmp::Ordering;
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

#[derive(Clone, Copy)]
struct Entry {
    at: u64,
    order: u64,
    place: u32,
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
        self.heap.push(Entry { at: at.max(self.now), order: self.made, place });
    }

    /// Takes the next entry and goes on to its time.
    pub(crate) fn take(&mut self) -> Option<(u64, T)> {
        let Entry { at, place, .. } = self.heap.pop()?;
        self.now = at;
        self.vacant.push(place);
        Some((at, self.what[place as usize].take()?))
    }

    /// As [`Agenda::take`], if the next entry is not later than `at`.
    pub(crate) fn take_until(&mut self, at: u64) -> Option<(u64, T)> {
        if self.heap.peek()?.at <= at { self.take() } else { None }
    }

    /// Goes on to the time `at`, before which there is no entry.
    pub(crate) fn go_on_to(&mut self, at: u64) {
        debug_assert!(self.heap.peek().is_none_or(|next| next.at > at));
        self.now = self.now.max(at);
    }

    /// The time of the entry taken last.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }
}

impl Ord for Entry {
    /// The greatest entry of a heap comes first: here the earliest.
    fn cmp(&self, other: &Entry) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

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
