//! One view's channel: the own segment, and those of the others as far as they are there.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::buf::{
    Frame, LINE_BYTES, Memory, Region, RegionOptions, RingOptions, TAILROOM_BYTES, whole_lines,
};
use crate::id::{Rank, RankSet};
use crate::transport::{
    Channel, ChannelId, ChannelOptions, Full, Received, Transmit, TransportCounters, TransportError,
};
use crate::view::LocalView;

use super::bell::ring;
use super::cursor::{ENTRY_START, Publisher, Taken, released_by, tell_limit, tell_released};
use super::hindrance::Hindrances;
use super::lanes::{Lanes, Progress, Room};
use super::owner::{ASK_CALLS, Owner, Seen};
use super::ring::RingReader;
use super::segment::{Attach, Closed, Cursor, FRAMES_MAX, PeerSegment, Segment, Sizes, Word, total_bytes};
use super::stamp::{STAMP_BYTES, START_MAX};
use super::stock::Stock;
use super::words::Words;
use super::{FRAME_BYTES_MAX, ShmOptions};

/// An open channel.
pub(super) struct Open {
    id: ChannelId,
    view: LocalView,
    segment: Segment,
    casts: Region,
    out: Publisher,
    lanes: Lanes,
    /// Bytes of the longest frame that goes through a lane.
    longest: usize,
    peers: Vec<Peer>,
    missing: Vec<Rank>,
    /// Those of them under whose segments' names there was something else, and why it was refused last.
    refused: Vec<(Rank, String)>,
    /// Members that are not waited for, not read from and not written to; and those of them that had been found: what
    /// was read of theirs may be held.
    excluded: RankSet,
    parted: Vec<Peer>,
    search: Search,
    /// With so much of the casts published and not known to be released, readers' release cursors are looked at.
    casts_much: u64,
    /// What all readers have released of the casts, when last looked at.
    casts_released: u64,
    /// How often the region had no frame, when last looked at; and whether that may still be so.
    exhausted: u64,
    wanting: bool,
    /// What the slowest reader has read, when last looked at, and which of the peers it was.
    read_by_all: u64,
    slowest: usize,
    /// The peer with which the next look begins, so that a fast one does not keep the others waiting.
    first: usize,
    /// The last look brought nothing; or it took all there was.
    idle: bool,
    drained: bool,
    /// While nothing comes: the peer that something came from last, and the one with which the next few begin.
    warm: usize,
    few: usize,
    /// Something was read since all peers were told everything and nothing of theirs was held.
    active: bool,
    reaps: u32,
}

/// A member whose segment is mapped.
struct Peer {
    casts: RingReader,
    lane: RingReader,
    told: Told,
    rank: Rank,
    own_rank: Rank,
    segment: PeerSegment,
    /// The sleep that it was last rung for.
    rung: u64,
    /// It is known to have gone; and when that was last asked.
    gone: Cell<bool>,
    asked: Cell<Option<Instant>>,
    /// Since when it was ready at each look and had run no longer than at the first, and how long that was.
    waits: Cell<Option<(Instant, u64)>>,
}

/// What has been read and released of a peer's rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    read: u64,
    released: u64,
    lane: u64,
}

/// When to look for missing peers again.
#[derive(Debug)]
struct Search {
    calls: u32,
    next: Instant,
    pause: Duration,
}

/// While nothing comes, so many peers are looked at in one call, and one more.
const LOOKED_AT: usize = 7;
/// So much read or released is told even when traffic does not pause.
const TELL_BYTES: u64 = 4096;
/// After so many reaps everything is told.
const TELL_REAPS: u32 = 32;
/// The clock is looked at for missing peers every so many calls.
const SEARCH_CALLS: u32 = 256;
const SEARCH_PAUSE_MIN: Duration = Duration::from_micros(50);
const SEARCH_PAUSE_MAX: Duration = Duration::from_millis(2);
/// The system is asked about a peer's process at most so often.
const ASK_PAUSE: Duration = Duration::from_millis(1);
/// Who has not run for so long, though ready, is starved. The system counts what a thread has run at each of its ticks, which
/// are 4 ms apart as a rule.
const STARVED_AFTER: Duration = Duration::from_millis(6);
/// A reader may hold this many times the frames that the writer can have out: the writer's own holders let go first.
const HELD_FACTOR: usize = 2;
/// Entries of one lane that its reader may hold; a power of two.
const LANE_HELD_MAX: usize = 4096;
/// What a closed member has read and released: everything there will ever be.
const EVERYTHING: u64 = u64::MAX;

