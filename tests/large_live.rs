//! Messages of sixteen mebibytes in groups whose views are agreed on, over real transports: views end in the midst of them.
#![cfg(target_os = "linux")]

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use wadjet::group::{Application, Delivery, Event, Group};
use wadjet::layers::{DEFAULT_STACK, DEFAULT_STACK_WITH_INTEGRITY};
use wadjet::runtime::{Driver, DriverOptions, JoinOptions};
use wadjet::transport::Transport;
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::view::Neighbours;
use wadjet::{Address, Config, Endpoint, GroupId, GroupKey, Incarnation, Shadow, ViewId};

const LARGE_BYTES: usize = 16 << 20;
/// Everything here ends long before, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// One thread turns all loops, and a process that copies mebibytes without optimisation keeps the others waiting.
const SUSPECT: &str = "SUSPECT(least_ms=400,busy_ms=400,most_ms=800,starved_ms=0)";

#[derive(Default)]
struct Notes {
    members: Vec<u64>,
    view: Option<ViewId>,
    /// In which view, whose, and which.
    casts: Vec<(ViewId, u64, u8)>,
    exit: Option<String>,
}

/// The same length for all, and a byte that differs; anybody sees where one ends and another begins.
fn large(number: u8) -> Vec<u8> {
    (0..LARGE_BYTES).map(|at| (at ^ at >> 8 ^ at >> 16) as u8 ^ number).collect()
}

impl Application for Notes {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        let (view, origin) = (self.view.unwrap(), self.members[delivery.origin().index()]);
        for message in delivery.messages() {
            let number = message[0];
            assert!(message.len() == 1 || message == large(number), "as it was cast: {number} of {origin}");
            self.casts.push((view, origin, number));
        }
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        match event {
            Event::View(view) => {
                self.members = view.view().members.iter().map(|member| member.incarnation.0).collect();
                self.view = Some(view.view().id);
            }
            Event::Exit(reason) => self.exit = Some(reason.to_string()),
            _ => {}
        }
    }
}

impl Notes {
    fn of(&self, origin: u64) -> Vec<u8> {
        self.casts.iter().filter(|cast| cast.1 == origin).map(|cast| cast.2).collect()
    }

    /// In the order of delivery; without one order for all, of each origin in that of its own.
    fn in_view(&self, view: ViewId, one_order: bool) -> Vec<(u64, u8)> {
        let here = self.casts.iter().filter(|cast| cast.0 == view);
        let mut casts: Vec<(u64, u8)> = here.map(|cast| (cast.1, cast.2)).collect();
        if !one_order {
            casts.sort_by_key(|cast| cast.0);
        }
        casts
    }
}

struct Process<T: Transport> {
    driver: Driver<T, Notes>,
    group: GroupKey,
    own: u64,
    /// What it has still to cast, the last first.
    to_cast: Vec<Vec<u8>>,
}

impl<T: Transport> Process<T> {
    fn notes(&self) -> &Notes {
        self.driver.application()
    }
}

/// Processes of one thread; the `n`th of them, counted from one, has the `n`th address, and looks for the first of all.
struct Town<T: Transport> {
    processes: Vec<Process<T>>,
    spec: String,
    addresses: Vec<String>,
    transport: Box<dyn Fn() -> T>,
}

impl<T: Transport> Town<T> {
    fn new(spec: &str, addresses: Vec<String>, transport: impl Fn() -> T + 'static) -> Town<T> {
        let spec = spec.replace("SUSPECT", SUSPECT);
        let mut town = Town { processes: Vec::new(), spec, addresses, transport: Box::new(transport) };
        for own in [1, 2, 3] {
            town.join(own);
            let all: Vec<u64> = (1..=own).collect();
            town.until("a view of all", |town| town.are_together(&all));
        }
        town
    }

    fn join(&mut self, own: u64) {
        let config = Config { shadow: Shadow::Off, ..Config::default() };
        let endpoint = Endpoint::new(config, Incarnation(own)).unwrap();
        let mut driver =
            Driver::new(endpoint, Notes::default(), (self.transport)(), DriverOptions::default());
        let contact = self.processes.last().map(|process| self.addresses[process.own as usize - 1].clone());
        let options = JoinOptions {
            group: GroupId(u64::from(std::process::id()) << 16 | 0x1a26e),
            spec: self.spec.clone(),
            address: Address(self.addresses[own as usize - 1].clone()),
            neighbours: Neighbours { contacts: contact.map(Address).into_iter().collect(), discover: false },
        };
        let group = driver.join(options).unwrap();
        self.processes.push(Process { driver, group, own, to_cast: Vec::new() });
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Town<T>) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            let notes = || self.processes.iter().map(|process| &process.notes().casts).collect::<Vec<_>>();
            assert!(begun.elapsed() < PATIENCE, "{what}: {:?}", notes());
            for process in &mut self.processes {
                if let Some(cast) = process.to_cast.last()
                    && process.driver.group(process.group).cast(cast).is_ok()
                {
                    process.to_cast.pop();
                }
                process.driver.run_once();
            }
        }
    }

    fn of(&self, own: u64) -> &Notes {
        self.processes.iter().find(|process| process.own == own).unwrap().notes()
    }

    fn casts(&mut self, own: u64, casts: &[Vec<u8>]) {
        let process = self.processes.iter_mut().find(|process| process.own == own).unwrap();
        process.to_cast = casts.iter().rev().cloned().collect();
    }

    fn has_one_order(&self) -> bool {
        self.spec.contains("TOTAL") || self.spec.contains("SEQUENCER")
    }

    fn are_together(&self, whom: &[u64]) -> bool {
        self.processes.iter().filter(|process| whom.contains(&process.own)).all(|process| {
            let mut members = process.notes().members.clone();
            members.sort_unstable();
            members == whom
        })
    }

    /// As a process that is killed: nothing is closed, nothing is said.
    fn kill(&mut self, own: u64) {
        let at = self.processes.iter().position(|process| process.own == own).unwrap();
        std::mem::forget(self.processes.remove(at).driver);
    }
}

