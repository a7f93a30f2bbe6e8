//! The shared-memory transport, from outside: views of one member, many views after each other, and segments that are
//! made before they are needed.
#![cfg(target_os = "linux")]

#[path = "common/shm.rs"]
mod ends;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ends::{End, PATIENCE, numbered, payload, segment_of, small, unique, view};
use wadjet::id::{GroupId, Incarnation, Rank};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::{Channel, ChannelOptions, Destination, Transmit, Transport, TransportError};
use wadjet::view::{Address, LocalView};

/// A directory of a test's own, removed with what is in it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        let path = Path::new("/dev/shm").join(unique("views"));
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn options(&self) -> ShmOptions {
        ShmOptions { directory: self.0.clone() }
    }

    /// Without the lock, which stays for the next one of this user.
    fn files(&self) -> usize {
        let names = fs::read_dir(&self.0).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| !name.to_string_lossy().starts_with(".wadjet-lock-")).count()
    }

    /// Mappings of this process that lie here, with or without a name.
    fn mappings(&self) -> usize {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(self.0.to_str().unwrap())).count()
    }

    fn descriptors(&self) -> usize {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = links.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.filter(|target| target.starts_with(&self.0)).count()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// As large as an ordinary member's.
fn ordinary() -> ChannelOptions {
    ChannelOptions {
        cast_frames: 1090,
        control_frames: 512,
        receive_frames: 1024,
        frame_bytes: 2048,
        huge_pages: false,
    }
}

fn nth_view(group: &str, members: u64, own: u64, counter: u64) -> LocalView {
    let mut view = view(group, members, own).view().clone();
    view.id.counter = counter;
    LocalView::new(view, Incarnation(own)).unwrap()
}

fn idle(shm: &mut Shm, mut until: impl FnMut(&Shm) -> bool) {
    let start = Instant::now();
    while !until(shm) {
        assert!(start.elapsed() < PATIENCE);
        shm.reap();
        shm.receive(1, &mut |_| {});
    }
}

/// Gives the transport the time in which a spare is made: it makes a step each time.
fn rest(shm: &mut Shm) {
    for _ in 0..200 {
        shm.wait(Duration::ZERO);
        shm.receive(1, &mut |_| {});
    }
}

#[test]
fn a_view_of_one_member_needs_no_file_and_its_casts_go_round() {
    let directory = Directory::new();
    let mut end = End::open_with("alone", 1, 1, &ordinary(), &directory.options()).unwrap();
    assert_eq!((directory.files(), directory.mappings()), (0, 0));
    let id = end.channel.id;
    for number in 0..20_000 {
        end.cast_patiently(&numbered(number));
        assert!(end.control(Destination::All, b"to nobody"));
        assert!(end.receive(8).is_empty());
    }
    assert!(!end.shm.busy(id) && end.shm.gone(id).is_empty());
    assert_eq!(end.shm.counters().dropped, 0);
    assert_eq!((end.channel.casts.usage().lent, end.channel.control.usage().lent), (0, 0));
}

#[test]
fn three_hundred_views_after_each_other_leave_nothing_behind() {
    const VIEWS: u64 = 300;
    let directory = Directory::new();
    let group = &unique("many");
    let mut shms: Vec<Shm> = (0..3).map(|_| Shm::new(directory.options())).collect();
    for (own, shm) in shms.iter_mut().enumerate() {
        shm.bind(GroupId::named(group), &Address(format!("m{own}"))).unwrap();
    }
    let mut channels: Vec<Channel> = Vec::new();
    for counter in 1..=VIEWS {
        // Of one member, two, or three: each opens the next view before it leaves the old one.
        let members = 1 + counter % 3;
        let open = |(shm, own): (&mut Shm, u64)| {
            if counter % 2 == 0 {
                shm.prepare(&small());
            }
            shm.open(&nth_view(group, members, own, counter), &small()).unwrap()
        };
        let next: Vec<Channel> = shms.iter_mut().zip(1..=members).map(open).collect();
        for (shm, old) in shms.iter_mut().zip(&channels) {
            shm.close(old.id);
        }
        channels = next;
        let mut frame = channels[0].casts.take(0).unwrap();
        frame.extend(&counter.to_le_bytes()).unwrap();
        let id = channels[0].id;
        shms[0]
            .submit(Transmit { channel: id, to: Destination::All, head: frame.freeze(), body: None })
            .unwrap();
        shms[0].flush();
        for (shm, channel) in shms.iter_mut().zip(&channels).skip(1) {
            let mut got = 0;
            let start = Instant::now();
            while got == 0 && start.elapsed() < PATIENCE {
                shm.reap();
                shm.wait(Duration::from_micros(100));
                shm.receive(8, &mut |received| {
                    assert_eq!(received.channel, channel.id);
                    assert_eq!(received.bytes(), counter.to_le_bytes());
                    got += 1;
                });
            }
            assert_eq!(got, 1, "view {counter}");
        }
        assert!(channels[0].id.0 & 0xff < 2, "indices of closed channels are used again");
    }
    for (shm, channel) in shms.iter_mut().zip(&channels) {
        shm.close(channel.id);
    }
    drop(channels);
    let start = Instant::now();
    // Unmapping is another thread's.
    while directory.mappings() > 3 {
        assert!(start.elapsed() < PATIENCE, "{} mappings are left", directory.mappings());
        shms.iter_mut().for_each(rest);
    }
    assert_eq!(directory.files(), 3, "the sockets");
    assert!(directory.descriptors() <= 3, "spares");
    assert!(shms.iter().all(|shm| shm.frames_held() == 0));
    drop(shms);
    assert_eq!((directory.files(), directory.descriptors()), (0, 0));
    while directory.mappings() > 0 {
        assert!(start.elapsed() < PATIENCE, "{} mappings are left", directory.mappings());
        std::thread::yield_now();
    }
}

#[test]
fn a_spare_makes_opening_quick_and_is_used_once() {
    let directory = Directory::new();
    let group = &unique("spare");
    let mut shm = Shm::new(directory.options());
    let mut times = [Duration::MAX; 2];
    for counter in 0..20 {
        let spare = counter % 2 == 0;
        if spare {
            shm.prepare(&ordinary());
            rest(&mut shm);
            assert_eq!(directory.files(), 0, "a spare has no name");
        }
        let start = Instant::now();
        let channel = shm.open(&nth_view(group, 2, 1, counter), &ordinary()).unwrap();
        let time = &mut times[usize::from(spare)];
        *time = (*time).min(start.elapsed());
        let path = segment_of(&directory.0, &nth_view(group, 2, 1, counter), 1);
        let data = fs::metadata(&path).unwrap();
        assert_eq!(data.mode() & 0o777, 0o600);
        assert!(data.blocks() * 512 >= 6 << 20, "all of it is there");
        shm.close(channel.id);
        drop(channel);
        idle(&mut shm, |_| directory.mappings() == 0);
    }
    // The fastest of ten each, for the machine has others to serve.
    assert!(times[1] < Duration::from_millis(1) && times[1] * 2 < times[0], "{times:?}");
}

#[test]
fn a_spare_serves_a_view_of_another_size_and_carries_frames() {
    let directory = Directory::new();
    let group = &unique("sizes");
    let mut shms: Vec<Shm> = (0..3).map(|_| Shm::new(directory.options())).collect();
    for (counter, members) in [(1, 2), (2, 3), (3, 2)] {
        for shm in &mut shms[..members] {
            shm.prepare(&ordinary());
            // Not made to its end: opening does the rest.
            (0..counter * 3).for_each(|_| {
                shm.wait(Duration::ZERO);
                shm.receive(1, &mut |_| {});
            });
        }
        let open = |(own, shm): (usize, &mut Shm)| {
            shm.open(&nth_view(group, members as u64, own as u64 + 1, counter), &ordinary()).unwrap()
        };
        let channels: Vec<Channel> = shms.iter_mut().take(members).enumerate().map(open).collect();
        for round in 0..3_000_u64 {
            let mut frame = channels[0].casts.take(0).unwrap();
            frame.extend(&numbered(round)).unwrap();
            let (channel, to) = (channels[0].id, Destination::All);
            shms[0].submit(Transmit { channel, to, head: frame.freeze(), body: None }).unwrap();
            let mut frame = channels[0].control.take(0).unwrap();
            frame.extend(&numbered(round)).unwrap();
            let to = Destination::One(Rank(members as u16 - 1));
            shms[0].submit(Transmit { channel, to, head: frame.freeze(), body: None }).unwrap();
            shms[0].flush();
            for (rank, shm) in shms.iter_mut().take(members).enumerate().skip(1) {
                let mut got = 0;
                let count = 1 + usize::from(rank == members - 1);
                idle(shm, |_| true);
                let start = Instant::now();
                while got < count && start.elapsed() < PATIENCE {
                    shm.reap();
                    shm.receive(8, &mut |received| {
                        assert_eq!(received.bytes(), numbered(round));
                        got += 1;
                    });
                }
                assert_eq!(got, count);
            }
            shms[0].reap();
        }
        shms.iter_mut().zip(&channels).for_each(|(shm, channel)| shm.close(channel.id));
    }
}

#[test]
fn a_spare_does_not_take_a_name_that_is_taken() {
    let directory = Directory::new();
    let group = &unique("taken");
    let mut one = End::open_with(group, 2, 1, &small(), &directory.options()).unwrap();
    let mut again = Shm::new(directory.options());
    again.prepare(&small());
    let error = again.open(&view(group, 2, 1), &small()).unwrap_err();
    assert!(matches!(error, TransportError::IncarnationInUse(_)), "{error}");
    let mut two = End::open_with(group, 2, 2, &small(), &directory.options()).unwrap();
    one.find(1);
    two.find(1);
    one.cast(b"not disturbed").unwrap();
    assert_eq!(payload(&two.receive(1)[0]), b"not disturbed");
}

#[test]
fn preparing_where_nothing_can_be_made_does_no_harm() {
    let mut shm = Shm::new(ShmOptions { directory: "/nowhere/at/all".into() });
    shm.prepare(&ordinary());
    rest(&mut shm);
    let error = shm.open(&view("nowhere", 2, 1), &ordinary()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    shm.open(&view("nowhere", 1, 1), &ordinary()).unwrap();
    let huge = ChannelOptions { cast_frames: 1 << 24, frame_bytes: 1 << 20, ..small() };
    let mut shm = Shm::new(ShmOptions::default());
    shm.prepare(&huge);
    rest(&mut shm);
    assert!(matches!(shm.open(&view("huge", 2, 1), &huge), Err(TransportError::NoSpace { .. })));
}

#[test]
fn long_frames_reach_whom_they_are_for_and_all_come_back() {
    let directory = Directory::new();
    let group = unique("long");
    let open = |own| End::open_with(&group, 3, own, &ordinary(), &directory.options()).unwrap();
    let mut ends = [1, 2, 3].map(open);
    ends.iter_mut().for_each(|end| end.find(2));
    let long = ends[0].channel.long.clone().expect("a lane of an ordinary member has room for long frames");
    assert!(long.frame_bytes() > 4 * ordinary().frame_bytes, "{}", long.frame_bytes());
    let bytes: Vec<u8> = (0..long.frame_bytes() as u32).map(|at| (at ^ at >> 8) as u8).collect();
    let turn = |ends: &mut [End; 3], to: Destination| {
        let mut frame = long.take(0).expect("frames come back");
        frame.extend(&bytes).unwrap();
        assert!(ends[0].submit(to, frame.freeze()));
        let mut got = [0, 0];
        for (end, got) in ends[1..].iter_mut().zip(&mut got) {
            end.shm.receive(64, &mut |received| {
                assert!(received.bytes() == bytes, "it is as it was");
                *got += 1;
            });
        }
        ends.iter_mut().for_each(|end| end.shm.reap());
        got
    };
    // Several laps of a lane.
    for _ in 0..200 {
        assert_eq!(turn(&mut ends, Destination::One(Rank(2))), [0, 1]);
        assert_eq!(turn(&mut ends, Destination::All), [1, 1]);
    }
    // What is longer than a lane carries is not sent, and counted.
    let (head, body) = (long.take(0).unwrap(), long.take(0).unwrap());
    let [head, body] = [head, body].map(|mut frame| {
        frame.extend(&bytes).unwrap();
        frame.freeze()
    });
    let dropped = ends[0].shm.counters().dropped;
    let (from, to) = (body.start(), body.end());
    let body = Some(wadjet::transport::Slice { frame: body, from, to });
    let transmit = Transmit { body, ..ends[0].transmit(Destination::One(Rank(1)), head) };
    assert!(ends[0].shm.submit(transmit).is_ok());
    assert_eq!(ends[0].shm.counters().dropped, dropped + 1);
    assert!(long.all_returned());
}

/// Past views stay open for a while: groups that share a member that dies open many channels at once.
#[test]
fn more_channels_than_a_transport_has_are_refused_and_one_that_closes_makes_room() {
    let directory = Directory::new();
    let mut shm = Shm::new(directory.options());
    let options = ChannelOptions { cast_frames: 2, control_frames: 2, receive_frames: 2, ..small() };
    let group = unique("channels");
    let mut open = |counter| shm.open(&nth_view(&group, 1, 1, counter), &options);
    let channels: Vec<_> = (0..256).map(|counter| open(counter).unwrap()).collect();
    let error = open(256).unwrap_err();
    assert!(matches!(&error, TransportError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("256"), "{error}");
    shm.close(channels[9].id);
    shm.open(&nth_view(&group, 1, 1, 257), &options).unwrap();
}