impl Open {
    pub(super) fn new(
        id: ChannelId,
        shm: &ShmOptions,
        here: &Owner,
        view: &LocalView,
        options: &ChannelOptions,
        stock: &mut Stock,
    ) -> Result<(Box<Open>, Channel), TransportError> {
        let frame_bytes = frame_bytes(options);
        let sizes = sizes(options, view.size());
        let segment = Segment::create(&shm.directory, view, sizes, here, stock)?;
        let control = stock.region(control_options(options))?;
        let casts = Region::ring(
            segment.memory().clone(),
            RingOptions {
                offset_bytes: segment.casts().offset,
                ring_bytes: sizes.cast_bytes,
                frames_max: sizes.frames_max,
                link_headroom_bytes: STAMP_BYTES,
                frame_bytes,
            },
        );
        let missing: Vec<Rank> = view.others().collect();
        let mut open = Box::new(Open {
            id,
            view: view.clone(),
            casts: casts.clone(),
            out: Publisher::new(Words::new(segment.memory(), segment.casts())),
            lanes: Lanes::new(&segment, view.rank(), view.size()),
            longest: frame_bytes,
            peers: Vec::with_capacity(missing.len()),
            missing,
            refused: Vec::new(),
            excluded: RankSet::EMPTY,
            parted: Vec::new(),
            search: Search { calls: 0, next: Instant::now(), pause: SEARCH_PAUSE_MIN },
            casts_much: sizes.cast_bytes as u64 / 2,
            casts_released: 0,
            exhausted: 0,
            wanting: false,
            read_by_all: EVERYTHING,
            slowest: 0,
            first: 0,
            idle: true,
            drained: true,
            warm: 0,
            few: 0,
            active: false,
            reaps: 0,
            segment,
        });
        open.casts_released(0);
        let long = long_frames(&sizes, frame_bytes, stock)?;
        open.longest = long.as_ref().map_or(frame_bytes, Region::frame_bytes);
        Ok((open, Channel { id, casts, control, long }))
    }

    #[inline]
    pub(super) fn id(&self) -> ChannelId {
        self.id
    }

    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Received frames that somebody holds.
    pub(super) fn frames_held(&self) -> usize {
        self.all_peers().map(|peer| peer.casts.held() + peer.lane.held()).sum()
    }

    /// Takes a whole frame for all others where it lies, if it is next in its ring. It is found by them together with those
    /// that follow, or once [`Open::publish`] was called.
    #[inline]
    pub(super) fn stamp_in_place(&mut self, head: &Frame) -> bool {
        let start = head.start();
        let in_place = self.casts.owns(head)
            && head.position() >= self.out.stamped()
            && (STAMP_BYTES..=START_MAX).contains(&start);
        if in_place {
            head.submit();
            self.out.frame(head.position(), start, head.end());
        }
        in_place
    }

