//! What every transport promises to groups that live: messages outside any view, members that are excluded, views that
//! follow each other.

use std::time::{Duration, Instant};

use wadjet::id::{GroupId, Incarnation, Rank, RankSet, ViewId};
use wadjet::transport::{
    Channel, ChannelId, Destination, OUTSIDE_BYTES_MAX, Outside, Received, Transmit, Transport,
    TransportError,
};
use wadjet::view::{Address, LocalView, Member, View};

use super::{Bed, OPTIONS, PATIENCE, Party, incarnation, pattern, write};

/// Messages that may be under way to one process at once without being lost.
const FEW: usize = 8;

/// Processes that are reachable outside any view.
struct Bound<B: Bed> {
    bed: B,
    ends: Vec<End<B::Transport>>,
}

struct End<T> {
    transport: T,
    /// What it got outside any view, and by channels.
    letters: Vec<Vec<u8>>,
    frames: Vec<Vec<u8>>,
}

impl<B: Bed> Bound<B> {
    fn new(mut bed: B, count: usize) -> Bound<B> {
        let ends = (0..count).map(|rank| {
            let mut transport = bed.transport(rank);
            let address = bed.address(rank);
            assert_eq!(transport.bind(group(), &address).unwrap(), address, "as others must name it");
            End { transport, letters: Vec::new(), frames: Vec::new() }
        });
        let ends = ends.collect();
        Bound { bed, ends }
    }

    fn send(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let to = Outside::To(self.bed.address(to));
        self.ends[from].transport.send_outside(group(), &to, bytes);
    }

    /// Opens a view of all processes.
    fn open(&mut self) -> Vec<Channel> {
        let members = (0..self.ends.len())
            .map(|rank| Member { incarnation: incarnation(rank), address: self.bed.address(rank) })
            .collect();
        let view = View {
            group: group(),
            id: ViewId { counter: 1, coordinator: Incarnation(1) },
            members,
            spec: String::new(),
            wire_version: 1,
            salt: 0,
            frame_bytes: 0,
        };
        let open = |(rank, end): (usize, &mut End<B::Transport>)| {
            end.transport.open(&LocalView::new(view.clone(), incarnation(rank)).unwrap(), &OPTIONS).unwrap()
        };
        self.ends.iter_mut().enumerate().map(open).collect()
    }

    fn turn(&mut self) {
        for End { transport, letters, frames } in &mut self.ends {
            transport.reap();
            let count = transport.receive(FEW, &mut |received: Received| {
                let outside = received.channel == ChannelId::OUTSIDE;
                if outside { &mut *letters } else { &mut *frames }.push(received.bytes().to_vec());
            });
            assert!(count <= FEW, "letters count against the budget");
            transport.flush();
        }
    }

    /// Takes turns until everybody has got so many letters; then a few more, in which nothing may come.
    fn until(&mut self, counts: &[usize]) {
        let deadline = Instant::now() + PATIENCE;
        while self.ends.iter().zip(counts).any(|(end, count)| end.letters.len() < *count) {
            assert!(Instant::now() < deadline, "letters are missing");
            self.turn();
        }
        for _ in 0..20 {
            self.turn();
        }
        for (rank, (end, count)) in self.ends.iter().zip(counts).enumerate() {
            assert_eq!(end.letters.len(), *count, "process {rank}");
        }
    }
}

fn group() -> GroupId {
    GroupId::named("conformance")
}

pub(crate) fn a_message_reaches_the_address_it_names_and_nobody_else<B: Bed>(bed: B) {
    let mut bound = Bound::new(bed, 3);
    let lent: Vec<usize> = bound.ends.iter().map(|end| B::lent(&end.transport)).collect();
    let lengths = [1, 2, 63, 64, 65, 500, OUTSIDE_BYTES_MAX - 1, OUTSIDE_BYTES_MAX];
    for round in 1..=40 {
        for (at, length) in lengths.iter().enumerate() {
            bound.send(0, 1, &pattern(at + round, *length));
        }
        bound.send(1, 2, &pattern(round, 10));
        bound.send(2, 2, &pattern(round, 11));
        bound.until(&[0, round * lengths.len(), round * 2]);
    }
    for (at, letter) in bound.ends[1].letters.iter().enumerate() {
        let (round, at) = (1 + at / lengths.len(), at % lengths.len());
        assert_eq!(*letter, pattern(at + round, lengths[at]));
    }
    let after: Vec<usize> = bound.ends.iter().map(|end| B::lent(&end.transport)).collect();
    assert_eq!(lent, after, "every frame comes back");
    assert!(bound.ends.iter().all(|end| end.frames.is_empty()));
}

pub(crate) fn discovery_reaches_every_other_process_of_the_group<B: Bed>(bed: B) {
    let mut bound = Bound::new(bed, 3);
    let mut stranger = bound.bed.transport(3);
    let address = bound.bed.address(3);
    stranger.bind(GroupId::named("another group"), &address).unwrap();
    for round in 1..=20 {
        bound.ends[1].transport.send_outside(group(), &Outside::Discover, &pattern(round, 100));
        bound.until(&[round, 0, round]);
    }
    assert!(bound.ends[2].letters.iter().enumerate().all(|(at, letter)| *letter == pattern(at + 1, 100)));
    for _ in 0..20 {
        stranger.receive(FEW, &mut |_| panic!("not of this group"));
    }
}

