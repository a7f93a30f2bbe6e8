//! The control lanes of a segment: one ring per other member, which it alone reads.
//!
//! One ring for all would be reused only as fast as the slowest reads; to let the others go on, the writer would have
//! to overwrite what that one has not read, in place, perhaps while it is reading. So each member has a ring of its own,
//! and what does not fit the lane of a member that has stopped is not written at all: what was written stays whole, and
//! what is missing is missing at the end, as with a full socket. Layers repair that as they do over a network.

use std::time::{Duration, Instant};

use crate::id::Rank;
use crate::transport::Destination;

use super::cursor::tell_limit;
use super::ring::LaneRing;
use super::segment::{Cursor, Segment};

/// The lanes to all other members, by rank.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    own: Rank,
}

/// The lane to one member.
pub(super) struct Lane {
    ring: LaneRing,
    rank: Rank,
    reader: Reader,
    /// The newest entry is read after the casts before this position; and how many of those had been read, when last looked at.
    behind: u64,
    casts_read: u64,
}

/// How far a lane's reader has come, as it tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Everything before this position of the casts has been read.
    pub(super) casts_read: u64,
    /// Everything before this position of the lane has been released.
    pub(super) released: u64,
}

/// What is known of a lane's reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// It reads.
    Follows,
    /// Its lane has been full since then: submissions are refused meanwhile.
    WaitedFor(Instant),
    /// It has read nothing for [`PATIENCE`] while its lane was full, nor any of the casts before what is there: what is for it is
    /// lost until it reads again.
    Stopped,
    /// Nothing is for it any more.
    Excluded,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Write it.
    Free,
    /// Give it back to its sender: the reader will make room.
    Soon,
    /// Leave it out, for this reader; whether that is a loss.
    Never { lost: bool },
}

/// A full lane refuses frames for so long, if its reader reads nothing at all; then it loses them. Longer than a
/// living reader's usual absences from its core, much shorter than any time after which a member is suspected.
pub(super) const PATIENCE: Duration = Duration::from_millis(2);

impl Lanes {
    /// The lanes of `segment`, whose owner is the member at `own` of `members`.
    pub(super) fn new(segment: &Segment, own: Rank, members: usize) -> Lanes {
        let others = (0..members).map(Rank::at).filter(|rank| *rank != own);
        let lane = |rank: Rank| Lane {
            ring: LaneRing::new(segment.memory(), segment.lane(rank)),
            rank,
            reader: Reader::Follows,
            behind: 0,
            casts_read: 0,
        };
        let mut lanes: Vec<Lane> = others.map(lane).collect();
        lanes.iter_mut().for_each(|lane| lane.tell_limit(segment));
        Lanes { lanes, own }
    }

    /// The lanes to those that `to` names, and perhaps others: [`Lane::is_for`] tells.
    #[inline]
    pub(super) fn towards(&mut self, to: &Destination) -> &mut [Lane] {
        match to {
            Destination::All | Destination::Some(_) => &mut self.lanes,
            Destination::One(rank) if *rank == self.own => &mut [],
            Destination::One(rank) => {
                let index = rank.index() - usize::from(*rank > self.own);
                self.lanes.get_mut(index..=index).unwrap_or_default()
            }
        }
    }

    /// Nothing goes to the member any more.
    pub(super) fn exclude(&mut self, rank: Rank) {
        for lane in self.towards(&Destination::One(rank)) {
            lane.reader = Reader::Excluded;
        }
    }
}

impl Lane {
    #[inline]
    pub(super) fn is_for(&self, to: &Destination) -> bool {
        match to {
            Destination::Some(ranks) => ranks.contains(self.rank),
            Destination::All | Destination::One(_) => true,
        }
    }

    pub(super) fn rank(&self) -> Rank {
        self.rank
    }

