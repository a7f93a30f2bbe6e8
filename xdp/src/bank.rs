//! Regions for channels, carved from the chunks that one socket has registered.
//!
//! What a channel gave back is kept for the next of the same size, as soon as nobody holds a frame of it; when chunks
//! run out, what is kept idle is given up and carved anew.

use std::ops::Range;

use wadjet::buf::{ChunkOptions, Memory, Region, RegionOptions};
use wadjet::transport::ChannelOptions;

/// Bytes before a frame for Ethernet, IP and UDP headers: a whole line, so that frames begin on lines.
pub(crate) const LINK_HEADROOM_BYTES: usize = 64;

/// Chunks that channels take their regions from.
pub(crate) struct Bank {
    memory: Memory,
    chunk_bytes: usize,
    chunks: usize,
    /// By place, none adjacent to another.
    free: Vec<Range<usize>>,
    kept: Vec<Lease>,
}

/// What a channel lends.
pub(crate) struct Lease {
    pub(crate) casts: Region,
    pub(crate) control: Region,
    size: Size,
    chunks: Range<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Size {
    casts: usize,
    control: usize,
    frame_bytes: usize,
}

/// There are not so many chunks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooFew {
    pub(crate) wanted: usize,
    pub(crate) chunks: usize,
}

impl Bank {
    /// Of these chunks of `memory`, which are nobody else's.
    pub(crate) fn new(memory: Memory, chunk_bytes: usize, chunks: Range<usize>) -> Bank {
        Bank { memory, chunk_bytes, chunks: chunks.len(), free: vec![chunks], kept: Vec::new() }
    }

    /// All there are.
    pub(crate) fn chunks(&self) -> usize {
        self.chunks
    }

    /// How many a channel takes.
    pub(crate) fn chunks_for(&self, options: &ChannelOptions) -> usize {
        options.cast_frames.max(1) + options.control_frames.max(1)
    }

    /// Regions of the sizes asked for, used before or new.
    pub(crate) fn take(&mut self, options: &ChannelOptions, frame_bytes: usize) -> Result<Lease, TooFew> {
        let size =
            Size { casts: options.cast_frames.max(1), control: options.control_frames.max(1), frame_bytes };
        if let Some(at) = self.find(size) {
            return Ok(self.kept.swap_remove(at));
        }
        let wanted = size.casts + size.control;
        let chunks = match self.carve(wanted) {
            Some(chunks) => chunks,
            None => {
                self.give_up();
                self.carve(wanted).ok_or(TooFew { wanted, chunks: self.chunks })?
            }
        };
        let pool = |first: usize, frames: usize| {
            let chunks =
                ChunkOptions { offset_bytes: first * self.chunk_bytes, stride_bytes: self.chunk_bytes };
            Region::pool_in(
                self.memory.clone(),
                chunks,
                RegionOptions {
                    frames,
                    link_headroom_bytes: LINK_HEADROOM_BYTES,
                    frame_bytes,
                    reserve_frames: 0,
                    huge_pages: false,
                },
            )
        };
        let (casts, control) =
            (pool(chunks.start, size.casts), pool(chunks.start + size.casts, size.control));
        Ok(Lease { casts, control, size, chunks })
    }

    /// Makes what [`Bank::take`] would have to make, if there is room for it.
    pub(crate) fn prepare(&mut self, options: &ChannelOptions, frame_bytes: usize) {
        // What cannot be had now is an error when it is needed; what is there already is put back.
        if let Ok(lease) = self.take(options, frame_bytes) {
            self.put(lease);
        }
    }

    /// Takes back what a channel had. Frames of it may still be held.
    pub(crate) fn put(&mut self, lease: Lease) {
        self.kept.push(lease);
    }

    fn find(&self, size: Size) -> Option<usize> {
        self.kept.iter().position(|lease| lease.size == size && lease.is_idle())
    }

    /// The first chunks of a row that is long enough.
    fn carve(&mut self, count: usize) -> Option<Range<usize>> {
        let at = self.free.iter().position(|free| free.len() >= count)?;
        let start = self.free[at].start;
        self.free[at].start += count;
        if self.free[at].is_empty() {
            self.free.remove(at);
        }
        Some(start..start + count)
    }

    /// Gives up what is kept and idle.
    fn give_up(&mut self) {
        let (idle, held): (Vec<_>, Vec<_>) = self.kept.drain(..).partition(Lease::is_idle);
        self.kept = held;
        self.free.extend(idle.into_iter().map(|lease| lease.chunks));
        self.free.sort_by_key(|free| free.start);
        self.free.dedup_by(|next, before| {
            let joins = before.end == next.start;
            if joins {
                before.end = next.end;
            }
            joins
        });
    }
}

impl Lease {
    fn is_idle(&self) -> bool {
        self.casts.is_idle() && self.control.is_idle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(cast_frames: usize, control_frames: usize) -> ChannelOptions {
        ChannelOptions { cast_frames, control_frames, receive_frames: 0, frame_bytes: 0, huge_pages: false }
    }

    #[test]
    fn chunks_go_round_and_those_still_held_are_nobody_elses() {
        let memory = Memory::anonymous(40 * 2048, false).unwrap();
        let mut bank = Bank::new(memory.clone(), 2048, 8..40);
        let first = bank.take(&options(10, 6), 1000).unwrap();
        let held = first.casts.take(0).unwrap().freeze();
        bank.put(first);
        // The first is not idle: the second lies elsewhere, and a third finds nothing.
        let second = bank.take(&options(10, 6), 1000).unwrap();
        let base = memory.base().as_ptr() as usize;
        let chunk = |region: &Region| {
            let frame = region.take(0).unwrap().freeze();
            (frame.base().as_ptr() as usize - base) / 2048
        };
        assert_eq!((chunk(&second.casts), chunk(&second.control)), (24, 24 + 10));
        let refused = bank.take(&options(16, 1), 1000).err();
        assert_eq!(refused, Some(TooFew { wanted: 17, chunks: 32 }));
        drop(held);
        // Now it is, and serves again; of another size, the two are carved anew.
        let again = bank.take(&options(10, 6), 1000).unwrap();
        assert_eq!(chunk(&again.casts), 8);
        bank.put(again);
        bank.put(second);
        let all = bank.take(&options(20, 12), 1400).unwrap();
        assert_eq!((all.casts.usage().frames, all.control.usage().frames), (20, 12));
        bank.prepare(&options(1, 1), 1000);
        assert!(bank.take(&options(1, 1), 1000).is_err(), "there is nothing left");
    }
}