    /// Lets the others find what was submitted.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.out.publish();
    }

    /// Whether header and body together are longer than what goes through a lane of this channel.
    #[inline]
    pub(super) fn too_long(&self, transmit: &Transmit) -> bool {
        transmit.len() > self.longest
    }

    /// Copies a frame into the lanes of those it is for.
    pub(super) fn push(&mut self, transmit: Transmit) -> Result<Pushed, Full> {
        let head = &transmit.head;
        let body = transmit.body.as_ref().map_or(&[][..], |body| body.bytes());
        let length = transmit.len();
        let lanes = self.lanes.towards(&transmit.to);
        let mut lost = 0;
        for lane in lanes.iter_mut().filter(|lane| lane.is_for(&transmit.to) && !lane.has_room(length)) {
            let progress = progress_of(&self.peers, lane.rank());
            match lane.make_room(length, progress, &self.segment) {
                Room::Free => {}
                Room::Soon => return Err(Full(transmit)),
                Room::Never { lost: is_lost } => lost += u64::from(is_lost),
            }
        }
        // It is read after the casts that were submitted before it, and they must be there.
        self.out.publish();
        let casts = self.out.stamped();
        let lanes = lanes.iter_mut().filter(|lane| lane.is_for(&transmit.to));
        let written =
            lanes.filter_map(|lane| lane.push(casts, head.bytes(), body).then_some(())).count() as u64;
        head.submit();
        let of_casts = self.casts.owns(head);
        if of_casts && head.position() >= self.out.stamped() {
            self.out.void(head.position() + head.extent() as u64);
        }
        let copies = if of_casts || transmit.body.is_some() { written } else { 0 };
        Ok(Pushed { written, copies, lost })
    }

    /// Tells peers what was read and released, and learns what they did.
    #[inline]
    pub(super) fn reap(&mut self) {
        if self.active {
            self.tell();
        }
        if self.read_by_all < self.out.newest() {
            self.look_who_read();
        }
        let exhausted = self.casts.exhausted();
        if self.out.stamped() - self.casts_released >= self.casts_much
            || exhausted != self.exhausted
            || self.wanting
        {
            self.reclaim_casts(exhausted);
        }
    }

    /// Whether peers are missing.
    #[inline]
    pub(super) fn incomplete(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Whether the slowest reader is more than one frame behind, as far as is known. Members that have not opened yet
    /// do not count.
    #[inline]
    pub(super) fn busy(&self) -> bool {
        self.read_by_all < self.out.newest()
    }

    /// Tells peers what was read and released of theirs: all of it once what was there has been taken, for the way to this
    /// member is free then, and whoever packs waits to know. Without frames held nothing can be released: then there is
    /// nothing to tell until something is read.
    #[inline]
    fn tell(&mut self) {
        self.reaps = self.reaps.wrapping_add(1);
        let all = self.drained || self.reaps.is_multiple_of(TELL_REAPS);
        let mut active = false;
        for peer in &mut self.peers {
            active |= !peer.tell(&self.segment, all);
        }
        self.active = active;
    }

    /// Looks at the peer known to be slowest, and only when it has caught up at the others.
    #[inline]
    fn look_who_read(&mut self) {
        let newest = self.out.newest();
        let mut read_by_all = EVERYTHING;
        if let Some(peer) = self.peers.get(self.slowest) {
            read_by_all = peer.cursor(Cursor::CastsRead).load(Ordering::Relaxed);
        }
        if read_by_all >= newest {
            for (index, peer) in self.peers.iter().enumerate() {
                let read = peer.cursor(Cursor::CastsRead).load(Ordering::Relaxed);
                if read < read_by_all {
                    read_by_all = read;
                    self.slowest = index;
                }
            }
        }
        self.read_by_all = read_by_all;
    }

    #[cold]
    fn reclaim_casts(&mut self, exhausted: u64) {
        // Frames that came back without having been submitted: nobody will publish behind them before there is room.
        let given_up = self.casts.released_bytes();
        if given_up > self.out.stamped() {
            self.out.void(given_up);
            self.out.publish();
        }
        self.casts_released(self.casts_released_by_all());
        self.exhausted = exhausted;
        // What own holders keep is theirs to give back: only what readers keep is worth another look.
        self.wanting = self.casts_released < self.out.stamped()
            && self.casts.free_bytes() < self.segment.casts().bytes / 2;
    }

    /// What every member of the view that is not excluded has released of the casts; nothing, while one is missing.
    fn casts_released_by_all(&self) -> u64 {
        if !self.missing.is_empty() {
            return 0;
        }
        let words = self.peers.iter().map(|peer| peer.cursor(Cursor::CastsReleased));
        released_by(words).unwrap_or(EVERYTHING)
    }

    fn casts_released(&mut self, position: u64) {
        let position = position.min(self.out.stamped());
        self.casts.set_foreign_released_bytes(position);
        self.casts_released = self.casts_released.max(position);
        let limit = position + self.segment.casts().bytes as u64;
        tell_limit(self.segment.word(Word::CastLimit), limit);
    }

    /// From now on the member is not waited for, not read from, and nothing goes to it. What it has not read of the
    /// casts may be overwritten: it is told so, and reads no further once it looks.
    pub(super) fn exclude(&mut self, rank: Rank) {
        if rank == self.view.rank() || rank.index() >= self.view.size() || self.excluded.contains(rank) {
            return;
        }
        self.excluded.insert(rank);
        // The limit that is raised before its bytes are overwritten has a fence behind it: this is seen before.
        self.segment.cursor(rank, Cursor::Excluded).store(1, Ordering::Release);
        self.missing.retain(|missing| *missing != rank);
        self.lanes.exclude(rank);
        if let Some(index) = self.peers.iter().position(|peer| peer.rank == rank) {
            let peer = self.peers.remove(index);
            if peer.idle() {
                release_everything(&self.segment, rank);
            }
            self.parted.push(peer);
        }
        (self.first, self.slowest, self.warm, self.few) = (0, 0, 0, 0);
        self.look_who_read();
        self.wanting = true;
    }

    /// Hands at most `budget` frames to `sink`.
    #[inline]
    pub(super) fn receive(
        &mut self,
        budget: usize,
        counters: &mut TransportCounters,
        sink: &mut impl FnMut(Received),
    ) -> usize {
        let (mut count, mut read) = (0, false);
        let peers = self.peers.len();
        if self.idle && peers > LOOKED_AT && !self.look_at_few() {
            return 0;
        }
        let mut at = self.first;
        for _ in 0..peers {
            let peer = &mut self.peers[at];
            at = if at + 1 == peers { 0 } else { at + 1 };
            if !peer.ready() {
                continue;
            }
            read = true;
            self.warm = if at == 0 { peers - 1 } else { at - 1 };
            let taken = peer.receive(self.id, budget - count, sink);
            count += taken.frames;
            counters.dropped += taken.rubbish;
            if count == budget {
                self.first = at;
                break;
            }
        }
        self.idle = count == 0;
        self.drained = count < budget;
        self.active |= read;
        count
    }

    /// Looks at the peer that something came from last and at a few others in turn; whether anything is there. All are
    /// looked at in as much time as if they were in every call, but what comes from the one that is expected to answer
    /// is found sooner, and so is what else an iteration looks for.
    #[inline]
    fn look_at_few(&mut self) -> bool {
        let peers = self.peers.len();
        if self.peers.get(self.warm).is_some_and(Peer::ready) {
            return true;
        }
        let from = if self.few < peers { self.few } else { 0 };
        let to = (from + LOOKED_AT).min(peers);
        self.few = to;
        self.peers[from..to].iter().any(Peer::ready)
    }

    /// This member goes to sleep, or rises: others who publish ring from now on, or not any more.
    pub(super) fn set_asleep(&self, asleep: bool) {
        let word = self.segment.word(Word::Asleep);
        // Each sleep has a number of its own, or a second one would look like the one that was rung for.
        let sleeps = word.load(Ordering::Relaxed);
        word.store((sleeps | 1) + if asleep { 2 } else { 1 }, Ordering::SeqCst);
    }

    /// What others ring.
    pub(super) fn bells(&self) -> impl Iterator<Item = &AtomicU32> {
        self.peers.iter().map(|peer| peer.segment.bell())
    }

    /// Wakes those who sleep and were not rung for yet. To be called after something was published.
    #[inline]
    pub(super) fn ring(&mut self, counters: &mut TransportCounters) {
        if self.peers.iter().any(Peer::sleeps) {
            self.peers.iter_mut().for_each(|peer| peer.rung = peer.asleep());
            counters.system_calls += ring(self.segment.bell());
        }
    }

    /// Whether anything is there to be received.
    pub(super) fn ready(&self) -> bool {
        self.peers.iter().any(Peer::ready)
    }

    /// Makes the next call of `look_for_peers` look at the clock for missing peers.
    pub(super) fn look_soon(&mut self) {
        self.search.calls = 0;
    }

    /// Maps the segments of members that have opened meanwhile.
    #[cold]
    pub(super) fn look_for_peers(
        &mut self,
        shm: &ShmOptions,
        stock: &mut Stock,
        counters: &mut TransportCounters,
        hindrances: &mut Hindrances,
    ) {
        if self.search.calls > 0 {
            self.search.calls -= 1;
            return;
        }
        self.search.calls = SEARCH_CALLS;
        let now = Instant::now();
        if now < self.search.next {
            return;
        }
        self.search.next = now + self.search.pause;
        self.search.pause = (self.search.pause * 2).min(SEARCH_PAUSE_MAX);
        let missing = std::mem::take(&mut self.missing);
        for rank in missing {
            counters.system_calls += 1;
            match PeerSegment::attach(&shm.directory, &self.view, rank) {
                Attach::Ready(segment) => {
                    stock.touch(segment.memory().clone());
                    self.add(rank, segment);
                }
                Attach::NotYet => self.missing.push(rank),
                Attach::Refused(refusal) => {
                    // Still missing: who is in the way may go away.
                    self.missing.push(rank);
                    if !self.refused.iter().any(|(known, why)| *known == rank && *why == refusal.why) {
                        self.refused.retain(|(known, _)| *known != rank);
                        self.refused.push((rank, refusal.why.clone()));
                        counters.dropped += 1;
                        hindrances.add(refusal);
                    }
                }
            }
        }
    }

    fn add(&mut self, rank: Rank, segment: PeerSegment) {
        let own_rank = self.view.rank();
        let held_max = segment.frames_max() * HELD_FACTOR;
        let casts = RingReader::new(segment.memory(), segment.casts(), held_max);
        let lane = segment.lane(own_rank);
        let lane = RingReader::new(segment.memory(), lane, (lane.bytes / LINE_BYTES).min(LANE_HELD_MAX));
        self.peers.push(Peer {
            casts,
            lane,
            told: Told::default(),
            rank,
            own_rank,
            segment,
            rung: 0,
            gone: Cell::new(false),
            asked: Cell::new(None),
            waits: Cell::new(None),
        });
        // It has read nothing yet.
        self.read_by_all = 0;
        self.slowest = self.peers.len() - 1;
    }

    /// Whether the memory of a received frame has not begun to be reused.
    pub(super) fn intact(&self, frame: &Frame) -> bool {
        self.all_peers().any(|peer| peer.intact(frame))
    }

    /// Members found before whose process or transport is known to have ended.
    pub(super) fn gone(&self, here: &Owner, system_calls: &Cell<u64>) -> RankSet {
        let gone = self.all_peers().filter(|peer| peer.gone(here, system_calls));
        gone.map(|peer| peer.rank).collect()
    }

    /// Members that have waited for a processor for a while when they were last asked about.
    pub(super) fn starved(&self) -> RankSet {
        let now = Instant::now();
        self.all_peers().filter(|peer| peer.starved(now)).map(|peer| peer.rank).collect()
    }

    /// Members found before that have excluded this one, or have closed the channel.
    pub(super) fn parted(&self) -> RankSet {
        self.all_peers().filter(|peer| peer.has_parted()).map(|peer| peer.rank).collect()
    }

    fn all_peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().chain(&self.parted)
    }

    /// All memory that goes with the channel, to be given back when it is gone.
    pub(super) fn memories(&self) -> impl Iterator<Item = Memory> {
        let own = std::iter::once(self.segment.memory().clone());
        own.chain(self.all_peers().map(|peer| peer.segment.memory().clone()))
    }

    /// Takes the segment's name away and says that nothing more will come in this view.
    pub(super) fn close(&mut self) {
        self.publish();
        self.segment.close(Closed::Channel);
    }

    /// As [`Open::close`], because the transport itself ends: nothing more will come in any view.
    pub(super) fn end(&mut self) {
        self.publish();
        self.segment.close(Closed::Transport);
    }

    /// After closing: tells peers that nothing of theirs is held, as far as that is so. Whether all is done.
    pub(super) fn release_all(&mut self) -> bool {
        for rank in &self.missing {
            release_everything(&self.segment, *rank);
        }
        self.missing.clear();
        let own = &self.segment;
        let mut held = |peer: &mut Peer| {
            let idle = peer.idle();
            if idle {
                release_everything(own, peer.rank);
            } else {
                peer.tell(own, true);
            }
            !idle
        };
        self.peers.retain_mut(&mut held);
        self.parted.retain_mut(&mut held);
        self.peers.is_empty() && self.parted.is_empty()
    }
}

