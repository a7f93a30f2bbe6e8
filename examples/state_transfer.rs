//! How fast a state goes to a member that comes in, while casts go on: two members, a thread each.
//!
//! ```sh
//! cargo run --release --example state_transfer -- shm 1024 61440
//! cargo run --release --example state_transfer -- udp 1024 61440
//! ```
//! Transport, MiB of state, bytes of a frame, and (if given) microseconds between casts of each member.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use wadjet::group::{Application, Delivery, Event, Group, Snapshot, StatePart};
use wadjet::layers::{LIVE_STACK, LIVE_STACK_WITH_INTEGRITY};
use wadjet::runtime::{Driver, DriverOptions, JoinOptions};
use wadjet::transport::Transport;
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::view::Neighbours;
use wadjet::{Address, Config, Endpoint, GroupId, Incarnation};

/// So much memory stands for the whole state: what is measured is the way, not the memory.
const WINDOW_BYTES: usize = 16 << 20;

/// Whoever takes longer says what it is at, and ends.
const TOO_LONG: Duration = Duration::from_secs(10);

/// A state as long as asked, from the same memory over and over.
struct Ballast {
    bytes: Vec<u8>,
    at: usize,
    left: u64,
}

impl Snapshot for Ballast {
    fn read(&mut self, into: &mut [u8]) -> usize {
        let from = &self.bytes[self.at..];
        let count = from.len().min(into.len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        into[..count].copy_from_slice(&from[..count]);
        self.at = (self.at + count) % self.bytes.len();
        self.left -= count as u64;
        count
    }
}

struct Store {
    state_bytes: u64,
    bytes: Vec<u8>,
    members: usize,
    casts: u64,
    begun: Option<Instant>,
    received: u64,
    took: Option<Duration>,
    /// Casts that the group delivered here by the time the state was complete, and when those held were through.
    caught_up: Option<Duration>,
}

impl Application for Store {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        self.casts += delivery.len() as u64;
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        match event {
            Event::View(view) => {
                self.members = view.size();
                self.caught_up = self.begun.map(|begun| begun.elapsed());
            }
            Event::Problem(problem) => eprintln!("{}: {}", problem.layer, problem.what),
            Event::Exit(reason) => eprintln!("exit: {reason}"),
            _ => {}
        }
    }

    fn snapshot(&mut self, _group: &mut Group<'_>) -> Option<Box<dyn Snapshot>> {
        Some(Box::new(Ballast { bytes: vec![7; WINDOW_BYTES], at: 0, left: self.state_bytes }))
    }

    fn install_state(&mut self, part: &StatePart<'_>, _group: &mut Group<'_>) -> Result<(), String> {
        if part.at == 0 {
            self.begun = Some(Instant::now());
        }
        let at = part.at as usize % (WINDOW_BYTES - part.bytes.len());
        self.bytes[at..at + part.bytes.len()].copy_from_slice(part.bytes);
        self.received += part.bytes.len() as u64;
        if part.last {
            self.took = self.begun.map(|begun| begun.elapsed());
        }
        Ok(())
    }
}

struct Plan {
    group: GroupId,
    spec: String,
    addresses: [String; 2],
    state_bytes: u64,
    frame_bytes: usize,
    pause: Duration,
}

fn member<T: Transport>(plan: &Plan, own: usize, transport: T, stop: &AtomicBool) -> Store {
    let config = Config { frame_bytes_max: plan.frame_bytes, ..Config::default() };
    let store = Store {
        state_bytes: plan.state_bytes,
        bytes: vec![1; WINDOW_BYTES],
        members: 0,
        casts: 0,
        begun: None,
        received: 0,
        took: None,
        caught_up: None,
    };
    let endpoint = Endpoint::new(config, Incarnation(own as u64 + 1)).expect("a valid configuration");
    let mut driver = Driver::new(endpoint, store, transport, DriverOptions::default());
    let address = |at: usize| Address(plan.addresses[at].clone());
    let contacts = if own == 0 { Vec::new() } else { vec![address(0)] };
    let options = JoinOptions {
        group: plan.group,
        spec: plan.spec.clone(),
        address: address(own),
        neighbours: Neighbours { contacts, discover: false },
    };
    let group = driver.join(options).expect("a group");
    let started = Instant::now();
    let mut next = started;
    while !stop.load(SeqCst) {
        driver.run_once();
        let now = Instant::now();
        if now >= next {
            next = now + plan.pause;
            // What flow control refuses now is not cast.
            let _ = driver.group(group).cast(&[0; 64]);
        }
        if now > started + TOO_LONG {
            eprintln!("it takes longer than {TOO_LONG:?}");
            stop.store(true, SeqCst);
        }
        if own == 1 && driver.application().took.is_some() && driver.application().members == 2 {
            stop.store(true, SeqCst);
        }
    }
    if started.elapsed() > TOO_LONG {
        driver.group(group).dump().iter().for_each(|line| eprintln!("{own} {line}"));
        eprintln!("{own} {:?}", driver.stats(group).counts);
    }
    let Store { casts, received, took, caught_up, members, .. } = *driver.application();
    Store { state_bytes: 0, bytes: Vec::new(), begun: None, casts, received, took, caught_up, members }
}

fn run<T: Transport>(plan: &Plan, transport: impl Fn() -> T + Sync) {
    let stop = AtomicBool::new(false);
    let (transport, stop) = (&transport, &stop);
    let stores: Vec<Store> = std::thread::scope(|scope| {
        let member = |own: usize| scope.spawn(move || member(plan, own, transport(), stop));
        let first = member(0);
        std::thread::sleep(Duration::from_millis(100));
        let second = member(1);
        [first, second].map(|thread| thread.join().expect("a member that ends well")).into()
    });
    let [donor, joiner] = &stores[..] else { return };
    let took = joiner.took.unwrap_or_default();
    println!(
        "{} MiB in {:.0} ms: {:.0} MB/s; the view was told after {:.0} ms; the donor delivered {} casts in all",
        joiner.received >> 20,
        took.as_secs_f64() * 1e3,
        joiner.received as f64 / took.as_secs_f64() / 1e6,
        joiner.caught_up.unwrap_or_default().as_secs_f64() * 1e3,
        donor.casts,
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| {
        arguments.get(at).map_or(default, |text| text.parse().expect("a whole number"))
    };
    let over = arguments.first().map_or("shm", String::as_str);
    let mut plan = Plan {
        group: GroupId(u64::from(std::process::id()) << 8),
        spec: format!("XFER:{LIVE_STACK}"),
        addresses: ["one", "two"].map(String::from),
        state_bytes: number(1, 256) << 20,
        frame_bytes: number(2, 2048) as usize,
        pause: Duration::from_micros(number(3, 100)),
    };
    if over == "udp" {
        let sockets = [0, 1].map(|_| std::net::UdpSocket::bind("127.0.0.1:0").expect("a port"));
        plan.addresses = sockets.map(|socket| socket.local_addr().expect("its address").to_string());
        run(&plan, || UdpTransport::new(UdpOptions::default()).expect("a transport"));
    } else {
        plan.spec = format!("XFER:{LIVE_STACK_WITH_INTEGRITY}");
        run(&plan, || Shm::new(ShmOptions::default()));
    }
}
