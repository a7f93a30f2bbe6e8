//! What happens next: a queue ordered by time and, within one time, by the order in which entries were made.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The queue. Taking from it never goes back in time.
pub(crate) struct Agenda<T> {
    heap: BinaryHeap<Entry<T>>,
    made: u64,
    now: u64,
}

struct Entry<T> {
    at: u64,
    order: u64,
    what: T,
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Agenda<T> {
        Agenda { heap: BinaryHeap::with_capacity(1024), made: 0, now: 0 }
    }

    /// Enters `what` at the time `at`, or now if that is past.
    pub(crate) fn enter(&mut self, at: u64, what: T) {
        self.made += 1;
        self.heap.push(Entry { at: at.max(self.now), order: self.made, what });
    }

    /// Takes the next entry and goes on to its time.
    pub(crate) fn take(&mut self) -> Option<(u64, T)> {
        let entry = self.heap.pop()?;
        self.now = entry.at;
        Some((entry.at, entry.what))
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

impl<T> Ord for Entry<T> {
    /// The greatest entry of a heap comes first: here the earliest.
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

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
