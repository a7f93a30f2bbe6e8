//! Regions are used again: to map and touch memory for every view of every run costs more than the runs themselves.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;

use wadjet::buf::{Region, RegionOptions};

thread_local! {
    static SPARES: RefCell<HashMap<(usize, usize), Vec<Region>>> = RefCell::default();
}

/// Spares of one size that are kept.
const SPARES_MAX: usize = 64;

/// A region that becomes a spare when it is dropped, if all of its frames have come back.
pub(crate) struct Pool {
    key: (usize, usize),
    region: Region,
}

impl Pool {
    /// A region of that many frames.
    pub(crate) fn of(frames: usize, frame_bytes: usize) -> Pool {
        let key = (frames, frame_bytes);
        let spare = SPARES.with_borrow_mut(|spares| spares.get_mut(&key).and_then(Vec::pop));
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
                let spares = spares.entry(self.key).or_default();
                if spares.len() < SPARES_MAX {
                    spares.push(self.region.clone());
                }
            });
        }
    }
}
