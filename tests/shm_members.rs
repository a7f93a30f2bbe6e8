//! The shared-memory transport, from outside: members that come late, stop and go, and what passes outside any view.
#![cfg(target_os = "linux")]

#[path = "common/shm.rs"]
mod ends;

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use ends::{End, PATIENCE, bound, number, numbered, payload, small, socket_of, unique, view};
use wadjet::id::{GroupId, Incarnation, Rank, RankSet};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::{ChannelOptions, Destination, Outside, Transport, TransportError};
use wadjet::view::{Address, LocalView};

// ---- coming and going ----

#[test]
fn a_late_member_gets_what_was_cast_before_it_opened() {
    let group = unique("late");
    let options = ChannelOptions { cast_frames: 1024, ..small() };
    let shm = ShmOptions::default();
    let mut one = End::open_with(&group, 3, 1, &options, &shm).unwrap();
    let mut two = End::open_with(&group, 3, 2, &options, &shm).unwrap();
    one.find(1);
    two.find(1);
    for number in 0..1000_u64 {
        one.cast(&numbered(number)).unwrap();
        assert_eq!(two.receive(4).len(), 1, "those that are there do not wait");
        one.shm.reap();
    }
    let mut three = End::open_with(&group, 3, 3, &options, &shm).unwrap();
    three.find(2);
    let got: Vec<u64> = three.receive(2000).iter().map(|r| number(payload(r))).collect();
    assert_eq!(got, (0..1000).collect::<Vec<_>>());
    one.find(2);
    two.receive(1);
    three.receive(1);
    // Now that all have released it, the ring goes round.
    for number in 1000..3000_u64 {
        one.cast_patiently(&numbered(number));
        assert_eq!((two.receive(4).len(), three.receive(4).len()), (1, 1));
        two.receive(1);
        three.receive(1);
    }
}

