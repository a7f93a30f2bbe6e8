//! What every transport promises, checked against any of them.
//!
//! A [`Bed`] says how to make one; [`conformance!`](crate::conformance) turns it into tests, one per promise. All
//! members live in one thread, for no call of a transport but `wait` blocks. Every wait in here ends at
//! [`PATIENCE`]: a frame that has not come by then is lost.

mod live;
mod views;

use std::time::{Duration, Instant};

pub(crate) use live::*;
pub(crate) use views::*;

use wadjet::buf::{Frame, Region};
use wadjet::id::{GroupId, Incarnation, Rank, RankSet, ViewId};
use wadjet::transport::{
    Caps, Channel, ChannelOptions, Destination, Full, Received, Slice, Transmit, Transport,
};
use wadjet::view::{Address, LocalView, Member, View};

/// How to make the transports of one group of connected members.
pub(crate) trait Bed {
    type Transport: Transport;

    /// The transport of the member at `rank`.
    fn transport(&mut self, rank: usize) -> Self::Transport;

    /// The address of the member at `rank`.
    fn address(&self, rank: usize) -> Address;

    /// Frames of the transport's own regions (receive pools, joined frames) that are out; the same whenever nothing
    /// is under way and nobody holds anything.
    fn lent(transport: &Self::Transport) -> usize;
}

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Frames that may be under way at once without a medium that loses losing some.
const GENTLE: usize = 64;

pub(crate) const OPTIONS: ChannelOptions = ChannelOptions {
    cast_frames: 256,
    control_frames: 64,
    receive_frames: 96,
    frame_bytes: 1024,
    huge_pages: false,
};

/// The members of one view.
pub(crate) struct Party<B: Bed> {
    pub(crate) bed: B,
    pub(crate) members: Vec<Peer<B::Transport>>,
    pub(crate) view: View,
    lent_at_start: Vec<usize>,
}

/// One member.
pub(crate) struct Peer<T> {
    pub(crate) transport: T,
    pub(crate) channel: Channel,
    /// What it got.
    pub(crate) got: Vec<Vec<u8>>,
    alive: bool,
}

impl<B: Bed> Party<B> {
    pub(crate) fn new(mut bed: B, members: usize) -> Party<B> {
        let view = View {
            group: GroupId::named("conformance"),
            id: ViewId { counter: 1, coordinator: Incarnation(1) },
            members: (0..members)
                .map(|rank| Member { incarnation: incarnation(rank), address: bed.address(rank) })
                .collect(),
            spec: String::new(),
            wire_version: 1,
            salt: 0,
            frame_bytes: 0,
        };
        let members = (0..members)
            .map(|rank| {
                let mut transport = bed.transport(rank);
                let local = LocalView::new(view.clone(), incarnation(rank)).unwrap();
                let channel = transport.open(&local, &OPTIONS).unwrap();
                Peer { transport, channel, got: Vec::new(), alive: true }
            })
            .collect::<Vec<_>>();
        let lent_at_start = members.iter().map(|peer| B::lent(&peer.transport)).collect();
        Party { bed, members, view, lent_at_start }
    }

    pub(crate) fn caps(&self) -> Caps {
        self.members[0].transport.caps()
    }

