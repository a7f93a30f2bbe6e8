//! Frames that come ahead of their turn: parked, bounded in number and time, counted once by how they end.

mod common;

use std::time::Duration;

use common::{Dice, World};
use wadjet::layers::FIXED_STACK;
use wadjet::stats::Stats;
use wadjet::transport::{Received, Transport};
use wadjet::wire::{FULL_FLAG, word};
use wadjet::{Application, Config, Delivery, Group, Shadow};

fn config(shadow: Shadow) -> Config {
    Config { pack: false, shadow, ..Config::default() }
}

/// One iteration in which the frames that came to `node` are handed over as `arrange` says.
fn step(world: &mut World, node: usize, arrange: impl FnOnce(Vec<Received>) -> Vec<Received>) {
    let mut frames = Vec::new();
    world.nodes[node].transport.receive(1024, &mut |received| frames.push(received));
    // Reports, in full headers, are not what this is about.
    let fast = |received: &Received| word(received.bytes(), 0).is_some_and(|first| first & FULL_FLAG == 0);
    let (frames, reports): (Vec<_>, Vec<_>) = frames.into_iter().partition(fast);
    for received in arrange(frames).into_iter().chain(reports) {
        let node = &mut world.nodes[node];
        node.endpoint.receive(received, world.now, &mut node.log);
    }
    world.step();
}

fn casts(world: &mut World, from: usize, count: u8) -> Vec<Vec<u8>> {
    let messages: Vec<Vec<u8>> = (0..count).map(|n| vec![n]).collect();
    for message in &messages {
        world.cast(from, message);
    }
    world.nodes[1].stopped = true;
    world.step();
    world.nodes[1].stopped = false;
    messages
}

fn misses(stats: &Stats, reason: &str) -> u64 {
    stats.misses.iter().filter(|miss| miss.reason == reason).map(|miss| miss.count).sum()
}

#[test]
fn swapped_neighbours_are_early_not_missed() {
    for shadow in [Shadow::Panic, Shadow::Off] {
        let mut world = World::new(2, FIXED_STACK, &config(shadow));
        let messages = casts(&mut world, 0, 20);
        step(&mut world, 1, |mut frames| {
            frames.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
            frames
        });
        assert_eq!(world.delivered(1, 0), messages);
        let fast = world.nodes[1].stats().fast_path;
        assert_eq!((fast.deliver_hit, fast.deliver_early, fast.deliver_miss), (10, 10, 0), "{shadow:?}");
        assert_eq!(fast.hit_rate(), 1.0);
        world.steps(2000);
        assert_eq!(world.nodes[1].counted("NAK", "repair request"), 0);
        assert_eq!(world.nodes[0].stats().unacknowledged, 0);
    }
}

#[test]
fn any_order_within_the_bound_is_put_right() {
    for shadow in [Shadow::Panic, Shadow::Off] {
        for seed in 0..50 {
            let mut world = World::new(2, FIXED_STACK, &config(shadow));
            let messages = casts(&mut world, 0, 60);
            step(&mut world, 1, |mut frames| {
                let mut dice = Dice(seed);
                for at in (1..frames.len()).rev() {
                    frames.swap(at, dice.below(at as u64 + 1) as usize);
                }
                frames
            });
            assert_eq!(world.delivered(1, 0), messages);
            let fast = world.nodes[1].stats().fast_path;
            assert_eq!(fast.deliver_hit + fast.deliver_early, 60);
            assert_eq!(fast.deliver_miss, 0);
        }
    }
}

#[test]
fn a_lost_frame_sends_the_parked_ones_through_the_layers_and_is_repaired() {
    for shadow in [Shadow::Panic, Shadow::Off] {
        let mut world = World::new(2, FIXED_STACK, &config(shadow));
        let messages = casts(&mut world, 0, 10);
        step(&mut world, 1, |mut frames| {
            frames.remove(4);
            frames
        });
        assert_eq!(world.delivered(1, 0), messages[..4]);
        let stats = world.nodes[1].stats();
        assert_eq!(
            (stats.fast_path.deliver_hit, stats.fast_path.deliver_miss),
            (4, 0),
            "parked: not counted"
        );
        let deadline = world.nodes[1].endpoint.deadline();
        assert!(deadline <= world.now + Config::default().early_delay, "they wait for a bounded time");
        world.steps(15);
        assert_eq!(world.nodes[1].stats().fast_path.deliver_miss, 0, "until early_delay has passed");
        world.steps(500);
        assert_eq!(world.delivered(1, 0), messages);
        let stats = world.nodes[1].stats();
        // Five parked frames and the repaired one.
        assert_eq!(stats.fast_path.deliver_miss, 6, "{:?}", stats.misses);
        assert_eq!(stats.fast_path.deliver_early, 0);
        assert_eq!(misses(&stats, "full header"), 1);
        assert_eq!(world.nodes[0].counted("NAK", "retransmission"), 1);
        world.cast(0, b"after");
        world.steps(20);
        assert_eq!(world.nodes[1].stats().fast_path.deliver_hit, 5, "the fast path is open again");
    }
}

/// Who looks for the reason finds it: room, or time.
#[test]
fn frames_for_which_there_is_no_room_are_not_said_to_have_waited_too_long() {
    let mut world = World::new(2, FIXED_STACK, &Config { early_frames_max: 2, ..config(Shadow::Off) });
    let messages = casts(&mut world, 0, 10);
    step(&mut world, 1, |mut frames| {
        frames.remove(4);
        frames
    });
    // Two wait, the third finds no room: all of them take the layers, where the others follow.
    let stats = world.nodes[1].stats();
    assert_eq!(misses(&stats, "early frame that found no room to wait"), 3, "{:?}", stats.misses);
    world.steps(500);
    assert_eq!(world.delivered(1, 0), messages);
    assert_eq!(misses(&world.nodes[1].stats(), "early frame that waited too long"), 0);
}