/// What came of copying a frame into lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pushed {
    /// Lanes it was written into.
    pub(super) written: u64,
    /// Copies of a payload that is also elsewhere.
    pub(super) copies: u64,
    /// Members that will miss it, because they have stopped reading.
    pub(super) lost: u64,
}

impl Peer {
    /// A word of the lines on which the peer tells what it has read and released of ours, and more.
    #[inline]
    fn cursor(&self, cursor: Cursor) -> &AtomicU64 {
        self.segment.cursor(self.own_rank, cursor)
    }

    /// Hands at most `budget` frames to `sink`.
    #[inline]
    fn receive(&mut self, channel: ChannelId, budget: usize, sink: &mut impl FnMut(Received)) -> Taken {
        let mut taken = Taken::default();
        // Looked at once per batch: who is excluded in the middle of one meets stamps of a later lap, and stops there.
        if self.cursor(Cursor::Excluded).load(Ordering::Acquire) != 0 {
            return self.give_up();
        }
        if self.lane.ready() {
            // Half of it, so that a flood of control frames leaves room for casts.
            taken = self.lane.receive_behind(&self.casts, channel, budget.div_ceil(2), sink);
        }
        if self.casts.ready() {
            taken += self.casts.receive(channel, budget - taken.frames, sink);
            // What was behind those.
            if self.lane.ready() && taken.frames < budget {
                taken += self.lane.receive_behind(&self.casts, channel, budget - taken.frames, sink);
            }
        }
        taken
    }