    /// Writes a frame for a member to send, waiting for room if need be.
    pub(crate) fn frame(&mut self, rank: usize, control: bool, bytes: &[u8]) -> Frame {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let channel = &self.members[rank].channel;
            let region = if control { &channel.control } else { &channel.casts };
            if let Some(frame) = write(region, bytes) {
                return frame;
            }
            assert!(Instant::now() < deadline, "no frame comes back to member {rank}");
            self.turn();
        }
    }

    /// Submits, taking turns while the transport is full.
    pub(crate) fn submit(&mut self, rank: usize, to: Destination, head: Frame, body: Option<Slice>) {
        let deadline = Instant::now() + PATIENCE;
        let mut transmit = Transmit { channel: self.members[rank].channel.id, to, head, body };
        while let Err(Full(back)) = self.members[rank].transport.submit(transmit) {
            assert!(Instant::now() < deadline, "the transport of member {rank} stays full");
            transmit = back;
            self.turn();
        }
    }

    pub(crate) fn cast(&mut self, rank: usize, bytes: &[u8]) {
        let frame = self.frame(rank, false, bytes);
        self.submit(rank, Destination::All, frame, None);
    }

    pub(crate) fn send(&mut self, rank: usize, to: Destination, bytes: &[u8]) {
        let frame = self.frame(rank, true, bytes);
        self.submit(rank, to, frame, None);
    }

    /// The second member gets a long frame: it may lose the first that comes when none came for long.
    fn expect_long(&mut self) {
        for _ in 0..100 {
            let long = self.members[0].channel.long.as_ref().expect("somebody asks for it who knows");
            let bytes = vec![0; 2 * OPTIONS.frame_bytes];
            let frame = write(long, &bytes).expect("those before have come back");
            self.submit(0, Destination::One(Rank(1)), frame, None);
            for _ in 0..1000 {
                self.turn();
            }
            if !std::mem::take(&mut self.members[1].got).is_empty() {
                return;
            }
        }
        panic!("no long frame arrives");
    }

    /// One iteration of everybody's driver loop.
    pub(crate) fn turn(&mut self) {
        for peer in self.members.iter_mut().filter(|peer| peer.alive) {
            let got = &mut peer.got;
            peer.transport.reap();
            peer.transport.receive(GENTLE, &mut |received: Received| got.push(received.bytes().to_vec()));
            peer.transport.flush();
        }
    }

    /// Takes turns until every member has got `counts` frames in all; then a few more, in which nothing may come.
    pub(crate) fn until(&mut self, counts: &[usize]) {
        let deadline = Instant::now() + PATIENCE;
        let short = |party: &Party<B>| {
            let alive = party.members.iter().zip(counts).filter(|(peer, _)| peer.alive);
            alive.into_iter().any(|(peer, count)| peer.got.len() < *count)
        };
        while short(self) && Instant::now() < deadline {
            self.turn();
        }
        for _ in 0..20 {
            self.turn();
        }
        for (rank, (peer, count)) in self.members.iter().zip(counts).enumerate() {
            assert!(!peer.alive || peer.got.len() == *count, "member {rank}: {} of {count}", peer.got.len());
        }
    }

    /// Ends a member without a word.
    pub(crate) fn kill(&mut self, rank: usize) {
        let Peer { transport, channel, .. } = self.members.remove(rank);
        drop(transport);
        self.members
            .insert(rank, Peer { transport: self.bed.transport(rank), channel, got: vec![], alive: false });
    }

    /// With nothing under way and nobody holding anything, every frame is back where it belongs.
    pub(crate) fn assert_all_frames_are_back(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let out: Vec<_> = self
                .members
                .iter()
                .zip(&self.lent_at_start)
                .filter(|(peer, _)| peer.alive)
                .map(|(peer, at_start)| {
                    let lent = B::lent(&peer.transport).abs_diff(*at_start);
                    (peer.channel.casts.usage().lent, peer.channel.control.usage().lent, lent)
                })
                .collect();
            if out.iter().all(|lent| *lent == (0, 0, 0)) {
                return;
            }
            assert!(Instant::now() < deadline, "frames out (casts, control, the transport's own): {out:?}");
            self.turn();
        }
    }
}

pub(crate) fn incarnation(rank: usize) -> Incarnation {
    Incarnation(rank as u64 + 100)
}

pub(crate) fn write(region: &Region, bytes: &[u8]) -> Option<Frame> {
    let mut frame = region.take(0).ok()?;
    frame.extend(bytes).unwrap();
    Some(frame.freeze())
}

/// `length` bytes that differ with the seed and from place to place.
pub(crate) fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (seed.wrapping_mul(31) ^ at.wrapping_mul(7) ^ (at >> 8)) as u8).collect()
}

