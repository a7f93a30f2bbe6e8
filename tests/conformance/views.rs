//! What live groups ask of a transport: one view after the other, members that are excluded, and messages outside any
//! view.

use std::time::Instant;

use super::{Bed, OPTIONS, PATIENCE, Party, incarnation, pattern, write};
use wadjet::id::{GroupId, Incarnation, Rank, ViewId};
use wadjet::transport::{
    Channel, ChannelId, Destination, OUTSIDE_BYTES_MAX, Outside, Received, Transmit, Transport,
};
use wadjet::view::{Address, LocalView, Member, View};

pub(crate) fn a_view_of_one_member_opens_and_takes_casts<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 1);
    for at in 0..OPTIONS.cast_frames * 3 {
        party.cast(0, &pattern(at, 100));
        party.turn();
    }
    party.until(&[0]);
    party.assert_all_frames_are_back();
}

/// A group that changes its view often, at one address, while somebody still holds frames of views long gone.
pub(crate) fn views_may_follow_each_other_for_long<B: Bed>(bed: B) {
    const VIEWS: usize = 300;
    let mut party = Party::new(bed, 2);
    let mut held: Vec<(usize, Received)> = Vec::new();
    let mut seen = vec![party.members[0].channel.id];
    for view in 2..VIEWS {
        party.view.id.counter = view as u64;
        for (rank, peer) in party.members.iter_mut().enumerate() {
            let local = LocalView::new(party.view.clone(), incarnation(rank)).unwrap();
            let next = peer.transport.open(&local, &OPTIONS).unwrap();
            let old = std::mem::replace(&mut peer.channel, next);
            peer.transport.close(old.id);
            // An id that is over is nobody's, however its place is used.
            let late = write(&old.control, &[9; 9]).unwrap();
            let late = Transmit { channel: old.id, to: Destination::All, head: late, body: None };
            let dropped = peer.transport.counters().dropped;
            peer.transport.submit(late).unwrap();
            assert_eq!(peer.transport.counters().dropped, dropped + 1);
        }
        let id = party.members[0].channel.id;
        assert!(!seen.contains(&id) && id != ChannelId::OUTSIDE);
        seen.push(id);
        let deadline = Instant::now() + PATIENCE;
        let frame = write(&party.members[0].channel.casts, &pattern(view, 200)).unwrap();
        party.submit(0, Destination::All, frame, None);
        party.members[0].transport.flush();
        let before = held.len();
        while held.len() == before {
            assert!(Instant::now() < deadline, "view {view}");
            party.members[0].transport.reap();
            party.members[1].transport.reap();
            party.members[1].transport.receive(1, &mut |received| held.push((view, received)));
        }
        // Some are kept for a few views, some for many.
        held.retain(|(of, _)| of % 16 == 0 || of + 3 > view);
    }
    for (view, received) in &held {
        assert_eq!(received.bytes(), pattern(*view, 200), "of view {view}");
    }
    held.clear();
    for peer in &party.members {
        assert_eq!((peer.channel.casts.usage().lent, peer.channel.control.usage().lent), (0, 0));
    }
}

