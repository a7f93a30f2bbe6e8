//! What the system says of members in processes of their own: whether they wait for a processor, live, or have left something.
#![cfg(target_os = "linux")]

#[path = "common/shm.rs"]
mod ends;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ends::{End, PATIENCE, payload, unique};
use wadjet::id::{Rank, RankSet};
use wadjet::runtime::cores;
use wadjet::transport::Transport;

/// Names the group of a member, in a process that a test started.
const GROUP: &str = "WADJET_APART";

/// Works all the time, as a member does that spins, until it is ended; what it is told to close it closes.
#[test]
fn another_process() {
    let Ok(group) = std::env::var(GROUP) else { return };
    let mut end = End::open(&group, 2, 2);
    end.cast(b"here I am").unwrap();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if end.receive(16).iter().any(|received| payload(received) == b"close your channel") {
            end.shm.close(end.channel.id);
        }
    }
}

/// Ended with the test, however that ends.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `command`, which runs a member, and the member here that has heard of it.
fn beside(mut command: Command, group: &str) -> (Helper, End) {
    command.args(["--exact", "another_process", "--nocapture"]).env(GROUP, group).stdout(Stdio::null());
    let child = Helper(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    let mut end = End::open(group, 2, 1);
    end.until(|end| end.receive(1).len() == 1);
    (child, end)
}

/// A member in a process of its own.
fn working() -> (Helper, End) {
    beside(Command::new(std::env::current_exe().unwrap()), &unique("starved"))
}

/// A member in a process namespace of its own, all of which ends with the process.
fn contained(group: &str) -> (Helper, End) {
    let mut unshare = Command::new("unshare");
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(std::env::current_exe().unwrap());
    beside(unshare, group)
}

/// Runs a command of util-linux or the system's.
fn run(words: &str) {
    let (command, arguments) = words.split_once(' ').unwrap();
    let status = Command::new(command).args(arguments.split(' ')).stdout(Stdio::null()).status();
    assert!(status.unwrap().success(), "{words}");
}

fn starved(end: &End) -> RankSet {
    end.shm.gone(end.channel.id);
    end.shm.starved(end.channel.id)
}

#[test]
fn who_waits_for_a_processor_is_starved_until_it_gets_one() {
    let (child, mut end) = working();
    let pid = child.0.id();
    // Behind others on one core, where it gets a time slice a second.
    let core = cores()[0];
    let others = "while :; do :; done";
    let busy = Command::new("taskset").args(["-c", &core.to_string(), "sh", "-c", others]).spawn();
    let busy = Helper(busy.unwrap());
    run(&format!("taskset -a -p -c {core} {pid}"));
    run(&format!("chrt -a -i -p 0 {pid}"));
    end.until(|end| starved(end) == RankSet::one(Rank(1)));
    drop(busy);
    run(&format!("chrt -a -o -p 0 {pid}"));
    end.until(|end| starved(end).is_empty());
}

#[test]
fn who_is_stopped_is_not_starved() {
    let (child, end) = working();
    let pid = child.0.id();
    run(&format!("kill -STOP {pid}"));
    let stopped = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let mut lines = tasks.map(|task| fs::read_to_string(task.path().join("stat")).unwrap());
        lines.all(|line| line.contains(") T "))
    };
    let start = Instant::now();
    while !stopped() {
        assert!(start.elapsed() < PATIENCE);
    }
    // Looks before that may have found it waiting.
    let looks = end.shm.counters().system_calls;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(30) {
        assert_eq!(starved(&end), RankSet::EMPTY);
    }
    assert!(end.shm.counters().system_calls > looks, "it was looked at");
}

/// It has let go of the lock that shows that it lives.
#[test]
fn who_has_closed_its_channel_in_another_container_has_parted_and_is_not_gone() {
    let group = &unique("closed");
    let (container, mut end) = contained(group);
    end.cast(b"close your channel").unwrap();
    let (id, other) = (end.channel.id, RankSet::one(Rank(1)));
    end.until(|end| end.shm.parted(id) == other);
    let looks = end.shm.counters().system_calls;
    end.until(|end| {
        assert!(end.shm.gone(id).is_empty(), "it lives");
        end.shm.counters().system_calls > looks + 20
    });
    drop(container);
}

#[test]
fn what_a_killed_container_leaves_is_recognised_and_removed() {
    let group = &unique("contained");
    let (container, mut end) = contained(group);
    let id = end.channel.id;
    let looks = end.shm.counters().system_calls;
    end.until(|end| {
        assert!(end.shm.gone(id).is_empty(), "it lives");
        end.shm.counters().system_calls > looks
    });
    drop(container);
    end.until(|end| end.shm.gone(id) == RankSet::one(Rank(1)));
    assert!(!end.segment(group, 2).exists(), "who recognises it removes its segment");
    drop(end);

    // Nobody who was there is left.
    let (container, end) = contained(group);
    let left = end.segment(group, 2);
    drop(end);
    let other = End::open(&unique("another"), 2, 1);
    assert!(left.exists(), "it lives");
    drop(container);
    let start = Instant::now();
    // What is killed with its namespace ends a little later than who killed it.
    while left.exists() {
        assert!(start.elapsed() < PATIENCE, "who opens a channel next removes it");
        drop(End::open(&unique("yet-another"), 2, 1));
    }
    drop(other);
}