/// The missing frame is repaired before the delay is over: parked frames then go by the plan after all. (The layers do
/// not know of them and ask for them too.)
#[test]
fn a_repair_that_comes_in_time_lets_parked_frames_run() {
    let config = Config { early_delay: Duration::from_millis(50), ..config(Shadow::Panic) };
    let mut world = World::new(3, FIXED_STACK, &config);
    let messages = casts(&mut world, 0, 10);
    step(&mut world, 1, |mut frames| {
        frames.remove(4);
        frames
    });
    world.steps(1000);
    assert_eq!(world.delivered(1, 0), messages);
    let fast = world.nodes[1].stats().fast_path;
    let duplicates = world.nodes[1].counted("NAK", "duplicate");
    assert_eq!((fast.deliver_hit, fast.deliver_early, fast.deliver_miss), (4, 5, 1 + duplicates));
}

/// What ends a gap may itself take the layers: nothing else need come for parked frames to be tried again.
#[test]
fn a_frame_that_takes_the_layers_lets_parked_ones_run() {
    for shadow in [Shadow::Panic, Shadow::Off] {
        let mut world = World::new(2, FIXED_STACK, &config(shadow));
        let messages = casts(&mut world, 0, 4);
        let mut frames = Vec::new();
        step(&mut world, 1, |all| {
            frames = all;
            vec![frames[2].clone()]
        });
        world.steps(10);
        step(&mut world, 1, |_| vec![frames[3].clone()]);
        let expanded = world.until(100, |world| world.nodes[1].stats().fast_path.deliver_miss == 1);
        assert!(expanded, "the first parked frame has waited long enough, and the layers know of the gap");
        step(&mut world, 1, |_| frames[..2].to_vec());
        assert_eq!(world.delivered(1, 0), messages, "{shadow:?}");
        let fast = world.nodes[1].stats().fast_path;
        assert_eq!(fast.deliver_hit + fast.deliver_early + fast.deliver_miss, 4, "{shadow:?}: {fast:?}");
    }
}

#[test]
fn parked_frames_are_bounded_and_duplicates_of_them_harmless() {
    for shadow in [Shadow::Panic, Shadow::Off] {
        for most in [0, 1, 4] {
            let config = Config { early_frames_max: most, ..config(shadow) };
            let mut world = World::new(2, FIXED_STACK, &config);
            let messages = casts(&mut world, 0, 20);
            step(&mut world, 1, |mut frames| {
                let first = frames.remove(0);
                let copies = frames.clone();
                frames.extend(copies);
                frames.push(first.clone());
                frames.push(first);
                frames
            });
            world.steps(2000);
            assert_eq!(world.delivered(1, 0), messages, "{most}");
            let fast = world.nodes[1].stats().fast_path;
            let counted = fast.deliver_hit + fast.deliver_early + fast.deliver_miss;
            assert!(counted >= 40, "every frame that came is counted once: {fast:?}");
            assert!(counted <= 40 + world.nodes[0].counted("NAK", "retransmission"), "{fast:?}");
        }
    }
}

#[test]
fn a_copy_parked_twice_ends_once_as_early_and_once_as_a_duplicate() {
    let mut world = World::new(2, FIXED_STACK, &config(Shadow::Panic));
    let messages = casts(&mut world, 0, 2);
    step(&mut world, 1, |frames| vec![frames[1].clone(), frames[1].clone(), frames[0].clone()]);
    world.steps(500);
    assert_eq!(world.delivered(1, 0), messages);
    let fast = world.nodes[1].stats().fast_path;
    assert_eq!((fast.deliver_hit, fast.deliver_early, fast.deliver_miss), (1, 1, 1));
    assert_eq!(world.nodes[1].counted("NAK", "duplicate"), 1);
}

/// Leaves the group in the upcall of the first cast.
struct Leaver {
    casts: usize,
}

impl Application for Leaver {
    fn cast(&mut self, _: &Delivery<'_>, group: &mut Group<'_>) {
        self.casts += 1;
        group.leave();
    }
}

#[test]
fn an_application_may_leave_in_the_upcall_of_a_frame_that_was_parked_or_that_others_are_parked_behind() {
    for shadow in [Shadow::Panic, Shadow::Off] {
        // By which frame comes when: the first that is delivered is straight, or was parked itself.
        for order in [&[1usize, 0, 2][..], &[2, 1, 0], &[3, 2, 0, 1], &[2, 0, 1]] {
            let mut world = World::new(2, FIXED_STACK, &config(shadow));
            casts(&mut world, 0, order.len() as u8);
            let mut frames = Vec::new();
            world.nodes[1].transport.receive(1024, &mut |received| frames.push(received));
            let fast =
                |received: &Received| word(received.bytes(), 0).is_some_and(|first| first & FULL_FLAG == 0);
            frames.retain(fast);
            let mut leaver = Leaver { casts: 0 };
            let node = &mut world.nodes[1];
            for at in order {
                node.endpoint.receive(frames[*at].clone(), world.now, &mut leaver);
            }
            node.endpoint.poll(world.now, &mut leaver);
            assert_eq!(leaver.casts, 1, "nothing is delivered after one has left: {order:?}, {shadow:?}");
        }
    }
}
