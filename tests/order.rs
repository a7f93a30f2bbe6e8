//! Accept and deliver as two steps (design D4), with a layer that releases casts only when all members hold them.

mod common;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use common::gate::{gate, sum};
use common::{Dice, World};
use wadjet::stack::registry::Registry;
use wadjet::{Config, Shadow};

const GATED: &str = "SUM:GATE:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
const LOW: &str = "STABLE:FC:UNICAST:SUM:GATE:LOCAL:NAK:CHKSUM:COM";
const TWO: &str = "SUM:GATE:STABLE:FC:UNICAST:GATE:LOCAL:NAK:CHKSUM:COM";

fn registry() -> Registry {
    Registry::standard().with(gate()).with(sum())
}

const MODES: [(bool, Shadow); 3] = [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)];

fn config(accelerate: bool, shadow: Shadow) -> Config {
    Config { accelerate, shadow, ..Config::default() }
}

fn numbered(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("message {n}").into_bytes()).collect()
}

/// All members cast `count` messages, `steps` steps apart; returns them.
fn traffic(world: &mut World, count: usize, steps: usize) -> Vec<Vec<u8>> {
    let messages = numbered(count);
    for message in &messages {
        for node in 0..world.nodes.len() {
            let mut waited = 0;
            while world.try_cast(node, message).is_err() {
                world.step();
                waited += 1;
                assert!(waited < 1_000_000, "there is room again some time");
            }
        }
        world.steps(steps);
    }
    messages
}

fn check(world: &mut World, messages: &[Vec<u8>], what: &str) {
    let members = world.nodes.len();
    let all = |world: &mut World| world.nodes.iter().all(|n| n.log.casts.len() >= members * messages.len());
    let done = world.until(600_000, all);
    let stats: Vec<_> = world.nodes.iter().map(|node| node.stats()).collect();
    assert!(done, "{what}: {stats:?}");
    let bytes: usize = messages.iter().map(Vec::len).sum();
    for node in 0..members {
        for origin in 0..members as u16 {
            assert_eq!(world.delivered(node, origin), messages, "{what} {node} {origin}");
        }
        let node = &mut world.nodes[node];
        let dump = node.endpoint.group(node.key).dump();
        let sums = dump.iter().find_map(|line| line.strip_prefix("SUM: ")).unwrap();
        for sum in sums.split(' ') {
            assert!(
                sum.parse::<usize>().unwrap() >= bytes,
                "{what}: {sum}; the headers of packs come on top"
            );
        }
    }
}

#[test]
fn gated_casts_arrive_in_order_on_the_fast_path() {
    for spec in [GATED, LOW, TWO] {
        for members in [1, 2, 3, 5] {
            for (accelerate, shadow) in MODES {
                let what = format!("{spec} {members} {accelerate} {shadow:?}");
                let mut world = World::with_registry(members, spec, &config(accelerate, shadow), &registry());
                let messages = traffic(&mut world, 200, 1);
                check(&mut world, &messages, &what);
                for node in &world.nodes {
                    let stats = node.stats();
                    if accelerate {
                        assert_eq!(stats.fast_path.deliver_miss, 0, "{what} {:?}", stats.misses);
                        assert_eq!(stats.fast_path.send_miss, 0, "{what} {:?}", stats.misses);
                    }
                }
            }
        }
    }
}

/// No member delivers a cast before every member has been handed it by its transport.
#[test]
fn no_cast_is_delivered_before_all_members_hold_it() {
    for (accelerate, shadow) in MODES {
        let config = Config { pack: false, ..config(accelerate, shadow) };
        let mut world = World::with_registry(3, GATED, &config, &registry());
        world.nodes[2].stopped = true;
        for n in 0..10u8 {
            world.cast(0, &[n]);
            world.cast(1, &[n]);
            world.steps(10);
        }
        world.steps(5000);
        for node in 0..2 {
            assert!(world.nodes[node].log.casts.is_empty(), "member 2 holds nothing yet");
        }
        world.nodes[2].stopped = false;
        world.steps(20_000);
        let expected: Vec<Vec<u8>> = (0..10u8).map(|n| vec![n]).collect();
        for node in 0..3 {
            for origin in 0..2 {
                assert_eq!(world.delivered(node, origin), expected, "{accelerate} {node}");
            }
        }
    }
}

