//! The shared-memory transport, from outside: two threads, two processes, hostile and full segments.
#![cfg(target_os = "linux")]

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wadjet::buf::{Exhausted, Frame};
use wadjet::id::{GroupId, Incarnation, Rank, RankSet, ViewId};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::{
    Channel, ChannelOptions, Destination, Received, Slice, Transmit, Transport, TransportError,
};
use wadjet::view::{Address, LocalView, Member, View};

const HEADER_BYTES: usize = 24;
/// Everything here ends long before, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

// ---- who takes part ----

fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn view(group: &str, members: u64, own: u64) -> LocalView {
    let member = |n| Member { incarnation: Incarnation(n), address: Address(format!("m{n}")) };
    let view = View {
        group: GroupId::named(group),
        id: ViewId { counter: 1, coordinator: Incarnation(1) },
        members: (1..=members).map(member).collect(),
        spec: String::new(),
        wire_version: 1,
        salt: 0,
    };
    LocalView::new(view, Incarnation(own)).unwrap()
}

fn small() -> ChannelOptions {
    ChannelOptions {
        cast_frames: 16,
        control_frames: 4,
        receive_frames: 16,
        frame_bytes: 512,
        huge_pages: false,
    }
}

struct End {
    shm: Shm,
    channel: Channel,
}

impl End {
    fn open(group: &str, members: u64, own: u64) -> End {
        End::open_with(group, members, own, &small(), &ShmOptions::default()).unwrap()
    }

    fn open_with(
        group: &str,
        members: u64,
        own: u64,
        options: &ChannelOptions,
        shm: &ShmOptions,
    ) -> Result<End, TransportError> {
        let mut shm = Shm::new(shm.clone());
        let channel = shm.open(&view(group, members, own), options)?;
        Ok(End { shm, channel })
    }

    /// Members that have found each other.
    fn group(members: u64) -> Vec<End> {
        let group = unique("group");
        let mut ends: Vec<End> = (1..=members).map(|own| End::open(&group, members, own)).collect();
        ends.iter_mut().for_each(|end| end.find(members as usize - 1));
        ends
    }

    fn pair() -> (End, End) {
        let mut ends = End::group(2).into_iter();
        (ends.next().unwrap(), ends.next().unwrap())
    }

    fn find(&mut self, peers: usize) {
        let id = self.channel.id;
        self.until(|end| end.shm.peers(id) == peers);
    }

    /// Reaps until something holds.
    fn until(&mut self, mut holds: impl FnMut(&mut End) -> bool) {
        let start = Instant::now();
        loop {
            self.shm.reap();
            if holds(self) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "nothing happens any more");
            thread::yield_now();
        }
    }

    fn take(&self, payload: &[u8]) -> Result<Frame, Exhausted> {
        let mut frame = self.channel.casts.take(HEADER_BYTES)?;
        frame.extend(payload).unwrap();
        let frame = frame.freeze();
        frame.prepend(&[0xaa; HEADER_BYTES]).unwrap();
        Ok(frame)
    }

    fn transmit(&self, to: Destination, head: Frame) -> Transmit {
        Transmit { channel: self.channel.id, to, head, body: None }
    }

    fn submit(&mut self, to: Destination, head: Frame) -> bool {
        let transmit = self.transmit(to, head);
        self.shm.submit(transmit).is_ok()
    }

    fn cast(&mut self, payload: &[u8]) -> Result<(), Exhausted> {
        let frame = self.take(payload)?;
        assert!(self.submit(Destination::All, frame), "casts in place are always taken");
        Ok(())
    }

    fn cast_patiently(&mut self, payload: &[u8]) {
        self.until(|end| end.cast(payload).is_ok());
    }

    fn control(&mut self, to: Destination, payload: &[u8]) -> bool {
        let mut frame = self.channel.control.take_reserved(HEADER_BYTES).unwrap();
        frame.extend(payload).unwrap();
        let frame = frame.freeze();
        frame.prepend(&[0xcc; HEADER_BYTES]).unwrap();
        self.submit(to, frame)
    }

    /// What is there, up to `budget`.
    fn receive(&mut self, budget: usize) -> Vec<Received> {
        let mut got = Vec::new();
        self.shm.reap();
        let count = self.shm.receive(budget, &mut |received| got.push(received));
        assert_eq!(count, got.len());
        assert!(count <= budget);
        got
    }

    fn receive_payloads(&mut self) -> Vec<Vec<u8>> {
        self.receive(usize::MAX >> 1).iter().map(|received| payload(received).to_vec()).collect()
    }

    fn segment(&self, group: &str, own: u64) -> PathBuf {
        segment_of(Path::new("/dev/shm"), &view(group, 2, own), own)
    }
}

