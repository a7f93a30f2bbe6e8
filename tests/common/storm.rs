//! Groups of replicas whose casts go on all the time, on the processes of `common/live.rs`.
#![allow(dead_code, unreachable_pub)]

use std::time::Duration;

use wadjet::Config;

use crate::common::live::{Replica, Seen, Town};

const SECOND: Duration = Duration::from_secs(1);
/// Of the state that is given, if a test says no other.
pub const BALLAST: usize = 256 << 10;

/// The live stack with a transfer on top of it: few parts at a time, so that it takes many rounds.
pub fn stack(parameters: &str) -> String {
    format!("XFER(flight_kib=32{parameters}):{}", wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY)
}

/// A group of replicas whose casts go on all the time.
pub struct Storm {
    pub town: Town,
    casts: u64,
    pub calm: bool,
}

impl Storm {
    pub fn of(members: u64, parameters: &str, ballast_bytes: usize) -> Storm {
        Storm::over(Town::of(members, &stack(parameters), &Config::default()), ballast_bytes)
    }

    pub fn over(mut town: Town, ballast_bytes: usize) -> Storm {
        for process in &mut town.processes {
            process.diary.replica = Some(Replica { ballast_bytes, ..Replica::default() });
        }
        town.run(Duration::from_millis(1));
        let mut storm = Storm { town, casts: 0, calm: false };
        storm.run(Duration::from_millis(10));
        storm
    }

    pub fn replica(&mut self, at: usize) -> &mut Replica {
        self.town.processes[at].diary.replica.as_mut().unwrap()
    }

    pub fn join(&mut self, contact: u64) -> usize {
        let at = self.town.join(&[contact]);
        self.town.processes[at].diary.replica = Some(Replica::default());
        at
    }

    pub fn step(&mut self) {
        for process in &mut self.town.processes {
            if !process.stopped && !self.calm {
                self.casts += 1;
                // What is refused is not cast: no harm.
                let _ = process.endpoint.group(process.key).cast(&self.casts.to_le_bytes());
            }
        }
        self.town.step();
    }

    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Storm) -> bool) {
        let end = self.town.now + SECOND * 2;
        while !done(self) {
            self.step();
            if self.town.now >= end {
                let mut text = String::new();
                for process in &mut self.town.processes {
                    let dump = process.endpoint.group(process.key).dump();
                    let counts = process.endpoint.stats(process.key).counts;
                    let events = process.diary.seen.iter().filter(|seen| !matches!(seen, Seen::Cast(..)));
                    text += &format!("{dump:#?}\n{counts:?}\n{:?}\n", events.collect::<Vec<_>>());
                }
                panic!("{what} takes too long\n{text}");
            }
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.town.now + time;
        while self.town.now < end {
            self.step();
        }
    }

    /// Everybody named was told of a view of them all.
    pub fn told(&self, whom: &[usize]) -> bool {
        whom.iter().all(|at| {
            let mut views = self.town.processes[*at].diary.seen.iter().rev();
            let last = views.find(|seen| matches!(seen, Seen::View(..)));
            matches!(last, Some(Seen::View(_, members)) if members.len() == whom.len())
        })
    }

    /// Casts stop; everybody has the same state then, and had when each view they share was told.
    pub fn settle(&mut self, whom: &[usize]) {
        self.until("a view of all", |storm| storm.told(whom));
        self.run(Duration::from_millis(2));
        self.calm = true;
        let first = whom[0];
        self.until("the same state everywhere", |storm| {
            let quiet = whom.iter().all(|at| {
                let process = &mut storm.town.processes[*at];
                process.endpoint.stats(process.key).unacknowledged == 0
            });
            let state = storm.replica(first).state.clone();
            quiet && whom.iter().all(|at| storm.replica(*at).state == state)
        });
        for at in &whom[1..] {
            let views = self.replica(*at).at_views.clone();
            let mut shared = 0;
            for (view, state) in views {
                let theirs = self.replica(first).at_views.iter().find(|(id, _)| *id == view).cloned();
                if let Some((_, theirs)) = theirs {
                    assert_eq!(state, theirs, "at {view}, {at} and {first}");
                    shared += 1;
                }
            }
            assert!(shared > 0);
        }
        let counts: u64 = self.replica(first).state.values().map(|(count, _)| count).sum();
        assert!(counts > 100, "there were casts: {counts}");
        (0..self.town.processes.len()).for_each(|at| self.blocked_once_a_view(at));
        self.calm = false;
    }

    /// A process has all of the state but for a few parts, and its application is ready for no more.
    pub fn nearly_whole(&mut self, at: usize) {
        self.until("the transfer", |storm| storm.replica(at).received.len() + (24 << 10) > BALLAST);
        self.replica(at).reluctant = usize::MAX;
        self.until("the rest of it", |storm| {
            let process = &mut storm.town.processes[at];
            process.endpoint.group(process.key).dump().join("\n").contains("which is all")
        });
        assert_eq!(self.replica(at).installed, 0, "its application has not got it");
    }

    /// A process has some of the state, and not all.
    pub fn half_way(&mut self, at: usize) {
        self.until("the transfer", |storm| storm.replica(at).received.len() > BALLAST / 3);
        assert_eq!(self.replica(at).installed, 0, "it is under way");
    }

    /// Of the views that a process was told of, none was said to end more than once.
    pub fn blocked_once_a_view(&self, at: usize) {
        let seen = &self.town.processes[at].diary.seen;
        let mut blocks = 0;
        for (place, what) in seen.iter().enumerate() {
            match what {
                Seen::View(..) => blocks = 0,
                Seen::Block => blocks += 1,
                _ => {}
            }
            let views = seen[..place].iter().filter(|seen| !matches!(seen, Seen::Cast(..)));
            assert!(blocks <= 1, "{at} was asked to stop twice in one view: {:?}", views.collect::<Vec<_>>());
        }
    }

    /// What a process holds that waits for the state, in KiB.
    pub fn held_kib(&mut self, at: usize) -> u64 {
        let dump = self.dump(at);
        let held = dump.split("; holds ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        held.parse().unwrap()
    }

    pub fn dump(&mut self, at: usize) -> String {
        let process = &mut self.town.processes[at];
        process.endpoint.group(process.key).dump().join("\n")
    }

    /// How often a process counted that.
    pub fn counted(&mut self, at: usize, what: &str) -> u64 {
        let process = &mut self.town.processes[at];
        let counts = process.endpoint.stats(process.key).counts;
        counts.iter().filter(|count| count.what == what).map(|count| count.count).sum()
    }

    pub fn leave(&mut self, at: usize) {
        let process = &mut self.town.processes[at];
        process.endpoint.group(process.key).leave();
    }
}
