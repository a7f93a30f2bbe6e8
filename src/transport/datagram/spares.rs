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
    pub(super) long: Option<Region>,
    size: Size,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Size {
    cast_frames: usize,
    control_frames: usize,
    lengths: Lengths,
    huge_pages: bool,
}

/// The longest frames of a channel, in bytes; the longer ones to single members, if there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) frame: usize,
    pub(super) long: Option<usize>,
}

/// Long frames of a channel. They go out and are acknowledged soon, and all of them together stay in the cache.
pub(super) const LONG_FRAMES: usize = 32;

impl Size {
    fn of(options: &ChannelOptions, lengths: Lengths) -> Size {
        let &ChannelOptions { cast_frames, control_frames, huge_pages, .. } = options;
        Size { cast_frames, control_frames, lengths, huge_pages }
    }

    fn regions(self, untouched: &mut Untouched) -> Result<Regions, MemoryError> {
        let Lengths { frame, long } = self.lengths;
        let casts = self.region(self.cast_frames, frame)?;
        let control = self.region(self.control_frames, frame)?;
        let long = long.map(|bytes| self.region(LONG_FRAMES, bytes)).transpose()?;
        let all = [Some(&casts), Some(&control), long.as_ref()];
        all.into_iter().flatten().for_each(|region| untouched.push(region.memory().clone()));
        Ok(Regions { casts, control, long, size: self })
    }

    fn region(self, frames: usize, frame_bytes: usize) -> Result<Region, MemoryError> {
        Region::pool_untouched(RegionOptions {
            frames: frames.max(1),
            link_headroom_bytes: 0,
            frame_bytes,
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
        lengths: Lengths,
        untouched: &mut Untouched,
    ) -> Result<Regions, MemoryError> {
        let size = Size::of(options, lengths);
        match self.find(size) {
            Some(at) => Ok(self.made.remove(at)),
            None => size.regions(untouched),
        }
    }

    /// Makes what [`Spares::take`] would have to make.
    pub(super) fn prepare(
        &mut self,
        options: &ChannelOptions,
        lengths: Lengths,
        untouched: &mut Untouched,
    ) -> Result<(), MemoryError> {
        let size = Size::of(options, lengths);
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
        let idle = |Regions { casts, control, long, .. }: &Regions| {
            casts.is_idle() && control.is_idle() && long.as_ref().is_none_or(Region::is_idle)
        };
        self.made.iter().position(|spare| spare.size == size && idle(spare))
    }
}
