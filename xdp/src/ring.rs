//! The four rings that an AF_XDP socket shares with the system: two of them we produce into (fill, transmit), two we
//! consume from (completion, receive).
//!
//! Producer and consumer are counters of 32 bits that wrap; a ring's size is a power of two, so that the place of an
//! entry is the counter's low bits across the wrap. Whoever writes a counter writes it with release, and whoever reads
//! the other's reads it with acquire: an entry is whole when the counter says that it is there, and no longer read when
//! the counter says that it is free.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the parts of a ring lie.
///
/// Invariant, upheld by whoever makes one: the pointers are valid and aligned as long as the ring lives, `entries` is
/// an array of `size` entries, and nobody but one producer and one consumer touches them.
pub(crate) struct Cells<T> {
    pub(crate) producer: NonNull<AtomicU32>,
    pub(crate) consumer: NonNull<AtomicU32>,
    pub(crate) flags: NonNull<AtomicU32>,
    pub(crate) entries: NonNull<T>,
    pub(crate) size: u32,
    pub(crate) owner: PhantomData<T>,
}

impl<T: Copy> Cells<T> {
    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid while the ring lives (invariant of `Cells`).
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn entry(&self, counter: u32) -> NonNull<T> {
        // SAFETY: the index is below `size`, a power of two, and the array has as many entries.
        unsafe { self.entries.add((counter & (self.size - 1)) as usize) }
    }
}

/// The end that we produce into.
pub(crate) struct Producer<T> {
    cells: Cells<T>,
    /// Entries written, published or not.
    written: u32,
    /// What the consumer had taken when it was last looked at.
    taken: u32,
}

impl<T: Copy> Producer<T> {
    /// The producing end of a ring on which nobody produces yet.
    pub(crate) fn new(cells: Cells<T>) -> Producer<T> {
        assert!(cells.size.is_power_of_two());
        let written = cells.producer().load(Ordering::Relaxed);
        let taken = cells.consumer().load(Ordering::Acquire);
        Producer { cells, written, taken }
    }

    /// Whether there is room for `count` entries.
    #[inline]
    pub(crate) fn has_room(&mut self, count: u32) -> bool {
        let room = |producer: &Producer<T>| {
            // Never more than the ring's size, whatever the other end says.
            producer.cells.size.saturating_sub(producer.written.wrapping_sub(producer.taken))
        };
        if room(self) < count {
            self.taken = self.cells.consumer().load(Ordering::Acquire);
        }
        room(self) >= count
    }

    /// Writes an entry, which the other end does not see yet. There must be room: see [`Producer::has_room`].
    #[inline]
    pub(crate) fn write(&mut self, entry: T) {
        debug_assert!(self.written.wrapping_sub(self.taken) < self.cells.size);
        // SAFETY: the entry is inside the array; the consumer does not read it before it is published, and has read what
        // was there before: `has_room` saw its counter. Attacked by the tests below.
        unsafe { self.cells.entry(self.written).write(entry) };
        self.written = self.written.wrapping_add(1);
    }