    /// The peer does not write for us any more: what follows in its rings may be torn.
    #[cold]
    fn give_up(&mut self) -> Taken {
        self.casts.give_up();
        self.lane.give_up();
        Taken::default()
    }

    fn gone(&self, here: &Owner, system_calls: &Cell<u64>) -> bool {
        if self.gone.get() || self.segment.closed() == Some(Closed::Transport) {
            self.gone.set(true);
            return true;
        }
        let now = Instant::now();
        if self.asked.get().is_none_or(|asked| now.duration_since(asked) >= ASK_PAUSE) {
            self.asked.set(Some(now));
            system_calls.set(system_calls.get() + ASK_CALLS);
            let seen = self.segment.look_at_owner(here);
            self.gone.set(seen == Seen::Ended);
            self.waits.set(match (seen, self.waits.get()) {
                (Seen::Ready { ran }, Some((since, ran_then))) if ran == ran_then => Some((since, ran)),
                (Seen::Ready { ran }, _) => Some((now, ran)),
                _ => None,
            });
        }
        self.gone.get()
    }

    fn has_parted(&self) -> bool {
        self.cursor(Cursor::Excluded).load(Ordering::Relaxed) != 0 || self.segment.closed().is_some()
    }

    fn starved(&self, now: Instant) -> bool {
        self.waits.get().is_some_and(|(since, _)| now.duration_since(since) >= STARVED_AFTER)
    }