/// Path (0 cast, 1 send), sender and number, and bytes that follow from them.
fn numbered(path: u8, sender: usize, number: usize) -> Vec<u8> {
    let mut bytes = vec![path, sender as u8];
    bytes.extend((number as u32).to_le_bytes());
    bytes.extend(pattern(number + sender, 10 + number * 37 % 900));
    bytes
}

fn number(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes[2..6].try_into().unwrap()) as usize
}

pub(crate) fn everything_arrives_once_in_order_and_unchanged<B: Bed>(bed: B) {
    const CASTS: usize = 2_000;
    let mut party = Party::new(bed, 3);
    for at in 0..CASTS {
        for sender in 0..3 {
            party.cast(sender, &numbered(0, sender, at));
            party.send(sender, Destination::One(Rank::at((sender + 1) % 3)), &numbered(1, sender, at));
        }
        party.turn();
        // A turn later all has arrived, or little is under way.
        let expected = (at + 1) * 3;
        if at % 8 == 0 {
            party.until(&[expected; 3]);
        }
    }
    party.until(&[CASTS * 3; 3]);
    let reorders = party.caps().reorders;
    for (rank, peer) in party.members.iter().enumerate() {
        for sender in (0..3).filter(|sender| *sender != rank) {
            let from: Vec<_> = peer.got.iter().filter(|bytes| bytes[1] as usize == sender).collect();
            for path in 0..=u8::from(rank == (sender + 1) % 3) {
                let numbers = from.iter().filter(|bytes| bytes[0] == path);
                assert!(numbers.map(|bytes| number(bytes)).eq(0..CASTS), "{sender} to {rank}, path {path}");
            }
            assert!(from.iter().all(|bytes| **bytes == numbered(bytes[0], sender, number(bytes))));
            if !reorders && rank == (sender + 1) % 3 {
                let paths = from.iter().map(|bytes| bytes[0]);
                assert!(paths.eq((0..CASTS * 2).map(|at| (at % 2) as u8)), "casts and sends in one order");
            }
        }
        assert!(peer.got.iter().all(|bytes| bytes[1] as usize != rank), "nobody gets its own frames");
    }
    party.assert_all_frames_are_back();
}

pub(crate) fn frames_of_every_size_arrive_unchanged<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 2);
    for length in 1..=OPTIONS.frame_bytes {
        party.cast(0, &pattern(length, length));
        if length % 32 == 0 {
            party.until(&[0, length]);
        }
    }
    party.until(&[0, OPTIONS.frame_bytes]);
    for (at, bytes) in party.members[1].got.iter().enumerate() {
        assert_eq!(*bytes, pattern(at + 1, at + 1));
    }
    party.assert_all_frames_are_back();
}

pub(crate) fn a_frame_that_is_too_long_is_dropped_and_counted_and_the_next_one_goes<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 2);
    let largest = OPTIONS.frame_bytes;
    // Long frames are for much, but what is not longer than they are is carried wherever it lies.
    let carried = party.members[0].channel.long.as_ref().map_or(largest, |long| long.frame_bytes());
    if carried > largest {
        party.expect_long();
    }
    let (mut expected, mut too_long) = (Vec::new(), 0);
    for (extra, number) in [(0, 1), (1, 2), (largest, 3), (0, 4)] {
        let body = party.frame(0, false, &pattern(number, largest / 2 + extra / 2));
        let head = party.frame(0, true, &pattern(number, largest - largest / 2 + extra.div_ceil(2)));
        expected.push(body.bytes().len());
        match body.bytes().len() + head.bytes().len() {
            whole if whole > carried => too_long += 1,
            whole => expected.push(whole),
        }
        let slice = Slice { from: body.start(), to: body.end(), frame: body.clone() };
        // What is retained has been submitted before.
        party.submit(0, Destination::All, body, None);
        party.submit(0, Destination::All, head, Some(slice));
        party.members[0].transport.flush();
    }
    party.until(&[0, expected.len()]);
    assert_eq!(party.members[0].transport.counters().dropped, too_long);
    assert!(too_long > 0 || carried > 2 * largest);
    let mut lengths: Vec<_> = party.members[1].got.iter().map(Vec::len).collect();
    lengths.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lengths, expected, "four bodies, and the frames of two parts that are not too long");
    party.assert_all_frames_are_back();
}

