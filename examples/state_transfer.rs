//! How fast a state goes to a member that comes in, while casts go on: two members, a thread each. Then the same bytes by
//! the transport alone: read from one memory, written to another, as of a state. Once in the frames that casts have, and,
//! where the transport carries longer ones to single members, which the state goes in, once in those.
//!
//! ```sh
//! cargo run --release --example state_transfer -- shm 1024 2048
//! cargo run --release --example state_transfer -- udp 1024 2048
//! ```
//! Transport, MiB of state, bytes of a frame, and (if given) microseconds between casts of each member.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use wadjet::buf::Region;
use wadjet::group::{Application, Delivery, Event, Group, Snapshot, StatePart};
use wadjet::id::{Rank, ViewId};
use wadjet::layers::{DEFAULT_STACK, DEFAULT_STACK_WITH_INTEGRITY};
use wadjet::runtime::{Driver, DriverOptions, JoinOptions};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::transport::{Channel, ChannelOptions, Destination, Received, Transmit, Transport};
use wadjet::view::{LocalView, Member, Neighbours, View};
use wadjet::{Address, Config, Endpoint, GroupId, Incarnation};

/// So much memory stands for the whole state: what is measured is the way, not the memory.
const WINDOW_BYTES: usize = 16 << 20;

/// Whoever sees no byte of the state move for so long says what it is at, and ends.
const TOO_LONG: Duration = Duration::from_secs(10);

/// A state as long as asked, from the same memory over and over.
struct Ballast {
    bytes: Vec<u8>,
    at: usize,
    left: u64,
    moved: Arc<AtomicU64>,
}

impl Snapshot for Ballast {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, String> {
        let from = &self.bytes[self.at..];
        let count = from.len().min(into.len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        into[..count].copy_from_slice(&from[..count]);
        self.at = (self.at + count) % self.bytes.len();
        self.left -= count as u64;
        self.moved.fetch_add(count as u64, SeqCst);
        Ok(count)
    }
}

struct Store {
    state_bytes: u64,
    bytes: Vec<u8>,
    members: usize,
    casts: u64,
    begun: Option<Instant>,
    /// Bytes of the state under way: at whoever gives it those read, at whoever gets it those taken in.
    moved: Arc<AtomicU64>,
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
        let moved = Arc::clone(&self.moved);
        Some(Box::new(Ballast { bytes: vec![7; WINDOW_BYTES], at: 0, left: self.state_bytes, moved }))
    }

    fn install_state(&mut self, part: &StatePart<'_>, _group: &mut Group<'_>) -> Result<(), String> {
        if part.at == 0 {
            // It may begin anew, if its donor is gone.
            self.begun = Some(Instant::now());
            self.moved.store(0, SeqCst);
        }
        let at = part.at as usize % (WINDOW_BYTES - part.bytes.len());
        self.bytes[at..at + part.bytes.len()].copy_from_slice(part.bytes);
        self.moved.fetch_add(part.bytes.len() as u64, SeqCst);
        if part.last {
            self.took = self.begun.map(|begun| begun.elapsed());
        }
        Ok(())
    }
}

/// How it went at one member.
struct Outcome {
    casts: u64,
    received: u64,
    took: Option<Duration>,
    caught_up: Option<Duration>,
}

struct Plan {
    group: GroupId,
    spec: String,
    addresses: [String; 2],
    state_bytes: u64,
    frame_bytes: usize,
    pause: Duration,
}

