//! The control lanes of a segment: one ring per other member, which it alone reads.
//!
//! One ring for all would be reused only as fast as the slowest reads; to let the others go on, the writer would have
//! to overwrite what that one has not read, in place, perhaps while it is reading. So each member has a ring of its own,
//! and what does not fit the lane of a member that has stopped is not written at all: what was written stays whole, and
//! what is missing is missing at the end, as with a full socket. Layers repair that as they do over a network.

use std::time::{Duration, Instant};

use crate::id::Rank;
use crate::transport::Destination;

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
}

/// What is known of a lane's reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// It reads.
    Follows,
    /// Its lane has been full since then: submissions are refused meanwhile.
    WaitedFor(Instant),
    /// It has read nothing for [`PATIENCE`] while its lane was full: what is for it is lost until it reads again.
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
        self.reader != Reader::Excluded && self.ring.place(length).is_some()
    }

    /// Whether an entry of `length` bytes fits, now that the reader has released everything before `released`.
    #[cold]
    pub(super) fn make_room(&mut self, length: usize, released: u64, own: &Segment) -> Room {
        if self.reader == Reader::Excluded {
            return Room::Never { lost: false };
        }
        if self.ring.set_released(released) {
            self.reader = Reader::Follows;
            self.tell_limit(own);
        }
        if self.ring.place(length).is_some() {
            return Room::Free;
        }
        match self.reader {
            Reader::Follows => self.reader = Reader::WaitedFor(Instant::now()),
            Reader::WaitedFor(since) if since.elapsed() >= PATIENCE => self.reader = Reader::Stopped,
            _ => {}
        }
        if self.reader == Reader::Stopped { Room::Never { lost: true } } else { Room::Soon }
    }

    /// Writes an entry; whether there was room.
    #[inline]
    pub(super) fn push(&mut self, head: &[u8], body: &[u8]) -> bool {
        self.reader != Reader::Excluded && self.ring.push(head, body)
    }

    /// Says, before anything is written there, below which position this member may write.
    fn tell_limit(&mut self, own: &Segment) {
        own.set_limit(own.cursor(self.rank, Cursor::LaneLimit), self.ring.limit());
    }
}
