//! Sleeping until somebody rings.
//!
//! Frames are published by stores, and a store wakes nobody. So a member that is about to sleep says so in its own segment;
//! whoever publishes looks whether anybody sleeps, and *rings*: it changes its bell, a word of its own segment, for which
//! sleepers wait, and wakes them. Nobody writes what is another's.
//!
//! ```text
//!   sleeper                               writer
//!   reads all bells
//!   asleep: 7 (odd)                       publishes a frame
//!   looks at the rings: nothing           who is asleep? 7, and it has not been rung for
//!   sleeps while the bells are as read    bell + 1, wakes
//! ```
//!
//! The writer has no fence between its frame and its look, for that would cost each frame more than all sleepers are
//! worth. So its look may come before its frame can be seen; it looks again an iteration later. Should even that have been
//! too early, the sleeper looks at the rings by itself, two thousand times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Wake;
use std::time::Duration;

/// What a thread sleeps on: its own word, which other threads of the process change, and the bells of other processes.
pub(super) struct Bells {
    waited: [libc::futex_waitv; BELLS_MAX],
    count: usize,
}

/// As many as the system takes. The bells beyond are not heard: their frames are found by looking.
const BELLS_MAX: usize = libc::FUTEX_WAITV_MAX as usize;

impl Bells {
    /// To sleep as long as nobody wakes `sleeper`.
    pub(super) fn of(sleeper: &Sleeper) -> Bells {
        // SAFETY: integers, for which zero is a value.
        let waited = unsafe { std::mem::zeroed() };
        let mut bells = Bells { waited, count: 0 };
        bells.expect(&sleeper.state, ASLEEP, libc::FUTEX2_SIZE_U32 | libc::FUTEX2_PRIVATE);
        bells
    }

    /// And as long as this bell is as it is now.
    pub(super) fn add(&mut self, bell: &AtomicU32) {
        if self.count < BELLS_MAX {
            // Acquire: what was published before it was rung is seen by the look that follows.
            self.expect(bell, bell.load(Ordering::Acquire), libc::FUTEX2_SIZE_U32);
        }
    }

    fn expect(&mut self, word: &AtomicU32, value: u32, flags: i32) {
        let waited = &mut self.waited[self.count];
        (waited.val, waited.uaddr, waited.flags) = (value.into(), word.as_ptr() as u64, flags as u32);
        self.count += 1;
    }

    /// Sleeps for `timeout` at most; for `patience` at most where the system cannot wait for several words.
    pub(super) fn sleep(&self, timeout: Duration, patience: Duration) {
        let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a live local is written.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut until) };
        let nanoseconds = until.tv_nsec + libc::c_long::from(timeout.subsec_nanos());
        until.tv_sec += timeout.as_secs().min(1 << 30) as libc::time_t + nanoseconds / 1_000_000_000;
        until.tv_nsec = nanoseconds % 1_000_000_000;
        let (words, count) = (self.waited.as_ptr(), self.count);
        // SAFETY: `count` entries of a live array, and a live local. The words they name are only loaded, by the system,
        // which refuses those that are not mapped any more.
        let outcome = unsafe {
            libc::syscall(libc::SYS_futex_waitv, words, count, 0, &raw const until, libc::CLOCK_MONOTONIC)
        };
        let error = std::io::Error::last_os_error().raw_os_error();
        if outcome < 0 && !matches!(error, Some(libc::EAGAIN | libc::ETIMEDOUT | libc::EINTR)) {
            // Linux before 5.16, or a filter in the way.
            std::thread::park_timeout(timeout.min(patience));
        }
    }
}

/// Wakes whoever sleeps on the bell. Returns how many system calls that took.
#[cold]
pub(super) fn ring(bell: &AtomicU32) -> u64 {
    bell.fetch_add(1, Ordering::SeqCst);
    // Of any process.
    wake(bell, 0);
    1
}

fn wake(word: &AtomicU32, flags: i32) {
    // SAFETY: the word is live; nothing is written.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | flags, i32::MAX) };
}

/// The transport's one thread, to be woken by others of its process. A wake that comes early ends the next sleep.
pub(super) struct Sleeper {
    thread: std::thread::Thread,
    state: AtomicU32,
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const WOKEN: u32 = 2;

impl Sleeper {
    /// The calling thread.
    pub(super) fn this_thread() -> Arc<Sleeper> {
        Arc::new(Sleeper { thread: std::thread::current(), state: AtomicU32::new(AWAKE) })
    }

    /// Whether the thread may go to sleep; if not, it was woken already.
    pub(super) fn doze(&self) -> bool {
        let before = self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst);
        before.is_ok() || self.rise()
    }

    /// Ends the sleep. False if somebody has ended it before.
    pub(super) fn rise(&self) -> bool {
        self.state.swap(AWAKE, Ordering::SeqCst) != WOKEN
    }
}

impl Wake for Sleeper {
    fn wake(self: Arc<Sleeper>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Sleeper>) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == ASLEEP {
            wake(&self.state, libc::FUTEX_PRIVATE_FLAG);
            self.thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::FromRawFd;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::buf::Memory;

    /// Far longer than the test: only what is rung ends a sleep in time.
    const FOREVER: Duration = Duration::from_secs(3600);

    fn word(memory: &Memory) -> &AtomicU32 {
        // SAFETY: inside the mapping, which outlives the borrow, and only touched as an atomic.
        unsafe { AtomicU32::from_ptr(memory.base().as_ptr().cast()) }
    }

    #[test]
    fn a_bell_is_heard_through_a_mapping_that_may_only_be_read() {
        // SAFETY: a name that lives, and a descriptor that nobody else owns.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"bell".as_ptr(), libc::MFD_CLOEXEC)) };
        file.set_len(4096).unwrap();
        let readers = file.try_clone().unwrap();
        let (say, hear) = channel();
        let sleeper = std::thread::spawn(move || {
            // SAFETY: the file has this size and keeps it, and is read through an atomic.
            let memory = unsafe { Memory::shared_readable(&readers, 4096).unwrap() };
            let own = Sleeper::this_thread();
            for rings in 0..100 {
                assert!(own.doze());
                let mut bells = Bells::of(&own);
                bells.add(word(&memory));
                assert_eq!(word(&memory).load(Ordering::Relaxed), rings);
                say.send(()).unwrap();
                bells.sleep(FOREVER, FOREVER);
                assert!(own.rise());
            }
        });
        // SAFETY: the file has this size and keeps it; nobody else writes.
        let memory = unsafe { Memory::shared_writable(&file, 4096).unwrap() };
        while hear.recv().is_ok() {
            ring(word(&memory));
        }
        sleeper.join().unwrap();
    }

    #[test]
    fn another_thread_ends_the_sleep_or_the_next_one() {
        let (tell, told) = channel();
        let sleeper = std::thread::spawn(move || {
            let own = Sleeper::this_thread();
            tell.send(Arc::clone(&own)).unwrap();
            for _ in 0..100 {
                if own.doze() {
                    Bells::of(&own).sleep(FOREVER, FOREVER);
                    assert!(!own.rise(), "nothing else ends it");
                }
                tell.send(Arc::clone(&own)).unwrap();
            }
        });
        for waker in told {
            waker.wake_by_ref();
        }
        sleeper.join().unwrap();
    }
}