pub(crate) fn a_message_too_long_is_dropped_and_counted_and_one_to_nobody_is_lost<B: Bed>(bed: B) {
    let mut bound = Bound::new(bed, 2);
    bound.send(0, 1, &pattern(1, OUTSIDE_BYTES_MAX + 1));
    bound.send(0, 1, &pattern(1, OUTSIDE_BYTES_MAX * 100));
    assert_eq!(bound.ends[0].transport.counters().dropped, 2);
    for _ in 0..100 {
        bound.send(0, 7, b"to nobody");
    }
    bound.send(0, 1, b"goes");
    bound.until(&[0, 1]);
    assert_eq!(bound.ends[1].letters, [b"goes"]);
}

pub(crate) fn an_address_is_held_by_one_process_until_it_lets_go<B: Bed>(bed: B) {
    let mut bound = Bound::new(bed, 2);
    let (first, third) = (bound.bed.address(0), bound.bed.address(2));
    let mut second = bound.bed.transport(0);
    let error = second.bind(group(), &first).unwrap_err();
    assert!(matches!(&error, TransportError::AddressInUse(address) if *address == first), "{error}");
    bound.send(1, 0, b"the holder is not disturbed");
    bound.until(&[1, 0]);
    assert_eq!(bound.ends[0].transport.bind(group(), &first).unwrap(), first, "bound there already");
    // Bound anew, it lets go of the old address.
    bound.ends[0].transport.bind(group(), &third).unwrap();
    let none = second.bind(group(), &Address(String::new())).unwrap_err();
    assert!(matches!(none, TransportError::BadAddress(..)), "{none}");
    second.bind(group(), &first).unwrap();
    bound.send(1, 2, b"moved");
    bound.until(&[2, 0]);
    drop(second);
    let old = bound.ends.remove(0);
    drop(old);
    for address in [first, third] {
        let mut next = bound.bed.transport(0);
        next.bind(group(), &address).unwrap();
    }
}

pub(crate) fn who_is_bound_nowhere_can_send<B: Bed>(bed: B) {
    let mut bound = Bound::new(bed, 2);
    let mut caller = bound.bed.transport(2);
    let to = Outside::To(bound.bed.address(1));
    for round in 1..=20 {
        caller.send_outside(group(), &to, b"let me in");
        caller.flush();
        bound.until(&[0, round]);
    }
}

pub(crate) fn messages_outside_and_frames_of_a_view_do_not_disturb_each_other<B: Bed>(bed: B) {
    let mut bound = Bound::new(bed, 2);
    let channels = bound.open();
    for round in 1..=200 {
        bound.send(0, 1, &pattern(round, 50));
        let head = write(&channels[0].casts, &pattern(round, 60)).unwrap();
        let transmit = Transmit { channel: channels[0].id, to: Destination::All, head, body: None };
        bound.ends[0].transport.submit(transmit).unwrap();
        bound.ends[0].transport.flush();
        bound.until(&[0, round]);
        let deadline = Instant::now() + PATIENCE;
        while bound.ends[1].frames.len() < round && Instant::now() < deadline {
            bound.turn();
        }
    }
    let all = |got: &[Vec<u8>], length| (1..=200).map(|round| pattern(round, length)).eq(got.iter().cloned());
    assert!(all(&bound.ends[1].letters, 50) && all(&bound.ends[1].frames, 60));
    // A view that ends takes nothing with it.
    for (end, channel) in bound.ends.iter_mut().zip(&channels) {
        end.transport.close(channel.id);
    }
    bound.send(1, 0, b"still there");
    bound.until(&[1, 200]);
}

pub(crate) fn a_message_from_outside_comes_though_there_are_always_more_frames<B: Bed>(bed: B) {
    let mut bound = Bound::new(bed, 2);
    let channels = bound.open();
    let mut letters = 0;
    for _ in 0..10_000 {
        bound.send(0, 1, b"let me in");
        for _ in 0..2 {
            // Whose rings are full has enough for the other to take.
            if let Some(head) = write(&channels[0].casts, &pattern(1, 60)) {
                let transmit = Transmit { channel: channels[0].id, to: Destination::All, head, body: None };
                let _ = bound.ends[0].transport.submit(transmit);
            }
        }
        bound.ends[0].transport.flush();
        bound.ends[0].transport.reap();
        let receiver = &mut bound.ends[1].transport;
        receiver.reap();
        receiver.receive(1, &mut |received| letters += usize::from(received.bytes() == b"let me in"));
        if letters == 3 {
            return;
        }
    }
    panic!("{letters} letters of 10000");
}

