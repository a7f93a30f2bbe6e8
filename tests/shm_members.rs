//! The shared-memory transport, from outside: members that come late, stop, go and die, hostile and full segments, and
//! processes of their own.
#![cfg(target_os = "linux")]

#[path = "common/shm.rs"]
mod ends;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ends::{End, HEADER_BYTES, PATIENCE, number, numbered, payload, segment_of, small, unique, view};
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

fn socket_of(group: &str, address: &str) -> PathBuf {
    Path::new("/dev/shm").join(format!("wadjet-{}-at-{address}", GroupId::named(group)))
}

fn bound(group: &str, address: &str) -> Result<Shm, TransportError> {
    let mut shm = Shm::new(ShmOptions::default());
    shm.bind(GroupId::named(group), &Address(address.into()))?;
    Ok(shm)
}

#[test]
fn a_socket_is_this_users_alone_and_goes_with_its_owner() {
    let group = &unique("private");
    let shm = bound(group, "here").unwrap();
    let path = socket_of(group, "here");
    let data = fs::symlink_metadata(&path).unwrap();
    assert!(data.file_type().is_socket());
    assert_eq!(data.permissions().mode() & 0o777, 0o600);
    drop(shm);
    assert!(!path.exists());
}

#[test]
fn something_else_under_a_sockets_name_is_not_removed() {
    let group = &unique("file");
    let path = socket_of(group, "here");
    fs::write(&path, b"precious").unwrap();
    assert!(matches!(bound(group, "here"), Err(TransportError::AddressInUse(_))));
    let mut shm = bound(group, "there").unwrap();
    shm.send_outside(GroupId::named(group), &Outside::Discover, b"hello");
    shm.send_outside(GroupId::named(group), &Outside::To(Address("here".into())), b"hello");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();
}

#[test]
fn an_address_of_any_length_is_bound_and_one_too_deep_is_refused_in_words() {
    let group = &unique("names");
    for address in ["../../etc/passwd", "a b/c", "", &"long".repeat(300)] {
        let mut shm = bound(group, address).unwrap();
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
}

#[test]
fn a_spinning_member_looks_at_its_socket_often_enough_and_not_more() {
    let group = &unique("spin");
    let mut shm = bound(group, "here").unwrap();
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
    let mut shm = bound(group, "here").unwrap();
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

// ---- bad input ----

/// Where casts and lanes begin in a segment of a few members, as documented in the transport's source.
fn ring_offsets(path: &Path) -> (u64, u64) {
    let file = fs::File::open(path).unwrap();
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 14 * 8).unwrap();
    (4096, 4096 + u64::from_le_bytes(bytes))
}

/// The members of a pair, and a function that writes a word over the ring of the first.
fn hostile() -> (End, End, impl Fn(bool, u64, u64)) {
    let group = unique("hostile");
    let (mut one, mut two) = (End::open(&group, 2, 1), End::open(&group, 2, 2));
    one.find(1);
    two.find(1);
    let path = one.segment(&group, 1);
    let (casts, lane) = ring_offsets(&path);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let write = move |in_casts: bool, at: u64, word: u64| {
        let base = if in_casts { casts } else { lane };
        file.write_all_at(&word.to_le_bytes(), base + at).unwrap();
    };
    (one, two, write)
}

#[test]
fn rubbish_in_a_stamp_stops_that_ring_only_and_is_counted_once() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut words: Vec<u64> = vec![1, u64::MAX, 1 << 62, 2 << 62, 3 << 62, 0x4000_0000_0000_0000 | 64];
    words.extend((0..200).map(|_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    }));
    for word in words {
        let (mut one, mut two, write) = hostile();
        write(true, 0, word);
        assert!(two.receive(64).is_empty(), "{word:x}");
        two.receive(64);
        assert_eq!(two.shm.counters().dropped, 1, "{word:x}");
        assert!(one.control(Destination::All, b"the other ring goes on"));
        assert_eq!(two.receive(64).len(), 1);
        two.cast(b"and so does the other way").unwrap();
        assert_eq!(one.receive(64).len(), 1);
    }
}

