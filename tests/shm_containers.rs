//! Members in containers that share the directory of the segments: they do not see each other's processes.
#![cfg(target_os = "linux")]

#[path = "common/shm.rs"]
mod ends;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ends::{End, PATIENCE, payload, unique};
use wadjet::id::{Rank, RankSet};
use wadjet::transport::Transport;

/// Names the group of a member, in a process that a test started.
const GROUP: &str = "WADJET_CONTAINED";

/// Stays until it is ended; what it is told to close it closes.
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
        std::thread::yield_now();
    }
}

/// A member in a process namespace of its own, all of which ends with what is returned.
fn contained(group: &str) -> Child {
    let mut unshare = Command::new("unshare");
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "another_process", "--nocapture"])
        .env(GROUP, group)
        .stdout(Stdio::null())
        .spawn()
        .expect("unshare is part of util-linux")
}

/// It has let go of the lock that shows that it lives.
#[test]
fn who_has_closed_its_channel_in_another_container_has_parted_and_is_not_gone() {
    let group = &unique("closed");
    let mut container = contained(group);
    let mut end = End::open(group, 2, 1);
    end.until(|end| end.receive(1).len() == 1);
    end.cast(b"close your channel").unwrap();
    let (id, other) = (end.channel.id, RankSet::one(Rank(1)));
    end.until(|end| end.shm.parted(id) == other);
    let looks = end.shm.counters().system_calls;
    end.until(|end| {
        assert!(end.shm.gone(id).is_empty(), "it lives");
        end.shm.counters().system_calls > looks + 20
    });
    container.kill().unwrap();
    container.wait().unwrap();
}

#[test]
fn what_a_killed_container_leaves_is_recognised_and_removed() {
    let group = &unique("contained");
    let mut container = contained(group);
    let mut end = End::open(group, 2, 1);
    end.until(|end| end.receive(1).len() == 1);
    let id = end.channel.id;
    let looks = end.shm.counters().system_calls;
    end.until(|end| {
        assert!(end.shm.gone(id).is_empty(), "it lives");
        end.shm.counters().system_calls > looks
    });
    container.kill().unwrap();
    container.wait().unwrap();
    end.until(|end| end.shm.gone(id) == RankSet::one(Rank(1)));
    assert!(!end.segment(group, 2).exists(), "who recognises it removes its segment");
    drop(end);

    // Nobody who was there is left.
    let mut container = contained(group);
    let mut end = End::open(group, 2, 1);
    end.until(|end| end.receive(1).len() == 1);
    let left = end.segment(group, 2);
    drop(end);
    let other = End::open(&unique("another"), 2, 1);
    assert!(left.exists(), "it lives");
    container.kill().unwrap();
    container.wait().unwrap();
    let start = Instant::now();
    // What is killed with its namespace ends a little later than who killed it.
    while left.exists() {
        assert!(start.elapsed() < PATIENCE, "who opens a channel next removes it");
        drop(End::open(&unique("yet-another"), 2, 1));
    }
    drop(other);
}
