//! Counters that wrap on the wire, and views and windows at their smallest.

mod common;

use common::{Dice, World};
use wadjet::layers::FIXED_STACK;
use wadjet::{Config, Shadow};

/// Short gossip is 16 bits wide: everything goes on when frame numbers pass its wraps, with losses and without.
#[test]
fn gossip_goes_on_across_the_wraps_of_its_short_form() {
    for (window, lost) in [(16, 0), (1000, 0), (64, 1)] {
        let config = Config { window_frames: window, pack: false, shadow: Shadow::Off, ..Config::default() };
        let mut world = World::new(3, FIXED_STACK, &config);
        let mut dice = Dice(window);
        world.lose = Box::new(move |_, _| dice.below(1000) < lost);
        let total = 140_000u32;
        let mut next = [0u32; 3];
        let mut checked = [[0u32; 3]; 3];
        let mut steps = 0;
        while checked.iter().any(|of| of[0] < total || of[1] < total / 10) {
            steps += 1;
            assert!(steps < 3_000_000, "{window} {lost}: {checked:?} {:?}", world.nodes[0].stats());
            // Member 0 casts as fast as it may, member 1 a tenth of it, member 2 never.
            for (node, most) in [(0, total), (1, (next[0] / 10 + 1).min(total / 10))] {
                while next[node] < most && world.try_cast(node, &next[node].to_le_bytes()).is_ok() {
                    next[node] += 1;
                }
            }
            world.step();
            for (n, node) in world.nodes.iter_mut().enumerate() {
                for (origin, message) in node.log.casts.drain(..) {
                    let number = u32::from_le_bytes(message[..].try_into().unwrap());
                    let expected = &mut checked[n][usize::from(origin)];
                    assert_eq!(number, *expected, "{window} {lost}: member {n} of origin {origin}");
                    *expected += 1;
                }
            }
        }
        world.steps(200_000);
        for node in &mut world.nodes {
            let stability = node.endpoint.group(node.key).stability();
            for row in &stability.held {
                assert_eq!(row[0], u64::from(total), "nobody is thought to hold more than there is, or less");
                assert_eq!(row[1], u64::from(total / 10));
            }
            assert_eq!(node.stats().retained, 0);
            if lost == 0 {
                assert_eq!(node.stats().fast_path.deliver_miss, 0, "{:?}", node.stats().misses);
            }
        }
    }
}

/// A view of one member: it delivers its own casts, retains nothing, sends nothing.
#[test]
fn a_member_alone_casts_to_itself() {
    for (accelerate, shadow) in [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)] {
        for window in [1, 4, 1024] {
            let config =
                Config { accelerate, shadow, window_frames: window, pack: false, ..Config::default() };
            let mut world = World::new(1, FIXED_STACK, &config);
            world.record = true;
            let messages: Vec<Vec<u8>> = (0..500u32).map(|n| n.to_le_bytes().to_vec()).collect();
            for message in &messages {
                let mut steps = 0;
                while world.try_cast(0, message).is_err() {
                    world.step();
                    steps += 1;
                    assert!(steps < 1000);
                }
            }
            world.steps(2000);
            assert_eq!(world.delivered(0, 0), messages, "{accelerate} {window}");
            assert!(world.nodes[0].sent.is_empty());
            let stats = world.nodes[0].stats();
            assert_eq!((stats.retained, stats.unacknowledged, stats.waiting), (0, 0, 0));
            let node = &mut world.nodes[0];
            assert_eq!(node.endpoint.group(node.key).slowest(), None);
        }
    }
}

/// Everything a quiet group has to say is said, and then it is silent: no timer, no frame.
#[test]
fn a_quiet_group_is_silent() {
    for (accelerate, shadow) in [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)] {
        for members in [1, 2, 5] {
            let config = Config { accelerate, shadow, ..Config::default() };
            let mut world = World::new(members, FIXED_STACK, &config);
            for n in 0..50u8 {
                for node in 0..members {
                    world.cast(node, &[n]);
                }
                world.step();
            }
            world.steps(20_000);
            world.record = true;
            world.steps(20_000);
            for node in &world.nodes {
                assert!(node.sent.is_empty(), "{members} {accelerate}: {} frames", node.sent.len());
                assert!(node.endpoint.deadline() > world.now, "{members} {accelerate}");
            }
        }
    }
}