#[test]
fn an_incarnation_is_used_once_in_a_view_until_it_is_closed() {
    let group = unique("twice");
    let mut end = End::open(&group, 2, 1);
    let path = end.segment(&group, 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = End::open_with(&group, 2, 1, &small(), &ShmOptions::default()).err().unwrap();
    assert!(matches!(&error, TransportError::IncarnationInUse(what) if what.contains("wadjet-")), "{error}");
    assert!(error.to_string().contains("new incarnation"));
    assert!(path.exists(), "the refusal does not touch the segment that is there");
    end.shm.close(end.channel.id);
    assert!(!path.exists());
    let again = End::open(&group, 2, 1);
    drop(again);
    assert!(!path.exists(), "dropping the transport closes its channels");
}

#[test]
fn a_closed_member_holds_nobody_up_and_what_it_cast_can_still_be_read() {
    let (mut one, mut two) = End::pair();
    for number in 0..10_u64 {
        two.cast(&numbered(number)).unwrap();
    }
    two.shm.close(two.channel.id);
    let got: Vec<u64> = one.receive(64).iter().map(|r| number(payload(r))).collect();
    assert_eq!(got, (0..10).collect::<Vec<_>>());
    for number in 0..1_000_u64 {
        one.cast_patiently(&numbered(number));
    }
    let frame = two.take(b"late").unwrap();
    assert!(two.submit(Destination::All, frame), "a closed channel swallows and counts");
    assert_eq!(two.shm.counters().dropped, 1);
    assert!(one.receive(1).is_empty());
}

#[test]
fn frames_held_over_a_close_stay_whole() {
    let (mut one, mut two) = End::pair();
    one.cast(&numbered(1)).unwrap();
    let held = two.receive(1);
    two.shm.close(two.channel.id);
    let mut sent = 0;
    while one.cast(&numbered(7)).is_ok() {
        sent += 1;
        one.shm.reap();
        assert!(sent < 10_000, "what is held is not overwritten");
    }
    assert_eq!(number(payload(&held[0])), 1);
    drop(held);
    two.shm.reap();
    for _ in 0..1_000 {
        one.cast_patiently(&numbered(7));
    }
}

#[test]
fn channels_of_two_views_do_not_mix() {
    let group = unique("views");
    let second = |own: u64| {
        let mut view = view(&group, 2, own).view().clone();
        view.id.counter = 2;
        LocalView::new(view, Incarnation(own)).unwrap()
    };
    let (mut one, mut two) = (End::open(&group, 2, 1), End::open(&group, 2, 2));
    let next_one = one.shm.open(&second(1), &small()).unwrap();
    let next_two = two.shm.open(&second(2), &small()).unwrap();
    one.until(|end| end.shm.peers(next_one.id) == 1 && end.shm.peers(end.channel.id) == 1);
    two.until(|end| end.shm.peers(next_two.id) == 1 && end.shm.peers(end.channel.id) == 1);
    one.cast(b"old").unwrap();
    let old = std::mem::replace(&mut one.channel, next_one);
    one.cast(b"new").unwrap();
    let got: Vec<_> = two.receive(8).iter().map(|r| (r.channel, payload(r).to_vec())).collect();
    assert_eq!(got, [(two.channel.id, b"old".to_vec()), (next_two.id, b"new".to_vec())]);
    one.shm.close(old.id);
    assert_eq!(one.shm.peers(old.id), 0);
    one.cast(b"still").unwrap();
    assert_eq!(two.receive_payloads(), [b"still"]);
}

#[test]
fn a_wait_ends_when_a_frame_is_there_or_the_time_is_over() {
    let (mut one, mut two) = End::pair();
    let start = Instant::now();
    two.shm.wait(Duration::from_millis(3));
    assert!(start.elapsed() >= Duration::from_millis(3));
    one.cast(b"there").unwrap();
    let start = Instant::now();
    two.shm.wait(PATIENCE);
    assert!(start.elapsed() < PATIENCE / 2);
    assert_eq!(two.receive_payloads(), [b"there"]);
}

/// Each wakes whoever sleeps while it has something for him: who has nothing lets the other sleep.
#[test]
fn members_that_have_nothing_to_say_do_not_wake_each_other() {
    let group = unique("quiet");
    let sleepers = [1, 2].map(|own| {
        let group = group.clone();
        std::thread::spawn(move || {
            let mut end = End::open(&group, 2, own);
            end.find(1);
            // What is made ahead for the next view is made by then.
            end.shm.wait(Duration::from_millis(200));
            let (start, before) = (Instant::now(), end.shm.counters().system_calls);
            end.shm.wait(Duration::from_millis(500));
            let calls = end.shm.counters().system_calls - before;
            // Half a millisecond is the longest sleep, and a look at the socket belongs to it.
            let most = 4 * start.elapsed().as_millis() as u64 + 100;
            assert!(calls < most, "{calls} calls, at most {most}");
        })
    });
    sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
}

// ---- those that stop ----

/// More rounds than any lane has entries.
const ROUNDS: u64 = 200_000;

fn control_patiently(end: &mut End, to: Destination, payload: &[u8]) {
    end.until(|end| end.control(to, payload));
}

#[test]
fn sends_and_control_messages_go_on_for_ever_while_one_member_reads_nothing() {
    let mut ends = End::group(3);
    for round in 0..ROUNDS {
        let bytes = round.to_le_bytes();
        // What is for all is for the one that has stopped, too.
        control_patiently(&mut ends[0], Destination::One(Rank(1)), &bytes);
        control_patiently(&mut ends[0], Destination::All, &bytes);
        control_patiently(&mut ends[1], Destination::One(Rank(0)), &bytes);
        assert_eq!(ends[1].receive_payloads(), [bytes, bytes]);
        assert_eq!(ends[0].receive_payloads(), [bytes]);
    }
    assert!(ends[0].shm.counters().dropped > 0, "what the stopped member will miss is counted");
    assert_eq!(ends[1].shm.counters().dropped, 0, "and only at those who write to it");
    ends[0].channel.control.take(0).unwrap();
    assert!(ends.iter().all(|end| end.channel.control.usage().lent == 0), "every frame comes back");
    // It goes on: what it finds is whole and without a gap from the beginning, and what is sent now reaches it.
    let rounds = |got: Vec<Vec<u8>>| -> Vec<u64> {
        got.iter().map(|bytes| u64::from_le_bytes(bytes[..].try_into().unwrap())).collect()
    };
    let mut found = Vec::new();
    while let got @ [_, ..] = &rounds(ends[2].receive_payloads())[..] {
        found.extend_from_slice(got);
    }
    assert!(found.len() > 8 && found.iter().enumerate().all(|(at, round)| *round == at as u64));
    ends[2].receive(1);
    control_patiently(&mut ends[0], Destination::All, &ROUNDS.to_le_bytes());
    assert_eq!(rounds(ends[2].receive_payloads()), [ROUNDS]);
    assert_eq!(ends[2].shm.counters().dropped, 0);
}

#[test]
fn a_member_that_never_opens_does_not_hold_up_sends_either() {
    let group = unique("absent");
    let (mut one, mut two) = (End::open(&group, 3, 1), End::open(&group, 3, 2));
    one.find(1);
    two.find(1);
    for round in 0..ROUNDS / 10 {
        control_patiently(&mut one, Destination::All, &round.to_le_bytes());
        assert_eq!(two.receive_payloads(), [round.to_le_bytes()]);
    }
}

#[test]
fn an_excluded_member_is_waited_for_no_more_and_reads_no_further_and_is_not_read_from() {
    let mut ends = End::group(3);
    let id = ends[0].channel.id;
    ends[2].cast(b"before").unwrap();
    let before = ends[0].receive(8);
    let mut sent = 0;
    while ends[0].cast(&numbered(sent)).is_ok() {
        sent += 1;
        ends[0].shm.reap();
        ends[1].receive(64);
    }
    let held = ends[2].receive(2);
    assert!(held.len() == 2 && ends[2].shm.intact(held[0].channel, &held[0].frame));
    assert!(ends[0].shm.busy(id), "one has not read all");
    ends[0].shm.exclude(id, Rank(2));
    let other = ends[1].channel.id;
    ends[1].shm.exclude(other, Rank(2));
    ends[2].cast(b"after").unwrap();
    assert!(ends[2].control(Destination::All, b"after"));
    let ring = ends[0].channel.casts.memory().bytes() as u64;
    for number in 0..5_000 {
        ends[0].cast_patiently(&numbered(number));
        control_patiently(&mut ends[0], Destination::All, &numbered(number));
        assert_eq!(ends[1].receive_payloads(), [numbered(number), numbered(number)]);
        assert!(ends[0].receive(8).is_empty(), "nothing of the excluded member is read");
    }
    assert!(ends[0].take(b"").unwrap().position() > 8 * ring, "the ring goes round");
    ends[1].receive(1);
    ends[1].shm.reap();
    ends[0].shm.reap();
    assert!(!ends[0].shm.busy(id), "nobody but the excluded member is behind");
    assert_eq!(ends[0].shm.counters().dropped, 0, "what does not go to it is not lost");
    // What was handed over before is still there; what it was sent is not to be believed any more.
    assert!(payload(&before[0]) == b"before" && ends[0].shm.intact(id, &before[0].frame));
    assert!(!ends[2].shm.intact(held[0].channel, &held[0].frame), "overwritten, and known to be");
    assert!(ends[2].receive(64).is_empty(), "it does not read what was overwritten");
    assert_eq!(ends[2].shm.counters().dropped, 0);
    drop((before, held));
    for end in &mut ends {
        end.shm.reap();
        assert_eq!(end.shm.frames_held(), 0);
        assert_eq!((end.channel.casts.usage().lent, end.channel.control.usage().lent), (0, 0));
    }
}

#[test]
fn a_member_that_never_opened_can_be_excluded() {
    let group = unique("absent");
    let (mut one, mut two) = (End::open(&group, 3, 1), End::open(&group, 3, 2));
    one.find(1);
    two.find(1);
    one.shm.exclude(one.channel.id, Rank(2));
    for number in 0..2_000 {
        one.cast_patiently(&numbered(number));
        assert_eq!(two.receive_payloads(), [numbered(number)]);
    }
    // When it opens after all, nobody takes notice.
    let mut three = End::open(&group, 3, 3);
    three.find(2);
    three.cast(b"too late").unwrap();
    for _ in 0..2_000 {
        assert!(one.receive(1).is_empty());
    }
    assert_eq!(one.shm.peers(one.channel.id), 1);
}

#[test]
fn nonsense_exclusions_change_nothing() {
    let (mut one, mut two) = End::pair();
    for rank in [0, 2, 77] {
        one.shm.exclude(one.channel.id, Rank(rank));
    }
    one.shm.exclude(wadjet::transport::ChannelId(77), Rank(1));
    for number in 0..500 {
        one.cast_patiently(&numbered(number));
        assert_eq!(two.receive_payloads(), [numbered(number)]);
    }
}

#[test]
fn frames_of_a_closed_channel_and_of_an_excluded_member_can_still_be_asked_about() {
    let mut ends = End::group(3);
    ends[1].cast(&numbered(1)).unwrap();
    assert!(ends[2].control(Destination::All, &numbered(2)));
    let held = ends[0].receive(8);
    assert_eq!(held.len(), 2);
    let id = ends[0].channel.id;
    ends[0].shm.exclude(id, Rank(2));
    ends[0].shm.close(id);
    ends[0].shm.reap();
    assert!(held.iter().all(|received| ends[0].shm.intact(id, &received.frame)));
    let own = ends[0].take(b"own").unwrap();
    assert!(!ends[0].shm.intact(id, &own), "not a received frame");
    assert!(!ends[1].shm.intact(ends[1].channel.id, &held[0].frame), "a frame of somebody else");
}

// ---- outside any view ----

#[test]
fn a_socket_is_this_users_alone_and_goes_with_its_owner() {
    let group = &unique("private");
    let shm = bound(group, "here", &ShmOptions::default()).unwrap();
    let path = socket_of(Path::new("/dev/shm"), group, "here");
    let data = fs::symlink_metadata(&path).unwrap();
    assert!(data.file_type().is_socket());
    assert_eq!(data.permissions().mode() & 0o777, 0o600);
    drop(shm);
    assert!(!path.exists());
}

#[test]
fn something_else_under_a_sockets_name_is_not_removed() {
    let group = &unique("file");
    let path = socket_of(Path::new("/dev/shm"), group, "here");
    fs::write(&path, b"precious").unwrap();
    assert!(matches!(bound(group, "here", &ShmOptions::default()), Err(TransportError::AddressInUse(_))));
    let mut shm = bound(group, "there", &ShmOptions::default()).unwrap();
    shm.send_outside(GroupId::named(group), &Outside::Discover, b"hello");
    shm.send_outside(GroupId::named(group), &Outside::To(Address("here".into())), b"hello");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();
}

#[test]
fn an_address_of_any_length_is_bound_and_none_or_one_too_deep_is_refused_in_words() {
    let group = &unique("names");
    for address in ["../../etc/passwd", "a b/c", "-", &"long".repeat(300)] {
        let mut shm = bound(group, address, &ShmOptions::default()).unwrap();
        let to = Outside::To(Address(address.into()));
        shm.send_outside(GroupId::named(group), &to, b"to myself");
        let mut got = 0;
        let start = Instant::now();
        while got == 0 && start.elapsed() < PATIENCE {
            shm.receive(1, &mut |received| got += usize::from(received.bytes() == b"to myself"));
        }
        assert_eq!(got, 1, "{address}");
    }
    let mut deep = Shm::new(ShmOptions { directory: Path::new("/dev/shm").join("d".repeat(100)) });
    let error = deep.bind(GroupId::named(group), &Address("here".into())).unwrap_err();
    assert!(error.to_string().contains("shorter"), "{error}");
    let error = bound(group, "", &ShmOptions::default()).err().unwrap();
    assert!(error.to_string().contains("a name of its own"), "{error}");
}

#[test]
fn a_spinning_member_looks_at_its_socket_often_enough_and_not_more() {
    let group = &unique("spin");
    let mut shm = bound(group, "here", &ShmOptions::default()).unwrap();
    let mut other = Shm::new(ShmOptions::default());
    let start = Instant::now();
    let before = shm.counters().system_calls;
    while start.elapsed() < Duration::from_millis(20) {
        (0..100).for_each(|_| {
            shm.receive(64, &mut |_| panic!("nothing was sent"));
        });
    }
    let looks = shm.counters().system_calls - before;
    let most = start.elapsed().as_micros() as u64 / 50 + 1;
    assert!((1..=most).contains(&looks), "{looks} looks, at most {most}");
    let to = Outside::To(Address("here".into()));
    let fastest = (0..200).map(|_| {
        other.send_outside(GroupId::named(group), &to, b"letter");
        let sent = Instant::now();
        while shm.receive(64, &mut |_| {}) == 0 {
            assert!(sent.elapsed() < PATIENCE);
        }
        sent.elapsed()
    });
    // The fastest half: the machine takes a thread away now and then.
    let mut times: Vec<Duration> = fastest.collect();
    times.sort();
    assert!(times[100] < Duration::from_micros(300), "{:?}", times[100]);
}

#[test]
fn letters_that_are_held_stay_whole_and_the_rest_waits() {
    let group = &unique("held");
    let mut shm = bound(group, "here", &ShmOptions::default()).unwrap();
    let mut other = Shm::new(ShmOptions::default());
    let to = Outside::To(Address("here".into()));
    let mut held = Vec::new();
    let start = Instant::now();
    let mut sent = 0_u32;
    while held.len() < 64 && start.elapsed() < PATIENCE {
        other.send_outside(GroupId::named(group), &to, &sent.to_le_bytes());
        sent += 1;
        let count = held.len();
        while held.len() == count {
            shm.receive(64, &mut |received| held.push(received));
        }
    }
    other.send_outside(GroupId::named(group), &to, b"waits");
    (0..10_000).for_each(|_| assert_eq!(shm.receive(64, &mut |_| {}), 0));
    shm.wait(Duration::from_millis(1));
    assert!((0..64_u32).zip(&held).all(|(at, letter)| letter.bytes() == at.to_le_bytes()));
    assert_eq!(shm.frames_held(), 64);
    held.pop();
    while shm.receive(64, &mut |received| assert_eq!(received.bytes(), b"waits")) == 0 {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn a_member_that_has_closed_its_channel_has_parted_and_one_whose_transport_has_ended_is_gone() {
    let (one, mut two) = End::pair();
    let (id, other) = (one.channel.id, RankSet::one(Rank(1)));
    assert!(one.shm.gone(id).is_empty() && one.shm.parted(id).is_empty());
    two.shm.close(two.channel.id);
    assert_eq!(
        (one.shm.gone(id), one.shm.parted(id)),
        (RankSet::EMPTY, other),
        "its process may be in another view"
    );
    let (one, two) = End::pair();
    drop(two);
    assert_eq!(one.shm.gone(one.channel.id), other);
}

#[test]
fn a_member_that_has_excluded_this_one_has_parted_with_it_alone() {
    let mut ends = End::group(3);
    let [first, second, third] = &mut ends[..] else { panic!("three") };
    first.shm.exclude(first.channel.id, Rank(2));
    assert_eq!(third.shm.parted(third.channel.id), RankSet::one(Rank(0)));
    assert_eq!(third.shm.gone(third.channel.id), RankSet::EMPTY);
    assert_eq!(second.shm.parted(second.channel.id), RankSet::EMPTY);
    assert_eq!(first.shm.parted(first.channel.id), RankSet::EMPTY, "who excludes knows that it does");
}