    /// Shows the other end what was written.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.cells.producer().store(self.written, Ordering::Release);
    }

    /// Entries written that the consumer has not taken.
    #[inline]
    pub(crate) fn waiting(&self) -> u32 {
        self.written.wrapping_sub(self.cells.consumer().load(Ordering::Acquire))
    }

    /// Entries written that are not published.
    #[inline]
    pub(crate) fn unpublished(&self) -> u32 {
        self.written.wrapping_sub(self.cells.producer().load(Ordering::Relaxed))
    }

    /// Whether the system asks to be woken when there is something.
    #[inline]
    pub(crate) fn wants_waking(&self) -> bool {
        // SAFETY: valid while the ring lives (invariant of `Cells`).
        unsafe { self.cells.flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// The end that we consume from.
pub(crate) struct Consumer<T> {
    cells: Cells<T>,
    /// Entries read, released or not.
    read: u32,
    /// What the producer had published when it was last looked at.
    published: u32,
}

impl<T: Copy> Consumer<T> {
    /// The consuming end of a ring on which nobody consumes yet.
    pub(crate) fn new(cells: Cells<T>) -> Consumer<T> {
        assert!(cells.size.is_power_of_two());
        let read = cells.consumer().load(Ordering::Relaxed);
        let published = cells.producer().load(Ordering::Acquire);
        Consumer { cells, read, published }
    }

    /// The next entry, if there is one.
    #[inline]
    pub(crate) fn read(&mut self) -> Option<T> {
        if self.read == self.published {
            self.published = self.cells.producer().load(Ordering::Acquire);
            if self.read == self.published {
                return None;
            }
        }
        // SAFETY: the entry is inside the array; the producer published it, which `published` saw with acquire, and does
        // not write it again before it is released. Attacked by the tests below.
        let entry = unsafe { self.cells.entry(self.read).read() };
        self.read = self.read.wrapping_add(1);
        Some(entry)
    }

    /// Entries that were there when the producer was last looked at, and are not read.
    #[inline]
    pub(crate) fn known(&self) -> u32 {
        self.published.wrapping_sub(self.read)
    }

    /// Lets the producer have what was read.
    #[inline]
    pub(crate) fn release(&mut self) {
        self.cells.consumer().store(self.read, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A ring on the heap, as the system would map it, beginning at some count.
    struct Heap {
        words: Box<[AtomicU32; 3]>,
        entries: Box<[u64]>,
    }

    impl Heap {
        fn new(size: usize, start: u32) -> Heap {
            Heap {
                words: Box::new([AtomicU32::new(start), AtomicU32::new(start), AtomicU32::new(0)]),
                entries: vec![0; size].into(),
            }
        }

        fn cells(&mut self) -> Cells<u64> {
            Cells {
                producer: NonNull::from(&self.words[0]),
                consumer: NonNull::from(&self.words[1]),
                flags: NonNull::from(&self.words[2]),
                size: self.entries.len() as u32,
                entries: NonNull::new(self.entries.as_mut_ptr()).unwrap(),
                owner: PhantomData,
            }
        }
    }

    proptest! {
        /// Against a queue, from any count, through the wrap of the counters.
        #[test]
        fn a_ring_is_a_bounded_queue(
            start in prop_oneof![Just(0), Just(u32::MAX - 5), any::<u32>()],
            bits in 0_u32..5,
            steps in prop::collection::vec((0_u8..4, 1_u32..6), 1..200),
        ) {
            let size = 1_u32 << bits;
            let mut heap = Heap::new(size as usize, start);
            let (mut producer, mut consumer) = (Producer::new(heap.cells()), Consumer::new(heap.cells()));
            // What was written and not published, what was published and not read, what was read and not released.
            let (mut written, mut published, mut read) = (VecDeque::new(), VecDeque::new(), 0);
            let mut next = 0;
            for (what, count) in steps {
                match what {
                    0 => {
                        let free = size as usize - written.len() - published.len() - read;
                        prop_assert_eq!(producer.has_room(count), free >= count as usize);
                        if free >= count as usize {
                            for _ in 0..count {
                                producer.write(next);
                                written.push_back(next);
                                next += 1;
                            }
                        }
                    }
                    1 => {
                        producer.publish();
                        published.append(&mut written);
                    }
                    2 => for _ in 0..count {
                        let got = consumer.read();
                        prop_assert_eq!(got, published.pop_front());
                        read += usize::from(got.is_some());
                    },
                    _ => {
                        consumer.release();
                        read = 0;
                    }
                }
                prop_assert_eq!(producer.unpublished() as usize, written.len());
                prop_assert_eq!(producer.waiting() as usize, written.len() + published.len() + read);
            }
        }
    }

    #[test]
    fn entries_cross_threads_whole_and_in_order_while_the_counters_wrap() {
        const COUNT: u64 = 300_000;
        let mut heap = Heap::new(64, u32::MAX - 1_000);
        /// Carries one end to another thread.
        struct Sent<T>(T);
        // SAFETY: each end is used by one thread only, and the heap outlives both (joined below).
        unsafe impl<T> Send for Sent<T> {}
        let (producer, consumer) = (Sent(Producer::new(heap.cells())), Sent(Consumer::new(heap.cells())));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let Sent(mut producer) = { producer };
                let mut next = 0;
                while next < COUNT {
                    if producer.has_room(7) {
                        (0..7).for_each(|at| producer.write(next + at));
                        next += 7;
                        producer.publish();
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
            scope.spawn(move || {
                let Sent(mut consumer) = { consumer };
                let mut next = 0;
                while next < COUNT {
                    match consumer.read() {
                        Some(entry) => {
                            assert_eq!(entry, next);
                            next += 1;
                            if next % 5 == 0 {
                                consumer.release();
                            }
                        }
                        None => {
                            consumer.release();
                            std::thread::yield_now();
                        }
                    }
                }
            });
        });
    }

    #[test]
    fn a_consumer_that_lies_gives_no_more_room_than_there_is() {
        let mut heap = Heap::new(8, 0);
        let mut producer = Producer::new(heap.cells());
        heap.words[1].store(5, Ordering::Release);
        assert!(!producer.has_room(9) && !producer.has_room(8));
    }
}
