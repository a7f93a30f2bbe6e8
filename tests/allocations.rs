//! In the steady state nothing is allocated and nothing is copied: casts, deliveries, polls, post-processing, packs.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use common::{Node, World};
use wadjet::endpoint::Request;
use wadjet::group::{Application, Delivery, Group};
use wadjet::layers::{DEFAULT_STACK, FIXED_STACK, FIXED_STACK_WITH_INTEGRITY};
use wadjet::transport::{Received, Transport};
use wadjet::{Config, RankSet, Shadow, Time};

/// Counts the allocations of a thread while it is asked to.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<Option<u64>> = const { Cell::new(None) };
}

fn note() {
    ALLOCATIONS.with(|count| count.set(count.get().map(|n| n + 1)));
}

#[allow(unsafe_code)]
// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts messages and bytes; keeps nothing.
#[derive(Default)]
struct Tally {
    /// Taken of this member.
    cast: u64,
    casts: u64,
    sends: u64,
    bytes: u64,
}

impl Application for Tally {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        for message in delivery.messages() {
            self.casts += 1;
            self.bytes += message.len() as u64;
        }
        group.ack(delivery.id());
    }

    fn send(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        self.sends += delivery.len() as u64;
    }
}

/// Who casts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Casting {
    Everybody,
    /// The first member; the others are heard by what layers say on their own, and nobody sends.
    First,
}

/// `rounds` rounds, `apart` from each other, in which members cast `batch` messages, and send one to their neighbour now
/// and then.
fn run(
    world: &mut World,
    tallies: &mut [Tally],
    arrived: &mut Vec<Received>,
    rounds: usize,
    batch: usize,
    casting: Casting,
    apart: Duration,
) {
    let members = world.nodes.len();
    for round in 0..rounds {
        world.now = world.now + apart;
        let now = world.now;
        for (n, tally) in tallies.iter_mut().enumerate() {
            let node = &mut world.nodes[n];
            let casts = if casting == Casting::Everybody || n == 0 { batch } else { 0 };
            for _ in 0..casts {
                let mut group = node.endpoint.group(node.key);
                // Where turns go round, there may be no room until this member's next one.
                let Ok(mut reservation) = group.reserve(64) else { break };
                reservation.fill(n as u8);
                reservation.commit();
                tally.cast += 1;
            }
            let peer = RankSet::one(wadjet::Rank::at((n + 1) % members));
            if round % 4 == 0 && members > 1 && casting == Casting::Everybody {
                node.endpoint.group(node.key).send(&peer, &[1; 32]).unwrap();
            }
            iterate(node, tally, arrived, now);
        }
    }
}

/// One iteration of a member.
fn iterate(node: &mut Node, tally: &mut Tally, arrived: &mut Vec<Received>, now: Time) {
    let endpoint = &mut node.endpoint;
    node.transport.receive(1024, &mut |received| arrived.push(received));
    // What has come is more than there is time for, again and again.
    let mut asked = 0;
    while !arrived.is_empty() {
        endpoint.receive_until(arrived, now, tally, || {
            asked += 1;
            asked % 3 == 0
        });
    }
    endpoint.poll(now, tally);
    while let Some(transmit) = endpoint.transmit() {
        node.transport.submit(transmit).expect("queues are large");
    }
    node.transport.flush();
    node.transport.reap();
}

#[test]
fn the_steady_state_allocates_and_copies_nothing() {
    for spec in [FIXED_STACK, FIXED_STACK_WITH_INTEGRITY] {
        for members in [1, 2, 3] {
            for batch in [1, 7] {
                let config = Config { shadow: Shadow::Off, ..Config::default() };
                let mut world = World::new(members, spec, &config);
                let mut tallies: Vec<Tally> = (0..members).map(|_| Tally::default()).collect();
                let mut arrived = Vec::with_capacity(1024);
                run(
                    &mut world,
                    &mut tallies,
                    &mut arrived,
                    3000,
                    batch,
                    Casting::Everybody,
                    Duration::from_micros(10),
                );
                let before: Vec<u64> = tallies.iter().map(|tally| tally.casts).collect();
                ALLOCATIONS.set(Some(0));
                run(
                    &mut world,
                    &mut tallies,
                    &mut arrived,
                    3000,
                    batch,
                    Casting::Everybody,
                    Duration::from_micros(10),
                );
                let allocations = ALLOCATIONS.take();
                assert_eq!(allocations, Some(0), "{spec} {members} members, {batch} casts at once");
                for (n, tally) in tallies.iter().enumerate() {
                    let delivered = tally.casts - before[n];
                    let expected = (3000 * batch * members) as u64;
                    assert!(delivered.abs_diff(expected) <= 20 * (batch * members) as u64, "{delivered}");
                    assert_eq!(tally.bytes, tally.casts * 64);
                    let stats = world.nodes[n].stats();
                    assert_eq!(world.nodes[n].transport.counters().copies, 0);
                    assert!(stats.fast_path.hit_rate() > 0.999, "{:?}", stats.misses);
                    assert!(tally.sends > 700 || members == 1);
                }
            }
        }
    }
}