pub(crate) fn nothing_more_goes_to_a_member_that_is_excluded_nor_waits_for_it<B: Bed>(bed: B) {
    let mut party = Party::new(bed, 3);
    party.cast(0, &pattern(1, 100));
    party.send(0, Destination::One(Rank(2)), &pattern(2, 100));
    party.members[0].transport.flush();
    party.until(&[0, 1, 2]);
    let channel = party.members[0].channel.id;
    // What is staged for it has not gone yet.
    party.send(0, Destination::One(Rank(2)), &pattern(3, 100));
    for _ in 0..2 {
        party.members[0].transport.exclude(channel, Rank(2));
    }
    let multicast = party.caps().multicast;
    // It reads nothing from now on, and holds nobody up.
    let stopped = party.members[2].got.len();
    party.members[2].alive = false;
    for at in 0..OPTIONS.cast_frames * 4 {
        party.cast(0, &pattern(at, 300));
        party.send(0, Destination::One(Rank(2)), &pattern(at, 30));
        party.send(0, Destination::Some([Rank(1), Rank(2)].into_iter().collect()), &pattern(at, 40));
        party.turn();
        if at % 16 == 0 {
            party.until(&[0, 1 + (at + 1) * 2, 0]);
        }
    }
    party.until(&[0, 1 + OPTIONS.cast_frames * 8, 0]);
    party.assert_all_frames_are_back();
    party.members[2].alive = true;
    for _ in 0..50 {
        party.turn();
    }
    let late = &party.members[2].got[stopped..];
    assert!(
        late.iter().all(|bytes| bytes.len() == 100 || multicast && bytes.len() == 300),
        "only what was on its way, and what all get at once"
    );
}

pub(crate) fn messages_outside_any_view_reach_an_address_before_and_after_a_view<B: Bed>(mut bed: B) {
    let group = GroupId::named("outside");
    let mut ends: Vec<_> = (0..2)
        .map(|rank| {
            let mut transport = bed.transport(rank);
            let address = transport.bind(group, &bed.address(rank)).unwrap();
            (transport, address)
        })
        .collect();
    let mut third = bed.transport(0);
    let error = third.bind(group, &bed.address(0)).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    drop(third);
    let say = |ends: &mut Vec<(B::Transport, Address)>, from: usize, length: usize| {
        let to = Outside::To(ends[1 - from].1.clone());
        ends[from].0.send_outside(group, &to, &pattern(length, length));
        let deadline = Instant::now() + PATIENCE;
        let mut got: Vec<Received> = Vec::new();
        while got.is_empty() && Instant::now() < deadline {
            ends[1 - from].0.receive(10, &mut |received| got.push(received));
        }
        assert_eq!(got.len(), 1, "one message of {length} bytes");
        assert_eq!(got[0].bytes(), pattern(length, length));
        got.remove(0).channel
    };
    for length in [1, 700, OUTSIDE_BYTES_MAX] {
        assert_eq!(say(&mut ends, 0, length), ChannelId::OUTSIDE);
        assert_eq!(say(&mut ends, 1, length), ChannelId::OUTSIDE);
    }
    for (bytes, to) in [
        (vec![1; OUTSIDE_BYTES_MAX + 1], Outside::To(ends[1].1.clone())),
        (vec![1; 10], Outside::To(Address("\0 nobody's".into()))),
    ] {
        let dropped = ends[0].0.counters().dropped;
        ends[0].0.send_outside(group, &to, &bytes);
        assert_eq!(ends[0].0.counters().dropped, dropped + 1);
    }
    // A view comes and goes at the same addresses.
    let mut view = view_at(ends.iter().map(|(_, address)| address.clone()));
    for counter in 1..4 {
        view.id.counter = counter;
        let channels: Vec<Channel> = ends
            .iter_mut()
            .enumerate()
            .map(|(rank, (transport, _))| {
                let local = LocalView::new(view.clone(), incarnation(rank)).unwrap();
                transport.open(&local, &OPTIONS).unwrap()
            })
            .collect();
        say(&mut ends, 0, 50);
        let head = write(&channels[1].casts, &pattern(77, 77)).unwrap();
        let transmit = Transmit { channel: channels[1].id, to: Destination::All, head, body: None };
        ends[1].0.submit(transmit).unwrap();
        ends[1].0.flush();
        let deadline = Instant::now() + PATIENCE;
        let mut got = Vec::new();
        while got.is_empty() && Instant::now() < deadline {
            ends[1].0.reap();
            ends[0].0.reap();
            ends[0].0.receive(10, &mut |received| got.push((received.channel, received.bytes().to_vec())));
        }
        assert_eq!(got, [(channels[0].id, pattern(77, 77))]);
        for ((transport, _), channel) in ends.iter_mut().zip(&channels) {
            transport.close(channel.id);
        }
        assert_eq!(say(&mut ends, 1, 60), ChannelId::OUTSIDE, "the address outlives the view");
    }
}