#[test]
fn rubbish_with_a_valid_generation_does_not_lead_out_of_the_ring() {
    // A true stamp says the generation; lengths, offsets and kinds behind it are turned about.
    let genuine = {
        let group = unique("genuine");
        let mut one = End::open(&group, 2, 1);
        one.cast(b"x").unwrap();
        let path = one.segment(&group, 1);
        let mut bytes = [0; 8];
        fs::File::open(&path).unwrap().read_exact_at(&mut bytes, ring_offsets(&path).0).unwrap();
        (group, one, u64::from_le_bytes(bytes))
    };
    let (group, mut one, stamp) = genuine;
    let path = one.segment(&group, 1);
    let (casts, lanes) = ring_offsets(&path);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let generation = stamp & (((1 << 28) - 1) << 34);
    let frame = |start: u64, length: u64| 1 << 62 | generation | start << 22 | length;
    let void = |lines: u64| 2 << 62 | generation | lines;
    let ring = lanes - casts;
    for word in [
        frame(8, (1 << 22) - 1),
        frame(4095, (1 << 22) - 1),
        frame(4095, ring - 4096),
        frame(0, 8),
        frame(7, 8),
        void(0),
        void((1 << 34) - 1),
        void(ring / 64 + 1),
    ] {
        file.write_all_at(&word.to_le_bytes(), casts).unwrap();
        let mut two = End::open(&group, 2, 2);
        two.find(1);
        assert!(two.receive(64).is_empty(), "{word:x}");
        assert_eq!(two.shm.counters().dropped, 1, "{word:x}");
    }
    // A ring full of voids that lead in a circle does not keep a reader.
    for line in 0..ring / 64 {
        file.write_all_at(&void(1).to_le_bytes(), casts + line * 64).unwrap();
    }
    let mut two = End::open(&group, 2, 2);
    two.find(1);
    for _ in 0..100 {
        assert!(two.receive(64).is_empty());
    }
    one.shm.reap();
    assert!(one.shm.counters().dropped == 0);
}

#[test]
fn rubbish_in_a_lane_stops_that_lane_only() {
    let (mut one, mut two, write) = hostile();
    assert!(one.control(Destination::All, b"to be spoilt"));
    write(false, 0, 1 << 62 | 7);
    assert!(two.receive(64).is_empty());
    assert_eq!(two.shm.counters().dropped, 1);
    one.cast(b"casts go on").unwrap();
    assert_eq!(two.receive_payloads(), [b"casts go on"]);
}