    /// Whether an entry of `length` bytes fits, as far as is known.
    #[inline]
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.reader != Reader::Excluded && self.ring.has_room(length)
    }

    /// Whether an entry of `length` bytes fits, now that the reader has come so far.
    #[cold]
    pub(super) fn make_room(&mut self, length: usize, progress: Progress, own: &Segment) -> Room {
        if self.reader == Reader::Excluded {
            return Room::Never { lost: false };
        }
        // It reads the casts before what is in its lane, and then that.
        let casts_read = progress.casts_read.min(self.behind);
        if casts_read > self.casts_read {
            self.casts_read = casts_read;
            self.reader = Reader::Follows;
        }
        if self.ring.set_released(progress.released) {
            self.reader = Reader::Follows;
            self.tell_limit(own);
        }
        if self.ring.has_room(length) {
            return Room::Free;
        }
        match self.reader {
            Reader::Follows => self.reader = Reader::WaitedFor(Instant::now()),
            Reader::WaitedFor(since) if since.elapsed() >= PATIENCE => self.reader = Reader::Stopped,
            _ => {}
        }
        if self.reader == Reader::Stopped { Room::Never { lost: true } } else { Room::Soon }
    }

    /// Writes an entry that is read after the casts before position `casts`, which are published; whether there was room.
    #[inline]
    pub(super) fn push(&mut self, casts: u64, head: &[u8], body: &[u8]) -> bool {
        let written = self.reader != Reader::Excluded && self.ring.push(casts, head, body);
        if written {
            self.behind = casts;
        }
        written
    }

    /// Says, before anything is written there, below which position this member may write.
    fn tell_limit(&mut self, own: &Segment) {
        tell_limit(own.cursor(self.rank, Cursor::LaneLimit), self.ring.limit());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::segment::Closed;
    use super::*;
    use crate::id::{GroupId, Incarnation, ViewId};
    use crate::transport::shm::owner::Owner;
    use crate::transport::shm::segment::Sizes;
    use crate::transport::shm::stock::Stock;
    use crate::view::{Address, LocalView, Member, View};

    const LANE_BYTES: usize = 1 << 14;
    /// With what a lane adds, two cache lines.
    const ENTRY: [u8; 92] = [7; 92];

    /// The first member's segment in a view of three, and its lanes.
    fn lanes(group: &str) -> (Segment, Lanes) {
        let member = |n| Member { incarnation: Incarnation(n), address: Address(format!("m{n}")) };
        let view = View {
            group: GroupId::named(&format!("{group} {}", std::process::id())),
            id: ViewId { counter: 1, coordinator: Incarnation(0) },
            members: (0..3).map(member).collect(),
            spec: String::new(),
            wire_version: 1,
            salt: 0,
            frame_bytes: 0,
        };
        let view = LocalView::new(view, Incarnation(0)).unwrap();
        let sizes = Sizes { cast_bytes: 1 << 14, lane_bytes: LANE_BYTES, frames_max: 16 };
        let here = Owner::this_process();
        let segment = Segment::create(Path::new("/dev/shm"), &view, sizes, &here, &mut Stock::new()).unwrap();
        let lanes = Lanes::new(&segment, Rank(0), 3);
        (segment, lanes)
    }

    fn lane(lanes: &mut Lanes, rank: u16) -> &mut Lane {
        &mut lanes.towards(&Destination::One(Rank(rank)))[0]
    }

    /// A reader that has released everything before this position, of no casts.
    fn read(released: u64) -> Progress {
        Progress { casts_read: 0, released }
    }

    fn fill(lane: &mut Lane) {
        while lane.has_room(ENTRY.len()) {
            assert!(lane.push(0, &ENTRY, &[]));
        }
    }

    /// Asks for room until the answer is another than `Soon`; how long that took.
    fn ask(lane: &mut Lane, released: u64, segment: &Segment) -> (Room, Duration) {
        let begun = Instant::now();
        loop {
            let room = lane.make_room(ENTRY.len(), read(released), segment);
            if room != Room::Soon {
                return (room, begun.elapsed());
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "a full lane refuses for ever");
        }
    }

    #[test]
    fn a_reader_that_stops_is_waited_for_once_and_then_loses_until_it_reads_again() {
        let (segment, mut lanes) = lanes("throttle");
        let slow = lane(&mut lanes, 1);
        fill(slow);
        assert!(!slow.push(0, &ENTRY, &[]), "nothing is overwritten");
        assert_eq!(slow.make_room(ENTRY.len(), read(0), &segment), Room::Soon, "it may only be busy");
        let (room, waited) = ask(slow, 0, &segment);
        assert_eq!(room, Room::Never { lost: true });
        assert!(waited + Duration::from_micros(500) >= PATIENCE, "{waited:?}");
        // From now on nobody waits for it: a sender that had to wait each time would be held to its pace.
        for _ in 0..1000 {
            assert_eq!(slow.make_room(ENTRY.len(), read(0), &segment), Room::Never { lost: true });
        }
        // The other reader's lane knows nothing of it.
        let other = lane(&mut lanes, 2);
        assert!(other.has_room(ENTRY.len()) && other.push(0, &ENTRY, &[]));
        // It reads again, and is waited for again.
        let slow = lane(&mut lanes, 1);
        let released = LANE_BYTES as u64 / 2;
        assert_eq!(slow.make_room(ENTRY.len(), read(released), &segment), Room::Free);
        let limit = segment.cursor(Rank(1), Cursor::LaneLimit).load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(limit, released + LANE_BYTES as u64, "it is told what may be overwritten");
        fill(slow);
        assert_eq!(slow.make_room(ENTRY.len(), read(released), &segment), Room::Soon);
        segment.close(Closed::Transport);
    }

    #[test]
    fn a_reader_that_reads_however_slowly_is_waited_for_and_loses_nothing() {
        let (segment, mut lanes) = lanes("slow");
        let slow = lane(&mut lanes, 1);
        fill(slow);
        let mut released = 0;
        for _ in 0..8 {
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE / 4 {
                let room = slow.make_room(ENTRY.len(), read(released), &segment);
                // This thread may have slept for longer than its patience.
                assert!(room == Room::Soon || begun.elapsed() >= PATIENCE, "{room:?}");
            }
            // One entry: its patience begins anew.
            released += 128;
            assert_eq!(slow.make_room(ENTRY.len(), read(released), &segment), Room::Free);
            assert!(slow.push(0, &ENTRY, &[]));
        }
        segment.close(Closed::Transport);
    }

    #[test]
    fn a_reader_that_reads_the_casts_before_what_is_in_its_lane_is_waited_for_as_long_as_that_takes() {
        const CASTS: u64 = 8 * 64;
        let (segment, mut lanes) = lanes("behind");
        let slow = lane(&mut lanes, 1);
        while slow.has_room(ENTRY.len()) {
            assert!(slow.push(CASTS, &ENTRY, &[]));
        }
        let (room, _) = ask(slow, 0, &segment);
        assert_eq!(room, Room::Never { lost: true }, "it has read neither");
        for read in (64..=CASTS).step_by(64) {
            let progress = Progress { casts_read: read, released: 0 };
            assert_eq!(slow.make_room(ENTRY.len(), progress, &segment), Room::Soon, "{read}");
        }
        // All of them are read: what it says of more is no reason to wait, for its lane is next.
        let mut casts_read = CASTS;
        let begun = Instant::now();
        let room = loop {
            casts_read += 64;
            let room = slow.make_room(ENTRY.len(), Progress { casts_read, released: 0 }, &segment);
            if room != Room::Soon {
                break room;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "a full lane refuses for ever");
        };
        assert_eq!(room, Room::Never { lost: true });
        segment.close(Closed::Transport);
    }

    #[test]
    fn who_is_excluded_is_not_waited_for_and_what_a_hostile_reader_says_is_bounded() {
        let (segment, mut lanes) = lanes("excluded");
        fill(lane(&mut lanes, 1));
        lanes.exclude(Rank(1));
        let gone = lane(&mut lanes, 1);
        assert_eq!(gone.make_room(ENTRY.len(), read(0), &segment), Room::Never { lost: false });
        assert!(!gone.push(0, &ENTRY, &[]));
        let other = lane(&mut lanes, 2);
        fill(other);
        // More than was ever written has been released, it says.
        assert_eq!(other.make_room(ENTRY.len(), read(u64::MAX), &segment), Room::Free);
        fill(other);
        let limit = segment.cursor(Rank(2), Cursor::LaneLimit).load(std::sync::atomic::Ordering::Relaxed);
        assert!(limit <= 2 * LANE_BYTES as u64, "{limit}");
        segment.close(Closed::Transport);
    }
}
