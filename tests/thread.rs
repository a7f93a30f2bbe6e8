//! The thread from application through stack and plans onto a transport and back, over memory, with the shadow on.

mod common;

use common::World;
use wadjet::layers::{FIXED_STACK, FIXED_STACK_WITH_INTEGRITY};
use wadjet::{Config, Rank, RankSet};

fn numbered(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("message {n}").into_bytes()).collect()
}

#[test]
fn casts_arrive_everywhere_in_order_own_copies_included() {
    for spec in [
        FIXED_STACK,
        FIXED_STACK_WITH_INTEGRITY,
        "NAK:COM",
        "CHK_FIFO:COUNT:TRACE:STABLE:FC:UNICAST:LOCAL:CHK_FIFO(wire=yes):NAK:CHKSUM:COM",
    ] {
        for accelerate in [true, false] {
            let config = Config { accelerate, ..Config::default() };
            let mut world = World::new(3, spec, &config);
            let messages = numbered(300);
            for message in &messages {
                for node in 0..3 {
                    world.cast(node, message);
                }
                world.step();
            }
            world.steps(2000);
            for node in 0..3 {
                for origin in 0..3 {
                    if node == usize::from(origin) && !spec.contains("LOCAL") {
                        continue;
                    }
                    assert_eq!(
                        world.delivered(node, origin),
                        messages,
                        "{spec} {accelerate} {node} {origin}"
                    );
                }
                let stats = world.nodes[node].endpoint.stats(world.nodes[node].key);
                assert_eq!(stats.unacknowledged, 0, "{spec} {:?}", stats);
                assert_eq!(stats.retained, 0, "{spec} {:?}", stats);
                if accelerate {
                    assert_eq!(stats.fast_path.send_miss, 0, "{:?}", stats.misses);
                    assert_eq!(stats.fast_path.deliver_miss, 0, "{:?}", stats.misses);
                }
            }
        }
    }
}

#[test]
fn a_third_of_all_frames_lost_and_yet_everything_arrives() {
    for accelerate in [true, false] {
        let config = Config { accelerate, ..Config::default() };
        let mut world = World::new(3, FIXED_STACK, &config);
        let mut state = 12345u64;
        world.lose = Box::new(move |_, _| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33).is_multiple_of(3)
        });
        let messages = numbered(200);
        for message in &messages {
            for node in 0..3 {
                world.cast(node, message);
                // Refused while too much is unacknowledged: then it is sent again.
                let first = RankSet::one(Rank(0));
                let mut send = |world: &mut World| {
                    let node = &mut world.nodes[node];
                    node.endpoint.group(node.key).send(&first, message).is_ok()
                };
                assert!(world.until(100_000, &mut send));
            }
            world.step();
        }
        world.steps(60_000);
        for node in 0..3 {
            for origin in 0..3 {
                assert_eq!(world.delivered(node, origin), messages, "{accelerate} {node} {origin}");
            }
            let stats = world.nodes[node].endpoint.stats(world.nodes[node].key);
            assert_eq!(stats.retained, 0, "{stats:?}");
        }
        for origin in 0..3 {
            let sent = world.nodes[0].log.sends.iter().filter(|(from, _)| *from == origin);
            assert!(sent.map(|(_, message)| message).eq(&messages), "{accelerate} sends of {origin}");
        }
        assert!(world.nodes[1].log.sends.is_empty());
    }
}

#[test]
fn a_cast_from_inside_an_upcall_goes_out_at_once() {
    let mut world = World::new(2, FIXED_STACK, &Config::default());
    world.nodes[1].log.answers = vec![(b"ping".to_vec(), b"pong".to_vec())];
    world.cast(0, b"ping");
    world.steps(3);
    assert_eq!(world.delivered(0, 1), [b"pong"]);
    assert_eq!(world.delivered(1, 1), [b"pong"]);
}

#[test]
fn a_reservation_is_written_in_place_and_given_up_without_a_trace() {
    let mut world = World::new(2, FIXED_STACK, &Config::default());
    let node = &mut world.nodes[0];
    let mut group = node.endpoint.group(node.key);
    let mut reservation = group.reserve(5).unwrap();
    reservation.copy_from_slice(b"given");
    drop(reservation);
    let mut reservation = group.reserve(4).unwrap();
    reservation.copy_from_slice(b"kept");
    reservation.commit();
    world.steps(3);
    assert_eq!(world.delivered(1, 0), [b"kept"]);
}

#[test]
fn messages_of_one_iteration_share_a_frame_and_come_as_a_list() {
    let mut world = World::new(2, FIXED_STACK, &Config::default());
    let messages = numbered(50);
    for message in &messages {
        world.cast(0, message);
    }
    world.steps(3);
    assert_eq!(world.delivered(1, 0), messages);
    assert_eq!(world.nodes[1].log.lists, 2, "the first went alone, the rest were packed");
}

#[test]
fn a_pack_does_not_wait_for_ever_on_a_way_that_stays_busy() {
    let config = Config { pack_delay: std::time::Duration::from_micros(25), ..Config::default() };
    let mut world = World::new(2, FIXED_STACK, &config);
    world.step();
    let channel = world.nodes[0].channel;
    world.nodes[0].endpoint.set_busy(channel, true);
    world.cast(0, b"packed");
    assert!(world.nodes[0].endpoint.deadline() > world.now, "there is nothing to do yet");
    world.steps(2);
    assert!(world.delivered(1, 0).is_empty(), "the way is busy: the pack stays open");
    world.steps(3);
    assert_eq!(world.delivered(1, 0), [b"packed"]);
}

/// Message fields (checksums, lengths) depend on each other: every stack computes them from the top down, and own copies
/// carry those of the layers above the one that loops them.
#[test]
fn checksums_may_stand_anywhere_and_more_than_once() {
    for spec in [
        "CHKSUM:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
        "CHKSUM:LOCAL:CHKSUM:NAK:CHKSUM:COM",
        "CHKSUM:CHKSUM:NAK:COM",
    ] {
        for accelerate in [true, false] {
            let config = Config { accelerate, ..Config::default() };
            let mut world = World::new(3, spec, &config);
            let mut count = 0;
            world.lose = Box::new(move |_, _| {
                count += 1;
                count % 5 == 0
            });
            let messages = numbered(50);
            for message in &messages {
                for node in 0..3 {
                    world.cast(node, message);
                }
                world.step();
            }
            world.steps(20_000);
            for node in 0..3 {
                for origin in (0..3).filter(|origin| spec.contains("LOCAL") || node != usize::from(*origin)) {
                    assert_eq!(
                        world.delivered(node, origin),
                        messages,
                        "{spec} {accelerate} {node} {origin}"
                    );
                }
                assert_eq!(world.nodes[node].counted("CHKSUM", "damaged message"), 0, "{spec} {accelerate}");
            }
        }
    }
}
