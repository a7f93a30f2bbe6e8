//! The two ends of a ring of stamped frames: a writer that publishes, a reader that adopts. Where they are is in
//! [`cursor`](super::cursor); here they meet the bytes.

use crate::buf::{Frame, LINE_BYTES, Memory, Region, RingOptions};
use crate::transport::{ChannelId, Received};

use super::cursor::{ENTRY_START, Follower, LanePublisher, Place, Taken};
use super::stamp::STAMP_BYTES;
use super::sync::AtomicU64;
use super::words::{Geometry, Words};

/// The writer's end of one member's control lane: entries are copied in.
pub(super) struct LaneRing {
    publisher: LanePublisher,
}

impl LaneRing {
    pub(super) fn new(memory: &Memory, geometry: Geometry) -> LaneRing {
        LaneRing { publisher: LanePublisher::new(Words::new(memory, geometry)) }
    }

    /// See [`LanePublisher::limit`].
    pub(super) fn limit(&self) -> u64 {
        self.publisher.limit()
    }

    /// See [`LanePublisher::set_released`].
    pub(super) fn set_released(&mut self, position: u64) -> bool {
        self.publisher.set_released(position)
    }

    /// Whether an entry of `length` bytes fits.
    #[inline]
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.publisher.place(length).is_some()
    }

    /// Copies `head` and `body` in and publishes them, to be read after the casts before position `casts`, which are published;
    /// whether there was room.
    #[inline]
    pub(super) fn push(&mut self, casts: u64, head: &[u8], body: &[u8]) -> bool {
        self.publisher.push(casts, head.len() + body.len(), |words, position| {
            // SAFETY: the entry is inside the ring: one that would wrap begins at the ring's start, and its extent is at
            // most the ring's bytes, as the sum in `LanePublisher::place` shows. No reader reads there: the one there is has
            // released what was before, or keeps no claim to it, and the entry is not published yet. Attacked by
            // `a_full_lane_refuses_and_goes_on` in `tests/shm.rs`.
            unsafe {
                let entry = words.start(position).as_ptr().add(ENTRY_START);
                entry.copy_from_nonoverlapping(head.as_ptr(), head.len());
                entry.add(head.len()).copy_from_nonoverlapping(body.as_ptr(), body.len());
            }
        })
    }
}

/// The reader's end.
pub(super) struct RingReader {
    follower: Follower,
    /// The frames handed out.
    region: Region,
}

impl RingReader {
    /// A reader of a ring in `memory`, mapped read-only, that can have `frames_max` frames out at once.
    pub(super) fn new(memory: &Memory, geometry: Geometry, frames_max: usize) -> RingReader {
        let region = Region::ring(
            memory.clone(),
            RingOptions {
                offset_bytes: geometry.offset,
                ring_bytes: geometry.bytes,
                frames_max,
                link_headroom_bytes: STAMP_BYTES,
                // Nothing is ever taken here, only adopted.
                frame_bytes: LINE_BYTES,
            },
        );
        RingReader { follower: Follower::new(Words::new(memory, geometry)), region }
    }

    /// Whether something is there, or was when last looked at.
    #[inline]
    pub(super) fn ready(&self) -> bool {
        self.follower.ready()
    }

    /// Hands at most `budget` frames of a cast ring to `sink`.
    #[inline]
    pub(super) fn receive(
        &mut self,
        channel: ChannelId,
        budget: usize,
        sink: &mut impl FnMut(Received),
    ) -> Taken {
        self.follower.follow(budget, |place| adopt(&self.region, channel, place), sink)
    }

    /// As [`RingReader::receive`], of a lane: entries whose writer's `casts` before them have been read.
    #[inline]
    pub(super) fn receive_behind(
        &mut self,
        casts: &RingReader,
        channel: ChannelId,
        budget: usize,
        sink: &mut impl FnMut(Received),
    ) -> Taken {
        let hold = |place| adopt(&self.region, channel, place);
        self.follower.follow_behind(&casts.follower, budget, hold, sink)
    }

