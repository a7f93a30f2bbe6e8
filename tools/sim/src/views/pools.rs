//! Regions are used again: to map and touch memory for every view of every run costs more than the runs themselves.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Deref;

use wadjet::buf::{Region, RegionOptions};

thread_local! {
    static SPARES: RefCell<Spares> = RefCell::default();
}

/// Number of frames, and their length.
type Key = (usize, usize);

#[derive(Default)]
struct Spares {
    /// In the order in which they came back.
    regions: VecDeque<(Key, Region)>,
    /// What their frames take, together.
    bytes: usize,
}

/// Bytes of spares that a thread keeps: what came back longest ago goes first. It is what a simulator that has run for long
/// takes of memory, by thread; the largest worlds take half of it at once.
const SPARE_BYTES_MAX: usize = 192 << 20;

impl Spares {
    fn take(&mut self, key: Key) -> Option<Region> {
        let at = self.regions.iter().rposition(|(of, _)| *of == key)?;
        let (_, region) = self.regions.remove(at)?;
        self.bytes -= key.0 * key.1;
        Some(region)
    }

    fn put(&mut self, key: Key, region: Region) {
        self.regions.push_back((key, region));
        self.bytes += key.0 * key.1;
        while self.bytes > SPARE_BYTES_MAX {
            let Some(((frames, frame_bytes), _)) = self.regions.pop_front() else { return };
            self.bytes -= frames * frame_bytes;
        }
    }
}

/// A region that becomes a spare when it is dropped, if all of its frames have come back.
pub(crate) struct Pool {
    key: Key,
    region: Region,
}

impl Pool {
    /// A region of that many frames, or of the next power of two: there are few sizes, so that spares fit.
    pub(crate) fn of(frames: usize, frame_bytes: usize) -> Pool {
        let frames = frames.next_power_of_two();
        let key = (frames, frame_bytes);
        let spare = SPARES.with_borrow_mut(|spares| spares.take(key));
        let region = spare.unwrap_or_else(|| {
            let options = RegionOptions {
                frames,
                link_headroom_bytes: 0,
                frame_bytes,
                reserve_frames: 0,
                huge_pages: false,
            };
            Region::pool(options).expect("some memory")
        });
        Pool { key, region }
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
            SPARES.with_borrow_mut(|spares| spares.put(self.key, self.region.clone()));
        }
    }
}
