//! Regions are used again: to map and touch memory for every view of every run costs more than the runs themselves.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Deref;

use wadjet::buf::{ChunkOptions, Memory, Region, RegionOptions, TAILROOM_BYTES};

thread_local! {
    static SPARES: RefCell<Spares> = RefCell::default();
}

/// Number of frames, and their length.
type Key = (usize, usize);

#[derive(Default)]
struct Spares {
    /// In the order in which they came back.
    regions: VecDeque<Spare>,
    /// What their memory takes, together.
    bytes: usize,
}

/// A region and the memory that it lies in.
struct Spare {
    key: Key,
    region: Region,
    memory: Memory,
}

/// What one frame takes, so that frames of other lengths can take its place.
fn stride(frame_bytes: usize) -> usize {
    (frame_bytes + TAILROOM_BYTES).next_power_of_two()
}

/// Bytes of spares that a thread keeps: what came back longest ago goes first. It is what a simulator that has run for long
/// takes of memory, by thread; the largest worlds take half of it at once.
const SPARE_BYTES_MAX: usize = 192 << 20;

impl Spares {
    /// A region of `key`, or at least memory for one.
    fn take(&mut self, key: Key) -> Option<Spare> {
        let fits = |(frames, frame_bytes): Key| (frames, stride(frame_bytes)) == (key.0, stride(key.1));
        let exact = self.regions.iter().rposition(|spare| spare.key == key);
        let at = exact.or_else(|| self.regions.iter().rposition(|spare| fits(spare.key)))?;
        let spare = self.regions.remove(at)?;
        self.bytes -= spare.memory.bytes();
        Some(spare)
    }

    fn put(&mut self, spare: Spare) {
        self.bytes += spare.memory.bytes();
        self.regions.push_back(spare);
        while self.bytes > SPARE_BYTES_MAX {
            let Some(oldest) = self.regions.pop_front() else { return };
            self.bytes -= oldest.memory.bytes();
        }
    }
}

/// A region that becomes a spare when it is dropped, if all of its frames have come back.
pub(crate) struct Pool {
    key: Key,
    region: Region,
    memory: Memory,
}

impl Pool {
    /// A region of that many frames, or of the next power of two: there are few sizes, so that spares fit.
    pub(crate) fn of(frames: usize, frame_bytes: usize) -> Pool {
        let frames = frames.next_power_of_two();
        let key = (frames, frame_bytes);
        let memory = match SPARES.with_borrow_mut(|spares| spares.take(key)) {
            Some(Spare { key: known, region, memory }) if known == key => {
                return Pool { key, region, memory };
            }
            Some(spare) => spare.memory,
            // Most of its frames are never taken.
            None => Memory::anonymous_untouched(frames * stride(frame_bytes), false).expect("some memory"),
        };
        let chunks = ChunkOptions { offset_bytes: 0, stride_bytes: stride(frame_bytes) };
        let options = RegionOptions {
            frames,
            link_headroom_bytes: 0,
            frame_bytes,
            reserve_frames: 0,
            huge_pages: false,
        };
        Pool { key, region: Region::pool_in(memory.clone(), chunks, options), memory }
    }

    /// Whether some frames have not come back.
    pub(crate) fn is_out(&self) -> bool {
        self.region.usage().lent > 0
    }
}

impl Deref for Pool {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.region
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.is_out() {
            let Pool { key, region, memory } = self;
            let spare = Spare { key: *key, region: region.clone(), memory: memory.clone() };
            SPARES.with_borrow_mut(|spares| spares.put(spare));
        }
    }
}