fn member<T: Transport>(plan: &Plan, own: usize, transport: T, stop: &AtomicBool) -> Outcome {
    let config = Config { frame_bytes_max: plan.frame_bytes, ..Config::default() };
    let store = Store {
        state_bytes: plan.state_bytes,
        bytes: vec![1; WINDOW_BYTES],
        members: 0,
        casts: 0,
        begun: None,
        moved: Arc::default(),
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
    let (mut moved, mut moved_at) = (0, started);
    while !stop.load(SeqCst) {
        driver.run_once();
        let now = Instant::now();
        if now >= next {
            next = now + plan.pause;
            // What flow control refuses now is not cast.
            let _ = driver.group(group).cast(&[0; 64]);
        }
        let so_far = driver.application().moved.load(SeqCst);
        if so_far != moved {
            (moved, moved_at) = (so_far, now);
        }
        if own == 1 && driver.application().took.is_some() && driver.application().members == 2 {
            stop.store(true, SeqCst);
        } else if now > moved_at + TOO_LONG {
            eprintln!("nothing of the state has moved for {TOO_LONG:?}");
            driver.group(group).dump().iter().for_each(|line| eprintln!("{own} {line}"));
            eprintln!("{own} {:?}", driver.stats(group).counts);
            stop.store(true, SeqCst);
        }
    }
    let Store { casts, took, caught_up, ref moved, .. } = *driver.application();
    Outcome { casts, received: moved.load(SeqCst), took, caught_up }
}

/// Runs it; says how it went, and whether all of the state arrived.
fn run<T: Transport>(plan: &Plan, transport: impl Fn() -> T + Sync) -> bool {
    let stop = AtomicBool::new(false);
    let (transport, stop) = (&transport, &stop);
    let [donor, joiner]: [Outcome; 2] = std::thread::scope(|scope| {
        let member = |own: usize| scope.spawn(move || member(plan, own, transport(), stop));
        let first = member(0);
        std::thread::sleep(Duration::from_millis(100));
        let second = member(1);
        [first, second].map(|thread| thread.join().expect("a member that ends well"))
    });
    let Some(took) = joiner.took.filter(|_| joiner.received == plan.state_bytes) else {
        eprintln!(
            "the state did not arrive: {} of {} bytes were taken in",
            joiner.received, plan.state_bytes
        );
        return false;
    };
    let rate = |took: Duration| plan.state_bytes as f64 / took.as_secs_f64() / 1e6;
    println!(
        "{} MiB in {:.0} ms: {:.0} MB/s; the view was told after {:.0} ms; the donor delivered {} casts in all",
        joiner.received >> 20,
        took.as_secs_f64() * 1e3,
        rate(took),
        joiner.caught_up.unwrap_or_default().as_secs_f64() * 1e3,
        donor.casts,
    );
    for kind in [Frames::Ordinary, Frames::Long] {
        let (raw_took, frame_bytes) = match raw(plan, kind, transport) {
            Raw::Took(took, frame_bytes) => (took, frame_bytes),
            Raw::Lost => {
                eprintln!("the transport alone lost some of it, which it may: say it again");
                return false;
            }
            Raw::NoSuchFrames => continue,
        };
        println!(
            "the transport alone, in frames of {frame_bytes} bytes: {:.0} MB/s; the state went at {:.0} % of that",
            rate(raw_took),
            100.0 * raw_took.as_secs_f64() / took.as_secs_f64()
        );
    }
    true
}

/// Bytes before the payload, as many as a stack has: the frame's number, or how many have come.
const HEADER_BYTES: usize = 24;
/// Frames under way, if there are so many; the receiver acknowledges every quarter of them.
const RAW_WINDOW: usize = 512;
/// So long without an acknowledgement, and everything that has none goes out again.
const RAW_AGAIN: Duration = Duration::from_millis(5);

/// Which frames the bytes go in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frames {
    /// As casts do.
    Ordinary,
    /// As much does that goes to single members.
    Long,
}

/// How it went by the transport alone.
enum Raw {
    /// So long, in frames of so many bytes.
    Took(Duration, usize),
    Lost,
    NoSuchFrames,
}

/// One end of the transport alone.
struct End<T> {
    transport: T,
    channel: Channel,
    /// Where the frames are.
    region: Region,
    to: Destination,
    /// Bytes that a frame carries, and how many frames may be under way.
    room: usize,
    window: u64,
    /// Frames that the state takes.
    frames: u64,
}

impl<T: Transport> End<T> {
    fn open(plan: &Plan, kind: Frames, own: usize, mut transport: T) -> Option<End<T>> {
        let member = |at: usize| Member {
            incarnation: Incarnation(at as u64 + 1),
            address: Address(plan.addresses[at].clone()),
        };
        let view = View {
            group: GroupId(plan.group.0 + 1),
            id: ViewId { counter: 1, coordinator: Incarnation(1) },
            members: vec![member(0), member(1)],
            spec: String::new(),
            wire_version: 1,
            salt: 0,
            frame_bytes: 0,
        };
        let view = LocalView::new(view, Incarnation(own as u64 + 1)).expect("it is a member");
        let frames = RAW_WINDOW + 2;
        let options = ChannelOptions {
            cast_frames: frames,
            control_frames: 64,
            receive_frames: frames,
            frame_bytes: plan.frame_bytes,
            huge_pages: false,
        };
        let channel = transport.open(&view, &options).expect("a channel");
        let (region, to) = match kind {
            Frames::Ordinary => (channel.casts.clone(), Destination::All),
            Frames::Long => (channel.long.clone()?, Destination::One(Rank(1))),
        };
        let room = region.frame_bytes() - HEADER_BYTES;
        let window = match kind {
            Frames::Ordinary => RAW_WINDOW,
            Frames::Long => region.usage().frames * 3 / 4,
        };
        let frames = plan.state_bytes.div_ceil(room as u64);
        Some(End { transport, channel, region, to, room, window: window as u64, frames })
    }

    /// Sends out and takes in; hands on the number in each frame, and its payload.
    fn turn(&mut self, mut take: impl FnMut(u64, &[u8])) {
        self.transport.flush();
        self.transport.reap();
        self.transport.receive(64, &mut |received: Received| {
            let (header, payload) = received.bytes().split_at(HEADER_BYTES);
            let number = header[..8].try_into().expect("eight bytes");
            take(u64::from_le_bytes(number), payload);
        });
    }

    /// Sends a number and some bytes of the state, if there is a frame. Whether it was taken.
    fn send(&mut self, number: u64, bytes: &[u8]) -> bool {
        let region = self.region.clone();
        self.send_in(&region, self.to, number, bytes)
    }