pub(crate) fn everybody_named_gets_the_frame_and_nobody_else<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 4);
    let some = |ranks: &[usize]| Destination::Some(ranks.iter().copied().map(Rank::at).collect::<RankSet>());
    let cases: [(Destination, [usize; 4]); 7] = [
        (Destination::All, [0, 1, 1, 1]),
        (Destination::One(Rank(2)), [0, 0, 1, 0]),
        (Destination::One(Rank(0)), [0, 0, 0, 0]),
        (some(&[1, 3]), [0, 1, 0, 1]),
        (some(&[0, 3]), [0, 0, 0, 1]),
        (some(&[]), [0, 0, 0, 0]),
        (some(&[0, 1, 2, 3]), [0, 1, 1, 1]),
    ];
    let mut counts = [0; 4];
    for control in [false, true] {
        for (at, (to, gets)) in cases.into_iter().enumerate() {
            let frame = party.frame(0, control, &[at as u8; 50]);
            party.submit(0, to, frame, None);
            party.members[0].transport.flush();
            (0..4).for_each(|rank| counts[rank] += gets[rank]);
            party.until(&counts);
            for (rank, peer) in party.members.iter().enumerate().filter(|(rank, _)| gets[*rank] > 0) {
                assert_eq!(peer.got.last().unwrap(), &[at as u8; 50], "case {at} at member {rank}");
            }
        }
    }
    party.assert_all_frames_are_back();
}

pub(crate) fn a_head_and_a_retained_body_arrive_as_one_frame<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 3);
    let retained = party.frame(0, false, &pattern(1, 600));
    party.submit(0, Destination::All, retained.clone(), None);
    for (number, to) in
        [Destination::All, Destination::One(Rank(1)), Destination::All].into_iter().enumerate()
    {
        let head = party.frame(0, true, &pattern(2 + number, 40));
        let from = retained.start() + 100 * number;
        let slice = Slice { frame: retained.clone(), from, to: retained.end() };
        party.submit(0, to, head, Some(slice));
    }
    party.members[0].transport.flush();
    party.until(&[0, 4, 3]);
    assert_eq!(retained.bytes(), pattern(1, 600), "the retained frame is as it was");
    drop(retained);
    let again = |number: usize| [pattern(2 + number, 40), pattern(1, 600)[100 * number..].to_vec()].concat();
    let mut got = party.members[1].got.clone();
    let mut expected = [pattern(1, 600), again(0), again(1), again(2)];
    // Where casts and sends may overtake each other, only what came is compared.
    if party.caps().reorders {
        got.sort();
        expected.sort();
    }
    assert_eq!(got, expected);
    party.assert_all_frames_are_back();
}

pub(crate) fn a_batch_may_be_as_long_as_the_region<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 3);
    for round in 0..4 {
        let frames: Vec<_> = (0..OPTIONS.cast_frames / 2)
            .map(|at| write(&party.members[0].channel.casts, &pattern(at + round, 900)).unwrap())
            .collect();
        for frame in frames {
            let channel = party.members[0].channel.id;
            let transmit = Transmit { channel, to: Destination::All, head: frame, body: None };
            party.members[0].transport.submit(transmit).unwrap();
        }
        party.members[0].transport.flush();
        let count = (round + 1) * OPTIONS.cast_frames / 2;
        party.until(&[0, count, count]);
    }
    for (at, bytes) in party.members[2].got.iter().enumerate() {
        let (round, at) = (at / (OPTIONS.cast_frames / 2), at % (OPTIONS.cast_frames / 2));
        assert_eq!(*bytes, pattern(at + round, 900));
    }
    party.assert_all_frames_are_back();
}

