//! Delivery workers in a live group: a member whose workers do not get on holds the senders, and is taken for failed by
//! nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wadjet::group::{Snapshot, StatePart};
use wadjet::layers::DEFAULT_STACK;
use wadjet::runtime::{Delivered, Driver, DriverOptions, JoinOptions, Order, Turn, Workers, WorkersOptions};
use wadjet::transport::memory::{Hub, HubOptions, MemoryTransport};
use wadjet::view::Neighbours;
use wadjet::{
    Address, Application, Config, Delivery, Endpoint, Event, Group, GroupId, GroupKey, Incarnation,
};

/// Who cast what, in the order in which it was worked on: the state of the group.
type Ledger = Arc<Mutex<Vec<(u64, u32)>>>;

struct Clerk {
    workers: Workers,
    ledger: Ledger,
    delivered: usize,
    arriving: Vec<u8>,
    members: usize,
    exit: Option<String>,
}

impl Application for Clerk {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        self.delivered += delivery.len();
        self.workers.hand_on(delivery, group).unwrap();
    }

    fn is_behind(&mut self) -> bool {
        self.workers.is_behind()
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        match event {
            Event::View(view) => self.members = view.size(),
            Event::Exit(reason) => self.exit = Some(reason.to_string()),
            _ => {}
        }
    }

    fn snapshot(&mut self, _group: &mut Group<'_>) -> Option<Box<dyn Snapshot>> {
        self.workers.settle().unwrap();
        let ledger = self.ledger.lock().unwrap();
        let bytes =
            ledger.iter().flat_map(|(who, what)| [&who.to_le_bytes()[..], &what.to_le_bytes()].concat());
        Some(Box::new(std::io::Cursor::new(bytes.collect::<Vec<u8>>())))
    }

    fn install_state(&mut self, part: &StatePart<'_>, _group: &mut Group<'_>) -> Result<(), String> {
        self.arriving.extend_from_slice(part.bytes);
        if part.last {
            let entry = |entry: &[u8]| {
                let (who, what) = entry.split_at(8);
                (u64::from_le_bytes(who.try_into().unwrap()), u32::from_le_bytes(what.try_into().unwrap()))
            };
            *self.ledger.lock().unwrap() = self.arriving.chunks(12).map(entry).collect();
        }
        Ok(())
    }
}

type Process = (Driver<MemoryTransport, Clerk>, GroupKey);

const WORKERS: usize = 2;
const WAITING_MAX: usize = 2;
const WINDOW: usize = 16;
const NAMES: [&str; 4] = ["one", "two", "three", "four"];

/// A process whose workers stand still while `stop` says so.
fn process(hub: &Hub, at: usize, order: Order, stop: &Arc<AtomicBool>) -> Process {
    let ledger = Ledger::default();
    let options = WorkersOptions { workers: WORKERS, deliveries_max: WAITING_MAX, order };
    let workers = Workers::start(options, |_| {
        let (ledger, stop) = (Arc::clone(&ledger), Arc::clone(stop));
        move |delivered: &Delivered, turn: &mut Turn<'_>| {
            while stop.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            turn.wait();
            let entry =
                |message: &[u8]| (delivered.origin().0, u32::from_le_bytes(message.try_into().unwrap()));
            ledger.lock().unwrap().extend(delivered.messages().map(entry));
        }
    });
    let clerk = Clerk {
        workers: workers.unwrap(),
        ledger,
        delivered: 0,
        arriving: Vec::new(),
        members: 0,
        exit: None,
    };
    let config =
        Config { window_frames: WINDOW as u64, waiting_frames_max: 4, pack: false, ..Config::default() };
    let endpoint = Endpoint::new(config, Incarnation(at as u64 + 1)).unwrap();
    let mut driver = Driver::new(endpoint, clerk, hub.transport(), DriverOptions::default());
    let contacts = if at == 0 { Vec::new() } else { vec![Address(NAMES[0].to_owned())] };
    let key = driver.join(JoinOptions {
        group: GroupId::named("workers"),
        spec: format!("XFER:TOTAL:{DEFAULT_STACK}"),
        address: Address(NAMES[at].to_owned()),
        neighbours: Neighbours { contacts, discover: false },
    });
    (driver, key.unwrap())
}

