//! Total order by turns: the same order everywhere, at the cost of FIFO for a lone sender.

mod common;

use common::{Dice, World};
use wadjet::{Config, Shadow};

const TOTAL: &str = "TOTAL:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
const MODES: [(bool, Shadow); 3] = [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)];

fn config(accelerate: bool, shadow: Shadow) -> Config {
    Config { accelerate, shadow, ..Config::default() }
}

/// The members in `casting` cast `count` messages each, `steps` steps apart.
fn traffic(world: &mut World, casting: &[usize], count: usize, steps: usize) {
    for n in 0..count {
        for &node in casting {
            let message = format!("{n} of {node}").into_bytes();
            let mut waited = 0;
            while world.try_cast(node, &message).is_err() {
                world.step();
                waited += 1;
                assert!(waited < 1_000_000, "there is room again some time");
            }
        }
        world.steps(steps);
    }
}

/// Everybody delivers everything, in one order.
fn check(world: &mut World, casting: &[usize], count: usize, what: &str) {
    let all = |world: &mut World| world.nodes.iter().all(|n| n.log.casts.len() >= casting.len() * count);
    let done = world.until(600_000, all);
    let stats: Vec<_> = world.nodes.iter().map(|node| node.stats()).collect();
    assert!(done, "{what}: {stats:?}");
    for node in 1..world.nodes.len() {
        assert!(world.nodes[0].log.casts == world.nodes[node].log.casts, "{what}: {node} has another order");
    }
    for &origin in casting {
        let expected: Vec<_> = (0..count).map(|n| format!("{n} of {origin}").into_bytes()).collect();
        assert!(world.delivered(0, origin as u16) == expected, "{what}: casts of {origin}");
    }
}

#[test]
fn all_members_deliver_all_casts_in_one_order() {
    for members in [1, 2, 3, 5] {
        for steps in [0, 1, 7, 40] {
            for (accelerate, shadow) in MODES {
                let what = format!("{members} members, {steps} steps apart, {accelerate} {shadow:?}");
                let mut world = World::new(members, TOTAL, &config(accelerate, shadow));
                let casting: Vec<usize> = (0..members).collect();
                traffic(&mut world, &casting, 100, steps);
                check(&mut world, &casting, 100, &what);
            }
        }
    }
}

#[test]
fn losses_change_nothing_about_it() {
    for (accelerate, shadow) in MODES {
        for seed in 0..6 {
            let config = Config { window_frames: 64, ..config(accelerate, shadow) };
            let mut world = World::new(3, TOTAL, &config);
            let mut dice = Dice(seed);
            world.lose = Box::new(move |_, _| dice.below(10) < 2);
            traffic(&mut world, &[0, 1, 2], 120, 2);
            check(&mut world, &[0, 1, 2], 120, &format!("{accelerate} {shadow:?} {seed}"));
        }
    }
}

/// A lone sender, the first or another, never waits for a turn once it has it, and takes the plans throughout.
#[test]
fn a_lone_sender_keeps_the_turn() {
    for sender in 0..3 {
        let mut world = World::new(3, TOTAL, &config(true, Shadow::Panic));
        traffic(&mut world, &[sender], 500, 1);
        check(&mut world, &[sender], 500, "lone");
        world.steps(100);
        let casts = |world: &World| world.nodes[sender].stats().cast_frames;
        let before = casts(&world);
        traffic(&mut world, &[sender], 500, 1);
        assert!(world.until(10_000, |world| world.nodes.iter().all(|node| node.log.casts.len() == 1000)));
        assert_eq!(casts(&world) - before, 500, "each left at once");
        let stats = world.nodes[sender].stats();
        assert_eq!(stats.fast_path.send_miss, 0, "{:?}", stats.misses);
        for node in &world.nodes {
            let fast = node.stats().fast_path;
            assert!(fast.deliver_miss < 20, "only what came with the first turn: {:?}", node.stats().misses);
            assert!(node.counted("TOTAL", "turns passed on") < 20);
        }
    }
}

/// Two that answer each other hand the turn to and fro with their casts alone.
#[test]
fn those_who_answer_each_other_pass_the_turn_with_their_casts() {
    let mut world = World::new(2, TOTAL, &config(true, Shadow::Panic));
    for (node, from, to) in [(0, 'b', 'a'), (1, 'a', 'b')] {
        world.nodes[node].log.answers = (0..200)
            .map(|n| {
                let next = if node == 0 { n + 1 } else { n };
                (format!("{from}{n}").into_bytes(), format!("{to}{next}").into_bytes())
            })
            .collect();
    }
    world.cast(0, b"a0");
    assert!(world.until(20_000, |world| world.nodes[0].log.casts.len() >= 401), "they go on");
    let passed: u64 = world.nodes.iter().map(|node| node.counted("TOTAL", "turns passed on")).sum();
    assert!(passed < 10, "{passed} casts without content");
    for node in &world.nodes {
        let stats = node.stats();
        assert!(stats.fast_path.send_miss == 0, "{:?}", stats.misses);
        assert!(stats.fast_path.deliver_miss < 10, "{:?}", stats.misses);
    }
    assert_eq!(world.nodes[0].log.casts, world.nodes[1].log.casts);
}

/// Nobody talks when nobody has anything to say.
#[test]
fn a_quiet_group_is_silent() {
    let mut world = World::new(4, TOTAL, &config(true, Shadow::Panic));
    traffic(&mut world, &[0, 1, 2, 3], 20, 3);
    check(&mut world, &[0, 1, 2, 3], 20, "before");
    world.steps(20_000);
    world.record = true;
    world.steps(20_000);
    for node in &world.nodes {
        assert_eq!(node.sent.len(), 0);
        let stats = node.stats();
        assert_eq!((stats.retained, stats.unacknowledged, stats.waiting), (0, 0, 0));
    }
}
