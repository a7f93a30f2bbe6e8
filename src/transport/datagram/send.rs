//! Sending: frames are staged by destination and leave in runs, straight from where they lie.
//!
//! A staged frame is one *entry*, and stands in the *lane* of every destination it still has to go to. A flush cuts
//! each lane into messages: a run of frames of equal size (the last may be shorter) shares one message and one pass
//! through the network stack where the system can segment (UDP_SEGMENT), any other frame is a message of its own.
//! What the system does not take stays staged; what it took has left its lane, so nothing goes twice.

use std::collections::VecDeque;
use std::mem::{size_of, zeroed};
use std::os::fd::RawFd;

use super::calls::{Calls, Inlet};
use super::refusals::Refusals;
use super::socket::Name;
use crate::buf::Frame;
use crate::transport::{ChannelId, Slice, Transmit, TransportCounters};

/// Messages per system call.
pub(crate) const MESSAGES_MAX: usize = 64;
/// Pieces of frames per system call, and per message.
const PIECES_MAX: usize = 1024;
/// Frames in one run: the system's limit.
const RUN_FRAMES_MAX: usize = 64;
/// Bytes in one run: what fits an IP datagram, with room for headers and options.
const RUN_BYTES_MAX: usize = 65_000;
/// A shorter run goes as single datagrams where somebody may receive over AF_XDP. Over virtual interfaces a run arrives as one
/// frame there, and what tells it from a datagram is only that no chunk of the ring, of 4 KiB at most, can take it: then it is
/// left to the ordinary socket, which gets its frames one by one.
const RUN_BYTES_LEAST: usize = 4096;
/// Longer frames go out one by one: runs of fewer than four frames do not pay.
pub(super) const RUN_FRAME_BYTES_MAX: usize = 16_000;
/// How often a call that failed for a passing reason is repeated within one flush.
const RETRIES_MAX: usize = 16;

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(unreachable_pub)]
pub enum Outcome {
    /// The system took it.
    Sent,
    /// It was not tried.
    Untried,
    /// The system did not take it, and says why.
    Failed(i32),
}

/// The system call, so that tests can be the system.
pub(super) trait Outlet {
    /// Sends messages and says of each what came of it.
    fn send(
        &mut self,
        messages: &mut [libc::mmsghdr],
        outcomes: &mut [Outcome],
        counters: &mut TransportCounters,
    );

    /// Takes in what the network has said about earlier datagrams; whether it has said anything. The system reports it
    /// to whichever call comes next, which then does nothing.
    fn errors(&mut self) -> bool;
}

/// A non-blocking datagram socket, and what the network says about what is sent by it.
pub(super) struct SocketOutlet<'p, C> {
    pub(super) calls: &'p mut C,
    pub(super) inlet: Inlet,
    pub(super) socket: RawFd,
    pub(super) refusals: &'p mut Refusals,
}

impl<C: Calls> Outlet for SocketOutlet<'_, C> {
    fn errors(&mut self) -> bool {
        self.refusals.take_in(self.socket)
    }

    #[inline]
    fn send(
        &mut self,
        messages: &mut [libc::mmsghdr],
        outcomes: &mut [Outcome],
        counters: &mut TransportCounters,
    ) {
        self.calls.send(self.inlet, self.socket, messages, outcomes, counters);
    }
}

/// Names a lane of a [`Stage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneId(u32);

/// Frames on their way out of one socket. Nothing here allocates but [`Stage::new`] and [`Stage::add_lane`].
pub(super) struct Stage {
    entries: Box<[Entry]>,
    free: Vec<u32>,
    lanes: Vec<Lane>,
    /// Lanes that are not empty, in the order in which they will be served.
    active: VecDeque<u32>,
    segmentation: bool,
    messages: Box<[libc::mmsghdr]>,
    pieces: Box<[libc::iovec]>,
    controls: Box<[Control]>,
    runs: Box<[Run]>,
    outcomes: Box<[Outcome]>,
}

/// What a round of sending came to.
#[derive(Clone, Copy, Default)]
struct Turn {
    sent: bool,
    /// The system has no room.
    full: bool,
    /// A message is impossible as it was.
    refused: bool,
}

#[derive(Default)]
struct Entry {
    head: Option<Frame>,
    body: Option<Slice>,
    bytes: usize,
    /// Lanes it still stands in, and one for the submission while it is being put into them.
    waiting: u32,
}