pub(crate) fn waiting_ends_when_a_message_comes_from_outside<B: Bed>(bed: B) {
    let mut bound = Bound::new(bed, 2);
    for round in 1..=5 {
        bound.send(0, 1, b"wake up");
        let start = Instant::now();
        while bound.ends[1].letters.len() < round && start.elapsed() < PATIENCE {
            bound.ends[1].transport.wait(PATIENCE);
            bound.turn();
        }
        assert!(start.elapsed() < PATIENCE / 2);
    }
    let start = Instant::now();
    bound.ends[1].transport.wait(Duration::from_millis(5));
    assert!(start.elapsed() < PATIENCE, "with nothing there, it ends with its time");
}

pub(crate) fn nobody_waits_for_an_excluded_member_and_nothing_is_sent_to_it<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 3);
    party.cast(2, &pattern(2, 300));
    party.members[2].transport.flush();
    let deadline = Instant::now() + PATIENCE;
    let mut held = Vec::new();
    while held.is_empty() && Instant::now() < deadline {
        party.members[0].transport.receive(1, &mut |received: Received| held.push(received));
    }
    party.until(&[0, 1, 0]);
    // It stops. The others exclude it; twice does no harm.
    party.members[2].alive = false;
    for _ in 0..2 {
        for member in &mut party.members[..2] {
            member.transport.exclude(member.channel.id, Rank(2));
        }
    }
    const CASTS: usize = 4_000;
    for at in 0..CASTS {
        party.cast(0, &pattern(at, 200));
        party.send(0, Destination::One(Rank(2)), b"not to be sent");
        party.send(1, Destination::Some(RankSet::one(Rank(2))), b"not to be sent");
        party.send(1, Destination::All, &pattern(at, 100));
        party.turn();
        if at % 32 == 0 {
            party.until(&[at + 1, at + 2, 0]);
        }
    }
    party.until(&[CASTS, CASTS + 1, 0]);
    let busy = |party: &Party<B>| party.members[0].transport.busy(party.members[0].channel.id);
    let deadline = Instant::now() + PATIENCE;
    while busy(&party) && Instant::now() < deadline {
        party.turn();
    }
    assert!(!busy(&party), "an excluded member is not behind");
    assert_eq!(held[0].bytes(), pattern(2, 300));
    let id = party.members[0].channel.id;
    assert!(party.members[0].transport.intact(id, &held[0].frame));
    drop(held);
    party.assert_all_frames_are_back();
    // It goes on: nothing that was for it alone has been sent.
    party.members[2].alive = true;
    for _ in 0..50 {
        party.turn();
    }
    assert!(party.members[2].got.iter().all(|bytes| bytes != b"not to be sent"));
}

pub(crate) fn views_follow_each_other_and_closed_channels_are_ignored<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 2);
    let mut closed: Vec<ChannelId> = Vec::new();
    for view in 2..40 {
        party.view.id.counter = view;
        for (rank, peer) in party.members.iter_mut().enumerate() {
            peer.transport.prepare(&OPTIONS);
            let local = LocalView::new(party.view.clone(), incarnation(rank)).unwrap();
            let next = peer.transport.open(&local, &OPTIONS).unwrap();
            peer.transport.close(peer.channel.id);
            if rank == 0 {
                closed.push(peer.channel.id);
            }
            peer.channel = next;
            peer.got.clear();
        }
        let deadline = Instant::now() + PATIENCE;
        party.cast(0, &pattern(view as usize, 80));
        party.members[0].transport.flush();
        while party.members[1].got.is_empty() && Instant::now() < deadline {
            party.turn();
        }
        assert_eq!(party.members[1].got, [pattern(view as usize, 80)]);
    }
    let frame = party.frame(0, true, &[1]);
    let Party { members, .. } = &mut party;
    let transport = &mut members[0].transport;
    assert!(closed.iter().enumerate().all(|(at, id)| !closed[..at].contains(id)), "no id is used twice");
    for id in closed.iter().copied().chain([ChannelId::OUTSIDE]) {
        let dropped = transport.counters().dropped;
        let transmit = Transmit { channel: id, to: Destination::All, head: frame.clone(), body: None };
        transport.submit(transmit).unwrap();
        assert_eq!(transport.counters().dropped, dropped + 1);
        transport.exclude(id, Rank(1));
        transport.close(id);
        assert!(!transport.busy(id) && transport.gone(id).is_empty());
    }
    drop(frame);
    party.cast(0, b"the open one is as it was");
    party.members[0].transport.flush();
    party.until(&[0, 2]);
}

/// One test per promise to live groups, for a transport whose bed is made by `$bed`.
#[macro_export]
macro_rules! conformance_live {
    ($name:ident, $bed:expr) => {
        $crate::conformance!($name, $bed;
            a_message_reaches_the_address_it_names_and_nobody_else,
            discovery_reaches_every_other_process_of_the_group,
            a_message_too_long_is_dropped_and_counted_and_one_to_nobody_is_lost,
            an_address_is_held_by_one_process_until_it_lets_go,
            who_is_bound_nowhere_can_send,
            messages_outside_and_frames_of_a_view_do_not_disturb_each_other,
            a_message_from_outside_comes_though_there_are_always_more_frames,
            waiting_ends_when_a_message_comes_from_outside,
            nobody_waits_for_an_excluded_member_and_nothing_is_sent_to_it,
            views_follow_each_other_and_closed_channels_are_ignored,
        );
    };
}
