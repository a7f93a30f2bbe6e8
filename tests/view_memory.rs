//! A group that lives for long does not grow: after thousands of view changes it holds as much memory as after some.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;
use std::time::Duration;

use common::live::Town;
use wadjet::{Config, Shadow};

/// Counts what a thread has allocated and not freed.
struct Counting;

thread_local! {
    static LIVE_BYTES: Cell<i64> = const { Cell::new(0) };
}

fn note(bytes: i64) {
    LIVE_BYTES.with(|live| live.set(live.get() + bytes));
}

#[allow(unsafe_code)]
// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-(layout.size() as i64));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(new_size as i64 - layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Mappings are the process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const STACK: &str = wadjet::layers::DEFAULT_STACK;
const MEMBERS: u64 = 3;

fn config() -> Config {
    // Channels of past views are closed soon, so that few are open at any time.
    Config {
        shadow: Shadow::Off,
        linger_delay: Duration::from_millis(1),
        frame_bytes_max: 512,
        window_frames: 16,
        waiting_frames_max: 16,
        control_frames: 64,
        ..Config::default()
    }
}

/// Bytes of mappings of this process, in which the frames of channels lie.
fn mapped_bytes() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a Linux system");
    let pages: i64 = statm.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

/// What diaries hold is the test's own.
fn forget(town: &mut Town) {
    for process in &mut town.processes {
        process.diary.seen = Vec::new();
        process.diary.ids = Default::default();
        process.diary.letters = Vec::new();
    }
}

/// Makes `changes` changes, three times, and returns by how much the last time has made memory grow: allocated, mapped.
fn growth(town: &mut Town, changes: usize, mut change: impl FnMut(&mut Town)) -> (i64, i64) {
    let mut measured = [(0, 0); 3];
    for round in &mut measured {
        for _ in 0..changes {
            change(town);
            forget(town);
        }
        town.run(Duration::from_millis(20));
        forget(town);
        *round = (LIVE_BYTES.get(), mapped_bytes());
    }
    let [_, (allocated, mapped), (later, later_mapped)] = measured;
    (later - allocated, later_mapped - mapped)
}

#[test]
fn a_group_whose_views_follow_each_other_for_long_does_not_grow() {
    let _alone = ALONE.lock();
    // The numbers of every view run out, so that another one follows.
    let config = Config { frame_number_limit: 8, pack: false, ..config() };
    let mut town = Town::of(MEMBERS, STACK, &config);
    let (allocated, mapped) = growth(&mut town, 500, |town| {
        let before = town.processes[0].view().0;
        let renewed = town.until(Duration::from_secs(1), |town| {
            for process in &mut town.processes {
                // Refused when the numbers have run out: that is the point.
                let _ = process.endpoint.group(process.key).cast(b"one more");
            }
            forget(town);
            town.processes[0].view().0 > before
        });
        assert!(renewed, "the view {before} never ends");
    });
    assert!(town.processes[0].view().0.counter > 1000);
    assert!(allocated < 16 << 10, "500 views have left {allocated} bytes");
    assert!(mapped < 1 << 20, "500 views have left {mapped} bytes mapped");
}

#[test]
fn members_that_come_and_go_for_long_leave_nothing_behind() {
    let _alone = ALONE.lock();
    let mut town = Town::of(MEMBERS, STACK, &config());
    let all: Vec<usize> = (0..=MEMBERS as usize).collect();
    let stay = &all[..MEMBERS as usize];
    // Beyond the number of former members and past views that are remembered.
    let (allocated, mapped) = growth(&mut town, 300, |town| {
        let guest = town.join(&[1]);
        town.meet(&all, Duration::from_secs(1));
        let process = &mut town.processes[guest];
        process.endpoint.group(process.key).leave();
        town.meet(stay, Duration::from_secs(1));
        town.processes.pop();
    });
    assert!(allocated < 16 << 10, "300 members that came and went have left {allocated} bytes");
    assert!(mapped < 1 << 20, "300 members that came and went have left {mapped} bytes mapped");
}