/// A medium that does not lose pushes back when receivers do not receive, and then nothing is lost.
pub(crate) fn back_pressure_refuses_whole_frames_and_loses_none<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 3);
    if party.caps().loses {
        lose_what_there_is_no_room_for(party);
        return;
    }
    let mut accepted = 0;
    let mut refused = None;
    for at in 0..1_000_000 {
        let Some(head) = write(&party.members[0].channel.casts, &pattern(at, 100)) else { break };
        let channel = party.members[0].channel.id;
        let transmit = Transmit { channel, to: Destination::All, head, body: None };
        match party.members[0].transport.submit(transmit) {
            Ok(()) => accepted += 1,
            Err(Full(transmit)) => {
                assert_eq!(transmit.head.bytes(), pattern(at, 100), "the very frame comes back");
                refused = Some(transmit.head);
                break;
            }
        }
        party.members[0].transport.flush();
        assert!(accepted < 1_000_000, "somewhere there is a limit");
    }
    if let Some(frame) = refused {
        party.submit(0, Destination::All, frame, None);
        accepted += 1;
    }
    party.until(&[0, accepted, accepted]);
    for peer in &party.members[1..] {
        assert!(peer.got.iter().enumerate().all(|(at, bytes)| *bytes == pattern(at, 100)));
    }
    party.assert_all_frames_are_back();
}

/// A medium that loses takes what it has no room for, or gives the very frame back; what it took comes whole, once and in the order
/// of its submission, or not at all. Afterwards it takes frames again, they arrive, and no frame is missing.
fn lose_what_there_is_no_room_for<B: Bed>(mut party: Party<B>) {
    let channel = party.members[0].channel.id;
    // Nobody receives meanwhile, nor is anything flushed before a frame is refused or there is none.
    let mut accepted: Vec<Vec<u8>> = Vec::new();
    let mut refused = 0;
    for at in 0..OPTIONS.cast_frames * 8 {
        let bytes = [&(at as u64).to_le_bytes()[..], &pattern(at, 100)].concat();
        let Some(head) = write(&party.members[0].channel.casts, &bytes) else {
            party.members[0].transport.flush();
            party.members[0].transport.reap();
            continue;
        };
        let transmit = Transmit { channel, to: Destination::All, head, body: None };
        match party.members[0].transport.submit(transmit) {
            Ok(()) => accepted.push(bytes),
            Err(Full(transmit)) => {
                assert_eq!(transmit.head.bytes(), bytes, "the very frame comes back");
                assert_eq!(transmit.channel, channel);
                refused += 1;
                party.members[0].transport.flush();
                party.members[0].transport.reap();
            }
        }
    }
    assert!(accepted.len() >= OPTIONS.cast_frames, "{} accepted, {refused} refused", accepted.len());
    party.members[0].transport.flush();
    party.assert_all_frames_are_back();
    // What was taken is received, until a frame that was sent when there was room again has come to everybody.
    let last = b"there is room again";
    let deadline = Instant::now() + PATIENCE;
    let has_last = |peer: &Peer<B::Transport>| peer.got.iter().any(|bytes| bytes == last);
    while !party.members[1..].iter().all(has_last) {
        assert!(Instant::now() < deadline, "nothing arrives any more");
        // Who has had it may have it again: this is a medium that loses.
        party.cast(0, last);
        for _ in 0..20 {
            party.turn();
        }
    }
    for peer in &party.members[1..] {
        let mut left = accepted.iter();
        for got in peer.got.iter().filter(|bytes| *bytes != last) {
            assert!(left.any(|bytes| bytes == got), "whole, once, in order");
        }
    }
    party.assert_all_frames_are_back();
}