struct Lane {
    channel: Option<ChannelId>,
    name: Name,
    queue: VecDeque<u32>,
    segmentation: bool,
}

/// Which frames a message carries.
#[derive(Clone, Copy, Default)]
struct Run {
    lane: u32,
    frames: u32,
}

/// Room for one control message with a 16-bit segment size.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 24]);

impl Stage {
    pub(super) fn new(frames: usize, segmentation: bool) -> Stage {
        Stage {
            entries: (0..frames).map(|_| Entry::default()).collect(),
            free: (0..frames as u32).rev().collect(),
            lanes: Vec::new(),
            active: VecDeque::new(),
            segmentation,
            // SAFETY: all zeros is a valid value of these plain structures.
            messages: (0..MESSAGES_MAX).map(|_| unsafe { zeroed() }).collect(),
            pieces: (0..PIECES_MAX)
                .map(|_| libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 })
                .collect(),
            controls: vec![Control([0; 24]); MESSAGES_MAX].into(),
            runs: vec![Run::default(); MESSAGES_MAX].into(),
            outcomes: vec![Outcome::Untried; MESSAGES_MAX].into(),
        }
    }

    /// A lane to `name`, for a channel.
    pub(super) fn add_lane(&mut self, channel: ChannelId, name: Name) -> LaneId {
        let segmentation = self.segmentation;
        let at = match self.lanes.iter().position(|lane| lane.channel.is_none()) {
            Some(at) => {
                let lane = &mut self.lanes[at];
                (lane.channel, lane.name, lane.segmentation) = (Some(channel), name, segmentation);
                at
            }
            None => {
                let queue = VecDeque::with_capacity(self.entries.len());
                self.lanes.push(Lane { channel: Some(channel), name, queue, segmentation });
                self.lanes.len() - 1
            }
        };
        self.active.reserve(self.lanes.len());
        LaneId(at as u32)
    }

    /// Gives up a channel's lanes and what stands in them; returns how many frames that were.
    pub(super) fn remove_lanes(&mut self, channel: ChannelId) -> u64 {
        let mut given_up = 0;
        for at in 0..self.lanes.len() {
            if self.lanes[at].channel == Some(channel) {
                given_up += self.remove_lane(LaneId(at as u32));
            }
        }
        given_up
    }

    /// Gives up a lane and what stands in it; returns how many frames that were.
    pub(super) fn remove_lane(&mut self, LaneId(at): LaneId) -> u64 {
        let lane = &mut self.lanes[at as usize];
        lane.channel = None;
        let standing = lane.queue.len();
        self.leave(at as usize, 0, standing);
        standing as u64
    }

    /// Lanes, in use or not.
    #[cfg(test)]
    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Frames staged.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// How many lanes had to give up segmentation.
    pub(super) fn lanes_without_segmentation(&self) -> usize {
        let lost = |lane: &&Lane| lane.channel.is_some() && !lane.segmentation;
        if self.segmentation { self.lanes.iter().filter(lost).count() } else { 0 }
    }

    /// Stages a frame for the lanes that `lanes` yields. The stage must not be full.
    #[inline]
    pub(super) fn put(&mut self, transmit: Transmit, lanes: impl Iterator<Item = LaneId>) {
        let index = self.free.pop().expect("the caller has seen that the stage is not full");
        let entry = &mut self.entries[index as usize];
        entry.bytes = transmit.len();
        entry.head = Some(transmit.head);
        entry.body = transmit.body;
        entry.waiting = 1;
        for LaneId(at) in lanes {
            let lane = &mut self.lanes[at as usize];
            if lane.queue.is_empty() {
                self.active.push_back(at);
            }
            lane.queue.push_back(index);
            entry.waiting += 1;
        }
        self.let_go(index);
    }

    /// Sends as much as the system takes.
    pub(super) fn flush(&mut self, outlet: &mut impl Outlet, counters: &mut TransportCounters) {
        if let Some(first) = self.active.pop_front() {
            // Whoever was first when the system last refused is last now.
            self.active.push_back(first);
        }
        let mut retries = 0;
        // Every turn sends or drops a frame, takes segmentation from a lane, or counts as a retry; what the network says of
        // one destination must not use up the turns of the others, so a frame that was sent forgives what was before.
        while !self.active.is_empty() && retries < RETRIES_MAX {
            let count = self.compose();
            outlet.send(&mut self.messages[..count], &mut self.outcomes[..count], counters);
            let turn = self.settle(count, outlet, counters);
            if turn.full {
                return;
            }
            retries = if turn.sent { 0 } else { retries + usize::from(!turn.refused) };
        }
    }

    /// Goes through what came of the first `count` messages.
    #[inline]
    fn settle(&mut self, count: usize, outlet: &mut impl Outlet, counters: &mut TransportCounters) -> Turn {
        let mut turn = Turn::default();
        // Messages of a lane follow each other; frames before this one stay in it.
        let (mut lane_before, mut kept) = (u32::MAX, 0);
        let mut cut_short = false;
        for at in 0..count {
            let Run { lane, frames } = self.runs[at];
            kept = if lane == lane_before { kept } else { 0 };
            lane_before = lane;
            let leaves = match self.outcomes[at] {
                Outcome::Sent => {
                    counters.frames_sent += u64::from(frames);
                    turn.sent = true;
                    true
                }
                Outcome::Untried => {
                    cut_short = true;
                    false
                }
                Outcome::Failed(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => {
                    turn.full = true;
                    false
                }
                Outcome::Failed(libc::EINTR) => false,
                // What the network says of another frame may be reported to an innocent call: this one sent nothing.
                Outcome::Failed(error) => {
                    if outlet.errors() || error == libc::ECONNREFUSED {
                        false
                    } else {
                        turn.refused = true;
                        self.refused(error, lane, frames, counters)
                    }
                }
            };
            if leaves {
                self.leave(lane as usize, kept, frames as usize);
            } else {
                kept += frames as usize;
            }
        }
        if turn.sent && cut_short {
            // It may have been an error about a frame just sent, which the system then forgets.
            outlet.errors();
        }
        turn
    }

    /// A message is impossible as it is; whether its frames are given up.
    #[cold]
    fn refused(&mut self, error: i32, lane: u32, frames: u32, counters: &mut TransportCounters) -> bool {
        let about_segments =
            matches!(error, libc::EINVAL | libc::EIO | libc::EMSGSIZE | libc::EOPNOTSUPP | libc::ENOPROTOOPT);
        if frames > 1 && about_segments {
            self.lanes[lane as usize].segmentation = false;
            return false;
        }
        counters.dropped += u64::from(frames);
        true
    }

    /// Fills messages from the lanes, as many as there is room for; returns their number.
    fn compose(&mut self) -> usize {
        let (mut count, mut used) = (0, 0);
        for &at in &self.active {
            let lane = &self.lanes[at as usize];
            let mut standing = 0;
            // Frames from here on that are too few for a run.
            let mut single = 0_usize;
            while standing < lane.queue.len() {
                if count == MESSAGES_MAX || used + 2 > PIECES_MAX {
                    return count;
                }
                let (first, start) = (used, standing);
                let mut frames = 0;
                let mut total = 0;
                let mut segment = 0;
                while let Some(&index) = lane.queue.get(standing) {
                    let entry = &self.entries[index as usize];
                    let joins = frames == 0
                        || (lane.segmentation
                            && single == 0
                            && segment <= RUN_FRAME_BYTES_MAX
                            && (1..=segment).contains(&entry.bytes)
                            && frames < RUN_FRAMES_MAX
                            && total + entry.bytes <= RUN_BYTES_MAX
                            && used + 2 <= PIECES_MAX);
                    if !joins {
                        break;
                    }
                    if frames == 0 {
                        segment = entry.bytes;
                    }
                    frames += 1;
                    total += entry.bytes;
                    standing += 1;
                    used += entry.list(&mut self.pieces[used..]);
                    if entry.bytes < segment {
                        break;
                    }
                }
                if frames > 1 && total < RUN_BYTES_LEAST && !lane.name.takes_short_runs {
                    single = frames;
                    (frames, standing) = (1, start + 1);
                    let entry = &self.entries[lane.queue[start] as usize];
                    used = first + entry.list(&mut self.pieces[first..]);
                }
                single = single.saturating_sub(1);
                let header = &mut self.messages[count].msg_hdr;
                header.msg_name = (&raw const lane.name.storage).cast_mut().cast();
                header.msg_namelen = lane.name.length;
                header.msg_iov = self.pieces[first..].as_mut_ptr();
                header.msg_iovlen = used - first;
                if frames > 1 {
                    let control = &mut self.controls[count];
                    control.set_segment(segment as u16);
                    header.msg_control = control.0.as_mut_ptr().cast();
                    header.msg_controllen = control.0.len();
                } else {
                    header.msg_control = std::ptr::null_mut();
                    header.msg_controllen = 0;
                }
                self.runs[count] = Run { lane: at, frames: frames as u32 };
                count += 1;
            }
        }
        count
    }

    /// `frames` frames of a lane, behind the first `kept`, are done with.
    #[inline]
    fn leave(&mut self, lane: usize, kept: usize, frames: usize) {
        for _ in 0..frames {
            let queue = &mut self.lanes[lane].queue;
            let index = if kept == 0 { queue.pop_front() } else { queue.remove(kept) };
            self.let_go(index.expect("as many as were counted"));
        }
        if frames > 0 && self.lanes[lane].queue.is_empty() {
            let place = self.active.iter().position(|at| *at as usize == lane);
            self.active.remove(place.expect("a lane that was not empty is active"));
        }
    }

    #[inline]
    fn let_go(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.waiting -= 1;
        if entry.waiting == 0 {
            entry.head = None;
            entry.body = None;
            self.free.push(index);
        }
    }
}