    #[inline]
    fn asleep(&self) -> u64 {
        self.segment.word(Word::Asleep).load(Ordering::Relaxed)
    }

    /// Whether it sleeps and was not rung for yet.
    #[inline]
    fn sleeps(&self) -> bool {
        let asleep = self.asleep();
        asleep & 1 != 0 && asleep != self.rung
    }

    /// Whether anything is there to be received.
    #[inline]
    fn ready(&self) -> bool {
        self.casts.ready() | self.lane.ready()
    }

    /// Whether nothing of the peer's is held.
    #[inline]
    fn idle(&self) -> bool {
        self.casts.idle() && self.lane.idle()
    }

    fn intact(&self, frame: &Frame) -> bool {
        if self.casts.owns(frame) {
            return self.casts.intact(frame, self.segment.word(Word::CastLimit));
        }
        self.lane.owns(frame) && self.lane.intact(frame, self.cursor(Cursor::LaneLimit))
    }

    /// Writes what was read and released of the peer's rings to its line, if it is news; unless `all`, only if it is
    /// much: the peer looks at that line, and each write takes it away from it. Whether there is nothing more to tell.
    #[inline]
    fn tell(&mut self, own: &Segment, all: bool) -> bool {
        // Skipped bytes are released with the frame before them, and are not a frame's any more once another is held.
        let now = Told {
            read: self.casts.position(),
            released: self.casts.released().max(self.told.released),
            lane: self.lane.released().max(self.told.lane),
        };
        let quiet = self.idle();
        if now == self.told {
            return quiet;
        }
        let news =
            (now.read - self.told.read).max(now.released - self.told.released).max(now.lane - self.told.lane);
        if all || news >= TELL_BYTES {
            own.cursor(self.rank, Cursor::CastsRead).store(now.read, Ordering::Relaxed);
            tell_released(own.cursor(self.rank, Cursor::CastsReleased), now.released);
            tell_released(own.cursor(self.rank, Cursor::LaneReleased), now.lane);
            self.told = now;
            return quiet;
        }
        false
    }
}

