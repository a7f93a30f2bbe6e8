//! What takes long, done ahead or afterwards, in steps: making segments, touching those of others, unmapping.
//!
//! A segment of a few MiB takes some milliseconds to make, as long as a member that is suspected takes to answer. So it
//! is made while there is nothing to do, without a name: opening a view gives it one. Likewise the segments of others
//! are touched little by little after they have been mapped, and what is not needed any more is unmapped by a thread of
//! its own, for that cannot be divided.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::buf::{Memory, MemoryError, Region, RegionOptions};

use super::segment::{self, Spare};
use crate::transport::untouched::{STEP_BYTES, Untouched};

/// Segments and regions in store, and memory to be touched or given back.
pub(super) struct Stock {
    pub(super) pace: Pace,
    spare: Option<Spare>,
    untouched: Untouched,
    retired: Vec<Memory>,
}

/// When to look at what is not looked at in every iteration.
pub(super) struct Pace {
    calls: u32,
    last: Instant,
    soon: bool,
}

/// The clock is looked at every so many calls, for that costs as much as half an iteration; the rest is done when so
/// much time has passed, for a system call costs several.
const PACE_CALLS: u32 = 128;
const PACE_PAUSE: Duration = Duration::from_micros(50);

impl Stock {
    pub(super) fn new() -> Stock {
        Stock {
            pace: Pace { calls: 0, last: Instant::now(), soon: false },
            spare: None,
            untouched: Untouched::default(),
            retired: Vec::new(),
        }
    }

    /// Begins to make a segment of `bytes` bytes, unless it is there already.
    pub(super) fn prepare(&mut self, directory: &Path, bytes: usize) {
        if self.spare.as_ref().is_none_or(|spare| !spare.fits(bytes)) {
            self.retired.extend(self.spare.take().map(Spare::into_memory));
            // Where there is no room for it now, the next call may find some.
            if segment::free_bytes(directory).is_some_and(|free| free < bytes as u64) {
                return;
            }
            // Where spares cannot be had, opening makes what it needs, and says what is wrong.
            self.spare = Spare::begin(directory, bytes).ok();
            self.pace.soon();
        }
    }

    /// Whether the store has a segment of `bytes` bytes, or will have it, there being `free` bytes left for it.
    pub(super) fn has_segment(&self, bytes: usize, free: u64) -> bool {
        self.spare.as_ref().is_some_and(|spare| spare.bytes() >= bytes && spare.missing() as u64 <= free)
    }

    /// A segment of `bytes` bytes, from the store if it has one. All of it is reserved; what was not touched yet is from
    /// now on.
    pub(super) fn take_segment(&mut self, directory: &Path, bytes: usize) -> io::Result<Spare> {
        let mut spare = match self.spare.take_if(|spare| spare.fits(bytes)) {
            Some(spare) => spare,
            None => Spare::begin(directory, bytes)?,
        };
        if !spare.grown() {
            spare.reserve_rest()?;
            self.touch(spare.memory().clone());
        }
        Ok(spare)
    }

    /// A region, touched from now on.
    pub(super) fn region(&mut self, options: RegionOptions) -> Result<Region, MemoryError> {
        let region = Region::pool_untouched(options)?;
        self.touch(region.memory().clone());
        Ok(region)
    }

    /// Touches the memory bit by bit.
    pub(super) fn touch(&mut self, memory: Memory) {
        self.untouched.push(memory);
        self.pace.soon();
    }

    /// Gives the memory back once nobody else has a handle to it.
    pub(super) fn retire(&mut self, memory: Memory) {
        self.untouched.remove(&memory);
        self.retired.push(memory);
        self.pace.soon();
    }

    /// Whether there is something to do.
    pub(super) fn has_work(&self) -> bool {
        self.has_steps() || !self.retired.is_empty()
    }

    /// Whether there is something to do that ends after so many steps.
    pub(super) fn has_steps(&self) -> bool {
        !self.untouched.is_empty() || self.spare.as_ref().is_some_and(|spare| !spare.grown())
    }

    /// Does a bit of it.
    pub(super) fn step(&mut self) {
        if !self.untouched.is_empty() {
            self.untouched.step();
        } else if let Some(spare) = self.spare.as_mut().filter(|spare| !spare.grown()) {
            // A full file system: whoever opens a view is told.
            if spare.grow(STEP_BYTES).is_err() {
                self.spare = None;
            }
        }
        if !self.retired.is_empty() {
            self.give_back();
        }
    }

    #[cold]
    fn give_back(&mut self) {
        let mut mappings = Vec::new();
        let mut at = 0;
        while at < self.retired.len() {
            if self.retired[at].is_shared() {
                at += 1;
            } else {
                mappings.extend(self.retired.swap_remove(at).into_mapping());
            }
        }
        if !mappings.is_empty() {
            let unmap = move || {
                anywhere();
                drop(mappings);
            };
            // If there can be no thread, what it was to do has been done by dropping it.
            let _ = thread::Builder::new().name("wadjet-unmap".into()).spawn(unmap);
        }
    }
}

impl Pace {
    /// Whether it is time.
    #[inline]
    pub(super) fn due(&mut self) -> bool {
        if self.calls > 0 {
            self.calls -= 1;
            return false;
        }
        self.ask_clock()
    }

    #[cold]
    fn ask_clock(&mut self) -> bool {
        self.calls = PACE_CALLS;
        let now = Instant::now();
        let due = self.soon || now.duration_since(self.last) >= PACE_PAUSE;
        if due {
            self.last = now;
            self.soon = false;
        }
        due
    }

    /// Makes the next call of [`Pace::due`] say so.
    pub(super) fn soon(&mut self) {
        self.calls = 0;
        self.soon = true;
    }

    /// There is nothing to look at, until [`Pace::soon`] is called.
    pub(super) fn rest(&mut self) {
        self.calls = u32::MAX;
    }
}

/// Lets the calling thread run on any processor: it was made by one that may be pinned and should not be in its way.
fn anywhere() {
    // SAFETY: all bits set is a set of processors; it is only read during the call, which concerns this thread alone.
    unsafe {
        let mut all: libc::cpu_set_t = std::mem::zeroed();
        for cpu in 0..libc::CPU_SETSIZE as usize {
            libc::CPU_SET(cpu, &mut all);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever opens a view waits until its pages are reserved, and not until they are mapped.
    #[test]
    fn a_segment_taken_before_it_is_made_is_reserved_at_once_and_touched_in_steps() {
        const BYTES: usize = 4 * STEP_BYTES;
        let directory = Path::new("/dev/shm");
        let mut stock = Stock::new();
        stock.prepare(directory, BYTES);
        stock.step();
        let spare = stock.take_segment(directory, BYTES).unwrap();
        assert!(spare.grown(), "a full file system would show now");
        let mut steps = 0;
        while stock.has_steps() {
            stock.step();
            steps += 1;
        }
        assert_eq!(steps, 4);
        stock.prepare(directory, BYTES);
        while stock.has_steps() {
            stock.step();
        }
        assert!(stock.take_segment(directory, BYTES).unwrap().grown());
        assert!(!stock.has_steps(), "nothing is left to do for a segment that was made before");
    }
}