pub(crate) fn a_closed_channel_gives_everything_back_and_the_next_view_opens<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 3);
    for view in 2..5 {
        party.cast(0, &pattern(view, 300));
        party.members.iter_mut().for_each(|peer| peer.got.clear());
        party.members[0].transport.flush();
        party.until(&[0, 1, 1]);
        // The old channels end with frames staged, and the new ones begin while some are still open.
        party.cast(1, &pattern(view, 300));
        party.view.id.counter = view as u64;
        for (rank, peer) in party.members.iter_mut().enumerate() {
            let local = LocalView::new(party.view.clone(), incarnation(rank)).unwrap();
            let next = peer.transport.open(&local, &OPTIONS).unwrap();
            assert_ne!(next.id, peer.channel.id);
            peer.transport.close(peer.channel.id);
            peer.channel = next;
        }
        let deadline = Instant::now() + PATIENCE;
        // What was under way may still come, or not; then the new view carries.
        for _ in 0..50 {
            party.turn();
        }
        party.members.iter_mut().for_each(|peer| peer.got.clear());
        party.cast(2, &pattern(7, 70));
        party.members[2].transport.flush();
        while party.members[0].got.is_empty() && Instant::now() < deadline {
            party.turn();
        }
        assert_eq!(party.members[0].got, [pattern(7, 70)]);
    }
    for peer in &mut party.members {
        peer.transport.close(peer.channel.id);
        let head = write(&peer.channel.casts, &[1]).unwrap();
        let transmit = Transmit { channel: peer.channel.id, to: Destination::All, head, body: None };
        let dropped = peer.transport.counters().dropped;
        peer.transport.submit(transmit).expect("a closed channel swallows what comes late");
        assert_eq!(peer.transport.counters().dropped, dropped + 1);
        assert_eq!((peer.channel.casts.usage().lent, peer.channel.control.usage().lent), (0, 0));
    }
}

pub(crate) fn a_dead_member_disturbs_nobody_and_its_frames_stay_readable<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 3);
    party.cast(2, &pattern(3, 500));
    party.members[2].transport.flush();
    let deadline = Instant::now() + PATIENCE;
    let mut held = Vec::new();
    while held.is_empty() && Instant::now() < deadline {
        party.members[0].transport.receive(1, &mut |received: Received| held.push(received));
    }
    party.until(&[0, 1, 0]);
    party.kill(2);
    for at in 0..1_000 {
        party.cast(0, &pattern(at, 200));
        party.send(1, Destination::All, &pattern(at, 100));
        party.turn();
        if at % 32 == 0 {
            party.until(&[at + 1, at + 2, 0]);
        }
    }
    party.until(&[1_000, 1_001, 0]);
    assert_eq!(held[0].bytes(), pattern(3, 500));
    drop(held);
    party.assert_all_frames_are_back();
}

pub(crate) fn the_receive_budget_is_kept_and_nothing_is_skipped<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 2);
    for budget in [1, 2, 3, 7, 50] {
        for at in 0..GENTLE {
            party.cast(0, &pattern(at, 400));
        }
        party.members[0].transport.flush();
        assert_eq!(party.members[1].transport.receive(0, &mut |_| panic!("beyond a budget of nothing")), 0);
        let deadline = Instant::now() + PATIENCE;
        let mut got = Vec::new();
        while got.len() < GENTLE && Instant::now() < deadline {
            let before = got.len();
            let count = party.members[1]
                .transport
                .receive(budget, &mut |received| got.push(received.bytes().to_vec()));
            assert_eq!(got.len() - before, count);
            assert!(count <= budget);
            party.members[0].transport.reap();
        }
        assert!(got.iter().enumerate().all(|(at, bytes)| *bytes == pattern(at, 400)));
        assert_eq!(got.len(), GENTLE);
    }
    party.assert_all_frames_are_back();
}