#[test]
fn rubbish_written_while_it_is_read_stays_the_writers_trouble() {
    // A third member writes rubbish into the second one's segment, again and again, while the first one reads: stamps,
    // cursors, header, payload. What the first one hands up lies in the mapping, what it keeps of itself is sound, and
    // the third one's own ring, which is as it should be, is read on.
    let honest = |number: u64| [[0x33; 8], number.to_le_bytes()].concat();
    let mut dropped = 0;
    for round in 0..60 {
        let group = unique("storm");
        let mut ends: Vec<End> = (1..=3).map(|own| End::open(&group, 3, own)).collect();
        ends.iter_mut().for_each(|end| end.find(2));
        let path = segment_of(Path::new("/dev/shm"), &view(&group, 3, 2), 2);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let ready = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let (stop, ready) = (&stop, &ready);
            scope.spawn(move || {
                let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
                let words = file.metadata().unwrap().len() / 8;
                let mut draw = Draw(round);
                ready.wait();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // Most rubbish is near what it replaces, and where frames begin.
                    let at =
                        8 * if draw.below(4) == 0 { draw.below(words) } else { draw.below(words / 8) * 8 };
                    let mut word = [0; 8];
                    file.read_exact_at(&mut word, at).unwrap();
                    let bits = match draw.below(3) {
                        0 => 1 << draw.below(22),
                        1 => 1 << draw.below(64),
                        _ => draw.0,
                    };
                    let rubbish = u64::from_le_bytes(word) ^ bits;
                    file.write_all_at(&rubbish.to_le_bytes(), at).unwrap();
                }
            });
            ready.wait();
            let [one, two, three] = &mut ends[..] else { unreachable!() };
            let mut next = 0;
            for number in 0..2_000 {
                let _ = two.cast(&numbered(number));
                two.control(Destination::All, &numbered(number));
                assert!(three.control(Destination::One(Rank(0)), &honest(number)));
                let own_before = one.channel.control.usage().lent;
                for received in one.receive(64) {
                    // Every byte can be read, and there are no more of them than a ring has.
                    let sum: u64 = received.bytes().iter().map(|byte| u64::from(*byte)).sum();
                    assert!(sum <= 255 << 22);
                    next += u64::from(received.bytes().get(HEADER_BYTES..) == Some(&honest(next)));
                }
                assert_eq!(one.channel.control.usage().lent, own_before);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            for _ in 0..100 {
                for received in one.receive(64) {
                    next += u64::from(received.bytes().get(HEADER_BYTES..) == Some(&honest(next)));
                }
            }
            assert_eq!(next, 2_000, "what the third one sends arrives");
            assert_eq!(one.shm.frames_held(), 0);
        });
        dropped += ends[0].shm.counters().dropped;
        for end in &mut ends {
            end.shm.close(end.channel.id);
        }
    }
    assert!(dropped > 5, "rings found to be rubbish are counted: {dropped}");
}

#[test]
fn rubbish_cursors_do_not_break_the_writer() {
    let group = unique("cursors");
    let (mut one, mut two) = (End::open(&group, 2, 1), End::open(&group, 2, 2));
    one.find(1);
    two.find(1);
    let file = OpenOptions::new().write(true).open(two.segment(&group, 2)).unwrap();
    for word in [u64::MAX, 3, u64::MAX / 2, 1 << 63, 0] {
        for index in 0..3 {
            file.write_all_at(&u64::to_le_bytes(word), 512 + index * 8).unwrap();
        }
        for number in 0..200 {
            one.shm.reap();
            one.shm.busy(one.channel.id);
            let _ = one.cast(&numbered(number));
            one.control(Destination::All, b"control");
        }
    }
    assert!(one.channel.casts.usage().lent == 0);
}

#[test]
fn a_foreign_file_under_a_peers_name_is_refused_in_words() {
    let group = unique("foreign");
    let mut one = End::open(&group, 2, 1);
    let path = one.segment(&group, 2);
    fs::write(&path, vec![0x55; 8192]).unwrap();
    one.until(|end| !end.shm.caps().notes.is_empty());
    assert!(one.shm.caps().notes[0].contains("not a segment"), "{:?}", one.shm.caps().notes);
    assert_eq!(one.shm.counters().dropped, 1);
    // What stands there next is in the way for another reason.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    one.until(|end| end.shm.caps().notes.len() == 2);
    assert!(one.shm.caps().notes[1].contains("not a file of this user"), "{:?}", one.shm.caps().notes);
    fs::remove_dir(&path).unwrap();
    let _two = End::open(&group, 2, 2);
    one.find(1);
}

