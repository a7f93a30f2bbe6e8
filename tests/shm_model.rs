//! The protocol of a shared ring, in every order that the memory model allows: `src/transport/shm/cursor.rs` as it is, over the
//! atomics of a model checker, and over frames that report any access that is not ordered with the other side's. Over atomics
//! or fences that forget an ordering, or words that are not cleared, the check fails.
//!
//! Unsafe only to get at the cells of the model, which checks each access.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What stamps are made of.
use wadjet::buf;

/// What an implementation could forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// The stamp is stored without release.
    PublishUnordered,
    /// The reader does not order its reads of a frame behind the stamp's, or what it asks of a frame behind them.
    ReadUnordered,
    /// The reader tells a release that its reads are not ordered before.
    ReleaseUnordered,
    /// The writer does not order what it writes behind the release it saw.
    ReuseUnordered,
    /// The writer does not order what it writes behind the limit that it tells.
    LimitUnordered,
    /// The stamp behind a frame is not cleared: one of the lap before is met there.
    BehindNotCleared,
}

loom::thread_local! {
    static WRITES: std::cell::Cell<bool> = std::cell::Cell::new(false);
}

#[path = "../src/transport/shm"]
mod shm {
    // The transport uses more of it.
    #![allow(dead_code, unreachable_pub)]

    #[path = "cursor.rs"]
    pub(super) mod cursor;
    #[path = "stamp.rs"]
    pub(super) mod stamp;

    pub(super) mod sync {
        pub(crate) use loom::sync::atomic::Ordering;

        use crate::{Broken, WRITES, broken};

        #[derive(Debug)]
        pub(crate) struct AtomicU64(Option<loom::sync::atomic::AtomicU64>);

        pub(crate) static NOTHING: AtomicU64 = AtomicU64(None);

        impl AtomicU64 {
            pub(crate) fn new(value: u64) -> AtomicU64 {
                AtomicU64(Some(loom::sync::atomic::AtomicU64::new(value)))
            }

            pub(crate) fn load(&self, order: Ordering) -> u64 {
                self.0.as_ref().map_or(0, |word| word.load(order))
            }

            pub(crate) fn store(&self, value: u64, order: Ordering) {
                let forgets = if WRITES.with(|writes| writes.get()) {
                    Broken::PublishUnordered
                } else {
                    Broken::ReleaseUnordered
                };
                if value == 0 && broken() == Broken::BehindNotCleared {
                    return;
                }
                let order = if broken() == forgets { Ordering::Relaxed } else { order };
                self.0.as_ref().expect("nobody writes to nothing").store(value, order);
            }
        }

        pub(crate) fn fence(order: Ordering) {
            let forgets = match (order, WRITES.with(|writes| writes.get())) {
                (Ordering::Release, _) => Broken::LimitUnordered,
                (_, true) => Broken::ReuseUnordered,
                (_, false) => Broken::ReadUnordered,
            };
            if broken() != forgets {
                loom::sync::atomic::fence(order);
            }
        }
    }

    pub(super) mod words {
        use loom::sync::Arc;

        use super::LINES;
        use super::stamp::Generations;
        use super::sync::AtomicU64;

        /// The words that both ends look at, by line.
        #[derive(Clone)]
        pub(super) struct Words(pub(super) Arc<[(AtomicU64, AtomicU64); LINES]>);

        impl Words {
            pub(super) fn at(&self, position: u64) -> usize {
                (position % self.bytes()) as usize
            }
            pub(super) fn prefetch_to_write(&self, _position: u64) {}
            pub(super) fn word(&self, position: u64) -> &AtomicU64 {
                &self.0[super::line(position)].0
            }
            pub(super) fn second_word(&self, position: u64) -> &AtomicU64 {
                &self.0[super::line(position)].1
            }
            pub(super) fn bytes(&self) -> u64 {
                (LINES * crate::buf::LINE_BYTES) as u64
            }
            pub(super) fn generations(&self) -> Generations {
                Generations { shift: self.bytes().trailing_zeros(), seed: 7 }
            }
        }
    }

    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use cursor::{ENTRY_START, Follower, LanePublisher, Publisher, released_by, tell_limit, tell_released};
    use sync::{AtomicU64, Ordering};
    use words::Words;

    use super::{WRITES, buf};

    /// Lines of the ring, each for a frame: one is always left free for the stamp behind the newest frame.
    const LINES: usize = 4;
    const LINE: u64 = buf::LINE_BYTES as u64;
    const FRAMES: u64 = 5;
    /// Start and end of a frame that takes one line.
    const FRAME: (usize, usize) = (8, 40);

    fn line(position: u64) -> usize {
        (position / LINE) as usize % LINES
    }

    fn words() -> Words {
        Words(Arc::new(std::array::from_fn(|_| (AtomicU64::new(0), AtomicU64::new(0)))))
    }

    /// The bytes of frames, by line.
    type Frames = [UnsafeCell<u64>; LINES];

    fn frames() -> Arc<Frames> {
        Arc::new(std::array::from_fn(|_| UnsafeCell::new(0)))
    }

    fn write(frames: &Frames, position: u64) {
        // SAFETY: the model checks that nobody else is at the cell.
        frames[line(position)].with_mut(|frame| unsafe { *frame = position + 100 });
    }

    fn read(frames: &Frames, position: u64) {
        // SAFETY: as in `write`.
        let frame = frames[line(position)].with(|frame| unsafe { *frame });
        assert_eq!(frame, position + 100, "a frame is read once, whole, in its place");
    }

