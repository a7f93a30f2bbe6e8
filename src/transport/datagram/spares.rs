//! Regions of closed channels, kept for the next: touching new ones takes milliseconds. What frames of a closed channel
//! somebody still holds keep their region from being used again until they come back.

use crate::buf::{MemoryError, Region, RegionOptions};
use crate::transport::ChannelOptions;
use crate::transport::untouched::Untouched;

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

    fn regions(self, untouched: &mut Untouched) -> Result<Regions, MemoryError> {
        let casts = self.region(self.cast_frames)?;
        let control = self.region(self.control_frames)?;
        [&casts, &control].into_iter().for_each(|region| untouched.push(region.memory().clone()));
        Ok(Regions { casts, control, size: self })
    }

    fn region(self, frames: usize) -> Result<Region, MemoryError> {
        Region::pool_untouched(RegionOptions {
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
}

impl Spares {
    /// Regions of the sizes asked for, used before or new.
    pub(super) fn take(
        &mut self,
        options: &ChannelOptions,
        frame_bytes: usize,
        untouched: &mut Untouched,
    ) -> Result<Regions, MemoryError> {
        let size = Size::of(options, frame_bytes);
        match self.find(size) {
            Some(at) => Ok(self.made.remove(at)),
            None => size.regions(untouched),
        }
    }

    /// Makes what [`Spares::take`] would have to make.
    pub(super) fn prepare(
        &mut self,
        options: &ChannelOptions,
        frame_bytes: usize,
        untouched: &mut Untouched,
    ) -> Result<(), MemoryError> {
        let size = Size::of(options, frame_bytes);
        if self.find(size).is_none() {
            self.put(size.regions(untouched)?);
        }
        Ok(())
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
