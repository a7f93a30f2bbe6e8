//! The shared-memory transport, from outside: the order of frames, and who may write where when.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "a test that may not run says so")]

#[path = "common/shm.rs"]
mod ends;

use std::collections::VecDeque;
use std::thread;

use ends::{End, HEADER_BYTES, number, numbered, payload, small, unique};
use wadjet::buf::{Exhausted, Frame};
use wadjet::id::{Rank, RankSet};
use wadjet::transport::shm::ShmOptions;
use wadjet::transport::{ChannelOptions, Destination, Slice, Transmit, Transport};

// ---- order, loss, wrap ----

#[test]
fn casts_are_read_in_place_in_order_over_many_laps() {
    let (mut one, mut two) = End::pair();
    for number in 0..2_000_u64 {
        one.cast_patiently(&numbered(number));
        let got = two.receive(8);
        assert_eq!(got.len(), 1);
        assert_eq!(self::number(payload(&got[0])), number);
        assert_eq!(&got[0].bytes()[..HEADER_BYTES], &[0xaa; HEADER_BYTES]);
        drop(got);
        two.shm.receive(1, &mut |_| panic!("nothing more was sent"));
    }
    let laps = one.take(b"").unwrap().position() / one.channel.casts.memory().bytes() as u64;
    assert!(laps >= 2, "the ring wrapped: {laps}");
    assert_eq!((one.shm.counters().copies, two.shm.counters().copies), (0, 0));
    assert_eq!(two.shm.counters().dropped, 0);
}

#[test]
fn two_threads_stream_without_loss_and_the_writer_is_held_to_the_reader() {
    const FRAMES: u64 = 200_000;
    let group = &unique("stream");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut end = End::open(group, 2, 1);
            (0..FRAMES).for_each(|number| end.cast_patiently(&numbered(number)));
            // The segment goes with its owner: it stays until the reader said that it has all.
            end.until(|end| !end.receive(1).is_empty());
        });
        let mut end = End::open(group, 2, 2);
        let mut next = 0;
        end.until(|end| {
            let mut held = VecDeque::new();
            end.shm.receive(64, &mut |received| {
                assert_eq!(number(payload(&received)), next);
                next += 1;
                // Some are held while others come and go.
                held.push_back(received);
                if held.len() > 5 {
                    held.swap_remove_back(held.len() / 2);
                }
            });
            next == FRAMES
        });
        end.cast(b"all is here").unwrap();
        assert_eq!(end.shm.counters().dropped, 0);
    });
}

#[test]
fn one_writes_and_several_read_the_same_bytes() {
    let mut ends = End::group(4);
    for round in 0..500_u64 {
        ends[1].cast_patiently(&numbered(round));
        for reader in [0, 2, 3] {
            let got = ends[reader].receive(8);
            assert_eq!(got.iter().map(|r| number(payload(r))).collect::<Vec<_>>(), [round]);
        }
    }
    assert_eq!(ends[1].shm.counters().frames_sent, 500);
    assert!(ends[1].receive(1).is_empty(), "the sender itself gets nothing");
}

