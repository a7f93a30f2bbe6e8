//! Over shared memory it is known of a member whether it is silent because it has no processor.
#![cfg(target_os = "linux")]

#[path = "common/shm.rs"]
mod ends;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ends::{End, PATIENCE, unique};
use wadjet::id::{Rank, RankSet};
use wadjet::runtime::cores;
use wadjet::transport::Transport;

/// Names the group of a member, in a process that a test started.
const GROUP: &str = "WADJET_STARVED";

/// Works all the time, as a member does that spins; in a process of its own.
#[test]
fn another_process() {
    let Ok(group) = std::env::var(GROUP) else { return };
    let mut end = End::open(&group, 2, 2);
    end.cast(b"here I am").unwrap();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        end.receive(16);
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

/// A member in a process of its own, and the member here that has heard of it.
fn working() -> (Helper, End) {
    let group = unique("starved");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process", "--nocapture"])
        .env(GROUP, &group)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = Helper(child);
    let mut end = End::open(&group, 2, 1);
    end.until(|end| end.receive(1).len() == 1);
    (child, end)
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