/// Views follow each other while something is in the way of one member: it is told by cause, not by view.
#[test]
fn what_stays_in_the_way_is_one_note_however_many_views_there_are() {
    let group = unique("in-the-way");
    let mut shm = Shm::new(ShmOptions::default());
    for counter in 1..=50_u64 {
        let mut view = view(&group, 3, 1);
        let mut named = view.view().clone();
        named.id.counter = counter;
        view = LocalView::new(named, view.member(view.rank()).incarnation).unwrap();
        let rubbish: Vec<_> = (2..=3).map(|of| segment_of(Path::new("/dev/shm"), &view, of)).collect();
        rubbish.iter().for_each(|path| fs::write(path, vec![0x55; 8192]).unwrap());
        let channel = shm.open(&view, &small()).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while shm.counters().dropped < 2 * counter {
            assert!(Instant::now() < end, "{:?}", shm.counters());
            shm.receive(8, &mut |_| {});
        }
        shm.close(channel.id);
        rubbish.iter().for_each(|path| fs::remove_file(path).unwrap());
    }
    let notes = shm.caps().notes;
    assert_eq!((notes.len(), shm.counters().dropped), (1, 100), "{notes:?}");
    assert!(notes[0].contains("not a segment; remove it"), "{notes:?}");
}

#[test]
fn more_than_the_file_system_holds_is_refused_at_open_and_leaves_nothing() {
    let group = unique("huge");
    let options = ChannelOptions { cast_frames: 1 << 24, frame_bytes: 1 << 20, ..small() };
    let error = End::open_with(&group, 2, 1, &options, &ShmOptions::default()).err().unwrap();
    let TransportError::NoSpace { remedy, bytes, .. } = &error else { panic!("{error}") };
    assert!(remedy.contains("remount") && *bytes > 1 << 40, "{error}");
    assert!(!segment_of(Path::new("/dev/shm"), &view(&group, 2, 1), 1).exists());
    let missing = ShmOptions { directory: "/nowhere/at/all".into() };
    let error = End::open_with(&group, 2, 1, &small(), &missing).err().unwrap();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

// ---- processes ----

const ROLE: &str = "WADJET_TEST_SHM_ROLE";

/// This test binary again, in a process of its own, running `another_process` in a role.
fn process(role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process", "--nocapture"])
        .env(ROLE, role)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Does something only in a process started by another test.
#[test]
fn another_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["echo", group, count] => echo(group, count.parse().unwrap()),
        ["full", directory] => full(Path::new(directory)),
        ["sit", group] => sit(group),
        ["churn", directory] => churn(Path::new(directory)),
        _ => panic!("no such role: {role}"),
    }
}

/// Casts back what the first member casts, then waits until it goes.
fn echo(group: &str, count: u64) {
    let mut end = End::open(group, 2, 2);
    let mut next = 0;
    end.until(|end| {
        for received in end.receive(16) {
            assert_eq!(number(payload(&received)), next);
            end.cast_patiently(payload(&received));
            next += 1;
        }
        next == count
    });
    end.until(|end| !end.receive(1).is_empty());
}

#[test]
fn two_processes_cast_to_each_other_without_loss() {
    const FRAMES: u64 = 50_000;
    let group = unique("processes");
    let mut child = process(&format!("echo {group} {FRAMES}"));
    let mut end = End::open(&group, 2, 1);
    let (mut sent, mut back) = (0, 0);
    end.until(|end| {
        // A window, so that both rings run full now and then but never both for good.
        while sent < FRAMES && sent - back < 12 && end.cast(&numbered(sent)).is_ok() {
            sent += 1;
        }
        for received in end.receive(16) {
            assert_eq!(number(payload(&received)), back);
            back += 1;
        }
        back == FRAMES
    });
    end.cast_patiently(b"done");
    assert!(child.wait().unwrap().success());
    assert_eq!(end.shm.counters().dropped, 0);
}

/// Is reachable, casts once, and stays until it is ended.
fn sit(group: &str) {
    let mut end = End::open(group, 2, 2);
    end.shm.bind(GroupId::named(group), &Address("m2".into())).unwrap();
    end.cast(b"here I am").unwrap();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        end.receive(16);
        end.shm.wait(Duration::from_millis(10));
    }
}