    fn check(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    fn spawn_writer(write: impl FnOnce() + 'static) -> thread::JoinHandle<()> {
        thread::spawn(move || {
            WRITES.with(|writes| writes.set(true));
            write();
        })
    }

    /// Frames are written, so many of them together, and read, over more than a lap.
    pub(super) fn casts(together: u64) {
        check(move || {
            let (words, frames, released) = (words(), frames(), Arc::new(AtomicU64::new(0)));
            let mut follower = Follower::new(words.clone());
            let (theirs, seen) = (Arc::clone(&frames), Arc::clone(&released));
            let writer = spawn_writer(move || {
                let mut publisher = Publisher::new(words.clone());
                let mut free = words.bytes();
                for first in (0..FRAMES).step_by(together as usize) {
                    let count = together.min(FRAMES - first);
                    while (first + count + 1) * LINE > free {
                        free = released_by([&*seen].into_iter()).unwrap() + words.bytes();
                        thread::yield_now();
                    }
                    for frame in first..first + count {
                        write(&theirs, frame * LINE);
                        publisher.frame(frame * LINE, FRAME.0, FRAME.1);
                    }
                    publisher.publish();
                }
            });
            let mut next = 0;
            while next < FRAMES {
                let taken = follower.follow(2, Some, |place| {
                    assert_eq!((place.position, place.start, place.end), (next * LINE, FRAME.0, FRAME.1));
                    read(&frames, place.position);
                    next += 1;
                });
                assert_eq!(taken.rubbish, 0);
                if taken.frames > 0 {
                    tell_released(&released, follower.position());
                } else {
                    thread::yield_now();
                }
            }
            writer.join().unwrap();
        });
    }

    /// An entry of a lane comes after the casts before it, whole.
    pub(super) fn lane() {
        check(|| {
            let (cast_words, lane_words, entries) = (words(), words(), frames());
            let mut casts = Follower::new(cast_words.clone());
            let mut lane = Follower::new(lane_words.clone());
            let theirs = Arc::clone(&entries);
            let writer = spawn_writer(move || {
                let mut casts = Publisher::new(cast_words);
                let mut lane = LanePublisher::new(lane_words);
                for _ in 0..2 {
                    casts.frame(casts.stamped(), FRAME.0, FRAME.1);
                    casts.publish();
                    let written = lane
                        .push(casts.stamped(), FRAME.1 - ENTRY_START, |_, position| write(&theirs, position));
                    assert!(written);
                }
            });
            let mut read_entries = 0;
            while read_entries < 2 {
                let (behind, before) = (&casts, read_entries);
                let taken = lane.follow_behind(behind, 2, Some, |place| {
                    read(&entries, place.position);
                    read_entries += 1;
                    assert!(behind.position() >= read_entries * LINE, "its casts come first");
                });
                assert_eq!(taken.rubbish, 0);
                assert_eq!(casts.follow(2, Some, drop).rubbish, 0);
                if read_entries == before {
                    thread::yield_now();
                }
            }
            writer.join().unwrap();
        });
    }

    /// A writer goes on over what its reader holds, as over that of one that was excluded: what the reader finds intact, is.
    pub(super) fn overwritten() {
        check(|| {
            let words = words();
            // Of a frame's bytes: they are read while they are written.
            let bytes = Arc::new(AtomicU64::new(0));
            let limit = Arc::new(AtomicU64::new(words.bytes()));
            let follower = Follower::new(words.clone());
            let (theirs, told) = (Arc::clone(&bytes), Arc::clone(&limit));
            theirs.store(100, Ordering::Relaxed);
            let mut publisher = Publisher::new(words.clone());
            publisher.frame(0, FRAME.0, FRAME.1);
            publisher.publish();
            let writer = spawn_writer(move || {
                tell_limit(&told, words.bytes() + LINE);
                theirs.store(200, Ordering::Relaxed);
            });
            let read = bytes.load(Ordering::Relaxed);
            if follower.intact(0, FRAME.0, FRAME.1, &limit) {
                assert_eq!(read, 100, "what is intact has not been overwritten");
            }
            writer.join().unwrap();
        });
    }
}

thread_local! {
    static BROKEN: std::cell::Cell<Broken> = const { std::cell::Cell::new(Broken::Nothing) };
}

/// What is forgotten in this model, all threads of which are one.
fn broken() -> Broken {
    BROKEN.with(std::cell::Cell::get)
}

#[test]
fn in_every_order_frames_are_read_once_whole_and_never_while_they_are_written() {
    shm::casts(1);
    shm::casts(2);
}

#[test]
fn in_every_order_an_entry_is_read_whole_and_after_the_casts_before_it() {
    shm::lane();
}

#[test]
fn in_every_order_what_is_intact_had_not_been_overwritten_when_it_was_read() {
    shm::overwritten();
}

#[test]
fn leaving_out_any_ordering_is_found() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = |forgotten: Broken, model: fn()| {
        BROKEN.with(|broken| broken.set(forgotten));
        let found = catch_unwind(AssertUnwindSafe(model)).is_err();
        BROKEN.with(|broken| broken.set(Broken::Nothing));
        found
    };
    let models: [(Broken, fn()); 9] = [
        (Broken::PublishUnordered, || shm::casts(1)),
        (Broken::PublishUnordered, shm::lane),
        (Broken::ReadUnordered, || shm::casts(1)),
        (Broken::ReadUnordered, shm::lane),
        (Broken::ReadUnordered, shm::overwritten),
        (Broken::ReleaseUnordered, || shm::casts(1)),
        (Broken::ReuseUnordered, || shm::casts(1)),
        (Broken::LimitUnordered, shm::overwritten),
        (Broken::BehindNotCleared, || shm::casts(1)),
    ];
    let missed: Vec<_> = (0..models.len()).filter(|at| !found(models[*at].0, models[*at].1)).collect();
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not found: {missed:?}");
}