/// A third is killed while a survivor's second large cast is on its way, and a fourth comes in before all have arrived.
fn large_casts_go_on<T: Transport>(mut town: Town<T>) {
    town.casts(1, &[large(1), vec![2], large(3), large(4), vec![5]]);
    town.casts(2, &[vec![101], large(102), vec![103]]);
    town.until("the first large cast", |town| town.of(2).of(1) == [1, 2]);
    town.kill(3);
    town.until("a view of two", |town| town.are_together(&[1, 2]));
    assert!(town.of(2).of(1).len() < 5, "there are more of them on their way");
    town.join(4);
    town.until("a view of three", |town| town.are_together(&[1, 2, 4]));
    let all = |notes: &Notes| notes.of(1).len() == 5 && notes.of(2).len() == 3;
    town.until("all casts", |town| all(town.of(1)) && all(town.of(2)));
    town.casts(1, &[vec![6]]);
    town.until("a last one", |town| {
        town.processes.iter().all(|process| process.notes().of(1).ends_with(&[6]))
    });
    for own in [1, 2] {
        let notes = town.of(own);
        assert_eq!((notes.of(1), notes.of(2)), (vec![1, 2, 3, 4, 5, 6], vec![101, 102, 103]));
    }
    the_same_in_each_view(&town, &[1, 2]);
    let (view, one_order) = (town.of(4).view.unwrap(), town.has_one_order());
    let [new, old] = [4, 1].map(|own| town.of(own).in_view(view, one_order));
    assert_eq!(new, old, "who comes in has what is of its view");
}

/// Its origin is killed while a large cast is on its way: both survivors deliver it, or neither does.
fn a_large_cast_of_who_dies_is_everybodys_or_nobodys<T: Transport>(mut town: Town<T>) {
    town.casts(3, &[large(1), large(2), large(3)]);
    town.until("the first large cast", |town| !town.of(1).of(3).is_empty());
    town.kill(3);
    town.casts(1, &[large(4)]);
    town.until("a view of two", |town| town.are_together(&[1, 2]));
    town.until("the survivor's", |town| [1, 2].iter().all(|own| town.of(*own).of(1) == [4]));
    the_same_in_each_view(&town, &[1, 2]);
    assert!([1, 2, 3].starts_with(&town.of(1).of(3)));
}

fn the_same_in_each_view<T: Transport>(town: &Town<T>, whom: &[u64]) {
    for (view, ..) in &town.of(whom[0]).casts {
        for own in whom {
            let [own, first] = [*own, whom[0]].map(|own| town.of(own).in_view(*view, town.has_one_order()));
            assert_eq!(own, first, "in {view}");
        }
    }
}

fn over_udp(spec: &str) -> Town<UdpTransport> {
    let sockets: Vec<UdpSocket> = (0..4).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let addresses = sockets.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
    drop(sockets);
    Town::new(spec, addresses, || UdpTransport::new(UdpOptions::default()).unwrap())
}

/// What somebody leaves that was killed goes with the directory.
fn over_shared_memory(test: impl FnOnce(Town<Shm>), name: &str) {
    let directory = PathBuf::from(format!("/dev/shm/large-{name}-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let (addresses, shared) = ((1..=4).map(|own| format!("m{own}")).collect(), directory.clone());
    let shm = move || Shm::new(ShmOptions { directory: shared.clone() });
    test(Town::new(DEFAULT_STACK_WITH_INTEGRITY, addresses, shm));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn large_casts_go_on_over_udp_though_one_dies_and_another_comes_in() {
    large_casts_go_on(over_udp(DEFAULT_STACK));
}

#[test]
fn large_casts_in_one_order_go_on_over_udp_though_one_dies_and_another_comes_in() {
    for ordering in ["TOTAL", "SAFE:TOTAL", "SAFE:SEQUENCER"] {
        large_casts_go_on(over_udp(&format!("{ordering}:{DEFAULT_STACK}")));
    }
}

#[test]
fn large_casts_go_on_over_shared_memory_though_one_dies_and_another_comes_in() {
    over_shared_memory(large_casts_go_on, "on");
}

#[test]
fn over_udp_a_large_cast_of_who_dies_is_everybodys_or_nobodys() {
    for ordering in ["", "TOTAL:", "SAFE:TOTAL:", "SAFE:SEQUENCER:"] {
        let town = over_udp(&format!("{ordering}{DEFAULT_STACK}"));
        a_large_cast_of_who_dies_is_everybodys_or_nobodys(town);
    }
}

#[test]
fn over_shared_memory_a_large_cast_of_who_dies_is_everybodys_or_nobodys() {
    over_shared_memory(a_large_cast_of_who_dies_is_everybodys_or_nobodys, "dies");
}
