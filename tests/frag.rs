//! Messages larger than a frame: whole, once, in order, at the place of their last frame; and nothing else changes.

mod common;

use common::{Dice, World, gate};
use wadjet::group::HeldFor;
use wadjet::layers::FIXED_STACK;
use wadjet::stack::explain::explain;
use wadjet::stack::registry::Registry;
use wadjet::{CastError, Config, Event, Group, Rank, RankSet, SendError};

const STACK: &str = "FRAG:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";

fn small_frames() -> Config {
    Config { frame_bytes_max: 1400, ..Config::default() }
}

/// `length` bytes that no other message has.
fn message(origin: usize, index: usize, length: usize) -> Vec<u8> {
    let mut dice = Dice((origin as u64) << 32 | index as u64);
    let mut bytes = vec![0; length];
    bytes.iter_mut().for_each(|byte| *byte = dice.below(256) as u8);
    bytes
}

fn group(world: &mut World, node: usize) -> Group<'_> {
    let node = &mut world.nodes[node];
    node.endpoint.group(node.key)
}

fn stepped_until(world: &mut World, done: impl FnMut(&mut World) -> bool) {
    assert!(world.until(200_000, done), "it never comes to an end");
}

fn problems(world: &World, node: usize) -> Vec<String> {
    let events = world.nodes[node].log.events.iter();
    events
        .filter_map(|event| match event {
            Event::Problem(problem) if problem.layer == "FRAG" => Some(problem.what.to_string()),
            _ => None,
        })
        .collect()
}

#[test]
fn sixteen_mebibytes_arrive_whole_in_frames_of_1400_bytes() {
    let config = Config { shadow: wadjet::Shadow::Off, ..small_frames() };
    let mut world = World::new(3, STACK, &config);
    let group = group(&mut world, 0);
    assert_eq!((group.message_bytes_max(), group.send_bytes_max()), (16 << 20, 16 << 20));
    assert!(group.reserve_bytes_max() < 1400);
    let large = message(0, 0, 16 << 20);
    world.cast(0, &large);
    world.cast(0, b"behind");
    stepped_until(&mut world, |world| (0..3).all(|node| world.nodes[node].log.casts.len() == 2));
    for node in 0..3 {
        let delivered = world.delivered(node, 0);
        assert!(delivered[0] == large, "the same bytes at {node}");
        assert_eq!(delivered[1], b"behind");
    }
    let stats = world.nodes[0].stats();
    assert!(stats.cast_frames > (16 << 20) / 1400, "{}", stats.cast_frames);
}

/// Casts and sends of all sizes by two members at once, over a network that loses every third frame.
#[test]
fn two_origins_at_once_under_loss_keep_their_order() {
    for accelerate in [true, false] {
        let mut world = World::new(3, STACK, &Config { accelerate, window_frames: 64, ..small_frames() });
        let mut dice = Dice(7);
        world.lose = Box::new(move |_, _| dice.below(10) < 3);
        let mut dice = Dice(11);
        let mut casts: [Vec<Vec<u8>>; 2] = Default::default();
        let mut sends: [Vec<Vec<u8>>; 2] = Default::default();
        for round in 0..60 {
            for origin in 0..2 {
                let length = if dice.below(3) == 0 { dice.below(40_000) } else { dice.below(200) } as usize;
                let message = message(origin, round, length);
                let to = [RankSet::one(Rank(2)), RankSet::all(3)][usize::from(dice.below(2) == 0)];
                if dice.below(3) == 0 {
                    stepped_until(&mut world, |world| group(world, origin).send(&to, &message).is_ok());
                    sends[origin].push(message);
                } else {
                    stepped_until(&mut world, |world| world.try_cast(origin, &message).is_ok());
                    casts[origin].push(message);
                }
            }
        }
        let of = |messages: &[(u16, Vec<u8>)], origin: u16| -> Vec<Vec<u8>> {
            messages.iter().filter(|(from, _)| *from == origin).map(|(_, bytes)| bytes.clone()).collect()
        };
        let all = casts[0].len() + casts[1].len();
        let sent = sends[0].len() + sends[1].len();
        stepped_until(&mut world, |world| {
            world.nodes.iter().all(|node| node.log.casts.len() >= all)
                && world.nodes[2].log.sends.len() >= sent
        });
        for origin in 0..2 {
            for node in &world.nodes {
                assert!(of(&node.log.casts, origin) == casts[usize::from(origin)], "casts of {origin}");
            }
            assert!(of(&world.nodes[2].log.sends, origin) == sends[usize::from(origin)], "sends of {origin}");
        }
        assert!((0..3).all(|node| problems(&world, node).is_empty()));
    }
}