pub(crate) fn as_many_frames_may_be_held_as_were_asked_for_while_others_come_and_go<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 2);
    let mut held: Vec<Received> = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    while held.len() < OPTIONS.receive_frames && Instant::now() < deadline {
        if sent - held.len() < 16 {
            party.cast(0, &pattern(sent, 600));
            sent += 1;
        }
        party.members[0].transport.flush();
        party.members[0].transport.reap();
        party.members[1]
            .transport
            .receive(OPTIONS.receive_frames - held.len(), &mut |received: Received| held.push(received));
    }
    assert_eq!(held.len(), OPTIONS.receive_frames);
    let rest = sent - held.len();
    for at in 0..2_000 {
        party.cast(0, &pattern(at, 600));
        party.turn();
        if at % 32 == 0 {
            party.until(&[0, rest + at + 1]);
        }
    }
    party.until(&[0, rest + 2_000]);
    assert!(held.iter().enumerate().all(|(at, received)| received.bytes() == pattern(at, 600)));
    held.clear();
    party.assert_all_frames_are_back();
}

pub(crate) fn waiting_ends_when_a_frame_comes_or_the_time_is_over<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 2);
    let start = Instant::now();
    party.members[1].transport.wait(Duration::from_millis(20));
    assert!(start.elapsed() < PATIENCE / 2);
    party.cast(0, &[1; 10]);
    party.members[0].transport.flush();
    let start = Instant::now();
    while party.members[1].got.is_empty() && start.elapsed() < PATIENCE {
        party.members[1].transport.wait(PATIENCE);
        party.turn();
    }
    assert!(start.elapsed() < PATIENCE / 2, "a frame that has come ends the wait");
    party.until(&[0, 1]);
}

pub(crate) fn another_thread_ends_the_wait_and_an_early_wake_is_not_forgotten<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 2);
    let start = Instant::now();
    for _ in 0..100 {
        let waker = party.members[0].transport.waker();
        let thread = std::thread::spawn(move || waker.wake());
        party.members[0].transport.wait(PATIENCE);
        thread.join().unwrap();
        assert!(start.elapsed() < PATIENCE);
    }
    party.members[0].transport.waker().wake();
    party.members[0].transport.wait(PATIENCE);
    assert!(start.elapsed() < PATIENCE);
}

/// An address, or a place in a view, that somebody holds already.
pub(crate) fn a_place_that_is_taken_is_refused_in_words_and_its_holder_is_not_disturbed<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 2);
    let mut second = party.bed.transport(0);
    let local = LocalView::new(party.view.clone(), incarnation(0)).unwrap();
    let error = second.open(&local, &OPTIONS).unwrap_err().to_string();
    assert!(error.contains("in use") || error.contains("exists already"), "{error}");
    drop(second);
    party.cast(1, &[5; 20]);
    party.cast(0, &[6; 20]);
    party.until(&[1, 1]);
    party.assert_all_frames_are_back();
}

/// One test per promise, for a transport whose bed is made by `$bed`.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $bed:expr) => {
        $crate::conformance!($name, $bed;
            everything_arrives_once_in_order_and_unchanged,
            frames_of_every_size_arrive_unchanged,
            a_frame_that_is_too_long_is_dropped_and_counted_and_the_next_one_goes,
            everybody_named_gets_the_frame_and_nobody_else,
            a_head_and_a_retained_body_arrive_as_one_frame,
            a_batch_may_be_as_long_as_the_region,
            back_pressure_refuses_whole_frames_and_loses_none,
            a_closed_channel_gives_everything_back_and_the_next_view_opens,
            a_dead_member_disturbs_nobody_and_its_frames_stay_readable,
            the_receive_budget_is_kept_and_nothing_is_skipped,
            a_flooded_channel_leaves_the_others_their_turn,
            a_flood_of_sends_leaves_casts_their_turn,
            as_many_frames_may_be_held_as_were_asked_for_while_others_come_and_go,
            waiting_ends_when_a_frame_comes_or_the_time_is_over,
            another_thread_ends_the_wait_and_an_early_wake_is_not_forgotten,
            a_place_that_is_taken_is_refused_in_words_and_its_holder_is_not_disturbed,
        );
    };
    ($name:ident, $bed:expr; $($promise:ident,)+) => {
        mod $name {
            use super::*;
            $(
                #[test]
                fn $promise() {
                    $crate::conformance::$promise($bed);
                }
            )+
        }
    };
}