/// A process of its own that has opened its channel, and the member here that has heard of it.
fn sitting(group: &str) -> (Child, End) {
    let child = process(&format!("sit {group}"));
    let mut end = End::open(group, 2, 1);
    end.until(|end| end.receive(1).len() == 1);
    (child, end)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn what_a_killed_process_leaves_is_recognised_and_removed() {
    let group = &unique("killed");
    let (mut child, mut end) = sitting(group);
    let id = end.channel.id;
    assert!(end.shm.gone(id).is_empty());
    child.kill().unwrap();
    // Not waited for yet, the process is still in the list of processes.
    end.until(|end| end.shm.gone(id) == RankSet::one(Rank(1)));
    child.wait().unwrap();
    assert!(!end.segment(group, 2).exists(), "who recognises it removes its segment");
    assert!(socket_of(group, "m2").exists());
    end.shm.send_outside(GroupId::named(group), &Outside::Discover, b"anybody?");
    assert!(!socket_of(group, "m2").exists(), "and its socket, where nobody answers");
    drop(end);

    let (mut child, end) = sitting(group);
    child.kill().unwrap();
    child.wait().unwrap();
    // Whoever comes next to the address finds nobody there, and clears up, unless somebody else has done so.
    let next = bound(group, "m2").unwrap();
    assert!(!end.segment(group, 2).exists());
    assert!(end.segment(group, 1).exists(), "what belongs to the living stays");
    drop((next, end));
    let left = fs::read_dir("/dev/shm").unwrap().flatten();
    let name = GroupId::named(group).to_string();
    assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().contains(&name)).count(), 0);
}

/// The view of two members with this number.
fn churned(own: u64, counter: u64) -> LocalView {
    let mut view = view("churn", 2, own).view().clone();
    view.id.counter = counter;
    LocalView::new(view, Incarnation(own)).unwrap()
}

/// Opens view after view as fast as it goes, casts in each, and closes it.
fn churn(directory: &Path) {
    let mut shm = Shm::new(ShmOptions { directory: directory.into() });
    let mut before = None;
    for counter in 1..u64::MAX {
        let channel = shm.open(&churned(2, counter), &small()).unwrap();
        shm.prepare(&small());
        let mut end = End { shm, channel };
        for number in 0..10 {
            // The other member may not be there: then the ring is full at some time.
            let _ = end.cast(&numbered(number));
            end.control(Destination::All, &numbered(number));
            end.receive(16);
        }
        let End { shm: back, channel } = end;
        shm = back;
        // Two channels at a time, as at a change of views.
        if let Some(before) = before.replace(channel.id) {
            shm.close(before);
        }
    }
}

/// Numbers that depend on the seed alone.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn killed_at_any_instant_nothing_is_stuck_and_nothing_stays() {
    let directory = PathBuf::from("/dev/shm").join(unique("churn"));
    fs::create_dir(&directory).unwrap();
    let shm = ShmOptions { directory: directory.clone() };
    let mut draw = Draw(41);
    let (mut met, mut left) = (0, 0);
    for _ in 0..40 {
        let mut child = process(&format!("churn {}", directory.display()));
        let start = Instant::now();
        while fs::read_dir(&directory).unwrap().count() == 0 {
            assert!(start.elapsed() < PATIENCE, "the other process does not begin");
        }
        // In whatever it is at after so many microseconds, during which this member opens the views that it is in.
        let (begun, limit) = (Instant::now(), Duration::from_micros(draw.below(8_000)));
        let mut mine = Shm::new(shm.clone());
        let mut counter = newest_view(&directory);
        let channel = mine.open(&churned(1, counter), &small()).unwrap();
        let mut end = End { shm: mine, channel };
        while begun.elapsed() < limit {
            let newest = newest_view(&directory);
            if newest > counter {
                counter = newest;
                let next = end.shm.open(&churned(1, counter), &small()).unwrap();
                end.shm.close(std::mem::replace(&mut end.channel, next).id);
            }
            let _ = end.cast(&numbered(1));
            end.control(Destination::All, &numbered(2));
            for received in end.receive(16) {
                number(payload(&received));
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever it has left, the survivor goes on once it has excluded it.
        met += end.shm.peers(end.channel.id);
        end.shm.exclude(end.channel.id, Rank(1));
        for number in 0..200 {
            end.cast_patiently(&numbered(number));
            end.receive(16);
            assert!(end.control(Destination::All, &numbered(number)));
        }
        drop(end);
        left += fs::read_dir(&directory).unwrap().count();
        // Whoever opens a view next, of whatever group, clears up.
        let next = End::open_with(&unique("next"), 2, 1, &small(), &shm).unwrap();
        let names: Vec<_> = fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.path()).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        drop(next);
    }
    assert!(left > 10, "the killed have left something now and then: {left} files");
    assert!(met > 0, "the members have met now and then");
    fs::remove_dir(&directory).unwrap();
}