/// FRAG anywhere above what it needs, below and above layers that look at every frame.
#[test]
fn it_stands_anywhere_above_nak_and_unicast() {
    let registry = Registry::standard().with(gate::gate());
    let stacks = [
        "FRAG:UNICAST:NAK:COM",
        "FRAG:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
        "STABLE:FC:FRAG:UNICAST:LOCAL:NAK:CHKSUM:COM",
        "STABLE:FC:LOCAL:FRAG:NAK:UNICAST:CHKSUM:COM",
        "CHKSUM:CHK_FIFO:COUNT:CHK_FIFO(wire=yes):FRAG:CHK_FIFO:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
        "GATE:STABLE:FRAG:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
        "FRAG:GATE:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
        "TRACE(fast=no):FRAG:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
    ];
    for spec in stacks {
        let mut world = World::with_registry(3, spec, &small_frames(), &registry);
        let mut dice = Dice(3);
        world.lose = Box::new(move |_, _| dice.below(10) == 0);
        let messages: Vec<Vec<u8>> =
            (0..30).map(|index| message(0, index, [10, 9_000, 0, 1_300, 2_000][index % 5])).collect();
        for message in &messages {
            stepped_until(&mut world, |world| world.try_cast(0, message).is_ok());
        }
        let own = usize::from(!spec.contains("LOCAL"));
        stepped_until(&mut world, |world| {
            world.nodes[own..].iter().all(|node| node.log.casts.len() >= messages.len())
        });
        for node in own..3 {
            assert!(world.delivered(node, 0) == messages, "{spec} at {node}");
            // That a stack with a layer that traces everything has no fast path is said.
            let problems = problems(&world, node);
            assert!(
                problems.iter().all(|problem| problem.starts_with("no fast path")),
                "{spec}: {problems:?}"
            );
        }
    }
}

#[test]
fn a_message_is_named_by_its_last_frame_and_parts_are_seen_when_held() {
    let config = Config { pack: false, ..small_frames() };
    let mut world = World::new(2, STACK, &config);
    let room = group(&mut world, 0).reserve_bytes_max();
    world.nodes[1].log.ack = true;
    world.cast(0, b"frame 0");
    world.cast(0, &vec![1; 3 * room]);
    world.cast(0, &vec![2; room + 1]);
    stepped_until(&mut world, |world| world.nodes[1].log.casts.len() == 3);
    world.steps(2000);
    let stability = group(&mut world, 0).stability();
    // Frames 0; 1, 2, 3; 4, 5. Nobody acknowledged anything at 0, where frame 0 is the first.
    assert_eq!((stability.seen[1][0], stability.held[1][0]), (6, 6));
    assert_eq!(stability.seen[0][0], 0);

    // Frames without a message at the end of what is acknowledged count as seen, those before what is not do not.
    let mut world = World::new(2, STACK, &config);
    let limit = 4 * room;
    let mut world_small = World::new(2, STACK, &Config { message_bytes_max: limit, ..config.clone() });
    for world in [&mut world, &mut world_small] {
        world.nodes[1].log.ack = true;
    }
    // What a sender with a larger limit casts, the receiver with the smaller one refuses: five frames of nothing.
    world.record = true;
    world.cast(0, b"frame 0");
    (0..3).for_each(|_| world.cast(0, &vec![3; limit + 1]));
    stepped_until(&mut world, |world| world.nodes[1].log.casts.len() == 4);
    for frame in world.nodes[0].sent.clone() {
        world_small.inject(1, &frame);
    }
    world_small.steps(2000);
    assert_eq!(world_small.nodes[1].log.casts.len(), 1);
    let stability = group(&mut world_small, 1).stability();
    assert_eq!((stability.seen[1][0], stability.held[1][0]), (16, 16));
    // Each is counted; the application is not told of a hundred in a moment.
    assert_eq!(problems(&world_small, 1), ["message beyond the limit"]);
    assert_eq!(world_small.nodes[1].counted("FRAG", "message beyond the limit"), 3);
}