/// Without an order, and in every order there is.
fn live_stacks() -> impl Iterator<Item = String> {
    let orders = ["", "TOTAL:", "SAFE:TOTAL:", "SEQUENCER:", "SAFE:SEQUENCER:"];
    orders.into_iter().map(|order| DEFAULT_STACK.replace("MBRSHIP", &format!("{order}MBRSHIP")))
}

/// A stack whose views are agreed on has timers of its own: beats, looking for others. They allocate nothing either, nor
/// does what listeners say when they have nothing to cast.
#[test]
fn a_live_stack_allocates_and_copies_nothing() {
    for (members, spec) in
        [1, 2, 3].into_iter().flat_map(|members| live_stacks().map(move |spec| (members, spec)))
    {
        for (casting, batch) in [(Casting::Everybody, 1), (Casting::Everybody, 7), (Casting::First, 7)] {
            let config = Config { shadow: Shadow::Off, ..Config::default() };
            let mut world = World::new(members, &spec, &config);
            let mut tallies: Vec<Tally> = (0..members).map(|_| Tally::default()).collect();
            let apart = Duration::from_micros(300);
            let mut arrived = Vec::with_capacity(1024);
            run(&mut world, &mut tallies, &mut arrived, 2000, batch, casting, apart);
            let before: Vec<u64> = tallies.iter().map(|tally| tally.casts).collect();
            let cast = |tallies: &[Tally]| tallies.iter().map(|tally| tally.cast).sum::<u64>();
            let cast_before = cast(&tallies);
            let beats = world.nodes[members - 1].transport.counters().frames_sent;
            ALLOCATIONS.set(Some(0));
            run(&mut world, &mut tallies, &mut arrived, 2000, batch, casting, apart);
            let allocations = ALLOCATIONS.take();
            assert_eq!(allocations, Some(0), "{spec} {members} members, {batch} casts at once, {casting:?}");
            let casters = if casting == Casting::Everybody { members } else { 1 };
            let expected = cast(&tallies) - cast_before;
            assert!(expected * 4 > (2000 * batch * casters) as u64, "{spec}: few are taken: {expected}");
            for (n, tally) in tallies.iter().enumerate() {
                let delivered = tally.casts - before[n];
                assert!(
                    delivered.abs_diff(expected) <= 70 * (batch * members) as u64,
                    "{delivered} of {expected}"
                );
                assert_eq!(world.nodes[n].transport.counters().copies, 0);
                let stats = world.nodes[n].stats();
                let missed = stats.fast_path.deliver_miss + stats.fast_path.send_miss;
                assert!(missed * 1000 < delivered, "{spec} {members} members: {:?}", stats.misses);
                assert_eq!(world.nodes[n].counted("SUSPECT", "suspicion"), 0);
            }
            let beats = world.nodes[members - 1].transport.counters().frames_sent - beats;
            assert!(members == 1 || beats > 100, "{beats}");
        }
    }
}

/// A member that has not been heard for two beats has the transport asked whether it is gone, which happens wherever another
/// process has the processor for a moment.
#[test]
fn who_is_silent_for_a_moment_is_asked_about_without_an_allocation() {
    let config = Config { shadow: Shadow::Off, ..Config::default() };
    let mut world = World::new(3, DEFAULT_STACK, &config);
    let mut tallies: Vec<Tally> = (0..3).map(|_| Tally::default()).collect();
    let mut arrived = Vec::with_capacity(1024);
    let apart = Duration::from_micros(300);
    run(&mut world, &mut tallies, &mut arrived, 2000, 1, Casting::Everybody, apart);
    let mut asked = 0;
    ALLOCATIONS.set(Some(0));
    // The third one is silent until the others ask, each for itself.
    for _ in 0..100 {
        world.now = world.now + apart;
        for (node, tally) in world.nodes.iter_mut().zip(&mut tallies).take(2) {
            iterate(node, tally, &mut arrived, world.now);
            while let Some(request) = node.endpoint.request() {
                assert!(matches!(request, Request::Hint { .. }), "{request:?}");
                asked += 1;
            }
        }
        if asked >= 2 {
            break;
        }
    }
    assert_eq!((ALLOCATIONS.take(), asked), (Some(0), 2));
}
