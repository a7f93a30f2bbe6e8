//! The shared-memory transport among processes of their own: killed and stopped ones, and a file system that is full.
#![cfg(target_os = "linux")]

#[path = "common/shm.rs"]
mod ends;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ends::{
    Draw, End, PATIENCE, bound, in_room_of, number, numbered, payload, segment_of, small, socket_of, unique,
    view,
};
use wadjet::id::{GroupId, Incarnation, Rank, RankSet};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::{ChannelOptions, Destination, Outside, Transport, TransportError};
use wadjet::view::{Address, LocalView};

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
        ["sit", directory, group] => sit(directory, group),
        ["churn", directory] => churn(Path::new(directory)),
        ["crowded", directory, asked] => crowded(Path::new(directory), asked),
        ["no-files", directory] => no_files(Path::new(directory)),
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
fn sit(directory: &str, group: &str) {
    let shm = ShmOptions { directory: directory.into() };
    let mut end = End::open_with(group, 2, 2, &small(), &shm).unwrap();
    end.shm.bind(GroupId::named(group), &Address("m2".into())).unwrap();
    end.cast(b"here I am").unwrap();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        end.receive(16);
        end.shm.wait(Duration::from_millis(10));
    }
}

/// A process of its own that has opened its channel, and the member here that has heard of it.
fn sitting(shm: &ShmOptions, group: &str) -> (Child, End) {
    let child = process(&format!("sit {} {group}", shm.directory.display()));
    let mut end = End::open_with(group, 2, 1, &small(), shm).unwrap();
    end.until(|end| end.receive(1).len() == 1);
    (child, end)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn what_a_killed_process_leaves_is_recognised_and_removed() {
    // Whoever opens a channel removes what the dead have left, of whatever group, and locks the directory for it: in this
    // one nobody does but this test.
    let directory = PathBuf::from("/dev/shm").join(unique("killed"));
    fs::create_dir(&directory).unwrap();
    let shm = ShmOptions { directory: directory.clone() };
    let group = &unique("killed");
    let segment = |own: u64| segment_of(&directory, &view(group, 2, own), own);
    let socket = socket_of(&directory, group, "m2");
    let (mut child, mut end) = sitting(&shm, group);
    let id = end.channel.id;
    assert!(end.shm.gone(id).is_empty());
    child.kill().unwrap();
    // Not waited for yet, the process is still in the list of processes.
    end.until(|end| end.shm.gone(id) == RankSet::one(Rank(1)));
    child.wait().unwrap();
    assert!(!segment(2).exists(), "who recognises it removes its segment");
    assert!(socket.exists());
    end.shm.send_outside(GroupId::named(group), &Outside::Discover, b"anybody?");
    assert!(!socket.exists(), "and its socket, where nobody answers");
    drop(end);

    let (mut child, end) = sitting(&shm, group);
    child.kill().unwrap();
    child.wait().unwrap();
    // Whoever comes next to the address finds nobody there, and clears up, unless somebody else has done so.
    let next = bound(group, "m2", &shm).unwrap();
    assert!(!segment(2).exists());
    assert!(segment(1).exists(), "what belongs to the living stays");
    drop((next, end));
    // Nothing is left but the lock, which the next one of this user takes.
    let left: Vec<_> = fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(matches!(&left[..], [lock] if lock.to_string_lossy().starts_with(".wadjet-lock-")), "{left:?}");
    fs::remove_dir_all(&directory).unwrap();
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
        left += fs::read_dir(&directory).unwrap().count() - 1;
        // Whatever it has left, the survivor goes on once it has excluded it.
        met += end.shm.peers(end.channel.id);
        end.shm.exclude(end.channel.id, Rank(1));
        for number in 0..200 {
            end.cast_patiently(&numbered(number));
            end.receive(16);
            assert!(end.control(Destination::All, &numbered(number)));
        }
        // Also of views that it had open and the survivor had not.
        drop(end);
        let names: Vec<_> = fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(names.is_empty(), "{names:?}");
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
    let shm = ShmOptions::default();
    let (mut child, end) = sitting(&shm, group);
    signal(&child, "-STOP");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(20) {
        assert!(end.shm.gone(end.channel.id).is_empty());
    }
    assert!(matches!(bound(group, "m2", &shm), Err(TransportError::AddressInUse(_))));
    assert!(end.segment(group, 2).exists());
    let looks = end.shm.counters().system_calls;
    (0..1_000).for_each(|_| assert!(end.shm.gone(end.channel.id).is_empty()));
    let most = 5 * (1 + start.elapsed().as_millis() as u64);
    assert!(end.shm.counters().system_calls - looks <= most, "asked once a millisecond at most");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(bound(group, "m2", &shm).unwrap());
}

#[test]
fn what_is_left_in_a_view_that_survivors_have_closed_goes_at_their_next_view_and_at_their_end() {
    let directory = PathBuf::from("/dev/shm").join(unique("behind"));
    fs::create_dir(&directory).unwrap();
    let shm = ShmOptions { directory: directory.clone() };
    for at in ["open", "close", "end"] {
        let group = &unique("behind");
        let left = segment_of(&directory, &view(group, 2, 2), 2);
        let (mut child, mut end) = sitting(&shm, group);
        let other = end.shm.open(&view(&unique("other"), 2, 1), &small()).unwrap();
        // As if it had been excluded, or had not closed this view yet: it has its segment, and nobody else looks at it.
        end.shm.close(std::mem::replace(&mut end.channel, other).id);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            end.receive(16);
        }
        assert!(left.exists(), "its owner lives");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(left.exists(), "nobody has that view open");
        match at {
            "open" => {
                let next = end.shm.open(&view(&unique("next"), 2, 1), &small()).unwrap();
                end.until(|end| {
                    end.receive(16);
                    !left.exists()
                });
                end.shm.close(next.id);
            }
            "close" => {
                end.shm.close(end.channel.id);
                end.until(|end| {
                    end.shm.receive(16, &mut |_| {});
                    !left.exists()
                });
            }
            _ => {}
        }
        drop(end);
        assert!(!left.exists(), "{at}");
    }
    fs::remove_dir_all(&directory).unwrap();
}