#[test]
fn limits_are_typed_errors_and_nothing_is_lost_at_them() {
    let config =
        Config { message_bytes_max: 50_000, waiting_bytes_max: 60_000, window_frames: 8, ..small_frames() };
    let mut world = World::new(2, STACK, &config);
    let too_long = CastError::TooLong { length: 50_001, max: 50_000 };
    assert_eq!(world.try_cast(0, &[0; 50_001]), Err(too_long));
    let mut member = group(&mut world, 0);
    let max = member.reserve_bytes_max();
    assert_eq!(member.reserve(max + 1).err(), Some(CastError::BeyondFrame { length: max + 1, max }));
    assert_eq!(member.reserve(50_001).err(), Some(too_long));
    let to = RankSet::one(Rank(1));
    assert_eq!(member.send(&to, &[0; 50_001]), Err(SendError::TooLong { length: 50_001, max: 50_000 }));
    assert_eq!(member.send(&RankSet::one(Rank(2)), &[0; 40_000]), Err(SendError::NotAMember(Rank(2))));
    // One waits, the second would be too much; small ones are taken meanwhile, and come after it.
    let first = message(0, 1, 50_000);
    world.cast(0, &first);
    assert!(matches!(world.try_cast(0, &[0; 40_000]), Err(CastError::Full { .. })));
    world.cast(0, b"small");
    let writable = |world: &mut World| world.nodes[0].log.events.iter().any(|e| matches!(e, Event::Writable));
    stepped_until(&mut world, writable);
    world.cast(0, &message(0, 2, 40_000));
    stepped_until(&mut world, |world| world.nodes[1].log.casts.len() == 3);
    assert!(world.delivered(1, 0) == [&first[..], b"small", &message(0, 2, 40_000)]);

    // Sends to a member to which a large one is under way are refused until it has left; to others they are not.
    let mut world = World::new(3, STACK, &config);
    let send =
        |world: &mut World, to: u16, bytes: &[u8]| group(world, 0).send(&RankSet::one(Rank(to)), bytes);
    send(&mut world, 1, &first).unwrap();
    assert_eq!(
        send(&mut world, 1, b"behind"),
        Err(SendError::Full { to: Rank(1), why: HeldFor::Acknowledgements })
    );
    send(&mut world, 2, b"aside").unwrap();
    stepped_until(&mut world, writable);
    send(&mut world, 1, b"behind").unwrap();
    stepped_until(&mut world, |world| world.nodes[1].log.sends.len() == 2);
    assert!(world.nodes[1].log.sends[0].1 == first && world.nodes[1].log.sends[1].1 == b"behind");
    assert_eq!(world.nodes[2].log.sends, [(0, b"aside".to_vec())]);

    // The frame numbers of a view: a message that would not get all of its own is not begun.
    let mut world = World::new(2, STACK, &Config { frame_number_limit: 20, ..config });
    let max = group(&mut world, 0).message_bytes_max();
    assert_eq!(world.try_cast(0, &[0; 40_000]), Err(CastError::TooLong { length: 40_000, max }));
    world.cast(0, &[5; 20_000]);
    assert_eq!(world.try_cast(0, &[0; 10_000]), Err(CastError::NumberLimit));
    stepped_until(&mut world, |world| world.nodes[1].log.casts.len() == 1);
}

#[test]
fn a_layer_parameter_lowers_the_limit_and_without_frag_nothing_changes() {
    let spec = STACK.replace("FRAG", "FRAG(bytes=3000)");
    let mut world = World::new(2, &spec, &small_frames());
    assert_eq!(world.try_cast(0, &[0; 3001]), Err(CastError::TooLong { length: 3001, max: 3000 }));
    world.cast(0, &[1; 3000]);
    stepped_until(&mut world, |world| world.nodes[1].log.casts.len() == 1);

    let mut world = World::new(2, FIXED_STACK, &small_frames());
    let mut member = group(&mut world, 0);
    let max = member.message_bytes_max();
    assert_eq!(member.reserve_bytes_max(), max);
    assert_eq!(member.cast_buffer(vec![0; max + 1]), Err(CastError::TooLong { length: max + 1, max }));
    assert_eq!(member.reserve(max + 1).err(), Some(CastError::TooLong { length: max + 1, max }));
}

#[test]
fn a_buffer_is_cast_as_it_is() {
    let mut world = World::new(2, STACK, &small_frames());
    let messages = [message(0, 0, 30_000), message(0, 1, 30), message(0, 2, 2_000)];
    for message in &messages {
        group(&mut world, 0).cast_buffer(message.clone()).unwrap();
    }
    stepped_until(&mut world, |world| world.nodes[1].log.casts.len() == 3);
    assert!(world.delivered(1, 0) == messages);
}

