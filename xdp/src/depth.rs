//! How many frames wait in the fill ring for what comes.
//!
//! The system fills them in the order in which it got them, so that each is touched again only after all the others.
//! Many of them ride out a burst that comes while nobody looks, but where frames come one by one they are memory that
//! is never in a cache. So they are few while this member answers what comes and finds little when it looks: who waits
//! for answers sends no bursts. In a stream, after a burst, and while nobody looks, there are as many as may be.

/// How many frames wait, between [`LEAST`] and the most there may be.
#[derive(Debug)]
pub(crate) struct Depth {
    frames: usize,
    most: usize,
    /// Looks that found few, one after the other, and how many of them make it shallower.
    quiet: u32,
    patience: u32,
    /// What these looks found, and what had been sent before them.
    found: u64,
    sent_before: u64,
}

/// What one sender sends in 100 us, in which a member that looks all the time may be kept from looking.
const LEAST: usize = 128;
/// A look that finds this part of the frames filled calls for more.
const MANY: usize = 4;
/// If looks find fewer than this, fewer will do: an answer of each of some, and not the frames of a stream whose looks are short.
const FEW: usize = 8;
/// After so many looks that found something, but little, fewer will do; the first time, and after many bursts: frames that
/// come one by one while a core is the member's own come all at once while it is not.
const QUIET: u32 = 4096;
const QUIET_MAX: u32 = 1 << 20;

impl Depth {
    /// As deep as may be: nobody knows yet what comes.
    pub(crate) fn new(most: usize) -> Depth {
        Depth { frames: most, most, quiet: 0, patience: QUIET, found: 0, sent_before: 0 }
    }

    /// So many frames are to wait.
    #[inline]
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// A look has found so many frames filled, at least one, whether it took them or not; `sent` have been sent since the
    /// beginning.
    #[inline]
    pub(crate) fn found(&mut self, frames: usize, sent: u64) {
        if self.quiet == 0 {
            (self.found, self.sent_before) = (0, sent);
        }
        self.found += frames as u64;
        if frames >= FEW {
            self.quiet = 0;
            if frames * MANY >= self.frames && self.frames < self.most {
                self.frames = (self.frames * MANY).min(self.most);
                self.patience = (2 * self.patience).min(QUIET_MAX);
            }
            return;
        }
        self.quiet += 1;
        if self.quiet == self.patience {
            self.quiet = 0;
            if 2 * (sent - self.sent_before) >= self.found {
                self.frames = (self.frames / MANY).max(LEAST).min(self.most);
            }
        }
    }

    /// Nobody looks for a while: whatever comes is to find room.
    pub(crate) fn deepen(&mut self) {
        self.frames = self.most;
        self.quiet = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks that find one frame each, and what is sent meanwhile.
    fn quiet(depth: &mut Depth, looks: u32, answers: impl Fn(u64) -> u64) {
        (0..looks).for_each(|look| depth.found(1, answers(look.into())));
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_no_look_finds_more_than_a_quarter_and_leaves_it_there(
            most in 1_usize..5000,
            looks in prop::collection::vec((1_usize..3000, 0_u64..3, 1_u32..3 * QUIET), 1..20),
        ) {
            let (mut depth, mut sent) = (Depth::new(most), 0);
            for (found, answers, times) in looks {
                for _ in 0..times {
                    let before = depth.frames();
                    let found = found.min(before);
                    depth.found(found, sent);
                    sent += answers;
                    prop_assert!((LEAST.min(most)..=most).contains(&depth.frames()));
                    prop_assert!(MANY * found < before || depth.frames() == most.min(MANY * before));
                }
            }
        }
    }

    #[test]
    fn who_answers_frames_that_come_one_by_one_has_few_and_after_a_burst_many_for_longer_each_time() {
        let mut depth = Depth::new(2048);
        quiet(&mut depth, 2 * QUIET, |look| look);
        assert_eq!(depth.frames(), LEAST);
        // One in a while that finds more keeps what there is.
        depth.found(FEW, 0);
        assert_eq!(depth.frames(), LEAST);
        depth.found(LEAST / MANY, 0);
        assert_eq!(depth.frames(), MANY * LEAST);
        depth.found(LEAST, 0);
        assert_eq!(depth.frames(), 2048);
        quiet(&mut depth, 4 * QUIET - 1, |look| look);
        assert_eq!(depth.frames(), 2048);
        quiet(&mut depth, 4 * QUIET + 1, |look| look + u64::from(4 * QUIET));
        assert_eq!(depth.frames(), LEAST);
        depth.deepen();
        assert_eq!(depth.frames(), 2048);
    }

    #[test]
    fn streams_both_ways_keep_all_however_short_the_looks_are_beside_what_waits() {
        let mut depth = Depth::new(2048);
        for look in 0..u64::from(64 * QUIET) {
            depth.found(if look % 1000 == 0 { FEW } else { 1 }, look);
        }
        assert_eq!(depth.frames(), 2048);
    }

    #[test]
    fn a_stream_that_nobody_answers_keeps_all_however_few_are_found_at_a_time() {
        let mut depth = Depth::new(2048);
        quiet(&mut depth, 64 * QUIET, |look| look / 3);
        assert_eq!(depth.frames(), 2048);
    }
}
