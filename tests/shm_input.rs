//! The shared-memory transport, from outside: hostile segments, and what stands in the way of one.
#![cfg(target_os = "linux")]

#[path = "common/shm.rs"]
mod ends;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ends::{Draw, End, HEADER_BYTES, numbered, segment_of, small, unique, view};
use wadjet::id::Rank;
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::{ChannelOptions, Destination, Transport, TransportError};
use wadjet::view::LocalView;

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
        one.cast(b"is not read any more, and not waited for").unwrap();
        assert!(one.control(Destination::All, b"the other ring goes on"));
        assert_eq!(two.receive_payloads(), [b"the other ring goes on"]);
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
fn an_entry_of_a_lane_that_is_behind_casts_that_cannot_be_there_stops_that_lane_only() {
    let (mut one, mut two, write) = hostile();
    one.cast(b"first").unwrap();
    assert!(one.control(Destination::All, b"behind it"));
    let ring = one.channel.casts.memory().bytes() as u64;
    write(false, 8, 2 * ring);
    assert_eq!(two.receive_payloads(), [b"first"]);
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
