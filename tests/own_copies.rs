//! Own casts come back up once, in order, whatever happens to what is retained of them meanwhile.

mod common;

use common::World;
use wadjet::{Config, Shadow};

const MODES: [(bool, Shadow); 3] = [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)];

/// A lone member's casts are stable at once: post-processing lets go of those cast in an upcall of the same iteration
/// before their copies have come up.
#[test]
fn a_copy_comes_up_though_its_cast_is_not_retained_any_more() {
    for members in [1, 2] {
        for (accelerate, shadow) in MODES {
            let config = Config { accelerate, shadow, post_batch_messages: 1, ..Config::default() };
            let mut world = World::new(members, "STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM", &config);
            let messages: Vec<Vec<u8>> = (0..50).map(|n| format!("message {n}").into_bytes()).collect();
            let answers = messages.windows(2).map(|pair| (pair[0].clone(), pair[1].clone()));
            world.nodes[0].log.answers = answers.collect();
            assert!(world.try_cast(0, &messages[0]).is_ok());
            let done = world
                .until(10_000, |world| world.nodes.iter().all(|node| node.log.casts.len() >= messages.len()));
            assert!(done, "{members} {accelerate} {shadow:?}");
            world.steps(2000);
            for node in 0..members {
                assert_eq!(world.delivered(node, 0), messages, "{members} {accelerate} {shadow:?}");
            }
            assert_eq!(world.nodes[0].stats().retained, 0, "{members} {accelerate} {shadow:?}");
        }
    }
}
