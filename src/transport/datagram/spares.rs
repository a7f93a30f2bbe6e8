//! Regions of closed channels, kept for the next: making and touching them takes milliseconds, and a group is blocked
//! while its next view opens. What frames of a closed channel somebody still holds keep their region from being used
//! again until they come back.

use crate::buf::{MemoryError, Region, RegionOptions};
use crate::transport::ChannelOptions;

/// Spares kept, those included that are not back yet: a group that changes views needs one beside the one in use.
const SPARES_MAX: usize = 4;

/// What a channel lends.
pub(super) struct Regions {
    pub(super) casts: Region,
    pub(super) control: Region,
    size: Size,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Size {
    cast_frames: usize,
    control_frames: usize,
    frame_bytes: usize,
    huge_pages: bool,
}

impl Size {
    fn of(options: &ChannelOptions, frame_bytes: usize) -> Size {
        let &ChannelOptions { cast_frames, control_frames, huge_pages, .. } = options;
        Size { cast_frames, control_frames, frame_bytes, huge_pages }
    }

    fn region(self, frames: usize) -> Result<Region, MemoryError> {
        Region::pool(RegionOptions {
            frames: frames.max(1),
            link_headroom_bytes: 0,
            frame_bytes: self.frame_bytes,
            reserve_frames: 0,
            huge_pages: self.huge_pages,
        })
    }
}

#[derive(Default)]
pub(super) struct Spares {
    /// Oldest first.
    made: Vec<Regions>,
    /// The first region of the next.
    begun: Option<(Size, Region)>,
}

impl Spares {
    /// Regions of the sizes asked for, used before or new.
    pub(super) fn take(
        &mut self,
        options: &ChannelOptions,
        frame_bytes: usize,
    ) -> Result<Regions, MemoryError> {
        let size = Size::of(options, frame_bytes);
        match self.find(size) {
            Some(at) => Ok(self.made.remove(at)),
            None => {
                while self.prepare(options, frame_bytes)? {}
                Ok(self.made.pop().expect("just made"))
            }
        }
    }

    /// Makes a part of what [`Spares::take`] would have to make; whether something is left.
    pub(super) fn prepare(
        &mut self,
        options: &ChannelOptions,
        frame_bytes: usize,
    ) -> Result<bool, MemoryError> {
        let size = Size::of(options, frame_bytes);
        if self.find(size).is_some() {
            return Ok(false);
        }
        match self.begun.take_if(|(begun, _)| *begun == size) {
            Some((_, casts)) => {
                let control = size.region(size.control_frames)?;
                self.put(Regions { casts, control, size });
                Ok(false)
            }
            None => {
                self.begun = Some((size, size.region(size.cast_frames)?));
                Ok(true)
            }
        }
    }

    pub(super) fn put(&mut self, regions: Regions) {
        if self.made.len() == SPARES_MAX {
            self.made.remove(0);
        }
        self.made.push(regions);
    }

    fn find(&self, size: Size) -> Option<usize> {
        let fits = |spare: &Regions| spare.size == size && spare.casts.is_idle() && spare.control.is_idle();
        self.made.iter().position(fits)
    }
}