fn payload(received: &Received) -> &[u8] {
    &received.bytes()[HEADER_BYTES..]
}

/// As documented: group, incarnation, view.
fn segment_of(directory: &Path, view: &LocalView, own: u64) -> PathBuf {
    let (group, id) = (view.view().group, view.view().id);
    directory.join(format!("wadjet-{group}-{}-{:x}-{}", Incarnation(own), id.counter, id.coordinator))
}

/// A payload that says its number and has a length and content following from it.
fn numbered(number: u64) -> Vec<u8> {
    let length = 8 + (number * 37 % 397) as usize;
    let mut bytes: Vec<u8> = (0..length).map(|at| (number as usize * 31 + at) as u8).collect();
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn number(payload: &[u8]) -> u64 {
    let number = u64::from_le_bytes(payload[..8].try_into().unwrap());
    assert_eq!(payload, numbered(number), "a frame arrives unchanged");
    number
}

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
    assert!(two.shm.intact(&oldest));
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
        let elsewhere = one.take(b"through the control ring").unwrap();
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

#[test]
fn a_full_control_ring_refuses_and_goes_on() {
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

// ---- bad input ----

/// Offsets of a segment of `members`, as documented in the transport's source.
fn ring_offsets(path: &Path) -> (u64, u64) {
    let file = fs::File::open(path).unwrap();
    let word = |index: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, index * 8).unwrap();
        u64::from_le_bytes(bytes)
    };
    let (cast_bytes, control_bytes) = (word(14), word(15));
    let length = fs::metadata(path).unwrap().len();
    (length - cast_bytes, length - cast_bytes - control_bytes)
}

/// The members of a pair, and a function that writes a word over the ring of the first.
fn hostile() -> (End, End, impl Fn(bool, u64, u64)) {
    let group = unique("hostile");
    let (mut one, mut two) = (End::open(&group, 2, 1), End::open(&group, 2, 2));
    one.find(1);
    two.find(1);
    let path = one.segment(&group, 1);
    let (casts, control) = ring_offsets(&path);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let write = move |in_casts: bool, at: u64, word: u64| {
        let base = if in_casts { casts } else { control };
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
    let (casts, _) = ring_offsets(&path);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let generation = stamp & (((1 << 28) - 1) << 34);
    let frame = |start: u64, length: u64| 1 << 62 | generation | start << 22 | length;
    let void = |lines: u64| 2 << 62 | generation | lines;
    let ring = fs::metadata(&path).unwrap().len() - casts;
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
fn rubbish_in_the_control_ring_is_not_taken_for_a_destination() {
    let (mut one, mut two, write) = hostile();
    assert!(one.control(Destination::All, b"to be spoilt"));
    write(false, 8, 0xff);
    assert!(two.receive(64).is_empty());
    assert_eq!(two.shm.counters().dropped, 1);
    one.cast(b"casts go on").unwrap();
    assert_eq!(two.receive_payloads(), [b"casts go on"]);
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
    fs::remove_file(&path).unwrap();
    let _two = End::open(&group, 2, 2);
    one.find(1);
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