#[test]
fn everybody_casts_and_nobody_starves_under_a_small_budget() {
    let mut ends = End::group(3);
    for number in 0..8_u64 {
        ends[0].cast(&numbered(number)).unwrap();
        ends[1].cast(&numbered(100 + number)).unwrap();
    }
    let mut got: Vec<u64> = Vec::new();
    for _ in 0..4 {
        got.extend(ends[2].receive(4).iter().map(|r| number(payload(r))));
    }
    assert_eq!(got.iter().filter(|n| **n < 100).copied().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    assert_eq!(
        got.iter().filter(|n| **n >= 100).copied().collect::<Vec<_>>(),
        (100..108).collect::<Vec<_>>()
    );
    assert!(got[..8].iter().any(|n| *n < 100) && got[..8].iter().any(|n| *n >= 100), "{got:?}");
}

// ---- back-pressure and release ----

#[test]
fn in_a_large_view_nobody_is_overlooked_however_quiet_and_within_a_few_looks() {
    let mut ends = End::group(20);
    let looks = 20_usize.div_ceil(7);
    for round in 0..3 {
        for sender in 1..20 {
            for _ in 0..5 {
                assert!(ends[0].receive(64).is_empty());
            }
            let number = round * 20 + sender as u64;
            if round == 1 {
                assert!(ends[sender].control(Destination::One(Rank(0)), &numbered(number)));
            } else {
                ends[sender].cast(&numbered(number)).unwrap();
            }
            let got: Vec<u64> = (0..looks)
                .flat_map(|_| ends[0].receive(64))
                .map(|received| self::number(payload(&received)))
                .collect();
            assert_eq!(got, [number]);
        }
    }
    // One that is gone does not shift the turns of the others.
    let id = ends[0].channel.id;
    ends[0].shm.exclude(id, Rank(7));
    ends[19].cast(b"last").unwrap();
    let got: usize = (0..looks).map(|_| ends[0].receive(64).len()).sum();
    assert_eq!(got, 1);
}

#[test]
fn a_slow_reader_holds_the_writer_within_bounds_and_lets_it_go_on() {
    let (mut one, mut two) = End::pair();
    let mut sent = 0;
    while one.cast(&numbered(sent)).is_ok() {
        sent += 1;
        assert!(sent < 10_000, "a ring is bounded");
    }
    assert!(sent >= small().cast_frames as u64, "as many as were asked for fit");
    for _ in 0..1000 {
        one.shm.reap();
    }
    assert!(one.cast(b"no room").is_err(), "nothing was released");
    let held = two.receive(usize::MAX >> 1);
    let read = held.len() as u64;
    assert!(read >= small().cast_frames as u64, "as many as the writer may have out can be held");
    two.shm.reap();
    one.shm.reap();
    assert!(one.cast(b"no room").is_err(), "all is still held");
    assert!(held.iter().enumerate().all(|(at, r)| number(payload(r)) == at as u64));
    drop(held);
    assert_eq!(two.receive_payloads().len() as u64, sent - read, "the rest waits in the ring");
    two.receive(1);
    two.shm.reap();
    one.shm.reap();
    one.cast(&numbered(sent)).unwrap();
    assert_eq!(number(payload(&two.receive(1)[0])), sent);
}

#[test]
fn frames_released_out_of_order_are_not_reused_before_the_oldest_is() {
    let (mut one, mut two) = End::pair();
    let mut sent = 0;
    while one.cast(&numbered(sent)).is_ok() {
        sent += 1;
    }
    let mut held = two.receive(usize::MAX >> 1);
    let oldest = held.remove(0);
    drop(held);
    drop(two.receive(usize::MAX >> 1));
    two.receive(1);
    two.shm.reap();
    one.shm.reap();
    assert!(one.cast(b"no room").is_err(), "the oldest holds the ring");
    assert_eq!(number(payload(&oldest)), 0);
    assert!(two.shm.intact(oldest.channel, &oldest.frame));
    drop(oldest);
    drop(two.receive(usize::MAX >> 1));
    two.receive(1);
    two.shm.reap();
    one.shm.reap();
    for number in sent..sent * 2 {
        one.cast_patiently(&numbered(number));
        assert_eq!(self::number(payload(&two.receive(1)[0])), number);
    }
}

#[test]
fn a_writer_that_retains_its_casts_finds_them_whole() {
    let (mut one, mut two) = End::pair();
    let mut retained = VecDeque::new();
    for number in 0..1_000_u64 {
        let frame = loop {
            one.shm.reap();
            match one.take(&numbered(number)) {
                Ok(frame) => break frame,
                Err(Exhausted) => drop(retained.pop_front().expect("the reader holds nothing")),
            }
        };
        retained.push_back(frame.clone());
        assert!(one.submit(Destination::All, frame));
        assert_eq!(self::number(payload(&two.receive(1)[0])), number);
        let oldest: &Frame = &retained[0];
        self::number(&oldest.bytes()[HEADER_BYTES..]);
    }
}

#[test]
fn busy_means_that_the_slowest_reader_is_more_than_one_frame_behind() {
    let mut ends = End::group(3);
    let id = ends[0].channel.id;
    let busy = |ends: &mut Vec<End>| {
        ends[0].shm.reap();
        ends[0].shm.busy(id)
    };
    let read = |end: &mut End| {
        while !end.receive(8).is_empty() {}
        end.shm.reap();
    };
    assert!(!busy(&mut ends));
    ends[0].cast(b"1").unwrap();
    assert!(!busy(&mut ends), "one frame on its way is not a queue");
    ends[0].cast(b"2").unwrap();
    assert!(busy(&mut ends));
    read(&mut ends[1]);
    assert!(busy(&mut ends), "the other has read nothing");
    read(&mut ends[2]);
    assert!(!busy(&mut ends));
}

// ---- frames that do not go out in place ----

#[test]
fn given_up_frames_are_skipped_by_readers() {
    let (mut one, mut two) = End::pair();
    for number in 0..600_u64 {
        let unfrozen = one.channel.casts.take(HEADER_BYTES);
        drop(unfrozen);
        let frozen = {
            one.shm.reap();
            one.take(b"never sent")
        };
        drop(frozen);
        one.cast_patiently(&numbered(number));
        assert_eq!(two.receive_payloads(), [numbered(number)]);
    }
    assert_eq!(two.shm.counters().dropped, 0);
}

#[test]
fn what_is_released_does_not_go_back_behind_skipped_bytes() {
    let (mut one, mut two) = End::pair();
    for number in 0..100_u64 {
        one.cast_patiently(&numbered(number));
        drop(two.receive(8));
        let elsewhere = one.take(b"through a lane").unwrap();
        assert!(one.submit(Destination::One(Rank(1)), elsewhere));
        drop(two.receive(8));
        two.receive(8);
        two.shm.reap();
        // Now the void is told as released. A frame held behind it must not take that back.
        one.cast_patiently(&numbered(number));
        let held = two.receive(8);
        two.receive(8);
        two.shm.reap();
        assert_eq!(self::number(payload(&held[0])), number);
    }
}

#[test]
fn a_ring_of_nothing_but_given_up_frames_comes_free_again() {
    let (mut one, mut two) = End::pair();
    for _ in 0..10 {
        while let Ok(frame) = one.take(&[1; 400]) {
            drop(frame);
        }
        // Readers must step over them before the writer may use the room.
        one.shm.reap();
        assert!(two.receive_payloads().is_empty());
        two.shm.reap();
        one.shm.reap();
        one.cast(b"real").unwrap();
        assert_eq!(two.receive_payloads(), [b"real"]);
        two.shm.reap();
    }
}

#[test]
fn frames_taken_ahead_of_their_submission_keep_their_content() {
    let (mut one, mut two) = End::pair();
    let frames: Vec<Frame> = (0..8).map(|number| one.take(&numbered(number)).unwrap()).collect();
    for frame in frames {
        assert!(one.submit(Destination::All, frame));
    }
    let got: Vec<u64> = two.receive(64).iter().map(|r| number(payload(r))).collect();
    assert_eq!(got, (0..8).collect::<Vec<_>>());
}

#[test]
fn frames_frozen_out_of_order_leave_no_hole_that_stops_readers() {
    let (mut one, mut two) = End::pair();
    for round in 0..300_u64 {
        one.shm.reap();
        // The first is frozen when it is not the newest any more: it keeps the room of the largest frame.
        let mut first = one.channel.casts.take(HEADER_BYTES).unwrap();
        let mut second = one.channel.casts.take(HEADER_BYTES).unwrap();
        second.extend(&numbered(2 * round + 1)).unwrap();
        first.extend(&numbered(2 * round)).unwrap();
        for frame in [first.freeze(), second.freeze()] {
            frame.prepend(&[0xaa; HEADER_BYTES]).unwrap();
            assert!(one.submit(Destination::All, frame));
        }
        let got: Vec<u64> = two.receive(64).iter().map(|r| number(payload(r))).collect();
        assert_eq!(got, [2 * round, 2 * round + 1]);
        two.shm.receive(1, &mut |_| {});
        two.shm.reap();
    }
}

#[test]
fn control_frames_reach_those_they_are_for_and_nobody_else() {
    let mut ends = End::group(4);
    let some: RankSet = [Rank(0), Rank(3)].into_iter().collect();
    assert!(ends[1].control(Destination::All, b"all"));
    assert!(ends[1].control(Destination::One(Rank(2)), b"one"));
    assert!(ends[1].control(Destination::Some(some), b"some"));
    assert!(ends[1].control(Destination::All, b"end"));
    assert_eq!(ends[0].receive_payloads(), [&b"all"[..], b"some", b"end"]);
    assert_eq!(ends[2].receive_payloads(), [&b"all"[..], b"one", b"end"]);
    assert_eq!(ends[3].receive_payloads(), [&b"all"[..], b"some", b"end"]);
    assert!(ends[1].receive_payloads().is_empty());
    assert_eq!(ends[1].shm.counters().copies, 0);
    assert_eq!(ends[1].channel.control.usage().lent, 0, "every frame comes back");
}

#[test]
fn a_cast_to_a_subset_leaves_no_hole_for_the_others() {
    let mut ends = End::group(3);
    for number in 0..400_u64 {
        let frame = loop {
            ends[0].shm.reap();
            if let Ok(frame) = ends[0].take(&numbered(number)) {
                break frame;
            }
        };
        let to = if number % 3 == 0 { Destination::One(Rank(1)) } else { Destination::All };
        assert!(ends[0].submit(to, frame));
        let first: Vec<u64> = ends[1].receive(8).iter().map(|r| self::number(payload(r))).collect();
        let second: Vec<u64> = ends[2].receive(8).iter().map(|r| self::number(payload(r))).collect();
        assert_eq!(first, [number]);
        assert_eq!(second, if number % 3 == 0 { vec![] } else { vec![number] });
        ends[1].receive(1);
        ends[2].receive(1);
    }
    assert_eq!(ends[0].shm.counters().copies, 134);
}

#[test]
fn a_retransmission_is_a_header_and_a_retained_body() {
    let (mut one, mut two) = End::pair();
    let frame = one.take(b"payload").unwrap();
    let body = Slice { from: frame.start() + HEADER_BYTES, to: frame.end(), frame: frame.clone() };
    assert!(one.submit(Destination::All, frame));
    let mut head = one.channel.control.take_reserved(0).unwrap();
    head.extend(&[0xbb; 40]).unwrap();
    let to = Destination::One(Rank(1));
    let again = Transmit { channel: one.channel.id, to, head: head.freeze(), body: Some(body) };
    one.shm.submit(again).unwrap();
    let got = two.receive(8);
    let retransmitted = got.iter().find(|r| r.bytes()[0] == 0xbb).unwrap();
    assert_eq!(&retransmitted.bytes()[40..], b"payload");
    assert_eq!(got.len(), 2);
    assert_eq!(one.shm.counters().copies, 1);
    assert_eq!((one.channel.control.usage().lent, one.channel.casts.usage().lent), (0, 0));
}

/// A control frame may say how much was cast before it: were it read before those casts, they would look lost.
#[test]
fn a_control_frame_does_not_overtake_the_casts_submitted_before_it() {
    let (mut one, mut two) = End::pair();
    let (mut cast, mut read, mut told) = (0, 0, VecDeque::new());
    for budget in [1, 2, 3, 7, 64, usize::MAX >> 1].into_iter().cycle().take(1_200) {
        for _ in 0..3 {
            // Not flushed: nobody finds it yet, unless what follows does so.
            while cast % 5 < 4 || told.back() == Some(&cast) {
                let Ok(frame) = one.take(&numbered(cast)) else { break };
                let transmit = one.transmit(Destination::All, frame);
                one.shm.submit(transmit).unwrap();
                cast += 1;
            }
            if one.control(Destination::All, &cast.to_le_bytes()) {
                told.push_back(cast);
            }
        }
        for received in two.receive(budget) {
            if received.bytes()[0] == 0xaa {
                assert_eq!(number(payload(&received)), read);
                read += 1;
            } else {
                let before = u64::from_le_bytes(payload(&received).try_into().unwrap());
                assert_eq!(Some(before), told.pop_front(), "they are in order among each other");
                assert!(read >= before, "{read} casts were read of the {before} before it");
            }
        }
        one.shm.reap();
        two.shm.reap();
    }
    assert!(read > 2_000, "{read}");
    while !told.is_empty() {
        let got = two.receive(64);
        assert!(!got.is_empty(), "{} more", told.len());
        told.drain(..got.iter().filter(|received| received.bytes()[0] == 0xcc).count());
    }
}

#[test]
fn a_full_lane_refuses_and_goes_on() {
    let (mut one, mut two) = End::pair();
    let mut refused = 0;
    let mut expected = VecDeque::new();
    for number in 0..5_000_u64 {
        if one.control(Destination::One(Rank(1)), &numbered(number)) {
            expected.push_back(number);
        } else {
            refused += 1;
            assert_eq!(one.channel.control.usage().lent, 0, "a frame given back is the caller's alone");
            for received in two.receive(usize::MAX >> 1) {
                assert_eq!(Some(self::number(payload(&received))), expected.pop_front());
            }
            two.receive(1);
            two.shm.reap();
            one.shm.reap();
        }
    }
    assert!(refused > 10 && refused < 1_000, "{refused}");
    for received in two.receive(usize::MAX >> 1) {
        assert_eq!(Some(self::number(payload(&received))), expected.pop_front());
    }
    assert!(expected.is_empty());
}

// ---- huge pages ----

/// A tmpfs of the test's own, unmounted when dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    /// `None`, and a line that says why, for who may not mount; in CI, which may, that is a failure.
    fn tmpfs(options: &str) -> Option<Mounted> {
        let directory = std::env::temp_dir().join(unique("wadjet-huge"));
        std::fs::create_dir(&directory).unwrap();
        let mounted = Mounted(directory);
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&mounted.0);
        let output = mount.output().unwrap();
        if output.status.success() {
            return Some(mounted);
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(std::env::var_os("CI").is_none(), "{said}");
        println!("not run: {said}");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
        drop(std::fs::remove_dir(&self.0));
    }
}

#[test]
fn segments_are_on_huge_pages_where_the_tmpfs_gives_them_and_else_a_note_says_what_to_do() {
    let options = ChannelOptions { cast_frames: 4096, frame_bytes: 2048, huge_pages: true, ..small() };
    for (mounted_with, huge) in [("size=64m,huge=always", true), ("size=64m,huge=never", false)] {
        let Some(mounted) = Mounted::tmpfs(mounted_with) else { return };
        let directory = mounted.0.clone();
        let end =
            End::open_with(&unique("huge"), 2, 1, &options, &ShmOptions { directory: directory.clone() });
        let end = end.unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let of_segment = maps.lines().skip_while(|line| !line.contains(directory.to_str().unwrap()));
        let mapped = of_segment.skip(1).find_map(|line| line.strip_prefix("ShmemPmdMapped:")).unwrap();
        let kilobytes: u64 = mapped.trim().trim_end_matches(" kB").parse().unwrap();
        // What was touched so far: the header.
        assert_eq!(kilobytes >= 2048, huge, "{kilobytes} kB of a segment of 8 MiB");
        let notes = end.shm.caps().notes.join("; ");
        assert_eq!(notes.contains("huge=within_size"), !huge, "{notes}");
    }
}