fn release_everything(own: &Segment, rank: Rank) {
    for cursor in [Cursor::CastsRead, Cursor::CastsReleased, Cursor::LaneReleased] {
        tell_released(own.cursor(rank, cursor), EVERYTHING);
    }
}

/// How far the member at `rank` has come; nowhere, if it has not been found.
fn progress_of(peers: &[Peer], rank: Rank) -> Progress {
    let progress = peers.iter().find(|peer| peer.rank == rank).map(|peer| Progress {
        casts_read: peer.cursor(Cursor::CastsRead).load(Ordering::Relaxed),
        released: released_by([peer.cursor(Cursor::LaneReleased)].into_iter()).unwrap_or(0),
    });
    progress.unwrap_or_default()
}

fn frame_bytes(options: &ChannelOptions) -> usize {
    options.frame_bytes.clamp(1, FRAME_BYTES_MAX)
}

/// What the region for control messages is made of.
pub(super) fn control_options(options: &ChannelOptions) -> RegionOptions {
    RegionOptions {
        frames: options.control_frames.max(1),
        link_headroom_bytes: 0,
        frame_bytes: frame_bytes(options),
        reserve_frames: 0,
        huge_pages: false,
    }
}

/// The bytes of a segment that serves a view of any size from two to `members`.
pub(super) fn spare_bytes(options: &ChannelOptions, members: usize) -> usize {
    let bytes = |members| total_bytes(members, sizes(options, members));
    (2..=members.max(2)).map(bytes).max().expect("there is one")
}

/// The bytes of a segment of a view of `members`.
pub(super) fn segment_bytes(options: &ChannelOptions, members: usize) -> usize {
    total_bytes(members, sizes(options, members))
}

/// The sizes of a member's rings, each the sum of its holders.
fn sizes(options: &ChannelOptions, members: usize) -> Sizes {
    let frame_bytes = frame_bytes(options);
    let largest = whole_lines(STAMP_BYTES + frame_bytes + TAILROOM_BYTES);
    let largest_entry = whole_lines(ENTRY_START + frame_bytes + TAILROOM_BYTES);
    // Own casts at their largest, one that does not fit before the ring's end, and the line behind the newest.
    let cast_bytes = (options.cast_frames.max(4) + 2) * largest;
    // As many entries as there are control frames, likewise, shared out among the lanes; but a lane holds at least
    // one entry, one that does not fit before its end, and the line behind.
    let control_bytes = ((options.control_frames.max(4) + 2) * largest_entry).next_power_of_two();
    let lane_bytes = control_bytes / (members - 1).max(1).next_power_of_two();
    Sizes {
        cast_bytes: cast_bytes.next_power_of_two().max(RING_BYTES_MIN),
        lane_bytes: lane_bytes.max((4 * largest_entry).next_power_of_two()).max(RING_BYTES_MIN),
        frames_max: options.cast_frames.max(4).next_power_of_two().min(FRAMES_MAX),
    }
}

/// A long frame: what a copy of it costs is much more than what a frame costs.
const LONG_BYTES_MAX: usize = 32 << 10;
/// A lane holds at least so many of them, half of which may be out at once.
const LONG_IN_A_LANE: usize = 16;
/// No more than that are of use.
const LONG_FRAMES_MAX: usize = 32;

/// Frames for what is much and for single members. Entries of a lane are as long as they are, and copied: such a frame may
/// be longer than any other, and lie anywhere. Nothing, if lanes are too short for it.
fn long_frames(
    sizes: &Sizes,
    frame_bytes: usize,
    stock: &mut Stock,
) -> Result<Option<Region>, TransportError> {
    let long_bytes = (sizes.lane_bytes / LONG_IN_A_LANE).min(LONG_BYTES_MAX);
    if long_bytes < 2 * frame_bytes {
        return Ok(None);
    }
    let region = stock.region(RegionOptions {
        frames: (sizes.lane_bytes / 2 / long_bytes).min(LONG_FRAMES_MAX),
        link_headroom_bytes: 0,
        frame_bytes: long_bytes - LINE_BYTES,
        reserve_frames: 0,
        huge_pages: false,
    })?;
    Ok(Some(region))
}

/// Several times what a reader may have released and not told.
const RING_BYTES_MIN: usize = 4 * TELL_BYTES as usize;