/// Groups that share a process: a member that is flooded in one of them is still heard in the others.
pub(crate) fn a_flooded_channel_leaves_the_others_their_turn<B: Bed>(bed: B) {
    const BUDGET: usize = 4;
    let mut party = Party::new(bed, 2);
    let flooded = party.members[1].channel.id;
    let mut other = party.view.clone();
    other.group = GroupId::named("another");
    let open = |(rank, peer): (usize, &mut super::Peer<B::Transport>)| {
        let local = LocalView::new(other.clone(), incarnation(rank)).unwrap();
        peer.transport.open(&local, &OPTIONS).unwrap()
    };
    let quiet: Vec<Channel> = party.members.iter_mut().enumerate().map(open).collect();
    // The two are connected when something has come.
    let (mut under_way, mut heard, mut asked) = (0_usize, 0, 0);
    let deadline = Instant::now() + PATIENCE;
    while heard < 20 {
        assert!(Instant::now() < deadline, "{heard} of {asked} frames of the other channel");
        while under_way < 8 * BUDGET {
            let Some(frame) = write(&party.members[0].channel.casts, &pattern(1, 100)) else { break };
            party.submit(0, Destination::All, frame, None);
            under_way += 1;
        }
        if heard == asked {
            let frame = write(&quiet[0].casts, &pattern(2, 100)).expect("one is under way");
            let transmit = Transmit { channel: quiet[0].id, to: Destination::All, head: frame, body: None };
            party.members[0].transport.submit(transmit).unwrap();
            asked += 1;
        }
        let sender = &mut party.members[0].transport;
        sender.flush();
        sender.reap();
        party.members[1].transport.reap();
        party.members[1].transport.receive(BUDGET, &mut |received: Received| {
            if received.channel == flooded { under_way -= 1 } else { heard += 1 }
        });
    }
}

/// A member that one other floods with sends, a state say, still hears what a third casts.
pub(crate) fn a_flood_of_sends_leaves_casts_their_turn<B: Bed>(bed: B) {
    const BUDGET: usize = 4;
    let mut party = Party::new(bed, 3);
    let (flood, cast) = (pattern(1, 100), pattern(2, 120));
    let (mut under_way, mut heard, mut asked) = (0_usize, 0, 0);
    let deadline = Instant::now() + PATIENCE;
    while heard < 20 {
        assert!(Instant::now() < deadline, "{heard} of {asked} casts");
        while under_way < 8 * BUDGET {
            let Some(frame) = write(&party.members[0].channel.control, &flood) else { break };
            party.submit(0, Destination::One(Rank(2)), frame, None);
            under_way += 1;
        }
        if heard == asked {
            let frame = write(&party.members[1].channel.casts, &cast).expect("one is under way");
            party.submit(1, Destination::All, frame, None);
            asked += 1;
        }
        for peer in &mut party.members {
            peer.transport.flush();
            peer.transport.reap();
        }
        for rank in [0, 1] {
            party.members[rank].transport.receive(BUDGET, &mut |_| {});
        }
        party.members[2].transport.receive(BUDGET, &mut |received: Received| {
            if received.bytes() == flood { under_way -= 1 } else { heard += 1 }
        });
    }
}

fn view_at(addresses: impl Iterator<Item = Address>) -> View {
    View {
        group: GroupId::named("outside"),
        id: ViewId { counter: 1, coordinator: Incarnation(1) },
        members: addresses
            .enumerate()
            .map(|(rank, address)| Member { incarnation: incarnation(rank), address })
            .collect(),
        spec: String::new(),
        wire_version: 1,
        salt: 0,
        frame_bytes: 0,
    }
}