/// Processes that nobody has met are killed, and what they leave is all the room there is.
fn crowded(directory: &Path, asked: &str) {
    let shm = ShmOptions { directory: directory.into() };
    let mut end = End::open_with("mine", 2, 1, &small(), &shm).unwrap();
    let groups = ["one", "two"];
    let mut children = groups.map(|group| process(&format!("sit {} {group}", directory.display())));
    for group in groups {
        let (segment, socket) =
            (segment_of(directory, &view(group, 2, 2), 2), socket_of(directory, group, "m2"));
        let start = Instant::now();
        while !(segment.exists() && socket.exists()) {
            assert!(start.elapsed() < PATIENCE, "the other process does not begin");
        }
    }
    // Neither is to remove what the other leaves.
    children.iter().for_each(|child| signal(child, "-STOP"));
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut rest = fs::File::create(directory.join("rest")).unwrap();
    while rest.write_all(&[0; 4096]).is_ok() {}
    match asked {
        "room" => end.shm.room_for(2, &small()).unwrap(),
        _ => drop(end.shm.open(&view("next", 2, 1), &small()).unwrap()),
    }
}

#[test]
fn what_the_dead_have_left_is_removed_before_it_is_said_that_there_is_no_room() {
    for asked in ["room", "open"] {
        in_room_of("512k", ROLE, |directory| format!("crowded {} {asked}", directory.display()));
    }
}

/// All files that the file system can have are there.
fn no_files(directory: &Path) {
    let shm = ShmOptions { directory: directory.into() };
    let mut count = 0;
    while fs::File::create(directory.join(count.to_string())).is_ok() {
        count += 1;
    }
    let address = bound("files", "m1", &shm).err().unwrap();
    let segment = End::open_with("files", 2, 1, &small(), &shm).err().unwrap();
    for error in [address, segment] {
        let TransportError::NoSpace { remedy, .. } = &error else { panic!("{error}") };
        assert!(remedy.contains(&format!("nr_inodes=... {}", directory.display())), "{error}");
    }
}

#[test]
fn a_file_system_without_files_is_an_error_with_a_remedy() {
    in_room_of("256k,nr_inodes=4", ROLE, |directory| format!("no-files {}", directory.display()));
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
    in_room_of("256k", ROLE, |directory| format!("full {}", directory.display()));
}