/// The newest view of the process that opens view after view.
fn newest_view(directory: &Path) -> u64 {
    let counter = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let mut parts = name.rsplitn(3, '-');
        u64::from_str_radix(parts.nth(1)?, 16).ok()
    };
    fs::read_dir(directory).unwrap().flatten().filter_map(|entry| counter(entry.path())).max().unwrap_or(1)
}

#[test]
fn a_stopped_process_has_not_ended_and_keeps_its_address() {
    let group = &unique("stopped");
    let (mut child, end) = sitting(group);
    signal(&child, "-STOP");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(20) {
        assert!(end.shm.gone(end.channel.id).is_empty());
    }
    assert!(matches!(bound(group, "m2"), Err(TransportError::AddressInUse(_))));
    assert!(end.segment(group, 2).exists());
    let looks = end.shm.counters().system_calls;
    (0..1_000).for_each(|_| assert!(end.shm.gone(end.channel.id).is_empty()));
    let most = 5 * (1 + start.elapsed().as_millis() as u64);
    assert!(end.shm.counters().system_calls - looks <= most, "asked once a millisecond at most");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(bound(group, "m2").unwrap());
}

#[test]
fn a_member_that_has_closed_has_gone() {
    let (one, mut two) = End::pair();
    assert!(one.shm.gone(one.channel.id).is_empty());
    two.shm.close(two.channel.id);
    assert_eq!(one.shm.gone(one.channel.id), RankSet::one(Rank(1)));
}

fn full(directory: &Path) {
    let options = ChannelOptions { cast_frames: 4096, ..small() };
    let shm = ShmOptions { directory: directory.into() };
    let error = End::open_with("full", 2, 1, &options, &shm).err().unwrap();
    let TransportError::NoSpace { remedy, .. } = &error else { panic!("{error}") };
    assert!(remedy.contains(&directory.display().to_string()), "{error}");
    assert_eq!(fs::read_dir(directory).unwrap().count(), 0, "nothing half made is left");
    // What fits can be opened there afterwards.
    let fits = ChannelOptions { cast_frames: 4, frame_bytes: 64, ..small() };
    End::open_with("full", 2, 1, &fits, &shm).unwrap();
}

#[test]
fn a_full_file_system_is_an_error_with_a_remedy_and_not_a_signal() {
    // A small tmpfs needs a mount namespace of its own; who may not make one has tested
    // `more_than_the_file_system_holds_is_refused_at_open_and_leaves_nothing`.
    let directory = std::env::temp_dir().join(unique("wadjet-full"));
    fs::create_dir(&directory).unwrap();
    let executable = std::env::current_exe().unwrap();
    let script =
        "mount -t tmpfs -o size=256k tmpfs \"$1\" && exec \"$2\" --exact another_process --nocapture";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([&directory, &executable])
        .env(ROLE, format!("full {}", directory.display()))
        .output();
    fs::remove_dir(&directory).unwrap();
    let output = output.expect("unshare is part of util-linux");
    let text = String::from_utf8_lossy(&output.stderr);
    let refused = ["unshare failed", "Operation not permitted", "permission denied"];
    if !output.status.success() && refused.iter().any(|words| text.contains(words)) {
        return;
    }
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stdout));
}
