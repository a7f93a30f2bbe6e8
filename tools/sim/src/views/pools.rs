//! Regions are used again: to map and touch memory for every view of every run costs more than the runs themselves.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;

use wadjet::buf::{Region, RegionOptions};

thread_local! {
    static SPARES: RefCell<Spares> = RefCell::default();
}

/// By number of frames and their length.
#[derive(Default)]
struct Spares {
    regions: HashMap<(usize, usize), Vec<Region>>,
    /// What their frames take, together.
    bytes: usize,
}

/// Bytes of spares that a thread keeps.
const SPARE_BYTES_MAX: usize = 384 << 20;

/// A region that becomes a spare when it is dropped, if all of its frames have come back.
pub(crate) struct Pool {
    key: (usize, usize),
    region: Region,
}

impl Pool {
    /// A region of that many frames, or of the next power of two: there are few sizes, so that spares fit.
    pub(crate) fn of(frames: usize, frame_bytes: usize) -> Pool {
        let frames = frames.next_power_of_two();
        let key = (frames, frame_bytes);
        let spare = SPARES.with_borrow_mut(|spares| {
            let spare = spares.regions.get_mut(&key).and_then(Vec::pop);
            spares.bytes -= spare.as_ref().map_or(0, |_| frames * frame_bytes);
            spare
        });
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
            SPARES.with_borrow_mut(|spares| {
                let bytes = self.key.0 * self.key.1;
                if spares.bytes + bytes <= SPARE_BYTES_MAX {
                    spares.bytes += bytes;
                    spares.regions.entry(self.key).or_default().push(self.region.clone());
                }
            });
        }
    }
}