/// A member that leaves, or a view that ends, in the middle of a message leaves nothing behind.
#[test]
fn a_message_cut_short_is_not_delivered_and_does_not_hold_what_follows() {
    // Two members that are told apart by nothing: the frames of one are given to the other, some left out.
    let spec = "FRAG:UNICAST:LOCAL:NAK:COM";
    let mut recorded = World::new(2, spec, &Config { pack: false, ..small_frames() });
    recorded.record = true;
    recorded.cast(0, &message(0, 0, 5_000));
    recorded.cast(0, b"small");
    recorded.cast(0, &message(0, 1, 3_000));
    stepped_until(&mut recorded, |world| world.nodes[1].log.casts.len() == 3);
    let frames: Vec<Vec<u8>> =
        recorded.nodes[0].sent.iter().filter(|frame| frame.len() > 200).cloned().collect();
    assert_eq!(frames.len(), 4 + 3);
    // The field area of a full header begins at byte 48: NAK's number (40 bits), then FRAG's `first` and `left`.
    let renumbered = |frame: &[u8], number: u64| {
        let mut frame = frame.to_vec();
        frame[48..53].copy_from_slice(&number.to_le_bytes()[..5]);
        frame
    };
    let cases: [(&[usize], &[usize], &[&str]); 5] = [
        // The beginning of one, and then another.
        (&[0, 1, 4, 5, 6], &[1], &["message cut short by another"]),
        // One without its beginning.
        (&[1, 2, 3, 4, 5, 6], &[1], &["fragment out of place"]),
        // One without its middle.
        (&[0, 2, 3, 4, 5, 6], &[1], &["fragment out of place"]),
        // One twice over.
        (&[0, 0, 1, 2, 3], &[0], &["message cut short by another"]),
        (&[0, 1, 2, 3, 3, 4, 5, 6], &[0, 1], &["fragment out of place"]),
    ];
    for (order, delivered, complaints) in cases {
        let mut world = World::new(2, spec, &small_frames());
        for (number, frame) in order.iter().enumerate() {
            world.inject(1, &renumbered(&frames[*frame], number as u64));
        }
        let whole: Vec<Vec<u8>> = delivered.iter().map(|at| message(0, *at, [5_000, 3_000][*at])).collect();
        assert!(world.delivered(1, 0) == whole, "{order:?}");
        assert_eq!(problems(&world, 1), complaints, "{order:?}");
    }
}

#[test]
fn it_adds_nothing_to_a_compressed_header_and_nothing_to_a_plan() {
    let registry = Registry::standard();
    let [with, without] = [STACK, FIXED_STACK].map(|spec| explain(&registry, spec, 3, false).unwrap());
    for (with, without) in with.headers.iter().zip(&without.headers) {
        assert_eq!(with.compressed_bytes, without.compressed_bytes);
    }
    for (with, without) in with.plans.iter().zip(&without.plans) {
        assert_eq!((with.kind, with.steps), (without.kind, without.steps));
        assert_eq!(with.listing.is_ok(), without.listing.is_ok());
    }
    let text = with.to_string();
    assert!(text.contains("FRAG.left") && text.contains("zero, or the header is full"), "{text}");
    let twice = explain(&registry, &format!("FRAG:{STACK}"), 3, false).unwrap_err().to_string();
    assert!(twice.contains("P12"), "{twice}");
}

#[test]
fn ordinary_messages_take_the_plan_before_and_after_a_large_one() {
    let config = Config { pack: false, ..small_frames() };
    let mut world = World::new(2, STACK, &config);
    let small = |world: &mut World| {
        for _ in 0..20 {
            world.cast(0, b"small");
            world.step();
        }
        world.steps(20);
    };
    small(&mut world);
    assert_eq!(world.nodes[1].stats().fast_path.deliver_miss, 0);
    world.cast(0, &[1; 20_000]);
    world.steps(200);
    let after = world.nodes[1].stats().fast_path;
    small(&mut world);
    let end = world.nodes[1].stats().fast_path;
    assert_eq!((end.deliver_hit - after.deliver_hit, end.deliver_miss), (20, after.deliver_miss));
}

/// Everything at once behind a large cast: packs, reservations given up, another large one; all in order, and what is
/// small does not take the frames that the large one needs.
#[test]
fn small_casts_behind_a_large_one_are_packed_and_wait() {
    for (window_frames, waiting_frames_max) in [(1, 4), (8, 4), (64, 64)] {
        let config = Config { window_frames, waiting_frames_max, ..small_frames() };
        let mut world = World::new(2, STACK, &config);
        let mut taken = Vec::new();
        let mut dice = Dice(window_frames);
        for index in 0..200 {
            let length = if index % 40 == 0 { 9_000 } else { dice.below(300) as usize };
            let message = message(0, index, length);
            let mut member = group(&mut world, 0);
            if dice.below(8) == 0 {
                drop(member.reserve(100));
            }
            let cast = if dice.below(2) == 0 || length > 300 {
                member.cast(&message).map(drop)
            } else {
                member.reserve(length).map(|mut reservation| {
                    reservation.copy_from_slice(&message);
                    reservation.commit();
                })
            };
            match cast {
                Ok(()) => taken.push(message),
                Err(CastError::Full { .. } | CastError::NoFrame(_)) => world.step(),
                Err(error) => panic!("{error}"),
            }
        }
        let all = taken.len();
        stepped_until(&mut world, |world| world.nodes.iter().all(|node| node.log.casts.len() >= all));
        assert!(world.delivered(1, 0) == taken && world.delivered(0, 0) == taken, "window {window_frames}");
        assert!(taken.len() > 10, "{}", taken.len());
    }
}