#[test]
fn losses_mix_slow_and_fast_frames_in_the_queue_and_the_order_stays() {
    for spec in [GATED, LOW, TWO] {
        for (accelerate, shadow) in MODES {
            for seed in 0..4 {
                let config = Config { window_frames: 64, ..config(accelerate, shadow) };
                let mut world = World::with_registry(3, spec, &config, &registry());
                let mut dice = Dice(seed);
                world.lose = Box::new(move |_, _| dice.below(10) < 2);
                let messages = traffic(&mut world, 150, 2);
                check(&mut world, &messages, &format!("{spec} {accelerate} {shadow:?} {seed}"));
                if accelerate {
                    let fast = world.nodes[0].stats().fast_path;
                    assert!(fast.deliver_hit > 0 && fast.deliver_miss > 0, "{fast:?}");
                }
            }
        }
    }
}

/// With room for few waiting casts every member fills its queue with what others must accept first. The queue is
/// bounded per origin, so that the frames everybody waits for always find room.
#[test]
fn a_tiny_order_queue_drops_and_repairs_but_never_locks() {
    for spec in [GATED, LOW] {
        for (accelerate, shadow) in MODES {
            for most in [1, 2, 3, 5] {
                for lost in [0, 2] {
                    let config = Config {
                        order_frames_max: most,
                        window_frames: 16,
                        pack: false,
                        ..config(accelerate, shadow)
                    };
                    let mut world = World::with_registry(3, spec, &config, &registry());
                    let mut dice = Dice(most as u64);
                    world.lose = Box::new(move |_, _| dice.below(10) < lost);
                    let messages = traffic(&mut world, 40, 0);
                    let what = format!("{spec} {accelerate} {shadow:?} order_frames_max {most} lost {lost}");
                    check(&mut world, &messages, &what);
                    if most == 1 {
                        let dropped: u64 = world
                            .nodes
                            .iter()
                            .map(|n| n.counted("stack", "cast dropped: order queue full"))
                            .sum();
                        assert!(dropped > 0, "{what}: the limit was reached");
                    }
                }
            }
        }
    }
}

#[test]
fn frames_kept_waiting_are_given_back() {
    let config = Config { window_frames: 16, ..Config::default() };
    let mut world = World::with_registry(3, GATED, &config, &registry());
    let messages = traffic(&mut world, 300, 1);
    check(&mut world, &messages, "frames");
    world.steps(5000);
    for node in &world.nodes {
        assert_eq!(node.stats().retained, 0);
        assert_eq!(node.stats().unacknowledged, 0);
    }
}

/// One seed gives the same deliveries with and without acceleration, losses and all.
#[test]
fn acceleration_changes_no_delivery() {
    let run = |accelerate| {
        let mut world = World::with_registry(3, GATED, &config(accelerate, Shadow::Off), &registry());
        let dice = Rc::new(RefCell::new(Dice(5)));
        world.lose = Box::new(move |_, _| dice.borrow_mut().below(10) < 1);
        let messages = traffic(&mut world, 100, 3);
        check(&mut world, &messages, "same");
        let mut per_origin: HashMap<(usize, u16), Vec<Vec<u8>>> = HashMap::new();
        for (n, node) in world.nodes.iter().enumerate() {
            for (origin, message) in &node.log.casts {
                per_origin.entry((n, *origin)).or_default().push(message.clone());
            }
        }
        per_origin
    };
    assert_eq!(run(true), run(false));
}

/// The deliver step runs later than the shadow's comparison of the accept step; it is compared when it runs.
#[test]
fn a_wrong_effect_above_the_gate_is_caught_when_the_cast_is_released() {
    let divergences = |spec: &str| {
        let mut world = World::with_registry(3, spec, &config(true, Shadow::Record), &registry());
        traffic(&mut world, 20, 5);
        world.steps(2000);
        world.nodes.iter().map(|node| node.endpoint.divergences(node.key).len()).sum::<usize>()
    };
    assert_eq!(divergences(GATED), 0);
    assert!(divergences("SUM(fast=wrong):GATE:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM") > 0);
}