#[track_caller]
fn until(processes: &mut [Process], mut done: impl FnMut(&mut [Process]) -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done(processes) {
        for (driver, _) in processes.iter_mut() {
            driver.run_once();
            assert_eq!(driver.application().exit, None);
        }
        let at = |(driver, key): &mut Process| {
            let dump = driver.group(*key).dump();
            let Clerk { members, delivered, ledger, workers, .. } = driver.application();
            let (ledger, waiting) = (ledger.lock().unwrap().len(), workers.waiting());
            format!("{members} members, {delivered} delivered, {ledger} entered, {waiting} wait; {dump:#?}")
        };
        assert!(Instant::now() < end, "{:#?}", processes.iter_mut().map(at).collect::<Vec<_>>());
    }
}

/// Everybody who has found the others casts what it can.
fn cast_all(processes: &mut [Process], next: &mut [u32]) {
    for ((driver, key), next) in processes.iter_mut().zip(next) {
        if driver.application().members < 3 {
            continue;
        }
        *next += u32::from(driver.group(*key).cast(&next.to_le_bytes()).is_ok());
    }
}

fn workers_that_stand_still_hold_the_senders(order: Order) {
    let hub = Hub::new(HubOptions::default());
    let (stop, never) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut processes: Vec<Process> = Vec::new();
    for at in 0..3 {
        processes.push(process(&hub, at, order, if at == 0 { &stop } else { &never }));
        until(&mut processes, |all| all.iter().all(|(driver, _)| driver.application().members == at + 1));
    }
    let mut next = [0; 4];
    until(&mut processes, |all| {
        cast_all(all, &mut next);
        next[0] > 50
    });
    // The first one's workers stop. For much longer than silence is suffered the group stays whole; casting ends.
    stop.store(true, Ordering::Release);
    let (end, from) = (Instant::now() + Duration::from_millis(300), next);
    until(&mut processes, |all| {
        cast_all(all, &mut next);
        Instant::now() >= end
    });
    assert!(processes.iter().all(|(driver, _)| driver.application().members == 3), "nobody was suspected");
    let most = 2 * WINDOW + WORKERS * WAITING_MAX + 8;
    for (now, from) in next.iter().zip(from) {
        assert!((*now - from) as usize <= most, "{now} after {from}: the senders were not held");
    }
    let held = processes[0].0.application_mut().workers.waiting() as usize;
    assert!(held > WORKERS * WAITING_MAX && held <= 3 * most, "{held} wait");
    // They go on, and so does the group; a fourth one gets the state of the first, which is that at the cut.
    stop.store(false, Ordering::Release);
    let reached = next[1] + 100;
    processes.push(process(&hub, 3, order, &never));
    until(&mut processes, |all| {
        cast_all(all, &mut next);
        all.iter().all(|(driver, _)| driver.application().members == 4) && next[1] > reached && next[3] > 20
    });
    let all: usize = next.iter().sum::<u32>() as usize;
    until(&mut processes, |processes| {
        processes.iter().all(|(driver, _)| driver.application().ledger.lock().unwrap().len() == all)
    });
    let ledgers: Vec<Vec<(u64, u32)>> =
        processes.iter().map(|(driver, _)| driver.application().ledger.lock().unwrap().clone()).collect();
    for (at, ledger) in ledgers.iter().enumerate() {
        assert!(order == Order::PerOrigin || *ledger == ledgers[0], "the ledger of {at} is another");
        for origin in 1..=4 {
            let of = ledger.iter().filter(|(who, _)| *who == origin).map(|(_, what)| *what);
            assert!(
                of.eq(0..next[origin as usize - 1]),
                "those of {origin} are in order at {at}, and all there"
            );
        }
    }
}

#[test]
fn workers_that_stand_still_hold_the_senders_and_a_fourth_member_gets_the_state_at_the_cut() {
    workers_that_stand_still_hold_the_senders(Order::Total);
}

#[test]
fn so_do_workers_that_keep_the_order_of_each_origin() {
    workers_that_stand_still_hold_the_senders(Order::PerOrigin);
}
