//! Groups over shared memory where there is little of it: who finds no room is not let in, and nobody else loses its group.
#![cfg(target_os = "linux")]

#[path = "common/shm.rs"]
mod ends;

use std::path::Path;
use std::time::{Duration, Instant};

use ends::{PATIENCE, in_room_of};
use wadjet::group::{Application, Delivery, Event, Group};
use wadjet::layers::DEFAULT_STACK;
use wadjet::runtime::{Driver, DriverOptions, JoinOptions};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::view::Neighbours;
use wadjet::{Address, Config, Endpoint, GroupId, GroupKey, Incarnation};

const ROLE: &str = "WADJET_TEST_ROOM_ROLE";

#[derive(Default)]
struct Notes {
    members: Vec<u64>,
    casts: Vec<Vec<u8>>,
    told: Vec<String>,
    over: bool,
}

impl Application for Notes {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        self.casts.extend(delivery.messages().map(<[u8]>::to_vec));
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        match event {
            Event::View(view) => {
                self.members = view.view().members.iter().map(|member| member.incarnation.0).collect();
                self.members.sort_unstable();
            }
            Event::Problem(problem) => self.told.push(problem.what.to_string()),
            Event::Exit(_) => self.over = true,
            _ => {}
        }
    }
}

type Process = (Driver<Shm, Notes>, GroupKey);

fn join(directory: &Path, own: u64) -> Process {
    let shm = Shm::new(ShmOptions { directory: directory.into() });
    let endpoint = Endpoint::new(Config::default(), Incarnation(own)).unwrap();
    let mut driver = Driver::new(endpoint, Notes::default(), shm, DriverOptions::default());
    let address = |own: u64| Address(format!("m{own}"));
    let contacts = if own == 1 { vec![] } else { vec![address(1)] };
    let options = JoinOptions {
        group: GroupId::named("room"),
        // All of them have one thread, which may wait for its turn for long.
        spec: DEFAULT_STACK.replace("SUSPECT", "SUSPECT(least_ms=3000,most_ms=3000)"),
        address: address(own),
        neighbours: Neighbours { contacts, discover: false },
    };
    let key = driver.join(options).unwrap();
    (driver, key)
}

fn until(processes: &mut [Process], limit: Duration, done: impl Fn(&[Process]) -> bool) -> bool {
    let end = Instant::now() + limit;
    while !done(processes) {
        if Instant::now() > end {
            return false;
        }
        processes.iter_mut().for_each(|(driver, _)| {
            driver.run_once();
        });
    }
    true
}

fn state(processes: &[Process]) -> String {
    let state = |(driver, _): &Process| {
        let notes = driver.application();
        format!("{:?} over {} {:?}\n", notes.members, notes.over, notes.told)
    };
    processes.iter().map(state).collect()
}

fn notes(process: &Process) -> &Notes {
    process.0.application()
}

/// Processes come one by one, until one is told that there is no room; those before it stay together and deliver. One goes,
/// and what is left is a view.
fn fill(directory: &Path, least: usize) {
    let mut all: Vec<Process> = Vec::new();
    let refused =
        |process: &Process| notes(process).told.iter().any(|told| told.contains("a view has at most"));
    loop {
        let own = all.len() as u64 + 1;
        assert!(own < 40, "{}", state(&all));
        all.push(join(directory, own));
        let members: Vec<u64> = (1..=own).collect();
        let together = |all: &[Process]| all.iter().all(|process| notes(process).members == members);
        let settled = until(&mut all, PATIENCE, |all| together(all) || all.iter().any(refused));
        assert!(settled, "{}", state(&all));
        // What is left of the last view is given back within half a second: then there may be room.
        let settled = until(&mut all, Duration::from_secs(3), together);
        assert!(all.iter().all(|process| !notes(process).over), "{}", state(&all));
        if !settled {
            break;
        }
    }
    let newcomer = all.pop().unwrap();
    assert!(all.len() >= least, "{}", state(&all));
    let members: Vec<u64> = (1..=all.len() as u64).collect();
    assert!(all.iter().all(|process| notes(process).members == members), "{}", state(&all));
    assert!(!notes(&newcomer).over && notes(&newcomer).members == [all.len() as u64 + 1]);
    drop(newcomer);
    let deliver = |all: &mut Vec<Process>, casts: usize| {
        for (driver, key) in all.iter_mut() {
            driver.group(*key).cast(b"here").unwrap();
        }
        let all_there = |all: &[Process]| all.iter().all(|process| notes(process).casts.len() >= casts);
        assert!(until(all, PATIENCE, all_there), "{}", state(all));
    };
    let count = all.len();
    deliver(&mut all, count);
    let (driver, key) = all.last_mut().unwrap();
    driver.group(*key).leave();
    assert!(until(&mut all, PATIENCE, |all| notes(all.last().unwrap()).over), "{}", state(&all));
    all.pop();
    let left = all.len();
    let smaller = |all: &[Process]| all.iter().all(|process| notes(process).members.len() == left);
    assert!(until(&mut all, PATIENCE, smaller), "{}", state(&all));
    deliver(&mut all, count + left);
}

/// Does something only in a process started by the other test.
#[test]
fn another_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (directory, least) = role.split_once(' ').unwrap();
    fill(Path::new(directory), least.parse().unwrap());
}

#[test]
fn a_newcomer_for_whom_there_is_no_room_harms_nobody() {
    in_room_of("24m", ROLE, |directory| format!("{} 1", directory.display()));
}

#[test]
fn what_a_container_has_for_shared_memory_is_filled_and_nobody_is_lost() {
    in_room_of("64m", ROLE, |directory| format!("{} 3", directory.display()));
}