    /// Says how many frames have come.
    fn acknowledge(&mut self, count: u64) {
        let region = self.channel.control.clone();
        // What is not taken now is said by the next one.
        self.send_in(&region, Destination::One(Rank(0)), count, &[]);
    }

    fn send_in(&mut self, region: &Region, to: Destination, number: u64, bytes: &[u8]) -> bool {
        let Ok(mut frame) = region.take(HEADER_BYTES) else { return false };
        frame.extend(bytes).expect("it has room");
        let frame = frame.freeze();
        let mut header = [7; HEADER_BYTES];
        header[..8].copy_from_slice(&number.to_le_bytes());
        frame.prepend(&header).expect("there is headroom");
        let transmit = Transmit { channel: self.channel.id, to, head: frame, body: None };
        self.transport.submit(transmit).is_ok()
    }
}

/// Sends the state until all of it is acknowledged.
fn raw_sender<T: Transport>(plan: &Plan, mut end: End<T>) {
    let memory = vec![7; WINDOW_BYTES];
    let (mut sent, mut acknowledged, mut moved_at) = (0, None, Instant::now());
    while acknowledged != Some(end.frames) && moved_at.elapsed() < TOO_LONG {
        end.turn(|count, _| {
            if acknowledged.is_none_or(|before| count > before) {
                (acknowledged, moved_at) = (Some(count), Instant::now());
            }
        });
        // Before it is heard, the other end is not there.
        let Some(acknowledged) = acknowledged else { continue };
        if sent < acknowledged || moved_at.elapsed() > RAW_AGAIN {
            sent = acknowledged;
        }
        let through = end.frames.min(acknowledged + end.window).min(sent + 64);
        while sent < through {
            let from = sent * end.room as u64;
            let at = from as usize % (WINDOW_BYTES - end.room);
            let count = (plan.state_bytes - from).min(end.room as u64) as usize;
            if !end.send(sent, &memory[at..at + count]) {
                break;
            }
            sent += 1;
        }
    }
}

/// Takes the state in; how long it took, if all of it came.
fn raw_receiver<T: Transport>(plan: &Plan, mut end: End<T>) -> Option<Duration> {
    let mut memory = vec![1; WINDOW_BYTES];
    let (room, mut got, mut told, mut taken, mut turns) = (end.room, 0, 0, 0, 0);
    let (mut begun, mut moved_at) = (None, Instant::now());
    while taken < plan.state_bytes && moved_at.elapsed() < TOO_LONG {
        let before = got;
        end.turn(|number, bytes| {
            if number == got {
                let at = taken as usize % (WINDOW_BYTES - room);
                memory[at..at + bytes.len()].copy_from_slice(bytes);
                (got, taken) = (got + 1, taken + bytes.len() as u64);
            }
        });
        if got > before {
            moved_at = Instant::now();
            begun.get_or_insert(moved_at);
        }
        turns += 1;
        if turns % 1000 == 0 || got - told >= end.window / 4 {
            told = got;
            end.acknowledge(got);
        }
    }
    let took = begun.map(|begun| begun.elapsed());
    for _ in 0..1000 {
        end.acknowledge(got);
        end.turn(|_, _| {});
    }
    took.filter(|_| taken == plan.state_bytes)
}

/// The same bytes by the transport alone; how long it took at the receiver, if all of them came.
fn raw<T: Transport>(plan: &Plan, kind: Frames, transport: impl Fn() -> T + Sync) -> Raw {
    let transport = &transport;
    std::thread::scope(|scope| {
        scope.spawn(move || End::open(plan, kind, 0, transport()).map(|end| raw_sender(plan, end)));
        let receiver = scope.spawn(move || {
            let Some(end) = End::open(plan, kind, 1, transport()) else { return Raw::NoSuchFrames };
            let frame_bytes = end.region.frame_bytes();
            raw_receiver(plan, end).map_or(Raw::Lost, |took| Raw::Took(took, frame_bytes))
        });
        receiver.join().expect("it ends well")
    })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| {
        arguments.get(at).map_or(default, |text| text.parse().expect("a whole number"))
    };
    let over = arguments.first().map_or("shm", String::as_str);
    let mut plan = Plan {
        group: GroupId(u64::from(std::process::id()) << 8),
        spec: format!("XFER:{DEFAULT_STACK}"),
        addresses: ["one", "two"].map(String::from),
        state_bytes: number(1, 256) << 20,
        frame_bytes: number(2, 2048) as usize,
        pause: Duration::from_micros(number(3, 100)),
    };
    let arrived = if over == "udp" {
        let sockets = [0, 1].map(|_| std::net::UdpSocket::bind("127.0.0.1:0").expect("a port"));
        plan.addresses = sockets.map(|socket| socket.local_addr().expect("its address").to_string());
        run(&plan, || UdpTransport::new(UdpOptions::default()).expect("a transport"))
    } else {
        plan.spec = format!("XFER:{DEFAULT_STACK_WITH_INTEGRITY}");
        run(&plan, || Shm::new(ShmOptions::default()))
    };
    if arrived { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
