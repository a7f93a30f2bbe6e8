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
}

/// Oldest first.
#[derive(Default)]
pub(super) struct Spares(Vec<Regions>);

impl Spares {
    /// Regions of the sizes asked for, used before or new.
    pub(super) fn take(
        &mut self,
        options: &ChannelOptions,
        frame_bytes: usize,
    ) -> Result<Regions, MemoryError> {
        let size = Size::of(options, frame_bytes);
        match self.find(size) {
            Some(at) => Ok(self.0.remove(at)),
            None => Regions::new(size),
        }
    }

    /// Makes what [`Spares::take`] would have to make.
    pub(super) fn prepare(
        &mut self,
        options: &ChannelOptions,
        frame_bytes: usize,
    ) -> Result<(), MemoryError> {
        let size = Size::of(options, frame_bytes);
        if self.find(size).is_none() {
            self.put(Regions::new(size)?);
        }
        Ok(())
    }

    pub(super) fn put(&mut self, regions: Regions) {
        if self.0.len() == SPARES_MAX {
            self.0.remove(0);
        }
        self.0.push(regions);
    }

    fn find(&self, size: Size) -> Option<usize> {
        let fits = |spare: &Regions| spare.size == size && spare.casts.is_idle() && spare.control.is_idle();
        self.0.iter().position(fits)
    }
}

impl Regions {
    fn new(size: Size) -> Result<Regions, MemoryError> {
        let pool = |frames: usize| {
            Region::pool(RegionOptions {
                frames: frames.max(1),
                link_headroom_bytes: 0,
                frame_bytes: size.frame_bytes,
                reserve_frames: 0,
                huge_pages: size.huge_pages,
            })
        };
        Ok(Regions { casts: pool(size.cast_frames)?, control: pool(size.control_frames)?, size })
    }
}
