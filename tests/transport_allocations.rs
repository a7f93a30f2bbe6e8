//! Once a channel is open, carrying frames allocates nothing.
//!
//! Unsafe only to count what the system's allocator is asked for.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use wadjet::group::{Application, Delivery, Event, Group};
use wadjet::id::{GroupId, Incarnation, Rank, RankSet, ViewId};
use wadjet::layers::DEFAULT_STACK;
use wadjet::runtime::{Driver, DriverOptions, IdleStrategy, JoinOptions, LoopOptions};
use wadjet::transport::memory::{Hub, HubOptions};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::transport::uring::{UringOptions, UringTransport};
use wadjet::transport::{Channel, ChannelOptions, Destination, Slice, Transmit, Transport};
use wadjet::view::{Address, LocalView, Member, Neighbours, View};
use wadjet::{Config, Endpoint, GroupKey, Shadow};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const OPTIONS: ChannelOptions = ChannelOptions {
    cast_frames: 256,
    control_frames: 64,
    receive_frames: 64,
    frame_bytes: 1400,
    huge_pages: false,
};

fn carry<T: Transport>(address: impl Fn(usize) -> String, mut make: impl FnMut() -> T) {
    let members =
        (0..3).map(|at| Member { incarnation: Incarnation(at), address: Address(address(at as usize)) });
    let view = View {
        group: GroupId::named(&format!("allocations {}", std::process::id())),
        id: ViewId { counter: 1, coordinator: Incarnation(0) },
        members: members.collect(),
        spec: String::new(),
        wire_version: 1,
        salt: 0,
        frame_bytes: 0,
    };
    let mut members: Vec<(T, Channel)> = (0..3)
        .map(|own| {
            let mut transport = make();
            let channel =
                transport.open(&LocalView::new(view.clone(), Incarnation(own)).unwrap(), &OPTIONS).unwrap();
            (transport, channel)
        })
        .collect();
    // Where members map each other's memory, they do it now.
    members.iter_mut().for_each(|(transport, _)| transport.reap());
    let before = ALLOCATIONS.with(Cell::get);
    let mut got = 0;
    for round in 0..500_usize {
        let (sender, channel) = &mut members[round % 3];
        // Now many of one size, now few of several, to all and to one, whole and in parts.
        for at in 0..if round % 50 < 25 { 40 } else { 1 } {
            let mut frame = channel.casts.take(0).unwrap();
            frame.grow(100 + round % 7 * 150).unwrap().fill(round as u8);
            let frame = frame.freeze();
            let transmit =
                Transmit { channel: channel.id, to: Destination::All, head: frame.clone(), body: None };
            sender.submit(transmit).unwrap();
            if at % 8 == 0 {
                let mut head = channel.control.take(0).unwrap();
                head.extend(&[1; 40]).unwrap();
                let body = Some(Slice { from: frame.start(), to: frame.end(), frame });
                let to = Destination::One(Rank::at((round + 1) % 3));
                sender.submit(Transmit { channel: channel.id, to, head: head.freeze(), body }).unwrap();
            }
        }
        sender.flush();
        for _ in 0..4 {
            for (transport, _) in &mut members {
                transport.reap();
                got += transport.receive(50, &mut |received| drop(received));
            }
        }
        // What is asked of a member that is silent.
        for (transport, channel) in &members {
            assert_eq!(transport.gone(channel.id), RankSet::EMPTY);
            let _ = transport.starved(channel.id);
            transport.room_for(4, &OPTIONS).unwrap();
        }
    }
    assert!(got > 10_000);
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
}

/// Counts what is delivered, and knows how many are in the view.
#[derive(Default)]
struct Tally {
    members: usize,
    casts: u64,
}

impl Application for Tally {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        self.casts += delivery.len() as u64;
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        if let Event::View(view) = event {
            self.members = view.view().members.len();
        }
    }
}

type Driven = [(Driver<Shm, Tally>, GroupKey); 2];

/// Beside the messages there is what a driver asks its transport now and then, and what members say to each other.
#[test]
fn two_driven_members_allocate_nothing_while_nothing_changes() {
    let address = |own: u64| Address(format!("m{own}"));
    let group = GroupId::named(&format!("driven {}", std::process::id()));
    let join = |own: u64| {
        let endpoint =
            Endpoint::new(Config { shadow: Shadow::Off, ..Config::default() }, Incarnation(own)).unwrap();
        let looping = LoopOptions { idle: IdleStrategy::Spin, ..LoopOptions::default() };
        let options = DriverOptions { looping, ..DriverOptions::default() };
        let transport = Shm::new(ShmOptions::default());
        let mut driver = Driver::new(endpoint, Tally::default(), transport, options);
        let contacts = if own == 1 { vec![] } else { vec![address(1)] };
        let neighbours = Neighbours { contacts, discover: false };
        // One thread runs both, and may wait for its turn for long.
        let spec = DEFAULT_STACK.replace("SUSPECT", "SUSPECT(least_ms=3000,most_ms=3000)");
        let key = driver.join(JoinOptions { group, spec, address: address(own), neighbours }).unwrap();
        (driver, key)
    };
    let mut members = [join(1), join(2)];
    let run = |members: &mut Driven, time: Duration, done: &dyn Fn(&Tally) -> bool| {
        let start = Instant::now();
        let mut rounds = 0;
        while start.elapsed() < time && !members.iter().all(|(driver, _)| done(driver.application())) {
            for (driver, key) in &mut *members {
                if rounds % 4 == 0 && driver.application().members == 2 {
                    driver.group(*key).cast(&[7; 64]).unwrap();
                }
                driver.run_once();
            }
            rounds += 1;
        }
    };
    let casts = |members: &Driven| members.iter().map(|(driver, _)| driver.application().casts).sum::<u64>();
    run(&mut members, Duration::from_secs(60), &|tally| tally.members == 2);
    // What is left of the views before is given back for a while, and who had to wait for its turn asks whether it is still
    // in the group. A tenth of a second without is soon had, unless something allocates in every one.
    let mut tenths = (0..100).map(|_| {
        let (allocations, delivered) = (ALLOCATIONS.with(Cell::get), casts(&members));
        run(&mut members, Duration::from_millis(100), &|_| false);
        (ALLOCATIONS.with(Cell::get) - allocations, casts(&members) - delivered)
    });
    assert!(tenths.any(|(allocations, delivered)| allocations == 0 && delivered > 100));
}

#[test]
fn memory_allocates_nothing() {
    let hub = Hub::new(HubOptions::default());
    carry(|at| at.to_string(), || hub.transport());
}

#[test]
fn udp_allocates_nothing() {
    let process = std::process::id();
    let address = |at| format!("127.{}.{}.{}:7600", 1 + process % 250, process / 250 % 256, at + 1);
    carry(address, || UdpTransport::new(UdpOptions::default()).unwrap());
}

#[test]
fn uring_allocates_nothing() {
    let process = std::process::id();
    let address = |at| format!("127.{}.{}.{}:7601", 1 + process % 250, process / 250 % 256, at + 1);
    carry(address, || UringTransport::new(UringOptions::default()).unwrap());
}

#[test]
fn shm_allocates_nothing() {
    carry(|at| at.to_string(), || Shm::new(ShmOptions::default()));
}