    /// Reads no further.
    #[cold]
    pub(super) fn give_up(&mut self) -> u64 {
        self.follower.give_up()
    }

    /// Everything before this position has been handed out or skipped.
    #[inline]
    pub(super) fn position(&self) -> u64 {
        self.follower.position()
    }

    /// Everything before this position is not held any more.
    #[inline]
    pub(super) fn released(&self) -> u64 {
        if self.idle() { self.position() } else { self.region.released_bytes() }
    }

    /// Whether no frame is held.
    #[inline]
    pub(super) fn idle(&self) -> bool {
        self.region.all_returned()
    }

    /// How many frames are held.
    pub(super) fn held(&self) -> usize {
        self.region.usage().lent
    }

    pub(super) fn owns(&self, frame: &Frame) -> bool {
        self.region.owns(frame)
    }

    /// See [`Follower::intact`].
    pub(super) fn intact(&self, frame: &Frame, limit: &AtomicU64) -> bool {
        self.follower.intact(frame.position(), frame.start(), frame.end(), limit)
    }
}

/// The frame at `place`; none, if as many are held as can be.
#[inline(always)]
fn adopt(region: &Region, channel: ChannelId, place: Place) -> Option<Received> {
    let Place { position, extent, start, end } = place;
    let frame = region.adopt(position, extent, start, end).ok()?;
    Some(Received { channel, frame, from: start, to: end })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::cursor::{ENTRY_START, Follower, LanePublisher, Place, Publisher, TOGETHER_MAX, Taken};
    use super::super::stamp::{Generations, STAMP_BYTES};
    use super::super::sync::AtomicU64;
    use super::super::words::{Geometry, Words};
    use crate::buf::{LINE_BYTES, Memory};

    const LINE: u64 = LINE_BYTES as u64;
    const RING_BYTES: u64 = 32 * LINE;
    /// Start and end of a frame that takes one line.
    const FRAME: (usize, usize) = (STAMP_BYTES, 40);

    /// One ring's words, for both of its ends.
    fn words() -> (Words, Words) {
        let memory = Memory::anonymous(RING_BYTES as usize, false).unwrap();
        let stamps = Generations { shift: RING_BYTES.trailing_zeros(), seed: 7 };
        let geometry = Geometry { offset: 0, bytes: RING_BYTES as usize, stamps };
        (Words::new(&memory, geometry), Words::new(&memory, geometry))
    }

    fn ends() -> (Publisher, Follower) {
        let (writer, reader) = words();
        (Publisher::new(writer), Follower::new(reader))
    }

    fn put(publisher: &mut Publisher, count: u32) {
        (0..count).for_each(|_| publisher.frame(publisher.stamped(), FRAME.0, FRAME.1));
    }

    fn taken(follower: &mut Follower) -> u32 {
        let mut places = Vec::new();
        assert_eq!(follower.follow(64, Some, |place| places.push(place)).rubbish, 0);
        places.len() as u32
    }

    #[test]
    fn frames_are_found_together_when_they_are_published_and_the_first_does_not_wait_for_many() {
        let (mut publisher, mut follower) = ends();
        put(&mut publisher, 3);
        assert!(!follower.ready() && taken(&mut follower) == 0, "the first is withheld");
        publisher.publish();
        assert_eq!(taken(&mut follower), 3);
        publisher.publish();
        assert_eq!(taken(&mut follower), 0, "each once");
        put(&mut publisher, TOGETHER_MAX + 1);
        assert_eq!(taken(&mut follower), TOGETHER_MAX);
        publisher.publish();
        assert_eq!(taken(&mut follower), 1);
    }

    #[test]
    fn what_is_void_is_withheld_like_a_frame() {
        let (mut publisher, mut follower) = ends();
        publisher.void(publisher.stamped() + 128);
        put(&mut publisher, 1);
        assert!(!follower.ready());
        publisher.publish();
        assert_eq!(taken(&mut follower), 1);
        assert_eq!(follower.position(), publisher.stamped());
    }

    #[test]
    fn who_follows_a_lap_off_finds_rubbish_and_who_follows_a_line_off_nothing() {
        for (off, rubbish) in [(RING_BYTES, 1), (LINE, 0)] {
            let (writer, reader) = words();
            let mut publisher = Publisher::new(writer);
            put(&mut publisher, 1);
            publisher.publish();
            let mut off = Follower::at(reader, off);
            let taken = off.follow(64, Some, |place| panic!("{place:?} is not there"));
            assert_eq!(taken, Taken { frames: 0, rubbish });
        }
    }

    /// What stands in a ring: a frame, of a lane with what it is behind, or what is to be skipped.
    #[derive(Clone, Copy, Debug)]
    enum Item {
        Frame { place: Place, behind: u64 },
        Void { to: u64 },
    }

    /// A ring as its users think of it. Neither stamps nor laps: a queue.
    #[derive(Debug)]
    struct Model {
        waiting: VecDeque<Item>,
        /// Those at the end of them that readers do not find yet.
        withheld: usize,
        end: u64,
        read: u64,
        released: u64,
        /// What was read last.
        newest_read: Option<Place>,
    }

    impl Model {
        fn at(position: u64) -> Model {
            let (waiting, newest_read) = (VecDeque::new(), None);
            Model { waiting, withheld: 0, end: position, read: position, released: position, newest_read }
        }

        /// Where the frame `start..end` goes when so many lines are left out before it; none without room for it.
        fn place(&self, skipped: u64, start: usize, end: usize) -> Option<Place> {
            let extent = (end + 16).next_multiple_of(LINE_BYTES);
            let mut position = self.end + skipped * LINE;
            if position / RING_BYTES != (position + extent as u64 - 1) / RING_BYTES {
                position = position.next_multiple_of(RING_BYTES);
            }
            let fits = position + extent as u64 + LINE <= self.released + RING_BYTES;
            fits.then_some(Place { position, extent, start, end })
        }

        fn put(&mut self, place: Place, behind: u64) {
            if place.position > self.end {
                self.stamp(Item::Void { to: place.position });
            }
            self.stamp(Item::Frame { place, behind });
            self.end = place.position + place.extent as u64;
        }

        fn stamp(&mut self, item: Item) {
            self.waiting.push_back(item);
            self.withheld += 1;
            if self.withheld == 16 {
                self.withheld = 0;
            }
        }

        fn ready(&self) -> bool {
            self.waiting.len() > self.withheld
        }

        /// The next `budget` frames, which are behind nothing that lies after `casts`.
        fn take(&mut self, budget: usize, casts: u64) -> Vec<Place> {
            let mut places = Vec::new();
            for _ in 0..budget + 4 {
                if places.len() == budget || !self.ready() {
                    break;
                }
                match self.waiting[0] {
                    Item::Frame { behind, .. } if behind > casts => break,
                    Item::Frame { place, .. } => {
                        self.read = place.position + place.extent as u64;
                        places.push(place);
                    }
                    Item::Void { to } => self.read = to,
                }
                self.waiting.pop_front();
            }
            self.newest_read = places.last().copied().or(self.newest_read);
            places
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Cast { skipped: u64, start: usize, length: usize },
        Publish,
        ReadCasts { budget: usize },
        ReleaseCasts,
        Entry { length: usize },
        ReadLane { budget: usize },
        ReleaseLane,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (prop_oneof![4 => Just(0), 1 => 1..3_u64], STAMP_BYTES..24, prop_oneof![3 => Just(8_usize), 1 => 0..200_usize])
                .prop_map(|(skipped, start, length)| Step::Cast { skipped, start, length }),
            3 => Just(Step::Publish),
            4 => (0..8_usize).prop_map(|budget| Step::ReadCasts { budget }),
            3 => Just(Step::ReleaseCasts),
            4 => (0..200_usize).prop_map(|length| Step::Entry { length }),
            4 => (0..4_usize).prop_map(|budget| Step::ReadLane { budget }),
            3 => Just(Step::ReleaseLane),
        ]
    }

    /// Where rings begin: as they do, where generations begin anew, and so that positions end before they overflow.
    fn begin() -> impl Strategy<Value = u64> {
        let generations = (1_u64 << 28) * RING_BYTES;
        prop_oneof![Just(0), Just(generations - 9 * RING_BYTES - 3 * LINE), Just(LAST - 12 * RING_BYTES)]
    }

    /// Nothing is written from here on: what follows must be below the greatest position.
    const LAST: u64 = u64::MAX - 2 * RING_BYTES + 1;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_ends_of_casts_and_of_a_lane_do_as_queues_do(
            begin in begin(),
            steps in prop::collection::vec(step(), 1..400),
        ) {
            let ((writer, reader), (lane_writer, lane_reader)) = (words(), words());
            let (mut publisher, mut casts) = (Publisher::at(writer, begin), Follower::at(reader, begin));
            let (mut lane, mut entries) = (LanePublisher::at(lane_writer, begin), Follower::at(lane_reader, begin));
            let (mut casts_model, mut lane_model) = (Model::at(begin), Model::at(begin));
            for step in steps {
                match step {
                    Step::Cast { skipped, start, length } => {
                        let place = casts_model.place(skipped, start, start + length);
                        if let Some(place) = place.filter(|_| casts_model.end < LAST) {
                            publisher.frame(place.position, start, start + length);
                            casts_model.put(place, 0);
                        }
                    }
                    Step::Publish => {
                        publisher.publish();
                        casts_model.withheld = 0;
                    }
                    Step::ReadCasts { budget } => {
                        let mut places = Vec::new();
                        let taken = casts.follow(budget, Some, |place| places.push(place));
                        prop_assert_eq!(&places, &casts_model.take(budget, u64::MAX));
                        prop_assert_eq!(taken, Taken { frames: places.len(), rubbish: 0 });
                    }
                    Step::ReleaseCasts => casts_model.released = casts_model.read,
                    Step::Entry { length } => {
                        let place = lane_model.place(0, ENTRY_START, ENTRY_START + length);
                        prop_assert_eq!(lane.place(length), place.map(|place| place.position));
                        if let Some(place) = place.filter(|_| lane_model.end < LAST) {
                            // What it is behind is published first.
                            publisher.publish();
                            casts_model.withheld = 0;
                            let mut written_at = None;
                            let written = lane.push(publisher.stamped(), length, |_, position| written_at = Some(position));
                            prop_assert!(written && written_at == Some(place.position));
                            lane_model.put(place, casts_model.end);
                            lane_model.withheld = 0;
                        }
                    }
                    Step::ReadLane { budget } => {
                        let mut places = Vec::new();
                        let taken = entries.follow_behind(&casts, budget, Some, |place| places.push(place));
                        prop_assert_eq!(&places, &lane_model.take(budget, casts_model.read));
                        prop_assert_eq!(taken, Taken { frames: places.len(), rubbish: 0 });
                    }
                    Step::ReleaseLane => {
                        let news = lane_model.released < lane_model.read;
                        prop_assert_eq!(lane.set_released(entries.position()), news);
                        lane_model.released = lane_model.read;
                    }
                }
                prop_assert_eq!((publisher.stamped(), casts.position()), (casts_model.end, casts_model.read));
                prop_assert_eq!(entries.position(), lane_model.read);
                prop_assert_eq!(lane.limit(), lane_model.released + RING_BYTES);
                prop_assert_eq!((casts.ready(), entries.ready()), (casts_model.ready(), lane_model.ready()));
                // What has not been released has not been overwritten, and says so; of the rest nobody can say that.
                for (follower, model) in [(&casts, &casts_model), (&entries, &lane_model)] {
                    if let Some(Place { position, start, end, .. }) = model.newest_read {
                        let limit = AtomicU64::new(model.released + RING_BYTES);
                        prop_assert_eq!(follower.intact(position, start, end, &limit), position >= model.released);
                    }
                }
            }
        }
    }
}