impl Entry {
    /// Lists where the bytes lie; returns in how many pieces.
    #[inline]
    fn list(&self, pieces: &mut [libc::iovec]) -> usize {
        let mut used = 0;
        let mut list = |bytes: &[u8]| {
            pieces[used] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            used += 1;
        };
        if let Some(head) = &self.head {
            list(head.bytes());
        }
        if let Some(body) = &self.body {
            list(body.bytes());
        }
        used
    }
}

impl Control {
    fn set_segment(&mut self, bytes: u16) {
        let header = libc::cmsghdr {
            // SAFETY: computes a size from a size.
            cmsg_len: unsafe { libc::CMSG_LEN(size_of::<u16>() as u32) } as usize,
            cmsg_level: libc::SOL_UDP,
            cmsg_type: libc::UDP_SEGMENT,
        };
        let at = size_of::<libc::cmsghdr>();
        // SAFETY: the header fits the 24 bytes, which are aligned for it.
        unsafe { self.0.as_mut_ptr().cast::<libc::cmsghdr>().write(header) };
        self.0[at..at + 2].copy_from_slice(&bytes.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::{Region, RegionOptions};
    use crate::transport::Destination;
    use proptest::prelude::*;

    /// A system that takes, delays, refuses and confuses as it is told, and notes what it took.
    struct Script {
        answers: Vec<i32>,
        turn: usize,
        segments: bool,
        taken: Vec<Vec<Vec<u8>>>,
    }

    impl Outlet for Script {
        fn errors(&mut self) -> bool {
            false
        }

        fn send(
            &mut self,
            messages: &mut [libc::mmsghdr],
            outcomes: &mut [Outcome],
            counters: &mut TransportCounters,
        ) {
            counters.system_calls += 1;
            outcomes.fill(Outcome::Untried);
            match self.try_to_send(messages) {
                Ok(taken) => outcomes[..taken].fill(Outcome::Sent),
                Err(error) => outcomes[0] = Outcome::Failed(error),
            }
        }
    }

    impl Script {
        fn try_to_send(&mut self, messages: &mut [libc::mmsghdr]) -> Result<usize, i32> {
            self.turn += 1;
            let answer = self.answers[self.turn % self.answers.len()];
            if answer < 0 {
                return Err(-answer);
            }
            let limit = messages.len().min(answer as usize);
            for (at, message) in messages[..limit].iter().enumerate() {
                let header = &message.msg_hdr;
                let segmented = !header.msg_control.is_null();
                if segmented && !self.segments {
                    return if at == 0 { Err(libc::EIO) } else { Ok(at) };
                }
                // SAFETY: the stage promises that everything the header points at is alive during the call; this is
                // the test of that promise.
                let (name, bytes, segment) = unsafe {
                    let name = &*header.msg_name.cast::<libc::sockaddr_in>();
                    let pieces = std::slice::from_raw_parts(header.msg_iov, header.msg_iovlen);
                    let bytes: Vec<u8> = pieces
                        .iter()
                        .flat_map(|p| std::slice::from_raw_parts(p.iov_base.cast::<u8>(), p.iov_len))
                        .copied()
                        .collect();
                    let control = header.msg_control.cast::<u8>();
                    let segment =
                        if segmented { control.add(16).cast::<u16>().read_unaligned() } else { u16::MAX };
                    (u16::from_be(name.sin_port), bytes, segment)
                };
                let lane = usize::from(name) - 1000;
                assert!(bytes.len() <= RUN_BYTES_MAX);
                // The last of the lanes may lead to AF_XDP.
                assert!(!segmented || lane < 2 || bytes.len() >= RUN_BYTES_LEAST);
                let datagrams = bytes.chunks(usize::from(segment)).map(<[u8]>::to_vec);
                self.taken[lane].extend(datagrams);
            }
            Ok(limit)
        }
    }

    fn region() -> Region {
        Region::pool(RegionOptions {
            frames: 64,
            link_headroom_bytes: 0,
            frame_bytes: 1472,
            reserve_frames: 0,
            huge_pages: false,
        })
        .unwrap()
    }

    proptest! {
        /// Whatever the system does, every lane's frames leave once each, in order and whole, and come back.
        #[test]
        fn nothing_is_lost_duplicated_or_reordered_whatever_the_system_answers(
            frames in prop::collection::vec((1usize..1400, 0usize..3, 0usize..40), 1..200),
            answers in prop::collection::vec(
                prop::sample::select(vec![0, 1, 2, 3, 64, -libc::EAGAIN, -libc::ENOBUFS, -libc::EINTR,
                    -libc::ECONNREFUSED]), 1..12),
            segmentation: bool,
            segments: bool,
        ) {
            let region = region();
            let mut stage = Stage::new(16, segmentation);
            let channel = ChannelId(0);
            let lanes: Vec<LaneId> = (0..3)
                .map(|n| {
                    let host = if n < 2 { "127.0.0.1" } else { "10.78.0.1" };
                    stage.add_lane(channel, Name::of(format!("{host}:{}", 1000 + n).parse().unwrap()))
                })
                .collect();
            let mut answers = answers;
            answers.push(64);
            let mut outlet = Script { answers, turn: 0, segments, taken: vec![Vec::new(); 3] };
            let mut counters = TransportCounters::default();
            let mut expected = vec![Vec::new(); 3];
            for (number, (length, to, repeat)) in frames.into_iter().enumerate() {
                for _ in 0..=repeat / 8 {
                    let flushes = if stage.is_full() { 100 } else { 0 };
                    for _ in 0..flushes {
                        stage.flush(&mut outlet, &mut counters);
                    }
                    prop_assert!(!stage.is_full());
                    let mut head = region.take(0).unwrap();
                    head.extend(&vec![number as u8; length]).unwrap();
                    let head = head.freeze();
                    let body = (number % 3 == 0)
                        .then(|| Slice { frame: head.clone(), from: 0, to: length.div_ceil(2) });
                    let chosen = if to == 2 { &lanes[..] } else { &lanes[to..=to] };
                    let total = length + body.as_ref().map_or(0, |body| body.to);
                    for lane in chosen {
                        expected[lane.0 as usize].push(vec![number as u8; total]);
                    }
                    stage.put(
                        Transmit { channel, to: Destination::All, head, body },
                        chosen.iter().copied(),
                    );
                }
                if number % 5 == 0 {
                    stage.flush(&mut outlet, &mut counters);
                }
            }
            for _ in 0..100 {
                stage.flush(&mut outlet, &mut counters);
            }
            prop_assert!(stage.is_empty());
            prop_assert_eq!(&outlet.taken, &expected);
            prop_assert_eq!(region.usage().lent, 0);
            prop_assert_eq!(counters.dropped, 0);
            prop_assert_eq!(counters.system_calls, outlet.turn as u64);
            prop_assert_eq!(counters.frames_sent, expected.iter().map(Vec::len).sum::<usize>() as u64);
        }
    }

    /// A system that says of each message what it is told to say, in any mixture, as a ring does.
    struct Mixture {
        answers: Vec<Outcome>,
        turn: usize,
        taken: Vec<Vec<u8>>,
    }

    impl Outlet for Mixture {
        fn errors(&mut self) -> bool {
            false
        }

        fn send(
            &mut self,
            messages: &mut [libc::mmsghdr],
            outcomes: &mut [Outcome],
            _counters: &mut TransportCounters,
        ) {
            for (message, outcome) in messages.iter().zip(outcomes) {
                self.turn += 1;
                *outcome = self.answers[self.turn % self.answers.len()];
                let header = &message.msg_hdr;
                // SAFETY: as in `Script`.
                let (name, pieces) = unsafe {
                    let name = &*header.msg_name.cast::<libc::sockaddr_in>();
                    (name, std::slice::from_raw_parts(header.msg_iov, header.msg_iovlen))
                };
                let lane = usize::from(u16::from_be(name.sin_port)) - 1000;
                for piece in pieces.iter().filter(|_| *outcome == Outcome::Sent) {
                    // SAFETY: as in `Script`: a piece lies in a frame that the stage holds.
                    self.taken[lane].push(unsafe { *piece.iov_base.cast::<u8>() });
                }
            }
        }
    }

    #[test]
    fn whichever_messages_fail_the_others_leave_once_each() {
        let region = region();
        let failed = Outcome::Failed;
        let answers = vec![
            Outcome::Sent,
            failed(libc::EAGAIN),
            Outcome::Sent,
            failed(libc::ECONNREFUSED),
            Outcome::Sent,
            Outcome::Sent,
            failed(libc::EINTR),
        ];
        let mut outlet = Mixture { answers, turn: 0, taken: vec![Vec::new(); 2] };
        let mut stage = Stage::new(16, false);
        let mut counters = TransportCounters::default();
        let name = |at: usize| Name::of(format!("127.0.0.1:{}", 1000 + at).parse().unwrap());
        let lanes = [0, 1].map(|at| stage.add_lane(ChannelId(0), name(at)));
        for number in 0..200_u8 {
            let mut head = region.take(0).unwrap();
            head.extend(&[number; 3]).unwrap();
            let head = head.freeze();
            let chosen = if number % 3 == 0 { &lanes[..] } else { &lanes[..1] };
            let transmit = Transmit { channel: ChannelId(0), to: Destination::All, head, body: None };
            stage.put(transmit, chosen.iter().copied());
            for _ in 0..if number % 9 == 8 || stage.is_full() { 20 } else { 0 } {
                stage.flush(&mut outlet, &mut counters);
            }
        }
        for _ in 0..20 {
            stage.flush(&mut outlet, &mut counters);
        }
        assert!(stage.is_empty());
        assert_eq!((region.usage().lent, counters.dropped), (0, 0));
        for (taken, step) in outlet.taken.iter_mut().zip([1, 3]) {
            taken.sort_unstable();
            assert_eq!(*taken, (0..200).step_by(step).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn a_frame_the_system_will_never_take_is_dropped_and_does_not_hold_up_the_next() {
        let region = region();
        let mut stage = Stage::new(4, true);
        let lane = stage.add_lane(ChannelId(0), Name::of("127.0.0.1:1000".parse().unwrap()));
        let mut outlet =
            Script { answers: vec![1, -libc::EPERM], turn: 0, segments: true, taken: vec![Vec::new()] };
        let mut counters = TransportCounters::default();
        for length in [10, 20] {
            let mut head = region.take(0).unwrap();
            head.extend(&vec![1; length]).unwrap();
            let head = head.freeze();
            let transmit = Transmit { channel: ChannelId(0), to: Destination::All, head, body: None };
            stage.put(transmit, [lane].into_iter());
        }
        stage.flush(&mut outlet, &mut counters);
        assert_eq!((counters.dropped, counters.frames_sent), (1, 1));
        assert_eq!(outlet.taken[0], [vec![1; 20]]);
        assert_eq!(region.usage().lent, 0);
    }

    #[test]
    fn a_closed_channel_gives_its_staged_frames_back_and_leaves_others_alone() {
        let region = region();
        let mut stage = Stage::new(4, true);
        let name = Name::of("127.0.0.1:1000".parse().unwrap());
        let lanes = [stage.add_lane(ChannelId(0), name), stage.add_lane(ChannelId(1), name)];
        for lane in lanes {
            let mut head = region.take(0).unwrap();
            head.extend(&[1; 10]).unwrap();
            let head = head.freeze();
            let transmit = Transmit { channel: ChannelId(0), to: Destination::All, head, body: None };
            stage.put(transmit, [lane].into_iter());
        }
        assert_eq!(stage.remove_lanes(ChannelId(0)), 1);
        assert_eq!((stage.len(), region.usage().lent), (1, 1));
    }
}
