//! What a group over AF_XDP asks of the system's allocator while nothing changes: nothing.
//!
//! Unsafe only to count what the allocator is asked for.
#![allow(unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use common::{On, small};
use wadjet::group::{Application, Delivery, Group};
use wadjet::layers::FIXED_STACK;
use wadjet::runtime::{Driver, DriverOptions, IdleStrategy, LoopOptions};
use wadjet::transport::Transport;
use wadjet::{Address, Config, Endpoint, GroupId, GroupKey, Incarnation, LocalView, Member, Shadow, View};
use wadjet_hosts::Hosts;
use wadjet_xdp::{XdpOptions, XdpTransport};

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

/// Answers what another casts.
#[derive(Default)]
struct Echo {
    answers: bool,
    heard: u64,
}

impl Application for Echo {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        if delivery.origin() != group.view().rank() {
            self.heard += delivery.len() as u64;
            if self.answers {
                group.cast(&[1; 64]).unwrap();
            }
        }
    }
}

type Process = (Driver<On<XdpTransport>, Echo>, GroupKey);

/// Casts, and waits for each answer, for so long.
fn talk(both: &mut [Process], time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        let (driver, key) = &mut both[0];
        let heard = driver.application().heard;
        driver.group(*key).cast(&[0; 64]).unwrap();
        while both[0].0.application().heard == heard && Instant::now() < end {
            for (driver, _) in &mut *both {
                driver.run_once();
            }
        }
    }
}

/// Once a second a transport reads the system's table of neighbours, and a driver looks at what its transport has to say.
#[test]
fn seconds_of_ping_pong_allocate_nothing() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let member = |host: usize| Member {
        incarnation: Incarnation(host as u64),
        address: Address(format!("{}:7400", hosts.address(host))),
    };
    let view = View::fixed(GroupId::named("group"), vec![member(1), member(2)], FIXED_STACK);
    let open = |host: usize| {
        let roomy = XdpOptions { transmit_frames: 8192, receive_frames: 4096, ..small() };
        let transport = common::xdp(&hosts, host, &roomy);
        let config = Config { window_frames: 256, shadow: Shadow::Off, ..Config::default() };
        let endpoint = Endpoint::new(config, Incarnation(host as u64)).unwrap();
        let looping = LoopOptions { idle: IdleStrategy::Spin, ..LoopOptions::default() };
        let options = DriverOptions { looping, ..DriverOptions::default() };
        let mut driver = Driver::new(endpoint, Echo { answers: host == 2, heard: 0 }, transport, options);
        let key = driver.open(LocalView::new(view.clone(), Incarnation(host as u64)).unwrap()).unwrap();
        assert!(!driver.inner().transport().caps().notes.is_empty(), "or nothing would be looked at");
        (driver, key)
    };
    let mut both: Vec<Process> = (1..=2).map(open).collect();
    // The neighbours are found, and all that is made ready for later has been.
    talk(&mut both, Duration::from_millis(500));
    let (before, heard) = (ALLOCATIONS.with(Cell::get), both[0].0.application().heard);
    talk(&mut both, Duration::from_millis(2500));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    assert!(both[0].0.application().heard - heard > 1000, "they have talked");
}
